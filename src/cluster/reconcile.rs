//! From the map that is to the map that should be: a pure function, the only author of peer states.
//!
//! For each partition, with W the nodes that the target (or else the layout) wants for it, these steps, in this order,
//! each on the result of the one before. One map takes every step that is ready.
//!
//! 1. A Joining peer is gone, not wanted, or its fill stands still: removed. It never wrote; it is named again after
//!    twice the wait.
//! 2. A peer is gone and another serves, or the operator forgot it: Leaving, lost.
//! 3. A Joining peer holds what one peer, Serving then and now, told (where nobody serves: what every Leaving peer not
//!    lost told): Serving.
//! 4. A Serving peer is out of reach for a minute, and another live one serves: Leaving.
//! 5. A Serving peer is not wanted, and all live nodes of W serve, at least two of them (one, when W is one node or the
//!    operator took the peer's node out): Leaving.
//! 6. All that a Leaving peer told is at every Serving and Joining peer, and two serve (one, when W is one node); of a
//!    lost one, all that the others told of its own writes, when all of them have: removed, closed.
//! 7. A live node of W has no Joining or Serving stay, and a Serving peer hears it (where nobody serves: all Leaving
//!    peers not lost are live): Joining, under the next number; so much at once as [`sight::JOIN_BYTES`] says.
//! 8. Nobody serves, all Leaving peers are lost, one by the operator's word: Joining peers are removed, and the live
//!    nodes of W serve, empty, under new numbers.
//! 9. No live peer is Joining any more, every live node of W serves, a member that is added too, live or not, and
//!    nobody unwanted does: layout = target.
//!
//! *Gone*: the incarnation is bound to no address. *Told*: with the version of the row that the map has, so with the
//! states, lost marks and peers of that row; a peer promoted or made Leaving in this very map has told nothing as such,
//! and a stay named in it nothing at all. A gone peer does not count in "another serves" or "all of W serve"; but while
//! it is listed Serving, the partition is not one that nobody serves, and "every Serving peer" includes it: the last
//! Serving stay is given up by the operator's word only.
//!
//! Before the table, a live node that lost its disk is bound under its new incarnation, by the connection that stands
//! now, never by a late word; and a target that wants a node out of reach is planned anew, or given up. After it,
//! voters are replaced and incarnations noted that are bound no more.
//!
//! What an operator asks for is a [`Change`] of the map, taken together with all steps that are ready.
//!
//! Deliberately absent: clocks ([`sight::Watch`] keeps the times), Paxos, and what a write is: told vectors are numbers.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::change::{Change, ChangeError, replan};
use super::map::{ClusterMap, Row, Target};
use super::voters::voters;
use crate::types::{Epoch, Incarnation, NodeAddr, PartitionId, Seq, ShardId, StayId};

mod join;
mod place;
pub mod rules;
pub mod sight;

use join::Joining;
pub use join::all_go_on_filling;
use place::{Place, Table, Wanted};
use rules::ReconcileRules;
use sight::{REPLACED_MS, Sight};

/// How far each stay's writes are held: a version vector as plain numbers.
pub type Vector = BTreeMap<StayId, Seq>;

/// What a peer told of a partition under one version of its row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// The version. A word under another than the map's counts for nothing.
    pub version: Epoch,
    /// What was durable when it had adopted that version and synced: its first word under it.
    pub first: Vector,
    /// What is durable by now; at least `first`.
    pub durable: Vector,
}

/// The words of all peers, each taken from nobody but the incarnation that the row names for the stay.
pub type Told = BTreeMap<(PartitionId, StayId), Word>;

/// One step that a map takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A Joining peer was gone.
    JoinerGone,
    /// A Joining peer was not wanted.
    JoinerUnwanted,
    /// A Joining peer's fill stood still.
    JoinerStalled,
    /// A gone peer is lost.
    Lost,
    /// A peer is lost by the operator's word.
    LostByWord,
    /// A Joining peer serves.
    Promoted,
    /// A Joining peer serves where nobody did.
    PromotedFromLeaving,
    /// A Serving peer out of reach is Leaving.
    LeftAbsent,
    /// A Serving peer that is not wanted is Leaving.
    LeftUnwanted,
    /// A Leaving peer is closed.
    Closed,
    /// A lost peer is closed.
    ClosedLost,
    /// A node joins.
    Joined,
    /// A node joins where nobody serves.
    JoinedFromLeaving,
    /// A node serves a partition whose writes were all lost.
    BegunEmpty,
}

/// The map that comes, and why. Nothing of it is true before it is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The map to propose.
    pub map: ClusterMap,
    /// The steps that its rows take, by partition.
    pub steps: Vec<(PartitionId, Step)>,
}

/// The next map, when there is something to do. `map` is a born one.
pub fn reconcile(map: &ClusterMap, told: &Told, sight: &Sight, rules: ReconcileRules) -> Option<Next> {
    Turn::new(map, told, sight, rules).take(map.clone())
}

/// The next map with what an operator or a node asks for in it; `None` when there is nothing to do any more.
///
/// # Errors
/// Why it can't be. Nothing changes.
pub fn change(
    map: &ClusterMap,
    change: &Change,
    told: &Told,
    sight: &Sight,
    rules: ReconcileRules,
) -> Result<Option<Next>, ChangeError> {
    let mut next = map.clone();
    change.apply(&mut next, sight)?;
    Ok(Turn::new(map, told, sight, rules).take(next))
}

/// The map of this epoch that follows from `map` with `next` as its nodes, layouts and words, with all steps that are
/// ready; whether anything changes or not.
pub fn follow(
    map: &ClusterMap,
    mut next: ClusterMap,
    epoch: Epoch,
    told: &Told,
    sight: &Sight,
    rules: ReconcileRules,
) -> Next {
    let turn = Turn { epoch, ..Turn::new(map, told, sight, rules) };
    let steps = turn.walk(&mut next);
    turn.seal(next, steps)
}

struct Turn<'a> {
    map: &'a ClusterMap,
    told: &'a Told,
    sight: &'a Sight,
    rules: ReconcileRules,
    /// The epoch of the map that comes.
    epoch: Epoch,
}

impl<'a> Turn<'a> {
    fn new(map: &'a ClusterMap, told: &'a Told, sight: &'a Sight, rules: ReconcileRules) -> Self {
        Self { map, told, sight, rules, epoch: Epoch(map.epoch.0 + 1) }
    }

    fn take(&self, mut next: ClusterMap) -> Option<Next> {
        let steps = self.walk(&mut next);
        (next != *self.map).then(|| self.seal(next, steps))
    }

    fn walk(&self, next: &mut ClusterMap) -> Vec<(PartitionId, Step)> {
        self.bind(next);
        self.replace_lost_targets(next);
        let steps = self.walk_the_table(next);
        self.note_former(next);
        next.voters = voters(next, self.sight);
        steps
    }

    fn seal(&self, mut next: ClusterMap, steps: Vec<(PartitionId, Step)>) -> Next {
        next.epoch = self.epoch;
        next.parent_hash = self.map.hash();
        for (row, was) in next.rows.iter_mut().zip(&self.map.rows) {
            if row != was {
                row.version = next.epoch;
            }
        }
        Next { map: next, steps }
    }

    /// Who is at an address now under another incarnation, neither forgotten nor bound elsewhere, is bound to it.
    fn bind(&self, next: &mut ClusterMap) {
        for (node, incarnation) in &self.sight.connected {
            let free = next.address_of(*incarnation).is_none() && !next.forgotten.contains(incarnation);
            if let Some(bound) = next.nodes.get_mut(node)
                && free
            {
                *bound = Some(*incarnation);
                // A node that was taken out and is started anew is back, in no shard.
                next.out.remove(node);
            }
        }
    }

    /// A target that wants a node out of reach, or one that is none any more, is planned anew or given up.
    fn replace_lost_targets(&self, next: &mut ClusterMap) {
        let Some(target) = &next.target else { return };
        let missing = |node: &NodeAddr| {
            self.sight.is_silent(node, REPLACED_MS)
                || next.out.contains(node)
                || next.nodes.get(node).is_none_or(Option::is_none)
        };
        // A plan that is not even keeps dead members where they are.
        let wanted = |node: &&NodeAddr| target.even || next.layout.shard_of(node) != target.layout.shard_of(node);
        if target.layout.shards.iter().flatten().filter(wanted).any(missing) {
            replan(next, self.sight);
        }
    }

    fn walk_the_table(&self, next: &mut ClusterMap) -> Vec<(PartitionId, Step)> {
        let bound = next.nodes.iter().filter_map(|(node, bound)| Some(((*bound)?, node))).collect();
        let Self { told, sight, rules, .. } = *self;
        let table = Table { bound, forgotten: &next.forgotten, out: &next.out, told, sight, rules };
        let layout = next.wanted_layout();
        let wanted: Vec<_> = layout.shards.iter().map(|shard| Wanted::new(&table, &next.nodes, shard)).collect();
        let nobody = Wanted::new(&table, &next.nodes, &[]);
        let of = |p: PartitionId| (layout.partitions[p.0 as usize].0 as usize).checked_sub(1);
        let wanted = |p| of(p).and_then(|shard| wanted.get(shard)).unwrap_or(&nobody);
        let place = |(partition, was)| Place::new(&table, wanted(partition), partition, was);
        let mut places: Vec<Place<'_>> = self.rows().map(place).collect();
        places.iter_mut().for_each(Place::go_on);
        let mut joining = Joining::count(places.iter().map(|place| (place.partition, &*place.row)), &sight.bytes);
        for place in &mut places {
            place.join(&mut joining);
            place.begin_empty(self.epoch);
        }
        let added = next.target.as_ref().map_or_else(BTreeSet::new, |target| added_by(target, next));
        let arrived = |place: &Place<'_>| {
            let here = added.iter().filter(|(shard, _)| *shard == layout.partitions[place.partition.0 as usize]);
            here.into_iter().all(|(_, node)| node.is_some_and(|node| place.all_serve(&[node], &place.row.peers)))
        };
        let reached = places.iter().all(|place| place.is_where_wanted() && arrived(place));
        let (rows, steps): (Vec<_>, Vec<_>) = places.into_iter().map(|place| (place.row, place.steps)).unzip();
        next.rows = rows.into_iter().map(Cow::into_owned).collect();
        if reached && let Some(target) = next.target.take() {
            next.layout = target.layout;
        }
        steps.concat()
    }

    fn rows(&self) -> impl Iterator<Item = (PartitionId, &Row)> {
        (0..).map(PartitionId).zip(&self.map.rows)
    }

    /// Keeps the address of every incarnation that still has a stay but is bound no more.
    fn note_former(&self, next: &mut ClusterMap) {
        let mut former = self.map.former.clone();
        let bound = |(node, bound): (&NodeAddr, &Option<Incarnation>)| Some(((*bound)?, node.clone()));
        former.extend(self.map.nodes.iter().filter_map(bound));
        let listed = |incarnation: &Incarnation| {
            next.rows.iter().any(|row| row.peers.values().any(|stay| stay.incarnation == *incarnation))
        };
        former.retain(|incarnation, _| next.address_of(*incarnation).is_none() && listed(incarnation));
        next.former = former;
    }
}

/// The nodes that somebody is waiting for: those that an added member's target has new in a shard, and who is there.
/// A reshard waits for nobody out of reach: a place is kept, and whoever it is joins when it is back.
fn added_by(target: &Target, next: &ClusterMap) -> BTreeSet<(ShardId, Option<Incarnation>)> {
    let new = |(shard, node): (ShardId, &NodeAddr)| {
        let bound = next.nodes.get(node).copied().flatten();
        (next.layout.shard_of(node) != Some(shard)).then_some((shard, bound))
    };
    let shards = (1..).map(ShardId).zip(&target.layout.shards).filter(|_| !target.even);
    shards.flat_map(|(shard, nodes)| nodes.iter().map(move |node| (shard, node))).filter_map(new).collect()
}

#[cfg(test)]
mod tests;
