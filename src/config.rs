//! What one node is told at its start, from flags and environment; every variable is also a flag, and the flag wins.
//!
//! [`ServeArgs`] is what clap reads: raw texts, so that an empty variable (`SHARD_COUNT=""`, as Compose files leave
//! them) counts as absent and every mistake is one sentence of ours. [`Settings`] is what the rest of the house sees:
//! typed, and good as far as one node can tell. What only the layout can tell (too few nodes for the shards,
//! duplicates) is `cluster::layout::check_settings`, asked by the server.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::types::NodeAddr;

/// The largest limit on keys, in bytes: what the store and the path of a request can hold, with room to spare.
pub const MOST_KEY_BYTES: usize = 32 << 10;

/// The largest limit on values, in bytes: what a message between nodes holds beside the key and the context.
pub const MOST_VALUE_BYTES: usize = 6 << 20;

/// The flags and variables of `entail serve`, as they were written.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// This node's own REST address, as the other nodes reach it (host:port).
    #[arg(long, env = "SOCKET_ADDRESS", value_name = "NODE")]
    pub socket_address: Option<String>,
    /// Comma-separated REST addresses of the nodes to start with, this one included.
    #[arg(long, env = "VIEW", value_name = "NODE,…")]
    pub view: Option<String>,
    /// The number of shards to start with; leave it out on a node that joins a running store.
    #[arg(long, env = "SHARD_COUNT", value_name = "N")]
    pub shard_count: Option<String>,
    /// Where the node keeps its data [default: ./data/<SOCKET_ADDRESS>].
    #[arg(long, env = "DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The IP to listen on [default: that of a loopback SOCKET_ADDRESS, else all].
    #[arg(long, env = "BIND_ADDRESS", value_name = "IP")]
    pub bind_address: Option<String>,
    /// Into how many parts the keys are divided, for ever; the same on all nodes [default: 256].
    #[arg(long, env = "PARTITIONS", value_name = "N")]
    pub partitions: Option<String>,
    /// gRPC port = REST port + this; the same on all nodes [default: 1000].
    #[arg(long, env = "GRPC_PORT_OFFSET", value_name = "N")]
    pub grpc_port_offset: Option<String>,
    /// Nodes that hold a write durably before it is acknowledged [default: 2].
    #[arg(long, env = "WRITE_COPIES", value_name = "N")]
    pub write_copies: Option<String>,
    /// How long a request waits for what it depends on, in milliseconds [default: 10000].
    #[arg(long, env = "DEADLINE_MS", value_name = "MS")]
    pub deadline_ms: Option<String>,
    /// How long a client may keep a connection waiting, in milliseconds: for the next request's head (and its body, at
    /// most 10 seconds), and to take an answer [default: 30000].
    #[arg(long, env = "CLIENT_TIMEOUT_MS", value_name = "MS")]
    pub client_timeout_ms: Option<String>,
    /// MiB of keys and values that the node copies to others a second, at the most, while keys move [default: 64].
    #[arg(long, env = "FILL_MIB_S", value_name = "MIB")]
    pub fill_mib_s: Option<String>,
    /// MiB of memory for blocks of the disk's tables that were read [default: 64].
    #[arg(long, env = "CACHE_MIB", value_name = "MIB")]
    pub cache_mib: Option<String>,
    /// The longest key, in bytes, 32768 at most [default: 1024].
    #[arg(long, env = "MAX_KEY_BYTES", value_name = "BYTES")]
    pub max_key_bytes: Option<String>,
    /// The largest value, in bytes of JSON text, 6291456 at most [default: 1048576].
    #[arg(long, env = "MAX_VALUE_BYTES", value_name = "BYTES")]
    pub max_value_bytes: Option<String>,
}

/// The settings of one node, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node's own REST address.
    pub address: NodeAddr,
    /// The nodes to start with, in the order they were written.
    pub view: Vec<NodeAddr>,
    /// The number of shards to start with; `None` on a node that joins a running store.
    pub shard_count: Option<u32>,
    /// Where the node keeps its data.
    pub data_dir: PathBuf,
    /// The IP to listen on, for both ports.
    pub bind_ip: IpAddr,
    /// Into how many parts the keys are divided, at the birth of a store.
    pub partitions: u32,
    /// gRPC port = REST port + this.
    pub grpc_port_offset: u16,
    /// Nodes that hold a write durably before it is acknowledged.
    pub write_copies: u32,
    /// How long a request waits for what it depends on.
    pub deadline: Duration,
    /// How long a client may keep a connection waiting.
    pub client_timeout: Duration,
    /// Bytes of keys and values that the node copies to others a second, at the most.
    pub fill_bytes_s: u64,
    /// Bytes of memory for blocks of the disk's tables that were read.
    pub cache_bytes: u64,
    /// The longest key, in bytes.
    pub max_key_bytes: usize,
    /// The largest value, in bytes of JSON text.
    pub max_value_bytes: usize,
}

/// Why the settings are no good, in one sentence for the operator; the process exits with status 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(String);

impl Settings {
    /// Reads the arguments.
    ///
    /// # Errors
    /// A variable that is missing or does not parse, a limit of 0, and ports that can't all be had.
    pub fn parse(args: &ServeArgs) -> Result<Self, SettingError> {
        let address: NodeAddr = required("SOCKET_ADDRESS", args.socket_address.as_deref())?;
        let view = parse_view(args.view.as_deref())?;
        let settings = Self {
            data_dir: match given(args.data_dir.as_deref()) {
                Some(dir) => PathBuf::from(dir),
                None => PathBuf::from("data").join(address.as_str()),
            },
            bind_ip: optional("BIND_ADDRESS", args.bind_address.as_deref())?.unwrap_or_else(|| default_bind(&address)),
            shard_count: optional("SHARD_COUNT", args.shard_count.as_deref())?,
            partitions: positive("PARTITIONS", args.partitions.as_deref(), 256)?,
            grpc_port_offset: positive("GRPC_PORT_OFFSET", args.grpc_port_offset.as_deref(), 1000)?,
            write_copies: positive("WRITE_COPIES", args.write_copies.as_deref(), 2)?,
            deadline: Duration::from_millis(positive("DEADLINE_MS", args.deadline_ms.as_deref(), 10_000)?),
            client_timeout: Duration::from_millis(positive(
                "CLIENT_TIMEOUT_MS",
                args.client_timeout_ms.as_deref(),
                30_000,
            )?),
            fill_bytes_s: u64::from(positive::<u32>("FILL_MIB_S", args.fill_mib_s.as_deref(), 64)?) << 20,
            cache_bytes: u64::from(positive::<u32>("CACHE_MIB", args.cache_mib.as_deref(), 64)?) << 20,
            max_key_bytes: limit("MAX_KEY_BYTES", args.max_key_bytes.as_deref(), 1024, MOST_KEY_BYTES)?,
            max_value_bytes: limit("MAX_VALUE_BYTES", args.max_value_bytes.as_deref(), 1 << 20, MOST_VALUE_BYTES)?,
            address,
            view,
        };
        settings.check_ports()?;
        Ok(settings)
    }

    /// Where the REST API listens.
    pub fn rest_socket(&self) -> SocketAddr {
        SocketAddr::new(self.bind_ip, self.address.port())
    }

    /// Where the gRPC services listen.
    pub fn grpc_socket(&self) -> SocketAddr {
        // `check_ports` has seen that the sum is a port.
        SocketAddr::new(self.bind_ip, self.address.port().saturating_add(self.grpc_port_offset))
    }

    /// Every gRPC port must exist, and be nobody's REST port on the same host.
    fn check_ports(&self) -> Result<(), SettingError> {
        let rest: BTreeSet<(&str, u16)> = self.view.iter().map(|node| (node.host(), node.port())).collect();
        for node in self.view.iter().chain([&self.address]) {
            let Some(grpc) = node.port().checked_add(self.grpc_port_offset) else {
                return Err(SettingError(format!(
                    "the gRPC port of {node} would be {} + {}, which is above 65535; lower GRPC_PORT_OFFSET or the port",
                    node.port(),
                    self.grpc_port_offset
                )));
            };
            if rest.contains(&(node.host(), grpc)) {
                return Err(SettingError(format!(
                    "port {grpc} would be both the gRPC port of {node} and the REST port of {}:{grpc}; \
                     change GRPC_PORT_OFFSET or the ports",
                    node.host()
                )));
            }
        }
        Ok(())
    }
}

/// The IP of a loopback address, so that a cluster on one machine is not open to others; else all.
fn default_bind(address: &NodeAddr) -> IpAddr {
    match address.host().trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => ip,
        Ok(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Ok(IpAddr::V4(_)) | Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// The text without surrounding blanks; an empty one is none.
fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn parse_view(text: Option<&str>) -> Result<Vec<NodeAddr>, SettingError> {
    let Some(text) = given(text) else {
        return Err(SettingError("VIEW is missing; set it to the addresses of the nodes to start with".into()));
    };
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| parse("VIEW", entry)).collect()
}

fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, SettingError> {
    text.parse().map_err(|error| SettingError(format!("{name} is not valid: {error} (it is '{text}')")))
}

fn optional<T: FromStr<Err: Display>>(name: &str, text: Option<&str>) -> Result<Option<T>, SettingError> {
    given(text).map(|text| parse(name, text)).transpose()
}

fn required<T: FromStr<Err: Display>>(name: &str, text: Option<&str>) -> Result<T, SettingError> {
    optional(name, text)?
        .ok_or_else(|| SettingError(format!("{name} is missing; set it to this node's address, host:port")))
}

fn positive<T>(name: &str, text: Option<&str>, default: T) -> Result<T, SettingError>
where
    T: FromStr<Err: Display> + From<u8> + PartialOrd,
{
    let value = optional(name, text)?.unwrap_or(default);
    if value < T::from(1) {
        return Err(SettingError(format!("{name} is 0; it must be at least 1")));
    }
    Ok(value)
}

fn limit(name: &str, text: Option<&str>, default: usize, most: usize) -> Result<usize, SettingError> {
    let value = positive(name, text, default)?;
    if value > most {
        return Err(SettingError(format!("{name} is {value}; it can be {most} at most")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(address: &str, view: &str) -> ServeArgs {
        ServeArgs { socket_address: Some(address.into()), view: Some(view.into()), ..ServeArgs::default() }
    }

    fn refused(args: &ServeArgs) -> String {
        Settings::parse(args).expect_err("these settings are no good").to_string()
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let s = Settings::parse(&args("10.10.0.2:8085", "10.10.0.2:8085, 10.10.0.3:8085,")).unwrap();
        assert_eq!(s.view.len(), 2);
        assert_eq!((s.shard_count, s.partitions, s.write_copies), (None, 256, 2));
        assert_eq!((s.max_key_bytes, s.max_value_bytes, s.deadline.as_millis()), (1024, 1_048_576, 10_000));
        assert_eq!((s.fill_bytes_s, s.client_timeout.as_millis()), (64 << 20, 30_000));
        assert_eq!(s.cache_bytes, 64 << 20);
        assert_eq!(s.data_dir, PathBuf::from("data/10.10.0.2:8085"));
        assert_eq!((s.rest_socket().to_string(), s.grpc_socket().to_string()), bind("0.0.0.0:8085", "0.0.0.0:9085"));
    }

    fn bind(rest: &str, grpc: &str) -> (String, String) {
        (rest.into(), grpc.into())
    }

    #[test]
    fn loopback_addresses_listen_on_themselves_only() {
        for (address, rest, grpc) in [
            ("127.0.0.2:80", "127.0.0.2:80", "127.0.0.2:1080"),
            ("[::1]:80", "[::1]:80", "[::1]:1080"),
            ("[fd00::2]:80", "[::]:80", "[::]:1080"),
            ("node1:80", "0.0.0.0:80", "0.0.0.0:1080"),
        ] {
            let s = Settings::parse(&args(address, address)).unwrap();
            assert_eq!((s.rest_socket().to_string(), s.grpc_socket().to_string()), bind(rest, grpc), "{address}");
        }
        let mut given = args("127.0.0.2:80", "127.0.0.2:80");
        given.bind_address = Some("0.0.0.0".into());
        assert_eq!(Settings::parse(&given).unwrap().rest_socket().to_string(), "0.0.0.0:80");
    }

    #[test]
    fn an_empty_variable_is_an_absent_one() {
        let mut empty = args("node1:80", "node1:80");
        empty.shard_count = Some(String::new());
        empty.deadline_ms = Some("  ".into());
        empty.fill_mib_s = Some("3".into());
        empty.cache_mib = Some("5".into());
        let s = Settings::parse(&empty).unwrap();
        assert_eq!((s.shard_count, s.deadline.as_millis(), s.fill_bytes_s), (None, 10_000, 3 << 20));
        assert_eq!(s.cache_bytes, 5 << 20);
        empty.socket_address = Some(String::new());
        assert!(refused(&empty).contains("SOCKET_ADDRESS is missing"));
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        assert!(refused(&ServeArgs::default()).contains("SOCKET_ADDRESS is missing"));
        assert!(refused(&args("node1", "node1:80")).contains("SOCKET_ADDRESS is not valid"));
        assert!(refused(&args("node1:80", "")).contains("VIEW is missing"));
        assert!(refused(&args("node1:80", "node1:80,node2:x")).contains("VIEW is not valid"));
        let mut zero = args("node1:80", "node1:80");
        zero.write_copies = Some("0".into());
        assert_eq!(refused(&zero), "WRITE_COPIES is 0; it must be at least 1");
        let mut large = args("node1:80", "node1:80");
        large.max_value_bytes = Some("6291456".into());
        assert!(Settings::parse(&large).is_ok());
        large.max_value_bytes = Some("6291457".into());
        assert_eq!(refused(&large), "MAX_VALUE_BYTES is 6291457; it can be 6291456 at most");
        large.max_value_bytes = None;
        large.max_key_bytes = Some("40000".into());
        assert_eq!(refused(&large), "MAX_KEY_BYTES is 40000; it can be 32768 at most");
        zero.write_copies = Some("-1".into());
        assert!(refused(&zero).contains("WRITE_COPIES is not valid"));
    }

    #[test]
    fn grpc_ports_exist_and_are_nobody_elses() {
        assert!(refused(&args("node1:64536", "node1:64536")).contains("above 65535"));
        assert!(refused(&args("a:80", "a:80,a:1080")).contains("port 1080 would be both"));
        assert!(Settings::parse(&args("a:80", "a:80,b:1080")).is_ok());
    }
}
