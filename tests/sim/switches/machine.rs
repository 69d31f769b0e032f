//! The rows of the clauses of the machine.

use entail::machine::rules::Rule;

use super::Shown::{self, By, Not, Script};
use crate::scripts::{births, epochs, maps, replicas, states};

/// One row a rule.
pub const MACHINE: &[(Rule, Shown)] = &[
    (Rule::SendAfterSync, By(&[("std", 12), ("crash", 1), ("crash", 13)])),
    (Rule::DurableVectors, By(&[("crash", 1), ("std", 0), ("cut", 2)])),
    (Rule::DurableReads, By(&[("tomb", 40), ("lag", 3), ("lag", 15)])),
    (Rule::DurableMap, Script(maps::a_map_that_a_crash_takes_back, "EPOCHS")),
    (
        Rule::DurablePromise,
        Not("a collected tombstone is durable everywhere, in a batch with a ceiling above it: no later write is below"),
    ),
    (Rule::Ceiling, By(&[("tomb", 4), ("std", 12), ("skew", 17)])),
    (Rule::DurableAcceptor, Script(births::a_map_that_its_acceptor_forgot, "BIRTH")),
    (Rule::UnanimousBirth, Script(births::birth_by_those_who_forget, "BIRTH")),
    (Rule::Barrier, Script(maps::a_last_write_before_the_first_word, "ACKNOWLEDGED")),
    (Rule::OwnName, Script(births::a_name_that_belongs_to_a_lost_disk, "DOTS")),
    (Rule::WriteWaits, By(&[("lag", 3), ("std", 0), ("cut", 2)])),
    (Rule::ReadWaits, By(&[("crash", 1), ("std", 0), ("cut", 2)])),
    (Rule::OperationDeps, By(&[("std", 2), ("std", 60), ("tomb", 76)])),
    (Rule::OperationOrder, By(&[("cut", 2), ("lag", 3), ("dead", 8)])),
    (Rule::ShowAckable, By(&[("calm", 6), ("calm", 18), ("tomb", 28)])),
    (Rule::AckDurable, By(&[("crash", 1), ("std", 0), ("tomb", 4)])),
    (Rule::AckCopies, By(&[("calm", 6), ("flap", 9), ("crash", 13)])),
    (Rule::FillDurable, By(&[("crash", 18), ("crash", 109)])),
    (
        Rule::FillAside,
        Not("a part merged early is beyond the vector, so DurableReads hides it until the rest is there"),
    ),
    (Rule::FillAttempt, Script(replicas::a_part_of_an_attempt_that_was_given_up, "READ-YOUR-WRITES")),
    (Rule::FillDoneSync, Not("the take-over comes in a later batch than the chunks, and a crash keeps a prefix")),
    (Rule::FillClock, Script(replicas::a_tombstone_of_a_fast_clock, "WRITES-FOLLOW-READS")),
    (Rule::FillFloor, Script(epochs::nothing_at_a_node_that_joined_later, "CAUSAL-ORDER")),
    (Rule::FillBlocked, Not("FillLack brings the same, a second later: this is for speed")),
    (Rule::FillLack, By(&[("fill", 47), ("fill", 83), ("fill", 179)])),
    (
        Rule::FillClean,
        Not("it takes a disk that is lost in the middle of a fill; the lockstep tests of the machine miss it"),
    ),
    (Rule::FillLate, By(&[("lag", 1), ("std", 0), ("lag", 15)])),
    (Rule::PruneEpoch, Script(epochs::what_was_stable_without_one_cut_off, "MONOTONIC-READS")),
    (Rule::ItemEpoch, Script(epochs::an_item_that_carried_what_was_stable, "CAUSAL-ORDER")),
    (Rule::CoverCarried, Script(epochs::a_covered_item_that_carries_what_is_open, "CAUSAL-ORDER")),
    (Rule::CoverEpoch, Script(epochs::a_covered_item_that_carried_what_was_stable, "CAUSAL-ORDER")),
    (Rule::Floor, Script(epochs::nothing_where_a_tombstone_was, "CAUSAL-ORDER")),
    (Rule::FloorItem, Script(epochs::nothing_where_a_tombstone_carried_something, "CAUSAL-ORDER")),
    (Rule::KeepEntry, By(&[("crash", 1), ("std", 0), ("cut", 2)])),
    (Rule::Carry, By(&[("crash", 1), ("std", 0), ("lag", 3)])),
    (Rule::StableAll, By(&[("cut", 2), ("std", 0), ("lag", 3)])),
    (Rule::CollectStable, Not("CollectClock with CollectSeq implies it: all have what each peer had assigned by then")),
    (Rule::CollectCarried, Script(epochs::nothing_where_a_tombstone_carried_what_is_open, "CAUSAL-ORDER")),
    (Rule::CollectClock, By(&[("lag", 3), ("std", 0), ("crash", 1)])),
    (Rule::CollectSeq, By(&[("lag", 3), ("std", 0), ("tomb", 4)])),
    (Rule::PromiseSync, Script(replicas::a_promise_as_of_a_write_that_never_was, "SETTLES")),
    (Rule::PromiseLast, By(&[("tomb", 4), ("std", 0), ("skew", 5)])),
    (Rule::ClockMerge, By(&[("crash", 1), ("std", 0), ("cut", 2)])),
    (Rule::TruncateStable, By(&[("calm", 36), ("calm", 306)])),
    (Rule::KeepReplica, Script(replicas::a_late_write_of_one_who_was_away, "gives up")),
    (Rule::FirstFill, Script(replicas::a_value_before_the_first_fill, "READ-YOUR-WRITES")),
    (Rule::KeepKnown, Script(replicas::a_replica_of_a_closed_stay, "READ-YOUR-WRITES")),
    (
        Rule::Current,
        Not(
            "each says only what stays true: a stay is bound (OwnName), a word has its own version (Versions), a fill \
             is one attempt, and whoever leaves has told what it sent before",
        ),
    ),
    (Rule::LeaveReads, Script(states::a_read_at_one_who_leaves, "MONOTONIC-READS")),
    (Rule::LeaveWrites, Script(states::a_write_at_one_who_leaves, "READ-YOUR-WRITES")),
    (Rule::CountServing, Script(states::a_copy_at_one_who_joins, "KEPT")),
    (Rule::StableJoining, Script(states::a_write_while_one_joins, "MONOTONIC-READS")),
    (Rule::CollectServing, Script(states::a_tombstone_while_one_is_away, "READ-YOUR-WRITES")),
    (Rule::Versions, Script(maps::a_word_of_an_older_version, "READ-YOUR-WRITES")),
    (Rule::DropUnapplied, Script(replicas::a_write_that_waits_for_one_that_is_lost, "SETTLES")),
    (Rule::ContextEpoch, Script(epochs::what_was_stable_without_one_cut_off, "MONOTONIC-READS")),
    (Rule::ForgottenEnds, Script(births::who_was_given_up_is_back, "SETTLES")),
    (Rule::NextStay, Script(epochs::a_write_of_a_stay_that_is_unknown, "READ-YOUR-WRITES")),
    (Rule::EmptyFloor, Script(epochs::nothing_where_all_was_given_up, "told to be lost")),
];
