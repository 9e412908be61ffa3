//! `keyway local`: arguments, help and exit codes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `keyway local`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = ABOUT, after_help = EXAMPLES)]
pub struct LocalArgs {
    /// What to do with the servers.
    #[command(subcommand)]
    pub command: LocalCommand,
}

/// The commands of `keyway local`.
#[derive(Debug, Subcommand)]
pub enum LocalCommand {
    /// Start the servers, and supervise them until Ctrl-C (or in the background).
    Up(UpArgs),
    /// Show the servers and how to connect to them.
    Status(StatusArgs),
    /// Connect with psql to one of the servers.
    Psql(PsqlArgs),
    /// End the servers; their data stays.
    Down(DownArgs),
}

/// The folder of a cluster.
#[derive(Args, Clone, Debug)]
pub struct DirArgs {
    /// Folder of the cluster.
    #[arg(long, value_name = "D", default_value = ".keyway/local")]
    pub dir: PathBuf,
}

/// `keyway local up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// The cluster's folder.
    #[command(flatten)]
    pub dir: DirArgs,
    /// Number of shards; of a new cluster 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: Option<u16>,
    /// Streaming replicas of each shard; of a new cluster 1.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u16).range(0..=16))]
    pub replicas: Option<u16>,
    /// Folder of PostgreSQL's programs (initdb, postgres, …), instead of looking for it.
    #[arg(long, value_name = "P")]
    pub pg_bin: Option<PathBuf>,
    /// Major version of PostgreSQL to look for, instead of the newest.
    #[arg(long, value_name = "MAJOR")]
    pub pg_version: Option<u32>,
    /// First port to try.
    #[arg(long, value_name = "PORT", default_value_t = 15_432)]
    pub port: u16,
    /// Setting for every server; may be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Without fsync: for tests. A crash of the machine may lose or break the data.
    #[arg(long)]
    pub fast: bool,
    /// Return when the servers are ready; `keyway local down` ends them.
    #[arg(long)]
    pub detach: bool,
    /// Print one JSON object with every connection string instead of text.
    #[arg(long)]
    pub json: bool,
    /// Says that this is the background process of --detach.
    #[arg(long, hide = true)]
    pub background: bool,
}

/// `keyway local status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// The cluster's folder.
    #[command(flatten)]
    pub dir: DirArgs,
    /// Print one JSON object with every connection string instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `keyway local psql`.
#[derive(Args, Clone, Debug)]
pub struct PsqlArgs {
    /// The cluster's folder.
    #[command(flatten)]
    pub dir: DirArgs,
    /// Number of the shard.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub shard: u16,
    /// Number of the replica; without it, the primary.
    #[arg(long, value_name = "R", default_value_t = 0)]
    pub replica: u16,
    /// Through the router that serves the cluster's keyway.toml, instead of directly.
    #[arg(long, conflicts_with_all = ["shard", "replica"])]
    pub router: bool,
    /// As the superuser instead of the application's user.
    #[arg(long)]
    pub superuser: bool,
    /// Arguments for psql, after `--`.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// `keyway local down`.
#[derive(Args, Clone, Debug)]
pub struct DownArgs {
    /// The cluster's folder.
    #[command(flatten)]
    pub dir: DirArgs,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value))
            if !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c)) =>
        {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected NAME=VALUE, as in shared_buffers=1GB".to_owned()),
    }
}

const ABOUT: &str = "\
Real PostgreSQL servers on this machine, for development and tests.

`up` finds PostgreSQL 15 or newer (--pg-bin, KEYWAY_PG_BIN, PATH, the distributions'
folders, Homebrew's, and what scripts/get-postgres obtained; the newest wins), makes
shards of one primary and its streaming replicas, and supervises them. Data, ports and
passwords stay in the folder for the next `up`; a port that is taken by then is chosen
anew. Settings suit moves and writes across shards (wal_level=logical, prepared
transactions, replication slots). Started by root, the servers run as `postgres` where
there is such a user, else as `nobody`; where that user can't enter the folder, data
goes to /var/tmp.

Servers listen on 127.0.0.1 and on Unix sockets, with SCRAM; user and database are
`app`, the password is in app.password and passfile (for PGPASSFILE). The folder also
holds shardmap.toml and keyway.toml for `keyway serve --config`. On the sockets,
which only the servers' own user and root can reach, the superuser needs no password.

However the supervisor ends, by Ctrl-C, SIGTERM or kill -9, no server stays behind.";

const EXAMPLES: &str = "\
Examples:
  keyway local up                                two shards with a replica each, until Ctrl-C
  keyway local up --detach --json                in the background; prints connection strings
  keyway local up --shards 1 --replicas 0 --dir /tmp/one --fast --set shared_buffers=256MB
  keyway local psql --shard 2 -- -c 'SELECT 1'   psql on the primary of shard 2
  keyway local psql --shard 1 --replica 1        psql on a replica
  keyway local psql --router                     psql through a router started with the folder's
                                                 keyway.toml
  keyway local down

Exit codes:
  0  done; for down also: nothing ran; for psql: psql's own
  1  refused: the folder was made with another shape or version of PostgreSQL
  2  usage
  3  failed: a server did not start, a file can't be written
  4  up: already running on the folder
  5  status, psql: nothing runs on the folder
  6  no PostgreSQL 15 or newer found";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_needs_a_name_and_an_equals_sign() {
        assert_eq!(setting("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
        assert!(setting("a").is_err());
        assert!(setting("=b").is_err());
        assert!(setting("a b=c").is_err());
    }
}
