//! Where the change of the layout that runs stands, or where the last one ended: watched map by map, kept in memory.
//!
//! A target that comes into the map is a beginning, one that goes is an end: done when the layout in force is what was
//! aimed at, cancelled otherwise. What there is to do is every partition on a node that is wanted for it and did not
//! serve it at the beginning; it is done where that node serves. A plan that is made anew on the way is the same
//! change with another aim.
//!
//! Keys and bytes are those of the partitions that this node serves; of the others it takes the mean of what all that
//! are there say to serve, as keys spread evenly. Nothing here has any influence on what happens.

use std::collections::{BTreeMap, BTreeSet};

use super::message::Effect;
use super::part::Part;
use super::sign::Served;
use super::status::{ReshardState, ReshardStatus};
use super::{Io, Machine};
use crate::cluster::map::{ClusterMap, Layout, PeerState};
use crate::types::{Incarnation, NodeAddr, PartitionId};

/// How often the log is told how far a change is, in milliseconds.
const LOG_MS: u64 = 5_000;

/// What is known of changes of the layout.
#[derive(Debug, Default)]
pub(super) struct Progress {
    running: Option<Running>,
    last: Option<ReshardStatus>,
    /// What the log was told last, and when.
    logged: Option<(ReshardStatus, u64)>,
}

/// A change that is under way.
#[derive(Debug)]
struct Running {
    began_ms: u64,
    /// The nodes that served each partition at the beginning.
    before: Vec<BTreeSet<NodeAddr>>,
    aim: Layout,
}

/// For the log: one line.
fn in_words(status: &ReshardStatus) -> String {
    let state = match status.state {
        ReshardState::None => "none",
        ReshardState::Running => "under way",
        ReshardState::Done => "done",
        ReshardState::Cancelled => "cancelled",
    };
    let mut text = format!(
        "change of the shards, {} in all: {state} after {:.1} s; {} of {} partitions moved, {} joining; {} of {} keys, \
         {} of {} bytes copied",
        status.shards,
        status.elapsed_ms as f64 / 1_000.0,
        status.moved,
        status.to_move,
        status.joining,
        status.keys.0,
        status.keys.1,
        status.bytes.0,
        status.bytes.1,
    );
    if !status.waiting_for.is_empty() {
        let names: Vec<_> = status.waiting_for.iter().map(NodeAddr::as_str).collect();
        text += &format!("; waiting for {}", names.join(", "));
    }
    text
}

/// What is copied and what is to be copied, with `size` at so many nodes of so many more. What others say of sizes may be
/// anything.
fn more((done, all): (u64, u64), size: u64, copied: usize, to_copy: usize) -> (u64, u64) {
    let with = |sum: u64, nodes: usize| sum.saturating_add(size.saturating_mul(nodes as u64));
    (with(done, copied), with(all, to_copy))
}

/// Who serves and who joins each partition, by address.
struct Peers<'a> {
    map: &'a ClusterMap,
    addresses: BTreeMap<Incarnation, &'a NodeAddr>,
}

impl<'a> Peers<'a> {
    fn of(map: &'a ClusterMap) -> Self {
        let addresses = map.nodes.iter().filter_map(|(node, bound)| Some(((*bound)?, node))).collect();
        Self { map, addresses }
    }

    fn in_state(&self, partition: PartitionId, state: PeerState) -> BTreeSet<&'a NodeAddr> {
        let stays = self.map.row(partition).peers.values().filter(|stay| stay.state == state);
        stays.filter_map(|stay| self.addresses.get(&stay.incarnation).copied()).collect()
    }
}

impl Machine {
    /// Takes note of a map that is acted under.
    pub(super) fn watch_target(&mut self) {
        let map = self.map.clone();
        match (&map.target, self.progress.running.take()) {
            (Some(target), Some(running)) => {
                self.progress.running = Some(Running { aim: target.layout.clone(), ..running });
            }
            (Some(target), None) => {
                let peers = Peers::of(&map);
                let serving = |partition| peers.in_state(partition, PeerState::Serving).into_iter().cloned().collect();
                let before = self.partitions().map(serving).collect();
                self.progress.running =
                    Some(Running { began_ms: self.now.mono_ms, before, aim: target.layout.clone() });
            }
            (None, Some(running)) => {
                let done = map.layout == running.aim;
                let state = if done { ReshardState::Done } else { ReshardState::Cancelled };
                self.progress.last = Some(self.measure(&running, state, self.now.mono_ms));
            }
            (None, None) => {}
        }
    }

    /// Where the running change of the layout stands, or how the last one since this process began has ended.
    pub(super) fn progress_at(&self, mono_ms: u64) -> ReshardStatus {
        match (&self.progress.running, &self.progress.last) {
            (Some(running), _) => self.measure(running, ReshardState::Running, mono_ms),
            (None, Some(last)) => last.clone(),
            (None, None) => ReshardStatus::none(&self.map),
        }
    }

    /// Tells the log that a change has begun, where it stands every few seconds, and how it ended.
    pub(super) fn log_progress(&mut self, io: &mut Io<'_>) {
        let now = self.now.mono_ms;
        let status = self.progress_at(now);
        let before = self.progress.logged.as_ref();
        let due = match (status.state, before) {
            (ReshardState::None, _) => false,
            (ReshardState::Running, Some((before, told_ms))) if before.state == ReshardState::Running => {
                let same = ReshardStatus { elapsed_ms: before.elapsed_ms, ..status.clone() } == *before;
                now >= told_ms + LOG_MS && !same
            }
            (_, before) => before.is_none_or(|(before, _)| *before != status),
        };
        if due {
            io.effects.push(Effect::Note(in_words(&status)));
            self.progress.logged = Some((status, now));
        }
    }

    /// A number that changes while a fill of a joining peer here gets on.
    pub(super) fn filling_steps(&self) -> u64 {
        let joins = |part: &&Part| part.own_stays().any(|own| own.state == PeerState::Joining);
        self.parts.iter().filter(joins).map(|part| part.filled_steps).fold(0, u64::wrapping_add)
    }

    fn measure(&self, running: &Running, state: ReshardState, mono_ms: u64) -> ReshardStatus {
        let peers = Peers::of(&self.map);
        let mean = self.mean_size();
        let mut status = ReshardStatus {
            state,
            shards: running.aim.shards.len() as u32,
            elapsed_ms: mono_ms.saturating_sub(running.began_ms),
            ..ReshardStatus::none(&self.map)
        };
        let mut waiting_for = BTreeSet::new();
        for (partition, before) in self.partitions().zip(&running.before) {
            let wanted = running.aim.partitions.get(partition.0 as usize).and_then(|shard| running.aim.members(*shard));
            let new: Vec<&NodeAddr> = wanted.into_iter().flatten().filter(|node| !before.contains(*node)).collect();
            if new.is_empty() {
                continue;
            }
            let serving = peers.in_state(partition, PeerState::Serving);
            let joining = peers.in_state(partition, PeerState::Joining);
            let (copied, to_copy) = (new.iter().filter(|node| serving.contains(**node)).count(), new.len());
            let (keys, bytes) = self.size_of(partition).unwrap_or(mean);
            status.to_move += 1;
            status.moved += u32::from(copied == to_copy);
            status.joining += u32::from(new.iter().any(|node| joining.contains(*node)));
            status.keys = more(status.keys, keys, copied, to_copy);
            status.bytes = more(status.bytes, bytes, copied, to_copy);
            waiting_for.extend(new.into_iter().filter(|node| !serving.contains(*node) && !self.is_live(node)).cloned());
        }
        if state == ReshardState::Running {
            let silent = self.silent_voters();
            // Without a majority nothing gets on.
            if silent.len() * 2 >= self.map.voters.len() {
                waiting_for.extend(silent);
            }
            status.waiting_for = waiting_for.into_iter().collect();
        }
        status
    }

    /// Keys with a value, and bytes, of a partition that this node serves.
    fn size_of(&self, partition: PartitionId) -> Option<(u64, u64)> {
        let part = self.part(partition);
        part.own_serving()?;
        part.replica.as_ref().map(|replica| (replica.keys, replica.bytes))
    }

    /// What this node serves in all.
    pub(super) fn served(&self) -> Served {
        let mut served = Served::default();
        for (keys, bytes) in self.partitions().filter_map(|partition| self.size_of(partition)) {
            served.add(Served { partitions: 1, keys, bytes });
        }
        served
    }

    /// Keys and bytes of a partition, as all that are there have them on average.
    fn mean_size(&self) -> (u64, u64) {
        let mut all = self.served();
        let live = self.links.iter().filter(|(node, _)| self.is_live(node));
        live.for_each(|(_, link)| all.add(link.served));
        let mean = |of: u64| of.checked_div(all.partitions).unwrap_or(0);
        (mean(all.keys), mean(all.bytes))
    }
}
