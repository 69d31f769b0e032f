//! Scenarios that read as a trace: a few steps each, on the same world as the random runs, with the same oracle.
//!
//! `sessions` has those that show the contract's answers. The others are each the history that one clause of the
//! protocol is for: `switches` runs them with the clause off, and they fail; and with all on, and they hold. A script
//! fails by a panic, with the oracle's first violation or the answer that it did not expect.

use std::env;
use std::fmt::Write;
use std::mem;
use std::sync::Arc;

use entail::cluster::map::{ClusterMap, PeerState, Row};
use entail::machine::message::{Message, Wanted};
use entail::machine::records;
use entail::store::Read;
use entail::types::{Epoch, NodeAddr, PartitionId, ShardId};

use crate::clauses::Clauses;
use crate::disk::Disk;
use crate::event::Event;
use crate::holdings::Holdings;
use crate::invariants::{convergence, settles};
use crate::network::Hold;
use crate::oracle::Kind;
use crate::profile::{Faults, Settings};
use crate::random::Random;
use crate::run::REST_MS;
use crate::trace::Trace;
use crate::workload::Said;
use crate::world::World;

pub mod births;
pub mod clients;
pub mod closing;
pub mod epochs;
pub mod maps;
pub mod members;
pub mod replicas;
pub mod serving;
mod sessions;
pub mod states;

/// How long a request may take in a script.
const BUDGET_MS: u64 = 2_000;

/// How long what is waited for may take.
const PATIENCE_MS: u64 = 30_000;

/// A disk that is put aside, with what the oracle knows of it.
pub struct Drawer {
    disk: Disk,
    holdings: Holdings,
    epoch: Epoch,
}

/// A world that does only what it is told, and what came of it.
pub struct Script {
    pub world: World,
    log: String,
}

/// A world without faults of its own, at its beginning.
fn world(nodes: usize, shards: u32, clauses: Clauses, change: impl FnOnce(&mut Settings)) -> World {
    let mut settings = Settings {
        careless: false,
        strikes: 0,
        fill_bytes: 64 << 20,
        listen_ms: 0,
        rest_ms: 0,
        late_nodes: 0,
        changes: 0,
        change_gap_ms: 0,
        tick_ms: 22,
        nodes,
        shards,
        partitions: 4,
        keys: 12,
        hot: 0,
        clients: 4,
        requests: u64::MAX,
        think_ms: 1,
        deletes: 0,
        reads: 0,
        sleep_ms: 1,
        loss: 0,
        twice: 0,
        late: 0,
        fault_gap_ms: 1,
        faults: Faults::default(),
        cut_ms: 1,
        full_ms: 1,
        down_ms: 1,
        sync_ms: 2,
        write_copies: 2,
        max_unapplied_bytes: 1 << 20,
        max_waiting: 1000,
        value_bytes: 0,
        slow_operations: false,
        dead: false,
        start_ms: 10,
        skew_ms: 0,
    };
    change(&mut settings);
    let trace = Trace::new(env::var("ENTAIL_SIM_TRACE").is_ok(), false);
    let mut world = World::of(settings, Random::new(1), clauses, trace);
    world.quiet = true;
    world
}

/// One partition a shard, a map that changes, and as many nodes that start later and are in no shard.
fn moving(late: usize) -> impl FnOnce(&mut Settings) {
    move |settings| (settings.partitions, settings.changes, settings.late_nodes) = (settings.shards, 1, late)
}

impl Script {
    /// A store that was just born.
    pub fn new(nodes: usize, shards: u32, clauses: Clauses) -> Self {
        Self::with(nodes, shards, clauses, |_| ())
    }

    /// A store with some setting changed that was just born.
    pub fn with(nodes: usize, shards: u32, clauses: Clauses, change: impl FnOnce(&mut Settings)) -> Self {
        let mut script = Self { world: world(nodes, shards, clauses, change), log: String::new() };
        for late in nodes..script.world.nodes.len() {
            script.start(late);
        }
        script.rests();
        script
    }

    /// The `nth` key of a shard, from 0.
    pub fn key(&self, shard: u32, nth: usize) -> usize {
        let layout = &self.world.machine(0).map().layout;
        let oracle = &self.world.oracle;
        let of = |key: &usize| layout.partitions[oracle.partition(*key).0 as usize].0 == shard;
        (0..oracle.keys.len()).filter(of).nth(nth).expect("there are twelve keys")
    }

    /// The members of a shard.
    pub fn members(&self, shard: u32) -> Vec<usize> {
        let map = self.world.machine(0).map().clone();
        let of = |n: &usize| map.shard_of(&self.world.nodes[*n].addr).is_some_and(|s| s.0 == shard);
        (0..self.world.nodes.len()).filter(of).collect()
    }

    // ---- Clients.

    /// A client asks and waits for the answer.
    pub fn ask(&mut self, client: usize, kind: Kind, key: usize, node: usize) -> Said {
        let begun = self.world.now;
        self.begin(client, kind, key, node, BUDGET_MS);
        let said = self.answer(client);
        let name = ["A", "B", "C", "D"][client];
        let late = if self.world.now - begun > 500 { ", after a wait" } else { "" };
        writeln!(self.log, "{name} {kind:?}s at node{}: {said:?}{late}", node + 1).expect("text takes all");
        said
    }

    /// A client asks, and has this long.
    pub fn begin(&mut self, client: usize, kind: Kind, key: usize, node: usize, budget_ms: u64) {
        self.world.clients[client].said = None;
        self.world.ask(client, node, Some(kind), key, budget_ms);
    }

    /// Waits for the answer to what a client asked.
    pub fn answer(&mut self, client: usize) -> Said {
        self.until("an answer", |world| world.clients[client].waits.is_none());
        self.world.clients[client].said.expect("every request is answered")
    }

    /// Client B takes over what client A was given, and the like.
    pub fn hand_on(&mut self, from: usize, to: usize) {
        self.world.clients[to].session = self.world.clients[from].session.clone();
    }

    /// Whatever is lost here had to be on more disks than those that are lost, whatever clients were told of copies.
    pub fn excuses_nothing(&self) {
        self.world.record(|recorder| recorder.strict = true);
    }

    // ---- Operators.

    /// Asks a node for a change of the map.
    pub fn begin_change(&mut self, n: usize, wanted: Wanted) -> u64 {
        self.world.ask_change(n, wanted, PATIENCE_MS / 2)
    }

    /// Asks a node for a change of the map and waits until it is done.
    pub fn change(&mut self, n: usize, wanted: Wanted) {
        let id = self.begin_change(n, wanted);
        self.done(id);
    }

    /// Waits until a change of the map is done.
    pub fn done(&mut self, id: u64) {
        self.until("a change", |world| world.changed.contains_key(&id));
        assert!(self.world.changed[&id].is_ok(), "{:?}", self.world.changed[&id]);
    }

    /// Puts a node into a shard.
    pub fn add_member(&mut self, by: usize, shard: u32, n: usize) {
        let node = self.addr(n);
        self.change(by, Wanted::AddMember { shard: ShardId(shard), node });
        self.until_it_serves(n);
    }

    /// Waits until a node knows that it serves the first partition.
    pub fn until_it_serves(&mut self, n: usize) {
        self.until("it serves", |world| state_at(world, n, n, 0) == Some(PeerState::Serving));
    }

    /// Nothing passes between a node and the others any more; they give it up, and what it held is closed.
    pub fn give_up(&mut self, by: usize, n: usize) {
        self.cut_off(&[n]);
        self.wait(4_000);
        let node = self.addr(n);
        self.change(by, Wanted::Forget { node, confirmed: true });
        let given_up = self.world.nodes[n].incarnation;
        let listed = move |row: &Row| row.peers.values().any(|peer| Some(peer.incarnation) == given_up);
        self.until("its stays are closed", |world| !world.machine(by).map().rows.iter().any(listed));
    }

    /// The address of a node.
    pub fn addr(&self, n: usize) -> NodeAddr {
        self.world.nodes[n].addr.clone()
    }

    /// The map under which a node acts.
    pub fn map(&self, n: usize) -> Arc<ClusterMap> {
        self.world.machine(n).map().clone()
    }

    // ---- The network.

    /// Nothing passes between these nodes and the others.
    pub fn cut_off(&mut self, nodes: &[usize]) {
        let n = self.world.nodes.len();
        let inside = |x: usize| nodes.contains(&x);
        let cut = (0..n).map(|x| (0..n).map(|y| inside(x) != inside(y)).collect()).collect();
        self.world.network.cuts += 1;
        self.world.cut(cut);
    }

    /// Nothing passes between these nodes and those.
    pub fn cut_between(&mut self, these: &[usize], those: &[usize]) {
        let n = self.world.nodes.len();
        let apart = |x: usize, y: usize| these.contains(&x) && those.contains(&y);
        let cut = (0..n).map(|x| (0..n).map(|y| apart(x, y) || apart(y, x)).collect()).collect();
        self.world.network.cuts += 1;
        self.world.cut(cut);
    }

    pub fn heal(&mut self) {
        let cut = self.world.network.cuts;
        self.world.heal_cut(cut);
    }

    /// Holds back messages of some kind; `None` is any node.
    pub fn hold(&mut self, from: Option<usize>, to: Option<usize>, what: fn(&Message) -> bool) {
        self.world.network.holds.push(Hold { from, to, what });
    }

    /// Holds back nothing from now on, and lets go on its way what was, or drops it.
    pub fn let_go(&mut self, deliver: bool) {
        self.world.network.holds.clear();
        self.world.let_go(deliver);
    }

    // ---- Nodes and their disks.

    /// A process dies and keeps nothing that was not synced.
    pub fn kill(&mut self, n: usize) {
        self.world.crash(n, Some(0));
    }

    pub fn start(&mut self, n: usize) {
        let boot = self.world.nodes[n].boot;
        self.world.agenda.at(self.world.now, Event::Start { node: n, boot });
    }

    /// A frozen process dies and starts again.
    pub fn forgets(&mut self, n: usize) {
        self.kill(n);
        self.world.nodes[n].frozen = false;
        self.start(n);
    }

    /// A process dies, and its disk is lost: the next start finds an empty one.
    pub fn take_disk(&mut self, n: usize) {
        self.kill(n);
        self.world.lose_copies(n, None, "a lost disk");
        self.swap_disk(n, None);
    }

    /// A process dies; at the next start it finds another directory, or an empty one.
    pub fn swap_disk(&mut self, n: usize, other: Option<Drawer>) -> Drawer {
        self.world.crash(n, Some(0));
        let partitions = self.world.settings.partitions;
        let empty = || Drawer { disk: Disk::default(), holdings: Holdings::new(partitions), epoch: Epoch(0) };
        let other = other.unwrap_or_else(empty);
        let node = &mut self.world.nodes[n];
        node.incarnation = None;
        Drawer {
            disk: mem::replace(&mut node.disk, other.disk),
            holdings: mem::replace(&mut self.world.oracle.holdings[n], other.holdings),
            epoch: mem::replace(&mut node.epoch, other.epoch),
        }
    }

    /// What a node applies from now on is not synced.
    pub fn freeze(&mut self, n: usize) {
        self.world.nodes[n].frozen = true;
    }

    pub fn thaw(&mut self, n: usize) {
        self.world.nodes[n].frozen = false;
        self.world.begin_sync(n);
    }

    /// Of what a frozen node has applied, that up to now becomes durable, once the returned is handed to `sync_to`.
    pub fn mark(&self, n: usize) -> (u64, u64) {
        self.world.nodes[n].process.as_ref().and_then(|process| process.unsynced).expect("something is not synced")
    }

    pub fn sync_to(&mut self, n: usize, (batch, applied): (u64, u64)) {
        let boot = self.world.nodes[n].boot;
        self.world.agenda.at(self.world.now, Event::SyncEnds { node: n, boot, batch, applied });
    }

    // ---- Time.

    pub fn wait(&mut self, ms: u64) {
        self.world.run_for(ms);
        self.holds();
    }

    /// Waits until something is so.
    pub fn until(&mut self, what: &str, so: impl Fn(&World) -> bool) {
        let end = self.world.now + PATIENCE_MS;
        let so = self.world.run_until(end, so);
        self.holds();
        assert!(so, "waited in vain for {what}: {}", self.log);
    }

    /// Waits until these nodes have collected all their tombstones.
    pub fn until_collected(&mut self, nodes: &[usize]) {
        let none = |world: &World, n: usize| world.machine(n).partition_status().iter().all(|s| s.tombstones == 0);
        self.until("tombstones are collected", |world| nodes.iter().all(|n| none(world, *n)));
    }

    /// Everything settles and all replicas agree. What they hold is the end of what is recorded, unless somebody writes
    /// after it.
    pub fn rests(&mut self) {
        let end = self.world.now + REST_MS;
        let mut settled = Err(String::new());
        while settled.is_err() && self.world.now < end {
            self.wait(20);
            settled = settles::settled(&self.world);
        }
        self.world.record_finals();
        settled.unwrap_or_else(|why| panic!("SETTLES: not at rest: {why}"));
        assert_eq!(convergence::check(&self.world), Ok(()));
    }

    fn holds(&self) {
        assert_eq!(self.world.violation, None, "{}", self.log);
    }
}

/// The state of a node's peer in a partition, under the map of another.
fn state_at(world: &World, by: usize, n: usize, partition: u32) -> Option<PeerState> {
    let mine = world.nodes[n].incarnation;
    let map = world.machine(by).map();
    let mut peers = map.row(PartitionId(partition)).peers.values();
    peers.find(|peer| Some(peer.incarnation) == mine).map(|peer| peer.state)
}

/// Whether a node is bound to its address as who it is now, under the map of another.
fn is_bound(world: &World, by: usize, n: usize) -> bool {
    let node = &world.nodes[n];
    node.incarnation.is_some() && world.machine(by).map().nodes.get(&node.addr) == Some(&node.incarnation)
}

/// The epoch of the newest map that a node has stored, in force or not.
fn stored_epoch(world: &World, n: usize) -> Epoch {
    let stored = world.nodes[n].disk.get(&records::meta_key("map")).expect("memory does not fail");
    let map = stored.map(|bytes| records::decode::<ClusterMap>("map", &bytes).expect("it decodes"));
    map.map_or(Epoch(0), |map| map.epoch)
}

fn is_operations(message: &Message) -> bool {
    matches!(message, Message::Operations { .. })
}

fn is_report(message: &Message) -> bool {
    matches!(message, Message::Report(_))
}

fn is_fill(message: &Message) -> bool {
    matches!(message, Message::FillRequest { .. } | Message::FillChunk(_))
}

fn is_chunk(message: &Message) -> bool {
    matches!(message, Message::FillChunk(_))
}

fn is_words(message: &Message) -> bool {
    matches!(message, Message::Words(_))
}

fn is_map(message: &Message) -> bool {
    matches!(message, Message::MapPush(_) | Message::MapDeltas(_))
}

fn is_paxos(message: &Message) -> bool {
    matches!(message, Message::Paxos(_))
}
