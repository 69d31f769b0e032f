//! What to paste into another terminal once the cluster is up.

use std::fmt::Write as _;

use super::nodes::Node;
use super::watch::Seen;

/// Addresses, then a short tour by curl: a session that writes at one node, reads at another, and keeps its context.
pub fn text(nodes: &[Node], seen: &[Seen]) -> String {
    let mut text = String::new();
    for (node, seen) in nodes.iter().zip(seen) {
        let shard = seen.shard.map_or("no shard".to_owned(), |shard| format!("shard {shard}"));
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {:<7} http://{}   {shard:<8}   log: {}", node.name, node.address, node.log.display());
    }
    let at = |index: usize| nodes[index % nodes.len()].address.as_str();
    let [first, second, third] = [at(0), at(1), at(2)];
    let _ = write!(
        text,
        r#"
Paste into another terminal:

  # write at one node, read at another: any node takes any key
  curl -X PUT http://{first}/key-value-store/colour -d '{{"value":"blue"}}'
  curl http://{second}/key-value-store/colour

  # a session: send back the causal-metadata of the last answer, and no node shows you anything older
  M=$(curl -s http://{third}/key-value-store/colour | sed 's/.*"causal-metadata":"\([^"]*\)".*/\1/')
  curl -X PUT http://{first}/key-value-store/shape -d '{{"value":"round","causal-metadata":"'$M'"}}'
  curl -X DELETE http://{second}/key-value-store/colour -H "X-Causal-Metadata: $M"

  # who is up, what shards there are, who holds them, how many keys
  curl http://{first}/key-value-store-view
  curl http://{first}/key-value-store-shard/shard-ids
  curl http://{first}/key-value-store-shard/shard-id-members/1
  curl http://{first}/key-value-store-shard/shard-id-key-count/1
"#
    );
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::nodes::Plan;
    use super::*;

    #[test]
    fn two_nodes_are_enough_for_the_tour() {
        let plan = Plan::new(2, 1, 9001, Path::new("x")).unwrap();
        let seen = [Seen { shard: Some(1), ..Seen::default() }, Seen::default()];
        let text = text(&plan.nodes, &seen);
        assert!(text.starts_with("  node1   http://127.0.0.1:9001   shard 1    log: x/node1.log\n"), "{text}");
        assert!(text.contains(r#"curl -X PUT http://127.0.0.1:9001/key-value-store/colour -d '{"value":"blue"}'"#));
    }
}
