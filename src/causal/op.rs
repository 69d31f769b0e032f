//! Operations: writes on their way from their coordinator to the other replicas of the partition.

use serde::{Deserialize, Serialize};

use super::item::Item;
use super::vector::VersionVector;
use crate::types::Key;

/// One write, immutable once made; also a log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// The key that is written.
    pub key: Key,
    /// The version it gets; its dot names the operation.
    pub item: Item,
    /// What it depends on in its own partition: the open entries of the writer's context. It is applied only after
    /// these, and after all earlier operations of its own stay.
    pub deps: VersionVector,
}

impl Op {
    /// Bytes it takes in a queue or a frame, roughly: the bounds of queues count these.
    pub fn weight(&self) -> usize {
        let value = self.item.value.as_ref().map_or(0, bytes::Bytes::len);
        96 + self.key.as_str().len() + value + 12 * (self.item.carried.len() + self.deps.len())
    }
}
