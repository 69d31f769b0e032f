//! What the nodes look like from outside, and what changed between two looks, in words.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::super::ask::{Question, ask};
use super::nodes::{Node, Nodes, Plan};

/// A node that takes longer for a look has stalled.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// One node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How the process that was started here ended; `None` while it runs.
    pub ended: Option<String>,
    /// What `/readyz` said: ready, or why not; `None` when nobody answers.
    pub ready: Option<Result<(), String>>,
    /// Its view.
    pub view: Vec<String>,
    /// Its shard.
    pub shard: Option<u64>,
    /// The line that runs it, for a node that ended.
    pub command: String,
}

impl Seen {
    /// Its readiness in words.
    pub fn readiness(&self) -> &str {
        match &self.ready {
            Some(Ok(())) => "ready",
            Some(Err(reason)) => reason,
            None => "does not answer",
        }
    }
}

/// Looks at all nodes at the same time.
pub async fn look(plan: &Plan, nodes: &mut Nodes) -> Vec<Seen> {
    let mut looks = JoinSet::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let address = node.address.to_string();
        looks.spawn(async move { (index, look_at(&address).await) });
    }
    let mut seen = vec![Seen::default(); plan.nodes.len()];
    while let Some(look) = looks.join_next().await {
        // A look that panicked is a bug; to go on as if nobody answered would hide it.
        let (index, look) = look.expect("a look does not panic");
        seen[index] = look;
    }
    for ((seen, ended), node) in seen.iter_mut().zip(nodes.ended()).zip(&plan.nodes) {
        if ended.is_some() {
            seen.command = plan.command_line(node);
        }
        seen.ended = ended;
    }
    seen
}

async fn look_at(address: &str) -> Seen {
    let Ok(answer) = ask(Question::get(address, "/readyz", LOOK_WITHIN)).await else { return Seen::default() };
    let ready = if answer.status.is_success() {
        Ok(())
    } else {
        Err(answer.json()["reason"].as_str().unwrap_or("not ready").to_owned())
    };
    let view = asked(address, "/key-value-store-view").await;
    let view = view["view"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let shard = asked(address, "/key-value-store-shard/node-shard-id").await["shard-id"].as_u64();
    Seen { ready: Some(ready), view: view.collect(), shard, ..Seen::default() }
}

async fn asked(address: &str, path: &str) -> Value {
    ask(Question::get(address, path, LOOK_WITHIN)).await.map_or(Value::Null, |answer| answer.json())
}

/// One line for each thing that is different now.
pub fn changes(nodes: &[Node], before: &[Seen], now: &[Seen]) -> Vec<String> {
    let mut lines = Vec::new();
    for (node, (before, now)) in nodes.iter().zip(before.iter().zip(now)) {
        if let (None, Some(status)) = (&before.ended, &now.ended) {
            lines.push(format!("{} died ({status}); start it again with: {}", node.name, now.command));
        } else if before.ready != now.ready {
            lines.push(match &now.ready {
                Some(Ok(())) => format!("{} is ready", node.name),
                Some(Err(reason)) => format!("{} is not ready: {reason}", node.name),
                None => format!("{} does not answer", node.name),
            });
        }
        match (before.shard, now.shard) {
            (Some(old), Some(new)) if old != new => lines.push(format!("{}: shard {old} → {new}", node.name)),
            (None, Some(new)) if before.ready.is_some() => lines.push(format!("{} is in shard {new}", node.name)),
            (Some(old), None) if now.ready.is_some() => lines.push(format!("{} left shard {old}", node.name)),
            _ => {}
        }
    }
    lines.extend(nodes.iter().filter_map(|node| moved(node, nodes, before, now)));
    lines
}

/// In whose view a node appeared or from whose it vanished since the last look; only nodes that answered both times
/// can tell.
fn moved(node: &Node, nodes: &[Node], before: &[Seen], now: &[Seen]) -> Option<String> {
    let has = |seen: &Seen| seen.view.iter().any(|entry| entry == node.address.as_str());
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    for (other, (before, now)) in nodes.iter().zip(before.iter().zip(now)) {
        if before.ready.is_none() || now.ready.is_none() {
            continue;
        }
        match (has(before), has(now)) {
            (true, false) => gone.push(other.name.as_str()),
            (false, true) => back.push(other.name.as_str()),
            (true, true) | (false, false) => {}
        }
    }
    match (gone.is_empty(), back.is_empty()) {
        (false, true) => Some(format!("{} left the view of {}", node.name, gone.join(", "))),
        (true, false) => Some(format!("{} is in the view of {}", node.name, back.join(", "))),
        (false, false) => {
            Some(format!("{} left the view of {} and is in that of {}", node.name, gone.join(", "), back.join(", ")))
        }
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn three() -> (Vec<Node>, Vec<Seen>) {
        let plan = Plan::new(3, 1, 9001, Path::new("x")).unwrap();
        let view: Vec<String> = plan.nodes.iter().map(|node| node.address.to_string()).collect();
        let seen = Seen { ready: Some(Ok(())), view, shard: Some(1), ..Seen::default() };
        (plan.nodes, vec![seen; 3])
    }

    #[test]
    fn nothing_changed_is_no_line() {
        let (nodes, seen) = three();
        assert!(changes(&nodes, &seen, &seen).is_empty());
    }

    #[test]
    fn a_node_that_dies_leaves_the_others_views_and_comes_back() {
        let (nodes, whole) = three();
        let mut died = whole.clone();
        died[1] = Seen { ended: Some("signal: 9".into()), command: "entail serve".into(), ..Seen::default() };
        assert_eq!(changes(&nodes, &whole, &died), ["node2 died (signal: 9); start it again with: entail serve"]);
        let mut out = died.clone();
        out[0].view.remove(1);
        out[2].view.remove(1);
        assert_eq!(changes(&nodes, &died, &out), ["node2 left the view of node1, node3"]);
        let mut back = out.clone();
        back[1] = Seen { ended: died[1].ended.clone(), command: died[1].command.clone(), ..whole[1].clone() };
        back[0].view = whole[0].view.clone();
        assert_eq!(changes(&nodes, &out, &back), ["node2 is ready", "node2 is in the view of node1"]);
        let mut again = back.clone();
        again[1].ready = None;
        assert_eq!(changes(&nodes, &back, &again), ["node2 does not answer"]);
    }

    #[test]
    fn shards_and_readiness_are_told() {
        let (nodes, whole) = three();
        let mut other = whole.clone();
        other[0].shard = Some(2);
        other[1].shard = None;
        other[2].ready = Some(Err("waiting for node1".into()));
        let lines = ["node1: shard 1 → 2", "node2 left shard 1", "node3 is not ready: waiting for node1"];
        assert_eq!(changes(&nodes, &whole, &other), lines);
        other[2].ready = None;
        assert_eq!(changes(&nodes, &whole, &other)[2], "node3 does not answer");
    }
}
