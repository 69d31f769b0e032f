//! One HTTP request to a node, one answer: what the small commands and the development cluster need.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, InvalidHeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The header that carries a context where there is no body.
pub const CONTEXT_HEADER: &str = "x-causal-metadata";

/// What to ask.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The node's REST address.
    pub node: &'a str,
    /// The method.
    pub method: Method,
    /// The path, percent-encoded.
    pub path: &'a str,
    /// What the session has seen, sent as a header.
    pub context: Option<&'a str>,
    /// The body: JSON text.
    pub body: Option<String>,
    /// How long it may take in all.
    pub timeout: Duration,
}

impl<'a> Question<'a> {
    /// A plain `GET`.
    pub fn get(node: &'a str, path: &'a str, timeout: Duration) -> Self {
        Self { node, method: Method::GET, path, context: None, body: None, timeout }
    }
}

/// The answer of a node.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error("{node} can't be reached: {source}")]
    Connect {
        /// The node.
        node: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came was no HTTP.
    #[error("{node} gave no answer: {source}")]
    Broken {
        /// The node.
        node: String,
        /// Why.
        source: hyper::Error,
    },
    /// Time is over.
    #[error("{node} did not answer within {} ms", timeout.as_millis())]
    Timeout {
        /// The node.
        node: String,
        /// The time it had.
        timeout: Duration,
    },
    /// An argument can't be sent.
    #[error("this can't be sent: {0}")]
    Unsendable(#[from] hyper::http::Error),
}

impl From<InvalidHeaderValue> for AskError {
    fn from(error: InvalidHeaderValue) -> Self {
        Self::Unsendable(error.into())
    }
}

/// Asks and waits for the answer.
///
/// # Errors
/// See [`AskError`]; any HTTP status is an answer.
pub async fn ask(question: Question<'_>) -> Result<Answer, AskError> {
    let (node, timeout) = (question.node.to_owned(), question.timeout);
    match tokio::time::timeout(timeout, exchange(question)).await {
        Ok(answer) => answer,
        Err(_) => Err(AskError::Timeout { node, timeout }),
    }
}

async fn exchange(question: Question<'_>) -> Result<Answer, AskError> {
    let node = question.node;
    let broken = |source| AskError::Broken { node: node.to_owned(), source };
    let request = request(&question)?;
    let stream =
        TcpStream::connect(node).await.map_err(|source| AskError::Connect { node: node.to_owned(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
    driver.abort();
    Ok(Answer { status, body })
}

fn request(question: &Question<'_>) -> Result<Request<Full<Bytes>>, AskError> {
    let body = question.body.clone().unwrap_or_default();
    let mut request = Request::builder()
        .method(question.method.clone())
        .uri(question.path)
        .header(HOST, question.node)
        .header(CONNECTION, "close");
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(context) = question.context.filter(|context| !context.is_empty()) {
        request = request.header(CONTEXT_HEADER, context);
    }
    Ok(request.body(Full::from(body))?)
}

/// The path of a key: everything but the unreserved characters percent-encoded.
pub fn key_path(key: &str) -> String {
    let mut path = String::from("/key-value-store/");
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_so_that_they_arrive_as_they_are() {
        assert_eq!(key_path("plain-key_1.~"), "/key-value-store/plain-key_1.~");
        assert_eq!(key_path("a/b c?😀"), "/key-value-store/a%2Fb%20c%3F%F0%9F%98%80");
        // Dots alone would be folded away by some clients; ours sends what it is given.
        assert_eq!(key_path(".."), "/key-value-store/..");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let error = ask(Question::get(&free, "/", Duration::from_secs(1))).await.unwrap_err();
        assert!(matches!(&error, AskError::Connect { node, .. } if *node == free), "{error}");
    }

    #[tokio::test]
    async fn a_silent_node_ends_in_a_timeout() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let node = silent.local_addr().unwrap().to_string();
        let error = ask(Question::get(&node, "/", Duration::from_millis(50))).await.unwrap_err();
        assert!(matches!(error, AskError::Timeout { .. }), "{error}");
    }
}
