//! Peers that are behind, ahead, or confused about who they are and what there is: what of their words is not taken, and
//! what believing the rest may cost. They have the store's identity: one that lies on purpose can do more than this.

use std::sync::Arc;

use super::*;
use crate::causal::item::Item;
use crate::causal::op::Op;
use crate::causal::vector::VersionVector;
use crate::machine::message::{FillChunk, PartitionReport, StabilityReport};
use crate::machine::records;
use crate::store::Read;
use crate::types::{Dot, Epoch, PartitionId, Seq, StayId, Timestamp};

/// The partition that they speak of.
const P: PartitionId = PartitionId(0);

impl Lockstep {
    /// Gives a node a message of another; what it says to that one at once. Nobody hears that yet.
    pub(super) fn hear(&mut self, at: usize, from: usize, message: Message) -> Vec<Message> {
        let incarnation = self.machine(from).incarnation();
        self.hear_as(at, node(from), incarnation, message)
    }

    fn hear_as(&mut self, at: usize, from: NodeAddr, incarnation: Incarnation, message: Message) -> Vec<Message> {
        let waiting = self.inbox.len();
        self.step(&node(at), Input::Message { from: from.clone(), incarnation, message });
        let said = |(to, input): &(NodeAddr, Input)| match input {
            Input::Message { message, .. } if *to == from => Some(message.clone()),
            _ => None,
        };
        self.inbox.iter().skip(waiting).filter_map(said).collect()
    }

    /// All that a node knows of partitions and gives to others, and all that is on its disk.
    pub(super) fn state(&self, number: usize) -> (String, Vec<(Bytes, Bytes)>) {
        let Host { machine, store, .. } = &self.hosts[&node(number)];
        let disk = store.scan(&Bytes::new(), &Bytes::from_static(&[0xff; 8]), usize::MAX).unwrap();
        assert!(!disk.is_empty());
        (format!("{:?}, gives {:?}", machine.parts, machine.fills_out), disk)
    }

    /// The stay of a node in a partition.
    pub(super) fn stay(&self, partition: PartitionId, number: usize) -> StayId {
        let peers = &self.machine(1).part(partition).peers;
        peers.iter().find(|peer| peer.node == node(number)).unwrap().stay
    }

    /// How many of a stay's writes a node has applied.
    pub(super) fn applied(&self, number: usize, partition: PartitionId, stay: StayId) -> Seq {
        self.machine(number).part(partition).replica.as_ref().unwrap().applied.get(stay)
    }
}

/// That the stay holds so many writes of another.
fn report(version: Epoch, stay: StayId, of: StayId, seq: Seq) -> Message {
    let durable = [(of, seq)].into_iter().collect();
    Message::Report(vec![PartitionReport { partition: P, version, stay, durable, promise: None }])
}

/// That so many writes of a stay are everywhere.
fn stability(version: Epoch, of: StayId, seq: Seq) -> Message {
    Message::Stability(vec![StabilityReport { partition: P, version, stable: [(of, seq)].into_iter().collect() }])
}

/// The next write of a stay that node 1 does not have.
fn next_write(all: &Lockstep, version: Epoch, stay: StayId) -> Message {
    let dot = Dot { stay, seq: all.applied(1, P, stay) + 1 };
    let item = Item { value: Some(Bytes::from("1")), dot, timestamp: Timestamp(1), carried: Context::empty() };
    let operations = vec![Arc::new(Op { key: key("a"), item, deps: VersionVector::default() })];
    Message::Operations { partition: P, version, operations }
}

/// What node 2 may say of a partition that is news to node 1: its next write, that it holds that, and that it wants all
/// that there is.
fn news(all: &Lockstep, version: Epoch) -> [Message; 3] {
    let stay = all.stay(P, 2);
    let vector = VersionVector::default();
    [
        next_write(all, version, stay),
        report(version, stay, stay, all.applied(1, P, stay) + 1),
        Message::FillRequest { partition: P, version, attempt: 77, vector },
    ]
}

#[test]
fn what_is_of_an_older_version_is_answered_with_the_map_and_not_taken() {
    let mut all = Lockstep::before_map_two();
    let old = all.machine(1).part(P).version;
    all.map_two();
    let version = all.machine(1).part(P).version;
    assert!(old < version);
    for message in news(&all, old) {
        // The map is not told twice in a short while.
        all.now.mono_ms += 1_000;
        let before = all.state(1);
        let said = all.hear(1, 2, message.clone());
        assert!(matches!(said[..], [Message::MapPush(_) | Message::MapDeltas(_)]), "{message:?}: {said:?}");
        assert_eq!((all.state(1), all.machine(1).early.len()), (before, 0), "{message:?}");
    }
    for message in news(&all, version) {
        let before = all.state(1);
        all.hear(1, 2, message.clone());
        assert_ne!(all.state(1), before, "it was the version that was wrong with {message:?}");
    }
}

#[test]
fn what_is_of_a_newer_version_is_not_taken_before_the_map_which_is_asked_for() {
    let mut all = Lockstep::before_map_two();
    let newer = Epoch(2);
    let (items, end) = (Vec::new(), None);
    let chunk = Message::FillChunk(FillChunk { partition: P, version: newer, attempt: 1, index: 0, items, end });
    // What is told again soon, or asked for again, need not be kept.
    let kept = news(&all, newer).map(|message| (message, 1));
    let dropped = [stability(newer, all.stay(P, 1), 1), chunk].map(|message| (message, 0));
    for (message, more) in kept.into_iter().chain(dropped) {
        all.now.mono_ms += 1_000;
        let (before, early) = (all.state(1), all.machine(1).early.len());
        let said = all.hear(1, 2, message.clone());
        assert!(matches!(said[..], [Message::MapPull { have: Epoch(1), .. }]), "{message:?}: {said:?}");
        assert_eq!((all.state(1), all.machine(1).early.len()), (before, early + more), "{message:?}");
    }
}

/// A store of two shards, and a node that does not hold the partition.
fn with_an_outsider() -> (Lockstep, usize) {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    let peers = &all.machine(1).part(P).peers;
    let outsider = (1..=6).find(|number| !peers.iter().any(|peer| peer.node == node(*number))).unwrap();
    assert!([1, 2, 3].iter().all(|number| peers.iter().any(|peer| peer.node == node(*number))), "{peers:?}");
    (all, outsider)
}

#[test]
fn what_is_said_in_the_name_of_another_is_not_taken() {
    let (mut all, outsider) = with_an_outsider();
    let version = all.machine(1).part(P).version;
    let [one, two, three] = [1, 2, 3].map(|number| all.stay(P, number));
    let nobody = StayId(9_999);
    let own = |number: usize| (node(number), all.machine(number).incarnation());
    let stranger = (node(9), Incarnation(9));
    // Another process at its address: the disk that the map has bound to it is not that one's.
    let replaced = (node(2), Incarnation(9));
    let words = [
        (own(3), two),
        (own(2), one),
        (own(2), nobody),
        (own(outsider), two),
        (replaced.clone(), two),
        (stranger.clone(), two),
    ];
    let said = words.into_iter().flat_map(|(from, stay)| {
        let held = report(version, stay, three, all.applied(1, P, three) + 1);
        [(from.clone(), held), (from, next_write(&all, version, stay))]
    });
    // What is stable is for the peers to find: who holds nothing of a partition can't.
    let hearsay = [own(outsider), replaced, stranger].map(|from| (from, stability(version, three, 1)));
    let said = said.chain(hearsay);
    for ((from, incarnation), message) in said.collect::<Vec<_>>() {
        let before = all.state(1);
        all.hear_as(1, from.clone(), incarnation, message.clone());
        assert_eq!(all.state(1), before, "{from}: {message:?}");
    }
    assert!(all.ended.is_empty(), "{:?}", all.ended);
    for message in news(&all, version) {
        let before = all.state(1);
        all.hear(1, 2, message.clone());
        assert_ne!(all.state(1), before, "it was the name that was wrong with {message:?}");
    }
}

#[test]
fn who_does_not_hold_a_partition_is_given_nothing_of_it() {
    let (mut all, outsider) = with_an_outsider();
    let version = all.machine(1).part(P).version;
    let wish = Message::FillRequest { partition: P, version, attempt: 77, vector: VersionVector::default() };
    let before = all.state(1);
    all.hear(1, outsider, wish);
    assert_eq!(all.state(1), before);
}

/// A key of the partition.
fn of_the_partition() -> String {
    (0..).map(|n| format!("key{n}")).find(|name| key(name).partition(8) == P).unwrap()
}

/// Somebody claims that there are more writes of node 1 than it has made. To go on might give a number twice, if that
/// was true; that it was not shows when the node is started again, which goes on where it was.
#[test]
fn claims_of_more_own_writes_than_there_are_end_the_node_and_skip_no_number() {
    for as_stable in [false, true] {
        let (mut all, _) = with_an_outsider();
        let version = all.machine(1).part(P).version;
        let (one, two) = (all.stay(P, 1), all.stay(P, 2));
        let context = all.put(1, &of_the_partition(), "1", &Context::empty());
        let before = (all.applied(1, P, one), all.state(1).1);
        let more = before.0 + 7;
        let claim = if as_stable { stability(version, one, more) } else { report(version, two, one, more) };
        assert_eq!(all.hear(1, 2, claim), []);
        let Some(StoreError::Damaged(why)) = all.ended.get(&node(1)) else { panic!("{:?}", all.ended) };
        assert!(why.contains("backup"), "{why}");
        assert_eq!(all.state(1).1, before.1, "nothing is written");

        let disk = all.hosts[&node(1)].store.crash(0);
        all.stop(1);
        all.start(1, 6, 2, disk);
        all.connect_all();
        all.run_ms(2_000);
        let context = all.put(1, &of_the_partition(), "2", &context);
        assert_eq!(all.applied(1, P, one), before.0 + 1);
        for number in 1..=3 {
            let Response::Value { value, .. } = all.get(number, &of_the_partition(), &context) else { panic!() };
            assert_eq!(value, "2", "node{number}");
        }
        assert_eq!(all.ended.len(), 1, "{:?}", all.ended);
    }
}

#[test]
fn a_write_is_not_acknowledged_on_the_word_of_others_before_it_is_durable_here() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let version = all.machine(1).part(P).version;
    let [one, two, three] = [1, 2, 3].map(|number| all.stay(P, number));
    let incarnations = [2, 3].map(|number| all.machine(number).incarnation());
    let request = Input::Request { id: 9, request: put_request(&of_the_partition(), "1"), budget_ms: 2_000 };
    let mut effects = Vec::new();
    let Host { machine, store, .. } = all.hosts.get_mut(&node(1)).unwrap();
    machine.step(all.now, request, store, &mut effects);
    let batch = machine.flush(store, &mut effects).unwrap();
    let seq = machine.part(P).replica.as_ref().unwrap().applied.get(one);
    for ((number, stay), incarnation) in [(2, two), (3, three)].into_iter().zip(incarnations) {
        for message in [report(version, stay, one, seq), stability(version, one, seq - 1)] {
            machine.step(all.now, Input::Message { from: node(number), incarnation, message }, store, &mut effects);
        }
    }
    for _ in 0..50 {
        all.now.mono_ms += 10;
        machine.step(all.now, Input::Tick, store, &mut effects);
    }
    let answers = |effects: &[Effect]| {
        let answer = |effect: &Effect| match effect {
            Effect::Reply { id: 9, response } => Some(response.clone()),
            _ => None,
        };
        effects.iter().filter_map(answer).collect::<Vec<_>>()
    };
    assert_eq!(answers(&effects), [], "it is not durable");
    assert!(machine.part(P).logs[&one].truncated < seq, "it is in the log");
    machine.step(all.now, Input::Synced(batch), store, &mut effects);
    // What they say of their own disks is believed.
    assert!(matches!(answers(&effects)[..], [Response::Written { copies: 3, .. }]), "{:?}", answers(&effects));
}

#[test]
fn what_a_peer_says_to_hold_and_nobody_wrote_is_never_here_and_never_stable() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let version = all.machine(1).part(P).version;
    let (two, three) = (all.stay(P, 2), all.stay(P, 3));
    let name = of_the_partition();
    let context = all.put(3, &name, "1", &Context::empty());
    all.run_ms(1_000);
    let made = all.applied(3, P, three);
    all.fills = 0;
    all.hear(1, 2, report(version, two, three, made + 1_000));
    all.run_ms(10_000);
    let part = all.machine(1).part(P);
    assert_eq!((all.applied(1, P, three), part.stable.get(three)), (made, made));
    // It asks that peer for what it says to have, and asks again after a while, for as long as it says so.
    assert!((1..=10).contains(&all.fills), "{} fills", all.fills);
    let context = all.put(3, &name, "2", &context);
    let Response::Value { value, .. } = all.get(1, &name, &context) else { panic!() };
    assert_eq!(value, "2");
    assert_eq!(all.applied(1, P, three), made + 1);
    assert!(all.ended.is_empty(), "{:?}", all.ended);
}

/// A peer of the partition is believed when it says what is stable: it has heard the others. So a log may be truncated
/// before all have what was in it, and they get it as they get whatever a stream does not bring.
#[test]
fn a_wrong_word_on_what_is_stable_costs_the_log_and_not_the_write() {
    let (mut all, _) = with_an_outsider();
    let version = all.machine(1).part(P).version;
    let (one, name) = (all.stay(P, 1), of_the_partition());
    all.loses = |_, _, message| matches!(message, Message::Operations { .. } | Message::FillChunk(_));
    all.put(1, &name, "1", &Context::empty());
    let seq = all.applied(1, P, one);
    assert_eq!([2, 3].map(|number| all.applied(number, P, one)), [seq - 1; 2], "nobody else has it");
    all.hear(1, 2, stability(version, one, seq));
    all.run_ms(200);
    let log = records::log_key(P, Dot { stay: one, seq });
    assert_eq!(all.hosts[&node(1)].store.get(&log).unwrap(), None, "it was believed");
    all.loses = |_, _, _| false;
    all.run_ms(5_000);
    for number in 1..=3 {
        let Response::Value { value, .. } = all.get(number, &name, &Context::empty()) else { panic!("node{number}") };
        assert_eq!((value, all.applied(number, P, one)), (Bytes::from("1"), seq), "node{number}");
    }
    assert!(all.ended.is_empty(), "{:?}", all.ended);
}
