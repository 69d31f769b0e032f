//! What the outside speaks with: convert, ask the node, convert. The sides never meet.

pub mod grpc;
