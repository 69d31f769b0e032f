//! What the oracle learns by looking over the nodes' shoulders: their batches, their messages, their items.

use bytes::Bytes;
use entail::causal::item::Item;
use entail::cluster::map::ClusterMap;
use entail::cluster::paxos::PaxosMessage;
use entail::machine::message::{Effect, Message, Response};
use entail::machine::records;
use entail::store::Read;
use entail::types::{Dot, Epoch, PartitionId};

use crate::disk::Change;
use crate::holdings::{Closing, Fact};
use crate::invariants::{self, acknowledged, dots, tombstones};
use crate::oracle::{Shown, VersionId};
use crate::world::World;

/// What an answer was given from, as it is found before the oracle knows all of it.
#[derive(Clone, Debug)]
pub enum Glimpse {
    /// This node, or the one whose answer it passes on, counted the copies of a write.
    Counted {
        /// What it wrote.
        partition: PartitionId,
        /// Its name.
        dot: Dot,
        /// The version of the row here; unknown of an answer that has waited for a connection.
        under: Option<Epoch>,
        /// What it answered.
        copies: u32,
    },
    /// Another node gave the answer.
    PassedOn(Shown),
    /// This node did.
    Here {
        /// The key's index.
        key: usize,
        /// What the store had for it before the step, and what it has after.
        stored: [Option<Item>; 2],
        /// What it answered.
        value: Option<Bytes>,
    },
}

/// The write that a value names: a put's value is the JSON text `"w17"`, with some filling after the number.
pub fn write_of(value: &[u8]) -> Option<usize> {
    let text = value.strip_prefix(b"\"w")?;
    let digits = text.iter().position(|c| !c.is_ascii_digit())?;
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

impl World {
    /// Learns what a node's store took since the last time.
    pub fn learn(&mut self, n: usize) {
        for (number, changes) in self.nodes[n].disk.take_changed() {
            let mut facts = Vec::new();
            // Whether a replica was dropped comes before what became of its items.
            let (records, others): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.key[0] == b'p');
            for change in records.into_iter().chain(others) {
                self.learn_change(n, &change, &mut facts);
            }
            self.oracle.holdings[n].applied(number, facts);
        }
    }

    fn learn_change(&mut self, n: usize, change: &Change, facts: &mut Vec<Fact>) {
        let Some(partition) = change.key.get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes) else {
            return;
        };
        let partition = PartitionId(partition);
        match (change.key[0], &change.old, &change.new) {
            (b'p', _, Some(new)) => {
                let record: records::ReplicaRecord = records::decode("a replica", new).expect("just written");
                let before = &self.oracle.holdings[n].now[partition.0 as usize];
                if !before.held_for.is_empty() && !record.held_for.iter().any(|stay| before.held_for.contains(stay)) {
                    self.oracle.coverage.hit("replicas: dropped");
                    facts.push(Fact::Dropped(partition, self.closing(n, partition)));
                } else if record.floor > before.floor {
                    self.oracle.coverage.hit("tombstones: floor raised");
                }
                facts.push(Fact::Replica(partition, record));
            }
            (b'p', _, None) => facts.push(Fact::Dropped(partition, self.closing(n, partition))),
            (b'l', None, Some(new)) => {
                let op = records::decode_op(new).expect("just written");
                if let Some(version) = self.learn_write(n, partition, &op) {
                    facts.push(Fact::Born(version));
                }
            }
            (b'l', Some(_), None) => self.oracle.coverage.hit("log: truncated"),
            (b'f', None, Some(_)) => self.oracle.coverage.hit("fill: part kept aside"),
            // What is left of a dropped replica, or of one that is to be filled anew.
            (b'i', Some(_), None) if self.is_dropping(n, partition, facts) => {}
            (b'i', old, new) => self.learn_item(n, partition, &change.key, (old, new), facts),
            _ => {}
        }
    }

    /// The map that left a node's replica without a stay: the first that the node's own map comes after without one that
    /// names any.
    fn closing(&self, n: usize, partition: PartitionId) -> Closing {
        let own = self.machine(n).map();
        let held_for = &self.oracle.holdings[n].now[partition.0 as usize].held_for;
        let names = |map: &ClusterMap| {
            let peers = &map.row(partition).peers;
            held_for.iter().any(|stay| peers.get(stay).is_some_and(|peer| !peer.lost))
        };
        let before = self.maps.range(..own.epoch).rev().map(|(_, map)| map);
        let map = before.take_while(|map| !names(map)).last().unwrap_or(own);
        let wanted = map.wanted(partition).iter().filter(|node| !map.out.contains(*node)).count() as u32;
        let mut since = self.maps.range(map.epoch..=own.epoch).map(|(_, map)| map.row(partition));
        let begun = since.any(|row| row.peers.values().any(|peer| peer.begun_empty >= Some(map.epoch)));
        let serving = map.row(partition).peers.values().filter(|peer| peer.serves()).map(|peer| peer.incarnation);
        let serving = serving.filter(|incarnation| map.address_of(*incarnation).is_some()).collect();
        // One that was accepted may be decided long after, by those who find it; no Accept is sent where a voter is alone.
        let proposed_ms = self.proposed_ms.get(&map.hash()).or_else(|| self.map_ms.get(&map.epoch));
        let at_ms = proposed_ms.copied().unwrap_or(self.now);
        Closing { version: map.row(partition).version, at_ms, wanted, serving, begun }
    }

    fn is_dropping(&self, n: usize, partition: PartitionId, facts: &[Fact]) -> bool {
        let mut dropped = facts.iter().filter(|fact| matches!(fact, Fact::Dropped(p, _) if *p == partition));
        let held = &self.oracle.holdings[n].now[partition.0 as usize];
        dropped.next().is_some() || held.held_for.is_empty() || !held.filled
    }

    fn learn_write(&mut self, n: usize, partition: PartitionId, op: &entail::causal::op::Op) -> Option<VersionId> {
        let dot = op.item.dot;
        let Some(key) = self.oracle.key_index(&op.key) else {
            self.fail(format!("node{} wrote a key that nobody asked for: {op:?}", n + 1));
            return None;
        };
        let write = op.item.value.as_deref().and_then(write_of);
        self.judge(dots::given(&self.oracle, partition, dot, write));
        let version = self.oracle.born(n, key, dot, op.item.timestamp, write);
        self.judge(invariants::writes_follow_reads::check(&self.oracle, version));
        if !self.may_ignore_clocks() {
            let wall_ms = self.nodes[n].clocks(self.now).wall_ms;
            self.judge(invariants::after_its_clock::check(&self.oracle, version, wall_ms));
        }
        self.oracle.versions[version].born_under = self.machine(n).map().row(partition).version;
        self.lose_if_given_up(n, version);
        Some(version)
    }

    fn learn_item(
        &mut self,
        n: usize,
        partition: PartitionId,
        key: &[u8],
        change: (&Option<Bytes>, &Option<Bytes>),
        facts: &mut Vec<Fact>,
    ) {
        let key = records::user_key(key).ok().and_then(|key| self.oracle.key_index(&key));
        let key = key.expect("only keys that were asked for are stored");
        let item = |bytes: &Bytes| records::decode_item(bytes).expect("just written");
        let (old, new) = (change.0.as_ref().map(item), change.1.as_ref().map(item));
        let counts = self.counts(n, partition);
        let kept = new.as_ref().filter(|_| counts);
        if let Some(version) = kept.and_then(|item| self.version_of(partition, item.dot)) {
            self.oracle.found_again(version);
        }
        let collected = self.oracle.holdings[n].now[partition.0 as usize].collected.get(&key).copied();
        self.judge(tombstones::changed(&self.oracle, n, key, (old.as_ref(), new.as_ref()), collected));
        if let (Some(old), None) = (&old, &new) {
            self.oracle.coverage.hit("tombstones: collected");
            facts.push(Fact::Collected(partition, key, (old.timestamp, old.dot)));
        }
    }

    /// Looks at a message that leaves a node.
    pub fn watch(&mut self, n: usize, message: &Message) {
        match message {
            Message::Operations { partition, operations, .. } => {
                self.oracle.coverage.add("operations: sent", operations.len() as u64);
                for op in operations {
                    let write = op.item.value.as_deref().map(write_of);
                    let verdict = dots::left(&mut self.oracle, n, *partition, op.item.dot, write.flatten());
                    self.judge(verdict);
                }
            }
            Message::FillChunk(chunk) => {
                self.nodes[n].gave_ms = Some(self.now);
                let what = if chunk.end.is_some() { "fill: last part sent" } else { "fill: part sent" };
                self.oracle.coverage.hit(what);
                for (_, item) in &chunk.items {
                    let write = item.value.as_deref().map(write_of);
                    let verdict = dots::left(&mut self.oracle, n, chunk.partition, item.dot, write.flatten());
                    self.judge(verdict);
                }
            }
            Message::Paxos(PaxosMessage::Accept { next, .. }) => {
                self.proposed_ms.entry(next.hash).or_insert(self.now);
            }
            Message::MapPush(map) => self.told_forgotten.extend(&map.forgotten),
            Message::MapDeltas(chain) => {
                self.told_forgotten.extend(chain.iter().flat_map(|delta| &delta.changed.forgotten));
            }
            Message::FillRequest { .. } => self.oracle.coverage.hit("fill: asked for"),
            Message::ForwardRefused { .. } => self.oracle.coverage.hit("requests: forward refused"),
            Message::Stability(_) => self.oracle.coverage.hit("stability: told"),
            Message::Report(reports) => {
                let promises = reports.iter().filter(|report| report.promise.is_some()).count();
                self.oracle.coverage.add("tombstones: promises told", promises as u64);
            }
            _ => {}
        }
    }

    /// The item that a node's store has for a key.
    pub fn item(&self, n: usize, key: usize) -> Option<Item> {
        let stored = records::item_key(self.oracle.partition(key), &self.oracle.keys[key]);
        let bytes = self.nodes[n].disk.get(&stored).expect("memory does not fail")?;
        Some(records::decode_item(&bytes).expect("items decode"))
    }

    /// The version that a dot names.
    pub fn version_of(&self, partition: PartitionId, dot: Dot) -> Option<VersionId> {
        self.oracle.by_dot.get(&(partition, dot)).copied()
    }

    /// What a read in this effect was answered from, if there is one: as the machine finds it in the very step, or, for
    /// an answer passed on, as it was found where it was given. Or which copies of a write were counted, in this step
    /// or, of an answer that was owed, before.
    pub fn witness(&mut self, n: usize, effect: &Effect, passed_on: Option<&Shown>, owed: bool) -> Option<Glimpse> {
        let (key, response) = match effect {
            Effect::Reply { id, response } => {
                let serial = self.nodes[n].process.as_ref()?.requests.get(id)?;
                (self.asked.get(serial)?.key, response)
            }
            Effect::Send { to, message: Message::ForwardReply { id, response } } => {
                let to = self.node_index(to);
                (*self.process(n).serving.get(&(to, *id))?, response)
            }
            _ => return None,
        };
        let value = match response {
            Response::Value { value, .. } => Some(value.clone()),
            Response::Missing { .. } => None,
            Response::Written { context, copies, .. } => {
                let partition = self.oracle.partition(key);
                let (stay, seq) = context.of(partition).next()?;
                let under = (!owed).then(|| self.machine(n).map().row(partition).version);
                let dot = Dot { stay, seq };
                return Some(Glimpse::Counted { partition, dot, under, copies: *copies });
            }
            _ => return None,
        };
        if let (Some(shown), Effect::Reply { .. }) = (passed_on, effect) {
            return Some(Glimpse::PassedOn(shown.clone()));
        }
        let node = &self.nodes[n];
        let after = self.machine(n).item(&node.disk, &self.oracle.keys[key]).expect("memory does not fail");
        let stored = [self.item(n, key), after];
        Some(Glimpse::Here { key, stored, value })
    }

    /// Which version a read showed, once the oracle has learned what the step wrote; of a write, looks at what was
    /// counted, and gives nothing.
    ///
    /// A value names its version. Where there was none, it was the tombstone, or the nothing, that the store had before
    /// the step or has after it; the one before counts for what the session has seen, either for what is right.
    pub fn recognise(&mut self, n: usize, glimpse: Glimpse) -> Option<Shown> {
        let (key, stored, value) = match glimpse {
            Glimpse::Counted { partition, dot, under, copies } => {
                let version = self.version_of(partition, dot)?;
                // Who passes it on counts nothing.
                if self.oracle.versions[version].coordinator == n {
                    let under = under.unwrap_or(self.oracle.versions[version].born_under);
                    self.oracle.versions[version].counted = Some((copies, under));
                    self.judge(acknowledged::counted(&self.oracle, version, copies, under));
                }
                return None;
            }
            Glimpse::PassedOn(shown) => return Some(shown),
            Glimpse::Here { key, stored, value } => (key, stored, value),
        };
        if let Some(value) = value {
            self.oracle.coverage.hit("reads: value");
            let version = write_of(&value).and_then(|write| self.oracle.writes[write].version);
            if version.is_none() {
                self.fail(format!("node{} answers {value:?}, which nobody wrote", n + 1));
            }
            if let Some(version) = version {
                self.judge(acknowledged::shown_alone(self, n, version));
            }
            return Some(Shown { node: n, version, buried: None, deletes: Vec::new() });
        }
        let partition = self.oracle.partition(key);
        let (mut shown, mut buried, mut empty) = (None, None, false);
        for item in &stored {
            match item {
                Some(item) if item.is_tombstone() => {
                    let version = self.version_of(partition, item.dot);
                    shown = shown.or(version.filter(|_| !empty));
                    buried = self.oracle.greater(buried, version);
                }
                Some(_) => {}
                None => {
                    empty = true;
                    buried = self.oracle.greater(buried, self.oracle.buried_at(n, key));
                }
            }
        }
        self.oracle.coverage.hit(if shown.is_some() { "reads: tombstone" } else { "reads: nothing" });
        if shown.is_none() && !empty {
            // It was there between two steps only, and is not durable: `DurableReads` is off.
            buried = self.oracle.best(key, |v| self.oracle.versions[v].delete);
        }
        let deletes = if shown.is_none() { self.oracle.deletes_at(n, key) } else { Vec::new() };
        Some(Shown { node: n, version: shown, buried, deletes })
    }
}
