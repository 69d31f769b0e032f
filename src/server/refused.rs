//! A JSON body for what hyper refuses by itself: a request line or a head that is no HTTP, or too long.
//!
//! hyper answers such a request with a bare head, before any handler sees it, and offers no way to say more. So its
//! side of the connection goes through [`Spoken`], which puts the body that every error has into a head without one.
//! Nothing else that is sent looks like it: every answer of ours has a body.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a bare head says of its body.
const NO_BODY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// A connection whose bare refusals get a body.
#[derive(Debug)]
pub(super) struct Spoken<T> {
    stream: T,
    /// What is written in place of what hyper gave, and how far it is.
    instead: Option<(Vec<u8>, usize)>,
}

impl<T> Spoken<T> {
    pub(super) fn new(stream: T) -> Self {
        Self { stream, instead: None }
    }
}

/// The bytes with a body, when they end with the bare head of a refusal.
fn with_body(bytes: &[u8]) -> Option<Vec<u8>> {
    let begin = bytes.windows(10).rposition(|ten| ten == b"HTTP/1.1 4")?;
    let head = &bytes[begin..];
    let at = begin + head.windows(NO_BODY.len()).position(|window| window == NO_BODY)?;
    if !head.ends_with(b"\r\n\r\n") {
        return None;
    }
    let error = match head.get(9..12)? {
        b"414" => "The path is too long",
        b"431" => "The headers are too long",
        _ => "The request is not valid HTTP/1.1",
    };
    let body = format!(r#"{{"error":"{error}","message":"Error in request"}}"#);
    let fields = format!("\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let rest = &bytes[at + NO_BODY.len()..];
    Some([&bytes[..at], fields.as_bytes(), rest, body.as_bytes()].concat())
}

impl<T: AsyncRead + Unpin> AsyncRead for Spoken<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

/// Without vectored writes hyper hands over a head in one piece.
impl<T: AsyncWrite + Unpin> AsyncWrite for Spoken<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none() {
            this.instead = with_body(bytes).map(|instead| (instead, 0));
        }
        let Some((instead, at)) = &mut this.instead else { return Pin::new(&mut this.stream).poll_write(cx, bytes) };
        while *at < instead.len() {
            match ready!(Pin::new(&mut this.stream).poll_write(cx, &instead[*at..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => *at += written,
            }
        }
        this.instead = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_refusal_at_the_end_gets_a_body() {
        let bare = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n";
        let got = String::from_utf8(with_body(bare.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            got,
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: 74\r\ndate: today\r\n\r\n\
             {\"error\":\"The request is not valid HTTP/1.1\",\"message\":\"Error in request\"}"
        );
        let before = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let both = with_body(format!("{before}{bare}").as_bytes()).unwrap();
        assert!(both.starts_with(before.as_bytes()) && both.ends_with(b"request\"}"));
        for other in [
            before,
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
            "{\"value\":\"HTTP/1.1 400 \\r\\ncontent-length: 0\\r\\n\"}",
        ] {
            assert_eq!(with_body(other.as_bytes()), None, "{other}");
        }
    }
}
