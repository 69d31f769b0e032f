//! Maps told from node to node: as differences where the other has the map that they begin from, else whole.
//!
//! Who decides a map tells everybody, unasked, what leads to it from the map that each was last heard to have. Whoever
//! that does not help asks with the epoch and the hash of the newest map it has, and so does who hears of a newer epoch
//! in a ping; the answer is what leads on from that very map, or else the whole one. So no difference can mislead, and
//! to have none is never worse than slow.

use std::sync::Arc;

use super::message::Message;
use super::{Io, Machine};
use crate::cluster::delta::{MapDelta, follow};
use crate::cluster::map::ClusterMap;
use crate::types::{Epoch, NodeAddr};

/// The shortest pause between two asks for, or two gifts of, the same map to one node, in milliseconds.
const MAP_PAUSE_MS: u64 = 100;

/// Maps on their way to and from one other node, each with when that was, in monotonic milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Exchange {
    /// The epoch here when it was last asked for its map.
    pulled: Option<(Epoch, u64)>,
    /// The epoch here when it was last told unasked.
    pushed: Option<(Epoch, u64)>,
    /// What it last asked with, and the epoch that it was given.
    given: Option<((Epoch, u64), Epoch, u64)>,
}

impl Machine {
    /// Asks a node for its newer map: at once when it is news that there is one, else again after a pause.
    pub(super) fn pull_map(&mut self, from: &NodeAddr, io: &mut Io<'_>) {
        let (now, newest) = (self.now.mono_ms, self.newest_map().clone());
        let Some(link) = self.links.get_mut(from) else { return };
        if link.maps.pulled.is_none_or(|(epoch, last)| epoch < newest.epoch || now >= last + MAP_PAUSE_MS) {
            link.maps.pulled = Some((newest.epoch, now));
            self.send(from, Message::MapPull { have: newest.epoch, hash: newest.hash() }, io);
        }
    }

    /// Tells a node of this node's map, unasked: at once when it is a new one, else again after a pause.
    pub(super) fn push_map(&mut self, to: &NodeAddr, io: &mut Io<'_>) {
        let (now, epoch) = (self.now.mono_ms, self.map.epoch);
        let Some(link) = self.links.get_mut(to).filter(|_| self.map.is_born()) else { return };
        if link.maps.pushed.is_none_or(|(before, last)| before < epoch || now >= last + MAP_PAUSE_MS) {
            link.maps.pushed = Some((epoch, now));
            // What it last said may be of a former process, and is old in any case: who can't use this asks.
            let base = link.epoch.min(Epoch(epoch.0 - 1));
            let chain = self.history.since(base, None);
            self.send_map(to, chain, io);
        }
    }

    /// Tells everybody of the next map, decided here just now. It need not be durable here first: it is decided, whatever
    /// becomes of this node. So all come to act under it at nearly the same time, and the writes to its rows wait less for
    /// the others' first words.
    pub(super) fn tell_decided(&mut self, next: &Arc<ClusterMap>, io: &mut Io<'_>) {
        let (now, epoch) = (self.now.mono_ms, self.map.epoch);
        if !self.map.is_born() || next.epoch != Epoch(epoch.0 + 1) {
            return;
        }
        let last = Arc::new(MapDelta::between(&self.map, next));
        let told: Vec<(NodeAddr, Epoch)> = self.links.iter().map(|(node, link)| (node.clone(), link.epoch)).collect();
        for (node, known) in told {
            let chain = if known >= epoch { Some(Vec::new()) } else { self.history.since(known, None) };
            let chain = chain.map(|chain| chain.into_iter().chain([last.clone()]).collect());
            self.send(&node, chain.map_or_else(|| Message::MapPush(next.clone()), Message::MapDeltas), io);
            if let Some(link) = self.links.get_mut(&node) {
                link.maps.pushed = Some((next.epoch, now));
            }
        }
    }

    /// Gives a node that asked with the newest map it has what leads on from there; the same once in a while.
    pub(super) fn give_map(&mut self, to: &NodeAddr, have: Epoch, hash: u64, io: &mut Io<'_>) {
        let (now, epoch) = (self.now.mono_ms, self.map.epoch);
        let Some(link) = self.links.get_mut(to).filter(|_| have < epoch) else { return };
        let again = |(asked, given, last)| asked == (have, hash) && given == epoch && now < last + MAP_PAUSE_MS;
        if !link.maps.given.is_some_and(again) {
            link.maps.given = Some(((have, hash), epoch, now));
            let chain = self.history.since(have, Some(hash));
            self.send_map(to, chain, io);
        }
    }

    fn send_map(&self, to: &NodeAddr, chain: Option<Vec<Arc<MapDelta>>>, io: &mut Io<'_>) {
        let whole = || Message::MapPush(self.map.clone());
        self.send(to, chain.map_or_else(whole, Message::MapDeltas), io);
    }

    /// Goes on from the newest map here; what does not lead on from it is asked for anew.
    pub(super) fn on_deltas(&mut self, from: &NodeAddr, chain: &[Arc<MapDelta>], io: &mut Io<'_>) {
        match follow(self.newest_map(), chain) {
            Ok(Some(map)) => {
                self.compare_asks_on_the_way(chain);
                self.learn(Arc::new(map), io);
            }
            Ok(None) => {}
            Err(_) => self.pull_map(from, io),
        }
    }

    /// What was asked of this node's newest map is in the very next one or not done, which is not the last of a chain.
    fn compare_asks_on_the_way(&mut self, chain: &[Arc<MapDelta>]) {
        let newest = self.newest_map();
        let first = chain.iter().find(|delta| delta.epoch().0 == newest.epoch.0 + 1);
        if let Some(map) = first.and_then(|delta| delta.apply(newest).ok()) {
            self.compare_asks(&map);
        }
    }
}
