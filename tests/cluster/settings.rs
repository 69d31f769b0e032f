//! Settings that differ between nodes, before and after the store's birth; other stores; the largest values.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::harness::{Cluster, machine, wait_until};

const VIEW: &str = "/key-value-store-view";
const DIFFERS: &str = "started with another VIEW, SHARD_COUNT or PARTITIONS than this node";

/// The contract: a store is born so soon after the last node that it waited for.
const BORN_WITHIN: Duration = Duration::from_secs(5);

fn ask(node: &str, path: &str) -> Answer {
    Client::new().ask(node, path).expect("the node answers")
}

fn reason(node: &str) -> String {
    match Client::new().ask(node, "/readyz") {
        Ok(answer) => answer.json["reason"].as_str().unwrap_or_default().to_owned(),
        Err(_) => String::new(),
    }
}

fn warnings(node: &str) -> Vec<String> {
    let mut status = ask(node, "/status").json;
    serde_json::from_value(status["warnings"].take()).expect("warnings are sentences")
}

/// A node whose settings differ holds up the birth, and every node says so, in `/readyz` and in its log.
fn held_up_by(name: &str, value: impl Fn(&[String]) -> String) {
    let mut cluster = Cluster::prepare(4, 2, &[], Some(machine()));
    for node in 0..3 {
        cluster.restart(node);
    }
    let last = cluster.nodes[3].clone();
    wait_until("who is missing is named", BORN_WITHIN, || {
        reason(&cluster.nodes[0]) == format!("waiting for {last} to start")
    });
    let differing = value(&cluster.nodes);
    cluster.restart_with(3, &[(name, &differing)]);
    let named = format!("{last} {DIFFERS}; start all with the same");
    for node in 0..3 {
        wait_until(&format!("{name}={differing} is named"), BORN_WITHIN, || reason(&cluster.nodes[node]) == named);
        wait_until("its log says so", BORN_WITHIN, || cluster.said(node).contains(&named));
    }
    wait_until("it names the others", BORN_WITHIN, || reason(&last).contains(DIFFERS));
    let refused = Client::new().put(&cluster.nodes[1], "key", &json!(1)).expect("the node answers");
    assert_eq!(refused.status, 503, "{refused:?}");
    cluster.kill(3);
    cluster.restart(3);
    wait_until("the store is born", BORN_WITHIN, || ask_ready(&cluster.nodes));
}

fn ask_ready(nodes: &[String]) -> bool {
    nodes.iter().all(|node| Client::new().ask(node, "/readyz").is_ok_and(|answer| answer.status == 200))
}

#[test]
fn another_shard_count_holds_up_the_birth() {
    held_up_by("SHARD_COUNT", |_| "1".to_owned());
}

#[test]
fn another_number_of_partitions_holds_up_the_birth() {
    held_up_by("PARTITIONS", |_| "64".to_owned());
}

#[test]
fn another_view_holds_up_the_birth() {
    held_up_by("VIEW", |nodes| format!("{},{}", nodes.join(","), nodes[3].replace("4:", "5:")));
}

#[test]
fn settings_that_differ_after_the_birth_are_lines_and_harm_nothing() {
    let mut cluster = Cluster::start(4, 2);
    let nodes = cluster.nodes.clone();
    let mut client = Client::new();
    for number in 0..40 {
        assert!(client.put(&nodes[number % 4], &format!("key{number}"), &json!(number)).expect("it answers").is_done());
    }
    cluster.kill(2);
    let view = format!("{},{}", nodes[2], nodes[0]);
    cluster.restart_with(2, &[("SHARD_COUNT", "1"), ("PARTITIONS", "64"), ("VIEW", &view)]);
    cluster.wait_ready();
    let own = [
        "SHARD_COUNT is 1 here, but the store has 2 shards; it is not looked at",
        "PARTITIONS is 64 here, but the store has 256, for ever",
        "VIEW names other nodes here than the store has; it is not looked at",
    ];
    for line in own {
        wait_until(line, BORN_WITHIN, || warnings(&nodes[2]).contains(&line.to_owned()));
        assert_eq!(cluster.said(2).matches(line).count(), 1, "{}", cluster.said(2));
    }
    let line = format!("{} {DIFFERS}", nodes[2]);
    for other in [0, 1, 3] {
        wait_until("the others name it", BORN_WITHIN, || warnings(&nodes[other]).contains(&line));
    }
    for number in 0..40 {
        for node in &nodes {
            let answer = client.get(node, &format!("key{number}")).expect("the node answers");
            assert_eq!((answer.status, &answer.json["value"]), (200, &json!(number)), "at {node}");
        }
    }
    assert_eq!(ask(&nodes[2], "/key-value-store-shard/shard-ids").json["shard-ids"], json!([1, 2]));
}

fn admit(at: &str, node: &str) -> Answer {
    Client::patient().change("PUT", at, VIEW, &json!({ "socket-address": node })).expect("the node answers")
}

#[test]
fn a_node_of_another_store_is_not_admitted_and_the_answer_says_why() {
    let cluster = Cluster::start(2, 1);
    let other = cluster.start_beside(2, 1);
    let id = |node: &str| ask(node, "/status").json["cluster-id"].as_str().expect("an id").to_owned();
    let (ours, theirs) = (id(&cluster.nodes[0]), id(&other.nodes[0]));
    let before = ask(&cluster.nodes[0], "/status").json["epoch"].clone();
    let refused = admit(&cluster.nodes[0], &other.nodes[1]);
    assert_eq!((refused.status, &refused.json["message"]), (503, &json!("Error in PUT")), "{refused:?}");
    let error = refused.json["error"].as_str().expect("a sentence");
    let wanted = format!(
        "{} can't be a node of this store: it says 'this node belongs to the store {theirs}, not to {ours}'",
        other.nodes[1]
    );
    assert_eq!(error, wanted);
    for (store, nodes) in [(&cluster, &cluster.nodes), (&other, &other.nodes)] {
        for node in 0..2 {
            assert_eq!(store.view(node).expect("the node answers"), *nodes);
        }
    }
    assert_eq!(ask(&cluster.nodes[0], "/status").json["epoch"], before, "nothing has changed");
    // Nobody at all, and one of ours by another name, say so, too.
    let nobody = admit(&cluster.nodes[0], &cluster.nodes[0].replace(".1:", ".99:"));
    assert_eq!(nobody.status, 503, "{nobody:?}");
    assert!(nobody.json["error"].as_str().is_some_and(|error| error.contains("does not answer")), "{nobody:?}");
}

#[test]
fn the_largest_value_goes_everywhere() {
    let mut cluster = Cluster::start_with(3, 1, &[("MAX_VALUE_BYTES", "6291456")]);
    let nodes = cluster.nodes.clone();
    let mut client = Client::new();
    let value = Value::String("v".repeat(6_291_456 - 2));
    let done = client.put(&nodes[0], "large", &value).expect("the node answers");
    assert_eq!((done.status, done.copies >= Some(2)), (201, true), "{:?}", done.json["error"]);
    for node in &nodes {
        assert_eq!(client.get(node, "large").expect("the node answers").json["value"], value, "at {node}");
    }
    let above = Value::String("v".repeat(6_291_456 - 1));
    assert_eq!(client.put(&nodes[0], "larger", &above).expect("the node answers").status, 413);
    // By a fill, too, and forwarded by who is not filled yet.
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data_dir(2)).expect("its data can be removed");
    cluster.restart(2);
    cluster.wait_ready();
    wait_until("it is filled again", Duration::from_secs(20), || {
        let status = ask(&nodes[2], "/status").json;
        let own = status["nodes"].as_array().and_then(|all| all.iter().find(|node| node["node"] == json!(nodes[2])));
        own.is_some_and(|own| own["keys"] == json!(1))
    });
    assert_eq!(client.get(&nodes[2], "large").expect("the node answers").json["value"], value);
    let again = client.put(&nodes[2], "large2", &value).expect("the node answers");
    assert!(again.is_done(), "{:?}", again.json["error"]);
}
