//! What the disk store finds in a directory that was damaged, cut or not its own.

use std::collections::BTreeMap;

use super::*;

impl DiskStore {
    /// Makes a table of what is in memory.
    pub(in crate::store) fn write_out_for_test(&self) {
        self.keyspace.rotate_memtable_and_wait().unwrap();
    }
}

/// A directory with a history: `batches` of them, each setting its own key and a common one, synced up to `synced`.
struct Past {
    dir: tempfile::TempDir,
    /// The length of the journal after each batch (`ends[0]`: after none of ours).
    ends: Vec<u64>,
    journal: PathBuf,
}

fn change(n: usize) -> Batch {
    let value = Some(Bytes::from(format!("value {n} {}", "x".repeat(n % 7 * 5))));
    Batch { changes: vec![(Bytes::from(format!("key{n:04}")), value.clone()), (Bytes::from("last"), value)] }
}

fn past(batches: usize, synced: usize) -> Past {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let journal = dir.path().join("db/0.jnl");
    let end = || read_end(&journal);
    let mut ends = vec![end()];
    for n in 1..=batches {
        store.apply(change(n)).unwrap();
        if n == synced {
            store.sync().unwrap();
        }
        ends.push(end());
    }
    drop(store);
    Past { dir, ends, journal }
}

fn read_end(journal: &Path) -> u64 {
    let data = fs::read(journal).unwrap();
    data.iter().rposition(|b| *b != 0).map_or(0, |last| last as u64 + 1)
}

/// How many of the batches are there: they must be a prefix, and whole.
fn prefix(store: &DiskStore) -> usize {
    let all: BTreeMap<_, _> = store.scan(b"", KEYS_END, usize::MAX).unwrap().into_iter().collect();
    let count = all.len().saturating_sub(1);
    let mut expected = BTreeMap::new();
    for n in 1..=count {
        expected.extend(change(n).changes.into_iter().map(|(key, value)| (key, value.unwrap())));
    }
    assert_eq!(all, expected);
    count
}

fn copy(from: &Path) -> tempfile::TempDir {
    fn walk(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            if path.is_dir() {
                walk(&path, &to);
            } else if path.extension().is_some_and(|ext| ext == "jnl") {
                // Without the 64 MiB of zeros that are laid out ahead.
                let data = fs::read(&path).unwrap();
                fs::write(to, &data[..read_end(&path) as usize]).unwrap();
            } else {
                fs::copy(&path, &to).unwrap();
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    walk(from, to.path());
    to
}

fn flip(path: &Path, at: u64) {
    let mut data = fs::read(path).unwrap();
    data[at as usize] ^= 0x04;
    fs::write(path, data).unwrap();
}

fn damage(dir: &Path) -> String {
    match DiskStore::open(dir) {
        Err(StoreError::Damaged(text)) => text,
        other => panic!("not found to be damaged: {other:?}"),
    }
}

#[test]
fn a_flipped_byte_in_the_journal_is_found_unless_a_crash_could_have_torn_it() {
    let past = past(8, 5);
    let base = copy(past.dir.path());
    // Every byte of the records that matter, with a stride that meets every field of a head, item and trailer.
    for at in (0..*past.ends.last().unwrap()).step_by(5) {
        let dir = copy(base.path());
        flip(&dir.path().join("db/0.jnl"), at);
        if at < past.ends[7] {
            // Synced, or followed by a whole record.
            let text = damage(dir.path());
            assert!(text.contains("0.jnl"), "byte {at}: {text}");
        } else {
            // In the last record, not synced: torn; or a sequence number that still fits, as good as it was; or one that
            // does not, which no crash leaves.
            match DiskStore::open(dir.path()) {
                Ok(store) => assert!(prefix(&store) >= 7, "byte {at}"),
                Err(error) => assert!(error.to_string().contains("one of the two was changed"), "byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn a_journal_cut_after_the_synced_point_opens_and_before_it_does_not() {
    let past = past(6, 4);
    let full = *past.ends.last().unwrap();
    for cut in (0..full).step_by(23).chain(past.ends.iter().copied()) {
        let dir = copy(past.dir.path());
        let journal = dir.path().join("db/0.jnl");
        fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(cut).unwrap();
        if cut < past.ends[4] {
            let text = damage(dir.path());
            assert!(text.contains(".jnl"), "cut at {cut}: {text}");
            damage(dir.path());
        } else {
            let whole = past.ends.iter().filter(|end| **end <= cut).count() - 1;
            let store = DiskStore::open(dir.path()).unwrap();
            assert_eq!(prefix(&store), whole, "cut at {cut}");
            // And it goes on from there.
            store.apply(change(whole + 1)).unwrap();
            store.sync().unwrap();
            drop(store);
            assert_eq!(prefix(&DiskStore::open(dir.path()).unwrap()), whole + 1);
        }
    }
}

#[test]
fn after_a_power_failure_a_hole_in_what_was_not_synced_is_cut_off() {
    let past = past(8, 4);
    let synced_path = past.dir.path().join("synced");
    let other_boot = |number: u64| {
        let mut bytes = fs::read(&synced_path).unwrap();
        for offset in [0, 4096] {
            let mut slot = bytes[offset..offset + 32].to_vec();
            slot[8..16].copy_from_slice(&number.to_le_bytes());
            slot[16] ^= 1;
            let sum = xxhash_rust::xxh3::xxh3_64(&slot);
            bytes[offset..offset + 32].copy_from_slice(&slot);
            bytes[offset + 32..offset + 40].copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    };
    // One batch comes before ours: the first is number 2. The newest number in `synced` may be lost with the power.
    for recorded in [5, 2] {
        for (hole, opens) in [(3, false), (4, false), (5, true), (7, true)] {
            let dir = copy(past.dir.path());
            fs::write(dir.path().join("synced"), other_boot(recorded)).unwrap();
            flip(&dir.path().join("db/0.jnl"), past.ends[hole - 1] + 60);
            if opens {
                let store = DiskStore::open(dir.path()).unwrap();
                assert_eq!(prefix(&store), hole - 1, "hole at batch {hole}, {recorded} recorded");
            } else {
                let text = damage(dir.path());
                assert!(text.contains("0.jnl"), "hole at batch {hole}, {recorded} recorded: {text}");
            }
        }
    }
}

#[test]
fn missing_files_are_found_and_named() {
    let past = past(5, 5);
    let dir = past.dir.path();
    {
        let store = DiskStore::open(dir).unwrap();
        store.write_out_for_test();
        store.apply(change(6)).unwrap();
        store.sync().unwrap();
    }
    let names = ["synced", "format", "db/version", "db/keyspaces/0/current", "db/keyspaces/1/current", "db/0.jnl"];
    for name in names {
        let dir = copy(dir);
        fs::remove_file(dir.path().join(name)).unwrap();
        let text = damage(dir.path());
        let file = name.rsplit('/').next().unwrap().replace("0.jnl", "journals");
        assert!(text.contains(&file), "without {name}: {text}");
    }
    // One that is there and cannot be read is not damaged: its disk may be well again at the next start.
    for name in &names {
        let dir = copy(dir);
        let file = dir.path().join(name);
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&file, &file).unwrap();
        let error = DiskStore::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)), "{name}: {error}");
        assert!(error.to_string().contains(file.to_str().unwrap()), "{name}: {error}");
    }
    let mut named = 0;
    for tree in ["0", "1"] {
        let tree = dir.join("db/keyspaces").join(tree);
        let current = fs::read(tree.join("current")).unwrap();
        let manifest = u64::from_le_bytes(current[..8].try_into().unwrap());
        let tables = fs::read_dir(tree.join("tables")).unwrap().map(|entry| entry.unwrap().path());
        for file in tables.chain([tree.join(format!("v{manifest}"))]) {
            let dir = copy(dir);
            let file = dir.path().join(file.strip_prefix(past.dir.path()).unwrap());
            fs::remove_file(&file).unwrap();
            match DiskStore::open(dir.path()) {
                // A table that was merged into another, and not yet removed.
                Ok(store) => assert_eq!(prefix(&store), 6),
                Err(error) => {
                    assert!(error.to_string().contains(file.to_str().unwrap()), "{}: {error}", file.display());
                    named += 1;
                }
            }
        }
        let dir = copy(dir);
        fs::remove_dir_all(dir.path().join(tree.strip_prefix(past.dir.path()).unwrap())).unwrap();
        assert!(damage(dir.path()).contains("keyspaces"));
    }
    assert!(named >= 4, "a manifest and a table of each tree, but only {named} were named");
    assert_eq!(prefix(&DiskStore::open(dir).unwrap()), 6, "and with all of them it opens");
}

/// The journal cut in two after a batch, as if a newer one had been begun there.
fn split(past: &Past, after: usize) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = copy(past.dir.path());
    let (old, new) = (dir.path().join("db/0.jnl"), dir.path().join("db/1.jnl"));
    let data = fs::read(&old).unwrap();
    let (head, tail) = data.split_at(past.ends[after] as usize);
    fs::write(&new, tail).unwrap();
    fs::write(&old, head).unwrap();
    (dir, old, new)
}

#[test]
fn journals_have_to_follow_each_other_and_the_tables() {
    let mut past = past(4, 4);
    {
        // Batches 1 to 4 are in a table and in the journal, 5 to 8 in the journal alone.
        let store = DiskStore::open(past.dir.path()).unwrap();
        store.write_out_for_test();
        for n in 5..=8 {
            store.apply(change(n)).unwrap();
            past.ends.push(read_end(&past.journal));
        }
        store.sync().unwrap();
    }
    for after in 1..8 {
        let (dir, ..) = split(&past, after);
        assert_eq!(prefix(&DiskStore::open(dir.path()).unwrap()), 8, "two journals, after {after}");

        let (dir, old, _) = split(&past, after);
        fs::remove_file(old).unwrap();
        if after <= 4 {
            assert_eq!(prefix(&DiskStore::open(dir.path()).unwrap()), 8, "nothing is lost with the first {after}");
        } else {
            assert!(damage(dir.path()).contains("1.jnl"), "without the first {after}");
        }

        let (dir, _, new) = split(&past, after);
        fs::remove_file(new).unwrap();
        assert!(damage(dir.path()).contains("0.jnl"), "without what follows {after}");

        let (dir, old, _) = split(&past, after);
        flip(&old, past.ends[after] - 3);
        let text = damage(dir.path());
        assert!(text.contains("0.jnl") && text.contains("completed"), "the last record before {after}: {text}");
    }
}

#[test]
fn a_flipped_byte_in_a_table_or_manifest_is_never_read_as_data() {
    let past = past(40, 40);
    {
        let store = DiskStore::open(past.dir.path()).unwrap();
        store.write_out_for_test();
    }
    let mut found = 0;
    for tree in ["0", "1"] {
        let tree = past.dir.path().join("db/keyspaces").join(tree);
        let mut files: Vec<_> = fs::read_dir(&tree).unwrap().map(|e| e.unwrap().path()).collect();
        files.extend(fs::read_dir(tree.join("tables")).unwrap().map(|e| e.unwrap().path()));
        for file in files.into_iter().filter(|path| path.is_file()) {
            let len = fs::metadata(&file).unwrap().len();
            for at in (0..len).step_by(len as usize / 20 + 1) {
                let dir = copy(past.dir.path());
                let copied = dir.path().join(file.strip_prefix(past.dir.path()).unwrap());
                flip(&copied, at);
                let read = DiskStore::open(dir.path()).and_then(|store| store.scan(b"", KEYS_END, usize::MAX));
                match read {
                    // A byte that nobody looks at, such as padding or a statistic.
                    Ok(pairs) => assert_eq!(pairs.len(), 41, "{} at {at}", file.display()),
                    Err(StoreError::Damaged(text)) => {
                        let named = [&copied, &copied.with_file_name("current")].iter().any(|path| {
                            text.contains(path.to_str().unwrap()) || path.ends_with("current") && text.contains("/v")
                        });
                        assert!(named, "{} at {at}: {text}", file.display());
                        found += 1;
                    }
                    Err(other) => panic!("{} at {at}: {other:?}", file.display()),
                }
            }
        }
    }
    assert!(found > 60, "only {found} were found");
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let second = DiskStore::open(dir.path());
    assert!(matches!(&second, Err(StoreError::InUse(text)) if text.contains("lock")), "{second:?}");
    drop(store);
    DiskStore::open(dir.path()).unwrap();
}

#[test]
fn a_foreign_or_newer_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear reader").unwrap();
    assert!(damage(dir.path()).contains("letter.txt"));
    assert!(dir.path().join("letter.txt").exists() && !dir.path().join("db").exists());

    let past = past(1, 1);
    let format = past.dir.path().join("format");
    for (text, says) in [("entail data directory, format 2\n", "newer one"), ("something", "does not name")] {
        fs::write(&format, text).unwrap();
        let text = damage(past.dir.path());
        assert!(text.contains(says) && text.contains("format"), "{text}");
    }
}

#[test]
fn a_first_start_that_did_not_end_begins_again() {
    let whole = past(0, 0);
    let unborn = |dir: &Path| {
        fs::remove_file(dir.join("synced")).unwrap();
        SyncedFile::create(&dir.join("synced")).unwrap();
    };
    // As if it had ended after each of its steps, the last first.
    let dir = copy(whole.dir.path());
    for gone in ["", "db/keyspaces/1/current", "db/version", "db/0.jnl", "db", "synced", "format", "lock"] {
        if gone != "synced" && gone != "format" && gone != "lock" {
            unborn(dir.path());
        }
        let path = dir.path().join(gone);
        if gone == "db" {
            fs::remove_dir_all(path).unwrap();
        } else if !gone.is_empty() {
            fs::remove_file(path).unwrap();
        }
        let copy = copy(dir.path());
        let store = DiskStore::open(copy.path()).unwrap();
        store.apply(change(1)).unwrap();
        drop(store);
        assert_eq!(prefix(&DiskStore::open(copy.path()).unwrap()), 1, "up to {gone}");
    }
    // With batches in it, it is no first start.
    let used = past(2, 2);
    unborn(used.dir.path());
    assert!(damage(used.dir.path()).contains("journal"));
}

#[test]
fn batches_are_refused_while_the_reserve_is_not_free() {
    let dir = tempfile::tempdir().unwrap();
    drop(DiskStore::open(dir.path()).unwrap());
    let store = DiskStore::open_with(dir.path(), &Options { reserve_bytes: u64::MAX, ..Options::default() }).unwrap();
    for _ in 0..2 {
        let refused = store.apply(change(1));
        assert!(matches!(&refused, Err(StoreError::Full(text)) if text.contains("left")), "{refused:?}");
    }
    // Refused is not broken: reads and syncs go on, and so do writes when there is room.
    assert_eq!(store.get(b"last").unwrap(), None);
    store.sync().unwrap();
    lock(&store.writer).reserve_bytes = 0;
    store.apply(change(1)).unwrap();
    assert_eq!(prefix(&store), 1);
    assert!(store.free_bytes().unwrap() > 0);
}

#[test]
fn a_directory_set_aside_half_way_is_set_aside_at_the_next_start() {
    for moved in 0..=3 {
        let past = past(3, 3);
        let dir = past.dir.path();
        // An earlier one, which is whole.
        let earlier = dir.join("forgotten-1");
        fs::create_dir(&earlier).unwrap();
        for name in ["format", "synced", "db"] {
            fs::write(earlier.join(name), "").unwrap();
        }
        let aside = dir.join("forgotten-2");
        fs::create_dir(&aside).unwrap();
        for name in ["format", "synced", "db"].into_iter().take(moved) {
            fs::rename(dir.join(name), aside.join(name)).unwrap();
        }
        let store = DiskStore::open(dir).unwrap();
        // Nothing had gone: it is the store as it was.
        let left = if moved == 0 { 3 } else { 0 };
        assert_eq!(prefix(&store), left, "{moved} moved");
        drop(store);
        if moved > 0 {
            assert_eq!(prefix(&DiskStore::open(&aside).unwrap()), 3, "{moved} moved");
        }
    }
    let past = past(1, 1);
    fs::remove_file(past.dir.path().join("format")).unwrap();
    assert!(damage(past.dir.path()).contains("no file 'format'"), "that is no crash of ours");
}
