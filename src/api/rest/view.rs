//! `/key-value-store-view`: the nodes that are up and running, and who belongs to them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::get;

use super::answer::{Answer, Fault, Json, respond};
use super::changes::{Members, change, done};
use super::{Backend, Rest};
use crate::cluster::change::ChangeError;
use crate::cluster::plan::PlanError;
use crate::machine::message::Wanted;

/// The path of the view.
pub(super) fn routes<B: Backend>() -> Router<Arc<Rest<B>>> {
    Router::new().route("/key-value-store-view", get(show::<B>).put(add::<B>).delete(remove::<B>))
}

async fn show<B: Backend>(State(rest): State<Arc<Rest<B>>>, method: Method) -> Response {
    respond(method, async {
        let mut view = rest.backend.view().await.ok_or_else(Fault::stopping)?;
        view.sort_unstable();
        Ok(Answer::ok(Json::message("View retrieved successfully").list("view", &view)))
    })
    .await
}

async fn add<B: Backend>(State(rest): State<Arc<Rest<B>>>, request: HttpRequest) -> Response {
    respond(Method::PUT, async {
        let node = Members::of(&rest, request).await?.node()?;
        match change(&rest, Wanted::Admit(node)).await {
            Ok(_) => {
                let body = Json::message("Replica added successfully to the view");
                Ok(Answer::new(StatusCode::CREATED, body))
            }
            Err(not_done) => Err(not_done.fault(&Method::PUT)),
        }
    })
    .await
}

async fn remove<B: Backend>(State(rest): State<Arc<Rest<B>>>, request: HttpRequest) -> Response {
    respond(Method::DELETE, async {
        let node = Members::of(&rest, request).await?.node()?;
        match change(&rest, Wanted::Remove(node)).await {
            Ok(_) => Ok(done("Replica deleted successfully from the view")),
            Err(not_done) => match not_done.plan() {
                // The remedies of a plan's own sentence are not for who wants a node away.
                Some(PlanError::NodeNotInView) => {
                    Err(Fault::new(StatusCode::NOT_FOUND, ChangeError::NoSuchNode.to_string()))
                }
                _ => Err(not_done.fault(&Method::DELETE)),
            },
        }
    })
    .await
}
