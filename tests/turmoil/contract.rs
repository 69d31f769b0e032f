//! What the REST contract allows as an answer to an operation on a key.

use entail::history::{Op, Outcome};
use serde_json::{Value, json};

use crate::client::{Answer, Silence};

/// How an operation ended.
///
/// # Errors
/// In words, for an answer that the contract does not have.
pub fn outcome(op: Op, answer: &Result<Answer, Silence>) -> Result<Outcome, String> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Silence::NotSent) => return Ok(Outcome::Refused),
        Err(Silence::Lost(_)) => return Ok(Outcome::Unknown),
    };
    let verb = match op {
        Op::Put => "PUT",
        Op::Delete => "DELETE",
        Op::Get | Op::Final => "GET",
    };
    let found = match answer.status {
        200 | 201 if is_done(op, answer) => Some(Outcome::Ok),
        404 if op != Op::Put && is_absent(verb, answer) => Some(Outcome::Absent),
        503 if is_refused(verb, answer) => Some(Outcome::Refused),
        504 if matches!(op, Op::Put | Op::Delete) && is_unknown(verb, answer) => Some(Outcome::Unknown),
        _ => None,
    };
    found.ok_or_else(|| format!("{verb} is answered with what the contract does not have: {answer:?}"))
}

/// The members of a body besides these, which must be there, must be none.
fn has_only(json: &Value, rest: usize, members: &[(&str, Value)]) -> bool {
    let Some(object) = json.as_object() else { return false };
    object.len() == members.len() + rest && members.iter().all(|(name, value)| object.get(*name) == Some(value))
}

/// The context is in the body and in the header.
fn tells_context(answer: &Answer) -> bool {
    let body = answer.json["causal-metadata"].as_str();
    body.is_some() && body == answer.context.as_deref()
}

fn is_done(op: Op, answer: &Answer) -> bool {
    let message = match (op, answer.status) {
        (Op::Put, 201) => "Added successfully",
        (Op::Put, 200) => "Updated successfully",
        (Op::Delete, 200) => "Deleted successfully",
        (Op::Get | Op::Final, 200) => "Retrieved successfully",
        _ => return false,
    };
    let shows = match op {
        Op::Get | Op::Final => answer.json["value"].is_string(),
        Op::Put | Op::Delete => answer.json["shard-id"].is_u64() && answer.copies.is_some_and(|copies| copies >= 1),
    };
    shows && tells_context(answer) && has_only(&answer.json, 2, &[("message", json!(message))])
}

fn is_absent(verb: &str, answer: &Answer) -> bool {
    let members = [
        ("doesExist", json!(false)),
        ("error", json!("Key does not exist")),
        ("message", json!(format!("Error in {verb}"))),
    ];
    tells_context(answer) && has_only(&answer.json, 1, &members)
}

fn is_refused(verb: &str, answer: &Answer) -> bool {
    let errors = [
        "Causal dependencies not satisfied; try again later",
        "Shard is unavailable; try again later",
        "Too many requests; try again later",
    ];
    let is = |error: &&str| has_only(&answer.json, 0, &[("error", json!(error)), ("message", message(verb))]);
    answer.retry_after && errors.iter().any(is)
}

fn is_unknown(verb: &str, answer: &Answer) -> bool {
    let error = json!("Outcome unknown; the write may have been done");
    has_only(&answer.json, 0, &[("error", error), ("message", message(verb))])
}

fn message(verb: &str) -> Value {
    json!(format!("Error in {verb}"))
}
