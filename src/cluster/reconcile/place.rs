//! One partition's way through the table: the steps that take peers on, down and out of its row.
//!
//! Every method is one line of the table in `super`; `join` has the two that name new stays. A step looks at the row as
//! the steps before left it ([`Place::seen`]); what was told is read with the row under which it was told
//! ([`Place::was`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::rules::{ReconcileRule, ReconcileRules};
use super::sight::{ABSENT_MS, Sight};
use super::{Step, Told, Vector, Word};
use crate::cluster::map::{PeerState, Row, Stay};
use crate::types::{Incarnation, NodeAddr, PartitionId, StayId};

/// What all partitions of one map have in common.
pub(super) struct Table<'a> {
    /// The nodes' incarnations as the next map binds them.
    pub bound: BTreeMap<Incarnation, &'a NodeAddr>,
    pub forgotten: &'a BTreeSet<Incarnation>,
    pub out: &'a BTreeSet<NodeAddr>,
    pub told: &'a Told,
    pub sight: &'a Sight,
    pub rules: ReconcileRules,
}

impl Table<'_> {
    pub fn on(&self, rule: ReconcileRule) -> bool {
        self.rules.on(rule)
    }

    /// Its address is bound to another, or to none.
    pub fn is_gone(&self, stay: &Stay) -> bool {
        !self.bound.contains_key(&stay.incarnation)
    }

    /// Live, and known to be there: a process under another name than the one bound is not who is meant.
    pub fn is_live(&self, incarnation: Incarnation) -> bool {
        let Some(node) = self.bound.get(&incarnation) else { return false };
        let present = self.sight.connected.get(*node);
        self.sight.live.contains(*node) && present.is_none_or(|connected| *connected == incarnation)
    }

    fn serves(&self, stay: &Stay) -> bool {
        stay.serves() && !self.is_gone(stay)
    }
}

/// Who is wanted for the partitions of one shard.
pub(super) struct Wanted {
    /// How many nodes.
    count: usize,
    /// Those that are bound, ascending by address.
    bound: Vec<Incarnation>,
    /// Of these, the live.
    live: Vec<Incarnation>,
}

impl Wanted {
    pub fn new(table: &Table<'_>, nodes: &BTreeMap<NodeAddr, Option<Incarnation>>, members: &[NodeAddr]) -> Self {
        let wanted: Vec<_> = members.iter().filter(|node| !table.out.contains(*node)).collect();
        let bound: Vec<_> = wanted.iter().filter_map(|node| nodes.get(*node).copied().flatten()).collect();
        let live = bound.iter().copied().filter(|node| table.is_live(*node)).collect();
        Self { count: wanted.len(), bound, live }
    }
}

/// One partition while the next map is made.
pub(super) struct Place<'a> {
    pub table: &'a Table<'a>,
    pub partition: PartitionId,
    /// The row of the map that is.
    pub was: &'a Row,
    /// The row of the map that comes: most rows of most maps stay as they are.
    pub row: Cow<'a, Row>,
    pub wanted: &'a Wanted,
    pub steps: Vec<(PartitionId, Step)>,
}

impl<'a> Place<'a> {
    pub fn new(table: &'a Table<'a>, wanted: &'a Wanted, partition: PartitionId, was: &'a Row) -> Self {
        Self { table, partition, was, row: Cow::Borrowed(was), wanted, steps: Vec::new() }
    }

    /// The peers that a step looks at.
    pub fn seen(&self) -> &BTreeMap<StayId, Stay> {
        if self.table.on(ReconcileRule::InTurn) { &self.row.peers } else { &self.was.peers }
    }

    pub fn took(&mut self, step: Step) {
        self.steps.push((self.partition, step));
    }

    pub fn live_wanted(&self) -> &'a [Incarnation] {
        &self.wanted.live
    }

    fn is_wanted(&self, stay: &Stay) -> bool {
        self.wanted.bound.contains(&stay.incarnation)
    }

    /// What a peer told under the version that the map has.
    fn word(&self, stay: StayId) -> Option<&'a Word> {
        self.table.told.get(&(self.partition, stay)).filter(|word| word.version == self.was.version)
    }

    /// True when a peer holds all of this durably, as it told.
    fn holds(&self, stay: StayId, what: &Vector) -> bool {
        self.word(stay).is_some_and(|word| covers(&word.durable, what))
    }

    /// The state a peer had when it told what it told.
    fn state_then(&self, stay: StayId) -> Option<PeerState> {
        self.was.peers.get(&stay).map(|stay| stay.state)
    }

    /// The steps that only take what is there on its way.
    pub fn go_on(&mut self) {
        self.drop_joining();
        self.lose();
        self.promote();
        self.leave_absent();
        self.leave_unwanted();
        self.close();
    }

    /// A Joining peer that is not wanted, is gone, or whose fill stands still. It never wrote.
    fn drop_joining(&mut self) {
        let joining: Vec<_> =
            self.row.peers.iter().filter(|(_, stay)| stay.is_joining()).map(|(n, s)| (*n, *s)).collect();
        for (number, stay) in joining {
            let step = if self.table.is_gone(&stay) {
                Step::JoinerGone
            } else if !self.is_wanted(&stay) {
                Step::JoinerUnwanted
            } else if self.table.sight.stalled.contains(&(self.partition, number)) {
                Step::JoinerStalled
            } else {
                continue;
            };
            self.row.to_mut().peers.remove(&number);
            self.took(step);
        }
    }

    /// A gone peer while another serves, or one that the operator forgot: Leaving, lost.
    fn lose(&mut self) {
        let by_word = |stay: &Stay| self.table.forgotten.contains(&stay.incarnation);
        let may_be_lost = |(_, stay): &(&StayId, &Stay)| by_word(stay) || self.table.is_gone(stay);
        let numbers: Vec<_> = self.row.peers.iter().filter(may_be_lost).map(|(number, _)| *number).collect();
        for number in numbers {
            let stay = self.row.peers[&number];
            let by_word = self.table.forgotten.contains(&stay.incarnation);
            let serves = |other: &Stay| {
                if self.table.on(ReconcileRule::GoneOther) { self.table.serves(other) } else { other.serves() }
            };
            let another = self.seen().iter().any(|(other, peer)| *other != number && serves(peer));
            let may = another || !self.table.on(ReconcileRule::LastServing);
            let lost = stay.lost || by_word || (self.table.is_gone(&stay) && may);
            if lost && (!stay.lost || by_word != stay.lost_by_word && by_word) {
                let lost = Stay { state: PeerState::Leaving, lost: true, lost_by_word: by_word, ..stay };
                self.row.to_mut().peers.insert(number, lost);
                self.took(if by_word { Step::LostByWord } else { Step::Lost });
            }
        }
    }

    /// A Joining peer that holds what one Serving peer told: Serving. Where nobody serves: what all Leaving ones told.
    fn promote(&mut self) {
        let joining: Vec<_> = self.row.peers.iter().filter(|(_, stay)| stay.is_joining()).map(|(n, _)| *n).collect();
        for number in joining {
            let Some(word) = self.word(number) else { continue };
            let seen = self.seen();
            let nobody = !seen.values().any(Stay::serves);
            let ready =
                if nobody { self.has_all_left(&word.durable, seen) } else { self.has_one_serving(&word.durable, seen) };
            if ready {
                self.set(number, PeerState::Serving);
                self.took(if nobody { Step::PromotedFromLeaving } else { Step::Promoted });
            }
        }
    }

    fn has_one_serving(&self, has: &Vector, seen: &BTreeMap<StayId, Stay>) -> bool {
        if !self.table.on(ReconcileRule::PromoteTold) {
            return true;
        }
        let then = |number: StayId| {
            self.state_then(number) == Some(PeerState::Serving) || !self.table.on(ReconcileRule::PromoteServing)
        };
        let serving = seen.iter().filter(|(number, stay)| stay.serves() && then(**number));
        serving.filter_map(|(number, _)| self.word(*number)).any(|word| covers(has, &word.first))
    }

    fn has_all_left(&self, has: &Vector, seen: &BTreeMap<StayId, Stay>) -> bool {
        let left: Vec<_> = seen.iter().filter(|(_, stay)| stay.is_leaving() && !stay.lost).collect();
        let mut has = left.iter().map(|(number, _)| self.word(**number).is_some_and(|word| covers(has, &word.first)));
        let enough = if self.table.on(ReconcileRule::NobodyAll) { has.all(|has| has) } else { has.any(|has| has) };
        !left.is_empty() && enough
    }

    /// A Serving peer that is out of reach, while another live one serves: Leaving.
    fn leave_absent(&mut self) {
        let silent = |node: &&NodeAddr| self.table.sight.is_silent(node, ABSENT_MS);
        let absent = |stay: &Stay| self.table.bound.get(&stay.incarnation).is_some_and(silent);
        for number in self.serving(absent) {
            let another = self.seen().iter().any(|(other, peer)| {
                *other != number && self.table.serves(peer) && self.table.is_live(peer.incarnation)
            });
            if another || !self.table.on(ReconcileRule::AbsentOther) {
                self.set(number, PeerState::Leaving);
                self.took(Step::LeftAbsent);
            }
        }
    }

    /// A Serving peer that is not wanted, when all live nodes that are wanted serve: Leaving.
    fn leave_unwanted(&mut self) {
        let live = self.live_wanted();
        for number in self.serving(|stay| !self.is_wanted(stay)) {
            let stay = self.row.peers[&number];
            let Some(node) = self.table.bound.get(&stay.incarnation) else { continue };
            let alone = self.wanted.count <= 1 || self.table.out.contains(*node);
            let enough = if alone || !self.table.on(ReconcileRule::LeaveTwo) { 1 } else { 2 };
            let all = !self.table.on(ReconcileRule::LeaveServe) || self.all_serve(live, self.seen());
            if live.len() >= enough && all {
                self.set(number, PeerState::Leaving);
                self.took(Step::LeftUnwanted);
            }
        }
    }

    /// True when each of these has a Serving stay.
    pub fn all_serve(&self, nodes: &[Incarnation], seen: &BTreeMap<StayId, Stay>) -> bool {
        nodes.iter().all(|node| seen.values().any(|stay| stay.serves() && stay.incarnation == *node))
    }

    /// A Leaving peer of which all that it told (of a lost one: all that the others told of it) is at every Serving and
    /// Joining peer, and two live ones serve: closed.
    fn close(&mut self) {
        let seen = self.seen();
        let of = |state: PeerState| seen.iter().filter(move |(_, stay)| stay.state == state);
        // The disk of one who is silent may be lost, and this copy the last.
        let counts = |stay: &Stay| {
            if self.table.on(ReconcileRule::CloseLive) {
                self.table.is_live(stay.incarnation)
            } else {
                !self.table.is_gone(stay)
            }
        };
        let serving = of(PeerState::Serving).filter(|(_, stay)| counts(stay)).count();
        let needed = if self.wanted.count <= 1 || !self.table.on(ReconcileRule::CloseTwo) { 1 } else { 2 };
        if serving < needed && self.table.on(ReconcileRule::EmptySet) {
            return;
        }
        let mut closed = Vec::new();
        for (number, stay) in of(PeerState::Leaving) {
            if self.table.on(ReconcileRule::CloseRejoined) && self.is_about_to_join(stay, seen) {
                continue;
            }
            let Some(what) = self.to_be_kept(*number, stay, seen) else { continue };
            let has = |(other, _): (&StayId, &Stay)| self.holds(*other, &what);
            let every = self.table.on(ReconcileRule::CloseServing);
            let served = if every { of(PeerState::Serving).all(has) } else { of(PeerState::Serving).any(has) };
            let joined = !self.table.on(ReconcileRule::CloseJoining) || of(PeerState::Joining).all(has);
            if served && joined {
                closed.push((*number, if stay.lost { Step::ClosedLost } else { Step::Closed }));
            }
        }
        for (number, step) in closed {
            self.row.to_mut().peers.remove(&number);
            self.took(step);
        }
    }

    /// A wanted node that is back: it joins from what it holds, which would go with the last of its stays.
    fn is_about_to_join(&self, stay: &Stay, seen: &BTreeMap<StayId, Stay>) -> bool {
        let stays = seen.values().filter(|other| other.incarnation == stay.incarnation).count();
        let waits = self.table.sight.waiting.contains(&(self.partition, stay.incarnation));
        !stay.lost && stays == 1 && !waits && self.live_wanted().contains(&stay.incarnation)
    }

    /// What of a Leaving peer must not go with it; `None` while that is not known.
    fn to_be_kept(&self, number: StayId, stay: &Stay, seen: &BTreeMap<StayId, Stay>) -> Option<Vector> {
        let then = self.was.peers.get(&number)?;
        if !then.is_leaving() && self.table.on(ReconcileRule::CloseLeaving) {
            return None;
        }
        if !stay.lost {
            let told = &self.word(number)?.first;
            let whole = self.table.on(ReconcileRule::CloseWhole);
            return Some(if whole { told.clone() } else { own_writes(number, told.get(&number).copied()) });
        }
        if !then.lost && self.table.on(ReconcileRule::LostVersion) {
            return None;
        }
        let others = if self.table.on(ReconcileRule::LostThen) { &self.was.peers } else { seen };
        let counts = |other: &Stay| match other.state {
            PeerState::Joining => self.table.on(ReconcileRule::LostJoining),
            PeerState::Serving => true,
            PeerState::Leaving => self.table.on(ReconcileRule::LostLeaving),
        };
        let others = others.iter().filter(|(other, stay)| **other != number && !stay.lost && counts(stay));
        let words: Vec<_> = others.map(|(other, _)| self.word(*other)).collect();
        let told: Vec<&Word> = words.iter().copied().flatten().collect();
        if told.is_empty() || (told.len() < words.len() && self.table.on(ReconcileRule::LostAll)) {
            return None;
        }
        Some(own_writes(number, told.iter().filter_map(|word| word.first.get(&number)).max().copied()))
    }

    /// True when there is nothing left to do that the target waits for: who is out of reach can go on joining when it is
    /// back, and holds up nobody till then.
    pub fn is_where_wanted(&self) -> bool {
        let could_leave = |stay: &Stay| self.table.serves(stay) && !self.is_wanted(stay);
        let joins = |stay: &Stay| stay.is_joining() && self.table.is_live(stay.incarnation);
        let underway = self.row.peers.values().any(|stay| joins(stay) || could_leave(stay));
        !underway && self.all_serve(self.live_wanted(), &self.row.peers)
    }

    /// The Serving peers of which this is true.
    fn serving(&self, which: impl Fn(&Stay) -> bool) -> Vec<StayId> {
        let peers = self.row.peers.iter().filter(|(_, stay)| stay.serves() && which(stay));
        peers.map(|(number, _)| *number).collect()
    }

    fn set(&mut self, number: StayId, state: PeerState) {
        if let Some(stay) = self.row.to_mut().peers.get_mut(&number) {
            stay.state = state;
        }
    }
}

fn own_writes(stay: StayId, up_to: Option<u64>) -> Vector {
    up_to.map(|seq| (stay, seq)).into_iter().collect()
}

/// True when the first holds all that the second does.
fn covers(has: &Vector, what: &Vector) -> bool {
    what.iter().all(|(stay, seq)| has.get(stay).is_some_and(|held| held >= seq) || *seq == 0)
}
