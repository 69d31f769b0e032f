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
    /// Its clock promise that waits until everybody holds its writes up to this seq; after it, it assigns only
    /// greater timestamps. It is kept until then, for a newer one names a newer seq, and there is always a newer one.
    pub promise: Option<(Seq, Timestamp)>,
    /// Its greatest clock promise of which that is so: nothing at or below this comes any more.
    pub past: Timestamp,
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
        word.promise = word.promise.or(promise);
        word.durable.join(durable)
    }

    /// Settles the promises whose writes are held by all of `peers`; with `early`, all there are.
    pub fn settle_promises(&mut self, peers: &[StayId], early: bool) {
        for &stay in peers {
            let Some((seq, clock)) = self.of(stay).and_then(|word| word.promise) else { continue };
            let held = self.at_all(peers.iter().copied(), stay).is_some_and(|all| all >= seq);
            if (held || early)
                && let Some(word) = self.by_stay.get_mut(&stay)
            {
                word.past = word.past.max(clock);
                word.promise = None;
            }
        }
    }

    /// No write at or below this can come from any of `peers` any more; 0 when there are none, or one said nothing.
    pub fn past(&self, peers: impl Iterator<Item = StayId>) -> Timestamp {
        peers.map(|peer| self.of(peer).map_or(Timestamp(0), |word| word.past)).min().unwrap_or_default()
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
