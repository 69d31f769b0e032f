//! What maps do to peers, counted: the steps of reconciliation, and the states in which faults meet a node.

use entail::cluster::map::{ClusterMap, PeerState, Row, Stay};

use crate::coverage::Coverage;
use crate::world::World;

/// Counts the steps from one map to the next.
pub fn count(coverage: &mut Coverage, was: &ClusterMap, map: &ClusterMap) {
    for (partition, (before, row)) in was.rows.iter().zip(&map.rows).enumerate() {
        let wanted = |stay: &Stay| {
            let node = map.address_of(stay.incarnation);
            node.is_some_and(|node| map.wanted(entail::types::PartitionId(partition as u32)).contains(node))
        };
        for (number, stay) in &row.peers {
            if let Some(step) = step(before, before.peers.get(number), stay, wanted(stay)) {
                coverage.hit(step);
            }
        }
        for (_, stay) in before.peers.iter().filter(|(number, _)| !row.peers.contains_key(number)) {
            coverage.hit(match (stay.state, stay.lost) {
                (PeerState::Joining, _) if map.address_of(stay.incarnation).is_none() => "step: JoinerGone",
                (PeerState::Joining, _) if wanted(stay) => "step: JoinerStalled",
                (PeerState::Joining, _) => "step: JoinerUnwanted",
                (_, false) => "step: Closed",
                (_, true) => "step: ClosedLost",
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
}

fn step(row: &Row, before: Option<&Stay>, stay: &Stay, wanted: bool) -> Option<&'static str> {
    let served = row.peers.values().any(Stay::serves);
    Some(match (before.map(|before| before.state), stay.state) {
        (None, PeerState::Joining) if served => "step: Joined",
        (None, PeerState::Joining) => "step: JoinedFromLeaving",
        (None, _) => "step: BegunEmpty",
        (Some(PeerState::Joining), PeerState::Serving) if served => "step: Promoted",
        (Some(PeerState::Joining), PeerState::Serving) => "step: PromotedFromLeaving",
        _ if stay.lost_by_word && before.is_some_and(|before| !before.lost_by_word) => "step: LostByWord",
        _ if stay.lost && before.is_some_and(|before| !before.lost) => "step: Lost",
        (Some(PeerState::Serving), PeerState::Leaving) if wanted => "step: LeftAbsent",
        (Some(PeerState::Serving), PeerState::Leaving) => "step: LeftUnwanted",
        _ => return None,
    })
}

impl World {
    /// A fault has met a node: in which states.
    pub fn count_states(&mut self, n: usize, fault: &'static str) {
        let Some(map) = self.newest().filter(|_| self.settings.maps()).cloned() else { return };
        let Some(mine) = self.nodes[n].incarnation else { return };
        let peers = map.rows.iter().flat_map(|row| row.peers.values());
        let states: Vec<PeerState> = peers.filter(|peer| peer.incarnation == mine).map(|peer| peer.state).collect();
        let mut met = Vec::new();
        for (state, name) in
            [(PeerState::Joining, "Joining"), (PeerState::Serving, "Serving"), (PeerState::Leaving, "Leaving")]
        {
            if states.contains(&state) {
                met.push(name);
            }
        }
        let moves = map.rows.iter().any(|row| row.peers.values().any(|peer| !peer.serves()));
        let voter = map.voters.contains(&mine);
        let lowest = map.voters.iter().filter_map(|voter| map.address_of(*voter)).min();
        if voter && moves {
            met.push("voter of a move");
        }
        if lowest == Some(&self.nodes[n].addr) && moves {
            met.push("proposer of a move");
        }
        if map.out.contains(&self.nodes[n].addr) {
            met.push("taken out");
        }
        for what in met {
            self.oracle.coverage.hit(format!("met: {fault}: {what}"));
        }
    }
}
