//! Reports: what every peer of a partition tells the others of itself, true of its disk.
//!
//! The changed parts of durable vectors are told after every sync, whole ones when a connection stands anew and, against
//! lost messages, in a slow rotation over all partitions. They acknowledge operations, make up stability, show what is
//! lacking here, and carry promises of the clock.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{ClockPromise, Message, PartitionReport};
use super::replicate::RESEND_MS;
use super::rules::Rule;
use super::{Io, Machine};
use crate::causal::vector::VersionVector;
use crate::error::StoreError;
use crate::types::{Epoch, Incarnation, NodeAddr, PartitionId, StayId};

/// How long it takes to tell every partition's whole vector again, in milliseconds.
const REFRESH_MS: u64 = 2_000;

/// How often a part of them is told, in milliseconds.
const REFRESH_STEP_MS: u64 = 100;

impl Machine {
    /// Tells whole vectors, a part of the partitions at a time.
    pub(super) fn tick_reports(&mut self, io: &mut Io<'_>) {
        let now = self.now.mono_ms;
        if now >= self.timers.refresh_ms {
            self.timers.refresh_ms = now + REFRESH_STEP_MS;
            self.refresh(io);
        }
    }

    /// What this node says of one of its replicas: `stays` of its durable vector, or all of it; once for each of its
    /// stays. Nothing before what it had when it adopted the row's version is durable (R3).
    pub(super) fn reports_of(
        &mut self,
        partition: PartitionId,
        stays: Option<&BTreeSet<StayId>>,
    ) -> Vec<PartitionReport> {
        let part = self.part(partition);
        if self.on(Rule::Barrier) && part.speaks_from > self.synced {
            return Vec::new();
        }
        let Some(replica) = &part.replica else { return Vec::new() };
        let durable: VersionVector =
            replica.durable.iter().filter(|(stay, _)| stays.is_none_or(|stays| stays.contains(stay))).collect();
        let (version, tombstones) = (part.version, replica.tombstones);
        let own: Vec<StayId> = part.own_stays().map(|own| own.stay).collect();
        // Who has collected a tombstone may be the one whose promise another lacks for it: whole reports always bring it.
        let promises = tombstones > 0 || stays.is_none();
        let mut reports = Vec::new();
        for stay in own {
            let promise = if promises { self.promise(partition, stay) } else { None };
            reports.push(PartitionReport { partition, version, stay, durable: durable.clone(), promise });
        }
        reports
    }

    /// The own clock as a word to the others: after this seq, only greater timestamps. Made once, and told when that
    /// seq is durable, though newer ones are on their way by then.
    fn promise(&mut self, partition: PartitionId, own: StayId) -> Option<ClockPromise> {
        let made = match self.part(partition).vows.get(&own) {
            Some(made) => *made,
            None => self.make_promise(partition, own)?,
        };
        let part = self.part_mut(partition);
        let durable = part.replica.as_ref()?.durable.get(own);
        part.vows.insert(own, made);
        if self.on(Rule::PromiseSync) && made.seq > durable {
            return None;
        }
        self.part_mut(partition).vows.remove(&own)
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
    pub(super) fn tell_changes(&mut self, io: &mut Io<'_>) {
        let untold: Vec<PartitionId> = self.partitions().filter(|p| !self.part(*p).untold.is_empty()).collect();
        let mut reports = Vec::new();
        for partition in untold {
            if self.on(Rule::Barrier) && self.part(partition).speaks_from > self.synced {
                continue;
            }
            let stays = std::mem::take(&mut self.part_mut(partition).untold);
            reports.extend(self.reports_of(partition, Some(&stays)));
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
            reports.extend(self.reports_of(partition, None));
            self.gossip_again(partition);
        }
        self.report(reports, io);
    }

    /// Tells one node everything, when its connection stands anew.
    pub(super) fn report_all_to(&mut self, node: &NodeAddr, io: &mut Io<'_>) {
        let partitions: Vec<_> = self.partitions().collect();
        let mut reports = Vec::new();
        for partition in partitions {
            if self.part(partition).hearers().contains(node) {
                reports.extend(self.reports_of(partition, None));
            }
        }
        if !reports.is_empty() {
            self.send(node, Message::Report(reports), io);
        }
    }

    pub(super) fn report(&mut self, reports: Vec<PartitionReport>, io: &mut Io<'_>) {
        let mut to: BTreeMap<NodeAddr, Vec<PartitionReport>> = BTreeMap::new();
        for report in reports {
            for node in self.part(report.partition).hearers() {
                to.entry(node.clone()).or_default().push(report.clone());
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
        for report in self.keep_early_reports(from, incarnation, reports, io) {
            if !self.is_current(from, report.partition, report.version, io) {
                continue;
            }
            let own_name = self.on(Rule::OwnName);
            let said_by = self.part(report.partition).peer(report.stay);
            if !said_by.is_some_and(|peer| !peer.lost && !peer.own && (peer.incarnation == incarnation || !own_name)) {
                continue;
            }
            self.check_memory(from, &report)?;
            let words = &self.part(report.partition).words;
            let first = words.of(report.stay).is_none();
            let forgot = report.durable.iter().any(|(stay, seq)| seq < words.durable(report.stay, stay));
            if forgot {
                self.remind(from, report.partition, io);
            }
            self.take_word(&report);
            if first {
                self.begin_streams(report.partition, report.stay);
            }
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
        let Some(replica) = &part.replica else { return Ok(()) };
        let more = |stay: StayId| report.durable.get(stay) > replica.applied.get(stay);
        let Some(own) = part.own_stays().map(|own| own.stay).find(|stay| more(*stay)) else { return Ok(()) };
        let (theirs, mine) = (report.durable.get(own), replica.applied.get(own));
        Err(StoreError::Damaged(format!(
            "{from} holds {theirs} writes of this node in partition {}, and this data directory knows {mine} of them: \
             it was restored from a backup, or copied; start the node with an empty data directory, and it refills \
             from the others",
            report.partition
        )))
    }

    /// A peer's first word under this version: what was sent to it before was refused, if it came before the map did.
    fn begin_streams(&mut self, partition: PartitionId, peer: StayId) {
        let now = self.now.mono_ms;
        let logs = self.part_mut(partition).logs.values_mut();
        for progress in logs.filter_map(|log| log.streams.get_mut(&peer)) {
            progress.sent = progress.acked;
            progress.flight.clear();
            progress.resends = 0;
            progress.resend_at_ms = now + RESEND_MS;
        }
    }

    /// Moves the windows of the streams to a peer with what it has acknowledged.
    fn note_progress(&mut self, partition: PartitionId, peer: StayId) {
        let now = self.now.mono_ms;
        let part = self.part_mut(partition);
        for (own, log) in &mut part.logs {
            let acked = part.words.durable(peer, *own);
            let durable = part.replica.as_ref().map_or(0, |replica| replica.durable.get(*own));
            let Some(progress) = log.streams.get_mut(&peer).filter(|progress| acked > progress.acked) else { continue };
            (progress.acked, progress.held) = (acked, acked.max(progress.held));
            while progress.flight.front().is_some_and(|message| message.0 <= acked) {
                progress.flight.pop_front();
            }
            progress.resends = 0;
            progress.resend_at_ms = now + RESEND_MS;
            progress.behind_since_ms = if acked >= durable { None } else { Some(now) };
        }
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
        version == mine || !self.on(Rule::Current)
    }
}
