//! What goes wrong: processes die, networks are cut in every shape, clocks jump, disks are slow or full.

use entail::machine::message::Input;
use entail::types::Epoch;

use crate::disk::Disk;
use crate::event::Event;
use crate::met::Fault;
use crate::world::World;

/// A wall clock that is more than a minute ahead of all that a node hears is ignored; as it may hear some of them late,
/// clocks count as far apart from here on, in milliseconds.
const APART_MS: i64 = 30_000;

/// So long after, nodes have heard what the clocks show by now, or nothing for too long, in milliseconds.
const FORGOTTEN_MS: u64 = 15_000;

impl World {
    /// Something goes wrong; the next one is planned.
    pub fn fault(&mut self) {
        if self.quiet {
            return;
        }
        self.strike();
        let when = self.now + self.random.within(1, 2 * self.settings.fault_gap_ms);
        self.agenda.at(when, Event::Fault);
    }

    /// Something goes wrong.
    pub fn strike(&mut self) {
        if self.quiet || self.recovering {
            return;
        }
        let f = self.settings.faults;
        let weights =
            [f.crash, f.crash_all, f.cut, f.skew, f.slow, f.links, f.lag, f.full, f.wipe, f.dead, f.majority, f.aimed];
        let n = self.random.index(self.nodes.len());
        match self.random.weighted(&weights) {
            0 => self.crash_and_restart(n, Fault::Crash),
            1 => (0..self.nodes.len()).for_each(|n| self.crash_and_restart(n, Fault::CrashAll)),
            2 => self.cut_somewhere(),
            3 => self.skew(n),
            4 => self.slow(n),
            5 => self.drop_connections(n),
            6 => self.lag(),
            7 => self.fill_disk(n),
            8 => self.lose_disk(n, false),
            9 => self.lose_for_good(n, false),
            10 => self.lose_the_majority(),
            _ => self.strike_aimed(),
        }
    }

    fn crash_and_restart(&mut self, n: usize, fault: Fault) {
        if self.nodes[n].process.is_none() {
            return;
        }
        self.meets(n, fault);
        self.crash(n, None);
        self.nodes[n].down_by = Some(fault);
        let long = self.random.percent(30);
        let down = self.random.within(2, if long { self.settings.down_ms } else { 150 });
        let boot = self.nodes[n].boot;
        self.agenda.at(self.now + down, Event::Start { node: n, boot });
    }

    /// A process dies. Of what was not synced a prefix survives: so many batches, or as chance has it.
    pub fn crash(&mut self, n: usize, keep: Option<usize>) {
        let unsynced = self.nodes[n].disk.unsynced_len();
        let keep = keep.unwrap_or_else(|| self.random.within(0, unsynced as u64) as usize);
        let Some(process) = self.nodes[n].process.take() else { return };
        self.trace.say(self.now, || format!("node{} dies; {keep} of {unsynced} unsynced batches survive", n + 1));
        self.oracle.coverage.hit("process: crashed");
        self.nodes[n].boot += 1;
        self.nodes[n].paused_until_ms = 0;
        self.nodes[n].disk = self.nodes[n].disk.crash(keep);
        self.drop_replicas(n, self.oracle.holdings[n].number(keep));
        for version in self.oracle.holdings[n].crashed(keep) {
            self.oracle.lost(version);
        }
        self.lose_unsynced(n);
        for serial in process.requests.values() {
            if let Some(asked) = self.asked.get(serial) {
                let when = self.now + self.random.within(1, 5);
                self.agenda.at(when, Event::GiveUp { client: asked.client, serial: *serial });
            }
        }
        self.forget_requests(&process.requests);
        for other in 0..self.nodes.len() {
            self.network.links[n][other] = None;
            let within = if self.network.severed(n, other) { (500, 3000) } else { (1, 30) };
            self.plan_break(other, n, within, false);
        }
    }

    /// A process dies, and its disk is empty at the next start.
    pub fn wipe(&mut self, n: usize) {
        self.crash(n, Some(0));
        self.nodes[n].disk = Disk::default();
        (self.nodes[n].incarnation, self.nodes[n].epoch) = (None, Epoch(0));
        self.nodes[n].given_up = false;
        self.oracle.holdings[n].wipe();
    }

    fn cut_somewhere(&mut self) {
        self.network.cuts += 1;
        let n = self.nodes.len();
        let mut cut = vec![vec![false; n]; n];
        let a = self.random.index(n);
        let mask = self.random.next();
        let side = |x: usize| mask >> x & 1 == 1;
        let ring = |x: usize, y: usize| (x + 1) % n != y && (y + 1) % n != x;
        let shape = self.random.within(0, 5);
        for (x, row) in cut.iter_mut().enumerate() {
            for (y, cut) in row.iter_mut().enumerate().filter(|(y, _)| *y != x) {
                *cut = match shape {
                    0 => x == a || y == a,
                    1 => side(x) != side(y),
                    2 => x == a,
                    3 => y == a,
                    4 => x != a && y != a && side(x) != side(y),
                    _ => ring(x, y),
                };
            }
        }
        self.oracle.coverage.hit(match shape {
            0 => "cut: one node",
            1 => "cut: in two",
            2 => "cut: one node is not heard",
            3 => "cut: one node hears nothing",
            4 => "cut: a bridge is left",
            _ => "cut: a ring is left",
        });
        let one_is = match shape {
            0 => Some(Fault::CutOff),
            2 => Some(Fault::Unheard),
            3 => Some(Fault::Deaf),
            _ => None,
        };
        if let Some(fault) = one_is {
            self.meets(a, fault);
        }
        self.network.one_is = one_is;
        self.network.shape = match shape {
            1 => Some("cut in two"),
            4 => Some("cut to a bridge"),
            5 => Some("cut to a ring"),
            _ => None,
        };
        self.cut(cut);
        let short = self.random.percent(50);
        let length = self.random.within(50, if short { 400 } else { self.settings.cut_ms });
        self.agenda.at(self.now + length, Event::Heal { cut: self.network.cuts });
    }

    /// One node is cut off, in both directions or in one, for so long.
    pub fn cut_one(&mut self, n: usize, fault: Fault, ms: u64) {
        self.network.cuts += 1;
        self.meets(n, fault);
        let all = 0..self.nodes.len();
        let cut = |x: usize, y: usize| (x == n && fault != Fault::Deaf) || (y == n && fault != Fault::Unheard);
        let cut = all.clone().map(|x| all.clone().map(|y| x != y && cut(x, y)).collect()).collect();
        (self.network.one_is, self.network.shape) = (Some(fault), None);
        self.cut(cut);
        self.agenda.at(self.now + ms, Event::Heal { cut: self.network.cuts });
    }

    /// Cuts the network so; connections across the cut break when it is noticed.
    pub fn cut(&mut self, cut: Vec<Vec<bool>>) {
        self.trace.say(self.now, || format!("the network is cut: {cut:?}"));
        self.network.cut = cut;
        for x in 0..self.nodes.len() {
            for y in 0..self.nodes.len() {
                if x != y && self.network.severed(x, y) && self.random.percent(80) {
                    self.plan_break(x, y, (100, 4000), true);
                }
            }
        }
    }

    /// A cut ends, if it is still the same.
    pub fn heal_cut(&mut self, cut: u64) {
        if self.network.cuts == cut {
            self.trace.say(self.now, || "the network heals".into());
            self.network.cut.iter_mut().flatten().for_each(|cut| *cut = false);
            (self.network.one_is, self.network.shape) = (None, None);
        }
    }

    fn skew(&mut self, n: usize) {
        self.oracle.coverage.hit("clock: jumped");
        self.jumped_ms = Some(self.now);
        self.note_clocks_apart();
        self.nodes[n].skew_ms = match self.random.percent(15) {
            true => self.random.pick(&[3_600_000, -3_600_000]),
            false => self.random.within(0, 8000) as i64 - 4000,
        };
        self.note_clocks_apart();
    }

    fn note_clocks_apart(&mut self) {
        let skews = || self.nodes.iter().map(|node| node.skew_ms);
        if skews().max() > skews().min().map(|least| least + APART_MS) {
            self.apart_ms = Some(self.now);
        }
    }

    /// True when a node may ignore its wall clock, as that is, or was a while ago, far ahead of those that it hears.
    pub fn may_ignore_clocks(&mut self) -> bool {
        self.note_clocks_apart();
        self.apart_ms.is_some_and(|apart_ms| self.now < apart_ms + FORGOTTEN_MS)
    }

    fn slow(&mut self, n: usize) {
        self.oracle.coverage.hit("slow: node or disk");
        let quick = self.settings.sync_ms;
        self.nodes[n].stall_ms = self.random.pick(&[0, 0, 20, 120]);
        self.nodes[n].sync_ms = self.random.pick(&[quick, quick, quick * 8, 300]);
    }

    fn drop_connections(&mut self, n: usize) {
        let all = self.random.percent(40);
        self.broke_ms = Some(self.now);
        for other in 0..self.nodes.len() {
            if all || self.random.percent(30) {
                self.plan_break(n, other, (1, 20), false);
                self.plan_break(other, n, (1, 20), false);
            }
        }
    }

    /// Some links carry operations, words of progress, or all else late; the others are on time again.
    fn lag(&mut self) {
        self.oracle.coverage.hit("slow: links");
        let slow_operations = self.settings.slow_operations;
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                let mut of = |percent: u64, most: &[u64]| match self.random.percent(percent) {
                    true => self.random.pick(most),
                    false => 0,
                };
                let operations: &[u64] = if slow_operations { &[900, 2500, 6000] } else { &[30, 200, 900, 2500] };
                let fills = of(40, &[30, 200, 900, 2500]);
                self.network.lag_ms[from][to] = [of(45, operations), fills, of(25, &[30, 200, 900]), of(10, &[20, 90])];
            }
        }
    }

    /// A disk is full below its reserve for a while: the node is told, as production's loop tells it.
    fn fill_disk(&mut self, n: usize) {
        if self.nodes[n].process.is_none() {
            return;
        }
        self.oracle.coverage.hit("disk: full");
        self.nodes[n].full = true;
        self.give(n, Input::DiskFull(true));
        let when = self.now + self.random.within(20, self.settings.full_ms);
        self.agenda.at(when, Event::Room { node: n });
    }

    /// A full disk has room again.
    pub fn room(&mut self, n: usize) {
        self.nodes[n].full = false;
        if self.nodes[n].process.is_some() {
            self.give(n, Input::DiskFull(false));
        }
    }
}
