//! fjall's tables and their manifests, as far as we look at them ourselves.
//!
//! fjall checks every block that it reads from a table, but takes a tree's manifest (`vN`, the list of its tables) as it
//! is, and removes a tree whose file `current` is missing. Both are checked here before it starts. When it meets
//! damage later it does not say where; then the manifests tell which of the tables is not what was written.
//!
//! ```text
//! current  = number of the manifest u64, XXH3-128 of that whole file, 0
//! vN       = sections, table of contents, trailer
//! trailer  = "SFA!", 1, 0, checksum u128, place of the contents u64, its length u64
//! contents = "TOC!", count u32, count × (place u64, length u64, name length u16, name)
//! tables   = levels u8 × (runs u8 × (tables u32 × (id u64, 0, XXH3-128 of that whole file, seqno u64)))
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::files::{damaged, failed, unread};
use crate::error::StoreError;

/// Checks the manifest of every tree below `db`.
///
/// # Errors
/// [`StoreError::Damaged`], naming the file, when one is missing or not what was written.
pub(super) fn check_manifests(db: &Path) -> Result<(), StoreError> {
    let trees = trees(db)?;
    // fjall's own tree, and ours.
    if trees.len() < 2 {
        return Err(damaged(&db.join("keyspaces"), "a tree is missing in it"));
    }
    trees.iter().try_for_each(|tree| read_manifest(tree).map(drop))
}

/// The first of the tables below `db` that is missing or not what was written.
pub(super) fn find_damaged(db: &Path) -> Option<PathBuf> {
    let tables = trees(db).ok()?.into_iter().filter_map(|tree| {
        let manifest = read_manifest(&tree).ok()?;
        Some(tables(&manifest)?.into_iter().map(move |(id, sum)| (tree.join("tables").join(id.to_string()), sum)))
    });
    tables.flatten().find(|(path, sum)| hash_file(path).ok() != Some(*sum)).map(|(path, _)| path)
}

fn trees(db: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let dir = db.join("keyspaces");
    let mut trees = Vec::new();
    for entry in fs::read_dir(&dir).map_err(|e| unread(&dir, &e))? {
        let path = entry.map_err(|e| failed(&dir, "cannot be read", &e))?.path();
        if path.is_dir() {
            if path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.parse::<u64>().is_err()) {
                return Err(damaged(&path, "no tree has such a name"));
            }
            trees.push(path);
        }
    }
    trees.sort();
    Ok(trees)
}

/// The manifest that `current` names, if it is what was written.
fn read_manifest(tree: &Path) -> Result<Vec<u8>, StoreError> {
    let path = tree.join("current");
    let current = fs::read(&path).map_err(|e| unread(&path, &e))?;
    let Some((number, sum)) = u64_at(&current, 0).zip(u128_at(&current, 8)) else {
        return Err(damaged(&path, "the file is too short"));
    };
    let path = tree.join(format!("v{number}"));
    let manifest = fs::read(&path).map_err(|e| unread(&path, &e))?;
    if xxh3_128(&manifest) == sum { Ok(manifest) } else { Err(damaged(&path, "it does not match its checksum")) }
}

/// Ids and checksums of the tables that a manifest lists.
fn tables(manifest: &[u8]) -> Option<Vec<(u64, u128)>> {
    let trailer = manifest.len().checked_sub(38)?;
    let mut entry = usize::try_from(u64_at(manifest, trailer + 22)?).ok()? + 4;
    let entries = u32_at(manifest, entry)?;
    entry += 4;
    for _ in 0..entries {
        let name_len = usize::from(u16::from_le_bytes(manifest.get(entry + 16..entry + 18)?.try_into().ok()?));
        if manifest.get(entry + 18..entry + 18 + name_len)? == b"tables" {
            return tables_at(manifest, usize::try_from(u64_at(manifest, entry)?).ok()?);
        }
        entry += 18 + name_len;
    }
    None
}

fn tables_at(manifest: &[u8], mut at: usize) -> Option<Vec<(u64, u128)>> {
    let mut tables = Vec::new();
    let levels = *manifest.get(at)?;
    at += 1;
    for _ in 0..levels {
        let runs = *manifest.get(at)?;
        at += 1;
        for _ in 0..runs {
            let count = u32_at(manifest, at)?;
            at += 4;
            for _ in 0..count {
                tables.push((u64_at(manifest, at)?, u128_at(manifest, at + 9)?));
                at += 33;
            }
        }
    }
    Some(tables)
}

fn hash_file(path: &Path) -> io::Result<u128> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.digest128()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_le_bytes(bytes.get(at..at + 16)?.try_into().ok()?))
}
