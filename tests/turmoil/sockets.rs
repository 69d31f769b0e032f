//! A node's connections: what is sent on those that it dialled is noted, and when its process dies they all end in the
//! order in which they began.
//!
//! Without that order a run would not be a function of its seed: tokio drops the tasks of a runtime in an order that
//! depends on their ids, which the whole process counts, and turmoil draws a latency for each connection's last word.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use entail::net::Listener;
use entail::wire::Dialler;
use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint, Error};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

use crate::trace::Trace;

/// The connections of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sockets {
    open: Arc<Mutex<Open>>,
    trace: Trace,
}

#[derive(Debug, Default)]
struct Open {
    /// By number, which is the order in which they began.
    streams: BTreeMap<u64, Arc<Mutex<Option<TcpStream>>>>,
    next: u64,
    dying: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sockets {
    pub fn new(trace: Trace) -> Self {
        Self { open: Arc::default(), trace }
    }

    /// The process is about to die: with the first of its connections all end.
    pub fn die(&self) {
        lock(&self.open).dying = true;
    }

    fn add(&self, stream: TcpStream, noted: bool) -> Socket {
        let stream = Arc::new(Mutex::new(Some(stream)));
        let mut open = lock(&self.open);
        open.next += 1;
        let number = open.next;
        open.streams.insert(number, Arc::clone(&stream));
        Socket { number, stream, noted, sockets: self.clone() }
    }

    /// A port whose connections are among these.
    pub fn bound(&self, listener: TcpListener) -> Bound {
        Bound { listener, sockets: self.clone() }
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Socket>> {
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or_default());
        let stream = TcpStream::connect((host, port)).await?;
        Ok(TokioIo::new(self.add(stream, true)))
    }
}

impl Dialler for Sockets {
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<'static, Result<Channel, Error>> {
        let sockets = self.clone();
        Box::pin(
            async move { endpoint.connect_with_connector(service_fn(move |uri| sockets.clone().connect(uri))).await },
        )
    }

    fn dial_lazily(&self, endpoint: Endpoint) -> Channel {
        let sockets = self.clone();
        endpoint.connect_with_connector_lazy(service_fn(move |uri| sockets.clone().connect(uri)))
    }
}

/// A bound port of a host.
pub struct Bound {
    listener: TcpListener,
    sockets: Sockets,
}

impl Listener for Bound {
    type Connection = Socket;

    async fn accept(&self) -> io::Result<Socket> {
        let (stream, _) = self.listener.accept().await?;
        Ok(self.sockets.add(stream, false))
    }
}

/// One connection.
pub struct Socket {
    number: u64,
    stream: Arc<Mutex<Option<TcpStream>>>,
    /// What is sent is taken note of.
    noted: bool,
    sockets: Sockets,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut open = lock(&self.sockets.open);
        let ends = match open.dying {
            true => std::mem::take(&mut open.streams),
            false => open.streams.remove_entry(&self.number).into_iter().collect(),
        };
        drop(open);
        ends.values().for_each(|stream| drop(lock(stream).take()));
    }
}

impl Socket {
    fn poll<R>(&self, act: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match &mut *lock(&self.stream) {
            Some(stream) => act(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.poll(|stream| stream.poll_write(cx, bytes));
        if let Poll::Ready(Ok(count)) = written
            && self.noted
        {
            self.sockets.trace.sent(&bytes[..count]);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}
