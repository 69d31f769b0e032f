//! How much of fills may be given now.

/// A bucket holds what this many milliseconds bring, so that what was not used is not given later at once.
const HELD_MS: u64 = 250;

/// Bytes that may be given: a bucket that time fills, however often it is looked at.
#[derive(Debug, Default)]
pub(in crate::machine) struct Budget {
    bytes: i64,
    filled_ms: u64,
}

impl Budget {
    /// Adds what the time since the last look brings, at so many bytes a second.
    pub fn fill(&mut self, now_ms: u64, a_second: u64) {
        let passed_ms = now_ms.saturating_sub(self.filled_ms).min(HELD_MS);
        let per_ms = |ms: u64| i64::try_from(a_second.saturating_mul(ms) / 1_000).unwrap_or(i64::MAX);
        self.bytes = self.bytes.saturating_add(per_ms(passed_ms)).min(per_ms(HELD_MS));
        self.filled_ms = now_ms;
    }

    /// Whether something may be given. What is larger than what is left is owed, so that it is not held up for ever.
    pub fn is_open(&self) -> bool {
        self.bytes > 0
    }

    /// Takes what is given.
    pub fn take(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub_unsigned(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes given in ten seconds by a source that looks every so many milliseconds.
    fn given(every_ms: u64) -> u64 {
        let mut budget = Budget::default();
        let mut given = 0;
        for now_ms in (0..=10_000).step_by(every_ms as usize) {
            budget.fill(now_ms, 1 << 20);
            while budget.is_open() {
                budget.take(1_000);
                given += 1_000;
            }
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
        let mut given = 0;
        while budget.is_open() {
            budget.take(1_000);
            given += 1_000;
        }
        assert!(given <= (1 << 20) / 4 + 1_000, "{given}");
    }

    #[test]
    fn what_was_too_much_is_owed() {
        let mut budget = Budget::default();
        budget.fill(1_000, 1_000);
        budget.take(1_250);
        budget.fill(1_250, 1_000);
        budget.fill(1_500, 1_000);
        budget.fill(1_750, 1_000);
        assert!(!budget.is_open());
        budget.fill(2_001, 1_000);
        assert!(budget.is_open());
    }
}
