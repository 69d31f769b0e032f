//! `entail dev`: comes up, tells what happens, and leaves nothing behind however it ends.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::client::{Client, connect};
use crate::harness::{ended, entail, machine, signal, wait_until};

/// A `dev` of two nodes and the lines that it prints.
struct Dev {
    child: Child,
    lines: Receiver<String>,
    port: u16,
}

impl Dev {
    fn start(home: &std::path::Path) -> Self {
        let port = free_ports();
        let mut child = entail()
            .args(["dev", "--nodes", "2", "--shards", "1", "--port", &port.to_string(), "--data-dir"])
            .arg(home)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test may have seen enough.
                let _ = sender.send(line);
            }
        });
        Self { child, lines, port }
    }

    fn node(&self, index: u16) -> String {
        format!("127.0.0.1:{}", self.port + index)
    }

    /// Waits for a line that contains `part`.
    fn line(&self, part: &str) -> String {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with '{part}'"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn nobody_listens(&self) -> bool {
        (0..2).all(|index| connect(&self.node(index)).is_err())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its nodes stop with it. One that has ended already can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of two ports that are free, as are those 1000 above; below the range that the system gives to clients.
fn free_ports() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 12_000 + (std::process::id() % 500) as u16 * 20;
    let found = (first..first + 900).find(|port| [*port, port + 1, port + 1000, port + 1001].into_iter().all(free));
    found.expect("some ports are free")
}

#[test]
fn dev_comes_up_and_tells_what_happens() {
    let _machine = machine();
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut dev = Dev::start(home.path());
    dev.line("ready after");
    dev.line(&format!("curl -X PUT http://{}", dev.node(0)));
    let mut client = Client::new();
    assert_eq!(client.put(&dev.node(0), "colour", &json!("blue")).expect("it answers").status, 201);
    assert_eq!(client.get(&dev.node(1), "colour").expect("it answers").json["value"], json!("blue"));
    signal(&dev.child, Signal::TERM);
    assert_eq!(ended(&mut dev.child, Duration::from_secs(10)).code(), Some(0));
    assert!(dev.nobody_listens(), "a node is left");
}

#[test]
fn dev_killed_leaves_no_node_behind() {
    let _machine = machine();
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut dev = Dev::start(home.path());
    dev.line("ready after");
    dev.child.kill().expect("it can be killed");
    dev.child.wait().expect("it can be waited for");
    wait_until("the nodes are gone, too", Duration::from_secs(8), || dev.nobody_listens());
}

#[test]
fn dev_says_what_cannot_be() {
    let output = entail().args(["dev", "--nodes", "3", "--shards", "2"]).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).expect("text").contains("at least 4 nodes"));
}
