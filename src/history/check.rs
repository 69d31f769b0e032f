//! The bad patterns, looked for one after another.

use std::collections::BTreeMap;

use super::events::{Events, Kind, events};
use super::order::{Clocks, Graph, Place, knows};
use super::record::{HistoryError, Outcome, Record};
use super::verdict::{Account, Pattern, Report, Violation};

/// Most cells of the vector clocks: 4 bytes each.
const MOST_CELLS: usize = 1 << 30;

/// After so many violations of one kind the rest says nothing new.
const MOST: usize = 20;

/// Decides whether a causally convergent store can have this history.
///
/// # Errors
/// The records are no history: [`HistoryError`].
pub fn check(records: &[Record]) -> Result<Report, HistoryError> {
    let (found, violations) = events(records)?;
    let (operations, chains) = (found.events.len(), found.chains);
    // One row more for what everybody knows at the end.
    if (operations + 1).saturating_mul(chains) > MOST_CELLS {
        return Err(HistoryError::TooLarge { operations, chains });
    }
    let (keys, finals) = (found.keys, found.held.len());
    let mut checker = Checker::new(records, found, violations);
    checker.run();
    let Checker { account, violations, .. } = checker;
    Ok(Report { operations, keys, chains, finals, account, violations })
}

/// The writes of one key in one chain, in order.
pub(super) type Writes = BTreeMap<u32, Vec<u32>>;

pub(super) struct Checker<'a> {
    pub(super) records: &'a [Record],
    pub(super) found: Events,
    pub(super) clocks: Clocks,
    /// By key.
    pub(super) writes: Vec<Writes>,
    /// Those of them that are deletes: a read of nothing looks for one, however many puts there are.
    pub(super) deletes: Vec<Writes>,
    /// Pairs of writes of one key: the first comes before the second in every order that explains the reads.
    conflicts: Vec<(u32, u32)>,
    account: Account,
    violations: Vec<Violation>,
}

/// A read: of an operation, or of a replica at the end.
#[derive(Clone, Copy)]
pub(super) struct Read {
    record: u32,
    pub(super) key: u32,
    pub(super) shows: Option<u32>,
    /// Its row of the clocks.
    row: usize,
    /// Its own place, if it is an operation.
    place: Option<Place>,
    /// Which of the replicas' words it is, if it is one.
    pub(super) held: Option<usize>,
}

impl<'a> Checker<'a> {
    fn new(records: &'a [Record], found: Events, violations: Vec<Violation>) -> Self {
        let by_key = |wanted: fn(Kind) -> bool| {
            let mut all = vec![Writes::new(); found.keys];
            for (number, event) in (0..).zip(&found.events).filter(|(_, event)| wanted(event.kind)) {
                all[event.key as usize].entry(event.place.chain).or_default().push(number);
            }
            all
        };
        let (writes, deletes) = (by_key(|kind| kind.is_write()), by_key(|kind| kind == Kind::Delete));
        let clocks = Clocks::new(0, 0);
        Self { records, found, clocks, writes, deletes, conflicts: Vec::new(), account: Account::default(), violations }
    }

    fn run(&mut self) {
        // A read of nothing that one delete alone explains follows that delete; then others may be explained. Almost all
        // are found at once; the last order that is made shows that there are no more.
        loop {
            let graph = Graph::new(self.found.events.len(), &self.causes());
            let sorted = match graph.sorted() {
                Ok(sorted) => sorted,
                Err(cycle) => return self.report(Pattern::CyclicCO, &cycle),
            };
            self.clocks = self.clocks_along(&sorted);
            if !self.explain_absences(&graph, &sorted) {
                break;
            }
        }
        let of_clients = (0..).zip(&self.found.events).filter(|(_, event)| !event.kind.is_write());
        let of_clients: Vec<Read> = of_clients.map(|(number, _)| self.read(number)).collect();
        let at_the_end: Vec<Read> = self.reads_at_the_end().collect();
        for read in of_clients.into_iter().chain(at_the_end) {
            self.look_at(read);
        }
        self.compare_replicas();
        self.account = self.account();
        let mut edges = self.causes();
        edges.extend(&self.conflicts);
        if self.violations.is_empty()
            && let Err(cycle) = Graph::new(self.found.events.len(), &edges).sorted()
        {
            self.report(Pattern::CyclicCF, &cycle);
        }
    }

    /// What follows what: in a session, and a read what it shows.
    fn causes(&self) -> Vec<(u32, u32)> {
        let each = (0..).zip(&self.found.events);
        each.flat_map(|(number, event)| event.after.into_iter().chain(event.shows).map(move |a| (a, number))).collect()
    }

    fn clocks_along(&self, sorted: &[u32]) -> Clocks {
        let all = self.found.events.len();
        let mut clocks = Clocks::new(all + 1, self.found.chains);
        for number in sorted {
            let event = &self.found.events[*number as usize];
            for before in event.after.into_iter().chain(event.shows) {
                clocks.join(*number as usize, before as usize);
            }
            clocks.put(*number as usize, event.place);
        }
        for number in &self.found.acknowledged {
            clocks.join(all, *number as usize);
        }
        clocks
    }

    /// The operation of this number, which is a read.
    pub(super) fn read(&self, number: u32) -> Read {
        let event = &self.found.events[number as usize];
        let (record, key, shows) = (event.record, event.key, event.shows);
        Read { record, key, shows, row: number as usize, place: Some(event.place), held: None }
    }

    pub(super) fn reads_at_the_end(&self) -> impl Iterator<Item = Read> {
        let row = self.found.events.len();
        self.found.held.iter().enumerate().map(move |(i, held)| {
            let (record, key, shows) = (held.record, held.key, held.shows);
            Read { record, key, shows, row, place: None, held: Some(i) }
        })
    }

    pub(super) fn place(&self, event: u32) -> Place {
        self.found.events[event as usize].place
    }

    /// True when `a` is in the causal past of `b`, or is `b`.
    pub(super) fn is_before(&self, a: u32, b: u32) -> bool {
        knows(self.clocks.of(b as usize), self.place(a))
    }

    /// Of each chain the last write of the key that the read has in its past.
    pub(super) fn last_writes(&self, read: Read) -> Vec<u32> {
        let clock = self.clocks.of(read.row);
        let of_chain = |(chain, writes): (&u32, &Vec<u32>)| {
            let seen = writes.partition_point(|write| self.place(*write).at <= clock[*chain as usize]);
            seen.checked_sub(1).map(|last| writes[last])
        };
        self.writes[read.key as usize].iter().filter_map(of_chain).collect()
    }

    pub(super) fn finds_nothing(&self, read: Read) -> bool {
        self.records[read.record as usize].outcome == Outcome::Absent
    }

    /// What every read says of the writes in its past.
    fn look_at(&mut self, read: Read) {
        let past = self.last_writes(read);
        let Some(shown) = read.shows else {
            if self.finds_nothing(read) && !past.is_empty() && self.deletes(read, &past, 1).is_empty() {
                let put = past.iter().find(|write| !self.is_overwritten(**write, &past));
                let evidence: Vec<u32> = put.copied().into_iter().collect();
                self.report_read(Pattern::StaleAbsence, &evidence, read);
            }
            return;
        };
        for write in past.into_iter().filter(|write| *write != shown) {
            if self.is_before(shown, write) {
                self.report_read(Pattern::WriteCORead, &[shown, write], read);
            } else if !self.is_before(write, shown) {
                self.conflicts.push((write, shown));
            }
        }
    }

    fn is_overwritten(&self, write: u32, past: &[u32]) -> bool {
        past.iter().any(|later| *later != write && self.is_before(write, *later))
    }

    /// Deletes that can explain a read of nothing, at most so many: what it has in its past and nothing there has
    /// overwritten, and what is neither in its past nor after it.
    pub(super) fn deletes(&self, read: Read, past: &[u32], most: usize) -> Vec<u32> {
        let is_delete = |write: &u32| self.found.events[*write as usize].kind == Kind::Delete;
        let seen = past.iter().copied().filter(|write| is_delete(write) && !self.is_overwritten(*write, past));
        let clock = self.clocks.of(read.row);
        let aside = self.deletes[read.key as usize].iter().flat_map(|(chain, deletes)| {
            let seen = deletes.partition_point(|delete| self.place(*delete).at <= clock[*chain as usize]);
            deletes[seen..].iter().copied().take_while(|delete| !self.follows(*delete, read))
        });
        seen.chain(aside).take(most).collect()
    }

    fn follows(&self, write: u32, read: Read) -> bool {
        read.place.is_some_and(|place| knows(self.clocks.of(write as usize), place))
    }

    /// Every replica that tells of a key tells the same.
    fn compare_replicas(&mut self) {
        let mut first: BTreeMap<u32, u32> = BTreeMap::new();
        let value = |record: u32| self.records[record as usize].value.as_deref();
        let mut differ = Vec::new();
        for held in &self.found.held {
            let first = *first.entry(held.key).or_insert(held.record);
            if value(first) != value(held.record) {
                differ.push([first, held.record]);
            }
        }
        for pair in differ.into_iter().take(MOST) {
            let evidence = pair.map(|record| self.records[record as usize].clone()).to_vec();
            self.violations.push(Violation { pattern: Pattern::Diverged, evidence });
        }
    }

    fn report(&mut self, pattern: Pattern, events: &[u32]) {
        let record = |event: &u32| self.records[self.found.events[*event as usize].record as usize].clone();
        let evidence = events.iter().map(record).collect();
        self.violations.push(Violation { pattern, evidence });
    }

    fn report_read(&mut self, pattern: Pattern, events: &[u32], read: Read) {
        if self.violations.iter().filter(|known| known.pattern == pattern).count() < MOST {
            self.report(pattern, events);
            let last = self.violations.last_mut().expect("it was just put there");
            last.evidence.push(self.records[read.record as usize].clone());
        }
    }
}
