//! What one node's disk holds, learned from the batches that it applied and synced.

use std::collections::{BTreeMap, VecDeque};

use entail::causal::vector::VersionVector;
use entail::machine::records::ReplicaRecord;
use entail::types::{Epoch, Incarnation, PartitionId, StayId};

use crate::oracle::{Order, VersionId};

/// One partition's state.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The replica's vector.
    pub vector: VersionVector,
    /// The own stays that the replica is held for; none: what is left of it is being removed.
    pub held_for: Vec<StayId>,
    /// It holds all that its vector says, and nothing that a first fill left half.
    pub filled: bool,
    /// The replica's floor.
    pub floor: Epoch,
    /// Tombstones that were collected here: the greatest of each key, by the key's index.
    pub collected: BTreeMap<usize, Order>,
}

/// The map that left a replica without a stay: what dropped it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The version of the row since.
    pub version: Epoch,
    /// When that map was first proposed to its voters, in milliseconds.
    pub at_ms: u64,
    /// At how many nodes that map wants the partition.
    pub wanted: u32,
    /// Those that serve in its stead: as far as that map knows, none of their disks is lost.
    pub serving: Vec<Incarnation>,
    /// The partition was begun anew, empty, by the operator's word: nothing was handed on.
    pub begun: bool,
}

/// One thing that a batch did.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The replica's record changed.
    Replica(PartitionId, ReplicaRecord),
    /// The replica was dropped.
    Dropped(PartitionId, Closing),
    /// A tombstone was removed.
    Collected(PartitionId, usize, Order),
    /// A write got its name.
    Born(VersionId),
}

/// What a node holds now, and what of that is durable.
#[derive(Clone, Debug)]
pub struct Holdings {
    /// With all that was applied.
    pub now: Vec<Held>,
    /// With all that was synced.
    pub durable: Vec<Held>,
    /// What disks had, by partition, that were lost here.
    pub lost: Vec<VersionVector>,
    unsynced: VecDeque<(u64, Vec<Fact>)>,
}

impl Holdings {
    /// An empty disk.
    pub fn new(partitions: u32) -> Self {
        let nothing = vec![Held::default(); partitions as usize];
        let lost = vec![VersionVector::default(); partitions as usize];
        Self { now: nothing.clone(), durable: nothing, lost, unsynced: VecDeque::new() }
    }

    /// The disk is lost; an empty one takes its place.
    pub fn wipe(&mut self) {
        let mut empty = Self::new(self.now.len() as u32);
        for (at, held) in self.now.iter().enumerate() {
            empty.lost[at] = std::mem::take(&mut self.lost[at]);
            empty.lost[at].join(&held.vector);
        }
        *self = empty;
    }

    /// A batch was applied.
    pub fn applied(&mut self, number: u64, facts: Vec<Fact>) {
        facts.iter().for_each(|fact| take(&mut self.now, fact));
        self.unsynced.push_back((number, facts));
    }

    /// The replicas whose drop becomes durable with the batches up to this number.
    pub fn dropped_by(&self, number: u64) -> Vec<(PartitionId, Closing)> {
        let facts = self.unsynced.iter().filter(|batch| batch.0 <= number).flat_map(|batch| &batch.1);
        let dropped = facts.filter_map(|fact| match fact {
            Fact::Dropped(partition, closing) => Some((*partition, closing.clone())),
            _ => None,
        });
        dropped.collect()
    }

    /// The number of the last of the first `keep` batches that are not durable.
    pub fn number(&self, keep: usize) -> u64 {
        keep.checked_sub(1).and_then(|at| self.unsynced.get(at)).map_or(0, |batch| batch.0)
    }

    /// The batches up to this number are durable.
    pub fn synced(&mut self, number: u64) {
        while self.unsynced.front().is_some_and(|batch| batch.0 <= number) {
            let (_, facts) = self.unsynced.pop_front().expect("the front is there");
            facts.iter().for_each(|fact| take(&mut self.durable, fact));
        }
    }

    /// A crash that keeps so many of the batches that were not synced; gives the versions that went with the rest.
    pub fn crashed(&mut self, keep: usize) -> Vec<VersionId> {
        let mut lost = Vec::new();
        for (index, (_, facts)) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            for fact in &facts {
                if index < keep {
                    take(&mut self.durable, fact);
                } else if let Fact::Born(version) = fact {
                    lost.push(*version);
                }
            }
        }
        self.now.clone_from(&self.durable);
        lost
    }
}

fn take(held: &mut [Held], fact: &Fact) {
    match fact {
        Fact::Dropped(partition, _) => held[partition.0 as usize] = Held::default(),
        Fact::Replica(partition, record) => {
            let held = &mut held[partition.0 as usize];
            held.held_for.clone_from(&record.held_for);
            held.vector.clone_from(&record.applied);
            (held.floor, held.filled) = (record.floor, record.filled);
        }
        Fact::Collected(partition, key, order) => {
            let greatest = held[partition.0 as usize].collected.entry(*key).or_insert(*order);
            *greatest = (*greatest).max(*order);
        }
        Fact::Born(_) => {}
    }
}
