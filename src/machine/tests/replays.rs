//! What was said before, said again: operations, wishes for fills, and chunks of fills, also in the wrong order.

use super::repair::stored_items;
use super::*;
use crate::causal::item::Item;
use crate::causal::vector::VersionVector;
use crate::machine::message::{FillChunk, FillEnd, PartitionReport};
use crate::types::{Dot, Epoch, PartitionId, StayId, Timestamp};

impl Lockstep {
    /// Has node 1 take a request; what it sends to node 2 of that, which is not held back.
    fn operations_of(&mut self, request: Request) -> Vec<Message> {
        self.asked += 1;
        self.step(&node(1), Input::Request { id: self.asked, request, budget_ms: 2_000 });
        let operations = |(to, input): &(NodeAddr, Input)| match input {
            Input::Message { message: message @ Message::Operations { .. }, .. } if *to == node(2) => {
                Some(message.clone())
            }
            _ => None,
        };
        let sent = self.inbox.iter().filter_map(operations).collect();
        self.settle();
        sent
    }

    /// Gives node 2 again, the newest first and then the oldest, what node 1 once sent it.
    fn replay(&mut self, sent: &[Message]) {
        for message in sent.iter().rev().chain(sent) {
            let before = self.state(2);
            self.hear(2, 1, message.clone());
            assert_eq!(self.state(2), before, "{message:?}");
        }
    }

    /// Runs on until such a message is on its way to a node, and takes it off, with who sent it.
    fn catch(&mut self, to: usize, wanted: fn(&Message) -> bool) -> (NodeAddr, Message) {
        for _ in 0..1_000 {
            while let Some((at, input)) = self.inbox.pop_front() {
                match input {
                    Input::Message { from, message, .. } if at == node(to) && wanted(&message) => {
                        return (from, message);
                    }
                    input => self.step(&at, input),
                }
            }
            (self.now.mono_ms, self.now.wall_ms) = (self.now.mono_ms + 10, self.now.wall_ms + 10);
            for at in self.hosts.keys().cloned().collect::<Vec<_>>() {
                self.step(&at, Input::Tick);
            }
        }
        panic!("no such message");
    }
}

#[test]
fn operations_that_come_again_change_nothing_and_bring_nothing_back() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let mut sent = all.operations_of(put_request("a", "1"));
    let Response::Value { context, .. } = all.get(2, "a", &Context::empty()) else { panic!() };
    all.replay(&sent);
    sent.extend(all.operations_of(put_request("a", "2")));
    all.replay(&sent);
    sent.extend(all.operations_of(Request::Delete { key: key("a"), context }));
    assert_eq!(sent.len(), 3, "{sent:?}");
    all.replay(&sent);
    // The tombstone is collected: nothing but the vector tells of these writes.
    all.run_ms(20_000);
    let held = |all: &Lockstep| stored_items(all, 2, key("a").partition(8).0);
    assert_eq!(held(&all), []);
    all.replay(&sent);
    let store = all.hosts[&node(2)].store.crash(0);
    all.stop(2);
    all.start(2, 3, 1, store);
    all.connect_all();
    all.run_ms(2_000);
    all.replay(&sent);
    all.run_ms(3_000);
    assert_eq!(held(&all), []);
    assert!(matches!(all.get(2, "a", &Context::empty()), Response::Missing { .. }));
}

/// Node 3 misses what is written at node 1, to ten keys of one partition, more than fits a chunk; gives the partition.
fn with_a_lack(all: &mut Lockstep) -> PartitionId {
    all.run_ms(2_000);
    all.loses = |_, to, message| *to == node(3) && matches!(message, Message::Operations { .. });
    let partition = key("key0").partition(8);
    let names = (0..).map(|n| format!("key{n}")).filter(|name| key(name).partition(8) == partition);
    for name in names.take(20) {
        all.put(1, &name, &"x".repeat(20_000), &Context::empty());
    }
    partition
}

/// Chunks that are not the one that is due, each with what would spoil a replica: of another place in the fill, of
/// another attempt, of another version of the row; and those that were due before.
fn not_due(due: &FillChunk, earlier: &[FillChunk]) -> Vec<FillChunk> {
    let dot = Dot { stay: due.items.first().map_or(StayId(1), |(_, item)| item.dot.stay), seq: 1 << 40 };
    let item = Item { value: None, dot, timestamp: Timestamp(1 << 62), carried: Context::empty() };
    let vector: VersionVector = [(dot.stay, dot.seq)].into_iter().collect();
    let end = FillEnd { vector, floor: Epoch(9), clock: Timestamp(1 << 62) };
    let wrong = FillChunk { items: vec![(key("key0"), item)], end: Some(end), ..due.clone() };
    let mut all = vec![
        FillChunk { index: due.index + 1, ..wrong.clone() },
        FillChunk { index: due.index + 9, ..wrong.clone() },
        FillChunk { index: u32::MAX, ..wrong.clone() },
        FillChunk { attempt: due.attempt - 1, ..wrong.clone() },
        FillChunk { attempt: due.attempt + 1, ..wrong.clone() },
        FillChunk { version: Epoch(due.version.0 - 1), ..wrong.clone() },
        FillChunk { version: Epoch(due.version.0 + 1), ..wrong.clone() },
    ];
    all.extend((0..due.index).map(|index| FillChunk { index, ..wrong.clone() }));
    all.extend(earlier.iter().cloned());
    all
}

#[test]
fn chunks_that_are_not_due_change_nothing_and_the_fill_is_whole() {
    let mut all = Lockstep::new(3, 1);
    let partition = with_a_lack(&mut all);
    let mut earlier: Vec<FillChunk> = Vec::new();
    let unchanged = |all: &mut Lockstep, chunks: Vec<FillChunk>| {
        for chunk in chunks {
            let before = all.state(3);
            all.hear(3, 1, Message::FillChunk(chunk.clone()));
            assert_eq!(all.state(3), before, "{} of attempt {}", chunk.index, chunk.attempt);
        }
    };
    while earlier.last().is_none_or(|chunk| chunk.end.is_none()) {
        let (source, Message::FillChunk(due)) = all.catch(3, |message| matches!(message, Message::FillChunk(_))) else {
            panic!("a chunk was wanted")
        };
        unchanged(&mut all, not_due(&due, &earlier));
        let (before, source) = (all.state(3), if source == node(1) { 1 } else { 2 });
        all.hear(3, source, Message::FillChunk(due.clone()));
        assert_ne!(all.state(3), before, "that one was due");
        earlier.push(due);
    }
    assert!(earlier.iter().filter(|chunk| !chunk.items.is_empty()).count() >= 3, "{} chunks", earlier.len());
    // All of it is here, and not taken over yet; and then it is.
    for _ in 0..2 {
        unchanged(&mut all, not_due(earlier.last().unwrap(), &earlier));
        all.run_ms(3_000);
    }
    let held = |number| (stored_items(&all, number, partition.0), all.machine(number).part(partition).replica.clone());
    let ((items, replica), (theirs, other)) = (held(3), held(1));
    let (replica, other) = (replica.unwrap(), other.unwrap());
    assert!(items.len() >= 20 && items == theirs);
    assert_eq!((replica.applied, replica.keys, replica.floor), (other.applied, other.keys, other.floor));
}

/// A peer that joins keeps one chunk that waits for its turn. The source gives the one after it, unasked as far as the
/// joiner knows: it must not take the place of the first.
#[test]
fn a_chunk_that_comes_before_it_was_asked_for_does_not_replace_the_one_that_waits() {
    let mut all = Lockstep::new(3, 1);
    let partition = with_a_lack(&mut all);
    all.loses = |_, _, _| false;
    all.stop(3);
    all.start(3, 3, 1, MemoryStore::new());
    // Another process than the one before.
    let config = Config { seed: [103; 32], ..config(3, 3, 1) };
    let host = all.hosts.get_mut(&node(3)).unwrap();
    host.machine = Machine::open(config, &host.store, all.now).unwrap();
    let rest = |all: &mut Lockstep, ms: u64| {
        let until_ms = all.now.mono_ms + ms;
        all.hosts.get_mut(&node(3)).unwrap().machine.rest(until_ms);
    };
    rest(&mut all, 60_000);
    all.connect_all();
    let (source, first) = loop {
        let (source, message) = all.catch(3, |message| matches!(message, Message::FillChunk(_)));
        let source = if source == node(1) { 1 } else { 2 };
        match message {
            Message::FillChunk(chunk) if chunk.partition == partition => break (source, chunk),
            other => all.hear(3, source, other),
        };
        rest(&mut all, 0);
        all.settle();
        rest(&mut all, 60_000);
    };
    assert!(first.index == 0 && !first.items.is_empty() && first.end.is_none(), "{} items", first.items.len());
    all.hear(3, source, Message::FillChunk(first.clone()));
    let kept = |all: &Lockstep| {
        let filling = all.machine(3).part(partition).filling.clone();
        filling.and_then(|fill| fill.kept).map(|items| items.len())
    };
    assert_eq!(kept(&all), Some(first.items.len()), "it waits");

    let next = Message::FillNext { partition, attempt: first.attempt, index: 1 };
    let said = all.hear(source, 3, next);
    let ahead = said.into_iter().find(|message| matches!(message, Message::FillChunk(chunk) if chunk.index == 1));
    let before = all.state(3);
    all.hear(3, source, ahead.expect("the second chunk"));
    assert_eq!(all.state(3), before, "nobody asked for it");

    // A turn may have come in between: this one is over, and what was missed is asked for again.
    rest(&mut all, 0);
    all.run_ms(60_000);
    assert_eq!(all.machine(3).readiness(all.now), Ok(()));
    let (items, theirs) = (stored_items(&all, 3, partition.0), stored_items(&all, source, partition.0));
    assert!(items.len() >= 20);
    assert!(items == theirs, "{} of {} items", items.len(), theirs.len());
}

#[test]
fn a_wish_for_a_fill_that_comes_again_is_none() {
    let mut all = Lockstep::new(3, 1);
    let partition = with_a_lack(&mut all);
    let (_, wish) = all.catch(1, |message| matches!(message, Message::FillRequest { .. }));
    let before = all.state(1);
    all.hear(1, 3, wish.clone());
    assert_ne!(all.state(1), before, "it is new");
    let given = all.state(1);
    all.hear(1, 3, wish.clone());
    assert_eq!(all.state(1), given, "it is given already");
    all.run_ms(5_000);
    assert_eq!(stored_items(&all, 3, partition.0), stored_items(&all, 1, partition.0));
    let given = all.state(1);
    all.hear(1, 3, wish);
    assert_eq!(all.state(1), given, "it was given");
}

#[test]
fn an_older_report_takes_nothing_back_and_is_answered_with_what_is_stable() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    let partition = key("a").partition(8);
    all.put(1, "a", "1", &Context::empty());
    let (one, two) = (all.stay(partition, 1), all.stay(partition, 2));
    let part = all.machine(1).part(partition);
    assert_eq!((part.words.durable(two, one), part.stable.get(one)), (1, 1));
    let version = part.version;
    let report = |seq: u64| {
        let durable = [(one, seq)].into_iter().collect();
        Message::Report(vec![PartitionReport { partition, version, stay: two, durable, promise: None }])
    };
    all.put(1, "a", "2", &Context::empty());
    let before = all.state(1);
    let said = all.hear(1, 2, report(1));
    assert_eq!(all.state(1), before);
    // It may be on a disk that was restored, and learns so by this.
    let [Message::Stability(told)] = &said[..] else { panic!("{said:?}") };
    assert!(told.iter().any(|told| told.partition == partition && told.stable.get(one) == 2), "{told:?}");
    assert_eq!(all.hear(1, 2, report(2)), []);
    assert_eq!(all.state(1), before);
}

/// A fill of node 3, from its first chunk to its last, with so many writes of a stay more than its source has.
fn filled_with_a_claim(all: &mut Lockstep, of: StayId, more: u64) {
    loop {
        let (source, Message::FillChunk(mut chunk)) = all.catch(3, |message| matches!(message, Message::FillChunk(_)))
        else {
            panic!("a chunk was wanted")
        };
        let last = chunk.end.is_some();
        if let Some(end) = &mut chunk.end {
            end.vector.raise(of, end.vector.get(of) + more);
        }
        all.hear(3, if source == node(1) { 1 } else { 2 }, Message::FillChunk(chunk));
        if last {
            return;
        }
    }
}

/// What a source says of its view is believed, also of writes that the receiver itself never made.
#[test]
fn a_fill_that_claims_own_writes_costs_their_numbers_and_holds_up_no_write() {
    let mut all = Lockstep::new(3, 1);
    let partition = with_a_lack(&mut all);
    let three = all.stay(partition, 3);
    let before = all.applied(3, partition, three);
    filled_with_a_claim(&mut all, three, 100);
    all.loses = |_, _, _| false;
    all.run_ms(100);
    let context = all.put(3, "key0", "last", &Context::empty());
    assert_eq!(all.applied(3, partition, three), before + 101);
    all.run_ms(5_000);
    for number in 1..=3 {
        let Response::Value { value, .. } = all.get(number, "key0", &context) else { panic!("node{number}") };
        assert_eq!((value, all.applied(number, partition, three)), (Bytes::from("last"), before + 101), "node{number}");
    }
    assert!(all.ended.is_empty(), "{:?}", all.ended);
}

/// … and of a third: the receiver would take its next writes for known. That one hears of it, and stops before.
#[test]
fn a_fill_that_claims_writes_of_a_third_ends_that_one_before_it_makes_them() {
    let mut all = Lockstep::new(3, 1);
    let partition = with_a_lack(&mut all);
    let one = all.stay(partition, 1);
    let made = all.applied(1, partition, one);
    filled_with_a_claim(&mut all, one, 5);
    all.run_ms(100);
    let Some(StoreError::Damaged(why)) = all.ended.get(&node(1)) else { panic!("{:?}", all.ended) };
    assert!(why.contains("backup"), "{why}");
    assert_eq!((all.applied(1, partition, one), all.applied(3, partition, one)), (made, made + 5));
    assert_eq!(all.ended.len(), 1, "{:?}", all.ended);
}

/// A ping of a process whose disk is gone comes after the first ones of the process that is there now. It is not taken for
/// a disk that is lost once more.
#[test]
fn a_late_ping_of_a_process_that_is_gone_does_not_bring_it_back() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    all.put(1, "a", "1", &Context::empty());
    let (gone, late) = (all.machine(4).incarnation(), all.machine(4).sign_of_life(all.now));
    all.hosts.remove(&node(4));
    all.start_as(Config { seed: [77; 32], ..config(4, 4, 2) });
    all.run_ms(20_000);
    let bound = |all: &Lockstep| (all.machine(1).map().epoch, all.machine(1).map().nodes[&node(4)]);
    let before = bound(&all);
    assert_eq!(before.1, Some(all.machine(4).incarnation()));
    assert!(!all.machine(1).map().former.contains_key(&gone), "nobody remembers it by now");
    for number in 1..=3 {
        for message in [Message::Ping(late.clone().into()), Message::Pong(late.clone().into())] {
            all.step(&node(number), Input::Message { from: node(4), incarnation: gone, message });
        }
    }
    // The machine looks after its maps before the next signs of life, too.
    all.loses = |from, _, message| *from == node(4) && matches!(message, Message::Ping(_) | Message::Pong(_));
    all.run_ms(2_000);
    all.loses = |_, _, _| false;
    all.run_ms(5_000);
    assert_eq!(bound(&all), before);
}
