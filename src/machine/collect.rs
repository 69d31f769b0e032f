//! Collection: log entries that everybody has, tombstones that nobody needs. By knowledge, never by age.
//!
//! A tombstone is collected when its row has nothing but Serving peers, it is stable or closed, all it carries is too,
//! and every peer has promised a clock past its timestamp as of a seq that all peers have durably: then no write older
//! than it can still come. The floor is raised in the same batch, to tell readers of nothing what was here.

use super::rules::Rule;
use super::{Io, Machine, records};
use crate::causal::item::Item;
use crate::cluster::map::PeerState;
use crate::error::StoreError;
use crate::types::{Dot, Epoch, PartitionId, StayId, Timestamp};

/// How often a part of the partitions is looked at, in milliseconds.
const COLLECT_STEP_MS: u64 = 50;

/// Partitions looked at each time.
const PARTITIONS_A_STEP: usize = 32;

/// Tombstones looked at in one partition each time.
const TOMBSTONES_A_STEP: usize = 64;

/// Without a greater clock, tombstones are looked at again after this long, in milliseconds.
const SEARCH_AGAIN_MS: u64 = 5_000;

/// Log entries removed from one partition each time.
const ENTRIES_A_STEP: u64 = 1_024;

impl Machine {
    pub(super) fn tick_collect(&mut self, io: &mut Io<'_>) -> Result<(), StoreError> {
        if self.now.mono_ms < self.timers.collect_ms || self.parts.is_empty() {
            return Ok(());
        }
        self.timers.collect_ms = self.now.mono_ms + COLLECT_STEP_MS;
        for _ in 0..PARTITIONS_A_STEP.min(self.parts.len()) {
            self.timers.collect_at = (self.timers.collect_at + 1) % self.parts.len();
            let partition = PartitionId(self.timers.collect_at as u32);
            self.truncate_log(partition);
            self.collect_tombstones(partition, io)?;
        }
        Ok(())
    }

    /// Removes what is stable from the own logs.
    fn truncate_log(&mut self, partition: PartitionId) {
        let stable = self.on(Rule::TruncateStable);
        let part = &mut self.parts[partition.0 as usize];
        let Some(replica) = &part.replica else { return };
        for (own, log) in &mut part.logs {
            let everybody = if stable { part.stable.get(*own) } else { replica.durable.get(*own) };
            let from = log.truncated + 1;
            let to = everybody.min(replica.applied.get(*own)).min(log.truncated + ENTRIES_A_STEP);
            if to < from {
                continue;
            }
            for seq in from..=to {
                self.pending.remove(records::log_key(partition, Dot { stay: *own, seq }));
            }
            log.truncated = to;
            log.recent.truncate(to);
        }
    }

    fn collect_tombstones(&mut self, partition: PartitionId, io: &mut Io<'_>) -> Result<(), StoreError> {
        let part = self.part(partition);
        let tombstones = part.replica.as_ref().map_or(0, |replica| replica.tombstones);
        if tombstones == 0 || part.own_serving().is_none() {
            return Ok(());
        }
        if self.on(Rule::CollectServing) && part.peers.iter().any(|peer| peer.state != PeerState::Serving) {
            return Ok(());
        }
        let serving: Vec<StayId> = part.serving().map(|peer| peer.stay).collect();
        let early = !self.on(Rule::CollectSeq);
        self.part_mut(partition).words.settle_promises(&serving, early);
        let Some(past) = self.begin_search(partition, &serving) else { return Ok(()) };
        let (first, until) = records::range(b't', partition);
        let from = self.part(partition).collect_from.clone().unwrap_or(first);
        let marks = self.pending.scan(io.store, &from, &until, TOMBSTONES_A_STEP)?;
        // The key after the last one, or from the beginning again.
        let next = marks.last().filter(|_| marks.len() == TOMBSTONES_A_STEP).map(|(last, _)| {
            let mut next = last.to_vec();
            next.push(0);
            bytes::Bytes::from(next)
        });
        self.part_mut(partition).collect_from = next;
        for (mark, _) in marks {
            let key = records::user_key(&mark)?;
            let stored_key = records::item_key(partition, &key);
            let Some(bytes) = self.read(io, &stored_key)? else { continue };
            let item = records::decode_item(&bytes)?;
            if let Some(floor) = self.collectable(partition, &item, past).filter(|_| item.is_tombstone()) {
                let collected = (stored_key.len() + bytes.len()) as u64;
                self.pending.remove(stored_key);
                self.pending.remove(mark);
                self.changed.insert(partition);
                if let Some(replica) = &mut self.part_mut(partition).replica {
                    replica.tombstones -= 1;
                    let left = replica.bytes.saturating_sub(collected);
                    // Builds before counted up alone: an empty one has nothing.
                    replica.bytes = if replica.keys + replica.tombstones == 0 { 0 } else { left };
                    replica.floor = replica.floor.max(floor);
                }
            }
        }
        Ok(())
    }

    /// The clock that every peer is past, if it is worth looking for tombstones below it: while a peer is away that
    /// stands still, and to read all tombstones again and again would find none.
    fn begin_search(&mut self, partition: PartitionId, serving: &[StayId]) -> Option<Timestamp> {
        let (now, needed) = (self.now.mono_ms, self.on(Rule::CollectClock));
        let part = self.part_mut(partition);
        let past = part.words.past(serving.iter().copied());
        if part.collect_from.is_none() {
            let (before, again_ms) = part.collected;
            if needed && past <= before && now < again_ms {
                return None;
            }
            part.collected = (past, now + SEARCH_AGAIN_MS);
        }
        Some(past)
    }

    /// Whether the tombstone may go; if so, the floor that must tell of it. `past`: the clock that all peers are past.
    fn collectable(&self, partition: PartitionId, item: &Item, past: Timestamp) -> Option<Epoch> {
        let part = self.part(partition);
        let mut floor = part.version;
        if self.on(Rule::CollectStable) {
            part.settled(item.dot.stay, item.dot.seq)?;
        }
        if self.on(Rule::FloorItem) {
            floor = floor.max(item.carried.epoch());
        }
        for (elsewhere, stay, seq) in item.carried.iter() {
            match self.part(elsewhere).settled(stay, seq) {
                Some(version) if self.on(Rule::FloorItem) => floor = floor.max(version),
                None if self.on(Rule::CollectCarried) => return None,
                _ => {}
            }
        }
        (past >= item.timestamp || !self.on(Rule::CollectClock)).then_some(floor)
    }
}
