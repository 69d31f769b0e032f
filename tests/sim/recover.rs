//! Most voters are gone for good, and an operator goes on without them.
//!
//! What only they had is lost; nothing else is. The operator sees to it that everybody else is up and reached before it
//! gives the word: whoever was given up and lives on under the old map is on a branch of its own, and of that the tests
//! of the machine tell.

use entail::machine::message::Wanted;
use entail::types::Incarnation;

use crate::event::Event;
use crate::world::World;

/// How long an operator waits until it looks again, in milliseconds.
const LOOK_MS: u64 = 2_000;

/// How long the nodes may take to agree, in milliseconds.
const BUDGET_MS: u64 = 10_000;

impl World {
    /// Most voters die, and their disks with them, and never come back.
    pub fn lose_the_majority(&mut self) {
        let Some(map) = self.newest().cloned() else { return };
        if self.recovering || self.quorum_is_lost() {
            return;
        }
        let mut victims: Vec<usize> = (0..self.nodes.len()).filter(|n| self.is_voter(*n)).collect();
        for at in (1..victims.len()).rev() {
            victims.swap(at, self.random.index(at + 1));
        }
        victims.truncate(map.voters.len().div_ceil(2));
        let known = |n: &usize| self.nodes.iter().any(|node| node.knows == Some(*n));
        // Where nobody is left who was a member, the store is lost, and no word helps.
        let left = (0..self.nodes.len()).any(|n| !victims.contains(&n) && self.is_member(n));
        if victims.iter().any(known) || !left {
            return;
        }
        self.oracle.coverage.hit("disk: the majority lost for good");
        for n in victims {
            self.trace.say(self.now, || format!("node{} is gone for good, and with it the majority", n + 1));
            self.crash(n, None);
            self.lose_copies(n, None, "a lost disk");
            self.wipe(n);
            self.nodes[n].dead = true;
        }
        let when = self.now + self.random.within(100, 20_000);
        self.agenda.at(when, Event::Recover);
    }

    /// Whether the newest map that a node acted under, which its disk still has, names it.
    fn is_member(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let map = self.maps.get(&node.epoch).zip(node.incarnation);
        !node.dead && map.is_some_and(|(map, mine)| map.address_of(mine).is_some())
    }

    fn is_voter(&self, n: usize) -> bool {
        let voters = self.newest().map(|map| map.voters.as_slice()).unwrap_or_default();
        let mine: Option<Incarnation> = self.nodes[n].incarnation;
        !self.nodes[n].dead && mine.is_some_and(|mine| voters.contains(&mine))
    }

    /// The operator sees to it that everybody is there, and gives its word; again until it is done.
    pub fn recover(&mut self) {
        self.recovering = self.quorum_is_lost();
        if self.quiet || !self.recovering {
            return;
        }
        self.heal_cut(self.network.cuts);
        self.network.cuts += 1;
        if self.all_are_there() {
            self.ask_change_anywhere(Wanted::Recover { confirmed: true }, BUDGET_MS);
            self.agenda.at(self.now + BUDGET_MS + LOOK_MS, Event::Recover);
        } else {
            self.agenda.at(self.now + LOOK_MS, Event::Recover);
        }
    }

    /// Everybody runs who has not gone for good and ever ran.
    pub fn all_are_up(&self) -> bool {
        self.nodes.iter().all(|node| node.dead || node.process.is_some() || node.incarnation.is_none())
    }

    /// … and all hear each other.
    pub fn all_are_there(&self) -> bool {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].process.is_some()).collect();
        let view = |n: usize| self.machine(n).view(self.nodes[n].clocks(self.now)).len();
        let linked = |a: usize| up.iter().all(|b| a == *b || self.is_linked(a, *b));
        let members = |n: usize| {
            let map = self.machine(n).map();
            up.iter().filter(|m| map.present().any(|node| *node == self.nodes[**m].addr)).count()
        };
        self.all_are_up() && !up.is_empty() && up.iter().all(|n| linked(*n) && view(*n) == members(*n))
    }
}
