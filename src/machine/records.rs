//! What a machine keeps in its store: the layout of keys and the formats of records.
//!
//! | key | record |
//! |---|---|
//! | `m` `identity` | [`Identity`]: the incarnation and the address it was made for |
//! | `m` `map` | the newest map learned |
//! | `m` `ceiling` | the clock's ceiling |
//! | `m` `clocks` | `true` once every node takes contexts that tell clocks |
//! | `m` `acceptor` | what was promised and accepted of the next map |
//! | `p` partition | [`ReplicaRecord`]: vector, floor, counts |
//! | `i` partition key | the key's [`Item`] |
//! | `t` partition key | empty: the item is a tombstone |
//! | `l` partition stay seq | the log: an [`Op`] of an own stay |
//! | `f` partition index | items of an unfinished fill; at the greatest index [`FillMark`], once it is whole |
//!
//! Numbers in keys are big-endian, so that a scan is in their order. Every record begins with the version of its
//! format; a record that does not decode is damage, never skipped.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::causal::context::Context;
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::vector::VersionVector;
use crate::error::StoreError;
use crate::types::{Dot, Epoch, Incarnation, Key, NodeAddr, PartitionId, Seq, StayId, Timestamp};

/// The version of every record's format.
const FORMAT: u8 = 1;

/// Whose directory this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Drawn when the directory was made.
    pub incarnation: Incarnation,
    /// The address it was made for.
    pub address: NodeAddr,
}

/// What a replica is, its items and log aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRecord {
    /// Own stays that the replica is held for; none: it is dropped, and what is left of it is being removed.
    pub held_for: Vec<StayId>,
    /// Whether it holds a causally whole state: from the first fill on, or because its stay served from the beginning.
    pub filled: bool,
    /// What is applied.
    pub applied: VersionVector,
    /// See [`crate::causal::partition::Replica::floor`].
    pub floor: Epoch,
    /// Keys with a value.
    pub keys: u64,
    /// Keys with a tombstone.
    pub tombstones: u64,
    /// Bytes of the items' records and keys.
    pub bytes: u64,
}

/// What stands on the disk for a fill that is whole: from then on it is taken over, whatever happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillMark {
    /// Parts that were put aside.
    pub chunks: u32,
    /// What the source had applied.
    pub vector: VersionVector,
    /// The source's floor.
    pub floor: Epoch,
    /// The source's clock.
    pub clock: Timestamp,
}

/// The part of an item's record that merging needs; the value is not touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ItemHeader {
    timestamp: Timestamp,
    dot: Dot,
    tombstone: bool,
    carried: Context,
}

/// The key of a node-wide record.
pub fn meta_key(name: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + name.len());
    key.put_u8(b'm');
    key.put_slice(name.as_bytes());
    key.freeze()
}

fn partition_key(kind: u8, partition: PartitionId, rest: usize) -> BytesMut {
    let mut key = BytesMut::with_capacity(5 + rest);
    key.put_u8(kind);
    key.put_u32(partition.0);
    key
}

/// The key of a replica's record.
pub fn replica_key(partition: PartitionId) -> Bytes {
    partition_key(b'p', partition, 0).freeze()
}

/// The key of an item.
pub fn item_key(partition: PartitionId, key: &Key) -> Bytes {
    let text = key.as_str().as_bytes();
    let mut bytes = partition_key(b'i', partition, text.len());
    bytes.put_slice(text);
    bytes.freeze()
}

/// The key of a tombstone's mark.
pub fn tombstone_key(partition: PartitionId, key: &Key) -> Bytes {
    let text = key.as_str().as_bytes();
    let mut bytes = partition_key(b't', partition, text.len());
    bytes.put_slice(text);
    bytes.freeze()
}

/// The key of a log entry.
pub fn log_key(partition: PartitionId, dot: Dot) -> Bytes {
    let mut key = partition_key(b'l', partition, 12);
    key.put_u32(dot.stay.0);
    key.put_u64(dot.seq);
    key.freeze()
}

/// The index that stands for the mark of a fill that is whole.
pub const MARK: u32 = u32::MAX;

/// The key of a part of an unfinished fill.
pub fn aside_key(partition: PartitionId, index: u32) -> Bytes {
    let mut key = partition_key(b'f', partition, 4);
    key.put_u32(index);
    key.freeze()
}

/// The range of all keys of one kind (`i`, `t`, `l`, `f`) in one partition.
pub fn range(kind: u8, partition: PartitionId) -> (Bytes, Bytes) {
    (partition_key(kind, partition, 0).freeze(), partition_key(kind, PartitionId(partition.0 + 1), 0).freeze())
}

/// The range of the log of one own stay.
pub fn own_log(partition: PartitionId, stay: StayId) -> (Bytes, Bytes) {
    // Up to the key after the last one that there can be.
    let last = log_key(partition, Dot { stay, seq: Seq::MAX });
    (log_key(partition, Dot { stay, seq: 0 }), [&*last, &[0]].concat().into())
}

/// The user's key of an item's or a tombstone's store key.
///
/// # Errors
/// [`StoreError::Damaged`] for bytes that no key makes.
pub fn user_key(stored: &[u8]) -> Result<Key, StoreError> {
    let text = stored.get(5..).and_then(|rest| std::str::from_utf8(rest).ok());
    text.and_then(|text| Key::new(text).ok()).ok_or_else(|| damaged("a key", stored))
}

/// The dot of a log entry's store key.
///
/// # Errors
/// [`StoreError::Damaged`] for bytes that no dot makes.
pub fn log_dot(stored: &[u8]) -> Result<Dot, StoreError> {
    let bad = || damaged("a log key", stored);
    let stay = stored.get(5..9).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes).ok_or_else(bad)?;
    let seq: Seq = stored.get(9..17).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes).ok_or_else(bad)?;
    Ok(Dot { stay: StayId(stay), seq })
}

/// The bytes of a record.
pub fn encode<T: Serialize>(record: &T) -> Bytes {
    postcard::to_extend(record, vec![FORMAT]).expect("records are plain data and always encode").into()
}

/// The record of these bytes; `what` names it in the error.
///
/// # Errors
/// [`StoreError::Damaged`] when the bytes are not a record of a known format.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    match postcard::take_from_bytes(body(what, bytes)?) {
        Ok((record, [])) => Ok(record),
        // What goes on behind its end is another record than this.
        Ok(_) | Err(_) => Err(damaged(what, bytes)),
    }
}

/// The bytes of an item: its header, then the value as it is.
pub fn encode_item(item: &Item) -> Bytes {
    let header = ItemHeader {
        timestamp: item.timestamp,
        dot: item.dot,
        tombstone: item.is_tombstone(),
        carried: item.carried.clone(),
    };
    let mut bytes = postcard::to_extend(&header, vec![FORMAT]).expect("headers are plain data and always encode");
    if let Some(value) = &item.value {
        bytes.extend_from_slice(value);
    }
    bytes.into()
}

/// The item of these bytes; the value shares them.
///
/// # Errors
/// [`StoreError::Damaged`] when the bytes are not an item.
pub fn decode_item(bytes: &Bytes) -> Result<Item, StoreError> {
    let body = body("an item", bytes)?;
    let (header, value): (ItemHeader, &[u8]) =
        postcard::take_from_bytes(body).map_err(|_| damaged("an item", bytes))?;
    let value = match (header.tombstone, value) {
        (true, []) => None,
        (true, _) => return Err(damaged("a tombstone", bytes)),
        (false, value) => Some(bytes.slice_ref(value)),
    };
    Ok(Item { value, dot: header.dot, timestamp: header.timestamp, carried: header.carried })
}

/// The operation of a log entry.
///
/// # Errors
/// [`StoreError::Damaged`] when the bytes are not an operation.
pub fn decode_op(bytes: &[u8]) -> Result<Op, StoreError> {
    decode("an operation", bytes)
}

fn body<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8], StoreError> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => Ok(body),
        Some((&newer, _)) if newer > FORMAT => Err(StoreError::Damaged(format!(
            "{what} has format {newer}, this build knows up to {FORMAT}; start the newer build again"
        ))),
        _ => Err(damaged(what, bytes)),
    }
}

fn damaged(what: &str, bytes: &[u8]) -> StoreError {
    StoreError::Damaged(format!(
        "{what} of {} bytes does not decode; restore the directory, or remove it and let the node refill",
        bytes.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_or_less_than_a_record_or_of_a_newer_build_is_none() {
        let identity = Identity { incarnation: Incarnation(7), address: "node1:80".parse().unwrap() };
        let bytes = encode(&identity);
        assert_eq!(decode("identity", &bytes), Ok(identity));
        let tombstone = Item {
            value: None,
            dot: Dot { stay: StayId(1), seq: 2 },
            timestamp: Timestamp(3),
            carried: Context::empty(),
        };
        let item = encode_item(&tombstone);
        assert_eq!(decode_item(&item), Ok(tombstone));
        let refused = |bytes: &[u8]| decode::<Identity>("identity", bytes).unwrap_err().to_string();
        let refused_item = |bytes: &[u8]| decode_item(&Bytes::copy_from_slice(bytes)).unwrap_err().to_string();
        assert!(refused(&[&bytes[..], &[0]].concat()).contains("does not decode"));
        assert!(refused(&bytes[..bytes.len() - 1]).contains("does not decode"));
        assert!(refused(&[]).contains("does not decode"));
        assert!(refused_item(&[&item[..], b"1"].concat()).contains("does not decode"));
        let newer = |bytes: &[u8]| [&[FORMAT + 1], &bytes[1..]].concat();
        for text in [refused(&newer(&bytes)), refused_item(&newer(&item))] {
            assert!(text.contains("has format 2, this build knows up to 1; start the newer build again"), "{text}");
        }
    }
}
