//! `/admin`: the operator's word on what never comes back, a node (`forget`) or the majority of the voters (`recover`),
//! or never comes up (`birth`).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::Method;
use axum::response::Response as HttpResponse;
use axum::routing::post;

use super::answer::respond;
use super::changes::{Members, change, change_or_begin, done};
use super::{Backend, Rest};
use crate::machine::message::Wanted;

/// The paths for operators.
pub(super) fn routes<B: Backend>() -> Router<Arc<Rest<B>>> {
    Router::new()
        .route("/admin/forget", post(forget::<B>))
        .route("/admin/recover", post(recover::<B>))
        .route("/admin/birth", post(birth::<B>))
}

async fn forget<B: Backend>(State(rest): State<Arc<Rest<B>>>, request: HttpRequest) -> HttpResponse {
    respond(Method::POST, async {
        let members = Members::of(&rest, request).await?;
        let wanted = Wanted::Forget { node: members.node()?, confirmed: members.confirmed()? };
        match change(&rest, wanted).await {
            Ok(lost) => Ok(done("Node forgotten").body(|json| json.number("lost-writes", lost))),
            Err(not_done) => Err(not_done.fault(&Method::POST)),
        }
    })
    .await
}

async fn recover<B: Backend>(State(rest): State<Arc<Rest<B>>>, request: HttpRequest) -> HttpResponse {
    respond(Method::POST, async {
        let confirmed = Members::of(&rest, request).await?.confirmed()?;
        match change(&rest, Wanted::Recover { confirmed }).await {
            Ok(lost) => Ok(done("Store recovered").body(|json| json.number("lost-partitions", lost))),
            Err(not_done) => Err(not_done.fault(&Method::POST)),
        }
    })
    .await
}

async fn birth<B: Backend>(State(rest): State<Arc<Rest<B>>>, request: HttpRequest) -> HttpResponse {
    respond(Method::POST, async {
        let members = Members::of(&rest, request).await?;
        let wanted = Wanted::Birth { without: members.node()?, confirmed: members.confirmed()? };
        match change_or_begin(&rest, wanted).await {
            Ok(_) => Ok(done("Store born")),
            Err(not_done) => Err(not_done.fault(&Method::POST)),
        }
    })
    .await
}
