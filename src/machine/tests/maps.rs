//! How maps get from node to node.

use std::sync::Arc;

use super::*;
use crate::cluster::delta::MapDelta;
use crate::cluster::map::ClusterMap;
use crate::types::Epoch;

impl Lockstep {
    fn epoch(&self, number: usize) -> u64 {
        self.machine(number).map().epoch.0
    }

    /// A seventh node starts, and is admitted: a map with one node more.
    pub(super) fn start_seventh(&mut self) {
        self.maps.clear();
        self.start(7, 6, 2, MemoryStore::new());
        self.connect_all();
        self.run_ms(3_000);
        assert!(self.machine(1).map().nodes.contains_key(&node(7)));
    }

    /// How many maps were told to a node: whole, and as differences.
    fn told(&self, number: usize) -> [usize; 2] {
        let told = |kind| self.maps.iter().filter(|(to, whole)| *to == node(number) && *whole == kind).count();
        [told(true), told(false)]
    }

    fn all_have_one_map(&self) {
        let map = self.machine(1).map();
        assert!(self.hosts.values().all(|host| host.machine.map() == map));
    }
}

#[test]
fn maps_are_told_as_differences() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let born = all.epoch(1);
    all.start_seventh();
    assert!(all.epoch(1) > born);
    for number in 2..=6 {
        let [whole, chains] = all.told(number);
        assert!(whole == 0 && chains > 0, "node{number}: {whole} and {chains}");
    }
    // Map 0 follows from the settings, so differences lead on from there, too, where they are the shorter way.
    assert_ne!(all.told(7), [0, 0]);
    all.all_have_one_map();
}

#[test]
fn who_was_away_goes_through_what_it_missed() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let others: Vec<_> = [1, 2, 3, 4, 5, 7].map(node).into();
    all.cut = others.iter().flat_map(|other| [(other.clone(), node(6)), (node(6), other.clone())]).collect();
    let before = all.epoch(6);
    all.start_seventh();
    assert!(all.epoch(1) > before);
    assert_eq!(all.epoch(6), before);
    all.maps.clear();
    all.cut.clear();
    all.run_ms(3_000);
    let [whole, chains] = all.told(6);
    assert!(whole == 0 && chains > 0, "{whole} and {chains}");
    all.all_have_one_map();
}

#[test]
fn who_comes_back_empty_gets_the_whole_map_of_those_that_know_no_way_to_it() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.stop(6);
    all.start_seventh();
    // A process that was started again remembers no differences.
    all.start_again([1, 2, 3, 4, 5, 7], 2);
    all.maps.clear();
    all.start(6, 6, 2, MemoryStore::new());
    all.connect_all();
    all.run_ms(8_000);
    assert!(all.told(6)[0] > 0);
    all.all_have_one_map();
}

#[test]
fn a_difference_from_another_map_changes_nothing_and_is_asked_for_anew() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let map = ClusterMap::clone(all.machine(1).map());
    let other = ClusterMap { parent_hash: 1, ..map.clone() };
    let next = ClusterMap { epoch: Epoch(map.epoch.0 + 1), parent_hash: other.hash(), ..other.clone() };
    let message = Message::MapDeltas(vec![Arc::new(MapDelta::between(&other, &next))]);
    let (from, incarnation) = (node(2), all.machine(2).incarnation());
    let mut effects = Vec::new();
    let now = all.now;
    let host = all.hosts.get_mut(&node(1)).unwrap();
    host.machine.step(now, Input::Message { from, incarnation, message }, &host.store, &mut effects);
    let asks = Message::MapPull { have: map.epoch, hash: map.hash() };
    let asked = |effect: &Effect| matches!(effect, Effect::Send { to, message } if *to == node(2) && *message == asks);
    assert_eq!(effects.iter().filter(|effect| asked(effect)).count(), 1, "{effects:?}");
    all.run_ms(1_000);
    assert_eq!(**all.machine(1).map(), map);
}

#[test]
fn a_map_with_other_partitions_or_another_secret_is_none_of_this_store() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let map = all.machine(1).map().clone();
    let other = |change: &dyn Fn(&mut ClusterMap)| {
        let mut map = ClusterMap { epoch: Epoch(9), ..ClusterMap::clone(&map) };
        change(&mut map);
        assert_eq!(map.check(), Ok(()));
        map
    };
    let fewer = other(&|map| {
        map.rows.truncate(3);
        map.layout.partitions.truncate(3);
    });
    let secret = other(&|map| map.secret.0[0] ^= 1);
    let incarnation = all.machine(2).incarnation();
    for map in [fewer, secret] {
        let message = Message::MapPush(Arc::new(map));
        all.step(&node(1), Input::Message { from: node(2), incarnation, message });
        all.run_ms(500);
        assert_eq!(all.epoch(1), 1);
    }
    assert!(all.warnings.iter().any(|warning| warning.contains("other partitions or secret")), "{:?}", all.warnings);
    // A newer one that is of this store is believed: who speaks as a node is one.
    let newer = Message::MapPush(Arc::new(other(&|_| {})));
    all.step(&node(1), Input::Message { from: node(2), incarnation, message: newer });
    all.run_ms(500);
    assert_eq!(all.epoch(1), 9);
}
