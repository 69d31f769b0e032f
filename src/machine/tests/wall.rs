//! When a node goes by its wall clock, and when not.

use super::*;
use crate::causal::clock::COUNTER_BITS;
use crate::machine::sign::Ping;
use crate::types::{ClusterId, Timestamp};

const HOUR_MS: i64 = 3_600_000;

fn millis(timestamp: Timestamp) -> u64 {
    timestamp.0 >> COUNTER_BITS
}

/// Three nodes, and a store that was born.
fn three() -> Lockstep {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all
}

/// What tells of lives and clocks.
fn is_sign(message: &Message) -> bool {
    matches!(message, Message::Ping(_) | Message::Pong(_))
}

impl Lockstep {
    fn set_up(&mut self, number: usize, up: bool) {
        self.hosts.get_mut(&node(number)).unwrap().up = up;
    }

    /// Node 3 stands still for so long; the others go on.
    fn stop_and_go_on(&mut self, ms: u64) {
        self.set_up(3, false);
        self.run_ms(ms);
        self.set_up(3, true);
    }

    /// A request to node 3 that has time, and is in its machine alone.
    fn begin_quietly(&mut self) {
        let input = Input::Request { id: 77, request: put_request("a", "3"), budget_ms: 8_000 };
        self.step(&node(3), input);
    }

    /// How far the timestamp of that write, once it is answered, is ahead of the right time when it began.
    fn lead_ms(&mut self, begun_ms: u64) -> i64 {
        let answer = self.answer(77);
        let Response::Written { context, .. } = answer else { panic!("{answer:?}") };
        millis(context.clock()).cast_signed() - begun_ms.cast_signed()
    }

    /// Whether anything of node 3 has gone by a clock that was far ahead.
    fn went_ahead(&self) -> bool {
        let clock = &self.machine(3).clock;
        millis(clock.merged().max(clock.durable_ceiling())) > self.now.wall_ms + 1_800_000
    }
}

/// While a process stands still, words wait for it that tell a peer's clock as that was: when it goes on, they come
/// first, of whoever is heard first. They do not make its own clock one that is ahead.
#[test]
fn words_that_waited_for_a_process_tell_no_clock() {
    let mut all = three();
    // Before it stands still, node 3 knows the clock of node 2 as one an hour behind.
    all.skew_ms.insert(node(2), -HOUR_MS);
    all.run_ms(5_000);
    let behind = Now { wall_ms: all.now.wall_ms.saturating_add_signed(-HOUR_MS), ..all.now };
    let late = all.machine(2).sign_of_life(behind);
    all.set_up(3, false);
    all.run_ms(1_000);
    all.skew_ms.clear();
    all.run_ms(37_000);
    all.put(1, "a", "1", &Context::empty());
    all.set_up(3, true);
    // All that has waited are the words of node 2; node 1 is heard only later.
    for message in [Message::Ping(late.clone().into()), Message::Pong(late.into())] {
        let incarnation = all.machine(2).incarnation();
        all.step(&node(3), Input::Message { from: node(2), incarnation, message });
    }
    all.step(&node(3), Input::Tick);
    let begun_ms = all.now.wall_ms;
    all.begin_quietly();
    let lead_ms = all.lead_ms(begun_ms);
    assert!(lead_ms >= 0, "{lead_ms}");
    all.run_ms(2_000);
    assert!(matches!(all.get(1, "a", &Context::empty()), Response::Value { value, .. } if value == "3"));
}

/// Nor does the answer of one peer whose clock is behind, as long as another one has not answered.
#[test]
fn who_goes_on_does_not_believe_the_first_answer_that_its_clock_is_ahead() {
    for suspended in [false, true] {
        let mut all = three();
        all.skew_ms.insert(node(2), -HOUR_MS);
        all.slow.insert((node(1), node(3)), 40);
        all.stop_and_go_on(38_000);
        all.now.wall_ms += if suspended { 2_500 } else { 0 };
        // Node 2 alone has answered by then.
        all.step(&node(3), Input::Tick);
        all.run_ms(30);
        let begun_ms = all.now.wall_ms;
        all.begin_quietly();
        assert_eq!(all.machine(3).clock_compared, !suspended);
        let lead_ms = all.lead_ms(begun_ms);
        assert!((0..500).contains(&lead_ms), "{lead_ms}");
    }
}

/// A machine is suspended: its monotonic clock stands still meanwhile, and what is known of the others looks new.
#[test]
fn who_was_suspended_is_not_ahead_of_what_was_told_before() {
    let mut all = three();
    all.now.wall_ms += 2 * HOUR_MS.cast_unsigned();
    let begun_ms = all.now.wall_ms;
    all.begin_quietly();
    all.step(&node(3), Input::Tick);
    let lead_ms = all.lead_ms(begun_ms);
    assert!((0..500).contains(&lead_ms), "{lead_ms}");
    assert!(!all.warnings.iter().any(|text| text.contains("clock")), "{:?}", all.warnings);
}

/// A clock that is set an hour ahead is known for that before a write is stamped by it, a tick goes by it, or a promise.
#[test]
fn nothing_goes_by_a_clock_that_was_just_set_an_hour_ahead() {
    for stands_still in [false, true] {
        let mut all = three();
        if stands_still {
            all.stop_and_go_on(38_000);
        }
        all.skew_ms.insert(node(3), HOUR_MS);
        let begun_ms = all.now.wall_ms;
        all.begin_quietly();
        all.step(&node(3), Input::Tick);
        assert!(!all.went_ahead() && all.answers.is_empty());
        let lead_ms = all.lead_ms(begun_ms);
        assert!(lead_ms < 500, "{lead_ms}");
        all.run_ms(5_000);
        assert!(!all.went_ahead() && all.machine(3).clock_ahead);
        // It is set right: that is known, too, before a write counts on from what was seen last.
        all.skew_ms.clear();
        let begun_ms = all.now.wall_ms;
        all.begin_quietly();
        let lead_ms = all.lead_ms(begun_ms);
        assert!((0..500).contains(&lead_ms) && !all.machine(3).clock_ahead, "{lead_ms}");
        // Nobody waits for one that is set back and was not ahead.
        all.skew_ms.insert(node(3), -HOUR_MS);
        all.begin_quietly();
        assert!(all.machine(3).clock_compared);
        all.lead_ms(begun_ms);
    }
}

/// Nobody answers a node that goes on. Its clock is as far from the others' as it was when it was compared; but if that
/// has gained meanwhile, it is believed only after a while, and writes wait.
#[test]
fn who_goes_on_alone_writes_at_once_or_once_it_has_listened() {
    for suspended in [false, true] {
        let mut all = three();
        for number in [1, 2] {
            all.stop(number);
        }
        all.run_ms(5_000);
        all.stop_and_go_on(38_000);
        all.now.wall_ms += if suspended { 10_000 } else { 0 };
        let begun_ms = all.now.wall_ms;
        all.begin_quietly();
        all.run_ms(2_500);
        assert_eq!(all.answers.is_empty(), suspended);
        let lead_ms = all.lead_ms(begun_ms);
        let bounds = if suspended { 2_900..3_600 } else { 0..100 };
        assert!(bounds.contains(&lead_ms), "{lead_ms}");
    }
}

/// A store of one node has nobody to wait for, whoever has spoken to it.
#[test]
fn a_node_of_its_own_waits_for_nobody() {
    let mut all = Lockstep::new(1, 1);
    all.run_ms(2_000);
    let stranger = Ping { cluster_id: ClusterId(1), ..all.machine(1).sign_of_life(all.now) };
    let message = Message::Ping(stranger.into());
    all.step(&node(1), Input::Message { from: node(9), incarnation: Incarnation(9), message });
    assert!(all.machine(1).links.contains_key(&node(9)));
    all.now.wall_ms += 10_000;
    all.now.mono_ms += 10_000;
    let begun_ms = all.now.wall_ms;
    let Response::Written { context, .. } = all.ask(1, put_request("a", "1")) else { panic!("it is alone") };
    assert!((begun_ms..begun_ms + 100).contains(&millis(context.clock())));
}

/// Peers that live and are too busy to answer pings, or whose answers are lost, do not make a clock right again.
#[test]
fn a_clock_that_is_ahead_is_so_while_nobody_answers() {
    let mut all = three();
    all.skew_ms.insert(node(3), HOUR_MS);
    all.run_ms(1_000);
    assert!(all.machine(3).clock_ahead && all.machine(3).clock_compared);
    all.loses = |_, _, message| matches!(message, Message::Pong(_));
    all.run_ms(10_000);
    all.now.mono_ms += 1_900;
    all.now.wall_ms += 1_900;
    all.run_ms(1_000);
    assert!(!all.went_ahead());
    // Where nobody is left to be ahead of, it is believed.
    all.loses = |_, to, message| *to == node(3) && is_sign(message);
    all.run_ms(14_000);
    assert!(all.went_ahead());
}
