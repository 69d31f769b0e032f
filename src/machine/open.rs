//! The start of a machine: what its store holds, taken up again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::clocks::Telling;
use super::consensus::Consensus;
use super::early::Early;
use super::fill::FillIn;
use super::fill::budget::Budget;
use super::liveness::Link;
use super::losses::Exposed;
use super::pending::Pending;
use super::progress::Progress;
use super::records::{self, Identity, ReplicaRecord};
use super::recovery::Recovery;
use super::requests::Requests;
use super::rules::Rule;
use super::{Config, Machine, Timers};
use crate::causal::clock::Clock;
use crate::causal::partition::Replica;
use crate::cluster::delta::History;
use crate::cluster::detector::Detector;
use crate::cluster::layout;
use crate::cluster::map::ClusterMap;
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{Incarnation, NodeAddr, Now, PartitionId, Timestamp};

impl Machine {
    /// Opens a node on what its store holds, which must be synced; a new directory gets a new incarnation.
    ///
    /// # Errors
    /// What the store fails with, and [`StoreError::Damaged`] for records that do not decode or a directory that
    /// belongs to another address.
    pub fn open(config: Config, store: &dyn Store, now: Now) -> Result<Self, StoreError> {
        let zero = Arc::new(layout::map_zero(&config.view, config.shard_count.unwrap_or(1), config.partitions));
        let (incarnation, new) = identity(&config, store)?;
        let map = map_of(&config, store, &zero, incarnation)?;
        let ceiling = if config.rules.on(Rule::Ceiling) { meta(store, "ceiling")? } else { None };
        let acceptor = meta(store, "acceptor")?.unwrap_or_default();
        let nodes = zero.nodes.keys().chain(map.nodes.keys());
        let others: BTreeSet<NodeAddr> = nodes.filter(|node| **node != config.address).cloned().collect();

        let mut machine = Self {
            incarnation,
            opened_ms: now.mono_ms,
            begins: true,
            settings_hash: zero.hash() ^ u64::from(config.shard_count.is_none()),
            zero,
            map,
            learned: None,
            history: History::default(),
            parts: Vec::new(),
            clock: Clock::new(ceiling.unwrap_or(Timestamp(0))),
            clock_ahead: false,
            clock_compared: others.is_empty(),
            compare_from_ms: now.mono_ms,
            telling: Telling::stored(meta(store, "clocks")?),
            logged: Default::default(),
            detector: Detector::new(now.mono_ms, others.iter().cloned()),
            links: others.into_iter().map(|node| (node, Link::default())).collect(),
            requests: Requests::new(derive(&config.seed, b"requests") as u64),
            gathers: BTreeMap::new(),
            unanswered: 0,
            consensus: Consensus::new(acceptor),
            recovery: Recovery::default(),
            born_without: None,
            exposed: Exposed::default(),
            changes: Vec::new(),
            progress: Progress::default(),
            fills_out: Vec::new(),
            fills_asked: BTreeMap::new(),
            wake: BTreeSet::new(),
            unspoken: BTreeSet::new(),
            words_due: BTreeSet::new(),
            early: Early::default(),
            closed_logs: Vec::new(),
            fill_budget: Budget::default(),
            pending: Pending::default(),
            changed: BTreeSet::new(),
            batch: 0,
            synced: 0,
            raises: VecDeque::new(),
            ceilings: VecDeque::new(),
            held: VecDeque::new(),
            gossip: BTreeMap::new(),
            timers: Timers::default(),
            disk_full: false,
            store_full: None,
            ids: derive(&config.seed, b"attempts") as u64,
            now,
            failed: false,
            config,
        };
        if let Some(identity) = new {
            machine.pending.put(records::meta_key("identity"), records::encode(&identity));
        }
        machine.clock.set_logical_only(!machine.clock_compared);
        machine.take_up_replicas(store)?;
        machine.watch_target();
        Ok(machine)
    }

    /// Replicas as they were left; what a fill left aside is dropped.
    fn take_up_replicas(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let count = self.map.rows.len();
        self.parts.resize_with(count, Default::default);
        for at in 0..count {
            let partition = PartitionId(at as u32);
            if let Some(bytes) = store.get(&records::replica_key(partition))? {
                let record: ReplicaRecord = records::decode("a replica's record", &bytes)?;
                if record.held_for.is_empty() {
                    self.parts[at].dropping = true;
                    continue;
                }
                let mut replica = Replica::default();
                replica.held_for = record.held_for;
                replica.durable = record.applied.clone();
                replica.applied = record.applied;
                replica.floor = record.floor;
                replica.filled = record.filled;
                (replica.keys, replica.tombstones, replica.bytes) = (record.keys, record.tombstones, record.bytes);
                if replica.is_half_filled() && self.on(Rule::FillClean) && self.on(Rule::FirstFill) {
                    // Of a source that nobody knows any more: see `begins_anew`.
                    self.parts[at].dropping = true;
                    self.changed.insert(partition);
                    continue;
                }
                self.parts[at].replica = Some(replica);
            }
            self.take_up_fill(partition, store)?;
        }
        self.adopt_rows();
        for at in 0..count {
            self.take_up_logs(PartitionId(at as u32), store)?;
        }
        Ok(())
    }

    /// A fill that was whole is taken over; the parts of another are removed.
    fn take_up_fill(&mut self, partition: PartitionId, store: &dyn Store) -> Result<(), StoreError> {
        if let Some(mark) = store.get(&records::aside_key(partition, records::MARK))? {
            let mark = records::decode("the mark of a fill", &mark)?;
            self.parts[partition.0 as usize].filling = Some(FillIn::whole(mark));
            return Ok(());
        }
        let (from, until) = records::range(b'f', partition);
        for (key, _) in store.scan(&from, &until, usize::MAX)? {
            self.pending.remove(key);
        }
        Ok(())
    }

    /// Where the logs begin. What is there of a log that was closed, and not removed before the node ended, is closed again.
    fn take_up_logs(&mut self, partition: PartitionId, store: &dyn Store) -> Result<(), StoreError> {
        let part = &mut self.parts[partition.0 as usize];
        let Some(replica) = &part.replica else { return Ok(()) };
        let mut begins = BTreeMap::new();
        let (mut from, end) = records::range(b'l', partition);
        while let Some((key, _)) = store.scan(&from, &end, 1)?.first() {
            let first = records::log_dot(key)?;
            begins.insert(first.stay, first.seq);
            from = records::own_log(partition, first.stay).1;
        }
        let now = self.now.mono_ms;
        for (own, log) in &mut part.logs {
            let durable = replica.durable.get(*own);
            log.truncated = begins.remove(own).map_or(durable, |first| first.saturating_sub(1));
            // What is not in the log any more is everywhere. For the rest the peers have as long as for a new write.
            part.ackable.insert(*own, log.truncated);
            if log.truncated < durable {
                log.streams.values_mut().for_each(|progress| progress.behind_since_ms = Some(now));
            }
        }
        self.closed_logs.extend(begins.into_keys().map(|stay| (partition, stay)));
        Ok(())
    }
}

/// The incarnation of this directory, and the record to write when it is new.
fn identity(config: &Config, store: &dyn Store) -> Result<(Incarnation, Option<Identity>), StoreError> {
    match meta::<Identity>(store, "identity")? {
        Some(found) if found.address == config.address => Ok((found.incarnation, None)),
        Some(found) => Err(StoreError::Damaged(format!(
            "this data directory belongs to {}, not to {}; start the node under its own address, or with an empty \
             directory",
            found.address, config.address
        ))),
        None => {
            let incarnation = Incarnation(derive(&config.seed, b"incarnation").max(1));
            let identity = Identity { incarnation, address: config.address.clone() };
            Ok((incarnation, Some(identity)))
        }
    }
}

/// The newest map this directory knows, or map zero; none for a directory that the operator gave up.
fn map_of(
    config: &Config,
    store: &dyn Store,
    zero: &Arc<ClusterMap>,
    incarnation: Incarnation,
) -> Result<Arc<ClusterMap>, StoreError> {
    let map = meta(store, "map")?.map_or_else(|| zero.clone(), Arc::new);
    if map.forgotten.contains(&incarnation) && config.rules.on(Rule::ForgottenEnds) {
        return Err(StoreError::Forgotten("this data directory was given up by the operator".to_owned()));
    }
    Ok(map)
}

fn meta<T: serde::de::DeserializeOwned>(store: &dyn Store, name: &str) -> Result<Option<T>, StoreError> {
    match store.get(&records::meta_key(name))? {
        Some(bytes) => records::decode(name, &bytes).map(Some),
        None => Ok(None),
    }
}

/// Draws an id from the seed, another for each label; nothing of the seed can be told from it.
pub(super) fn derive(seed: &[u8; 32], label: &[u8]) -> u128 {
    let (key, rest) = seed.split_at(16);
    let mut half = [0; 16];
    half.copy_from_slice(key);
    let mut hasher = SipHasher24::new_with_key(&half);
    hasher.write(rest);
    hasher.write(label);
    u128::from(hasher.finish128())
}
