//! Requests that wait: where they came from, until when, and for what.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{Request, RequestId};
use crate::error::Code;
use crate::types::{NodeAddr, PartitionId};

/// Where the answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of this node.
    Client(RequestId),
    /// Another node that forwarded it.
    Peer { node: NodeAddr, id: u64 },
    /// A sum that this node gathers from several.
    Gather(u64),
}

/// A request on its way through this node.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub origin: Origin,
    pub request: Request,
    /// `None` for what concerns no single partition.
    pub partition: Option<PartitionId>,
    pub deadline_ms: u64,
    /// What it is answered when the deadline comes while it waits.
    pub otherwise: Code,
    /// Nodes that refused it or could not be reached; others are tried first.
    pub avoid: BTreeSet<NodeAddr>,
    /// A peer that is said to have what it needs.
    pub hint: Option<NodeAddr>,
}

impl Pending {
    /// True when its effect cannot be told once it was sent on.
    pub fn writes(&self) -> bool {
        self.request.writes()
    }
}

/// A request that was sent on.
#[derive(Clone, Debug)]
pub(super) struct Forwarded {
    pub pending: Pending,
    pub to: NodeAddr,
    /// When it is given up.
    expires_ms: u64,
}

/// All requests that have no answer yet, but the writes that this node coordinates (they are with their partition).
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: BTreeMap<u64, Pending>,
    by_partition: BTreeMap<Option<PartitionId>, BTreeSet<u64>>,
    forwarded: BTreeMap<u64, Forwarded>,
    deadlines: BTreeSet<(u64, u64)>,
    next: u64,
}

impl Requests {
    /// Begins numbering at a random point, so that answers to an earlier process find nothing.
    pub fn new(first: u64) -> Self {
        Self { next: first, ..Self::default() }
    }

    /// How many requests wait or are forwarded.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.forwarded.len()
    }

    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// Puts a request aside until its partition is woken or its deadline comes.
    pub fn wait(&mut self, pending: Pending) {
        let token = self.number();
        self.deadlines.insert((pending.deadline_ms, token));
        self.by_partition.entry(pending.partition).or_default().insert(token);
        self.waiting.insert(token, pending);
    }

    /// Takes out all that waits for a partition.
    pub fn take_waiting(&mut self, partition: Option<PartitionId>) -> Vec<Pending> {
        let tokens = self.by_partition.remove(&partition).unwrap_or_default();
        tokens.into_iter().filter_map(|token| self.take(token)).collect()
    }

    /// The partitions that something waits for.
    pub fn waited_for(&self) -> Vec<Option<PartitionId>> {
        self.by_partition.keys().copied().collect()
    }

    fn take(&mut self, token: u64) -> Option<Pending> {
        let pending = self.waiting.remove(&token)?;
        self.deadlines.remove(&(pending.deadline_ms, token));
        Some(pending)
    }

    /// Notes a request as sent on; gives the name that the answer will carry. `grace_ms` is added to its deadline:
    /// the other node answers at the deadline itself.
    pub fn forward(&mut self, pending: Pending, to: NodeAddr, grace_ms: u64) -> u64 {
        let id = self.number();
        let expires_ms = pending.deadline_ms.saturating_add(grace_ms);
        self.deadlines.insert((expires_ms, id));
        self.forwarded.insert(id, Forwarded { pending, to, expires_ms });
        id
    }

    /// Takes out the forwarded request of this name.
    pub fn take_forwarded(&mut self, id: u64) -> Option<Forwarded> {
        let forwarded = self.forwarded.remove(&id)?;
        self.deadlines.remove(&(forwarded.expires_ms, id));
        Some(forwarded)
    }

    /// Takes out all that was sent to a node.
    pub fn take_forwarded_to(&mut self, node: &NodeAddr) -> Vec<Forwarded> {
        let ids: Vec<u64> = self.forwarded.iter().filter(|(_, f)| f.to == *node).map(|(&id, _)| id).collect();
        ids.into_iter().filter_map(|id| self.take_forwarded(id)).collect()
    }

    /// Takes out one request whose deadline has come: one that waited, or one that was sent on.
    pub fn take_expired(&mut self, now_ms: u64) -> Option<Result<Pending, Forwarded>> {
        let &(deadline, token) = self.deadlines.first()?;
        if deadline > now_ms {
            return None;
        }
        self.deadlines.pop_first();
        match self.waiting.remove(&token) {
            Some(pending) => {
                if let Some(tokens) = self.by_partition.get_mut(&pending.partition) {
                    tokens.remove(&token);
                }
                Some(Ok(pending))
            }
            None => self.forwarded.remove(&token).map(Err),
        }
    }
}
