//! Where a request goes: served here, sent on to a peer that serves its partition, or put aside until something comes.
//!
//! A forwarded request is never forwarded again: its receiver serves it, or refuses it with nothing done, and the
//! forwarder routes anew. A write that was sent on and is not answered has an unknown outcome; a read is sent again.

use std::collections::BTreeSet;

use super::message::{Effect, Message, Request, RequestId, Response};
use super::requests::{Forwarded, Origin, Pending};
use super::rules::Rule;
use super::serve::Verdict;
use super::{Io, Machine};
use crate::causal::context::Context;
use crate::error::{Code, StoreError};
use crate::types::{NodeAddr, PartitionId};

/// How much longer than its deadline a forwarder waits for the answer that the other node gives at the deadline.
const GRACE_MS: u64 = 150;

impl Machine {
    pub(super) fn on_request(
        &mut self,
        id: RequestId,
        request: Request,
        budget_ms: u64,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        self.accept(Origin::Client(id), request, budget_ms, io)
    }

    pub(super) fn on_forward(
        &mut self,
        from: &NodeAddr,
        id: u64,
        request: Request,
        left_ms: u64,
        io: &mut Io<'_>,
    ) -> Result<(), StoreError> {
        self.accept(Origin::Peer { node: from.clone(), id }, request, left_ms, io)
    }

    fn accept(&mut self, origin: Origin, request: Request, budget_ms: u64, io: &mut Io<'_>) -> Result<(), StoreError> {
        let (key, context) = match &request {
            Request::Get { key, context } | Request::Put { key, context, .. } | Request::Delete { key, context } => {
                (Some(key), Some(context))
            }
            Request::KeyCount { .. } | Request::CountOf { .. } => (None, None),
        };
        let refusal = if !self.map.is_born() {
            Some(Code::ShardUnavailable)
        } else if context.is_some_and(|context| self.is_foreign(context)) {
            Some(Code::ContextMalformed)
        } else if self.requests.len() + self.unanswered >= self.config.max_waiting {
            Some(Code::TooManyRequests)
        } else {
            None
        };
        let partition = key.map(|key| key.partition(self.map.partitions()));
        if !self.map.is_born() && matches!(origin, Origin::Peer { .. }) {
            // Whoever forwards has a map, and perhaps another node to ask.
            self.refuse(&origin, None, io);
            return Ok(());
        }
        if let Some(code) = refusal {
            self.reply(&origin, Response::Error(code), io);
            return Ok(());
        }
        match (&origin, context) {
            (Origin::Client(_), Some(context)) if !self.is_of_other_maps(context) => self.learn_of_clocks(context, io),
            _ => {}
        }
        let deadline_ms = self.now.mono_ms.saturating_add(budget_ms);
        let otherwise = Code::ShardUnavailable;
        let pending =
            Pending { origin, request, partition, deadline_ms, otherwise, avoid: BTreeSet::new(), hint: None };
        // Tried alone: what waits for the same partition has not come any closer.
        self.attempt(pending, io)
    }

    /// A context with partitions that this store does not have.
    fn is_foreign(&self, context: &Context) -> bool {
        context.iter().any(|(partition, _, _)| partition.0 >= self.map.partitions())
    }

    /// A context with an epoch, or a stay number, that this line of maps never gave out.
    fn is_of_other_maps(&self, context: &Context) -> bool {
        let skipped = |(partition, stay, _): (PartitionId, _, _)| self.map.row(partition).is_skipped(stay);
        self.map.line.skips(context.epoch()) || context.iter().any(skipped)
    }

    /// Tries again all that waits for a partition (`None`: what concerns no single one).
    pub(super) fn retry(&mut self, partition: Option<PartitionId>, io: &mut Io<'_>) -> Result<(), StoreError> {
        for pending in self.requests.take_waiting(partition) {
            self.attempt(pending, io)?;
        }
        Ok(())
    }

    pub(super) fn attempt(&mut self, mut pending: Pending, io: &mut Io<'_>) -> Result<(), StoreError> {
        let verdict = match pending.partition {
            Some(partition) => self.try_key(partition, &mut pending, io)?,
            None => self.try_count(&mut pending, io)?,
        };
        match verdict {
            Verdict::Done(response) => self.reply(&pending.origin, response, io),
            Verdict::Coordinated => {}
            Verdict::Wait(otherwise) => self.requests.wait(Pending { otherwise, ..pending }),
            Verdict::Forward(to) => self.forward(pending, to, io),
            Verdict::Refuse(better) => self.refuse(&pending.origin, better, io),
        }
        Ok(())
    }

    fn try_key(
        &mut self,
        partition: PartitionId,
        pending: &mut Pending,
        io: &mut Io<'_>,
    ) -> Result<Verdict, StoreError> {
        let (Request::Get { context, .. } | Request::Put { context, .. } | Request::Delete { context, .. }) =
            &pending.request
        else {
            return Ok(Verdict::Done(Response::Error(Code::Internal)));
        };
        if context.epoch() > self.map.epoch && self.on(Rule::ContextEpoch) {
            // Whoever gave the context knows a newer map; pings will bring it.
            return Ok(Verdict::Wait(Code::DependenciesUnsatisfied));
        }
        if self.is_of_other_maps(context) {
            return Ok(Verdict::Done(Response::Error(Code::ContextMalformed)));
        }
        if self.is_mute(&pending.origin) {
            return Ok(Verdict::Wait(Code::ShardUnavailable));
        }
        match self.part(partition).own_answering(pending.writes()) {
            // A read that a peer with more was named for goes there; its own replica lacks something.
            Some(_) if pending.hint.is_some() && matches!(pending.origin, Origin::Client(_)) => {
                Ok(pending.hint.take().map_or(Verdict::Refuse(None), Verdict::Forward))
            }
            Some(own) => self.serve(partition, own, pending, io),
            None if matches!(pending.origin, Origin::Peer { .. }) => Ok(Verdict::Refuse(None)),
            None => Ok(self.elsewhere(partition, pending)),
        }
    }

    /// True when the answer could not be sent now. So it is for a moment when two nodes reach each other one after the
    /// other; a write that nobody can be told of is better not begun.
    pub(super) fn is_mute(&self, origin: &Origin) -> bool {
        matches!(origin, Origin::Peer { node, .. } if !self.is_connected(node))
    }

    /// The node to send a request to when this one does not serve its partition.
    fn elsewhere(&mut self, partition: PartitionId, pending: &mut Pending) -> Verdict {
        let context = match &pending.request {
            Request::Get { context, .. } | Request::Put { context, .. } | Request::Delete { context, .. } => context,
            Request::KeyCount { .. } | Request::CountOf { .. } => return Verdict::Wait(Code::ShardUnavailable),
        };
        let spread = self.fresh_id() as usize;
        let part = self.part(partition);
        let live: Vec<_> = part.serving().filter(|peer| !peer.own && self.lives(peer)).collect();
        if live.is_empty() {
            return Verdict::Done(Response::Error(Code::ShardUnavailable));
        }
        let reachable =
            |peer: &&super::part::PartPeer| self.is_connected(&peer.node) && !pending.avoid.contains(&peer.node);
        let candidates: Vec<_> = live.iter().copied().filter(reachable).collect();
        let wanted = pending.hint.take();
        let hinted = candidates.iter().find(|peer| Some(&peer.node) == wanted.as_ref());
        // Whoever coordinated what the context names has it.
        let named = candidates.iter().find(|peer| context.get(partition, peer.stay) > 0);
        let any = candidates.get(spread % candidates.len().max(1));
        match hinted.or(named).or(any) {
            Some(peer) => Verdict::Forward(peer.node.clone()),
            None => {
                // All were tried: after a pause, from the beginning.
                pending.avoid.clear();
                Verdict::Wait(Code::ShardUnavailable)
            }
        }
    }

    // ---- Sending on.

    fn forward(&mut self, pending: Pending, to: NodeAddr, io: &mut Io<'_>) {
        let remaining_ms = pending.deadline_ms.saturating_sub(self.now.mono_ms);
        let request = pending.request.clone();
        let id = self.requests.forward(pending, to.clone(), GRACE_MS);
        self.send(&to, Message::Forward { id, remaining_ms, request }, io);
    }

    fn refuse(&mut self, origin: &Origin, better: Option<NodeAddr>, io: &mut Io<'_>) {
        if let Origin::Peer { node, id } = origin {
            self.answer(node, Message::ForwardRefused { id: *id, better }, io);
            // Whoever sent it here may route by an older row.
            self.push_map(node, io);
        }
    }

    pub(super) fn on_forward_reply(&mut self, id: u64, mut response: Response, io: &mut Io<'_>) {
        if let Some(forwarded) = self.requests.take_forwarded(id) {
            // A right answer tells at least the clock that was brought. An older build's tells none.
            if let (Some(asked), Some(answered)) = (forwarded.pending.request.context(), response.context_mut()) {
                answered.raise_clock(asked.clock());
            }
            self.reply(&forwarded.pending.origin, response, io);
        }
    }

    /// Nothing was done there: the request is routed anew.
    pub(super) fn on_refused(&mut self, id: u64, better: Option<NodeAddr>) {
        if let Some(forwarded) = self.requests.take_forwarded(id) {
            self.route_anew(forwarded, better);
        }
    }

    pub(super) fn on_not_sent(&mut self, id: u64, _io: &mut Io<'_>) {
        if let Some(forwarded) = self.requests.take_forwarded(id) {
            self.route_anew(forwarded, None);
        }
    }

    fn route_anew(&mut self, forwarded: Forwarded, hint: Option<NodeAddr>) {
        let Forwarded { mut pending, to, .. } = forwarded;
        pending.avoid.insert(to);
        pending.hint = hint.filter(|node| *node != self.config.address && !pending.avoid.contains(node));
        self.wake.extend(pending.partition);
        self.requests.wait(pending);
    }

    /// The connection to a node is gone, and with it what was sent on: reads go elsewhere, writes may have been done.
    pub(super) fn lose_forwards(&mut self, node: &NodeAddr, io: &mut Io<'_>) {
        for forwarded in self.requests.take_forwarded_to(node) {
            if forwarded.pending.writes() {
                self.reply(&forwarded.pending.origin, Response::Error(Code::OutcomeUnknown), io);
            } else {
                self.route_anew(forwarded, None);
            }
        }
    }

    /// Answers every request whose deadline has come.
    pub(super) fn expire_requests(&mut self, io: &mut Io<'_>) {
        while let Some(expired) = self.requests.take_expired(self.now.mono_ms) {
            match expired {
                Ok(pending) => self.reply(&pending.origin, Response::Error(pending.otherwise), io),
                Err(forwarded) => {
                    let writes = forwarded.pending.writes();
                    let code = if writes { Code::OutcomeUnknown } else { forwarded.pending.otherwise };
                    self.reply(&forwarded.pending.origin, Response::Error(code), io);
                }
            }
        }
        self.expire_writes(io);
    }

    pub(super) fn reply(&mut self, origin: &Origin, response: Response, io: &mut Io<'_>) {
        match origin {
            Origin::Client(id) => io.effects.push(Effect::Reply { id: *id, response }),
            Origin::Peer { node, id } => self.answer(node, Message::ForwardReply { id: *id, response }, io),
            Origin::Gather(id) => self.on_counted(*id, response, io),
        }
    }
}
