//! What can go wrong for a caller, by what the caller does next; one table to HTTP and gRPC.

/// Why a request got no ordinary answer. Every code but [`Code::OutcomeUnknown`] means that nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The causal metadata is cut, forged, or another store's. Nothing was done; drop it and begin a new session.
    ContextMalformed,
    /// What the context depends on could not be had before the deadline. Nothing was done; try again.
    DependenciesUnsatisfied,
    /// No node of the key's shard can be reached, or the store is not born yet. Nothing was done; try again.
    ShardUnavailable,
    /// A bounded queue is full. Nothing was done; try again later.
    TooManyRequests,
    /// The disk is full. Nothing was written; reads go on.
    DiskFull,
    /// The deadline came, or the coordinating node was lost, before the write was known to be done: it may be.
    OutcomeUnknown,
    /// No shard has this id.
    NoSuchShard,
    /// A bug or a failing disk; the log of the node says more.
    Internal,
}

/// One row of the table below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The HTTP status.
    pub http: u16,
    /// The gRPC status code, by number.
    pub grpc: i32,
    /// Whether trying again later makes sense (`Retry-After`).
    pub retry: bool,
    /// The sentence that the client reads.
    pub text: &'static str,
}

impl Code {
    /// The code's HTTP status, gRPC code and sentence.
    pub const fn row(self) -> Row {
        const fn row(http: u16, grpc: i32, retry: bool, text: &'static str) -> Row {
            Row { http, grpc, retry, text }
        }
        match self {
            Code::ContextMalformed => row(400, 3, false, "Causal metadata is malformed"),
            Code::DependenciesUnsatisfied => row(503, 14, true, "Causal dependencies not satisfied; try again later"),
            Code::ShardUnavailable => row(503, 14, true, "Shard is unavailable; try again later"),
            Code::TooManyRequests => row(503, 8, true, "Too many requests; try again later"),
            Code::DiskFull => row(507, 8, false, "Disk is full; free space in DATA_DIR or add nodes"),
            Code::OutcomeUnknown => row(504, 4, false, "Outcome unknown; the write may have been done"),
            Code::NoSuchShard => row(404, 5, false, "Shard ID does not exist"),
            Code::Internal => row(500, 13, false, "Internal error; see the log of the node"),
        }
    }
}

/// What a store can fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space is left; the batch was not applied.
    #[error("the disk is full: {0}")]
    Full(String),
    /// What is on disk is not what was synced. Names the file and the remedy; the process must not serve.
    #[error("damaged data: {0}")]
    Damaged(String),
    /// Another process holds the directory.
    #[error("the data directory is in use: {0}")]
    InUse(String),
    /// The operator has forgotten this directory: it is to be set aside, and the node to begin anew.
    #[error("forgotten: {0}")]
    Forgotten(String),
    /// Any other failure; what was applied may not be durable, so the process must end.
    #[error("storage failed: {0}")]
    Failed(String),
}
