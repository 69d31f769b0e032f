//! What maps do to peers, counted: the steps of reconciliation.

use entail::cluster::map::{ClusterMap, PeerState, Row, Stay};

use crate::coverage::Coverage;

/// Counts the steps from one map to the next. Gives each kind once.
pub fn count(coverage: &mut Coverage, was: &ClusterMap, map: &ClusterMap) -> Vec<&'static str> {
    let mut steps = Vec::new();
    for (partition, (before, row)) in was.rows.iter().zip(&map.rows).enumerate() {
        let wanted = |stay: &Stay| {
            let node = map.address_of(stay.incarnation);
            node.is_some_and(|node| map.wanted(entail::types::PartitionId(partition as u32)).contains(node))
        };
        for (number, stay) in &row.peers {
            if let Some(step) = step(before, before.peers.get(number), stay, wanted(stay)) {
                steps.push(step);
            }
        }
        for (_, stay) in before.peers.iter().filter(|(number, _)| !row.peers.contains_key(number)) {
            steps.push(match (stay.state, stay.lost) {
                (PeerState::Joining, _) if map.address_of(stay.incarnation).is_none() => "JoinerGone",
                (PeerState::Joining, _) if wanted(stay) => "JoinerStalled",
                (PeerState::Joining, _) => "JoinerUnwanted",
                (_, false) => "Closed",
                (_, true) => "ClosedLost",
            });
        }
    }
    if was.target.is_some() && map.target.is_none() {
        coverage.hit(if was.wanted_layout() == &map.layout { "map: target reached" } else { "map: target given up" });
    }
    if was.target.as_ref().zip(map.target.as_ref()).is_some_and(|(was, now)| was.layout != now.layout) {
        coverage.hit("map: target planned anew");
    }
    if was.voters != map.voters {
        coverage.hit("map: other voters");
    }
    for step in &steps {
        coverage.hit(format!("step: {step}"));
    }
    steps.sort_unstable();
    steps.dedup();
    steps
}

fn step(row: &Row, before: Option<&Stay>, stay: &Stay, wanted: bool) -> Option<&'static str> {
    let served = row.peers.values().any(Stay::serves);
    Some(match (before.map(|before| before.state), stay.state) {
        (None, PeerState::Joining) if served => "Joined",
        (None, PeerState::Joining) => "JoinedFromLeaving",
        (None, _) => "BegunEmpty",
        (Some(PeerState::Joining), PeerState::Serving) if served => "Promoted",
        (Some(PeerState::Joining), PeerState::Serving) => "PromotedFromLeaving",
        _ if stay.lost_by_word && before.is_some_and(|before| !before.lost_by_word) => "LostByWord",
        _ if stay.lost && before.is_some_and(|before| !before.lost) => "Lost",
        (Some(PeerState::Serving), PeerState::Leaving) if wanted => "LeftAbsent",
        (Some(PeerState::Serving), PeerState::Leaving) => "LeftUnwanted",
        _ => return None,
    })
}
