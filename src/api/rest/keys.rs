//! `/key-value-store/<key>`: read, write and remove one key.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response as HttpResponse;
use axum::routing::get;
use bytes::Bytes;
use tokio::time::Instant;

use super::answer::{Answer, Fault, Json, broken, respond};
use super::body::{BESIDE_VALUE_BYTES, BodyFault, read};
use super::input::{Fields, key, value_too_large};
use super::{Backend, Rest};
use crate::causal::codec::ContextCodec;
use crate::causal::context::Context;
use crate::error::Code;
use crate::machine::message::{Request, Response};
use crate::types::{Key, ShardId};

/// What all keys' paths begin with.
const PREFIX: &str = "/key-value-store/";

/// The paths of keys. What follows the prefix is taken from the request's own path: the router's parameter is there
/// to match, and the second route gives the empty key its answer.
pub(super) fn routes<B: Backend>() -> Router<Arc<Rest<B>>> {
    let methods = get(read_key::<B>).put(write_key::<B>).delete(remove_key::<B>);
    Router::new().route("/key-value-store/{*key}", methods.clone()).route(PREFIX, methods)
}

async fn read_key<B: Backend>(State(rest): State<Arc<Rest<B>>>, request: HttpRequest) -> HttpResponse {
    respond(request.method().clone(), serve(&rest, Verb::Get, request)).await
}

async fn write_key<B: Backend>(State(rest): State<Arc<Rest<B>>>, request: HttpRequest) -> HttpResponse {
    respond(Method::PUT, serve(&rest, Verb::Put, request)).await
}

async fn remove_key<B: Backend>(State(rest): State<Arc<Rest<B>>>, request: HttpRequest) -> HttpResponse {
    respond(Method::DELETE, serve(&rest, Verb::Delete, request)).await
}

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    Put,
    Delete,
}

async fn serve<B: Backend>(rest: &Rest<B>, verb: Verb, request: HttpRequest) -> Result<Answer, Fault> {
    let (head, body) = request.into_parts();
    let limits = &rest.limits;
    // The body first, whatever the key: a connection with an unread body can't be used again.
    let bound = limits.max_value_bytes.saturating_add(BESIDE_VALUE_BYTES);
    let body = read(&head.headers, body, rest.bound(bound)).await.map_err(|fault| match (verb, fault) {
        // Only a value makes a body that long.
        (Verb::Put, BodyFault::TooLarge) => value_too_large(),
        (_, fault) => fault.into(),
    })?;
    let key = key(head.uri.path().strip_prefix(PREFIX).unwrap_or_default())?;
    let fields = Fields::parse(&body.bytes)?;
    let value = match verb {
        Verb::Put => Some(checked_value(rest, &key, &fields, &body.bytes)?),
        Verb::Get | Verb::Delete => None,
    };
    ask(rest, verb, key, value, &fields, &head.headers).await
}

/// The value of a `PUT`, within the limits. They bind writers only: a key from before its limit was lowered can still
/// be read and removed.
fn checked_value<B>(rest: &Rest<B>, key: &Key, fields: &Fields<'_>, body: &Bytes) -> Result<Bytes, Fault> {
    if key.as_str().len() > rest.limits.max_key_bytes {
        return Err(Fault::bad("Key is too long"));
    }
    fields.value(body, rest.limits.max_value_bytes)
}

async fn ask<B: Backend>(
    rest: &Rest<B>,
    verb: Verb,
    key: Key,
    value: Option<Bytes>,
    fields: &Fields<'_>,
    headers: &HeaderMap,
) -> Result<Answer, Fault> {
    let begun = Instant::now();
    let codec = rest.backend.codec(rest.limits.deadline).await.ok_or(Code::ShardUnavailable)?;
    let context = fields.context(headers, &codec)?;
    let request = match (verb, value) {
        (Verb::Put, Some(value)) => Request::Put { key, value, context },
        (Verb::Delete, _) => Request::Delete { key, context },
        (Verb::Get | Verb::Put, _) => Request::Get { key, context },
    };
    let left = rest.limits.deadline.saturating_sub(begun.elapsed());
    let response = rest.backend.request(request, left).await;
    // Meanwhile it may have become known that all nodes take clocks.
    let codec = rest.backend.codec(Duration::ZERO).await.unwrap_or(codec);
    answer(verb, response, &codec)
}

/// The table's rows, by what was asked and what the node says.
fn answer(verb: Verb, response: Response, codec: &ContextCodec) -> Result<Answer, Fault> {
    let encode = |context: &Context| codec.encode(context);
    match (verb, response) {
        (Verb::Get, Response::Value { value, context }) => Ok(found(&value, encode(&context))),
        (Verb::Get, Response::Missing { context }) => Ok(missing("Error in GET", encode(&context))),
        (Verb::Delete, Response::Missing { context }) => Ok(missing("Error in DELETE", encode(&context))),
        (Verb::Put, Response::Written { existed, context, shard, copies }) => {
            let (status, message) = match existed {
                true => (StatusCode::OK, "Updated successfully"),
                false => (StatusCode::CREATED, "Added successfully"),
            };
            Ok(written(status, message, encode(&context), shard, copies))
        }
        (Verb::Delete, Response::Written { existed: true, context, shard, copies }) => {
            Ok(written(StatusCode::OK, "Deleted successfully", encode(&context), shard, copies))
        }
        (Verb::Delete, Response::Written { existed: false, context, copies, .. }) => {
            Ok(missing("Error in DELETE", encode(&context)).copies(copies))
        }
        (_, Response::Error(code)) => Err(code.into()),
        // Only a bug answers what was not asked.
        (Verb::Get, Response::Written { .. } | Response::KeyCount(_)) => Err(broken(&Method::GET).into()),
        (Verb::Put, Response::Value { .. } | Response::Missing { .. } | Response::KeyCount(_)) => {
            Err(broken(&Method::PUT).into())
        }
        (Verb::Delete, Response::Value { .. } | Response::KeyCount(_)) => Err(broken(&Method::DELETE).into()),
    }
}

fn found(value: &[u8], context: String) -> Answer {
    let room = 96 + context.len() + value.len();
    let body = Json::with_capacity(room).plain("message", "Retrieved successfully");
    Answer::ok(body).context(context).body(|json| json.raw("value", value))
}

fn missing(message: &'static str, context: String) -> Answer {
    let body = Json::with_capacity(128 + context.len())
        .flag("doesExist", false)
        .plain("error", "Key does not exist")
        .plain("message", message);
    Answer::new(StatusCode::NOT_FOUND, body).context(context)
}

fn written(status: StatusCode, message: &'static str, context: String, shard: ShardId, copies: u32) -> Answer {
    let body = Json::with_capacity(96 + context.len()).plain("message", message);
    Answer::new(status, body).context(context).body(|json| json.number("shard-id", u64::from(shard.0))).copies(copies)
}
