//! Replication: own operations out, others' operations in.
//!
//! A stay's own operations go from its log, in order of seq, to every Serving and Joining peer, once they are durable
//! here (R1). A stream has a window; when nothing moves for a while it goes back to what is acknowledged, with growing
//! pauses. Acknowledgements are the changed parts of durable vectors, told after every sync and, against lost
//! messages, in a slow rotation over all partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::message::Message;
use super::part::{PartPeer, Progress};
use super::rules::Rule;
use super::{Io, Machine, records};
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::partition::{Offer, Order, Replica};
use crate::cluster::map::PeerState;
use crate::error::StoreError;
use crate::types::{Dot, Incarnation, Key, PartitionId, Seq, StayId};

/// Bytes in flight to one peer for one partition.
const WINDOW_BYTES: usize = 2 << 20;

/// Messages in flight to one peer for one partition.
const WINDOW_MESSAGES: usize = 256;

/// Bytes of operations in one message; a single larger one goes alone.
const MESSAGE_BYTES: usize = 128 << 10;

/// A stream without progress for this long, in milliseconds, goes back to what is acknowledged; doubled each time.
pub(super) const RESEND_MS: u64 = 250;

/// The longest pause between two goes.
const RESEND_MOST_MS: u64 = 4_000;

/// A peer with something unacknowledged for longer than this, in milliseconds, does not keep up.
const KEEPS_UP_MS: u64 = 1_000;

impl Machine {
    // ---- Applying.

    /// Applies a write: the item (if it wins), the vector, the counts, in the coming batch. True when the key had a
    /// value before.
    pub(super) fn apply(
        &mut self,
        partition: PartitionId,
        key: &Key,
        item: &Item,
        io: &Io<'_>,
    ) -> Result<bool, StoreError> {
        let had_value = self.merge_item(partition, key, item, io)?;
        self.raise_applied(partition, item.dot);
        Ok(had_value)
    }

    /// Keeps the greater of the item and what is stored. True when the key had a value before.
    pub(super) fn merge_item(
        &mut self,
        partition: PartitionId,
        key: &Key,
        item: &Item,
        io: &Io<'_>,
    ) -> Result<bool, StoreError> {
        let stored_key = records::item_key(partition, key);
        let record = self.read(io, &stored_key)?;
        let stored_bytes = record.as_ref().map_or(0, |record| stored_key.len() + record.len());
        let stored = record.as_ref().map(records::decode_item).transpose()?;
        let had_value = stored.as_ref().is_some_and(|stored| !stored.is_tombstone());
        if self.on(Rule::ClockMerge) {
            self.clock.merge(item.timestamp);
        }
        if !item.wins_over(stored.as_ref()) {
            return Ok(had_value);
        }
        let had_tombstone = stored.is_some_and(|stored| stored.is_tombstone());
        let mark = records::tombstone_key(partition, key);
        if item.is_tombstone() && !had_tombstone {
            self.pending.put(mark, bytes::Bytes::new());
        } else if !item.is_tombstone() && had_tombstone {
            self.pending.remove(mark);
        }
        let record = records::encode_item(item);
        let bytes = stored_key.len() + record.len();
        self.pending.put(stored_key, record);
        self.changed.insert(partition);
        if let Some(replica) = &mut self.parts[partition.0 as usize].replica {
            replica.bytes = (replica.bytes + bytes as u64).saturating_sub(stored_bytes as u64);
            replica.keys = replica.keys + u64::from(!item.is_tombstone()) - u64::from(had_value);
            replica.tombstones = replica.tombstones + u64::from(item.is_tombstone()) - u64::from(had_tombstone);
        }
        Ok(had_value)
    }

    /// Notes that everything of the dot's stay is applied up to it.
    pub(super) fn raise_applied(&mut self, partition: PartitionId, dot: Dot) {
        self.changed.insert(partition);
        let batch = self.current_batch();
        let early = !self.on(Rule::DurableVectors);
        let part = &mut self.parts[partition.0 as usize];
        let Some(replica) = &mut part.replica else { return };
        replica.applied(dot);
        if early {
            replica.synced(dot.stay, dot.seq);
            part.untold.insert(dot.stay);
        }
        // An own write is what nobody can have waited for.
        let own = part.own().is_some_and(|own| own.stay == dot.stay);
        self.raises.push_back((batch, partition, dot.stay, dot.seq));
        if !own {
            self.wake.insert(partition);
        }
    }

    // ---- Operations in.

    pub(super) fn on_operations(
        &mut self,
        from: Incarnation,
        partition: PartitionId,
        operations: Vec<Arc<Op>>,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        let (own_name, first_fill) = (self.on(Rule::OwnName), self.on(Rule::FirstFill));
        // The reserve is not for what peers write either; their streams come back to it.
        let (full, refused) = (self.disk_full, self.store_full.is_some());
        let part = self.part(partition);
        let Some(member) = part.own_member().map(|own| own.state).filter(|_| !refused) else { return Ok(()) };
        // A replica that begins empty takes nothing before its first fill, unless its stay serves: till then all waits.
        let began = member == PeerState::Serving || part.replica.as_ref().is_some_and(|replica| replica.filled);
        let waits = !began && first_fill;
        for op in operations {
            if full && !op.item.is_tombstone() {
                break;
            }
            let part = self.part_mut(partition);
            // Of its own stay only (R5).
            let stay = part.peer(op.item.dot.stay);
            let taken = stay.is_some_and(|peer| (peer.incarnation == from || !own_name) && !peer.own);
            let Some(replica) = part.replica.as_mut().filter(|_| taken) else { continue };
            // Mostly it is the next one: applied at once, it needs no room, and the one after it is next then.
            if replica.offer(op.clone(), 0) == Offer::NoRoom {
                let room = self.room();
                self.part_mut(partition).replica.as_mut().map(|replica| replica.offer(op, room));
            }
            if !waits {
                self.drain(partition, io)?;
            }
        }
        Ok(())
    }

    /// The room that is left for operations that wait, in bytes.
    fn room(&self) -> usize {
        let waiting = self.parts.iter().filter_map(|part| part.replica.as_ref()).map(Replica::waiting_bytes);
        self.config.max_unapplied_bytes.saturating_sub(waiting.sum())
    }

    /// Applies every waiting operation whose turn has come.
    pub(super) fn drain(&mut self, partition: PartitionId, io: &mut Io<'_>) -> Result<(), StoreError> {
        let order = Order { deps: self.on(Rule::OperationDeps), own: self.on(Rule::OperationOrder) };
        let mut moved = false;
        loop {
            let part = self.part_mut(partition);
            let (next_stay, peers) = (part.next_stay, &part.peers);
            let closed = |stay: StayId| stay < next_stay && !peers.iter().any(|peer| peer.stay == stay);
            let Some(replica) = part.replica.as_mut() else { return Ok(()) };
            let Some(op) = replica.take_ready(order, closed) else { break };
            moved = true;
            if !replica.applied.covers(op.item.dot) {
                self.apply(partition, &op.key, &op.item, io)?;
            }
        }
        let now = self.now.mono_ms;
        let part = self.part_mut(partition);
        let waits = part.replica.as_ref().is_some_and(|replica| replica.waiting() > 0);
        // Blocked means that none is ready: with each that was, the time begins anew.
        part.blocked_since_ms = if waits { part.blocked_since_ms.filter(|_| !moved).or(Some(now)) } else { None };
        Ok(())
    }

    // ---- Operations out.

    /// Sends on what became durable, and tells the peers of it.
    pub(super) fn send_durable(&mut self, grown: &BTreeSet<PartitionId>, io: &mut Io<'_>) -> Result<(), StoreError> {
        for &partition in grown {
            self.pump(partition, io)?;
        }
        self.tell_changes(io);
        Ok(())
    }

    /// Hands to the network what the windows of a partition's streams allow.
    pub(super) fn pump(&mut self, partition: PartitionId, io: &mut Io<'_>) -> Result<(), StoreError> {
        let part = self.part(partition);
        let Some(replica) = &part.replica else { return Ok(()) };
        let ready = if self.on(Rule::SendAfterSync) { &replica.durable } else { &replica.applied };
        let writers = part.own_stays().filter(|own| own.state != PeerState::Joining);
        let sendable: Vec<(StayId, Seq)> = writers.map(|own| (own.stay, ready.get(own.stay))).collect();
        let behind = |own: StayId, sendable: Seq, peer: &PartPeer| {
            let progress = part.logs.get(&own).and_then(|log| log.streams.get(&peer.stay));
            progress.is_none_or(|progress| progress.is_behind(sendable))
        };
        // Mostly nobody is.
        let waits = |peer: &&PartPeer| sendable.iter().any(|(own, sendable)| behind(*own, *sendable, peer));
        let receivers = part.receivers().filter(waits).filter(|peer| self.is_who_it_was(peer));
        let receivers: Vec<PartPeer> = receivers.cloned().collect();
        for (own, sendable) in sendable {
            for peer in &receivers {
                self.pump_to(partition, own, sendable, peer, io)?;
            }
        }
        Ok(())
    }

    fn pump_to(
        &mut self,
        partition: PartitionId,
        own: StayId,
        sendable: Seq,
        peer: &PartPeer,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        let now = self.now.mono_ms;
        let connected = self.is_connected(&peer.node);
        let part = self.part_mut(partition);
        let version = part.version;
        let progress = part.logs.entry(own).or_default().streams.entry(peer.stay).or_default();
        progress.sent = progress.sent.max(progress.acked);
        if progress.acked < sendable && progress.behind_since_ms.is_none() {
            progress.behind_since_ms = Some(now);
            progress.resend_at_ms = now + RESEND_MS;
        }
        if !connected {
            return Ok(());
        }
        loop {
            let streams = self.part(partition).logs.get(&own).map(|log| &log.streams);
            let Some(progress) = streams.and_then(|streams| streams.get(&peer.stay)) else { return Ok(()) };
            let in_flight: usize = progress.flight.iter().map(|message| message.1).sum();
            let full = in_flight >= WINDOW_BYTES || progress.flight.len() >= WINDOW_MESSAGES;
            if progress.sent >= sendable || full {
                return Ok(());
            }
            let first = progress.sent + 1;
            let operations = self.own_operations(partition, own, first, sendable, io)?;
            let Some(last) = operations.last().map(|op| op.item.dot.seq) else { return Ok(()) };
            let weight = operations.iter().map(|op| op.weight()).sum();
            let log = self.part_mut(partition).logs.get_mut(&own);
            if let Some(progress) = log.and_then(|log| log.streams.get_mut(&peer.stay)) {
                progress.sent = last;
                progress.flight.push_back((last, weight));
            }
            self.send(&peer.node, Message::Operations { partition, version, operations }, io);
        }
    }

    /// Own operations from `from` on, up to a message's worth: from memory, or from the log.
    fn own_operations(
        &self,
        partition: PartitionId,
        own: StayId,
        from: Seq,
        to: Seq,
        io: &Io<'_>,
    ) -> Result<Vec<Arc<Op>>, StoreError> {
        let mut operations = Vec::new();
        let mut bytes = 0;
        for seq in from..=to {
            let recent = self.part(partition).logs.get(&own).and_then(|log| log.recent.get(seq));
            let op = match recent {
                Some(op) => Arc::clone(op),
                None => match self.read(io, &records::log_key(partition, Dot { stay: own, seq }))? {
                    Some(record) => Arc::new(records::decode_op(&record)?),
                    // Truncated: everybody has it, and the peer's next report will say so.
                    None => break,
                },
            };
            bytes += op.weight();
            operations.push(op);
            if bytes >= MESSAGE_BYTES {
                break;
            }
        }
        Ok(operations)
    }

    pub(super) fn tick_streams(&mut self, io: &mut Io<'_>) -> Result<(), StoreError> {
        let now = self.now.mono_ms;
        let stalled = |progress: &Progress| progress.behind_since_ms.is_some() && now >= progress.resend_at_ms;
        for partition in self.partitions() {
            let part = &mut self.parts[partition.0 as usize];
            let mut any = false;
            let streams = part.logs.values_mut().flat_map(|log| log.streams.values_mut());
            for progress in streams.filter(|progress| stalled(progress)) {
                progress.sent = progress.acked;
                progress.flight.clear();
                progress.resends = (progress.resends + 1).min(8);
                progress.resend_at_ms = now + (RESEND_MS << progress.resends).min(RESEND_MOST_MS);
                any = true;
            }
            if any {
                self.pump(partition, io)?;
            }
        }
        self.tick_reports(io);
        Ok(())
    }

    /// True when nothing sent to the node for this partition has been unacknowledged for too long.
    pub(super) fn keeps_up(&self, progress: Option<&Progress>) -> bool {
        let since = progress.and_then(|progress| progress.behind_since_ms);
        since.is_none_or(|since| self.now.mono_ms < since + KEEPS_UP_MS)
    }
}
