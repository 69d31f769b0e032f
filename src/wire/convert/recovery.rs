//! What nodes say to each other of a recovery by force.

use super::{WireError, address};
use crate::machine::agreement::Disagreement;
use crate::machine::message::Message;
use crate::types::{BranchId, Epoch, NodeAddr};
use crate::wire::proto;
use proto::recovery_answered::{Agreed, Outcome, Refusal};

pub fn asked_to_proto(id: u64, branch: BranchId, epoch: Epoch, present: &[NodeAddr]) -> proto::RecoveryAsked {
    let present = present.iter().map(|node| node.as_str().to_owned()).collect();
    proto::RecoveryAsked { id, branch: branch.0, epoch: epoch.0, present }
}

pub fn asked(received: proto::RecoveryAsked) -> Result<Message, WireError> {
    let present = received.present.iter().map(|node| address("recovery_asked.present", node));
    Ok(Message::RecoveryAsked {
        id: received.id,
        branch: BranchId(received.branch),
        epoch: Epoch(received.epoch),
        present: present.collect::<Result<_, _>>()?,
    })
}

pub fn answered_to_proto(id: u64, outcome: &Result<(), Disagreement>) -> proto::RecoveryAnswered {
    let outcome = match outcome {
        Ok(()) => Outcome::Agreed(Agreed {}),
        Err(Disagreement::QuorumLives) => Outcome::Refused(Refusal::QuorumLives.into()),
        Err(Disagreement::Hears(node)) => Outcome::Hears(node.as_str().to_owned()),
        Err(Disagreement::Another) => Outcome::Refused(Refusal::Another.into()),
    };
    proto::RecoveryAnswered { id, outcome: Some(outcome) }
}

pub fn answered(received: proto::RecoveryAnswered) -> Result<Message, WireError> {
    let outcome = match received.outcome.ok_or(WireError::Missing("recovery_answered.outcome"))? {
        Outcome::Agreed(Agreed {}) => Ok(()),
        Outcome::Hears(node) => Err(Disagreement::Hears(address("recovery_answered.hears", &node)?)),
        Outcome::Refused(reason) => Err(match Refusal::try_from(reason) {
            Ok(Refusal::QuorumLives) => Disagreement::QuorumLives,
            Ok(Refusal::Another) => Disagreement::Another,
            Ok(Refusal::Unspecified) | Err(_) => {
                return Err(WireError::Unknown { field: "recovery_answered.refused", value: reason.into() });
            }
        }),
    };
    Ok(Message::RecoveryAnswered { id: received.id, outcome })
}
