//! kill -9, of one node under load, of all at once, and over and over: nothing acknowledged is ever missing.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, LOOK_EVERY, wait_until};
use crate::load::{Load, Written};

/// Writers, and keys of each.
const WRITERS: usize = 8;
const KEYS: usize = 25;

/// Waits until so many more writes are acknowledged.
fn progress(load: &Load, writes: u64, when: &str) {
    let goal = load.done() + writes;
    wait_until(&format!("{writes} writes are acknowledged {when}"), Duration::from_secs(30), || load.done() >= goal);
}

#[test]
fn any_one_node_killed_under_load() {
    let mut cluster = Cluster::start(6, 2);
    let mut written = Written::default();
    for victim in 0..6 {
        let load = Load::start(&cluster.nodes, WRITERS, KEYS, &written);
        progress(&load, 200, "before the kill");
        cluster.kill(victim);
        let gone = cluster.nodes[victim].clone();
        let survivor = (victim + 1) % 6;
        progress(&load, 200, "while the node is down");
        wait_until("the node leaves the view", Duration::from_secs(5), || {
            !cluster.view(survivor).expect("a survivor answers").contains(&gone)
        });
        cluster.restart(victim);
        cluster.wait_ready();
        wait_until("the node is back in the view", Duration::from_secs(5), || {
            cluster.view(survivor).expect("a survivor answers").contains(&gone)
        });
        progress(&load, 200, "after its return");
        written = load.stop();
        assert_eq!(written.len(), WRITERS * KEYS, "the load reached all keys");
        written.check(&cluster.nodes[victim]);
        written.check(&cluster.nodes[survivor]);
    }
}

#[test]
fn all_six_killed_at_once() {
    let mut cluster = Cluster::start(6, 2);
    let load = Load::start(&cluster.nodes, WRITERS, KEYS, &Written::default());
    progress(&load, 1_000, "before the kill");
    cluster.kill_all();
    let written = load.stop();
    assert_eq!(written.len(), WRITERS * KEYS, "the load reached all keys");
    for node in 0..6 {
        cluster.restart(node);
    }
    cluster.wait_ready();
    for node in &cluster.nodes {
        written.check(node);
    }
}

#[test]
fn twenty_rounds_of_kill_9_at_random_moments() {
    let mut cluster = Cluster::start(2, 1);
    let mut written = Written::default();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..20 {
        let load = Load::start(&cluster.nodes, 4, KEYS, &written);
        // By time, not by progress: any moment will do, the more different the better.
        let moment = Instant::now() + Duration::from_millis(random.below(400));
        while Instant::now() < moment {
            std::thread::sleep(LOOK_EVERY.min(moment.saturating_duration_since(Instant::now())));
        }
        let victims: &[usize] = [&[0][..], &[1], &[0, 1]][round % 3];
        if victims.len() == 2 {
            cluster.kill_all();
        } else {
            cluster.kill(victims[0]);
        }
        for victim in victims {
            cluster.restart(*victim);
        }
        cluster.wait_ready();
        progress(&load, 10, "after the return");
        written = load.stop();
        for node in &cluster.nodes {
            written.check(node);
        }
    }
    assert_eq!(written.len(), 4 * KEYS, "the load reached all keys");
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % bound
    }
}
