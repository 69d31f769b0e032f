//! The store's birth: map 1 is decided by every node of `VIEW`, each accepting it once.
//!
//! Map 0 follows from the settings. Once the node with the lowest address has heard every other node of `VIEW`, with
//! the same settings and none of them born, it proposes map 1: single-decree Paxos whose quorum is all of them, so
//! that no set of nodes that forgot can found a second store.
//!
//! **Without one.** Where a node never comes up, the operator may tell any other to go on without it: that one proposes,
//! and the quorum is all but the one left out. Of three nodes or more any two such quorums, whomever each leaves out,
//! have a node in common, and so does each with all: what a quorum accepted is told to every other proposer, who takes
//! it over. So there is one map 1, as long as that node keeps its disk. The word itself is no state: what was accepted
//! is, and is durable. The place of the one left out is kept: when it comes up it takes the store's map as any node
//! does, is bound, and filled; to found or join a second store it would need the others.
//!
//! **Without any.** Where every node of `VIEW` has lost its disk at once, a store may live on at nodes that came later,
//! and none of `VIEW` can know. So who would propose listens first, for longer than a node of a store takes to find one
//! that is back: whoever it can reach belongs to that store again. Beyond reach for that long, there would be two.
//!
//! A node that belongs to a running store already, or is to join one (no `SHARD_COUNT`), takes that store's map from
//! whoever has it, and asks to be admitted where the map does not know its address, or has it as one taken out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::agreement::NotBorn;
use super::liveness::Link;
use super::message::Wanted;
use super::open::derive;
use super::rules::Rule;
use super::{Io, Machine};
use crate::cluster::layout;
use crate::cluster::map::ClusterMap;
use crate::cluster::paxos::Quorum;
use crate::types::{ClusterId, ContextSecret, Incarnation, NodeAddr};

/// How often a node that the map does not know asks to be admitted, in milliseconds.
const ADMIT_MS: u64 = 1_000;

impl Machine {
    pub(super) fn tick_birth(&mut self, io: &mut Io<'_>) {
        if self.map.is_born() {
            return self.register(io);
        }
        let lowest = self.zero.nodes.keys().next() == Some(&self.config.address);
        let without = self.left_out();
        let waits = self.learned.is_some() || !(lowest || without.is_some());
        if waits || self.not_ready_to_be_born(without).is_some() || self.is_proposing() {
            return;
        }
        let mut bound = self.heard_incarnations();
        bound.retain(|node, _| Some(node) != without);
        let value = Arc::new(self.first_map(&bound));
        let acceptors: BTreeSet<Incarnation> = bound.values().copied().collect();
        let quorum = if self.on(Rule::UnanimousBirth) { Quorum::All } else { Quorum::Majority };
        self.propose(value, acceptors, quorum, io);
    }

    /// A node that starts with an address the store does not know adds itself to the view, and so does one that was
    /// taken out when its process starts anew. One that is taken out while it runs stays out.
    fn register(&mut self, io: &mut Io<'_>) {
        let now = self.now.mono_ms;
        let (known, out) =
            (self.map.nodes.contains_key(&self.config.address), self.map.out.contains(&self.config.address));
        let met = |(node, link): (&NodeAddr, &Link)| self.detector.hears(now, node) && link.epoch == self.map.epoch;
        if known && !out && self.links.iter().any(met) {
            self.begins = false;
        }
        if (known && !(out && self.begins)) || now < self.timers.admit_ms {
            return;
        }
        self.timers.admit_ms = now + ADMIT_MS;
        let node = self.config.address.clone();
        self.begin_change(None, Wanted::Admit(node), ADMIT_MS, io);
    }

    /// The node that the operator leaves out, unless it has come up since.
    fn left_out(&self) -> Option<&NodeAddr> {
        self.born_without.as_ref().filter(|node| !self.detector.hears(self.now.mono_ms, node))
    }

    /// Takes the operator's word that the store is to be born without a node.
    ///
    /// # Errors
    /// Why not; and, before the operator has confirmed, what it costs.
    pub(super) fn begin_birth(&mut self, without: &NodeAddr, confirmed: bool) -> Result<(), NotBorn> {
        if self.map.is_born() {
            return Err(NotBorn::Born);
        }
        if *without == self.config.address || self.detector.hears(self.now.mono_ms, without) {
            return Err(NotBorn::IsUp(without.clone()));
        }
        let Some(shard) = self.zero.shard_of(without) else { return Err(NotBorn::NotInView(without.clone())) };
        if !layout::nodes_may_be_left_out(&self.zero) {
            return Err(NotBorn::OnlyTwo);
        }
        if let Some(reason) = self.not_ready_to_be_born(Some(without)) {
            return Err(NotBorn::Waiting(reason));
        }
        if !confirmed {
            let members = self.zero.layout.members(shard).unwrap_or_default().len();
            return Err(NotBorn::Unconfirmed { node: without.clone(), shard, left: members - 1 });
        }
        self.born_without = Some(without.clone());
        Ok(())
    }

    fn first_map(&self, bound: &BTreeMap<NodeAddr, Incarnation>) -> ClusterMap {
        let cluster_id = ClusterId(derive(&self.config.seed, b"cluster").max(1));
        let secret = ContextSecret(derive(&self.config.seed, b"secret").to_be_bytes());
        layout::map_one(&self.zero, bound, cluster_id, secret)
    }

    fn heard_incarnations(&self) -> BTreeMap<NodeAddr, Incarnation> {
        let others = self.links.iter().filter_map(|(node, link)| Some((node.clone(), link.incarnation?)));
        let mut bound: BTreeMap<_, _> = others.filter(|(node, _)| self.zero.nodes.contains_key(node)).collect();
        bound.insert(self.config.address.clone(), self.incarnation);
        bound
    }

    /// Why the store can't be born yet, without one node perhaps, in one sentence.
    pub(super) fn not_ready_to_be_born(&self, without: Option<&NodeAddr>) -> Option<String> {
        let others = || self.zero.nodes.keys().filter(|node| **node != self.config.address && Some(*node) != without);
        let told = |node: &NodeAddr| self.links.get(node).filter(|_| self.is_live(node))?.settings_hash;
        let born = others().find(|node| self.links.get(*node).is_some_and(|link| link.epoch.0 > 0));
        if let Some(node) = born {
            return Some(format!("taking the map of the running store from {node}"));
        }
        let missing: Vec<&str> = others().filter(|node| told(node).is_none()).map(NodeAddr::as_str).collect();
        let differs = |node: &&NodeAddr| told(node).is_some_and(|hash| hash != self.settings_hash);
        let differing: Vec<&str> = others().filter(differs).map(NodeAddr::as_str).collect();
        let waiting = (!missing.is_empty()).then(|| format!("waiting for {} to start", enumerate(&missing)));
        // Who is missing may be nobody's but this node's wish.
        let differing = (!differing.is_empty()).then(|| {
            format!(
                "{} started with another VIEW, SHARD_COUNT or PARTITIONS than this node; start all with the same",
                enumerate(&differing)
            )
        });
        let reasons: Vec<String> = waiting.into_iter().chain(differing).collect();
        if !reasons.is_empty() {
            return Some(reasons.join("; "));
        }
        let listens = self.now.mono_ms < self.opened_ms + self.config.listen_ms;
        listens.then(|| "listening whether a store that these nodes belong to is still there".to_owned())
    }
}

/// `a`, `a and b`, `a, b and c`.
fn enumerate(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
