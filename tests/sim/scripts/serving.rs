//! Who serves a partition, and that somebody does.

use entail::cluster::map::{PeerState, Row};
use entail::error::Code;
use entail::machine::message::Wanted;

use super::{Script, is_fill, is_map, moving, state_at};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::workload::Said;
use crate::world::World;

/// A store of three nodes in shard 1 and two in shard 2: the members of both.
fn two_shards(clauses: Clauses) -> (Script, Vec<usize>, Vec<usize>) {
    let s = Script::with(5, 2, clauses, moving(0));
    let (one, two) = (s.members(1), s.members(2));
    assert_eq!((one.len(), two.len()), (3, 2));
    (s, one, two)
}

/// `NobodyAll`: one that left early and one that left late have all that is left. The first is filled by the second
/// before it serves again.
pub fn who_left_early_is_back(clauses: Clauses) {
    let (mut s, early, x) = nobody_serves(clauses);
    s.hold(None, Some(early), is_fill);
    s.heal();
    s.wait(1_500);
    let said = s.ask(1, Kind::Get, x, early);
    assert_eq!(said, Said::Error(Code::ShardUnavailable));
    s.let_go(true);
    s.until_it_serves(early);
    assert_eq!(s.ask(1, Kind::Get, x, early), Said::Value(0));
}

/// A node is cut off and made Leaving; another leaves by the operator's wish; the third dies and is given up. Client B
/// has read a key whose write was stable meanwhile. The first of them, and the key.
fn nobody_serves(clauses: Clauses) -> (Script, usize, usize) {
    let (mut s, one, two) = two_shards(clauses);
    let ([early, late, dies], x) = (one[..].try_into().expect("three nodes"), s.key(1, 0));
    s.cut_off(&[early]);
    s.wait(60_000);
    s.until("it is made Leaving", |world| state_at(world, late, early, 0) == Some(PeerState::Leaving));
    s.ask(0, Kind::Put, x, late);
    s.wait(3_000);
    s.ask(1, Kind::Get, x, late);
    s.begin_change(two[0], Wanted::Remove(s.addr(late)));
    s.until("it leaves", |world| state_at(world, two[0], late, 0) == Some(PeerState::Leaving));
    s.take_disk(dies);
    s.world.nodes[dies].dead = true;
    s.wait(4_000);
    s.change(two[0], Wanted::Forget { node: s.addr(dies), confirmed: true });
    (s, early, x)
}

/// `LastServing`: the last one that serves is started with a wrong directory, and then with the right one.
pub fn a_wrong_directory_of_the_last(clauses: Clauses) {
    let (mut s, one, two) = two_shards(clauses);
    let x = s.key(2, 0);
    s.ask(0, Kind::Put, x, two[0]);
    s.rests();
    s.kill(two[1]);
    s.wait(65_000);
    s.until("it is made Leaving", |world| state_at(world, one[0], two[1], 1) == Some(PeerState::Leaving));
    let right = s.swap_disk(two[0], None);
    s.start(two[0]);
    s.wait(3_000);
    s.swap_disk(two[0], Some(right));
    s.start(two[0]);
    s.wait(3_000);
    assert_eq!(s.ask(0, Kind::Get, x, two[0]), Said::Value(0));
    s.start(two[1]);
    s.rests();
}

/// `GoneOther`: both that serve are started with wrong directories; one gets its right one back.
pub fn wrong_directories_of_both(clauses: Clauses) {
    let (mut s, _, two) = two_shards(clauses);
    let x = s.key(2, 0);
    s.ask(0, Kind::Put, x, two[0]);
    s.rests();
    let rights = [0, 1].map(|at| s.swap_disk(two[at], None));
    // Both are missed, and then heard at once: seen one after the other, the second is no other's support any more.
    s.wait(4_000);
    two.iter().for_each(|n| s.hold(Some(*n), None, |_| true));
    two.iter().for_each(|n| s.start(*n));
    s.wait(400);
    s.let_go(true);
    s.wait(3_000);
    let [first, second] = rights;
    s.swap_disk(two[0], Some(first));
    s.start(two[0]);
    s.wait(3_000);
    assert_eq!(s.ask(0, Kind::Get, x, two[0]), Said::Value(0));
    s.swap_disk(two[1], Some(second));
    s.start(two[1]);
    s.rests();
}

/// `AbsentOther`: both that serve are down for more than a minute; one is back.
pub fn one_of_two_that_were_away(clauses: Clauses) {
    let (mut s, _, two) = two_shards(clauses);
    let x = s.key(2, 0);
    s.ask(0, Kind::Put, x, two[0]);
    s.rests();
    two.iter().for_each(|n| s.kill(*n));
    s.wait(66_000);
    s.start(two[0]);
    s.wait(3_000);
    assert_eq!(s.ask(0, Kind::Get, x, two[0]), Said::Value(0));
    s.start(two[1]);
    s.rests();
}

/// `LeaveTwo`: of two nodes that a partition moves to, one is down; the other loses its disk.
pub fn one_of_two_that_are_wanted(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, |settings| {
        moving(2)(settings);
        settings.partitions = 2;
    });
    let keys = [s.key(1, 0), s.key(1, 1), s.key(1, 2), s.key(1, 3)];
    for key in keys {
        s.ask(0, Kind::Put, key, 0);
    }
    s.hold(None, Some(3), is_fill);
    s.begin_change(0, Wanted::Reshard(2));
    let serves_somewhere =
        |world: &World| (0..2).any(|partition| state_at(world, 0, 2, partition) == Some(PeerState::Serving));
    s.until("one of them serves", serves_somewhere);
    s.kill(3);
    s.wait(1_500);
    s.take_disk(2);
    s.start(2);
    s.wait(2_000);
    for (write, key) in keys.into_iter().enumerate() {
        assert_eq!(s.ask(0, Kind::Get, key, 0), Said::Value(write));
    }
    s.let_go(false);
    s.start(3);
    s.rests();
}

/// `InTurn`: who serves, and who may leave therefore, are in one map.
pub fn who_is_promoted_and_who_leaves(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, |settings| {
        moving(2)(settings);
        settings.partitions = 2;
    });
    s.change(0, Wanted::Reshard(2));
    s.rests();
    let all_serve = |row: &Row| row.peers.values().filter(|peer| peer.serves()).count() == 4;
    let rows = || s.world.maps.values().flat_map(|map| &map.rows);
    assert!(!rows().any(all_serve), "a map more than it takes");
}

/// One of three is cut off and made Leaving, one loses its disk and joins anew, one dies and is given up: the key, and
/// who is cut off and who joins.
fn one_is_left_and_away(clauses: Clauses) -> (Script, usize, usize, usize) {
    let (mut s, one, two) = two_shards(clauses);
    let ([away, joins, dies], x) = (one[..].try_into().expect("three nodes"), s.key(1, 0));
    s.ask(0, Kind::Put, x, away);
    s.rests();
    // Stable by now, and left out of the context.
    s.ask(1, Kind::Get, x, away);
    s.cut_off(&[away]);
    s.wait(60_000);
    s.until("it is made Leaving", |world| state_at(world, dies, away, 0) == Some(PeerState::Leaving));
    s.hold(None, Some(joins), is_fill);
    s.take_disk(joins);
    s.start(joins);
    s.until("it joins", |world| state_at(world, dies, joins, 0) == Some(PeerState::Joining));
    s.take_disk(dies);
    s.world.nodes[dies].dead = true;
    s.wait(4_000);
    s.change(two[0], Wanted::Forget { node: s.addr(dies), confirmed: true });
    (s, away, joins, x)
}

/// `EmptyAll`: what is left is with one that is away, and will be back.
pub fn what_is_left_is_away(clauses: Clauses) {
    let (mut s, _, joins, x) = one_is_left_and_away(clauses);
    s.wait(2_000);
    assert_eq!(s.ask(1, Kind::Get, x, joins), Said::Error(Code::ShardUnavailable));
    s.let_go(false);
    s.heal();
    s.rests();
    assert_eq!(s.ask(1, Kind::Get, x, joins), Said::Value(0));
}

/// `EmptyNew`: the only one that serves dies while the other is being filled, and is given up. Whoever begins anew does
/// so under a new name: no acceptor takes a map that makes an old one more than it was, and the partition would wait
/// until the fill has stood still for long enough.
pub fn who_joins_begins_anew(clauses: Clauses) {
    let (mut s, one, two) = two_shards(clauses);
    let x = s.key(2, 0);
    s.ask(0, Kind::Put, x, two[0]);
    s.rests();
    s.hold(None, Some(two[1]), is_fill);
    s.take_disk(two[1]);
    s.start(two[1]);
    s.until("it joins", |world| state_at(world, one[0], two[1], 1) == Some(PeerState::Joining));
    s.take_disk(two[0]);
    s.world.nodes[two[0]].dead = true;
    s.wait(4_000);
    s.change(one[0], Wanted::Forget { node: s.addr(two[0]), confirmed: true });
    s.let_go(false);
    s.until("it serves", |world| state_at(world, two[1], two[1], 1) == Some(PeerState::Serving));
    // What is left of the fill is removed first.
    s.wait(100);
    assert_eq!(s.ask(0, Kind::Get, x, two[1]), Said::Nothing);
    s.rests();
}

/// Two nodes and two that come, and four keys in two partitions, of which one is to move to those that come. Client B
/// has read them all, and they are stable.
fn two_come(clauses: Clauses) -> (Script, Vec<usize>) {
    let mut s = Script::with(2, 1, clauses, |settings| {
        moving(2)(settings);
        settings.partitions = 2;
    });
    let keys: Vec<usize> = (0..4).map(|nth| s.key(1, nth)).collect();
    for key in &keys {
        s.ask(0, Kind::Put, *key, 0);
    }
    s.rests();
    for key in &keys {
        s.ask(1, Kind::Get, *key, 0);
    }
    (s, keys)
}

/// The partition that moves to those that come, once it does.
pub fn moving_partition(s: &mut Script) -> u32 {
    let moves = |world: &World| (0..2).find(|partition| state_at(world, 0, 2, *partition).is_some());
    s.until("a partition moves", |world| moves(world).is_some());
    moves(&s.world).expect("just seen")
}

/// `PromoteTold`: who joins has nothing yet.
pub fn who_joins_has_nothing(clauses: Clauses) {
    let (mut s, keys) = two_come(clauses);
    s.hold(None, None, is_fill);
    s.begin_change(0, Wanted::Reshard(2));
    s.wait(2_000);
    for (write, key) in keys.into_iter().enumerate() {
        assert_eq!(s.ask(1, Kind::Get, key, 2), Said::Value(write));
    }
    s.let_go(false);
    s.rests();
}

/// `PromoteServing`: one that joins is filled and serves; the other has all that this one told, before it was filled.
pub fn who_joins_has_what_another_one_had(clauses: Clauses) {
    let (mut s, keys) = two_come(clauses);
    s.hold(None, Some(3), is_fill);
    s.begin_change(0, Wanted::Reshard(2));
    let partition = moving_partition(&mut s);
    s.until("it serves", |world| state_at(world, 0, 2, partition) == Some(PeerState::Serving));
    s.wait(1_000);
    for (write, key) in keys.into_iter().enumerate() {
        assert_eq!(s.ask(1, Kind::Get, key, 3), Said::Value(write));
    }
    s.let_go(false);
    s.rests();
}

/// `LeaveServe`: all that serve would leave at once, and no acceptor takes that.
pub fn who_is_wanted_does_not_serve_yet(clauses: Clauses) {
    let (mut s, _) = two_come(clauses);
    s.change(0, Wanted::Reshard(2));
    s.rests();
}

/// `CloseLeaving`: one that leaves does not know it yet, and takes a write. What it told while it served does not name
/// it. No acceptor takes a map that closes it at once.
pub fn who_leaves_does_not_know_it(clauses: Clauses) {
    let (mut s, keys) = two_come(clauses);
    s.hold(None, None, is_fill);
    let id = s.begin_change(0, Wanted::Reshard(2));
    let partition = moving_partition(&mut s);
    s.until("it knows who joins", |world| state_at(world, 1, 2, partition).is_some());
    s.wait(500);
    s.let_go(false);
    s.hold(None, Some(1), is_map);
    s.until("it is made Leaving", |world| state_at(world, 0, 1, partition) != Some(PeerState::Serving));
    let x = keys.into_iter().find(|key| s.world.oracle.partition(*key).0 == partition).expect("two are in each");
    assert_eq!(s.ask(0, Kind::Put, x, 1), Said::Written(1));
    s.let_go(true);
    s.done(id);
    s.rests();
    assert_eq!(s.ask(0, Kind::Get, x, 2), Said::Value(4));
}
