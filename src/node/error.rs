//! Why nodes end.

use crate::error::StoreError;

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No thread could be started.
    #[error("no thread could be started: {0}")]
    Thread(std::io::Error),
    /// The loop, or the syncer, panicked: a bug.
    #[error("the node's loop has failed; this is a bug")]
    Panicked,
}
