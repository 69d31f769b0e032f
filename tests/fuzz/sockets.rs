//! The bytes of whole connections, through the HTTP server: request lines, heads, lengths, chunks, pipelines.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use entail::api::rest::router;
use entail::server::http::{Limits, serve};
use entail::server::stop::stop_pair;

use crate::damage::damaged;
use crate::rest::{LIMITS, Node, check};
use crate::run::run;

/// What takes this long stands still: longer than the server waits for a body.
const PATIENCE: Duration = Duration::from_secs(10);

fn connections() -> Vec<Vec<u8>> {
    let put = |head: &str, body: &str| format!("PUT /key-value-store/key1 HTTP/1.1\r\nhost: x\r\n{head}\r\n{body}");
    let get = "GET /key-value-store/key1 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned();
    let body = r#"{"value":"text"}"#;
    let whole = put("content-length: 16\r\n", body);
    let chunked =
        put("transfer-encoding: chunked\r\n", "8\r\n{\"value\"\r\n8;ext=1\r\n:\"text\"}\r\n0\r\ntrailer: x\r\n\r\n");
    [
        whole.clone(),
        chunked.clone(),
        get.clone(),
        format!("{whole}{get}{chunked}{get}"),
        get.repeat(20),
        put("expect: 100-continue\r\ncontent-length: 16\r\n", body),
        put("content-length: 16\r\ncontent-length: 17\r\n", body),
        put("content-length: 16\r\ntransfer-encoding: chunked\r\n", body),
        put("content-length: 99999999999999999999\r\n", body),
        put("content-encoding: gzip\r\ncontent-length: 16\r\n", body),
        format!("GET /healthz HTTP/1.0\r\n\r\n{get}"),
        "GET http://x/healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(3000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "name: value\r\n".repeat(120)),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// The answers one after another: statuses and bodies.
fn answers(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&bytes[..end]).expect("heads are ASCII");
        bytes = &bytes[end + 4..];
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|s| s.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no status: {head}"));
        if status == 100 {
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let length: usize = length.parse().expect("a number");
        // A HEAD's answer has the length and no body; damage may make one.
        let body = bytes.get(..length).unwrap_or_default();
        bytes = bytes.get(length..).unwrap_or_default();
        all.push((status, body));
    }
    all
}

/// Panics of the server's threads: one that a connection's task meets would look like a connection that is let go.
fn count_panics(of: &'static str) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let (counted, told) = (Arc::clone(&count), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        counted.fetch_add(u64::from(std::thread::current().name() == Some(of)), Ordering::Relaxed);
        told(info);
    }));
    count
}

#[test]
fn sockets() {
    const SERVER: &str = "server";
    let panics = count_panics(SERVER);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).thread_name(SERVER).enable_all().build().expect("a runtime");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("it can be");
    let address = listener.local_addr().expect("an address");
    let (_trigger, stop) = stop_pair();
    let limits = Limits { connections: 8, patience: Duration::from_secs(5), drain: Duration::from_secs(1) };
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        serve(listener, router(Node::new(), LIMITS), stop, limits).await;
    });
    let seeds = connections();
    run("sockets", 4, &["done", "refused", "silent"], |cases| {
        let bytes = damaged(&mut cases.random, &seeds);
        let (text, reset) = {
            let mut stream = TcpStream::connect(address).expect("it accepts");
            stream.set_read_timeout(Some(PATIENCE)).expect("it can be");
            stream.set_write_timeout(Some(PATIENCE)).expect("it can be");
            // What is refused is not read to its end: the rest may meet a closed connection.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let mut text = Vec::new();
            let ended = stream.read_to_end(&mut text);
            let reset = ended.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock);
            assert!(ended.is_ok() || reset, "the connection does not end: {}", String::from_utf8_lossy(&bytes));
            (text, reset)
        };
        assert_eq!(panics.load(Ordering::Relaxed), 0, "the server panicked");
        if reset {
            return cases.count("reset");
        }
        let head = bytes.windows(4).any(|four| four == b"HEAD");
        let all = answers(&text);
        if all.is_empty() {
            cases.count("silent");
        }
        for (status, body) in all {
            cases.count(if status < 400 { "done" } else { "refused" });
            assert!(status < 500, "{status}: {}", String::from_utf8_lossy(body));
            if !head {
                check(status, body);
            }
        }
    });
}
