//! The cluster map as nodes send it to each other, and the messages that decide the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::value::{state, state_to_proto};
use super::{WireError, address, cluster_id, id_to_proto, incarnation, line, line_to_proto};
use crate::cluster::delta::{MapDelta, Part};
use crate::cluster::map::{ClusterMap, Layout, PeerState, Row, Stay, Target};
use crate::cluster::paxos::{Ballot, PaxosMessage};
use crate::types::{ContextSecret, Epoch, Incarnation, NodeAddr, PartitionId, ShardId, StayId};
use crate::wire::proto;
use proto::cluster_map;
use proto::paxos::{Accept, Accepted, Kind, Prepare, Promise, Rejected};

pub fn map_to_proto(map: &ClusterMap) -> proto::ClusterMap {
    let node = |(address, bound): (&NodeAddr, &Option<Incarnation>)| cluster_map::Node {
        address: address.as_str().to_owned(),
        incarnation: bound.map(|incarnation| id_to_proto(incarnation.0)),
    };
    let former = |(incarnation, address): (&Incarnation, &NodeAddr)| cluster_map::Former {
        incarnation: id_to_proto(incarnation.0),
        address: address.as_str().to_owned(),
    };
    proto::ClusterMap {
        cluster_id: id_to_proto(map.cluster_id.0),
        epoch: map.epoch.0,
        parent_hash: map.parent_hash,
        secret: Bytes::copy_from_slice(&map.secret.0),
        nodes: map.nodes.iter().map(node).collect(),
        shards: shards_to_proto(&map.layout),
        partition_shards: map.layout.partitions.iter().map(|shard| shard.0).collect(),
        rows: map.rows.iter().map(row_to_proto).collect(),
        voters: map.voters.iter().map(|voter| id_to_proto(voter.0)).collect(),
        target: map.target.as_ref().map(target_to_proto),
        out: map.out.iter().map(|address| address.as_str().to_owned()).collect(),
        former: map.former.iter().map(former).collect(),
        forgotten: map.forgotten.iter().map(|incarnation| id_to_proto(incarnation.0)).collect(),
        line: line_to_proto(&map.line),
    }
}

fn shards_to_proto(layout: &Layout) -> Vec<cluster_map::Shard> {
    let shard = |nodes: &Vec<NodeAddr>| cluster_map::Shard {
        nodes: nodes.iter().map(|address| address.as_str().to_owned()).collect(),
    };
    layout.shards.iter().map(shard).collect()
}

fn target_to_proto(target: &Target) -> cluster_map::Target {
    cluster_map::Target {
        name: target.name.clone(),
        shards: shards_to_proto(&target.layout),
        partition_shards: target.layout.partitions.iter().map(|shard| shard.0).collect(),
        even: target.even,
    }
}

/// A map that does not contradict itself: whoever has it may look up by any number that it names.
pub fn map(received: proto::ClusterMap) -> Result<ClusterMap, WireError> {
    let map = parts(received)?;
    map.check().map_err(WireError::Map)?;
    Ok(map)
}

pub fn delta_to_proto(delta: &MapDelta) -> proto::MapDelta {
    proto::MapDelta {
        base: delta.base.0,
        base_hash: delta.base_hash,
        hash: delta.hash,
        changed: Some(map_to_proto(&delta.changed)),
        partitions: delta.partitions.iter().map(|partition| partition.0).collect(),
        kept: delta.kept.iter().map(|part| part_to_proto(*part).into()).collect(),
    }
}

/// A difference; whether it makes a map, its base says.
pub fn delta(received: proto::MapDelta) -> Result<MapDelta, WireError> {
    let changed = parts(received.changed.ok_or(WireError::Missing("delta.changed"))?)?;
    if received.partitions.len() != changed.rows.len() || !received.partitions.is_sorted_by(|a, b| a < b) {
        return Err(WireError::Order("delta.partitions"));
    }
    Ok(MapDelta {
        base: Epoch(received.base),
        base_hash: received.base_hash,
        hash: received.hash,
        changed,
        partitions: received.partitions.into_iter().map(PartitionId).collect(),
        kept: ascending("delta.kept", received.kept.into_iter().map(part))?,
    })
}

fn part_to_proto(part: Part) -> proto::MapPart {
    match part {
        Part::Nodes => proto::MapPart::Nodes,
        Part::Out => proto::MapPart::Out,
        Part::Former => proto::MapPart::Former,
        Part::Forgotten => proto::MapPart::Forgotten,
        Part::Layout => proto::MapPart::Layout,
        Part::Target => proto::MapPart::Target,
        Part::Voters => proto::MapPart::Voters,
    }
}

fn part(received: i32) -> Result<Part, WireError> {
    let known = Part::ALL.into_iter().find(|part| part_to_proto(*part) as i32 == received);
    known.ok_or(WireError::Unknown { field: "delta.kept", value: received.into() })
}

/// All of a map, or what of it a difference has.
fn parts(received: proto::ClusterMap) -> Result<ClusterMap, WireError> {
    let secret = received.secret.as_ref();
    let secret =
        <[u8; 16]>::try_from(secret).map_err(|_| WireError::Length { field: "map.secret", found: secret.len() })?;
    Ok(ClusterMap {
        cluster_id: cluster_id("map.cluster_id", &received.cluster_id)?,
        line: line(&received.line)?,
        epoch: Epoch(received.epoch),
        parent_hash: received.parent_hash,
        secret: ContextSecret(secret),
        nodes: nodes(received.nodes)?,
        out: ascending("map.out", received.out.iter().map(|node| address("map.out", node)))?,
        former: former(&received.former)?,
        forgotten: ascending("map.forgotten", received.forgotten.iter().map(|id| incarnation("map.forgotten", id)))?,
        layout: layout(&received.shards, received.partition_shards)?,
        target: received.target.map(target).transpose()?,
        rows: received.rows.into_iter().map(row).collect::<Result<_, _>>()?,
        voters: received.voters.iter().map(|id| incarnation("map.voters", id)).collect::<Result<_, _>>()?,
    })
}

/// A list that stands for a set.
fn ascending<T: Ord>(
    field: &'static str,
    list: impl Iterator<Item = Result<T, WireError>>,
) -> Result<BTreeSet<T>, WireError> {
    let list = list.collect::<Result<Vec<_>, _>>()?;
    if list.is_sorted_by(|a, b| a < b) { Ok(list.into_iter().collect()) } else { Err(WireError::Order(field)) }
}

fn former(received: &[cluster_map::Former]) -> Result<BTreeMap<Incarnation, NodeAddr>, WireError> {
    let former = received
        .iter()
        .map(|was| {
            let bound = incarnation("map.former.incarnation", &was.incarnation)?;
            Ok((bound, address("map.former.address", &was.address)?))
        })
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    if former.len() == received.len() { Ok(former) } else { Err(WireError::Order("map.former")) }
}

fn layout(shards: &[cluster_map::Shard], partitions: Vec<u32>) -> Result<Layout, WireError> {
    let shards = shards.iter().map(shard).collect::<Result<_, _>>()?;
    Ok(Layout { shards, partitions: partitions.into_iter().map(ShardId).collect() })
}

fn target(received: cluster_map::Target) -> Result<Target, WireError> {
    let layout = layout(&received.shards, received.partition_shards)?;
    Ok(Target { layout, name: received.name, even: received.even })
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
        lost_by_word: stay.lost_by_word,
        begun_empty: stay.begun_empty.map(|epoch| epoch.0),
    };
    let skipped = |(from, until): &(StayId, StayId)| cluster_map::Skipped { from: from.0, until: until.0 };
    cluster_map::Row {
        version: row.version.0,
        next_stay: row.next_stay.0,
        peers: row.peers.iter().map(peer).collect(),
        skipped: row.skipped.iter().map(skipped).collect(),
    }
}

fn row(received: cluster_map::Row) -> Result<Row, WireError> {
    if !received.peers.is_sorted_by(|a, b| a.stay < b.stay) {
        return Err(WireError::Order("map.rows.peers"));
    }
    if received.peers.last().is_some_and(|peer| peer.stay >= received.next_stay) {
        return Err(WireError::Map("a row lists a stay that was not given out"));
    }
    if received.skipped.iter().any(|range| range.from >= range.until || range.until > received.next_stay)
        || !received.skipped.is_sorted_by(|a, b| a.until <= b.from)
    {
        return Err(WireError::Order("map.rows.skipped"));
    }
    Ok(Row {
        version: Epoch(received.version),
        next_stay: StayId(received.next_stay),
        peers: received.peers.into_iter().map(peer).collect::<Result<_, _>>()?,
        skipped: received.skipped.iter().map(|range| (StayId(range.from), StayId(range.until))).collect(),
    })
}

fn peer(received: cluster_map::Peer) -> Result<(StayId, Stay), WireError> {
    let stay = Stay {
        incarnation: incarnation("map.rows.peers.incarnation", &received.incarnation)?,
        state: state("map.rows.peers.state", received.state)?,
        lost: received.lost,
        lost_by_word: received.lost_by_word,
        begun_empty: received.begun_empty.map(Epoch),
    };
    if stay.lost && stay.state != PeerState::Leaving {
        return Err(WireError::Map("a peer that is not leaving is lost"));
    }
    if stay.lost_by_word && !stay.lost {
        return Err(WireError::Map("a peer is lost by the operator's word but not lost"));
    }
    Ok((StayId(received.stay), stay))
}

pub fn paxos_to_proto(message: &PaxosMessage) -> proto::Paxos {
    let (epoch, ballot, kind) = match message {
        PaxosMessage::Prepare { epoch, ballot } => (epoch, ballot, Kind::Prepare(Prepare {})),
        PaxosMessage::Promise { epoch, ballot, acceptor, accepted } => {
            let acceptor = id_to_proto(acceptor.0);
            let accepted_ballot = accepted.as_ref().map(|(ballot, _)| ballot_to_proto(*ballot));
            let accepted = accepted.as_ref().map(|(_, next)| delta_to_proto(next));
            (epoch, ballot, Kind::Promise(Promise { acceptor, accepted_ballot, accepted }))
        }
        PaxosMessage::Accept { epoch, ballot, next } => {
            (epoch, ballot, Kind::Accept(Accept { next: Some(delta_to_proto(next)) }))
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
            let accepted = accepted(promise.accepted_ballot, promise.accepted)?;
            Ok(PaxosMessage::Promise { epoch, ballot, acceptor, accepted })
        }
        Kind::Accept(accept) => {
            let next = delta(accept.next.ok_or(WireError::Missing("paxos.accept.next"))?)?;
            Ok(PaxosMessage::Accept { epoch, ballot, next: Arc::new(next) })
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
    accepted: Option<proto::MapDelta>,
) -> Result<Option<(Ballot, Arc<MapDelta>)>, WireError> {
    match (received, accepted) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(WireError::Missing("paxos.promise.accepted_ballot")),
        (Some(_), None) => Err(WireError::Missing("paxos.promise.accepted")),
        (found @ Some(_), Some(accepted)) => {
            Ok(Some((ballot("paxos.promise.accepted_ballot", found)?, Arc::new(delta(accepted)?))))
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
