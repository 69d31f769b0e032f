//! The faults: each begins, lasts, and is over when its function returns.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::ailing;
use crate::client::Client;
use crate::harness::wait_until;
use crate::rig::{NODES, Needs, Rig};

/// One thing that goes wrong.
pub struct Fault {
    /// As the table names it.
    pub name: &'static str,
    pub needs: Needs,
    /// What is to be done before, and before a reshard.
    pub before: fn(&mut Rig),
    /// Has it happen, last, and be over.
    pub act: fn(&mut Rig),
}

const fn fault(name: &'static str, needs: Needs, act: fn(&mut Rig)) -> Fault {
    Fault { name, needs, before: |_| {}, act }
}

/// All of them.
pub const FAULTS: &[Fault] = &[
    fault("kill -9 of one", Needs::Nothing, |rig| kill(rig, 1)),
    fault("kill -9 of half", Needs::Nothing, |rig| kill(rig, NODES / 2)),
    fault("kill -9 of all", Needs::Nothing, |rig| kill(rig, NODES)),
    fault("kill -9 over and over", Needs::Nothing, kill_over_and_over),
    fault("SIGSTOP of one", Needs::Nothing, |rig| stop(rig, 1)),
    fault("SIGSTOP of half", Needs::Nothing, |rig| stop(rig, NODES / 2)),
    fault("rolling restart", Needs::Nothing, rolling_restart),
    fault("disk wiped", Needs::Nothing, wipe),
    fault("file cut", Needs::Nothing, |rig| damage(rig, cut_short)),
    fault("byte flipped", Needs::Nothing, |rig| damage(rig, flip)),
    fault("one cut off", Needs::Network, |rig| part(rig, 1)),
    fault("cut in halves", Needs::Network, |rig| part(rig, NODES / 2)),
    fault("cut one way", Needs::Network, cut_one_way),
    fault("bridge", Needs::Network, bridge),
    fault("ring", Needs::Network, ring),
    fault("slow links", Needs::Network, slow_links),
    fault("lossy links", Needs::Network, lossy_links),
    fault("delayed links", Needs::Delays, delayed_links),
    fault("clock + 1 h", Needs::Clocks, |rig| clock(rig, 3_600)),
    fault("clock - 1 h", Needs::Clocks, |rig| clock(rig, -3_600)),
    fault("disk nearly full", Needs::Disks, |rig| full_disk(rig, 300)),
    fault("disk full", Needs::Disks, |rig| full_disk(rig, 0)),
    fault("disk stalls", Needs::Disks, stalling_disk),
    fault("disk takes no blocks", Needs::Disks, blockless_disk),
    fault("slow disk", Needs::Fuse, ailing::slow),
    fault("fsync fails", Needs::Fuse, ailing::failing_syncs),
    Fault { before: ailing::fill_tables, ..fault("reads fail", Needs::Fuse, ailing::failing_reads) },
];

/// By then a node that was started is ready, or has ended.
pub const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// How long a node may take to stop in order.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

fn kill(rig: &mut Rig, count: usize) {
    let nodes = rig.random_nodes(count);
    if count == NODES {
        rig.cluster.kill_all();
    } else {
        nodes.iter().for_each(|node| rig.cluster.kill(*node));
    }
    rig.hold();
    nodes.iter().for_each(|node| rig.restart(*node));
}

/// One after the other, whether those before are ready again or not.
fn kill_over_and_over(rig: &mut Rig) {
    let until = Instant::now() + rig.longest;
    let mut killed = 0;
    while Instant::now() < until {
        let node = rig.one();
        rig.cluster.kill(node);
        std::thread::sleep(Duration::from_millis(rig.random.within(0, 400)));
        rig.restart(node);
        killed += 1;
    }
    rig.notes.push(format!("{killed} times"));
}

fn stop(rig: &mut Rig, count: usize) {
    let nodes = rig.random_nodes(count);
    nodes.iter().for_each(|node| rig.cluster.signal(*node, Signal::STOP));
    rig.hold();
    nodes.iter().for_each(|node| rig.cluster.signal(*node, Signal::CONT));
}

fn rolling_restart(rig: &mut Rig) {
    for node in rig.random_nodes(NODES) {
        let status = rig.cluster.terminate(node, STOPPED_WITHIN);
        assert!(status.success(), "SIGTERM leads to {status}");
        rig.restart(node);
        assert!(starts(rig, node), "{} ended after an orderly stop", rig.cluster.nodes[node]);
    }
}

/// Waits until a node is ready, or has ended; true when it is ready.
pub fn starts(rig: &mut Rig, node: usize) -> bool {
    let name = rig.cluster.nodes[node].clone();
    let mut ready = false;
    wait_until(&format!("{name} is ready, or ends"), STARTED_WITHIN, || {
        let mut client = Client::waiting(STARTED_WITHIN);
        ready = client.ask(&name, "/readyz").is_ok_and(|answer| answer.status == 200);
        ready || rig.cluster.ended(node).is_some()
    });
    ready
}

fn wipe(rig: &mut Rig) {
    let node = rig.one();
    rig.cluster.kill(node);
    fs::remove_dir_all(rig.cluster.data_dir(node)).expect("a node that ran has data");
    rig.hold();
    rig.restart(node);
}

/// Damages a file of a node that does not run. The node goes on with what it has, or refuses to start and names a file;
/// then it gets an empty disk.
fn damage(rig: &mut Rig, how: fn(&Path, &mut Rig) -> String) {
    let node = rig.one();
    rig.cluster.kill(node);
    let mut files = files_below(&rig.cluster.data_dir(node));
    if rig.random.percent(50) {
        // There are many small files, and what was written last is in the journals.
        files.retain(|file| file.extension().is_some_and(|extension| extension == "jnl"));
    }
    let file = files[rig.random.index(files.len())].clone();
    let what = how(&file, rig);
    let said = rig.cluster.said(node).len();
    rig.restart(node);
    if starts(rig, node) {
        return rig.notes.push(format!("{what}: it starts"));
    }
    let data = rig.cluster.data_dir(node);
    let words = rig.cluster.said(node)[said..].to_owned();
    assert!(words.contains(&data.display().to_string()), "{what}: it does not say which file: {words}");
    rig.notes.push(format!("{what}: refused"));
    fs::remove_dir_all(data).expect("it is there");
    rig.restart(node);
}

/// Files that are not empty, in an order that chance alone changes.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(files_below(&entry));
        } else if fs::metadata(&entry).is_ok_and(|data| data.len() > 0) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn name(file: &Path) -> String {
    file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Where the last byte is that is not zero: journals are made as long as they may become.
fn used(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("it can be read");
    bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default() as u64
}

fn cut_short(path: &Path, rig: &mut Rig) -> String {
    let used = used(path);
    let now = rig.random.within(0, used);
    let file = File::options().write(true).open(path).expect("it is there");
    file.set_len(now).expect("it can be cut");
    format!("{} cut at {now} of {used} bytes", name(path))
}

fn flip(path: &Path, rig: &mut Rig) -> String {
    let used = used(path);
    let at = rig.random.within(0, used);
    let file = File::options().read(true).write(true).open(path).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is that long");
    file.write_all_at(&[byte[0] ^ (1 << rig.random.index(8))], at).expect("it can be written");
    format!("{} with a bit of byte {at} of {used} flipped", name(path))
}

fn cut(rig: &mut Rig, links: &BTreeSet<(usize, usize)>) {
    rig.network.as_ref().expect("it was asked for").cut(links);
    rig.hold();
    heal(rig);
}

fn heal(rig: &Rig) {
    rig.network.as_ref().expect("it was asked for").heal();
}

/// Both directions of all links of which this holds.
pub fn links(is_cut: impl Fn(usize, usize) -> bool) -> BTreeSet<(usize, usize)> {
    let pairs = (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b))).filter(|(a, b)| a != b);
    pairs.filter(|(a, b)| is_cut(*a, *b) || is_cut(*b, *a)).collect()
}

fn part(rig: &mut Rig, count: usize) {
    let side = rig.random_nodes(count);
    cut(rig, &links(|a, b| side.contains(&a) && !side.contains(&b)));
}

/// One is not heard by anybody, or hears nobody.
fn cut_one_way(rig: &mut Rig) {
    let (node, mute) = (rig.one(), rig.random.percent(50));
    let others = (0..NODES).filter(|other| *other != node);
    let links = others.map(|other| if mute { (node, other) } else { (other, node) }).collect();
    cut(rig, &links);
}

/// Two sides that only one node reaches.
fn bridge(rig: &mut Rig) {
    let nodes = rig.random_nodes(NODES);
    let (between, sides) = nodes.split_first().expect("there are nodes");
    let side = &sides[..NODES / 2 - 1];
    cut(rig, &links(|a, b| side.contains(&a) && !side.contains(&b) && b != *between));
}

/// Each reaches two others.
fn ring(rig: &mut Rig) {
    let nodes = rig.random_nodes(NODES);
    let place = |node| nodes.iter().position(|other| *other == node).expect("all are in it");
    cut(rig, &links(|a, b| !matches!((place(a) + NODES - place(b)) % NODES, 1 | 5)));
}

fn slow_links(rig: &mut Rig) {
    let kbit = rig.random.pick(&[500, 2_000, 8_000]);
    rig.notes.push(format!("{kbit} kbit/s"));
    rig.network.as_ref().expect("it was asked for").slow(kbit);
    rig.hold();
    heal(rig);
}

fn lossy_links(rig: &mut Rig) {
    let percent = rig.random.pick(&[5, 15, 30]);
    rig.notes.push(format!("{percent} %"));
    rig.network.as_ref().expect("it was asked for").lose(percent);
    rig.hold();
    heal(rig);
}

fn delayed_links(rig: &mut Rig) {
    let (least, spread) = (rig.random.within(20, 300), rig.random.within(0, 100));
    rig.notes.push(format!("{least} to {} ms", least + spread));
    rig.network.as_mut().expect("it was asked for").delay(least, spread);
    rig.hold();
    rig.network.as_mut().expect("it was asked for").delay(0, 0);
}

/// The clock jumps, and jumps back.
fn clock(rig: &mut Rig, seconds: i32) {
    let node = rig.set_clock(seconds);
    assert!(rig.clock_shows(seconds), "its clock is not {seconds} s ahead");
    rig.hold();
    if seconds > 0 {
        // What is ahead is noticed, what is behind does no harm.
        wait_until("the node says that its clock is wrong", STARTED_WITHIN, || {
            rig.cluster.said(node).contains("more than a minute ahead of every peer")
        });
    }
    rig.set_clock(0);
}

fn full_disk(rig: &mut Rig, free_mib: u64) {
    let node = rig.one();
    rig.disks[node].fill(free_mib);
    rig.hold();
    rig.disks[node].empty();
    if let Some(status) = rig.cluster.ended(node) {
        rig.notes.push(format!("ended by itself: {status}"));
        rig.restart(node);
    }
}

/// Nothing is written for a while; or again and again for a moment.
fn stalling_disk(rig: &mut Rig) {
    let node = rig.one();
    if rig.random.percent(50) {
        rig.disks[node].freeze();
        rig.hold();
        rig.disks[node].thaw();
        return rig.notes.push("stands still".to_owned());
    }
    let until = Instant::now() + rig.longest;
    while Instant::now() < until {
        rig.disks[node].freeze();
        std::thread::sleep(Duration::from_millis(rig.random.within(20, 500)));
        rig.disks[node].thaw();
    }
    rig.notes.push("slow".to_owned());
}

fn blockless_disk(rig: &mut Rig) {
    let node = rig.one();
    rig.disks[node].fail();
    rig.hold();
    match rig.cluster.ended(node) {
        Some(status) => rig.notes.push(format!("ended by itself: {status}")),
        None => {
            rig.notes.push("it ran on".to_owned());
            rig.cluster.kill(node);
        }
    }
    if !rig.disks[node].mend() {
        rig.notes.push("nothing is left of it".to_owned());
    }
    rig.restart(node);
    if !starts(rig, node) {
        rig.notes.push("refused what is left".to_owned());
        fs::remove_dir_all(rig.cluster.data_dir(node)).expect("it is there");
        rig.restart(node);
    }
}
