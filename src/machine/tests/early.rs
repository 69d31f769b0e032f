//! What is said under a map that is still on its way here: kept, and heard with the map.

use std::sync::Arc;

use super::*;
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::vector::VersionVector;
use crate::machine::message::{PartitionReport, Wanted};
use crate::types::{Dot, Epoch, PartitionId, StayId, Timestamp};

impl Lockstep {
    /// Node 2 says of its first stay in a partition that it holds so many of a stay's writes, under an epoch.
    fn report(&mut self, to: usize, partition: u32, version: u64, of: StayId, seq: u64) {
        let own = self.machine(2).incarnation();
        let stay = self.stay_of_two();
        let durable: VersionVector = [(of, seq)].into_iter().collect();
        let report = PartitionReport {
            partition: PartitionId(partition),
            version: Epoch(version),
            stay,
            durable,
            promise: None,
        };
        let message = Message::Report(vec![report]);
        self.step(&node(to), Input::Message { from: node(2), incarnation: own, message });
    }

    /// The stay of node 2 in every partition, of which it tells.
    fn stay_of_two(&self) -> StayId {
        let own = self.machine(2).incarnation();
        let peers = &self.machine(1).map().row(PartitionId(0)).peers;
        *peers.iter().find(|(_, stay)| stay.incarnation == own).unwrap().0
    }

    /// What a node takes node 2 to hold of a stay's writes.
    fn taken(&self, at: usize, partition: u32, of: StayId) -> u64 {
        let part = &self.machine(at).parts[partition as usize];
        let peer = part.peers.iter().find(|peer| peer.node == node(2)).unwrap();
        part.words.durable(peer.stay, of)
    }

    /// One shard of five nodes, born.
    pub(super) fn before_map_two() -> Self {
        let mut all = Self::new(5, 1);
        all.run_ms(2_000);
        assert_eq!(all.machine(1).map().epoch, Epoch(1));
        all
    }

    /// Takes node 5 out, which gives every partition a new row; node 2 itself is silent towards node 1 meanwhile.
    pub(super) fn map_two(&mut self) {
        self.cut.push((node(2), node(1)));
        self.asked += 1;
        self.step(&node(3), Input::Change { id: self.asked, wanted: Wanted::Remove(node(5)), budget_ms: 5_000 });
        for _ in 0..200 {
            self.run_ms(10);
            if self.machine(1).map().epoch >= Epoch(2) {
                return;
            }
        }
        panic!("no map 2: {:?}", self.warnings);
    }
}

#[test]
fn a_word_that_came_before_its_map_is_heard_with_it() {
    let mut all = Lockstep::before_map_two();
    let of = all.stay_of_two();
    all.report(1, 0, 2, of, 7);
    assert_eq!(all.taken(1, 0, of), 0, "it is none under map 1");
    all.map_two();
    assert_eq!(all.machine(1).map().epoch, Epoch(2));
    assert_eq!(all.taken(1, 0, of), 7, "heard though nobody said it again");
}

#[test]
fn a_word_of_a_map_still_further_is_kept_until_that() {
    let mut all = Lockstep::before_map_two();
    let of = all.stay_of_two();
    all.report(1, 0, 3, of, 7);
    all.map_two();
    assert_eq!((all.machine(1).map().epoch, all.taken(1, 0, of)), (Epoch(2), 0));
    assert_eq!(all.machine(1).early.len(), 1, "kept again");
}

#[test]
fn an_operation_that_came_before_its_map_is_taken_with_it() {
    let mut all = Lockstep::before_map_two();
    let (from, incarnation, stay) = (node(2), all.machine(2).incarnation(), all.stay_of_two());
    let (partition, dot) = (PartitionId(0), Dot { stay, seq: 1 });
    let item = Item { value: None, dot, timestamp: Timestamp(1), carried: Context::empty() };
    let operations = vec![Arc::new(Op { key: key("a"), item, deps: VersionVector::default() })];
    let message = Message::Operations { partition, version: Epoch(2), operations };
    all.step(&node(1), Input::Message { from, incarnation, message });
    let taken = |all: &Lockstep| all.machine(1).part(partition).replica.as_ref().unwrap().applied.get(stay);
    assert_eq!(taken(&all), 0, "it is none under map 1");
    all.map_two();
    assert_eq!(taken(&all), 1, "taken though nobody sent it again");
}

#[test]
fn the_oldest_make_room() {
    let mut all = Lockstep::before_map_two();
    let of = all.stay_of_two();
    // One partition's word first, and then as many of another's as are kept.
    all.report(1, 0, 2, of, 7);
    for seq in 1..=2_048 {
        all.report(1, 1, 2, of, seq);
    }
    assert_eq!(all.machine(1).early.len(), 2_048);
    all.map_two();
    assert_eq!((all.taken(1, 0, of), all.taken(1, 1, of)), (0, 2_048));
}

#[test]
fn large_ones_make_room_by_what_they_say() {
    let mut all = Lockstep::before_map_two();
    let of = all.stay_of_two();
    let (own, stay) = (all.machine(2).incarnation(), all.stay_of_two());
    all.report(1, 0, 2, of, 7);
    // Sixteen of these are as much as is kept of all: what hostile peers might fill memory with.
    let durable: VersionVector = (0..1 << 13).map(|number| (StayId(number), 1)).collect();
    for _ in 0..200 {
        let partition = PartitionId(1);
        let report = PartitionReport { partition, version: Epoch(2), stay, durable: durable.clone(), promise: None };
        let message = Message::Report(vec![report]);
        all.step(&node(1), Input::Message { from: node(2), incarnation: own, message });
    }
    assert!((8..16).contains(&all.machine(1).early.len()), "{} are kept", all.machine(1).early.len());
    all.map_two();
    assert_eq!(all.taken(1, 0, of), 0, "the oldest made room");
}
