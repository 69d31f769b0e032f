//! Every row of the table alone, on a store of one partition.
//!
//! A row is written as its peers, `stay@node` and a letter: J, S, L; `!` lost, `!!` lost by the operator's word; a
//! node's `'` is the incarnation that it had before it lost its disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::rules::ReconcileRule;
use super::sight::{ABSENT_MS, JOIN_BYTES, Present, STALLED_MS, Watch};
use super::*;
use crate::cluster::check::check_proposal;
use crate::cluster::layout::{map_one, map_zero};
use crate::cluster::map::{Layout, PeerState, Stay, Target};
use crate::types::{ClusterId, ContextSecret, ShardId};

mod join;
mod walk;
mod watch;

const P: PartitionId = PartitionId(0);

fn node(number: u32) -> NodeAddr {
    format!("node{number}:80").parse().unwrap()
}

fn incarnation(number: u32) -> Incarnation {
    Incarnation(100 + u128::from(number))
}

fn former(number: u32) -> Incarnation {
    Incarnation(50 + u128::from(number))
}

/// Nodes 1 to 5, all live, all hearing each other; one partition.
struct Case {
    map: ClusterMap,
    told: Told,
    sight: Sight,
    rules: ReconcileRules,
}

fn stay(text: &str) -> (StayId, Stay) {
    let (number, rest) = text.split_once('@').unwrap();
    let at: u32 = rest[..1].parse().unwrap();
    let rest = &rest[1..];
    let (who, rest) = match rest.strip_prefix('\'') {
        Some(rest) => (former(at), rest),
        None => (incarnation(at), rest),
    };
    let state = match &rest[..1] {
        "J" => PeerState::Joining,
        "S" => PeerState::Serving,
        _ => PeerState::Leaving,
    };
    let (lost, lost_by_word) = (rest.contains('!'), rest.contains("!!"));
    (StayId(number.parse().unwrap()), Stay { lost, lost_by_word, ..Stay::new(who, state) })
}

fn shown(row: &Row) -> String {
    let stay = |(number, stay): (&StayId, &Stay)| {
        let id = stay.incarnation.0;
        let who = if id > 100 { format!("{}", id - 100) } else { format!("{}'", id - 50) };
        let state = match stay.state {
            PeerState::Joining => "J",
            PeerState::Serving => "S",
            PeerState::Leaving => "L",
        };
        let lost = if stay.lost_by_word {
            "!!"
        } else if stay.lost {
            "!"
        } else {
            ""
        };
        format!("{number}@{who}{state}{lost}{}", if stay.begun_empty.is_some() { "0" } else { "" })
    };
    row.peers.iter().map(stay).collect::<Vec<_>>().join(" ")
}

fn vector(text: &str) -> Vector {
    let entry = |entry: &str| {
        let (stay, seq) = entry.split_once(':').unwrap();
        (StayId(stay.parse().unwrap()), seq.parse().unwrap())
    };
    text.split_whitespace().map(entry).collect()
}

impl Case {
    fn new(row: &str, wanted: &[u32]) -> Self {
        let names: Vec<_> = (1..=5).map(node).collect();
        let bound = (1..=5).map(|number| (node(number), incarnation(number))).collect();
        let mut map = map_one(&map_zero(&names, 1, 1), &bound, ClusterId(1), ContextSecret([1; 16]));
        map.epoch = Epoch(9);
        map.layout = Layout { shards: vec![wanted.iter().copied().map(node).collect()], partitions: vec![ShardId(1)] };
        let peers: BTreeMap<_, _> = row.split_whitespace().map(stay).collect();
        let next_stay = StayId(peers.last_key_value().unwrap().0.0 + 1);
        map.rows = vec![Row { version: Epoch(7), next_stay, peers, skipped: Vec::new() }];
        for stay in map.rows[0].peers.values() {
            match stay.incarnation.0 {
                id if id < 100 => {
                    map.former.insert(stay.incarnation, node(id as u32 - 50));
                }
                _ => {}
            }
            if stay.lost_by_word {
                map.forgotten.insert(stay.incarnation);
            }
        }
        for bound in map.nodes.values_mut() {
            *bound = bound.filter(|id| !map.forgotten.contains(id));
        }
        let all: BTreeSet<_> = map.nodes.keys().cloned().collect();
        let sight = Sight {
            live: all.clone(),
            hears: all.iter().map(|node| (node.clone(), Arc::new(all.clone()))).collect(),
            connected: map.nodes.iter().filter_map(|(node, bound)| Some((node.clone(), (*bound)?))).collect(),
            ..Sight::default()
        };
        map.voters = voters(&map, &sight);
        Self { map, told: Told::new(), sight, rules: ReconcileRules::all() }
    }

    /// The peer told this first, and holds it still.
    fn told(self, stay: u32, first: &str) -> Self {
        self.told_and_holds(stay, first, first)
    }

    fn told_and_holds(mut self, stay: u32, first: &str, durable: &str) -> Self {
        let word = Word { version: Epoch(7), first: vector(first), durable: vector(durable) };
        self.told.insert((P, StayId(stay)), word);
        self
    }

    fn stale(mut self, stay: u32) -> Self {
        self.told.get_mut(&(P, StayId(stay))).unwrap().version = Epoch(6);
        self
    }

    /// A node that nobody hears, for so long.
    fn silent(mut self, number: u32, for_ms: u64) -> Self {
        self.sight.live.remove(&node(number));
        self.sight.hears.remove(&node(number));
        self.sight.hears.values_mut().for_each(|heard| {
            Arc::make_mut(heard).remove(&node(number));
        });
        self.sight.connected.remove(&node(number));
        self.sight.silent_ms.insert(node(number), for_ms);
        self
    }

    fn aiming(mut self, wanted: &[u32]) -> Self {
        let shards = vec![wanted.iter().copied().map(node).collect()];
        let layout = Layout { shards, partitions: vec![ShardId(1)] };
        self.map.target = Some(Target { layout, name: "test".to_owned(), even: true });
        self
    }

    fn without(mut self, rule: ReconcileRule) -> Self {
        self.rules = self.rules.without(rule);
        self
    }

    fn with<T>(mut self, change: impl FnOnce(&mut Self) -> T) -> Self {
        change(&mut self);
        self
    }

    /// Voters as they should be, so that there is nothing to do about them.
    fn settled(mut self) -> Self {
        self.map.voters = voters(&self.map, &self.sight);
        self
    }

    fn next(&self) -> Option<Next> {
        reconcile(&self.map, &self.told, &self.sight, self.rules)
    }

    #[track_caller]
    fn becomes(&self, row: &str, steps: &[Step]) {
        let next = self.next().expect("there is something to do");
        assert_eq!(shown(&next.map.rows[0]), row);
        assert_eq!(next.steps.iter().map(|(_, step)| *step).collect::<Vec<_>>(), steps);
        assert_eq!(next.map.epoch, Epoch(10));
        assert_eq!(next.map.parent_hash, self.map.hash());
        let version = if steps.is_empty() { Epoch(7) } else { Epoch(10) };
        assert_eq!(next.map.rows[0].version, version);
        if self.rules == ReconcileRules::all() {
            let live = self.map.nodes.iter().filter(|(node, _)| self.sight.live.contains(*node));
            let live: BTreeSet<_> = live.filter_map(|(_, bound)| *bound).collect();
            assert_eq!(check_proposal(&self.map, &next.map, &live), Ok(()));
        }
    }

    #[track_caller]
    fn stays(&self) {
        assert_eq!(self.next().map(|next| (shown(&next.map.rows[0]), next.steps)), None);
    }
}

#[test]
fn at_rest_there_is_nothing_to_do() {
    Case::new("0@1S 1@2S", &[1, 2]).stays();
    Case::new("0@1S 1@2S", &[1, 2]).silent(2, ABSENT_MS - 1).settled().stays();
}

#[test]
fn a_joining_peer_that_is_not_wanted_gone_or_stalled_is_removed() {
    Case::new("0@1S 1@2S 2@3J", &[1, 2]).becomes("0@1S 1@2S", &[Step::JoinerUnwanted]);
    Case::new("0@1S 1@2S 2@3'J", &[1, 2]).becomes("0@1S 1@2S", &[Step::JoinerGone]);
    let stalled = |case: Case| {
        case.with(|case| {
            case.sight.stalled = [(P, StayId(2))].into();
            case.sight.waiting = [(P, incarnation(3))].into();
        })
    };
    stalled(Case::new("0@1S 1@2S 2@3J", &[1, 2, 3])).becomes("0@1S 1@2S", &[Step::JoinerStalled]);
    Case::new("0@1S 1@2S 2@3J", &[1, 2, 3]).stays();
    let waits = |case: &mut Case| case.sight.waiting = [(P, incarnation(3))].into();
    Case::new("0@1S 1@2S", &[1, 2, 3]).with(waits).stays();
}

#[test]
fn a_gone_peer_is_lost_while_another_serves() {
    Case::new("0@1S 1@2S 2@3'S", &[1, 2]).becomes("0@1S 1@2S 2@3'L!", &[Step::Lost]);
    Case::new("0@1S 1@2S 2@3'L", &[1, 2]).becomes("0@1S 1@2S 2@3'L!", &[Step::Lost]);
    // The last one is waited for, and one that is gone itself is no other.
    Case::new("0@1'S", &[1, 2]).with(|c| c.sight.live.clear()).settled().stays();
    let nobody_else = Case::new("0@1'S 1@2'S", &[1, 2]);
    nobody_else.stays();
    nobody_else.without(ReconcileRule::GoneOther).becomes("0@1'L! 1@2'S", &[Step::Lost]);
    let last = Case::new("0@1'S", &[1, 2]).without(ReconcileRule::LastServing);
    last.becomes("0@1'L!", &[Step::Lost]);
}

#[test]
fn a_forgotten_peer_is_lost_though_it_is_the_last() {
    let forget = |case: &mut Case| {
        case.map.forgotten.insert(former(1));
    };
    let others = Case::new("0@1'S 1@2S 2@3S", &[2, 3]).with(forget);
    others.becomes("0@1'L!! 1@2S 2@3S", &[Step::LostByWord]);
    let lost = Case::new("0@1'L! 1@2S 2@3S", &[2, 3]).with(forget);
    lost.becomes("0@1'L!! 1@2S 2@3S", &[Step::LostByWord]);
    let last = Case::new("0@1'S", &[2, 3]).with(forget);
    last.becomes("0@1'L!! 1@2S0 2@3S0", &[Step::LostByWord, Step::BegunEmpty, Step::BegunEmpty]);
}

#[test]
fn a_joining_peer_that_has_what_a_serving_one_told_serves() {
    let case = |first, durable| Case::new("0@1S 1@2S 2@3J", &[1, 2, 3]).told_and_holds(0, first, durable);
    case("0:5 1:2", "0:9 1:9").told(2, "0:5 1:2").becomes("0@1S 1@2S 2@3S", &[Step::Promoted]);
    case("0:5 1:2", "0:5 1:2").told(2, "0:5 1:1").stays();
    case("0:5 1:2", "0:5 1:2").told(2, "0:5 1:1").told(1, "0:3 1:1").becomes("0@1S 1@2S 2@3S", &[Step::Promoted]);
    case("0:5", "0:5").stays();
    // What was told under another version counts for nothing.
    case("0:5", "0:5").told(2, "0:9").stale(0).stays();
    case("0:5", "0:5").told(2, "0:9").stale(2).stays();
    let blind = case("0:5", "0:5").told(2, "").without(ReconcileRule::PromoteTold);
    blind.becomes("0@1S 1@2S 2@3S", &[Step::Promoted]);
}

#[test]
fn who_is_promoted_in_this_very_map_has_told_nothing_as_a_serving_peer() {
    // Node 3 has what node 1 told; node 4 has only what node 3 told while it was joining.
    let case = || Case::new("0@1S 1@3J 2@4J", &[1, 3, 4]).told(0, "0:5").told(1, "0:5").told(2, "0:5");
    case().becomes("0@1S 1@3S 2@4S", &[Step::Promoted, Step::Promoted]);
    let lags = || Case::new("0@1S 1@3J 2@4J", &[1, 3, 4]).told(0, "0:5").told_and_holds(1, "0:1", "0:5").told(2, "0:1");
    lags().becomes("0@1S 1@3S 2@4J", &[Step::Promoted]);
    let both = lags().without(ReconcileRule::PromoteServing);
    both.becomes("0@1S 1@3S 2@4S", &[Step::Promoted, Step::Promoted]);
}

#[test]
fn where_nobody_serves_all_that_left_must_have_told() {
    let case = || Case::new("0@1L 1@2L 2@3J", &[3, 4]).told(0, "0:5 1:2").silent(4, 0);
    case().told(2, "0:5 1:2").stays();
    case().told(1, "0:3 1:4").told(2, "0:5 1:3").stays();
    case().told(1, "0:3 1:4").told(2, "0:5 1:4").becomes("0@1L 1@2L 2@3S", &[Step::PromotedFromLeaving]);
    let one = case().told(2, "0:5 1:2").without(ReconcileRule::NobodyAll);
    one.becomes("0@1L 1@2L 2@3S", &[Step::PromotedFromLeaving]);
    // A Serving peer whose disk is gone is still listed: somebody serves, and told nothing.
    Case::new("0@1'S 1@2L 2@3J", &[3]).told(1, "0:1").told(2, "0:1").stays();
}

#[test]
fn an_absent_peer_leaves_while_another_live_one_serves() {
    let case = |row, ms| Case::new(row, &[1, 2]).silent(2, ms).settled();
    case("0@1S 1@2S", ABSENT_MS).becomes("0@1S 1@2L", &[Step::LeftAbsent]);
    case("0@1S 1@2S", ABSENT_MS - 1).stays();
    case("1@2S", ABSENT_MS).stays();
    let both = || Case::new("0@1S 1@2S", &[1, 2]).silent(1, ABSENT_MS).silent(2, ABSENT_MS).settled();
    both().stays();
    both().without(ReconcileRule::AbsentOther).becomes("0@1L 1@2L", &[Step::LeftAbsent, Step::LeftAbsent]);
    let gone = Case::new("0@1'S 1@2S", &[1, 2]).silent(2, ABSENT_MS).silent(1, 0).settled();
    gone.becomes("0@1'L! 1@2S", &[Step::Lost]);
}

#[test]
fn an_unwanted_peer_leaves_when_all_that_is_wanted_serves() {
    Case::new("0@1S 1@2S 2@3S", &[2, 3]).becomes("0@1L 1@2S 2@3S", &[Step::LeftUnwanted]);
    let waits = || Case::new("0@1S 1@2S 2@3J", &[2, 3]).told(0, "0:1");
    waits().stays();
    waits().without(ReconcileRule::LeaveServe).becomes("0@1L 1@2S 2@3J", &[Step::LeftUnwanted]);
    // One live wanted node is enough only when no more are wanted, or the operator took the peer's node out.
    let dead = || Case::new("0@1S 1@2S", &[2, 3]).silent(3, 0).settled();
    dead().stays();
    dead().without(ReconcileRule::LeaveTwo).becomes("0@1L 1@2S", &[Step::LeftUnwanted]);
    let taken_out = dead().with(|c| c.map.out = [node(1)].into()).settled();
    taken_out.becomes("0@1L 1@2S", &[Step::LeftUnwanted]);
    Case::new("0@1S 1@2S", &[2]).becomes("0@1L 1@2S", &[Step::LeftUnwanted]);
    Case::new("0@1S 1@2S", &[3]).silent(3, 0).settled().stays();
}

#[test]
fn a_leaving_peer_is_closed_when_all_it_told_is_everywhere() {
    let case = || Case::new("0@1L 1@2S 2@3S 3@4J", &[2, 3, 4]).told(0, "0:5 1:2").told(1, "0:5 1:3").told(2, "0:5 1:2");
    case().told(3, "0:5 1:2").with(|c| c.sight.waiting = [(P, incarnation(4))].into()).next().unwrap();
    let closed = |case: Case| shown(&case.next().unwrap().map.rows[0]).starts_with("1@");
    assert!(closed(case().told(3, "0:5 1:2")));
    case().told(3, "0:5 1:1").stays();
    case().stays();
    case().without(ReconcileRule::CloseJoining).becomes("1@2S 2@3S 3@4J", &[Step::Closed]);
    let one_lacks = || Case::new("0@1L 1@2S 2@3S", &[2, 3]).told(0, "0:5 1:2").told(1, "0:5 1:3");
    one_lacks().told(2, "0:5 1:1").stays();
    one_lacks().told(2, "0:5 1:1").without(ReconcileRule::CloseWhole).becomes("1@2S 2@3S", &[Step::Closed]);
    one_lacks().without(ReconcileRule::CloseServing).becomes("1@2S 2@3S", &[Step::Closed]);
    one_lacks().told(2, "0:5 1:2").stale(0).stays();
    // Two must serve, unless one is all that is wanted.
    let alone = || Case::new("0@1L 1@2S", &[2, 3]).told(0, "0:5").told(1, "0:5").silent(3, 0).settled();
    alone().stays();
    alone().without(ReconcileRule::CloseTwo).becomes("1@2S", &[Step::Closed]);
    alone().with(|c| c.map.layout.shards[0] = vec![node(2)]).becomes("1@2S", &[Step::Closed]);
    // Who is silent may have lost its disk: a copy that nobody counts on.
    let silent = || one_lacks().told(2, "0:5 1:2").silent(3, 0).settled();
    silent().stays();
    silent().without(ReconcileRule::CloseLive).becomes("1@2S 2@3S", &[Step::Closed]);
}

#[test]
fn who_leaves_in_this_very_map_is_not_closed_in_it() {
    let case = || Case::new("0@1S 1@2S 2@3S", &[2, 3]).told(0, "0:5").told(1, "0:5").told(2, "0:5");
    case().becomes("0@1L 1@2S 2@3S", &[Step::LeftUnwanted]);
    let closed = case().without(ReconcileRule::CloseLeaving);
    closed.becomes("1@2S 2@3S", &[Step::LeftUnwanted, Step::Closed]);
}

#[test]
fn nothing_is_closed_without_a_serving_peer() {
    let case = || Case::new("0@1L 1@2L 2@3J", &[3]).told(0, "0:5").told(2, "0:5").silent(2, 0);
    case().settled().stays();
    case().settled().without(ReconcileRule::EmptySet).becomes("1@2L 2@3J", &[Step::Closed]);
}

#[test]
fn a_lost_peer_is_closed_when_all_others_told_what_they_have_of_it() {
    let case = |row| Case::new(row, &[2, 3]).told(1, "0:5 1:9").told(2, "0:3 1:1");
    case("0@1'L! 1@2S 2@3S").stays();
    case("0@1'L! 1@2S 2@3S").told_and_holds(2, "0:3 1:1", "0:5").becomes("1@2S 2@3S", &[Step::ClosedLost]);
    // A Leaving one may have more of it.
    let leaving = || case("0@1'L! 1@2S 2@3S 3@4L").told_and_holds(2, "0:3", "0:5");
    leaving().stays();
    leaving().without(ReconcileRule::LostAll).becomes("1@2S 2@3S 3@4L", &[Step::ClosedLost]);
    leaving().without(ReconcileRule::LostLeaving).becomes("1@2S 2@3S 3@4L", &[Step::ClosedLost]);
    leaving().told(3, "0:6").stays();
    // Told before it was lost: not yet what the others have of it at most.
    let just_lost = || case("0@1'L 1@2S 2@3S").told_and_holds(2, "0:3", "0:5");
    just_lost().becomes("0@1'L! 1@2S 2@3S", &[Step::Lost]);
    just_lost().without(ReconcileRule::LostVersion).becomes("1@2S 2@3S", &[Step::Lost, Step::ClosedLost]);
}

#[test]
fn a_lost_peer_waits_for_others_that_are_lost_in_this_very_map() {
    let case = || Case::new("0@1'L! 1@2S 2@3S 3@4'L", &[2, 3]).told(1, "0:5").told(2, "0:5");
    case().becomes("0@1'L! 1@2S 2@3S 3@4'L!", &[Step::Lost]);
    let now = case().without(ReconcileRule::LostThen);
    now.becomes("1@2S 2@3S 3@4'L!", &[Step::Lost, Step::ClosedLost]);
}

#[test]
fn a_wanted_node_joins_when_a_serving_peer_hears_it() {
    Case::new("0@1S 1@2S", &[1, 2, 3]).becomes("0@1S 1@2S 2@3J", &[Step::Joined]);
    let deaf = |case: &mut Case| {
        for server in [1, 2] {
            Arc::make_mut(case.sight.hears.get_mut(&node(server)).unwrap()).remove(&node(3));
        }
    };
    Case::new("0@1S 1@2S", &[1, 2, 3]).with(deaf).stays();
    // Its own Leaving stay is no obstacle: it takes up what it lacks.
    Case::new("0@1S 1@2L", &[1, 2]).becomes("0@1S 1@2L 2@2J", &[Step::Joined]);
    // With an empty disk it is somebody new.
    Case::new("0@1S 1@2'S", &[1, 2]).becomes("0@1S 1@2'L! 2@2J", &[Step::Lost, Step::Joined]);
    let reused = Case::new("0@1S", &[1, 2]).with(|c| c.map.rows[0].next_stay = StayId(5));
    reused.becomes("0@1S 5@2J", &[Step::Joined]);
    reused.without(ReconcileRule::StayNew).becomes("0@1S 4@2J", &[Step::Joined]);
}

#[test]
fn where_nobody_serves_a_node_joins_while_all_that_left_are_live() {
    let case = || Case::new("0@1L 1@2L", &[3]);
    case().becomes("0@1L 1@2L 2@3J", &[Step::JoinedFromLeaving]);
    case().silent(2, 0).settled().stays();
    let one = case().silent(2, 0).settled().without(ReconcileRule::NobodyLive);
    one.becomes("0@1L 1@2L 2@3J", &[Step::JoinedFromLeaving]);
    Case::new("0@1L 1@2L!", &[3]).becomes("0@1L 1@2L! 2@3J", &[Step::JoinedFromLeaving]);
}

#[test]
fn a_partition_begins_empty_when_all_is_lost_by_word() {
    let case = |row: &str| Case::new(row, &[3, 4]);
    case("0@1'L! 1@2'L!!").becomes("0@1'L! 1@2'L!! 2@3S0 3@4S0", &[Step::BegunEmpty, Step::BegunEmpty]);
    case("0@1'L! 1@2'L!").stays();
    // Who was being filled from the lost is not taken for one that has something.
    let joining = || case("0@1'L! 1@2'L!! 2@3J");
    joining().becomes("0@1'L! 1@2'L!! 3@3S0 4@4S0", &[Step::BegunEmpty, Step::BegunEmpty]);
    let kept = joining().without(ReconcileRule::EmptyNew);
    kept.becomes("0@1'L! 1@2'L!! 2@3S0 3@4S0", &[Step::BegunEmpty, Step::BegunEmpty]);
    let one_left = || case("0@1'L!! 1@2L 2@3J").silent(2, 0).settled();
    one_left().stays();
    let all = one_left().without(ReconcileRule::EmptyAll);
    all.becomes("0@1'L!! 1@2L 3@3S0 4@4S0", &[Step::BegunEmpty, Step::BegunEmpty]);
    let next = case("0@1'L! 1@2'L!!").next().unwrap();
    assert_eq!(next.map.rows[0].peers[&StayId(2)].begun_empty, Some(Epoch(10)));
}

#[test]
fn the_layout_is_the_target_once_all_is_where_it_is_wanted() {
    let reached = Case::new("0@1L 1@2S 2@3S", &[1, 2]).aiming(&[2, 3]);
    let next = reached.next().unwrap();
    assert_eq!((next.map.target, &next.map.layout.shards[0]), (None, &vec![node(2), node(3)]));
    assert_eq!(next.map.rows, reached.map.rows, "no row has changed, and no version");
    Case::new("0@1S 1@2S 2@3J", &[1, 2]).aiming(&[2, 3]).stays();
    let joins = || Case::new("0@1L 1@2S 2@3S 3@4J", &[1]).aiming(&[2, 3, 4]).settled();
    joins().stays();
    let out_of_reach = joins().silent(4, 3_000).next().unwrap();
    assert_eq!((out_of_reach.map.target, &out_of_reach.map.rows), (None, &joins().map.rows));
    // A member more is there when it serves; one that is gone for long is given up.
    let adds = |for_ms| {
        let case = Case::new("0@1S 1@2S 2@3J", &[1, 2]).aiming(&[1, 2, 3]);
        case.with(|c| c.map.target.as_mut().unwrap().even = false).silent(3, for_ms)
    };
    adds(3_000).stays();
    let given_up = adds(sight::REPLACED_MS).next().unwrap().map;
    assert_eq!((given_up.target, given_up.layout), (None, adds(0).map.layout));
    let leaves = Case::new("0@1S 1@2S 2@3S", &[1, 2]).aiming(&[2, 3]).next().unwrap();
    assert_eq!((leaves.map.target, shown(&leaves.map.rows[0]).as_str()), (None, "0@1L 1@2S 2@3S"));
}

#[test]
fn all_of_a_map_applies_to_the_map_that_is_without_the_order() {
    // Promoted and therefore left in one map; without the order that takes two.
    let case = || Case::new("0@1S 1@2S 2@3J", &[2, 3]).told(0, "0:1").told(2, "0:1");
    case().becomes("0@1L 1@2S 2@3S", &[Step::Promoted, Step::LeftUnwanted]);
    case().without(ReconcileRule::InTurn).becomes("0@1S 1@2S 2@3S", &[Step::Promoted]);
}

#[test]
fn a_node_that_lost_its_disk_is_bound_by_its_present_connection() {
    let came = |id| Case::new("0@1S 1@2S", &[1, 2]).with(|c| c.sight.connected.insert(node(2), Incarnation(id)));
    let next = came(777).next().unwrap().map;
    assert_eq!(next.nodes[&node(2)], Some(Incarnation(777)));
    assert_eq!(next.former, [(incarnation(2), node(2))].into());
    assert_eq!(shown(&next.rows[0]), "0@1S 1@2L! 2@677J");
    assert!(next.voters.contains(&Incarnation(777)) && !next.voters.contains(&incarnation(2)));
    came(101).with(|c| c.sight.live.remove(&node(2))).settled().stays();
    let forgotten = came(777).with(|c| c.map.forgotten.insert(Incarnation(777)));
    forgotten.stays();
    // The right directory is back: bound again, and no longer noted.
    let back = Case::new("0@1S 1@2'L!", &[1, 3]).with(|c| c.sight.connected.insert(node(2), former(2)));
    let next = back.next().unwrap().map;
    assert_eq!((next.nodes[&node(2)], next.former.len()), (Some(former(2)), 0));
    assert!(next.rows[0].peers[&StayId(1)].lost, "what was lost stays lost");
    // A node that was taken out and starts anew is back.
    let out = came(777).with(|c| c.map.out.insert(node(2)));
    assert!(out.next().unwrap().map.out.is_empty());
}

#[test]
fn a_target_whose_node_is_lost_is_planned_anew_or_given_up() {
    let aim = |wanted: &[u32]| Case::new("0@1S 1@2S", &[1, 2]).aiming(wanted).silent(4, sight::REPLACED_MS);
    let next = aim(&[3, 4]).next().unwrap().map;
    assert_eq!(next.target.unwrap().layout.shards, [[1, 2, 3, 5].map(node)], "as even as can be with who is there");
    let briefly = aim(&[3, 4]).with(|c| c.sight.silent_ms.insert(node(4), sight::REPLACED_MS - 1));
    assert_eq!(briefly.next().unwrap().map.target, briefly.map.target);
    let member = aim(&[1, 2, 4]).with(|c| c.map.target.as_mut().unwrap().even = false);
    assert_eq!(member.next().unwrap().map.target, None, "there is nobody to add");
    let alone = aim(&[3, 4]).silent(3, 0).silent(5, 0).silent(2, 0);
    assert_eq!(alone.next().unwrap().map.target, None, "one live node is no shard");
}
