//! What a sign of life says.

use std::sync::Arc;

use crate::cluster::line::Line;
use crate::types::{ClusterId, Epoch, NodeAddr, PartitionId, Seq, StayId};

/// The newest version of the protocol between nodes that this build speaks.
pub const FORMAT_VERSION: u32 = 3;

/// The first one whose builds take the text of a context that tells a clock.
pub const CLOCKS_VERSION: u32 = 3;

/// A sign of life and what its sender knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// The store; zero before its birth.
    pub cluster_id: ClusterId,
    /// The line of the sender's map.
    pub line: Line,
    /// The epoch of the sender's map.
    pub epoch: Epoch,
    /// The hash of the sender's map 0: tells differing `VIEW`, `SHARD_COUNT` or `PARTITIONS` before the birth.
    pub settings_hash: u64,
    /// The newest version of the protocol that the sender speaks.
    pub speaks: u32,
    /// The sender knows that every node takes contexts that tell clocks.
    pub tells_clocks: bool,
    /// The sender's wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// When the ping was made, in the monotonic milliseconds of who asks: its answer gives that back. It does not travel,
    /// as between processes the call that brings a question brings the answer.
    pub asked_ms: u64,
    /// Whom the sender hears.
    pub hears: Vec<NodeAddr>,
    /// How far the fills of its joining peers are: a number that changes while any of them gets on.
    pub steps: u64,
    /// What it holds, and no other live peer has said to hold.
    pub exposed: Arc<[HeldUpTo]>,
    /// How much it serves.
    pub served: Served,
}

/// What a node holds of the partitions that it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// How many partitions these are.
    pub partitions: u64,
    /// Keys with a value.
    pub keys: u64,
    /// Bytes of keys and what is kept under them.
    pub bytes: u64,
}

/// Of one stay's writes in one partition, all up to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldUpTo {
    /// The partition.
    pub partition: PartitionId,
    /// The stay that wrote them.
    pub stay: StayId,
    /// The last of them.
    pub seq: Seq,
}

impl Served {
    /// Adds what another serves. What a node says of itself may be anything.
    pub fn add(&mut self, other: Self) {
        self.partitions = self.partitions.saturating_add(other.partitions);
        self.keys = self.keys.saturating_add(other.keys);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}
