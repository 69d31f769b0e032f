//! A client as users write them: HTTP over one keep-alive connection to each node.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderMap, RETRY_AFTER};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;
use turmoil::net::TcpStream;

use crate::node::name;

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The value of `X-Entail-Copies`.
    pub copies: Option<u32>,
    /// The value of `X-Causal-Metadata`.
    pub context: Option<String>,
    pub retry_after: bool,
    pub json: Value,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There was no connection: nothing was sent.
    NotSent,
    /// The connection ended, or the client's patience.
    Lost(String),
}

/// Its connections.
#[derive(Default)]
pub struct Client {
    connections: BTreeMap<usize, SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Asks a node, and waits so long for the answer.
    pub async fn ask(
        &mut self,
        node: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Answer, Silence> {
        let mut connection = match self.connections.remove(&node).filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => connect(node).await?,
        };
        let body = body.map_or_else(Bytes::new, |json| json.to_string().into());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, name(node))
            .body(Full::new(body))
            .expect("a request is well formed");
        let exchange = async {
            let response = connection.send_request(request).await?;
            let (head, body) = response.into_parts();
            Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
        };
        let (head, body) = match timeout(patience, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Silence::Lost(error.to_string())),
            Err(_) => return Err(Silence::Lost("no answer in time".into())),
        };
        self.connections.insert(node, connection);
        let json = serde_json::from_slice(&body).map_err(|error| Silence::Lost(format!("{body:?}: {error}")))?;
        Ok(Answer {
            status: head.status.as_u16(),
            copies: text(&head.headers, "x-entail-copies").and_then(|count| count.parse().ok()),
            context: text(&head.headers, "x-causal-metadata"),
            retry_after: head.headers.contains_key(RETRY_AFTER),
            json,
        })
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

async fn connect(node: usize) -> Result<SendRequest<Full<Bytes>>, Silence> {
    let connecting = async {
        let stream = TcpStream::connect((name(node), 8080)).await.ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        // It ends with an error when the node does; whoever sends hears of that.
        tokio::spawn(async move { drop(connection.await) });
        Some(sender)
    };
    timeout(CONNECT_PATIENCE, connecting).await.ok().flatten().ok_or(Silence::NotSent)
}
