//! A difference makes the very map, on the very map; and it is small.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::{collection, option, sample};

use super::*;
use crate::cluster::layout::{map_one, map_zero};
use crate::cluster::map::{PeerState, Row, Stay, Target};
use crate::types::{ClusterId, ContextSecret, Incarnation, NodeAddr, ShardId, StayId};

fn node(number: u32) -> NodeAddr {
    format!("node{number}.example.org:8085").parse().unwrap()
}

/// Map 1 of a store.
fn born(nodes: u32, shards: u32, partitions: u32) -> ClusterMap {
    let names: Vec<_> = (1..=nodes).map(node).collect();
    let bound = names.iter().cloned().zip((1..).map(|n| Incarnation(n << 100))).collect();
    map_one(&map_zero(&names, shards, partitions), &bound, ClusterId(7 << 100), ContextSecret([1; 16]))
}

fn after(map: &ClusterMap, change: impl FnOnce(&mut ClusterMap)) -> ClusterMap {
    let mut next = map.clone();
    next.epoch = Epoch(map.epoch.0 + 1);
    next.parent_hash = map.hash();
    change(&mut next);
    next
}

/// The same with a peer more in one row.
fn joined(map: &ClusterMap, partition: usize, who: u128) -> ClusterMap {
    after(map, |next| {
        let row = &mut next.rows[partition];
        row.peers.insert(row.next_stay, Stay::new(Incarnation(who << 100), PeerState::Joining));
        *row = Row { version: next.epoch, next_stay: StayId(row.next_stay.0 + 1), ..row.clone() };
    })
}

/// Maps of four partitions on some of five nodes: each part is as often one thing as another.
fn map() -> impl Strategy<Value = ClusterMap> {
    let few = || collection::btree_set((1..4u128).prop_map(Incarnation), 0..3);
    let row = (1..9u64, 0..4u32, any::<bool>()).prop_map(|(version, peers, serves)| Row {
        version: Epoch(version),
        next_stay: StayId(4),
        skipped: if serves { Vec::new() } else { vec![(StayId(5), StayId(9))] },
        peers: (0..peers)
            .map(|stay| {
                let state = if serves { PeerState::Serving } else { PeerState::Joining };
                (StayId(stay), Stay::new(Incarnation(1), state))
            })
            .collect(),
    });
    let layout = collection::vec((1..=2u32).prop_map(ShardId), 4)
        .prop_map(|partitions| Layout { shards: vec![vec![node(1), node(2)], vec![node(3)]], partitions });
    let target =
        (layout.clone(), any::<bool>()).prop_map(|(layout, even)| Target { layout, name: "more".into(), even });
    let parts = (few(), few(), option::of(target), layout, sample::subsequence(vec![1, 2, 3], 0..3));
    (10..20u64, 3..6u32, parts, collection::vec(row, 4)).prop_map(
        |(epoch, nodes, (former, forgotten, target, layout, out), rows)| ClusterMap {
            epoch: Epoch(epoch),
            parent_hash: epoch,
            nodes: (1..=nodes).map(|number| (node(number), None)).collect(),
            out: out.into_iter().map(node).collect(),
            former: former.into_iter().map(|who| (who, node(1))).collect::<BTreeMap<_, _>>(),
            voters: forgotten.iter().copied().collect(),
            forgotten,
            target,
            layout,
            rows,
            ..born(3, 1, 4)
        },
    )
}

proptest! {
    #[test]
    fn it_makes_the_map_it_was_made_of((base, next) in (map(), map())) {
        prop_assert_eq!(MapDelta::between(&base, &next).apply(&base), Ok(next));
    }

    #[test]
    fn it_makes_nothing_of_another_map((base, next, other) in (map(), map(), map())) {
        prop_assume!(other != base);
        prop_assert_eq!(MapDelta::between(&base, &next).apply(&other), Err(DeltaError::Base));
    }

    #[test]
    fn it_is_believed_whole_or_not_at_all((base, next, other) in (map(), map(), map())) {
        let delta = MapDelta::between(&base, &next);
        let mut forged = MapDelta { hash: delta.hash, ..MapDelta::between(&base, &other) };
        prop_assume!(other != next);
        prop_assert_eq!(forged.apply(&base), Err(DeltaError::Result));
        forged.partitions.push(PartitionId(4));
        forged.changed.rows.resize_with(forged.partitions.len(), Row::default);
        prop_assert!(matches!(forged.apply(&base), Err(DeltaError::Contradiction(_))));
    }
}

#[test]
fn a_map_that_contradicts_itself_is_not_made() {
    let base = born(3, 1, 4);
    let bad = after(&base, |next| next.layout.partitions[0] = ShardId(9));
    assert!(matches!(MapDelta::between(&base, &bad).apply(&base), Err(DeltaError::Contradiction(_))));
}

#[test]
fn a_step_takes_a_small_part_of_the_map() {
    let map = born(7, 3, 256);
    let one_row = MapDelta::between(&map, &joined(&map, 5, 1));
    let whole = map.bytes();
    println!("whole map {whole} bytes; one row {} bytes", one_row.bytes());
    assert!(whole > 10 << 10, "{whole} bytes");
    assert!(one_row.bytes() < 256, "{} bytes", one_row.bytes());
    let voter = MapDelta::between(&map, &after(&map, |next| next.voters.swap(0, 1)));
    assert!(voter.bytes() < 256, "{} bytes", voter.bytes());
    let birth = MapDelta::between(&map_zero(&map.nodes.keys().cloned().collect::<Vec<_>>(), 3, 256), &map);
    assert!(birth.bytes() < whole + 1024, "a difference in everything takes hardly more than the map");
}

/// Maps 1 to `last`, one partition changed in each, and the history of who went through them.
fn walk(last: u64) -> (Vec<ClusterMap>, History) {
    let mut maps = vec![born(3, 1, 64)];
    let mut history = History::default();
    for step in 1..last as usize {
        let next = joined(&maps[step - 1], step % 64, 9);
        history.push(&maps[step - 1], &next);
        maps.push(next);
    }
    (maps, history)
}

#[test]
fn who_is_behind_goes_through_the_chain() {
    let (maps, history) = walk(9);
    for behind in &maps[..8] {
        let chain = history.since(behind.epoch, Some(behind.hash())).unwrap();
        assert_eq!(chain.len() as u64, 9 - behind.epoch.0);
        assert_eq!(follow(behind, &chain), Ok(Some(maps[8].clone())));
        assert_eq!(history.since(behind.epoch, None), Some(chain.clone()));
        assert_eq!(history.since(behind.epoch, Some(1)), None, "another map of that epoch");
        assert_eq!(follow(&maps[8], &chain), Ok(None), "no news");
    }
    let chain = history.since(Epoch(3), None).unwrap();
    assert_eq!(follow(&maps[5], &chain), Ok(Some(maps[8].clone())), "from its middle");
    assert_eq!(follow(&maps[1], &chain), Err(DeltaError::Base));
    let other = after(&maps[1], |next| next.voters.clear());
    assert_eq!(follow(&other, &chain), Err(DeltaError::Base), "another line");
}

#[test]
fn a_long_chain_that_is_longer_than_the_map_is_not_sent() {
    let (maps, history) = walk(800);
    let (whole, all) = (maps[799].bytes(), history.bytes);
    assert!(whole < FEW_BYTES && all > FEW_BYTES && all < MOST_BYTES, "{whole} and {all} bytes");
    assert_eq!(history.since(Epoch(1), None), None);
    let chain = history.since(Epoch(700), None).unwrap();
    let bytes: usize = chain.iter().map(|delta| delta.bytes()).sum();
    assert!(bytes > whole && bytes < FEW_BYTES, "{bytes} bytes");
}

#[test]
fn a_history_is_bounded_and_ends_with_the_store() {
    let mut history = History::default();
    let (one, two) = (born(3, 1, 4096), map_zero(&[node(1)], 1, 4096));
    for _step in 0..20 {
        history.push(&two, &one);
    }
    assert!(history.bytes <= MOST_BYTES && history.deltas.len() < 20);
    history.push(&one, &born(3, 1, 64));
    assert!(history.deltas.is_empty());
}
