//! Replicas that have the same writes show the same value.

use super::{Verdict, acknowledged};
use crate::world::World;

/// Looks at all items when everything has settled.
pub fn check(world: &World) -> Verdict {
    let oracle = &world.oracle;
    let lost = !world.settings.maps() && world.nodes.iter().any(|node| node.dead);
    for key in 0..oracle.keys.len() {
        let partition = oracle.partition(key);
        let mut first = None;
        for n in (0..world.nodes.len()).filter(|n| world.nodes[*n].process.is_some()) {
            if !world.machine(n).partition_status().iter().any(|status| status.partition == partition) {
                continue;
            }
            let item = world.item(n, key);
            let version = item.as_ref().and_then(|item| world.version_of(partition, item.dot));
            acknowledged::found(oracle, key, version, n, lost)?;
            // A tombstone shows what nothing shows.
            let value = item.and_then(|item| item.value);
            let (m, same) = first.get_or_insert((n, value.clone()));
            if *same != value {
                let (a, b) = (*m + 1, n + 1);
                return Err(format!("CONVERGENCE: key {key} is {same:?} at node{a} and {value:?} at node{b}"));
            }
        }
    }
    Ok(())
}
