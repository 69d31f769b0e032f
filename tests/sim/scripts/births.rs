//! Who may found a store, act under a name, and decide a map.

use entail::machine::message::Wanted;
use entail::types::Epoch;

use super::{Script, is_map, is_paxos, is_report, world};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::workload::Said;
use crate::world::World;

/// `UnanimousBirth`: two of three nodes begin a store while the third cannot be told of it, lose their disks, and begin
/// one with the third.
pub fn birth_by_those_who_forget(clauses: Clauses) {
    let mut world = world(3, 1, clauses, |_| ());
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
    let born = world.run_until(end, born);
    assert_eq!(world.violation, None);
    assert!(born, "the store is not born");
}

/// Nodes 3 and 4 came later, and have all there is when both nodes of `VIEW` lose their disks at once.
fn two_that_forgot_and_two_that_did_not(listen_ms: u64) -> Script {
    let moving = super::moving(2);
    let mut s = Script::with(2, 1, Clauses::ALL, |settings| {
        moving(settings);
        settings.listen_ms = listen_ms;
    });
    let x = s.key(1, 0);
    for late in [2, 3] {
        s.add_member(0, 1, late);
    }
    s.ask(0, Kind::Put, x, 0);
    s.rests();
    for n in [0, 1] {
        s.take_disk(n);
    }
    // The others find them again when they have found each other already.
    s.wait(1_000);
    s.cut_between(&[0, 1], &[2, 3]);
    for n in [0, 1] {
        s.start(n);
    }
    s.world.run_for(1_000);
    s.heal();
    s.world.run_for(5_000);
    s
}

#[test]
fn who_forgot_listens_before_it_founds_a_store() {
    let mut s = two_that_forgot_and_two_that_did_not(2_000);
    assert_eq!(s.world.violation, None);
    let id = s.map(2).cluster_id;
    for n in [0, 1] {
        assert_eq!(s.map(n).cluster_id, id, "node{}", n + 1);
    }
    assert!(matches!(s.ask(0, Kind::Get, s.key(1, 0), 3), Said::Value(_)));
}

#[test]
fn who_does_not_listen_founds_a_second_store() {
    let s = two_that_forgot_and_two_that_did_not(0);
    let violation = s.world.violation.clone().unwrap_or_default();
    assert!(violation.contains("BIRTH"), "{violation:?}");
}

/// Node 1 has written a key, is back without its disk, and has the map, which does not know of that yet.
pub fn back_before_the_map_knows(clauses: Clauses) -> (Script, usize) {
    let mut s = Script::with(3, 1, clauses, super::moving(0));
    let x = s.key(1, 0);
    s.ask(0, Kind::Put, x, 0);
    s.rests();
    s.take_disk(0);
    s.hold(None, None, is_paxos);
    s.hold(None, Some(0), is_report);
    s.start(0);
    s.until("it has the map", |world| world.nodes[0].process.is_some() && world.machine(0).map().is_born());
    s.wait(100);
    (s, x)
}

/// `OwnName`: a node that lost its disk is asked for a write before the map knows of that. Its address has a stay, but
/// its process is not who wrote there.
pub fn a_name_that_belongs_to_a_lost_disk(clauses: Clauses) {
    let (mut s, x) = back_before_the_map_knows(clauses);
    assert_eq!(s.ask(1, Kind::Put, x, 0), Said::Written(2));
    s.let_go(true);
    s.rests();
}

/// `ForgottenEnds`: a node that was given up while it was cut off is back. Nobody binds its incarnation again.
pub fn who_was_given_up_is_back(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, super::moving(0));
    s.give_up(0, 2);
    s.heal();
    s.rests();
}

/// `DurableAcceptor`: an acceptor that has accepted a map dies before that is durable; the proposer is cut off with the
/// map, and the others decide another.
pub fn a_map_that_its_acceptor_forgot(clauses: Clauses) {
    let mut s = Script::with(4, 2, clauses, super::moving(0));
    let map = s.map(0);
    let voters: Vec<usize> = (0..4).filter(|n| map.voters.contains(&s.world.machine(*n).incarnation())).collect();
    let [proposer, forgets, other] = voters[..] else { panic!("four nodes have three voters, not {voters:?}") };
    s.cut_off(&[other]);
    s.hold(Some(proposer), None, is_map);
    s.freeze(forgets);
    s.begin_change(proposer, Wanted::Reshard(1));
    // Without the rule the proposer has its map by now.
    s.wait(1_500);
    s.let_go(false);
    s.cut_off(&[proposer]);
    s.kill(forgets);
    s.world.nodes[forgets].frozen = false;
    s.start(forgets);
    s.wait(6_000);
    let id = s.begin_change(forgets, Wanted::Reshard(1));
    s.done(id);
    assert!(s.map(forgets).epoch > Epoch(1));
    s.heal();
    s.rests();
}
