//! The deterministic simulator: it drives the very `Machine` that runs in production through long histories of faults,
//! while clients carry contexts about, and fails on any read older than its session's true causal past.
//!
//! A seed is a run: (profile, seed, rules) decide everything, and two runs of one seed are byte-identical.
//!
//! ```text
//! cargo test --release --test sim                                              all tests; the sweep has 2,000 seeds
//! ENTAIL_SIM_SEEDS=100000 ENTAIL_SIM_FROM=5000 cargo test --release --test sim sweep -- --nocapture
//! ENTAIL_SIM_PROFILE=lag ENTAIL_SIM_SEED=17 [ENTAIL_SIM_OFF=OperationDeps] [ENTAIL_SIM_TRACE=1] \
//!     cargo test --release --test sim one_seed -- --ignored --nocapture
//! ENTAIL_SIM_HASH=1 ENTAIL_SIM_SEEDS=170 cargo test --release --test sim sweep -- --nocapture   with each run's hash
//! ENTAIL_SIM_SWEEP_OFF=OperationDeps|all cargo test --release --test sim without_a_clause -- --ignored --nocapture
//! ENTAIL_SIM_ROW=Barrier|all [ENTAIL_SIM_TRACE=1] cargo test --release --test sim rows_alone -- --ignored --nocapture
//! ```
//!
//! From the world inward: [`world`] is time and what happens; [`node`], [`disk`] and [`network`] are what it meets;
//! [`faults`], [`aim`], [`workload`] and [`changes`] make it happen; [`observe`] and [`oracle`] know what is right;
//! `invariants/` says what must hold; [`run`] is a history with its ending; [`coverage`], [`steps`] and [`met`] count what
//! happened, and to whom. [`switches`] shows that each of the [`clauses`] is needed, [`regressions`] that what failed once
//! does not fail again, [`scripts`] are scenarios to read.
//!
//! Not simulated: the wire format, real time.

/// The program's own: with glibc's, seeds take a tenth to a quarter longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod aim;
mod changes;
mod clauses;
mod coverage;
mod disk;
mod event;
mod faults;
mod holdings;
mod invariants;
mod loss;
mod met;
mod network;
mod node;
mod observe;
mod oracle;
mod outside;
mod past;
mod profile;
mod random;
mod recorder;
mod recover;
mod regressions;
mod run;
mod scripts;
mod steps;
mod sweep;
mod switches;
mod trace;
mod workload;
mod world;
