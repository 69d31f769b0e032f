//! The contract of [`Store`], run against both implementations, and both against each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::disk::DiskStore;
use super::memory::MemoryStore;
use super::*;

/// A batch of texts; `None` removes.
fn batch(changes: &[(&str, Option<&str>)]) -> Batch {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Batch { changes: changes.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect() }
}

fn put(store: &dyn Store, key: &str, value: &str) {
    store.apply(batch(&[(key, Some(value))])).unwrap();
}

fn value(read: &dyn Read, key: &str) -> Option<String> {
    read.get(key.as_bytes()).unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn keys(read: &dyn Read, from: &str, until: &str, limit: usize) -> String {
    let pairs = read.scan(from.as_bytes(), until.as_bytes(), limit).unwrap();
    pairs.iter().map(|(key, _)| String::from_utf8_lossy(key)).collect::<Vec<_>>().join(" ")
}

fn everything(read: &dyn Read) -> Vec<(Bytes, Bytes)> {
    read.scan(b"", KEYS_END, usize::MAX).unwrap()
}

/// Runs a test against each implementation.
fn on_both(test: impl Fn(&dyn Store)) {
    test(&MemoryStore::new());
    let dir = tempfile::tempdir().unwrap();
    test(&DiskStore::open(dir.path()).unwrap());
}

#[test]
fn a_batch_is_visible_at_once_and_as_a_whole() {
    on_both(|store| {
        store.apply(batch(&[("a", Some("1")), ("b", Some("2")), ("c", None)])).unwrap();
        assert_eq!(
            (value(store, "a"), value(store, "b"), value(store, "c")),
            (Some("1".into()), Some("2".into()), None)
        );
        store.apply(batch(&[("a", Some("")), ("b", None), ("d", Some("4"))])).unwrap();
        assert_eq!((value(store, "a"), value(store, "b")), (Some(String::new()), None));
        assert_eq!(keys(store, "", "z", 9), "a d");
        store.apply(Batch::default()).unwrap();
        store.sync().unwrap();
        assert_eq!(keys(store, "", "z", 9), "a d");
    });
}

#[test]
fn a_view_keeps_its_point_in_time() {
    on_both(|store| {
        put(store, "a", "1");
        put(store, "b", "1");
        let view = store.view();
        store.apply(batch(&[("a", None), ("b", Some("2")), ("c", Some("2"))])).unwrap();
        let later = store.view();
        store.apply(batch(&[("a", Some("3"))])).unwrap();
        store.sync().unwrap();
        assert_eq!(
            (value(&*view, "a"), value(&*view, "b"), value(&*view, "c")),
            (Some("1".into()), Some("1".into()), None)
        );
        assert_eq!(keys(&*view, "", "z", 9), "a b");
        assert_eq!(keys(&*later, "", "z", 9), "b c");
        assert_eq!(keys(store, "", "z", 9), "a b c");
    });
}

#[test]
fn a_scan_keeps_to_its_bounds_and_limit() {
    on_both(|store| {
        store.apply(batch(&["a", "b", "ba", "c", "d"].map(|key| (key, Some("x"))))).unwrap();
        let cases = [
            ("b", "c", 9, "b ba"),
            ("b", "c\0", 9, "b ba c"),
            ("", "z", 2, "a b"),
            ("bb", "z", 9, "c d"),
            ("", "z", 0, ""),
            ("b", "b", 9, ""),
            ("z", "a", 9, ""),
            ("e", "z", 9, ""),
        ];
        for (from, until, limit, expected) in cases {
            assert_eq!(keys(store, from, until, limit), expected, "{from:?} to {until:?}");
            assert_eq!(keys(&*store.view(), from, until, limit), expected, "{from:?} to {until:?} of a view");
        }
        let all = store.scan(b"", &[0xff; 20], usize::MAX).unwrap();
        assert_eq!(all.len(), 5, "nothing of the store's own shows");
        assert_eq!(store.get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, b'b']).unwrap(), None);
    });
}

#[test]
fn a_key_out_of_bounds_is_refused_and_nothing_is_applied() {
    on_both(|store| {
        for key in [Vec::new(), vec![b'k'; MAX_KEY_LEN + 1], vec![0xff; 8], vec![0xff; 30]] {
            let changes = vec![(Bytes::from("a"), Some(Bytes::new())), (Bytes::from(key), None)];
            let refused = store.apply(Batch { changes });
            assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
        }
        assert_eq!(everything(store), []);
        let long = Bytes::from(vec![b'k'; MAX_KEY_LEN]);
        store.apply(Batch { changes: vec![(long.clone(), Some(Bytes::from_static(b"v")))] }).unwrap();
        let almost = Bytes::from_static(&[0xff; 7]);
        store.apply(Batch { changes: vec![(almost.clone(), Some(Bytes::new()))] }).unwrap();
        assert_eq!(everything(store), [(long, Bytes::from_static(b"v")), (almost, Bytes::new())]);
    });
}

#[test]
fn syncs_and_reads_run_beside_batches_and_see_no_half_of_one() {
    on_both(|store| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    store.sync().unwrap();
                }
            });
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let both = everything(store);
                    assert!(both.iter().all(|(_, value)| *value == both[0].1), "{both:?}");
                    let view = store.view();
                    assert_eq!(value(&*view, "left"), value(&*view, "right"));
                    // Read one after the other, the second is never older.
                    let (left, right) = (value(store, "left"), value(store, "right"));
                    let number = |text: Option<String>| text.map_or(0, |text| text.parse::<u32>().unwrap());
                    assert!(number(left) <= number(right));
                }
            });
            for n in 1..=2000 {
                let n = n.to_string();
                store.apply(batch(&[("left", Some(&n)), ("right", Some(&n))])).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        assert_eq!(value(store, "right").unwrap(), "2000");
    });
}

/// What is done to both stores.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Sync,
    /// The memory table becomes a table on disk.
    Rotate,
    /// The process ends and starts anew; with a sync or without one.
    Reopen(bool),
    Scan(Vec<u8>, Vec<u8>, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few keys, so that they are overwritten; short, so that bounds meet them.
    let key =
        || prop_oneof![4 => prop::collection::vec(b'a'..b'd', 1..3), 1 => prop::collection::vec(any::<u8>(), 1..4)];
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    let step = prop_oneof![
        8 => prop::collection::btree_map(key(), value, 0..6).prop_map(|changes| Step::Apply(changes.into_iter().collect())),
        2 => Just(Step::Sync),
        1 => Just(Step::Rotate),
        1 => any::<bool>().prop_map(Step::Reopen),
        4 => (key(), key(), 0..8_usize).prop_map(|(from, until, limit)| Step::Scan(from, until, limit)),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn disk_and_memory_agree(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = DiskStore::open(dir.path()).unwrap();
        let memory = MemoryStore::new();
        let mut views: Vec<(Arc<dyn Read>, Arc<dyn Read>)> = Vec::new();
        for step in steps {
            match step {
                Step::Apply(changes) => {
                    let changes = changes.into_iter().map(|(k, v)| (Bytes::from(k), v.map(Bytes::from))).collect();
                    let batch = Batch { changes };
                    disk.apply(batch.clone()).unwrap();
                    memory.apply(batch).unwrap();
                    views.push((disk.view(), memory.view()));
                }
                Step::Sync => {
                    disk.sync().unwrap();
                    prop_assert_eq!(disk.synced(), disk.applied());
                }
                Step::Rotate => disk.write_out_for_test(),
                Step::Reopen(sync) => {
                    if sync {
                        disk.sync().unwrap();
                    }
                    let applied = disk.applied();
                    for (a, b) in views.drain(..) {
                        prop_assert_eq!(everything(&*a), everything(&*b));
                    }
                    drop(disk);
                    disk = DiskStore::open(dir.path()).unwrap();
                    // The page cache outlives the process, so nothing is lost.
                    prop_assert_eq!((disk.applied(), disk.synced()), (applied, applied));
                }
                Step::Scan(from, until, limit) => {
                    prop_assert_eq!(disk.scan(&from, &until, limit), memory.scan(&from, &until, limit));
                    prop_assert_eq!(disk.get(&from), memory.get(&from));
                }
            }
            prop_assert_eq!(everything(&disk), everything(&memory));
        }
        for (a, b) in views {
            prop_assert_eq!(everything(&*a), everything(&*b));
        }
    }
}
