//! What one partition knows: vectors, contexts, items, operations; and clients' requests with their answers.

use bytes::Bytes;

use super::{Reader, WireError, timestamp};
use crate::causal::context::Context;
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::vector::VersionVector;
use crate::cluster::map::PeerState;
use crate::error::Code;
use crate::machine::message::{Request, Response};
use crate::types::{Dot, Epoch, Key, PartitionId, Seq, ShardId, StayId};
use crate::wire::proto;
use proto::client_request::{self, Kind as RequestKind};
use proto::client_response::{self, Kind as ResponseKind};

/// Received values below this size are copied out of the frame they came in. A value that is shared keeps the whole
/// frame in memory for as long as it waits; a copy of this size costs less than a microsecond.
const COPY_BELOW_BYTES: usize = 16 << 10;

/// A vector as protobuf.
pub fn vector_to_proto(vector: &VersionVector) -> proto::VersionVector {
    let entries = vector.iter().map(|(stay, seq)| proto::StaySeq { stay: stay.0, seq }).collect();
    proto::VersionVector { entries }
}

/// A vector that is not there is the empty one, as protobuf has it for all defaults.
pub fn vector(field: &'static str, received: Option<proto::VersionVector>) -> Result<VersionVector, WireError> {
    let entries = received.unwrap_or_default().entries;
    let ascending = entries.is_sorted_by(|a, b| a.stay < b.stay);
    if !ascending || entries.iter().any(|e| e.seq == 0) {
        return Err(WireError::Order(field));
    }
    Ok(entries.iter().map(|e| (StayId(e.stay), e.seq)).collect())
}

pub fn context_to_proto(context: &Context) -> Option<proto::Context> {
    // Most writes carry nothing: nothing is sent for it.
    if *context == Context::empty() {
        return None;
    }
    let entry = |(partition, stay, seq): (PartitionId, StayId, Seq)| proto::ContextEntry {
        partition: partition.0,
        stay: stay.0,
        seq,
    };
    let entries = context.iter().map(entry).collect();
    Some(proto::Context { epoch: context.epoch().0, entries, clock: context.clock().0 })
}

pub fn context(reader: Reader, field: &'static str, received: Option<proto::Context>) -> Result<Context, WireError> {
    let received = received.unwrap_or_default();
    let ascending = received.entries.is_sorted_by(|a, b| (a.partition, a.stay) < (b.partition, b.stay));
    if !ascending || received.entries.iter().any(|e| e.seq == 0) {
        return Err(WireError::Order(field));
    }
    let mut context = Context::empty();
    context.raise_epoch(Epoch(received.epoch));
    context.raise_clock(timestamp("context.clock", received.clock)?);
    for entry in received.entries {
        context.raise(reader.partition(entry.partition)?, StayId(entry.stay), entry.seq);
    }
    Ok(context)
}

pub fn item_to_proto(item: &Item) -> proto::Item {
    proto::Item {
        value: item.value.clone(),
        stay: item.dot.stay.0,
        seq: item.dot.seq,
        timestamp: item.timestamp.0,
        carried: context_to_proto(&item.carried),
    }
}

pub fn item(reader: Reader, received: Option<proto::Item>) -> Result<Item, WireError> {
    let received = received.ok_or(WireError::Missing("item"))?;
    if received.seq == 0 {
        return Err(WireError::Unknown { field: "item.seq", value: 0 });
    }
    Ok(Item {
        value: received.value.map(unshare),
        dot: Dot { stay: StayId(received.stay), seq: received.seq },
        timestamp: timestamp("item.timestamp", received.timestamp)?,
        carried: context(reader, "item.carried", received.carried)?,
    })
}

pub fn op_to_proto(op: &Op) -> proto::Op {
    proto::Op {
        key: op.key.as_str().to_owned(),
        item: Some(item_to_proto(&op.item)),
        deps: (!op.deps.is_empty()).then(|| vector_to_proto(&op.deps)),
    }
}

pub fn op(reader: Reader, received: proto::Op) -> Result<Op, WireError> {
    Ok(Op {
        key: key("op.key", &received.key)?,
        item: item(reader, received.item)?,
        deps: vector("op.deps", received.deps)?,
    })
}

pub fn key(field: &'static str, text: &str) -> Result<Key, WireError> {
    Key::new(text).map_err(|_| WireError::Empty(field))
}

pub fn request_to_proto(request: &Request) -> proto::ClientRequest {
    let text = |key: &Key| key.as_str().to_owned();
    let kind = match request {
        Request::Get { key, context } => {
            RequestKind::Get(client_request::Get { key: text(key), context: context_to_proto(context) })
        }
        Request::Put { key, value, context } => RequestKind::Put(client_request::Put {
            key: text(key),
            value: value.clone(),
            context: context_to_proto(context),
        }),
        Request::Delete { key, context } => {
            RequestKind::Delete(client_request::Delete { key: text(key), context: context_to_proto(context) })
        }
        Request::KeyCount { shard } => RequestKind::KeyCount(client_request::KeyCount { shard: shard.0 }),
        Request::CountOf { partitions } => RequestKind::CountOf(client_request::CountOf {
            partitions: partitions.iter().map(|partition| partition.0).collect(),
        }),
    };
    proto::ClientRequest { kind: Some(kind) }
}

pub fn request(reader: Reader, received: Option<proto::ClientRequest>) -> Result<Request, WireError> {
    let key = |text: &str| key("request.key", text);
    let context = |received| context(reader, "request.context", received);
    match received.and_then(|r| r.kind).ok_or(WireError::Missing("request"))? {
        RequestKind::Get(get) => Ok(Request::Get { key: key(&get.key)?, context: context(get.context)? }),
        RequestKind::Put(put) => {
            Ok(Request::Put { key: key(&put.key)?, value: unshare(put.value), context: context(put.context)? })
        }
        RequestKind::Delete(delete) => {
            Ok(Request::Delete { key: key(&delete.key)?, context: context(delete.context)? })
        }
        RequestKind::KeyCount(count) => Ok(Request::KeyCount { shard: ShardId(count.shard) }),
        RequestKind::CountOf(count) => Ok(Request::CountOf {
            partitions: count.partitions.into_iter().map(|p| reader.partition(p)).collect::<Result<_, _>>()?,
        }),
    }
}

pub fn response_to_proto(response: &Response) -> proto::ClientResponse {
    let kind = match response {
        Response::Written { existed, context, shard, copies } => ResponseKind::Written(client_response::Written {
            existed: *existed,
            context: context_to_proto(context),
            shard: shard.0,
            copies: *copies,
        }),
        Response::Value { value, context } => {
            ResponseKind::Value(client_response::Value { value: value.clone(), context: context_to_proto(context) })
        }
        Response::Missing { context } => {
            ResponseKind::Missing(client_response::Missing { context: context_to_proto(context) })
        }
        Response::KeyCount(count) => ResponseKind::KeyCount(*count),
        Response::Error(code) => ResponseKind::Error(code_to_proto(*code).into()),
    };
    proto::ClientResponse { kind: Some(kind) }
}

pub fn response(reader: Reader, received: Option<proto::ClientResponse>) -> Result<Response, WireError> {
    let context = |received| context(reader, "response.context", received);
    match received.and_then(|r| r.kind).ok_or(WireError::Missing("response"))? {
        ResponseKind::Written(written) => Ok(Response::Written {
            existed: written.existed,
            context: context(written.context)?,
            shard: ShardId(written.shard),
            copies: written.copies,
        }),
        ResponseKind::Value(value) => {
            Ok(Response::Value { value: unshare(value.value), context: context(value.context)? })
        }
        ResponseKind::Missing(missing) => Ok(Response::Missing { context: context(missing.context)? }),
        ResponseKind::KeyCount(count) => Ok(Response::KeyCount(count)),
        ResponseKind::Error(number) => Ok(Response::Error(code(number)?)),
    }
}

/// A peer's state as protobuf.
pub fn state_to_proto(state: PeerState) -> proto::PeerState {
    match state {
        PeerState::Joining => proto::PeerState::Joining,
        PeerState::Serving => proto::PeerState::Serving,
        PeerState::Leaving => proto::PeerState::Leaving,
    }
}

pub fn state(field: &'static str, number: i32) -> Result<PeerState, WireError> {
    match proto::PeerState::try_from(number) {
        Ok(proto::PeerState::Joining) => Ok(PeerState::Joining),
        Ok(proto::PeerState::Serving) => Ok(PeerState::Serving),
        Ok(proto::PeerState::Leaving) => Ok(PeerState::Leaving),
        Ok(proto::PeerState::Unspecified) | Err(_) => Err(WireError::Unknown { field, value: number.into() }),
    }
}

fn code_to_proto(code: Code) -> proto::ErrorCode {
    match code {
        Code::ContextMalformed => proto::ErrorCode::ContextMalformed,
        Code::DependenciesUnsatisfied => proto::ErrorCode::DependenciesUnsatisfied,
        Code::ShardUnavailable => proto::ErrorCode::ShardUnavailable,
        Code::TooManyRequests => proto::ErrorCode::TooManyRequests,
        Code::DiskFull => proto::ErrorCode::DiskFull,
        Code::OutcomeUnknown => proto::ErrorCode::OutcomeUnknown,
        Code::NoSuchShard => proto::ErrorCode::NoSuchShard,
        Code::Internal => proto::ErrorCode::Internal,
    }
}

fn code(number: i32) -> Result<Code, WireError> {
    match proto::ErrorCode::try_from(number) {
        Ok(proto::ErrorCode::ContextMalformed) => Ok(Code::ContextMalformed),
        Ok(proto::ErrorCode::DependenciesUnsatisfied) => Ok(Code::DependenciesUnsatisfied),
        Ok(proto::ErrorCode::ShardUnavailable) => Ok(Code::ShardUnavailable),
        Ok(proto::ErrorCode::TooManyRequests) => Ok(Code::TooManyRequests),
        Ok(proto::ErrorCode::DiskFull) => Ok(Code::DiskFull),
        Ok(proto::ErrorCode::OutcomeUnknown) => Ok(Code::OutcomeUnknown),
        Ok(proto::ErrorCode::NoSuchShard) => Ok(Code::NoSuchShard),
        Ok(proto::ErrorCode::Internal) => Ok(Code::Internal),
        Ok(proto::ErrorCode::Unspecified) | Err(_) => {
            Err(WireError::Unknown { field: "response.error", value: number.into() })
        }
    }
}

/// A received value that may be kept for long.
fn unshare(value: Bytes) -> Bytes {
    if value.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(&value) } else { value }
}
