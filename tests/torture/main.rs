//! Torture of real nodes: processes under a recorded load, with every fault that this machine can bring about.
//!
//! A run is one cluster of six nodes, one fault, alone or in the middle of a reshard, and the judgement of all that twelve
//! sessions saw meanwhile (`round`). Afterwards all nodes must be ready and in each other's view within 10 s, show the same
//! within 10 s, the history must be causally convergent with what every node holds at the end (docs/histories.md), and
//! every acknowledged write be there, or followed by what is. docs/reliability.md keeps the table.
//!
//! ```console
//! cargo test --release --test torture -- --ignored --nocapture short what_must_be_lost_is_found
//! ENTAIL_TORTURE_ROUNDS=10 cargo test --release --test torture -- --ignored --nocapture long
//! ```
//!
//! | variable | meaning |
//! |---|---|
//! | `ENTAIL_TORTURE_ROUNDS` | how often `long` runs each fault, alone and with a reshard each; 1 |
//! | `ENTAIL_TORTURE_SECONDS` | the longest that a fault lasts; 4 |
//! | `ENTAIL_TORTURE_SEED` | what chance begins with; 1. It repeats what is done, not when |
//! | `ENTAIL_TORTURE_FAULTS` | only faults whose name has one of these in it, divided by commas |
//! | `ENTAIL_TORTURE_NODES` | further settings of the nodes, `NAME=VALUE,…`; with `WRITE_COPIES=1` wiped disks lose writes |
//! | `ENTAIL_TORTURE_LACKING` | `allowed`: a fault that the machine can't bring about is no failure |
//!
//! Networks, disks and clocks need root and programs of the machine (iproute2, iptables, e2fsprogs, faketime); disks
//! that ail need root and /dev/fuse. What is wrong is left in the directory that the failure names: the history, and
//! what every node said.

mod ailing;
#[expect(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/client.rs"]
mod client;
mod disks;
mod faults;
mod fuse;
#[expect(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/harness.rs"]
mod harness;
mod ills;
#[expect(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/inspect.rs"]
mod inspect;
#[expect(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/keys.rs"]
mod keys;
#[expect(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/load.rs"]
mod load;
mod losing;
mod machine;
mod network;
#[expect(dead_code, reason = "tests/sim uses more of it")]
#[path = "../sim/random.rs"]
mod random;
mod recorder;
mod rig;
mod round;
mod table;
mod tree;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use faults::{FAULTS, Fault};
use random::Random;
use rig::Rig;
use table::Table;

/// What the environment asks for.
struct Settings {
    rounds: u64,
    longest: Duration,
    seed: u64,
    faults: String,
    lacking: bool,
    /// Further settings of the nodes.
    nodes: Vec<(&'static str, &'static str)>,
}

impl Settings {
    fn read() -> Self {
        let number = |name, default| {
            std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
        };
        Self {
            rounds: number("ENTAIL_TORTURE_ROUNDS", 1),
            longest: Duration::from_secs(number("ENTAIL_TORTURE_SECONDS", 4)),
            seed: number("ENTAIL_TORTURE_SEED", 1),
            faults: std::env::var("ENTAIL_TORTURE_FAULTS").unwrap_or_default(),
            nodes: std::env::var("ENTAIL_TORTURE_NODES").map_or_else(|_| Vec::new(), node_settings),
            lacking: std::env::var("ENTAIL_TORTURE_LACKING").is_ok_and(|text| text == "allowed"),
        }
    }

    fn faults(&self) -> impl Iterator<Item = (u64, &'static Fault)> {
        let wanted = |fault: &&Fault| self.faults.split(',').any(|part| fault.name.contains(part));
        (0..).zip(FAULTS.iter().filter(wanted))
    }
}

/// `NAME=VALUE,…`
fn node_settings(text: String) -> Vec<(&'static str, &'static str)> {
    let all: &'static str = text.leak();
    all.split(',').map(|one| one.split_once('=').expect("a setting is NAME=VALUE")).collect()
}

/// Where what is wrong with a run is left: names begin with this path.
fn kept(run: &str) -> PathBuf {
    let keep = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("torture");
    std::fs::create_dir_all(&keep).expect("a directory for what is wrong");
    keep.join(run)
}

/// Runs a fault once, on nodes of its own, and enters what came of it.
fn once(fault: &Fault, resharding: bool, seed: u64, settings: &Settings, table: &mut Table) {
    let suffix = if resharding { "-reshard" } else { "" };
    let keep = kept(&format!("{}{suffix}-{seed}", fault.name.replace(' ', "-")));
    let random = Random::new(2 * seed + u64::from(resharding));
    let mut rig = match Rig::new(fault.needs, random, settings) {
        Ok(rig) => rig,
        Err(lacking) => return table.lacks(fault.name, &lacking),
    };
    let run = AssertUnwindSafe(|| round::run(fault, &mut rig, resharding, &keep));
    let outcome = catch_unwind(run).map_err(table::words);
    if outcome.as_ref().map_or(true, |outcomes| !outcomes.wrong.is_empty()) {
        round::keep_logs(&rig, &keep);
    }
    table.enter(fault.name, resharding, seed, outcome, &keep);
}

#[test]
#[ignore = "takes minutes and needs root; a stage of its own in .ci/run"]
fn short() {
    let (settings, mut table) = (Settings::read(), Table::default());
    for (number, fault) in settings.faults() {
        once(fault, (number + settings.seed) % 2 == 1, settings.seed, &settings, &mut table);
    }
    table.finish(settings.lacking);
}

#[test]
#[ignore = "takes as long as it is told to, and needs root"]
fn long() {
    let (settings, mut table) = (Settings::read(), Table::default());
    for round in 0..settings.rounds {
        for (_, fault) in settings.faults() {
            for resharding in [false, true] {
                once(fault, resharding, settings.seed + round, &settings, &mut table);
            }
        }
        table.show();
    }
    table.finish(settings.lacking);
}
