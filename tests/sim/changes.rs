//! Operators: they ask any node for more or fewer shards, members and nodes, and change their minds.

use entail::machine::agreement::NotChanged;
use entail::machine::message::{Input, RequestId, Wanted};
use entail::types::ShardId;

use crate::event::Event;
use crate::world::World;

impl World {
    /// An operator asks for something; the next time is planned.
    pub fn operator(&mut self) {
        if self.quiet || self.changes >= self.settings.changes {
            return;
        }
        self.changes += 1;
        let wanted = self.some_change();
        let budget_ms = self.random.pick(&[1_000, 5_000, 20_000]);
        self.ask_change_anywhere(wanted, budget_ms);
        let when = self.now + self.random.within(1, 2 * self.settings.change_gap_ms);
        self.agenda.at(when, Event::Operator);
    }

    fn some_change(&mut self) -> Wanted {
        let n = self.random.index(self.nodes.len());
        let node = self.nodes[n].addr.clone();
        let most = self.nodes.len() as u64 / 2 + 1;
        let missed = self.missed();
        if !missed.is_empty() && self.settings.faults.dead > 0 && self.random.percent(30) {
            let node = missed[self.random.index(missed.len())].clone();
            return Wanted::Forget { node, confirmed: true };
        }
        match self.random.weighted(&[6, 2, 1, 2, 1]) {
            0 => Wanted::Reshard(self.random.within(1, most) as u32),
            1 => Wanted::AddMember { shard: ShardId(self.random.within(1, most) as u32), node },
            2 => Wanted::Remove(node),
            3 => Wanted::Admit(node),
            _ => Wanted::Cancel,
        }
    }

    /// Asks some node that is up for a change.
    pub fn ask_change_anywhere(&mut self, wanted: Wanted, budget_ms: u64) -> Option<(usize, RequestId)> {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].process.is_some()).collect();
        let born: Vec<usize> = up.into_iter().filter(|n| self.machine(*n).map().is_born()).collect();
        if born.is_empty() {
            return None;
        }
        let n = born[self.random.index(born.len())];
        Some((n, self.ask_change(n, wanted, budget_ms)))
    }

    /// Asks a node that is up for a change.
    pub fn ask_change(&mut self, n: usize, wanted: Wanted, budget_ms: u64) -> RequestId {
        self.serial += 1;
        let id = self.serial;
        self.trace.say(self.now, || format!("an operator asks node{} for {wanted:?}", n + 1));
        self.process(n).changes.insert(id, wanted.clone());
        self.give(n, Input::Change { id, wanted, budget_ms });
        id
    }

    /// A node answers an operator.
    pub fn reply_change(&mut self, n: usize, id: RequestId, outcome: Result<u64, NotChanged>) {
        let Some(wanted) = self.process(n).changes.remove(&id) else {
            return self.fail(format!("node{} answers the change {id}, which waits no more: {outcome:?}", n + 1));
        };
        if let Err(NotChanged::Refused(why)) = &outcome {
            self.oracle.coverage.hit(format!("changes: refused: {why}"));
        }
        self.oracle.coverage.hit(match outcome {
            Ok(_) => match wanted {
                Wanted::Reshard(_) => "changes: resharded",
                Wanted::AddMember { .. } => "changes: member added",
                Wanted::Admit(_) => "changes: admitted",
                Wanted::Remove(_) => "changes: removed",
                Wanted::Forget { .. } => "changes: forgotten",
                Wanted::Cancel => "changes: undone",
                Wanted::Birth { .. } => "changes: born without a node",
                Wanted::Recover { .. } => "changes: recovered by force",
            },
            Err(NotChanged::Refused(_)) => "changes: refused",
            Err(NotChanged::NoQuorum(_)) => "changes: no quorum",
            Err(NotChanged::Silent(_) | NotChanged::TurnedAway { .. }) => "changes: silent",
            Err(NotChanged::NotBorn(_)) => "changes: not born",
            Err(NotChanged::NotRecovered(_)) => "changes: not recovered",
            Err(NotChanged::Cancelled) => "changes: cancelled",
            Err(NotChanged::Stalled) => "changes: stalled",
            Err(
                NotChanged::Unconfirmed(_)
                | NotChanged::UnconfirmedDisk(_)
                | NotChanged::TooMany
                | NotChanged::Stopping,
            ) => "changes: others",
        });
        self.changed.insert(id, outcome);
    }
}
