//! entail: a sharded, fault-tolerant key-value store with causal+ consistency.

#[cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]
pub mod causal;
#[cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]
pub mod cluster;
pub mod error;
#[cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]
pub mod machine;
pub mod node;
pub mod store;
pub mod types;
