//! One simulated node: a disk, clocks that err, and, while it is up, a process that drives the real machine as
//! production's loop does: some inputs, one flush, the effects; a sync that ends later.

use std::collections::{BTreeMap, BTreeSet};

use entail::machine::Machine;
use entail::machine::message::{Input, RequestId, Wanted};
use entail::types::{BatchNo, Epoch, Incarnation, NodeAddr, Now};

use crate::disk::Disk;
use crate::met::Fault;
use crate::oracle::Shown;

/// The wall clock at the beginning of every run, in milliseconds since 1970.
const WALL_MS: u64 = 1_750_000_000_000;

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its address.
    pub addr: NodeAddr,
    /// Counted up at each start and each crash: what belongs to an earlier one is void.
    pub boot: u32,
    /// What it keeps.
    pub disk: Disk,
    /// The process, while it is up.
    pub process: Option<Process>,
    /// How far its wall clock is wrong, in milliseconds.
    pub skew_ms: i64,
    /// How long a sync takes at most, in milliseconds.
    pub sync_ms: u64,
    /// No sync begins.
    pub frozen: bool,
    /// Its disk is full below its reserve.
    pub full: bool,
    /// How long an input waits at most before the loop takes it, in milliseconds; mostly 0.
    pub stall_ms: u64,
    /// Its disk is lost for good.
    pub dead: bool,
    /// It is in no `VIEW`: it starts later, and knows itself and this node.
    pub knows: Option<usize>,
    /// Whose disk it has, once it was started.
    pub incarnation: Option<Incarnation>,
    /// The newest map that it acted under on that disk.
    pub epoch: Epoch,
    /// The operator has given up its disk: the newest map says so, though its process may not know.
    pub given_up: bool,
    /// Why it is down, while it is.
    pub down_by: Option<Fault>,
    /// Until when its process stands still, in the world's milliseconds.
    pub paused_until_ms: u64,
    /// When it was last asked for a fill, or gave some of one.
    pub gave_ms: Option<u64>,
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    /// The machine.
    pub machine: Machine,
    /// What it has not taken yet.
    pub inbox: Vec<Incoming>,
    /// Whether it is about to look into its inbox.
    pub awake: bool,
    /// Whether a sync is under way.
    pub syncing: bool,
    /// The newest batch that is not covered by a sync, as the machine and as the disk count it.
    pub unsynced: Option<(BatchNo, u64)>,
    /// The origin of its monotonic clock.
    pub origin_ms: u64,
    /// Requests of its own clients without an answer.
    pub requests: BTreeMap<RequestId, u64>,
    /// Changes of the map that its own clients asked for, without an answer.
    pub changes: BTreeMap<RequestId, Wanted>,
    /// The nodes that it connects to.
    pub met: BTreeSet<usize>,
    /// Requests that others forwarded: the key's index by forwarder and name.
    pub serving: BTreeMap<(usize, u64), usize>,
}

/// One input, and what the oracle knows of an answer in it.
#[derive(Debug)]
pub struct Incoming {
    /// The input.
    pub input: Input,
    /// What a forwarded read was answered from.
    pub shown: Option<Box<Shown>>,
}

impl Process {
    /// A process around a machine that was just opened.
    pub fn new(machine: Machine, origin_ms: u64) -> Self {
        Self {
            machine,
            inbox: Vec::new(),
            awake: false,
            syncing: false,
            unsynced: None,
            origin_ms,
            requests: BTreeMap::new(),
            changes: BTreeMap::new(),
            met: BTreeSet::new(),
            serving: BTreeMap::new(),
        }
    }
}

impl Node {
    /// A node that was never started.
    pub fn new(addr: NodeAddr, skew_ms: i64, sync_ms: u64) -> Self {
        let disk = Disk::default();
        Self {
            addr,
            boot: 0,
            disk,
            process: None,
            skew_ms,
            sync_ms,
            frozen: false,
            full: false,
            stall_ms: 0,
            dead: false,
            knows: None,
            incarnation: None,
            epoch: Epoch(0),
            given_up: false,
            down_by: None,
            paused_until_ms: 0,
            gave_ms: None,
        }
    }

    /// True while this very process runs.
    pub fn runs(&self, boot: u32) -> bool {
        self.boot == boot && self.process.is_some()
    }

    /// What the node's clocks show.
    pub fn clocks(&self, now_ms: u64) -> Now {
        let origin_ms = self.process.as_ref().map_or(0, |process| process.origin_ms);
        Now { mono_ms: now_ms + origin_ms, wall_ms: (WALL_MS + now_ms).saturating_add_signed(self.skew_ms) }
    }
}
