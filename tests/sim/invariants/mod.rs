//! What must always hold, one file each, checked after every step that could break it.

pub mod acknowledged;
pub mod after_its_clock;
pub mod birth;
pub mod causal_order;
pub mod convergence;
pub mod dots;
pub mod epochs;
pub mod follows;
pub mod kept;
pub mod letter;
pub mod monotonic_reads;
pub mod read_your_writes;
pub mod settles;
pub mod target;
pub mod tombstones;
pub mod writes_follow_reads;

use entail::causal::context::Context;

use crate::oracle::{Oracle, Session, Shown, VersionId};

/// `Err` says what is wrong.
pub type Verdict = Result<(), String>;

/// A read that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// The key's index.
    pub key: usize,
    /// What it was answered from.
    pub shown: &'a Shown,
    /// What the session was when it asked.
    pub asked: &'a Session,
    /// The context that it was given.
    pub answer: &'a Context,
}

/// All that must hold of a read; what is promised to a single session first, as it is the plainer word.
pub fn after_read(oracle: &Oracle, read: &Read<'_>) -> Verdict {
    read_your_writes::check(oracle, read)?;
    monotonic_reads::check(oracle, read)?;
    causal_order::check(oracle, read)?;
    letter::check(oracle, read)
}

/// Fails, by this name, when a read shows less than the greatest version of its key among those `known`.
fn shows(oracle: &Oracle, read: &Read<'_>, name: &str, known: impl Fn(VersionId) -> bool) -> Verdict {
    let best = oracle.best_of(read.key, &read.asked.past, known);
    if oracle.acceptable(best, read.shown) {
        return Ok(());
    }
    Err(format!(
        "{name}: node{} shows {} although {} comes before (asked with {:?})",
        read.shown.node + 1,
        oracle.name_or_nothing(read.shown.version),
        oracle.name_or_nothing(best),
        read.asked.context,
    ))
}
