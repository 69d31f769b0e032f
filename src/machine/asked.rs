//! Changes that are asked of this node as the proposer.
//!
//! A change is asked *of a map*, as a compare-and-swap: it is in the very next one or it is not done, however often it
//! is asked and of however many proposers. Who asked for what the map has moved on from is told so, and asks of the map
//! in force. Where the answer does not come, the asker compares the two maps itself ([`Change::is_shown_by`]).

use super::message::Message;
use super::{Io, Machine};
use crate::cluster::change::{Change, ChangeError};
use crate::cluster::paxos::epochs::may_propose;
use crate::types::{Epoch, NodeAddr};

/// Answers to changes that are kept for askers who ask again.
const MOST_ANSWERED: usize = 64;

/// What nobody has asked for again for so long is not done any more, in milliseconds.
const ASKED_MS: u64 = 5_000;

/// How long the proposer leaves the map as it is for an asker that the map moved on from, in milliseconds: in the midst
/// of a reshard the next map could be there first again and again.
const HOLD_MS: u64 = 1_000;

/// A change that somebody asked of this node as the proposer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    by: NodeAddr,
    id: u64,
    pub change: Change,
    /// The epoch of the map that it is to follow on.
    of: Epoch,
    /// When it was asked for last: askers ask again, and again.
    heard_ms: u64,
    /// It was in an attempt at the next map.
    tried: bool,
    /// It was asked of that map before, perhaps of another, and not answered.
    again: bool,
}

impl Asked {
    fn is(&self, by: &NodeAddr, id: u64) -> bool {
        self.by == *by && self.id == id
    }

    /// True when it may be decided yet by an attempt that somebody else carries through: before the next map is there,
    /// nobody knows that it is not done.
    pub fn is_open(&self) -> bool {
        self.tried || self.again
    }
}

impl Machine {
    /// `again`: it was asked of that map before, of this node or another.
    pub(super) fn on_change_asked(
        &mut self,
        by: &NodeAddr,
        (id, again): (u64, bool),
        change: Change,
        of: Epoch,
        io: &mut Io<'_>,
    ) {
        let known = self.consensus.answered.iter().find(|(node, known, _)| node == by && *known == id);
        if let Some((_, _, outcome)) = known {
            return self.tell_asker(by, id, outcome.clone(), io);
        }
        if of < self.map.epoch {
            return self.tell_moved_on(by, id, io);
        }
        if of > self.map.epoch {
            self.pull_map(by, io);
        }
        let now = self.now.mono_ms;
        if let Some(waiting) = self.consensus.asked.iter_mut().find(|asked| asked.is(by, id)) {
            // What was asked before of another has been so from its first message.
            waiting.heard_ms = now;
        } else if self.consensus.asked.len() < MOST_ANSWERED && may_propose(&self.map, self.incarnation) {
            let asked = Asked { by: by.clone(), id, change, of, heard_ms: now, tried: false, again };
            self.consensus.asked.push_back(asked);
            (self.consensus.look_ms, self.consensus.hold_until_ms) = (0, 0);
        }
    }

    /// Forgets what nobody asks for any more: its asker has its answer, or has given up, and must not see it happen.
    pub(super) fn expire_asked(&mut self) {
        let now = self.now.mono_ms;
        self.consensus.asked.retain(|asked| now < asked.heard_ms + ASKED_MS);
    }

    /// True when a change is asked of the map in force.
    pub(super) fn is_asked(&self) -> bool {
        self.consensus.asked.iter().any(|asked| asked.of == self.map.epoch)
    }

    /// Takes the first change out that is asked of the map in force.
    pub(super) fn take_asked(&mut self) -> Option<Asked> {
        let at = self.consensus.asked.iter().position(|asked| asked.of == self.map.epoch)?;
        self.consensus.asked.remove(at)
    }

    /// A change goes into an attempt, and waits on until the next map is there.
    pub(super) fn try_asked(&mut self, asked: &Asked) {
        self.wait_on(Asked { tried: true, ..asked.clone() });
    }

    /// A change waits on.
    pub(super) fn wait_on(&mut self, asked: Asked) {
        self.consensus.asked.push_front(asked);
    }

    /// The next map is decided, with this change in it.
    pub(super) fn asked_is_decided(&mut self, asked: &Asked, epoch: Epoch, io: &mut Io<'_>) {
        self.consensus.asked.retain(|other| !other.is(&asked.by, asked.id));
        self.answer_change(asked, Ok(epoch), io);
    }

    /// Answers what was asked of maps before the one in force.
    pub(super) fn answer_asked(&mut self, io: &mut Io<'_>) {
        let epoch = self.map.epoch;
        if let Some((asked, _)) = self.consensus.proposed.take().filter(|(_, proposed)| *proposed == self.map) {
            self.asked_is_decided(&asked, epoch, io);
        }
        let asked = std::mem::take(&mut self.consensus.asked);
        let (over, waiting): (Vec<_>, Vec<_>) = asked.into_iter().partition(|asked| asked.of < epoch);
        self.consensus.asked = waiting.into();
        // One that was tried may be done by an attempt that another proposer carried through.
        for asked in over.iter().filter(|asked| !asked.tried) {
            self.tell_moved_on(&asked.by, asked.id, io);
        }
    }

    pub(super) fn answer_change(&mut self, asked: &Asked, outcome: Result<Epoch, ChangeError>, io: &mut Io<'_>) {
        self.consensus.answered.push_back((asked.by.clone(), asked.id, outcome.clone()));
        if self.consensus.answered.len() > MOST_ANSWERED {
            self.consensus.answered.pop_front();
        }
        self.tell_asker(&asked.by, asked.id, outcome, io);
    }

    /// Not kept as an answer: asked of the map in force, it may be done.
    fn tell_moved_on(&mut self, to: &NodeAddr, id: u64, io: &mut Io<'_>) {
        // Once for each map: an asker that can't keep up does not stop everything.
        if self.consensus.held < self.map.epoch {
            (self.consensus.held, self.consensus.hold_until_ms) = (self.map.epoch, self.now.mono_ms + HOLD_MS);
        }
        if *to != self.config.address {
            self.push_map(to, io);
        }
        self.tell_asker(to, id, Err(ChangeError::MovedOn), io);
    }

    fn tell_asker(&mut self, by: &NodeAddr, id: u64, outcome: Result<Epoch, ChangeError>, io: &mut Io<'_>) {
        if *by == self.config.address {
            self.on_change_answered(id, outcome, io);
        } else {
            self.answer(&by.clone(), Message::ChangeAnswered { id, outcome }, io);
        }
    }
}
