//! In the end the map is where the operator wants it, all act under it, and nobody holds what is not theirs.

use std::collections::BTreeSet;

use entail::machine::records;
use entail::store::Read;
use entail::types::{Incarnation, PartitionId};

use super::Verdict;
use crate::world::World;

/// What is not there yet.
pub fn reached(world: &World) -> Verdict {
    let map = world.newest().ok_or("nobody is born")?;
    let alive: Vec<usize> = (0..world.nodes.len()).filter(|n| world.nodes[*n].process.is_some()).collect();
    for &n in &alive {
        if world.machine(n).map().epoch != map.epoch {
            return Err(format!("node{} is at map {} of {}", n + 1, world.machine(n).map().epoch, map.epoch));
        }
        if map.nodes.get(&world.nodes[n].addr) != Some(&world.nodes[n].incarnation) {
            return Err(format!("node{} is not bound", n + 1));
        }
        if map.voters.iter().any(|voter| world.nodes[n].incarnation == Some(*voter))
            && let Some(undecided) = world.machine(n).undecided()
        {
            return Err(format!("node{} has accepted map {}, and nobody decides it", n + 1, undecided.epoch()));
        }
        let process = world.nodes[n].process.as_ref().ok_or("it is alive")?;
        if let Some(wanted) = process.changes.values().next() {
            return Err(format!("node{} has not answered {wanted:?}", n + 1));
        }
    }
    if let Some(target) = &map.target {
        return Err(format!("the target is not reached: {}", target.name));
    }
    for (partition, row) in (0..).map(PartitionId).zip(&map.rows) {
        if let Some((stay, peer)) = row.peers.iter().find(|(_, peer)| !peer.serves()) {
            return Err(format!("partition {partition}: {stay} is {peer:?}"));
        }
        let serving: BTreeSet<Option<Incarnation>> = row.peers.values().map(|peer| Some(peer.incarnation)).collect();
        let wanted = map.wanted(partition).iter().map(|node| world.nodes[world.node_index(node)].incarnation).collect();
        if serving != wanted {
            return Err(format!("partition {partition} is not where it is wanted: {row:?}"));
        }
        nobody_else(world, &alive, partition, &serving)?;
    }
    Ok(())
}

fn nobody_else(
    world: &World,
    alive: &[usize],
    partition: PartitionId,
    serving: &BTreeSet<Option<Incarnation>>,
) -> Verdict {
    for &n in alive.iter().filter(|n| !serving.contains(&world.nodes[**n].incarnation)) {
        for kind in *b"pitlf" {
            let (from, until) = records::range(kind, partition);
            if !world.nodes[n].disk.scan(&from, &until, 1).expect("memory does not fail").is_empty() {
                return Err(format!("node{} still has {:?} of partition {partition}", n + 1, kind as char));
            }
        }
    }
    Ok(())
}
