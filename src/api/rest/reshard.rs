//! `/key-value-store-shard/reshard` and `…/add-member/<id>`: who holds what is changed, live.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{Method, StatusCode};
use axum::response::Response as HttpResponse;
use axum::routing::{get, put};

use super::answer::{Answer, Fault, Json, respond};
use super::changes::{Members, change, done};
use super::shards::{IdPath, shard_id};
use super::{Backend, Rest};
use crate::cluster::plan::PlanError;
use crate::machine::message::Wanted;
use crate::machine::{ReshardState, ReshardStatus};

/// The paths of changes of the shards.
pub(super) fn routes<B: Backend>() -> Router<Arc<Rest<B>>> {
    let reshard = get(progress::<B>).put(begin::<B>).delete(cancel::<B>);
    Router::new()
        .route("/key-value-store-shard/reshard", reshard)
        .route("/key-value-store-shard/add-member/{id}", put(add_member::<B>))
}

async fn begin<B: Backend>(State(rest): State<Arc<Rest<B>>>, request: HttpRequest) -> HttpResponse {
    respond(Method::PUT, async {
        let count = Members::of(&rest, request).await?.shard_count()?;
        match change(&rest, Wanted::Reshard(count)).await {
            Ok(_) => Ok(done("Resharding done successfully")),
            Err(not_done) => match not_done.plan() {
                // This row has nothing but its sentence.
                Some(error @ (PlanError::NotEnoughNodes | PlanError::TooManyShards)) => {
                    let body = Json::with_capacity(128).text("message", &error.to_string());
                    Ok(Answer::new(StatusCode::BAD_REQUEST, body))
                }
                _ => Err(not_done.fault(&Method::PUT)),
            },
        }
    })
    .await
}

async fn cancel<B: Backend>(State(rest): State<Arc<Rest<B>>>) -> HttpResponse {
    respond(Method::DELETE, async {
        match change(&rest, Wanted::Cancel).await {
            Ok(_) => Ok(done("Resharding cancelled")),
            Err(not_done) => Err(not_done.fault(&Method::DELETE)),
        }
    })
    .await
}

async fn progress<B: Backend>(State(rest): State<Arc<Rest<B>>>, method: Method) -> HttpResponse {
    respond(method, async {
        let status = rest.backend.reshard().await.ok_or_else(Fault::stopping)?;
        Ok(Answer::ok(reshard_json(&status)))
    })
    .await
}

async fn add_member<B: Backend>(State(rest): State<Arc<Rest<B>>>, id: IdPath, request: HttpRequest) -> HttpResponse {
    respond(Method::PUT, async {
        let node = Members::of(&rest, request).await?.node()?;
        let no_such_shard = || Fault::new(StatusCode::NOT_FOUND, PlanError::NoSuchShard.to_string());
        let shard = shard_id(id).ok_or_else(no_such_shard)?;
        match change(&rest, Wanted::AddMember { shard, node }).await {
            Ok(_) => Ok(done("Member added to shard successfully")),
            Err(not_done) => match not_done.plan() {
                Some(PlanError::AlreadyMember) => Ok(done("Member added to shard successfully")),
                _ => Err(not_done.fault(&Method::PUT)),
            },
        }
    })
    .await
}

/// Where a reshard stands, as `GET …/reshard` and `/status` show it.
pub(super) fn reshard_json(status: &ReshardStatus) -> Json {
    let partitions = Json::with_capacity(64)
        .number("total", status.partitions.into())
        .number("to-move", status.to_move.into())
        .number("joining", status.joining.into())
        .number("moved", status.moved.into());
    let copied = |(copied, to_copy)| Json::with_capacity(48).number("copied", copied).number("to-copy", to_copy);
    Json::with_capacity(256)
        .plain("state", state(status.state))
        .number("shard-count", status.shards.into())
        .object("partitions", partitions)
        .object("keys", copied(status.keys))
        .object("bytes", copied(status.bytes))
        .raw("seconds", format!("{:.1}", status.elapsed_ms as f64 / 1_000.0).as_bytes())
        .list("waiting-for", &status.waiting_for)
}

fn state(state: ReshardState) -> &'static str {
    match state {
        ReshardState::None => "none",
        ReshardState::Running => "running",
        ReshardState::Done => "done",
        ReshardState::Cancelled => "cancelled",
    }
}
