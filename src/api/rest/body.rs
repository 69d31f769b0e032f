//! Request bodies, within a bound of bytes and a bound of time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONTENT_ENCODING, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::answer::Fault;
use crate::error::Code;

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
    /// It is compressed.
    Encoded,
    /// The bodies of all requests under way leave no room for it.
    NoRoom,
}

impl From<BodyFault> for Fault {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "Body is too large"),
            BodyFault::TooSlow => Fault::new(StatusCode::REQUEST_TIMEOUT, "Body did not arrive in time; send it again"),
            BodyFault::Broken => Fault::bad("Body could not be read; send it again"),
            BodyFault::Encoded => Fault::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Encoding is not supported; send the body as it is",
            ),
            BodyFault::NoRoom => Code::TooManyRequests.into(),
        }
    }
}

/// What the bodies of all requests under way may take together.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    /// Room for so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Room for so many bytes more, beside what is held.
    fn add(&self, bytes: usize, held: &mut Option<OwnedSemaphorePermit>) -> Result<(), BodyFault> {
        let bytes = u32::try_from(bytes).map_err(|_| BodyFault::NoRoom)?;
        let more = Arc::clone(&self.0).try_acquire_many_owned(bytes).map_err(|_| BodyFault::NoRoom)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

/// What is asked of every body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound<'a> {
    /// The most bytes that it may have.
    pub bytes: usize,
    /// How long it may take to arrive.
    pub time: Duration,
    /// Where it finds its room.
    pub room: &'a Room,
}

/// A whole body, and its room until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// Its bytes.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// The whole body, within its bound.
///
/// # Errors
/// Each [`BodyFault`]. Never holds more than its bound's bytes and one piece as the network gave it.
pub(super) async fn read(headers: &HeaderMap, mut body: Body, bound: Bound<'_>) -> Result<Whole, BodyFault> {
    if body.is_end_stream() {
        return Ok(Whole::default());
    }
    let end = Instant::now() + bound.time;
    let read = match is_encoded(headers) {
        true => Err(BodyFault::Encoded),
        false => timeout_at(end, collect(&mut body, bound)).await.unwrap_or(Err(BodyFault::TooSlow)),
    };
    let unread = matches!(read, Err(BodyFault::TooLarge | BodyFault::Encoded | BodyFault::NoRoom));
    // Who asked whether to send it at all reads the refusal first.
    if unread && !headers.contains_key(EXPECT) {
        // What comes of it does not change the answer.
        let _ = timeout_at(end, discard(&mut body)).await;
    }
    read
}

/// True for a body that is not sent as it is.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

async fn collect(body: &mut Body, bound: Bound<'_>) -> Result<Whole, BodyFault> {
    if body.size_hint().lower() > bound.bytes as u64 {
        return Err(BodyFault::TooLarge);
    }
    let mut room = None;
    let Some(first) = piece(body, bound.bytes).await? else { return Ok(Whole::default()) };
    bound.room.add(first.len(), &mut room)?;
    // Nearly every body is one piece, which needs no copy.
    let Some(second) = piece(body, bound.bytes - first.len()).await? else {
        return Ok(Whole { bytes: first, _room: room });
    };
    bound.room.add(second.len(), &mut room)?;
    let rest = (body.size_hint().lower() as usize).min(FIRST_ROOM_BYTES);
    let mut whole = Vec::with_capacity(first.len() + second.len() + rest);
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while let Some(next) = piece(body, bound.bytes - whole.len()).await? {
        bound.room.add(next.len(), &mut room)?;
        if whole.capacity() - whole.len() < next.len() {
            // Doubled, but for what is known not to come: what is held is what was counted.
            let to_come = body.size_hint().upper().map_or(usize::MAX, |bytes| bytes as usize);
            whole.reserve_exact(next.len() + to_come.min(whole.len()));
        }
        whole.extend_from_slice(&next);
    }
    Ok(Whole { bytes: whole.into(), _room: room })
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
