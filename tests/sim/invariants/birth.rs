//! One birth per store: all nodes that have a map of some epoch have the same one.

use std::collections::BTreeMap;

use entail::cluster::map::ClusterMap;
use entail::types::Epoch;

use super::Verdict;

/// Looks at a map that a node begins to act under.
pub fn check(maps: &mut BTreeMap<Epoch, u64>, node: usize, map: &ClusterMap) -> Verdict {
    let hash = map.hash();
    if *maps.entry(map.epoch).or_insert(hash) == hash {
        return Ok(());
    }
    Err(format!("BIRTH: node{} acts under a second map {}: {map:?}", node + 1, map.epoch))
}
