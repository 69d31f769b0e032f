//! What an operator should know of a node and of the store as it sees it: a sentence each, for `/status`; and of these,
//! for the log, what is wrong with the settings.

use super::message::Effect;
use super::{Io, Machine};
use crate::types::{NodeAddr, Now, ShardId};

impl Machine {
    /// Says in the log what keeps the store from being born, and which settings differ: each when it comes to be so.
    pub(super) fn log_settings(&mut self, io: &mut Io<'_>) {
        let mut lines = Vec::new();
        if self.map.is_born() {
            self.warn_of_settings(&mut lines);
        } else {
            lines.extend(self.not_ready_to_be_born(None));
        }
        let logged = std::mem::replace(&mut self.logged, lines.into_iter().collect());
        io.effects.extend(self.logged.difference(&logged).cloned().map(Effect::Warn));
    }

    pub(super) fn warnings(&self, now: Now) -> Vec<String> {
        if !self.map.is_born() {
            return self.not_ready_to_be_born(None).into_iter().collect();
        }
        let mut warnings = Vec::new();
        self.warn_of_self(&mut warnings, now);
        self.warn_of_shards(&mut warnings, now);
        self.warn_of_settings(&mut warnings);
        self.warn_of_builds(&mut warnings);
        warnings
    }

    fn warn_of_self(&self, warnings: &mut Vec<String>, now: Now) {
        if let Err(reason) = self.readiness(now) {
            warnings.push(reason);
        }
        if self.clock_ahead {
            warnings.push("this node's wall clock is more than a minute ahead of every peer: it is ignored".to_owned());
        }
        if self.is_full() {
            warnings.push("the disk is full: free space in DATA_DIR or add nodes".to_owned());
        }
    }

    fn warn_of_shards(&self, warnings: &mut Vec<String>, now: Now) {
        let view = self.view(now);
        for (at, members) in self.map.layout.shards.iter().enumerate() {
            let shard = ShardId(at as u32 + 1);
            let up: Vec<&NodeAddr> = members.iter().filter(|node| view.contains(node)).collect();
            match up.as_slice() {
                [] => warnings.push(format!("shard {shard} has no live node: its keys can't be read or written")),
                [one] => warnings.push(format!("shard {shard} is degraded: {one} is its only live node")),
                _ => {}
            }
        }
        let silent = self.silent_voters();
        if !silent.is_empty() {
            let names: Vec<&str> = silent.iter().map(NodeAddr::as_str).collect();
            let locked = if silent.len() * 2 >= self.map.voters.len() {
                "; until a majority is there, no view, shard or reshard can change"
            } else {
                ""
            };
            warnings.push(format!("voters out of reach: {}{locked}", names.join(", ")));
        }
        let (other, _) = self.on_other_lines(now.mono_ms);
        if !other.is_empty() {
            let names: Vec<&str> = other.into_iter().map(NodeAddr::as_str).collect();
            warnings.push(format!(
                "{} are on another branch of this store since a recovery by force: nothing they say is taken; keep one \
                 branch, and start the nodes of the other with empty data directories",
                names.join(", ")
            ));
        }
        for (incarnation, node) in &self.map.former {
            let stays = self.map.rows.iter().flat_map(|row| row.peers.values());
            let held = stays.filter(|stay| stay.incarnation == *incarnation).count();
            if held > 0 {
                warnings.push(format!(
                    "{node} lost its data directory with {held} partitions; where nobody else has them they wait for \
                     that directory, or for entail forget {node}"
                ));
            }
        }
    }

    /// Settings that were of use before the birth and say something else than the map now.
    fn warn_of_settings(&self, warnings: &mut Vec<String>) {
        let (map, config) = (&self.map, &self.config);
        let shards = map.layout.shards.len();
        if let Some(count) = config.shard_count.filter(|count| *count as usize != shards) {
            warnings
                .push(format!("SHARD_COUNT is {count} here, but the store has {shards} shards; it is not looked at"));
        }
        if config.partitions != map.partitions() {
            let (here, there) = (config.partitions, map.partitions());
            warnings.push(format!("PARTITIONS is {here} here, but the store has {there}, for ever"));
        }
        let differs = config.view.len() != map.nodes.len() || config.view.iter().any(|n| !map.nodes.contains_key(n));
        if differs {
            warnings.push("VIEW names other nodes here than the store has; it is not looked at".to_owned());
        }
        for (node, link) in &self.links {
            let there = link.settings_hash.filter(|_| map.nodes.contains_key(node));
            if there.is_some_and(|hash| hash != self.settings_hash) {
                warnings.push(format!("{node} started with another VIEW, SHARD_COUNT or PARTITIONS than this node"));
            }
        }
    }
}
