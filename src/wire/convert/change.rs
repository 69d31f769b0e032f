//! What is asked of the map, and why it does not change so.

use super::{Reader, WireError, address, id_to_proto, incarnation};
use crate::cluster::change::{Change, ChangeError};
use crate::cluster::plan::PlanError;
use crate::types::{Epoch, NodeAddr, ShardId};
use crate::wire::proto;
use proto::change_answered::Outcome;
use proto::change_asked::{AddMember, Admit, Cancel, Change as Asked};

pub fn asked_to_proto(id: u64, change: &Change, epoch: Epoch, again: bool) -> proto::ChangeAsked {
    let text = |node: &NodeAddr| node.as_str().to_owned();
    let change = match change {
        Change::Reshard(count) => Asked::Reshard(*count),
        Change::AddMember { shard, node } => Asked::AddMember(AddMember { shard: shard.0, node: text(node) }),
        Change::Admit { node, incarnation } => {
            Asked::Admit(Admit { node: text(node), incarnation: id_to_proto(incarnation.0) })
        }
        Change::Remove(node) => Asked::Remove(text(node)),
        Change::Forget(node) => Asked::Forget(text(node)),
        Change::Cancel => Asked::Cancel(Cancel {}),
    };
    proto::ChangeAsked { id, change: Some(change), epoch: epoch.0, again }
}

pub fn asked(received: proto::ChangeAsked) -> Result<(u64, Change), WireError> {
    let node = |text: &str| address("change_asked.node", text);
    let change = match received.change.ok_or(WireError::Missing("change_asked.change"))? {
        Asked::Reshard(count) => Change::Reshard(count),
        Asked::AddMember(add) => Change::AddMember { shard: ShardId(add.shard), node: node(&add.node)? },
        Asked::Admit(admit) => Change::Admit {
            node: node(&admit.node)?,
            incarnation: incarnation("change_asked.admit.incarnation", &admit.incarnation)?,
        },
        Asked::Remove(text) => Change::Remove(node(&text)?),
        Asked::Forget(text) => Change::Forget(node(&text)?),
        Asked::Cancel(Cancel {}) => Change::Cancel,
    };
    Ok((received.id, change))
}

pub fn answered_to_proto(id: u64, outcome: &Result<Epoch, ChangeError>) -> proto::ChangeAnswered {
    let outcome = match outcome {
        Ok(epoch) => Outcome::Epoch(epoch.0),
        Err(error) => Outcome::Refused(refused_to_proto(error)),
    };
    proto::ChangeAnswered { id, outcome: Some(outcome) }
}

pub fn answered(
    reader: Reader,
    received: proto::ChangeAnswered,
) -> Result<(u64, Result<Epoch, ChangeError>), WireError> {
    let outcome = match received.outcome.ok_or(WireError::Missing("change_answered.outcome"))? {
        Outcome::Epoch(epoch) => Ok(Epoch(epoch)),
        Outcome::Refused(refusal) => Err(refused(reader, &refusal)?),
    };
    Ok((received.id, outcome))
}

fn refused_to_proto(error: &ChangeError) -> proto::ChangeRefused {
    use proto::ChangeRefusal as Reason;
    let (reason, about) = match error {
        ChangeError::Plan(PlanError::NotEnoughNodes) => (Reason::NotEnoughNodes, 0),
        ChangeError::Plan(PlanError::TooManyShards) => (Reason::TooManyShards, 0),
        ChangeError::Plan(PlanError::ShardUnavailable(partition)) => (Reason::ShardUnavailable, partition.0),
        ChangeError::Plan(PlanError::NoSuchShard) => (Reason::NoSuchShard, 0),
        ChangeError::Plan(PlanError::NodeNotInView) => (Reason::NodeNotInView, 0),
        ChangeError::Plan(PlanError::NodeInAnotherShard(shard)) => (Reason::NodeInAnotherShard, shard.0),
        ChangeError::Plan(PlanError::AlreadyMember) => (Reason::AlreadyMember, 0),
        ChangeError::Plan(PlanError::LastHolder(shard)) => (Reason::LastHolder, shard.0),
        ChangeError::InProgress => (Reason::InProgress, 0),
        ChangeError::NotInProgress => (Reason::NotInProgress, 0),
        ChangeError::AlreadyInView => (Reason::AlreadyInView, 0),
        ChangeError::NoSuchNode => (Reason::NoSuchNode, 0),
        ChangeError::NotItsDirectory => (Reason::NotItsDirectory, 0),
        ChangeError::NotLost => (Reason::NotLost, 0),
        ChangeError::MovedOn => (Reason::MovedOn, 0),
    };
    proto::ChangeRefused { reason: reason.into(), about }
}

fn refused(reader: Reader, received: &proto::ChangeRefused) -> Result<ChangeError, WireError> {
    use proto::ChangeRefusal as Reason;
    let shard = ShardId(received.about);
    Ok(match Reason::try_from(received.reason) {
        Ok(Reason::NotEnoughNodes) => PlanError::NotEnoughNodes.into(),
        Ok(Reason::TooManyShards) => PlanError::TooManyShards.into(),
        Ok(Reason::ShardUnavailable) => PlanError::ShardUnavailable(reader.partition(received.about)?).into(),
        Ok(Reason::NoSuchShard) => PlanError::NoSuchShard.into(),
        Ok(Reason::NodeNotInView) => PlanError::NodeNotInView.into(),
        Ok(Reason::NodeInAnotherShard) => PlanError::NodeInAnotherShard(shard).into(),
        Ok(Reason::AlreadyMember) => PlanError::AlreadyMember.into(),
        Ok(Reason::LastHolder) => PlanError::LastHolder(shard).into(),
        Ok(Reason::InProgress) => ChangeError::InProgress,
        Ok(Reason::NotInProgress) => ChangeError::NotInProgress,
        Ok(Reason::AlreadyInView) => ChangeError::AlreadyInView,
        Ok(Reason::NoSuchNode) => ChangeError::NoSuchNode,
        Ok(Reason::NotItsDirectory) => ChangeError::NotItsDirectory,
        Ok(Reason::NotLost) => ChangeError::NotLost,
        Ok(Reason::MovedOn) => ChangeError::MovedOn,
        Ok(Reason::Unspecified) | Err(_) => {
            return Err(WireError::Unknown { field: "change_answered.reason", value: received.reason.into() });
        }
    })
}
