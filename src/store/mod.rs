//! Bytes in, bytes out: what the machine needs of a disk, and nothing of what it keeps there.
//!
//! The contract of [`Store`], which both implementations are tested against:
//! - [`Store::apply`] is atomic and visible at once to every later read.
//! - [`Store::sync`] makes durable all that was applied before it was called. It may run beside `apply` and reads on
//!   another thread; one caller at a time.
//! - What survives a crash is a *prefix* of the applied batches that contains everything synced.
//! - [`Store::view`] is a point in time: later batches do not show in it.
//! - There is one writer: `apply` is called from one thread at a time.
//! - What is damaged is an error that names the file, never a silent skip.
//! - A key has 1 to [`MAX_KEY_LEN`] bytes and sorts below [`KEYS_END`].
//!
//! Deliberately absent: the store knows no keys, partitions, nodes or maps. Layout and record formats are the
//! machine's (`machine::records`).

pub mod disk;
pub mod memory;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::error::StoreError;

/// The longest key, in bytes.
pub const MAX_KEY_LEN: usize = 65_535;

/// Where the keys end: what sorts at or above this is the store's own.
pub const KEYS_END: &[u8] = &[0xff; 8];

/// Reads, of the present or of a point in time.
pub trait Read: Send + Sync {
    /// The value at `key`, or `None`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` pairs with `from <= key < until`, in ascending order of key.
    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
}

/// One atomic change: each key is set to a value, or removed with `None`. Keys are distinct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    /// # Errors
    /// [`StoreError::Failed`] when a key is empty, too long, or not below [`KEYS_END`]: a bug of the caller.
    fn check_keys(&self) -> Result<(), StoreError> {
        let bad = |key: &Bytes| key.is_empty() || key.len() > MAX_KEY_LEN || &key[..] >= KEYS_END;
        match self.changes.iter().find(|(key, _)| bad(key)) {
            None => Ok(()),
            Some((key, _)) => Err(StoreError::Failed(format!(
                "a key of {} bytes cannot be stored: keys have 1 to {MAX_KEY_LEN} bytes and do not begin with eight 0xff",
                key.len()
            ))),
        }
    }
}

/// A node's store. See the module's text for the contract.
pub trait Store: Read {
    /// Applies the batch atomically; visible at once, durable with the next `sync`.
    ///
    /// # Errors
    /// [`StoreError::Full`]: nothing was applied and the store goes on. Anything else is fatal.
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;

    /// Makes durable all that was applied before the call.
    ///
    /// # Errors
    /// Any error is fatal: what is durable is then unknown.
    fn sync(&self) -> Result<(), StoreError>;

    /// The present, kept as it is now.
    fn view(&self) -> Arc<dyn Read>;
}
