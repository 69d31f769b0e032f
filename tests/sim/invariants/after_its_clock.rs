//! A write is not older than the wall clock of who gave it its timestamp: what others wrote and ended before it, while
//! that node was down or cut off, would win over it.

use super::Verdict;
use crate::oracle::{Oracle, VersionId};

/// Looks at a write that was just given its timestamp by a node whose wall clock shows this, and is not ignored.
pub fn check(oracle: &Oracle, version: VersionId, wall_ms: u64) -> Verdict {
    let given_ms = oracle.versions[version].order.0.0 >> entail::causal::clock::COUNTER_BITS;
    if given_ms >= wall_ms {
        return Ok(());
    }
    Err(format!("AFTER-ITS-CLOCK: {} is {} ms older than its node's clock", oracle.name(version), wall_ms - given_ms))
}
