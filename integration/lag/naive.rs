//! Rules for reads on replicas that look right and are not: the checker must
//! see what they miss, else its silence says nothing of the router.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::registers::Dice;

/// Which replica may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Any that answers.
    Any,
    /// One whose last replayed commit is younger than 100 ms.
    LastCommit,
    /// One that has received a sample which began after the write's
    /// acknowledgement.
    Received,
}

/// A monitor and a choice by one of these rules.
#[derive(Debug)]
pub(crate) struct Naive {
    rule: Rule,
    primary: String,
    replicas: Vec<Replica>,
    /// Samples of the primary that have begun.
    started: AtomicU64,
    /// For each register the sample that its last write needs.
    needs: Vec<AtomicU64>,
}

#[derive(Debug)]
struct Replica {
    url: String,
    client: Mutex<Option<Arc<Client>>>,
    /// Age of its last replayed commit in ms; the greatest number if unknown.
    age_ms: AtomicU64,
    /// The newest sample that it has received.
    received: AtomicU64,
}

impl Naive {
    pub(crate) fn new(rule: Rule, primary: &str, replicas: &[&str], registers: usize) -> Arc<Self> {
        let replica = |url: &&str| Replica {
            url: (*url).to_owned(),
            client: Mutex::new(None),
            age_ms: AtomicU64::new(u64::MAX),
            received: AtomicU64::new(0),
        };
        Arc::new(Self {
            rule,
            primary: primary.to_owned(),
            replicas: replicas.iter().map(replica).collect(),
            started: AtomicU64::new(0),
            needs: (0..registers).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Samples all servers every few milliseconds until `over` says so.
    pub(crate) async fn watch(&self, over: impl Fn() -> bool) {
        let mut primary = None;
        let mut replicas: Vec<Option<Client>> = self.replicas.iter().map(|_| None).collect();
        while !over() {
            let number = self.started.fetch_add(1, Ordering::SeqCst) + 1;
            let inserted = ask(&mut primary, &self.primary, INSERTED).await;
            for (replica, client) in self.replicas.iter().zip(&mut replicas) {
                let age = ask(client, &replica.url, AGE_MS).await.unwrap_or(u64::MAX);
                replica.age_ms.store(age, Ordering::SeqCst);
                let received = ask(client, &replica.url, RECEIVED).await;
                if let (Some(inserted), Some(received)) = (inserted, received)
                    && received >= inserted
                {
                    replica.received.store(number, Ordering::SeqCst);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A write to the register was acknowledged.
    pub(crate) fn acknowledged(&self, register: usize) {
        let need = self.started.load(Ordering::SeqCst) + 1;
        self.needs[register].fetch_max(need, Ordering::SeqCst);
    }

    /// A connection to the replica that serves the register; `None` if the
    /// primary has to.
    pub(crate) async fn client(&self, register: usize, dice: &mut Dice) -> Option<Arc<Client>> {
        let need = self.needs[register].load(Ordering::SeqCst);
        let fit: Vec<&Replica> = self
            .replicas
            .iter()
            .filter(|replica| match self.rule {
                Rule::Any => true,
                Rule::LastCommit => replica.age_ms.load(Ordering::SeqCst) < 100,
                Rule::Received => replica.received.load(Ordering::SeqCst) >= need.max(1),
            })
            .collect();
        let count = u64::try_from(fit.len()).unwrap();
        let at = dice.roll(count.max(1));
        let replica = fit.get(usize::try_from(at).unwrap())?;
        let mut client = replica.client.lock().await;
        if client.as_ref().is_none_or(|client| client.is_closed()) {
            *client = connect(&replica.url).await.map(Arc::new);
        }
        client.clone()
    }
}

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// The number that a server answers with.
async fn ask(client: &mut Option<Client>, url: &str, sql: &str) -> Option<u64> {
    if client.as_ref().is_none_or(Client::is_closed) {
        *client = connect(url).await;
    }
    let messages = client.as_ref()?.simple_query(sql).await.ok()?;
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    })
}

const INSERTED: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8";
const RECEIVED: &str = "SELECT (pg_last_wal_receive_lsn() - '0/0')::int8";
const AGE_MS: &str =
    "SELECT (extract(epoch FROM now() - pg_last_xact_replay_timestamp()) * 1000)::int8";
