//! Runs the cases of a target, one target at a time, and measures what each takes of memory.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use allocation_counter::measure;

use crate::random::Random;

/// Cases of all targets together, unless the environment says how many.
const CASES: u64 = 200_000;

/// Each target has the machine to itself.
static ALONE: Mutex<()> = Mutex::new(());

/// How much a case may have allocated at a time, beyond what it began with: `times` its input's bytes, and `more`.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub times: usize,
    pub more: usize,
}

/// A target under way.
pub struct Cases {
    pub random: Random,
    /// The number of the case.
    pub number: u64,
    /// What cases count, by name: so that none is vacuous.
    pub counts: std::collections::BTreeMap<&'static str, u64>,
    /// The most that a case took beyond what is allowed whatever its input, in parts of its input.
    most: f64,
}

impl Cases {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Does something with `input` bytes of input within the bound, on this thread: what other threads do meanwhile, those of
    /// a target that has ended and of the test runner among them, does not count.
    pub fn within<T>(&mut self, input: usize, bound: Bound, work: impl FnOnce() -> T) -> T {
        let mut result = None;
        let taken = measure(|| result = Some(work())).bytes_max as usize;
        assert!(
            taken <= bound.times * input + bound.more,
            "{taken} bytes were allocated for an input of {input}, more than {bound:?}"
        );
        self.most = self.most.max(taken.saturating_sub(bound.more) as f64 / input.max(1) as f64);
        result.expect("the work was done")
    }
}

/// What is told of a case that panics.
struct Told<'a> {
    target: &'a str,
    seed: u64,
    number: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { target, seed, number } = self;
            eprintln!(
                "again: ENTAIL_FUZZ_SEED={seed} ENTAIL_FUZZ_CASE={number} cargo test --release --test fuzz {target}"
            );
        }
    }
}

/// Runs a target: `share` of all cases, in parts per thousand. What the cases must have counted is named.
pub fn run(target: &str, share: u64, must: &[&'static str], mut case: impl FnMut(&mut Cases)) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let given = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = given("ENTAIL_FUZZ_SEED").unwrap_or(1);
    let one = given("ENTAIL_FUZZ_CASE");
    let cases = (given("ENTAIL_FUZZ_CASES").unwrap_or(CASES) * share / 1000).max(1);
    let numbers = one.map_or(0..cases, |number| number..number + 1);
    let begin = Instant::now();
    let random = Random::new(seed, target, 0);
    let mut all = Cases { random, number: 0, counts: must.iter().map(|name| (*name, 0)).collect(), most: 0.0 };
    for number in numbers {
        let told = Told { target, seed, number };
        (all.random, all.number) = (Random::new(seed, target, number), number);
        case(&mut all);
        drop(told);
    }
    let Cases { counts, most, .. } = all;
    println!(
        "{target}: {cases} cases in {:.1} s, {counts:?}, at the most {most:.1} times the input",
        begin.elapsed().as_secs_f64()
    );
    assert!(one.is_some() || counts.values().all(|count| *count > 0), "{target}: what is 0 was never met: {counts:?}");
}
