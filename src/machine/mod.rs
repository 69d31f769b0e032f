//! The whole node without IO: one `step(now, input, store, &mut effects)`.
//!
//! A machine is a function of its state, the time and what it is given. It reads the store, gathers changes and says
//! what is to be done; whoever drives it (the node's loop, or the simulator) applies, syncs, sends and answers:
//!
//! 1. [`Machine::step`] with one [`Input`] after another. Changes are gathered, and later steps see them.
//! 2. [`Machine::flush`] applies what was gathered as one atomic batch and gives its number.
//! 3. When the store has synced that batch, the driver says so with [`Input::Synced`]. Everything that must be true of
//!    the disk first (operations leaving, answers, reports, promises of an acceptor) waits for that.
//!
//! The protocol is the one of `docs/architecture.md`, rule by rule; where each part stands:
//! [`serve`](self) reads and writes, `route` where a request goes, `replicate` streams and reports, `fill` the one
//! repair, `gossip` stability, `collect` tombstones and logs, `liveness` pings and the view, `birth` the first map,
//! `recovery` the one after a majority of voters was lost.
//!
//! Deliberately absent: threads, sockets, files, clocks, random numbers, and any map whose order is not its keys'.
//! An error of the store ends a machine ([`Effect::Fatal`]): what is durable is then unknown.

pub mod agreement;
mod asked;
mod birth;
mod changes;
mod clocks;
mod collect;
mod consensus;
mod count;
mod early;
mod fill;
mod gossip;
mod liveness;
mod losses;
mod maps;
pub mod message;
mod open;
mod part;
mod pending;
mod progress;
pub mod records;
mod recovery;
mod replicate;
mod report;
mod requests;
mod route;
mod rows;
pub mod rules;
mod serve;
pub mod sign;
mod status;
mod warnings;

#[cfg(test)]
mod tests;

pub use status::{ClusterStatus, NodeStatus, PartitionStatus, PeerStatus, ReshardState, ReshardStatus};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::causal::clock::Clock;
use crate::cluster::delta::History;
use crate::cluster::detector::Detector;
use crate::cluster::map::ClusterMap;
use crate::cluster::reconcile::rules::ReconcileRules;
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{BatchNo, Incarnation, NodeAddr, Now, PartitionId, Seq, StayId, Timestamp};
use changes::Changing;
use clocks::Telling;
use consensus::Consensus;
use early::Early;
use fill::FillOut;
use fill::budget::Budget;
use liveness::Link;
use losses::Exposed;
use message::{Effect, Input};
use part::Part;
use pending::{Io, Pending};
use progress::Progress;
use recovery::Recovery;
use requests::Requests;
use rules::{Rule, Rules};

/// How often [`Input::Tick`] is to be given, in milliseconds.
pub const TICK_MS: u64 = 10;

/// How often all that waits is tried again, in milliseconds.
const RETRY_MS: u64 = 50;

/// How long to wait, in milliseconds, before a store that was full is asked again.
const FULL_PAUSE_MS: u64 = 100;

/// What work is for that no request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// Copies of what the layout in force has: those that are lacking, and those that nobody needs any more; and a new
    /// layout, too, while a node is not heard that has copies.
    Copies,
    /// A new layout, that an operator asked for, with all copies there.
    Layout,
}

/// What a machine is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's address.
    pub address: NodeAddr,
    /// The nodes to start with, this one included.
    pub view: Vec<NodeAddr>,
    /// The number of shards to start with; `None` on a node that joins a running store.
    pub shard_count: Option<u32>,
    /// Into how many parts the keys are divided, at the birth of a store.
    pub partitions: u32,
    /// Nodes that hold a write durably before it is acknowledged.
    pub write_copies: u32,
    /// How many requests may wait at once; more are refused.
    pub max_waiting: usize,
    /// Bytes of operations that wait for their dependencies, over all partitions.
    pub max_unapplied_bytes: usize,
    /// Random bytes from outside: ids that must be unique are drawn from these.
    pub seed: [u8; 32],
    /// The clauses in force; [`Rules::all`] but in the simulator.
    pub rules: Rules,
    /// The clauses of reconciliation in force; all but in the simulator.
    pub reconcile_rules: ReconcileRules,
    /// Bytes of fills that this node gives a second, at the most.
    pub fill_bytes_a_second: u64,
    /// How long a node with an empty directory listens before it founds a store, in milliseconds: those of a store that
    /// it belonged to dial it meanwhile.
    pub listen_ms: u64,
}

/// One node.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    incarnation: Incarnation,
    opened_ms: u64,
    /// Nobody has shown this process yet that it is in the view.
    begins: bool,
    /// Map 0, which the settings alone give.
    zero: Arc<ClusterMap>,
    settings_hash: u64,
    /// The map this node acts under: durable here.
    map: Arc<ClusterMap>,
    /// A newer map that is on its way to the disk.
    learned: Option<(BatchNo, Arc<ClusterMap>)>,
    /// How this node came to its map, for those that are behind.
    history: History,
    parts: Vec<Part>,
    clock: Clock,
    /// Whether the wall clock is ahead of every peer's, and not believed.
    clock_ahead: bool,
    /// This node has had somebody to compare its wall clock with, or has waited for one, since its start or a leap.
    clock_compared: bool,
    /// Peers' clocks that were asked for before that tell nothing, in monotonic milliseconds.
    compare_from_ms: u64,
    telling: Telling,
    /// What was found wrong with the settings when they were looked at last.
    logged: BTreeSet<String>,
    detector: Detector,
    links: BTreeMap<NodeAddr, Link>,
    requests: Requests,
    /// Counts that are gathered from several nodes.
    gathers: BTreeMap<u64, count::Gather>,
    /// How many own writes wait for their copies.
    unanswered: usize,
    consensus: Consensus,
    recovery: Recovery,
    /// The node that the operator leaves out of the birth.
    born_without: Option<NodeAddr>,
    /// Writes that one disk alone holds.
    exposed: Exposed,
    /// Changes of the map that were asked of this node.
    changes: Vec<Changing>,
    /// Where the change of the layout stands.
    progress: Progress,
    fills_out: Vec<FillOut>,
    fill_budget: Budget,
    /// The attempt that each peer asked for last: one request, and one view.
    fills_asked: BTreeMap<(NodeAddr, PartitionId), u64>,
    /// Partitions whose waiting requests are to be tried again.
    wake: BTreeSet<PartitionId>,
    /// Partitions whose peer here has not said its first word under the version in force.
    unspoken: BTreeSet<PartitionId>,
    /// What was said under maps that are not in force here yet.
    early: Early,
    /// Partitions of which the voters are to be told.
    words_due: BTreeSet<PartitionId>,
    /// Logs of stays that are held no more, to be removed.
    closed_logs: Vec<(PartitionId, StayId)>,
    /// Changes for the next batch.
    pending: Pending,
    /// Replicas whose record changes with the next batch.
    changed: BTreeSet<PartitionId>,
    /// The last batch that was applied, and the last that is durable.
    batch: BatchNo,
    synced: BatchNo,
    /// What becomes durable with which batch, in order of batch.
    raises: VecDeque<(BatchNo, PartitionId, StayId, Seq)>,
    ceilings: VecDeque<(BatchNo, Timestamp)>,
    held: VecDeque<(BatchNo, Effect)>,
    /// Partitions whose stability has news for the others, and what of them.
    gossip: BTreeMap<PartitionId, BTreeSet<StayId>>,
    timers: Timers,
    /// The driver says that there is little room: nothing but deletes is taken.
    disk_full: bool,
    /// The store has refused what is pending, and is asked again then, in monotonic milliseconds.
    store_full: Option<u64>,
    ids: u64,
    now: Now,
    failed: bool,
}

/// When the periodic duties are due, in monotonic milliseconds.
#[derive(Debug, Default)]
struct Timers {
    ping_ms: u64,
    gossip_ms: u64,
    refresh_ms: u64,
    collect_ms: u64,
    admit_ms: u64,
    retry_ms: u64,
    /// Where the rotating duties go on.
    refresh_at: usize,
    collect_at: usize,
}

impl Machine {
    /// Takes one input. Changes to the store are gathered until [`Machine::flush`]; effects are appended.
    pub fn step(&mut self, now: Now, input: Input, store: &dyn Store, effects: &mut Vec<Effect>) {
        if self.failed {
            return;
        }
        self.take_time(now);
        self.fill_budget.step(self.now.mono_ms);
        let mut io = Io { store, effects };
        let done = self.take(input, &mut io).and_then(|()| self.settle(&mut io));
        if let Err(error) = done {
            self.failed = true;
            effects.push(Effect::Fatal(error));
        }
    }

    /// Applies what the steps since the last flush gathered, as one batch. Gives its number, to be told back with
    /// [`Input::Synced`] once it is durable; `None` when there was nothing to apply, or no room: then what was gathered
    /// stays, reads go on, nothing new is taken, and a later flush tries again.
    pub fn flush(&mut self, store: &dyn Store, effects: &mut Vec<Effect>) -> Option<BatchNo> {
        self.fill_budget.begin_turn();
        if self.failed || self.store_full.is_some_and(|again_ms| self.now.mono_ms < again_ms) {
            return None;
        }
        if !self.pending.is_empty() || !self.changed.is_empty() {
            // What was merged may have carried the clock past its ceiling: no batch with a timestamp survives a crash
            // without a ceiling above it.
            self.keep_ceiling();
        }
        self.write_replica_records();
        let mut flushed = None;
        if !self.pending.is_empty() {
            match store.apply(self.pending.batch()) {
                Ok(()) => {}
                Err(StoreError::Full(why)) => {
                    if self.store_full.is_none() {
                        effects.push(Effect::Warn(format!("nothing more is written, {why}")));
                    }
                    self.store_full = Some(self.now.mono_ms + FULL_PAUSE_MS);
                    return None;
                }
                Err(error) => {
                    self.failed = true;
                    effects.push(Effect::Fatal(error));
                    return None;
                }
            }
            self.pending.clear();
            self.store_full = None;
            self.batch += 1;
            flushed = Some(self.batch);
        }
        // Views are of what is applied, so they are taken here.
        self.take_fill_views(store);
        flushed
    }

    /// What for, if the steps since the last flush did a slice of work that no request waits for: fills, given and taken
    /// over, and what dropped replicas left.
    pub fn has_worked(&self) -> Option<Spare> {
        self.fill_budget.has_worked().then(|| match self.map.target {
            Some(_) if !self.lacks_copies() => Spare::Layout,
            Some(_) | None => Spare::Copies,
        })
    }

    /// No such work before that, in monotonic milliseconds: a driver that times its turns keeps it to a share of them.
    pub fn rest(&mut self, until_ms: u64) {
        self.fill_budget.rest(until_ms);
    }

    /// Bytes that wait for the next batch, at least: a driver flushes before they are many, for whatever comes after them
    /// waits until they are written, and what is in the batch until all of it is durable.
    pub fn gathered_bytes(&self) -> usize {
        self.pending.bytes()
    }

    fn take(&mut self, input: Input, io: &mut Io<'_>) -> Result<(), StoreError> {
        match input {
            Input::Tick => self.tick(io),
            Input::Synced(batch) => self.on_synced(batch, io),
            Input::Change { id, wanted, budget_ms } => {
                self.begin_change(Some(id), wanted, budget_ms, io);
                Ok(())
            }
            Input::Request { id, request, budget_ms } => self.on_request(id, request, budget_ms, io),
            Input::Message { from, incarnation, message } => self.on_message(&from, incarnation, message, io),
            Input::Connected { peer, incarnation } => {
                self.on_connected(&peer, incarnation, io);
                Ok(())
            }
            Input::Accepted { peer } => {
                self.on_accepted(&peer, io);
                Ok(())
            }
            Input::Disconnected { peer, refused } => {
                self.on_disconnected(&peer, refused, io);
                Ok(())
            }
            Input::OtherBranch { peer, standing } => {
                self.on_other_branch(&peer, standing, io);
                Ok(())
            }
            Input::TurnedAway { peer, why } => {
                self.on_turned_away(&peer, why);
                Ok(())
            }
            Input::NotSent { id } => {
                self.on_not_sent(id, io);
                Ok(())
            }
            Input::DiskFull(full) => {
                self.disk_full = full;
                Ok(())
            }
        }
    }

    /// Tries again what waited for something that this step may have brought.
    fn settle(&mut self, io: &mut Io<'_>) -> Result<(), StoreError> {
        while let Some(partition) = self.wake.pop_first() {
            self.answer_writes(partition, io);
            self.retry(Some(partition), io)?;
            self.answer_writes(partition, io);
        }
        Ok(())
    }

    fn tick(&mut self, io: &mut Io<'_>) -> Result<(), StoreError> {
        self.keep_ceiling();
        self.expire_requests(io);
        self.tick_liveness(io);
        self.tick_birth(io);
        self.tick_consensus(io);
        self.tick_changes(io);
        self.tick_rows(io)?;
        self.tick_streams(io)?;
        self.tick_fills(io);
        self.finish_fills(io)?;
        self.send_ready_fills(io)?;
        self.tick_gossip(io);
        self.tick_collect(io)?;
        // Time alone can bring what a request waits for: a peer that is not waited for any more, a route tried again.
        if self.now.mono_ms >= self.timers.retry_ms {
            self.timers.retry_ms = self.now.mono_ms + RETRY_MS;
            self.retry(None, io)?;
            self.wake.extend(self.requests.waited_for().into_iter().flatten());
        }
        Ok(())
    }

    fn on_synced(&mut self, batch: BatchNo, io: &mut Io<'_>) -> Result<(), StoreError> {
        self.synced = self.synced.max(batch);
        let mut grown = BTreeSet::new();
        while let Some(&(at, partition, stay, seq)) = self.raises.front() {
            if at > self.synced {
                break;
            }
            self.raises.pop_front();
            let part = &mut self.parts[partition.0 as usize];
            if let Some(replica) = &mut part.replica
                && replica.synced(stay, seq)
            {
                part.untold.insert(stay);
                part.filled_steps += 1;
                self.words_due.insert(partition);
                grown.insert(partition);
            }
        }
        while let Some(&(at, ceiling)) = self.ceilings.front() {
            if at > self.synced {
                break;
            }
            self.ceilings.pop_front();
            self.clock.ceiling_durable(ceiling);
            self.wake.extend(self.requests.waited_for().into_iter().flatten());
        }
        while self.held.front().is_some_and(|held| held.0 <= self.synced) {
            if let Some((_, effect)) = self.held.pop_front() {
                self.release(effect, io);
            }
        }
        self.adopt_learned(io);
        self.hear_early(io)?;
        // What peers do not hold yet goes out under the new version, before they say what they hold.
        grown.extend(self.speak(io));
        self.send_durable(&grown, io)?;
        self.finish_fills(io)?;
        self.send_ready_fills(io)?;
        self.wake.extend(grown);
        Ok(())
    }

    // ---- What the other parts share.

    /// The number of the batch that holds everything up to now.
    fn current_batch(&self) -> BatchNo {
        if self.pending.is_empty() && self.changed.is_empty() { self.batch } else { self.batch + 1 }
    }

    /// Does this once everything up to now is durable.
    fn after_sync(&mut self, effect: Effect, io: &mut Io<'_>) {
        let batch = self.current_batch();
        if batch <= self.synced { self.release(effect, io) } else { self.held.push_back((batch, effect)) }
    }

    /// What this node has to say to itself never leaves it.
    fn release(&mut self, effect: Effect, io: &mut Io<'_>) {
        match effect {
            Effect::Send { to, message: message::Message::Paxos(paxos) } if to == self.config.address => {
                self.on_paxos(&to, self.incarnation, paxos, io);
            }
            other => io.effects.push(other),
        }
    }

    fn part(&self, partition: PartitionId) -> &Part {
        &self.parts[partition.0 as usize]
    }

    fn part_mut(&mut self, partition: PartitionId) -> &mut Part {
        &mut self.parts[partition.0 as usize]
    }

    fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.parts.len() as u32).map(PartitionId)
    }

    fn on(&self, rule: Rule) -> bool {
        self.config.rules.on(rule)
    }

    fn read(&self, io: &Io<'_>, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.pending.get(io.store, key)
    }

    /// True while there is no room for more than deletes.
    fn is_full(&self) -> bool {
        self.disk_full || self.store_full.is_some()
    }

    fn fresh_id(&mut self) -> u64 {
        self.ids = self.ids.wrapping_add(1);
        self.ids
    }

    /// Keeps a ceiling ahead of the clock, whatever raised it.
    fn keep_ceiling(&mut self) {
        if let Some(ceiling) = self.clock.ceiling_wanted(self.now.wall_ms) {
            self.clock.ceiling_pending(ceiling);
            self.pending.put(records::meta_key("ceiling"), records::encode(&ceiling));
            self.ceilings.push_back((self.current_batch(), ceiling));
        }
    }

    fn send(&self, to: &NodeAddr, message: message::Message, io: &mut Io<'_>) {
        io.effects.push(Effect::Send { to: to.clone(), message });
    }
}
