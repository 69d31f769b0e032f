//! One operation as its client saw it, and files of them.

use std::fmt;
use std::io::BufRead;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose it is. Operations of a session follow each other.
    pub session: String,
    /// What was asked.
    pub op: Op,
    /// Of which key.
    pub key: String,
    /// What a put wrote or a read was shown; nothing for a delete and for a read that found nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The context that went with the request; empty for none. Absent when contexts were not recorded: then a session's
    /// operations follow each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_in: Option<String>,
    /// The context that came with the answer, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_out: Option<String>,
    /// Who was asked.
    pub node: String,
    /// When the request went out, in microseconds of any clock that all sessions share.
    pub start_us: u64,
    /// When the answer, or the end of waiting, came.
    pub end_us: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// A write of a value.
    Put,
    /// A read.
    Get,
    /// A write of nothing; one that finds nothing is a read.
    Delete,
    /// A replica's content of a key, after everything else: a read that follows every acknowledged write.
    Final,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Done: a write is acknowledged, a read showed a value.
    Ok,
    /// Done, and there was nothing: a read, or a delete that removed nothing.
    Absent,
    /// Not done, and the store says that nothing was written.
    Refused,
    /// Nobody knows: a write that may have been done. A read without an answer is simply no read.
    Unknown,
}

/// Why a file is no history.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// It can't be read.
    #[error("line {line}: {error}")]
    Io {
        /// Which line, from 1.
        line: usize,
        /// What the system says.
        error: std::io::Error,
    },
    /// A line is no record.
    #[error("line {line}: {error}")]
    Line {
        /// Which line, from 1.
        line: usize,
        /// What JSON says.
        error: serde_json::Error,
    },
    /// A put without a value, a get that was shown none, and the like.
    #[error("{0}: operation, value and outcome do not fit together")]
    Shape(Box<Record>),
    /// Two puts wrote the same value.
    #[error("{0}: that value of that key was written before; values must be unique")]
    NotUnique(Box<Record>),
    /// A context that no recorded answer gave.
    #[error("{0}: no operation before it was given that context")]
    Stranger(Box<Record>),
    /// Operations × sessions are more than fits in memory.
    #[error("{operations} operations with {chains} branches of sessions are too many at once")]
    TooLarge {
        /// How many operations.
        operations: usize,
        /// Into how many unbranched lines of operations the sessions fall.
        chains: usize,
    },
}

/// Reads a history, one JSON object a line; empty lines are skipped.
///
/// # Errors
/// [`HistoryError::Io`], [`HistoryError::Line`].
pub fn read_history(lines: impl BufRead) -> Result<Vec<Record>, HistoryError> {
    let mut records = Vec::new();
    for (number, text) in (1..).zip(lines.lines()) {
        let text = text.map_err(|error| HistoryError::Io { line: number, error })?;
        if !text.trim().is_empty() {
            records.push(serde_json::from_str(&text).map_err(|error| HistoryError::Line { line: number, error })?);
        }
    }
    Ok(records)
}

impl Record {
    /// True when operation, value and outcome fit together.
    pub(super) fn is_well_formed(&self) -> bool {
        match (self.op, self.outcome) {
            (Op::Put, Outcome::Absent) | (Op::Final, Outcome::Refused | Outcome::Unknown) => false,
            (Op::Put, _) | (Op::Get | Op::Final, Outcome::Ok) => self.value.is_some(),
            (Op::Get | Op::Delete | Op::Final, _) => self.value.is_none(),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            Op::Put => "PUT",
            Op::Get => "GET",
            Op::Delete => "DELETE",
            Op::Final => "at the end,",
        };
        write!(f, "{}: {op} {}", self.session, self.key)?;
        match (&self.value, self.op) {
            (Some(value), Op::Put) => write!(f, " = {value}")?,
            (Some(value), _) => write!(f, " shows {value}")?,
            (None, _) if self.outcome == Outcome::Absent => write!(f, " finds nothing")?,
            (None, _) => {}
        }
        match self.outcome {
            Outcome::Unknown => write!(f, " (outcome unknown)")?,
            Outcome::Refused => write!(f, " (refused)")?,
            Outcome::Ok | Outcome::Absent => {}
        }
        write!(f, " at {} [{}–{} µs]", self.node, self.start_us, self.end_us)
    }
}
