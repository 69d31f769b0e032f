//! More clients than the nodes can serve: as much is done as by the best number of clients, who is let in is answered
//! in time, the others are told to come later, nothing acknowledged is lost, and it is soon over.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;
use crate::crowd::{Came, Group, What, run};
use crate::harness::{Cluster, Place, machine};

const NODES: usize = 6;

/// Clients of which the best number is looked for, and how long each of them is tried.
const TRIED: [usize; 3] = [512, 1_024, 2_048];
const TRIAL: Duration = Duration::from_secs(6);

/// Ten times as many as give about the most that can be done.
const CROWD: usize = 10_240;

/// Clients who are there before, meanwhile and after.
const STEADY: usize = 32;

const BEGINS: Duration = Duration::from_secs(4);
const ENDS: Duration = Duration::from_secs(14);
/// So long after the crowd has gone everything is as it was before.
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);
const OVER: Duration = Duration::from_secs(20);

const VALUE_BYTES: usize = 100;

/// The nodes' own deadline: nobody waits longer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Who is let in is to be served within half a second, as nodes measure it; on cores that the crowd keeps busy, half of the
/// deadline is a bound.
const LET_IN: Duration = Duration::from_secs(5);

/// What a node may take beyond what it took before: the buffers of its share of the connections.
const MOST_MEMORY_MIB: u64 = 256;

/// The share of the peak that must be done meanwhile, and of the calm before that must be done after: four fifths where
/// the machine has nothing else to do (`ENTAIL_OVERLOAD=strict`), less where others want its cores, too.
fn share() -> f64 {
    if std::env::var("ENTAIL_OVERLOAD").is_ok_and(|text| text == "strict") { 0.8 } else { 0.4 }
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the hard limit is allowed");
}

fn crowd(nodes: &[String], groups: &[Group], first: usize) -> Came {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(nodes, groups, VALUE_BYTES, first))
}

/// Waits in milliseconds: the median, the 99th percentile, the longest.
fn spread(waits: &[Duration]) -> [u128; 3] {
    let at = |place: usize| waits.get(place).map_or(0, Duration::as_millis);
    [at(waits.len() / 2), at(waits.len() * 99 / 100), at(waits.len().saturating_sub(1))]
}

/// The most that any number of clients gets done in a second.
fn peak(nodes: &[String], first: &mut usize) -> f64 {
    let mut best = 0.0;
    for clients in TRIED {
        let group = Group { clients, from: Duration::ZERO, until: TRIAL, pushy: false };
        let came = crowd(nodes, &[group], *first);
        *first += clients;
        let (from, until) = (TRIAL / 3, TRIAL);
        let rate = came.rate(What::Done, from, until);
        println!("{clients} clients: {rate:.0} writes/s, {:?} ms", spread(&came.waits(What::Done, from, until)));
        best = f64::max(best, rate);
    }
    best
}

/// Looks at every node all the time: who took whom for dead and when, and the longest that a view, a probe or the status
/// took.
fn watch(nodes: &[String], over: &AtomicBool) -> (Vec<String>, Duration) {
    let (mut missed, mut longest) = (Vec::new(), Duration::ZERO);
    let mut client = Client::new();
    let start = Instant::now();
    while !over.load(Ordering::Relaxed) {
        for node in nodes {
            for path in ["/healthz", "/status", "/key-value-store-view"] {
                let begin = Instant::now();
                let answer = client.ask(node, path).unwrap_or_else(|error| panic!("{path} at {node}: {error}"));
                assert_eq!(answer.status, 200, "{path} at {node}: {answer:?}");
                longest = longest.max(begin.elapsed());
                if let Some(view) = answer.json["view"].as_array() {
                    let missing = nodes.iter().filter(|one| !view.contains(&json!(one)));
                    missed.extend(missing.map(|one| format!("{one} at {node} after {:?}", start.elapsed())));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    (missed, longest)
}

fn memory_mib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the node runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux tells");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

/// Every key holds what was acknowledged, or what was tried after it.
fn nothing_is_lost(nodes: &[String], came: &Came) {
    const READERS: usize = 16;
    scope(|threads| {
        for reader in 0..READERS {
            threads.spawn(move || {
                let mut client = Client::new();
                for (number, (key, bounds)) in came.keys.iter().enumerate().skip(reader).step_by(READERS) {
                    client.context.clear();
                    let answer = client.get(&nodes[number % nodes.len()], key).expect("the node answers");
                    let held = answer.json["value"]["number"].as_u64().unwrap_or_default();
                    assert!(bounds.admit(held), "{key}: {answer:?}, but {bounds:?}");
                }
            });
        }
    });
}

/// The 32 of before get on as before.
fn recovered(came: &Came) {
    let steady =
        Came { samples: came.samples.iter().filter(|one| one.group == 0).copied().collect(), ..Came::default() };
    let (begin, after) = (Duration::from_secs(1), ENDS + RECOVERED_WITHIN);
    let rates = [(begin, BEGINS), (after, OVER)].map(|(from, until)| steady.rate(What::Done, from, until));
    let waits = [(begin, BEGINS), (after, OVER)].map(|(from, until)| spread(&steady.waits(What::Done, from, until)));
    println!("before: {:.0} writes/s, {:?} ms; 2 s after: {:.0}/s, {:?} ms", rates[0], waits[0], rates[1], waits[1]);
    assert!(rates[1] >= share() * rates[0], "not as much as before");
    assert!(waits[1][0] as f64 <= waits[0][0] as f64 / share() + 10.0, "slower than before");
    assert_eq!(steady.waits(What::Refused, after, OVER).len(), 0, "still refused");
}

#[test]
#[ignore = "measures for half a minute, with ten thousand connections: for a machine with little else to do"]
fn ten_times_more_clients_than_can_be_served() {
    raise_file_limit();
    let mut place = Place::loopback();
    // The crowd is not what is measured, and must come to its turn.
    place.through = (0..NODES).map(|_| ["nice", "-n", "5"].map(str::to_owned).to_vec()).collect();
    let mut cluster = Cluster::prepare_in(place, NODES, 2, &[], Some(machine()));
    cluster.start_all();
    let mut first = 0;
    let peak = peak(&cluster.nodes, &mut first);
    let before: Vec<u64> = (0..NODES).map(|node| memory_mib(cluster.pid(node), "VmRSS")).collect();
    let steady = Group { clients: STEADY, from: Duration::ZERO, until: OVER, pushy: false };
    let polite = Group { clients: CROWD / 2, from: BEGINS, until: ENDS, pushy: false };
    let pushy = Group { pushy: true, ..polite };
    let over = AtomicBool::new(false);
    let (came, (missed, longest)) = scope(|threads| {
        let watching = threads.spawn(|| watch(&cluster.nodes, &over));
        let came = threads.spawn(|| crowd(&cluster.nodes, &[steady, polite, pushy], first)).join();
        over.store(true, Ordering::Relaxed);
        (came.expect("the crowd does not panic"), watching.join().expect("every node tells of itself"))
    });
    let (from, until) = (BEGINS + Duration::from_secs(2), ENDS);
    let (done, refused) = (came.rate(What::Done, from, until), came.rate(What::Refused, from, until));
    let all = |what| spread(&came.waits(what, BEGINS, OVER));
    println!(
        "{CROWD} clients: {done:.0} writes/s ({:.0} % of the peak), {:?} ms",
        done / peak * 100.0,
        all(What::Done)
    );
    println!("refused: {refused:.0}/s, {:?} ms, a second of it held back from the pushy half", all(What::Refused));
    let unknown = came.waits(What::Unknown, BEGINS, OVER).len();
    let more = (0..NODES).map(|node| memory_mib(cluster.pid(node), "VmHWM").saturating_sub(before[node])).max();
    println!("unknown: {unknown}; memory of a node: {more:?} MiB more; longest look at a node: {longest:?}");
    assert!(came.odd.is_empty(), "{} answers that no rule gives: {}", came.odd.len(), came.odd[0]);
    assert!(refused > 100.0, "nobody was refused");
    assert!(done >= share() * peak, "{done:.0} writes/s, but {peak:.0} by fewer clients");
    assert!(all(What::Done)[2] < LET_IN.as_millis(), "who was let in waited too long");
    assert!(all(What::Refused)[2] < DEADLINE.as_millis(), "somebody was refused only at the deadline");
    assert!(more < Some(MOST_MEMORY_MIB), "{more:?} MiB more");
    assert!(missed.is_empty(), "nodes were taken for dead: {missed:?}");
    recovered(&came);
    nothing_is_lost(&cluster.nodes, &came);
}
