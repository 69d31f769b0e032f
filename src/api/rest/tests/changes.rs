//! Every row of the tables for changes of view and shards, and what is wrong with their bodies.

use serde_json::json;

use super::*;
use crate::cluster::change::ChangeError;
use crate::cluster::plan::PlanError;
use crate::cluster::recover::RecoverError;
use crate::machine::agreement::{Disagreement, NotBorn, NotRecovered, RecoveryCost};
use crate::machine::{NodeStatus, ReshardState};

const VIEW: &str = "/key-value-store-view";
const RESHARD: &str = "/key-value-store-shard/reshard";
const ADD: &str = "/key-value-store-shard/add-member/2";
const FORGET: &str = "/admin/forget";
const RECOVER: &str = "/admin/recover";
const BIRTH: &str = "/admin/birth";
const NODE7: &str = r#"{"socket-address":"node7:8085"}"#;

/// A node that answers every change with this.
fn answering(outcome: Result<u64, NotChanged>) -> Arc<Fake> {
    Arc::new(Fake { outcome: Mutex::new(outcome), ..fake() })
}

fn refusing(error: impl Into<ChangeError>) -> Arc<Fake> {
    answering(Err(NotChanged::Refused(error.into())))
}

/// What the node was asked for, once.
fn wanted(node: &Fake) -> Wanted {
    let wanted = node.wanted.lock().unwrap();
    assert_eq!(wanted.len(), 1, "{wanted:?}");
    assert_eq!(wanted[0].1, limits().deadline);
    wanted[0].0.clone()
}

/// The answer to a change that is not made.
async fn refused(node: Arc<Fake>, method: &str, path: &str, body: &str, status: u16) -> String {
    let got = call(&node, method, path, body).await;
    assert_eq!(got.status, status, "{method} {path}: {}", got.text);
    assert_eq!(got.json()["message"], json!(format!("Error in {method}")), "{}", got.text);
    assert_eq!(got.json().as_object().unwrap().len(), 2, "{}", got.text);
    got.json()["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nodes_are_added_to_the_view() {
    let node = answering(Ok(0));
    let got = call(&node, "PUT", VIEW, NODE7).await;
    assert_eq!(got.status, 201);
    assert_eq!(got.json(), json!({"message": "Replica added successfully to the view"}));
    assert_eq!(wanted(&node), Wanted::Admit(addr("node7:8085")));

    let there = refused(refusing(ChangeError::AlreadyInView), "PUT", VIEW, NODE7, 404).await;
    assert_eq!(there, "Socket address already exists in the view");
    let silent = refused(answering(Err(NotChanged::Silent(addr("node7:8085")))), "PUT", VIEW, NODE7, 503).await;
    assert!(silent.contains("node7:8085 does not answer"), "{silent}");
    let other =
        NotChanged::TurnedAway { node: addr("node7:8085"), why: "it says 'this node belongs to …'".to_owned() };
    let foreign = refused(answering(Err(other)), "PUT", VIEW, NODE7, 503).await;
    assert_eq!(foreign, "node7:8085 can't be a node of this store: it says 'this node belongs to …'");
    let copied = refused(refusing(ChangeError::NotItsDirectory), "PUT", VIEW, NODE7, 503).await;
    assert!(copied.contains("data directory"), "{copied}");
}

#[tokio::test]
async fn nodes_are_deleted_from_the_view() {
    let node = answering(Ok(0));
    let got = call(&node, "DELETE", VIEW, NODE7).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json(), json!({"message": "Replica deleted successfully from the view"}));
    assert_eq!(wanted(&node), Wanted::Remove(addr("node7:8085")));

    for error in [ChangeError::NoSuchNode, PlanError::NodeNotInView.into()] {
        let missing = refused(refusing(error), "DELETE", VIEW, NODE7, 404).await;
        assert_eq!(missing, "Socket address does not exist in the view");
    }
    let last = refused(refusing(PlanError::LastHolder(ShardId(1))), "DELETE", VIEW, NODE7, 409).await;
    assert!(last.contains("shard 1"), "{last}");
}

#[tokio::test]
async fn members_are_added_to_shards() {
    for outcome in [Ok(0), Err(NotChanged::Refused(PlanError::AlreadyMember.into()))] {
        let node = answering(outcome);
        let got = call(&node, "PUT", ADD, NODE7).await;
        assert_eq!(got.status, 200);
        assert_eq!(got.json(), json!({"message": "Member added to shard successfully"}));
        assert_eq!(wanted(&node), Wanted::AddMember { shard: ShardId(2), node: addr("node7:8085") });
    }
    for (error, status) in [
        (PlanError::NoSuchShard, 404),
        (PlanError::NodeNotInView, 404),
        (PlanError::NodeInAnotherShard(ShardId(1)), 409),
        (PlanError::ShardUnavailable(PartitionId(1)), 503),
    ] {
        let text = error.to_string();
        assert_eq!(refused(refusing(error), "PUT", ADD, NODE7, status).await, text);
    }
    refused(refusing(ChangeError::InProgress), "PUT", ADD, NODE7, 409).await;
    for id in ["0", "x", "01", "-1", "99999999999"] {
        let path = format!("/key-value-store-shard/add-member/{id}");
        let node = answering(Ok(0));
        let error = refused(node.clone(), "PUT", &path, NODE7, 404).await;
        assert!(error.starts_with("Shard ID does not exist"), "{error}");
        assert!(node.wanted.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn shards_are_reshaped() {
    for (body, count) in [
        (r#"{"shard-count":3}"#, 3),
        (r#"{"shard-count":0}"#, 0),
        (r#"{"shard-count":-7}"#, 0),
        (r#"{"shard-count":99999999999999999999}"#, u32::MAX),
        (r#"{"other":[],"shard-count":1,"shard-count":2}"#, 2),
    ] {
        let node = answering(Ok(0));
        let got = call(&node, "PUT", RESHARD, body).await;
        assert_eq!(got.status, 200);
        assert_eq!(got.json(), json!({"message": "Resharding done successfully"}));
        assert_eq!(wanted(&node), Wanted::Reshard(count));
    }
    let body = r#"{"shard-count":3}"#;
    for error in [PlanError::NotEnoughNodes, PlanError::TooManyShards] {
        let got = call(&refusing(error), "PUT", RESHARD, body).await;
        assert_eq!(got.status, 400);
        let text = "Not enough nodes to provide fault-tolerance with the given shard count!";
        assert_eq!(got.json(), json!({ "message": text }));
    }
    let down = refused(refusing(PlanError::ShardUnavailable(PartitionId(1))), "PUT", RESHARD, body, 503).await;
    assert_eq!(down, "Shard is unavailable; try again later");
    let running = refused(refusing(ChangeError::InProgress), "PUT", RESHARD, body, 409).await;
    assert_eq!(running, "Resharding is already in progress");
    for outcome in [NotChanged::Cancelled, NotChanged::Stalled, NotChanged::TooMany, NotChanged::Stopping] {
        let text = outcome.to_string();
        assert_eq!(refused(answering(Err(outcome)), "PUT", RESHARD, body, 503).await, text);
    }
}

#[tokio::test]
async fn reshards_are_cancelled() {
    let node = answering(Ok(0));
    let got = call(&node, "DELETE", RESHARD, "").await;
    assert_eq!((got.status.as_u16(), got.json()), (200, json!({"message": "Resharding cancelled"})));
    assert_eq!(wanted(&node), Wanted::Cancel);
    let none = refused(refusing(ChangeError::NotInProgress), "DELETE", RESHARD, "", 404).await;
    assert_eq!(none, "Resharding is not in progress");
}

#[tokio::test]
async fn without_a_quorum_nothing_changes() {
    let count = r#"{"shard-count":3}"#;
    for (method, path, body) in [
        ("PUT", VIEW, NODE7),
        ("DELETE", VIEW, NODE7),
        ("PUT", ADD, NODE7),
        ("PUT", RESHARD, count),
        ("DELETE", RESHARD, ""),
        ("POST", FORGET, NODE7),
        ("POST", RECOVER, ""),
    ] {
        let silent = vec![addr("node2:8085"), addr("node3:8085")];
        // What contexts the nodes of a store take is not asked here.
        let outcome = Mutex::new(Err(NotChanged::NoQuorum(silent)));
        let node = Arc::new(Fake { codec: None, outcome, ..fake() });
        let got = call(&node, method, path, body).await;
        assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, Some("1")));
        assert_eq!(got.json()["error"], json!("No quorum; waiting for node2:8085, node3:8085"));
        assert_eq!(got.json()["message"], json!(format!("Error in {method}")));
        wanted(&node);

        let mut unborn = Fake { codec: None, ready: Err("waiting for node2:8085 to start".into()), ..fake() };
        unborn.map.epoch = Epoch(0);
        let unborn = Arc::new(unborn);
        let text = refused(unborn.clone(), method, path, body, 503).await;
        assert_eq!(text, "The store is not born yet: waiting for node2:8085 to start");
        assert!(unborn.wanted.lock().unwrap().is_empty());
    }
    assert_eq!(NotChanged::NoQuorum(Vec::new()).to_string(), "No quorum; waiting for the voters to agree");
}

#[tokio::test]
async fn nodes_are_forgotten_on_the_operators_word() {
    let node = answering(Err(NotChanged::Unconfirmed(12)));
    let got = call(&node, "POST", FORGET, NODE7).await;
    assert_eq!(got.status, 409);
    let error = "This may lose 12 writes that only this node holds; repeat with \"confirm\":true";
    assert_eq!(got.json(), json!({"error": error, "message": "Error in POST"}));
    assert_eq!(wanted(&node), Wanted::Forget { node: addr("node7:8085"), confirmed: false });

    let node = answering(Ok(12));
    let got = call(&node, "POST", FORGET, r#"{"socket-address":"node7:8085","confirm":true}"#).await;
    assert_eq!((got.status.as_u16(), got.json()), (200, json!({"message": "Node forgotten", "lost-writes": 12})));
    assert_eq!(wanted(&node), Wanted::Forget { node: addr("node7:8085"), confirmed: true });

    refused(refusing(ChangeError::NoSuchNode), "POST", FORGET, NODE7, 404).await;
    refused(refusing(ChangeError::NotLost), "POST", FORGET, NODE7, 409).await;
    let body = r#"{"socket-address":"node7:8085","confirm":"yes"}"#;
    let error = refused(answering(Ok(0)), "POST", FORGET, body, 400).await;
    assert_eq!(error, "'confirm' must be true or false");
}

#[tokio::test]
async fn a_store_is_recovered_on_the_operators_word() {
    let silent = vec![addr("node2:8085"), addr("node3:8085")];
    let cost = RecoveryCost { silent, partitions: 4, of: 8, writes: 0 };
    let unconfirmed = NotChanged::NotRecovered(NotRecovered::Unconfirmed(Box::new(cost)));
    let node = answering(Err(unconfirmed));
    let asks = refused(node.clone(), "POST", RECOVER, "", 409).await;
    let gives_up = "This gives up node2:8085, node3:8085 for ever, with all that only they have: all keys of 4 of 8 \
                    partitions; repeat with \"confirm\":true";
    assert_eq!(asks, gives_up);
    assert_eq!(wanted(&node), Wanted::Recover { confirmed: false });

    let node = answering(Ok(4));
    let got = call(&node, "POST", RECOVER, r#"{"confirm":true}"#).await;
    assert_eq!((got.status.as_u16(), got.json()), (200, json!({"message": "Store recovered", "lost-partitions": 4})));
    assert_eq!(wanted(&node), Wanted::Recover { confirmed: true });

    let against = || BTreeMap::from([(addr("node4:8085"), Disagreement::QuorumLives)]);
    for (why, status) in [
        (NotRecovered::Refused(RecoverError::QuorumLives), 409),
        (NotRecovered::Refused(RecoverError::NoMember), 409),
        (NotRecovered::HeardElsewhere(vec![addr("node4:8085")]), 503),
        (NotRecovered::NotAgreed { against: against(), waiting: vec![addr("node5:8085")] }, 503),
    ] {
        let text = why.to_string();
        let node = answering(Err(NotChanged::NotRecovered(why)));
        assert_eq!(refused(node, "POST", RECOVER, r#"{"confirm":true}"#, status).await, text);
    }
    let error = refused(answering(Ok(0)), "POST", RECOVER, r#"{"confirm":1}"#, 400).await;
    assert_eq!(error, "'confirm' must be true or false");
}

#[tokio::test]
async fn a_store_is_born_without_a_node_on_the_operators_word() {
    let unborn = |outcome| Arc::new(Fake { codec: None, outcome: Mutex::new(outcome), ..fake() });
    let cost = NotBorn::Unconfirmed { node: addr("node7:8085"), shard: ShardId(2), left: 1 };
    let node = unborn(Err(NotChanged::NotBorn(cost)));
    let asks = refused(node.clone(), "POST", BIRTH, NODE7, 409).await;
    assert!(asks.starts_with("The store begins without node7:8085, and shard 2 with 1 node;"), "{asks}");
    assert_eq!(wanted(&node), Wanted::Birth { without: addr("node7:8085"), confirmed: false });

    let node = unborn(Ok(0));
    let got = call(&node, "POST", BIRTH, r#"{"socket-address":"node7:8085","confirm":true}"#).await;
    assert_eq!((got.status.as_u16(), got.json()), (200, json!({"message": "Store born"})));
    assert_eq!(wanted(&node), Wanted::Birth { without: addr("node7:8085"), confirmed: true });

    for (why, status) in [
        (NotBorn::Born, 409),
        (NotBorn::IsUp(addr("node7:8085")), 409),
        (NotBorn::OnlyTwo, 409),
        (NotBorn::NotInView(addr("node7:8085")), 404),
        (NotBorn::Waiting("waiting for node6:8085 to start".into()), 503),
        (NotBorn::TimeOut, 503),
    ] {
        let text = why.to_string();
        assert_eq!(refused(unborn(Err(NotChanged::NotBorn(why))), "POST", BIRTH, NODE7, status).await, text);
    }
}

#[tokio::test]
async fn bodies_are_told_by_field_what_is_wrong_with_them() {
    let node = answering(Ok(0));
    for (method, path) in [("PUT", VIEW), ("DELETE", VIEW), ("PUT", ADD), ("POST", FORGET), ("POST", BIRTH)] {
        for body in ["", "{}", r#"{"Socket-Address":"node7:8085"}"#] {
            let error = refused(node.clone(), method, path, body, 400).await;
            assert_eq!(error, "'socket-address' is missing; give it as host:port");
        }
        for value in ["7", "null", "[\"node7:8085\"]", "{}", "true", r#""\ud800""#] {
            let body = format!(r#"{{"socket-address":{value}}}"#);
            let error = refused(node.clone(), method, path, &body, 400).await;
            assert_eq!(error, "'socket-address' must be a string, host:port");
        }
        for address in ["", "node7", "node7:", ":80", "node7:99999", "http://node7:80"] {
            let body = format!(r#"{{"socket-address":"{address}"}}"#);
            let error = refused(node.clone(), method, path, &body, 400).await;
            assert!(error.starts_with("'socket-address' is not valid: "), "{error}");
        }
    }
    for body in ["", "{}", r#"{"count":3}"#] {
        let error = refused(node.clone(), "PUT", RESHARD, body, 400).await;
        assert_eq!(error, "'shard-count' is missing; give it as a number");
    }
    for value in ["\"3\"", "3.0", "3e0", "null", "true", "[3]", "{}"] {
        let error = refused(node.clone(), "PUT", RESHARD, &format!(r#"{{"shard-count":{value}}}"#), 400).await;
        assert_eq!(error, "'shard-count' must be an integer", "{value}");
    }
    for (method, path) in
        [("PUT", VIEW), ("DELETE", VIEW), ("PUT", ADD), ("PUT", RESHARD), ("POST", FORGET), ("POST", RECOVER)]
    {
        for body in ["{", "[]", "3", "\"node7:8085\"", "null", "{\"shard-count\":}"] {
            let error = refused(node.clone(), method, path, body, 400).await;
            assert!(error.starts_with("Body "), "{error}");
        }
        let long = "x".repeat(2 << 20);
        assert_eq!(refused(node.clone(), method, path, &long, 413).await, "Body is too large");
    }
    assert!(node.wanted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing() {
    let node = Arc::new(fake());
    let (release, held) = tokio::sync::oneshot::channel();
    *node.held.lock().unwrap() = Some(held);
    let request = HttpRequest::put(RESHARD).body(Body::from(r#"{"shard-count":3}"#)).unwrap();
    let mut answer = Box::pin(router(node.clone(), node.limits).oneshot(request));
    tokio::select! {
        biased;
        _ = &mut answer => panic!("the change is not done yet"),
        () = async { while node.wanted.lock().unwrap().is_empty() { tokio::task::yield_now().await } } => {}
    }
    drop(answer);
    release.send(()).expect("the change still waits for its end");
    while !*node.finished.lock().unwrap() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_bug_in_a_change_is_an_answer() {
    let node = Arc::new(fake());
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    *node.held.lock().unwrap() = Some(held);
    drop(release);
    let got = call(&node, "PUT", RESHARD, r#"{"shard-count":3}"#).await;
    assert_eq!(got.status, 504, "it may have been made");
}

fn reshard() -> ReshardStatus {
    ReshardStatus {
        state: ReshardState::Running,
        shards: 3,
        partitions: 256,
        to_move: 85,
        joining: 16,
        moved: 40,
        keys: (1200, 2600),
        bytes: (98_304, 212_992),
        elapsed_ms: 1_849,
        waiting_for: vec![addr("node5:8085")],
    }
}

fn reshard_shown() -> Value {
    json!({
        "state": "running",
        "shard-count": 3,
        "partitions": {"total": 256, "to-move": 85, "joining": 16, "moved": 40},
        "keys": {"copied": 1200, "to-copy": 2600},
        "bytes": {"copied": 98_304, "to-copy": 212_992},
        "seconds": 1.8,
        "waiting-for": ["node5:8085"],
    })
}

#[tokio::test]
async fn where_a_reshard_stands_is_shown() {
    let node = Arc::new(Fake { reshard: Some(reshard()), ..fake() });
    let got = call(&node, "GET", RESHARD, "").await;
    assert_eq!((got.status.as_u16(), got.json()), (200, reshard_shown()));
    for (state, word) in
        [(ReshardState::None, "none"), (ReshardState::Done, "done"), (ReshardState::Cancelled, "cancelled")]
    {
        let node = Arc::new(Fake { reshard: Some(ReshardStatus { state, ..reshard() }), ..fake() });
        assert_eq!(call(&node, "GET", RESHARD, "").await.json()["state"], json!(word));
    }
    let stopping = Arc::new(Fake { reshard: None, ..fake() });
    assert_eq!(call(&stopping, "GET", RESHARD, "").await.status, 503);
}

#[tokio::test]
async fn the_status_is_that_of_the_whole_cluster() {
    let line = |i: u32, up, shard: Option<u32>| NodeStatus {
        node: addr(&format!("node{i}:8085")),
        up,
        out: i == 7,
        shard: shard.map(ShardId),
        lag: u64::from(i),
        voter: i < 3,
    };
    let status = ClusterStatus {
        node: addr("node1:8085"),
        incarnation: crate::types::Incarnation(7),
        cluster_id: ClusterId(9),
        epoch: Epoch(12),
        shard: Some(ShardId(1)),
        keys: 300,
        nodes: vec![line(1, true, Some(1)), line(4, false, Some(2)), line(7, true, None)],
        warnings: vec!["shard 2 is \"degraded\"".to_owned()],
        reshard: reshard(),
    };
    let shown = |other: Value| {
        json!({
            "node": "node1:8085",
            "incarnation": status.incarnation.to_string(),
            "cluster-id": status.cluster_id.to_string(),
            "epoch": 12,
            "version": env!("CARGO_PKG_VERSION"),
            "shard-id": 1,
            "nodes": [
                {"node": "node1:8085", "up": true, "shard-id": 1, "keys": 300, "lag": 1, "voter": true, "removed": false},
                {"node": "node4:8085", "up": false, "shard-id": 2, "keys": other, "lag": 4, "voter": false,
                 "removed": false},
                {"node": "node7:8085", "up": true, "shard-id": null, "keys": 0, "lag": 7, "voter": false,
                 "removed": true},
            ],
            "warnings": ["shard 2 is \"degraded\""],
            "reshard": reshard_shown(),
        })
    };
    let node = Arc::new(Fake { status: Some(status.clone()), ..fake() });
    let got = call(&node, "GET", "/status", "").await;
    assert_eq!((got.status.as_u16(), got.json()), (200, shown(json!(0))));

    // Nobody of the other shard answers.
    let scripted = Mutex::new(vec![Some(Response::Error(crate::error::Code::ShardUnavailable)); 2]);
    let node = Arc::new(Fake { status: Some(status.clone()), scripted, ..fake() });
    assert_eq!(call(&node, "GET", "/status", "").await.json(), shown(Value::Null));
    assert_eq!(call(&Arc::new(fake()), "GET", "/status", "").await.status, 503);
}
