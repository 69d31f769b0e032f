//! The answering end of a stream between nodes: greet, then take frame after frame.
//!
//! A frame is acknowledged when the node's loop has taken all its messages, so a full inbox holds back exactly the
//! nodes that fill it. The acknowledgement stream does the reading itself, without a task: when the connection ends it
//! is dropped, and nothing of it goes on.
//!
//! A node has one stream to this one: a new one ends the old, whose last words, still in some buffer, would otherwise
//! come after newer ones.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Node, turned_away};
use crate::machine::message::Input;
use crate::types::NodeAddr;
use crate::wire::convert::{Reader, WireError};
use crate::wire::proto::replica_server::Replica;
use crate::wire::proto::{Frame, FrameAck, Message, frame_ack};
use crate::wire::{Local, Refusal, Remote, stopped};

/// How long the dialling node may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// The service.
#[derive(Debug)]
pub struct Exchange<N> {
    node: N,
    local: Arc<Local>,
    streams: Arc<Streams>,
    stop: watch::Receiver<bool>,
}

impl<N> Exchange<N> {
    /// The service of this node; its streams end with `stop`.
    pub fn new(node: N, local: Arc<Local>, stop: watch::Receiver<bool>) -> Self {
        Self { node, local, streams: Arc::default(), stop }
    }
}

#[async_trait]
impl<N: Node> Replica for Exchange<N> {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<FrameAck, Status>> + Send>>;

    async fn exchange(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut frames = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, frames.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the first frame did not come"))??;
        let hello = first.and_then(|frame| frame.hello).ok_or(Refusal::Malformed(WireError::Missing("hello")))?;
        let remote = match self.local.accept(&hello) {
            Ok(remote) => remote,
            Err(refusal) => {
                tracing::warn!(peer = hello.address, "refused a node: {refusal}");
                return Err(turned_away(&self.node, &hello, refusal).await);
            }
        };
        let greeting = FrameAck { kind: Some(frame_ack::Kind::Hello(self.local.hello(&remote.address))) };
        // The old stream has lost its place, so nothing of it comes after this.
        let place = Streams::enter(&self.streams, remote.address.clone());
        if !self.node.deliver(Input::Accepted { peer: remote.address.clone() }).await {
            return Err(Status::unavailable("this node is stopping"));
        }
        let inbound = Inbound {
            place,
            node: self.node.clone(),
            local: Arc::clone(&self.local),
            stop: self.stop.clone(),
            remote,
            frames,
            taken: 0,
        };
        let acks = stream::unfold(Some(inbound), |inbound| async { inbound?.next().await });
        Ok(Response::new(Box::pin(stream::iter([Ok(greeting)]).chain(acks))))
    }
}

/// One stream from a node.
struct Inbound<N> {
    node: N,
    local: Arc<Local>,
    remote: Remote,
    frames: Streaming<Frame>,
    taken: u64,
    place: Place,
    stop: watch::Receiver<bool>,
}

impl<N: Node> Inbound<N> {
    /// The next acknowledgement; after an error there is none.
    async fn next(mut self) -> Option<(Result<FrameAck, Status>, Option<Self>)> {
        let mut stop = self.stop.clone();
        let taken = tokio::select! {
            biased;
            () = stopped(&mut stop) => Err(Status::unavailable("this node is stopping")),
            taken = self.take() => taken,
        };
        match taken {
            Ok(true) => {
                let ack = FrameAck { kind: Some(frame_ack::Kind::Number(self.taken)) };
                Some((Ok(ack), Some(self)))
            }
            Ok(false) => None,
            Err(status) => {
                tracing::debug!(peer = %self.remote.address, "ended a stream: {}", status.message());
                Some((Err(status), None))
            }
        }
    }

    /// Takes one frame; false at the end of the stream.
    async fn take(&mut self) -> Result<bool, Status> {
        let Some(frame) = self.frames.message().await? else { return Ok(false) };
        if frame.number != self.taken + 1 {
            return Err(Status::invalid_argument("a frame is missing, or came twice"));
        }
        self.local.accept_maps(&frame.cluster_id, &frame.line, frame.epoch)?;
        let reader = Reader { partitions: self.node.map().partitions() };
        for message in frame.messages {
            self.deliver(reader, message).await?;
        }
        self.taken = frame.number;
        Ok(true)
    }

    async fn deliver(&self, reader: Reader, message: Message) -> Result<(), Status> {
        let message = match reader.message(message) {
            Ok(message) => message,
            // A node that does not know its store's map yet can't tell: it learns by the messages that follow.
            Err(error @ WireError::NoSuchPartition(_)) => {
                tracing::warn!(peer = %self.remote.address, "dropped a message: {error}");
                return Ok(());
            }
            Err(error) => {
                tracing::error!(peer = %self.remote.address, "malformed message: {error}");
                return Err(Status::invalid_argument(error.to_string()));
            }
        };
        if self.place.is_lost() {
            return Err(Status::aborted("this node has a newer stream from there"));
        }
        let (from, incarnation) = (self.remote.address.clone(), self.remote.incarnation);
        if self.node.deliver(Input::Message { from, incarnation, message }).await {
            Ok(())
        } else {
            Err(Status::unavailable("this node is stopping"))
        }
    }
}

/// The present stream of each node.
#[derive(Debug, Default)]
struct Streams(Mutex<BTreeMap<NodeAddr, Arc<AtomicBool>>>);

/// A stream's place among these; given up when dropped.
#[derive(Debug)]
struct Place {
    streams: Arc<Streams>,
    from: NodeAddr,
    lost: Arc<AtomicBool>,
}

impl Streams {
    /// Takes the place of the stream from this node, from the one that has it.
    fn enter(streams: &Arc<Self>, from: NodeAddr) -> Place {
        let lost = Arc::new(AtomicBool::new(false));
        if let Some(old) = streams.lock().insert(from.clone(), Arc::clone(&lost)) {
            old.store(true, Ordering::Release);
        }
        Place { streams: Arc::clone(streams), from, lost }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeAddr, Arc<AtomicBool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.streams.lock();
        if streams.get(&self.from).is_some_and(|present| Arc::ptr_eq(present, &self.lost)) {
            streams.remove(&self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_stream_takes_the_place_of_the_old() {
        let (streams, node2) = (Arc::default(), "node2:80".parse::<NodeAddr>().unwrap());
        let old = Streams::enter(&streams, node2.clone());
        assert!(!old.is_lost());
        let new = Streams::enter(&streams, node2.clone());
        assert!(old.is_lost() && !new.is_lost());
        drop(old);
        assert!(streams.lock().contains_key(&node2) && !new.is_lost());
        drop(new);
        assert!(streams.lock().is_empty());
    }
}
