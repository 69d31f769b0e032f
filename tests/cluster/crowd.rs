//! A crowd of clients on one thread: each has a connection and a key of its own, writes, waits for the answer, and
//! writes again; whoever is refused asks again when it was told to.
//!
//! Requests are written and answers read by hand, because the crowd shares the machine with what it measures.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use crate::load::Bounds;

/// Longer than a node's own deadline.
const PATIENCE: Duration = Duration::from_secs(20);

/// So many connections are made at once.
const AT_ONCE: usize = 64;

/// Some clients of a crowd.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// How many.
    pub clients: usize,
    /// When they begin and end, counted from when all are connected.
    pub from: Duration,
    pub until: Duration,
    /// They ask again at once when they are refused, whatever they are told.
    pub pushy: bool,
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it came, counted as in [`Group`].
    pub at: Duration,
    /// How long it took.
    pub waited: Duration,
    pub what: What,
    /// Whose group's it was.
    pub group: usize,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Done,
    /// A 503 as the contract has it.
    Refused,
    /// A 504.
    Unknown,
}

/// What a crowd did.
#[derive(Debug, Default)]
pub struct Came {
    pub samples: Vec<Sample>,
    /// By key, what it must hold.
    pub keys: Vec<(String, Bounds)>,
    /// What no rule of the contract gives, in words.
    pub odd: Vec<String>,
}

impl Came {
    /// The waits of all that ended so between these times, in order.
    pub fn waits(&self, what: What, from: Duration, until: Duration) -> Vec<Duration> {
        let within = |sample: &&Sample| sample.what == what && (from..until).contains(&sample.at);
        let mut waits: Vec<_> = self.samples.iter().filter(within).map(|sample| sample.waited).collect();
        waits.sort_unstable();
        waits
    }

    /// How many a second ended so between these times.
    pub fn rate(&self, what: What, from: Duration, until: Duration) -> f64 {
        self.waits(what, from, until).len() as f64 / (until - from).as_secs_f64()
    }
}

/// Runs all groups to their ends, with values of so many bytes, on a thread of this one's runtime. Keys are numbered
/// from `first` on.
pub async fn run(nodes: &[String], groups: &[Group], value_bytes: usize, first: usize) -> Came {
    let mut streams = Vec::new();
    let total: usize = groups.iter().map(|group| group.clients).sum();
    for begin in (0..total).step_by(AT_ONCE) {
        let some = begin..total.min(begin + AT_ONCE);
        let connects = some.map(|number| TcpStream::connect(&nodes[number % nodes.len()]));
        for stream in futures_util::future::join_all(connects).await {
            let stream = stream.expect("the node accepts");
            stream.set_nodelay(true).expect("a live socket");
            streams.push(stream);
        }
    }
    let begin = Instant::now();
    let members = groups.iter().enumerate().flat_map(|(at, group)| std::iter::repeat_n((at, *group), group.clients));
    let tasks: Vec<_> = (first..)
        .zip(streams.into_iter().zip(members))
        .map(|(number, (stream, (at, group)))| {
            let client = Client { stream, key: format!("crowd{number}"), received: Vec::new(), begin };
            // Who begins together does not ask at the very same moment.
            let spread = Duration::from_micros(number as u64 % 1_000 * 250);
            tokio::spawn(client.run(Group { from: group.from + spread, ..group }, at, value_bytes))
        })
        .collect();
    let mut all = Came::default();
    for task in tasks {
        let one = task.await.expect("a client does not panic");
        all.samples.extend(one.samples);
        all.keys.extend(one.keys);
        all.odd.extend(one.odd);
    }
    all
}

struct Client {
    stream: TcpStream,
    key: String,
    received: Vec<u8>,
    begin: Instant,
}

struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Client {
    async fn run(mut self, group: Group, at: usize, value_bytes: usize) -> Came {
        let mut came = Came::default();
        let mut bounds = Bounds::default();
        let rest = "x".repeat(value_bytes);
        sleep_until((self.begin + group.from).into()).await;
        while self.begin.elapsed() < group.until {
            bounds.tried += 1;
            let sent = Instant::now();
            let answer = match timeout(PATIENCE, self.put(bounds.tried, &rest)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    came.odd.push(format!("{}: {error}", self.key));
                    break;
                }
                Err(_) => {
                    came.odd.push(format!("{}: no answer in {PATIENCE:?}", self.key));
                    break;
                }
            };
            let waited = sent.elapsed();
            let what = match answer.status {
                200 | 201 => What::Done,
                503 if answer.is_as_the_contract_has_it() => What::Refused,
                504 => What::Unknown,
                _ => {
                    came.odd.push(format!("{}: {answer}", self.key));
                    continue;
                }
            };
            came.samples.push(Sample { at: self.begin.elapsed(), waited, what, group: at });
            match (what, answer.retry_after) {
                (What::Done, _) => bounds.acknowledged = bounds.tried,
                (What::Refused, Some(pause)) if !group.pushy => tokio::time::sleep(pause).await,
                (What::Refused | What::Unknown, _) => {}
            }
        }
        came.keys.push((self.key, bounds));
        came
    }

    async fn put(&mut self, number: u64, rest: &str) -> io::Result<Answer> {
        let body = format!(r#"{{"value":{{"number":{number},"rest":"{rest}"}}}}"#);
        let head =
            format!("PUT /key-value-store/{} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", self.key, body.len());
        self.stream.write_all((head + &body).as_bytes()).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = Answer::read(&self.received) {
                return Ok(answer);
            }
        }
    }
}

impl Answer {
    /// The answer, once it is complete.
    fn read(received: &[u8]) -> Option<Self> {
        let end = received.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&received[..end]).expect("heads are ASCII");
        let (mut length, mut retry_after) = (0, None);
        for (name, value) in head.split("\r\n").filter_map(|line| line.split_once(": ")) {
            match name {
                "content-length" => length = value.parse().expect("a length"),
                "retry-after" => retry_after = Some(Duration::from_secs(value.parse().expect("whole seconds"))),
                _ => {}
            }
        }
        let body = received[end + 4..].get(..length)?.to_vec();
        Some(Self { status: head[9..12].parse().expect("a status"), retry_after, body })
    }

    fn is_as_the_contract_has_it(&self) -> bool {
        self.retry_after.is_some()
            && self.body == br#"{"error":"Too many requests; try again later","message":"Error in PUT"}"#
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.retry_after, String::from_utf8_lossy(&self.body))
    }
}
