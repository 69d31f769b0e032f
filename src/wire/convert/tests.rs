//! Round trips of every message; and malformed ones, which are errors that name the field, never panics.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use prost::Message as _;

use super::*;
use crate::causal::context::Context;
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::vector::VersionVector;
use crate::cluster::change::{Change, ChangeError};
use crate::cluster::delta::MapDelta;
use crate::cluster::layout::{map_one, map_zero};
use crate::cluster::line::{Fork, Line};
use crate::cluster::map::{ClusterMap, Layout, PeerState, Row, Stay, Target};
use crate::cluster::paxos::{Ballot, PaxosMessage};
use crate::cluster::plan::PlanError;
use crate::error::Code;
use crate::machine::agreement::Disagreement;
use crate::machine::message::{
    ClockPromise, FillChunk, FillEnd, PartitionReport, PartitionWord, Request, Response, StabilityReport,
};
use crate::machine::sign::HeldUpTo;
use crate::types::{BranchId, ContextSecret, Dot, Key, ShardId, StayId, Timestamp};
use crate::wire::outbox::Outbox;
use crate::wire::weight::weight;

const PARTITIONS: u32 = 16;
const READER: Reader = Reader { partitions: PARTITIONS };

fn partition() -> impl Strategy<Value = PartitionId> {
    (0..PARTITIONS).prop_map(PartitionId)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch)
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0..=FARTHEST.0).prop_map(Timestamp)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u128>().prop_map(Incarnation)
}

fn held() -> impl Strategy<Value = HeldUpTo> {
    let one = |(partition, stay, seq)| HeldUpTo { partition: PartitionId(partition), stay: StayId(stay), seq };
    (0..READER.partitions, any::<u32>(), any::<u64>()).prop_map(one)
}

fn address() -> impl Strategy<Value = NodeAddr> {
    ("[a-z][a-z0-9]{0,8}", 1..u16::MAX).prop_map(|(host, port)| format!("{host}:{port}").parse().unwrap())
}

fn key() -> impl Strategy<Value = Key> {
    "\\PC{1,12}".prop_map(|text| Key::new(&text).unwrap())
}

fn value() -> impl Strategy<Value = Bytes> {
    // Some above the size from which values are shared with their frame.
    prop_oneof![
        9 => vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        1 => (16_000..20_000_usize).prop_map(|length| Bytes::from(vec![b'7'; length])),
    ]
}

fn vector() -> impl Strategy<Value = VersionVector> {
    vec((any::<u32>().prop_map(StayId), 1..=u64::MAX), 0..4).prop_map(VersionVector::from_iter)
}

fn context() -> impl Strategy<Value = Context> {
    (epoch(), timestamp(), vec((partition(), any::<u32>(), 1..=u64::MAX), 0..4)).prop_map(|(epoch, clock, entries)| {
        let mut context = Context::empty();
        context.raise_epoch(epoch);
        context.raise_clock(clock);
        for (partition, stay, seq) in entries {
            context.raise(partition, StayId(stay), seq);
        }
        context
    })
}

fn item() -> impl Strategy<Value = Item> {
    (option::of(value()), any::<u32>(), 1..=u64::MAX, timestamp(), context()).prop_map(
        |(value, stay, seq, timestamp, carried)| Item {
            value,
            dot: Dot { stay: StayId(stay), seq },
            timestamp,
            carried,
        },
    )
}

fn op() -> impl Strategy<Value = Arc<Op>> {
    (key(), item(), vector()).prop_map(|(key, item, deps)| Arc::new(Op { key, item, deps }))
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (key(), context()).prop_map(|(key, context)| Request::Get { key, context }),
        (key(), value(), context()).prop_map(|(key, value, context)| Request::Put { key, value, context }),
        (key(), context()).prop_map(|(key, context)| Request::Delete { key, context }),
        any::<u32>().prop_map(|shard| Request::KeyCount { shard: ShardId(shard) }),
        vec((0..PARTITIONS).prop_map(PartitionId), 0..5).prop_map(|partitions| Request::CountOf { partitions }),
    ]
}

fn code() -> impl Strategy<Value = Code> {
    prop::sample::select(vec![
        Code::ContextMalformed,
        Code::DependenciesUnsatisfied,
        Code::ShardUnavailable,
        Code::TooManyRequests,
        Code::DiskFull,
        Code::OutcomeUnknown,
        Code::NoSuchShard,
        Code::Internal,
    ])
}

fn response() -> impl Strategy<Value = Response> {
    prop_oneof![
        (any::<bool>(), context(), any::<u32>(), any::<u32>()).prop_map(|(existed, context, shard, copies)| {
            Response::Written { existed, context, shard: ShardId(shard), copies }
        }),
        (value(), context()).prop_map(|(value, context)| Response::Value { value, context }),
        context().prop_map(|context| Response::Missing { context }),
        any::<u64>().prop_map(Response::KeyCount),
        code().prop_map(Response::Error),
    ]
}

fn stay() -> impl Strategy<Value = Stay> {
    let state = prop::sample::select(vec![PeerState::Joining, PeerState::Serving, PeerState::Leaving]);
    let empty = option::of(epoch());
    (incarnation(), state, any::<[bool; 2]>(), empty).prop_map(|(incarnation, state, [lost, by_word], begun_empty)| {
        let lost = lost && state == PeerState::Leaving;
        Stay { incarnation, state, lost, lost_by_word: lost && by_word, begun_empty }
    })
}

fn row(epoch: u64) -> impl Strategy<Value = Row> {
    (0..=epoch, btree_map((0..1000u32).prop_map(StayId), stay(), 0..4)).prop_map(|(version, peers)| Row {
        version: Epoch(version),
        next_stay: StayId(1000),
        peers,
        skipped: vec![(StayId(10), StayId(20)), (StayId(700), StayId(900))],
    })
}

fn agreement() -> impl Strategy<Value = Result<(), Disagreement>> {
    prop_oneof![
        Just(Ok(())),
        Just(Err(Disagreement::QuorumLives)),
        Just(Err(Disagreement::Another)),
        address().prop_map(|node| Err(Disagreement::Hears(node))),
    ]
}

fn line() -> impl Strategy<Value = Line> {
    vec((1u64.., 0u64..9, 1u64..9), 0..3).prop_map(|forks| {
        let mut last = 0;
        let fork = |(branch, gap, raise)| {
            let (after, first) = (last + gap, last + gap + raise);
            last = first;
            Fork { branch: BranchId(branch), after: Epoch(after), first: Epoch(first) }
        };
        Line::new(forks.into_iter().map(fork).collect()).unwrap()
    })
}

/// These nodes in two shards, and the partitions in either.
fn layout(nodes: Vec<NodeAddr>) -> impl Strategy<Value = Layout> {
    (0..=nodes.len(), vec((1..=2u32).prop_map(ShardId), PARTITIONS as usize)).prop_map(move |(cut, partitions)| {
        let (first, second) = nodes.split_at(cut);
        Layout { shards: vec![first.to_vec(), second.to_vec()], partitions }
    })
}

fn map() -> impl Strategy<Value = Arc<ClusterMap>> {
    let nodes = btree_map(address(), option::of(incarnation()), 2..6);
    (any::<(u128, u64, u64, [u8; 16])>(), nodes).prop_flat_map(|((id, epoch, parent_hash, secret), nodes)| {
        let addresses: Vec<_> = nodes.keys().cloned().collect();
        let target = (layout(addresses.clone()), "\\PC{0,20}", any::<bool>()).prop_map(|(layout, name, even)| Target {
            layout,
            name,
            even,
        });
        let layouts = (layout(addresses.clone()), option::of(target), subsequence(addresses.clone(), 0..3));
        let ids = (vec(incarnation(), 0..5), btree_set(incarnation(), 0..3), line());
        let former = btree_map(incarnation(), select(addresses), 0..3);
        (vec(row(epoch), PARTITIONS as usize), layouts, ids, former).prop_map(
            move |(rows, (layout, target, out), (voters, forgotten, line), former)| {
                Arc::new(ClusterMap {
                    cluster_id: ClusterId(id),
                    line,
                    epoch: Epoch(epoch),
                    parent_hash,
                    secret: ContextSecret(secret),
                    nodes: nodes.clone(),
                    out: out.into_iter().collect(),
                    former,
                    forgotten,
                    layout,
                    target,
                    rows,
                    voters,
                })
            },
        )
    })
}

fn delta() -> impl Strategy<Value = Arc<MapDelta>> {
    (map(), map()).prop_map(|(base, next)| Arc::new(MapDelta::between(&base, &next)))
}

fn ballot() -> impl Strategy<Value = Ballot> {
    any::<(u64, u128)>().prop_map(|(round, proposer)| Ballot { round, proposer })
}

fn paxos() -> impl Strategy<Value = PaxosMessage> {
    prop_oneof![
        (epoch(), ballot()).prop_map(|(epoch, ballot)| PaxosMessage::Prepare { epoch, ballot }),
        (epoch(), ballot(), incarnation(), option::of((ballot(), delta()))).prop_map(
            |(epoch, ballot, acceptor, accepted)| PaxosMessage::Promise { epoch, ballot, acceptor, accepted }
        ),
        (epoch(), ballot(), delta()).prop_map(|(epoch, ballot, next)| PaxosMessage::Accept { epoch, ballot, next }),
        (epoch(), ballot(), incarnation()).prop_map(|(epoch, ballot, acceptor)| PaxosMessage::Accepted {
            epoch,
            ballot,
            acceptor
        }),
        (epoch(), ballot(), ballot()).prop_map(|(epoch, ballot, promised)| PaxosMessage::Rejected {
            epoch,
            ballot,
            promised
        }),
    ]
}

fn report() -> impl Strategy<Value = PartitionReport> {
    (partition(), epoch(), any::<u32>(), vector(), option::of((any::<u64>(), timestamp()))).prop_map(
        |(partition, version, stay, durable, promise)| PartitionReport {
            partition,
            version,
            stay: StayId(stay),
            durable,
            promise: promise.map(|(seq, clock)| ClockPromise { seq, clock }),
        },
    )
}

fn stability() -> impl Strategy<Value = StabilityReport> {
    (partition(), epoch(), vector()).prop_map(|(partition, version, stable)| StabilityReport {
        partition,
        version,
        stable,
    })
}

fn chunk() -> impl Strategy<Value = FillChunk> {
    let end = (vector(), epoch(), timestamp()).prop_map(|(vector, floor, clock)| FillEnd { vector, floor, clock });
    (partition(), epoch(), any::<(u64, u32)>(), btree_map(key(), item(), 0..4), option::of(end)).prop_map(
        |(partition, version, (attempt, index), items, end)| FillChunk {
            partition,
            version,
            attempt,
            index,
            items: items.into_iter().collect(),
            end,
        },
    )
}

fn word() -> impl Strategy<Value = PartitionWord> {
    (partition(), epoch(), any::<u32>(), vector(), vector(), any::<[u64; 2]>()).prop_map(
        |(partition, version, stay, first, durable, [steps, bytes])| PartitionWord {
            partition,
            version,
            stay: StayId(stay),
            first,
            durable,
            steps,
            bytes,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<u32>().prop_map(Change::Reshard),
        (any::<u32>(), address()).prop_map(|(shard, node)| Change::AddMember { shard: ShardId(shard), node }),
        (address(), incarnation()).prop_map(|(node, incarnation)| Change::Admit { node, incarnation }),
        address().prop_map(Change::Remove),
        address().prop_map(Change::Forget),
        Just(Change::Cancel),
    ]
}

fn change_error() -> impl Strategy<Value = ChangeError> {
    let shard = || any::<u32>().prop_map(ShardId);
    prop_oneof![
        select(vec![
            PlanError::NotEnoughNodes.into(),
            PlanError::TooManyShards.into(),
            PlanError::NoSuchShard.into(),
            PlanError::NodeNotInView.into(),
            PlanError::AlreadyMember.into(),
            ChangeError::InProgress,
            ChangeError::NotInProgress,
            ChangeError::AlreadyInView,
            ChangeError::NoSuchNode,
            ChangeError::NotItsDirectory,
            ChangeError::NotLost,
            ChangeError::MovedOn,
        ]),
        partition().prop_map(|partition| PlanError::ShardUnavailable(partition).into()),
        shard().prop_map(|shard| PlanError::NodeInAnotherShard(shard).into()),
        shard().prop_map(|shard| PlanError::LastHolder(shard).into()),
    ]
}

/// Every message but pings.
fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (partition(), epoch(), vec(op(), 1..4))
            .prop_map(|(partition, version, operations)| { Message::Operations { partition, version, operations } }),
        vec(report(), 0..4).prop_map(Message::Report),
        vec(stability(), 0..4).prop_map(Message::Stability),
        (partition(), epoch(), any::<u64>(), vector()).prop_map(|(partition, version, attempt, vector)| {
            Message::FillRequest { partition, version, attempt, vector }
        }),
        chunk().prop_map(Message::FillChunk),
        (partition(), any::<(u64, u32)>()).prop_map(|(partition, (attempt, index))| Message::FillNext {
            partition,
            attempt,
            index
        }),
        (any::<(u64, u64)>(), request()).prop_map(|((id, remaining_ms), request)| Message::Forward {
            id,
            remaining_ms,
            request
        }),
        (any::<u64>(), response()).prop_map(|(id, response)| Message::ForwardReply { id, response }),
        (any::<u64>(), option::of(address())).prop_map(|(id, better)| Message::ForwardRefused { id, better }),
        vec(word(), 0..4).prop_map(Message::Words),
        (any::<(u64, bool)>(), change(), any::<u64>().prop_map(Epoch))
            .prop_map(|((id, again), change, epoch)| { Message::ChangeAsked { id, change, epoch, again } }),
        (any::<u64>(), epoch()).prop_map(|(id, epoch)| Message::ChangeAnswered { id, outcome: Ok(epoch) }),
        (any::<u64>(), change_error()).prop_map(|(id, error)| Message::ChangeAnswered { id, outcome: Err(error) }),
        paxos().prop_map(Message::Paxos),
        (any::<u64>(), any::<u64>(), epoch(), vec(address(), 0..4)).prop_map(|(id, branch, epoch, present)| {
            Message::RecoveryAsked { id, branch: BranchId(branch), epoch, present }
        }),
        (any::<u64>(), agreement()).prop_map(|(id, outcome)| Message::RecoveryAnswered { id, outcome }),
        (epoch(), any::<u64>()).prop_map(|(have, hash)| Message::MapPull { have, hash }),
        map().prop_map(Message::MapPush),
        vec(delta(), 1..3).prop_map(Message::MapDeltas),
        (any::<u64>(), vec(incarnation(), 0..4)).prop_map(|(id, incarnations)| Message::LossAsked { id, incarnations }),
        (any::<u64>(), vec(held(), 0..4), vec(held(), 0..4)).prop_map(|(id, told, held)| Message::LossTold {
            id,
            told,
            held
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_sent_is_what_is_received(message in message()) {
        let encoded = Bytes::from(message_to_proto(&message).unwrap().encode_to_vec());
        prop_assert!(encoded.len() <= weight(&message), "{} bytes weigh {}", encoded.len(), weight(&message));
        let received = READER.message(proto::Message::decode(encoded).unwrap());
        prop_assert_eq!(received, Ok(message));
    }

    #[test]
    fn pings_too(
        id: u128,
        line in line(),
        epoch: u64,
        settings_hash: u64,
        (speaks, tells_clocks, wall_ms) in any::<(u32, bool, u64)>(),
        hears in btree_set(address(), 0..4),
        steps: u64,
        exposed in vec(held(), 0..4),
        (partitions, keys, bytes) in any::<(u64, u64, u64)>(),
    ) {
        let ping = Ping {
            cluster_id: ClusterId(id),
            line: line.clone(),
            epoch: Epoch(epoch),
            settings_hash,
            speaks,
            tells_clocks,
            wall_ms,
            asked_ms: 0,
            hears: hears.into_iter().collect(),
            steps,
            exposed: exposed.into(),
            served: Served { partitions, keys, bytes },
        };
        let line = line_to_proto(&line);
        let cluster_id = id_to_proto(id);
        let hello = proto::Hello { cluster_id, settings_hash, line, format_version: speaks, ..Default::default() };
        prop_assert_eq!(ping_from_proto(&hello, sign_to_proto(&ping)), Ok(ping));
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_panic(
        message in message(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        partitions in 0..PARTITIONS,
    ) {
        let mut bytes = message_to_proto(&message).unwrap().encode_to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        read_anything(partitions, &bytes)?;
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), partitions in 0..PARTITIONS) {
        read_anything(partitions, &bytes)?;
    }
}

/// Reads the bytes as a message; what is accepted must be as good as any message.
fn read_anything(partitions: u32, bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(decoded) = proto::Message::decode(bytes) else { return Ok(()) };
    let reader = Reader { partitions };
    if let Ok(message) = reader.message(decoded) {
        let again = reader.message(message_to_proto(&message).unwrap());
        prop_assert_eq!(again, Ok(message));
    }
    Ok(())
}

#[test]
fn pings_do_not_go_through_the_stream() {
    let ping = Ping {
        cluster_id: ClusterId(1),
        line: Line::default(),
        epoch: Epoch(1),
        settings_hash: 1,
        speaks: 1,
        tells_clocks: false,
        wall_ms: 1,
        asked_ms: 0,
        hears: Vec::new(),
        steps: 0,
        exposed: Arc::default(),
        served: Served::default(),
    };
    assert_eq!(message_to_proto(&Message::Ping(ping.clone().into())), None);
    assert_eq!(message_to_proto(&Message::Pong(ping.into())), None);
}

/// Merged, the last number of all would leave none to give: this node could never take a write again, and contexts would
/// carry that to all others.
#[test]
fn timestamps_of_no_time_are_refused_wherever_they_come() {
    let far = |field| WireError::Farthest { field, value: FARTHEST.0 + 1 };
    let (near, beyond) = (FARTHEST.0, FARTHEST.0 + 1);
    let context =
        |clock| super::value::context(READER, "context", Some(proto::Context { clock, ..Default::default() }));
    assert_eq!(context(near).map(|context| context.clock()), Ok(FARTHEST));
    assert_eq!(context(beyond), Err(far("context.clock")));
    let item = |timestamp| proto::Item { stay: 1, seq: 1, timestamp, ..Default::default() };
    assert_eq!(super::value::item(READER, Some(item(near))).map(|item| item.timestamp), Ok(FARTHEST));
    assert_eq!(super::value::item(READER, Some(item(beyond))), Err(far("item.timestamp")));
    let read = |kind| READER.message(proto::Message { kind: Some(kind) }).unwrap_err();
    let promise = Some(proto::report::ClockPromise { seq: 1, clock: beyond });
    let durable = Some(Default::default());
    let report = proto::report::Partition { durable, promise, ..Default::default() };
    let reports = proto::Report { partitions: vec![report] };
    assert_eq!(read(proto::message::Kind::Report(reports)), far("report.promise.clock"));
    let end = proto::fill_chunk::End { vector: Some(Default::default()), clock: beyond, ..Default::default() };
    let chunk = proto::FillChunk { end: Some(end), ..Default::default() };
    assert_eq!(read(proto::message::Kind::FillChunk(chunk)), far("fill_chunk.end.clock"));
}

#[test]
fn malformed_messages_name_the_field() {
    use proto::message::Kind;
    let read = |kind: Kind| READER.message(proto::Message { kind: Some(kind) }).unwrap_err();
    let vector = |entries: &[(u32, u64)]| {
        Some(proto::VersionVector {
            entries: entries.iter().map(|&(stay, seq)| proto::StaySeq { stay, seq }).collect(),
        })
    };
    let fill = |partition, vector| Kind::FillRequest(proto::FillRequest { partition, vector, ..Default::default() });

    assert_eq!(READER.message(proto::Message { kind: None }), Err(WireError::Missing("message.kind")));
    assert_eq!(read(fill(PARTITIONS, None)), WireError::NoSuchPartition(PARTITIONS));
    for disorder in [&[(2, 1), (1, 1)][..], &[(1, 1), (1, 2)], &[(1, 0)]] {
        assert_eq!(read(fill(0, vector(disorder))), WireError::Order("fill_request.vector"));
    }
    assert_eq!(read(Kind::Operations(Default::default())), WireError::Empty("operations"));
    assert_eq!(read(Kind::ChangeAsked(Default::default())), WireError::Missing("change_asked.change"));
    assert_eq!(read(Kind::ChangeAnswered(Default::default())), WireError::Missing("change_answered.outcome"));
    let refused = |reason, about| {
        let outcome = proto::change_answered::Outcome::Refused(proto::ChangeRefused { reason, about });
        Kind::ChangeAnswered(proto::ChangeAnswered { id: 1, outcome: Some(outcome) })
    };
    assert_eq!(read(refused(99, 0)), WireError::Unknown { field: "change_answered.reason", value: 99 });
    assert_eq!(read(refused(3, PARTITIONS)), WireError::NoSuchPartition(PARTITIONS));
    let nobody = proto::change_asked::Change::Remove("nobody".into());
    let asked = proto::ChangeAsked { id: 1, change: Some(nobody), epoch: 0, again: false };
    assert!(matches!(read(Kind::ChangeAsked(asked)), WireError::Address { field: "change_asked.node", .. }));
    let nameless = proto::LossAsked { id: 1, incarnations: vec![Bytes::from_static(b"short")] };
    assert_eq!(read(Kind::LossAsked(nameless)), WireError::Length { field: "loss_asked.incarnations", found: 5 });
    let outside = proto::HeldUpTo { partition: PARTITIONS, stay: 1, seq: 1 };
    for told in [true, false] {
        let (told, held) = if told { (vec![outside], vec![]) } else { (vec![], vec![outside]) };
        let told = proto::LossTold { id: 1, told, held };
        assert_eq!(read(Kind::LossTold(told)), WireError::NoSuchPartition(PARTITIONS));
    }
    assert_eq!(read(Kind::Forward(Default::default())), WireError::Missing("request"));
    let nowhere = proto::ForwardRefused { id: 1, better: Some("nowhere".into()) };
    assert!(matches!(read(Kind::ForwardRefused(nowhere)), WireError::Address { .. }));
    let no_code = proto::ClientResponse { kind: Some(proto::client_response::Kind::Error(99)) };
    let reply = proto::ForwardReply { id: 1, response: Some(no_code) };
    assert_eq!(read(Kind::ForwardReply(reply)), WireError::Unknown { field: "response.error", value: 99 });
    let short = proto::ClusterMap { secret: Bytes::from_static(b"short"), ..Default::default() };
    assert_eq!(read(Kind::MapPush(short)), WireError::Length { field: "map.secret", found: 5 });
    assert_eq!(read(Kind::MapDeltas(Default::default())), WireError::Empty("map_deltas.deltas"));
    let delta = |delta: proto::MapDelta| read(Kind::MapDeltas(proto::MapDeltas { deltas: vec![delta] }));
    assert_eq!(delta(Default::default()), WireError::Missing("delta.changed"));
    let changed = Some(proto::ClusterMap {
        cluster_id: id_to_proto(1),
        secret: Bytes::from_static(&[1; 16]),
        ..Default::default()
    });
    let stray = proto::MapDelta { changed: changed.clone(), partitions: vec![1], ..Default::default() };
    assert_eq!(delta(stray), WireError::Order("delta.partitions"));
    let nothing = proto::MapDelta { changed: changed.clone(), kept: vec![0], ..Default::default() };
    assert_eq!(delta(nothing), WireError::Unknown { field: "delta.kept", value: 0 });
    let twice = proto::MapDelta { changed, kept: vec![2, 2], ..Default::default() };
    assert_eq!(delta(twice), WireError::Order("delta.kept"));
    let op = proto::Op { key: String::new(), ..Default::default() };
    let operations = proto::Operations { operations: vec![op], ..Default::default() };
    assert_eq!(read(Kind::Operations(operations)), WireError::Empty("op.key"));
}

#[test]
fn a_map_that_contradicts_itself_is_refused() {
    let node: NodeAddr = "node1:80".parse().unwrap();
    let good = ClusterMap {
        epoch: Epoch(3),
        rows: vec![Row { version: Epoch(3), next_stay: StayId(1), ..Row::default() }],
        ..map_zero(std::slice::from_ref(&node), 1, 1)
    };
    let read = |map: &ClusterMap| {
        READER.message(message_to_proto(&Message::MapPush(Arc::new(map.clone()))).unwrap()).map(|_| ())
    };
    assert_eq!(read(&good), Ok(()));
    let stay = Stay::new(Incarnation(1), PeerState::Serving);
    let target = |layout: Layout| Some(Target { layout, name: "reshard to 1".to_owned(), even: true });
    let nowhere = target(Layout { partitions: vec![ShardId(2)], ..good.layout.clone() });
    let stranger = "node2:80".parse::<NodeAddr>().unwrap();
    let strange = target(Layout { shards: vec![vec![stranger.clone()]], ..good.layout.clone() });
    let contradictions: [&dyn Fn(&mut ClusterMap); 12] = [
        &|map| map.layout.partitions.clear(),
        &|map| map.layout.partitions[0] = ShardId(2),
        &|map| map.layout.partitions[0] = ShardId(0),
        &|map| map.nodes.clear(),
        &|map| map.rows[0].version = Epoch(4),
        &|map| map.rows[0].peers = [(StayId(1), stay)].into(),
        &|map| map.rows[0].peers = [(StayId(0), Stay { lost: true, ..stay })].into(),
        &|map| map.rows[0].peers = [(StayId(0), Stay { lost_by_word: true, state: PeerState::Leaving, ..stay })].into(),
        &|map| map.layout.shards.push(vec![node.clone()]),
        &|map| map.target = nowhere.clone(),
        &|map| map.target = strange.clone(),
        &|map| map.out = [stranger.clone()].into(),
    ];
    for (number, contradict) in contradictions.iter().enumerate() {
        let mut map = good.clone();
        contradict(&mut map);
        assert!(matches!(read(&map), Err(WireError::Map(_))), "contradiction {number}");
    }
}

#[test]
fn a_step_takes_a_small_part_of_the_bytes_of_its_map() {
    let nodes: Vec<NodeAddr> = (1..=7).map(|number| format!("10.10.0.{number}:8085").parse().unwrap()).collect();
    let bound = nodes.iter().cloned().zip((1..).map(|number| Incarnation(number << 100))).collect();
    let map = map_one(&map_zero(&nodes, 3, 256), &bound, ClusterId(1 << 100), ContextSecret([1; 16]));
    let mut next = ClusterMap { epoch: Epoch(2), parent_hash: map.hash(), ..map.clone() };
    next.rows[5].peers.insert(StayId(9), Stay::new(Incarnation(1 << 100), PeerState::Joining));
    next.rows[5] = Row { version: Epoch(2), next_stay: StayId(10), ..next.rows[5].clone() };
    let bytes = |message: Message| message_to_proto(&message).unwrap().encoded_len();
    let whole = bytes(Message::MapPush(Arc::new(next.clone())));
    let step = bytes(Message::MapDeltas(vec![Arc::new(MapDelta::between(&map, &next))]));
    println!("one row of 256 changes: {whole} bytes whole, {step} as a difference");
    assert!(step < 512 && whole > 40 * step, "{step} of {whole}");
}

#[test]
fn small_values_do_not_keep_their_frame() {
    let item = |bytes: usize| Item {
        value: Some(Bytes::from(vec![b'1'; bytes])),
        dot: Dot { stay: StayId(1), seq: 1 },
        timestamp: Timestamp(1),
        carried: Context::empty(),
    };
    let kept_in_frame = |bytes: usize| {
        let op = Arc::new(Op { key: Key::new("k").unwrap(), item: item(bytes), deps: VersionVector::default() });
        let sent = Message::Operations { partition: PartitionId(0), version: Epoch(1), operations: vec![op] };
        let frame = Bytes::from(message_to_proto(&sent).unwrap().encode_to_vec());
        let range = frame.as_ptr_range();
        let Ok(Message::Operations { operations, .. }) = READER.message(proto::Message::decode(frame.clone()).unwrap())
        else {
            panic!("operations stay operations")
        };
        range.contains(&operations[0].item.value.as_ref().unwrap().as_ptr())
    };
    assert!(!kept_in_frame(100));
    assert!(kept_in_frame(1 << 20));
}

#[test]
fn the_largest_value_fits_a_frame() {
    let outbox = Outbox::default();
    outbox.open();
    let value = Bytes::from(vec![b'1'; crate::config::MOST_VALUE_BYTES]);
    let key = Key::new(&"k".repeat(crate::config::MOST_KEY_BYTES)).unwrap();
    let mut context = Context::empty();
    for number in 0..20_000 {
        context.raise(PartitionId(number), StayId(number), u64::MAX);
    }
    let request = Request::Put { key, value, context };
    outbox.push(Message::Forward { id: 1, remaining_ms: 1, request }).unwrap();
    let batch = outbox.take().unwrap();
    let messages = batch.messages.iter().filter_map(message_to_proto).collect();
    let frame = proto::Frame { number: u64::MAX, cluster_id: id_to_proto(1), messages, ..Default::default() };
    assert!(frame.encoded_len() <= crate::wire::MAX_FRAME_BYTES);
}
