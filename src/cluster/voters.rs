//! Who decides the next map.
//!
//! The voters of map e decide map e + 1: incarnations, the largest odd number of the nodes up to five (two, when there
//! are two), spread over the shards so that the loss of one shard takes as few votes as can be. A voter whose
//! incarnation is gone, or whose node the operator took out, is none in the next map; one that nobody has heard for
//! [`REPLACED_MS`] gives its place to a live node that is none yet, if there is one.
//!
//! **Two voters.** Both must agree, so nothing can change while one is dead; `recover` is the way out. But one that
//! comes back empty is a new incarnation at its address, and the old one, gone with its disk, will never answer. The
//! other has accepted every map there can be, as every quorum held it; so it alone decides the map that binds the new
//! incarnation ([`deciders`]).

use std::collections::{BTreeMap, BTreeSet};

use super::map::ClusterMap;
use super::paxos::Quorum;
use super::reconcile::sight::{REPLACED_MS, Sight};
use crate::types::{Incarnation, NodeAddr, ShardId};

/// The most voters that decide the next map.
pub const MAX_VOTERS: usize = 5;

/// How many voters a store of so many nodes has.
pub fn voter_count(nodes: usize) -> usize {
    match nodes.min(MAX_VOTERS) {
        2 => 2,
        n if n % 2 == 0 => n.saturating_sub(1),
        n => n,
    }
}

/// The voters of a map that comes, given those it has now: as many as there should be, changed as little as can be.
pub fn voters(map: &ClusterMap, sight: &Sight) -> Vec<Incarnation> {
    let nodes: BTreeMap<Incarnation, &NodeAddr> =
        map.present().filter_map(|node| Some((map.nodes[node]?, node))).collect();
    let silent = |voter: &Incarnation| sight.is_silent(nodes[voter], REPLACED_MS);
    let live = |voter: &Incarnation| sight.live.contains(nodes[voter]);
    let count = voter_count(nodes.len());
    let mut voters: Vec<_> = map.voters.iter().copied().filter(|voter| nodes.contains_key(voter)).collect();
    let shards = Shards { map, nodes: &nodes };

    // Too many: the silent first, then from where most are.
    while voters.len() > count {
        let Some(at) =
            (0..voters.len()).max_by_key(|at| (silent(&voters[*at]), shards.votes(&voters, voters[*at]), *at))
        else {
            break;
        };
        voters.remove(at);
    }
    // Too few: the live first, to where fewest are; in the end anyone, so that the number stays odd.
    while voters.len() < count {
        let spare = nodes.keys().copied().filter(|node| !voters.contains(node));
        let Some(next) = spare.min_by_key(|node| (!live(node), shards.votes(&voters, *node), nodes[node])) else {
            break;
        };
        voters.push(next);
    }
    for at in 0..voters.len() {
        if !silent(&voters[at]) {
            continue;
        }
        let others: Vec<_> = voters.iter().copied().filter(|voter| *voter != voters[at]).collect();
        let spare = nodes.keys().copied().filter(|node| !voters.contains(node) && live(node));
        if let Some(next) = spare.min_by_key(|node| (shards.votes(&others, *node), nodes[node])) {
            voters[at] = next;
        }
    }
    voters
}

struct Shards<'a> {
    map: &'a ClusterMap,
    nodes: &'a BTreeMap<Incarnation, &'a NodeAddr>,
}

impl Shards<'_> {
    fn of(&self, node: Incarnation) -> Option<ShardId> {
        self.map.shard_of(self.nodes[&node])
    }

    /// How many of these voters are in a node's shard; who is in none comes last.
    fn votes(&self, voters: &[Incarnation], node: Incarnation) -> (bool, usize) {
        let shard = self.of(node);
        (shard.is_none(), voters.iter().filter(|voter| self.of(**voter) == shard).count())
    }
}

/// Whom to ask for the next map, and how many must agree.
///
/// `connected`: who is at the other end of the connections that stand now, this node included.
pub fn deciders(map: &ClusterMap, connected: &BTreeMap<NodeAddr, Incarnation>) -> (BTreeSet<Incarnation>, Quorum) {
    let bound: BTreeSet<Incarnation> = map.nodes.values().copied().flatten().collect();
    let replaced = |voter: &Incarnation| {
        let Some(node) = map.address_of(*voter) else { return false };
        let there = connected.get(node).filter(|there| *there != voter);
        there.is_some_and(|there| !map.forgotten.contains(there) && !bound.contains(there))
    };
    let mut acceptors: BTreeSet<_> = map.voters.iter().copied().collect();
    if acceptors.len() == 2 && acceptors.iter().filter(|voter| replaced(voter)).count() == 1 {
        acceptors.retain(|voter| !replaced(voter));
    }
    (acceptors, Quorum::Majority)
}

/// Who proposes: the lowest live voter.
pub fn leader<'a>(map: &'a ClusterMap, live: &BTreeSet<NodeAddr>) -> Option<&'a NodeAddr> {
    let voters = map.voters.iter().filter_map(|voter| map.address_of(*voter));
    voters.filter(|node| live.contains(*node)).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::layout::{map_one, map_zero};
    use crate::types::{ClusterId, ContextSecret};

    fn node(number: usize) -> NodeAddr {
        format!("node{number}:80").parse().unwrap()
    }

    /// Nodes 1, 2, … with incarnations 101, 102, …
    fn store(nodes: usize, shards: u32) -> ClusterMap {
        let names: Vec<_> = (1..=nodes).map(node).collect();
        let bound = names.iter().cloned().zip((101..).map(Incarnation)).collect();
        map_one(&map_zero(&names, shards, 4), &bound, ClusterId(1), ContextSecret([1; 16]))
    }

    fn sight(map: &ClusterMap, silent: &[usize]) -> Sight {
        let silent: BTreeSet<_> = silent.iter().map(|number| node(*number)).collect();
        Sight {
            live: map.nodes.keys().filter(|node| !silent.contains(*node)).cloned().collect(),
            silent_ms: silent.into_iter().map(|node| (node, REPLACED_MS)).collect(),
            ..Sight::default()
        }
    }

    fn numbers(voters: &[Incarnation]) -> Vec<u128> {
        voters.iter().map(|voter| voter.0 - 100).collect()
    }

    #[test]
    fn voters_stay_while_they_are_heard() {
        for (nodes, shards) in [(2, 1), (3, 1), (4, 2), (6, 2), (9, 3)] {
            let map = store(nodes, shards);
            assert_eq!(voters(&map, &sight(&map, &[])), map.voters, "{nodes} nodes");
        }
    }

    #[test]
    fn a_silent_voter_is_replaced_by_a_live_node_of_its_shard() {
        let map = store(6, 2);
        assert_eq!(numbers(&map.voters), [1, 4, 2, 5, 3]);
        assert_eq!(numbers(&voters(&map, &sight(&map, &[1]))), [6, 4, 2, 5, 3]);
        let mut briefly = sight(&map, &[1]);
        briefly.silent_ms.insert(node(1), REPLACED_MS - 1);
        assert_eq!(voters(&map, &briefly), map.voters);
        assert_eq!(numbers(&voters(&map, &sight(&map, &[1, 6]))), [1, 4, 2, 5, 3], "nobody can replace it");
    }

    #[test]
    fn a_third_and_a_fifth_node_make_more_voters() {
        let mut map = store(2, 1);
        map.nodes.insert(node(3), Some(Incarnation(103)));
        assert_eq!(numbers(&voters(&map, &sight(&map, &[]))), [1, 2, 3]);
        map.nodes.insert(node(4), Some(Incarnation(104)));
        assert_eq!(numbers(&voters(&map, &sight(&map, &[3]))), [1, 2, 4], "whoever is live first");
    }

    #[test]
    fn who_is_gone_or_taken_out_votes_no_more() {
        let mut map = store(6, 2);
        map.nodes.insert(node(4), Some(Incarnation(204)));
        assert_eq!(numbers(&voters(&map, &sight(&map, &[]))), [1, 2, 5, 3, 104]);
        let mut map = store(6, 2);
        map.out.insert(node(4));
        assert_eq!(numbers(&voters(&map, &sight(&map, &[]))), [1, 2, 5, 3, 6]);
        map.out.insert(node(5));
        assert_eq!(numbers(&voters(&map, &sight(&map, &[2]))), [1, 6, 3], "four nodes: three voters, none silent");
    }

    #[test]
    fn of_two_voters_one_replaces_the_other_that_came_back_empty() {
        let map = store(2, 1);
        let here = |second| [(node(1), Incarnation(101)), (node(2), Incarnation(second))].into();
        assert_eq!(deciders(&map, &here(102)).0.len(), 2);
        assert_eq!(deciders(&map, &[(node(1), Incarnation(101))].into()).0.len(), 2, "it may only be dead");
        assert_eq!(deciders(&map, &here(999)).0, [Incarnation(101)].into());
        let both = [(node(1), Incarnation(998)), (node(2), Incarnation(999))].into();
        assert_eq!(deciders(&map, &both).0.len(), 2, "nobody remembers");
        let mut forgot = map.clone();
        forgot.forgotten.insert(Incarnation(999));
        assert_eq!(deciders(&forgot, &here(999)).0.len(), 2);
        let three = store(3, 1);
        assert_eq!(deciders(&three, &here(999)).0.len(), 3, "a majority is there");
    }

    #[test]
    fn the_lowest_live_voter_leads() {
        let map = store(6, 2);
        assert_eq!(leader(&map, &sight(&map, &[]).live), Some(&node(1)));
        assert_eq!(leader(&map, &sight(&map, &[1, 2]).live), Some(&node(3)));
        assert_eq!(leader(&map, &sight(&map, &[1, 2, 3, 4, 5]).live), None, "node 6 is none");
    }
}
