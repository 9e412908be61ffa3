//! Where a shard's data lives: its Postgres nodes and how to log in there.
//!
//! Passwords are references here; whoever opens connections resolves them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::{NodeId, Role, Secret, ShardId};

/// A data set that owns slots: one primary and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The permanent number.
    pub id: ShardId,
    /// The name that people use.
    pub name: String,
    /// The database's name on this shard's nodes.
    pub dbname: String,
    /// Who the router logs in as.
    pub credentials: Credentials,
    /// How connections to this shard's nodes are encrypted.
    pub tls: Tls,
    /// The node that takes writes.
    pub primary: NodeId,
    /// The nodes that follow it, in the order of the file.
    pub replicas: Vec<NodeId>,
}

/// One Postgres process of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Position in the map.
    pub id: NodeId,
    /// The shard whose data it holds.
    pub shard: ShardId,
    /// What the map says it is; the monitor may find otherwise.
    pub role: Role,
    /// Where it listens.
    pub endpoint: Endpoint,
}

impl Node {
    /// Host name, address, or absolute folder of a Unix socket.
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Port, also part of a Unix socket's file name.
    pub const fn port(&self) -> u16 {
        self.endpoint.port
    }

    /// Whether the node is reached through a Unix socket.
    pub fn is_local_socket(&self) -> bool {
        self.endpoint.host.starts_with('/')
    }
}

/// A place where a Postgres listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name, address, or absolute folder of a Unix socket.
    pub host: String,
    /// Port, also part of a Unix socket's file name.
    pub port: u16,
    /// The zone it stands in, if the map says so.
    pub zone: Option<String>,
    /// Share of reads among a shard's replicas; zero takes none.
    pub weight: u16,
}

impl Endpoint {
    /// `host` and `port`, in no zone, with weight 1.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, zone: None, weight: 1 }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Who the router logs in as at a shard's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The role; `None` means the client's own.
    pub user: Option<String>,
    /// Where the password comes from.
    pub password: SecretRef,
}

impl Credentials {
    /// The client's own name and password.
    pub const CLIENT: Self = Self { user: None, password: SecretRef::Client };
}

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// The environment variable with this name.
    Env(String),
    /// The file with this path; a line break at its end does not count.
    File(String),
    /// What this program prints, with its arguments; a line break at its end
    /// does not count.
    Command(Vec<String>),
    /// The text itself, from the command line; a map file never holds one.
    Inline(Secret),
    /// What the client logged in with.
    Client,
}

/// How connections to a shard's nodes are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whether, and how much is verified.
    pub mode: TlsMode,
    /// A file with the root certificates to trust; `None` means the system's.
    pub root_cert: Option<String>,
}

impl Tls {
    /// No encryption.
    pub const DISABLE: Self = Self { mode: TlsMode::Disable, root_cert: None };
}

/// Whether a connection is encrypted, in the words of libpq's `sslmode`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the node offers it; nothing is verified.
    #[default]
    Prefer,
    /// Always; the certificate is not verified.
    Require,
    /// Always; the certificate must be trusted and name the host.
    VerifyFull,
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        })
    }
}
