//! What failed once, all rules on, does not fail again. Each seed was seen to fail with its mending taken out.

use entail::machine::rules::Rules;

use crate::sweep::run_caught;
use crate::trace::Trace;

/// Profile, seed, and what was wrong.
const FAILED: &[(&str, u64, &str)] = &[
    ("std", 0, "a tombstone stayed for ever where a promise was missed: who had collected it made none any more"),
    ("tomb", 2, "the same"),
    ("tomb", 0, "a promise of a tombstone's very timestamp was not enough: where a clock is slow, it stayed for ever"),
    ("tomb", 4, "the same"),
    ("crash", 117, "a merged timestamp survived a crash without a ceiling above it, and a later write got a lower one"),
    ("crash", 125, "the same"),
    ("fill", 19, "a doubled request made a second view under one attempt, and parts of both were taken over"),
    ("fill", 363, "the same"),
    ("bulk", 102, "a fill that streams had made needless left its parts aside for ever"),
    ("fill", 127, "the same"),
    ("reshard", 2, "one that left acknowledged a write with 0 copies"),
    ("reshard", 6, "one that left acknowledged a write with 0 copies"),
    ("move", 11, "one that left acknowledged a write with 0 copies"),
    ("move", 291, "a decided map was known to nobody when its proposer died, and nobody proposed it again"),
    ("recover", 16, "of a store of which only nodes were left that had been taken out nothing could be recovered"),
    ("recover", 34, "the same"),
    ("aimed", 7555, "what only a joiner of a partition that began anew held was still asked for, until it knew"),
    ("wipe", 2713, "the oracle missed a copy that was dropped in order while the answer was under way"),
    ("aimed", 2855, "the same"),
    ("recover", 3862, "the oracle demanded three copies at the two nodes that an operator had left to the partition"),
    ("aimed", 3037, "an operator's word came when all was healed, and a node that had just started was asked"),
    ("aimed", 5785, "the oracle did not know a delete whose disk was lost, though it was still under way"),
    ("recover", 946, "the simulator lost every member, and the operator was to recover from nobody"),
    ("reshard", 5035, "throttled fills gave what nobody waited for, and stood still"),
    ("aimed", 5595, "of the simulator: a process that had ended itself went on to send"),
    ("aimed", 5265, "of the simulator: with the only one that knew a map, too many of the voters before it were lost"),
    (
        "recover",
        3554,
        "beside a node that was no member yet, those left that were taken out were recovered without voters",
    ),
    ("recover", 4282, "the same"),
    (
        "aimed",
        442_563,
        "what was stable before a partition began anew, empty, was looked for at those who joined since",
    ),
    ("aimed", 442_097, "of the simulator: an operator recovered by force while a node was only cut off"),
    (
        "wipe",
        515_701,
        "back without its disk, a voter counted as the one that it was, and refused a recovered map for ever",
    ),
    (
        "aimed",
        494_077,
        "the oracle took the decision of a map that was accepted before a disk was lost for its proposal",
    ),
    (
        "aimed",
        23_701,
        "the oracle did not know a delete that was lost with the disk of who had answered, before that was read",
    ),
    (
        "aimed",
        10_173,
        "of the simulator: a disk was given up by a map that its own node was told before anybody acted under it",
    ),
    (
        "aimed",
        203,
        "of the simulator's oracle: a disk was lost within milliseconds of a drop that the operator wanted, not durable yet",
    ),
    (
        "aimed",
        97_449,
        "a voter that came back without its disk kept a node from the recovered map that it had agreed to, for ever",
    ),
    (
        "bulk",
        76_964,
        "a node that had refused a connection was gone until its ping, though connected: 1 copy was written",
    ),
    (
        "recover",
        29_724,
        "of the simulator: voters without keys were gone for good, all was at rest, and its operator had not recovered",
    ),
    ("storm", 100_075, "a node that was killed before it had removed the log of a stay that is over never removed it"),
    (
        "aimed",
        7_569,
        "words that had waited while a process was stopped for a minute told it that its own clock was ahead",
    ),
];

#[test]
fn what_failed_once_holds() {
    for (profile, seed, was) in FAILED {
        let outcome = run_caught(profile, *seed, Rules::all(), Trace::new(false, false));
        assert_eq!(outcome.violation, None, "{profile} {seed}: {was}");
    }
}
