//! The operator of a run: waits for the store's birth, reshards it while clients work, and looks at the end whether all
//! nodes are whole and show the same.

use std::rc::Rc;
use std::time::Duration;

use entail::history::{Op, Outcome, Record};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::{Answer, Silence};
use crate::contract::outcome;
use crate::node::name;
use crate::plan::Plan;
use crate::sessions::{PATIENCE, Session, Shared, shown};
use crate::trace::now;

/// A store is born within this of its nodes' start.
const BIRTH: Duration = Duration::from_secs(10);

/// How long a client waits for a reshard before it asks anew.
const RESHARD_PATIENCE: Duration = Duration::from_secs(30);

/// Everything that was begun must be done by then, after the work's end.
const DONE: Duration = Duration::from_secs(60);

/// All nodes must show the same by then, after the last of the faults and of the operations.
const AGREED: Duration = Duration::from_secs(10);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The operator, who asks as a session that has seen nothing.
pub struct Operator {
    pub session: Session,
    pub shared: Rc<Shared>,
    pub plan: Plan,
}

impl Operator {
    fn is_wrong(&self, what: String) {
        self.session.is_wrong(what);
    }

    async fn get(&mut self, node: usize, path: &str) -> Option<Answer> {
        self.session.send(node, Method::GET, path, None, PATIENCE).await.ok()
    }

    /// Waits until every node can serve.
    pub async fn wait_for_birth(&mut self) {
        for node in 0..self.plan.nodes {
            while self.get(node, "/readyz").await.is_none_or(|answer| answer.status != 200) {
                if now() > BIRTH {
                    return self.is_wrong(format!("{} was not ready within {BIRTH:?}", name(node)));
                }
                sleep(PAUSE).await;
            }
        }
        self.shared.born.set(Some(now()));
    }

    /// Reshards, however often it has to be asked for: what the contract has no answer for is wrong.
    pub async fn reshard(&mut self) {
        let Some(born) = self.shared.born.get() else { return };
        let (at, shards) = self.plan.reshard;
        sleep(Duration::from_millis(at)).await;
        let end = born + Duration::from_millis(self.plan.work_ms) + DONE;
        let body = json!({ "shard-count": shards });
        for node in (0..self.plan.nodes).cycle() {
            self.shared.seen.borrow_mut().tries += 1;
            let path = "/key-value-store-shard/reshard";
            let answer = self.session.send(node, Method::PUT, path, Some(&body), RESHARD_PATIENCE).await;
            match answer {
                Ok(answer) if answer.status == 200 && is_done(&answer.json) => {
                    self.shared.seen.borrow_mut().resharded = true;
                    return;
                }
                Ok(answer) if !is_no(&answer) => self.is_wrong(format!("a reshard is answered with {answer:?}")),
                Ok(_) | Err(Silence::NotSent | Silence::Lost(_)) => {}
            }
            if now() > end {
                return self.is_wrong("the reshard was not done in time".into());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until all nodes act under one map and show the same of every key; records what they show.
    pub async fn settle(&mut self) {
        let begin = now();
        loop {
            let shown = self.shown().await;
            if let Some(finals) = shown {
                let mut seen = self.shared.seen.borrow_mut();
                seen.agreed_after = now() - begin;
                seen.records.extend(finals);
                return;
            }
            if now() > begin + AGREED {
                return self.is_wrong(format!("the nodes did not agree within {AGREED:?}"));
            }
            sleep(PAUSE).await;
        }
    }

    /// What every node shows of every key, when all are whole and show the same.
    async fn shown(&mut self) -> Option<Vec<Record>> {
        let mut epochs = Vec::new();
        for node in 0..self.plan.nodes {
            let status = self.get(node, "/status").await?;
            let ready = self.get(node, "/readyz").await?;
            let view = self.get(node, "/key-value-store-view").await?;
            let whole = view.json["view"].as_array().is_some_and(|view| view.len() == self.plan.nodes);
            if ready.status != 200 || !whole {
                return None;
            }
            epochs.push(status.json["epoch"].clone());
        }
        if epochs.iter().any(|epoch| *epoch != epochs[0]) {
            return None;
        }
        let readers = (0..self.plan.nodes).map(|node| tokio::task::spawn_local(self.reader(node).all()));
        let mut finals: Vec<Record> = Vec::new();
        for reader in readers.collect::<Vec<_>>() {
            finals.extend(reader.await.ok()??);
        }
        let keys = self.plan.keys;
        let agreed = finals.iter().enumerate().all(|(at, last)| last.value == finals[at % keys].value);
        agreed.then_some(finals)
    }

    fn reader(&self, node: usize) -> Reader {
        Reader { session: self.session.another(format!("reader of {}", name(node))), node, keys: self.plan.keys }
    }
}

/// Reads every key at one node, as somebody who has seen nothing.
struct Reader {
    session: Session,
    node: usize,
    keys: usize,
}

impl Reader {
    /// What the node shows; nothing when it does not tell of every key.
    async fn all(mut self) -> Option<Vec<Record>> {
        let mut all = Vec::new();
        for key in 0..self.keys {
            all.push(self.last(&format!("key{key}")).await?);
        }
        Some(all)
    }

    async fn last(&mut self, key: &str) -> Option<Record> {
        let start_us = now().as_micros() as u64;
        let answer = self.session.ask(self.node, Op::Final, key, None, "").await;
        let outcome = match outcome(Op::Final, &answer) {
            Ok(outcome @ (Outcome::Ok | Outcome::Absent)) => outcome,
            Ok(_) => return None,
            Err(wrong) => {
                self.session.is_wrong(wrong);
                return None;
            }
        };
        Some(Record {
            session: format!("replica at {}", name(self.node)),
            op: Op::Final,
            key: key.to_owned(),
            value: shown(Op::Final, outcome, &answer.ok()?),
            context_in: None,
            context_out: None,
            node: name(self.node),
            start_us,
            end_us: now().as_micros() as u64,
            outcome,
        })
    }
}

fn is_done(json: &Value) -> bool {
    *json == json!({ "message": "Resharding done successfully" })
}

/// The refusals of a reshard that the contract has.
fn is_no(answer: &Answer) -> bool {
    let error = answer.json["error"].as_str().unwrap_or_default();
    match answer.status {
        400 => {
            let few = "Not enough nodes to provide fault-tolerance with the given shard count!";
            answer.json == json!({ "message": few })
        }
        409 => error == "Resharding is already in progress",
        503 => !error.is_empty() && answer.json["message"] == "Error in PUT",
        _ => false,
    }
}
