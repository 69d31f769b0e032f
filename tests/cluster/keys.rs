//! Many keys, each with one writer at a time, and what each must hold by now.

use std::collections::BTreeMap;
use std::thread::scope;

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::load::Bounds;

/// Clients that write, or read, all of them at once.
const CLIENTS: usize = 32;

/// Numbered keys, and what each must at least hold and can at most.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    bounds: BTreeMap<usize, Bounds>,
    /// Bytes of each value, roughly.
    bytes: usize,
}

pub fn name(number: usize) -> String {
    format!("key{number}")
}

/// The number that an answer shows; 0 when there is none.
pub fn held(answer: &Answer) -> u64 {
    answer.json["value"]["number"].as_u64().unwrap_or_default()
}

impl Keys {
    /// Writes so many keys, with values of about so many bytes.
    pub fn write(nodes: &[String], count: usize, bytes: usize) -> Self {
        let bounds = (0..count).map(|number| (number, Bounds { acknowledged: 1, tried: 1 })).collect();
        let keys = Self { bounds, bytes };
        let value = keys.value(1);
        keys.each(|client, number, _| {
            let answer = client.put(&nodes[number % nodes.len()], &name(number), &value).expect("the node answers");
            assert!(answer.is_done(), "{answer:?}");
            None
        });
        keys
    }

    /// Reads every key back, at one node after the other, by clients who know nothing; what is wrong, in words.
    pub fn wrong(&self, nodes: &[String]) -> Vec<String> {
        self.wrong_at(nodes, 1)
    }

    /// The same, each at the node that is so many after the one that wrote it.
    pub fn wrong_at(&self, nodes: &[String], after: usize) -> Vec<String> {
        self.each(|client, number, bounds| {
            let node = &nodes[(number + after) % nodes.len()];
            let answer = client.get(node, &name(number)).expect("the node answers");
            let wrong = answer.status != 200 || !bounds.admit(held(&answer));
            wrong.then(|| format!("{} at {node}: {answer:?}, but {bounds:?}", name(number)))
        })
    }

    /// Does this for every key, many at a time, each by itself; gives what is not `None`.
    fn each(&self, act: impl Fn(&mut Client, usize, Bounds) -> Option<String> + Sync) -> Vec<String> {
        let act = &act;
        scope(|scope| {
            let run = |share: Keys| {
                let mut client = Client::new();
                let one = |(number, bounds): (usize, Bounds)| {
                    client.context.clear();
                    act(&mut client, number, bounds)
                };
                share.bounds.into_iter().filter_map(one).collect::<Vec<_>>()
            };
            let threads: Vec<_> =
                self.shares(CLIENTS).into_iter().map(|share| scope.spawn(move || run(share))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
        })
    }

    /// Each key in one of so many shares.
    pub fn shares(&self, count: usize) -> Vec<Keys> {
        let of = |at| self.bounds.iter().filter(move |(number, _)| *number % count == at);
        let share =
            |at| Self { bounds: of(at).map(|(number, bounds)| (*number, *bounds)).collect(), bytes: self.bytes };
        (0..count).map(share).collect()
    }

    pub fn value(&self, number: u64) -> Value {
        json!({ "number": number, "rest": "x".repeat(self.bytes) })
    }

    pub fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    pub fn extend(&mut self, others: Keys) {
        self.bounds.extend(others.bounds);
        self.bytes = others.bytes;
    }

    /// One of the keys, round and round.
    pub fn nth(&mut self, turn: usize) -> (usize, &mut Bounds) {
        let first = *self.bounds.keys().next().expect("there are keys");
        let (last, count) = (*self.bounds.keys().last().expect("there are keys"), self.bounds.len());
        let step = (last - first).checked_div(count - 1).unwrap_or(1);
        let number = first + turn % count * step;
        (number, self.bounds.get_mut(&number).expect("shares are evenly spaced"))
    }
}
