//! Signs of life: a ping is handed to the loop and answered by what the node last published.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status, async_trait};

use super::{Node, turned_away};
use crate::machine::message::{Input, Message};
use crate::wire::convert::{WireError, cluster_id_to_proto, line_to_proto, ping_from_proto, sign_to_proto};
use crate::wire::proto::cluster_server::Cluster;
use crate::wire::proto::{PingReply, PingRequest};
use crate::wire::{Local, Refusal};

/// How long a ping may wait for room in the loop's inbox. Its answer must be there within the second that the other
/// side waits; a ping that is dropped here is followed by the next.
const ROOM_TIMEOUT: Duration = Duration::from_millis(300);

/// The service.
#[derive(Debug)]
pub struct PingAnswer<N> {
    node: N,
    local: Arc<Local>,
}

impl<N> PingAnswer<N> {
    /// The service of this node.
    pub fn new(node: N, local: Arc<Local>) -> Self {
        Self { node, local }
    }
}

#[async_trait]
impl<N: Node> Cluster for PingAnswer<N> {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingReply>, Status> {
        let PingRequest { hello, sign } = request.into_inner();
        let hello = hello.ok_or(Refusal::Malformed(WireError::Missing("hello")))?;
        let remote = match self.local.accept(&hello) {
            Ok(remote) => remote,
            Err(refusal) => return Err(turned_away(&self.node, &hello, refusal).await),
        };
        let ping = ping_from_proto(&hello, sign.unwrap_or_default()).map_err(Refusal::Malformed)?;
        let (from, incarnation) = (remote.address.clone(), remote.incarnation);
        let input = Input::Message { from, incarnation, message: Message::Ping(ping.into()) };
        if timeout(ROOM_TIMEOUT, self.node.deliver(input)).await == Ok(false) {
            return Err(Status::unavailable("this node is stopping"));
        }
        let sign = self.node.sign_of_life();
        let mut hello = self.local.hello(&remote.address);
        hello.cluster_id = cluster_id_to_proto(sign.cluster_id);
        hello.settings_hash = sign.settings_hash;
        hello.line = line_to_proto(&sign.line);
        hello.epoch = sign.epoch.0;
        Ok(Response::new(PingReply { hello: Some(hello), sign: Some(sign_to_proto(&sign)) }))
    }
}
