//! What a recovery gives up, keeps and draws; and that the store goes on from there by itself.

use proptest::prelude::*;

use super::*;
use crate::cluster::check::check_proposal;
use crate::cluster::layout::{map_one, map_zero};
use crate::cluster::line::Relation;
use crate::cluster::map::{PeerState, Stay};
use crate::cluster::reconcile::{Vector, Word, reconcile};
use crate::types::{ClusterId, ContextSecret};

fn node(number: usize) -> NodeAddr {
    format!("node{number}:80").parse().unwrap()
}

fn incarnation(number: usize) -> Incarnation {
    Incarnation(100 + number as u128)
}

fn store(nodes: usize, shards: u32) -> ClusterMap {
    let names: Vec<_> = (1..=nodes).map(node).collect();
    let bound = (1..=nodes).map(|number| (node(number), incarnation(number))).collect();
    map_one(&map_zero(&names, shards, 8), &bound, ClusterId(1), ContextSecret([1; 16]))
}

fn sight(present: &[usize]) -> Sight {
    let live: BTreeSet<_> = present.iter().copied().map(node).collect();
    Sight {
        hears: live.iter().map(|node| (node.clone(), live.clone().into())).collect(),
        connected: present.iter().map(|number| (node(*number), incarnation(*number))).collect(),
        live,
        ..Sight::default()
    }
}

fn draw(bits: u128) -> Draw {
    Draw::new(bits)
}

fn recovered(map: &ClusterMap, present: &[usize], bits: u128) -> Result<ClusterMap, RecoverError> {
    let me = incarnation(present[0]);
    let next = recover(map, me, &Told::new(), &sight(present), ReconcileRules::all(), draw(bits))?.map;
    assert_eq!(check_recovered(map, &next), Ok(()));
    Ok(next)
}

/// Everybody left tells that it holds nothing, or the same, and the next maps are decided, until there is none.
fn go_on(mut map: ClusterMap, present: &[usize]) -> ClusterMap {
    let sight = sight(present);
    let live = sight.connected.values().copied().collect();
    for _ in 0..20 {
        let word = |version| Word { version, first: Vector::new(), durable: Vector::new() };
        let rows = (0..).map(PartitionId).zip(&map.rows);
        let told: Told = rows
            .flat_map(|(partition, row)| {
                let live =
                    row.peers.iter().filter(|(_, stay)| sight.connected.values().any(|i| *i == stay.incarnation));
                live.map(move |(stay, _)| ((partition, *stay), word(row.version)))
            })
            .collect();
        let Some(next) = reconcile(&map, &told, &sight, ReconcileRules::all()) else { return map };
        assert_eq!(check_proposal(&map, &next.map, &live), Ok(()));
        map = next.map;
    }
    panic!("it never ends: {map:#?}");
}

#[test]
fn of_two_nodes_one_goes_on_alone() {
    let map = store(2, 1);
    assert_eq!(missing_voters(&map, &sight(&[1]).connected), [node(2)]);
    assert_eq!(cost(&map, &sight(&[1]).connected), Cost { silent: vec![node(2)], partitions: vec![] });
    let next = recovered(&map, &[1], 5).unwrap();
    assert_eq!((next.voters.clone(), next.nodes.len()), (vec![incarnation(1)], 1));
    assert_eq!(next.forgotten, [incarnation(2)].into());
    let settled = go_on(next, &[1]);
    for row in &settled.rows {
        assert_eq!(row.peers.values().collect::<Vec<_>>(), [&Stay::new(incarnation(1), PeerState::Serving)]);
    }
}

#[test]
fn nothing_is_recovered_while_a_majority_answers() {
    for (nodes, present) in [(2, &[1, 2][..]), (3, &[1, 3]), (5, &[1, 3, 5]), (6, &[1, 2, 4])] {
        assert_eq!(recovered(&store(nodes, 1), present, 5), Err(RecoverError::QuorumLives), "{nodes} nodes");
    }
    // One of two voters that came back without its disk is replaced on the word of the other.
    let mut empty = sight(&[1]);
    empty.connected.insert(node(2), incarnation(9));
    assert!(quorum_lives(&store(2, 1), &empty.connected));
    // Of three, two that came back so are no majority, though all nodes answer.
    empty.connected.insert(node(3), incarnation(8));
    assert!(!quorum_lives(&store(3, 1), &empty.connected));
    assert_eq!(missing_voters(&store(3, 1), &empty.connected), [node(2), node(3)]);
}

#[test]
fn who_is_no_member_recovers_nothing() {
    let map = store(4, 2);
    let by = |me| recover(&map, me, &Told::new(), &sight(&[1]), ReconcileRules::all(), draw(5)).map(|next| next.map);
    assert_eq!(by(incarnation(2)), Err(RecoverError::NoMember));
    assert_eq!(by(incarnation(9)), Err(RecoverError::NoMember));
    let mut late = map;
    late.rows[3].next_stay = StayId(u32::MAX - RAISE + 1);
    assert_eq!(recovered(&late, &[1], 5), Err(RecoverError::Exhausted));
}

#[test]
fn where_all_who_are_left_were_taken_out_they_are_back() {
    let mut map = store(4, 2);
    for number in [1, 2] {
        map.layout = map.layout.without(&node(number));
        map.out.insert(node(number));
    }
    let next = recovered(&map, &[1], 5).unwrap();
    assert_eq!((next.voters.clone(), next.out.is_empty()), (vec![incarnation(1)], true));
    // So they are where somebody is there who is no member yet, or was given up.
    let next = recovered(&map, &[1, 7], 5).unwrap();
    assert_eq!((next.voters.clone(), next.out.contains(&node(1))), (vec![incarnation(1)], false));
    let mut forgot = map.clone();
    forgot.nodes.insert(node(4), None);
    forgot.forgotten.insert(incarnation(4));
    let next = recovered(&forgot, &[1, 4], 5).unwrap();
    assert_eq!((next.voters.clone(), next.out.contains(&node(1))), (vec![incarnation(1)], false));
    // As long as one is left that was not, the operator's other word stands.
    map.out.remove(&node(2));
    map.voters.push(incarnation(4));
    let next = recovered(&map, &[1, 2], 5).unwrap();
    assert_eq!((next.voters.clone(), next.out), (vec![incarnation(2)], [node(1)].into()));
}

#[test]
fn a_shard_that_is_gone_keeps_a_place_and_is_counted() {
    let map = store(4, 2);
    let gone: Vec<_> = (0..8).filter(|at| map.layout.partitions[*at].0 == 2).map(|at| PartitionId(at as u32)).collect();
    let cost = cost(&map, &sight(&[1]).connected);
    assert_eq!((cost.silent, &cost.partitions), (vec![node(2), node(3), node(4)], &gone));
    let next = recovered(&map, &[1], 5).unwrap();
    assert_eq!(next.layout.shards, [vec![node(1)], vec![node(4)]]);
    assert_eq!(next.nodes, [(node(1), Some(incarnation(1))), (node(4), None)].into());
    // A new node at that address serves it, from nothing.
    let mut there = sight(&[1]);
    there.connected.insert(node(4), incarnation(9));
    there.live.insert(node(4));
    let anew = reconcile(&next, &Told::new(), &there, ReconcileRules::all()).unwrap().map;
    let begun = &anew.rows[gone[0].0 as usize];
    let (number, stay) = begun.peers.iter().find(|(_, stay)| stay.serves()).unwrap();
    assert_eq!((stay.incarnation, stay.begun_empty), (incarnation(9), Some(anew.epoch)));
    assert!(*number >= StayId(RAISE));
}

#[test]
fn who_came_back_without_its_disk_is_taken_up_and_not_given_up() {
    let map = store(3, 1);
    let mut sight = sight(&[1]);
    for number in [2, 3] {
        sight.connected.insert(node(number), incarnation(10 + number));
    }
    let next = recover(&map, incarnation(1), &Told::new(), &sight, ReconcileRules::all(), draw(5)).unwrap().map;
    assert_eq!(check_recovered(&map, &next), Ok(()));
    assert_eq!(next.voters.len(), 3);
    assert!(next.forgotten.is_empty());
    assert_eq!(next.former.len(), 2);
    assert!(next.rows[0].peers.values().filter(|stay| stay.lost).count() == 2, "{:?}", next.rows[0]);
}

#[test]
fn who_is_silent_and_lost_a_disk_before_is_given_up_with_the_one_it_has() {
    let mut map = store(5, 2);
    // Node 4 lost a disk, of which not all is known to be elsewhere yet.
    let lost = incarnation(24);
    map.former.insert(lost, node(4));
    for row in &mut map.rows {
        let stay =
            Stay { incarnation: lost, state: PeerState::Leaving, lost: true, lost_by_word: false, begun_empty: None };
        row.peers.insert(row.next_stay, stay);
        row.next_stay = StayId(row.next_stay.0 + 1);
    }
    let next = recovered(&map, &[1, 5], 7).unwrap();
    assert!([lost, incarnation(2), incarnation(3), incarnation(4)].iter().all(|gone| next.forgotten.contains(gone)));
    assert_eq!(next.voters.len(), 2);
    assert!(quorum_lives(&next, &sight(&[1, 5]).connected), "{:?}", next.voters);
}

#[test]
fn a_partition_that_begins_empty_does_so_under_numbers_and_an_epoch_of_its_own_line() {
    // Node 2 alone served partition 0; node 1 is wanted there, too.
    let mut map = store(2, 1);
    map.rows[0].peers.remove(&StayId(0));
    let next = recovered(&map, &[1], 5).unwrap();
    let begun: Vec<_> = next.rows[0].peers.iter().filter(|(_, stay)| stay.serves()).collect();
    let [(number, stay)] = begun[..] else { panic!("{begun:?}") };
    assert_eq!(stay.begun_empty, Some(next.epoch));
    assert!(!next.rows[0].is_skipped(*number) && next.rows[0].is_skipped(StayId(2)));
    assert!(!next.line.skips(next.epoch) && next.line.skips(Epoch(2)));
}

#[test]
fn a_vow_is_for_one_recovery_at_a_time() {
    let (mut vow, one, other) = (Vow::default(), BranchId(1), BranchId(2));
    let both = [node(1), node(2)];
    assert!(vow.give(10, one, &node(2), &both) && vow.give(20, one, &node(2), &both));
    assert!(!vow.give(20 + VOW_MS - 1, other, &node(3), &both));
    assert!(vow.give(20 + VOW_MS, other, &node(3), &both));
    // The lower address has its way, if the other one has to agree, too.
    assert!(!vow.give(30 + VOW_MS, one, &node(1), &both));
    assert!(vow.give(30 + VOW_MS, one, &node(1), &[node(1), node(3)]));
    assert!(!vow.give(30 + VOW_MS, other, &node(3), &[node(1), node(3)]));
}

#[test]
fn what_is_no_recovery_of_this_map_is_refused() {
    let map = store(4, 2);
    let refused = |change: &dyn Fn(&mut ClusterMap)| {
        let mut next = recovered(&map, &[1], 5).unwrap();
        change(&mut next);
        check_recovered(&map, &next).unwrap_err()
    };
    assert_eq!(refused(&|next| next.cluster_id = ClusterId(2)), "it is a map of another store");
    assert_eq!(refused(&|next| next.line = map.line.clone()), "it was not recovered from this map");
    assert_eq!(refused(&|next| next.parent_hash = 0), "it was not recovered from this map");
    let stays = "it skips too few stay numbers, or others";
    assert_eq!(refused(&|next| next.rows[1].skipped.clear()), stays);
    assert_eq!(refused(&|next| next.rows[1].skipped[0].1 = StayId(50)), stays);
    let named = |next: &mut ClusterMap| {
        next.rows[1].peers.insert(StayId(7), Stay::new(incarnation(1), PeerState::Serving));
    };
    assert_eq!(refused(&named), "it names a stay that was closed, or another line's");
    assert_eq!(refused(&|next| next.voters.clear()), "its voters are none, or not among its nodes");
}

proptest! {
    /// Whatever is left of a store goes on, whether or not nodes are there that are no members: every partition that
    /// somebody held is served, no number of another line is given out again, nobody who answers is given up.
    #[test]
    fn what_is_left_goes_on(
        nodes in 2usize..9,
        shards in 1u32..4,
        left in prop::collection::btree_set(1usize..9, 1..5),
        bits in any::<u128>(),
    ) {
        let map = store(nodes, shards.min(nodes as u32 / 2).max(1));
        let present: Vec<_> = left.into_iter().collect();
        prop_assume!(present[0] <= nodes && !quorum_lives(&map, &sight(&present).connected));
        let lost = cost(&map, &sight(&present).connected).partitions;
        let next = recovered(&map, &present, bits).unwrap();
        prop_assert_eq!(map.standing().relation(&next.standing()), Relation::After);
        let there: BTreeSet<_> = present.iter().copied().map(incarnation).collect();
        prop_assert!(next.voters.iter().all(|voter| there.contains(voter)));
        prop_assert!(next.forgotten.is_disjoint(&there));
        let settled = go_on(next.clone(), &present);
        for ((partition, row), before) in (0..).map(PartitionId).zip(&settled.rows).zip(&map.rows) {
            prop_assert_eq!(!row.peers.values().any(Stay::serves), lost.contains(&partition), "partition {}", partition);
            prop_assert!(row.next_stay.0 >= before.next_stay.0 + RAISE);
            prop_assert!(row.peers.keys().all(|number| !row.is_skipped(*number)));
        }
        // Another recovery of the same map is another line.
        let other = recovered(&map, &present, bits ^ 1 << 3).unwrap();
        prop_assert_eq!(next.standing().relation(&other.standing()), Relation::Apart);
    }
}
