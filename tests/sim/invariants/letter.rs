//! A `GET` takes nothing out of a context, and gives back to the letter one that names the very version it shows.

use super::{Read, Verdict};
use crate::oracle::Oracle;

/// Looks at one read.
pub fn check(oracle: &Oracle, read: &Read<'_>) -> Verdict {
    let asked = &read.asked.context;
    if asked.iter().any(|(partition, stay, seq)| read.answer.get(partition, stay) < seq)
        || read.answer.epoch() < asked.epoch()
    {
        return Err(format!("LETTER: a read made {:?} of {asked:?}", read.answer));
    }
    let Some(version) = read.shown.version else { return Ok(()) };
    let version = &oracle.versions[version];
    // A tombstone may be collected in the very step, and then the floor raises the epoch.
    let same = if version.delete { asked.iter().eq(read.answer.iter()) } else { asked == read.answer };
    if asked.names(version.partition, version.order.1) && !same {
        return Err(format!("LETTER: a read of the very {:?} made {:?} of {asked:?}", version.order.1, read.answer));
    }
    Ok(())
}
