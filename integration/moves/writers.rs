//! Direct writers, which know of no router: they try one shard, and the other
//! when the fence sends them away. Each remembers what was acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::support::cluster::Cluster;

/// What one writer knows at its end.
pub(crate) struct Account {
    writer: i32,
    acknowledged: BTreeSet<i32>,
    /// Sent, and nobody knows: the connection failed at the commit.
    unknown: BTreeSet<i32>,
    fenced: u32,
}

pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Account>>,
    tenant: i64,
}

impl Writers {
    /// Starts `count` writers of `tenant`; each transaction writes a row of the
    /// ledger and counts it.
    pub(crate) fn start(cluster: &Cluster, tenant: i64, count: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let urls: Vec<String> =
            cluster.view().shards.iter().map(|shard| shard.primary.url.clone()).collect();
        let task = |writer| {
            let (stop, urls) = (Arc::clone(&stop), urls.clone());
            tokio::spawn(write(urls, tenant, writer, stop))
        };
        let tasks = (0..count).map(task).collect();
        Self { stop, tasks, tenant }
    }

    /// Ends them and fails unless everything is as [`Writers::audit`] wants it.
    pub(crate) async fn check(self, cluster: &Cluster, owner: u16) -> usize {
        self.audit(cluster, owner).await.unwrap()
    }

    /// Ends them and compares what they know with the shard that owns the rows:
    /// every acknowledged write is there once, none that nobody has sent, and
    /// the counters have counted each. Returns the number of writes.
    pub(crate) async fn audit(self, cluster: &Cluster, owner: u16) -> Result<usize, String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = 0;
        let tenant = self.tenant;
        let (mut fenced, mut unknown) = (0, 0);
        let mut wrong = Vec::new();
        for task in self.tasks {
            let account = task.await.unwrap();
            let writer = account.writer;
            let rows = cluster.sql(
                owner,
                &format!(
                    "SELECT seq FROM ledger WHERE tenant_id = {tenant} AND writer = {writer} ORDER BY seq"
                ),
            );
            let found: Vec<i32> = rows.lines().map(|line| line.parse().unwrap()).collect();
            let set: BTreeSet<i32> = found.iter().copied().collect();
            if found.len() != set.len() {
                wrong.push(format!("writer {writer} has doubled rows"));
            }
            let lost: Vec<_> = account.acknowledged.difference(&set).collect();
            if !lost.is_empty() {
                wrong.push(format!("writer {writer} lost {lost:?}"));
            }
            let known: BTreeSet<i32> =
                account.acknowledged.union(&account.unknown).copied().collect();
            let extra: Vec<_> = set.difference(&known).collect();
            if !extra.is_empty() {
                wrong.push(format!("writer {writer} has rows that nobody sent: {extra:?}"));
            }
            total += set.len();
            fenced += account.fenced;
            unknown += account.unknown.len();
        }
        // Shared by all writers, so that an update of one over another's shows.
        let counted = cluster.sql(
            owner,
            &format!(
                "SELECT coalesce(sum(n), 0) FROM counters WHERE tenant_id = {tenant} AND writer < 0"
            ),
        );
        if counted != total.to_string() {
            wrong.push(format!("{total} writes were counted as {counted}"));
        }
        println!("{total} writes, {unknown} with unknown end, {fenced} sent away by a fence");
        if wrong.is_empty() { Ok(total) } else { Err(wrong.join("; ")) }
    }
}

/// Clients that count one row up, each time in a transaction of one statement,
/// on whichever shard lets them.
pub(crate) struct Bumpers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<i64>>,
}

impl Bumpers {
    pub(crate) fn start(cluster: &Cluster, tenant: i64, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let urls: Vec<String> =
            cluster.view().shards.iter().map(|shard| shard.primary.url.clone()).collect();
        let task = |number: usize| {
            let (stop, urls) = (Arc::clone(&stop), urls.clone());
            tokio::spawn(async move {
                let clients = [connect(&urls[0]).await.unwrap(), connect(&urls[1]).await.unwrap()];
                let sql = format!(
                    "UPDATE counters SET n = n + 1 WHERE tenant_id = {tenant} AND writer = 1000"
                );
                let (mut at, mut counted) = (number % 2, 0);
                while !stop.load(Ordering::Relaxed) {
                    match clients[at].execute(&sql, &[]).await {
                        Ok(rows) => counted += i64::try_from(rows).unwrap(),
                        Err(error) => {
                            assert_eq!(error.code().map(|code| code.code()), Some("KW001"));
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                    }
                    // Not where the row's lock is waited for.
                    at = 1 - at;
                }
                counted
            })
        };
        let tasks = (0..count).map(task).collect();
        Self { stop, tasks }
    }

    /// How often the row was counted up.
    pub(crate) async fn end(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = 0;
        for task in self.tasks {
            total += task.await.unwrap();
        }
        total
    }
}

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(async move { drop(connection.await) });
    Some(client)
}

async fn write(urls: Vec<String>, tenant: i64, writer: i32, stop: Arc<AtomicBool>) -> Account {
    let mut account =
        Account { writer, acknowledged: BTreeSet::new(), unknown: BTreeSet::new(), fenced: 0 };
    let mut clients: Vec<Option<Client>> = urls.iter().map(|_| None).collect();
    let mut at = 0;
    let mut seq = 0;
    let levels = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
    while !stop.load(Ordering::Relaxed) {
        if clients[at].as_ref().is_none_or(Client::is_closed) {
            clients[at] = connect(&urls[at]).await;
        }
        let Some(client) = &clients[at] else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let level = levels[usize::try_from(writer).unwrap() % levels.len()];
        seq += 1;
        let body = format!(
            "BEGIN ISOLATION LEVEL {level}; \
             INSERT INTO ledger (tenant_id, writer, seq, note) VALUES ({tenant}, {writer}, {seq}, 'n'); \
             INSERT INTO events (tenant_id, at, what) VALUES ({tenant}, \
             CASE WHEN {seq} % 2 = 0 THEN '2010-01-01'::date ELSE '2030-01-01' END, 'e'); \
             INSERT INTO counters (tenant_id, writer, n) VALUES ({tenant}, -1 - {writer} % 2, 1) \
             ON CONFLICT (tenant_id, writer) DO UPDATE SET n = counters.n + 1"
        );
        match client.batch_execute(&body).await {
            Ok(()) => {}
            Err(error) => {
                seq -= 1;
                let code = error.code().map(|code| code.code().to_owned());
                if code.as_deref() == Some("KW001") {
                    account.fenced += 1;
                    at = 1 - at;
                } else if code.is_some_and(|code| {
                    !code.starts_with("40") && !code.starts_with("57") && code != "25P02"
                }) {
                    panic!("writer {writer}: {error:?}");
                }
                let _ = client.batch_execute("ROLLBACK").await;
                tokio::time::sleep(Duration::from_millis(3)).await;
                continue;
            }
        }
        if seq % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match client.batch_execute("COMMIT").await {
            Ok(()) => drop(account.acknowledged.insert(seq)),
            Err(error) if error.code().is_some_and(|code| code.code().starts_with("40")) => {
                let _ = client.batch_execute("ROLLBACK").await;
            }
            Err(_) => drop(account.unknown.insert(seq)),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    account
}
