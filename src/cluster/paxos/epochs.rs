//! A node's part in deciding the next map: which epoch it speaks of, and what it owes to whom.
//!
//! A node speaks of one epoch only, the one after the map it acts under, which is durable:
//! - Who asks about an older one is behind, and gets that map: what it asks about is decided.
//! - What is asked about a newer one waits until the map before it is in force here. Without that map an acceptor
//!   could check nothing, and would forget what it accepted of the epoch before too early.
//! - A map learned ends this node's own attempt at an older epoch.
//!
//! Who may begin an attempt stands in the map in force ([`may_propose`]), and so do those it asks
//! ([`crate::cluster::voters::deciders`]). Time, and what is proposed, are the caller's business.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Acceptor, PaxosMessage, Proposer, Quorum};
use crate::cluster::check::check_proposal;
use crate::cluster::delta::MapDelta;
use crate::cluster::layout::follows_birth;
use crate::cluster::map::ClusterMap;
use crate::types::{Epoch, Incarnation};

/// An acceptor and its attempts as a proposer.
#[derive(Clone, Debug, Default)]
pub struct Participant {
    acceptor: Acceptor,
    proposer: Option<Proposer>,
    /// The last attempt's, or above what others had promised when they refused it; the next one's is above it.
    round: u64,
}

/// Where a node stands that hears a message.
#[derive(Debug)]
pub struct Stand<'a> {
    /// Who it is.
    pub me: Incarnation,
    /// Map 0 of its settings.
    pub zero: &'a ClusterMap,
    /// The map it acts under.
    pub map: &'a ClusterMap,
    /// Whom it hears right now, itself among them.
    pub live: BTreeSet<Incarnation>,
}

/// What a message asks of the node.
#[derive(Debug)]
pub enum Turn {
    /// Nothing.
    Nothing,
    /// The sender is to get the map in force here: what it asks about is decided.
    TellMap,
    /// The message is to be heard again when the map before its epoch is in force.
    Keep(PaxosMessage),
    /// The acceptor's answer, for the sender, once the acceptor is durable.
    Answer {
        /// The answer.
        answer: PaxosMessage,
        /// Why the proposed map does not follow from the one in force, for the log.
        refused: Option<String>,
    },
    /// A message to every acceptor of this node's attempt.
    Ask(PaxosMessage),
    /// This node's attempt has decided this map.
    Decided(Arc<ClusterMap>),
}

impl Participant {
    /// The part of a node that comes back with this memory.
    pub fn new(acceptor: Acceptor) -> Self {
        Self { acceptor, ..Self::default() }
    }

    /// The state that is to be durable before an answer leaves.
    pub fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// Whom this node's attempt asks, while there is one.
    pub fn asked(&self) -> Option<&BTreeSet<Incarnation>> {
        self.proposer.as_ref().map(Proposer::acceptors)
    }

    /// Begins an attempt of `me`, who acts under `map`, at having these acceptors decide `next`. Gives the message to
    /// each of them.
    pub fn propose(
        &mut self,
        me: Incarnation,
        map: &ClusterMap,
        next: &ClusterMap,
        acceptors: BTreeSet<Incarnation>,
        quorum: Quorum,
    ) -> PaxosMessage {
        let (epoch, value) = (next.epoch, Arc::new(MapDelta::between(map, next)));
        self.round = self.acceptor.next_round(epoch).max(self.round + 1);
        let proposer = Proposer::new(epoch, me, self.round, acceptors, quorum, value);
        let prepare = proposer.start();
        self.proposer = Some(proposer);
        prepare
    }

    /// Takes what the incarnation `sender` says.
    pub fn hear(&mut self, here: &Stand<'_>, sender: Incarnation, message: PaxosMessage) -> Turn {
        let now = here.map.epoch;
        match message {
            PaxosMessage::Prepare { epoch, .. } | PaxosMessage::Accept { epoch, .. } if epoch <= now => Turn::TellMap,
            PaxosMessage::Prepare { epoch, .. } | PaxosMessage::Accept { epoch, .. } if epoch.0 > now.0 + 1 => {
                Turn::Keep(message)
            }
            PaxosMessage::Prepare { epoch, ballot } => {
                Turn::Answer { answer: self.acceptor.prepare(here.me, epoch, ballot), refused: None }
            }
            PaxosMessage::Accept { epoch, ballot, next } => {
                let check = here.check(&next);
                let refused = check.clone().err();
                Turn::Answer { answer: self.acceptor.accept(here.me, epoch, ballot, next, check), refused }
            }
            PaxosMessage::Promise { epoch, ballot, acceptor, accepted } if acceptor == sender => {
                if accepted.as_ref().is_some_and(|(_, next)| next.apply(here.map).is_err()) {
                    // An epoch that is over, or no acceptor's word: no acceptor takes what leads on from no map.
                    return Turn::Nothing;
                }
                let proposer = self.proposer.as_mut();
                let accept = proposer.and_then(|p| p.on_promise(epoch, ballot, acceptor, accepted));
                accept.map_or(Turn::Nothing, Turn::Ask)
            }
            PaxosMessage::Accepted { epoch, ballot, acceptor } if acceptor == sender => {
                let proposer = self.proposer.as_mut();
                let Some(decided) = proposer.and_then(|p| p.on_accepted(epoch, ballot, acceptor)) else {
                    return Turn::Nothing;
                };
                self.proposer = None;
                decided.apply(here.map).map_or(Turn::Nothing, |map| Turn::Decided(Arc::new(map)))
            }
            PaxosMessage::Rejected { epoch, ballot, promised } => {
                let proposer = self.proposer.as_ref();
                if let Some(round) = proposer.and_then(|p| p.on_rejected(epoch, ballot, promised)) {
                    self.round = self.round.max(round);
                }
                Turn::Nothing
            }
            PaxosMessage::Promise { .. } | PaxosMessage::Accepted { .. } => Turn::Nothing,
        }
    }

    /// Ends an attempt at an epoch that is decided: a newer map is in force here.
    pub fn on_new_map(&mut self) {
        self.proposer = None;
    }
}

impl Stand<'_> {
    /// Whether what is proposed may follow the map in force.
    fn check(&self, proposed: &MapDelta) -> Result<(), String> {
        let next = proposed.apply(self.map).map_err(|why| why.to_string())?;
        if self.map.is_born() { check_proposal(self.map, &next, &self.live) } else { follows_birth(self.zero, &next) }
    }
}

/// True for a node that the map names as a voter: it may begin an attempt at the next one.
pub fn may_propose(map: &ClusterMap, me: Incarnation) -> bool {
    map.voters.contains(&me)
}

/// Whether `told`, a decided map, is news to a node that acts under `map` and has maps up to `newest`.
pub fn is_news(map: &ClusterMap, newest: Epoch, told: &ClusterMap) -> bool {
    let same_store = told.cluster_id == map.cluster_id && told.rows.len() == map.rows.len();
    told.epoch > newest && (!map.is_born() || same_store)
}

#[cfg(test)]
mod tests;
