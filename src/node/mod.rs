//! The only place where the machine meets the world: the loop, the effects, the handle.

use std::sync::Arc;
use std::time::Duration;

use crate::causal::codec::ContextCodec;
use crate::cluster::map::ClusterMap;
use crate::machine::Machine;
use crate::machine::message::{Input, Ping, Request, Response};
use crate::types::{NodeAddr, Now};

/// What the APIs hold of a running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// This node's address.
    pub fn address(&self) -> &NodeAddr {
        unimplemented!()
    }

    /// Asks the node and waits for its answer; a full inbox is answered with `TooManyRequests` at once.
    pub async fn request(&self, request: Request, budget: Duration) -> Response {
        let _ = (request, budget);
        unimplemented!()
    }

    /// Runs a closure on the machine, between two steps, and gives what it gives; `None` when the node is stopping.
    pub async fn inspect<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Machine, Now) -> T + Send + 'static,
    ) -> Option<T> {
        let _ = read;
        None
    }

    /// The map the node acts under.
    pub fn map(&self) -> Arc<ClusterMap> {
        unimplemented!()
    }

    /// The codec of this store's context strings; `None` before the store's birth.
    pub fn codec(&self) -> Option<Arc<ContextCodec>> {
        unimplemented!()
    }

    /// What this node says in answer to a ping, as last published; does not wait for the loop.
    pub fn sign_of_life(&self) -> Ping {
        unimplemented!()
    }

    /// Hands an input from the network to the loop, waiting for room; false when the node is stopping.
    pub async fn deliver(&self, input: Input) -> bool {
        let _ = input;
        false
    }
}
