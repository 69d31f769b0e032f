//! Bad input, millions of cases of it: what a client, a peer or a disk may hand over, and nobody meant.
//!
//! | target | what is fed | what must hold |
//! |---|---|---|
//! | `contexts` | `causal-metadata` texts, damaged before and after they are signed | one text a context |
//! | `messages` | protobuf messages between nodes, to the domain | what is read says the same when sent again |
//! | `hellos` | the first word of a node, and pings | the same; a refusal has its reason |
//! | `records` | the records of a data directory | what is read is the same when written again |
//! | `directories` | the files of a data directory | it opens with all that was synced, or is refused |
//! | `rest` | methods, paths, headers and bodies, through the router | JSON with the right members, never a 5xx |
//! | `sockets` | the bytes of connections, through the HTTP server | answers that are HTTP, and an end |
//! | `machine` | messages of hostile peers, to a born node | it goes on |
//!
//! None may panic, and none may allocate more than a stated multiple of its input at a time. Half of what is fed is
//! damaged byte by byte (flipped, cut, spliced, repeated, lengths blown up), half so that it still parses and only
//! means something else. Everything follows from a seed.
//!
//! `cargo test --release --test fuzz` runs 200,000 cases; the environment changes that:
//! - `ENTAIL_FUZZ_CASES`: how many, over all targets;
//! - `ENTAIL_FUZZ_SEED`: other cases (1 is the usual seed);
//! - `ENTAIL_FUZZ_CASE`: only the case of this number, as a failure names it.
//!
//! `cargo test --profile fuzz --test fuzz` looks for overflows and debug assertions, too.

mod contexts;
mod damage;
mod directories;
mod fields;
mod machine;
mod messages;
mod random;
mod records;
mod rest;
mod run;
#[path = "../samples/mod.rs"]
mod samples;
mod sockets;
