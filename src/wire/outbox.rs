//! What waits to be sent to one peer: three lanes, bounded in bytes and in messages.
//!
//! - *Control*: forwards and their answers, reports, consensus, maps, requests for fills. Small, and somebody waits.
//! - *Live*: operations.
//! - *Fill*: chunks of fills, the backlog.
//!
//! A batch takes the control lane first, then live operations, then fills; every fourth batch begins with the live
//! lane and every eighth with fills, so that none starves. Within a lane the order is kept. A full lane refuses:
//! nothing here ever waits for room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::weight::{op_weight, weight};
use crate::causal::op::Op;
use crate::machine::message::Message;

/// A batch is closed when it holds this much.
pub const BATCH_BYTES: usize = 256 << 10;

/// A single message above this is refused; below, it fits into a frame. Values, keys and chunks of fills are bounded, so
/// what is refused here is a mistake of the sender.
pub const MAX_MESSAGE_BYTES: usize = 7 << 20;

/// Operations are cut into messages of about this size.
const OPERATIONS_BYTES: usize = 1 << 20;

/// The bounds of each lane.
const LANE_BYTES: [usize; 3] = [16 << 20, 32 << 20, 8 << 20];
const LANE_MESSAGES: usize = 16 << 10;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: Mutex<Lanes>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    open: bool,
    batches: u64,
    lanes: [Lane; 3],
}

#[derive(Debug, Default)]
struct Lane {
    bytes: usize,
    queue: VecDeque<(usize, Message)>,
}

/// A batch taken out, never empty.
#[derive(Debug)]
pub struct Batch {
    /// Its messages.
    pub messages: Vec<Message>,
    /// At least as many bytes as they take.
    pub bytes: usize,
}

impl Outbox {
    /// Takes a message, if the outbox is open and its lane has room.
    ///
    /// # Errors
    /// Gives the message back.
    pub fn push(&self, message: Message) -> Result<(), Message> {
        let lane = lane_of(&message);
        let (bytes, largest) = measure(&message);
        if largest > MAX_MESSAGE_BYTES {
            tracing::error!(bytes, limit = MAX_MESSAGE_BYTES, "a message between nodes is too large and was not sent");
            return Err(message);
        }
        let mut lanes = self.lock();
        if !lanes.open || !lanes.lanes[lane].has_room(LANE_BYTES[lane], bytes) {
            return Err(message);
        }
        lanes.lanes[lane].push(bytes, message);
        drop(lanes);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until something is there to be taken. One caller at a time; may be cancelled at no loss.
    pub async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Takes the next batch; `None` when nothing is there.
    pub fn take(&self) -> Option<Batch> {
        let mut lanes = self.lock();
        lanes.batches += 1;
        let order = match lanes.batches {
            n if n.is_multiple_of(8) => [2, 0, 1],
            n if n.is_multiple_of(4) => [1, 0, 2],
            _ => [0, 1, 2],
        };
        let mut batch = Batch { messages: Vec::new(), bytes: 0 };
        for lane in order {
            lanes.lanes[lane].move_into(&mut batch);
        }
        (!batch.messages.is_empty()).then_some(batch)
    }

    /// Opens the outbox, empty.
    pub fn open(&self) {
        *self.lock() = Lanes { open: true, ..Lanes::default() };
    }

    /// Closes the outbox and gives what was not taken.
    pub fn close(&self) -> impl Iterator<Item = Message> + use<> {
        let lanes = std::mem::take(&mut *self.lock());
        lanes.lanes.into_iter().flat_map(|lane| lane.queue).map(|(_, message)| message)
    }

    fn is_empty(&self) -> bool {
        self.lock().lanes.iter().all(|lane| lane.queue.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// A message larger than the lane may be its only one.
    fn has_room(&self, limit: usize, bytes: usize) -> bool {
        self.queue.is_empty() || (self.bytes + bytes <= limit && self.queue.len() < LANE_MESSAGES)
    }

    fn push(&mut self, bytes: usize, message: Message) {
        self.bytes += bytes;
        match message {
            Message::Operations { partition, version, operations } if bytes > OPERATIONS_BYTES => {
                for operations in cut(operations) {
                    let message = Message::Operations { partition, version, operations };
                    self.queue.push_back((weight(&message), message));
                }
                self.bytes = self.queue.iter().map(|(bytes, _)| bytes).sum();
            }
            message => self.queue.push_back((bytes, message)),
        }
    }

    /// Moves what still fits into the batch; the first message always does.
    fn move_into(&mut self, batch: &mut Batch) {
        let fits = |batch: &Batch, bytes: usize| batch.messages.is_empty() || batch.bytes + bytes <= BATCH_BYTES;
        while let Some((bytes, message)) = self.queue.pop_front_if(|(bytes, _)| fits(batch, *bytes)) {
            self.bytes -= bytes;
            batch.bytes += bytes;
            batch.messages.push(message);
        }
    }
}

/// The lane of a message, 0 to 2.
fn lane_of(message: &Message) -> usize {
    match message {
        Message::Ping(_)
        | Message::Pong(_)
        | Message::Report(_)
        | Message::Stability(_)
        | Message::FillRequest { .. }
        | Message::FillNext { .. }
        | Message::Forward { .. }
        | Message::ForwardReply { .. }
        | Message::ForwardRefused { .. }
        | Message::Words(_)
        | Message::ChangeAsked { .. }
        | Message::ChangeAnswered { .. }
        | Message::Paxos(_)
        | Message::LossAsked { .. }
        | Message::LossTold { .. }
        | Message::RecoveryAsked { .. }
        | Message::RecoveryAnswered { .. }
        | Message::MapPull { .. }
        | Message::MapPush(_)
        | Message::MapDeltas(_) => 0,
        Message::Operations { .. } => 1,
        Message::FillChunk(_) => 2,
    }
}

/// The bytes of a message, and of its largest part that is not cut.
fn measure(message: &Message) -> (usize, usize) {
    let bytes = weight(message);
    match message {
        Message::Operations { operations, .. } if bytes > OPERATIONS_BYTES => {
            (bytes, operations.iter().map(|op| op_weight(op)).max().unwrap_or(0))
        }
        _ => (bytes, bytes),
    }
}

/// Operations in pieces of about [`OPERATIONS_BYTES`], in order, none empty.
fn cut(operations: Vec<Arc<Op>>) -> Vec<Vec<Arc<Op>>> {
    let mut pieces: Vec<Vec<Arc<Op>>> = Vec::new();
    let mut room = 0;
    for op in operations {
        let bytes = op_weight(&op);
        match pieces.last_mut() {
            Some(piece) if bytes <= room => piece.push(op),
            _ => {
                room = OPERATIONS_BYTES.max(bytes);
                pieces.push(vec![op]);
            }
        }
        room -= bytes;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::causal::item::Item;
    use crate::types::{Dot, Epoch, Key, PartitionId, StayId, Timestamp};

    fn opened() -> Outbox {
        let outbox = Outbox::default();
        outbox.open();
        outbox
    }

    fn op(seq: u64, bytes: usize) -> Arc<Op> {
        let item = Item {
            value: Some(Bytes::from(vec![b'1'; bytes])),
            dot: Dot { stay: StayId(1), seq },
            timestamp: Timestamp(seq),
            carried: Default::default(),
        };
        Arc::new(Op { key: Key::new("k").unwrap(), item, deps: Default::default() })
    }

    fn operations(seqs: std::ops::Range<u64>, bytes: usize) -> Message {
        let operations = seqs.map(|seq| op(seq, bytes)).collect();
        Message::Operations { partition: PartitionId(0), version: Epoch(1), operations }
    }

    fn chunk(index: u32) -> Message {
        Message::FillChunk(crate::machine::message::FillChunk {
            partition: PartitionId(0),
            version: Epoch(1),
            attempt: 1,
            index,
            items: vec![(Key::new("k").unwrap(), op(1, 300 << 10).item.clone())],
            end: None,
        })
    }

    fn pull(epoch: u64) -> Message {
        Message::MapPull { have: Epoch(epoch), hash: 0 }
    }

    #[test]
    fn a_closed_outbox_takes_nothing() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(pull(1)), Err(pull(1)));
        outbox.open();
        assert_eq!(outbox.push(pull(1)), Ok(()));
        assert_eq!(outbox.close().collect::<Vec<_>>(), [pull(1)]);
        assert_eq!(outbox.push(pull(2)), Err(pull(2)));
        outbox.open();
        assert!(outbox.take().is_none());
    }

    #[test]
    fn control_goes_first_and_nothing_starves() {
        let outbox = opened();
        outbox.push(chunk(0)).unwrap();
        outbox.push(operations(1..2, 10)).unwrap();
        outbox.push(pull(1)).unwrap();
        let batch = outbox.take().unwrap();
        assert_eq!(batch.messages, [pull(1), operations(1..2, 10)]);
        assert_eq!(outbox.take().unwrap().messages, [chunk(0)]);

        // Under a flood of operations, a fill still moves within eight batches.
        outbox.push(chunk(1)).unwrap();
        let moved = (0..8).any(|i| {
            outbox.push(operations(i..i + 1, BATCH_BYTES)).unwrap();
            outbox.take().unwrap().messages.contains(&chunk(1))
        });
        assert!(moved);
    }

    #[test]
    fn a_full_lane_gives_back_and_the_others_go_on() {
        let outbox = opened();
        let mut taken = 0;
        while outbox.push(chunk(taken)).is_ok() {
            taken += 1;
        }
        assert_eq!(taken as usize, LANE_BYTES[2] / weight(&chunk(0)));
        assert_eq!(outbox.push(pull(1)), Ok(()));
    }

    #[test]
    fn long_runs_of_operations_are_cut_in_order() {
        let outbox = opened();
        outbox.push(operations(1..101, 100 << 10)).unwrap();
        let mut seqs = Vec::new();
        while let Some(batch) = outbox.take() {
            assert!(batch.bytes <= MAX_MESSAGE_BYTES);
            for message in batch.messages {
                assert!(weight(&message) <= OPERATIONS_BYTES + 100);
                let Message::Operations { operations, .. } = message else { panic!("{message:?}") };
                seqs.extend(operations.iter().map(|op| op.item.dot.seq));
            }
        }
        assert!(seqs.iter().copied().eq(1..101));
        assert_eq!(outbox.lock().lanes[1].bytes, 0);
    }

    #[test]
    fn what_no_frame_can_hold_is_given_back() {
        let outbox = opened();
        assert!(outbox.push(operations(1..2, MAX_MESSAGE_BYTES)).is_err());
        assert!(outbox.push(operations(1..3, MAX_MESSAGE_BYTES)).is_err());
        assert!(outbox.push(operations(1..8, MAX_MESSAGE_BYTES / 2)).is_ok());
    }
}
