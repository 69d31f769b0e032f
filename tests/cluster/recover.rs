//! A majority of the voters is lost for good, or a node never comes up, and the operator goes on by force.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::harness::{Cluster, entail, wait_until};

const VIEW: &str = "/key-value-store-view";
const RESHARD: &str = "/key-value-store-shard/reshard";
const KEYS: usize = 500;

/// Time enough for a machine with much to do.
const SOON: Duration = Duration::from_secs(20);

/// Requests that wait for what never comes are over soon.
const DEADLINE: &[(&str, &str)] = &[("DEADLINE_MS", "3000")];

fn change(node: &str, method: &str, path: &str, body: Value) -> Answer {
    Client::patient().change(method, node, path, &body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

fn recover(node: &str, arguments: &[&str]) -> Output {
    entail().arg("recover").args(arguments).args(["--node", node]).output().expect("the program runs")
}

/// Writes all keys, each on two disks.
fn write_keys(nodes: &[String]) {
    let mut client = Client::new();
    for number in 0..KEYS {
        let node = &nodes[number % nodes.len()];
        let answer = client.put(node, &format!("key{number}"), &json!(number)).expect("the node answers");
        assert!(answer.is_done() && answer.copies == Some(2), "{answer:?}");
    }
}

fn read_keys(nodes: &[String]) {
    let mut client = Client::new();
    for number in 0..KEYS {
        let node = &nodes[number % nodes.len()];
        client.context.clear();
        let answer = client.get(node, &format!("key{number}")).expect("the node answers");
        assert_eq!((answer.status, &answer.json["value"]), (200, &json!(number)), "key{number} at {node}");
    }
}

fn view(node: &str) -> Vec<String> {
    let answer = Client::new().ask(node, VIEW).expect("the node answers");
    serde_json::from_value(answer.json["view"].clone()).expect("a view is a list of addresses")
}

fn wait_for_view(node: &str, count: usize) {
    wait_until(&format!("{node} sees {count} nodes"), SOON, || view(node).len() == count);
}

#[test]
fn of_two_nodes_one_goes_on_when_the_other_is_lost_for_good() {
    let mut cluster = Cluster::start_with(2, 1, DEADLINE);
    write_keys(&cluster.nodes);
    let (left, lost) = (cluster.nodes[0].clone(), cluster.nodes[1].clone());
    let refused = change(&left, "POST", "/admin/recover", json!({"confirm": true}));
    assert_eq!(refused.status, 409, "both live: {refused:?}");
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data_dir(1)).expect("its directory is there");
    wait_for_view(&left, 1);

    // Keys are read and written; the map stands still, and who is missing is named.
    let mut session = Client::new();
    assert!(session.put(&left, "alone", &json!(1)).expect("it answers").is_done());
    let locked = change(&left, "POST", "/admin/forget", json!({"socket-address": lost, "confirm": true}));
    assert_eq!(locked.status, 503, "{locked:?}");
    assert_eq!(locked.json["error"], json!(format!("No quorum; waiting for {lost}")));

    // Asked without a terminal it tells the cost, and does nothing.
    let unforced = recover(&left, &[]);
    assert_eq!(unforced.status.code(), Some(2));
    let asked = recover(&left, &["--force"]);
    let told = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(told.contains(&format!("This gives up {lost} for ever")) && told.contains("nothing was done"), "{told}");
    assert_eq!(asked.status.code(), Some(1));
    let done = recover(&left, &["--force", "--yes"]);
    let answer: Value = serde_json::from_slice(&done.stdout).expect("an answer");
    assert_eq!(answer, json!({"message": "Store recovered", "lost-partitions": 0}));
    assert!(done.status.success());

    // A new node is taken up, and then the lost one's address, with a new disk.
    let added = cluster.add();
    wait_for_view(&left, 2);
    let resharded = change(&left, "PUT", RESHARD, json!({"shard-count": 1}));
    assert_eq!(resharded.status, 200, "{resharded:?}");
    let new = cluster.nodes[added].clone();
    read_keys(&[left.clone(), new.clone()]);
    assert_eq!(session.get(&new, "alone").expect("it answers").json["value"], json!(1));
    cluster.restart(1);
    wait_for_view(&left, 3);
    let resharded = change(&lost, "PUT", RESHARD, json!({"shard-count": 1}));
    assert_eq!(resharded.status, 200, "{resharded:?}");
    // The disk that was left alone is not needed any more.
    cluster.kill(0);
    wait_for_view(&new, 2);
    read_keys(&[new, lost]);
}

#[test]
fn of_two_nodes_one_that_lost_its_disk_is_taken_up_by_the_other() {
    let mut cluster = Cluster::start(2, 1);
    write_keys(&cluster.nodes);
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data_dir(1)).expect("its directory is there");
    cluster.restart(1);
    cluster.wait_ready();
    let back = cluster.nodes[1].clone();
    let own_keys = || {
        let status = Client::new().ask(&back, "/status").expect("it answers").json;
        let own = status["nodes"].as_array().and_then(|all| all.iter().find(|node| node["node"] == json!(back)));
        own.and_then(|own| own["keys"].as_u64())
    };
    wait_until("it holds all keys again", SOON, || own_keys() == Some(KEYS as u64));
    cluster.kill(0);
    wait_for_view(&back, 1);
    read_keys(&[back]);
}

#[test]
fn whoever_was_given_up_sets_its_data_aside_and_begins_anew() {
    let mut cluster = Cluster::start_with(6, 2, DEADLINE);
    write_keys(&cluster.nodes);
    // What is on two disks of three comes to the third.
    std::thread::sleep(Duration::from_secs(2));
    // The voters are nodes 1, 4, 2, 5 and 3.
    for lost in [0, 1, 3] {
        cluster.kill(lost);
    }
    let left: Vec<String> = [2, 4, 5].iter().map(|node| cluster.nodes[*node].clone()).collect();
    left.iter().for_each(|node| wait_for_view(node, 3));
    let cost = change(&left[0], "POST", "/admin/recover", json!({}));
    assert_eq!(cost.status, 409, "{cost:?}");
    let text = cost.json["error"].as_str().unwrap_or_default();
    assert!([0, 1, 3].iter().all(|lost| text.contains(&cluster.nodes[*lost])), "{text}");
    // Asked twice at once it is done once.
    let other = std::thread::spawn({
        let node = left[2].clone();
        move || change(&node, "POST", "/admin/recover", json!({"confirm": true}))
    });
    let done = change(&left[1], "POST", "/admin/recover", json!({"confirm": true}));
    let also = other.join().expect("it is answered");
    assert_eq!((done.status, also.status), (200, 200), "{done:?} {also:?}");
    let epoch = |node: &String| Client::new().ask(node, "/status").expect("it answers").json["epoch"].as_u64();
    wait_until("all have the map", SOON, || left.iter().all(|node| epoch(node) == epoch(&left[0])));
    assert!(epoch(&left[0]) > Some(1 << 20));
    read_keys(&left);

    for lost in [0, 1, 3] {
        cluster.restart(lost);
        cluster.wait_ready();
        let aside = cluster.data_dir(lost).join("forgotten-1");
        wait_until("its data is aside", SOON, || aside.is_dir());
    }
    wait_for_view(&left[0], 6);
    let resharded = change(&left[1], "PUT", RESHARD, json!({"shard-count": 2}));
    assert_eq!(resharded.status, 200, "{resharded:?}");
    read_keys(&cluster.nodes);
}

#[test]
fn a_store_begins_without_a_node_that_never_comes_up() {
    let mut cluster = Cluster::start_some(4, 2, &[0, 1, 2]);
    let missing = cluster.nodes[3].clone();
    let there = cluster.nodes[..3].to_vec();
    let ready = Client::new().ask(&there[1], "/readyz").expect("it answers");
    assert_eq!(ready.status, 503);
    let body = json!({"socket-address": missing, "confirm": true});
    let mut born = None;
    wait_until("the nodes hear each other", SOON, || {
        let answer = change(&there[1], "POST", "/admin/birth", body.clone());
        let done = answer.status != 503;
        born = Some(answer);
        done
    });
    let born = born.expect("it was asked");
    assert_eq!((born.status, &born.json), (200, &json!({"message": "Store born"})));
    cluster.wait_ready();
    let mut client = Client::new();
    for number in 0..KEYS {
        let answer = client.put(&there[number % 3], &format!("key{number}"), &json!(number)).expect("it answers");
        assert!(answer.is_done(), "{answer:?}");
    }
    // It comes up after all, in the place that was kept for it.
    cluster.restart(3);
    cluster.wait_ready();
    let own_shard = || Client::new().ask(&missing, "/key-value-store-shard/node-shard-id").expect("it answers").json;
    wait_until("it is in its shard", SOON, || own_shard()["shard-id"] == json!(2));
    wait_for_view(&there[0], 4);
    read_keys(&cluster.nodes);
    let ids = |node: &String| Client::new().ask(node, "/status").expect("it answers").json["cluster-id"].clone();
    assert!(cluster.nodes.iter().all(|node| ids(node) == ids(&there[0])));
}
