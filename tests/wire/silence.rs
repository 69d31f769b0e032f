//! A connection over which nothing comes any more, though nobody closed it: a cable pulled, a process stopped.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fake::End;
use crate::{disconnected, pull, pulled};

/// Passes bytes on while `open`; holds them back, and the connection, while not.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn cable(outside: TcpListener, inside: String, open: watch::Receiver<bool>) {
    while let Ok((dialler, _)) = outside.accept().await {
        let Ok(node) = TcpStream::connect(&inside).await else { return };
        let ((from_dialler, to_dialler), (from_node, to_node)) = (dialler.into_split(), node.into_split());
        tokio::spawn(pass(from_dialler, to_node, open.clone()));
        tokio::spawn(pass(from_node, to_dialler, open.clone()));
    }
}

#[tokio::test]
async fn a_silent_connection_is_found_and_replaced() {
    let mut node1 = End::new(5, 100);
    let mut node2 = End::new(5, 100);
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let outside = TcpListener::bind(node2.address().as_str()).await.unwrap();
    let (open, opened) = watch::channel(true);
    tokio::spawn(cable(outside, inside.local_addr().unwrap().to_string(), opened));
    node2.serve_on(inside);
    let peers = node1.peers([node2.address()]);
    node1.connected(&node2.address()).await;

    open.send_replace(false);
    let silent = Instant::now();
    assert!(!disconnected(node1.next().await, &node2.address()));
    assert!(silent.elapsed() < Duration::from_secs(5), "{:?}", silent.elapsed());

    open.send_replace(true);
    let back = Instant::now();
    node1.connected(&node2.address()).await;
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    peers.send(&node2.address(), pull(1)).unwrap();
    assert_eq!(pulled(node2.next().await, &node1), 1);
}
