//! The node's log: one line an event on standard error, filtered by `RUST_LOG` (default: `info`).

use std::io::{IsTerminal, Write, stderr};

use tracing_subscriber::EnvFilter;

/// Starts logging. Called once, by the process that serves; a filter that does not parse is reported and ignored.
pub fn start() {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) if !text.trim().is_empty() => EnvFilter::try_new(&text).unwrap_or_else(|error| {
            say(&format!("RUST_LOG is ignored: {error}"));
            EnvFilter::new("info")
        }),
        Ok(_) | Err(_) => EnvFilter::new("info"),
    };
    // A log that nobody reads any more is no reason to fail: by default the subscriber complains on standard error, and
    // panics when that is closed.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    log.with_writer(stderr).with_ansi(stderr().is_terminal()).init();
}

/// A line on standard error, if anybody is there to read it.
pub fn say(line: &str) {
    let _ = writeln!(stderr(), "entail: {line}");
}
