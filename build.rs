//! Compiles `proto/entail/v1` to Rust without protoc.
//!
//! protox parses the files to a descriptor set, tonic-prost-build turns that into messages and services, and the set
//! itself is kept in `OUT_DIR` with its comments: `wire::proto` includes it for gRPC reflection. Only a change below
//! `proto` makes this run again.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const FILES: [&str; 7] = [
    "proto/entail/v1/types.proto",
    "proto/entail/v1/map.proto",
    "proto/entail/v1/change.proto",
    "proto/entail/v1/losses.proto",
    "proto/entail/v1/replica.proto",
    "proto/entail/v1/cluster.proto",
    "proto/entail/v1/inspect.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("entail_descriptors.bin"), protox::prost::Message::encode_to_vec(&descriptors))?;
    // Values are the bulk of what is sent: `Bytes` shares them with the store and the machine instead of copying.
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(descriptors)?;
    Ok(())
}
