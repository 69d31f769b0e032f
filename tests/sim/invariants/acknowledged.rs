//! No acknowledged write is lost: it is durable on as many nodes as the answer says, and found in the end.

use super::Verdict;
use crate::oracle::{Oracle, VersionId};
use crate::workload::Asked;

/// Looks at the acknowledgement of a write.
pub fn check(oracle: &Oracle, write: usize, version: VersionId, copies: u32) -> Verdict {
    let v = &oracle.versions[version];
    if v.key != oracle.writes[write].key || v.delete != oracle.writes[write].delete {
        return Err(format!("ACKNOWLEDGED: w{write} is answered with the name of {}", oracle.name(version)));
    }
    if !v.delete && v.write != Some(write) {
        return Err(format!("ACKNOWLEDGED: w{write} is answered with the name of {}", oracle.name(version)));
    }
    let durable = oracle.copies(version);
    if durable < copies || copies == 0 {
        return Err(format!("ACKNOWLEDGED: {} with {copies} copies, but {durable} are durable", oracle.name(version)));
    }
    Ok(())
}

/// Looks at whether the key is said to have had a value before: to have had none is to show nothing.
pub fn existed(oracle: &Oracle, asked: &Asked, existed: bool) -> Verdict {
    let best = oracle.best(asked.key, |v| asked.session.past.contains(v));
    let shown = oracle.shown_by_value(asked.node, asked.key, None);
    if existed || oracle.acceptable(best, &shown) {
        return Ok(());
    }
    Err(format!("ACKNOWLEDGED: key {} is said to be new after {}", asked.key, oracle.name_or_nothing(best)))
}

/// In the end, a key shows the greatest version that anybody was told of, or one greater still. With a lost disk, what
/// had no other copy may be missing.
pub fn found(oracle: &Oracle, key: usize, shown: Option<VersionId>, node: usize, copies_elsewhere: bool) -> Verdict {
    let promised = |v: VersionId| {
        let version = &oracle.versions[v];
        match copies_elsewhere {
            true => version.acked.is_some_and(|copies| copies >= 2),
            false => version.shown,
        }
    };
    let best = oracle.best(key, promised);
    let buried = if shown.is_none() { oracle.buried_at(node, key) } else { None };
    let shown = crate::oracle::Shown { node, version: shown, buried, exact: true };
    if oracle.acceptable(best, &shown) {
        return Ok(());
    }
    let (found, best) = (oracle.name_or_nothing(shown.version), oracle.name_or_nothing(best));
    Err(format!("ACKNOWLEDGED: in the end node{} has {found} where {best} was told of", node + 1))
}
