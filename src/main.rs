//! The `entail` program; see [`entail::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    entail::cli::main()
}
