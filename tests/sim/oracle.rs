//! What is right, known from outside the protocol.
//!
//! The oracle numbers every *version* (one write that some node gave a dot) and knows its true causal past: all that
//! the writing session had seen when it asked. Sessions carry their true past beside the context that the protocol
//! gave them; a read is wrong when it shows less than that past, whatever the context says.
//!
//! Versions are met when their coordinator's store takes the log entry. A put is known by its value, which names the
//! request. A delete carries nothing of its own: it belongs to the one open delete of its key, or, when several are
//! open, its past is what all of them have in common until an answer tells whose it is. Who holds what durably is
//! learned from the records that nodes apply and sync, never from what they say.

use std::collections::BTreeMap;

use entail::causal::context::Context;
use entail::types::{Dot, Epoch, Key, PartitionId, Timestamp};

use crate::coverage::Coverage;
use crate::holdings::Holdings;
use crate::loss::Taken;
pub use crate::past::{Past, VersionId};

/// What decides between versions of a key: timestamp, then dot.
pub type Order = (Timestamp, Dot);

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Get,
    Put,
    Delete,
}

/// A client's view of the world, and what it truly is.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// What the protocol gave it.
    pub context: Context,
    /// All it has seen, and all that was seen by those who wrote that.
    pub past: Past,
    /// Versions it wrote itself.
    pub own: Past,
    /// Versions it read.
    pub seen: Past,
    /// The request whose answer gave it.
    pub token: Option<u64>,
}

/// A write that a client asked for.
#[derive(Clone, Debug)]
pub struct Write {
    /// The index of its key.
    pub key: usize,
    /// Whether it is a delete.
    pub delete: bool,
    /// What its session had seen.
    pub past: Past,
    /// When it must be answered.
    pub deadline_ms: u64,
    /// The version it became.
    pub version: Option<VersionId>,
    /// Answered with an error that promises that nothing was written.
    pub refused: bool,
}

/// A write that was given a name.
#[derive(Clone, Debug)]
pub struct Version {
    /// The index of its key.
    pub key: usize,
    /// The key's partition.
    pub partition: PartitionId,
    /// Which write it is; unknown for a delete while several may be it.
    pub write: Option<usize>,
    /// Whether it is a delete.
    pub delete: bool,
    /// Where it stands among its key's versions.
    pub order: Order,
    /// What its writer had seen.
    pub past: Past,
    /// The node that coordinated it.
    pub coordinator: usize,
    /// When it did.
    pub born_ms: u64,
    /// It went to another node.
    pub left: bool,
    /// A client was told of it: by an acknowledgement, or by a read that showed it.
    pub shown: bool,
    /// The answer's number of copies, once acknowledged.
    pub acked: Option<u32>,
    /// The version of the row that it was written under.
    pub born_under: Epoch,
    /// The number of copies that its coordinator has answered, and the version of the row that it counted under.
    pub counted: Option<(u32, Epoch)>,
    /// What took copies of it, in order.
    pub taken: Vec<Taken>,
    /// A crash took it before it left its coordinator, and it never was; or all disks that had it are lost.
    pub gone: bool,
}

/// What a read was answered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The node that served it.
    pub node: usize,
    /// The version, a value's or a tombstone's; `None` where there was nothing.
    pub version: Option<VersionId>,
    /// Where no value was shown: the greatest tombstone that may have been there, or have been collected there.
    pub buried: Option<VersionId>,
    /// Where nothing was: the deletes that may be why.
    pub deletes: Vec<VersionId>,
}

/// All that is known.
#[derive(Debug)]
pub struct Oracle {
    /// The keys, by index.
    pub keys: Vec<Key>,
    /// How many partitions there are.
    pub partitions: u32,
    /// All writes that were asked for.
    pub writes: Vec<Write>,
    /// All versions.
    pub versions: Vec<Version>,
    /// Each key's versions.
    pub by_key: Vec<Vec<VersionId>>,
    /// The version that a dot names.
    pub by_dot: BTreeMap<(PartitionId, Dot), VersionId>,
    /// Versions that were lost after somebody may have seen them.
    pub lost_versions: Vec<VersionId>,
    /// What each node holds.
    pub holdings: Vec<Holdings>,
    /// Counters.
    pub coverage: Coverage,
    /// The world's time.
    pub now_ms: u64,
}

impl Oracle {
    /// An oracle of a store that is not born yet.
    pub fn new(keys: Vec<Key>, partitions: u32, nodes: usize) -> Self {
        Self {
            by_key: vec![Vec::new(); keys.len()],
            keys,
            partitions,
            writes: Vec::new(),
            versions: Vec::new(),
            by_dot: BTreeMap::new(),
            lost_versions: Vec::new(),
            holdings: (0..nodes).map(|_| Holdings::new(partitions)).collect(),
            coverage: Coverage::default(),
            now_ms: 0,
        }
    }

    /// The partition of a key.
    pub fn partition(&self, key: usize) -> PartitionId {
        self.keys[key].partition(self.partitions)
    }

    /// The index of a key.
    pub fn key_index(&self, key: &Key) -> Option<usize> {
        self.keys.iter().position(|k| k == key)
    }

    /// A client is about to ask for a write; gives its number.
    pub fn ask(&mut self, key: usize, delete: bool, past: &Past, budget_ms: u64) -> usize {
        let deadline_ms = self.now_ms + budget_ms;
        self.writes.push(Write { key, delete, past: past.clone(), deadline_ms, version: None, refused: false });
        self.writes.len() - 1
    }

    /// A coordinator has given a write its name. The value of a put names its write.
    pub fn born(&mut self, node: usize, key: usize, dot: Dot, timestamp: Timestamp, value: Option<usize>) -> VersionId {
        let partition = self.partition(key);
        let (write, past) = match value {
            Some(write) => (Some(write), self.writes[write].past.clone()),
            None => self.deleter(key),
        };
        let id = self.versions.len();
        self.versions.push(Version {
            key,
            partition,
            write,
            delete: value.is_none(),
            order: (timestamp, dot),
            past,
            coordinator: node,
            born_ms: self.now_ms,
            left: false,
            shown: false,
            acked: None,
            born_under: Epoch(0),
            counted: None,
            taken: Vec::new(),
            gone: false,
        });
        if let Some(write) = write {
            self.writes[write].version = Some(id);
        }
        self.by_key[key].push(id);
        self.by_dot.insert((partition, dot), id);
        id
    }

    /// Whose delete a new tombstone is, if that is certain, and what its writer has certainly seen.
    fn deleter(&mut self, key: usize) -> (Option<usize>, Past) {
        let open = |w: &Write| w.key == key && w.delete && w.version.is_none() && !w.refused;
        let candidates: Vec<usize> = (0..self.writes.len()).filter(|&w| open(&self.writes[w])).collect();
        if let [only] = candidates[..] {
            return (Some(only), self.writes[only].past.clone());
        }
        self.coverage.hit("oracle: delete of several candidates");
        let mut pasts = candidates.iter().map(|&w| &self.writes[w].past);
        let mut common = pasts.next().cloned().unwrap_or_default();
        pasts.for_each(|past| common.meet(past));
        (None, common)
    }

    /// An answer tells which version a write became.
    pub fn bind(&mut self, write: usize, version: VersionId) {
        self.versions[version].write = Some(write);
        self.versions[version].past = self.writes[write].past.clone();
        self.writes[write].version = Some(version);
    }

    /// A crash took a version that had not left its coordinator.
    pub fn lost(&mut self, version: VersionId) {
        if self.versions[version].left || self.versions[version].shown {
            return;
        }
        self.coverage.hit("crash: unsynced write lost");
        self.versions[version].gone = true;
        let v = &self.versions[version];
        if self.by_dot.get(&(v.partition, v.order.1)) == Some(&version) {
            self.by_dot.remove(&(v.partition, v.order.1));
        }
        if let Some(write) = v.write {
            self.writes[write].version = None;
        }
    }

    /// The greatest version of the key among those `known` that really are.
    pub fn best(&self, key: usize, known: impl Fn(VersionId) -> bool) -> Option<VersionId> {
        let real = |v: &VersionId| !self.versions[*v].gone && known(*v);
        self.by_key[key].iter().copied().filter(real).max_by_key(|v| self.versions[*v].order)
    }

    /// Whether a read may show this to somebody who must be shown `best` or something greater.
    pub fn acceptable(&self, best: Option<VersionId>, shown: &Shown) -> bool {
        let Some(best) = best else { return true };
        let at_least = |v: VersionId| self.versions[v].order >= self.versions[best].order;
        shown.version.is_some_and(at_least) || shown.buried.is_some_and(at_least)
    }

    /// The greater of two versions of one key.
    pub fn greater(&self, a: Option<VersionId>, b: Option<VersionId>) -> Option<VersionId> {
        a.into_iter().chain(b).max_by_key(|v| self.versions[*v].order)
    }

    /// The greatest delete of the key that the node's vector covers.
    pub fn buried_at(&self, node: usize, key: usize) -> Option<VersionId> {
        let partition = self.partition(key);
        let vector = &self.holdings[node].now[partition.0 as usize].vector;
        self.best(key, |v| self.versions[v].delete && vector.covers(self.versions[v].order.1))
    }

    /// The deletes of the key that the node's vector covers.
    pub fn deletes_at(&self, node: usize, key: usize) -> Vec<VersionId> {
        let vector = &self.holdings[node].now[self.partition(key).0 as usize].vector;
        let there = |v: &Version| v.delete && !v.gone && vector.covers(v.order.1);
        self.by_key[key].iter().copied().filter(|v| there(&self.versions[*v])).collect()
    }

    /// What somebody has certainly seen who knew of `best` and found nothing: one of these deletes, whichever it was.
    pub fn seen_in_nothing(&self, best: Option<VersionId>, deletes: &[VersionId]) -> Past {
        let Some(best) = best.filter(|best| !self.versions[*best].delete) else { return Past::default() };
        let later = deletes.iter().copied().filter(|v| self.versions[*v].order > self.versions[best].order);
        let mut pasts = later.map(|v| {
            let mut past = self.versions[v].past.clone();
            past.insert(v);
            past
        });
        let mut common = pasts.next().unwrap_or_default();
        pasts.for_each(|past| common.meet(&past));
        common
    }

    /// On how many nodes a version is durable.
    pub fn copies(&self, version: VersionId) -> u32 {
        let v = &self.versions[version];
        let holds = |h: &&Holdings| h.durable[v.partition.0 as usize].vector.covers(v.order.1);
        self.holdings.iter().filter(holds).count() as u32
    }

    /// A version in words.
    pub fn name(&self, version: VersionId) -> String {
        let v = &self.versions[version];
        let what = match (v.delete, v.write) {
            (true, Some(write)) => format!("delete w{write}"),
            (true, None) => "a delete".to_owned(),
            (false, write) => format!("w{}", write.unwrap_or_default()),
        };
        let (time, dot) = v.order;
        format!(
            "{what} of key {} (p{}.s{}.{} at {}, coordinated by node{})",
            v.key,
            v.partition,
            dot.stay,
            dot.seq,
            time,
            v.coordinator + 1
        )
    }

    /// A version, or nothing, in words.
    pub fn name_or_nothing(&self, version: Option<VersionId>) -> String {
        version.map_or_else(|| "nothing".to_owned(), |v| self.name(v))
    }
}
