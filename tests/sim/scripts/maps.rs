//! What a change of the map must wait for.

use entail::cluster::map::PeerState;
use entail::error::Code;
use entail::machine::message::Wanted;
use entail::types::ShardId;

use super::closing::a_write_that_two_have;
use super::{Script, is_words, moving, state_at, stored_epoch};
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

/// `DurableMap`: a node dies with a map that is not durable yet. It must not have acted under it.
pub fn a_map_that_a_crash_takes_back(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(1));
    let (dies, before) = (2, s.map(2).epoch);
    s.freeze(dies);
    let node = s.addr(3);
    let id = s.begin_change(0, Wanted::AddMember { shard: ShardId(1), node });
    s.until("it has the map", |world| stored_epoch(world, dies) > before);
    s.wait(10);
    s.kill(dies);
    s.world.nodes[dies].frozen = false;
    s.start(dies);
    s.done(id);
    s.rests();
}

/// `Versions`: a node told what it held when another joined. Later it leaves, with a write that it has taken since.
pub fn a_word_of_an_older_version(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(1));
    s.add_member(0, 1, 3);
    s.rests();
    let x = a_write_that_two_have(&mut s);
    s.hold(Some(1), None, is_words);
    s.begin_change(0, Wanted::Remove(s.addr(1)));
    s.wait(2_000);
    assert_eq!(s.ask(0, Kind::Get, x, 2), Said::Error(Code::DependenciesUnsatisfied));
    s.let_go(true);
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, 2), Said::Value(0));
}

/// `StayNew`: a node left, and is named again: under a number that nobody had. No acceptor takes another.
pub fn a_node_that_is_named_again(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    let node = s.addr(2);
    s.change(0, Wanted::Remove(node.clone()));
    s.change(0, Wanted::Admit(node));
    s.add_member(0, 1, 2);
    s.rests();
}
