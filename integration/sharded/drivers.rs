//! Real clients with a tenant's workload. Each program prints `ok name` or
//! `FAIL name: why`, and asks the shards themselves what it compares with.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::future::join_all;
use tokio_postgres::NoTls;

use crate::support::psql::{Psql, psql_with};
use crate::world::world;

#[test]
fn psycopg_and_sqlalchemy() {
    let any = world().own_router("any");
    run(&[".venv/bin/python", "psycopg_checks.py"], &[("KEYWAY_TEST_ANY", any.url())]);
}

#[test]
fn asyncpg() {
    run(&[".venv/bin/python", "asyncpg_checks.py"], &[]);
}

#[test]
fn node_postgres() {
    run(&["node", "node_checks.js"], &[]);
}

/// Runs a program of this folder with the packages of integration/drivers.
fn run(words: &[&str], more: &[(&str, String)]) {
    let world = world();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let drivers = root.join("integration/drivers");
    install(&drivers);
    let program = if words[0].contains('/') { drivers.join(words[0]) } else { words[0].into() };
    let output = Command::new(program)
        .arg(root.join("integration/sharded").join(words[1]))
        .arg(world.router.url())
        .env("PYTHONPATH", &drivers)
        .env("NODE_PATH", drivers.join("node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(more.iter().map(|(name, value)| (name, value)))
        .env("KEYWAY_TEST_SHARD1", &world.cluster.primary(1).url)
        .env("KEYWAY_TEST_SHARD2", &world.cluster.primary(2).url)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report.contains("ok "), "{report}{errors}");
    println!("{report}");
    world.audit();
}

/// Installs the clients' packages, once.
fn install(drivers: &Path) {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let status = Command::new(drivers.join("setup")).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "integration/drivers/setup: {status}");
    });
}

/// What psql's own commands show of a sharded database is what its home shows.
#[test]
fn psql_describes_what_home_has() {
    let world = world();
    let (router, home) = (world.router.url(), world.cluster.primary(1).url.clone());
    for command in [
        r"\d",
        r"\dt",
        r"\d tasks",
        r"\d+ comments",
        r"\d tenants",
        r"\di",
        r"\df",
        r"\df touch",
        r"\dT",
        r"\dT mood",
        r"\l",
        r"\dn",
        r"\dn+",
        r"\du",
        r"\dv",
        r"\ds",
        r"\dp",
        r"\dx",
        r"\dd",
        r"\dD",
        r"\db",
        r"\dew",
        r"\dRp",
        r"\sf touch",
        r"\conninfo",
        r"\dt audit.*",
        r"\d nowhere",
        r"\encoding",
        r"\dconfig work_mem",
        r"\drds",
        r"\dy",
        r"\dL",
        r"\dO",
        r"\dC",
        r"\do &&",
        r"\dF",
        r"\da max",
    ] {
        let seen = |url: &str| match psql_with(url, &["--command", command]) {
            // The number of a connection's own port is no difference.
            Psql::Done(text) if command == r"\conninfo" => text.lines().count().to_string(),
            Psql::Done(text) | Psql::Failed(text) => text,
        };
        assert_eq!(seen(&router), seen(&home), "{command}");
    }
}

#[test]
fn psql_scripts_work_by_tenant() {
    let world = world();
    let tenant = world.tenants_on(2)[10];
    let t = format!("--set=t={tenant}");
    let script = |lines: &str| {
        let file = crate::support::scratch_dir().join("script.sql");
        std::fs::write(&file, lines).unwrap();
        let both = [world.router.url(), world.cluster.primary(2).url.clone()]
            .map(|url| psql_with(&url, &[&t, "-f", file.to_str().unwrap()]).expect());
        std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
        assert_eq!(both[0], both[1], "{lines}");
        assert!(!both[0].is_empty(), "{lines}");
    };
    script(
        "\\set FETCH_COUNT 5\nSELECT task_id, title FROM tasks WHERE tenant_id = :t ORDER BY 1;",
    );
    // psql knows \bind since version 16.
    if world.cluster.view().postgres >= 16 {
        script("SELECT name FROM tenants WHERE tenant_id = $1 \\bind :t \\g");
    }
    script("SELECT * FROM tasks WHERE tenant_id = :t \\gdesc");
    script("SELECT format('SELECT count(*) FROM users WHERE tenant_id = %s', :t) \\gexec");
    script(
        "SELECT project_id AS p FROM projects WHERE tenant_id = :t ORDER BY 1 LIMIT 1 \\gset\n\
            SELECT count(*) FROM tasks WHERE tenant_id = :t AND project_id = :p;",
    );
    // psql puts no variables into \copy.
    script(&format!(
        "\\copy (SELECT full_name FROM users WHERE tenant_id = {tenant} ORDER BY 1) TO STDOUT"
    ));
    script(
        "BEGIN;\nINSERT INTO notes (tenant_id, id) VALUES (:t, 77) RETURNING id;\nSAVEPOINT s;\n\
            DELETE FROM notes WHERE tenant_id = :t;\nROLLBACK TO s;\n\
            SELECT count(*) FROM notes WHERE tenant_id = :t AND id = 77;\nROLLBACK;",
    );
    script("EXPLAIN (COSTS OFF) SELECT * FROM tasks WHERE tenant_id = :t AND task_id = 1;");
    script("SELECT 1 AS a \\; SELECT name FROM tenants WHERE tenant_id = :t \\; SELECT 2;");
}

/// tokio-postgres through a deadpool that checks or cleans what it hands out.
#[test]
fn tokio_postgres_and_deadpool() {
    let world = world();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for recycling_method in
        [RecyclingMethod::Fast, RecyclingMethod::Verified, RecyclingMethod::Clean]
    {
        let config = ManagerConfig { recycling_method };
        let url = world.router.url().parse().unwrap();
        let manager = Manager::from_config(url, NoTls, config);
        let pool = Pool::builder(manager).max_size(3).build().unwrap();
        runtime.block_on(async {
            let work =
                (0..24).map(|n| one_tenant(&pool, world.tenants_on(1 + n % 2)[usize::from(n)]));
            for (tenant, port) in join_all(work).await {
                assert_eq!(port, i32::from(world.port_of(tenant)), "tenant {tenant}");
            }
        });
    }
    world.audit();
}

async fn one_tenant(pool: &Pool, tenant: i64) -> (i64, i32) {
    let mut client = pool.get().await.unwrap();
    let select = "SELECT current_setting('port')::int4, name FROM tenants WHERE tenant_id = $1";
    let statement = client.prepare_cached(select).await.unwrap();
    let port: i32 = client.query_one(&statement, &[&tenant]).await.unwrap().get(0);
    let transaction = client.build_transaction().start().await.unwrap();
    let id = 10_000 + tenant;
    let insert = transaction
        .prepare_cached("INSERT INTO notes (tenant_id, id, body) VALUES ($1, $2, $3)")
        .await
        .unwrap();
    // Pipelined: three statements before the first answer.
    let bodies = ["a", "b", "c"];
    let sent = (0_i64..).zip(&bodies).map(|(n, body)| {
        let (transaction, insert) = (&transaction, &insert);
        async move { transaction.execute(insert, &[&tenant, &(id + n), body]).await }
    });
    for done in join_all(sent).await {
        assert_eq!(done.unwrap(), 1);
    }
    let count = "SELECT count(*) FROM notes WHERE tenant_id = $1 AND id BETWEEN $2 AND $2 + 2";
    assert_eq!(transaction.query_one(count, &[&tenant, &id]).await.unwrap().get::<_, i64>(0), 3);
    transaction.rollback().await.unwrap();
    assert_eq!(client.query_one(count, &[&tenant, &id]).await.unwrap().get::<_, i64>(0), 0);
    (tenant, port)
}
