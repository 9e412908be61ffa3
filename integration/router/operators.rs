//! What operators hold up and let go on, in pgbouncer's words, with clients at
//! work and servers that are restarted meanwhile.

use std::process::{Child, Stdio};
use std::time::Duration;

use keyway::local::{NodeName, Stop};

use crate::setup::{cluster, one_server, router};
use crate::support::cluster::Cluster;
use crate::support::psql::{command, psql};
use crate::support::router::Router;
use crate::support::wait_for;
use crate::wire::Wire;

const SERVER: NodeName = NodeName { shard: 1, replica: 0 };

#[test]
fn pgbench_sees_no_error_across_pause_restart_resume() {
    let cluster = one_server();
    let router = router(&cluster, "pool.size_max = 4");
    for protocol in ["simple", "prepared"] {
        let mut bench = pgbench(&router, protocol);
        wait_for("transactions", || bench_rows(&cluster) > 50);
        for _ in 0..2 {
            console(&router, "PAUSE app");
            assert_eq!(pool_connections(&cluster), 0, "all are closed when PAUSE answers");
            cluster.servers().stop_node(SERVER, Stop::Fast).unwrap();
            cluster.servers().start_node(SERVER).unwrap();
            let before = bench_rows(&cluster);
            assert_eq!(shown(&router, "STATE")[0], ["app", "no", "yes", "no"]);
            console(&router, "RESUME app");
            wait_for("transactions to go on", || bench_rows(&cluster) > before + 50);
        }
        let pid = bench.id().to_string();
        std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let output = {
            drop(bench.stdin.take());
            bench.wait_with_output().unwrap()
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.to_lowercase().contains("error"), "{protocol}: {said}");
        cluster.sql(1, "TRUNCATE notes");
    }
}

#[test]
fn pause_waits_for_transactions_and_holds_up_new_units() {
    let router = router(cluster(), "");
    let mut busy = Wire::open(router.port(), "t1");
    busy.query("BEGIN; SELECT 1").unwrap();
    let mut idle = Wire::open(router.port(), "t1");
    idle.query("SELECT 1").unwrap();
    let mut operator = console_client(&router);
    operator.send_query("PAUSE app");
    wait_for("the pause", || shown(&router, "DATABASES")[0][9] == "yes");
    // Who is in a transaction goes on, who begins one waits, and so does who
    // comes now; other operators are answered.
    assert_eq!(busy.value("SELECT 2"), "2");
    idle.send_query("SELECT 3");
    let mut late = Wire::open(router.port(), "t2");
    late.send_query("SELECT 4");
    wait_for("both to wait", || {
        let waits = |row: &&Vec<String>| row[1].starts_with('t') && row[3] == "waiting";
        shown(&router, "CLIENTS").iter().filter(waits).count() == 2
    });
    busy.query("COMMIT").unwrap();
    operator.finish().unwrap();
    assert!(shown(&router, "SERVERS").is_empty());
    console(&router, "RESUME");
    assert_eq!(idle.finish().unwrap()[0][0].as_deref(), Some("3"));
    assert_eq!(late.finish().unwrap()[0][0].as_deref(), Some("4"));
}

#[test]
fn pause_that_takes_too_long_is_an_error_and_a_cancel_ends_the_wait() {
    // Long enough to be seen waiting.
    let router = router(cluster(), "timeouts.paused = \"3s\"");
    let mut client = Wire::open(router.port(), "t1");
    let mut other = Wire::open(router.port(), "t1");
    other.query("BEGIN; SELECT 1").unwrap();
    let mut operator = console_client(&router);
    operator.send_query("PAUSE");
    wait_for("the pause", || shown(&router, "DATABASES")[0][9] == "yes");
    let refusal = client.query("SELECT 1").unwrap_err();
    assert_eq!(refusal.code, "57P03");
    assert_eq!(refusal.message, "the database has been paused for 3000 ms");
    client.send_query("SELECT 1");
    wait_for("the client to wait", || {
        shown(&router, "CLIENTS").iter().any(|row| row[1] == "t1" && row[3] == "waiting")
    });
    client.cancel(router.port());
    assert_eq!(client.finish().unwrap_err().code, "57014");
    operator.cancel(router.port());
    assert_eq!(operator.finish().unwrap_err().code, "57014");
    // What the command has begun stays.
    assert_eq!(shown(&router, "STATE")[0][2], "yes");
    console(&router, "RESUME app");
    client.query("SELECT 1").unwrap();
    other.query("COMMIT").unwrap();
    let error = psql(&router.console_url(), "PAUSE nodb").expect_error();
    assert!(error.contains("3D000: database \"nodb\" does not exist"), "{error}");
}

#[test]
fn suspended_clients_are_not_read_within_transactions_either() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN; SELECT 1").unwrap();
    let mut running = Wire::open(router.port(), "t1");
    running.send_query("SELECT pg_sleep(4)");
    wait_for("the statement to run", || {
        shown(&router, "CLIENTS").iter().any(|row| row[1] == "t1" && row[3] == "active")
    });
    console(&router, "SUSPEND");
    // It answers when nothing runs any more.
    assert!(shown(&router, "CLIENTS").iter().all(|row| row[1] != "t1" || row[3] != "active"));
    running.finish().unwrap();
    client.send_query("INSERT INTO notes VALUES (-80, 'late')");
    let statements = || {
        let all = shown(&router, "STATS");
        all.iter().find(|row| row[0] == "total_query_count").unwrap()[1].clone()
    };
    let before = statements();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(statements(), before);
    console(&router, "RESUME");
    client.finish().unwrap();
    client.query("ROLLBACK").unwrap();
}

#[test]
fn reconnect_closes_connections_as_they_come_free() {
    let router = router(cluster(), "");
    let mut idle = Wire::open(router.port(), "t1");
    let old = idle.value("SELECT pg_backend_pid()");
    let mut busy = Wire::open(router.port(), "t2");
    busy.query("BEGIN").unwrap();
    let held = busy.value("SELECT pg_backend_pid()");
    console(&router, "RECONNECT app");
    assert_ne!(idle.value("SELECT pg_backend_pid()"), old);
    let row = |pid: &str| shown(&router, "SERVERS").into_iter().find(|row| row[4] == pid);
    assert_eq!(row(&held).unwrap()[12], "yes");
    let mut operator = console_client(&router);
    operator.send_query("WAIT_CLOSE app");
    assert_eq!(busy.value("SELECT pg_backend_pid()"), held, "it is not taken away");
    busy.query("COMMIT").unwrap();
    operator.finish().unwrap();
    assert!(row(&held).is_none());
    assert_ne!(busy.value("SELECT pg_backend_pid()"), held);
}

/// Who replicates has a backend that no pool knows: it is shown, waited for and
/// held up all the same.
#[test]
fn clients_that_replicate_are_shown_waited_for_and_held_up() {
    let cluster = one_server();
    cluster.superuser_sql(1, "ALTER ROLE app REPLICATION");
    let router = router(&cluster, "");
    let params = [("user", "t1"), ("database", "app"), ("replication", "database")];
    let open = || Wire::try_open(router.port(), &params, 0);
    let mut copier = open().unwrap();
    let pid = copier.value("SELECT pg_backend_pid()");
    let row = |pid: &str| shown(&router, "SERVERS").into_iter().find(|row| row[4] == pid);
    let seen = row(&pid).expect("its backend");
    assert_eq!((&*seen[1], &*seen[3], &seen[5]), ("t1", "replication", &copier.pid.to_string()));
    assert_eq!(seen[12], "no");

    // A suspended one is not read; it has no statement to wait for.
    console(&router, "SUSPEND app");
    copier.send_query("SELECT 7");
    console(&router, "RESUME app");
    assert_eq!(copier.finish().unwrap()[0][0].as_deref(), Some("7"));

    console(&router, "RECONNECT app");
    assert_eq!(row(&pid).expect("it is not taken away")[12], "yes");
    let mut waiting = console_client(&router);
    waiting.send_query("WAIT_CLOSE app");
    let mut operator = console_client(&router);
    operator.send_query("PAUSE app");
    wait_for("the pause", || shown(&router, "DATABASES")[0][9] == "yes");
    let refusal = open().unwrap_err().refusal();
    assert_eq!((refusal.code.as_str(), &*refusal.message), ("57P03", "database \"app\" is paused"));
    assert_eq!(copier.value("SELECT 8"), "8");
    assert!(!operator.answers_within(Duration::from_millis(300)), "the copier is still there");
    console(&router, &format!("KILL {}", copier.pid));
    operator.finish().unwrap();
    waiting.finish().unwrap();
    let left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    assert_eq!(cluster.superuser_sql(1, left).trim(), "0", "gone when PAUSE answers");
    console(&router, "RESUME app");
    assert_eq!(open().unwrap().value("SELECT 9"), "9");
}

#[test]
fn killed_database_has_no_clients_until_it_is_resumed() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN; INSERT INTO notes VALUES (-81, 'killed')").unwrap();
    console(&router, "KILL app");
    assert_eq!(client.farewell().code, "57P01");
    let mut next = Wire::open(router.port(), "t1");
    next.send_query("SELECT count(*) FROM notes WHERE id = -81");
    wait_for("the next to wait", || {
        shown(&router, "CLIENTS").iter().any(|row| row[1] == "t1" && row[3] == "waiting")
    });
    console(&router, "RESUME app");
    assert_eq!(next.finish().unwrap()[0][0].as_deref(), Some("0"));
}

#[test]
fn disabled_database_lets_nobody_new_in() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    console(&router, "DISABLE app");
    let params = [("user", "t1"), ("database", "app")];
    let refusal = Wire::try_open(router.port(), &params, 0).unwrap_err().refusal();
    assert_eq!(refusal.code, "55000");
    assert_eq!(refusal.message, "database \"app\" is not currently accepting connections");
    client.query("SELECT 1").unwrap();
    console(&router, "ENABLE app");
    Wire::open(router.port(), "t1").query("SELECT 1").unwrap();
}

#[test]
fn client_and_backend_are_found_from_each_other() {
    let router = router(cluster(), "");
    let params = [("user", "t1"), ("database", "app"), ("application_name", "job 7")];
    let mut client = Wire::try_open(router.port(), &params, 0).unwrap();
    client.query("BEGIN").unwrap();
    let pid = client.value("SELECT pg_backend_pid()");
    let clients = shown(&router, "CLIENTS");
    let mine = clients.iter().find(|row| row[10] == pid).expect("by its backend's process");
    assert_eq!((&*mine[1], &*mine[7]), ("t1", "job 7"));
    let servers = shown(&router, "SERVERS");
    let his = servers.iter().find(|row| row[4] == pid).unwrap();
    assert_eq!([&his[5], &his[10], &his[11]], [&mine[0], &mine[4], &mine[7]]);
}

fn pgbench(router: &Router, protocol: &str) -> Child {
    let script = crate::support::scratch_dir().join(format!("insert-{protocol}.sql"));
    std::fs::create_dir_all(script.parent().unwrap()).unwrap();
    let sql = "\\set id random(1, 1000000000)\nBEGIN;\nINSERT INTO notes VALUES (:id, 'x') ON \
               CONFLICT DO NOTHING;\nSELECT count(*) FROM notes WHERE id = :id;\nCOMMIT;\n\
               SELECT :id;\n";
    std::fs::write(&script, sql).unwrap();
    let pgbench = std::path::Path::new(command().get_program()).with_file_name("pgbench");
    std::process::Command::new(pgbench)
        // A thread for each client: preparing blocks the thread.
        .args(["-n", "-c", "8", "-j", "8", "-T", "300", "-M", protocol, "-f"])
        .arg(&script)
        .arg(router.url_for("t1", "", "app"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pgbench starts")
}

fn bench_rows(cluster: &Cluster) -> u64 {
    cluster.superuser_sql(1, "SELECT count(*) FROM notes").parse().unwrap()
}

/// Connections of the router to the server that are no monitor's.
fn pool_connections(cluster: &Cluster) -> u64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND application_name \
               NOT LIKE 'keyway%'";
    cluster.superuser_sql(1, sql).parse().unwrap()
}

fn console_client(router: &Router) -> Wire {
    Wire::try_open(router.port(), &[("user", "a1"), ("database", "keyway")], 0).unwrap()
}

#[track_caller]
fn console(router: &Router, sql: &str) {
    psql(&router.console_url(), sql).expect();
}

fn shown(router: &Router, topic: &str) -> Vec<Vec<String>> {
    let text = psql(&router.console_url(), &format!("SHOW {topic}")).expect();
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}
