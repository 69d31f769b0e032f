//! One node as a process: both ports bound, store opened, node started, requests served, everything stopped in order.
//!
//! The order at the start: settings, ports (so that a second process at the same address leaves the data alone), the
//! data directory, the node, the two servers. The order at the stop: no more connections; requests under way get
//! [`DRAIN`]; the node, with a last sync; exit 0. A silent client holds up neither, and a second signal ends at once.
//!
//! Exit statuses: 0 stopped as asked; 1 could not start or go on (a port, the data directory, a failed disk); 2 the
//! settings are no good, so starting again without changing them is no use.

pub mod http;
pub mod stop;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;

use crate::config::{ServeArgs, SettingError, Settings};
use crate::error::StoreError;
use http::Limits;
use stop::{StopTrigger, on_parent_gone, on_signals, stop_pair};

/// How long requests may go on after the wish to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// How long tasks that are blocked in the system may hold up the exit.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Connections to the REST port at once, when the limit on open files allows it.
const MAX_CONNECTIONS: usize = 16_384;

/// File descriptors kept for the store, the peers and the gRPC port.
const RESERVED_FILES: usize = 512;

/// Why a node could not start or go on.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Settings(#[from] SettingError),
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

impl ServeError {
    fn status(&self) -> u8 {
        match self {
            Self::Settings(_) => 2,
            Self::Bind { .. } | Self::Store(_) | Self::System(_) => 1,
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
            eprintln!("entail: {error}");
            ExitCode::from(error.status())
        }
    }
}

fn start(args: &ServeArgs, watch_parent: bool) -> Result<(), ServeError> {
    let settings = Settings::parse(args)?;
    let limits = Limits { connections: connection_limit(), drain: DRAIN };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (trigger, stop) = stop_pair();
        on_signals(trigger.clone())?;
        if watch_parent {
            on_parent_gone(trigger.clone());
        }
        let rest = bind(settings.rest_socket()).await?;
        let grpc = bind(settings.grpc_socket()).await?;
        // GLUE: DiskStore::open, the node, api::rest::router, api::grpc; the node's fatal error calls trigger.stop().
        let router = Router::new().route("/healthz", axum::routing::get(|| async { "{}" }));
        let _: (TcpListener, StopTrigger) = (grpc, trigger);
        http::serve(rest, router, stop, limits).await;
        Ok(())
    });
    runtime.shutdown_timeout(LAST_TASKS);
    outcome
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
