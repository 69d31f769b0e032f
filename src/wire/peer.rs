//! The tasks of one peer: one keeps a stream to it, one pings it on a channel of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Status};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::convert::{id_to_proto, line_to_proto, ping_from_proto, sign_to_proto};
use super::dial::Dialler;
use super::identity::Local;
use super::inputs::Inputs;
use super::link::{Down, Link, endpoint};
use super::outbox::Outbox;
use super::proto::PingRequest;
use super::proto::cluster_client::ClusterClient;
use super::stopped;
use crate::machine::message::{Input, Message};
use crate::machine::sign::Ping;
use crate::types::NodeAddr;

/// The pause between two dials, more or less; see [`Tasks::pause`].
const RETRY: Duration = Duration::from_millis(200);

/// A connection that stood this long is dialled again at once when it breaks.
const STEADY: Duration = Duration::from_secs(1);

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// One other node. When this is dropped its tasks end.
#[derive(Debug)]
pub struct Peer {
    outbox: Arc<Outbox>,
    pings: watch::Sender<Option<Arc<Ping>>>,
    /// Its end is the end of the stream.
    _kept: oneshot::Sender<Infallible>,
}

/// What both tasks of a peer know.
#[derive(Clone)]
pub(super) struct Tasks {
    pub node: NodeAddr,
    pub local: Arc<Local>,
    pub dialler: Arc<dyn Dialler>,
    pub inputs: Inputs,
}

impl Peer {
    /// Starts the tasks of a peer; they end with `stop` or when the peer is dropped.
    pub(super) fn start(tasks: Tasks, stop: &watch::Receiver<bool>) -> Self {
        let outbox = Arc::new(Outbox::default());
        let (pings, asked) = watch::channel(None);
        let (kept, dropped) = oneshot::channel();
        tokio::spawn(tasks.clone().stream(Arc::clone(&outbox), stop.clone(), dropped));
        tokio::spawn(tasks.pinger(asked, stop.clone()));
        Self { outbox, pings, _kept: kept }
    }

    /// Takes a message to send; never waits.
    ///
    /// # Errors
    /// Gives the message back when there is no connection, or no room.
    pub fn send(&self, message: Message) -> Result<(), Message> {
        match message {
            // The newest ping is the only one that matters.
            Message::Ping(ping) => {
                self.pings.send_replace(Some(ping));
                Ok(())
            }
            // The answer went with the call that brought the ping.
            Message::Pong(_) => Ok(()),
            message => self.outbox.push(message),
        }
    }
}

impl Tasks {
    /// Keeps a stream until the peer is dropped or all stops.
    async fn stream(
        self,
        outbox: Arc<Outbox>,
        mut stop: watch::Receiver<bool>,
        dropped: oneshot::Receiver<Infallible>,
    ) {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = dropped => {}
            () = self.keep_connected(&outbox) => return,
        }
        self.disconnect(&outbox, false).await;
    }

    /// Dials again and again; ends only when nobody takes the inputs any more.
    async fn keep_connected(&self, outbox: &Outbox) {
        let mut told = None;
        for attempt in 0.. {
            let dialled = Instant::now();
            let down = match Link::dial(&self.local, self.dialler.as_ref(), &self.node).await {
                Ok(link) => {
                    told = None;
                    self.use_link(link, outbox).await
                }
                Err(down) => down,
            };
            // Each change is told once: a peer that is long away would fill log and inbox.
            if told.as_ref() != Some(&down) {
                tracing::warn!(peer = %self.node, "no connection: {down}");
                if !self.disconnect(outbox, down == Down::Refused).await {
                    return;
                }
                if let Down::TurnedAway(why) = &down {
                    self.tell(Input::TurnedAway { peer: self.node.clone(), why: why.clone() }).await;
                }
            }
            let broke = matches!(down, Down::Broken(_));
            told = Some(down);
            if !broke || dialled.elapsed() < STEADY {
                sleep(self.pause(attempt)).await;
            }
        }
    }

    async fn use_link(&self, link: Link, outbox: &Outbox) -> Down {
        let incarnation = link.remote.incarnation;
        tracing::info!(peer = %self.node, %incarnation, "connected");
        // Open before it is told: the answer to the telling is to send.
        outbox.open();
        if !self.tell(Input::Connected { peer: self.node.clone(), incarnation }).await {
            return Down::Broken("this node is stopping".into());
        }
        link.run(&self.local, outbox).await
    }

    /// Tells that there is no connection, and first which forwards it certainly did not take. False when nobody
    /// listens any more.
    async fn disconnect(&self, outbox: &Outbox, refused: bool) -> bool {
        for message in outbox.close() {
            if let Message::Forward { id, .. } = message {
                self.tell(Input::NotSent { id }).await;
            }
        }
        self.tell(Input::Disconnected { peer: self.node.clone(), refused }).await
    }

    async fn tell(&self, input: Input) -> bool {
        self.inputs.send(input).await
    }

    /// Sends pings as they are asked for, one at a time.
    ///
    /// A failed one is not told: silence is what counts, and that a connection is refused the stream finds out too.
    async fn pinger(self, mut asked: watch::Receiver<Option<Arc<Ping>>>, mut stop: watch::Receiver<bool>) {
        let Ok(endpoint) = endpoint(&self.local, &self.node) else { return };
        let client = ClusterClient::new(self.dialler.dial_lazily(endpoint));
        let ping_all = async {
            while asked.changed().await.is_ok() {
                let Some(ping) = asked.borrow_and_update().clone() else { continue };
                match timeout(PING_TIMEOUT, self.ping(client.clone(), &ping)).await {
                    Ok(Ok(answer)) => {
                        if !self.tell(answer).await {
                            return;
                        }
                    }
                    Ok(Err(status)) => tracing::debug!(peer = %self.node, "ping failed: {}", status.message()),
                    Err(_) => tracing::debug!(peer = %self.node, "no answer to a ping"),
                }
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => {}
            () = ping_all => {}
        }
    }

    async fn ping(&self, mut client: ClusterClient<tonic::transport::Channel>, ping: &Ping) -> Result<Input, Status> {
        let mut hello = self.local.hello(&self.node);
        // As the ping has it: the machine may be a step ahead of what was published.
        hello.cluster_id = id_to_proto(ping.cluster_id.0);
        hello.settings_hash = ping.settings_hash;
        hello.line = line_to_proto(&ping.line);
        hello.epoch = ping.epoch.0;
        let mut request = Request::new(PingRequest { hello: Some(hello), sign: Some(sign_to_proto(ping)) });
        request.set_timeout(PING_TIMEOUT);
        let reply = client.ping(request).await?.into_inner();
        let hello = reply.hello.ok_or_else(|| Status::internal("the answer has no hello"))?;
        let remote = self.local.accept_answer(&self.node, &hello)?;
        let pong = ping_from_proto(&hello, reply.sign.unwrap_or_default())
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Input::Message {
            from: remote.address,
            incarnation: remote.incarnation,
            message: Message::Pong(Ping { asked_ms: ping.asked_ms, ..pong }.into()),
        })
    }

    /// A pause before the next dial: peers that lost the same node do not dial it in step.
    fn pause(&self, attempt: u64) -> Duration {
        let random = xxh3_64_with_seed(&self.local.incarnation.0.to_le_bytes(), attempt) as u8;
        RETRY.mul_f64(0.75 + f64::from(random) / 512.0)
    }
}
