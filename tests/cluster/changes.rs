//! The map changes while clients work: reshards, members more and less, disks that are lost.

use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::harness::{Cluster, wait_until};
use crate::sessions::{Outcome, Sessions};

pub const SHARD: &str = "/key-value-store-shard";
const VIEW: &str = "/key-value-store-view";

/// Clients under way while something changes.
const SESSIONS: usize = 6;

/// Keys that are there before anything changes.
const KEYS: usize = 2_000;

/// The contract: who starts, stops or comes back is in, or out of, everybody's view by then.
const VIEW_WITHIN: Duration = Duration::from_secs(5);

/// Other nodes than the one that was asked hear of a new map by then.
pub const HEARD_WITHIN: Duration = Duration::from_secs(2);

fn change(node: &str, method: &str, path: &str, body: Value) -> Answer {
    Client::patient().change(method, node, path, &body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

pub fn reshard(node: &str, count: u32) -> Answer {
    change(node, "PUT", &format!("{SHARD}/reshard"), json!({ "shard-count": count }))
}

pub fn reshard_behind(node: &str, count: u32) -> JoinHandle<Answer> {
    let node = node.to_owned();
    spawn(move || reshard(&node, count))
}

fn name(node: &str) -> Value {
    json!({ "socket-address": node })
}

pub fn field(node: &str, path: &str, name: &str) -> Value {
    Client::new().ask(node, path).map_or(Value::Null, |mut answer| answer.json[name].take())
}

pub fn expect(answer: &Answer, status: u16, body: Value) {
    assert_eq!((answer.status, &answer.json), (status, &body));
}

pub fn state(node: &str) -> Value {
    field(node, &format!("{SHARD}/reshard"), "state")
}

/// Keys with values of about 1 KiB.
fn write_keys(cluster: &Cluster) {
    let mut client = Client::new();
    for number in 0..KEYS {
        let node = &cluster.nodes[number % cluster.nodes.len()];
        let value = json!({ "number": number, "rest": "x".repeat(1_000) });
        let answer = client.put(node, &format!("key{number}"), &value).expect("the node answers");
        assert!(answer.is_done(), "{answer:?}");
    }
}

/// Every key is read, at one node after the other, by somebody who knows nothing.
fn read_keys(nodes: &[String]) {
    let mut client = Client::new();
    for number in 0..KEYS {
        let node = &nodes[(number + 1) % nodes.len()];
        client.context.clear();
        let answer = client.get(node, &format!("key{number}")).expect("the node answers");
        assert_eq!((answer.status, &answer.json["value"]["number"]), (200, &json!(number)), "key{number} at {node}");
    }
}

/// Every node says the same of the shards; gives the members of each.
fn shards_everywhere(nodes: &[String], count: usize) -> Vec<Vec<String>> {
    let ids: Vec<usize> = (1..=count).collect();
    for node in nodes {
        wait_until(&format!("{node} knows of {count} shards"), HEARD_WITHIN, || {
            field(node, &format!("{SHARD}/shard-ids"), "shard-ids") == json!(ids)
        });
    }
    let members = |id: &usize| {
        let path = format!("{SHARD}/shard-id-members/{id}");
        let first = field(&nodes[0], &path, "shard-id-members");
        for node in nodes {
            assert_eq!(field(node, &path, "shard-id-members"), first, "shard {id} at {node}");
        }
        serde_json::from_value(first).expect("members are addresses")
    };
    ids.iter().map(members).collect()
}

pub fn keys_in(nodes: &[String], shards: usize) -> Vec<u64> {
    let count = |id: usize| {
        let path = format!("{SHARD}/shard-id-key-count/{id}");
        let first = field(&nodes[0], &path, "shard-id-key-count");
        for node in nodes {
            assert_eq!(field(node, &path, "shard-id-key-count"), first, "shard {id} at {node}");
        }
        first.as_u64().expect("a count is a number")
    };
    (1..=shards).map(count).collect()
}

fn met(outcome: &Outcome, calm: Duration, when: &str) {
    assert!(outcome.failures.is_empty(), "{when}: {:#?}", outcome.failures);
    let ((longest, which), requests) = (outcome.longest(), outcome.requests.len());
    eprintln!("{when}: {requests} requests, the longest took {longest:?} ({calm:?} in calm): {which}");
}

/// The longest wait in a few seconds without any change.
fn calm(nodes: &[String]) -> Duration {
    let sessions = Sessions::start(nodes, SESSIONS);
    std::thread::sleep(Duration::from_secs(2));
    let outcome = sessions.stop();
    let longest = outcome.longest().0;
    met(&outcome, longest, "in calm");
    longest
}

#[test]
fn resharded_to_three_and_back_under_load() {
    let cluster = Cluster::start(6, 2);
    write_keys(&cluster);
    let calm = calm(&cluster.nodes);
    for (at, count) in [(1, 3), (4, 2)] {
        let sessions = Sessions::start(&cluster.nodes, SESSIONS);
        wait_until("the sessions are under way", Duration::from_secs(10), || sessions.done() > 200);
        expect(&reshard(&cluster.nodes[at], count), 200, json!({"message": "Resharding done successfully"}));
        let status = Client::new().ask(&cluster.nodes[at], &format!("{SHARD}/reshard")).expect("it answers").json;
        assert_eq!((&status["state"], &status["shard-count"]), (&json!("done"), &json!(count)), "{status}");
        assert_eq!(status["partitions"]["moved"], status["partitions"]["to-move"], "{status}");
        met(&sessions.stop(), calm, &format!("resharding to {count}"));

        let shards = shards_everywhere(&cluster.nodes, count as usize);
        let sizes: Vec<usize> = shards.iter().map(Vec::len).collect();
        assert_eq!(sizes, vec![6 / count as usize; count as usize], "{shards:?}");
        read_keys(&cluster.nodes);
        std::thread::sleep(HEARD_WITHIN);
        let counts = keys_in(&cluster.nodes, count as usize);
        assert_eq!(counts.iter().sum::<u64>(), (KEYS + 2 * SESSIONS) as u64, "{counts:?}");
    }
}

#[test]
fn a_node_joins_and_another_leaves_under_load() {
    let mut cluster = Cluster::start(4, 2);
    write_keys(&cluster);
    let sessions = Sessions::start(&cluster.nodes, SESSIONS);
    let new = cluster.add();
    let (fifth, asked) = (cluster.nodes[new].clone(), cluster.nodes[1].clone());
    cluster.wait_ready();
    for node in cluster.nodes.clone() {
        wait_until("the new node is in the view", VIEW_WITHIN, || {
            field(&node, VIEW, "view").as_array().is_some_and(|view| view.contains(&json!(fifth)))
        });
    }
    let none = Client::new().ask(&fifth, &format!("{SHARD}/node-shard-id")).expect("it answers");
    expect(&none, 404, json!({"error": "Node is not assigned to a shard", "message": "Error in GET"}));
    assert_eq!(Client::new().get(&fifth, "key1").expect("it forwards").status, 200);
    let already = change(&asked, "PUT", VIEW, name(&fifth));
    expect(&already, 404, json!({"error": "Socket address already exists in the view", "message": "Error in PUT"}));

    let add = |shard: u32| change(&asked, "PUT", &format!("{SHARD}/add-member/{shard}"), name(&fifth));
    let added = json!({"message": "Member added to shard successfully"});
    expect(&add(2), 200, added.clone());
    expect(&add(2), 200, added);
    assert_eq!(add(1).status, 409);
    assert_eq!(add(3).status, 404);
    assert_eq!(field(&fifth, &format!("{SHARD}/node-shard-id"), "shard-id"), json!(2));
    let too_many = json!({"message": "Not enough nodes to provide fault-tolerance with the given shard count!"});
    for count in [10, 3, 0] {
        expect(&reshard(&asked, count), 400, too_many.clone());
    }

    // One of the second shard goes; what it took alone is with the others first.
    let leaver = shards_everywhere(&cluster.nodes, 2)[1].iter().find(|node| **node != fifth).cloned().expect("one");
    let remove = || change(&asked, "DELETE", VIEW, name(&leaver));
    expect(&remove(), 200, json!({"message": "Replica deleted successfully from the view"}));
    let gone = json!({"error": "Socket address does not exist in the view", "message": "Error in DELETE"});
    expect(&remove(), 404, gone);
    for node in &cluster.nodes {
        wait_until("the node is out of every view", HEARD_WITHIN, || {
            !field(node, VIEW, "view").as_array().expect("a view").contains(&json!(leaver))
        });
    }
    assert_eq!(Client::new().ask(&leaver, "/readyz").expect("it answers").status, 503);
    met(&sessions.stop(), Duration::ZERO, "a node more and a node less");
    // It was asked all the time, and forwards still.
    read_keys(&cluster.nodes);

    let back = change(&asked, "PUT", VIEW, name(&leaver));
    expect(&back, 201, json!({"message": "Replica added successfully to the view"}));
    wait_until("it is ready again", VIEW_WITHIN, || {
        Client::new().ask(&leaver, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(Client::new().ask(&leaver, &format!("{SHARD}/node-shard-id")).expect("it answers").status, 404);
}

#[test]
fn a_disk_that_was_lost_refills_by_itself() {
    let mut cluster = Cluster::start(4, 2);
    write_keys(&cluster);
    let shards = shards_everywhere(&cluster.nodes, 2);
    let victim = cluster.nodes.iter().position(|node| *node == shards[0][0]).expect("it runs");
    let peer = cluster.nodes.iter().position(|node| *node == shards[0][1]).expect("it runs");
    cluster.kill(victim);
    std::fs::remove_dir_all(cluster.data_dir(victim)).expect("its directory is there");
    cluster.restart(victim);
    let begin = Instant::now();
    cluster.wait_ready();
    let (node, count) = (cluster.nodes[victim].clone(), field(&cluster.nodes[peer], &shard_count(1), COUNT));
    wait_until("it holds its shard's keys again", Duration::from_secs(20), || own_keys(&node) == count);
    eprintln!("refilled {count} keys within {:?}", begin.elapsed());
    // Its own disk is what is read now.
    cluster.kill(peer);
    let others: Vec<String> = cluster.nodes.iter().filter(|node| **node != cluster.nodes[peer]).cloned().collect();
    wait_until("the peer is out of the view", VIEW_WITHIN, || {
        field(&node, VIEW, "view").as_array().is_some_and(|view| view.len() == 3)
    });
    read_keys(&others);
}

#[test]
fn those_of_view_that_lost_their_disks_at_once_found_no_second_store() {
    let mut cluster = Cluster::start(2, 1);
    for _later in 0..3 {
        let new = cluster.add();
        cluster.wait_ready();
        let added = change(&cluster.nodes[0], "PUT", &format!("{SHARD}/add-member/1"), name(&cluster.nodes[new]));
        assert_eq!(added.status, 200, "{}", added.json);
    }
    write_keys(&cluster);
    for founder in [0, 1] {
        cluster.kill(founder);
        std::fs::remove_dir_all(cluster.data_dir(founder)).expect("its directory is there");
    }
    for founder in [0, 1] {
        cluster.restart(founder);
    }
    cluster.wait_ready();
    let count = field(&cluster.nodes[2], &shard_count(1), COUNT);
    for founder in &cluster.nodes[..2] {
        wait_until("it holds the store's keys again", Duration::from_secs(20), || own_keys(founder) == count);
    }
    read_keys(&cluster.nodes);
}

const COUNT: &str = "shard-id-key-count";

fn shard_count(shard: u32) -> String {
    format!("{SHARD}/{COUNT}/{shard}")
}

/// What a node says that it holds itself.
fn own_keys(node: &str) -> Value {
    let nodes = field(node, "/status", "nodes");
    let own = nodes.as_array().and_then(|nodes| nodes.iter().find(|status| status["node"] == json!(node)));
    own.map_or(Value::Null, |own| own["keys"].clone())
}

#[test]
fn one_reshard_at_a_time_and_it_can_be_cancelled() {
    // So slowly that there is time to come between.
    let cluster = Cluster::start_with(6, 2, &[("FILL_MIB_S", "1")]);
    write_keys(&cluster);
    let shards = shards_everywhere(&cluster.nodes, 2);
    let none = change(&cluster.nodes[0], "DELETE", &format!("{SHARD}/reshard"), json!({}));
    expect(&none, 404, json!({"error": "Resharding is not in progress", "message": "Error in DELETE"}));

    let first = reshard_behind(&cluster.nodes[0], 3);
    for node in &cluster.nodes {
        wait_until("the reshard runs", Duration::from_secs(10), || state(node) == json!("running"));
    }
    let second = reshard(&cluster.nodes[5], 3);
    expect(&second, 409, json!({"error": "Resharding is already in progress", "message": "Error in PUT"}));
    let cancelled = change(&cluster.nodes[2], "DELETE", &format!("{SHARD}/reshard"), json!({}));
    expect(&cancelled, 200, json!({"message": "Resharding cancelled"}));
    assert_eq!(first.join().expect("it is answered").status, 503);
    for node in &cluster.nodes {
        wait_until("it is known to be cancelled", HEARD_WITHIN, || state(node) == json!("cancelled"));
    }
    assert_eq!(shards_everywhere(&cluster.nodes, 2), shards);
    read_keys(&cluster.nodes);

    expect(&reshard(&cluster.nodes[3], 3), 200, json!({"message": "Resharding done successfully"}));
    shards_everywhere(&cluster.nodes, 3);
    read_keys(&cluster.nodes);
}

/// Whoever of the two is first, there is one outcome, and it is the same everywhere.
#[test]
fn of_two_reshards_at_once_one_is_done() {
    let cluster = Cluster::start_with(6, 2, &[("FILL_MIB_S", "2")]);
    write_keys(&cluster);
    for (round, asked) in [[3, 1], [3, 3], [1, 3], [3, 3], [1, 3], [3, 1]].into_iter().enumerate() {
        let at = [round % 6, (round + 3) % 6];
        let both = [0, 1].map(|which| reshard_behind(&cluster.nodes[at[which]], asked[which]));
        let answers = both.map(|answer| answer.join().expect("it is answered"));
        let done = answers.iter().position(|answer| answer.status == 200).expect("one is done");
        expect(&answers[done], 200, json!({"message": "Resharding done successfully"}));
        let refused = json!({"error": "Resharding is already in progress", "message": "Error in PUT"});
        expect(&answers[1 - done], 409, refused);
        let count = asked[done];
        eprintln!("round {round}: {asked:?} asked at once, {count} is done");
        shards_everywhere(&cluster.nodes, count as usize);
        for node in &cluster.nodes {
            wait_until("the same state everywhere", HEARD_WITHIN, || state(node) == json!("done"));
        }
        assert_eq!(keys_in(&cluster.nodes, count as usize).iter().sum::<u64>(), KEYS as u64);
        // Two shards again: from one, where every node has every key, nothing would have to be copied.
        assert_eq!(reshard(&cluster.nodes[round % 6], 2).status, 200);
    }
    read_keys(&cluster.nodes);
}

#[test]
fn a_node_that_never_comes_back_is_forgotten() {
    let mut cluster = Cluster::start(5, 2);
    write_keys(&cluster);
    let lost = cluster.nodes[4].clone();
    cluster.kill(4);
    let others: Vec<String> = cluster.nodes[..4].to_vec();
    wait_until("it is out of the view", VIEW_WITHIN, || {
        field(&others[0], VIEW, "view").as_array().is_some_and(|view| !view.contains(&json!(lost)))
    });
    let gone = change(&others[0], "DELETE", VIEW, name(&lost));
    assert_eq!(gone.status, 404, "one that is down is not in the view: {gone:?}");
    let asks = change(&others[0], "POST", "/admin/forget", name(&lost));
    assert_eq!(asks.status, 409, "{asks:?}");
    let confirmed = json!({"socket-address": lost, "confirm": true});
    // Others may still have heard it a moment ago: that is nothing to the operator, who has seen it leave the view.
    let forgotten = change(&others[0], "POST", "/admin/forget", confirmed.clone());
    expect(&forgotten, 200, json!({"message": "Node forgotten", "lost-writes": 0}));
    assert_eq!(change(&others[1], "POST", "/admin/forget", confirmed).status, 404);
    let nodes = field(&others[1], "/status", "nodes");
    assert_eq!(nodes.as_array().map(Vec::len), Some(4), "{nodes}");
    read_keys(&others);
}
