//! Recovery by force: the operator's word in place of a majority of voters that never comes back.
//!
//! The node that is asked makes the map ([`crate::cluster::recover`]) from its own, which must be the newest of all that
//! answer, and asks every one of them: who agrees hears no majority of the voters, and nobody that the asker does not
//! hear, and has agreed to no other recovery lately. When all have, the map is decided: stored here, acted under once
//! that is durable, and pushed to everybody, as any other. Who does not agree, or does not answer, is asked again every
//! second, until the operator's time is over; then nothing is done.
//!
//! A node goes over to a recovered line of maps only while no majority of its own voters answers it. So a recovery on
//! the wrong side of a cut ends nobody: who goes on by the old line, and has a majority for it, is told of it, and is
//! not ready until the operator has chosen. Who was given up and is alone when it comes back sets its directory aside,
//! as a forgotten one does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::agreement::{Disagreement, NotRecovered, RecoveryCost};
use super::message::{Effect, Message, Wanted};
use super::open::derive;
use super::{Io, Machine};
use crate::cluster::line::{Relation, Standing};
use crate::cluster::map::ClusterMap;
use crate::cluster::recover::{Draw, RecoverError, Vow, cost, quorum_lives, recover};
use crate::types::{BranchId, Epoch, Incarnation, NodeAddr};

/// How often those that have not agreed are asked again, in milliseconds.
const ASK_MS: u64 = 1_000;

/// For how long a node on another line counts as there, in milliseconds.
const APART_MS: u64 = 5_000;

/// What a node keeps of recoveries.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    vow: Vow,
    attempt: Option<Attempt>,
    /// Whom the operator was told of, and gave up.
    given_up: BTreeSet<NodeAddr>,
    /// The branch whose map was refused last.
    warned: Option<BranchId>,
}

/// One round of asking.
#[derive(Debug)]
struct Attempt {
    id: u64,
    asked_ms: u64,
    next: Arc<ClusterMap>,
    /// Partitions that are lost with it.
    lost: u64,
    waiting: BTreeSet<NodeAddr>,
    against: BTreeMap<NodeAddr, Disagreement>,
}

impl Machine {
    /// Who is there right now, this node included: heard on this line of maps, each as its connection told.
    pub(super) fn present(&self) -> BTreeMap<NodeAddr, Incarnation> {
        let now = self.now.mono_ms;
        let there = self.links.iter().filter(|(node, link)| link.connected && self.detector.hears(now, node));
        let there = there.filter_map(|(node, link)| Some((node.clone(), link.incarnation?)));
        there.chain([(self.config.address.clone(), self.incarnation)]).collect()
    }

    /// Whether a majority of the voters is there, or may be: nobody who has not been silent for a while counts as gone,
    /// so that a node that has just started listens before it takes the others for lost.
    fn quorum_may_live(&self) -> bool {
        quorum_lives(&self.map, &self.not_gone())
    }

    /// The map's nodes that are not known to be out of reach, each as its connection told, or else as it is bound; this
    /// one as what it is, which is another than the bound one when it came back without its disk.
    pub(super) fn not_gone(&self) -> BTreeMap<NodeAddr, Incarnation> {
        let live = self.map.nodes.iter().filter(|(node, _)| self.is_live(node));
        let there = live.filter_map(|(node, bound)| {
            let own = (*node == self.config.address).then_some(self.incarnation);
            let told = own.or_else(|| self.links.get(node).and_then(|link| link.incarnation));
            Some((node.clone(), told.or(*bound)?))
        });
        there.collect()
    }

    // ---- For the operator.

    /// Looks whether there is something to recover, and whom the operator gives up.
    ///
    /// # Errors
    /// Why there is nothing, or it can't be.
    pub(super) fn begin_recovery(&mut self) -> Result<(), NotRecovered> {
        self.recovered()?;
        self.recovery.given_up = cost(&self.map, &self.present()).silent.into_iter().collect();
        Ok(())
    }

    /// Takes up those that have fallen silent since; true when there are any.
    pub(super) fn begin_recovery_of_more(&mut self) -> bool {
        let silent: BTreeSet<_> = cost(&self.map, &self.present()).silent.into_iter().collect();
        let more = !silent.is_subset(&self.recovery.given_up);
        self.recovery.given_up.extend(silent);
        more
    }

    /// The disks that a recovery gives up: those that the silent nodes had, and those that they had before.
    pub(super) fn given_up_by_recovery(&self) -> BTreeSet<Incarnation> {
        let bound = |node: &NodeAddr| self.map.nodes.get(node).copied().flatten();
        let silent = &self.recovery.given_up;
        silent.iter().filter_map(bound).chain(silent.iter().flat_map(|node| self.map.lost_disks(node))).collect()
    }

    fn unconfirmed_recovery(&self, writes: u64) -> NotRecovered {
        let lost = cost(&self.map, &self.present());
        NotRecovered::Unconfirmed(Box::new(RecoveryCost {
            silent: lost.silent,
            partitions: lost.partitions.len() as u32,
            of: self.map.partitions(),
            writes,
        }))
    }

    /// Nodes that others hear and this one does not: it would give them up.
    fn heard_elsewhere(&mut self) -> Option<NotRecovered> {
        let present = self.present();
        let live = self.look().live;
        let elsewhere: Vec<_> =
            live.into_iter().filter(|node| self.map.nodes.contains_key(node) && !present.contains_key(node)).collect();
        (!elsewhere.is_empty()).then_some(NotRecovered::HeardElsewhere(elsewhere))
    }

    fn recovered(&mut self) -> Result<ClusterMap, RecoverError> {
        // The same draw for one map, so that who agreed before agrees again.
        let label = [b"recovery".as_slice(), &self.map.epoch.0.to_be_bytes()].concat();
        let draw = Draw::new(derive(&self.config.seed, &label));
        let sight = self.look();
        let rules = self.config.reconcile_rules;
        recover(&self.map, self.incarnation, &self.consensus.told, &sight, rules, draw).map(|next| next.map)
    }

    /// Goes on with the recovery that a client of this node has asked for: to its cost, if the client has not confirmed.
    /// `writes` are lost with it.
    pub(super) fn go_on_recovering(&mut self, confirmed: bool, writes: u64, io: &mut Io<'_>) -> Option<NotRecovered> {
        let now = self.now.mono_ms;
        let fresh = self.recovery.attempt.as_ref().is_some_and(|attempt| now < attempt.asked_ms + ASK_MS);
        if self.learned.is_some() || fresh {
            return None;
        }
        self.recovery.attempt = None;
        if let Some(newer) = self.who_has_a_newer_map() {
            self.pull_map(&newer, io);
            return None;
        }
        // What the others told last may be of a node that has died since; a recovered map that is there is taken over.
        if self.heard_elsewhere().is_some() || self.quorum_may_live() || self.is_recovered_elsewhere() {
            return None;
        }
        if !confirmed {
            return Some(self.unconfirmed_recovery(writes));
        }
        let cost = cost(&self.map, &self.present());
        if cost.silent.iter().any(|node| !self.recovery.given_up.contains(node)) {
            return Some(self.unconfirmed_recovery(writes));
        }
        match self.recovered() {
            Ok(next) => self.ask_for_recovery(next, cost.partitions.len() as u64, io),
            Err(error) => return Some(error.into()),
        }
        None
    }

    fn who_has_a_newer_map(&self) -> Option<NodeAddr> {
        let newer = |node: &&NodeAddr| self.links.get(*node).is_some_and(|link| link.epoch > self.map.epoch);
        self.present().keys().find(newer).cloned()
    }

    fn ask_for_recovery(&mut self, next: ClusterMap, lost: u64, io: &mut Io<'_>) {
        let (now, id, branch, epoch) = (self.now.mono_ms, self.fresh_id(), next.line.branch(), self.map.epoch);
        let present = self.present();
        let members = present.iter().filter(|(node, there)| self.map.nodes.get(*node) == Some(&Some(**there)));
        let waiting: BTreeSet<NodeAddr> =
            members.map(|(node, _)| node.clone()).filter(|node| *node != self.config.address).collect();
        let mut against = BTreeMap::new();
        let names: Vec<NodeAddr> = present.into_keys().collect();
        if self.recovery.vow.give(now, branch, &self.config.address, &names) {
            for node in &waiting {
                self.send(node, Message::RecoveryAsked { id, branch, epoch, present: names.clone() }, io);
            }
        } else {
            against.insert(self.config.address.clone(), Disagreement::Another);
        }
        self.recovery.attempt = Some(Attempt { id, asked_ms: now, next: Arc::new(next), lost, waiting, against });
        self.decide_recovery(io);
    }

    pub(super) fn on_recovery_answered(
        &mut self,
        from: &NodeAddr,
        id: u64,
        outcome: Result<(), Disagreement>,
        io: &mut Io<'_>,
    ) {
        let Some(attempt) = self.recovery.attempt.as_mut().filter(|attempt| attempt.id == id) else { return };
        attempt.waiting.remove(from);
        if let Err(disagreement) = outcome {
            attempt.against.insert(from.clone(), disagreement);
        }
        self.decide_recovery(io);
    }

    /// When all have agreed: the map is decided.
    fn decide_recovery(&mut self, io: &mut Io<'_>) {
        let agreed = |attempt: &mut Attempt| attempt.waiting.is_empty() && attempt.against.is_empty();
        let Some(attempt) = self.recovery.attempt.take_if(agreed) else { return };
        if attempt.next.parent_hash != self.map.hash() || self.learned.is_some() {
            return;
        }
        let text =
            format!("recovered by force: branch {} begins with map {}", attempt.next.line.branch(), attempt.next.epoch);
        io.effects.push(Effect::Warn(text));
        for changing in self.changes.iter_mut().filter(|changing| matches!(changing.wanted, Wanted::Recover { .. })) {
            changing.lost_partitions = attempt.lost;
        }
        self.consensus.decided = attempt.next.epoch;
        self.learn(attempt.next, io);
    }

    /// Why the recovery is not done when its time is over.
    pub(super) fn recovery_not_agreed(&mut self) -> NotRecovered {
        if let Some(elsewhere) = self.heard_elsewhere() {
            return elsewhere;
        }
        let (mut against, mut waiting) = (BTreeMap::new(), Vec::new());
        if let Some(attempt) = self.recovery.attempt.take() {
            against.extend(attempt.against);
            waiting.extend(attempt.waiting);
        }
        waiting.extend(self.who_has_a_newer_map());
        NotRecovered::NotAgreed { against, waiting }
    }

    /// True when every member that is there acts under this node's map.
    pub(super) fn all_have_this_map(&self) -> bool {
        let behind = |(node, there): (&NodeAddr, &Incarnation)| {
            let link = self.links.get(node);
            self.map.nodes.get(node) == Some(&Some(*there))
                && link.is_some_and(|link| link.line != self.map.line || link.epoch < self.map.epoch)
        };
        !self.present().iter().any(behind)
    }

    // ---- For another node's operator.

    pub(super) fn on_recovery_asked(
        &mut self,
        from: (&NodeAddr, Incarnation),
        id: u64,
        branch: BranchId,
        epoch: Epoch,
        present: &[NodeAddr],
        io: &mut Io<'_>,
    ) {
        let (node, incarnation) = from;
        if self.map.nodes.get(node) != Some(&Some(incarnation)) || self.learned.is_some() {
            return;
        }
        if epoch < self.map.epoch {
            return self.push_map(node, io);
        }
        if epoch > self.map.epoch {
            return self.pull_map(node, io);
        }
        let outcome = self.agree(branch, node, present);
        self.send(node, Message::RecoveryAnswered { id, outcome }, io);
    }

    fn agree(&mut self, branch: BranchId, to: &NodeAddr, present: &[NodeAddr]) -> Result<(), Disagreement> {
        let here = self.present();
        if self.quorum_may_live() {
            return Err(Disagreement::QuorumLives);
        }
        if self.is_recovered_elsewhere() {
            return Err(Disagreement::Another);
        }
        let known = |node: &&NodeAddr| self.map.nodes.contains_key(*node) && !present.contains(node);
        if let Some(node) = here.keys().find(known) {
            return Err(Disagreement::Hears(node.clone()));
        }
        if !self.recovery.vow.give(self.now.mono_ms, branch, to, present) {
            return Err(Disagreement::Another);
        }
        // What this node may have asked for itself is not decided any more.
        self.recovery.attempt = None;
        Ok(())
    }

    // ---- Lines of maps.

    /// Whether this node may go on to a map: of its own line, or of one that was recovered from it, while no majority
    /// of its own voters answers or with its own agreement.
    pub(super) fn may_go_on_to(&mut self, map: &ClusterMap, io: &mut Io<'_>) -> bool {
        let newest = self.learned.as_ref().map_or(&self.map, |(_, map)| map);
        match newest.standing().relation(&map.standing()) {
            Relation::Same => true,
            Relation::After if !self.map.is_born() || !self.quorum_may_live() => true,
            // Whoever is back since: it has agreed to go on without them, and others have done so on its word.
            Relation::After if self.recovery.vow.is_for(map.line.branch()) => true,
            Relation::After | Relation::Before | Relation::Apart => {
                let branch = map.line.branch();
                if self.recovery.warned.replace(branch) != Some(branch) {
                    let text = format!("the map of another branch ({branch}) was offered, and is not taken");
                    io.effects.push(Effect::Warn(text));
                }
                false
            }
        }
    }

    /// How a node's maps stand to this one's, as it told last.
    pub(super) fn relation_to(&self, node: &NodeAddr) -> Relation {
        let Some(link) = self.links.get(node) else { return Relation::Same };
        if link.line == self.map.line {
            return Relation::Same;
        }
        self.map.standing().relation(&Standing { line: link.line.clone(), epoch: link.epoch })
    }

    /// A node was turned away, or has turned this one away, for being of another line of maps.
    pub(super) fn on_other_branch(&mut self, peer: &NodeAddr, standing: Standing, io: &mut Io<'_>) {
        let now = self.now.mono_ms;
        let Some(link) = self.links.get_mut(peer) else { return };
        let news = link.line != standing.line;
        link.told_ms = Some(now);
        (link.line, link.epoch) = (standing.line, standing.epoch);
        if news && self.relation_to(peer) == Relation::Apart {
            let branch = self.links[peer].line.branch();
            let text = format!("{peer} is of another branch ({branch}) of this store: nothing it says is taken");
            io.effects.push(Effect::Warn(text));
        }
    }

    /// Whether somebody has a map that was recovered from this node's.
    fn is_recovered_elsewhere(&self) -> bool {
        let (_, newer) = self.on_other_lines(self.now.mono_ms);
        newer.into_iter().any(|node| self.relation_to(node) == Relation::After)
    }

    /// The nodes on another line of maps that were heard lately; of them, those whose line was recovered from this
    /// node's, without it.
    pub(super) fn on_other_lines(&self, now_ms: u64) -> (Vec<&NodeAddr>, Vec<&NodeAddr>) {
        let lately = self
            .links
            .iter()
            .filter(|(_, link)| link.line != self.map.line && link.told_ms.is_some_and(|at| now_ms < at + APART_MS));
        let (mut all, mut newer) = (Vec::new(), Vec::new());
        for (node, link) in lately {
            all.push(node);
            if link.line.comes_of(&self.map.line) {
                newer.push(node);
            }
        }
        (all, newer)
    }
}
