//! Carries out what the machine wants done.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::handle::Published;
use crate::error::StoreError;
use crate::machine::message::{Effect, Message, RequestId, Response};
use crate::wire::{Local, Peers};

/// The machine's hands.
pub(super) struct Hands {
    pub peers: Peers,
    pub local: Arc<Local>,
    pub published: watch::Sender<Published>,
    pub waiting: HashMap<RequestId, oneshot::Sender<Response>>,
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
                    // The client may have gone.
                    let _ = answer.send(response);
                }
            }
            Effect::MapChanged(map) => {
                tracing::info!(epoch = %map.epoch, cluster = %map.cluster_id, "acting under a new map");
                self.local.set_cluster_id(map.cluster_id);
                self.peers.ensure(map.nodes.keys().cloned());
                self.published.send_replace(Published::of(&map));
            }
            Effect::Warn(text) => tracing::warn!("{text}"),
            Effect::Fatal(error) => return Err(error),
        }
        Ok(None)
    }
}
