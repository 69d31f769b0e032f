//! How nodes speak with each other: gRPC, protobuf, one stream each way between any two.
//!
//! # The protocol
//!
//! Each node dials every other: for the stream `Replica.Exchange`, which carries the messages of *all* partitions that
//! they share, and, on a second connection, for the unary `Cluster.Ping`, so that bulk transfer never makes a living
//! node look dead. Both begin with a [`proto::Hello`]: who speaks, for which store, to whom. Another store, another
//! address or another version of the protocol is a typed [`Refusal`], checked on both ends, and again with each frame,
//! as a node may be born between two.
//!
//! What a node wants to send waits in an outbox a peer: lanes for control, live operations and fills, bounded in bytes
//! and in messages. The machine never waits for it: what finds no room is given back. A batch of up to 256 KiB makes a
//! frame; up to 64 frames or 8 MiB are in flight, each acknowledged by number once the receiver's loop has taken it. So
//! a slow receiver slows its senders, and nobody else.
//!
//! A connection that breaks takes with it what was in its outbox and in flight: `Disconnected` tells the machine, which
//! streams anew from what the peer says it has. Forwarded requests are the exception that is told one by one: those
//! still in the outbox were certainly not sent (`NotSent`), so they can be routed anew; the others may have been.
//! Keep-alive pings find silent connections within three seconds; dialling goes on every 200 ms or so, each dial bounded
//! to 600 ms: a peer that is back is reached within a second.
//!
//! # The files
//!
//! [`proto`] is what was generated; [`convert`] is the only way between it and the domain; `identity` holds the Hello
//! and the refusals; `outbox` and `weight` the queues, [`Inputs`] the lanes into the loop; `dial` makes channels, `link` is one connection, `peer` its upkeep,
//! [`Peers`] all of them.
//! The answering side is `api::grpc`.
//!
//! # Caveats
//!
//! Nothing is encrypted or authenticated: the network between the nodes is trusted, as an address claimed is believed.
//! Not here: what a message means, who is alive, which nodes there are.

pub mod convert;
mod dial;
mod identity;
mod inputs;
mod link;
mod outbox;
mod peer;
mod peers;
pub mod proto;
mod weight;

use std::time::Duration;

use tokio::sync::watch;

pub use dial::{Dialler, Tcp};
pub use identity::{FORMAT_VERSION, Local, OLDEST_FORMAT_VERSION, Refusal, Remote, Versions};
pub use inputs::Inputs;
pub use peers::Peers;

/// The greatest frame that is sent or taken. Batches are far smaller; this holds the largest value that may be allowed
/// with its context, or the map of a very large store.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// How often an HTTP/2 ping goes over every connection, and how long its answer may take.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// See [`KEEP_ALIVE_INTERVAL`].
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits until the signal is true, or nobody is left to make it so.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is as good a reason.
    let _ = stop.wait_for(|stop| *stop).await;
}
