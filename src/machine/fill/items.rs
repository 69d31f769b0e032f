//! What a chunk of a fill holds: a bounded part of a view, less what the receiver has.

use bytes::Bytes;

use crate::causal::item::Item;
use crate::causal::vector::VersionVector;
use crate::error::StoreError;
use crate::machine::records;
use crate::store::Read;
use crate::types::{Key, PartitionId};

/// Bytes of items in one chunk; a single larger item goes alone. Small, so that the step that reads it, and the one that
/// takes it over, stay short.
const CHUNK_BYTES: usize = 64 << 10;

/// Stored pairs looked at for one chunk, for the same reason.
const CHUNK_SCAN: usize = 512;

/// Stored pairs read at once: with the largest values a chunk stays far below the wire's limit.
const SCAN_STEP: usize = 4;

/// A chunk's worth of items that the vector does not cover, and where the next chunk begins.
#[allow(clippy::type_complexity)] // A pair used once.
pub(super) fn next_items(
    view: &dyn Read,
    partition: PartitionId,
    from: Option<&Bytes>,
    vector: &VersionVector,
) -> Result<(Vec<(Key, Item)>, Option<Bytes>), StoreError> {
    let (first, until) = records::range(b'i', partition);
    let mut from = from.unwrap_or(&first).clone();
    let mut items = Vec::new();
    let (mut bytes, mut scanned) = (0, 0);
    while bytes < CHUNK_BYTES && scanned < CHUNK_SCAN {
        let pairs = view.scan(&from, &until, SCAN_STEP)?;
        scanned += pairs.len();
        let Some((last, _)) = pairs.last().filter(|_| pairs.len() == SCAN_STEP) else {
            take_uncovered(pairs, vector, &mut items)?;
            return Ok((items, None));
        };
        let mut next = last.to_vec();
        next.push(0);
        from = next.into();
        bytes += take_uncovered(pairs, vector, &mut items)?;
    }
    Ok((items, Some(from)))
}

/// What an item counts against the bytes that a node gives a second.
pub(super) fn item_weight(key: &Key, item: &Item) -> usize {
    64 + key.as_str().len() + item.value.as_ref().map_or(0, Bytes::len)
}

/// Adds the stored items that the vector does not cover; gives their bytes.
fn take_uncovered(
    pairs: Vec<(Bytes, Bytes)>,
    vector: &VersionVector,
    items: &mut Vec<(Key, Item)>,
) -> Result<usize, StoreError> {
    let mut bytes = 0;
    for (stored_key, record) in pairs {
        let item = records::decode_item(&record)?;
        if !vector.covers(item.dot) {
            bytes += record.len() + stored_key.len();
            items.push((records::user_key(&stored_key)?, item));
        }
    }
    Ok(bytes)
}
