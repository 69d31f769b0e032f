//! No acknowledged write is lost: it is durable on as many nodes as the answer says, and found in the end.

use entail::types::Epoch;

use super::Verdict;
use crate::oracle::{Oracle, Shown, Version, VersionId};
use crate::workload::Asked;
use crate::world::World;

/// Looks at the acknowledgement of a write.
pub fn check(oracle: &Oracle, write: usize, version: VersionId, copies: u32) -> Verdict {
    let v = &oracle.versions[version];
    if v.key != oracle.writes[write].key || v.delete != oracle.writes[write].delete {
        return Err(format!("ACKNOWLEDGED: w{write} is answered with the name of {}", oracle.name(version)));
    }
    if !v.delete && v.write != Some(write) {
        return Err(format!("ACKNOWLEDGED: w{write} is answered with the name of {}", oracle.name(version)));
    }
    match v.counted {
        Some((counted, under)) if counted == copies => self::counted(oracle, version, copies, under),
        counted => {
            Err(format!("ACKNOWLEDGED: {} with {copies} copies, but counted was {counted:?}", oracle.name(version)))
        }
    }
}

/// Looks at the number of copies of a write that its coordinator counted under this version of the row: when it answers,
/// and again when that reaches the client, for copies may be lost, or dropped in order, on the way.
pub fn counted(oracle: &Oracle, version: VersionId, copies: u32, under: Epoch) -> Verdict {
    let (durable, due) = (oracle.copies(version), oracle.versions[version].due(copies, under));
    if durable < due || copies == 0 {
        return Err(format!("ACKNOWLEDGED: {} with {copies} copies, but {durable} are durable", oracle.name(version)));
    }
    Ok(())
}

/// How long a peer may be behind before its copy is waited for no longer, in milliseconds, less the way of a report.
const KEEPS_UP_MS: u64 = 600;

/// Looks at a coordinator that shows or acknowledges a write of its own: it is on enough disks, or there is a reason.
/// Only where nothing was ever cut, lost or down: there, a peer that has all but the newest writes keeps up.
pub fn shown_alone(world: &World, node: usize, version: VersionId) -> Verdict {
    let (oracle, coverage) = (&world.oracle, &world.oracle.coverage);
    let v = &oracle.versions[version];
    let calm = !world.settings.maps()
        && ["network: lost", "process: crashed", "slow: links"].iter().all(|what| coverage.count(what) == 0);
    if !calm || v.coordinator != node || v.acked.is_some() || oracle.copies(version) >= world.settings.write_copies {
        return Ok(());
    }
    let here = &oracle.holdings[node].now[v.partition.0 as usize].vector;
    let lacks = |n: usize, v: &Version| !oracle.holdings[n].durable[v.partition.0 as usize].vector.covers(v.order.1);
    let young = |w: &Version| world.now < w.born_ms + KEEPS_UP_MS;
    let same_stay = |w: &&Version| w.partition == v.partition && w.coordinator == node && here.covers(w.order.1);
    let peers = (0..world.nodes.len()).filter(|n| *n != node && world.nodes[*n].process.is_some());
    let mut peers = peers.filter(|n| world.machine(*n).partition_status().iter().any(|s| s.partition == v.partition));
    // At its deadline a write is answered with the copies there are, and may then be shown, with all before it.
    let due = |w: &Version| w.write.is_none_or(|w| world.now + 50 > oracle.writes[w].deadline_ms);
    let mut later = oracle.versions.iter().filter(same_stay).filter(|w| w.order.1 >= v.order.1);
    let answered = later.any(|w| w.acked.is_some() || due(w));
    let keeps_up = |n: usize| oracle.versions.iter().filter(same_stay).filter(|w| lacks(n, w)).all(young);
    match peers.find(|n| lacks(*n, v) && keeps_up(*n) && !answered) {
        Some(n) => {
            let (name, n) = (oracle.name(version), n + 1);
            Err(format!("ACKNOWLEDGED: node{} does not wait for node{n} with {name}", node + 1))
        }
        None => Ok(()),
    }
}

/// Looks at whether the key is said to have had a value before: to have had none is to show nothing.
pub fn existed(oracle: &Oracle, asked: &Asked, version: VersionId, existed: bool) -> Verdict {
    let best = oracle.best_of(asked.key, &asked.session.past, |v| asked.session.past.contains(v));
    // A delete whose disk is lost was there, too, where it was still under way to the coordinator (aimed 5785), or the
    // coordinator's own disk was lost with both before the answer was read (aimed 23701).
    let Version { partition, coordinator, order, .. } = oracle.versions[version];
    let disks = &oracle.holdings[coordinator];
    let (there, lost) = (&disks.now[partition.0 as usize].vector, &disks.lost[partition.0 as usize]);
    let had = |dot| there.covers(dot) || (lost.covers(order.1) && lost.covers(dot));
    let was = |v: &VersionId| !oracle.versions[*v].gone || had(oracle.versions[*v].order.1);
    let deletes = oracle.by_key[asked.key].iter().copied().filter(|v| oracle.versions[*v].delete && was(v));
    let buried = deletes.max_by_key(|v| oracle.versions[*v].order);
    let shown = Shown { node: asked.node, version: None, buried, deletes: Vec::new() };
    if existed || oracle.acceptable(best, &shown) {
        return Ok(());
    }
    Err(format!("ACKNOWLEDGED: key {} is said to be new after {}", asked.key, oracle.name_or_nothing(best)))
}

/// In the end, a key shows the greatest version that anybody was told of, or one greater still. With a lost disk, what
/// had no other copy may be missing.
pub fn found(oracle: &Oracle, key: usize, shown: Option<VersionId>, node: usize, copies_elsewhere: bool) -> Verdict {
    let promised = |v: VersionId| {
        let version = &oracle.versions[v];
        match copies_elsewhere {
            true => version.acked.is_some_and(|copies| copies >= 2),
            false => version.shown,
        }
    };
    let best = oracle.best(key, promised);
    let buried = if shown.is_none() { oracle.buried_at(node, key) } else { None };
    let shown = Shown { node, version: shown, buried, deletes: Vec::new() };
    if oracle.acceptable(best, &shown) {
        return Ok(());
    }
    let (found, best) = (oracle.name_or_nothing(shown.version), oracle.name_or_nothing(best));
    Err(format!("ACKNOWLEDGED: in the end node{} has {found} where {best} was told of", node + 1))
}
