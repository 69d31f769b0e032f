//! Replication: own operations out, others' operations in, reports of what is durable.
//!
//! A stay's own operations go from its log, in order of seq, to every Serving and Joining peer, once they are durable
//! here (R1). A stream has a window; when nothing moves for a while it goes back to what is acknowledged, with growing
//! pauses. Acknowledgements are the changed parts of durable vectors, told after every sync and, against lost
//! messages, in a slow rotation over all partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::message::{ClockPromise, Message, PartitionReport};
use super::part::{PartPeer, Progress};
use super::rules::Rule;
use super::{Io, Machine, records};
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::partition::{Offer, Order, Replica};
use crate::causal::vector::VersionVector;
use crate::cluster::map::PeerState;
use crate::error::StoreError;
use crate::types::{Dot, Epoch, Incarnation, Key, NodeAddr, PartitionId, Seq, StayId};

/// Bytes in flight to one peer for one partition.
const WINDOW_BYTES: usize = 2 << 20;

/// Messages in flight to one peer for one partition.
const WINDOW_MESSAGES: usize = 256;

/// Bytes of operations in one message; a single larger one goes alone.
const MESSAGE_BYTES: usize = 128 << 10;

/// A stream without progress for this long, in milliseconds, goes back to what is acknowledged; doubled each time.
const RESEND_MS: u64 = 250;

/// The longest pause between two goes.
const RESEND_MOST_MS: u64 = 4_000;

/// How long it takes to tell every partition's whole vector again, in milliseconds.
const REFRESH_MS: u64 = 2_000;

/// How often a part of them is told, in milliseconds.
const REFRESH_STEP_MS: u64 = 100;

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
        let stored = match self.read(io, &stored_key)? {
            Some(bytes) => Some(records::decode_item(&bytes)?),
            None => None,
        };
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
        self.pending.put(stored_key, records::encode_item(item));
        self.changed.insert(partition);
        if let Some(replica) = &mut self.parts[partition.0 as usize].replica {
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
        let own_name = self.on(Rule::OwnName);
        // The reserve is not for what peers write either; their streams come back to it.
        let (full, refused) = (self.disk_full, self.store_full.is_some());
        if self.part(partition).own().is_none_or(|own| own.state == PeerState::Leaving) || refused {
            return Ok(());
        }
        for op in operations {
            if full && !op.item.is_tombstone() {
                break;
            }
            let part = self.part_mut(partition);
            // Of its own stay only, and of a lost one nothing (R5).
            let taken = part
                .peer(op.item.dot.stay)
                .is_some_and(|peer| !peer.lost && (peer.incarnation == from || !own_name) && !peer.own);
            let Some(replica) = part.replica.as_mut().filter(|_| taken) else { continue };
            // Mostly it is the next one: applied at once, it needs no room, and the one after it is next then.
            if replica.offer(op.clone(), 0) == Offer::NoRoom {
                let room = self.room();
                self.part_mut(partition).replica.as_mut().map(|replica| replica.offer(op, room));
            }
            self.drain(partition, io)?;
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
        let Some(own) = part.own().map(|own| own.stay) else { return Ok(()) };
        let Some(replica) = &part.replica else { return Ok(()) };
        let sendable = if self.on(Rule::SendAfterSync) { replica.durable.get(own) } else { replica.applied.get(own) };
        let receivers: Vec<PartPeer> = part.receivers().cloned().collect();
        for peer in receivers {
            self.pump_to(partition, own, sendable, &peer, io)?;
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
        let progress = part.streams.entry(peer.stay).or_default();
        progress.sent = progress.sent.max(progress.acked);
        if progress.acked < sendable && progress.behind_since_ms.is_none() {
            progress.behind_since_ms = Some(now);
            progress.resend_at_ms = now + RESEND_MS;
        }
        if !connected {
            return Ok(());
        }
        loop {
            let Some(progress) = self.part(partition).streams.get(&peer.stay) else { return Ok(()) };
            let in_flight: usize = progress.flight.iter().map(|message| message.1).sum();
            let full = in_flight >= WINDOW_BYTES || progress.flight.len() >= WINDOW_MESSAGES;
            if progress.sent >= sendable || full {
                return Ok(());
            }
            let first = progress.sent + 1;
            let operations = self.own_operations(partition, own, first, sendable, io)?;
            let Some(last) = operations.last().map(|op| op.item.dot.seq) else { return Ok(()) };
            let weight = operations.iter().map(|op| op.weight()).sum();
            if let Some(progress) = self.part_mut(partition).streams.get_mut(&peer.stay) {
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
            let op = match self.part(partition).recent.get(seq) {
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
            for progress in part.streams.values_mut().filter(|progress| stalled(progress)) {
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
        if now >= self.timers.refresh_ms {
            self.timers.refresh_ms = now + REFRESH_STEP_MS;
            self.refresh(io);
        }
        Ok(())
    }

    /// True when nothing sent to the node for this partition has been unacknowledged for too long.
    pub(super) fn keeps_up(&self, progress: Option<&Progress>) -> bool {
        let since = progress.and_then(|progress| progress.behind_since_ms);
        since.is_none_or(|since| self.now.mono_ms < since + KEEPS_UP_MS)
    }

    // ---- Reports.

    /// What this node says of one of its replicas: `stays` of its durable vector, or all of it.
    fn report_of(&mut self, partition: PartitionId, stays: Option<&BTreeSet<StayId>>) -> Option<PartitionReport> {
        let part = self.part(partition);
        let own = part.own()?.stay;
        let replica = part.replica.as_ref()?;
        let durable: VersionVector =
            replica.durable.iter().filter(|(stay, _)| stays.is_none_or(|stays| stays.contains(stay))).collect();
        let (version, tombstones) = (part.version, replica.tombstones);
        // Who has collected a tombstone may be the one whose promise another lacks for it: whole reports always bring it.
        let promise = if tombstones > 0 || stays.is_none() { self.promise(partition, own) } else { None };
        Some(PartitionReport { partition, version, stay: own, durable, promise })
    }

    /// The own clock as a word to the others: after this seq, only greater timestamps. Made once, and told when that
    /// seq is durable, though newer ones are on their way by then.
    fn promise(&mut self, partition: PartitionId, own: StayId) -> Option<ClockPromise> {
        let made = match self.part(partition).vow {
            Some(made) => made,
            None => self.make_promise(partition, own)?,
        };
        let part = self.part_mut(partition);
        let durable = part.replica.as_ref()?.durable.get(own);
        part.vow = Some(made);
        if self.on(Rule::PromiseSync) && made.seq > durable {
            return None;
        }
        self.part_mut(partition).vow.take()
    }

    fn make_promise(&mut self, partition: PartitionId, own: StayId) -> Option<ClockPromise> {
        let replica = self.part(partition).replica.as_ref()?;
        let (assigned, durable) = (replica.applied.get(own), replica.durable.get(own));
        let seq = if self.on(Rule::PromiseLast) { assigned } else { durable.saturating_sub(1) };
        let wall_ms = self.now.wall_ms;
        let clock = if self.on(Rule::DurablePromise) {
            self.clock.promise(wall_ms)
        } else {
            self.clock.promise_unbounded(wall_ms)
        };
        Some(ClockPromise { seq, clock })
    }

    /// Tells every peer what has become durable since the last time.
    fn tell_changes(&mut self, io: &mut Io<'_>) {
        let untold: Vec<PartitionId> = self.partitions().filter(|p| !self.part(*p).untold.is_empty()).collect();
        let mut reports = Vec::new();
        for partition in untold {
            let stays = std::mem::take(&mut self.part_mut(partition).untold);
            reports.extend(self.report_of(partition, Some(&stays)));
        }
        self.report(reports, io);
    }

    /// Tells whole vectors, a part of the partitions each time.
    fn refresh(&mut self, io: &mut Io<'_>) {
        let count = self.parts.len();
        let step = (count as u64 * REFRESH_STEP_MS).div_ceil(REFRESH_MS) as usize;
        let mut reports = Vec::new();
        for _ in 0..step.min(count) {
            self.timers.refresh_at = (self.timers.refresh_at + 1) % count;
            let partition = PartitionId(self.timers.refresh_at as u32);
            reports.extend(self.report_of(partition, None));
            self.gossip_again(partition);
        }
        self.report(reports, io);
    }

    /// Tells one node everything, when its connection stands anew.
    pub(super) fn report_all_to(&mut self, node: &NodeAddr, io: &mut Io<'_>) {
        let partitions: Vec<_> = self.partitions().collect();
        let mut reports = Vec::new();
        for partition in partitions {
            if self.part(partition).receivers().any(|peer| peer.node == *node) {
                reports.extend(self.report_of(partition, None));
            }
        }
        if !reports.is_empty() {
            self.send(node, Message::Report(reports), io);
        }
    }

    fn report(&mut self, reports: Vec<PartitionReport>, io: &mut Io<'_>) {
        let mut to: BTreeMap<NodeAddr, Vec<PartitionReport>> = BTreeMap::new();
        for report in reports {
            for peer in self.part(report.partition).receivers() {
                to.entry(peer.node.clone()).or_default().push(report.clone());
            }
            self.take_word(&report);
        }
        for (node, reports) in to {
            self.send(&node, Message::Report(reports), io);
        }
    }

    /// Takes a report of one partition, of the version that is in force here: an own one, or a peer's.
    fn take_word(&mut self, report: &PartitionReport) {
        let promise = report.promise.map(|promise| (promise.seq, promise.clock));
        let grew = self.part_mut(report.partition).words.take(report.stay, &report.durable, promise);
        if grew {
            self.find_stable(report.partition, &report.durable);
            self.wake.insert(report.partition);
        }
    }

    pub(super) fn on_report(
        &mut self,
        from: &NodeAddr,
        incarnation: Incarnation,
        reports: Vec<PartitionReport>,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        for report in reports {
            if !self.is_current(from, report.partition, report.version, io) {
                continue;
            }
            let own_name = self.on(Rule::OwnName);
            let said_by = self.part(report.partition).peer(report.stay);
            if !said_by.is_some_and(|peer| !peer.lost && !peer.own && (peer.incarnation == incarnation || !own_name)) {
                continue;
            }
            self.check_memory(from, &report)?;
            self.take_word(&report);
            self.note_progress(report.partition, report.stay);
            self.note_lack(report.partition, report.stay);
            self.pump(report.partition, io)?;
        }
        Ok(())
    }

    /// What a node wrote leaves it only when that is durable here (R1), so nobody can have more of it than this disk,
    /// unless the disk is not the one that wrote. To go on would give names of writes a second time.
    fn check_memory(&self, from: &NodeAddr, report: &PartitionReport) -> Result<(), StoreError> {
        let part = self.part(report.partition);
        let (Some(own), Some(replica)) = (part.own(), &part.replica) else { return Ok(()) };
        let (theirs, mine) = (report.durable.get(own.stay), replica.applied.get(own.stay));
        if theirs <= mine {
            return Ok(());
        }
        Err(StoreError::Damaged(format!(
            "{from} holds {theirs} writes of this node in partition {}, and this data directory knows {mine} of them: \
             it was restored from a backup, or copied; start the node with an empty data directory, and it refills \
             from the others",
            report.partition
        )))
    }

    /// Moves a stream's window with what its receiver has acknowledged.
    fn note_progress(&mut self, partition: PartitionId, peer: StayId) {
        let now = self.now.mono_ms;
        let part = self.part_mut(partition);
        let Some(own) = part.own().map(|own| own.stay) else { return };
        let acked = part.words.durable(peer, own);
        let durable = part.replica.as_ref().map_or(0, |replica| replica.durable.get(own));
        let Some(progress) = part.streams.get_mut(&peer) else { return };
        if acked <= progress.acked {
            return;
        }
        progress.acked = acked;
        while progress.flight.front().is_some_and(|message| message.0 <= acked) {
            progress.flight.pop_front();
        }
        progress.resends = 0;
        progress.resend_at_ms = now + RESEND_MS;
        progress.behind_since_ms = if acked >= durable { None } else { Some(now) };
    }

    /// R3: true when what was said about the partition is of the version in force here. Of a newer one, the map comes
    /// first; of an older one, the sender gets the map.
    pub(super) fn is_current(
        &mut self,
        from: &NodeAddr,
        partition: PartitionId,
        version: Epoch,
        io: &mut Io<'_>,
    ) -> bool {
        let Some(mine) = self.parts.get(partition.0 as usize).map(|part| part.version) else { return false };
        if version > mine {
            self.pull_map(from, io);
        } else if version < mine {
            self.push_map(from, io);
        }
        version == mine
    }
}
