//! When a fill is asked for, and when the streams are enough.

use super::*;

#[test]
fn a_stream_that_is_merely_late_is_no_reason_for_a_fill() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    // node3 hears of every write from node2, before the write itself arrives.
    all.slow.insert((node(1), node(3)), 40);
    all.fills = 0;
    for n in 0..400 {
        all.begin(1, put_request("a", &n.to_string()));
        all.run_ms(10);
    }
    assert_eq!(all.fills, 0, "node3 never lacked the same write for a second");
}

#[test]
fn operations_that_wait_for_a_short_while_are_no_reason_for_a_fill() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all.slow.insert((node(1), node(3)), 30);
    all.fills = 0;
    let mut context = Context::empty();
    for n in 0..100 {
        // Each write depends on the one before, by the other coordinator: node3 has it first, and waits.
        context = all.put(1, "a", &n.to_string(), &context);
        context = all.put(2, "a", &n.to_string(), &context);
        all.run_ms(10);
    }
    assert_eq!(all.fills, 0, "node3 was never blocked for 50 ms");
}

#[test]
fn a_run_of_operations_needs_no_room() {
    let mut all = Lockstep::new(2, 1);
    all.unapplied_bytes = 0;
    let store = all.hosts.remove(&node(2)).unwrap().store.crash(0);
    all.start(2, 2, 1, store);
    all.connect_all();
    all.run_ms(2_000);
    all.cut.push((node(1), node(2)));
    let asked: Vec<u64> = (0..50).map(|n| all.begin(1, put_request("a", &n.to_string()))).collect();
    all.cut.clear();
    all.run_ms(600);
    assert!(asked.iter().all(|id| matches!(all.answers.get(id), Some(Response::Written { copies: 2, .. }))));
    assert_eq!(all.fills, 0);
}

#[test]
fn tombstones_are_collected_while_others_write() {
    let mut all = Lockstep::new(2, 1);
    all.run_ms(2_000);
    let context = all.put(1, "a", "1", &Context::empty());
    all.delete(1, "a", &context);
    let partition = key("a").partition(8);
    // Another key of the same partition, written all the time: always something is on its way.
    let other = (0..).map(|n| format!("b{n}")).find(|name| key(name).partition(8) == partition).unwrap();
    all.slow.insert((node(1), node(2)), 30);
    all.slow.insert((node(2), node(1)), 30);
    for n in 0..1_000 {
        all.begin(1, put_request(&other, &n.to_string()));
        all.begin(2, put_request(&other, &n.to_string()));
        all.run_ms(10);
    }
    for number in 1..=2 {
        let kept: u64 = all.machine(number).partition_status().iter().map(|part| part.tombstones).sum();
        assert_eq!(kept, 0, "node{number}");
    }
}
