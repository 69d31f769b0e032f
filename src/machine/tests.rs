//! Small stores in lockstep: no faults, every message arrives at once. What faults do is the simulator's business.

mod asked;
mod birth;
mod changes;
mod clocks;
mod durability;
mod early;
mod losses;
mod maps;
mod peers;
mod progress;
mod recovery;
mod refusals;
mod repair;
mod replays;
mod routing;
mod wall;
mod warnings;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::agreement::NotChanged;
use super::fill::items::item_weight;
use super::message::{Effect, Input, Message, Request, Response};
use super::rules::Rules;
use super::{Config, Machine, Spare};
use crate::causal::context::Context;
use crate::cluster::reconcile::rules::ReconcileRules;
use crate::error::{Code, StoreError};
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::types::{Incarnation, Key, NodeAddr, Now, ShardId};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn put_request(name: &str, value: &str) -> Request {
    Request::Put { key: key(name), value: Bytes::copy_from_slice(value.as_bytes()), context: Context::empty() }
}

struct Host {
    machine: Machine,
    store: MemoryStore,
    up: bool,
    /// Takes what is written, and syncs nothing of it from when it has decided on a map.
    stalls: bool,
}

struct Lockstep {
    now: Now,
    hosts: BTreeMap<NodeAddr, Host>,
    inbox: VecDeque<(NodeAddr, Input)>,
    answers: BTreeMap<u64, Response>,
    asked: u64,
    /// Links that carry nothing.
    cut: Vec<(NodeAddr, NodeAddr)>,
    /// How far the wall clock of a node is ahead, in milliseconds.
    skew_ms: BTreeMap<NodeAddr, i64>,
    /// Links that carry what they are given only after so many milliseconds.
    slow: BTreeMap<(NodeAddr, NodeAddr), u64>,
    on_their_way: VecDeque<(u64, NodeAddr, Input)>,
    /// How many fills were asked for.
    fills: usize,
    /// What is lost on its way, beside what is cut: from whom, to whom, what.
    loses: fn(&NodeAddr, &NodeAddr, &Message) -> bool,
    /// Changes that were refused to the node that had asked.
    refusals: usize,
    /// Items of fills that were given, and what each node has given: when, and how many bytes.
    items: usize,
    given: BTreeMap<NodeAddr, Vec<(u64, usize)>>,
    /// The most chunks of fills, with something in them, that one step has given.
    most_given: usize,
    /// The most views that a node has held open for another and one purpose.
    most_views: usize,
    /// See [`Machine::rest`]: how long a machine rests after each turn that asks for it, in milliseconds.
    rest_ms: u64,
    /// What that was for that a turn did and no request waits for, and when.
    worked: Vec<(u64, Spare)>,
    /// See [`Config::fill_bytes_a_second`].
    fill_bytes: u64,
    /// Maps that were told, to whom: whole (true), or as differences.
    maps: Vec<(NodeAddr, bool)>,
    /// Machines that ended, and why.
    ended: BTreeMap<NodeAddr, StoreError>,
    /// See [`Config::max_unapplied_bytes`].
    unapplied_bytes: usize,
    changes: BTreeMap<u64, Result<u64, NotChanged>>,
    warnings: Vec<String>,
    notes: Vec<(NodeAddr, String)>,
    /// Who was told whether contexts tell clocks, in order.
    tells_clocks: Vec<(NodeAddr, bool)>,
    /// Nodes of a build that knows no clocks, as far as messages tell.
    older: BTreeSet<NodeAddr>,
    /// Connections that were made by themselves: from, to, and who was there.
    links: BTreeSet<(NodeAddr, NodeAddr, Incarnation)>,
}

fn node(number: usize) -> NodeAddr {
    format!("node{number}:8085").parse().unwrap()
}

fn config(number: usize, nodes: usize, shards: u32) -> Config {
    Config {
        address: node(number),
        view: (1..=nodes).map(node).collect(),
        shard_count: Some(shards),
        partitions: 8,
        write_copies: 2,
        max_waiting: 1_000,
        max_unapplied_bytes: 1 << 20,
        seed: [number as u8; 32],
        rules: Rules::all(),
        reconcile_rules: ReconcileRules::all(),
        fill_bytes_a_second: 64 << 20,
        listen_ms: 0,
    }
}

/// How many of these send a part of a fill.
fn chunks(effects: &[Effect]) -> usize {
    let gives = |effect: &&Effect| match effect {
        Effect::Send { message: Message::FillChunk(chunk), .. } => !chunk.items.is_empty(),
        _ => false,
    };
    effects.iter().filter(gives).count()
}

impl Lockstep {
    fn new(nodes: usize, shards: u32) -> Self {
        let now = Now { mono_ms: 1, wall_ms: 1_700_000_000_000 };
        let mut all = Self {
            now,
            hosts: BTreeMap::new(),
            inbox: VecDeque::new(),
            answers: BTreeMap::new(),
            asked: 0,
            cut: Vec::new(),
            skew_ms: BTreeMap::new(),
            slow: BTreeMap::new(),
            on_their_way: VecDeque::new(),
            loses: |_, _, _| false,
            fills: 0,
            refusals: 0,
            items: 0,
            given: BTreeMap::new(),
            most_given: 0,
            most_views: 0,
            rest_ms: 0,
            worked: Vec::new(),
            fill_bytes: 64 << 20,
            maps: Vec::new(),
            ended: BTreeMap::new(),
            unapplied_bytes: 1 << 20,
            changes: BTreeMap::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
            tells_clocks: Vec::new(),
            older: BTreeSet::new(),
            links: BTreeSet::new(),
        };
        for number in 1..=nodes {
            all.start(number, nodes, shards, MemoryStore::new());
        }
        all.connect_all();
        all
    }

    fn start(&mut self, number: usize, nodes: usize, shards: u32, store: MemoryStore) {
        let (max_unapplied_bytes, fill_bytes_a_second) = (self.unapplied_bytes, self.fill_bytes);
        let config = Config { max_unapplied_bytes, fill_bytes_a_second, ..config(number, nodes, shards) };
        let machine = Machine::open(config, &store, self.now).unwrap();
        self.hosts.insert(node(number), Host { machine, store, up: true, stalls: false });
    }

    /// Ends nodes of six as a crash would, and starts them with what was synced.
    fn start_again(&mut self, numbers: impl IntoIterator<Item = usize>, shards: u32) {
        for number in numbers {
            self.stop(number);
            let store = self.hosts.remove(&node(number)).unwrap().store.crash(0);
            self.start(number, 6, shards, store);
        }
    }

    fn connect_all(&mut self) {
        let nodes: Vec<(NodeAddr, _)> =
            self.hosts.iter().filter(|(_, h)| h.up).map(|(n, h)| (n.clone(), h.machine.incarnation())).collect();
        for (a, _) in &nodes {
            for (b, incarnation) in nodes.iter().filter(|(b, _)| b != a) {
                self.inbox.push_back((a.clone(), Input::Connected { peer: b.clone(), incarnation: *incarnation }));
            }
        }
    }

    /// Gives one input, makes its changes durable at once, and queues what it wants sent.
    fn step(&mut self, at: &NodeAddr, input: Input) {
        let mut effects = Vec::new();
        let skew_ms = self.skew_ms.get(at).copied().unwrap_or(0);
        let now = Now { wall_ms: self.now.wall_ms.saturating_add_signed(skew_ms), ..self.now };
        let Some(host) = self.hosts.get_mut(at).filter(|host| host.up) else { return };
        host.machine.step(now, input, &host.store, &mut effects);
        self.most_given = self.most_given.max(chunks(&effects));
        loop {
            let worked = host.machine.has_worked();
            self.worked.extend(worked.map(|spare| (self.now.mono_ms, spare)));
            let flushed = host.machine.flush(&host.store, &mut effects);
            self.most_views = host.machine.open_views().into_values().fold(self.most_views, usize::max);
            if worked.is_some() && self.rest_ms > 0 {
                host.machine.rest(self.now.mono_ms + self.rest_ms);
            }
            let stuck = host.stalls && host.machine.consensus.decided > host.machine.map().epoch;
            let Some(batch) = flushed.filter(|_| !stuck) else { break };
            host.store.sync().unwrap();
            let before = chunks(&effects);
            host.machine.step(now, Input::Synced(batch), &host.store, &mut effects);
            self.most_given = self.most_given.max(chunks(&effects) - before);
        }
        let incarnation = host.machine.incarnation();
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    self.refusals += usize::from(matches!(message, Message::ChangeAnswered { outcome: Err(_), .. }));
                    if self.cut.iter().any(|(a, b)| a == at && *b == to) {
                        if let Message::Forward { id, .. } = message {
                            self.inbox.push_back((at.clone(), Input::NotSent { id }));
                        }
                        continue;
                    }
                    if (self.loses)(at, &to, &message) {
                        continue;
                    }
                    let older = self.older.contains(at) || self.older.contains(&to);
                    let message = if older { clocks::as_an_older_build_has_it(message) } else { message };
                    self.fills += usize::from(matches!(message, Message::FillRequest { .. }));
                    if let Message::FillChunk(chunk) = &message {
                        self.items += chunk.items.len();
                        let bytes = chunk.items.iter().map(|(key, item)| item_weight(key, item)).sum();
                        self.given.entry(at.clone()).or_default().push((self.now.mono_ms, bytes));
                    }
                    if let Message::MapPush(_) | Message::MapDeltas(_) = message {
                        self.maps.push((to.clone(), matches!(message, Message::MapPush(_))));
                    }
                    let link = (at.clone(), to.clone());
                    let input = Input::Message { from: at.clone(), incarnation, message };
                    match self.slow.get(&link) {
                        Some(ms) => self.on_their_way.push_back((self.now.mono_ms + ms, to, input)),
                        None => self.inbox.push_back((to, input)),
                    }
                }
                Effect::Reply { id, response } => {
                    self.answers.insert(id, response);
                }
                Effect::Fatal(error) => {
                    self.ended.insert(at.clone(), error);
                    self.hosts.get_mut(at).unwrap().up = false;
                }
                Effect::ReplyChange { id, outcome } => {
                    self.changes.insert(id, outcome);
                }
                Effect::Meet(other) => self.link(at, &other),
                Effect::TellClocks(tells) => self.tells_clocks.push((at.clone(), tells)),
                Effect::Warn(text) => self.warnings.push(text),
                Effect::Note(text) => self.notes.push((at.clone(), text)),
                Effect::MapChanged(map) => {
                    for other in map.nodes.keys().filter(|other| *other != at) {
                        self.link(at, other);
                    }
                }
            }
        }
    }

    /// A connection from a node to another, unless there was one: a node dials whom it met, and whom its map has.
    fn link(&mut self, from: &NodeAddr, to: &NodeAddr) {
        let Some(there) = self.hosts.get(to).filter(|host| host.up) else { return };
        let incarnation = there.machine.incarnation();
        if self.links.insert((from.clone(), to.clone(), incarnation)) {
            self.inbox.push_back((from.clone(), Input::Connected { peer: to.clone(), incarnation }));
        }
    }

    fn settle(&mut self) {
        let mut steps = 0;
        while let Some((at, input)) = self.inbox.pop_front() {
            self.step(&at, input);
            steps += 1;
            assert!(steps < 100_000, "messages never end");
        }
    }

    fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now.mono_ms += 10;
            self.now.wall_ms += 10;
            for at in self.hosts.keys().cloned().collect::<Vec<_>>() {
                self.step(&at, Input::Tick);
            }
            while let Some((_, to, input)) = self.on_their_way.pop_front_if(|(due, _, _)| *due <= self.now.mono_ms) {
                self.inbox.push_back((to, input));
            }
            self.settle();
        }
    }

    fn ask(&mut self, number: usize, request: Request) -> Response {
        let id = self.begin(number, request);
        self.answer(id)
    }

    /// Asks, and leaves the answer for later.
    fn begin(&mut self, number: usize, request: Request) -> u64 {
        self.asked += 1;
        let id = self.asked;
        self.step(&node(number), Input::Request { id, request, budget_ms: 2_000 });
        self.settle();
        id
    }

    fn answer(&mut self, id: u64) -> Response {
        for _ in 0..500 {
            if let Some(response) = self.answers.remove(&id) {
                return response;
            }
            self.run_ms(10);
        }
        panic!("request {id} was never answered");
    }

    fn put(&mut self, at: usize, key: &str, value: &str, context: &Context) -> Context {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let request = Request::Put { key: Key::new(key).unwrap(), value, context: context.clone() };
        match self.ask(at, request) {
            Response::Written { context, .. } => context,
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, at: usize, key: &str, context: &Context) -> Response {
        self.ask(at, Request::Get { key: Key::new(key).unwrap(), context: context.clone() })
    }

    fn delete(&mut self, at: usize, key: &str, context: &Context) -> Response {
        self.ask(at, Request::Delete { key: Key::new(key).unwrap(), context: context.clone() })
    }

    /// Ends a node as a crash would, what was synced aside; the others are told that nobody listens there.
    fn stop(&mut self, number: usize) {
        self.hosts.get_mut(&node(number)).unwrap().up = false;
        for at in self.hosts.keys().cloned().collect::<Vec<_>>() {
            self.step(&at, Input::Disconnected { peer: node(number), refused: true });
        }
        self.settle();
    }

    fn connect(&mut self, at: usize, to: usize) {
        let incarnation = self.machine(to).incarnation();
        self.step(&node(at), Input::Connected { peer: node(to), incarnation });
        self.settle();
    }

    fn machine(&self, number: usize) -> &Machine {
        &self.hosts[&node(number)].machine
    }
}

#[test]
fn a_store_is_born_once_all_are_there() {
    let mut all = Lockstep::new(5, 2);
    all.hosts.get_mut(&node(5)).unwrap().up = false;
    all.run_ms(3_000);
    assert_eq!(all.machine(1).readiness(all.now), Err("waiting for node5:8085 to start".into()));
    assert_eq!(all.get(1, "a", &Context::empty()), Response::Error(Code::ShardUnavailable));
    all.hosts.get_mut(&node(5)).unwrap().up = true;
    all.connect_all();
    all.run_ms(2_000);
    let map = all.machine(1).map().clone();
    for number in 1..=5 {
        assert_eq!(all.machine(number).map(), &map);
        assert_eq!(all.machine(number).readiness(all.now), Ok(()));
    }
    assert!(map.is_born());
}

#[test]
fn a_session_carries_its_context_across_shards() {
    let mut all = Lockstep::new(6, 3);
    all.run_ms(2_000);
    let mut context = Context::empty();
    for n in 0..60 {
        context = all.put(1 + n % 6, &format!("key{n}"), &format!("{n}"), &context);
    }
    for n in 0..60 {
        let response = all.get(1 + (n + 3) % 6, &format!("key{n}"), &context);
        let Response::Value { value, .. } = response else { panic!("{response:?}") };
        assert_eq!(value, format!("{n}"));
    }
    all.run_ms(1_000);
    let Response::Value { context: seen, .. } = all.get(1, "key59", &context) else { panic!() };
    assert_eq!(seen, context, "to the letter");
    // Everything is stable by now: a new session depends on nothing.
    let Response::Value { context: fresh, .. } = all.get(2, "key59", &Context::empty()) else { panic!() };
    assert_eq!(fresh.len(), 0);
    let counts: u64 = (1..=3)
        .map(|shard| match all.ask(4, Request::KeyCount { shard: ShardId(shard) }) {
            Response::KeyCount(keys) => keys,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(counts, 60);
}

#[test]
fn deletes_leave_tombstones_that_are_collected() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let context = all.put(1, "a", "1", &Context::empty());
    let Response::Written { context, existed: true, .. } = all.delete(2, "a", &context) else { panic!() };
    assert!(matches!(all.get(3, "a", &context), Response::Missing { .. }));
    assert!(matches!(all.delete(3, "a", &context), Response::Missing { .. }));
    all.run_ms(20_000);
    for number in 1..=3 {
        for part in all.machine(number).partition_status() {
            assert_eq!((part.tombstones, part.logged, part.unapplied), (0, 0, 0), "node{number} {part:?}");
            assert_eq!(all.machine(number).part(part.partition).replica.as_ref().unwrap().bytes, 0, "node{number}");
        }
    }
    assert!(matches!(all.get(3, "a", &context), Response::Missing { .. }));
}

#[test]
fn a_restart_goes_on_with_what_was_durable() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let context = all.put(1, "a", "1", &Context::empty());
    for number in 1..=4 {
        let host = all.hosts.remove(&node(number)).unwrap();
        all.start(number, 4, 2, host.store.crash(0));
    }
    all.connect_all();
    all.run_ms(2_000);
    assert!(matches!(all.get(4, "a", &context), Response::Value { .. }));
    let context = all.put(3, "a", "2", &context);
    assert!(matches!(all.get(2, "a", &context), Response::Value { value, .. } if value == "2"));
}

#[test]
fn a_dead_peer_is_waited_for_no_longer() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    all.hosts.get_mut(&node(2)).unwrap().up = false;
    let request = Request::Put { key: Key::new("a").unwrap(), value: Bytes::from("1"), context: Context::empty() };
    let Response::Written { copies, .. } = all.ask(1, request) else { panic!() };
    assert_eq!(copies, 1);
    assert!(matches!(all.get(1, "a", &Context::empty()), Response::Value { .. }));
}
