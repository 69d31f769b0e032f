//! Clients that carry contexts, read each other's writes, and take no failure: what the store promises, all the time.
//!
//! Each session writes its two keys in turn, the same growing number into both, and reads those of the others: the
//! second key before the first. So it sees whether its own writes are there, whether any key ever goes back, and
//! whether a write is ever shown without the one before it, wherever keys and nodes are at that moment. Every request
//! must be answered as if nothing moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;

/// Sessions that come later go on with greater numbers.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// No run of sessions writes so often.
const ROUNDS: u64 = 1_000_000;

/// Running sessions.
pub struct Sessions {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Outcome>>,
}

/// What sessions met.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was wrong, in words.
    pub failures: Vec<String>,
    /// The longest that a request took, and which it was.
    pub longest: (Duration, String),
    /// Requests answered.
    pub requests: u64,
}

struct Session {
    number: usize,
    client: Client,
    nodes: Vec<String>,
    turn: usize,
    /// The greatest number seen of each session's first and second key.
    seen: Vec<[u64; 2]>,
    outcome: Outcome,
    done: Arc<AtomicU64>,
}

fn key(session: usize, which: usize) -> String {
    format!("session{session}-{}", ["first", "second"][which])
}

impl Sessions {
    /// So many sessions over these nodes.
    pub fn start(nodes: &[String], sessions: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let before = ROUNDS * BEGUN.fetch_add(1, Ordering::Relaxed);
        let start = |number: usize| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let session = Session {
                number,
                client: Client::new(),
                nodes: nodes.to_vec(),
                turn: number,
                seen: vec![[0; 2]; sessions],
                outcome: Outcome::default(),
                done,
            };
            std::thread::spawn(move || session.run(before, &stop))
        };
        let threads = (0..sessions).map(start).collect();
        Self { stop, done, threads }
    }

    /// Requests answered so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the sessions; what they met.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for thread in self.threads {
            let outcome = thread.join().expect("a session does not panic");
            all.failures.extend(outcome.failures);
            all.longest = all.longest.max(outcome.longest);
            all.requests += outcome.requests;
        }
        all
    }
}

impl Session {
    fn run(mut self, before: u64, stop: &AtomicBool) -> Outcome {
        for round in before + 1.. {
            // What is wrong once is wrong for ever; a few lines of it are enough.
            if stop.load(Ordering::Relaxed) || self.outcome.failures.len() > 10 {
                break;
            }
            self.write(round);
            let other = (self.number + round as usize) % self.seen.len();
            self.read(other);
        }
        self.outcome
    }

    fn write(&mut self, round: u64) {
        for which in 0..2 {
            let (node, key) = (self.next_node(), key(self.number, which));
            let begin = Instant::now();
            let answer = self.client.put(&node, &key, &json!(round));
            let took = self.took(begin, "PUT", &key, &node);
            match answer {
                Ok(answer) if answer.is_done() => self.seen[self.number][which] = round,
                other => self.outcome.failures.push(format!("PUT {key} at {node}, after {took:?}: {other:?}")),
            }
        }
    }

    /// The second key, and then the first, which was written before it with the same number.
    fn read(&mut self, session: usize) {
        let mut at_least = 0;
        for which in [1, 0] {
            let (node, key) = (self.next_node(), key(session, which));
            let begin = Instant::now();
            let answer = self.client.get(&node, &key);
            let took = self.took(begin, "GET", &key, &node);
            let value = match &answer {
                Ok(answer) if answer.status == 200 => answer.json["value"].as_u64().unwrap_or_default(),
                Ok(answer) if answer.status == 404 => 0,
                other => {
                    self.outcome.failures.push(format!("GET {key} at {node}, after {took:?}: {other:?}"));
                    return;
                }
            };
            let wanted = self.seen[session][which].max(at_least);
            if value < wanted {
                self.outcome.failures.push(format!("GET {key} at {node}: {value}, but {wanted} was seen or implied"));
            }
            self.seen[session][which] = value.max(wanted);
            at_least = value;
        }
    }

    fn next_node(&mut self) -> String {
        self.turn += 1;
        self.nodes[self.turn % self.nodes.len()].clone()
    }

    fn took(&mut self, begin: Instant, method: &str, key: &str, node: &str) -> Duration {
        let took = begin.elapsed();
        if took > self.outcome.longest.0 {
            self.outcome.longest = (took, format!("{method} {key} at {node}"));
        }
        self.outcome.requests += 1;
        self.done.fetch_add(1, Ordering::Relaxed);
        took
    }
}
