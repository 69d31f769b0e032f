//! Request bodies, within a bound of bytes and a bound of time.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::EXPECT;
use axum::http::{HeaderMap, StatusCode};
use bytes::BytesMut;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::answer::Fault;

/// The room that a body has beside the value: for the context, white space, and members that mean nothing here.
pub(super) const BESIDE_VALUE_BYTES: usize = 1 << 20;

/// How much of a body that is too large is read and thrown away. Many clients write it all before they look for an
/// answer, and closing the connection under them would show them a reset in its place.
const LINGER_BYTES: usize = 16 << 20;

/// The room made at once for a body in several pieces. More is made as it comes, so that a mere promise costs nothing.
const FIRST_ROOM_BYTES: usize = 64 << 10;

/// Why there is no body to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// It is longer than the bound.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// The connection broke, or the body is not what its header says.
    Broken,
}

impl From<BodyFault> for Fault {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "Body is too large"),
            BodyFault::TooSlow => Fault::new(StatusCode::REQUEST_TIMEOUT, "Body did not arrive in time; send it again"),
            BodyFault::Broken => Fault::bad("Body could not be read; send it again"),
        }
    }
}

/// The whole body, if it has at most `bound` bytes and arrives within `time`.
///
/// # Errors
/// Each [`BodyFault`]. Never holds more than `bound` bytes and one piece as the network gave it.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    bound: usize,
    time: Duration,
) -> Result<Bytes, BodyFault> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let end = Instant::now() + time;
    let read = timeout_at(end, collect(&mut body, bound)).await.unwrap_or(Err(BodyFault::TooSlow));
    // Who asked whether to send it at all reads the refusal first.
    if read == Err(BodyFault::TooLarge) && !headers.contains_key(EXPECT) {
        // What comes of it does not change the answer.
        let _ = timeout_at(end, discard(&mut body)).await;
    }
    read
}

async fn collect(body: &mut Body, bound: usize) -> Result<Bytes, BodyFault> {
    if body.size_hint().lower() > bound as u64 {
        return Err(BodyFault::TooLarge);
    }
    let Some(first) = piece(body, bound).await? else { return Ok(Bytes::new()) };
    // Nearly every body is one piece, which needs no copy.
    let Some(second) = piece(body, bound - first.len()).await? else { return Ok(first) };
    let rest = (body.size_hint().lower() as usize).min(FIRST_ROOM_BYTES);
    let mut whole = BytesMut::with_capacity(first.len() + second.len() + rest);
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while let Some(next) = piece(body, bound - whole.len()).await? {
        whole.extend_from_slice(&next);
    }
    Ok(whole.freeze())
}

/// The next bytes, at most `room` of them; `None` at the end.
async fn piece(body: &mut Body, room: usize) -> Result<Option<Bytes>, BodyFault> {
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| BodyFault::Broken)?.into_data() {
            Ok(data) if data.len() > room => return Err(BodyFault::TooLarge),
            Ok(data) if !data.is_empty() => return Ok(Some(data)),
            // An empty piece, or trailers, which mean nothing here.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

async fn discard(body: &mut Body) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if bytes > left {
            return;
        }
        left -= bytes;
    }
}
