//! One run: a load, a fault, perhaps a reshard, and then the question whether every promise was kept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use entail::history::{Account, Outcome, Record, check};
use serde_json::json;

use crate::client::{Answer, Client};
use crate::faults::Fault;
use crate::harness::wait_until;
use crate::inspect::Map;
use crate::keys::Keys;
use crate::recorder::{Recorded, Recorder, held, write};
use crate::rig::{AGREED_WITHIN, NODES, Needs, Rig};

const SESSIONS: usize = 12;

/// Further keys, so that a reshard and a fill last for a while, and their bytes.
pub const KEYS: usize = 3_000;
const KEY_BYTES: usize = 2_000;

/// The sessions get so much done in this time, with or without a fault behind them.
const SOME: u64 = 300;
const SOME_WITHIN: Duration = Duration::from_secs(20);

/// By then a reshard that was asked for is under way.
const BEGUN_WITHIN: Duration = Duration::from_secs(5);

/// A fault comes up to so many milliseconds after the reshard began.
const LATER_MS: u64 = 300;

/// A reshard is done, or given up, so long after the fault.
const RESHARDED_WITHIN: Duration = Duration::from_secs(90);

/// Logical clocks are at most so far from the wall clock, and from each start on by so much more.
const CLOCKS_WITHIN: Duration = Duration::from_secs(2);
const CLOCKS_A_START: Duration = Duration::from_secs(5);

/// What came of a run.
#[derive(Debug)]
pub struct Outcomes {
    pub operations: usize,
    pub refused: usize,
    pub unknown: usize,
    /// A reshard was under way when the fault began.
    pub in_the_middle: bool,
    pub account: Account,
    /// From the end of the fault until all nodes were ready and in all views.
    pub whole: Duration,
    /// From the last operation until all nodes showed the same.
    pub agreed: Duration,
    pub notes: Vec<String>,
    /// Everything that was wrong, in words.
    pub wrong: Vec<String>,
}

/// Runs a fault once on a cluster of its own; a wrong history is left in this directory under this name.
///
/// # Panics
/// Something did not come true in time.
pub fn run(fault: &Fault, rig: &mut Rig, resharding: bool, keep: &Path) -> Outcomes {
    let nodes = rig.cluster.nodes.clone();
    let keys = Keys::write(&nodes, KEYS, KEY_BYTES);
    let to = if rig.random.percent(50) { 3 } else { 2 };
    if resharding && to == 2 {
        assert_eq!(reshard(&nodes[0], 3).status, 200);
    }
    (fault.before)(rig);
    let recorder = Recorder::start(&nodes, SESSIONS, &mut rig.random);
    get_some_done(&recorder);
    // Half of the runs end with the fault, so that the nodes must come to show the same without any further word.
    let silent = rig.random.percent(50);
    rig.silence = silent.then(|| recorder.end());
    let asked = nodes[rig.one()].clone();
    let behind = resharding.then(|| reshard_behind(&asked, to));
    let in_the_middle = resharding && is_under_way(&nodes, rig.random.within(0, LATER_MS));
    (fault.act)(rig);
    let healed = Instant::now();
    let whole = rig.whole(healed);
    let mut recorder = Some(recorder);
    let mut ended = if silent { recorder.take().map(|recorder| end(recorder, &nodes, healed)) } else { None };
    if let Some(behind) = behind {
        let first = behind.join().expect("it does not panic");
        let told = first.map_or_else(|error| error, |answer| format!("{} {}", answer.status, answer.json["error"]));
        rig.notes.push(format!("to {to} shards: {}", told.trim_end_matches(" null")));
        reshard_at_last(&asked, to);
    }
    if let Some(recorder) = recorder {
        get_some_done(&recorder);
        ended = Some(end(recorder, &nodes, Instant::now()));
    }
    let (recorded, agreed) = ended.expect("the sessions have ended");
    let settled = || nodes.iter().all(|node| Map::of(node).is_some_and(|map| map.is_settled()));
    wait_until("all is where it is wanted", RESHARDED_WITHIN, settled);
    let finals = held(&nodes).unwrap_or_else(|error| panic!("{error}"));
    let mut outcomes = judge(recorded, finals, keep, fault.needs, rig.starts);
    outcomes.wrong.extend(read(&keys, &nodes, &mut rig.notes));
    outcomes.notes.append(&mut rig.notes);
    Outcomes { in_the_middle, whole, agreed, ..outcomes }
}

/// Waits until somebody acts under a map that wants another layout, and a while longer; whether somebody does then.
fn is_under_way(nodes: &[String], later_ms: u64) -> bool {
    let is_changing = || nodes.iter().any(|node| Map::of(node).is_some_and(|map| map.is_changing()));
    let until = Instant::now() + BEGUN_WITHIN;
    while !is_changing() && Instant::now() < until {}
    std::thread::sleep(Duration::from_millis(later_ms));
    is_changing()
}

/// Ends the sessions, and waits until every node shows the same of every key; what they did, and how long that took.
fn end(recorder: Recorder, nodes: &[String], since: Instant) -> (Recorded, Duration) {
    let recorded = recorder.stop();
    (recorded, agree(nodes, since))
}

/// Reads the further keys at every node, until no read is refused; what is wrong with them, in words. A refusal is noted:
/// it is no wrong answer of a machine with more to do than it can.
fn read(keys: &Keys, nodes: &[String], notes: &mut Vec<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    wait_until("no read is refused any more", AGREED_WITHIN, || {
        let is_refused = |line: &String| line.contains("status: 503");
        // Each key at each node, so at each replica.
        let all = (0..nodes.len()).flat_map(|after| keys.wrong_at(nodes, after));
        let (refused, others): (Vec<_>, Vec<_>) = all.partition(is_refused);
        if let Some(first) = refused.first() {
            notes.push(format!("{} reads refused at the end: {first}", refused.len()));
        }
        wrong = others;
        refused.is_empty() || !wrong.is_empty()
    });
    wrong
}

fn get_some_done(recorder: &Recorder) {
    let before = recorder.done();
    wait_until("the sessions get on", SOME_WITHIN, || recorder.done() > before + SOME);
}

fn reshard(node: &str, count: u32) -> Answer {
    ask_for(node, count).unwrap_or_else(|error| panic!("{error}"))
}

/// Asks again while the first reshard goes on, or what it needs is not back yet.
fn reshard_at_last(node: &str, count: u32) {
    wait_until("a reshard after the fault is done", RESHARDED_WITHIN, || {
        let answer = reshard(node, count);
        assert!(matches!(answer.status, 200 | 409 | 503), "{answer:?}");
        answer.status == 200
    });
}

fn reshard_behind(node: &str, count: u32) -> JoinHandle<Result<Answer, String>> {
    let node = node.to_owned();
    std::thread::spawn(move || ask_for(&node, count))
}

fn ask_for(node: &str, count: u32) -> Result<Answer, String> {
    let (path, body) = ("/key-value-store-shard/reshard", json!({ "shard-count": count }));
    Client::patient().change("PUT", node, path, &body).map_err(|error| error.to_string())
}

fn agree(nodes: &[String], since: Instant) -> Duration {
    let mut difference = "nobody was asked in time".to_owned();
    while since.elapsed() < AGREED_WITHIN {
        match held(nodes).map(|held| differences(&held)) {
            Ok(keys) if keys.is_empty() => return since.elapsed(),
            Ok(keys) => difference = format!("nodes differ in {keys:?}"),
            Err(error) => difference = error,
        }
    }
    panic!("not in {AGREED_WITHIN:?}: {difference}");
}

/// The keys of which not all show the same.
fn differences(held: &[Record]) -> BTreeSet<String> {
    let mut sorted: Vec<_> = held.iter().map(|record| (record.key.as_str(), record.value.as_deref())).collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0.to_owned()).collect()
}

/// Judges a history with the replicas' words at its end.
pub fn judge(recorded: Recorded, finals: Vec<Record>, keep: &Path, needs: Needs, starts: u32) -> Outcomes {
    let Recorded { mut records, single, odd } = recorded;
    let count = |outcome| records.iter().filter(|record| record.outcome == outcome).count();
    let (operations, refused, unknown) = (records.len(), count(Outcome::Refused), count(Outcome::Unknown));
    records.extend(finals);
    let report = check(&records);
    let mut wrong = odd;
    let mut account = Account::default();
    match report {
        Ok(report) => {
            wrong.extend(report.violations.iter().map(ToString::to_string));
            let lost = report.account.lost.iter().map(|write| format!("lost: {}", records[*write]));
            wrong.extend(lost);
            if needs != Needs::Clocks {
                wrong.extend(too_late(&records, &report.account, CLOCKS_WITHIN + CLOCKS_A_START * starts));
            }
            account = report.account;
        }
        Err(error) => wrong.push(error.to_string()),
    }
    if !wrong.is_empty() {
        write(&records, &keep.with_extension("jsonl")).expect("a history can be written");
    }
    let notes = if single > 0 { vec![format!("{single} on one disk")] } else { Vec::new() };
    let (in_the_middle, whole, agreed) = (false, Duration::ZERO, Duration::ZERO);
    Outcomes { operations, refused, unknown, in_the_middle, account, whole, agreed, notes, wrong }
}

/// Writes that began long after the end of the concurrent write that is there, which must have the smaller timestamp.
fn too_late<'a>(records: &'a [Record], account: &'a Account, by: Duration) -> impl Iterator<Item = String> + 'a {
    let known = account.overtaken.iter().filter(|(_, there)| records[*there].outcome == Outcome::Ok);
    let late =
        known.filter(move |(write, there)| records[*write].start_us > records[*there].end_us + by.as_micros() as u64);
    late.map(|(write, there)| format!("a later write lost to an earlier one: {}, {}", records[*write], records[*there]))
}

/// Leaves what every node said.
pub fn keep_logs(rig: &Rig, keep: &Path) {
    for node in 0..NODES {
        let file: PathBuf = keep.with_extension(format!("node{}.log", node + 1));
        std::fs::write(file, rig.cluster.said(node)).expect("a log can be written");
    }
}
