//! The rows of the table of keys.

use serde_json::json;

use super::*;
use crate::error::Code;

const KEY: &str = "/key-value-store/key1";

fn text(seq: u64) -> String {
    codec_of(1).encode(&context(seq))
}

#[tokio::test]
async fn put_adds_then_updates() {
    let node = Arc::new(fake());
    for (seq, status, message) in [(1, 201, "Added successfully"), (2, 200, "Updated successfully")] {
        let got = call(&node, "PUT", KEY, r#"{"value":"v","causal-metadata":""}"#).await;
        assert_eq!(got.status, status);
        let shard = Key::new("key1").unwrap().partition(PARTITIONS).0 % 2 + 1;
        assert_eq!(got.json(), json!({"message": message, "causal-metadata": text(seq), "shard-id": shard}));
        assert_eq!(got.header("x-entail-copies"), Some("2"));
        assert!(!got.text.contains(": "), "compact: {}", got.text);
    }
}

#[tokio::test]
async fn get_shows_the_value_or_its_absence() {
    let node = scripted(Response::Value { value: Bytes::from_static(b"[1, 2]"), context: context(5) });
    let got = call(&node, "GET", KEY, "").await;
    assert_eq!(got.status, 200);
    let wanted = json!({"message": "Retrieved successfully", "causal-metadata": text(5), "value": [1, 2]});
    assert_eq!(got.json(), wanted);
    assert!(got.text.ends_with(r#""value":[1, 2]}"#), "to the letter: {}", got.text);
    assert_eq!((got.header("x-entail-copies"), got.header("retry-after")), (None, None));

    for method in ["GET", "DELETE"] {
        let node = scripted(Response::Missing { context: context(5) });
        let got = call(&node, method, KEY, "").await;
        assert_eq!(got.status, 404);
        let message = format!("Error in {method}");
        let wanted = json!({"doesExist": false, "error": "Key does not exist", "message": message,
                            "causal-metadata": text(5)});
        assert_eq!(got.json(), wanted);
    }
}

#[tokio::test]
async fn delete_removes() {
    let written = |existed| Response::Written { existed, context: context(3), shard: ShardId(2), copies: 1 };
    let got = call(&scripted(written(true)), "DELETE", KEY, "").await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json(), json!({"message": "Deleted successfully", "causal-metadata": text(3), "shard-id": 2}));
    assert_eq!(got.header("x-entail-copies"), Some("1"));

    let got = call(&scripted(written(false)), "DELETE", KEY, "").await;
    assert_eq!((got.status.as_u16(), &got.json()["doesExist"]), (404, &json!(false)));
}

#[tokio::test]
async fn head_is_a_get_without_its_body() {
    let node = scripted(Response::Value { value: Bytes::from_static(b"1"), context: context(5) });
    let request = HttpRequest::head(KEY).body(Body::empty()).unwrap();
    let response = router(node.clone(), limits()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-causal-metadata"], text(5).as_str());
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn every_code_has_its_row() {
    let codes = [
        (Code::ContextMalformed, 400, "Causal metadata is malformed", false),
        (Code::DependenciesUnsatisfied, 503, "Causal dependencies not satisfied; try again later", true),
        (Code::ShardUnavailable, 503, "Shard is unavailable; try again later", true),
        (Code::TooManyRequests, 503, "Too many requests; try again later", true),
        (Code::DiskFull, 507, "Disk is full; free space in DATA_DIR or add nodes", false),
        (Code::OutcomeUnknown, 504, "Outcome unknown; the write may have been done", false),
        (Code::NoSuchShard, 404, "Shard ID does not exist", false),
        (Code::Internal, 500, "Internal error; see the log of the node", false),
    ];
    for (code, status, error, retry) in codes {
        for method in ["GET", "PUT", "DELETE"] {
            let got = call(&scripted(Response::Error(code)), method, KEY, r#"{"value":1}"#).await;
            assert_eq!(got.status, status, "{code:?}");
            assert_eq!(got.json(), json!({"error": error, "message": format!("Error in {method}")}));
            assert_eq!(got.header("retry-after"), retry.then_some("1"), "{code:?}");
            assert_eq!(got.header("x-entail-copies"), None);
        }
    }
}

/// It became known, while the node worked on it, that all nodes take clocks.
#[tokio::test]
async fn an_answer_tells_what_contexts_tell_by_then() {
    let before = || ContextCodec::new(ClusterId(1), ContextSecret([1; 16]), PARTITIONS).telling_clocks(false);
    let node = Fake { codec: Some(Arc::new(before())), codec_by_then: Some(codec_of(1)), ..fake() };
    let mut context = context(5);
    context.raise_clock(Timestamp(9));
    *node.scripted.lock().unwrap() = vec![Some(Response::Missing { context: context.clone() })];
    let got = call(&Arc::new(node), "GET", KEY, "").await;
    let text = got.json()["causal-metadata"].as_str().unwrap().to_owned();
    assert_eq!(before().decode(&text), Ok(context));
}

#[tokio::test]
async fn before_birth_the_request_is_checked_and_then_refused() {
    let mut node = fake();
    node.codec = None;
    let node = Arc::new(node);
    for (method, body) in [("GET", ""), ("PUT", r#"{"value":1}"#), ("DELETE", r#"{"causal-metadata":"x"}"#)] {
        let got = call(&node, method, KEY, body).await;
        assert_eq!(got.status, 503);
        let message = format!("Error in {method}");
        assert_eq!(got.json(), json!({"error": "Shard is unavailable; try again later", "message": message}));
        assert_eq!(got.header("retry-after"), Some("1"));
    }
    assert_eq!(call(&node, "PUT", KEY, "{}").await.status, 400);
    assert!(node.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_node_is_asked_what_the_client_asked() {
    let key = Key::new("key1").unwrap();
    let seen = context(9);
    let body = format!(r#"{{"value":{{"a": [1,2]}},"causal-metadata":"{}","more":[{{}}]}}"#, text(9));
    let put = Request::Put { key: key.clone(), value: Bytes::from_static(br#"{"a": [1,2]}"#), context: seen.clone() };
    let get = Request::Get { key: key.clone(), context: seen.clone() };
    for (method, wanted) in [("PUT", put), ("GET", get), ("DELETE", Request::Delete { key, context: seen })] {
        let node = Arc::new(fake());
        call(&node, method, KEY, body.as_str()).await;
        assert_eq!(node.asked(), wanted);
        let budget = node.asked.lock().unwrap()[0].1;
        let deadline = Duration::from_secs(7);
        assert!(budget <= deadline && budget > deadline - Duration::from_secs(1), "{budget:?}");
    }
}

/// The context that a `GET` with this body and header carries to the node.
async fn carried(body: &str, header: &str) -> Context {
    let node = Arc::new(fake());
    let got = ask(&node, "GET", KEY, body, header).await;
    assert_eq!(got.status, 404, "{}", got.text);
    match node.asked() {
        Request::Get { context, .. } => context,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_body_wins_over_the_header_when_it_says_something() {
    let body = |m: &str| format!(r#"{{"causal-metadata":"{m}"}}"#);
    assert_eq!(carried("", "").await, Context::empty());
    assert_eq!(carried("", &text(1)).await, context(1));
    assert_eq!(carried(&body(&text(2)), "").await, context(2));
    assert_eq!(carried(&body(&text(2)), &text(1)).await, context(2));
    assert_eq!(carried(&body(&text(2)), "nonsense").await, context(2));
    for none in ["{}", r#"{"causal-metadata":null}"#, r#"{"causal-metadata":""}"#, " ", r#"{"value":1}"#] {
        assert_eq!(carried(none, "").await, Context::empty());
        assert_eq!(carried(none, &text(1)).await, context(1), "{none} says nothing, so the header has the word");
    }
    // Of two members of one name the last counts, and letters may be escaped.
    let twice = format!(r#"{{"causal-metadata":"nonsense","causal-\u006detadata":"{}"}}"#, text(3));
    assert_eq!(carried(&twice, "").await, context(3));
    let escaped: String = text(4).bytes().map(|b| format!("\\u{b:04x}")).collect();
    assert_eq!(carried(&body(&escaped), "").await, context(4));
}

#[tokio::test]
async fn a_get_with_a_content_type_and_no_body_is_a_plain_get() {
    let node = Arc::new(fake());
    let request = HttpRequest::get(KEY).header("content-type", "application/json").body(Body::empty()).unwrap();
    assert_eq!(send(&node, request).await.status, 404);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        let request = HttpRequest::put(KEY).header("content-type", kind).body(Body::from(r#"{"value":1}"#)).unwrap();
        assert!(send(&node, request).await.status.is_success(), "{kind}");
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_that_promises_nothing_wrong() {
    for (method, status) in [("GET", 500), ("PUT", 504), ("DELETE", 504)] {
        for wrong in [None, Some(Response::KeyCount(1))] {
            let mut node = fake();
            node.scripted = Mutex::new(vec![wrong]);
            let got = call(&Arc::new(node), method, KEY, r#"{"value":1}"#).await;
            assert_eq!(got.status, status);
            assert_eq!(got.json()["message"], json!(format!("Error in {method}")));
        }
    }
}
