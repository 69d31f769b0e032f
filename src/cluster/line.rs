//! Lines of maps: which map comes of which, once operators have recovered a store by force.
//!
//! As long as a majority of the voters decides, there is one map an epoch. A recovery by force ([`super::recover`]) is
//! decided by those who are left; whoever is given up by it may live on under the old maps, or be recovered on its own.
//! So every map carries its *line*: the recoveries that it comes of, each with the map that it began from. Of two
//! standings (a line, and an epoch on it) either one comes of the other, and the nodes may get on to the newer map; or
//! they are apart, and the nodes have nothing to say to each other, for ever.
//!
//! Numbers that a line never gave out (epochs here, stays in the rows) come from another one.

use serde::{Deserialize, Serialize};

use crate::types::{BranchId, Epoch};

/// One recovery by force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The branch that begins with it; never zero.
    pub branch: BranchId,
    /// The map that it began from.
    pub after: Epoch,
    /// The first map of the branch. No map of this line has an epoch in between.
    pub first: Epoch,
}

/// The recoveries by force that a map comes of, oldest first. Empty in a store that never needed one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line(Vec<Fork>);

/// A place on a line: the newest map that somebody has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The line.
    pub line: Line,
    /// The map's epoch.
    pub epoch: Epoch,
}

/// How another standing stands to one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// On the same line, before or after.
    Same,
    /// On a line that comes of one's own, by a recovery from where one is, or from later.
    After,
    /// The other way round.
    Before,
    /// Neither comes of the other.
    Apart,
}

impl Line {
    /// A line of these recoveries.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn new(forks: Vec<Fork>) -> Result<Self, &'static str> {
        if forks.iter().any(|fork| fork.branch == BranchId(0) || fork.first <= fork.after) {
            return Err("a recovery has no branch, or goes back");
        }
        if !forks.is_sorted_by(|a, b| a.first <= b.after) {
            return Err("recoveries are not in order");
        }
        Ok(Self(forks))
    }

    /// The recoveries, oldest first.
    pub fn forks(&self) -> &[Fork] {
        &self.0
    }

    /// The present branch; zero before the first recovery.
    pub fn branch(&self) -> BranchId {
        self.0.last().map_or(BranchId(0), |fork| fork.branch)
    }

    /// The line that goes on with this recovery.
    #[must_use]
    pub fn then(&self, fork: Fork) -> Self {
        let mut forks = self.0.clone();
        forks.push(fork);
        Self(forks)
    }

    /// True for an epoch that no map of this line has, though later ones have: another line's.
    pub fn skips(&self, epoch: Epoch) -> bool {
        self.0.iter().any(|fork| fork.after < epoch && epoch < fork.first)
    }

    /// True when this line is the other and more.
    pub fn comes_of(&self, other: &Line) -> bool {
        other.left_by(self).is_some()
    }

    /// The recovery of `other` that left this line, when `other` is this line and more.
    fn left_by<'a>(&self, other: &'a Line) -> Option<&'a Fork> {
        other.0.strip_prefix(self.0.as_slice())?.first()
    }
}

impl Standing {
    /// How `other` stands to this one.
    pub fn relation(&self, other: &Standing) -> Relation {
        if self.line == other.line {
            Relation::Same
        } else if self.line.left_by(&other.line).is_some_and(|fork| self.epoch <= fork.after) {
            Relation::After
        } else if other.line.left_by(&self.line).is_some_and(|fork| other.epoch <= fork.after) {
            Relation::Before
        } else {
            Relation::Apart
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fork(branch: u64, after: u64, first: u64) -> Fork {
        Fork { branch: BranchId(branch), after: Epoch(after), first: Epoch(first) }
    }

    fn at(forks: &[Fork], epoch: u64) -> Standing {
        Standing { line: Line::new(forks.to_vec()).unwrap(), epoch: Epoch(epoch) }
    }

    #[test]
    fn a_recovery_comes_of_the_map_it_began_from_and_of_those_before() {
        let recovered = at(&[fork(7, 5, 100)], 102);
        for (epoch, relation) in [(0, Relation::After), (5, Relation::After), (6, Relation::Apart)] {
            assert_eq!(at(&[], epoch).relation(&recovered), relation, "map {epoch}");
        }
        assert_eq!(recovered.relation(&at(&[], 5)), Relation::Before);
        assert_eq!(recovered.relation(&at(&[], 6)), Relation::Apart);
        assert_eq!(recovered.relation(&at(&[fork(7, 5, 100)], 100)), Relation::Same);
        let twice = at(&[fork(7, 5, 100), fork(8, 102, 300)], 300);
        assert_eq!(recovered.relation(&twice), Relation::After);
        assert_eq!(at(&[], 5).relation(&twice), Relation::After);
        assert_eq!(at(&[], 6).relation(&twice), Relation::Apart);
    }

    #[test]
    fn two_recoveries_of_one_map_are_apart_for_ever() {
        let (one, other) = (at(&[fork(7, 5, 100)], 100), at(&[fork(8, 5, 100)], 200));
        assert_eq!(one.relation(&other), Relation::Apart);
        assert_eq!(other.relation(&one), Relation::Apart);
        assert_eq!(one.relation(&at(&[fork(8, 5, 100), fork(9, 200, 300)], 300)), Relation::Apart);
    }

    #[test]
    fn epochs_that_were_skipped_are_another_lines() {
        let line = Line::new(vec![fork(7, 5, 100), fork(8, 102, 300)]).unwrap();
        let skipped = |epoch| line.skips(Epoch(epoch));
        assert!([6, 99, 103, 299].into_iter().all(skipped));
        assert!(![0, 5, 100, 102, 300, 999].into_iter().any(skipped));
        assert_eq!((line.branch(), Line::default().branch()), (BranchId(8), BranchId(0)));
    }

    #[test]
    fn a_line_that_contradicts_itself_is_refused() {
        for bad in [vec![fork(0, 5, 100)], vec![fork(7, 5, 5)], vec![fork(7, 5, 100), fork(8, 99, 300)]] {
            assert!(Line::new(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
