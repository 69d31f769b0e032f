//! Single-decree Paxos on the next map.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::map::ClusterMap;
use crate::types::{Epoch, Incarnation};

/// A proposal number: unique to its proposer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Counted up by whoever was refused.
    pub round: u64,
    /// Whose ballot it is; zero only in [`Ballot::default`], which is below all others.
    pub proposer: u128,
}

/// What proposers and acceptors tell each other about the map of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaxosMessage {
    /// Phase 1a: promise to accept nothing below this ballot.
    Prepare {
        /// The epoch that is decided.
        epoch: Epoch,
        /// The proposer's ballot.
        ballot: Ballot,
    },
    /// Phase 1b: promised; what was accepted so far, if anything.
    Promise {
        /// The epoch that is decided.
        epoch: Epoch,
        /// The ballot that is promised.
        ballot: Ballot,
        /// Who promises.
        acceptor: Incarnation,
        /// The greatest ballot accepted so far and its map.
        accepted: Option<(Ballot, Arc<ClusterMap>)>,
    },
    /// Phase 2a: accept this map.
    Accept {
        /// The epoch that is decided.
        epoch: Epoch,
        /// The proposer's ballot.
        ballot: Ballot,
        /// The proposed map.
        map: Arc<ClusterMap>,
    },
    /// Phase 2b: accepted, durably.
    Accepted {
        /// The epoch that is decided.
        epoch: Epoch,
        /// The ballot that was accepted.
        ballot: Ballot,
        /// Who accepted.
        acceptor: Incarnation,
    },
    /// A greater ballot was promised, or the proposal does not follow from the acceptor's map.
    Rejected {
        /// The epoch that is decided.
        epoch: Epoch,
        /// The ballot that is refused.
        ballot: Ballot,
        /// The greatest ballot promised so far.
        promised: Ballot,
    },
}
