//! What each state of a peer means: who answers, who counts, who makes up stability.

use entail::cluster::map::PeerState;
use entail::error::Code;
use entail::machine::message::Wanted;
use entail::types::ShardId;

use super::{Script, is_operations, is_report, is_words, moving, state_at};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::workload::Said;

/// Three nodes, of which the last leaves and has not told what it holds.
fn one_leaves(clauses: Clauses) -> (Script, usize) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    let leaves = 2;
    s.hold(Some(leaves), None, is_words);
    s.begin_change(0, Wanted::Remove(s.addr(leaves)));
    s.until("it leaves", |world| state_at(world, leaves, leaves, 0) == Some(PeerState::Leaving));
    s.wait(100);
    (s, leaves)
}

/// Two nodes and a third that joins, is filled, and has not told so.
fn one_joins(clauses: Clauses) -> (Script, usize) {
    let mut s = Script::with(2, 1, clauses, moving(1));
    let joins = 2;
    s.ask(3, Kind::Put, s.key(1, 1), 0);
    s.rests();
    s.hold(Some(joins), None, is_words);
    s.begin_change(0, Wanted::AddMember { shard: ShardId(1), node: s.addr(joins) });
    s.until("it joins", |world| state_at(world, joins, joins, 0) == Some(PeerState::Joining));
    s.wait(500);
    (s, joins)
}

/// `LeaveReads`: who leaves gets no writes any more, and lacks what is stable without it.
pub fn a_read_at_one_who_leaves(clauses: Clauses) {
    let (mut s, leaves) = one_leaves(clauses);
    let x = s.key(1, 0);
    s.ask(0, Kind::Put, x, 0);
    s.wait(3_000);
    s.ask(1, Kind::Get, x, 1);
    assert_eq!(s.ask(1, Kind::Get, x, leaves), Said::Value(0));
    s.let_go(true);
    s.rests();
}

/// `LeaveWrites`: with its first word a stay is closed: what it wrote later is in no word.
pub fn a_write_at_one_who_leaves(clauses: Clauses) {
    let (mut s, leaves) = one_leaves(clauses);
    let x = s.key(1, 0);
    s.hold(Some(leaves), Some(1), is_operations);
    s.hold(Some(0), Some(1), is_report);
    s.hold(Some(leaves), Some(1), is_report);
    s.ask(0, Kind::Put, x, leaves);
    s.world.network.holds.retain(|hold| hold.to.is_some());
    s.wait(3_000);
    assert_eq!(s.ask(0, Kind::Get, x, 1), Said::Value(0));
    s.let_go(true);
    s.rests();
}

/// `CountServing`: who joins is no copy: when nobody wants it any more, what it holds is dropped.
pub fn a_copy_at_one_who_joins(clauses: Clauses) {
    let (mut s, joins) = one_joins(clauses);
    let x = s.key(1, 0);
    s.kill(1);
    s.ask(0, Kind::Put, x, 0);
    s.change(0, Wanted::Cancel);
    s.until("it is removed", |world| state_at(world, joins, joins, 0).is_none());
    s.wait(500);
    s.take_disk(0);
    s.wait(10);
    s.start(0);
    s.start(1);
    s.rests();
}

/// `StableJoining`: who joins serves with what was told before; what is written meanwhile is open until it has it.
pub fn a_write_while_one_joins(clauses: Clauses) {
    let (mut s, joins) = one_joins(clauses);
    let x = s.key(1, 0);
    for other in [0, 1] {
        s.hold(Some(other), Some(joins), is_operations);
        s.hold(Some(other), Some(joins), is_report);
    }
    s.ask(0, Kind::Put, x, 0);
    s.wait(3_000);
    s.ask(1, Kind::Get, x, 1);
    s.world.network.holds.retain(|hold| hold.to.is_some());
    s.until_it_serves(joins);
    assert_eq!(s.ask(1, Kind::Get, x, joins), Said::Error(Code::DependenciesUnsatisfied));
    s.let_go(true);
    s.rests();
    assert_eq!(s.ask(1, Kind::Get, x, joins), Said::Value(1));
}

/// `CollectServing`: who was made Leaving while it was cut off has the value, and takes nothing until it is back.
pub fn a_tombstone_while_one_is_away(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    let (x, away) = (s.key(1, 0), 2);
    s.ask(0, Kind::Put, x, 0);
    s.rests();
    s.cut_off(&[away]);
    s.wait(60_000);
    s.until("it is made Leaving", |world| state_at(world, 0, away, 0) == Some(PeerState::Leaving));
    s.ask(1, Kind::Get, x, 0);
    s.ask(1, Kind::Delete, x, 0);
    s.wait(6_000);
    s.heal();
    s.wait(3_000);
    s.until_it_serves(away);
    assert_eq!(s.ask(1, Kind::Get, x, away), Said::Nothing);
    s.rests();
}
