//! What holds of every map of a walk, and between two of them.

use super::*;

impl World {
    /// Where a live peer serves, a live one does under the next map, too.
    pub(super) fn check_served(&self, next: &ClusterMap) -> Result<(), String> {
        let live = self.live();
        let serves = |stay: &Stay| {
            stay.serves() && live.contains(&stay.incarnation) && !next.forgotten.contains(&stay.incarnation)
        };
        for (partition, (was, row)) in self.map.rows.iter().zip(&next.rows).enumerate() {
            if was.peers.values().any(serves) && !row.peers.values().any(serves) {
                return Err(format!("partition {partition} has a live Serving peer and would have none that is live"));
            }
        }
        Ok(())
    }

    /// The replica of a stay, wherever its directory is.
    pub(super) fn replica(&self, partition: usize, stay: &Stay) -> Option<&Replica> {
        let disks = self.nodes.iter().flat_map(|node| [Some(&node.disk), node.right.as_ref()]).flatten();
        disks.filter(|disk| disk.incarnation == stay.incarnation).find_map(|disk| disk.replicas[partition].as_ref())
    }

    pub(super) fn check_closed(&self, partition: usize, was: &Row, row: &Row) -> Result<(), String> {
        if let Some(again) = row.peers.keys().find(|number| was.is_closed(**number)) {
            return Err(format!("partition {partition}: {again} is named again"));
        }
        for (number, stay) in &was.peers {
            let closed = !row.peers.contains_key(number) && !stay.lost && !stay.is_joining();
            let Some(replica) = self.replica(partition, stay).filter(|_| closed) else { continue };
            let own = replica.vector.get(number).map(|seq| (*number, *seq)).into_iter().collect();
            for (other, peer) in row.peers.iter().filter(|(other, s)| !s.is_leaving() && was.peers.contains_key(other))
            {
                if self.replica(partition, peer).is_some_and(|replica| !has(&replica.vector, &own)) {
                    return Err(format!("partition {partition}: {number} is closed, but {other} lacks writes of it"));
                }
            }
        }
        Ok(())
    }

    /// Whoever serves under this map holds all that was found stable.
    pub(super) fn check_stable(&self) -> Result<(), String> {
        for (partition, row) in self.map.rows.iter().enumerate() {
            for node in &self.nodes {
                let current = node.disk.map.rows[partition].version == row.version;
                let serves = node.own(partition).iter().any(|(_, stay)| stay.serves());
                let replica = node.disk.replicas[partition].as_ref();
                if current && serves && replica.is_some_and(|r| !has(&r.vector, &self.stable[partition])) {
                    return Err(format!("partition {partition}: a peer serves without what was stable"));
                }
            }
        }
        Ok(())
    }
}
