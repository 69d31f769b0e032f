//! A network of its own for each cluster: every node in a network namespace, a bridge in one more, and the clients of
//! the test, who stay where they are, on that bridge too. Links between nodes can be cut, one direction at a time,
//! slowed down and made lossy; the clients reach every node all the time, over links that are slow at most. The kernels that have
//! no netem can't delay anything: for that a switch in user space takes the bridge's place (`switch.py`).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine::{is_left, must, perhaps, run, run_with};

/// Each network of this process has other addresses: what is left of the last one can't be in the way.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// All names begin with this, and go on with the id of the process that made them.
const PREFIX: &str = "ent";

/// A network with its namespaces; they are taken away when it is dropped.
pub struct Network {
    id: String,
    /// The start of all addresses.
    addresses: String,
    nodes: usize,
    /// The switch in user space, where there is one.
    switch: Option<Child>,
}

impl Network {
    /// So many nodes that reach each other; if `delays`, over a switch in user space that can delay what it passes on.
    ///
    /// # Errors
    /// What this machine lacks for that, in words.
    pub fn new(nodes: usize, delays: bool) -> Result<Self, String> {
        clear_what_others_left();
        let (pid, number) = (std::process::id(), NETWORKS.fetch_add(1, Ordering::Relaxed));
        let subnet = (pid.wrapping_mul(7) + number) % 250;
        // From here on it is taken away whatever happens. The addresses are those for tests of networks (RFC 2544).
        let (id, addresses) = (format!("{PREFIX}{pid}-{number}"), format!("198.18.{subnet}."));
        let mut network = Self { id, addresses, nodes, switch: None };
        run(&format!("ip netns add {}", network.hub()))?;
        for node in 0..nodes {
            run(&format!("ip netns add {}", network.namespace(node)))?;
        }
        if delays {
            network.link_by_switch()?;
        } else {
            network.link_by_bridge()?;
        }
        network.give_addresses()?;
        Ok(network)
    }

    /// Gives each node a device `eth0`, and the clients one that is named as this network, on a bridge of the kernel.
    fn link_by_bridge(&self) -> Result<(), String> {
        let hub = self.hub();
        run(&format!("ip -n {hub} link add bridge type bridge"))?;
        run(&format!("ip -n {hub} link set bridge up"))?;
        for node in 0..self.nodes {
            let name = self.namespace(node);
            run(&format!("ip -n {hub} link add port{node} type veth peer name eth0 netns {name}"))?;
            run(&format!("ip -n {hub} link set port{node} master bridge up"))?;
        }
        run(&format!("ip -n {hub} link add clients type veth peer name {} netns {}", self.id, std::process::id()))?;
        run(&format!("ip -n {hub} link set clients master bridge up")).map(drop)
    }

    /// The same on a switch in user space.
    fn link_by_switch(&mut self) -> Result<(), String> {
        let (hub, program) = (self.hub(), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture/switch.py"));
        let started = Command::new("nsenter")
            .args([&within(&hub), "python3", program, &self.nodes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let switch = self.switch.insert(started);
        let mut said = String::new();
        let read = BufReader::new(switch.stdout.take().expect("it is piped")).read_line(&mut said);
        if read.is_err() || said.trim() != "ready" {
            return Err(format!("{program} does not start: {said}"));
        }
        for node in 0..self.nodes {
            run(&format!("ip -n {hub} link set port{node} netns {} name eth0", self.namespace(node)))?;
        }
        run(&format!("ip -n {hub} link set clients netns {} name {}", std::process::id(), self.id)).map(drop)
    }

    fn give_addresses(&self) -> Result<(), String> {
        for node in 0..self.nodes {
            let (name, address) = (self.namespace(node), self.address(node));
            run(&format!("ip -n {name} addr add {address}/24 dev eth0"))?;
            run(&format!("ip -n {name} link set eth0 up"))?;
            run(&format!("ip -n {name} link set lo up"))?;
        }
        run(&format!("ip addr add {}254/24 dev {}", self.addresses, self.id))?;
        run(&format!("ip link set {} up", self.id))?;
        self.filter(0, "-A INPUT -s 192.0.2.1 -m statistic --mode random --probability 0.5 -j DROP\n")?;
        self.filter(0, "")
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.id)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-{}", self.id, node + 1)
    }

    fn address(&self, node: usize) -> String {
        format!("{}{}", self.addresses, node + 1)
    }

    /// The start of the nodes' addresses, which go on with 1, 2, 3, …
    pub fn addresses(&self) -> &str {
        &self.addresses
    }

    /// The words that run a program where this node is.
    pub fn through(&self, node: usize) -> Vec<String> {
        vec!["nsenter".to_owned(), within(&self.namespace(node))]
    }

    /// From now on nothing goes from the first to the second of each of these pairs; all others reach each other.
    pub fn cut(&self, links: &BTreeSet<(usize, usize)>) {
        for to in 0..self.nodes {
            let rule = |(from, _): &(usize, usize)| format!("-A INPUT -s {} -j DROP\n", self.address(*from));
            let rules: String = links.iter().filter(|link| link.1 == to).map(rule).collect();
            self.filter(to, &rules).expect("rules could be set before");
        }
    }

    /// From now on so many per cent of all packets between nodes are lost.
    pub fn lose(&self, percent: u32) {
        let probability = f64::from(percent) / 100.0;
        for to in 0..self.nodes {
            let rule = |from| {
                let from = self.address(from);
                format!("-A INPUT -s {from} -m statistic --mode random --probability {probability} -j DROP\n")
            };
            let rules: String = (0..self.nodes).filter(|from| *from != to).map(rule).collect();
            self.filter(to, &rules).expect("rules could be set before");
        }
    }

    /// From now on nodes send no faster than this, to clients too.
    pub fn slow(&self, kbit: u32) {
        for node in 0..self.nodes {
            let name = self.namespace(node);
            must(&format!("tc -n {name} qdisc replace dev eth0 root tbf rate {kbit}kbit burst 16kb latency 400ms"));
        }
    }

    /// From now on what one node sends to another takes so many milliseconds, and up to so many more.
    pub fn delay(&mut self, milliseconds: u64, spread: u64) {
        let input = self.switch.as_mut().and_then(|switch| switch.stdin.as_mut()).expect("there is such a switch");
        writeln!(input, "{milliseconds} {spread}").expect("it runs");
    }

    /// Nothing is cut, lossy or slow any more.
    pub fn heal(&self) {
        self.cut(&BTreeSet::new());
        for node in 0..self.nodes {
            perhaps(&format!("tc -n {} qdisc del dev eth0 root", self.namespace(node)));
        }
    }

    fn filter(&self, node: usize, rules: &str) -> Result<(), String> {
        let words = ["nsenter", &within(&self.namespace(node)), "iptables-restore"];
        run_with(&words, &format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n")).map(drop)
    }
}

/// The argument with which `nsenter` runs a program in this network alone. `ip netns exec` would give it mounts of its
/// own, too, and so hold on to file systems that others want to unmount.
fn within(namespace: &str) -> String {
    format!("--net=/run/netns/{namespace}")
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(mut switch) = self.switch.take() {
            // One that has ended already can't be killed; it is waited for all the same.
            let _ = switch.kill();
            let _ = switch.wait();
        }
        // A link goes with its namespace; that of the clients with its other end.
        for name in (0..self.nodes).map(|node| self.namespace(node)).chain([self.hub()]) {
            perhaps(&format!("ip netns del {name}"));
        }
    }
}

/// Takes away the networks of test processes that were killed.
fn clear_what_others_left() {
    let names = run("ip netns list").unwrap_or_default();
    let names = names.lines().filter_map(|line| line.split(' ').next());
    for name in names.filter(|name| is_left(name, PREFIX)) {
        perhaps(&format!("ip netns del {name}"));
    }
}
