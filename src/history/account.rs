//! What became of each acknowledged write: it is there at the end, or what is there follows it.

use std::collections::BTreeMap;

use super::check::Checker;
use super::events::{Held, Kind};
use super::verdict::Account;

impl Checker<'_> {
    pub(super) fn account(&self) -> Account {
        let mut held: BTreeMap<u32, Held> = BTreeMap::new();
        for word in &self.found.held {
            held.entry(word.key).or_insert(*word);
        }
        let deletes = self.last_deletes();
        let mut account = Account::default();
        for write in &self.found.acknowledged {
            let event = &self.found.events[*write as usize];
            if let Some(held) = held.get(&event.key).filter(|_| event.kind.is_write()) {
                self.settle(*write, *held, &deletes[event.key as usize], &mut account);
            }
        }
        account
    }

    /// By key, the last delete of each chain: it stands for all of them. A write that follows it follows them all, and a
    /// write that one of them follows is followed by it.
    fn last_deletes(&self) -> Vec<Vec<u32>> {
        let is_delete = |number: &u32| self.found.events[*number as usize].kind == Kind::Delete;
        let last = |writes: &Vec<u32>| writes.iter().rev().copied().find(is_delete);
        self.writes.iter().map(|chains| chains.values().filter_map(last).collect()).collect()
    }

    fn settle(&self, write: u32, held: Held, deletes: &[u32], account: &mut Account) {
        let event = &self.found.events[write as usize];
        let number = event.record as usize;
        let nothing = self.records[held.record as usize].value.is_none();
        if held.shows == Some(write) || nothing && event.kind == Kind::Delete {
            account.readable += 1;
            return;
        }
        // Where nothing is there and no delete alone explains it, any may be what is there.
        let deletes = deletes.iter().copied().filter(|_| nothing && held.shows.is_none());
        let mut there: Vec<u32> = held.shows.into_iter().chain(deletes).collect();
        there.retain(|other| !self.is_before(*other, write));
        let last = there.iter().max_by_key(|other| self.records[self.record(**other)].end_us);
        if there.iter().any(|other| self.is_before(write, *other)) {
            account.followed += 1;
        } else if let Some(other) = last {
            account.overtaken.push((number, self.record(*other)));
        } else {
            account.lost.push(number);
        }
    }

    fn record(&self, event: u32) -> usize {
        self.found.events[event as usize].record as usize
    }
}
