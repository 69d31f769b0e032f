//! Domain ↔ protobuf.
//!
//! Towards protobuf everything converts. From protobuf nothing is believed: a missing part, an id of another length,
//! a list that is not strictly ascending, a partition that this store does not have, a map that contradicts itself is
//! a [`WireError`] that names the field, and never a panic. So the machine can index by what it is given.
//!
//! What stands here takes and gives one [`Message`]; its parts are converted in `message` (variant by variant), `value`
//! (what one partition knows), `map` (the cluster map and its consensus), `change` (what is asked of the map) and
//! `recovery` (its recovery by force).

mod change;
mod losses;
mod map;
mod message;
mod recovery;
mod value;

#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::value::{state_to_proto, vector_to_proto};
use super::proto;
use crate::causal::clock::FARTHEST;
use crate::cluster::change::ChangeError;
use crate::cluster::line::{Fork, Line};
use crate::machine::message::Message;
use crate::machine::sign::{Ping, Served};
use crate::types::{AddrError, BranchId, ClusterId, Epoch, Incarnation, NodeAddr, PartitionId, Timestamp};

/// What is wrong with something received. Nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A part that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A list that must have elements has none.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// An id is not 16 bytes long.
    #[error("{field} has {found} bytes, not 16")]
    Length {
        /// The field.
        field: &'static str,
        /// How many bytes it has.
        found: usize,
    },
    /// A list that stands for a map is not strictly ascending, or counts a zero.
    #[error("{0} is not strictly ascending, or holds a zero")]
    Order(&'static str),
    /// An address does not parse.
    #[error("{field}: {error}")]
    Address {
        /// The field.
        field: &'static str,
        /// Why.
        error: AddrError,
    },
    /// A timestamp beyond [`FARTHEST`].
    #[error("{field}: the timestamp {value} is of no time")]
    Farthest {
        /// The field.
        field: &'static str,
        /// The timestamp.
        value: u64,
    },
    /// A number stands for nothing.
    #[error("{field} has the unknown value {value}")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The number.
        value: i64,
    },
    /// A partition that this store does not have; of a store whose map is not known here yet, perhaps.
    #[error("there is no partition {0} here")]
    NoSuchPartition(u32),
    /// A map that contradicts itself.
    #[error("the map contradicts itself: {0}")]
    Map(&'static str),
    /// A line of maps that contradicts itself.
    #[error("the line of maps contradicts itself: {0}")]
    Line(&'static str),
    /// Not a protobuf message of the kind that was expected.
    #[error("not the expected protobuf message: {0}")]
    Undecodable(String),
}

/// Turns what was received into domain values.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// How many partitions this store has; messages about others are refused.
    pub partitions: u32,
}

impl Reader {
    /// The message.
    ///
    /// # Errors
    /// [`WireError`], with the first thing that is wrong.
    pub fn message(&self, received: proto::Message) -> Result<Message, WireError> {
        message::from_proto(*self, received.kind.ok_or(WireError::Missing("message.kind"))?)
    }

    /// A partition that exists.
    fn partition(&self, number: u32) -> Result<PartitionId, WireError> {
        if number < self.partitions { Ok(PartitionId(number)) } else { Err(WireError::NoSuchPartition(number)) }
    }
}

/// The message as protobuf; `None` for a ping or its answer, which travel by `Cluster.Ping` (see [`sign_to_proto`]).
pub fn message_to_proto(message: &Message) -> Option<proto::Message> {
    message::to_proto(message).map(|kind| proto::Message { kind: Some(kind) })
}

/// The version of the protocol that first had such a message. What a peer does not know would end its stream.
pub fn version_of(message: &Message) -> u32 {
    match message {
        Message::LossAsked { .. } | Message::LossTold { .. } => 2,
        Message::ChangeAnswered { outcome: Err(ChangeError::MovedOn), .. } => 2,
        _ => 1,
    }
}

/// A timestamp of another node. A wrong one can't be told from a right one, but for those of no time at all.
fn timestamp(field: &'static str, value: u64) -> Result<Timestamp, WireError> {
    match Timestamp(value) {
        timestamp if timestamp <= FARTHEST => Ok(timestamp),
        _ => Err(WireError::Farthest { field, value }),
    }
}

/// What a ping says, without what stands in the Hello beside it.
pub fn sign_to_proto(ping: &Ping) -> proto::SignOfLife {
    proto::SignOfLife {
        epoch: ping.epoch.0,
        wall_ms: ping.wall_ms,
        hears: ping.hears.iter().map(|node| node.as_str().to_owned()).collect(),
        steps: ping.steps,
        tells_clocks: ping.tells_clocks,
        exposed: losses::held_to_proto(&ping.exposed),
        served: Some(proto::Served {
            partitions: ping.served.partitions,
            keys: ping.served.keys,
            bytes: ping.served.bytes,
        }),
    }
}

/// A ping, of what it says and of the Hello beside it; when it was made is not said.
///
/// # Errors
/// [`WireError`] when an id or an address does not parse.
pub fn ping_from_proto(hello: &proto::Hello, sign: proto::SignOfLife) -> Result<Ping, WireError> {
    Ok(Ping {
        cluster_id: cluster_id("hello.cluster_id", &hello.cluster_id)?,
        line: line(&hello.line)?,
        epoch: Epoch(sign.epoch),
        settings_hash: hello.settings_hash,
        speaks: hello.format_version,
        tells_clocks: sign.tells_clocks,
        wall_ms: sign.wall_ms,
        asked_ms: 0,
        hears: sign.hears.iter().map(|node| address("sign.hears", node)).collect::<Result<_, _>>()?,
        steps: sign.steps,
        exposed: losses::held(&sign.exposed).collect(),
        served: served(sign.served.unwrap_or_default()),
    })
}

/// How much a node serves; nothing where an older build does not tell.
fn served(served: proto::Served) -> Served {
    Served { partitions: served.partitions, keys: served.keys, bytes: served.bytes }
}

/// A line of maps as it travels.
pub fn line_to_proto(line: &Line) -> Vec<proto::Fork> {
    let fork = |fork: &Fork| proto::Fork { branch: fork.branch.0, after: fork.after.0, first: fork.first.0 };
    line.forks().iter().map(fork).collect()
}

/// A line of maps.
///
/// # Errors
/// [`WireError::Line`] when it contradicts itself.
pub(super) fn line(received: &[proto::Fork]) -> Result<Line, WireError> {
    let fork =
        |fork: &proto::Fork| Fork { branch: BranchId(fork.branch), after: Epoch(fork.after), first: Epoch(fork.first) };
    Line::new(received.iter().map(fork).collect()).map_err(WireError::Line)
}

/// A store's id as it travels.
pub fn cluster_id_to_proto(id: ClusterId) -> Bytes {
    id_to_proto(id.0)
}

/// An id of 128 bits as it travels.
pub(super) fn id_to_proto(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

/// An incarnation.
pub(super) fn incarnation(field: &'static str, bytes: &[u8]) -> Result<Incarnation, WireError> {
    id(field, bytes).map(Incarnation)
}

/// A store's id.
pub(super) fn cluster_id(field: &'static str, bytes: &[u8]) -> Result<ClusterId, WireError> {
    id(field, bytes).map(ClusterId)
}

/// An address.
pub(super) fn address(field: &'static str, text: &str) -> Result<NodeAddr, WireError> {
    text.parse().map_err(|error| WireError::Address { field, error })
}

fn id(field: &'static str, bytes: &[u8]) -> Result<u128, WireError> {
    let sixteen = <[u8; 16]>::try_from(bytes).map_err(|_| WireError::Length { field, found: bytes.len() })?;
    Ok(u128::from_be_bytes(sixteen))
}
