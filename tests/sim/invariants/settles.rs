//! Everything settles: no request waits beyond its deadline, and after all faults are healed nothing is left to do.

use std::collections::BTreeMap;

use entail::causal::vector::VersionVector;
use entail::machine::records;
use entail::store::Read;
use entail::types::PartitionId;

use super::{Verdict, target};
use crate::workload::Asked;
use crate::world::World;

/// How long after its deadline a request may be answered: the longest stall of a loop, a tick, a forwarder's grace.
pub const SLACK_MS: u64 = 700;

/// Looks at a request whose deadline is well past.
pub fn overdue(asked: &BTreeMap<u64, Asked>, serial: u64) -> Verdict {
    match asked.get(&serial) {
        Some(asked) => Err(format!(
            "SETTLES: {:?} of key {} at node{} has no answer {} ms after it was asked with {} ms to live",
            asked.kind,
            asked.key,
            asked.node + 1,
            asked.budget_ms + SLACK_MS,
            asked.budget_ms,
        )),
        None => Ok(()),
    }
}

/// What is not settled yet; nothing is wrong as long as it becomes so in time.
pub fn settled(world: &World) -> Verdict {
    let alive: Vec<usize> = (0..world.nodes.len()).filter(|n| world.nodes[*n].process.is_some()).collect();
    if alive.len() < world.nodes.iter().filter(|node| !node.dead).count() {
        return Err("a node has not started".into());
    }
    let lost = !world.settings.maps() && world.nodes.iter().any(|node| node.dead);
    if world.settings.maps() {
        // Though nothing is missing anywhere: the next thing that an operator wants would be.
        if world.quorum_is_lost() {
            return Err("most voters are gone for good, and nobody goes on without them yet".into());
        }
        target::reached(world)?;
    }
    for &n in &alive {
        let now = world.nodes[n].clocks(world.now);
        if !world.machine(n).map().is_born() {
            return Err(format!("node{} knows of no birth", n + 1));
        }
        if let Some(to) = alive.iter().find(|to| **to != n && !world.is_linked(n, **to)) {
            return Err(format!("node{} is not connected to node{}", n + 1, to + 1));
        }
        let view = world.machine(n).view(now);
        let out = &world.machine(n).map().out;
        if view.len() != alive.iter().filter(|n| !out.contains(&world.nodes[**n].addr)).count() {
            return Err(format!("node{} sees only {view:?}", n + 1));
        }
        if let Err(why) = world.machine(n).readiness(now)
            && !lost
            && !out.contains(&world.nodes[n].addr)
        {
            return Err(format!("node{} is not ready: {why}", n + 1));
        }
        node_settled(world, n, lost)?;
    }
    for partition in 0..world.settings.partitions {
        same_vectors(world, &alive, PartitionId(partition))?;
    }
    Ok(())
}

fn node_settled(world: &World, n: usize, lost: bool) -> Verdict {
    for status in world.machine(n).partition_status() {
        let at = format!("node{} partition {}", n + 1, status.partition);
        // What was sent after something that only a lost disk had waits for the operator's word.
        if status.unapplied > 0 && !lost {
            return Err(format!("{at}: {} operations wait", status.unapplied));
        }
        if status.durable != status.applied {
            return Err(format!("{at}: applied {:?}, durable {:?}", status.applied, status.durable));
        }
        if lost {
            continue;
        }
        let listed = |vector: &VersionVector| listed(world, status.partition, vector);
        if listed(&status.stable) != listed(&status.applied) {
            return Err(format!("{at}: applied {:?}, stable {:?}", status.applied, status.stable));
        }
        for (kind, what) in [(b'l', "log entries"), (b't', "tombstones"), (b'f', "parts of a fill")] {
            let (from, until) = records::range(kind, status.partition);
            let left = world.nodes[n].disk.scan(&from, &until, 10).expect("memory does not fail");
            if let Some((first, _)) = left.first() {
                return Err(format!("{at}: {} {what} are left, the first at {first:?}", left.len()));
            }
        }
    }
    Ok(())
}

/// The entries of the stays that are not closed.
fn listed(world: &World, partition: PartitionId, vector: &VersionVector) -> VersionVector {
    let map = world.newest().expect("the store is born");
    vector.iter().filter(|(stay, _)| map.row(partition).peers.contains_key(stay)).collect()
}

fn same_vectors(world: &World, alive: &[usize], partition: PartitionId) -> Verdict {
    let mut first = None;
    for &n in alive {
        let all = world.machine(n).partition_status();
        let Some(status) = all.into_iter().find(|status| status.partition == partition) else { continue };
        let applied = listed(world, partition, &status.applied);
        let (m, vector) = first.get_or_insert((n, applied.clone()));
        if *vector != applied {
            let (a, b) = (*m + 1, n + 1);
            return Err(format!("partition {partition}: node{a} has {vector:?}, node{b} has {:?}", status.applied));
        }
    }
    if first.is_none() {
        return Err(format!("partition {partition} is served by nobody"));
    }
    Ok(())
}
