//! What a node reads back from its disk. The disk's own checksums come first: this is what would come through them, as
//! of a build with other records.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use entail::causal::item::Item;
use entail::causal::op::Op;
use entail::causal::vector::VersionVector;
use entail::cluster::delta::MapDelta;
use entail::cluster::map::ClusterMap;
use entail::cluster::paxos::{Acceptor, Ballot};
use entail::error::StoreError;
use entail::machine::records::{self, FillMark, Identity, ReplicaRecord};
use entail::types::{Dot, Epoch, Incarnation, Key, PartitionId, StayId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::damage::damaged;
use crate::run::{Bound, Cases, run};
use crate::samples;

/// A list makes room for what it says it has, up to a mebibyte, before its first element is read; lists stand within
/// lists.
const BOUND: Bound = Bound { times: 200, more: 4 << 20 };

#[test]
fn items_and_operations() {
    let items = [samples::item(Some("[1]")), samples::item(None)].map(|item| records::encode_item(&item).to_vec());
    let operations = [records::encode(&samples::op()).to_vec()];
    run("items_and_operations", 100, &["taken", "refused"], |cases| {
        let bytes = Bytes::from(damaged(&mut cases.random, &items));
        let read = cases.within(bytes.len(), BOUND, || records::decode_item(&bytes));
        if let Some(item) = taken(cases, read) {
            assert_eq!(records::decode_item(&records::encode_item(&item)), Ok(item));
        }
        same::<Op>(cases, &operations);
        keys(cases);
    });
}

/// Reads damaged bytes as a record: what is read is the same when it is written again.
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(cases: &mut Cases, seeds: &[Vec<u8>]) {
    let bytes = damaged(&mut cases.random, seeds);
    let read = cases.within(bytes.len(), BOUND, || records::decode::<T>("a record", &bytes));
    if let Some(record) = taken(cases, read) {
        assert_eq!(records::decode("a record", &records::encode(&record)), Ok(record));
    }
}

fn taken<T>(cases: &mut Cases, read: Result<T, StoreError>) -> Option<T> {
    match read {
        Ok(record) => {
            cases.count("taken");
            Some(record)
        }
        Err(StoreError::Damaged(why)) => {
            cases.count("refused");
            assert!(!why.is_empty());
            None
        }
        Err(other) => panic!("{other}"),
    }
}

fn keys(cases: &mut Cases) {
    let (partition, dot) = (PartitionId(3), Dot { stay: StayId(2), seq: 9 });
    let seeds =
        [records::item_key(partition, &samples::key("a/b")), records::log_key(partition, dot)].map(|k| k.to_vec());
    let bytes = damaged(&mut cases.random, &seeds);
    let read = records::user_key(&bytes);
    if let Some(key) = taken(cases, read) {
        assert_eq!(records::item_key(partition, &key)[5..], bytes[5..]);
    }
    let read = records::log_dot(&bytes);
    if let Some(dot) = taken(cases, read) {
        assert_eq!(records::log_key(partition, dot)[5..], bytes[5..17]);
    }
}

#[test]
fn node_wide_records() {
    let seed = |record: Bytes| [record.to_vec()];
    let identity = seed(records::encode(&Identity { incarnation: Incarnation(7), address: samples::node(1) }));
    let maps = [samples::born(), samples::changed()].map(|map| records::encode(&map).to_vec());
    let ceilings = seed(records::encode(&Timestamp(1 << 60)));
    let mut acceptor = Acceptor::default();
    let ballot = Ballot { round: 3, proposer: 1 << 90 };
    let next = Arc::new(MapDelta::between(&samples::born(), &samples::changed()));
    acceptor.prepare(Incarnation(1), Epoch(2), ballot);
    acceptor.accept(Incarnation(1), Epoch(2), ballot, next, Ok(()));
    let acceptors = seed(records::encode(&acceptor));
    let applied: VersionVector = [(StayId(0), 17), (StayId(3), 1 << 40)].into_iter().collect();
    let mark = FillMark { chunks: 4, vector: applied.clone(), floor: Epoch(9), clock: Timestamp(1 << 60) };
    let marks = seed(records::encode(&mark));
    let held_for = vec![StayId(3), StayId(4)];
    let replica = ReplicaRecord { held_for, filled: true, applied, floor: Epoch(9), keys: 5, tombstones: 1, bytes: 70 };
    let replicas = seed(records::encode(&replica));
    let parts: Vec<(Key, Item)> = vec![(samples::key("a"), samples::item(Some("1")))];
    let parts = seed(records::encode(&parts));
    run("node_wide_records", 60, &["taken", "refused"], |cases| {
        same::<Identity>(cases, &identity);
        same::<ClusterMap>(cases, &maps);
        same::<Timestamp>(cases, &ceilings);
        same::<Acceptor>(cases, &acceptors);
        same::<ReplicaRecord>(cases, &replicas);
        same::<Vec<(Key, Item)>>(cases, &parts);
        same::<FillMark>(cases, &marks);
    });
}
