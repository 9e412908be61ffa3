//! When a client gives its backend back: by router, by database and by user.

use crate::setup::{cluster, options, router, unsharded_map};
use crate::support::psql::{psql, psql_with};
use crate::support::router::{Router, RouterOptions};
use crate::wire::Wire;

/// Two databases of one server: `app` with pool mode statement, `calm` in which
/// clients keep their backends; and a user who has it otherwise.
fn three_modes() -> Router {
    let calm = unsharded_map(cluster(), 1)
        .replacen("database = \"app\"", "database = \"calm\"", 1)
        .replacen("name = \"main\"", "name = \"main\"\ndbname = \"app\"", 1);
    let config = "[[database]]\nname = \"app\"\npool_mode = \"statement\"\n\
                  [[database]]\nname = \"calm\"\npool_mode = \"session\"\n\
                  [[user]]\nname = \"steady\"\ntrust = true\npool_mode = \"transaction\"\n";
    let options = RouterOptions { more_maps: vec![calm], ..options(cluster(), config) };
    Router::start(cluster(), &options)
}

#[test]
fn statement_mode_refuses_what_needs_a_backend_for_longer() {
    let router = three_modes();
    let mut client = Wire::open(router.port(), "t1");
    for refused in [
        "BEGIN",
        "START TRANSACTION READ ONLY",
        "BEGIN; INSERT INTO notes VALUES (8100, 'never'); COMMIT",
        "INSERT INTO notes VALUES (8100, 'never'); BEGIN",
        "CREATE TEMP TABLE mine (i int)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT pg_advisory_lock(1)",
        "SET search_path = pg_temp, public",
        "LISTEN a; SELECT 1",
    ] {
        let refusal = client.query(refused).unwrap_err();
        assert_eq!((&*refusal.code, &*refusal.severity), ("0A000", "ERROR"), "{refused}");
        assert!(refusal.message.contains("pool mode statement"), "{refused}: {}", refusal.message);
        // The session goes on, and nothing is open.
        assert_eq!(client.value("SELECT count(*) FROM notes WHERE id = 8100"), "0");
    }
    // By the extended protocol too.
    client.send(b'P', b"b\0BEGIN\0\0\0");
    client.send(b'S', b"");
    assert_eq!(client.finish().unwrap_err().code, "0A000");
    // What is not readable may be anything.
    client.query("SET client_encoding = 'LATIN1'").unwrap();
    assert_eq!(client.query("SELECT '\u{e9}'").unwrap_err().code, "0A000");
    client.query("RESET client_encoding").unwrap();
    // What follows the client from backend to backend is as ever.
    client.query("SET application_name = 'by statement'").unwrap();
    client.query("PREPARE two AS SELECT 2").unwrap();
    for _ in 0..3 {
        assert_eq!(client.value("SHOW application_name"), "by statement");
        assert_eq!(client.value("EXECUTE two"), "2");
    }
    // A string of statements is one transaction.
    let both = "INSERT INTO notes VALUES (8101, 'a'); SELECT 1 / 0";
    assert_eq!(client.query(both).unwrap_err().code, "22012");
    assert_eq!(client.value("SELECT count(*) FROM notes WHERE id = 8101"), "0");
    let shown = psql(&router.console_url(), "SHOW CLIENTS").expect();
    let id = client.pid.to_string();
    let row = shown.lines().find(|row| row.split('|').next() == Some(&*id)).unwrap();
    assert_eq!(row.split('|').nth(8), Some(""), "nothing is held: {row}");
}

#[test]
fn users_mode_comes_before_the_databases_and_that_before_the_routers() {
    let router = three_modes();
    let open = |user: &str, database: &str| {
        Wire::try_open(router.port(), &[("user", user), ("database", database)], 0).unwrap()
    };
    let mut steady = open("steady", "app");
    steady.query("BEGIN").unwrap();
    steady.query("INSERT INTO notes VALUES (8102, 'rolled back')").unwrap();
    steady.query("ROLLBACK").unwrap();
    let mut calm = open("t1", "calm");
    let first = calm.value("SELECT pg_backend_pid()");
    calm.query("CREATE TEMP TABLE mine AS SELECT 5 AS i").unwrap();
    let mut other = open("t1", "calm");
    assert_ne!(other.value("SELECT pg_backend_pid()"), first);
    assert_eq!(calm.value("SELECT i FROM mine"), "5");
    let mut by_statement = open("t1", "app");
    assert_eq!(by_statement.value("SELECT 1"), "1");
    let pools = psql(&router.console_url(), "SHOW POOLS").expect();
    let mode = |database: &str, user: &str| {
        let begin = format!("{database}|{user}|");
        let row =
            pools.lines().find(|row| row.starts_with(&begin)).unwrap_or_else(|| panic!("{pools}"));
        row.rsplit('|').next().unwrap().to_owned()
    };
    assert_eq!(mode("app", "t1"), "statement");
    assert_eq!(mode("app", "steady"), "transaction");
    assert_eq!(mode("calm", "t1"), "session");
    // A reload counts for those who come after it.
    let config = std::fs::read_to_string(router.config_file()).unwrap();
    let changed = config.replacen("pool_mode = \"statement\"", "pool_mode = \"transaction\"", 1);
    std::fs::write(router.config_file(), changed).unwrap();
    psql(&router.console_url(), "RELOAD").expect();
    open("t1", "app").query("BEGIN; SELECT 1").unwrap();
    assert_eq!(by_statement.query("BEGIN").unwrap_err().code, "0A000");
}

#[test]
fn programs_see_why_a_transaction_is_refused() {
    let router = router(cluster(), "pool.mode = \"statement\"");
    let url = router.url_for("t1", "", "app");
    // psql in its own transactions.
    let said = psql_with(&url, &["-v", "AUTOCOMMIT=off", "-c", "SELECT 1"]).expect_error();
    assert!(said.contains("transaction blocks are not allowed in pool mode statement"), "{said}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        let driven = tokio::spawn(connection);
        let row = client.query_one("SELECT $1::int + 1", &[&41]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 42);
        let Err(refused) = client.transaction().await else { panic!("it began") };
        assert_eq!(refused.code().unwrap().code(), "0A000");
        let statement = client.prepare("SELECT $1::text").await.unwrap();
        for word in ["a", "b"] {
            let row = client.query_one(&statement, &[&word]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), word);
        }
        drop(client);
        driven.await.unwrap().unwrap();
    });
}

#[test]
fn a_mode_for_a_database_that_nobody_serves_is_refused() {
    let router = router(cluster(), "");
    let file = router.config_file();
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{config}[[database]]\nname = \"ap\"\n")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["serve", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("[[database]] ap: no map serves it"), "{said}");
}
