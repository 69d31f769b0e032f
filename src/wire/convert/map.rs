//! The cluster map as nodes send it to each other, and the messages that decide the next one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::value::{state, state_to_proto};
use super::{WireError, address, cluster_id, id_to_proto, incarnation};
use crate::cluster::map::{ClusterMap, Layout, PeerState, Row, Stay};
use crate::cluster::paxos::{Ballot, PaxosMessage};
use crate::types::{ContextSecret, Epoch, Incarnation, NodeAddr, ShardId, StayId};
use crate::wire::proto;
use proto::cluster_map;
use proto::paxos::{Accept, Accepted, Kind, Prepare, Promise, Rejected};

pub fn map_to_proto(map: &ClusterMap) -> proto::ClusterMap {
    let node = |(address, bound): (&NodeAddr, &Option<Incarnation>)| cluster_map::Node {
        address: address.as_str().to_owned(),
        incarnation: bound.map(|incarnation| id_to_proto(incarnation.0)),
    };
    let shard = |nodes: &Vec<NodeAddr>| cluster_map::Shard {
        nodes: nodes.iter().map(|address| address.as_str().to_owned()).collect(),
    };
    proto::ClusterMap {
        cluster_id: id_to_proto(map.cluster_id.0),
        epoch: map.epoch.0,
        parent_hash: map.parent_hash,
        secret: Bytes::copy_from_slice(&map.secret.0),
        nodes: map.nodes.iter().map(node).collect(),
        shards: map.layout.shards.iter().map(shard).collect(),
        partition_shards: map.layout.partitions.iter().map(|shard| shard.0).collect(),
        rows: map.rows.iter().map(row_to_proto).collect(),
        voters: map.voters.iter().map(|voter| id_to_proto(voter.0)).collect(),
    }
}

/// A map that does not contradict itself: whoever has it may look up by any number that it names.
pub fn map(received: proto::ClusterMap) -> Result<ClusterMap, WireError> {
    let secret = received.secret.as_ref();
    let secret =
        <[u8; 16]>::try_from(secret).map_err(|_| WireError::Length { field: "map.secret", found: secret.len() })?;
    let map = ClusterMap {
        cluster_id: cluster_id("map.cluster_id", &received.cluster_id)?,
        epoch: Epoch(received.epoch),
        parent_hash: received.parent_hash,
        secret: ContextSecret(secret),
        nodes: nodes(received.nodes)?,
        layout: Layout {
            shards: received.shards.iter().map(shard).collect::<Result<_, _>>()?,
            partitions: received.partition_shards.into_iter().map(ShardId).collect(),
        },
        rows: received.rows.into_iter().map(row).collect::<Result<_, _>>()?,
        voters: received.voters.iter().map(|id| incarnation("map.voters", id)).collect::<Result<_, _>>()?,
    };
    check(&map)?;
    Ok(map)
}

fn check(map: &ClusterMap) -> Result<(), WireError> {
    let Layout { shards, partitions } = &map.layout;
    if partitions.len() != map.rows.len() {
        return Err(WireError::Map("it has not one shard a partition"));
    }
    if partitions.iter().any(|shard| map.layout.members(*shard).is_none()) {
        return Err(WireError::Map("it gives a partition to a shard that it does not have"));
    }
    if shards.iter().flatten().any(|node| !map.nodes.contains_key(node)) {
        return Err(WireError::Map("it has a node in a shard that is not among its nodes"));
    }
    if map.rows.iter().any(|row| row.version > map.epoch) {
        return Err(WireError::Map("a row is newer than the map"));
    }
    Ok(())
}

fn nodes(received: Vec<cluster_map::Node>) -> Result<BTreeMap<NodeAddr, Option<Incarnation>>, WireError> {
    let count = received.len();
    let mut nodes = BTreeMap::new();
    for node in received {
        let bound = node.incarnation.map(|id| incarnation("map.nodes.incarnation", &id)).transpose()?;
        nodes.insert(address("map.nodes.address", &node.address)?, bound);
    }
    if nodes.len() == count { Ok(nodes) } else { Err(WireError::Order("map.nodes")) }
}

fn shard(received: &cluster_map::Shard) -> Result<Vec<NodeAddr>, WireError> {
    received.nodes.iter().map(|node| address("map.shards.nodes", node)).collect()
}

fn row_to_proto(row: &Row) -> cluster_map::Row {
    let peer = |(number, stay): (&StayId, &Stay)| cluster_map::Peer {
        stay: number.0,
        incarnation: id_to_proto(stay.incarnation.0),
        state: state_to_proto(stay.state).into(),
        lost: stay.lost,
    };
    cluster_map::Row { version: row.version.0, next_stay: row.next_stay.0, peers: row.peers.iter().map(peer).collect() }
}

fn row(received: cluster_map::Row) -> Result<Row, WireError> {
    if !received.peers.is_sorted_by(|a, b| a.stay < b.stay) {
        return Err(WireError::Order("map.rows.peers"));
    }
    if received.peers.last().is_some_and(|peer| peer.stay >= received.next_stay) {
        return Err(WireError::Map("a row lists a stay that was not given out"));
    }
    let peers = received.peers.into_iter().map(peer).collect::<Result<_, _>>()?;
    Ok(Row { version: Epoch(received.version), next_stay: StayId(received.next_stay), peers })
}

fn peer(received: cluster_map::Peer) -> Result<(StayId, Stay), WireError> {
    let stay = Stay {
        incarnation: incarnation("map.rows.peers.incarnation", &received.incarnation)?,
        state: state("map.rows.peers.state", received.state)?,
        lost: received.lost,
    };
    if stay.lost && stay.state != PeerState::Leaving {
        return Err(WireError::Map("a peer that is not leaving is lost"));
    }
    Ok((StayId(received.stay), stay))
}

pub fn paxos_to_proto(message: &PaxosMessage) -> proto::Paxos {
    let (epoch, ballot, kind) = match message {
        PaxosMessage::Prepare { epoch, ballot } => (epoch, ballot, Kind::Prepare(Prepare {})),
        PaxosMessage::Promise { epoch, ballot, acceptor, accepted } => {
            let acceptor = id_to_proto(acceptor.0);
            let accepted_ballot = accepted.as_ref().map(|(ballot, _)| ballot_to_proto(*ballot));
            let accepted_map = accepted.as_ref().map(|(_, map)| map_to_proto(map));
            (epoch, ballot, Kind::Promise(Promise { acceptor, accepted_ballot, accepted_map }))
        }
        PaxosMessage::Accept { epoch, ballot, map } => {
            (epoch, ballot, Kind::Accept(Accept { map: Some(map_to_proto(map)) }))
        }
        PaxosMessage::Accepted { epoch, ballot, acceptor } => {
            (epoch, ballot, Kind::Accepted(Accepted { acceptor: id_to_proto(acceptor.0) }))
        }
        PaxosMessage::Rejected { epoch, ballot, promised } => {
            (epoch, ballot, Kind::Rejected(Rejected { promised: Some(ballot_to_proto(*promised)) }))
        }
    };
    proto::Paxos { epoch: epoch.0, ballot: Some(ballot_to_proto(*ballot)), kind: Some(kind) }
}

pub fn paxos(received: proto::Paxos) -> Result<PaxosMessage, WireError> {
    let epoch = Epoch(received.epoch);
    let ballot = ballot("paxos.ballot", received.ballot)?;
    match received.kind.ok_or(WireError::Missing("paxos.kind"))? {
        Kind::Prepare(Prepare {}) => Ok(PaxosMessage::Prepare { epoch, ballot }),
        Kind::Promise(promise) => {
            let acceptor = incarnation("paxos.promise.acceptor", &promise.acceptor)?;
            let accepted = accepted(promise.accepted_ballot, promise.accepted_map)?;
            Ok(PaxosMessage::Promise { epoch, ballot, acceptor, accepted })
        }
        Kind::Accept(accept) => {
            let proposed = map(accept.map.ok_or(WireError::Missing("paxos.accept.map"))?)?;
            Ok(PaxosMessage::Accept { epoch, ballot, map: Arc::new(proposed) })
        }
        Kind::Accepted(accepted) => {
            let acceptor = incarnation("paxos.accepted.acceptor", &accepted.acceptor)?;
            Ok(PaxosMessage::Accepted { epoch, ballot, acceptor })
        }
        Kind::Rejected(rejected) => {
            let promised = self::ballot("paxos.rejected.promised", rejected.promised)?;
            Ok(PaxosMessage::Rejected { epoch, ballot, promised })
        }
    }
}

fn accepted(
    received: Option<proto::Ballot>,
    accepted: Option<proto::ClusterMap>,
) -> Result<Option<(Ballot, Arc<ClusterMap>)>, WireError> {
    match (received, accepted) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(WireError::Missing("paxos.promise.accepted_ballot")),
        (Some(_), None) => Err(WireError::Missing("paxos.promise.accepted_map")),
        (found @ Some(_), Some(accepted)) => {
            Ok(Some((ballot("paxos.promise.accepted_ballot", found)?, Arc::new(map(accepted)?))))
        }
    }
}

fn ballot_to_proto(ballot: Ballot) -> proto::Ballot {
    proto::Ballot { round: ballot.round, proposer: id_to_proto(ballot.proposer) }
}

fn ballot(field: &'static str, received: Option<proto::Ballot>) -> Result<Ballot, WireError> {
    let received = received.ok_or(WireError::Missing(field))?;
    Ok(Ballot { round: received.round, proposer: super::id(field, &received.proposer)? })
}
