//! What a proposer remembers of its peers from look to look.

use super::*;

#[test]
fn a_watch_counts_silence_and_standstill() {
    let map = Case::new("0@1S 1@2S 2@3J", &[1, 2, 3]).map;
    let mut watch = Watch::default();
    let mut look = |now_ms, map: &ClusterMap, heard: &[u32], filled| {
        let all: Arc<BTreeSet<_>> = Arc::new(heard.iter().copied().map(node).collect());
        let hears = heard.iter().map(|n| (node(*n), all.clone())).collect();
        watch.look(now_ms, map, Present { hears, ..Present::default() }, &[((P, StayId(2)), filled)].into())
    };
    let all = [1, 2, 3, 4, 5];
    assert!(look(0, &map, &all, 1).silent_ms.is_empty());
    assert_eq!(look(1_000, &map, &[1, 2, 3], 1).silent_ms, [(node(4), 0), (node(5), 0)].into());
    let later = look(30_000, &map, &[1, 2, 3, 4], 2);
    assert_eq!(later.silent_ms, [(node(5), 0)].into());
    assert!(later.stalled.is_empty(), "it moved");
    assert!(look(30_000 + STALLED_MS - 1, &map, &all, 2).stalled.is_empty());
    let stalled = look(60_000, &map, &all, 2);
    assert_eq!((stalled.stalled.len(), stalled.waiting.len()), (1, 1));
    // Removed, it is named again after twice the time, and then after twice as long.
    let without = Case::new("0@1S 1@2S", &[1, 2, 3]).map;
    assert_eq!(look(60_000 + 2 * STALLED_MS - 1, &without, &all, 0).waiting.len(), 1);
    assert_eq!(look(60_000 + 2 * STALLED_MS, &without, &all, 0).waiting.len(), 0);
    look(130_000, &map, &all, 0);
    assert_eq!(look(160_000, &map, &all, 0).waiting.len(), 1);
    assert_eq!(look(160_000 + 4 * STALLED_MS - 1, &without, &all, 0).waiting.len(), 1);
    assert_eq!(look(160_000 + 4 * STALLED_MS, &without, &all, 0).waiting.len(), 0);
}

#[test]
fn a_watch_tells_silence_no_more_exactly_than_it_matters() {
    let map = Case::new("0@1S 1@2S", &[1, 2]).map;
    let mut watch = Watch::default();
    let all: Arc<BTreeSet<_>> = Arc::new([1, 2, 3, 4].map(node).into());
    let hears: BTreeMap<_, _> = all.iter().map(|node| (node.clone(), all.clone())).collect();
    let mut at = |now_ms| {
        let present = Present { hears: hears.clone(), ..Present::default() };
        watch.look(now_ms, &map, present, &BTreeMap::new()).silent_ms.get(&node(5)).copied()
    };
    let silent_ms = [7, 6 + REPLACED_MS, 7 + REPLACED_MS, 6 + ABSENT_MS, 7 + ABSENT_MS].map(&mut at);
    assert_eq!(silent_ms, [0, 0, REPLACED_MS, REPLACED_MS, ABSENT_MS].map(Some));
}

#[test]
fn who_was_out_of_reach_while_its_fill_stood_still_does_not_wait() {
    let map = Case::new("0@1S 1@2S 2@3J", &[1, 2, 3]).map;
    let mut watch = Watch::default();
    let mut look = |now_ms, map: &ClusterMap, heard: &[u32]| {
        let all: Arc<BTreeSet<_>> = Arc::new(heard.iter().copied().map(node).collect());
        let hears = all.iter().map(|node| (node.clone(), all.clone())).collect();
        watch.look(now_ms, map, Present { hears, ..Present::default() }, &BTreeMap::new())
    };
    look(0, &map, &[1, 2, 3]);
    let away = look(STALLED_MS, &map, &[1, 2]);
    assert_eq!((away.stalled.len(), away.waiting.len()), (1, 0));
    let without = Case::new("0@1S 1@2S", &[1, 2, 3]).map;
    assert!(look(STALLED_MS + 1, &without, &[1, 2, 3]).waiting.is_empty(), "it is back, and named at once");
}
