//! What the outside speaks to: REST for clients, gRPC for the other nodes and for tools.
//!
//! Both convert, ask the node, and convert back; neither holds state of its own, and they never meet.

pub mod grpc;
pub mod rest;
