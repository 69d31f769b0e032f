//! Whether the texts of contexts tell their clocks.
//!
//! A context must be taken by every node of the store, and builds that speak no version [`CLOCKS_VERSION`] of the protocol
//! take no text with a clock. So a node tells clocks once it knows that all take them: it hears each node that is bound,
//! and all of them do; or one of these says that it knows; or a client brings a text with a clock, which only a node that
//! knew can have given. From then on it does so for ever, whoever comes: a node that left out a clock which another has
//! told would let a write be older than one that it follows.
//!
//! What it knows is in the batch of the step that showed it, and told before that is durable: who crashes just then, and
//! hears nobody for three seconds, leaves clocks out until somebody tells it again.
//!
//! Who does not know yet has no contexts to give, as before the store's birth; who hears an older build, or has waited
//! [`KNOW_MS`] for somebody who is not there, gives contexts without clocks until it knows.

use std::collections::BTreeSet;

use super::liveness::Link;
use super::message::Effect;
use super::sign::CLOCKS_VERSION;
use super::{Io, Machine, records};
use crate::causal::context::Context;
use crate::cluster::line::Relation;
use crate::types::{Incarnation, NodeAddr, Timestamp};

/// How long a node gives no contexts while it does not know yet what the others take, in milliseconds: they are pinged
/// every 500.
const KNOW_MS: u64 = 3_000;

/// What this node knows of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Telling {
    /// Whether texts tell clocks; `None` while that is not known.
    now: Option<bool>,
    /// Since when this process has known of the store, by the monotonic clock.
    since_ms: Option<u64>,
}

impl Telling {
    /// As the directory has it: what was known once is not asked again.
    pub fn stored(known: Option<bool>) -> Self {
        Self { now: known.filter(|known| *known), since_ms: None }
    }
}

impl Machine {
    /// Whether texts of contexts tell clocks; `None` while this node does not know what the others take, and gives none.
    pub fn tells_clocks(&self) -> Option<bool> {
        self.telling.now
    }

    /// Looks whether all take clocks, or it was waited long enough to find out.
    pub(super) fn look_who_takes_clocks(&mut self, io: &mut Io<'_>) {
        if !self.map.is_born() || self.telling.now == Some(true) {
            return;
        }
        let since_ms = *self.telling.since_ms.get_or_insert(self.now.mono_ms);
        let older = self.older_nodes().next().is_some();
        if self.one_knows() || !older && self.not_heard_to_take().next().is_none() {
            self.take_clocks(io);
        } else if self.telling.now.is_none() && (older || self.now.mono_ms >= since_ms + KNOW_MS) {
            self.telling.now = Some(false);
            io.effects.push(Effect::TellClocks(false));
        }
    }

    /// Learns from what a client brings, of this line of maps.
    pub(super) fn learn_of_clocks(&mut self, brought: &Context, io: &mut Io<'_>) {
        if self.telling.now != Some(true) && brought.clock() > Timestamp(0) {
            self.take_clocks(io);
        }
    }

    /// All nodes take clocks.
    fn take_clocks(&mut self, io: &mut Io<'_>) {
        self.telling.now = Some(true);
        self.pending.put(records::meta_key("clocks"), records::encode(&true));
        // The others are told at once: sessions go from node to node.
        self.timers.ping_ms = 0;
        io.effects.push(Effect::TellClocks(true));
    }

    /// A node of this line says that it knows. One that went on by itself may have left out who does not.
    fn one_knows(&self) -> bool {
        let knows = |link: &Link| link.tells_clocks && link.cluster_id == self.map.cluster_id;
        self.bound().any(|(node, bound)| {
            self.heard_as(node, bound).is_some_and(knows) && self.relation_to(node) == Relation::Same
        })
    }

    /// The nodes that are heard and have an older build, whoever they are under their address.
    fn older_nodes(&self) -> impl Iterator<Item = &NodeAddr> {
        let lacks = |link: &Link| link.speaks.is_some_and(|speaks| speaks < CLOCKS_VERSION);
        self.map.nodes.keys().filter(move |node| self.is_live(node) && self.links.get(*node).is_some_and(lacks))
    }

    /// Of the nodes that may have clients, those of whom it is not known that they take clocks. Who was taken out and is
    /// not there, as far as anybody hears, has none. Who has a newer map may know of nodes that are bound since.
    fn not_heard_to_take(&self) -> impl Iterator<Item = &NodeAddr> {
        let takes =
            |link: &Link| link.speaks.is_some_and(|speaks| speaks >= CLOCKS_VERSION) && link.epoch <= self.map.epoch;
        let is_there =
            |node: &NodeAddr| self.is_live(node) || self.detector.heard_by(self.now.mono_ms, node).next().is_some();
        let unknown = move |(node, bound): &(&NodeAddr, Incarnation)| {
            let known = self.is_live(node) && self.heard_as(node, *bound).is_some_and(takes);
            !known && (is_there(node) || !self.map.out.contains(*node))
        };
        self.bound().filter(unknown).map(|(node, _)| node)
    }

    /// The other nodes that are bound: who never was has given no contexts.
    fn bound(&self) -> impl Iterator<Item = (&NodeAddr, Incarnation)> {
        let others = self.map.nodes.iter().filter(|(node, _)| **node != self.config.address);
        others.filter_map(|(node, bound)| bound.map(|bound| (node, bound)))
    }

    /// What a node has said of itself, if it is the one that is bound: others may speak under its address.
    fn heard_as(&self, node: &NodeAddr, bound: Incarnation) -> Option<&Link> {
        self.links.get(node).filter(|link| link.incarnation == Some(bound))
    }

    /// What is worth an operator's look: who does not take what this node gives, or for whom it leaves out clocks.
    pub(super) fn warn_of_builds(&self, warnings: &mut Vec<String>) {
        let names = |nodes: BTreeSet<&NodeAddr>| nodes.into_iter().map(NodeAddr::as_str).collect::<Vec<_>>().join(", ");
        let older: BTreeSet<_> = self.older_nodes().collect();
        match self.telling.now {
            Some(true) if !older.is_empty() => warnings.push(format!(
                "{} has an older build, which answers 400 to this store's contexts: start it with a newer one",
                names(older)
            )),
            Some(false) => warnings.push(format!(
                "timestamps extend causality only within a partition, until these are heard, and have no older build: {}",
                names(older.into_iter().chain(self.not_heard_to_take()).collect())
            )),
            Some(true) | None => {}
        }
    }
}
