//! `bench`: requests a second and latencies of a running node, beside those of a bare axum handler if wanted.
//!
//! A closed loop of keep-alive connections writes and reads keys at random. The bare handler runs in this process,
//! answers with constants of the same shape and stores nothing: the ceiling of this machine with this load generator,
//! measured in the same minute.

mod histogram;
mod load;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use super::failed;
use load::{Load, Outcome, Phase};

/// The shape of the measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// The nodes to ask (host:port, comma-separated); the connections take turns.
    #[arg(long, env = "ENTAIL_NODE", default_value = "127.0.0.1:8081", value_delimiter = ',', value_name = "NODE")]
    node: Vec<String>,
    /// Connections at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// How long each of the two phases takes, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// The length of a value, in bytes.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Different keys.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Send back the causal-metadata of a connection's last answer, as a session does.
    #[arg(long)]
    carry_context: bool,
    /// Measure a bare axum handler in the same run, too.
    #[arg(long)]
    baseline: bool,
}

/// What one target reached.
struct Measured {
    name: &'static str,
    put: Outcome,
    get: Outcome,
}

/// `entail bench`.
pub fn run(args: BenchArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(error),
    };
    match runtime.block_on(measured(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error),
    }
}

async fn measured(args: BenchArgs) -> io::Result<()> {
    println!(
        "{} connections, {} s a phase, values of {} bytes, {} keys",
        args.connections, args.seconds, args.value_bytes, args.keys
    );
    let entail = target("entail", load(&args, args.node.clone())).await?;
    let mut all = vec![entail];
    if args.baseline {
        let node = bare_handler(args.value_bytes).await?;
        all.push(target("bare axum", load(&args, vec![node])).await?);
    }
    print!("{}", report(&all));
    Ok(())
}

fn load(args: &BenchArgs, nodes: Vec<String>) -> Arc<Load> {
    Arc::new(Load {
        nodes,
        connections: usize::from(args.connections),
        duration: Duration::from_secs(u64::from(args.seconds)),
        value_bytes: args.value_bytes,
        keys: args.keys as usize,
        carry_context: args.carry_context,
    })
}

async fn target(name: &'static str, load: Arc<Load>) -> io::Result<Measured> {
    load::run(&load, Phase::Fill).await?;
    let put = load::run(&load, Phase::Put).await?;
    let get = load::run(&load, Phase::Get).await?;
    Ok(Measured { name, put, get })
}

/// Serves constants of the shape of a node's answers on a free loopback port; gives its address.
async fn bare_handler(value_bytes: usize) -> io::Result<String> {
    let context = "A".repeat(40);
    let written = format!(r#"{{"message":"Updated successfully","causal-metadata":"{context}","shard-id":1}}"#);
    let value = "v".repeat(value_bytes);
    let read = format!(r#"{{"message":"Retrieved successfully","causal-metadata":"{context}","value":"{value}"}}"#);
    let (written, read) = (Bytes::from(written), Bytes::from(read));
    let json = |body: Bytes| (StatusCode::OK, [(CONTENT_TYPE, "application/json")], body);
    let router = Router::new().route(
        "/key-value-store/{*key}",
        get(move || async move { json(read) }).put(move |_: Bytes| async move { json(written) }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// The figures side by side: a column a target, and the first one's share of the last.
fn report(all: &[Measured]) -> String {
    let mut lines = vec![row("", all.iter().map(|m| m.name.to_owned()), (all.len() > 1).then(|| "ratio".into()))];
    for (name, phase) in [("PUT", Measured::put as fn(&Measured) -> &Outcome), ("GET", Measured::get)] {
        let rates: Vec<f64> = all.iter().map(|m| phase(m).rate()).collect();
        let ratio = (all.len() > 1).then(|| format!("{:.1} %", 100.0 * rates[0] / rates[all.len() - 1]));
        lines.push(row(&format!("{name} requests/s"), rates.iter().map(|rate| format!("{rate:.0}")), ratio));
        for (label, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            let millis = all.iter().map(|m| format!("{:.2}", phase(m).latencies.quantile(share).as_secs_f64() * 1e3));
            lines.push(row(&format!("{name} {label} ms"), millis, None));
        }
        if all.iter().any(|m| phase(m).refused > 0) {
            lines.push(row(&format!("{name} not 2xx"), all.iter().map(|m| phase(m).refused.to_string()), None));
        }
    }
    lines.concat()
}

impl Measured {
    fn put(&self) -> &Outcome {
        &self.put
    }

    fn get(&self) -> &Outcome {
        &self.get
    }
}

fn row(name: &str, cells: impl Iterator<Item = String>, ratio: Option<String>) -> String {
    let cells: String = cells.chain(ratio).map(|cell| format!("{cell:>14}")).collect();
    format!("{name:<16}{cells}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bare_handler_is_measured_and_shown() {
        let node = bare_handler(10).await.unwrap();
        let load = Arc::new(Load {
            nodes: vec![node],
            connections: 2,
            duration: Duration::from_millis(50),
            value_bytes: 10,
            keys: 5,
            carry_context: true,
        });
        let measured = target("bare axum", load).await.unwrap();
        assert!(measured.put.latencies.total() > 0 && measured.get.latencies.total() > 0);
        assert_eq!((measured.put.refused, measured.get.refused), (0, 0));
        let shown = report(&[measured]);
        assert!(shown.starts_with("                     bare axum\nPUT requests/s "), "{shown}");
        assert!(!shown.contains("ratio") && shown.contains("GET p99 ms"), "{shown}");
    }
}
