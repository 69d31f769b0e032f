//! Each clause that clients can miss is missed by the checker of histories, too: with it off, what clients saw in some run
//! is not causally convergent; with all on, the same run is. The checker knows only records (`entail::history`): no
//! version of the oracle, no state of a node.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use entail::history::{Pattern, check};

use crate::clauses::{Clause, Clauses};
use crate::recorder::recorded;
use crate::run::run;
use crate::sweep::{number, one, profiles};
use crate::switches::{Shown, chosen, rows};
use crate::trace::Trace;

/// Runs of the test command with all clauses on.
const RIGHT: u64 = 400;

/// What the checker finds in what clients saw; nothing where disks were lost beyond what was promised.
fn judged(run: impl FnOnce()) -> Vec<Pattern> {
    let Some(records) = recorded(run) else { return Vec::new() };
    let report = check(&records).unwrap_or_else(|error| panic!("a run is no history: {error}"));
    report.violations.iter().map(|violation| violation.pattern).collect()
}

/// The same of a random run.
fn judged_run(profile: &str, seed: u64, clauses: Clauses) -> Vec<Pattern> {
    judged(|| {
        run(profile, seed, clauses, Trace::new(false, false));
    })
}

/// Looks at seeds on all cores; gives those in which the checker finds something, `enough` of them at most.
fn sweep(from: u64, count: u64, clauses: Clauses, enough: usize) -> Vec<(&'static str, u64, Pattern)> {
    let profiles = profiles();
    let (next, found) = (AtomicU64::new(from), Mutex::new(Vec::new()));
    let look = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= from + count || found.lock().expect("no panic").len() >= enough {
            return;
        }
        let profile = profiles[seed as usize % profiles.len()];
        if let Some(pattern) = judged_run(profile, seed, clauses).first() {
            found.lock().expect("no panic").push((profile, seed, *pattern));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(look))));
    let mut found = found.into_inner().expect("no panic");
    found.sort_unstable();
    found
}

#[test]
fn what_clients_see_of_random_runs_is_convergent() {
    let count = number("ENTAIL_SIM_SEEDS").unwrap_or(RIGHT);
    let wrong = sweep(number("ENTAIL_SIM_FROM").unwrap_or(0), count, Clauses::ALL, usize::MAX);
    assert_eq!(wrong, []);
}

#[test]
#[ignore = "finds runs for the table: set ENTAIL_SIM_SWEEP_OFF to clauses or to all, and perhaps ENTAIL_SIM_SEEDS"]
fn seen_from_outside_without_a_clause() {
    let count = number("ENTAIL_SIM_SEEDS").unwrap_or(1_000);
    let chosen: BTreeSet<Clause> = chosen("ENTAIL_SIM_SWEEP_OFF").into_iter().collect();
    for (clause, shown) in rows().filter(|row| chosen.contains(&row.0)) {
        let off = Clauses::ALL.without(clause);
        if let Shown::Script(script, _) = shown {
            println!("{clause:?}: its script: {:?}, on: {:?}", judged(|| script(off)), judged(|| script(Clauses::ALL)));
        }
        if let Shown::By(seeds) = shown {
            for (profile, seed) in seeds {
                println!("{clause:?}: {profile} {seed}: {:?}", judged_run(profile, *seed, off));
            }
        }
        println!("{clause:?}: {:?}", sweep(number("ENTAIL_SIM_FROM").unwrap_or(0), count, off, 3));
    }
}

#[test]
#[ignore = "prints what is wrong with what clients see of one seed: set ENTAIL_SIM_PROFILE, ENTAIL_SIM_SEED and perhaps ENTAIL_SIM_OFF"]
fn one_history() {
    let (profile, seed, clauses) = one();
    let records = recorded(|| {
        run(&profile, seed, clauses, Trace::new(false, false));
    });
    let report = check(&records.expect("no excuse")).expect("a history");
    println!("{} operations", report.operations);
    report.violations.iter().for_each(|violation| println!("{violation}"));
    assert!(report.violations.is_empty());
}
