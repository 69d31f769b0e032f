//! Every map follows from the one before, and none leaves a partition that a live peer serves without one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use entail::cluster::check::check_proposal;
use entail::cluster::map::ClusterMap;
use entail::cluster::recover::check_recovered;
use entail::types::{Epoch, Incarnation};

use super::Verdict;

/// Looks at a map that nobody acted under before; `running` are the processes that are up.
pub fn check(
    maps: &BTreeMap<Epoch, Arc<ClusterMap>>,
    node: usize,
    map: &ClusterMap,
    running: &BTreeSet<Incarnation>,
) -> Verdict {
    if map.epoch <= Epoch(1) {
        return Ok(());
    }
    let at = format!("FOLLOWS: map {} at node{}", map.epoch, node + 1);
    let recovered = map.line.forks().last().filter(|fork| fork.first == map.epoch);
    let before = recovered.map_or(Epoch(map.epoch.0 - 1), |fork| fork.after);
    let Some(parent) = maps.get(&before) else {
        return Err(format!("{at}: nobody acted under the one before"));
    };
    let follows = match recovered {
        Some(_) => check_recovered(parent, map),
        None => check_proposal(parent, map, running),
    };
    follows.map_err(|why| format!("{at}: {why}"))
}
