//! Clients that hold connections and say nothing, or half of something.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::client::{Client, connect, over};
use crate::harness::Cluster;

const IDLE: usize = 1_000;
const HALF_SENT: usize = 100;

/// This process needs a descriptor for each connection, too.
fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the hard limit is allowed");
}

fn half_sent(node: &str, text: &str) -> TcpStream {
    let mut stream = connect(node).expect("the node accepts");
    stream.write_all(text.as_bytes()).expect("it is sent");
    stream
}

#[test]
fn a_thousand_idle_connections_and_half_sent_requests() {
    raise_file_limit();
    let cluster = Cluster::start(2, 1);
    let node = cluster.nodes[0].as_str();
    let mut held: Vec<TcpStream> = (0..IDLE).map(|_| connect(node).expect("the node accepts")).collect();
    // Half of them have spoken before they fell silent.
    for stream in held.iter_mut().step_by(2) {
        let answer = over(stream, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("the node answers");
        assert_eq!(answer.status, 200);
    }
    for _ in 0..HALF_SENT {
        held.push(half_sent(node, "PUT /key-value-store/x HTTP/1.1\r\nho"));
        held.push(half_sent(node, "PUT /key-value-store/x HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"val"));
    }
    let mut client = Client::new();
    let begin = Instant::now();
    for number in 0..100 {
        let answer = client.put(node, "key", &json!(number)).expect("the node answers");
        assert!(answer.is_done(), "{answer:?}");
        assert_eq!(client.get(node, "key").expect("the node answers").json["value"], json!(number));
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "200 requests took {:?}", begin.elapsed());
    assert_eq!(held.len(), IDLE + 2 * HALF_SENT, "held until here");
    assert_eq!(client.get(node, "x").expect("the node answers").status, 404, "a half-sent write was done");
}
