//! `/healthz` and `/readyz`: for whoever starts, restarts and balances nodes.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::get;

use super::answer::{Answer, Json, respond};
use super::{Backend, Rest};

/// The paths of the probes.
pub(super) fn routes<B: Backend>() -> Router<Arc<Rest<B>>> {
    Router::new().route("/healthz", get(health)).route("/readyz", get(ready::<B>))
}

/// The process lives; whether it can serve is the other probe's business.
async fn health(method: Method) -> Response {
    respond(method, async { Ok(Answer::ok(Json::with_capacity(16).plain("status", "ok"))) }).await
}

async fn ready<B: Backend>(State(rest): State<Arc<Rest<B>>>, method: Method) -> Response {
    respond(method, async {
        let body = |ready| Json::with_capacity(128).flag("ready", ready);
        Ok(match rest.backend.readiness().await {
            Ok(()) => Answer::ok(body(true)),
            Err(reason) => {
                let body = body(false).text("reason", &reason).text("error", "Node is not ready; try again later");
                Answer::new(StatusCode::SERVICE_UNAVAILABLE, body.plain("message", "Error in GET")).retry(true)
            }
        })
    })
    .await
}
