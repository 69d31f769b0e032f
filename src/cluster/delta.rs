//! What of a map is other than in one before: what nodes tell each other in its place.
//!
//! A step changes a few rows, or a voter, of a map that has a row for each of some hundred partitions. A [`MapDelta`]
//! names the map it begins from and the one it leads to by their hashes, and carries the rows that changed and the
//! other parts, whole, that did. So it can be taken for nothing else: on another map it does not apply, and what it
//! makes is the sender's map to the letter, or nothing.
//!
//! A node remembers the last differences that it went through ([`History`]), in memory and within a bound, for those
//! that are behind. Who is further behind, or on another line of maps, gets the map as a whole.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::map::{ClusterMap, Layout};
use crate::types::{Epoch, PartitionId};

/// The most bytes of differences that a node remembers, encoded.
const MOST_BYTES: usize = 256 << 10;

/// Bytes of differences that are told though the whole map takes less, as a small store's does: who has asked for a
/// change, and has missed some maps, sees from them alone whether it was done meanwhile, and undone.
const FEW_BYTES: usize = 64 << 10;

/// From one map to another, with as many partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDelta {
    /// The epoch of the map that it begins from.
    pub base: Epoch,
    /// … and that map's [`ClusterMap::hash`].
    pub base_hash: u64,
    /// The hash of the map that it leads to.
    pub hash: u64,
    /// That map, empty in all parts that are kept; its rows are those that changed, …
    pub changed: ClusterMap,
    /// … of these partitions, ascending.
    pub partitions: Vec<PartitionId>,
    /// The parts that are as before.
    pub kept: BTreeSet<Part>,
}

/// A part of a map that a difference carries whole, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// [`ClusterMap::nodes`].
    Nodes,
    /// [`ClusterMap::out`].
    Out,
    /// [`ClusterMap::former`].
    Former,
    /// [`ClusterMap::forgotten`].
    Forgotten,
    /// [`ClusterMap::layout`].
    Layout,
    /// [`ClusterMap::target`].
    Target,
    /// [`ClusterMap::voters`].
    Voters,
}

impl Part {
    /// All of them, in order.
    pub const ALL: [Part; 7] =
        [Part::Nodes, Part::Out, Part::Former, Part::Forgotten, Part::Layout, Part::Target, Part::Voters];

    fn is_same(self, one: &ClusterMap, other: &ClusterMap) -> bool {
        match self {
            Part::Nodes => one.nodes == other.nodes,
            Part::Out => one.out == other.out,
            Part::Former => one.former == other.former,
            Part::Forgotten => one.forgotten == other.forgotten,
            Part::Layout => one.layout == other.layout,
            Part::Target => one.target == other.target,
            Part::Voters => one.voters == other.voters,
        }
    }

    /// Empties the part, or fills it from a map.
    fn set(self, map: &mut ClusterMap, from: Option<&ClusterMap>) {
        match self {
            Part::Nodes => map.nodes = from.map_or_else(Default::default, |from| from.nodes.clone()),
            Part::Out => map.out = from.map_or_else(Default::default, |from| from.out.clone()),
            Part::Former => map.former = from.map_or_else(Default::default, |from| from.former.clone()),
            Part::Forgotten => map.forgotten = from.map_or_else(Default::default, |from| from.forgotten.clone()),
            Part::Layout => map.layout = from.map_or_else(Layout::default, |from| from.layout.clone()),
            Part::Target => map.target = from.and_then(|from| from.target.clone()),
            Part::Voters => map.voters = from.map_or_else(Default::default, |from| from.voters.clone()),
        }
    }
}

/// Why a difference makes no map of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It begins from another map.
    #[error("it begins from another map")]
    Base,
    /// What it makes contradicts itself.
    #[error("what it makes contradicts itself: {0}")]
    Contradiction(&'static str),
    /// What it makes is not what it says.
    #[error("what it makes is not the map that it names")]
    Result,
}

impl MapDelta {
    /// What leads from a map to another of as many partitions.
    pub fn between(base: &ClusterMap, next: &ClusterMap) -> Self {
        let rows = (0..).map(PartitionId).zip(base.rows.iter().zip(&next.rows));
        let differs = rows.filter(|(_, (was, is))| was != is);
        let (partitions, rows): (Vec<_>, Vec<_>) = differs.map(|(partition, (_, is))| (partition, is.clone())).unzip();
        let kept: BTreeSet<_> = Part::ALL.into_iter().filter(|part| part.is_same(base, next)).collect();
        let (base_hash, hash) = (base.hash(), next.hash());
        let mut changed = ClusterMap { rows, ..next.clone() };
        kept.iter().for_each(|part| part.set(&mut changed, None));
        Self { base: base.epoch, base_hash, hash, changed, partitions, kept }
    }

    /// The epoch of the map that it leads to.
    pub fn epoch(&self) -> Epoch {
        self.changed.epoch
    }

    /// The map that it leads to from this one.
    ///
    /// # Errors
    /// [`DeltaError`]; nothing of the difference is to be believed then.
    pub fn apply(&self, base: &ClusterMap) -> Result<ClusterMap, DeltaError> {
        if base.epoch != self.base || base.hash() != self.base_hash {
            return Err(DeltaError::Base);
        }
        let mut rows = base.rows.clone();
        for (partition, row) in self.partitions.iter().zip(&self.changed.rows) {
            let place = rows.get_mut(partition.0 as usize);
            row.clone_into(place.ok_or(DeltaError::Contradiction("it changes a row that there is not"))?);
        }
        let mut next = ClusterMap { rows, ..self.changed.clone() };
        self.kept.iter().for_each(|part| part.set(&mut next, Some(base)));
        next.check().map_err(DeltaError::Contradiction)?;
        if next.hash() == self.hash { Ok(next) } else { Err(DeltaError::Result) }
    }

    /// How many bytes it takes as a record.
    pub fn bytes(&self) -> usize {
        postcard::to_allocvec(self).map_or(usize::MAX, |bytes| bytes.len())
    }
}

/// Goes through those of a chain that lead on from a map. Gives the map at its end; `None` when none leads on.
///
/// # Errors
/// [`DeltaError`] of the first that makes no map; [`DeltaError::Base`] when the chain leads to a newer map than this
/// but does not go through it.
pub fn follow(base: &ClusterMap, chain: &[Arc<MapDelta>]) -> Result<Option<ClusterMap>, DeltaError> {
    let news = chain.last().is_some_and(|last| last.epoch() > base.epoch);
    if !news {
        return Ok(None);
    }
    let begin = chain.iter().position(|delta| delta.base == base.epoch).ok_or(DeltaError::Base)?;
    let (first, rest) = chain[begin..].split_first().ok_or(DeltaError::Base)?;
    rest.iter().try_fold(first.apply(base)?, |map, delta| delta.apply(&map)).map(Some)
}

/// The last differences that a node went through, each from the map that the one before led to.
#[derive(Debug, Default)]
pub struct History {
    deltas: VecDeque<(usize, Arc<MapDelta>)>,
    bytes: usize,
    /// How many bytes the newest map takes as a whole.
    whole: usize,
}

impl History {
    /// Notes that a node acted under `base` and acts under `next` now.
    pub fn push(&mut self, base: &ClusterMap, next: &ClusterMap) {
        if base.rows.len() != next.rows.len() {
            // The map of a running store, learned by a node that was started with other settings.
            return *self = Self::default();
        }
        let delta = MapDelta::between(base, next);
        let bytes = delta.bytes();
        self.whole = next.bytes();
        self.bytes += bytes;
        self.deltas.push_back((bytes, Arc::new(delta)));
        while self.bytes > MOST_BYTES {
            let Some((bytes, _)) = self.deltas.pop_front() else { break };
            self.bytes -= bytes;
        }
    }

    /// The differences from a map of that epoch, and of that hash if it is known, to the newest; `None` when they are
    /// not here any more, or are many and take more than the whole map.
    pub fn since(&self, epoch: Epoch, hash: Option<u64>) -> Option<Vec<Arc<MapDelta>>> {
        let begins = |(_, delta): &(usize, Arc<MapDelta>)| {
            delta.base == epoch && hash.is_none_or(|hash| delta.base_hash == hash)
        };
        let begin = self.deltas.iter().position(begins)?;
        let bytes: usize = self.deltas.range(begin..).map(|(bytes, _)| bytes).sum();
        (bytes < self.whole.max(FEW_BYTES))
            .then(|| self.deltas.range(begin..).map(|(_, delta)| delta.clone()).collect())
    }
}

#[cfg(test)]
mod tests;
