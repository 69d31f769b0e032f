//! What every peer holds: reported vectors of one partition, and what is known to be stable.
//!
//! A write is stable when every Serving and every Joining peer has reported it durable under one version of the row.
//! Once stable, always. Stable entries can be left out of contexts, stable log entries truncated, stable tombstones
//! collected (causal stability, Baquero et al., "Making operation-based CRDTs operation-based", 2014).

use std::collections::BTreeMap;

use super::vector::VersionVector;
use crate::types::{Epoch, Seq, StayId, Timestamp};

/// What one peer has said under the row's present version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Its durable vector.
    pub durable: VersionVector,
    /// Its greatest clock promise: after this seq it assigns only greater timestamps.
    pub promise: Option<(Seq, Timestamp)>,
}

/// What the peers of one partition have said, this node included.
#[derive(Clone, Debug, Default)]
pub struct Words {
    by_stay: BTreeMap<StayId, Word>,
}

impl Words {
    /// Takes a report; vectors only grow. True when it brought news of the vector.
    pub fn take(&mut self, stay: StayId, durable: &VersionVector, promise: Option<(Seq, Timestamp)>) -> bool {
        let word = self.by_stay.entry(stay).or_default();
        if let Some(new) = promise
            && word.promise.is_none_or(|old| new.1 > old.1)
        {
            word.promise = Some(new);
        }
        word.durable.join(durable)
    }

    /// What a peer has said, if anything.
    pub fn of(&self, stay: StayId) -> Option<&Word> {
        self.by_stay.get(&stay)
    }

    /// How far a peer has said to hold another's writes durably.
    pub fn durable(&self, peer: StayId, of: StayId) -> Seq {
        self.by_stay.get(&peer).map_or(0, |word| word.durable.get(of))
    }

    /// How far all of `peers` hold the writes of `of`; `None` when there are no peers: an empty set proves nothing.
    pub fn at_all(&self, mut peers: impl Iterator<Item = StayId>, of: StayId) -> Option<Seq> {
        let first = self.durable(peers.next()?, of);
        Some(peers.fold(first, |least, peer| least.min(self.durable(peer, of))))
    }

    /// Forgets everything: a new version of the row makes old words count no more.
    pub fn clear(&mut self) {
        self.by_stay.clear();
    }
}

/// What is known to be stable in one partition, with the version under which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stable {
    by_stay: BTreeMap<StayId, (Seq, Epoch)>,
}

impl Stable {
    /// Takes a finding. True when it is news.
    pub fn learn(&mut self, stay: StayId, seq: Seq, version: Epoch) -> bool {
        let known = self.by_stay.entry(stay).or_insert((0, version));
        if seq > known.0 {
            *known = (seq, version);
            return true;
        }
        if seq == known.0 {
            known.1 = known.1.min(version);
        }
        false
    }

    /// The version under which the write was found stable; `None` when it is not known to be.
    pub fn covers(&self, stay: StayId, seq: Seq) -> Option<Epoch> {
        self.by_stay.get(&stay).filter(|known| known.0 >= seq).map(|known| known.1)
    }

    /// How far the stay's writes are stable.
    pub fn get(&self, stay: StayId) -> Seq {
        self.by_stay.get(&stay).map_or(0, |known| known.0)
    }

    /// The entries with their versions, ascending by stay.
    pub fn iter(&self) -> impl Iterator<Item = (StayId, Seq, Epoch)> + '_ {
        self.by_stay.iter().filter(|(_, known)| known.0 > 0).map(|(&stay, &(seq, version))| (stay, seq, version))
    }

    /// The whole as a vector.
    pub fn vector(&self) -> VersionVector {
        self.iter().map(|(stay, seq, _)| (stay, seq)).collect()
    }
}
