//! Scenarios that read as a trace: a few steps each, on the same world, with the answers that the contract promises.

use std::fmt::Write;

use entail::error::Code;
use entail::machine::rules::Rules;

use crate::invariants::{convergence, settles};
use crate::oracle::Kind;
use crate::profile::{Faults, Settings};
use crate::random::Random;
use crate::run::REST_MS;
use crate::trace::Trace;
use crate::workload::Said;
use crate::world::World;

/// How long a request may take in a script.
const BUDGET_MS: u64 = 2_000;

/// A world that does only what it is told, and what came of it.
struct Script {
    world: World,
    log: String,
}

/// A world without faults of its own, at its beginning.
fn world(nodes: usize, shards: u32, rules: Rules) -> World {
    let settings = Settings {
        careless: false,
        strikes: 0,
        fill_bytes: 64 << 20,
        late_nodes: 0,
        changes: 0,
        change_gap_ms: 0,
        tick_ms: 22,
        nodes,
        shards,
        partitions: 4,
        keys: 12,
        hot: 0,
        clients: 4,
        requests: u64::MAX,
        think_ms: 1,
        deletes: 0,
        reads: 0,
        sleep_ms: 1,
        loss: 0,
        twice: 0,
        late: 0,
        fault_gap_ms: 1,
        faults: Faults::default(),
        cut_ms: 1,
        down_ms: 1,
        sync_ms: 2,
        write_copies: 2,
        max_unapplied_bytes: 1 << 20,
        max_waiting: 1000,
        value_bytes: 0,
        slow_operations: false,
        dead: false,
        start_ms: 10,
        skew_ms: 0,
    };
    let mut world = World::of(settings, Random::new(1), rules, Trace::new(false, false));
    world.quiet = true;
    world
}

impl Script {
    /// A store that was just born.
    fn new(nodes: usize, shards: u32) -> Self {
        let mut script = Self { world: world(nodes, shards, Rules::all()), log: String::new() };
        script.rests();
        script
    }
    /// The `nth` key of a shard, from 0.
    fn key(&self, shard: u32, nth: usize) -> usize {
        let layout = &self.world.machine(0).map().layout;
        let oracle = &self.world.oracle;
        let of = |key: &usize| layout.partitions[oracle.partition(*key).0 as usize].0 == shard;
        (0..oracle.keys.len()).filter(of).nth(nth).expect("there are twelve keys")
    }

    /// The members of a shard.
    fn members(&self, shard: u32) -> Vec<usize> {
        let map = self.world.machine(0).map().clone();
        let of = |n: &usize| map.shard_of(&self.world.nodes[*n].addr).is_some_and(|s| s.0 == shard);
        (0..self.world.nodes.len()).filter(of).collect()
    }

    fn ask(&mut self, client: usize, kind: Kind, key: usize, node: usize) -> Said {
        self.world.clients[client].said = None;
        let begun = self.world.now;
        let serial = self.world.ask(client, node, Some(kind), key, BUDGET_MS);
        let end = begun + BUDGET_MS + settles::SLACK_MS + 10;
        self.world.run_until(end, |world| world.clients[client].waits != Some(serial));
        self.holds();
        let said = self.world.clients[client].said.expect("every request is answered");
        let name = ["A", "B", "C", "D"][client];
        let late = if self.world.now - begun > 500 { ", after a wait" } else { "" };
        writeln!(self.log, "{name} {kind:?}s at node{}: {said:?}{late}", node + 1).expect("text takes all");
        said
    }

    /// Client B takes over what client A was given, and the like.
    fn hand_on(&mut self, from: usize, to: usize) {
        self.world.clients[to].session = self.world.clients[from].session.clone();
    }

    /// Nothing passes between these nodes and the others.
    fn cut_off(&mut self, nodes: &[usize]) {
        let n = self.world.nodes.len();
        let inside = |x: usize| nodes.contains(&x);
        let cut = (0..n).map(|x| (0..n).map(|y| inside(x) != inside(y)).collect()).collect();
        self.world.network.cuts += 1;
        self.world.cut(cut);
    }

    fn heal(&mut self) {
        let cut = self.world.network.cuts;
        self.world.heal_cut(cut);
    }

    /// A process dies and keeps nothing that was not synced.
    fn kill(&mut self, n: usize) {
        self.world.crash(n, Some(0));
    }

    fn start(&mut self, n: usize) {
        let boot = self.world.nodes[n].boot;
        let event = crate::event::Event::Start { node: n, boot };
        self.world.agenda.at(self.world.now, event);
    }

    fn wait(&mut self, ms: u64) {
        self.world.run_for(ms);
        self.holds();
    }

    /// Everything settles and all replicas agree.
    fn rests(&mut self) {
        let end = self.world.now + REST_MS;
        loop {
            self.wait(20);
            match settles::settled(&self.world) {
                Ok(()) => break,
                Err(why) => assert!(self.world.now < end, "not at rest: {why}"),
            }
        }
        assert_eq!(convergence::check(&self.world), Ok(()));
    }

    fn holds(&self) {
        assert_eq!(self.world.violation, None, "{}", self.log);
    }
}

#[test]
fn a_carried_context_waits_at_the_other_side_of_a_cut_and_is_then_refused() {
    let mut s = Script::new(4, 2);
    let (x, y) = (s.key(1, 0), s.key(2, 0));
    let (one, two) = (s.members(1), s.members(2));
    s.cut_off(&[one[1]]);
    s.wait(6_000);
    s.ask(0, Kind::Put, x, one[0]);
    s.ask(0, Kind::Put, y, two[0]);
    s.ask(1, Kind::Get, y, two[1]);
    s.ask(1, Kind::Get, x, one[1]);
    s.ask(2, Kind::Get, x, one[1]);
    s.heal();
    s.wait(2_000);
    s.ask(1, Kind::Get, x, one[1]);
    s.rests();
    assert_eq!(
        s.log,
        "\
A Puts at node1: Written(1)
A Puts at node3: Written(2)
B Gets at node4: Value(1)
B Gets at node2: Error(DependenciesUnsatisfied), after a wait
C Gets at node2: Nothing
B Gets at node2: Value(0)
"
    );
}

#[test]
fn the_last_write_of_a_dead_coordinator_reaches_the_third_replica_by_a_fill() {
    let mut s = Script::new(3, 1);
    let x = s.key(1, 0);
    // Node 3 hears nothing of node 1, and is heard.
    s.world.network.cut[0][2] = true;
    s.ask(0, Kind::Put, x, 0);
    s.kill(0);
    s.world.network.cut[0][2] = false;
    let fills = s.world.oracle.coverage.count("fill: asked for");
    s.hand_on(0, 1);
    s.ask(1, Kind::Get, x, 2);
    s.wait(4_000);
    s.kill(1);
    s.wait(1_000);
    s.ask(1, Kind::Get, x, 2);
    assert!(s.world.oracle.coverage.count("fill: asked for") > fills);
    s.start(0);
    s.start(1);
    s.rests();
    assert_eq!(s.log, "A Puts at node1: Written(2)\nB Gets at node3: Value(0)\nB Gets at node3: Value(0)\n");
}

#[test]
fn both_sides_of_a_cut_take_writes_and_agree_afterwards() {
    let mut s = Script::new(4, 1);
    let x = s.key(1, 0);
    s.cut_off(&[0, 1]);
    s.wait(6_000);
    s.ask(0, Kind::Put, x, 0);
    s.ask(1, Kind::Put, x, 2);
    s.ask(0, Kind::Get, x, 1);
    s.ask(1, Kind::Get, x, 3);
    s.heal();
    s.wait(2_000);
    s.ask(2, Kind::Get, x, 0);
    s.ask(2, Kind::Get, x, 3);
    s.rests();
    assert_eq!(
        s.log,
        "\
A Puts at node1: Written(2)
B Puts at node3: Written(2)
A Gets at node2: Value(0)
B Gets at node4: Value(1)
C Gets at node1: Value(1)
C Gets at node4: Value(1)
"
    );
}

#[test]
fn a_deleted_value_stays_dead_when_a_node_that_had_it_comes_back() {
    let mut s = Script::new(3, 1);
    let x = s.key(1, 0);
    s.ask(0, Kind::Put, x, 0);
    s.rests();
    s.kill(2);
    s.wait(4_000);
    s.ask(0, Kind::Delete, x, 0);
    s.ask(1, Kind::Get, x, 1);
    s.start(2);
    s.rests();
    s.ask(0, Kind::Get, x, 2);
    s.ask(0, Kind::Delete, x, 2);
    assert_eq!(
        s.log,
        "\
A Puts at node1: Written(2)
A Deletes at node1: Written(2)
B Gets at node2: Nothing
A Gets at node3: Nothing
A Deletes at node3: Nothing
"
    );
}

#[test]
fn all_nodes_die_at_once_and_everything_acknowledged_is_there() {
    let mut s = Script::new(6, 2);
    let keys: Vec<usize> = (0..4).flat_map(|nth| [s.key(1, nth), s.key(2, nth)]).collect();
    for (node, key) in keys.iter().enumerate() {
        let said = s.ask(0, Kind::Put, *key, node % 6);
        assert_eq!(said, Said::Written(2));
    }
    (0..6).for_each(|n| s.kill(n));
    s.wait(500);
    (0..6).for_each(|n| s.start(n));
    s.wait(1_500);
    for (write, key) in keys.iter().enumerate() {
        let said = s.ask(0, Kind::Get, *key, (write + 3) % 6);
        assert_eq!(said, Said::Value(write));
    }
    s.rests();
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_reading() {
    let mut s = Script::new(2, 1);
    let x = s.key(1, 0);
    s.ask(0, Kind::Put, x, 0);
    for n in 0..2 {
        s.world.give(n, entail::machine::message::Input::DiskFull(true));
    }
    assert_eq!(s.ask(0, Kind::Put, x, 0), Said::Error(Code::DiskFull));
    assert_eq!(s.ask(0, Kind::Get, x, 1), Said::Value(0));
    for n in 0..2 {
        s.world.give(n, entail::machine::message::Input::DiskFull(false));
    }
    assert_eq!(s.ask(0, Kind::Put, x, 1), Said::Written(2));
    s.rests();
}

/// Two of three nodes begin a store while the third cannot be told of it, lose their disks, and begin one with the
/// third: gives what is wrong with that.
pub fn birth_by_those_who_forget(rules: Rules) -> Option<String> {
    let mut world = world(3, 1, rules);
    for n in 0..2 {
        // Node 3 is heard, but what is said to it is late.
        world.network.lag_ms[n][2] = [0, 0, 0, 600_000];
    }
    world.run_until(8_000, |world| world.codec.is_some());
    for n in 0..2 {
        world.wipe(n);
        world.network.lag_ms[n][2] = [0; 4];
        let boot = world.nodes[n].boot;
        world.agenda.at(world.now, crate::event::Event::Start { node: n, boot });
    }
    let end = world.now + 20_000;
    let born = |world: &World| (0..3).all(|n| world.nodes[n].process.is_some() && world.machine(n).map().is_born());
    if !world.run_until(end, born) && world.violation.is_none() {
        return Some("the store is not born".into());
    }
    world.violation
}

#[test]
fn a_store_is_born_once_even_if_nodes_forget_before() {
    assert_eq!(birth_by_those_who_forget(Rules::all()), None);
}
