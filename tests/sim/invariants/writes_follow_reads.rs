//! A write is ordered after everything that its session had seen, of its own key and of all others: else what it follows
//! could win over it, or the orders of different keys could contradict each other.

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
        _ => elsewhere(oracle, version),
    }
}

/// The timestamps alone order writes of different keys.
fn elsewhere(oracle: &Oracle, version: VersionId) -> Verdict {
    let new = &oracle.versions[version];
    let later = |&other: &VersionId| {
        let seen = &oracle.versions[other];
        other != version && seen.order.0 >= new.order.0 && new.past.contains(other)
    };
    match (0..oracle.versions.len()).find(later) {
        Some(other) => Err(format!(
            "WRITES-FOLLOW-READS: {} has no greater timestamp than {}, which it follows",
            oracle.name(version),
            oracle.name(other)
        )),
        None => Ok(()),
    }
}
