//! From the start to the end of a router: degraded starts, drains, exit codes.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use keyway::local::{NodeName, Stop};
use rustix::process::Signal;

use crate::http::get;
use crate::setup::{cluster, one_server, options, router};
use crate::support::router::{Router, RouterOptions};
use crate::support::{scratch_dir, wait_for};
use crate::wire::{Wire, connect};

const SERVER: NodeName = NodeName { shard: 1, replica: 0 };

#[test]
fn router_starts_before_its_servers_and_serves_when_they_come_up() {
    let cluster = one_server();
    cluster.servers().stop_node(SERVER, Stop::Fast).unwrap();
    let router = router(&cluster, "pool.checkout_timeout = \"2s\"");
    let begun = Instant::now();
    let mut client = Wire::open(router.port(), "t1");
    // The oldest that the router supports, as long as nobody knows better.
    assert_eq!(client.params["server_version"], "15.0");
    let refusal = client.query("SELECT 1").unwrap_err();
    assert_eq!((&*refusal.code, &*refusal.severity), ("08001", "ERROR"));
    assert_eq!(refusal.message, "shard main can't be reached: connection refused");
    assert!(refusal.hint.contains("SHOW NODES"), "{refusal:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(get(&router, "/live").0, 200);
    let (status, body) = get(&router, "/ready");
    assert_eq!(status, 503);
    assert!(body.contains("no shard's primary answers") && body.contains("app/main"), "{body}");

    cluster.servers().start_node(SERVER).unwrap();
    wait_for("the client to be served", || client.query("SELECT 1").is_ok());
    wait_for("the router to be ready", || get(&router, "/ready").0 == 200);
    let version = Wire::open(router.port(), "t1").params["server_version"].clone();
    assert_eq!(version, cluster.sql(1, "SHOW server_version"));

    // What the server said of itself is remembered while it is down again.
    cluster.servers().stop_node(SERVER, Stop::Fast).unwrap();
    let begun = Instant::now();
    let late = Wire::open(router.port(), "t1");
    assert_eq!(late.params["server_version"], version);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn other_shards_serve_while_one_is_down() {
    let cluster =
        crate::support::cluster::Cluster::start(crate::support::cluster::ClusterOptions {
            replicas: 0,
            ..Default::default()
        });
    cluster.load_sample();
    cluster.servers().stop_node(NodeName { shard: 2, replica: 0 }, Stop::Fast).unwrap();
    let options = RouterOptions::sharded(&cluster);
    let options = options.with_config("[[user]]\nname = \"t1\"\ntrust = true");
    let router = Router::start(&cluster, &options);
    let mut client = Wire::open(router.port(), "t1");
    let mut seen = (0, 0);
    for tenant in 1..=20 {
        let sql = format!("SELECT count(*) FROM tenants WHERE tenant_id = {tenant}");
        match client.query(&sql) {
            Ok(_) => seen.0 += 1,
            Err(refusal) => {
                assert_eq!(refusal.code, "08001");
                assert!(refusal.message.starts_with("shard shard2 can't be reached"));
                seen.1 += 1;
            }
        }
    }
    assert!(seen.0 > 2 && seen.1 > 2, "{seen:?}");
    wait_for("the router to be ready", || get(&router, "/ready").0 == 200);
    assert!(get(&router, "/ready").1.contains("app/shard2"));
}

#[test]
fn drain_lets_transactions_end_and_sends_the_others_away() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut router = router(cluster(), "");
        let port = router.port();
        let [mut idle, mut busy, mut within, mut held] = [(); 4].map(|()| Wire::open(port, "t1"));
        let on_console = [("user", "a1"), ("database", "keyway")];
        let mut console = Wire::try_open(port, &on_console, 0).unwrap();
        within.query("BEGIN; SELECT 1").unwrap();
        held.query("LISTEN news").unwrap();
        busy.send_query("SELECT pg_sleep(1.5), 7");
        std::thread::sleep(Duration::from_millis(200));
        router.signal(signal);
        for client in [&mut idle, &mut held, &mut console] {
            let refusal = client.farewell();
            assert_eq!((&*refusal.code, &*refusal.severity), ("57P01", "FATAL"));
            assert_eq!(refusal.message, "terminating connection: the router is shutting down");
        }
        let (status, body) = get(&router, "/ready");
        assert_eq!(status, 503);
        assert!(body.contains("the router is shutting down"), "{body}");
        assert_eq!(get(&router, "/live").0, 200);
        assert!(connect(port).is_err(), "no new connections");
        assert_eq!(busy.finish().unwrap()[0][1].as_deref(), Some("7"));
        assert_eq!(busy.farewell().code, "57P01");
        assert_eq!(within.value("SELECT 8"), "8");
        within.query("COMMIT").unwrap();
        assert_eq!(within.farewell().code, "57P01");
        assert_eq!(router.wait_end(), Some(0));
        assert!(router.log().contains("draining"), "{}", router.log());
    }
}

#[test]
fn transaction_without_a_shard_is_drained_at_its_end() {
    let options = RouterOptions::sharded(cluster());
    let options = options.with_config("[[user]]\nname = \"t1\"\ntrust = true");
    let mut router = Router::start(cluster(), &options);
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN").unwrap();
    router.signal(Signal::TERM);
    wait_for("the drain", || get(&router, "/ready").1.contains("shutting down"));
    client.query("SET LOCAL work_mem = '7MB'").unwrap();
    client.query("COMMIT").unwrap();
    assert_eq!(client.farewell().code, "57P01");
    assert_eq!(router.wait_end(), Some(0));
}

#[test]
fn drain_has_a_deadline() {
    let mut router = router(cluster(), "timeouts.drain = \"500ms\"");
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN; INSERT INTO notes VALUES (-20, 'cut off')").unwrap();
    let mut running = Wire::open(router.port(), "t1");
    running.send_query("SELECT pg_sleep(600) /* cut-off */");
    std::thread::sleep(Duration::from_millis(200));
    router.signal(Signal::TERM);
    assert_eq!(client.farewell().code, "57P01");
    assert_eq!(running.farewell().code, "57P01");
    assert_eq!(router.wait_end(), Some(3));
    assert_eq!(cluster().sql(1, "SELECT count(*) FROM notes WHERE id = -20"), "0");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%cut-off%' \
                AND state = 'active' AND pid <> pg_backend_pid()";
    wait_for("the statement to be cancelled", || cluster().sql(1, left) == "0");
}

#[test]
fn second_signal_ends_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let mut router = router(cluster(), "");
        let mut client = Wire::open(router.port(), "t1");
        client.query("BEGIN; SELECT 1").unwrap();
        router.signal(Signal::TERM);
        wait_for("the drain", || router.log().contains("draining"));
        router.signal(second);
        assert_eq!(client.farewell().code, "57P01");
        assert_eq!(router.wait_end(), Some(3));
    }
}

#[test]
fn exit_codes_tell_what_kind_of_failure_it_was() {
    let dir = scratch_dir();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = file("bad.toml", "[pool]\nsize_max = \"many\"\n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let backend = "postgres://app@127.0.0.1:1/app";
    for (args, code, says) in [
        (&["serve", "--config", &bad][..], 1, "bad.toml:2:"),
        (&["serve", "--backend", "nonsense"], 1, "postgres://"),
        (&["serve", "--config", &file("empty.toml", "")], 1, "nothing to serve"),
        (&["serve", "--nonsense"], 2, "--help"),
        (&["serve", "--config", "/no/such/file"], 3, "/no/such/file"),
        (&["serve", "--backend", backend, "--listen", &address], 3, "in use"),
        (&["check", &bad], 1, "bad.toml:2:"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(args)
            .current_dir(&dir)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(errors.contains(says), "{args:?}: {errors}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// Where the system allows few open files, fewer clients are let in, and the
/// operators' pages still answer.
#[test]
fn open_files_bound_the_clients() {
    let options = options(cluster(), "");
    let router = Router::start_with_open_files(cluster(), &options, 200);
    let mut clients = Vec::new();
    let params = [("user", "t1"), ("database", "app")];
    let refusal = loop {
        match Wire::try_open(router.port(), &params, 0) {
            Ok(client) => clients.push(client),
            Err(failure) => break failure.refusal(),
        }
        assert!(clients.len() < 200);
    };
    assert_eq!(refusal.code, "53300");
    assert!(clients.len() >= 20, "{} clients", clients.len());
    assert!(router.log().contains("raise the limit of open files"), "{}", router.log());
    assert_eq!(get(&router, "/live").0, 200);
    assert_eq!(clients[0].value("SELECT 7"), "7");
}

#[test]
fn log_lines_name_client_and_statement() {
    let config = "log.format = \"json\"\nlog.level = \"debug\"";
    let router = router(cluster(), config);
    let mut client = Wire::open(router.port(), "t1");
    client.query("SELECT 1").unwrap();
    client.send(b'P', b"\0SELECT");
    client.send(b'S', b"");
    client.finish().unwrap_err();
    drop(client);
    wait_for("the client's end", || router.log().contains("client left"));
    let log = router.log();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let line = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("no {message:?} in\n{log}"))
    };
    let id = &line("client logged in")["client"];
    assert_eq!(line("client logged in")["user"], "t1");
    assert_eq!(&line("refused")["client"], id);
    assert_eq!(line("refused")["state"], "08P01");
    assert!(line("refused")["statement"].as_u64().unwrap() >= 1, "{log}");
    assert_eq!(&line("client left")["client"], id);
}

/// A drain that waits for nobody ends at once, with clients or without.
#[test]
fn idle_router_ends_at_once() {
    let mut router = Router::start(cluster(), &options(cluster(), ""));
    router.signal(Signal::TERM);
    let begun = Instant::now();
    assert_eq!(router.wait_end(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
}
