//! Who dies leaves the others' view, and who is back is in it again: by itself, each within five seconds.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Cluster, wait_until};

/// The contract, from the last sign of life, and from being reachable again.
const WITHIN: Duration = Duration::from_secs(5);

/// How long it takes until a node is in, or out of, the view of all others.
fn until(cluster: &Cluster, node: usize, there: bool, what: &str) -> Duration {
    let begin = Instant::now();
    let others = (0..cluster.nodes.len()).filter(|other| *other != node);
    for other in others {
        let left = WITHIN.saturating_sub(begin.elapsed());
        wait_until(&format!("{what}: seen by {}", cluster.nodes[other]), left, || {
            cluster.view(other).is_ok_and(|view| view.contains(&cluster.nodes[node]) == there)
        });
    }
    eprintln!("{what}: {:.2} s", begin.elapsed().as_secs_f64());
    begin.elapsed()
}

#[test]
fn nodes_leave_the_view_and_come_back_within_five_seconds() {
    let mut cluster = Cluster::start(4, 2);
    // The lowest address proposes maps; the other is just somebody.
    for node in [0, 3] {
        cluster.kill(node);
        until(&cluster, node, false, "kill -9 to out of every view");
        cluster.restart(node);
        until(&cluster, node, true, "restart to back in every view");
        cluster.signal(node, Signal::STOP);
        until(&cluster, node, false, "SIGSTOP to out of every view");
        cluster.signal(node, Signal::CONT);
        until(&cluster, node, true, "SIGCONT to back in every view");
        wait_until("it has everybody in its own view", WITHIN, || {
            cluster.view(node).is_ok_and(|view| view.len() == cluster.nodes.len())
        });
    }
    cluster.kill(3);
    std::fs::remove_dir_all(cluster.data_dir(3)).expect("it is there");
    until(&cluster, 3, false, "kill -9 to out of every view");
    cluster.restart(3);
    until(&cluster, 3, true, "start without its disk to back in every view");
    let new = cluster.add();
    until(&cluster, new, true, "first start at a new address to in every view");
}
