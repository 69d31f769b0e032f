//! Whom this node hears: the failure detector behind the view.
//!
//! Every node pings every other each [`PING_EVERY_MS`], on a channel of its own. Any ping or answer is a sign of life,
//! and of a peer that has given one lately so is whatever else it says: where all are so busy that pings come too late for
//! their senders, what keeps them busy is on its way between them.
//! A peer is *suspected* after [`SUSPECT_AFTER_MS`] without one, or at once when a connection to it is refused (its
//! process is gone, its machine is not); its next word ends that at once. So does a connection to it that is made, for as
//! long as a word would: who answers there is waited for, though what it hears and says else is not known by that.
//! At the start every peer has the same time to show itself before it is suspected.
//!
//! Suspicion is one node's opinion and may be wrong (Chandra, Toueg: "Unreliable Failure Detectors for Reliable
//! Distributed Systems", 1996). It decides where requests go and who is waited for; it changes no map by itself.
//!
//! Peers' wall clocks are known by round trips (Cristian: "Probabilistic clock synchronization", Distributed Computing 3,
//! 1989): the answer to a ping tells what the peer's clock showed at some time after the ping was sent. A clock that is told
//! otherwise counts for nothing, as nobody knows how long that was on its way: what has waited while this process was stopped
//! is taken up before anything else is heard. They serve [`Detector::clock_is_ahead`] alone.
//!
//! Times are monotonic milliseconds as the machine is given them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::types::NodeAddr;

/// How often each node pings each other, in milliseconds.
pub const PING_EVERY_MS: u64 = 500;

/// How long a peer may be silent before it is suspected, in milliseconds.
pub const SUSPECT_AFTER_MS: u64 = 3_000;

/// For how long after a ping or its answer whatever else a peer says is a sign of life, too, in milliseconds.
const WORD_MS: u64 = 10_000;

/// How far ahead of every peer a wall clock may be before it is ignored, in milliseconds.
pub const MAX_CLOCK_LEAD_MS: u64 = 60_000;

/// For how long after a ping was sent the clock that its answer tells counts, in milliseconds.
const ROUND_TRIP_MS: u64 = 3_000;

/// What one node knows of its peers' lives.
#[derive(Clone, Debug)]
pub struct Detector {
    peers: BTreeMap<NodeAddr, Peer>,
}

/// What is known of one peer.
#[derive(Clone, Debug)]
struct Peer {
    /// The last word, or what it said within a while after one; before the first, when the peer became known.
    since_ms: u64,
    /// When it gave its last word, if it ever did.
    word_ms: Option<u64>,
    /// Its wall clock, as the answer to the newest ping told it that was answered.
    wall: Option<Wall>,
    /// When a connection to it was made, if that was after its last word.
    reached_ms: Option<u64>,
    /// A connection was refused since its last word.
    refused: bool,
    /// Whom it hears, as it told last.
    hears: Arc<BTreeSet<NodeAddr>>,
    /// What [`Detector::changes`] told of it last.
    told_live: bool,
}

/// A peer's wall clock as it told it when it was asked.
#[derive(Clone, Copy, Debug)]
struct Wall {
    wall_ms: u64,
    asked_ms: u64,
}

impl Wall {
    /// The most that it can show now, and less than that by no more than the round trip; `None` once that was too long
    /// ago, or if it was asked for before `since_ms`.
    fn at(self, now_ms: u64, since_ms: u64) -> Option<u64> {
        let passed_ms = now_ms.saturating_sub(self.asked_ms);
        (self.asked_ms >= since_ms && passed_ms < ROUND_TRIP_MS).then(|| self.wall_ms.saturating_add(passed_ms))
    }
}

impl Peer {
    fn unheard(now_ms: u64) -> Self {
        Self {
            since_ms: now_ms,
            word_ms: None,
            wall: None,
            reached_ms: None,
            refused: false,
            hears: Arc::default(),
            told_live: true,
        }
    }

    fn clock(&self, now_ms: u64, since_ms: u64) -> Option<u64> {
        self.wall.and_then(|wall| wall.at(now_ms, since_ms))
    }

    fn is_live(&self, now_ms: u64) -> bool {
        self.reached_ms.is_some_and(|at| is_lately(now_ms, at)) || self.has_not_gone(now_ms)
    }

    fn has_not_gone(&self, now_ms: u64) -> bool {
        !self.refused && is_lately(now_ms, self.since_ms)
    }

    fn is_heard(&self, now_ms: u64) -> bool {
        self.word_ms.is_some() && self.has_not_gone(now_ms)
    }
}

fn is_lately(now_ms: u64, at_ms: u64) -> bool {
    now_ms.saturating_sub(at_ms) < SUSPECT_AFTER_MS
}

/// A peer that had given a sign of life went from live to suspected, or back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The peer.
    pub peer: NodeAddr,
    /// Whether it is live now.
    pub live: bool,
}

impl Detector {
    /// A detector of these peers (not of the node itself), which all count as live for a while.
    pub fn new(now_ms: u64, peers: impl IntoIterator<Item = NodeAddr>) -> Self {
        Self { peers: peers.into_iter().map(|peer| (peer, Peer::unheard(now_ms))).collect() }
    }

    /// Changes whom to listen for. Who is new begins as at the start; what is known of the others stays.
    pub fn set_peers(&mut self, now_ms: u64, peers: &BTreeSet<NodeAddr>) {
        self.peers.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            self.peers.entry(peer.clone()).or_insert_with(|| Peer::unheard(now_ms));
        }
    }

    /// A sign of life, and whom the peer hears. One from a stranger counts for nothing.
    pub fn heard(&mut self, now_ms: u64, peer: &NodeAddr, hears: &[NodeAddr]) {
        if let Some(known) = self.peers.get_mut(peer) {
            (known.since_ms, known.word_ms) = (now_ms, Some(now_ms));
            (known.reached_ms, known.refused) = (None, false);
            // Pings mostly repeat themselves.
            if !hears.iter().eq(&*known.hears) {
                known.hears = Arc::new(hears.iter().cloned().collect());
            }
        }
    }

    /// The peer's wall clock, in milliseconds since 1970, as it told it in answer to the ping that was sent then. A ping that
    /// is yet to be sent is one of a process that was here before.
    pub fn clock_told(&mut self, now_ms: u64, asked_ms: u64, peer: &NodeAddr, wall_ms: u64) {
        if let Some(known) = self.peers.get_mut(peer)
            && asked_ms <= now_ms
            && known.wall.is_none_or(|wall| wall.asked_ms <= asked_ms)
        {
            known.wall = Some(Wall { wall_ms, asked_ms });
        }
    }

    /// The peer said something else than its word of life. That counts for a while after one, as what it hears is told
    /// by these alone; and not once a connection to it was refused: what then still comes was on its way.
    pub fn spoke(&mut self, now_ms: u64, peer: &NodeAddr) {
        let counts = |known: &Peer| known.word_ms.is_some_and(|word_ms| now_ms < word_ms + WORD_MS) && !known.refused;
        if let Some(known) = self.peers.get_mut(peer).filter(|known| counts(known)) {
            known.since_ms = now_ms;
        }
    }

    /// A connection to the peer was made, and it said who it is: a sign of life. It is not its word, so whom it hears and
    /// what its clock shows are not known by this.
    pub fn reached(&mut self, now_ms: u64, peer: &NodeAddr) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.reached_ms = Some(now_ms);
        }
    }

    /// Who was reached is of another line of maps, by its word: that it is there is no sign of the peer's life.
    pub fn disowned(&mut self, peer: &NodeAddr) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.reached_ms = None;
        }
    }

    /// A connection to the peer was refused: nobody listens there.
    pub fn refused(&mut self, peer: &NodeAddr) {
        if let Some(known) = self.peers.get_mut(peer) {
            (known.reached_ms, known.refused) = (None, true);
        }
    }

    /// Whether the peer is not suspected. A stranger is not live.
    pub fn is_live(&self, now_ms: u64, peer: &NodeAddr) -> bool {
        self.peers.get(peer).is_some_and(|known| known.is_live(now_ms))
    }

    /// The peers that are not suspected, ascending.
    pub fn live(&self, now_ms: u64) -> impl Iterator<Item = &NodeAddr> {
        self.peers.iter().filter(move |(_, known)| known.is_live(now_ms)).map(|(peer, _)| peer)
    }

    /// Whether the peer gave its word and has not gone since: what a ping's `hears` lists.
    pub fn hears(&self, now_ms: u64, peer: &NodeAddr) -> bool {
        self.peers.get(peer).is_some_and(|known| known.is_heard(now_ms))
    }

    /// Whom a peer told last that it hears; `None` of one that this node does not hear.
    pub fn heard_from(&self, now_ms: u64, peer: &NodeAddr) -> Option<&Arc<BTreeSet<NodeAddr>>> {
        self.peers.get(peer).filter(|known| known.is_heard(now_ms)).map(|known| &known.hears)
    }

    /// The live peers that told last that they hear `node`, ascending. Empty for one that only this node may hear.
    pub fn heard_by(&self, now_ms: u64, node: &NodeAddr) -> impl Iterator<Item = &NodeAddr> {
        let tells = move |known: &Peer| known.is_heard(now_ms) && known.hears.contains(node);
        self.peers.iter().filter(move |(_, known)| tells(known)).map(|(peer, _)| peer)
    }

    /// Whether this node's wall clock is more than [`MAX_CLOCK_LEAD_MS`] ahead of that of every peer that told one lately,
    /// and was asked for it at `since_ms` or later. `None` when there is none to compare with.
    pub fn clock_is_ahead(&self, own_wall_ms: u64, now_ms: u64, since_ms: u64) -> Option<bool> {
        let theirs = self.peers.values().filter_map(|known| known.clock(now_ms, since_ms));
        theirs.max().map(|most| own_wall_ms > most.saturating_add(MAX_CLOCK_LEAD_MS))
    }

    /// Whether each peer has told its clock that might still do: all but those whose process is gone.
    pub fn knows_every_clock(&self, now_ms: u64, since_ms: u64) -> bool {
        let may_tell = |known: &Peer| !known.refused || known.is_live(now_ms);
        self.peers.values().all(|known| known.clock(now_ms, since_ms).is_some() || !may_tell(known))
    }

    /// Who has gone from live to suspected or back since the last call. What went there and back in between is not told,
    /// and nothing of who was never heard: it did not go away.
    pub fn changes(&mut self, now_ms: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        for (peer, known) in self.peers.iter_mut().filter(|(_, known)| known.word_ms.is_some()) {
            let live = known.is_live(now_ms);
            if live != known.told_live {
                known.told_live = live;
                changes.push(Change { peer: peer.clone(), live });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u32) -> NodeAddr {
        format!("node{number}:8085").parse().unwrap()
    }

    fn detector() -> Detector {
        Detector::new(1_000, [2, 3].map(node))
    }

    fn change(number: u32, live: bool) -> Change {
        Change { peer: node(number), live }
    }

    #[test]
    fn a_silent_peer_is_suspected_after_three_seconds_and_live_again_when_heard() {
        let mut detector = detector();
        detector.heard(2_500, &node(2), &[]);
        assert_eq!(detector.live(3_999).collect::<Vec<_>>(), [&node(2), &node(3)]);
        assert_eq!(detector.live(4_000).collect::<Vec<_>>(), [&node(2)]);
        assert!(detector.is_live(5_499, &node(2)) && !detector.is_live(5_500, &node(2)));
        detector.heard(9_000, &node(3), &[]);
        assert_eq!(detector.live(9_000).collect::<Vec<_>>(), [&node(3)]);
    }

    #[test]
    fn a_refused_peer_is_suspected_at_once() {
        let mut detector = detector();
        detector.heard(1_100, &node(2), &[]);
        detector.refused(&node(2));
        detector.refused(&node(3));
        assert_eq!(detector.live(1_100).count(), 0);
        detector.heard(1_101, &node(2), &[]);
        assert!(detector.is_live(1_101, &node(2)) && !detector.is_live(1_101, &node(3)));
    }

    #[test]
    fn a_peer_that_can_be_reached_is_live_and_has_not_given_its_word_by_that() {
        let mut detector = detector();
        detector.refused(&node(3));
        detector.reached(2_000, &node(3));
        detector.reached(2_000, &node(9));
        assert!(detector.is_live(4_999, &node(3)) && !detector.is_live(5_000, &node(3)));
        assert!(!detector.hears(2_000, &node(3)) && !detector.is_live(2_000, &node(9)));
        detector.spoke(4_000, &node(3));
        assert!(!detector.is_live(5_000, &node(3)), "it never gave its word");
        detector.reached(5_000, &node(3));
        detector.disowned(&node(3));
        assert!(!detector.is_live(5_000, &node(3)), "who is there is another's");
        detector.heard(5_000, &node(2), &[]);
        detector.reached(6_000, &node(2));
        detector.disowned(&node(2));
        assert!(
            detector.is_live(7_999, &node(2)) && !detector.is_live(8_000, &node(2)),
            "its word holds as long as ever"
        );
        detector.heard(6_000, &node(3), &[node(2)]);
        detector.refused(&node(3));
        detector.reached(7_000, &node(3));
        assert!(detector.is_live(7_000, &node(3)) && !detector.hears(7_000, &node(3)), "its process is another");
        assert_eq!(detector.heard_by(7_000, &node(2)).count(), 0);
    }

    #[test]
    fn strangers_are_not_live_whatever_they_say() {
        let mut detector = detector();
        detector.heard(1_000, &node(9), &[node(2)]);
        detector.refused(&node(9));
        assert!(!detector.is_live(1_000, &node(9)));
        assert_eq!(detector.heard_by(1_000, &node(2)).count(), 0);
    }

    #[test]
    fn a_peer_counts_as_heard_only_by_its_word() {
        let mut detector = detector();
        assert!(detector.is_live(1_000, &node(2)) && !detector.hears(1_000, &node(2)));
        detector.heard(1_000, &node(2), &[]);
        assert!(detector.hears(3_999, &node(2)) && !detector.hears(4_000, &node(2)));
    }

    #[test]
    fn whatever_a_peer_says_is_a_sign_of_life_after_its_word() {
        let mut detector = detector();
        detector.heard(2_000, &node(2), &[]);
        for now_ms in [4_000, 6_000, 8_000] {
            detector.spoke(now_ms, &node(2));
            detector.spoke(now_ms, &node(3));
        }
        let mut silent = detector.clone();
        silent.spoke(11_999, &node(2));
        silent.spoke(12_000, &node(2));
        assert!(silent.is_live(14_998, &node(2)) && !silent.is_live(14_999, &node(2)), "no word for too long");
        assert_eq!(detector.live(10_999).collect::<Vec<_>>(), [&node(2)], "node 3 never gave its word");
        assert!(!detector.is_live(11_000, &node(2)));
        detector.spoke(11_000, &node(2));
        assert!(detector.is_live(11_000, &node(2)), "it ends a suspicion, too");
        detector.refused(&node(2));
        detector.spoke(11_001, &node(2));
        assert!(!detector.is_live(11_001, &node(2)), "what was on its way when its process ended");
    }

    #[test]
    fn live_peers_tell_whom_they_hear() {
        let mut detector = detector();
        detector.heard(2_000, &node(2), &[node(7), node(3)]);
        detector.heard(3_000, &node(3), &[node(7)]);
        assert_eq!(detector.heard_by(3_000, &node(7)).collect::<Vec<_>>(), [&node(2), &node(3)]);
        assert_eq!(detector.heard_by(5_000, &node(7)).collect::<Vec<_>>(), [&node(3)]);
        detector.heard(5_000, &node(3), &[]);
        assert_eq!(detector.heard_by(5_000, &node(7)).count(), 0);
    }

    #[test]
    fn changes_are_told_once() {
        let mut detector = detector();
        detector.refused(&node(3));
        assert_eq!(detector.changes(4_000), [], "neither was ever heard");
        detector.heard(4_000, &node(2), &[]);
        detector.heard(4_000, &node(3), &[]);
        assert_eq!(detector.changes(4_000), []);
        detector.refused(&node(3));
        assert_eq!(detector.changes(4_000), [change(3, false)]);
        assert_eq!(detector.changes(4_000), []);
        detector.heard(7_000, &node(3), &[]);
        assert_eq!(detector.changes(7_000), [change(2, false), change(3, true)]);
    }

    #[test]
    fn peers_come_and_go_with_the_map() {
        let mut detector = detector();
        detector.heard(1_000, &node(2), &[]);
        detector.set_peers(3_500, &[2, 4].map(node).into());
        assert_eq!(detector.live(3_999).collect::<Vec<_>>(), [&node(2), &node(4)]);
        assert_eq!(detector.live(4_000).collect::<Vec<_>>(), [&node(4)]);
        assert_eq!(detector.changes(6_500), [change(2, false)], "node 4 was never heard");
    }

    #[test]
    fn a_clock_is_ahead_only_when_it_is_ahead_of_every_peer_that_was_asked_lately() {
        let mut detector = detector();
        detector.heard(1_000, &node(2), &[]);
        assert_eq!(detector.clock_is_ahead(u64::MAX, 1_000, 0), None, "nobody to compare with");
        detector.clock_told(1_000, 1_000, &node(2), 500_000);
        let ahead =
            |detector: &Detector, wall_ms, now_ms| detector.clock_is_ahead(wall_ms, now_ms, 0).expect("one is known");
        assert!(!ahead(&detector, 560_000, 1_000) && ahead(&detector, 560_001, 1_000));
        // Two seconds on, the peer's clock has gone on too.
        assert!(!ahead(&detector, 562_000, 3_000) && ahead(&detector, 562_001, 3_000));
        detector.clock_told(2_600, 2_500, &node(3), 900_000);
        assert!(!ahead(&detector, 700_000, 3_999));
        detector.clock_told(3_999, 1_000, &node(9), 0);
        assert!(!ahead(&detector, 961_500, 4_000) && ahead(&detector, 961_501, 4_000), "of one alone it is known now");
        assert_eq!(detector.clock_is_ahead(u64::MAX, 5_500, 0), None, "and now of nobody");
        detector.clock_told(5_500, 5_500, &node(3), u64::MAX);
        assert!(!ahead(&detector, u64::MAX, 6_000));
    }

    #[test]
    fn the_newest_question_tells_the_clock_whatever_comes_late() {
        let mut detector = detector();
        detector.clock_told(71_000, 71_000, &node(2), 570_000);
        // The answer to what was asked a minute before, and one to another process; then the peer's clock is set back.
        detector.clock_told(71_001, 11_000, &node(2), 510_000);
        detector.clock_told(71_001, 90_000, &node(2), 0);
        assert_eq!(detector.clock_is_ahead(600_000, 71_001, 0), Some(false));
        detector.clock_told(71_500, 71_500, &node(2), 100_000);
        assert_eq!(detector.clock_is_ahead(600_000, 71_500, 0), Some(true));
        assert_eq!(detector.clock_is_ahead(600_000, 71_500, 71_501), None, "that was asked before");
    }

    #[test]
    fn every_clock_is_known_when_each_told_its_own_whose_process_is_there() {
        let mut detector = detector();
        assert!(!detector.knows_every_clock(1_000, 0));
        detector.clock_told(1_000, 1_000, &node(2), 1);
        assert!(!detector.knows_every_clock(1_000, 0));
        detector.clock_told(1_000, 1_000, &node(3), 1);
        assert!(detector.knows_every_clock(1_000, 1_000) && !detector.knows_every_clock(1_000, 1_001));
        detector.clock_told(9_000, 9_000, &node(3), 1);
        assert!(!detector.knows_every_clock(9_000, 9_000), "node 2 was not heard, which may be this node's doing");
        detector.refused(&node(2));
        assert!(detector.knows_every_clock(9_000, 9_000));
        detector.reached(9_000, &node(2));
        assert!(!detector.knows_every_clock(9_000, 9_000));
    }

    proptest! {
        /// Signs of life, refusals and polls of one peer, against the definition spelled out.
        #[test]
        fn live_is_what_the_last_word_says(events in prop::collection::vec((0u64..4_000, 0u8..6), 1..60)) {
            let mut detector = Detector::new(0, [node(2)]);
            let (mut now_ms, mut last_ms, mut word_ms, mut refused, mut told, mut heard) = (0, 0, 0, false, true, false);
            let mut reached = None;
            for (passes_ms, event) in events {
                now_ms += passes_ms;
                match event {
                    0 => {
                        detector.heard(now_ms, &node(2), &[]);
                        (last_ms, word_ms, refused, heard) = (now_ms, now_ms, false, true);
                        reached = None;
                    }
                    1 => {
                        detector.refused(&node(2));
                        (refused, reached) = (true, None);
                    }
                    2 => {
                        detector.reached(now_ms, &node(2));
                        reached = Some(now_ms);
                    }
                    3 => {
                        detector.spoke(now_ms, &node(2));
                        last_ms = if heard && !refused && now_ms < word_ms + WORD_MS { now_ms } else { last_ms };
                    }
                    4 => {
                        detector.disowned(&node(2));
                        reached = None;
                    }
                    _ => {
                        let live = (!refused && now_ms < last_ms + SUSPECT_AFTER_MS)
                            || reached.is_some_and(|at| now_ms < at + SUSPECT_AFTER_MS);
                        prop_assert_eq!(detector.is_live(now_ms, &node(2)), live);
                        let expected = if !heard || live == told { vec![] } else { vec![change(2, live)] };
                        prop_assert_eq!(detector.changes(now_ms), expected);
                        told = if heard { live } else { told };
                    }
                }
            }
        }
    }
}
