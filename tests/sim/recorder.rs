//! What clients saw, as records that the checker of histories judges: it knows nothing of the simulator and its oracle.
//!
//! While a run is recorded the oracle only listens: a store with a clause off goes on after the first wrong step, until
//! clients see it, or not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use entail::history::{Op, Outcome, Record};
use entail::machine::message::Response;
use entail::types::PartitionId;

use crate::oracle::{Kind, Session};
use crate::workload::Asked;
use crate::world::World;

/// What clients asked, and what they were told.
#[derive(Debug, Default)]
pub struct Recorder {
    /// By serial number; a request stays unknown until its client has the answer.
    records: BTreeMap<u64, Record>,
    /// Answers that are under way.
    told: BTreeMap<u64, (Outcome, Option<String>)>,
    finals: Vec<Record>,
    /// Disks were lost, and with them more than the answers had promised: such a history may be wrong.
    pub excused: bool,
    /// … but not here: what is lost had to be on more disks than those that the script takes.
    pub strict: bool,
}

/// A recorder that outlives its world, which may panic.
pub type Shared = Rc<RefCell<Recorder>>;

thread_local! {
    static RECORDER: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// The recorder of this thread's runs, when they are recorded.
pub fn current() -> Option<Shared> {
    RECORDER.with_borrow(Clone::clone)
}

/// Records what clients see in a run; none when the run had an excuse to be wrong.
pub fn recorded(run: impl FnOnce()) -> Option<Vec<Record>> {
    let shared = Shared::default();
    RECORDER.set(Some(Rc::clone(&shared)));
    // A script whose answers are not those that it expects panics, and so does a machine now and then: what was seen
    // till then is a history.
    let _ = panic::catch_unwind(AssertUnwindSafe(run));
    RECORDER.set(None);
    let recorder = mem::take(&mut *shared.borrow_mut());
    (recorder.strict || !recorder.excused).then(|| recorder.records.into_values().chain(recorder.finals).collect())
}

/// A context's name in a history: the request whose answer it came with.
fn token(session: &Session) -> String {
    session.token.map(|serial| format!("c{serial}")).unwrap_or_default()
}

impl Recorder {
    /// A client asks.
    pub fn asked(&mut self, serial: u64, asked: &Asked) {
        let op = match asked.kind {
            Some(Kind::Get) => Op::Get,
            Some(Kind::Put) => Op::Put,
            Some(Kind::Delete) => Op::Delete,
            None => return,
        };
        if op != Op::Get {
            // What replicas told is not what they hold at the end.
            self.finals.clear();
        }
        let value = asked.write.filter(|_| op == Op::Put).map(|write| format!("w{write}"));
        let record = Record {
            session: format!("client{}", asked.client),
            op,
            key: format!("key{}", asked.key),
            value,
            context_in: Some(token(&asked.session)),
            context_out: None,
            node: format!("node{}", asked.node + 1),
            start_us: asked.at_ms * 1000,
            end_us: asked.at_ms * 1000,
            outcome: Outcome::Unknown,
        };
        self.records.insert(serial, record);
    }

    /// A node answers; the client does not have it yet.
    pub fn told(&mut self, serial: u64, response: &Response) {
        let told = match response {
            Response::Value { value, .. } => {
                let write = crate::observe::write_of(value).map(|write| format!("w{write}"));
                (Outcome::Ok, write)
            }
            Response::Missing { .. } => (Outcome::Absent, None),
            Response::Written { .. } => (Outcome::Ok, None),
            Response::Error(entail::error::Code::OutcomeUnknown) => (Outcome::Unknown, None),
            Response::Error(_) => (Outcome::Refused, None),
            Response::KeyCount(_) => return,
        };
        self.told.insert(serial, told);
    }

    /// The answer is there.
    pub fn answered(&mut self, serial: u64, now_ms: u64) {
        let Some(record) = self.records.get_mut(&serial) else { return };
        record.end_us = now_ms * 1000;
        let Some((outcome, value)) = self.told.remove(&serial) else { return };
        record.outcome = outcome;
        if matches!(outcome, Outcome::Ok | Outcome::Absent) {
            record.context_out = Some(format!("c{serial}"));
        }
        if record.op == Op::Get {
            record.value = value;
        }
    }

    fn held(&mut self, node: usize, key: usize, value: Option<usize>, now_ms: u64) {
        self.finals.push(Record {
            session: format!("replica at node{}", node + 1),
            op: Op::Final,
            key: format!("key{key}"),
            value: value.map(|write| format!("w{write}")),
            context_in: None,
            context_out: None,
            node: format!("node{}", node + 1),
            start_us: now_ms * 1000,
            end_us: now_ms * 1000,
            outcome: if value.is_some() { Outcome::Ok } else { Outcome::Absent },
        });
    }
}

impl World {
    /// Tells the recorder, if there is one.
    pub fn record(&self, what: impl FnOnce(&mut Recorder)) {
        if let Some(recorder) = &self.recorder {
            what(&mut recorder.borrow_mut());
        }
    }

    /// What each replica that serves holds of each key, after everything else.
    pub fn record_finals(&self) {
        self.record(|recorder| recorder.finals.clear());
        for n in (0..self.nodes.len()).filter(|n| self.nodes[*n].process.is_some()) {
            let served = self.machine(n).partition_status().into_iter();
            for status in served.filter(|status| self.serves(n, status.partition)) {
                for key in (0..self.oracle.keys.len()).filter(|key| self.oracle.partition(*key) == status.partition) {
                    let value = self.item(n, key).and_then(|item| item.value);
                    let write = value.as_deref().and_then(crate::observe::write_of);
                    self.record(|recorder| recorder.held(n, key, write, self.now));
                }
            }
        }
    }

    fn serves(&self, n: usize, partition: PartitionId) -> bool {
        let (mine, map) = (self.nodes[n].incarnation, self.machine(n).map());
        map.row(partition).peers.values().any(|peer| peer.serves() && Some(peer.incarnation) == mine)
    }
}
