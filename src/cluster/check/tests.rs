//! What acceptors refuse, each by name.

use super::*;
use crate::cluster::change::Change;
use crate::cluster::layout::{map_one, map_zero};
use crate::cluster::line::{Fork, Line};
use crate::cluster::reconcile::rules::ReconcileRules;
use crate::cluster::reconcile::sight::Sight;
use crate::cluster::reconcile::{Told, change};
use crate::types::{BranchId, ClusterId, ContextSecret, NodeAddr, ShardId};

fn node(number: usize) -> NodeAddr {
    format!("node{number}:80").parse().unwrap()
}

/// Nodes 1 to 5 in two shards, incarnations 101 to 105; partition 0 is served by 1, 2, 3 (stays 0, 1, 2).
fn store() -> ClusterMap {
    let names: Vec<_> = (1..=5).map(node).collect();
    let bound = names.iter().cloned().zip((101..).map(Incarnation)).collect();
    map_one(&map_zero(&names, 2, 2), &bound, ClusterId(1), ContextSecret([1; 16]))
}

fn everyone() -> BTreeSet<Incarnation> {
    (101..=105).map(Incarnation).collect()
}

/// What comes of a map in which stays leave.
fn next(map: &ClusterMap) -> ClusterMap {
    let live: BTreeSet<_> = map.nodes.keys().cloned().collect();
    let hears = live.iter().map(|node| (node.clone(), live.clone().into())).collect();
    let sight = Sight { live, hears, ..Sight::default() };
    change(map, &Change::Remove(node(1)), &Told::new(), &sight, ReconcileRules::all()).unwrap().unwrap().map
}

#[test]
fn what_reconciliation_makes_passes() {
    let map = store();
    let next = next(&map);
    assert!(next.rows[0].peers[&StayId(0)].is_leaving(), "something happens");
    assert_eq!(check_proposal(&map, &next, &everyone()), Ok(()));
}

#[test]
fn what_does_not_follow_is_refused_by_name() {
    let map = store();
    let refused = |change: &dyn Fn(&mut ClusterMap)| {
        let mut next = next(&map);
        change(&mut next);
        check_proposal(&map, &next, &everyone()).unwrap_err()
    };
    let row = |change: fn(&mut Row)| refused(&|next| change(&mut next.rows[0]));
    let peer =
        |number, change: fn(&mut Stay)| refused(&|next| change(next.rows[0].peers.get_mut(&StayId(number)).unwrap()));
    let stranger = |next: &mut ClusterMap| next.layout.shards[1].push(node(9));
    let given_up = |next: &mut ClusterMap| {
        next.forgotten.insert(Incarnation(102));
    };
    let twice = |next: &mut ClusterMap| {
        next.nodes.insert(node(2), Some(Incarnation(103)));
    };
    let dropped = |row: &mut Row| {
        row.peers.remove(&StayId(1));
    };
    let other = Line::default().then(Fork { branch: BranchId(2), after: Epoch(1), first: Epoch(2) });
    for (said, part) in [
        (refused(&|next| next.cluster_id = ClusterId(2)), "another store or branch"),
        (refused(&|next| next.line = other.clone()), "another store or branch"),
        (refused(&|next| next.secret = ContextSecret([2; 16])), "another store or branch"),
        (refused(&|next| next.epoch = Epoch(3)), "does not follow map 1"),
        (refused(&|next| next.parent_hash += 1), "does not follow map 1"),
        (refused(&|next| drop(next.rows.pop())), "number of partitions"),
        (refused(&|next| next.voters.clear()), "voters"),
        (refused(&|next| next.voters[0] = Incarnation(999)), "voters"),
        (refused(&|next| next.voters[0] = next.voters[1]), "voters"),
        (refused(&twice), "another has too"),
        (refused(&given_up), "that was given up"),
        (refused(&|next| next.layout.partitions[0] = ShardId(3)), "does not fit"),
        (refused(&stranger), "node9:80 is in a shard"),
        (row(|row| row.version = Epoch(1)), "partition 0: its version"),
        (row(|row| row.next_stay = StayId(2)), "stay numbers go back"),
        (row(dropped), "did not leave first"),
        (row(|row| row.peers.values_mut().for_each(|stay| stay.state = PeerState::Leaving)), "would have none"),
        (peer(0, |stay| stay.incarnation = Incarnation(104)), "is another's"),
        (peer(1, |stay| stay.begun_empty = Some(Epoch(2))), "is another's"),
        (peer(1, |stay| stay.state = PeerState::Joining), "goes back"),
        (peer(0, |stay| stay.lost = true), "lost that is bound"),
        (peer(0, |stay| (stay.lost, stay.lost_by_word) = (true, true)), "a word that nobody gave"),
    ] {
        assert!(said.contains(part), "{said}, not {part}");
    }
}

#[test]
fn new_stays_begin_joining_under_new_numbers() {
    let map = store();
    let named = |number, stay: Stay| {
        let mut next = next(&map);
        next.rows[0].next_stay = StayId(4);
        next.rows[0].peers.insert(StayId(number), stay);
        check_proposal(&map, &next, &everyone())
    };
    let joining = Stay::new(Incarnation(104), PeerState::Joining);
    assert_eq!(named(3, joining), Ok(()));
    assert!(named(4, joining).unwrap_err().contains("by a number"));
    assert!(named(3, Stay { incarnation: Incarnation(9), ..joining }).unwrap_err().contains("for nobody"));
    assert!(named(3, Stay { state: PeerState::Serving, ..joining }).unwrap_err().contains("neither Joining nor empty"));
    let empty = Stay { state: PeerState::Serving, begun_empty: Some(Epoch(2)), ..joining };
    assert!(named(3, empty).unwrap_err().contains("though somebody serves"));
}

#[test]
fn lost_and_closed_stays_do_not_come_back() {
    let mut map = store();
    let gone = Stay { lost: true, ..Stay::new(Incarnation(7), PeerState::Leaving) };
    map.rows[0].peers.insert(StayId(3), gone);
    map.rows[0].next_stay = StayId(5);
    let mut back = next(&map);
    back.rows[0].peers.insert(StayId(3), Stay { lost: false, ..gone });
    assert!(check_proposal(&map, &back, &everyone()).unwrap_err().contains("a lost peer is back"));
    let mut again = next(&map);
    again.rows[0].peers.insert(StayId(4), Stay::new(Incarnation(104), PeerState::Joining));
    assert!(check_proposal(&map, &again, &everyone()).unwrap_err().contains("by a number"));
    let mut forgets = map.clone();
    forgets.forgotten.insert(Incarnation(7));
    let next = ClusterMap { forgotten: BTreeSet::new(), parent_hash: forgets.hash(), ..next(&forgets) };
    assert!(check_proposal(&forgets, &next, &everyone()).unwrap_err().contains("forgets whom"));
}
