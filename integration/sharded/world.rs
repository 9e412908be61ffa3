//! The cluster that all tests of this crate share, with the sample and tables
//! for every type of key, and the audit of where their rows are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

use keyway::shardmap::Map;

use crate::client::Client;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;

/// The types that a key can have.
pub(crate) const KEY_TYPES: [&str; 6] = ["int2", "int4", "int8", "text", "varchar", "uuid"];

/// Servers, and a router whose reads go to primaries.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) router: Router,
    pub(crate) map: Map,
    pub(crate) map_text: String,
}

/// The shared world; tests that reload a map start a router of their own.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let cluster = Cluster::start(ClusterOptions::default());
        cluster.load_sample();
        cluster.sql_everywhere(&tables());
        cluster.wait_replicated();
        let map_text = map_text(&cluster);
        let router = Router::start(
            &cluster,
            &options(&map_text, "primary").with_config("pool.size_max = 8"),
        );
        let map = Map::parse(&map_text, "map.toml").unwrap();
        // The schemas are read after the start; what needs them is refused before.
        let client = Client::connect(&router.url());
        let explain = "EXPLAIN ROUTE SELECT FROM tasks WHERE tenant_id = 2";
        wait_for("the schemas", || client.text(explain).unwrap().contains("marks|its slot"));
        World { cluster, router, map, map_text }
    })
}

/// A router's options with this map, whose reads have this consistency.
pub(crate) fn options(map_text: &str, consistency: &str) -> RouterOptions {
    let map =
        map_text.replace("consistency = \"any\"", &format!("consistency = \"{consistency}\""));
    RouterOptions { map: Some(map), ..RouterOptions::default() }
}

impl World {
    /// A router of this test alone.
    pub(crate) fn own_router(&self, consistency: &str) -> Router {
        self.own_router_with(consistency, "pool.size_max = 8")
    }

    /// The same with lines of configuration.
    pub(crate) fn own_router_with(&self, consistency: &str, config: &str) -> Router {
        let options = options(&self.map_text, consistency).with_config(config);
        Router::start(&self.cluster, &options)
    }

    /// The port of the primary that owns a tenant of the sample.
    pub(crate) fn port_of(&self, tenant: i64) -> u16 {
        self.cluster.primary(self.shard_of(tenant)).port
    }

    /// The number of the shard that has a tenant of the sample.
    pub(crate) fn shard_of(&self, tenant: i64) -> u16 {
        if self.tenants_on(1).contains(&tenant) { 1 } else { 2 }
    }

    /// Some tenants of the sample that live on shard `shard`.
    pub(crate) fn tenants_on(&self, shard: u16) -> &'static [i64] {
        static FOUND: OnceLock<BTreeMap<u16, Vec<i64>>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let ids = |shard| {
                self.cluster
                    .sql(shard, "SELECT tenant_id FROM tenants WHERE tenant_id <= 300 ORDER BY 1")
                    .lines()
                    .map(|id| id.parse().unwrap())
                    .collect()
            };
            BTreeMap::from([(1, ids(1)), (2, ids(2))])
        });
        &found[&shard]
    }

    /// Every row is on the shard that owns its slot, by the database's own
    /// words, and on no other.
    pub(crate) fn audit(&self) {
        let mut wrong = String::new();
        for shard in [1, 2] {
            for (table, owned) in audits() {
                let owned = owned.replace("{shard}", &shard.to_string());
                let sql = format!("SELECT count(*) FROM {table} WHERE NOT ({owned})");
                let strangers = self.cluster.sql(shard, &sql);
                if strangers != "0" {
                    let _ = writeln!(wrong, "{strangers} rows of {table} on shard {shard}");
                }
            }
        }
        assert_eq!(wrong, "", "rows on a shard that does not own them");
    }
}

/// Each sharded table, and the condition that a row of it belongs to shard
/// `{shard}`.
fn audits() -> Vec<(String, String)> {
    let half = |slot: &str, slots: u32| format!("({slot}) / {} + 1 = {{shard}}", slots / 2);
    let mut all: Vec<(String, String)> =
        ["tenants", "users", "projects", "tasks", "comments", "notes"]
            .map(|t| (t.to_owned(), half("hashint8extended(tenant_id, 0) & 4095", 4096)))
            .into();
    for key_type in KEY_TYPES {
        let slot = format!("{} & 4095", hash_of(key_type, "k"));
        all.push((format!("by_{key_type}"), half(&slot, 4096)));
        let owned = format!(
            "EXISTS (SELECT FROM generate_series(0, 11) r WHERE satisfies_hash_partition(\
             'parts_{key_type}'::regclass, 24, r + 12 * ({{shard}} - 1), k))"
        );
        all.push((format!("part_{key_type}"), owned));
    }
    all
}

/// What the database hashes a key with.
pub(crate) fn hash_of(key_type: &str, expression: &str) -> String {
    match key_type {
        "uuid" => format!("uuid_hash_extended({expression}, 0)"),
        "text" | "varchar" => format!("hashtextextended({expression}, 0)"),
        int => format!("hash{int}extended({expression}, 0)"),
    }
}

/// Tables besides the sample's, the same on every shard; `parts_…` are there
/// for `satisfies_hash_partition`.
fn tables() -> String {
    let mut sql = "SET client_min_messages = warning; BEGIN;\n".to_owned();
    for key_type in KEY_TYPES {
        for table in ["by", "part"] {
            let _ = writeln!(
                sql,
                "CREATE TABLE {table}_{key_type} (k {key_type} NOT NULL, n int4 NOT NULL, \
                 note text, PRIMARY KEY (k, n));"
            );
        }
        let _ =
            writeln!(sql, "CREATE TABLE parts_{key_type} (k {key_type}) PARTITION BY HASH (k);");
    }
    sql += "CREATE TABLE notes (tenant_id bigint NOT NULL, id bigint NOT NULL, body text, \
            PRIMARY KEY (tenant_id, id));\n\
            CREATE TABLE app_settings (name text PRIMARY KEY, value text);\n\
            CREATE SCHEMA audit; CREATE TABLE audit.entries (id int8 PRIMARY KEY, what text);\n\
            CREATE TYPE mood AS ENUM ('calm', 'busy');\n\
            CREATE FUNCTION touch() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';\nCOMMIT;";
    sql
}

/// The cluster's map with the other tables.
fn map_text(cluster: &Cluster) -> String {
    let mut text = std::fs::read_to_string(&cluster.view().map).unwrap();
    text = text.replace(
        "\"public.comments\"]",
        "\"public.comments\", \"public.notes\", \"public.memos\"]",
    );
    for key_type in KEY_TYPES {
        for (prefix, hash, slots) in [("by", "postgres", 4096), ("part", "partition", 24)] {
            let half = slots / 2;
            let _ = write!(
                text,
                "\n[[keyspace]]\nname = \"{prefix}_{key_type}\"\ntype = \"{key_type}\"\n\
                 hash = \"{hash}\"\nslots = {slots}\n\
                 ranges = {{ shard1 = [\"0-{}\"], shard2 = [\"{half}-{}\"] }}\n\
                 [[table]]\nname = \"public.{prefix}_{key_type}\"\n\
                 keyspace = \"{prefix}_{key_type}\"\nkey = \"k\"\n",
                half - 1,
                slots - 1
            );
        }
    }
    text += "\n[[single]]\nshard = \"shard2\"\ntables = [\"public.app_settings\"]\n\
             schemas = [\"audit\"]\n";
    text
}
