//! No dot names two writes, and no write has two dots.

use entail::types::{Dot, PartitionId};

use super::Verdict;
use crate::oracle::Oracle;

/// Looks at a dot that a coordinator is about to give to a write (a put's number; unknown for a delete).
pub fn given(oracle: &Oracle, partition: PartitionId, dot: Dot, write: Option<usize>) -> Verdict {
    if let Some(&old) = oracle.by_dot.get(&(partition, dot)) {
        return Err(format!("DOTS: {} gets a second write, {write:?}", oracle.name(old)));
    }
    if let Some(write) = write
        && let Some(old) = oracle.writes[write].version
    {
        return Err(format!("DOTS: {} gets a second name, p{partition} {dot:?}", oracle.name(old)));
    }
    Ok(())
}

/// Looks at a write that leaves a node under a dot.
pub fn left(oracle: &mut Oracle, node: usize, partition: PartitionId, dot: Dot, write: Option<usize>) -> Verdict {
    let Some(&version) = oracle.by_dot.get(&(partition, dot)) else {
        return Err(format!("DOTS: node{} sends p{partition} {dot:?}, which nobody wrote", node + 1));
    };
    oracle.versions[version].left = true;
    let known = &oracle.versions[version];
    if known.delete != write.is_none() || (write.is_some() && known.write != write) {
        return Err(format!("DOTS: node{} sends {write:?} as {}", node + 1, oracle.name(version)));
    }
    Ok(())
}
