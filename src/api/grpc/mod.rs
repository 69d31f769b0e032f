//! The gRPC side of a node: `Replica` and `Cluster` for the other nodes, `Inspect` for people, and the standard health
//! and reflection services for their tools.
//!
//! The services convert, hand over to the node and convert back; what they need of it is [`Node`].

mod exchange;
mod incoming;
mod inspect;
mod ping;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tonic::Status;
use tonic::transport::Server;

use crate::cluster::map::ClusterMap;
use crate::machine::message::Input;
use crate::machine::sign::Ping;
use crate::machine::{PartitionStatus, PeerStatus};
use crate::net::Listener;
use crate::node::Handle;
use crate::wire::proto::cluster_server::ClusterServer;
use crate::wire::proto::inspect_server::InspectServer;
use crate::wire::proto::replica_server::ReplicaServer;
use crate::wire::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, Local, MAX_FRAME_BYTES, Refusal, proto, stopped};
use exchange::Exchange;
use incoming::{MOST_CONNECTIONS, incoming};
use inspect::Inspection;
use ping::PingAnswer;

/// How long a call may take when its caller sets no deadline. Streams are not bound by it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connections may take to end after the stop: a silent client must not hold the process.
const DRAIN: Duration = Duration::from_secs(1);

/// What may be on its way to this node on one stream, and on all streams of a connection.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// What the services need of a node: [`Handle`], or a stand-in of the tests.
pub trait Node: Clone + Send + Sync + 'static {
    /// Hands an input to the node's loop, waiting for room; false when the node is stopping.
    fn deliver(&self, input: Input) -> impl Future<Output = bool> + Send;

    /// What the node says in answer to a ping, by what it last published: the loop is not asked.
    fn sign_of_life(&self) -> Ping;

    /// The map the node acts under.
    fn map(&self) -> Arc<ClusterMap>;

    /// What the node holds, partition by partition; `None` when it is stopping.
    fn partition_status(&self) -> impl Future<Output = Option<Vec<PartitionStatus>>> + Send;

    /// What the node knows of the others; `None` when it is stopping.
    fn peer_status(&self) -> impl Future<Output = Option<Vec<PeerStatus>>> + Send;
}

impl Node for Handle {
    fn deliver(&self, input: Input) -> impl Future<Output = bool> + Send {
        Handle::deliver(self, input)
    }

    fn sign_of_life(&self) -> Ping {
        Handle::sign_of_life(self)
    }

    fn map(&self) -> Arc<ClusterMap> {
        Handle::map(self)
    }

    fn partition_status(&self) -> impl Future<Output = Option<Vec<PartitionStatus>>> + Send {
        self.inspect(|machine, _| machine.partition_status())
    }

    fn peer_status(&self) -> impl Future<Output = Option<Vec<PeerStatus>>> + Send {
        self.inspect(|machine, now| machine.peer_status(now))
    }
}

/// The answer to a node that is refused. One of another branch of the store is told of: its operator has to choose.
async fn turned_away(node: &impl Node, hello: &proto::Hello, refusal: Refusal) -> Status {
    if let (Refusal::OtherBranch { theirs, .. }, Ok(peer)) = (&refusal, hello.address.parse()) {
        node.deliver(Input::OtherBranch { peer, standing: theirs.clone() }).await;
    }
    refusal.into()
}

/// Serves gRPC on the listener until `stop` turns true (or its sender is gone), then ends the streams and returns
/// within a second or so.
///
/// # Errors
/// What the listener fails with.
pub async fn serve(
    listener: impl Listener,
    node: impl Node,
    local: Arc<Local>,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let replica = ReplicaServer::new(Exchange::new(node.clone(), Arc::clone(&local), stop.clone()))
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let cluster = ClusterServer::new(PingAnswer::new(node.clone(), Arc::clone(&local)));
    let inspect = InspectServer::new(Inspection::new(node, local));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ReplicaServer<Exchange<Handle>>>().await;
    health.set_serving::<ClusterServer<PingAnswer<Handle>>>().await;
    health.set_serving::<InspectServer<Inspection<Handle>>>().await;

    let incoming = incoming(listener, MOST_CONNECTIONS);
    let (mut stopping, mut draining) = (stop.clone(), stop);
    let served = Server::builder()
        .timeout(CALL_TIMEOUT)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(health_service)
        .add_service(reflection().build_v1().expect("the descriptors were compiled with this program"))
        .add_service(reflection().build_v1alpha().expect("the descriptors were compiled with this program"))
        .add_service(replica)
        .add_service(cluster)
        .add_service(inspect)
        .serve_with_incoming_shutdown(incoming, async move { stopped(&mut stopping).await });
    tokio::select! {
        biased;
        served = served => served,
        () = async { stopped(&mut draining).await; sleep(DRAIN).await } => Ok(()),
    }
}

/// Reflection over this package's services and the standard ones; both versions of reflection list both.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
}
