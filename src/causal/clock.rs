//! The hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks", 2014).
//!
//! A [`Timestamp`] is the wall clock's milliseconds, shifted left by [`COUNTER_BITS`], plus a counter; as one number
//! it only grows, and it is above every timestamp that the clock was shown. It follows the wall clock where it can
//! and counts on from the greatest timestamp seen where it can't. A counter that is full carries into the milliseconds.
//!
//! **The ceiling.** A restart must not give out a timestamp at or below one that was given, or promised, before it. So
//! the clock stays strictly below a *ceiling* that is durable, and a restart begins there. The ceiling is raised ahead
//! of need: once less than half of [`LEAD`] is left ([`Clock::ceiling_wanted`]), the machine writes a new one into a
//! batch ([`Clock::ceiling_pending`]) and says when that batch is synced ([`Clock::ceiling_durable`]). Where a merge
//! or a jump of the wall clock has carried the reading past the ceiling, [`Clock::tick`] gives nothing until then.
//!
//! **Promises** ([`Clock::promise`]) are readings that no later tick will be at or below, not even after a restart.
//!
//! Caveats: a timestamp from far in the future, once merged, stays: the clock goes on logically from there. At the
//! very end of the number space nothing is given any more, and nothing panics.

use crate::types::Timestamp;

/// Bits of the counter below the milliseconds.
pub const COUNTER_BITS: u32 = 16;

/// How far a new ceiling is put ahead of the clock: 4 s. A sync has half of that to finish before a write must wait.
pub const LEAD: u64 = 4_000 << COUNTER_BITS;

/// No timestamp of another node is greater: one that is comes of a mistake, and would end the number space for everybody
/// who merges it.
pub const FARTHEST: Timestamp = Timestamp(u64::MAX >> 1);

/// The last wall clock that is believed, of the year 4199: what counts on from there stays below [`FARTHEST`] for as long.
const LAST_WALL: u64 = u64::MAX >> 2;

/// The clock of one node. It is given the wall clock's reading, in milliseconds since 1970, with each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The greatest timestamp given, merged or promised.
    last: u64,
    /// The greatest ceiling that is synced; what is given or promised is below it.
    durable: u64,
    /// The greatest ceiling written into a batch, synced or not; never below `durable`.
    pending: u64,
    /// Set while the wall clock is not to be believed.
    logical_only: bool,
}

impl Clock {
    /// A clock that begins at the ceiling found on disk (zero with a new data directory).
    ///
    /// It gives nothing until a ceiling above that is durable. The simulator takes the rule `Ceiling` away by giving
    /// the greatest timestamp found on disk instead.
    pub fn new(durable_ceiling: Timestamp) -> Self {
        let Timestamp(ceiling) = durable_ceiling;
        Self { last: ceiling, durable: ceiling, pending: ceiling, logical_only: false }
    }

    /// The current reading: at least everything given, merged and promised; nothing is given by it.
    pub fn peek(&self, wall_ms: u64) -> Timestamp {
        Timestamp(self.last.max(self.wall(wall_ms)))
    }

    /// The greatest timestamp given, merged or promised so far.
    pub fn merged(&self) -> Timestamp {
        Timestamp(self.last)
    }

    /// The next timestamp, greater than everything given, merged and promised so far and below the durable ceiling.
    ///
    /// `None` when it would reach the ceiling: nothing has changed, and the write waits until a higher one is durable.
    pub fn tick(&mut self, wall_ms: u64) -> Option<Timestamp> {
        let next = self.last.checked_add(1)?.max(self.wall(wall_ms));
        if next >= self.durable {
            return None;
        }
        self.last = next;
        Some(Timestamp(next))
    }

    /// Takes note of a timestamp seen: every later tick is greater.
    pub fn merge(&mut self, seen: Timestamp) {
        self.last = self.last.max(seen.0);
    }

    /// A reading that no later tick will be at or below, below the durable ceiling (zero when there is none yet).
    pub fn promise(&mut self, wall_ms: u64) -> Timestamp {
        let Timestamp(reading) = self.peek(wall_ms);
        let promised = reading.min(self.durable.saturating_sub(1));
        self.last = self.last.max(promised);
        Timestamp(promised)
    }

    /// [`Clock::promise`] without regard to the ceiling: what the simulator runs without the rule `DurablePromise`.
    pub fn promise_unbounded(&mut self, wall_ms: u64) -> Timestamp {
        let reading = self.peek(wall_ms);
        self.merge(reading);
        reading
    }

    /// The ceiling to write with the next batch, when the one written last is closer than half of [`LEAD`] to the
    /// reading, or already behind it.
    pub fn ceiling_wanted(&self, wall_ms: u64) -> Option<Timestamp> {
        let Timestamp(reading) = self.peek(wall_ms);
        let near = self.pending.saturating_sub(reading) < LEAD / 2;
        let wanted = reading.saturating_add(LEAD);
        (near && wanted > self.pending).then_some(Timestamp(wanted))
    }

    /// The ceiling is part of a batch that the store has applied (not of one that it refused).
    pub fn ceiling_pending(&mut self, ceiling: Timestamp) {
        self.pending = self.pending.max(ceiling.0);
    }

    /// The batch with this ceiling is synced.
    pub fn ceiling_durable(&mut self, ceiling: Timestamp) {
        self.durable = self.durable.max(ceiling.0);
        self.pending = self.pending.max(self.durable);
    }

    /// The ceiling below which timestamps can be given now.
    pub fn durable_ceiling(&self) -> Timestamp {
        Timestamp(self.durable)
    }

    /// Whether to ignore the wall clock and count on from what was seen: to be set while it is more than a minute
    /// ahead of every peer's (see `cluster::detector`).
    pub fn set_logical_only(&mut self, logical_only: bool) {
        self.logical_only = logical_only;
    }

    /// The wall clock as a timestamp; one beyond [`LAST_WALL`] counts as that.
    fn wall(&self, wall_ms: u64) -> u64 {
        if self.logical_only { 0 } else { wall_ms.min(LAST_WALL >> COUNTER_BITS) << COUNTER_BITS }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One thing that can happen to a clock.
    #[derive(Clone, Debug)]
    enum Event {
        Tick,
        Promise,
        Merge(u64),
        Wall(u64),
        LogicalOnly(bool),
        /// The machine writes the ceiling that is wanted.
        Write,
        /// All that was written is synced.
        Sync,
        /// A restart; what was not synced may survive or not.
        Restart(bool),
    }

    /// Plausible times, and both ends of the number space.
    fn time() -> impl Strategy<Value = u64> {
        prop_oneof![8 => 1_000_000_000_000u64..1_000_000_020_000, 1 => 0u64..5, 1 => any::<u64>()]
    }

    fn event() -> impl Strategy<Value = Event> {
        let seen = prop_oneof![
            8 => (time(), 0u64..3).prop_map(|(ms, count)| (ms << COUNTER_BITS) | count),
            1 => time().prop_map(|ms| (ms << COUNTER_BITS) | 0xffff),
        ];
        prop_oneof![
            8 => Just(Event::Tick),
            3 => Just(Event::Promise),
            2 => seen.prop_map(Event::Merge),
            3 => time().prop_map(Event::Wall),
            1 => any::<bool>().prop_map(Event::LogicalOnly),
            4 => Just(Event::Write),
            4 => Just(Event::Sync),
            1 => any::<bool>().prop_map(Event::Restart),
        ]
    }

    /// What the outside has seen of a clock, over all its restarts.
    struct Witness {
        clock: Clock,
        wall_ms: u64,
        /// The greatest timestamp given or promised: no later tick may be at or below.
        above: u64,
        /// The greatest timestamp merged since the start.
        merged: u64,
        written: Option<Timestamp>,
    }

    impl Witness {
        fn apply(&mut self, event: &Event) {
            match *event {
                Event::Tick => self.tick(),
                Event::Promise => {
                    let Timestamp(promised) = self.clock.promise(self.wall_ms);
                    let Timestamp(ceiling) = self.clock.durable_ceiling();
                    assert!(promised < ceiling || ceiling == 0, "{promised} promised at the ceiling {ceiling}");
                    self.above = self.above.max(promised);
                }
                Event::Merge(seen) => {
                    self.clock.merge(Timestamp(seen));
                    self.merged = self.merged.max(seen);
                }
                Event::Wall(ms) => self.wall_ms = ms,
                Event::LogicalOnly(on) => self.clock.set_logical_only(on),
                Event::Write => self.write(),
                Event::Sync => {
                    if let Some(ceiling) = self.written.take() {
                        self.clock.ceiling_durable(ceiling);
                    }
                }
                Event::Restart(survives) => {
                    let Timestamp(durable) = self.clock.durable_ceiling();
                    let written = self.written.take().filter(|_| survives).map_or(0, |c| c.0);
                    self.clock = Clock::new(Timestamp(durable.max(written)));
                    self.merged = 0;
                }
            }
        }

        fn tick(&mut self) {
            let before = self.clock.clone();
            let Some(Timestamp(given)) = self.clock.tick(self.wall_ms) else {
                assert_eq!(before, self.clock, "a tick that gives nothing changes nothing");
                return;
            };
            assert!(given > self.above, "{given} is not above {}", self.above);
            assert!(given > self.merged, "{given} is not above the merged {}", self.merged);
            assert!(given < self.clock.durable_ceiling().0, "{given} is at the ceiling");
            assert_eq!(self.clock.peek(0), Timestamp(given));
            self.above = given;
        }

        fn write(&mut self) {
            if let Some(ceiling) = self.clock.ceiling_wanted(self.wall_ms) {
                self.clock.ceiling_pending(ceiling);
                self.written = Some(ceiling);
                assert_eq!(self.clock.ceiling_wanted(self.wall_ms), None, "a ceiling is wanted once");
            }
        }
    }

    proptest! {
        #[test]
        fn grows_above_all_it_was_shown_and_below_its_ceiling(events in prop::collection::vec(event(), 1..200)) {
            let clock = Clock::new(Timestamp(0));
            let mut witness = Witness { clock, wall_ms: 1_000_000_000_000, above: 0, merged: 0, written: None };
            for event in &events {
                witness.apply(event);
            }
        }

        #[test]
        fn ticks_again_once_the_wanted_ceiling_is_durable(
            start in time(), wall_ms in 0u64..1 << 47, seen in 0u64..1 << 63, logical in any::<bool>(),
        ) {
            let mut clock = Clock::new(Timestamp(start.min(1 << 62)));
            clock.set_logical_only(logical);
            clock.merge(Timestamp(seen));
            if clock.tick(wall_ms).is_none() {
                let ceiling = clock.ceiling_wanted(wall_ms).expect("what raised the clock asks for a ceiling");
                clock.ceiling_pending(ceiling);
                prop_assert_eq!(clock.tick(wall_ms), None);
                clock.ceiling_durable(ceiling);
                prop_assert!(clock.tick(wall_ms).is_some());
            }
        }
    }

    /// A clock that may give timestamps up to four seconds past `ms`.
    fn running(ms: u64) -> Clock {
        let mut clock = Clock::new(Timestamp(0));
        let ceiling = clock.ceiling_wanted(ms).unwrap();
        clock.ceiling_pending(ceiling);
        clock.ceiling_durable(ceiling);
        clock
    }

    fn at(ms: u64, counter: u64) -> Timestamp {
        Timestamp((ms << COUNTER_BITS) | counter)
    }

    #[test]
    fn follows_the_wall_clock_and_counts_where_it_stands_still_or_goes_back() {
        let mut clock = running(1_000);
        let given = [1_000, 1_000, 1_001, 900].map(|ms| clock.tick(ms).unwrap());
        assert_eq!(given, [at(1_000, 0), at(1_000, 1), at(1_001, 0), at(1_001, 1)]);
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = running(1_000);
        clock.merge(at(1_000, 0xffff));
        assert_eq!(clock.tick(1_000), Some(at(1_001, 0)));
    }

    #[test]
    fn asks_for_a_ceiling_while_a_sync_still_fits_in() {
        let clock = running(1_000);
        assert_eq!(clock.ceiling_wanted(3_000), None);
        assert_eq!(clock.ceiling_wanted(3_001), Some(at(7_001, 0)));
    }

    #[test]
    fn a_wall_clock_that_is_not_believed_is_ignored() {
        let mut clock = running(1_000);
        clock.tick(1_000);
        clock.set_logical_only(true);
        assert_eq!(clock.ceiling_wanted(3_600_000), None);
        assert_eq!(clock.tick(3_600_000), Some(at(1_000, 1)));
        assert_eq!(clock.promise(3_600_000), at(1_000, 1));
        clock.set_logical_only(false);
        assert_eq!(clock.tick(2_000), Some(at(2_000, 0)));
    }

    #[test]
    fn the_promise_without_its_rule_goes_past_the_ceiling() {
        let mut clock = running(1_000);
        assert_eq!(clock.promise(9_000), Timestamp(clock.durable_ceiling().0 - 1));
        assert_eq!(clock.promise_unbounded(9_000), at(9_000, 0));
    }

    #[test]
    fn at_the_end_of_the_number_space_nothing_is_given_and_nothing_panics() {
        let mut clock = Clock::new(Timestamp(u64::MAX));
        assert_eq!(clock.tick(u64::MAX), None);
        assert_eq!(clock.ceiling_wanted(u64::MAX), None);
        assert_eq!(clock.promise(u64::MAX), Timestamp(u64::MAX - 1));
        clock.merge(Timestamp(u64::MAX));
        assert_eq!(clock.tick(0), None);
    }
}
