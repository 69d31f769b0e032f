//! What a node can tell of itself: the view, whether it can serve, what it holds, whom it knows.

use std::sync::Arc;

use super::{Machine, records};
use crate::causal::item::Item;
use crate::causal::vector::VersionVector;
use crate::cluster::map::{ClusterMap, PeerState};
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{Epoch, Incarnation, Key, NodeAddr, Now, PartitionId, ShardId, StayId};

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
    /// Keys with a tombstone that is not collected yet.
    pub tombstones: u64,
    /// Operations that wait for their dependencies.
    pub unapplied: u64,
    /// Log entries that are not known to be everywhere.
    pub logged: u64,
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
    /// This node's incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The hash of map 0: differs where `VIEW`, `SHARD_COUNT` or `PARTITIONS` do.
    pub fn settings_hash(&self) -> u64 {
        self.settings_hash
    }

    /// The map the node acts under.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// The nodes that are up, this one included, sorted.
    pub fn view(&self, now: Now) -> Vec<NodeAddr> {
        let live = |node: &&NodeAddr| **node == self.config.address || self.detector.is_live(now.mono_ms, node);
        self.map.nodes.keys().filter(live).cloned().collect()
    }

    /// Whether the node can serve; if not, why, in one sentence for the operator.
    ///
    /// # Errors
    /// The reason.
    pub fn readiness(&self, _now: Now) -> Result<(), String> {
        if !self.map.is_born() {
            let reason = self.not_ready_to_be_born();
            return Err(reason.unwrap_or_else(|| "the nodes are agreeing on the first map".to_owned()));
        }
        match self.map.nodes.get(&self.config.address) {
            Some(bound) if *bound == Some(self.incarnation) => Ok(()),
            Some(_) => Err("this node has lost its data directory and is not taken up again yet".to_owned()),
            None => Err("this node is not a member of the store".to_owned()),
        }
    }

    /// How many requests wait, are forwarded, or are writes without enough copies yet.
    pub fn requests_under_way(&self) -> usize {
        self.requests.len() + self.unanswered
    }

    /// What this node holds, partition by partition.
    pub fn partition_status(&self) -> Vec<PartitionStatus> {
        self.partitions().filter_map(|partition| self.status_of(partition)).collect()
    }

    fn status_of(&self, partition: PartitionId) -> Option<PartitionStatus> {
        let part = self.part(partition);
        let (own, replica) = (part.own()?, part.replica.as_ref()?);
        Some(PartitionStatus {
            partition,
            version: part.version,
            stay: own.stay,
            state: own.state,
            applied: replica.applied.clone(),
            durable: replica.durable.clone(),
            stable: part.stable.vector(),
            floor: replica.floor,
            keys: replica.keys,
            tombstones: replica.tombstones,
            unapplied: replica.waiting() as u64,
            logged: replica.applied.get(own.stay).saturating_sub(part.truncated),
        })
    }

    /// The item of a key as the next step would find it, the changes that no batch has taken yet included.
    ///
    /// # Errors
    /// What the store fails with.
    pub fn item(&self, store: &dyn Store, key: &Key) -> Result<Option<Item>, StoreError> {
        if !self.map.is_born() {
            return Ok(None);
        }
        let stored = records::item_key(key.partition(self.map.partitions()), key);
        self.pending.get(store, &stored)?.map(|bytes| records::decode_item(&bytes)).transpose()
    }

    /// What this node knows of the others.
    pub fn peer_status(&self, now: Now) -> Vec<PeerStatus> {
        self.links
            .iter()
            .map(|(node, link)| PeerStatus {
                node: node.clone(),
                incarnation: link.incarnation,
                up: self.detector.is_live(now.mono_ms, node),
                shard: self.map.shard_of(node),
                lag: self.lag(node),
            })
            .collect()
    }

    fn lag(&self, node: &NodeAddr) -> u64 {
        let behind = |partition: PartitionId| {
            let part = self.part(partition);
            let own = part.own()?.stay;
            let durable = part.replica.as_ref()?.durable.get(own);
            let peer = part.receivers().find(|peer| peer.node == *node)?;
            Some(durable.saturating_sub(part.words.durable(peer.stay, own)))
        };
        self.partitions().filter_map(behind).sum()
    }
}
