//! The whole node without IO: one `step(now, input, store, &mut effects)`.

pub mod message;
pub mod rules;

use std::sync::Arc;

use crate::causal::vector::VersionVector;
use crate::cluster::map::{ClusterMap, PeerState};
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{BatchNo, Epoch, Incarnation, NodeAddr, Now, PartitionId, ShardId, StayId};
use message::{Effect, Input};
use rules::Rules;

/// How often [`Input::Tick`] is to be given, in milliseconds.
pub const TICK_MS: u64 = 10;

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
}

/// One node.
#[derive(Debug)]
pub struct Machine {
    map: Arc<ClusterMap>,
}

/// What a node holds of one partition, for inspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// The version of its row.
    pub version: Epoch,
    /// This node's stay.
    pub stay: StayId,
    /// What this node does for it.
    pub state: PeerState,
    /// What is applied here.
    pub applied: VersionVector,
    /// What is durable here.
    pub durable: VersionVector,
    /// What is known to be stable.
    pub stable: VersionVector,
    /// The floor of contexts that read nothing.
    pub floor: Epoch,
    /// Keys with a value.
    pub keys: u64,
    /// Operations that wait for their dependencies.
    pub unapplied: u64,
}

/// What a node knows of another, for inspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its address.
    pub node: NodeAddr,
    /// The incarnation of its present connection.
    pub incarnation: Option<Incarnation>,
    /// Whether it is in this node's view.
    pub up: bool,
    /// Its shard.
    pub shard: Option<ShardId>,
    /// Operations of this node that it has not yet acknowledged as durable.
    pub lag: u64,
}

impl Machine {
    /// Opens a node on what its store holds: a new directory gets a new incarnation.
    ///
    /// # Errors
    /// What the store fails with, and [`StoreError::Damaged`] for records that do not decode or a directory that
    /// belongs to another address.
    pub fn open(config: Config, store: &dyn Store, now: Now) -> Result<Self, StoreError> {
        let _ = (config, store, now);
        Err(StoreError::Failed("skeleton".into()))
    }

    /// Takes one input. Changes to the store are gathered until [`Machine::flush`]; effects are appended.
    pub fn step(&mut self, now: Now, input: Input, store: &dyn Store, effects: &mut Vec<Effect>) {
        let _ = (now, input, store, effects);
    }

    /// Applies what the steps since the last flush gathered, as one batch. Gives its number, to be told back with
    /// [`Input::Synced`] once it is durable; `None` when there was nothing to apply.
    pub fn flush(&mut self, store: &dyn Store, effects: &mut Vec<Effect>) -> Option<BatchNo> {
        let _ = (store, effects);
        None
    }

    /// This node's incarnation.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(0)
    }

    /// The map the node acts under.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// The nodes that are up, this one included, sorted.
    pub fn view(&self, now: Now) -> Vec<NodeAddr> {
        let _ = now;
        Vec::new()
    }

    /// Whether the node can serve; if not, why, in one sentence for the operator.
    pub fn readiness(&self, now: Now) -> Result<(), String> {
        let _ = now;
        Ok(())
    }

    /// What this node holds, partition by partition.
    pub fn partition_status(&self) -> Vec<PartitionStatus> {
        Vec::new()
    }

    /// What this node knows of the others.
    pub fn peer_status(&self, now: Now) -> Vec<PeerStatus> {
        let _ = now;
        Vec::new()
    }
}
