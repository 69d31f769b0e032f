//! Reads and writes of a key at a node that serves its partition, and when a write is acknowledged.
//!
//! Readers check, writers never wait for other partitions: a request waits until this replica has applied what its
//! context names in the key's own partition, and nothing else. What a write depends on elsewhere travels with it as
//! its *carried* context, and whoever reads it takes that in.

use std::collections::VecDeque;
use std::sync::Arc;

use super::message::{Request, Response};
use super::part::Unanswered;
use super::requests::{Origin, Pending};
use super::rules::Rule;
use super::{Io, Machine, records};
use crate::causal::context::Context;
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::vector::VersionVector;
use crate::error::{Code, StoreError};
use crate::types::{Dot, Epoch, Key, NodeAddr, PartitionId, Seq, StayId};

/// What became of a request that was tried.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is answered.
    Done(Response),
    /// It waits for its partition to change; at its deadline it gets this error.
    Wait(Code),
    /// A write is made; its answer comes when enough disks have it.
    Coordinated,
    /// Another node is to be asked.
    Forward(NodeAddr),
    /// It came forwarded, and this node is not the one to serve it; perhaps that one is.
    Refuse(Option<NodeAddr>),
}

impl Machine {
    /// Serves a key's request as the stay `own` of its partition.
    pub(super) fn serve(
        &mut self,
        partition: PartitionId,
        own: StayId,
        pending: &Pending,
        io: &mut Io<'_>,
    ) -> Result<Verdict, StoreError> {
        let (key, context) = match &pending.request {
            Request::Get { key, context } | Request::Delete { key, context } | Request::Put { key, context, .. } => {
                (key, context)
            }
            Request::KeyCount { .. } | Request::CountOf { .. } => {
                return Ok(Verdict::Done(Response::Error(Code::Internal)));
            }
        };
        let rule = if pending.writes() { Rule::WriteWaits } else { Rule::ReadWaits };
        if let Some((stay, seq)) = self.lacks(partition, context).filter(|_| self.on(rule)) {
            return Ok(self.seek_elsewhere(partition, stay, seq, pending));
        }
        match &pending.request {
            Request::Put { .. } if self.is_full() => Ok(Verdict::Done(Response::Error(Code::DiskFull))),
            Request::Put { value, .. } => self.write(partition, own, key, Some(value.clone()), context, pending, io),
            Request::Delete { .. } if self.has_value(partition, key, io)? => {
                // Deletes have the reserve; when that is gone too, nothing can be taken.
                if self.store_full.is_some() {
                    return Ok(Verdict::Done(Response::Error(Code::DiskFull)));
                }
                self.write(partition, own, key, None, context, pending, io)
            }
            // A delete of what is not there is a read: it shows the tombstone, or that there is nothing.
            _ => self.show(partition, key, context, io),
        }
    }

    /// The first entry of the context that this replica must have and has not.
    fn lacks(&self, partition: PartitionId, context: &Context) -> Option<(StayId, Seq)> {
        let part = self.part(partition);
        let replica = part.replica.as_ref()?;
        context.of(partition).find(|&(stay, seq)| replica.applied.get(stay) < seq && !part.is_closed(stay))
    }

    /// A read goes to another live Serving peer that has what is lacking here; a write waits.
    fn seek_elsewhere(&self, partition: PartitionId, stay: StayId, seq: Seq, pending: &Pending) -> Verdict {
        let wait = Verdict::Wait(Code::DependenciesUnsatisfied);
        if pending.writes() {
            return wait;
        }
        let part = self.part(partition);
        let has = part.serving().find(|peer| {
            !peer.own
                && part.words.durable(peer.stay, stay) >= seq
                && self.lives(peer)
                && self.is_connected(&peer.node)
                && !pending.avoid.contains(&peer.node)
        });
        match (has, &pending.origin) {
            (Some(peer), Origin::Client(_) | Origin::Gather(_)) => Verdict::Forward(peer.node.clone()),
            (Some(peer), Origin::Peer { node, .. }) if peer.node != *node => Verdict::Refuse(Some(peer.node.clone())),
            _ => wait,
        }
    }

    fn has_value(&self, partition: PartitionId, key: &Key, io: &Io<'_>) -> Result<bool, StoreError> {
        let stored = self.read(io, &records::item_key(partition, key))?;
        Ok(match stored {
            Some(bytes) => !records::decode_item(&bytes)?.is_tombstone(),
            None => false,
        })
    }

    // ---- Writes.

    #[allow(clippy::too_many_arguments)] // The write's own words: where, who, what, and for whom.
    fn write(
        &mut self,
        partition: PartitionId,
        own: StayId,
        key: &Key,
        value: Option<bytes::Bytes>,
        context: &Context,
        pending: &Pending,
        io: &mut Io<'_>,
    ) -> Result<Verdict, StoreError> {
        if self.on(Rule::ContextClock) {
            self.clock.merge(context.clock());
        }
        // Counted on from the ceiling, a write would be older than what others wrote while this node was down.
        let compared = self.clock_compared || !self.on(Rule::ClockCompared);
        let Some(timestamp) = compared.then(|| self.clock.tick(self.now.wall_ms)).flatten() else {
            self.keep_ceiling();
            return Ok(Verdict::Wait(Code::ShardUnavailable));
        };
        let carried = self.carried(partition, context);
        let part = self.part(partition);
        let Some(replica) = &part.replica else { return Ok(Verdict::Wait(Code::ShardUnavailable)) };
        let deps: VersionVector = context.of(partition).filter(|(stay, _)| !part.is_closed(*stay)).collect();
        let dot = Dot { stay: own, seq: replica.applied.get(own) + 1 };
        let mut answer = carried.clone();
        answer.raise(partition, dot.stay, dot.seq);
        if self.on(Rule::ContextClock) {
            answer.raise_clock(timestamp);
        }

        let item = Item { value, dot, timestamp, carried };
        let op = Arc::new(Op { key: key.clone(), item, deps });
        self.pending.put(records::log_key(partition, dot), records::encode(&*op));
        let existed = self.apply(partition, key, &op.item, io)?;
        let part = self.part_mut(partition);
        part.logs.entry(own).or_default().recent.push(op);
        self.unanswered += 1;
        self.part_mut(partition).unanswered.push_back(Unanswered {
            dot,
            origin: pending.origin.clone(),
            context: answer,
            existed,
            deadline_ms: pending.deadline_ms,
        });
        if !self.on(Rule::SendAfterSync) {
            self.pump(partition, io)?;
        }
        Ok(Verdict::Coordinated)
    }

    /// The context's entries for other partitions that are not known to be everywhere.
    fn carried(&self, partition: PartitionId, context: &Context) -> Context {
        let mut carried = Context::empty();
        carried.raise_epoch(context.epoch());
        if !self.on(Rule::Carry) {
            return carried;
        }
        for (elsewhere, stay, seq) in context.iter().filter(|entry| entry.0 != partition) {
            self.take_in(&mut carried, elsewhere, stay, seq);
        }
        carried
    }

    /// Adds an entry to a context, unless it is known to be everywhere: then only the epoch tells of it.
    fn take_in(&self, context: &mut Context, partition: PartitionId, stay: StayId, seq: Seq) {
        match self.part(partition).settled(stay, seq) {
            Some(version) if self.on(Rule::PruneEpoch) => context.raise_epoch(version),
            Some(_) => {}
            None => context.raise(partition, stay, seq),
        }
    }

    // ---- Reads.

    fn show(
        &mut self,
        partition: PartitionId,
        key: &Key,
        context: &Context,
        io: &Io<'_>,
    ) -> Result<Verdict, StoreError> {
        let stored = match self.read(io, &records::item_key(partition, key))? {
            Some(bytes) => Some(records::decode_item(&bytes)?),
            None => None,
        };
        let mut seen = context.clone();
        let Some(item) = stored else {
            if self.on(Rule::Floor)
                && let Some(replica) = &self.part(partition).replica
            {
                seen.raise_epoch(replica.floor);
            }
            self.take_in_what_is_buried(&mut seen, partition);
            return Ok(Verdict::Done(Response::Missing { context: seen }));
        };
        if !self.may_show(partition, item.dot) {
            return Ok(Verdict::Wait(Code::DependenciesUnsatisfied));
        }
        self.take_in_item(&mut seen, partition, &item);
        if !self.on(Rule::KeepEntry) {
            seen.retain(|at, stay, seq| self.part(at).settled(stay, seq).is_none());
        }
        Ok(Verdict::Done(match item.value {
            Some(value) => Response::Value { value, context: seen },
            None => Response::Missing { context: seen },
        }))
    }

    /// Nothing may be what a collected tombstone left: the context takes in that, too. This node's clock is above all that
    /// it has ever applied, or been filled with, so the tombstone's timestamp need not be kept.
    fn take_in_what_is_buried(&self, seen: &mut Context, partition: PartitionId) {
        let buries = self.part(partition).replica.as_ref().is_some_and(|replica| replica.floor > Epoch(0));
        if buries && self.on(Rule::ContextClock) {
            seen.raise_clock(self.clock.merged());
        }
    }

    /// A context that names the item's very dot has taken in what it carries and stays as it is, to the letter.
    fn take_in_item(&self, seen: &mut Context, partition: PartitionId, item: &Item) {
        if self.on(Rule::ContextClock) {
            seen.raise_clock(item.timestamp);
        }
        let (names, covers) = (seen.names(partition, item.dot), seen.covers(partition, item.dot));
        if names {
            return;
        }
        let carries = !covers || self.on(Rule::CoverCarried);
        if self.on(Rule::ItemEpoch) && (!covers || self.on(Rule::CoverEpoch)) {
            seen.raise_epoch(item.carried.epoch());
        }
        if carries {
            for (elsewhere, stay, seq) in item.carried.iter() {
                if seen.get(elsewhere, stay) < seq {
                    self.take_in(seen, elsewhere, stay, seq);
                }
            }
        }
        if !covers {
            self.take_in(seen, partition, item.dot.stay, item.dot.seq);
        }
    }

    /// Only what is durable here is shown, and an own write only once it could be acknowledged (R2).
    fn may_show(&mut self, partition: PartitionId, dot: Dot) -> bool {
        let durable = self.part(partition).replica.as_ref().is_some_and(|replica| replica.durable.covers(dot));
        if self.on(Rule::DurableReads) && !durable {
            return false;
        }
        let own = self.part(partition).own_stays().any(|peer| peer.stay == dot.stay);
        !own || !self.on(Rule::ShowAckable) || self.is_ackable(partition, dot)
    }

    // ---- Acknowledging.

    /// Whether the own write could be acknowledged, or was.
    fn is_ackable(&mut self, partition: PartitionId, dot: Dot) -> bool {
        let part = self.part(partition);
        if part.ackable.get(&dot.stay).is_some_and(|seq| dot.seq <= *seq) || part.answered.contains(&dot) {
            return true;
        }
        let durable = part.replica.as_ref().is_some_and(|replica| replica.durable.covers(dot));
        if !durable && self.on(Rule::AckDurable) {
            return false;
        }
        let copies = part.copies(dot);
        let enough = copies >= self.config.write_copies || !self.on(Rule::AckCopies);
        // A peer that has stopped serving is no copy itself: one that serves must have the write.
        let none = copies == 0 && self.on(Rule::AckDurable);
        if !enough && (none || self.awaits_copy(partition, dot)) {
            return false;
        }
        // What holds for a write holds for all before it.
        let part = self.part_mut(partition);
        part.ackable.insert(dot.stay, dot.seq);
        part.answered.retain(|answered| answered.stay != dot.stay || answered.seq > dot.seq);
        true
    }

    /// True when a live Serving peer that keeps up will have the write soon.
    fn awaits_copy(&self, partition: PartitionId, dot: Dot) -> bool {
        let part = self.part(partition);
        let log = part.logs.get(&dot.stay);
        part.serving().any(|peer| {
            !peer.own
                && part.words.durable(peer.stay, dot.stay) < dot.seq
                && self.lives(peer)
                && self.keeps_up(log.and_then(|log| log.streams.get(&peer.stay)))
        })
    }

    /// Answers the own writes of a partition that have enough copies, in order.
    pub(super) fn answer_writes(&mut self, partition: PartitionId, io: &mut Io<'_>) {
        while let Some(dot) = self.part(partition).unanswered.front().map(|write| write.dot) {
            let part = self.part(partition);
            let drained = part.drained.contains(&dot.stay);
            let acts = drained || part.own_stays().any(|peer| peer.stay == dot.stay);
            // It may have been ackable by words of a version that is over.
            let none = part.copies(dot) == 0 && self.on(Rule::AckDurable);
            if acts && !drained && (!self.is_ackable(partition, dot) || none) {
                return;
            }
            let Some(write) = self.part_mut(partition).unanswered.pop_front() else { return };
            self.unanswered -= 1;
            if acts {
                self.acknowledge(partition, write, io);
            } else {
                // Its stay was lost or closed before the answer.
                self.reply(&write.origin, Response::Error(Code::OutcomeUnknown), io);
            }
        }
    }

    /// Answers writes whose deadline has come: with the copies there are, or that the outcome is unknown.
    pub(super) fn expire_writes(&mut self, io: &mut Io<'_>) {
        let now = self.now.mono_ms;
        for partition in self.partitions() {
            let part = &mut self.parts[partition.0 as usize];
            if part.unanswered.is_empty() {
                continue;
            }
            let all = part.unanswered.drain(..);
            let (late, in_time): (VecDeque<_>, VecDeque<_>) = all.partition(|write| write.deadline_ms <= now);
            part.unanswered = in_time;
            let waiting = self.unanswered;
            self.unanswered -= late.len();
            for write in late {
                let part = &mut self.parts[partition.0 as usize];
                let acts = part.own_stays().any(|peer| peer.stay == write.dot.stay);
                let durable = part.replica.as_ref().is_some_and(|replica| replica.durable.covers(write.dot));
                if acts && durable && part.copies(write.dot) > 0 {
                    part.answered.insert(write.dot);
                    self.acknowledge(partition, write, io);
                } else {
                    self.reply(&write.origin, Response::Error(Code::OutcomeUnknown), io);
                }
            }
            // A peer that stops keeping up is waited for no longer, so time alone can make a write ackable.
            self.answer_writes(partition, io);
            if self.unanswered < waiting {
                self.wake.insert(partition);
            }
        }
    }

    fn acknowledge(&mut self, partition: PartitionId, write: Unanswered, io: &mut Io<'_>) {
        let part = self.part(partition);
        // What a stay wrote that was closed in order is at every peer.
        let everybody = part.serving().filter(|peer| !peer.gone).count() as u32;
        let copies = if part.drained.contains(&write.dot.stay) { everybody } else { part.copies(write.dot) };
        let shard = self.map.layout.partitions[partition.0 as usize];
        let response = Response::Written { existed: write.existed, context: write.context, shard, copies };
        self.reply(&write.origin, response, io);
    }
}
