//! One connection to one peer: the dial, the greeting, and the frames with their acknowledgements.
//!
//! A window of frames is in flight: sending goes on while acknowledgements are on their way, up to the window's bounds.
//! One task does both directions, so when the acknowledgements end, the sending ends too, whatever it waits for.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::convert::{id_to_proto, line_to_proto, message_to_proto, version_of};
use super::dial::Dialler;
use super::identity::{Local, Remote};
use super::outbox::{Batch, Outbox};
use super::proto::frame_ack::Kind;
use super::proto::replica_client::ReplicaClient;
use super::proto::{Frame, FrameAck};
use super::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MAX_FRAME_BYTES, proto};
use crate::machine::message::Message;
use crate::types::NodeAddr;

/// How long a dial may take. With the pause between two it stays below a second, so that a peer that is back is
/// reached within one, even when its address swallows packets until then.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(600);

/// How long the greeting of a peer that was reached may take.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// The bounds of what is sent and not yet acknowledged; one frame may always be.
const WINDOW_FRAMES: usize = 64;
const WINDOW_BYTES: usize = 8 << 20;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Down {
    /// The peer's machine says that no process listens there.
    #[error("connection refused: no process listens there")]
    Refused,
    /// It can't be reached.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// It answered, and does not speak with this node, or this node not with it.
    #[error("turned away: {0}")]
    TurnedAway(String),
    /// It stood, and broke.
    #[error("broken: {0}")]
    Broken(String),
}

/// An established connection.
#[derive(Debug)]
pub struct Link {
    /// Who answered.
    pub remote: Remote,
    frames: mpsc::Sender<Frame>,
    acks: Streaming<FrameAck>,
    window: Window,
}

/// An endpoint with the settings of every channel between nodes.
///
/// # Errors
/// [`Down::Unreachable`] when the address makes no URI.
pub fn endpoint(local: &Local, node: &NodeAddr) -> Result<Endpoint, Down> {
    let uri = local
        .grpc_uri(node)
        .ok_or_else(|| Down::Unreachable("its REST port and GRPC_PORT_OFFSET together pass 65535".into()))?;
    let endpoint = Endpoint::from_shared(uri).map_err(|error| Down::Unreachable(error.to_string()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

impl Link {
    /// Dials the node and greets it.
    ///
    /// # Errors
    /// Why that failed.
    pub async fn dial(local: &Local, dialler: &dyn Dialler, node: &NodeAddr) -> Result<Self, Down> {
        let endpoint = endpoint(local, node)?;
        let channel = match timeout(CONNECT_TIMEOUT, dialler.dial(endpoint)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(down_of(&error)),
            Err(_) => return Err(Down::Unreachable("no answer to the dial".into())),
        };
        timeout(HELLO_TIMEOUT, Self::greet(local, node, channel))
            .await
            .unwrap_or_else(|_| Err(Down::Unreachable("no answer to the greeting".into())))
    }

    async fn greet(local: &Local, node: &NodeAddr, channel: Channel) -> Result<Self, Down> {
        let turned_away = |status: Status| Down::TurnedAway(format!("it says '{}'", status.message()));
        // Room for the whole window and the Hello: a send never waits.
        let (frames, sent) = mpsc::channel(WINDOW_FRAMES + 1);
        let hello = Frame { hello: Some(local.hello(node)), ..Frame::default() };
        frames.try_send(hello).expect("a new channel has room");
        let mut client = ReplicaClient::new(channel)
            .max_decoding_message_size(MAX_FRAME_BYTES)
            .max_encoding_message_size(MAX_FRAME_BYTES);
        let mut acks = client.exchange(ReceiverStream::new(sent)).await.map_err(turned_away)?.into_inner();
        match acks.message().await.map_err(turned_away)?.and_then(|ack| ack.kind) {
            Some(Kind::Hello(hello)) => {
                let accepted = local.accept_answer(node, &hello);
                let remote = accepted.map_err(|refusal| Down::TurnedAway(format!("this node says '{refusal}'")))?;
                Ok(Self { remote, frames, acks, window: Window::default() })
            }
            Some(Kind::Number(_)) | None => Err(Down::TurnedAway("it did not say who it is".into())),
        }
    }

    /// Sends what the outbox gets until the connection breaks; says why it did.
    pub async fn run(mut self, local: &Local, outbox: &Outbox) -> Down {
        loop {
            tokio::select! {
                biased;
                // First: there is no more of these than of frames that were sent.
                ack = self.acks.message() => match ack {
                    Ok(Some(FrameAck { kind: Some(Kind::Number(number)) })) if self.window.acknowledge(number) => {}
                    Ok(Some(_)) => return Down::Broken("it acknowledged what was not sent".into()),
                    Ok(None) => return Down::Broken("it ended the stream".into()),
                    Err(status) => return Down::Broken(status.message().to_owned()),
                },
                () = outbox.filled(), if self.window.has_room() => {
                    if let Some(batch) = outbox.take() && !self.send(local, &batch) {
                        return Down::Broken("the stream is closed".into());
                    }
                }
            }
        }
    }

    fn send(&mut self, local: &Local, batch: &Batch) -> bool {
        let standing = local.standing();
        let frame = Frame {
            number: self.window.sent(batch.bytes),
            hello: None,
            cluster_id: id_to_proto(local.cluster_id().0),
            messages: spoken(&batch.messages, self.remote.format_version),
            line: line_to_proto(&standing.line),
            epoch: standing.epoch.0,
        };
        self.frames.try_send(frame).is_ok()
    }
}

/// The messages that a peer of this version knows; whoever waits for an answer to another does as if it had been lost.
fn spoken(messages: &[Message], version: u32) -> Vec<proto::Message> {
    let (known, unknown): (Vec<_>, Vec<_>) = messages.iter().partition(|message| version_of(message) <= version);
    if !unknown.is_empty() {
        tracing::debug!(version, "{} messages were not sent: the peer's build does not know them", unknown.len());
    }
    known.into_iter().filter_map(message_to_proto).collect()
}

/// The frames in flight: numbers and bytes, oldest first.
#[derive(Debug, Default)]
struct Window {
    last: u64,
    bytes: usize,
    frames: VecDeque<(u64, usize)>,
}

impl Window {
    fn has_room(&self) -> bool {
        self.frames.len() < WINDOW_FRAMES && self.bytes < WINDOW_BYTES
    }

    /// Gives the number of the next frame.
    fn sent(&mut self, bytes: usize) -> u64 {
        self.last += 1;
        self.bytes += bytes;
        self.frames.push_back((self.last, bytes));
        self.last
    }

    /// Takes out all frames up to this number; false when it was never given.
    fn acknowledge(&mut self, number: u64) -> bool {
        while let Some((_, bytes)) = self.frames.pop_front_if(|(sent, _)| *sent <= number) {
            self.bytes -= bytes;
        }
        number <= self.last
    }
}

/// Looks for a refusal below the layers of a transport error.
fn down_of(error: &tonic::transport::Error) -> Down {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let mut innermost = String::new();
    while let Some(current) = cause {
        if current.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            return Down::Refused;
        }
        innermost = current.to_string();
        cause = current.source();
    }
    Down::Unreachable(innermost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::change::ChangeError;
    use crate::types::Epoch;

    #[test]
    fn a_peer_of_an_older_build_is_sent_nothing_that_it_does_not_know() {
        let pull = Message::MapPull { have: Epoch(1), hash: 0 };
        let asked = Message::LossAsked { id: 1, incarnations: Vec::new() };
        let told = Message::LossTold { id: 1, told: Vec::new(), held: Vec::new() };
        let moved_on = Message::ChangeAnswered { id: 1, outcome: Err(ChangeError::MovedOn) };
        let messages = [asked, pull.clone(), told, moved_on];
        assert_eq!(spoken(&messages, 1), [message_to_proto(&pull).unwrap()]);
        assert_eq!(spoken(&messages, 2).len(), 4);
    }

    #[test]
    fn the_window_opens_with_acknowledgements() {
        let mut window = Window::default();
        for number in 1..=WINDOW_FRAMES as u64 {
            assert!(window.has_room());
            assert_eq!(window.sent(10), number);
        }
        assert!(!window.has_room());
        assert!(window.acknowledge(3) && window.has_room());
        assert_eq!((window.frames.len(), window.bytes), (WINDOW_FRAMES - 3, (WINDOW_FRAMES - 3) * 10));
        assert!(!window.acknowledge(WINDOW_FRAMES as u64 + 1));
        assert!(window.frames.is_empty() && window.bytes == 0);
        window.sent(WINDOW_BYTES + 1);
        assert!(!window.has_room());
    }
}
