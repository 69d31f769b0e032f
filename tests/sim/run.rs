//! A whole run: faults and requests, then everything is healed, and the store must come to rest with nothing lost.

use entail::machine::message::Wanted;
use entail::types::{NodeAddr, PartitionId, ShardId};

use crate::clauses::Clauses;
use crate::coverage::Coverage;
use crate::event::Event;
use crate::invariants::{convergence, settles};
use crate::oracle::{Kind, Session};
use crate::trace::Trace;
use crate::workload::Said;
use crate::world::World;

/// How long the store may take to come to rest after everything is healed.
pub const REST_MS: u64 = 30_000;

/// … and where partitions move: with fills that stood still and are begun again, and nodes that are waited for.
const MOVED_MS: u64 = 400_000;

/// How long a read may take once it has.
const READ_MS: u64 = 3_000;

/// A history of so many epochs is a long one.
pub const LONG: u64 = 10;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What went wrong first.
    pub violation: Option<String>,
    /// What happened.
    pub coverage: Coverage,
    /// The trace's hash, if one was kept.
    pub hash: u64,
}

/// Runs one seed from beginning to end.
pub fn run(profile: &str, seed: u64, rules: Clauses, trace: Trace) -> Outcome {
    let mut world = World::new(profile, seed, rules, trace);
    world.history();
    world.ending();
    let mut coverage = world.oracle.coverage;
    coverage.add("events", world.events);
    if let Some(map) = world.maps.last_key_value().map(|(_, map)| map).filter(|_| world.settings.maps()) {
        coverage.hit("runs with transitions");
        coverage.add("epochs of runs with transitions", map.epoch.0);
        if map.epoch.0 >= LONG {
            coverage.hit("runs with ten epochs and more");
        }
    }
    coverage.add("seconds simulated", world.now / 1000);
    coverage.hit("runs");
    Outcome { violation: world.violation, coverage, hash: world.trace.hash() }
}

impl World {
    /// Faults and requests, until all requests are asked.
    fn history(&mut self) {
        for client in 0..self.clients.len() {
            self.clients[client].unaware = client == 0 && self.random.percent(50);
        }
        if self.settings.start_ms > 150 {
            // Of a store that takes its time to be born, all see the birth.
            self.begin();
        }
        self.run_until(60_000, |world| world.codec.is_some());
        if self.settings.start_ms <= 150 {
            self.begin();
        }
        // Enough for all requests at the slowest pace; whoever is stuck is overdue long before.
        let end = self.now + 20_000 + self.settings.requests * 400;
        self.run_until(end, |world| world.serial >= world.settings.requests && world.changes >= world.settings.changes);
        let more = self.random.within(0, 500);
        self.run_for(more);
    }

    fn begin(&mut self) {
        for client in 0..self.clients.len() {
            let when = self.now + self.random.within(1, 300);
            self.agenda.at(when, Event::Client { client });
        }
        let when = self.now + self.random.within(1, self.settings.fault_gap_ms);
        self.agenda.at(when, Event::Fault);
        if self.settings.maps() {
            let when = self.now + self.random.within(1, 2 * self.settings.change_gap_ms);
            self.agenda.at(when, Event::Operator);
        }
    }

    fn ending(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.heal_all();
        let end = self.now + 9_000;
        self.run_until(end, |world| world.asked.is_empty());
        if !self.rest() {
            // What is not at rest by now never will be.
            return self.record_finals();
        }
        self.judge(convergence::check(self));
        if self.settings.maps() || !self.nodes.iter().any(|node| node.dead) {
            self.read_all();
            self.reshard_once_more();
            self.write_once_more();
            if self.rest() {
                self.judge(convergence::check(self));
                self.count_keys();
            }
        } else {
            self.read_without_context();
        }
        if self.recorder.is_some() {
            self.rest();
            self.record_finals();
        }
    }

    /// All faults end. In some profiles one disk is lost for good.
    fn heal_all(&mut self) {
        self.trace.say(self.now, || "everything is healed".into());
        self.quiet = true;
        (self.settings.loss, self.settings.twice, self.settings.late) = (0, 0, 0);
        let cut = self.network.cuts;
        self.heal_cut(cut);
        self.network.cuts += 1;
        self.network.lag_ms.iter_mut().flatten().for_each(|lag| *lag = [0; 4]);
        if self.settings.dead {
            let n = self.random.index(self.nodes.len());
            self.crash(n, None);
            self.nodes[n].dead = true;
            self.trace.say(self.now, || format!("the disk of node{} is lost", n + 1));
            self.record(|recorder| recorder.excused = true);
        }
        for n in 0..self.nodes.len() {
            self.nodes[n].stall_ms = 0;
            if self.now < self.nodes[n].paused_until_ms {
                self.nodes[n].paused_until_ms = self.now;
                let boot = self.nodes[n].boot;
                self.agenda.at(self.now, Event::Run { node: n, boot });
            }
            self.nodes[n].sync_ms = self.settings.sync_ms;
            self.room(n);
            let boot = self.nodes[n].boot;
            self.agenda.at(self.now + 2, Event::Start { node: n, boot });
        }
    }

    /// Waits until nothing is left to do; false, and a violation, when that does not come.
    fn rest(&mut self) -> bool {
        let end = self.now + if self.settings.maps() { MOVED_MS } else { REST_MS };
        let mut ask_ms = self.now + 20_000;
        while self.violation.is_none() {
            self.run_for(100);
            if self.now > ask_ms {
                ask_ms = self.now + 20_000;
                self.forget_the_dead();
            }
            match settles::settled(self) {
                Ok(()) => return true,
                Err(why) if self.now >= end => {
                    self.fail(format!("SETTLES: not at rest: {why}"));
                    return false;
                }
                Err(_) => {}
            }
        }
        false
    }

    /// Every session, the old ones too, can read every key at every node.
    fn read_all(&mut self) {
        let mut sessions: Vec<Session> = self.clients.iter().map(|client| client.session.clone()).collect();
        let old = self.saved.iter().rev().take(6).chain(self.saved.first());
        sessions.extend(old.map(|(_, session)| session.clone()));
        for session in sessions {
            for key in 0..self.oracle.keys.len() {
                let node = self.somebody();
                self.clients[0].session = session.clone();
                self.must(node, Kind::Get, key);
                if self.violation.is_some() {
                    return;
                }
            }
        }
    }

    /// Whoever depends on nothing is served by those that are left.
    fn read_without_context(&mut self) {
        for key in 0..self.oracle.keys.len() {
            for node in 0..self.nodes.len() {
                if self.nodes[node].process.is_some() && self.violation.is_none() {
                    self.clients[0].session = Session::default();
                    self.must(node, Kind::Get, key);
                }
            }
        }
    }

    /// A node that is up.
    fn somebody(&mut self) -> usize {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].process.is_some()).collect();
        up[self.random.index(up.len())]
    }

    /// Asks, waits for the answer, and takes no error.
    fn must(&mut self, node: usize, kind: Kind, key: usize) {
        self.clients[0].said = None;
        let serial = self.ask(0, node, Some(kind), key, READ_MS);
        let end = self.now + READ_MS + settles::SLACK_MS;
        self.run_until(end, |world| world.clients[0].waits != Some(serial));
        if let Some(Said::Error(code)) = self.clients[0].said
            && self.violation.is_none()
            && !self.is_of_lost_maps(code)
        {
            let context = self.clients[0].session.context.clone();
            self.fail(format!(
                "SETTLES: at rest, {kind:?} of key {key} at node{} with {context:?} is {code:?}",
                node + 1
            ));
        }
    }

    /// Contexts are small again: a write in quiet names itself and what its session touched a moment ago.
    fn write_once_more(&mut self) {
        // One round of the slow rotation that tells what is stable once more.
        self.run_for(2_500);
        for client in 0..self.clients.len() {
            let node = self.somebody();
            self.clients[0].session = self.clients[client].session.clone();
            let key = self.random.index(self.settings.keys);
            self.must(node, Kind::Put, key);
            let left = self.clients[0].session.context.len();
            if left != 1 && self.violation.is_none() {
                let context = self.clients[0].session.context.clone();
                self.fail(format!("SETTLES: a write in quiet leaves {left} entries in its context: {context:?}"));
            }
            self.run_for(500);
        }
    }

    /// In quiet, a reshard that the nodes suffice for is done.
    fn reshard_once_more(&mut self) {
        if !self.settings.maps() || !self.rest() {
            return;
        }
        let Some(map) = self.newest().cloned() else { return };
        let up = |node: &&NodeAddr| self.nodes[self.node_index(node)].process.is_some();
        let present = map.present().filter(up).count() as u32;
        let most = (present / 2).min(self.settings.partitions);
        if most < 1 {
            return;
        }
        let count = self.random.within(1, u64::from(most)) as u32;
        let Some((_, id)) = self.ask_change_anywhere(Wanted::Reshard(count), 10_000) else { return };
        self.run_until(self.now + MOVED_MS, |world| world.changed.contains_key(&id));
        let outcome = self.changed.get(&id);
        if self.violation.is_none() && !matches!(outcome, Some(Ok(_))) {
            self.fail(format!("SETTLES: in quiet, a reshard of {present} nodes to {count} shards is {outcome:?}"));
        }
        if self.rest() {
            self.judge(convergence::check(self));
            self.read_all();
        }
    }

    /// All nodes count the same keys: those that have a value, whoever is asked.
    fn count_keys(&mut self) {
        for n in (0..self.nodes.len()).filter(|n| self.nodes[*n].process.is_some()) {
            for status in self.machine(n).partition_status() {
                let truth = self.values_at(n, |partition| partition == status.partition);
                if truth != status.keys {
                    let at = format!("node{} partition {}", n + 1, status.partition);
                    return self.fail(format!("CONVERGENCE: {at} counts {} keys of {truth}", status.keys));
                }
            }
        }
        for shard in 0..self.newest().expect("it is born").layout.shards.len() {
            let layout = self.newest().expect("it is born").layout.clone();
            let mine = |n: &usize| layout.shard_of(&self.nodes[*n].addr) == Some(ShardId(shard as u32 + 1));
            let member = (0..self.nodes.len()).find(mine).expect("every shard has members");
            let truth = self.values_at(member, |_| true);
            let node = self.somebody();
            let serial = self.ask(0, node, None, shard, READ_MS);
            let end = self.now + READ_MS + settles::SLACK_MS;
            self.run_until(end, |world| world.clients[0].waits != Some(serial));
            if self.violation.is_none() && self.clients[0].said != Some(Said::Keys(truth)) {
                let counted = self.clients[0].said;
                return self.fail(format!("CONVERGENCE: shard {} has {truth} keys, not {counted:?}", shard + 1));
            }
        }
    }

    /// How many keys have a value at a node, in some of the partitions.
    fn values_at(&self, n: usize, which: impl Fn(PartitionId) -> bool) -> u64 {
        let here = |key: &usize| which(self.oracle.partition(*key));
        let value = |key: &usize| self.item(n, *key).is_some_and(|item| !item.is_tombstone());
        (0..self.oracle.keys.len()).filter(here).filter(value).count() as u64
    }
}
