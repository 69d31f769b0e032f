//! Frames in flight, against a peer that does with them what the test wants.

use std::pin::Pin;
use std::time::Duration;

use entail::causal::context::Context;
use entail::machine::message::{Input, Message, Request};
use entail::types::{ClusterId, Key, NodeAddr, PartitionId};
use entail::wire::Local;
use entail::wire::proto::replica_server::{Replica, ReplicaServer};
use entail::wire::proto::{Frame, FrameAck, frame_ack};
use futures_util::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Response, Status, Streaming, async_trait};

use crate::fake::{End, within};
use crate::{disconnected, pull};

/// Reads frames and acknowledges nothing by itself.
struct Mute {
    local: Local,
    streams: UnboundedSender<Opened>,
}

/// A stream's frames, and where its acknowledgements go.
type Opened = (Streaming<Frame>, UnboundedSender<Result<FrameAck, Status>>);

/// The test's hold on the stream of a [`Mute`] peer.
struct Held {
    address: NodeAddr,
    frames: Streaming<Frame>,
    acks: UnboundedSender<Result<FrameAck, Status>>,
    later: UnboundedReceiver<Opened>,
}

#[async_trait]
impl Replica for Mute {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<FrameAck, Status>> + Send>>;

    async fn exchange(
        &self,
        request: tonic::Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut frames = request.into_inner();
        let hello = frames.message().await?.and_then(|frame| frame.hello).unwrap();
        let greeting = self.local.hello(&hello.address.parse().unwrap());
        let (acks, stream) = mpsc::unbounded_channel();
        acks.send(Ok(FrameAck { kind: Some(frame_ack::Kind::Hello(greeting)) })).unwrap();
        self.streams.send((frames, acks)).unwrap();
        Ok(Response::new(UnboundedReceiverStream::new(stream).boxed()))
    }
}

/// A mute peer, and the stream that `node1` has to it.
async fn held(node1: &mut End) -> (entail::wire::Peers, Held) {
    let node2 = End::new(5, 1);
    let local = Local::new(node2.address(), node2.local.incarnation, ClusterId(5), 77, 0);
    let (streams, mut opened) = mpsc::unbounded_channel();
    let listener = TcpListener::bind(node2.address().as_str()).await.unwrap();
    let server = tonic::transport::Server::builder().add_service(ReplicaServer::new(Mute { local, streams }));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let peers = node1.peers([node2.address()]);
    node1.connected(&node2.address()).await;
    let (frames, acks) = within(opened.recv()).await.unwrap();
    (peers, Held { address: node2.address(), frames, acks, later: opened })
}

impl Held {
    async fn frame(&mut self) -> Frame {
        within(self.frames.message()).await.unwrap().unwrap()
    }

    fn acknowledge(&self, number: u64) {
        self.acks.send(Ok(FrameAck { kind: Some(frame_ack::Kind::Number(number)) })).unwrap();
    }
}

fn forward(id: u64) -> Message {
    // As large as a batch may be: each makes a frame of its own.
    let value = bytes::Bytes::from(vec![b'1'; 256 << 10]);
    let request = Request::Put { key: Key::new("k").unwrap(), value, context: Context::empty() };
    Message::Forward { id, remaining_ms: 1000, request }
}

#[tokio::test]
async fn what_waits_together_travels_together() {
    let mut node1 = End::new(5, 100);
    let (peers, mut node2) = held(&mut node1).await;
    // The test's runtime has one thread: all of these wait before the first is taken.
    for number in 0..1000 {
        peers.send(&node2.address, pull(number)).unwrap();
    }
    let frame = node2.frame().await;
    assert_eq!((frame.number, frame.messages.len()), (1, 1000));
}

#[tokio::test]
async fn sending_goes_on_up_to_the_window_and_again_after_acknowledgements() {
    let mut node1 = End::new(5, 100);
    let (peers, mut node2) = held(&mut node1).await;
    for id in 0..60 {
        peers.send(&node2.address, forward(id)).unwrap();
    }
    // 8 MiB in flight are 32 of these; the last may pass the bound.
    let in_flight = 32;
    for number in 1..=in_flight {
        assert_eq!(node2.frame().await.number, number);
    }
    let more = timeout(Duration::from_millis(300), node2.frames.message()).await;
    assert!(more.is_err(), "the window is full: {more:?}");
    node2.acknowledge(in_flight);
    for number in in_flight + 1..=60 {
        assert_eq!(node2.frame().await.number, number);
    }
}

#[tokio::test]
async fn a_full_window_does_not_outlive_its_peer() {
    let mut node1 = End::new(5, 100);
    let (peers, mut node2) = held(&mut node1).await;
    for id in 0..40 {
        peers.send(&node2.address, forward(id)).unwrap();
    }
    for _ in 0..32 {
        node2.frame().await;
    }
    // The acknowledgements end while the window is full. Eight forwards were not sent, and only these are named.
    drop(node2.acks);
    for unsent in 32..40 {
        match node1.next().await {
            Input::NotSent { id } => assert_eq!(id, unsent),
            other => panic!("{other:?}"),
        }
    }
    assert!(!disconnected(node1.next().await, &node2.address));
    // The peer itself is well: it is dialled again.
    node1.connected(&node2.address).await;
    peers.send(&node2.address, pull(1)).unwrap();
    (node2.frames, node2.acks) = within(node2.later.recv()).await.unwrap();
    assert_eq!(node2.frame().await.number, 1);
}

#[tokio::test]
async fn an_acknowledgement_of_nothing_ends_the_stream() {
    let mut node1 = End::new(5, 100);
    let (_peers, node2) = held(&mut node1).await;
    node2.acknowledge(1);
    assert!(!disconnected(node1.next().await, &node2.address));
}

#[tokio::test]
async fn a_slow_receiver_pushes_back_and_still_answers_pings() {
    let mut node1 = End::new(5, 10_000);
    let mut node2 = End::serving(5, 1).await;
    let peers = node1.peers([node2.address()]);
    node1.connected(&node2.address()).await;
    let chunk = |index| {
        let Message::Forward { request: Request::Put { key, value, context }, .. } = forward(0) else { unreachable!() };
        let item = entail::causal::item::Item {
            value: Some(value),
            dot: entail::types::Dot { stay: entail::types::StayId(1), seq: 1 },
            timestamp: entail::types::Timestamp(1),
            carried: context,
        };
        Message::FillChunk(entail::machine::message::FillChunk {
            partition: PartitionId(0),
            version: entail::types::Epoch(1),
            attempt: 1,
            index,
            items: vec![(key, item)],
            end: None,
        })
    };
    // Nobody reads node2's inbox: window and lane fill up, then messages are given back.
    let mut sent = 0;
    let full = async {
        loop {
            match peers.send(&node2.address(), chunk(sent)) {
                Ok(()) => sent += 1,
                Err(_) => return,
            }
            tokio::task::yield_now().await;
        }
    };
    within(full).await;
    peers.send(&node2.address(), Message::Ping(node1.sign.clone().into())).unwrap();
    assert!(matches!(node1.next().await, Input::Message { message: Message::Pong(_), .. }));

    for expected in 0..sent {
        match node2.next().await {
            Input::Message { message: Message::FillChunk(chunk), .. } => assert_eq!(chunk.index, expected),
            other => panic!("{other:?}"),
        }
    }
    peers.send(&node2.address(), chunk(sent)).unwrap();
}
