//! Profiles: which faults a run has, how often, and how large the store is. A seed draws the rest.

use crate::random::Random;

/// How the faults of a run are weighed against each other; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// One process dies.
    pub crash: u64,
    /// All processes die at once.
    pub crash_all: u64,
    /// The network is cut somewhere.
    pub cut: u64,
    /// A clock jumps.
    pub skew: u64,
    /// A node, or its disk, becomes slow, or quick again.
    pub slow: u64,
    /// Connections break and are made anew.
    pub links: u64,
    /// Some links carry some kinds of message late.
    pub lag: u64,
    /// A disk is full for a while.
    pub full: u64,
    /// A process dies and its disk with it; it comes back with an empty one.
    pub wipe: u64,
    /// A process dies and its disk with it, for good; the operator gives it up later.
    pub dead: u64,
    /// Most voters do; the operator goes on without them later.
    pub majority: u64,
    /// One that chooses its victim by what it is just then.
    pub aimed: u64,
}

/// All that makes a run, beside the rules.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nodes of `VIEW`.
    pub nodes: usize,
    /// Nodes that are in no `VIEW`: they start later, each knowing one other.
    pub late_nodes: usize,
    /// How many changes of the map operators ask for; with none, the map stays what it is.
    pub changes: u64,
    /// Milliseconds between two of them, at most.
    pub change_gap_ms: u64,
    /// The longest pause between two ticks, in milliseconds.
    pub tick_ms: u64,
    /// Shards.
    pub shards: u32,
    /// Partitions.
    pub partitions: u32,
    /// Different keys.
    pub keys: usize,
    /// How many requests, in percent, go to the first two keys.
    pub hot: u64,
    /// Sessions.
    pub clients: usize,
    /// Requests in all.
    pub requests: u64,
    /// The longest pause of a client between two requests, in milliseconds.
    pub think_ms: u64,
    /// Deletes, in percent of the requests.
    pub deletes: u64,
    /// Reads, in percent of the requests.
    pub reads: u64,
    /// Now and then a client is asleep this long at most, in milliseconds.
    pub sleep_ms: u64,
    /// Messages lost, in a thousand.
    pub loss: u64,
    /// Messages that arrive twice, in percent.
    pub twice: u64,
    /// Messages that arrive late, in percent.
    pub late: u64,
    /// Milliseconds between two faults, at most.
    pub fault_gap_ms: u64,
    /// Which faults.
    pub faults: Faults,
    /// How long a cut lasts at most, in milliseconds.
    pub cut_ms: u64,
    /// How long a disk is full at most, in milliseconds.
    pub full_ms: u64,
    /// How long a process is down at most, in milliseconds.
    pub down_ms: u64,
    /// How long a sync takes at most, in milliseconds.
    pub sync_ms: u64,
    /// `WRITE_COPIES`.
    pub write_copies: u32,
    /// The machine's bound on waiting operations, in bytes.
    pub max_unapplied_bytes: usize,
    /// The machine's bound on waiting requests.
    pub max_waiting: usize,
    /// The largest filling of a value, in bytes: what makes a fill take several chunks.
    pub value_bytes: u64,
    /// Late links carry operations very late: what is lacking comes by fills.
    pub slow_operations: bool,
    /// One node's disk is lost for good when the rest heals.
    pub dead: bool,
    /// How many new maps under which partitions move, in percent, bring another fault.
    pub strikes: u64,
    /// Bytes of fills that a node gives a second.
    pub fill_bytes: u64,
    /// How long an empty node listens before it founds a store, in milliseconds.
    pub listen_ms: u64,
    /// How long a node rests after each turn with work in it that nobody waits for, in milliseconds.
    pub rest_ms: u64,
    /// Disks are lost that hold the last copies.
    pub careless: bool,
    /// Nodes start up to this many milliseconds apart.
    pub start_ms: u64,
    /// The mean of clocks' errors at the start, in milliseconds.
    pub skew_ms: u64,
}

impl Settings {
    /// Whether the map changes.
    pub fn maps(&self) -> bool {
        self.changes > 0
    }
}

/// The profiles, by name.
pub const PROFILES: &[&str] = &[
    "std", "crash", "cut", "lag", "tomb", "skew", "calm", "birth", "dead", "flap", "bulk", "fill", "reshard", "move",
    "wipe", "away", "forget", "recover", "aimed", "storm",
];

/// Whose turn it is, seed by seed, in the sweep of the test command: in most runs the map changes.
pub const MIX: &[&str] = &[
    "std", "aimed", "crash", "move", "cut", "aimed", "lag", "wipe", "tomb", "aimed", "skew", "forget", "calm", "aimed",
    "birth", "reshard", "dead", "aimed", "flap", "move", "bulk", "away", "fill", "aimed", "forget", "wipe", "recover",
    "aimed", "storm", "storm", "storm",
];

/// The settings of one run.
///
/// # Panics
/// On a name that is not in [`PROFILES`].
pub fn settings(profile: &str, random: &mut Random) -> Settings {
    let mut s = standard(random);
    match profile {
        "std" => {}
        "crash" => crash(&mut s, random),
        "cut" => {
            s.faults = Faults { cut: 8, crash: 1, links: 1, slow: 1, ..Faults::default() };
            s.cut_ms = random.pick(&[1500, 5000, 9000]);
        }
        "lag" => lag(&mut s, random),
        "tomb" => tombstones(&mut s, random),
        "skew" => {
            s.faults = Faults { skew: 8, crash: 3, cut: 1, lag: 2, ..Faults::default() };
            s.skew_ms = random.pick(&[500, 5000]);
            s.deletes = 20;
            s.hot = 70;
        }
        "calm" => {
            s.faults = Faults { slow: 1, ..Faults::default() };
            (s.loss, s.fault_gap_ms) = (0, 4000);
        }
        "birth" => {
            s.start_ms = random.pick(&[200, 3000, 8000]);
            s.faults = Faults { crash: 6, cut: 4, links: 2, ..Faults::default() };
            s.fault_gap_ms = 300;
            s.requests = 300;
        }
        "dead" => {
            (s.dead, s.shards, s.nodes) = (true, 1, random.within(2, 3) as usize);
            s.faults = Faults { crash: 3, cut: 3, slow: 2, lag: 2, ..Faults::default() };
        }
        "flap" => {
            s.faults = Faults { links: 10, cut: 4, crash: 3, ..Faults::default() };
            (s.fault_gap_ms, s.cut_ms) = (120, 400);
        }
        "bulk" => {
            s.value_bytes = 40_000;
            (s.keys, s.hot, s.reads, s.deletes) = (60, 10, 25, 5);
            s.partitions = s.shards.max(2);
            (s.down_ms, s.cut_ms, s.requests) = (6000, 6000, 400);
            s.loss = random.pick(&[0, 20, 120]);
            s.faults = Faults { crash: 6, cut: 5, links: 2, lag: 1, ..Faults::default() };
        }
        "fill" => {
            (s.value_bytes, s.slow_operations) = (60_000, true);
            (s.nodes, s.shards, s.partitions) = (random.within(3, 4) as usize, 1, 2);
            (s.keys, s.hot, s.reads, s.deletes, s.think_ms) = (70, 5, 25, 8, 25);
            (s.down_ms, s.requests, s.fault_gap_ms, s.dead) = (4000, 500, 500, random.percent(40));
            s.loss = random.pick(&[0, 20, 80]);
            s.faults = Faults { lag: 8, crash: 5, cut: 3, links: 2, ..Faults::default() };
        }
        "reshard" => transitions(&mut s, random, Faults { slow: 1, ..Faults::default() }),
        "move" => {
            let faults = Faults { crash: 5, cut: 4, slow: 2, links: 2, lag: 3, skew: 1, full: 1, ..Faults::default() };
            transitions(&mut s, random, faults);
            s.loss = random.pick(&[0, 10, 40]);
            s.fault_gap_ms = random.pick(&[900, 3000]);
        }
        "wipe" => {
            transitions(&mut s, random, Faults { wipe: 4, crash: 3, cut: 2, slow: 1, lag: 1, ..Faults::default() });
            s.fault_gap_ms = random.pick(&[2000, 8000]);
        }
        "forget" => {
            let faults = Faults { dead: 3, wipe: 4, crash: 3, cut: 2, slow: 1, lag: 1, ..Faults::default() };
            transitions(&mut s, random, faults);
            s.nodes = random.within(3, 7) as usize;
            (s.fault_gap_ms, s.careless) = (random.pick(&[3000, 8000]), random.percent(40));
            s.rest_ms = random.pick(&[0, 10, 60]);
        }
        "recover" => {
            let faults = Faults { majority: 2, wipe: 1, crash: 4, cut: 3, slow: 1, lag: 1, ..Faults::default() };
            transitions(&mut s, random, faults);
            s.nodes = random.within(3, 7) as usize;
            s.fault_gap_ms = random.pick(&[3000, 8000]);
        }
        "aimed" => {
            let faults = Faults { aimed: 12, dead: 1, lag: 1, slow: 1, links: 1, ..Faults::default() };
            transitions(&mut s, random, faults);
            (s.nodes, s.changes) = (random.within(4, 7) as usize, random.within(12, 24));
            s.shards = random.within(1, (s.nodes / 2) as u64) as u32;
            s.partitions = random.within(u64::from(s.shards), 6) as u32;
            (s.change_gap_ms, s.fault_gap_ms) = (random.pick(&[1_500, 4_000]), random.pick(&[2_000, 8_000]));
            s.strikes = random.pick(&[20, 50, 80]);
        }
        "storm" => {
            // Everything that is named: disks and nodes are lost while clocks jump, disks are full and messages go astray.
            let lost = Faults { wipe: 3, dead: 2, aimed: 4, crash: 3, ..Faults::default() };
            transitions(&mut s, random, Faults { cut: 8, skew: 4, full: 4, links: 3, lag: 2, slow: 1, ..lost });
            (s.nodes, s.changes) = (random.within(4, 6) as usize, random.within(12, 24));
            (s.loss, s.strikes) = (random.pick(&[10, 40]), random.pick(&[15, 50]));
            (s.fault_gap_ms, s.change_gap_ms) = (random.pick(&[600, 2_000]), random.pick(&[1_500, 4_000]));
            // Long enough for an operator to give up a joiner, or to want it elsewhere, meanwhile.
            (s.cut_ms, s.full_ms) = (random.pick(&[2_500, 6_000, 12_000]), random.pick(&[800, 8_000]));
        }
        "away" => {
            transitions(&mut s, random, Faults { cut: 4, crash: 1, ..Faults::default() });
            (s.cut_ms, s.down_ms) = (random.pick(&[20_000, 90_000]), random.pick(&[5_000, 70_000]));
            (s.fault_gap_ms, s.change_gap_ms) = (20_000, 20_000);
            s.rest_ms = random.pick(&[0, 10, 60]);
        }
        other => panic!("no profile is called {other}; there are {PROFILES:?}"),
    }
    s
}

fn standard(random: &mut Random) -> Settings {
    let nodes = random.within(2, 6) as usize;
    let shards = random.within(1, (nodes / 2) as u64) as u32;
    Settings {
        nodes,
        late_nodes: 0,
        changes: 0,
        change_gap_ms: 0,
        tick_ms: 22,
        shards,
        partitions: (random.within(2, 6) as u32).max(shards),
        keys: random.within(4, 10) as usize,
        hot: random.pick(&[30, 50, 70]),
        clients: 6,
        requests: 1_000,
        think_ms: random.pick(&[20, 60, 150]),
        deletes: random.pick(&[6, 14]),
        reads: random.pick(&[45, 55]),
        sleep_ms: 3000,
        loss: random.pick(&[0, 0, 10, 60]),
        twice: random.pick(&[0, 5, 15]),
        late: random.pick(&[0, 3, 15, 40]),
        fault_gap_ms: random.pick(&[400, 900, 2000]),
        faults: Faults {
            crash: 5,
            crash_all: 1,
            cut: 4,
            skew: 1,
            slow: 2,
            links: 1,
            lag: 2,
            full: 1,
            wipe: 0,
            dead: 0,
            majority: 0,
            aimed: 0,
        },
        cut_ms: random.pick(&[800, 2500, 6000]),
        full_ms: 800,
        down_ms: random.pick(&[300, 1500, 5000]),
        sync_ms: random.pick(&[3, 8, 20]),
        write_copies: if random.percent(85) { 2 } else { random.within(1, 3) as u32 },
        max_unapplied_bytes: random.pick(&[600, 4000, 1 << 20]),
        max_waiting: random.pick(&[4, 1000, 1000]),
        value_bytes: 20,
        slow_operations: false,
        dead: false,
        careless: false,
        strikes: 0,
        fill_bytes: 64 << 20,
        listen_ms: 0,
        rest_ms: 0,
        start_ms: 150,
        skew_ms: random.pick(&[0, 0, 300]),
    }
}

/// Who belongs to the store and who holds what changes while clients work.
fn transitions(s: &mut Settings, random: &mut Random, faults: Faults) {
    s.nodes = random.within(2, 6) as usize;
    s.late_nodes = random.within(0, 2) as usize;
    s.shards = random.within(1, (s.nodes / 2) as u64) as u32;
    s.partitions = random.within(u64::from(s.shards).max(2), 8) as u32;
    s.keys = random.within(4, 16) as usize;
    (s.requests, s.think_ms, s.sleep_ms, s.tick_ms) = (1_200, random.pick(&[150, 400]), 12_000, 50);
    s.changes = random.within(4, 24);
    s.change_gap_ms = random.pick(&[1500, 6000]);
    s.write_copies = 2;
    s.loss = 0;
    s.faults = faults;
    s.fault_gap_ms = random.pick(&[900, 3000]);
    s.value_bytes = random.pick(&[20, 30_000]);
    s.fill_bytes = random.pick(&[60_000, 64 << 20]);
    s.strikes = random.pick(&[0, 15, 50]);
}

fn crash(s: &mut Settings, random: &mut Random) {
    s.faults = Faults { crash: 12, crash_all: 2, cut: 1, slow: 3, links: 1, ..Faults::default() };
    s.sync_ms = random.pick(&[8, 30, 80]);
    s.fault_gap_ms = random.pick(&[150, 400]);
    s.down_ms = random.pick(&[200, 1000, 4000]);
}

/// One replica trails far behind while sessions hop between nodes: what makes a stale read likely.
fn lag(s: &mut Settings, random: &mut Random) {
    s.faults = Faults { lag: 8, crash: 1, cut: 2, slow: 1, ..Faults::default() };
    s.nodes = random.within(3, 6) as usize;
    s.shards = random.within(1, (s.nodes / 2) as u64) as u32;
    s.partitions = random.within(2, 4) as u32;
    s.shards = s.shards.min(s.partitions);
    (s.think_ms, s.requests, s.keys) = (12, 1_500, random.within(3, 6) as usize);
    (s.deletes, s.loss) = (random.pick(&[10, 25]), random.pick(&[0, 10]));
    s.write_copies = random.pick(&[1, 2, 2]);
    s.fault_gap_ms = random.pick(&[300, 900]);
}

/// Deletes of few keys: tombstones come, are collected, and must stay dead.
fn tombstones(s: &mut Settings, random: &mut Random) {
    s.faults = Faults { crash: 3, cut: 4, skew: 3, lag: 4, links: 1, ..Faults::default() };
    s.nodes = random.within(3, 6) as usize;
    s.shards = random.within(1, 2.min(s.nodes as u64 / 2)) as u32;
    (s.deletes, s.reads, s.keys, s.hot) = (30, 40, random.within(3, 5) as usize, 60);
    s.requests = 1_200;
    s.think_ms = random.pick(&[30, 200]);
    s.fault_gap_ms = random.pick(&[300, 900]);
    s.skew_ms = random.pick(&[0, 300, 3000]);
    s.write_copies = random.pick(&[1, 2]);
}
