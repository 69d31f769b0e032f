//! Who speaks to whom: the Hello that opens a stream and goes with every ping, and the reasons to refuse one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::convert::{WireError, address, cluster_id, id_to_proto, incarnation, line, line_to_proto};
use super::proto;
use crate::cluster::line::{Relation, Standing};
pub use crate::machine::sign::FORMAT_VERSION;
use crate::types::{BranchId, ClusterId, Epoch, Incarnation, NodeAddr};

/// The oldest one that it still speaks, with builds that know no newer one.
pub const OLDEST_FORMAT_VERSION: u32 = 1;

/// The metadata entry that names the reason of a refusal for programs; the status message is for people.
const REFUSAL_ENTRY: &str = "entail-refusal";

/// What this node says of itself to the others.
#[derive(Debug)]
pub struct Local {
    /// This node's address.
    pub address: NodeAddr,
    /// This node's incarnation.
    pub incarnation: Incarnation,
    /// The hash of this node's map 0.
    pub settings_hash: u64,
    /// A node's gRPC port is its REST port and this.
    pub grpc_port_offset: u16,
    maps: Mutex<Maps>,
}

/// Which maps this node has.
#[derive(Clone, Debug)]
struct Maps {
    cluster_id: ClusterId,
    standing: Standing,
}

/// The other end of a connection, by its Hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its address.
    pub address: NodeAddr,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The hash of its map 0.
    pub settings_hash: u64,
    /// The version of the protocol to speak with it: the newest that both know.
    pub format_version: u32,
}

/// Why a node does not speak with another. Nothing of what it sent was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The two belong to different stores.
    #[error("this node belongs to the store {ours}, not to {theirs}")]
    OtherCluster {
        /// The refuser's store.
        ours: ClusterId,
        /// The other's store.
        theirs: ClusterId,
    },
    /// The two belong to different branches of one store: neither's map comes of the other's.
    #[error(
        "this node belongs to the branch {ours} of the store, not to {}: after a recovery by force each went on without \
         the other; keep one, and start the nodes of the other with empty data directories",
        .theirs.line.branch()
    )]
    OtherBranch {
        /// The refuser's branch; 0 before the first recovery.
        ours: BranchId,
        /// Where the other's maps stand.
        theirs: Standing,
    },
    /// The Hello is meant for another address: a port or a name leads to the wrong process.
    #[error("this node is {ours}, not {wanted}; check addresses and port mappings")]
    OtherAddress {
        /// The refuser's address.
        ours: NodeAddr,
        /// Who was wanted.
        wanted: NodeAddr,
    },
    /// The other claims the refuser's own address.
    #[error("this node is {0} itself; two processes use one address")]
    SameAddress(NodeAddr),
    /// The two know no version of the protocol in common.
    #[error(
        "this node speaks the protocol's versions {} to {}, not {} to {}; run a version of entail on the older node that \
         speaks one of the newer node's",
        .ours.oldest, .ours.newest, .theirs.oldest, .theirs.newest
    )]
    OtherFormat {
        /// The refuser's versions.
        ours: Versions,
        /// The other's versions.
        theirs: Versions,
    },
    /// The Hello does not parse.
    #[error("malformed hello: {0}")]
    Malformed(#[from] WireError),
}

/// The versions of the protocol that a build speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Versions {
    /// Those of this build.
    pub const OURS: Self = Self { oldest: OLDEST_FORMAT_VERSION, newest: FORMAT_VERSION };

    /// Those that a Hello tells of; who tells no oldest one speaks one version alone.
    fn of(hello: &proto::Hello) -> Self {
        let oldest = if hello.oldest_format_version == 0 { hello.format_version } else { hello.oldest_format_version };
        Self { oldest, newest: hello.format_version }
    }

    /// The newest that both speak.
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl Refusal {
    /// The reason for programs.
    const fn reason(&self) -> &'static str {
        match self {
            Refusal::OtherCluster { .. } => "other-cluster",
            Refusal::OtherBranch { .. } => "other-branch",
            Refusal::OtherAddress { .. } => "other-address",
            Refusal::SameAddress(_) => "same-address",
            Refusal::OtherFormat { .. } => "other-format",
            Refusal::Malformed(_) => "malformed",
        }
    }

    /// The reason that a status names, when it is a refusal of this kind: for tests and logs.
    pub fn reason_of(status: &Status) -> Option<&str> {
        status.metadata().get(REFUSAL_ENTRY)?.to_str().ok()
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Malformed(_) => Code::InvalidArgument,
            Refusal::OtherCluster { .. }
            | Refusal::OtherBranch { .. }
            | Refusal::OtherAddress { .. }
            | Refusal::SameAddress(_)
            | Refusal::OtherFormat { .. } => Code::FailedPrecondition,
        };
        let mut status = Status::new(code, refusal.to_string());
        status.metadata_mut().insert(REFUSAL_ENTRY, MetadataValue::from_static(refusal.reason()));
        status
    }
}

impl Local {
    /// What a node says of itself; the store's id is zero before the birth.
    pub fn new(
        address: NodeAddr,
        incarnation: Incarnation,
        cluster_id: ClusterId,
        settings_hash: u64,
        grpc_port_offset: u16,
    ) -> Self {
        let maps = Mutex::new(Maps { cluster_id, standing: Standing::default() });
        Self { address, incarnation, settings_hash, grpc_port_offset, maps }
    }

    /// The store that this node belongs to; zero before its birth.
    pub fn cluster_id(&self) -> ClusterId {
        self.maps().cluster_id
    }

    /// Where this node's maps stand.
    pub fn standing(&self) -> Standing {
        self.maps().standing.clone()
    }

    /// To be told whenever the node acts under a new map: of which store, and where it stands.
    pub fn set_map(&self, cluster_id: ClusterId, standing: Standing) {
        *self.maps() = Maps { cluster_id, standing };
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to say to that node first.
    pub fn hello(&self, to: &NodeAddr) -> proto::Hello {
        let Maps { cluster_id, standing } = self.maps().clone();
        proto::Hello {
            to: to.as_str().to_owned(),
            address: self.address.as_str().to_owned(),
            incarnation: id_to_proto(self.incarnation.0),
            cluster_id: id_to_proto(cluster_id.0),
            format_version: FORMAT_VERSION,
            oldest_format_version: OLDEST_FORMAT_VERSION,
            settings_hash: self.settings_hash,
            line: line_to_proto(&standing.line),
            epoch: standing.epoch.0,
        }
    }

    /// Who speaks, if it is right that they speak with this node.
    ///
    /// # Errors
    /// The reason to refuse.
    pub fn accept(&self, hello: &proto::Hello) -> Result<Remote, Refusal> {
        // First of all, as another version may mean something else by the rest.
        let (ours, theirs) = (Versions::OURS, Versions::of(hello));
        let format_version = ours.common(theirs).ok_or(Refusal::OtherFormat { ours, theirs })?;
        let wanted = address("hello.to", &hello.to)?;
        if wanted != self.address {
            return Err(Refusal::OtherAddress { ours: self.address.clone(), wanted });
        }
        let sender = address("hello.address", &hello.address)?;
        if sender == self.address {
            return Err(Refusal::SameAddress(sender));
        }
        self.accept_maps(&hello.cluster_id, &hello.line, hello.epoch)?;
        let incarnation = incarnation("hello.incarnation", &hello.incarnation)?;
        Ok(Remote { address: sender, incarnation, settings_hash: hello.settings_hash, format_version })
    }

    /// As [`Local::accept`], for the answer of the node that was dialled.
    ///
    /// # Errors
    /// The reason to refuse; [`Refusal::OtherAddress`] when another node than `dialled` answers.
    pub fn accept_answer(&self, dialled: &NodeAddr, hello: &proto::Hello) -> Result<Remote, Refusal> {
        let remote = self.accept(hello)?;
        if remote.address == *dialled {
            Ok(remote)
        } else {
            Err(Refusal::OtherAddress { ours: remote.address, wanted: dialled.clone() })
        }
    }

    /// Takes maps of this store, and none on either side; of this branch, of one that comes of this node's map, or of
    /// one that this node's map comes of.
    ///
    /// # Errors
    /// [`Refusal::OtherCluster`], [`Refusal::OtherBranch`], or [`Refusal::Malformed`].
    pub fn accept_maps(&self, theirs: &[u8], forks: &[proto::Fork], epoch: u64) -> Result<(), Refusal> {
        let maps = self.maps();
        let (ours, theirs) = (maps.cluster_id, cluster_id("cluster_id", theirs)?);
        if ours.0 == 0 || theirs.0 == 0 {
            return Ok(());
        }
        if ours != theirs {
            return Err(Refusal::OtherCluster { ours, theirs });
        }
        let theirs = Standing { line: line(forks)?, epoch: Epoch(epoch) };
        match maps.standing.relation(&theirs) {
            Relation::Same | Relation::After | Relation::Before => Ok(()),
            Relation::Apart => Err(Refusal::OtherBranch { ours: maps.standing.line.branch(), theirs }),
        }
    }

    /// Where that node's gRPC side listens; `None` when the port would pass 65535.
    pub fn grpc_uri(&self, node: &NodeAddr) -> Option<String> {
        let port = node.port().checked_add(self.grpc_port_offset)?;
        Some(format!("http://{}:{port}", node.host()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::line::{Fork, Line};

    fn local(address: &str, cluster: u128) -> Local {
        Local::new(address.parse().unwrap(), Incarnation(7), ClusterId(cluster), 1, 1000)
    }

    #[test]
    fn a_hello_is_accepted_or_refused_by_name() {
        let (node1, node2) = (local("node1:80", 5), local("node2:80", 5));
        let hello = node2.hello(&node1.address);
        assert_eq!(node1.accept(&hello).unwrap().address, node2.address);

        let other = local("node2:80", 6).hello(&node1.address);
        let refused = Status::from(node1.accept(&other).unwrap_err());
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(Refusal::reason_of(&refused), Some("other-cluster"));
        for id in [ClusterId(5), ClusterId(6)] {
            assert!(refused.message().contains(&id.to_string()), "{refused}");
        }

        let unborn = local("node2:80", 0).hello(&node1.address);
        assert!(node1.accept(&unborn).is_ok());
        assert!(local("node1:80", 0).accept(&hello).is_ok());

        let astray = node2.hello(&"node3:80".parse().unwrap());
        assert!(matches!(node1.accept(&astray), Err(Refusal::OtherAddress { .. })));
        assert!(matches!(node1.accept(&node1.hello(&node1.address)), Err(Refusal::SameAddress(_))));
        let later = FORMAT_VERSION + 1;
        let future = proto::Hello { format_version: 9, oldest_format_version: later, to: "?".into(), ..hello.clone() };
        assert!(matches!(node1.accept(&future), Err(Refusal::OtherFormat { theirs: Versions { newest: 9, .. }, .. })));
        let cut = proto::Hello { incarnation: bytes::Bytes::from_static(b"short"), ..hello };
        assert_eq!(Status::from(node1.accept(&cut).unwrap_err()).code(), Code::InvalidArgument);
    }

    #[test]
    fn builds_speak_the_newest_version_that_both_know() {
        let versions = |oldest, newest| Versions { oldest, newest };
        assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
        assert_eq!(versions(2, 5).common(versions(1, 3)), Some(3));
        assert_eq!(versions(1, 2).common(versions(3, 4)), None);
        // Backwards is no range.
        assert_eq!(versions(1, 4).common(versions(4, 2)), None);

        let (node1, node2) = (local("node1:80", 5), local("node2:80", 5));
        let hello = |oldest_format_version, format_version| proto::Hello {
            oldest_format_version,
            format_version,
            ..node2.hello(&node1.address)
        };
        // A later build that still speaks this one's, and the first one, which told no oldest version.
        for (hello, common) in [(hello(1, 7), FORMAT_VERSION), (hello(0, 1), 1)] {
            assert_eq!(node1.accept(&hello).unwrap().format_version, common);
        }
        let later = FORMAT_VERSION + 1;
        for hello in [hello(0, later), hello(later, 7), hello(0, 0)] {
            let refused = Status::from(node1.accept(&hello).unwrap_err());
            assert_eq!(Refusal::reason_of(&refused), Some("other-format"), "{refused}");
        }
    }

    #[test]
    fn another_branch_is_refused_by_name() {
        let fork = |branch| Fork { branch: BranchId(branch), after: Epoch(5), first: Epoch(100) };
        let standing = |branch, epoch| Standing { line: Line::default().then(fork(branch)), epoch: Epoch(epoch) };
        let (node1, node2) = (local("node1:80", 5), local("node2:80", 5));
        node1.set_map(ClusterId(5), standing(7, 101));
        for (theirs, accepted) in [
            (standing(7, 100), true),
            (Standing { epoch: Epoch(5), ..Standing::default() }, true),
            (Standing { epoch: Epoch(6), ..Standing::default() }, false),
            (standing(8, 100), false),
        ] {
            node2.set_map(ClusterId(5), theirs.clone());
            let there = node1.accept(&node2.hello(&node1.address));
            let back = node2.accept(&node1.hello(&node2.address));
            assert_eq!((there.is_ok(), back.is_ok()), (accepted, accepted), "{theirs:?}");
            if let Err(refusal) = there {
                assert_eq!(Refusal::reason_of(&refusal.into()), Some("other-branch"));
            }
        }
        // Who has no map yet is of no branch.
        node2.set_map(ClusterId(0), Standing::default());
        assert!(node1.accept(&node2.hello(&node1.address)).is_ok());
    }

    #[test]
    fn the_answer_must_come_from_whom_was_dialled() {
        let (node1, node2) = (local("node1:80", 5), local("node2:80", 5));
        let answer = node2.hello(&node1.address);
        assert!(node1.accept_answer(&node2.address, &answer).is_ok());
        let other = node1.accept_answer(&"node3:80".parse().unwrap(), &answer);
        assert!(matches!(other, Err(Refusal::OtherAddress { .. })));
    }

    #[test]
    fn grpc_ports_stay_ports() {
        let node1 = local("node1:80", 5);
        assert_eq!(node1.grpc_uri(&"[::1]:8085".parse().unwrap()).as_deref(), Some("http://[::1]:9085"));
        assert_eq!(node1.grpc_uri(&"node2:65000".parse().unwrap()), None);
    }
}
