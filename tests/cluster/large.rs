//! A large store is resharded under load: nothing fails, nothing is lost, nobody waits, nothing moves needlessly.
//!
//! `ENTAIL_LARGE_KEYS` makes it smaller or larger, for a look; the stage of `.ci/run` takes what is written here.

use std::time::{Duration, Instant};

use crate::changes::{SHARD, expect, field, keys_in, reshard, state};
use crate::deaths::setting;
use crate::harness::{Cluster, wait_until};
use crate::inspect::Map;
use crate::keys::Keys;
use crate::sessions::{Outcome, Sessions};
use serde_json::json;

/// Keys, unless `ENTAIL_LARGE_KEYS` says otherwise.
const KEYS: usize = 200_000;

/// Clients under way all the time.
const SESSIONS: usize = 32;

/// How long nothing changes, before and after each reshard.
const CALM: Duration = Duration::from_secs(3);

/// No request may wait longer than this while keys move, unless one in calm waited for half as long as that one.
const LONGEST: Duration = Duration::from_millis(250);

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
#[ignore = "measures for two to four minutes, alone on the machine: a stage of .ci/run"]
fn many_keys_are_resharded_under_load() {
    let count = setting("ENTAIL_LARGE_KEYS", KEYS);
    let cluster = Cluster::start(6, 2);
    let nodes = &cluster.nodes;
    let keys = Keys::write(nodes, count, 72);
    let sessions = Sessions::go_on(nodes, SESSIONS, &Outcome::of(keys), false);
    wait_until("the sessions are under way", Duration::from_secs(10), || sessions.done() > 2_000);
    let mut phases = vec![calm()];
    let mut lines = Vec::new();
    for (at, shards) in [(1, 3), (4, 2)] {
        let before = Map::of(&nodes[at]).expect("it answers");
        let begin = Instant::now();
        expect(&reshard(&nodes[at], shards), 200, json!({"message": "Resharding done successfully"}));
        let took = begin.elapsed();
        // What nobody needs any more is given up after the answer.
        wait_until("all is where it is wanted", Duration::from_secs(10), || {
            Map::of(&nodes[at]).is_some_and(|map| map.is_settled())
        });
        phases.push(Phase { name: format!("to {shards} shards"), begin, end: Instant::now() });
        let after = Map::of(&nodes[at]).expect("it answers");
        let moved = after.moved_since(&before);
        let status = field(&nodes[at], &format!("{SHARD}/reshard"), "keys");
        lines.push(format!(
            "to {shards} shards: {took:.1?}, {} maps, {moved:?}, {status}",
            after.epoch() - before.epoch()
        ));
        assert_eq!(moved.changed, moved.least, "{moved:?}");
        assert_eq!(moved.joined, moved.copies, "{moved:?}");
        assert_eq!(state(&nodes[at]), json!("done"));
        phases.push(calm());
    }
    let outcome = sessions.stop();
    shown(&outcome, &phases, &lines);
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(keys_in(nodes, 2).iter().sum::<u64>(), (count + 2 * SESSIONS) as u64);
    let wrong = outcome.keys.wrong(nodes);
    assert!(wrong.is_empty(), "{} keys are lost: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    nobody_waits(&outcome, &phases);
}

fn calm() -> Phase {
    let begin = Instant::now();
    std::thread::sleep(CALM);
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

fn nobody_waits(outcome: &Outcome, phases: &[Phase]) {
    let (calm, moving): (Vec<&Phase>, Vec<&Phase>) = phases.iter().partition(|phase| phase.name == "calm");
    let calm = Times::of(outcome, &calm);
    for phase in moving {
        let (name, moving) = (&phase.name, Times::of(outcome, &[phase]));
        let (bound, longest) = (LONGEST.max(2 * calm.at(100)), moving.at(100));
        assert!(longest <= bound, "{name}: a request waited {longest:?}, and {:?} in calm", calm.at(100));
        let (bound, p99) = (2 * calm.at(99), moving.at(99));
        assert!(p99 <= bound, "{name}: one in a hundred waited {p99:?}, and {:?} in calm", calm.at(99));
    }
}
