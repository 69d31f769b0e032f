//! What each call answers. Every history there is of a few nodes: `epochs/tests.rs`.

use super::*;
use crate::cluster::layout::map_zero;
use crate::cluster::map::ClusterMap;
use crate::types::ClusterId;

const EPOCH: Epoch = Epoch(1);

/// What leads to a map that is told from others by its number.
fn map(number: u8) -> Arc<MapDelta> {
    let view = ["node1:1", "node2:1"].map(|node| node.parse().unwrap());
    let zero = map_zero(&view, 1, 1);
    Arc::new(MapDelta::between(&zero, &ClusterMap { cluster_id: ClusterId(u128::from(number)), ..zero.clone() }))
}

fn ballot(round: u64, proposer: u128) -> Ballot {
    Ballot { round, proposer }
}

fn promise(acceptor: u128, ballot: Ballot, accepted: Option<(Ballot, Arc<MapDelta>)>) -> PaxosMessage {
    PaxosMessage::Promise { epoch: EPOCH, ballot, acceptor: Incarnation(acceptor), accepted }
}

fn rejected(epoch: Epoch, ballot: Ballot, promised: Ballot) -> PaxosMessage {
    PaxosMessage::Rejected { epoch, ballot, promised }
}

fn accepted(acceptor: u128, ballot: Ballot) -> PaxosMessage {
    PaxosMessage::Accepted { epoch: EPOCH, ballot, acceptor: Incarnation(acceptor) }
}

#[test]
fn an_acceptor_keeps_its_promise_and_tells_what_it_accepted() {
    let me = Incarnation(1);
    let mut acceptor = Acceptor::default();
    let (low, high) = (ballot(1, 9), ballot(2, 8));
    assert_eq!(acceptor.prepare(me, EPOCH, low), promise(1, low, None));
    assert_eq!(acceptor.prepare(me, EPOCH, low), promise(1, low, None), "a repeated question");
    assert_eq!(acceptor.accept(me, EPOCH, low, map(5), Ok(())), accepted(1, low));
    assert_eq!(acceptor.accept(me, EPOCH, low, map(5), Ok(())), accepted(1, low), "a repeated request");
    assert_eq!(acceptor.accept(me, EPOCH, low, map(6), Ok(())), rejected(EPOCH, low, low), "two maps, one ballot");
    assert_eq!(acceptor.prepare(me, EPOCH, high), promise(1, high, Some((low, map(5)))));
    assert_eq!(acceptor.prepare(me, EPOCH, low), rejected(EPOCH, low, high));
    assert_eq!(acceptor.accept(me, EPOCH, low, map(5), Ok(())), rejected(EPOCH, low, high));
    assert_eq!(acceptor.next_round(EPOCH), 3);
}

#[test]
fn a_map_that_does_not_follow_leaves_no_trace() {
    let mut acceptor = Acceptor::default();
    acceptor.prepare(Incarnation(1), EPOCH, ballot(1, 9));
    let before = acceptor.clone();
    let answer = acceptor.accept(Incarnation(1), EPOCH, ballot(2, 9), map(5), Err("a reason".to_owned()));
    assert_eq!(answer, rejected(EPOCH, ballot(2, 9), ballot(1, 9)));
    assert_eq!(acceptor, before);
}

#[test]
fn a_newer_epoch_begins_afresh_and_an_older_one_is_over() {
    let me = Incarnation(1);
    let mut acceptor = Acceptor::default();
    acceptor.accept(me, EPOCH, ballot(7, 9), map(5), Ok(()));
    let question = acceptor.prepare(me, Epoch(2), ballot(1, 8));
    let afresh = PaxosMessage::Promise { epoch: Epoch(2), ballot: ballot(1, 8), acceptor: me, accepted: None };
    assert_eq!(question, afresh);
    assert_eq!((acceptor.epoch(), acceptor.next_round(Epoch(2)), acceptor.next_round(Epoch(3))), (Epoch(2), 2, 1));
    let before = acceptor.clone();
    let late = acceptor.accept(me, EPOCH, ballot(9, 9), map(5), Ok(()));
    assert_eq!(late, rejected(EPOCH, ballot(9, 9), Ballot::default()));
    assert_eq!(acceptor, before);
}

#[test]
fn an_acceptor_comes_back_from_its_record_as_it_was() {
    let mut acceptor = Acceptor::default();
    acceptor.accept(Incarnation(1), EPOCH, ballot(7, 9), map(5), Ok(()));
    let record = postcard::to_allocvec(&acceptor).unwrap();
    assert_eq!(postcard::from_bytes::<Acceptor>(&record).unwrap(), acceptor);
}

fn proposer(quorum: Quorum) -> Proposer {
    Proposer::new(EPOCH, Incarnation(1), 4, [1, 2, 3].map(Incarnation).into(), quorum, map(5))
}

#[test]
fn a_proposer_adopts_the_map_of_the_greatest_ballot_told() {
    let mine = ballot(4, 1);
    let mut proposer = proposer(Quorum::All);
    assert_eq!(proposer.start(), PaxosMessage::Prepare { epoch: EPOCH, ballot: mine });
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(3), Some((ballot(2, 2), map(6)))), None);
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(1), Some((ballot(3, 2), map(7)))), None);
    assert_eq!(proposer.missing().collect::<Vec<_>>(), [Incarnation(2)]);
    let accept = proposer.on_promise(EPOCH, mine, Incarnation(2), Some((ballot(1, 3), map(8))));
    assert_eq!(accept, Some(PaxosMessage::Accept { epoch: EPOCH, ballot: mine, next: map(7) }));
    assert_eq!(proposer.message(), accept);
    let told = [1, 2, 3].map(|acceptor| proposer.on_accepted(EPOCH, mine, Incarnation(acceptor)));
    assert_eq!(told, [None, None, Some(map(7))]);
    assert_eq!(proposer.message(), None);
}

#[test]
fn what_is_not_an_answer_to_this_attempt_counts_for_nothing() {
    let mine = ballot(4, 1);
    let mut proposer = proposer(Quorum::Majority);
    assert_eq!(proposer.on_accepted(EPOCH, mine, Incarnation(2)), None, "nothing was asked to be accepted");
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(2), None), None);
    let noise =
        [(EPOCH, mine, Incarnation(4)), (EPOCH, ballot(3, 1), Incarnation(3)), (Epoch(2), mine, Incarnation(3))];
    for (epoch, ballot, acceptor) in noise {
        assert_eq!(proposer.on_promise(epoch, ballot, acceptor, Some((ballot, map(6)))), None);
    }
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(2), None), None, "repeated");
    let accept = PaxosMessage::Accept { epoch: EPOCH, ballot: mine, next: map(5) };
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(1), None), Some(accept));
    assert_eq!(proposer.on_promise(EPOCH, mine, Incarnation(3), Some((ballot(3, 2), map(6)))), None, "too late");
    for _repeated in 0..2 {
        assert_eq!(proposer.on_accepted(EPOCH, mine, Incarnation(2)), None);
    }
    for (epoch, ballot, acceptor) in noise {
        assert_eq!(proposer.on_accepted(epoch, ballot, acceptor), None);
    }
    assert_eq!(proposer.on_accepted(EPOCH, mine, Incarnation(3)), Some(map(5)));
    assert_eq!(proposer.on_accepted(EPOCH, mine, Incarnation(1)), None, "decided once");
}

#[test]
fn a_majority_without_the_proposers_own_promise_is_not_enough() {
    let mut proposer = proposer(Quorum::Majority);
    for acceptor in [2, 3] {
        assert_eq!(proposer.on_promise(EPOCH, ballot(4, 1), Incarnation(acceptor), None), None);
    }
    assert!(proposer.on_promise(EPOCH, ballot(4, 1), Incarnation(1), None).is_some());
}

#[test]
fn a_refusal_tells_the_next_round() {
    let mine = ballot(4, 1);
    let proposer = proposer(Quorum::All);
    assert_eq!(proposer.on_rejected(EPOCH, mine, ballot(9, 2)), Some(10));
    assert_eq!(proposer.on_rejected(EPOCH, mine, ballot(1, 2)), Some(5), "refused for what it is");
    assert_eq!(proposer.on_rejected(EPOCH, ballot(3, 1), ballot(9, 2)), None);
    assert_eq!(proposer.on_rejected(Epoch(2), mine, ballot(9, 2)), None);
}
