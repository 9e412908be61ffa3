//! Reads over both shards while rows move between them: each row counts once
//! at every moment, and nothing that was acknowledged is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use crate::routed::{Routed, runtime};
use crate::support::psql::psql;
use crate::support::wait_for;
use crate::whole::fill;

/// Rows that nobody writes while the test runs, and one table that grows.
const STANDING: i64 = 300;

/// What is known of the rows from outside.
#[derive(Default)]
struct Known {
    stop: AtomicBool,
    /// Rows that were about to be written, and those that were acknowledged.
    begun: AtomicI64,
    done: AtomicI64,
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// Writes rows of the moving tenant, one after the other.
async fn write(url: String, tenant: i64, known: Arc<Known>) {
    let client = connect(&url).await;
    while !known.stop.load(Ordering::SeqCst) {
        let seq = known.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let sql =
            format!("INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, 1, {})", seq);
        client.batch_execute(&sql).await.unwrap();
        known.done.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// One way of counting the rows that stand, and one of those that are written.
async fn look(client: &Client, way: usize) -> (i64, i64) {
    let count = |writer: &str| format!("SELECT count(*) FROM ledger WHERE writer = {writer}");
    let simple = async |sql: &str| -> Vec<String> {
        let all = client.simple_query(sql).await.unwrap();
        let row = |message: &tokio_postgres::SimpleQueryMessage| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        };
        all.iter().filter_map(row).collect()
    };
    let number = |rows: Vec<String>| rows[0].parse::<i64>().unwrap();
    match way {
        // Parts, put together by a server.
        0 => (number(simple(&count("1000")).await), number(simple(&count("1")).await)),
        // Rows in order, streamed by the router; with a parameter.
        1 => {
            let sql = "SELECT l.seq FROM ledger l JOIN accounts USING (tenant_id) \
                       WHERE writer = $1 OR false -- all\n ORDER BY seq";
            let standing = client.query(sql, &[&1000]).await.unwrap().len();
            let written = client.query(sql, &[&1]).await.unwrap().len();
            (i64::try_from(standing).unwrap(), i64::try_from(written).unwrap())
        }
        // Rows brought to one server, by a statement that is prepared once.
        2 => {
            let sql = "WITH one AS (SELECT writer, count(DISTINCT (tenant_id, id)) AS n, \
                       count(*) AS m FROM ledger GROUP BY writer) \
                       SELECT n FROM one WHERE n = m AND writer = ANY ($1) ORDER BY writer DESC";
            let rows = client.query(sql, &[&vec![1, 1000]]).await.unwrap();
            (rows[0].get(0), rows.get(1).map_or(0, |row| row.get(0)))
        }
        // No WHERE, and the first rows of a sort that the router can't compare.
        _ => {
            let all = number(simple("SELECT sum(1) FROM events").await);
            let some =
                simple("SELECT coalesce(note, '') || id FROM ledger ORDER BY 1 LIMIT 100000");
            let some = i64::try_from(some.await.len()).unwrap();
            (all / 2, some - STANDING)
        }
    }
}

/// Looks again and again; how often.
async fn watch(url: String, way: usize, known: Arc<Known>) -> u64 {
    let client = connect(&url).await;
    let mut looks = 0;
    while !known.stop.load(Ordering::SeqCst) {
        let before = known.done.load(Ordering::SeqCst);
        let (standing, written) = look(&client, way).await;
        let after = known.begun.load(Ordering::SeqCst);
        assert_eq!(standing, STANDING, "way {way}");
        assert!(
            (before..=after).contains(&written),
            "way {way}: {before} were acknowledged and {after} begun, but {written} seen"
        );
        looks += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    looks
}

/// A move from its begin to its end, with what can be done on the way.
fn whole_move(routed: &Routed, id: u32, what: &str, target: u16) {
    let pause = || std::thread::sleep(Duration::from_millis(250));
    let answer = routed.console(&format!("MOVE {what} TO shard{target}")).expect();
    assert_eq!(answer, id.to_string());
    routed.wait_state_of(id, "switched");
    pause();
    routed.console(&format!("REVERSE MOVE {id}")).expect();
    routed.wait_state_of(id, "ready");
    pause();
    routed.console(&format!("RESUME MOVE {id}")).expect();
    routed.wait_state_of(id, "switched");
    pause();
    routed.console(&format!("FINISH MOVE {id}")).expect();
    routed.wait_state_of(id, "done");
}

#[test]
fn reads_over_shards_count_each_row_once_at_every_moment_of_a_move() {
    let rounds: u32 = std::env::var("KEYWAY_MOVES").map_or(1, |count| count.parse().unwrap());
    let routed = Routed::start();
    let world = &routed.world;
    let (tenant, other) = (world.tenant_on(1, 0), world.tenant_on(2, 0));
    let third = u32::try_from(STANDING / 3).unwrap();
    fill(world, 1, tenant, third);
    fill(world, 1, world.tenant_on(1, 1), third);
    fill(world, 2, other, third);
    world.cluster.sql_everywhere(
        "INSERT INTO events (tenant_id, at, what) SELECT tenant_id, at, what FROM events",
    );
    let url = routed.router.url();
    wait_for("the schemas", || {
        psql(&url, "SELECT count(*) FROM ledger")
            == crate::support::psql::Psql::Done(STANDING.to_string())
    });
    let known = Arc::new(Known::default());
    let clients = {
        let (url, known) = (url.clone(), Arc::clone(&known));
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let writer = tokio::spawn(write(url.clone(), tenant, Arc::clone(&known)));
                let watch = |way| tokio::spawn(watch(url.clone(), way, Arc::clone(&known)));
                let watchers: Vec<_> = (0..4).map(watch).collect();
                let mut looks = Vec::new();
                for watcher in watchers {
                    looks.push(watcher.await.unwrap());
                }
                writer.await.unwrap();
                looks
            })
        })
    };
    let mut id = 0;
    for _ in 0..rounds {
        for (what, target) in [(format!("TENANT {tenant}"), 2), (format!("TENANT {tenant}"), 1)] {
            id += 1;
            whole_move(&routed, id, &what, target);
            assert!(!clients.is_finished(), "a client has seen something wrong");
        }
    }
    // A move that is given up, whose rows can't be removed yet.
    id += 1;
    routed.console(&format!("MOVE TENANT {tenant} TO shard2")).expect();
    wait_for("a copy", || {
        let count = format!("SELECT count(*) > 0 FROM ledger WHERE tenant_id = {tenant}");
        world.cluster.sql(2, &count) == "t"
    });
    routed.console(&format!("ABORT MOVE {id}")).expect();
    routed.wait_state_of(id, "aborted");
    known.stop.store(true, Ordering::SeqCst);
    let looks = clients.join().unwrap();
    runtime().block_on(world.nothing_left());
    println!(
        "{id} moves, {} rows written, looks by way: {looks:?}",
        known.done.load(Ordering::SeqCst)
    );
    assert!(looks.iter().all(|looks| *looks > 10), "{looks:?}");
}
