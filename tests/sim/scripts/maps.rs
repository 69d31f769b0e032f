//! What a change of the map must wait for.

use entail::cluster::map::PeerState;
use entail::machine::message::Wanted;

use super::{Script, moving, state_at, stored_epoch};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::workload::Said;

/// `Barrier`: a node that leaves has taken a write that is not durable yet. Its first word must name it: with that word
/// it is closed.
pub fn a_last_write_before_the_first_word(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    let (x, leaves) = (s.key(1, 0), 2);
    s.freeze(leaves);
    let node = s.addr(leaves);
    let id = s.begin_change(0, Wanted::Remove(node));
    let before = s.map(leaves).epoch;
    s.until("it has the map", |world| stored_epoch(world, leaves) > before);
    let map = s.mark(leaves);
    s.begin(0, Kind::Put, x, leaves, 10_000);
    s.wait(10);
    s.sync_to(leaves, map);
    s.until("it leaves", |world| state_at(world, leaves, leaves, 0) == Some(PeerState::Leaving));
    // Without the rule it is closed by now.
    s.wait(1_500);
    s.thaw(leaves);
    assert!(matches!(s.answer(0), Said::Written(_)));
    s.done(id);
    s.rests();
}
