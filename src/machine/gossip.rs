//! Stability: found by the peers of a partition, told to everybody, so that contexts stay small everywhere.
//!
//! Every peer computes what all Serving and Joining peers have reported durable under the row's version. The first
//! live Serving peer of each row tells the nodes that are not its peers: what has changed, soon; and everything, in a
//! slow rotation, against lost messages and restarts.

use std::collections::BTreeMap;

use super::message::{Message, StabilityReport};
use super::rules::Rule;
use super::{Io, Machine};
use crate::causal::vector::VersionVector;
use crate::cluster::map::PeerState;
use crate::error::StoreError;
use crate::types::{Epoch, NodeAddr, PartitionId, StayId};

/// The shortest pause between two rounds of gossip, in milliseconds; a large store pauses a millisecond a node.
const GOSSIP_MS: u64 = 20;

impl Machine {
    /// Looks again at the entries that a report has raised.
    pub(super) fn find_stable(&mut self, partition: PartitionId, raised: &VersionVector) {
        let (everybody, joining) = (self.on(Rule::StableAll), self.on(Rule::StableJoining));
        let part = self.part(partition);
        // An empty set proves nothing (R2).
        if part.own_member().is_none() || part.serving().next().is_none() {
            return;
        }
        let version = part.version;
        let mut found = Vec::new();
        for (stay, _) in raised.iter() {
            let members = part.members().filter(|peer| joining || peer.state == PeerState::Serving);
            let members = members.map(|peer| peer.stay);
            let seq = if everybody {
                part.words.at_all(members, stay)
            } else {
                members.map(|peer| part.words.durable(peer, stay)).max()
            };
            found.extend(seq.map(|seq| (stay, seq)));
        }
        for (stay, seq) in found {
            if self.part_mut(partition).stable.learn(stay, seq, version) {
                self.gossip.entry(partition).or_default().insert(stay);
            }
        }
    }

    /// Tells everything of a partition once more.
    pub(super) fn gossip_again(&mut self, partition: PartitionId) {
        let stays: Vec<StayId> = self.part(partition).stable.iter().map(|(stay, _, _)| stay).collect();
        if self.part(partition).own_serving().is_some() && !stays.is_empty() {
            self.gossip.entry(partition).or_default().extend(stays);
        }
    }

    pub(super) fn tick_gossip(&mut self, io: &mut Io<'_>) {
        if self.now.mono_ms < self.timers.gossip_ms || self.gossip.is_empty() {
            return;
        }
        self.timers.gossip_ms = self.now.mono_ms + GOSSIP_MS.max(self.map.nodes.len() as u64);
        let news = std::mem::take(&mut self.gossip);
        let mut to: BTreeMap<NodeAddr, Vec<StabilityReport>> = BTreeMap::new();
        for (partition, stays) in news {
            let first = self.part(partition).serving().find(|peer| peer.own || self.lives(peer));
            if !first.is_some_and(|peer| peer.own) {
                continue;
            }
            // Entries found under different versions are told apart.
            let mut by_version: BTreeMap<Epoch, VersionVector> = BTreeMap::new();
            for (stay, seq, version) in self.part(partition).stable.iter().filter(|entry| stays.contains(&entry.0)) {
                by_version.entry(version).or_default().raise(stay, seq);
            }
            let others = self.map.nodes.keys().filter(|node| !self.is_peer(partition, node));
            for node in others {
                let reports = to.entry(node.clone()).or_default();
                for (&version, stable) in &by_version {
                    reports.push(StabilityReport { partition, version, stable: stable.clone() });
                }
            }
        }
        for (node, reports) in to {
            self.send(&node, Message::Stability(reports), io);
        }
    }

    fn is_peer(&self, partition: PartitionId, node: &NodeAddr) -> bool {
        self.part(partition).peers.iter().any(|peer| peer.node == *node)
    }

    pub(super) fn on_stability(
        &mut self,
        from: &NodeAddr,
        reports: Vec<StabilityReport>,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        for report in reports {
            let Some(part) = self.parts.get_mut(report.partition.0 as usize) else { continue };
            if report.version > part.version {
                self.pull_map(from, io);
                continue;
            }
            // Found by the peers, and told by them alone: nobody else can know. Whoever was one in a row before this
            // one is heard no more; the peers of this one tell everything again and again.
            if !part.peers.iter().any(|peer| peer.node == *from) {
                continue;
            }
            for (stay, seq) in report.stable.iter() {
                part.stable.learn(stay, seq, report.version);
            }
            self.check_stable(from, &report)?;
        }
        Ok(())
    }

    /// A peer says that it holds less than it said before: it is told what is stable, which it said that it holds.
    pub(super) fn remind(&mut self, node: &NodeAddr, partition: PartitionId, io: &mut Io<'_>) {
        let stable = self.part(partition).stable.iter();
        let report =
            |(stay, seq, version)| StabilityReport { partition, version, stable: [(stay, seq)].into_iter().collect() };
        let reports: Vec<StabilityReport> = stable.map(report).collect();
        self.send(node, Message::Stability(reports), io);
    }

    /// What is stable every Serving peer holds, and has said so. One whose disk does not hold it has forgotten what
    /// others have collected since, and would bring it back.
    fn check_stable(&self, from: &NodeAddr, report: &StabilityReport) -> Result<(), StoreError> {
        let part = self.part(report.partition);
        let Some(replica) = part.replica.as_ref().filter(|_| part.own_serving().is_some()) else { return Ok(()) };
        // Where a partition began anew, empty, nobody holds what was found stable before. The floor is at that epoch,
        // and comes with every fill. It says nothing too much: who has one of a later epoch was there in the earlier
        // one, and held what was found stable then.
        if report.version < replica.floor {
            return Ok(());
        }
        let lacks = |(stay, seq): &(StayId, u64)| *seq > replica.applied.get(*stay) && !part.is_closed(*stay);
        match report.stable.iter().find(lacks) {
            Some((stay, seq)) => Err(StoreError::Damaged(format!(
                "this node told {from} that it holds {seq} writes of stay {stay} in partition {}, and this data \
                 directory holds {}: it was restored from a backup, or copied; start the node with an empty data \
                 directory, and it refills from the others",
                report.partition,
                replica.applied.get(stay),
            ))),
            None => Ok(()),
        }
    }
}
