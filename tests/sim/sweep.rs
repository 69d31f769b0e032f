//! Many seeds on all cores.

use std::any::Any;
use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use entail::machine::rules::Rules;

use crate::clauses::{Clause, Clauses};
use crate::coverage::Coverage;
use crate::met::{ROLES, STEPS, table, table_around, unmet};
use crate::profile::{MIX, PROFILES};
use crate::run::{Outcome, run};
use crate::trace::Trace;

/// How many seeds the test command runs.
const IN_THE_TEST: u64 = 2_000;

/// What a sweep of the test command covers at least once.
const MUST_HAPPEN: &[&str] = &[
    "store: born",
    "process: crashed",
    "crash: unsynced write lost",
    "network: lost",
    "network: doubled",
    "network: connection broken",
    "cut: one node",
    "cut: in two",
    "cut: one node is not heard",
    "cut: one node hears nothing",
    "cut: a bridge is left",
    "cut: a ring is left",
    "cut off: for a whole transition",
    "clock: jumped",
    "disk: full",
    "slow: links",
    "slow: node or disk",
    "sessions: handed on",
    "sessions: came back",
    "requests: forwarded",
    "requests: forward refused",
    "requests: waited over 100 ms",
    "errors: dependencies not satisfied",
    "errors: shard unavailable",
    "errors: outcome unknown",
    "errors: too many requests",
    "errors: disk full",
    "acknowledged: on one node",
    "acknowledged: on two nodes",
    "reads: value",
    "reads: tombstone",
    "reads: nothing",
    "fill: asked for",
    "fill: part sent",
    "fill: last part sent",
    "fill: part kept aside",
    "stability: told",
    "tombstones: promises told",
    "tombstones: collected",
    "tombstones: floor raised",
    "log: truncated",
    "changes: resharded",
    "changes: member added",
    "changes: admitted",
    "changes: removed",
    "changes: forgotten",
    "changes: cancelled",
    "changes: undone",
    "changes: refused",
    "changes: no quorum",
    "changes: recovered by force",
    "disk: the majority lost for good",
    "map: target reached",
    "map: target given up",
    "map: other voters",
    "step: Joined",
    "step: JoinerGone",
    "step: JoinerUnwanted",
    "step: Promoted",
    "step: LeftUnwanted",
    "step: LeftAbsent",
    "step: Lost",
    "step: LostByWord",
    "step: Closed",
    "step: ClosedLost",
    "process: paused",
    "sessions: came back after ten epochs and more",
    "disk: lost for good",
    "disk: a write was lost",
    "replicas: dropped",
];

/// A number from the environment.
///
/// # Panics
/// When it is set and is none.
pub fn number<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// The profiles to sweep, in turn: the mix, or those that ENTAIL_SIM_PROFILE names.
pub fn profiles() -> Vec<&'static str> {
    match env::var("ENTAIL_SIM_PROFILE") {
        Ok(only) => PROFILES.iter().copied().filter(|p| only.split(',').any(|name| name == *p)).collect(),
        Err(_) => MIX.to_vec(),
    }
}

/// Runs a seed; a panic of the machine is a violation too.
pub fn run_caught(profile: &str, seed: u64, rules: impl Into<Clauses>, trace: Trace) -> Outcome {
    let rules = rules.into();
    panic::catch_unwind(AssertUnwindSafe(|| run(profile, seed, rules, trace))).unwrap_or_else(|panic| {
        let violation = Some(format!("PANIC: {}", said_by(&*panic)));
        Outcome { violation, coverage: Coverage::default(), hash: 0 }
    })
}

/// What a panic says.
pub fn said_by(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// The profile.
    pub profile: &'static str,
    /// What went wrong.
    pub violation: String,
}

/// Runs the seeds `from..from + count`, each under one of the profiles in turn, on all cores, until so many failed.
///
/// With ENTAIL_SIM_HASH set, each run's hash is printed: those of a mere optimisation are the same as before.
pub fn sweep(
    profiles: &[&'static str],
    from: u64,
    count: u64,
    rules: impl Into<Clauses>,
    most: usize,
) -> (Vec<Failed>, Coverage) {
    let rules = rules.into();
    let next = AtomicU64::new(from);
    let result = Mutex::new((Vec::new(), Coverage::default()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let hashed = env::var("ENTAIL_SIM_HASH").is_ok();
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || result.lock().expect("no panic holds it").0.len() >= most {
                        return;
                    }
                    let profile = profiles[(seed % profiles.len() as u64) as usize];
                    let outcome = run_caught(profile, seed, rules, Trace::new(false, hashed));
                    if hashed {
                        println!("{profile} {seed} {:016x}", outcome.hash);
                    }
                    let mut result = result.lock().expect("no panic holds it");
                    result.1.join(&outcome.coverage);
                    if let Some(violation) = outcome.violation {
                        result.0.push(Failed { seed, profile, violation });
                    }
                }
            });
        }
    });
    let (mut failed, coverage) = result.into_inner().expect("no panic held it");
    failed.sort();
    (failed, coverage)
}

#[test]
fn sweep_of_all_profiles_finds_nothing_wrong() {
    let count = number("ENTAIL_SIM_SEEDS").unwrap_or(IN_THE_TEST);
    let from = number("ENTAIL_SIM_FROM").unwrap_or(0);
    let (failed, coverage) = sweep(&profiles(), from, count, Rules::all(), 20);
    println!("{coverage}\n{}\n{}", table(&coverage, "met", ROLES), table(&coverage, "row", STEPS));
    println!("{}", table_around(&coverage));
    for Failed { seed, profile, violation } in &failed {
        println!("ENTAIL_SIM_PROFILE={profile} ENTAIL_SIM_SEED={seed}: {violation}");
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
    if count >= IN_THE_TEST && profiles() == MIX {
        let missing: Vec<_> = MUST_HAPPEN.iter().filter(|what| coverage.count(what) == 0).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
        let unmet = unmet(&coverage);
        assert!(unmet.is_empty(), "never met: {unmet:?}");
        let (all, moved, long) = ("runs", "runs with transitions", "runs with ten epochs and more");
        assert!(2 * coverage.count(moved) >= coverage.count(all), "the map changes in too few runs");
        assert!(10 * coverage.count(long) >= 8 * coverage.count(moved), "too few histories are long");
    }
}

#[test]
fn two_runs_of_a_seed_are_byte_identical() {
    let mut hashes = Vec::new();
    for (seed, profile) in (4_000..).zip(PROFILES) {
        let first = run_caught(profile, seed, Rules::all(), Trace::new(false, true));
        let second = run_caught(profile, seed, Rules::all(), Trace::new(false, true));
        assert_eq!(first.hash, second.hash, "{profile} {seed}");
        assert_eq!(first.violation, None, "{profile} {seed}");
        hashes.push(first.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), PROFILES.len(), "different seeds are different runs");
}

#[test]
#[ignore = "for a single seed: set ENTAIL_SIM_PROFILE, ENTAIL_SIM_SEED and perhaps ENTAIL_SIM_OFF, ENTAIL_SIM_TRACE"]
fn one_seed() {
    let (profile, seed, clauses) = one();
    let outcome = run_caught(&profile, seed, clauses, Trace::new(env::var("ENTAIL_SIM_TRACE").is_ok(), false));
    println!("{}", outcome.coverage);
    assert_eq!(outcome.violation, None);
}

/// The run that the environment names.
pub fn one() -> (String, u64, Clauses) {
    let profile = env::var("ENTAIL_SIM_PROFILE").expect("ENTAIL_SIM_PROFILE names a profile");
    let seed = number("ENTAIL_SIM_SEED").expect("ENTAIL_SIM_SEED is a number");
    let off = env::var("ENTAIL_SIM_OFF").unwrap_or_default();
    let names = off.split(',').filter(|name| !name.is_empty());
    (profile, seed, names.fold(Clauses::ALL, |clauses, name| clauses.without(Clause::named(name))))
}
