//! How much may be done for fills now.
//!
//! Whoever waits for a turn of the driver, from one batch to the next, waits for all that is done in it. So in a turn one
//! chunk is given and about as much taken over, however many fills are under way and however many messages of theirs the
//! driver finds in its inbox; what dropped replicas left is removed in slices, too. Over time, what is given is bounded
//! in bytes a second, and what moves by the rests that the driver, who can tell what a turn takes, orders after one with
//! such work in it.
//!
//! A client may be waiting for a repair, and nobody for a move: repairs go first, do not rest, and have bytes of their own.

/// What a fill is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::machine) enum Purpose {
    /// To bring a peer that clients go to what its stream did not.
    Repair,
    /// To bring a peer that joins what it is to serve.
    Move,
}

/// A bucket holds what this many milliseconds bring, so that what was not used is not given later at once.
const HELD_MS: u64 = 250;

/// Bytes of chunks that are taken over in a turn, and one chunk more at the most.
const TAKEN_A_TURN: usize = 64 << 10;

/// What a turn may still do, and two buckets of bytes that time fills, however often they are looked at.
#[derive(Debug, Default)]
pub(in crate::machine) struct Budget {
    /// For repairs and for moves.
    bytes: [i64; 2],
    filled_ms: u64,
    /// A chunk was given in this turn.
    given: bool,
    /// Bytes taken over in this turn.
    taken: usize,
    /// Something was removed in this turn.
    removed: bool,
    /// Something was done in this turn that nobody waits for.
    worked: bool,
    /// No more of that is done before then, in monotonic milliseconds.
    rests_until_ms: u64,
    now_ms: u64,
}

impl Budget {
    /// Another turn of the driver begins.
    pub fn begin_turn(&mut self) {
        (self.given, self.taken, self.removed, self.worked) = (false, 0, false, false);
    }

    /// Whether anything was done in this turn that nobody waits for.
    pub fn has_worked(&self) -> bool {
        self.worked
    }

    /// Nothing that nobody waits for is done before that, in monotonic milliseconds.
    pub fn rest(&mut self, until_ms: u64) {
        self.rests_until_ms = until_ms;
    }

    /// A step begins.
    pub fn step(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    fn rests(&self, purpose: Purpose) -> bool {
        purpose == Purpose::Move && self.now_ms < self.rests_until_ms
    }

    /// Adds what the time since the last look brings, at so many bytes a second.
    pub fn fill(&mut self, now_ms: u64, a_second: u64) {
        let passed_ms = now_ms.saturating_sub(self.filled_ms).min(HELD_MS);
        let per_ms = |ms: u64| i64::try_from(a_second.saturating_mul(ms) / 1_000).unwrap_or(i64::MAX);
        self.bytes = self.bytes.map(|bytes| bytes.saturating_add(per_ms(passed_ms)).min(per_ms(HELD_MS)));
        self.filled_ms = now_ms;
    }

    /// Whether a chunk may be given. What is larger than what is left is owed, so that it is not held up for ever.
    pub fn may_give(&self, purpose: Purpose) -> bool {
        !self.given && self.bytes[purpose as usize] > 0 && !self.rests(purpose)
    }

    /// A chunk of so many bytes is given.
    pub fn give(&mut self, purpose: Purpose, bytes: usize) {
        self.given = true;
        self.worked |= purpose == Purpose::Move;
        let left = &mut self.bytes[purpose as usize];
        *left = left.saturating_sub_unsigned(bytes as u64);
    }

    /// Whether a chunk may be taken over.
    pub fn may_take(&self, purpose: Purpose) -> bool {
        self.taken < TAKEN_A_TURN && !self.rests(purpose)
    }

    /// A chunk of so many bytes is taken over.
    pub fn take(&mut self, purpose: Purpose, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        self.worked |= purpose == Purpose::Move;
    }

    /// Whether a slice of what dropped replicas left may be removed.
    pub fn may_remove(&self) -> bool {
        !self.removed && !self.rests(Purpose::Move)
    }

    /// A slice is removed.
    pub fn remove(&mut self) {
        (self.removed, self.worked) = (true, true);
    }
}

#[cfg(test)]
mod tests {
    use super::Purpose::{Move, Repair};
    use super::*;

    /// Gives what may be given, in many turns of one moment.
    fn give_all(budget: &mut Budget) -> u64 {
        let mut given = 0;
        budget.begin_turn();
        while budget.may_give(Move) {
            budget.give(Move, 1_000);
            given += 1_000;
            budget.begin_turn();
        }
        given
    }

    /// Bytes given in ten seconds by a source that looks every so many milliseconds.
    fn given(every_ms: u64) -> u64 {
        let mut budget = Budget::default();
        let mut given = 0;
        for now_ms in (0..=10_000).step_by(every_ms as usize) {
            budget.fill(now_ms, 1 << 20);
            given += give_all(&mut budget);
        }
        given
    }

    #[test]
    fn a_late_look_brings_as_much() {
        let wanted = 10 << 20;
        for every_ms in [1, 10, 25, 100, 250] {
            let given = given(every_ms);
            assert!(given.abs_diff(wanted) < wanted / 50, "every {every_ms} ms: {given} of {wanted}");
        }
    }

    #[test]
    fn what_was_not_used_is_not_given_at_once() {
        let mut budget = Budget::default();
        budget.fill(3_600_000, 1 << 20);
        let given = give_all(&mut budget);
        assert!(given <= (1 << 20) / 4 + 1_000, "{given}");
    }

    #[test]
    fn what_was_too_much_is_owed() {
        let mut budget = Budget::default();
        budget.fill(1_000, 1_000);
        budget.give(Move, 1_250);
        budget.begin_turn();
        for (now_ms, may_give) in [(1_250, false), (1_500, false), (1_750, false), (2_001, false), (2_002, true)] {
            budget.fill(now_ms, 1_000);
            assert_eq!(budget.may_give(Move), may_give, "{now_ms}");
        }
    }

    #[test]
    fn a_turn_gives_one_chunk_and_takes_over_about_one() {
        let mut budget = Budget::default();
        budget.fill(1_000, 64 << 20);
        budget.give(Move, 1);
        budget.take(Move, TAKEN_A_TURN - 1);
        assert_eq!((budget.may_give(Move), budget.may_take(Move)), (false, true));
        budget.take(Move, 1);
        assert!(!budget.may_take(Move));
        budget.begin_turn();
        assert_eq!((budget.may_give(Move), budget.may_take(Move)), (true, true));
    }

    #[test]
    fn nothing_is_done_in_a_rest() {
        let mut budget = Budget::default();
        budget.step(1_000);
        budget.fill(1_000, 64 << 20);
        assert!(!budget.has_worked());
        budget.remove();
        assert!(budget.has_worked());
        budget.begin_turn();
        budget.rest(1_007);
        for (now_ms, may) in [(1_000, false), (1_006, false), (1_007, true)] {
            budget.step(now_ms);
            assert_eq!([budget.may_give(Move), budget.may_take(Move), budget.may_remove()], [may; 3], "{now_ms}");
        }
    }

    #[test]
    fn repairs_neither_rest_nor_share_the_bytes_of_moves() {
        let mut budget = Budget::default();
        budget.step(1_000);
        budget.fill(1_000, 1_000);
        budget.give(Move, 1_000);
        budget.begin_turn();
        budget.rest(5_000);
        assert_eq!((budget.may_give(Move), budget.may_take(Move)), (false, false));
        assert_eq!((budget.may_give(Repair), budget.may_take(Repair)), (true, true));
        budget.give(Repair, 1_000);
        budget.take(Repair, 10);
        assert!(!budget.has_worked(), "no rest follows");
        budget.begin_turn();
        budget.fill(1_500, 1_000);
        assert!(!budget.may_give(Repair), "bounded, too");
    }
}
