//! A node whose lanes are never empty, and one whose syncer dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::*;
use crate::error::{Code, StoreError};
use crate::machine::Config;
use crate::machine::message::{Input, Request, Response};
use crate::machine::rules::Rules;
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Read, Store};
use crate::types::{Key, NodeAddr};

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
    };
    let disk = Disk { store: store.clone(), free_bytes: Box::new(|| None) };
    Node::start(Options { machine, grpc_port_offset: 1_000 }, disk).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_syncer_dies_ends() {
    let store = Arc::new(FailingSync::default());
    let node = start(&store);
    store.panics.store(true, Ordering::Release);
    timeout(SOON, node.ended()).await.expect("a node that can't sync must not go on");
    let stopped = tokio::task::spawn_blocking(|| node.stop()).await.unwrap();
    assert!(matches!(stopped, Err(NodeError::Panicked)), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_network_lane_starves_neither_clients_nor_looks() {
    let node = start(&Arc::new(FailingSync::default()));
    let handle = node.handle();
    let over = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let (handle, over) = (handle.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Acquire) && handle.deliver(Input::NotSent { id: 0 }).await {}
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..20 {
        let look = timeout(SOON, handle.inspect(|machine, _| machine.map().is_born())).await;
        assert_eq!(look.expect("a look is taken in time"), Some(false));
        let request = Request::Get { key: Key::new("a").unwrap(), context: Default::default() };
        let answer = timeout(SOON, handle.request(request, SOON)).await;
        assert_eq!(answer.expect("a client is heard in time"), Response::Error(Code::ShardUnavailable));
    }
    over.store(true, Ordering::Release);
    for flood in floods {
        flood.await.unwrap();
    }
    tokio::task::spawn_blocking(|| node.stop()).await.unwrap().unwrap();
}
