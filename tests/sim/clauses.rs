//! The protective clauses in force in a run: those of the machine and those of reconciliation, by one name.

use std::fmt;

use entail::cluster::reconcile::rules::{ReconcileRule, ReconcileRules};
use entail::machine::rules::{Rule, Rules};

/// One protective clause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clause {
    /// One of the protocol between nodes and with clients.
    Machine(Rule),
    /// One of the step from map to map.
    Reconcile(ReconcileRule),
}

impl Clause {
    /// Every clause, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        let machine = Rule::ALL.iter().copied().map(Self::Machine);
        machine.chain(ReconcileRule::ALL.iter().copied().map(Self::Reconcile))
    }

    /// A clause by its name.
    ///
    /// # Panics
    /// When there is no such clause.
    pub fn named(name: &str) -> Self {
        let found = Self::all().find(|clause| format!("{clause:?}") == name);
        found.unwrap_or_else(|| panic!("no clause is called {name}; there are {:?}", Vec::from_iter(Self::all())))
    }
}

impl fmt::Debug for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(rule) => rule.fmt(f),
            Self::Reconcile(rule) => rule.fmt(f),
        }
    }
}

/// The clauses in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clauses {
    /// Those of the machine.
    pub machine: Rules,
    /// Those of reconciliation.
    pub reconcile: ReconcileRules,
}

impl Clauses {
    /// All of them.
    pub const ALL: Self = Self { machine: Rules::all(), reconcile: ReconcileRules::all() };

    /// All but one more.
    #[must_use]
    pub fn without(self, clause: Clause) -> Self {
        match clause {
            Clause::Machine(rule) => Self { machine: self.machine.without(rule), ..self },
            Clause::Reconcile(rule) => Self { reconcile: self.reconcile.without(rule), ..self },
        }
    }
}

impl From<Rules> for Clauses {
    fn from(machine: Rules) -> Self {
        Self { machine, ..Self::ALL }
    }
}
