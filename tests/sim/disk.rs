//! A node's disk: the store in memory, watched, so that the oracle learns what every batch changed.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use entail::error::StoreError;
use entail::store::memory::MemoryStore;
use entail::store::{Batch, Read, Store};

/// One key's change by a batch.
#[derive(Clone, Debug)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// What was there.
    pub old: Option<Bytes>,
    /// What is there now.
    pub new: Option<Bytes>,
}

/// The changes of one batch, and its number in the store.
pub type Changed = (u64, Vec<Change>);

/// A store that remembers what was applied until the world asks.
#[derive(Debug, Default)]
pub struct Disk {
    store: MemoryStore,
    changed: Mutex<Vec<Changed>>,
}

impl Disk {
    /// The newest batch's number.
    pub fn applied(&self) -> u64 {
        self.store.applied()
    }

    /// How many batches a crash may lose.
    pub fn unsynced_len(&self) -> usize {
        self.store.unsynced_len()
    }

    /// A sync that covers the batches up to this number has ended.
    pub fn sync_to(&self, number: u64) {
        self.store.sync_to(number);
    }

    /// What the next start finds when the first `keep` of the batches that were not synced survive.
    pub fn crash(&self, keep: usize) -> Self {
        Self { store: self.store.crash(keep), changed: Mutex::default() }
    }

    /// What was applied since the last call.
    pub fn take_changed(&self) -> Vec<Changed> {
        mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Read for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.scan(from, until, limit)
    }
}

impl Store for Disk {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut changes = Vec::with_capacity(batch.changes.len());
        for (key, new) in &batch.changes {
            let old = self.store.get(key)?;
            changes.push(Change { key: key.clone(), old, new: new.clone() });
        }
        self.store.apply(batch)?;
        let number = self.store.applied();
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).push((number, changes));
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn view(&self) -> Arc<dyn Read> {
        self.store.view()
    }
}
