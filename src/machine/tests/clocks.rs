//! Which contexts are given: with clocks once all nodes take them, without while one does not, none before that is known.

use std::sync::Arc;

use super::routing::{key_of, strangers};
use super::*;
use crate::cluster::line::Fork;
use crate::machine::message::Wanted;
use crate::machine::sign::{CLOCKS_VERSION, Ping};
use crate::types::{BranchId, ClusterId, Epoch, PartitionId, StayId, Timestamp};

/// What a node of an older build would have sent instead, or have understood.
pub(super) fn as_an_older_build_has_it(message: Message) -> Message {
    let older = |ping: Arc<Ping>| Ping { speaks: CLOCKS_VERSION - 1, tells_clocks: false, ..(*ping).clone() };
    let without_clock = |context: &mut Context| {
        let mut without = Context::empty();
        without.raise_epoch(context.epoch());
        context.iter().for_each(|(partition, stay, seq)| without.raise(partition, stay, seq));
        *context = without;
    };
    match message {
        Message::ForwardReply { id, mut response } => {
            response.context_mut().into_iter().for_each(without_clock);
            Message::ForwardReply { id, response }
        }
        Message::Ping(ping) => Message::Ping(older(ping).into()),
        Message::Pong(ping) => Message::Pong(older(ping).into()),
        other => other,
    }
}

impl Lockstep {
    fn with_older(nodes: usize, older: &[usize]) -> Self {
        let mut all = Self::new(nodes, 1);
        all.older = older.iter().copied().map(node).collect();
        all.run_ms(2_000);
        assert!(all.machine(1).map().is_born());
        all
    }

    /// Ends a node, and starts it on its directory with this build or an older one.
    fn replace(&mut self, number: usize, older: bool) {
        let nodes = self.hosts.len();
        self.stop(number);
        let store = self.hosts.remove(&node(number)).unwrap().store.crash(0);
        self.older.remove(&node(number));
        self.older.extend(older.then(|| node(number)));
        self.start(number, nodes, 1, store);
        self.connect_all();
    }

    fn tells(&self) -> Vec<Option<bool>> {
        self.hosts.values().map(|host| host.machine.tells_clocks()).collect()
    }

    fn warned_of_builds(&self, at: usize) -> Vec<String> {
        let warnings = self.machine(at).cluster_status(self.now).warnings;
        warnings.into_iter().filter(|text| text.contains("older build")).collect()
    }

    fn cut_off(&mut self, number: usize) {
        let others: Vec<_> = self.hosts.keys().filter(|other| **other != node(number)).cloned().collect();
        self.cut = others.into_iter().flat_map(|o| [(node(number), o.clone()), (o, node(number))]).collect();
    }
}

#[test]
fn a_new_store_tells_clocks_from_its_birth() {
    let mut all = Lockstep::with_older(3, &[]);
    assert_eq!(all.tells_clocks, [(node(1), true), (node(2), true), (node(3), true)]);
    // And for ever: a node that is alone after its restart has nobody to ask.
    all.cut_off(2);
    all.replace(2, false);
    assert_eq!((all.machine(2).tells_clocks(), all.machine(2).readiness(all.now)), (Some(true), Ok(())));
    assert_eq!(all.warned_of_builds(1), [""; 0]);
}

/// The proposer of the birth has heard all; another one takes its word.
#[test]
fn the_word_of_one_who_has_heard_all_is_enough() {
    let mut all = Lockstep::new(3, 1);
    all.cut = vec![(node(2), node(3)), (node(3), node(2))];
    all.run_ms(2_000);
    assert!(all.machine(2).map().is_born());
    assert_eq!(all.tells_clocks, [(node(1), true), (node(2), true), (node(3), true)]);
}

#[test]
fn no_clocks_are_told_before_the_last_older_build_is_replaced_and_ever_after() {
    let mut all = Lockstep::with_older(3, &[2, 3]);
    assert_eq!(all.machine(1).tells_clocks(), Some(false));
    let text = |nodes: &str| {
        format!(
            "timestamps extend causality only within a partition, until these are heard, and have no older build: {nodes}"
        )
    };
    assert_eq!(all.warned_of_builds(1), [text("node2:8085, node3:8085")]);
    // One may go back while one is left.
    for older in [false, true, false] {
        all.replace(2, older);
        all.run_ms(1_000);
        assert_eq!(all.machine(1).tells_clocks(), Some(false));
    }
    all.replace(3, false);
    all.run_ms(1_000);
    assert_eq!(all.tells(), [Some(true); 3]);
    assert_eq!(all.warned_of_builds(1), [""; 0]);
    // Clients have contexts that it does not take: the others can't take that back.
    all.replace(2, true);
    all.run_ms(1_000);
    assert_eq!((all.machine(1).tells_clocks(), all.machine(3).tells_clocks()), (Some(true), Some(true)));
    let text = "node2:8085 has an older build, which answers 400 to this store's contexts: start it with a newer one";
    assert_eq!(all.warned_of_builds(1), [text]);
}

/// Seen by a reviewer: a node that had heard nobody took all for its own build, and gave contexts that the older ones
/// answered 400 to, with every restart of an upgrade.
#[test]
fn a_node_that_has_not_heard_the_others_gives_no_contexts_yet() {
    let mut all = Lockstep::with_older(3, &[1, 2, 3]);
    all.tells_clocks.clear();
    all.cut_off(1);
    all.replace(1, false);
    all.run_ms(2_500);
    assert_eq!(all.machine(1).tells_clocks(), None);
    let reason = "this node waits to hear what builds the others have".to_owned();
    assert_eq!(all.machine(1).readiness(all.now), Err(reason));
    // Nobody comes, so it must do without.
    all.run_ms(1_000);
    assert_eq!((all.machine(1).tells_clocks(), all.machine(1).readiness(all.now)), (Some(false), Ok(())));
    all.cut.clear();
    all.replace(2, false);
    all.run_ms(1_000);
    let told = |all: &Lockstep, number: usize| {
        let of_it = all.tells_clocks.iter().filter(|(at, _)| *at == node(number));
        of_it.map(|(_, tells)| *tells).collect::<Vec<_>>()
    };
    assert_eq!(told(&all, 1), [false], "node3 has an older build");
    assert_eq!(all.change(1, Wanted::Remove(node(3))), Ok(0));
    all.run_ms(4_000);
    assert_eq!(all.machine(1).tells_clocks(), Some(false), "it is out, and gives contexts to clients");
    // Who starts and does not hear it does not take it for gone, not yet, nor while another hears it.
    all.cut = vec![(node(3), node(2)), (node(2), node(3))];
    all.replace(2, false);
    all.run_ms(5_000);
    assert_eq!(told(&all, 2), [false, false]);
    all.cut.clear();
    all.run_ms(4_000);
    all.stop(3);
    all.run_ms(4_000);
    assert_eq!((told(&all, 1), told(&all, 2)), (vec![false, true], vec![false, false, true]));
}

/// What it said before it went says nothing of who comes back.
#[test]
fn who_is_down_may_have_gone_back() {
    let mut all = Lockstep::with_older(3, &[2]);
    all.stop(3);
    all.run_ms(100);
    all.replace(2, false);
    all.run_ms(100);
    assert_eq!(all.machine(1).tells_clocks(), Some(false));
    let store = all.hosts.remove(&node(3)).unwrap().store.crash(0);
    all.older.insert(node(3));
    all.start(3, 3, 1, store);
    all.connect_all();
    all.run_ms(2_000);
    assert_eq!(all.machine(1).tells_clocks(), Some(false));
    // Another directory under its address, with this build; then the right one again, before it has said anything.
    let spoken = all.machine(2).sign_of_life(all.now);
    all.loses = |_, to, message| *to == node(1) && matches!(message, Message::Ping(_) | Message::Pong(_));
    let incarnation = Incarnation(99);
    let ping = Message::Ping(spoken.into());
    all.step(&node(1), Input::Connected { peer: node(3), incarnation });
    all.step(&node(1), Input::Message { from: node(3), incarnation, message: ping.clone() });
    all.connect(1, 3);
    all.hear(1, 2, ping);
    assert_eq!(all.machine(1).tells_clocks(), Some(false));
}

/// A session that has a clock keeps it, wherever it goes.
#[test]
fn a_context_that_tells_a_clock_shows_that_all_take_them() {
    let mut all = Lockstep::with_older(3, &[3]);
    assert_eq!(all.machine(1).tells_clocks(), Some(false));
    assert!(matches!(all.get(1, "a", &Context::empty()), Response::Missing { .. }));
    assert_eq!(all.machine(1).tells_clocks(), Some(false));
    let mut context = Context::empty();
    context.raise_clock(Timestamp(9));
    let mut foreign = context.clone();
    foreign.raise(PartitionId(99), StayId(0), 1);
    let answer = all.ask(1, Request::Get { key: key("a"), context: foreign });
    assert_eq!((answer, all.machine(1).tells_clocks()), (Response::Error(Code::ContextMalformed), Some(false)));
    all.tells_clocks.clear();
    all.begin(1, Request::Get { key: key("a"), context });
    assert_eq!(all.tells_clocks.first(), Some(&(node(1), true)));
    all.run_ms(100);
    assert_eq!(all.machine(2).tells_clocks(), Some(true), "told at once");
}

/// Its map may lack a node that has an older build.
#[test]
fn who_is_behind_waits_for_the_map() {
    let mut all = Lockstep::with_older(3, &[1, 2, 3]);
    all.cut_off(1);
    for number in [2, 3, 1] {
        all.replace(number, false);
    }
    all.run_ms(100);
    for (ahead, tells) in [(1, None), (0, Some(true))] {
        for number in [2, 3] {
            let sign = all.machine(number).sign_of_life(all.now);
            let epoch = Epoch(sign.epoch.0 + ahead);
            all.hear(1, number, Message::Ping(Ping { epoch, ..sign }.into()));
        }
        assert_eq!(all.machine(1).tells_clocks(), tells);
    }
}

/// It went on by itself, without those that it did not hear.
#[test]
fn the_word_of_a_node_on_another_line_is_not_taken() {
    let mut all = Lockstep::with_older(3, &[3]);
    let fork = Fork { branch: BranchId(5), after: all.machine(1).map().epoch, first: Epoch(9) };
    let line = all.machine(2).map().line.then(fork);
    let ping = Ping { tells_clocks: true, line, epoch: Epoch(9), ..all.machine(2).sign_of_life(all.now) };
    all.hear(1, 2, Message::Ping(ping.into()));
    assert_eq!(all.machine(1).tells_clocks(), Some(false));
}

#[test]
fn who_speaks_under_a_nodes_address_with_another_directory_is_not_reckoned_with() {
    let mut all = Lockstep::with_older(3, &[3]);
    let newer = Ping { tells_clocks: true, ..all.machine(2).sign_of_life(all.now) };
    let stranger = Incarnation(99);
    all.step(&node(1), Input::Message { from: node(3), incarnation: stranger, message: Message::Ping(newer.into()) });
    assert_eq!(all.machine(1).tells_clocks(), Some(false));
    // Nor is the word of a node of another store.
    let ping = Ping { tells_clocks: true, cluster_id: ClusterId(1), ..all.machine(2).sign_of_life(all.now) };
    all.hear(1, 2, Message::Ping(ping.into()));
    assert_eq!(all.machine(1).tells_clocks(), Some(false));
}

/// An older build knows no clocks: what its answer lacks, the node that asked it has.
#[test]
fn an_answer_without_a_clock_has_that_of_its_question() {
    let mut all = Lockstep::new(4, 2);
    all.run_ms(2_000);
    let (a, b) = strangers(&all);
    all.older = BTreeSet::from([node(a), node(b)]);
    let name = key_of(&all, a);
    let mut context = Context::empty();
    context.raise_clock(Timestamp(3_000_000_000_000 << 16));
    assert_eq!(all.put(1, &name, "1", &context).clock(), context.clock());
    let Response::Value { context: seen, .. } = all.get(1, &name, &context) else { panic!("it was written") };
    assert_eq!(seen.clock(), context.clock());
}
