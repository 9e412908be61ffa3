//! The console and the pages, with real clients and servers behind them.

use std::collections::BTreeMap;

use crate::http::get;
use crate::setup::{cluster, router};
use crate::support::psql::psql;
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;
use crate::wire::Wire;

#[test]
fn every_show_has_what_is_there() {
    let options =
        RouterOptions::sharded(cluster()).with_config("[[user]]\nname = \"t1\"\ntrust = true");
    let router = Router::start(cluster(), &options);
    let params = [("user", "t1"), ("database", "app"), ("application_name", "busy one")];
    let mut client = Wire::try_open(router.port(), &params, 0).unwrap();
    client.query("BEGIN; SELECT 1").unwrap();
    let backend = client.value("SELECT pg_backend_pid()");
    wait_for("the nodes to be seen", || {
        shown(&router, "NODES").iter().all(|row| row[6] == "healthy")
    });

    let pools = shown(&router, "POOLS");
    let home = cluster().primary(1);
    let address = format!("{}:{}", home.host, home.port);
    // database user node role cl_active cl_waiting sv_active sv_idle …
    assert!(
        pools.iter().any(|row| row[..8] == ["app", "t1", &address, "primary", "1", "0", "1", "0"]),
        "{pools:?}"
    );
    let clients = shown(&router, "CLIENTS");
    let mine = clients.iter().find(|row| row[7] == "busy one").expect("the client is listed");
    assert_eq!([&*mine[1], &mine[2], &mine[3]], ["t1", "app", "transaction"]);
    assert_eq!((&*mine[6], &*mine[9]), ("2", &*address), "statements and node: {mine:?}");
    assert!(clients.iter().any(|row| row[1] == "app" && row[2] == "keyway"), "the console's own");
    let servers = shown(&router, "SERVERS");
    let his = servers.iter().find(|row| row[4] == backend).expect("the backend is listed");
    assert_eq!([&*his[0], &his[1], &his[3], &his[5]], [&*address, "t1", "active", &mine[0]]);
    assert!(his[8].parse::<u64>().unwrap() >= 1, "uses: {his:?}");
    client.query("COMMIT").unwrap();
    wait_for("the backend to be idle", || {
        shown(&router, "SERVERS").iter().any(|row| row[4] == backend && row[3] == "idle")
    });

    let databases = shown(&router, "DATABASES");
    assert_eq!(databases[0][..6], ["app", "yes", "1", "2", "2", "shard1"]);
    let nodes = shown(&router, "NODES");
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[0][..6], ["app", "shard1", &address, "primary", "primary", "yes"]);
    let map = shown(&router, "MAP");
    assert_eq!(map[0][..5], ["app", "1", "1", "shard1", "yes"]);
    assert!(map[1][7].contains("2048 of 4096 slots (2048-4095)"), "{map:?}");
    let config = shown(&router, "CONFIG");
    let size = config.iter().find(|row| row[0] == "pool.size_max").unwrap();
    assert_eq!(size[1..], ["20", "20"]);
    assert!(shown(&router, "VERSION")[0][0].starts_with("Keyway "));
    let help = shown(&router, "HELP");
    assert!(help.iter().any(|row| row[0] == "KILL <client id>"));
}

#[test]
fn counters_of_the_console_and_of_the_pages_move() {
    let router = router(cluster(), "pool.size_max = 1\npool.checkout_timeout = \"100ms\"");
    let work = || {
        let mut client = Wire::open(router.port(), "t1");
        client.query("BEGIN; SELECT 1; COMMIT").unwrap();
        for _ in 0..40 {
            client.query("SELECT 2").unwrap();
        }
        client.query("SELECT nonsense").unwrap_err();
        client.query("BEGIN; SELECT 1").unwrap();
        let mut other = Wire::open(router.port(), "t1");
        assert_eq!(other.query("SELECT 1").unwrap_err().code, "53300");
        let wrong = [("user", "t1"), ("database", "nodb")];
        Wire::try_open(router.port(), &wrong, 0).unwrap_err();
        client.cancel(router.port());
    };
    work();
    let before = (stats(&router), metrics(&router));
    work();
    let after = (stats(&router), metrics(&router));
    for name in [
        "total_xact_count",
        "total_query_count",
        "total_received",
        "total_sent",
        "total_query_time",
        "total_checkouts",
        "checkout_timeouts",
        "plan_hits",
        "cancels",
        "logins_ok",
        "logins_failed",
        "errors_server_42",
        "errors_router_53",
        "errors_router_3D",
    ] {
        let (old, new) = (before.0.get(name), after.0.get(name));
        assert!(new > old && old.is_some(), "{name}: {old:?}, then {new:?}");
    }
    for name in [
        "keyway_statements_total",
        "keyway_transactions_total",
        "keyway_received_bytes_total",
        "keyway_sent_bytes_total",
        "keyway_checkouts_total",
        "keyway_checkout_timeouts_total",
        "keyway_cancels_total",
        "keyway_plans_total{result=\"hit\"}",
        "keyway_logins_total{result=\"ok\"}",
        "keyway_logins_total{result=\"failed\"}",
        "keyway_errors_total{origin=\"server\",class=\"42\"}",
        "keyway_errors_total{origin=\"router\",class=\"53\"}",
        "keyway_statement_duration_seconds_count",
    ] {
        let (old, new) = (before.1.get(name), after.1.get(name));
        assert!(new > old && old.is_some(), "{name}: {old:?}, then {new:?}\n{:#?}", after.1);
    }
    // A counter never goes back, whoever leaves.
    for (name, old) in before.1.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(after.1[name] >= *old, "{name} went back");
    }
    assert_eq!(after.1["keyway_clients_limit"], 10_000.0);
    wait_for("the node to be up", || {
        metrics(&router).iter().any(|(name, up)| name.starts_with("keyway_node_up{") && *up == 1.0)
    });
}

#[test]
fn kill_disconnects_a_client_and_rolls_back() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN; INSERT INTO notes VALUES (-30, 'killed')").unwrap();
    let id = shown(&router, "CLIENTS").iter().find(|row| row[1] == "t1").unwrap()[0].clone();
    psql(&router.console_url(), &format!("KILL {id}")).expect();
    let refusal = client.farewell();
    assert_eq!((&*refusal.code, &*refusal.severity), ("57P01", "FATAL"));
    assert_eq!(refusal.message, "terminating connection due to administrator command");
    wait_for("the client to be gone", || {
        shown(&router, "CLIENTS").iter().all(|row| row[1] != "t1")
    });
    assert_eq!(cluster().sql(1, "SELECT count(*) FROM notes WHERE id = -30"), "0");
    let error = psql(&router.console_url(), &format!("KILL {id}")).expect_error();
    assert!(error.contains(&format!("42704: no client has the number {id}")), "{error}");
    // Also one that runs, waits, or is on the console.
    let mut running = Wire::open(router.port(), "t1");
    running.send_query("SELECT pg_sleep(600)");
    let console = [("user", "a1"), ("database", "keyway")];
    let mut idle = Wire::try_open(router.port(), &console, 0).unwrap();
    wait_for("the statement to run", || {
        shown(&router, "CLIENTS").iter().any(|row| row[3] == "active")
    });
    for row in shown(&router, "CLIENTS").iter().filter(|row| row[1] != "app") {
        psql(&router.console_url(), &format!("KILL {}", row[0])).expect();
    }
    assert_eq!(running.farewell().code, "57P01");
    assert_eq!(idle.farewell().code, "57P01");
}

#[test]
fn console_refuses_what_it_does_not_know_with_a_hint() {
    let router = router(cluster(), "");
    for (sql, says, hint) in [
        ("SHOW POLLS", "42601: the console has no \"polls\" to show", "did you mean SHOW POOLS?"),
        ("SELECT 1", "42601: the console has no command \"select\"", "SHOW HELP"),
        ("BEGIN", "the console has no command \"begin\"", "autocommit"),
        ("KILL 'all'", "KILL needs a client's number", "SHOW CLIENTS"),
        ("SHOW POOLS now", "nothing may follow the command", "SHOW HELP"),
    ] {
        let error = psql(&router.console_url(), sql).expect_error();
        assert!(error.contains(says) && error.contains(hint), "{sql}: {error}");
    }
    let mut console =
        Wire::try_open(router.port(), &[("user", "a1"), ("database", "keyway")], 0).unwrap();
    console.send(b'P', b"\0SHOW POOLS\0\0\0");
    console.send(b'S', b"");
    let refused = console.finish().unwrap_err();
    assert_eq!(refused.code, "0A000");
    assert!(refused.hint.contains("simple query"), "{refused:?}");
    assert!(console.query("SHOW VERSION").is_ok());
}

#[test]
fn pages_are_well_formed_and_nothing_else_is_served() {
    let router = router(cluster(), "");
    let (status, page) = get(&router, "/metrics");
    assert_eq!(status, 200);
    assert!(page.ends_with("# EOF\n"), "{page}");
    let mut family = "";
    let mut seen = std::collections::BTreeSet::new();
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.split(' ');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
            if name != family {
                assert!(seen.insert(name), "{name} comes twice");
                family = name;
            }
            continue;
        }
        assert!(line.starts_with(family), "{line} belongs to {family}");
        let (name, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        assert!(!name.contains("t1"), "no user is a label: {line}");
    }
    assert!(seen.len() > 15, "{seen:?}");
    assert_eq!(get(&router, "/other").0, 404);
}

/// The rows of a SHOW.
fn shown(router: &Router, topic: &str) -> Vec<Vec<String>> {
    let out = psql(&router.console_url(), &format!("SHOW {topic}")).expect();
    out.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

fn stats(router: &Router) -> BTreeMap<String, u64> {
    let number = |row: &Vec<String>| row[1].parse().ok();
    shown(router, "STATS").iter().filter_map(|row| Some((row[0].clone(), number(row)?))).collect()
}

fn metrics(router: &Router) -> BTreeMap<String, f64> {
    let page = get(router, "/metrics").1;
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}
