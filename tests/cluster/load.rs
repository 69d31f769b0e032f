//! Writers that count: each has its own keys and a session of its own, and knows what was acknowledged.
//!
//! A key's values only grow, so after any accident a key must hold the greatest acknowledged number or a greater one
//! that was tried after it (its outcome is unknown then). Anything less is a lost write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::harness::wait_until;

/// The contract gives replicas 2 s after the last write; a machine under load gets more.
const CONVERGED_WITHIN: Duration = Duration::from_secs(5);

/// What a key must at least hold, and what it can at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    pub acknowledged: u64,
    pub tried: u64,
}

/// What writers wrote.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// By key.
    keys: BTreeMap<String, Bounds>,
    /// What each writer's session has seen.
    contexts: BTreeMap<usize, String>,
}

/// Running writers.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Written>>,
}

impl Load {
    /// So many writers with `keys` keys each over these nodes, going on from what was written before.
    pub fn start(nodes: &[String], writers: usize, keys: usize, before: &Written) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |writer: usize| {
            let (nodes, before) = (nodes.to_vec(), before.clone());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || write(&nodes, writer, keys, &before, &stop, &done))
        };
        let writers = (0..writers).map(start).collect();
        Self { stop, done, writers }
    }

    /// Writes acknowledged so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the writers; what they wrote on top of what was before.
    pub fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for writer in self.writers {
            let written = writer.join().expect("a writer does not panic");
            all.keys.extend(written.keys);
            all.contexts.extend(written.contexts);
        }
        all
    }
}

fn write(
    nodes: &[String],
    writer: usize,
    keys: usize,
    before: &Written,
    stop: &AtomicBool,
    done: &AtomicU64,
) -> Written {
    let mut client = Client::new();
    client.context = before.contexts.get(&writer).cloned().unwrap_or_default();
    let mut written = Written::default();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = key_of(writer, turn % keys);
        let bounds =
            written.keys.entry(key.clone()).or_insert_with(|| before.keys.get(&key).copied().unwrap_or_default());
        bounds.tried += 1;
        match client.put(&nodes[(writer + turn) % nodes.len()], &key, &json!(bounds.tried)) {
            Ok(answer) if answer.is_done() => {
                bounds.acknowledged = bounds.tried;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => assert!(matches!(answer.status, 503 | 504), "a write was answered with {answer:?}"),
            // The node is down: the next one, after a moment, as clients do.
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    // A key that was not reached in this run is still what it was.
    for key in (0..keys).map(|key| key_of(writer, key)) {
        if let Some(bounds) = before.keys.get(&key) {
            written.keys.entry(key).or_insert(*bounds);
        }
    }
    written.contexts.insert(writer, client.context);
    written
}

fn key_of(writer: usize, key: usize) -> String {
    format!("writer{writer}-key{key}")
}

impl Written {
    /// At `node`, nothing that was acknowledged is missing: at once for the session that wrote it, and for everybody
    /// when the replicas have had the time to exchange what they have.
    pub fn check(&self, node: &str) {
        for (writer, context) in &self.contexts {
            let mut client = Client::new();
            client.context.clone_from(context);
            for (key, bounds) in self.keys.iter().filter(|(key, _)| key.starts_with(&format!("writer{writer}-"))) {
                let held = held(&mut client, node, key);
                assert!(bounds.admit(held), "{key} at {node}, asked by its writer: {held}, but {bounds:?}");
            }
        }
        let mut client = Client::new();
        for (key, bounds) in &self.keys {
            wait_until(&format!("{key} at {node} as acknowledged: {bounds:?}"), CONVERGED_WITHIN, || {
                client.context.clear();
                bounds.admit(held(&mut client, node, key))
            });
        }
    }

    /// How many keys hold something that was acknowledged.
    pub fn len(&self) -> usize {
        self.keys.values().filter(|bounds| bounds.acknowledged > 0).count()
    }
}

impl Bounds {
    pub fn admit(&self, value: u64) -> bool {
        (self.acknowledged..=self.tried).contains(&value)
    }
}

/// The number that a key holds; 0 when it has none.
fn held(client: &mut Client, node: &str, key: &str) -> u64 {
    let answer = client.get(node, key).unwrap_or_else(|error| panic!("{key} at {node}: {error}"));
    match answer.status {
        200 => answer.json["value"].as_u64().expect("a number was written"),
        404 => 0,
        _ => panic!("{key} at {node}: {answer:?}"),
    }
}
