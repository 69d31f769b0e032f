//! One birth per store, and one map per epoch: all nodes that have a map of some epoch have the same one.

use std::collections::BTreeMap;
use std::sync::Arc;

use entail::cluster::map::ClusterMap;
use entail::types::Epoch;

use super::Verdict;

/// Looks at a map that a node begins to act under.
pub fn check(maps: &mut BTreeMap<Epoch, Arc<ClusterMap>>, node: usize, map: &ClusterMap) -> Verdict {
    if **maps.entry(map.epoch).or_insert_with(|| Arc::new(map.clone())) == *map {
        return Ok(());
    }
    Err(format!("BIRTH: node{} acts under a second map {}: {map:?}", node + 1, map.epoch))
}
