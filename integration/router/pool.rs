//! Pools: sizes, budgets, queues, lifetimes, modes, and backends or clients
//! that are gone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyway::local::{NodeName, Stop};

use crate::setup::{cluster, one_server, options, router};
use crate::support::cluster::Cluster;
use crate::support::psql::psql;
use crate::support::router::Router;
use crate::support::wait_for;
use crate::wire::{Wire, frame};

#[test]
fn two_thousand_clients_share_five_backends() {
    let cluster = one_server();
    let router = router(&cluster, "pool.size_max = 5\npool.checkout_timeout = \"60s\"");
    let mut clients: Vec<Wire> = (0..2_000).map(|_| Wire::open(router.port(), "t1")).collect();
    let mut pids = BTreeSet::new();
    for round in 0..2 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send_query(&format!("SELECT {number} + {round}, pg_backend_pid()"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let rows = client.finish().unwrap();
            assert_eq!(rows[0][0].as_deref(), Some(&*(number + round).to_string()));
            pids.insert(rows[0][1].clone().unwrap());
        }
    }
    assert!(pids.len() <= 5, "{} backends served", pids.len());
    // The monitor's and the catalog's come on top.
    assert!(connections(&cluster) <= 7);
}

#[test]
fn queue_is_served_in_the_order_of_arrival() {
    let router = router(cluster(), "pool.size_max = 1\npool.checkout_timeout = \"60s\"");
    let mut holder = Wire::open(router.port(), "t1");
    holder.query("BEGIN; SELECT 1").unwrap();
    cluster().sql(1, "CREATE TABLE arrivals (place serial, who int)");
    let mut clients: Vec<Wire> = (0..12).map(|_| Wire::open(router.port(), "t1")).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_query(&format!("INSERT INTO arrivals (who) VALUES ({number})"));
        wait_for("the client to wait", || pool_column(&router, "t1", 5) == number + 1);
    }
    holder.query("COMMIT").unwrap();
    for client in &mut clients {
        client.finish().unwrap();
    }
    let order = cluster().sql(1, "SELECT string_agg(who::text, ' ' ORDER BY place) FROM arrivals");
    assert_eq!(order, "0 1 2 3 4 5 6 7 8 9 10 11");
}

/// Users with pools of their own hammer one node: the server never sees more
/// connections than the budget has, the monitor's and those included that are
/// being closed to make room; and every user is served.
#[test]
fn budget_of_a_node_is_never_exceeded_and_nobody_starves() {
    let cluster = one_server();
    let config = "pool.connections_per_node_max = 6\npool.size_max = 20\n\
                  pool.checkout_timeout = \"60s\"\npool.idle_timeout = \"200ms\"";
    let router = router(&cluster, config);
    let (stop, served) = (AtomicBool::new(false), [const { AtomicU32::new(0) }; 5]);
    let mut most = 0;
    std::thread::scope(|scope| {
        for client in 0..20 {
            let (router, stop, served) = (&router, &stop, &served);
            scope.spawn(move || {
                let user = client % 5;
                let mut wire = Wire::open(router.port(), &format!("t{}", user + 1));
                while !stop.load(Ordering::Relaxed) {
                    wire.query("SELECT pg_sleep(0.005)").unwrap();
                    served[user].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            most = most.max(connections(&cluster));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(most <= 6, "the server saw {most} connections");
    let served = served.map(AtomicU32::into_inner);
    let (least, best) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(*least * 8 > *best, "shares are uneven: {served:?}");
}

/// Two databases of the router's on one server, each with a monitor of its own.
#[test]
fn budget_of_a_node_holds_over_databases_too() {
    let cluster = one_server();
    let config = "pool.connections_per_node_max = 5\npool.checkout_timeout = \"60s\"";
    let mut options = options(&cluster, config);
    let first = options.map.clone().unwrap();
    let second = first.replace("database = \"app\"\n", "database = \"again\"\n");
    options
        .more_maps
        .push(second.replace("name = \"main\"\n", "name = \"main\"\ndbname = \"app\"\n"));
    let router = Router::start(&cluster, &options);
    let stop = AtomicBool::new(false);
    let satisfied = AtomicUsize::new(0);
    let mut most = 0;
    std::thread::scope(|scope| {
        for client in 0..12 {
            let (router, stop, satisfied) = (&router, &stop, &satisfied);
            scope.spawn(move || {
                let user = format!("t{}", 1 + client % 3);
                let database = if client % 2 == 0 { "app" } else { "again" };
                let params = [("user", &*user), ("database", database)];
                let mut wire = Wire::try_open(router.port(), &params, 0).unwrap();
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) {
                    wire.query("SELECT pg_sleep(0.005)").unwrap();
                    served += 1;
                    if served == 4 {
                        satisfied.fetch_add(1, Ordering::Relaxed);
                    }
                }
                assert!(served > 3, "a client of {user} in {database} was served {served} times");
            });
        }
        // All are served while all go on asking.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2)
            || (satisfied.load(Ordering::Relaxed) < 12 && begun.elapsed() < Duration::from_secs(60))
        {
            most = most.max(connections(&cluster));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!((2..=5).contains(&most), "the server saw {most} connections");
}

#[test]
fn idle_connections_close_down_to_the_minimum() {
    let cluster = one_server();
    let config = "pool.size_min_idle = 2\npool.idle_timeout = \"300ms\"";
    let router = router(&cluster, config);
    let mut clients: Vec<Wire> = (0..6).map(|_| Wire::open(router.port(), "t1")).collect();
    for client in &mut clients {
        client.send_query("SELECT pg_sleep(0.3)");
    }
    for client in &mut clients {
        client.finish().unwrap();
    }
    wait_for("idle ones to close", || pool_column(&router, "t1", 7) == 2);
    wait_for("the server to see it", || connections(&cluster) == 4);
    // One is lost: the minimum is restored although nobody asks.
    let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = \
               'client backend' AND application_name = '' AND pid <> pg_backend_pid() LIMIT 1";
    cluster.superuser_sql(1, sql);
    clients[0].query("SELECT 1").unwrap();
    clients[0].query("SELECT 1").unwrap();
    wait_for("the minimum to be restored", || pool_column(&router, "t1", 7) == 2);
}

#[test]
fn old_connections_are_replaced() {
    let router = router(cluster(), "pool.lifetime_max = \"400ms\"\npool.size_max = 1");
    let mut client = Wire::open(router.port(), "t1");
    let first = client.value("SELECT pg_backend_pid()");
    assert_eq!(client.value("SELECT pg_backend_pid()"), first);
    wait_for("another backend", || client.value("SELECT pg_backend_pid()") != first);
    // One that is held is not taken away.
    client.query("BEGIN").unwrap();
    let held = client.value("SELECT pg_backend_pid()");
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(client.value("SELECT pg_backend_pid()"), held);
    client.query("COMMIT").unwrap();
    assert_ne!(client.value("SELECT pg_backend_pid()"), held);
}

#[test]
fn session_mode_keeps_what_a_session_has() {
    let config = "[[user]]\nname = \"s1\"\ntrust = true\npool_mode = \"session\"";
    let router = router(cluster(), config);
    let mut client = Wire::open(router.port(), "s1");
    let pid = client.value("SELECT pg_backend_pid()");
    client.query("CREATE TEMP TABLE mine AS SELECT 7 AS n").unwrap();
    client.query("SET work_mem = '7MB'; LISTEN news").unwrap();
    let mut other = Wire::open(router.port(), "s1");
    assert_ne!(other.value("SELECT pg_backend_pid()"), pid);
    other.query("NOTIFY news, 'hello'").unwrap();
    let heard = client.read().unwrap();
    assert_eq!(heard.tag, b'A', "a notification comes without a question");
    assert_eq!(client.value("SELECT n FROM mine"), "7");
    assert_eq!(client.value("SHOW work_mem"), "7MB");
    assert_eq!(client.value("SELECT pg_backend_pid()"), pid);
    client.query("SELECT pg_advisory_lock(77)").unwrap();
    drop(client);
    // The next one finds nothing of it.
    wait_for("the lock to be gone", || other.value("SELECT pg_try_advisory_lock(77)") == "t");
    let mut next = Wire::open(router.port(), "s1");
    assert_ne!(next.value("SHOW work_mem"), "7MB");
    let gone = next.query("SELECT n FROM mine").unwrap_err();
    assert_eq!(gone.code, "42P01");
    assert_eq!(next.value("SELECT count(*) FROM pg_listening_channels()"), "0");
}

#[test]
fn what_a_client_left_is_not_seen_by_the_next() {
    let router = router(cluster(), "pool.size_max = 1");
    let mut client = Wire::open(router.port(), "t1");
    let leave = "CREATE FUNCTION pg_temp.leave() RETURNS void LANGUAGE plpgsql AS \
                 $$BEGIN PERFORM set_config('work_mem', '9MB', false); END$$";
    client.query(leave).unwrap();
    client.query("SELECT pg_temp.leave(), pg_advisory_lock(78)").unwrap();
    client.query("DECLARE c CURSOR WITH HOLD FOR SELECT 1").unwrap();
    drop(client);
    let mut next = Wire::open(router.port(), "t1");
    assert_ne!(next.value("SHOW work_mem"), "9MB");
    assert_eq!(
        next.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 78"),
        "0"
    );
    assert_eq!(next.value("SELECT count(*) FROM pg_cursors WHERE is_holdable"), "0");
    // Dirty in the middle of a session that lives on: the transaction's end
    // resets the backend.
    next.query("DO $$BEGIN PERFORM set_config('work_mem', '9MB', false); END$$").unwrap();
    let mut third = Wire::open(router.port(), "t1");
    assert_ne!(third.value("SHOW work_mem"), "9MB");
}

#[test]
fn backend_with_a_temporary_schema_is_not_passed_on() {
    let router = router(cluster(), "pool.size_max = 1");
    let mut client = Wire::open(router.port(), "t1");
    client.query("CREATE TEMP TABLE mine (a int)").unwrap();
    let pid = client.value("SELECT pg_backend_pid()");
    // Nothing is left but the schema, which stays in the search path.
    client.query("DISCARD ALL").unwrap();
    let mut next = Wire::open(router.port(), "t1");
    let schemas = next.value("SELECT current_schemas(true)");
    assert!(!schemas.contains("pg_temp"), "{schemas}");
    assert_ne!(next.value("SELECT pg_backend_pid()"), pid);
}

#[test]
fn temporary_schema_that_no_text_speaks_of_is_not_passed_on() {
    cluster().sql(
        1,
        "CREATE FUNCTION make_temp() RETURNS void LANGUAGE plpgsql AS \
         $$BEGIN CREATE TEMP TABLE hidden (a int); END$$",
    );
    let router = router(cluster(), "pool.size_max = 1");
    for statement in [
        "SELECT make_temp()",
        "DO $$BEGIN CREATE TEMP TABLE hidden (a int); END$$",
        "CREATE FUNCTION \"pg_temp\".f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SET search_path = pg_temp, public; CREATE TABLE hidden (a int)",
        "SELECT 1 AS a INTO pg_temp.hidden",
    ] {
        let mut client = Wire::open(router.port(), "t1");
        client.query(statement).unwrap();
        drop(client);
        let mut next = Wire::open(router.port(), "t1");
        let schemas = next.value("SELECT current_schemas(true)");
        assert!(!schemas.contains("pg_temp"), "{statement}: {schemas}");
    }
}

// === goodbyes ===

#[test]
fn what_stands_before_a_goodbye_is_done_and_answered() {
    let router = router(cluster(), "");
    let goodbye = frame(b'X', b"");
    let statement = |sql: &str| {
        let text = [b"\0", sql.as_bytes(), b"\0\0\0"].concat();
        [frame(b'P', &text), frame(b'B', &[0; 8]), frame(b'E', &[0; 5])].concat()
    };
    let tags = |bytes: &[u8], keep: bool| {
        let mut client = Wire::open(router.port(), "t1");
        std::io::Write::write_all(client.socket(), &[bytes, &goodbye].concat()).unwrap();
        if !keep {
            return String::new();
        }
        let mut tags = String::new();
        while let Ok(message) = client.read() {
            tags.push(char::from(message.tag));
        }
        tags
    };
    let query = frame(b'Q', b"SELECT pg_sleep(0.2)\0");
    assert_eq!(tags(&query, true), "TDCZ");
    assert_eq!(tags(&statement("SELECT 1"), true), "12DC");
    assert_eq!(tags(&[statement("SELECT pg_sleep(0.2)"), frame(b'H', b"")].concat(), true), "12DC");
    assert_eq!(tags(&statement("SELECT nonsense"), true), "E");
    // Nobody is there to hear, as it is with a client that closes at once.
    let insert = "SELECT pg_sleep(0.2); INSERT INTO notes VALUES (-90, 'done')";
    tags(&frame(b'Q', format!("{insert}\0").as_bytes()), false);
    wait_for("the statement's effect", || {
        cluster().sql(1, "SELECT count(*) FROM notes WHERE id = -90") == "1"
    });
    cluster().sql(1, "DELETE FROM notes WHERE id = -90");
}

#[test]
fn batch_without_its_sync_leaves_nothing() {
    let router = router(cluster(), "pool.size_max = 1");
    for goodbye in [frame(b'X', b""), Vec::new()] {
        let mut client = Wire::open(router.port(), "t1");
        let insert = b"\0INSERT INTO notes VALUES (-91, 'no')\0\0\0";
        let batch =
            [frame(b'P', insert), frame(b'B', &[0; 8]), frame(b'E', &[0; 5]), frame(b'H', b"")];
        std::io::Write::write_all(client.socket(), &batch.concat()).unwrap();
        let tags: Vec<u8> = (0..3).map(|_| client.read().unwrap().tag).collect();
        assert_eq!(tags, b"12C");
        std::io::Write::write_all(client.socket(), &goodbye).unwrap();
        drop(client);
        let mut next = Wire::open(router.port(), "t1");
        assert_eq!(next.value("SELECT count(*) FROM notes WHERE id = -91"), "0");
    }
}

// === backends that are gone ===

#[test]
fn backend_killed_while_idle_is_replaced_unseen() {
    let cluster = one_server();
    let router = router(&cluster, "pool.size_max = 2");
    let mut client = Wire::open(router.port(), "t1");
    for _ in 0..3 {
        let pid = client.value("SELECT pg_backend_pid()");
        cluster.superuser_sql(1, &format!("SELECT pg_terminate_backend({pid}, 10000)"));
        assert_ne!(client.value("SELECT pg_backend_pid()"), pid);
    }
}

#[test]
fn backend_terminated_in_a_statement_says_why() {
    let cluster = one_server();
    let router = router(&cluster, "");
    for begin in ["", "BEGIN; INSERT INTO notes VALUES (1, 'lost');"] {
        let mut client = Wire::open(router.port(), "t1");
        client.query(&format!("{begin} SELECT 1")).unwrap();
        client.send_query("SELECT pg_sleep(60) /* to-be-terminated */");
        terminate(&cluster, "to-be-terminated");
        let refusal = client.finish().unwrap_err();
        assert_eq!((&*refusal.code, &*refusal.severity), ("57P01", "FATAL"));
        assert!(client.is_closed());
    }
    let mut client = Wire::open(router.port(), "t1");
    assert_eq!(client.value("SELECT count(*) FROM notes"), "0");
}

/// The process is gone without a word, as after the death of its machine. What
/// the client is told depends on what may have happened.
#[test]
fn server_gone_in_the_middle_is_told_as_what_is_known() {
    let cluster = one_server();
    let router = router(&cluster, "pool.reconnect_max = \"300ms\"");
    let mut clients: Vec<Wire> = (0..5).map(|_| Wire::open(router.port(), "t1")).collect();
    let [statement, transaction, running, commit, idle] = &mut clients[..] else { unreachable!() };
    transaction.query("BEGIN; INSERT INTO notes VALUES (1, 'lost')").unwrap();
    running.query("BEGIN; INSERT INTO notes VALUES (2, 'lost')").unwrap();
    commit
        .query(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
                  $$BEGIN PERFORM pg_sleep(60); RETURN NULL; END$$",
        )
        .unwrap();
    commit
        .query(
            "CREATE TABLE deferred (id int); CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON \
                  deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .unwrap();
    commit.query("BEGIN; INSERT INTO deferred VALUES (1)").unwrap();
    idle.query("SELECT 1").unwrap();
    statement.send_query("SELECT pg_sleep(60) /* one-statement */");
    running.send_query("SELECT pg_sleep(60) /* in-a-transaction */");
    commit.send_query("COMMIT /* at-the-end */");
    for mark in ["one-statement", "in-a-transaction", "at-the-end"] {
        wait_for(mark, || running_count(&cluster, mark) == 1);
    }
    let name = NodeName { shard: 1, replica: 0 };
    cluster.servers().stop_node(name, Stop::Kill).unwrap();

    let alone = statement.finish().unwrap_err();
    assert_eq!(alone.code, "08007", "its outcome is unknown: {alone:?}");
    assert!(alone.hint.contains("check"), "{alone:?}");
    let within = running.finish().unwrap_err();
    assert_eq!(within.code, "08006", "rolled back for sure: {within:?}");
    assert_eq!(running.query("SELECT 1").unwrap_err().code, "25P02");
    let ending = commit.finish().unwrap_err();
    assert_eq!(ending.code, "08007", "COMMIT was sent: {ending:?}");
    // An idle server process says goodbye when its postmaster is gone.
    assert_eq!(transaction.farewell().code, "57P01");
    let down = idle.query("SELECT 1").unwrap_err();
    assert_eq!(down.code, "08001", "{down:?}");

    cluster.servers().start_node(name).unwrap();
    running.query("ROLLBACK").unwrap();
    wait_for("the router to reach the server again", || idle.query("SELECT 1").is_ok());
    for client in [statement, running, commit] {
        assert_eq!(client.value("SELECT count(*) FROM notes"), "0");
    }
}

#[test]
fn transaction_whose_backend_is_gone_without_a_word_has_failed() {
    let cluster = one_server();
    let router = router(&cluster, "pool.reconnect_max = \"300ms\"");
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN; INSERT INTO notes VALUES (1, 'lost')").unwrap();
    let pid = client.value("SELECT pg_backend_pid()");
    // The server restarts all its processes after that, this one's too.
    let kill = format!("COPY (SELECT 1) TO PROGRAM 'kill -9 {pid}'");
    drop(cluster.servers().superuser_sql(NodeName { shard: 1, replica: 0 }, &kill));
    wait_for("the router to see it", || router.log().contains("backend connection lost"));
    assert_eq!(client.query("SELECT 1").unwrap_err().code, "25P02");
    client.query("COMMIT").unwrap();
    wait_for("the server to be back", || client.query("SELECT 1").is_ok());
    assert_eq!(client.value("SELECT count(*) FROM notes"), "0");
}

// === clients that are gone ===

#[test]
fn client_gone_in_a_long_statement_has_it_cancelled() {
    let router = router(cluster(), "pool.size_max = 1");
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN; INSERT INTO notes VALUES (-10, 'gone')").unwrap();
    client.send_query("SELECT pg_sleep(600) /* left-alone */");
    wait_for("the statement to run", || running_count(cluster(), "left-alone") == 1);
    drop(client);
    let mut next = Wire::open(router.port(), "t1");
    // The only backend is free again, and clean.
    assert_eq!(next.value("SELECT count(*) FROM notes WHERE id = -10"), "0");
    assert_eq!(running_count(cluster(), "left-alone"), 0);
}

#[test]
fn client_gone_in_the_middle_of_a_message_harms_nobody() {
    let router = router(cluster(), "pool.size_max = 1");
    for unfinished in [
        frame(b'Q', b"INSERT INTO notes VALUES (-11, 'half')\0")[..20].to_vec(),
        [frame(b'P', b"\0INSERT INTO notes VALUES (-11, 'x')\0\0\0"), frame(b'B', &[0; 8])]
            .concat(),
        [
            frame(b'Q', b"COPY notes FROM STDIN\0"),
            frame(b'd', b"-11\thalf a row"),
            frame(b'd', &[b'x'; 100_000])[..50_000].to_vec(),
        ]
        .concat(),
    ] {
        let mut client = Wire::open(router.port(), "t1");
        client.query("SELECT 1").unwrap();
        std::io::Write::write_all(client.socket(), &unfinished).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        drop(client);
        let mut next = Wire::open(router.port(), "t1");
        assert_eq!(next.value("SELECT count(*) FROM notes WHERE id = -11"), "0");
    }
}

#[test]
fn waits_grow_after_failures_and_end_when_the_server_is_back() {
    let cluster = one_server();
    let config = "pool.reconnect_min = \"50ms\"\npool.reconnect_max = \"60s\"\n\
                  pool.checkout_timeout = \"2s\"";
    let router = router(&cluster, config);
    let mut client = Wire::open(router.port(), "t1");
    client.query("SELECT 1").unwrap();
    let name = NodeName { shard: 1, replica: 0 };
    cluster.servers().stop_node(name, Stop::Fast).unwrap();
    let begun = Instant::now();
    let mut refusals = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        let refusal = client.query("SELECT 1").unwrap_err();
        assert_eq!(refusal.code, "08001", "{refusal:?}");
        refusals += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(refusals > 5, "a dead server is answered for at once: {refusals}");
    let attempts = router.log().matches("backend can't be reached").count();
    assert!(attempts < 20, "{attempts} attempts in four seconds");
    cluster.servers().start_node(name).unwrap();
    wait_for("the router to reach the server", || client.query("SELECT 1").is_ok());
}

/// Column `column` of SHOW POOLS for a user, summed.
pub fn pool_column(router: &Router, user: &str, column: usize) -> usize {
    let shown = psql(&router.console_url(), "SHOW POOLS").expect();
    let of_user = shown.lines().map(|line| line.split('|').collect::<Vec<_>>());
    of_user.filter(|row| row[1] == user).map(|row| row[column].parse::<usize>().unwrap()).sum()
}

/// Connections of the router to the first shard's server. Counted by a session
/// of the superuser's, which is not among them.
fn connections(cluster: &Cluster) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    cluster.superuser_sql(1, sql).trim().parse().unwrap()
}

fn running_count(cluster: &Cluster, mark: &str) -> usize {
    let mut sql = String::new();
    write!(
        sql,
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
         AND query LIKE '%{mark}%' AND pid <> pg_backend_pid()"
    )
    .unwrap();
    cluster.superuser_sql(1, &sql).trim().parse().unwrap()
}

fn terminate(cluster: &Cluster, mark: &str) {
    wait_for(mark, || running_count(cluster, mark) == 1);
    cluster.superuser_sql(
        1,
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'active' \
             AND query LIKE '%{mark}%' AND pid <> pg_backend_pid()"
        ),
    );
}

/// The map's other options are as [`options`] has them.
#[test]
fn pools_are_kept_apart_by_user() {
    let options = options(cluster(), "pool.size_max = 1\npool.checkout_timeout = \"3s\"");
    let router = Router::start(cluster(), &options);
    let mut first = Wire::open(router.port(), "t1");
    first.query("BEGIN; SELECT 1").unwrap();
    let mut second = Wire::open(router.port(), "t2");
    assert_eq!(second.value("SELECT 7"), "7", "another user's pool is free");
    let mut third = Wire::open(router.port(), "t1");
    assert_eq!(third.query("SELECT 7").unwrap_err().code, "53300");
}
