//! Files of the data directory: how they are written, and what is said of those that are not as they have to be.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::StoreError;

const REMEDY: &str = "put the file back as it was, or move the data directory away and start the node with an empty \
                      one (never with an older copy of it)";

/// Writes a new file so that a crash leaves it whole or not there.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_dir(path.parent().unwrap_or(path))
    };
    write().map_err(|e| failed(path, "cannot be written", &e))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

pub(super) fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|e| failed(path, "cannot be looked up", &e))
}

/// The error for a file whose content is not what it has to be.
pub(super) fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged(format!("{}: {what}; {REMEDY}", path.display()))
}

/// The error for a file of a directory that was in use, which cannot be read: gone, it is damage; else it is the system's
/// word on its disk, and what is there may be well.
pub(super) fn unread(path: &Path, error: &io::Error) -> StoreError {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    match error.kind() {
        NotFound | NotADirectory | IsADirectory => damaged(path, "it is missing"),
        _ => failed(path, "cannot be read", error),
    }
}

/// The error for a file that the system does not let us use.
pub(super) fn failed(path: &Path, what: &str, error: &io::Error) -> StoreError {
    let text = format!("{} {what}: {error}", path.display());
    if error.kind() == io::ErrorKind::StorageFull { StoreError::Full(text) } else { StoreError::Failed(text) }
}
