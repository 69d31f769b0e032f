//! Whole nodes in simulation: the real REST and gRPC servers, the real loop and dialling side of four to six nodes, over
//! a simulated network and in virtual time, with clients that speak HTTP.
//!
//! A seed is a run (`plan`): how the store is cut into shards, what links do, when nodes crash (and lose what they had
//! not synced), when links break or stall, when the operator reshards. Clients' histories are judged as those of real
//! nodes are (docs/histories.md), all answers are held against the contract, and at the end all nodes must show the same.
//! Every seed is run twice: both traces (`trace`) must be the same, line by line.
//!
//! ```console
//! cargo test --release --test turmoil -- --nocapture
//! ENTAIL_TURMOIL_SEEDS=1000 cargo test --release --test turmoil -- --nocapture every_seed
//! ENTAIL_TURMOIL_SEED=7 cargo test --release --test turmoil -- --ignored --nocapture one_seed
//! ```

mod client;
mod contract;
mod node;
mod operator;
mod plan;
#[path = "../sim/random.rs"]
mod random;
mod run;
mod sessions;
mod sockets;
mod table;
mod trace;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use entail::machine::rules::{Rule, Rules};

use run::{Twist, run};
use table::Counts;
use trace::{difference, digest};

/// How many seeds are run.
const SEEDS: u64 = 100;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Runs a seed twice; what is wrong with either, or different between them.
fn twice(seed: u64) -> (Counts, Vec<String>) {
    let (first, second) = (run(seed, Twist::NONE), run(seed, Twist::NONE));
    let mut wrong = first.wrong;
    if let Some(difference) = difference(&first.trace, &second.trace) {
        wrong.push(format!("two runs differ, {difference}"));
    }
    let (lines, digest) = (first.trace.len() as u64, digest(&first.trace));
    (Counts { lines, digest, ..first.counts }, wrong)
}

#[test]
fn every_seed_runs_twice_alike_and_rightly() {
    let (seeds, begin) = (setting("ENTAIL_TURMOIL_SEEDS", SEEDS), Instant::now());
    let (next, all, wrong) = (AtomicU64::new(1), Mutex::new(Counts::default()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed <= seeds) {
                    let (counts, found) = twice(seed);
                    all.lock().expect("no thread panics").add(&counts);
                    let found = found.into_iter().map(|what| format!("seed {seed}: {what}"));
                    wrong.lock().expect("no thread panics").extend(found);
                }
            });
        }
    });
    let (all, wrong) = (all.into_inner().expect("no thread panics"), wrong.into_inner().expect("no thread panics"));
    println!("{all}\n{:<28} {:>12.1}", "time, each run twice, s", begin.elapsed().as_secs_f64());
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    let nothing: Vec<_> = all.rows().into_iter().filter(|(_, count)| *count == 0).collect();
    assert!(nothing.is_empty(), "never happened: {nothing:?}");
    assert_eq!((all.runs, all.reshards), (seeds, seeds));
    assert!(all.acknowledged > 50 * seeds, "{} acknowledged writes are few", all.acknowledged);
}

#[test]
fn a_difference_of_a_millisecond_is_found() {
    let late = Duration::from_millis(1);
    let (usual, other) = (run(1, Twist::NONE), run(1, Twist { late, ..Twist::NONE }));
    let found = difference(&usual.trace, &other.trace).expect("the traces differ");
    println!("{found}");
    assert_eq!(difference(&usual.trace, &usual.trace), None);
}

/// The first of so many seeds of which something like this is wrong with this twist, and all that is.
fn first_wrong(twist: Twist, seeds: u64, what: &str) -> Option<(u64, Vec<String>)> {
    let mut runs = (1..=seeds).map(|seed| (seed, run(seed, twist).wrong));
    runs.find(|(_, wrong)| wrong.iter().any(|wrong| wrong.contains(what)))
}

fn without(rule: Rule) -> Twist {
    Twist { rules: Rules::all().without(rule), ..Twist::NONE }
}

#[test]
fn a_stale_read_is_found() {
    let (seed, wrong) = first_wrong(without(Rule::ReadWaits), SEEDS, "WriteCORead").expect("clients see it");
    println!("seed {seed}: {}", wrong[0]);
}

#[test]
fn a_lost_write_is_found() {
    // Either alone sees to it that what follows a write has a greater timestamp, in nearly all runs.
    let rules = Rules::all().without(Rule::ClockMerge).without(Rule::ContextClock);
    let (seed, wrong) = first_wrong(Twist { rules, ..Twist::NONE }, SEEDS, "lost: ").expect("a write is missing");
    println!("seed {seed}: {}", wrong.join("\n"));
}

#[test]
fn an_answer_that_the_contract_does_not_have_is_found() {
    let (seed, wrong) = first_wrong(without(Rule::AckDurable), SEEDS, "copies: Some(0)").expect("clients see it");
    println!("seed {seed}: {}", wrong[0]);
}

#[test]
fn a_disk_that_lies_is_found() {
    let twist = Twist { lying_disks: true, ..Twist::NONE };
    let (seed, wrong) = first_wrong(twist, SEEDS, "data directory").expect("what was to be synced is missed");
    println!("seed {seed}: {}", wrong[0]);
}

/// Which clauses of the protocol are missed within so many seeds.
#[test]
#[ignore = "takes minutes"]
fn clauses() {
    let seeds = setting("ENTAIL_TURMOIL_SEEDS", 20);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(rule) = Rule::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match first_wrong(without(*rule), seeds, "") {
                        Some((seed, wrong)) => println!("{rule:?}: seed {seed}: {}", wrong.join(" | ")),
                        None => println!("{rule:?}: nothing"),
                    }
                }
            });
        }
    });
}

/// Prints the trace of a seed.
#[test]
#[ignore = "to look at one run"]
fn one_seed() {
    let outcomes = run(setting("ENTAIL_TURMOIL_SEED", 1), Twist::NONE);
    println!("{}\n{}\n{:?}", outcomes.trace.join("\n"), outcomes.counts, outcomes.wrong);
}
