//! A write is ordered after everything that its session had seen: else what it follows could win over it.

use super::Verdict;
use crate::oracle::{Oracle, VersionId};

/// Looks at a write that was just given its name and timestamp.
pub fn check(oracle: &Oracle, version: VersionId) -> Verdict {
    let new = &oracle.versions[version];
    let best = oracle.best_of(new.key, &new.past, |v| v != version && new.past.contains(v));
    match best {
        Some(best) if oracle.versions[best].order.0 >= new.order.0 => {
            Err(format!("WRITES-FOLLOW-READS: {} is not after {}", oracle.name(version), oracle.name(best)))
        }
        _ => Ok(()),
    }
}
