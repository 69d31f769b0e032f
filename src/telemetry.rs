//! The node's log: one line an event on standard error, filtered by `RUST_LOG` (default: `info`).

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Starts logging. Called once, by the process that serves; a filter that does not parse is reported and ignored.
pub fn start() {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) if !text.trim().is_empty() => EnvFilter::try_new(&text).unwrap_or_else(|error| {
            eprintln!("entail: RUST_LOG is ignored: {error}");
            EnvFilter::new("info")
        }),
        Ok(_) | Err(_) => EnvFilter::new("info"),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal()).init();
}
