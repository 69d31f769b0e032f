//! entail: a sharded, fault-tolerant key-value store with causal+ consistency.
//!
//! The layers, from the top: [`cli`] → [`server`] → [`api`] → [`node`] → [`wire`], [`store`] → [`machine`] →
//! [`causal`], [`cluster`] → [`types`], [`error`]; [`net`] and [`history`], which know none of them. `docs/architecture.md`
//! tells how they work together and why.

pub mod api;
#[cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]
pub mod causal;
pub mod cli;
#[cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]
pub mod cluster;
pub mod config;
pub mod error;
pub mod history;
#[cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]
pub mod machine;
pub mod net;
pub mod node;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod types;
pub mod wire;
