//! fjall's journal, read by our own eyes before fjall reads it.
//!
//! fjall takes its journal up to the first entry that does not decode, cuts off the rest and says nothing; and of a
//! record's head (item count and sequence number) it keeps no checksum. So every start reads the journals first:
//!
//! ```text
//! record = 1, count u32, seqno u64                                        head, no checksum
//!          count × (2, type u8, compression u8, keyspace u64,
//!                   key length u16, value length u32, stored length u32, key, value)
//!          3, checksum u64 (XXH3-64 of the items as stored), "FJL" 3      numbers little-endian
//! ```
//!
//! The first item of each record is ours: under [`BATCH_KEY`], the batch's *number* (counted up by one, for ever) and
//! the number up to which all was *synced* when it was written. So a journal can be judged:
//! - Numbers follow each other without a gap, through all files, and sequence numbers grow. Thus a damaged head that
//!   fjall would take (a sequence number changed so that it no longer fits in its place) is found.
//! - Only the newest file may end in something that is no record. That is what a crash leaves, *unless* the batch that
//!   belongs there was synced (the file `synced` says so, or a later record does), or a whole record follows.
//! - One case is left: a power failure writes the pages that were not synced in any order, so it can leave a hole with
//!   a whole record behind it, and nothing that was promised is lost. It is taken as such, with a warning in the log,
//!   only when the machine was started anew since, and neither witness says that the hole was synced.
//!
//! What is found to be torn is cut off here, durably: fjall refuses some torn records that are no more than that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::files::{damaged, failed};
use super::synced::Mark;
use crate::error::StoreError;
use crate::store::KEYS_END;

/// Where each batch says its number: the store's own key, above all of the caller's.
pub(super) const BATCH_KEY: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, b'b'];
const _: () = assert!(BATCH_KEY.len() > KEYS_END.len());

const TRAILER: &[u8] = b"FJL\x03";
/// Bytes of a record's head, and of an item before its key.
const HEAD_LEN: usize = 13;
const ITEM_LEN: usize = 21;

/// fjall takes a number or a few for its own between two batches; never this many.
const SEQNO_STEP_MAX: u64 = 1 << 40;

/// What each batch says of itself under [`BATCH_KEY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The batch's number, from 1.
    pub number: u64,
    /// Every batch up to this one was synced when it was written.
    pub synced: u64,
}

impl Stamp {
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.synced.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, synced) = bytes.split_at_checked(8)?;
        let number = u64::from_le_bytes(number.try_into().ok()?);
        Some(Self { number, synced: u64::from_le_bytes(synced.try_into().ok()?) })
    }
}

/// One whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// What our item in it says.
    pub stamp: Stamp,
    /// fjall's number for it.
    pub seqno: u64,
    /// Where it ends in its file.
    end: usize,
}

/// What the journals hold: batches with numbers that follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The number of the oldest batch; meaningless when there is none.
    pub first: u64,
    /// fjall's sequence number of each batch, growing.
    pub seqnos: Vec<u64>,
}

impl Found {
    /// The number of the newest batch.
    pub fn last(&self) -> Option<u64> {
        let more = self.seqnos.len().checked_sub(1)?;
        Some(self.first + more as u64)
    }

    /// The sequence number of a batch, if the journals hold it.
    pub fn seqno(&self, number: u64) -> Option<u64> {
        let index = number.checked_sub(self.first)?;
        self.seqnos.get(usize::try_from(index).ok()?).copied()
    }
}

/// Reads all journals in `dir`, judges them, cuts off what a crash left at the end, and syncs them.
///
/// # Errors
/// [`StoreError::Damaged`], naming the file: see the module's text.
pub(super) fn recover(dir: &Path, mark: Mark, boot: u128) -> Result<Found, StoreError> {
    let files = list(dir)?;
    let mut found = Found::default();
    for (i, (_, path)) in files.iter().enumerate() {
        let data = read_trimmed(path)?;
        let end = follow(&data, path, &mut found)?;
        if end < data.len() {
            let newest = i + 1 == files.len();
            let rebooted = boot != 0 && mark.boot != 0 && mark.boot != boot;
            judge_rest(&data, end, path, &found, if newest { Tail::Open { rebooted } } else { Tail::Sealed }, mark)?;
            cut(path, end)?;
        }
        File::open(path).and_then(|file| file.sync_all()).map_err(|e| failed(path, "cannot be synced", &e))?;
    }
    Ok(found)
}

/// Whether any record in the journals of `dir` is not the empty first one: somebody wrote here.
pub(super) fn is_used(dir: &Path) -> Result<bool, StoreError> {
    for (_, path) in list(dir)? {
        let data = read_trimmed(&path)?;
        let mut found = Found::default();
        let end = follow(&data, &path, &mut found)?;
        let later = whole_records(&data, end).next().map(|record| record.stamp.number);
        if found.last().or(later).is_some_and(|number| number > 1) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The journals in a directory by number, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let io = |e| failed(dir, "cannot be read", &e);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("jnl")) {
            let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            files.push((id.ok_or_else(|| damaged(&path, "no journal has such a name"))?, path));
        }
    }
    files.sort();
    Ok(files)
}

/// A file's bytes without the zeros at its end: fjall lays files out ahead, and no record ends in a zero.
fn read_trimmed(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut data = fs::read(path).map_err(|e| failed(path, "cannot be read", &e))?;
    let len = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    data.truncate(len);
    Ok(data)
}

/// Follows the records from the start of a file; gives where those end that fit.
fn follow(data: &[u8], path: &Path, found: &mut Found) -> Result<usize, StoreError> {
    let mut at = 0;
    while let Some(record) = decode(data, at) {
        let Record { stamp: Stamp { number, .. }, seqno, end } = record;
        let (last, floor) = (found.last(), found.seqnos.last().copied().unwrap_or(0));
        if seqno.abs_diff(floor) > SEQNO_STEP_MAX {
            // Its head was changed, or torn: as good as no record.
            break;
        }
        if let Some(last) = last
            && (number != last + 1 || seqno <= floor)
        {
            return Err(damaged(
                path,
                &format!(
                    "the record at byte {at} is batch {number} (sequence number {seqno}) after batch {last} ({floor}): one \
                     of the two was changed, or a journal between them is missing"
                ),
            ));
        }
        if last.is_none() {
            found.first = number;
        }
        found.seqnos.push(seqno);
        at = end;
    }
    Ok(at)
}

/// What may stand behind the records of a file.
#[derive(Clone, Copy)]
enum Tail {
    /// Nothing: a newer file was begun only when this one was whole and synced.
    Sealed,
    /// What a crash tore: of the process alone, or of the machine.
    Open { rebooted: bool },
}

/// Decides whether what begins at `end`, and is no record, is what a crash leaves.
fn judge_rest(data: &[u8], end: usize, path: &Path, found: &Found, tail: Tail, mark: Mark) -> Result<(), StoreError> {
    let later = whole_records(data, end)
        .map(|record| record.stamp)
        .reduce(|a, b| Stamp { number: a.number.min(b.number), synced: a.synced.max(b.synced) });
    // The batch that ought to be here; unknown (and then judged by what was recovered in all) in a journal that has
    // no whole record.
    let lost = found.last().map(|last| last + 1).or(later.map(|stamp| stamp.number - 1));
    let synced = mark.number.max(later.map_or(0, |stamp| stamp.synced));
    let what = format!("what stands at byte {end} is no whole record");
    match (tail, lost, later) {
        (Tail::Sealed, ..) => Err(damaged(path, &format!("{what}, in a journal that was completed"))),
        (_, Some(lost), _) if lost <= synced => {
            Err(damaged(path, &format!("{what}, and batch {lost} was synced there (as all were up to {synced})")))
        }
        (Tail::Open { rebooted: false }, _, Some(later)) => {
            Err(damaged(path, &format!("{what}, and batch {} follows it whole", later.number)))
        }
        (Tail::Open { .. }, ..) => {
            let followed = later.map(|stamp| stamp.number);
            tracing::warn!(file = %path.display(), byte = end, followed, "cut off what a crash left unsynced");
            Ok(())
        }
    }
}

/// Every whole record that begins anywhere after `from`.
fn whole_records(data: &[u8], from: usize) -> impl Iterator<Item = Record> {
    (from + 1..data.len().saturating_sub(HEAD_LEN))
        .filter(|at| data[*at] == 1 && data[at + HEAD_LEN] == 2)
        .filter_map(|at| decode(data, at))
}

/// The record that begins at `at`, if a whole one does.
fn decode(data: &[u8], at: usize) -> Option<Record> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(data.get(at..at + 8)?.try_into().ok()?));
    let byte_at = |at: usize| data.get(at).copied();
    if byte_at(at)? != 1 {
        return None;
    }
    let (count, seqno) = (u32_at(at + 1)?, u64_at(at + 5)?);
    let items = at + HEAD_LEN;
    let mut stamp = None;
    let mut end = items;
    for _ in 0..count {
        // No other types or compressions are written here.
        if byte_at(end)? != 2 || byte_at(end + 1)? > 1 || byte_at(end + 2)? != 0 {
            return None;
        }
        let key_len = usize::from(u16::from_le_bytes(data.get(end + 11..end + 13)?.try_into().ok()?));
        let value_len = u32_at(end + 17)? as usize;
        let (key, value) = (end + ITEM_LEN, end + ITEM_LEN + key_len);
        if stamp.is_none() {
            let ours = data.get(key..value)? == BATCH_KEY && value_len == 16;
            stamp = Some(if ours { Stamp::decode(data.get(value..value + 16)?)? } else { return None });
        }
        end = value + value_len;
    }
    let sum = xxh3_64(data.get(items..end)?);
    let whole = byte_at(end)? == 3 && u64_at(end + 1)? == sum && data.get(end + 9..end + 13)? == TRAILER;
    whole.then_some(Record { stamp: stamp?, seqno, end: end + 13 })
}

fn cut(path: &Path, end: usize) -> Result<(), StoreError> {
    let cut = || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(end as u64)?;
        file.sync_all()
    };
    cut().map_err(|e| failed(path, "cannot be cut", &e))
}

/// Syncs whatever journal is the newest, without fjall's lock on it, so that batches are written meanwhile.
///
/// fjall begins a new journal only after it has synced the one before, and writes into it only after that. So, of
/// batches that were written before [`NewestJournal::sync`] was called, all that are not durable are in the journal
/// that is the newest then.
#[derive(Debug)]
pub(super) struct NewestJournal {
    dir: PathBuf,
    id: u64,
    file: File,
}

impl NewestJournal {
    /// # Errors
    /// [`StoreError::Damaged`] when there is no journal.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let (id, path) = list(dir)?.pop().ok_or_else(|| damaged(dir, "there is no journal in it"))?;
        let file = File::open(&path).map_err(|e| failed(&path, "cannot be opened", &e))?;
        Ok(Self { dir: dir.to_owned(), id, file })
    }

    /// Makes durable what was written before.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        loop {
            let newest = list(&self.dir)?.pop();
            let (id, path) = newest.ok_or_else(|| damaged(&self.dir, "there is no journal in it"))?;
            let io = |e: io::Error| failed(&path, "cannot be synced", &e);
            if id != self.id {
                match File::open(&path) {
                    Ok(file) => (self.id, self.file) = (id, file),
                    // Completed, and no longer needed, since the listing: there is a newer one.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(io(e)),
                }
            }
            return self.file.sync_data().map_err(io);
        }
    }
}
