//! A large store is resharded under load: nothing fails, nothing is lost, nobody waits, nothing moves needlessly.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::changes::{SHARD, expect, field, keys_in, reshard, state};
use crate::harness::{Cluster, wait_until};
use crate::inspect::Map;
use crate::keys::Keys;
use crate::sessions::{Outcome, Sessions};
use serde_json::json;

const KEYS: usize = 200_000;

/// Clients under way all the time.
const SESSIONS: usize = 32;

/// How long nothing changes, before and after each reshard.
const CALM: Duration = Duration::from_secs(3);

/// No request may wait longer than this while keys move, unless one in calm waited for half as long as that one, or the
/// disk alone for all but half of this.
const LONGEST: Duration = Duration::from_millis(250);

/// A write and its sync every so often, on the disk that the nodes have: how long that alone can hold a request up.
struct Disk {
    ends: Arc<AtomicBool>,
    syncs: JoinHandle<Vec<(Instant, Duration)>>,
}

impl Disk {
    fn watch(dir: &Path) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (stop, mut file) = (Arc::clone(&ends), File::create(dir.join("watched")).expect("a file"));
        let mut sync = move || {
            let begin = Instant::now();
            file.write_all(&[1; 64]).and_then(|()| file.sync_data()).expect("the disk takes it");
            let took = begin.elapsed();
            sleep(Duration::from_millis(10));
            (begin, took)
        };
        let syncs = spawn(move || {
            let mut took = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                took.push(sync());
            }
            took
        });
        Self { ends, syncs }
    }

    /// Every sync so far: when it began, what it took.
    fn stop(self) -> Vec<(Instant, Duration)> {
        self.ends.store(true, Ordering::Relaxed);
        self.syncs.join().expect("it ends")
    }
}

/// A part of the run, and the requests that were under way in it.
struct Phase {
    name: String,
    begin: Instant,
    end: Instant,
}

/// What requests of a phase took, the shortest first.
struct Times(Vec<Duration>);

impl Times {
    fn of(outcome: &Outcome, phases: &[&Phase]) -> Self {
        let within =
            |begin: Instant, took: Duration| phases.iter().any(|phase| begin < phase.end && begin + took > phase.begin);
        let requests = outcome.requests.iter().filter(|(begin, took, _)| within(*begin, *took));
        let mut times: Vec<Duration> = requests.map(|(_, took, _)| *took).collect();
        times.sort_unstable();
        Self(times)
    }

    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    fn row(&self, name: &str) {
        let [median, p99, longest] = [50, 99, 100].map(|percent| self.at(percent).as_secs_f64() * 1e3);
        eprintln!("{name:<22} {:>9} {median:>10.1} {p99:>10.1} {longest:>10.1}", self.0.len());
    }
}

#[test]
#[ignore = "measures for two minutes, alone on the machine: a stage of .ci/run"]
fn two_hundred_thousand_keys_are_resharded_under_load() {
    let cluster = Cluster::start(6, 2);
    let nodes = &cluster.nodes;
    let keys = Keys::write(nodes, KEYS, 72);
    let sessions = Sessions::go_on(nodes, SESSIONS, &Outcome::of(keys), false);
    wait_until("the sessions are under way", Duration::from_secs(10), || sessions.done() > 2_000);
    let disk = Disk::watch(cluster.data_dir(0).parent().expect("a directory of the test's own"));
    let mut phases = vec![calm()];
    let mut lines = Vec::new();
    for (at, count) in [(1, 3), (4, 2)] {
        let before = Map::of(&nodes[at]).expect("it answers");
        let begin = Instant::now();
        expect(&reshard(&nodes[at], count), 200, json!({"message": "Resharding done successfully"}));
        let took = begin.elapsed();
        // What nobody needs any more is given up after the answer.
        wait_until("all is where it is wanted", Duration::from_secs(10), || {
            Map::of(&nodes[at]).is_some_and(|map| map.is_settled())
        });
        phases.push(Phase { name: format!("to {count} shards"), begin, end: Instant::now() });
        let after = Map::of(&nodes[at]).expect("it answers");
        let moved = after.moved_since(&before);
        let status = field(&nodes[at], &format!("{SHARD}/reshard"), "keys");
        lines.push(format!(
            "to {count} shards: {took:.1?}, {} maps, {moved:?}, {status}",
            after.epoch() - before.epoch()
        ));
        assert_eq!(moved.changed, moved.least, "{moved:?}");
        assert_eq!(moved.joined, moved.copies, "{moved:?}");
        assert_eq!(state(&nodes[at]), json!("done"));
        phases.push(calm());
    }
    let (outcome, syncs) = (sessions.stop(), disk.stop());
    shown(&outcome, &phases, &lines);
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    sleep(Duration::from_secs(2));
    assert_eq!(keys_in(nodes, 2).iter().sum::<u64>(), (KEYS + 2 * SESSIONS) as u64);
    let wrong = outcome.keys.wrong(nodes);
    assert!(wrong.is_empty(), "{} keys are lost: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    nobody_waits(&outcome, &phases, &syncs);
}

fn calm() -> Phase {
    let begin = Instant::now();
    sleep(CALM);
    Phase { name: "calm".to_owned(), begin, end: Instant::now() }
}

fn shown(outcome: &Outcome, phases: &[Phase], lines: &[String]) {
    eprintln!("{:<22} {:>9} {:>10} {:>10} {:>10}", "", "requests", "median ms", "p99 ms", "longest ms");
    for phase in phases {
        Times::of(outcome, &[phase]).row(&phase.name);
    }
    for line in lines {
        eprintln!("{line}");
    }
    let mut longest = outcome.requests.clone();
    longest.sort_unstable_by_key(|(_, took, _)| std::cmp::Reverse(*took));
    for (begin, took, which) in &longest[..longest.len().min(5)] {
        let during = phases.iter().find(|phase| *begin < phase.end && *begin + *took > phase.begin);
        eprintln!("{took:?} {which}, {}", during.map_or("in between", |phase| &phase.name));
    }
}

fn nobody_waits(outcome: &Outcome, phases: &[Phase], syncs: &[(Instant, Duration)]) {
    let moves = |at: Instant| phases.iter().any(|phase| phase.name != "calm" && phase.begin <= at && at < phase.end);
    let sync = syncs.iter().filter(|(begin, _)| moves(*begin)).map(|(_, took)| *took).max().unwrap_or_default();
    eprintln!("the longest sync of one small write while keys moved: {sync:?}");
    let (calm, moving): (Vec<&Phase>, Vec<&Phase>) = phases.iter().partition(|phase| phase.name == "calm");
    let (calm, moving) = (Times::of(outcome, &calm), Times::of(outcome, &moving));
    // A disk that stands still holds everybody up, moves or not.
    let (bound, longest) = (LONGEST.max(2 * calm.at(100)).max(LONGEST / 2 + sync), moving.at(100));
    assert!(longest <= bound, "a request waited {longest:?} while keys moved, and {:?} in calm", calm.at(100));
    let (bound, p99) = (2 * calm.at(99), moving.at(99));
    assert!(p99 <= bound, "one in a hundred waited {p99:?} while keys moved, and {:?} in calm", calm.at(99));
}
