//! What goes into a machine and what comes out: requests, messages between nodes, inputs, effects.

use std::sync::Arc;

use bytes::Bytes;

use super::agreement::{Disagreement, NotChanged};
use super::sign::{HeldUpTo, Ping};
use crate::causal::context::Context;
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::vector::VersionVector;
use crate::cluster::change::{Change, ChangeError};
use crate::cluster::delta::MapDelta;
use crate::cluster::line::Standing;
use crate::cluster::map::ClusterMap;
use crate::cluster::paxos::PaxosMessage;
use crate::error::{Code, StoreError};
use crate::types::{
    BatchNo, BranchId, Epoch, Incarnation, Key, NodeAddr, PartitionId, Seq, ShardId, StayId, Timestamp,
};

/// What a client asks for, already parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The value of a key.
    Get {
        /// The key.
        key: Key,
        /// What the session has seen.
        context: Context,
    },
    /// Set a key.
    Put {
        /// The key.
        key: Key,
        /// Its value: JSON text, kept to the letter.
        value: Bytes,
        /// What the session has seen.
        context: Context,
    },
    /// Remove a key's value.
    Delete {
        /// The key.
        key: Key,
        /// What the session has seen.
        context: Context,
    },
    /// How many keys of the shard have a value.
    KeyCount {
        /// The shard.
        shard: ShardId,
    },
    /// How many keys of these partitions have a value: a part of such a count, asked of a node that serves them all.
    CountOf {
        /// The partitions.
        partitions: Vec<PartitionId>,
    },
}

/// What a client asks to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This many shards, everything spread evenly.
    Reshard(u32),
    /// A node in a shard more.
    AddMember {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeAddr,
    },
    /// A node in the view.
    Admit(NodeAddr),
    /// A node out of the view, for good.
    Remove(NodeAddr),
    /// A node given up with all that only it held; or, where a disk is missing that it had before, that disk alone.
    Forget {
        /// The node.
        node: NodeAddr,
        /// Whether the operator knows what that may lose.
        confirmed: bool,
    },
    /// The change that is under way, undone.
    Cancel,
    /// The birth of the store without a node that does not come up.
    Birth {
        /// The node.
        without: NodeAddr,
        /// Whether the operator knows what that means.
        confirmed: bool,
    },
    /// The store without the nodes that do not answer, though a majority of the voters is among them.
    Recover {
        /// Whether the operator knows what that may lose.
        confirmed: bool,
    },
}

impl Request {
    /// True for what may write: once it is sent on, or taken, its effect is not known without an answer.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The write is done.
    Written {
        /// Whether the key had a value before, as its coordinator saw it.
        existed: bool,
        /// What the session has seen now.
        context: Context,
        /// The key's shard.
        shard: ShardId,
        /// On how many nodes it is durable.
        copies: u32,
    },
    /// The key's value.
    Value {
        /// JSON text, as it was sent.
        value: Bytes,
        /// What the session has seen now.
        context: Context,
    },
    /// The key has no value (for a `GET` or a `DELETE`; nothing was written).
    Missing {
        /// What the session has seen now.
        context: Context,
    },
    /// How many keys of the shard have a value.
    KeyCount(u64),
    /// No answer, and why.
    Error(Code),
}

impl Request {
    /// What the session has seen, where that is asked for.
    pub fn context(&self) -> Option<&Context> {
        match self {
            Self::Get { context, .. } | Self::Put { context, .. } | Self::Delete { context, .. } => Some(context),
            Self::KeyCount { .. } | Self::CountOf { .. } => None,
        }
    }
}

impl Response {
    /// What the session has seen now, where the answer says so.
    pub fn context_mut(&mut self) -> Option<&mut Context> {
        match self {
            Self::Written { context, .. } | Self::Value { context, .. } | Self::Missing { context } => Some(context),
            Self::KeyCount(_) | Self::Error(_) => None,
        }
    }
}

/// Names a client's request at the node that took it; never used twice by one process.
pub type RequestId = u64;

/// One message from a node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A sign of life, every 500 ms, on a channel of its own.
    Ping(Arc<Ping>),
    /// The answer to a ping.
    Pong(Arc<Ping>),
    /// Operations of the sender's own stay, in order of seq.
    Operations {
        /// Their partition.
        partition: PartitionId,
        /// The version of its row at the sender.
        version: Epoch,
        /// The operations; never empty.
        operations: Vec<Arc<Op>>,
    },
    /// What the sender holds durably, changed parts only.
    Report(Vec<PartitionReport>),
    /// What was found stable, changed parts only.
    Stability(Vec<StabilityReport>),
    /// Give me what this vector does not cover.
    FillRequest {
        /// The partition.
        partition: PartitionId,
        /// The version of its row at the sender.
        version: Epoch,
        /// Names the attempt; one request and one view.
        attempt: u64,
        /// What the receiver-to-be has applied.
        vector: VersionVector,
    },
    /// A part of a fill.
    FillChunk(FillChunk),
    /// The chunk is taken; send the next.
    FillNext {
        /// The partition.
        partition: PartitionId,
        /// The attempt.
        attempt: u64,
        /// The index of the chunk that is wanted.
        index: u32,
    },
    /// Serve this for me. Never forwarded again.
    Forward {
        /// The forwarder's name for it.
        id: u64,
        /// What is left of its deadline, in milliseconds.
        remaining_ms: u64,
        /// The request.
        request: Request,
    },
    /// The answer to a forwarded request.
    ForwardReply {
        /// The forwarder's name for it.
        id: u64,
        /// The answer.
        response: Response,
    },
    /// Nothing was done: the receiver does not serve the key, or another peer can answer sooner. Route anew.
    ForwardRefused {
        /// The forwarder's name for it.
        id: u64,
        /// A peer that has what the request depends on, when the refuser knows one.
        better: Option<NodeAddr>,
    },
    /// What the sender's peers hold of partitions that change, for who proposes maps.
    Words(Vec<PartitionWord>),
    /// A change of the map, for the proposer.
    ChangeAsked {
        /// The asker's name for it.
        id: u64,
        /// The change.
        change: Change,
        /// The epoch of the asker's map: the change is in the very next one, or not done.
        epoch: Epoch,
        /// It was asked of that map before, of this node or another, and not answered.
        again: bool,
    },
    /// The answer to that.
    ChangeAnswered {
        /// The asker's name for it.
        id: u64,
        /// The epoch of the map that has the change in it, or why there is none.
        outcome: Result<Epoch, ChangeError>,
    },
    /// Part of deciding the next map.
    Paxos(PaxosMessage),
    /// Agree to a recovery by force.
    RecoveryAsked {
        /// The asker's name for it; another for each time that it asks.
        id: u64,
        /// The branch that begins with it.
        branch: BranchId,
        /// The map that it begins from.
        epoch: Epoch,
        /// Who is there, as the asker hears.
        present: Vec<NodeAddr>,
    },
    /// The answer to that.
    RecoveryAnswered {
        /// The asker's name for it.
        id: u64,
        /// Agreed, or why not.
        outcome: Result<(), Disagreement>,
    },
    /// What do you know of the writes that are lost with these?
    LossAsked {
        /// The asker's name for it.
        id: u64,
        /// The incarnations that are to be given up.
        incarnations: Vec<Incarnation>,
    },
    /// The answer to that.
    LossTold {
        /// The asker's name for it.
        id: u64,
        /// What they have told the answerer that they hold.
        told: Vec<HeldUpTo>,
        /// What it holds itself, of their partitions.
        held: Vec<HeldUpTo>,
    },
    /// Send me your map if it is newer than this.
    MapPull {
        /// The epoch of the newest map that the sender has.
        have: Epoch,
        /// … and that map's hash.
        hash: u64,
    },
    /// A decided map, whole: for who has none that differences lead on from.
    MapPush(Arc<ClusterMap>),
    /// Differences from one decided map to the next, to a newer one than the receiver has; never empty.
    MapDeltas(Vec<Arc<MapDelta>>),
}

/// What one peer of a partition says of itself; true of its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionReport {
    /// The partition.
    pub partition: PartitionId,
    /// The version of its row at the sender.
    pub version: Epoch,
    /// The sender's stay.
    pub stay: StayId,
    /// The changed part of its durable vector.
    pub durable: VersionVector,
    /// Its clock, when it has tombstones to collect.
    pub promise: Option<ClockPromise>,
}

/// Every write that this stay will coordinate after `seq` has a timestamp greater than `clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockPromise {
    /// The last seq assigned when it was made; durable.
    pub seq: Seq,
    /// The clock.
    pub clock: Timestamp,
}

/// What was found stable in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StabilityReport {
    /// The partition.
    pub partition: PartitionId,
    /// The version of the row under which it was found.
    pub version: Epoch,
    /// What is stable, the changed part.
    pub stable: VersionVector,
}

/// What one peer of a partition tells the proposer, under one version of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionWord {
    /// The partition.
    pub partition: PartitionId,
    /// The version of its row at the sender.
    pub version: Epoch,
    /// The sender's stay.
    pub stay: StayId,
    /// What was durable when it had adopted that version and synced.
    pub first: VersionVector,
    /// What is durable by now.
    pub durable: VersionVector,
    /// Grows with every step of a fill: tells whether it gets on.
    pub steps: u64,
    /// Bytes of items that the replica holds, roughly.
    pub bytes: u64,
}

/// A part of a fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FillChunk {
    /// The partition.
    pub partition: PartitionId,
    /// The version of its row at the sender.
    pub version: Epoch,
    /// The attempt it belongs to.
    pub attempt: u64,
    /// Its number within the attempt, from 0.
    pub index: u32,
    /// Keys with their items, ascending by key.
    pub items: Vec<(Key, Item)>,
    /// With the last chunk: what the whole view stands for.
    pub end: Option<FillEnd>,
}

/// What a whole fill stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FillEnd {
    /// The source's vector at the point of the view.
    pub vector: VersionVector,
    /// The source's floor.
    pub floor: Epoch,
    /// The source's clock.
    pub clock: Timestamp,
}

/// What a machine is given, one at a time.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passes; to be given about every [`crate::machine::TICK_MS`].
    Tick,
    /// The batch of this number, and all before it, are durable.
    Synced(BatchNo),
    /// A client's request, to be answered by [`Effect::Reply`] with the same id.
    Request {
        /// The id.
        id: RequestId,
        /// The request.
        request: Request,
        /// How long it may take, in milliseconds.
        budget_ms: u64,
    },
    /// A client's wish to change who belongs to the store or who holds what, to be answered by
    /// [`Effect::ReplyChange`] with the same id when it is done.
    Change {
        /// The id.
        id: RequestId,
        /// The change.
        wanted: Wanted,
        /// How long a majority of the voters has to agree on it, in milliseconds.
        budget_ms: u64,
    },
    /// A message arrived.
    Message {
        /// The sender's address.
        from: NodeAddr,
        /// The sender's incarnation, as its connection told.
        incarnation: Incarnation,
        /// The message.
        message: Message,
    },
    /// A connection to this node stands. What was sent before it may not have arrived.
    Connected {
        /// The peer.
        peer: NodeAddr,
        /// Its incarnation, as the connection told.
        incarnation: Incarnation,
    },
    /// A stream *from* this node begins. What it sent by an earlier one may not have arrived.
    Accepted {
        /// The peer.
        peer: NodeAddr,
    },
    /// The connection to this node broke, or it could not be made.
    Disconnected {
        /// The peer.
        peer: NodeAddr,
        /// True when the peer's machine refused: no process listens there.
        refused: bool,
    },
    /// A node of another branch of the store was turned away, or has turned this one away.
    OtherBranch {
        /// The node.
        peer: NodeAddr,
        /// Where its maps stand.
        standing: Standing,
    },
    /// A node answers, but does not speak with this one, or this one not with it; told after [`Input::Disconnected`].
    TurnedAway {
        /// The node.
        peer: NodeAddr,
        /// Why, in a sentence.
        why: String,
    },
    /// A forward was not handed to the network: nothing was done.
    NotSent {
        /// The forward's id.
        id: u64,
    },
    /// The disk is full (true: a batch was refused, or space is below the reserve), or has room again.
    DiskFull(bool),
}

/// What a machine wants done, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a message, if it can be done without waiting; else drop it ([`Input::NotSent`] for a forward).
    Send {
        /// To whom.
        to: NodeAddr,
        /// What.
        message: Message,
    },
    /// Answer a client's request.
    Reply {
        /// The request's id.
        id: RequestId,
        /// The answer.
        response: Response,
    },
    /// Answer a client's wish for a change: how many writes it has lost, or why it is not done.
    ReplyChange {
        /// The wish's id.
        id: RequestId,
        /// The answer.
        outcome: Result<u64, NotChanged>,
    },
    /// Connect to this node, too: it is not in the map (yet), but speaks with this one.
    Meet(NodeAddr),
    /// The map that the node acts under has changed.
    MapChanged(Arc<ClusterMap>),
    /// Contexts can be given from now on, and whether their texts tell clocks: every node takes those that do, or one may
    /// not. What was true once stays.
    TellClocks(bool),
    /// A line for the log of the operator: something is wrong.
    Warn(String),
    /// A line for the log of the operator: how far something is.
    Note(String),
    /// The node must not go on: says what is wrong and what the operator can do.
    Fatal(StoreError),
}
