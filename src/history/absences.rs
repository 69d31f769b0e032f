//! Reads of nothing that one delete alone explains: they follow it, and then others may be explained.
//!
//! The more is known of what follows what, the fewer deletes can explain a read. So it makes no difference in which order
//! the reads are looked at, as long as each that is explained stays so: a right history comes to the same end. (In a wrong
//! one a read may lose its last two explanations one after the other or at once, and so show one pattern or another.)
//!
//! So nothing waits for a round over everything. What is new goes from an operation to those that follow it, in their
//! order, and on the way each read is looked at again whose past grew, and each that counted on a delete that what has
//! grown may have ruled out. Every read that is not explained has two deletes that can explain it: as long as both can,
//! no other matters.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::check::Checker;
use super::events::Kind;
use super::order::{Graph, Place, knows};

/// How often as many operations as there are may be looked at before all are put into a new order. One that knows
/// nothing of the edges that were found since then has operations looked at too early, thus again.
const MOST_LOOKS: usize = 4;

/// A delete's key and place, and a read.
type Link = (u32, Place, u32);

/// What is still to be looked at, and whom else it concerns.
struct Work<'a> {
    /// Who follows whom, as far as that was known when the order was made.
    graph: &'a Graph,
    sorted: &'a [u32],
    /// Where each operation stands in that order.
    positions: Vec<u32>,
    /// Positions of what is to be looked at; the first goes first.
    waiting: BinaryHeap<Reverse<u32>>,
    waits: Vec<bool>,
    /// Reads and the two deletes that each counts on.
    hopes: BTreeSet<Link>,
    /// Reads and the one delete that explains each, found since the order was made.
    shown: BTreeSet<Link>,
    /// What the operation that is looked at knew before.
    before: Vec<u32>,
    /// Something has come to know more.
    more: bool,
}

impl Work<'_> {
    fn add(&mut self, number: u32) {
        let position = self.positions[number as usize];
        if !std::mem::replace(&mut self.waits[number as usize], true) {
            self.waiting.push(Reverse(position));
        }
    }

    fn next(&mut self) -> Option<u32> {
        let Reverse(position) = self.waiting.pop()?;
        let number = self.sorted[position as usize];
        self.waits[number as usize] = false;
        Some(number)
    }
}

/// The reads linked with those deletes of a key that are at these places of a chain, from the first to the last.
fn linked(links: &BTreeSet<Link>, key: u32, chain: u32, from: u32, to: u32) -> impl Iterator<Item = &Link> {
    let range = (from <= to).then_some((key, Place { chain, at: from }, 0)..=(key, Place { chain, at: to }, u32::MAX));
    range.into_iter().flat_map(|range| links.range(range))
}

impl Checker<'_> {
    /// Finds reads of nothing, with writes in their past, that one delete alone explains, and what follows from that.
    /// True when somebody came to know more, so that the order is to be made anew.
    pub(super) fn explain_absences(&mut self, graph: &Graph, sorted: &[u32]) -> bool {
        let all = self.found.events.len();
        let mut positions = vec![0; all];
        for (position, number) in (0..).zip(sorted) {
            positions[*number as usize] = position;
        }
        let (waiting, waits, hopes, shown) = (BinaryHeap::new(), vec![false; all], BTreeSet::new(), BTreeSet::new());
        let before = Vec::new();
        let mut work = Work { graph, sorted, positions, waiting, waits, hopes, shown, before, more: false };
        // First what is plain at once: whoever reads of a wrong history is told the plainest.
        self.explain_the_end();
        for number in 0..all as u32 {
            if self.explain(number, &mut work).is_some() {
                work.add(number);
            }
        }
        for _ in 0..all * MOST_LOOKS {
            let Some(number) = work.next() else { break };
            self.look_again(number, &mut work);
            if self.clocks.of(number as usize)[self.place(number).chain as usize] > self.place(number).at {
                // It follows what follows it: a circle, and whoever makes the next order finds it.
                return true;
            }
        }
        work.more
    }

    /// Takes in what those before it know, tries to explain it, and passes on what is new.
    fn look_again(&mut self, number: u32, work: &mut Work) {
        let row = number as usize;
        let event = self.found.events[row];
        work.before.clear();
        work.before.extend_from_slice(self.clocks.of(row));
        for cause in event.after.into_iter().chain(event.shows) {
            self.clocks.join(row, cause as usize);
        }
        if let Some(delete) = self.explain(number, work) {
            self.clocks.join(row, delete as usize);
        }
        if self.clocks.of(row) == work.before {
            return;
        }
        work.more = true;
        for follower in work.graph.next(number) {
            work.add(*follower);
        }
        if event.kind.is_write() {
            self.disappoint(number, work);
        }
    }

    /// The delete that a read is found to follow, if it is a read of nothing and one alone explains it. It counts on two of
    /// them if there are more.
    fn explain(&mut self, number: u32, work: &mut Work) -> Option<u32> {
        let event = self.found.events[number as usize];
        if event.kind != Kind::Absent || event.shows.is_some() {
            return None;
        }
        let read = self.read(number);
        let past = self.last_writes(read);
        if past.is_empty() {
            return None;
        }
        let explanations = self.deletes(read, &past, 2);
        let link = |delete: &u32| (read.key, self.place(*delete), number);
        let [delete] = explanations[..] else {
            work.hopes.extend(explanations.iter().map(link));
            return None;
        };
        work.shown.insert(link(&delete));
        self.found.events[number as usize].shows = Some(delete);
        Some(delete)
    }

    /// Whom it concerns that a write knows more, but for those that follow it: whoever shows it if it is a delete, or counts
    /// on it but is known to it now; and whoever counts on a delete that it knows now, since it may overwrite that.
    fn disappoint(&self, number: u32, work: &mut Work) {
        let event = self.found.events[number as usize];
        let Place { chain, at } = event.place;
        let now = self.clocks.of(number as usize);
        let mut told: Vec<Link> = Vec::new();
        if event.kind == Kind::Delete {
            let known = |link: &&Link| knows(now, self.place(link.2));
            told.extend(linked(&work.shown, event.key, chain, at, at));
            told.extend(linked(&work.hopes, event.key, chain, at, at).filter(known));
        }
        // What the write before it in its chain knows, that one has told of.
        let writes = &self.writes[event.key as usize][&chain];
        let earlier = writes.partition_point(|write| *write < number).checked_sub(1).map(|i| writes[i]);
        for chain in self.deletes[event.key as usize].keys() {
            let cell = |clock: &[u32]| clock[*chain as usize];
            let known = earlier.map_or(0, |earlier| cell(self.clocks.of(earlier as usize)));
            let from = cell(&work.before).max(known) + 1;
            told.extend(linked(&work.hopes, event.key, *chain, from, cell(now)));
        }
        for link in told {
            work.hopes.remove(&link);
            work.add(link.2);
        }
    }

    /// The same for what replicas tell at the end, which nobody follows.
    fn explain_the_end(&mut self) {
        for read in self.reads_at_the_end().filter(|read| read.shows.is_none()).collect::<Vec<_>>() {
            let past = self.last_writes(read);
            if self.finds_nothing(read)
                && !past.is_empty()
                && let ([delete], Some(held)) = (&self.deletes(read, &past, 2)[..], read.held)
            {
                self.found.held[held].shows = Some(*delete);
            }
        }
    }
}
