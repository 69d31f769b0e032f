//! What `/readyz`, `/status` and the log say of settings that differ, and of a store that is not as it should be.

use super::*;
use crate::machine::message::Wanted;

const DIFFERS: &str = "started with another VIEW, SHARD_COUNT or PARTITIONS than";

impl Lockstep {
    /// Starts a node, which may have run before, with settings of its own.
    pub(super) fn start_as(&mut self, config: Config) {
        let at = config.address.clone();
        let store = self.hosts.remove(&at).map_or_else(MemoryStore::new, |host| host.store.crash(0));
        let machine = Machine::open(config, &store, self.now).unwrap();
        self.hosts.insert(at, Host { machine, store, up: true, stalls: false });
        self.connect_all();
    }

    fn warnings_at(&self, number: usize) -> Vec<String> {
        self.machine(number).cluster_status(self.now).warnings
    }

    fn logged(&self, part: &str) -> usize {
        self.warnings.iter().filter(|line| line.contains(part)).count()
    }
}

#[test]
fn a_node_with_other_settings_is_named_until_they_are_mended() {
    let mut all = Lockstep::new(4, 2);
    let mended = config(3, 4, 2);
    let reason = format!("node3:8085 {DIFFERS} this node; start all with the same");
    for differing in [
        Config { shard_count: Some(1), ..mended.clone() },
        Config { partitions: 16, ..mended.clone() },
        Config { view: vec![node(1), node(3)], shard_count: Some(1), ..mended.clone() },
    ] {
        all.start_as(differing.clone());
        all.run_ms(4_000);
        for number in [1, 2, 4] {
            assert!(!all.machine(number).map().is_born(), "{differing:?}");
            assert_eq!(all.machine(number).readiness(all.now), Err(reason.clone()));
            assert_eq!(all.warnings_at(number), std::slice::from_ref(&reason));
        }
        let theirs = all.machine(3).readiness(all.now).unwrap_err();
        assert!(theirs.starts_with("node1:8085") && theirs.contains(DIFFERS), "{theirs}");
    }
    assert_eq!(all.logged(&reason), 3, "once at each node, however often it comes back so: {:?}", all.warnings);
    all.start_as(mended);
    all.run_ms(2_000);
    for number in 1..=4 {
        assert_eq!(all.machine(number).readiness(all.now), Ok(()));
        assert_eq!(all.warnings_at(number), [""; 0]);
    }
}

#[test]
fn a_view_with_somebody_too_many_is_named_where_it_was_given_too() {
    let mut all = Lockstep::new(4, 2);
    all.start_as(Config { view: (1..=5).map(node).collect(), ..config(4, 4, 2) });
    all.run_ms(4_000);
    let theirs = all.machine(4).readiness(all.now).unwrap_err();
    assert!(theirs.starts_with("waiting for node5:8085 to start; node1:8085") && theirs.contains(DIFFERS), "{theirs}");
    assert_eq!(
        all.machine(1).readiness(all.now),
        Err(format!("node4:8085 {DIFFERS} this node; start all with the same"))
    );
}

#[test]
fn who_is_waited_for_before_the_birth_is_logged_once() {
    let mut all = Lockstep::new(3, 1);
    all.hosts.get_mut(&node(3)).unwrap().up = false;
    all.run_ms(10_000);
    assert_eq!(all.logged("waiting for node3:8085 to start"), 2, "{:?}", all.warnings);
}

#[test]
fn who_is_not_heard_any_more_is_logged_and_who_is_heard_again() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let lines = |all: &Lockstep| (all.logged("node3:8085 is not heard"), all.notes.len());
    all.cut = (1..=4).map(|other| (node(3), node(other))).collect();
    all.run_ms(2_500);
    assert_eq!(lines(&all), (0, 0), "not yet");
    all.run_ms(1_500);
    assert_eq!(lines(&all), (3, 0), "once at each other node: {:?}", all.warnings);
    assert_eq!(all.logged("is not heard"), 3, "it hears all of them itself: {:?}", all.warnings);
    all.cut.clear();
    all.run_ms(1_000);
    assert_eq!(lines(&all), (3, 3));
    let again = "node3:8085 is heard again";
    assert!(all.notes.iter().all(|(at, text)| *at != node(3) && text == again), "{:?}", all.notes);
}

#[test]
fn whatever_a_node_says_keeps_it_in_the_view() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all.loses = |from, _, message| *from == node(3) && matches!(message, Message::Ping(_) | Message::Pong(_));
    for turn in 0..10 {
        all.put(1, "a", &turn.to_string(), &Context::empty());
        all.run_ms(1_000);
        for number in 1..=3 {
            assert_eq!(all.machine(number).view(all.now), [1, 2, 3].map(node), "at node{number}");
        }
    }
    assert_eq!(all.logged("is not heard"), 0, "{:?}", all.warnings);
}

#[test]
fn other_settings_after_the_birth_are_a_line_and_harm_nothing() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let context = all.put(1, "a", "1", &Context::empty());
    let map = all.machine(1).map().clone();
    let late = Config { shard_count: Some(1), partitions: 16, view: vec![node(2), node(3)], ..config(3, 4, 2) };
    all.start_as(late);
    all.run_ms(4_000);
    assert_eq!(
        all.warnings_at(3),
        [
            "SHARD_COUNT is 1 here, but the store has 2 shards; it is not looked at".to_owned(),
            "PARTITIONS is 16 here, but the store has 8, for ever".to_owned(),
            "VIEW names other nodes here than the store has; it is not looked at".to_owned(),
            format!("node1:8085 {DIFFERS} this node"),
            format!("node2:8085 {DIFFERS} this node"),
            format!("node4:8085 {DIFFERS} this node"),
        ]
    );
    assert_eq!(all.warnings_at(1), [format!("node3:8085 {DIFFERS} this node")]);
    assert_eq!(all.logged("SHARD_COUNT is 1 here"), 1);
    assert_eq!(all.machine(3).readiness(all.now), Ok(()));
    assert_eq!(all.machine(3).map(), &map, "nothing has changed");
    assert!(matches!(all.get(3, "a", &context), Response::Value { value, .. } if value == "1"));
    all.put(3, "a", "2", &context);
}

#[test]
fn a_settings_line_goes_when_the_store_is_as_it_says() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.asked += 1;
    all.step(&node(1), Input::Change { id: all.asked, wanted: Wanted::Reshard(3), budget_ms: 5_000 });
    all.run_ms(8_000);
    let line = "SHARD_COUNT is 2 here, but the store has 3 shards; it is not looked at";
    assert_eq!(all.warnings_at(4), [line]);
    all.start_as(Config { shard_count: Some(3), ..config(4, 6, 2) });
    all.run_ms(2_000);
    assert!(!all.warnings_at(4).contains(&line.to_owned()), "{:?}", all.warnings_at(4));
}

#[test]
fn shards_and_voters_without_live_nodes_are_named() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let shard = all.machine(1).map().layout.shards[1].clone();
    assert_eq!(shard, [node(3), node(4)]);
    all.stop(4);
    assert_eq!(
        all.warnings_at(1)[0],
        "shard 2 is degraded: node3:8085 is its only live node".to_owned(),
        "{:?}",
        all.warnings_at(1)
    );
    all.stop(3);
    let voters = &all.machine(1).map().voters;
    let silent: Vec<String> = [3, 4]
        .into_iter()
        .filter(|number| voters.contains(&all.machine(*number).incarnation()))
        .map(|number| node(number).to_string())
        .collect();
    assert_eq!(
        all.warnings_at(1),
        [
            "shard 2 has no live node: its keys can't be read or written".to_owned(),
            format!("voters out of reach: {}", silent.join(", ")),
        ]
    );
}

#[test]
fn a_full_disk_and_a_clock_far_ahead_are_named() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    all.step(&node(1), Input::DiskFull(true));
    assert_eq!(all.warnings_at(1), ["the disk is full: free space in DATA_DIR or add nodes"]);
    all.step(&node(1), Input::DiskFull(false));
    assert_eq!(all.warnings_at(1), [""; 0]);
    // The clock of one node alone jumps by an hour.
    all.skew_ms.insert(node(1), 3_600_000);
    all.run_ms(2_000);
    assert_eq!(all.warnings_at(1), ["this node's wall clock is more than a minute ahead of every peer: it is ignored"]);
}

#[test]
fn a_disk_that_was_lost_with_partitions_is_named_until_they_are_closed() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    all.put(1, "a", "1", &Context::empty());
    // Nobody is left to close what it held: the other member is down, too.
    all.stop(3);
    all.hosts.remove(&node(4));
    all.run_ms(1_000);
    all.start_as(Config { seed: [77; 32], ..config(4, 4, 2) });
    all.run_ms(5_000);
    let lines = all.warnings_at(1);
    assert!(
        lines.iter().any(|line| line.starts_with("node4:8085 lost its data directory with 4 partitions")),
        "{lines:?}"
    );
    all.start_as(config(3, 4, 2));
    all.run_ms(8_000);
    assert_eq!(all.warnings_at(1), [""; 0]);
}
