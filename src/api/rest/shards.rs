//! `/key-value-store-shard`: which shards there are, who is in them, how many keys they hold.
//!
//! Ids and members are those of the layout in force, from the map the node acts under. Before the store's birth that
//! is map 0, which follows from the start settings; there are no keys yet, so every count is 0.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response as HttpResponse;
use axum::routing::get;

use super::answer::{Answer, Fault, Json, broken, respond};
use super::{Backend, Rest};
use crate::cluster::map::ClusterMap;
use crate::error::Code;
use crate::machine::message::{Request, Response};
use crate::types::{NodeAddr, ShardId};

/// A shard's id as the path has it; what does not decode is no shard's.
pub(super) type IdPath = Result<Path<String>, PathRejection>;

/// The paths of shard queries.
pub(super) fn routes<B: Backend>() -> Router<Arc<Rest<B>>> {
    Router::new()
        .route("/key-value-store-shard/shard-ids", get(shard_ids::<B>))
        .route("/key-value-store-shard/node-shard-id", get(node_shard_id::<B>))
        .route("/key-value-store-shard/shard-id-members/{id}", get(members::<B>))
        .route("/key-value-store-shard/shard-id-key-count/{id}", get(key_count::<B>))
}

async fn shard_ids<B: Backend>(State(rest): State<Arc<Rest<B>>>, method: Method) -> HttpResponse {
    respond(method, async {
        let ids: Vec<u32> = (1..=rest.backend.map().layout.shards.len() as u32).collect();
        Ok(Answer::ok(Json::message("Shard IDs retrieved successfully").list("shard-ids", &ids)))
    })
    .await
}

async fn node_shard_id<B: Backend>(State(rest): State<Arc<Rest<B>>>, method: Method) -> HttpResponse {
    respond(method, async {
        let shard = rest.backend.map().shard_of(rest.backend.address());
        let id = shard.ok_or_else(|| Fault::new(StatusCode::NOT_FOUND, "Node is not assigned to a shard"))?;
        let body = Json::message("Shard ID of the node retrieved successfully");
        Ok(Answer::ok(body.number("shard-id", u64::from(id.0))))
    })
    .await
}

async fn members<B: Backend>(State(rest): State<Arc<Rest<B>>>, method: Method, id: IdPath) -> HttpResponse {
    respond(method, async {
        let map = rest.backend.map();
        let (_, members) = find(&map, id)?;
        let view = rest.backend.view().await.ok_or_else(Fault::stopping)?;
        let mut live: Vec<&NodeAddr> = members.iter().filter(|node| view.contains(node)).collect();
        live.sort_unstable();
        let body = Json::message("Members of shard ID retrieved successfully");
        Ok(Answer::ok(body.list("shard-id-members", &live)))
    })
    .await
}

async fn key_count<B: Backend>(State(rest): State<Arc<Rest<B>>>, method: Method, id: IdPath) -> HttpResponse {
    respond(method, async {
        let map = rest.backend.map();
        let (shard, _) = find(&map, id)?;
        let count = match map.is_born() {
            true => count(&rest, shard, rest.limits.deadline).await?,
            false => 0,
        };
        let body = Json::message("Key count of shard ID retrieved successfully");
        Ok(Answer::ok(body.number("shard-id-key-count", count)))
    })
    .await
}

/// How many keys of a shard have a value.
///
/// # Errors
/// As the node says, within about `budget`.
pub(super) async fn count<B: Backend>(rest: &Rest<B>, shard: ShardId, budget: Duration) -> Result<u64, Code> {
    match rest.backend.request(Request::KeyCount { shard }, budget).await {
        Response::KeyCount(count) => Ok(count),
        Response::Error(code) => Err(code),
        Response::Written { .. } | Response::Value { .. } | Response::Missing { .. } => Err(broken(&Method::GET)),
    }
}

/// The shard that a path names, and its nodes.
fn find(map: &ClusterMap, id: IdPath) -> Result<(ShardId, &[NodeAddr]), Code> {
    let shard = shard_id(id).ok_or(Code::NoSuchShard)?;
    Ok((shard, map.layout.members(shard).ok_or(Code::NoSuchShard)?))
}

/// The id that a path names. It is written in one way only: no sign, no leading zeros.
pub(super) fn shard_id(id: IdPath) -> Option<ShardId> {
    let Path(text) = id.ok()?;
    text.parse().ok().filter(|_| text.starts_with(|c: char| matches!(c, '1'..='9'))).map(ShardId)
}
