//! `/key-value-store-view`: the nodes that are up and running.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::Method;
use axum::response::Response;
use axum::routing::get;

use super::answer::{Answer, Fault, Json, respond};
use super::{Backend, Rest};

/// The path of the view.
pub(super) fn routes<B: Backend>() -> Router<Arc<Rest<B>>> {
    Router::new().route("/key-value-store-view", get(show::<B>))
}

async fn show<B: Backend>(State(rest): State<Arc<Rest<B>>>, method: Method) -> Response {
    respond(method, async {
        let mut view = rest.backend.view().await.ok_or_else(|| Fault::later("Node is stopping; ask another node"))?;
        view.sort_unstable();
        Ok(Answer::ok(Json::message("View retrieved successfully").list("view", &view)))
    })
    .await
}
