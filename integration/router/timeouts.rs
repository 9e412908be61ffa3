//! Every wait has an end, and says which one it was.

use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::setup::{cluster, options, router, unsharded_map};
use crate::support::router::Router;
use crate::support::wait_for;
use crate::wire::{Wire, connect, read, refusal, startup};

#[test]
fn full_pool_refuses_after_the_checkout_timeout() {
    let router = router(cluster(), "pool.size_max = 1\npool.checkout_timeout = \"300ms\"");
    let mut holder = Wire::open(router.port(), "t1");
    holder.query("BEGIN; SELECT 1").unwrap();
    let mut other = Wire::open(router.port(), "t1");
    // Twice: a second wait has a deadline of its own.
    for _ in 0..2 {
        let refusal = other.query("SELECT 1").unwrap_err();
        assert_eq!((&*refusal.code, &*refusal.severity), ("53300", "ERROR"));
        assert_eq!(refusal.message, "no connection to the shard came free within 300 ms");
        assert!(refusal.hint.contains("pool.size_max"), "{refusal:?}");
    }
    holder.query("COMMIT").unwrap();
    assert_eq!(other.value("SELECT 7"), "7");
}

#[test]
fn long_statement_is_cancelled_with_its_own_message() {
    let router = router(cluster(), "timeouts.statement = \"400ms\"");
    let mut client = Wire::open(router.port(), "t1");
    let refusal = client.query("SELECT pg_sleep(60)").unwrap_err();
    assert_eq!(refusal.code, "57014");
    assert_eq!(refusal.message, "canceling statement due to statement timeout");
    assert_eq!(client.value("SELECT 7"), "7");
    // In a transaction, which fails as any error makes it fail.
    client.query("BEGIN; INSERT INTO notes VALUES (-2, 'timed out')").unwrap();
    assert_eq!(client.query("SELECT pg_sleep(60)").unwrap_err().code, "57014");
    assert_eq!(client.query("SELECT 1").unwrap_err().code, "25P02");
    client.query("ROLLBACK").unwrap();
    assert_eq!(client.value("SELECT count(*) FROM notes WHERE id = -2"), "0");
}

#[test]
fn statement_that_streams_rows_is_cancelled_too() {
    let router = router(cluster(), "timeouts.statement = \"500ms\"");
    let mut client = Wire::open(router.port(), "t1");
    let sql = "SELECT pg_sleep(0.02), n FROM generate_series(1, 3000) n";
    let refusal = client.query(sql).unwrap_err();
    assert_eq!(refusal.message, "canceling statement due to statement timeout");
}

#[test]
fn many_short_statements_are_not_one_long_one() {
    let router = router(cluster(), "timeouts.statement = \"1500ms\"");
    let mut client = Wire::open(router.port(), "t1");
    for _ in 0..10 {
        client.query("SELECT pg_sleep(0.3)").unwrap();
    }
}

#[test]
fn idle_transaction_is_ended_and_rolled_back() {
    let router = router(cluster(), "timeouts.idle_in_transaction = \"400ms\"");
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN; INSERT INTO notes VALUES (-3, 'idle')").unwrap();
    let refusal = client.farewell();
    assert_eq!((&*refusal.code, &*refusal.severity), ("25P03", "FATAL"));
    assert_eq!(refusal.message, "terminating connection due to idle-in-transaction timeout");
    let open = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
                WHERE c.relname = 'notes' AND l.mode = 'RowExclusiveLock' AND granted";
    wait_for("the transaction to be rolled back", || cluster().sql(1, open) == "0");
    assert_eq!(cluster().sql(1, "SELECT count(*) FROM notes WHERE id = -3"), "0");
}

#[test]
fn transaction_in_which_the_client_works_is_not_idle() {
    let router = router(cluster(), "timeouts.idle_in_transaction = \"800ms\"");
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN").unwrap();
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(150));
        client.query("SELECT 1").unwrap();
    }
    client.query("COMMIT").unwrap();
    // A transaction without a shard yet is one all the same.
    client.query("BEGIN").unwrap();
    assert_eq!(client.farewell().code, "25P03");
}

#[test]
fn idle_client_is_ended() {
    let router = router(cluster(), "timeouts.client_idle = \"300ms\"");
    let mut client = Wire::open(router.port(), "t1");
    client.query("SELECT pg_sleep(0.6)").unwrap();
    let refusal = client.farewell();
    assert_eq!((&*refusal.code, &*refusal.severity), ("57P05", "FATAL"));
}

#[test]
fn login_has_a_deadline() {
    let router = router(cluster(), "timeouts.login = \"500ms\"");
    for start in [&b""[..], &startup(&[("user", "app"), ("database", "app")], 0)] {
        let mut socket = connect(router.port()).unwrap();
        std::io::Write::write_all(&mut socket, start).unwrap();
        let refusal = loop {
            let message = read(&mut socket).unwrap();
            if message.tag == b'E' {
                break refusal(&message.body);
            }
        };
        assert_eq!((&*refusal.code, &*refusal.severity), ("57P05", "FATAL"));
        assert_eq!(refusal.message, "login took longer than 500 ms");
        assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    }
}

/// A node that takes connections and never says a word.
#[test]
fn silent_node_is_given_up_on() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let real = cluster().primary(1).port;
    let config = "timeouts.connect = \"300ms\"\npool.reconnect_max = \"200ms\"";
    let options = options(cluster(), config)
        .with_map(|map| map.replace(&format!("port = {real} "), &format!("port = {port} ")));
    let router = Router::start(cluster(), &options);
    let begun = Instant::now();
    let mut client = Wire::open(router.port(), "t1");
    let refusal = client.query("SELECT 1").unwrap_err();
    assert_eq!(refusal.code, "08001");
    assert_eq!(refusal.message, "shard main can't be reached: no answer in time");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(!format!("{refusal:?}").contains("127.0.0.1"), "clients learn no addresses");
    assert!(unsharded_map(cluster(), 1).contains(&real.to_string()));
}
