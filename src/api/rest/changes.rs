//! What clients ask to be changed, for all paths that do: bodies, the asking, and the table of refusals.
//!
//! A change goes on when its client is gone: it is asked for by a task of its own. It is answered when it is done,
//! which may take minutes; the deadline of requests only bounds how long the voters may take to agree on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Request as HttpRequest;
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::answer::{Answer, Fault, broken};
use super::body::{BESIDE_VALUE_BYTES, read};
use super::input::not_an_object;
use super::{Backend, Rest};
use crate::cluster::change::ChangeError;
use crate::cluster::plan::PlanError;
use crate::machine::agreement::{NotBorn, NotChanged, NotRecovered};
use crate::machine::message::Wanted;
use crate::types::NodeAddr;

/// The member that names a node.
const NODE: &str = "socket-address";

/// The member that names a count of shards.
const COUNT: &str = "shard-count";

/// The member that says that the operator knows what may be lost.
const CONFIRM: &str = "confirm";

/// The members of a body, as JSON text. Of a member that is there twice the last counts.
pub(super) struct Members(BTreeMap<String, Box<RawValue>>);

impl Members {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// As [`read`]; and 400 when it is not a JSON object.
    pub(super) async fn of<B>(rest: &Rest<B>, request: HttpRequest) -> Result<Self, Fault> {
        let (head, body) = request.into_parts();
        let body = read(&head.headers, body, rest.bound(BESIDE_VALUE_BYTES)).await?;
        Self::parse(&body.bytes)
    }

    fn parse(body: &Bytes) -> Result<Self, Fault> {
        if body.trim_ascii().is_empty() {
            return Ok(Self(BTreeMap::new()));
        }
        serde_json::from_slice(body).map(Self).map_err(|error| not_an_object(&error))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.get())
    }

    /// The node that is named.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(super) fn node(&self) -> Result<NodeAddr, Fault> {
        let json = self.text(NODE).ok_or_else(|| Fault::bad(format!("'{NODE}' is missing; give it as host:port")))?;
        let text: String =
            serde_json::from_str(json).map_err(|_| Fault::bad(format!("'{NODE}' must be a string, host:port")))?;
        text.parse().map_err(|error| Fault::bad(format!("'{NODE}' is not valid: {error}")))
    }

    /// The count of shards that is named; one below 0 counts as 0, and one that no store can have as the greatest.
    ///
    /// # Errors
    /// 400 that names the field when there is none, or it is not an integer.
    pub(super) fn shard_count(&self) -> Result<u32, Fault> {
        let json = self.text(COUNT).ok_or_else(|| Fault::bad(format!("'{COUNT}' is missing; give it as a number")))?;
        let digits = json.strip_prefix('-').unwrap_or(json);
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Fault::bad(format!("'{COUNT}' must be an integer")));
        }
        Ok(if digits.len() < json.len() { 0 } else { digits.parse().unwrap_or(u32::MAX) })
    }

    /// Whether the operator has confirmed.
    ///
    /// # Errors
    /// 400 that names the field when it is neither true nor false.
    pub(super) fn confirmed(&self) -> Result<bool, Fault> {
        match self.text(CONFIRM) {
            Some("true") => Ok(true),
            Some("false") | None => Ok(false),
            Some(_) => Err(Fault::bad(format!("'{CONFIRM}' must be true or false"))),
        }
    }
}

/// Asks for a change and waits until it is done; gives the number of writes lost with it.
pub(super) async fn change<B: Backend>(rest: &Arc<Rest<B>>, wanted: Wanted) -> Result<u64, NotDone> {
    if !rest.backend.map().is_born() {
        let reason = rest.backend.readiness().await.err().unwrap_or_default();
        return Err(NotDone::Unborn(reason));
    }
    change_or_begin(rest, wanted).await
}

/// The same before there is a store, too.
pub(super) async fn change_or_begin<B: Backend>(rest: &Arc<Rest<B>>, wanted: Wanted) -> Result<u64, NotDone> {
    let rest = Arc::clone(rest);
    let done = tokio::spawn(async move { rest.backend.change(wanted, rest.limits.deadline).await });
    match done.await {
        Ok(outcome) => outcome.map_err(NotDone::Changed),
        Err(_) => Err(NotDone::Bug),
    }
}

/// Why a change is not done.
#[derive(Debug)]
pub(super) enum NotDone {
    /// As the node says.
    Changed(NotChanged),
    /// There is no store yet, and why.
    Unborn(String),
    /// A bug of ours.
    Bug,
}

impl NotDone {
    /// The reason as it stands in the tables, by what the path itself has another word for.
    pub(super) fn fault(self, method: &Method) -> Fault {
        match self {
            Self::Changed(not_changed) => fault(&not_changed),
            Self::Unborn(reason) => Fault::later(format!("The store is not born yet: {reason}")),
            Self::Bug => Fault::from(broken(method)),
        }
    }

    /// The plan that is impossible, if that is why.
    pub(super) fn plan(&self) -> Option<&PlanError> {
        match self {
            Self::Changed(NotChanged::Refused(ChangeError::Plan(error))) => Some(error),
            Self::Changed(_) | Self::Unborn(_) | Self::Bug => None,
        }
    }
}

/// The table: why a change is not done → status and sentence.
fn fault(not_changed: &NotChanged) -> Fault {
    let text = not_changed.to_string();
    match not_changed {
        NotChanged::Refused(ChangeError::Plan(error)) => plan_fault(error, text),
        NotChanged::Refused(error) => match error {
            ChangeError::Plan(_) | ChangeError::InProgress | ChangeError::NotLost => conflict(text),
            ChangeError::NotInProgress | ChangeError::AlreadyInView | ChangeError::NoSuchNode => missing(text),
            ChangeError::MovedOn => Fault::later(text),
            ChangeError::NotItsDirectory => Fault::new(StatusCode::SERVICE_UNAVAILABLE, text),
        },
        NotChanged::NoQuorum(_) | NotChanged::Silent(_) | NotChanged::TooMany | NotChanged::Stopping => {
            Fault::later(text)
        }
        NotChanged::TurnedAway { .. } | NotChanged::Cancelled | NotChanged::Stalled => {
            Fault::new(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        NotChanged::Unconfirmed(_) | NotChanged::UnconfirmedDisk(_) => conflict(text),
        NotChanged::NotBorn(not_born) => match not_born {
            NotBorn::NotInView(_) => missing(text),
            NotBorn::Born | NotBorn::IsUp(_) | NotBorn::OnlyTwo | NotBorn::Unconfirmed { .. } => conflict(text),
            NotBorn::Waiting(_) | NotBorn::TimeOut => Fault::later(text),
        },
        NotChanged::NotRecovered(not_recovered) => match not_recovered {
            NotRecovered::Refused(_) | NotRecovered::Unconfirmed(_) => conflict(text),
            NotRecovered::HeardElsewhere(_) | NotRecovered::NotAgreed { .. } => Fault::later(text),
        },
    }
}

fn plan_fault(error: &PlanError, text: String) -> Fault {
    match error {
        PlanError::NotEnoughNodes | PlanError::TooManyShards => Fault::bad(text),
        PlanError::ShardUnavailable(_) => Fault::later(text),
        PlanError::NoSuchShard | PlanError::NodeNotInView => missing(text),
        PlanError::NodeInAnotherShard(_) | PlanError::AlreadyMember | PlanError::LastHolder(_) => conflict(text),
    }
}

fn missing(text: String) -> Fault {
    Fault::new(StatusCode::NOT_FOUND, text)
}

fn conflict(text: String) -> Fault {
    Fault::new(StatusCode::CONFLICT, text)
}

/// The answer to a change that is done.
pub(super) fn done(message: &'static str) -> Answer {
    Answer::ok(super::answer::Json::message(message))
}
