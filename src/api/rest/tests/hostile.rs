//! What clients send that they should not, or that looks odd and is right.

use futures_util::stream;
use serde_json::json;

use super::*;

const KEY: &str = "/key-value-store/key1";

async fn error(node: &Arc<Fake>, method: &str, path: &str, body: impl Into<Vec<u8>>, status: u16) -> String {
    let got = call(node, method, path, body).await;
    assert_eq!(got.status, status, "{}", got.text);
    assert_eq!(got.json()["message"], json!(format!("Error in {method}")));
    assert!(node.asked.lock().unwrap().is_empty(), "nothing is done");
    got.json()["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn bodies_that_are_not_json_objects() {
    let node = Arc::new(fake());
    let bodies: [&[u8]; 19] = [
        b"{",
        b"{\"value\":",
        b"{\"value\":1",
        b"{\"value\":1}}",
        b"{\"value\":1} x",
        b"{\"value\":01}",
        b"{\"value\":NaN}",
        b"{\"value\":'v'}",
        b"{value:1}",
        b"{\"value\":\"\x01\"}",
        b"{\"value\":\"\xff\"}",
        b"{\"other\":\"\xff\",\"value\":1}",
        b"\xef\xbb",
        b"value=1",
        b"[1,null]",
        b"\"value\"",
        b"17",
        b"null",
        b"\x00",
    ];
    for body in bodies {
        for method in ["PUT", "GET", "DELETE"] {
            let error = error(&node, method, KEY, body, 400).await;
            assert!(error.starts_with("Body "), "{error}");
        }
    }
    assert_eq!(error(&node, "PUT", KEY, "[]", 400).await, "Body must be a JSON object");
}

#[tokio::test]
async fn text_that_nests_without_end_is_read_without_a_stack() {
    let mut node = fake();
    node.limits.max_value_bytes = 1 << 20;
    let node = Arc::new(node);
    let open = "[".repeat(100_000);
    let cut = [format!(r#"{{"value":{open}"#), format!(r#"{{"other":{open}"#), "{\"a\":".repeat(100_000)];
    for body in [open.clone()].into_iter().chain(cut) {
        error(&node, "PUT", KEY, body, 400).await;
    }
    let value = format!("{open}{}", "]".repeat(100_000));
    let put = HttpRequest::put(KEY).body(Body::from(format!(r#"{{"value":{value}}}"#))).unwrap();
    assert_eq!(router(node.clone(), node.limits).oneshot(put).await.unwrap().status(), 201);
    let get = HttpRequest::get(KEY).body(Body::empty()).unwrap();
    let got = router(node.clone(), node.limits).oneshot(get).await.unwrap();
    let text = got.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(format!("\"value\":{value}}}").as_bytes()));
}

#[tokio::test]
async fn values_that_are_missing_or_null() {
    let node = Arc::new(fake());
    for body in ["", " \n", "{}", r#"{"causal-metadata":""}"#, r#"{"Value":1}"#, r#"{"causal-metadata":"nonsense"}"#] {
        assert_eq!(error(&node, "PUT", KEY, body, 400).await, "Value is missing", "{body}");
    }
    for (body, value) in
        [(r#"{"value":null}"#, "null"), (r#"{"value":1,"value":""}"#, "\"\""), ("{\"\\u0076alue\":2}", "2")]
    {
        let node = Arc::new(fake());
        assert_eq!(call(&node, "PUT", KEY, body).await.status, 201);
        assert!(call(&node, "GET", KEY, "").await.text.ends_with(&format!(r#""value":{value}}}"#)));
    }
}

#[tokio::test]
async fn values_over_the_limit() {
    let node = Arc::new(fake());
    let body = |bytes: usize| format!(r#"{{ "value" :  "{}" }}"#, "v".repeat(bytes - 2));
    for bytes in [1001, 1500, (1 << 20) + 1001] {
        assert_eq!(error(&node, "PUT", KEY, body(bytes), 413).await, "Value is too large");
    }
    let big = Body::from_stream(stream::repeat(Ok::<_, std::convert::Infallible>(Bytes::from(vec![b' '; 60_000]))));
    let got = send(&node, HttpRequest::put(KEY).body(big).unwrap()).await;
    assert_eq!((got.status.as_u16(), &got.json()["error"]), (413, &json!("Value is too large")));
    for method in ["GET", "DELETE"] {
        assert_eq!(error(&node, method, KEY, body(2 << 20), 413).await, "Body is too large");
    }
    assert_eq!(call(&node, "PUT", KEY, body(1000)).await.status, 201);
}

#[tokio::test]
async fn causal_metadata_of_a_wrong_type_or_another_store() {
    let node = Arc::new(fake());
    for wrong in ["1", "true", "[]", "{}", "[\"x\"]", "-0.5e7"] {
        for method in ["GET", "PUT", "DELETE"] {
            let body = format!(r#"{{"value":1,"causal-metadata":{wrong}}}"#);
            assert_eq!(error(&node, method, KEY, body, 400).await, "'causal-metadata' must be a string");
        }
    }
    let ours = codec_of(1).encode(&context(77));
    let mut forged = ours.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let texts = [
        codec_of(2).encode(&context(77)),
        ours[..ours.len() - 1].to_owned(),
        ours[1..].to_owned(),
        format!("{ours}A"),
        format!("{ours}="),
        format!(" {ours}"),
        String::from_utf8(forged).unwrap(),
        "nonsense".to_owned(),
        "😀".to_owned(),
        r"\ud800".to_owned(),
        r"\u0000".to_owned(),
    ];
    for text in texts {
        for method in ["GET", "PUT", "DELETE"] {
            let body = format!(r#"{{"value":1,"causal-metadata":"{text}"}}"#);
            assert_eq!(error(&node, method, KEY, body, 400).await, "Causal metadata is malformed", "{text}");
        }
    }
    let request = || HttpRequest::get(KEY).header("X-Causal-Metadata", ours.as_str());
    for second in [ours.as_bytes(), b"\xff"] {
        let got = send(&node, request().header("X-Causal-Metadata", second).body(Body::empty()).unwrap()).await;
        assert_eq!((got.status.as_u16(), &got.json()["error"]), (400, &json!("Causal metadata is malformed")));
    }
    for header in ["nonsense".as_bytes(), b"\xff\xfe"] {
        let request = HttpRequest::get(KEY).header("X-Causal-Metadata", header).body(Body::empty()).unwrap();
        assert_eq!(send(&node, request).await.status, 400);
    }
}

#[tokio::test]
async fn odd_keys_are_keys() {
    let keys = [
        ("a/b", "a/b"),
        ("a%2Fb", "a/b"),
        ("a%2fb", "a/b"),
        ("/", "/"),
        ("//a", "//a"),
        ("a/", "a/"),
        (".", "."),
        ("..", ".."),
        ("a/../b", "a/../b"),
        ("%2e%2E/", "../"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%F0%9F%98%80", "😀"),
        ("😀", "😀"),
        ("%3F", "?"),
        ("k?query=1&x", "k"),
        ("%23", "#"),
        ("%25", "%"),
        ("%2525", "%25"),
        ("100%", "100%"),
        ("%zz%4", "%zz%4"),
        ("%+1", "%+1"),
        ("%00", "\0"),
        ("{key}", "{key}"),
        ("*key", "*key"),
        ("key-value-store/x", "key-value-store/x"),
    ];
    for (path, key) in keys {
        let node = Arc::new(fake());
        let path = format!("/key-value-store/{path}");
        let got = call(&node, "PUT", &path, r#"{"value":1}"#).await;
        assert_eq!(got.status, 201, "{path}: {}", got.text);
        assert_eq!(node.keys.lock().unwrap().keys().next().unwrap().as_str(), key);
        assert_eq!(call(&node, "GET", &path, "").await.status, 200);
        assert_eq!(call(&node, "DELETE", &path, "").await.status, 200);
    }
}

#[tokio::test]
async fn keys_that_are_none() {
    let node = Arc::new(fake());
    for method in ["GET", "PUT", "DELETE"] {
        for path in ["/key-value-store/", "/key-value-store/?a=b"] {
            assert!(error(&node, method, path, "{}", 400).await.starts_with("Key is missing"));
        }
        for path in ["%ff", "a%C3", "%ED%A0%80", "a%c3/b"] {
            let path = format!("/key-value-store/{path}");
            assert_eq!(error(&node, method, &path, r#"{"value":1}"#, 400).await, "Key is not UTF-8");
        }
    }
}

#[tokio::test]
async fn the_limit_of_a_key_counts_decoded_bytes_and_binds_writers() {
    let path = |key: String| format!("/key-value-store/{key}");
    let body = r#"{"value":1}"#;
    for good in ["k".repeat(50), "%6b".repeat(50), "%C3%A4".repeat(25)] {
        assert_eq!(call(&Arc::new(fake()), "PUT", &path(good), body).await.status, 201);
    }
    let node = Arc::new(fake());
    for long in ["k".repeat(51), "%6b".repeat(51), "%C3%A4".repeat(26), "k".repeat(60_000)] {
        assert_eq!(error(&node, "PUT", &path(long.clone()), body, 400).await, "Key is too long");
        assert_eq!(error(&node, "PUT", &path(long), "{}", 400).await, "Key is too long");
    }
    for method in ["GET", "DELETE"] {
        let got = call(&node, method, &path("k".repeat(51)), "").await;
        assert_eq!((got.status.as_u16(), &got.json()["error"]), (404, &json!("Key does not exist")));
    }
}

#[tokio::test]
async fn bodies_that_stop_coming_are_not_waited_for() {
    let node = impatient();
    for method in ["PUT", "GET", "DELETE"] {
        let start = Bytes::from_static(b"{\"value\":");
        let pieces = stream::once(async { Ok::<_, std::io::Error>(start) });
        let half = Body::from_stream(futures_util::StreamExt::chain(pieces, stream::pending()));
        let got = send(&node, HttpRequest::builder().method(method).uri(KEY).body(half).unwrap()).await;
        assert_eq!((got.status.as_u16(), &got.json()["message"]), (408, &json!(format!("Error in {method}"))));
    }
    let torn = Body::from_stream(stream::once(async { Err::<Bytes, _>(std::io::Error::other("reset")) }));
    assert_eq!(send(&node, HttpRequest::put(KEY).body(torn).unwrap()).await.status, 400);
    assert!(node.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bodies_in_pieces_are_put_together() {
    for size in [1, 2, 3, 7, 1000] {
        let node = Arc::new(fake());
        let text = Bytes::from_static(br#"{"causal-metadata":null,"value":"in pieces"}"#);
        let pieces: Vec<_> = text.chunks(size).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
        let body = Body::from_stream(stream::iter(pieces));
        assert_eq!(send(&node, HttpRequest::put(KEY).body(body).unwrap()).await.status, 201);
        assert!(call(&node, "GET", KEY, "").await.text.ends_with(r#""value":"in pieces"}"#));
    }
}

#[tokio::test]
async fn compressed_bodies_are_refused_unread() {
    let node = Arc::new(fake());
    for coding in ["gzip", "br", "deflate, gzip", "identity, gzip", "GZIP", "zstd", ""] {
        for (method, path) in [("PUT", KEY), ("GET", KEY), ("DELETE", KEY), ("PUT", "/key-value-store-shard/reshard")] {
            let request = HttpRequest::builder().method(method).uri(path).header("Content-Encoding", coding);
            let got = send(&node, request.body(Body::from("\x1f\u{8b}\x08")).unwrap()).await;
            let error = "Content-Encoding is not supported; send the body as it is";
            assert_eq!((got.status.as_u16(), &got.json()["error"]), (415, &json!(error)), "{coding}");
        }
    }
    assert!(node.asked.lock().unwrap().is_empty() && node.wanted.lock().unwrap().is_empty());
    let plain = HttpRequest::put(KEY).header("Content-Encoding", "Identity").body(Body::from("{\"value\":1}")).unwrap();
    assert_eq!(send(&node, plain).await.status, 201);
    // Without a body there is nothing to be encoded.
    let empty = HttpRequest::get(KEY).header("Content-Encoding", "gzip").body(Body::empty()).unwrap();
    assert_eq!(send(&node, empty).await.status, 200);
}

#[tokio::test]
async fn bodies_together_have_a_bound_and_give_their_room_back() {
    let mut node = fake();
    node.limits = Limits { max_value_bytes: 10_000, body_room: 10_000, ..node.limits };
    let node = Arc::new(node);
    let router = router(node.clone(), node.limits);
    let half = || {
        let start = stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from(vec![b' '; 3_000])) });
        Body::from_stream(futures_util::StreamExt::chain(start, stream::pending()))
    };
    let put = |body| router.clone().oneshot(HttpRequest::put(KEY).body(body).unwrap());
    let whole = || Body::from(format!(r#"{{"value":"{}"}}"#, "v".repeat(5_000)));
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(put(half()))).collect();
    tokio::task::yield_now().await;
    let refused = put(whole()).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    // What needs no more than there is goes on.
    assert_eq!(put(Body::from(r#"{"value":1}"#)).await.unwrap().status(), 201);
    for request in held {
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
    }
    assert_eq!(put(whole()).await.unwrap().status(), 200);
}
