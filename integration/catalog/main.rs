//! The router's catalogs, against real servers: what it knows of their
//! schemas, when it notices that they change, and what it makes of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod rows;
#[path = "../support/mod.rs"]
mod support;

mod numbers;
mod tenants;

use std::process::Command;

use keyway::local::Version;
use support::cluster::{Cluster, ClusterOptions};
use support::psql::{Psql, psql, psql_with};
use support::router::{Router, RouterOptions};
use support::wait_for;

/// Two shards without replicas; each test has tables of its own there.
fn cluster() -> &'static Cluster {
    static CLUSTER: std::sync::OnceLock<Cluster> = std::sync::OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(ClusterOptions { replicas: 0, ..Default::default() }))
}

/// A router before the cluster that takes `tables` for sharded by `tenant_id`,
/// once it has read both catalogs.
fn router(tables: &[&str]) -> Router {
    let names: Vec<String> = tables.iter().map(|name| format!("\"{name}\"")).collect();
    let options = RouterOptions::sharded(cluster()).with_map(|map| {
        let at = map.find("tables = [").unwrap();
        let (head, tail) = map.split_at(at);
        let tail = tail.split_once(']').unwrap().1;
        format!("{head}tables = [{}]{tail}", names.join(", "))
    });
    let router = Router::start(cluster(), &options);
    wait_for("both catalogs", || shown(&router).matches("|in force").count() == 2);
    router
}

fn shown(router: &Router) -> String {
    psql(&router.console_url(), "SHOW CATALOG").expect()
}

/// A tenant on shard 1 and one on shard 2.
fn tenants(router: &Router, table: &str) -> [u32; 2] {
    [1, 2].map(|shard| {
        (1..200)
            .find(|tenant| {
                let sql = format!("EXPLAIN ROUTE SELECT 1 FROM {table} WHERE tenant_id = {tenant}");
                psql(&router.url(), &sql).expect().contains(&format!("shard{shard}"))
            })
            .unwrap()
    })
}

#[test]
fn an_insert_without_columns_keeps_its_key_through_schema_changes() {
    let cluster = cluster();
    cluster.sql_everywhere(
        "CREATE TABLE shifting (gone int, tenant_id bigint NOT NULL, note text);
         ALTER TABLE shifting DROP COLUMN gone",
    );
    let router = router(&["public.shifting"]);
    let tenants = tenants(&router, "shifting");
    for tenant in tenants {
        let sql = format!("INSERT INTO shifting VALUES ({tenant}, 'a''b'), ({tenant}, 'c')");
        psql(&router.url(), &sql).expect();
        let star =
            format!("INSERT INTO shifting SELECT s.* FROM shifting s WHERE tenant_id = {tenant}");
        psql(&router.url(), &star).expect();
        let prepare = "PREPARE p AS INSERT INTO shifting VALUES ($1, 'p')";
        let execute = format!("EXECUTE p({tenant})");
        psql_with(&router.url(), &["--command", prepare, "--command", &execute]).expect();
    }
    cluster.sql_everywhere("ALTER TABLE shifting ADD COLUMN added int");
    wait_for("the new column", || {
        let sql = format!("INSERT INTO shifting VALUES ({}, 'new', 3)", tenants[0]);
        match psql(&router.url(), &sql) {
            Psql::Done(_) => true,
            Psql::Failed(error) => {
                // The server's own error, or one shard is known before the other.
                assert!(["42601", "0A000"].iter().any(|s| error.contains(s)), "{error}");
                false
            }
        }
    });
    psql(&router.url(), &format!("INSERT INTO shifting VALUES ({}, 'old')", tenants[1])).expect();
    // The column in front of the key goes and comes back at the end.
    cluster.sql_everywhere(
        "ALTER TABLE shifting DROP COLUMN tenant_id, DROP COLUMN note;
         ALTER TABLE shifting ADD COLUMN note text, ADD COLUMN tenant_id bigint NOT NULL DEFAULT 0",
    );
    let sql = format!("INSERT INTO shifting VALUES (7, 'late', {})", tenants[1]);
    wait_for("the key at its new place", || match psql(&router.url(), &sql) {
        Psql::Done(_) => true,
        Psql::Failed(error) => {
            let stale = ["42703", "42804", "0A000", "22P02", "22003"];
            assert!(stale.iter().any(|state| error.contains(state)), "{error}");
            false
        }
    });
    for tenant in tenants {
        let star =
            format!("INSERT INTO shifting SELECT * FROM shifting WHERE tenant_id = {tenant}");
        // One shard may be known before the other.
        wait_for("the star's columns", || match psql(&router.url(), &star) {
            Psql::Done(_) => true,
            Psql::Failed(error) => {
                assert!(error.contains("0A000"), "{error}");
                false
            }
        });
    }
    let late = "SELECT count(*) FROM shifting WHERE note = 'late'";
    assert_ne!(cluster.sql(2, late), "0");
    // Whichever column the server took for which, each row is where its key is.
    for (shard, other) in [(1, 2), (2, 1)] {
        let keys =
            cluster.sql(shard, "SELECT DISTINCT tenant_id FROM shifting WHERE tenant_id > 0");
        for key in keys.lines() {
            let sql = format!("EXPLAIN ROUTE SELECT 1 FROM shifting WHERE tenant_id = {key}");
            let route = psql(&router.url(), &sql).expect();
            assert!(
                !route.contains(&format!("shard{other}")),
                "{key} is on shard {shard}: {route}"
            );
        }
    }
}

#[test]
fn a_prepared_insert_without_columns_keeps_its_key() {
    let cluster = cluster();
    cluster.sql_everywhere("CREATE TABLE kept (note text, tenant_id bigint NOT NULL)");
    let router = router(&["public.kept"]);
    let [one, two] = tenants(&router, "kept").map(i64::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&router.url(), tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let insert = client.prepare("insert into kept values ($1, $2) returning *").await.unwrap();
        for tenant in [one, two] {
            let rows = client.query(&insert, &[&"before", &tenant]).await.unwrap();
            assert_eq!(rows[0].get::<_, i64>(1), tenant);
        }
        cluster.sql_everywhere("ALTER TABLE kept ADD COLUMN added int DEFAULT 5");
        for tenant in [one, two] {
            // The old shape must not be taken for the new one; the row is there
            // or it is not.
            let outcome = client.query(&insert, &[&"after", &tenant]).await;
            if let Err(error) = outcome {
                assert_eq!(error.code().map(|code| code.code()), Some("0A000"), "{error}");
            }
        }
        // The unnamed statement goes the same way.
        let rows = client
            .query_typed(
                "insert into kept values ($1, $2) returning tenant_id",
                &[
                    (&"typed", tokio_postgres::types::Type::TEXT),
                    (&two, tokio_postgres::types::Type::INT8),
                ],
            )
            .await
            .unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), two);
        driver.abort();
    });
    let others = |shard, own: i64| {
        cluster.sql(shard, &format!("SELECT count(*) FROM kept WHERE tenant_id <> {own}"))
    };
    assert_eq!((others(1, one), others(2, two)), ("0".to_owned(), "0".to_owned()));
    let before = "SELECT count(*) FROM kept WHERE note IN ('before', 'typed')";
    assert_eq!((cluster.sql(1, before), cluster.sql(2, before)), ("1".into(), "2".into()));
}

#[test]
fn a_simple_view_is_as_good_as_its_table() {
    let cluster = cluster();
    cluster.sql_everywhere(
        "CREATE TABLE seen (tenant_id bigint NOT NULL, name text);
         CREATE VIEW seen_names AS SELECT name, tenant_id AS tenant FROM seen WHERE name <> 'no';
         CREATE VIEW seen_counts AS SELECT tenant_id, count(*) FROM seen GROUP BY tenant_id",
    );
    let router = router(&["public.seen"]);
    let [one, two] = tenants(&router, "seen");
    for tenant in [one, two] {
        for name in ["yes", "no"] {
            let sql = format!("INSERT INTO seen_names VALUES ('{name}', {tenant})");
            psql(&router.url(), &sql).expect();
        }
    }
    let rows = "SELECT tenant_id, name FROM seen ORDER BY name";
    assert_eq!(cluster.sql(1, rows), format!("{one}|no\n{one}|yes"));
    assert_eq!(cluster.sql(2, rows), format!("{two}|no\n{two}|yes"));
    let sql = format!("SELECT * FROM seen_names WHERE tenant = {two}");
    assert_eq!(psql(&router.url(), &sql).expect(), format!("yes|{two}"));
    let sql = format!("SELECT * FROM seen_counts WHERE tenant_id = {two}");
    let error = psql(&router.url(), &sql).expect_error();
    assert!(error.contains("joins, groups or cuts rows of sharded tables"), "{error}");
    // Past the router, the view becomes one that has no key.
    cluster.sql_everywhere(
        "DROP VIEW seen_names;
         CREATE VIEW seen_names AS SELECT name, tenant_id + 0 AS tenant FROM seen",
    );
    let sql = format!("SELECT * FROM seen_names WHERE tenant = {two}");
    wait_for("the new view", || {
        matches!(psql(&router.url(), &sql), Psql::Failed(error)
            if error.contains("does not show the sharding key"))
    });
}

#[test]
fn a_shadowing_table_is_not_the_maps() {
    let cluster = cluster();
    cluster.sql_everywhere("CREATE TABLE shadowed (tenant_id bigint NOT NULL, name text)");
    let router = router(&["public.shadowed"]);
    let [one, _] = tenants(&router, "shadowed");
    let sql = format!("SELECT count(*) FROM shadowed WHERE tenant_id = {one}");
    let early = format!("SET search_path = early, public; {sql}");
    let run = |sql: &str| {
        let parts: Vec<&str> = sql.split("; ").flat_map(|part| ["--command", part]).collect();
        psql_with(&router.url(), &parts)
    };
    assert_eq!(run(&early).expect(), "0", "a schema that does not exist hides nothing");
    cluster.superuser_sql(
        1,
        "CREATE SCHEMA early; GRANT USAGE ON SCHEMA early TO PUBLIC;
         CREATE TABLE early.shadowed (tenant_id text)",
    );
    wait_for("the shadow", || {
        matches!(run(&early), Psql::Failed(error) if error.contains("find in different schemas")
            || error.contains("early.shadowed is not in the shard map"))
    });
    assert_eq!(run(&sql).expect(), "0");
    assert_eq!(run(&sql.replace("shadowed", "public.shadowed")).expect(), "0");
    cluster.superuser_sql(1, "DROP SCHEMA early CASCADE");
    wait_for("its end", || matches!(run(&early), Psql::Done(_)));
}

#[test]
fn shards_that_differ_and_keys_that_are_none_are_named() {
    let cluster = cluster();
    cluster.sql(1, "CREATE TABLE differing (tenant_id bigint NOT NULL, a int)");
    cluster.sql(2, "CREATE TABLE differing (tenant_id bigint NOT NULL, a text)");
    cluster.sql_everywhere("CREATE TABLE keyless (tenant_id bigint, a int)");
    let router = router(&["public.differing", "public.keyless"]);
    let expected = [
        "warning: column a of table public.differing is int4 on shard1 and text on shard2",
        "warning: column tenant_id of table keyless can't be its sharding key: it may be null",
    ];
    wait_for("the warnings", || expected.iter().all(|line| shown(&router).contains(line)));
    assert!(router.log().contains("is int4 on shard1 and text on shard2"), "{}", router.log());
    let error = psql(&router.url(), "SELECT * FROM keyless WHERE tenant_id = 1").expect_error();
    assert!(error.contains("0A000") && error.contains("may be null"), "{error}");
    cluster.sql_everywhere("ALTER TABLE keyless ALTER COLUMN tenant_id SET NOT NULL");
    wait_for("the key", || {
        matches!(psql(&router.url(), "SELECT * FROM keyless WHERE tenant_id = 1"), Psql::Done(_))
    });
}

#[test]
fn a_table_made_through_the_router_is_soon_known() {
    let router = router(&["public.fresh"]);
    psql(&router.url(), "CREATE TABLE fresh (note text, tenant_id bigint NOT NULL)").expect();
    wait_for("the new table", || {
        matches!(psql(&router.url(), "INSERT INTO fresh VALUES ('x', 1)"), Psql::Done(_))
    });
}

#[test]
fn without_a_shards_catalog_what_needs_it_is_refused() {
    cluster().sql_everywhere("CREATE TABLE halved (tenant_id bigint NOT NULL, a int)");
    let dead = support::free_port();
    let port = cluster().primary(2).port;
    let options = RouterOptions::sharded(cluster()).with_map(|map| {
        map.replace(&format!("port = {port}"), &format!("port = {dead}"))
            .replace("public.tasks", "public.halved")
    });
    let router = Router::start(cluster(), &options);
    wait_for("one catalog", || shown(&router).contains("|in force"));
    assert!(shown(&router).contains("can't be read") || shown(&router).contains("not read yet"));
    let [one, _] = tenants(&router, "halved");
    let error =
        psql(&router.url(), &format!("INSERT INTO halved VALUES ({one}, 1)")).expect_error();
    assert!(error.contains("must name its columns"), "{error}");
    let sql = format!("INSERT INTO halved (tenant_id, a) VALUES ({one}, 1)");
    psql(&router.url(), &sql).expect();
}

#[test]
fn both_versions_tell_the_golden_catalog() {
    for version in [Version::Newest, Version::Major(15)] {
        for name in ["tracker", "marks"] {
            tells_the_golden_catalog(version, name);
        }
    }
}

/// A schema as a server of this version tells it; `UPDATE_GOLDEN=1` writes it
/// down.
fn tells_the_golden_catalog(version: Version, name: &str) {
    let path = |kind: &str| format!("tests/golden/route/catalogs/{name}.{kind}");
    let schema = std::fs::read_to_string(path("sql")).unwrap();
    let cluster = Cluster::start(ClusterOptions { shards: 2, replicas: 0, version });
    cluster.sql_everywhere(&schema);
    let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["catalog", "--map"])
        .arg(&cluster.view().map)
        .env("PGUSER", &cluster.view().user)
        .env("PGPASSWORD", &cluster.view().password)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path("json"), &told).unwrap();
    }
    let golden = std::fs::read_to_string(path("json")).unwrap();
    assert_eq!(comparable(&told), comparable(&golden), "{name}, {version:?}");
}

/// The text without the hashes of definitions, which versions write differently.
fn comparable(text: &str) -> String {
    text.lines().filter(|line| !line.contains("\"definition\"")).collect::<Vec<_>>().join("\n")
}
