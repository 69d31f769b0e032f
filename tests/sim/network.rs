//! The network: connections that come and go, messages that are lost, late, doubled or overtaken.
//!
//! Harsher than the streams of production: messages of one connection may overtake each other, arrive twice or not at
//! all. Only what production promises holds: a message reaches the process that the connection was made to or nobody,
//! and a forwarded request, and the answer to it, arrives at most once.

use entail::machine::message::{Input, Message};
use entail::types::NodeAddr;

use crate::event::{Envelope, Event};
use crate::met::Fault;
use crate::node::Incoming;
use crate::oracle::Shown;
use crate::world::World;

/// The state of all links, each by sender and receiver.
#[derive(Clone, Debug)]
pub struct Network {
    /// Nothing passes.
    pub cut: Vec<Vec<bool>>,
    /// Which cut it is: a heal ends only its own.
    pub cuts: u64,
    /// What the cut does to one node, if it is one of one node.
    pub one_is: Option<Fault>,
    /// What it is, if it is one of many nodes.
    pub shape: Option<&'static str>,
    /// The sender's connection.
    pub links: Vec<Vec<Option<Link>>>,
    /// How late operations, fills, words of progress, and all else may be, in milliseconds.
    pub lag_ms: Vec<Vec<[u64; 4]>>,
    /// Messages that a script holds back, and those that it has.
    pub holds: Vec<Hold>,
    held: Vec<(usize, u32, Box<Envelope>)>,
    made: u64,
}

/// What a script holds back: messages of some kind from one node to another; `None` is any.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// The sender.
    pub from: Option<usize>,
    /// The receiver.
    pub to: Option<usize>,
    /// Which messages.
    pub what: fn(&Message) -> bool,
}

impl Hold {
    fn holds(&self, from: usize, to: usize, message: &Message) -> bool {
        self.from.is_none_or(|n| n == from) && self.to.is_none_or(|n| n == to) && (self.what)(message)
    }
}

/// A connection as its maker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Never used twice.
    pub number: u64,
    /// The process it was made to.
    pub to_boot: u32,
}

impl Network {
    /// A network without connections.
    pub fn new(nodes: usize) -> Self {
        Self {
            cut: vec![vec![false; nodes]; nodes],
            cuts: 0,
            one_is: None,
            shape: None,
            links: vec![vec![None; nodes]; nodes],
            lag_ms: vec![vec![[0; 4]; nodes]; nodes],
            holds: Vec::new(),
            held: Vec::new(),
            made: 0,
        }
    }

    /// True when nothing passes in one direction at least: no connection can be made.
    pub fn severed(&self, a: usize, b: usize) -> bool {
        self.cut[a][b] || self.cut[b][a]
    }
}

fn is_forward(message: &Message) -> bool {
    matches!(message, Message::Forward { .. } | Message::ForwardReply { .. } | Message::ForwardRefused { .. })
}

/// Which of a link's delays applies.
fn class(message: &Message) -> usize {
    match message {
        Message::Operations { .. } => 0,
        Message::FillChunk(_) | Message::FillRequest { .. } | Message::FillNext { .. } => 1,
        Message::Report(_) | Message::Stability(_) => 2,
        _ => 3,
    }
}

impl World {
    /// The index of a node's address.
    pub fn node_index(&self, addr: &NodeAddr) -> usize {
        self.nodes.iter().position(|node| node.addr == *addr).expect("machines only name nodes of the view")
    }

    /// A machine sends a message.
    pub fn send(&mut self, from: usize, to: &NodeAddr, message: Message, shown: Option<Box<Shown>>) {
        let to = self.node_index(to);
        if to == from {
            return self.fail(format!("node{} sends to itself: {message:?}", from + 1));
        }
        let Some(link) = self.network.links[from][to] else {
            self.oracle.coverage.hit("network: no connection");
            if let Message::Forward { id, .. } = message {
                self.give(from, Input::NotSent { id });
            }
            return;
        };
        if self.network.cut[from][to] || self.random.next() % 1000 < self.settings.loss {
            self.oracle.coverage.hit("network: lost");
            return;
        }
        if !self.is_linked(from, to) {
            // What answers is not the process that the connection was made to.
            self.plan_break(from, to, (1, 10), false);
            return;
        }
        let incarnation = self.machine(from).incarnation();
        let held = self.network.holds.iter().any(|hold| hold.holds(from, to, &message));
        if held {
            let envelope = Box::new(Envelope { from, incarnation, message, shown });
            return self.network.held.push((to, link.to_boot, envelope));
        }
        let twice = !is_forward(&message) && self.random.percent(self.settings.twice);
        let envelope = Box::new(Envelope { from, incarnation, message, shown });
        if twice {
            self.oracle.coverage.hit("network: doubled");
            let again = self.now + self.random.within(1, if self.random.clone().percent(80) { 60 } else { 900 });
            self.agenda.at(again, Event::Deliver { to, boot: link.to_boot, envelope: envelope.clone() });
        }
        let delay = self.delay(from, to, &envelope.message);
        self.agenda.at(self.now + delay, Event::Deliver { to, boot: link.to_boot, envelope });
    }

    fn delay(&mut self, from: usize, to: usize, message: &Message) -> u64 {
        let lag = self.network.lag_ms[from][to][class(message)];
        let base = match self.random.percent(self.settings.late) {
            true => self.random.within(10, 200),
            false => self.random.within(1, 5),
        };
        base + if lag > 0 { self.random.within(lag / 2, lag) } else { 0 }
    }

    /// Lets the first that is held back go on its way now.
    pub fn let_first_go(&mut self) {
        if !self.network.held.is_empty() {
            let (to, boot, envelope) = self.network.held.remove(0);
            self.agenda.at(self.now + 1, Event::Deliver { to, boot, envelope });
        }
    }

    /// Lets what is held back go on its way now, in order, or drops it.
    pub fn let_go(&mut self, deliver: bool) {
        for (to, boot, envelope) in std::mem::take(&mut self.network.held) {
            if deliver {
                self.agenda.at(self.now + 1, Event::Deliver { to, boot, envelope });
            }
        }
    }

    /// A message arrives, if the process is still the one that it was sent to.
    pub fn deliver(&mut self, to: usize, boot: u32, envelope: Envelope) {
        if !self.nodes[to].runs(boot) {
            return;
        }
        let Envelope { from, incarnation, message, shown } = envelope;
        if let Message::Forward { id, request, .. } = &message
            && let Some(key) = self.key_of(request)
        {
            self.oracle.coverage.hit("requests: forwarded");
            self.process(to).serving.insert((from, *id), key);
        }
        let from = self.nodes[from].addr.clone();
        self.take(to, Incoming { input: Input::Message { from, incarnation, message }, shown });
    }

    /// A node tries to connect to another.
    pub fn dial(&mut self, from: usize, boot: u32, to: usize) {
        if !self.nodes[from].runs(boot) || self.network.links[from][to].is_some() {
            return;
        }
        let peer = self.nodes[to].addr.clone();
        if self.network.severed(from, to) || self.now < self.nodes[to].paused_until_ms {
            let again = self.now + self.random.within(100, 500);
            self.agenda.at(again, Event::Dial { from, boot, to });
            return;
        }
        let Some(process) = &self.nodes[to].process else {
            self.give(from, Input::Disconnected { peer, refused: true });
            let again = self.now + self.random.within(50, 400);
            self.agenda.at(again, Event::Dial { from, boot, to });
            return;
        };
        let incarnation = process.machine.incarnation();
        self.network.made += 1;
        self.network.links[from][to] = Some(Link { number: self.network.made, to_boot: self.nodes[to].boot });
        self.give(from, Input::Connected { peer, incarnation });
    }

    /// A node notices that a connection broke: because it was cut, the other process died, or for no reason.
    pub fn break_link(&mut self, from: usize, boot: u32, to: usize, number: u64) {
        let same = self.network.links[from][to].is_some_and(|link| link.number == number);
        if !self.nodes[from].runs(boot) || !same {
            return;
        }
        self.oracle.coverage.hit("network: connection broken");
        self.network.links[from][to] = None;
        let peer = self.nodes[to].addr.clone();
        self.give(from, Input::Disconnected { peer, refused: false });
        let again = self.now + self.random.within(1, 150);
        self.agenda.at(again, Event::Dial { from, boot, to });
    }

    /// True when the connection stands, to the process that runs now.
    pub fn is_linked(&self, from: usize, to: usize) -> bool {
        self.network.links[from][to].is_some_and(|link| link.to_boot == self.nodes[to].boot)
    }

    /// Plans that a connection, if there is one, breaks within these milliseconds; only if it is cut then, if so said.
    pub fn plan_break(&mut self, from: usize, to: usize, within: (u64, u64), if_cut: bool) {
        if let Some(link) = self.network.links[from][to] {
            let when = self.now + self.random.within(within.0, within.1);
            let boot = self.nodes[from].boot;
            self.agenda.at(when, Event::Break { from, boot, to, link: link.number, if_cut });
        }
    }
}
