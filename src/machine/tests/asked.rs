//! Changes whose answer does not come, and those that the map moves on from: each is done once.

use super::*;
use crate::cluster::change::Change;
use crate::cluster::paxos::PaxosMessage;
use crate::machine::message::Wanted;
use crate::types::Epoch;

/// Six nodes in three shards; node6 is down, and had another disk before, that nobody can close, as node5 is down.
fn with_a_lost_disk() -> Lockstep {
    let mut all = Lockstep::new(6, 3);
    all.run_ms(2_000);
    all.sixty(6);
    all.stop(5);
    all.hosts.remove(&node(6));
    all.run_ms(1_000);
    let store = MemoryStore::new();
    let machine = Machine::open(Config { seed: [77; 32], ..config(6, 6, 3) }, &store, all.now).unwrap();
    all.hosts.insert(node(6), Host { machine, store, up: true, stalls: false });
    all.connect_all();
    all.run_ms(5_000);
    all.stop(6);
    assert_eq!(all.machine(1).map().lost_disks(&node(6)).count(), 1);
    all
}

fn word_on_node6() -> Wanted {
    Wanted::Forget { node: node(6), confirmed: true }
}

/// The lost disk is given up; the one that the node has now is not.
fn check_present_disk_is_kept(all: &Lockstep) {
    let (map, present) = (all.machine(2).map(), all.machine(6).incarnation());
    assert_eq!(map.nodes.get(&node(6)), Some(&Some(present)));
    assert_eq!(map.lost_disks(&node(6)).count(), 0);
    assert_eq!(map.forgotten.len(), 1);
}

/// Has a change asked at node2, of which the proposer, node1, dies when the map has it and nobody was told.
fn die_before_the_answer(all: &mut Lockstep, wanted: Wanted) -> u64 {
    all.loses = |from, _, message| *from == node(1) && matches!(message, Message::ChangeAnswered { .. });
    let epoch = all.machine(2).map().epoch;
    let id = all.begin_change(2, wanted);
    while all.machine(2).map().epoch == epoch {
        all.run_ms(10);
    }
    all.stop(1);
    id
}

#[test]
fn the_word_on_a_lost_disk_is_given_once_though_its_proposer_dies() {
    let mut all = with_a_lost_disk();
    let id = die_before_the_answer(&mut all, word_on_node6());
    assert!(all.changed(id).is_ok());
    all.run_ms(3_000);
    check_present_disk_is_kept(&all);
}

#[test]
fn two_words_on_one_lost_disk_are_one() {
    let mut all = with_a_lost_disk();
    let asked = [2, 3].map(|at| all.begin_change(at, word_on_node6()));
    for id in asked {
        let outcome = all.changed(id);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    all.run_ms(3_000);
    check_present_disk_is_kept(&all);
}

#[test]
fn a_reshard_and_its_end_are_done_though_their_proposers_die() {
    let mut all = Lockstep::new(6, 3);
    all.run_ms(2_000);
    all.throttle(32 << 10);
    for n in 0..20 {
        all.put(1, &format!("key{n}"), &"x".repeat(20_000), &Context::empty());
    }
    let reshard = die_before_the_answer(&mut all, Wanted::Reshard(1));
    let epoch = all.machine(2).map().epoch;
    all.run_ms(3_000);
    assert!(!all.changes.contains_key(&reshard), "{:?}", all.changes);
    assert!(all.machine(2).map().target.is_some() && all.machine(2).map().epoch > epoch, "it goes on");
    // The same once more, with node2 as the proposer: who asks is node3.
    all.loses = |from, _, message| *from == node(2) && matches!(message, Message::ChangeAnswered { .. });
    let cancel = all.begin_change(3, Wanted::Cancel);
    while all.machine(3).map().target.is_some() {
        all.run_ms(10);
    }
    all.stop(2);
    for number in [1, 2] {
        all.hosts.get_mut(&node(number)).unwrap().up = true;
    }
    all.connect_all();
    assert_eq!(all.changed(cancel), Ok(0));
}

/// Has a reshard asked at node2, which hears of no map until that is cancelled at node3.
fn cancelled_unheard(loses: fn(&NodeAddr, &NodeAddr, &Message) -> bool) -> (Lockstep, u64) {
    let mut all = Lockstep::new(6, 3);
    all.run_ms(2_000);
    all.throttle(32 << 10);
    for n in 0..20 {
        all.put(1, &format!("key{n}"), &"x".repeat(20_000), &Context::empty());
    }
    all.loses = loses;
    let reshard = all.begin_change(2, Wanted::Reshard(1));
    while all.machine(3).map().target.is_none() {
        all.run_ms(10);
    }
    all.run_ms(500);
    assert_eq!(all.change(3, Wanted::Cancel), Ok(0));
    assert!(all.machine(3).map().epoch.0 > all.machine(2).map().epoch.0 + 1, "it is behind by more than one map");
    (all, reshard)
}

fn is_map(message: &Message) -> bool {
    matches!(message, Message::MapPush(_) | Message::MapDeltas(_))
}

/// Nobody does again what was done and cancelled, and it is not called done.
fn check_stays_cancelled(mut all: Lockstep, reshard: u64) {
    let layout = all.machine(3).map().layout.clone();
    let outcome = all.changed(reshard);
    all.run_ms(3_000);
    assert_eq!(outcome, Err(NotChanged::Cancelled));
    assert!(all.machine(3).map().target.is_none() && all.machine(3).map().layout == layout, "begun anew");
}

#[test]
fn what_was_done_and_cancelled_unheard_is_not_done_again() {
    let unheard = |_: &NodeAddr, to: &NodeAddr, message: &Message| {
        *to == node(2) && (is_map(message) || matches!(message, Message::ChangeAnswered { .. }))
    };
    let (mut all, reshard) = cancelled_unheard(unheard);
    // The answer is lost for good, the maps come.
    all.loses = |_, to, message| *to == node(2) && matches!(message, Message::ChangeAnswered { outcome: Ok(_), .. });
    check_stays_cancelled(all, reshard);
}

#[test]
fn what_is_answered_long_before_its_map_comes_is_not_called_done() {
    let (mut all, reshard) = cancelled_unheard(|_, to, message| *to == node(2) && is_map(message));
    // Started again, the others know no way from map to map: node2 gets theirs as a whole.
    all.start_again([1, 3, 4, 5, 6], 3);
    all.connect_all();
    all.loses = |_, _, _| false;
    check_stays_cancelled(all, reshard);
}

#[test]
fn who_asks_another_meanwhile_does_not_take_its_word_for_the_first() {
    let mut all = Lockstep::new(6, 3);
    all.run_ms(2_000);
    all.throttle(32 << 10);
    for n in 0..20 {
        all.put(1, &format!("key{n}"), &"x".repeat(20_000), &Context::empty());
    }
    // Node1 has it decided, tells node3 alone, and dies.
    all.loses = |from, to, message| {
        let map = matches!(message, Message::MapPush(_) | Message::MapDeltas(_));
        *from == node(1) && (matches!(message, Message::ChangeAnswered { .. }) || map && *to != node(3))
    };
    // Node2 hears nothing of it, and asks itself: nobody before it in the order is left, as far as it knows.
    for other in 3..=6 {
        all.cut.push((node(other), node(2)));
    }
    let epoch = all.machine(2).map().epoch;
    let reshard = all.begin_change(2, Wanted::Reshard(1));
    while all.machine(3).map().epoch == epoch {
        all.run_ms(10);
    }
    all.hosts.get_mut(&node(1)).unwrap().up = false;
    all.step(&node(2), Input::Disconnected { peer: node(1), refused: true });
    let began = all.now.mono_ms;
    while !all.machine(2).is_asked() {
        all.run_ms(10);
        assert!(all.now.mono_ms < began + 2_000, "it never asked itself");
    }
    assert_eq!(all.machine(2).map().epoch, epoch);
    all.cut.clear();
    all.run_ms(4_000);
    assert!(!all.changes.contains_key(&reshard), "{:?}", all.changes);
    assert!(all.machine(2).map().target.is_some() && all.machine(2).map().epoch > epoch, "it goes on");
}

#[test]
fn who_is_late_in_the_midst_of_a_reshard_is_waited_for() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.throttle(16 << 10);
    for n in 0..40 {
        all.put(1, &format!("key{n}"), &"x".repeat(40_000), &Context::empty());
    }
    // Longer than the proposer waits from map to map.
    for (from, to) in [(1, 5), (5, 1)] {
        all.slow.insert((node(from), node(to)), 300);
    }
    let reshard = all.begin_change(2, Wanted::Reshard(3));
    all.run_ms(1_000);
    let (began, epoch) = (all.now.mono_ms, all.machine(1).map().epoch);
    let cancel = all.begin_change(5, Wanted::Cancel);
    while all.machine(1).map().target.is_some() {
        all.run_ms(10);
    }
    let (took, maps) = (all.now.mono_ms - began, all.machine(1).map().epoch.0 - epoch.0);
    assert!(took < 2_500 && maps <= 4, "{took} ms, {maps} maps");
    assert_eq!((all.changed(reshard), all.changed(cancel)), (Err(NotChanged::Cancelled), Ok(0)));
}

#[test]
fn what_is_asked_of_an_older_map_is_not_done() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    assert_eq!(all.change(1, Wanted::Remove(node(4))), Ok(0));
    let (map, incarnation) = (all.machine(1).map().clone(), all.machine(2).incarnation());
    let of = |epoch| Message::ChangeAsked { id: 7, change: Change::Reshard(1), epoch, again: false };
    all.step(&node(1), Input::Message { from: node(2), incarnation, message: of(Epoch(map.epoch.0 - 1)) });
    all.run_ms(2_000);
    assert_eq!((all.machine(1).map().epoch, all.refusals), (map.epoch, 1));
    all.step(&node(1), Input::Message { from: node(2), incarnation, message: of(map.epoch) });
    all.run_ms(2_000);
    assert_eq!(all.machine(1).map().layout.shards.len(), 1);
}

#[test]
fn who_is_refused_does_not_see_it_done() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.stop(6);
    all.run_ms(5_000);
    // Node1's attempt at the map without node6 gets no further than one acceptor, node2, whose word is lost.
    all.loses = |from, to, message| match message {
        Message::Paxos(PaxosMessage::Accept { .. }) => *from == node(1) && *to != node(2),
        Message::Paxos(PaxosMessage::Accepted { .. }) => *from == node(2),
        _ => false,
    };
    let (epoch, acceptors) = (all.machine(1).map().epoch, [1, 2]);
    let id = all.begin_change(3, Wanted::Forget { node: node(6), confirmed: true });
    all.run_ms(500);
    assert!(acceptors.iter().all(|at| all.machine(*at).undecided().is_some()));
    // Node6 is back, and so there is nothing to give up any more for who looks now.
    all.hosts.get_mut(&node(6)).unwrap().up = true;
    all.connect_all();
    all.run_ms(1_200);
    let refused = |all: &Lockstep| matches!(all.changes.get(&id), Some(Err(_)));
    assert_eq!(all.machine(3).map().epoch, epoch);
    assert!(!refused(&all), "nobody knows yet: {:?}", all.changes);
    // Node1 dies, and another settles what it began.
    all.stop(1);
    all.loses = |_, _, _| false;
    let outcome = all.changed(id);
    all.run_ms(3_000);
    let given_up = !all.machine(2).map().forgotten.is_empty();
    assert_eq!(outcome.is_ok(), given_up, "{outcome:?}");
    assert!(given_up, "an acceptor of the next one's majority had taken it");
}

#[test]
fn what_another_was_asked_before_is_refused_once_the_next_map_is_there() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let (epoch, incarnation) = (all.machine(1).map().epoch, all.machine(2).incarnation());
    let asked = |id, epoch, again| Message::ChangeAsked { id, change: Change::Cancel, epoch, again };
    all.step(&node(1), Input::Message { from: node(2), incarnation, message: asked(7, epoch, true) });
    all.run_ms(2_000);
    let next = Epoch(epoch.0 + 1);
    assert_eq!((all.machine(1).map().epoch, all.refusals), (next, 1));
    all.step(&node(1), Input::Message { from: node(2), incarnation, message: asked(8, next, false) });
    all.run_ms(2_000);
    assert_eq!((all.machine(1).map().epoch, all.refusals), (next, 2), "nobody asked before");
}

#[test]
fn what_can_be_done_does_not_wait_for_what_nobody_knows() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let (epoch, incarnation) = (all.machine(1).map().epoch, all.machine(2).incarnation());
    for (id, change, again) in [(7, Change::Cancel, true), (8, Change::Reshard(1), false)] {
        let message = Message::ChangeAsked { id, change, epoch, again };
        all.step(&node(1), Input::Message { from: node(2), incarnation, message });
    }
    while all.machine(1).map().epoch == epoch {
        all.run_ms(10);
    }
    assert!(all.machine(1).map().target.is_some() || all.machine(1).map().layout.shards.len() == 1);
}

#[test]
fn who_was_to_be_admitted_is_so_though_silent_when_the_next_proposer_is_asked() {
    let mut all = Lockstep::new(4, 1);
    all.run_ms(2_000);
    assert_eq!(all.change(1, Wanted::Remove(node(4))), Ok(0));
    all.loses = |_, to, message| *to == node(1) && matches!(message, Message::ChangeAsked { .. });
    let id = all.begin_change(3, Wanted::Admit(node(4)));
    all.run_ms(500);
    all.stop(1);
    all.stop(4);
    assert_eq!(all.changed(id), Ok(0));
    assert!(!all.machine(3).map().out.contains(&node(4)));
}
