//! Contexts: all that a session has seen, as the open names of writes and an epoch for what was left out.

use serde::{Deserialize, Serialize};

use crate::types::{Dot, Epoch, PartitionId, Seq, StayId, Timestamp};

/// `(epoch, (partition, stay) → seq)`: what somebody has seen.
///
/// An entry stands for that write and, within its partition, for all that precedes it causally. What is not listed is
/// either not seen, or was stable (or closed) when it was left out; the epoch is at least the version of the row
/// under which that was found, so a node with an older map knows that it may lack something.
///
/// Beside that the context tells a *clock*: no write that was seen has a greater timestamp, in whatever partition. Who writes
/// next gives a greater one, so that the order of timestamps extends causality across partitions, too.
///
/// Kept sorted and without zeros: equal contexts are equal values. [`Context::join`] is a lattice join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    epoch: Epoch,
    /// Not stored with what an item carries: the item's own timestamp is greater.
    #[serde(skip)]
    clock: Timestamp,
    entries: Vec<((PartitionId, StayId), Seq)>,
}

impl Context {
    /// The context that depends on nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The greatest version under which something was left out.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Raises the epoch; a smaller one changes nothing.
    pub fn raise_epoch(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// No write that was seen has a greater timestamp; zero where nobody told.
    pub fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Raises the clock; a smaller one changes nothing.
    pub fn raise_clock(&mut self, clock: Timestamp) {
        self.clock = self.clock.max(clock);
    }

    /// How far the stay of the partition was seen; 0 when it is not listed.
    pub fn get(&self, partition: PartitionId, stay: StayId) -> Seq {
        self.entries.binary_search_by_key(&(partition, stay), |e| e.0).map_or(0, |i| self.entries[i].1)
    }

    /// Raises an entry to `seq`; a smaller one changes nothing.
    pub fn raise(&mut self, partition: PartitionId, stay: StayId, seq: Seq) {
        if seq == 0 {
            return;
        }
        match self.entries.binary_search_by_key(&(partition, stay), |e| e.0) {
            Ok(i) => self.entries[i].1 = self.entries[i].1.max(seq),
            Err(i) => self.entries.insert(i, ((partition, stay), seq)),
        }
    }

    /// True when the write of this name was seen, or one after it of the same stay.
    pub fn covers(&self, partition: PartitionId, dot: Dot) -> bool {
        self.get(partition, dot.stay) >= dot.seq
    }

    /// True when the context names this very write.
    pub fn names(&self, partition: PartitionId, dot: Dot) -> bool {
        self.get(partition, dot.stay) == dot.seq
    }

    /// Takes the greater of both, entry by entry, and the greater epoch and clock.
    pub fn join(&mut self, other: &Self) {
        self.raise_epoch(other.epoch);
        self.raise_clock(other.clock);
        for (partition, stay, seq) in other.iter() {
            self.raise(partition, stay, seq);
        }
    }

    /// All entries, ascending by partition, then stay.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionId, StayId, Seq)> + '_ {
        self.entries.iter().map(|&((partition, stay), seq)| (partition, stay, seq))
    }

    /// The entries of one partition, ascending by stay.
    pub fn of(&self, partition: PartitionId) -> impl Iterator<Item = (StayId, Seq)> + '_ {
        let from = self.entries.partition_point(|e| e.0.0 < partition);
        self.entries[from..].iter().take_while(move |e| e.0.0 == partition).map(|&((_, stay), seq)| (stay, seq))
    }

    /// Keeps the entries for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(PartitionId, StayId, Seq) -> bool) {
        self.entries.retain(|&((partition, stay), seq)| keep(partition, stay, seq));
    }

    /// How many entries are listed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when no entry is listed (epoch and clock may still say something).
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
