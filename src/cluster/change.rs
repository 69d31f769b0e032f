//! What operators and nodes ask of the map: each a change of its nodes, its layouts or its words, never of a peer.
//!
//! - **Reshard, add-member**: a target. One at a time.
//! - **Admit**: a node that starts with an address the map does not have, or a `PUT` of one that was taken out. It is
//!   in no shard.
//! - **Remove**: the node is in no layout any more, of those in force and wanted, and marked as taken out; it stays
//!   bound, so that what it holds is drained to the others. There is no target for that: what is left to move without
//!   one is repair. A target that wants the node is planned anew, or given up.
//! - **Forget**: the operator's word that a node, or the disk it had before, never comes back.
//! - **Cancel**: no target. What moved moves back, as the layout in force wants it.
//!
//! Reconciliation does the rest; see [`super::reconcile::change`].

use super::map::{ClusterMap, Target};
use super::plan::{PlanError, Request, plan};
use super::reconcile::sight::Sight;
use crate::types::{Incarnation, NodeAddr, ShardId};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This many shards, everything spread evenly.
    Reshard(u32),
    /// A node in a shard more.
    AddMember {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeAddr,
    },
    /// A node in the view, in no shard.
    Admit {
        /// Its address.
        node: NodeAddr,
        /// Who runs there: as the present connection of whoever asks told.
        incarnation: Incarnation,
    },
    /// A live node out of the view, for good.
    Remove(NodeAddr),
    /// A node given up with all that only it held; or, where a disk is missing that it had before, that disk alone.
    Forget(NodeAddr),
    /// No target.
    Cancel,
}

/// Why the map does not change so. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such layout.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A target is on its way.
    #[error("Resharding is already in progress")]
    InProgress,
    /// There is no target.
    #[error("Resharding is not in progress")]
    NotInProgress,
    /// The node is in the view.
    #[error("Socket address already exists in the view")]
    AlreadyInView,
    /// The map knows no such node.
    #[error("Socket address does not exist in the view")]
    NoSuchNode,
    /// The process runs on a directory that was forgotten, or that belongs to another address.
    #[error("The node's data directory was forgotten or belongs to another address; start it with an empty one")]
    NotItsDirectory,
    /// The node lives, and nothing it had is missing.
    #[error("The node is up and has its data; take it out of the view instead")]
    NotLost,
    /// The map that the change was asked of is not the newest any more. Asked of that one, it may be done.
    #[error("The map has changed meanwhile")]
    MovedOn,
}

impl Change {
    /// Changes the map that comes: nodes, layouts and words, no peer.
    ///
    /// # Errors
    /// Why not; the map is as it was.
    pub fn apply(&self, map: &mut ClusterMap, sight: &Sight) -> Result<(), ChangeError> {
        match self {
            Change::Reshard(count) => aim(map, sight, &Request::Reshard(*count), self.name(), true),
            Change::AddMember { shard, node } => {
                let request = Request::AddMember { shard: *shard, node: node.clone() };
                aim(map, sight, &request, self.name(), false)
            }
            Change::Admit { node, incarnation } => admit(map, node, *incarnation),
            Change::Remove(node) => remove(map, sight, node),
            Change::Forget(node) => forget(map, sight, node),
            Change::Cancel => map.target.take().map(|_| ()).ok_or(ChangeError::NotInProgress),
        }
    }
}

impl Change {
    /// What operators see of a target that the change gives the map.
    fn name(&self) -> String {
        match self {
            Change::Reshard(count) => format!("reshard to {count}"),
            Change::AddMember { shard, node } => format!("add {node} to shard {shard}"),
            Change::Admit { .. } | Change::Remove(_) | Change::Forget(_) | Change::Cancel => String::new(),
        }
    }

    /// Whether the map `after`, which follows on `before`, has this change in it, which was asked of `before`: for who
    /// got no answer. Another change to the same effect looks the same.
    pub fn is_shown_by(&self, before: &ClusterMap, after: &ClusterMap) -> bool {
        let is_aim = |map: &ClusterMap| map.target.as_ref().is_some_and(|target| target.name == self.name());
        // One target at a time: with another it would have been refused.
        let free = before.target.is_none();
        let is_new = |there: &dyn Fn(&ClusterMap) -> bool| there(after) && !there(before);
        match self {
            Change::Reshard(count) => {
                let laid_out = after.target.is_none() && after.layout != before.layout;
                free && (is_aim(after) || laid_out && after.layout.shards.len() == *count as usize)
            }
            Change::AddMember { shard, node } => {
                free && (is_aim(after) || is_new(&|map| map.layout.shard_of(node) == Some(*shard)))
            }
            Change::Admit { node, incarnation } => {
                is_new(&|map| map.nodes.get(node) == Some(&Some(*incarnation)) && !map.out.contains(node))
            }
            Change::Remove(node) => is_new(&|map| map.out.contains(node) || !map.nodes.contains_key(node)),
            Change::Forget(node) => {
                let meant = before.disks_meant(node);
                meant.is_subset(&after.forgotten) && !(meant.is_empty() && after.nodes.contains_key(node))
            }
            Change::Cancel => before.target.as_ref().is_some_and(|target| {
                let goes_on = after.target.as_ref().is_some_and(|then| then.name == target.name);
                !goes_on && after.layout != target.layout
            }),
        }
    }
}

fn aim(map: &mut ClusterMap, sight: &Sight, request: &Request, name: String, even: bool) -> Result<(), ChangeError> {
    let planned = plan(map, &sight.live, request);
    let layout = match planned {
        // What is wrong whatever runs comes first, and that it is so already.
        Err(
            error @ (PlanError::NotEnoughNodes
            | PlanError::TooManyShards
            | PlanError::NoSuchShard
            | PlanError::NodeNotInView
            | PlanError::AlreadyMember),
        ) => return Err(error.into()),
        _ if map.target.is_some() => return Err(ChangeError::InProgress),
        planned => planned?,
    };
    if layout != map.layout {
        map.target = Some(Target { layout, name, even });
    }
    Ok(())
}

fn admit(map: &mut ClusterMap, node: &NodeAddr, incarnation: Incarnation) -> Result<(), ChangeError> {
    let elsewhere = map.address_of(incarnation).is_some_and(|other| other != node);
    if elsewhere || map.forgotten.contains(&incarnation) {
        return Err(ChangeError::NotItsDirectory);
    }
    let known = map.nodes.get(node) == Some(&Some(incarnation));
    if known && !map.out.contains(node) {
        return Err(ChangeError::AlreadyInView);
    }
    map.nodes.insert(node.clone(), Some(incarnation));
    map.out.remove(node);
    Ok(())
}

fn remove(map: &mut ClusterMap, sight: &Sight, node: &NodeAddr) -> Result<(), ChangeError> {
    map.layout = plan(map, &sight.live, &Request::Remove { node: node.clone() })?;
    map.out.insert(node.clone());
    lose_from_target(map, sight, node);
    Ok(())
}

/// The target without a node: as it is, when it does not want the node; else planned anew, or given up.
fn lose_from_target(map: &mut ClusterMap, sight: &Sight, node: &NodeAddr) {
    let Some(target) = &mut map.target else { return };
    let joins = target.layout.shard_of(node).is_some();
    if target.even && joins {
        replan(map, sight);
    } else if joins {
        target.layout = target.layout.without(node);
        if target.layout == map.layout {
            map.target = None;
        }
    }
}

/// The target from those that are live, or none: when some shard would not have two, when a partition would move that
/// can't, and when the node that the target was about is missing.
pub(super) fn replan(map: &mut ClusterMap, sight: &Sight) {
    let planned = plan(map, &sight.live, &Request::Replan);
    map.target = map.target.take().filter(|target| target.even).and_then(|target| {
        let layout = planned.ok().filter(|layout| *layout != map.layout)?;
        Some(Target { layout, ..target })
    });
}

/// Gives up what a node held. Where disks are missing that it had before, those alone: who has a disk now is not given
/// up by the word on the old one, down or not, and a second word is on itself.
///
/// A node that is not live is gone for good, from its shard too, unless it is the last member there: then the place is
/// kept for whoever starts at that address, and the partitions begin anew there, or where a reshard puts them.
fn forget(map: &mut ClusterMap, sight: &Sight, node: &NodeAddr) -> Result<(), ChangeError> {
    let bound = map.nodes.get(node).copied();
    let mut given_up: Vec<Incarnation> = map.lost_disks(node).collect();
    if bound.is_none() && given_up.is_empty() {
        return Err(ChangeError::NoSuchNode);
    }
    let other = sight.connected.get(node).is_some_and(|there| bound.is_some_and(|bound| bound != Some(*there)));
    if given_up.is_empty() && other {
        // Who is there now takes the place.
        given_up.extend(bound.flatten());
        map.nodes.insert(node.clone(), None);
    } else if given_up.is_empty() {
        if sight.live.contains(node) {
            return Err(ChangeError::NotLost);
        }
        given_up.extend(bound.flatten());
        take_away(map, sight, node);
    }
    map.forgotten.extend(given_up);
    Ok(())
}

/// Takes a dead node out of everything.
fn take_away(map: &mut ClusterMap, sight: &Sight, node: &NodeAddr) {
    let last = |members: &Vec<NodeAddr>| members.len() == 1 && members[0] == *node;
    if map.layout.shards.iter().any(last) {
        map.nodes.insert(node.clone(), None);
        // Whoever takes the place is no target's business.
        if map.target.as_ref().is_some_and(|target| target.layout.shard_of(node).is_some()) {
            replan(map, sight);
        }
        return;
    }
    map.layout = map.layout.without(node);
    map.nodes.remove(node);
    map.out.remove(node);
    lose_from_target(map, sight, node);
}

#[cfg(test)]
mod tests;
