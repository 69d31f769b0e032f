//! `reshard`, `add-member`, `forget`, `status`: what operators ask of a running store.
//!
//! Each prints the node's JSON on one line and exits 0 for a 2xx, 1 for any other status or without an answer, as the
//! other small commands do. A change is answered when it is done; meanwhile its progress goes to standard error, a
//! line whenever it has changed. To end such a command cancels nothing.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::ask::{Answer, AskError, Question, ask};
use super::failed;
use super::keys::{NodeArgs, TIMEOUT, shown};

/// The path of a reshard.
const RESHARD: &str = "/key-value-store-shard/reshard";

/// The path of the operator's word.
const FORGET: &str = "/admin/forget";

/// Changes take as long as there is something to copy; the node itself answers when nothing moves any more.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How often to look how far a change is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A count of shards, or the wish to undo.
#[derive(Clone, Debug, clap::Args)]
pub struct ReshardArgs {
    /// How many shards there are to be; today's count spreads nodes and keys evenly again.
    #[arg(required_unless_present = "cancel", conflicts_with = "cancel", allow_negative_numbers = true)]
    count: Option<i64>,
    /// Undo the reshard that is under way.
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    to: NodeArgs,
}

/// A shard and the node that is to belong to it.
#[derive(Clone, Debug, clap::Args)]
pub struct AddMemberArgs {
    /// The shard.
    shard: u32,
    /// The node (host:port); in the view, and in no other shard.
    member: String,
    #[command(flatten)]
    to: NodeArgs,
}

/// A node that never comes back.
#[derive(Clone, Debug, clap::Args)]
pub struct ForgetArgs {
    /// The node (host:port).
    lost: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    to: NodeArgs,
}

/// `entail reshard`.
pub async fn reshard(args: ReshardArgs) -> ExitCode {
    match args.count {
        Some(count) => change(&args.to.node, Method::PUT, RESHARD, Some(json!({ "shard-count": count }))).await,
        None => change(&args.to.node, Method::DELETE, RESHARD, None).await,
    }
}

/// `entail add-member`.
pub async fn add_member(args: AddMemberArgs) -> ExitCode {
    let path = format!("/key-value-store-shard/add-member/{}", args.shard);
    change(&args.to.node, Method::PUT, &path, Some(json!({ "socket-address": args.member }))).await
}

/// `entail status`.
pub async fn status(args: NodeArgs) -> ExitCode {
    match ask(Question::get(&args.node, "/status", TIMEOUT)).await {
        Ok(answer) => shown(&answer),
        Err(error) => failed(error),
    }
}

/// `entail forget`: says what it may lose, and asks.
pub async fn forget(args: ForgetArgs) -> ExitCode {
    let confirmed = json!({ "socket-address": args.lost, "confirm": true });
    if args.yes {
        return change(&args.to.node, Method::POST, FORGET, Some(confirmed)).await;
    }
    let asked = json!({ "socket-address": args.lost });
    let answer = match sent(&args.to.node, Method::POST, FORGET, Some(asked)).await {
        Ok(answer) => answer,
        Err(error) => return failed(error),
    };
    let Some(cost) = cost(&answer) else { return shown(&answer) };
    match agreed(&mut io::stdin().lock(), &args.lost, &cost) {
        true => change(&args.to.node, Method::POST, FORGET, Some(confirmed)).await,
        false => failed("nothing was done"),
    }
}

/// What it may cost to forget, if the node's answer is that.
fn cost(answer: &Answer) -> Option<String> {
    let error = answer.json()["error"].as_str()?.to_owned();
    // The remedy after it is not for a terminal.
    let (cost, _) = error.split_once("; repeat with")?;
    (answer.status == StatusCode::CONFLICT).then(|| cost.to_owned())
}

/// Asks on the terminal; whatever is no yes is a no.
fn agreed(answers: &mut impl BufRead, node: &str, cost: &str) -> bool {
    eprint!("{cost}. What is given up for {node} is so for ever. Go on? [y/N] ");
    let _ = io::stderr().flush();
    let mut line = String::new();
    answers.read_line(&mut line).is_ok() && matches!(line.trim(), "y" | "Y" | "yes" | "Yes" | "YES")
}

/// Asks for a change and waits until it is done.
async fn change(node: &str, method: Method, path: &str, body: Option<Value>) -> ExitCode {
    let done = sent(node, method, path, body);
    tokio::pin!(done);
    let mut last = String::new();
    let answer = loop {
        match tokio::time::timeout(LOOK_EVERY, &mut done).await {
            Ok(answer) => break answer,
            Err(_) => tell_progress(node, &mut last).await,
        }
    };
    match answer {
        Ok(answer) => shown(&answer),
        Err(error) => failed(error),
    }
}

async fn sent(node: &str, method: Method, path: &str, body: Option<Value>) -> Result<Answer, AskError> {
    let body = body.map(|body| body.to_string());
    ask(Question { node, method, path, context: None, body, timeout: CHANGE_TIMEOUT }).await
}

async fn tell_progress(node: &str, last: &mut String) {
    let Ok(answer) = ask(Question::get(node, RESHARD, LOOK_EVERY)).await else { return };
    if let Some(line) = progress(&answer.json()).filter(|line| line != last) {
        eprintln!("{line}");
        *last = line;
    }
}

/// Where a reshard that runs stands, in words.
fn progress(status: &Value) -> Option<String> {
    if status["state"] != "running" {
        return None;
    }
    let part = |of: &str, name: &str| status[of][name].as_u64().unwrap_or(0);
    let waiting: Vec<&str> = status["waiting-for"].as_array()?.iter().filter_map(Value::as_str).collect();
    let waits = if waiting.is_empty() { String::new() } else { format!("; waiting for {}", waiting.join(", ")) };
    Some(format!(
        "{} of {} partitions moved, {} joining; {} of {} keys copied{waits}",
        part("partitions", "moved"),
        part("partitions", "to-move"),
        part("partitions", "joining"),
        part("keys", "copied"),
        part("keys", "to-copy"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (typed, yes) in [
            ("y\n", true),
            ("yes\n", true),
            (" YES \n", true),
            ("\n", false),
            ("", false),
            ("n\n", false),
            ("yep\n", false),
        ] {
            assert_eq!(agreed(&mut typed.as_bytes(), "node1:80", "This may lose 1 write"), yes, "{typed:?}");
        }
    }

    #[test]
    fn only_the_refusal_that_asks_for_a_word_tells_a_cost() {
        let answer = |status: u16, error: &str| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: json!({ "error": error, "message": "Error in POST" }).to_string().into(),
        };
        let asks = "This may lose 12 writes that only this node holds; repeat with \"confirm\":true";
        assert_eq!(cost(&answer(409, asks)).as_deref(), Some("This may lose 12 writes that only this node holds"));
        assert_eq!(cost(&answer(409, "The node is up and has its data; take it out of the view instead")), None);
        assert_eq!(cost(&answer(404, asks)), None);
    }

    #[test]
    fn progress_is_told_while_it_runs() {
        let mut status = json!({
            "state": "running",
            "partitions": {"total": 256, "to-move": 85, "joining": 16, "moved": 40},
            "keys": {"copied": 1200, "to-copy": 2600},
            "waiting-for": [],
        });
        let line = "40 of 85 partitions moved, 16 joining; 1200 of 2600 keys copied";
        assert_eq!(progress(&status).as_deref(), Some(line));
        status["waiting-for"] = json!(["node5:80", "node6:80"]);
        assert_eq!(progress(&status), Some(format!("{line}; waiting for node5:80, node6:80")));
        status["state"] = json!("done");
        assert_eq!(progress(&status), None);
    }
}
