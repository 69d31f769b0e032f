//! A few nodes that decide maps, as a model for stateright: [`Participant`], `deciders` and the acceptor's check as the
//! machine runs them, and everything around them that can go wrong.
//!
//! The network keeps every message for ever and delivers it at any time, any number of times, or never; decided maps
//! reach anybody, or nobody. A crash brings a node back as it was synced, without its attempt; a lost disk, as a new
//! incarnation without a map. Handling a message, syncing and answering is one event, and so is to learn a map and to
//! act under it: to crash in between is the same as not to have got the message. (Without the rule that the sync comes
//! first, it is not.) Attempts begin at any time, so refusals are not written down, and patience plays no part.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use expected::sometimes;
use letter::{Letter, Map, Named, Said, pair, read, write};
use stateright::{Model, Property};

use super::super::*;
use crate::cluster::layout::{map_one, map_zero};
use crate::cluster::map::Target;
use crate::cluster::paxos::{Ballot, Phase};
use crate::cluster::voters::deciders;
use crate::types::{ClusterId, ContextSecret, NodeAddr};

mod expected;
mod letter;

/// Which histories to go through.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub nodes: usize,
    /// Begins with map 1 in force everywhere, decided by these nodes; without any, before the birth.
    pub born: &'static [usize],
    pub birth: Quorum,
    /// The epoch at which it ends.
    pub last: u64,
    /// How many attempts each node makes; each has a map of its own to propose.
    pub attempts: &'static [u8],
    /// The voters that a node proposes for an epoch.
    pub voters: fn(epoch: u64, proposer: usize) -> &'static [usize],
    pub crashes: u8,
    pub lost_disks: u8,
    pub broken: Option<Broken>,
    /// What should happen in some history, beyond the decision at the last epoch.
    pub expected: &'static [&'static str],
    /// The only property that is looked at.
    pub only: Option<&'static str>,
}

/// A rule taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A proposer keeps to its own map.
    NeverAdopts,
    /// A crashed acceptor comes back under the same name without its memory.
    Forgets,
    /// Answers leave before they are synced.
    AnswersAtOnce,
    /// Every attempt has the same round.
    SameRound,
    /// A proposer has maps accepted before its own promise is durable.
    NoOwnPromise,
    /// One acceptor fewer than a quorum decides.
    SmallQuorum,
    /// The second node asks the voters of the map before the one in force.
    FormerVoters,
    /// Of two voters, one that is out of reach counts as one that came back empty.
    DeadIsReplaced,
    /// An acceptor answers for an epoch that is decided at it, though it remembers only a newer one.
    AnswersForThePast,
    /// A node acts under a map that is not durable yet.
    ActsAtOnce,
}

#[derive(Clone, Debug)]
pub struct Node {
    name: Incarnation,
    /// In force.
    map: Map,
    synced_map: Map,
    now: Participant,
    synced: Acceptor,
}

impl Node {
    fn new(name: Incarnation, map: Map) -> Self {
        Self { name, synced_map: map.clone(), map, now: Participant::default(), synced: Acceptor::default() }
    }
}

/// One state of all nodes and of the network, and what was decided on the way to it.
#[derive(Clone, Debug)]
pub struct World {
    /// Map 0, which the settings of all nodes give.
    zero: Map,
    nodes: Vec<Node>,
    network: BTreeSet<Letter>,
    /// … each with its hash.
    decided: BTreeMap<Map, u64>,
    addresses: Arc<[NodeAddr]>,
    attempts: Vec<u8>,
    crashes: u8,
    lost_disks: u8,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Begin {
        node: usize,
        /// It hears nobody else.
        alone: bool,
    },
    Sync(usize),
    Crash(usize),
    LoseDisk(usize),
    Learn(usize, Map),
    Deliver(Letter),
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.network, self.decided.keys().collect::<Vec<_>>(), &self.attempts, self.crashes, self.lost_disks)
            .hash(state);
        for node in &self.nodes {
            (node.name.0, &node.map, &node.synced_map, node.now.round).hash(state);
            for acceptor in [&node.now.acceptor, &node.synced] {
                let accepted = acceptor.accepted.as_ref().map(|(under, next)| (pair(*under), Named(next.clone())));
                (acceptor.epoch.0, pair(acceptor.promised), accepted).hash(state);
            }
            if let Some(p) = &node.now.proposer {
                (p.epoch.0, pair(p.ballot), p.adopted.map(pair), Named(p.value.clone()), p.phase as u8).hash(state);
                p.quorum.hash(state);
                for named in [&p.acceptors, &p.answered] {
                    named.iter().map(|name| name.0).collect::<Vec<_>>().hash(state);
                }
            }
        }
    }
}

fn address(node: usize) -> NodeAddr {
    format!("node{}:1", node + 1).parse().unwrap()
}

impl Bounds {
    fn first(&self) -> World {
        let zero = Named(Arc::new(map_zero(&(0..self.nodes).map(address).collect::<Vec<_>>(), 1, 1)));
        let names: Vec<_> = (1..=self.nodes as u128).map(Incarnation).collect();
        let mut map = zero.clone();
        if !self.born.is_empty() {
            let bound = names.iter().enumerate().map(|(node, name)| (address(node), *name)).collect();
            let mut one = map_one(&zero.0, &bound, ClusterId(1), ContextSecret([1; 16]));
            one.voters = self.born.iter().map(|node| names[*node]).collect();
            map = Named(Arc::new(one));
        }
        let node = |name| Node::new(name, map.clone());
        World {
            zero,
            nodes: names.into_iter().map(node).collect(),
            network: BTreeSet::new(),
            decided: BTreeMap::from([(map.clone(), map.0.hash())]),
            addresses: (0..self.nodes).map(address).collect(),
            attempts: self.attempts.to_vec(),
            crashes: self.crashes,
            lost_disks: self.lost_disks,
        }
    }

    fn is_broken(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    /// What a node proposes after its map, as reconciliation would: who came back empty is bound.
    fn value(&self, world: &World, node: usize, connected: &BTreeMap<NodeAddr, Incarnation>) -> ClusterMap {
        let map = &world.nodes[node].map;
        let drawn = (node as u8, world.attempts[node]);
        if !map.0.is_born() {
            let id = ClusterId(10 + 10 * u128::from(drawn.0) + u128::from(drawn.1));
            return map_one(&map.0, connected, id, ContextSecret([1; 16]));
        }
        let mut next = ClusterMap::clone(&map.0);
        next.epoch = Epoch(map.0.epoch.0 + 1);
        next.parent_hash = map.0.hash();
        for (address, there) in connected {
            next.nodes.insert(address.clone(), Some(*there));
        }
        let voters = (self.voters)(next.epoch.0, node).iter();
        next.voters = voters.filter_map(|voter| next.nodes[&world.addresses[*voter]]).collect();
        let name = format!("{}{}{}{} ", map.key().2, drawn.0, drawn.1, if connected.len() == 1 { "!" } else { "" });
        next.target = Some(Target { layout: next.layout.clone(), name, even: true });
        next
    }

    /// Whom the machine would ask, of how many.
    fn asked(
        &self,
        world: &World,
        node: usize,
        connected: &BTreeMap<NodeAddr, Incarnation>,
    ) -> (BTreeSet<Incarnation>, Quorum) {
        let map = &world.nodes[node].map.0;
        if !map.is_born() {
            return (connected.values().copied().collect(), self.birth);
        }
        if self.is_broken(Broken::FormerVoters)
            && node == 1
            && let Some((former, _)) = world.decided.iter().find(|(_, hash)| **hash == map.parent_hash)
        {
            return deciders(&former.0, connected);
        }
        let (mut asked, quorum) = deciders(map, connected);
        if self.is_broken(Broken::DeadIsReplaced) && asked.len() == 2 && connected.len() == 1 {
            asked.retain(|voter| *voter == world.nodes[node].name);
        }
        (asked, quorum)
    }
}

impl World {
    fn connected(&self, node: usize, alone: bool) -> BTreeMap<NodeAddr, Incarnation> {
        let there = self.nodes.iter().enumerate().filter(|(other, _)| !alone || *other == node);
        there.map(|(other, there)| (self.addresses[other].clone(), there.name)).collect()
    }

    /// The node begins an attempt. Gives what it says, to whom.
    fn begin(&mut self, bounds: &Bounds, node: usize, alone: bool) -> Vec<(usize, PaxosMessage)> {
        let connected = self.connected(node, alone);
        let next = bounds.value(self, node, &connected);
        let (asked, quorum) = bounds.asked(self, node, &connected);
        let here = &mut self.nodes[node];
        let mut prepare = here.now.propose(here.name, &here.map.0, &next, asked, quorum);
        let proposer = here.now.proposer.as_mut().unwrap();
        if bounds.is_broken(Broken::SameRound) {
            proposer.ballot.round = 1;
            prepare = proposer.start();
        }
        if bounds.is_broken(Broken::NoOwnPromise) {
            proposer.me = Incarnation(0);
        }
        if bounds.is_broken(Broken::SmallQuorum) {
            proposer.quorum -= 1;
        }
        self.to_asked(node, &prepare)
    }

    /// A message to all who are asked and there.
    fn to_asked(&self, node: usize, message: &PaxosMessage) -> Vec<(usize, PaxosMessage)> {
        let asked = self.nodes[node].now.asked().cloned().unwrap_or_default();
        let there = self.nodes.iter().enumerate().filter(|(_, there)| asked.contains(&there.name));
        there.map(|(to, _)| (to, message.clone())).collect()
    }

    /// The node hears a message. Gives what it says, to whom.
    fn hear(
        &mut self,
        bounds: &Bounds,
        node: usize,
        (from, sender): (usize, Incarnation),
        message: PaxosMessage,
    ) -> Vec<(usize, PaxosMessage)> {
        let live = self.nodes.iter().map(|there| there.name).collect();
        let mut map = self.nodes[node].map.clone();
        if bounds.is_broken(Broken::AnswersForThePast)
            && let PaxosMessage::Prepare { epoch, .. } | PaxosMessage::Accept { epoch, .. } = &message
            && let Some(before) = self.decided.keys().find(|before| before.0.epoch.0 + 1 == epoch.0 && **before < map)
        {
            map = before.clone();
            let acceptor = &mut self.nodes[node].now.acceptor;
            if acceptor.epoch > *epoch {
                *acceptor = Acceptor { epoch: *epoch, ..Acceptor::default() };
            }
        }
        let here = &mut self.nodes[node];
        let stand = Stand { me: here.name, zero: &self.zero.0, map: &map.0, live };
        match here.now.hear(&stand, sender, message) {
            Turn::Nothing | Turn::TellMap | Turn::Keep(_) => Vec::new(),
            Turn::Answer { answer, .. } => {
                if !bounds.is_broken(Broken::AnswersAtOnce) {
                    here.synced = here.now.acceptor.clone();
                }
                vec![(from, answer)]
            }
            Turn::Ask(accept) => self.to_asked(node, &accept),
            Turn::Decided(map) => {
                let map = Named(map);
                self.decided.insert(map.clone(), map.0.hash());
                self.learn(bounds, node, map);
                Vec::new()
            }
        }
    }

    fn learn(&mut self, bounds: &Bounds, node: usize, map: Map) {
        let here = &mut self.nodes[node];
        if is_news(&here.map.0, here.map.0.epoch, &map.0) {
            if !bounds.is_broken(Broken::ActsAtOnce) {
                here.synced_map = map.clone();
            }
            here.map = map;
            here.now.on_new_map();
        }
    }

    fn lose_disk(&mut self, node: usize) {
        let name = Incarnation(self.nodes[node].name.0 + 10);
        self.nodes[node] = Node::new(name, self.zero.clone());
    }

    fn post(&mut self, from: usize, said: Vec<(usize, PaxosMessage)>) {
        let sender = self.nodes[from].name.0;
        self.network.extend(said.into_iter().filter_map(|(to, message)| write(to, from, sender, message)));
    }

    /// Takes letters out that can change nothing any more, as long as the rules hold: about epochs that are decided at
    /// who gets them, of ballots that the acceptor will refuse, of attempts that are over, and answers that are counted.
    fn drop_dead_letters(&mut self, bounds: &Bounds) {
        let nodes = &self.nodes;
        self.network.retain(|letter| {
            let Node { map, now, .. } = &nodes[letter.to];
            let epoch = Epoch(letter.epoch);
            if epoch <= map.0.epoch {
                let asks = matches!(letter.said, Said::Prepare | Said::Accept(_));
                return asks && bounds.is_broken(Broken::AnswersForThePast);
            }
            let (round, proposer) = letter.ballot;
            let (ballot, acceptor) = (Ballot { round, proposer }, Incarnation(letter.sender));
            let counts = |phase| {
                let counted = |p: &Proposer| p.answered.contains(&acceptor);
                let attempt = now.proposer.as_ref();
                attempt.is_some_and(|p| p.counts(phase, epoch, ballot, acceptor) && !counted(p))
            };
            match letter.said {
                Said::Prepare | Said::Accept(_) => now.acceptor.epoch != epoch || ballot >= now.acceptor.promised,
                // A ballot that was never synced at its own node may be used again; nothing was accepted under it.
                Said::Promise(_) => counts(Phase::Preparing) || round >= now.acceptor.next_round(epoch),
                Said::Accepted => counts(Phase::Accepting) || bounds.is_broken(Broken::NoOwnPromise),
            }
        });
    }

    /// True when no history from here can decide another map than this, the newest: of those who would be asked, a
    /// quorum that knows nothing of it cannot be found.
    fn keeps(&self, bounds: &Bounds, decided: &Map) -> bool {
        let Some((before, _)) = self.decided.iter().find(|(_, hash)| **hash == decided.0.parent_hash) else {
            return true;
        };
        let connected = self.connected(0, false);
        let (asked, quorum) = if before.0.is_born() {
            deciders(&before.0, &connected)
        } else {
            (connected.values().copied().collect(), bounds.birth)
        };
        let knows = |node: &&Node| {
            let accepted =
                node.synced.accepted.as_ref().is_some_and(|(_, next)| Named(next.clone()).key() == decided.key());
            accepted || node.synced_map.0.epoch >= decided.0.epoch
        };
        let ignorant = self.nodes.iter().filter(|node| asked.contains(&node.name) && !knows(node)).count();
        ignorant < quorum.size(asked.len())
    }

    /// True when an undisturbed attempt from here decides the next map, and no other than was decided already; or when
    /// too few of those who decide it are left.
    fn heals(&self, bounds: &Bounds) -> bool {
        let mut world = self.clone();
        let newest = world.nodes.iter().map(|node| node.map.clone()).max().unwrap();
        for node in 0..world.nodes.len() {
            world.learn(bounds, node, newest.clone());
        }
        let may = |(_, node): &(usize, &Node)| !newest.0.is_born() || may_propose(&newest.0, node.name);
        let Some((proposer, _)) = world.nodes.iter().enumerate().find(may) else { return true };
        let (asked, quorum) = bounds.asked(&world, proposer, &world.connected(proposer, false));
        let there = world.nodes.iter().filter(|node| asked.contains(&node.name)).count();
        if there < quorum.size(asked.len()) {
            return true;
        }
        // An attempt that is refused tells the next one its round.
        for _attempt in 0..2 {
            let mut said = VecDeque::from_iter(world.begin(bounds, proposer, false).into_iter().map(|s| (proposer, s)));
            while let Some((from, (to, message))) = said.pop_front() {
                let sender = (from, world.nodes[from].name);
                said.extend(world.hear(bounds, to, sender, message).into_iter().map(|s| (to, s)));
            }
            if world.nodes[proposer].map > newest {
                return one_map_an_epoch(&world);
            }
        }
        false
    }
}

pub fn one_map_an_epoch(world: &World) -> bool {
    let epochs: BTreeSet<_> = world.decided.keys().map(|map| map.0.epoch).collect();
    epochs.len() == world.decided.len()
}

impl Model for Bounds {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![self.first()]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        for (at, node) in world.nodes.iter().enumerate() {
            let map = &node.map.0;
            let left = world.attempts.get(at).is_some_and(|left| *left > 0) && map.epoch.0 < self.last;
            if left && (!map.is_born() || may_propose(map, node.name)) {
                events.push(Event::Begin { node: at, alone: false });
                let alone = map.is_born() && map.voters.len() == 2;
                events.extend(alone.then_some(Event::Begin { node: at, alone: true }));
            }
            let late = node.synced != node.now.acceptor;
            events.extend(late.then_some(Event::Sync(at)));
            events.extend((world.crashes > 0).then_some(Event::Crash(at)));
            events.extend((world.lost_disks > 0).then_some(Event::LoseDisk(at)));
            let news = world.decided.keys().filter(|told| is_news(map, map.epoch, &told.0));
            events.extend(news.map(|told| Event::Learn(at, told.clone())));
        }
        events.extend(world.network.iter().cloned().map(Event::Deliver));
    }

    fn next_state(&self, before: &World, event: Event) -> Option<World> {
        let mut world = before.clone();
        match event {
            Event::Begin { node, alone } => {
                let said = world.begin(self, node, alone);
                world.attempts[node] -= 1;
                world.post(node, said);
            }
            Event::Sync(node) => world.nodes[node].synced = world.nodes[node].now.acceptor.clone(),
            Event::Crash(node) => {
                world.crashes -= 1;
                let here = &mut world.nodes[node];
                if self.is_broken(Broken::Forgets) {
                    here.synced = Acceptor::default();
                }
                here.map = here.synced_map.clone();
                here.now = Participant::new(here.synced.clone());
            }
            Event::LoseDisk(node) => {
                world.lost_disks -= 1;
                world.lose_disk(node);
            }
            Event::Learn(node, map) => world.learn(self, node, map),
            Event::Deliver(letter) => {
                let (node, sender) = (letter.to, (letter.from, Incarnation(letter.sender)));
                let said = world.hear(self, node, sender, read(letter, self));
                world.post(node, said);
            }
        }
        world.drop_dead_letters(self);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always("one map an epoch", |_, world| one_map_an_epoch(world)),
            Property::always("the map before was decided", |_, world: &World| {
                let follows = |map: &Map| world.decided.values().any(|hash| *hash == map.0.parent_hash);
                world.decided.keys().skip(1).all(follows)
            }),
            Property::always("a decided map is never forgotten", |bounds: &Bounds, world: &World| {
                world.decided.last_key_value().is_none_or(|(newest, _)| world.keeps(bounds, newest))
            }),
            Property::always("no dead end", |bounds: &Bounds, world: &World| world.heals(bounds)),
            Property::sometimes("the last epoch is decided", |bounds: &Bounds, world: &World| {
                world.decided.last_key_value().is_some_and(|(newest, _)| newest.0.epoch.0 == bounds.last)
            }),
        ];
        let expected = sometimes().into_iter().filter(|property| self.expected.contains(&property.name));
        all.extend(expected);
        all.retain(|property| self.only.is_none_or(|only| property.name == only));
        all
    }
}
