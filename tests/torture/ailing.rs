//! The faults of a disk that is not well: slow, or with errors of its own. Each must be felt, or nothing was shown.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::faults::{STARTED_WITHIN, files_below, starts};
use crate::harness::wait_until;
use crate::ills::Ill;
use crate::keys;
use crate::recorder::PATIENCE;
use crate::rig::{NODES, Rig};
use crate::round::KEYS;

/// A node whose disk does not make durable what it wrote has ended by then.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// Keys that are written over and over until nodes have tables, and the bytes of each.
const WEIGHTS: usize = 12;
const WEIGHT_BYTES: usize = 200_000;

/// By then each node has one.
const TABLES_WITHIN: Duration = Duration::from_secs(60);

/// So many keys are read before a node is started anew to read its files again.
const READS: usize = 100;

/// A node that refuses may be on its way out: it gets some time for that.
const PAUSE: Duration = Duration::from_millis(50);

/// What the system says of an I/O error.
const IO_ERROR: &str = "Input/output error";

/// Each write and each sync takes its time, on one node or on half of them.
pub fn slow(rig: &mut Rig) {
    let count = rig.random.pick(&[1, NODES / 2]);
    let (least, most) = rig.random.pick(&[(1, 5), (5, 50), (50, 300)]);
    let nodes = rig.random_nodes(count);
    nodes.iter().for_each(|node| rig.ailing[*node].ail(Ill::Slow(least, most)));
    rig.hold();
    let felt: Vec<_> = nodes.iter().map(|node| rig.ailing[*node].heal()).collect();
    rig.notes.push(format!("{least} to {most} ms for each of {felt:?} writes and syncs"));
    assert!(felt.iter().all(|felt| *felt > 0), "a slow disk was not used");
}

/// One sync fails, or all for a while: the node ends, and says why, and is started again when its disk is well.
pub fn failing_syncs(rig: &mut Rig) {
    let node = rig.one();
    let count = rig.random.pick(&[1, u64::MAX]);
    let said = rig.cluster.said(node).len();
    rig.ailing[node].ail(Ill::SyncsFail(count));
    rig.hold();
    ends(rig, node, said);
    if count > 1 {
        let said = rig.cluster.said(node).len();
        rig.restart(node);
        ends(rig, node, said);
    }
    let felt = rig.ailing[node].heal();
    rig.notes.push(format!("{felt} syncs failed"));
    rig.restart(node);
    assert!(starts(rig, node), "it does not start on a disk that is well again");
}

/// Waits until a node has ended by itself because a sync failed.
fn ends(rig: &mut Rig, node: usize, said: usize) {
    let name = rig.cluster.nodes[node].clone();
    let mut status = None;
    wait_until(&format!("{name} ends, whose disk failed to sync"), ENDED_WITHIN, || {
        status = rig.cluster.ended(node);
        status.is_some()
    });
    let felt = rig.ailing[node].felt();
    assert!(felt > 0, "{name} ended by itself before a sync failed: {status:?}");
    let words = &rig.cluster.said(node)[said..];
    assert!(words.contains(IO_ERROR), "{name} does not say why it ended: {words}");
}

/// Has every node put something into tables, which it must read from its disk: what is in memory no disk can fail to give.
pub fn fill_tables(rig: &mut Rig) {
    let (mut client, value) = (Client::new(), Value::from("w".repeat(WEIGHT_BYTES)));
    wait_until("every node has a table", TABLES_WITHIN, || {
        for number in 0..WEIGHTS {
            let node = &rig.cluster.nodes[number % NODES];
            let answer = client.put(node, &format!("weight{number}"), &value).expect("the node answers");
            // A node refuses what it has no time for.
            assert!(answer.is_done() || answer.status == 503, "{answer:?}");
        }
        rig.ailing.iter().all(|disk| has_table(&disk.backing))
    });
}

fn has_table(below: &Path) -> bool {
    // Those of 0 are fjall's own.
    let is_ours = |tables: &Path| tables.ends_with("tables") && !tables.ends_with("0/tables");
    let is_table = |file: &Path| file.parent().is_some_and(is_ours);
    files_below(below).iter().any(|file| is_table(file))
}

/// Some reads fail, or all. The node refuses, or ends with a word about it; it does not start, or starts. What it
/// answers is right.
pub fn failing_reads(rig: &mut Rig) {
    let node = rig.one();
    let share = rig.random.pick(&[2, 20, 200, 1_000]);
    let mut counts = Counts::default();
    let mut said = rig.cluster.said(node).len();
    rig.ailing[node].ail(Ill::ReadsFail(share));
    rig.hold_doing(|rig| {
        if rig.cluster.running(node).is_some() {
            read_some(rig, node, &mut counts);
            // It may have ended since.
            if rig.cluster.ended(node).is_none() && rig.cluster.running(node).is_some() {
                rig.cluster.kill(node);
            } else {
                counts.ended += 1;
                told(rig, node, said);
            }
        }
        said = rig.cluster.said(node).len();
        rig.restart(node);
        if starts(rig, node) {
            counts.started += 1;
        } else {
            counts.not_started += 1;
            told(rig, node, said);
        }
    });
    let felt = rig.ailing[node].heal();
    let Counts { right, refused, ended, started, not_started } = counts;
    rig.notes.push(format!(
        "{share} of 1000, {felt} reads failed; {right} right answers and {refused} refusals, ended {ended} times, of its starts \
         {not_started} failed and {started} did not"
    ));
    assert!(felt > 0, "nothing was read from the disk");
    if rig.cluster.running(node).is_none() {
        rig.restart(node);
    }
    // It may end of what it could not read before; then, too, it has to start on the disk that is well.
    if !starts(rig, node) {
        rig.restart(node);
        assert!(starts(rig, node), "it does not start on a disk that is well again");
    }
}

/// What a node did while reads failed.
#[derive(Default)]
struct Counts {
    right: usize,
    refused: usize,
    ended: usize,
    started: usize,
    not_started: usize,
}

/// Asks a node for keys until it has ended, or for long enough.
fn read_some(rig: &mut Rig, node: usize, counts: &mut Counts) {
    let name = rig.cluster.nodes[node].clone();
    let mut client = Client::waiting(PATIENCE);
    for _ in 0..READS {
        let key = keys::name(rig.random.index(KEYS));
        client.context.clear();
        match client.get(&name, &key) {
            Ok(answer) if answer.status == 200 && keys::held(&answer) == 1 => counts.right += 1,
            Ok(answer) if answer.status == 503 => {
                counts.refused += 1;
                std::thread::sleep(PAUSE);
            }
            Ok(answer) => panic!("{key} at {name}, which can't read its disk: {answer:?}"),
            Err(_) => {
                // It is ending, or hangs.
                wait_until(&format!("{name} ends, which does not answer"), STARTED_WITHIN, || {
                    rig.cluster.ended(node).is_some()
                });
                return;
            }
        }
    }
}

/// Whoever could not go on has said with which file.
fn told(rig: &Rig, node: usize, said: usize) {
    let (name, data) = (&rig.cluster.nodes[node], rig.cluster.data_dir(node).display().to_string());
    let words = &rig.cluster.said(node)[said..];
    assert!(words.contains(&data), "{name} does not say what it could not read: {words}");
    // Nobody shall give up a directory that is well.
    assert!(
        !words.contains("start the node with an empty one"),
        "{name} takes what it could not read for damage: {words}"
    );
}
