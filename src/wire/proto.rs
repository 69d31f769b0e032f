//! The types and services generated from `proto/entail/v1`, and their descriptors for gRPC reflection.
//!
//! Documented where they are written: in the `.proto` files.

#![allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]

tonic::include_proto!("entail.v1");

/// The descriptor set of the package, comments included, as gRPC reflection shows it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/entail_descriptors.bin"));
