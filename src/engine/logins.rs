//! What the engine is started with.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls;

use crate::auth::StoredPassword;
use crate::auth::rules::{NameMaps, Rules};
use crate::config::{self, ClientAuth, PoolMode, Settings};
use crate::net::tls::ServerTls;
use crate::shardmap::Map;
use crate::types::{Consistency, Network, Secret, ShardId};

use super::lease::Lease;
use super::lookups::LookupOptions;
use super::marks::Marks;
use super::predecessors::Predecessors;
use super::sockets::Inherited;

/// Everything that the engine needs from the configuration; all secrets are
/// resolved.
#[derive(Debug)]
pub struct EngineOptions {
    /// Threads that serve clients; at least one, at most [`super::THREADS_MAX`].
    pub threads: usize,
    /// TCP addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Folder for a Unix socket named after the first port.
    pub unix_socket_dir: Option<PathBuf>,
    /// Whose connections begin with a header that says whom they pass on.
    pub proxies: Vec<Network>,
    /// Sockets that are there already.
    pub inherited: Inherited,
    /// Where routers before this one hear of cancel requests, if it takes over.
    pub predecessors: Option<Predecessors>,
    /// Clients over TCP must use TLS.
    pub tls_required: bool,
    /// How clients are asked for their password where no rules say it.
    pub client_auth: ClientAuth,
    /// Limits and timeouts.
    pub settings: Arc<Settings>,
    /// Who may come in.
    pub access: Arc<Access>,
    /// Where users are looked up who are not configured.
    pub lookups: Option<LookupOptions>,
    /// Told when a shard refuses the password that is configured for it.
    pub refused_logins: Option<tokio::sync::watch::Sender<u64>>,
    /// The databases.
    pub databases: Vec<DatabaseOptions>,
    /// Name of the operators' database.
    pub console_database: String,
    /// Where the operators' statements go.
    pub console: Option<tokio::sync::mpsc::Sender<super::console::ConsoleRequest>>,
    /// Told when a schema may have changed by a client's statement.
    pub schema_changes: Option<tokio::sync::watch::Sender<u64>>,
    /// Secret for what must not be guessed or chosen by clients.
    pub seed: [u8; 32],
}

/// One database.
#[derive(Debug)]
pub struct DatabaseOptions {
    /// The name that clients ask for.
    pub name: String,
    /// Its map in force.
    pub map: Arc<Map>,
    /// How to log in at each shard.
    pub logins: HashMap<ShardId, BackendLogin>,
    /// The marks of its writes, which its monitor knows too.
    pub marks: Arc<Marks>,
    /// Until when its clients' statements may be sent.
    pub lease: Arc<Lease>,
}

/// How the router logs in at a shard's nodes.
#[derive(Clone, Debug, Default)]
pub struct BackendLogin {
    /// The role; `None` is the client's own.
    pub user: Option<String>,
    /// Its password; `None` is the client's own.
    pub password: Option<Secret>,
    /// TLS towards the nodes; `None` never encrypts.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// A node that declines TLS is refused.
    pub tls_required: bool,
}

/// Who may come in, and what they are asked; read anew by a reload.
#[derive(Debug, Default)]
pub struct Access {
    /// Configured users.
    pub users: Arc<Users>,
    /// The mode of each database that has its own.
    pub pool_modes: HashMap<String, PoolMode>,
    /// TLS for clients; `None` declines it.
    pub tls: Option<ServerTls>,
    /// Who is asked for what; without rules it is the same for all.
    pub rules: Option<Rules>,
    /// The maps that rules name.
    pub names: NameMaps,
    /// As whom the router logs in at backends, unless a user has it otherwise.
    pub backend_login: config::BackendLogin,
    /// Others than configured users are looked up.
    pub lookup: bool,
}

/// Users by configuration.
#[derive(Debug, Default)]
pub struct Users {
    /// By name.
    pub by_name: HashMap<String, User>,
}

/// One user.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// What the password is checked against; `None` only with `trust`.
    pub stored: Option<StoredPassword>,
    /// The password, where it is needed to log in at backends.
    pub password: Option<Secret>,
    /// No password is asked for.
    pub trust: bool,
    /// May use the console.
    pub admin: bool,
    /// The databases that the user may use; `None` is all.
    pub databases: Option<Vec<String>>,
    /// Over the configured mode.
    pub pool_mode: Option<PoolMode>,
    /// Over the configured level of reads.
    pub consistency: Option<Consistency>,
    /// May not say itself where its statements run.
    pub hints_forbidden: bool,
    /// Over that of [`Access`].
    pub backend_login: Option<config::BackendLogin>,
}
