//! Clusters of real servers.

use std::sync::{Mutex, MutexGuard, OnceLock};

use keyway::local::{
    AtEnd, ClusterView, Durability, LocalCluster, LocalOptions, NodeName, NodeView, Version,
};

use super::psql::{Psql, psql, psql_with};
use super::{first_port, scratch_dir, wait_for};

/// What cluster a test needs.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    pub shards: u16,
    pub replicas: u16,
    pub version: Version,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { shards: 2, replicas: 1, version: Version::Newest }
    }
}

/// A running cluster, gone with its folder when it is dropped or the process ends.
pub struct Cluster {
    servers: Mutex<LocalCluster>,
    view: ClusterView,
}

impl Cluster {
    pub fn start(options: ClusterOptions) -> Self {
        Self::start_with(options, &[])
    }

    /// As `start`, with settings for every server.
    pub fn start_with(options: ClusterOptions, settings: &[(&str, &str)]) -> Self {
        let local = LocalOptions {
            shards: Some(options.shards),
            replicas: Some(options.replicas),
            version: options.version,
            durability: Durability::Fast,
            first_port: first_port(),
            settings: settings.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            at_end: AtEnd::Remove,
            ..LocalOptions::new(scratch_dir())
        };
        let servers = match LocalCluster::start(local, &mut |_| {}) {
            Ok(servers) => servers,
            Err(error) => panic!("{error}; {}", error.hint().unwrap_or_default()),
        };
        let view = servers.view();
        Self { servers: Mutex::new(servers), view }
    }

    /// The test crate's own cluster: two shards with a replica each, newest
    /// version. Tests that stop servers start one of their own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(ClusterOptions::default()))
    }

    pub fn view(&self) -> &ClusterView {
        &self.view
    }

    /// The servers themselves, to stop and start them.
    pub fn servers(&self) -> MutexGuard<'_, LocalCluster> {
        self.servers.lock().unwrap()
    }

    /// The primary of shard `shard`, from 1.
    pub fn primary(&self, shard: u16) -> &NodeView {
        &self.view.shards[usize::from(shard) - 1].primary
    }

    /// Replica `replica` of shard `shard`, both from 1.
    pub fn replica(&self, shard: u16, replica: u16) -> &NodeView {
        &self.view.shards[usize::from(shard) - 1].replicas[usize::from(replica) - 1]
    }

    /// Runs SQL on a primary as the application; it must succeed.
    pub fn sql(&self, shard: u16, sql: &str) -> String {
        psql(&self.primary(shard).url, sql).expect()
    }

    /// Runs SQL on every primary as the application; it must succeed.
    pub fn sql_everywhere(&self, sql: &str) {
        for shard in &self.view.shards {
            psql(&shard.primary.url, sql).expect();
        }
    }

    /// Runs SQL on a primary as the superuser; it must succeed.
    pub fn superuser_sql(&self, shard: u16, sql: &str) -> String {
        self.servers().superuser_sql(NodeName { shard, replica: 0 }, sql).unwrap()
    }

    /// Loads the sample: its schema on every shard, and each shard's own rows.
    pub fn load_sample(&self) {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/sample");
        for shard in &self.view.shards {
            let variables = [
                format!("--set=shard={}", shard.number),
                format!("--set=first={}", shard.slots.0),
                format!("--set=last={}", shard.slots.1),
            ];
            let files =
                [format!("--file={sample}/schema.sql"), format!("--file={sample}/data.sql")];
            let args: Vec<&str> = variables.iter().chain(&files).map(String::as_str).collect();
            psql_with(&shard.primary.url, &args).expect();
        }
    }

    /// Waits until all replicas have replayed what their primaries wrote so far.
    pub fn wait_replicated(&self) {
        for shard in &self.view.shards {
            let lsn = psql(&shard.primary.url, "SELECT pg_current_wal_insert_lsn()").expect();
            for replica in &shard.replicas {
                let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
                wait_for(
                    &format!("{} to catch up", replica.name),
                    || matches!(psql(&replica.url, &sql), Psql::Done(out) if out == "t"),
                );
            }
        }
    }
}
