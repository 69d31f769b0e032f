//! The first two maps, and whether a node's start settings can make a store.
//!
//! **Map 0** follows from `VIEW`, `SHARD_COUNT` and `PARTITIONS` alone, so nodes that were started alike hold the same
//! one without a word between them; its hash tells those that were not. It answers shard queries, binds nobody and
//! names no stay: nothing can be written under it.
//!
//! **Map 1** is the store's birth: it draws the cluster id and the contexts' secret, binds an incarnation to every
//! address, and gives out the first stays. Apart from what is drawn and bound it follows from map 0, which is how an
//! acceptor judges a proposal ([`follows_birth`]).
//!
//! Deliberately absent: every later map. Their only author is reconciliation.

use std::collections::{BTreeMap, BTreeSet};

use super::line::Line;
use super::map::{ClusterMap, Layout, PeerState, Row, Stay};
use super::voters::voter_count;
use crate::types::{ClusterId, ContextSecret, Epoch, Incarnation, NodeAddr, ShardId, StayId};

/// The most partitions that a store can have: every node keeps a row for each, and every context may name each.
pub const MAX_PARTITIONS: u32 = 65_536;

/// Why a node can't start with these settings. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The number of partitions is out of range.
    #[error("PARTITIONS is {0}; choose 1 to 65536, the same on all nodes")]
    Partitions(u32),
    /// The node is not in its own view.
    #[error("VIEW does not contain SOCKET_ADDRESS {0}; add it to VIEW, or correct one of the two")]
    NotInView(NodeAddr),
    /// A node is named twice.
    #[error("VIEW names {0} more than once; name every node once")]
    Duplicate(NodeAddr),
    /// Nobody else is in the view.
    #[error("VIEW names this node alone; a store has at least two nodes, add the addresses of the others")]
    Alone,
    /// No shard is asked for.
    #[error("SHARD_COUNT is 0; choose at least 1, or leave it out to join a running store")]
    NoShards,
    /// More shards than partitions.
    #[error("SHARD_COUNT is {shards}, but there are {partitions} PARTITIONS; lower SHARD_COUNT or raise PARTITIONS")]
    MoreShardsThanPartitions {
        /// The shards asked for.
        shards: u32,
        /// The partitions there are.
        partitions: u32,
    },
    /// Fewer than two nodes a shard.
    #[error(
        "SHARD_COUNT {shards} needs at least {} nodes, two a shard, but VIEW names {nodes}; \
         add nodes to VIEW or lower SHARD_COUNT",
        2 * u64::from(*.shards)
    )]
    TooFewNodes {
        /// The shards asked for.
        shards: u32,
        /// The nodes in the view.
        nodes: usize,
    },
}

/// Whether a node of this address can start with this view, number of shards (`None`: it joins a running store, or
/// starts one of a single shard) and number of partitions.
///
/// # Errors
/// What is wrong and what to do about it, the first that is found.
pub fn check_settings(
    address: &NodeAddr,
    view: &[NodeAddr],
    shard_count: Option<u32>,
    partitions: u32,
) -> Result<(), SettingsError> {
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(SettingsError::Partitions(partitions));
    }
    if !view.contains(address) {
        return Err(SettingsError::NotInView(address.clone()));
    }
    let mut named = BTreeSet::new();
    if let Some(twice) = view.iter().find(|node| !named.insert(*node)) {
        return Err(SettingsError::Duplicate(twice.clone()));
    }
    if view.len() == 1 {
        return Err(SettingsError::Alone);
    }
    match shard_count {
        None => Ok(()),
        Some(0) => Err(SettingsError::NoShards),
        Some(shards) if shards > partitions => Err(SettingsError::MoreShardsThanPartitions { shards, partitions }),
        Some(shards) if 2 * u64::from(shards) > view.len() as u64 => {
            Err(SettingsError::TooFewNodes { shards, nodes: view.len() })
        }
        Some(_) => Ok(()),
    }
}

/// Map 0: the nodes sorted and cut into blocks, one a shard, sizes within one; the partitions dealt to the shards in
/// turn. The order of `view` does not matter.
///
/// # Panics
/// With a `shard_count` of 0, which [`check_settings`] refuses.
pub fn map_zero(view: &[NodeAddr], shard_count: u32, partitions: u32) -> ClusterMap {
    assert!(shard_count > 0, "a layout has shards");
    let nodes: BTreeMap<_, _> = view.iter().map(|node| (node.clone(), None)).collect();
    let layout = Layout {
        shards: blocks(nodes.keys().cloned().collect(), shard_count as usize),
        partitions: (0..partitions).map(|partition| ShardId(partition % shard_count + 1)).collect(),
    };
    ClusterMap {
        cluster_id: ClusterId(0),
        line: Line::default(),
        epoch: Epoch(0),
        parent_hash: 0,
        secret: ContextSecret::default(),
        nodes,
        out: BTreeSet::new(),
        former: BTreeMap::new(),
        forgotten: BTreeSet::new(),
        layout,
        target: None,
        rows: vec![Row::default(); partitions as usize],
        voters: Vec::new(),
    }
}

/// Cuts a list into `count` blocks, the longer ones (by one) first.
fn blocks(nodes: Vec<NodeAddr>, count: usize) -> Vec<Vec<NodeAddr>> {
    let (size, longer) = (nodes.len() / count, nodes.len() % count);
    let mut rest = nodes.into_iter();
    (0..count).map(|block| rest.by_ref().take(size + usize::from(block < longer)).collect()).collect()
}

/// Map 1: map 0 with these incarnations bound to their addresses, the first stays given out, and voters named.
///
/// A node without a binding stays unbound and gets no stay; bindings of other addresses count for nothing. The cluster
/// id and the secret are drawn by the proposer.
pub fn map_one(
    zero: &ClusterMap,
    bound: &BTreeMap<NodeAddr, Incarnation>,
    cluster_id: ClusterId,
    secret: ContextSecret,
) -> ClusterMap {
    let nodes: BTreeMap<_, _> = zero.nodes.keys().map(|node| (node.clone(), bound.get(node).copied())).collect();
    let members: Vec<Vec<Incarnation>> = zero
        .layout
        .shards
        .iter()
        .map(|shard| shard.iter().filter_map(|node| nodes.get(node).copied().flatten()).collect())
        .collect();
    let shards: Vec<Row> = members.iter().map(|incarnations| first_row(incarnations)).collect();
    ClusterMap {
        cluster_id,
        epoch: Epoch(1),
        parent_hash: zero.hash(),
        secret,
        nodes,
        rows: zero.layout.partitions.iter().map(|shard| shards[shard.0 as usize - 1].clone()).collect(),
        voters: voters(&members),
        ..zero.clone()
    }
}

/// The row of a partition that these nodes hold from the store's birth: there is nothing to be filled with, so all serve.
fn first_row(incarnations: &[Incarnation]) -> Row {
    let serving = |&incarnation| Stay::new(incarnation, PeerState::Serving);
    Row {
        version: Epoch(1),
        next_stay: StayId(incarnations.len() as u32),
        peers: (0..).map(StayId).zip(incarnations.iter().map(serving)).collect(),
        skipped: Vec::new(),
    }
}

/// The largest odd number of nodes up to five (two, when there are two), drawn from the shards in turn, so that the
/// loss of one shard takes as few votes as can be.
fn voters(members: &[Vec<Incarnation>]) -> Vec<Incarnation> {
    let count = voter_count(members.iter().map(Vec::len).sum());
    let longest = members.iter().map(Vec::len).max().unwrap_or(0);
    let in_turn = (0..longest).flat_map(|rank| members.iter().filter_map(move |shard| shard.get(rank).copied()));
    in_turn.take(count).collect()
}

/// Whether the store may be born without one of its nodes. Of three or more, all but one and all but another have a
/// node in common, and its memory is enough to keep a second store from being born; of two they have none.
pub fn nodes_may_be_left_out(zero: &ClusterMap) -> bool {
    zero.nodes.len() > 2
}

/// Whether a proposed map 1 follows from this map 0: it is [`map_one`] of it, to the letter, with a cluster id and a
/// binding of every node to an incarnation of its own. One node of three or more may be left out by the operator's
/// word: its place is kept for whoever starts there.
///
/// Whom it binds is the proposer's word. In particular an acceptor does not refuse a map that names another incarnation
/// at its own address: see `paxos` on acceptors that came back without their disk.
///
/// # Errors
/// What does not follow, in words for the log.
pub fn follows_birth(zero: &ClusterMap, proposed: &ClusterMap) -> Result<(), String> {
    if zero.is_born() {
        return Err(format!("the store is born already; its map is {}", zero.epoch));
    }
    if proposed.parent_hash != zero.hash() || !proposed.nodes.keys().eq(zero.nodes.keys()) {
        return Err("it comes from other settings; VIEW, SHARD_COUNT or PARTITIONS differ".to_owned());
    }
    if proposed.cluster_id == ClusterId(0) {
        return Err("it has no cluster id".to_owned());
    }
    let mut bound = BTreeMap::new();
    let (mut owners, mut left_out) = (BTreeMap::new(), None);
    for (node, incarnation) in &proposed.nodes {
        let Some(incarnation) = *incarnation else {
            if nodes_may_be_left_out(zero) && left_out.replace(node).is_none() {
                continue;
            }
            return Err(format!("{node} is bound to no incarnation"));
        };
        if let Some(other) = owners.insert(incarnation, node) {
            return Err(format!("{other} and {node} are bound to the same incarnation"));
        }
        bound.insert(node.clone(), incarnation);
    }
    if *proposed != map_one(zero, &bound, proposed.cluster_id, proposed.secret) {
        return Err("its epoch, layout, rows or voters do not follow from map 0".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> NodeAddr {
        text.parse().unwrap()
    }

    fn view(nodes: u32) -> Vec<NodeAddr> {
        (1..=nodes).map(|n| addr(&format!("node{n}:8085"))).collect()
    }

    fn bindings(zero: &ClusterMap) -> BTreeMap<NodeAddr, Incarnation> {
        zero.nodes.keys().cloned().zip((100..).map(Incarnation)).collect()
    }

    fn born(zero: &ClusterMap) -> ClusterMap {
        map_one(zero, &bindings(zero), ClusterId(9), ContextSecret([1; 16]))
    }

    /// Settings that a store can start with: nodes, shards, partitions.
    fn settings() -> impl Strategy<Value = (u32, u32, u32)> {
        (2u32..24, 1u32..300)
            .prop_flat_map(|(nodes, partitions)| (Just(nodes), 1..=(nodes / 2).min(partitions), Just(partitions)))
    }

    fn spread(sizes: impl Iterator<Item = usize> + Clone) -> usize {
        sizes.clone().max().unwrap() - sizes.min().unwrap()
    }

    proptest! {
        #[test]
        fn map_zero_is_even_and_the_same_for_any_order_of_view(
            (nodes, shards, partitions) in settings(), turn in any::<prop::sample::Index>(),
        ) {
            let mut view = view(nodes);
            prop_assert_eq!(check_settings(&view[0], &view, Some(shards), partitions), Ok(()));
            let zero = map_zero(&view, shards, partitions);
            view.reverse();
            let turn = turn.index(view.len());
            view.rotate_left(turn);
            prop_assert_eq!(&map_zero(&view, shards, partitions), &zero);

            let layout = &zero.layout;
            prop_assert_eq!(layout.shards.len(), shards as usize);
            prop_assert!(layout.shards.iter().all(|shard| shard.len() >= 2));
            prop_assert!(spread(layout.shards.iter().map(Vec::len)) <= 1);
            prop_assert!(zero.nodes.keys().eq(layout.shards.iter().flatten()), "sorted blocks, each node once");
            let held = |shard| layout.partitions.iter().filter(|s| s.0 == shard).count();
            prop_assert!(spread((1..=shards).map(held)) <= 1);
            prop_assert_eq!(zero.partitions(), partitions);
            prop_assert!(!zero.is_born());
        }

        #[test]
        fn map_one_serves_every_partition_at_every_node_of_its_shard((nodes, shards, partitions) in settings()) {
            let zero = map_zero(&view(nodes), shards, partitions);
            let one = born(&zero);
            prop_assert_eq!(follows_birth(&zero, &one), Ok(()));
            prop_assert_eq!((one.epoch, one.parent_hash), (Epoch(1), zero.hash()));
            for (row, shard) in one.rows.iter().zip(&one.layout.partitions) {
                let serving = |stay: &Stay| stay.state == PeerState::Serving && !stay.lost;
                let holders: Vec<_> = row.peers.values().map(|s| one.address_of(s.incarnation).unwrap()).collect();
                prop_assert!(holders.into_iter().eq(one.layout.members(*shard).unwrap()));
                prop_assert!(row.peers.values().all(serving));
                prop_assert!(row.peers.keys().copied().eq((0..row.next_stay.0).map(StayId)));
                prop_assert_eq!(row.version, Epoch(1));
            }
        }

        #[test]
        fn voters_are_odd_in_number_and_spread_over_the_shards((nodes, shards, partitions) in settings()) {
            let one = born(&map_zero(&view(nodes), shards, partitions));
            let wanted = match nodes { 2 => 2, 3 | 4 => 3, _ => 5 };
            prop_assert_eq!(one.voters.len(), wanted);
            prop_assert_eq!(one.voters.iter().collect::<BTreeSet<_>>().len(), wanted, "each once");
            let shard_of = |voter: &Incarnation| one.shard_of(one.address_of(*voter).unwrap()).unwrap().0;
            let votes = |shard| one.voters.iter().filter(|v| shard_of(v) == shard).count();
            let most = (1..=shards).map(votes).max().unwrap();
            prop_assert_eq!(most, wanted.div_ceil(shards as usize));
        }
    }

    #[test]
    fn six_nodes_in_two_shards() {
        let one = born(&map_zero(&view(6), 2, 4));
        let names = |shard| one.layout.members(ShardId(shard)).unwrap().iter().map(NodeAddr::host).collect::<Vec<_>>();
        assert_eq!([names(1), names(2)], [["node1", "node2", "node3"], ["node4", "node5", "node6"]]);
        assert_eq!(one.layout.partitions, [1, 2, 1, 2].map(ShardId));
        assert_eq!(one.voters, [100, 103, 101, 104, 102].map(Incarnation));
        assert_eq!(one.rows[1].peers[&StayId(2)].incarnation, Incarnation(105));
    }

    #[test]
    fn one_node_may_be_left_out_of_three_or_more() {
        for (nodes, follows) in [(2, false), (3, true), (6, true)] {
            let zero = map_zero(&view(nodes), 1, 8);
            let mut bound = bindings(&zero);
            bound.remove(&addr("node2:8085"));
            let one = map_one(&zero, &bound, ClusterId(9), ContextSecret([1; 16]));
            assert_eq!(follows_birth(&zero, &one).is_ok(), follows, "{nodes} nodes");
            assert_eq!(one.nodes[&addr("node2:8085")], None);
            assert!(one.rows.iter().all(|row| row.peers.len() == nodes as usize - 1));
        }
    }

    #[test]
    fn a_map_that_does_not_follow_is_refused() {
        let zero = map_zero(&view(4), 2, 8);
        let refused = |change: &dyn Fn(&mut ClusterMap)| {
            let mut map = born(&zero);
            change(&mut map);
            follows_birth(&zero, &map).unwrap_err()
        };
        let does_not_follow = "its epoch, layout, rows or voters do not follow from map 0";
        assert_eq!(refused(&|map| map.epoch = Epoch(2)), does_not_follow);
        assert_eq!(refused(&|map| map.rows[3].next_stay = StayId(3)), does_not_follow);
        assert_eq!(refused(&|map| map.layout.partitions.swap(0, 1)), does_not_follow);
        assert_eq!(refused(&|map| map.voters.truncate(1)), does_not_follow);
        assert_eq!(refused(&|map| map.cluster_id = ClusterId(0)), "it has no cluster id");
        let unbound = |map: &mut ClusterMap| *map.nodes.get_mut(&addr("node2:8085")).unwrap() = None;
        assert_eq!(refused(&unbound), does_not_follow);
        let two = |map: &mut ClusterMap| map.nodes.values_mut().take(2).for_each(|bound| *bound = None);
        assert_eq!(refused(&two), "node2:8085 is bound to no incarnation");
        let shared = |map: &mut ClusterMap| *map.nodes.get_mut(&addr("node2:8085")).unwrap() = Some(Incarnation(100));
        assert_eq!(refused(&shared), "node1:8085 and node2:8085 are bound to the same incarnation");
        let other_settings = born(&map_zero(&view(4), 2, 16));
        assert!(follows_birth(&zero, &other_settings).unwrap_err().starts_with("it comes from other settings"));
        assert!(follows_birth(&born(&zero), &born(&zero)).unwrap_err().starts_with("the store is born already"));
    }

    #[test]
    fn settings_that_can_make_no_store_are_refused_with_the_remedy() {
        let check = |names: &[&str], shards, partitions| {
            let view: Vec<_> = names.iter().map(|name| addr(name)).collect();
            check_settings(&addr("a:1"), &view, shards, partitions).map_err(|error| error.to_string())
        };
        let refused = |names: &[&str], shards, partitions, says: &str| {
            let error = check(names, shards, partitions).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        };
        refused(
            &["a:1", "b:1", "c:1"],
            Some(2),
            256,
            "SHARD_COUNT 2 needs at least 4 nodes, two a shard, but VIEW names 3",
        );
        refused(&["a:1", "b:1"], Some(u32::MAX), 256, "SHARD_COUNT is 4294967295, but there are 256 PARTITIONS");
        refused(&["b:1", "c:1"], Some(1), 256, "VIEW does not contain SOCKET_ADDRESS a:1");
        refused(&[], None, 256, "VIEW does not contain SOCKET_ADDRESS a:1");
        refused(&["a:1", "b:1", "b:1"], Some(1), 256, "VIEW names b:1 more than once");
        refused(&["a:1", "a:1"], None, 256, "VIEW names a:1 more than once");
        refused(&["a:1"], None, 256, "VIEW names this node alone");
        refused(&["a:1", "b:1"], Some(0), 256, "SHARD_COUNT is 0");
        refused(&["a:1", "b:1", "c:1", "d:1"], Some(2), 1, "SHARD_COUNT is 2, but there are 1 PARTITIONS");
        refused(&["a:1", "b:1"], Some(1), 0, "PARTITIONS is 0");
        refused(&["a:1", "b:1"], Some(1), 65_537, "PARTITIONS is 65537");
        assert_eq!(check(&["b:1", "a:1"], None, 65_536), Ok(()));
        assert_eq!(check(&["d:1", "a:1", "b:1", "c:1"], Some(2), 2), Ok(()));
    }
}
