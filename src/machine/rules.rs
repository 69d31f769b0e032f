//! The protocol's protective clauses, by name, so that the simulator can show that each is necessary.
//!
//! A node always runs with [`Rules::all`]; nothing outside the tests takes one away.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One protective clause of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            /// Every rule, in order.
            pub const ALL: &'static [Rule] = &[$(Rule::$name),*];
        }
    };
}

rules! {
    /// Operations leave their coordinator only when they are durable there (R1).
    SendAfterSync,
    /// Reports name durable vectors (R2).
    DurableVectors,
    /// A read shows only what is durable here (R2).
    DurableReads,
    /// A map is durable before the node acts under it (R2).
    DurableMap,
    /// A clock promise stays below the durable ceiling (R2).
    DurablePromise,
    /// A restart begins at the clock's persisted ceiling.
    Ceiling,
    /// An acceptor answers only when its state is durable (§4).
    DurableAcceptor,
    /// Birth needs every node of `VIEW` (§4).
    UnanimousBirth,
    /// A peer's first word after a start waits until what it had is durable (R3).
    Barrier,
    /// A node acts for a stay only when the map binds it to its own incarnation (R5).
    OwnName,
    /// A write waits for its context's entries of its own partition.
    WriteWaits,
    /// A read waits for its context's entries of its own partition.
    ReadWaits,
    /// An operation waits for its dependencies.
    OperationDeps,
    /// An operation waits for all earlier ones of its own stay.
    OperationOrder,
    /// The coordinator shows a write only once it could acknowledge it, or has answered.
    ShowAckable,
    /// A write is acknowledged only when durable here.
    AckDurable,
    /// A write is acknowledged only when durable at `WRITE_COPIES` peers, as long as live peers keep up.
    AckCopies,
    /// A fill's view is durable at its source before it is sent.
    FillDurable,
    /// A fill is kept aside and taken over as a whole.
    FillAside,
    /// A fill is made of chunks of one attempt only.
    FillAttempt,
    /// A fill is taken over only when all its chunks are durable here.
    FillDoneSync,
    /// A fill brings the source's clock.
    FillClock,
    /// A fill brings the source's floor.
    FillFloor,
    /// A peer blocked for 50 ms asks for a fill.
    FillBlocked,
    /// A peer that has lacked for a second what another has asks for a fill.
    FillLack,
    /// What a first fill left that was given up is removed before another begins.
    FillClean,
    /// An item whose dot is covered by the time of the take-over is left out.
    FillLate,
    /// Leaving out a stable entry raises the context's epoch.
    PruneEpoch,
    /// A `GET` takes over the item's epoch.
    ItemEpoch,
    /// Context that covers but does not name the item's dot takes in what the item carries.
    CoverCarried,
    /// … and the item's epoch.
    CoverEpoch,
    /// A `GET` of nothing raises the epoch to the floor.
    Floor,
    /// A replica that begins empty takes nothing from streams before its first fill.
    FirstFill,
    /// A node that is back joins from the replica it holds.
    KeepReplica,
    /// A replica is held only while a stay that it was held for is listed and not lost.
    KeepKnown,
    /// What is said of a partition is taken under the very version of its row that is in force (R3).
    Current,
    /// What others said of a partition under an older version counts no more.
    Versions,
    /// A Leaving peer answers no reads (R4).
    LeaveReads,
    /// A Leaving peer coordinates no writes (R4).
    LeaveWrites,
    /// Only Serving peers count as copies (R4).
    CountServing,
    /// Operations received but not applied are dropped with a new version.
    DropUnapplied,
    /// A context of a newer map waits for that map.
    ContextEpoch,
    /// A stay number that was not given out is of a newer map, and not closed.
    NextStay,
    /// A forgotten process comes back as a new incarnation.
    ForgottenEnds,
    /// A partition begun empty has a floor at that epoch.
    EmptyFloor,
    /// The floor is not below the epochs of what was collected.
    FloorItem,
    /// A `GET` takes no entry out of the context.
    KeepEntry,
    /// The context carries the open entries of other partitions with a write.
    Carry,
    /// Stable means durable at every Serving and Joining peer.
    StableAll,
    /// … Joining ones too: who is promoted has what was left out of contexts.
    StableJoining,
    /// Tombstones are collected only while a row has nothing but Serving peers.
    CollectServing,
    /// A tombstone is collected only when it is stable.
    CollectStable,
    /// … when all it carries is stable.
    CollectCarried,
    /// … when every peer has promised a clock past it.
    CollectClock,
    /// … as of a seq that all peers have durably.
    CollectSeq,
    /// A promise goes out only when the seq it names is durable.
    PromiseSync,
    /// A promise names the last seq assigned.
    PromiseLast,
    /// The clock merges every timestamp seen.
    ClockMerge,
    /// A write gets no timestamp before the wall clock was compared with a peer's, or nobody was heard for a while.
    ClockCompared,
    /// A write's timestamp is greater than those of all that its context stands for, in whatever partition.
    ContextClock,
    /// A log entry is truncated only when it is stable.
    TruncateStable,
}

/// The clauses in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules(u64);

impl Rules {
    /// All of them: what every node runs with.
    pub const fn all() -> Self {
        Self(u64::MAX)
    }

    /// All but one, for the simulator.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u8))
    }

    /// True when the clause is in force.
    pub const fn on(self, rule: Rule) -> bool {
        self.0 >> rule as u8 & 1 == 1
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::all()
    }
}
