//! Where what comes from other nodes goes.

use tokio::sync::mpsc;

use crate::machine::message::{Input, Message};

/// The two lanes into the node's loop. Signs of life have their own, so that a loop with more work than it can do does
/// not take the living for dead: what they tell is old when it has waited behind everything else. The order between the
/// lanes means nothing, as pings come by a connection of their own anyway.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Pings and their answers.
    pub signs: mpsc::Sender<Input>,
    /// Everything else.
    pub network: mpsc::Sender<Input>,
}

impl Inputs {
    /// Hands an input over, waiting for room in its lane; false when nobody takes them any more.
    pub async fn send(&self, input: Input) -> bool {
        let sign = matches!(&input, Input::Message { message: Message::Ping(_) | Message::Pong(_), .. });
        let lane = if sign { &self.signs } else { &self.network };
        lane.send(input).await.is_ok()
    }
}
