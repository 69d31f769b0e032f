//! When a node goes by its wall clock, and when not.

use super::*;
use crate::causal::clock::COUNTER_BITS;
use crate::machine::sign::Ping;
use crate::types::Timestamp;

const HOUR_MS: u64 = 3_600_000;

fn millis(timestamp: Timestamp) -> u64 {
    timestamp.0 >> COUNTER_BITS
}

/// Three nodes, and a store that was born.
fn three() -> Lockstep {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all
}

impl Lockstep {
    /// A sign of life of node 2, of a time when its clock was an hour behind.
    fn an_hour_behind(&self) -> Ping {
        let behind = Now { wall_ms: self.now.wall_ms - HOUR_MS, ..self.now };
        self.machine(2).sign_of_life(behind)
    }

    /// Node 3 stands still for so long; the others go on.
    fn stop_and_go_on(&mut self, ms: u64) {
        self.hosts.get_mut(&node(3)).unwrap().up = false;
        self.run_ms(ms);
        self.hosts.get_mut(&node(3)).unwrap().up = true;
    }

    /// Gives this to node 3 at a time when its clock is an hour ahead.
    fn step_ahead(&mut self, input: Input) {
        self.now.wall_ms += HOUR_MS;
        self.step(&node(3), input);
        self.now.wall_ms -= HOUR_MS;
    }

    /// Whether anything of node 3 has gone by a clock that was far ahead.
    fn went_ahead(&self) -> bool {
        let clock = &self.machine(3).clock;
        millis(clock.merged().max(clock.durable_ceiling())) > self.now.wall_ms + HOUR_MS / 2
    }
}

/// While a process stands still, words wait for it that tell a peer's clock as that was: when it goes on, they come
/// first, of whoever is heard first. They do not make its own clock one that is ahead.
#[test]
fn words_that_waited_for_a_process_tell_no_clock() {
    let mut all = three();
    let incarnation = all.machine(2).incarnation();
    let from_2 = |message| Input::Message { from: node(2), incarnation, message };
    // Before it stands still, node 3 knows the clock of node 2 as one an hour behind.
    all.loses = |from, to, message| {
        (from, to) == (&node(2), &node(3)) && matches!(message, Message::Ping(_) | Message::Pong(_))
    };
    for _ in 0..10 {
        all.run_ms(500);
        let told = all.an_hour_behind();
        all.step(&node(3), from_2(Message::Ping(told.clone().into())));
        all.step(&node(3), from_2(Message::Pong(told.into())));
    }
    let late = all.an_hour_behind();
    all.hosts.get_mut(&node(3)).unwrap().up = false;
    all.run_ms(38_000);
    all.put(1, "a", "1", &Context::empty());
    all.hosts.get_mut(&node(3)).unwrap().up = true;
    // All that has waited are the words of node 2; node 1 is heard only later.
    for message in [Message::Ping(late.clone().into()), Message::Pong(late.into())] {
        all.step(&node(3), from_2(message));
    }
    all.step(&node(3), Input::Tick);
    let begun_ms = all.now.wall_ms;
    let context = all.put(3, "a", "2", &Context::empty());
    assert!(millis(context.clock()) >= begun_ms, "{} ms older", begun_ms - millis(context.clock()));
    all.run_ms(2_000);
    assert!(matches!(all.get(1, "a", &context), Response::Value { value, .. } if value == "2"));
}

/// A clock that is set an hour ahead is known for that before a write is stamped by it, a tick goes by it, or a promise.
#[test]
fn nothing_goes_by_a_clock_that_was_just_set_an_hour_ahead() {
    for stands_still in [false, true] {
        let mut all = three();
        if stands_still {
            all.stop_and_go_on(38_000);
        }
        let request = put_request("a", "1");
        all.step_ahead(Input::Request { id: 77, request, budget_ms: 2_000 });
        all.step_ahead(Input::Tick);
        assert!(!all.went_ahead());
        assert!(matches!(all.answer(77), Response::Written { .. }));
        assert!(!all.went_ahead());
    }
}

/// Nobody answers a node that goes on: after a while it takes its own clock for right, and writes.
#[test]
fn who_goes_on_alone_writes_once_it_has_listened() {
    let mut all = three();
    for number in [1, 2] {
        all.stop(number);
    }
    all.run_ms(5_000);
    all.stop_and_go_on(38_000);
    let begun_ms = all.now.wall_ms;
    all.step(&node(3), Input::Request { id: 77, request: put_request("a", "1"), budget_ms: 8_000 });
    all.run_ms(2_500);
    assert!(all.answers.is_empty());
    let answer = all.answer(77);
    let Response::Written { context, copies: 1, .. } = answer else { panic!("{answer:?}") };
    assert!((begun_ms + 2_900..begun_ms + 3_500).contains(&millis(context.clock())));
}

/// The clocks of the others are known for three seconds; a pause that is no leap leaves some of that.
#[test]
fn a_clock_that_is_ahead_is_so_after_a_short_pause() {
    let mut all = three();
    all.now.wall_ms += HOUR_MS;
    all.step(&node(3), Input::Tick);
    assert!(all.machine(3).clock_ahead && all.machine(3).clock_compared);
    all.now.mono_ms += 1_900;
    all.now.wall_ms += 1_900;
    let input = Input::Request { id: 77, request: put_request("a", "1"), budget_ms: 2_000 };
    all.step(&node(3), input);
    all.now.wall_ms -= HOUR_MS;
    assert!(!all.went_ahead());
}
