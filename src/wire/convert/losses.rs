//! What nodes say to each other of what is lost with those that are given up.

use super::{Reader, WireError, id_to_proto, incarnation};
use crate::machine::message::Message;
use crate::machine::sign::HeldUpTo;
use crate::types::{Incarnation, PartitionId, StayId};
use crate::wire::proto;

pub fn held_to_proto(held: &[HeldUpTo]) -> Vec<proto::HeldUpTo> {
    let one = |held: &HeldUpTo| proto::HeldUpTo { partition: held.partition.0, stay: held.stay.0, seq: held.seq };
    held.iter().map(one).collect()
}

/// As received: whether the store has the partition is for the reader to see.
pub fn held(received: &[proto::HeldUpTo]) -> impl Iterator<Item = HeldUpTo> {
    let one = |held: &proto::HeldUpTo| HeldUpTo {
        partition: PartitionId(held.partition),
        stay: StayId(held.stay),
        seq: held.seq,
    };
    received.iter().map(one)
}

pub fn asked_to_proto(id: u64, incarnations: &[Incarnation]) -> proto::LossAsked {
    proto::LossAsked { id, incarnations: incarnations.iter().map(|one| id_to_proto(one.0)).collect() }
}

pub fn asked(received: &proto::LossAsked) -> Result<Message, WireError> {
    let incarnations = received.incarnations.iter().map(|id| incarnation("loss_asked.incarnations", id));
    Ok(Message::LossAsked { id: received.id, incarnations: incarnations.collect::<Result<_, _>>()? })
}

pub fn told_to_proto(id: u64, told: &[HeldUpTo], held: &[HeldUpTo]) -> proto::LossTold {
    proto::LossTold { id, told: held_to_proto(told), held: held_to_proto(held) }
}

pub fn told(reader: Reader, received: &proto::LossTold) -> Result<Message, WireError> {
    let there = |all: &[proto::HeldUpTo]| {
        held(all).map(|one| reader.partition(one.partition.0).map(|_| one)).collect::<Result<_, _>>()
    };
    Ok(Message::LossTold { id: received.id, told: there(&received.told)?, held: there(&received.held)? })
}
