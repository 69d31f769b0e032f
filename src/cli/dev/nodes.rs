//! The cluster's processes: planned, started, stopped.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};

use crate::types::NodeAddr;

/// gRPC port = REST port + this; the default of `entail serve`.
const GRPC_PORT_OFFSET: u16 = 1000;

/// How long a node may take to stop before it is killed; a little more than it needs for a drain and a sync.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// One node to be.
#[derive(Clone, Debug)]
pub struct Node {
    /// `node1`, `node2`, …
    pub name: String,
    /// Its REST address.
    pub address: NodeAddr,
    /// What it says, standard output and errors.
    pub log: PathBuf,
    /// The arguments of this executable that run it.
    pub arguments: Vec<String>,
}

/// The whole cluster to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// This executable.
    pub program: PathBuf,
    /// The nodes.
    pub nodes: Vec<Node>,
}

impl Plan {
    /// The plan of so many nodes and shards on consecutive ports, with all they write below `home`.
    ///
    /// # Errors
    /// In one sentence, what can't be.
    pub fn new(nodes: u16, shards: u16, port: u16, home: &Path) -> Result<Self, String> {
        if u32::from(nodes) < 2 * u32::from(shards) {
            return Err(format!("{shards} shards need at least {} nodes, two each", 2 * u32::from(shards)));
        }
        if u32::from(port) + u32::from(nodes - 1) + u32::from(GRPC_PORT_OFFSET) > u32::from(u16::MAX) {
            return Err(format!("ports from {port} for {nodes} nodes, and 1000 above, go beyond 65535"));
        }
        let address = |index: u16| format!("127.0.0.1:{}", port + index);
        let view = (0..nodes).map(address).collect::<Vec<_>>().join(",");
        let program = std::env::current_exe().map_err(|error| format!("this executable has no path: {error}"))?;
        let mut planned = Vec::new();
        for index in 0..nodes {
            let name = format!("node{}", index + 1);
            let data = home.join(&name);
            let settings = [
                ("--socket-address", address(index)),
                ("--view", view.clone()),
                ("--shard-count", shards.to_string()),
                ("--data-dir", data.display().to_string()),
            ];
            let arguments = settings.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
            planned.push(Node {
                address: address(index).parse().map_err(|error| format!("{error}"))?,
                log: home.join(format!("{name}.log")),
                arguments: std::iter::once("serve".to_owned()).chain(arguments).collect(),
                name,
            });
        }
        Ok(Self { program, nodes: planned })
    }

    /// The line that runs a node in a shell.
    pub fn command_line(&self, node: &Node) -> String {
        let words = std::iter::once(self.program.display().to_string()).chain(node.arguments.iter().cloned());
        words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,=@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A running node. It stops when `stdin` is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
}

/// The running cluster.
#[derive(Debug)]
pub struct Nodes(Vec<Process>);

impl Nodes {
    /// Starts all nodes. They are in a process group of their own, so that a terminal's Ctrl-C reaches this process
    /// alone and the order of the stop is ours.
    ///
    /// # Errors
    /// When a process or its log can't be made; those already started stop by themselves.
    pub fn start(plan: &Plan) -> io::Result<Self> {
        let mut processes = Vec::new();
        for node in &plan.nodes {
            let log = File::options().create(true).append(true).open(&node.log)?;
            let mut command = Command::new(&plan.program);
            command.args(&node.arguments).arg("--watch-parent");
            // What is set here for some node must not become a setting of all.
            for variable in ["BIND_ADDRESS", "GRPC_PORT_OFFSET"] {
                command.env_remove(variable);
            }
            command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
            let mut child = command.spawn()?;
            let stdin = child.stdin.take();
            processes.push(Process { child, stdin });
        }
        Ok(Self(processes))
    }

    /// How each node's process ended; `None` while it runs.
    pub fn ended(&mut self) -> Vec<Option<String>> {
        let status = |process: &mut Process| match process.child.try_wait() {
            Ok(status) => status.map(|status| status.to_string()),
            Err(error) => Some(error.to_string()),
        };
        self.0.iter_mut().map(status).collect()
    }

    /// Lets all stop in order, at the same time; kills what does not.
    pub async fn stop(mut self) {
        for process in &mut self.0 {
            process.stdin = None;
        }
        let until = tokio::time::Instant::now() + STOP_WITHIN;
        for mut process in self.0 {
            if tokio::time::timeout_at(until, process.child.wait()).await.is_err() {
                // Fails only when it has ended in this moment.
                let _ = process.child.kill().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_its_ports_in_a_row() {
        let plan = Plan::new(4, 2, 9001, Path::new("/home/x")).unwrap();
        let addresses: Vec<_> = plan.nodes.iter().map(|node| node.address.as_str()).collect();
        assert_eq!(addresses, ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003", "127.0.0.1:9004"]);
        let line = plan.command_line(&plan.nodes[3]);
        let arguments = "serve --socket-address 127.0.0.1:9004 --view \
                         127.0.0.1:9001,127.0.0.1:9002,127.0.0.1:9003,127.0.0.1:9004 \
                         --shard-count 2 --data-dir /home/x/node4";
        assert!(line.ends_with(arguments), "{line}");
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert!(Plan::new(3, 2, 9001, Path::new("x")).unwrap_err().contains("at least 4 nodes"));
        assert!(Plan::new(6, 2, 64_531, Path::new("x")).unwrap_err().contains("65535"));
        assert!(Plan::new(6, 2, 64_530, Path::new("x")).is_ok());
    }

    #[test]
    fn words_survive_a_shell() {
        for (word, shown) in [("a-b/c:1,2", "a-b/c:1,2"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(quoted(word), shown);
        }
    }
}
