//! The transport between two nodes over loopback: the real outgoing side against the real services, with an inbox
//! where the machine would be.

mod bad;
mod fake;
mod inspect;
mod silence;
mod window;

use std::time::{Duration, Instant};

use entail::machine::message::{Input, Message};
use entail::types::{Epoch, NodeAddr};
use tokio::sync::mpsc::error::TryRecvError;

use fake::{End, within};

fn pull(number: u64) -> Message {
    Message::MapPull { have: Epoch(number), hash: 0 }
}

/// The number of a [`pull`] that arrived, after the sender was checked.
fn pulled(input: Input, sender: &End) -> u64 {
    match input {
        Input::Message { from, incarnation, message: Message::MapPull { have, .. } } => {
            assert_eq!((from, incarnation), (sender.address(), sender.local.incarnation));
            have.0
        }
        other => panic!("{other:?}"),
    }
}

fn disconnected(input: Input, from: &NodeAddr) -> bool {
    match input {
        Input::Disconnected { peer, refused } => {
            assert_eq!(peer, *from);
            refused
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn messages_arrive_in_order() {
    let mut node1 = End::new(5, 100);
    let mut node2 = End::serving(5, 100).await;
    let peers = node1.peers([node1.address(), node2.address()]);
    node1.connected(&node2.address()).await;
    for number in 0..10_000 {
        peers.send(&node2.address(), pull(number)).unwrap();
    }
    for number in 0..10_000 {
        assert_eq!(pulled(node2.next().await, &node1), number);
    }
    assert_eq!(node2.streams(), 1, "each stream is told once");
}

#[tokio::test]
async fn a_peer_that_is_back_is_reached_within_a_second() {
    let mut node1 = End::new(5, 100);
    let mut node2 = End::serving(5, 100).await;
    let peers = node1.peers([node2.address()]);
    node1.connected(&node2.address()).await;
    for round in 0..3 {
        node2.stop().await;
        assert!(!disconnected(node1.next().await, &node2.address()), "it broke");
        assert!(disconnected(node1.next().await, &node2.address()), "then no process listens");
        assert_eq!(peers.send(&node2.address(), pull(0)), Err(pull(0)));

        node2.serve().await;
        let back = Instant::now();
        node1.connected(&node2.address()).await;
        assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
        peers.send(&node2.address(), pull(round)).unwrap();
        assert_eq!(pulled(node2.next().await, &node1), round);
    }
}

#[tokio::test]
async fn a_refused_connection_is_told_once() {
    let mut node1 = End::new(5, 100);
    let node2 = End::new(5, 100);
    let _peers = node1.peers([node2.address()]);
    assert!(disconnected(node1.next().await, &node2.address()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node1.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn pings_are_answered_by_what_was_published() {
    let mut node1 = End::new(5, 100);
    let mut node2 = End::serving(5, 100).await;
    let peers = node1.peers([node2.address()]);
    node1.connected(&node2.address()).await;
    peers.send(&node2.address(), Message::Ping(node1.sign.clone().into())).unwrap();
    match node2.next().await {
        Input::Message { from, incarnation, message: Message::Ping(ping) } => {
            assert_eq!((from, incarnation), (node1.address(), node1.local.incarnation));
            assert_eq!(*ping, node1.sign);
        }
        other => panic!("{other:?}"),
    }
    match node1.next().await {
        Input::Message { from, incarnation, message: Message::Pong(pong) } => {
            assert_eq!((from, incarnation), (node2.address(), node2.local.incarnation));
            assert_eq!(*pong, node2.sign);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn peers_come_and_go_with_the_map() {
    let mut node1 = End::new(5, 100);
    let (mut node2, mut node3) = (End::serving(5, 100).await, End::serving(5, 100).await);
    let peers = node1.peers([node2.address()]);
    node1.connected(&node2.address()).await;
    assert_eq!(peers.send(&node3.address(), pull(1)), Err(pull(1)));

    peers.ensure([node2.address(), node3.address()]);
    node1.connected(&node3.address()).await;
    peers.send(&node3.address(), pull(2)).unwrap();
    assert_eq!(pulled(node3.next().await, &node1), 2);

    peers.ensure([node1.address(), node3.address()]);
    assert!(!disconnected(node1.next().await, &node2.address()));
    assert_eq!(peers.send(&node2.address(), pull(3)), Err(pull(3)));
    peers.send(&node3.address(), pull(4)).unwrap();
    assert_eq!(pulled(node3.next().await, &node1), 4);
    assert_eq!(node2.inbox.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn any_thread_may_ask_for_new_peers() {
    let mut node1 = End::new(5, 100);
    let node2 = End::serving(5, 100).await;
    let peers = node1.peers([node1.address()]);
    // As the node's loop does, on a runtime without sockets.
    let wanted = node2.address();
    let asked = std::thread::spawn(move || {
        let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
        bare.block_on(async { peers.ensure([wanted]) });
        peers
    });
    let peers = tokio::task::spawn_blocking(|| asked.join().unwrap()).await.unwrap();
    node1.connected(&node2.address()).await;
    drop(peers);
}

#[tokio::test]
async fn a_stop_is_not_held_up_by_a_silent_client() {
    let mut node1 = End::new(5, 100);
    let mut node2 = End::serving(5, 100).await;
    let peers = node1.peers([node2.address()]);
    node1.connected(&node2.address()).await;
    // It says nothing, not even the HTTP/2 preface.
    let _silent = tokio::net::TcpStream::connect(node2.address().as_str()).await.unwrap();
    let stopping = Instant::now();
    node2.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(3), "{:?}", stopping.elapsed());

    // The outgoing side, too, leaves nothing behind.
    drop(peers);
    within(async { while !matches!(node1.next().await, Input::Disconnected { .. }) {} }).await;
}
