//! Plans within their bounds, none cheaper, and every refusal.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cluster::layout::{map_one, map_zero};
use crate::cluster::map::{PeerState, Stay};
use crate::types::{ClusterId, ContextSecret, Incarnation};

fn node(number: usize) -> NodeAddr {
    format!("n{number:02}:80").parse().unwrap()
}

fn incarnation(number: usize) -> Incarnation {
    Incarnation(100 + number as u128)
}

/// A store of nodes 0, 1, …: each in the shard named for it (0: in none), each partition in its own, served by all of
/// the shard's nodes.
fn store(nodes: &[u32], partitions: &[u32]) -> ClusterMap {
    let shards = nodes.iter().chain(partitions).copied().max().unwrap();
    let names: Vec<_> = (0..nodes.len()).map(node).collect();
    let zero = map_zero(&names, 1, partitions.len() as u32);
    let bound = names.iter().cloned().zip((0..).map(incarnation)).collect();
    let mut map = map_one(&zero, &bound, ClusterId(1), ContextSecret([1; 16]));
    let members = |shard| nodes.iter().zip(&names).filter(move |(of, _)| **of == shard).map(|(_, name)| name.clone());
    map.layout = Layout {
        shards: (1..=shards).map(|shard| members(shard).collect()).collect(),
        partitions: partitions.iter().copied().map(ShardId).collect(),
    };
    for (row, shard) in map.rows.iter_mut().zip(partitions) {
        row.peers.retain(|stay, _| nodes[stay.0 as usize] == *shard);
    }
    map
}

fn all(map: &ClusterMap) -> BTreeSet<NodeAddr> {
    map.nodes.keys().cloned().collect()
}

/// Which shard of `new` continues which of `old`, counted from 0.
type Continued = [Option<usize>];

/// What moves when these shards are continued: nodes that were in a shard, and partitions.
fn moved(old: &[u32], new: &[u32], continued: &Continued) -> usize {
    let stays = |was: u32, is: u32| continued[is as usize - 1] == Some(was as usize - 1);
    old.iter().zip(new).filter(|(was, is)| **was > 0 && !stays(**was, **is)).count()
}

/// Every way to continue some of `old` shards in `new` ones.
fn continuations(old: usize, new: usize) -> Vec<Vec<Option<usize>>> {
    let mut all = vec![Vec::new()];
    for _ in 0..new {
        let longer = |list: &Vec<Option<usize>>| {
            let free = (0..old).filter(|at| !list.contains(&Some(*at))).map(Some);
            std::iter::once(None).chain(free).map(|next| [list.clone(), vec![next]].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// Every way to deal so many things to so many shards, sizes within one of each other.
fn even_deals(things: usize, shards: u32) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new()];
    for _ in 0..things {
        all = all.iter().flat_map(|list| (1..=shards).map(move |s| [list.clone(), vec![s]].concat())).collect();
    }
    all.retain(|list| {
        let size = |shard| list.iter().filter(|s| **s == shard).count();
        (1..=shards).map(size).max().unwrap() - (1..=shards).map(size).min().unwrap() <= 1
    });
    all
}

/// The fewest moves there are, nodes first: nodes and partitions are dealt apart, so each is least by itself.
fn fewest(nodes: &[u32], partitions: &[u32], old: usize, count: u32) -> (usize, usize) {
    let (node_deals, partition_deals) = (even_deals(nodes.len(), count), even_deals(partitions.len(), count));
    let least = |was: &[u32], deals: &[Vec<u32>], continued: &Continued| {
        deals.iter().map(|deal| moved(was, deal, continued)).min().unwrap()
    };
    let cost = |continued: Vec<Option<usize>>| {
        (least(nodes, &node_deals, &continued), least(partitions, &partition_deals, &continued))
    };
    continuations(old, count as usize).into_iter().map(cost).min().unwrap()
}

/// The cost of a plan for these nodes, which were in these shards, under the continuation that suits it best.
fn cost(live: &[usize], nodes: &[u32], partitions: &[u32], old: usize, layout: &Layout) -> (usize, usize) {
    let new_nodes: Vec<u32> = live.iter().map(|at| layout.shard_of(&node(*at)).unwrap().0).collect();
    let new_partitions: Vec<u32> = layout.partitions.iter().map(|shard| shard.0).collect();
    let cost = |continued: Vec<Option<usize>>| {
        (moved(nodes, &new_nodes, &continued), moved(partitions, &new_partitions, &continued))
    };
    continuations(old, layout.shards.len()).into_iter().map(cost).min().unwrap()
}

fn spread(sizes: impl Iterator<Item = usize> + Clone) -> usize {
    sizes.clone().max().unwrap() - sizes.min().unwrap()
}

#[track_caller]
fn within_bounds(map: &ClusterMap, live: &BTreeSet<NodeAddr>, count: u32, layout: &Layout) {
    assert_eq!(layout.check(map.rows.len()), Ok(()));
    assert_eq!(layout.shards.len(), count as usize);
    assert!(layout.shards.iter().all(|shard| shard.len() >= 2));
    assert!(spread(layout.shards.iter().map(Vec::len)) <= 1);
    let named: BTreeSet<_> = layout.shards.iter().flatten().cloned().collect();
    assert_eq!(&named, live, "every live node, and no other");
    let held = |shard| layout.partitions.iter().filter(|s| s.0 == shard).count();
    assert!(spread((1..=count).map(held)) <= 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_plan_of_a_small_store_moves_fewer(
        nodes in vec(0..=3u32, 4..=7), partitions in vec(1..=3u32, 3..=5), count in 1..=3u32,
        dead in vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let map = store(&nodes, &partitions);
        // A shard without nodes serves nothing: its partitions were given up, or nothing could be planned.
        let mut map = map;
        for row in &mut map.rows {
            if row.peers.is_empty() {
                let lost = Stay { lost: true, lost_by_word: true, ..Stay::new(Incarnation(1), PeerState::Leaving) };
                row.peers.insert(crate::types::StayId(0), lost);
            }
        }
        let mut live: Vec<usize> = (0..nodes.len()).collect();
        for at in dead.into_iter().map(|at| at.index(nodes.len())) {
            // Who dies leaves somebody who serves.
            if nodes[at] == 0 || live.iter().any(|other| *other != at && nodes[*other] == nodes[at]) {
                live.retain(|other| *other != at);
            }
        }
        let names: BTreeSet<NodeAddr> = live.iter().copied().map(node).collect();
        let layout = plan(&map, &names, &Request::Reshard(count));
        if live.len() < 2 * count as usize {
            prop_assert_eq!(layout, Err(PlanError::NotEnoughNodes));
        } else {
            let layout = layout.unwrap();
            within_bounds(&map, &names, count, &layout);
            let (old, were) = (map.layout.shards.len(), live.iter().map(|at| nodes[*at]).collect::<Vec<_>>());
            prop_assert_eq!(cost(&live, &were, &partitions, old, &layout), fewest(&were, &partitions, old, count));
        }
    }

    #[test]
    fn plans_are_even_and_stay_put_once_reached(
        start in 1..12u32, nodes in 2..30usize, partitions in 16..300u32, counts in vec(1..14u32, 1..6),
        dead in vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let names: Vec<_> = (0..nodes).map(node).collect();
        let shards = start.min(nodes as u32 / 2);
        let zero = map_zero(&names, shards, partitions);
        let bound = names.iter().cloned().zip((0..).map(incarnation)).collect();
        let mut map = map_one(&zero, &bound, ClusterId(1), ContextSecret([1; 16]));
        let mut live = all(&map);
        for at in dead {
            // Who dies leaves somebody who serves.
            let name = node(at.index(nodes));
            let others = map.layout.members(map.shard_of(&name).unwrap()).unwrap();
            if others.iter().any(|other| *other != name && live.contains(other)) {
                live.remove(&name);
            }
        }
        for count in counts {
            let layout = plan(&map, &live, &Request::Reshard(count));
            if live.len() < 2 * count as usize {
                prop_assert_eq!(layout, Err(PlanError::NotEnoughNodes));
                continue;
            }
            map.layout = layout.unwrap();
            within_bounds(&map, &live, count, &map.layout);
            let again = plan(&map, &live, &Request::Reshard(count)).unwrap();
            prop_assert_eq!(&again, &map.layout, "there is nothing left to do");
        }
    }
}

#[test]
fn a_seventh_node_and_a_third_shard() {
    let map = store(&[1, 1, 1, 2, 2, 2, 2], &[1, 2, 1, 2, 1, 2, 1, 2, 1]);
    let layout = plan(&map, &all(&map), &Request::Reshard(3)).unwrap();
    let names = |shard| layout.members(ShardId(shard)).unwrap().iter().map(NodeAddr::host).collect::<Vec<_>>();
    assert_eq!(names(1), ["n00", "n01", "n02"]);
    assert_eq!(names(2), ["n03", "n04"]);
    assert_eq!(names(3), ["n05", "n06"]);
    assert_eq!(layout.partitions, [1, 2, 1, 2, 1, 2, 3, 3, 3].map(ShardId));
}

#[test]
fn shards_that_go_on_keep_their_ids_and_the_smallest_is_given_up() {
    let map = store(&[1, 1, 2, 2, 2, 3, 3, 3], &[1, 2, 3, 1, 2, 3]);
    let layout = plan(&map, &all(&map), &Request::Reshard(2)).unwrap();
    let names = |shard| layout.members(ShardId(shard)).unwrap().iter().map(NodeAddr::host).collect::<Vec<_>>();
    assert_eq!(names(2), ["n01", "n02", "n03", "n04"], "shard 2 is shard 2");
    assert_eq!(names(1), ["n00", "n05", "n06", "n07"], "shard 3 goes on as shard 1");
}

#[test]
fn dead_nodes_and_those_taken_out_are_in_no_shard() {
    let mut map = store(&[1, 1, 1, 2, 2, 2, 0], &[1, 2, 1, 2]);
    map.out.insert(node(0));
    let mut live = all(&map);
    live.remove(&node(5));
    let layout = plan(&map, &live, &Request::Reshard(2)).unwrap();
    live.remove(&node(0));
    within_bounds(&map, &live, 2, &layout);
    assert_eq!(plan(&map, &live, &Request::Reshard(3)), Err(PlanError::NotEnoughNodes));
}

#[test]
fn counts_out_of_range_are_refused() {
    let map = store(&[1; 8], &[1, 1]);
    let reshard = |count| plan(&map, &all(&map), &Request::Reshard(count)).unwrap_err();
    assert_eq!(reshard(0), PlanError::NotEnoughNodes);
    assert_eq!(reshard(5), PlanError::NotEnoughNodes);
    assert_eq!(reshard(u32::MAX), PlanError::NotEnoughNodes);
    assert_eq!(reshard(3), PlanError::TooManyShards);
}

#[test]
fn what_nobody_serves_does_not_move() {
    let mut map = store(&[1, 1, 2, 2, 0, 0], &[1, 2, 1, 2]);
    let live: BTreeSet<_> = [1, 2, 3, 4, 5].map(node).into();
    for shard in [1, 2, 3] {
        // Node 1 holds what node 0 held.
        assert!(plan(&map, &live, &Request::Reshard(shard)).is_ok() || shard == 3);
    }
    map.rows[2].peers.retain(|_, stay| stay.incarnation == incarnation(0));
    assert_eq!(plan(&map, &live, &Request::Reshard(2)), Err(PlanError::ShardUnavailable(PartitionId(2))));
    let add = |shard| Request::AddMember { shard: ShardId(shard), node: node(4) };
    assert_eq!(plan(&map, &live, &add(1)), Err(PlanError::ShardUnavailable(PartitionId(2))));
    assert!(plan(&map, &live, &add(2)).is_ok(), "shard 2 is well");
    for stay in map.rows[2].peers.values_mut() {
        *stay = Stay { lost: true, lost_by_word: true, ..Stay::new(stay.incarnation, PeerState::Leaving) };
    }
    assert!(plan(&map, &live, &Request::Reshard(2)).is_ok(), "there is nothing to lose any more");
}

#[test]
fn a_member_more() {
    let map = store(&[1, 1, 2, 2, 0], &[1, 2]);
    let mut live = all(&map);
    let add = |live: &_, shard, at| plan(&map, live, &Request::AddMember { shard: ShardId(shard), node: node(at) });
    let layout = add(&live, 2, 4).unwrap();
    assert_eq!(layout.shards, [vec![node(0), node(1)], vec![node(2), node(3), node(4)]]);
    assert_eq!(layout.partitions, map.layout.partitions);
    assert_eq!(add(&live, 0, 4), Err(PlanError::NoSuchShard));
    assert_eq!(add(&live, 3, 4), Err(PlanError::NoSuchShard));
    assert_eq!(add(&live, 2, 9), Err(PlanError::NodeNotInView));
    assert_eq!(add(&live, 2, 3), Err(PlanError::AlreadyMember));
    assert_eq!(add(&live, 2, 1), Err(PlanError::NodeInAnotherShard(ShardId(1))));
    live.remove(&node(4));
    assert_eq!(add(&live, 2, 4), Err(PlanError::NodeNotInView));
}

#[test]
fn a_member_less() {
    let mut map = store(&[1, 1, 2, 2, 0], &[1, 2]);
    let mut live = all(&map);
    let remove = |map: &_, live: &_, at| plan(map, live, &Request::Remove { node: node(at) });
    assert_eq!(remove(&map, &live, 0).unwrap().shards, [vec![node(1)], vec![node(2), node(3)]]);
    assert_eq!(remove(&map, &live, 4).unwrap(), map.layout, "it held nothing");
    live.remove(&node(0));
    assert_eq!(remove(&map, &live, 0), Err(PlanError::NodeNotInView));
    assert_eq!(remove(&map, &live, 1), Err(PlanError::LastHolder(ShardId(1))));
    // Node 3 is there, but not filled yet.
    map.rows[1].peers.retain(|_, stay| stay.incarnation == incarnation(2));
    assert_eq!(remove(&map, &live, 2), Err(PlanError::LastHolder(ShardId(2))));
    assert!(remove(&map, &live, 3).is_ok());
}

#[test]
fn a_plan_made_anew_begins_where_the_last_one_was_going() {
    let mut map = store(&[1, 1, 1, 2, 2, 2, 2], &[1, 2, 1, 2, 1, 2]);
    let layout = plan(&map, &all(&map), &Request::Reshard(3)).unwrap();
    map.target =
        Some(super::super::map::Target { layout: layout.clone(), name: "reshard to 3".to_owned(), even: true });
    let mut live = all(&map);
    live.remove(&node(6));
    let anew = plan(&map, &live, &Request::Replan).unwrap();
    within_bounds(&map, &live, 3, &anew);
    assert_eq!(anew.partitions, layout.partitions);
    assert_eq!(anew.shards[1], layout.shards[1]);
    live.remove(&node(5));
    assert_eq!(plan(&map, &live, &Request::Replan), Err(PlanError::NotEnoughNodes));
}
