//! The contract, row by row, against a fake node.

mod around;
mod changes;
mod hostile;
mod keys;
mod properties;
mod socket;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tower::ServiceExt;

use super::{Backend, Limits, router};
use crate::causal::codec::ContextCodec;
use crate::causal::context::Context;
use crate::cluster::layout::map_zero;
use crate::cluster::map::{ClusterMap, Layout};
use crate::machine::agreement::NotChanged;
use crate::machine::message::{Request, Response, Wanted};
use crate::machine::{ClusterStatus, ReshardStatus};
use crate::types::{ClusterId, ContextSecret, Epoch, Key, NodeAddr, PartitionId, ShardId, StayId, Timestamp};

const PARTITIONS: u32 = 4;

/// A node that keeps one map of keys, or says what it is told to say.
struct Fake {
    codec: Option<Arc<ContextCodec>>,
    /// The one that there is when an answer comes, if it is another.
    codec_by_then: Option<Arc<ContextCodec>>,
    map: ClusterMap,
    view: Option<Vec<NodeAddr>>,
    ready: Result<(), String>,
    address: NodeAddr,
    limits: Limits,
    /// What the node answers to the next requests, whatever they are; `None` panics.
    scripted: Mutex<Vec<Option<Response>>>,
    asked: Mutex<Vec<(Request, Duration)>>,
    keys: Mutex<BTreeMap<Key, Bytes>>,
    /// What the node answers to every change.
    outcome: Mutex<Result<u64, NotChanged>>,
    wanted: Mutex<Vec<(Wanted, Duration)>>,
    /// The next change waits for this; when nobody is to send it, it panics.
    held: Mutex<Option<oneshot::Receiver<()>>>,
    /// A change has come to its end.
    finished: Mutex<bool>,
    reshard: Option<ReshardStatus>,
    status: Option<ClusterStatus>,
}

fn addr(text: &str) -> NodeAddr {
    text.parse().unwrap()
}

fn codec_of(store: u128) -> Arc<ContextCodec> {
    Arc::new(ContextCodec::new(ClusterId(store), ContextSecret([store as u8; 16]), PARTITIONS))
}

fn context(seq: u64) -> Context {
    let mut context = Context::empty();
    context.raise(PartitionId(1), StayId(2), seq);
    context
}

/// Six nodes in two shards, and `node7` in none; `node3` is down.
fn fake() -> Fake {
    let node = |i: u32| addr(&format!("node{i}:8085"));
    let layout = Layout {
        shards: vec![vec![node(1), node(2), node(3)], vec![node(4), node(5), node(6)]],
        partitions: (0..PARTITIONS).map(|p| ShardId(p % 2 + 1)).collect(),
    };
    Fake {
        codec: Some(codec_of(1)),
        codec_by_then: None,
        map: ClusterMap {
            cluster_id: ClusterId(1),
            epoch: Epoch(1),
            nodes: (1..=7).map(|i| (node(i), None)).collect(),
            layout,
            ..map_zero(&[], 1, PARTITIONS)
        },
        view: Some([7, 6, 5, 4, 2, 1].map(node).to_vec()),
        ready: Ok(()),
        address: node(1),
        limits: limits(),
        scripted: Mutex::default(),
        asked: Mutex::default(),
        keys: Mutex::default(),
        outcome: Mutex::new(Ok(0)),
        wanted: Mutex::default(),
        held: Mutex::default(),
        finished: Mutex::default(),
        reshard: Some(ReshardStatus::none(&map_zero(&[], 1, PARTITIONS))),
        status: None,
    }
}

impl Fake {
    /// The one request that the node was asked.
    fn asked(&self) -> Request {
        let asked = self.asked.lock().unwrap();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].0.clone()
    }

    fn do_it(&self, request: Request) -> Response {
        let mut keys = self.keys.lock().unwrap();
        let seen = |mut context: Context| {
            let seq = self.asked.lock().unwrap().len() as u64;
            context.join(&super::tests::context(seq));
            context
        };
        let shard = |key: &Key| ShardId(key.partition(PARTITIONS).0 % 2 + 1);
        match request {
            Request::Get { key, context } => match keys.get(&key) {
                Some(value) => Response::Value { value: value.clone(), context },
                None => Response::Missing { context },
            },
            Request::Put { key, value, context } => {
                let shard = shard(&key);
                let existed = keys.insert(key, value).is_some();
                Response::Written { existed, context: seen(context), shard, copies: 2 }
            }
            Request::Delete { key, context } => match keys.remove(&key) {
                Some(_) => Response::Written { existed: true, context: seen(context), shard: shard(&key), copies: 2 },
                None => Response::Missing { context },
            },
            Request::KeyCount { .. } | Request::CountOf { .. } => Response::KeyCount(keys.len() as u64),
        }
    }
}

impl Backend for Arc<Fake> {
    async fn request(&self, request: Request, budget: Duration) -> Response {
        self.asked.lock().unwrap().push((request.clone(), budget));
        match self.scripted.lock().unwrap().pop() {
            Some(response) => response.expect("the test wants a panic"),
            None => self.do_it(request),
        }
    }

    async fn change(&self, wanted: Wanted, budget: Duration) -> Result<u64, NotChanged> {
        self.wanted.lock().unwrap().push((wanted, budget));
        let held = self.held.lock().unwrap().take();
        if let Some(held) = held {
            held.await.expect("the test wants a panic");
        }
        *self.finished.lock().unwrap() = true;
        self.outcome.lock().unwrap().clone()
    }

    async fn reshard(&self) -> Option<ReshardStatus> {
        self.reshard.clone()
    }

    async fn status(&self) -> Option<ClusterStatus> {
        self.status.clone()
    }

    async fn codec(&self, within: Duration) -> Option<Arc<ContextCodec>> {
        let by_then = self.codec_by_then.clone().filter(|_| within.is_zero());
        by_then.or_else(|| self.codec.clone())
    }

    fn map(&self) -> Arc<ClusterMap> {
        Arc::new(self.map.clone())
    }

    async fn view(&self) -> Option<Vec<NodeAddr>> {
        self.view.clone()
    }

    async fn readiness(&self) -> Result<(), String> {
        self.ready.clone()
    }

    fn address(&self) -> &NodeAddr {
        &self.address
    }
}

fn limits() -> Limits {
    let wait = Duration::from_secs(10);
    Limits {
        max_key_bytes: 50,
        max_value_bytes: 1000,
        deadline: Duration::from_secs(7),
        body_timeout: wait,
        body_room: 4 << 20,
    }
}

/// What came back.
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {:?}", self.text))
    }

    /// What holds of every answer.
    fn check(self) -> Self {
        assert_eq!(self.header("content-type"), Some("application/json"), "{:?}", self.text);
        // Members stay text: a client's numbers need not fit any type of ours.
        let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&self.text).unwrap();
        let string = |name: &str| members.get(name).map(|m| serde_json::from_str::<String>(m.get()).unwrap());
        // One row of the tables has no more than its sentence.
        let sentence = string("message").is_some_and(|text| text.starts_with("Not enough nodes"));
        let error = string("error").is_some() || sentence;
        assert!(self.status.is_success() || (error && string("message").is_some()), "{}", self.text);
        assert_eq!(self.header("x-causal-metadata"), string("causal-metadata").as_deref(), "{}", self.text);
        self
    }
}

async fn send(node: &Arc<Fake>, request: HttpRequest<Body>) -> Got {
    let response = router(node.clone(), node.limits).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Got { status: head.status, headers: head.headers, text }.check()
}

/// Sends a request with this body (none when empty) and causal metadata in the header (none when empty).
async fn ask(node: &Arc<Fake>, method: &str, path: &str, body: impl Into<Vec<u8>>, header: &str) -> Got {
    let mut request = HttpRequest::builder().method(method).uri(path);
    if !header.is_empty() {
        request = request.header("X-Causal-Metadata", header);
    }
    send(node, request.body(Body::from(body.into())).unwrap()).await
}

async fn call(node: &Arc<Fake>, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Got {
    ask(node, method, path, body, "").await
}

/// A node that waits for bodies a moment only.
fn impatient() -> Arc<Fake> {
    let mut node = fake();
    node.limits.body_timeout = Duration::from_millis(100);
    Arc::new(node)
}

fn scripted(response: Response) -> Arc<Fake> {
    let mut node = fake();
    node.scripted = Mutex::new(vec![Some(response)]);
    Arc::new(node)
}
