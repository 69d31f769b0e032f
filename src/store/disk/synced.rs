//! The file `synced`: the number of the newest batch that is known to be durable, kept outside the journal.
//!
//! The journal cannot tell a record that was never written from one that was lost, for its end is simply where reading
//! stops. This file can: a journal that ends before the number in here has lost something that was promised.
//!
//! The file has two slots, written in turn, each in a sector of its own and with a checksum: a write that a crash tears
//! leaves the other slot. It is written after every sync but not itself synced, so what a *power failure* leaves may be
//! an older number, a bound that is too low but never too high. After the death of the process alone the number is
//! exact, for the page cache outlives it.
//!
//! A slot also names the boot of the machine it was written under. It tells, at the next start, whether the machine
//! went down in between, and with it pages of the journal that were not synced, in any order.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::files::{damaged, failed, write_whole};
use crate::error::StoreError;

const MAGIC: &[u8; 8] = b"entailSY";
const SLOT_LEN: usize = 40;
/// Far enough apart that no device writes both at once.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];

/// The number, and the boot under which it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Every batch up to this one is durable; 0: the directory was never used.
    pub number: u64,
    /// [`boot_id`] at that time.
    pub boot: u128,
}

/// The open file.
#[derive(Debug)]
pub(super) struct SyncedFile {
    file: File,
    path: PathBuf,
    boot: u128,
    /// The slot to write next: the one that holds the older number.
    next: usize,
}

impl SyncedFile {
    /// Makes the file, durable as a whole or not at all, with the number 0.
    pub fn create(path: &Path) -> Result<(), StoreError> {
        let mut bytes = vec![0; SLOT_OFFSETS[1] as usize + SLOT_LEN];
        let slot = encode(Mark { number: 0, boot: boot_id() });
        for offset in SLOT_OFFSETS {
            bytes[offset as usize..][..SLOT_LEN].copy_from_slice(&slot);
        }
        write_whole(path, &bytes)
    }

    /// Opens the file and reads the greater number.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when neither slot is whole.
    pub fn open(path: &Path) -> Result<(Self, Mark), StoreError> {
        let io = |e| failed(path, "cannot be opened", &e);
        let bytes = fs::read(path).map_err(io)?;
        let slots = SLOT_OFFSETS.map(|offset| bytes.get(offset as usize..).and_then(decode));
        let (newest, mark) = match slots {
            [Some(a), Some(b)] if a.number >= b.number => (0, a),
            [_, Some(b)] => (1, b),
            [Some(a), None] => (0, a),
            [None, None] => return Err(damaged(path, "neither of its two slots is whole")),
        };
        if slots.contains(&None) {
            tracing::warn!(file = %path.display(), "one of the two slots is torn; going on with the other");
        }
        let file = OpenOptions::new().write(true).open(path).map_err(io)?;
        Ok((Self { file, path: path.to_owned(), boot: boot_id(), next: 1 - newest }, mark))
    }

    /// Writes a number that has become durable.
    pub fn record(&mut self, number: u64) -> Result<(), StoreError> {
        let slot = encode(Mark { number, boot: self.boot });
        self.file
            .write_all_at(&slot, SLOT_OFFSETS[self.next])
            .map_err(|e| failed(&self.path, "cannot be written", &e))?;
        self.next = 1 - self.next;
        Ok(())
    }

    /// Makes the recorded number itself durable.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.file.flush().and_then(|()| self.file.sync_data()).map_err(|e| failed(&self.path, "cannot be synced", &e))
    }
}

fn encode(mark: Mark) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&mark.number.to_le_bytes());
    slot[16..32].copy_from_slice(&mark.boot.to_le_bytes());
    let sum = xxh3_64(&slot[..32]);
    slot[32..].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn decode(bytes: &[u8]) -> Option<Mark> {
    let body = bytes.get(..32)?;
    let sum = u64::from_le_bytes(bytes.get(32..SLOT_LEN)?.try_into().ok()?);
    if !body.starts_with(MAGIC) || sum != xxh3_64(body) {
        return None;
    }
    Some(Mark {
        number: u64::from_le_bytes(body[8..16].try_into().ok()?),
        boot: u128::from_le_bytes(body[16..].try_into().ok()?),
    })
}

/// A number that differs from boot to boot of the machine; 0 where the system does not tell.
pub(super) fn boot_id() -> u128 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synced");
        SyncedFile::create(&path).unwrap();
        (dir, path)
    }

    fn flip(path: &Path, offset: u64) {
        let mut bytes = fs::read(path).unwrap();
        bytes[offset as usize] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_newest_number_is_found_again() {
        let (_dir, path) = file();
        for number in [0, 1, 2, 3, 900, u64::MAX] {
            SyncedFile::open(&path).unwrap().0.record(number).unwrap();
            assert_eq!(SyncedFile::open(&path).unwrap().1, Mark { number, boot: boot_id() });
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_one_before_and_two_are_an_error() {
        for offset in 0..SLOT_LEN as u64 {
            let (_dir, path) = file();
            let (mut synced, _) = SyncedFile::open(&path).unwrap();
            synced.record(7).unwrap();
            synced.record(8).unwrap();
            let newest = SLOT_OFFSETS[1 - synced.next];
            flip(&path, newest + offset);
            assert_eq!(SyncedFile::open(&path).unwrap().1.number, 7);
            // The next number goes where the torn one was.
            SyncedFile::open(&path).unwrap().0.record(9).unwrap();
            assert_eq!(SyncedFile::open(&path).unwrap().1.number, 9);
            flip(&path, SLOT_OFFSETS[0] + offset);
            flip(&path, SLOT_OFFSETS[1] + offset);
            let error = SyncedFile::open(&path).unwrap_err();
            assert!(matches!(&error, StoreError::Damaged(text) if text.contains("synced")), "{error}");
        }
    }
}
