//! Connections to the gRPC port: bounded in number, and let go when they do not speak.
//!
//! hyper pings every connection that has begun to speak HTTP/2, and ends those that do not answer; for one that never
//! begins it would wait for ever. Both bounds keep strangers from using up the process's files: clients' connections
//! come out of the same number.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

use crate::net::Listener;

/// Connections at once: two of each other node, and a few tools. More wait in the kernel's queue.
pub(super) const MOST_CONNECTIONS: usize = 256;

/// How long a connection may take to begin.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What begins a connection: the preface of HTTP/2.
const PREFACE_BYTES: usize = 24;

/// The pause after the system refused to accept, as with no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections to this listener, at most so many at once.
pub(super) fn incoming<L: Listener>(listener: L, most: usize) -> impl Stream<Item = io::Result<Begun<L::Connection>>> {
    let permits = Arc::new(Semaphore::new(most));
    stream::unfold((listener, permits), |(listener, permits)| async {
        let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
        let stream = loop {
            match listener.accept().await {
                Ok(stream) => break stream,
                Err(error) => {
                    tracing::debug!(%error, "no connection of a node could be accepted; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        let begins = Some((PREFACE_BYTES, Box::pin(sleep(BEGIN_TIMEOUT))));
        Some((Ok(Begun { stream, begins, _permit: permit }), (listener, permits)))
    })
}

/// A connection that has begun to speak, or is about to.
#[derive(Debug)]
pub(super) struct Begun<T> {
    stream: T,
    /// The bytes that are still to come before it has begun, and until when.
    begins: Option<(usize, Pin<Box<Sleep>>)>,
    _permit: OwnedSemaphorePermit,
}

/// No service asks who is at the other end: a Hello says so.
impl<T> Connected for Begun<T> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<T: AsyncRead + Unpin> AsyncRead for Begun<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some((left, end)) = &mut this.begins else { return read };
        if read.is_pending() {
            ready!(end.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        *left = left.saturating_sub(buf.filled().len() - before);
        if *left == 0 {
            this.begins = None;
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Begun<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Instant;

    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn who_does_not_begin_is_let_go_and_no_more_come_than_there_is_room_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = pin!(incoming(listener, 2));
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        let mut first = incoming.next().await.unwrap().unwrap();
        let mut whole = TcpStream::connect(address).await.unwrap();
        whole.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut second = incoming.next().await.unwrap().unwrap();
        let _third = TcpStream::connect(address).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(200), incoming.next()).await;
        assert!(waits.is_err(), "one more than there is room for");

        let begin = Instant::now();
        let mut bytes = Vec::new();
        let error = first.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!((error.kind(), bytes.len()), (io::ErrorKind::TimedOut, 16));
        assert!(begin.elapsed() < 2 * BEGIN_TIMEOUT, "{:?}", begin.elapsed());
        let silent = tokio::time::timeout(BEGIN_TIMEOUT + Duration::from_secs(1), second.read_to_end(&mut bytes)).await;
        assert!(silent.is_err(), "it has begun, and may be silent");
        drop(first);
        assert!(incoming.next().await.unwrap().is_ok());
    }
}
