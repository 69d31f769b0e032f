//! Deciding the next map: this node as an acceptor, and as the proposer where it is its turn.
//!
//! Map e + 1 is decided by single-decree Paxos among the voters that map e names, each step a compare-and-swap on the
//! epoch. The lowest live voter proposes: what was asked for first, then whatever reconciliation finds ready. A voter
//! that has had something to do for five seconds and saw no new map proposes itself. Acceptors sync before they answer.
//! There is no other state than the map: who comes to propose goes on from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::message::{Effect, Message, PartitionWord};
use super::rules::{Rule, Rules};
use super::{Io, Machine, records};
use crate::causal::vector::VersionVector;
use crate::cluster::change::{Change, ChangeError};
use crate::cluster::check::check_proposal;
use crate::cluster::layout;
use crate::cluster::map::ClusterMap;
use crate::cluster::paxos::{Acceptor, PaxosMessage, Proposer, Quorum};
use crate::cluster::reconcile::sight::{Present, Sight, Watch};
use crate::cluster::reconcile::{Told, Vector, Word, change, reconcile};
use crate::cluster::voters::{deciders, leader};
use crate::types::{Epoch, Incarnation, NodeAddr, PartitionId, StayId};

/// An attempt that has not decided for this long, in milliseconds, is followed by one with a higher ballot.
const ATTEMPT_MS: u64 = 1_000;

/// How often the proposer looks for something to do, in milliseconds.
const LOOK_MS: u64 = 20;

/// A voter that is not the lowest proposes when it has had something to do for this long, in milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// How often a peer of a partition that changes tells the voters how far it is, in milliseconds.
const WORDS_MS: u64 = 40;

/// … and everything again, against lost messages.
const WORDS_AGAIN_MS: u64 = 1_000;

/// Answers to changes that are kept for askers who ask again.
const MOST_ANSWERED: usize = 64;

/// A change that somebody asked of this node as the proposer.
#[derive(Clone, Debug)]
struct Asked {
    by: NodeAddr,
    id: u64,
    change: Change,
}

/// What a node keeps of deciding the next map.
#[derive(Debug, Default)]
pub(super) struct Consensus {
    /// Durable before any answer leaves.
    pub acceptor: Acceptor,
    proposer: Option<Proposer>,
    /// The epoch of the last map that this node saw decided as its proposer.
    pub decided: Epoch,
    /// The change that the present attempt has in it.
    proposed: Option<(Asked, Arc<ClusterMap>)>,
    round: u64,
    began_ms: u64,
    look_ms: u64,
    words_ms: u64,
    words_again_ms: u64,
    /// Since when there has been something to do.
    due_since_ms: Option<u64>,
    watch: Watch,
    told: Told,
    steps: BTreeMap<(PartitionId, StayId), u64>,
    bytes: BTreeMap<PartitionId, u64>,
    asked: VecDeque<Asked>,
    answered: VecDeque<(NodeAddr, u64, Result<Epoch, ChangeError>)>,
}

impl Consensus {
    pub fn new(acceptor: Acceptor) -> Self {
        Self { acceptor, ..Self::default() }
    }

    /// Attempts and words under the map before are of no use any more.
    pub fn on_new_map(&mut self, map: &ClusterMap, rules: Rules) {
        self.proposer = None;
        self.due_since_ms = None;
        self.look_ms = 0;
        let listed = |at: &(PartitionId, StayId)| map.row(at.0).peers.contains_key(&at.1);
        if !rules.on(Rule::Versions) {
            self.told
                .iter_mut()
                .filter(|(at, _)| listed(at))
                .for_each(|(at, word)| word.version = map.row(at.0).version);
        }
        self.told.retain(|at, word| listed(at) && word.version == map.row(at.0).version);
        self.steps.retain(|at, _| listed(at));
    }

    /// Steps of all fills that are under way, as far as told.
    pub fn steps_in_all(&self) -> u64 {
        self.steps.values().sum()
    }

    fn answer_of(&self, by: &NodeAddr, id: u64) -> Option<Result<Epoch, ChangeError>> {
        self.answered.iter().find(|(node, known, _)| node == by && *known == id).map(|(_, _, outcome)| outcome.clone())
    }
}

impl Machine {
    // ---- As an acceptor.

    pub(super) fn on_paxos(&mut self, from: &NodeAddr, sender: Incarnation, message: PaxosMessage, io: &mut Io<'_>) {
        match message {
            PaxosMessage::Prepare { epoch, .. } | PaxosMessage::Accept { epoch, .. } if epoch <= self.map.epoch => {
                // Decided here already: the proposer gets the map.
                self.push_map(from, io);
            }
            PaxosMessage::Prepare { epoch, .. } | PaxosMessage::Accept { epoch, .. }
                if epoch.0 > self.map.epoch.0 + 1 =>
            {
                self.keep_early(from, sender, Message::Paxos(message), io);
            }
            PaxosMessage::Prepare { epoch, ballot } => {
                let answer = self.consensus.acceptor.prepare(self.incarnation, epoch, ballot);
                self.answer_proposer(from, answer, io);
            }
            PaxosMessage::Accept { epoch, ballot, map } => {
                let check = self.check_proposed(&map);
                if let Err(why) = &check {
                    io.effects.push(Effect::Warn(format!("refused map {epoch} of {from}: {why}")));
                }
                let answer = self.consensus.acceptor.accept(self.incarnation, epoch, ballot, map, check);
                self.answer_proposer(from, answer, io);
            }
            PaxosMessage::Promise { epoch, ballot, acceptor, accepted } if acceptor == sender => {
                let proposer = self.consensus.proposer.as_mut();
                if let Some(accept) = proposer.and_then(|p| p.on_promise(epoch, ballot, acceptor, accepted)) {
                    self.ask_acceptors(accept, io);
                }
            }
            PaxosMessage::Accepted { epoch, ballot, acceptor } if acceptor == sender => {
                let proposer = self.consensus.proposer.as_mut();
                if let Some(decided) = proposer.and_then(|p| p.on_accepted(epoch, ballot, acceptor)) {
                    self.on_decided(decided, io);
                }
            }
            PaxosMessage::Rejected { epoch, ballot, promised } => {
                let proposer = self.consensus.proposer.as_ref();
                if let Some(round) = proposer.and_then(|p| p.on_rejected(epoch, ballot, promised)) {
                    self.consensus.round = self.consensus.round.max(round);
                }
            }
            PaxosMessage::Promise { .. } | PaxosMessage::Accepted { .. } => {}
        }
    }

    fn check_proposed(&self, map: &ClusterMap) -> Result<(), String> {
        if self.map.is_born() {
            let live = self.links.iter().filter(|(node, link)| link.connected && self.is_live(node));
            let live = live.filter_map(|(_, link)| link.incarnation).chain([self.incarnation]).collect();
            check_proposal(&self.map, map, &live)
        } else {
            layout::follows_birth(&self.zero, map)
        }
    }

    /// Sends an acceptor's answer once its state is durable; to this very node, it is an input like any other.
    fn answer_proposer(&mut self, to: &NodeAddr, answer: PaxosMessage, io: &mut Io<'_>) {
        self.pending.put(records::meta_key("acceptor"), records::encode(&self.consensus.acceptor));
        let effect = Effect::Send { to: to.clone(), message: Message::Paxos(answer) };
        if self.on(Rule::DurableAcceptor) { self.after_sync(effect, io) } else { self.release(effect, io) }
    }

    // ---- As the proposer.

    /// Begins an attempt at having these acceptors decide `value`.
    pub(super) fn propose(
        &mut self,
        value: Arc<ClusterMap>,
        acceptors: BTreeSet<Incarnation>,
        quorum: Quorum,
        io: &mut Io<'_>,
    ) {
        let epoch = value.epoch;
        self.consensus.round = self.consensus.acceptor.next_round(epoch).max(self.consensus.round + 1);
        self.consensus.began_ms = self.now.mono_ms;
        let proposer = Proposer::new(epoch, self.incarnation, self.consensus.round, acceptors, quorum, value);
        let prepare = proposer.start();
        self.consensus.proposer = Some(proposer);
        self.ask_acceptors(prepare, io);
    }

    /// True while an attempt is fresh.
    pub(super) fn is_proposing(&self) -> bool {
        self.consensus.proposer.is_some() && self.now.mono_ms < self.consensus.began_ms + ATTEMPT_MS
    }

    fn ask_acceptors(&mut self, message: PaxosMessage, io: &mut Io<'_>) {
        let Some(proposer) = &self.consensus.proposer else { return };
        let asked: BTreeSet<Incarnation> = proposer.acceptors().clone();
        let nodes: Vec<NodeAddr> = self
            .links
            .iter()
            .filter(|(_, link)| link.incarnation.is_some_and(|incarnation| asked.contains(&incarnation)))
            .map(|(node, _)| node.clone())
            .collect();
        for node in nodes {
            self.send(&node, Message::Paxos(message.clone()), io);
        }
        if asked.contains(&self.incarnation) {
            let (me, incarnation) = (self.config.address.clone(), self.incarnation);
            self.on_paxos(&me, incarnation, message, io);
        }
    }

    fn on_decided(&mut self, decided: Arc<ClusterMap>, io: &mut Io<'_>) {
        self.consensus.proposer = None;
        self.consensus.decided = decided.epoch;
        if let Some((asked, proposed)) = self.consensus.proposed.take()
            && proposed == decided
        {
            self.consensus.asked.retain(|other| other.by != asked.by || other.id != asked.id);
            self.answer_change(&asked.by, asked.id, Ok(decided.epoch), io);
        }
        self.learn(decided, io);
    }

    pub(super) fn tick_consensus(&mut self, io: &mut Io<'_>) {
        self.tick_words(io);
        let now = self.now.mono_ms;
        if !self.map.is_born() || now < self.consensus.look_ms {
            return;
        }
        self.consensus.look_ms = now + LOOK_MS;
        if !self.map.voters.contains(&self.incarnation) {
            return;
        }
        let sight = self.look();
        if self.learned.is_some() || self.is_proposing() {
            return;
        }
        let leads = leader(&self.map, &sight.live) == Some(&self.config.address);
        let Some((next, asked)) = self.next_map(&sight, leads, io) else {
            self.consensus.due_since_ms = None;
            return;
        };
        let due_since_ms = *self.consensus.due_since_ms.get_or_insert(now);
        if !leads && now < due_since_ms + PATIENCE_MS {
            return;
        }
        let (acceptors, quorum) = deciders(&self.map, &sight.connected);
        let next = Arc::new(next);
        self.consensus.proposed = asked.map(|asked| (asked, next.clone()));
        self.propose(next, acceptors, quorum, io);
    }

    /// The map to propose: with the change that was asked for first, or with what is ready.
    fn next_map(&mut self, sight: &Sight, leads: bool, io: &mut Io<'_>) -> Option<(ClusterMap, Option<Asked>)> {
        let rules = self.config.reconcile_rules;
        while let Some(asked) = self.consensus.asked.front().cloned().filter(|_| leads) {
            match change(&self.map, &asked.change, &self.consensus.told, sight, rules) {
                Ok(Some(next)) => return Some((next.map, Some(asked))),
                Ok(None) => {
                    self.consensus.asked.pop_front();
                    self.answer_change(&asked.by, asked.id, Ok(self.map.epoch), io);
                }
                Err(error) => {
                    self.consensus.asked.pop_front();
                    self.answer_change(&asked.by, asked.id, Err(error), io);
                }
            }
        }
        reconcile(&self.map, &self.consensus.told, sight, rules).map(|next| (next.map, None))
    }

    /// What this node sees of the others, and for how long.
    pub(super) fn look(&mut self) -> Sight {
        let now = self.now.mono_ms;
        let me = self.config.address.clone();
        let mut hears: BTreeMap<NodeAddr, BTreeSet<NodeAddr>> = BTreeMap::new();
        let mut connected = BTreeMap::from([(me.clone(), self.incarnation)]);
        let mut mine = BTreeSet::from([me.clone()]);
        for (node, link) in &self.links {
            if !self.detector.hears(now, node) {
                continue;
            }
            mine.insert(node.clone());
            hears.insert(node.clone(), self.detector.heard_from(node).cloned().collect());
            if let Some(incarnation) = link.incarnation.filter(|_| link.connected) {
                connected.insert(node.clone(), incarnation);
            }
        }
        hears.insert(me, mine);
        let (filled, bytes) = (self.consensus.steps.clone(), self.consensus.bytes.clone());
        let present = Present { hears, connected, filled, bytes };
        self.consensus.watch.look(now, &self.map, present)
    }

    // ---- Changes that are asked for.

    pub(super) fn on_change_asked(&mut self, by: &NodeAddr, id: u64, change: Change, io: &mut Io<'_>) {
        if let Some(outcome) = self.consensus.answer_of(by, id) {
            return self.tell_asker(by, id, outcome, io);
        }
        let waits = self.consensus.asked.iter().any(|asked| asked.by == *by && asked.id == id);
        let room = self.consensus.asked.len() < MOST_ANSWERED;
        if !waits && room && self.map.voters.contains(&self.incarnation) {
            self.consensus.asked.push_back(Asked { by: by.clone(), id, change });
            self.consensus.look_ms = 0;
        }
    }

    fn answer_change(&mut self, by: &NodeAddr, id: u64, outcome: Result<Epoch, ChangeError>, io: &mut Io<'_>) {
        self.consensus.answered.push_back((by.clone(), id, outcome.clone()));
        if self.consensus.answered.len() > MOST_ANSWERED {
            self.consensus.answered.pop_front();
        }
        self.tell_asker(by, id, outcome, io);
    }

    fn tell_asker(&mut self, by: &NodeAddr, id: u64, outcome: Result<Epoch, ChangeError>, io: &mut Io<'_>) {
        if *by == self.config.address {
            self.on_change_answered(id, outcome, io);
        } else {
            self.answer(&by.clone(), Message::ChangeAnswered { id, outcome }, io);
        }
    }

    // ---- Words.

    /// Tells the voters how far this node is with partitions that change.
    fn tick_words(&mut self, io: &mut Io<'_>) {
        let now = self.now.mono_ms;
        if !self.map.is_born() || now < self.consensus.words_ms {
            return;
        }
        self.consensus.words_ms = now + WORDS_MS;
        let again = now >= self.consensus.words_again_ms;
        if again {
            self.consensus.words_again_ms = now + WORDS_AGAIN_MS;
        }
        let due = std::mem::take(&mut self.words_due);
        let mut words = Vec::new();
        for partition in self.partitions() {
            if again || due.contains(&partition) {
                words.extend(self.words_of(partition));
            }
        }
        if words.is_empty() {
            return;
        }
        let voters: Vec<NodeAddr> = self.map.voters.iter().filter_map(|v| self.map.address_of(*v)).cloned().collect();
        for node in voters {
            if node == self.config.address {
                self.take_words(self.incarnation, &words);
            } else {
                self.send(&node, Message::Words(words.clone()), io);
            }
        }
    }

    /// What this node tells of a partition whose row has others than Serving peers.
    fn words_of(&self, partition: PartitionId) -> Vec<PartitionWord> {
        let part = self.part(partition);
        let changes = part.peers.iter().any(|peer| peer.state != crate::cluster::map::PeerState::Serving);
        let (Some(first), Some(replica), true) = (&part.told, &part.replica, changes) else { return Vec::new() };
        let (version, steps, bytes) = (part.version, part.filled_steps, replica.bytes);
        part.own_stays()
            .map(|own| PartitionWord {
                partition,
                version,
                stay: own.stay,
                first: first.clone(),
                durable: replica.durable.clone(),
                steps,
                bytes,
            })
            .collect()
    }

    pub(super) fn take_words(&mut self, from: Incarnation, words: &[PartitionWord]) {
        for word in words {
            let Some(row) = self.map.rows.get(word.partition.0 as usize) else { continue };
            let said = row.peers.get(&word.stay).is_some_and(|stay| stay.incarnation == from && !stay.lost);
            if !said || (row.version != word.version && self.on(Rule::Versions)) {
                continue;
            }
            let at = (word.partition, word.stay);
            let entry = self.consensus.told.entry(at).or_default();
            if entry.version != word.version {
                *entry = Word { version: word.version, ..Word::default() };
            }
            entry.first = numbers(&word.first);
            raise(&mut entry.durable, &word.durable);
            self.consensus.steps.insert(at, word.steps);
            let bytes = self.consensus.bytes.entry(word.partition).or_default();
            *bytes = (*bytes).max(word.bytes);
        }
    }
}

fn numbers(vector: &VersionVector) -> Vector {
    vector.iter().collect()
}

fn raise(known: &mut Vector, told: &VersionVector) {
    for (stay, seq) in told.iter() {
        let entry = known.entry(stay).or_default();
        *entry = (*entry).max(seq);
    }
}
