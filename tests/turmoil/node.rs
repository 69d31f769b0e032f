//! A real node on a simulated host: its servers, its loop and its dialling side, as `entail serve` puts them together,
//! over turmoil's network, on a disk in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use entail::api::rest;
use entail::cluster::reconcile::rules::ReconcileRules;
use entail::machine::Config;
use entail::machine::rules::Rules;
use entail::node::{Clock, Disk, Driver, Node, Options, Surroundings, Syncing};
use entail::server::http::Limits;
use entail::server::serve_node;
use entail::server::stop::stop_pair;
use entail::store::memory::MemoryStore;
use entail::types::NodeAddr;
use tokio::runtime::Handle;
use tokio::time::sleep;
use turmoil::net::TcpListener;

use crate::plan::Plan;
use crate::random::Random;
use crate::run::Twist;
use crate::sockets::Sockets;
use crate::trace::Trace;

/// The REST port of every node; gRPC's is `OFFSET` above it.
const PORT: u16 = 8080;
const OFFSET: u16 = 1_000;

/// How long a node waits for what a request needs.
const DEADLINE: Duration = Duration::from_secs(2);

/// What a turn of the loop is said to cost: the rests that follow are nineteen times as long.
const COST: Duration = Duration::from_micros(300);

/// The name of a host.
pub fn name(node: usize) -> String {
    format!("node{}", node + 1)
}

/// A host with a node on it, whose disk outlives the process.
#[derive(Debug)]
pub struct Host {
    address: NodeAddr,
    view: Vec<NodeAddr>,
    shards: u32,
    partitions: u32,
    rules: Rules,
    ahead_ms: u64,
    /// The disk says that it has synced, and has not.
    lies: bool,
    trace: Trace,
    disk: Mutex<Kept>,
}

/// A disk, and what chance is left for what happens on this host.
#[derive(Debug)]
struct Kept {
    store: Arc<MemoryStore>,
    /// The connections of the process.
    sockets: Sockets,
    random: Random,
}

impl Host {
    /// A host of this plan, with an empty disk.
    pub fn new(plan: &Plan, node: usize, twist: Twist, trace: &Trace) -> Self {
        let address = |node| format!("{}:{PORT}", name(node)).parse().expect("an address");
        let random = Random::new(plan.seed.wrapping_mul(1_000).wrapping_add(node as u64));
        Self {
            address: address(node),
            view: (0..plan.nodes).map(address).collect(),
            shards: plan.shards,
            partitions: plan.partitions,
            rules: twist.rules,
            ahead_ms: plan.ahead_ms[node],
            lies: twist.lying_disks,
            trace: trace.clone(),
            disk: Mutex::new(Kept { store: Arc::default(), sockets: Sockets::new(trace.clone()), random }),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Kept> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many batches are not synced.
    pub fn unsynced(&self) -> usize {
        self.disk().store.unsynced_len()
    }

    /// The process is about to be killed.
    pub fn dies(&self) {
        self.disk().sockets.die();
    }

    /// What a crash leaves on the disk; how many batches are lost with it. The process must have ended.
    pub fn crash(&self, keep_percent: u64) -> usize {
        let mut disk = self.disk();
        let unsynced = disk.store.unsynced_len();
        let keep = unsynced * keep_percent as usize / 100;
        disk.store = Arc::new(disk.store.crash(keep));
        unsynced - keep
    }

    /// The process: serves until the host crashes.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        let sockets = Sockets::new(self.trace.clone());
        let (store, seed, random) = {
            let mut disk = self.disk();
            disk.sockets = sockets.clone();
            (Arc::clone(&disk.store), disk.random.seed(), Random::new(disk.random.next()))
        };
        let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let rest = sockets.bound(TcpListener::bind((anywhere, PORT)).await?);
        let grpc = sockets.bound(TcpListener::bind((anywhere, PORT + OFFSET)).await?);
        let options = Options { machine: self.config(seed), grpc_port_offset: OFFSET };
        let surroundings = Surroundings {
            clock: Arc::new(Clocks { ahead_ms: self.ahead_ms, turns: AtomicU64::new(0) }),
            dialler: Arc::new(sockets),
            driver: Driver::Tasks(syncs(Arc::clone(&store), self.lies, random)),
        };
        let node = Node::start(options, Disk { store, free_bytes: Box::new(|| None) }, surroundings)?;
        let requests = rest::Limits { deadline: DEADLINE, ..rest::Limits::default() };
        let connections = Limits { connections: 1_024, patience: Duration::from_secs(20), drain: DEADLINE };
        // Nobody asks it to stop.
        let (_trigger, stop) = stop_pair();
        serve_node(node, rest, grpc, requests, connections, stop, &Handle::current()).await?;
        Err("a node ended by itself".into())
    }

    fn config(&self, seed: [u8; 32]) -> Config {
        Config {
            address: self.address.clone(),
            view: self.view.clone(),
            shard_count: Some(self.shards),
            partitions: self.partitions,
            write_copies: 2,
            max_waiting: 1_000,
            max_unapplied_bytes: 1 << 20,
            seed,
            rules: self.rules,
            reconcile_rules: ReconcileRules::all(),
            fill_bytes_a_second: 64 << 20,
            listen_ms: 0,
        }
    }
}

/// Syncs take a few milliseconds, now and then many; those of every third process always.
fn syncs(store: Arc<MemoryStore>, lies: bool, mut random: Random) -> Arc<dyn Fn() -> Syncing + Send + Sync> {
    let usual = random.pick(&[3, 5, 60]);
    let random = Mutex::new(random);
    Arc::new(move || {
        let store = Arc::clone(&store);
        let (covered, mut random) = (store.applied(), random.lock().unwrap_or_else(PoisonError::into_inner));
        let most = if random.percent(2) { 150 } else { usual };
        let takes = Duration::from_millis(random.within(0, most));
        Box::pin(async move {
            sleep(takes).await;
            if !lies {
                store.sync_to(covered);
            }
            Ok(())
        })
    })
}

/// A host's clocks: the wall's is the simulation's, and ahead of it; every turn costs the same.
#[derive(Debug)]
struct Clocks {
    ahead_ms: u64,
    turns: AtomicU64,
}

impl Clock for Clocks {
    fn wall_ms(&self) -> u64 {
        turmoil::since_epoch().unwrap_or_default().as_millis() as u64 + self.ahead_ms
    }

    fn on_core(&self) -> Duration {
        COST * self.turns.fetch_add(1, Ordering::Relaxed) as u32
    }
}
