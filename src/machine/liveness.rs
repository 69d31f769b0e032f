//! Who is there: pings, connections, the view; and the first look at every message.

use std::sync::Arc;

use super::maps::Exchange;
use super::message::{Effect, Message};
use super::part::PartPeer;
use super::rules::Rule;
use super::sign::{FORMAT_VERSION, Ping, Served};
use super::{Io, Machine};
use crate::cluster::detector::Change;
use crate::cluster::line::{Line, Relation, Standing};
use crate::error::StoreError;
use crate::types::{ClusterId, Epoch, Incarnation, NodeAddr, Now};

/// Nodes that one knows at once, at the most.
const MOST_LINKS: usize = 1_024;

/// How often every other node is pinged, in milliseconds.
const PING_MS: u64 = 500;

/// Answers that are kept for a node until there is a connection to it; more are dropped, and time out there.
const MAX_OWED: usize = 1_024;

/// How long after its start, or a leap, a node with peers waits for one to compare its wall clock with, in milliseconds.
/// Until then it counts on from what it has seen, and writes wait: a clock an hour ahead would raise the ceiling by an hour,
/// for ever.
const COMPARE_MS: u64 = 3_000;

/// Two steps that are further apart than this by either clock, or by one more than by the other, are a leap: the process
/// or its machine stood still, or a clock was set. In milliseconds.
const LEAP_MS: u64 = 2_000;

/// What this node knows of its connection to another.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub connected: bool,
    /// A stream from the node has begun since it was last out of reach.
    accepted: bool,
    pub incarnation: Option<Incarnation>,
    /// When it was known to be there, in this node's monotonic milliseconds: it answered what was asked then.
    proved_ms: u64,
    /// What the node last said of itself.
    pub cluster_id: ClusterId,
    pub line: Line,
    pub epoch: Epoch,
    /// How much it serves.
    pub served: Served,
    /// When it said so.
    pub told_ms: Option<u64>,
    pub settings_hash: Option<u64>,
    /// The newest version of the protocol that it speaks, as it last told.
    pub speaks: Option<u32>,
    /// It knows that every node takes contexts that tell clocks, as it last told.
    pub tells_clocks: bool,
    /// How far its fills are, as it last told.
    pub steps: u64,
    /// Why it does not speak with this node, or this node not with it, though it answers.
    pub turned_away: Option<String>,
    /// Answers to what it forwarded here before there was a connection to it.
    owed: Vec<Message>,
    /// Maps on their way to and from it.
    pub maps: Exchange,
}

impl Link {
    /// Whether the node may be this process, by a ping or the answer to one; it counts as that if so. Who is at an address
    /// is known by round trips: a ping of a process that is gone may come after the first one of the next.
    fn shows(&mut self, incarnation: Incarnation, answers: Option<u64>) -> bool {
        let newer = answers.is_some_and(|asked_ms| asked_ms > self.proved_ms);
        if self.incarnation.is_some_and(|known| known != incarnation) && !newer {
            return false;
        }
        self.incarnation = Some(incarnation);
        self.proved_ms = self.proved_ms.max(answers.unwrap_or(0));
        true
    }

    /// Whoever comes, or is there no more, may have another build than who spoke last.
    fn forget_build(&mut self) {
        (self.speaks, self.tells_clocks) = (None, false);
    }
}

impl Machine {
    pub(super) fn tick_liveness(&mut self, io: &mut Io<'_>) {
        self.look_who_takes_clocks(io);
        if self.now.mono_ms < self.timers.ping_ms {
            return;
        }
        self.timers.ping_ms = self.now.mono_ms + PING_MS;
        self.look_for_exposed();
        let ping = Arc::new(self.sign_of_life(self.now));
        for node in self.links.keys() {
            self.send(node, Message::Ping(Arc::clone(&ping)), io);
        }
        self.compare_clocks(io);
        self.log_settings(io);
        self.log_progress(io);
        self.log_suspicions(io);
    }

    /// Takes over what the clocks show. After a leap what is known of the others' clocks is of before, and they are asked
    /// anew. If this node's wall clock has gained by it, or was ahead and is another now, it is not the one that was
    /// compared, and nothing goes by it till then.
    pub(super) fn take_time(&mut self, now: Now) {
        let last = self.now;
        // Monotonic for this machine even if its driver's clock is not.
        self.now = Now { mono_ms: now.mono_ms.max(last.mono_ms), wall_ms: now.wall_ms };
        let passed_ms = self.now.mono_ms - last.mono_ms;
        let due_ms = last.wall_ms.saturating_add(passed_ms);
        let is_another = now.wall_ms.abs_diff(due_ms) > LEAP_MS;
        if is_another || passed_ms > LEAP_MS {
            // Of this very millisecond there may be a ping of before.
            self.compare_from_ms = self.now.mono_ms + 1;
            self.timers.ping_ms = self.compare_from_ms;
        }
        if is_another && (now.wall_ms > due_ms || self.clock_ahead) && self.has_others() {
            self.clock_compared = false;
            self.clock.set_logical_only(true);
        }
    }

    /// Goes by the wall clock once that was compared with others, and while it is not far ahead of all of them. One that is
    /// not ahead of somebody is right; to be ahead it must be ahead of each peer that answers in a while. Where nobody is
    /// live it is believed after that.
    fn compare_clocks(&mut self, io: &mut Io<'_>) {
        let (now, from_ms) = (self.now, self.compare_from_ms);
        // Answers come more or less late: one that is just as far ahead as it may be is not judged anew with each.
        let margin_ms = if self.clock_ahead { 1_000 } else { 0 };
        let found = self.detector.clock_is_ahead(now.wall_ms.saturating_add(margin_ms), now.mono_ms, from_ms);
        let waited = now.mono_ms >= from_ms + COMPARE_MS;
        let all_known = found.is_some() && self.detector.knows_every_clock(now.mono_ms, from_ms);
        if !(found == Some(false) || all_known || waited || !self.has_others()) {
            return;
        }
        if !self.clock_compared {
            // Writes wait for that.
            self.clock_compared = true;
            self.wake.extend(self.requests.waited_for().into_iter().flatten());
        }
        // Peers that are too busy to answer tell nothing new.
        let stays = || self.clock_ahead && self.detector.live(now.mono_ms).next().is_some();
        let ahead = found.unwrap_or_else(stays);
        self.clock.set_logical_only(ahead);
        if ahead != self.clock_ahead {
            self.clock_ahead = ahead;
            let text =
                if ahead { "is more than a minute ahead of every peer: it is ignored" } else { "is believed again" };
            io.effects.push(Effect::Warn(format!("this node's wall clock {text}")));
        }
    }

    /// Whether the map has somebody else who could answer.
    fn has_others(&self) -> bool {
        self.map.nodes.keys().any(|node| *node != self.config.address && !self.map.out.contains(node))
    }

    /// Tells the log who is not heard any more, and who is again.
    fn log_suspicions(&mut self, io: &mut Io<'_>) {
        for Change { peer, live } in self.detector.changes(self.now.mono_ms) {
            // Before the birth the log says for whom it waits, and of who is not of the store there is no view.
            if self.map.is_born() && self.map.nodes.contains_key(&peer) && !self.map.out.contains(&peer) {
                io.effects.push(if live {
                    Effect::Note(format!("{peer} is heard again"))
                } else {
                    Effect::Warn(format!("{peer} is not heard: it is left out of the view until it is"))
                });
            }
        }
    }

    /// What this node says of itself in a ping.
    pub fn sign_of_life(&self, now: Now) -> Ping {
        Ping {
            cluster_id: self.map.cluster_id,
            line: self.map.line.clone(),
            epoch: self.map.epoch,
            settings_hash: self.settings_hash,
            speaks: FORMAT_VERSION,
            tells_clocks: self.tells_clocks() == Some(true),
            wall_ms: now.wall_ms,
            asked_ms: now.mono_ms,
            hears: self.links.keys().filter(|node| self.detector.hears(now.mono_ms, node)).cloned().collect(),
            steps: self.filling_steps(),
            exposed: Arc::clone(&self.exposed.own),
            served: self.served(),
        }
    }

    /// True for this node, and for one that was heard or reached lately.
    pub(super) fn is_live(&self, node: &NodeAddr) -> bool {
        *node == self.config.address || self.detector.is_live(self.now.mono_ms, node)
    }

    /// Whether a node of some shard is not heard: of what it should have there is a copy less.
    pub(super) fn lacks_copies(&self) -> bool {
        !self.map.layout.shards.iter().flatten().all(|node| self.is_live(node))
    }

    /// True for a peer whose node is live, as far as known under the very incarnation that the row names.
    pub(super) fn lives(&self, peer: &PartPeer) -> bool {
        self.is_who_it_was(peer) && self.is_live(&peer.node)
    }

    /// False for a peer whose address is another's by now: its node lost its disk, or was given another directory.
    pub(super) fn is_who_it_was(&self, peer: &PartPeer) -> bool {
        let there = self.links.get(&peer.node).and_then(|link| link.incarnation);
        !peer.gone && there.is_none_or(|there| there == peer.incarnation)
    }

    pub(super) fn is_connected(&self, node: &NodeAddr) -> bool {
        self.links.get(node).is_some_and(|link| link.connected)
    }

    /// Answers what a node forwarded. The two directions of a link come up one after the other, so it may speak with
    /// this node before this one can speak with it: the answer waits for that. One that has given up, or is another
    /// process by then, does not know the number that it answers.
    pub(super) fn answer(&mut self, node: &NodeAddr, answer: Message, io: &mut Io<'_>) {
        match self.links.get_mut(node) {
            Some(link) if !link.connected => {
                if link.owed.len() < MAX_OWED {
                    link.owed.push(answer);
                }
            }
            Some(_) | None => self.send(node, answer, io),
        }
    }

    pub(super) fn on_connected(&mut self, peer: &NodeAddr, incarnation: Incarnation, io: &mut Io<'_>) {
        self.lose_forwards(peer, io);
        let Some(link) = self.links.get_mut(peer) else { return };
        link.connected = true;
        link.turned_away = None;
        link.forget_build();
        link.proved_ms = self.now.mono_ms;
        let known = link.incarnation.replace(incarnation).or_else(|| self.map.nodes.get(peer).copied().flatten());
        let has_told = link.told_ms.is_some();
        // Its word takes a moment to come, and a write in that moment waits for its copy. How one without its disk stands
        // to this node's maps, its word alone tells; who is apart is not connected.
        let as_before = known.is_none_or(|known| known == incarnation);
        if as_before && (!has_told || self.relation_to(peer) == Relation::Same) {
            self.detector.reached(self.now.mono_ms, peer);
        }
        let Some(link) = self.links.get_mut(peer) else { return };
        // One that was refused before is live again with its answer.
        let owed = std::mem::take(&mut link.owed);
        let ping = self.sign_of_life(self.now);
        self.send(peer, Message::Ping(ping.into()), io);
        for answer in owed {
            self.send(peer, answer, io);
        }
        // What was sent before may not have arrived: streams begin where the peer says it is.
        for part in &mut self.parts {
            let stays: Vec<_> = part.receivers().filter(|other| other.node == *peer).map(|other| other.stay).collect();
            let streams = part.logs.values_mut().flat_map(|log| log.streams.iter_mut());
            for (_, progress) in streams.filter(|(stay, _)| stays.contains(stay)) {
                progress.sent = progress.acked;
                progress.flight.clear();
                progress.resends = 0;
                progress.resend_at_ms = self.now.mono_ms;
            }
        }
        self.report_all_to(peer, io);
        self.wake.extend(self.requests.waited_for().into_iter().flatten());
    }

    pub(super) fn on_disconnected(&mut self, peer: &NodeAddr, refused: bool, io: &mut Io<'_>) {
        let Some(link) = self.links.get_mut(peer) else { return };
        link.connected = false;
        link.turned_away = None;
        link.forget_build();
        link.accepted = false;
        if refused {
            self.detector.refused(peer);
        }
        self.lose_forwards(peer, io);
        // Nobody waits for the copies of one that is known to be down.
        let here = self.partitions().filter(|p| !self.part(*p).unanswered.is_empty());
        self.wake.extend(here.collect::<Vec<_>>());
        self.wake.extend(self.requests.waited_for().into_iter().flatten());
    }

    pub(super) fn on_turned_away(&mut self, peer: &NodeAddr, why: String) {
        if let Some(link) = self.links.get_mut(peer) {
            link.turned_away = Some(why);
        }
    }

    /// A node answers forwards by the stream from it, and begins with none before it has reached this node: so with
    /// the first stream nothing was lost, and with every later one what was not answered by then may have been.
    pub(super) fn on_accepted(&mut self, peer: &NodeAddr, io: &mut Io<'_>) {
        let Some(link) = self.links.get_mut(peer) else { return };
        if std::mem::replace(&mut link.accepted, true) {
            self.lose_forwards(peer, io);
        }
    }

    pub(super) fn on_message(
        &mut self,
        from: &NodeAddr,
        incarnation: Incarnation,
        message: Message,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        if !self.links.contains_key(from) {
            // Somebody who starts, or was taken out: whoever speaks is answered.
            self.meet(from, io);
        }
        if self.is_of_another_line(from, &message, io) {
            return Ok(());
        }
        self.count_as_sign_of_life(from, incarnation, &message);
        match message {
            Message::Ping(ping) => {
                self.on_ping(from, incarnation, &ping, None, io);
                let pong = Ping { asked_ms: ping.asked_ms, ..self.sign_of_life(self.now) };
                self.send(from, Message::Pong(pong.into()), io);
            }
            Message::Pong(pong) => self.on_ping(from, incarnation, &pong, Some(pong.asked_ms), io),
            Message::Paxos(paxos) => self.on_paxos(from, incarnation, paxos, io),
            Message::MapPull { have, hash } => self.give_map(from, have, hash, io),
            Message::MapPush(map) => self.learn(map, io),
            Message::MapDeltas(chain) => self.on_deltas(from, &chain, io),
            Message::Words(words) => {
                let words = self.keep_early_words(from, incarnation, words, io);
                self.take_words(incarnation, &words);
            }
            Message::RecoveryAsked { id, branch, epoch, present } => {
                self.on_recovery_asked((from, incarnation), id, branch, epoch, &present, io);
            }
            Message::RecoveryAnswered { id, outcome } => self.on_recovery_answered(from, id, outcome, io),
            Message::LossAsked { id, incarnations } => self.on_loss_asked(from, id, &incarnations, io),
            Message::LossTold { id, told, held } => self.on_loss_told(from, id, &told, &held),
            Message::ChangeAsked { id, change, epoch, again } => {
                self.on_change_asked(from, (id, again), change, epoch, io);
            }
            Message::ChangeAnswered { id, outcome } => self.on_change_answered(id, outcome, io),
            Message::ForwardReply { id, response } => self.on_forward_reply(id, response, io),
            Message::ForwardRefused { id, better } => self.on_refused(id, better),
            Message::Forward { id, remaining_ms, request } => {
                return self.on_forward(from, id, request, remaining_ms, io);
            }
            data => return self.on_data(from, incarnation, data, io),
        }
        Ok(())
    }

    /// True for what is not heard of a node on another line of maps. Whoever may come over to this one's is told of the
    /// map, and a newer map is heard of; what is said of partitions is known by its versions.
    fn is_of_another_line(&mut self, from: &NodeAddr, message: &Message, io: &mut Io<'_>) -> bool {
        match (self.relation_to(from), message) {
            (Relation::Same, _) | (_, Message::Ping(_) | Message::Pong(_)) => false,
            (Relation::Apart, _) => true,
            (_, Message::Forward { id, .. }) => {
                self.answer(from, Message::ForwardRefused { id: *id, better: None }, io);
                true
            }
            (_, Message::ChangeAsked { .. } | Message::RecoveryAsked { .. } | Message::RecoveryAnswered { .. }) => true,
            (_, Message::LossAsked { .. } | Message::LossTold { .. }) => true,
            (Relation::After | Relation::Before, _) => false,
        }
    }

    /// Whatever a node says tells that it lives, once it has said who it is: not so of another line of maps, where it is
    /// the ping alone that tells how it stands to this node.
    fn count_as_sign_of_life(&mut self, from: &NodeAddr, incarnation: Incarnation, message: &Message) {
        let its_word = matches!(message, Message::Ping(_) | Message::Pong(_));
        let known = self.links.get(from).is_some_and(|link| link.incarnation == Some(incarnation));
        if !its_word && known && self.relation_to(from) == Relation::Same {
            self.detector.spoke(self.now.mono_ms, from);
        }
    }

    /// What is said about partitions: only by who is bound to its address (R5), and of the version in force (R3).
    fn on_data(
        &mut self,
        from: &NodeAddr,
        incarnation: Incarnation,
        message: Message,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        if self.on(Rule::OwnName) && self.map.nodes.get(from).copied().flatten() != Some(incarnation) {
            return Ok(());
        }
        if self.keep_early_one(from, incarnation, &message, io) {
            return Ok(());
        }
        match message {
            Message::Operations { partition, version, operations } if self.is_current(from, partition, version, io) => {
                self.on_operations(incarnation, partition, operations, io)
            }
            Message::Report(reports) => self.on_report(from, incarnation, reports, io),
            Message::Stability(reports) => self.on_stability(from, reports, io),
            Message::FillRequest { partition, version, attempt, vector }
                if self.is_current(from, partition, version, io) =>
            {
                self.on_fill_request(from, partition, attempt, vector);
                Ok(())
            }
            Message::FillChunk(chunk) if self.is_current(from, chunk.partition, chunk.version, io) => {
                self.on_fill_chunk(from, chunk, io)
            }
            Message::FillNext { partition, attempt, index } => self.on_fill_next(from, partition, attempt, index, io),
            _ => Ok(()),
        }
    }

    /// Takes a sign of life; one that answers a ping has when that was made.
    fn on_ping(
        &mut self,
        from: &NodeAddr,
        incarnation: Incarnation,
        ping: &Ping,
        answers: Option<u64>,
        io: &mut Io<'_>,
    ) {
        self.on_other_branch(from, Standing { line: ping.line.clone(), epoch: ping.epoch }, io);
        let Some(link) = self.links.get_mut(from) else { return };
        if !link.shows(incarnation, answers) {
            return;
        }
        link.cluster_id = ping.cluster_id;
        link.settings_hash = Some(ping.settings_hash);
        link.speaks = Some(ping.speaks);
        link.tells_clocks = ping.tells_clocks;
        link.steps = ping.steps;
        link.served = ping.served;
        // On another line it is not one to be reckoned with, whatever its connection has told; before its birth, it is
        // on none.
        match self.relation_to(from) {
            Relation::Apart => return self.detector.disowned(from),
            Relation::After | Relation::Before if ping.epoch > Epoch(0) && self.map.is_born() => {
                self.detector.disowned(from);
            }
            Relation::Same | Relation::After | Relation::Before => {
                self.detector.heard(self.now.mono_ms, from, &ping.hears);
                if let Some(asked_ms) = answers {
                    self.detector.clock_told(self.now.mono_ms, asked_ms, from, ping.wall_ms);
                }
            }
        }
        self.look_who_takes_clocks(io);
        if !self.clock_compared || self.clock_ahead {
            self.compare_clocks(io);
            // The first write must not have to wait for one that the wall clock is below.
            self.keep_ceiling();
        }
        self.keep_exposed(incarnation, &ping.exposed);
        let mine = self.map.cluster_id;
        if mine != ClusterId(0) && ping.cluster_id != ClusterId(0) && mine != ping.cluster_id {
            return;
        }
        if ping.epoch > self.map.epoch {
            self.pull_map(from, io);
        } else if ping.epoch < self.map.epoch {
            self.push_map(from, io);
        }
    }

    /// Connects to a node that the map does not have.
    pub(super) fn meet(&mut self, node: &NodeAddr, io: &mut Io<'_>) {
        if *node != self.config.address && !self.links.contains_key(node) && self.links.len() < MOST_LINKS {
            self.links.insert(node.clone(), Link::default());
            self.listen();
            io.effects.push(Effect::Meet(node.clone()));
        }
    }

    /// Begins to listen to nodes that the map has new.
    pub(super) fn meet_nodes(&mut self) {
        for node in self.map.nodes.keys().filter(|node| **node != self.config.address) {
            self.links.entry(node.clone()).or_default();
        }
        self.listen();
    }

    fn listen(&mut self) {
        let peers = self.links.keys().cloned().collect();
        self.detector.set_peers(self.now.mono_ms, &peers);
    }
}
