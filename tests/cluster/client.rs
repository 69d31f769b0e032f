//! A client as users write them: blocking, one keep-alive connection to each node, a context that it passes on.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

/// Longer than a node's own deadline.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Longer than a node waits for a change that does not get on.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(90);

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The value of `X-Entail-Copies`.
    pub copies: Option<u32>,
    pub json: Value,
}

impl Answer {
    /// The write was acknowledged.
    pub fn is_done(&self) -> bool {
        matches!(self.status, 200 | 201)
    }
}

/// One session.
#[derive(Debug)]
pub struct Client {
    /// What the session has seen.
    pub context: String,
    timeout: Duration,
    connections: BTreeMap<String, TcpStream>,
}

impl Client {
    /// A session that has seen nothing.
    pub fn new() -> Self {
        Self::waiting(TIMEOUT)
    }

    /// The same, which waits so long for an answer.
    pub fn waiting(timeout: Duration) -> Self {
        Self { context: String::new(), timeout, connections: BTreeMap::new() }
    }

    /// A session that has seen this much, without a connection yet.
    pub fn seen(context: String) -> Self {
        Self { context, ..Self::new() }
    }

    /// Writes a key; takes over the context of the answer.
    pub fn put(&mut self, node: &str, key: &str, value: &Value) -> io::Result<Answer> {
        let body = json!({ "value": value, "causal-metadata": self.context });
        self.in_session("PUT", node, &format!("/key-value-store/{key}"), Some(&body))
    }

    /// Reads a key; takes over the context of the answer.
    pub fn get(&mut self, node: &str, key: &str) -> io::Result<Answer> {
        self.in_session("GET", node, &format!("/key-value-store/{key}"), None)
    }

    /// Deletes a key; takes over the context of the answer.
    pub fn delete(&mut self, node: &str, key: &str) -> io::Result<Answer> {
        self.in_session("DELETE", node, &format!("/key-value-store/{key}"), None)
    }

    /// A client that waits for changes, which take their time.
    pub fn patient() -> Self {
        Self::waiting(CHANGE_TIMEOUT)
    }

    /// Asks for a change of view or shards.
    pub fn change(&mut self, method: &str, node: &str, path: &str, body: &Value) -> io::Result<Answer> {
        self.exchange(method, node, path, "", Some(body))
    }

    /// A plain `GET` outside the session.
    pub fn ask(&mut self, node: &str, path: &str) -> io::Result<Answer> {
        self.exchange("GET", node, path, "", None)
    }

    /// Asks with the session's context; takes over the context of the answer.
    pub fn in_session(&mut self, method: &str, node: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let context = std::mem::take(&mut self.context);
        let answer = self.exchange(method, node, path, &context, body);
        let seen = answer.as_ref().ok().and_then(|answer| answer.json["causal-metadata"].as_str());
        self.context = seen.map_or(context, str::to_owned);
        answer
    }

    /// A kept connection that turns out to be dead is replaced for a `GET`; a write is never repeated by itself.
    fn exchange(
        &mut self,
        method: &str,
        node: &str,
        path: &str,
        context: &str,
        body: Option<&Value>,
    ) -> io::Result<Answer> {
        let kept = self.connections.remove(node);
        let repeat = kept.is_some() && method == "GET";
        let mut stream = match kept {
            Some(stream) => stream,
            None => connect(node)?,
        };
        stream.set_read_timeout(Some(self.timeout))?;
        let request = request(method, node, path, context, body);
        let mut answer = over(&mut stream, &request);
        if answer.is_err() && repeat {
            stream = connect(node)?;
            stream.set_read_timeout(Some(self.timeout))?;
            answer = over(&mut stream, &request);
        }
        if answer.is_ok() {
            self.connections.insert(node.to_owned(), stream);
        }
        answer
    }
}

/// A connection with a time limit.
pub fn connect(node: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(node)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn request(method: &str, node: &str, path: &str, context: &str, body: Option<&Value>) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {node}\r\n");
    if !context.is_empty() {
        text.push_str(&format!("x-causal-metadata: {context}\r\n"));
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    text
}

/// Sends a request and reads its answer.
pub fn over(stream: &mut TcpStream, request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut received = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&chunk[..n]);
        if let Some(answer) = parsed(&received) {
            return Ok(answer);
        }
    }
}

/// The answer, once it is complete. Panics on what is none: the program is at fault then.
fn parsed(received: &[u8]) -> Option<Answer> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&received[..end]).expect("heads are ASCII");
    let (status, fields) = head.split_once("\r\n").expect("a status line and a length");
    let fields: BTreeMap<String, &str> = fields
        .split("\r\n")
        .map(|line| line.split_once(':').expect("a header"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let length: usize = fields["content-length"].parse().expect("a length");
    let body = received[end + 4..].get(..length)?;
    Some(Answer {
        status: status.split(' ').nth(1).expect("a status").parse().expect("a number"),
        copies: fields.get("x-entail-copies").map(|copies| copies.parse().expect("a number")),
        json: serde_json::from_slice(body).unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(body))),
    })
}
