//! Where a read goes and why: what EXPLAIN ROUTE says, what is counted, and that
//! a slow node holds nobody but its own clients.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::levels::{Paused, connect, node, one};
use super::support::cluster::Cluster;
use super::support::router::Router;
use super::{alone, reads, router, shared, wait_for_node};

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn count(router: &Router, reason: &str) -> u64 {
    reads(router).iter().find(|(other, _)| other == reason).map_or(0, |(_, count)| *count)
}

#[test]
fn a_write_in_flight_keeps_its_own_slot_on_the_primary_and_no_other() {
    let _alone = alone();
    let cluster = shared();
    let router = router(cluster, "slot", "");
    block_on(async {
        slots_keep_apart(cluster, &router, 8000).await;
        let [writer, reader] = [connect(&router).await, connect(&router).await];
        let read = "SELECT value FROM registers WHERE tenant_id = 8002";
        // A replica that stands still is named with its lag.
        let paused = Paused::new(cluster);
        let write = "UPDATE registers SET value = value + 1 WHERE tenant_id = 8002 RETURNING value";
        one(&writer, write).await;
        let said = node(&reader, read).await;
        let behind =
            said.strip_prefix("primary: no replica fits (2 too far behind); the nearest is ");
        assert!(behind.is_some_and(|lag| lag.ends_with(" ms behind")), "{said}");
        let before = count(&router, "no_replica_fits");
        one(&reader, read).await;
        for _ in 0..200 {
            if count(&router, "no_replica_fits") > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(count(&router, "no_replica_fits") > before);
        drop(paused);
        let console = super::support::psql::psql(&router.console_url(), "SHOW STATS").expect();
        assert!(console.contains("write_in_flight") && console.contains("proven"), "{console}");
    });
}

/// A write in flight to the key after `first` keeps reads of its slot on the primary,
/// and no others.
pub(crate) async fn slots_keep_apart(cluster: &Cluster, router: &Router, first: i64) {
    let [writer, reader] = [connect(router).await, connect(router).await];
    let read = |tenant: i64| format!("SELECT value FROM registers WHERE tenant_id = {tenant}");
    wait_for_node(&reader, &read(first), "replica: proven").await;
    // Somebody holds the row: the write is sent, and is not acknowledged.
    let (holder, connection) =
        tokio_postgres::connect(&cluster.primary(1).url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = format!("BEGIN; {} FOR UPDATE", read(first + 1));
    holder.batch_execute(&lock).await.unwrap();
    let write = format!(
        "UPDATE registers SET value = value + 1 WHERE tenant_id = {} RETURNING value",
        first + 1
    );
    let written = tokio::spawn(async move { one(&writer, &write).await });
    wait_for_node(&reader, &read(first + 1), "primary: write in flight").await;
    // Several keys wait for their own slots only.
    let several = |keys: [i64; 3]| {
        read(0).replace("= 0", &format!("IN ({}, {}, {})", keys[0], keys[1], keys[2]))
    };
    wait_for_node(&reader, &several([first, first + 3, first + 4]), "replica: proven").await;
    wait_for_node(&reader, &several([first, first + 1, first]), "primary: write in flight").await;
    // And so runs a transaction that began before: nobody was told of the write.
    reader.batch_execute("BEGIN READ ONLY").await.unwrap();
    one(&reader, &several([first, first + 1, first])).await;
    reader.batch_execute("COMMIT").await.unwrap();
    let before = (count(router, "proven"), count(router, "write_in_flight"));
    wait_for_node(&reader, &read(first), "replica: proven").await;
    // The first may find a connection that is too new.
    for _ in 0..200 {
        for tenant in [first, first + 1] {
            one(&reader, &read(tenant)).await;
        }
        let now = (count(router, "proven"), count(router, "write_in_flight"));
        if now.0 > before.0 && now.1 > before.1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(count(router, "proven") > before.0, "{:?}", reads(router));
    assert!(count(router, "write_in_flight") > before.1, "{:?}", reads(router));
    holder.batch_execute("COMMIT").await.unwrap();
    let written = written.await.unwrap();
    assert_eq!(one(&reader, &read(first + 1)).await, written);
    wait_for_node(&reader, &read(first + 1), "replica: proven").await;
}

#[test]
fn a_node_that_is_slow_holds_nobody_but_its_own_clients() {
    let _alone = alone();
    let cluster = shared();
    let router = router(cluster, "any", "pool.size_max = 2\npool.checkout_timeout = \"60s\"");
    block_on(async {
        let client = connect(&router).await;
        let read = "SELECT value FROM identities WHERE tenant_id = 1";
        wait_for_node(&client, read, "replica: any will do").await;
        // More of them than the replicas have connections: some wait for one.
        let slow = "SELECT value, pg_sleep(4) FROM identities WHERE tenant_id = 1";
        let began = Instant::now();
        let mut sleepers = Vec::new();
        for _ in 0..8 {
            let sleeper = connect(&router).await;
            sleepers.push(tokio::spawn(async move {
                sleeper.batch_execute("BEGIN READ ONLY").await.unwrap();
                sleeper.batch_execute(slow).await.unwrap();
                sleeper.batch_execute("COMMIT").await.unwrap();
            }));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let primary = "SELECT /* keyway: consistency=primary */ value FROM identities \
                       WHERE tenant_id = 2";
        for _ in 0..20 {
            let answer = timeout(Duration::from_secs(20), one(&client, primary)).await.unwrap();
            assert_eq!(answer, "2");
        }
        let answered = began.elapsed();
        let waiting = sleepers.iter().filter(|sleeper| !sleeper.is_finished()).count();
        assert!(waiting > 0, "the replicas are busy for longer: {answered:?}");
        for sleeper in sleepers {
            sleeper.await.unwrap();
        }
        // Twice as many as fit at once take their sleep twice.
        assert!(began.elapsed() > Duration::from_secs(6), "{:?}", began.elapsed());
    });
}
