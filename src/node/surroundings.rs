//! What a node is given of the world beside its disk: clocks, the network, and where its loop runs.
//!
//! In production the loop has a thread of its own, and so have the syncs: neither waits for anything else that the
//! process does. A simulation runs both as tasks of one runtime, whose time is virtual, and says itself how long a sync
//! takes and what a turn costs: then a run is a function of its seed.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};

use super::error::NodeError;
use crate::error::StoreError;
use crate::wire::{Dialler, Tcp};

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The clocks. Time that passes is tokio's.
    pub clock: Arc<dyn Clock>,
    /// How other nodes are reached.
    pub dialler: Arc<dyn Dialler>,
    /// Where the loop runs.
    pub driver: Driver,
}

impl Surroundings {
    /// Those of a process.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), dialler: Arc::new(Tcp), driver: Driver::Threads }
    }
}

/// The clocks that a runtime does not have.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Milliseconds since 1970; 0 on a clock that is before.
    fn wall_ms(&self) -> u64;

    /// How long the calling thread has had a core since it began.
    fn on_core(&self) -> Duration;
}

/// The machine's.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn on_core(&self) -> Duration {
        Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
    }
}

/// A sync under way.
pub type Syncing = BoxFuture<'static, Result<(), StoreError>>;

/// Where a node's loop and its syncs run.
#[derive(Clone)]
pub enum Driver {
    /// On a thread each.
    Threads,
    /// As tasks of the runtime in which the node is started. This begins a sync: once that has ended, all is durable that
    /// was applied before it began. There is one at a time.
    Tasks(Arc<dyn Fn() -> Syncing + Send + Sync>),
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Tasks(_) => "Tasks",
        })
    }
}

impl Driver {
    /// Begins some work.
    ///
    /// # Errors
    /// No thread, or nothing that would drive it there.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<Work<T>> {
        match self {
            Self::Threads => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
                Work::on_thread(name, move || runtime.block_on(work))
            }
            Self::Tasks(_) => Ok(Work::Task(tokio::spawn(work))),
        }
    }
}

/// Work that was begun.
#[derive(Debug)]
pub(super) enum Work<T> {
    Thread(thread::JoinHandle<T>),
    Task(tokio::task::JoinHandle<T>),
}

impl<T: Send + 'static> Work<T> {
    pub fn on_thread(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        thread::Builder::new().name(name.into()).spawn(work).map(Self::Thread)
    }

    /// What comes of it. Blocks the calling thread for work that has a thread of its own.
    ///
    /// # Errors
    /// [`NodeError::Panicked`].
    pub async fn done(self) -> Result<T, NodeError> {
        match self {
            Self::Thread(thread) => thread.join().map_err(|_| NodeError::Panicked),
            Self::Task(task) => task.await.map_err(|_| NodeError::Panicked),
        }
    }
}
