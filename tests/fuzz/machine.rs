//! Messages of hostile peers to a born node: real ones of a store that is resharded, damaged, replayed, out of order,
//! under wrong names and at wrong times. They are taken as far as they parse (`convert` refuses the rest): what they
//! say may be a lie, and then what the node says is worth as little; but it goes on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use entail::cluster::reconcile::rules::ReconcileRules;
use entail::error::StoreError;
use entail::machine::message::{Effect, Input, Message, Ping, Request, Wanted};
use entail::machine::rules::Rules;
use entail::machine::{Config, Machine};
use entail::store::memory::MemoryStore;
use entail::types::{Incarnation, NodeAddr, Now};
use entail::wire::convert::{Reader, message_to_proto};
use entail::wire::proto;
use prost::Message as _;

use crate::fields::damaged_fields;
use crate::random::Random;
use crate::run::{Bound, Cases, run};
use crate::samples::{self, context, key, node};

const NODES: u32 = 4;
const PARTITIONS: u32 = samples::PARTITIONS;

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
    /// What the first node was sent: by whom, and what.
    sent: Vec<(NodeAddr, Vec<u8>)>,
    pings: Vec<Ping>,
    /// The first node's disk at some times.
    disks: Vec<MemoryStore>,
    incarnations: BTreeMap<NodeAddr, Incarnation>,
    now: Now,
}

/// A store that is born, written to and resharded, with all that its first node heard meanwhile.
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
            if at == node(1) {
                past.note(&input);
            }
            let effects = hosts.get_mut(&at).expect("a node").step(past.now, input);
            let incarnation = past.incarnations[&at];
            inbox.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Send { to, message } => Some((to, Input::Message { from: at.clone(), incarnation, message })),
                _ => None,
            }));
        }
        let first = &hosts[&node(1)];
        let now = first.machine.map().epoch.0;
        if now != epoch || turn == 799 {
            epoch = now;
            past.disks.push(first.store.crash(usize::MAX));
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
        100.. if turn % 3 == 0 => {
            let request = if turn % 9 == 0 {
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
            (Message::Ping(ping) | Message::Pong(ping), _) => self.pings.push(ping.clone()),
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
    let bytes = match random.below(4) {
        0 => real,
        1 => damaged_fields(random, seeds),
        _ => damaged_fields(random, &[real]),
    };
    let input = match random.below(40) {
        0 => Input::Accepted { peer: from },
        1 => Input::Connected { peer: from, incarnation },
        2 => Input::Disconnected { peer: from, refused: random.once_in(2) },
        3 | 4 => {
            let mut ping = random.pick(&past.pings).clone();
            match random.below(4) {
                0 => ping.epoch.0 = random.number(),
                1 => ping.wall_ms = random.number(),
                2 => ping.hears = vec![node(9)],
                _ => {}
            }
            Input::Message { from, incarnation, message: Message::Ping(ping) }
        }
        _ => {
            let decoded = proto::Message::decode(Bytes::from(bytes.clone())).ok()?;
            Input::Message { from, incarnation, message: Reader { partitions }.message(decoded).ok()? }
        }
    };
    Some((bytes.len(), input))
}

/// What the node must go on doing, and what it may be driven to.
fn looked_at(cases: &mut Cases, effects: &[Effect]) -> bool {
    for effect in effects {
        match effect {
            // A map in which the operator has given this node up: it begins anew.
            Effect::Fatal(StoreError::Forgotten(_)) => cases.count("forgotten"),
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
        let mut host = Host::open(1, disk, now).expect("its own disk");
        for (peer, incarnation) in past.incarnations.clone() {
            host.step(now, Input::Connected { peer, incarnation });
        }
        let begun = Arc::clone(host.machine.map());
        for id in 0..MESSAGES as u64 {
            let partitions = host.machine.map().partitions();
            let Some((bytes, input)) = hostile(&mut cases.random, &past, partitions, &seeds) else { continue };
            cases.count("messages");
            let effects = cases.within(bytes, BOUND, || host.step(now, input));
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
        match Host::open(1, store, now) {
            Ok(_) | Err(StoreError::Forgotten(_)) => {}
            Err(error) => panic!("what a peer has said keeps the node from starting: {error}"),
        }
    });
}
