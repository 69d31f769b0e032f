//! Each protective clause is necessary: with it off, some history breaks an invariant; with all on, the same one holds.
//!
//! The seeds were found by random sweeps (`without_a_clause` below), three where they are easy to find: a change of the
//! machine changes its runs. When a row is no longer shown, sweep again. A script is the very history that a clause is
//! for. Where there is neither, the row says why.

mod machine;
mod model;
mod reconcile;

use std::collections::BTreeSet;
use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use crate::clauses::{Clause, Clauses};
use crate::sweep::{Failed, number, profiles, run_caught, said_by, sweep};
use crate::trace::Trace;

/// How a clause's necessity is shown.
#[derive(Clone, Copy, Debug)]
pub enum Shown {
    /// One of these runs at least fails without it: (profile, seed).
    By(&'static [(&'static str, u64)]),
    /// This script fails without it, and says this.
    Script(fn(Clauses), &'static str),
    /// No run here can: why.
    Not(&'static str),
}

use Shown::{By, Not, Script};

/// How many seeds are looked at when the listed ones show nothing any more.
const LOOKED_AT: u64 = 700;

/// All rows.
pub fn rows() -> impl Iterator<Item = (Clause, Shown)> {
    let machine = machine::MACHINE.iter().map(|(rule, shown)| (Clause::Machine(*rule), *shown));
    machine.chain(reconcile::RECONCILE.iter().map(|(rule, shown)| (Clause::Reconcile(*rule), *shown)))
}

/// What goes wrong in what a row lists, with these clauses in force.
fn run(shown: Shown, clauses: Clauses) -> Vec<String> {
    match shown {
        By(seeds) => {
            let seeds = seeds.iter();
            seeds.filter_map(|(profile, seed)| run_caught(profile, *seed, clauses, quiet()).violation).collect()
        }
        Script(script, _) => Vec::from_iter(
            panic::catch_unwind(AssertUnwindSafe(|| script(clauses))).err().map(|panic| said_by(&*panic)),
        ),
        Not(_) => Vec::new(),
    }
}

fn quiet() -> Trace {
    Trace::new(false, false)
}

/// What is wrong with a row.
fn check(clause: Clause, shown: Shown) -> Vec<String> {
    let without = run(shown, Clauses::ALL.without(clause));
    let missed = match shown {
        By(seeds) => !without.is_empty() || found_anew(clause, seeds),
        Script(_, what) => without.iter().any(|violation| violation.contains(what)),
        Not(why) => !why.is_empty(),
    };
    let mut wrong = Vec::new();
    if !missed {
        wrong.push(format!("{clause:?} is not missed in {shown:?}: {without:?}"));
    }
    for violation in run(shown, Clauses::ALL) {
        wrong.push(format!("{clause:?}: {shown:?} fails with all clauses on: {violation}"));
    }
    wrong
}

#[test]
fn every_clause_is_necessary() {
    let listed: BTreeSet<Clause> = rows().map(|row| row.0).collect();
    let missing: Vec<_> = Clause::all().filter(|clause| !listed.contains(clause)).collect();
    assert!(missing.is_empty() && listed.len() == rows().count(), "without exactly one row: {missing:?}");
    let wrong: Vec<String> = rows().flat_map(|(clause, shown)| check(clause, shown)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Looks for another run that misses the clause, where a change of the machine has changed the listed ones.
fn found_anew(clause: Clause, seeds: &[(&'static str, u64)]) -> bool {
    let mut profiles: Vec<_> = seeds.iter().map(|(profile, _)| *profile).collect();
    profiles.sort_unstable();
    profiles.dedup();
    let (failed, _) = sweep(&profiles, 0, LOOKED_AT, Clauses::ALL.without(clause), 1);
    for Failed { seed, profile, violation } in &failed {
        println!("{clause:?} is missed in {profile} {seed} now: {violation}");
        let on = run_caught(profile, *seed, Clauses::ALL, quiet()).violation;
        assert_eq!(on, None, "{profile} {seed} fails with all clauses on");
    }
    !failed.is_empty()
}

/// The clauses that the variable names, or all.
pub fn chosen(variable: &str) -> Vec<Clause> {
    let which = env::var(variable).unwrap_or_else(|_| panic!("{variable} names clauses, or is all"));
    if which == "all" { Clause::all().collect() } else { which.split(',').map(Clause::named).collect() }
}

#[test]
#[ignore = "finds seeds for the tables: set ENTAIL_SIM_SWEEP_OFF to clauses or to all, and perhaps ENTAIL_SIM_SEEDS"]
fn without_a_clause() {
    let count = number("ENTAIL_SIM_SEEDS").unwrap_or(3_000);
    let from = number("ENTAIL_SIM_FROM").unwrap_or(0);
    for clause in chosen("ENTAIL_SIM_SWEEP_OFF") {
        let (failed, coverage) = sweep(&profiles(), from, count, Clauses::ALL.without(clause), 3);
        let runs = coverage.count("runs");
        println!("{clause:?}: {} of {runs} fail", failed.len());
        for found in failed {
            let on = run_caught(found.profile, found.seed, Clauses::ALL, quiet()).violation;
            let row = format!("(Rule::{clause:?}, By(&[({:?}, {})])),", found.profile, found.seed);
            println!("    {row} // {}{}", found.violation, if on.is_some() { " BUT FAILS WITH ALL ON" } else { "" });
        }
    }
}

#[test]
#[ignore = "looks at single rows: set ENTAIL_SIM_ROW to clauses, and perhaps ENTAIL_SIM_TRACE"]
fn rows_alone() {
    let chosen = chosen("ENTAIL_SIM_ROW");
    for (clause, shown) in rows().filter(|row| chosen.contains(&row.0)) {
        let begun = Instant::now();
        println!("{clause:?} off: {:#?}", run(shown, Clauses::ALL.without(clause)));
        println!("{clause:?} on: {:#?}, {} ms", run(shown, Clauses::ALL), begun.elapsed().as_millis());
    }
}
