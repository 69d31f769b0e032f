//! When a stay may be closed: entries that name it are satisfied from then on.

use entail::cluster::map::PeerState;
use entail::error::Code;
use entail::machine::message::Wanted;
use entail::types::ShardId;

use super::{Script, is_bound, is_fill, is_operations, is_report, is_words, moving, state_at};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::workload::Said;

const WAITS: Said = Said::Error(Code::DependenciesUnsatisfied);

/// One shard of so many nodes, and a write of node 2 that node 1 alone has beside it: the key.
pub fn a_write_that_two_have(s: &mut Script) -> usize {
    let x = s.key(1, 0);
    s.hold(Some(1), None, is_report);
    for other in 2..s.world.nodes.len() {
        s.hold(Some(1), Some(other), is_operations);
        s.hold(Some(0), Some(other), is_report);
    }
    assert_eq!(s.ask(0, Kind::Put, x, 1), Said::Written(2));
    s.hold(Some(0), Some(1), is_report);
    x
}

/// A node loses its disk and is back with an empty one; the others know that its stay is lost.
fn lose(s: &mut Script, n: usize, by: usize) {
    s.take_disk(n);
    s.start(n);
    s.until("it is bound anew", |world| is_bound(world, by, n));
}

/// `CloseWhole`: node 1 leaves with a write that is not its own, of a node whose disk is lost.
pub fn who_leaves_holds_a_write_of_a_lost_disk(clauses: Clauses) {
    let mut s = Script::with(4, 1, clauses, moving(0));
    let x = a_write_that_two_have(&mut s);
    s.hold(Some(0), None, is_fill);
    lose(&mut s, 1, 2);
    let id = s.begin_change(2, Wanted::Remove(s.addr(0)));
    s.wait(1_500);
    s.let_go(true);
    s.done(id);
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, 2), Said::Value(0));
}

/// `LostAll` and `LostLeaving`: the other one who has a write of a lost disk is cut off, and was made Leaving.
pub fn who_is_away_holds_a_write_of_a_lost_disk(clauses: Clauses) {
    let mut s = Script::with(5, 1, clauses, moving(0));
    let x = a_write_that_two_have(&mut s);
    s.cut_off(&[0]);
    s.wait(60_000);
    s.until("it is made Leaving", |world| state_at(world, 2, 0, 0) == Some(PeerState::Leaving));
    lose(&mut s, 1, 2);
    s.wait(1_500);
    assert_eq!(s.ask(0, Kind::Get, x, 2), WAITS);
    s.let_go(false);
    s.heal();
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, 2), Said::Value(0));
}

/// `LostJoining`: the other one who has a write of a lost disk is joining.
pub fn who_joins_holds_a_write_of_a_lost_disk(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(1));
    let (x, joins) = (s.key(1, 0), 3);
    s.hold(Some(joins), None, is_words);
    let id = s.begin_change(0, Wanted::AddMember { shard: ShardId(1), node: s.addr(joins) });
    s.until("it joins", |world| state_at(world, joins, joins, 0) == Some(PeerState::Joining));
    s.wait(500);
    s.hold(Some(joins), None, is_report);
    for other in [0, 2] {
        s.hold(Some(1), Some(other), is_operations);
        s.hold(Some(1), Some(other), is_report);
    }
    assert_eq!(s.ask(0, Kind::Put, x, 1), Said::Written(1));
    lose(&mut s, 1, 0);
    s.wait(1_500);
    assert_eq!(s.ask(0, Kind::Get, x, 2), WAITS);
    s.let_go(true);
    s.done(id);
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, 2), Said::Value(0));
}

/// `LostThen`: two disks are lost one after the other. What the second had given on after the others told of the first
/// is told only under the version that comes.
pub fn words_without_one_that_is_lost_now(clauses: Clauses) {
    let mut s = Script::with(5, 1, clauses, moving(0));
    let x = a_write_that_two_have(&mut s);
    s.hold(Some(0), None, is_words);
    lose(&mut s, 1, 2);
    s.until("it serves again", |world| state_at(world, 2, 1, 0) == Some(PeerState::Serving));
    s.wait(500);
    // Node 3 gets it by a fill from node 1, and nobody else hears of it.
    for other in [1, 3, 4] {
        s.hold(Some(2), Some(other), is_report);
    }
    s.world.network.holds.retain(|hold| (hold.from, hold.to) != (Some(0), Some(2)));
    s.until("it is filled", |world| world.item(2, x).is_some());
    s.wait(100);
    lose(&mut s, 0, 2);
    s.wait(500);
    assert_eq!(s.ask(0, Kind::Get, x, 3), WAITS);
    s.let_go(false);
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, 3), Said::Value(0));
}

/// `CloseTwo`: who leaves is kept until two serve: the disk of the one that does is lost next.
pub fn who_leaves_is_the_second_copy(clauses: Clauses) {
    let mut s = Script::with(5, 2, clauses, |settings| {
        moving(0)(settings);
        settings.write_copies = 3;
    });
    let (one, two) = (s.members(1), s.members(2));
    let [leaves, serves, down] = one[..] else { panic!("three nodes are in shard 1, not {one:?}") };
    let x = s.key(1, 0);
    assert_eq!(s.ask(0, Kind::Put, x, leaves), Said::Written(3));
    s.rests();
    // It is back without its disk, heard by shard 2 alone, and down again before it joins.
    s.take_disk(down);
    s.cut_between(&[down], &[leaves, serves]);
    s.start(down);
    s.until("it is bound anew", |world| is_bound(world, two[0], down));
    s.wait(1_000);
    s.kill(down);
    s.wait(4_000);
    s.begin_change(two[0], Wanted::Remove(s.addr(leaves)));
    s.wait(2_000);
    s.take_disk(serves);
    s.start(serves);
    s.wait(4_000);
    s.change(two[0], Wanted::Forget { node: s.addr(serves), confirmed: true });
    s.heal();
    s.start(down);
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, down), Said::Value(0));
}

/// `CloseLive`: who leaves has all that is left, as the disk of the one that serves is lost, which nobody knows.
pub fn who_leaves_is_not_closed_on_the_word_of_one_who_is_silent(clauses: Clauses) {
    let mut s = Script::with(5, 2, clauses, moving(0));
    let (one, two) = (s.members(1), s.members(2));
    let x = s.key(2, 0);
    s.ask(0, Kind::Put, x, two[0]);
    s.rests();
    s.hold(Some(two[0]), None, is_words);
    s.begin_change(one[0], Wanted::Remove(s.addr(two[0])));
    s.until("it leaves", |world| state_at(world, one[0], two[0], 1) == Some(PeerState::Leaving));
    s.wait(500);
    s.take_disk(two[1]);
    s.wait(25_000);
    s.let_go(true);
    s.wait(2_000);
    s.change(one[0], Wanted::Forget { node: s.addr(two[1]), confirmed: true });
    s.start(two[1]);
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, two[1]), Said::Value(0));
}

/// `EmptySet`: who leaves has all that is left, and nobody serves.
pub fn who_leaves_has_all_that_is_left(clauses: Clauses) {
    let mut s = Script::with(5, 2, clauses, moving(0));
    let (one, two) = (s.members(1), s.members(2));
    let x = s.key(2, 0);
    s.ask(0, Kind::Put, x, two[0]);
    s.rests();
    s.hold(Some(two[0]), None, is_words);
    s.begin_change(one[0], Wanted::Remove(s.addr(two[0])));
    s.until("it leaves", |world| state_at(world, one[0], two[0], 1) == Some(PeerState::Leaving));
    s.take_disk(two[1]);
    s.wait(4_000);
    s.change(one[0], Wanted::Forget { node: s.addr(two[1]), confirmed: true });
    s.let_go(true);
    s.wait(2_000);
    s.start(two[1]);
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, two[1]), Said::Value(0));
}

/// `CloseServing`: who leaves has a write that one of those that serve has, and the other has not.
pub fn who_leaves_has_a_write_that_one_lacks(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    let x = a_write_that_two_have(&mut s);
    s.begin_change(0, Wanted::Remove(s.addr(1)));
    s.wait(2_000);
    assert_eq!(s.ask(0, Kind::Get, x, 2), WAITS);
    s.let_go(true);
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, 2), Said::Value(0));
}
