//! How a channel to another node is made: over TCP in production. The tests put a simulated network in its place.

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use tonic::transport::{Channel, Endpoint, Error};

/// Makes channels to other nodes.
pub trait Dialler: Debug + Send + Sync {
    /// Connects, now.
    ///
    /// # Errors
    /// Why there is no connection.
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<'static, Result<Channel, Error>>;

    /// A channel that connects once it is used, and again whenever it has to.
    fn dial_lazily(&self, endpoint: Endpoint) -> Channel;
}

/// The network of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

impl Dialler for Tcp {
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<'static, Result<Channel, Error>> {
        Box::pin(async move { endpoint.connect().await })
    }

    fn dial_lazily(&self, endpoint: Endpoint) -> Channel {
        endpoint.connect_lazy()
    }
}
