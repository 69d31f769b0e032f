//! Maps that change: reshard, members that join and leave, lost disks.

use super::*;
use crate::cluster::change::{Change, ChangeError};
use crate::cluster::map::{ClusterMap, PeerState, Row, Stay};
use crate::cluster::plan::PlanError;
use crate::machine::message::Wanted;
use crate::types::Epoch;

impl Lockstep {
    pub(super) fn change(&mut self, at: usize, wanted: Wanted) -> Result<u64, NotChanged> {
        let id = self.begin_change(at, wanted);
        self.changed(id)
    }

    pub(super) fn begin_change(&mut self, at: usize, wanted: Wanted) -> u64 {
        self.asked += 1;
        let id = self.asked;
        self.step(&node(at), Input::Change { id, wanted, budget_ms: 5_000 });
        self.settle();
        id
    }

    pub(super) fn changed(&mut self, id: u64) -> Result<u64, NotChanged> {
        for _ in 0..6_000 {
            if let Some(outcome) = self.changes.remove(&id) {
                return outcome;
            }
            self.run_ms(10);
        }
        panic!("change {id} was never answered; {:?}; {:#?}", self.warnings, self.machine(1).map());
    }

    /// Starts all of six nodes again, so that each gives others no more than this of fills, in bytes a second.
    pub(super) fn throttle(&mut self, bytes: u64) {
        self.fill_bytes = bytes;
        for number in 1..=6 {
            let store = self.hosts[&node(number)].store.crash(0);
            self.stop(number);
            self.start(number, 6, 2, store);
        }
        self.connect_all();
        self.run_ms(3_000);
    }

    /// Sixty keys, each with the context of the last.
    pub(super) fn sixty(&mut self, nodes: usize) -> Context {
        let mut context = Context::empty();
        for n in 0..60 {
            context = self.put(1 + n % nodes, &format!("key{n}"), &format!("{n}"), &context);
        }
        context
    }

    pub(super) fn check_sixty(&mut self, nodes: usize, context: &Context) {
        for n in 0..60 {
            for context in [&Context::empty(), context] {
                let response = self.get(1 + (n + 1) % nodes, &format!("key{n}"), context);
                let Response::Value { value, .. } = response else { panic!("key{n}: {response:?}") };
                assert_eq!(value, format!("{n}"));
            }
        }
    }

    /// Every row has nothing but Serving peers, at the nodes of its shard; nobody holds what it should not.
    pub(super) fn check_settled(&self, nodes: usize) {
        let map = self.machine(1).map().clone();
        check_as_laid_out(&map);
        for number in 1..=nodes {
            assert_eq!(self.machine(number).map().epoch, map.epoch, "node{number}");
            for part in self.machine(number).partition_status() {
                let members = map.layout.members(map.layout.partitions[part.partition.0 as usize]).unwrap();
                assert!(members.contains(&node(number)), "node{number} still holds {part:?}");
            }
        }
    }
}

/// Nothing is under way, and each partition has a Serving peer at each of its members, and no other.
fn check_as_laid_out(map: &ClusterMap) {
    assert_eq!(map.target, None);
    for (row, shard) in map.rows.iter().zip(&map.layout.partitions) {
        let wanted = map.layout.members(*shard).unwrap();
        let there = |stay: &Stay| (stay.state, map.address_of(stay.incarnation).unwrap().clone());
        let serving: Vec<_> = row.peers.values().map(there).collect();
        let is_wanted = |(state, node): &(PeerState, NodeAddr)| *state == PeerState::Serving && wanted.contains(node);
        assert!(serving.iter().all(is_wanted), "{row:?}");
        assert_eq!(serving.len(), wanted.len());
    }
}

#[test]
fn a_reshard_moves_keys_and_loses_none() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let context = all.sixty(6);
    assert_eq!(all.change(4, Wanted::Reshard(3)), Ok(0));
    assert_eq!(all.machine(2).map().layout.shards.len(), 3);
    all.run_ms(5_000);
    all.check_settled(6);
    all.check_sixty(6, &context);
    let epochs = all.machine(1).map().epoch.0;
    assert!(epochs <= 8, "{epochs} maps for one small reshard");
    assert_eq!(all.change(1, Wanted::Reshard(2)), Ok(0));
    all.run_ms(5_000);
    all.check_settled(6);
    all.check_sixty(6, &context);
}

#[test]
fn a_reshard_that_can_not_be_changes_nothing() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let refused = |error: PlanError| Err(NotChanged::Refused(ChangeError::Plan(error)));
    assert_eq!(all.change(1, Wanted::Reshard(3)), refused(PlanError::NotEnoughNodes));
    assert_eq!(all.change(1, Wanted::Reshard(0)), refused(PlanError::NotEnoughNodes));
    assert_eq!(all.change(3, Wanted::Cancel), Err(NotChanged::Refused(ChangeError::NotInProgress)));
    assert_eq!(all.machine(1).map().epoch.0, 1);
}

#[test]
fn two_reshards_at_once_are_one() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.sixty(6);
    let (first, second) = (all.begin_change(2, Wanted::Reshard(3)), all.begin_change(5, Wanted::Reshard(1)));
    let outcomes = [all.changed(first), all.changed(second)];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.contains(&Err(NotChanged::Refused(ChangeError::InProgress))), "{outcomes:?}");
}

#[test]
fn a_node_joins_the_view_and_then_a_shard() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let context = all.sixty(4);
    let config = Config { shard_count: None, view: vec![node(1), node(5)], ..config(5, 5, 2) };
    let store = MemoryStore::new();
    let machine = Machine::open(config, &store, all.now).unwrap();
    all.hosts.insert(node(5), Host { machine, store, up: true, stalls: false });
    all.connect_all();
    all.run_ms(5_000);
    assert_eq!(all.machine(3).view(all.now).len(), 5, "{:?}", all.machine(5).readiness(all.now));
    all.check_sixty(5, &context);
    assert_eq!(all.change(5, Wanted::AddMember { shard: ShardId(2), node: node(5) }), Ok(0));
    all.run_ms(3_000);
    all.check_settled(5);
    assert_eq!(all.machine(1).map().layout.shards[1].len(), 3);
    all.check_sixty(5, &context);
}

#[test]
fn a_node_is_taken_out_with_nothing_lost() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let context = all.sixty(6);
    assert_eq!(all.change(1, Wanted::Remove(node(6))), Ok(0));
    all.run_ms(3_000);
    assert!(all.machine(6).partition_status().is_empty());
    assert_eq!(all.machine(6).own_shard(), None);
    all.check_sixty(6, &context);
    assert_eq!(all.change(2, Wanted::Remove(node(6))), Err(NotChanged::Refused(ChangeError::NoSuchNode)));
    assert_eq!(all.change(2, Wanted::Admit(node(6))), Ok(0));
    assert_eq!(all.machine(2).view(all.now).len(), 6);
}

#[test]
fn who_is_taken_out_is_gone_only_when_the_others_have_what_it_took() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    // What it says takes a while, so a write that it took is nowhere else when the word comes that takes it out.
    let others: Vec<_> = (1..=6).filter(|number| *number != 5).collect();
    for to in &others {
        all.slow.insert((node(5), node(*to)), 800);
    }
    let keys: Vec<_> = (0..20).map(|n| format!("key{n}")).collect();
    let writes: Vec<_> = keys.iter().map(|key| all.begin(5, put_request(key, "last"))).collect();
    let asked = all.begin_change(1, Wanted::Remove(node(5)));
    assert_eq!(all.changed(asked), Ok(0));
    // At this very moment it may be switched off.
    all.stop(5);
    all.slow.clear();
    all.on_their_way.clear();
    all.run_ms(3_000);
    let (mut taken, mut shown) = (0, 0);
    for (key, write) in keys.iter().zip(writes) {
        let acknowledged = matches!(all.answers.remove(&write), Some(Response::Written { .. }));
        let there = matches!(all.get(1, key, &Context::empty()), Response::Value { .. });
        assert!(there || !acknowledged, "{key} was acknowledged");
        (taken, shown) = (taken + usize::from(acknowledged), shown + usize::from(there));
    }
    assert!(shown > 0, "{taken} were acknowledged, none is there");
}

#[test]
fn one_that_was_taken_out_is_back_in_the_view_when_its_process_starts_anew() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let context = all.sixty(6);
    assert_eq!(all.change(4, Wanted::Remove(node(2))), Ok(0));
    all.run_ms(10_000);
    assert!(!all.machine(4).view(all.now).contains(&node(2)), "it stays out while it runs");
    let disk = all.hosts[&node(2)].store.crash(0);
    all.stop(2);
    all.start(2, 6, 2, disk);
    all.connect_all();
    all.run_ms(5_000);
    for number in 1..=6 {
        assert!(all.machine(number).view(all.now).contains(&node(2)), "at node{number}");
    }
    assert_eq!(all.machine(4).map().shard_of(&node(2)), None, "and is in no shard");
    assert_eq!(all.machine(2).readiness(all.now), Ok(()));
    all.check_sixty(6, &context);
    // Taken out again, it is out.
    assert_eq!(all.change(4, Wanted::Remove(node(2))), Ok(0));
    all.run_ms(10_000);
    assert!(!all.machine(4).view(all.now).contains(&node(2)));
    // Taken out while it was down, it is back with its start, too.
    let disk = all.hosts[&node(3)].store.crash(0);
    all.hosts.get_mut(&node(3)).unwrap().up = false;
    all.run_ms(1_000);
    let asked = all.begin_change(4, Wanted::Remove(node(3)));
    all.run_ms(2_000);
    assert!(all.machine(4).map().out.contains(&node(3)));
    all.start(3, 6, 2, disk);
    all.connect_all();
    assert_eq!(all.changed(asked), Ok(0));
    all.run_ms(3_000);
    assert!(all.machine(4).view(all.now).contains(&node(3)));
}

#[test]
fn what_nobody_asks_for_any_more_is_not_done_by_the_next_that_leads() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let layout = all.machine(4).map().layout.clone();
    // Asked by one that did not hear the first voter for a moment.
    let (from, incarnation) = (node(6), all.machine(6).incarnation());
    let message = Message::ChangeAsked { id: 77, change: Change::Reshard(1), epoch: Epoch(0), again: false };
    let second = all
        .machine(4)
        .map()
        .voters
        .iter()
        .filter_map(|v| all.machine(4).map().address_of(*v))
        .min_by_key(|n| (**n == node(1), (*n).clone()));
    let second = second.unwrap().clone();
    all.step(&second, Input::Message { from, incarnation, message });
    all.run_ms(10_000);
    all.stop(1);
    all.run_ms(20_000);
    assert_eq!((&all.machine(4).map().layout, &all.machine(4).map().target), (&layout, &None));
}

#[test]
fn one_that_is_behind_refuses_nothing_by_what_is_over() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.throttle(64 << 10);
    for n in 0..40 {
        all.put(1 + n % 6, &format!("key{n}"), &"x".repeat(20_000), &Context::empty());
    }
    let asked = all.begin_change(4, Wanted::Reshard(3));
    while all.machine(1).map().target.is_none() {
        all.run_ms(10);
    }
    let disk = all.hosts[&node(1)].store.crash(0);
    all.stop(1);
    assert_eq!(all.changed(asked), Ok(0));
    // Node 1 leads as soon as it is back, and its map has a reshard under way.
    all.start(1, 6, 2, disk);
    let (from, incarnation) = (node(4), all.machine(4).incarnation());
    let epoch = all.machine(4).map().epoch;
    let message = Message::ChangeAsked { id: 77, change: Change::Reshard(3), epoch, again: false };
    all.cut = (2..=6).map(|other| (node(1), node(other))).collect();
    all.step(&node(1), Input::Message { from, incarnation, message });
    all.run_ms(500);
    assert_eq!(all.refusals, 0, "it knows no better");
    all.cut.clear();
    all.connect_all();
    assert_eq!(all.change(4, Wanted::Reshard(3)), Ok(0));
}

#[test]
fn a_member_that_dies_before_it_holds_its_shard_is_not_added() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.throttle(64 << 10);
    all.start_seventh();
    for n in 0..40 {
        all.put(1, &format!("key{n}"), &"x".repeat(50_000), &Context::empty());
    }
    let asked = all.begin_change(2, Wanted::AddMember { shard: ShardId(1), node: node(7) });
    all.run_ms(1_000);
    let joins = |stay: &Stay| stay.is_joining();
    assert!(all.machine(2).map().rows.iter().any(|row| row.peers.values().any(joins)), "it is being filled");
    all.stop(7);
    all.run_ms(20_000);
    assert_eq!(all.changes.get(&asked), None, "nobody is told that it holds the keys");
    all.run_ms(20_000);
    assert_eq!(all.changes.get(&asked), Some(&Err(NotChanged::Cancelled)));
    assert_eq!(all.machine(2).map().shard_of(&node(7)), None);
}

#[test]
fn a_change_that_only_fills_is_no_standstill_wherever_it_was_asked_for() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    // The first partition takes longer than a change may stand still.
    all.throttle(4 << 10);
    for n in 0..40 {
        all.put(1 + n % 6, &format!("key{n}"), &"x".repeat(200_000), &Context::empty());
    }
    let voters = all.machine(1).map().voters.clone();
    let asked = (1..=6).find(|number| !voters.contains(&all.machine(*number).incarnation())).unwrap();
    let change = all.begin_change(asked, Wanted::Reshard(3));
    all.run_ms(90_000);
    assert_eq!(all.changes.get(&change), None, "{:?}", all.machine(asked).reshard_status(all.now));
    // Where nothing gets on, that is said after a minute, and the work is not given up.
    all.cut = (1..=6).flat_map(|a| (1..=6).map(move |b| (node(a), node(b)))).collect();
    all.run_ms(75_000);
    assert_eq!(all.changes.get(&change), Some(&Err(NotChanged::Stalled)));
    assert!(all.machine(asked).map().target.is_some());
}

#[test]
fn a_lost_disk_is_filled_again_by_itself() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let context = all.sixty(6);
    all.hosts.remove(&node(2));
    all.run_ms(1_000);
    let config = Config { seed: [77; 32], ..config(2, 6, 2) };
    let store = MemoryStore::new();
    let machine = Machine::open(config, &store, all.now).unwrap();
    all.hosts.insert(node(2), Host { machine, store, up: true, stalls: false });
    all.connect_all();
    all.run_ms(8_000);
    assert_eq!(all.machine(2).readiness(all.now), Ok(()));
    all.check_settled(6);
    all.check_sixty(6, &context);
}

#[test]
fn reads_writes_and_counts_go_on_while_partitions_move() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let mut context = all.sixty(6);
    let id = all.begin_change(3, Wanted::Reshard(3));
    let mut moved = 0;
    for turn in 0..400 {
        let shards = all.machine(5).map().layout.shards.len() as u32;
        let counts: u64 = (1..=shards)
            .map(|shard| match all.ask(1 + turn % 6, Request::KeyCount { shard: ShardId(shard) }) {
                Response::KeyCount(keys) => keys,
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(counts, 60, "turn {turn}");
        context = all.put(1 + turn % 6, &format!("key{}", turn % 60), &format!("{turn}"), &context);
        let response = all.get(1 + (turn + 2) % 6, &format!("key{}", turn % 60), &context);
        assert!(matches!(&response, Response::Value { value, .. } if *value == format!("{turn}")), "{response:?}");
        moved += usize::from(all.machine(1).map().target.is_some());
        all.run_ms(10);
        if all.changes.contains_key(&id) {
            break;
        }
    }
    assert!(moved > 2, "the reshard took no time");
    assert_eq!(all.changed(id), Ok(0));
    all.run_ms(5_000);
    all.check_settled(6);
}

/// Clients wait while a step lasts.
#[test]
fn a_step_gives_one_chunk_however_many_fills_wait() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let context = all.sixty(6);
    all.most_given = 0;
    assert_eq!(all.change(3, Wanted::Reshard(3)), Ok(0));
    assert_eq!(all.most_given, 1);
    all.check_sixty(6, &context);
}

#[test]
fn a_reshard_that_is_cancelled_half_way_is_back_with_the_answer() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.throttle(16 << 10);
    // Partitions of different sizes, so that they don't arrive together.
    for n in 0..40 {
        let name = format!("key{n}");
        let size = 1_000 + 6_000 * key(&name).partition(8).0 as usize;
        all.put(1, &name, &"x".repeat(size), &Context::empty());
    }
    let before = all.machine(1).map().layout.clone();
    let id = all.begin_change(3, Wanted::Reshard(3));
    // Some partitions have arrived, others have not.
    let half_way = |map: &ClusterMap| {
        let at = |wanted: PeerState| {
            let partitions = map.rows.iter().zip(&before.partitions);
            let came = |(row, shard): (&Row, &ShardId)| {
                let members = before.members(*shard).unwrap();
                let here = |stay: &Stay| map.address_of(stay.incarnation).is_some_and(|node| !members.contains(node));
                row.peers.values().any(|stay| stay.state == wanted && here(stay))
            };
            partitions.filter(|partition| came(*partition)).count()
        };
        at(PeerState::Serving) > 0 && at(PeerState::Joining) > 0
    };
    while !half_way(all.machine(2).map()) {
        all.run_ms(10);
        assert!(!all.changes.contains_key(&id), "never half way");
    }
    assert_eq!(all.change(2, Wanted::Cancel), Ok(0));
    check_as_laid_out(all.machine(2).map());
    assert_eq!(all.machine(2).map().layout, before);
    assert_eq!(all.changed(id), Err(NotChanged::Cancelled));
    all.run_ms(3_000);
    all.check_settled(6);
    for n in 0..40 {
        assert!(matches!(all.get(1 + n % 6, &format!("key{n}"), &Context::empty()), Response::Value { .. }), "key{n}");
    }
}

#[test]
fn a_count_is_of_the_shard_as_the_asked_node_knows_it() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.sixty(6);
    // Every word to node 6 takes its time, maps too.
    all.slow = (1..=5).map(|number| ((node(number), node(6)), 500)).collect();
    assert_eq!(all.change(3, Wanted::Reshard(3)), Ok(0));
    let layout = all.machine(6).map().layout.clone();
    assert_eq!((layout.shards.len(), all.machine(3).map().layout.shards.len()), (2, 3), "it has not heard yet");
    let of_shard_one = |n: &usize| {
        let partition = key(&format!("key{n}")).partition(8);
        layout.partitions[partition.0 as usize] == ShardId(1)
    };
    let keys = (0..60).filter(of_shard_one).count() as u64;
    assert_eq!(all.ask(6, Request::KeyCount { shard: ShardId(1) }), Response::KeyCount(keys));
}
