//! Answers: JSON text written member by member, the headers that go with it, and what errors look like.

use std::borrow::Cow;
use std::future::Future;
use std::io::Write;
use std::panic::AssertUnwindSafe;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::FutureExt;
use serde_json::value::RawValue;

use crate::error::Code;

/// Carries the causal metadata in both directions.
pub(super) const CONTEXT_HEADER: HeaderName = HeaderName::from_static("x-causal-metadata");

/// Tells on how many nodes an acknowledged write is durable.
const COPIES_HEADER: HeaderName = HeaderName::from_static("x-entail-copies");

/// A compact JSON object under construction; members keep the order in which they are added.
pub(super) struct Json(Vec<u8>);

impl Json {
    /// An empty object, with room for about `bytes`.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'{');
        Self(text)
    }

    /// An object that begins with the sentence that every answer of the tables has.
    pub(super) fn message(text: &'static str) -> Self {
        Self::with_capacity(128).plain("message", text)
    }

    /// A string that needs no escaping, such as our own sentences and base64url.
    pub(super) fn plain(mut self, name: &'static str, text: &str) -> Self {
        debug_assert!(text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\'), "{text} needs escaping");
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
        self
    }

    /// Any string.
    pub(super) fn text(mut self, name: &'static str, text: &str) -> Self {
        self.name(name);
        serde_json::to_writer(&mut self.0, text).expect("a string always encodes into memory");
        self
    }

    /// JSON text, kept to the letter.
    pub(super) fn raw(mut self, name: &'static str, json: &[u8]) -> Self {
        self.name(name);
        self.0.extend_from_slice(json);
        self
    }

    /// A number.
    pub(super) fn number(mut self, name: &'static str, number: u64) -> Self {
        self.name(name);
        write!(self.0, "{number}").expect("writing into memory does not fail");
        self
    }

    /// True or false.
    pub(super) fn flag(self, name: &'static str, flag: bool) -> Self {
        self.raw(name, if flag { b"true" } else { b"false" })
    }

    /// Another object.
    pub(super) fn object(self, name: &'static str, object: Json) -> Self {
        let text = object.finish();
        self.raw(name, &text)
    }

    /// The object as a member of a list.
    pub(super) fn into_raw(self) -> Box<RawValue> {
        let text = String::from_utf8(self.finish()).expect("an object is made of text");
        RawValue::from_string(text).expect("an object is JSON")
    }

    /// A list of anything that is written as JSON by itself.
    pub(super) fn list<T: serde::Serialize>(mut self, name: &'static str, items: &[T]) -> Self {
        self.name(name);
        serde_json::to_writer(&mut self.0, items).expect("plain data always encodes into memory");
        self
    }

    fn name(&mut self, name: &'static str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// Marks the answer to a request that found the node with too much to do: whoever serves the connection may let the next
/// one wait.
#[derive(Clone, Copy, Debug)]
pub struct Busy;

/// A whole answer.
pub(super) struct Answer {
    status: StatusCode,
    body: Json,
    context: Option<String>,
    copies: Option<u32>,
    retry: bool,
}

impl Answer {
    /// An answer without further headers.
    pub(super) fn new(status: StatusCode, body: Json) -> Self {
        Self { status, body, context: None, copies: None, retry: false }
    }

    /// An ordinary success.
    pub(super) fn ok(body: Json) -> Self {
        Self::new(StatusCode::OK, body)
    }

    /// Adds the causal metadata, to the body and as a header.
    pub(super) fn context(mut self, text: String) -> Self {
        self.body = self.body.plain("causal-metadata", &text);
        self.context = Some(text);
        self
    }

    /// Adds members to the body.
    pub(super) fn body(mut self, add: impl FnOnce(Json) -> Json) -> Self {
        self.body = add(self.body);
        self
    }

    /// Tells on how many nodes the write is durable.
    pub(super) fn copies(mut self, copies: u32) -> Self {
        self.copies = Some(copies);
        self
    }

    /// Tells that trying again later makes sense.
    pub(super) fn retry(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    fn response(self) -> Response {
        let mut response = Response::new(Body::from(self.body.finish()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(text) = self.context {
            let value = HeaderValue::try_from(text).expect("the codec writes base64url");
            headers.insert(CONTEXT_HEADER, value);
        }
        if let Some(copies) = self.copies {
            headers.insert(COPIES_HEADER, HeaderValue::from(copies));
        }
        if self.retry {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Why a request gets no ordinary answer.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    error: Cow<'static, str>,
    retry: bool,
    busy: bool,
}

impl Fault {
    /// A refusal with a sentence of its own, not worth trying again as it is.
    pub(super) fn new(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        Self { status, error: error.into(), retry: false, busy: false }
    }

    /// The refusal of a request that is wrong in itself.
    pub(super) fn bad(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// A refusal for now.
    pub(super) fn later(error: impl Into<Cow<'static, str>>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: error.into(), retry: true, busy: false }
    }

    /// The refusal of a node that is stopping.
    pub(super) fn stopping() -> Self {
        Self::later("Node is stopping; ask another node")
    }

    /// The refusal as JSON.
    pub(super) fn response(self, method: &Method) -> Response {
        let body = Json::with_capacity(128).text("error", &self.error).text("message", &format!("Error in {method}"));
        let mut response = Answer::new(self.status, body).retry(self.retry).response();
        if self.busy {
            response.extensions_mut().insert(Busy);
        }
        response
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        let row = code.row();
        let status = StatusCode::from_u16(row.http).expect("the table of codes holds HTTP statuses");
        Self { status, error: Cow::Borrowed(row.text), retry: row.retry, busy: code == Code::TooManyRequests }
    }
}

/// Runs a handler to its answer. A panic is one too: the connection and the node go on.
pub(super) async fn respond(method: Method, work: impl Future<Output = Result<Answer, Fault>>) -> Response {
    let answered = AssertUnwindSafe(async { work.await.map(Answer::response) }).catch_unwind().await;
    match answered {
        Ok(Ok(response)) => response,
        Ok(Err(fault)) => fault.response(&method),
        Err(_) => Fault::from(broken(&method)).response(&method),
    }
}

/// What a bug of ours is to a client. Every error but one promises that nothing was written, which is more than we
/// know of a write that we lost our way in.
pub(super) fn broken(method: &Method) -> Code {
    tracing::error!(%method, "a bug: a request was given up");
    if method.is_safe() { Code::Internal } else { Code::OutcomeUnknown }
}
