//! What all runs came to: faults, how often each was run, and what was wrong.

use std::any::Any;
use std::path::Path;
use std::time::Duration;

use crate::round::Outcomes;

/// The sums of the runs of one fault, alone or with a reshard.
#[derive(Default)]
struct Row {
    fault: &'static str,
    resharding: bool,
    runs: u32,
    /// Runs in which a reshard was under way when the fault began.
    in_the_middle: u32,
    operations: usize,
    refused: usize,
    unknown: usize,
    acknowledged: usize,
    readable: usize,
    followed: usize,
    overtaken: usize,
    lost: usize,
    wrong: usize,
    /// Runs in which something did not come true in time.
    failed: u32,
    whole: Duration,
    agreed: Duration,
}

/// All rows, and what was wrong in words.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    lacking: Vec<String>,
    wrong: Vec<String>,
}

/// What a panic said.
pub fn words(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

impl Table {
    /// The machine can't bring this fault about.
    pub fn lacks(&mut self, fault: &'static str, what: &str) {
        let line = format!("{fault}: not had: {what}");
        eprintln!("{line}");
        if !self.lacking.contains(&line) {
            self.lacking.push(line);
        }
    }

    /// What came of a run.
    pub fn enter(
        &mut self,
        fault: &'static str,
        resharding: bool,
        seed: u64,
        outcome: Result<Outcomes, String>,
        kept: &Path,
    ) {
        let name = format!("{fault}{}, seed {seed}", if resharding { ", resharding" } else { "" });
        let found = self.rows.iter().position(|row| row.fault == fault && row.resharding == resharding);
        let at = found.unwrap_or_else(|| {
            self.rows.push(Row { fault, resharding, ..Row::default() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.runs += 1;
        match outcome {
            Ok(outcomes) => {
                row.add(&outcomes);
                let Outcomes { operations, in_the_middle, wrong, whole, agreed, notes, .. } = &outcomes;
                let middle = if *in_the_middle { " in the middle of it" } else { "" };
                eprintln!(
                    "{name}{middle}: {operations} operations, whole after {whole:.1?}, agreed after {agreed:.1?}, {} wrong; {}",
                    wrong.len(),
                    notes.join("; ")
                );
                for line in wrong {
                    eprintln!("    {line}");
                    self.wrong.push(format!("{name}: {line} ({})", kept.display()));
                }
            }
            Err(panic) => {
                row.failed += 1;
                eprintln!("{name}: {panic}");
                self.wrong.push(format!("{name}: {panic}"));
            }
        }
    }

    /// Prints it as it stands in docs/reliability.md.
    pub fn show(&self) {
        eprintln!(
            "\n| fault | resharding | runs | in the middle of it | operations | refused | unknown | acknowledged writes | there | followed | overtaken | lost | violations | not in time | whole after, s | agreed after, s |"
        );
        eprintln!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
        for row in &self.rows {
            row.show();
        }
        for line in &self.lacking {
            eprintln!("\n{line}");
        }
    }

    /// The end: panics when anything was wrong, or could not be had, unless that is allowed.
    pub fn finish(&self, may_lack: bool) {
        self.show();
        let sum = |of: fn(&Row) -> u32| self.rows.iter().filter(|row| row.resharding).map(of).sum::<u32>();
        let (met, runs) = (sum(|row| row.in_the_middle), sum(|row| row.runs));
        assert!(5 * met >= 4 * runs, "of {runs} faults that were to come in the middle of a reshard, {met} did");
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        assert!(may_lack || self.lacking.is_empty(), "this machine lacks something:\n{}", self.lacking.join("\n"));
    }
}

impl Row {
    fn add(&mut self, outcomes: &Outcomes) {
        let account = &outcomes.account;
        self.in_the_middle += u32::from(outcomes.in_the_middle);
        self.operations += outcomes.operations;
        self.refused += outcomes.refused;
        self.unknown += outcomes.unknown;
        self.acknowledged += account.acknowledged();
        self.readable += account.readable;
        self.followed += account.followed;
        self.overtaken += account.overtaken.len();
        self.lost += account.lost.len();
        self.wrong += outcomes.wrong.len();
        self.whole = self.whole.max(outcomes.whole);
        self.agreed = self.agreed.max(outcomes.agreed);
    }

    fn show(&self) {
        let Self { fault, runs, operations, refused, unknown, acknowledged, readable, followed, overtaken, .. } = self;
        let Self { lost, wrong, failed, .. } = self;
        let (whole, agreed) = (self.whole.as_secs_f64(), self.agreed.as_secs_f64());
        let (resharding, middle) =
            if self.resharding { ("yes", self.in_the_middle.to_string()) } else { ("", String::new()) };
        eprintln!(
            "| {fault} | {resharding} | {runs} | {middle} | {operations} | {refused} | {unknown} | {acknowledged} | {readable} | \
             {followed} | {overtaken} | {lost} | {wrong} | {failed} | {whole:.1} | {agreed:.1} |"
        );
    }
}
