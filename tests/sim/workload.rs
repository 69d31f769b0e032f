//! Clients: they read, write and delete few keys at any node, carry what they were given, hand it to each other, come
//! back with what they kept, and forget.

use std::collections::BTreeMap;

use bytes::Bytes;
use entail::causal::context::Context;
use entail::error::Code;
use entail::machine::message::{Input, Request, RequestId, Response};
use entail::types::{Dot, Epoch, ShardId};

use crate::event::Event;
use crate::invariants::{self, acknowledged, settles};
use crate::observe::write_of;
use crate::oracle::{Kind, Session, Shown, VersionId};
use crate::run::LONG;
use crate::world::World;

/// One client.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// What it knows.
    pub session: Session,
    /// The request it waits for.
    pub waits: Option<u64>,
    /// Where it asked last.
    pub at: usize,
    /// The key it touched last.
    pub last_key: Option<usize>,
    /// It never sends a context.
    pub unaware: bool,
    /// What it was told last.
    pub said: Option<Said>,
}

/// An answer in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The value of this write.
    Value(usize),
    /// There is no value.
    Nothing,
    /// The write is on so many nodes.
    Written(u32),
    /// There are so many keys.
    Keys(u64),
    /// No proper answer.
    Error(Code),
}

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who asked.
    pub client: usize,
    /// Which node.
    pub node: usize,
    /// What; `None` for a key count.
    pub kind: Option<Kind>,
    /// The key's index, or a shard's for a count.
    pub key: usize,
    /// What the session was when it asked.
    pub session: Session,
    /// The write's number.
    pub write: Option<usize>,
    /// When it was asked.
    pub at_ms: u64,
    /// How long it may take.
    pub budget_ms: u64,
}

impl World {
    /// A client does its next thing.
    pub fn client(&mut self, c: usize) {
        if self.quiet || self.clients[c].waits.is_some() || self.serial >= self.settings.requests {
            return;
        }
        self.change_session(c);
        let near = self.random.percent(30);
        let node = if near { self.clients[c].at } else { self.random.index(self.nodes.len()) };
        if self.nodes[node].process.is_none() {
            let when = self.now + self.random.within(1, 40);
            self.agenda.at(when, Event::Client { client: c });
            return;
        }
        let kind = match self.random.within(0, 99) {
            x if x < self.settings.reads => Kind::Get,
            x if x < self.settings.reads + self.settings.deletes => Kind::Delete,
            _ => Kind::Put,
        };
        let hot = self.random.percent(self.settings.hot);
        let mut key = self.random.index(if hot { 2 } else { self.settings.keys });
        let mut kind = Some(kind);
        if self.random.percent(25) {
            (kind, key) = (Some(Kind::Get), self.clients[c].last_key.unwrap_or(key));
        } else if self.random.percent(1) && !self.settings.maps() {
            kind = None;
        }
        let budget = self.random.pick(&[250, 800, 2500, 2500, 8000]);
        self.ask(c, node, kind, key, budget);
    }

    /// What a session is beyond one client: texts are handed on, kept and forgotten.
    fn change_session(&mut self, c: usize) {
        let x = self.random.within(0, 99);
        if self.clients[c].unaware || x >= 90 {
            self.oracle.coverage.hit("sessions: begun anew");
            self.clients[c].session = Session::default();
        } else if x < 14 {
            let other = self.random.index(self.clients.len());
            self.clients[c].session = self.clients[other].session.clone();
            self.oracle.coverage.hit("sessions: handed on");
        } else if x < 20 && !self.saved.is_empty() {
            let old = self.random.index(self.saved.len());
            let (epoch, session) = self.saved[old].clone();
            self.clients[c].session = session;
            let maps = self.epoch().0.saturating_sub(epoch.0);
            self.oracle.coverage.hit("sessions: came back");
            if maps >= LONG {
                self.oracle.coverage.hit("sessions: came back after ten epochs and more");
            }
        } else if x < 26 {
            // Somebody who was told by two others: more than one text can say, so a history has no such session.
            let other = self.clients[self.random.index(self.clients.len())].session.clone();
            let other = if self.recorder.is_some() { Session::default() } else { other };
            let session = &mut self.clients[c].session;
            session.context.join(&other.context);
            session.past.join(&other.past);
            session.own.join(&other.own);
            session.seen.join(&other.seen);
        }
        if self.random.percent(6) {
            let session = self.clients[c].session.clone();
            self.saved.push((self.epoch(), session));
        }
    }

    /// A client asks a node that is up.
    pub fn ask(&mut self, c: usize, node: usize, kind: Option<Kind>, key: usize, budget_ms: u64) -> u64 {
        self.serial += 1;
        let serial = self.serial;
        let session = self.clients[c].session.clone();
        let context = self.through_text(session.context.clone());
        let name = self.oracle.keys[key].clone();
        let write = match kind {
            Some(Kind::Put | Kind::Delete) => {
                Some(self.oracle.ask(key, kind == Some(Kind::Delete), &session.past, budget_ms))
            }
            Some(Kind::Get) | None => None,
        };
        let request = match kind {
            Some(Kind::Get) => Request::Get { key: name, context },
            Some(Kind::Put) => Request::Put { key: name, value: self.value(write.unwrap_or_default()), context },
            Some(Kind::Delete) => Request::Delete { key: name, context },
            None => Request::KeyCount { shard: ShardId(key as u32 % self.shards() + 1) },
        };
        self.trace.say(self.now, || format!("client{c} asks node{} {request:?}", node + 1));
        self.clients[c] = Client { waits: Some(serial), at: node, last_key: Some(key), ..self.clients[c].clone() };
        let asked = Asked { client: c, node, kind, key, session, write, at_ms: self.now, budget_ms };
        self.record(|recorder| recorder.asked(serial, &asked));
        self.asked.insert(serial, asked);
        self.process(node).requests.insert(serial, serial);
        self.give(node, Input::Request { id: serial, request, budget_ms });
        self.agenda.at(self.now + budget_ms + settles::SLACK_MS, Event::Overdue { serial });
        let patience = match self.random.percent(8) && !self.quiet {
            true => self.random.within(1, budget_ms),
            false => budget_ms + settles::SLACK_MS + 50,
        };
        self.agenda.at(self.now + patience, Event::GiveUp { client: c, serial });
        serial
    }

    /// How many shards there are.
    fn shards(&self) -> u32 {
        self.newest().map_or(self.settings.shards, |map| map.layout.shards.len() as u32)
    }

    /// The epoch of the newest map that any node acted under.
    fn epoch(&self) -> Epoch {
        self.newest().map_or(Epoch(0), |map| map.epoch)
    }

    /// Now and then a context goes through its text, as it always does outside.
    fn through_text(&mut self, context: Context) -> Context {
        let look = self.random.percent(30);
        let Some(codec) = self.codec.as_ref().filter(|_| look) else { return context };
        let text = codec.encode(&context);
        self.oracle.coverage.most("most bytes of a context's text", text.len() as u64);
        match codec.decode(&text) {
            Ok(same) if same == context => {}
            other => self.fail(format!("a context does not survive its text: {context:?} became {other:?}")),
        }
        context
    }

    fn value(&mut self, write: usize) -> Bytes {
        let filling = self.random.within(0, self.settings.value_bytes) as usize;
        format!("\"w{write}{}\"", ".".repeat(filling)).into()
    }

    /// A node answers a request of its own client.
    pub fn reply(&mut self, n: usize, id: RequestId, response: Response, shown: Option<Box<Shown>>) {
        let serial = self.process(n).requests.remove(&id);
        let Some((serial, asked)) = serial.and_then(|s| self.asked.remove(&s).map(|asked| (s, asked))) else {
            return self.fail(format!("node{} answers {id}, which waits no more: {response:?}", n + 1));
        };
        self.record(|recorder| recorder.told(serial, &response));
        let took = self.now - asked.at_ms;
        self.oracle.coverage.hit(if took > 100 {
            "requests: waited over 100 ms"
        } else {
            "requests: answered in 100 ms"
        });
        self.clients[asked.client].said = Some(match &response {
            Response::Value { value, .. } => Said::Value(write_of(value).unwrap_or_default()),
            Response::Missing { .. } => Said::Nothing,
            Response::Written { copies, .. } => Said::Written(*copies),
            Response::KeyCount(keys) => Said::Keys(*keys),
            Response::Error(code) => Said::Error(*code),
        });
        let session = match response {
            Response::Value { context, .. } | Response::Missing { context } => self.read(&asked, context, shown),
            Response::Written { existed, context, copies, .. } => self.written(&asked, existed, context, copies),
            Response::KeyCount(_) => None,
            Response::Error(code) => self.refused(&asked, code),
        };
        if self.random.next() % 1000 < self.settings.loss && !self.quiet {
            self.oracle.coverage.hit("requests: answer lost");
            return;
        }
        let when = self.now + self.random.within(1, 4);
        let session = session.map(|session| Box::new(Session { token: Some(serial), ..session }));
        self.agenda.at(when, Event::Answer { client: asked.client, serial, session });
    }

    fn read(&mut self, asked: &Asked, answer: Context, shown: Option<Box<Shown>>) -> Option<Session> {
        let Some(shown) = shown.filter(|_| matches!(asked.kind, Some(Kind::Get | Kind::Delete))) else {
            self.fail(format!("not an answer to {:?} of key {}", asked.kind, asked.key));
            return None;
        };
        let read = invariants::Read { key: asked.key, shown: &shown, asked: &asked.session, answer: &answer };
        let verdict = invariants::after_read(&self.oracle, &read);
        self.judge(verdict);
        self.oracle.coverage.most("most entries in a context", answer.len() as u64);
        if asked.kind == Some(Kind::Delete) {
            self.oracle.coverage.hit("requests: deleted nothing");
            self.nothing_written(asked, "a delete of nothing");
        }
        let mut session = Session { context: answer, ..asked.session.clone() };
        if let Some(version) = shown.version {
            self.oracle.versions[version].shown = true;
            session.past.join(&self.oracle.versions[version].past);
            session.past.insert(version);
            session.seen.insert(version);
        } else {
            let past = &asked.session.past;
            let best = self.oracle.best_of(asked.key, past, |v| past.contains(v));
            session.past.join(&self.oracle.seen_in_nothing(best, &shown.deletes));
        }
        Some(session)
    }

    fn written(&mut self, asked: &Asked, existed: bool, answer: Context, copies: u32) -> Option<Session> {
        let partition = self.oracle.partition(asked.key);
        let named: Vec<_> = answer.of(partition).collect();
        let (Some(write), [(stay, seq)]) = (asked.write, &named[..]) else {
            self.fail(format!("the answer to a write names {named:?} of its partition"));
            return None;
        };
        let dot = Dot { stay: *stay, seq: *seq };
        let Some(version) = self.version_of(partition, dot) else {
            self.fail(format!("w{write} is acknowledged as {dot:?}, which nobody wrote"));
            return None;
        };
        self.judge(acknowledged::check(&self.oracle, write, version, copies));
        if self.now + settles::SLACK_MS < asked.at_ms + asked.budget_ms {
            let coordinator = self.oracle.versions[version].coordinator;
            self.judge(acknowledged::shown_alone(self, coordinator, version));
        }
        self.judge(acknowledged::existed(&self.oracle, asked, version, existed));
        self.oracle.bind(write, version);
        self.oracle.versions[version].acked = Some(copies);
        self.oracle.versions[version].shown = true;
        self.oracle.coverage.hit(if copies >= 2 { "acknowledged: on two nodes" } else { "acknowledged: on one node" });
        self.oracle.coverage.most("most entries in a context", answer.len() as u64);
        let mut session = Session { context: answer, ..asked.session.clone() };
        session.past.insert(version);
        session.own.insert(version);
        Some(session)
    }

    fn refused(&mut self, asked: &Asked, code: Code) -> Option<Session> {
        self.oracle.coverage.hit(match code {
            Code::DependenciesUnsatisfied => "errors: dependencies not satisfied",
            Code::ShardUnavailable => "errors: shard unavailable",
            Code::TooManyRequests => "errors: too many requests",
            Code::OutcomeUnknown => "errors: outcome unknown",
            Code::DiskFull => "errors: disk full",
            Code::ContextMalformed | Code::NoSuchShard | Code::Internal => "errors: others",
        });
        if matches!(code, Code::ContextMalformed | Code::NoSuchShard | Code::Internal) && !self.is_of_lost_maps(code) {
            self.fail(format!("{:?} of key {} is answered {code:?}", asked.kind, asked.key));
        }
        if code != Code::OutcomeUnknown {
            self.nothing_written(asked, "an error");
        } else if asked.write.is_none() {
            self.fail(format!("the outcome of a read of key {} is unknown", asked.key));
        }
        None
    }

    /// Whether an error may be the fate of a session that saw maps which only those had who were given up: to begin anew
    /// is all that is left to it.
    pub fn is_of_lost_maps(&mut self, code: Code) -> bool {
        let recovered = self.newest().is_some_and(|map| !map.line.forks().is_empty());
        let lost = code == Code::ContextMalformed && recovered;
        if lost {
            self.oracle.coverage.hit("sessions: of maps that were lost");
        }
        lost
    }

    /// The answer promises that nothing was written.
    fn nothing_written(&mut self, asked: &Asked, answer: &str) {
        let Some(write) = asked.write else { return };
        let exists = |v: &VersionId| !self.oracle.versions[*v].gone;
        if let Some(version) = self.oracle.writes[write].version.filter(exists) {
            self.fail(format!("{} exists, but was answered with {answer}", self.oracle.name(version)));
        }
        self.oracle.writes[write].refused = true;
    }

    /// An answer reaches its client.
    pub fn answer(&mut self, c: usize, serial: u64, session: Option<Box<Session>>) {
        if self.clients[c].waits != Some(serial) {
            return;
        }
        self.clients[c].waits = None;
        self.record(|recorder| recorder.answered(serial, self.now));
        if let Some(session) = session {
            self.clients[c].session = *session;
        }
        self.next_request(c);
    }

    /// A client waits no longer.
    pub fn give_up(&mut self, c: usize, serial: u64) {
        if self.clients[c].waits == Some(serial) {
            self.oracle.coverage.hit("requests: client gave up");
            self.clients[c].waits = None;
            self.next_request(c);
        }
    }

    fn next_request(&mut self, c: usize) {
        if self.quiet {
            return;
        }
        let pause = match self.random.percent(2) {
            true => self.random.within(1, self.settings.sleep_ms),
            false => self.random.within(1, self.settings.think_ms),
        };
        self.agenda.at(self.now + pause, Event::Client { client: c });
    }

    /// A request must have been answered by now. For one that came while its process stood still, time begins with the
    /// process's going on: till then nobody knew of it.
    pub fn overdue(&mut self, serial: u64) {
        let Some(asked) = self.asked.get(&serial) else { return };
        let until_ms = self.nodes[asked.node].paused_until_ms;
        let due_ms = until_ms + asked.budget_ms + settles::SLACK_MS;
        if until_ms > asked.at_ms && self.now < due_ms {
            return self.agenda.at(due_ms, Event::Overdue { serial });
        }
        self.judge(settles::overdue(&self.asked, serial));
    }

    /// The requests of a process that died have no answer.
    pub fn forget_requests(&mut self, requests: &BTreeMap<RequestId, u64>) {
        for serial in requests.values() {
            self.asked.remove(serial);
        }
    }
}
