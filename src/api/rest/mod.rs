//! The REST contract, over one handle to the node.
//!
//! One router per resource (`keys`, `shards`, `reshard`, `view`, `admin`, `status`, `probes`). A handler converts what
//! came in, asks the [`Backend`], and converts what comes back; it decides nothing about data. Around them:
//!
//! - `changes` is for all that ask for a change of nodes or shards: their bodies, and the table of refusals;
//! - `body` reads a request's body within a bound of bytes and a bound of time, all of them within one room;
//! - `input` turns path, body and headers into a key, a value and a context, or says what is wrong with them;
//! - `answer` writes the JSON, and turns errors and panics into it: whatever comes in here, what goes out is JSON,
//!   and with every error it has `error` and `message`.
//!
//! When several things are wrong with a key request, it is told the first of: the body is compressed, too large, too
//! slow or broken, or finds no room; the key; the body's JSON; the type of `causal-metadata`; the value is missing; the value is too large; the
//! store is not born; the causal metadata is malformed.
//!
//! Deliberately absent: what HTTP itself refuses (request lines, headers, slow heads) is answered by the server below,
//! and nothing here limits how many requests run at once, as the node refuses what it has no room for.

mod admin;
mod answer;
mod backend;
mod body;
mod changes;
mod input;
mod keys;
mod probes;
mod reshard;
mod shards;
mod status;
mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::Response;

pub use answer::Busy;
use answer::Fault;
pub use backend::Backend;
use body::{Bound, Room};

/// What a request may ask of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key that a `PUT` may name, in bytes of its decoded text.
    pub max_key_bytes: usize,
    /// The longest value, in bytes of its JSON text.
    pub max_value_bytes: usize,
    /// How long a request may wait for what it depends on, counted from when its body is there.
    pub deadline: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// What the bodies of all requests under way may take together, in bytes.
    pub body_room: usize,
}

impl Default for Limits {
    /// The contract's defaults.
    fn default() -> Self {
        let wait = Duration::from_secs(10);
        Self { max_key_bytes: 1024, max_value_bytes: 1 << 20, deadline: wait, body_timeout: wait, body_room: 256 << 20 }
    }
}

/// What every handler is given.
struct Rest<B> {
    backend: B,
    limits: Limits,
    room: Room,
}

impl<B> Rest<B> {
    /// What is asked of a body of at most so many bytes.
    fn bound(&self, bytes: usize) -> Bound<'_> {
        Bound { bytes, time: self.limits.body_timeout, room: &self.room }
    }
}

/// All paths of the contract, served by `backend`.
pub fn router<B: Backend>(backend: B, limits: Limits) -> Router {
    Router::new()
        .merge(keys::routes())
        .merge(shards::routes())
        .merge(reshard::routes())
        .merge(view::routes())
        .merge(admin::routes())
        .merge(status::routes())
        .merge(probes::routes())
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_path)
        .with_state(Arc::new(Rest { backend, limits, room: Room::new(limits.body_room) }))
}

/// A path that exists, with a method that it does not take; the router adds `Allow`.
async fn wrong_method(method: Method) -> Response {
    let text = "This path does not take this method; use one of those in the header Allow";
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, text).response(&method)
}

async fn unknown_path(method: Method) -> Response {
    let text = "Unknown path; use /key-value-store/<key>, /key-value-store-view or /key-value-store-shard/...";
    Fault::new(StatusCode::NOT_FOUND, text).response(&method)
}
