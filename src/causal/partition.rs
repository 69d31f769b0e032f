//! One partition's replica in memory: how far it is, and which operations wait for their turn.
//!
//! An operation is applied when its dependencies in the partition and all earlier operations of its own stay are
//! (causal delivery by version vectors, Ladin et al., "Lazy replication", 1992). Until then it waits here, within a
//! bound that the caller sets; what finds no room is dropped and asked for again, and the operation that is next in
//! order needs no room. Items and logs are the caller's: this module holds no values but those that wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::op::Op;
use super::vector::VersionVector;
use crate::types::{Dot, Epoch, Seq, StayId};

/// What became of an operation that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is applied here already, or waits already.
    Known,
    /// It waits, or is ready now: [`Replica::take_ready`] tells.
    Taken,
    /// There was no room; its sender will send it again.
    NoRoom,
}

/// Which of the two conditions of application are checked; both, but in the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Dependencies in the partition come first.
    pub deps: bool,
    /// Earlier operations of the same stay come first.
    pub own: bool,
}

/// A replica's state, its items and log aside.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// Own stays that it is held for.
    pub held_for: Vec<StayId>,
    /// Whether it holds a causally whole state. One that began empty takes nothing from streams before its first fill,
    /// unless its stay serves.
    pub filled: bool,
    /// Every write covered here is in the items, or was superseded.
    pub applied: VersionVector,
    /// The part of `applied` that is synced.
    pub durable: VersionVector,
    /// What a context's epoch is raised to where a read finds nothing: the greatest of the versions under which
    /// tombstones were collected here, of their epochs, and of the versions under which what they carried was stable.
    pub floor: Epoch,
    /// Keys with a value.
    pub keys: u64,
    /// Keys with a tombstone.
    pub tombstones: u64,
    /// Bytes of the items, roughly.
    pub bytes: u64,
    waiting: BTreeMap<Dot, Arc<Op>>,
    waiting_bytes: usize,
}

impl Replica {
    /// Whether it has items of a first fill that has not come to its end: its vector stands for none of them.
    pub fn is_half_filled(&self) -> bool {
        !self.filled && self.keys + self.tombstones > 0
    }

    /// Takes an operation that arrived, if it is new and there is `room` (in bytes) for it.
    pub fn offer(&mut self, op: Arc<Op>, room: usize) -> Offer {
        let dot = op.item.dot;
        if self.applied.covers(dot) || self.waiting.contains_key(&dot) {
            return Offer::Known;
        }
        let next = self.applied.get(dot.stay) + 1 == dot.seq && self.applied.dominates(&op.deps);
        if !next && op.weight() > room {
            return Offer::NoRoom;
        }
        self.waiting_bytes += op.weight();
        self.waiting.insert(dot, op);
        Offer::Taken
    }

    /// Takes out one operation whose turn has come; `closed` tells stays whose writes everybody has.
    pub fn take_ready(&mut self, order: Order, closed: impl Fn(StayId) -> bool) -> Option<Arc<Op>> {
        let mut stay = StayId(0);
        let ready = loop {
            let (&dot, op) = self.waiting.range(Dot { stay, seq: 0 }..).next()?;
            let first = self.applied.get(dot.stay) + 1 >= dot.seq || !order.own;
            let deps = !order.deps || op.deps.iter().all(|(s, seq)| self.applied.get(s) >= seq || closed(s));
            if first && deps {
                break dot;
            }
            stay = StayId(dot.stay.0.checked_add(1)?);
        };
        self.remove(ready)
    }

    /// Drops what waits and is covered by now.
    pub fn drop_covered(&mut self) {
        let covered: Vec<Dot> = self.waiting.keys().copied().filter(|dot| self.applied.covers(*dot)).collect();
        for dot in covered {
            self.remove(dot);
        }
    }

    /// Drops everything that waits.
    pub fn drop_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    fn remove(&mut self, dot: Dot) -> Option<Arc<Op>> {
        let op = self.waiting.remove(&dot)?;
        self.waiting_bytes -= op.weight();
        Some(op)
    }

    /// How many operations wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many bytes of operations wait.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Notes an applied write.
    pub fn applied(&mut self, dot: Dot) {
        self.applied.raise(dot.stay, dot.seq);
    }

    /// Notes that a stay's writes are durable up to `seq`. True when that is news.
    pub fn synced(&mut self, stay: StayId, seq: Seq) -> bool {
        self.durable.raise(stay, seq)
    }
}
