//! What peers say before their map is in force here.
//!
//! A peer that has adopted a row first says its first word at once, and everything again only in a slow rotation. Here
//! the map may still be on its way to the disk, and until then that word is none (R3). To drop it would make the
//! writes of the partition wait for the rotation, and the next map, too; a wish for a fill that is dropped is wished
//! again only when its silence is noticed; operations would be sent again when our own first word is heard, a round
//! later; and an acceptor that says nothing holds up the next map. So they are kept, and heard when the map is in force,
//! before anything that came later. Bounded: the oldest make room, and are told again.

use std::collections::VecDeque;

use super::message::{Message, PartitionReport, PartitionWord};
use super::rules::Rule;
use super::{Io, Machine};
use crate::cluster::paxos::PaxosMessage;
use crate::error::StoreError;
use crate::types::{Epoch, Incarnation, NodeAddr, PartitionId};

/// Messages that are kept.
const MOST_EARLY: usize = 2_048;

/// What they may say together, in entries of vectors and rows: some megabytes, and many times what all peers of all
/// partitions say in a rotation.
const MOST_ENTRIES: usize = 1 << 17;

/// Bytes of an operation that count as much as an entry.
const ENTRY_BYTES: usize = 32;

/// Messages with who sent them, and as whom, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Early {
    messages: VecDeque<(NodeAddr, Incarnation, Message)>,
    /// How many entries they have.
    entries: usize,
    /// The map under which they were heard last.
    heard: Epoch,
}

impl Early {
    /// How many are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Keeps one more; the oldest make room. One that is larger than all may be is not kept.
    fn keep(&mut self, from: NodeAddr, incarnation: Incarnation, message: Message) {
        let entries = entries(&message);
        while self.messages.len() >= MOST_EARLY || self.entries + entries > MOST_ENTRIES {
            let Some((.., oldest)) = self.messages.pop_front() else { return };
            self.entries -= self::entries(&oldest);
        }
        self.entries += entries;
        self.messages.push_back((from, incarnation, message));
    }
}

/// What a message that may be kept says, in entries of vectors and rows.
fn entries(message: &Message) -> usize {
    1 + match message {
        Message::Report(reports) => reports.iter().map(|report| 1 + report.durable.len()).sum(),
        Message::Words(words) => words.iter().map(|word| 1 + word.first.len() + word.durable.len()).sum(),
        Message::FillRequest { vector, .. } => vector.len(),
        Message::Operations { operations, .. } => operations.iter().map(|op| op.weight() / ENTRY_BYTES).sum(),
        Message::Paxos(PaxosMessage::Promise { accepted: Some((_, next)), .. } | PaxosMessage::Accept { next, .. }) => {
            next.changed.rows.iter().map(|row| 1 + row.peers.len() + row.skipped.len()).sum()
        }
        _ => 0,
    }
}

impl Machine {
    /// Those of the reports whose rows are in force here, or were; the others are kept.
    pub(super) fn keep_early_reports(
        &mut self,
        from: &NodeAddr,
        incarnation: Incarnation,
        reports: Vec<PartitionReport>,
        io: &mut Io<'_>,
    ) -> Vec<PartitionReport> {
        let is_early = |report: &PartitionReport| self.is_early(report.partition, report.version);
        let (early, heard): (Vec<_>, Vec<_>) = reports.into_iter().partition(is_early);
        if !early.is_empty() {
            self.keep_early(from, incarnation, Message::Report(early), io);
        }
        heard
    }

    /// The same for words to who proposes maps.
    pub(super) fn keep_early_words(
        &mut self,
        from: &NodeAddr,
        incarnation: Incarnation,
        words: Vec<PartitionWord>,
        io: &mut Io<'_>,
    ) -> Vec<PartitionWord> {
        let versions = self.on(Rule::Versions);
        let is_early = |word: &PartitionWord| versions && self.is_early(word.partition, word.version);
        let (early, heard): (Vec<_>, Vec<_>) = words.into_iter().partition(is_early);
        if !early.is_empty() {
            self.keep_early(from, incarnation, Message::Words(early), io);
        }
        heard
    }

    /// True for a wish for a fill, or operations, under a row that is not in force here yet: they are kept.
    pub(super) fn keep_early_one(
        &mut self,
        from: &NodeAddr,
        incarnation: Incarnation,
        message: &Message,
        io: &mut Io<'_>,
    ) -> bool {
        let (Message::FillRequest { partition, version, .. } | Message::Operations { partition, version, .. }) =
            message
        else {
            return false;
        };
        // Without the clause operations are taken under any version.
        let early = self.is_early(*partition, *version) && self.on(Rule::Current);
        if early {
            self.keep_early(from, incarnation, message.clone(), io);
        }
        early
    }

    fn is_early(&self, partition: PartitionId, version: Epoch) -> bool {
        self.parts.get(partition.0 as usize).is_some_and(|part| version > part.version)
    }

    /// Keeps a message, and asks for the map.
    pub(super) fn keep_early(&mut self, from: &NodeAddr, incarnation: Incarnation, message: Message, io: &mut Io<'_>) {
        self.pull_map(from, io);
        self.early.keep(from.clone(), incarnation, message);
    }

    /// Hears what came before the map that is in force now; what is of a newer one still is kept again.
    pub(super) fn hear_early(&mut self, io: &mut Io<'_>) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.early.heard, self.map.epoch) == self.map.epoch {
            return Ok(());
        }
        self.early.entries = 0;
        for (from, incarnation, message) in std::mem::take(&mut self.early.messages) {
            self.on_message(&from, incarnation, message, io)?;
        }
        Ok(())
    }
}
