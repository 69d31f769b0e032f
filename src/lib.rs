//! entail: a sharded, fault-tolerant key-value store with causal+ consistency.

pub mod api;
pub mod causal;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod error;
pub mod machine;
pub mod node;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod types;
pub mod wire;
