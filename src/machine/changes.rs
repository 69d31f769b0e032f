//! Changes that clients of this node have asked for: handed to the proposer, and answered when they are done.
//!
//! A change is asked of the lowest live voter, and of the map in force: as a compare-and-swap, it is in the very next map
//! or it is not done ([`super::asked`]). It is asked again every second until there is an answer, and of the new map when
//! the map has moved on without it. Where nobody answers, as the proposer died, this node compares the map it asked of
//! with the next one: nothing is done twice. Once agreed on, a change is done when the map says so. A client that goes
//! away cancels nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Machine;
use super::agreement::{NotBorn, NotChanged, NotRecovered};
use super::losses::Counting;
use super::message::{Effect, Message, RequestId, Wanted};
use super::pending::Io;
use crate::cluster::change::{Change, ChangeError};
use crate::cluster::map::{ClusterMap, Layout, PeerState, Row};
use crate::cluster::recover::missing_voters;
use crate::cluster::voters::leader;
use crate::types::{Epoch, Incarnation, NodeAddr, ShardId};

/// How often the proposer is asked again, in milliseconds.
const AGAIN_MS: u64 = 1_000;

/// How long a node that is to be admitted has to answer, in milliseconds.
const SILENT_MS: u64 = 3_000;

/// How long after this node others may still count one as live, in milliseconds: a silence and the pings that tell it.
const MISSED_MS: u64 = 5_000;

/// A change without progress for this long, in milliseconds, is answered; the work goes on.
const STALLED_MS: u64 = 60_000;

/// A change as it was asked for, until there is an answer.
#[derive(Clone, Debug)]
struct Ask {
    change: Change,
    of: Arc<ClusterMap>,
    proposer: NodeAddr,
    /// It was sent but once of this map: a proposer that has moved on from the map has not done it, then, nor has any
    /// other. Else that tells nothing.
    sole: bool,
    /// The proposer has moved on from the map.
    moved_on: bool,
    /// The first map seen after that one, and whether it has the change in it.
    shown: Option<(Epoch, bool)>,
}

impl Ask {
    /// The epoch of the map that has the change in it, whatever the proposer answers.
    fn done_in(&self) -> Option<Epoch> {
        self.shown.filter(|(_, done)| *done && !(self.sole && self.moved_on)).map(|(epoch, _)| epoch)
    }

    /// True when it is known not to be done, and may be asked of the next map.
    fn is_over(&self) -> bool {
        self.moved_on && (self.sole || self.shown.is_some_and(|(_, done)| !done))
    }
}

/// A change on its way.
#[derive(Clone, Debug)]
pub(super) struct Changing {
    /// The name that the proposer knows it by; of another map or another proposer it is asked by another name: a late
    /// answer to the one is not taken for the other's.
    id: u64,
    ask: Option<Ask>,
    /// The epoch that it was asked of last, and whether no answer has come.
    asked_of: Epoch,
    unanswered: bool,
    /// Nobody, when this node itself asks.
    client: Option<RequestId>,
    pub wanted: Wanted,
    asked_ms: u64,
    again_ms: u64,
    deadline_ms: u64,
    /// The map that has it in it, once agreed on; and the layout that it aims at, once seen.
    agreed: Option<Epoch>,
    aim: Option<Layout>,
    before: Layout,
    progress: u64,
    progress_ms: u64,
    /// Who is given up with it: the operator was told of what only they hold.
    given_up: BTreeSet<Incarnation>,
    /// The count of what is lost with it, while that is under way.
    pub counting: Option<Counting>,
    /// Writes that are lost with it, as far as is known when they were counted.
    lost_writes: u64,
    /// Partitions that are lost with a recovery.
    pub lost_partitions: u64,
    /// How many recoveries by force the map came of.
    recoveries: usize,
}

impl Changing {
    fn done_in(&self) -> Option<Epoch> {
        self.ask.as_ref().and_then(Ask::done_in)
    }
}

fn reply(client: Option<RequestId>, outcome: Result<u64, NotChanged>, io: &mut Io<'_>) {
    if let Some(id) = client {
        io.effects.push(Effect::ReplyChange { id, outcome });
    }
}

impl Machine {
    /// Takes a change from a client of this node.
    pub(super) fn begin_change(&mut self, client: Option<RequestId>, wanted: Wanted, budget_ms: u64, io: &mut Io<'_>) {
        if let Some(refused) = self.refuse_at_once(&wanted) {
            return reply(client, Err(refused), io);
        }
        let now = self.now.mono_ms;
        if let Wanted::Admit(node) = &wanted
            && *node != self.config.address
            && !self.links.contains_key(node)
        {
            self.meet(node, io);
        }
        let id = self.fresh_id();
        let given_up = self.given_up_with(&wanted);
        let counting = given_up.clone().map(|given_up| self.begin_count(given_up, budget_ms, io));
        self.changes.push(Changing {
            id,
            ask: None,
            asked_of: Epoch(0),
            unanswered: false,
            client,
            wanted,
            asked_ms: now,
            again_ms: now,
            deadline_ms: now.saturating_add(budget_ms),
            agreed: None,
            aim: None,
            before: self.map.layout.clone(),
            progress: 0,
            progress_ms: now,
            given_up: given_up.unwrap_or_default(),
            counting,
            lost_writes: 0,
            lost_partitions: 0,
            recoveries: self.map.line.forks().len(),
        });
        self.tick_changes(io);
    }

    fn refuse_at_once(&mut self, wanted: &Wanted) -> Option<NotChanged> {
        match wanted {
            Wanted::Recover { .. } => self.begin_recovery().err().map(NotChanged::from),
            Wanted::Birth { without, confirmed } => self.begin_birth(without, *confirmed).err().map(NotChanged::from),
            Wanted::Admit(node) if self.is_in_view(node) => Some(ChangeError::AlreadyInView.into()),
            Wanted::Remove(node) if !self.is_in_view(node) => Some(ChangeError::NoSuchNode.into()),
            Wanted::Forget { node, .. } if !self.is_known(node) => Some(ChangeError::NoSuchNode.into()),
            // There is nothing to confirm, and so nothing to count.
            Wanted::Forget { node, confirmed: false } if self.is_not_lost(node) => Some(ChangeError::NotLost.into()),
            _ => None,
        }
    }

    /// A node of the map, or one that had a disk which nobody has given up.
    fn is_known(&self, node: &NodeAddr) -> bool {
        self.map.nodes.contains_key(node) || self.has_lost_disks(node)
    }

    fn is_in_view(&self, node: &NodeAddr) -> bool {
        self.map.nodes.contains_key(node) && !self.map.out.contains(node) && self.is_live(node)
    }

    /// True for a node that is there, with the only disk that is known of it.
    fn is_not_lost(&self, node: &NodeAddr) -> bool {
        let there = self.incarnation_at(node);
        let bound = there.is_some() && self.map.nodes.get(node) == Some(&there);
        bound && self.is_live(node) && !self.has_lost_disks(node)
    }

    /// True when disks are missing that a node had before, and nobody has given them up: the word is on them then.
    fn has_lost_disks(&self, node: &NodeAddr) -> bool {
        self.map.lost_disks(node).next().is_some()
    }

    /// Who is given up with a change. Where disks are missing that a node had before, the word is on them alone.
    fn given_up_with(&self, wanted: &Wanted) -> Option<BTreeSet<Incarnation>> {
        match wanted {
            Wanted::Forget { node, .. } => Some(self.map.disks_meant(node)),
            Wanted::Recover { .. } => Some(self.given_up_by_recovery()),
            _ => None,
        }
    }

    pub(super) fn tick_changes(&mut self, io: &mut Io<'_>) {
        let now = self.now.mono_ms;
        for at in (0..self.changes.len()).rev() {
            let changing = &self.changes[at];
            let outcome = if changing.agreed.is_some() {
                self.stalled(at)
            } else if changing.counting.is_some() {
                self.look_at_count(at)
            } else if let Wanted::Recover { confirmed } = changing.wanted {
                self.tick_recovery(at, confirmed, io).map(NotChanged::from)
            } else if matches!(changing.wanted, Wanted::Birth { .. }) {
                (now >= changing.deadline_ms).then_some(NotBorn::TimeOut.into())
            } else if now >= changing.deadline_ms && changing.done_in().is_none() {
                Some(NotChanged::NoQuorum(self.silent_voters()))
            } else {
                self.ask_again(at, io)
            };
            if let Some(not_changed) = outcome {
                let changing = self.changes.remove(at);
                reply(changing.client, Err(not_changed), io);
            }
        }
        // A recovery is done when the others say that they have its map; what nobody answered, when the map has it.
        self.look_at_changes(io);
    }

    /// Takes the count of what is lost, once it is there: for the operator to confirm, who may have done so already.
    fn look_at_count(&mut self, at: usize) -> Option<NotChanged> {
        let recovers = matches!(self.changes[at].wanted, Wanted::Recover { .. });
        let writes = self.counted(self.changes[at].counting.as_ref()?, recovers)?;
        let changing = &mut self.changes[at];
        (changing.counting, changing.lost_writes) = (None, writes);
        let Wanted::Forget { node, confirmed: false } = &self.changes[at].wanted else { return None };
        Some(if self.has_lost_disks(node) {
            NotChanged::UnconfirmedDisk(writes)
        } else {
            NotChanged::Unconfirmed(writes)
        })
    }

    fn tick_recovery(&mut self, at: usize, confirmed: bool, io: &mut Io<'_>) -> Option<NotRecovered> {
        if self.changes[at].recoveries < self.map.line.forks().len() {
            // By this node's word or another's: there is a map that all who are left go on from.
            self.changes[at].agreed = Some(self.map.epoch);
            return None;
        }
        if self.now.mono_ms >= self.changes[at].deadline_ms {
            Some(self.recovery_not_agreed())
        } else {
            let outcome = self.go_on_recovering(confirmed, self.changes[at].lost_writes, io);
            if matches!(outcome, Some(NotRecovered::Unconfirmed(_))) && self.begin_recovery_of_more() {
                // More is given up than was counted: the operator is told of all of it.
                self.changes[at].wanted = Wanted::Recover { confirmed: false };
                let left_ms = self.changes[at].deadline_ms - self.now.mono_ms;
                self.changes[at].counting = Some(self.begin_count(self.given_up_by_recovery(), left_ms, io));
                return None;
            }
            outcome
        }
    }

    /// Asks the proposer, when it is time to.
    fn ask_again(&mut self, at: usize, io: &mut Io<'_>) -> Option<NotChanged> {
        let now = self.now.mono_ms;
        let changing = &self.changes[at];
        let over = changing.ask.as_ref().is_none_or(Ask::is_over) && changing.asked_of != self.map.epoch;
        let waits = changing.ask.as_ref().is_some_and(|ask| !ask.moved_on);
        if let Some(epoch) = changing.done_in().filter(|_| !waits || now >= changing.again_ms) {
            self.changes[at].agreed = Some(epoch);
            self.changes[at].progress_ms = now;
            return None;
        }
        if now < changing.again_ms && !over {
            return None;
        }
        if self.is_word_on_others(at) {
            return self.count_anew(at, io);
        }
        let change = match self.change_wanted(&self.changes[at]) {
            Ok(change) => change?,
            Err(not_changed) => match &self.changes[at].ask {
                // It may be done by what was asked already: asked again, the next map tells.
                Some(ask) if ask.of.epoch == self.map.epoch => ask.change.clone(),
                _ => return Some(not_changed),
            },
        };
        let live = self.map.nodes.keys().filter(|node| self.is_live(node)).cloned().collect();
        let proposer = leader(&self.map, &live).cloned()?;
        let epoch = self.map.epoch;
        if self.changes[at].ask.as_ref().is_some_and(|ask| ask.proposer != proposer || ask.of.epoch != epoch) {
            self.changes[at].id = self.fresh_id();
        }
        let (changing, of) = (&mut self.changes[at], self.map.clone());
        let sole = changing.asked_of != epoch || !changing.unanswered;
        let again = changing.ask.take().filter(|_| !sole).and_then(|ask| ask.shown);
        changing.ask =
            Some(Ask { change: change.clone(), of, proposer: proposer.clone(), sole, moved_on: false, shown: again });
        (changing.asked_of, changing.unanswered, changing.again_ms) = (epoch, true, now + AGAIN_MS);
        let (id, again) = (changing.id, !sole);
        if proposer == self.config.address {
            self.on_change_asked(&proposer, (id, again), change, epoch, io);
        } else {
            self.send(&proposer, Message::ChangeAsked { id, change, epoch, again }, io);
        }
        None
    }

    /// The word on a node is a word on the disks that the operator was told of. True when the node's disks are others now.
    fn is_word_on_others(&self, at: usize) -> bool {
        let changing = &self.changes[at];
        matches!(&changing.wanted, Wanted::Forget { node, .. } if self.map.disks_meant(node) != changing.given_up)
    }

    /// Either the disks are given up already, or the operator has to hear of the others first.
    fn count_anew(&mut self, at: usize, io: &mut Io<'_>) -> Option<NotChanged> {
        let told = &self.changes[at].given_up;
        if !told.is_empty() && told.is_subset(&self.map.forgotten) {
            self.changes[at].agreed = Some(self.map.epoch);
            return None;
        }
        if let Wanted::Forget { confirmed, .. } = &mut self.changes[at].wanted {
            *confirmed = false;
        }
        let wanted = self.changes[at].wanted.clone();
        if let Some(refused) = self.refuse_at_once(&wanted) {
            return Some(refused);
        }
        let given_up = self.given_up_with(&wanted).unwrap_or_default();
        let left_ms = self.changes[at].deadline_ms - self.now.mono_ms;
        self.changes[at].given_up.clone_from(&given_up);
        self.changes[at].counting = Some(self.begin_count(given_up, left_ms, io));
        None
    }

    /// What is to be asked of the proposer: nothing yet, while a node that is to be admitted has time to answer.
    fn change_wanted(&self, changing: &Changing) -> Result<Option<Change>, NotChanged> {
        Ok(Some(match changing.wanted.clone() {
            Wanted::Reshard(count) => Change::Reshard(count),
            Wanted::AddMember { shard, node } => Change::AddMember { shard, node },
            Wanted::Remove(node) => Change::Remove(node),
            Wanted::Forget { node, .. } => Change::Forget(node),
            Wanted::Cancel => Change::Cancel,
            Wanted::Birth { .. } | Wanted::Recover { .. } => return Ok(None),
            Wanted::Admit(node) => match self.incarnation_at(&node) {
                Some(incarnation) => Change::Admit { node, incarnation },
                None if let Some(why) = self.links.get(&node).and_then(|link| link.turned_away.clone()) => {
                    return Err(NotChanged::TurnedAway { node, why });
                }
                None if self.now.mono_ms >= changing.asked_ms + SILENT_MS => return Err(NotChanged::Silent(node)),
                None => return Ok(None),
            },
        }))
    }

    fn incarnation_at(&self, node: &NodeAddr) -> Option<crate::types::Incarnation> {
        if *node == self.config.address {
            return Some(self.incarnation);
        }
        self.links.get(node).filter(|link| link.connected).and_then(|link| link.incarnation)
    }

    /// The voters that do not answer, or came back without their disks.
    pub(super) fn silent_voters(&self) -> Vec<NodeAddr> {
        missing_voters(&self.map, &self.not_gone())
    }

    pub(super) fn on_change_answered(&mut self, id: u64, outcome: Result<Epoch, ChangeError>, io: &mut Io<'_>) {
        let now = self.now.mono_ms;
        let Some(at) = self.changes.iter().position(|changing| changing.id == id) else { return };
        match outcome {
            Ok(epoch) => {
                self.changes[at].agreed = Some(epoch);
                self.changes[at].progress_ms = now;
                self.look_at_changes(io);
            }
            // It is asked of the next map as soon as this node has that, unless it may have been done.
            Err(ChangeError::MovedOn) => {
                self.changes[at].ask.iter_mut().for_each(|ask| ask.moved_on = true);
            }
            // The proposer, or who told it, has heard the node a moment ago; asked under a new name, it decides anew.
            Err(ChangeError::NotLost) if self.is_missed(at) => {
                let id = self.fresh_id();
                let changing = &mut self.changes[at];
                (changing.ask, changing.id, changing.unanswered) = (None, id, false);
            }
            Err(error) => {
                let changing = self.changes.remove(at);
                reply(changing.client, Err(error.into()), io);
            }
        }
    }

    /// True for the word on a node that this one does not hear any more, while there is time for others to miss it too.
    fn is_missed(&self, at: usize) -> bool {
        let changing = &self.changes[at];
        let Wanted::Forget { node, .. } = &changing.wanted else { return false };
        !self.is_live(node) && self.now.mono_ms < changing.asked_ms + MISSED_MS
    }

    /// Looks at a decided map for what was asked of the one before: should no answer come, that tells whether it was done.
    pub(super) fn compare_asks(&mut self, map: &ClusterMap) {
        for changing in &mut self.changes {
            let Some(ask) = changing.ask.as_mut().filter(|ask| ask.shown.is_none()) else { continue };
            let done = ask.change.is_shown_by(&ask.of, map);
            ask.shown = Some((map.epoch, done));
            if done {
                changing.aim = Some(map.wanted_layout().clone());
            }
        }
    }

    /// Answers the changes that the map in force shows to be done, or undone.
    pub(super) fn look_at_changes(&mut self, io: &mut Io<'_>) {
        for at in (0..self.changes.len()).rev() {
            let born = matches!(self.changes[at].wanted, Wanted::Birth { .. }) && self.map.is_born();
            if !born && self.changes[at].agreed.is_none_or(|epoch| self.map.epoch < epoch) {
                continue;
            }
            // A map further on may aim at something else already.
            if self.changes[at].agreed == Some(self.map.epoch) && self.changes[at].aim.is_none() {
                self.changes[at].aim = Some(self.map.wanted_layout().clone());
            }
            if let Some(outcome) = self.outcome(&self.changes[at]) {
                let changing = self.changes.remove(at);
                reply(changing.client, outcome, io);
            }
        }
    }

    fn outcome(&self, changing: &Changing) -> Option<Result<u64, NotChanged>> {
        let (done, cancelled) = (Ok(changing.lost_writes), Err(NotChanged::Cancelled));
        let (map, settled) = (&self.map, self.map.target.is_none());
        match &changing.wanted {
            Wanted::Reshard(count) if settled => {
                let is_new = changing.aim.is_none() || map.layout != changing.before;
                let there = changing.aim.as_ref() == Some(&map.layout)
                    || (map.layout.shards.len() == *count as usize && is_new);
                Some(if there { done } else { cancelled })
            }
            Wanted::AddMember { shard, node } if settled => {
                Some(if map.layout.shard_of(node) == Some(*shard) { done } else { cancelled })
            }
            Wanted::Reshard(_) | Wanted::AddMember { .. } => None,
            Wanted::Remove(node) => (!self.has_stays(node)).then_some(done),
            Wanted::Cancel => (settled && self.is_as_laid_out()).then_some(done),
            Wanted::Recover { .. } => self.all_have_this_map().then_some(Ok(changing.lost_partitions)),
            Wanted::Admit(_) | Wanted::Forget { .. } | Wanted::Birth { .. } => Some(done),
        }
    }

    /// Every partition has nothing but Serving peers, all of them at nodes of its shard, and one at each that is live.
    fn is_as_laid_out(&self) -> bool {
        let map = &self.map;
        let bound = |node: &NodeAddr| map.nodes.get(node).copied().flatten();
        let laid_out = |(row, shard): (&Row, &ShardId)| {
            let members = map.layout.members(*shard).unwrap_or_default();
            let wanted: BTreeSet<_> = members.iter().filter_map(bound).collect();
            let live = members.iter().filter(|node| self.is_live(node)).filter_map(bound);
            let serves = |node| row.peers.values().any(|stay| stay.incarnation == node);
            row.peers.values().all(|stay| stay.state == PeerState::Serving && wanted.contains(&stay.incarnation))
                && live.into_iter().all(serves)
        };
        map.rows.iter().zip(&map.layout.partitions).all(laid_out)
    }

    fn has_stays(&self, node: &NodeAddr) -> bool {
        let Some(bound) = self.map.nodes.get(node).copied().flatten() else { return false };
        self.map.rows.iter().any(|row| row.peers.values().any(|stay| stay.incarnation == bound))
    }

    /// A change that does not get on: no new map, and no node has told of a further step.
    fn stalled(&mut self, at: usize) -> Option<NotChanged> {
        let now = self.now.mono_ms;
        let steps = self.links.values().fold(self.filling_steps(), |all, link| all.wrapping_add(link.steps));
        let progress = self.map.epoch.0.wrapping_add(steps);
        let changing = &mut self.changes[at];
        if changing.progress != progress {
            changing.progress = progress;
            changing.progress_ms = now;
        }
        (now >= changing.progress_ms + STALLED_MS).then_some(NotChanged::Stalled)
    }
}
