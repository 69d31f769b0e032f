//! The syncer: makes batches durable beside the loop, as many at once as there are.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::error::NodeError;
use super::surroundings::{Driver, Work};
use crate::error::StoreError;
use crate::store::Store;
use crate::types::BatchNo;

/// What a node tells itself.
#[derive(Debug)]
pub(super) enum Own {
    Synced(BatchNo),
    SyncFailed(StoreError),
}

/// A running syncer.
pub(super) struct Syncer {
    batches: UnboundedSender<BatchNo>,
    work: Work<()>,
}

impl Syncer {
    /// Starts it; what becomes of batches is told to `own`.
    pub fn start(driver: &Driver, store: Arc<dyn Store>, own: UnboundedSender<Own>) -> io::Result<Self> {
        let (batches, mut wanted) = mpsc::unbounded_channel();
        let work = match driver {
            Driver::Threads => Work::on_thread("sync", move || {
                while let Some(first) = wanted.blocking_recv() {
                    let last = newest(first, &mut wanted);
                    if !tell(&own, last, store.sync()) {
                        return;
                    }
                }
            })?,
            Driver::Tasks(sync) => {
                let sync = Arc::clone(sync);
                Work::Task(tokio::spawn(async move {
                    while let Some(first) = wanted.recv().await {
                        let last = newest(first, &mut wanted);
                        if !tell(&own, last, sync().await) {
                            return;
                        }
                    }
                }))
            }
        };
        Ok(Self { batches, work })
    }

    /// This batch, and all before it, are to become durable.
    pub fn take(&self, batch: BatchNo) {
        // A syncer that is gone has failed already, and says so with its last message.
        let _ = self.batches.send(batch);
    }

    /// Comes back when all that was handed over is durable.
    ///
    /// # Errors
    /// [`NodeError::Panicked`].
    pub async fn finish(self) -> Result<(), NodeError> {
        drop(self.batches);
        self.work.done().await
    }
}

/// The last of the batches that wait.
fn newest(first: BatchNo, wanted: &mut UnboundedReceiver<BatchNo>) -> BatchNo {
    std::iter::from_fn(|| wanted.try_recv().ok()).last().unwrap_or(first)
}

/// Tells the loop; false when there is nothing more to do.
fn tell(own: &UnboundedSender<Own>, last: BatchNo, synced: Result<(), StoreError>) -> bool {
    let failed = synced.is_err();
    let told = match synced {
        Ok(()) => Own::Synced(last),
        Err(error) => Own::SyncFailed(error),
    };
    own.send(told).is_ok() && !failed
}
