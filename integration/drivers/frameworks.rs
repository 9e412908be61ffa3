//! JDBC, SQLAlchemy, Django, Drizzle and sqlx: small applications with tenants,
//! on one database and on two shards.
//!
//! Each program makes its own schema, works on it and prints what it sees. On
//! shards it must see what it sees on a single server; then every row must be
//! on the shard that owns its key.

use std::sync::OnceLock;

use crate::run_with;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::router::{Router, RouterOptions};

#[test]
fn jdbc_sees_the_same() {
    crate::run("jdbc");
}

#[test]
fn jdbc_sees_the_same_on_shards() {
    on_shards("jdbc", &["jd.projects", "jd.tasks"]);
}

#[test]
fn sqlalchemy_sees_the_same() {
    crate::run("sqlalchemy");
}

#[test]
fn sqlalchemy_sees_the_same_on_shards() {
    on_shards("sqlalchemy", &["sa.projects", "sa.tasks"]);
}

#[test]
fn django_sees_the_same() {
    crate::run("django");
}

#[test]
fn django_sees_the_same_on_shards() {
    on_shards("django", &["dj_project", "dj_task"]);
}

#[test]
fn drizzle_sees_the_same() {
    crate::run("drizzle");
}

#[test]
fn drizzle_sees_the_same_on_shards() {
    on_shards("drizzle", &["dz.projects", "dz.tasks"]);
}

#[test]
fn sqlx_sees_the_same() {
    crate::run("sqlx");
}

#[test]
fn sqlx_sees_the_same_on_shards() {
    on_shards("sqlx", &["sx.projects", "sx.tasks"]);
}

/// Runs a client on the first shard alone, then on both through the router;
/// then asks each shard for rows of its `tables` that it does not own.
fn on_shards(client: &str, tables: &[&str]) {
    let (cluster, router) = shards();
    run_with(client, &cluster.primary(1).url, &router.url(), &[("KEYWAY_TEST_SHARDED", "1")]);
    for table in tables {
        let mut rows = 0;
        for shard in &cluster.view().shards {
            let slot = "(hashint8extended(tenant_id, 0) & 4095)";
            let (first, last) = shard.slots;
            let sql = format!(
                "SELECT count(*) FILTER (WHERE {slot} NOT BETWEEN {first} AND {last}), count(*) FROM {table}"
            );
            let counts = cluster.sql(shard.number, &sql);
            let (strangers, all) = counts.split_once('|').unwrap();
            assert_eq!(strangers, "0", "rows of {table} that shard {} does not own", shard.number);
            assert_ne!(all, "0", "{client} leaves rows of {table} on shard {}", shard.number);
            rows += all.parse::<u32>().unwrap();
        }
        println!("{rows} rows of {table} are where they belong");
    }
}

/// Two shards, and a router before them that knows the tables of all programs.
fn shards() -> &'static (Cluster, Router) {
    static SHARDS: OnceLock<(Cluster, Router)> = OnceLock::new();
    SHARDS.get_or_init(|| {
        let options = ClusterOptions { shards: 2, replicas: 0, ..Default::default() };
        let cluster = Cluster::start(options);
        let options = RouterOptions::sharded(&cluster).with_map(|map| {
            let (head, _) = map.split_once("[[key_rule]]").unwrap();
            format!("{head}{TABLES}")
        });
        let router = Router::start(&cluster, &options);
        (cluster, router)
    })
}

/// The tables of the programs; what their tools keep for themselves is on the
/// first shard.
const TABLES: &str = r#"
[[key_rule]]
keyspace = "tenants"
column = "tenant_id"
tables = [
  "jd.projects", "jd.tasks", "sa.projects", "sa.tasks", "public.dj_project", "public.dj_task",
  "dz.projects", "dz.tasks", "sx.projects", "sx.tasks",
]

[reference]
tables = ["jd.plans", "sa.plans", "public.dj_plan", "dz.plans", "sx.plans"]

[[single]]
shard = "shard1"
schemas = ["drizzle"]
tables = [
  "sa.alembic_version", "public._sqlx_migrations",
  "public.django_migrations", "public.django_content_type", "public.django_session",
  "public.auth_user", "public.auth_group", "public.auth_permission",
  "public.auth_user_groups", "public.auth_user_user_permissions", "public.auth_group_permissions",
]
"#;
