//! What is said of a history in the end.

use std::fmt;

use super::record::Record;

/// What no causally convergent store can show; the names are the paper's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// A read shows what nobody wrote, or what the store said it had not written.
    ThinAirRead,
    /// Operations follow each other in a circle.
    CyclicCO,
    /// A read finds nothing although a write is in its past and no delete explains it (WriteCOInitRead).
    StaleAbsence,
    /// A read shows a write although a later one of the same key, later than what it shows, is in its past.
    WriteCORead,
    /// No order of the writes of each key, the same for everybody, explains all reads.
    CyclicCF,
    /// At the end two replicas hold different things for a key.
    Diverged,
}

/// A pattern that was found.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub pattern: Pattern,
    /// The operations that show it, in their causal order; a cycle from any of its members on.
    pub evidence: Vec<Record>,
}

/// What was looked at, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Operations that were done, or that somebody saw although their outcome was unknown.
    pub operations: usize,
    /// Keys they touched.
    pub keys: usize,
    /// Unbranched lines of operations into which the sessions fall.
    pub chains: usize,
    /// Replicas' words on single keys at the end.
    pub finals: usize,
    /// What became of the acknowledged writes, where replicas told of their keys at the end.
    pub account: Account,
    /// What is wrong; empty for a history that a causally convergent store can have.
    pub violations: Vec<Violation>,
}

/// Acknowledged writes of the keys that replicas told of at the end, by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// They are what is there. A delete is, where nothing is.
    pub readable: usize,
    /// A write that causally follows them is there.
    pub followed: usize,
    /// A write that neither follows them nor is followed by them is there: it must have the greater timestamp. Pairs of
    /// such a write and the one that is there, by number in the records.
    pub overtaken: Vec<(usize, usize)>,
    /// Neither: acknowledged, and gone. By number in the records.
    pub lost: Vec<usize>,
}

impl Account {
    /// All acknowledged writes.
    pub fn acknowledged(&self) -> usize {
        self.readable + self.followed + self.overtaken.len() + self.lost.len()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, overtaken, lost) = (self.acknowledged(), self.overtaken.len(), self.lost.len());
        write!(
            f,
            "{all} acknowledged writes: {} are there, {} were followed by what is, ",
            self.readable, self.followed
        )?;
        write!(f, "{overtaken} were concurrent with what is, {lost} are lost")
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThinAirRead => "ThinAirRead: a read shows what was not written",
            Self::CyclicCO => "CyclicCO: operations follow each other in a circle",
            Self::StaleAbsence => "StaleAbsence: nothing was found although a write is in the reader's past",
            Self::WriteCORead => "WriteCORead: a read shows what a write in its past has replaced",
            Self::CyclicCF => "CyclicCF: no order of the writes, the same for everybody, explains the reads",
            Self::Diverged => "Diverged: replicas differ at the end",
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pattern)?;
        self.evidence.iter().try_for_each(|record| write!(f, "\n    {record}"))
    }
}
