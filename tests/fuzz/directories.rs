//! The files of a data directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use entail::error::StoreError;
use entail::store::disk::DiskStore;
use entail::store::{Batch, KEYS_END, Read, Store};

use crate::damage::damaged;
use crate::run::{Bound, run};

const BATCHES: usize = 12;
const SYNCED: usize = 7;

/// What an open store has for itself (fjall's caches and threads), and a few copies of its journal.
const BOUND: Bound = Bound { times: 64, more: 16 << 20 };

/// Each batch changes a key of its own and one that all change.
fn change(number: usize) -> Batch {
    let value = Some(Bytes::from(format!("value {number}")));
    Batch { changes: vec![(format!("key{number:04}").into(), value.clone()), (Bytes::from("last"), value)] }
}

/// The files of a directory that was used, and left by a crash.
fn used() -> BTreeMap<PathBuf, Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory");
    let store = DiskStore::open(dir.path()).expect("a new store");
    for number in 1..=BATCHES {
        store.apply(change(number)).expect("room");
        if number == SYNCED {
            store.sync().expect("a sync");
        }
    }
    drop(store);
    let mut files = BTreeMap::new();
    read(dir.path(), Path::new(""), &mut files);
    files
}

fn read(dir: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir.join(below)).expect("a directory") {
        let name = below.join(entry.expect("an entry").file_name());
        if dir.join(&name).is_dir() {
            read(dir, &name, files);
        } else {
            let mut data = fs::read(dir.join(&name)).expect("a file");
            if name.extension().is_some_and(|ext| ext == "jnl") {
                // Without the zeros that are laid out ahead.
                data.truncate(data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            }
            files.insert(name, data);
        }
    }
}

/// How many of the batches are there: whole ones, and none without those before it.
fn prefix(store: &DiskStore) -> usize {
    let all: BTreeMap<_, _> = store.scan(b"", KEYS_END, usize::MAX).expect("it reads").into_iter().collect();
    let count = all.len().saturating_sub(1);
    let changes = (1..=count).flat_map(|number| change(number).changes);
    let expected: BTreeMap<_, _> = changes.map(|(key, value)| (key, value.expect("a value"))).collect();
    assert_eq!(all, expected);
    count
}

#[test]
fn directories() {
    let files = used();
    let names: Vec<_> = files.keys().cloned().collect();
    let journals: Vec<_> =
        names.iter().filter(|name| name.extension().is_some_and(|ext| ext == "jnl")).cloned().collect();
    run("directories", 1, &["opened", "refused"], |cases| {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, data) in &files {
            fs::create_dir_all(dir.path().join(name).parent().expect("a parent")).expect("a directory");
            fs::write(dir.path().join(name), data).expect("a file");
        }
        let random = &mut cases.random;
        let name = if random.once_in(2) { random.pick(&journals) } else { random.pick(&names) }.clone();
        let bytes = damaged(random, &[files[&name].clone()]);
        fs::write(dir.path().join(&name), &bytes).expect("a file");
        let input = files.values().map(Vec::len).sum::<usize>() + bytes.len();
        match cases.within(input, BOUND, || DiskStore::open(dir.path())) {
            Ok(store) => {
                cases.count("opened");
                let kept = prefix(&store);
                assert!(kept >= SYNCED, "{}: of {SYNCED} synced batches {kept} are left", name.display());
            }
            Err(StoreError::Damaged(why) | StoreError::Failed(why)) => {
                cases.count("refused");
                assert!(!why.is_empty());
            }
            Err(other) => panic!("{}: {other}", name.display()),
        }
    });
}
