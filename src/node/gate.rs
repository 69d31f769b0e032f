//! Admission: how many requests for keys may be on their way through the node before further ones are refused.
//!
//! A node that takes more than it can do makes everybody wait, in the end for longer than anybody cares for. What it can
//! do depends on machine, disk, peers and requests, so it is measured: by Little's law, who wants nobody to wait longer
//! than [`TARGET`] may not let more in at once than are answered in that time. As in CoDel (Nichols and Jacobson,
//! "Controlling Queue Delay", 2012) it is the *quickest* answer of a short window that tells a queue everybody stands
//! in from a few requests that wait for something of their own. Reads and writes are told apart: a slow disk must not
//! cost the reads their room, nor quick reads hide it.
//!
//! - While the quickest answer of a window took longer than [`TARGET`], the limit is what was answered in that time, of
//!   the last second.
//! - Else it grows by an eighth a window: up to [`FIRST`] by itself, beyond that only as far as it is used.
//! - What has waited for a second counts no more. It waits for something else than its turn (what its context names, a
//!   peer that does not answer) and must not keep others out; and as no more than is answered in half a second gets in
//!   within one, the queue shrinks all the same.
//!
//! What is measured ends when the loop has the answer: what it takes a client's thread to pass it on is another queue,
//! which refusing would only make longer.
//!
//! Deliberately absent: a queue. Who is not let in is told so at once, which costs less than to be let in. Counts of
//! keys, looks from outside and changes have lanes of their own, and no part in this.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Code;

/// How long a request may wait for its turn before others are refused for its sake.
const TARGET: Duration = Duration::from_millis(500);

/// How often the limit is set.
const WINDOW: Duration = Duration::from_millis(100);

/// Windows that are remembered: a second.
const WINDOWS: usize = 10;

/// At least so many are let in, however slow the node is. One that answers fewer in a second has a queue that grows, as
/// what has waited for a second counts no more.
const LEAST: u32 = 32;

/// So many are let in by a node that has nothing to tell by.
const FIRST: u32 = 1_024;

/// More than that the node itself refuses.
const MOST: u32 = 16_384;

/// The limits of one node, for reads and for writes.
#[derive(Debug)]
pub(super) struct Gate {
    began: Instant,
    reads: Arc<Mutex<Limiter>>,
    writes: Arc<Mutex<Limiter>>,
}

/// A request that was let in, until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    limiter: Arc<Mutex<Limiter>>,
    at: Instant,
    window: u64,
    served: bool,
    began: Instant,
}

impl Default for Gate {
    fn default() -> Self {
        let limiter = || Arc::new(Mutex::new(Limiter::new()));
        Self { began: Instant::now(), reads: limiter(), writes: limiter() }
    }
}

impl Gate {
    /// Lets a request in.
    ///
    /// # Errors
    /// `TooManyRequests`: it would wait for too long.
    pub(super) fn admit(&self, writes: bool) -> Result<Admitted, Code> {
        let limiter = if writes { &self.writes } else { &self.reads };
        let at = Instant::now();
        let window = lock(limiter).admit(at - self.began).ok_or(Code::TooManyRequests)?;
        Ok(Admitted { limiter: Arc::clone(limiter), at, window, served: false, began: self.began })
    }
}

impl Admitted {
    /// It was done, or shown what it asked for: how long that took tells how much the node has to do.
    pub(super) fn served(mut self) {
        self.served = true;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let now = Instant::now();
        let waited = self.served.then(|| now - self.at);
        lock(&self.limiter).ended(now - self.began, self.window, waited);
    }
}

fn lock(limiter: &Mutex<Limiter>) -> MutexGuard<'_, Limiter> {
    limiter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One limit. Times are counted from its beginning.
#[derive(Debug)]
struct Limiter {
    limit: u32,
    /// The present window's number; it is at this place, modulo their count.
    now: u64,
    windows: [Window; WINDOWS],
    /// Let in within the windows that are remembered, and not ended.
    waiting: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Let in then, and not ended.
    waiting: u32,
    /// Served then.
    served: u32,
    /// The shortest wait of these.
    quickest: Option<Duration>,
    /// The most that waited then.
    most: u32,
}

impl Limiter {
    fn new() -> Self {
        Self { limit: FIRST, now: 0, windows: [Window::default(); WINDOWS], waiting: 0 }
    }

    /// Lets one in, if there is room; gives the window that it belongs to.
    fn admit(&mut self, now: Duration) -> Option<u64> {
        self.advance(now);
        if self.waiting >= self.limit {
            return None;
        }
        self.waiting += 1;
        let waiting = self.waiting;
        let window = self.window(self.now);
        window.waiting += 1;
        window.most = window.most.max(waiting);
        Some(self.now)
    }

    /// One that was let in has ended: served after this time, or not at all.
    fn ended(&mut self, now: Duration, admitted: u64, served: Option<Duration>) {
        self.advance(now);
        if self.now - admitted < WINDOWS as u64 {
            self.waiting -= 1;
            self.window(admitted).waiting -= 1;
        }
        if let Some(waited) = served {
            let window = self.window(self.now);
            window.served += 1;
            window.quickest = Some(window.quickest.map_or(waited, |quickest| quickest.min(waited)));
        }
    }

    fn window(&mut self, number: u64) -> &mut Window {
        &mut self.windows[(number % WINDOWS as u64) as usize]
    }

    /// Sets the limit by each window that is over. Clocks of several threads may come in the wrong order.
    fn advance(&mut self, now: Duration) {
        let number = (now.as_millis() / WINDOW.as_millis()) as u64;
        // After a long rest nothing is remembered, and the limit has grown as far as it does by itself.
        if number > self.now + 100 {
            *self = Self { now: number, limit: self.limit.max(FIRST), ..Self::new() };
        }
        while self.now < number {
            self.set_limit();
            self.now += 1;
            let oldest = std::mem::take(self.window(self.now));
            self.waiting -= oldest.waiting;
            let waiting = self.waiting;
            self.window(self.now).most = waiting;
        }
    }

    fn set_limit(&mut self) {
        let Window { quickest, most, .. } = *self.window(self.now);
        if quickest.is_some_and(|quickest| quickest > TARGET) {
            let served: u32 = self.windows.iter().map(|window| window.served).sum();
            let remembered = WINDOW * WINDOWS as u32;
            let in_time = f64::from(served) * TARGET.as_secs_f64() / remembered.as_secs_f64();
            self.limit = (in_time as u32).clamp(LEAST, MOST);
        } else if self.limit < FIRST || quickest.is_some() && most >= self.limit {
            self.limit = (self.limit + self.limit / 8).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// So many clients, each with a request under way or refused a second ago, at a node that answers so many a second, one
    /// after the other, for so long. Gives the waits of the last half, and how many were refused then.
    fn served(clients: usize, a_second: u32, seconds: u32) -> (Vec<Duration>, usize) {
        let mut limiter = Limiter::new();
        let (mut queue, mut away) = (std::collections::VecDeque::new(), Vec::new());
        let (mut waits, mut refused, mut credit) = (Vec::new(), 0, 0.0);
        away.resize(clients, Duration::ZERO);
        for ms in 0..seconds * 1_000 {
            let (now, counts) = (MS * ms, ms > seconds * 500);
            let (back, still): (Vec<_>, Vec<_>) = away.into_iter().partition(|until| *until <= now);
            away = still;
            for _ in back {
                match limiter.admit(now) {
                    Some(window) => queue.push_back((now, window)),
                    None => {
                        away.push(now + 1_000 * MS);
                        refused += usize::from(counts);
                    }
                }
            }
            credit = (credit + f64::from(a_second) / 1_000.0).min(queue.len() as f64);
            while credit >= 1.0 {
                credit -= 1.0;
                let (at, window): (Duration, u64) = queue.pop_front().unwrap();
                limiter.ended(now, window, Some(now - at));
                if counts {
                    waits.push(now - at);
                }
                away.push(now);
            }
        }
        waits.sort_unstable();
        (waits, refused)
    }

    #[test]
    fn with_ten_times_too_many_nobody_waits_long_and_nothing_is_left_undone() {
        for a_second in [1_000, 10_000] {
            let (waits, refused) = served(10 * a_second as usize, a_second, 6);
            let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
            assert!(waits.len() as f64 > 0.95 * 3.0 * f64::from(a_second), "{} served", waits.len());
            assert!(median < 2 * TARGET && longest < 3 * TARGET, "{a_second}: {median:?}, {longest:?}");
            assert!(refused > 15 * a_second as usize, "{refused} refused");
        }
    }

    #[test]
    fn a_slow_node_still_takes_some() {
        // Long enough for those to be through whom it let in before it knew.
        let (waits, refused) = served(2_000, 100, 40);
        assert!(waits.len() > 1_900 && refused > 0, "{} served, {refused} refused", waits.len());
        let longest = waits[waits.len() - 1];
        assert!(longest < 3 * TARGET, "{longest:?}");
    }

    #[test]
    fn who_can_be_served_soon_is_not_refused() {
        // 2,000 at once, at a node that needs 200 ms for them: more than it would take unasked.
        let (waits, refused) = served(2_000, 10_000, 20);
        assert_eq!(refused, 0);
        assert!(waits[waits.len() - 1] < TARGET);
    }

    #[test]
    fn what_waits_for_something_else_keeps_nobody_out() {
        let mut limiter = Limiter::new();
        let stuck: Vec<u64> = (0..FIRST).map(|_| limiter.admit(Duration::ZERO).unwrap()).collect();
        assert_eq!(limiter.admit(900 * MS), None);
        assert!(limiter.admit(1_000 * MS).is_some(), "they have waited for a second");
        for window in stuck {
            limiter.ended(10_000 * MS, window, None);
        }
        let room = (0..).take_while(|_| limiter.admit(10_000 * MS).is_some()).count();
        assert_eq!(room, FIRST as usize, "counted once each");
    }

    #[test]
    fn the_gate_tells_reads_from_writes_and_counts_who_hangs_up() {
        let gate = Gate::default();
        let held: Vec<Admitted> = (0..FIRST).map(|_| gate.admit(true).unwrap()).collect();
        assert_eq!(gate.admit(true).unwrap_err(), Code::TooManyRequests);
        gate.admit(false).unwrap().served();
        drop(held);
        assert!(gate.admit(true).is_ok());
    }
}
