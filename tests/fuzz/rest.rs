//! Requests of clients: any method, path, headers and body, through the router, to a node that has a few keys.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request as HttpRequest, Uri};
use bytes::Bytes;
use entail::api::rest::{Backend, Limits, router};
use entail::causal::codec::ContextCodec;
use entail::cluster::change::ChangeError;
use entail::cluster::map::ClusterMap;
use entail::machine::agreement::NotChanged;
use entail::machine::message::{Request, Response, Wanted};
use entail::machine::{ClusterStatus, NodeStatus, ReshardStatus};
use entail::types::{Key, NodeAddr, ShardId};
use futures_util::stream;
use http_body_util::BodyExt;
use serde_json::Value;
use serde_json::value::RawValue;
use tower::ServiceExt;

use crate::damage::damaged;
use crate::random::Random;
use crate::run::{Bound, run};
use crate::samples;

/// A body in pieces is put together, and a value may go into an answer.
const BOUND: Bound = Bound { times: 16, more: 32 << 10 };

/// Keys that the node has at the most.
const KEYS: usize = 100;

pub const LIMITS: Limits = Limits {
    max_key_bytes: 100,
    max_value_bytes: 2_000,
    deadline: Duration::from_secs(1),
    body_timeout: Duration::from_secs(1),
    body_room: 1 << 20,
};

/// A node with a map of keys.
pub struct Node {
    address: NodeAddr,
    map: Arc<ClusterMap>,
    codec: Arc<ContextCodec>,
    keys: Mutex<BTreeMap<Key, Bytes>>,
}

impl Node {
    pub fn new() -> Self {
        let map = samples::born();
        let codec = Arc::new(ContextCodec::new(map.cluster_id, map.secret, samples::PARTITIONS));
        Self { address: samples::node(1), map: Arc::new(map), codec, keys: Mutex::default() }
    }
}

impl Backend for Node {
    async fn request(&self, request: Request, _: Duration) -> Response {
        let mut keys = self.keys.lock().expect("no test panics here");
        let written = |existed, context| Response::Written { existed, context, shard: ShardId(1), copies: 2 };
        match request {
            Request::Get { key, context } => match keys.get(&key) {
                Some(value) => Response::Value { value: value.clone(), context },
                None => Response::Missing { context },
            },
            Request::Put { key, value, context } => {
                if keys.len() >= KEYS {
                    keys.pop_first();
                }
                written(keys.insert(key, value).is_some(), context)
            }
            Request::Delete { key, context } => written(keys.remove(&key).is_some(), context),
            Request::KeyCount { .. } | Request::CountOf { .. } => Response::KeyCount(keys.len() as u64),
        }
    }

    async fn change(&self, wanted: Wanted, _: Duration) -> Result<u64, NotChanged> {
        match wanted {
            Wanted::Reshard(_) => Err(ChangeError::InProgress.into()),
            Wanted::Forget { confirmed: false, .. } => Err(NotChanged::Unconfirmed(3)),
            _ => Ok(0),
        }
    }

    async fn reshard(&self) -> Option<ReshardStatus> {
        Some(ReshardStatus::none(&self.map))
    }

    async fn status(&self) -> Option<ClusterStatus> {
        let node =
            |node: &NodeAddr| NodeStatus { node: node.clone(), up: true, out: false, shard: None, lag: 0, voter: true };
        Some(ClusterStatus {
            node: self.address.clone(),
            incarnation: Default::default(),
            cluster_id: self.map.cluster_id,
            epoch: self.map.epoch,
            shard: Some(ShardId(1)),
            keys: 7,
            nodes: self.map.nodes.keys().map(node).collect(),
            warnings: vec!["a \"warning\"".to_owned()],
            reshard: ReshardStatus::none(&self.map),
        })
    }

    async fn codec(&self, _: Duration) -> Option<Arc<ContextCodec>> {
        Some(Arc::clone(&self.codec))
    }

    fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map)
    }

    async fn view(&self) -> Option<Vec<NodeAddr>> {
        Some(self.map.nodes.keys().cloned().collect())
    }

    async fn readiness(&self) -> Result<(), String> {
        Ok(())
    }

    fn address(&self) -> &NodeAddr {
        &self.address
    }
}

pub const PATHS: [&str; 18] = [
    "/key-value-store/key1",
    "/key-value-store/a/b%2Fc",
    "/key-value-store/%F0%9F%98%80?x=y",
    "/key-value-store/",
    "/key-value-store-view",
    "/key-value-store-shard/shard-ids",
    "/key-value-store-shard/node-shard-id",
    "/key-value-store-shard/shard-id-members/1",
    "/key-value-store-shard/shard-id-key-count/2",
    "/key-value-store-shard/add-member/2",
    "/key-value-store-shard/reshard",
    "/admin/forget",
    "/admin/recover",
    "/admin/birth",
    "/status",
    "/healthz",
    "/readyz",
    "/",
];

pub const BODIES: [&str; 12] = [
    "",
    "{}",
    r#"{"value":"some text","causal-metadata":""}"#,
    r#"{"value":[1,{"a":null,"b":[true,1e400]},"\ud83d\ude00"],"causal-metadata":null,"more":{}}"#,
    r#"{"value":-0.5e-7}"#,
    r#"{"value":{"value":1,"value":2},"val\u0075e":3}"#,
    r#"{"causal-metadata":"AZB6AgAAAwGrAiV_nNtXYgdZquw"}"#,
    r#"{"shard-count":3}"#,
    r#"{"socket-address":"10.10.0.5:8085"}"#,
    r#"{"socket-address":"10.10.0.5:8085","confirm":true}"#,
    r#"{"without":"10.10.0.5:8085","confirm":true}"#,
    r#"[[[[[[[[]]]]]]]]"#,
];

pub fn texts(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The body in pieces as a network might give them.
fn pieces(random: &mut Random, body: &[u8]) -> Body {
    if random.once_in(2) {
        return Body::from(body.to_vec());
    }
    let size = 1 + random.below(40);
    let pieces: Vec<_> = body.chunks(size).map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece))).collect();
    Body::from_stream(stream::iter(pieces))
}

fn damaged_or_not(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    if random.once_in(3) { damaged(random, seeds) } else { random.pick(seeds).clone() }
}

/// A request, and how long it is; nothing when it is none that HTTP could carry.
fn request(
    random: &mut Random,
    paths: &[Vec<u8>],
    bodies: &[Vec<u8>],
    contexts: &[Vec<u8>],
) -> Option<(HttpRequest<Body>, usize)> {
    let methods = texts(&["GET", "PUT", "DELETE", "POST", "PATCH", "OPTIONS"]);
    let method = if random.once_in(20) { damaged(random, &methods) } else { random.pick(&methods).clone() };
    let method = Method::from_bytes(&method).ok()?;
    let uri = Uri::try_from(damaged_or_not(random, paths)).ok()?;
    let mut bytes = damaged_or_not(random, bodies);
    if random.once_in(4) {
        // A context of this store, whole or damaged, where one is looked for.
        let context = String::from_utf8(damaged_or_not(random, contexts)).ok()?;
        bytes = format!(r#"{{"value":1,"causal-metadata":{}}}"#, serde_json::to_string(&context).ok()?).into_bytes();
    }
    let mut length = method.as_str().len() + uri.to_string().len() + bytes.len();
    let mut request = HttpRequest::builder().method(method).uri(uri);
    for name in ["x-causal-metadata", "content-type", "content-encoding", "expect"] {
        if random.once_in(6) {
            let value = damaged_or_not(random, contexts);
            length += value.len();
            request = request.header(name, value);
        }
    }
    Some((request.body(pieces(random, &bytes)).ok()?, length))
}

#[test]
fn rest() {
    let node = Node::new();
    let contexts = vec![node.codec.encode(&samples::context()).into_bytes()];
    let (paths, bodies) = (texts(&PATHS), texts(&BODIES));
    let router: Router = router(node, LIMITS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    run("rest", 50, &["done", "refused", "no request"], |cases| {
        let Some((request, length)) = request(&mut cases.random, &paths, &bodies, &contexts) else {
            return cases.count("no request");
        };
        let head = request.method() == Method::HEAD || request.method() == Method::CONNECT;
        let answered = || {
            runtime.block_on(async {
                let (head, body) = router.clone().oneshot(request).await.expect("it always answers").into_parts();
                (head, body.collect().await.expect("it is whole").to_bytes())
            })
        };
        let (answer, text) = cases.within(length, BOUND, answered);
        cases.count(if answer.status.is_success() { "done" } else { "refused" });
        assert!(answer.status.as_u16() < 500, "{}: {text:?}", answer.status);
        if head {
            return;
        }
        assert_eq!(answer.headers["content-type"], "application/json");
        check(answer.status.as_u16(), &text);
    });
}

/// What holds of every answer's body.
pub fn check(status: u16, text: &[u8]) {
    // Members stay text: a client's numbers need not fit any type of ours.
    let shown = String::from_utf8_lossy(text);
    let members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}: {shown}"));
    let sentence = |name: &str| {
        let text = members.get(name).and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
        text.and_then(|text| text.as_str().map(str::to_owned)).filter(|text| !text.is_empty())
    };
    // One row of the tables has no more than its sentence.
    let alone = sentence("message").is_some_and(|text| text.starts_with("Not enough nodes"));
    let told = sentence("message").is_some() && (sentence("error").is_some() || alone);
    assert!(status < 400 || told, "{status}: {shown}");
}
