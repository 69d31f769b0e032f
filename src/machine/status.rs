//! What a node can tell of itself: the view, whether it can serve, what it holds, whom it knows.

use std::sync::Arc;

use super::{Machine, records};
use crate::causal::item::Item;
use crate::causal::vector::VersionVector;
use crate::cluster::map::{ClusterMap, PeerState};
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{ClusterId, Epoch, Incarnation, Key, NodeAddr, Now, PartitionId, ShardId, StayId};

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

/// How far a change of the layout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReshardState {
    /// There was none since this process began.
    None,
    /// There is a target.
    Running,
    /// The last one reached its target.
    Done,
    /// The last one was undone, by an operator or for want of nodes.
    Cancelled,
}

/// Where the running change of the layout stands, or how the last one ended, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReshardStatus {
    /// How far it is.
    pub state: ReshardState,
    /// The number of shards that is wanted.
    pub shards: u32,
    /// Partitions in all.
    pub partitions: u32,
    /// Partitions that get a node that did not serve them.
    pub to_move: u32,
    /// Of these, those with such a node being filled.
    pub joining: u32,
    /// Of these, those that all such nodes serve.
    pub moved: u32,
    /// Keys copied to nodes, and to be copied in all, roughly.
    pub keys: (u64, u64),
    /// Bytes copied to nodes, and to be copied in all, roughly.
    pub bytes: (u64, u64),
    /// How long it has gone on, or took, in milliseconds.
    pub elapsed_ms: u64,
    /// Nodes out of reach without which it does not get on.
    pub waiting_for: Vec<NodeAddr>,
}

/// What a node knows of one of the map's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its address.
    pub node: NodeAddr,
    /// Whether it answers.
    pub up: bool,
    /// Whether the operator took it out of the view.
    pub out: bool,
    /// Its shard.
    pub shard: Option<ShardId>,
    /// Operations of this node that it has not yet acknowledged as durable.
    pub lag: u64,
    /// Whether it takes part in deciding the next map.
    pub voter: bool,
}

/// The whole cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The node's address.
    pub node: NodeAddr,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The store; zero before its birth.
    pub cluster_id: ClusterId,
    /// The epoch of the map the node acts under.
    pub epoch: Epoch,
    /// The node's shard.
    pub shard: Option<ShardId>,
    /// Keys with a value that the node serves.
    pub keys: u64,
    /// The map's nodes, sorted.
    pub nodes: Vec<NodeStatus>,
    /// What an operator should know, a sentence each.
    pub warnings: Vec<String>,
    /// Where a change of the layout stands.
    pub reshard: ReshardStatus,
}

impl ReshardStatus {
    /// That of a store of which the layout was not changed.
    pub fn none(map: &ClusterMap) -> Self {
        Self {
            state: ReshardState::None,
            shards: map.layout.shards.len() as u32,
            partitions: map.partitions(),
            to_move: 0,
            joining: 0,
            moved: 0,
            keys: (0, 0),
            bytes: (0, 0),
            elapsed_ms: 0,
            waiting_for: Vec::new(),
        }
    }
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

    /// The nodes that are up and were not taken out, this one included, sorted.
    pub fn view(&self, now: Now) -> Vec<NodeAddr> {
        self.map.present().filter(|node| self.is_up(now, node)).cloned().collect()
    }

    fn is_up(&self, now: Now, node: &NodeAddr) -> bool {
        *node == self.config.address || self.detector.is_live(now.mono_ms, node)
    }

    /// Whether the node can serve; if not, why, in one sentence for the operator.
    ///
    /// # Errors
    /// The reason.
    pub fn readiness(&self, now: Now) -> Result<(), String> {
        if !self.map.is_born() {
            let reason = self.not_ready_to_be_born(None);
            return Err(reason.unwrap_or_else(|| "the nodes are agreeing on the first map".to_owned()));
        }
        if self.map.out.contains(&self.config.address) {
            return Err("this node was taken out of the view; it forwards, and holds no keys".to_owned());
        }
        let (_, newer) = self.on_other_lines(now.mono_ms);
        if !newer.is_empty() {
            return Err(format!(
                "{} went on without this node by a recovery by force, and a majority of the voters before it goes on \
                 here; keep one side, and start the nodes of the other with empty data directories",
                newer.into_iter().map(NodeAddr::as_str).collect::<Vec<_>>().join(", ")
            ));
        }
        match self.map.nodes.get(&self.config.address) {
            Some(bound) if *bound == Some(self.incarnation) && self.tells_clocks().is_none() => {
                Err("this node waits to hear what builds the others have".to_owned())
            }
            Some(bound) if *bound == Some(self.incarnation) => Ok(()),
            Some(_) => Err("this node has lost its data directory and is not taken up again yet".to_owned()),
            None => Err("this node is not a member of the store".to_owned()),
        }
    }

    /// Where the running change of the layout stands, or how the last one since this process began has ended.
    pub fn reshard_status(&self, now: Now) -> ReshardStatus {
        self.progress_at(now.mono_ms)
    }

    /// The whole cluster as this node sees it.
    pub fn cluster_status(&self, now: Now) -> ClusterStatus {
        let node = |(node, bound): (&NodeAddr, &Option<Incarnation>)| NodeStatus {
            node: node.clone(),
            up: self.is_up(now, node),
            out: self.map.out.contains(node),
            shard: self.map.shard_of(node),
            lag: self.lag(node),
            voter: bound.is_some_and(|bound| self.map.voters.contains(&bound)),
        };
        let served = self.parts.iter().filter(|part| part.own_serving().is_some());
        ClusterStatus {
            node: self.config.address.clone(),
            incarnation: self.incarnation,
            cluster_id: self.map.cluster_id,
            epoch: self.map.epoch,
            shard: self.map.shard_of(&self.config.address),
            keys: served.filter_map(|part| part.replica.as_ref()).map(|replica| replica.keys).sum(),
            nodes: self.map.nodes.iter().map(node).collect(),
            warnings: self.warnings(now),
            reshard: self.reshard_status(now),
        }
    }

    /// The shard this node belongs to.
    pub fn own_shard(&self) -> Option<ShardId> {
        self.map.shard_of(&self.config.address)
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
            logged: part.logs.iter().map(|(stay, log)| replica.applied.get(*stay).saturating_sub(log.truncated)).sum(),
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
