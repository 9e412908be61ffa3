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

    /// Ends them and compares what they know with the shard that owns the rows;
    /// the other must have none. Returns the number of acknowledged writes.
    pub(crate) async fn check(self, cluster: &Cluster, owner: u16) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = 0;
        let tenant = self.tenant;
        for task in self.tasks {
            let account = task.await.unwrap();
            let rows = cluster.sql(
                owner,
                &format!(
                    "SELECT seq FROM ledger WHERE tenant_id = {tenant} AND writer = {} ORDER BY seq",
                    account.writer
                ),
            );
            let found: Vec<i32> = rows.lines().map(|line| line.parse().unwrap()).collect();
            let set: BTreeSet<i32> = found.iter().copied().collect();
            assert_eq!(found.len(), set.len(), "writer {} has doubled rows", account.writer);
            let lost: Vec<_> = account.acknowledged.difference(&set).collect();
            assert!(lost.is_empty(), "writer {} lost {lost:?}", account.writer);
            let known: BTreeSet<i32> =
                account.acknowledged.union(&account.unknown).copied().collect();
            let extra: Vec<_> = set.difference(&known).collect();
            assert!(extra.is_empty(), "writer {} has extra rows {extra:?}", account.writer);
            let counted = cluster.sql(
                owner,
                &format!(
                    "SELECT coalesce(sum(n), 0) FROM counters WHERE tenant_id = {tenant} AND writer = {}",
                    account.writer
                ),
            );
            assert_eq!(counted, set.len().to_string(), "writer {} lost updates", account.writer);
            total += set.len();
            eprintln!(
                "writer {}: {} acknowledged, {} unknown, {} fenced",
                account.writer,
                account.acknowledged.len(),
                account.unknown.len(),
                account.fenced
            );
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
             INSERT INTO counters (tenant_id, writer, n) VALUES ({tenant}, {writer}, 1) \
             ON CONFLICT (tenant_id, writer) DO UPDATE SET n = counters.n + 1; \
             INSERT INTO events (tenant_id, at, what) VALUES ({tenant}, \
             CASE WHEN {seq} % 2 = 0 THEN '2010-01-01'::date ELSE '2030-01-01' END, 'e')"
        );
        match client.batch_execute(&body).await {
            Ok(()) => {}
            Err(error) => {
                seq -= 1;
                let code = error.code().map(|code| code.code().to_owned());
                if code.as_deref() == Some("KW001") {
                    account.fenced += 1;
                    at = 1 - at;
                } else if code
                    .is_some_and(|code| !code.starts_with("40") && !code.starts_with("57"))
                {
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
