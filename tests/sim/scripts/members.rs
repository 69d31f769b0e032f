//! What clients see of a clause of reconciliation that is off, as in `clients`: who serves is not who has what they wrote.

use entail::cluster::map::PeerState;
use entail::machine::message::Wanted;

use super::serving::moving_partition;
use super::{Script, is_fill, is_operations, moving, state_at};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::workload::Said;

/// A node is down for so long that it is made Leaving, which the others see.
fn is_away(s: &mut Script, n: usize, by: usize, partition: u32) {
    s.kill(n);
    s.wait(65_000);
    s.until("it is made Leaving", |world| state_at(world, by, n, partition) == Some(PeerState::Leaving));
}

/// `LastServing`: the last one that serves has taken a write alone, is started with a wrong directory, and then with the
/// right one. Who left before is back, without that write.
pub fn a_write_of_the_last(clauses: Clauses) {
    let mut s = Script::with(5, 2, clauses, moving(0));
    let ([last, away], x) = (s.members(2)[..].try_into().expect("two nodes"), s.key(2, 0));
    is_away(&mut s, away, last, 1);
    s.ask(0, Kind::Put, x, last);
    let right = s.swap_disk(last, None);
    s.start(last);
    s.wait(3_000);
    s.swap_disk(last, Some(right));
    s.start(last);
    s.wait(3_000);
    s.start(away);
    s.rests();
    s.ask(0, Kind::Get, x, away);
}

/// `GoneOther`: one of two that serve is started with a wrong directory when the disk of the other is lost: neither is
/// the other's support.
pub fn a_write_of_two_that_are_gone(clauses: Clauses) {
    let mut s = Script::with(5, 2, clauses, moving(0));
    let ([first, second], by, x) = (s.members(2)[..].try_into().expect("two"), s.members(1)[0], s.key(2, 0));
    s.excuses_nothing();
    s.ask(0, Kind::Put, x, first);
    s.rests();
    s.take_disk(second);
    let right = s.swap_disk(first, None);
    // Both are missed, and then heard at once.
    s.wait(4_000);
    for n in [first, second] {
        s.hold(Some(n), None, |_| true);
        s.start(n);
    }
    s.wait(400);
    s.let_go(true);
    s.wait(8_000);
    s.change(by, Wanted::Forget { node: s.addr(second), confirmed: true });
    s.wait(1_000);
    s.swap_disk(first, Some(right));
    s.start(first);
    s.rests();
    s.ask(0, Kind::Get, x, second);
}

/// A write is taken by a node whose disk is lost next. Whoever serves beside it has the write, too.
fn a_write_and_a_lost_disk(s: &mut Script, x: usize, n: usize, others: [usize; 2]) {
    s.ask(0, Kind::Put, x, n);
    s.take_disk(n);
    s.wait(4_000);
    s.let_go(false);
    let [by, reads] = others;
    s.change(by, Wanted::Forget { node: s.addr(n), confirmed: true });
    s.start(n);
    s.rests();
    s.ask(0, Kind::Get, x, reads);
}

/// `LeaveServe`: one is to leave, and does at once, while one of the two that stay is still being filled.
pub fn a_write_of_the_only_one_that_serves(clauses: Clauses) {
    let mut s = Script::with(5, 2, clauses, moving(0));
    let ([leaves, serves, joins], by) = (s.members(1)[..].try_into().expect("three"), s.members(2)[0]);
    let x = s.key(1, 0);
    s.excuses_nothing();
    s.ask(0, Kind::Put, x, serves);
    s.rests();
    s.hold(None, Some(joins), is_fill);
    s.take_disk(joins);
    s.start(joins);
    s.until("it joins", |world| state_at(world, serves, joins, 0) == Some(PeerState::Joining));
    s.begin_change(by, Wanted::Remove(s.addr(leaves)));
    s.wait(2_000);
    a_write_and_a_lost_disk(&mut s, x, serves, [by, joins]);
}

/// `LeaveTwo`: a partition moves to two nodes, of which one serves, and the other is down. Those that had it leave.
pub fn a_write_of_the_first_of_two(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, |settings| {
        moving(2)(settings);
        settings.partitions = 2;
    });
    let (serves, down) = (2, 3);
    s.excuses_nothing();
    for key in 0..s.world.oracle.keys.len() {
        s.ask(0, Kind::Put, key, 0);
    }
    s.hold(None, Some(down), is_fill);
    s.begin_change(0, Wanted::Reshard(2));
    let partition = moving_partition(&mut s);
    s.until("it serves", |world| state_at(world, serves, serves, partition) == Some(PeerState::Serving));
    s.kill(down);
    s.wait(2_000);
    let mut keys = 0..s.world.oracle.keys.len();
    let x = keys.find(|key| s.world.oracle.partition(*key).0 == partition).expect("each has keys");
    s.start(down);
    a_write_and_a_lost_disk(&mut s, x, serves, [0, 1]);
}

/// `KeepReplica`: a node that was cut off, and made Leaving, has taken a write, and sends it to nobody before it joins
/// anew, from what it holds.
pub fn a_late_write_that_is_not_sent(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    let (x, away) = (s.key(1, 0), 2);
    s.cut_off(&[away]);
    s.wait(60_000);
    s.until("it is made Leaving", |world| state_at(world, 0, away, 0) == Some(PeerState::Leaving));
    // The proposer lets steps gather no longer: the next map, in which it joins, comes as soon as it is back.
    s.wait(1_500);
    assert_eq!(s.ask(0, Kind::Put, x, away), Said::Written(1));
    s.hold(Some(away), None, is_operations);
    s.heal();
    s.wait(5_000);
    s.let_go(false);
    s.rests();
    let said = s.ask(0, Kind::Get, x, 0);
    // Whoever looks at the answers alone is told what clients saw, whatever that is.
    assert!(said == Said::Value(0) || clauses != Clauses::ALL, "{said:?}");
}
