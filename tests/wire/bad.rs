//! Nodes that must not be spoken with, and frames that must not be taken.

use std::time::Duration;

use entail::cluster::line::{Fork, Line, Standing};
use entail::machine::message::{Input, Message, Request};
use entail::types::{BranchId, ClusterId, Epoch, Incarnation, Key, NodeAddr};
use entail::wire::proto::cluster_client::ClusterClient;
use entail::wire::proto::replica_client::ReplicaClient;
use entail::wire::proto::{self, Frame, FrameAck, PingRequest, frame_ack};
use entail::wire::{Local, Refusal};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::fake::{End, within};
use crate::{disconnected, pull, pulled};

/// A stranger, or a peer with bad manners.
fn local(cluster: u128) -> Local {
    Local::new("node9:80".parse().unwrap(), Incarnation(9), ClusterId(cluster), 77, 0)
}

/// Opens a stream by hand. The sender is to be kept: the stream ends with it.
async fn open(to: &End, hello: proto::Hello) -> Result<(mpsc::Sender<Frame>, Streaming<FrameAck>), Status> {
    let (frames, stream) = mpsc::channel(10);
    frames.send(Frame { hello: Some(hello), ..Frame::default() }).await.unwrap();
    let mut client = ReplicaClient::connect(to.uri()).await.unwrap();
    let acks = within(client.exchange(ReceiverStream::new(stream))).await?.into_inner();
    Ok((frames, acks))
}

fn frame(number: u64, cluster: u128, messages: Vec<proto::Message>) -> Frame {
    Frame { number, cluster_id: cluster.to_be_bytes().to_vec().into(), messages, ..Frame::default() }
}

fn map_pull() -> proto::Message {
    proto::Message { kind: Some(proto::message::Kind::MapPull(proto::MapPull { have: 1, hash: 0 })) }
}

/// The status that a stream ends with.
async fn end(acks: &mut Streaming<FrameAck>) -> Status {
    loop {
        match within(acks.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a reason"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn another_store_is_refused_by_name() {
    let node1 = End::serving(5, 10).await;
    let stranger = local(6);
    let hello = stranger.hello(&node1.address());

    let refused = open(&node1, hello.clone()).await.unwrap_err();
    let request = PingRequest { hello: Some(hello), sign: None };
    let unanswered = ClusterClient::connect(node1.uri()).await.unwrap().ping(request).await.unwrap_err();
    for status in [refused, unanswered] {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(Refusal::reason_of(&status), Some("other-cluster"));
        for id in [ClusterId(5), ClusterId(6)] {
            assert!(status.message().contains(&id.to_string()), "{status}");
        }
    }
}

#[tokio::test]
async fn another_branch_is_refused_by_name_and_told_of() {
    let mut node1 = End::serving(5, 10).await;
    let standing = |branch| {
        let fork = Fork { branch: BranchId(branch), after: Epoch(3), first: Epoch(100) };
        Standing { line: Line::default().then(fork), epoch: Epoch(100) }
    };
    node1.local.set_map(ClusterId(5), standing(7));
    let peer = local(5);
    peer.set_map(ClusterId(5), standing(7));
    let (frames, mut acks) = open(&node1, peer.hello(&node1.address())).await.unwrap();

    peer.set_map(ClusterId(5), standing(8));
    let hello = peer.hello(&node1.address());
    let refused = open(&node1, hello.clone()).await.unwrap_err();
    let request = PingRequest { hello: Some(hello.clone()), sign: None };
    let unanswered = ClusterClient::connect(node1.uri()).await.unwrap().ping(request).await.unwrap_err();
    // So is a frame of one that has gone over to another branch since its Hello.
    let gone_over = Frame { line: hello.line, epoch: hello.epoch, ..frame(1, 5, vec![map_pull()]) };
    frames.send(gone_over).await.unwrap();
    for status in [refused, unanswered, end(&mut acks).await] {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(Refusal::reason_of(&status), Some("other-branch"));
        assert!(status.message().contains("branch 7 of the store, not to 8"), "{status}");
    }
    for _ in 0..2 {
        let Input::OtherBranch { peer, standing: told } = node1.next().await else { panic!("it is told of") };
        assert_eq!((peer.as_str(), told), ("node9:80", standing(8)));
    }
    assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn a_hello_for_another_address_is_refused() {
    let node1 = End::serving(5, 10).await;
    let elsewhere: NodeAddr = "node7:80".parse().unwrap();
    let status = open(&node1, local(5).hello(&elsewhere)).await.unwrap_err();
    assert_eq!((status.code(), Refusal::reason_of(&status)), (Code::FailedPrecondition, Some("other-address")));
    assert!(status.message().contains("node7:80") && status.message().contains(node1.address().as_str()), "{status}");
}

#[tokio::test]
async fn a_stream_without_a_hello_is_refused() {
    let node1 = End::serving(5, 10).await;
    let (frames, stream) = mpsc::channel(10);
    frames.send(frame(0, 5, vec![map_pull()])).await.unwrap();
    let mut client = ReplicaClient::connect(node1.uri()).await.unwrap();
    let status = within(client.exchange(ReceiverStream::new(stream))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    // One that says nothing at all is not waited for for ever.
    let (_kept, silent) = mpsc::channel(1);
    let status = within(client.exchange(ReceiverStream::new(silent))).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_outgoing_side_reports_another_store_as_down() {
    let mut node1 = End::new(5, 10);
    let mut node2 = End::serving(6, 10).await;
    let peers = node1.peers([node2.address()]);
    assert!(!disconnected(node1.next().await, &node2.address()), "a process listens there");
    let Input::TurnedAway { peer, why } = node1.next().await else { panic!("it is told why") };
    assert_eq!(peer, node2.address());
    assert!(why.starts_with("it says 'this node belongs to the store "), "{why}");
    peers.send(&node2.address(), Message::Ping(node1.sign.clone().into())).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(node2.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn a_node_born_into_another_store_is_not_heard_any_more() {
    let mut node1 = End::new(0, 10);
    let mut node2 = End::serving(5, 10).await;
    let peers = node1.peers([node2.address()]);
    node1.connected(&node2.address()).await;
    peers.send(&node2.address(), pull(1)).unwrap();
    assert_eq!(pulled(node2.next().await, &node1), 1);

    node1.local.set_map(ClusterId(6), Default::default());
    peers.send(&node2.address(), pull(2)).unwrap();
    assert!(!disconnected(node1.next().await, &node2.address()));
    assert_eq!(node2.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn an_oversized_frame_is_refused_with_its_size() {
    let node1 = End::serving(5, 10).await;
    let (frames, mut acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
    let refused = proto::ForwardRefused { id: 1, better: Some("x".repeat(9 << 20)) };
    let kind = Some(proto::message::Kind::ForwardRefused(refused));
    frames.send(frame(1, 5, vec![proto::Message { kind }])).await.unwrap();
    let status = end(&mut acks).await;
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("too large") && status.message().contains("8388608"), "{status}");
}

#[tokio::test]
async fn an_oversized_message_is_given_back_and_the_stream_stands() {
    let mut node1 = End::new(5, 10);
    let mut node2 = End::serving(5, 10).await;
    let peers = node1.peers([node2.address()]);
    node1.connected(&node2.address()).await;
    let value = bytes::Bytes::from(vec![b'1'; 8 << 20]);
    let request = Request::Put { key: Key::new("k").unwrap(), value, context: Default::default() };
    let message = Message::Forward { id: 1, remaining_ms: 1, request };
    assert_eq!(peers.send(&node2.address(), message.clone()), Err(message));
    peers.send(&node2.address(), pull(1)).unwrap();
    assert_eq!(pulled(node2.next().await, &node1), 1);
}

#[tokio::test]
async fn malformed_messages_end_the_stream_and_unknown_partitions_do_not() {
    let mut node1 = End::serving(5, 10).await;
    let (frames, mut acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
    let unknown = proto::FillNext { partition: 4, ..Default::default() };
    let unknown = proto::Message { kind: Some(proto::message::Kind::FillNext(unknown)) };
    frames.send(frame(1, 5, vec![unknown, map_pull()])).await.unwrap();
    assert!(matches!(node1.next().await, Input::Message { message: Message::MapPull { .. }, .. }));
    assert!(matches!(within(acks.message()).await.unwrap().unwrap().kind, Some(frame_ack::Kind::Hello(_))));
    assert_eq!(within(acks.message()).await.unwrap().unwrap().kind, Some(frame_ack::Kind::Number(1)));

    frames.send(frame(2, 5, vec![proto::Message { kind: None }])).await.unwrap();
    let status = end(&mut acks).await;
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "message.kind is missing"));
}

#[tokio::test]
async fn a_frame_that_is_missing_ends_the_stream() {
    let mut node1 = End::serving(5, 10).await;
    let (frames, mut acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
    frames.send(frame(2, 5, vec![map_pull()])).await.unwrap();
    assert_eq!(end(&mut acks).await.code(), Code::InvalidArgument);
    assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn a_new_stream_silences_the_old_one_of_the_same_node() {
    let mut node1 = End::serving(5, 10).await;
    let (old, mut old_acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
    let (new, _new_acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
    old.send(frame(1, 5, vec![map_pull()])).await.unwrap();
    assert_eq!(end(&mut old_acks).await.code(), Code::Aborted);
    assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
    new.send(frame(1, 5, vec![map_pull()])).await.unwrap();
    assert!(matches!(node1.next().await, Input::Message { message: Message::MapPull { .. }, .. }));
}

#[tokio::test]
async fn a_frame_that_comes_again_ends_the_stream_and_is_not_heard_twice() {
    let mut node1 = End::serving(5, 10).await;
    let (frames, mut acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
    frames.send(frame(1, 5, vec![map_pull()])).await.unwrap();
    assert!(matches!(node1.next().await, Input::Message { message: Message::MapPull { .. }, .. }));
    frames.send(frame(1, 5, vec![map_pull()])).await.unwrap();
    assert_eq!(end(&mut acks).await.code(), Code::InvalidArgument);
    assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn a_frame_of_another_store_ends_the_stream() {
    let mut node1 = End::serving(5, 10).await;
    let (frames, mut acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
    frames.send(frame(1, 6, vec![map_pull()])).await.unwrap();
    let status = end(&mut acks).await;
    assert_eq!((status.code(), Refusal::reason_of(&status)), (Code::FailedPrecondition, Some("other-cluster")));
    assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn forged_vectors_and_dots_end_the_stream() {
    let entries = |list: &[(u32, u64)]| {
        let entries = list.iter().map(|&(stay, seq)| proto::StaySeq { stay, seq }).collect();
        Some(proto::VersionVector { entries })
    };
    let report = |durable| {
        let partition = proto::report::Partition { durable, ..Default::default() };
        proto::message::Kind::Report(proto::Report { partitions: vec![partition] })
    };
    let op = |seq, carried| {
        let item = Some(proto::Item { seq, carried, ..Default::default() });
        let op = proto::Op { key: "k".to_owned(), item, deps: None };
        proto::message::Kind::Operations(proto::Operations { operations: vec![op], ..Default::default() })
    };
    let carried = |list: &[(u32, u64)]| {
        let entry = |&(stay, seq)| proto::ContextEntry { partition: 0, stay, seq };
        Some(proto::Context { epoch: 1, entries: list.iter().map(entry).collect(), clock: 0 })
    };
    let forged = [
        ("report.durable", report(entries(&[(2, 1), (1, 1)]))),
        ("report.durable", report(entries(&[(1, 1), (1, 2)]))),
        ("report.durable", report(entries(&[(1, 0)]))),
        ("item.seq", op(0, None)),
        ("item.carried", op(1, carried(&[(2, 1), (1, 1)]))),
        ("item.carried", op(1, carried(&[(1, 0)]))),
    ];
    for (field, kind) in forged {
        let mut node1 = End::serving(5, 10).await;
        let (frames, mut acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
        frames.send(frame(1, 5, vec![proto::Message { kind: Some(kind) }, map_pull()])).await.unwrap();
        let status = end(&mut acks).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{status}");
        assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
    }
}

/// A part of a fill with such keys, each with a value of so many bytes.
fn chunk(keys: &[&str], bytes: usize) -> proto::Message {
    let key_item = |key: &&str| {
        let item = proto::Item { stay: 1, seq: 1, value: Some(vec![b'1'; bytes].into()), ..Default::default() };
        proto::fill_chunk::KeyItem { key: (*key).to_owned(), item: Some(item) }
    };
    let chunk = proto::FillChunk { items: keys.iter().map(key_item).collect(), ..Default::default() };
    proto::Message { kind: Some(proto::message::Kind::FillChunk(chunk)) }
}

#[tokio::test]
async fn a_chunk_of_a_fill_is_as_large_as_a_frame_may_be_and_no_larger() {
    let mut node1 = End::serving(5, 10).await;
    let (frames, mut acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
    let keys = ["a", "b", "c", "d"];
    frames.send(frame(1, 5, vec![chunk(&keys, (2 << 20) - 100)])).await.unwrap();
    let Input::Message { message: Message::FillChunk(heard), .. } = node1.next().await else { panic!("it fits") };
    assert_eq!(heard.items.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), keys);
    frames.send(frame(2, 5, vec![chunk(&keys, 2 << 20), map_pull()])).await.unwrap();
    let status = end(&mut acks).await;
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("too large"), "{status}");
    assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn a_chunk_of_which_the_keys_are_out_of_order_ends_the_stream() {
    for keys in [["b", "a"], ["a", "a"], ["", "a"]] {
        let mut node1 = End::serving(5, 10).await;
        let (frames, mut acks) = open(&node1, local(5).hello(&node1.address())).await.unwrap();
        frames.send(frame(1, 5, vec![chunk(&["a", "b"], 1)])).await.unwrap();
        assert!(matches!(node1.next().await, Input::Message { message: Message::FillChunk(_), .. }));
        frames.send(frame(2, 5, vec![chunk(&keys, 1), map_pull()])).await.unwrap();
        let status = end(&mut acks).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        let field = if keys[0].is_empty() { "fill_chunk.key" } else { "fill_chunk.items" };
        assert!(status.message().starts_with(field), "{status}");
        assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
    }
}

#[tokio::test]
async fn streams_that_never_end_leave_room_for_others() {
    let mut node1 = End::serving(5, 1).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(open(&node1, local(5).hello(&node1.address())).await.unwrap());
    }
    // All but the last are silenced at their next word; who is silent meanwhile costs no task and no queue.
    let (last, _) = held.last().unwrap();
    last.send(frame(1, 5, vec![map_pull()])).await.unwrap();
    assert!(matches!(node1.next().await, Input::Message { message: Message::MapPull { .. }, .. }));
    for (frames, acks) in &mut held[..99] {
        frames.send(frame(1, 5, vec![map_pull()])).await.unwrap();
        assert_eq!(end(acks).await.code(), Code::Aborted);
    }
    // Empty frames without end: each is taken and acknowledged, nothing is kept.
    let (frames, acks) = held.last_mut().unwrap();
    for number in 2..2_000 {
        frames.send(frame(number, 5, Vec::new())).await.unwrap();
        within(acks.message()).await.unwrap().unwrap();
    }
    let mut other = End::new(5, 10);
    let _peers = other.peers([node1.address()]);
    other.connected(&node1.address()).await;
}

#[tokio::test]
async fn connections_that_say_nothing_leave_room_for_nodes() {
    let node1 = End::serving(5, 10).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(tokio::net::TcpStream::connect(node1.address().as_str()).await.unwrap());
    }
    // More than there is room for: the first are let go after five seconds, and so are the next.
    let mut other = End::new(5, 10);
    let _peers = other.peers([node1.address()]);
    other.connected(&node1.address()).await;
    assert_eq!(silent.len(), 400, "held until here");
}
