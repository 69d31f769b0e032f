//! What every acceptor looks at before it accepts a map: that it follows from the one it changes.
//!
//! The proposer's reconciliation is not repeated: it rests on what only the proposer was told. But no map that passes
//! here can name two stays alike, bring a closed or lost one back, take another store's place, or leave a partition
//! without a Serving peer while somebody serves it.

use std::collections::BTreeSet;

use super::map::{ClusterMap, PeerState, Row, Stay};
use crate::types::{Epoch, Incarnation, PartitionId, StayId};

/// Whether `next` may follow `map`, which is a born one, at an acceptor that hears these incarnations right now.
///
/// # Errors
/// What does not follow, in words for the log.
pub fn check_proposal(map: &ClusterMap, next: &ClusterMap, live: &BTreeSet<Incarnation>) -> Result<(), String> {
    check_line(map, next)?;
    check_nodes(map, next)?;
    for layout in [&next.layout, next.wanted_layout()] {
        layout.check(map.rows.len()).map_err(|what| format!("a layout does not fit: {what}"))?;
        if let Some(stranger) = layout.shards.iter().flatten().find(|node| !next.nodes.contains_key(*node)) {
            return Err(format!("{stranger} is in a shard but not among the nodes"));
        }
    }
    for (partition, (was, row)) in (0..).map(PartitionId).zip(map.rows.iter().zip(&next.rows)) {
        check_row(next, was, row, live).map_err(|what| format!("partition {partition}: {what}"))?;
    }
    Ok(())
}

fn check_line(map: &ClusterMap, next: &ClusterMap) -> Result<(), String> {
    let same = next.cluster_id == map.cluster_id && next.line == map.line && next.secret == map.secret;
    if !same {
        return Err("it is a map of another store or branch".to_owned());
    }
    if next.epoch != Epoch(map.epoch.0 + 1) || next.parent_hash != map.hash() {
        return Err(format!("it does not follow map {}", map.epoch));
    }
    if next.rows.len() != map.rows.len() {
        return Err("it changes the number of partitions".to_owned());
    }
    Ok(())
}

/// Whether the nodes of `next` may follow those of `map`: who is bound, given up, and decides.
///
/// # Errors
/// What does not follow, in words for the log.
pub(super) fn check_nodes(map: &ClusterMap, next: &ClusterMap) -> Result<(), String> {
    if !map.forgotten.is_subset(&next.forgotten) {
        return Err("it forgets whom the operator gave up".to_owned());
    }
    let mut bound = BTreeSet::new();
    for (node, incarnation) in next.nodes.iter().filter_map(|(node, bound)| Some((node, (*bound)?))) {
        if !bound.insert(incarnation) {
            return Err(format!("{node} has an incarnation that another has too"));
        }
        if next.forgotten.contains(&incarnation) {
            return Err(format!("{node} is bound to an incarnation that was given up"));
        }
    }
    let voters: BTreeSet<_> = next.voters.iter().copied().collect();
    if voters.is_empty() || voters.len() != next.voters.len() || !voters.is_subset(&bound) {
        return Err("its voters are none, or not among its nodes".to_owned());
    }
    Ok(())
}

fn check_row(next: &ClusterMap, was: &Row, row: &Row, live: &BTreeSet<Incarnation>) -> Result<(), &'static str> {
    let same = row.peers == was.peers && row.next_stay == was.next_stay;
    if row.version != if same { was.version } else { next.epoch } {
        return Err("its version is not the epoch that last changed it");
    }
    if row.next_stay < was.next_stay || row.skipped != was.skipped {
        return Err("stay numbers go back, or are skipped");
    }
    for (number, stay) in &row.peers {
        match was.peers.get(number) {
            Some(before) => check_stay(next, before, stay)?,
            None => check_new_stay(next, was, row, *number, stay)?,
        }
    }
    let served =
        |stay: &Stay| stay.serves() && live.contains(&stay.incarnation) && !next.forgotten.contains(&stay.incarnation);
    if was.peers.values().any(served) && !row.peers.values().any(Stay::serves) {
        return Err("it has a live Serving peer and would have none");
    }
    let dropped = was.peers.iter().filter(|(number, _)| !row.peers.contains_key(number));
    if dropped.into_iter().any(|(_, stay)| stay.serves()) {
        return Err("a Serving peer is dropped that did not leave first");
    }
    Ok(())
}

fn check_stay(next: &ClusterMap, before: &Stay, stay: &Stay) -> Result<(), &'static str> {
    if stay.incarnation != before.incarnation || stay.begun_empty != before.begun_empty {
        return Err("a stay is another's than before");
    }
    let goes_on = match (before.state, stay.state) {
        (PeerState::Joining, PeerState::Joining | PeerState::Serving)
        | (PeerState::Serving, PeerState::Serving | PeerState::Leaving)
        | (PeerState::Leaving, PeerState::Leaving) => true,
        // Promoted and made Leaving in one map: when it became unwanted or silent meanwhile.
        (PeerState::Joining, PeerState::Leaving) => !stay.lost,
        (PeerState::Serving | PeerState::Leaving, PeerState::Joining) | (PeerState::Leaving, PeerState::Serving) => {
            false
        }
    };
    if !goes_on {
        return Err("a peer goes back");
    }
    if (before.lost && !stay.lost) || (before.lost_by_word && !stay.lost_by_word) {
        return Err("a lost peer is back");
    }
    let forgotten = next.forgotten.contains(&stay.incarnation);
    if stay.lost_by_word && !forgotten {
        return Err("a peer is lost by a word that nobody gave");
    }
    let gone = next.address_of(stay.incarnation).is_none();
    if stay.lost && !before.lost && !gone && !forgotten {
        return Err("a peer is lost that is bound");
    }
    Ok(())
}

fn check_new_stay(next: &ClusterMap, was: &Row, row: &Row, number: StayId, stay: &Stay) -> Result<(), &'static str> {
    if number < was.next_stay || number >= row.next_stay {
        return Err("a stay is named by a number that was given out, or was not");
    }
    if next.address_of(stay.incarnation).is_none() {
        return Err("a stay is named for nobody");
    }
    let joins = stay.is_joining() && stay.begun_empty.is_none();
    let begins = stay.serves() && stay.begun_empty == Some(next.epoch);
    if stay.lost || !(joins || begins) {
        return Err("a stay begins neither Joining nor empty");
    }
    if begins && was.peers.values().any(|before| before.serves() && !next.forgotten.contains(&before.incarnation)) {
        return Err("it begins empty though somebody serves");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
