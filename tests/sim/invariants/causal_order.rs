//! Nobody sees a write without everything it depends on, in whatever partition.

use super::{Read, Verdict, shows};
use crate::oracle::Oracle;

/// Looks at one read: it shows no less than the session's whole past.
pub fn check(oracle: &Oracle, read: &Read<'_>) -> Verdict {
    shows(oracle, read, "CAUSAL-ORDER", |version| read.asked.past.contains(version))
}
