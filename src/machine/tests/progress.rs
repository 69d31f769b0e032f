//! Where a reshard stands, as any node tells it.

use super::*;
use crate::machine::message::Wanted;
use crate::machine::sign::{Ping, Served};
use crate::machine::{ReshardState, ReshardStatus};

impl Lockstep {
    fn reshard_at(&self, number: usize) -> ReshardStatus {
        self.machine(number).reshard_status(self.now)
    }

    fn ask_change(&mut self, at: usize, wanted: Wanted) {
        self.asked += 1;
        self.step(&node(at), Input::Change { id: self.asked, wanted, budget_ms: 5_000 });
        self.settle();
    }

    /// Forty keys, with values that take a while to be copied at the least rate.
    fn forty(&mut self) {
        for n in 0..40 {
            self.put(1, &format!("key{n}"), &"x".repeat(1_000), &Context::empty());
        }
    }

    /// Runs on until a partition is being filled at some node.
    fn run_until_joining(&mut self, number: usize) -> ReshardStatus {
        for _ in 0..500 {
            let told = self.reshard_at(number);
            if told.joining > 0 {
                return told;
            }
            self.run_ms(10);
        }
        panic!("nothing joins: {:?}", self.reshard_at(number));
    }
}

#[test]
fn there_is_none_before_the_first() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let none = all.reshard_at(3);
    assert_eq!((none.state, none.shards, none.partitions), (ReshardState::None, 2, 8));
    assert_eq!((none.to_move, none.keys, none.bytes, none.elapsed_ms), (0, (0, 0), (0, 0), 0));
}

#[test]
fn it_only_grows_and_ends_with_everything_moved() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.forty();
    all.ask_change(2, Wanted::Reshard(3));
    let (mut last, mut seen) = (all.run_until_joining(5), 0);
    assert_eq!((last.state, last.shards, last.partitions), (ReshardState::Running, 3, 8));
    assert!(last.to_move > 0 && last.to_move < 8, "{last:?}");
    while all.reshard_at(5).state == ReshardState::Running {
        let told = all.reshard_at(5);
        assert_eq!((told.to_move, told.waiting_for.len()), (last.to_move, 0), "{told:?}");
        assert!(told.moved >= last.moved && told.elapsed_ms >= last.elapsed_ms, "{told:?} after {last:?}");
        assert!(told.moved + told.joining <= told.to_move, "{told:?}");
        assert!(told.keys.0 <= told.keys.1 && told.bytes.0 <= told.bytes.1, "{told:?}");
        (last, seen) = (told, seen + 1);
        all.run_ms(10);
    }
    assert!(seen > 2, "seen {seen} times under way");
    for number in 1..=6 {
        let done = all.reshard_at(number);
        assert_eq!((done.state, done.shards, done.joining), (ReshardState::Done, 3, 0), "node{number}");
        assert_eq!((done.moved, done.keys.0, done.bytes.0), (done.to_move, done.keys.1, done.bytes.1), "{done:?}");
        assert!(done.keys.1 > 0 && done.bytes.1 > 1_000, "{done:?}");
    }
    let took = all.reshard_at(1).elapsed_ms;
    all.run_ms(1_000);
    assert_eq!(all.reshard_at(1).elapsed_ms, took, "what is over takes no longer");
}

#[test]
fn one_that_is_called_off_is_cancelled_and_the_next_begins_anew() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.forty();
    all.ask_change(2, Wanted::Reshard(3));
    all.run_until_joining(4);
    all.ask_change(6, Wanted::Cancel);
    all.run_ms(4_000);
    for number in 1..=6 {
        assert_eq!(all.reshard_at(number).state, ReshardState::Cancelled, "node{number}");
    }
    all.ask_change(2, Wanted::Reshard(3));
    let again = all.run_until_joining(4);
    assert_eq!(again.state, ReshardState::Running);
    assert!(again.elapsed_ms < 1_000, "{again:?}");
}

#[test]
fn a_node_that_serves_nothing_tells_sizes_too() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    for n in 0..400 {
        all.put(1, &format!("key{n}"), &"x".repeat(1_000), &Context::empty());
    }
    assert_eq!(all.change(1, Wanted::Remove(node(6))), Ok(0));
    assert_eq!(all.change(1, Wanted::Admit(node(6))), Ok(0));
    all.throttle(16 << 10);
    all.ask_change(1, Wanted::AddMember { shard: ShardId(1), node: node(6) });
    all.run_until_joining(6);
    let served = all.machine(6).partition_status().iter().filter(|part| part.keys > 0).count();
    assert_eq!(served, 0, "nothing yet");
    let (there, here) = (all.reshard_at(1), all.reshard_at(6));
    assert_eq!((here.state, here.to_move), (ReshardState::Running, there.to_move));
    for (here, there) in [(here.keys.1, there.keys.1), (here.bytes.1, there.bytes.1)] {
        assert!(there > 100 && here.abs_diff(there) <= there / 4, "{here} where node1 knows of {there}");
    }
    // Who is not heard is not there to tell.
    for number in 1..=5 {
        all.stop(number);
    }
    assert_eq!((all.reshard_at(6).keys.1, all.reshard_at(6).bytes.1), (0, 0));
}

#[test]
fn sizes_that_nobody_can_have_overflow_nothing() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.ask_change(2, Wanted::Reshard(3));
    all.run_until_joining(3);
    let lie = |all: &mut Lockstep, partitions: u64| {
        // Four times that is nothing, where a sum goes round.
        for number in [1, 2, 4, 5] {
            let served = Served { partitions, keys: 1 << 63, bytes: 1 << 63 };
            let ping = Ping { served, ..all.machine(number).sign_of_life(all.now) };
            let incarnation = all.machine(number).incarnation();
            let message = Message::Ping(ping.into());
            all.step(&node(3), Input::Message { from: node(number), incarnation, message });
        }
        all.reshard_at(3)
    };
    let told = lie(&mut all, 0);
    assert!(told.keys.1 > 1 << 60 && told.bytes.1 > 1 << 60, "the sum is the most there is: {told:?}");
    let told = lie(&mut all, u64::MAX);
    assert!(told.keys.1 < 100, "{told:?}");
}

#[test]
fn a_new_layout_makes_haste_while_copies_are_missing() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.throttle(16 << 10);
    for n in 0..40 {
        all.put(1, &format!("key{n}"), &"x".repeat(20_000), &Context::empty());
    }
    all.worked.clear();
    all.ask_change(2, Wanted::Reshard(3));
    all.run_until_joining(3);
    all.run_ms(500);
    assert!(!all.worked.is_empty() && all.worked.iter().all(|(_, spare)| *spare == Spare::Layout), "{:?}", all.worked);
    all.worked.clear();
    all.stop(4);
    all.run_ms(500);
    assert!(!all.worked.is_empty() && all.worked.iter().all(|(_, spare)| *spare == Spare::Copies), "{:?}", all.worked);
}

#[test]
fn the_log_tells_how_far_it_is() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.throttle(16 << 10);
    for n in 0..40 {
        all.put(1, &format!("key{n}"), &"x".repeat(20_000), &Context::empty());
    }
    assert!(all.notes.is_empty(), "{:?}", all.notes);
    let asked = all.begin_change(2, Wanted::Reshard(3));
    assert_eq!(all.changed(asked), Ok(0));
    all.run_ms(1_000);
    for number in 1..=6 {
        let lines: Vec<_> = all.notes.iter().filter(|(at, _)| *at == node(number)).map(|(_, text)| text).collect();
        let (first, last) = (lines.first().unwrap(), lines.last().unwrap());
        assert!(first.starts_with("change of the shards, 3 in all: under way"), "node{number}: {first}");
        assert!(last.contains("3 in all: done") && lines.len() >= 2, "node{number}: {lines:?}");
        let (moved, bytes) = (all.reshard_at(number).to_move, all.reshard_at(number).bytes.1);
        assert!(last.contains(&format!("{moved} of {moved} partitions")), "{last}");
        assert!(last.contains(&format!("{bytes} of {bytes} bytes")), "{last}");
    }
    let told = all.notes.len();
    all.run_ms(60_000);
    assert_eq!(all.notes.len(), told, "what is over is told once");
}

#[test]
fn it_names_whom_it_waits_for() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.forty();
    // With every source of its fills cut off from it, this one can't become what the target wants.
    let target = all.machine(1).map().layout.shards[1][2].clone();
    all.cut = (1..=6).map(node).filter(|other| *other != target).map(|other| (other, target.clone())).collect();
    all.ask_change(1, Wanted::Reshard(3));
    all.run_until_joining(2);
    all.cut.extend((1..=6).map(node).filter(|other| *other != target).map(|other| (target.clone(), other)));
    all.run_ms(5_000);
    let told = all.reshard_at(2);
    assert_eq!((told.state, told.waiting_for), (ReshardState::Running, vec![target]));
}

#[test]
fn without_a_majority_it_names_the_silent_voters() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.forty();
    let voters: Vec<usize> =
        (1..=6).filter(|n| all.machine(1).map().voters.contains(&all.machine(*n).incarnation())).collect();
    assert_eq!(voters.len(), 5);
    all.ask_change(2, Wanted::Reshard(3));
    all.run_until_joining(voters[0]);
    for voter in &voters[2..] {
        all.stop(*voter);
    }
    let told = all.reshard_at(voters[0]);
    for voter in &voters[2..] {
        assert!(told.waiting_for.contains(&node(*voter)), "{told:?}");
    }
}
