//! `get`, `put`, `delete`, `view`, `shards`: the contract's requests for the shell.
//!
//! Each prints the node's JSON on one line and exits 0 for a 2xx, 1 for any other status, or without an answer.
//! A session is a variable: `export ENTAIL_CONTEXT=$(entail put k v | jq -r '."causal-metadata"')`.

use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::ask::{Answer, AskError, Question, ask, key_path};
use super::failed;

/// A little more than a node's default deadline, so that its own 503 is what is seen.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// Whom to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// The node to ask (host:port); any node will do.
    #[arg(long, env = "ENTAIL_NODE", default_value = "127.0.0.1:8081", value_name = "NODE")]
    pub(super) node: String,
}

/// A key at a node, and what the session has seen.
#[derive(Clone, Debug, clap::Args)]
pub struct GetArgs {
    /// The key.
    key: String,
    #[command(flatten)]
    to: NodeArgs,
    /// The causal-metadata of the session's last answer.
    #[arg(long, env = "ENTAIL_CONTEXT", default_value = "", hide_default_value = true, value_name = "TEXT")]
    context: String,
}

/// As for reading.
pub type DeleteArgs = GetArgs;

/// A key, its value, and what the session has seen.
#[derive(Clone, Debug, clap::Args)]
pub struct PutArgs {
    /// The key.
    key: String,
    /// The value: JSON, or else a plain text.
    value: String,
    #[command(flatten)]
    to: NodeArgs,
    /// The causal-metadata of the session's last answer.
    #[arg(long, env = "ENTAIL_CONTEXT", default_value = "", hide_default_value = true, value_name = "TEXT")]
    context: String,
}

/// `entail get`.
pub async fn get(args: GetArgs) -> ExitCode {
    on_key(Method::GET, &args.key, &args.to, &args.context, None).await
}

/// `entail delete`.
pub async fn delete(args: DeleteArgs) -> ExitCode {
    on_key(Method::DELETE, &args.key, &args.to, &args.context, None).await
}

/// `entail put`.
pub async fn put(args: PutArgs) -> ExitCode {
    let body = format!(r#"{{"value":{}}}"#, as_json(&args.value));
    on_key(Method::PUT, &args.key, &args.to, &args.context, Some(body)).await
}

/// JSON as it was typed, every digit of its numbers included; what is no JSON is a text.
fn as_json(typed: &str) -> String {
    match serde_json::from_str::<Box<RawValue>>(typed) {
        Ok(json) => json.get().to_owned(),
        Err(_) => Value::from(typed).to_string(),
    }
}

async fn on_key(method: Method, key: &str, to: &NodeArgs, context: &str, body: Option<String>) -> ExitCode {
    let path = key_path(key);
    let question = Question { node: &to.node, method, path: &path, context: Some(context), body, timeout: TIMEOUT };
    match ask(question).await {
        Ok(answer) => shown(&answer),
        Err(error) => failed(error),
    }
}

/// Prints a node's answer; the exit status of it.
pub(super) fn shown(answer: &Answer) -> ExitCode {
    println!("{}", String::from_utf8_lossy(&answer.body));
    if answer.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `entail view`.
pub async fn view(args: NodeArgs) -> ExitCode {
    match ask(Question::get(&args.node, "/key-value-store-view", TIMEOUT)).await {
        Ok(answer) => shown(&answer),
        Err(error) => failed(error),
    }
}

/// `entail shards`: one object, shard id → members and key count.
pub async fn shards(args: NodeArgs) -> ExitCode {
    match gathered(&args.node).await {
        Ok(shards) => {
            println!("{}", Value::Object(shards));
            ExitCode::SUCCESS
        }
        Err(error) => failed(error),
    }
}

async fn gathered(node: &str) -> Result<Map<String, Value>, AskError> {
    let mut shards = Map::new();
    for id in field(node, "shard-ids", "").await?.as_array().into_iter().flatten() {
        let at = format!("/{id}");
        let members = field(node, "shard-id-members", &at).await?;
        let keys = field(node, "shard-id-key-count", &at).await?;
        shards.insert(id.to_string(), json!({ "members": members, "keys": keys }));
    }
    Ok(shards)
}

/// The field that a shard query is named for; null when the node answers without it.
async fn field(node: &str, name: &str, at: &str) -> Result<Value, AskError> {
    let path = format!("/key-value-store-shard/{name}{at}");
    Ok(ask(Question::get(node, &path, TIMEOUT)).await?.json()[name].take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_or_else_text() {
        for (typed, sent) in [
            ("blue", r#""blue""#),
            ("7", "7"),
            ("1234567890123456789012345678901234567890", "1234567890123456789012345678901234567890"),
            (r#"{"a": [1, null]}"#, r#"{"a": [1, null]}"#),
            (r#"say "hi""#, r#""say \"hi\"""#),
            ("", r#""""#),
        ] {
            assert_eq!(as_json(typed), sent);
        }
    }
}
