//! The data directory: who may use it, what format it has, what lies where.
//!
//! | name | what |
//! |---|---|
//! | `lock` | locked by the process that uses the directory; the kernel lets go when it dies |
//! | `format` | one line that names this format and its version; the first file to be written |
//! | `synced` | the number of the newest durable batch, see [`super::synced`] |
//! | `db/` | fjall's own directory: journals `N.jnl`, `keyspaces/ID/` with manifests and tables |
//!
//! A directory is made in the order of the table, each file as a whole, so a start that finds it half made knows how
//! far it had come: `db` without `synced`, or anything else without `format`, is none of ours or damaged.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::synced::{Mark, SyncedFile};
use crate::error::StoreError;

/// How the names of directories begin that were set aside.
const ASIDE: &str = "forgotten-";

const FORMAT: &str = "entail data directory, format ";
const FORMAT_VERSION: u32 = 1;
const REMEDY: &str = "put the file back as it was, or move the data directory away and start the node with an empty \
                      one (never with an older copy of it)";

/// The directory, ours while this value lives.
#[derive(Debug)]
pub(super) struct Layout {
    /// fjall's directory.
    pub db: PathBuf,
    /// The file `synced`, and what it said.
    pub synced: SyncedFile,
    /// What it said.
    pub mark: Mark,
    /// Held, not read: the lock goes with it.
    pub lock: File,
}

impl Layout {
    /// Claims the directory for this process, made when it is missing.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process holds it, [`StoreError::Damaged`] when it is not of this format or
    /// something is missing.
    pub fn claim(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|e| failed(dir, "cannot be made", &e))?;
        let lock = lock(&dir.join("lock"))?;
        let (format, synced, db) = (dir.join("format"), dir.join("synced"), dir.join("db"));
        if exists(&format)? {
            check_format(&format)?;
        } else {
            go_on_setting_aside(dir)?;
            refuse_foreign(dir)?;
            write_whole(&format, format!("{FORMAT}{FORMAT_VERSION}\n").as_bytes())?;
        }
        if !exists(&synced)? {
            if exists(&db)? {
                return Err(damaged(&synced, "the file is missing, though there are data beside it"));
            }
            SyncedFile::create(&synced)?;
        }
        let (synced, mark) = SyncedFile::open(&synced)?;
        Ok(Self { db, synced, mark, lock })
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = open.map_err(|e| failed(path, "cannot be opened", &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(format!(
            "another process holds {}; stop it, or give this one a directory of its own",
            path.display()
        ))),
        Err(TryLockError::Error(e)) => Err(failed(path, "cannot be locked", &e)),
    }
}

fn check_format(path: &Path) -> Result<(), StoreError> {
    let text = fs::read(path).map_err(|e| failed(path, "cannot be read", &e))?;
    let text = String::from_utf8_lossy(&text);
    let version = text.strip_prefix(FORMAT).and_then(|rest| rest.strip_suffix('\n')).map(str::parse::<u32>);
    match version {
        Some(Ok(FORMAT_VERSION)) => Ok(()),
        Some(Ok(version)) if version > FORMAT_VERSION => Err(StoreError::Damaged(format!(
            "{} says format {version}, and this program knows formats up to {FORMAT_VERSION}; use the program that \
             wrote it, or a newer one",
            path.display()
        ))),
        _ => Err(damaged(path, "it does not name a format of this program")),
    }
}

/// Without the file `format` the directory has to be empty, but for what a start leaves that did not get further, and
/// what a file system puts into its root.
fn refuse_foreign(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(|e| failed(dir, "cannot be read", &e))? {
        let name = entry.map_err(|e| failed(dir, "cannot be read", &e))?.file_name();
        let set_aside = name.to_string_lossy().starts_with(ASIDE);
        if !set_aside && !["lock", "format.new", "lost+found"].iter().any(|ours| name == *ours) {
            return Err(StoreError::Damaged(format!(
                "{} has no file 'format', so '{}' in it is not this program's or has lost it; give the node an empty \
                 directory, or restore that file",
                dir.display(),
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// Moves everything in the directory into one below it, so that the next start finds it empty. The first name to go is
/// `format`: what is left after a crash is not taken for a store, and the next start moves the rest.
///
/// # Errors
/// [`StoreError::InUse`] when another process holds the directory, [`StoreError::Failed`] when something can't be moved.
pub fn set_aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let _lock = lock(&dir.join("lock"))?;
    let free = (1..).map(|number| dir.join(format!("{ASIDE}{number}"))).find(|path| !path.exists());
    let aside = free.unwrap_or_else(|| dir.join(ASIDE));
    let go = || {
        fs::create_dir(&aside)?;
        move_all(dir, &aside)
    };
    go().map_err(|e| failed(dir, "cannot be set aside", &e))?;
    Ok(aside)
}

fn move_all(dir: &Path, aside: &Path) -> io::Result<()> {
    for name in ["format", "synced", "db"] {
        if dir.join(name).exists() {
            fs::rename(dir.join(name), aside.join(name))?;
        }
        // On the disk in this order: `format` is never the one that stayed.
        sync_dir(aside)?;
        sync_dir(dir)?;
    }
    Ok(())
}

/// Moves what a crash in [`set_aside`] left, known by a directory below that has the `format` of what is here, and not
/// its data.
fn go_on_setting_aside(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(|e| failed(dir, "cannot be read", &e))? {
        let entry = entry.map_err(|e| failed(dir, "cannot be read", &e))?;
        let (path, ours) = (entry.path(), entry.file_name().to_string_lossy().starts_with(ASIDE));
        if ours && exists(&path.join("format"))? && !exists(&path.join("db"))? {
            return move_all(dir, &path).map_err(|e| failed(dir, "cannot be set aside", &e));
        }
    }
    Ok(())
}

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
