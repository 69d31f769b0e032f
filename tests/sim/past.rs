//! Sets of versions: what somebody has truly seen, as the oracle knows it.

/// A number for each version the oracle has met, in the order it met them.
pub type VersionId = usize;

/// A set of versions, kept as bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past(Vec<u64>);

impl Past {
    /// Puts one version in.
    pub fn insert(&mut self, version: VersionId) {
        let word = version / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (version % 64);
    }

    /// True when the version is in.
    pub fn contains(&self, version: VersionId) -> bool {
        self.0.get(version / 64).is_some_and(|word| word >> (version % 64) & 1 == 1)
    }

    /// Puts in all that `other` has.
    pub fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Keeps only what `other` has too.
    pub fn meet(&mut self, other: &Self) {
        self.0.truncate(other.0.len());
        for (word, keep) in self.0.iter_mut().zip(&other.0) {
            *word &= keep;
        }
    }
}
