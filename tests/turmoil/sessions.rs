//! Sessions that read, write and delete shared keys at all nodes, with their contexts, and record all that they see.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use entail::history::{Op, Outcome, Record};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::{Answer, Client, Silence};
use crate::contract::outcome;
use crate::node::name;
use crate::random::Random;
use crate::trace::{Trace, now};

/// How long a client waits for an answer: longer than a node waits for what it needs.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// What everybody on the clients' host knows.
#[derive(Default)]
pub struct Shared {
    /// When the store was born.
    pub born: Cell<Option<Duration>>,
    /// Sessions are to end.
    pub over: Cell<bool>,
    /// What some session had seen a while ago.
    pub context: RefCell<String>,
    pub seen: RefCell<Seen>,
}

/// What clients saw.
#[derive(Default)]
pub struct Seen {
    pub records: Vec<Record>,
    /// Writes acknowledged on one disk.
    pub single: u64,
    /// What must not be.
    pub wrong: Vec<String>,
    /// How often the reshard was asked for.
    pub tries: u64,
    /// It is done.
    pub resharded: bool,
    /// From the end of the work till all nodes agreed.
    pub agreed_after: Duration,
}

/// One session.
pub struct Session {
    pub name: String,
    client: Client,
    context: String,
    random: Random,
    shared: Rc<Shared>,
    trace: Trace,
}

impl Session {
    /// A session that has seen nothing.
    pub fn new(name: String, random: Random, shared: &Rc<Shared>, trace: &Trace) -> Self {
        let (shared, trace) = (Rc::clone(shared), trace.clone());
        Self { name, client: Client::default(), context: String::new(), random, shared, trace }
    }

    /// Another one that has seen nothing.
    pub fn another(&self, name: String) -> Self {
        Self::new(name, self.random.clone(), &self.shared, &self.trace)
    }

    /// Takes note of what must not be.
    pub fn is_wrong(&self, what: String) {
        self.shared.seen.borrow_mut().wrong.push(what);
    }

    /// Works until the end.
    pub async fn work(mut self, nodes: usize, keys: usize) {
        let mut node = self.random.index(nodes);
        let restless = self.random.pick(&[5, 30, 70]);
        for turn in 0.. {
            if self.shared.over.get() {
                break;
            }
            if self.random.percent(restless) {
                node = self.random.index(nodes);
            }
            if self.random.percent(3) {
                self.take_over();
            }
            let key = format!("key{}", self.random.index(keys));
            let (op, value) = match self.random.weighted(&[45, 45, 10]) {
                0 => (Op::Put, Some(format!("{}-{turn}", self.name))),
                1 => (Op::Get, None),
                _ => (Op::Delete, None),
            };
            self.operate(node, op, &key, value).await;
            sleep(Duration::from_millis(self.random.within(0, 30))).await;
        }
    }

    /// Goes on with what another session has seen; or, rarely, as somebody who has seen nothing.
    fn take_over(&mut self) {
        let theirs = self.shared.context.replace(std::mem::take(&mut self.context));
        if !self.random.percent(20) {
            self.context = theirs;
        }
    }

    async fn operate(&mut self, node: usize, op: Op, key: &str, value: Option<String>) {
        let (context_in, start) = (self.context.clone(), now());
        let answer = self.ask(node, op, key, value.as_deref(), &context_in).await;
        let outcome = match outcome(op, &answer) {
            Ok(outcome) => outcome,
            Err(wrong) => return self.is_wrong(format!("{} of {key}: {wrong}", self.name)),
        };
        let done = matches!(outcome, Outcome::Ok | Outcome::Absent);
        let context_out = answer.as_ref().ok().filter(|_| done).and_then(|answer| answer.context.clone());
        if let Some(context) = &context_out {
            self.context.clone_from(context);
        }
        let value = value.or_else(|| shown(op, outcome, answer.as_ref().ok()?));
        let (session, key, node) = (self.name.clone(), key.to_owned(), name(node));
        let (start_us, end_us) = (start.as_micros() as u64, now().as_micros() as u64);
        let context_in = Some(context_in);
        let mut seen = self.shared.seen.borrow_mut();
        seen.single += u64::from(done && answer.is_ok_and(|answer| answer.copies == Some(1)));
        seen.records.push(Record { session, op, key, value, context_in, context_out, node, start_us, end_us, outcome });
    }

    /// Asks a node about a key.
    pub async fn ask(
        &mut self,
        node: usize,
        op: Op,
        key: &str,
        value: Option<&str>,
        context: &str,
    ) -> Result<Answer, Silence> {
        let path = format!("/key-value-store/{key}");
        let mut body = json!({ "causal-metadata": context });
        let method = match op {
            Op::Put => {
                body["value"] = Value::from(value);
                Method::PUT
            }
            Op::Delete => Method::DELETE,
            Op::Get | Op::Final => Method::GET,
        };
        self.send(node, method, &path, Some(&body), PATIENCE).await
    }

    /// Sends a request, and tells the trace of it and of its answer.
    pub async fn send(
        &mut self,
        node: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Answer, Silence> {
        let asked = format!("{method} {path} {}", body.unwrap_or(&Value::Null));
        self.trace.say(&self.name, format_args!("asks {}: {asked}", name(node)));
        let answer = self.client.ask(node, method, path, body, patience).await;
        self.trace.say(&self.name, format_args!("hears {answer:?}"));
        answer
    }
}

/// The value that a read was shown.
pub fn shown(op: Op, outcome: Outcome, answer: &Answer) -> Option<String> {
    let is_read = matches!(op, Op::Get | Op::Final) && outcome == Outcome::Ok;
    is_read.then(|| answer.json["value"].as_str().map(str::to_owned)).flatten()
}
