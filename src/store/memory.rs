//! A store in memory that can lose what a crash would lose: the simulator's disk, and the model for the real one.
//!
//! Batches are numbered from 1 in the order they are applied. Beside the present state the store keeps, for each batch
//! that is not synced yet, what it overwrote; [`MemoryStore::crash`] undoes the newest of them and so finds the state
//! that a crash would leave which kept a chosen prefix. A sync may be *completed later* than it was begun: note
//! [`MemoryStore::applied`] when it begins, call [`MemoryStore::sync_to`] with that when it ends.
//!
//! Views share the map and cost nothing; the first batch after a view copies the map, if the view is still held.
//! Everything is ordered and nothing is random: two runs with the same calls are the same.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Batch, Read, Store};
use crate::error::StoreError;

/// The contents at one point in time.
type Map = BTreeMap<Bytes, Bytes>;

/// What one batch overwrote, key by key; applied as a batch, it takes the batch back.
type Undo = Vec<(Bytes, Option<Bytes>)>;

/// A [`Store`] in memory. See the module's text.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    map: Arc<Map>,
    /// How many batches were applied since the store was made (or came out of a crash).
    applied: u64,
    /// One for each of the newest batches, those that are not synced: the last one belongs to batch `applied`.
    undo: VecDeque<Undo>,
    /// True while the store plays a full disk.
    full: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of batches applied so far, which is the number of the newest one. Starts at 0, also after a crash.
    pub fn applied(&self) -> u64 {
        self.state().applied
    }

    /// The number of the newest batch that is durable: it, and all before it, survive every crash.
    pub fn synced(&self) -> u64 {
        self.state().synced()
    }

    /// How many of the newest batches a crash may lose.
    pub fn unsynced_len(&self) -> usize {
        self.state().undo.len()
    }

    /// Completes a sync that covers the batches up to `number`. One that covers less than an earlier one did changes
    /// nothing; a number beyond [`MemoryStore::applied`] is taken as that.
    pub fn sync_to(&self, number: u64) {
        let mut state = self.state();
        let newly = number.min(state.applied).saturating_sub(state.synced());
        state.undo.drain(..newly as usize);
    }

    /// The store as the next start would find it after a crash that kept the first `keep_unsynced` of the batches that
    /// were not synced (all of them, when there are fewer). Everything in it is durable; its numbers start again at 0.
    /// This store stays as it is.
    #[must_use]
    pub fn crash(&self, keep_unsynced: usize) -> Self {
        let state = self.state();
        let mut map = Arc::clone(&state.map);
        for undo in state.undo.iter().skip(keep_unsynced).rev() {
            let map = Arc::make_mut(&mut map);
            for (key, old) in undo.iter().rev() {
                set(map, key.clone(), old.clone());
            }
        }
        Self { state: Mutex::new(State { map, ..State::default() }) }
    }

    /// While on, every batch is refused with [`StoreError::Full`] and changes nothing.
    pub fn fail_full(&self, on: bool) {
        self.state().full = on;
    }

    /// A panic elsewhere cannot leave the state half changed: no call in here panics between two changes of it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn synced(&self) -> u64 {
        self.applied - self.undo.len() as u64
    }
}

impl Read for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().map.get(key).cloned())
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(scan(&self.state().map, from, until, limit))
    }
}

impl Store for MemoryStore {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check_keys()?;
        let mut state = self.state();
        if state.full {
            return Err(StoreError::Full("the store in memory was told to be full".into()));
        }
        let map = Arc::make_mut(&mut state.map);
        let undo = batch
            .changes
            .into_iter()
            .map(|(key, value)| {
                let old = set(map, key.clone(), value);
                (key, old)
            })
            .collect();
        state.undo.push_back(undo);
        state.applied += 1;
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.sync_to(u64::MAX);
        Ok(())
    }

    fn view(&self) -> Arc<dyn Read> {
        Arc::new(View(Arc::clone(&self.state().map)))
    }
}

/// The contents as they were when the view was taken.
#[derive(Debug)]
struct View(Arc<Map>);

impl Read for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(scan(&self.0, from, until, limit))
    }
}

/// Sets or removes one key; gives what was there.
fn set(map: &mut Map, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

fn scan(map: &Map, from: &[u8], until: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
    // BTreeMap panics on a range that ends before it begins; here such a range is merely empty.
    if from >= until {
        return Vec::new();
    }
    map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)))
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &MemoryStore, key: &'static str, value: &'static str) {
        let changes = vec![(Bytes::from(key), Some(Bytes::from(value)))];
        store.apply(Batch { changes }).unwrap();
    }

    fn remove(store: &MemoryStore, key: &'static str) {
        store.apply(Batch { changes: vec![(Bytes::from(key), None)] }).unwrap();
    }

    fn contents(store: &dyn Read) -> Vec<(String, String)> {
        let text = |b: Bytes| String::from_utf8(b.to_vec()).unwrap();
        store.scan(b"", b"~", usize::MAX).unwrap().into_iter().map(|(k, v)| (text(k), text(v))).collect()
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        let store = MemoryStore::new();
        put(&store, "a", "1");
        store.sync().unwrap();
        put(&store, "a", "2");
        put(&store, "b", "1");
        remove(&store, "a");
        assert_eq!((store.applied(), store.synced(), store.unsynced_len()), (4, 1, 3));
        let pairs = |p: &[(&str, &str)]| p.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
        let expected: [&[(&str, &str)]; 5] =
            [&[("a", "1")], &[("a", "2")], &[("a", "2"), ("b", "1")], &[("b", "1")], &[("b", "1")]];
        for (keep, expected) in expected.into_iter().enumerate() {
            let found = store.crash(keep);
            assert_eq!(contents(&found), pairs(expected), "keeping {keep}");
            assert_eq!((found.applied(), found.unsynced_len()), (0, 0));
        }
        // The store that crashed is untouched, and so is one found after it.
        let found = store.crash(1);
        put(&found, "c", "9");
        assert_eq!(contents(&store), pairs(&[("b", "1")]));
        assert_eq!(contents(&found.crash(0)), pairs(&[("a", "2")]));
    }

    #[test]
    fn a_sync_that_ends_later_covers_what_was_there_when_it_began() {
        let store = MemoryStore::new();
        put(&store, "a", "1");
        let begun = store.applied();
        put(&store, "a", "2");
        store.sync_to(begun);
        assert_eq!((store.synced(), store.unsynced_len()), (1, 1));
        assert_eq!(store.crash(0).get(b"a").unwrap().unwrap(), "1");
        store.sync_to(0);
        assert_eq!(store.synced(), 1, "an older sync takes nothing back");
        store.sync_to(99);
        assert_eq!(store.synced(), 2);
    }

    #[test]
    fn a_full_store_refuses_and_goes_on() {
        let store = MemoryStore::new();
        put(&store, "a", "1");
        store.fail_full(true);
        let refused = store.apply(Batch { changes: vec![(Bytes::from("a"), None)] });
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        assert_eq!((store.applied(), store.get(b"a").unwrap().unwrap()), (1, Bytes::from("1")));
        store.fail_full(false);
        remove(&store, "a");
        assert_eq!(store.get(b"a").unwrap(), None);
    }
}
