//! How many bytes a message takes at most on the wire: the bounds of queues and frames count these.
//!
//! An upper bound, cheap to have: every number at its longest, every nested message with its header. `tests.rs` of
//! `wire::convert` holds it against what is really encoded.

use crate::causal::context::Context;
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::vector::VersionVector;
use crate::cluster::delta::MapDelta;
use crate::cluster::map::{ClusterMap, Layout};
use crate::cluster::paxos::PaxosMessage;
use crate::machine::message::{FillChunk, Message, Request, Response};

/// Any header with the numbers, ids and addresses of one message.
const HEAD: usize = 128;
/// An address of a node with its tag; DNS names end at 253 characters.
const ADDRESS: usize = 272;

/// What one partition and stay take, with how far something is held.
const HELD: usize = 32;

/// At least as many bytes as the message takes.
pub fn weight(message: &Message) -> usize {
    HEAD + match message {
        Message::Ping(ping) | Message::Pong(ping) => ADDRESS * ping.hears.len() + HELD * ping.exposed.len(),
        Message::Operations { operations, .. } => operations.iter().map(|op| op_weight(op)).sum(),
        Message::Report(reports) => reports.iter().map(|r| HEAD + vector(&r.durable)).sum(),
        Message::Stability(reports) => reports.iter().map(|r| HEAD + vector(&r.stable)).sum(),
        Message::FillRequest { vector: v, .. } => vector(v),
        Message::FillChunk(chunk) => fill_chunk(chunk),
        Message::FillNext { .. } | Message::MapPull { .. } => 0,
        Message::Forward { request: r, .. } => request(r),
        Message::ForwardReply { response: r, .. } => response(r),
        Message::ForwardRefused { .. } => ADDRESS,
        Message::Words(words) => words.iter().map(|w| HEAD + vector(&w.first) + vector(&w.durable)).sum(),
        Message::ChangeAsked { .. } => ADDRESS,
        Message::ChangeAnswered { .. } => 0,
        Message::Paxos(PaxosMessage::Promise { accepted: Some((_, d)), .. } | PaxosMessage::Accept { next: d, .. }) => {
            delta(d)
        }
        Message::Paxos(_) => 0,
        Message::LossAsked { incarnations, .. } => 20 * incarnations.len(),
        Message::LossTold { told, held, .. } => HELD * (told.len() + held.len()),
        Message::RecoveryAsked { present, .. } => ADDRESS * present.len(),
        Message::RecoveryAnswered { .. } => ADDRESS,
        Message::MapPush(m) => map(m),
        Message::MapDeltas(chain) => chain.iter().map(|d| delta(d)).sum(),
    }
}

/// At least as many bytes as the operation takes.
pub fn op_weight(op: &Op) -> usize {
    24 + op.key.as_str().len() + item(&op.item) + vector(&op.deps)
}

fn item(item: &Item) -> usize {
    56 + item.value.as_ref().map_or(0, bytes::Bytes::len) + context(&item.carried)
}

fn vector(vector: &VersionVector) -> usize {
    8 + 20 * vector.len()
}

fn context(context: &Context) -> usize {
    24 + 26 * context.len()
}

fn fill_chunk(chunk: &FillChunk) -> usize {
    let items: usize = chunk.items.iter().map(|(key, i)| 24 + key.as_str().len() + item(i)).sum();
    items + chunk.end.as_ref().map_or(0, |end| 32 + vector(&end.vector))
}

fn request(request: &Request) -> usize {
    match request {
        Request::Get { key, context: c } | Request::Delete { key, context: c } => key.as_str().len() + context(c),
        Request::Put { key, value, context: c } => key.as_str().len() + value.len() + context(c),
        Request::KeyCount { .. } => 0,
        Request::CountOf { partitions } => 4 * partitions.len(),
    }
}

fn response(response: &Response) -> usize {
    match response {
        Response::Written { context: c, .. } | Response::Missing { context: c } => context(c),
        Response::Value { value, context: c } => value.len() + context(c),
        Response::KeyCount(_) | Response::Error(_) => 0,
    }
}

fn delta(delta: &MapDelta) -> usize {
    HEAD + map(&delta.changed) + 6 * delta.partitions.len() + 2 * delta.kept.len()
}

fn map(map: &ClusterMap) -> usize {
    let rows: usize = map.rows.iter().map(|row| 32 + 56 * row.peers.len()).sum();
    let target = map.target.as_ref().map_or(0, |target| 24 + target.name.len() + layout(&target.layout));
    let nodes = (ADDRESS + 24) * (map.nodes.len() + map.former.len()) + ADDRESS * map.out.len();
    HEAD + rows + layout(&map.layout) + target + nodes + 18 * (map.voters.len() + map.forgotten.len())
}

fn layout(layout: &Layout) -> usize {
    let members: usize = layout.shards.iter().map(|nodes| 8 + ADDRESS * nodes.len()).sum();
    16 + members + 6 * layout.partitions.len()
}
