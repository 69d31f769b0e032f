//! What is going to happen, in order of time; what was planned first happens first among equals.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use entail::machine::message::Message;
use entail::types::{BatchNo, Incarnation};

use crate::oracle::{Session, Shown};

/// Something that happens at one moment.
#[derive(Debug)]
pub enum Event {
    /// A process is started on its disk.
    Start { node: usize, boot: u32 },
    /// Time passes at a node.
    Tick { node: usize, boot: u32 },
    /// A node works off its inbox.
    Run { node: usize, boot: u32 },
    /// A sync returns.
    SyncEnds { node: usize, boot: u32, batch: BatchNo, applied: u64 },
    /// A message arrives.
    Deliver { to: usize, boot: u32, envelope: Box<Envelope> },
    /// A node tries to connect to another.
    Dial { from: usize, boot: u32, to: usize },
    /// A node notices that a connection is no more.
    Break { from: usize, boot: u32, to: usize, link: u64, if_cut: bool },
    /// A client does its next thing.
    Client { client: usize },
    /// An answer reaches its client.
    Answer { client: usize, serial: u64, session: Option<Box<Session>> },
    /// A client waits no longer.
    GiveUp { client: usize, serial: u64 },
    /// A request must have been answered by now.
    Overdue { serial: u64 },
    /// Something breaks.
    Fault,
    /// Something breaks while partitions move.
    Strike,
    /// The cut of this number ends.
    Heal { cut: u64 },
    /// A full disk has room again.
    Room { node: usize },
    /// An operator asks for a change of the map.
    Operator,
    /// An operator goes on without a majority of the voters.
    Recover,
    /// An operator gives up all nodes that never come back.
    Word,
}

/// A message under way.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The sender.
    pub from: usize,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The message.
    pub message: Message,
    /// What the oracle knows of the answer in it.
    pub shown: Option<Box<Shown>>,
}

/// The future.
#[derive(Debug, Default)]
pub struct Agenda {
    events: BinaryHeap<Planned>,
    planned: u64,
    taken: u64,
}

/// An event, its moment, and the how manieth it is that was planned: the earliest is the greatest.
#[derive(Debug)]
struct Planned(u64, u64, Event);

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Planned {}

impl Agenda {
    /// Plans an event for a moment.
    pub fn at(&mut self, when_ms: u64, event: Event) {
        self.planned += 1;
        self.events.push(Planned(when_ms, self.planned, event));
    }

    /// Takes the next event and its moment.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        let Planned(when_ms, number, event) = self.events.pop()?;
        self.taken = number;
        Some((when_ms, event))
    }

    /// Puts back the event that was taken last.
    pub fn postpone(&mut self, when_ms: u64, event: Event) {
        self.events.push(Planned(when_ms, self.taken, event));
    }
}
