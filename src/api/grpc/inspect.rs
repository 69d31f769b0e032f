//! A node from the inside, for people with grpcurl. The messages have no field for keys, values or the context secret.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::Node;
use crate::cluster::map::{ClusterMap, Layout, Row, Stay, Target};
use crate::machine::{PartitionStatus, PeerStatus};
use crate::types::{Incarnation, NodeAddr, PartitionId, StayId};
use crate::wire::Local;
use crate::wire::convert::{state_to_proto, vector_to_proto};
use crate::wire::proto::inspect_server::Inspect;
use crate::wire::proto::{
    GetMapReply, GetMapRequest, GetPeersReply, GetPeersRequest, GetVectorsReply, GetVectorsRequest, get_map_reply,
    get_peers_reply, get_vectors_reply,
};

/// The service.
#[derive(Debug)]
pub struct Inspection<N> {
    node: N,
    local: Arc<Local>,
}

impl<N> Inspection<N> {
    /// The service of this node.
    pub fn new(node: N, local: Arc<Local>) -> Self {
        Self { node, local }
    }
}

#[async_trait]
impl<N: Node> Inspect for Inspection<N> {
    async fn get_map(&self, request: Request<GetMapRequest>) -> Result<Response<GetMapReply>, Status> {
        let map = self.node.map();
        let only = existing(&map, request.into_inner().partition)?;
        Ok(Response::new(map_reply(&map, only)))
    }

    async fn get_vectors(&self, request: Request<GetVectorsRequest>) -> Result<Response<GetVectorsReply>, Status> {
        let only = existing(&self.node.map(), request.into_inner().partition)?;
        let held = self.node.partition_status().await.ok_or_else(stopping)?;
        let shown = held.iter().filter(|status| only.is_none_or(|wanted| status.partition == wanted));
        Ok(Response::new(GetVectorsReply {
            node: self.local.address.as_str().to_owned(),
            incarnation: self.local.incarnation.to_string(),
            partitions: shown.map(partition).collect(),
        }))
    }

    async fn get_peers(&self, _: Request<GetPeersRequest>) -> Result<Response<GetPeersReply>, Status> {
        let known = self.node.peer_status().await.ok_or_else(stopping)?;
        let node = self.local.address.as_str().to_owned();
        Ok(Response::new(GetPeersReply { node, peers: known.iter().map(peer).collect() }))
    }
}

fn stopping() -> Status {
    Status::unavailable("this node is stopping")
}

fn existing(map: &ClusterMap, asked: Option<u32>) -> Result<Option<PartitionId>, Status> {
    match asked {
        Some(number) if number >= map.partitions() => Err(Status::not_found(format!(
            "there is no partition {number}; this store has {}, counted from 0",
            map.partitions()
        ))),
        Some(number) => Ok(Some(PartitionId(number))),
        None => Ok(None),
    }
}

fn map_reply(map: &ClusterMap, only: Option<PartitionId>) -> GetMapReply {
    let node = |(address, bound): (&NodeAddr, &Option<Incarnation>)| get_map_reply::Node {
        address: address.as_str().to_owned(),
        incarnation: bound.map(|incarnation| incarnation.to_string()).unwrap_or_default(),
    };
    let rows = (0..).map(PartitionId).zip(&map.rows);
    let shown = rows.filter(|(partition, _)| only.is_none_or(|wanted| *partition == wanted));
    GetMapReply {
        cluster_id: map.cluster_id.to_string(),
        epoch: map.epoch.0,
        parent_hash: format!("{:016x}", map.parent_hash),
        nodes: map.nodes.iter().map(node).collect(),
        shards: shards(&map.layout),
        partitions: map.partitions(),
        rows: shown.map(|(partition, row)| row_reply(map, partition, row)).collect(),
        voters: map.voters.iter().map(Incarnation::to_string).collect(),
        target: map.target.as_ref().map(target),
        out: map.out.iter().map(NodeAddr::to_string).collect(),
        forgotten: map.forgotten.iter().map(Incarnation::to_string).collect(),
        branch: map.line.branch().0,
    }
}

fn target(target: &Target) -> get_map_reply::Target {
    get_map_reply::Target { name: target.name.clone(), shards: shards(&target.layout) }
}

fn shards(layout: &Layout) -> Vec<get_map_reply::Shard> {
    let shard = |(id, nodes): (u32, &Vec<NodeAddr>)| get_map_reply::Shard {
        id,
        nodes: nodes.iter().map(|node| node.as_str().to_owned()).collect(),
        partitions: layout.partitions.iter().filter(|shard| shard.0 == id).count() as u32,
    };
    (1..).zip(&layout.shards).map(shard).collect()
}

fn row_reply(map: &ClusterMap, partition: PartitionId, row: &Row) -> get_map_reply::Row {
    let peer = |(number, stay): (&StayId, &Stay)| get_map_reply::Peer {
        stay: number.0,
        node: address(map, stay.incarnation).map(|node| node.as_str().to_owned()).unwrap_or_default(),
        incarnation: stay.incarnation.to_string(),
        state: state_to_proto(stay.state).into(),
        lost: stay.lost,
        lost_by_word: stay.lost_by_word,
        begun_empty: stay.begun_empty.map(|epoch| epoch.0),
    };
    get_map_reply::Row {
        partition: partition.0,
        shard: map.layout.partitions.get(partition.0 as usize).map_or(0, |shard| shard.0),
        version: row.version.0,
        next_stay: row.next_stay.0,
        peers: row.peers.iter().map(peer).collect(),
    }
}

/// Where the incarnation is bound, or was.
fn address(map: &ClusterMap, incarnation: Incarnation) -> Option<&NodeAddr> {
    map.address_of(incarnation).or_else(|| map.former.get(&incarnation))
}

fn partition(status: &PartitionStatus) -> get_vectors_reply::Partition {
    get_vectors_reply::Partition {
        partition: status.partition.0,
        version: status.version.0,
        stay: status.stay.0,
        state: state_to_proto(status.state).into(),
        applied: Some(vector_to_proto(&status.applied)),
        durable: Some(vector_to_proto(&status.durable)),
        stable: Some(vector_to_proto(&status.stable)),
        floor: status.floor.0,
        keys: status.keys,
        unapplied: status.unapplied,
        tombstones: status.tombstones,
        logged: status.logged,
    }
}

fn peer(status: &PeerStatus) -> get_peers_reply::Peer {
    get_peers_reply::Peer {
        node: status.node.as_str().to_owned(),
        incarnation: status.incarnation.map(|incarnation| incarnation.to_string()).unwrap_or_default(),
        up: status.up,
        shard: status.shard.map_or(0, |shard| shard.0),
        lag: status.lag,
    }
}
