//! kill -9 at random moments, 20 rounds in one directory: what was synced is there, and what is there is a prefix.
//!
//! The child (this test binary again, see [`child`]) writes numbered batches in one thread and syncs in another, and
//! prints the number that each sync covered. The parent kills it after a random number of lines and a random pause, or
//! while it is still starting, opens the directory itself and compares.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Read as _};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use entail::store::disk::DiskStore;
use entail::store::{Batch, KEYS_END, Read, Store};

const ROUNDS: u32 = 20;
/// How many of the newest batches have their own key; each batch removes the key of the one this far before it.
const KEPT: u64 = 300;
const DIR: &str = "ENTAIL_CRASH_TEST_DIR";

/// A value that only batch `n` writes: of many sizes, so that journals, memory tables and tables turn over.
fn value(n: u64) -> Bytes {
    let len = match n % 50 {
        0 => 400_000,
        1..10 => 20_000,
        small => small as usize * 30,
    };
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n | 1);
        (state >> 56) as u8
    };
    n.to_be_bytes().into_iter().chain((0..len).map(byte)).collect()
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("batch/{n:012}"))
}

fn batch(n: u64) -> Batch {
    let mut changes =
        vec![(key(n), Some(value(n))), (Bytes::from("newest"), Some(Bytes::copy_from_slice(&n.to_be_bytes())))];
    changes.extend(n.checked_sub(KEPT).map(|old| (key(old), None)));
    Batch { changes }
}

/// The newest batch, by what it wrote.
fn newest(store: &DiskStore) -> u64 {
    let bytes = store.get(b"newest").unwrap();
    bytes.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()))
}

/// Checks that the store holds exactly what batches 1 to `n` leave.
fn check_prefix(store: &DiskStore, n: u64) {
    let kept: RangeInclusive<u64> = (n + 1).saturating_sub(KEPT).max(1)..=n;
    let found = store.scan(b"batch/", b"batch0", usize::MAX).unwrap();
    assert_eq!(found.len() as u64, KEPT.min(n), "keys of their own, of {n} batches");
    for (n, (found_key, found_value)) in kept.zip(found) {
        assert_eq!(found_key, key(n));
        assert!(found_value == value(n), "batch {n} is torn");
    }
    let all = store.scan(b"", KEYS_END, usize::MAX).unwrap().len() as u64;
    assert_eq!(all, KEPT.min(n) + n.min(1), "nothing else is there");
}

#[test]
#[ignore = "the child of the test below, which runs it"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = DiskStore::open(Path::new(&dir)).unwrap();
    let first = newest(&store) + 1;
    let written = AtomicU64::new(first - 1);
    println!("\nopen");
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in first.. {
                store.apply(batch(n)).unwrap();
                written.store(n, Ordering::Release);
            }
        });
        loop {
            let covered = written.load(Ordering::Acquire);
            store.sync().unwrap();
            println!("synced {covered}");
        }
    });
}

/// Runs the child for a random while, kills it, and gives the greatest number that it said was synced.
fn run_and_kill(dir: &Path, random: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    // One in four dies before it has said anything: while it recovers, or just after.
    let wanted = if random.is_multiple_of(4) { 0 } else { 2 + random / 4 % 60 };
    for _ in 0..wanted {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "the child ended by itself: {said}");
    }
    thread::sleep(Duration::from_micros(random / 1000 % 50_000));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "the child ended by itself ({status}): {said}");
    lines.read_to_string(&mut said).unwrap();
    let numbers = said.lines().filter_map(|line| line.strip_prefix("synced ")?.parse().ok());
    numbers.max().unwrap_or(0)
}

#[test]
fn kill_9_loses_nothing_that_was_synced_and_tears_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let random = RandomState::new();
    let (mut before, mut with_work) = (0, 0);
    for round in 0..ROUNDS {
        let synced = run_and_kill(dir.path(), random.hash_one(round));
        let store = DiskStore::open(dir.path()).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let found = newest(&store);
        assert!(found >= synced.max(before), "round {round}: {synced} synced, {before} before, {found} found");
        check_prefix(&store, found);
        with_work += u32::from(found > before);
        before = found;
    }
    assert!(with_work >= ROUNDS / 4, "only {with_work} of {ROUNDS} rounds wrote anything");
    println!("{before} batches in {ROUNDS} rounds");
}
