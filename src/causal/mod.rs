//! One partition's replica: what causal consistency means here.

pub mod clock;
pub mod codec;
pub mod context;
pub mod item;
pub mod op;
pub mod partition;
pub mod stability;
pub mod vector;

#[cfg(test)]
mod tests;
