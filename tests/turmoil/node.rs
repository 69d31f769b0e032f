//! A real node on a simulated host: its servers, its loop and its dialling side, as `entail serve` puts them together,
//! over turmoil's network, on a disk in memory.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use entail::api::rest;
use entail::cluster::reconcile::rules::ReconcileRules;
use entail::machine::Config;
use entail::machine::rules::Rules;
use entail::net::Listener;
use entail::node::{Clock, Disk, Driver, Node, Options, Surroundings, Syncing};
use entail::server::http::Limits;
use entail::server::serve_node;
use entail::server::stop::stop_pair;
use entail::store::memory::MemoryStore;
use entail::types::NodeAddr;
use entail::wire::Dialler;
use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint, Error};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

use crate::plan::Plan;
use crate::random::Random;
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
    trace: Trace,
    disk: Mutex<Kept>,
}

/// A disk, and what chance is left for what happens on this host.
#[derive(Debug)]
struct Kept {
    store: Arc<MemoryStore>,
    random: Random,
}

impl Host {
    /// A host of this plan, with an empty disk.
    pub fn new(plan: &Plan, node: usize, rules: Rules, trace: &Trace) -> Self {
        let address = |node| format!("{}:{PORT}", name(node)).parse().expect("an address");
        let random = Random::new(plan.seed.wrapping_mul(1_000).wrapping_add(node as u64));
        Self {
            address: address(node),
            view: (0..plan.nodes).map(address).collect(),
            shards: plan.shards,
            partitions: plan.partitions,
            rules,
            ahead_ms: plan.ahead_ms[node],
            trace: trace.clone(),
            disk: Mutex::new(Kept { store: Arc::default(), random }),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Kept> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (store, seed, random) = {
            let mut disk = self.disk();
            (Arc::clone(&disk.store), disk.random.seed(), Random::new(disk.random.next()))
        };
        let rest = Bound(TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?);
        let grpc = Bound(TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT + OFFSET)).await?);
        let options = Options { machine: self.config(seed), grpc_port_offset: OFFSET };
        let surroundings = Surroundings {
            clock: Arc::new(Clocks { ahead_ms: self.ahead_ms, turns: AtomicU64::new(0) }),
            dialler: Arc::new(Wires(self.trace.clone())),
            driver: Driver::Tasks(syncs(Arc::clone(&store), random)),
        };
        let node = Node::start(options, Disk { store, free_bytes: Box::new(|| None) }, surroundings)?;
        let requests = rest::Limits { deadline: DEADLINE, ..rest::Limits::default() };
        let connections = Limits { connections: 1_024, patience: Duration::from_secs(20), drain: DEADLINE };
        // Nobody asks it to stop.
        let (_trigger, stop) = stop_pair();
        serve_node(node, rest, grpc, requests, connections, stop).await?;
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
        }
    }
}

/// Syncs take a few milliseconds, now and then many.
fn syncs(store: Arc<MemoryStore>, random: Random) -> Arc<dyn Fn() -> Syncing + Send + Sync> {
    let random = Mutex::new(random);
    Arc::new(move || {
        let store = Arc::clone(&store);
        let (covered, mut random) = (store.applied(), random.lock().unwrap_or_else(PoisonError::into_inner));
        let most = if random.percent(2) { 80 } else { 4 };
        let takes = Duration::from_millis(random.within(0, most));
        Box::pin(async move {
            sleep(takes).await;
            store.sync_to(covered);
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

/// A bound port of a host.
struct Bound(TcpListener);

impl Listener for Bound {
    type Connection = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }
}

/// The way from one node to another.
#[derive(Clone, Debug)]
struct Wires(Trace);

impl Wires {
    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Wire>> {
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or_default());
        let stream = TcpStream::connect((host, port)).await?;
        Ok(TokioIo::new(Wire { stream, trace: self.0 }))
    }
}

impl Dialler for Wires {
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<'static, Result<Channel, Error>> {
        let wires = self.clone();
        Box::pin(async move { endpoint.connect_with_connector(service_fn(move |uri| wires.clone().connect(uri))).await })
    }

    fn dial_lazily(&self, endpoint: Endpoint) -> Channel {
        let wires = self.clone();
        endpoint.connect_with_connector_lazy(service_fn(move |uri| wires.clone().connect(uri)))
    }
}

/// A connection that was dialled; what is sent on it is noted.
struct Wire {
    stream: TcpStream,
    trace: Trace,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.trace.sent(&bytes[..count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
