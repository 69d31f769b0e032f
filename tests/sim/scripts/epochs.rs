//! What a context's epoch is for: a node cut off under an older map lacks what was left out of contexts since, and must
//! be able to tell.

use entail::error::Code;
use entail::machine::message::Wanted;

use super::{Script, is_operations, is_report, moving};
use crate::clauses::Clauses;
use crate::oracle::Kind;
use crate::workload::Said;

const REFUSED: Said = Said::Error(Code::DependenciesUnsatisfied);

/// A store of three nodes in shard 1 and two in shard 2, or the like: the members of both.
fn two_shards(clauses: Clauses, late: usize) -> (Script, Vec<usize>, Vec<usize>) {
    let mut s = Script::with(5, 2, clauses, moving(late));
    let (one, two) = (s.members(1), s.members(2));
    assert_eq!((one.len(), two.len()), (3, 2));
    s.rests();
    (s, one, two)
}

/// `PruneEpoch` and `ContextEpoch`: what was stable is left out of a context; its epoch tells who was cut off before.
pub fn what_was_stable_without_one_cut_off(clauses: Clauses) {
    let (mut s, one, _) = two_shards(clauses, 0);
    let x = s.key(1, 0);
    s.give_up(one[0], one[2]);
    s.ask(0, Kind::Put, x, one[0]);
    s.wait(3_000);
    s.ask(1, Kind::Get, x, one[1]);
    assert_eq!(s.ask(1, Kind::Get, x, one[2]), REFUSED);
}

/// A write of a key in shard 1 that its third node does not get, nor hears of: it is open.
fn an_open_write(s: &mut Script, client: usize, one: &[usize]) -> usize {
    let x = s.key(1, 0);
    s.hold(Some(one[0]), Some(one[2]), is_operations);
    s.hold(Some(one[0]), Some(one[2]), is_report);
    s.hold(Some(one[1]), Some(one[2]), is_report);
    s.ask(client, Kind::Put, x, one[0]);
    x
}

/// `CoverCarried`: the reader's context covers the item, by a later write of the same stay, but has not taken in what
/// it carries.
pub fn a_covered_item_that_carries_what_is_open(clauses: Clauses) {
    let (mut s, one, two) = two_shards(clauses, 0);
    let (y, z) = (s.key(2, 0), s.key(2, 1));
    let x = an_open_write(&mut s, 0, &one);
    s.hold(Some(two[0]), Some(two[1]), is_report);
    s.ask(0, Kind::Put, y, two[0]);
    s.ask(2, Kind::Put, z, two[0]);
    s.ask(1, Kind::Get, z, two[1]);
    s.ask(1, Kind::Get, y, two[1]);
    assert_eq!(s.ask(1, Kind::Get, x, one[2]), REFUSED);
    s.let_go(true);
    s.rests();
}

/// `CollectCarried`: nothing is where a tombstone was that carried what is open.
pub fn nothing_where_a_tombstone_carried_what_is_open(clauses: Clauses) {
    let (mut s, one, two) = two_shards(clauses, 0);
    let y = s.key(2, 0);
    s.ask(0, Kind::Put, y, two[0]);
    s.rests();
    let x = an_open_write(&mut s, 1, &one);
    s.ask(1, Kind::Delete, y, two[0]);
    s.wait(6_000);
    assert_eq!(s.ask(0, Kind::Get, y, two[0]), Said::Nothing);
    assert_eq!(s.ask(0, Kind::Get, x, one[2]), REFUSED);
    s.let_go(true);
    s.rests();
}

/// `ItemEpoch`: what an item carried was stable, and left out, when it was written; the reader is told of it by the
/// item's epoch alone.
pub fn an_item_that_carried_what_was_stable(clauses: Clauses) {
    let (mut s, one, two) = two_shards(clauses, 0);
    let (x, y) = (s.key(1, 0), s.key(2, 0));
    s.give_up(one[0], one[2]);
    s.ask(0, Kind::Put, x, one[0]);
    s.wait(3_000);
    s.ask(0, Kind::Put, y, two[0]);
    s.ask(1, Kind::Get, y, two[1]);
    assert_eq!(s.ask(1, Kind::Get, x, one[2]), REFUSED);
}

/// `CoverEpoch`: the reader's context covers the item, by a later write of the same stay, but has not taken it in.
pub fn a_covered_item_that_carried_what_was_stable(clauses: Clauses) {
    let (mut s, one, two) = two_shards(clauses, 0);
    let (x, y, z) = (s.key(1, 0), s.key(2, 0), s.key(2, 1));
    s.give_up(one[0], one[2]);
    s.ask(0, Kind::Put, x, one[0]);
    s.wait(3_000);
    // The second node of shard 2 does not learn that anything of the first is stable.
    s.hold(Some(two[0]), Some(two[1]), is_report);
    s.ask(0, Kind::Put, y, two[0]);
    s.ask(2, Kind::Put, z, two[0]);
    s.ask(1, Kind::Get, z, two[1]);
    s.ask(1, Kind::Get, y, two[1]);
    assert_eq!(s.ask(1, Kind::Get, x, one[2]), REFUSED);
}

/// `Floor`: a reader finds nothing where a tombstone was collected; who was cut off before still has the value.
pub fn nothing_where_a_tombstone_was(clauses: Clauses) {
    let (mut s, one, _) = two_shards(clauses, 0);
    let x = s.key(1, 0);
    s.ask(0, Kind::Put, x, one[0]);
    s.rests();
    s.give_up(one[0], one[2]);
    s.ask(1, Kind::Delete, x, one[0]);
    s.until_collected(&one[..2]);
    assert_eq!(s.ask(0, Kind::Get, x, one[0]), Said::Nothing);
    assert_eq!(s.ask(0, Kind::Get, x, one[2]), REFUSED);
}

/// `FillFloor`: the same, read at a node that was filled after the tombstone was collected.
pub fn nothing_at_a_node_that_joined_later(clauses: Clauses) {
    let (mut s, one, _) = two_shards(clauses, 1);
    let (x, late) = (s.key(1, 0), 5);
    s.ask(0, Kind::Put, x, one[0]);
    s.rests();
    s.give_up(one[0], one[2]);
    s.ask(1, Kind::Delete, x, one[0]);
    s.until_collected(&one[..2]);
    s.add_member(one[0], 1, late);
    assert_eq!(s.ask(0, Kind::Get, x, late), Said::Nothing);
    assert_eq!(s.ask(0, Kind::Get, x, one[2]), REFUSED);
}

/// `FloorItem`: what the collected tombstone carried is of another partition, whose row has changed later.
pub fn nothing_where_a_tombstone_carried_something(clauses: Clauses) {
    let (mut s, one, two) = two_shards(clauses, 0);
    let (x, y) = (s.key(1, 0), s.key(2, 0));
    s.ask(0, Kind::Put, y, two[0]);
    s.rests();
    s.give_up(one[0], one[2]);
    s.ask(1, Kind::Put, x, one[0]);
    s.ask(1, Kind::Delete, y, two[0]);
    s.until_collected(&two);
    assert_eq!(s.ask(0, Kind::Get, y, two[0]), Said::Nothing);
    assert_eq!(s.ask(0, Kind::Get, x, one[2]), REFUSED);
}

/// `EmptyFloor`: all that a shard held was given up, and it begins anew. Who was told that a write is lost is not shown
/// it again by a process that was given up and does not know.
pub fn nothing_where_all_was_given_up(clauses: Clauses) {
    let (mut s, one, two) = two_shards(clauses, 0);
    let x = s.key(2, 0);
    s.ask(0, Kind::Put, x, two[0]);
    s.rests();
    s.cut_off(&two);
    s.wait(4_000);
    for n in two.clone() {
        let node = s.addr(n);
        s.change(one[0], Wanted::Forget { node, confirmed: true });
        // To the others its disk is lost, though the process goes on.
        s.world.nodes[n].dead = true;
        s.world.lose_copies(n, None, "");
    }
    s.change(one[0], Wanted::Reshard(1));
    assert_eq!(s.ask(0, Kind::Get, x, one[0]), Said::Nothing);
    assert_eq!(s.ask(0, Kind::Get, x, two[0]), REFUSED, "a write that was told to be lost is shown again");
}

/// `NextStay`: a write of a stay that a node cut off has never heard of. It is not closed there: it is of a newer map.
pub fn a_write_of_a_stay_that_is_unknown(clauses: Clauses) {
    let (mut s, one, _) = two_shards(clauses, 1);
    let (x, late) = (s.key(1, 0), 5);
    s.cut_off(&one[2..]);
    s.wait(4_000);
    s.add_member(one[0], 1, late);
    s.ask(0, Kind::Put, x, late);
    assert_eq!(s.ask(0, Kind::Get, x, one[2]), REFUSED);
    s.heal();
    s.rests();
}
