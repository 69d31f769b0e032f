//! Nodes and disks that are given up, and what the operator is told that is lost with them.

use super::*;
use crate::cluster::change::ChangeError;
use crate::cluster::map::PeerState;
use crate::machine::agreement::NotRecovered;
use crate::machine::message::Wanted;
use crate::machine::sign::HeldUpTo;
use crate::types::{PartitionId, StayId};

const FORGET: fn(usize, bool) -> Wanted = |number, confirmed| Wanted::Forget { node: node(number), confirmed };

fn put(name: &str) -> Request {
    Request::Put { key: key(name), value: Bytes::from_static(b"x"), context: Context::empty() }
}

impl Lockstep {
    /// Writes of keys of shard 1, by node 1.
    fn alone(&mut self, writes: usize) -> Context {
        let layout = self.machine(1).map().layout.clone();
        let names: Vec<String> = (0..1_000).map(|n| format!("alone{n}")).collect();
        let of_shard_one = |name: &&String| layout.partitions[key(name).partition(8).0 as usize] == ShardId(1);
        let mut context = Context::empty();
        for name in names.iter().filter(of_shard_one).take(writes) {
            context = self.put(1, name, "x", &context);
        }
        context
    }
}

/// Two nodes a shard; the other node of shard 1 is down, and node 1 takes twelve writes alone. Then it is gone, and the other
/// is back.
fn twelve_at_node_1() -> Lockstep {
    let mut all = Lockstep::new(6, 3);
    all.run_ms(2_000);
    all.sixty(6);
    all.run_ms(1_000);
    assert_eq!(all.machine(1).map().layout.shards[0].iter().collect::<Vec<_>>(), [&node(1), &node(2)]);
    all.stop(2);
    all.run_ms(4_000);
    all.alone(12);
    all.run_ms(600);
    all.stop(1);
    all.hosts.get_mut(&node(2)).unwrap().up = true;
    all.links.retain(|(a, b, _)| *a != node(2) && *b != node(2));
    all.connect_all();
    all.run_ms(4_000);
    all
}

#[test]
fn what_a_node_took_alone_is_counted_wherever_it_is_asked() {
    let mut all = twelve_at_node_1();
    for asked in 2..=6 {
        let unconfirmed = all.change(asked, FORGET(1, false));
        assert_eq!(unconfirmed, Err(NotChanged::Unconfirmed(12)), "asked at node{asked}");
    }
    assert!(all.machine(2).map().nodes.contains_key(&node(1)), "nothing was done");
    assert_eq!(all.change(3, FORGET(1, true)), Ok(12));
    all.run_ms(5_000);
    assert!(!all.machine(2).map().nodes.contains_key(&node(1)));
}

#[test]
fn it_is_counted_minutes_later_and_by_one_that_has_started_since() {
    let mut all = twelve_at_node_1();
    // By now its stays are given up, under a new map in which it has told nothing.
    all.run_ms(120_000);
    let leaves = all.machine(2).map().rows.iter().flat_map(|row| row.peers.values());
    assert!(leaves.filter(|stay| stay.state == PeerState::Leaving).count() > 0);
    let disk = all.hosts[&node(3)].store.crash(0);
    all.stop(3);
    all.start(3, 6, 3, disk);
    all.connect_all();
    all.run_ms(4_000);
    assert_eq!(all.change(3, FORGET(1, false)), Err(NotChanged::Unconfirmed(12)));
}

#[test]
fn what_another_holds_by_now_is_not_lost() {
    let mut all = Lockstep::new(6, 3);
    all.run_ms(2_000);
    all.stop(2);
    all.run_ms(4_000);
    all.alone(12);
    all.run_ms(600);
    // Node 1 tells that it holds them alone, and does not live to hear that node 2 has them, too.
    all.loses = |from, _, message| {
        (*from == node(1) && matches!(message, Message::Ping(_) | Message::Pong(_)))
            || (*from == node(2) && matches!(message, Message::Report(_)))
    };
    all.hosts.get_mut(&node(2)).unwrap().up = true;
    all.connect_all();
    all.run_ms(2_000);
    all.stop(1);
    all.run_ms(4_000);
    assert_eq!(all.change(3, FORGET(1, false)), Err(NotChanged::Unconfirmed(0)));
}

#[test]
fn what_is_on_its_way_to_a_live_peer_is_not_at_stake() {
    let mut all = Lockstep::new(6, 3);
    all.run_ms(2_000);
    let both = [(1, 2), (2, 1), (3, 4), (4, 3), (5, 6), (6, 5)];
    all.slow = both.map(|(a, b)| ((node(a), node(b)), 60)).into();
    let mut on_their_way = 0;
    for n in 0..400 {
        all.begin(1 + n % 6, put(&format!("key{n}")));
        all.run_ms(10);
        on_their_way += all.on_their_way.len();
        for number in 1..=6 {
            assert!(all.machine(number).sign_of_life(all.now).exposed.is_empty(), "at node{number}, after {n} writes");
        }
    }
    assert!(on_their_way > 400, "nothing was on its way");
}

#[test]
fn who_does_not_answer_in_time_is_not_waited_for() {
    let mut all = twelve_at_node_1();
    all.loses = |from, _, message| *from == node(5) && matches!(message, Message::LossTold { .. });
    let begin = all.now.mono_ms;
    assert_eq!(all.change(3, FORGET(1, false)), Err(NotChanged::Unconfirmed(12)), "node 5 holds nothing of it");
    assert!((1_000..1_300).contains(&(all.now.mono_ms - begin)));
    // With less time than that, half of it.
    all.asked += 1;
    let (id, wanted) = (all.asked, FORGET(1, true));
    all.step(&node(3), Input::Change { id, wanted, budget_ms: 1_000 });
    all.settle();
    assert_eq!(all.changed(id), Ok(12));
}

#[test]
fn words_that_cannot_be_true_spoil_no_count() {
    let mut all = twelve_at_node_1();
    let (from, incarnation) = (node(4), all.machine(4).incarnation());
    let mut ping = all.machine(4).sign_of_life(all.now);
    let named = |partition, seq| HeldUpTo { partition: PartitionId(partition), stay: StayId(0), seq };
    for exposed in [vec![named(8, 1)], vec![named(0, u64::MAX), named(1, u64::MAX)]] {
        ping.exposed = exposed.into();
        let message = Message::Ping(ping.clone().into());
        all.step(&node(3), Input::Message { from: from.clone(), incarnation, message });
        all.settle();
        assert_eq!(all.change(3, FORGET(1, false)), Err(NotChanged::Unconfirmed(12)));
    }
    all.step(&node(3), Input::Message { from, incarnation, message: Message::Ping(ping.into()) });
    all.stop(4);
    all.run_ms(4_000);
    assert!(matches!(all.change(3, FORGET(4, false)), Err(NotChanged::Unconfirmed(_))));
}

#[test]
fn writes_that_only_a_lost_disk_held_are_counted() {
    let mut all = twelve_at_node_1();
    let store = MemoryStore::new();
    let machine = Machine::open(Config { seed: [77; 32], ..config(1, 6, 3) }, &store, all.now).unwrap();
    all.hosts.insert(node(1), Host { machine, store, up: true, stalls: false });
    // Node 2 can't say what it holds: nor is it known to have what both had.
    all.stop(2);
    all.connect_all();
    all.run_ms(6_000);
    let map = all.machine(3).map();
    let of_shard_one = |n: &u32| map.layout.partitions[key(&format!("key{n}")).partition(8).0 as usize] == ShardId(1);
    let both = (0..60).filter(of_shard_one).count() as u64;
    all.stop(1);
    all.run_ms(4_000);
    assert_eq!(all.change(3, FORGET(1, false)), Err(NotChanged::UnconfirmedDisk(12 + both)));
}

#[test]
fn a_recovery_tells_it_too() {
    let mut all = twelve_at_node_1();
    // The last one of its shard names all that it holds as at stake; but what is lost as a whole is told as that.
    for number in [3, 4] {
        all.stop(number);
        all.run_ms(4_000);
    }
    let outcome = all.change(5, Wanted::Recover { confirmed: false });
    let Err(NotChanged::NotRecovered(NotRecovered::Unconfirmed(cost))) = outcome else { panic!("{outcome:?}") };
    assert_eq!((cost.silent.len(), cost.writes), (3, 12));
    let lost = u64::from(cost.partitions);
    assert!(lost > 0);
    // Two operators at once: both are told of partitions, whoever has its way.
    let asked = [5, 6].map(|at| all.begin_change(at, Wanted::Recover { confirmed: true }));
    let outcomes = asked.map(|id| all.changed(id));
    assert!(outcomes.contains(&Ok(lost)), "{outcomes:?}");
    assert!(outcomes.iter().flatten().all(|told| [0, lost].contains(told)), "{outcomes:?}");
}

#[test]
fn a_dead_node_is_forgotten_with_what_only_it_had() {
    let mut all = Lockstep::new(5, 2);
    all.run_ms(2_000);
    let context = all.sixty(5);
    all.hosts.get_mut(&node(5)).unwrap().up = false;
    all.run_ms(4_000);
    let unconfirmed = all.change(1, Wanted::Forget { node: node(5), confirmed: false });
    assert_eq!(unconfirmed, Err(NotChanged::Unconfirmed(0)));
    assert_eq!(all.change(1, Wanted::Forget { node: node(5), confirmed: true }), Ok(0));
    all.run_ms(5_000);
    let map = all.machine(1).map();
    assert!(!map.nodes.contains_key(&node(5)));
    all.check_sixty(4, &context);
    // The forgotten process comes back, and must not go on with what it has.
    all.hosts.get_mut(&node(5)).unwrap().up = true;
    all.connect_all();
    all.run_ms(3_000);
    assert!(matches!(all.ended.get(&node(5)), Some(StoreError::Forgotten(_))), "{:?}", all.ended);
}

#[test]
fn who_missed_a_node_first_can_give_it_up() {
    let mut all = Lockstep::new(5, 2);
    all.run_ms(2_000);
    all.hosts.get_mut(&node(5)).unwrap().up = false;
    // Nobody else has noticed, the proposer neither.
    all.step(&node(3), Input::Disconnected { peer: node(5), refused: true });
    assert!(!all.machine(3).view(all.now).contains(&node(5)) && all.machine(1).view(all.now).contains(&node(5)));
    assert_eq!(all.change(3, Wanted::Forget { node: node(5), confirmed: true }), Ok(0));
    assert!(!all.machine(3).map().nodes.contains_key(&node(5)));
    // One that is up is not given up by anybody.
    let up = all.change(3, Wanted::Forget { node: node(4), confirmed: true });
    assert_eq!(up, Err(NotChanged::Refused(ChangeError::NotLost)));
}

#[test]
fn nobody_is_asked_to_confirm_the_word_on_a_node_that_is_there() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    for number in [1, 4] {
        let asked = all.begin_change(1, Wanted::Forget { node: node(number), confirmed: false });
        assert_eq!(all.changes.remove(&asked), Some(Err(NotChanged::Refused(ChangeError::NotLost))), "node{number}");
    }
    all.stop(4);
    let down = all.change(1, Wanted::Forget { node: node(4), confirmed: false });
    assert!(matches!(down, Err(NotChanged::Unconfirmed(_))), "{down:?}");
}

#[test]
fn the_word_on_a_lost_disk_says_so_and_keeps_the_new_one() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let context = all.sixty(4);
    // Nobody can close what the lost disk held, while the other member is down.
    all.stop(3);
    all.hosts.remove(&node(4));
    all.run_ms(1_000);
    let store = MemoryStore::new();
    let machine = Machine::open(Config { seed: [77; 32], ..config(4, 4, 2) }, &store, all.now).unwrap();
    all.hosts.insert(node(4), Host { machine, store, up: true, stalls: false });
    all.connect_all();
    all.run_ms(5_000);
    all.stop(4);
    let unconfirmed = all.change(1, Wanted::Forget { node: node(4), confirmed: false });
    let Err(told @ NotChanged::UnconfirmedDisk(_)) = unconfirmed else { panic!("{unconfirmed:?}") };
    assert!(told.to_string().contains("what it has now is kept"), "{told}");
    let given_up = all.change(1, Wanted::Forget { node: node(4), confirmed: true });
    assert!(given_up.is_ok(), "{given_up:?}");
    assert_eq!(all.machine(1).map().nodes[&node(4)], Some(all.machine(4).incarnation()));
    for number in [3, 4] {
        all.hosts.get_mut(&node(number)).unwrap().up = true;
    }
    all.connect_all();
    all.run_ms(8_000);
    assert!(all.ended.is_empty(), "{:?}", all.ended);
    all.check_settled(4);
    all.check_sixty(4, &context);
}

#[test]
fn who_had_nothing_to_be_filled_with_knows_that_its_partition_began_anew() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.sixty(6);
    assert_eq!(all.machine(1).map().layout.shards[1], [4, 5, 6].map(node));
    for number in 4..=6 {
        all.stop(number);
    }
    all.run_ms(4_000);
    for number in 4..=6 {
        let given_up = all.change(1, FORGET(number, true));
        assert!(given_up.is_ok(), "node{number}: {given_up:?}");
    }
    let begun = all.machine(1).map().epoch;
    // The place of the last is kept, and node5 is a node like any new one.
    for number in [6, 5] {
        let store = MemoryStore::new();
        let config = Config { seed: [70 + number as u8; 32], shard_count: None, ..config(number, 6, 2) };
        let machine = Machine::open(config, &store, all.now).unwrap();
        all.hosts.insert(node(number), Host { machine, store, up: true, stalls: false });
        all.connect_all();
        all.run_ms(5_000);
    }
    assert_eq!(all.change(1, Wanted::AddMember { shard: ShardId(2), node: node(5) }), Ok(0));
    for number in [5, 6] {
        let replicas = all.machine(number).parts.iter().filter_map(|part| part.replica.as_ref());
        let floors: Vec<_> = replicas.map(|replica| replica.floor).collect();
        assert!(!floors.is_empty() && floors.iter().all(|floor| *floor >= begun), "node{number}: {floors:?}");
    }
}
