//! Starts, kills and restarts the nodes of one cluster.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;

/// How long a cluster may take from its last start to ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How often a test looks whether something has come true.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One cluster at a time.
static MACHINE: Mutex<()> = Mutex::new(());

/// Clusters of this process so far: each gets a loopback network of its own.
static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// A command of the built program with nothing of this environment but what it needs to run.
pub fn entail() -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_entail")), &[])
}

/// The same of any build, run by another program: its name and arguments.
fn program(build: &Path, through: &[String]) -> Command {
    let mut words = through.iter().map(OsStr::new).chain([build.as_os_str()]);
    let mut command = Command::new(words.next().expect("the program itself is one"));
    command.args(words).env_clear().stdin(Stdio::null());
    command
}

/// Where the nodes of a cluster run.
pub struct Place {
    /// The start of their addresses: `127.x.y.`
    pub network: String,
    /// By node, the name and arguments of what runs the program there; it must become the program (`exec`).
    pub through: Vec<Vec<String>>,
}

impl Place {
    /// Loopback addresses that no other test uses.
    pub fn loopback() -> Self {
        Self::at(network())
    }

    /// Loopback addresses of one's own choice, as `127.x.y.`
    pub fn at(network: String) -> Self {
        Self { network, through: Vec::new() }
    }
}

/// The only one to use the machine, until it is dropped. A test that failed before does not matter.
pub fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The start of loopback addresses that no other test uses: `127.x.y.`
pub fn network() -> String {
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    // Two test processes at the same time differ in their ids.
    let id = std::process::id().wrapping_mul(61).wrapping_add(cluster);
    format!("127.{}.{}.", 1 + id / 250 % 250, 1 + id % 250)
}

/// A temporary directory whose name tells which process made it.
fn directory() -> tempfile::TempDir {
    let prefix = format!("entail-{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory")
}

/// Waits for something to come true; panics with `what` when it does not in time.
pub fn wait_until(what: &str, within: Duration, mut is_true: impl FnMut() -> bool) {
    let until = Instant::now() + within;
    while !is_true() {
        assert!(Instant::now() < until, "not in {within:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits for a process to end; panics when it does not in time.
pub fn ended(child: &mut Child, within: Duration) -> ExitStatus {
    let mut status = None;
    wait_until("the process ends", within, || {
        status = child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    status.expect("it has ended")
}

/// Sends a signal to a process of ours.
pub fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("a child that was not waited for can be signalled");
}

/// The nodes of one cluster. All are killed when it is dropped.
pub struct Cluster {
    /// Their REST addresses.
    pub nodes: Vec<String>,
    place: Place,
    /// How many of them the store began with.
    first: usize,
    shards: u32,
    extra: Vec<(&'static str, String)>,
    processes: Vec<Option<Child>>,
    /// Nodes that run another build.
    programs: BTreeMap<usize, PathBuf>,
    directory: tempfile::TempDir,
    _machine: Option<MutexGuard<'static, ()>>,
}

impl Cluster {
    /// So many nodes in so many shards, ready.
    pub fn start(nodes: usize, shards: u32) -> Self {
        Self::start_with(nodes, shards, &[])
    }

    /// The same with further settings.
    pub fn start_with(nodes: usize, shards: u32, extra: &[(&'static str, &str)]) -> Self {
        let mut cluster = Self::prepare(nodes, shards, extra, Some(machine()));
        cluster.start_all();
        cluster
    }

    /// Another store, while this one runs.
    pub fn start_beside(&self, nodes: usize, shards: u32) -> Self {
        let mut cluster = Self::prepare(nodes, shards, &[], None);
        cluster.start_all();
        cluster
    }

    /// So many nodes in so many shards, of which only these are started; not ready.
    pub fn start_some(nodes: usize, shards: u32, started: &[usize]) -> Self {
        let mut cluster = Self::prepare(nodes, shards, &[], Some(machine()));
        for node in started {
            cluster.restart(*node);
        }
        for node in started {
            let answers = || Client::new().ask(&cluster.nodes[*node], "/healthz").is_ok();
            wait_until("the node answers", READY_WITHIN, answers);
        }
        cluster
    }

    /// So many nodes, none of them started.
    pub fn prepare(
        nodes: usize,
        shards: u32,
        extra: &[(&'static str, &str)],
        machine: Option<MutexGuard<'static, ()>>,
    ) -> Self {
        Self::prepare_in(Place::loopback(), nodes, shards, extra, machine)
    }

    /// The same somewhere else.
    pub fn prepare_in(
        place: Place,
        nodes: usize,
        shards: u32,
        extra: &[(&'static str, &str)],
        machine: Option<MutexGuard<'static, ()>>,
    ) -> Self {
        Self {
            nodes: (1..=nodes).map(|host| format!("{}{host}:8085", place.network)).collect(),
            place,
            first: nodes,
            shards,
            extra: extra.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            processes: (0..nodes).map(|_| None).collect(),
            programs: BTreeMap::new(),
            directory: directory(),
            _machine: machine,
        }
    }

    /// From its next start on a node runs another build of the program, or (without one) this one again.
    pub fn use_program(&mut self, node: usize, other: Option<PathBuf>) {
        match other {
            Some(other) => self.programs.insert(node, other),
            None => self.programs.remove(&node),
        };
    }

    /// The process of a node that runs.
    pub fn pid(&self, node: usize) -> u32 {
        self.running(node).expect("the node runs")
    }

    /// The same, or nothing when it does not run.
    pub fn running(&self, node: usize) -> Option<u32> {
        self.processes[node].as_ref().map(Child::id)
    }

    /// Starts all that do not run, and waits until they are ready.
    pub fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            if self.processes[node].is_none() {
                self.restart(node);
            }
        }
        self.wait_ready();
    }

    /// Starts one more node, which joins the store by itself; gives its number.
    pub fn add(&mut self) -> usize {
        let node = self.nodes.len();
        self.nodes.push(format!("{}{}:8085", self.place.network, node + 1));
        self.processes.push(None);
        self.restart(node);
        node
    }

    /// Starts a node that does not run, on the data it had.
    pub fn restart(&mut self, node: usize) {
        self.restart_with(node, &[]);
    }

    /// The same with other settings than it would have.
    pub fn restart_with(&mut self, node: usize, other: &[(&str, &str)]) {
        assert!(self.processes[node].is_none(), "{} runs", self.nodes[node]);
        let log = File::options().create(true).append(true).open(self.log(node)).expect("a log file");
        let mut view = self.nodes[..self.first].to_vec();
        let shards = if node < self.first { self.shards.to_string() } else { String::new() };
        if node >= self.first {
            view.push(self.nodes[node].clone());
        }
        let through = self.place.through.get(node).map_or(&[][..], Vec::as_slice);
        let build = self.programs.get(&node).map_or(Path::new(env!("CARGO_BIN_EXE_entail")), PathBuf::as_path);
        let child = program(build, through)
            .arg("serve")
            .env("SOCKET_ADDRESS", &self.nodes[node])
            .env("VIEW", view.join(","))
            .env("SHARD_COUNT", shards)
            .env("DATA_DIR", self.data_dir(node))
            .envs(self.extra.iter().map(|(name, value)| (name, value)))
            .envs(other.iter().copied())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        self.processes[node] = Some(child);
    }

    /// Sends a signal to a node that runs.
    pub fn signal(&self, node: usize, which: Signal) {
        signal(self.processes[node].as_ref().expect("the node runs"), which);
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.processes[node].take().expect("the node runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// kill -9 of all nodes, as close together as can be.
    pub fn kill_all(&mut self) {
        let mut children: Vec<Child> = self.processes.iter_mut().filter_map(Option::take).collect();
        for child in &mut children {
            child.kill().expect("it can be killed");
        }
        for child in &mut children {
            child.wait().expect("it can be waited for");
        }
    }

    /// SIGTERM, and the status it leads to.
    pub fn terminate(&mut self, node: usize, within: Duration) -> ExitStatus {
        let mut child = self.processes[node].take().expect("the node runs");
        signal(&child, Signal::TERM);
        ended(&mut child, within)
    }

    /// Waits until every running node says that it can serve; panics when one ends or takes too long.
    pub fn wait_ready(&mut self) {
        let until = Instant::now() + READY_WITHIN;
        for node in 0..self.nodes.len() {
            while self.processes[node].is_some() {
                let ended = self.ended(node);
                assert!(ended.is_none(), "{} ended: {ended:?}", self.nodes[node]);
                let ready = self.readiness(node);
                match ready {
                    Ok(()) => break,
                    Err(reason) => assert!(Instant::now() < until, "{} is not ready: {reason}", self.nodes[node]),
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    /// How a node ended that was started and ended by itself; it does not run from then on.
    pub fn ended(&mut self, node: usize) -> Option<ExitStatus> {
        let status = self.processes[node].as_mut()?.try_wait().expect("a child can be waited for")?;
        self.processes[node] = None;
        Some(status)
    }

    fn readiness(&self, node: usize) -> Result<(), String> {
        match Client::new().ask(&self.nodes[node], "/readyz") {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.json.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The view of a node, or nothing when it does not answer.
    pub fn view(&self, node: usize) -> io::Result<Vec<String>> {
        let answer = Client::new().ask(&self.nodes[node], "/key-value-store-view")?;
        Ok(serde_json::from_value(answer.json["view"].clone()).expect("a view is a list of addresses"))
    }

    /// Where a node keeps its data: the only thing in a directory of its own.
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("node{}", node + 1)).join("data")
    }

    /// What a node has said on standard error so far, in all its lives.
    pub fn said(&self, node: usize) -> String {
        std::fs::read_to_string(self.log(node)).expect("a node that was started has a log")
    }

    fn log(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("node{}.log", node + 1))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            // One that has ended already can't be killed; it is waited for all the same.
            let _ = child.kill();
            let _ = child.wait();
        }
        let logs = (0..self.nodes.len()).map(|node| std::fs::read_to_string(self.log(node)).unwrap_or_default());
        for (node, log) in self.nodes.iter().zip(logs) {
            if std::thread::panicking() {
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {node}\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
            } else {
                // A task may panic, and the node go on as if a client or a peer had left. What fjall says of damage is caught.
                assert!(!log.contains("panicked at src/"), "{node} panicked:\n{log}");
            }
        }
    }
}
