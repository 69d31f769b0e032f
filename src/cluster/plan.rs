//! Plans: from where nodes and partitions are to a layout that an operator, or a node that is out of reach, asks for.
//!
//! A pure function of map, live nodes and request, the same at every node. A layout spreads the live nodes, those in no
//! shard among them, over the shards so that each has at least two and sizes are within one of each other, and the
//! partitions so that their counts are within one of even. Nodes that are not live, or that the operator took out, are
//! in no shard of a plan.
//!
//! **Fewest moves.** A shard of the new layout may continue one of the old: its live nodes and its partitions then stay
//! where they are, up to the new size. A node moves when it was in a shard and is not in the one that continues it; so
//! does a partition. Of all layouts within the bounds, a plan moves the fewest nodes; of those, the fewest partitions.
//! Both are counted apart: what a set of continued shards keeps of either is the sum of `min(size, even share)`, plus
//! one for each larger shard that gets one of the larger shares. So it is enough to continue those shards that keep
//! most nodes, ties broken by partitions: a greedy choice is best, the sets within the bounds being the bases of a
//! matroid (`survivors`).
//!
//! **A partition without a live Serving peer** can't be moved: nobody could be filled. A plan that would change who
//! holds it is refused. Where the operator's word has given up all that was held, there is nothing to move.
//!
//! Deliberately absent: what a plan does to peers. It is a wish, and reconciliation its only servant.

use std::collections::{BTreeMap, BTreeSet};

use super::map::{ClusterMap, Layout};
use crate::types::{NodeAddr, PartitionId, ShardId};

/// What a layout is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// This many shards, nodes and partitions spread evenly; today's count spreads them again.
    Reshard(u32),
    /// This node in this shard, partitions as they are.
    AddMember {
        /// The shard.
        shard: ShardId,
        /// The node; in the view, and in no other shard.
        node: NodeAddr,
    },
    /// This node in no shard, partitions as they are.
    Remove {
        /// The node; in the view.
        node: NodeAddr,
    },
    /// As many shards as the layout wanted has, from there, without those that are not live.
    Replan,
}

/// Why there is no such layout. Nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A count of 0, or fewer than two live nodes a shard.
    #[error("Not enough nodes to provide fault-tolerance with the given shard count!")]
    NotEnoughNodes,
    /// More shards than partitions.
    #[error("Not enough nodes to provide fault-tolerance with the given shard count!")]
    TooManyShards,
    /// This partition would move, and nobody live serves it.
    #[error("Shard is unavailable; try again later")]
    ShardUnavailable(PartitionId),
    /// There is no such shard.
    #[error("Shard ID does not exist; ask for the shard ids")]
    NoSuchShard,
    /// The node is not in the view.
    #[error("Socket address does not exist in the view; start the node, or add it to the view first")]
    NodeNotInView,
    /// The node belongs to this other shard.
    #[error("The node already belongs to shard {0}; remove it from the view, or reshard")]
    NodeInAnotherShard(ShardId),
    /// The node belongs to that very shard: there is nothing to do.
    #[error("The node is a member of that shard already")]
    AlreadyMember,
    /// Nobody else that is live holds the keys of this shard.
    #[error("The node is the last live one that holds keys of shard {0}; add another member to it first")]
    LastHolder(ShardId),
}

/// The layout that `request` leads to, from the layout in force (for [`Request::Replan`], from the one wanted).
///
/// `live`: the nodes that are not suspected; of these, those that the map binds and the operator has not taken out make
/// up the view. The layout may equal the present one.
///
/// # Errors
/// [`PlanError`]; the same at every node that has the same map and view.
pub fn plan(map: &ClusterMap, live: &BTreeSet<NodeAddr>, request: &Request) -> Result<Layout, PlanError> {
    let there = |node: &&NodeAddr| live.contains(*node) && map.nodes[*node].is_some();
    let plan = Plan { map, view: map.present().filter(there).collect() };
    match request {
        Request::Reshard(count) => plan.spread(&map.layout, *count),
        Request::Replan => {
            let wanted = map.wanted_layout();
            plan.spread(wanted, wanted.shards.len() as u32)
        }
        Request::AddMember { shard, node } => plan.add(*shard, node),
        Request::Remove { node } => plan.remove(node),
    }
}

struct Plan<'a> {
    map: &'a ClusterMap,
    view: BTreeSet<&'a NodeAddr>,
}

/// A shard of the old layout, as far as it is live.
struct Old<'a> {
    id: u32,
    /// Those with the most of its partitions first: who moves is taken from the end.
    nodes: Vec<&'a NodeAddr>,
    /// Those that can't move first.
    partitions: Vec<PartitionId>,
}

impl<'a> Plan<'a> {
    fn add(&self, shard: ShardId, node: &NodeAddr) -> Result<Layout, PlanError> {
        let mut layout = self.map.layout.clone();
        let index = (shard.0 as usize).checked_sub(1).filter(|index| *index < layout.shards.len());
        let index = index.ok_or(PlanError::NoSuchShard)?;
        if !self.view.contains(node) {
            return Err(PlanError::NodeNotInView);
        }
        match layout.shard_of(node) {
            Some(same) if same == shard => return Err(PlanError::AlreadyMember),
            Some(other) => return Err(PlanError::NodeInAnotherShard(other)),
            None => {}
        }
        layout.shards[index].push(node.clone());
        layout.shards[index].sort();
        self.check_movable(&layout)?;
        Ok(layout)
    }

    fn remove(&self, node: &NodeAddr) -> Result<Layout, PlanError> {
        if !self.view.contains(node) {
            return Err(PlanError::NodeNotInView);
        }
        let layout = &self.map.layout;
        if let Some(shard) = layout.shard_of(node) {
            let members = layout.members(shard).unwrap_or_default();
            if !members.iter().any(|other| other != node && self.view.contains(other)) {
                return Err(PlanError::LastHolder(shard));
            }
        }
        for (at, shard) in layout.partitions.iter().enumerate() {
            let servers = self.servers(PartitionId(at as u32));
            if servers.contains(node) && servers.len() == 1 {
                return Err(PlanError::LastHolder(*shard));
            }
        }
        Ok(layout.without(node))
    }

    fn spread(&self, base: &Layout, count: u32) -> Result<Layout, PlanError> {
        if count == 0 || self.view.len() < 2 * count as usize {
            return Err(PlanError::NotEnoughNodes);
        }
        if count > self.map.partitions() {
            return Err(PlanError::TooManyShards);
        }
        let old = self.old_shards(base);
        let (even, larger) = shares(self.view.len(), count);
        let chosen = survivors(&old, even, larger, count as usize);
        let kept = numbered(&old, &chosen, count);
        let shards = self.spread_nodes(&kept);
        let partitions = spread_partitions(&kept, self.map.partitions());
        let layout = Layout { shards, partitions };
        self.check_movable(&layout)?;
        Ok(layout)
    }

    fn old_shards(&self, base: &'a Layout) -> Vec<Old<'a>> {
        let mut old: Vec<Old<'_>> = (1..)
            .zip(&base.shards)
            .map(|(id, nodes)| Old {
                id,
                nodes: nodes.iter().filter(|node| self.view.contains(node)).collect(),
                partitions: Vec::new(),
            })
            .collect();
        let mut held: BTreeMap<(&NodeAddr, ShardId), usize> = BTreeMap::new();
        for (at, shard) in base.partitions.iter().enumerate() {
            let partition = PartitionId(at as u32);
            old[shard.0 as usize - 1].partitions.push(partition);
            for node in self.servers(partition) {
                *held.entry((node, *shard)).or_default() += 1;
            }
        }
        for shard in &mut old {
            let has = |node: &NodeAddr| held.get(&(node, ShardId(shard.id))).copied().unwrap_or(0);
            shard.nodes.sort_by_key(|node| (usize::MAX - has(node), *node));
            shard.partitions.sort_by_key(|partition| (!self.is_stuck(*partition), *partition));
        }
        old
    }

    /// The nodes of the view that serve a partition.
    fn servers(&self, partition: PartitionId) -> BTreeSet<&'a NodeAddr> {
        let serving = self.map.row(partition).peers.values().filter(|stay| stay.serves());
        serving
            .filter_map(|stay| self.map.address_of(stay.incarnation))
            .filter(|node| self.view.contains(node))
            .collect()
    }

    /// True for a partition that has something to lose and nobody live to get it from.
    fn is_stuck(&self, partition: PartitionId) -> bool {
        let peers = &self.map.row(partition).peers;
        // A peer that is being filled holds nothing of its own.
        let given_up = !peers.values().any(|stay| stay.serves())
            && peers.values().filter(|stay| !stay.is_joining()).all(|stay| stay.lost);
        !given_up && self.servers(partition).is_empty()
    }

    fn check_movable(&self, layout: &Layout) -> Result<(), PlanError> {
        for at in 0..self.map.partitions() {
            let partition = PartitionId(at);
            let then = layout.members(layout.partitions[at as usize]).unwrap_or_default();
            if then != self.map.wanted(partition) && self.is_stuck(partition) {
                return Err(PlanError::ShardUnavailable(partition));
            }
        }
        Ok(())
    }

    /// The nodes of each shard: those that stay, and then all others of the view in turn where one is missing.
    fn spread_nodes(&self, kept: &[Option<&Old<'a>>]) -> Vec<Vec<NodeAddr>> {
        let sizes = sizes(self.view.len(), kept.iter().map(|old| old.map_or(0, |old| old.nodes.len())));
        let mut staying: Vec<Vec<&NodeAddr>> = Vec::new();
        for (old, size) in kept.iter().zip(&sizes) {
            staying.push(old.iter().flat_map(|old| &old.nodes).take(*size).copied().collect());
        }
        let placed: BTreeSet<&NodeAddr> = staying.iter().flatten().copied().collect();
        let mut others = self.view.difference(&placed).copied();
        for (nodes, size) in staying.iter_mut().zip(&sizes) {
            nodes.extend(others.by_ref().take(size - nodes.len()));
            nodes.sort();
        }
        staying.into_iter().map(|nodes| nodes.into_iter().cloned().collect()).collect()
    }
}

/// The shard of each partition: those that stay, and then all others in turn where one is missing.
fn spread_partitions(kept: &[Option<&Old<'_>>], partitions: u32) -> Vec<ShardId> {
    let sizes = sizes(partitions as usize, kept.iter().map(|old| old.map_or(0, |old| old.partitions.len())));
    let mut shards: Vec<Option<ShardId>> = vec![None; partitions as usize];
    let mut missing = Vec::new();
    for ((id, old), size) in (1..).map(ShardId).zip(kept).zip(&sizes) {
        let staying = old.iter().flat_map(|old| &old.partitions).take(*size);
        let before = missing.len();
        missing.resize(before + size, id);
        for partition in staying {
            shards[partition.0 as usize] = Some(id);
            missing.pop();
        }
    }
    let mut missing = missing.into_iter();
    let filled = shards.into_iter().map(|shard| shard.or_else(|| missing.next()));
    filled.map(|shard| shard.expect("sizes sum up to the partitions")).collect()
}

/// The even share of each of `count`, and how many get one more.
fn shares(total: usize, count: u32) -> (usize, usize) {
    (total / count as usize, total % count as usize)
}

/// The new size of each shard, given how much it has: the larger shares go to those that have more than the even one,
/// and then to the first.
fn sizes(total: usize, has: impl Iterator<Item = usize> + Clone) -> Vec<usize> {
    let (even, larger) = shares(total, has.clone().count() as u32);
    let mut order: Vec<(bool, usize)> = has.enumerate().map(|(at, has)| (has <= even, at)).collect();
    order.sort_unstable();
    let mut sizes = vec![even; order.len()];
    for (_, at) in order.into_iter().take(larger) {
        sizes[at] += 1;
    }
    sizes
}

/// Which old shards are continued, by index: as many as can be, those that keep most nodes, and of these choices the
/// one that keeps most partitions; then the lowest ids.
///
/// What a choice keeps is Σ min(nodes, even) + min(`larger`, how many have more than `even`). Greedy by the first term;
/// among those that have `even` or more any may be taken, as long as enough have more: at most `plain` may not.
fn survivors(old: &[Old<'_>], even: usize, larger: usize, count: usize) -> Vec<usize> {
    let chosen = count.min(old.len());
    let exceeds = |at: usize| old[at].nodes.len() > even;
    let more = (0..old.len()).filter(|at| exceeds(*at)).count();
    let mut plain = chosen - larger.min(more).min(chosen);
    let mut order: Vec<usize> = (0..old.len()).collect();
    order.sort_by_key(|at| {
        let old = &old[*at];
        (usize::MAX - old.nodes.len().min(even), usize::MAX - old.partitions.len(), old.id)
    });
    let mut taken = Vec::new();
    for at in order {
        if taken.len() < chosen && (exceeds(at) || plain > 0) {
            plain -= usize::from(!exceeds(at));
            taken.push(at);
        }
    }
    taken
}

/// New shard `i + 1` → the old one that it continues. Whose id is still there keeps it; the others get what is left.
fn numbered<'a, 'b>(old: &'b [Old<'a>], chosen: &[usize], count: u32) -> Vec<Option<&'b Old<'a>>> {
    let mut kept = vec![None; count as usize];
    let (stay, renamed): (Vec<usize>, Vec<usize>) = chosen.iter().partition(|at| old[**at].id <= count);
    for at in stay {
        kept[old[at].id as usize - 1] = Some(&old[at]);
    }
    let mut renamed: Vec<&Old<'_>> = renamed.into_iter().map(|at| &old[at]).collect();
    renamed.sort_by_key(|old| old.id);
    for (place, old) in kept.iter_mut().filter(|place| place.is_none()).zip(renamed) {
        *place = Some(old);
    }
    kept
}

#[cfg(test)]
mod tests;
