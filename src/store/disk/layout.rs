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
use std::io;
use std::path::{Path, PathBuf};

use super::files::{damaged, exists, failed, sync_dir, write_whole};
use super::synced::{Mark, SyncedFile};
use crate::error::StoreError;

/// How the names of directories begin that were set aside.
const ASIDE: &str = "forgotten-";

const FORMAT: &str = "entail data directory, format ";
const FORMAT_VERSION: u32 = 1;

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
