//! Each protective clause is necessary: with it off, some seed breaks an invariant; with all on, the same seed holds.
//!
//! The seeds were found by random sweeps (`without_a_rule` below). Where none is found, the row says why.

use std::collections::BTreeSet;
use std::env;

use entail::machine::rules::{Rule, Rules};

use crate::sweep::{number, profiles, rule, run_caught, sweep};
use crate::trace::Trace;

/// How a rule's necessity is shown.
#[derive(Clone, Copy, Debug)]
enum Shown {
    /// This run fails without it.
    By(&'static str, u64),
    /// This scenario fails without it, and says how.
    Script(fn(Rules) -> Option<String>),
    /// No run here can: why.
    Not(&'static str),
}

use Shown::{By, Not, Script};

/// One row a rule.
const SWITCHES: &[(Rule, Shown)] = &[];

#[test]
fn every_rule_is_necessary() {
    let listed: BTreeSet<Rule> = SWITCHES.iter().map(|row| row.0).collect();
    let missing: Vec<_> = Rule::ALL.iter().filter(|rule| !listed.contains(rule)).collect();
    assert!(missing.is_empty() && listed.len() == SWITCHES.len(), "without exactly one row: {missing:?}");
    let mut wrong = Vec::new();
    let quiet = || Trace::new(false, false);
    for &(rule, shown) in SWITCHES {
        let run = |rules: Rules| match shown {
            By(profile, seed) => run_caught(profile, seed, rules, quiet()).violation,
            Script(scenario) => scenario(rules),
            Not(_) => None,
        };
        if run(Rules::all().without(rule)).is_none() && !matches!(shown, Not(_)) {
            wrong.push(format!("{rule:?} is not missed in {shown:?}"));
        }
        if let Some(violation) = run(Rules::all()) {
            wrong.push(format!("{shown:?} fails with all rules on: {violation}"));
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
        let (failed, coverage) = sweep(&profiles(), from, count, Rules::all().without(rule), 3);
        let runs = coverage.count("runs");
        println!("{rule:?}: {} of {runs} fail", failed.len());
        for found in failed {
            let on = run_caught(found.profile, found.seed, Rules::all(), Trace::new(false, false)).violation;
            let row = format!("({:?}, By({:?}, {})),", rule, found.profile, found.seed);
            println!("    {row} // {}{}", found.violation, if on.is_some() { " BUT FAILS WITH ALL ON" } else { "" });
        }
    }
}
