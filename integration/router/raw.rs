//! Replication and whole copies through the router: passed through where there
//! is one server, refused with the way out where there are shards.

use std::process::{Command, Stdio};

use keyway::local::{Installation, Version};

use crate::setup::{cluster, options, unsharded_map};
use crate::support::psql::{Psql, psql};
use crate::support::router::{Router, RouterOptions};
use crate::support::scratch_dir;
use crate::wire::Wire;

/// A router before the first shard's server, with a user who may replicate and
/// logs in there as itself.
fn replicating() -> Router {
    let role = "DO $$ BEGIN CREATE ROLE copier LOGIN REPLICATION PASSWORD 'p-copier'; \
                EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
    cluster().superuser_sql(1, role);
    let config = "[[user]]\nname = \"copier\"\npassword = \"p-copier\"\nbackend_login = \"own\"\n\
                  [[user]]\nname = \"guest\"\npassword = \"p-guest\"";
    let mut options: RouterOptions = options(cluster(), config);
    options.map = Some(unsharded_map(cluster(), 1));
    Router::start(cluster(), &options)
}

fn replication_url(router: &Router, kind: &str) -> String {
    let url = router.url_for("copier", "p-copier", "app");
    format!("{url}&replication={kind}")
}

fn program(name: &str) -> Command {
    Installation::find(Version::Newest, None).unwrap().command(name)
}

/// Runs it to its end; what it says if it fails.
fn finish(mut command: Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn replication_of_one_server_is_passed_through() {
    let router = replicating();
    for kind in ["true", "database"] {
        let system = psql(&replication_url(&router, kind), "IDENTIFY_SYSTEM").expect();
        let own =
            psql(&cluster().primary(1).url, "SELECT system_identifier FROM pg_control_system()");
        assert!(system.starts_with(&own.expect()), "{kind}: {system}");
    }
    let slot = "CREATE_REPLICATION_SLOT through TEMPORARY PHYSICAL";
    psql(&replication_url(&router, "true"), slot).expect();
    let sql = psql(&replication_url(&router, "database"), "SELECT current_user").expect();
    assert_eq!(sql, "copier");
    // Who the shard's role is may not; and a wrong password is one here too.
    let url = router.url_for("guest", "p-guest", "app") + "&replication=true";
    let error = psql(&url, "IDENTIFY_SYSTEM").expect_error();
    assert!(error.contains("permission denied to start WAL sender"), "{error}");
    let wrong = replication_url(&router, "true").replace("p-copier", "wrong");
    assert!(psql(&wrong, "IDENTIFY_SYSTEM").expect_error().contains("password authentication"));
    let odd = psql(&replication_url(&router, "perhaps"), "SELECT 1").expect_error();
    assert!(odd.contains("invalid value for parameter \"replication\""), "{odd}");
}

/// Megabytes, over two connections, with names of databases that no map has.
#[test]
fn base_backup_comes_through() {
    let router = replicating();
    let dir = scratch_dir();
    let mut backup = program("pg_basebackup");
    backup
        .args(["--host=127.0.0.1", "--username=copier", "--no-password", "--checkpoint=fast"])
        .args(["--wal-method=stream", "--no-sync", "--port", &router.port().to_string()])
        .arg(format!("--pgdata={}", dir.join("copy").display()))
        .env("PGPASSWORD", "p-copier");
    finish(backup).unwrap();
    let label = std::fs::read_to_string(dir.join("copy/backup_label")).unwrap();
    assert!(label.contains("BACKUP METHOD: streamed"), "{label}");
    std::fs::remove_dir_all(dir).unwrap();
    // Its places are free again.
    psql(&replication_url(&router, "true"), "IDENTIFY_SYSTEM").expect();
}

#[test]
fn replication_of_shards_is_refused_with_the_way_out() {
    let router = Router::start(cluster(), &RouterOptions::sharded(cluster()));
    for kind in ["true", "database"] {
        let url = format!("{}&replication={kind}", router.url());
        let error = psql(&url, "IDENTIFY_SYSTEM").expect_error();
        assert!(error.contains("has shards and can't be replicated as one"), "{error}");
        assert!(error.contains("connect to its server itself"), "{error}");
    }
}

#[test]
fn dump_of_one_server_comes_through_also_in_parallel() {
    let router = replicating();
    let sql = "CREATE TABLE dumped (id int PRIMARY KEY, word text); \
               INSERT INTO dumped SELECT n, 'word ' || n FROM generate_series(1, 1000) n";
    psql(&cluster().primary(1).url, sql).expect();
    let dump = |args: &[&str]| {
        let mut dump = program("pg_dump");
        dump.args(args).args(["--table=dumped", "--no-owner", "--dbname", &router.url()]);
        finish(dump).unwrap()
    };
    let text = dump(&[]);
    assert!(text.contains("CREATE TABLE public.dumped"), "{text}");
    assert!(text.contains("\n1000\tword 1000\n\\.\n"), "{text}");
    let dir = scratch_dir();
    let file = format!("--file={}", dir.join("dump").display());
    dump(&["--format=directory", "--jobs=2", "--no-sync", &file]);
    assert!(dir.join("dump/toc.dat").exists());
    std::fs::remove_dir_all(dir).unwrap();
    // Clients that come after it find backends as they should be.
    let mut next = Wire::open(router.port(), "t1");
    assert_eq!(next.value("SHOW search_path"), "\"$user\", public");
}

/// A dump through the router would hold one shard's rows and look whole.
#[test]
fn dump_of_shards_is_refused_with_the_way_out() {
    cluster().sql_everywhere("CREATE TABLE IF NOT EXISTS tenants (tenant_id bigint PRIMARY KEY)");
    let router = Router::start(cluster(), &RouterOptions::sharded(cluster()));
    let dump = |name: Option<&str>| {
        let mut dump = program("pg_dump");
        dump.args(["--no-password", "--dbname", &router.url()]);
        dump.envs(name.map(|name| ("PGAPPNAME", name)));
        finish(dump).unwrap_err()
    };
    let error = dump(None);
    assert!(error.contains("has shards and can't be copied as one by pg_dump"), "{error}");
    assert!(error.contains("dump each shard"), "{error}");
    // Under another name it does not get through either.
    let error = dump(Some("other"));
    assert!(error.contains("ERROR"), "{error}");
    match psql(&router.url(), "SELECT 7") {
        Psql::Done(out) => assert_eq!(out, "7"),
        Psql::Failed(error) => panic!("{error}"),
    }
}
