//! entail: a sharded, fault-tolerant key-value store with causal+ consistency.

pub mod api;
pub mod causal;
pub mod cluster;
pub mod error;
pub mod machine;
pub mod node;
pub mod store;
pub mod types;
pub mod wire;
