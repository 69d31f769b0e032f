//! The `entail` program; see [`entail::cli`].

use std::process::ExitCode;

/// Many small records that live for a moment, beside buffers of fills and journals: glibc's allocator took a fifth of
/// a node's loop while keys move, an eighth before, and more than that afterwards, among the pieces.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    entail::cli::main()
}
