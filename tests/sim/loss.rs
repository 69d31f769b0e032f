//! Disks that are lost and replicas that are dropped, and what goes with them.
//!
//! A write that was acknowledged with n copies survives the loss of n - 1 disks that had it, less the copies that were
//! dropped in order because the operator wants its partition at fewer nodes. What is beyond that may be lost, and with
//! it, for sessions that saw it, what it stood for in their contexts: older writes of its partition.

use std::collections::BTreeSet;

use entail::cluster::map::ClusterMap;
use entail::machine::message::Wanted;
use entail::types::{Epoch, Incarnation, NodeAddr, PartitionId};

use crate::event::Event;
use crate::holdings::Closing;
use crate::invariants::{Verdict, kept};
use crate::met::Fault;
use crate::node::Node;
use crate::oracle::{Oracle, Past, Version, VersionId};
use crate::world::World;

/// So long after its loss, in milliseconds, a disk may still be counted on: its silence must be noticed, and a map that
/// was proposed before may take its time.
const UNKNOWN_MS: u64 = 20_000;

/// What took a copy of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The disk of this incarnation was lost, or given up, in this millisecond.
    Lost(Incarnation, u64),
    /// The replica was dropped, as this map says.
    Dropped(Closing),
}

impl Version {
    /// How many copies there must be by now, of so many that were counted under this version of the row. Each lost disk
    /// takes one. So does each replica that a later map dropped, down to as many as that map wants: fewer are the
    /// operator's wish. One that was dropped by then was none of those counted. A disk that is lost while the map has it
    /// serve is lost to the copies that are left, whichever comes first, as long as nobody can know.
    pub fn due(&self, copies: u32, counted_under: Epoch) -> u32 {
        let (mut due, mut lost) = (copies, Vec::new());
        for taken in &self.taken {
            match taken {
                Taken::Lost(incarnation, when_ms) => {
                    due = due.saturating_sub(1);
                    lost.push((incarnation, when_ms));
                }
                Taken::Dropped(closing) if closing.version > counted_under => {
                    let unknown = |(disk, when_ms): &&(&Incarnation, &u64)| {
                        closing.serving.contains(disk) && closing.at_ms < *when_ms + UNKNOWN_MS
                    };
                    let unknown = lost.iter().filter(unknown).count() as u32;
                    due = if due + unknown > closing.wanted { due.saturating_sub(1) } else { due };
                }
                Taken::Dropped(_) => {}
            }
        }
        due
    }

    fn has_lost(&self, disk: Incarnation) -> bool {
        self.taken.iter().any(|taken| matches!(taken, Taken::Lost(lost, _) if *lost == disk))
    }

    /// How many lost disks had it.
    pub fn losses(&self) -> usize {
        self.taken.iter().filter(|taken| matches!(taken, Taken::Lost(..))).count()
    }

    /// A copy is gone. A disk that was given up while in use is lost once, though it is set aside later.
    fn take(&mut self, taken: Taken) {
        let again = match &taken {
            Taken::Lost(disk, _) => self.has_lost(*disk),
            Taken::Dropped(_) => false,
        };
        if !again {
            self.taken.push(taken);
        }
    }
}

impl Oracle {
    /// The greatest version of the key among those `known` to somebody with this past.
    pub fn best_of(&self, key: usize, past: &Past, known: impl Fn(VersionId) -> bool) -> Option<VersionId> {
        let partition = self.partition(key);
        let mut implied = Past::default();
        for &lost in self.lost_versions.iter().filter(|v| past.contains(**v)) {
            if self.versions[lost].partition == partition {
                implied.join(&self.versions[lost].past);
            }
        }
        self.best(key, |v| known(v) && !implied.contains(v))
    }

    /// A message that was under way when the last disk was lost has brought this version to another.
    pub fn found_again(&mut self, version: VersionId) {
        if let Some(at) = self.lost_versions.iter().position(|lost| *lost == version) {
            self.coverage.hit("disk: a lost write was still under way");
            self.lost_versions.remove(at);
            self.versions[version].gone = false;
        }
    }

    /// Nobody has this version any more.
    fn give_up(&mut self, version: VersionId) {
        self.coverage.hit("disk: a write was lost");
        self.versions[version].gone = true;
        self.lost_versions.push(version);
    }
}

impl World {
    /// Nobody has this version any more; the verdict tells whether that may be.
    fn lose(&mut self, version: VersionId, verdict: Verdict) {
        if verdict.is_ok() && self.oracle.versions[version].shown {
            self.record(|recorder| recorder.excused = true);
        }
        self.judge(verdict);
        self.oracle.give_up(version);
    }

    /// Whether a node's replica of a partition may be asked for what it holds: not when its disk is lost or given up, nor
    /// when the partition began anew, empty, without the stays that it is held for.
    pub fn counts(&self, n: usize, partition: PartitionId) -> bool {
        let held_for = &self.oracle.holdings[n].now[partition.0 as usize].held_for;
        let left_out = self.newest().is_some_and(|map| {
            let peers = &map.row(partition).peers;
            peers.values().any(|peer| peer.begun_empty.is_some()) && !held_for.iter().any(|s| peers.contains_key(s))
        });
        !self.nodes[n].dead && !self.nodes[n].given_up && !left_out
    }

    /// Whether a node other than this one has a version on its disk.
    fn held_elsewhere(&self, n: Option<usize>, version: VersionId) -> bool {
        let v = &self.oracle.versions[version];
        let others = (0..self.nodes.len()).filter(|m| Some(*m) != n && self.counts(*m, v.partition));
        // What is applied becomes durable, unless that node dies first: then `lose_unsynced` looks again.
        let mut holdings = others.map(|m| &self.oracle.holdings[m].now[v.partition.0 as usize]);
        holdings.any(|held| held.vector.covers(v.order.1))
    }

    /// A new map serves partitions anew, empty, by the operator's word: what only those hold that it leaves out, as one
    /// who was being filled, is lost from now on, whenever they learn of it.
    pub fn begin_anew(&mut self, map: &ClusterMap) {
        for version in 0..self.oracle.versions.len() {
            let v = &self.oracle.versions[version];
            let (partition, dot) = (v.partition, v.order.1);
            let begun = map.row(partition).peers.values().any(|peer| peer.begun_empty == Some(map.epoch));
            if v.gone || !begun {
                continue;
            }
            let left_out = (0..self.nodes.len()).filter(|n| {
                let holds = self.oracle.holdings[*n].durable[partition.0 as usize].vector.covers(dot);
                holds && !self.nodes[*n].dead && !self.nodes[*n].given_up && !self.counts(*n, partition)
            });
            let disks: Vec<_> = left_out.filter_map(|n| self.nodes[n].incarnation).collect();
            let now = self.now;
            disks.into_iter().for_each(|disk| self.oracle.versions[version].take(Taken::Lost(disk, now)));
            if !self.held_elsewhere(None, version) {
                self.lose(version, kept::lost(&self.oracle, version, "a partition that begins anew"));
            }
        }
    }

    /// A crash took what was not synced: of writes whose disks are lost, perhaps the last copy.
    pub fn lose_unsynced(&mut self, n: usize) {
        for version in 0..self.oracle.versions.len() {
            let v = &self.oracle.versions[version];
            let held = self.oracle.holdings[n].now[v.partition.0 as usize].vector.covers(v.order.1);
            if v.losses() > 0 && !v.gone && !held && !self.held_elsewhere(Some(n), version) {
                self.lose(version, Ok(()));
            }
        }
    }

    /// A node's replica of a partition is dropped, or all of its disk is lost.
    pub fn lose_copies(&mut self, n: usize, only: Option<(PartitionId, Closing)>, how: &str) {
        let Some(incarnation) = self.nodes[n].incarnation else { return };
        for version in 0..self.oracle.versions.len() {
            let v = &self.oracle.versions[version];
            let held = &self.oracle.holdings[n].durable[v.partition.0 as usize].vector;
            if v.gone || only.as_ref().is_some_and(|(p, _)| *p != v.partition) || !held.covers(v.order.1) {
                continue;
            }
            let v = &mut self.oracle.versions[version];
            // Those that a partition that began anew left out are taken off already.
            if !v.has_lost(incarnation) {
                v.take(match &only {
                    Some((_, closing)) if !closing.begun => Taken::Dropped(closing.clone()),
                    _ => Taken::Lost(incarnation, self.now),
                });
            }
            if !self.held_elsewhere(Some(n), version) {
                self.take_what_is_being_dropped(n, version);
                // What goes by the operator's word has no name here.
                let verdict = if how.is_empty() { Ok(()) } else { kept::lost(&self.oracle, version, how) };
                self.lose(version, verdict);
            }
        }
    }

    /// A replica that another node dropped, though not durably yet, is no copy any more: its drop counts as of now.
    fn take_what_is_being_dropped(&mut self, n: usize, version: VersionId) {
        let v = &mut self.oracle.versions[version];
        let (partition, dot) = (v.partition, v.order.1);
        let others = self.oracle.holdings.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, holdings)| holdings);
        for holdings in others.filter(|holdings| holdings.durable[partition.0 as usize].vector.covers(dot)) {
            let dropped = holdings.dropped_by(u64::MAX).into_iter();
            let such = dropped.filter(|(p, closing)| *p == partition && !closing.begun);
            such.for_each(|(_, closing)| v.take(Taken::Dropped(closing)));
        }
    }

    /// The batches of a node up to this number become durable.
    pub fn drop_replicas(&mut self, n: usize, number: u64) {
        for dropped in self.oracle.holdings[n].dropped_by(number) {
            self.lose_copies(n, Some(dropped), "a dropped replica");
        }
    }

    /// Whether the store can do without this node's disk: somebody else serves all it serves, and from the newest map
    /// that another disk has each later one can be learned, and the next one decided: most of its voters are left. And
    /// one of `VIEW` remembers the store: when all of them are empty, they may found another before anybody finds them
    /// (`births::two_that_forgot_and_two_that_did_not`).
    fn can_lose(&self, n: usize, comes_back: bool, careless: bool) -> bool {
        let Some(map) = self.newest() else { return false };
        let Some(mine) = self.nodes[n].incarnation else { return false };
        let others = || self.nodes.iter().filter(|node| !node.dead && !node.given_up && node.incarnation != Some(mine));
        let intact = |i: &Incarnation| others().any(|node| node.incarnation == Some(*i));
        let bound = map.address_of(mine).is_some();
        let served = map.rows.iter().all(|row| {
            let has = row.peers.values().any(|peer| peer.incarnation == mine);
            let whole = row.peers.values().all(|peer| !peer.lost);
            !has || (whole && row.peers.values().any(|peer| peer.serves() && intact(&peer.incarnation)))
        });
        let known = others().map(|node| node.epoch).max().unwrap_or_default();
        let enough = self.maps.range(known..).all(|(_, map)| {
            let voters = map.voters.iter().filter(|voter| intact(voter)).count();
            // Of two voters, one that comes back empty is replaced on the word of the other.
            2 * voters > map.voters.len() || (comes_back && map.voters.len() == 2 && voters == 1)
        });
        let founders = &self.nodes[..self.settings.nodes];
        let knows = |node: &Node| node.epoch > Epoch(0) && !node.given_up && node.incarnation != Some(mine);
        let remembered = !comes_back || founders.iter().any(|node| node.dead || knows(node));
        let careless = careless || self.settings.careless && self.random.clone().percent(25);
        bound && enough && remembered && (served || careless)
    }

    /// A process dies, and its disk with it; later it starts with an empty one. Unless `careless`, that takes no
    /// partition's last copy.
    pub fn lose_disk(&mut self, n: usize, careless: bool) {
        if !self.can_lose(n, true, careless) {
            return;
        }
        self.oracle.coverage.hit("disk: lost");
        self.meets(n, Fault::LostDisk);
        self.trace.say(self.now, || format!("the disk of node{} is lost", n + 1));
        self.crash(n, None);
        self.lose_copies(n, None, "a lost disk");
        self.wipe(n);
        self.nodes[n].down_by = Some(Fault::LostDisk);
        let down = self.random.within(2, self.settings.down_ms);
        let boot = self.nodes[n].boot;
        self.agenda.at(self.now + down, Event::Start { node: n, boot });
    }

    /// A process dies, and its disk with it, and never comes back.
    pub fn lose_for_good(&mut self, n: usize, careless: bool) {
        let left = self.nodes.iter().filter(|node| !node.dead).count();
        let known = self.nodes.iter().any(|node| node.knows == Some(n));
        if !self.can_lose(n, false, careless) || known || left <= 3 || self.nodes[n].process.is_none() {
            return;
        }
        self.oracle.coverage.hit("disk: lost for good");
        self.meets(n, Fault::Death);
        self.trace.say(self.now, || format!("node{} is gone for good", n + 1));
        self.crash(n, None);
        self.lose_copies(n, None, "a lost disk");
        self.wipe(n);
        (self.nodes[n].dead, self.nodes[n].down_by) = (true, Some(Fault::Death));
    }

    /// Nodes that never come back, and those that came back without their disk, as far as the map remembers either.
    pub fn missed(&self) -> Vec<NodeAddr> {
        let Some(map) = self.newest() else { return Vec::new() };
        let dead = self.nodes.iter().filter(|node| node.dead).map(|node| &node.addr);
        let dead = dead.filter(|node| map.nodes.get(node).is_some_and(Option::is_some));
        let former = map.former.iter().filter(|(former, _)| !map.forgotten.contains(former)).map(|(_, node)| node);
        dead.chain(former).cloned().collect()
    }

    /// Whether the operator has given up the disk that a node has.
    pub fn is_forgotten(&self, n: usize) -> bool {
        let mine = self.nodes[n].incarnation;
        !self.nodes[n].dead && self.newest().zip(mine).is_some_and(|(map, mine)| map.forgotten.contains(&mine))
    }

    /// … or has in a map that was told as decided: who is told of it may know it as the first.
    pub fn is_told_forgotten(&self, n: usize) -> bool {
        self.nodes[n].incarnation.is_some_and(|mine| self.told_forgotten.contains(&mine))
    }

    /// A new map gives up disks. One whose process does not know yet goes on: what only it has is lost all the same, and
    /// so is what it writes from now on, unless somebody takes it who does not know either.
    pub fn give_up_forgotten(&mut self) {
        for n in 0..self.nodes.len() {
            if self.is_forgotten(n) && !self.nodes[n].given_up {
                self.oracle.coverage.hit("disk: given up while in use");
                self.nodes[n].given_up = true;
                self.lose_copies(n, None, "");
            }
        }
    }

    /// A write got its name: at once lost, where the disk was given up.
    pub fn lose_if_given_up(&mut self, n: usize, version: VersionId) {
        if let Some(incarnation) = self.nodes[n].incarnation.filter(|_| self.nodes[n].given_up) {
            self.oracle.versions[version].take(Taken::Lost(incarnation, self.now));
            self.lose(version, Ok(()));
        }
    }

    /// A node whose disk was given up sets it aside and starts with an empty one.
    pub fn set_aside(&mut self, n: usize) {
        self.oracle.coverage.hit("disk: given up, and set aside");
        self.trace.say(self.now, || format!("node{} sets its disk aside", n + 1));
        self.crash(n, None);
        self.lose_copies(n, None, "");
        self.wipe(n);
        let boot = self.nodes[n].boot;
        self.agenda.at(self.now + 50, Event::Start { node: n, boot });
    }

    /// Most voters are gone for good: only a recovery by force helps.
    pub fn quorum_is_lost(&self) -> bool {
        let Some(map) = self.newest() else { return false };
        let there =
            |voter: &&Incarnation| self.nodes.iter().any(|node| !node.dead && node.incarnation == Some(**voter));
        2 * map.voters.iter().filter(there).count() <= map.voters.len()
    }

    /// The operator gives up the nodes that never come back, by force if that is what it takes.
    pub fn forget_the_dead(&mut self) {
        if self.quorum_is_lost() {
            // Whoever is only away, or cut off, would go on under the old map beside the others.
            if self.all_are_there() || self.quiet && self.all_are_up() {
                self.ask_change_anywhere(Wanted::Recover { confirmed: true }, 5_000);
            }
            return;
        }
        let Some(map) = self.newest().cloned() else { return };
        for n in 0..self.nodes.len() {
            // The last member of a shard: somebody is to start at its address.
            if self.nodes[n].dead && map.nodes.get(&self.nodes[n].addr) == Some(&None) {
                self.nodes[n].dead = false;
                self.oracle.coverage.hit("disk: address taken anew");
                let boot = self.nodes[n].boot;
                self.agenda.at(self.now + 2, Event::Start { node: n, boot });
            }
        }
        for n in 0..self.nodes.len() {
            if self.is_forgotten(n) && self.nodes[n].process.is_some() {
                self.set_aside(n);
            }
        }
        // Once for an address, whatever is missed there: a second word would be on the disk that it has now.
        let missed: BTreeSet<NodeAddr> = self.missed().into_iter().collect();
        for node in missed {
            self.ask_change_anywhere(Wanted::Forget { node, confirmed: true }, 5_000);
        }
    }
}
