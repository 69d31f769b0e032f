//! What the APIs hold of a running node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::gate::{Admitted, Gate};
use super::surroundings::Clock;
use crate::causal::codec::ContextCodec;
use crate::cluster::map::ClusterMap;
use crate::error::Code;
use crate::machine::Machine;
use crate::machine::agreement::NotChanged;
use crate::machine::message::{Input, Request, Response, Wanted};
use crate::machine::sign::Ping;
use crate::types::{Incarnation, NodeAddr, Now};
use crate::wire::Inputs;

/// A look at the machine between two steps.
pub(super) type Look = Box<dyn FnOnce(&Machine, Now) + Send>;

/// A client's request on its way to the loop.
pub(super) struct Asked {
    pub request: Request,
    pub budget: Duration,
    pub answer: Answer,
}

/// Where a client waits for its answer. Dropped, it makes room for another one.
pub(super) struct Answer {
    to: oneshot::Sender<Response>,
    /// None for what the gate does not count.
    admitted: Option<Admitted>,
}

impl Answer {
    /// The client has gone.
    pub fn is_closed(&self) -> bool {
        self.to.is_closed()
    }

    pub fn send(self, response: Response) {
        if let Some(admitted) = self.admitted.filter(|_| !matches!(response, Response::Error(_))) {
            admitted.served();
        }
        // The client may have gone.
        let _ = self.to.send(response);
    }
}

/// A client's wish for a change on its way to the loop.
pub(super) struct AskedChange {
    pub wanted: Wanted,
    pub budget: Duration,
    pub answer: oneshot::Sender<Result<u64, NotChanged>>,
}

/// What the loop tells everybody: the map, whether texts of contexts tell clocks, and the codec that follows from both;
/// none before the birth, and while it is not known what the other nodes take.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub map: Arc<ClusterMap>,
    pub tells_clocks: Option<bool>,
    pub codec: Option<Arc<ContextCodec>>,
}

impl Published {
    pub fn of(map: &Arc<ClusterMap>, tells_clocks: Option<bool>) -> Self {
        let branches = map.line.forks().iter().map(|fork| fork.branch).collect();
        let store = || ContextCodec::new(map.cluster_id, map.secret, map.partitions());
        let codec = |tells| store().on_branches(branches).telling_clocks(tells);
        let tells = tells_clocks.filter(|_| map.is_born());
        Self { map: map.clone(), tells_clocks, codec: tells.map(codec).map(Arc::new) }
    }

    pub async fn codec(published: &watch::Receiver<Self>, within: Duration) -> Option<Arc<ContextCodec>> {
        if let Some(codec) = &published.borrow().codec {
            return Some(Arc::clone(codec));
        }
        let mut published = published.clone();
        let known = published.wait_for(|now| now.codec.is_some() || !now.map.is_born());
        timeout(within, known).await.ok()?.ok()?.codec.clone()
    }
}

/// What the APIs hold of a running node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) address: NodeAddr,
    pub(super) incarnation: Incarnation,
    pub(super) settings_hash: u64,
    pub(super) inputs: Inputs,
    pub(super) clients: mpsc::Sender<Asked>,
    pub(super) gate: Arc<Gate>,
    pub(super) changes: mpsc::Sender<AskedChange>,
    pub(super) looks: mpsc::Sender<Look>,
    pub(super) published: watch::Receiver<Published>,
    pub(super) life: watch::Receiver<Ping>,
    pub(super) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Handle {
    /// This node's address.
    pub fn address(&self) -> &NodeAddr {
        &self.address
    }

    /// This node's incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The hash of this node's map 0: tells differing start settings.
    pub fn settings_hash(&self) -> u64 {
        self.settings_hash
    }

    /// Asks the node and waits for its answer. Too many requests under way, or a full inbox, are answered with
    /// `TooManyRequests` at once, a stopping node with `ShardUnavailable` (nothing was done) or, for a write, `OutcomeUnknown` (it may have been).
    pub async fn request(&self, request: Request, budget: Duration) -> Response {
        let admitted = match &request {
            Request::Get { .. } | Request::Put { .. } | Request::Delete { .. } => {
                match self.gate.admit(request.writes()) {
                    Ok(admitted) => Some(admitted),
                    Err(code) => return Response::Error(code),
                }
            }
            Request::KeyCount { .. } | Request::CountOf { .. } => None,
        };
        let (to, answered) = oneshot::channel();
        let answer = Answer { to, admitted };
        let lost = if request.writes() { Code::OutcomeUnknown } else { Code::ShardUnavailable };
        match self.clients.try_send(Asked { request, budget, answer }) {
            Ok(()) => answered.await.unwrap_or(Response::Error(lost)),
            Err(mpsc::error::TrySendError::Full(_)) => Response::Error(Code::TooManyRequests),
            Err(mpsc::error::TrySendError::Closed(_)) => Response::Error(Code::ShardUnavailable),
        }
    }

    /// Has the map changed, and waits until that is done, which may take minutes: how many writes were lost with it.
    /// `budget` is for the voters to agree on it. Who stops waiting cancels nothing.
    ///
    /// # Errors
    /// Why the change was not made, or not to its end.
    pub async fn change(&self, wanted: Wanted, budget: Duration) -> Result<u64, NotChanged> {
        let (answer, answered) = oneshot::channel();
        match self.changes.try_send(AskedChange { wanted, budget, answer }) {
            Ok(()) => answered.await.unwrap_or(Err(NotChanged::Stopping)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(NotChanged::TooMany),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotChanged::Stopping),
        }
    }

    /// Runs a closure on the machine, between two steps, and gives what it gives; `None` when the node is stopping.
    pub async fn inspect<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Machine, Now) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let look: Look = Box::new(move |machine, now| {
            // Nobody waits any more when the asker has gone: then there is nothing to tell.
            let _ = answer.send(read(machine, now));
        });
        self.looks.send(look).await.ok()?;
        answered.await.ok()
    }

    /// The map the node acts under.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.published.borrow().map.clone()
    }

    /// The codec of this store's context strings; `None` before the store's birth. Where this node does not know yet what
    /// contexts the others take, that is waited for, and `None` given after this time.
    pub async fn codec(&self, within: Duration) -> Option<Arc<ContextCodec>> {
        Published::codec(&self.published, within).await
    }

    /// What this node says in answer to a ping, as last published; does not wait for the loop, so that a busy one does
    /// not look dead.
    pub fn sign_of_life(&self) -> Ping {
        let map = self.map();
        Ping {
            cluster_id: map.cluster_id,
            line: map.line.clone(),
            epoch: map.epoch,
            wall_ms: self.clock.wall_ms(),
            ..self.life.borrow().clone()
        }
    }

    /// Hands an input from the network to the loop, waiting for room in its lane; false when the node is stopping.
    pub async fn deliver(&self, input: Input) -> bool {
        self.inputs.send(input).await
    }
}
