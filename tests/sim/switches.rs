//! Each protective clause is necessary: with it off, some seed breaks an invariant; with all on, the same seed holds.
//!
//! The seeds were found by random sweeps (`without_a_rule` below). Where none is found, the row says why.

use std::collections::BTreeSet;
use std::env;

use entail::machine::rules::{Rule, Rules};

use crate::profile::PROFILES;
use crate::sweep::{number, rule, run_caught, sweep};
use crate::trace::Trace;

/// How a rule's necessity is shown.
#[derive(Clone, Copy, Debug)]
enum Shown {
    /// This run fails without it.
    By(&'static str, u64),
    /// No run here can: why.
    Not(&'static str),
}

use Shown::{By, Not};

/// One row a rule.
const SWITCHES: &[(Rule, Shown)] = &[];

#[test]
fn every_rule_is_necessary() {
    let listed: BTreeSet<Rule> = SWITCHES.iter().map(|row| row.0).collect();
    let missing: Vec<_> = Rule::ALL.iter().filter(|rule| !listed.contains(rule)).collect();
    assert!(missing.is_empty() && listed.len() == SWITCHES.len(), "without exactly one row: {missing:?}");
    let mut wrong = Vec::new();
    for &(rule, shown) in SWITCHES {
        let By(profile, seed) = shown else { continue };
        let quiet = || Trace::new(false, false);
        if run_caught(profile, seed, Rules::all().without(rule), quiet()).violation.is_none() {
            wrong.push(format!("{rule:?} is not missed in {profile} {seed}"));
        }
        if let Some(violation) = run_caught(profile, seed, Rules::all(), quiet()).violation {
            wrong.push(format!("{profile} {seed} fails with all rules on: {violation}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
#[ignore = "finds seeds for the table: set ENTAIL_SIM_SWEEP_OFF to a rule or to all, and perhaps ENTAIL_SIM_SEEDS"]
fn without_a_rule() {
    let which = env::var("ENTAIL_SIM_SWEEP_OFF").expect("ENTAIL_SIM_SWEEP_OFF names a rule, or is all");
    let rules: Vec<Rule> = if which == "all" { Rule::ALL.to_vec() } else { which.split(',').map(rule).collect() };
    let count = number("ENTAIL_SIM_SEEDS").unwrap_or(3_000);
    let from = number("ENTAIL_SIM_FROM").unwrap_or(0);
    for rule in rules {
        let (failed, coverage) = sweep(PROFILES, from, count, Rules::all().without(rule), 3);
        let runs = coverage.count("runs");
        println!("{rule:?}: {} of {runs} fail", failed.len());
        for found in failed {
            let on = run_caught(found.profile, found.seed, Rules::all(), Trace::new(false, false)).violation;
            let row = format!("({:?}, By({:?}, {})),", rule, found.profile, found.seed);
            println!("    {row} // {}{}", found.violation, if on.is_some() { " BUT FAILS WITH ALL ON" } else { "" });
        }
    }
}
