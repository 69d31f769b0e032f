//! What was received is taken over.

use super::FillIn;
use super::budget::Purpose;
use super::items::item_weight;
use crate::causal::item::Item;
use crate::error::StoreError;
use crate::machine::message::{FillEnd, Message};
use crate::machine::records::FillMark;
use crate::machine::rules::Rule;
use crate::machine::{Io, Machine, records};
use crate::types::{Dot, Key, PartitionId};

impl Machine {
    /// Writes what a fill stands for beside its last chunk: with that batch durable, it is whole for ever.
    pub(super) fn mark_whole(&mut self, partition: PartitionId) {
        let Some(fill) = &self.part(partition).filling else { return };
        let Some(FillEnd { vector, floor, clock }) = fill.end.clone() else { return };
        let mark = FillMark { chunks: fill.next, vector, floor, clock };
        self.pending.put(records::aside_key(partition, records::MARK), records::encode(&mark));
    }

    /// Takes over the fills that are whole and durable, a large one in pieces.
    pub(in crate::machine) fn finish_fills(&mut self, io: &mut Io<'_>) -> Result<(), StoreError> {
        let is_ready = |fill: &FillIn| fill.kept.is_some() || fill.whole.is_some_and(|batch| batch <= self.synced);
        let ready = self.partitions().filter(|p| self.part(*p).filling.as_ref().is_some_and(is_ready));
        let mut ready: Vec<_> = ready.map(|p| (self.part(p).purpose_of(&self.config.address), p)).collect();
        ready.sort_unstable();
        for (purpose, partition) in ready {
            if self.part(partition).filling.as_ref().is_some_and(|fill| fill.in_place) {
                self.take_kept(partition, purpose, io)?;
                continue;
            }
            while self.fill_budget.may_take(purpose) && self.take_chunk(partition, purpose, io)? {}
        }
        Ok(())
    }

    /// Merges the chunk that waits for its turn, where there is one and its turn has come; asks for the next.
    pub(super) fn take_kept(
        &mut self,
        partition: PartitionId,
        purpose: Purpose,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        let now = self.now.mono_ms;
        let may_take = self.fill_budget.may_take(purpose);
        let part = self.part_mut(partition);
        let Some(fill) = part.filling.as_mut().filter(|_| may_take) else { return Ok(()) };
        let Some(items) = fill.kept.take() else { return Ok(()) };
        fill.heard_ms = now;
        let (from, attempt, index, last) = (fill.from, fill.attempt, fill.next, fill.end.is_some());
        part.filled_steps += 1;
        self.fill_budget.take(purpose, items.iter().map(|(key, item)| item_weight(key, item)).sum());
        self.take_items(partition, items, io)?;
        if last {
            return self.hold_filled(partition, io);
        }
        if let Some(source) = self.part(partition).peer(from).map(|peer| peer.node.clone()) {
            self.send(&source, Message::FillNext { partition, attempt, index }, io);
        }
        Ok(())
    }

    /// Merges the next chunk; after the last one, everything that the fill stands for is held. False when there is no
    /// fill any more.
    pub(super) fn take_chunk(
        &mut self,
        partition: PartitionId,
        purpose: Purpose,
        io: &mut Io<'_>,
    ) -> Result<bool, StoreError> {
        let Some(fill) = &self.part(partition).filling else { return Ok(false) };
        if fill.taken == fill.next {
            self.hold_filled(partition, io)?;
            return Ok(false);
        }
        let key = records::aside_key(partition, fill.taken);
        if let Some(bytes) = self.read(io, &key)? {
            let items: Vec<(Key, Item)> = records::decode("a part of a fill", &bytes)?;
            self.take_items(partition, items, io)?;
            self.pending.remove(key);
            self.fill_budget.take(purpose, bytes.len());
        }
        let part = self.part_mut(partition);
        part.filled_steps += 1;
        if let Some(fill) = &mut part.filling {
            fill.taken += 1;
        }
        Ok(true)
    }

    /// All items of a fill are merged: its vector, floor and clock are this replica's.
    fn hold_filled(&mut self, partition: PartitionId, io: &mut Io<'_>) -> Result<(), StoreError> {
        let Some(end) = self.part_mut(partition).filling.take().and_then(|fill| fill.end) else { return Ok(()) };
        self.pending.remove(records::aside_key(partition, records::MARK));
        if self.on(Rule::FillClock) {
            self.clock.merge(end.clock);
        }
        for (stay, seq) in end.vector.iter() {
            let known = self.part(partition).replica.as_ref().map_or(0, |replica| replica.applied.get(stay));
            if seq > known {
                self.raise_applied(partition, Dot { stay, seq });
            }
        }
        let floors = self.on(Rule::FillFloor);
        let part = self.part_mut(partition);
        part.lacking.clear();
        part.blocked_since_ms = None;
        if let Some(replica) = &mut part.replica {
            replica.filled = true;
            if floors {
                replica.floor = replica.floor.max(end.floor);
            }
            replica.drop_covered();
        }
        self.changed.insert(partition);
        self.drain(partition, io)
    }

    /// Merges items, less those that are covered here by now: they may have been collected since.
    pub(super) fn take_items(
        &mut self,
        partition: PartitionId,
        items: Vec<(Key, Item)>,
        io: &Io<'_>,
    ) -> Result<(), StoreError> {
        for (key, item) in items {
            let covered = self.part(partition).replica.as_ref().is_none_or(|replica| replica.applied.covers(item.dot));
            if !covered || !self.on(Rule::FillLate) {
                self.merge_item(partition, &key, &item, io)?;
            }
        }
        Ok(())
    }
}
