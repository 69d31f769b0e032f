//! Recovery by force: a map without those who did not answer, for a store that lost the majority of its voters.
//!
//! While the majority is away nothing but maps stands still. If it never comes back, the operator's word takes its
//! place: the silent nodes are given up as by `forget`, all in one map, and the nodes that are left get new voters.
//! Nobody can know what the silent decided last, or whether they live on somewhere. So
//! - epochs and stay numbers go on [`RAISE`] and up to as much again further on, by chance: none that another line gave
//!   out, or will, is given out again;
//! - the map begins a new branch of its line ([`super::line`]): who is on another is told so, and nothing more;
//! - every node that answers agrees first ([`Vow`]): two operators at once make one branch, or none. A node that hears
//!   others than the operator's node does agrees to nothing.
//!
//! Deliberately absent: consensus. Where two operators recover two sides of a store that is cut in two, there are two
//! branches, and they never mix.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Change;
use super::check::check_nodes;
use super::line::Fork;
use super::map::{ClusterMap, Row};
use super::reconcile::rules::ReconcileRules;
use super::reconcile::sight::Sight;
use super::reconcile::{Next, Told, follow};
use super::voters::deciders;
use crate::types::{BranchId, Epoch, Incarnation, NodeAddr, PartitionId, StayId};

/// Epochs and stay numbers that a recovery skips at the least.
pub const RAISE: u32 = 1 << 20;

/// A vow holds for this long, in milliseconds, unless its map comes.
pub const VOW_MS: u64 = 15_000;

/// What a recovery draws by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The new branch; not zero.
    pub branch: BranchId,
    /// How many numbers are skipped: [`RAISE`] and a random number below it.
    pub raise: u32,
}

impl Draw {
    /// Of these random bits.
    pub fn new(bits: u128) -> Self {
        Self { branch: BranchId((bits as u64).max(1)), raise: RAISE + (bits >> 64) as u32 % RAISE }
    }
}

/// Why there is nothing to recover, or it can't be done. Nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The voters can decide.
    #[error(
        "A majority of the voters answers, so there is nothing to recover; for a node that never comes back there is \
         entail forget"
    )]
    QuorumLives,
    /// This node's word is none: it is not one of the map's nodes, or not under its present data directory.
    #[error("This node is not a member of the store; ask one that is")]
    NoMember,
    /// The numbers are used up.
    #[error("Stay numbers are used up by too many recoveries; start a new store")]
    Exhausted,
}

/// What a recovery gives up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The nodes that do not answer.
    pub silent: Vec<NodeAddr>,
    /// The partitions that nobody else holds.
    pub partitions: Vec<PartitionId>,
}

/// True when those present, each with the incarnation that its connection told, are enough to decide the next map.
pub fn quorum_lives(map: &ClusterMap, present: &BTreeMap<NodeAddr, Incarnation>) -> bool {
    let (voters, quorum) = deciders(map, present);
    let there: BTreeSet<_> = present.values().collect();
    voters.iter().filter(|voter| there.contains(voter)).count() >= quorum.size(voters.len())
}

/// The nodes of voters that are not present; those that came back without their disk among them.
pub fn missing_voters(map: &ClusterMap, present: &BTreeMap<NodeAddr, Incarnation>) -> Vec<NodeAddr> {
    let missing = |voter: &&Incarnation| !present.values().any(|there| there == *voter);
    let mut nodes: Vec<_> =
        map.voters.iter().filter(missing).filter_map(|voter| map.address_of(*voter).cloned()).collect();
    nodes.sort();
    nodes
}

/// What it costs to go on without those that are not present.
pub fn cost(map: &ClusterMap, present: &BTreeMap<NodeAddr, Incarnation>) -> Cost {
    let bound = map.nodes.iter().filter_map(|(node, bound)| Some((node, (*bound)?)));
    let silent: BTreeMap<Incarnation, NodeAddr> =
        bound.filter(|(node, _)| !present.contains_key(*node)).map(|(node, bound)| (bound, node.clone())).collect();
    let given_up = |row: &Row| row.is_lost_with(|stay| silent.contains_key(&stay.incarnation));
    let rows = (0..).map(PartitionId).zip(&map.rows);
    let partitions = rows.filter(|(_, row)| given_up(row)).map(|(partition, _)| partition).collect();
    let mut silent: Vec<_> = silent.into_values().collect();
    silent.sort();
    Cost { silent, partitions }
}

/// The map without those that are not present. `present` has `me` in it.
///
/// `sight`: as for reconciliation; only its present nodes count as live.
///
/// # Errors
/// [`RecoverError`].
pub fn recover(
    map: &ClusterMap,
    me: Incarnation,
    told: &Told,
    sight: &Sight,
    rules: ReconcileRules,
    draw: Draw,
) -> Result<Next, RecoverError> {
    let present = &sight.connected;
    if map.address_of(me).is_none_or(|node| present.get(node) != Some(&me)) {
        return Err(RecoverError::NoMember);
    }
    if quorum_lives(map, present) {
        return Err(RecoverError::QuorumLives);
    }
    let sight = Sight { live: present.keys().cloned().collect(), ..sight.clone() };
    let epoch = Epoch(map.epoch.0 + 1 + u64::from(draw.raise));
    let raised = ClusterMap {
        line: map.line.then(Fork { branch: draw.branch, after: map.epoch, first: epoch }),
        rows: map
            .rows
            .iter()
            .map(|row| raise(row, draw.raise))
            .collect::<Option<_>>()
            .ok_or(RecoverError::Exhausted)?,
        ..map.clone()
    };
    let mut next = raised.clone();
    if !present.iter().any(|(node, there)| may_vote(map, node, *there)) {
        // Nobody is left to decide anything, their admission or that of those who are no members yet neither.
        next.out.retain(|node| !present.contains_key(node));
    }
    for node in cost(map, present).silent {
        let bound = map.nodes.get(&node).copied().flatten();
        let still_there = |next: &ClusterMap| next.nodes.get(&node).copied().flatten() == bound && bound.is_some();
        // It is known and not live, so nothing speaks against it. Where a disk is missing that it had before, the first
        // word is on that one alone.
        let mut words = 0;
        while words == 0 || (words == 1 && still_there(&next)) {
            words += 1;
            if Change::Forget(node.clone()).apply(&mut next, &sight).is_err() {
                return Err(RecoverError::NoMember);
            }
        }
    }
    let mut recovered = follow(&raised, next, epoch, told, &sight, rules);
    recovered.map.parent_hash = map.hash();
    recovered.map.rows.iter_mut().for_each(|row| row.version = epoch);
    Ok(recovered)
}

/// Whether who is there at an address is a member that was not taken out, or becomes one by being bound to it.
fn may_vote(map: &ClusterMap, node: &NodeAddr, there: Incarnation) -> bool {
    match map.nodes.get(node) {
        Some(bound) if *bound == Some(there) => !map.out.contains(node),
        Some(_) => map.address_of(there).is_none() && !map.forgotten.contains(&there),
        None => false,
    }
}

fn raise(row: &Row, by: u32) -> Option<Row> {
    let mut raised = row.clone();
    raised.next_stay = StayId(row.next_stay.0.checked_add(by)?);
    raised.skipped.push((row.next_stay, raised.next_stay));
    Some(raised)
}

/// What an acceptor of a recovered map looks at: that it is one of `map`, which it acts under.
///
/// # Errors
/// What does not follow, in words for the log.
pub fn check_recovered(map: &ClusterMap, next: &ClusterMap) -> Result<(), String> {
    check_fork(map, next)?;
    check_nodes(map, next)
}

fn check_fork(map: &ClusterMap, next: &ClusterMap) -> Result<(), &'static str> {
    if next.cluster_id != map.cluster_id || next.secret != map.secret || next.rows.len() != map.rows.len() {
        return Err("it is a map of another store");
    }
    let fork = next
        .line
        .forks()
        .last()
        .filter(|fork| fork.after == map.epoch && fork.first == next.epoch && next.line == map.line.then(**fork));
    if fork.is_none() || next.parent_hash != map.hash() {
        return Err("it was not recovered from this map");
    }
    if next.epoch.0 <= map.epoch.0 + u64::from(RAISE) {
        return Err("it raises its epoch too little");
    }
    for (was, row) in map.rows.iter().zip(&next.rows) {
        let skipped = row.skipped.split_last().filter(|(_, before)| *before == was.skipped.as_slice());
        let Some(((from, until), _)) = skipped.filter(|((from, until), _)| {
            *from == was.next_stay && u64::from(until.0) >= u64::from(from.0) + u64::from(RAISE)
        }) else {
            return Err("it skips too few stay numbers, or others");
        };
        let known = |number: &StayId| if number < from { was.peers.contains_key(number) } else { number >= until };
        if row.next_stay < *until || row.version != next.epoch || !row.peers.keys().all(known) {
            return Err("it names a stay that was closed, or another line's");
        }
    }
    Ok(())
}

/// To which recovery a node has agreed. Kept in memory: one that begins anew knows no more than one that was cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vow(Option<Given>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    branch: BranchId,
    to: NodeAddr,
    since_ms: u64,
}

impl Vow {
    /// Agrees to the recovery that `to` asks for, for [`VOW_MS`]; false while there is a vow for another.
    ///
    /// Of two that ask at once the lower address has its way: a vow is given anew where the one that it was given to is
    /// among those `present` for the one that asks now, and so has to agree, too.
    pub fn give(&mut self, now_ms: u64, branch: BranchId, to: &NodeAddr, present: &[NodeAddr]) -> bool {
        let holds = self.0.as_ref().filter(|given| given.branch != branch && now_ms < given.since_ms + VOW_MS);
        if holds.is_some_and(|given| given.to <= *to || !present.contains(&given.to)) {
            return false;
        }
        self.0 = Some(Given { branch, to: to.clone(), since_ms: now_ms });
        true
    }

    /// Whether the last agreement was to this recovery: however long ago, its map was made on that word.
    pub fn is_for(&self, branch: BranchId) -> bool {
        self.0.as_ref().is_some_and(|given| given.branch == branch)
    }
}

#[cfg(test)]
mod tests;
