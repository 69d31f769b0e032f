//! What peers say before their map is in force here.
//!
//! A peer that has adopted a row first says its first word at once, and everything again only in a slow rotation. Here
//! the map may still be on its way to the disk, and until then that word is none (R3). To drop it would make the
//! writes of the partition wait for the rotation, and the next map, too. So it is kept, and heard when the map is in
//! force, before anything that came later. Bounded: what finds no room is told again.

use super::message::{Message, PartitionReport, PartitionWord};
use super::rules::Rule;
use super::{Io, Machine};
use crate::error::StoreError;
use crate::types::{Epoch, Incarnation, NodeAddr, PartitionId};

/// Messages that are kept.
const MOST_EARLY: usize = 512;

/// A message, who sent it, and as whom.
pub(super) type Early = (NodeAddr, Incarnation, Message);

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

    fn is_early(&self, partition: PartitionId, version: Epoch) -> bool {
        self.parts.get(partition.0 as usize).is_some_and(|part| version > part.version)
    }

    fn keep_early(&mut self, from: &NodeAddr, incarnation: Incarnation, message: Message, io: &mut Io<'_>) {
        self.pull_map(from, io);
        if self.early.len() < MOST_EARLY {
            self.early.push((from.clone(), incarnation, message));
        }
    }

    /// Hears what came before the map that is in force now; what is of a newer one still is kept again.
    pub(super) fn hear_early(&mut self, io: &mut Io<'_>) -> Result<(), StoreError> {
        for (from, incarnation, message) in std::mem::take(&mut self.early) {
            self.on_message(&from, incarnation, message, io)?;
        }
        Ok(())
    }
}
