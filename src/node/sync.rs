//! The syncer: one thread that makes batches durable, as many at once as there are.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use tokio::sync::mpsc::UnboundedSender;

use super::run::Own;
use crate::store::Store;
use crate::types::BatchNo;

/// Starts the thread. It ends when the sender of batches is dropped, after what was handed to it is durable.
pub(super) fn start(
    store: Arc<dyn Store>,
    own: UnboundedSender<Own>,
) -> std::io::Result<(mpsc::Sender<BatchNo>, thread::JoinHandle<()>)> {
    let (batches, wanted) = mpsc::channel::<BatchNo>();
    let thread = thread::Builder::new().name("sync".into()).spawn(move || {
        while let Ok(first) = wanted.recv() {
            let last = wanted.try_iter().last().unwrap_or(first);
            let done = match store.sync() {
                Ok(()) => Own::Synced(last),
                Err(error) => Own::SyncFailed(error),
            };
            let failed = matches!(done, Own::SyncFailed(_));
            if own.send(done).is_err() || failed {
                return;
            }
        }
    })?;
    Ok((batches, thread))
}
