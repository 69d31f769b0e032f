//! Which fault met whom: what a node was to the partitions when something befell it, and which steps of reconciliation
//! were on their way then. Two tables, printed by every sweep, so that no run is vacuous.

use std::fmt;

use entail::cluster::map::{ClusterMap, PeerState};
use entail::types::{Incarnation, NodeAddr};

use crate::coverage::Coverage;
use crate::world::World;

/// What befalls a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Its process dies and starts again.
    Crash,
    /// … with all others.
    CrashAll,
    /// Its process dies, and its disk with it, for good.
    Death,
    /// Its process dies, and starts with an empty disk.
    LostDisk,
    /// Nothing passes between it and the others.
    CutOff,
    /// The others do not hear it.
    Unheard,
    /// It does not hear the others.
    Deaf,
    /// Its process stands still for a while, and goes on.
    Pause,
    /// The operator gives it up.
    Forget,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Crash,
        Self::CrashAll,
        Self::Death,
        Self::LostDisk,
        Self::CutOff,
        Self::Unheard,
        Self::Deaf,
        Self::Pause,
        Self::Forget,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Crash => "crash",
            Self::CrashAll => "crash of all",
            Self::Death => "death",
            Self::LostDisk => "lost disk",
            Self::CutOff => "cut off",
            Self::Unheard => "unheard",
            Self::Deaf => "deaf",
            Self::Pause => "pause",
            Self::Forget => "forget",
        })
    }
}

/// What a node is to the partitions, or to the map.
pub const ROLES: &[&str] = &["Joining", "Serving", "Leaving", "source", "proposer", "voter", "taken out"];

/// The steps of reconciliation.
pub const STEPS: &[&str] = &[
    "JoinerGone",
    "JoinerUnwanted",
    "JoinerStalled",
    "Lost",
    "LostByWord",
    "Promoted",
    "PromotedFromLeaving",
    "LeftAbsent",
    "LeftUnwanted",
    "Closed",
    "ClosedLost",
    "Joined",
    "JoinedFromLeaving",
    "BegunEmpty",
];

/// What goes wrong around all nodes, or at any of them, while they go on.
pub const AROUND: &[&str] = &[
    "clock jumped",
    "disk full",
    "disk or node slow",
    "links slow",
    "links broken",
    "messages lost",
    "messages doubled",
    "cut in two",
    "cut to a bridge",
    "cut to a ring",
];

/// For so long after a jump of a clock, or a break of connections, a step has met it, in milliseconds.
const AFTERWARDS_MS: u64 = 2_000;

/// A node that was asked for a fill, or gave some of one, so lately is the source of one, in milliseconds.
const SOURCE_MS: u64 = 300;

impl World {
    /// What a node is right now: the states of its stays, whether it gives a fill, and, while partitions move, whether
    /// it decides on that.
    pub fn roles(&self, n: usize) -> Vec<&'static str> {
        let Some(map) = self.newest().filter(|_| self.settings.maps()) else { return Vec::new() };
        let node = &self.nodes[n];
        let Some(mine) = node.incarnation else { return Vec::new() };
        let running = |addr: &&NodeAddr| self.nodes[self.node_index(addr)].process.is_some();
        let voters = map.voters.iter().filter_map(|voter| map.address_of(*voter));
        let mut roles = roles_in(map, mine);
        if node.gave_ms.is_some_and(|gave| self.now < gave + SOURCE_MS) {
            roles.push("source");
        }
        if moves(map) && voters.filter(running).min() == Some(&node.addr) {
            roles.push("proposer");
        }
        roles
    }

    /// A fault is about to meet a node: in which roles, and during which steps of the newest map.
    pub fn meets(&mut self, n: usize, fault: Fault) {
        for role in self.roles(n) {
            self.oracle.coverage.hit(format!("met: {fault}: {role}"));
        }
        for step in &self.steps {
            self.oracle.coverage.hit(format!("row: {fault}: {step}"));
        }
    }

    /// A new map takes steps and gives up some disks: what they were under the map before, and which faults last.
    pub fn steps_meet(&mut self, steps: Vec<&'static str>, forgotten: &[Incarnation]) {
        let Some(was) = self.newest().cloned() else { return };
        for role in forgotten.iter().flat_map(|incarnation| roles_in(&was, *incarnation)) {
            self.oracle.coverage.hit(format!("met: {}: {role}", Fault::Forget));
        }
        let mut faults: Vec<Fault> = self.nodes.iter().filter_map(|node| node.down_by).collect();
        faults.extend(self.nodes.iter().filter(|node| self.now < node.paused_until_ms).map(|_| Fault::Pause));
        faults.extend(self.network.one_is);
        faults.extend((!forgotten.is_empty()).then_some(Fault::Forget));
        faults.sort_unstable();
        faults.dedup();
        let around = self.around();
        for step in &steps {
            for what in &around {
                self.oracle.coverage.hit(format!("around: {what}: {step}"));
            }
            for fault in &faults {
                self.oracle.coverage.hit(format!("row: {fault}: {step}"));
            }
        }
        self.steps = steps;
    }
}

impl World {
    /// What goes wrong around all right now.
    fn around(&self) -> Vec<&'static str> {
        let lately = |at: Option<u64>| at.is_some_and(|at| self.now < at + AFTERWARDS_MS);
        let mut running = self.nodes.iter().filter(|node| node.process.is_some());
        let slow = running.clone().any(|node| node.stall_ms > 0 || node.sync_ms > self.settings.sync_ms);
        let all = [
            ("clock jumped", lately(self.jumped_ms)),
            ("disk full", running.any(|node| node.full)),
            ("disk or node slow", slow),
            ("links slow", self.network.lag_ms.iter().flatten().flatten().any(|ms| *ms > 0)),
            ("links broken", lately(self.broke_ms)),
            ("messages lost", self.settings.loss > 0),
            ("messages doubled", self.settings.twice > 0),
        ];
        let holds = all.into_iter().filter(|(_, holds)| *holds).map(|(what, _)| what);
        holds.chain(self.network.shape).collect()
    }

    /// A target is set, or gone: who is cut off from before it until after it misses the whole transition.
    pub fn targets_meet(&mut self, (was, is): (bool, bool)) {
        let cut = self.network.one_is.map(|_| self.network.cuts);
        if !was && is {
            self.target_cut = cut;
        }
        if was && !is && cut.is_some() && self.target_cut == cut {
            self.oracle.coverage.hit("cut off: for a whole transition");
        }
    }
}

/// What a map says that an incarnation is.
fn roles_in(map: &ClusterMap, mine: Incarnation) -> Vec<&'static str> {
    let is = |state: PeerState| {
        let mut peers = map.rows.iter().flat_map(|row| row.peers.values());
        peers.any(|peer| peer.incarnation == mine && peer.state == state)
    };
    let address = map.address_of(mine).or_else(|| map.former.get(&mine));
    let roles = [
        ("Joining", is(PeerState::Joining)),
        ("Serving", is(PeerState::Serving)),
        ("Leaving", is(PeerState::Leaving)),
        ("voter", moves(map) && map.voters.contains(&mine)),
        ("taken out", address.is_some_and(|address| map.out.contains(address))),
    ];
    roles.into_iter().filter(|(_, is)| *is).map(|(role, _)| role).collect()
}

/// Whether partitions move under a map.
pub fn moves(map: &ClusterMap) -> bool {
    map.rows.iter().any(|row| row.peers.values().any(|peer| !peer.serves()))
}

/// Steps that few histories take: each is seen, but not under every fault. Nobody serves a partition only when all who
/// did are given up; a fill stands still, and a peer is absent, only after half a minute, or a whole one, of the same.
const RARE: &[&str] = &["JoinerStalled", "LeftAbsent", "JoinedFromLeaving", "PromotedFromLeaving", "BegunEmpty"];

/// Roles in which the operator's word meets nobody: who is given up is not heard, and so gives nothing and leads nobody.
const NEVER_FORGOTTEN: &[&str] = &["source", "proposer"];

/// Steps that few histories take while a cut of one of these shapes lasts, a few seconds in the whole of some.
const SELDOM_CUT: &[&str] = &["JoinerGone", "JoinerUnwanted"];

/// The pairs that were to meet, and did not.
pub fn unmet(coverage: &Coverage) -> Vec<String> {
    let cannot = |fault: Fault, role: &str| fault == Fault::Forget && NEVER_FORGOTTEN.contains(&role);
    let mut wanted: Vec<String> = RARE.iter().map(|step| format!("step: {step}")).collect();
    for &fault in Fault::ALL {
        let roles = ROLES.iter().filter(|role| !cannot(fault, role));
        wanted.extend(roles.map(|role| format!("met: {fault}: {role}")));
        let steps = STEPS.iter().filter(|step| !RARE.contains(step));
        wanted.extend(steps.map(|step| format!("row: {fault}: {step}")));
    }
    for around in AROUND {
        let seldom = |step: &str| around.starts_with("cut") && SELDOM_CUT.contains(&step);
        let steps = STEPS.iter().filter(|step| !RARE.contains(step) && !seldom(step));
        wanted.extend(steps.map(|step| format!("around: {around}: {step}")));
    }
    wanted.retain(|pair| coverage.count(pair) == 0);
    wanted
}

/// How often each fault met each of these.
pub fn table(coverage: &Coverage, kind: &str, whats: &[&str]) -> String {
    let mut text = format!("{kind:>20}");
    for fault in Fault::ALL {
        text += &format!("{fault:>13}");
    }
    for what in whats {
        text += &format!("\n{what:>20}");
        for fault in Fault::ALL {
            text += &format!("{:>13}", coverage.count(&format!("{kind}: {fault}: {what}")));
        }
    }
    text + "\n"
}

/// How often each step was taken while each of these went wrong around.
pub fn table_around(coverage: &Coverage) -> String {
    let mut text = format!("{:>20}", "around");
    for what in AROUND {
        text += &format!("{what:>19}");
    }
    for step in STEPS {
        text += &format!("\n{step:>20}");
        for what in AROUND {
            text += &format!("{:>19}", coverage.count(&format!("around: {what}: {step}")));
        }
    }
    text + "\n"
}
