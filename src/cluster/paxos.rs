//! Single-decree Paxos on the next map (Lamport, "Paxos Made Simple", 2001), one decree an epoch.
//!
//! A proposer asks its acceptors to *promise* a ballot. Once a quorum has, it asks them to *accept* a map under it: its
//! own, unless a promise told of one accepted before; then that of the greatest ballot told. What a quorum has accepted
//! under one ballot is decided, and every later ballot can only decide the same. Messages may be lost, repeated and
//! reordered: [`Proposer::message`] is sent again to [`Proposer::missing`], and who is refused begins anew with a
//! higher round.
//!
//! A map is named by its difference to the one before ([`MapDelta`]), which every acceptor of its epoch acts under.
//!
//! What the caller owes:
//! - An [`Acceptor`]'s state is durable before its answer leaves.
//! - The acceptors named to a [`Proposer`] are incarnations, and an answer counts for the incarnation that its
//!   connection proved. An incarnation lives and dies with its disk, so an acceptor that answers has forgotten nothing.
//! - A ballot never carries two maps. So no two proposers of one incarnation share a round, restarts included: a
//!   proposer begins at its own acceptor's [`Acceptor::next_round`], and where it is one of the acceptors it asks for
//!   nothing to be accepted before its own promise, durable by then, is back. A proposer that is none of them hands its
//!   own acceptor the `Prepare` all the same, and makes that durable, before it sends anything.
//! - Only messages about the epoch after the acceptor's map are handed to it ([`epochs`]).
//! - Who learns a decided map tells the others. Paxos alone tells the proposer.
//!
//! **Birth** needs *every* node of `VIEW` ([`Quorum::All`]), each by the incarnation that the proposer hears at its
//! address. Two such quorums meet in every node, so one node with a memory is enough to keep a second map 1 from being
//! decided; the quorum of the majority would fall to as few disks as it shares with another.
//! - A node accepted map M and lost its disk: it is a new incarnation and remembers nothing. The proposer begins anew
//!   with it among the acceptors. Anyone else who accepted M tells of it, and the proposer must take M over, though M
//!   binds the dead incarnation: M may have been decided, by an answer of the dead one that is out of sight. So an
//!   acceptor must not refuse a map for binding another incarnation at its own address, or M, once accepted anywhere,
//!   could never be decided nor replaced. The new incarnation takes part in deciding M without being bound by it; to
//!   bind it is the next map's business.
//! - Nobody else accepted M: then M was not decided, and no later answer can decide it. Its ballot lacks an answer of
//!   somebody who has since promised a greater one, and the new incarnation's answers are not the dead one's.
//! - The new incarnation may promise and accept under an old ballot, having forgotten a greater one. That decides
//!   nothing as long as one of the others, whose every answer is needed, remembers the greater one.
//! - Every node lost its disk: the store is gone, with all data and everything that named it; a second birth is a
//!   first one.
//!
//! Deliberately absent: time-outs, and who proposes when (the machine's business); leases; and membership of the
//! acceptors, which the map before names.

pub mod epochs;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::delta::MapDelta;
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
        /// The greatest ballot accepted so far and what was accepted under it.
        accepted: Option<(Ballot, Arc<MapDelta>)>,
    },
    /// Phase 2a: accept this map.
    Accept {
        /// The epoch that is decided.
        epoch: Epoch,
        /// The proposer's ballot.
        ballot: Ballot,
        /// What leads to the proposed map.
        next: Arc<MapDelta>,
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

/// One node's memory as an acceptor, of one epoch. To be durable before an answer that it gave leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptor {
    epoch: Epoch,
    promised: Ballot,
    accepted: Option<(Ballot, Arc<MapDelta>)>,
}

impl Acceptor {
    /// Answers a `Prepare`: with a promise (again, if it is repeated), or with the greater ballot promised before.
    ///
    /// The first message of a newer epoch than the state's begins that epoch afresh: what came before is decided.
    pub fn prepare(&mut self, me: Incarnation, epoch: Epoch, ballot: Ballot) -> PaxosMessage {
        if let Some(rejected) = self.refuse(epoch, ballot) {
            return rejected;
        }
        self.promised = ballot;
        PaxosMessage::Promise { epoch, ballot, acceptor: me, accepted: self.accepted.clone() }
    }

    /// Answers an `Accept`; `check` is what the acceptor's own map says of the proposed one. A map that fails it is
    /// refused without a trace.
    pub fn accept(
        &mut self,
        me: Incarnation,
        epoch: Epoch,
        ballot: Ballot,
        next: Arc<MapDelta>,
        check: Result<(), String>,
    ) -> PaxosMessage {
        if let Some(rejected) = self.refuse(epoch, ballot) {
            return rejected;
        }
        let two_maps = self.accepted.as_ref().is_some_and(|(under, before)| *under == ballot && *before != next);
        if check.is_err() || two_maps {
            return PaxosMessage::Rejected { epoch, ballot, promised: self.promised };
        }
        self.promised = ballot;
        self.accepted = Some((ballot, next));
        PaxosMessage::Accepted { epoch, ballot, acceptor: me }
    }

    /// A round that is above every ballot promised in this epoch.
    pub fn next_round(&self, epoch: Epoch) -> u64 {
        if self.epoch == epoch { self.promised.round.saturating_add(1) } else { 1 }
    }

    /// The map that was accepted in this epoch, if one was: perhaps it is decided, and nobody knows.
    pub fn accepted(&self, epoch: Epoch) -> Option<&Arc<MapDelta>> {
        self.accepted.as_ref().filter(|_| self.epoch == epoch).map(|(_, next)| next)
    }

    /// The epoch that was spoken of last.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Refuses an older epoch and a ballot below the one promised; begins a newer epoch.
    fn refuse(&mut self, epoch: Epoch, ballot: Ballot) -> Option<PaxosMessage> {
        if epoch < self.epoch {
            return Some(PaxosMessage::Rejected { epoch, ballot, promised: Ballot::default() });
        }
        if epoch > self.epoch {
            *self = Self { epoch, ..Self::default() };
        }
        let promised = self.promised;
        (ballot < promised).then_some(PaxosMessage::Rejected { epoch, ballot, promised })
    }
}

/// How many of the acceptors must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// Every one: at birth.
    All,
    /// More than half.
    Majority,
}

impl Quorum {
    /// How many of `acceptors` make a quorum.
    pub fn size(self, acceptors: usize) -> usize {
        match self {
            Quorum::All => acceptors,
            Quorum::Majority => acceptors / 2 + 1,
        }
    }
}

/// One attempt at deciding the map of an epoch, under one ballot.
///
/// It lives in memory only: an attempt that a crash ends is followed by another of a higher round. Answers of others
/// than its acceptors, and to other epochs or ballots, count for nothing; repeated ones count once.
#[derive(Clone, Debug)]
pub struct Proposer {
    epoch: Epoch,
    ballot: Ballot,
    me: Incarnation,
    acceptors: BTreeSet<Incarnation>,
    quorum: usize,
    /// What will be proposed: the proposer's own map until a promise tells of one accepted.
    value: Arc<MapDelta>,
    /// Under which ballot `value` was accepted, if a promise told of it.
    adopted: Option<Ballot>,
    phase: Phase,
    /// Whose answers of this phase are there.
    answered: BTreeSet<Incarnation>,
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preparing,
    Accepting,
    Decided,
}

impl Proposer {
    /// An attempt of `me` in this round (see the module's text on rounds) to have these acceptors decide `value`, or
    /// whatever may be decided already. `acceptors` is not empty.
    pub fn new(
        epoch: Epoch,
        me: Incarnation,
        round: u64,
        acceptors: BTreeSet<Incarnation>,
        quorum: Quorum,
        value: Arc<MapDelta>,
    ) -> Self {
        let ballot = Ballot { round, proposer: me.0 };
        let quorum = quorum.size(acceptors.len());
        let answered = BTreeSet::new();
        Self { epoch, ballot, me, acceptors, quorum, value, adopted: None, phase: Phase::Preparing, answered }
    }

    /// The first message to every acceptor.
    pub fn start(&self) -> PaxosMessage {
        PaxosMessage::Prepare { epoch: self.epoch, ballot: self.ballot }
    }

    /// The message of the phase at hand, to be sent again to [`Proposer::missing`]; `None` once decided.
    pub fn message(&self) -> Option<PaxosMessage> {
        let (epoch, ballot) = (self.epoch, self.ballot);
        match self.phase {
            Phase::Preparing => Some(self.start()),
            Phase::Accepting => Some(PaxosMessage::Accept { epoch, ballot, next: self.value.clone() }),
            Phase::Decided => None,
        }
    }

    /// The acceptors that have not answered in the phase at hand.
    pub fn missing(&self) -> impl Iterator<Item = Incarnation> + '_ {
        self.acceptors.difference(&self.answered).copied()
    }

    /// The acceptors that were asked.
    pub fn acceptors(&self) -> &BTreeSet<Incarnation> {
        &self.acceptors
    }

    /// Takes a promise. Gives, once, the `Accept` to send to every acceptor: when a quorum has promised, this node
    /// among them if it is an acceptor.
    pub fn on_promise(
        &mut self,
        epoch: Epoch,
        ballot: Ballot,
        acceptor: Incarnation,
        accepted: Option<(Ballot, Arc<MapDelta>)>,
    ) -> Option<PaxosMessage> {
        if !self.counts(Phase::Preparing, epoch, ballot, acceptor) {
            return None;
        }
        if let Some((under, next)) = accepted
            && self.adopted < Some(under)
        {
            self.adopted = Some(under);
            self.value = next;
        }
        self.answered.insert(acceptor);
        let waits_for_me = self.acceptors.contains(&self.me) && !self.answered.contains(&self.me);
        if self.answered.len() < self.quorum || waits_for_me {
            return None;
        }
        self.enter(Phase::Accepting);
        self.message()
    }

    /// Takes an acceptance. Gives, once, what is decided: when a quorum has accepted it.
    pub fn on_accepted(&mut self, epoch: Epoch, ballot: Ballot, acceptor: Incarnation) -> Option<Arc<MapDelta>> {
        if !self.counts(Phase::Accepting, epoch, ballot, acceptor) {
            return None;
        }
        self.answered.insert(acceptor);
        if self.answered.len() < self.quorum {
            return None;
        }
        self.enter(Phase::Decided);
        Some(self.value.clone())
    }

    /// Takes a refusal. Gives the round for the next attempt, above all that is known to be promised; `None` when the
    /// refusal is not of this attempt, or comes after the decision.
    ///
    /// One refusal does not end this attempt where a majority is enough; the caller may wait for the others first.
    pub fn on_rejected(&self, epoch: Epoch, ballot: Ballot, promised: Ballot) -> Option<u64> {
        let mine = epoch == self.epoch && ballot == self.ballot && self.phase != Phase::Decided;
        mine.then(|| self.ballot.round.max(promised.round).saturating_add(1))
    }

    fn counts(&self, phase: Phase, epoch: Epoch, ballot: Ballot, acceptor: Incarnation) -> bool {
        self.phase == phase && self.epoch == epoch && self.ballot == ballot && self.acceptors.contains(&acceptor)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.answered.clear();
    }
}

#[cfg(test)]
mod tests;
