//! A majority of the voters is lost, or only out of reach, and operators go on by force.

use super::*;
use crate::causal::context::Context;
use crate::cluster::recover::{RAISE, RecoverError};
use crate::machine::agreement::{Disagreement, NotRecovered};
use crate::machine::message::Wanted;
use crate::types::{BranchId, Epoch, PartitionId, StayId};

const CONFIRMED: Wanted = Wanted::Recover { confirmed: true };

impl Lockstep {
    /// Nothing passes between these nodes and those.
    fn cut(&mut self, these: &[usize], those: &[usize]) {
        for (a, b) in these.iter().flat_map(|a| those.iter().map(move |b| (*a, *b))) {
            self.cut.extend([(node(a), node(b)), (node(b), node(a))]);
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.connect_all();
    }

    fn not_recovered(&mut self, at: usize, wanted: Wanted) -> NotRecovered {
        match self.change(at, wanted) {
            Err(NotChanged::NotRecovered(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    fn branch(&self, number: usize) -> u64 {
        self.machine(number).map().line.branch().0
    }

    fn check_sixty_at(&mut self, numbers: &[usize], context: &Context) {
        for n in 0..60 {
            let response = self.get(numbers[n % numbers.len()], &format!("key{n}"), context);
            assert!(matches!(&response, Response::Value { value, .. } if value == &format!("{n}")), "{response:?}");
        }
    }

    fn start_anew(&mut self, number: usize, nodes: usize, shards: u32) {
        self.ended.remove(&node(number));
        self.start(number, nodes, shards, MemoryStore::new());
        // Another directory is another incarnation.
        let config = Config { seed: [100 + number as u8; 32], ..config(number, nodes, shards) };
        let host = self.hosts.get_mut(&node(number)).unwrap();
        host.machine = Machine::open(config, &host.store, self.now).unwrap();
        self.connect_all();
    }
}

/// Sixty keys, and then neither a majority of the voters, 1, 4, 2, 5 and 3, nor more of shard 1 (nodes 1 to 3) than node 3.
fn three_of_six_are_left() -> (Lockstep, Context) {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let context = all.sixty(6);
    all.run_ms(1_000);
    for number in [1, 2, 4] {
        all.stop(number);
    }
    (all, context)
}

#[test]
fn of_two_nodes_one_goes_on_alone_and_takes_up_others() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    let context = all.sixty(2);
    all.stop(2);
    // Keys are read and written all the time; the map stands still, and whom it waits for is named.
    all.put(1, "alone", "1", &context);
    let stands_still = all.change(1, Wanted::Forget { node: node(2), confirmed: true });
    assert_eq!(stands_still, Err(NotChanged::NoQuorum(vec![node(2)])));
    let cost = all.not_recovered(1, Wanted::Recover { confirmed: false });
    let NotRecovered::Unconfirmed(cost) = cost else { panic!("{cost:?}") };
    assert_eq!((cost.silent, cost.partitions), (vec![node(2)], 0));
    assert_eq!(all.machine(1).map().epoch, Epoch(1), "nothing was done");

    assert_eq!(all.change(1, CONFIRMED), Ok(0));
    let map = all.machine(1).map().clone();
    assert!(map.epoch > Epoch(u64::from(RAISE)) && all.branch(1) != 0);
    all.check_sixty(1, &context);
    // A session that was in the middle of it goes on, too.
    let context = all.put(1, "key1", "again", &context);
    assert!(matches!(all.get(1, "key1", &context), Response::Value { value, .. } if value == "again"));
    // The map changes again, and the one that was given up begins anew.
    all.start_anew(2, 2, 1);
    all.run_ms(5_000);
    assert_eq!(all.machine(2).readiness(all.now), Ok(()));
    assert_eq!(all.change(1, Wanted::Reshard(1)), Ok(0));
    all.run_ms(5_000);
    all.check_settled(2);
    assert!(matches!(all.get(2, "key1", &context), Response::Value { value, .. } if value == "again"));
}

#[test]
fn who_has_agreed_to_a_recovery_goes_on_with_it_whoever_comes_back_meanwhile() {
    let (mut all, context) = three_of_six_are_left();
    all.loses = |_, to, message| *to == node(3) && matches!(message, Message::MapPush(_) | Message::MapDeltas(_));
    let asked = all.begin_change(6, CONFIRMED);
    while all.branch(6) == 0 {
        all.run_ms(10);
    }
    // With these, most voters are there again, before node 3 hears of the map that it has agreed to.
    for number in [2, 4] {
        all.hosts.get_mut(&node(number)).unwrap().up = true;
    }
    all.connect_all();
    all.run_ms(1_000);
    assert_eq!(all.branch(3), 0);
    all.loses = |_, _, _| false;
    assert_eq!(all.changed(asked), Ok(0));
    all.run_ms(8_000);
    assert_eq!(all.branch(3), all.branch(6));
    for number in [2, 4] {
        assert!(matches!(all.ended.get(&node(number)), Some(StoreError::Forgotten(_))), "{:?}", all.ended);
    }
    all.check_sixty_at(&[3, 5, 6], &context);
}

#[test]
fn of_a_recovered_store_a_connection_is_a_sign_of_life_too() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    for number in [1, 3] {
        all.stop(number);
    }
    assert_eq!(all.change(2, CONFIRMED), Ok(0));
    all.start_anew(3, 3, 1);
    all.run_ms(5_000);
    assert_eq!(all.change(2, Wanted::Reshard(1)), Ok(0));
    assert!(all.branch(3) != 0 && all.branch(2) == all.branch(3));
    // Both start again, one before the other, and what they say of themselves is on its way.
    for number in [2, 3] {
        let store = all.hosts[&node(number)].store.crash(0);
        all.stop(number);
        let config = Config { seed: [100 + number as u8; 32], ..config(number, 3, 1) };
        let machine = Machine::open(config, &store, all.now).unwrap();
        all.hosts.insert(node(number), Host { machine, store, up: true, stalls: false });
    }
    all.step(&node(2), Input::Disconnected { peer: node(3), refused: true });
    all.loses = |from, _, message| *from == node(3) && matches!(message, Message::Ping(_) | Message::Pong(_));
    all.connect_all();
    all.settle();
    // Writes wait for a clock to compare with, which somebody else may have told.
    all.hosts.get_mut(&node(2)).unwrap().machine.clock_compared = true;
    let answer = all.ask(2, put_request("b", "2"));
    assert!(matches!(answer, Response::Written { copies: 2, .. }), "{answer:?}");
}

#[test]
fn all_who_are_left_take_the_map_over_and_who_was_given_up_begins_anew() {
    let (mut all, context) = three_of_six_are_left();
    assert_eq!(all.change(6, CONFIRMED), Ok(0));
    let map = all.machine(6).map().clone();
    for number in [3, 5, 6] {
        assert_eq!(all.machine(number).map(), &map, "node{number}");
    }
    all.run_ms(5_000);
    for row in &all.machine(3).map().rows {
        assert!(row.peers.values().all(|stay| !stay.lost), "what is lost is closed: {row:?}");
    }
    all.check_sixty_at(&[3, 5, 6], &context);
    // One of the given up is back, alone.
    all.hosts.get_mut(&node(4)).unwrap().up = true;
    all.connect_all();
    all.run_ms(3_000);
    assert!(matches!(all.ended.get(&node(4)), Some(StoreError::Forgotten(_))), "{:?}", all.ended);
    all.start_anew(4, 6, 2);
    all.run_ms(3_000);
    assert!(all.machine(6).view(all.now).contains(&node(4)));
}

#[test]
fn a_shard_that_is_gone_is_counted_and_begins_empty_elsewhere() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let context = all.sixty(4);
    // Of the voters 1, 3, 2 two are in shard 1.
    all.stop(1);
    all.stop(2);
    let cost = all.not_recovered(3, Wanted::Recover { confirmed: false });
    assert!(cost.to_string().contains("all keys of 4 of 8 partitions"), "{cost}");
    assert_eq!(all.change(4, CONFIRMED), Ok(4));
    assert_eq!(all.change(3, Wanted::Reshard(1)), Ok(0));
    all.run_ms(5_000);
    // A session that saw what is lost goes on without it.
    for n in 0..60 {
        let response = all.get(3 + n % 2, &format!("key{n}"), &context);
        let there = matches!(&response, Response::Value { value, .. } if value == &format!("{n}"));
        let lost = matches!(&response, Response::Missing { .. });
        let partition = key(&format!("key{n}")).partition(8);
        let of_shard_one = partition.0.is_multiple_of(2);
        assert_eq!((there, lost), (!of_shard_one, of_shard_one), "key{n}: {response:?}");
    }
}

#[test]
fn nothing_is_recovered_while_a_majority_lives() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all.stop(3);
    for confirmed in [false, true] {
        let refused = all.not_recovered(1, Wanted::Recover { confirmed });
        assert_eq!(refused, NotRecovered::Refused(RecoverError::QuorumLives));
    }
    assert_eq!(all.machine(1).map().epoch, Epoch(1));
}

#[test]
fn who_does_not_hear_all_is_no_one_to_ask() {
    let mut all = Lockstep::new(7, 1);
    all.run_ms(2_000);
    for number in [1, 2, 3] {
        all.stop(number);
    }
    all.cut(&[4], &[6]);
    all.run_ms(4_000);
    for confirmed in [false, true] {
        let refused = all.not_recovered(4, Wanted::Recover { confirmed });
        assert_eq!(refused, NotRecovered::HeardElsewhere(vec![node(6)]));
    }
    assert_eq!(all.change(5, CONFIRMED), Ok(0));
    all.run_ms(1_000);
    for number in [4, 6, 7] {
        assert_eq!(all.machine(number).map(), all.machine(5).map(), "node{number}");
    }
}

#[test]
fn who_hears_more_than_the_asker_does_not_agree() {
    let mut all = Lockstep::new(7, 1);
    all.run_ms(2_000);
    let asked = |all: &mut Lockstep, present: &[usize]| {
        let present = present.iter().copied().map(node).collect();
        let message = Message::RecoveryAsked { id: 9, branch: BranchId(9), epoch: Epoch(1), present };
        let incarnation = all.machine(4).incarnation();
        all.step(&node(5), Input::Message { from: node(4), incarnation, message });
        let (to, answer) = all.inbox.pop_back().unwrap();
        let Input::Message { message: Message::RecoveryAnswered { id: 9, outcome }, .. } = answer else { panic!() };
        assert_eq!(to, node(4));
        outcome
    };
    assert_eq!(asked(&mut all, &[4, 5, 6, 7]), Err(Disagreement::QuorumLives));
    for number in [1, 2, 3] {
        all.stop(number);
    }
    assert_eq!(asked(&mut all, &[4, 5, 7]), Err(Disagreement::Hears(node(6))));
    assert_eq!(asked(&mut all, &[4, 5, 6, 7]), Ok(()));
    // It has agreed now: to this one, and to no other.
    let refused = all.not_recovered(6, CONFIRMED);
    let NotRecovered::NotAgreed { against, waiting } = refused else { panic!("{refused:?}") };
    assert_eq!((against, waiting), ([(node(5), Disagreement::Another)].into(), vec![]));
    all.run_ms(10_000);
    assert_eq!(all.change(6, CONFIRMED), Ok(0));
}

#[test]
fn of_two_operators_at_once_one_has_its_way() {
    let mut all = Lockstep::new(6, 1);
    all.run_ms(2_000);
    let context = all.sixty(6);
    for number in [1, 2, 3] {
        all.stop(number);
    }
    // Their questions cross.
    for (from, to) in [(4, 5), (5, 4), (4, 6)] {
        all.slow.insert((node(from), node(to)), 50);
    }
    let (first, second) = (all.begin_change(4, CONFIRMED), all.begin_change(5, CONFIRMED));
    assert_eq!([all.changed(first), all.changed(second)], [Ok(0), Ok(0)]);
    all.run_ms(1_000);
    for number in [5, 6] {
        assert_eq!(all.machine(number).map(), all.machine(4).map());
    }
    assert_eq!(all.machine(4).map().line.forks().len(), 1);
    assert!(matches!(all.get(6, "key7", &context), Response::Value { .. }));
}

#[test]
fn who_is_cut_off_goes_on_by_the_old_map_and_mixes_nothing() {
    let mut all = Lockstep::new(4, 1);
    all.run_ms(2_000);
    let before = all.sixty(4);
    all.run_ms(2_000);
    // The voters are 1, 2 and 3: node 2 is dead, node 1 is cut off.
    all.stop(2);
    all.cut(&[1], &[3, 4]);
    all.run_ms(4_000);
    let there = all.put(1, "key1", "there", &before);
    assert_eq!(all.change(4, CONFIRMED), Ok(0));
    let here = all.put(3, "key1", "here", &before);
    // What is known here is not to be had there, and the other way round it is lost by the operator's word.
    assert_eq!(all.get(1, "key1", &here), Response::Error(Code::DependenciesUnsatisfied));
    assert!(matches!(all.get(4, "key1", &there), Response::Value { value, .. } if value == "here"));
    all.heal();
    all.run_ms(3_000);
    assert!(matches!(all.ended.get(&node(1)), Some(StoreError::Forgotten(_))), "{:?}", all.ended);
    assert!(matches!(all.get(3, "key1", &before), Response::Value { value, .. } if value == "here"));
}

#[test]
fn a_majority_that_lives_is_not_ended_by_a_recovery_behind_its_back() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let before = all.sixty(3);
    all.run_ms(2_000);
    all.cut(&[1], &[2, 3]);
    all.run_ms(4_000);
    assert_eq!(all.change(1, CONFIRMED), Ok(0));
    let alone = all.put(1, "key1", "alone", &before);
    let together = all.put(2, "key1", "together", &before);
    all.heal();
    all.run_ms(3_000);
    assert!(all.ended.is_empty(), "{:?}", all.ended);
    assert_eq!([all.branch(2), all.branch(3)], [0, 0]);
    for number in [2, 3] {
        let reason = all.machine(number).readiness(all.now).unwrap_err();
        assert!(reason.starts_with("node1:8085 went on without this node by a recovery by force"), "{reason}");
        assert_eq!(all.machine(number).view(all.now), [node(2), node(3)]);
        assert!(matches!(all.get(number, "key1", &together), Response::Value { value, .. } if value == "together"));
        assert_eq!(all.get(number, "key1", &alone), Response::Error(Code::DependenciesUnsatisfied));
    }
    assert_eq!(all.machine(1).readiness(all.now), Ok(()));
    assert_eq!(all.machine(1).view(all.now), [node(1)]);
    assert!(matches!(all.get(1, "key1", &alone), Response::Value { value, .. } if value == "alone"));
    // They go on by themselves: after a minute they are past the map that the recovery began from.
    all.run_ms(70_000);
    assert!(all.machine(2).map().epoch > Epoch(1) && all.branch(2) == 0);
    assert!(all.machine(2).readiness(all.now).is_err());
    let warnings = all.machine(1).cluster_status(all.now).warnings;
    assert!(
        warnings.iter().any(|text| text.starts_with("node2:8085, node3:8085 are on another branch")),
        "{warnings:?}"
    );
    // The operator chooses: one by one they begin anew in the recovered branch.
    for number in [2, 3] {
        all.start_anew(number, 3, 1);
        all.run_ms(5_000);
        assert_eq!(all.machine(number).map(), all.machine(1).map());
    }
}

#[test]
fn two_recoveries_on_two_sides_are_apart_for_ever() {
    let mut all = Lockstep::new(4, 1);
    all.run_ms(2_000);
    let before = all.sixty(4);
    all.run_ms(2_000);
    // The voters are 1, 2 and 3: with 2 dead neither side has two.
    all.stop(2);
    all.cut(&[1], &[3, 4]);
    all.run_ms(4_000);
    assert_eq!([all.change(1, CONFIRMED), all.change(4, CONFIRMED)], [Ok(0), Ok(0)]);
    let (one, other) = (all.put(1, "key1", "one", &before), all.put(3, "key1", "other", &before));
    all.heal();
    all.run_ms(10_000);
    assert!(all.ended.is_empty(), "{:?}", all.ended);
    assert_eq!(all.branch(3), all.branch(4));
    assert_ne!(all.branch(1), all.branch(3));
    assert_eq!(all.machine(1).view(all.now), [node(1)]);
    assert_eq!(all.machine(4).view(all.now), [node(3), node(4)]);
    assert!(matches!(all.get(1, "key1", &one), Response::Value { value, .. } if value == "one"));
    assert!(matches!(all.get(4, "key1", &other), Response::Value { value, .. } if value == "other"));
    for number in [1, 3, 4] {
        assert_eq!(all.machine(number).readiness(all.now), Ok(()));
        let warnings = all.machine(number).cluster_status(all.now).warnings;
        assert!(warnings.iter().any(|text| text.contains("another branch of this store")), "{warnings:?}");
    }
}

#[test]
fn a_context_of_another_line_of_maps_is_refused() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    let context = all.put(1, "key1", "1", &Context::empty());
    all.stop(2);
    assert_eq!(all.change(1, CONFIRMED), Ok(0));
    let partition = key("key1").partition(8);
    let (mut late, mut other) = (context.clone(), context.clone());
    late.raise_epoch(Epoch(2));
    other.raise(partition, StayId(2), 1);
    for foreign in [late, other] {
        assert_eq!(all.get(1, "key1", &foreign), Response::Error(Code::ContextMalformed));
    }
    assert!(all.machine(1).map().row(PartitionId(0)).is_skipped(StayId(2)));
    assert!(matches!(all.get(1, "key1", &context), Response::Value { .. }));
}

#[test]
fn one_that_dies_in_the_middle_takes_the_map_over_when_it_is_back() {
    let mut all = Lockstep::new(5, 1);
    all.run_ms(2_000);
    let context = all.sixty(5);
    for number in [1, 2, 3] {
        all.stop(number);
    }
    // Node 5 agrees, and dies before the map comes.
    all.slow.insert((node(4), node(5)), 40);
    let asked = all.begin_change(4, CONFIRMED);
    for _ in 0..100 {
        all.run_ms(10);
        if all.branch(4) != 0 {
            break;
        }
    }
    assert!(all.branch(4) != 0 && all.branch(5) == 0);
    all.stop(5);
    all.on_their_way.clear();
    all.slow.clear();
    assert_eq!(all.changed(asked), Ok(0));
    let store = all.hosts.remove(&node(5)).unwrap().store.crash(0);
    all.start(5, 5, 1, store);
    all.connect_all();
    // It listens first whether its voters are there.
    all.run_ms(4_000);
    assert_eq!(all.machine(5).map(), all.machine(4).map());
    assert!(matches!(all.get(5, "key7", &context), Response::Value { .. }));
    assert_eq!(all.change(5, Wanted::Reshard(1)), Ok(0));
}

#[test]
fn one_that_lost_its_disk_does_not_take_itself_for_the_voter_that_it_was() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let context = all.sixty(3);
    all.run_ms(1_000);
    all.stop(1);
    all.start_anew(2, 3, 1);
    all.run_ms(3_000);
    // Of three voters one is there.
    assert_eq!(all.change(2, Wanted::Reshard(1)), Err(NotChanged::NoQuorum(vec![node(1), node(2)])));
    assert_eq!(all.change(3, CONFIRMED), Ok(0));
    all.run_ms(8_000);
    assert_eq!(all.machine(2).map(), all.machine(3).map());
    assert_eq!(all.machine(2).readiness(all.now), Ok(()));
    for n in 0..60 {
        let response = all.get(2, &format!("key{n}"), &context);
        assert!(matches!(&response, Response::Value { value, .. } if value == &format!("{n}")), "{response:?}");
    }
}

#[test]
fn who_falls_silent_after_the_question_is_not_given_up_without_another() {
    let mut all = Lockstep::new(7, 1);
    all.run_ms(2_000);
    for number in [1, 2, 3] {
        all.stop(number);
    }
    all.slow.insert((node(4), node(7)), 3_000);
    let asked = all.begin_change(4, CONFIRMED);
    all.run_ms(500);
    all.stop(6);
    let Err(NotChanged::NotRecovered(NotRecovered::Unconfirmed(cost))) = all.changed(asked) else { panic!() };
    assert!(cost.silent.contains(&node(6)), "{cost}");
}

#[test]
fn one_of_a_living_majority_that_starts_again_listens_before_it_believes_a_recovery() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let context = all.sixty(3);
    all.run_ms(2_000);
    all.cut(&[1], &[2, 3]);
    all.run_ms(4_000);
    assert_eq!(all.change(1, CONFIRMED), Ok(0));
    // Node 2 begins anew while the network heals, and hears node 1 a second before it hears node 3.
    all.slow.insert((node(3), node(2)), 1_000);
    let store = all.hosts.remove(&node(2)).unwrap().store.crash(0);
    all.start(2, 3, 1, store);
    all.heal();
    all.run_ms(10_000);
    assert!(all.ended.is_empty(), "{:?}", all.ended);
    assert_eq!([all.branch(2), all.branch(3)], [0, 0]);
    assert!(matches!(all.get(2, "key7", &context), Response::Value { .. }));
}
