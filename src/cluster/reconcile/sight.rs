//! What a proposer sees of the others, and for how long: the part of reconciliation that knows of time.
//!
//! [`Watch`] is a proposer's memory, lost with the process: it counts how long nobody has heard a node and how long a
//! fill has not moved, and how long a live peer whose fill stalled is not named again (twice as long each time). It is
//! shown the present at every turn and gives a [`Sight`], a plain value, to the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::map::ClusterMap;
use crate::types::{Incarnation, NodeAddr, PartitionId, StayId};

/// A Serving peer that no live node has heard for this long is made Leaving, in milliseconds.
pub const ABSENT_MS: u64 = 60_000;

/// A voter, or a node that a target wants, is replaced when no live node has heard it for this long, in milliseconds.
pub const REPLACED_MS: u64 = 30_000;

/// A Joining peer whose fill has not moved for this long is removed, in milliseconds.
pub const STALLED_MS: u64 = 30_000;

/// A node joins so many bytes at once, or one partition. While a peer is Joining, it is sent every write, and what is
/// written is not stable, so that every context names it: few at a time, a second or two of copying.
pub const JOIN_BYTES: u64 = 2 << 20;

/// The longest that a node is not named again after a stalled fill, in milliseconds.
const LONGEST_WAIT_MS: u64 = 30 * 60_000;

/// How far each Joining peer's fill is.
pub type Filled = BTreeMap<(PartitionId, StayId), u64>;

/// What is known at this moment; nothing in it is a late word.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// Whom each live node hears: an entry for every node that this one hears, and for itself.
    pub hears: BTreeMap<NodeAddr, Arc<BTreeSet<NodeAddr>>>,
    /// Who is at the other end of the connections that stand now, this node itself included.
    pub connected: BTreeMap<NodeAddr, Incarnation>,
    /// What a fill from nothing takes, in bytes; a partition that is not listed counts as those that are, on average.
    pub bytes: Arc<BTreeMap<PartitionId, u64>>,
}

/// What the table looks at beside the map and what was told. Equal ones lead to equal maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Heard by this node, or by one that it hears; this node itself.
    pub live: BTreeSet<NodeAddr>,
    /// See [`Present::hears`].
    pub hears: BTreeMap<NodeAddr, Arc<BTreeSet<NodeAddr>>>,
    /// See [`Present::connected`].
    pub connected: BTreeMap<NodeAddr, Incarnation>,
    /// For how long no live node has heard those that are not live, in milliseconds: no more exactly than it matters,
    /// 0, [`REPLACED_MS`] or [`ABSENT_MS`].
    pub silent_ms: BTreeMap<NodeAddr, u64>,
    /// Joining peers whose fill stands still.
    pub stalled: BTreeSet<(PartitionId, StayId)>,
    /// Who is not named for which partition yet, after a fill that stood still.
    pub waiting: BTreeSet<(PartitionId, Incarnation)>,
    /// See [`Present::bytes`].
    pub bytes: Arc<BTreeMap<PartitionId, u64>>,
}

impl Sight {
    /// True for a node that no live node has heard for so long: [`REPLACED_MS`] or [`ABSENT_MS`].
    pub fn is_silent(&self, node: &NodeAddr, for_ms: u64) -> bool {
        self.silent_ms.get(node).is_some_and(|silent| *silent >= for_ms)
    }
}

/// A proposer's memory of how long things are as they are.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    silent_since: BTreeMap<NodeAddr, u64>,
    fills: BTreeMap<(PartitionId, StayId), Fill>,
    waits: BTreeMap<(PartitionId, Incarnation), Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Fill {
    filled: u64,
    since_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    until_ms: u64,
    length_ms: u64,
}

impl Watch {
    /// Takes note of the present under this map, and of how far each Joining peer's fill is, in any unit that grows with
    /// every chunk and every change of its vector. To be shown it at least every second or so, by every voter, so that
    /// who comes to propose knows how long things are as they are.
    pub fn look(&mut self, now_ms: u64, map: &ClusterMap, present: Present, filled: &Filled) -> Sight {
        let Present { hears, connected, bytes } = present;
        let mut live: BTreeSet<_> = hears.keys().cloned().collect();
        for heard in hears.values().filter(|heard| !heard.is_subset(&live)).collect::<Vec<_>>() {
            live.extend(heard.iter().cloned());
        }
        let silent = map.nodes.keys().filter(|node| !live.contains(*node));
        let since = |node: &NodeAddr| self.silent_since.get(node).copied().unwrap_or(now_ms);
        self.silent_since = silent.map(|node| (node.clone(), since(node))).collect();
        let silent_ms = |since: u64| {
            let silent_ms = now_ms.saturating_sub(since);
            [ABSENT_MS, REPLACED_MS].into_iter().find(|long| silent_ms >= *long).unwrap_or(0)
        };
        let silent_ms = self.silent_since.iter().map(|(node, since)| (node.clone(), silent_ms(*since))).collect();
        let stalled = self.look_at_fills(now_ms, map, filled);
        // A fill that stood still because its node was out of reach says nothing of the next, when the node is back.
        self.waits.retain(|(_, who), _| map.address_of(*who).is_some_and(|node| live.contains(node)));
        let waiting = self.waits.iter().filter(|(_, wait)| now_ms < wait.until_ms).map(|(who, _)| *who).collect();
        Sight { live, hears, connected, silent_ms, stalled, waiting, bytes }
    }

    /// Until when the same present under the same map gives the same sight as it did at the last look.
    pub fn same_until(&self, now_ms: u64) -> u64 {
        let silent = self.silent_since.values().flat_map(|since| [since + REPLACED_MS, since + ABSENT_MS]);
        let fills = self.fills.values().map(|fill| fill.since_ms + STALLED_MS);
        let waits = self.waits.values().map(|wait| wait.until_ms);
        silent.chain(fills).chain(waits).filter(|at_ms| *at_ms > now_ms).min().unwrap_or(u64::MAX)
    }

    fn look_at_fills(&mut self, now_ms: u64, map: &ClusterMap, filled: &Filled) -> BTreeSet<(PartitionId, StayId)> {
        let before = std::mem::take(&mut self.fills);
        let mut stalled = BTreeSet::new();
        for (partition, row) in (0..).map(PartitionId).zip(&map.rows) {
            for (stay, peer) in &row.peers {
                let who = (partition, peer.incarnation);
                if peer.serves() {
                    self.waits.remove(&who);
                }
                if !peer.is_joining() {
                    continue;
                }
                let at = (partition, *stay);
                let now = Fill { filled: filled.get(&at).copied().unwrap_or(0), since_ms: now_ms };
                let fill = before.get(&at).filter(|fill| fill.filled == now.filled).copied().unwrap_or(now);
                if now_ms >= fill.since_ms + STALLED_MS {
                    stalled.insert(at);
                    self.wait(now_ms, who);
                }
                self.fills.insert(at, fill);
            }
        }
        stalled
    }

    /// Twice the time that it stood still, and each time twice as long.
    fn wait(&mut self, now_ms: u64, who: (PartitionId, Incarnation)) {
        let wait = self.waits.entry(who).or_insert(Wait { until_ms: 0, length_ms: STALLED_MS });
        if now_ms >= wait.until_ms {
            wait.length_ms = (wait.length_ms * 2).min(LONGEST_WAIT_MS);
            wait.until_ms = now_ms + wait.length_ms;
        }
    }
}
