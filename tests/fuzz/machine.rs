//! Messages of hostile peers to a born node: real ones of a store that is resharded, damaged, replayed, out of order,
//! under wrong names and at wrong times. They are taken as far as they parse (`convert` refuses the rest): what they
//! say may be a lie, and then what the node says is worth as little; but it goes on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use entail::cluster::map::{ClusterMap, PeerState};
use entail::cluster::reconcile::rules::ReconcileRules;
use entail::error::StoreError;
use entail::machine::message::{Effect, Input, Message, Request, Wanted};
use entail::machine::rules::Rules;
use entail::machine::sign::Ping;
use entail::machine::{Config, Machine};
use entail::store::memory::MemoryStore;
use entail::types::{Incarnation, NodeAddr, Now, ShardId};
use entail::wire::convert::{Reader, message_to_proto};
use entail::wire::proto;
use prost::Message as _;

use crate::fields::damaged_fields;
use crate::random::Random;
use crate::run::{Bound, Cases, run};
use crate::samples::{self, context, key, node};

const NODES: u32 = 4;
const PARTITIONS: u32 = samples::PARTITIONS;

/// The node that is attacked: not the one that proposes maps, so that it is told of them.
const VICTIM: u32 = NODES;

/// Messages that one node is given.
const MESSAGES: usize = 32;

/// A message of some tens of bytes may be answered with a chunk of a fill, or make a node look at all it holds.
const BOUND: Bound = Bound { times: 1000, more: 1 << 20 };

fn config(number: u32) -> Config {
    Config {
        address: node(number),
        view: (1..=NODES).map(node).collect(),
        shard_count: Some(1),
        partitions: PARTITIONS,
        write_copies: 2,
        max_waiting: 100,
        max_unapplied_bytes: 1 << 16,
        seed: [number as u8; 32],
        rules: Rules::all(),
        reconcile_rules: ReconcileRules::all(),
        fill_bytes_a_second: 64 << 20,
        listen_ms: 0,
    }
}

struct Host {
    machine: Machine,
    store: MemoryStore,
}

impl Host {
    fn open(number: u32, store: MemoryStore, now: Now) -> Result<Self, StoreError> {
        Ok(Self { machine: Machine::open(config(number), &store, now)?, store })
    }

    /// One step, and all that is to be durable made so.
    fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.machine.step(now, input, &self.store, &mut effects);
        while let Some(batch) = self.machine.flush(&self.store, &mut effects) {
            self.store.sync_to(u64::MAX);
            self.machine.step(now, Input::Synced(batch), &self.store, &mut effects);
        }
        effects
    }
}

/// What hostile peers have to work with.
#[derive(Default)]
struct Past {
    /// What the victim was sent: by whom, and what.
    sent: Vec<(NodeAddr, Vec<u8>)>,
    pings: Vec<Ping>,
    maps: Vec<ClusterMap>,
    /// Its disk at some times.
    disks: Vec<MemoryStore>,
    incarnations: BTreeMap<NodeAddr, Incarnation>,
    now: Now,
}

/// A store that is born, written to and resharded, with all that the victim heard meanwhile.
fn past() -> Past {
    let mut past = Past { now: Now { mono_ms: 1, wall_ms: 1_700_000_000_000 }, ..Past::default() };
    let mut hosts: BTreeMap<NodeAddr, Host> = (1..=NODES)
        .map(|number| (node(number), Host::open(number, MemoryStore::new(), past.now).expect("a new node")))
        .collect();
    past.incarnations = hosts.iter().map(|(node, host)| (node.clone(), host.machine.incarnation())).collect();
    let mut inbox = VecDeque::new();
    for (from, to) in pairs() {
        inbox.push_back((to, Input::Connected { incarnation: past.incarnations[&from], peer: from }));
    }
    let mut epoch = 0;
    for turn in 0u64..800 {
        past.now.mono_ms += 10;
        past.now.wall_ms += 10;
        inbox.extend((1..=NODES).map(|number| (node(number), Input::Tick)));
        inbox.extend(wish(turn));
        while let Some((at, input)) = inbox.pop_front() {
            if at == node(VICTIM) {
                past.note(&input);
            }
            let effects = hosts.get_mut(&at).expect("a node").step(past.now, input);
            let incarnation = past.incarnations[&at];
            inbox.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Send { to, message } => Some((to, Input::Message { from: at.clone(), incarnation, message })),
                _ => None,
            }));
        }
        let victim = &hosts[&node(VICTIM)];
        let map = victim.machine.map();
        if map.epoch.0 != epoch || turn == 799 {
            epoch = map.epoch.0;
            past.disks.push(victim.store.crash(usize::MAX));
            past.maps.push(ClusterMap::clone(map));
        }
    }
    assert!(past.disks.len() > 4 && epoch > 4, "born and resharded: map {epoch}");
    past
}

fn pairs() -> impl Iterator<Item = (NodeAddr, NodeAddr)> {
    let all = || (1..=NODES).map(node);
    all().flat_map(move |from| all().map(move |to| (from.clone(), to))).filter(|(from, to)| from != to)
}

/// What clients want in a turn.
fn wish(turn: u64) -> Option<(NodeAddr, Input)> {
    let to = node(1 + (turn % u64::from(NODES)) as u32);
    let context = entail::causal::context::Context::empty();
    let name = key(&format!("key{}", turn % 40));
    let change = |wanted| Some(Input::Change { id: 1_000_000 + turn, wanted, budget_ms: 10_000 });
    let input = match turn {
        300 => change(Wanted::Reshard(2)),
        600 => change(Wanted::Reshard(1)),
        100.. if turn.is_multiple_of(3) => {
            let request = if turn.is_multiple_of(9) {
                Request::Delete { key: name, context }
            } else {
                Request::Put { key: name, value: Bytes::from(turn.to_string()), context }
            };
            Some(Input::Request { id: turn, request, budget_ms: 1_000 })
        }
        _ => None,
    };
    Some((to, input?))
}

impl Past {
    fn note(&mut self, input: &Input) {
        let Input::Message { from, message, .. } = input else { return };
        match (message, message_to_proto(message)) {
            (Message::Ping(ping) | Message::Pong(ping), _) => self.pings.push(Ping::clone(ping)),
            (_, Some(sent)) => self.sent.push((from.clone(), sent.encode_to_vec())),
            (_, None) => {}
        }
    }
}

/// What a hostile peer does next; nothing where what it made does not parse.
fn hostile(random: &mut Random, past: &Past, partitions: u32, seeds: &[Vec<u8>]) -> Option<(usize, Input)> {
    let (sender, real) = random.pick(&past.sent).clone();
    let stranger = random.once_in(16);
    let from = if stranger { node(1 + random.below(9) as u32) } else { sender };
    let known = past.incarnations.get(&from).copied();
    let incarnation = known.filter(|_| !random.once_in(32)).unwrap_or(Incarnation(u128::from(random.next())));
    let mut bytes = match random.below(4) {
        0 => real,
        1 => damaged_fields(random, seeds),
        _ => damaged_fields(random, &[real]),
    };
    let input = match random.below(44) {
        5..9 => {
            let message = Message::MapPush(Arc::new(forged(random, &past.maps)));
            // What the receiving end refuses is tried by `messages`.
            let sent = message_to_proto(&message).expect("it goes over a stream");
            bytes = sent.encode_to_vec();
            Input::Message { from, incarnation, message: Reader { partitions }.message(sent).ok()? }
        }
        0 => Input::Accepted { peer: from },
        1 => Input::Connected { peer: from, incarnation },
        2 => Input::Disconnected { peer: from, refused: random.once_in(2) },
        3 | 4 => {
            let mut ping = random.pick(&past.pings).clone();
            match random.below(6) {
                0 => ping.epoch.0 = random.number(),
                1 => ping.wall_ms = random.number(),
                2 => ping.hears = vec![node(9)],
                3 => ping.served.keys = random.number(),
                4 => ping.served.partitions = random.number(),
                _ => {}
            }
            Input::Message { from, incarnation, message: Message::Ping(ping.into()) }
        }
        _ => {
            let decoded = proto::Message::decode(Bytes::from(bytes.clone())).ok()?;
            Input::Message { from, incarnation, message: Reader { partitions }.message(decoded).ok()? }
        }
    };
    Some((bytes.len(), input))
}

/// A map that nobody decided; most do not contradict themselves.
fn forged(random: &mut Random, maps: &[ClusterMap]) -> ClusterMap {
    let mut map = random.pick(maps).clone();
    map.epoch.0 = map.epoch.0.saturating_add(if random.once_in(8) { random.number() } else { random.below(9) as u64 });
    for _ in 0..random.below(3) {
        let row = random.below(map.rows.len().max(1));
        match random.below(8) {
            // As many partitions less, or more, everywhere.
            0 => {
                let count = random.below(2 * PARTITIONS as usize);
                let row = map.rows.first().cloned().unwrap_or_default();
                map.rows.resize(count, row);
                let layouts = [Some(&mut map.layout), map.target.as_mut().map(|target| &mut target.layout)];
                layouts.into_iter().flatten().for_each(|layout| layout.partitions.resize(count, ShardId(1)));
            }
            1 => drop(map.rows.get_mut(row).and_then(|row| row.peers.pop_first())),
            2 => map.rows.iter_mut().skip(row).take(1).for_each(|row| row.next_stay.0 = random.number() as u32),
            3 => map.rows.iter_mut().skip(row).for_each(|row| row.version = map.epoch),
            4 => {
                let states = [PeerState::Joining, PeerState::Serving, PeerState::Leaving];
                let peers = map.rows.iter_mut().skip(row).flat_map(|row| row.peers.values_mut());
                peers.for_each(|peer| peer.state = *random.pick(&states));
            }
            5 => drop(map.nodes.insert(node(VICTIM), Some(Incarnation(u128::from(random.next()))))),
            6 => map.voters.truncate(random.below(3)),
            _ => map.target = None,
        }
    }
    map
}

/// What the node must go on doing, and what it may be driven to.
fn looked_at(cases: &mut Cases, effects: &[Effect]) -> bool {
    for effect in effects {
        match effect {
            // A map in which the operator has given this node up: it begins anew.
            Effect::Fatal(StoreError::Forgotten(_)) => cases.count("forgotten"),
            // Somebody who is believed holds more of the node's own writes than its disk.
            Effect::Fatal(StoreError::Damaged(why)) if why.contains("restored from a backup") => {
                cases.count("set back")
            }
            Effect::Fatal(error) => panic!("a peer ended the node: {error}"),
            Effect::Send { .. } => cases.count("answers"),
            _ => {}
        }
    }
    !effects.iter().any(|effect| matches!(effect, Effect::Fatal(_)))
}

#[test]
fn machine() {
    let past = past();
    let seeds: Vec<_> = samples::messages()
        .iter()
        .filter_map(|(_, message)| Some(message_to_proto(message)?.encode_to_vec()))
        .collect();
    run("machine", 40, &["messages", "answers", "maps"], |cases| {
        let disk = cases.random.pick(&past.disks).crash(usize::MAX);
        let mut now = past.now;
        let mut host = Host::open(VICTIM, disk, now).expect("its own disk");
        for (peer, incarnation) in past.incarnations.clone() {
            host.step(now, Input::Connected { peer, incarnation });
        }
        let begun = Arc::clone(host.machine.map());
        // What is said under a map that is not here yet is kept, and heard with the map.
        let mut said = 0;
        for id in 0..MESSAGES as u64 {
            let partitions = host.machine.map().partitions();
            let Some((bytes, input)) = hostile(&mut cases.random, &past, partitions, &seeds) else { continue };
            cases.count("messages");
            said += bytes;
            let effects = cases.within(said, BOUND, || host.step(now, input));
            if !looked_at(cases, &effects) {
                return;
            }
            if cases.random.once_in(3) {
                now.mono_ms += cases.random.below(400) as u64;
                now.wall_ms += cases.random.below(400) as u64;
                let name = key(&format!("key{}", cases.random.below(40)));
                let context = if cases.random.once_in(8) { context() } else { Default::default() };
                let request = Request::Put { key: name, value: Bytes::from_static(b"1"), context };
                let mut effects = host.step(now, Input::Request { id, request, budget_ms: 500 });
                effects.extend(host.step(now, Input::Tick));
                if !looked_at(cases, &effects) {
                    return;
                }
            }
        }
        if host.machine.map() != &begun {
            cases.count("maps");
        }
        // A start on what all this has left.
        let Host { machine, store } = host;
        drop(machine);
        match Host::open(VICTIM, store, now) {
            Ok(_) | Err(StoreError::Forgotten(_)) => {}
            Err(error) => panic!("what a peer has said keeps the node from starting: {error}"),
        }
    });
}
