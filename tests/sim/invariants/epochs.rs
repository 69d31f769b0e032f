//! A decided map is never forgotten: what a node acts under never goes back, as long as it has its disk.

use entail::cluster::map::ClusterMap;
use entail::types::Epoch;

use super::Verdict;

/// Looks at a map that a node begins to act under, after one of the epoch `before`.
pub fn check(node: usize, before: Epoch, map: &ClusterMap) -> Verdict {
    if map.epoch >= before {
        return Ok(());
    }
    Err(format!("EPOCHS: node{} goes back from map {before} to map {}", node + 1, map.epoch))
}
