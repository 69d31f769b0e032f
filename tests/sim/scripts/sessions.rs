//! What sessions are promised while nodes die, links are cut and disks fill up: the contract's answers, as a trace.

use entail::error::Code;
use entail::machine::message::Wanted;

use super::{Script, moving};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::workload::Said;

#[test]
fn a_carried_context_waits_at_the_other_side_of_a_cut_and_is_then_refused() {
    let mut s = Script::new(4, 2, Clauses::ALL);
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
    let mut s = Script::new(3, 1, Clauses::ALL);
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
    let mut s = Script::new(4, 1, Clauses::ALL);
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
    let mut s = Script::new(3, 1, Clauses::ALL);
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
    let mut s = Script::new(6, 2, Clauses::ALL);
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
    let mut s = Script::new(2, 1, Clauses::ALL);
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

#[test]
fn a_node_that_started_while_a_directory_was_wrong_finds_who_has_the_right_one() {
    let mut s = Script::with(5, 2, Clauses::ALL, super::moving(0));
    let (one, two) = (s.members(1), s.members(2));
    let x = s.key(2, 0);
    s.ask(0, Kind::Put, x, two[0]);
    s.rests();
    s.give_up(one[0], two[1]);
    s.world.nodes[two[1]].dead = true;
    let right = s.swap_disk(two[0], None);
    s.start(two[0]);
    s.wait(3_000);
    s.kill(one[1]);
    s.start(one[1]);
    s.wait(1_000);
    s.swap_disk(two[0], Some(right));
    s.start(two[0]);
    s.wait(3_000);
    assert_eq!(s.ask(0, Kind::Get, x, one[1]), Said::Value(0));
}

#[test]
fn who_is_given_up_while_it_runs_begins_anew_without_what_it_took_alone() {
    // In the sweep that needs two words on one address: the second gives up what was there after the first.
    let mut s = Script::with(4, 1, Clauses::ALL, moving(0));
    let (x, y) = (s.key(1, 0), s.key(1, 1));
    s.ask(0, Kind::Put, x, 3);
    s.rests();
    s.cut_off(&[3]);
    s.wait(4_000);
    // Taken alone, and answered so.
    s.ask(1, Kind::Put, y, 3);
    let node = s.addr(3);
    s.change(0, Wanted::Forget { node, confirmed: true });
    assert_eq!(s.world.oracle.coverage.count("disk: given up while in use"), 1);
    // It goes on, and knows nothing of it.
    s.ask(1, Kind::Get, y, 3);
    s.heal();
    s.wait(10_000);
    assert_eq!(s.world.oracle.coverage.count("disk: given up, and set aside"), 1);
    s.rests();
    s.ask(0, Kind::Get, x, 3);
    s.ask(2, Kind::Get, y, 3);
    assert_eq!(
        s.log,
        "\
A Puts at node4: Written(2)
B Puts at node4: Written(1)
B Gets at node4: Value(1)
A Gets at node4: Value(0)
C Gets at node4: Nothing
"
    );
}
