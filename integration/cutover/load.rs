//! Clients that write to the moving tenant and to others, in every way that a
//! driver has, and count what was acknowledged; and one that reads, and must
//! never see less than that.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};

use crate::stage::{Stage, state_of};

#[derive(Default)]
struct Counts {
    acknowledged: RefCell<BTreeMap<i64, i64>>,
    retried: Cell<u64>,
    stop: Cell<bool>,
}

/// The clients at work.
pub(crate) struct Load {
    counts: Rc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(stage: &Rc<Stage>) -> Self {
        let counts = Rc::new(Counts::default());
        let mut tasks = Vec::new();
        let others = [stage.tenant_on(1), stage.tenant_on(2)];
        for tenant in [42, 42, others[0], others[1]] {
            for way in [Way::Simple, Way::Prepared, Way::Unprepared, Way::Transaction, Way::Text] {
                let (stage, counts) = (Rc::clone(stage), Rc::clone(&counts));
                tasks.push(tokio::task::spawn_local(write(stage, counts, tenant, way)));
            }
        }
        let (stage, seen) = (Rc::clone(stage), Rc::clone(&counts));
        tasks.push(tokio::task::spawn_local(read(stage, seen)));
        Self { counts, tasks }
    }

    /// Ends the load; every acknowledged write is there once, on one shard.
    pub(crate) async fn stop_and_check(self, stage: &Stage) {
        self.counts.stop.set(true);
        for task in self.tasks {
            task.await.unwrap();
        }
        let acknowledged = self.counts.acknowledged.take();
        for (tenant, count) in &acknowledged {
            let found = [stage.count(1, *tenant).await, stage.count(2, *tenant).await];
            let there: Vec<i64> = found.into_iter().flatten().collect();
            assert_eq!(there, [*count], "tenant {tenant}");
        }
        let sum: i64 = acknowledged.values().sum();
        println!("{sum} writes, {} transactions retried", self.counts.retried.get());
        assert!(acknowledged.len() == 3 && acknowledged[&42] > 0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Simple,
    Prepared,
    Unprepared,
    /// BEGIN, two statements and COMMIT, each by itself.
    Transaction,
    /// The same in one text.
    Text,
}

async fn write(stage: Rc<Stage>, counts: Rc<Counts>, tenant: i64, way: Way) {
    let mut client = stage.client().await;
    while !counts.stop.get() {
        let written = one(&stage, &mut client, tenant, way).await;
        match written {
            Ok(count) => *counts.acknowledged.borrow_mut().entry(tenant).or_default() += count,
            // Something of the transaction had run before.
            Err((Position::Later, error)) if state_of(&error) == "40001" => {
                counts.retried.set(counts.retried.get() + 1);
            }
            Err((_, error)) => panic!("{way:?} to tenant {tenant} failed: {error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

enum Position {
    First,
    Later,
}

async fn one(
    stage: &Stage,
    client: &mut Client,
    tenant: i64,
    way: Way,
) -> Result<i64, (Position, Error)> {
    let first = |error| (Position::First, error);
    let later = |error| (Position::Later, error);
    let bump = stage.bump(tenant);
    let with_key = "UPDATE counters SET n = n + 1 WHERE tenant_id = $1";
    match way {
        Way::Simple => {
            client.simple_query(&bump).await.map_err(first)?;
            Ok(1)
        }
        Way::Prepared => {
            let statement = client.prepare(with_key).await.map_err(first)?;
            for _ in 0..5 {
                // Each is acknowledged by itself.
                assert_eq!(client.execute(&statement, &[&tenant]).await.map_err(first)?, 1);
            }
            Ok(5)
        }
        Way::Unprepared => {
            let key = (&tenant as _, tokio_postgres::types::Type::INT8);
            client.query_typed(with_key, &[key]).await.map_err(first)?;
            Ok(1)
        }
        Way::Transaction => {
            let transaction = client.transaction().await.map_err(first)?;
            transaction.execute(with_key, &[&tenant]).await.map_err(first)?;
            tokio::task::yield_now().await;
            transaction.simple_query(&bump).await.map_err(later)?;
            transaction.commit().await.map_err(later)?;
            Ok(2)
        }
        Way::Text => {
            let text = format!("BEGIN; {bump}; {bump}; COMMIT");
            client.batch_execute(&text).await.map_err(first)?;
            Ok(2)
        }
    }
}

async fn read(stage: Rc<Stage>, counts: Rc<Counts>) {
    let client = stage.client().await;
    let sql = "SELECT n FROM counters WHERE tenant_id = $1";
    let statement = client.prepare(sql).await.unwrap();
    while !counts.stop.get() {
        let least = counts.acknowledged.borrow().get(&42).copied().unwrap_or(0);
        let row = client.query_one(&statement, &[&42_i64]).await.unwrap();
        let seen: i64 = row.get(0);
        assert!(seen >= least, "{seen} of {least} acknowledged writes");
        tokio::task::yield_now().await;
    }
}
