//! One partition's way through the table, the end: the steps that give out new stays.

use std::collections::BTreeMap;

use super::Step;
use super::place::Place;
use super::rules::ReconcileRule;
use super::sight::JOIN_BYTES;
use crate::cluster::map::{ClusterMap, PeerState, Row, Stay};
use crate::types::{Epoch, Incarnation, NodeAddr, PartitionId, StayId};

/// What each node is being filled with.
#[derive(Debug)]
pub(super) struct Joining<'a> {
    filling: BTreeMap<Incarnation, u64>,
    bytes: &'a BTreeMap<PartitionId, u64>,
    /// What a partition counts of which nothing is known: as much as the others on average.
    average: u64,
}

impl<'a> Joining<'a> {
    pub fn count<'r>(
        rows: impl Iterator<Item = (PartitionId, &'r Row)>,
        bytes: &'a BTreeMap<PartitionId, u64>,
    ) -> Self {
        let sum = bytes.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        let average = sum.checked_div(bytes.len() as u64).unwrap_or(0);
        let mut joining = Self { filling: BTreeMap::new(), bytes, average };
        for (partition, row) in rows {
            for stay in row.peers.values().filter(|stay| stay.is_joining()) {
                joining.add(stay.incarnation, partition);
            }
        }
        joining
    }

    fn of(&self, partition: PartitionId) -> u64 {
        self.bytes.get(&partition).copied().unwrap_or(self.average)
    }

    fn has_room(&self, node: Incarnation, partition: PartitionId) -> bool {
        self.filling.get(&node).is_none_or(|filling| filling.saturating_add(self.of(partition)) <= JOIN_BYTES)
    }

    fn add(&mut self, node: Incarnation, partition: PartitionId) {
        let bytes = self.of(partition);
        let filling = self.filling.entry(node).or_default();
        *filling = filling.saturating_add(bytes);
    }
}

/// True when nodes are being filled, and in the next map each of them would be filled on with some of what it is filled
/// with now: then none of them waits for that map.
pub fn all_go_on_filling(map: &ClusterMap, next: &ClusterMap) -> bool {
    let mut goes_on: BTreeMap<Incarnation, bool> = BTreeMap::new();
    for (row, next) in map.rows.iter().zip(&next.rows) {
        for (id, stay) in row.peers.iter().filter(|(_, stay)| stay.is_joining()) {
            *goes_on.entry(stay.incarnation).or_default() |= next.peers.get(id).is_some_and(Stay::is_joining);
        }
    }
    !goes_on.is_empty() && goes_on.into_values().all(|goes_on| goes_on)
}

impl Place<'_> {
    /// A live wanted node that has no Joining or Serving stay, and that somebody can fill: Joining.
    pub fn join(&mut self, joining: &mut Joining<'_>) {
        for &node in self.live_wanted() {
            let has_stay = self.seen().values().any(|stay| stay.incarnation == node && !stay.is_leaving());
            let waits = self.table.sight.waiting.contains(&(self.partition, node));
            if has_stay || waits || !joining.has_room(node, self.partition) {
                continue;
            }
            let nobody = !self.seen().values().any(Stay::serves);
            if if nobody { self.all_left_are_live() } else { self.is_heard_by_one_serving(node) } {
                joining.add(node, self.partition);
                self.name(Stay::new(node, PeerState::Joining));
                self.took(if nobody { Step::JoinedFromLeaving } else { Step::Joined });
            }
        }
    }

    fn is_heard_by_one_serving(&self, node: Incarnation) -> bool {
        let Some(address) = self.table.bound.get(&node) else { return false };
        let hears =
            |server: &&NodeAddr| self.table.sight.hears.get(*server).is_some_and(|heard| heard.contains(*address));
        let mut serving = self.seen().values().filter(|stay| stay.serves() && self.table.is_live(stay.incarnation));
        serving.any(|stay| self.table.bound.get(&stay.incarnation).is_some_and(hears))
    }

    fn all_left_are_live(&self) -> bool {
        let mut left = self.seen().values().filter(|stay| stay.is_leaving() && !stay.lost).peekable();
        let live = |stay: &Stay| self.table.is_live(stay.incarnation);
        left.peek().is_some() && if self.table.on(ReconcileRule::NobodyLive) { left.all(live) } else { left.any(live) }
    }

    /// Nobody serves, and all that was held is lost, the last of it by the operator's word: the live wanted nodes begin
    /// anew, empty. Whoever was being filled is not among them under its old name.
    pub fn begin_empty(&mut self, next: Epoch) {
        let peers = &self.row.peers;
        let mut left = peers.values().filter(|stay| stay.is_leaving());
        let lost = if self.table.on(ReconcileRule::EmptyAll) { left.all(|s| s.lost) } else { left.any(|s| s.lost) };
        let given_up = peers.values().any(|stay| stay.lost_by_word);
        let live = self.live_wanted();
        if peers.values().any(Stay::serves) || !lost || !given_up || live.is_empty() {
            return;
        }
        let anew = self.table.on(ReconcileRule::EmptyNew);
        self.row.to_mut().peers.retain(|_, stay| stay.is_leaving() || (!anew && live.contains(&stay.incarnation)));
        for &node in live {
            let stay = Stay { begun_empty: Some(next), ..Stay::new(node, PeerState::Serving) };
            let held = self.row.to_mut().peers.values_mut().find(|held| held.is_joining() && held.incarnation == node);
            match held {
                Some(held) => *held = stay,
                None => self.name(stay),
            }
            self.took(Step::BegunEmpty);
        }
    }

    /// Lists a stay under the next number.
    fn name(&mut self, stay: Stay) {
        let mut number = self.row.next_stay;
        if !self.table.on(ReconcileRule::StayNew)
            && let Some(last) = number.0.checked_sub(1).map(StayId)
            && !self.was.peers.contains_key(&last)
            && !self.row.peers.contains_key(&last)
        {
            number = last;
        }
        let row = self.row.to_mut();
        row.peers.insert(number, stay);
        row.next_stay = row.next_stay.max(StayId(number.0 + 1));
    }
}
