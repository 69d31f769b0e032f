//! The command line: one node, a whole cluster for development, and small clients for shell and Docker.
//!
//! Each command is a module with its arguments and a `run` that gives the process's exit status. The clients speak
//! plain HTTP as any other client does; nothing here knows more of a node than its REST contract.

mod ask;
mod bench;
mod check;
mod dev;
mod healthcheck;
mod keys;
mod operate;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::ServeArgs;

/// A sharded, fault-tolerant key-value store with causal+ consistency over plain HTTP.
#[derive(Debug, Parser)]
#[command(name = "entail", version, about, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node.
    Serve {
        #[command(flatten)]
        settings: Box<ServeArgs>,
        /// Stop when standard input ends, as it does when the parent process is gone.
        #[arg(long, hide = true)]
        watch_parent: bool,
    },
    /// Run a whole cluster on this machine, each node a process of its own, until Ctrl-C.
    Dev(dev::DevArgs),
    /// Read a key.
    Get(keys::GetArgs),
    /// Set a key.
    Put(keys::PutArgs),
    /// Remove a key's value.
    Delete(keys::DeleteArgs),
    /// List the nodes that are up.
    View(keys::NodeArgs),
    /// List the shards, their members and how many keys they have.
    Shards(keys::NodeArgs),
    /// Spread nodes and keys over another number of shards, live; or cancel that.
    Reshard(operate::ReshardArgs),
    /// Make a node a member of a shard; done when it holds the shard's keys.
    AddMember(operate::AddMemberArgs),
    /// Give up a node that never comes back, with all that only it held.
    Forget(operate::ForgetArgs),
    /// Go on without the nodes that do not answer, though a majority of the voters is among them.
    Recover(operate::RecoverArgs),
    /// Begin a store without a node of VIEW that does not come up.
    Birth(operate::BirthArgs),
    /// Show the whole cluster as a node sees it.
    Status(keys::NodeArgs),
    /// Measure requests a second and latencies of a running node.
    Bench(bench::BenchArgs),
    /// Decide from clients' recorded operations alone whether a store kept its promises.
    Check(check::CheckArgs),
    /// Exit 0 when the node that the environment describes is alive, else 1; for Docker.
    Healthcheck(healthcheck::HealthcheckArgs),
}

/// Runs the program; gives the process's exit status.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        None => help(),
        Some(Command::Serve { settings, watch_parent }) => crate::server::run(&settings, watch_parent),
        Some(Command::Dev(args)) => blocking(dev::run(args)),
        Some(Command::Get(args)) => blocking(keys::get(args)),
        Some(Command::Put(args)) => blocking(keys::put(args)),
        Some(Command::Delete(args)) => blocking(keys::delete(args)),
        Some(Command::View(args)) => blocking(keys::view(args)),
        Some(Command::Shards(args)) => blocking(keys::shards(args)),
        Some(Command::Reshard(args)) => blocking(operate::reshard(args)),
        Some(Command::AddMember(args)) => blocking(operate::add_member(args)),
        Some(Command::Forget(args)) => blocking(operate::forget(args)),
        Some(Command::Recover(args)) => blocking(operate::recover(args)),
        Some(Command::Birth(args)) => blocking(operate::birth(args)),
        Some(Command::Status(args)) => blocking(operate::status(args)),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Healthcheck(args)) => blocking(healthcheck::run(args)),
    }
}

fn help() -> ExitCode {
    // A closed pipe (`entail | head`) is no failure of ours.
    let _ = Arguments::command().print_help();
    ExitCode::SUCCESS
}

/// Drives one command's future on this thread.
fn blocking(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => failed(error),
    }
}

/// Says what went wrong; the exit status of it.
fn failed(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("entail: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_reshard_has_a_count_or_is_cancelled() {
        for good in [&["3"][..], &["-1"], &["--cancel"], &["3", "--node", "node1:80"]] {
            assert!(Arguments::try_parse_from(["entail", "reshard"].iter().chain(good)).is_ok(), "{good:?}");
        }
        for bad in [&[][..], &["three"], &["3", "--cancel"]] {
            assert!(Arguments::try_parse_from(["entail", "reshard"].iter().chain(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_recovery_is_forced_or_none() {
        assert!(Arguments::try_parse_from(["entail", "recover", "--force"]).is_ok());
        assert!(Arguments::try_parse_from(["entail", "recover", "--yes"]).is_err());
    }

    #[test]
    fn a_flag_wins_over_its_variable_by_being_one_argument() {
        let arguments = Arguments::parse_from(["entail", "serve", "--socket-address", "node1:80", "--shard-count", ""]);
        let Some(Command::Serve { settings, watch_parent }) = arguments.command else { panic!("not serve") };
        assert_eq!(settings.socket_address.as_deref(), Some("node1:80"));
        assert_eq!(settings.shard_count.as_deref(), Some(""));
        assert!(!watch_parent);
    }
}
