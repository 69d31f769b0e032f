//! `dev`: a whole cluster on this machine, each node a process of its own, until Ctrl-C.
//!
//! The nodes are `entail serve` of this very executable on consecutive loopback ports, each with its own data
//! directory and log file. Once all are ready it prints what to paste, then one line for each thing that happens. At
//! the end nothing is left behind: a node stops when the pipe to its standard input ends, and that pipe ends with this
//! process, however it dies. A node that died is not started again by itself, so that one can watch the others go on;
//! the line that says so also says how to start it.

mod nodes;
mod tour;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::failed;
use nodes::{Node, Nodes, Plan};
use watch::{Seen, changes};

/// How often the nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long the nodes may take until all are ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The shape of the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct DevArgs {
    /// How many nodes; at least two a shard.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(2..=1000))]
    nodes: u16,
    /// How many shards.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    shards: u16,
    /// The first node's REST port; the others follow, and the gRPC ports are 1000 above.
    #[arg(long, default_value_t = 8081, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Where the nodes keep their data and logs [default: a temporary directory, removed at the end].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// `entail dev`.
pub async fn run(args: DevArgs) -> ExitCode {
    match cluster(args).await {
        Ok(status) => status,
        Err(error) => failed(error),
    }
}

async fn cluster(args: DevArgs) -> io::Result<ExitCode> {
    let home = Home::new(args.data_dir.as_deref())?;
    let plan = match Plan::new(args.nodes, args.shards, args.port, home.path()) {
        Ok(plan) => plan,
        Err(reason) => {
            eprintln!("entail: {reason}");
            return Ok(ExitCode::from(2));
        }
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut nodes = Nodes::start(&plan)?;
    println!("starting {} nodes in {} shards; data and logs in {}", args.nodes, args.shards, home.shown());
    let ended = tokio::select! {
        ended = lived(&plan, &mut nodes) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    println!("stopping");
    nodes.stop().await;
    Ok(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("entail: {reason}");
            ExitCode::FAILURE
        }
    })
}

/// From the start to for ever; returns only with the reason why the cluster did not come up.
async fn lived(plan: &Plan, nodes: &mut Nodes) -> Result<(), String> {
    let begin = Instant::now();
    let mut seen = ready(plan, nodes, begin + READY_WITHIN).await?;
    println!("ready after {:.1} s\n", begin.elapsed().as_secs_f64());
    println!("{}", tour::text(&plan.nodes, &seen));
    println!("Ctrl-C stops all nodes. What happens to them:");
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let now = watch::look(plan, nodes).await;
        for line in changes(&plan.nodes, &seen, &now) {
            println!("  {:>7.1} s  {line}", begin.elapsed().as_secs_f64());
        }
        seen = now;
    }
}

/// Waits until every node is ready; a node that ends meanwhile, and a time that is over, are reasons to give up.
async fn ready(plan: &Plan, nodes: &mut Nodes, until: Instant) -> Result<Vec<Seen>, String> {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let seen = watch::look(plan, nodes).await;
        for (node, seen) in plan.nodes.iter().zip(&seen) {
            if let Some(status) = &seen.ended {
                return Err(format!("{} ended with {status}:\n{}", node.name, last_lines(node)));
            }
        }
        if seen.iter().all(|node| node.ready == Some(Ok(()))) {
            return Ok(seen);
        }
        if Instant::now() > until {
            let waiting = plan.nodes.iter().zip(&seen).filter(|(_, seen)| seen.ready != Some(Ok(())));
            let waiting: Vec<_> = waiting.map(|(node, seen)| format!("{} ({})", node.name, seen.readiness())).collect();
            return Err(format!("not ready in time: {}", waiting.join(", ")));
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What a node said last, for one that did not come up.
fn last_lines(node: &Node) -> String {
    let log = std::fs::read_to_string(&node.log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// The directory of the cluster; a temporary one is removed with this value.
struct Home {
    path: PathBuf,
    temporary: bool,
}

impl Home {
    fn new(given: Option<&Path>) -> io::Result<Self> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => {
                let random = getrandom::u64().map_err(io::Error::other)?;
                std::env::temp_dir().join(format!("entail-dev-{random:016x}"))
            }
        };
        std::fs::create_dir_all(&path)?;
        Ok(Self { path, temporary: given.is_none() })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn shown(&self) -> String {
        let what = if self.temporary { " (removed at the end)" } else { "" };
        format!("{}{what}", self.path.display())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("entail: {} could not be removed: {error}", self.path.display());
        }
    }
}
