//! Clients that carry contexts and read each other's writes: what the store promises, all the time.
//!
//! Each session writes its two keys in turn, the same growing round into both, and reads those of the others. Beside
//! the round a value holds all that its writer had seen by then, of every session. Whoever reads it has seen that too,
//! and must never again be shown less, of any key: so read your writes, monotonic reads and writes follow reads are
//! checked over all keys and sessions, wherever keys and nodes are at that moment. Sessions over a store with many keys
//! (`keys`) also write and read those. Now and then each writes a key of its own that it deletes at once: what it wrote must
//! be there before that, and must not come back after. Sessions can go on from where others ended, with their contexts.
//!
//! Every request must be answered as if nothing moved; or, where nodes die, repeated until it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::keys::{self, Keys};

/// Sessions that come later go on with greater numbers.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// One round in so many has a key that comes and goes.
const FLEETING: u64 = 4;

/// No run of sessions writes so often.
const ROUNDS: u64 = 1_000_000;

/// Where nodes die, a request may be repeated for so long.
const REPEATED_FOR: Duration = Duration::from_secs(60);

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
    /// When each request began, how long it took, and which it was.
    pub requests: Vec<(Instant, Duration, String)>,
    /// Answers that told the client to try again, and connections lost with a node.
    pub repeated: u64,
    /// The keys as written by then.
    pub keys: Keys,
    /// By session: its context, and what it has seen.
    carried: BTreeMap<usize, (String, Vec<[u64; 2]>)>,
}

impl Outcome {
    /// Where sessions over these keys begin.
    pub fn of(keys: Keys) -> Self {
        Self { keys, ..Self::default() }
    }

    /// The longest that a request took, and which it was.
    pub fn longest(&self) -> (Duration, String) {
        self.requests.iter().map(|(_, took, which)| (*took, which.clone())).max().unwrap_or_default()
    }
}

struct Session {
    number: usize,
    client: Client,
    nodes: Vec<String>,
    turn: usize,
    /// The greatest round seen of each session's first and second key.
    seen: Vec<[u64; 2]>,
    /// This session's share of the many keys.
    keys: Keys,
    /// Nodes die: what a node does not answer, another does.
    repeats: bool,
    outcome: Outcome,
    done: Arc<AtomicU64>,
}

fn key(session: usize, which: usize) -> String {
    format!("session{session}-{}", ["first", "second"][which])
}

impl Sessions {
    /// So many sessions over these nodes, where every request must be answered.
    pub fn start(nodes: &[String], sessions: usize) -> Self {
        Self::go_on(nodes, sessions, &Outcome::default(), false)
    }

    /// Sessions that go on from what there was before, its keys included. With `repeats`, nodes may die.
    pub fn go_on(nodes: &[String], sessions: usize, from: &Outcome, repeats: bool) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let before = ROUNDS * BEGUN.fetch_add(1, Ordering::Relaxed);
        let start = |(number, keys): (usize, Keys)| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let (context, seen) =
                from.carried.get(&number).cloned().unwrap_or_else(|| (String::new(), vec![[0; 2]; sessions]));
            let mut client = Client::new();
            client.context = context;
            let session = Session {
                number,
                client,
                nodes: nodes.to_vec(),
                turn: number,
                seen,
                keys,
                repeats,
                outcome: Outcome::default(),
                done,
            };
            std::thread::spawn(move || session.run(before, &stop))
        };
        let threads = from.keys.shares(sessions).into_iter().enumerate().map(start).collect();
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
            all.requests.extend(outcome.requests);
            all.repeated += outcome.repeated;
            all.keys.extend(outcome.keys);
            all.carried.extend(outcome.carried);
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
            self.read(other, 1);
            self.read(other, 0);
            if round % FLEETING == 0 {
                self.come_and_go(round);
            }
            if !self.keys.is_empty() {
                self.write_one_of_many(round as usize);
                self.read_one_of_many(round.wrapping_mul(7_919) as usize);
            }
        }
        self.outcome.keys = self.keys;
        self.outcome.carried.insert(self.number, (self.client.context, self.seen));
        self.outcome
    }

    fn write(&mut self, round: u64) {
        for which in 0..2 {
            let value = json!({ "round": round, "seen": self.seen });
            if self.put(&key(self.number, which), &value) {
                self.seen[self.number][which] = round;
            }
        }
    }

    fn read(&mut self, session: usize, which: usize) {
        let key = key(session, which);
        let Some((answer, node)) = self.get(&key) else { return };
        let round = answer.json["value"]["round"].as_u64().unwrap_or_default();
        let wanted = self.seen[session][which];
        if round < wanted {
            self.outcome.failures.push(format!("GET {key} at {node}: {round}, but {wanted} was seen or implied"));
        }
        self.seen[session][which] = round.max(wanted);
        let told: Vec<[u64; 2]> = serde_json::from_value(answer.json["value"]["seen"].clone()).unwrap_or_default();
        for (seen, told) in self.seen.iter_mut().zip(told) {
            *seen = [seen[0].max(told[0]), seen[1].max(told[1])];
        }
    }

    fn come_and_go(&mut self, round: u64) {
        let key = format!("session{}-fleeting", self.number);
        if !self.put(&key, &json!({ "round": round })) {
            return;
        }
        let shows = |answer: &Answer| answer.json["value"]["round"].as_u64();
        if let Some((answer, node)) = self.get(&key)
            && shows(&answer) != Some(round)
        {
            self.outcome.failures.push(format!("GET {key} at {node}: {answer:?}, but {round} was written"));
        }
        // Sent again, it may find that the first did it.
        let repeats = self.repeats;
        let is_gone = |answer: &Answer| answer.status == 200 || (repeats && answer.status == 404);
        if self.ask("DELETE", &key, |client, node| client.delete(node, &key), is_gone).is_none() {
            return;
        }
        if let Some((answer, node)) = self.get(&key)
            && answer.status != 404
        {
            self.outcome.failures.push(format!("GET {key} at {node}: {answer:?}, but it was deleted"));
        }
    }

    fn write_one_of_many(&mut self, turn: usize) {
        let (number, bounds) = self.keys.nth(turn);
        bounds.tried += 1;
        let wanted = bounds.tried;
        let value = self.keys.value(wanted);
        if self.put(&keys::name(number), &value) {
            self.keys.nth(turn).1.acknowledged = wanted;
        }
    }

    fn read_one_of_many(&mut self, turn: usize) {
        let (number, bounds) = self.keys.nth(turn);
        let (name, bounds) = (keys::name(number), *bounds);
        let Some((answer, node)) = self.get(&name) else { return };
        if !bounds.admit(keys::held(&answer)) {
            self.outcome.failures.push(format!("GET {name} at {node}: {answer:?}, but {bounds:?}"));
        }
    }

    fn put(&mut self, key: &str, value: &Value) -> bool {
        self.ask("PUT", key, |client, node| client.put(node, key, value), Answer::is_done).is_some()
    }

    /// The answer, and who gave it.
    fn get(&mut self, key: &str) -> Option<(Answer, String)> {
        self.ask("GET", key, |client, node| client.get(node, key), |answer| matches!(answer.status, 200 | 404))
    }

    /// Asks one node after the other, in turn, or only one where none dies.
    fn ask(
        &mut self,
        method: &str,
        key: &str,
        send: impl Fn(&mut Client, &str) -> std::io::Result<Answer>,
        is_good: impl Fn(&Answer) -> bool,
    ) -> Option<(Answer, String)> {
        let until = Instant::now() + REPEATED_FOR;
        loop {
            self.turn += 1;
            let node = self.nodes[self.turn % self.nodes.len()].clone();
            let begin = Instant::now();
            let answer = send(&mut self.client, &node);
            let took = begin.elapsed();
            self.outcome.requests.push((begin, took, format!("{method} {key} at {node}")));
            self.done.fetch_add(1, Ordering::Relaxed);
            let again = match answer {
                Ok(answer) if is_good(&answer) => return Some((answer, node)),
                Ok(ref answer) => matches!(answer.status, 503 | 504),
                Err(_) => true,
            };
            if !self.repeats || !again || Instant::now() > until {
                self.outcome.failures.push(format!("{method} {key} at {node}, after {took:?}: {answer:?}"));
                return None;
            }
            self.outcome.repeated += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
