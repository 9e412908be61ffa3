//! The text of the servers' configuration files.
//!
//! Everything is written anew at each start, outside the data folders, so a
//! port that changed or a setting that was added takes effect, and a copy of a
//! data folder carries nothing over.

use std::fmt::Write as _;
use std::path::Path;

/// How hard the servers try to keep what they acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// As PostgreSQL's defaults: survives a crash of the machine.
    #[default]
    Full,
    /// No fsync: survives a crash of a server, not of the machine. For tests.
    Fast,
}

/// Where a node listens, where it keeps its files, and whom it follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeSettings<'a> {
    pub(crate) port: u16,
    pub(crate) socket_dir: &'a Path,
    pub(crate) hba_file: &'a Path,
    pub(crate) ident_file: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) durability: Durability,
    pub(crate) follows: Option<Follows<'a>>,
    pub(crate) extra: &'a [(String, String)],
}

/// The primary that a replica follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Follows<'a> {
    pub(crate) port: u16,
    pub(crate) slot: &'a str,
}

/// The server's main configuration file.
pub(crate) fn server_conf(node: &NodeSettings<'_>) -> String {
    let mut out = String::from("# Written by `keyway local` at each start; changes are lost.\n");
    let mut set = |name: &str, value: &str| {
        // A string never fails to grow.
        let _ = writeln!(out, "{name} = {}", quoted(value));
    };
    set("listen_addresses", "127.0.0.1");
    set("port", &node.port.to_string());
    set("unix_socket_directories", &path(node.socket_dir));
    set("unix_socket_permissions", "0700");
    set("hba_file", &path(node.hba_file));
    set("ident_file", &path(node.ident_file));
    set("cluster_name", node.name);
    for (name, value) in FIXED {
        set(name, value);
    }
    match node.durability {
        Durability::Full => {}
        Durability::Fast => {
            set("fsync", "off");
            set("full_page_writes", "off");
        }
    }
    if let Some(primary) = node.follows {
        let conninfo = format!(
            "host={} port={} user={REPLICATION_USER} application_name={}",
            quoted(&path(node.socket_dir)),
            primary.port,
            quoted(node.name)
        );
        set("primary_conninfo", &conninfo);
        set("primary_slot_name", primary.slot);
    }
    for (name, value) in node.extra {
        set(name, value);
    }
    out
}

/// Who may log in. The socket folder admits only the servers' own user (and
/// root), so the superuser and the replicas need no password there.
pub(crate) fn hba_conf() -> String {
    format!(
        "# Written by `keyway local` at each start; changes are lost.\n\
         local all         {SUPERUSER} trust\n\
         local replication {REPLICATION_USER} trust\n\
         local all         all scram-sha-256\n\
         host  all         all 127.0.0.1/32 scram-sha-256\n\
         host  replication all 127.0.0.1/32 scram-sha-256\n"
    )
}

/// The statements that make the application's user and database, once, on a
/// fresh primary. Passwords are of letters and digits.
pub(crate) fn bootstrap_sql(passwords: &Passwords) -> String {
    format!(
        "SET password_encryption = 'scram-sha-256';\n\
         ALTER ROLE {SUPERUSER} PASSWORD '{}';\n\
         CREATE ROLE {APP_USER} LOGIN PASSWORD '{}' IN ROLE pg_monitor;\n\
         CREATE ROLE {REPLICATION_USER} LOGIN REPLICATION PASSWORD '{}';\n\
         CREATE DATABASE {DATABASE} OWNER {APP_USER};\n",
        passwords.superuser, passwords.app, passwords.superuser
    )
}

/// Passwords of one cluster, made up when it is first started.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Passwords {
    pub(crate) app: String,
    pub(crate) superuser: String,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords(..)")
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// A value as the configuration file and connection strings quote it; the
/// former doubles a quote, which the latter does not know, and both take a
/// backslash.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Login of the application.
pub(crate) const APP_USER: &str = "app";
/// Database of the application.
pub(crate) const DATABASE: &str = "app";
/// Login that may do everything.
pub(crate) const SUPERUSER: &str = "postgres";
/// Login of the replicas.
pub(crate) const REPLICATION_USER: &str = "keyway_replication";

/// What is the same on every node. Sizes suit several servers on one machine;
/// logical replication and prepared transactions are ready for moves and for
/// writes across shards.
const FIXED: &[(&str, &str)] = &[
    ("max_connections", "200"),
    ("superuser_reserved_connections", "5"),
    ("shared_buffers", "32MB"),
    ("wal_level", "logical"),
    ("hot_standby", "on"),
    ("max_prepared_transactions", "64"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("max_worker_processes", "24"),
    ("max_logical_replication_workers", "12"),
    ("max_sync_workers_per_subscription", "2"),
    ("max_parallel_workers", "4"),
    ("max_wal_size", "256MB"),
    ("max_slot_wal_keep_size", "2GB"),
    ("wal_log_hints", "on"),
    ("wal_retrieve_retry_interval", "500ms"),
    ("password_encryption", "scram-sha-256"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn node<'a>(follows: Option<Follows<'a>>, extra: &'a [(String, String)]) -> String {
        server_conf(&NodeSettings {
            port: 15_432,
            socket_dir: Path::new("/tmp/it's"),
            hba_file: Path::new("/d/hba.conf"),
            ident_file: Path::new("/d/ident.conf"),
            name: "shard1/primary",
            durability: Durability::Full,
            follows,
            extra,
        })
    }

    #[test]
    fn quotes_in_values_are_escaped() {
        assert!(node(None, &[]).contains("unix_socket_directories = '/tmp/it\\'s'\n"));
    }

    #[test]
    fn replica_follows_and_primary_does_not() {
        assert!(!node(None, &[]).contains("primary_"));
        let replica = node(Some(Follows { port: 7, slot: "s" }), &[]);
        assert!(replica.contains("port=7 user=keyway_replication"), "{replica}");
        assert!(replica.contains("primary_slot_name = 's'"));
    }

    #[test]
    fn given_settings_come_last_and_so_win() {
        let extra = [("shared_buffers".to_owned(), "1GB".to_owned())];
        assert!(node(None, &extra).ends_with("shared_buffers = '1GB'\n"));
    }

    #[test]
    fn passwords_are_not_shown_by_debug() {
        let passwords = Passwords { app: "one".into(), superuser: "two".into() };
        assert_eq!(format!("{passwords:?}"), "Passwords(..)");
    }
}
