//! Every change that can be asked for, and every refusal.

use std::collections::BTreeSet;

use super::*;
use crate::cluster::layout::{map_one, map_zero};
use crate::cluster::map::Stay;
use crate::cluster::reconcile::rules::ReconcileRules;
use crate::cluster::reconcile::{Told, change, reconcile};
use crate::types::{ClusterId, ContextSecret, PartitionId};

fn node(number: usize) -> NodeAddr {
    format!("node{number}:80").parse().unwrap()
}

fn incarnation(number: usize) -> Incarnation {
    Incarnation(100 + number as u128)
}

/// Nodes 1 to 6 in two shards, and node 7 in none.
fn store() -> ClusterMap {
    let names: Vec<_> = (1..=6).map(node).collect();
    let bound = (1..=6).map(|number| (node(number), incarnation(number))).collect();
    let mut map = map_one(&map_zero(&names, 2, 8), &bound, ClusterId(1), ContextSecret([1; 16]));
    map.nodes.insert(node(7), Some(incarnation(7)));
    map
}

fn sight(map: &ClusterMap, dead: &[usize]) -> Sight {
    let dead: BTreeSet<_> = dead.iter().copied().map(node).collect();
    let live: BTreeSet<_> = map.nodes.keys().filter(|node| !dead.contains(*node)).cloned().collect();
    Sight {
        hears: live.iter().map(|node| (node.clone(), live.clone().into())).collect(),
        connected: live.iter().filter_map(|node| Some((node.clone(), map.nodes[node]?))).collect(),
        silent_ms: dead.into_iter().map(|node| (node, 1)).collect(),
        live,
        ..Sight::default()
    }
}

fn applied(map: &ClusterMap, dead: &[usize], asked: Change) -> Result<ClusterMap, ChangeError> {
    let mut next = map.clone();
    asked.apply(&mut next, &sight(map, dead))?;
    assert_eq!(next.rows, map.rows, "no peer changes");
    Ok(next)
}

#[test]
fn a_reshard_is_a_target_one_at_a_time() {
    let map = store();
    let next = applied(&map, &[], Change::Reshard(3)).unwrap();
    let target = next.target.clone().unwrap();
    assert_eq!((target.layout.shards.len(), target.name.as_str(), target.even), (3, "reshard to 3", true));
    assert_eq!(next.layout, map.layout);
    assert_eq!(applied(&next, &[], Change::Reshard(2)), Err(ChangeError::InProgress));
    assert_eq!(applied(&next, &[], Change::Reshard(4)), Err(PlanError::NotEnoughNodes.into()), "that comes first");
    let add = Change::AddMember { shard: ShardId(1), node: node(7) };
    assert_eq!(applied(&next, &[], add), Err(ChangeError::InProgress));
    let (member, shard) = (map.layout.shards[0][0].clone(), ShardId(1));
    for (shard, node, error) in [
        (ShardId(9), node(7), PlanError::NoSuchShard),
        (shard, node(99), PlanError::NodeNotInView),
        (shard, member, PlanError::AlreadyMember),
    ] {
        assert_eq!(applied(&next, &[], Change::AddMember { shard, node }), Err(error.into()), "that, too");
    }
    assert_eq!(applied(&next, &[], Change::Cancel).unwrap(), map);
    assert_eq!(applied(&map, &[], Change::Cancel), Err(ChangeError::NotInProgress));
}

#[test]
fn what_is_there_already_is_no_target() {
    let mut map = store();
    map.nodes.remove(&node(7));
    assert_eq!(applied(&map, &[], Change::Reshard(2)).unwrap().target, None);
}

#[test]
fn a_node_is_admitted_once_and_back_after_a_removal() {
    let map = store();
    let admit = |map: &_, at, id| applied(map, &[], Change::Admit { node: node(at), incarnation: incarnation(id) });
    let next = admit(&map, 8, 8).unwrap();
    assert_eq!((next.nodes[&node(8)], next.shard_of(&node(8))), (Some(incarnation(8)), None));
    assert_eq!(admit(&map, 7, 7), Err(ChangeError::AlreadyInView));
    assert_eq!(admit(&map, 8, 7), Err(ChangeError::NotItsDirectory), "a copied directory");
    let removed = applied(&map, &[], Change::Remove(node(7))).unwrap();
    assert!(removed.out.contains(&node(7)) && removed.present().all(|other| *other != node(7)));
    assert_eq!(admit(&removed, 7, 7).unwrap(), map);
    let mut forgotten = map.clone();
    forgotten.forgotten.insert(incarnation(8));
    assert_eq!(admit(&forgotten, 8, 8), Err(ChangeError::NotItsDirectory));
}

#[test]
fn a_removed_node_is_in_no_layout_and_drained() {
    let map = store();
    let next = applied(&map, &[], Change::Remove(node(1))).unwrap();
    assert_eq!(next.layout.shards[0], [node(2), node(3)]);
    assert_eq!((next.nodes[&node(1)], next.target.as_ref()), (Some(incarnation(1)), None));
    assert_eq!(applied(&next, &[], Change::Remove(node(1))), Err(PlanError::NodeNotInView.into()));
    assert_eq!(applied(&map, &[2], Change::Remove(node(2))), Err(PlanError::NodeNotInView.into()));
    let last = PlanError::LastHolder(ShardId(1)).into();
    assert_eq!(applied(&map, &[2, 3], Change::Remove(node(1))), Err(last));
    let seen = sight(&map, &[2]);
    let rest = change(&map, &Change::Remove(node(1)), &Told::new(), &seen, ReconcileRules::all()).unwrap().unwrap();
    assert!(rest.map.rows[0].peers.values().any(Stay::is_leaving), "one live node is enough to leave to");
    assert!(!rest.map.voters.contains(&incarnation(1)));
}

#[test]
fn a_removal_meets_a_target() {
    let map = store();
    let aiming = applied(&map, &[], Change::Reshard(3)).unwrap();
    let next = applied(&aiming, &[], Change::Remove(node(7))).unwrap();
    let target = next.target.unwrap().layout;
    assert!(target.shard_of(&node(7)).is_none() && target.shards.iter().all(|shard| shard.len() == 2), "anew");
    let next = applied(&aiming, &[6], Change::Remove(node(7))).unwrap();
    assert_eq!(next.target, None, "five are not enough for three shards");
    let adding = applied(&map, &[], Change::AddMember { shard: ShardId(2), node: node(7) }).unwrap();
    assert_eq!(applied(&adding, &[], Change::Remove(node(7))).unwrap().target, None, "there is nobody to add");
    let next = applied(&adding, &[], Change::Remove(node(1))).unwrap();
    assert_eq!(next.target.unwrap().layout.shards[0], [node(2), node(3)]);
}

#[test]
fn a_forgotten_node_is_gone_for_good() {
    let map = store();
    let next = applied(&map, &[1], Change::Forget(node(1))).unwrap();
    assert!(!next.nodes.contains_key(&node(1)) && next.forgotten.contains(&incarnation(1)));
    assert_eq!(next.layout.shards[0], [node(2), node(3)]);
    assert_eq!(applied(&map, &[], Change::Forget(node(1))), Err(ChangeError::NotLost));
    assert_eq!(applied(&map, &[], Change::Forget(node(9))), Err(ChangeError::NoSuchNode));
}

#[test]
fn the_place_of_a_shards_last_member_is_kept() {
    let mut map = store();
    for number in 1..=3 {
        map = applied(&map, &[1, 2, 3], Change::Forget(node(number))).unwrap();
    }
    assert_eq!(map.layout.shards[0], [node(3)]);
    assert_eq!((map.nodes[&node(3)], map.nodes.contains_key(&node(2))), (None, false));
    let mut seen = sight(&map, &[3]);
    // Whoever starts there takes it; what was held is lost, and a reshard may put it elsewhere.
    assert!(applied(&map, &[3], Change::Reshard(2)).is_err(), "not before the words are in the rows");
    let rest = reconcile(&map, &Told::new(), &seen, ReconcileRules::all()).unwrap().map;
    assert!(rest.rows[0].peers.values().all(|stay| stay.lost_by_word));
    assert!(applied(&rest, &[3], Change::Reshard(2)).is_ok());
    seen.live.insert(node(3));
    seen.connected.insert(node(3), Incarnation(777));
    let begun = reconcile(&rest, &Told::new(), &seen, ReconcileRules::all()).unwrap().map;
    let serving = begun.row(PartitionId(0)).peers.values().filter(|stay| stay.serves());
    assert_eq!(serving.map(|stay| stay.incarnation).collect::<Vec<_>>(), [Incarnation(777)]);
}

#[test]
fn a_lost_disk_is_forgotten_by_the_address_it_had() {
    let map = store();
    let mut seen = sight(&map, &[]);
    // Every disk of the first shard is lost: nobody serves who could be asked.
    for number in 1..=3 {
        seen.connected.insert(node(number), Incarnation(900 + number as u128));
    }
    let mut map = reconcile(&map, &Told::new(), &seen, ReconcileRules::all()).unwrap().map;
    assert_eq!(map.former.len(), 3);
    assert!(map.rows[0].peers.values().all(|stay| stay.serves()), "the last Serving stays are waited for");
    for number in 1..=3 {
        let asked = Change::Forget(node(number));
        map = change(&map, &asked, &Told::new(), &seen, ReconcileRules::all()).unwrap().unwrap().map;
    }
    let serving: Vec<_> = map.rows[0].peers.values().filter(|stay| stay.serves()).collect();
    assert_eq!(serving.len(), 3);
    assert!(serving.iter().all(|stay| stay.begun_empty == Some(map.epoch)), "the new ones begin empty");
    assert_eq!(map.nodes[&node(1)], Some(Incarnation(901)), "who is there now stays");
}

#[test]
fn the_word_on_a_lost_disk_is_not_on_the_disk_that_took_its_place() {
    let map = store();
    let mut seen = sight(&map, &[]);
    seen.connected.insert(node(1), Incarnation(901));
    let map = reconcile(&map, &Told::new(), &seen, ReconcileRules::all()).unwrap().map;
    assert_eq!((map.former.len(), map.nodes[&node(1)]), (1, Some(Incarnation(901))));
    // Down just now, with a healthy new disk.
    let next = applied(&map, &[1], Change::Forget(node(1))).unwrap();
    assert_eq!(next.forgotten, [incarnation(1)].into());
    assert_eq!(next.nodes[&node(1)], Some(Incarnation(901)));
    assert_eq!(next.layout, map.layout);
    // A second word is on that.
    let next = applied(&next, &[1], Change::Forget(node(1))).unwrap();
    assert_eq!(next.forgotten, [incarnation(1), Incarnation(901)].into());
    assert!(!next.nodes.contains_key(&node(1)));
}

#[test]
fn a_change_is_shown_by_the_map_that_has_it_and_by_no_other() {
    let mut map = store();
    map.former.insert(incarnation(60), node(6));
    let resharding = applied(&map, &[], Change::Reshard(3)).unwrap();
    let without_4 = applied(&map, &[], Change::Remove(node(4))).unwrap();
    let given_up = applied(&map, &[6], Change::Forget(node(6))).unwrap();
    assert_eq!(given_up.nodes[&node(6)], Some(incarnation(6)), "the word was on the disk before");
    let mut ended = resharding.clone();
    ended.layout = ended.target.take().unwrap().layout;
    let add = Change::AddMember { shard: ShardId(1), node: node(7) };
    let adding = applied(&map, &[], add.clone()).unwrap();
    let admit = Change::Admit { node: node(4), incarnation: incarnation(4) };
    assert!(!admit.is_shown_by(&map, &resharding), "it was there before");
    let maps = [("as it was", &map), ("resharding", &resharding), ("ended", &ended), ("adding", &adding)];
    let maps = maps.into_iter().chain([("without node4", &without_4), ("given up", &given_up)]);
    let maps: Vec<_> = maps.collect();
    let shown = |before: &ClusterMap, change: &Change| {
        let shows = maps.iter().filter(|(_, after)| change.is_shown_by(before, after));
        shows.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    assert_eq!(shown(&map, &Change::Reshard(3)), ["resharding", "ended"]);
    assert_eq!(shown(&map, &Change::Reshard(1)), [""; 0]);
    assert_eq!(shown(&map, &add), ["adding"]);
    assert_eq!(shown(&map, &Change::Remove(node(4))), ["without node4"]);
    assert_eq!(shown(&map, &Change::Forget(node(6))), ["given up"]);
    assert_eq!(shown(&map, &Change::Cancel), [""; 0], "there was nothing to end");
    // One that came to its end is not cancelled; another target is there only when it was.
    assert_eq!(shown(&resharding, &Change::Cancel), ["as it was", "adding", "without node4", "given up"]);
    // Somebody else's was under way when it was asked for, and still is.
    assert_eq!(shown(&resharding, &Change::Reshard(3)), [""; 0]);
    let back = shown(&without_4, &admit);
    assert!(!back.contains(&"without node4") && back.contains(&"as it was"), "{back:?}");
    // The second word on a node is on the disk that it has.
    assert_eq!(shown(&given_up, &Change::Forget(node(6))), [""; 0]);
    let gone = applied(&given_up, &[6], Change::Forget(node(6))).unwrap();
    assert!(Change::Forget(node(6)).is_shown_by(&given_up, &gone));
}
