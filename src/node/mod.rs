//! The only place where the machine meets the world: the loop, the effects, the handle.
//!
//! One thread owns the machine (`run`). It drains its inbox, lanes in this order: what the node tells itself (a sync
//! is done, stop), one look from outside, one wish for a change, signs of life, the rest of the network, clients; steps
//! the machine for each; applies one batch; hands it to the syncer, another thread (`sync`); and carries out the
//! effects. It never waits for the disk: what must be durable first waits inside the machine for `Input::Synced`. One
//! sync covers all batches applied until it began (group commit).
//!
//! Every queue is bounded. A full network lane makes the sender's stream wait. Clients who would wait for too long get an
//! answer, `Code::TooManyRequests` (`gate`), as do those who find their lane full.
//!
//! What else a node needs of the world it is given, as [`Surroundings`]: a simulation has others.

mod effects;
mod error;
mod gate;
mod handle;
mod pace;
mod run;
mod surroundings;
mod sync;

#[cfg(test)]
mod tests;

pub use error::NodeError;
pub use handle::Handle;
pub use run::{Disk, Node, Options};
pub use surroundings::{Clock, Driver, Surroundings, Syncing, SystemClock};
