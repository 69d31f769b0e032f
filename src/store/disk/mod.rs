//! The store on disk: fjall's log-structured tree, and beside it what fjall does not tell by itself.
//!
//! **Writing.** A batch is one record in fjall's journal and then in its memory table: in the hands of the operating
//! system when [`Store::apply`] returns, so the death of the process alone loses nothing. [`Store::sync`] makes the
//! journal durable through a file handle of its own (fjall's own way holds the writers up during the sync) and writes
//! down how far that went. Memory tables go to tables in the background.
//!
//! **Starting.** In this order: the directory is locked and its format checked (`layout`); the manifests are
//! checked (`tables`); the journals are read and judged (`journal`); fjall recovers; and what it recovered is
//! compared with what the journals hold and with what was synced.
//!
//! **What is detected**, at a start, naming the file:
//! - a synced batch that is missing, wherever it was: a journal cut, overwritten, deleted or damaged;
//! - a damaged journal record with a whole one behind it, whether it was synced or not (but see `journal` for what
//!   only a power failure leaves);
//! - a sequence number in a journal that was changed so that fjall would drop or reorder a batch;
//! - a manifest, a table, `format`, `synced`, fjall's `version` that is missing, or changed where it matters.
//!
//! Damage in a table's data block is detected when the block is read, not at the start, as tables may be large.
//!
//! **What is not detected:** the directory as a whole set back to an older state of itself (a restored snapshot); and
//! a batch that was synced, lost by a device that lied about it in a power failure which also set `synced` back, with
//! no later record to tell.
//!
//! **A full disk.** fjall stops for good when a write fails, so batches are refused while there is still room:
//! below [`Options::reserve_bytes`] of free space, with [`StoreError::Full`]. The reserve is for what goes on in the
//! background.
//!
//! Caveats: one keyspace for everything, since a batch over several is no cheaper and a keyspace that is seldom written
//! holds journals back. The newest batch's number is a key in it that every batch overwrites.

mod files;
mod journal;
mod layout;
mod synced;
mod tables;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fjall::{AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use fjall::{Readable, Snapshot};

use super::{Batch, KEYS_END, Read, Store};
use crate::error::StoreError;
use files::{damaged, exists, failed, unread};
use journal::{BATCH_KEY, Found, NewestJournal, Stamp};
use layout::Layout;
pub use layout::set_aside;
use synced::SyncedFile;

/// The name of our keyspace.
const KEYSPACE: &str = "entail";
/// A memory table that has grown to this becomes a table. fjall halts writers when four wait for that. It frees a table's
/// entries one by one under a lock that every read and batch needs, so a table is kept small.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Journals together; beyond it memory tables are written out early.
const JOURNAL_BYTES: u64 = 256 << 20;
/// fjall keeps one worker free to write memory tables out: with a single one, a long compaction would halt writers. Asked
/// to compact, that one only puts the request back; with two workers it does so again and again, on a whole core, for as
/// long as the other one compacts. The third takes such requests out.
const WORKERS: usize = 3;
/// At the latest after this many bytes the free space is looked up again.
const SPACE_CHECK_BYTES: u64 = 4 << 20;

/// Settings of a [`DiskStore`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Batches are refused while less than this is free, in bytes.
    pub reserve_bytes: u64,
    /// Memory for blocks of tables that were read, in bytes.
    pub cache_bytes: u64,
}

impl Default for Options {
    /// A reserve of 256 MiB, for four memory tables and a compaction of about as much; a cache of 64 MiB.
    fn default() -> Self {
        Self { reserve_bytes: 256 << 20, cache_bytes: 64 << 20 }
    }
}

/// A [`Store`] in a directory. See the module's text.
pub struct DiskStore {
    // Dropped in this order: fjall before the lock on the directory.
    keyspace: Keyspace,
    database: Database,
    /// Held during a batch.
    writer: Mutex<Writer>,
    /// Held during a sync.
    syncer: Mutex<Syncer>,
    /// The newest batch.
    applied: AtomicU64,
    /// The newest batch that is durable.
    synced: AtomicU64,
    /// Set by a failed write or sync: what is durable is then unknown, and saying otherwise later would be a lie.
    broken: AtomicBool,
    dir: PathBuf,
    _lock: fs::File,
}

struct Writer {
    reserve_bytes: u64,
    /// Bytes that may be written before the free space is looked up again.
    room: u64,
}

struct Syncer {
    journal: NewestJournal,
    file: SyncedFile,
}

impl DiskStore {
    /// Opens the store in a directory, made when it is missing.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it; [`StoreError::Damaged`] when what is there is not what was
    /// written, or not this program's; [`StoreError::Full`] when there is no room for a new store.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, &Options::default())
    }

    /// [`DiskStore::open`] with other settings than the usual ones.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(dir: &Path, options: &Options) -> Result<Self, StoreError> {
        let place = Layout::claim(dir)?;
        let db = &place.db;
        let born = place.mark.number > 0;
        let found = if born { inspect(&place)? } else { clear_unborn(&place)? };
        let (database, keyspace) = open_fjall(db, born, options)?;
        let number = recovered_number(&keyspace, db, &found, place.mark.number)?;
        let store = Self {
            keyspace,
            database,
            writer: Mutex::new(Writer { reserve_bytes: options.reserve_bytes, room: 0 }),
            syncer: Mutex::new(Syncer { journal: NewestJournal::open(db)?, file: place.synced }),
            applied: AtomicU64::new(number),
            // fjall and `inspect` have synced what they found.
            synced: AtomicU64::new(number),
            broken: AtomicBool::new(false),
            dir: dir.to_owned(),
            _lock: place.lock,
        };
        if !born {
            // The first, empty batch ends the birth: from here on something is known to be durable.
            store.apply(Batch::default())?;
            store.sync()?;
        }
        let mut syncer = lock(&store.syncer);
        syncer.file.record(store.synced.load(Ordering::Acquire))?;
        syncer.file.flush()?;
        drop(syncer);
        Ok(store)
    }

    /// How much room the directory's file system has left for this user, in bytes.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the system does not tell.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        free_bytes(&self.dir)
    }

    /// The number of the newest batch: one more with each, over restarts too.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The number of the newest batch that is known to be durable.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    fn check_unbroken(&self) -> Result<(), StoreError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(StoreError::Failed(format!(
                "an earlier write or sync in {} failed; the process has to start anew",
                self.dir.display()
            )));
        }
        Ok(())
    }

    /// Marks the store as broken by this error.
    fn broken(&self, error: StoreError) -> StoreError {
        self.broken.store(true, Ordering::Release);
        match error {
            // Full means "nothing was done and the store goes on", which is not so any more.
            StoreError::Full(text) => StoreError::Failed(text),
            other => other,
        }
    }
}

impl Writer {
    /// Makes sure that `bytes` more leave the reserve free.
    fn take_room(&mut self, bytes: u64, dir: &Path) -> Result<(), StoreError> {
        if self.room < bytes {
            let free = free_bytes(dir)?;
            let spare = free.saturating_sub(self.reserve_bytes);
            if spare < bytes {
                self.room = 0;
                return Err(StoreError::Full(format!(
                    "{} has {free} bytes left, of which {} are kept for the store's own work",
                    dir.display(),
                    self.reserve_bytes
                )));
            }
            self.room = spare.min(SPACE_CHECK_BYTES.max(bytes));
        }
        self.room -= bytes;
        Ok(())
    }
}

impl Read for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        get(&self.keyspace, &self.database.snapshot(), key, &self.dir)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        scan(&self.keyspace, &self.database.snapshot(), (from, until), limit, &self.dir)
    }
}

impl Store for DiskStore {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check_keys()?;
        let mut writer = lock(&self.writer);
        self.check_unbroken()?;
        let size = |(key, value): &(Bytes, Option<Bytes>)| 64 + key.len() + value.as_ref().map_or(0, Bytes::len);
        writer.take_room(128 + batch.changes.iter().map(size).sum::<usize>() as u64, &self.dir)?;
        let stamp = Stamp { number: self.applied() + 1, synced: self.synced() };
        let mut record = OwnedWriteBatch::with_capacity(self.database.clone(), batch.changes.len() + 1);
        record.insert(&self.keyspace, BATCH_KEY, &stamp.encode()[..]);
        for (key, value) in &batch.changes {
            match value {
                Some(value) => record.insert(&self.keyspace, &key[..], &value[..]),
                None => record.remove(&self.keyspace, &key[..]),
            }
        }
        record
            .durability(Some(PersistMode::Buffer))
            .commit()
            .map_err(|e| self.broken(explain(e, &self.dir.join("db"))))?;
        self.applied.store(stamp.number, Ordering::Release);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut syncer = lock(&self.syncer);
        self.check_unbroken()?;
        let number = self.applied();
        if number > self.synced() {
            syncer.journal.sync().map_err(|e| self.broken(e))?;
            syncer.file.record(number).map_err(|e| self.broken(e))?;
            self.synced.store(number, Ordering::Release);
        }
        Ok(())
    }

    fn view(&self) -> Arc<dyn Read> {
        let (keyspace, snapshot) = (self.keyspace.clone(), self.database.snapshot());
        Arc::new(View { keyspace, snapshot, dir: self.dir.clone() })
    }
}

/// A point in time. fjall keeps overwritten values for as long as one is held.
struct View {
    keyspace: Keyspace,
    snapshot: Snapshot,
    dir: PathBuf,
}

impl Read for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        get(&self.keyspace, &self.snapshot, key, &self.dir)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        scan(&self.keyspace, &self.snapshot, (from, until), limit, &self.dir)
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore")
            .field("dir", &self.dir)
            .field("applied", &self.applied)
            .field("synced", &self.synced)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

/// How much room the file system of `dir` has left for this user, in bytes.
///
/// # Errors
/// [`StoreError::Failed`] when the system does not tell.
pub fn free_bytes(dir: &Path) -> Result<u64, StoreError> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| failed(dir, "has an unknown amount of room", &e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

// Values are copied out of fjall's blocks, and into its tables, so that none keeps a block or a network frame alive.
fn get(keyspace: &Keyspace, at: &Snapshot, key: &[u8], dir: &Path) -> Result<Option<Bytes>, StoreError> {
    if key >= KEYS_END {
        return Ok(None);
    }
    let value = at.get(keyspace, key).map_err(|e| explain(e, &dir.join("db")))?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

fn scan(
    keyspace: &Keyspace,
    at: &Snapshot,
    (from, until): (&[u8], &[u8]),
    limit: usize,
    dir: &Path,
) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let until = until.min(KEYS_END);
    if from >= until {
        return Ok(Vec::new());
    }
    let pair = |guard: fjall::Guard| {
        let (key, value) = guard.into_inner()?;
        Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
    };
    at.range(keyspace, from..until)
        .take(limit)
        .map(pair)
        .collect::<fjall::Result<Vec<_>>>()
        .map_err(|e| explain(e, &dir.join("db")))
}

/// Looks at a directory that was in use, before fjall does.
fn inspect(place: &Layout) -> Result<Found, StoreError> {
    let version = place.db.join("version");
    if fs::read(&version).map_err(|e| unread(&version, &e))? != b"FJL\x03" {
        return Err(damaged(&version, "it names another version of fjall's format than 3"));
    }
    tables::check_manifests(&place.db)?;
    journal::recover(&place.db, place.mark, synced::boot_id())
}

/// Removes what a first start left that did not come to its end; nothing in it was ever promised to anybody.
fn clear_unborn(place: &Layout) -> Result<Found, StoreError> {
    if exists(&place.db)? {
        if journal::is_used(&place.db)? {
            return Err(damaged(&place.db, "there are batches in its journal, though 'synced' says there never were"));
        }
        fs::remove_dir_all(&place.db).map_err(|e| failed(&place.db, "cannot be removed", &e))?;
    }
    Ok(Found::default())
}

fn open_fjall(db: &Path, born: bool, options: &Options) -> Result<(Database, Keyspace), StoreError> {
    let open = || {
        let database = Database::builder(db)
            .cache_size(options.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .journal_compression(CompressionType::None)
            .worker_threads(WORKERS)
            .open()?;
        if born && !database.keyspace_exists(KEYSPACE) {
            return Err(fjall::Error::Unrecoverable);
        }
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspace = database.keyspace(KEYSPACE, options)?;
        Ok((database, keyspace))
    };
    // fjall has a few assertions about what it reads; here they are about files, which may be anything.
    match panic::catch_unwind(AssertUnwindSafe(open)) {
        Ok(result) => result.map_err(|e| explain(e, db)),
        Err(_) => Err(damage_in(db, "fjall cannot make sense of it")),
    }
}

/// Compares what fjall recovered with what was in the journals and with what was synced; gives the newest batch.
fn recovered_number(keyspace: &Keyspace, db: &Path, found: &Found, synced: u64) -> Result<u64, StoreError> {
    let stamp_at = |seqno| -> Result<u64, StoreError> {
        let value = keyspace.tree.get(BATCH_KEY, seqno).map_err(|e| explain(e.into(), db))?;
        value.map_or(Ok(0), |value| {
            Stamp::decode(&value)
                .map(|stamp| stamp.number)
                .ok_or_else(|| damage_in(db, "a batch's number is no number"))
        })
    };
    let number = stamp_at(fjall::SeqNo::MAX)?;
    if number < synced {
        return Err(damage_in(db, &format!("batches up to {synced} were synced, and only {number} are left")));
    }
    let Some(last) = found.last() else { return Ok(number) };
    // What is in tables already, fjall does not take from the journals again: by its own numbers, which have to fit.
    let persisted = keyspace.tree.get_highest_persisted_seqno();
    let tabled = persisted.map_or(Ok(0), |seqno| stamp_at(seqno + 1))?;
    let newest_tabled = found.seqno(tabled).is_none_or(|seqno| Some(seqno) <= persisted);
    let oldest_untabled = found.seqno(tabled + 1).is_none_or(|seqno| Some(seqno) > persisted);
    if number != last || found.first > tabled + 1 || !newest_tabled || !oldest_untabled {
        return Err(damage_in(
            db,
            &format!(
                "the journals hold batches {} to {last}, the tables those up to {tabled}, and together they gave {number}",
                found.first
            ),
        ));
    }
    Ok(number)
}

/// The error for damage somewhere in fjall's directory: names the table, if it is one, or else the journals.
fn damage_in(db: &Path, what: &str) -> StoreError {
    if let Some(table) = tables::find_damaged(db) {
        return damaged(&table, "the table is missing or does not match its checksum");
    }
    let journals = journal::list(db).unwrap_or_default();
    let names: Vec<_> = journals.iter().map(|(_, path)| path.display().to_string()).collect();
    damaged(db, &format!("{what} (journals: {})", if names.is_empty() { "none".into() } else { names.join(", ") }))
}

/// What an error of fjall's means here.
fn explain(error: fjall::Error, db: &Path) -> StoreError {
    let io_error = |e: &io::Error, error: &fjall::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound | io::ErrorKind::InvalidData => {
            damage_in(db, &error.to_string())
        }
        _ => failed(db, "failed", e),
    };
    match &error {
        fjall::Error::Locked => StoreError::InUse(format!("another process holds {}", db.display())),
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => io_error(e, &error),
        fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted => {
            StoreError::Failed(format!("{}: fjall has stopped after an earlier failure ({error})", db.display()))
        }
        _ => damage_in(db, &error.to_string()),
    }
}

/// No call in here leaves what its lock guards half changed when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
