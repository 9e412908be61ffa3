//! A primary dies and a replica is promoted; the old one comes back as a
//! second primary.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keyway::local::{NodeName, Stop};
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use super::support::cluster::Cluster;
use super::support::psql::{Psql, psql};
use super::support::router::Router;
use super::support::wait_for;

/// What clients that only write saw of a failover.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) clients: u64,
    pub(crate) errors: u64,
    /// Those of them that don't tell the client to try again.
    pub(crate) wrong: u64,
    /// From the promotion's end to the first write that was acknowledged.
    pub(crate) after_promotion: Duration,
}

/// Kills the primary of shard 1 and promotes its first replica while clients
/// write, each statement by itself.
pub(crate) fn under_load(cluster: &Cluster, router: &Router) -> Outage {
    let over = AtomicBool::new(false);
    let (errors, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    // In microseconds since the start; zero is "not yet".
    let (promoted, written) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let now = || u64::try_from(began.elapsed().as_micros()).unwrap();
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let (over, errors, promoted, written) = (&over, &errors, &promoted, &written);
                let wrong = &wrong;
                let now = &now;
                let loops = (0..CLIENTS).map(|id| async move {
                    let mut client = open(router).await;
                    let sql =
                        format!("UPDATE registers SET value = value + 1 WHERE tenant_id = {id}");
                    while !over.load(Ordering::Relaxed) {
                        let result = client.simple_query(&sql).await;
                        match result {
                            Ok(_) if promoted.load(Ordering::Relaxed) > 0 => {
                                let first = written.load(Ordering::Relaxed) == 0;
                                if first {
                                    written.store(now(), Ordering::Relaxed);
                                }
                            }
                            Ok(_) => {}
                            Err(error) => {
                                println!("in flight: {error:?}");
                                errors.fetch_add(1, Ordering::Relaxed);
                                let code = error.code().map(|code| code.code().to_owned());
                                let says = code.is_none_or(|code| RETRYABLE.contains(&&*code));
                                wrong.fetch_add(u64::from(!says), Ordering::Relaxed);
                                // A server that ends a session ends the client's.
                                client = open(router).await;
                            }
                        }
                        tokio::time::sleep(Duration::from_millis(3)).await;
                    }
                });
                all(loops).await;
            });
        });
        std::thread::sleep(Duration::from_millis(700));
        kill_and_promote(cluster);
        promoted.store(now(), Ordering::Relaxed);
        wait_for("a write after the promotion", || {
            written.load(Ordering::Relaxed) > 0 || clients.is_finished()
        });
        std::thread::sleep(Duration::from_millis(300));
        over.store(true, Ordering::Relaxed);
        clients.join().unwrap();
    });
    let between = written.load(Ordering::Relaxed).saturating_sub(promoted.load(Ordering::Relaxed));
    Outage {
        clients: CLIENTS,
        errors: errors.load(Ordering::Relaxed),
        wrong: wrong.load(Ordering::Relaxed),
        after_promotion: Duration::from_micros(between),
    }
}

async fn open(router: &Router) -> Client {
    let (client, connection) = tokio_postgres::connect(&router.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn kill_and_promote(cluster: &Cluster) {
    let mut servers = cluster.servers();
    servers.stop_node(PRIMARY, Stop::Kill).unwrap();
    servers.superuser_sql(REPLICA, "SELECT pg_promote(true, 30)").unwrap();
}

/// Starts the old primary again: two nodes take writes, and the router none
/// until one is gone.
pub(crate) fn two_primaries(cluster: &Cluster, router: &Router) {
    let write = "UPDATE registers SET value = value + 1 WHERE tenant_id = 5";
    cluster.servers().start_node(PRIMARY).unwrap();
    let refusal = |outcome: &Psql| match outcome {
        Psql::Done(_) => false,
        Psql::Failed(error) => error.contains("57P03") && error.contains("several nodes"),
    };
    wait_for("writes to stop", || refusal(&psql(&router.url(), write)));
    assert!(refusal(&psql(&router.url(), write)), "and they stay stopped");
    cluster.servers().stop_node(PRIMARY, Stop::Fast).unwrap();
    wait_for("writes to go on", || matches!(psql(&router.url(), write), Psql::Done(_)));
}

/// Drives all of `tasks` until each has ended.
async fn all(tasks: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut tasks: Vec<_> = tasks.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        tasks.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        if tasks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

const CLIENTS: u64 = 8;
/// What a client hears of a backend that is lost: from the router, or from the
/// server as it dies.
const RETRYABLE: &[&str] = &["08006", "08007", "57P01", "57P02", "57P03"];
const PRIMARY: NodeName = NodeName { shard: 1, replica: 0 };
const REPLICA: NodeName = NodeName { shard: 1, replica: 1 };
