//! What is not done: changes that a store in this state can't take, and questions that nobody is there to answer.

use super::*;
use crate::cluster::change::ChangeError;
use crate::cluster::plan::PlanError;
use crate::machine::message::Wanted;

fn refused<T: Into<ChangeError>>(why: T) -> Result<u64, NotChanged> {
    Err(NotChanged::Refused(why.into()))
}

#[test]
fn what_nobody_live_holds_is_not_moved_and_not_counted() {
    let mut all = Lockstep::new(6, 3);
    all.run_ms(2_000);
    let context = all.sixty(6);
    let of_shard = |all: &Lockstep, shard: usize| all.machine(1).map().layout.shards[shard].clone();
    assert_eq!(of_shard(&all, 1), [node(3), node(4)]);
    // Three of five voters are left.
    for number in [3, 4] {
        all.stop(number);
    }
    all.run_ms(1_000);
    let map = all.machine(1).map().clone();
    let outcome = all.change(1, Wanted::Reshard(2));
    let Err(NotChanged::Refused(ChangeError::Plan(PlanError::ShardUnavailable(partition)))) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(map.layout.partitions[partition.0 as usize], ShardId(2));
    all.run_ms(1_000);
    assert_eq!(all.machine(1).map().layout, map.layout, "nothing changes");
    assert_eq!(all.machine(1).map().target, None);
    for number in [1, 2, 5, 6] {
        let count = |shard| Request::KeyCount { shard: ShardId(shard) };
        assert_eq!(all.ask(number, count(2)), Response::Error(Code::ShardUnavailable));
        assert!(matches!(all.ask(number, count(1)), Response::KeyCount(keys) if keys > 0));
    }
    for number in [3, 4] {
        all.hosts.get_mut(&node(number)).unwrap().up = true;
    }
    all.connect_all();
    all.run_ms(2_000);
    assert_eq!(all.change(1, Wanted::Reshard(2)), Ok(0));
    all.check_sixty(6, &context);
}

#[test]
fn the_last_live_one_that_holds_keys_stays() {
    let mut all = Lockstep::new(5, 2);
    all.run_ms(2_000);
    let context = all.sixty(5);
    assert_eq!(all.machine(1).map().layout.shards[1], [node(4), node(5)]);
    all.stop(4);
    all.run_ms(1_000);
    assert_eq!(all.change(1, Wanted::Remove(node(5))), refused(PlanError::LastHolder(ShardId(2))));
    assert!(all.machine(1).view(all.now).contains(&node(5)));
    all.hosts.get_mut(&node(4)).unwrap().up = true;
    all.connect_all();
    all.run_ms(2_000);
    assert_eq!(all.change(1, Wanted::Remove(node(5))), Ok(0), "the other holds them");
    all.run_ms(2_000);
    all.check_sixty(4, &context);
}

#[test]
fn shards_are_those_before_until_a_reshard_is_done_and_nothing_else_begins() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    all.throttle(16 << 10);
    for n in 0..40 {
        all.put(1, &format!("key{n}"), &"x".repeat(40_000), &Context::empty());
    }
    let before = all.machine(1).map().layout.clone();
    let own: Vec<_> = (1..=6).map(|number| all.machine(number).own_shard()).collect();
    let id = all.begin_change(2, Wanted::Reshard(3));
    let (member, other) = (before.shards[0][0].clone(), before.shards[1][0].clone());
    let add = |shard, node: &NodeAddr| Wanted::AddMember { shard: ShardId(shard), node: node.clone() };
    let mut seen = 0;
    while !all.changes.contains_key(&id) {
        for number in 1..=6 {
            let machine = all.machine(number);
            if machine.map().target.is_some() {
                assert_eq!(machine.map().layout, before);
                assert_eq!(machine.own_shard(), own[number - 1]);
            }
        }
        if seen == 20 {
            assert_eq!(all.change(4, Wanted::Reshard(1)), refused(ChangeError::InProgress));
            assert_eq!(all.change(4, add(1, &other)), refused(ChangeError::InProgress));
            assert_eq!(all.change(4, add(9, &other)), refused(PlanError::NoSuchShard));
            assert_eq!(all.change(4, add(1, &node(9))), refused(PlanError::NodeNotInView));
            assert_eq!(all.change(4, add(1, &member)), refused(PlanError::AlreadyMember));
        }
        seen += 1;
        all.run_ms(10);
    }
    assert!(seen > 20, "too quick to be looked at");
    assert_eq!(all.changed(id), Ok(0));
    assert_eq!(all.machine(5).map().layout.shards.len(), 3);
}

#[test]
fn partitions_that_do_not_fit_at_once_follow_each_other_without_a_pause() {
    let mut all = Lockstep::new(6, 2);
    all.run_ms(2_000);
    // A node is given 2 MiB at once: one of these after the other.
    for n in 0..40 {
        all.put(1, &format!("key{n}"), &"x".repeat(400_000), &Context::empty());
    }
    assert_eq!(all.change(1, Wanted::Remove(node(6))), Ok(0));
    assert_eq!(all.change(1, Wanted::Admit(node(6))), Ok(0));
    all.run_ms(2_000);
    let epoch = all.machine(1).map().epoch.0;
    assert_eq!(all.change(1, Wanted::AddMember { shard: ShardId(1), node: node(6) }), Ok(0));
    let (status, maps) = (all.machine(1).reshard_status(all.now), all.machine(1).map().epoch.0 - epoch);
    assert!(maps >= 4 && u64::from(status.to_move) >= 4, "{maps} maps, {status:?}");
    // With a second between two maps this took more than four.
    assert!(status.elapsed_ms < 600 * maps, "{maps} maps, {status:?}");
    // What is small now does not count as what it was.
    for n in 0..40 {
        all.put(1, &format!("key{n}"), "y", &Context::empty());
    }
    assert_eq!(all.change(1, Wanted::Remove(node(6))), Ok(0));
    assert_eq!(all.change(1, Wanted::Admit(node(6))), Ok(0));
    all.run_ms(2_000);
    let epoch = all.machine(1).map().epoch.0;
    assert_eq!(all.change(1, Wanted::AddMember { shard: ShardId(1), node: node(6) }), Ok(0));
    let small = all.machine(1).map().epoch.0 - epoch;
    assert!(small < maps, "{small} maps, and {maps} when it was large");
}
