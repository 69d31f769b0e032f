//! What was deleted stays dead: no item goes back, and nothing that a collected tombstone had beaten comes again.

use entail::causal::item::Item;

use super::Verdict;
use crate::oracle::{Oracle, Order};

/// Looks at the change of one node's item: what was there, and what is there now.
pub fn changed(
    oracle: &Oracle,
    node: usize,
    key: usize,
    (old, new): (Option<&Item>, Option<&Item>),
    collected: Option<Order>,
) -> Verdict {
    let order = |item: &Item| (item.timestamp, item.dot);
    let name = |item: &Item| {
        let version = oracle.by_dot.get(&(oracle.partition(key), item.dot)).copied();
        oracle.name_or_nothing(version)
    };
    match (old, new) {
        (Some(old), None) if !old.is_tombstone() => Err(format!("TOMBSTONES: node{} drops {}", node + 1, name(old))),
        (Some(old), Some(new)) if order(new) < order(old) => {
            Err(format!("TOMBSTONES: node{} goes back from {} to {}", node + 1, name(old), name(new)))
        }
        (None, Some(new)) if collected.is_some_and(|buried| order(new) < buried) => {
            Err(format!("TOMBSTONES: node{} brings back {} after {collected:?} was collected", node + 1, name(new)))
        }
        _ => Ok(()),
    }
}
