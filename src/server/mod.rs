//! One node as a process: both ports bound, store opened, node started, requests served, everything stopped in order.
//!
//! The order at the start: settings, ports (so that a second process at the same address leaves the data alone), the
//! data directory, the node, the two servers. The order at the stop: no more connections; requests under way get
//! three seconds; the node, with a last sync; exit 0. A silent client holds up neither, and a second signal ends at once.
//!
//! Exit statuses: 0 stopped as asked; 1 could not start or go on (a port, the data directory, a failed disk); 2 the
//! settings are no good, so starting again without changing them is no use.

pub mod http;
mod patient;
mod refused;
pub mod stop;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

use crate::api::{grpc, rest};
use crate::cluster::layout::{SettingsError, check_settings};
use crate::cluster::reconcile::rules::ReconcileRules;
use crate::config::{ServeArgs, SettingError, Settings};
use crate::error::StoreError;
use crate::machine::Config;
use crate::machine::rules::Rules;
use crate::net::Listener;
use crate::node::{Disk, Node, NodeError, Options, Surroundings};
use crate::store::disk::{self, DiskStore};
use http::Limits;
use stop::{Stop, StopTrigger, on_parent_gone, on_signals, stop_pair};

/// How long requests may go on after the wish to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// How long a request's body may take to arrive, where a client is given more time for the rest.
const MOST_BODY_TIME: Duration = Duration::from_secs(10);

/// How long tasks that are blocked in the system may hold up the exit.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Connections to the REST port at once, when the limit on open files allows it.
const MAX_CONNECTIONS: usize = 16_384;

/// Requests that may wait at once, for what they depend on, for another node, or for their copies.
const MAX_WAITING: usize = 16_384;

/// How long an empty node listens before it founds a store, in milliseconds. A node of a store dials one that is back
/// within a second, and tells it the map at once.
const LISTEN_MS: u64 = 2_000;

/// Bytes of operations from other nodes that wait for what they depend on.
const MAX_UNAPPLIED_BYTES: usize = 64 << 20;

/// File descriptors kept for the store, the peers and the connections to the gRPC port, of which there are 256 at most.
const RESERVED_FILES: usize = 512;

/// Why a node could not start or go on.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Settings(#[from] SettingError),
    #[error("{0}")]
    Layout(#[from] SettingsError),
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Node(#[from] NodeError),
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

impl ServeError {
    /// True when the operator gave up this directory: the node is to begin anew.
    fn is_forgotten(&self) -> bool {
        matches!(self, Self::Store(StoreError::Forgotten(_)) | Self::Node(NodeError::Store(StoreError::Forgotten(_))))
    }

    fn status(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::Layout(_) => 2,
            Self::Bind { .. } | Self::Store(_) | Self::Node(_) | Self::System(_) => 1,
        }
    }
}

/// Runs one node until it is told to stop; gives the process's exit status. With `watch_parent` the end of standard
/// input is a wish to stop, too.
pub fn run(args: &ServeArgs, watch_parent: bool) -> ExitCode {
    crate::telemetry::start();
    match start(args, watch_parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::telemetry::say(&error.to_string());
            ExitCode::from(error.status())
        }
    }
}

fn start(args: &ServeArgs, watch_parent: bool) -> Result<(), ServeError> {
    let settings = Settings::parse(args)?;
    check_settings(&settings.address, &settings.view, settings.shard_count, settings.partitions)?;
    let limits = Limits { connections: connection_limit(), patience: settings.client_timeout, drain: DRAIN };
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    // Clients have threads of their own, so that however many there are, peers are answered and pinged in time.
    let clients = Builder::new_multi_thread().thread_name("clients").enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (trigger, stop) = stop_pair();
        on_signals(trigger.clone())?;
        if watch_parent {
            on_parent_gone(trigger.clone());
        }
        loop {
            match serve(&settings, limits, stop.clone(), clients.handle()).await {
                Err(error) if error.is_forgotten() => {
                    let aside = disk::set_aside(&settings.data_dir)?;
                    tracing::warn!("{error}; what it had is in {}", aside.display());
                }
                other => return other,
            }
        }
    });
    clients.shutdown_timeout(LAST_TASKS);
    runtime.shutdown_timeout(LAST_TASKS);
    outcome
}

/// Serves until the stop, or until the node must not go on; clients on the runtime that is theirs.
async fn serve(settings: &Settings, limits: Limits, stop: Stop, clients: &Handle) -> Result<(), ServeError> {
    let rest = clients.spawn(bind(settings.rest_socket())).await.map_err(io::Error::other)??;
    let grpc = bind(settings.grpc_socket()).await?;
    let node = open(settings)?;
    let limits_of_requests = rest::Limits {
        max_key_bytes: settings.max_key_bytes,
        max_value_bytes: settings.max_value_bytes,
        deadline: settings.deadline,
        body_timeout: settings.client_timeout.min(MOST_BODY_TIME),
        ..rest::Limits::default()
    };
    serve_node(node, rest, grpc, limits_of_requests, limits, stop, clients).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Serves what a node answers, on a listener for its clients and one for the other nodes, until the stop, or until the
/// node must not go on; then everything is stopped in order. Clients are served on the runtime that is theirs, where their
/// listener was made.
///
/// # Errors
/// What ended the node.
pub async fn serve_node(
    node: Node,
    rest: impl Listener,
    grpc: impl Listener,
    requests: rest::Limits,
    connections: Limits,
    stop: Stop,
    clients: &Handle,
) -> Result<(), NodeError> {
    let local = node.local();
    // The servers stop with the process, and with the node.
    let (trigger, servers_stop) = stop_pair();
    let stops = tokio::spawn(stop_when(node.ended(), stop, trigger));
    let (end_grpc, grpc_ends) = watch::channel(false);
    let grpc = tokio::spawn(grpc::serve(grpc, node.handle(), Arc::clone(&local), grpc_ends));
    tracing::info!(address = %local.address, incarnation = %local.incarnation, "serving");
    let serving = http::serve(rest, rest::router(node.handle(), requests), servers_stop, connections);
    // It fails only with a panic, which the runtime has reported.
    let _ = clients.spawn(serving).await;
    // The last requests needed the peers, so their side ends after the clients'.
    stops.abort();
    end_grpc.send_replace(true);
    if let Ok(Err(error)) = grpc.await {
        tracing::warn!(%error, "the gRPC side ended with an error");
    }
    node.stop().await
}

/// Opens the data directory and starts the node on it.
fn open(settings: &Settings) -> Result<Node, ServeError> {
    let options = disk::Options { cache_bytes: settings.cache_bytes, ..disk::Options::default() };
    let store = Arc::new(DiskStore::open_with(&settings.data_dir, &options)?);
    let room = store.clone();
    let free_bytes = Box::new(move || room.free_bytes().ok());
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    let machine = Config {
        address: settings.address.clone(),
        view: settings.view.clone(),
        shard_count: settings.shard_count,
        partitions: settings.partitions,
        write_copies: settings.write_copies,
        max_waiting: MAX_WAITING,
        max_unapplied_bytes: MAX_UNAPPLIED_BYTES,
        seed,
        rules: Rules::all(),
        reconcile_rules: ReconcileRules::all(),
        fill_bytes_a_second: settings.fill_bytes_s,
        listen_ms: LISTEN_MS,
    };
    let options = Options { machine, grpc_port_offset: settings.grpc_port_offset };
    Ok(Node::start(options, Disk { store, free_bytes }, Surroundings::system())?)
}

/// The node's loop ends by itself only when it must not go on.
async fn stop_when(ended: impl Future<Output = ()>, mut stop: Stop, trigger: StopTrigger) {
    tokio::select! {
        biased;
        () = ended => {}
        () = stop.requested() => {}
    }
    trigger.stop();
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })
}

/// Raises the soft limit on open files to the hard one and gives how many connections fit below it.
fn connection_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    // No limit at all is none for us either.
    let files = raised.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    files.saturating_sub(RESERVED_FILES).clamp(64, MAX_CONNECTIONS)
}
