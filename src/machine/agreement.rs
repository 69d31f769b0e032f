//! Why what an operator asked for is not done; and what nodes say to each other, and to the operator, of a recovery by
//! force and of a birth without a node.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::change::ChangeError;
use crate::cluster::recover::RecoverError;
use crate::types::{NodeAddr, ShardId};

/// Why a node does not agree to a recovery. It has done nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// It hears a majority of the voters.
    #[error("hears a majority of the voters")]
    QuorumLives,
    /// It hears a node that would be given up.
    #[error("hears {0}, which would be given up")]
    Hears(NodeAddr),
    /// It has agreed to another one lately.
    #[error("has agreed to another recovery a moment ago")]
    Another,
}

/// What a recovery gives up, as far as the node that is asked can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryCost {
    /// The nodes that do not answer.
    pub silent: Vec<NodeAddr>,
    /// How many partitions nobody else holds: their keys are lost.
    pub partitions: u32,
    /// … of how many in all.
    pub of: u32,
    /// Writes of other partitions that only these nodes are known to hold.
    pub writes: u64,
}

impl fmt::Display for RecoveryCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.silent.as_slice() {
            [] => write!(f, "All nodes answer, but a majority of the voters has lost its disks; none is given up")?,
            nodes => write!(f, "This gives up {} for ever, with all that only they have", list(nodes))?,
        }
        match (self.partitions, self.writes) {
            (0, 0) => write!(f, ": nothing that is known of"),
            (0, writes) => write!(f, ": {writes} writes that are known of"),
            (lost, 0) => write!(f, ": all keys of {lost} of {} partitions", self.of),
            (lost, writes) => {
                write!(f, ": all keys of {lost} of {} partitions, and {writes} writes of the others", self.of)
            }
        }
    }
}

/// Why a recovery by force is not done. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecovered {
    /// There is nothing to recover, or it can't be.
    #[error(transparent)]
    Refused(#[from] RecoverError),
    /// The operator is to confirm first.
    #[error("{0}; repeat with \"confirm\":true")]
    Unconfirmed(Box<RecoveryCost>),
    /// Other nodes hear these, and this one does not.
    #[error("{} can be reached from other nodes but not from here; ask a node that reaches all", list(.0))]
    HeardElsewhere(Vec<NodeAddr>),
    /// Not every node that answers has agreed.
    #[error("{}", not_agreed(.against, .waiting))]
    NotAgreed {
        /// Who is against it, and why.
        against: BTreeMap<NodeAddr, Disagreement>,
        /// Who has not said anything.
        waiting: Vec<NodeAddr>,
    },
}

/// Why the store is not born without a node. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBorn {
    /// There is a store.
    #[error("The store is born already; a node that never comes back is given up with entail forget")]
    Born,
    /// The node is not one of those to start with.
    #[error("{0} is not one of the nodes in VIEW")]
    NotInView(NodeAddr),
    /// The node is there.
    #[error("{0} is up; a node that is up can't be left out")]
    IsUp(NodeAddr),
    /// Nobody could tell one store from another.
    #[error("Of two nodes none can be left out; start both again with another VIEW")]
    OnlyTwo,
    /// Others are missing too, or were started with other settings.
    #[error("The store can't be born without that node alone: {0}")]
    Waiting(String),
    /// The operator is to confirm first.
    #[error(
        "The store begins without {node}, and shard {shard} with {left} {}; should it come up later it is filled, and a \
         member as any other; repeat with \"confirm\":true",
        if *.left == 1 { "node" } else { "nodes" }
    )]
    Unconfirmed {
        /// The node.
        node: NodeAddr,
        /// The shard in which it has its place.
        shard: ShardId,
        /// How many members the shard begins with.
        left: usize,
    },
    /// The nodes have not agreed in time; they may yet.
    #[error("The nodes have not agreed on the first map in time; look at /readyz, and try again")]
    TimeOut,
}

/// Why a change was not made, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// The map can't change so. Nothing was done.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// No majority of the voters answers: these are waited for. Nothing is known to be done.
    #[error("No quorum; waiting for {}", waited_for(.0))]
    NoQuorum(Vec<NodeAddr>),
    /// The node that was to be admitted does not answer. Nothing was done.
    #[error("{0} does not answer; see that it runs and is reached from here")]
    Silent(NodeAddr),
    /// The node that was to be admitted answers, and is no node for this store. Nothing was done.
    #[error("{node} can't be a node of this store: {why}")]
    TurnedAway {
        /// The node.
        node: NodeAddr,
        /// Why, in a sentence.
        why: String,
    },
    /// The change was undone before it was at its end.
    #[error("The change was cancelled before it was done")]
    Cancelled,
    /// Nothing has moved for a minute; the work goes on.
    #[error("No progress for 60 seconds; the work goes on, see GET /key-value-store-shard/reshard")]
    Stalled,
    /// The operator is to confirm first. Nothing was done.
    #[error("This may lose {0} writes that only this node holds; repeat with \"confirm\":true")]
    Unconfirmed(u64),
    /// The same, where disks are missing that the node had before. Nothing was done.
    #[error(
        "This may lose {0} writes that only the disk held which this node has lost; what it has now is kept; repeat \
         with \"confirm\":true"
    )]
    UnconfirmedDisk(u64),
    /// The store is not born without a node.
    #[error(transparent)]
    NotBorn(#[from] NotBorn),
    /// The store was not recovered by force.
    #[error(transparent)]
    NotRecovered(#[from] NotRecovered),
    /// Too many changes are asked of this node at once. Nothing was done.
    #[error("Too many changes are under way; try again later")]
    TooMany,
    /// This node stops. The change may have been made.
    #[error("This node is stopping, and the change may have been made; ask another node")]
    Stopping,
}

fn waited_for(nodes: &[NodeAddr]) -> String {
    if nodes.is_empty() {
        return "the voters to agree".to_owned();
    }
    list(nodes)
}

fn list(nodes: &[NodeAddr]) -> String {
    nodes.iter().map(NodeAddr::as_str).collect::<Vec<_>>().join(", ")
}

fn not_agreed(against: &BTreeMap<NodeAddr, Disagreement>, waiting: &[NodeAddr]) -> String {
    let mut said: Vec<String> = against.iter().map(|(node, why)| format!("{node} {why}")).collect();
    said.extend(waiting.iter().map(|node| format!("{node} has not answered")));
    if said.is_empty() {
        said.push("the nodes are not of one mind yet".to_owned());
    }
    format!("Not every node that is up agrees: {}; try again", said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_told_in_one_sentence() {
        let silent = vec!["node1:80".parse().unwrap(), "node2:80".parse().unwrap()];
        let told = |silent: &[NodeAddr], partitions, writes| {
            RecoveryCost { silent: silent.to_vec(), partitions, of: 8, writes }.to_string()
        };
        let gives_up = "This gives up node1:80, node2:80 for ever, with all that only they have";
        assert_eq!(told(&silent, 0, 0), format!("{gives_up}: nothing that is known of"));
        assert_eq!(told(&silent, 0, 3), format!("{gives_up}: 3 writes that are known of"));
        assert_eq!(told(&silent, 4, 0), format!("{gives_up}: all keys of 4 of 8 partitions"));
        assert_eq!(
            told(&silent, 4, 3),
            format!("{gives_up}: all keys of 4 of 8 partitions, and 3 writes of the others")
        );
        assert!(told(&[], 0, 0).starts_with("All nodes answer"));
    }

    #[test]
    fn who_does_not_agree_is_named() {
        let against = [("node1:80".parse().unwrap(), Disagreement::Another)].into();
        let waiting = vec!["node2:80".parse().unwrap()];
        assert_eq!(
            NotRecovered::NotAgreed { against, waiting }.to_string(),
            "Not every node that is up agrees: node1:80 has agreed to another recovery a moment ago; node2:80 has not \
             answered; try again"
        );
    }
}
