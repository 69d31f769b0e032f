//! One end of the transport without a machine: an inbox that tests read, behind the real gRPC services.

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use entail::api::grpc::{Node, serve};
use entail::cluster::layout::map_zero;
use entail::cluster::map::{ClusterMap, PeerState, Row, Stay};
use entail::machine::message::Input;
use entail::machine::sign::{FORMAT_VERSION, Ping, Served};
use entail::machine::{PartitionStatus, PeerStatus};
use entail::types::{ClusterId, ContextSecret, Epoch, Incarnation, NodeAddr, PartitionId, ShardId, StayId};
use entail::wire::{Inputs, Local, Peers, Tcp};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The secret that nothing may show.
pub const SECRET: [u8; 16] = *b"keep this secret";

/// What the answering side asks.
#[derive(Clone, Debug)]
pub struct Fake {
    inbox: mpsc::Sender<Input>,
    map: Arc<ClusterMap>,
    sign: Ping,
    streams: Arc<AtomicUsize>,
}

/// A node's two sides.
pub struct End {
    pub local: Arc<Local>,
    /// What arrived from others, and what its own outgoing side told.
    pub inbox: mpsc::Receiver<Input>,
    pub sign: Ping,
    inputs: mpsc::Sender<Input>,
    streams: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
}

impl End {
    /// An end of the store `cluster` on a port of its own, not yet serving. `room` bounds its inbox.
    pub fn new(cluster: u128, room: usize) -> Self {
        let address: NodeAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let incarnation = Incarnation(u128::from(address.port()));
        let local = Local::new(address.clone(), incarnation, ClusterId(cluster), 77, 0);
        let (inputs, inbox) = mpsc::channel(room);
        let sign = Ping {
            cluster_id: ClusterId(cluster),
            line: Default::default(),
            epoch: Epoch(9),
            settings_hash: 77,
            speaks: FORMAT_VERSION,
            tells_clocks: false,
            wall_ms: 5,
            asked_ms: 0,
            hears: vec![address],
            steps: 0,
            exposed: Arc::default(),
            served: Served::default(),
        };
        Self {
            local: Arc::new(local),
            inbox,
            sign,
            inputs,
            streams: Arc::default(),
            stop: watch::channel(false).0,
            server: None,
        }
    }

    /// As [`End::new`], and serving.
    pub async fn serving(cluster: u128, room: usize) -> Self {
        let mut end = Self::new(cluster, room);
        end.serve().await;
        end
    }

    pub fn address(&self) -> NodeAddr {
        self.local.address.clone()
    }

    pub fn uri(&self) -> String {
        format!("http://{}", self.local.address)
    }

    /// Serves on the end's port, again perhaps.
    pub async fn serve(&mut self) {
        self.serve_on(TcpListener::bind(self.local.address.as_str()).await.unwrap());
    }

    /// Serves on a listener that the end's port leads to.
    pub fn serve_on(&mut self, listener: TcpListener) {
        let node = Fake {
            inbox: self.inputs.clone(),
            map: Arc::new(map(&self.local)),
            sign: self.sign.clone(),
            streams: Arc::clone(&self.streams),
        };
        self.stop = watch::channel(false).0;
        let served = serve(listener, node, Arc::clone(&self.local), self.stop.subscribe());
        self.server = Some(tokio::spawn(async move { served.await.unwrap() }));
    }

    /// Stops serving, and waits for it.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        within(self.server.take().unwrap()).await.unwrap();
    }

    /// The outgoing side towards these; what it tells comes to the inbox.
    pub fn peers(&self, nodes: impl IntoIterator<Item = NodeAddr>) -> Peers {
        let inputs = Inputs { signs: self.inputs.clone(), network: self.inputs.clone() };
        Peers::start(Arc::clone(&self.local), Arc::new(Tcp), nodes, inputs, self.stop.subscribe())
    }

    /// How many streams from others have begun, as was told.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    pub async fn next(&mut self) -> Input {
        within(self.inbox.recv()).await.unwrap()
    }

    /// Waits for the connection to this peer, whatever was tried before.
    pub async fn connected(&mut self, peer: &NodeAddr) {
        loop {
            match self.next().await {
                Input::Connected { peer: to, incarnation } => {
                    assert_eq!((&to, incarnation), (peer, Incarnation(u128::from(peer.port()))));
                    return;
                }
                Input::Disconnected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Node for Fake {
    async fn deliver(&self, input: Input) -> bool {
        if matches!(input, Input::Accepted { .. }) {
            // Counted rather than queued: most tests are about what comes on a stream.
            self.streams.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.inbox.send(input).await.is_ok()
    }

    fn sign_of_life(&self) -> Ping {
        self.sign.clone()
    }

    fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map)
    }

    async fn partition_status(&self) -> Option<Vec<PartitionStatus>> {
        let status = |partition| PartitionStatus {
            partition: PartitionId(partition),
            version: Epoch(1),
            stay: StayId(2),
            state: PeerState::Serving,
            applied: [(StayId(2), 30)].into_iter().collect(),
            durable: [(StayId(2), 20)].into_iter().collect(),
            stable: [(StayId(2), 10)].into_iter().collect(),
            floor: Epoch(1),
            keys: 7,
            unapplied: 1,
            logged: 0,
            tombstones: 0,
        };
        Some((0..4).map(status).collect())
    }

    async fn peer_status(&self) -> Option<Vec<PeerStatus>> {
        let node = "127.0.0.1:1".parse().unwrap();
        let incarnation = Some(Incarnation(1));
        Some(vec![PeerStatus { node, incarnation, up: true, shard: Some(ShardId(1)), lag: 3 }])
    }
}

/// A map of one shard and four partitions.
fn map(local: &Local) -> ClusterMap {
    let stay = Stay::new(local.incarnation, PeerState::Serving);
    let row = Row { version: Epoch(1), next_stay: StayId(3), peers: [(StayId(2), stay)].into(), skipped: Vec::new() };
    ClusterMap {
        line: Default::default(),
        out: Default::default(),
        former: Default::default(),
        forgotten: Default::default(),
        target: None,
        cluster_id: local.cluster_id(),
        epoch: Epoch(1),
        parent_hash: 0xabc,
        secret: ContextSecret(SECRET),
        nodes: [(local.address.clone(), Some(local.incarnation))].into(),
        rows: vec![row; 4],
        voters: vec![local.incarnation],
        ..map_zero(std::slice::from_ref(&local.address), 1, 4)
    }
}

/// A port below those that the system gives to outgoing connections: a dial to a closed port among them may meet
/// itself.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 10_000) as u16;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        if StdListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// What takes this long has failed.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(15), future).await.expect("it takes too long")
}
