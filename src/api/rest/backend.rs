//! What the REST side needs of a node: the node's handle in production, a fake in tests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::causal::codec::ContextCodec;
use crate::cluster::map::ClusterMap;
use crate::machine::agreement::NotChanged;
use crate::machine::message::{Request, Response, Wanted};
use crate::machine::{ClusterStatus, Machine, ReshardStatus};
use crate::node::Handle;
use crate::types::NodeAddr;

/// A node, as the REST side sees it.
pub trait Backend: Send + Sync + 'static {
    /// Asks the node and waits for its answer, at most about `budget`.
    fn request(&self, request: Request, budget: Duration) -> impl Future<Output = Response> + Send;

    /// Has the map changed, and waits until that is done, which may take minutes: how many writes were lost with it.
    /// The voters have about `budget` to agree on it. Who stops waiting cancels nothing.
    fn change(&self, wanted: Wanted, budget: Duration) -> impl Future<Output = Result<u64, NotChanged>> + Send;

    /// Where a change of the layout stands; `None` when this node is stopping.
    fn reshard(&self) -> impl Future<Output = Option<ReshardStatus>> + Send;

    /// The whole cluster as this node sees it; `None` when it is stopping.
    fn status(&self) -> impl Future<Output = Option<ClusterStatus>> + Send;

    /// The codec of this store's context strings; `None` before the store's birth, and where it is not known within this
    /// time what contexts the other nodes take.
    fn codec(&self, within: Duration) -> impl Future<Output = Option<Arc<ContextCodec>>> + Send;

    /// The map the node acts under.
    fn map(&self) -> Arc<ClusterMap>;

    /// The nodes that are up, sorted; `None` when this node is stopping.
    fn view(&self) -> impl Future<Output = Option<Vec<NodeAddr>>> + Send;

    /// Whether the node can serve; if not, why, in one sentence for the operator.
    fn readiness(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// This node's address.
    fn address(&self) -> &NodeAddr;
}

impl Backend for Handle {
    async fn request(&self, request: Request, budget: Duration) -> Response {
        Handle::request(self, request, budget).await
    }

    async fn change(&self, wanted: Wanted, budget: Duration) -> Result<u64, NotChanged> {
        Handle::change(self, wanted, budget).await
    }

    async fn reshard(&self) -> Option<ReshardStatus> {
        self.inspect(Machine::reshard_status).await
    }

    async fn status(&self) -> Option<ClusterStatus> {
        self.inspect(Machine::cluster_status).await
    }

    async fn codec(&self, within: Duration) -> Option<Arc<ContextCodec>> {
        Handle::codec(self, within).await
    }

    fn map(&self) -> Arc<ClusterMap> {
        Handle::map(self)
    }

    async fn view(&self) -> Option<Vec<NodeAddr>> {
        self.inspect(Machine::view).await
    }

    async fn readiness(&self) -> Result<(), String> {
        let stopping = || Err("the node is stopping".to_owned());
        self.inspect(Machine::readiness).await.unwrap_or_else(stopping)
    }

    fn address(&self) -> &NodeAddr {
        Handle::address(self)
    }
}
