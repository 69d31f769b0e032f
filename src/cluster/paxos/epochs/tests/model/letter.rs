//! Maps and messages of the model, written so that states can be compared and counted.

use std::hash::{Hash, Hasher};

use super::*;

/// A map or a step to one, told from others by what was drawn for it, and by the line of attempts that it comes from.
#[derive(Clone)]
pub struct Named<T>(pub Arc<T>);

pub type Map = Named<ClusterMap>;
pub type Step = Named<MapDelta>;

/// Where the name stands.
pub trait Carrier {
    fn carrier(&self) -> &ClusterMap;
}

impl Carrier for ClusterMap {
    fn carrier(&self) -> &ClusterMap {
        self
    }
}

impl Carrier for MapDelta {
    fn carrier(&self) -> &ClusterMap {
        &self.changed
    }
}

impl<T: Carrier> Named<T> {
    pub fn key(&self) -> (u64, u128, &str) {
        let map = self.0.carrier();
        let name = map.target.as_ref().map_or("", |target| &target.name);
        (map.epoch.0, map.cluster_id.0, name)
    }
}

impl<T: Carrier> PartialEq for Named<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T: Carrier> Eq for Named<T> {}

impl<T: Carrier> PartialOrd for Named<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Carrier> Ord for Named<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T: Carrier> Hash for Named<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl<T: Carrier> std::fmt::Debug for Named<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} voters {:?}", self.key(), self.0.carrier().voters)
    }
}

/// A message on its way; refusals are none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Letter {
    pub to: usize,
    pub from: usize,
    pub sender: u128,
    pub epoch: u64,
    pub ballot: (u64, u128),
    pub said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Said {
    Prepare,
    Promise(Option<((u64, u128), Step)>),
    Accept(Step),
    Accepted,
}

pub fn pair(ballot: Ballot) -> (u64, u128) {
    (ballot.round, ballot.proposer)
}

/// Writes a message down.
pub fn write(to: usize, from: usize, sender: u128, message: PaxosMessage) -> Option<Letter> {
    let (epoch, ballot, said) = match message {
        PaxosMessage::Prepare { epoch, ballot } => (epoch, ballot, Said::Prepare),
        PaxosMessage::Promise { epoch, ballot, accepted, .. } => {
            (epoch, ballot, Said::Promise(accepted.map(|(under, next)| (pair(under), Named(next)))))
        }
        PaxosMessage::Accept { epoch, ballot, next } => (epoch, ballot, Said::Accept(Named(next))),
        PaxosMessage::Accepted { epoch, ballot, .. } => (epoch, ballot, Said::Accepted),
        PaxosMessage::Rejected { .. } => return None,
    };
    Some(Letter { to, from, sender, epoch: epoch.0, ballot: pair(ballot), said })
}

/// Reads it again.
pub fn read(letter: Letter, bounds: &Bounds) -> PaxosMessage {
    let (epoch, acceptor) = (Epoch(letter.epoch), Incarnation(letter.sender));
    let ballot = |(round, proposer)| Ballot { round, proposer };
    let under = ballot;
    let ballot = ballot(letter.ballot);
    match letter.said {
        Said::Prepare => PaxosMessage::Prepare { epoch, ballot },
        Said::Promise(accepted) => {
            let accepted = accepted.filter(|_| !bounds.is_broken(Broken::NeverAdopts));
            let accepted = accepted.map(|(pair, next)| (under(pair), next.0));
            PaxosMessage::Promise { epoch, ballot, acceptor, accepted }
        }
        Said::Accept(next) => PaxosMessage::Accept { epoch, ballot, next: next.0 },
        Said::Accepted => PaxosMessage::Accepted { epoch, ballot, acceptor },
    }
}
