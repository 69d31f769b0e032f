//! Sessions with keys of their own, who know at every moment what each key may hold.
//!
//! A key is written and deleted by one session alone, so it holds what was acknowledged last; or what was tried and not
//! answered, which may take effect a while later. Every read within the session must show one of these, and at the end
//! every node must, to somebody who has seen nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::harness::wait_until;
use crate::random::Random;

/// So many that more get little more done: half of what they do is half of what the machine can do, sessions included.
const SESSIONS: usize = 128;

/// Keys of each session: all that ever are, but for a few of visitors.
const KEYS: usize = 20;

/// Bytes of a value, at the most.
const MOST_BYTES: u64 = 2_000;

/// By then what was tried and not answered has happened, or never will: a deadline, and the clocks of nodes that were
/// started anew, which may be ahead.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// Replicas have this time to show the same.
const CONVERGED_WITHIN: Duration = Duration::from_secs(15);

/// What a client does before it asks again where nobody listens.
const PAUSE: Duration = Duration::from_millis(20);

/// Running sessions.
pub struct Sessions {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Account>>,
}

struct Shared {
    nodes: Vec<String>,
    stop: AtomicBool,
    /// Operations with an answer.
    done: AtomicU64,
    /// Between two operations of a session, in microseconds; 0 for none.
    period_us: AtomicU64,
}

/// What a key may hold: a number that was written, or nothing.
type Held = Option<u64>;

/// What was done, and what must be there.
#[derive(Debug, Default)]
pub struct Account {
    keys: BTreeMap<String, Vec<Held>>,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    reads: u64,
}

/// What may be in a key.
#[derive(Debug, Default)]
struct Possible {
    /// What was acknowledged last; at the beginning there is nothing.
    certain: Held,
    /// What was tried since, or shortly before, and when.
    unknown: Vec<(Held, Instant)>,
}

struct Session {
    number: usize,
    client: Client,
    random: Random,
    node: usize,
    keys: BTreeMap<String, Possible>,
    account: Account,
    shared: Arc<Shared>,
}

impl Sessions {
    /// All of them, without a pause between operations.
    pub fn start(nodes: &[String]) -> Self {
        let shared = Arc::new(Shared {
            nodes: nodes.to_vec(),
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            period_us: AtomicU64::new(0),
        });
        let start = |number| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || Session::new(number, shared).run())
        };
        let threads = (0..SESSIONS).map(start).collect();
        Self { shared, threads }
    }

    /// From now on half as many operations a second as since the start, `since` ago; gives what they were.
    pub fn halve(&self, since: Duration) -> f64 {
        let rate = self.done() as f64 / since.as_secs_f64();
        let period = SESSIONS as f64 / (rate / 2.0).max(1.0);
        self.shared.period_us.store((period * 1e6) as u64, Ordering::Relaxed);
        rate
    }

    /// Operations answered so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Ends the sessions; what they did.
    pub fn stop(self) -> Account {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Account::default();
        for thread in self.threads {
            let one = thread.join().expect("a session is never shown what it must not be");
            all.keys.extend(one.keys);
            all.acknowledged += one.acknowledged;
            all.refused += one.refused;
            all.unknown += one.unknown;
            all.reads += one.reads;
        }
        all
    }
}

impl Session {
    fn new(number: usize, shared: Arc<Shared>) -> Self {
        let random = Random::new(number as u64);
        let (client, keys, account) = (Client::new(), BTreeMap::new(), Account::default());
        Self { number, client, random, node: number % shared.nodes.len(), keys, account, shared }
    }

    fn run(mut self) -> Account {
        let mut due = Instant::now();
        for turn in 1.. {
            if self.shared.stop.load(Ordering::Relaxed) {
                break;
            }
            due += Duration::from_micros(self.shared.period_us.load(Ordering::Relaxed));
            let now = Instant::now();
            // Who was held up does not make up for it.
            due = due.max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
            std::thread::sleep(due.saturating_duration_since(now));
            if self.random.percent(5) {
                self.node = self.random.index(self.shared.nodes.len());
            }
            if self.random.percent(1) {
                // The same session over new connections; and somebody who comes once.
                self.client = Client::seen(std::mem::take(&mut self.client.context));
                self.visit(turn);
            }
            let key = format!("session{}-{}", self.number, self.random.index(KEYS));
            match self.random.weighted(&[50, 10, 40]) {
                0 => self.write(key, Some(turn)),
                1 => self.write(key, None),
                _ => self.read(&key),
            }
        }
        let held = self.keys.into_iter().map(|(key, possible)| (key, possible.all().collect()));
        self.account.keys = held.collect();
        self.account
    }

    fn write(&mut self, key: String, held: Held) {
        let node = self.shared.nodes[self.node].clone();
        let answer = match held {
            Some(number) => {
                let value = value(number, &mut self.random);
                self.client.put(&node, &key, &value)
            }
            None => {
                let body = json!({ "causal-metadata": self.client.context });
                self.client.in_session("DELETE", &node, &format!("/key-value-store/{key}"), Some(&body))
            }
        };
        let status = self.count(&answer);
        let possible = self.keys.entry(key).or_default();
        let now = Instant::now();
        match (status, held) {
            (Some(200 | 201), _) | (Some(404), None) => {
                possible.unknown.retain(|(_, tried)| now - *tried < UNKNOWN_FOR);
                possible.certain = held;
                self.account.acknowledged += 1;
            }
            (Some(503), _) => self.account.refused += 1,
            (None | Some(504), _) => {
                possible.unknown.push((held, now));
                self.account.unknown += 1;
            }
            (Some(_), _) => panic!("a write was answered with {answer:?}"),
        }
    }

    fn read(&mut self, key: &str) {
        let node = self.shared.nodes[self.node].clone();
        let answer = self.client.get(&node, key);
        match self.count(&answer) {
            Some(200 | 404) => self.account.reads += 1,
            Some(503) => return self.account.refused += 1,
            None => return,
            Some(_) => panic!("a read was answered with {answer:?}"),
        }
        let held = answer.as_ref().ok().and_then(held_by);
        let nothing = Possible::default();
        let possible = self.keys.get(key).unwrap_or(&nothing);
        assert!(possible.all().any(|one| one == held), "{key} at {node}: {answer:?}, but {possible:?}");
    }

    /// Somebody new, who writes one of a few keys, reads it, and is gone.
    fn visit(&mut self, turn: u64) {
        let mut visitor = Client::new();
        let key = format!("visitor{}-{}", self.number, turn % 16);
        let [first, second] = [0; 2].map(|_| self.shared.nodes[self.random.index(self.shared.nodes.len())].clone());
        let is_done = visitor.put(&first, &key, &value(turn, &mut self.random)).is_ok_and(|answer| answer.is_done());
        if let (true, Ok(answer)) = (is_done, visitor.get(&second, &key)) {
            let wrong = answer.status != 503 && held_by(&answer) != Some(turn);
            assert!(!wrong, "{key} at {second}: {answer:?}, but {turn} was written");
        }
    }

    /// The status of an answer. Who gets none goes elsewhere.
    fn count(&mut self, answer: &io::Result<Answer>) -> Option<u16> {
        match answer {
            Ok(answer) => {
                self.shared.done.fetch_add(1, Ordering::Relaxed);
                Some(answer.status)
            }
            Err(_) => {
                self.node = self.random.index(self.shared.nodes.len());
                std::thread::sleep(PAUSE);
                None
            }
        }
    }
}

fn value(number: u64, random: &mut Random) -> Value {
    let rest = "x".repeat(random.within(100, MOST_BYTES) as usize);
    json!({ "number": number, "rest": rest })
}

/// The number that an answer shows.
fn held_by(answer: &Answer) -> Held {
    answer.json["value"]["number"].as_u64()
}

impl Possible {
    fn all(&self) -> impl Iterator<Item = Held> + '_ {
        self.unknown.iter().map(|(held, _)| *held).chain([self.certain])
    }
}

impl Account {
    /// Every node shows of every key what it may hold, to somebody who has seen nothing, within a while.
    pub fn check(&self, nodes: &[String]) {
        let look = |node: &String| {
            let mut client = Client::new();
            for (key, possible) in &self.keys {
                wait_until(&format!("{key} at {node} is one of {possible:?}"), CONVERGED_WITHIN, || {
                    client.context.clear();
                    let answer = client.get(node, key);
                    let told = answer.as_ref().is_ok_and(|answer| matches!(answer.status, 200 | 404));
                    told && possible.contains(&answer.as_ref().ok().and_then(held_by))
                });
            }
        };
        std::thread::scope(|scope| {
            for node in nodes {
                scope.spawn(move || look(node));
            }
        });
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, acknowledged, refused, unknown, reads } = self;
        let keys = keys.len();
        write!(
            f,
            "{keys} keys, {acknowledged} writes acknowledged, {reads} reads, {refused} refused, {unknown} unknown"
        )
    }
}
