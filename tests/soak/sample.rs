//! What is watched of every node, and its file.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use entail::wire::proto::GetVectorsRequest;
use entail::wire::proto::inspect_client::InspectClient;

use crate::harness::Cluster;

/// How long a node may take to tell of itself.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

/// What is watched: a column's name in the file, what it is in words, and by how much it may differ by chance.
#[derive(Debug)]
pub struct Measure {
    pub column: &'static str,
    pub words: &'static str,
    /// The last third may be above the middle one by so much, beside a share; see [`Measure::most`].
    slack: f64,
    /// What stands for a third of the time: the look that this share of its looks is below.
    pub quantile: f64,
}

/// From this length on chance evens out within a third.
const LONG: Duration = Duration::from_secs(600);

impl Measure {
    /// The most that the last third may have where the middle one had so much, in a run of this length: in a minute, one
    /// journal more or less in a third of it is chance.
    pub fn most(&self, middle: f64, length: Duration) -> f64 {
        let (share, slack) = if length >= LONG { (0.1, self.slack / 4.0) } else { (0.15, self.slack) };
        middle * (1.0 + share) + slack
    }
}

/// What is there all the time, more or less: the median tells whether it grows.
const fn usually(column: &'static str, words: &'static str, slack: f64) -> Measure {
    Measure { column, words, slack, quantile: 0.5 }
}

/// What is kept for whoever is down, by the plan, and goes when all are back: what stays then is what leaks, so the least
/// tells.
const fn at_least(column: &'static str, words: &'static str, slack: f64) -> Measure {
    Measure { column, words, slack, quantile: 0.0 }
}

/// In the order of [`Row::values`].
pub const MEASURES: &[Measure] = &[
    usually("resident_mib", "resident memory, MiB", 24.0),
    usually("handles", "open handles", 24.0),
    usually("threads", "threads", 4.0),
    // Journals come and go whole, 64 MiB each.
    usually("disk_mib", "data directory, MiB", 80.0),
    usually("journal_mib", "journals, MiB", 80.0),
    at_least("tombstones", "tombstones", 200.0),
    at_least("logged", "operations in logs", 500.0),
    at_least("unapplied", "operations that wait", 500.0),
];

/// One look at one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub seconds: f64,
    /// From 1 on.
    pub node: usize,
    /// What the store was asked to have.
    pub shards: u32,
    pub resharding: bool,
    /// In the order of [`MEASURES`]; `None` where the node did not run, or did not tell.
    pub values: Vec<Option<f64>>,
}

/// All looks so far.
pub struct Samples {
    pub rows: Vec<Row>,
    file: File,
    runtime: tokio::runtime::Runtime,
}

impl Samples {
    /// None yet; they go to this file.
    pub fn new(path: &Path) -> Self {
        let mut file = File::create(path).expect("the samples can be written");
        let columns: Vec<_> = MEASURES.iter().map(|measure| measure.column).collect();
        writeln!(file, "seconds,node,shards,resharding,{}", columns.join(",")).expect("the samples can be written");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { rows: Vec::new(), file, runtime }
    }

    /// Looks at every node.
    pub fn take(&mut self, cluster: &Cluster, now: Duration, shards: u32, resharding: bool) {
        for node in 0..cluster.nodes.len() {
            let pid = cluster.running(node);
            let values = match pid {
                Some(pid) => self.look(cluster, node, pid),
                None => vec![None; MEASURES.len()],
            };
            let row = Row { seconds: now.as_secs_f64(), node: node + 1, shards, resharding, values };
            let text: Vec<_> = row.values.iter().map(|value| value.map_or_else(String::new, number)).collect();
            let (shards, resharding) = (row.shards, u8::from(row.resharding));
            writeln!(self.file, "{:.1},{},{shards},{resharding},{}", row.seconds, row.node, text.join(","))
                .expect("the samples can be written");
            self.rows.push(row);
        }
    }

    fn look(&self, cluster: &Cluster, node: usize, pid: u32) -> Vec<Option<f64>> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let of_status = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok()
        };
        let handles = fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|fds| fds.count() as f64);
        let (all, journals) = on_disk(&cluster.data_dir(node));
        let told = self
            .runtime
            .block_on(async { tokio::time::timeout(TOLD_WITHIN, told(&cluster.nodes[node])).await.ok().flatten() });
        vec![
            of_status("VmRSS").map(|kib| kib / 1024.0),
            handles,
            of_status("Threads"),
            Some(mib(all)),
            Some(mib(journals)),
            told.map(|told| told.0),
            told.map(|told| told.1),
            told.map(|told| told.2),
        ]
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Tombstones, operations in logs and operations that wait, of all its partitions.
async fn told(node: &str) -> Option<(f64, f64, f64)> {
    let (host, port) = node.rsplit_once(':').expect("an address has a port");
    let port: u16 = port.parse().expect("a port is a number");
    let mut client = InspectClient::connect(format!("http://{host}:{}", port + 1000)).await.ok()?;
    let reply = client.get_vectors(GetVectorsRequest { partition: None }).await.ok()?.into_inner();
    let sum = |of: fn(&entail::wire::proto::get_vectors_reply::Partition) -> u64| {
        reply.partitions.iter().map(of).sum::<u64>() as f64
    };
    Some((sum(|part| part.tombstones), sum(|part| part.logged), sum(|part| part.unapplied)))
}

/// Bytes that a directory takes on the disk, and those of its journals: these are made as long as they may become, so
/// it is blocks that count. Files may go while they are looked at.
fn on_disk(directory: &Path) -> (u64, u64) {
    let (mut all, mut journals) = (0, 0);
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let Ok(data) = entry.metadata() else { continue };
        if data.is_dir() {
            let below = on_disk(&entry.path());
            all += below.0;
            journals += below.1;
        } else {
            let bytes = data.blocks() * 512;
            all += bytes;
            journals += if entry.path().extension().is_some_and(|end| end == "jnl") { bytes } else { 0 };
        }
    }
    (all, journals)
}
