//! How much joins at once.

use super::*;

#[test]
fn a_node_joins_as_much_at_once_as_fits() {
    let sized = |bytes: [u64; 3]| {
        let mut case = Case::new("0@1S 1@2S", &[1, 2, 3]);
        case.map.rows = vec![case.map.rows[0].clone(); 3];
        case.map.layout.partitions = vec![ShardId(1); 3];
        case.sight.bytes = Arc::new((0..).map(PartitionId).zip(bytes).collect());
        let next = case.next().unwrap();
        next.steps.iter().map(|(partition, _)| partition.0).collect::<Vec<_>>()
    };
    assert_eq!(sized([JOIN_BYTES / 2, JOIN_BYTES / 2, 1]), [0, 1]);
    assert_eq!(sized([0, 0, 0]), [0, 1, 2]);
    assert_eq!(sized([2 * JOIN_BYTES, 0, 0]), [0]);
    assert_eq!(sized([1, 2 * JOIN_BYTES, 1]), [0, 2]);
    // What is not known is as large as what is.
    let known = |bytes: &[u64]| {
        let mut case = Case::new("0@1S 1@2S", &[1, 2, 3]);
        case.map.rows = vec![case.map.rows[0].clone(); 6];
        case.map.layout.partitions = vec![ShardId(1); 6];
        case.sight.bytes = Arc::new((0..).map(PartitionId).zip(bytes.iter().copied()).collect());
        case.next().unwrap().steps.len()
    };
    assert_eq!(known(&[]), 6);
    assert_eq!(known(&[JOIN_BYTES / 4, JOIN_BYTES / 2]), 2);
    assert_eq!(known(&[JOIN_BYTES / 4, JOIN_BYTES / 4]), 4);
}

#[test]
fn a_next_map_can_wait_while_every_node_that_is_filled_would_be_filled_on() {
    let map = |rows: &[&str]| {
        let mut map = Case::new("0@1S", &[1]).map;
        map.rows = rows.iter().map(|row| Case::new(row, &[1]).map.rows[0].clone()).collect();
        map
    };
    let goes_on = |now: [&str; 2], next: [&str; 2]| all_go_on_filling(&map(&now), &map(&next));
    assert!(goes_on(["0@1S 1@2J", "0@1S 1@2J"], ["0@1S 1@2J", "0@1S 1@2S"]), "one of two is filled");
    assert!(!goes_on(["0@1S 1@2J", "0@1S 1@2J"], ["0@1S 1@2S", "0@1S 1@2S"]), "both are");
    assert!(!goes_on(["0@1S 1@2J", "0@1S"], ["0@1S 1@2S", "0@1S 1@2J"]), "what it is filled with next does not count");
    assert!(!goes_on(["0@1S 1@2J", "0@1S 1@3J"], ["0@1S 1@2J", "0@1S 1@3S"]), "node 3 would wait");
    assert!(!goes_on(["0@1S 1@2J 2@3J", "0@1S"], ["0@1S 1@2J", "0@1S 1@3J"]), "under a new name it begins anew");
    assert!(!goes_on(["0@1S", "0@1S"], ["0@1S 1@2J", "0@1S"]), "nobody is filled yet");
}

#[test]
fn who_is_back_joins_before_the_stay_that_it_held_is_closed() {
    let back = || Case::new("0@1L 1@2S 2@3S", &[1, 2, 3]).told(0, "0:5").told(1, "0:5").told(2, "0:5");
    back().becomes("0@1L 1@2S 2@3S 3@1J", &[Step::Joined]);
    back().without(ReconcileRule::CloseRejoined).becomes("1@2S 2@3S 3@1J", &[Step::Closed, Step::Joined]);
    // Its turn to join may not have come, as others of its partitions join first.
    let crowded = || {
        let mut case = back();
        case.map.rows = vec![case.map.rows[0].clone(); 2];
        case.map.layout.partitions = vec![ShardId(1); 2];
        case.sight.bytes = Arc::new((0..).map(PartitionId).zip([JOIN_BYTES, JOIN_BYTES]).collect());
        let second = |stay| (PartitionId(1), StayId(stay));
        case.told.extend((0..3).map(|stay| (second(stay), case.told[&(P, StayId(stay))].clone())).collect::<Vec<_>>());
        case
    };
    assert_eq!(shown(&crowded().next().unwrap().map.rows[1]), "0@1L 1@2S 2@3S");
    // One that is not wanted any more, or is not to be named for now, is closed as ever.
    Case::new("0@1L 1@2S 2@3S", &[2, 3])
        .told(0, "0:5")
        .told(1, "0:5")
        .told(2, "0:5")
        .becomes("1@2S 2@3S", &[Step::Closed]);
    back().with(|c| c.sight.waiting = [(P, incarnation(1))].into()).becomes("1@2S 2@3S", &[Step::Closed]);
}
