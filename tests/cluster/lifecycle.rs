//! Start and stop of one node: settings, ports, directories, signals; and the first requests.

use std::process::Output;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::client::{Client, connect};
use crate::harness::{Cluster, ended, entail, machine, network, signal, wait_until};

/// Runs `serve` with these settings to its end, which must come by itself.
fn refused(settings: &[(&str, &str)]) -> Output {
    let mut child = entail()
        .arg("serve")
        .envs(settings.iter().copied())
        .env("DATA_DIR", std::env::temp_dir().join("entail-test-never-written"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    ended(&mut child, Duration::from_secs(10));
    child.wait_with_output().expect("its output can be read")
}

#[test]
fn settings_that_are_no_good_exit_with_2_and_say_why() {
    let _machine = machine();
    let five = "127.0.0.1:81,127.0.0.1:82,127.0.0.1:83,127.0.0.1:84,127.0.0.1:85";
    let own = ("SOCKET_ADDRESS", "127.0.0.1:81");
    for (settings, said) in [
        (&[("VIEW", five)][..], "SOCKET_ADDRESS"),
        (&[own], "VIEW"),
        (&[own, ("VIEW", "127.0.0.1:82,127.0.0.1:83")], "VIEW"),
        (&[own, ("VIEW", "127.0.0.1:81,127.0.0.1:81")], "127.0.0.1:81"),
        (&[own, ("VIEW", "127.0.0.1:81")], "VIEW"),
        (&[own, ("VIEW", "127.0.0.1:81,nonsense")], "nonsense"),
        (&[own, ("VIEW", five), ("SHARD_COUNT", "3")], "6"),
        (&[own, ("VIEW", five), ("SHARD_COUNT", "0")], "SHARD_COUNT"),
        (&[own, ("VIEW", five), ("SHARD_COUNT", "two")], "SHARD_COUNT"),
        (&[own, ("VIEW", five), ("SHARD_COUNT", "2"), ("PARTITIONS", "1")], "PARTITIONS"),
        (&[own, ("VIEW", five), ("WRITE_COPIES", "0")], "WRITE_COPIES"),
        (&[own, ("VIEW", five), ("GRPC_PORT_OFFSET", "65500")], "GRPC_PORT_OFFSET"),
        (&[own, ("VIEW", five), ("GRPC_PORT_OFFSET", "1")], "GRPC_PORT_OFFSET"),
        (&[own, ("VIEW", five), ("MAX_KEY_BYTES", "-1")], "MAX_KEY_BYTES"),
        (&[own, ("VIEW", five), ("MAX_VALUE_BYTES", "7000000")], "6291456"),
        (&[own, ("VIEW", five), ("BIND_ADDRESS", "here")], "BIND_ADDRESS"),
    ] {
        let output = refused(settings);
        let errors = String::from_utf8(output.stderr).expect("errors are text");
        assert_eq!(output.status.code(), Some(2), "{settings:?}: {errors}");
        assert!(errors.contains(said), "{settings:?}: {errors}");
    }
}

#[test]
fn no_arguments_give_a_short_help() {
    let output = entail().output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).expect("help is text");
    assert!(help.contains("serve") && help.contains("dev") && help.lines().count() < 40, "{help}");
}

#[test]
fn a_port_in_use_is_named() {
    let _machine = machine();
    let host = format!("{}1", network());
    let taken = std::net::TcpListener::bind(format!("{host}:0")).expect("a port");
    let own = taken.local_addr().expect("it has an address").to_string();
    let output = refused(&[("SOCKET_ADDRESS", &own), ("VIEW", &format!("{own},{host}:80")), ("GRPC_PORT_OFFSET", "3")]);
    let errors = String::from_utf8(output.stderr).expect("errors are text");
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&own), "{errors}");
}

#[test]
fn any_node_takes_any_key() {
    let cluster = Cluster::start(6, 2);
    let mut client = Client::new();
    for number in 0..60 {
        let node = &cluster.nodes[number % 6];
        let answer = client.put(node, &format!("key{number}"), &json!({ "n": number })).expect("the node answers");
        assert_eq!(answer.status, 201, "{answer:?}");
        assert!(answer.copies >= Some(2), "{answer:?}");
    }
    for number in 0..60 {
        for node in &cluster.nodes {
            let answer = client.get(node, &format!("key{number}")).expect("the node answers");
            assert_eq!((answer.status, &answer.json["value"]["n"]), (200, &json!(number)), "at {node}");
        }
    }
}

#[test]
fn sigterm_ends_a_node_in_order_with_clients_still_connected() {
    let mut cluster = Cluster::start(2, 1);
    let node = cluster.nodes[0].clone();
    let mut client = Client::new();
    let answer = client.put(&node, "key", &json!("kept")).expect("the node answers");
    assert!(answer.is_done(), "{answer:?}");
    // The client's own connection is idle now; this one never said anything.
    let silent = connect(&node).expect("the node accepts");
    let begin = Instant::now();
    let status = cluster.terminate(0, Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "after {:?}", begin.elapsed());
    drop(silent);
    cluster.restart(0);
    cluster.wait_ready();
    assert_eq!(client.get(&node, "key").expect("the node answers").json["value"], json!("kept"));
}

#[test]
fn a_node_stops_while_it_waits_for_the_others() {
    let _machine = machine();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = format!("{}1", network());
    let own = format!("{host}:8085");
    let mut child = entail()
        .arg("serve")
        .env("SOCKET_ADDRESS", &own)
        .env("VIEW", format!("{own},{host}:8086"))
        .env("SHARD_COUNT", "1")
        .env("DATA_DIR", directory.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut client = Client::new();
    wait_until("readiness is told", Duration::from_secs(10), || {
        client.ask(&own, "/readyz").is_ok_and(|answer| answer.status == 503 && answer.json["ready"] == json!(false))
    });
    assert_eq!(client.ask(&own, "/key-value-store-shard/shard-ids").expect("it answers").json["shard-ids"], json!([1]));
    let refused = client.put(&own, "key", &json!(1)).expect("it answers");
    assert_eq!(refused.status, 503, "{refused:?}");
    // Some supervisors send it twice in a row.
    signal(&child, Signal::TERM);
    signal(&child, Signal::TERM);
    assert_eq!(ended(&mut child, Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_node_stops_in_order_though_nobody_reads_its_log_any_more() {
    let _machine = machine();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = format!("{}1", network());
    let own = format!("{host}:8085");
    let mut child = entail()
        .arg("serve")
        .env("SOCKET_ADDRESS", &own)
        .env("VIEW", format!("{own},{host}:8086"))
        .env("DATA_DIR", directory.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut client = Client::new();
    wait_until("it lives", Duration::from_secs(10), || client.ask(&own, "/healthz").is_ok_and(|a| a.status == 200));
    drop(child.stderr.take());
    signal(&child, Signal::TERM);
    assert_eq!(ended(&mut child, Duration::from_secs(5)).code(), Some(0));
}
