//! The outgoing side: all other nodes of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::dial::Dialler;
use super::identity::Local;
use super::inputs::Inputs;
use super::peer::{Peer, Tasks};
use crate::machine::message::Message;
use crate::types::NodeAddr;

/// A stream and a ping channel to each other node. When this is dropped all of them end.
#[derive(Debug)]
pub struct Peers {
    local: Arc<Local>,
    dialler: Arc<dyn Dialler>,
    inputs: Inputs,
    stop: watch::Receiver<bool>,
    /// Where the connections run, whatever thread asks for new ones.
    runtime: Handle,
    peers: RwLock<BTreeMap<NodeAddr, Peer>>,
}

impl Peers {
    /// Starts dialling `nodes` (this one left out). What happens is told as inputs: `Connected`, `Disconnected`,
    /// `NotSent`, and the answers to pings. All ends when `stop` turns true or its sender is gone.
    ///
    /// To be called within a tokio runtime.
    pub fn start(
        local: Arc<Local>,
        dialler: Arc<dyn Dialler>,
        nodes: impl IntoIterator<Item = NodeAddr>,
        inputs: Inputs,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let peers = Self { local, dialler, inputs, stop, runtime: Handle::current(), peers: RwLock::default() };
        peers.ensure(nodes);
        peers
    }

    /// Makes the peers these nodes (this one left out): dials the new ones, ends with those that are not named any
    /// more, which are told as `Disconnected`.
    pub fn ensure(&self, nodes: impl IntoIterator<Item = NodeAddr>) {
        let wanted: BTreeSet<_> = nodes.into_iter().filter(|node| *node != self.local.address).collect();
        let _entered = self.runtime.enter();
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|node, _| wanted.contains(node));
        for node in wanted {
            peers.entry(node).or_insert_with_key(|node| {
                let (local, dialler) = (Arc::clone(&self.local), Arc::clone(&self.dialler));
                Peer::start(Tasks { node: node.clone(), local, dialler, inputs: self.inputs.clone() }, &self.stop)
            });
        }
    }

    /// Takes a message to send; never waits. A ping goes by its own channel, whether or not there is a connection; the
    /// answer comes as [`Message::Pong`]. A pong is dropped: the call that brought the ping was answered already.
    ///
    /// # Errors
    /// Gives the message back when there is no connection to the node, its queue has no room, or no frame can hold the
    /// message. What is taken may still be lost: when the connection breaks, `Disconnected` is told, and before it
    /// `NotSent` for every forward that was not handed to the network.
    pub fn send(&self, to: &NodeAddr, message: Message) -> Result<(), Message> {
        match self.peers.read().unwrap_or_else(PoisonError::into_inner).get(to) {
            Some(peer) => peer.send(message),
            None => Err(message),
        }
    }
}
