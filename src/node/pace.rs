//! Keeps the machine's work that no request waits for to a share of the loop's time, while there are requests.
//!
//! What a turn costs is told by the time that this thread had a core, not by the clock: on a machine that is busy with
//! something else a turn takes long, and is no more work.

use std::sync::Arc;
use std::time::Duration;

use super::surroundings::Clock;
use crate::machine::Spare;
use crate::machine::message::{Input, Message};

/// A turn with such work in it is followed by a rest from it of so many times what it cost.
const REST: u32 = 19;

/// … where it is for the operator's new layout, with every node heard that has copies: nothing is in a hurry, and each byte
/// costs more than the loop's time, at both ends and on their disks.
const LAYOUT_REST: u32 = 39;

/// What the present turn costs, and whether somebody would wait for it.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Arc<dyn Clock>,
    began: Option<Duration>,
    /// There was work for clients since the last slice of the other kind.
    asked: bool,
}

impl Pace {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, began: None, asked: false }
    }

    /// A step of a turn begins.
    pub fn step(&mut self, input: &Input) {
        self.began.get_or_insert_with(|| self.clock.on_core());
        self.asked |= match input {
            Input::Request { .. } => true,
            Input::Message { message, .. } => matches!(message, Message::Forward { .. } | Message::Operations { .. }),
            _ => false,
        };
    }

    /// A turn is over, its batch written: how long to rest when it had a slice in it. Without requests, not at all.
    pub fn end_turn(&mut self, worked: Option<Spare>) -> Option<Duration> {
        let began = self.began.take();
        let rest = match worked? {
            Spare::Copies => REST,
            Spare::Layout => LAYOUT_REST,
        };
        let asked = std::mem::take(&mut self.asked);
        let cost = began.map_or(Duration::ZERO, |began| self.clock.on_core().saturating_sub(began));
        Some(if asked { cost * rest } else { Duration::ZERO })
    }
}
