//! Requests on their way between nodes: what is lost, refused, or comes too early.

use super::*;
use crate::types::{Epoch, Timestamp};

/// A key of the shard that `number` belongs to.
pub(super) fn key_of(all: &Lockstep, number: usize) -> String {
    let map = all.machine(1).map();
    let shard = map.shard_of(&node(number)).unwrap();
    let of_shard = |name: &String| map.layout.partitions[key(name).partition(8).0 as usize] == shard;
    (0..).map(|n| format!("k{n}")).find(of_shard).unwrap()
}

/// A node of another shard than node1's, and the other member of that shard.
pub(super) fn strangers(all: &Lockstep) -> (usize, usize) {
    let map = all.machine(1).map();
    let own = map.shard_of(&node(1));
    let mut others = (2..=4).filter(|number| map.shard_of(&node(*number)) != own);
    (others.next().unwrap(), others.next().unwrap())
}

#[test]
fn a_count_goes_on_when_a_member_is_back_in_reach() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let (a, b) = strangers(&all);
    all.cut = vec![(node(1), node(a)), (node(1), node(b))];
    let shard = all.machine(1).map().shard_of(&node(a)).unwrap();
    let asked = all.begin(1, Request::KeyCount { shard });
    all.run_ms(100);
    all.cut.clear();
    assert_eq!(all.answer(asked), Response::KeyCount(0));
}

#[test]
fn a_node_without_a_map_sends_a_request_back() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let (a, _) = strangers(&all);
    let name = key_of(&all, a);
    all.stop(a);
    all.start(a, 4, 2, MemoryStore::new());
    all.connect_all();
    all.settle();
    for n in 0..4 {
        let response = all.ask(1, put_request(&name, &n.to_string()));
        assert!(matches!(response, Response::Written { .. }), "{response:?}");
    }
}

#[test]
fn a_request_waits_until_its_answer_can_be_sent() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let (a, b) = strangers(&all);
    let name = key_of(&all, a);
    all.stop(b);
    // `a` is reached, and has not reached node1 yet: so it is for a moment after every restart.
    all.step(&node(a), Input::Disconnected { peer: node(1), refused: false });
    all.cut.push((node(a), node(1)));
    let asked = all.begin(1, put_request(&name, "1"));
    all.run_ms(100);
    all.cut.clear();
    all.connect(a, 1);
    let response = all.answer(asked);
    assert!(matches!(response, Response::Written { .. }), "{response:?}");
}

#[test]
fn answers_lost_with_the_stream_that_carried_them_are_missed_at_once() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let (a, b) = strangers(&all);
    let name = key_of(&all, a);
    all.stop(b);
    all.put(a, &name, "1", &Context::empty());
    all.step(&node(1), Input::Accepted { peer: node(a) });
    all.cut.push((node(a), node(1)));
    let read = all.begin(1, Request::Get { key: key(&name), context: Context::empty() });
    let write = all.begin(1, put_request(&name, "2"));
    all.cut.clear();
    all.step(&node(1), Input::Accepted { peer: node(a) });
    all.settle();
    all.run_ms(50);
    assert!(matches!(all.answers.get(&read), Some(Response::Value { .. })), "{:?}", all.answers.get(&read));
    assert_eq!(all.answers.get(&write), Some(&Response::Error(Code::OutcomeUnknown)));
}

#[test]
fn the_first_stream_from_a_node_loses_no_request() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let (a, b) = strangers(&all);
    let name = key_of(&all, a);
    all.stop(b);
    all.stop(a);
    let store = all.hosts[&node(a)].store.crash(0);
    all.start(a, 4, 2, store);
    all.connect(1, a);
    let asked = all.begin(1, put_request(&name, "1"));
    all.step(&node(1), Input::Accepted { peer: node(a) });
    all.connect(a, 1);
    let response = all.answer(asked);
    assert!(matches!(response, Response::Written { .. }), "{response:?}");
}

#[test]
fn what_follows_a_context_has_a_greater_timestamp_in_any_partition() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    // A node whose clock is ten seconds ahead has given it; neither node here has seen that write.
    let ahead = Timestamp((all.now.wall_ms + 10_000) << 16);
    let mut context = Context::empty();
    context.raise_clock(ahead);
    let written = all.put(1, "a", "1", &context);
    assert!(written.clock() > ahead, "{written:?}");
    let blind = all.put(1, "b", "1", &Context::empty());
    assert!(blind.clock() > Timestamp(0));
    let Response::Value { context: read, .. } = all.get(2, "a", &Context::empty()) else { panic!() };
    assert_eq!(read.clock(), written.clock(), "who reads it has seen its timestamp");
    let Response::Value { context: joined, .. } = all.get(2, "b", &written) else { panic!() };
    assert!(joined.clock() >= written.clock(), "a read takes nothing back");
}

#[test]
fn nothing_where_a_tombstone_was_collected_tells_a_clock_past_it() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    let written = all.put(1, "a", "1", &Context::empty());
    let Response::Written { context: deleted, .. } = all.delete(1, "a", &written) else { panic!() };
    all.run_ms(10_000);
    let Response::Missing { context } = all.get(2, "a", &Context::empty()) else { panic!() };
    assert!(context.epoch() > Epoch(0), "it is collected: {context:?}");
    assert!(context.clock() >= deleted.clock(), "{context:?}");
}
