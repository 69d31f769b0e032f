//! Data directories that are not what they should be are refused, in words, and harm nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::harness::{Cluster, wait_until};

/// Time enough for a machine with much to do.
const SOON: Duration = Duration::from_secs(20);

/// Writes a few keys, each on two disks, at one node, in the session that has seen this much; what it has seen then.
fn write(node: &str, keys: std::ops::Range<usize>, context: String) -> String {
    let mut client = Client::seen(context);
    for key in keys {
        let answer = client.put(node, &format!("key{key}"), &json!(key)).expect("it answers");
        assert!(answer.is_done() && answer.copies == Some(2), "{answer:?}");
    }
    client.context
}

/// Each node answers the writer's session with each key. The context is what obliges it to: the writer is killed with
/// each write on one disk beside its own, and the third node has them only once that one has told it.
fn read(nodes: &[String], keys: usize, context: &str) {
    for (at, node) in nodes.iter().enumerate() {
        let mut client = Client::seen(context.to_owned());
        for key in 0..keys {
            let answer = client.get(node, &format!("key{key}")).expect("it answers");
            assert_eq!((answer.status, &answer.json["value"]), (200, &json!(key)), "key{key} at node{}", at + 1);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("it is there").map(|entry| entry.expect("it can be read")) {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("it has one").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("it can be copied")),
        }
    }
}

/// Waits until a node has refused to go on, and what it said last has this in it.
fn is_refused(cluster: &mut Cluster, node: usize, why: &str) {
    let mut ended = None;
    wait_until("it refuses", SOON, || {
        ended = cluster.ended(node);
        ended.is_some()
    });
    let said = cluster.said(node);
    let last = said.lines().rfind(|line| line.contains(why));
    assert!(ended.is_some_and(|status| !status.success()) && last.is_some(), "{ended:?}, and no '{why}' in:\n{said}");
}

#[test]
fn a_directory_is_refused_under_another_address_and_as_a_restored_backup() {
    let mut cluster = Cluster::start(3, 1);
    let nodes = cluster.nodes.clone();
    let first = write(&nodes[2], 0..100, String::new());
    cluster.kill(2);
    let (own, kept) = (cluster.data_dir(2), cluster.data_dir(2).with_extension("kept"));
    copy(&own, &kept);

    // Another node's directory, under this address.
    cluster.kill(1);
    let (strange, aside) = (cluster.data_dir(1), own.with_extension("own"));
    fs::rename(&own, &aside).expect("it can be moved");
    copy(&strange, &own);
    cluster.restart(2);
    is_refused(&mut cluster, 2, &format!("belongs to {}", nodes[1]));
    fs::remove_dir_all(&own).expect("it is there");
    fs::rename(&aside, &own).expect("it can be moved");
    for node in [1, 2] {
        cluster.restart(node);
    }
    cluster.wait_ready();
    read(&nodes, 100, &first);

    // A backup from before: others hold more of its writes than it knows.
    let second = write(&nodes[2], 100..200, first);
    cluster.kill(2);
    fs::rename(&own, &aside).expect("it can be moved");
    copy(&kept, &own);
    cluster.restart(2);
    is_refused(&mut cluster, 2, "restored from a backup, or copied");
    read(&nodes[..2], 200, &second);
    // The remedy: the right one, or an empty one.
    fs::remove_dir_all(&own).expect("it is there");
    cluster.restart(2);
    cluster.wait_ready();
    wait_until("it is back", SOON, || cluster.view(0).is_ok_and(|view| view.len() == 3));
    read(&nodes, 200, &second);
}
