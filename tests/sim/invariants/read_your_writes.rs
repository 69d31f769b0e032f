//! A session reads what it wrote, or something that came after.

use super::{Read, Verdict, shows};
use crate::oracle::Oracle;

/// Looks at one read.
pub fn check(oracle: &Oracle, read: &Read<'_>) -> Verdict {
    shows(oracle, read, "READ-YOUR-WRITES", |version| read.asked.own.contains(version))
}
