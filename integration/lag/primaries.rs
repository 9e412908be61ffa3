//! Which node gets the writes when two say that they are the primary, or none
//! does; and what a Patroni says of that, as its manual has it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use keyway::local::{NodeName, Stop};

use super::support::cluster::Cluster;
use super::support::psql::{Psql, psql};
use super::support::router::Router;
use super::support::wait_for;
use super::{levels, router};

/// The Patronis of all nodes: `/{port}/primary` answers for the node there.
pub(crate) struct Patroni {
    address: String,
    /// Whose answer is 200; zero is nobody's.
    leader: Arc<AtomicU16>,
}

impl Patroni {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let leader = Arc::new(AtomicU16::new(0));
        let told = Arc::clone(&leader);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who asks may be gone.
                let _ = answer(stream, told.load(Ordering::SeqCst));
            }
        });
        Self { address, leader }
    }

    pub(crate) fn config(&self) -> String {
        let url = format!("http://{}/{{port}}/primary", self.address);
        format!("nodes.authority = \"patroni\"\nnodes.patroni_url = \"{url}\"")
    }

    pub(crate) fn name(&self, port: u16) {
        self.leader.store(port, Ordering::SeqCst);
    }
}

fn answer(mut stream: TcpStream, leader: u16) -> std::io::Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(stream.try_clone()?);
    lines.read_line(&mut request)?;
    let mut header = String::from("x");
    while header.trim() != "" {
        header.clear();
        lines.read_line(&mut header)?;
    }
    let leads = request.starts_with(&format!("GET /{leader}/primary HTTP/1."));
    let (status, role) =
        if leads { ("200 OK", "primary") } else { ("503 Service Unavailable", "replica") };
    write!(
        stream,
        "HTTP/1.0 {status}\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\
         \r\n\r\n{{\"state\": \"running\", \"role\": \"{role}\", \"server_version\": 180000, \
         \"timeline\": 2, \"patroni\": {{\"version\": \"4.0.4\", \"scope\": \"demo\"}}}}"
    )
}

/// The port of the node that a router writes to, or its refusal.
pub(crate) fn writer(router: &Router) -> Result<u16, String> {
    let sql = "UPDATE registers SET value = value + 1 WHERE tenant_id = 77 \
               RETURNING inet_server_port()";
    match psql(&router.url(), sql) {
        Psql::Done(port) => Ok(port.trim().parse().unwrap()),
        Psql::Failed(error) => Err(error),
    }
}

/// Waits until a router's writes go to this port.
pub(crate) fn wait_for_writer(router: &Router, port: u16) {
    wait_for(&format!("writes on port {port}"), || writer(router) == Ok(port));
}

/// Waits until writes are refused with these words.
fn wait_for_refusal(router: &Router, words: &str) {
    wait_for(words, || {
        writer(router).is_err_and(|error| error.contains("57P03") && error.contains(words))
    });
    assert!(writer(router).is_err(), "and they stay stopped");
}

/// A column of `SHOW NODES` of the node on this port.
fn node_of(router: &Router, port: u16, column: usize) -> String {
    let rows = psql(&router.console_url(), "SHOW NODES").expect();
    let row = rows.lines().find(|row| row.contains(&format!(":{port}|"))).unwrap().to_owned();
    row.split('|').nth(column).unwrap().to_owned()
}

/// Two primaries before four routers: nobody, the map, Patroni and an operator
/// name one. Ends with the declared primary as a replica of the other.
pub(crate) fn two_of_them(cluster: &Cluster) {
    let node = |replica| NodeName { shard: 1, replica };
    let (old, new) = (cluster.primary(1).port, cluster.replica(1, 1).port);
    let patroni = Patroni::start();
    patroni.name(old);
    let by_nobody = router(cluster, "slot", "");
    let by_map = router(cluster, "slot", "nodes.authority = \"map\"");
    let by_patroni = router(cluster, "slot", &patroni.config());
    let by_console = router(cluster, "slot", "nodes.authority = \"console\"");
    for router in [&by_nobody, &by_map, &by_patroni, &by_console] {
        wait_for_writer(router, old);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let update = "UPDATE registers SET value = value + 100 WHERE tenant_id = 78";
    let client = runtime.block_on(async {
        let client = levels::connect(&by_patroni).await;
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(update).await.unwrap();
        client
    });
    cluster.servers().promote_node(node(1)).unwrap();
    wait_for_refusal(&by_nobody, "several nodes");
    wait_for_refusal(&by_console, "several nodes");
    assert!(by_nobody.log().contains("several nodes of the shard are primaries"));
    assert_eq!(node_of(&by_nobody, old, 5), "no");
    wait_for("the map's router to see both", || node_of(&by_map, new, 4) == "primary");
    wait_for("Patroni's router to see both", || node_of(&by_patroni, new, 4) == "primary");
    assert_eq!((writer(&by_map), writer(&by_patroni)), (Ok(old), Ok(old)));
    let name = |port: u16| format!("SET PRIMARY shard1 '127.0.0.1:{port}'");
    psql(&by_console.console_url(), &name(new)).expect();
    assert_eq!(writer(&by_console), Ok(new));
    psql(&by_console.console_url(), &name(old)).expect();
    assert_eq!(writer(&by_console), Ok(old), "the last word counts");
    let refused = psql(&by_map.console_url(), &name(new));
    assert!(matches!(refused, Psql::Failed(error) if error.contains("55000")));
    // The leader changes: what was open on the old one must not be committed.
    patroni.name(new);
    wait_for_writer(&by_patroni, new);
    runtime.block_on(async {
        let committed = client.batch_execute("COMMIT; SELECT 1").await;
        drop(committed);
    });
    let sql = "SELECT value FROM registers WHERE tenant_id = 78";
    assert_eq!(cluster.sql(1, sql), "0", "it was rolled back on the old primary");
    patroni.name(0);
    wait_for_refusal(&by_patroni, "is confirmed");
    patroni.name(new);
    wait_for_writer(&by_patroni, new);
    // The old one is gone, and comes back as a replica.
    cluster.servers().stop_node(node(0), Stop::Kill).unwrap();
    for router in [&by_nobody, &by_map, &by_patroni, &by_console] {
        wait_for_writer(router, new);
        asks_settings(router);
    }
    cluster.servers().rejoin_node(node(0)).unwrap();
    for router in [&by_nobody, &by_map, &by_patroni, &by_console] {
        wait_for("the old primary to serve as a replica", || {
            node_of(router, old, 4) == "replica" && node_of(router, old, 6) == "healthy"
        });
        for _ in 0..10 {
            assert_eq!(writer(router), Ok(new), "whatever the map declares");
        }
        serves_reads(cluster, router, old);
    }
}

/// A login's settings are asked of the primary of now, not of the declared one,
/// which is gone: what it refuses ends the login.
fn asks_settings(router: &Router) {
    let url = format!("{}&options=-c%20work_mem%3Dplenty", router.url());
    let refused = psql(&url, "SELECT 1");
    assert!(matches!(&refused, Psql::Failed(error) if error.contains("FATAL")), "{refused:?}");
}

/// Waits until reads through `router` have reached the node at `old`, the declared
/// primary, and its proof is shown.
fn serves_reads(cluster: &Cluster, router: &Router, old: u16) {
    let read = format!("SELECT value FROM identities WHERE tenant_id = {}", router.port() % 9_999);
    let any = format!("/* keyway: consistency=any */ {read}");
    let seen = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE query LIKE '%{read}' AND pid <> pg_backend_pid()"
    );
    wait_for("reads of the old primary", || {
        psql(&router.url(), &any).expect();
        cluster.servers().superuser_sql(NodeName { shard: 1, replica: 0 }, &seen).unwrap() != "0"
    });
    wait_for("a proof of the old primary's", || !node_of(router, old, 10).is_empty());
}

/// Reads that no replica has proven are on their way to a primary that has died
/// before anybody noticed: they are served at the allowed staleness, or by the next
/// primary, and never refused. The primary is the first replica.
pub(crate) fn reads_on_the_way(cluster: &Cluster) {
    let [primary, next] = [1, 0].map(|replica| NodeName { shard: 1, replica });
    let config = "pool.checkout_timeout = \"10min\"\nreads.read_only_when_primary_down =";
    let [serves, waits] =
        ["\"1h\"", "0"].map(|allowed| router(cluster, "slot", &format!("{config} {allowed}")));
    let write = "UPDATE registers SET value = value + 1 WHERE tenant_id = 80 RETURNING value";
    let read = "SELECT value FROM registers WHERE tenant_id = 80";
    let sql = |node, sql: &str| cluster.servers().superuser_sql(node, sql).unwrap();
    let says = |router: &Router, what: &str| {
        wait_for(what, || {
            psql(&router.url(), &format!("EXPLAIN ROUTE {read}")).expect().contains(what)
        });
    };
    for router in [&serves, &waits] {
        says(router, "replica: proven");
    }
    for replica in [0, 2] {
        let pause = "SELECT pg_wal_replay_pause() WHERE pg_is_in_recovery()";
        sql(NodeName { shard: 1, replica }, pause);
    }
    let before = psql(&serves.url(), write).expect();
    let written = psql(&waits.url(), write).expect();
    assert_ne!(before, written);
    for router in [&serves, &waits] {
        says(router, "primary: no replica fits");
    }
    let end = sql(primary, "SELECT pg_current_wal_lsn()");
    let arrived = format!("SELECT pg_last_wal_receive_lsn() >= '{end}'");
    wait_for("the next primary to have the write", || sql(next, &arrived) == "t");
    cluster.servers().stop_node(primary, Stop::Kill).unwrap();
    // What was sent to it fails with it; what waits is not refused.
    let answer = |router: &Router| loop {
        match psql(&router.url(), read) {
            Psql::Done(value) => return value,
            Psql::Failed(error) => assert!(error.contains("08006"), "{error}"),
        }
    };
    std::thread::scope(|scope| {
        let late = scope.spawn(|| answer(&waits));
        let stale: i64 = answer(&serves).parse().unwrap();
        assert!(stale < written.parse().unwrap(), "a replica that stands still");
        sql(next, "SELECT pg_wal_replay_resume()");
        cluster.servers().promote_node(next).unwrap();
        assert_eq!(late.join().unwrap(), written, "the next primary");
    });
}

/// Without a primary reads are served at the allowed staleness, and nothing
/// else is. The primary is the first replica.
pub(crate) fn none(cluster: &Cluster) {
    let primary = NodeName { shard: 1, replica: 1 };
    let config = "pool.checkout_timeout = \"1s\"\n";
    let allowed = "reads.read_only_when_primary_down = \"1h\"";
    let serves = router(cluster, "slot", &format!("{config}{allowed}"));
    let waits = router(cluster, "slot", config);
    let write = "UPDATE registers SET value = value + 1 WHERE tenant_id = 79 RETURNING value";
    let read = |level: &str| {
        format!(
            "SELECT /* keyway: consistency={level} */ value FROM registers WHERE tenant_id = 79"
        )
    };
    let value = psql(&serves.url(), write).expect();
    psql(&waits.url(), "SELECT 1").expect();
    let proven = |router: &Router| {
        wait_for("a proof", || {
            let explain = format!("EXPLAIN ROUTE {}", read("slot"));
            psql(&router.url(), &explain).expect().contains("replica: proven")
        });
    };
    proven(&serves);
    proven(&waits);
    cluster.servers().stop_node(primary, Stop::Kill).unwrap();
    for level in ["slot", "session", "bounded(100ms)"] {
        // Until its end is noticed a replica serves as before, or sends the read there.
        let missed = || {
            let reasons = super::reads(&serves);
            reasons.iter().find(|(why, _)| why == "primary_down").map_or(0, |(_, count)| *count)
        };
        let before = missed();
        wait_for("a read without a primary", || {
            psql(&serves.url(), &read(level)) == Psql::Done(value.clone()) && missed() > before
        });
        for _ in 0..3 {
            assert_eq!(psql(&serves.url(), &read(level)), Psql::Done(value.clone()), "{level}");
        }
    }
    assert!(super::reads(&serves).iter().any(|(why, count)| why == "primary_down" && *count > 5));
    let failed = |router: &Router, sql: &str| matches!(psql(&router.url(), sql), Psql::Failed(_));
    assert!(failed(&serves, &read("primary")) && failed(&serves, write));
    assert!(failed(&waits, &read("slot")), "no staleness is allowed there");
    cluster.servers().start_node(primary).unwrap();
    for router in [&serves, &waits] {
        wait_for("writes again", || !failed(router, write));
        assert!(!failed(router, &read("slot")));
    }
}
