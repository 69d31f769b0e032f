//! The rows of the clauses of reconciliation.

use entail::cluster::reconcile::rules::ReconcileRule;

use super::Shown::{self, Not, Script};
use crate::scripts::{closing, maps, serving};

/// One row a rule.
pub const RECONCILE: &[(ReconcileRule, Shown)] = &[
    (ReconcileRule::StayNew, Script(maps::a_node_that_is_named_again, "NoQuorum")),
    (ReconcileRule::EmptySet, Script(closing::who_leaves_has_all_that_is_left, "KEPT")),
    (ReconcileRule::InTurn, Script(serving::who_is_promoted_and_who_leaves, "a map more than it takes")),
    (ReconcileRule::PromoteTold, Script(serving::who_joins_has_nothing, "MONOTONIC-READS")),
    (ReconcileRule::PromoteServing, Script(serving::who_joins_has_what_another_one_had, "MONOTONIC-READS")),
    (ReconcileRule::NobodyAll, Script(serving::who_left_early_is_back, "MONOTONIC-READS")),
    (
        ReconcileRule::NobodyLive,
        Not("who is named too early is filled by all that left before it serves (NobodyAll), or named anew: for calm"),
    ),
    (ReconcileRule::LastServing, Script(serving::a_wrong_directory_of_the_last, "ShardUnavailable")),
    (ReconcileRule::GoneOther, Script(serving::wrong_directories_of_both, "KEPT")),
    (ReconcileRule::AbsentOther, Script(serving::one_of_two_that_were_away, "ShardUnavailable")),
    (ReconcileRule::LeaveServe, Script(serving::who_is_wanted_does_not_serve_yet, "NoQuorum")),
    (ReconcileRule::LeaveTwo, Script(serving::one_of_two_that_are_wanted, "ShardUnavailable")),
    (ReconcileRule::CloseWhole, Script(closing::who_leaves_holds_a_write_of_a_lost_disk, "KEPT")),
    (ReconcileRule::CloseLeaving, Script(serving::who_leaves_does_not_know_it, "waited in vain")),
    (ReconcileRule::CloseServing, Script(closing::who_leaves_has_a_write_that_one_lacks, "READ-YOUR-WRITES")),
    (
        ReconcileRule::CloseJoining,
        Not("a Joining peer serves once it has what a Serving one told, under a version that comes after the close"),
    ),
    (ReconcileRule::CloseLive, Script(closing::who_leaves_is_not_closed_on_the_word_of_one_who_is_silent, "KEPT")),
    (ReconcileRule::CloseTwo, Script(closing::who_leaves_is_the_second_copy, "KEPT")),
    (
        ReconcileRule::CloseRejoined,
        Not(
            "two others hold what is dropped: it is copied once more than need be; the tests of cluster/reconcile miss it",
        ),
    ),
    (ReconcileRule::LostAll, Script(closing::who_is_away_holds_a_write_of_a_lost_disk, "READ-YOUR-WRITES")),
    (ReconcileRule::LostLeaving, Script(closing::who_is_away_holds_a_write_of_a_lost_disk, "READ-YOUR-WRITES")),
    (ReconcileRule::LostJoining, Script(closing::who_joins_holds_a_write_of_a_lost_disk, "ACKNOWLEDGED")),
    (
        ReconcileRule::LostVersion,
        Not("the script that showed it under sessions does not any more; the tests of cluster/reconcile miss it"),
    ),
    (ReconcileRule::LostThen, Script(closing::words_without_one_that_is_lost_now, "READ-YOUR-WRITES")),
    (ReconcileRule::EmptyNew, Script(serving::who_joins_begins_anew, "NoQuorum")),
    (ReconcileRule::EmptyAll, Script(serving::what_is_left_is_away, "MONOTONIC-READS")),
];
