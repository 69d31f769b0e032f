//! Stores that begin without a node that does not come up.

use super::*;
use crate::machine::agreement::NotBorn;
use crate::machine::message::Wanted;

impl Lockstep {
    fn birth(&mut self, at: usize, without: usize, confirmed: bool) -> Result<u64, NotChanged> {
        self.change(at, Wanted::Birth { without: node(without), confirmed })
    }

    fn not_born(&mut self, at: usize, without: usize) -> NotBorn {
        match self.birth(at, without, true) {
            Err(NotChanged::NotBorn(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Nodes of a store to be, of which these do not come up.
    fn unborn(nodes: usize, shards: u32, down: &[usize]) -> Self {
        let mut all = Self::new(nodes, shards);
        for number in down {
            all.hosts.get_mut(&node(*number)).unwrap().up = false;
        }
        all.run_ms(4_000);
        all
    }
}

#[test]
fn a_node_is_left_out_and_takes_its_place_when_it_comes_up() {
    for (asked, without) in [(3, 5), (1, 5), (4, 1)] {
        let mut all = Lockstep::unborn(5, 2, &[without]);
        assert!(!all.machine(asked).map().is_born());
        let left = if without == 1 { 2 } else { 1 };
        let shard = ShardId(if without == 1 { 1 } else { 2 });
        let cost = NotBorn::Unconfirmed { node: node(without), shard, left };
        assert_eq!(all.birth(asked, without, false), Err(NotChanged::NotBorn(cost)));
        assert_eq!(all.birth(asked, without, true), Ok(0));
        all.run_ms(1_000);
        let there: Vec<_> = (1..=5).filter(|number| *number != without).collect();
        let map = all.machine(asked).map().clone();
        for number in &there {
            assert_eq!(all.machine(*number).map(), &map, "node{number}");
            assert_eq!(all.machine(*number).readiness(all.now), Ok(()));
        }
        let context = all.put(there[0], "key1", "1", &Context::empty());

        all.hosts.get_mut(&node(without)).unwrap().up = true;
        all.connect_all();
        all.run_ms(5_000);
        assert_eq!(all.machine(without).map().cluster_id, map.cluster_id);
        assert_eq!(all.machine(without).readiness(all.now), Ok(()));
        all.check_settled(5);
        assert!(matches!(all.get(without, "key1", &context), Response::Value { .. }));
    }
}

#[test]
fn nodes_may_start_in_any_order_with_minutes_between_them() {
    for order in [[1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 4, 2]] {
        let mut all = Lockstep::unborn(4, 2, &order[1..]);
        for number in &order[1..] {
            assert!(!all.machine(order[0]).map().is_born(), "born without node{number}");
            all.run_ms(150_000);
            all.hosts.get_mut(&node(*number)).unwrap().up = true;
            all.connect_all();
            all.run_ms(1_000);
        }
        for number in order {
            assert_eq!(all.machine(number).readiness(all.now), Ok(()), "node{number} of {order:?}");
        }
        all.check_settled(4);
        let context = all.put(order[0], "key1", "1", &Context::empty());
        assert!(matches!(all.get(order[3], "key1", &context), Response::Value { .. }));
    }
}

#[test]
fn who_is_up_or_missed_by_more_is_not_left_out() {
    let mut all = Lockstep::unborn(4, 2, &[3, 4]);
    assert_eq!(all.not_born(1, 2), NotBorn::IsUp(node(2)));
    assert_eq!(all.not_born(1, 1), NotBorn::IsUp(node(1)));
    assert_eq!(all.not_born(1, 9), NotBorn::NotInView(node(9)));
    assert_eq!(all.not_born(1, 3), NotBorn::Waiting("waiting for node4:8085 to start".into()));
    let mut two = Lockstep::unborn(2, 1, &[2]);
    assert_eq!(two.not_born(1, 2), NotBorn::OnlyTwo);
    let mut born = Lockstep::new(2, 1);
    born.run_ms(2_000);
    assert_eq!(born.not_born(1, 2), NotBorn::Born);
}

#[test]
fn two_operators_who_leave_out_different_nodes_make_one_store() {
    // Nodes 1 and 2 reach node 3 and not each other: each is told to begin without the other.
    let mut all = Lockstep::new(3, 1);
    all.cut.extend([(node(1), node(2)), (node(2), node(1))]);
    all.run_ms(4_000);
    let (first, second) = (
        all.begin_change(1, Wanted::Birth { without: node(2), confirmed: true }),
        all.begin_change(2, Wanted::Birth { without: node(1), confirmed: true }),
    );
    let outcomes = [all.changed(first), all.changed(second)];
    assert!(outcomes.contains(&Ok(0)), "{outcomes:?}");
    all.cut.clear();
    all.connect_all();
    all.run_ms(10_000);
    for number in 2..=3 {
        assert_eq!(all.machine(number).map(), all.machine(1).map(), "node{number}");
    }
    all.check_settled(3);
}

#[test]
fn one_that_comes_up_while_it_is_left_out_makes_no_second_store() {
    let mut all = Lockstep::unborn(4, 2, &[4]);
    // What the asked node proposes is on its way while node 4 comes up and the lowest proposes with all.
    for to in [1, 3] {
        all.slow.insert((node(2), node(to)), 300);
    }
    let asked = all.begin_change(2, Wanted::Birth { without: node(4), confirmed: true });
    all.run_ms(100);
    all.hosts.get_mut(&node(4)).unwrap().up = true;
    all.connect_all();
    assert_eq!(all.changed(asked), Ok(0));
    all.slow.clear();
    all.run_ms(10_000);
    for number in 2..=4 {
        assert_eq!(all.machine(number).map(), all.machine(1).map(), "node{number}");
    }
    all.check_settled(4);
}
