//! What a replica may hold, take over and promise.

use entail::cluster::map::PeerState;
use entail::machine::message::{Message, Wanted};
use entail::types::ShardId;

use super::{Script, is_chunk, is_map, is_operations, is_report, moving, state_at};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::workload::Said;

/// `FillClock`: a tombstone of a fast clock is collected before a node joins: nothing but the source's clock tells it
/// how late it is, also to a client that finds nothing there and writes.
pub fn a_tombstone_of_a_fast_clock(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, moving(1));
    let (x, late) = (s.key(1, 0), 2);
    s.world.nodes[0].skew_ms = 50_000;
    s.ask(0, Kind::Put, x, 0);
    s.ask(0, Kind::Delete, x, 0);
    s.until_collected(&[0, 1]);
    s.add_member(0, 1, late);
    s.ask(1, Kind::Get, x, late);
    s.ask(1, Kind::Put, x, late);
    s.rests();
}

/// `FirstFill`: one who joins takes a value from a stream, then a fill from a peer that has collected its tombstone.
pub fn a_value_before_the_first_fill(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, moving(1));
    let (x, late) = (s.key(1, 0), 2);
    // Node 1 does not learn that node 2 has its write, and keeps it in its log.
    s.hold(Some(1), Some(0), is_report);
    assert_eq!(s.ask(0, Kind::Put, x, 0), Said::Written(1));
    // Who deletes it has seen it, and must not see it again.
    assert_eq!(s.ask(1, Kind::Get, x, 1), Said::Value(0));
    assert_eq!(s.ask(1, Kind::Delete, x, 1), Said::Written(2));
    s.until_collected(&[1]);
    s.hold(Some(0), Some(late), is_report);
    let id = s.begin_change(1, Wanted::AddMember { shard: ShardId(1), node: s.addr(late) });
    s.hold(Some(1), Some(late), is_report);
    s.until("it joins", |world| state_at(world, late, late, 0) == Some(PeerState::Joining));
    s.wait(700);
    s.world.network.holds.pop();
    s.done(id);
    s.until_it_serves(late);
    assert_eq!(s.ask(1, Kind::Get, x, late), Said::Nothing);
    s.let_go(true);
    s.rests();
}

/// `KeepKnown`: a node left a partition and was closed, did not hear of it, and is named anew. What it holds may lack
/// what was closed, and collected, without it.
pub fn a_replica_of_a_closed_stay(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    let (x, away) = (s.key(1, 0), 2);
    s.ask(0, Kind::Put, x, 0);
    s.rests();
    let (node, again) = (s.addr(away), s.addr(away));
    let removed = s.begin_change(0, Wanted::Remove(node.clone()));
    s.until("it leaves", |world| state_at(world, away, away, 0) == Some(PeerState::Leaving));
    s.hold(None, Some(away), is_map);
    s.done(removed);
    s.ask(1, Kind::Get, x, 0);
    s.ask(1, Kind::Delete, x, 0);
    s.until_collected(&[0, 1]);
    s.change(0, Wanted::Admit(node));
    let added = s.begin_change(0, Wanted::AddMember { shard: ShardId(1), node: again });
    s.until("it is named anew", |world| state_at(world, 0, away, 0) == Some(PeerState::Joining));
    s.let_go(false);
    s.done(added);
    s.until_it_serves(away);
    assert_eq!(s.ask(1, Kind::Get, x, away), Said::Nothing);
    s.rests();
}

/// `DropUnapplied`: the second write of a node waits for the first, which is lost with its disk, and so is its stay.
pub fn a_write_that_waits_for_one_that_is_lost(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    let (x, y, writer) = (s.key(1, 0), s.key(1, 1), 2);
    s.hold(Some(writer), None, is_report);
    s.hold(Some(writer), Some(1), is_operations);
    // The first is sent again and again, and the second once alone.
    s.hold(Some(writer), Some(0), has_first);
    s.begin(0, Kind::Put, x, writer, 5_000);
    s.wait(20);
    s.begin(1, Kind::Put, y, writer, 5_000);
    s.until("it waits", |world| world.machine(0).partition_status()[0].unapplied > 0);
    s.take_disk(writer);
    s.let_go(false);
    s.start(writer);
    s.rests();
}

/// True for operations of which one is the first of its stay.
fn has_first(message: &Message) -> bool {
    matches!(message, Message::Operations { operations, .. } if operations.iter().any(|op| op.item.dot.seq == 1))
}

/// `PromiseSync`: a promise as of a write that a crash takes back would be waited for for ever, and no other taken.
pub fn a_promise_as_of_a_write_that_never_was(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, moving(0));
    let (x, y) = (s.key(1, 0), s.key(1, 1));
    s.ask(0, Kind::Put, x, 1);
    s.rests();
    s.freeze(0);
    s.begin(1, Kind::Put, y, 0, 8_000);
    s.wait(50);
    assert_eq!(s.ask(0, Kind::Delete, x, 1), Said::Written(1));
    s.wait(5_000);
    s.kill(0);
    s.world.nodes[0].frozen = false;
    s.start(0);
    s.rests();
}

/// `FillAttempt`: the first part of an attempt that was given up comes late, when its source has begun another, of a
/// later view.
pub fn a_part_of_an_attempt_that_was_given_up(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, |settings| {
        moving(1)(settings);
        settings.value_bytes = 200_000;
    });
    let joins = 2;
    for key in 0..12 {
        s.ask(0, Kind::Put, key, 0);
    }
    s.kill(1);
    s.hold(None, Some(joins), is_chunk);
    let id = s.begin_change(0, Wanted::AddMember { shard: ShardId(1), node: s.addr(joins) });
    s.until("it joins", |world| state_at(world, joins, joins, 0) == Some(PeerState::Joining));
    s.wait(200);
    // What is first in every part.
    s.ask(0, Kind::Put, 0, 0);
    s.wait(2_500);
    s.world.let_first_go();
    s.let_go(false);
    s.done(id);
    s.until_it_serves(joins);
    assert_eq!(s.ask(0, Kind::Get, 0, joins), Said::Value(12));
    s.start(1);
    s.rests();
}
