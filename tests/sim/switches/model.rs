//! The clauses that the design's model lists, and what they are here: none is missing.

use std::collections::BTreeSet;

use crate::clauses::Clause;

/// The model's names, and ours; several where ours are finer.
const HERE: &[(&str, &str)] = &[
    ("SEND_SYNC", "SendAfterSync"),
    ("STAY_NEW", "StayNew"),
    ("DUR_VECTOR", "DurableVectors"),
    ("DUR_READ", "DurableReads"),
    ("DUR_MAP", "DurableMap"),
    ("DUR_PROMISE", "DurablePromise"),
    ("CEILING", "Ceiling"),
    // Of closing; its other half, that nothing is stable where nobody serves, has no switch.
    ("EMPTY_SET", "EmptySet"),
    ("MSG_OPS", "Current"),
    ("MSG_REPORT", "Current Versions"),
    ("MSG_FILLREQ", "Current"),
    ("MSG_CHUNK", "Current"),
    ("MSG_NEWER", "Current"),
    ("STABLE_ONE", "Versions StableAll"),
    ("DROP_UNAPPLIED", "DropUnapplied"),
    ("BARRIER", "Barrier"),
    ("CTX_EPOCH", "ContextEpoch"),
    ("NEXT_STAY", "NextStay"),
    ("LEAVE_STOP", "LeaveWrites"),
    ("LEAVE_READ", "LeaveReads"),
    ("COUNT_SERVING", "CountServing"),
    ("JOIN_STABLE", "StableJoining"),
    ("OWN_NAME", "OwnName"),
    ("FORGOT_NEWINC", "ForgottenEnds"),
    ("WRITE_WAIT", "WriteWaits"),
    ("OP_DEPS", "OperationDeps"),
    ("SHOW_ACKABLE", "ShowAckable"),
    ("FILL_DURABLE", "FillDurable"),
    ("FILL_ASIDE", "FillAside"),
    ("FILL_ATTEMPT", "FillAttempt"),
    ("FILL_DONE_SYNC", "FillDoneSync"),
    ("FILL_CLOCK", "FillClock"),
    ("FILL_FLOOR", "FillFloor"),
    ("FILL_BLOCKED", "FillBlocked"),
    ("FILL_LACK", "FillLack"),
    ("FILL_LATE", "FillLate"),
    ("FIRST_FILL", "FirstFill"),
    ("KEEP_REPL", "KeepReplica"),
    ("KEEP_KNOWN", "KeepKnown"),
    ("PRUNE_EPOCH", "PruneEpoch"),
    ("CLOSED_EPOCH", "PruneEpoch"),
    ("ITEM_EPOCH", "ItemEpoch"),
    ("COVER_CARRIED", "CoverCarried"),
    ("COVER_EPOCH", "CoverEpoch"),
    ("FLOOR", "Floor"),
    ("FLOOR_ITEM", "FloorItem"),
    ("KEEP_ENTRY", "KeepEntry"),
    ("GC_LEAVING", "CollectServing"),
    ("GC_JOINING", "CollectServing"),
    ("GC_STABLE", "CollectStable"),
    ("GC_CARRIED", "CollectCarried"),
    ("GC_CLOCK", "CollectClock"),
    ("GC_SEQ", "CollectSeq"),
    ("PROMISE_SYNC", "PromiseSync"),
    ("PROMISE_LAST", "PromiseLast"),
    ("CLOCK_MERGE", "ClockMerge"),
    ("PROMOTE_TOLD", "PromoteTold"),
    ("PROMOTE_SERVING", "PromoteServing"),
    ("NOSERVE_ALL", "NobodyAll"),
    ("NOSERVE_LIVE", "NobodyLive"),
    ("LAST_SERVING", "LastServing"),
    ("GONE_OTHER", "GoneOther"),
    ("LEAVE_SERVE", "LeaveServe"),
    ("LEAVE_TWO", "LeaveTwo"),
    ("ABSENT_OTHER", "AbsentOther"),
    ("IN_TURN", "InTurn"),
    ("CLOSE_WHOLE", "CloseWhole"),
    ("CLOSE_LEAVING", "CloseLeaving"),
    ("CLOSE_SERVING", "CloseServing"),
    ("CLOSE_JOINING", "CloseJoining"),
    ("CLOSE_TWO", "CloseTwo"),
    ("LOST_ALL", "LostAll"),
    ("LOST_LEAVING", "LostLeaving"),
    ("LOST_JOINING", "LostJoining"),
    ("LOST_VER", "LostVersion"),
    ("LOST_THEN", "LostThen"),
    ("EMPTY_FLOOR", "EmptyFloor"),
    ("EMPTY_NEW", "EmptyNew"),
    ("EMPTY_ALL", "EmptyAll"),
];

/// Those without a switch of their own here, and why.
const NOWHERE: &[(&str, &str)] = &[
    (
        "STABLE_NEWER",
        "what is stable is so whatever the map here: to take it would give out contexts that this node refuses",
    ),
    ("FILL_RESTART", "its source gives nothing under another version, and an attempt that hears nothing is given up"),
    ("LEAVE_FROZEN", "nothing is sent to one that leaves under the version that both have"),
    ("LOST_ACT", "no replica is held for a lost stay (KeepKnown), so there is nothing to say for it"),
    ("LOST_TAKE", "the same: under equal versions the sender knows that its stay is lost"),
];

/// Those that the model does not have: it has no Paxos, does not order a stay's writes or truncate logs, fills in one
/// step, and knows at once whose disk is lost.
const ADDED: &[&str] = &[
    "DurableAcceptor",
    "UnanimousBirth",
    "ReadWaits",
    "OperationOrder",
    "AckDurable",
    "AckCopies",
    "Carry",
    "TruncateStable",
    "CloseLive",
    "FillClean",
    "CloseRejoined",
    "ClockCompared",
    "ContextClock",
];

#[test]
fn every_clause_of_the_design_is_here() {
    let names = HERE.iter().flat_map(|(_, here)| here.split(' ')).chain(ADDED.iter().copied());
    let here: BTreeSet<Clause> = names.map(Clause::named).collect();
    assert_eq!(here, Clause::all().collect());
    let models: BTreeSet<&str> = HERE.iter().chain(NOWHERE).map(|(model, _)| *model).collect();
    assert_eq!(models.len(), HERE.len() + NOWHERE.len(), "each once");
    assert!(NOWHERE.iter().all(|(_, why)| !why.is_empty()));
}
