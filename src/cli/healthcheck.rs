//! `healthcheck`: whether the node that this environment describes is alive. The image has no shell and no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use super::ask::{Question, ask};
use super::failed;
use crate::config::{ServeArgs, Settings};

/// Well below the interval at which Docker asks.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The node's own settings.
#[derive(Clone, Debug, clap::Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    settings: Box<ServeArgs>,
}

/// `entail healthcheck`.
pub async fn run(args: HealthcheckArgs) -> ExitCode {
    let settings = match Settings::parse(&args.settings) {
        Ok(settings) => settings,
        Err(error) => return failed(error),
    };
    let node = reachable(settings.rest_socket()).to_string();
    match ask(Question::get(&node, "/healthz", TIMEOUT)).await {
        Ok(answer) if answer.status.is_success() => ExitCode::SUCCESS,
        Ok(answer) => failed(format_args!("{node} answered {}", answer.status)),
        Err(error) => failed(error),
    }
}

/// "All addresses" is an address to listen on, not one to call: its loopback is.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_listens_everywhere_is_called_on_loopback() {
        for (listening, called) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("127.0.0.2:80", "127.0.0.2:80")]
        {
            assert_eq!(reachable(listening.parse().unwrap()).to_string(), called);
        }
    }
}
