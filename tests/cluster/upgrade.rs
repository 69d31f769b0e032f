//! What an earlier build left or runs beside: its data directories, and its nodes.
//!
//! `tests/fixtures/store-1` holds the directories of the two nodes of a small store as format 1 has them, and what is in
//! it (`expected.json`). It is never made anew: a later format gets a directory of its own beside it, made by
//! `cargo test --release --test cluster -- --ignored make_the_fixture`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::changes::{reshard, state};
use crate::client::Client;
use crate::forget::forget;
use crate::harness::{Cluster, Place, machine, wait_until};

/// Where the fixture's nodes lived, and have to live.
const NETWORK: &str = "127.211.1.";

/// Few rows, and a directory that stays small.
const SETTINGS: &[(&str, &str)] = &[("PARTITIONS", "8")];

/// Names another build of the program.
const OTHER: &str = "ENTAIL_OTHER_BINARY";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            let mut data = fs::read(&path).expect("a file");
            if path.extension().is_some_and(|ext| ext == "jnl") {
                // Without the zeros that are laid out ahead.
                data.truncate(data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            }
            fs::write(to, data).expect("a file");
        }
    }
}

fn identity(node: &str) -> Value {
    let status = Client::new().ask(node, "/status").expect("the node answers").json;
    json!({ "cluster-id": status["cluster-id"], "incarnation": status["incarnation"], "epoch": status["epoch"] })
}

#[test]
#[ignore = "makes tests/fixtures/store-1, which is kept as the build that defined format 1 made it"]
fn make_the_fixture() {
    assert!(!fixture().exists(), "it is there already; a later format gets a directory of its own");
    let mut cluster = Cluster::prepare_in(Place::at(NETWORK.to_owned()), 2, 1, SETTINGS, Some(machine()));
    cluster.restart(0);
    cluster.restart(1);
    cluster.wait_ready();
    let nodes = cluster.nodes.clone();
    let mut keys = Vec::new();
    let mut client = Client::new();
    for number in 0..24 {
        let (name, value) = (format!("key{number}"), json!({ "number": number, "text": "😀" }));
        assert!(client.put(&nodes[number % 2], &name, &value).expect("an answer").is_done());
        keys.push(json!({ "key": name, "value": value, "context": client.context }));
    }
    // Deleted by a node that is alone, so that the tombstone is there to be read by a later build.
    cluster.terminate(1, Duration::from_secs(20));
    for entry in &mut keys[20..] {
        let path = format!("/key-value-store/{}", entry["key"].as_str().expect("a name"));
        let answer = client.change("DELETE", &nodes[0], &path, &json!({ "causal-metadata": client.context }));
        let answer = answer.expect("an answer");
        assert!(answer.is_done(), "{answer:?}");
        *entry = json!({ "key": entry["key"], "value": null, "context": answer.json["causal-metadata"] });
    }
    let identities = [identity(&nodes[0])];
    cluster.terminate(0, Duration::from_secs(20));
    for node in 0..2 {
        copy(&cluster.data_dir(node), &fixture().join(format!("node{}", node + 1)));
    }
    let expected = json!({ "identity": identities[0], "keys": keys });
    fs::write(fixture().join("expected.json"), serde_json::to_string_pretty(&expected).expect("text")).expect("a file");
}

#[test]
fn the_data_directories_of_format_1_open() {
    let expected: Value = serde_json::from_slice(&fs::read(fixture().join("expected.json")).expect("it is committed"))
        .expect("it is JSON");
    let mut cluster = Cluster::prepare_in(Place::at(NETWORK.to_owned()), 2, 1, SETTINGS, Some(machine()));
    for node in 0..2 {
        copy(&fixture().join(format!("node{}", node + 1)), &cluster.data_dir(node));
    }
    cluster.restart(0);
    cluster.restart(1);
    cluster.wait_ready();
    assert_eq!(identity(&cluster.nodes[0]), expected["identity"]);
    for node in &cluster.nodes {
        for entry in expected["keys"].as_array().expect("a list") {
            let (name, context) = (entry["key"].as_str().expect("a name"), entry["context"].as_str().expect("a text"));
            let mut client = Client::seen(context.to_owned());
            let answer = client.get(node, name).expect("the node answers");
            let value = if answer.status == 404 { &Value::Null } else { &answer.json["value"] };
            assert_eq!(value, &entry["value"], "{name} at {node}: {answer:?}");
            // What this build writes goes on from there.
            if name == "key7" {
                assert!(client.put(node, name, &entry["value"]).expect("the node answers").is_done());
            }
        }
    }
}

/// Every key is read at every node, with all that its writer had seen.
fn check(cluster: &Cluster, client: &mut Client, keys: u64) {
    for node in &cluster.nodes {
        for number in 0..keys {
            let answer = client.get(node, &format!("key{number}")).expect("the node answers");
            assert_eq!(answer.json["value"], json!(number), "{answer:?}");
        }
    }
}

fn write(cluster: &Cluster, client: &mut Client, from: u64, until: u64) {
    for number in from..until {
        let node = &cluster.nodes[number as usize % cluster.nodes.len()];
        let answer = client.put(node, &format!("key{number}"), &json!(number)).expect("the node answers");
        assert!(answer.is_done(), "{answer:?}");
    }
}

/// A node of this build asks all that are there what is lost with another: what an older one does not know must not end the
/// connection to it.
fn ask_to_forget(cluster: &mut Cluster) {
    let (asked, lost) = (1, 3);
    cluster.kill(lost);
    let gone = cluster.nodes[lost].clone();
    wait_until("it is out of the view", Duration::from_secs(20), || {
        cluster.view(asked).is_ok_and(|view| !view.contains(&gone))
    });
    let before = cluster.said(asked).len();
    let told = forget(&gone, &cluster.nodes[asked], "n\n");
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("nothing was done"), "{told}");
    cluster.restart(lost);
    cluster.wait_ready();
    let said = cluster.said(asked)[before..].to_owned();
    let older = |line: &&str| [0, 2].iter().any(|node| line.contains(&cluster.nodes[*node]));
    let broken = said.lines().filter(|line| line.contains("no connection")).find(older);
    assert_eq!(broken, None);
}

/// Whether a context's first byte is one of the versions that tell a clock: two digits of base64url have it.
fn tells_a_clock(context: &str) -> bool {
    let digit = |at: usize| {
        let digits = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']);
        digits.zip(0_u8..).find(|(digit, _)| context[at..].starts_with(*digit)).map(|(_, value)| value)
    };
    let first = digit(0).zip(digit(1)).map(|(high, low)| high << 2 | low >> 4);
    matches!(first, Some(3 | 4))
}

#[test]
#[ignore = "needs another build of the program, which ENTAIL_OTHER_BINARY names; a stage of its own in .ci/run"]
fn nodes_of_two_builds_serve_side_by_side() {
    let other = std::env::var_os(OTHER).map(PathBuf::from).expect("ENTAIL_OTHER_BINARY names another build");
    let mut cluster = Cluster::prepare(4, 2, &[], Some(machine()));
    for node in 0..4 {
        // One of each in every shard.
        cluster.use_program(node, (node % 2 == 0).then(|| other.clone()));
        cluster.restart(node);
    }
    cluster.wait_ready();
    let mut client = Client::new();
    write(&cluster, &mut client, 0, 200);
    check(&cluster, &mut client, 200);
    for count in [1, 2] {
        assert_eq!(reshard(&cluster.nodes[count as usize], count).status, 200);
        wait_until("the reshard is done", Duration::from_secs(60), || state(&cluster.nodes[0]) == "done");
        check(&cluster, &mut client, 200);
    }
    ask_to_forget(&mut cluster);
    check(&cluster, &mut client, 200);
    let mut written = 200;
    // One is replaced and another goes back, as may be while one is left; then all are replaced. All on the data that they have.
    for (node, build) in [(0, None), (1, Some(other)), (2, None), (1, None)] {
        let older_is_left = (node, &build) != (1, &None);
        assert!(cluster.terminate(node, Duration::from_secs(20)).success());
        cluster.use_program(node, build);
        cluster.restart(node);
        // From the first context it gives on, all take what it gives.
        let mut early = Client::new();
        wait_until("it serves", Duration::from_secs(20), || {
            early.get(&cluster.nodes[node], "key0").is_ok_and(|answer| answer.status == 200)
        });
        for other in &cluster.nodes {
            let answer = early.get(other, "key0").expect("the node answers");
            assert_eq!(answer.json["value"], json!(0), "{answer:?}");
        }
        cluster.wait_ready();
        // Its connections ended with the process.
        client = Client::seen(client.context);
        write(&cluster, &mut client, written, written + 50);
        written += 100;
        check(&cluster, &mut client, 200);
        assert!(!(older_is_left && tells_a_clock(&client.context)), "{}", client.context);
    }
    wait_until("contexts tell clocks", Duration::from_secs(5), || {
        client.get(&cluster.nodes[0], "key0").is_ok() && tells_a_clock(&client.context)
    });
    // And so they do after a start with nobody to ask.
    let shard =
        &client.ask(&cluster.nodes[0], "/key-value-store-shard/node-shard-id").expect("an answer").json["shard-id"];
    let mut put =
        |key: &String| client.put(&cluster.nodes[0], key, &json!(0)).expect("an answer").json["shard-id"] == *shard;
    let own = (0..).map(|number| format!("own{number}")).find(|key| put(key)).expect("a shard has keys");
    for node in 0..4 {
        assert!(cluster.terminate(node, Duration::from_secs(20)).success());
    }
    cluster.restart(0);
    let mut first = Client::new();
    wait_until("it serves", Duration::from_secs(20), || {
        first.get(&cluster.nodes[0], &own).is_ok_and(|answer| answer.status == 200)
    });
    assert!(tells_a_clock(&first.context), "{}", first.context);
}
