//! When a fill is asked for, and when the streams are enough.

use super::*;
use crate::cluster::change::ChangeError;
use crate::cluster::map::{PeerState, Stay};
use crate::machine::fill::{FillIn, LACK_MS};
use crate::machine::message::Wanted;
use crate::machine::records::{self, FillMark};
use crate::machine::rules::Rule;
use crate::store::Read;
use crate::types::{PartitionId, Timestamp};

#[test]
fn a_stream_that_is_merely_late_is_no_reason_for_a_fill() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    // node3 hears of every write from node2, before the write itself arrives.
    all.slow.insert((node(1), node(3)), 40);
    all.fills = 0;
    for n in 0..400 {
        all.begin(1, put_request("a", &n.to_string()));
        all.run_ms(10);
    }
    assert_eq!(all.fills, 0, "node3 never lacked the same write for a second");
}

#[test]
fn operations_that_wait_for_a_short_while_are_no_reason_for_a_fill() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all.slow.insert((node(1), node(3)), 30);
    all.fills = 0;
    let mut context = Context::empty();
    for n in 0..100 {
        // Each write depends on the one before, by the other coordinator: node3 has it first, and waits.
        context = all.put(1, "a", &n.to_string(), &context);
        context = all.put(2, "a", &n.to_string(), &context);
        all.run_ms(10);
    }
    assert_eq!(all.fills, 0, "node3 was never blocked for 50 ms");
}

#[test]
fn a_run_of_operations_needs_no_room() {
    let mut all = Lockstep::new(2, 1);
    all.unapplied_bytes = 0;
    let store = all.hosts.remove(&node(2)).unwrap().store.crash(0);
    all.start(2, 2, 1, store);
    all.connect_all();
    all.run_ms(2_000);
    all.cut.push((node(1), node(2)));
    let asked: Vec<u64> = (0..50).map(|n| all.begin(1, put_request("a", &n.to_string()))).collect();
    all.cut.clear();
    all.run_ms(600);
    assert!(asked.iter().all(|id| matches!(all.answers.get(id), Some(Response::Written { copies: 2, .. }))));
    assert_eq!(all.fills, 0);
}

#[test]
fn tombstones_are_collected_while_others_write() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    let context = all.put(1, "a", "1", &Context::empty());
    all.delete(1, "a", &context);
    let partition = key("a").partition(8);
    // Another key of the same partition, written all the time: always something is on its way.
    let other = (0..).map(|n| format!("b{n}")).find(|name| key(name).partition(8) == partition).unwrap();
    all.slow.insert((node(1), node(2)), 30);
    all.slow.insert((node(2), node(1)), 30);
    for n in 0..1_000 {
        all.begin(1, put_request(&other, &n.to_string()));
        all.begin(2, put_request(&other, &n.to_string()));
        all.run_ms(10);
    }
    for number in 1..=2 {
        let kept: u64 = all.machine(number).partition_status().iter().map(|part| part.tombstones).sum();
        assert_eq!(kept, 0, "node{number}");
    }
}

/// The nodes that serve a key, by number.
fn servers(all: &Lockstep, name: &str, nodes: usize) -> Vec<usize> {
    let map = all.machine(1).map().clone();
    let row = map.row(key(name).partition(map.partitions()));
    let serving: Vec<_> = row.peers.values().filter(|peer| peer.state == PeerState::Serving).collect();
    let serves = |number: &usize| serving.iter().any(|peer| peer.incarnation == all.machine(*number).incarnation());
    (1..=nodes).filter(serves).collect()
}

/// Six nodes with larger values, of which half are about to be filled with what the other half has, and rest an hour
/// after the first chunk; gives a key and the three nodes that serve it all the time.
fn resting(all: &mut Lockstep) -> (String, [usize; 3]) {
    let about = about_to_move(all, 3_600_000);
    all.run_ms(1_000);
    about
}

/// The same with another rest, and nothing given yet.
fn about_to_move(all: &mut Lockstep, rest_ms: u64) -> (String, [usize; 3]) {
    all.run_ms(2_000);
    // As much as one node joins at once, and so that a fill has several chunks.
    let large = "x".repeat(16_000);
    for n in 0..120 {
        all.put(1, &format!("key{n}"), &large, &Context::empty());
    }
    all.rest_ms = rest_ms;
    let name = "key0".to_owned();
    let serving = servers(all, &name, 6).try_into().unwrap();
    all.begin_change(1, Wanted::Reshard(1));
    (name, serving)
}

#[test]
fn what_a_client_waits_for_comes_before_what_moves() {
    let mut all = Lockstep::new(6, 2);
    let (name, [first, second, third]) = resting(&mut all);
    // A write that one of its peers does not get before its coordinator is gone.
    all.cut.push((node(first), node(third)));
    let context = all.put(first, &name, "last", &Context::empty());
    all.stop(first);
    all.run_ms(LACK_MS + 500);
    // It is asked for what it has, and can't ask others.
    all.cut.extend((1..=6).map(|other| (node(third), node(other))));
    let Response::Value { value, .. } = all.get(third, &name, &context) else {
        panic!("node{third} has not got it from node{second}")
    };
    assert_eq!(value, "last");
    assert!(all.machine(second).map().target.is_some(), "what moves still rests");
}

#[test]
fn few_views_are_held_open_at_once() {
    let mut all = Lockstep::new(6, 2);
    resting(&mut all);
    let map = all.machine(1).map();
    let joins = |number: usize| {
        let own = all.machine(number).incarnation();
        let joins = |peer: &&Stay| peer.incarnation == own && peer.state == PeerState::Joining;
        map.rows.iter().filter(|row| row.peers.values().any(|peer| joins(&peer))).count()
    };
    assert_eq!((1..=6).map(joins).max(), Some(4), "as many fills of one node are under way");
    assert_eq!(all.most_views, 2);
}

/// What a node has on its disk of a kind of record, partition by partition.
fn stored(all: &Lockstep, number: usize, kind: u8) -> BTreeMap<u32, Vec<bytes::Bytes>> {
    let of = |partition: u32| {
        let (from, until) = records::range(kind, PartitionId(partition));
        let pairs = all.hosts[&node(number)].store.scan(&from, &until, usize::MAX).unwrap();
        (partition, pairs.into_iter().map(|(key, _)| key).collect())
    };
    (0..8).map(of).filter(|(_, keys): &(u32, Vec<_>)| !keys.is_empty()).collect()
}

#[test]
fn a_node_gives_no_more_a_second_than_it_is_told() {
    const A_SECOND: usize = 64 << 10;
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.throttle(A_SECOND as u64);
    for n in 0..60 {
        all.put(1 + n % 6, &format!("key{n}"), &"x".repeat(20_000), &Context::empty());
    }
    all.given.clear();
    assert_eq!(all.change(2, Wanted::Reshard(3)), Ok(0));
    let moved: usize = all.given.values().flatten().map(|(_, bytes)| bytes).sum();
    assert!(moved > 3 * A_SECOND, "only {moved} bytes were given, which shows nothing");
    for (source, given) in &all.given {
        for (from, _) in given {
            let within = given.iter().filter(|(ms, _)| (*from..from + 2_000).contains(ms));
            let bytes: usize = within.map(|(_, bytes)| bytes).sum();
            // Two seconds' worth, what a bucket holds, and the one chunk that was more than was left.
            assert!(bytes <= 2 * A_SECOND + A_SECOND / 4 + 2 * (64 << 10), "{source} gave {bytes} in two seconds");
        }
    }
}

#[test]
fn one_that_is_back_with_its_data_takes_up_what_it_lacks_and_no_more() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all.sixty(3);
    all.run_ms(1_000);
    let disk = all.hosts[&node(3)].store.crash(0);
    all.stop(3);
    for n in 0..3 {
        all.put(1, &format!("key{n}"), "later", &Context::empty());
    }
    // Away for long, its stays are made Leaving, and it joins anew.
    all.run_ms(90_000);
    let part = |all: &Lockstep, at: usize| all.machine(1).map().rows[at].peers.clone();
    assert!((0..8).all(|at| part(&all, at).values().filter(|stay| stay.serves()).count() == 2));
    all.items = 0;
    all.start(3, 3, 1, disk);
    all.connect_all();
    all.run_ms(20_000);
    assert!((0..8).all(|at| part(&all, at).values().filter(|stay| stay.serves()).count() == 3));
    assert!(all.items <= 3, "{} items were given for three writes", all.items);
    assert!(matches!(all.get(3, "key0", &Context::empty()), Response::Value { value, .. } if value == "later"));
}

/// A joiner has a part of its first fill when its source is gone for ever, with writes that nobody else has: true when
/// it holds in the end what the others do. `twice`: it has asked the source once more by then, and has got nothing.
fn is_filled_after_a_source_was_lost(rules: Rules, twice: bool) -> bool {
    let mut all = Lockstep::new(5, 1);
    all.run_ms(2_000);
    let large = |letter: &str| letter.repeat(20_000);
    for n in 0..200 {
        all.put(2, &format!("key{n}"), &large("x"), &Context::empty());
    }
    all.stop(3);
    all.cut = [2, 4, 5].iter().flat_map(|n| [(node(1), node(*n)), (node(*n), node(1))]).collect();
    for n in 0..200 {
        all.put(1, &format!("key{n}"), &large("y"), &Context::empty());
    }
    all.rest_ms = 300;
    all.start(3, 5, 1, MemoryStore::new());
    let config = Config { seed: [103; 32], rules, ..config(3, 5, 1) };
    let host = all.hosts.get_mut(&node(3)).unwrap();
    host.machine = Machine::open(config, &host.store, all.now).unwrap();
    all.connect_all();
    // Partitions differ in whom they ask first: some of them node 1, and one is in the middle of that.
    let newer = |all: &Lockstep, partition: u32| {
        let mut items = stored_items(all, 3, partition).into_iter();
        let fills = all.machine(3).part(PartitionId(partition)).filling.is_some();
        fills && items.any(|(_, value)| value.is_some_and(|value| value.starts_with(b"y")))
    };
    while !(0..8).any(|partition| newer(&all, partition)) {
        all.run_ms(10);
        assert!(all.now.mono_ms < 60_000, "nothing of node1 has come");
    }
    if twice {
        all.loses = |from, _, message| *from == node(1) && matches!(message, Message::FillChunk(_));
        let partition = PartitionId((0..8).find(|partition| newer(&all, *partition)).unwrap());
        // The others that it may ask seem to be gone, so that it must ask the same one again.
        for other in [2, 4, 5].map(node) {
            all.cut.push((other.clone(), node(3)));
            all.step(&node(3), Input::Disconnected { peer: other, refused: true });
        }
        let first = all.machine(3).part(partition).filling.clone().unwrap();
        let again = |all: &Lockstep| {
            let fill = all.machine(3).part(partition).filling.clone();
            fill.is_some_and(|fill| fill.from == first.from && fill.attempt != first.attempt)
        };
        while !again(&all) {
            all.run_ms(10);
            assert!(all.now.mono_ms < 120_000, "it never asked again");
        }
        assert!(newer(&all, partition.0), "what the first attempt left is still there");
        all.cut.retain(|(_, to)| *to != node(3));
        all.connect_all();
    }
    all.stop(1);
    let word = Wanted::Forget { node: node(1), confirmed: true };
    while all.change(2, word.clone()) == Err(NotChanged::Refused(ChangeError::NotLost)) {}
    all.rest_ms = 0;
    all.run_ms(30_000);
    assert_eq!(all.machine(3).readiness(all.now), Ok(()));
    (0..8).all(|partition| stored_items(&all, 3, partition) == stored_items(&all, 4, partition))
}

/// The items of a partition on a node's disk.
pub(super) fn stored_items(all: &Lockstep, number: usize, partition: u32) -> Vec<(bytes::Bytes, Option<bytes::Bytes>)> {
    let (from, until) = records::range(b'i', PartitionId(partition));
    let pairs = all.hosts[&node(number)].store.scan(&from, &until, usize::MAX).unwrap();
    pairs.into_iter().map(|(key, item)| (key, records::decode_item(&item).unwrap().value)).collect()
}

#[test]
fn what_a_first_fill_left_is_gone_before_another_source_is_asked() {
    for twice in [false, true] {
        assert!(is_filled_after_a_source_was_lost(Rules::all(), twice), "{twice}");
        let without = Rules::all().without(Rule::FillClean);
        assert!(!is_filled_after_a_source_was_lost(without, twice), "{twice}: the clause is not needed");
    }
}

#[test]
fn one_that_dies_in_the_middle_of_its_first_fill_is_filled_whole() {
    let mut all = Lockstep::new(6, 2);
    about_to_move(&mut all, 300);
    // A partition of which somebody who joins has some keys already, and one of them.
    let joins = |all: &Lockstep, number: usize, partition: u32| {
        let part = all.machine(number).part(PartitionId(partition));
        part.own_member().is_some_and(|own| own.state == PeerState::Joining)
            && part.replica.as_ref().is_some_and(|replica| !replica.filled)
    };
    let begun = |all: &Lockstep, number| {
        let partitions = stored(all, number, b'i').into_iter();
        partitions.filter(|(partition, _)| joins(all, number, *partition)).map(|found| (number, found)).next()
    };
    let first_chunk = |_tick| {
        all.run_ms(10);
        (1..=6).find_map(|number| begun(&all, number))
    };
    let (joiner, (partition, keys)) = (0..2_000).find_map(first_chunk).expect("a first chunk");
    let gone = records::user_key(&keys[0]).unwrap().as_str().to_owned();
    let whole = servers(&all, &gone, 6)[0];
    assert!(keys.len() < stored(&all, whole, b'i')[&partition].len(), "not all of them");

    let context = all.get(whole, &gone, &Context::empty());
    let Response::Value { context, .. } = context else { panic!("{context:?}") };
    let Response::Written { context, .. } = all.delete(whole, &gone, &context) else { panic!("not deleted") };
    all.stop(joiner);
    let left = all.hosts[&node(joiner)].store.crash(0);
    all.start(joiner, 6, 2, left);
    all.connect_all();
    all.rest_ms = 0;
    for host in all.hosts.values_mut() {
        host.machine.rest(0);
    }
    for _tick in 0..3_000 {
        all.run_ms(10);
        assert_eq!(stored(&all, joiner, b'f'), BTreeMap::new(), "nothing is put aside");
    }
    all.check_settled(6);
    assert!(all.machine(1).map().target.is_none());
    assert!(servers(&all, &gone, 6).contains(&joiner));
    assert!(matches!(all.get(joiner, &gone, &context), Response::Missing { .. }));
    for n in (0..120).map(|n| format!("key{n}")).filter(|name| *name != gone) {
        assert!(matches!(all.get(joiner, &n, &context), Response::Value { .. }), "{n}");
    }
}

#[test]
fn no_view_is_given_of_a_replica_that_takes_a_fill_over() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let host = all.hosts.get_mut(&node(1)).unwrap();
    let (machine, partition) = (&mut host.machine, PartitionId(0));
    let replica = machine.part(partition).replica.as_ref().unwrap();
    let vector = replica.applied.clone();
    // What it has put aside is merged bit by bit: meanwhile it has items that its vector does not cover.
    let mark = FillMark { chunks: 9, vector: vector.clone(), floor: replica.floor, clock: Timestamp(0) };
    machine.part_mut(partition).filling = Some(FillIn::whole(mark));
    machine.on_fill_request(&node(2), partition, 7, vector);
    machine.take_fill_views(&host.store);
    assert_eq!(machine.open_views().len(), 0);
    machine.part_mut(partition).filling = None;
    machine.take_fill_views(&host.store);
    assert_eq!(machine.open_views().into_values().sum::<usize>(), 1);
}

#[test]
fn what_is_there_as_a_whole_is_not_copied_again_after_a_crash() {
    let mut all = Lockstep::new(6, 2);
    about_to_move(&mut all, 40);
    let held = |all: &Lockstep, number: usize| -> BTreeSet<PartitionId> {
        let machine = all.machine(number);
        let whole = |partition: &PartitionId| machine.part(*partition).replica.as_ref().is_some_and(|r| r.filled);
        machine.partitions().filter(whole).collect()
    };
    let before: Vec<_> = (0..=6).map(|number| if number > 0 { held(&all, number) } else { BTreeSet::new() }).collect();
    let lacks = |all: &Lockstep, number: usize| held(all, number).len() < 8;
    let half_way = |_tick| {
        all.run_ms(10);
        (1..=6).find(|number| held(&all, *number).len() > before[*number].len() && lacks(&all, *number))
    };
    let joiner = (0..2_000).find_map(half_way).expect("one that has some of them");
    let copied: Vec<_> = held(&all, joiner).difference(&before[joiner]).copied().collect();
    all.stop(joiner);
    let left = all.hosts[&node(joiner)].store.crash(0);
    all.start(joiner, 6, 2, left);
    all.connect_all();
    let mut others = 0;
    for _tick in 0..3_000 {
        all.run_ms(10);
        for partition in all.machine(joiner).partitions() {
            let fills = all.machine(joiner).part(partition).filling.is_some();
            assert!(!(fills && copied.contains(&partition)), "{partition:?} again");
            others += usize::from(fills);
        }
    }
    all.check_settled(6);
    assert!(others > 0 && all.machine(1).map().target.is_none());
}
