//! Histories of clients' operations, and a checker that decides from them alone whether a store kept its promises.
//!
//! A history is a file of JSON lines, one [`Record`] an operation: who asked what of which node, when, and what the
//! answer was. Every value is written once in a whole history, so a read names the write it saw. The checker knows
//! nothing of entail: no clocks, dots or vectors, only what clients can see. Whoever doubts can write a second one.
//!
//! What it decides is *causal convergence* (CCv) of Bouajjani, Enea, Guerraoui and Hamza, "On Verifying Causal
//! Consistency" (POPL 2017): there is one order of all writes, the same for everybody, that extends causality, and
//! every read shows the last write, in that order, of those in its own causal past. Causality here is what contexts
//! carry: an operation follows the one whose context it was given (without contexts: the one before it in its session),
//! and a read follows the write that it shows. For histories whose values are unique that is so exactly if none of a few
//! *bad patterns* is in them (Theorem 5 there, see [`Pattern`]), which is decided in O(operations × sessions).
//!
//! - [`Record`], [`read_history`]: the file.
//! - `order`: graphs, topological order, the shortest cycle through a node, vector clocks.
//! - [`check()`]: the patterns, looked for one after another.
//! - `absences`: which delete a read of nothing follows, if that can be told.
//!
//! Two things are more than the paper has. **Deletes**: a read that finds nothing does not say which delete it saw.
//! It is wrong when no delete, and not the beginning either, can explain it; it counts as a read of a delete where one
//! alone can; else it tells nothing. So no right history is ever refused, and what the checker may miss is a wrong order
//! of deletes among themselves. **The end**: after the last operation, [`Op::Final`] records tell what each replica
//! holds. They follow every acknowledged write, so one that was lost is a pattern like any other, and replicas must agree.
//! [`Account`] says of each acknowledged write what became of it.

mod absences;
mod account;
mod check;
mod events;
mod order;
mod record;
#[cfg(test)]
mod tests;
mod verdict;

pub use check::check;
pub use record::{HistoryError, Op, Outcome, Record, read_history};
pub use verdict::{Account, Pattern, Report, Violation};
