//! What others need to know of a local cluster: connection strings, and the
//! files that clients read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::LocalError;
use super::mapfile::{slots_of, write_router_files};
use super::settings::{APP_USER, DATABASE, Passwords, SUPERUSER};
use super::state::{APP_PASSWORD_FILE, NodeState, State, write_file};

/// A cluster as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// The cluster's folder.
    pub dir: PathBuf,
    /// Major version of PostgreSQL.
    pub postgres: u32,
    /// Folder of the Unix sockets of all nodes.
    pub socket_dir: PathBuf,
    /// The application's login.
    pub user: String,
    /// Its password.
    pub password: String,
    /// File that holds the password.
    pub password_file: PathBuf,
    /// The application's database, on every shard.
    pub database: String,
    /// The superuser's login.
    pub superuser: String,
    /// Its password over TCP.
    pub superuser_password: String,
    /// Password file for libpq (PGPASSFILE), with both logins.
    pub passfile: PathBuf,
    /// Shard map for the router, made for the sample's tables.
    pub map: PathBuf,
    /// Configuration for `keyway serve`, which names that map.
    pub config: PathBuf,
    /// Connection string of the application through a router with that
    /// configuration.
    pub router_url: String,
    /// Its ports for clients, and for metrics and health.
    pub router_ports: (u16, u16),
    /// The shards, by number.
    pub shards: Vec<ShardView>,
}

/// One shard of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardView {
    /// Its number, from 1.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// First and last slot that it owns in `map`.
    pub slots: (u32, u32),
    /// Where writes go.
    pub primary: NodeView,
    /// Where copies are.
    pub replicas: Vec<NodeView>,
}

/// One server of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its name: `shard1/primary`.
    pub name: String,
    /// Host for TCP.
    pub host: String,
    /// Port, of TCP and of the socket's name.
    pub port: u16,
    /// Connection string of the application, over TCP, with the password.
    pub url: String,
    /// Connection string of the superuser, over TCP, with the password.
    pub superuser_url: String,
    /// Connection string of the application, over the Unix socket.
    pub socket_url: String,
    /// Process id, while it runs.
    pub pid: Option<u32>,
    /// Its data folder.
    pub data: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

impl ClusterView {
    /// All nodes: of each shard the primary, then its replicas.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeView> {
        self.shards.iter().flat_map(|s| std::iter::once(&s.primary).chain(&s.replicas))
    }
}

/// Builds the view of a cluster.
pub(crate) fn describe(dir: &Path, state: &State, passwords: &Passwords) -> ClusterView {
    let view = |n: &NodeState| node_view(n, state, passwords);
    let shards = state.nodes.iter().filter(|n| n.replica == 0).map(|primary| ShardView {
        number: primary.shard,
        name: format!("shard{}", primary.shard),
        slots: slots_of(primary.shard, state.shape().0),
        primary: view(primary),
        replicas: state
            .nodes
            .iter()
            .filter(|n| n.shard == primary.shard && n.replica > 0)
            .map(view)
            .collect(),
    });
    ClusterView {
        dir: dir.to_path_buf(),
        postgres: state.major,
        socket_dir: state.socket_dir.clone(),
        user: APP_USER.to_owned(),
        password: passwords.app.clone(),
        password_file: dir.join(APP_PASSWORD_FILE),
        database: DATABASE.to_owned(),
        superuser: SUPERUSER.to_owned(),
        superuser_password: passwords.superuser.clone(),
        passfile: dir.join(PASSFILE),
        map: dir.join("shardmap.toml"),
        config: dir.join("keyway.toml"),
        router_url: format!(
            "postgres://{APP_USER}:{}@{HOST}:{}/{DATABASE}",
            passwords.app, state.router_port
        ),
        router_ports: (state.router_port, state.http_port),
        shards: shards.collect(),
    }
}

fn node_view(node: &NodeState, state: &State, passwords: &Passwords) -> NodeView {
    let home = state.data_root.join(node.name());
    let url = |user: &str, password: &str| {
        format!("postgres://{user}:{password}@{HOST}:{}/{DATABASE}", node.port)
    };
    NodeView {
        name: node.name(),
        host: HOST.to_owned(),
        port: node.port,
        url: url(APP_USER, &passwords.app),
        superuser_url: url(SUPERUSER, &passwords.superuser),
        socket_url: format!(
            "postgres://{APP_USER}:{}@/{DATABASE}?host={}&port={}",
            passwords.app,
            percent_encoded(&state.socket_dir),
            node.port
        ),
        pid: node.pid,
        data: home.join("data"),
        log: home.join("server.log"),
    }
}

/// Writes the files of the cluster's folder that clients read.
pub(crate) fn write_client_files(view: &ClusterView) -> Result<(), LocalError> {
    // Any host and port, so that one line serves the router too.
    let passfile = format!(
        "*:*:*:{APP_USER}:{}\n*:*:*:{SUPERUSER}:{}\n",
        view.password, view.superuser_password
    );
    write_file(&view.passfile, &passfile, 0o600)?;
    write_router_files(view)
}

/// The cluster in lines for people.
pub(crate) fn text(view: &ClusterView) -> String {
    let mut out = String::new();
    for node in view.nodes() {
        // A string never fails to grow.
        let _ = writeln!(
            out,
            "  {:<16} port {:<6} process {:<8} {}",
            node.name,
            node.port,
            node.pid.map_or_else(|| "-".to_owned(), |p| p.to_string()),
            node.log.display()
        );
    }
    let _ = writeln!(out, "  user {APP_USER}, database {DATABASE}; to connect:");
    for shard in &view.shards {
        let _ = writeln!(
            out,
            "  PGPASSFILE={} psql -h {HOST} -p {} -U {APP_USER} {DATABASE}   # {}",
            view.passfile.display(),
            shard.primary.port,
            shard.name
        );
    }
    out
}

fn percent_encoded(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            // A string never fails to grow.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

const HOST: &str = "127.0.0.1";
const PASSFILE: &str = "passfile";

/// The view of two shards with a replica each, on ports from 7001.
#[cfg(test)]
pub(crate) fn sample_view() -> ClusterView {
    let dir = tempfile::tempdir().unwrap();
    let account = super::account::Account::for_servers();
    let mut state = State::plan(dir.path(), &account, 18, 2, 1);
    for (port, node) in (7001..).zip(&mut state.nodes) {
        node.port = port;
    }
    state.socket_dir = "/tmp/a b".into();
    let passwords = Passwords { app: "one".into(), superuser: "two".into() };
    describe(dir.path(), &state, &passwords)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_connection_strings() {
        let view = sample_view();
        let urls: Vec<_> = view.nodes().map(|n| n.url.as_str()).collect();
        assert_eq!(
            urls,
            [
                "postgres://app:one@127.0.0.1:7001/app",
                "postgres://app:one@127.0.0.1:7002/app",
                "postgres://app:one@127.0.0.1:7003/app",
                "postgres://app:one@127.0.0.1:7004/app",
            ]
        );
        assert_eq!(
            view.shards[0].primary.socket_url,
            "postgres://app:one@/app?host=%2Ftmp%2Fa%20b&port=7001"
        );
    }

    #[test]
    fn text_has_a_line_to_paste_for_each_shard() {
        let text = text(&sample_view());
        assert_eq!(text.matches(" psql -h 127.0.0.1 -p ").count(), 2, "{text}");
    }
}
