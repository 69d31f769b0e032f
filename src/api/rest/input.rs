//! What a key request says: its key from the path, its value and causal metadata from body and headers.
//!
//! The value is never interpreted: its JSON text is checked and kept as it was sent, so numbers keep every digit and
//! objects their order and duplicates. Nothing here recurses, however deep the text nests.
//!
//! Causal metadata that says nothing (absent, `null`, `""`) in the body leaves the word to the header; otherwise the
//! body wins and the header is not looked at.

use std::borrow::Cow;
use std::fmt;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::answer::{CONTEXT_HEADER, Fault};
use crate::causal::codec::{ContextCodec, NotDecoded};
use crate::causal::context::Context;
use crate::error::Code;
use crate::types::Key;

/// Values up to here are copied out of the body, so that a small value does not hold the connection's whole buffer.
const COPY_BYTES: usize = 16 << 10;

/// The key that the rest of a path names: percent-decoded, nothing normalised. A `%` that starts no escape stands for
/// itself.
///
/// # Errors
/// 400 for the empty key and for what is not UTF-8.
pub(super) fn key(path: &str) -> Result<Key, Fault> {
    let text = match path.contains('%') {
        false => Cow::Borrowed(path),
        true => Cow::Owned(percent_decode(path).ok_or_else(|| Fault::bad("Key is not UTF-8"))?),
    };
    Key::new(&text).map_err(|_| Fault::bad("Key is missing; name it in the path: /key-value-store/<key>"))
}

fn percent_decode(path: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            _ => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The members of a body that mean something here, as they were sent. Of a member that is there twice the last counts.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    value: Option<&'a RawValue>,
    context: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// The members of a body; an empty body has none.
    ///
    /// # Errors
    /// 400 when the body is not a JSON object, or `causal-metadata` is neither a string nor null.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Fault> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let text = std::str::from_utf8(body).map_err(|_| Fault::bad("Body is not valid JSON: it is not UTF-8"))?;
        let raw: RawFields<'a> = serde_json::from_str(text).map_err(|error| not_an_object(&error))?;
        let context = raw.context.map(context_text).transpose()?.filter(|text| !text.is_empty());
        Ok(Self { value: raw.value, context })
    }

    /// The value's JSON text, out of the body that was parsed.
    ///
    /// # Errors
    /// 400 when there is none, 413 when it is over the limit.
    pub(super) fn value(&self, body: &Bytes, max_bytes: usize) -> Result<Bytes, Fault> {
        let raw = self.value.ok_or_else(|| Fault::bad("Value is missing"))?.get().as_bytes();
        if raw.len() > max_bytes {
            return Err(value_too_large());
        }
        let mostly_value = raw.len() > COPY_BYTES && raw.len() > body.len() / 2;
        Ok(if mostly_value { body.slice_ref(raw) } else { Bytes::copy_from_slice(raw) })
    }

    /// What the session has seen, as the body says or else the header.
    ///
    /// # Errors
    /// 400 when that is not one of this store's contexts, or the header is there twice; 503 for another branch's.
    pub(super) fn context(&self, headers: &HeaderMap, codec: &ContextCodec) -> Result<Context, Fault> {
        let text = match &self.context {
            Some(text) => text,
            None => header_text(headers)?,
        };
        if text.is_empty() {
            return Ok(Context::empty());
        }
        codec.decode(text).map_err(|not_decoded| Fault::from(code(not_decoded)))
    }
}

/// What a string that is no context of this node's is answered with. One of another branch of the store may be of a
/// newer one, that this node learns of in a moment.
fn code(not_decoded: NotDecoded) -> Code {
    match not_decoded {
        NotDecoded::Malformed => Code::ContextMalformed,
        NotDecoded::OtherBranch => Code::DependenciesUnsatisfied,
    }
}

/// The refusal of a value over the limit.
pub(super) fn value_too_large() -> Fault {
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "Value is too large")
}

fn header_text(headers: &HeaderMap) -> Result<&str, Fault> {
    let mut values = headers.get_all(CONTEXT_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(""),
        (Some(value), None) => value.to_str().map_err(|_| Code::ContextMalformed.into()),
        // To choose one would forget what the other stands for.
        (Some(_), Some(_)) => Err(Code::ContextMalformed.into()),
    }
}

/// The text of a `causal-metadata` member; null is the empty one.
fn context_text(raw: &RawValue) -> Result<Cow<'_, str>, Fault> {
    let json = raw.get();
    match json.as_bytes() {
        b"null" => Ok(Cow::Borrowed("")),
        // Without escapes, as every context of ours is, the text stands there as it is.
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => Ok(Cow::Borrowed(&json[1..json.len() - 1])),
        // Half of a surrogate pair is JSON, but no text.
        [b'"', ..] => serde_json::from_str(json).map(Cow::Owned).map_err(|_| Code::ContextMalformed.into()),
        _ => Err(Fault::bad("'causal-metadata' must be a string")),
    }
}

/// The refusal of a body that is not what is wanted.
pub(super) fn not_an_object(error: &serde_json::Error) -> Fault {
    // An error in the data can only be the body's own type: its members are not interpreted.
    match error.is_data() {
        true => Fault::bad("Body must be a JSON object"),
        false => Fault::bad(format!("Body is not valid JSON: {error}")),
    }
}

/// [`Fields`] before `causal-metadata` is looked at.
#[derive(Default)]
struct RawFields<'a> {
    value: Option<&'a RawValue>,
    context: Option<&'a RawValue>,
}

/// What a member's name means; names may be written with escapes.
enum Name {
    Value,
    Context,
    Other,
}

impl<'de> Deserialize<'de> for RawFields<'de> {
    // By hand: a derived one would take an array for an object, and null for no value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = RawFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = RawFields::default();
        while let Some(name) = map.next_key()? {
            match name {
                Name::Value => fields.value = Some(map.next_value()?),
                Name::Context => fields.context = Some(map.next_value()?),
                Name::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        Ok(match name {
            "value" => Name::Value,
            "causal-metadata" => Name::Context,
            _ => Name::Other,
        })
    }
}
