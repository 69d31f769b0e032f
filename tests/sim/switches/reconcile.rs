//! The rows of the clauses of reconciliation.

use entail::cluster::reconcile::rules::ReconcileRule;

use super::Shown::{self, By, Not};

/// Shown by the tests of the table alone, and by no run here yet.
const ALONE: &str = "the tests beside the table show it, row by row";

/// One row a rule.
pub const RECONCILE: &[(ReconcileRule, Shown)] = &[
    (ReconcileRule::StayNew, By(&[("move", 1), ("away", 3), ("reshard", 5)])),
    (ReconcileRule::EmptySet, Not(ALONE)),
    (ReconcileRule::InTurn, Not(ALONE)),
    (ReconcileRule::PromoteTold, By(&[("forget", 4), ("wipe", 7), ("move", 11)])),
    (ReconcileRule::PromoteServing, By(&[("move", 11), ("wipe", 12), ("wipe", 22)])),
    (ReconcileRule::NobodyAll, Not(ALONE)),
    (ReconcileRule::NobodyLive, Not(ALONE)),
    (ReconcileRule::LastServing, Not(ALONE)),
    (ReconcileRule::GoneOther, Not(ALONE)),
    (ReconcileRule::AbsentOther, Not(ALONE)),
    (ReconcileRule::LeaveServe, Not(ALONE)),
    (ReconcileRule::LeaveTwo, Not(ALONE)),
    (ReconcileRule::CloseWhole, Not(ALONE)),
    (ReconcileRule::CloseLeaving, Not(ALONE)),
    (ReconcileRule::CloseServing, Not(ALONE)),
    (ReconcileRule::CloseJoining, Not(ALONE)),
    (ReconcileRule::CloseTwo, Not(ALONE)),
    (ReconcileRule::LostAll, Not(ALONE)),
    (ReconcileRule::LostLeaving, Not(ALONE)),
    (ReconcileRule::LostJoining, Not(ALONE)),
    (ReconcileRule::LostVersion, Not(ALONE)),
    (ReconcileRule::LostThen, Not(ALONE)),
    (ReconcileRule::EmptyNew, Not(ALONE)),
    (ReconcileRule::EmptyAll, Not(ALONE)),
];
