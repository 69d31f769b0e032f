//! The store's birth, and maps on their way: map 1 is decided by every node of `VIEW`, each accepting it once.
//!
//! Map 0 follows from the settings. Once the node with the lowest address has heard every other node of `VIEW`, with
//! the same settings and none of them born, it proposes map 1: single-decree Paxos whose quorum is all of them, so
//! that no set of nodes that forgot can found a second store. An acceptor's answer leaves when it is durable. Whoever
//! learns a decided map stores it, and acts under it once that is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::message::{Effect, Message};
use super::open::derive;
use super::rules::Rule;
use super::{Io, Machine, records};
use crate::causal::partition::Replica;
use crate::cluster::layout;
use crate::cluster::map::ClusterMap;
use crate::cluster::paxos::{Acceptor, PaxosMessage, Proposer, Quorum};
use crate::types::{ClusterId, ContextSecret, Epoch, Incarnation, NodeAddr, PartitionId};

/// An attempt that has not decided for this long, in milliseconds, is followed by one with a higher ballot.
const ATTEMPT_MS: u64 = 1_000;

/// What a node keeps of deciding the next map.
#[derive(Debug, Default)]
pub(super) struct Birth {
    /// Durable before any answer leaves.
    pub acceptor: Acceptor,
    proposer: Option<Proposer>,
    round: u64,
    began_ms: u64,
}

impl Birth {
    pub fn new(acceptor: Acceptor) -> Self {
        Self { acceptor, ..Self::default() }
    }
}

impl Machine {
    pub(super) fn tick_birth(&mut self, io: &mut Io<'_>) {
        let lowest = self.zero.nodes.keys().next() == Some(&self.config.address);
        if self.map.is_born() || self.learned.is_some() || !lowest || self.not_ready_to_be_born().is_some() {
            return;
        }
        let now = self.now.mono_ms;
        if self.birth.proposer.is_some() && now < self.birth.began_ms + ATTEMPT_MS {
            return;
        }
        let bound = self.heard_incarnations();
        let value = Arc::new(self.first_map(&bound));
        let acceptors: BTreeSet<Incarnation> = bound.values().copied().collect();
        let quorum = if self.on(Rule::UnanimousBirth) { Quorum::All } else { Quorum::Majority };
        self.birth.round = self.birth.acceptor.next_round(Epoch(1)).max(self.birth.round + 1);
        self.birth.began_ms = now;
        let proposer = Proposer::new(Epoch(1), self.incarnation, self.birth.round, acceptors, quorum, value);
        let prepare = proposer.start();
        self.birth.proposer = Some(proposer);
        self.ask_acceptors(prepare, io);
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

    /// Why the store can't be born yet, in one sentence.
    pub(super) fn not_ready_to_be_born(&self) -> Option<String> {
        let others = || self.zero.nodes.keys().filter(|node| **node != self.config.address);
        let heard = |node: &&NodeAddr| {
            self.links.get(*node).is_some_and(|link| link.settings_hash.is_some()) && self.is_live(node)
        };
        let missing: Vec<&str> = others().filter(|node| !heard(node)).map(NodeAddr::as_str).collect();
        if !missing.is_empty() {
            return Some(format!("waiting for {} to start", enumerate(&missing)));
        }
        let told = |node: &NodeAddr| self.links.get(node).and_then(|link| link.settings_hash);
        let differing: Vec<&str> =
            others().filter(|node| told(node) != Some(self.settings_hash)).map(NodeAddr::as_str).collect();
        if !differing.is_empty() {
            return Some(format!(
                "{} started with another VIEW, SHARD_COUNT or PARTITIONS than this node; start all with the same",
                enumerate(&differing)
            ));
        }
        None
    }

    fn ask_acceptors(&mut self, message: PaxosMessage, io: &mut Io<'_>) {
        let nodes: Vec<NodeAddr> = self.zero.nodes.keys().filter(|n| **n != self.config.address).cloned().collect();
        for node in nodes {
            self.send(&node, Message::Paxos(message.clone()), io);
        }
        let (me, incarnation) = (self.config.address.clone(), self.incarnation);
        self.on_paxos(&me, incarnation, message, io);
    }

    pub(super) fn on_paxos(&mut self, from: &NodeAddr, sender: Incarnation, message: PaxosMessage, io: &mut Io<'_>) {
        match message {
            PaxosMessage::Prepare { epoch, .. } | PaxosMessage::Accept { epoch, .. }
                if self.map.is_born() || epoch != Epoch(1) =>
            {
                // Decided here already: the proposer gets the map.
                self.push_map(from, io);
            }
            PaxosMessage::Prepare { epoch, ballot } => {
                let answer = self.birth.acceptor.prepare(self.incarnation, epoch, ballot);
                self.answer_proposer(from, answer, io);
            }
            PaxosMessage::Accept { epoch, ballot, map } => {
                let check = layout::follows_birth(&self.zero, &map);
                let answer = self.birth.acceptor.accept(self.incarnation, epoch, ballot, map, check);
                self.answer_proposer(from, answer, io);
            }
            PaxosMessage::Promise { epoch, ballot, acceptor, accepted } if acceptor == sender => {
                let proposer = self.birth.proposer.as_mut();
                if let Some(accept) = proposer.and_then(|p| p.on_promise(epoch, ballot, acceptor, accepted)) {
                    self.ask_acceptors(accept, io);
                }
            }
            PaxosMessage::Accepted { epoch, ballot, acceptor } if acceptor == sender => {
                let proposer = self.birth.proposer.as_mut();
                if let Some(decided) = proposer.and_then(|p| p.on_accepted(epoch, ballot, acceptor)) {
                    self.birth.proposer = None;
                    self.learn(decided, io);
                }
            }
            PaxosMessage::Rejected { epoch, ballot, promised } => {
                let proposer = self.birth.proposer.as_ref();
                if let Some(round) = proposer.and_then(|p| p.on_rejected(epoch, ballot, promised)) {
                    self.birth.round = self.birth.round.max(round);
                }
            }
            PaxosMessage::Promise { .. } | PaxosMessage::Accepted { .. } => {}
        }
    }

    /// Sends an acceptor's answer once its state is durable; to this very node, it is an input like any other.
    fn answer_proposer(&mut self, to: &NodeAddr, answer: PaxosMessage, io: &mut Io<'_>) {
        self.pending.put(records::meta_key("acceptor"), records::encode(&self.birth.acceptor));
        let effect = Effect::Send { to: to.clone(), message: Message::Paxos(answer) };
        if self.on(Rule::DurableAcceptor) { self.after_sync(effect, io) } else { self.release(effect, io) }
    }

    // ---- Maps on their way.

    /// Takes note of a decided map: it is stored, and acted under once that is durable.
    pub(super) fn learn(&mut self, map: Arc<ClusterMap>, io: &mut Io<'_>) {
        let newest = self.learned.as_ref().map_or(self.map.epoch, |(_, map)| map.epoch);
        if map.epoch <= newest {
            return;
        }
        if self.map.is_born() && map.cluster_id != self.map.cluster_id {
            return;
        }
        if !self.map.is_born() && layout::follows_birth(&self.zero, &map).is_err() {
            io.effects.push(Effect::Warn(format!("a map of another store was offered (cluster {})", map.cluster_id)));
            return;
        }
        self.pending.put(records::meta_key("map"), records::encode(&*map));
        self.learned = Some((self.current_batch(), map));
        if !self.on(Rule::DurableMap) {
            self.adopt(io);
        }
    }

    /// Acts under the learned map, if it is durable.
    pub(super) fn adopt_learned(&mut self, io: &mut Io<'_>) {
        if self.learned.as_ref().is_some_and(|(batch, _)| *batch <= self.synced) {
            self.adopt(io);
        }
    }

    fn adopt(&mut self, io: &mut Io<'_>) {
        let Some((_, map)) = self.learned.take() else { return };
        self.map = map.clone();
        self.adopt_rows();
        io.effects.push(Effect::MapChanged(map));
        let others: Vec<NodeAddr> = self.links.keys().cloned().collect();
        for node in others {
            self.push_map(&node, io);
        }
        self.wake.extend(self.partitions());
    }

    /// Brings every partition whose row has changed under the map in force; makes the replicas that it names.
    pub(super) fn adopt_rows(&mut self) {
        let map = self.map.clone();
        self.parts.resize_with(map.rows.len(), Default::default);
        let own_name = self.on(Rule::OwnName);
        for (at, row) in map.rows.iter().enumerate() {
            let partition = PartitionId(at as u32);
            if self.parts[at].version == row.version {
                continue;
            }
            self.parts[at].adopt(&map, partition, self.incarnation, own_name, &self.config.address);
            let part = &mut self.parts[at];
            let held_for: Vec<_> = part.peers.iter().filter(|peer| peer.own && !peer.lost).map(|p| p.stay).collect();
            if held_for.is_empty() {
                part.replica = None;
                continue;
            }
            let replica = part.replica.get_or_insert_with(Replica::default);
            if replica.held_for != held_for {
                replica.held_for = held_for;
                self.changed.insert(partition);
            }
        }
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
