//! Clients that mean no good, against a real node, all at once: while they are there, and long after, a good client is
//! answered quickly, the node's memory stays within a bound, and it is rid of them when its patience ends. They are one in
//! ten of what they can be, unless `ENTAIL_HOSTILE` is `all`: then there are ten thousand idle connections, and a thousand
//! threads of clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, scope, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::client::{Client, connect, over};
use crate::harness::Cluster;

/// The node's patience with clients, as it is set here.
const PATIENCE: Duration = Duration::from_secs(4);

/// A connection of a bad client is gone this long after the node's patience has ended, on a busy machine.
const SLACK: Duration = Duration::from_secs(8);

/// The longest that a good client may wait meanwhile, on a busy machine.
const MOST_WAIT: Duration = Duration::from_secs(3);

/// What a node may take beyond what it took before: the room of bodies, and the buffers of ten thousand connections; or of
/// one in ten.
const MOST_MEMORY: [u64; 2] = [768 << 20, 256 << 20];

const IDLE: usize = 10_000;

/// Whether there are as many of them as there can be.
fn are_all() -> bool {
    std::env::var("ENTAIL_HOSTILE").is_ok_and(|value| value == "all")
}

/// So many, or one in ten.
fn so_many(all: usize) -> usize {
    if are_all() { all } else { all / 10 }
}

/// A bad client's way, how often at once, and what must come of it.
struct Attack {
    name: &'static str,
    /// … at the most.
    connections: usize,
    /// What some of its connections are told, if anything.
    told: &'static [u16],
    run: fn(&str) -> Ended,
}

/// How a connection came to its end.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// It was told this, and the connection was closed.
    Told(u16),
    /// It was closed, or reset, without a word.
    Closed,
    /// It was still there after patience and slack.
    Held,
}

const ATTACKS: &[Attack] = &[
    // The first ones of large bodies find room, and are too slow; for the others there is none.
    Attack { name: "a head byte by byte", connections: 100, told: &[], run: slow_head },
    Attack { name: "a body byte by byte", connections: 100, told: &[408], run: slow_body },
    Attack { name: "a large body but for its end", connections: 300, told: &[408, 503], run: large_body },
    Attack { name: "answers that nobody reads", connections: 100, told: &[], run: never_reads },
    Attack { name: "heads without end", connections: 100, told: &[431], run: huge_head },
    Attack { name: "chunks that are none", connections: 300, told: &[400], run: bad_chunks },
    Attack { name: "a compressed body", connections: 300, told: &[415], run: compressed },
];

fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the hard limit is allowed");
}

/// What the connection ends with, when it is read until then.
fn end(mut stream: TcpStream) -> Ended {
    let until = Instant::now() + PATIENCE + SLACK;
    let mut text = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ended::Held;
        }
        stream.set_read_timeout(Some(left)).expect("a timeout can be set");
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) if text.len() < 1 << 20 => text.extend_from_slice(&chunk[..read]),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ended::Held,
            Err(_) => break,
        }
    }
    let head = String::from_utf8_lossy(&text[..text.len().min(12)]).into_owned();
    head.strip_prefix("HTTP/1.1 ").map_or(Ended::Closed, |status| Ended::Told(status.parse().expect("a status")))
}

/// Sends a text byte by byte, slower than the node waits for all of it.
fn drip(node: &str, begin: &str, rest: &str) -> Ended {
    let mut stream = connect(node).expect("the node accepts");
    let _ = stream.write_all(begin.as_bytes());
    for byte in rest.as_bytes().iter().take(40) {
        sleep(PATIENCE / 20);
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
    }
    end(stream)
}

fn slow_head(node: &str) -> Ended {
    drip(node, "GET /key-value-store/x HTTP/1.1\r\n", &"x".repeat(1000))
}

fn slow_body(node: &str) -> Ended {
    drip(node, "PUT /key-value-store/x HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n", &" ".repeat(1000))
}

fn large_body(node: &str) -> Ended {
    let mut stream = connect(node).expect("the node accepts");
    let head = format!("PUT /key-value-store/x HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 2 << 20);
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b' '; (2 << 20) - 1]));
    end(stream)
}

fn never_reads(node: &str) -> Ended {
    let mut stream = connect(node).expect("the node accepts");
    let one = "GET /key-value-store/large HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.set_write_timeout(Some(PATIENCE + SLACK)).expect("a timeout can be set");
    // More than all buffers between the two hold, so that this waits until the node has had enough.
    for _ in 0..2_000 {
        match stream.write_all(one.repeat(100).as_bytes()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ended::Held,
            Err(_) => return Ended::Closed,
        }
    }
    panic!("the node took {} requests whose answers nobody read", 2_000 * 100)
}

fn huge_head(node: &str) -> Ended {
    let mut stream = connect(node).expect("the node accepts");
    let _ = stream.write_all(b"GET /key-value-store/x HTTP/1.1\r\nhost: x\r\n");
    for number in 0..1_000 {
        if stream.write_all(format!("h{number}: {}\r\n", "x".repeat(8_000)).as_bytes()).is_err() {
            break;
        }
    }
    end(stream)
}

fn bad_chunks(node: &str) -> Ended {
    let mut stream = connect(node).expect("the node accepts");
    let head = "PUT /key-value-store/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let _ = stream.write_all(format!("{head}4\r\n{{\"va\r\nfffffffffffffffff\r\n").as_bytes());
    end(stream)
}

fn compressed(node: &str) -> Ended {
    let mut stream = connect(node).expect("the node accepts");
    let head = "PUT /key-value-store/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-encoding: gzip\r\n";
    let _ = stream.write_all(format!("{head}content-length: 20\r\n\r\n").as_bytes());
    // The start of a member that a decoder would go on with for ever.
    let _ = stream.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xec, 0xc1, 1, 1, 0, 0, 0, 0x80, 0x90, 0xfe]);
    end(stream)
}

/// Ends the good client, also when a bad one is not what it should be.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client as it should be: what it waited at the longest, on a connection that it keeps and on new ones.
fn good(node: &str, over_now: &AtomicBool) -> (Duration, u64) {
    let (mut longest, mut number) = (Duration::ZERO, 0);
    let mut kept = Client::new();
    while !over_now.load(Ordering::Relaxed) {
        number += 1;
        if number % 10 == 0 {
            kept = Client::seen(kept.context);
        }
        let begin = Instant::now();
        let put = kept.put(node, "good", &json!(number)).expect("the node answers");
        assert!(put.is_done(), "{put:?}");
        let got = kept.get(node, "good").expect("the node answers");
        assert_eq!(got.json["value"], json!(number), "{got:?}");
        longest = longest.max(begin.elapsed());
        sleep(Duration::from_millis(5));
    }
    (longest, number)
}

/// A number of `/proc/PID/status`, in bytes.
fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the node runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux tells");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the node runs").count()
}

/// All of an attack's connections at once; how many ended in each way.
fn attack(node: &str, attack: &Attack) -> Vec<Ended> {
    scope(|threads| {
        let all: Vec<_> = (0..so_many(attack.connections)).map(|_| threads.spawn(|| (attack.run)(node))).collect();
        all.into_iter().map(|one| one.join().expect("it does not panic")).collect()
    })
}

/// Whether an attack's connection ended as it should. Who sends on while it is refused, or is slow to send on a busy
/// machine, may find a closed connection in place of the answer.
fn right(attack: &Attack, ended: &Ended) -> bool {
    match ended {
        Ended::Held => false,
        Ended::Told(status) => attack.told.contains(status),
        Ended::Closed => true,
    }
}

/// Very many connections, some of which were of use once; nothing is read from them until they are closed.
fn idle(node: &str) -> usize {
    let one = |number: usize| {
        let mut stream = connect(node).expect("the node accepts");
        if number.is_multiple_of(100) {
            let answer = over(&mut stream, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("an answer");
            assert_eq!(answer.status, 200);
        }
        stream
    };
    let mut held: Vec<TcpStream> = (0..so_many(IDLE)).map(one).collect();
    let until = Instant::now() + PATIENCE + SLACK;
    held.retain_mut(|stream| {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).expect("a timeout can be set");
        stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    });
    held.len()
}

/// A thousand requests in one go are answered in order.
fn pipelined(node: &str) {
    let mut stream = connect(node).expect("the node accepts");
    let one = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /key-value-store/good HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    std::thread::spawn({
        let mut stream = stream.try_clone().expect("a second handle");
        move || stream.write_all(format!("{}{last}", one.repeat(1_000)).as_bytes())
    });
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("all answers");
    assert_eq!(text.matches("HTTP/1.1 200").count(), 1_001);
    assert!(text.ends_with('}') && text.contains("\"value\""), "the last comes last");
}

fn silent_on_the_grpc_port<'s>(threads: &'s Scope<'s, '_>, node: &str) {
    let (host, port) = node.rsplit_once(':').expect("an address");
    let address = format!("{host}:{}", port.parse::<u16>().expect("a port") + 1000);
    threads.spawn(move || {
        let held: Vec<TcpStream> = (0..400).filter_map(|_| connect(&address).ok()).collect();
        sleep(PATIENCE + SLACK);
        held.len()
    });
}

#[test]
#[ignore = "half a minute of waits that are held against bounds in seconds; a stage of its own in .ci/run"]
fn bad_clients_all_at_once_disturb_nobody() {
    raise_file_limit();
    let patience = PATIENCE.as_millis().to_string();
    let cluster = Cluster::start_with(2, 1, &[("CLIENT_TIMEOUT_MS", &patience)]);
    let (node, pid) = (cluster.nodes[0].as_str(), cluster.pid(0));
    let large = json!("x".repeat(512 << 10));
    assert!(Client::new().put(node, "large", &large).expect("an answer").is_done());
    let (files, before) = (open_files(pid), memory(pid, "VmRSS"));
    let over_now = AtomicBool::new(false);
    let (longest, number) = scope(|threads| {
        let ends = Ends(&over_now);
        let good = threads.spawn(|| good(node, &over_now));
        let idle = threads.spawn(|| idle(node));
        silent_on_the_grpc_port(threads, node);
        let attacks: Vec<_> = ATTACKS.iter().map(|one| (one, threads.spawn(|| attack(node, one)))).collect();
        for _ in 0..10 {
            pipelined(node);
        }
        for (attack, ended) in attacks {
            let ended = ended.join().expect("it does not panic");
            let wrong: Vec<_> = ended.iter().filter(|ended| !right(attack, ended)).collect();
            let told = ended.iter().filter(|ended| matches!(ended, Ended::Told(_))).count();
            println!("{}: {} connections, {told} answered, {} wrong", attack.name, ended.len(), wrong.len());
            assert!(wrong.is_empty(), "{}: {wrong:?}", attack.name);
            assert!(told > 0 || attack.told.is_empty(), "{}: nobody was told what is wrong", attack.name);
        }
        assert_eq!(idle.join().expect("it does not panic"), 0, "idle connections were held");
        drop(ends);
        good.join().expect("the good client is served")
    });
    let peak = memory(pid, "VmHWM");
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "a good client: {number} times, {longest:?} at the longest; {} MiB before, {} at most",
        mib(before),
        mib(peak)
    );
    assert!(longest < MOST_WAIT, "a good client waited {longest:?}");
    assert!(peak < before + MOST_MEMORY[usize::from(!are_all())], "{} MiB, {} before", mib(peak), mib(before));
    crate::harness::wait_until("their connections are closed", SLACK, || open_files(pid) < files + 20);
    assert_eq!(Client::new().get(node, "x").expect("an answer").status, 404, "nothing was written by them");
}
