//! Maps on their way, and the rows of a new one taken over partition by partition.
//!
//! A decided map is stored, and acted under once it is durable (R2). Each row whose version has changed is then adopted
//! (R3): operations received but not applied are dropped, an unfinished fill begins again, what others said counts no
//! more, and the replica is made, kept or dropped. When all this and everything applied to it is durable, and only then,
//! the peer says its first word under the new version.
//!
//! A replica is held for those stays of this incarnation that are in the row and not lost. Who adopts a row in which
//! none of them is left drops it, even when named anew meanwhile: what it holds may lack what was closed without it.
//! What is left of a dropped replica is removed bit by bit; a new one begins after that.

use std::sync::Arc;

use super::message::Effect;
use super::rules::Rule;
use super::{Io, Machine, records};
use crate::causal::partition::Replica;
use crate::cluster::layout;
use crate::cluster::map::{ClusterMap, PeerState};
use crate::cluster::paxos::epochs::is_news;
use crate::error::StoreError;
use crate::types::{Epoch, NodeAddr, PartitionId};

/// Stored pairs of dropped replicas and closed logs that one tick removes: clients wait meanwhile.
const REMOVED_A_TICK: usize = 512;

impl Machine {
    /// Takes note of a decided map: it is stored, and acted under once that is durable.
    pub(super) fn learn(&mut self, map: Arc<ClusterMap>, io: &mut Io<'_>) {
        if !is_news(&self.map, self.newest_map().epoch, &map) {
            return;
        }
        if !self.may_go_on_to(&map, io) {
            return;
        }
        if self.map.is_born() && (map.partitions() != self.map.partitions() || map.secret != self.map.secret) {
            // Fixed at birth, for ever: whoever made it, it is no map of this store.
            return io
                .effects
                .push(Effect::Warn(format!("a map {} with other partitions or secret was refused", map.epoch)));
        }
        // Who is not born takes map 1 of its own settings, or the map of a running store that it belongs to.
        if !self.map.is_born() && map.epoch == Epoch(1) && layout::follows_birth(&self.zero, &map).is_err() {
            let known = map.nodes.contains_key(&self.config.address);
            if known && self.config.shard_count.is_some() {
                let text =
                    format!("a first map that does not follow from these settings was offered ({})", map.cluster_id);
                io.effects.push(Effect::Warn(text));
                return;
            }
        }
        self.compare_asks(&map);
        self.pending.put(records::meta_key("map"), records::encode(&*map));
        self.learned = Some((self.current_batch(), map));
        if !self.on(Rule::DurableMap) {
            self.adopt(io);
        }
    }

    /// The newest map that this node has, in force or on its way to the disk.
    pub(super) fn newest_map(&self) -> &Arc<ClusterMap> {
        self.learned.as_ref().map_or(&self.map, |(_, map)| map)
    }

    /// Acts under the learned map, if it is durable.
    pub(super) fn adopt_learned(&mut self, io: &mut Io<'_>) {
        if self.learned.as_ref().is_some_and(|(batch, _)| *batch <= self.synced) {
            self.adopt(io);
        }
    }

    fn adopt(&mut self, io: &mut Io<'_>) {
        let Some((_, map)) = self.learned.take() else { return };
        if map.forgotten.contains(&self.incarnation) && self.on(Rule::ForgottenEnds) {
            let text = "this data directory was given up by the operator; it is set aside, and the node begins anew";
            self.failed = true;
            return io.effects.push(Effect::Fatal(StoreError::Forgotten(text.to_owned())));
        }
        if self.map.line != map.line {
            // The others do not hear this node until it tells them.
            self.timers.ping_ms = 0;
            // What was asked of a map of the old line is not done on the new one, whatever its epochs.
            self.consensus.asked.clear();
        }
        if map.epoch == Epoch(1) {
            self.begins = false;
        }
        if self.map.target.is_none() && map.target.is_some() {
            self.consensus.weigh_anew();
        }
        self.history.push(&self.map, &map);
        self.map = map.clone();
        self.meet_nodes();
        self.adopt_rows();
        self.watch_target();
        io.effects.push(Effect::MapChanged(map));
        self.look_who_takes_clocks(io);
        // Who decided it tells the others, if not before; whoever it does not reach hears of it by pings.
        if self.consensus.decided == self.map.epoch {
            let others: Vec<NodeAddr> = self.links.keys().cloned().collect();
            for node in others {
                self.push_map(&node, io);
            }
        }
        self.wake.extend(self.partitions());
        self.consensus.on_new_map(&self.map, self.config.rules);
        self.consensus.adopted_ms = self.now.mono_ms;
        self.answer_asked(io);
        self.look_at_changes(io);
    }

    /// Brings every partition under the map in force; whose row has not changed has only its peers bound.
    pub(super) fn adopt_rows(&mut self) {
        let map = self.map.clone();
        self.parts.resize_with(map.rows.len(), Default::default);
        for (at, row) in map.rows.iter().enumerate() {
            if self.parts[at].version != row.version {
                self.adopt_row(&map, PartitionId(at as u32));
            } else {
                self.parts[at].bind(&map);
            }
        }
    }

    fn adopt_row(&mut self, map: &ClusterMap, partition: PartitionId) {
        let (known, keep) = (self.on(Rule::KeepKnown), self.on(Rule::KeepReplica));
        let (versions, drop_unapplied) = (self.on(Rule::Versions), self.on(Rule::DropUnapplied));
        let begins_anew = self.begins_anew(partition);
        // One that is whole is taken over whatever the version: it is a causally whole state.
        if self.part(partition).filling.as_ref().is_some_and(|fill| fill.whole.is_none()) {
            self.drop_aside(partition);
            self.part_mut(partition).filling = None;
        }
        let (incarnation, address, rules) = (self.incarnation, self.config.address.clone(), self.config.rules);
        let part = self.part_mut(partition);
        let before = (!versions).then(|| part.words.clone());
        let draining: Vec<_> =
            part.own_stays().filter(|own| own.state == PeerState::Leaving).map(|own| own.stay).collect();
        let told = part.told.is_some();
        part.adopt(map, partition, incarnation, &address, rules);
        // Closed after it told what it held as a Leaving peer: everybody has all of that.
        let closed: Vec<_> = draining.into_iter().filter(|stay| told && part.is_closed(*stay)).collect();
        part.drained.extend(closed);
        if let Some(words) = before {
            part.words = words;
        }
        let held_for = part.held_for(known);
        let fresh = part.own_stays().any(|own| {
            own.state == PeerState::Joining && part.replica.as_ref().is_some_and(|r| !r.held_for.contains(&own.stay))
        });
        if let Some(replica) = &mut part.replica {
            if drop_unapplied {
                replica.drop_waiting();
            }
            let stale = !replica.held_for.iter().any(|stay| held_for.contains(stay));
            if held_for.is_empty() || (stale && known) || (fresh && !keep) || begins_anew {
                self.drop_replica(partition);
            }
        }
        self.hold_replica(partition);
    }

    /// Forgets a replica; its records are removed by and by.
    pub(super) fn drop_replica(&mut self, partition: PartitionId) {
        // What is not synced yet is none of the next one's.
        self.raises.retain(|(_, of, ..)| *of != partition);
        let part = self.part_mut(partition);
        part.replica = None;
        part.dropping = true;
        part.filling = None;
        part.logs.clear();
        self.changed.insert(partition);
    }

    /// Makes the replica that the row names, if there is none, and notes what it is held for.
    fn hold_replica(&mut self, partition: PartitionId) {
        let (known, empty_floor) = (self.on(Rule::KeepKnown), self.on(Rule::EmptyFloor));
        let part = self.part_mut(partition);
        let held_for = part.held_for(known);
        if !held_for.is_empty() && !part.dropping {
            let serves = part.own_stays().any(|own| own.state == PeerState::Serving);
            let floor = part.own_stays().filter_map(|own| own.begun_empty).max().filter(|_| empty_floor);
            let new = part.replica.is_none();
            let replica = part.replica.get_or_insert_with(Replica::default);
            let filled = replica.filled || serves;
            let mut floor = replica.floor.max(floor.unwrap_or_default());
            if serves && !replica.filled && empty_floor {
                // Nobody had anything to fill it with, so no floor came either: what was lost before this is not told.
                floor = floor.max(part.version);
            }
            if new || replica.held_for != held_for || replica.filled != filled || replica.floor != floor {
                let closed: Vec<_> = replica.held_for.iter().copied().filter(|s| !held_for.contains(s)).collect();
                replica.held_for = held_for;
                replica.filled = filled;
                replica.floor = floor;
                self.closed_logs.extend(closed.into_iter().map(|stay| (partition, stay)));
                self.changed.insert(partition);
            }
        }
        let changes = self.changed.contains(&partition).then(|| self.current_batch());
        let part = self.part_mut(partition);
        part.keep_logs();
        part.speaks_from = changes.unwrap_or(part.written);
        if part.replica.is_some() {
            self.unspoken.insert(partition);
        } else {
            self.unspoken.remove(&partition);
        }
    }

    /// Says the first word of every peer whose adoption is durable by now. Gives the partitions.
    pub(super) fn speak(&mut self, io: &mut Io<'_>) -> Vec<PartitionId> {
        let barrier = self.on(Rule::Barrier);
        let ready: Vec<PartitionId> =
            self.unspoken.iter().copied().filter(|p| !barrier || self.part(*p).speaks_from <= self.synced).collect();
        let mut reports = Vec::new();
        for &partition in &ready {
            self.unspoken.remove(&partition);
            let part = self.part_mut(partition);
            part.told = part.replica.as_ref().map(|replica| replica.durable.clone());
            part.untold.clear();
            reports.extend(self.reports_of(partition, None));
            self.words_due.insert(partition);
        }
        self.report(reports, io);
        ready
    }

    /// Removes a part of what dropped replicas and closed logs left; makes the replicas that waited for it.
    pub(super) fn tick_rows(&mut self, io: &mut Io<'_>) -> Result<(), StoreError> {
        if !self.fill_budget.may_remove() {
            return Ok(());
        }
        let mut room = REMOVED_A_TICK;
        while let Some((partition, stay)) = self.closed_logs.last().copied() {
            let (from, until) = records::own_log(partition, stay);
            if self.remove_some(io, &from, &until, &mut room)? {
                self.closed_logs.pop();
            } else {
                return Ok(());
            }
        }
        let dropping: Vec<PartitionId> = self.partitions().filter(|p| self.part(*p).dropping).collect();
        for partition in dropping {
            for kind in *b"itlf" {
                let (from, until) = records::range(kind, partition);
                if !self.remove_some(io, &from, &until, &mut room)? {
                    return Ok(());
                }
            }
            self.part_mut(partition).dropping = false;
            self.changed.insert(partition);
            self.hold_replica(partition);
        }
        Ok(())
    }

    /// Removes pairs of a range while there is room; true when none is left.
    fn remove_some(
        &mut self,
        io: &Io<'_>,
        from: &bytes::Bytes,
        until: &bytes::Bytes,
        room: &mut usize,
    ) -> Result<bool, StoreError> {
        let pairs = self.pending.scan(io.store, from, until, *room)?;
        *room -= pairs.len();
        if !pairs.is_empty() {
            self.fill_budget.remove();
        }
        for (key, _) in pairs {
            self.pending.remove(key);
        }
        Ok(*room > 0)
    }

    pub(super) fn write_replica_records(&mut self) {
        for partition in std::mem::take(&mut self.changed) {
            self.parts[partition.0 as usize].written = self.batch + 1;
            let Some(replica) = &self.parts[partition.0 as usize].replica else {
                // Held for nothing: what is left of it is being removed, the record last.
                let key = records::replica_key(partition);
                if self.parts[partition.0 as usize].dropping {
                    self.pending.put(key, records::encode(&records::ReplicaRecord::default()));
                } else {
                    self.pending.remove(key);
                }
                continue;
            };
            let record = records::ReplicaRecord {
                held_for: replica.held_for.clone(),
                filled: replica.filled,
                applied: replica.applied.clone(),
                floor: replica.floor,
                keys: replica.keys,
                tombstones: replica.tombstones,
                bytes: replica.bytes,
            };
            self.pending.put(records::replica_key(partition), records::encode(&record));
        }
    }
}
