//! One partition as this node sees it: its row, what the peers said, the replica if there is one, what is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::fill::FillIn;
use super::fill::budget::Purpose;
use super::message::ClockPromise;
use super::requests::Origin;
use super::rules::{Rule, Rules};
use crate::causal::context::Context;
use crate::causal::op::Op;
use crate::causal::partition::Replica;
use crate::causal::stability::{Stable, Words};
use crate::causal::vector::VersionVector;
use crate::cluster::map::{ClusterMap, PeerState};
use crate::types::{BatchNo, Dot, Epoch, Incarnation, NodeAddr, PartitionId, Seq, StayId, Timestamp};

/// Bytes of own operations that are kept in memory for streams; older ones are read from the log.
const RECENT_BYTES: usize = 1 << 20;

/// One stay of the row, with the address its incarnation is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartPeer {
    pub stay: StayId,
    pub node: NodeAddr,
    pub incarnation: Incarnation,
    pub state: PeerState,
    pub lost: bool,
    /// Whether the stay is this node's.
    pub own: bool,
    /// Whether its address is bound to another incarnation, or to none.
    pub gone: bool,
    /// Serves a partition whose writes were all lost since this epoch.
    pub begun_empty: Option<Epoch>,
}

/// A write of this node that its client has no answer to yet.
#[derive(Clone, Debug)]
pub(super) struct Unanswered {
    pub dot: Dot,
    pub origin: Origin,
    pub context: Context,
    pub existed: bool,
    pub deadline_ms: u64,
}

/// How far the stream of this node's operations to one peer is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// The last operation handed to the network.
    pub sent: Seq,
    /// The peer holds everything up to here durably, as it has said under the version in force.
    pub acked: Seq,
    /// The same, under whatever version it said so.
    pub held: Seq,
    /// Since when there is something durable here that the peer has not acknowledged.
    pub behind_since_ms: Option<u64>,
    /// When the stream goes back to `acked`, for want of progress.
    pub resend_at_ms: u64,
    /// How often it went back without progress.
    pub resends: u32,
    /// Operations in flight: last seq of each message and its bytes.
    pub flight: VecDeque<(Seq, usize)>,
}

impl Progress {
    /// Under a new version: what was acknowledged counts no more till it is said again, but need not be sent again.
    pub fn again(&self) -> Self {
        Self { sent: self.held, held: self.held, ..Self::default() }
    }

    /// Whether something up to here is to be sent, or its acknowledgement begun to be waited for.
    pub fn is_behind(&self, sendable: Seq) -> bool {
        self.sent.max(self.acked) < sendable || (self.acked < sendable && self.behind_since_ms.is_none())
    }
}

/// What a peer has and this node lacks.
#[derive(Clone, Debug)]
pub(super) struct Lack {
    pub since_ms: u64,
    /// What the peer had then. A stream that is merely late catches up with it, and the time begins anew.
    pub durable: VersionVector,
}

/// The log entries of the own stay that are still in memory, in order of seq without gaps.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    ops: VecDeque<Arc<Op>>,
    bytes: usize,
}

impl Recent {
    pub fn push(&mut self, op: Arc<Op>) {
        self.bytes += op.weight();
        self.ops.push_back(op);
        while self.bytes > RECENT_BYTES && self.ops.len() > 1 {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(op) = self.ops.pop_front() {
            self.bytes -= op.weight();
        }
    }

    /// The operation of this seq, if it is in memory.
    pub fn get(&self, seq: Seq) -> Option<&Arc<Op>> {
        let first = self.ops.front()?.item.dot.seq;
        self.ops.get(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    /// Drops everything up to `seq`.
    pub fn truncate(&mut self, seq: Seq) {
        while self.ops.front().is_some_and(|op| op.item.dot.seq <= seq) {
            self.pop();
        }
    }
}

/// The log of one own stay, and how far the others have it.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnLog {
    /// The newest operations, in memory.
    pub recent: Recent,
    /// Up to here, the log is truncated.
    pub truncated: Seq,
    /// Streams to the other peers.
    pub streams: BTreeMap<StayId, Progress>,
}

/// One partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// The version of the row that this node acts under.
    pub version: Epoch,
    /// The stay number that the row gives out next: from here on, stays are of a newer map.
    pub next_stay: StayId,
    /// The stays of the row.
    pub peers: Vec<PartPeer>,
    /// The clauses in force.
    pub rules: Rules,
    /// What this node holds.
    pub replica: Option<Replica>,
    /// What is left of a dropped replica is being removed; a new one begins after that.
    pub dropping: bool,
    /// The batch that the replica changed with last: what it holds, and what it is held for.
    pub written: BatchNo,
    /// With this batch durable, the peer may say its first word under the version in force.
    pub speaks_from: BatchNo,
    /// What was told as the first word under this version.
    pub told: Option<VersionVector>,
    /// What the peers said under this version.
    pub words: Words,
    /// What is known to be stable; known of every partition.
    pub stable: Stable,
    /// The logs of the own stays that the replica is held for.
    pub logs: BTreeMap<StayId, OwnLog>,
    /// Own stays that were closed in order: what they wrote is everywhere.
    pub drained: BTreeSet<StayId>,
    /// Own writes without an answer, in order of dot.
    pub unanswered: VecDeque<Unanswered>,
    /// Up to here, an own stay's writes were acknowledged or could have been.
    pub ackable: BTreeMap<StayId, Seq>,
    /// Own writes beyond `ackable` that were answered at their deadline.
    pub answered: BTreeSet<Dot>,
    /// The last changes of the durable vector that no report has told yet.
    pub untold: BTreeSet<StayId>,
    /// Since when operations wait and none is ready.
    pub blocked_since_ms: Option<u64>,
    /// Peers that have what is lacking here.
    pub lacking: BTreeMap<StayId, Lack>,
    /// The fill that is being received.
    pub filling: Option<FillIn>,
    /// Chunks taken and changes of the vector since the start: tells whether a joining peer gets on.
    pub filled_steps: u64,
    /// The own stays' clock promises that are told once the writes up to their seq are durable.
    pub vows: BTreeMap<StayId, ClockPromise>,
    /// Where the search for tombstones to collect goes on.
    pub collect_from: Option<bytes::Bytes>,
    /// With which clock the search began, and when it is begun anew without a greater one, in monotonic milliseconds.
    pub collected: (Timestamp, u64),
}

impl Part {
    /// Takes over the row of a new map. What was said under the version before counts no more. Gives what is to be
    /// removed from the store of an unfinished fill.
    pub fn adopt(&mut self, map: &ClusterMap, partition: PartitionId, me: Incarnation, at: &NodeAddr, rules: Rules) {
        let row = map.row(partition);
        (self.version, self.rules) = (row.version, rules);
        self.next_stay = if rules.on(Rule::NextStay) { row.next_stay } else { StayId(u32::MAX) };
        let own_name = rules.on(Rule::OwnName);
        self.peers = row
            .peers
            .iter()
            .filter_map(|(&stay, peer)| {
                // One whose address is bound to another has no connection to be reached by.
                let bound = map.address_of(peer.incarnation).or_else(|| map.former.get(&peer.incarnation));
                let node = bound?.clone();
                let own = peer.incarnation == me || (!own_name && node == *at);
                let gone = map.address_of(peer.incarnation).is_none();
                let (incarnation, state, lost) = (peer.incarnation, peer.state, peer.lost);
                Some(PartPeer { stay, node, incarnation, state, lost, own, gone, begun_empty: peer.begun_empty })
            })
            .collect();
        self.words.clear();
        self.told = None;
        let receivers: Vec<StayId> = self.receivers().map(|peer| peer.stay).collect();
        for log in self.logs.values_mut() {
            let before = std::mem::take(&mut log.streams);
            let again = |stay: &StayId| before.get(stay).map_or_else(Progress::default, Progress::again);
            log.streams = receivers.iter().map(|stay| (*stay, again(stay))).collect();
        }
        self.vows.clear();
        self.collected = Default::default();
        self.blocked_since_ms = None;
        self.lacking.clear();
    }

    /// Takes over who is bound to which address: that changes without the row, when a node is started on another
    /// directory, or on the right one again.
    pub fn bind(&mut self, map: &ClusterMap) {
        for peer in &mut self.peers {
            let bound = map.address_of(peer.incarnation);
            peer.gone = bound.is_none();
            if let Some(node) = bound {
                peer.node = node.clone();
            }
        }
    }

    /// The own stays that a replica is held for.
    pub fn held_for(&self, known: bool) -> Vec<StayId> {
        self.peers.iter().filter(|peer| peer.own && (!peer.lost || !known)).map(|peer| peer.stay).collect()
    }

    /// Makes the logs those of the stays that the replica is held for.
    pub fn keep_logs(&mut self) {
        let held = self.replica.as_ref().map(|replica| replica.held_for.clone()).unwrap_or_default();
        let receivers: Vec<StayId> = self.receivers().map(|peer| peer.stay).collect();
        self.logs.retain(|stay, _| held.contains(stay));
        for stay in held {
            self.logs.entry(stay).or_insert_with(|| OwnLog {
                streams: receivers.iter().map(|stay| (*stay, Progress::default())).collect(),
                ..OwnLog::default()
            });
        }
    }

    /// This node's stays that are not lost.
    pub fn own_stays(&self) -> impl Iterator<Item = &PartPeer> {
        self.peers.iter().filter(|peer| peer.own && !peer.lost)
    }

    /// This node's stay that receives writes and makes up stability, if it has one.
    pub fn own_member(&self) -> Option<&PartPeer> {
        self.own_stays().find(|peer| peer.state != PeerState::Leaving)
    }

    /// This node's stay that is not lost, a Serving one first.
    pub fn own(&self) -> Option<&PartPeer> {
        self.own_member().or_else(|| self.own_stays().next())
    }

    /// This node's stay, if it serves and holds a replica.
    pub fn own_serving(&self) -> Option<StayId> {
        let serving = self.own_stays().find(|peer| peer.state == PeerState::Serving).map(|peer| peer.stay);
        serving.filter(|_| self.replica.is_some())
    }

    /// What a fill of this node is for, or of another one.
    pub fn purpose_of(&self, receiver: &NodeAddr) -> Purpose {
        let serves = |peer: &&PartPeer| peer.node == *receiver && peer.state == PeerState::Serving && !peer.lost;
        if self.peers.iter().any(|peer| serves(&peer)) { Purpose::Repair } else { Purpose::Move }
    }

    /// This node's stay that answers a request of a client: one that serves (R4).
    pub fn own_answering(&self, writes: bool) -> Option<StayId> {
        let rule = if writes { Rule::LeaveWrites } else { Rule::LeaveReads };
        let leaving = || self.own_stays().find(|peer| peer.state == PeerState::Leaving).map(|peer| peer.stay);
        self.own_serving().or_else(|| leaving().filter(|_| !self.rules.on(rule) && self.replica.is_some()))
    }

    /// The peer of this stay.
    pub fn peer(&self, stay: StayId) -> Option<&PartPeer> {
        self.peers.iter().find(|peer| peer.stay == stay)
    }

    /// The peers that serve, this node included.
    pub fn serving(&self) -> impl Iterator<Item = &PartPeer> {
        self.peers.iter().filter(|peer| peer.state == PeerState::Serving)
    }

    /// The Serving and Joining peers, this node included: they make up stability.
    pub fn members(&self) -> impl Iterator<Item = &PartPeer> {
        self.peers.iter().filter(|peer| peer.state != PeerState::Leaving)
    }

    /// The other peers that receive every write.
    pub fn receivers(&self) -> impl Iterator<Item = &PartPeer> {
        self.members().filter(|peer| !peer.own)
    }

    /// The other nodes that hear what this one holds: those that receive its writes, and those that leave, whose last
    /// writes wait for that.
    pub fn hearers(&self) -> BTreeSet<&NodeAddr> {
        self.peers.iter().filter(|peer| !peer.own && !peer.lost && !peer.gone).map(|peer| &peer.node).collect()
    }

    /// True for a stay whose writes everybody has.
    pub fn is_closed(&self, stay: StayId) -> bool {
        stay < self.next_stay && self.peer(stay).is_none()
    }

    /// The version under which a write is known to be at every peer that serves; `None` when it is not known.
    pub fn settled(&self, stay: StayId, seq: Seq) -> Option<Epoch> {
        self.stable.covers(stay, seq).or_else(|| self.is_closed(stay).then_some(self.version))
    }

    /// On how many Serving peers the own write is durable, this node included if it serves.
    pub fn copies(&self, dot: Dot) -> u32 {
        let holds = |peer: &&PartPeer| match &self.replica {
            Some(replica) if peer.own => replica.durable.covers(dot),
            _ => self.words.durable(peer.stay, dot.stay) >= dot.seq,
        };
        let any = !self.rules.on(Rule::CountServing);
        let counts = |peer: &&PartPeer| !peer.gone && (any || peer.state == PeerState::Serving);
        self.peers.iter().filter(counts).filter(holds).count() as u32
    }
}
