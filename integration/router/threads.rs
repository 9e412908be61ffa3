//! Several threads that serve clients: who is where, budgets that all of them
//! share, and what must reach a client wherever it is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::setup::{cluster, one_server, router};
use crate::support::cluster::Cluster;
use crate::support::psql::{Psql, psql};
use crate::support::router::Router;
use crate::support::wait_for;
use crate::wire::Wire;

/// The thread that a client's number names.
fn thread_of(client: &Wire) -> u32 {
    client.pid >> 26
}

#[test]
fn clients_of_all_threads_are_served_listed_cancelled_and_killed() {
    let router = router(cluster(), "threads = 4");
    let mut clients: Vec<Wire> = (0..12).map(|_| Wire::open(router.port(), "t1")).collect();
    let threads: BTreeSet<u32> = clients.iter().map(thread_of).collect();
    assert_eq!(threads, BTreeSet::from([0, 1, 2, 3]));
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.value(&format!("SELECT {number}")), number.to_string());
    }
    let shown = psql(&router.console_url(), "SHOW CLIENTS").expect();
    for client in &clients {
        let id = client.pid.to_string();
        assert!(shown.lines().any(|line| line.split('|').next() == Some(&*id)), "{id}: {shown}");
    }
    // A cancel request comes in at the first thread, whoever it is for.
    for client in &mut clients {
        client.send_query("SELECT pg_sleep(60) /* threads-cancel */");
    }
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE \
                   '%threads-cancel%' AND pid <> pg_backend_pid()";
    wait_for("all to run", || cluster().superuser_sql(1, running).trim() == "12");
    for client in &mut clients {
        client.cancel(router.port());
        assert_eq!(client.finish().unwrap_err().code, "57014");
        assert_eq!(client.value("SELECT 7"), "7");
    }
    // Nor does a key serve for a client of another thread.
    clients[0].send_query("SELECT pg_sleep(0.5)");
    crate::wire::cancel(router.port(), clients[0].pid, &clients[1].key);
    clients[0].finish().unwrap();
    for client in &mut clients {
        psql(&router.console_url(), &format!("KILL {}", client.pid)).expect();
        assert_eq!(client.farewell().code, "57P01");
    }
}

/// One pool of three connections, however many threads use it: the server never
/// sees more, and no thread's clients starve.
#[test]
fn threads_share_the_size_of_a_pool() {
    let cluster = one_server();
    let config = "threads = 3\npool.size_max = 3\npool.checkout_timeout = \"60s\"";
    let router = router(&cluster, config);
    let stop = AtomicBool::new(false);
    let served = [const { AtomicU32::new(0) }; 12];
    let mut most = 0;
    std::thread::scope(|scope| {
        for served in &served {
            let (router, stop) = (&router, &stop);
            scope.spawn(move || {
                let mut wire = Wire::open(router.port(), "t1");
                while !stop.load(Ordering::Relaxed) {
                    wire.query("SELECT pg_sleep(0.005)").unwrap();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begun = Instant::now();
        let all_served = || served.iter().all(|count| count.load(Ordering::Relaxed) > 10);
        while begun.elapsed() < Duration::from_secs(3)
            || (!all_served() && begun.elapsed() < Duration::from_secs(60))
        {
            most = most.max(connections(&cluster));
        }
        stop.store(true, Ordering::Relaxed);
    });
    // The monitor's and the catalog's come on top.
    assert!((2..=5).contains(&most), "the server saw {most} connections");
    let served = served.map(AtomicU32::into_inner);
    assert!(served.iter().all(|count| *count > 10), "somebody starved: {served:?}");
}

/// Two threads whose clients wait do not wake each other for ever: each says so
/// at most once a tick, of which there are 20 in a second.
#[test]
fn threads_that_both_go_short_leave_each_other_alone() {
    let cluster = one_server();
    let router = router(&cluster, "threads = 2\npool.size_max = 6");
    let stop = AtomicBool::new(false);
    let served = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                let mut wire = Wire::open(router.port(), "t1");
                while !stop.load(Ordering::Relaxed) {
                    wire.query("SELECT 1").unwrap();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (begun, before) = (Instant::now(), stat(&router, "nudges"));
        let deadline = begun + Duration::from_secs(60);
        while served.load(Ordering::Relaxed) < 10_000 && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let (seconds, after) = (begun.elapsed().as_secs_f64(), stat(&router, "nudges"));
        stop.store(true, Ordering::Relaxed);
        let served = served.load(Ordering::Relaxed);
        let a_second = (after - before) as f64 / seconds;
        assert!(a_second < 100.0, "{a_second} nudges a second for {served} queries");
    });
}

#[test]
fn idle_connection_makes_way_for_a_client_of_another_thread() {
    let cluster = one_server();
    let config = "threads = 2\npool.size_max = 1\npool.checkout_timeout = \"60s\"";
    let router = router(&cluster, config);
    let (mut here, mut there) = (Wire::open(router.port(), "t1"), Wire::open(router.port(), "t1"));
    assert_ne!(thread_of(&here), thread_of(&there));
    for round in 0..5 {
        let (one, other) = (here.value("SELECT pg_backend_pid()"), there.value("SELECT 1"));
        assert_eq!((one.is_empty(), &*other), (false, "1"), "round {round}");
    }
    // One that is in a transaction is not taken away.
    here.query("BEGIN; SELECT 1").unwrap();
    there.send_query("SELECT 2");
    let shown = || psql(&router.console_url(), "SHOW POOLS").expect();
    wait_for("the other to wait", || shown().contains("t1") && waits(&shown()));
    here.query("COMMIT").unwrap();
    there.finish().unwrap();
}

/// Users with pools of their own on several threads: the node's budget holds.
#[test]
fn threads_share_the_budget_of_a_node() {
    let cluster = one_server();
    let config = "threads = 3\npool.connections_per_node_max = 6\npool.checkout_timeout = \"60s\"";
    let router = router(&cluster, config);
    let stop = AtomicBool::new(false);
    let served = [const { AtomicU32::new(0) }; 15];
    let mut most = 0;
    std::thread::scope(|scope| {
        for (number, served) in served.iter().enumerate() {
            let (router, stop) = (&router, &stop);
            scope.spawn(move || {
                let mut wire = Wire::open(router.port(), &format!("t{}", number % 5 + 1));
                while !stop.load(Ordering::Relaxed) {
                    wire.query("SELECT pg_sleep(0.005)").unwrap();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begun = Instant::now();
        let all_served = || served.iter().all(|count| count.load(Ordering::Relaxed) > 3);
        while begun.elapsed() < Duration::from_secs(3)
            || (!all_served() && begun.elapsed() < Duration::from_secs(60))
        {
            most = most.max(connections(&cluster));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!((2..=6).contains(&most), "the server saw {most} connections");
    let served = served.map(AtomicU32::into_inner);
    assert!(served.iter().all(|count| *count > 3), "somebody starved: {served:?}");
}

#[test]
fn all_threads_hear_of_users_limits_and_the_end() {
    let mut router = router(cluster(), "threads = 3\nlimits.clients_max = 7");
    let config = std::fs::read_to_string(router.config_file()).unwrap();
    let more = format!("{config}[[user]]\nname = \"t9\"\ntrust = true\n");
    std::fs::write(router.config_file(), more).unwrap();
    router.signal(Signal::HUP);
    wait_for("the new user", || {
        let url = router.url_for("t9", "", "app");
        // As many as there are threads, in a row.
        (0..3).all(|_| matches!(psql(&url, "SELECT 1"), Psql::Done(_)))
    });
    wait_for("those to have left", || {
        psql(&router.console_url(), "SHOW CLIENTS").expect().lines().count() <= 1
    });
    let mut clients: Vec<Wire> = (0..7).map(|_| Wire::open(router.port(), "t9")).collect();
    let threads: BTreeSet<u32> = clients.iter().map(thread_of).collect();
    assert_eq!(threads.len(), 3);
    let params = [("user", "t9"), ("database", "app")];
    let refused = Wire::try_open(router.port(), &params, 0).unwrap_err().refusal();
    assert_eq!(refused.code, "53300");
    clients[3].query("BEGIN; SELECT 1").unwrap();
    router.signal(Signal::TERM);
    for (number, client) in clients.iter_mut().enumerate().filter(|(number, _)| *number != 3) {
        assert_eq!(client.farewell().code, "57P01", "client {number}");
    }
    // Who is in a transaction may finish it.
    clients[3].query("COMMIT").unwrap();
    assert_eq!(router.wait_end(), Some(0));
}

fn stat(router: &Router, name: &str) -> u64 {
    let shown = psql(&router.console_url(), "SHOW STATS").expect();
    let line = shown.lines().find_map(|line| line.strip_prefix(&format!("{name}|")));
    line.unwrap_or_else(|| panic!("no {name} in {shown}")).trim().parse().unwrap()
}

fn waits(pools: &str) -> bool {
    pools.lines().any(|line| line.split('|').nth(5) == Some("1"))
}

fn connections(cluster: &Cluster) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    cluster.superuser_sql(1, sql).trim().parse().unwrap()
}
