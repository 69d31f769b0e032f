//! A closed loop over keep-alive connections: each asks, waits for the answer, asks again.
//!
//! The requests are written and the answers read by hand, with nothing between them and the socket, because the load
//! generator shares the machine with what it measures: a client library would be a good part of the figures.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::histogram::Histogram;

/// What to do with the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Write every key once, so that later reads find all.
    Fill,
    /// Write keys at random.
    Put,
    /// Read keys at random.
    Get,
}

/// The shape of a load.
#[derive(Clone, Debug)]
pub struct Load {
    /// Whom to ask; the connections take turns.
    pub nodes: Vec<String>,
    /// Connections.
    pub connections: usize,
    /// How long.
    pub duration: Duration,
    /// The length of a value, in bytes.
    pub value_bytes: usize,
    /// Different keys.
    pub keys: usize,
    /// Whether a connection sends back the context of its last answer.
    pub carry_context: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Latencies of the requests that were answered with a 2xx.
    pub latencies: Histogram,
    /// Requests that were answered otherwise.
    pub refused: u64,
    /// The time it took.
    pub elapsed: Duration,
}

impl Outcome {
    /// Requests a second that were answered with a 2xx.
    pub fn rate(&self) -> f64 {
        self.latencies.total() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs one phase to its end.
///
/// # Errors
/// When a connection can't be made or breaks.
pub async fn run(load: &Arc<Load>, phase: Phase) -> io::Result<Outcome> {
    let mut connections = Vec::new();
    for index in 0..load.connections {
        connections.push(Session::connect(&load.nodes[index % load.nodes.len()]).await?);
    }
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, session) in connections.into_iter().enumerate() {
        tasks.spawn(session.work(Arc::clone(load), phase, index, begin + load.duration));
    }
    let mut outcome = Outcome { latencies: Histogram::new(), refused: 0, elapsed: Duration::ZERO };
    while let Some(done) = tasks.join_next().await {
        let (latencies, refused) = done.map_err(io::Error::other)??;
        outcome.latencies.merge(&latencies);
        outcome.refused += refused;
    }
    outcome.elapsed = begin.elapsed();
    Ok(outcome)
}

/// One connection and what it has seen.
struct Session {
    node: String,
    stream: TcpStream,
    context: String,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Session {
    async fn connect(node: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(node).await?;
        stream.set_nodelay(true)?;
        let (sent, received) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
        Ok(Self { node: node.to_owned(), stream, context: String::new(), sent, received })
    }

    async fn work(
        mut self,
        load: Arc<Load>,
        phase: Phase,
        index: usize,
        until: Instant,
    ) -> io::Result<(Histogram, u64)> {
        let value = "v".repeat(load.value_bytes);
        let (mut latencies, mut refused) = (Histogram::new(), 0);
        let mut random = Random(index as u64 + 1);
        let mut in_turn = (index..load.keys).step_by(load.connections);
        loop {
            let now = Instant::now();
            let key = match phase {
                Phase::Fill => in_turn.next(),
                Phase::Put | Phase::Get => (now < until).then(|| random.below(load.keys)),
            };
            let Some(key) = key else { return Ok((latencies, refused)) };
            self.write_request(phase, key, &value);
            let status = self.exchange(load.carry_context).await?;
            if (200..300).contains(&status) {
                latencies.record(now.elapsed());
            } else {
                refused += 1;
            }
        }
    }

    fn write_request(&mut self, phase: Phase, key: usize, value: &str) {
        let method = if phase == Phase::Get { "GET" } else { "PUT" };
        let mut head = format!("{method} /key-value-store/bench-{key} HTTP/1.1\r\nhost: {}\r\n", self.node);
        if !self.context.is_empty() {
            head.push_str("x-causal-metadata: ");
            head.push_str(&self.context);
            head.push_str("\r\n");
        }
        if phase != Phase::Get {
            let length = value.len() + r#"{"value":""}"#.len();
            head.push_str(&format!("content-length: {length}\r\n\r\n{{\"value\":\"{value}\"}}"));
        } else {
            head.push_str("\r\n");
        }
        self.sent.clear();
        self.sent.extend_from_slice(head.as_bytes());
    }

    /// Sends what was written and reads one answer; gives its status.
    async fn exchange(&mut self, carry_context: bool) -> io::Result<u16> {
        self.stream.write_all(&self.sent).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} hung up", self.node)));
            }
            let Some(head) = Head::read(&self.received)? else { continue };
            if self.received.len() < head.end + head.body {
                continue;
            }
            if carry_context && let Some(context) = head.context {
                self.context = context.to_owned();
            }
            return Ok(head.status);
        }
    }
}

/// What matters of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head<'a> {
    status: u16,
    end: usize,
    body: usize,
    context: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// Reads a head; `None` while it is not complete.
    fn read(bytes: &'a [u8]) -> io::Result<Option<Self>> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1.1 with a length");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| bad())?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let (mut body, mut context) = (None, None);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("x-causal-metadata") {
                context = Some(value.trim());
            }
        }
        let (Some(status), Some(body)) = (status, body) else { return Err(bad()) };
        Ok(Some(Self { status, end: end + 4, body, context }))
    }
}

/// Marsaglia's xorshift64; good enough to spread keys, and the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_complete() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-Causal-Metadata: AQ\r\n\r\n{}";
        let end = answer.len() - 2;
        assert_eq!(Head::read(&answer[..end - 1]).unwrap(), None);
        let head = Head { status: 201, end, body: 2, context: Some("AQ") };
        assert_eq!(Head::read(answer).unwrap(), Some(head));
        assert!(Head::read(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
        assert!(Head::read(b"hello\r\n\r\n").is_err(), "no HTTP");
    }
}
