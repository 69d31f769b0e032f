//! Every history of a few nodes: none decides two maps of one epoch, or one that does not follow, or ends where nothing
//! can be decided any more; and each rule taken away leaves one that does.

mod model;

use stateright::{Checker, HasDiscoveries, Model};

use super::Quorum;
use model::{Bounds, Broken};

/// Threads that go through histories.
const THREADS: usize = 2;

const TAKES_OVER: &str = "a map of another attempt is taken over";
const NEW_VOTER: &str = "a new voter proposes";
const TOO_EARLY: &str = "a question comes before its map";
const SPLIT: &str = "two proposals of one epoch are accepted";
const BOUND: &str = "who came back empty is bound";

/// One epoch, always the same three voters.
const MAJORITY: Bounds = Bounds {
    nodes: 3,
    born: &[0, 1, 2],
    birth: Quorum::All,
    last: 2,
    attempts: &[1, 1],
    voters: |_, _| &[0, 1, 2],
    crashes: 1,
    lost_disks: 0,
    broken: None,
    expected: &[TAKES_OVER, SPLIT],
    only: None,
};

/// Map 1.
const BIRTH: Bounds = Bounds {
    nodes: 2,
    born: &[],
    last: 1,
    crashes: 0,
    lost_disks: 1,
    voters: |_, _| &[0, 1],
    expected: &[TAKES_OVER],
    ..MAJORITY
};

/// Two epochs. The fourth node is no voter at first, and may take either the first one's place or the third's: so a
/// majority of the new voters need not meet one of the old.
const CHANGING: Bounds = Bounds {
    nodes: 4,
    last: 3,
    attempts: &[0, 1, 1, 1],
    voters: |epoch, proposer| if (epoch, proposer) == (2, 2) { &[0, 1, 3] } else { &[1, 2, 3] },
    crashes: 0,
    expected: &[TAKES_OVER, NEW_VOTER, TOO_EARLY, SPLIT],
    ..MAJORITY
};

/// Two epochs, two voters.
const TWO: Bounds = Bounds {
    nodes: 2,
    born: &[0, 1],
    last: 3,
    attempts: &[2, 1],
    voters: |_, _| &[0, 1],
    crashes: 0,
    lost_disks: 1,
    expected: &[TAKES_OVER, BOUND],
    ..MAJORITY
};

/// No history breaks a property, and what should happen in some does.
#[track_caller]
fn holds(name: &str, bounds: Bounds) {
    let began = std::time::Instant::now();
    let checker = bounds.checker().threads(THREADS).spawn_bfs().join();
    println!(
        "{name}: {} states, {} events, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        began.elapsed()
    );
    checker.assert_properties();
}

/// Some history breaks the property.
#[track_caller]
fn breaks(property: &'static str, bounds: Bounds) {
    let broken = bounds.broken;
    let found = HasDiscoveries::AllOf([property].into());
    let bounds = Bounds { only: Some(property), ..bounds };
    let checker = bounds.checker().threads(THREADS).finish_when(found).spawn_dfs().join();
    let states = checker.unique_state_count();
    println!("without {broken:?}: {states} states");
    assert!(checker.discovery(property).is_some(), "{broken:?} does not break: {property}");
}

#[test]
fn a_majority_decides_one_map_whoever_crashes() {
    holds("three voters", MAJORITY);
}

#[test]
#[ignore = "a larger space than the test command has time for; run it by hand"]
fn a_majority_decides_one_map_in_three_attempts() {
    holds("three voters, three attempts", Bounds { attempts: &[2, 1], ..MAJORITY });
}

#[test]
fn a_birth_decides_one_map_as_long_as_one_node_remembers() {
    holds("birth of two", Bounds { attempts: &[2, 1], ..BIRTH });
    holds("birth of three", Bounds { nodes: 3, ..BIRTH });
}

#[test]
fn voters_of_one_map_decide_the_next() {
    holds("changing voters", CHANGING);
}

#[test]
#[ignore = "a larger space than the test command has time for; run it by hand"]
fn voters_of_one_map_decide_the_next_whoever_crashes() {
    holds("changing voters, crash", Bounds { crashes: 1, ..CHANGING });
}

#[test]
fn of_two_voters_one_decides_when_the_other_comes_back_empty() {
    holds("two voters", TWO);
}

#[test]
fn a_birth_goes_on_to_the_next_map() {
    holds("birth and on", Bounds { last: 2, attempts: &[2, 1], lost_disks: 0, crashes: 1, ..BIRTH });
}

const ONE_MAP: &str = "one map an epoch";

#[test]
fn a_birth_is_a_first_one_when_every_disk_is_lost() {
    breaks(ONE_MAP, Bounds { lost_disks: 2, ..BIRTH });
}

#[test]
fn a_birth_by_majority_falls_to_one_lost_disk() {
    breaks(ONE_MAP, Bounds { birth: Quorum::Majority, nodes: 3, ..BIRTH });
}

#[test]
fn each_rule_is_needed() {
    let without = |rule, bounds| breaks(ONE_MAP, Bounds { broken: Some(rule), ..bounds });
    without(Broken::NeverAdopts, MAJORITY);
    without(Broken::NeverAdopts, BIRTH);
    without(Broken::NeverAdopts, CHANGING);
    without(Broken::Forgets, MAJORITY);
    without(Broken::AnswersAtOnce, MAJORITY);
    without(Broken::SameRound, Bounds { attempts: &[2, 1], ..MAJORITY });
    without(Broken::NoOwnPromise, Bounds { attempts: &[2, 1], ..MAJORITY });
    without(Broken::SmallQuorum, MAJORITY);
    without(Broken::FormerVoters, Bounds { attempts: &[0, 2, 0, 1], ..CHANGING });
    without(Broken::DeadIsReplaced, Bounds { lost_disks: 0, ..TWO });
    let three = Bounds { last: 3, attempts: &[1, 2], crashes: 0, ..MAJORITY };
    without(Broken::AnswersForThePast, three);
}

#[test]
fn a_map_is_durable_before_it_is_acted_under() {
    let once = Bounds { last: 3, attempts: &[0, 2], crashes: 2, broken: Some(Broken::ActsAtOnce), ..MAJORITY };
    breaks("a decided map is never forgotten", once.clone());
    breaks("no dead end", once);
}
