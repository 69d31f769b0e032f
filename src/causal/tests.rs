//! The laws that replication stands on: joins and merges are commutative, associative and idempotent, so replicas that
//! were told the same things are the same, in whatever order and however often they were told.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::context::Context;
use super::item::Item;
use super::vector::VersionVector;
use crate::types::{Dot, Epoch, PartitionId, Seq, StayId, Timestamp};

fn entries() -> impl Strategy<Value = Vec<(StayId, Seq)>> {
    prop::collection::vec((0u32..6, 0u64..6).prop_map(|(stay, seq)| (StayId(stay), seq)), 0..10)
}

fn vector() -> impl Strategy<Value = VersionVector> {
    entries().prop_map(VersionVector::from_iter)
}

type ContextEntries = Vec<(PartitionId, StayId, Seq)>;

fn context_entries() -> impl Strategy<Value = ContextEntries> {
    let entry = (0u32..4, 0u32..3, 0u64..5).prop_map(|(p, stay, seq)| (PartitionId(p), StayId(stay), seq));
    prop::collection::vec(entry, 0..10)
}

fn context_from(epoch: u64, entries: &ContextEntries) -> Context {
    let mut context = Context::empty();
    context.raise_epoch(Epoch(epoch));
    for &(partition, stay, seq) in entries {
        context.raise(partition, stay, seq);
    }
    context
}

fn context() -> impl Strategy<Value = Context> {
    (0u64..5, context_entries()).prop_map(|(epoch, entries)| context_from(epoch, &entries))
}

/// Items as one store makes them: the dot decides everything else, as no dot names two writes.
fn item() -> impl Strategy<Value = Item> {
    (0u32..3, 1u64..5).prop_map(|(stay, seq)| Item {
        value: (seq % 2 == 0).then(|| Bytes::from(format!("{stay}.{seq}"))),
        dot: Dot { stay: StayId(stay), seq },
        timestamp: Timestamp(seq / 2),
        carried: context_from(seq, &vec![(PartitionId(9), StayId(stay), seq)]),
    })
}

fn join(a: &VersionVector, b: &VersionVector) -> VersionVector {
    let mut joined = a.clone();
    let grew = joined.join(b);
    assert_eq!(grew, joined != *a, "join tells whether something grew");
    joined
}

fn meet(a: &VersionVector, b: &VersionVector) -> VersionVector {
    let mut met = a.clone();
    met.meet(b);
    met
}

fn joined(a: &Context, b: &Context) -> Context {
    let mut joined = a.clone();
    joined.join(b);
    joined
}

/// What a replica keeps for one key after these versions came, in this order.
fn kept<'a>(items: impl IntoIterator<Item = &'a Item>) -> Option<Item> {
    items
        .into_iter()
        .fold(None, |stored, item| if item.wins_over(stored.as_ref()) { Some(item.clone()) } else { stored })
}

proptest! {
    #[test]
    fn a_vector_is_the_greatest_of_each_stay_sorted_and_without_zeros(entries in entries()) {
        let mut model = BTreeMap::new();
        let mut vector = VersionVector::default();
        for &(stay, seq) in &entries {
            let before = model.get(&stay).copied().unwrap_or(0);
            prop_assert_eq!(vector.raise(stay, seq), seq > before);
            if seq > before {
                model.insert(stay, seq);
            }
        }
        prop_assert_eq!(vector.len(), model.len());
        prop_assert_eq!(vector.is_empty(), model.is_empty());
        prop_assert_eq!(vector.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn vectors_join_as_a_lattice(a in vector(), b in vector(), c in vector()) {
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(join(&a, &a), a.clone());
        prop_assert!(join(&a, &b).dominates(&a) && join(&a, &b).dominates(&b));
        // The least of all that are above both.
        prop_assert_eq!(c.dominates(&a) && c.dominates(&b), c.dominates(&join(&a, &b)));
    }

    #[test]
    fn vectors_meet_at_their_greatest_lower_bound(a in vector(), b in vector(), c in vector()) {
        prop_assert_eq!(meet(&a, &b), meet(&b, &a));
        prop_assert_eq!(meet(&meet(&a, &b), &c), meet(&a, &meet(&b, &c)));
        prop_assert_eq!(meet(&a, &a), a.clone());
        prop_assert!(meet(&a, &b).iter().all(|(_, seq)| seq > 0), "a meet keeps no zeros");
        prop_assert_eq!(a.dominates(&c) && b.dominates(&c), meet(&a, &b).dominates(&c));
        prop_assert_eq!(join(&a, &meet(&a, &b)), a.clone());
        prop_assert_eq!(meet(&a, &join(&a, &b)), a);
    }

    #[test]
    fn domination_is_a_partial_order_on_what_is_covered(a in vector(), b in vector(), stay in 0u32..6, seq in 1u64..6) {
        prop_assert_eq!(a.dominates(&b) && b.dominates(&a), a == b);
        prop_assert_eq!(a.dominates(&b), join(&a, &b) == a);
        let dot = Dot { stay: StayId(stay), seq };
        prop_assert_eq!(join(&a, &b).covers(dot), a.covers(dot) || b.covers(dot));
        prop_assert_eq!(meet(&a, &b).covers(dot), a.covers(dot) && b.covers(dot));
    }

    #[test]
    fn a_context_is_the_same_in_whatever_order_it_was_raised(
        epoch in 0u64..5,
        entries in context_entries(),
        swaps in prop::collection::vec(any::<prop::sample::Index>(), 10),
    ) {
        let context = context_from(epoch, &entries);
        let mut shuffled = entries.clone();
        for (at, with) in swaps.iter().enumerate().take(entries.len()) {
            shuffled.swap(at, with.index(entries.len()));
        }
        shuffled.extend(entries);
        prop_assert_eq!(&context_from(epoch, &shuffled), &context);
        let listed: Vec<_> = context.iter().collect();
        prop_assert!(listed.windows(2).all(|w| (w[0].0, w[0].1) < (w[1].0, w[1].1)), "sorted, each once");
        prop_assert!(listed.iter().all(|e| e.2 > 0), "without zeros");
    }

    #[test]
    fn contexts_join_as_a_lattice(a in context(), b in context(), c in context()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a.clone());
        prop_assert_eq!(joined(&a, &Context::empty()), a.clone());
        prop_assert_eq!(joined(&a, &b).epoch(), a.epoch().max(b.epoch()));
        for (partition, stay, seq) in joined(&a, &b).iter() {
            prop_assert_eq!(seq, a.get(partition, stay).max(b.get(partition, stay)));
        }
    }

    #[test]
    fn a_context_lists_each_partition_on_its_own(context in context(), seq in 1u64..6) {
        let mut by_partition = Vec::new();
        for partition in (0..5).map(PartitionId) {
            by_partition.extend(context.of(partition).map(|(stay, seq)| (partition, stay, seq)));
            for stay in (0..4).map(StayId) {
                let seen = context.get(partition, stay);
                prop_assert_eq!(context.covers(partition, Dot { stay, seq }), seen >= seq);
                prop_assert_eq!(context.names(partition, Dot { stay, seq }), seen == seq);
            }
        }
        prop_assert_eq!(&by_partition, &context.iter().collect::<Vec<_>>());
        let mut kept = context.clone();
        kept.retain(|partition, stay, _| partition != PartitionId(1) && stay != StayId(2));
        by_partition.retain(|e| e.0 != PartitionId(1) && e.1 != StayId(2));
        prop_assert_eq!(by_partition, kept.iter().collect::<Vec<_>>());
        prop_assert_eq!(kept.epoch(), context.epoch());
    }

    #[test]
    fn items_merge_to_the_same_winner_in_any_order(a in item(), b in item(), c in item()) {
        prop_assert_eq!(kept([&a, &b]), kept([&b, &a]));
        prop_assert_eq!(kept([&a, &a]), Some(a.clone()));
        let winner = kept([&a, &b, &c]).unwrap();
        for order in [[&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
            prop_assert_eq!(kept(order), Some(winner.clone()));
        }
        // What two replicas kept merges like the writes themselves.
        let (left, right) = (kept([&a, &b]).unwrap(), kept([&b, &c]).unwrap());
        prop_assert_eq!(kept([&left, &right]), Some(winner));
    }

    #[test]
    fn precedence_is_a_total_order_by_timestamp_then_dot(a in item(), b in item(), c in item()) {
        prop_assert_eq!(a.precedence(&b), b.precedence(&a).reverse());
        prop_assert_eq!(a.precedence(&b) == Ordering::Equal, a.dot == b.dot);
        if a.timestamp > b.timestamp {
            prop_assert!(a.wins_over(Some(&b)) && !b.wins_over(Some(&a)));
        }
        if a.precedence(&b).is_le() && b.precedence(&c).is_le() {
            prop_assert!(a.precedence(&c).is_le());
        }
    }
}
