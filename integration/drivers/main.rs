//! Real clients: what they see through the router is what they see direct.
//!
//! One server, and one router that serves its database unsharded, for all tests
//! of this crate; or those of `KEYWAY_TEST_DIRECT_URL` and `KEYWAY_TEST_ROUTER_URL`.
//! `integration/drivers/run` runs the clients that are not Rust; it compares.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: a panic fails it, and it reports"
)]

#[path = "../support/mod.rs"]
mod support;

mod frameworks;
mod rust_clients;

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use keyway::local::{Installation, Version};
use support::cluster::{Cluster, ClusterOptions};
use support::router::{Replicas, Router, RouterOptions};

#[test]
fn bytes_on_the_wire_are_answered_the_same() {
    run("rawwire");
}

#[test]
fn psycopg_sees_the_same() {
    run("psycopg");
}

#[test]
fn asyncpg_sees_the_same() {
    run("asyncpg");
}

#[test]
fn node_postgres_sees_the_same() {
    run("node");
}

#[test]
fn psql_and_pg_dump_see_the_same() {
    run("psql");
}

#[test]
fn pgbench_sees_the_same() {
    run("pgbench");
}

#[test]
fn tokio_postgres_and_deadpool_see_the_same() {
    let urls = urls();
    let direct = rust_clients::run_all(&urls.direct);
    let router = rust_clients::run_all(&urls.router);
    let mut wrong = Vec::new();
    let meant = meant_differences();
    for (ours, theirs) in direct.iter().zip(&router) {
        match (&ours.seen, &theirs.seen) {
            (Err(error), _) => wrong.push(format!("FAIL {}: {error} [direct]", ours.name)),
            (Ok(_), Err(error)) => wrong.push(format!("FAIL {}: {error} [router]", ours.name)),
            (Ok(a), Ok(b)) if a != b && meant.iter().any(|name| name == ours.name) => {
                println!("ok {} (differs)", ours.name);
            }
            (Ok(a), Ok(b)) if a != b => {
                wrong.push(format!("FAIL {}\n  direct: {a:?}\n  router: {b:?}", ours.name));
            }
            (Ok(_), Ok(_)) => println!("ok {}", ours.name),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Checks whose difference stands in differences.txt with its reason.
fn meant_differences() -> Vec<String> {
    include_str!("differences.txt")
        .lines()
        .filter_map(|line| line.strip_prefix("tokio ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Where the database is, both ways.
struct Urls {
    direct: String,
    router: String,
}

fn urls() -> &'static Urls {
    static URLS: OnceLock<Urls> = OnceLock::new();
    URLS.get_or_init(|| {
        let given = (env::var("KEYWAY_TEST_DIRECT_URL"), env::var("KEYWAY_TEST_ROUTER_URL"));
        if let (Ok(direct), Ok(router)) = given {
            return Urls { direct, router };
        }
        let (cluster, router) = servers();
        Urls { direct: format!("{}?sslmode=disable", cluster.primary(1).url), router: router.url() }
    })
}

fn servers() -> &'static (Cluster, Router) {
    static SERVERS: OnceLock<(Cluster, Router)> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let options = ClusterOptions { shards: 1, replicas: 0, ..Default::default() };
        let cluster = Cluster::start(options);
        for sql in ["CREATE ROLE d_role_one", "CREATE ROLE d_role_two"] {
            cluster.superuser_sql(1, sql);
        }
        cluster.superuser_sql(1, "GRANT d_role_one, d_role_two TO app");
        let options = RouterOptions::unsharded(&cluster, 1, Replicas::Ignore);
        let router = Router::start(&cluster, &options);
        (cluster, router)
    })
}

/// Runs one client both ways; its report is the failure's text.
fn run(client: &str) {
    let urls = urls();
    run_with(client, &urls.direct, &urls.router, &[]);
}

/// The same with two databases and more of an environment.
fn run_with(client: &str, direct: &str, router: &str, more: &[(&str, &str)]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/drivers");
    install(&here);
    // The clients of the server's own version: an older pg_dump refuses it.
    let bin = Installation::find(Version::Newest, None).unwrap().bin().to_path_buf();
    let path = env::join_paths(
        std::iter::once(bin).chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    );
    let output = Command::new(here.join("run"))
        .arg(client)
        .env("PATH", path.unwrap())
        .env("KEYWAY_TEST_DIRECT_URL", direct)
        .env("KEYWAY_TEST_ROUTER_URL", router)
        .envs(more.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}{errors}");
    println!("{report}");
}

/// Installs the clients' packages, once.
fn install(here: &Path) {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let status = Command::new(here.join("setup")).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "integration/drivers/setup: {status}");
    });
}
