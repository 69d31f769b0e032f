//! What clients see of a clause that is off: an answer that a crash takes back, a replica that another one contradicts.
//!
//! Each script ends with what clients read and what replicas hold, and that is judged as a history (`outside`); what the
//! oracle knows beside it counts only with all clauses on. Where a script takes a disk nothing excuses that a write is lost:
//! what is shown or acknowledged while two peers serve and keep up is on two disks.

use entail::cluster::map::PeerState;
use entail::machine::message::Wanted;
use entail::types::{PartitionId, ShardId};

use super::{Script, births, is_fill, is_map, is_operations, is_paxos, is_report, moving, state_at, world};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::world::World;

/// A write may take long, and is not waited for.
const LONG_MS: u64 = 5_000;

/// So long a client waits that is shown at once what it should not be shown.
const SHORT_MS: u64 = 100;

/// Three nodes, of which the first sends its writes to these in vain: a key.
fn not_sent_to(others: &[usize], clauses: Clauses) -> (Script, usize) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    s.excuses_nothing();
    for other in others {
        s.hold(Some(0), Some(*other), is_operations);
    }
    let x = s.key(1, 0);
    (s, x)
}

/// The disk of node 1 is lost, with what is under way; then everything settles, and a client looks for a key.
fn without_the_disk_of_node_1(s: &mut Script, client: usize, key: usize) {
    s.take_disk(0);
    s.let_go(false);
    s.start(0);
    s.rests();
    s.ask(client, Kind::Get, key, 2);
}

/// `AckDurable`: the only node that is up answers before it has synced, and dies. Its next write takes the same name.
pub fn an_answer_before_the_sync(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, moving(0));
    let (x, y) = (s.key(1, 0), s.key(1, 1));
    s.kill(1);
    s.wait(4_000);
    s.freeze(0);
    s.begin(0, Kind::Put, x, 0, LONG_MS);
    s.wait(200);
    s.forgets(0);
    s.start(1);
    s.wait(100);
    s.ask(1, Kind::Put, y, 0);
    s.ask(0, Kind::Get, x, 0);
    s.rests();
}

/// `OwnName`: a node that lost its disk writes in the name of the stay that it had. The others have something by that name.
pub fn a_write_under_a_name_that_was_used(clauses: Clauses) {
    let (mut s, _) = births::back_before_the_map_knows(clauses);
    s.excuses_nothing();
    let y = s.key(1, 1);
    s.begin(1, Kind::Put, y, 0, LONG_MS);
    s.wait(200);
    s.let_go(true);
    s.answer(1);
    s.ask(1, Kind::Get, y, 1);
    s.rests();
}

/// `AckCopies`: a node answers at once, though two peers are about to have the write, and its disk is lost.
pub fn an_answer_that_waits_for_no_copy(clauses: Clauses) {
    let (mut s, x) = not_sent_to(&[1, 2], clauses);
    s.begin(0, Kind::Put, x, 0, LONG_MS);
    s.wait(SHORT_MS);
    without_the_disk_of_node_1(&mut s, 0, x);
}

/// `ShowAckable`: the same, for who reads the write at its node before that answers.
pub fn a_read_of_a_write_without_copies(clauses: Clauses) {
    let (mut s, x) = not_sent_to(&[1, 2], clauses);
    s.begin(0, Kind::Put, x, 0, LONG_MS);
    s.wait(50);
    s.begin(1, Kind::Get, x, 0, SHORT_MS);
    s.wait(SHORT_MS);
    without_the_disk_of_node_1(&mut s, 1, x);
}

/// `TruncateStable`: a node starts anew and finds a write that has no copy yet, but is in its log no more: it counts as
/// one that all have.
pub fn a_read_of_a_write_out_of_the_log(clauses: Clauses) {
    let (mut s, x) = not_sent_to(&[1, 2], clauses);
    s.begin(0, Kind::Put, x, 0, LONG_MS);
    s.wait(300);
    s.forgets(0);
    s.wait(150);
    s.begin(1, Kind::Get, x, 0, SHORT_MS);
    s.wait(2 * SHORT_MS);
    without_the_disk_of_node_1(&mut s, 1, x);
}

/// `DurableVectors`: a peer tells that it has a write, and dies before it has synced it.
pub fn a_copy_that_is_told_of_before_the_sync(clauses: Clauses) {
    let (mut s, x) = not_sent_to(&[2], clauses);
    s.freeze(1);
    s.begin(0, Kind::Put, x, 0, LONG_MS);
    s.wait(200);
    s.forgets(1);
    without_the_disk_of_node_1(&mut s, 0, x);
}

/// `DurableReads`: a peer shows a write that it has not synced, and dies.
pub fn a_read_of_a_copy_before_the_sync(clauses: Clauses) {
    let (mut s, x) = not_sent_to(&[2], clauses);
    s.freeze(1);
    s.begin(0, Kind::Put, x, 0, LONG_MS);
    s.wait(50);
    s.begin(1, Kind::Get, x, 1, SHORT_MS);
    s.wait(SHORT_MS);
    s.forgets(1);
    without_the_disk_of_node_1(&mut s, 1, x);
}

/// `FillDurable`: a fill brings a write that its source has not synced. The source dies, and its next write takes the
/// same name.
pub fn a_fill_before_the_sync(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, moving(1));
    let (x, y, joins) = (s.key(1, 0), s.key(1, 1), 2);
    s.ask(1, Kind::Put, s.key(1, 2), 0);
    s.kill(1);
    s.wait(4_000);
    s.hold(Some(joins), None, is_fill);
    s.begin_change(0, Wanted::AddMember { shard: ShardId(1), node: s.addr(joins) });
    s.until("it joins", |world| state_at(world, joins, joins, 0) == Some(PeerState::Joining));
    s.wait(100);
    s.freeze(0);
    s.begin(0, Kind::Put, x, 0, 2 * LONG_MS);
    s.wait(50);
    s.let_go(true);
    s.wait(LONG_MS);
    // Who joins would tell the source that it has lost something.
    s.hold(Some(joins), Some(0), |_| true);
    s.forgets(0);
    s.start(1);
    s.wait(100);
    s.ask(1, Kind::Put, y, 0);
    s.let_go(true);
    s.rests();
    s.ask(1, Kind::Get, y, joins);
}

/// `FillClock`: who was filled writes after a delete of a fast clock that it knows nothing of, and a peer has its
/// tombstone yet.
pub fn a_write_older_than_a_tombstone(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, moving(1));
    let (x, late) = (s.key(1, 0), 2);
    s.world.nodes[0].skew_ms = 50_000;
    s.ask(0, Kind::Put, x, 0);
    s.hold(Some(0), Some(1), is_report);
    s.ask(0, Kind::Delete, x, 0);
    s.until_collected(&[0]);
    s.add_member(0, 1, late);
    s.ask(1, Kind::Get, x, late);
    s.ask(1, Kind::Put, x, late);
    s.ask(1, Kind::Get, x, 1);
    s.let_go(true);
    s.rests();
}

/// `Ceiling`: a node with a fast clock has collected its tombstone, which a peer has yet, and starts anew with its clock put
/// right: a client that knows nothing writes there.
pub fn a_write_of_a_clock_that_was_put_right(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, moving(0));
    let x = s.key(1, 0);
    s.world.nodes[0].skew_ms = 50_000;
    s.ask(0, Kind::Put, x, 0);
    s.hold(Some(0), Some(1), is_report);
    s.ask(0, Kind::Delete, x, 0);
    s.until_collected(&[0]);
    s.wait(2_000);
    s.kill(0);
    s.world.nodes[0].skew_ms = 0;
    s.start(0);
    s.wait(4_000);
    s.ask(1, Kind::Put, x, 0);
    s.ask(1, Kind::Get, x, 1);
    s.let_go(true);
    s.rests();
}

/// `FillLate`: a fill takes long; what it has of a key is deleted meanwhile, and the tombstone collected.
pub fn a_value_that_a_fill_brings_back(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, |settings| {
        moving(0)(settings);
        (settings.value_bytes, settings.fill_bytes) = (200_000, 100_000);
    });
    s.hold(Some(0), Some(2), is_operations);
    for key in 0..12 {
        s.ask(0, Kind::Put, key, 0);
    }
    s.wait(1_500);
    s.let_go(true);
    s.wait(500);
    s.ask(1, Kind::Get, 0, 0);
    s.ask(1, Kind::Delete, 0, 0);
    s.until_collected(&[0, 1, 2]);
    s.wait(20_000);
    s.ask(1, Kind::Get, 0, 2);
    s.rests();
}

/// `KeepEntry`: who wrote has its write in its context, and reads elsewhere; it must not lose it there.
pub fn an_own_write_after_a_read_elsewhere(clauses: Clauses) {
    let mut s = Script::with(5, 2, clauses, moving(0));
    let (one, x) = (s.members(1), s.key(1, 0));
    s.give_up(one[0], one[2]);
    s.ask(0, Kind::Put, x, one[0]);
    s.wait(3_000);
    s.ask(0, Kind::Get, x, one[1]);
    s.ask(0, Kind::Get, x, one[2]);
}

/// `PromiseLast`: a node promises a later clock while a write of it is under way; a tombstone is collected that this
/// write should have met.
pub fn a_value_behind_a_promise(clauses: Clauses) {
    let mut s = Script::with(2, 1, clauses, moving(0));
    let x = s.key(1, 0);
    s.ask(1, Kind::Put, x, 0);
    s.rests();
    s.hold(Some(1), Some(0), is_operations);
    s.hold(None, None, is_fill);
    s.ask(0, Kind::Put, x, 1);
    s.ask(1, Kind::Delete, x, 0);
    s.wait(6_000);
    s.let_go(true);
    s.rests();
}

/// `DropUnapplied`: a write waits at one peer for another one that is late. Its writer's disk is lost, and its stay
/// closed, as no peer has it.
pub fn a_write_that_waits_beyond_its_stay(clauses: Clauses) {
    let mut s = Script::with(3, 1, clauses, moving(0));
    let (x, y, writer) = (s.key(1, 0), s.key(1, 1), 2);
    s.hold(Some(1), Some(0), is_operations);
    s.hold(Some(writer), Some(1), is_operations);
    s.hold(Some(0), None, is_fill);
    s.begin(0, Kind::Put, x, 1, LONG_MS);
    s.wait(50);
    s.ask(1, Kind::Get, x, writer);
    s.begin(1, Kind::Put, y, writer, LONG_MS);
    s.until("it waits", |world| world.machine(0).partition_status()[0].unapplied > 0);
    let lost = s.world.nodes[writer].incarnation;
    s.take_disk(writer);
    s.start(writer);
    let listed = move |world: &World| {
        let map = world.machine(0).map().clone();
        map.row(PartitionId(0)).peers.values().any(|peer| Some(peer.incarnation) == lost)
    };
    s.until("its stay is closed", |world| !listed(world));
    s.let_go(false);
    s.rests();
}

/// `DurableAcceptor`: an acceptor has two maps of one number decided. Under the first a node that is cut off leaves, and
/// what is written then is stable without it; under the second it serves.
pub fn two_maps_of_one_number(clauses: Clauses) {
    let mut s = Script::with(4, 2, clauses, moving(0));
    let (one, two, x) = (s.members(1), s.members(2), s.key(1, 0));
    let ([has, lacks], [forgets, other]) = (one[..].try_into().expect("two"), two[..].try_into().expect("two"));
    s.cut_off(&[lacks]);
    // Till then the other one votes in its place.
    s.wait(55_000);
    s.hold(None, None, is_map);
    s.hold(None, Some(other), is_paxos);
    s.freeze(forgets);
    s.wait(12_000);
    s.ask(0, Kind::Put, x, has);
    s.wait(3_000);
    s.ask(1, Kind::Get, x, has);
    s.cut_off(&[has]);
    s.let_go(false);
    s.forgets(forgets);
    s.wait(40_000);
    s.ask(1, Kind::Get, x, lacks);
    s.heal();
    s.rests();
}

/// `UnanimousBirth`: two of three nodes begin a store that the third is not told of, and two more join it. The first two
/// lose their disks, and begin another store with the third.
pub fn two_births(clauses: Clauses) {
    let mut s = Script { world: world(3, 1, clauses, moving(2)), log: String::new() };
    let late = |world: &mut World, late: u64| {
        world.network.lag_ms.iter_mut().for_each(|lag_ms| lag_ms[2] = [0, 0, 0, late]);
    };
    late(&mut s.world, 600_000);
    s.wait(8_000);
    if s.world.codec.is_none() {
        // They wait for the third, as they should.
        late(&mut s.world, 0);
    }
    for n in [3, 4] {
        s.start(n);
    }
    s.until("the store is born", |world| world.codec.is_some());
    s.wait(1_000);
    let x = s.key(1, 0);
    s.add_member(0, 1, 3);
    s.add_member(0, 1, 4);
    s.ask(0, Kind::Put, x, 3);
    s.wait(2_000);
    s.take_disk(0);
    s.take_disk(1);
    s.cut_between(&[0, 1, 2], &[3, 4]);
    late(&mut s.world, 0);
    s.start(0);
    s.start(1);
    s.wait(10_000);
    s.heal();
    s.rests();
}

/// `ContextClock`: two clients write x and y in different shards, one x first, one y, and the node where x is written first is five seconds
/// ahead. What each writes second is given a timestamp by a node that has seen nothing of the first.
pub fn two_keys_at_a_fast_clock(clauses: Clauses) {
    let mut s = Script::with(4, 2, clauses, moving(0));
    let (one, two) = (s.members(1), s.members(2));
    let (x, y) = (s.key(2, 0), s.key(1, 0));
    s.world.nodes[two[0]].skew_ms = 5_000;
    s.hold(Some(two[0]), Some(two[1]), is_operations);
    s.hold(None, None, is_fill);
    s.ask(0, Kind::Put, x, two[0]);
    s.ask(0, Kind::Put, y, one[0]);
    s.ask(1, Kind::Put, y, one[1]);
    s.ask(1, Kind::Put, x, two[1]);
    s.let_go(true);
    s.rests();
    s.ask(0, Kind::Get, y, one[0]);
    s.ask(1, Kind::Get, x, two[1]);
}
