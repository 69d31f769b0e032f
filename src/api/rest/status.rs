//! `/status`: the whole cluster as this node sees it, for people, scripts and the dashboard.
//!
//! A node knows its own keys; of the others it shows how many keys their shard has, or null where nobody of that shard
//! answers in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::Method;
use axum::response::Response as HttpResponse;
use axum::routing::get;
use futures_util::future::join_all;
use serde_json::value::RawValue;

use super::answer::{Answer, Fault, Json, respond};
use super::reshard::reshard_json;
use super::shards::count;
use super::{Backend, Rest};
use crate::machine::{ClusterStatus, NodeStatus};
use crate::types::ShardId;

/// How long the shards have to tell how many keys they hold.
const COUNT_WITHIN: Duration = Duration::from_millis(1_000);

/// The path of the status.
pub(super) fn routes<B: Backend>() -> Router<Arc<Rest<B>>> {
    Router::new().route("/status", get(show::<B>))
}

async fn show<B: Backend>(State(rest): State<Arc<Rest<B>>>, method: Method) -> HttpResponse {
    respond(method, async {
        let status = rest.backend.status().await.ok_or_else(Fault::stopping)?;
        let counts = counts(&rest, &status).await;
        Ok(Answer::ok(status_json(&status, &counts)))
    })
    .await
}

/// Keys by shard, as far as they can be had.
async fn counts<B: Backend>(rest: &Rest<B>, status: &ClusterStatus) -> BTreeMap<ShardId, u64> {
    if !rest.backend.map().is_born() {
        return BTreeMap::new();
    }
    let mut shards: Vec<ShardId> = status.nodes.iter().filter_map(|node| node.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    let asked = shards.into_iter().map(async |shard| Some((shard, count(rest, shard, COUNT_WITHIN).await.ok()?)));
    join_all(asked).await.into_iter().flatten().collect()
}

fn status_json(status: &ClusterStatus, counts: &BTreeMap<ShardId, u64>) -> Json {
    let nodes: Vec<Box<RawValue>> =
        status.nodes.iter().map(|node| node_json(status, node, counts).into_raw()).collect();
    let json = Json::with_capacity(1024)
        .text("node", status.node.as_str())
        .plain("incarnation", &status.incarnation.to_string())
        .plain("cluster-id", &status.cluster_id.to_string())
        .number("epoch", status.epoch.0)
        .plain("version", env!("CARGO_PKG_VERSION"));
    or_null(json, "shard-id", status.shard.map(|shard| shard.0.into()))
        .list("nodes", &nodes)
        .list("warnings", &status.warnings)
        .object("reshard", reshard_json(&status.reshard))
}

fn node_json(status: &ClusterStatus, node: &NodeStatus, counts: &BTreeMap<ShardId, u64>) -> Json {
    let keys = match node.shard {
        _ if node.node == status.node => Some(status.keys),
        Some(shard) => counts.get(&shard).copied(),
        None => Some(0),
    };
    let json = Json::with_capacity(160).text("node", node.node.as_str()).flag("up", node.up);
    let json = or_null(json, "shard-id", node.shard.map(|shard| shard.0.into()));
    or_null(json, "keys", keys).number("lag", node.lag).flag("voter", node.voter).flag("removed", node.out)
}

fn or_null(json: Json, name: &'static str, number: Option<u64>) -> Json {
    match number {
        Some(number) => json.number(name, number),
        None => json.raw(name, b"null"),
    }
}
