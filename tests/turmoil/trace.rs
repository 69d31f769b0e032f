//! The trace of a run: what clients asked and were told, what nodes logged, what was done to them, each with its virtual
//! time and with a digest of every byte that nodes had sent to each other until then.
//!
//! The digest is over what the dialling side of each connection writes: all frames with all messages between nodes are
//! among it. The answering side's bytes are left out, as HTTP/2 answers carry the date, of the machine's clock.

use std::fmt::{self, Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What is kept of a run. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<String>,
    digest: u64,
    writes: u64,
    bytes: u64,
}

impl Trace {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, at this virtual time.
    pub fn at(&self, when: Duration, who: &str, what: impl Display) {
        let mut kept = self.kept();
        let digest = kept.digest;
        kept.lines.push(format!("{:>9} µs {who}: {what} [{digest:016x}]", when.as_micros()));
    }

    /// Adds a line now, within the simulation.
    pub fn say(&self, who: &str, what: impl Display) {
        self.at(now(), who, what);
    }

    /// Takes note of what one node sends another.
    pub fn sent(&self, bytes: &[u8]) {
        let when = now().as_micros() as u64;
        let mut kept = self.kept();
        kept.digest = xxh3_64_with_seed(bytes, kept.digest.rotate_left(1) ^ when);
        kept.writes += 1;
        kept.bytes += bytes.len() as u64;
    }

    /// All lines.
    pub fn lines(&self) -> Vec<String> {
        let kept = self.kept();
        let end = format!("{} bytes in {} writes between nodes [{:016x}]", kept.bytes, kept.writes, kept.digest);
        kept.lines.iter().cloned().chain([end]).collect()
    }

    /// How many bytes nodes sent each other.
    pub fn bytes(&self) -> u64 {
        self.kept().bytes
    }
}

/// The virtual time.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// The first line in which two traces differ, with the one before it; nothing when they are equal.
pub fn difference(one: &[String], other: &[String]) -> Option<String> {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    if same == one.len() && same == other.len() {
        return None;
    }
    let line = |lines: &[String], at: usize| lines.get(at).map_or("(the end)", String::as_str).to_owned();
    let before = if same > 0 { line(one, same - 1) } else { "(the beginning)".to_owned() };
    Some(format!("line {}, after\n  {before}\n  {}\n  {}", same + 1, line(one, same), line(other, same)))
}

/// A number for a whole trace.
pub fn digest(lines: &[String]) -> u64 {
    lines.iter().fold(0, |digest, line| xxh3_64_with_seed(line.as_bytes(), digest))
}

/// Hears what nodes log, and adds it to a trace.
#[derive(Debug)]
pub struct Listener {
    trace: Trace,
    /// The names of the nodes that had a turn, by span: turmoil opens one for each turn.
    turns: Mutex<Vec<(u64, String)>>,
    spans: AtomicU64,
}

impl Listener {
    pub fn new(trace: Trace) -> Self {
        Self { trace, turns: Mutex::default(), spans: AtomicU64::new(1) }
    }

    fn turns(&self) -> MutexGuard<'_, Vec<(u64, String)>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let of_a_turn = metadata.is_span() && target.starts_with("turmoil");
        of_a_turn || target.starts_with("entail") && *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.spans.fetch_add(1, Ordering::Relaxed);
        let mut words = Words::default();
        span.record(&mut words);
        self.turns().push((id, words.name));
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut words = Words::default();
        event.record(&mut words);
        let who = self.turns().last().map_or_else(|| "nobody".to_owned(), |(_, name)| name.clone());
        self.trace.say(&who, format_args!("logs {}{}", words.message, words.rest));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, id: &Id) {
        self.turns().retain(|(turn, _)| *turn != id.into_u64());
    }
}

/// The fields of an event or a span.
#[derive(Default)]
struct Words {
    message: String,
    name: String,
    rest: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
        written.expect("a string takes everything");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "name" => value.clone_into(&mut self.name),
            _ => self.record_debug(field, &value),
        }
    }
}
