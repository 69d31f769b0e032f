//! What should happen in some history, so that a search that finds nothing wrong has looked.

use std::collections::BTreeSet;

use stateright::Property;

use super::{Bounds, Map, Named, Node, World};

pub fn sometimes() -> Vec<Property<Bounds>> {
    vec![
        Property::sometimes("a map of another attempt is taken over", |_, world: &World| {
            world.nodes.iter().any(|node| node.now.proposer.as_ref().is_some_and(|p| p.adopted.is_some()))
        }),
        Property::sometimes("a new voter proposes", |bounds: &Bounds, world: &World| {
            let proposes = |(at, node): (usize, &Node)| node.now.proposer.is_some() && !bounds.born.contains(&at);
            world.nodes.iter().enumerate().any(proposes)
        }),
        Property::sometimes("a question comes before its map", |_, world: &World| {
            world.network.iter().any(|letter| letter.epoch > world.nodes[letter.to].map.0.epoch.0 + 1)
        }),
        Property::sometimes("two proposals of one epoch are accepted", |_, world: &World| {
            let accepted = world.nodes.iter().filter_map(|node| node.synced.accepted.as_ref());
            let maps: BTreeSet<_> = accepted.map(|(_, next)| Named(next.clone())).collect();
            maps.iter().zip(maps.iter().skip(1)).any(|(a, b)| a.0.epoch() == b.0.epoch())
        }),
        Property::sometimes("who came back empty is bound", |bounds: &Bounds, world: &World| {
            let bound = |map: &Map| map.0.nodes.values().flatten().any(|bound| bound.0 > bounds.nodes as u128);
            world.decided.keys().any(bound)
        }),
    ]
}
