//! Requests on their way between nodes: what is lost, refused, or comes too early.

use super::*;

/// A key of the shard that `number` belongs to.
fn key_of(all: &Lockstep, number: usize) -> String {
    let map = all.machine(1).map();
    let shard = map.shard_of(&node(number)).unwrap();
    let of_shard = |name: &String| map.layout.partitions[key(name).partition(8).0 as usize] == shard;
    (0..).map(|n| format!("k{n}")).find(of_shard).unwrap()
}

/// A node of another shard than node1's, and the other member of that shard.
fn strangers(all: &Lockstep) -> (usize, usize) {
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
