//! Carries out what the machine wants done.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::handle::{Answer, Published};
use crate::error::StoreError;
use crate::machine::agreement::NotChanged;
use crate::machine::message::{Effect, Message, RequestId};
use crate::types::NodeAddr;
use crate::wire::{Local, Peers};

/// The machine's hands.
pub(super) struct Hands {
    pub peers: Peers,
    pub local: Arc<Local>,
    pub published: watch::Sender<Published>,
    pub waiting: HashMap<RequestId, Answer>,
    pub changing: HashMap<RequestId, oneshot::Sender<Result<u64, NotChanged>>>,
    /// Whom this node speaks with whether the map has them or not: those it was started with, and those it met.
    pub met: BTreeSet<NodeAddr>,
}

impl Hands {
    /// Does one thing. Gives the id of a forward that could not be handed to the network.
    ///
    /// # Errors
    /// What the node must not go on with.
    pub fn carry_out(&mut self, effect: Effect) -> Result<Option<u64>, StoreError> {
        match effect {
            // A ping is answered where it arrives, on its own channel.
            Effect::Send { message: Message::Pong(_), .. } => {}
            Effect::Send { to, message } => {
                if let Err(Message::Forward { id, .. }) = self.peers.send(&to, message) {
                    return Ok(Some(id));
                }
            }
            Effect::Reply { id, response } => {
                if let Some(answer) = self.waiting.remove(&id) {
                    answer.send(response);
                }
            }
            Effect::MapChanged(map) => {
                let branch = map.line.branch();
                let rows = map.rows.iter().filter(|row| row.version == map.epoch).count();
                tracing::info!(epoch = %map.epoch, cluster = %map.cluster_id, %branch, rows, "acting under a new map");
                self.local.set_map(map.cluster_id, map.standing());
                let tells_clocks = self.published.borrow().tells_clocks;
                self.published.send_replace(Published::of(&map, tells_clocks));
                self.connect();
            }
            Effect::TellClocks(tells) => {
                tracing::info!(tells, "whether contexts tell their clocks: only where every node's build takes that");
                self.published.send_modify(|published| *published = Published::of(&published.map, Some(tells)));
            }
            Effect::ReplyChange { id, outcome } => {
                if let Some(answer) = self.changing.remove(&id) {
                    // The client may have gone.
                    let _ = answer.send(outcome);
                }
            }
            Effect::Meet(node) => {
                tracing::info!(%node, "met a node");
                self.met.insert(node);
                self.connect();
            }
            Effect::Warn(text) => tracing::warn!("{text}"),
            Effect::Note(text) => tracing::info!("{text}"),
            Effect::Fatal(error) => return Err(error),
        }
        Ok(None)
    }
    /// Connects to the map's nodes and to those met: who is out of the map, or not yet in it, is spoken with, too.
    fn connect(&self) {
        let map = self.published.borrow().map.clone();
        self.peers.ensure(map.nodes.keys().chain(&self.met).cloned());
    }
}
