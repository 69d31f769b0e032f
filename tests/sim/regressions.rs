//! Seeds that failed once, each with what was wrong then; all rules on.

use entail::machine::rules::Rules;

use crate::sweep::run_caught;
use crate::trace::Trace;

/// Profile, seed, and what was wrong. A later change of the machine changes the runs; what they found may be elsewhere.
const FAILED: &[(&str, u64, &str)] = &[
    ("reshard", 2, "one that left acknowledged a write with 0 copies"),
    ("reshard", 6, "one that left acknowledged a write with 0 copies"),
    ("move", 11, "one that left acknowledged a write with 0 copies"),
    ("reshard", 5035, "throttled fills gave what nobody waited for, and stood still"),
];

#[test]
fn seeds_that_failed_hold() {
    for (profile, seed, what) in FAILED {
        let outcome = run_caught(profile, *seed, Rules::all(), Trace::new(false, false));
        assert_eq!(outcome.violation, None, "{profile} {seed}: {what}");
    }
}
