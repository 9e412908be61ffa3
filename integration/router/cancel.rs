//! Cancel requests reach what their client runs, and nothing else.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::proxy::{Slow, slow};
use crate::setup::{cluster, options, router};
use crate::support::psql::psql;
use crate::support::router::Router;
use crate::support::wait_for;
use crate::wire::{Wire, cancel};

#[test]
fn running_statement_is_cancelled_and_the_session_goes_on() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    client.send_query("SELECT pg_sleep(60) /* cancel-running */");
    wait_until_running("cancel-running");
    client.cancel(router.port());
    let refusal = client.finish().unwrap_err();
    assert_eq!((&*refusal.code, &*refusal.severity), ("57014", "ERROR"));
    assert_eq!(client.value("SELECT 7"), "7");
}

#[test]
fn statement_of_a_batch_without_its_sync_is_cancelled() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    client.send(b'P', b"\0SELECT pg_sleep(60) /* cancel-flushed */\0\0\0");
    client.send(b'B', &[0, 0, 0, 0, 0, 0, 0, 0]);
    client.send(b'E', &[0, 0, 0, 0, 0]);
    client.send(b'H', b"");
    wait_until_running("cancel-flushed");
    client.cancel(router.port());
    client.send(b'S', b"");
    assert_eq!(client.finish().unwrap_err().code, "57014");
    assert_eq!(client.value("SELECT 7"), "7");
}

#[test]
fn client_in_the_queue_is_taken_out_of_it() {
    let router = router(cluster(), "pool.size_max = 1\npool.checkout_timeout = \"60s\"");
    let mut holder = Wire::open(router.port(), "t1");
    holder.query("BEGIN; SELECT 1").unwrap();
    let mut queued = Wire::open(router.port(), "t1");
    queued.send_query("INSERT INTO notes VALUES (-1, 'never')");
    wait_for("the second client to wait", || waiting(&router) == 1);
    queued.cancel(router.port());
    let refusal = queued.finish().unwrap_err();
    assert_eq!(refusal.code, "57014");
    assert_eq!(refusal.message, "canceling statement due to user request");
    assert_eq!(waiting(&router), 0);
    holder.query("COMMIT").unwrap();
    assert_eq!(queued.value("SELECT count(*) FROM notes WHERE id = -1"), "0");
}

#[test]
fn wrong_key_and_wrong_client_cancel_nothing() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    client.send_query("SELECT pg_sleep(1), 7 /* cancel-wrong */");
    wait_until_running("cancel-wrong");
    let mut key = client.key.clone();
    key[0] ^= 1;
    cancel(router.port(), client.pid, &key);
    cancel(router.port(), client.pid + 1, &client.key);
    cancel(router.port(), client.pid, &client.key[..3]);
    cancel(router.port(), client.pid, &[0; 256]);
    cancel(router.port(), client.pid, b"");
    assert_eq!(client.finish().unwrap()[0][1].as_deref(), Some("7"));
}

#[test]
fn keys_have_the_length_of_the_protocol_spoken() {
    let router = router(cluster(), "");
    let params = [("user", "t1"), ("database", "app")];
    let old = Wire::try_open(router.port(), &params, 0).unwrap();
    assert_eq!((old.key.len(), old.negotiated), (4, None));
    let mut new = Wire::try_open(router.port(), &params, 2).unwrap();
    assert_eq!((new.key.len(), new.negotiated), (32, None));
    let newer = Wire::try_open(router.port(), &params, 9_999).unwrap();
    assert_eq!((newer.key.len(), newer.negotiated), (32, Some(2)));
    new.send_query("SELECT pg_sleep(60) /* cancel-long-key */");
    wait_until_running("cancel-long-key");
    cancel(router.port(), new.pid, &new.key[..4]);
    new.cancel(router.port());
    assert_eq!(new.finish().unwrap_err().code, "57014");
}

/// Many clients on few backends. Some have their own statements cancelled all
/// the time; the others' never are.
#[test]
fn cancels_hit_nobody_else() {
    let router = router(cluster(), "pool.size_max = 3\npool.checkout_timeout = \"60s\"");
    let port = router.port();
    let (stop, cancelled) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // Its own id: a cancel may come at any moment of its life.
                let mut client = Wire::open(port, "t1");
                let (pid, key) = (client.pid, client.key.clone());
                let canceller = scope.spawn(move || {
                    for _ in 0..60 {
                        cancel(port, pid, &key);
                        std::thread::sleep(Duration::from_millis(2));
                    }
                });
                while !canceller.is_finished() {
                    match client.query("SELECT pg_sleep(0.003)") {
                        Ok(_) => {}
                        Err(refusal) => {
                            assert_eq!(refusal.code, "57014");
                            cancelled.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                canceller.join().unwrap();
                stop.store(true, Ordering::Relaxed);
            });
        }
        // Leaves at once after a cancel: the backend goes on to the others.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut client = Wire::open(port, "t1");
                client.send_query("SELECT pg_sleep(0.01)");
                let (pid, key) = (client.pid, client.key.clone());
                let canceller = scope.spawn(move || cancel(port, pid, &key));
                std::thread::sleep(Duration::from_millis(1));
                drop(client);
                canceller.join().unwrap();
            }
        });
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = Wire::open(port, "t1");
                while !stop.load(Ordering::Relaxed) {
                    client.query("SELECT pg_sleep(0.002)").expect("nobody cancels this one");
                }
            });
        }
    });
    assert!(cancelled.load(Ordering::Relaxed) > 0, "no cancel ever came in time");
}

/// The cancel request is on its way when the statement ends by itself: the
/// backend is kept back until it has arrived, whether its client lives on or
/// leaves.
#[test]
fn late_cancel_does_not_hit_the_backends_next_client() {
    let router = with_slow(Slow::Cancels, "pool.size_max = 1\npool.checkout_timeout = \"60s\"");
    for leaves in [true, false] {
        let mut first = Wire::open(router.port(), "t1");
        let mut second = Wire::open(router.port(), "t1");
        second.query("SELECT 1").unwrap();
        first.send_query("SELECT pg_sleep(0.3) /* late-cancel */");
        wait_until_running("late-cancel");
        let (pid, key, port) = (first.pid, first.key.clone(), router.port());
        let cancelling = std::thread::spawn(move || cancel(port, pid, &key));
        if leaves {
            // The rest of it is read by nobody.
            std::thread::sleep(Duration::from_millis(350));
            drop(first);
        } else {
            first.finish().expect("the cancel request comes too late");
        }
        second.query("SELECT pg_sleep(1)").expect("nobody cancels this one");
        cancelling.join().unwrap();
    }
}

/// The same for the router's own cancel request, and the client's own next
/// statement.
#[test]
fn late_cancel_does_not_hit_the_clients_next_statement() {
    let router = with_slow(Slow::Cancels, "timeouts.statement = \"300ms\"");
    let mut client = Wire::open(router.port(), "t1");
    // In a transaction, so that the backend is the same.
    client.query("BEGIN; SELECT 1").unwrap();
    client.query("SELECT pg_sleep(0.4)").expect("the cancel request comes too late");
    for _ in 0..20 {
        client.query("SELECT pg_sleep(0.05)").expect("none of these is too long");
    }
}

/// The server ignores a request that comes before it has begun the statement.
/// A client's own is lost as it is on Postgres; the router sends its own again.
#[test]
fn early_cancels_of_the_routers_own_are_sent_again() {
    let router = with_slow(Slow::HeldBack, "pool.size_max = 1\ntimeouts.statement = \"200ms\"");
    let mut client = Wire::open(router.port(), "t1");
    client.query("SELECT 1").unwrap();
    let refusal = client.query("SELECT pg_sleep(600) /* held-back */").unwrap_err();
    assert_eq!(refusal.message, "canceling statement due to statement timeout");
    client.send_query("SELECT pg_sleep(600) /* held-back, left alone */");
    std::thread::sleep(Duration::from_millis(50));
    drop(client);
    let mut next = Wire::open(router.port(), "t1");
    assert_eq!(next.value("SELECT 7"), "7", "the only backend is free again");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                AND query LIKE '%held-back%' AND pid <> pg_backend_pid()";
    assert_eq!(cluster().sql(1, left), "0");
}

/// A router on whose wire to the server something takes half a second.
fn with_slow(what: Slow, config: &str) -> Router {
    let real = cluster().primary(1).port;
    let slow = slow(what, real, Duration::from_millis(500));
    let options = options(cluster(), config)
        .with_map(|map| map.replace(&format!("port = {real} "), &format!("port = {slow} ")));
    Router::start(cluster(), &options)
}

fn waiting(router: &Router) -> usize {
    let shown = psql(&router.console_url(), "SHOW POOLS").expect();
    shown.lines().map(|line| line.split('|').nth(5).unwrap().parse::<usize>().unwrap()).sum()
}

fn wait_until_running(mark: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
         AND query LIKE '%{mark}%' AND pid <> pg_backend_pid()"
    );
    wait_for(mark, || cluster().sql(1, &sql) != "0");
}
