//! A node whose lanes are never empty, one with more requests than it has room for, and one whose syncer dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::timeout;

use super::handle::Published;
use super::*;
use crate::causal::context::Context;
use crate::cluster::layout;
use crate::cluster::map::ClusterMap;
use crate::cluster::reconcile::rules::ReconcileRules;
use crate::error::{Code, StoreError};
use crate::machine::message::{Input, Message, Request, Response};
use crate::machine::rules::Rules;
use crate::machine::{Config, Machine};
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Read, Store};
use crate::types::{ClusterId, Epoch, Incarnation, Key, NodeAddr, ShardId};

/// Long enough for a busy machine, and far below what a lane that starves would take.
const SOON: Duration = Duration::from_secs(5);

#[derive(Default)]
struct FailingSync {
    memory: MemoryStore,
    panics: AtomicBool,
}

impl Read for FailingSync {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.memory.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.memory.scan(from, until, limit)
    }
}

impl Store for FailingSync {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.memory.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        assert!(!self.panics.load(Ordering::Acquire), "a bug in the store");
        self.memory.sync()
    }

    fn view(&self) -> Arc<dyn Read> {
        self.memory.view()
    }
}

fn start(store: &Arc<FailingSync>) -> Node {
    // Nobody listens at the other address: the store is never born.
    let view = ["127.0.0.1:1", "127.0.0.1:2"].map(|node| node.parse::<NodeAddr>().unwrap());
    let machine = Config {
        address: view[0].clone(),
        view: view.to_vec(),
        shard_count: Some(1),
        partitions: 8,
        write_copies: 2,
        max_waiting: 100,
        max_unapplied_bytes: 1 << 20,
        seed: [1; 32],
        rules: Rules::all(),
        reconcile_rules: ReconcileRules::all(),
        fill_bytes_a_second: 64 << 20,
        listen_ms: 0,
    };
    let disk = Disk { store: store.clone(), free_bytes: Box::new(|| None) };
    Node::start(Options { machine, grpc_port_offset: 1_000 }, disk, Surroundings::system()).unwrap()
}

/// A loop that stands still in a look.
struct Held {
    go: std::sync::mpsc::Sender<()>,
    look: tokio::task::JoinHandle<Option<bool>>,
}

impl Held {
    async fn hold(handle: &Handle) -> Self {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (stands, standing) = tokio::sync::oneshot::channel();
        let holder = handle.clone();
        let hold = move |_: &Machine, _| stands.send(()).is_ok() && wait.recv().is_ok();
        let look = tokio::spawn(async move { holder.inspect(hold).await });
        standing.await.unwrap();
        Self { go, look }
    }

    async fn let_go(self) {
        self.go.send(()).unwrap();
        assert_eq!(self.look.await.unwrap(), Some(true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_syncer_dies_ends() {
    let store = Arc::new(FailingSync::default());
    let node = start(&store);
    store.panics.store(true, Ordering::Release);
    timeout(SOON, node.ended()).await.expect("a node that can't sync must not go on");
    let stopped = node.stop().await;
    assert!(matches!(stopped, Err(NodeError::Panicked)), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_network_lane_starves_neither_clients_nor_looks() {
    let node = start(&Arc::new(FailingSync::default()));
    let handle = node.handle();
    let held = Held::hold(&handle).await;
    while handle.inputs.network.try_send(Input::NotSent { id: 0 }).is_ok() {}
    let asker = handle.clone();
    let request = Request::Get { key: Key::new("a").unwrap(), context: Default::default() };
    let answer = tokio::spawn(async move { asker.request(request, SOON).await });
    while handle.clients.capacity() == handle.clients.max_capacity() {
        tokio::task::yield_now().await;
    }
    let (network, clients) = (handle.inputs.network.clone(), handle.clients.clone());
    let lanes = move || (network.max_capacity() - network.capacity(), clients.max_capacity() - clients.capacity());
    let looker = handle.clone();
    let look = tokio::spawn(async move { looker.inspect(move |_, _| lanes()).await });
    while handle.looks.capacity() == handle.looks.max_capacity() {
        tokio::task::yield_now().await;
    }
    held.let_go().await;
    let (inputs, asked) = look.await.unwrap().unwrap();
    assert!(inputs > 0, "a look waits for the network lane to be empty");
    assert_eq!(asked, 0, "a client waits for the network lane to be empty");
    assert_eq!(answer.await.unwrap(), Response::Error(Code::ShardUnavailable));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_of_life_does_not_wait_behind_what_else_the_network_brought() {
    let node = start(&Arc::new(FailingSync::default()));
    let handle = node.handle();
    let held = Held::hold(&handle).await;
    while handle.inputs.network.try_send(Input::NotSent { id: 0 }).is_ok() {}
    // Somebody new: what the node finds out about those of its view waits in the lane, too.
    let peer: NodeAddr = "127.0.0.1:3".parse().unwrap();
    let sign = Input::Message {
        from: peer.clone(),
        incarnation: Incarnation(2),
        message: Message::Ping(handle.sign_of_life().into()),
    };
    assert!(timeout(SOON, handle.deliver(sign)).await.expect("there is room for a sign of life"));
    let network = handle.inputs.network.clone();
    let looker = handle.clone();
    let look = move |machine: &Machine, now| (machine.sign_of_life(now).hears, network.capacity());
    let look = tokio::spawn(async move { looker.inspect(look).await });
    while handle.looks.capacity() == handle.looks.max_capacity() {
        tokio::task::yield_now().await;
    }
    held.let_go().await;
    let (hears, room) = look.await.unwrap().unwrap();
    assert!(hears.contains(&peer), "it is not heard: {hears:?}");
    assert!(room < handle.inputs.network.max_capacity(), "the lane was empty by then, which shows nothing");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_there_is_room_for_are_refused_at_once() {
    let node = start(&Arc::new(FailingSync::default()));
    let handle = node.handle();
    let held = Held::hold(&handle).await;
    let (key, context) = (Key::new("a").unwrap(), Context::default());
    let put = Request::Put { key: key.clone(), value: Bytes::from_static(b"1"), context: context.clone() };
    let (mut waiting, mut refused) = (Vec::new(), 0);
    // Begun one right after the other: what has waited for a second makes room.
    for _ in 0..8_000 {
        let mut answer = Box::pin(handle.request(put.clone(), SOON));
        match answer.as_mut().now_or_never() {
            None => waiting.push(answer),
            Some(told) => {
                assert_eq!(told, Response::Error(Code::TooManyRequests));
                refused += 1;
            }
        }
    }
    assert!(!waiting.is_empty() && refused > 0, "{} were let in, {refused} refused", waiting.len());
    // Neither reads nor counts of keys wait for room among the writes.
    for other in [Request::Get { key, context }, Request::KeyCount { shard: ShardId(1) }] {
        let mut answer = Box::pin(handle.request(other, SOON));
        assert_eq!(answer.as_mut().now_or_never(), None);
        waiting.push(answer);
    }
    held.let_go().await;
    for answer in waiting {
        assert_eq!(answer.await, Response::Error(Code::ShardUnavailable), "the store is not born");
    }
    node.stop().await.unwrap();
}

/// A client of a node that has just started is as well off as one that comes when all is known.
#[tokio::test(start_paused = true)]
async fn contexts_are_waited_for_where_there_is_a_store() {
    let view = ["127.0.0.1:1", "127.0.0.1:2"].map(|node| node.parse::<NodeAddr>().unwrap());
    let unborn = Arc::new(layout::map_zero(&view, 1, 8));
    let born = Arc::new(ClusterMap { epoch: Epoch(1), cluster_id: ClusterId(7), ..(*unborn).clone() });
    let (now, published) = watch::channel(Published::of(&unborn, None));
    let begun = tokio::time::Instant::now();
    assert!(Published::codec(&published, SOON).await.is_none());
    assert_eq!(begun.elapsed(), Duration::ZERO, "before the birth nothing is waited for");
    now.send_replace(Published::of(&born, None));
    assert!(Published::codec(&published, SOON).await.is_none());
    assert_eq!(begun.elapsed(), SOON);
    let known = async {
        tokio::time::sleep(SOON / 2).await;
        now.send_replace(Published::of(&born, Some(true)));
    };
    let (codec, ()) = tokio::join!(Published::codec(&published, SOON), known);
    assert!(codec.is_some());
    assert_eq!(begun.elapsed(), SOON + SOON / 2);
    assert!(Published::codec(&published, Duration::ZERO).await.is_some());
}
