//! The protective clauses of reconciliation, by name, so that tests can show that each is necessary.
//!
//! A node always runs with [`ReconcileRules::all`]. The clauses of the rest of the protocol are the machine's.

macro_rules! clauses {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One protective clause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReconcileRule {
            $($(#[$doc])* $name,)*
        }

        impl ReconcileRule {
            /// Every clause, in order.
            pub const ALL: &'static [ReconcileRule] = &[$(ReconcileRule::$name),*];
        }
    };
}

clauses! {
    /// Stay numbers are never given out twice.
    StayNew,
    /// Nothing is closed without a Serving peer.
    EmptySet,
    /// The steps of one map apply one after another, each to the result of the one before.
    InTurn,
    /// A Joining peer is promoted for what a Serving peer told under a version that names it.
    PromoteTold,
    /// … a peer that was Serving when it told.
    PromoteServing,
    /// Where nobody serves it is promoted for what every Leaving peer told.
    NobodyAll,
    /// Where nobody serves a peer joins only while every Leaving peer not lost is live.
    NobodyLive,
    /// The last Serving stay is not declared lost but by the operator.
    LastServing,
    /// A gone peer is lost only when another one serves that is not gone itself.
    GoneOther,
    /// An absent peer leaves only when another live one serves.
    AbsentOther,
    /// An unwanted peer leaves only when every live wanted node serves.
    LeaveServe,
    /// … at least two of them.
    LeaveTwo,
    /// A peer is closed for all that it told, not for its own writes alone.
    CloseWhole,
    /// … when it told it as a Leaving peer.
    CloseLeaving,
    /// … when every Serving peer has it.
    CloseServing,
    /// … and every Joining one.
    CloseJoining,
    /// … and two serve.
    CloseTwo,
    /// … that are live.
    CloseLive,
    /// … and it is not about to join anew.
    CloseRejoined,
    /// A lost peer is closed when all others have told what they have of it.
    LostAll,
    /// … Leaving ones among them.
    LostLeaving,
    /// … and Joining ones.
    LostJoining,
    /// … under a version in which it is lost.
    LostVersion,
    /// … the others of the row under which they told, and not of the one that comes.
    LostThen,
    /// A partition begins empty under new stays, without those that were being filled.
    EmptyNew,
    /// A partition begins empty only when every Leaving peer is lost.
    EmptyAll,
}

/// The clauses in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconcileRules(u32);

impl ReconcileRules {
    /// All of them: what every node runs with.
    pub const fn all() -> Self {
        Self(u32::MAX)
    }

    /// All but one, for tests.
    #[must_use]
    pub const fn without(self, rule: ReconcileRule) -> Self {
        Self(self.0 & !(1 << rule as u8))
    }

    /// True when the clause is in force.
    pub const fn on(self, rule: ReconcileRule) -> bool {
        self.0 >> rule as u8 & 1 == 1
    }
}

impl Default for ReconcileRules {
    fn default() -> Self {
        Self::all()
    }
}
