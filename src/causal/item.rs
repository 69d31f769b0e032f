//! What is stored for a key, and how two versions of it merge.

use std::cmp::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::context::Context;
use crate::types::{Dot, Timestamp};

/// The version of a key that a replica keeps: the winner of all it has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The value as the client sent it (JSON text), or `None`: a tombstone.
    pub value: Option<Bytes>,
    /// The name of the write.
    pub dot: Dot,
    /// Decides between concurrent writes.
    pub timestamp: Timestamp,
    /// What the write depends on in *other* partitions and was not known stable or closed, with its epoch.
    pub carried: Context,
}

impl Item {
    /// True when this is the mark of a delete.
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    /// The order in which versions win: greater timestamp, ties by dot. Total, as no dot names two writes.
    pub fn precedence(&self, other: &Self) -> Ordering {
        (self.timestamp, self.dot).cmp(&(other.timestamp, other.dot))
    }

    /// True when this version replaces what is stored.
    ///
    /// Keeping the greater of a total order is commutative, associative and idempotent, so replicas that have the same
    /// writes show the same winner in whatever order they came (last writer wins, by hybrid logical clock).
    pub fn wins_over(&self, stored: Option<&Self>) -> bool {
        stored.is_none_or(|s| self.precedence(s) == Ordering::Greater)
    }
}
