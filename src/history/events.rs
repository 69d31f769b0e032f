//! From records to what can be checked: operations by number, who follows whom, and which write a read shows.

use std::collections::{BTreeMap, BTreeSet};

use super::order::Place;
use super::record::{HistoryError, Op, Outcome, Record};
use super::verdict::{Pattern, Violation};

/// One operation that was done, or may have been.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Its number in the records.
    pub record: u32,
    /// Its key, by number.
    pub key: u32,
    pub kind: Kind,
    /// The operation that it follows in its session.
    pub after: Option<u32>,
    /// The write that it shows, if it is a read and that is known.
    pub shows: Option<u32>,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Put,
    Delete,
    /// A read that shows a value.
    Present,
    /// A read that finds nothing.
    Absent,
}

impl Kind {
    pub fn is_write(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }
}

/// What a replica holds at the end.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub record: u32,
    pub key: u32,
    /// Which write, when there is a value.
    pub shows: Option<u32>,
}

/// All that is done or may have been.
pub struct Events {
    pub events: Vec<Event>,
    pub held: Vec<Held>,
    /// The acknowledged operations: what the end follows.
    pub acknowledged: Vec<u32>,
    pub keys: usize,
    pub chains: usize,
}

/// The write of a value, as far as known.
#[derive(Clone, Copy)]
enum Written {
    Done(u32),
    /// It may have been; it counts once somebody saw it.
    Perhaps(u32),
    Refused(u32),
}

/// Puts by key and value.
type Values<'a> = BTreeMap<(&'a str, &'a str), Written>;

/// Orders the records, finds whom each follows and what each read shows. What nobody wrote is a violation already.
///
/// # Errors
/// A record that is none, values written twice, contexts from nowhere.
pub fn events(records: &[Record]) -> Result<(Events, Vec<Violation>), HistoryError> {
    if let Some(odd) = records.iter().find(|record| !record.is_well_formed()) {
        return Err(HistoryError::Shape(Box::new(odd.clone())));
    }
    let values = values(records)?;
    let seen: BTreeSet<(&str, &str)> = shown(records).collect();
    let mut order: Vec<u32> = (0..records.len() as u32).filter(|i| counts(&records[*i as usize], &seen)).collect();
    order.sort_by_key(|i| records[*i as usize].start_us);
    let mut builder = Builder::default();
    for i in &order {
        builder.add(records, *i)?;
    }
    let mut thin_air = Vec::new();
    builder.resolve(records, &values, &mut thin_air);
    Ok((builder.finished(), thin_air))
}

/// The values that somebody saw.
fn shown(records: &[Record]) -> impl Iterator<Item = (&str, &str)> {
    let reads = records.iter().filter(|record| record.op != Op::Put);
    reads.filter_map(|record| Some((record.key.as_str(), record.value.as_deref()?)))
}

/// True for what was done, and for a write that may have been, when it makes a difference.
fn counts(record: &Record, seen: &BTreeSet<(&str, &str)>) -> bool {
    match (record.op, record.outcome) {
        (_, Outcome::Ok | Outcome::Absent) | (Op::Delete, Outcome::Unknown) => true,
        (Op::Put, Outcome::Unknown) => {
            record.value.as_deref().is_some_and(|value| seen.contains(&(record.key.as_str(), value)))
        }
        (_, Outcome::Refused) | (Op::Get | Op::Final, Outcome::Unknown) => false,
    }
}

fn values(records: &[Record]) -> Result<Values<'_>, HistoryError> {
    let mut values = Values::new();
    for (i, record) in (0..).zip(records).filter(|(_, record)| record.op == Op::Put) {
        let value = record.value.as_deref().unwrap_or_default();
        let written = match record.outcome {
            Outcome::Refused => Written::Refused(i),
            Outcome::Unknown => Written::Perhaps(i),
            Outcome::Ok | Outcome::Absent => Written::Done(i),
        };
        if values.insert((record.key.as_str(), value), written).is_some() {
            return Err(HistoryError::NotUnique(Box::new(record.clone())));
        }
    }
    Ok(values)
}

#[derive(Default)]
struct Builder<'a> {
    events: Vec<Event>,
    held: Vec<Held>,
    acknowledged: Vec<u32>,
    keys: BTreeMap<&'a str, u32>,
    /// Of each session, its last acknowledged operation.
    last: BTreeMap<&'a str, u32>,
    /// Who was given a context last, in each session and at all.
    given: BTreeMap<(&'a str, &'a str), u32>,
    given_first: BTreeMap<&'a str, u32>,
    /// The event of a record.
    of_record: BTreeMap<u32, u32>,
    /// The last event of each chain.
    ends: Vec<u32>,
}

impl<'a> Builder<'a> {
    fn add(&mut self, records: &'a [Record], i: u32) -> Result<(), HistoryError> {
        let record = &records[i as usize];
        let known = self.keys.len() as u32;
        let key = *self.keys.entry(&record.key).or_insert(known);
        let kind = match (record.op, record.outcome) {
            (Op::Final, _) => {
                self.held.push(Held { record: i, key, shows: None });
                return Ok(());
            }
            (Op::Put, _) => Kind::Put,
            (Op::Delete, Outcome::Ok | Outcome::Unknown) => Kind::Delete,
            (Op::Get, Outcome::Ok) => Kind::Present,
            (Op::Get | Op::Delete, _) => Kind::Absent,
        };
        let after = self.before(record)?;
        let number = self.events.len() as u32;
        let done = record.outcome != Outcome::Unknown;
        let place = self.place(number, after.filter(|_| done));
        self.events.push(Event { record: i, key, kind, after, shows: None, place });
        self.of_record.insert(i, number);
        if done {
            // Nobody follows what nobody knows the end of, but by seeing it.
            self.acknowledged.push(number);
            self.last.insert(&record.session, number);
            if let Some(context) = record.context_out.as_deref().filter(|context| !context.is_empty()) {
                self.given.insert((&record.session, context), number);
                self.given_first.entry(context).or_insert(number);
            }
        }
        Ok(())
    }

    /// The operation whose context this one was sent with; of several that were given the same, the session's own last.
    fn before(&self, record: &Record) -> Result<Option<u32>, HistoryError> {
        match record.context_in.as_deref() {
            None => Ok(self.last.get(record.session.as_str()).copied()),
            Some("") => Ok(None),
            Some(context) => {
                let own = self.given.get(&(record.session.as_str(), context));
                let known = own.or_else(|| self.given_first.get(context)).copied();
                known.map(Some).ok_or_else(|| HistoryError::Stranger(Box::new(record.clone())))
            }
        }
    }

    /// The next place of the chain that ends with `after`, or the first one of a new chain.
    fn place(&mut self, number: u32, after: Option<u32>) -> Place {
        if let Some(after) = after {
            let before = self.events[after as usize].place;
            if self.ends[before.chain as usize] == after {
                self.ends[before.chain as usize] = number;
                return Place { chain: before.chain, at: before.at + 1 };
            }
        }
        self.ends.push(number);
        Place { chain: self.ends.len() as u32 - 1, at: 1 }
    }

    fn resolve(&mut self, records: &[Record], values: &Values<'_>, wrong: &mut Vec<Violation>) {
        let find = |i: u32, wrong: &mut Vec<Violation>| {
            let record = &records[i as usize];
            match values.get(&(record.key.as_str(), record.value.as_deref()?)) {
                Some(Written::Done(write) | Written::Perhaps(write)) => self.of_record.get(write).copied(),
                Some(Written::Refused(write)) => {
                    let evidence = vec![records[*write as usize].clone(), record.clone()];
                    wrong.push(Violation { pattern: Pattern::ThinAirRead, evidence });
                    None
                }
                None => {
                    wrong.push(Violation { pattern: Pattern::ThinAirRead, evidence: vec![record.clone()] });
                    None
                }
            }
        };
        for event in self.events.iter_mut().filter(|event| event.kind == Kind::Present) {
            event.shows = find(event.record, wrong);
        }
        for held in &mut self.held {
            held.shows = find(held.record, wrong);
        }
    }

    fn finished(self) -> Events {
        let (keys, chains) = (self.keys.len(), self.ends.len());
        Events { events: self.events, held: self.held, acknowledged: self.acknowledged, keys, chains }
    }
}
