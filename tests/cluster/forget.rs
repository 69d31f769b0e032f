//! A node is given up that holds writes which nobody else has: how many is told first, wherever it is asked.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::changes::field;
use crate::client::Client;
use crate::harness::{Cluster, entail, wait_until};

const SHARD_MEMBERS: &str = "/key-value-store-shard/shard-id-members/1";

/// Time enough for a machine with much to do.
const SOON: Duration = Duration::from_secs(20);

/// Between two signs of life, and a moment.
const TOLD_WITHIN: Duration = Duration::from_millis(1_500);

/// `entail forget`, with this typed at its question.
pub fn forget(lost: &str, node: &str, typed: &str) -> Output {
    let mut command = entail();
    command.args(["forget", lost, "--node", node]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    child.stdin.take().expect("it is piped").write_all(typed.as_bytes()).expect("it reads, or has ended");
    child.wait_with_output().expect("it ends")
}

#[test]
fn writes_that_only_a_lost_node_had_are_told_before_it_is_forgotten() {
    let mut cluster = Cluster::start(6, 3);
    let members = field(&cluster.nodes[0], SHARD_MEMBERS, "shard-id-members");
    let member = |at: usize| cluster.nodes.iter().position(|node| json!(node) == members[at]).expect("one of them");
    let (alone, other) = (member(0), member(1));
    cluster.kill(other);
    wait_until("it is out of the view", SOON, || {
        cluster.view(alone).is_ok_and(|view| !view.contains(&cluster.nodes[other]))
    });
    let on_one_disk = |number: &usize| {
        let answer = Client::new().put(&cluster.nodes[alone], &format!("key{number}"), &json!(number));
        let answer = answer.expect("it answers");
        assert!(answer.is_done(), "{answer:?}");
        answer.copies == Some(1)
    };
    assert_eq!((0..1_000).filter(on_one_disk).take(12).count(), 12);
    std::thread::sleep(TOLD_WITHIN);
    cluster.kill(alone);
    cluster.restart(other);
    let asked = (0..6).find(|node| ![alone, other].contains(node)).expect("there are six");
    wait_until("one is back, the other is gone", SOON, || {
        let there = [(other, true), (alone, false)];
        there.iter().all(|(at, is)| cluster.view(asked).is_ok_and(|view| view.contains(&cluster.nodes[*at]) == *is))
    });
    let (lost, asked) = (cluster.nodes[alone].clone(), cluster.nodes[asked].clone());

    for no in ["n\n", "", "perhaps\n"] {
        let told = forget(&lost, &asked, no);
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(said.starts_with("This may lose 12 writes that only this node holds. "), "{said}");
        assert!(said.contains(&format!("{lost} is given up for ever, with all that only it has")), "{said}");
        assert!(said.contains("Go on? [y/N]") && said.contains("nothing was done"), "{said}");
        assert_eq!((told.status.code(), told.stdout.len()), (Some(1), 0));
    }
    let nodes = |node: &str| field(node, "/status", "nodes").as_array().map(Vec::len);
    assert_eq!(nodes(&asked), Some(6), "nothing was done");

    let done = forget(&lost, &asked, "y\n");
    let answer: Value = serde_json::from_slice(&done.stdout).expect("an answer");
    assert_eq!(answer, json!({"message": "Node forgotten", "lost-writes": 12}));
    assert!(done.status.success());
    assert_eq!(nodes(&asked), Some(5));
}
