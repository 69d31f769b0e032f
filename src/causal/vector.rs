//! Version vectors of one partition: how far each stay's writes are known.

use serde::{Deserialize, Serialize};

use crate::types::{Dot, Seq, StayId};

/// `stay → seq`: every write of that stay up to there. A stay that is not listed stands at 0.
///
/// Kept sorted by stay and without zeros, so that equal vectors are equal values. Joins are pointwise maxima:
/// commutative, associative, idempotent (a version vector in the sense of Parker et al., 1983).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector(Vec<(StayId, Seq)>);

impl VersionVector {
    /// How far the stay is covered.
    pub fn get(&self, stay: StayId) -> Seq {
        self.0.binary_search_by_key(&stay, |e| e.0).map_or(0, |i| self.0[i].1)
    }

    /// Raises the stay to `seq`; a smaller `seq` changes nothing. True when it grew.
    pub fn raise(&mut self, stay: StayId, seq: Seq) -> bool {
        if seq == 0 {
            return false;
        }
        match self.0.binary_search_by_key(&stay, |e| e.0) {
            Ok(i) if self.0[i].1 >= seq => false,
            Ok(i) => {
                self.0[i].1 = seq;
                true
            }
            Err(i) => {
                self.0.insert(i, (stay, seq));
                true
            }
        }
    }

    /// True when the write of this name is covered.
    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.stay) >= dot.seq
    }

    /// True when all that `other` covers is covered here.
    pub fn dominates(&self, other: &Self) -> bool {
        other.iter().all(|(stay, seq)| self.get(stay) >= seq)
    }

    /// Takes the greater of both, stay by stay. True when something grew.
    pub fn join(&mut self, other: &Self) -> bool {
        other.iter().fold(false, |grew, (stay, seq)| self.raise(stay, seq) || grew)
    }

    /// Takes the lesser of both, stay by stay.
    pub fn meet(&mut self, other: &Self) {
        for entry in &mut self.0 {
            entry.1 = entry.1.min(other.get(entry.0));
        }
        self.0.retain(|e| e.1 > 0);
    }

    /// The entries, ascending by stay.
    pub fn iter(&self) -> impl Iterator<Item = (StayId, Seq)> + '_ {
        self.0.iter().copied()
    }

    /// How many stays are listed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(StayId, Seq)> for VersionVector {
    fn from_iter<T: IntoIterator<Item = (StayId, Seq)>>(entries: T) -> Self {
        let mut vector = Self::default();
        for (stay, seq) in entries {
            vector.raise(stay, seq);
        }
        vector
    }
}
