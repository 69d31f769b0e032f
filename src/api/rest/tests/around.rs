//! Shards, view, probes, and what is none of them.

use serde_json::json;

use super::*;
use crate::error::Code;

const SHARD: &str = "/key-value-store-shard";

async fn get(node: &Arc<Fake>, path: &str) -> Got {
    call(node, "GET", path, "").await
}

#[tokio::test]
async fn shards_are_those_of_the_map() {
    let node = Arc::new(fake());
    let got = get(&node, &format!("{SHARD}/shard-ids")).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json(), json!({"message": "Shard IDs retrieved successfully", "shard-ids": [1, 2]}));

    let got = get(&node, &format!("{SHARD}/node-shard-id")).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json(), json!({"message": "Shard ID of the node retrieved successfully", "shard-id": 1}));

    let mut node = fake();
    node.address = addr("node7:8085");
    let got = get(&Arc::new(node), &format!("{SHARD}/node-shard-id")).await;
    assert_eq!(got.status, 404);
    assert_eq!(got.json(), json!({"error": "Node is not assigned to a shard", "message": "Error in GET"}));
}

#[tokio::test]
async fn members_are_those_in_the_view() {
    let mut node = fake();
    node.map.layout.shards[1].reverse();
    let node = Arc::new(node);
    for (id, members) in [(1, vec!["node1:8085", "node2:8085"]), (2, vec!["node4:8085", "node5:8085", "node6:8085"])] {
        let got = get(&node, &format!("{SHARD}/shard-id-members/{id}?x=y")).await;
        assert_eq!(got.status, 200);
        let message = "Members of shard ID retrieved successfully";
        assert_eq!(got.json(), json!({"message": message, "shard-id-members": members}));
    }
}

#[tokio::test]
async fn a_count_is_the_nodes_answer() {
    let path = format!("{SHARD}/shard-id-key-count/2");
    let node = scripted(Response::KeyCount(4000));
    let got = get(&node, &path).await;
    assert_eq!(got.status, 200);
    let message = "Key count of shard ID retrieved successfully";
    assert_eq!(got.json(), json!({"message": message, "shard-id-key-count": 4000}));
    assert_eq!(node.asked(), Request::KeyCount { shard: ShardId(2) });

    let got = get(&scripted(Response::Error(Code::ShardUnavailable)), &path).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, Some("1")));
    assert_eq!(got.json(), json!({"error": "Shard is unavailable; try again later", "message": "Error in GET"}));
    assert_eq!(get(&scripted(Response::Missing { context: context(1) }), &path).await.status, 500);
}

#[tokio::test]
async fn shards_that_do_not_exist() {
    let node = Arc::new(fake());
    for id in ["0", "3", "-1", "01", "+1", "x", "1.0", "1%20", "%ff", "99999999999999999999", "😀", "%2F"] {
        for query in ["shard-id-members", "shard-id-key-count"] {
            let got = get(&node, &format!("{SHARD}/{query}/{id}")).await;
            assert_eq!(got.status, 404, "{id}");
            assert_eq!(got.json(), json!({"error": "Shard ID does not exist", "message": "Error in GET"}));
        }
    }
    assert!(node.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn before_birth_shard_queries_are_answered_from_map_0() {
    let mut node = fake();
    node.codec = None;
    node.map.epoch = Epoch(0);
    let node = Arc::new(node);
    for (query, member, wanted) in [
        ("shard-ids", "shard-ids", json!([1, 2])),
        ("node-shard-id", "shard-id", json!(1)),
        ("shard-id-members/1", "shard-id-members", json!(["node1:8085", "node2:8085"])),
        ("shard-id-key-count/2", "shard-id-key-count", json!(0)),
    ] {
        let got = get(&node, &format!("{SHARD}/{query}")).await;
        assert_eq!((got.status.as_u16(), &got.json()[member]), (200, &wanted), "{query}");
    }
    assert_eq!(get(&node, &format!("{SHARD}/shard-id-key-count/3")).await.status, 404);
}

#[tokio::test]
async fn the_view_is_sorted() {
    let node = Arc::new(fake());
    let got = get(&node, "/key-value-store-view").await;
    assert_eq!(got.status, 200);
    let view = ["node1:8085", "node2:8085", "node4:8085", "node5:8085", "node6:8085", "node7:8085"];
    assert_eq!(got.json(), json!({"message": "View retrieved successfully", "view": view}));
}

#[tokio::test]
async fn a_stopping_node_has_no_view() {
    let mut node = fake();
    node.view = None;
    let node = Arc::new(node);
    for path in ["/key-value-store-view", "/key-value-store-shard/shard-id-members/1"] {
        let got = get(&node, path).await;
        assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, Some("1")));
    }
}

#[tokio::test]
async fn probes_tell_life_from_readiness() {
    let mut node = fake();
    node.ready = Err("waiting for node2:8085 to \"start\"".into());
    let node = Arc::new(node);
    let got = get(&node, "/healthz").await;
    assert_eq!((got.status.as_u16(), got.json()), (200, json!({"status": "ok"})));
    let got = get(&node, "/readyz").await;
    assert_eq!(got.status, 503);
    assert_eq!(got.json()["ready"], json!(false));
    assert_eq!(got.json()["reason"], json!("waiting for node2:8085 to \"start\""));

    let got = get(&Arc::new(fake()), "/readyz").await;
    assert_eq!((got.status.as_u16(), got.json()), (200, json!({"ready": true})));
}

#[tokio::test]
async fn unknown_paths() {
    let node = Arc::new(fake());
    for path in [
        "/",
        "/key-value-store",
        "/key-value-stores/x",
        "/key-value-store-view/",
        "/key-value-store-shard",
        "/key-value-store-shard/shard-ids/",
        "/key-value-store-shard/shard-id-members",
        "/key-value-store-shard/shard-id-members/",
        "/key-value-store-shard/shard-id-members/1/2",
        "/healthz/x",
        "/%6bey-value-store/x",
        "//key-value-store/x",
        "*",
    ] {
        for method in ["GET", "PUT", "DELETE", "POST", "OPTIONS", "BREW"] {
            let got = call(&node, method, path, r#"{"value":1}"#).await;
            assert_eq!(got.status, 404, "{path}");
            assert_eq!(got.json()["message"], json!(format!("Error in {method}")));
        }
    }
}

#[tokio::test]
async fn wrong_methods_are_told_the_right_ones() {
    let node = Arc::new(fake());
    for (path, allowed) in [
        ("/key-value-store/x", "GET,HEAD,PUT,DELETE"),
        ("/key-value-store/", "GET,HEAD,PUT,DELETE"),
        ("/key-value-store-view", "GET,HEAD,PUT,DELETE"),
        ("/key-value-store-shard/reshard", "GET,HEAD,PUT,DELETE"),
        ("/key-value-store-shard/add-member/1", "PUT"),
        ("/status", "GET,HEAD"),
        ("/key-value-store-shard/shard-ids", "GET,HEAD"),
        ("/key-value-store-shard/node-shard-id", "GET,HEAD"),
        ("/key-value-store-shard/shard-id-members/1", "GET,HEAD"),
        ("/key-value-store-shard/shard-id-key-count/1", "GET,HEAD"),
        ("/healthz", "GET,HEAD"),
        ("/readyz", "GET,HEAD"),
    ] {
        for method in ["POST", "PATCH", "OPTIONS", "BREW"] {
            let got = call(&node, method, path, "x").await;
            assert_eq!((got.status.as_u16(), got.header("allow")), (405, Some(allowed)), "{path}");
            assert_eq!(got.json()["message"], json!(format!("Error in {method}")));
        }
    }
}

#[tokio::test]
async fn what_is_posted_is_not_got() {
    let got = call(&Arc::new(fake()), "GET", "/admin/forget", "").await;
    assert_eq!((got.status.as_u16(), got.header("allow")), (405, Some("POST")));
}
