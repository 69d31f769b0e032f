//! One message between nodes, variant by variant.

use std::sync::Arc;

use super::change::{answered, answered_to_proto, asked, asked_to_proto};
use super::map::{delta, delta_to_proto, map, map_to_proto, paxos, paxos_to_proto};
use super::value::{
    item, item_to_proto, key, op, op_to_proto, request, request_to_proto, response, response_to_proto, vector,
    vector_to_proto,
};
use super::{Reader, WireError, address, timestamp};
use super::{losses, recovery};
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::machine::message::{
    ClockPromise, FillChunk, FillEnd, Message, PartitionReport, PartitionWord, StabilityReport,
};
use crate::types::{Epoch, Key, PartitionId, StayId};
use crate::wire::proto;
use proto::message::Kind;

pub fn to_proto(message: &Message) -> Option<Kind> {
    let kind = match message {
        Message::Ping(_) | Message::Pong(_) => return None,
        Message::Operations { partition, version, operations } => {
            Kind::Operations(operations_to_proto(*partition, *version, operations))
        }
        Message::Report(reports) => {
            Kind::Report(proto::Report { partitions: reports.iter().map(report_to_proto).collect() })
        }
        Message::Stability(reports) => {
            Kind::Stability(proto::Stability { partitions: reports.iter().map(stability_to_proto).collect() })
        }
        Message::FillRequest { partition, version, attempt, vector } => Kind::FillRequest(proto::FillRequest {
            partition: partition.0,
            version: version.0,
            attempt: *attempt,
            vector: Some(vector_to_proto(vector)),
        }),
        Message::FillChunk(chunk) => Kind::FillChunk(chunk_to_proto(chunk)),
        Message::FillNext { partition, attempt, index } => {
            Kind::FillNext(proto::FillNext { partition: partition.0, attempt: *attempt, index: *index })
        }
        Message::Forward { id, remaining_ms, request } => Kind::Forward(proto::Forward {
            id: *id,
            remaining_ms: *remaining_ms,
            request: Some(request_to_proto(request)),
        }),
        Message::ForwardReply { id, response } => {
            Kind::ForwardReply(proto::ForwardReply { id: *id, response: Some(response_to_proto(response)) })
        }
        Message::ForwardRefused { id, better } => Kind::ForwardRefused(proto::ForwardRefused {
            id: *id,
            better: better.as_ref().map(|node| node.as_str().to_owned()),
        }),
        Message::Words(words) => Kind::Words(proto::Words { partitions: words.iter().map(word_to_proto).collect() }),
        Message::ChangeAsked { id, change, epoch, again } => {
            Kind::ChangeAsked(asked_to_proto(*id, change, *epoch, *again))
        }
        Message::ChangeAnswered { id, outcome } => Kind::ChangeAnswered(answered_to_proto(*id, outcome)),
        Message::Paxos(paxos) => Kind::Paxos(paxos_to_proto(paxos)),
        Message::LossAsked { id, incarnations } => Kind::LossAsked(losses::asked_to_proto(*id, incarnations)),
        Message::LossTold { id, told, held } => Kind::LossTold(losses::told_to_proto(*id, told, held)),
        Message::RecoveryAsked { id, branch, epoch, present } => {
            Kind::RecoveryAsked(recovery::asked_to_proto(*id, *branch, *epoch, present))
        }
        Message::RecoveryAnswered { id, outcome } => Kind::RecoveryAnswered(recovery::answered_to_proto(*id, outcome)),
        Message::MapPull { have, hash } => Kind::MapPull(proto::MapPull { have: have.0, hash: *hash }),
        Message::MapPush(map) => Kind::MapPush(map_to_proto(map)),
        Message::MapDeltas(chain) => {
            Kind::MapDeltas(proto::MapDeltas { deltas: chain.iter().map(|step| delta_to_proto(step)).collect() })
        }
    };
    Some(kind)
}

pub fn from_proto(reader: Reader, kind: Kind) -> Result<Message, WireError> {
    match kind {
        Kind::Operations(received) => operations(reader, received),
        Kind::Report(received) => {
            let reports = received.partitions.into_iter().map(|part| report(reader, part));
            Ok(Message::Report(reports.collect::<Result<_, _>>()?))
        }
        Kind::Stability(received) => {
            let reports = received.partitions.into_iter().map(|part| stability(reader, part));
            Ok(Message::Stability(reports.collect::<Result<_, _>>()?))
        }
        Kind::FillRequest(received) => Ok(Message::FillRequest {
            partition: reader.partition(received.partition)?,
            version: Epoch(received.version),
            attempt: received.attempt,
            vector: vector("fill_request.vector", received.vector)?,
        }),
        Kind::FillChunk(received) => Ok(Message::FillChunk(chunk(reader, received)?)),
        Kind::FillNext(received) => Ok(Message::FillNext {
            partition: reader.partition(received.partition)?,
            attempt: received.attempt,
            index: received.index,
        }),
        Kind::Forward(received) => Ok(Message::Forward {
            id: received.id,
            remaining_ms: received.remaining_ms,
            request: request(reader, received.request)?,
        }),
        Kind::ForwardReply(received) => {
            Ok(Message::ForwardReply { id: received.id, response: response(reader, received.response)? })
        }
        Kind::ForwardRefused(received) => {
            let better = received.better.map(|node| address("forward_refused.better", &node)).transpose()?;
            Ok(Message::ForwardRefused { id: received.id, better })
        }
        Kind::Words(received) => {
            let words = received.partitions.into_iter().map(|part| word(reader, part));
            Ok(Message::Words(words.collect::<Result<_, _>>()?))
        }
        Kind::ChangeAsked(received) => {
            let (epoch, again) = (Epoch(received.epoch), received.again);
            asked(received).map(|(id, change)| Message::ChangeAsked { id, change, epoch, again })
        }
        Kind::ChangeAnswered(received) => {
            answered(reader, received).map(|(id, outcome)| Message::ChangeAnswered { id, outcome })
        }
        Kind::Paxos(received) => Ok(Message::Paxos(paxos(received)?)),
        Kind::LossAsked(received) => losses::asked(&received),
        Kind::LossTold(received) => losses::told(reader, &received),
        Kind::RecoveryAsked(received) => recovery::asked(received),
        Kind::RecoveryAnswered(received) => recovery::answered(received),
        Kind::MapPull(received) => Ok(Message::MapPull { have: Epoch(received.have), hash: received.hash }),
        Kind::MapPush(received) => Ok(Message::MapPush(Arc::new(map(received)?))),
        Kind::MapDeltas(received) if received.deltas.is_empty() => Err(WireError::Empty("map_deltas.deltas")),
        Kind::MapDeltas(received) => {
            let chain = received.deltas.into_iter().map(|step| delta(step).map(Arc::new));
            Ok(Message::MapDeltas(chain.collect::<Result<_, _>>()?))
        }
    }
}

fn operations_to_proto(partition: PartitionId, version: Epoch, operations: &[Arc<Op>]) -> proto::Operations {
    proto::Operations {
        partition: partition.0,
        version: version.0,
        operations: operations.iter().map(|op| op_to_proto(op)).collect(),
    }
}

fn operations(reader: Reader, received: proto::Operations) -> Result<Message, WireError> {
    let partition = reader.partition(received.partition)?;
    if received.operations.is_empty() {
        return Err(WireError::Empty("operations"));
    }
    let operations: Vec<_> =
        received.operations.into_iter().map(|one| op(reader, one).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(Message::Operations { partition, version: Epoch(received.version), operations })
}

fn report_to_proto(report: &PartitionReport) -> proto::report::Partition {
    proto::report::Partition {
        partition: report.partition.0,
        version: report.version.0,
        stay: report.stay.0,
        durable: Some(vector_to_proto(&report.durable)),
        promise: report.promise.map(|p| proto::report::ClockPromise { seq: p.seq, clock: p.clock.0 }),
    }
}

fn promise(received: proto::report::ClockPromise) -> Result<ClockPromise, WireError> {
    Ok(ClockPromise { seq: received.seq, clock: timestamp("report.promise.clock", received.clock)? })
}

fn report(reader: Reader, received: proto::report::Partition) -> Result<PartitionReport, WireError> {
    Ok(PartitionReport {
        partition: reader.partition(received.partition)?,
        version: Epoch(received.version),
        stay: StayId(received.stay),
        durable: vector("report.durable", received.durable)?,
        promise: received.promise.map(promise).transpose()?,
    })
}

fn stability_to_proto(report: &StabilityReport) -> proto::stability::Partition {
    proto::stability::Partition {
        partition: report.partition.0,
        version: report.version.0,
        stable: Some(vector_to_proto(&report.stable)),
    }
}

fn stability(reader: Reader, received: proto::stability::Partition) -> Result<StabilityReport, WireError> {
    Ok(StabilityReport {
        partition: reader.partition(received.partition)?,
        version: Epoch(received.version),
        stable: vector("stability.stable", received.stable)?,
    })
}

fn word_to_proto(word: &PartitionWord) -> proto::words::Partition {
    proto::words::Partition {
        partition: word.partition.0,
        version: word.version.0,
        stay: word.stay.0,
        first: Some(vector_to_proto(&word.first)),
        durable: Some(vector_to_proto(&word.durable)),
        steps: word.steps,
        bytes: word.bytes,
    }
}

fn word(reader: Reader, received: proto::words::Partition) -> Result<PartitionWord, WireError> {
    Ok(PartitionWord {
        partition: reader.partition(received.partition)?,
        version: Epoch(received.version),
        stay: StayId(received.stay),
        first: vector("words.first", received.first)?,
        durable: vector("words.durable", received.durable)?,
        steps: received.steps,
        bytes: received.bytes,
    })
}

fn chunk_to_proto(chunk: &FillChunk) -> proto::FillChunk {
    let key_item = |(key, item): &(Key, Item)| proto::fill_chunk::KeyItem {
        key: key.as_str().to_owned(),
        item: Some(item_to_proto(item)),
    };
    proto::FillChunk {
        partition: chunk.partition.0,
        version: chunk.version.0,
        attempt: chunk.attempt,
        index: chunk.index,
        items: chunk.items.iter().map(key_item).collect(),
        end: chunk.end.as_ref().map(|end| proto::fill_chunk::End {
            vector: Some(vector_to_proto(&end.vector)),
            floor: end.floor.0,
            clock: end.clock.0,
        }),
    }
}

fn chunk(reader: Reader, received: proto::FillChunk) -> Result<FillChunk, WireError> {
    let key_item = |one: proto::fill_chunk::KeyItem| Ok((key("fill_chunk.key", &one.key)?, item(reader, one.item)?));
    let items: Vec<_> = received.items.into_iter().map(key_item).collect::<Result<_, WireError>>()?;
    if !items.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(WireError::Order("fill_chunk.items"));
    }
    let end = |end: proto::fill_chunk::End| {
        Ok::<_, WireError>(FillEnd {
            vector: vector("fill_chunk.end.vector", end.vector)?,
            floor: Epoch(end.floor),
            clock: timestamp("fill_chunk.end.clock", end.clock)?,
        })
    };
    Ok(FillChunk {
        partition: reader.partition(received.partition)?,
        version: Epoch(received.version),
        attempt: received.attempt,
        index: received.index,
        items,
        end: received.end.map(end).transpose()?,
    })
}
