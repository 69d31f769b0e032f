//! Latencies in buckets a thirty-second apart: constant memory, percentiles within about 3 %.

use std::time::Duration;

/// Buckets to each doubling, as a power of two.
const STEPS_LOG2: u32 = 5;
const STEPS: u64 = 1 << STEPS_LOG2;

/// Counts of latencies, in microseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0 }
    }

    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    /// Takes in another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency that the given share (0 to 1) of all do not exceed; zero when nothing was counted.
    pub fn quantile(&self, share: f64) -> Duration {
        // Counts of a run of seconds are far below 2^52, so the product is exact enough.
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(highest(index));
            }
        }
        Duration::ZERO
    }
}

/// Small values have a bucket each; of larger ones the leading bits decide.
fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let shift = micros.ilog2() - STEPS_LOG2;
    ((u64::from(shift) + 1) * STEPS + (micros >> shift) - STEPS) as usize
}

/// The greatest value of a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let leading = u128::from(index % STEPS + STEPS + 1) << shift;
    u64::try_from(leading - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_whose_highest_is_close_above() {
        let mut last = 0;
        for micros in (0..5_000).chain([65_535, 65_536, 1 << 40, u64::MAX]) {
            let (index, top) = (bucket(micros), highest(bucket(micros)));
            assert!(index >= last, "buckets are in order");
            assert!(top >= micros && top - micros <= micros / 32, "{micros} is shown as {top}");
            last = index;
        }
    }

    #[test]
    fn quantiles_of_a_uniform_run() {
        let mut one = Histogram::new();
        let mut other = Histogram::new();
        for micros in 1..=1_000 {
            let half = if micros % 2 == 0 { &mut one } else { &mut other };
            half.record(Duration::from_micros(micros));
        }
        one.merge(&other);
        assert_eq!(one.total(), 1_000);
        for (share, exact) in [(0.5, 500), (0.99, 990), (1.0, 1_000)] {
            let micros = one.quantile(share).as_micros();
            assert!((exact..=exact + exact / 32).contains(&micros), "{share} gives {micros}");
        }
        assert_eq!(Histogram::new().quantile(0.5), Duration::ZERO);
    }
}
