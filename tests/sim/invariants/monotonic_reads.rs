//! A session never reads something older than what it read before.

use super::{Read, Verdict, shows};
use crate::oracle::Oracle;

/// Looks at one read.
pub fn check(oracle: &Oracle, read: &Read<'_>) -> Verdict {
    shows(oracle, read, "MONOTONIC-READS", |version| read.asked.seen.contains(version))
}
