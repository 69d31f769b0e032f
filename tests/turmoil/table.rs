//! What happened in runs, counted, as a table.

use std::fmt;
use std::time::Duration;

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub runs: u64,
    pub virtual_time: Duration,
    pub operations: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Writes acknowledged on one disk.
    pub single: u64,
    pub cuts: u64,
    pub one_way: u64,
    pub holds: u64,
    pub crashes: u64,
    /// Batches that were not synced and are lost with a crash.
    pub batches_lost: u64,
    pub reshards: u64,
    /// How often they were asked for.
    pub tries: u64,
    /// Maps that nodes began to act under.
    pub maps: u64,
    /// Bytes between nodes, in the direction in which they dialled.
    pub bytes: u64,
    /// Words of nodes on keys at the end.
    pub finals: u64,
    /// The longest that nodes took to agree.
    pub agreed_after: Duration,
    pub lines: u64,
    /// Of the traces; of many runs the sum, whatever their order.
    pub digest: u64,
}

impl Counts {
    /// Takes in another run's.
    pub fn add(&mut self, run: &Self) {
        let sums = [
            (&mut self.runs, 1),
            (&mut self.operations, run.operations),
            (&mut self.acknowledged, run.acknowledged),
            (&mut self.refused, run.refused),
            (&mut self.unknown, run.unknown),
            (&mut self.single, run.single),
            (&mut self.cuts, run.cuts),
            (&mut self.one_way, run.one_way),
            (&mut self.holds, run.holds),
            (&mut self.crashes, run.crashes),
            (&mut self.batches_lost, run.batches_lost),
            (&mut self.reshards, run.reshards),
            (&mut self.tries, run.tries),
            (&mut self.maps, run.maps),
            (&mut self.bytes, run.bytes),
            (&mut self.finals, run.finals),
            (&mut self.lines, run.lines),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
        self.digest = self.digest.wrapping_add(run.digest);
        self.virtual_time += run.virtual_time;
        self.agreed_after = self.agreed_after.max(run.agreed_after);
    }

    /// The counts by name, but for times.
    pub fn rows(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("runs", self.runs),
            ("operations of clients", self.operations),
            ("acknowledged writes", self.acknowledged),
            ("… on one disk", self.single),
            ("refused", self.refused),
            ("outcome unknown", self.unknown),
            ("links cut", self.cuts),
            ("links cut one way", self.one_way),
            ("links held", self.holds),
            ("crashes", self.crashes),
            ("batches lost with them", self.batches_lost),
            ("reshards done", self.reshards),
            ("… asked for", self.tries),
            ("maps adopted", self.maps),
            ("bytes between nodes", self.bytes),
            ("words of nodes at the end", self.finals),
            ("lines of traces", self.lines),
        ]
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.rows() {
            writeln!(f, "{name:<28} {count:>12}")?;
        }
        writeln!(f, "{:<24} {:016x}", "digest of all traces", self.digest)?;
        writeln!(f, "{:<28} {:>12.0}", "virtual time, s", self.virtual_time.as_secs_f64())?;
        write!(f, "{:<28} {:>12.1}", "longest until agreed, s", self.agreed_after.as_secs_f64())
    }
}
