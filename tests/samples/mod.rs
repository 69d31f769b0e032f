//! One of everything that nodes send each other, with every part of it set: what a build of today says, for the
//! fixtures that later builds must read (`tests/formats`), and as the seeds of bad input (`tests/fuzz`).
//!
//! To be added to, never changed: what stands here has been sent.

use std::sync::Arc;

use bytes::Bytes;
use entail::causal::context::Context;
use entail::causal::item::Item;
use entail::causal::op::Op;
use entail::causal::vector::VersionVector;
use entail::cluster::change::{Change, ChangeError};
use entail::cluster::delta::MapDelta;
use entail::cluster::layout::{map_one, map_zero};
use entail::cluster::line::{Fork, Line};
use entail::cluster::map::{ClusterMap, PeerState, Stay, Target};
use entail::cluster::paxos::{Ballot, PaxosMessage};
use entail::cluster::plan::PlanError;
use entail::error::Code;
use entail::machine::agreement::Disagreement;
use entail::machine::message::{
    ClockPromise, FillChunk, FillEnd, Message, PartitionReport, PartitionWord, Request, Response, StabilityReport,
};
use entail::machine::sign::{HeldUpTo, Ping, Served};
use entail::types::{
    BranchId, ClusterId, ContextSecret, Dot, Epoch, Incarnation, Key, NodeAddr, PartitionId, ShardId, StayId, Timestamp,
};

/// Partitions of the samples' store.
pub const PARTITIONS: u32 = 4;

pub fn node(number: u32) -> NodeAddr {
    format!("10.10.0.{number}:8085").parse().expect("an address")
}

fn incarnation(number: u128) -> Incarnation {
    Incarnation(number << 96 | 0xabcdef)
}

pub fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn vector() -> VersionVector {
    [(StayId(0), 17), (StayId(3), 1 << 40), (StayId(u32::MAX), u64::MAX)].into_iter().collect()
}

pub fn context() -> Context {
    let mut context = Context::empty();
    context.raise_epoch(Epoch(7));
    for (partition, stay, seq) in [(0, 0, 1), (1, 5, 300), (3, 1, 1 << 50)] {
        context.raise(PartitionId(partition), StayId(stay), seq);
    }
    context
}

pub fn item(value: Option<&'static str>) -> Item {
    Item {
        value: value.map(|text| Bytes::from_static(text.as_bytes())),
        dot: Dot { stay: StayId(3), seq: 300 },
        timestamp: Timestamp(1_700_000_000_000 << 16 | 9),
        carried: context(),
    }
}

pub fn op() -> Op {
    Op { key: key("a/b 😀"), item: item(Some(r#"{"n":1e400}"#)), deps: vector() }
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, proposer: 5 << 100 }
}

/// A map as birth makes it: four nodes in two shards, one node more.
pub fn born() -> ClusterMap {
    let nodes: Vec<NodeAddr> = (1..=5).map(node).collect();
    let bound = nodes.iter().cloned().zip((1..).map(incarnation)).collect();
    let map = map_one(&map_zero(&nodes[..4], 2, PARTITIONS), &bound, ClusterId(1 << 100), ContextSecret([7; 16]));
    ClusterMap { nodes: map.nodes.into_iter().chain([(node(5), Some(incarnation(5)))]).collect(), ..map }
}

/// The same with everything set that a map can say.
pub fn changed() -> ClusterMap {
    let base = born();
    let mut map = ClusterMap {
        epoch: Epoch(100),
        parent_hash: base.hash(),
        line: Line::new(vec![Fork { branch: BranchId(9), after: Epoch(5), first: Epoch(99) }]).expect("a line"),
        out: [node(5)].into(),
        former: [(incarnation(9), node(1))].into(),
        forgotten: [incarnation(8), incarnation(9)].into(),
        target: Some(Target { layout: base.layout.clone(), name: "reshard to 2".to_owned(), even: true }),
        ..base
    };
    let row = &mut map.rows[1];
    (row.version, row.next_stay, row.skipped) = (Epoch(100), StayId(40), vec![(StayId(20), StayId(30))]);
    let lost = Stay { lost: true, lost_by_word: true, ..Stay::new(incarnation(9), PeerState::Leaving) };
    let filled = Stay { begun_empty: Some(Epoch(99)), ..Stay::new(incarnation(5), PeerState::Joining) };
    row.peers.extend([(StayId(35), lost), (StayId(39), filled)]);
    map
}

fn delta() -> Arc<MapDelta> {
    Arc::new(MapDelta::between(&born(), &changed()))
}

pub fn ping() -> Ping {
    let map = changed();
    Ping {
        cluster_id: map.cluster_id,
        line: map.line,
        epoch: map.epoch,
        settings_hash: 0xfeed_0000_0000_0001,
        speaks: 1,
        tells_clocks: false,
        wall_ms: 1_700_000_000_000,
        asked_ms: 0,
        hears: vec![node(1), node(3)],
        steps: 0,
        exposed: Arc::default(),
        served: Served::default(),
    }
}

/// Every message that goes over a stream, by a name for its file.
pub fn messages() -> Vec<(String, Message)> {
    let mut all = data();
    all.extend(requests());
    all.extend(responses());
    all.extend(agreement());
    all.extend(changes());
    all
}

fn named(name: &str, message: Message) -> (String, Message) {
    (name.to_owned(), message)
}

fn data() -> Vec<(String, Message)> {
    let (partition, version, stay) = (PartitionId(1), Epoch(100), StayId(39));
    let promise = Some(ClockPromise { seq: 5, clock: Timestamp(1 << 60) });
    let end = Some(FillEnd { vector: vector(), floor: Epoch(3), clock: Timestamp(1 << 60) });
    let items = vec![(key("a"), item(Some("null"))), (key("b"), item(None))];
    let first = [(StayId(0), 1)].into_iter().collect();
    vec![
        named("operations", Message::Operations { partition, version, operations: vec![Arc::new(op())] }),
        named(
            "report",
            Message::Report(vec![PartitionReport { partition, version, stay, durable: vector(), promise }]),
        ),
        named("stability", Message::Stability(vec![StabilityReport { partition, version, stable: vector() }])),
        named("fill_request", Message::FillRequest { partition, version, attempt: 77, vector: vector() }),
        named("fill_chunk", Message::FillChunk(FillChunk { partition, version, attempt: 77, index: 5, items, end })),
        named("fill_next", Message::FillNext { partition, attempt: 77, index: 6 }),
        named(
            "words",
            Message::Words(vec![PartitionWord {
                partition,
                version,
                stay,
                first,
                durable: vector(),
                steps: 9,
                bytes: 10,
            }]),
        ),
    ]
}

fn requests() -> Vec<(String, Message)> {
    let requests = [
        ("get", Request::Get { key: key("k"), context: context() }),
        ("put", Request::Put { key: key("k"), value: Bytes::from_static(b"[1,2]"), context: context() }),
        ("delete", Request::Delete { key: key("k"), context: context() }),
        ("key_count", Request::KeyCount { shard: ShardId(2) }),
        ("count_of", Request::CountOf { partitions: vec![PartitionId(0), PartitionId(3)] }),
    ];
    let forward =
        |(name, request)| named(&format!("forward_{name}"), Message::Forward { id: 9, remaining_ms: 8, request });
    requests.into_iter().map(forward).collect()
}

fn responses() -> Vec<(String, Message)> {
    let written = Response::Written { existed: true, context: context(), shard: ShardId(2), copies: 3 };
    let responses = [
        ("written".to_owned(), written),
        ("value".to_owned(), Response::Value { value: Bytes::from_static(b"17"), context: context() }),
        ("missing".to_owned(), Response::Missing { context: context() }),
        ("key_count".to_owned(), Response::KeyCount(1 << 40)),
    ];
    let codes = [
        Code::ContextMalformed,
        Code::DependenciesUnsatisfied,
        Code::ShardUnavailable,
        Code::TooManyRequests,
        Code::DiskFull,
        Code::OutcomeUnknown,
        Code::NoSuchShard,
        Code::Internal,
    ];
    let codes = codes.map(|code| (format!("{code:?}").to_lowercase(), Response::Error(code)));
    let reply = |(name, response)| named(&format!("forward_reply_{name}"), Message::ForwardReply { id: 9, response });
    let refused = named("forward_refused", Message::ForwardRefused { id: 9, better: Some(node(2)) });
    responses.into_iter().chain(codes).map(reply).chain([refused]).collect()
}

fn held(stay: u32, seq: u64) -> HeldUpTo {
    HeldUpTo { partition: PartitionId(3), stay: StayId(stay), seq }
}

fn agreement() -> Vec<(String, Message)> {
    let (epoch, acceptor) = (Epoch(100), incarnation(2));
    let recovery = |outcome| Message::RecoveryAnswered { id: 3, outcome };
    let promise = |accepted| PaxosMessage::Promise { epoch, ballot: ballot(8), acceptor, accepted };
    let asked = Message::RecoveryAsked { id: 3, branch: BranchId(9), epoch, present: vec![node(1), node(2)] };
    vec![
        named("paxos_prepare", Message::Paxos(PaxosMessage::Prepare { epoch, ballot: ballot(8) })),
        named("paxos_promise", Message::Paxos(promise(Some((ballot(7), delta()))))),
        named("paxos_promise_none", Message::Paxos(promise(None))),
        named("paxos_accept", Message::Paxos(PaxosMessage::Accept { epoch, ballot: ballot(8), next: delta() })),
        named("paxos_accepted", Message::Paxos(PaxosMessage::Accepted { epoch, ballot: ballot(8), acceptor })),
        named(
            "paxos_rejected",
            Message::Paxos(PaxosMessage::Rejected { epoch, ballot: ballot(7), promised: ballot(8) }),
        ),
        named("map_pull", Message::MapPull { have: Epoch(99), hash: 1 << 63 | 1 }),
        named("map_push", Message::MapPush(Arc::new(changed()))),
        named("map_deltas", Message::MapDeltas(vec![delta()])),
        named("recovery_asked", asked),
        named("recovery_agreed", recovery(Ok(()))),
        named("recovery_quorum_lives", recovery(Err(Disagreement::QuorumLives))),
        named("recovery_hears", recovery(Err(Disagreement::Hears(node(3))))),
        named("recovery_another", recovery(Err(Disagreement::Another))),
        named("loss_asked", Message::LossAsked { id: 4, incarnations: vec![incarnation(1), incarnation(3)] }),
        named("loss_told", Message::LossTold { id: 4, told: vec![held(1, 17), held(2, 3)], held: vec![held(1, 5)] }),
    ]
}

fn changes() -> Vec<(String, Message)> {
    let asked = [
        ("reshard", Change::Reshard(3)),
        ("add_member", Change::AddMember { shard: ShardId(2), node: node(5) }),
        ("admit", Change::Admit { node: node(6), incarnation: incarnation(6) }),
        ("remove", Change::Remove(node(1))),
        ("forget", Change::Forget(node(1))),
        ("cancel", Change::Cancel),
    ];
    let errors: [ChangeError; 15] = [
        PlanError::NotEnoughNodes.into(),
        PlanError::TooManyShards.into(),
        PlanError::ShardUnavailable(PartitionId(3)).into(),
        PlanError::NoSuchShard.into(),
        PlanError::NodeNotInView.into(),
        PlanError::NodeInAnotherShard(ShardId(1)).into(),
        PlanError::AlreadyMember.into(),
        PlanError::LastHolder(ShardId(1)).into(),
        ChangeError::InProgress,
        ChangeError::NotInProgress,
        ChangeError::AlreadyInView,
        ChangeError::NoSuchNode,
        ChangeError::NotItsDirectory,
        ChangeError::NotLost,
        ChangeError::MovedOn,
    ];
    let asked = asked.map(|(name, change)| {
        named(&format!("change_{name}"), Message::ChangeAsked { id: 4, change, epoch: Epoch(0), again: false })
    });
    let again = Message::ChangeAsked { id: 4, change: Change::Reshard(3), epoch: Epoch(7), again: true };
    let again = named("change_asked_again", again);
    let refused = errors.into_iter().enumerate().map(|(number, error)| {
        let name = format!("change_refused_{}", number + 1);
        named(&name, Message::ChangeAnswered { id: 4, outcome: Err(error) })
    });
    let done = named("change_done", Message::ChangeAnswered { id: 4, outcome: Ok(Epoch(101)) });
    asked.into_iter().chain(refused).chain([done, again]).collect()
}
