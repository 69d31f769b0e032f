//! What the disk does to a node: full, restored from a backup, read again after a crash.

use super::*;
use crate::causal::partition::Replica;
use crate::machine::records;
use crate::store::{Batch, Read};
use crate::types::{Dot, PartitionId, Seq, StayId, Timestamp};

#[test]
fn a_restored_backup_ends_the_node_that_has_it() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all.put(2, "a", "1", &Context::empty());
    let backup = all.hosts[&node(2)].store.crash(0);
    all.put(2, "a", "2", &Context::empty());
    all.stop(2);
    all.start(2, 3, 1, backup);
    all.connect_all();
    all.run_ms(3_000);
    let Some(StoreError::Damaged(why)) = all.ended.get(&node(2)) else { panic!("{:?}", all.ended) };
    assert!(why.contains("backup") && why.contains("empty"), "{why}");
    assert_eq!(all.ended.len(), 1);
}

#[test]
fn a_directory_that_was_copied_to_another_address_is_refused_there() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let copy = all.hosts[&node(1)].store.crash(0);
    for number in [2, 4] {
        let Err(StoreError::Damaged(why)) = Machine::open(config(number, 3, 1), &copy, all.now) else { panic!() };
        assert!(why.contains("belongs to node1:8085, not to") && why.contains("empty"), "{why}");
    }
    assert!(Machine::open(config(1, 3, 1), &copy, all.now).is_ok());
}

#[test]
fn a_restored_backup_that_wrote_nothing_since_ends_its_node_too() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let context = all.put(1, "a", "1", &Context::empty());
    all.run_ms(3_000);
    let backup = all.hosts[&node(2)].store.crash(0);
    // Deleted, and collected everywhere: nobody could tell the old value from a new one.
    all.delete(1, "a", &context);
    all.run_ms(20_000);
    assert_eq!(all.machine(1).partition_status().iter().map(|part| part.tombstones).sum::<u64>(), 0);
    all.stop(2);
    all.start(2, 3, 1, backup);
    all.connect_all();
    all.run_ms(3_000);
    let Some(StoreError::Damaged(why)) = all.ended.get(&node(2)) else { panic!("{:?}", all.ended) };
    assert!(why.contains("backup") && why.contains("empty"), "{why}");
    assert_eq!(all.ended.len(), 1);
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_on_reading() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    all.put(2, "a", "1", &Context::empty());
    all.hosts[&node(2)].store.fail_full(true);
    let Response::Written { copies: 1, .. } = all.ask(1, put_request("b", "2")) else { panic!() };
    all.run_ms(5_000);
    assert!(all.ended.is_empty(), "{:?}", all.ended);
    assert!(matches!(all.get(2, "a", &Context::empty()), Response::Value { value, .. } if value == "1"));
    for name in ["c", "d"] {
        assert_eq!(all.ask(2, put_request(name, "3")), Response::Error(Code::DiskFull));
    }
    assert_eq!(all.delete(2, "a", &Context::empty()), Response::Error(Code::DiskFull));
    all.hosts[&node(2)].store.fail_full(false);
    all.run_ms(6_000);
    assert!(matches!(all.get(2, "b", &Context::empty()), Response::Value { value, .. } if value == "2"));
    let Response::Written { copies: 2, .. } = all.ask(2, put_request("c", "3")) else { panic!() };
}

#[test]
fn a_write_waits_for_a_copy_at_who_was_gone_and_is_connected_again() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    all.stop(2);
    let Response::Written { copies: 1, .. } = all.ask(1, put_request("a", "1")) else { panic!() };
    all.hosts.get_mut(&node(2)).unwrap().up = true;
    // Connected, but its word is on its way for as long as the write.
    all.loses = |from, _, message| *from == node(2) && matches!(message, Message::Ping(_) | Message::Pong(_));
    all.connect_all();
    all.settle();
    let Response::Written { copies: 2, .. } = all.ask(1, put_request("b", "2")) else { panic!() };
    // That one is connected says nothing for ever.
    all.hosts.get_mut(&node(2)).unwrap().up = false;
    all.run_ms(2_900);
    assert_eq!(all.machine(1).view(all.now), [1, 2].map(node));
    all.run_ms(200);
    assert_eq!(all.machine(1).view(all.now), [node(1)]);
}

#[test]
fn with_little_room_left_nothing_but_deletes_is_taken() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    all.put(1, "a", "1", &Context::empty());
    all.step(&node(2), Input::DiskFull(true));
    let Response::Written { copies: 1, .. } = all.ask(1, put_request("b", "2")) else { panic!() };
    all.run_ms(5_000);
    assert_eq!(all.ask(2, put_request("c", "3")), Response::Error(Code::DiskFull));
    let kept = all.hosts[&node(2)].machine.partition_status().iter().map(|part| part.keys).sum::<u64>();
    assert_eq!(kept, 1, "what a peer writes must not use up the reserve");
    assert!(matches!(all.delete(2, "a", &Context::empty()), Response::Written { .. }));
    all.step(&node(2), Input::DiskFull(false));
    all.run_ms(6_000);
    assert!(matches!(all.get(2, "b", &Context::empty()), Response::Value { .. }));
}

#[test]
fn a_restart_beside_a_silent_peer_shows_what_it_wrote() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    all.stop(2);
    all.put(1, "a", "1", &Context::empty());
    let store = all.hosts[&node(1)].store.crash(0);
    // Nobody says that node2 is down, so it counts as live for a while.
    all.start(1, 2, 1, store);
    assert!(matches!(all.get(1, "a", &Context::empty()), Response::Value { .. }));
}

#[test]
fn what_a_closed_log_left_is_removed_after_a_crash_too() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    // The log of a stay that is over: its row was adopted and synced, and the node was killed before it was removed.
    let (partition, closed) = (PartitionId(0), StayId(9_999));
    let store = all.hosts[&node(2)].store.crash(0);
    // The last is one that no log comes to, and a damaged directory may have.
    let left: Vec<_> =
        (3..6).chain([Seq::MAX]).map(|seq| records::log_key(partition, Dot { stay: closed, seq })).collect();
    let changes = left.into_iter().map(|key| (key, Some(Bytes::from("an operation")))).collect();
    store.apply(Batch { changes }).unwrap();
    store.sync().unwrap();
    all.stop(2);
    all.start(2, 3, 1, store);
    all.connect_all();
    all.run_ms(2_000);
    let context = all.put(2, "a", "1", &Context::empty());
    all.run_ms(2_000);
    let (from, until) = records::range(b'l', partition);
    assert_eq!(all.hosts[&node(2)].store.scan(&from, &until, 10).unwrap(), []);
    assert!(matches!(all.get(1, "a", &context), Response::Value { .. }));
}

#[test]
fn what_was_not_synced_of_a_dropped_replica_is_none_of_the_next_one() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let (now, host) = (all.now, all.hosts.get_mut(&node(1)).unwrap());
    let (machine, store) = (&mut host.machine, &host.store);
    let request = put_request("a", "1");
    machine.step(now, Input::Request { id: 1, request, budget_ms: 2_000 }, store, &mut Vec::new());
    let (_, partition, stay, _) = machine.raises[0];
    machine.drop_replica(partition);
    machine.part_mut(partition).replica = Some(Replica::default());
    while let Some(batch) = machine.flush(store, &mut Vec::new()) {
        store.sync().unwrap();
        machine.step(now, Input::Synced(batch), store, &mut Vec::new());
    }
    assert_eq!(machine.part(partition).replica.as_ref().unwrap().durable.get(stay), 0);
}

/// The ceiling that a node writes in its first moments, when it starts with a wall clock an hour ahead and is alone, or
/// hears a peer at once.
fn first_ceiling_an_hour_ahead(all: &mut Lockstep, number: usize, ms: u64, hears: bool) -> Timestamp {
    let ahead = Now { wall_ms: all.now.wall_ms + 3_600_000, ..all.now };
    let store = all.hosts[&node(number)].store.crash(0);
    let mut machine = Machine::open(config(number, 3, 1), &store, ahead).unwrap();
    for after_ms in (0..=ms).step_by(100) {
        let now = Now { mono_ms: ahead.mono_ms + after_ms, wall_ms: ahead.wall_ms + after_ms };
        let mut inputs = vec![Input::Tick];
        if hears {
            let (from, incarnation) = (node(1), all.machine(1).incarnation());
            let right = Now { wall_ms: all.now.wall_ms + after_ms, ..now };
            let message = Message::Pong(all.machine(1).sign_of_life(right).into());
            inputs.extend([
                Input::Connected { peer: from.clone(), incarnation },
                Input::Message { from, incarnation, message },
            ]);
        }
        for input in inputs {
            machine.step(now, input, &store, &mut Vec::new());
            while let Some(batch) = machine.flush(&store, &mut Vec::new()) {
                store.sync().unwrap();
                machine.step(now, Input::Synced(batch), &store, &mut Vec::new());
            }
        }
    }
    machine.clock.durable_ceiling()
}

#[test]
fn a_clock_an_hour_ahead_at_the_start_does_not_become_the_ceiling() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all.put(3, "a", "1", &Context::empty());
    let half_an_hour_ahead = Timestamp((all.now.wall_ms + 1_800_000) << 16);
    assert!(first_ceiling_an_hour_ahead(&mut all, 3, 6_000, true) < half_an_hour_ahead, "it hears that it is ahead");
    assert!(first_ceiling_an_hour_ahead(&mut all, 3, 2_000, false) < half_an_hour_ahead, "nobody is heard yet");
    assert!(first_ceiling_an_hour_ahead(&mut all, 3, 4_000, false) > half_an_hour_ahead, "there is nobody to hear");
}

/// A node was down while others wrote. What is written at it in its first moments, before it has heard anybody, is not
/// older than that, though it does not go by its wall clock yet.
#[test]
fn what_is_written_at_a_start_is_not_older_than_what_others_wrote_before() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all.put(3, "a", "1", &Context::empty());
    let store = all.hosts[&node(3)].store.crash(0);
    all.stop(3);
    all.run_ms(10_000);
    all.put(1, "a", "2", &Context::empty());
    all.run_ms(2_000);
    all.start(3, 3, 1, store);
    let early = all.begin(3, put_request("a", "3"));
    all.connect_all();
    assert!(matches!(all.answer(early), Response::Written { .. }));
    for number in 1..=3 {
        let Response::Value { value, .. } = all.get(number, "a", &Context::empty()) else { panic!() };
        assert_eq!(value, "3", "node{number}");
    }
}

/// The same, of a node that nobody is there to hear of: it takes its wall clock for right after a while.
#[test]
fn who_starts_alone_writes_once_it_has_listened() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let store = all.hosts[&node(3)].store.crash(0);
    for number in 1..=3 {
        all.stop(number);
    }
    all.run_ms(10_000);
    let wall = all.now.wall_ms;
    all.start(3, 3, 1, store);
    let (begun_ms, early) = (all.now.mono_ms, 99);
    all.step(&node(3), Input::Request { id: early, request: put_request("a", "3"), budget_ms: 10_000 });
    for gone in [1, 2].map(node) {
        all.step(&node(3), Input::Disconnected { peer: gone, refused: true });
    }
    while !all.answers.contains_key(&early) {
        all.run_ms(10);
        assert!(all.now.mono_ms < begun_ms + 3_500, "it was never written");
    }
    assert!(matches!(all.answers[&early], Response::Written { copies: 1, .. }), "{:?}", all.answers[&early]);
    let Timestamp(given) = all.machine(3).clock.peek(0);
    assert!(given >> 16 >= wall, "{given} is not after {wall}");
}
