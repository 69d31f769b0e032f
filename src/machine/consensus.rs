//! Deciding the next map: this node as an acceptor, and as the proposer where it is its turn.
//!
//! Map e + 1 is decided by single-decree Paxos among the voters that map e names, each step a compare-and-swap on the
//! epoch. The lowest live voter proposes: what was asked for first, then whatever reconciliation finds ready. A voter
//! that has had something to do for five seconds and saw no new map proposes itself; to have accepted a map and not to
//! see it decided is something to do. Acceptors sync before they answer.
//! There is no other state than the map: who comes to propose goes on from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::asked::Asked;
use super::liveness::Link;
use super::message::{Effect, Message, PartitionWord};
use super::rules::{Rule, Rules};
use super::{Io, Machine, records};
use crate::causal::vector::VersionVector;
use crate::cluster::change::ChangeError;
use crate::cluster::delta::MapDelta;
use crate::cluster::map::ClusterMap;
use crate::cluster::paxos::epochs::{Participant, Stand, Turn, may_propose};
use crate::cluster::paxos::{Acceptor, PaxosMessage, Quorum};
use crate::cluster::reconcile::sight::{Present, Sight, Watch};
use crate::cluster::reconcile::{Told, Vector, Word, all_go_on_filling, change, follow, reconcile};
use crate::cluster::voters::{deciders, leader};
use crate::types::{Epoch, Incarnation, NodeAddr, PartitionId, StayId};

/// An attempt that has not decided for this long, in milliseconds, is followed by one with a higher ballot.
const ATTEMPT_MS: u64 = 1_000;

/// How often the proposer looks for something to do, in milliseconds.
const LOOK_MS: u64 = 20;

/// After a new map the proposer lets steps gather for so long, in milliseconds: writes to a row that changes wait until its
/// peers have said their first words, so rows should change seldom, and many at once.
const GATHER_MS: u64 = 250;

/// … and for so long while more are to come and no node has to wait for it: each that is being filled goes on.
const GATHER_MORE_MS: u64 = 1_000;

/// A voter that is not the lowest proposes when it has had something to do for this long, in milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// How often a peer of a partition that changes tells the voters how far it is, in milliseconds.
const WORDS_MS: u64 = 40;

/// … and everything again, against lost messages.
const WORDS_AGAIN_MS: u64 = 1_000;

/// What a node keeps of deciding the next map.
#[derive(Debug, Default)]
pub(super) struct Consensus {
    participant: Participant,
    /// The epoch of the last map that this node saw decided as its proposer.
    pub decided: Epoch,
    /// The change that the present attempt has in it.
    pub proposed: Option<(Asked, Arc<ClusterMap>)>,
    began_ms: u64,
    pub look_ms: u64,
    /// Until when nothing but what is asked for changes the map.
    pub hold_until_ms: u64,
    /// The map that was last held like that.
    pub held: Epoch,
    words_ms: u64,
    words_again_ms: u64,
    /// When this node took over the map in force.
    pub adopted_ms: u64,
    /// Since when there has been something to do.
    due_since_ms: Option<u64>,
    watch: Watch,
    /// When nothing was to be done under this map and with these words: the same sight leads nowhere.
    idle: Option<Idle>,
    pub told: Told,
    steps: BTreeMap<(PartitionId, StayId), u64>,
    bytes: Arc<BTreeMap<PartitionId, u64>>,
    pub asked: VecDeque<Asked>,
    pub answered: VecDeque<(NodeAddr, u64, Result<Epoch, ChangeError>)>,
}

/// A look that led nowhere.
#[derive(Debug)]
struct Idle {
    /// Who was heard and connected then, link by link.
    around: Vec<Around>,
    /// Until when nothing else can be seen with that.
    until_ms: u64,
    sight: Sight,
}

/// What there is to see of one link.
#[derive(Debug, PartialEq)]
struct Around {
    node: NodeAddr,
    /// Whom the node hears; `None` while it is not heard itself.
    hears: Option<Arc<BTreeSet<NodeAddr>>>,
    connected: Option<Incarnation>,
}

impl Consensus {
    pub fn new(acceptor: Acceptor) -> Self {
        Self { participant: Participant::new(acceptor), ..Self::default() }
    }

    /// A reshard begins: its partitions tell their sizes anew, which only grow while it goes on.
    pub fn weigh_anew(&mut self) {
        self.bytes = Arc::default();
    }

    /// Attempts and words under the map before are of no use any more.
    pub fn on_new_map(&mut self, map: &ClusterMap, rules: Rules) {
        self.participant.on_new_map();
        self.due_since_ms = None;
        self.idle = None;
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
}

impl Machine {
    // ---- As an acceptor.

    pub(super) fn on_paxos(&mut self, from: &NodeAddr, sender: Incarnation, message: PaxosMessage, io: &mut Io<'_>) {
        let live = self.links.iter().filter(|(node, link)| link.connected && self.is_live(node));
        let live = live.filter_map(|(_, link)| link.incarnation).chain([self.incarnation]).collect();
        let here = Stand { me: self.incarnation, zero: &self.zero, map: &self.map, live };
        let turn = self.consensus.participant.hear(&here, sender, message);
        match turn {
            Turn::Nothing => {}
            Turn::TellMap => self.push_map(from, io),
            Turn::Keep(message) => self.keep_early(from, sender, Message::Paxos(message), io),
            Turn::Answer { answer, refused } => {
                if let Some(why) = refused {
                    let next = self.map.epoch.0 + 1;
                    io.effects.push(Effect::Warn(format!("refused map {next} of {from}: {why}")));
                }
                self.answer_proposer(from, answer, io);
            }
            Turn::Ask(accept) => self.ask_acceptors(accept, io),
            Turn::Decided(map) => self.on_decided(map, io),
        }
    }

    /// Sends an acceptor's answer once its state is durable; to this very node, it is an input like any other.
    fn answer_proposer(&mut self, to: &NodeAddr, answer: PaxosMessage, io: &mut Io<'_>) {
        self.pending.put(records::meta_key("acceptor"), records::encode(self.consensus.participant.acceptor()));
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
        self.consensus.began_ms = self.now.mono_ms;
        let prepare = self.consensus.participant.propose(self.incarnation, &self.map, &value, acceptors, quorum);
        self.ask_acceptors(prepare, io);
    }

    /// True while an attempt is fresh.
    pub(super) fn is_proposing(&self) -> bool {
        self.consensus.participant.asked().is_some() && self.now.mono_ms < self.consensus.began_ms + ATTEMPT_MS
    }

    fn ask_acceptors(&mut self, message: PaxosMessage, io: &mut Io<'_>) {
        let Some(asked) = self.consensus.participant.asked().cloned() else { return };
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
        self.consensus.decided = decided.epoch;
        if let Some((asked, _)) = self.consensus.proposed.take_if(|(_, proposed)| *proposed == decided) {
            self.asked_is_decided(&asked, decided.epoch, io);
        }
        self.tell_decided(&decided, io);
        self.learn(decided, io);
    }

    pub(super) fn tick_consensus(&mut self, io: &mut Io<'_>) {
        self.tick_words(io);
        let now = self.now.mono_ms;
        if !self.map.is_born() || now < self.consensus.look_ms {
            return;
        }
        self.consensus.look_ms = now + LOOK_MS;
        self.expire_asked();
        if !may_propose(&self.map, self.incarnation) {
            return;
        }
        if self.is_idle() {
            self.consensus.due_since_ms = None;
            return;
        }
        let sight = self.look();
        if self.learned.is_some() || self.is_proposing() {
            return;
        }
        let leads = leader(&self.map, &sight.live) == Some(&self.config.address);
        let asks = leads && self.is_asked();
        if !asks && now < self.consensus.hold_until_ms.max(self.consensus.adopted_ms + GATHER_MS) {
            return;
        }
        let idle =
            !asks && self.undecided().is_none() && self.consensus.idle.as_ref().is_some_and(|idle| idle.sight == sight);
        let Some((next, asked)) = (if idle { None } else { self.next_map(&sight, leads, io) }) else {
            self.consensus.due_since_ms = None;
            let (around, until_ms) = (self.around(), self.consensus.watch.same_until(now));
            self.consensus.idle = Some(Idle { around, until_ms, sight });
            return;
        };
        if asked.is_none() && all_go_on_filling(&self.map, &next) && now < self.consensus.adopted_ms + GATHER_MORE_MS {
            self.consensus.look_ms = now + GATHER_MORE_MS / 10;
            return;
        }
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
        let (mut open, mut tried) = (Vec::new(), None);
        while leads
            && tried.is_none()
            && let Some(asked) = self.take_asked()
        {
            match change(&self.map, &asked.change, &self.consensus.told, sight, rules) {
                Ok(Some(next)) => tried = Some((next.map, Some(asked))),
                _ if asked.is_open() => open.push(asked),
                Ok(None) => self.answer_change(&asked, Ok(self.map.epoch), io),
                Err(error) => self.answer_change(&asked, Err(error), io),
            }
        }
        let unsure = !open.is_empty();
        open.into_iter().for_each(|asked| self.wait_on(asked));
        if let Some((_, Some(asked))) = &tried {
            self.try_asked(asked);
            return tried;
        }
        if unsure {
            // They may be decided yet, by attempts that others carry through: the next map tells, so there is to be one,
            // if only the same again.
            let (epoch, next) = (Epoch(self.map.epoch.0 + 1), ClusterMap::clone(&self.map));
            return Some((follow(&self.map, next, epoch, &self.consensus.told, sight, rules).map, None));
        }
        let ready = reconcile(&self.map, &self.consensus.told, sight, rules).map(|next| next.map);
        // Decided perhaps, by an attempt whose proposer died with it: to be learned, it is proposed again.
        let next = ready.or_else(|| self.undecided().and_then(|next| next.apply(&self.map).ok()));
        next.map(|next| (next, None))
    }

    /// A next map that this node has accepted and does not know to be decided.
    pub fn undecided(&self) -> Option<&Arc<MapDelta>> {
        self.consensus.participant.acceptor().accepted(Epoch(self.map.epoch.0 + 1))
    }

    /// True when a look would show what the last one did, which led nowhere.
    fn is_idle(&self) -> bool {
        let Some(idle) = &self.consensus.idle else { return false };
        let free = self.learned.is_none() && !self.is_proposing() && self.consensus.asked.is_empty();
        free && self.undecided().is_none() && self.now.mono_ms < idle.until_ms && self.around() == idle.around
    }

    fn around(&self) -> Vec<Around> {
        let around = |(node, link): (&NodeAddr, &Link)| Around {
            node: node.clone(),
            hears: self.detector.heard_from(self.now.mono_ms, node).cloned(),
            connected: link.incarnation.filter(|_| link.connected),
        };
        self.links.iter().map(around).collect()
    }

    /// What this node sees of the others, and for how long.
    pub(super) fn look(&mut self) -> Sight {
        let now = self.now.mono_ms;
        let me = self.config.address.clone();
        let mut hears: BTreeMap<NodeAddr, Arc<BTreeSet<NodeAddr>>> = BTreeMap::new();
        let mut connected = BTreeMap::from([(me.clone(), self.incarnation)]);
        let mut mine = BTreeSet::from([me.clone()]);
        for around in self.around() {
            let Some(heard) = around.hears else { continue };
            mine.insert(around.node.clone());
            connected.extend(around.connected.map(|incarnation| (around.node.clone(), incarnation)));
            hears.insert(around.node, heard);
        }
        hears.insert(me, Arc::new(mine));
        self.weigh_own();
        let present = Present { hears, connected, bytes: self.consensus.bytes.clone() };
        self.consensus.watch.look(now, &self.map, present, &self.consensus.steps)
    }

    /// Takes note of how much this node's own replicas hold, to the next power of two: equal sights are looked at once.
    fn weigh_own(&mut self) {
        for (partition, part) in (0..).map(PartitionId).zip(&self.parts) {
            let Some(replica) = part.replica.as_ref().filter(|replica| replica.filled) else { continue };
            let bytes = replica.bytes.next_power_of_two();
            if self.consensus.bytes.get(&partition).is_none_or(|known| *known < replica.bytes) {
                Arc::make_mut(&mut self.consensus.bytes).insert(partition, bytes);
            }
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
            if self.consensus.bytes.get(&word.partition).is_none_or(|known| *known < word.bytes) {
                Arc::make_mut(&mut self.consensus.bytes).insert(word.partition, word.bytes);
            }
            self.consensus.idle = None;
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
