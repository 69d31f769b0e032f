//! What is lost with nodes that are given up, counted before the operator's word as far as those who are there can tell.
//!
//! Every sign of life names the writes that its node holds and no other live peer of the partition has said to hold: all of
//! them where it is alone there, else those that were there at the last look already, for what is merely on its way is not at
//! stake. Each node keeps what every incarnation has named last. Who is asked to give nodes up asks all that are there what
//! they were told and what they hold; what was told, and is held by none of them, is lost: who does not answer in time
//! counts as holding nothing. What a node took that nobody heard of, nobody can count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Machine;
use super::message::Message;
use super::part::Part;
use super::pending::Io;
use super::sign::HeldUpTo;
use crate::cluster::map::{ClusterMap, Stay};
use crate::types::{Incarnation, NodeAddr, PartitionId, Seq, StayId};

/// How long those who are there have to answer, in milliseconds.
const ANSWER_MS: u64 = 1_000;

/// The most that one node's words of what only it holds can name; of more, the lowest partitions.
const MAX_EXPOSED: usize = 4_096;

/// Up to which write of each stay something is held.
type UpTo = BTreeMap<(PartitionId, StayId), Seq>;

/// What this node knows of writes that one disk alone holds.
#[derive(Debug, Default)]
pub(super) struct Exposed {
    /// What this node holds as the only one, as far as it knows, as it says in its signs of life.
    pub own: Arc<[HeldUpTo]>,
    /// What no other live peer was known to hold, when it was looked last.
    seen: UpTo,
    /// What others have said last, by incarnation.
    others: BTreeMap<Incarnation, Arc<[HeldUpTo]>>,
}

/// A count under way.
#[derive(Clone, Debug)]
pub(super) struct Counting {
    id: u64,
    given_up: BTreeSet<Incarnation>,
    waiting: BTreeSet<NodeAddr>,
    until_ms: u64,
    told: UpTo,
    held: UpTo,
}

impl Counting {
    /// Whether all have answered, or had the time for it.
    fn is_over(&self, now_ms: u64) -> bool {
        self.waiting.is_empty() || now_ms >= self.until_ms
    }

    /// Writes that were told of, and are held by nobody who answered. What a stay wrote that the map has no more is at all
    /// peers, or was declared lost before; so is what a disk held that has no stay in the partition any more. `of_others`:
    /// without the partitions that are lost as a whole.
    fn lost(&self, map: &ClusterMap, of_others: bool) -> u64 {
        let given_up = |stay: &Stay| self.given_up.contains(&stay.incarnation);
        let open = |(partition, stay): &(PartitionId, StayId)| {
            map.rows.get(partition.0 as usize).is_some_and(|row| {
                let gone = of_others && row.is_lost_with(given_up);
                row.peers.contains_key(stay) && row.peers.values().any(given_up) && !gone
            })
        };
        let missing = |(at, told): (_, &Seq)| told.saturating_sub(self.held.get(at).copied().unwrap_or(0));
        self.told.iter().filter(|(at, _)| open(at)).map(missing).fold(0, u64::saturating_add)
    }

    fn take(&mut self, told: &[HeldUpTo], held: &[HeldUpTo]) {
        join(&mut self.told, told);
        join(&mut self.held, held);
    }
}

fn join(all: &mut UpTo, more: &[HeldUpTo]) {
    for &HeldUpTo { partition, stay, seq } in more {
        let known = all.entry((partition, stay)).or_default();
        *known = seq.max(*known);
    }
}

impl Machine {
    /// Looks what this node alone holds, for its next signs of life.
    pub(super) fn look_for_exposed(&mut self) {
        let mut seen = UpTo::new();
        let mut own = Vec::new();
        for (partition, part) in self.partitions().zip(&self.parts) {
            let Some(replica) = part.replica.as_ref().filter(|_| part.own_stays().next().is_some()) else { continue };
            let others = || part.peers.iter().filter(|peer| !peer.own && !peer.lost && self.lives(peer));
            let alone = others().next().is_none();
            for stay in part.peers.iter().map(|peer| peer.stay) {
                let here = replica.durable.get(stay);
                let there = others().map(|peer| part.words.durable(peer.stay, stay)).max().unwrap_or(0);
                if here <= there {
                    continue;
                }
                seen.insert((partition, stay), here);
                let before = self.exposed.seen.get(&(partition, stay)).copied().unwrap_or(0);
                let seq = if alone { here } else { here.min(before) };
                if seq > there {
                    own.push(HeldUpTo { partition, stay, seq });
                }
            }
        }
        own.truncate(MAX_EXPOSED);
        self.exposed.seen = seen;
        self.exposed.own = own.into();
    }

    /// Keeps what a node says that it holds alone, for when it is gone.
    pub(super) fn keep_exposed(&mut self, incarnation: Incarnation, exposed: &Arc<[HeldUpTo]>) {
        let map = &self.map;
        let there = |named: &HeldUpTo| (named.partition.0 as usize) < map.rows.len();
        if exposed.is_empty() {
            self.exposed.others.remove(&incarnation);
        } else if exposed.len() <= MAX_EXPOSED && exposed.iter().all(there) {
            self.exposed.others.insert(incarnation, Arc::clone(exposed));
        }
        self.exposed.others.retain(|known, _| {
            map.former.contains_key(known) || map.nodes.values().any(|there| *there == Some(*known))
        });
    }

    /// Begins to count what is lost with these incarnations, for a change that has so long.
    pub(super) fn begin_count(&mut self, given_up: BTreeSet<Incarnation>, budget_ms: u64, io: &mut Io<'_>) -> Counting {
        let (id, until_ms) = (self.fresh_id(), self.now.mono_ms + ANSWER_MS.min(budget_ms / 2));
        let there = self.present().into_iter().filter(|(_, there)| !given_up.contains(there));
        let waiting: BTreeSet<_> = there.map(|(node, _)| node).filter(|node| *node != self.config.address).collect();
        for node in &waiting {
            let incarnations = given_up.iter().copied().collect();
            self.send(node, Message::LossAsked { id, incarnations }, io);
        }
        let mut counting = Counting { id, given_up, waiting, until_ms, told: UpTo::new(), held: UpTo::new() };
        let (told, held) = self.told_and_held(&counting.given_up);
        counting.take(&told, &held);
        counting
    }

    /// What the nodes of these incarnations have told that they hold, and what this node holds of the partitions that they
    /// have stays of.
    fn told_and_held(&self, given_up: &BTreeSet<Incarnation>) -> (Vec<HeldUpTo>, Vec<HeldUpTo>) {
        let named = given_up.iter().filter_map(|incarnation| self.exposed.others.get(incarnation));
        let mut told: Vec<HeldUpTo> = named.flat_map(|exposed| exposed.iter().copied()).collect();
        let mut held = Vec::new();
        for (partition, part) in self.partitions().zip(&self.parts) {
            let theirs: Vec<StayId> =
                part.peers.iter().filter(|peer| given_up.contains(&peer.incarnation)).map(|peer| peer.stay).collect();
            if theirs.is_empty() {
                continue;
            }
            for stay in part.peers.iter().map(|peer| peer.stay) {
                let up_to = |seq: Seq| HeldUpTo { partition, stay, seq };
                let here = self.held_here(part, given_up, stay);
                held.extend((here > 0).then(|| up_to(here)));
                let said = theirs.iter().map(|peer| part.words.durable(*peer, stay)).max().unwrap_or(0);
                told.extend((said > here).then(|| up_to(said)));
            }
        }
        (told, held)
    }

    fn held_here(&self, part: &Part, given_up: &BTreeSet<Incarnation>, stay: StayId) -> Seq {
        let holds = !given_up.contains(&self.incarnation) && part.own_stays().any(|own| !own.lost);
        part.replica.as_ref().filter(|_| holds).map_or(0, |replica| replica.durable.get(stay))
    }

    pub(super) fn on_loss_asked(&mut self, from: &NodeAddr, id: u64, given_up: &[Incarnation], io: &mut Io<'_>) {
        let (told, held) = self.told_and_held(&given_up.iter().copied().collect());
        self.send(from, Message::LossTold { id, told, held }, io);
    }

    pub(super) fn on_loss_told(&mut self, from: &NodeAddr, id: u64, told: &[HeldUpTo], held: &[HeldUpTo]) {
        let mut counts = self.changes.iter_mut().filter_map(|changing| changing.counting.as_mut());
        // Each is heard once.
        if let Some(counting) = counts.find(|counting| counting.id == id)
            && counting.waiting.remove(from)
        {
            counting.take(told, held);
        }
    }

    /// The writes that are lost, when the count is over; `of_others`: without the partitions that are lost as a whole.
    pub(super) fn counted(&self, counting: &Counting, of_others: bool) -> Option<u64> {
        counting.is_over(self.now.mono_ms).then(|| counting.lost(&self.map, of_others))
    }
}
