//! The cluster map: who belongs to the store and who holds what. One small versioned value, agreed on epoch by epoch.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::line::{Line, Standing};
use crate::types::{ClusterId, ContextSecret, Epoch, Incarnation, NodeAddr, PartitionId, ShardId, StayId};

/// One epoch's map. Map 0 follows from the start settings alone and binds nobody; map 1 is the store's birth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// The store's id; zero in map 0.
    pub cluster_id: ClusterId,
    /// The recoveries by force that this map comes of.
    pub line: Line,
    /// The map's number.
    pub epoch: Epoch,
    /// [`ClusterMap::hash`] of the map before; zero in map 0.
    pub parent_hash: u64,
    /// The key of the contexts' authentication codes, drawn in map 1. No RPC shows it to tools.
    pub secret: ContextSecret,
    /// The nodes, each bound to the incarnation that may act under its address (`None` in map 0, and for a forgotten
    /// node that is the last member of its shard, until somebody new starts there).
    pub nodes: BTreeMap<NodeAddr, Option<Incarnation>>,
    /// Of these, the nodes that the operator took out: in no layout, not in the view, voters of nothing. They give what
    /// they hold and go on forwarding, until they are admitted again.
    pub out: BTreeSet<NodeAddr>,
    /// Incarnations that are bound no more but still have stays, with the address they had: how the operator's word on
    /// an address finds those whose disk is lost.
    pub former: BTreeMap<Incarnation, NodeAddr>,
    /// Incarnations that the operator gave up, for ever: none of them is ever bound again.
    pub forgotten: BTreeSet<Incarnation>,
    /// The layout in force.
    pub layout: Layout,
    /// The layout wanted, while something changes.
    pub target: Option<Target>,
    /// One row a partition.
    pub rows: Vec<Row>,
    /// Who decides the next map.
    pub voters: Vec<Incarnation>,
}

/// Shards → nodes, partitions → shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The nodes of shard `i + 1`, sorted.
    pub shards: Vec<Vec<NodeAddr>>,
    /// The shard of each partition.
    pub partitions: Vec<ShardId>,
}

/// A layout on its way to be in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What is wanted.
    pub layout: Layout,
    /// What was asked for, in a few words for logs and `GET …/reshard`.
    pub name: String,
    /// It spreads nodes and partitions evenly: so does the plan that is made anew when a wanted node is lost. One that
    /// does not (a member more) is given up then.
    pub even: bool,
}

/// What the map says of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The epoch of the map that last changed this row.
    pub version: Epoch,
    /// The stay that will be given out next; all below it are listed or closed.
    pub next_stay: StayId,
    /// The stays that are not closed.
    pub peers: BTreeMap<StayId, Stay>,
    /// Numbers that recoveries by force skipped, each from the first up to, without, the second: who names one of them
    /// has it from another line of maps.
    pub skipped: Vec<(StayId, StayId)>,
}

/// One stay in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stay {
    /// Whose period this is.
    pub incarnation: Incarnation,
    /// What the peer does.
    pub state: PeerState,
    /// It will never tell what it held; only a Leaving peer may be lost.
    pub lost: bool,
    /// … because the operator said so; only a lost one may be.
    pub lost_by_word: bool,
    /// The epoch from which it serves a partition whose writes were all lost: the least floor of its replica.
    pub begun_empty: Option<Epoch>,
}

/// What a peer does for its partition (rule R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PeerState {
    /// Being filled: receives every write and makes up stability, serves nobody.
    Joining,
    /// Answers reads, coordinates writes, counts as a copy.
    Serving,
    /// Only gives what it holds.
    Leaving,
}

impl Stay {
    /// A stay in its first state, nothing lost.
    pub fn new(incarnation: Incarnation, state: PeerState) -> Self {
        Self { incarnation, state, lost: false, lost_by_word: false, begun_empty: None }
    }

    /// True for a peer that answers reads and coordinates writes.
    pub fn serves(&self) -> bool {
        self.state == PeerState::Serving
    }

    /// True for a peer that is being filled.
    pub fn is_joining(&self) -> bool {
        self.state == PeerState::Joining
    }

    /// True for a peer that only gives.
    pub fn is_leaving(&self) -> bool {
        self.state == PeerState::Leaving
    }
}

impl Row {
    /// True for a stay that no row lists any more: all it wrote is at every peer. An entry naming it is satisfied.
    pub fn is_closed(&self, stay: StayId) -> bool {
        stay < self.next_stay && !self.peers.contains_key(&stay)
    }

    /// True for a stay number that this version has not given out: its name comes from a newer map.
    pub fn is_unknown(&self, stay: StayId) -> bool {
        stay >= self.next_stay
    }

    /// True when nobody has the writes of the partition without the stays that are given up.
    pub fn is_lost_with(&self, given_up: impl Fn(&Stay) -> bool) -> bool {
        let mut holders = self.peers.values().filter(|stay| !stay.lost && !stay.is_joining()).peekable();
        holders.peek().is_some() && holders.all(given_up)
    }

    /// True for a stay number that this line of maps never gives out: its name comes from another line.
    pub fn is_skipped(&self, stay: StayId) -> bool {
        self.skipped.iter().any(|(from, until)| (*from..*until).contains(&stay))
    }
}

impl ClusterMap {
    /// The row of a partition.
    ///
    /// # Panics
    /// On a partition that this store does not have: such a number was refused where it came in.
    pub fn row(&self, partition: PartitionId) -> &Row {
        &self.rows[partition.0 as usize]
    }

    /// How many partitions the keys are divided into.
    pub fn partitions(&self) -> u32 {
        self.rows.len() as u32
    }

    /// True once the store is born: incarnations are bound and rows name stays.
    pub fn is_born(&self) -> bool {
        self.epoch > Epoch(0)
    }

    /// Where this map stands among others of the store.
    pub fn standing(&self) -> Standing {
        Standing { line: self.line.clone(), epoch: self.epoch }
    }

    /// The address that an incarnation is bound to, if any.
    pub fn address_of(&self, incarnation: Incarnation) -> Option<&NodeAddr> {
        self.nodes.iter().find(|(_, bound)| **bound == Some(incarnation)).map(|(addr, _)| addr)
    }

    /// The disks that a node had before, that are missing, and that nobody has given up.
    pub fn lost_disks(&self, node: &NodeAddr) -> impl Iterator<Item = Incarnation> {
        let former = self.former.iter().filter(move |(_, address)| *address == node);
        former.map(|(incarnation, _)| *incarnation).filter(|incarnation| !self.forgotten.contains(incarnation))
    }

    /// The disks that the word on a node is on: those that are missing of what it had before, or else the one it has.
    pub fn disks_meant(&self, node: &NodeAddr) -> BTreeSet<Incarnation> {
        let lost: BTreeSet<Incarnation> = self.lost_disks(node).collect();
        let bound = || self.nodes.get(node).copied().flatten().into_iter().collect();
        if lost.is_empty() { bound() } else { lost }
    }

    /// The shard a node belongs to.
    pub fn shard_of(&self, node: &NodeAddr) -> Option<ShardId> {
        self.layout.shard_of(node)
    }

    /// The layout wanted: the target, or else the one in force.
    pub fn wanted_layout(&self) -> &Layout {
        self.target.as_ref().map_or(&self.layout, |target| &target.layout)
    }

    /// The nodes that are to hold a partition.
    ///
    /// # Panics
    /// On a partition that this store does not have.
    pub fn wanted(&self, partition: PartitionId) -> &[NodeAddr] {
        let layout = self.wanted_layout();
        layout.members(layout.partitions[partition.0 as usize]).unwrap_or_default()
    }

    /// The nodes that the operator has not taken out: those of the view that are live.
    pub fn present(&self) -> impl Iterator<Item = &NodeAddr> {
        self.nodes.keys().filter(|node| !self.out.contains(*node))
    }

    /// A hash of the whole map, for `parent_hash` and, of map 0, for telling differing settings.
    pub fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.encoded())
    }

    /// How many bytes the map takes as a record.
    pub fn bytes(&self) -> usize {
        self.encoded().len()
    }

    fn encoded(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a map is plain data and always encodes")
    }

    /// Whether the map does not contradict itself: whoever has it may look up by any number that it names. What each row
    /// says within itself is looked at where it is read.
    ///
    /// # Errors
    /// What does, for the log.
    pub fn check(&self) -> Result<(), &'static str> {
        for layout in [&self.layout, self.wanted_layout()] {
            layout.check(self.rows.len())?;
            if layout.shards.iter().flatten().any(|node| !self.nodes.contains_key(node)) {
                return Err("it has a node in a shard that is not among its nodes");
            }
        }
        if self.out.iter().any(|node| !self.nodes.contains_key(node)) {
            return Err("it took out a node that is not among its nodes");
        }
        if self.rows.iter().any(|row| row.version > self.epoch) {
            return Err("a row is newer than the map");
        }
        Ok(())
    }
}

impl Layout {
    /// The shard a node belongs to.
    pub fn shard_of(&self, node: &NodeAddr) -> Option<ShardId> {
        self.shards.iter().position(|nodes| nodes.contains(node)).map(|i| ShardId(i as u32 + 1))
    }

    /// The nodes of a shard; `None` when there is no such shard.
    pub fn members(&self, shard: ShardId) -> Option<&[NodeAddr]> {
        let index = (shard.0 as usize).checked_sub(1)?;
        self.shards.get(index).map(Vec::as_slice)
    }

    /// The same partitions and shards, with this node in none of them.
    #[must_use]
    pub fn without(&self, node: &NodeAddr) -> Self {
        let mut layout = self.clone();
        for shard in &mut layout.shards {
            shard.retain(|member| member != node);
        }
        layout
    }

    /// Why this is no layout of so many partitions, if it is none: every partition in a shard, every shard with sorted
    /// members, every node in at most one.
    ///
    /// # Errors
    /// What is wrong, for the log.
    pub fn check(&self, partitions: usize) -> Result<(), &'static str> {
        if self.partitions.len() != partitions {
            return Err("it has not one shard a partition");
        }
        if self.partitions.iter().any(|shard| self.members(*shard).is_none()) {
            return Err("it gives a partition to a shard that it does not have");
        }
        let mut named = BTreeSet::new();
        if !self.shards.iter().flatten().all(|node| named.insert(node)) {
            return Err("it has a node in two shards");
        }
        if !self.shards.iter().all(|shard| shard.is_sorted()) {
            return Err("it has a shard whose nodes are not sorted");
        }
        Ok(())
    }
}
