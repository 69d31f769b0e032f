//! What each call answers, and every history there is of a few nodes: none decides two maps, and each rule taken away
//! leaves one that does.
//!
//! The histories are those of nodes that propose and accept, over a network that keeps every message for ever and
//! delivers it at any time, any number of times, or never. A crash brings a node back as it was synced, without its
//! proposer; a lost disk, as a new incarnation. Handling a message, syncing and answering is one event: to crash in
//! between is the same as not to have got the message. (Without the rule that the sync comes first, it is not.)

use std::collections::BTreeSet;

use super::*;
use crate::cluster::layout::map_zero;
use crate::types::ClusterId;

const EPOCH: Epoch = Epoch(1);

/// A map that is told from others by its number.
fn map(number: u8) -> Arc<ClusterMap> {
    let view = ["node1:1", "node2:1"].map(|node| node.parse().unwrap());
    Arc::new(ClusterMap { cluster_id: ClusterId(u128::from(number)), ..map_zero(&view, 1, 1) })
}

fn number_of(map: &ClusterMap) -> u8 {
    map.cluster_id.0 as u8
}

fn ballot(round: u64, proposer: u128) -> Ballot {
    Ballot { round, proposer }
}

fn promise(acceptor: u128, ballot: Ballot, accepted: Option<(Ballot, Arc<ClusterMap>)>) -> PaxosMessage {
    PaxosMessage::Promise { epoch: EPOCH, ballot, acceptor: Incarnation(acceptor), accepted }
}

fn rejected(epoch: Epoch, ballot: Ballot, promised: Ballot) -> PaxosMessage {
    PaxosMessage::Rejected { epoch, ballot, promised }
}

fn accepted(acceptor: u128, ballot: Ballot) -> PaxosMessage {
    PaxosMessage::Accepted { epoch: EPOCH, ballot, acceptor: Incarnation(acceptor) }
}

#[test]
fn an_acceptor_keeps_its_promise_and_tells_what_it_accepted() {
    let me = Incarnation(1);
    let mut acceptor = Acceptor::default();
    let (low, high) = (ballot(1, 9), ballot(2, 8));
    assert_eq!(acceptor.prepare(me, EPOCH, low), promise(1, low, None));
    assert_eq!(acceptor.prepare(me, EPOCH, low), promise(1, low, None), "a repeated question");
    assert_eq!(acceptor.accept(me, EPOCH, low, map(5), Ok(())), accepted(1, low));
    assert_eq!(acceptor.accept(me, EPOCH, low, map(5), Ok(())), accepted(1, low), "a repeated request");
    assert_eq!(acceptor.accept(me, EPOCH, low, map(6), Ok(())), rejected(EPOCH, low, low), "two maps, one ballot");
    assert_eq!(acceptor.prepare(me, EPOCH, high), promise(1, high, Some((low, map(5)))));
    assert_eq!(acceptor.prepare(me, EPOCH, low), rejected(EPOCH, low, high));
    assert_eq!(acceptor.accept(me, EPOCH, low, map(5), Ok(())), rejected(EPOCH, low, high));
    assert_eq!(acceptor.next_round(EPOCH), 3);
}

#[test]
fn a_map_that_does_not_follow_leaves_no_trace() {
    let mut acceptor = Acceptor::default();
    acceptor.prepare(Incarnation(1), EPOCH, ballot(1, 9));
    let before = acceptor.clone();
    let answer = acceptor.accept(Incarnation(1), EPOCH, ballot(2, 9), map(5), Err("a reason".to_owned()));
    assert_eq!(answer, rejected(EPOCH, ballot(2, 9), ballot(1, 9)));
    assert_eq!(acceptor, before);
}

#[test]
fn a_newer_epoch_begins_afresh_and_an_older_one_is_over() {
    let me = Incarnation(1);
    let mut acceptor = Acceptor::default();
    acceptor.accept(me, EPOCH, ballot(7, 9), map(5), Ok(()));
    let question = acceptor.prepare(me, Epoch(2), ballot(1, 8));
    let afresh = PaxosMessage::Promise { epoch: Epoch(2), ballot: ballot(1, 8), acceptor: me, accepted: None };
    assert_eq!(question, afresh);
    assert_eq!((acceptor.epoch(), acceptor.next_round(Epoch(2)), acceptor.next_round(Epoch(3))), (Epoch(2), 2, 1));
    let before = acceptor.clone();
    let late = acceptor.accept(me, EPOCH, ballot(9, 9), map(5), Ok(()));
    assert_eq!(late, rejected(EPOCH, ballot(9, 9), Ballot::default()));
    assert_eq!(acceptor, before);
}

#[test]
fn an_acceptor_comes_back_from_its_record_as_it_was() {
    let mut acceptor = Acceptor::default();
    acceptor.accept(Incarnation(1), EPOCH, ballot(7, 9), map(5), Ok(()));
    let record = postcard::to_allocvec(&acceptor).unwrap();
    assert_eq!(postcard::from_bytes::<Acceptor>(&record).unwrap(), acceptor);
}

fn proposer(quorum: Quorum) -> Proposer {
    Proposer::new(EPOCH, Incarnation(1), 4, [1, 2, 3].map(Incarnation).into(), quorum, map(5))
}

#[test]
fn a_proposer_adopts_the_map_of_the_greatest_ballot_told() {
    let mine = ballot(4, 1);
    let mut proposer = proposer(Quorum::All);
    assert_eq!(proposer.start(), PaxosMessage::Prepare { epoch: EPOCH, ballot: mine });
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(3), Some((ballot(2, 2), map(6)))), None);
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(1), Some((ballot(3, 2), map(7)))), None);
    assert_eq!(proposer.missing().collect::<Vec<_>>(), [Incarnation(2)]);
    let accept = proposer.on_promise(EPOCH, mine, Incarnation(2), Some((ballot(1, 3), map(8))));
    assert_eq!(accept, Some(PaxosMessage::Accept { epoch: EPOCH, ballot: mine, map: map(7) }));
    assert_eq!(proposer.message(), accept);
    let told = [1, 2, 3].map(|acceptor| proposer.on_accepted(EPOCH, mine, Incarnation(acceptor)));
    assert_eq!(told, [None, None, Some(map(7))]);
    assert_eq!(proposer.message(), None);
}

#[test]
fn what_is_not_an_answer_to_this_attempt_counts_for_nothing() {
    let mine = ballot(4, 1);
    let mut proposer = proposer(Quorum::Majority);
    assert_eq!(proposer.on_accepted(EPOCH, mine, Incarnation(2)), None, "nothing was asked to be accepted");
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(2), None), None);
    let noise =
        [(EPOCH, mine, Incarnation(4)), (EPOCH, ballot(3, 1), Incarnation(3)), (Epoch(2), mine, Incarnation(3))];
    for (epoch, ballot, acceptor) in noise {
        assert_eq!(proposer.on_promise(epoch, ballot, acceptor, Some((ballot, map(6)))), None);
    }
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(2), None), None, "repeated");
    let accept = PaxosMessage::Accept { epoch: EPOCH, ballot: mine, map: map(5) };
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(1), None), Some(accept));
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(3), Some((ballot(3, 2), map(6)))), None, "too late");
    for _repeated in 0..2 {
        assert_eq!(proposer.on_accepted(EPOCH, mine, Incarnation(2)), None);
    }
    for (epoch, ballot, acceptor) in noise {
        assert_eq!(proposer.on_accepted(epoch, ballot, acceptor), None);
    }
    assert_eq!(proposer.on_accepted(EPOCH, mine, Incarnation(3)), Some(map(5)));
    assert_eq!(proposer.on_accepted(EPOCH, mine, Incarnation(1)), None, "decided once");
}

#[test]
fn a_majority_without_the_proposers_own_promise_is_not_enough() {
    let mut proposer = proposer(Quorum::Majority);
    for acceptor in [2, 3] {
        assert_eq!(proposer.on_promise(EPOCH, ballot(4, 1), Incarnation(acceptor), None), None);
    }
    assert!(proposer.on_promise(EPOCH, ballot(4, 1), Incarnation(1), None).is_some());
}

#[test]
fn a_refusal_tells_the_next_round() {
    let mine = ballot(4, 1);
    let proposer = proposer(Quorum::All);
    assert_eq!(proposer.on_rejected(EPOCH, mine, ballot(9, 2)), Some(10));
    assert_eq!(proposer.on_rejected(EPOCH, mine, ballot(1, 2)), Some(5), "refused for what it is");
    assert_eq!(proposer.on_rejected(EPOCH, ballot(3, 1), ballot(9, 2)), None);
    assert_eq!(proposer.on_rejected(Epoch(2), mine, ballot(9, 2)), None);
}

/// Which histories to go through.
#[derive(Clone, Copy)]
struct Bounds {
    nodes: usize,
    quorum: Quorum,
    /// How many attempts the first and the second node make; each has a map of its own to propose.
    attempts: [u8; 2],
    crashes: u8,
    lost_disks: u8,
    broken: Option<Broken>,
}

/// A rule taken away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// A proposer keeps to its own map.
    NeverAdopts,
    /// A crashed acceptor comes back under the same name without its memory.
    Forgets,
    /// Answers leave before they are synced.
    AnswersAtOnce,
    /// Every attempt has the same round.
    SameRound,
}

/// A message on its way: receiver, kind, ballot (round, proposer), acceptor, accepted ballot (round, proposer), map.
type Letter = [u8; 8];

const PREPARE: u8 = 1;
const PROMISE: u8 = 2;
const ACCEPT: u8 = 3;
const ACCEPTED: u8 = 4;

#[derive(Clone)]
struct Node {
    name: Incarnation,
    now: Acceptor,
    synced: Acceptor,
    proposer: Option<Proposer>,
}

#[derive(Clone)]
struct World {
    nodes: Vec<Node>,
    network: BTreeSet<Letter>,
    decided: BTreeSet<u8>,
    attempts: [u8; 2],
    crashes: u8,
    lost_disks: u8,
}

/// Writes a message down; refusals are not, as the attempts of a history begin at any time anyway.
fn write(to: u128, message: &PaxosMessage) -> Option<Letter> {
    let (kind, ballot, acceptor, accepted, map) = match message {
        PaxosMessage::Prepare { ballot, .. } => (PREPARE, ballot, 0, Ballot::default(), 0),
        PaxosMessage::Promise { ballot, acceptor, accepted: None, .. } => {
            (PROMISE, ballot, acceptor.0, Ballot::default(), 0)
        }
        PaxosMessage::Promise { ballot, acceptor, accepted: Some((under, map)), .. } => {
            (PROMISE, ballot, acceptor.0, *under, number_of(map))
        }
        PaxosMessage::Accept { ballot, map, .. } => (ACCEPT, ballot, 0, Ballot::default(), number_of(map)),
        PaxosMessage::Accepted { ballot, acceptor, .. } => (ACCEPTED, ballot, acceptor.0, Ballot::default(), 0),
        PaxosMessage::Rejected { .. } => return None,
    };
    let [to, proposer, acceptor, under] = [to, ballot.proposer, acceptor, accepted.proposer].map(|n| n as u8);
    Some([to, kind, ballot.round as u8, proposer, acceptor, accepted.round as u8, under, map])
}

impl World {
    fn new(bounds: &Bounds) -> Self {
        let node = |name| Node {
            name: Incarnation(name),
            now: Acceptor::default(),
            synced: Acceptor::default(),
            proposer: None,
        };
        Self {
            nodes: (1..=bounds.nodes as u128).map(node).collect(),
            network: BTreeSet::new(),
            decided: BTreeSet::new(),
            attempts: bounds.attempts,
            crashes: bounds.crashes,
            lost_disks: bounds.lost_disks,
        }
    }

    /// Every world that one event makes of this one.
    fn successors(&self, bounds: &Bounds, maps: &[Arc<ClusterMap>]) -> Vec<World> {
        let mut all = Vec::new();
        let mut after = |happened: bool, world: World| {
            if happened {
                all.push(world);
            }
        };
        for node in 0..self.nodes.len() {
            let mut world = self.clone();
            after(world.begin(node, bounds, maps), world);
            let mut world = self.clone();
            after(world.sync(node), world);
            let mut world = self.clone();
            after(world.crash(node, bounds), world);
            let mut world = self.clone();
            after(world.lose_disk(node), world);
        }
        for letter in &self.network {
            if let Some(node) = self.nodes.iter().position(|n| n.name.0 as u8 == letter[0]) {
                let mut world = self.clone();
                world.deliver(node, *letter, bounds, maps);
                after(true, world);
            }
        }
        all
    }

    fn begin(&mut self, node: usize, bounds: &Bounds, maps: &[Arc<ClusterMap>]) -> bool {
        let Some(left) = self.attempts.get_mut(node).filter(|left| **left > 0) else { return false };
        *left -= 1;
        // Each attempt has drawn a map of its own.
        let map = &maps[1 + node * 4 + usize::from(*left)];
        let acceptors: BTreeSet<_> = self.nodes.iter().map(|n| n.name).collect();
        let same = bounds.broken == Some(Broken::SameRound);
        let round = if same { 1 } else { self.nodes[node].now.next_round(EPOCH) };
        let proposer = Proposer::new(EPOCH, self.nodes[node].name, round, acceptors, bounds.quorum, map.clone());
        self.broadcast(&proposer, &proposer.start());
        self.nodes[node].proposer = Some(proposer);
        true
    }

    fn broadcast(&mut self, proposer: &Proposer, message: &PaxosMessage) {
        self.network.extend(proposer.acceptors().iter().filter_map(|acceptor| write(acceptor.0, message)));
    }

    /// Syncs late; there is nothing to do where every answer is synced first.
    fn sync(&mut self, node: usize) -> bool {
        let node = &mut self.nodes[node];
        let late = node.synced != node.now;
        node.synced = node.now.clone();
        late
    }

    fn crash(&mut self, node: usize, bounds: &Bounds) -> bool {
        let Some(left) = self.crashes.checked_sub(1) else { return false };
        self.crashes = left;
        let node = &mut self.nodes[node];
        if bounds.broken == Some(Broken::Forgets) {
            node.synced = Acceptor::default();
        }
        node.now = node.synced.clone();
        node.proposer = None;
        true
    }

    /// The node comes back empty, as another incarnation.
    fn lose_disk(&mut self, node: usize) -> bool {
        let Some(left) = self.lost_disks.checked_sub(1) else { return false };
        self.lost_disks = left;
        let name = Incarnation(self.nodes[node].name.0 + 10);
        let (now, synced) = (Acceptor::default(), Acceptor::default());
        self.nodes[node] = Node { name, now, synced, proposer: None };
        true
    }

    fn deliver(&mut self, node: usize, letter: Letter, bounds: &Bounds, maps: &[Arc<ClusterMap>]) {
        let [_, kind, round, proposer, acceptor, under_round, under, number] = letter;
        let ballot = ballot(u64::from(round), u128::from(proposer));
        let map = maps[usize::from(number)].clone();
        let acceptor = Incarnation(u128::from(acceptor));
        let under = Ballot { round: u64::from(under_round), proposer: u128::from(under) };
        let here = &mut self.nodes[node];
        match kind {
            PREPARE => {
                let answer = here.now.prepare(here.name, EPOCH, ballot);
                self.answer(node, ballot, &answer, bounds);
            }
            ACCEPT => {
                let answer = here.now.accept(here.name, EPOCH, ballot, map, Ok(()));
                self.answer(node, ballot, &answer, bounds);
            }
            PROMISE => {
                let told = (number > 0 && bounds.broken != Some(Broken::NeverAdopts)).then_some((under, map));
                let Some(mut proposer) = here.proposer.take() else { return };
                if let Some(accept) = proposer.on_promise(EPOCH, ballot, acceptor, told) {
                    self.broadcast(&proposer, &accept);
                }
                self.nodes[node].proposer = Some(proposer);
            }
            ACCEPTED => {
                let decided = here.proposer.as_mut().and_then(|p| p.on_accepted(EPOCH, ballot, acceptor));
                self.decided.extend(decided.map(|map| number_of(&map)));
            }
            other => unreachable!("no message is of kind {other}"),
        }
    }

    fn answer(&mut self, node: usize, ballot: Ballot, answer: &PaxosMessage, bounds: &Bounds) {
        if bounds.broken != Some(Broken::AnswersAtOnce) {
            self.sync(node);
        }
        self.network.extend(write(ballot.proposer, answer));
    }

    /// Takes letters out that can change nothing any more, as long as the rules hold: to dead incarnations, of ballots
    /// that their acceptor will refuse, of attempts that are over, and answers that are counted.
    fn drop_dead_letters(&mut self) {
        let nodes = &self.nodes;
        self.network.retain(|&[to, kind, round, proposer, acceptor, ..]| {
            let Some(node) = nodes.iter().find(|n| n.name.0 as u8 == to) else { return false };
            let (ballot, acceptor) =
                (ballot(u64::from(round), u128::from(proposer)), Incarnation(u128::from(acceptor)));
            let counts = |phase| {
                node.proposer
                    .as_ref()
                    .is_some_and(|p| p.counts(phase, EPOCH, ballot, acceptor) && !p.answered.contains(&acceptor))
            };
            match kind {
                PREPARE | ACCEPT => ballot >= node.now.promised,
                // A ballot that was never synced at its own node may be used again, for nothing was accepted under it.
                PROMISE => counts(Phase::Preparing) || ballot.round >= node.now.next_round(EPOCH),
                _ => counts(Phase::Accepting),
            }
        });
    }

    /// All that tells this world from another, hashed to 128 bits.
    fn fingerprint(&self) -> u128 {
        let mut bytes = vec![self.attempts[0], self.attempts[1], self.crashes, self.lost_disks];
        bytes.extend(&self.decided);
        for node in &self.nodes {
            bytes.extend([0xff, node.name.0 as u8]);
            for acceptor in [&node.now, &node.synced] {
                let accepted = acceptor.accepted.as_ref().map(|(under, map)| (*under, number_of(map)));
                put(&mut bytes, &(acceptor.promised, accepted));
            }
            let proposer = node.proposer.as_ref();
            put(&mut bytes, &proposer.map(|p| (p.ballot, &p.acceptors, p.adopted, number_of(&p.value))));
            put(&mut bytes, &proposer.map(|p| (p.phase as u8, &p.answered)));
        }
        bytes.extend(self.network.iter().flatten());
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }
}

fn put(bytes: &mut Vec<u8>, value: &impl Serialize) {
    bytes.extend(postcard::to_allocvec(value).unwrap());
}

/// What going through the histories found.
struct Found {
    worlds: usize,
    /// The maps that were decided in some world, alone.
    decided: BTreeSet<u8>,
    /// A world in which two maps are decided.
    conflict: bool,
}

/// Goes through every history within the bounds, depth first, until one decides two maps.
fn explore(bounds: Bounds) -> Found {
    let maps: Vec<_> = (0..9).map(map).collect();
    let first = World::new(&bounds);
    let mut seen = BTreeSet::from([first.fingerprint()]);
    let mut stack = vec![first];
    let mut decided = BTreeSet::new();
    while let Some(world) = stack.pop() {
        if world.decided.len() > 1 {
            return Found { worlds: seen.len(), decided, conflict: true };
        }
        decided.extend(&world.decided);
        for mut next in world.successors(&bounds, &maps) {
            next.drop_dead_letters();
            if seen.insert(next.fingerprint()) {
                stack.push(next);
            }
        }
    }
    Found { worlds: seen.len(), decided, conflict: false }
}

const MAJORITY: Bounds =
    Bounds { nodes: 3, quorum: Quorum::Majority, attempts: [1, 1], crashes: 1, lost_disks: 0, broken: None };

const BIRTH: Bounds =
    Bounds { nodes: 2, quorum: Quorum::All, attempts: [1, 1], crashes: 0, lost_disks: 1, broken: None };

/// No history decides two maps, and each of these maps is decided in some.
#[track_caller]
fn holds(bounds: Bounds, decided: &[u8]) {
    let found = explore(bounds);
    assert!(!found.conflict, "two maps are decided");
    assert_eq!(found.decided.into_iter().collect::<Vec<_>>(), decided, "in {} worlds", found.worlds);
}

#[track_caller]
fn fails(bounds: Bounds) {
    let found = explore(bounds);
    assert!(found.conflict, "no two maps are decided in {} worlds", found.worlds);
}

#[test]
fn a_majority_decides_one_map_whoever_crashes() {
    holds(MAJORITY, &[1, 5]);
}

#[test]
#[ignore = "370,000 worlds take some ten seconds"]
fn a_majority_decides_one_map_in_three_attempts() {
    holds(Bounds { attempts: [2, 1], ..MAJORITY }, &[1, 2, 5]);
}

#[test]
fn a_birth_decides_one_map_as_long_as_one_node_remembers() {
    holds(Bounds { attempts: [2, 1], ..BIRTH }, &[1, 2, 5]);
    holds(Bounds { nodes: 3, ..BIRTH }, &[1, 5]);
}

#[test]
fn a_birth_is_a_first_one_when_every_disk_is_lost() {
    fails(Bounds { lost_disks: 2, ..BIRTH });
}

#[test]
fn a_birth_by_majority_falls_to_one_lost_disk() {
    fails(Bounds { quorum: Quorum::Majority, nodes: 3, ..BIRTH });
}

#[test]
fn each_rule_is_needed() {
    let without = |rule, bounds| Bounds { broken: Some(rule), ..bounds };
    fails(without(Broken::NeverAdopts, MAJORITY));
    fails(without(Broken::NeverAdopts, BIRTH));
    fails(without(Broken::Forgets, MAJORITY));
    fails(without(Broken::AnswersAtOnce, MAJORITY));
    fails(without(Broken::SameRound, Bounds { attempts: [2, 1], ..MAJORITY }));
}
