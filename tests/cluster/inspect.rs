//! The map of a node, as people with grpcurl see it.

use std::collections::BTreeSet;

use entail::wire::proto::get_map_reply::{Node, Peer};
use entail::wire::proto::inspect_client::InspectClient;
use entail::wire::proto::{GetMapReply, GetMapRequest, PeerState};

/// A node's map.
pub struct Map(GetMapReply);

impl Map {
    /// The map that the node acts under; `None` when it does not answer.
    pub fn of(node: &str) -> Option<Self> {
        let (host, port) = node.rsplit_once(':').expect("an address has a port");
        let port: u16 = port.parse().expect("a port is a number");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut client = InspectClient::connect(format!("http://{host}:{}", port + 1000)).await.ok()?;
            Some(Self(client.get_map(GetMapRequest { partition: None }).await.ok()?.into_inner()))
        })
    }

    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// The voters' addresses, ascending: the first live one proposes.
    pub fn voters(&self) -> Vec<&str> {
        let votes = |node: &&Node| self.0.voters.contains(&node.incarnation);
        self.0.nodes.iter().filter(votes).map(|node| node.address.as_str()).collect()
    }

    /// By partition, the nodes in this state, in order of their stays.
    pub fn peers(&self, state: PeerState) -> Vec<Vec<&str>> {
        self.0.rows.iter().map(|row| nodes_in(&row.peers, state)).collect()
    }

    /// Nobody joins or leaves, and no other layout is wanted.
    pub fn is_settled(&self) -> bool {
        let mut peers = self.0.rows.iter().flat_map(|row| &row.peers);
        !self.is_changing() && peers.all(|peer| peer.state() == PeerState::Serving)
    }

    /// Another layout is wanted.
    pub fn is_changing(&self) -> bool {
        self.0.target.is_some()
    }

    /// The shard of each partition.
    fn shards(&self) -> Vec<u32> {
        self.0.rows.iter().map(|row| row.shard).collect()
    }

    /// What it took to get from an earlier map to this one.
    pub fn moved_since(&self, before: &Map) -> Moved {
        let (then, now) = (before.shards(), self.shards());
        let changed = then.iter().zip(&now).filter(|(then, now)| then != now).count();
        let kept: usize = sizes(&then).iter().zip(sizes(&now)).map(|(then, now)| now.min(*then)).sum();
        let (served, serving) = (before.peers(PeerState::Serving), self.peers(PeerState::Serving));
        let new = |(now, then): (&Vec<&str>, &Vec<&str>)| now.iter().filter(|node| !then.contains(*node)).count();
        let copies = serving.iter().zip(&served).map(new).sum();
        let stays = |map: &Map| map.0.rows.iter().map(|row| row.next_stay as usize).sum::<usize>();
        Moved { changed, least: now.len() - kept, copies, joined: stays(self) - stays(before) }
    }
}

fn nodes_in(peers: &[Peer], state: PeerState) -> Vec<&str> {
    peers.iter().filter(|peer| peer.state() == state).map(|peer| peer.node.as_str()).collect()
}

/// How many partitions each shard has, the largest first.
fn sizes(shards: &[u32]) -> Vec<usize> {
    let ids: BTreeSet<u32> = shards.iter().copied().collect();
    let mut sizes: Vec<usize> = ids.iter().map(|id| shards.iter().filter(|shard| *shard == id).count()).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes
}

/// What moved between two maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Partitions whose shard changed.
    pub changed: usize,
    /// The fewest that could, with shards of these sizes.
    pub least: usize,
    /// Replicas that serve now on a node that had none.
    pub copies: usize,
    /// Stays that were given out: each is one fill of one partition.
    pub joined: usize,
}
