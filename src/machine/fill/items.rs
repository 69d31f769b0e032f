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
pub(in crate::machine) fn item_weight(key: &Key, item: &Item) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::context::Context;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, Store};
    use crate::types::{Dot, StayId, Timestamp};

    const P: PartitionId = PartitionId(3);

    /// Keys in order, each with a value of so many bytes, written by one stay as 1, 2, 3, …
    fn stored(sizes: &[usize]) -> MemoryStore {
        let (store, mut batch) = (MemoryStore::new(), Batch::default());
        for (seq, size) in (1..).zip(sizes) {
            let dot = Dot { stay: StayId(7), seq };
            let item = Item {
                value: Some(vec![b'x'; *size].into()),
                dot,
                timestamp: Timestamp(seq),
                carried: Context::empty(),
            };
            let key = records::item_key(P, &Key::new(&format!("key{seq:04}")).unwrap());
            batch.changes.push((key, Some(records::encode_item(&item))));
        }
        store.apply(batch).unwrap();
        store
    }

    /// The seqs that each chunk brings to one with this vector.
    fn chunks(store: &MemoryStore, has: u64) -> Vec<Vec<u64>> {
        let mut vector = VersionVector::default();
        vector.raise(StayId(7), has);
        let (mut from, mut all) = (None, Vec::new());
        loop {
            let (items, next) = next_items(store, P, from.as_ref(), &vector).unwrap();
            all.push(items.iter().map(|(_, item)| item.dot.seq).collect());
            match next {
                Some(next) => from = Some(next),
                None => return all,
            }
        }
    }

    #[test]
    fn only_what_the_vector_does_not_cover_is_given() {
        let store = stored(&[10; 21]);
        assert_eq!(chunks(&store, 0).concat(), (1..=21).collect::<Vec<_>>());
        assert_eq!(chunks(&store, 19).concat(), [20, 21]);
        assert_eq!(chunks(&store, 21).concat(), [0; 0]);
    }

    #[test]
    fn a_chunk_is_bounded_in_bytes_and_in_what_it_looks_at() {
        let sizes = [10_000; 40];
        let all = chunks(&stored(&sizes), 0);
        assert_eq!(all.concat(), (1..=40).collect::<Vec<_>>());
        let most = all.iter().map(|chunk| chunk.len() * 10_000).max().unwrap();
        assert!(most <= CHUNK_BYTES + SCAN_STEP * 10_100, "{most} bytes in a chunk");
        assert!(all.len() >= 40 * 10_000 / (CHUNK_BYTES + SCAN_STEP * 10_100));
        // Larger ones are not held back, nor is there more of them than one look brings.
        let large = chunks(&stored(&[200_000; 6]), 0);
        assert_eq!(large.concat(), [1, 2, 3, 4, 5, 6]);
        assert!(large.iter().all(|chunk| chunk.len() <= SCAN_STEP));
        // What is skipped is looked at in slices, too.
        assert!(chunks(&stored(&[1; 2 * CHUNK_SCAN]), 2 * CHUNK_SCAN as u64 - 1).len() >= 2);
    }
}
