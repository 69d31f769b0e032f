//! How long a session's context gets: short while all is well, bounded while a node is down, short again afterwards.

use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::harness::Cluster;

const WRITES: usize = 600;
const PAUSE: Duration = Duration::from_millis(10);

/// Writes round robin over `nodes` in one session, with pauses between; gives the session.
fn session(nodes: &[String]) -> Client {
    let mut client = Client::new();
    for number in 0..WRITES {
        let node = &nodes[number % nodes.len()];
        let answer = client.put(node, &format!("key{number}"), &json!(number)).expect("a live node answers");
        assert!(answer.is_done(), "key{number} at {node}: {answer:?}");
        std::thread::sleep(PAUSE);
    }
    client
}

#[test]
fn contexts_stay_short() {
    let mut cluster = Cluster::start(6, 2);
    let client = session(&cluster.nodes);
    assert!(client.context.len() < 80, "{} characters with all nodes up", client.context.len());

    cluster.kill(5);
    let mut client = session(&cluster.nodes[..5]);
    assert!(client.context.len() < 3_000, "{} characters with a node down", client.context.len());

    cluster.restart(5);
    cluster.wait_ready();
    // What the contract gives the store to tell what has become stable.
    std::thread::sleep(Duration::from_secs(2));
    let answer = client.put(&cluster.nodes[5], "last", &json!("one")).expect("the node answers");
    assert!(answer.is_done(), "{answer:?}");
    assert!(client.context.len() < 80, "{} characters after the node's return", client.context.len());
}
