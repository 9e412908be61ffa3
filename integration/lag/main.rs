//! Reads on replicas, against real servers: clients write and read registers
//! while replicas pause, lag, die, come back and are promoted, and no read may
//! show less than its level promises.
//!
//! `KEYWAY_LAG_OPERATIONS` makes the runs longer (the long form), and
//! `KEYWAY_LAG_SEED` other ones; with `KEYWAY_LAG_PAUSE_MS=0` clients don't pause.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: a panic fails it, and it reports"
)]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod choice;
mod failover;
mod levels;
mod naive;
mod primaries;
mod promotions;
mod registers;
mod transactions;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use naive::{Naive, Rule};
use registers::{Promise, Reader, Seen, Workload};
use support::cluster::{Cluster, ClusterOptions};
use support::router::{Router, RouterOptions};
use support::wait_for;

/// One shard with two replicas and its registers.
fn cluster() -> Cluster {
    let options = ClusterOptions { shards: 1, replicas: 2, ..ClusterOptions::default() };
    // The second replica is copied while the first writes its checkpoints.
    let cluster = Cluster::start_with(options, &[("wal_keep_size", "512MB")]);
    cluster.sql(
        1,
        "CREATE TABLE registers (tenant_id int8 PRIMARY KEY, value int8 NOT NULL) \
         WITH (fillfactor = 50); \
         INSERT INTO registers SELECT i, 0 FROM generate_series(0, 9999) AS i; \
         CREATE TABLE identities AS SELECT i AS tenant_id, i AS value \
         FROM generate_series(0::int8, 9999) AS i; \
         ALTER TABLE identities ADD PRIMARY KEY (tenant_id)",
    );
    cluster.wait_replicated();
    cluster
}

/// Tests that load the machine run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cluster of the tests that leave it whole.
fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(cluster)
}

/// A router whose reads have this level, and whose keys have 1,024 slots.
fn router(cluster: &Cluster, level: &str, config: &str) -> Router {
    router_with(cluster, level, config, str::to_owned)
}

/// The same with a map that is changed further.
fn router_with(
    cluster: &Cluster,
    level: &str,
    config: &str,
    change: impl FnOnce(&str) -> String,
) -> Router {
    let options = RouterOptions::sharded(cluster)
        .with_map(|map| {
            map.replace("consistency = \"any\"", &format!("consistency = \"{level}\""))
                .replace("slots = 4096", "slots = 1024")
                .replace("\"0-4095\"", "\"0-1023\"")
                .replace("\"public.tenants\",", TABLES)
        })
        .with_map(change)
        .with_config(config);
    let text = options.map.as_deref().unwrap();
    assert!(text.contains(level) && text.contains("registers") && text.contains("0-1023"));
    let router = Router::start(cluster, &options);
    // The marks of slots need the catalog.
    wait_for("the catalog", || {
        let explain = "EXPLAIN ROUTE SELECT value FROM registers WHERE tenant_id = 1";
        support::psql::psql(&router.url(), explain).expect().contains("marks|its slot")
    });
    router
}

const TABLES: &str = "\"public.registers\", \"public.identities\", \"public.noted\", \
                      \"public.tenants\",";

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn workload(router: &Router, clients: u64) -> Workload {
    let operations = number("KEYWAY_LAG_OPERATIONS");
    Workload {
        url: router.url(),
        reader: Reader::Router,
        clients,
        registers: 64,
        write_percent: 5,
        transactions: true,
        operations: operations.unwrap_or(12_000),
        stale: u64::MAX,
        // The long form ends by its operations, on a slow machine too.
        limit: Duration::from_secs(operations.map_or(4, |count| 600 + count / 20)),
        pause: Duration::from_millis(number("KEYWAY_LAG_PAUSE_MS").unwrap_or(2)),
        seed: seed(),
        lives: Arc::default(),
    }
}

fn seed() -> u64 {
    number("KEYWAY_LAG_SEED").unwrap_or(7)
}

fn run(workload: &Workload, meanwhile: impl FnOnce(&dyn Fn() -> bool)) -> Seen {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let Reader::Naive(naive) = &workload.reader else {
                    return registers::run(workload, &over).await;
                };
                let watch = naive.watch(|| over.load(Ordering::Relaxed));
                tokio::join!(registers::run(workload, &over), watch).0
            })
        });
        meanwhile(&|| !over.load(Ordering::Relaxed) && !clients.is_finished());
        clients.join().unwrap()
    })
}

/// Processor time of the monitor's session on the primary so far.
fn monitor_cpu(cluster: &Cluster) -> Duration {
    let pids = cluster.superuser_sql(
        1,
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'keyway monitor'",
    );
    let of = |pid: &str| -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", pid.trim())).ok()?;
        stat.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(pids.lines().filter_map(of).sum())
}

/// Reads by their reason, as the router counts them.
fn reads(router: &Router) -> Vec<(String, u64)> {
    let page = page(router.http_port(), "/metrics");
    page.lines()
        .filter_map(|line| line.strip_prefix("keyway_reads_total{reason=\""))
        .filter_map(|rest| {
            let (reason, count) = rest.split_once("\"} ")?;
            Some((reason.to_owned(), count.parse().ok()?))
        })
        .collect()
}

/// A page of the router's.
fn page(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

/// Of the reads that a replica could have served, the share that one did.
fn share(router: &Router) -> f64 {
    share_since(router, &[])
}

/// The same of the reads since `before`.
fn share_since(router: &Router, before: &[(String, u64)]) -> f64 {
    let mut all = reads(router);
    for (reason, count) in &mut all {
        let earlier = before.iter().find(|(other, _)| other == reason);
        *count -= earlier.map_or(0, |(_, count)| *count);
    }
    let sum = |reasons: &[&str]| -> u64 {
        all.iter().filter(|(reason, _)| reasons.contains(&reason.as_str())).map(|(_, n)| n).sum()
    };
    let replica = sum(&["proven", "within_bound", "any"]);
    let primary = sum(&["write_in_flight", "no_replica", "no_replica_fits", "new_connection"]);
    println!("reads: {all:?}");
    #[allow(clippy::cast_precision_loss, reason = "counts of a test")]
    let share = replica as f64 / (replica + primary).max(1) as f64;
    share
}

#[test]
fn level_slot_is_never_stale_whatever_happens_to_the_replicas() {
    let _alone = alone();
    let cluster = shared();
    let router = router(cluster, "slot", "threads = 2");
    let seen = run(&workload(&router, 16), |running| chaos::on_replicas(cluster, seed(), running));
    let share = share(&router);
    println!("slot, chaos: {seen}; {:.1} % of the reads on replicas", share * 100.0);
    assert_eq!((seen.stale, seen.backward), (0, 0), "{seen:?}\n{}", router.log());
    assert!(seen.reads > 300, "{seen:?}");
    assert!(share > 0.03, "replicas serve something: {share}");
}

#[test]
fn every_level_keeps_its_promise_whatever_happens_to_the_replicas() {
    let _alone = alone();
    let cluster = shared();
    let router = router(cluster, "slot", "");
    let workload = Workload { reader: Reader::Levels(PROMISES), ..workload(&router, 16) };
    let seen = run(&workload, |running| chaos::on_replicas(cluster, seed() + 1, running));
    let share = share(&router);
    println!("all levels, chaos: {seen}; {:.1} % of the reads on replicas", share * 100.0);
    assert_eq!((seen.stale, seen.backward), (0, 0), "{seen:?}\n{}", router.log());
    assert!(seen.reads > 300 && share > 0.03, "{share} {seen:?}");
}

const PROMISES: &[Promise] = &[Promise::Slot, Promise::Session, Promise::Bounded(300)];

#[test]
fn every_level_keeps_its_promise_while_primaries_die_and_replicas_are_promoted() {
    let _alone = alone();
    let cluster = cluster();
    promotions::secure(&cluster);
    let router = router(&cluster, "slot", "pool.checkout_timeout = \"20s\"");
    let short = workload(&router, 16);
    let limit = short.limit.max(promotions::SHORT);
    let workload = Workload { reader: Reader::Levels(LEVELS), limit, ..short };
    let mut ends = promotions::Ends::default();
    let seen = run(&workload, |running| {
        let (registers, lives) = (workload.registers, &workload.lives);
        ends = promotions::go_on(&cluster, seed() + 2, registers, lives, running);
    });
    let share = share(&router);
    println!(
        "all levels, primaries die: {seen}; {ends:?}; {:.1} % of the reads on replicas",
        share * 100.0
    );
    assert_eq!((seen.stale, seen.backward), (0, 0), "{seen:?}\n{}", router.log());
    assert_eq!(ends.broken, 0, "what a synchronous commit has secured is there: {ends:?}");
    assert!(ends.promotions + ends.crashes > 0, "{ends:?}");
    assert!(seen.reads > 300 && share > 0.01, "{share} {seen:?}");
}

const LEVELS: &[Promise] = &[
    Promise::Slot,
    Promise::Session,
    Promise::Bounded(300),
    Promise::Slot,
    Promise::Primary,
    Promise::Any,
];

#[test]
fn replicas_that_are_well_serve_most_reads_at_level_slot() {
    let _alone = alone();
    let cluster = shared();
    let router = router(cluster, "slot", "");
    let run_for = workload(&router, 8);
    let limit = run_for.limit * 5;
    let well = Workload { registers: 1_024, operations: 4_000, limit, ..run_for };
    // The first connections are younger than any sample.
    run(&Workload { operations: 300, ..well.clone() }, |_| {});
    // With READ ONLY transactions among them, which need all slots, and without.
    for transactions in [true, false] {
        let before = reads(&router);
        let (cpu_before, began) = (monitor_cpu(cluster), tokio::time::Instant::now());
        let seen = run(&Workload { transactions, ..well.clone() }, |_| {});
        let of_a_core = used_since(cluster, cpu_before, began);
        println!("the monitor's session on the primary: {of_a_core:.2} % of a core");
        let share = share_since(&router, &before);
        println!(
            "slot, healthy, transactions: {transactions}: {seen} in {:?}; {:.1} % of the reads on \
             replicas",
            began.elapsed(),
            share * 100.0
        );
        assert_eq!((seen.stale, seen.backward), (0, 0), "{seen}");
        assert!(share > 0.85, "transactions: {transactions}: {share}");
    }
    let (cpu_before, began) = (monitor_cpu(cluster), tokio::time::Instant::now());
    std::thread::sleep(Duration::from_secs(number("KEYWAY_LAG_IDLE_SECONDS").unwrap_or(1)));
    let of_a_core = used_since(cluster, cpu_before, began);
    println!("the same while nobody writes: {of_a_core:.3} % of a core");
}

/// What the monitor's session took since then, in percent of a core.
fn used_since(cluster: &Cluster, before: Duration, began: tokio::time::Instant) -> f64 {
    let used = monitor_cpu(cluster).saturating_sub(before).as_secs_f64();
    used / began.elapsed().as_secs_f64() * 100.0
}

#[test]
fn keys_that_place_nothing_let_replicas_serve_one_server() {
    let _alone = alone();
    let cluster = shared();
    let router = router_with(cluster, "slot", "threads = 2", marks_only);
    // What a sharded database refuses is run.
    for sql in [
        "SELECT count(*) FROM registers JOIN pg_class ON oid = tenant_id::oid",
        "UPDATE registers SET tenant_id = -1 WHERE tenant_id = 9100",
        "UPDATE registers SET tenant_id = 9100 WHERE tenant_id = -1",
        "PREPARE p(numeric) AS SELECT value FROM registers WHERE tenant_id = $1; EXECUTE p('7.0')",
        "BEGIN READ ONLY; DECLARE c CURSOR FOR SELECT value FROM registers; FETCH 1 FROM c; COMMIT",
    ] {
        support::psql::psql(&router.url(), sql).expect();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(choice::slots_keep_apart(cluster, &router, 9_000));
    let well = workload(&router, 8);
    run(&Workload { operations: 300, ..well.clone() }, |_| {});
    let before = reads(&router);
    let limit = well.limit * 5;
    let seen = run(&Workload { registers: 1_024, operations: 2_000, limit, ..well }, |_| {});
    let share = share_since(&router, &before);
    println!("keys for the marks alone: {seen}; {:.1} % of the reads on replicas", share * 100.0);
    assert_eq!((seen.stale, seen.backward), (0, 0), "{seen}");
    assert!(share > 0.85, "{share}");
    let seen = run(&workload(&router, 16), |running| chaos::on_replicas(cluster, seed(), running));
    println!("keys for the marks alone, chaos: {seen}");
    assert_eq!((seen.stale, seen.backward), (0, 0), "{seen:?}\n{}", router.log());
}

/// The map with its keys for the marks alone.
fn marks_only(map: &str) -> String {
    format!("keys = \"marks\"\n{map}")
}

#[test]
fn the_checker_sees_what_rules_that_look_right_miss() {
    let _alone = alone();
    let cluster = shared();
    let router = router(cluster, "primary", "");
    let primary = &cluster.primary(1).url;
    let replicas = [1, 2].map(|replica| cluster.replica(1, replica).url.as_str());
    for rule in [Rule::Any, Rule::LastCommit, Rule::Received] {
        let registers = 8;
        let naive = Naive::new(rule, primary, &replicas, registers);
        // On few registers that are written often it shows soon.
        let workload = Workload {
            reader: Reader::Naive(Arc::clone(&naive)),
            registers: i64::try_from(registers).unwrap(),
            write_percent: 20,
            stale: 20,
            limit: Duration::from_secs(30),
            ..workload(&router, 16)
        };
        let seen = run(&workload, |running| chaos::on_replicas(cluster, seed(), running));
        println!("{rule:?}, chaos: {seen}");
        assert!(seen.stale > 5, "{rule:?}: {seen:?}");
    }
}

#[test]
fn a_read_that_a_replica_can_not_run_is_run_by_the_primary() {
    let _alone = alone();
    let cluster = shared();
    let router = router(cluster, "any", "");
    // Is labelled as a read, and writes.
    cluster.sql(
        1,
        "CREATE TABLE looks (at timestamptz); \
         CREATE FUNCTION note() RETURNS int LANGUAGE sql AS \
           'INSERT INTO looks VALUES (now()) RETURNING 1'; \
         CREATE FUNCTION noted() RETURNS int LANGUAGE plpgsql STABLE AS \
           'BEGIN RETURN note(); END'; \
         CREATE VIEW noted AS SELECT *, noted() AS seen FROM registers WHERE tenant_id < 3",
    );
    cluster.wait_replicated();
    let reads = ["SELECT tenant_id, seen FROM noted WHERE tenant_id = 1"; 3];
    wait_for("the replicas to be known", || {
        support::psql::psql(&router.url(), reads[0]).expect();
        self::reads(&router).iter().any(|(reason, count)| reason == "tried_again" && *count > 0)
    });
    for sql in reads {
        assert_eq!(support::psql::psql(&router.url(), sql).expect(), "1|1");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = router.url();
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..3 {
            let sql = "SELECT seen FROM noted WHERE tenant_id = $1";
            let row = client.query_one(sql, &[&1_i64]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), 1);
        }
    });
    assert_eq!(cluster.sql(1, "SELECT count(*) > 6 FROM looks"), "t");
}

#[test]
fn a_token_carries_what_one_router_acknowledged_to_another() {
    let _alone = alone();
    let cluster = shared();
    let elsewhere = "reads.writers = \"elsewhere\"";
    let [one, other] = ["session", "any"].map(|level| router(cluster, level, elsewhere));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (writer, reader) = (levels::connect(&one).await, levels::connect(&other).await);
        let read = "SELECT value FROM registers WHERE tenant_id = 5000";
        let write = "UPDATE registers SET value = value + 1 WHERE tenant_id = 5000 RETURNING value";
        wait_for_node(&reader, read, "replica: any will do").await;
        let paused = levels::Paused::new(cluster);
        let value = levels::one(&writer, write).await;
        assert_ne!(levels::one(&reader, read).await, value, "the replicas stand still");
        let token = levels::one(&writer, "SHOW keyway.token").await;
        reader.batch_execute(&format!("SET keyway.after = '{token}'")).await.unwrap();
        assert_eq!(levels::one(&reader, read).await, value);
        drop(paused);
        wait_for_node(&reader, read, "replica: proven").await;
        assert_eq!(levels::one(&reader, read).await, value);
        reader.batch_execute("RESET keyway.after").await.unwrap();
        wait_for_node(&reader, read, "replica: any will do").await;
        for wrong in [format!("{token}0"), "0/3000028".to_owned()] {
            let set = format!("SET keyway.after = '{wrong}'");
            let error = reader.batch_execute(&set).await.unwrap_err();
            let code = error.code().unwrap().code().to_owned();
            assert!(["55000", "22023"].contains(&&*code), "{wrong}: {code}");
        }
    });
}

#[test]
fn a_level_is_a_matter_of_comment_session_table_user_and_database() {
    let _alone = alone();
    let cluster = shared();
    let router = router_with(cluster, "any", "", |map| {
        format!("{map}\n[[reads]]\nconsistency = \"primary\"\ntables = [\"public.identities\"]\n")
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = levels::connect(&router).await;
        let read = "SELECT value FROM registers WHERE tenant_id = 6000";
        wait_for_node(&client, read, "replica: any will do").await;
        let listed = "SELECT value FROM identities WHERE tenant_id = 6000";
        let primary = "primary: consistency is primary";
        assert_eq!(levels::node(&client, listed).await, primary);
        let hinted = read.replace("SELECT", "SELECT /* keyway: consistency=primary */");
        assert_eq!(levels::node(&client, &hinted).await, primary);
        client.batch_execute("SET keyway.consistency = 'any'").await.unwrap();
        assert_eq!(levels::node(&client, listed).await, "replica: any will do");
        assert_eq!(levels::node(&client, &hinted).await, primary);
        // And so they run.
        let _paused = levels::Paused::new(cluster);
        let write = "UPDATE registers SET value = value + 1 WHERE tenant_id = 6000 RETURNING value";
        let value = levels::one(&client, write).await;
        assert_ne!(levels::one(&client, read).await, value);
        assert_eq!(levels::one(&client, &hinted).await, value);
    });
}

/// Waits until EXPLAIN ROUTE says this of the node.
async fn wait_for_node(client: &tokio_postgres::Client, sql: &str, node: &str) {
    for _ in 0..600 {
        if levels::node(client, sql).await == node {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} and not {node}", levels::node(client, sql).await);
}

#[test]
fn a_promotion_moves_the_writes_and_no_replica_of_the_dead_primary_serves() {
    let _alone = alone();
    let cluster = cluster();
    let router = router(&cluster, "slot", "pool.checkout_timeout = \"60s\"");
    support::psql::psql(&router.url(), "SELECT 1").expect();
    let outage = failover::under_load(&cluster, &router);
    println!("{outage:?}");
    assert!(outage.errors <= outage.clients, "only what was in flight fails: {outage:?}");
    assert_eq!(outage.wrong, 0, "and may be tried again: {outage:?}");
    assert!(outage.after_promotion < Duration::from_secs(10), "{outage:?}");
    // The second replica still has the dead primary's data, and more of its
    // log than the new primary, perhaps.
    let seen = run(&Workload { operations: 3_000, ..workload(&router, 8) }, |_| {});
    println!("after the promotion: {seen}");
    assert_eq!((seen.stale, seen.backward), (0, 0), "{seen}");
    assert!(seen.writes > 50, "{seen}");
    failover::two_primaries(&cluster, &router);
}

#[test]
fn writes_go_to_the_primary_that_the_authority_names_and_reads_go_on_without_one() {
    let _alone = alone();
    let cluster = cluster();
    primaries::two_of_them(&cluster);
    primaries::none(&cluster);
    primaries::reads_on_the_way(&cluster);
}

#[test]
fn a_read_whose_replica_connection_is_ended_gets_its_own_answer() {
    let _alone = alone();
    let cluster = shared();
    let router = router(cluster, "any", "");
    let suspects = std::cell::Cell::new(0_u64);
    let states = |state: &str| -> u64 {
        let suffix = format!("state=\"{state}\"}} 1");
        let page = page(router.http_port(), "/metrics");
        page.lines().filter(|line| line.ends_with(&suffix)).count().try_into().unwrap()
    };
    let seen = run_identities(&router, || {
        suspects.set(suspects.get() + states("suspect"));
        for replica in [1, 2] {
            let node = keyway::local::NodeName { shard: 1, replica };
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE usename = 'app' AND application_name <> 'keyway monitor'";
            cluster.servers().superuser_sql(node, sql).unwrap();
        }
    });
    let all = reads(&router);
    println!("{seen} reads; {all:?}; suspect {} times", suspects.get());
    // What clients lose makes a node suspect, and probes make it well again.
    assert!(suspects.get() > 0, "{}", router.log());
    wait_for("all nodes to be healthy", || states("healthy") == 3);
    assert!(all.iter().any(|(reason, count)| reason == "tried_again" && *count > 0), "{all:?}");
}

/// Reads registers whose value is their own number while `strike` is done again
/// and again; every answer must be that of its question.
fn run_identities(router: &Router, strike: impl Fn()) -> u64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|client: i64| {
                let over = &over;
                scope.spawn(move || {
                    let mut runtime = tokio::runtime::Builder::new_current_thread();
                    let runtime = runtime.enable_all().build().unwrap();
                    runtime.block_on(registers::read_identities(&router.url(), client, over))
                })
            })
            .collect();
        for _ in 0..15 {
            std::thread::sleep(Duration::from_millis(100));
            strike();
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}
