//! How many keys of a shard have a value: counted here, at a node that serves all its partitions, or, while partitions
//! move and no node serves them all, gathered from several.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{Request, Response};
use super::requests::{Origin, Pending};
use super::serve::Verdict;
use super::{Io, Machine};
use crate::error::{Code, StoreError};
use crate::types::{NodeAddr, PartitionId, ShardId};

/// A count on its way.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    origin: Origin,
    left: usize,
    keys: u64,
}

impl Machine {
    pub(super) fn try_count(&mut self, pending: &mut Pending, io: &mut Io<'_>) -> Result<Verdict, StoreError> {
        let partitions = match &pending.request {
            Request::KeyCount { shard } => self.partitions_of(*shard),
            Request::CountOf { partitions } => partitions.clone(),
            Request::Get { .. } | Request::Put { .. } | Request::Delete { .. } => Vec::new(),
        };
        if partitions.is_empty() {
            return Ok(Verdict::Done(Response::Error(Code::NoSuchShard)));
        }
        if self.is_mute(&pending.origin) {
            return Ok(Verdict::Wait(Code::ShardUnavailable));
        }
        if let Some(keys) = self.own_count(&partitions) {
            return Ok(Verdict::Done(Response::KeyCount(keys)));
        }
        if matches!(pending.origin, Origin::Peer { .. }) {
            return Ok(Verdict::Refuse(None));
        }
        if partitions.iter().any(|partition| !self.part(*partition).serving().any(|peer| self.lives(peer))) {
            return Ok(Verdict::Done(Response::Error(Code::ShardUnavailable)));
        }
        let shares = self.share_out(&partitions, &pending.avoid);
        match shares {
            None => {
                pending.avoid.clear();
                Ok(Verdict::Wait(Code::ShardUnavailable))
            }
            Some(shares) if shares.len() == 1 => {
                let Some((node, partitions)) = shares.into_iter().next() else {
                    return Ok(Verdict::Wait(Code::ShardUnavailable));
                };
                // Under another map a shard of this number is something else.
                pending.request = Request::CountOf { partitions };
                Ok(Verdict::Forward(node))
            }
            Some(shares) => self.gather(shares, pending, io),
        }
    }

    fn partitions_of(&self, shard: ShardId) -> Vec<PartitionId> {
        let of = &self.map.layout.partitions;
        self.partitions().filter(|partition| of.get(partition.0 as usize) == Some(&shard)).collect()
    }

    fn own_count(&self, partitions: &[PartitionId]) -> Option<u64> {
        let mut keys = 0;
        for partition in partitions {
            let part = self.parts.get(partition.0 as usize)?;
            part.own_serving()?;
            keys += part.replica.as_ref()?.keys;
        }
        Some(keys)
    }

    /// Which node to ask for which of the partitions: as few nodes as a greedy choice finds, this one included. `None`
    /// when a partition is left that nobody reachable serves.
    fn share_out(
        &self,
        partitions: &[PartitionId],
        avoid: &BTreeSet<NodeAddr>,
    ) -> Option<BTreeMap<NodeAddr, Vec<PartitionId>>> {
        let mut serving: BTreeMap<&NodeAddr, BTreeSet<PartitionId>> = BTreeMap::new();
        for partition in partitions {
            let part = self.part(*partition);
            for peer in part.serving() {
                let reached = self.lives(peer) && self.is_connected(&peer.node) && !avoid.contains(&peer.node);
                if (peer.own && part.replica.is_some()) || (!peer.own && reached) {
                    serving.entry(&peer.node).or_default().insert(*partition);
                }
            }
        }
        let mut left: BTreeSet<PartitionId> = partitions.iter().copied().collect();
        let mut shares = BTreeMap::new();
        while !left.is_empty() {
            let share = |of: &BTreeSet<PartitionId>| of.intersection(&left).count();
            let (node, of) = serving.iter().max_by_key(|(_, of)| share(of)).filter(|(_, of)| share(of) > 0)?;
            let share: Vec<PartitionId> = of.intersection(&left).copied().collect();
            left.retain(|partition| !share.contains(partition));
            shares.insert((*node).clone(), share);
        }
        Some(shares)
    }

    fn gather(
        &mut self,
        shares: BTreeMap<NodeAddr, Vec<PartitionId>>,
        pending: &Pending,
        io: &mut Io<'_>,
    ) -> Result<Verdict, StoreError> {
        let id = self.fresh_id();
        self.gathers.insert(id, Gather { origin: pending.origin.clone(), left: shares.len(), keys: 0 });
        for partitions in shares.into_values() {
            let part = Pending {
                origin: Origin::Gather(id),
                request: Request::CountOf { partitions },
                avoid: BTreeSet::new(),
                ..pending.clone()
            };
            self.attempt(part, io)?;
        }
        Ok(Verdict::Coordinated)
    }

    /// A share of a count is answered.
    pub(super) fn on_counted(&mut self, id: u64, response: Response, io: &mut Io<'_>) {
        let Some(gather) = self.gathers.get_mut(&id) else { return };
        gather.left -= 1;
        let answer = match response {
            Response::KeyCount(keys) => {
                gather.keys += keys;
                if gather.left > 0 {
                    return;
                }
                Response::KeyCount(gather.keys)
            }
            other => other,
        };
        if let Some(gather) = self.gathers.remove(&id) {
            self.reply(&gather.origin, answer, io);
        }
    }
}
