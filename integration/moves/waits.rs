//! What clients of a router see of moves: a wait, and nothing else.
//!
//! `KEYWAY_CUTOVERS` sets how often the tenant changes sides (the long form).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::routed::{Routed, runtime};
use crate::support::psql::{Psql, psql};
use crate::support::wait_for;
use crate::whole::fill;

/// What one client of the router's has done.
struct Done {
    tenant: i64,
    writer: i32,
    rows: i32,
    errors: Vec<String>,
    /// Begin and length of each unit of work.
    took: Vec<(Instant, Duration)>,
}

/// Clients on a thread of their own.
struct Clients {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Done>>,
}

impl Clients {
    /// Each has a tenant and a number, and has written once this returns.
    fn start(url: &str, all: Vec<(i64, i32)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicUsize::new(0));
        let (url, stopped, count) = (url.to_owned(), Arc::clone(&stop), all.len());
        let begin = Arc::clone(&begun);
        let thread = std::thread::spawn(move || {
            runtime().block_on(async move {
                let one = |(tenant, writer)| {
                    let signals = (Arc::clone(&begin), Arc::clone(&stopped));
                    tokio::spawn(client(url.clone(), tenant, writer, signals))
                };
                let tasks: Vec<_> = all.into_iter().map(one).collect();
                let mut done = Vec::new();
                for task in tasks {
                    done.push(task.await.unwrap());
                }
                done
            })
        });
        wait_for("all clients write", || begun.load(Ordering::Relaxed) == count);
        Self { stop, thread }
    }

    fn end(self) -> Vec<Done> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Writes rows of one tenant, one after the other: alone, as a parameter, or
/// two in a transaction.
async fn client(
    url: String,
    tenant: i64,
    writer: i32,
    (begun, stop): (Arc<AtomicUsize>, Arc<AtomicBool>),
) -> Done {
    let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let mut done = Done { tenant, writer, rows: 0, errors: Vec::new(), took: Vec::new() };
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        match unit(&mut client, tenant, writer, done.rows).await {
            Ok(rows) => done.rows += rows,
            Err(error) => done.errors.push(format!("{error:?}")),
        }
        if done.took.is_empty() {
            begun.fetch_add(1, Ordering::Relaxed);
        }
        done.took.push((begin, begin.elapsed()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    done
}

async fn unit(
    client: &mut Client,
    tenant: i64,
    writer: i32,
    rows: i32,
) -> Result<i32, tokio_postgres::Error> {
    let text = |seq: i32| {
        format!("INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, {writer}, {seq})")
    };
    let bound = "INSERT INTO ledger (tenant_id, writer, seq) VALUES ($1, $2, $3)";
    match writer % 3 {
        0 => client.batch_execute(&text(rows + 1)).await.map(|()| 1),
        1 => {
            client.execute(bound, &[&tenant, &writer, &(rows + 1)]).await?;
            Ok(1)
        }
        _ => {
            let transaction = client.transaction().await?;
            transaction.batch_execute(&text(rows + 1)).await?;
            transaction.execute(bound, &[&tenant, &writer, &(rows + 2)]).await?;
            transaction.commit().await?;
            Ok(2)
        }
    }
}

/// What the console's statistics say of `name`: how often a statement of
/// anybody has waited for a move (`held`), or was refused by a fence (`fenced`).
fn stat(routed: &Routed, name: &str) -> u64 {
    let stats = routed.console("SHOW STATS").expect();
    let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('|'));
    value.unwrap().parse().unwrap()
}

/// Every acknowledged row is there once, on its owner, and nobody saw an error.
fn check(routed: &Routed, done: &[Done], owner: impl Fn(i64) -> u16) {
    for client in done {
        let Done { tenant, writer, rows, errors, .. } = client;
        assert!(errors.is_empty(), "tenant {tenant}, writer {writer}: {errors:?}");
        assert!(*rows > 0, "tenant {tenant}, writer {writer} has written nothing");
        let sql = format!(
            "SELECT count(*) || ' ' || count(DISTINCT seq) FROM ledger \
             WHERE tenant_id = {tenant} AND writer = {writer}"
        );
        let found = routed.world.cluster.sql(owner(*tenant), &sql);
        assert_eq!(found, format!("{rows} {rows}"), "tenant {tenant}, writer {writer}");
    }
}

#[test]
fn clients_of_a_router_see_nothing_of_a_move_but_a_wait_and_other_tenants_not_even_that() {
    let count: u32 =
        std::env::var("KEYWAY_CUTOVERS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let routed = Routed::start();
    let world = &routed.world;
    let tenants: BTreeMap<i64, u16> = [1, 2]
        .into_iter()
        .flat_map(|shard| (0..25).map(move |skip| (world.tenant_on(shard, skip), shard)))
        .collect();
    for (tenant, shard) in &tenants {
        fill(world, *shard, *tenant, 50);
    }
    let tenant = world.tenant_on(1, 0);
    let others = tenants.keys().copied().filter(|other| *other != tenant);
    let others = Clients::start(&routed.router.url(), others.cycle().zip(0..16).collect());

    routed.console(&format!("MOVE TENANT {tenant} TO shard2")).expect();
    routed.wait_state("switched");
    assert_eq!(stat(&routed, "held"), 0, "writers of other tenants were held");

    let fenced = stat(&routed, "fenced");
    let own = (100..116).map(|writer| (tenant, writer)).collect();
    let own = Clients::start(&routed.router.url(), own);
    let mut windows = Vec::new();
    let mut side = 2;
    for _ in 0..count {
        let begin = Instant::now();
        let (wish, state) = if side == 2 { ("REVERSE", "ready") } else { ("RESUME", "switched") };
        routed.console(&format!("{wish} MOVE 1")).expect();
        routed.wait_state(state);
        side = 3 - side;
        windows.push((begin, Instant::now()));
        std::thread::sleep(Duration::from_millis(300));
    }
    if side == 2 {
        // Nobody's writes may keep the purge from its end.
        routed.console("FINISH MOVE 1").expect();
        routed.wait_state("done");
    }
    let own = own.end();
    let others = others.end();
    check(&routed, &own, |_| side);
    check(&routed, &others, |other| tenants[&other]);
    assert!(stat(&routed, "held") > 0, "nobody was held");
    assert_eq!(stat(&routed, "fenced"), fenced, "the fence closed before the writers were held");
    report(&own, &others, &windows);
}

#[test]
fn an_open_transaction_undoes_a_cutover_and_keeps_the_purge_back_and_is_named() {
    let routed = Routed::start();
    let tenant = routed.world.tenant_on(1, 0);
    fill(&routed.world, 1, tenant, 50);
    let runtime = runtime();
    let (blocker, connection) =
        runtime.block_on(tokio_postgres::connect(&routed.router.url(), NoTls)).unwrap();
    runtime.spawn(async move { drop(connection.await) });
    let run = |sql: &str| runtime.block_on(blocker.batch_execute(sql)).unwrap();
    let insert =
        |seq| format!("INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, 1, {seq})");
    let named = |state: &str| {
        wait_for(&format!("a move that is {state} and names a client"), || {
            let moves = routed.console("SHOW MOVES").expect();
            moves.contains(&format!("|{state}|")) && moves.contains("ms: client ")
        });
    };
    run("SET application_name = 'blocker'");
    routed.console(&format!("MOVE TENANT {tenant} TO shard2")).expect();
    routed.wait_state("switched");

    run(&format!("BEGIN; {}", insert(1)));
    routed.console("REVERSE MOVE 1").expect();
    named("switched");
    // Those who were held are let go.
    assert_eq!(psql(&routed.router.url(), &insert(2)), Psql::Done(String::new()));
    run(&format!("{}; COMMIT", insert(3)));
    routed.wait_state("ready");

    routed.console("RESUME MOVE 1").expect();
    routed.wait_state("switched");
    run(&format!("BEGIN; SELECT 1 FROM accounts WHERE tenant_id = {tenant}"));
    routed.console("FINISH MOVE 1").expect();
    named("purging");
    run("COMMIT");
    routed.wait_state("done");
    let count = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant} AND writer = 1");
    assert_eq!(routed.world.cluster.sql(2, &count), "3");
    runtime.block_on(routed.world.nothing_left());
    // With nothing left of the move, reads of both shards are answered again.
    assert_eq!(
        psql(&routed.router.url(), "SELECT count(*) FROM accounts"),
        Psql::Done("1".to_owned())
    );
}

/// For each client and each cutover the longest write.
fn report(own: &[Done], others: &[Done], windows: &[(Instant, Instant)]) {
    for (who, clients) in [("the moving tenant", own), ("others", others)] {
        let mut longest: Vec<Duration> = Vec::new();
        for client in clients {
            for (begin, end) in windows {
                let within = |(at, took): &&(Instant, Duration)| at < end && *at + *took > *begin;
                longest.extend(client.took.iter().filter(within).map(|(_, took)| *took).max());
            }
        }
        longest.sort();
        println!(
            "{} cutovers, {} writers of {who}: the longest write of each in each took \
             {:?} (median), {:?} (maximum)",
            windows.len(),
            clients.len(),
            longest[longest.len() / 2],
            longest.last().unwrap(),
        );
    }
}
