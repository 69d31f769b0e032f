//! kill -9 in the middle of a reshard: of a source, of a target, of the proposer, at each step of a partition's way.
//!
//! Nine cases on one store, one after the other, with sessions that go on through all of them. In every other case the
//! killed node is started again at once; in those between, three shards become two, which five nodes are enough for, and
//! it stays dead until the case is over.
//!
//! ```console
//! ENTAIL_DEATHS_KEYS=200000 ENTAIL_DEATHS_SESSIONS=32 \
//!   cargo test --release --test cluster -- --ignored --nocapture deaths::
//! ```

use std::time::{Duration, Instant};

use entail::wire::proto::PeerState;

use crate::changes::{HEARD_WITHIN, SHARD, field, reshard, reshard_behind};
use crate::client::Client;
use crate::harness::{Cluster, wait_until};
use crate::inspect::Map;
use crate::keys::Keys;
use crate::sessions::{Outcome, Sessions};

/// `ENTAIL_DEATHS_KEYS` says otherwise. Nodes give so many of them as fills in the same time.
const KEYS: usize = 20_000;

/// `ENTAIL_DEATHS_SESSIONS` says otherwise.
const SESSIONS: usize = 8;

/// By then it is done, or everything is back where it was.
const DECIDED_WITHIN: Duration = Duration::from_secs(30);

/// Nobody dies here who was asked for the reshard.
const ASKED: usize = 5;

/// A number of the environment.
pub fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Source,
    Target,
    Proposer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Joining,
    SideBySide,
    Leaving,
}

/// In turn to three shards and to two. To three, a partition gets one new node, and the map that has it serve has the old
/// ones leave: only to two does any map show both serving.
const CASES: [(Victim, When); 9] = [
    (Victim::Source, When::Joining),
    (Victim::Source, When::SideBySide),
    (Victim::Source, When::Leaving),
    (Victim::Target, When::SideBySide),
    (Victim::Target, When::Joining),
    (Victim::Proposer, When::SideBySide),
    (Victim::Target, When::Leaving),
    (Victim::Proposer, When::Leaving),
    (Victim::Proposer, When::Joining),
];

struct Case {
    victim: Victim,
    when: When,
    /// The count that is wanted; with three, the killed node comes back.
    shards: u32,
}

/// What a map shows of a partition that is at this point of its way: who gives it, and who gets it.
fn under_way(when: When, before: &Map, now: &Map) -> Option<(String, String)> {
    let [joining, serving, leaving] =
        [PeerState::Joining, PeerState::Serving, PeerState::Leaving].map(|s| now.peers(s));
    let served = before.peers(PeerState::Serving);
    let mortal = |node: &&&str| !node.ends_with(&format!(".{}:8085", ASKED + 1));
    (0..served.len()).find_map(|at| {
        let new = serving[at].iter().filter(|node| !served[at].contains(*node)).find(mortal);
        let old = serving[at].iter().filter(|node| served[at].contains(*node)).find(mortal);
        let (source, target) = match when {
            When::Joining => (old?, joining[at].iter().find(mortal)?),
            When::SideBySide => (old.filter(|_| serving[at].len() > served[at].len())?, new?),
            When::Leaving => (leaving[at].iter().find(mortal)?, new?),
        };
        Some(((*source).to_owned(), (*target).to_owned()))
    })
}

impl Case {
    /// Waits for the moment; who is to die then.
    fn victim(&self, asked: &str, before: &Map) -> String {
        let until = Instant::now() + DECIDED_WITHIN;
        loop {
            let map = Map::of(asked).expect("it answers");
            if let Some((source, target)) = under_way(self.when, before, &map) {
                return match self.victim {
                    Victim::Source => source,
                    Victim::Target => target,
                    Victim::Proposer => map.voters()[0].to_owned(),
                };
            }
            assert!(Instant::now() < until, "{:?} was never seen", self.when);
        }
    }

    fn run(&self, cluster: &mut Cluster, from: &Outcome) -> Outcome {
        let (nodes, asked) = (cluster.nodes.clone(), cluster.nodes[ASKED].clone());
        let sessions = Sessions::go_on(&nodes, setting("ENTAIL_DEATHS_SESSIONS", SESSIONS), from, true);
        wait_until("the sessions are under way", DECIDED_WITHIN, || sessions.done() > 200);
        let before = Map::of(&asked).expect("it answers");
        let first = reshard_behind(&asked, self.shards);
        let victim = self.victim(&asked, &before);
        let number = nodes.iter().position(|node| *node == victim).expect("it is one of them");
        cluster.kill(number);
        let killed = Instant::now();
        let comes_back = self.shards == 3;
        if comes_back {
            cluster.restart(number);
        }
        wait_until("it is done, or given up", DECIDED_WITHIN, || Map::of(&asked).is_some_and(|map| !map.is_changing()));
        let outcome = field(&asked, &format!("{SHARD}/reshard"), "state");
        if outcome != "done" {
            let left = DECIDED_WITHIN.saturating_sub(killed.elapsed());
            wait_until("all is back where it was", left, || Map::of(&asked).is_some_and(|map| map.is_settled()));
        }
        let decided = killed.elapsed();
        let answer = first.join().expect("it is answered");
        assert_eq!(answer.status, if outcome == "done" { 200 } else { 503 }, "{answer:?}");
        cluster.wait_ready();
        let begin = Instant::now();
        let second = reshard(&asked, self.shards);
        assert_eq!(second.status, 200, "{second:?}");
        let second = begin.elapsed();
        let outcome_of_all = sessions.stop();
        let live: Vec<String> = nodes.iter().filter(|node| comes_back || **node != victim).cloned().collect();
        self.check(&live, &outcome_of_all);
        eprintln!(
            "{:<9} {:<11} {:>6} shards, {:<14} {:>9} in {:>5.1} s, again in {:>5.1} s, {:>6} requests, {:>4} repeated",
            format!("{:?}", self.victim),
            format!("{:?}", self.when),
            self.shards,
            if comes_back { "comes back" } else { "stays dead" },
            outcome.as_str().unwrap_or_default(),
            decided.as_secs_f64(),
            second.as_secs_f64(),
            outcome_of_all.requests.len(),
            outcome_of_all.repeated
        );
        if !comes_back {
            cluster.restart(number);
            cluster.wait_ready();
            wait_until("it is in the view again", DECIDED_WITHIN, || {
                cluster.view(ASKED).is_ok_and(|view| view.len() == nodes.len())
            });
            assert_eq!(reshard(&asked, self.shards).status, 200);
        }
        wait_until("all is where it is wanted", DECIDED_WITHIN, || Map::of(&asked).is_some_and(|map| map.is_settled()));
        outcome_of_all
    }

    /// Nothing was answered wrongly, nothing is lost, and all nodes know of the same shards.
    fn check(&self, live: &[String], outcome: &Outcome) {
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        let ids: Vec<u32> = (1..=self.shards).collect();
        for node in live {
            wait_until("every node knows of the shards", HEARD_WITHIN, || {
                let answer = Client::new().ask(node, &format!("{SHARD}/shard-ids"));
                answer.is_ok_and(|answer| answer.json["shard-ids"] == serde_json::json!(ids))
            });
        }
        std::thread::sleep(HEARD_WITHIN);
        let wrong = outcome.keys.wrong(live);
        assert!(wrong.is_empty(), "{} keys are lost: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }
}

#[test]
#[ignore = "takes minutes; a stage of its own in .ci/run"]
fn nodes_are_killed_in_the_middle_of_a_reshard() {
    let keys = setting("ENTAIL_DEATHS_KEYS", KEYS);
    // So slowly that there is time to kill somebody in between.
    let mut cluster = Cluster::start_with(6, 2, &[("FILL_MIB_S", &keys.div_ceil(KEYS).to_string())]);
    let mut outcome = Outcome::of(Keys::write(&cluster.nodes, keys, 600));
    let mut shards = 2;
    for (victim, when) in CASES {
        shards = 5 - shards;
        outcome = Case { victim, when, shards }.run(&mut cluster, &outcome);
    }
}
