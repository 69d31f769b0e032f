//! Newtypes that every layer shares. They parse at the edge, so the core never sees a bad address or key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a stay counts its writes with: 1, 2, 3, … without gaps; 0 means "none yet".
pub type Seq = u64;

/// The number of one batch that a machine wrote to its store; counted up from 1 at each start.
pub type BatchNo = u64;

/// The two clocks that a step is given: the core never reads one itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, in milliseconds from an arbitrary origin; never goes back. For time-outs.
    pub mono_ms: u64,
    /// Wall clock, in milliseconds since 1970; may jump either way. For timestamps only.
    pub wall_ms: u64,
}

/// A node's name: its REST socket address, `host:port`, as the other nodes reach it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeAddr(Arc<str>);

impl NodeAddr {
    /// The host part: an IP address (IPv6 in brackets) or a DNS name.
    pub fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(host, _)| host)
    }

    /// The REST port.
    pub fn port(&self) -> u16 {
        self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
    }

    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a node address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a socket address; write host:port, with a port from 1 to 65535")]
pub struct AddrError(pub String);

impl FromStr for NodeAddr {
    type Err = AddrError;

    /// Takes `host:port`, the host an IPv4 address, an IPv6 address in brackets or a DNS name.
    fn from_str(text: &str) -> Result<Self, AddrError> {
        let bad = || AddrError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        if !port.bytes().all(|b| b.is_ascii_digit()) || port.starts_with('0') {
            return Err(bad());
        }
        port.parse::<u16>().map_err(|_| bad())?;
        let name = |h: &str| {
            h.len() <= 253
                && h.split('.').all(|label| {
                    !label.is_empty()
                        && label.len() <= 63
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                })
        };
        // What is all digits and dots is meant as an IPv4 address, so it must be one.
        let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None if numeric => host.parse::<std::net::Ipv4Addr>().is_ok(),
            None => name(host),
        };
        if good { Ok(Self(text.into())) } else { Err(bad()) }
    }
}

impl TryFrom<String> for NodeAddr {
    type Error = AddrError;
    fn try_from(text: String) -> Result<Self, AddrError> {
        text.parse()
    }
}

impl From<NodeAddr> for String {
    fn from(addr: NodeAddr) -> String {
        addr.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! hex128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}

hex128! {
    /// The random id of one data directory; a node that lost its disk is a new incarnation at an old address.
    Incarnation
}
hex128! {
    /// The random id of a store, drawn in map 1.
    ClusterId
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// One of the P parts into which the keys are divided for ever, 0 to P − 1.
    PartitionId(u32)
}
number! {
    /// One period of one incarnation as a peer of one partition; counted up by the map, never used again.
    StayId(u32)
}
number! {
    /// A cluster map's number; only grows. A row's version is the epoch of the map that last changed it.
    Epoch(u64)
}
number! {
    /// A shard, 1 to the count.
    ShardId(u32)
}
number! {
    /// A hybrid logical timestamp: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
    Timestamp(u64)
}

/// A key: any UTF-8 text but the empty one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

/// The empty text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has at least one character")]
pub struct EmptyKey;

impl Key {
    /// A key of this text; the limit on its length is the caller's business.
    pub fn new(text: &str) -> Result<Self, EmptyKey> {
        if text.is_empty() { Err(EmptyKey) } else { Ok(Self(text.into())) }
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition the key belongs to, of `partitions` in all: `xxh3_64(key) % partitions`.
    pub fn partition(&self, partitions: u32) -> PartitionId {
        let hash = xxhash_rust::xxh3::xxh3_64(self.0.as_bytes());
        PartitionId((hash % u64::from(partitions.max(1))) as u32)
    }
}

impl TryFrom<String> for Key {
    type Error = EmptyKey;
    fn try_from(text: String) -> Result<Self, EmptyKey> {
        Self::new(&text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.0.as_ref().to_owned()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A 128-bit key that never shows in logs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextSecret(pub [u8; 16]);

impl fmt::Debug for ContextSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContextSecret(..)")
    }
}

/// The name of one write within its partition: the stay that coordinated it and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dot {
    /// Who coordinated the write.
    pub stay: StayId,
    /// Which of its writes it is, from 1.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_or_say_why() {
        for good in ["10.10.0.2:8085", "node1:80", "my-node.example:1", "[::1]:8085", "127.0.0.1:65535"] {
            assert_eq!(good.parse::<NodeAddr>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ":80",
            "node1",
            "node1:",
            "node1:0",
            "node1:70000",
            "a b:1",
            "node1:+1",
            "1.2.3:80",
            "[::g]:1",
            "x..y:1",
        ] {
            assert_eq!(bad.parse::<NodeAddr>(), Err(AddrError(bad.into())), "{bad}");
        }
        let addr: NodeAddr = "[::1]:8085".parse().unwrap();
        assert_eq!((addr.host(), addr.port()), ("[::1]", 8085));
    }

    #[test]
    fn keys_keep_their_partition_for_ever() {
        let part = |k: &str| Key::new(k).unwrap().partition(256).0;
        // Fixed points: a change here would move every stored key.
        assert_eq!([part("key0"), part("key1"), part("a/b"), part("😀")], [198, 226, 4, 142]);
        assert!(Key::new("").is_err());
    }
}
