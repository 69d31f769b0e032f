//! The changes that steps have made and no batch has taken yet, seen by reads as if they were applied.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::StoreError;
use crate::store::{Batch, Read, Store};

/// What a step reads from and reports to.
pub(super) struct Io<'a> {
    /// The store, without what is pending.
    pub store: &'a dyn Store,
    /// What is to be done, in order.
    pub effects: &'a mut Vec<super::message::Effect>,
}

/// Changes that wait for the next batch.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of keys and values that were put, those that were replaced since included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.changes.insert(key, Some(value));
    }

    pub fn remove(&mut self, key: Bytes) {
        self.bytes += key.len();
        self.changes.insert(key, None);
    }

    pub fn get(&self, store: &dyn Read, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => store.get(key),
        }
    }

    /// Up to `limit` pairs of the range as it will be, ascending.
    pub fn scan(
        &self,
        store: &dyn Read,
        from: &Bytes,
        until: &Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let changed = self.changes.range(from.clone()..until.clone()).count();
        // Each change hides at most one stored pair.
        let stored = store.scan(from, until, limit.saturating_add(changed))?;
        if changed == 0 {
            return Ok(stored);
        }
        let mut merged: BTreeMap<Bytes, Bytes> = stored.into_iter().collect();
        for (key, change) in self.changes.range(from.clone()..until.clone()) {
            match change {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    /// All of it as one batch; it stays pending until [`Pending::clear`], for a store may refuse it.
    pub fn batch(&self) -> Batch {
        Batch { changes: self.changes.iter().map(|(key, change)| (key.clone(), change.clone())).collect() }
    }

    pub fn clear(&mut self) {
        self.changes.clear();
        self.bytes = 0;
    }
}
