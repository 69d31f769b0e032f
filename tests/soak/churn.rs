//! What happens to the nodes meanwhile: kill -9, restarts, reshards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;
use crate::harness::Cluster;

/// So many nodes, from the first on, are never killed.
const SPARED: usize = 2;

/// How long a killed node stays down.
const DOWN: Duration = Duration::from_secs(8);

/// A reshard is done within this time, asked for again where a node that it needs is down.
const RESHARDED_WITHIN: Duration = Duration::from_secs(120);

/// What is to come.
pub struct Churn {
    nodes: Vec<String>,
    kill_every: Duration,
    reshard_every: Duration,
    next_kill: Duration,
    next_reshard: Duration,
    down: Option<(usize, Duration)>,
    shards: u32,
    reshard: Option<JoinHandle<()>>,
    resharding: Arc<AtomicBool>,
    reshards: Arc<AtomicU32>,
    kills: u32,
}

impl Churn {
    /// For a soak of this length.
    pub fn new(nodes: &[String], length: Duration) -> Self {
        let kill_every = Duration::from_secs(60).min(length / 4);
        let reshard_every = Duration::from_secs(240).min(length / 3);
        Self {
            nodes: nodes.to_vec(),
            kill_every,
            reshard_every,
            next_kill: kill_every / 2,
            next_reshard: reshard_every / 2,
            down: None,
            shards: 2,
            reshard: None,
            resharding: Arc::default(),
            reshards: Arc::default(),
            kills: 0,
        }
    }

    /// Does what is due.
    pub fn act(&mut self, cluster: &mut Cluster, now: Duration) {
        for node in 0..cluster.nodes.len() {
            let ended = cluster.ended(node);
            assert!(ended.is_none(), "{} ended by itself: {ended:?}", cluster.nodes[node]);
        }
        if let Some((node, until)) = self.down
            && now >= until
        {
            cluster.restart(node);
            self.down = None;
        }
        if now >= self.next_kill && self.down.is_none() {
            let node = SPARED + self.kills as usize % (cluster.nodes.len() - SPARED);
            cluster.kill(node);
            self.down = Some((node, now + DOWN.min(self.kill_every / 2)));
            self.kills += 1;
            self.next_kill += self.kill_every;
        }
        if now >= self.next_reshard && !self.is_resharding() {
            self.wait();
            self.shards = if self.shards == 2 { 3 } else { 2 };
            self.next_reshard += self.reshard_every;
            self.reshard = Some(self.start_reshard());
        }
    }

    /// The number of shards that was last asked for.
    pub fn shards(&self) -> u32 {
        self.shards
    }

    pub fn is_resharding(&self) -> bool {
        self.resharding.load(Ordering::Relaxed)
    }

    /// Waits until everything is back; how many nodes were killed, and reshards done.
    pub fn end(mut self, cluster: &mut Cluster) -> (u32, u32) {
        if let Some((node, _)) = self.down {
            cluster.restart(node);
        }
        cluster.wait_ready();
        self.wait();
        (self.kills, self.reshards.load(Ordering::Relaxed))
    }

    fn wait(&mut self) {
        if let Some(reshard) = self.reshard.take() {
            reshard.join().expect("a reshard is done in time");
        }
    }

    fn start_reshard(&self) -> JoinHandle<()> {
        let (node, shards) = (self.nodes[0].clone(), self.shards);
        let (resharding, reshards) = (Arc::clone(&self.resharding), Arc::clone(&self.reshards));
        resharding.store(true, Ordering::Relaxed);
        std::thread::spawn(move || {
            let until = Instant::now() + RESHARDED_WITHIN;
            loop {
                let path = "/key-value-store-shard/reshard";
                let answer = Client::patient().change("PUT", &node, path, &json!({ "shard-count": shards }));
                match answer {
                    Ok(answer) if answer.status == 200 => break,
                    // Too few live nodes for three shards while one is down, or the last try is still under way.
                    Ok(answer) => assert!(matches!(answer.status, 400 | 409 | 503), "{answer:?}"),
                    Err(error) => panic!("{node} is never killed, but: {error}"),
                }
                assert!(Instant::now() < until, "no reshard to {shards} in {RESHARDED_WITHIN:?}");
                std::thread::sleep(Duration::from_secs(1));
            }
            reshards.fetch_add(1, Ordering::Relaxed);
            resharding.store(false, Ordering::Relaxed);
        })
    }
}
