//! A replica is dropped, or a disk lost, only with what others hold too; or beyond what was promised.

use super::Verdict;
use crate::oracle::{Oracle, VersionId};

/// Looks at a version that is on no disk any more.
pub fn lost(oracle: &Oracle, version: VersionId, how: &str) -> Verdict {
    let v = &oracle.versions[version];
    match v.counted {
        Some((copies, under)) if v.due(copies, under) > 0 => Err(format!(
            "KEPT: {} was acknowledged with {copies} copies, and {how} takes the last one after {} lost disks",
            oracle.name(version),
            v.losses()
        )),
        _ => Ok(()),
    }
}
