//! Serves a router on a listener: connections bounded in number, heads bounded in time, the end bounded in time.
//!
//! axum's own server sets no header-read timeout and waits for ever for silent clients at a graceful shutdown, so
//! connections are served here, on hyper. What a connection may cost:
//! - a head must be complete [`Limits::patience`] after the connection began to wait for it, which also ends idle ones,
//!   and has `MOST_HEAD_BYTES`;
//! - what is written to it must get on within the same time;
//! - one that was refused because the node has too much to do ([`Busy`]) was told to ask again after a second; its next
//!   request is read, and waits for the rest of `HOLD`, so that who asks again at once costs the others little;
//! - at [`Limits::connections`] the next ones wait in the kernel's queue until one ends;
//! - at the stop, a connection without a request gets `FLUSH_GRACE` to take what was written to it, one with a
//!   request is told that it is the last, and all that is left after [`Limits::drain`] is dropped.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt;

use super::patient::Patient;
use super::refused::Spoken;
use super::stop::Stop;
use crate::api::rest::Busy;

/// What is kept of what a connection has sent and nobody has read: room for the longest path and the longest context
/// in a header. Many connections that send half a head hold this much each.
const MOST_HEAD_BYTES: usize = 160 << 10;

/// How long a connection without a request may take, at the stop, to be done with its last response.
const FLUSH_GRACE: Duration = Duration::from_millis(250);

/// The pause after the system refused to accept, as with no file descriptor left; connections end meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long after a refusal for want of room a connection's next request begins: the second of its `Retry-After`.
const HOLD: Duration = Duration::from_secs(1);

/// What the connections together may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many at once.
    pub connections: usize,
    /// How long a client may take over a request's head, over the next request, and to take a piece of an answer.
    pub patience: Duration,
    /// How long their last requests may take at the stop.
    pub drain: Duration,
}

/// Serves until the stop, then drains; returns when no connection is left.
pub async fn serve(listener: TcpListener, router: Router, mut stop: Stop, limits: Limits) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept(&listener, &permits) => match accepted {
                Ok((stream, permit)) => {
                    let stream = Patient::new(stream, limits.patience);
                    connections.spawn(connection(stream, permit, router.clone(), stop.clone()));
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!(connections = connections.len(), "dropping connections that did not end in time");
    }
}

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// True for errors of a connection that was gone before it was accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn connection(stream: Patient<TcpStream>, permit: OwnedSemaphorePermit, router: Router, mut stop: Stop) {
    // Fails only on a socket that is already dead, which the first read will tell.
    let _ = stream.get_ref().set_nodelay(true);
    let patience = stream.patience();
    let course = Arc::new(Course::default());
    let service = {
        let course = Arc::clone(&course);
        service_fn(move |request: hyper::Request<Incoming>| {
            let (router, course) = (router.clone(), Arc::clone(&course));
            async move { Ok::<_, Infallible>(course.answer(router, request).await) }
        })
    };
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(MOST_HEAD_BYTES)
            .serve_connection(TokioIo::new(Spoken::new(stream)), service)
    );
    // Errors from here on are a client that went away or spoke no HTTP; what can be answered is.
    tokio::select! {
        _ = serving.as_mut() => {}
        () = stop.requested() => {
            serving.as_mut().graceful_shutdown();
            if course.busy.load(Ordering::Relaxed) {
                let _ = serving.await;
            } else {
                let _ = tokio::time::timeout(FLUSH_GRACE, serving).await;
            }
        }
    }
    drop(permit);
}

/// A connection's requests, one after the other.
#[derive(Debug, Default)]
struct Course {
    /// One is under way.
    busy: AtomicBool,
    /// The next one does not begin before.
    held: Mutex<Option<Instant>>,
}

impl Course {
    async fn answer(&self, router: Router, request: hyper::Request<Incoming>) -> Response<Body> {
        self.busy.store(true, Ordering::Relaxed);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(until) = held {
            sleep_until(until).await;
        }
        let Ok(response) = router.oneshot(request.map(Body::new)).await;
        if response.extensions().get::<Busy>().is_some() {
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + HOLD);
        }
        self.busy.store(false, Ordering::Relaxed);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::super::stop::{StopTrigger, stop_pair};
    use super::*;

    const LIMITS: Limits = Limits { connections: 4, patience: Duration::from_secs(30), drain: Duration::from_secs(2) };

    /// `/` answers at once, `/full` likewise, as a node with too much to do, `/slow` after half a second, `/never` never, `/long` with more than any socket takes.
    async fn started() -> (SocketAddr, StopTrigger, JoinHandle<()>) {
        started_with(LIMITS).await
    }

    async fn started_with(limits: Limits) -> (SocketAddr, StopTrigger, JoinHandle<()>) {
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route(
                "/full",
                get(async || {
                    let mut response = Response::new(Body::empty());
                    response.extensions_mut().insert(Busy);
                    response
                }),
            )
            .route("/never", get(std::future::pending::<()>))
            .route("/long", get(|| async { vec![b'x'; 64 << 20] }))
            .route(
                "/slow",
                get(|| async {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    "late"
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, stop) = stop_pair();
        (address, trigger, tokio::spawn(serve(listener, router, stop, limits)))
    }

    async fn asked(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: node1\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }

    async fn first_bytes(stream: &mut TcpStream) -> String {
        let mut bytes = vec![0; 1024];
        let n = stream.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    #[tokio::test]
    async fn what_is_no_http_or_too_long_is_refused_with_a_json_body() {
        let (address, _trigger, _served) = started().await;
        let long = "x".repeat(70_000);
        for (request, status, error) in [
            ("nonsense\r\n\r\n".to_owned(), "400", "The request is not valid HTTP/1.1"),
            ("GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), "400", "The request is not valid HTTP/1.1"),
            (format!("GET /{long} HTTP/1.1\r\nhost: node1\r\n\r\n"), "414", "The path is too long"),
            (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)), "431", "The headers are too long"),
            // After a request that is answered.
            ("GET / HTTP/1.1\r\nhost: node1\r\n\r\nnonsense\r\n\r\n".to_owned(), "400", "The request is not valid"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // What is refused is not read to its end, which a client may be told by a reset.
            let _ = stream.read_to_string(&mut answer).await;
            let refusal = answer.rfind("HTTP/1.1 ").map(|at| &answer[at..]).unwrap_or_default();
            assert!(refusal.starts_with(&format!("HTTP/1.1 {status}")), "{refusal}");
            let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{refusal}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(body["error"].as_str().unwrap().starts_with(error), "{body}");
            assert_eq!(body["message"], "Error in request");
        }
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_at_the_stop() {
        let (address, trigger, served) = started().await;
        let mut slow = asked(address, "/slow").await;
        // Answered, so the slow one was accepted before it.
        assert!(first_bytes(&mut asked(address, "/").await).await.ends_with("here"));
        trigger.stop();
        assert!(first_bytes(&mut slow).await.ends_with("late"));
        served.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn idle_silent_and_half_sent_clients_do_not_hold_up_the_stop() {
        let (address, trigger, served) = started().await;
        let mut idle = asked(address, "/").await;
        assert!(first_bytes(&mut idle).await.ends_with("here"));
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nhos").await.unwrap();
        assert!(first_bytes(&mut asked(address, "/").await).await.ends_with("here"));
        let at = Instant::now();
        trigger.stop();
        served.await.unwrap();
        assert!(at.elapsed() < LIMITS.drain, "took {:?}", at.elapsed());
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_dropped_when_the_time_is_over() {
        let (address, trigger, served) = started().await;
        let _never = asked(address, "/never").await;
        assert!(first_bytes(&mut asked(address, "/").await).await.ends_with("here"));
        let at = Instant::now();
        trigger.stop();
        served.await.unwrap();
        assert!(at.elapsed() >= LIMITS.drain && at.elapsed() < LIMITS.drain * 2, "took {:?}", at.elapsed());
    }

    #[tokio::test]
    async fn who_keeps_the_server_waiting_is_let_go() {
        let patience = Duration::from_secs(2);
        let (address, _trigger, _served) = started_with(Limits { patience, ..LIMITS }).await;
        let ended = |mut stream: TcpStream| async move {
            let mut rest = Vec::new();
            // What was not read on either side makes a reset of the end.
            let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("an end");
            rest.len()
        };
        let idle = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nhos").await.unwrap();
        let unread = asked(address, "/long").await;
        // As long as it is read, however slowly, an answer goes on.
        let mut slow = asked(address, "/long").await;
        let mut taken = 0;
        for _ in 0..20 {
            tokio::time::sleep(patience / 10).await;
            let mut some = vec![0; 1 << 20];
            taken += slow.read(&mut some).await.unwrap();
        }
        assert!(ended(unread).await < 32 << 20, "all of it was sent to nobody");
        assert_eq!((ended(idle).await, ended(half).await), (0, 0));
        assert!(taken + ended(slow).await > 64 << 20);
    }

    #[tokio::test]
    async fn who_was_refused_for_want_of_room_waits_on_that_connection() {
        let (address, _trigger, _served) = started().await;
        let mut stream = asked(address, "/full").await;
        assert!(first_bytes(&mut stream).await.starts_with("HTTP/1.1 200"));
        let at = Instant::now();
        for waits in [true, false] {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: node1\r\n\r\n").await.unwrap();
            assert!(first_bytes(&mut stream).await.ends_with("here"));
            assert!(at.elapsed() >= HOLD - Duration::from_millis(50) && at.elapsed() < 2 * HOLD, "{waits}");
            // Others do not.
            assert!(first_bytes(&mut asked(address, "/").await).await.ends_with("here"));
        }
    }

    #[tokio::test]
    async fn above_the_limit_connections_wait_for_one_to_end() {
        let (address, _trigger, _served) = started().await;
        let mut idle = Vec::new();
        for _ in 0..LIMITS.connections {
            let mut stream = asked(address, "/").await;
            assert!(first_bytes(&mut stream).await.ends_with("here"));
            idle.push(stream);
        }
        let mut next = asked(address, "/").await;
        let waits = tokio::time::timeout(Duration::from_millis(200), first_bytes(&mut next)).await;
        assert!(waits.is_err(), "answered above the limit");
        idle.pop();
        assert!(first_bytes(&mut next).await.ends_with("here"));
    }
}
