//! Faults that choose their victim by what it is at that moment: the one that is being filled, the source of a fill,
//! the proposer. Chance alone seldom meets those, as they are what they are for milliseconds.

use crate::event::Event;
use crate::met::{Fault, ROLES};
use crate::world::World;

/// What may befall the victim, and how often.
const AIMED: &[(Option<Fault>, u64)] = &[
    (Some(Fault::Crash), 5),
    (Some(Fault::CrashAll), 2),
    (Some(Fault::LostDisk), 4),
    (Some(Fault::Death), 3),
    (Some(Fault::CutOff), 3),
    (Some(Fault::Unheard), 3),
    (Some(Fault::Deaf), 3),
    (Some(Fault::Pause), 4),
    // All that serve some partition die for good, and the operator gives them up.
    (None, 3),
];

impl World {
    /// Something befalls a node that is just now what chance has chosen, if there is one.
    pub fn strike_aimed(&mut self) {
        let role = self.random.pick(ROLES);
        let up: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].process.is_some()).collect();
        let such: Vec<usize> = up.iter().copied().filter(|n| self.roles(*n).contains(&role)).collect();
        let among = if such.is_empty() { up } else { such };
        if among.is_empty() {
            return;
        }
        let n = among[self.random.index(among.len())];
        let weights: Vec<u64> = AIMED.iter().map(|row| row.1).collect();
        let Some(fault) = AIMED[self.random.weighted(&weights)].0 else { return self.orphan() };
        let ms = self.some_while();
        match fault {
            Fault::Crash => self.down_for(n, fault, ms),
            Fault::CrashAll => (0..self.nodes.len()).for_each(|n| self.down_for(n, fault, ms)),
            Fault::LostDisk => self.lose_disk(n, false),
            Fault::Death => self.lose_for_good(n, false),
            Fault::CutOff | Fault::Unheard | Fault::Deaf => self.cut_one(n, fault, ms),
            Fault::Pause => self.pause(n, ms),
            Fault::Forget => {}
        }
    }

    /// Mostly short; sometimes so long that a fill stands still, a voter is replaced, or a peer is given up as absent.
    fn some_while(&mut self) -> u64 {
        match self.random.weighted(&[10, 7, 2, 1]) {
            0 => self.random.within(2, 150),
            1 => self.random.within(150, 4_000),
            2 => self.random.within(31_000, 45_000),
            _ => self.random.within(61_000, 75_000),
        }
    }

    fn down_for(&mut self, n: usize, fault: Fault, ms: u64) {
        if self.nodes[n].process.is_none() {
            return;
        }
        self.meets(n, fault);
        self.crash(n, None);
        self.nodes[n].down_by = Some(fault);
        let boot = self.nodes[n].boot;
        self.agenda.at(self.now + ms, Event::Start { node: n, boot });
    }

    /// A process stands still for a while: what comes waits, and to it no time has passed.
    fn pause(&mut self, n: usize, ms: u64) {
        self.oracle.coverage.hit("process: paused");
        self.meets(n, Fault::Pause);
        self.trace.say(self.now, || format!("node{} stands still for {ms} ms", n + 1));
        self.nodes[n].paused_until_ms = self.nodes[n].paused_until_ms.max(self.now + ms);
    }

    /// All that serve some partition die for good, most likely of one that somebody just leaves; after a while the
    /// operator gives them up.
    fn orphan(&mut self) {
        let Some(map) = self.newest().cloned() else { return };
        let left: Vec<_> = map.rows.iter().filter(|row| row.peers.values().any(|peer| peer.is_leaving())).collect();
        let rows: Vec<_> = if left.is_empty() { map.rows.iter().collect() } else { left };
        let row = rows[self.random.index(rows.len())];
        let serves = |n: &usize| {
            let mut peers = row.peers.values().filter(|peer| peer.serves());
            peers.any(|peer| self.nodes[*n].incarnation == Some(peer.incarnation))
        };
        let victims: Vec<usize> = (0..self.nodes.len()).filter(serves).collect();
        for n in victims {
            self.lose_for_good(n, true);
        }
        let when = self.now + self.random.within(200, 20_000);
        self.agenda.at(when, Event::Word);
        // An operator who sees no answer says it again, while the first word may be on its way.
        self.agenda.at(when + 50 + self.now % 2_000, Event::Word);
    }
}
