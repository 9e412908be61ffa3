//! Clients of a router that write and read all the time, and what they were
//! told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio_postgres::NoTls;

/// Clients, each in a thread of its own, until they are stopped.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    told: Arc<Told>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    /// The tenant of each project whose insertion was acknowledged.
    written: Mutex<BTreeMap<i64, i64>>,
    next: AtomicI64,
    errors: Mutex<Vec<String>>,
    turns: AtomicU64,
}

/// Tenants that the clients write for.
const TENANTS: i64 = 300;
/// Greater than any number of the sample's.
const FIRST: i64 = 1_000_000_000;

impl Clients {
    pub(crate) fn start(url: &str, count: i64) -> Self {
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Told::default()));
        let threads = (0..count)
            .map(|number| {
                let (url, stop, told) = (url.to_owned(), Arc::clone(&stop), Arc::clone(&told));
                std::thread::spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build();
                    runtime.unwrap().block_on(client(&url, number, &stop, &told));
                })
            })
            .collect();
        Self { stop, told, threads }
    }

    /// How many turns there were so far.
    pub(crate) fn turns(&self) -> u64 {
        self.told.turns.load(Ordering::Relaxed)
    }

    /// Fails if a client has seen an error.
    pub(crate) fn expect_no_error(&self, when: &str) {
        let errors = self.told.errors.lock().unwrap();
        assert!(errors.is_empty(), "{when}: {errors:?}");
    }

    /// Ends them; returns the projects that were acknowledged, with their
    /// tenants.
    pub(crate) fn end(self) -> BTreeMap<i64, i64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let errors = self.told.errors.lock().unwrap().clone();
        assert!(errors.is_empty(), "{errors:?}");
        let written = self.told.written.lock().unwrap();
        written.clone()
    }
}

async fn client(url: &str, number: i64, stop: &AtomicBool, told: &Told) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let insert = "INSERT INTO projects (tenant_id, project_id, name, owner_id) \
                  VALUES ($1, $2, 'walk', $3)";
    let plan =
        "SELECT p.title FROM tenants t JOIN plans p USING (plan_code) WHERE t.tenant_id = $1";
    let (insert, plan) =
        (client.prepare(insert).await.unwrap(), client.prepare(plan).await.unwrap());
    let mut turn = number * 97;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let tenant = 1 + (turn * 31) % TENANTS;
        let project = FIRST + told.next.fetch_add(1, Ordering::Relaxed);
        let done = async {
            match turn % 3 {
                0 => {
                    client.execute(&insert, &[&tenant, &project, &(tenant * 1000 + 1)]).await?;
                }
                1 => {
                    let sql = format!(
                        "BEGIN; INSERT INTO projects (tenant_id, project_id, name, owner_id) \
                         VALUES ({tenant}, {project}, 'walk', {tenant} * 1000 + 1); \
                         UPDATE tenants SET name = name WHERE tenant_id = {tenant}; COMMIT"
                    );
                    // One message after another, as an application would.
                    for part in sql.split("; ") {
                        client.batch_execute(part).await?;
                    }
                }
                _ => {
                    let rows = client.query(&plan, &[&tenant]).await?;
                    if rows.len() != 1 {
                        let wrong = format!("tenant {tenant} has {} plans", rows.len());
                        told.errors.lock().unwrap().push(wrong);
                    }
                    return Ok(());
                }
            }
            told.written.lock().unwrap().insert(project, tenant);
            Ok::<(), tokio_postgres::Error>(())
        };
        if let Err(error) = done.await {
            let said = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
            told.errors.lock().unwrap().push(format!("tenant {tenant}: {said}: {error:?}"));
            return;
        }
        told.turns.fetch_add(1, Ordering::Relaxed);
        // The moves are what is looked at, not how much one machine can write.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
