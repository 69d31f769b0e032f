//! A new version of a row holds up the writes to it until the peers say their first words: by no more than that takes.

use std::sync::Arc;

use super::*;
use crate::cluster::map::ClusterMap;
use crate::machine::message::Wanted;
use crate::types::{Epoch, PartitionId};

impl Lockstep {
    fn epochs(&self) -> Vec<u64> {
        self.hosts.values().map(|host| host.machine.map().epoch.0).collect()
    }

    /// Gives one input, and makes nothing durable; the reports to a node, partition by partition, in order.
    fn reports(&mut self, number: usize, to: usize, input: Input) -> (Vec<PartitionId>, Option<u64>) {
        let mut effects = Vec::new();
        let host = self.hosts.get_mut(&node(number)).unwrap();
        host.machine.step(self.now, input, &host.store, &mut effects);
        let batch = host.machine.flush(&host.store, &mut effects);
        let of = |effect: Effect| match effect {
            Effect::Send { to: hears, message: Message::Report(reports) } if hears == node(to) => reports,
            _ => Vec::new(),
        };
        let reports = effects.into_iter().flat_map(of).filter(|report| report.version == Epoch(2));
        (reports.map(|report| report.partition).collect(), batch)
    }
}

#[test]
fn a_decided_map_is_told_before_it_is_durable_where_it_was_decided() {
    let mut all = Lockstep::before_map_two();
    all.hosts.get_mut(&node(1)).unwrap().stalls = true;
    all.step(&node(1), Input::Change { id: 1, wanted: Wanted::Remove(node(5)), budget_ms: 5_000 });
    all.run_ms(1_000);
    let epochs = all.epochs();
    assert_eq!(epochs[0], 1);
    assert!(epochs[1..4].iter().all(|epoch| *epoch >= 2), "{epochs:?}");
}

#[test]
fn a_first_word_waits_for_its_own_partition_and_for_no_other() {
    let mut all = Lockstep::before_map_two();
    // Node 3 hears nothing, of the others and of the map.
    all.cut = [1, 2, 4, 5].map(|other| (node(other), node(3))).to_vec();
    all.step(&node(1), Input::Change { id: 1, wanted: Wanted::Remove(node(5)), budget_ms: 5_000 });
    while all.machine(1).map().epoch == Epoch(1) {
        all.run_ms(10);
    }
    let map: Arc<ClusterMap> = all.machine(1).map().clone();
    assert_eq!((map.epoch, all.machine(3).map().epoch), (Epoch(2), Epoch(1)));
    let of_one =
        Input::Message { from: node(1), incarnation: all.machine(1).incarnation(), message: Message::MapPush(map) };
    let (none, learned) = all.reports(3, 2, of_one);
    // A write comes while the map is on its way to the disk, and is not durable with it.
    let written = PartitionId(3);
    let named = (0..).map(|n| format!("k{n}")).find(|name| key(name).partition(8) == written).unwrap();
    let write = Input::Request { id: 9, request: put_request(&named, "1"), budget_ms: 2_000 };
    let (none_either, last) = all.reports(3, 2, write);
    assert!(none.is_empty() && none_either.is_empty() && learned < last);
    let (spoken, after) = all.reports(3, 2, Input::Synced(learned.unwrap()));
    let others: Vec<PartitionId> = (0..8).map(PartitionId).filter(|partition| *partition != written).collect();
    assert_eq!(spoken, others);
    let (spoken, _) = all.reports(3, 2, Input::Synced(after.max(last).unwrap()));
    assert!(spoken.contains(&written), "{spoken:?}");
}

#[test]
fn under_a_new_version_a_stream_goes_on_before_the_peers_first_word() {
    let mut all = Lockstep::before_map_two();
    let context = (0..40).fold(Context::empty(), |context, n| all.put(1, &format!("k{n}"), "1", &context));
    // All of that is everywhere, and the logs are truncated.
    all.run_ms(5_000);
    // Node 1 does not hear what node 2 says from here on.
    all.map_two();
    let own = all.machine(1).incarnation();
    let written = key("k0").partition(8);
    all.asked += 1;
    let request = Request::Put { key: key("k0"), value: Bytes::from_static(b"2"), context };
    all.step(&node(1), Input::Request { id: all.asked, request, budget_ms: 2_000 });
    all.settle();
    let (one, two) = (all.machine(1).part(written), all.machine(2).part(written));
    let stay = one.peers.iter().find(|peer| peer.incarnation == own).unwrap().stay;
    let holds = |part: &crate::machine::part::Part| part.replica.as_ref().unwrap().applied.get(stay);
    assert!(one.words.of(two.own().unwrap().stay).is_none(), "node 1 has heard its first word");
    assert!(holds(one) > 0);
    assert_eq!(holds(two), holds(one), "node 1 waits for its first word");
}
