//! What only a real connection shows.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

async fn connect(node: &Arc<Fake>) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router(node.clone(), node.limits);
    tokio::spawn(async move { axum::serve(listener, app).await });
    TcpStream::connect(address).await.unwrap()
}

/// Sends these bytes and gives all that comes back until the server closes.
async fn exchange(node: &Arc<Fake>, bytes: &[u8]) -> String {
    let mut stream = connect(node).await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_client_that_writes_all_of_a_huge_value_first_still_reads_its_answer() {
    let value = "v".repeat(8 << 20);
    let body = format!(r#"{{"value":"{value}"}}"#);
    let head = format!("PUT /key-value-store/k HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
    let answer = exchange(&Arc::new(fake()), format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("Value is too large"), "{answer}");
}

#[tokio::test]
async fn who_asks_first_is_told_before_sending() {
    let head = "PUT /key-value-store/k HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\nexpect: 100-continue\r\n\r\n";
    let answer = exchange(&Arc::new(fake()), head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("Value is too large"), "{answer}");
}

#[tokio::test]
async fn a_half_sent_body_is_answered_and_its_connection_closed() {
    let half = "PUT /key-value-store/k HTTP/1.1\r\nhost: x\r\ncontent-length: 30\r\n\r\n{\"value\":";
    let answer = exchange(&impatient(), half.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("Error in PUT"), "{answer}");
}

#[tokio::test]
async fn a_refused_request_leaves_its_connection_usable() {
    let node = Arc::new(fake());
    let put = |path: &str, close: &str| {
        let body = "x".repeat(30_000);
        format!("PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{close}\r\n{body}", body.len())
    };
    let requests = [
        put("/key-value-store/", ""),
        put("/key-value-store/k", ""),
        "GET /key-value-store/%ff HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        put("/key-value-store/k", "connection: close\r\n"),
    ];
    let answer = exchange(&node, requests.concat().as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 400").count(), 4, "{answer}");
}

#[tokio::test]
async fn raw_bytes_in_a_path_are_a_key_or_a_refusal() {
    let node = Arc::new(fake());
    let head = "PUT /key-value-store/\u{e4} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 11\r\n\r\n";
    let answer = exchange(&node, format!("{head}{}", r#"{"value":1}"#).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(node.keys.lock().unwrap().keys().next().unwrap().as_str(), "\u{e4}");
    for line in [&b"GET /key-value-store/\xff HTTP/1.1"[..], b"CONNECT x:1 HTTP/1.1", b"OPTIONS * HTTP/1.1"] {
        let request = [line, b"\r\nhost: x\r\nconnection: close\r\n\r\n"].concat();
        let answer = exchange(&node, &request).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}
