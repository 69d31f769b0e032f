//! Fills: the one repair for everything that a stream does not bring.
//!
//! The receiver gives a peer its vector and gets all that the vector does not cover, from a point-in-time view of the
//! peer's replica: items, the peer's vector, floor and clock. The view is sent once it is durable at its source, in
//! chunks numbered within one attempt. The receiver keeps them aside on its disk; when all are durable, one batch
//! takes over items, vector, floor and clock as a whole. So what comes by a fill is a causally whole state.
//!
//! **The first fill** of a peer that joins is merged where it belongs, chunk by chunk, and the last one with the vector:
//! nobody reads there, no stream is applied before, nothing is collected while a peer joins, and a replica whose stay
//! goes is removed as a whole. What an attempt leaves that was given up is merged over by the next at the same source.
//! Another source may lack what the first one gave: before it is asked, as under a new version and after a restart, what is
//! there is removed (see [`Machine::begins_anew`]).
//!
//! Both ends work in slices, one chunk a turn of the driver (`budget`): each sync, each tick and each chunk that is asked
//! on brings the next. What repairs a peer that clients go to comes before what brings a new one its partition.
//!
//! A peer asks when operations have been waiting here for 50 ms and none is ready, or when for a second another peer
//! has had durably what is lacking here. An attempt that hears nothing for a while is given up, for another.

pub(super) mod budget;
pub(super) mod items;
mod take;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::message::{FillChunk, FillEnd, Message};
use super::part::Lack;
use super::records::FillMark;
use super::rules::Rule;
use super::{Io, Machine, records};
use crate::causal::item::Item;
use crate::causal::partition::Replica;
use crate::causal::vector::VersionVector;
use crate::cluster::map::PeerState;
use crate::error::StoreError;
use crate::store::{Read, Store};
use crate::types::{BatchNo, Epoch, Key, NodeAddr, PartitionId, StayId};
use budget::Purpose;
use items::{item_weight, next_items};

/// Operations that wait for longer than this, in milliseconds, with none ready, ask for a fill.
const BLOCKED_MS: u64 = 50;

/// What another peer has had for longer than this, in milliseconds, is asked for.
pub(super) const LACK_MS: u64 = 1_000;

/// An attempt that hears nothing for this long, in milliseconds, is given up.
const SILENT_MS: u64 = 2_000;

/// A source forgets an attempt that nobody has asked on for this long, in milliseconds.
const FORGET_MS: u64 = 10_000;

/// A source that has to wait, for its disk or its share, sends an empty chunk so often, in milliseconds.
const WAITING_MS: u64 = 500;

/// Fills that one node gives, or has been asked for; more must ask again.
const MOST_OUT: usize = 1_024;

/// Views that a source holds open at once for one receiver and purpose; its other fills wait for theirs. While a view is
/// open the store frees nothing that was replaced since, and to free much at once holds up requests.
const MOST_VIEWS: usize = 2;

/// A fill that is being received.
#[derive(Clone, Debug)]
pub(super) struct FillIn {
    pub attempt: u64,
    pub from: StayId,
    heard_ms: u64,
    next: u32,
    end: Option<FillEnd>,
    /// The batch with the last chunk and the mark, once that is here.
    pub whole: Option<BatchNo>,
    /// Chunks that are merged already.
    taken: u32,
    /// The first fill of a peer that joins: chunks are not put aside.
    in_place: bool,
    /// … and one that waits here for its turn. The next is asked for when it is merged.
    pub(super) kept: Option<Vec<(Key, Item)>>,
}

impl FillIn {
    /// A fill that an earlier process had received as a whole.
    pub fn whole(mark: FillMark) -> Self {
        let FillMark { chunks, vector, floor, clock } = mark;
        let end = Some(FillEnd { vector, floor, clock });
        let (in_place, kept) = (false, None);
        Self { attempt: 0, from: StayId(0), heard_ms: 0, next: chunks, end, whole: Some(0), taken: 0, in_place, kept }
    }

    /// The source has been asked for more, and for long has said nothing.
    fn is_silent(&self, now_ms: u64) -> bool {
        self.whole.is_none() && self.kept.is_none() && now_ms >= self.heard_ms + SILENT_MS
    }
}

/// A fill that is being given.
pub(super) struct FillOut {
    to: NodeAddr,
    partition: PartitionId,
    version: Epoch,
    purpose: Purpose,
    attempt: u64,
    /// What the receiver has.
    vector: VersionVector,
    /// The view and what it stands for, once taken.
    view: Option<(Arc<dyn Read>, FillEnd, BatchNo)>,
    /// Where the next chunk begins; `None` before the first.
    from: Option<Bytes>,
    next: u32,
    asked_ms: u64,
    /// When a chunk with items was sent last, and when any was.
    given_ms: u64,
    spoke_ms: u64,
    /// The chunk that the receiver waits for is not sent yet.
    due: bool,
}

impl std::fmt::Debug for FillOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FillOut({} to {}, attempt {}, next {})", self.partition, self.to, self.attempt, self.next)
    }
}

impl Machine {
    // ---- The receiver.

    /// Notes since when a peer has had what is lacking here: the same all the time, not one write after another.
    pub(super) fn note_lack(&mut self, partition: PartitionId, peer: StayId) {
        let since_ms = self.now.mono_ms;
        let part = self.part_mut(partition);
        let Some(replica) = &part.replica else { return };
        if part.lacking.get(&peer).is_some_and(|lack| !replica.applied.dominates(&lack.durable)) {
            return;
        }
        match part.words.of(peer).filter(|word| !replica.applied.dominates(&word.durable)) {
            Some(word) => part.lacking.insert(peer, Lack { since_ms, durable: word.durable.clone() }),
            None => part.lacking.remove(&peer),
        };
    }

    pub(super) fn tick_fills(&mut self, io: &mut Io<'_>) {
        let now = self.now.mono_ms;
        self.fills_out.retain(|fill| now < fill.asked_ms + FORGET_MS);
        for partition in self.partitions() {
            let part = &self.parts[partition.0 as usize];
            let joins = part.own_member().is_some_and(|own| own.state == PeerState::Joining);
            if part.lacking.is_empty() && part.blocked_since_ms.is_none() && !joins {
                self.give_up_silent_fill(partition);
                continue;
            }
            let peers: Vec<StayId> = part.lacking.keys().copied().collect();
            for peer in peers {
                self.note_lack(partition, peer);
            }
            if let Some(source) = self.fill_source(partition) {
                self.ask_fill(partition, source, io);
            }
        }
    }

    /// An attempt that hears nothing, and is needed no more: streams have brought what it was for.
    fn give_up_silent_fill(&mut self, partition: PartitionId) {
        let now = self.now.mono_ms;
        if self.part(partition).filling.as_ref().is_some_and(|fill| fill.is_silent(now)) {
            if self.begins_anew(partition) {
                return self.drop_replica(partition);
            }
            self.drop_aside(partition);
            self.part_mut(partition).filling = None;
        }
    }

    /// The peer to ask now, if it is time to ask.
    fn fill_source(&self, partition: PartitionId) -> Option<StayId> {
        let now = self.now.mono_ms;
        let part = self.part(partition);
        let own = part.own_member()?;
        part.replica.as_ref()?;
        if self.is_full() {
            return None;
        }
        let previous = match &part.filling {
            Some(fill) if !fill.is_silent(now) => return None,
            Some(fill) => Some(fill.from),
            None => None,
        };
        let blocked = self.on(Rule::FillBlocked) && part.blocked_since_ms.is_some_and(|t| now >= t + BLOCKED_MS);
        let usable = |stay: &StayId| {
            part.peer(*stay).is_some_and(|peer| {
                !peer.lost && !peer.gone && self.is_live(&peer.node) && self.is_connected(&peer.node)
            })
        };
        let due = |since: u64| blocked || (self.on(Rule::FillLack) && now >= since + LACK_MS);
        let joins = own.state == PeerState::Joining;
        let nobody = part.serving().next().is_none();
        // A joining peer asks at once: a Serving peer, or one that leaves where nobody serves.
        let gives = |stay: &StayId| {
            part.peer(*stay).is_some_and(|peer| match peer.state {
                PeerState::Serving => true,
                PeerState::Leaving => nobody,
                PeerState::Joining => false,
            })
        };
        let lacking = part.lacking.iter();
        let wanted = lacking.filter(|(stay, lack)| due(lack.since_ms) || (joins && gives(stay))).map(|(stay, _)| *stay);
        let sources: Vec<StayId> = wanted.filter(usable).collect();
        // Partitions differ in whom they ask first, so that no peer gives nearly everything. After a silent attempt,
        // another source where there is one.
        let at = |turn: usize| sources.get((partition.0 as usize + turn).checked_rem(sources.len())?).copied();
        at(0).filter(|first| Some(*first) != previous).or_else(|| at(1))
    }

    /// Whether attempts that are given up, this one or others of the same source, have left items here. Another source
    /// may lack what they are of, and has older ones in their place then, which would lose against them: so the next
    /// attempt begins with nothing.
    pub(super) fn begins_anew(&self, partition: PartitionId) -> bool {
        let clean = self.on(Rule::FillClean) && self.on(Rule::FirstFill);
        clean && self.part(partition).replica.as_ref().is_some_and(Replica::is_half_filled)
    }

    fn ask_fill(&mut self, partition: PartitionId, source: StayId, io: &mut Io<'_>) {
        // What the same source gave before, it has still, or what superseded it.
        let goes_on = self.part(partition).filling.as_ref().is_some_and(|fill| fill.from == source);
        if !goes_on && self.begins_anew(partition) {
            return self.drop_replica(partition);
        }
        let attempt = self.fresh_id();
        let heard_ms = self.now.mono_ms;
        self.drop_aside(partition);
        let part = self.part_mut(partition);
        let (Some(peer), Some(replica)) = (part.peer(source), &part.replica) else { return };
        let (node, version, vector) = (peer.node.clone(), part.version, replica.applied.clone());
        let in_place = !replica.filled && part.own_member().is_some_and(|own| own.state == PeerState::Joining);
        let (from, next, end, whole, taken, kept) = (source, 0, None, None, 0, None);
        part.filling = Some(FillIn { attempt, from, heard_ms, next, end, whole, taken, in_place, kept });
        self.send(&node, Message::FillRequest { partition, version, attempt, vector }, io);
    }

    /// Removes what an earlier attempt left aside.
    pub(super) fn drop_aside(&mut self, partition: PartitionId) {
        let aside = self.part(partition).filling.as_ref().filter(|fill| !fill.in_place);
        let chunks = aside.map_or(0, |fill| fill.next);
        for index in 0..chunks {
            self.pending.remove(records::aside_key(partition, index));
        }
    }

    pub(super) fn on_fill_chunk(
        &mut self,
        from: &NodeAddr,
        chunk: FillChunk,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        let FillChunk { partition, attempt, index, items, end, .. } = chunk;
        let strict = self.on(Rule::FillAttempt);
        let now = self.now.mono_ms;
        if self.is_full() {
            return Ok(());
        }
        let part = self.part_mut(partition);
        let Some(fill) = part.filling.as_mut() else { return Ok(()) };
        let wanted = !strict || (fill.attempt == attempt && fill.next == index);
        // While one waits for its turn, no other was asked for, and none may take its place.
        if !wanted || fill.kept.is_some() || fill.whole.is_some() || (!strict && index > fill.next) {
            return Ok(());
        }
        part.filled_steps += 1;
        fill.heard_ms = now;
        fill.next = fill.next.max(index + 1);
        let (attempt, last) = (fill.attempt, end.is_some());
        fill.end = end.or(fill.end.take());
        if fill.in_place {
            fill.kept = Some(items);
            return self.take_kept(partition, Purpose::Move, io);
        }
        if self.on(Rule::FillAside) && !items.is_empty() {
            self.pending.put(records::aside_key(partition, index), records::encode(&items));
        } else if !self.on(Rule::FillAside) {
            self.take_items(partition, items, io)?;
        }
        if last {
            self.mark_whole(partition);
            let whole = self.current_batch();
            if let Some(fill) = self.part_mut(partition).filling.as_mut() {
                fill.whole = Some(whole);
            }
            if !self.on(Rule::FillDoneSync) {
                while self.take_chunk(partition, Purpose::Repair, io)? {}
            }
        } else {
            self.send(from, Message::FillNext { partition, attempt, index: index + 1 }, io);
        }
        Ok(())
    }

    // ---- The source.

    pub(super) fn on_fill_request(
        &mut self,
        from: &NodeAddr,
        partition: PartitionId,
        attempt: u64,
        vector: VersionVector,
    ) {
        let part = self.part(partition);
        let known = part.peers.iter().any(|peer| peer.node == *from);
        if !known || part.own().is_none() || part.replica.is_none() {
            return;
        }
        let (version, purpose) = (part.version, part.purpose_of(from));
        if self.fills_asked.insert((from.clone(), partition), attempt) == Some(attempt) {
            // The same request again, late: a second view would mix with the first.
            return;
        }
        self.fills_out.retain(|fill| fill.to != *from || fill.partition != partition);
        if self.fills_out.len() >= MOST_OUT {
            return;
        }
        let asked_ms = self.now.mono_ms;
        let to = from.clone();
        let (given_ms, spoke_ms, view, from, next, due) = (asked_ms, asked_ms, None, None, 0, true);
        self.fills_out.push(FillOut {
            to,
            partition,
            version,
            purpose,
            attempt,
            vector,
            view,
            from,
            next,
            asked_ms,
            given_ms,
            spoke_ms,
            due,
        });
    }

    pub(super) fn on_fill_next(
        &mut self,
        from: &NodeAddr,
        partition: PartitionId,
        attempt: u64,
        index: u32,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        let now = self.now.mono_ms;
        let wanted = self.fills_out.iter_mut().find(|fill| {
            fill.to == *from && fill.partition == partition && fill.attempt == attempt && fill.next == index
        });
        if let Some(fill) = wanted {
            fill.asked_ms = now;
            fill.due = true;
        }
        self.send_ready_fills(io)
    }

    /// How many views are held open, by receiver and purpose.
    pub(super) fn open_views(&self) -> BTreeMap<(NodeAddr, Purpose), usize> {
        let mut open = BTreeMap::new();
        for fill in self.fills_out.iter().filter(|fill| fill.view.is_some()) {
            *open.entry((fill.to.clone(), fill.purpose)).or_default() += 1;
        }
        open
    }

    /// Takes the views that were asked for, of what is applied now.
    pub(super) fn take_fill_views(&mut self, store: &dyn Store) {
        let clock = self.clock.peek(self.now.wall_ms);
        let mut open = self.open_views();
        let parts = &self.parts;
        // While a fill is taken over here, there are items that the vector does not cover.
        let takes = |fill: &&mut FillOut| {
            let filling = &parts[fill.partition.0 as usize].filling;
            filling.as_ref().is_some_and(|fill| fill.whole.is_some())
        };
        for fill in self.fills_out.iter_mut().filter(|fill| fill.view.is_none() && !takes(fill)) {
            let open = open.entry((fill.to.clone(), fill.purpose)).or_default();
            if *open == MOST_VIEWS {
                continue;
            }
            *open += 1;
            let Some(replica) = &self.parts[fill.partition.0 as usize].replica else { continue };
            let end = FillEnd { vector: replica.applied.clone(), floor: replica.floor, clock };
            fill.view = Some((store.view(), end, self.batch));
        }
    }

    /// Sends what is due of views that are durable: one chunk with items, of the fill that has waited longest, and empty
    /// ones to those that have waited long.
    pub(super) fn send_ready_fills(&mut self, io: &mut Io<'_>) -> Result<(), StoreError> {
        let durable_first = self.on(Rule::FillDurable);
        let now = self.now.mono_ms;
        let mut done = Vec::new();
        self.fill_budget.fill(now, self.config.fill_bytes_a_second);
        // Each in its turn: who was given something last comes last, repairs before that.
        self.fills_out.sort_by_key(|fill| (fill.purpose, fill.given_ms));
        for (at, fill) in self.fills_out.iter_mut().enumerate() {
            let stale = self.parts[fill.partition.0 as usize].version != fill.version;
            if stale {
                done.push(at);
                continue;
            }
            let durable = |batch: &BatchNo| *batch <= self.synced || !durable_first;
            let open =
                fill.view.as_ref().filter(|(_, _, batch)| durable(batch) && self.fill_budget.may_give(fill.purpose));
            let waits = open.is_none();
            if !fill.due || (waits && now < fill.spoke_ms + WAITING_MS) {
                continue;
            }
            fill.spoke_ms = now;
            let (mut items, mut last) = (Vec::new(), None);
            if let Some((view, end, _)) = open {
                fill.given_ms = now;
                (items, fill.from) = next_items(view.as_ref(), fill.partition, fill.from.as_ref(), &fill.vector)?;
                last = fill.from.is_none().then(|| end.clone());
                self.fill_budget.give(fill.purpose, items.iter().map(|(key, item)| item_weight(key, item)).sum());
            }
            let end = last;
            if end.is_some() {
                done.push(at);
            }
            let (partition, version, attempt, index) = (fill.partition, fill.version, fill.attempt, fill.next);
            fill.due = false;
            fill.next += 1;
            let message = Message::FillChunk(FillChunk { partition, version, attempt, index, items, end });
            io.effects.push(super::message::Effect::Send { to: fill.to.clone(), message });
        }
        for at in done.into_iter().rev() {
            self.fills_out.remove(at);
        }
        Ok(())
    }
}
