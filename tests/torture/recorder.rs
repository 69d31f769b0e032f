//! Sessions that read, write and delete shared keys, and record all they do as a history (docs/histories.md).
//!
//! Each value is written once. Every session carries its context, asks another node whenever it likes, and now and then
//! goes on with what another session has seen, or with nothing. A request that is not answered is not repeated: what
//! became of it is unknown, as it is to any client.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use entail::history::{Op, Outcome, Record};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::random::Random;

/// How long a client waits for an answer: longer than the nodes of these tests wait for what an answer needs.
pub const PATIENCE: Duration = Duration::from_secs(6);

/// Keys that all sessions share.
const KEYS: usize = 64;

/// What a client does before it asks again where nobody listens.
const PAUSE: Duration = Duration::from_millis(5);

/// Running sessions.
pub struct Recorder {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Session>>,
}

struct Shared {
    nodes: Vec<String>,
    begin: Instant,
    stop: Arc<AtomicBool>,
    /// Operations with an answer.
    done: AtomicU64,
    /// What some session had seen a while ago.
    context: Mutex<String>,
}

/// What sessions did.
#[derive(Default)]
pub struct Recorded {
    pub records: Vec<Record>,
    /// Writes acknowledged on one disk.
    pub single: u64,
    /// Answers that no rule of the contract gives, in words.
    pub odd: Vec<String>,
}

struct Session {
    name: String,
    client: Client,
    random: Random,
    /// In so many of a hundred cases it goes to another node.
    restless: u64,
    recorded: Recorded,
    shared: Arc<Shared>,
}

impl Shared {
    fn new(nodes: &[String]) -> Self {
        Self {
            nodes: nodes.to_vec(),
            begin: Instant::now(),
            stop: Arc::default(),
            done: AtomicU64::new(0),
            context: Mutex::default(),
        }
    }
}

/// Writes every key once at one node, as sessions that have seen nothing.
pub fn write_all(node: &str) -> Recorded {
    let mut random = Random::new(0);
    let shared = Arc::new(Shared::new(&[node.to_owned()]));
    let mut session = Session::new(0, shared, &mut random);
    for number in 0..KEYS {
        session.client.context.clear();
        session.operate(0, Op::Put, &format!("k{number}"), Some(format!("alone-{number}")));
    }
    session.recorded
}

impl Recorder {
    /// So many sessions over these nodes.
    pub fn start(nodes: &[String], sessions: usize, random: &mut Random) -> Self {
        let shared = Arc::new(Shared::new(nodes));
        let start = |number| {
            let session = Session::new(number, Arc::clone(&shared), random);
            std::thread::spawn(move || session.run())
        };
        let threads = (0..sessions).map(start).collect();
        Self { shared, threads }
    }

    /// Operations answered so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// What ends the sessions when it is set.
    pub fn end(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.stop)
    }

    /// Ends the sessions; what they did.
    pub fn stop(mut self) -> Recorded {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Recorded::default();
        for thread in std::mem::take(&mut self.threads) {
            let recorded = thread.join().expect("a session does not panic").recorded;
            all.records.extend(recorded.records);
            all.single += recorded.single;
            all.odd.extend(recorded.odd);
        }
        all
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Session {
    fn new(number: usize, shared: Arc<Shared>, random: &mut Random) -> Self {
        Self {
            name: format!("s{number}"),
            client: Client::waiting(PATIENCE),
            random: Random::new(random.next()),
            restless: random.pick(&[2, 10, 50]),
            recorded: Recorded::default(),
            shared,
        }
    }

    fn run(mut self) -> Self {
        let mut node = self.random.index(self.shared.nodes.len());
        for turn in 0.. {
            if self.shared.stop.load(Ordering::Relaxed) {
                break;
            }
            if self.random.percent(self.restless) {
                node = self.random.index(self.shared.nodes.len());
            }
            if self.random.percent(2) {
                self.take_over();
            }
            let key = format!("k{}", self.random.index(KEYS));
            let (op, value) = match self.random.weighted(&[45, 45, 10]) {
                0 => (Op::Put, Some(format!("{}-{turn}", self.name))),
                1 => (Op::Get, None),
                _ => (Op::Delete, None),
            };
            self.operate(node, op, &key, value);
        }
        self
    }

    /// Goes on with what another session has seen; or, rarely, as somebody who has seen nothing.
    fn take_over(&mut self) {
        let own = std::mem::take(&mut self.client.context);
        let mut shared = self.shared.context.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = std::mem::replace(&mut *shared, own);
        if !self.random.percent(20) {
            self.client.context = theirs;
        }
    }

    fn operate(&mut self, node: usize, op: Op, key: &str, value: Option<String>) {
        let shared = Arc::clone(&self.shared);
        let node = &shared.nodes[node];
        let now = || shared.begin.elapsed().as_micros() as u64;
        let (context_in, start_us) = (self.client.context.clone(), now());
        let answer = ask(&mut self.client, node, op, key, value.as_deref());
        let end_us = now();
        let outcome = outcome(op, &answer);
        match &answer {
            Ok(answer) => {
                shared.done.fetch_add(1, Ordering::Relaxed);
                self.recorded.single += u64::from(answer.is_done() && answer.copies == Some(1));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
        let Some(outcome) = outcome else {
            self.recorded.odd.push(format!("{op:?} {key} at {node}: {answer:?}"));
            return;
        };
        let done = matches!(outcome, Outcome::Ok | Outcome::Absent);
        let context_out = done.then(|| self.client.context.clone());
        if !done {
            self.client.context.clone_from(&context_in);
        }
        let value = value.or_else(|| shown(op, outcome, answer.as_ref().ok()?));
        let (session, key, node) = (self.name.clone(), key.to_owned(), node.clone());
        let context_in = Some(context_in);
        let record = Record { session, op, key, value, context_in, context_out, node, start_us, end_us, outcome };
        self.recorded.records.push(record);
    }
}

fn ask(client: &mut Client, node: &str, op: Op, key: &str, value: Option<&str>) -> io::Result<Answer> {
    match op {
        Op::Put => client.put(node, key, &Value::from(value)),
        Op::Get | Op::Final => client.get(node, key),
        Op::Delete => {
            let body = json!({ "causal-metadata": client.context });
            client.in_session("DELETE", node, &format!("/key-value-store/{key}"), Some(&body))
        }
    }
}

/// The value that a read was shown. Everything that was written is text.
fn shown(op: Op, outcome: Outcome, answer: &Answer) -> Option<String> {
    let is_read = matches!(op, Op::Get | Op::Final) && outcome == Outcome::Ok;
    is_read.then(|| answer.json["value"].as_str().map_or_else(|| answer.json["value"].to_string(), str::to_owned))
}

/// How an operation ended; nothing for an answer that the contract does not have.
fn outcome(op: Op, answer: &io::Result<Answer>) -> Option<Outcome> {
    let status = match answer {
        Ok(answer) => answer.status,
        // Nobody listened, so nobody was asked. After any other error the request may have arrived.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Some(Outcome::Refused),
        Err(_) => return Some(Outcome::Unknown),
    };
    match (op, status) {
        (Op::Put, 200 | 201) | (_, 200) => Some(Outcome::Ok),
        (Op::Get | Op::Delete | Op::Final, 404) => Some(Outcome::Absent),
        (_, 503) | (Op::Put, 507) => Some(Outcome::Refused),
        (Op::Put | Op::Delete, 504) => Some(Outcome::Unknown),
        _ => None,
    }
}

/// What each node shows of each key, to somebody who has seen nothing, after everything else. Nodes that do not hold a
/// key ask one that does.
///
/// # Errors
/// In words, when a node does not tell.
pub fn held(nodes: &[String]) -> Result<Vec<Record>, String> {
    std::thread::scope(|scope| {
        let readers: Vec<_> = nodes.iter().map(|node| scope.spawn(move || held_by(node))).collect();
        let all: Result<Vec<_>, _> =
            readers.into_iter().map(|reader| reader.join().expect("it does not panic")).collect();
        all.map(|all| all.into_iter().flatten().collect())
    })
}

fn held_by(node: &str) -> Result<Vec<Record>, String> {
    let mut client = Client::waiting(PATIENCE);
    let one = |number| {
        client.context.clear();
        let key = format!("k{number}");
        let answer = client.get(node, &key);
        let outcome = outcome(Op::Final, &answer).filter(|outcome| matches!(outcome, Outcome::Ok | Outcome::Absent));
        let (Some(outcome), Ok(answer)) = (outcome, &answer) else {
            return Err(format!("{key} at {node}: {answer:?}"));
        };
        let value = shown(Op::Final, outcome, answer);
        Ok(Record {
            session: node.to_owned(),
            op: Op::Final,
            key,
            value,
            context_in: None,
            context_out: None,
            node: node.to_owned(),
            start_us: u64::MAX,
            end_us: u64::MAX,
            outcome,
        })
    };
    (0..KEYS).map(one).collect()
}

/// Writes a history as JSON lines.
pub fn write(records: &[Record], path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for record in records {
        writeln!(file, "{}", serde_json::to_string(record)?)?;
    }
    file.flush()
}
