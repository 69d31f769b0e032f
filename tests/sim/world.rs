//! The world: time, nodes, and what passes between them. One step is one event.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use entail::causal::codec::ContextCodec;
use entail::cluster::map::ClusterMap;
use entail::machine::agreement::NotChanged;
use entail::machine::message::{Effect, Input, Request, RequestId};
use entail::machine::{Config, Machine};
use entail::types::{Epoch, Incarnation, Key};

use crate::clauses::Clauses;
use crate::event::{Agenda, Event};
use crate::invariants;
use crate::met;
use crate::network::Network;
use crate::node::{Incoming, Node, Process};
use crate::oracle::{Oracle, Session, Shown};
use crate::profile::{Settings, settings};
use crate::random::Random;
use crate::recorder;
use crate::trace::Trace;
use crate::workload::{Asked, Client};

/// One run.
#[derive(Debug)]
pub struct World {
    /// How large, and which faults.
    pub settings: Settings,
    /// The clauses in force.
    pub rules: Clauses,
    /// The source of chance.
    pub random: Random,
    /// Milliseconds since the run began.
    pub now: u64,
    /// What is going to happen.
    pub agenda: Agenda,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// What is between them.
    pub network: Network,
    /// The sessions.
    pub clients: Vec<Client>,
    /// Sessions as they were at some time, and the newest map's epoch then, to come back with.
    pub saved: Vec<(Epoch, Session)>,
    /// Requests without an answer, by serial number.
    pub asked: BTreeMap<u64, Asked>,
    /// The serial number of the last request.
    pub serial: u64,
    /// What is right.
    pub oracle: Oracle,
    /// What happened.
    pub trace: Trace,
    /// What went wrong first.
    pub violation: Option<String>,
    /// No more faults and no more requests by themselves.
    pub quiet: bool,
    /// The text of contexts, once the store is born.
    pub codec: Option<ContextCodec>,
    /// Every map that a node acted under.
    pub maps: BTreeMap<Epoch, Arc<ClusterMap>>,
    /// Disks that are given up by a map that somebody told as decided, be it before anybody acted under it.
    pub told_forgotten: BTreeSet<Incarnation>,
    /// When the first node acted under each.
    pub map_ms: BTreeMap<Epoch, u64>,
    /// When a clock jumped last, and when connections were broken last.
    pub jumped_ms: Option<u64>,
    pub broke_ms: Option<u64>,
    /// When two clocks were far apart last.
    pub apart_ms: Option<u64>,
    /// Which cut of one node was in force when the target was set that is still to be reached.
    pub target_cut: Option<u64>,
    /// When a map was first proposed to its voters, in milliseconds, by its hash.
    pub proposed_ms: BTreeMap<u64, u64>,
    /// Answers to operators.
    pub changed: BTreeMap<RequestId, Result<u64, NotChanged>>,
    /// An operator recovers the store by force: nothing breaks meanwhile.
    pub recovering: bool,
    /// Changes of the map that were asked for.
    pub changes: u64,
    /// The steps that the newest map takes.
    pub steps: Vec<&'static str>,
    /// Events so far.
    pub events: u64,
    /// Takes note of what clients see, if anybody does; then the oracle only listens.
    pub recorder: Option<recorder::Shared>,
}

impl World {
    /// The run of this profile and seed, at its beginning.
    pub fn new(profile: &str, seed: u64, rules: Clauses, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let settings = settings(profile, &mut random);
        Self::of(settings, random, rules, trace)
    }

    /// A run of these settings, at its beginning.
    pub fn of(settings: Settings, mut random: Random, rules: Clauses, trace: Trace) -> Self {
        let n = settings.nodes + settings.late_nodes;
        let nodes: Vec<_> = (0..n)
            .map(|i| {
                let addr = format!("node{}:8085", i + 1).parse().expect("the name is an address");
                let skew = random.within(0, 2 * settings.skew_ms) as i64 - settings.skew_ms as i64;
                Node::new(addr, skew, settings.sync_ms)
            })
            .collect();
        let keys = (0..settings.keys).map(|i| Key::new(&format!("key{i}")).expect("not empty")).collect();
        let oracle = Oracle::new(keys, settings.partitions, n);
        let clients = (0..settings.clients).map(|_| Client::default()).collect();
        let mut world = Self {
            rules,
            random,
            now: 0,
            agenda: Agenda::default(),
            nodes,
            network: Network::new(n),
            clients,
            saved: Vec::new(),
            asked: BTreeMap::new(),
            serial: 0,
            oracle,
            trace,
            violation: None,
            quiet: false,
            codec: None,
            maps: BTreeMap::new(),
            told_forgotten: BTreeSet::new(),
            jumped_ms: None,
            apart_ms: None,
            broke_ms: None,
            target_cut: None,
            map_ms: BTreeMap::new(),
            proposed_ms: BTreeMap::new(),
            recovering: false,
            changes: 0,
            changed: BTreeMap::new(),
            steps: Vec::new(),
            events: 0,
            recorder: recorder::current(),
            settings,
        };
        for node in 0..n {
            let late = node >= world.settings.nodes;
            let when = world.random.within(0, if late { 40_000 } else { world.settings.start_ms });
            world.agenda.at(when, Event::Start { node, boot: 0 });
            if late {
                world.nodes[node].knows = Some(world.random.index(world.settings.nodes));
            }
        }
        world
    }

    /// Takes note of a violation; the first one counts.
    pub fn fail(&mut self, what: String) {
        self.trace.say(self.now, || format!("*** {what}"));
        if self.recorder.is_some() {
            return;
        }
        let now = self.now;
        self.violation.get_or_insert_with(|| format!("{what} [at {now} ms]"));
    }

    /// Takes note of a verdict.
    pub fn judge(&mut self, verdict: invariants::Verdict) {
        if let Err(what) = verdict {
            self.fail(what);
        }
    }

    /// Runs for a while, or until something went wrong.
    pub fn run_for(&mut self, ms: u64) {
        self.run_until(self.now + ms, |_| false);
    }

    /// Runs until a moment, or something went wrong, or `done`; true when done.
    pub fn run_until(&mut self, end_ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        while self.violation.is_none() {
            if done(self) {
                return true;
            }
            match self.agenda.next() {
                Some((when, event)) if when < end_ms => self.happen(when, event),
                Some((when, event)) => {
                    self.agenda.postpone(when, event);
                    self.now = end_ms;
                    return false;
                }
                None => return false,
            }
        }
        false
    }

    fn happen(&mut self, when: u64, event: Event) {
        self.now = when;
        self.oracle.now_ms = when;
        self.events += 1;
        match event {
            Event::Start { node, boot } => self.start(node, boot),
            Event::Tick { node, boot } => self.tick(node, boot),
            Event::Run { node, boot } => self.run(node, boot),
            Event::SyncEnds { node, boot, batch, applied } => self.sync_ends(node, boot, batch, applied),
            Event::Deliver { to, boot, envelope } => self.deliver(to, boot, *envelope),
            Event::Dial { from, boot, to } => self.dial(from, boot, to),
            Event::Break { from, boot, to, link, if_cut } => {
                if !if_cut || self.network.severed(from, to) {
                    self.break_link(from, boot, to, link);
                }
            }
            Event::Client { client } => self.client(client),
            Event::Answer { client, serial, session } => self.answer(client, serial, session),
            Event::GiveUp { client, serial } => self.give_up(client, serial),
            Event::Overdue { serial } => self.overdue(serial),
            Event::Fault => self.fault(),
            Event::Strike => self.strike(),
            Event::Heal { cut } => self.heal_cut(cut),
            Event::Room { node } => self.room(node),
            Event::Operator => self.operator(),
            Event::Recover => self.recover(),
            // Once everything is healed, `rest` gives it.
            Event::Word if self.quiet => {}
            Event::Word => self.forget_the_dead(),
        }
    }

    // A process's life.

    fn start(&mut self, n: usize, boot: u32) {
        let node = &self.nodes[n];
        if node.boot != boot || node.process.is_some() || node.dead {
            return;
        }
        let config = Config {
            address: node.addr.clone(),
            view: self.first_view(n).into_iter().map(|n| self.nodes[n].addr.clone()).collect(),
            shard_count: node.knows.is_none().then_some(self.settings.shards),
            partitions: self.settings.partitions,
            write_copies: self.settings.write_copies,
            max_waiting: self.settings.max_waiting,
            max_unapplied_bytes: self.settings.max_unapplied_bytes,
            seed: self.random.seed(),
            rules: self.rules.machine,
            reconcile_rules: self.rules.reconcile,
            fill_bytes_a_second: self.settings.fill_bytes,
            listen_ms: self.settings.listen_ms,
        };
        let origin_ms = self.random.within(1, 1_000_000);
        let mut now = node.clocks(self.now);
        now.mono_ms += origin_ms;
        match Machine::open(config, &node.disk, now) {
            Ok(machine) => {
                self.nodes[n].incarnation = Some(machine.incarnation());
                self.nodes[n].process = Some(Process::new(machine, origin_ms));
            }
            Err(error) => return self.fail(format!("node{} does not start: {error}", n + 1)),
        }
        self.nodes[n].boot += 1;
        self.nodes[n].down_by = None;
        let boot = self.nodes[n].boot;
        self.trace.say(self.now, || format!("node{} starts", n + 1));
        self.oracle.coverage.hit("process: started");
        self.agenda.at(self.now, Event::Tick { node: n, boot });
        for to in self.first_view(n) {
            self.acquaint(n, to);
        }
        let map = self.machine(n).map().clone();
        self.judge_map(n, &map);
        map.nodes.keys().for_each(|node| self.acquaint(n, self.node_index(node)));
    }

    /// The nodes that a node is started with.
    fn first_view(&self, n: usize) -> Vec<usize> {
        match self.nodes[n].knows {
            Some(other) => vec![n, other],
            None => (0..self.settings.nodes).collect(),
        }
    }

    /// From now on a node connects to another.
    pub fn acquaint(&mut self, from: usize, to: usize) {
        if from != to && self.process(from).met.insert(to) {
            let when = self.now + self.random.within(1, 30);
            let boot = self.nodes[from].boot;
            self.agenda.at(when, Event::Dial { from, boot, to });
        }
    }

    fn tick(&mut self, n: usize, boot: u32) {
        if self.nodes[n].runs(boot) {
            self.give(n, Input::Tick);
            let when = self.now + self.random.within(10, self.settings.tick_ms);
            self.agenda.at(when, Event::Tick { node: n, boot });
        }
    }

    /// The machine of a node that is up.
    pub fn machine(&self, n: usize) -> &Machine {
        &self.nodes[n].process.as_ref().expect("the caller knows that the node is up").machine
    }

    /// The process of a node that is up.
    pub fn process(&mut self, n: usize) -> &mut Process {
        self.nodes[n].process.as_mut().expect("the caller knows that the node is up")
    }

    /// Puts an input into a node's inbox.
    pub fn give(&mut self, n: usize, input: Input) {
        self.take(n, Incoming { input, shown: None });
    }

    /// Puts an input into the inbox of a node that is up, with what is known of it.
    pub fn take(&mut self, n: usize, incoming: Incoming) {
        let process = self.process(n);
        process.inbox.push(incoming);
        if !mem::replace(&mut process.awake, true) {
            let boot = self.nodes[n].boot;
            let pause = match self.random.percent(20) {
                true => self.random.within(0, 2 + self.nodes[n].stall_ms),
                false => 0,
            };
            let when = (self.now + pause).max(self.nodes[n].paused_until_ms);
            self.agenda.at(when, Event::Run { node: n, boot });
        }
    }

    /// Works off an inbox: all inputs, then one flush, then the effects.
    fn run(&mut self, n: usize, boot: u32) {
        if !self.nodes[n].runs(boot) {
            return;
        }
        if self.now < self.nodes[n].paused_until_ms {
            return self.agenda.at(self.nodes[n].paused_until_ms, Event::Run { node: n, boot });
        }
        let clocks = self.nodes[n].clocks(self.now);
        self.process(n).awake = false;
        let (mut effects, mut new) = (Vec::new(), Vec::new());
        for incoming in mem::take(&mut self.process(n).inbox) {
            self.trace.note(self.now, n, "<-", &incoming.input);
            let node = &mut self.nodes[n];
            let process = node.process.as_mut().expect("it runs");
            let connects = matches!(incoming.input, Input::Connected { .. });
            process.machine.step(clocks, incoming.input, &node.disk, &mut new);
            for effect in new.drain(..) {
                let glimpse = self.witness(n, &effect, incoming.shown.as_deref(), connects).map(Box::new);
                effects.push((effect, glimpse));
            }
        }
        let node = &mut self.nodes[n];
        let process = node.process.as_mut().expect("it runs");
        let has_worked = process.machine.has_worked().is_some();
        if let Some(batch) = process.machine.flush(&node.disk, &mut new) {
            process.unsynced = Some((batch, node.disk.applied()));
        }
        if has_worked {
            process.machine.rest(clocks.mono_ms + self.settings.rest_ms);
        }
        for effect in new {
            let glimpse = self.witness(n, &effect, None, false).map(Box::new);
            effects.push((effect, glimpse));
        }
        self.learn(n);
        self.begin_sync(n);
        for (effect, glimpse) in effects {
            if !self.nodes[n].runs(boot) {
                // It has ended with the effect before: production's loop carries out nothing after a fatal one.
                return;
            }
            let shown = glimpse.and_then(|glimpse| self.recognise(n, *glimpse)).map(Box::new);
            self.trace.note(self.now, n, "->", &effect);
            self.effect(n, effect, shown);
        }
    }

    /// Begins a sync of what was applied, if none is under way.
    pub fn begin_sync(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let (boot, sync_ms, frozen) = (node.boot, node.sync_ms, node.frozen);
        let process = node.process.as_mut().expect("the caller knows that the node is up");
        if process.syncing || frozen {
            return;
        }
        if let Some((batch, applied)) = process.unsynced.take() {
            process.syncing = true;
            let when = self.now + self.random.within(1, sync_ms);
            self.agenda.at(when, Event::SyncEnds { node: n, boot, batch, applied });
        }
    }

    fn sync_ends(&mut self, n: usize, boot: u32, batch: u64, applied: u64) {
        if !self.nodes[n].runs(boot) {
            return;
        }
        self.nodes[n].disk.sync_to(applied);
        self.drop_replicas(n, applied);
        self.oracle.holdings[n].synced(applied);
        self.process(n).syncing = false;
        self.begin_sync(n);
        self.give(n, Input::Synced(batch));
    }

    fn effect(&mut self, n: usize, effect: Effect, shown: Option<Box<Shown>>) {
        match effect {
            Effect::Send { to, message } => {
                self.watch(n, &message);
                self.send(n, &to, message, shown);
            }
            Effect::Reply { id, response } => self.reply(n, id, response, shown),
            Effect::MapChanged(map) => self.map_changed(n, &map),
            Effect::Meet(node) => self.acquaint(n, self.node_index(&node)),
            Effect::ReplyChange { id, outcome } => self.reply_change(n, id, outcome),
            Effect::Warn(_) => self.oracle.coverage.hit("process: warned"),
            // In a simulation all nodes are of one build.
            Effect::Note(_) | Effect::TellClocks(_) => {}
            Effect::Fatal(_) if self.is_forgotten(n) || self.is_told_forgotten(n) => self.set_aside(n),
            Effect::Fatal(error) => self.fail(format!("node{} gives up: {error}", n + 1)),
        }
    }

    fn map_changed(&mut self, n: usize, map: &ClusterMap) {
        self.judge_map(n, map);
        map.nodes.keys().for_each(|node| self.acquaint(n, self.node_index(node)));
        if map.is_born() && self.codec.is_none() {
            self.oracle.coverage.hit("store: born");
            self.trace.say(self.now, || format!("the store is born at node{}", n + 1));
            self.codec = Some(ContextCodec::new(map.cluster_id, map.secret, map.partitions()));
        }
    }

    /// Looks at the map that a node acts under.
    fn judge_map(&mut self, n: usize, map: &ClusterMap) {
        if !map.is_born() {
            return;
        }
        let before = mem::replace(&mut self.nodes[n].epoch, map.epoch);
        self.judge(invariants::epochs::check(n, before, map));
        if !self.maps.contains_key(&map.epoch) {
            self.map_ms.insert(map.epoch, self.now);
            self.oracle.coverage.most("most maps", map.epoch.0);
            if met::moves(map) && self.random.percent(self.settings.strikes) {
                let when = self.now + self.random.within(1, 200);
                self.agenda.at(when, Event::Strike);
            }
            if let Some((_, was)) = self.maps.range(..map.epoch).next_back() {
                let steps = crate::steps::count(&mut self.oracle.coverage, was, map);
                let forgotten: Vec<_> = map.forgotten.difference(&was.forgotten).copied().collect();
                let targets = (was.target.is_some(), map.target.is_some());
                self.steps_meet(steps, &forgotten);
                self.targets_meet(targets);
            }
            let running = self.nodes.iter().filter(|node| node.process.is_some()).filter_map(|node| node.incarnation);
            self.judge(invariants::follows::check(&self.maps, n, map, &running.collect()));
        }
        let before = self.newest().map(|map| map.epoch);
        let verdict = invariants::birth::check(&mut self.maps, n, map);
        self.judge(verdict);
        if before.is_some_and(|before| before < map.epoch) {
            self.give_up_forgotten();
            self.begin_anew(map);
        }
    }

    /// The newest map that any node acted under.
    pub fn newest(&self) -> Option<&Arc<ClusterMap>> {
        self.maps.last_key_value().map(|(_, map)| map)
    }

    /// The index of a request's key.
    pub fn key_of(&self, request: &Request) -> Option<usize> {
        match request {
            Request::Get { key, .. } | Request::Put { key, .. } | Request::Delete { key, .. } => {
                self.oracle.key_index(key)
            }
            Request::KeyCount { .. } | Request::CountOf { .. } => None,
        }
    }
}
