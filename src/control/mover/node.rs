//! A move's connection to one shard's primary: opened when it is needed, thrown
//! away when anything is doubtful, a deadline on everything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::sql;
use crate::control::monitor::Target;
use crate::control::sampler;

/// One row of an answer, in text form.
pub type Row = Vec<Option<String>>;

/// A primary, and the connection to it if there is one.
pub struct Node {
    target: Target,
    open: Option<Open>,
    connections: u64,
    /// The next step needs the session of the last.
    kept: bool,
    /// Told when somebody has written into the store.
    told: Option<Arc<Notify>>,
}

struct Open {
    client: Client,
    driver: JoinHandle<()>,
    version: u32,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.target.name).finish_non_exhaustive()
    }
}

impl Node {
    /// The primary at `target`; nothing is connected yet.
    pub const fn new(target: Target) -> Self {
        Self { target, open: None, connections: 0, kept: false, told: None }
    }

    /// The same; `told` hears while it is connected when somebody has written
    /// into the store.
    pub const fn listening(target: Target, told: Arc<Notify>) -> Self {
        Self { target, open: None, connections: 0, kept: false, told: Some(told) }
    }

    /// Where it is and who logs in.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The server's major version.
    pub async fn version(&mut self) -> Result<u32, NodeError> {
        Ok(self.connect().await?.version)
    }

    /// Runs statements one after another, each by itself or as they say, and
    /// returns all rows.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, NodeError> {
        self.rows_within(sql, ASK_WAIT).await
    }

    /// As [`Node::rows`], with a deadline of its own.
    ///
    /// An error leaves no transaction open: after anything but a plain refusal
    /// the connection is given up.
    pub async fn rows_within(&mut self, sql: &str, limit: Duration) -> Result<Vec<Row>, NodeError> {
        let client = &self.connect().await?.client;
        let answer = tokio::time::timeout(limit, client.simple_query(sql)).await;
        match answer {
            Ok(Ok(messages)) => Ok(rows(&messages)),
            Ok(Err(error)) => {
                let error = NodeError::Postgres(error);
                self.open = None;
                Err(error)
            }
            Err(_) => {
                self.open = None;
                Err(NodeError::Late(limit))
            }
        }
    }

    /// The first column of the first row.
    pub async fn value(&mut self, sql: &str) -> Result<Option<String>, NodeError> {
        let rows = self.rows(sql).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// The same as a number; zero if there is none.
    pub async fn number(&mut self, sql: &str) -> Result<i64, NodeError> {
        Ok(self.value(sql).await?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Runs statements in one transaction whose commit is acknowledged from
    /// disk. On an error nothing of it has happened if the server said no; if
    /// the connection failed, either all or nothing.
    pub async fn transact(
        &mut self,
        lock_wait: Duration,
        statements: &[String],
    ) -> Result<Vec<Row>, NodeError> {
        let text = format!(
            "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL synchronous_commit = on; {}; COMMIT",
            lock_wait.as_millis(),
            statements.join("; ")
        );
        self.rows(&text).await
    }

    /// Runs a statement that can't be in a transaction.
    pub async fn alone(&mut self, sql: &str, limit: Duration) -> Result<(), NodeError> {
        let limit_ms = limit.as_millis();
        self.rows(&format!("SET statement_timeout = {limit_ms}")).await?;
        let done = self.rows_within(sql, limit + Duration::from_secs(2)).await;
        if done.is_ok() {
            self.rows("SET statement_timeout = '60s'").await?;
        }
        done.map(|_| ())
    }

    /// What follows needs the session as it is now (a snapshot, a lock, a
    /// setting): a lost connection is an error, once, and not made anew
    /// unseen. It ends with [`Node::let_go`] or [`Node::disconnect`].
    pub const fn keep_session(&mut self) {
        self.kept = true;
    }

    /// What follows may have a new session.
    pub const fn let_go(&mut self) {
        self.kept = false;
    }

    /// Gives the connection up.
    pub fn disconnect(&mut self) {
        self.open = None;
        self.kept = false;
    }

    /// How many connections there have been: what a session held is gone when
    /// this has changed.
    pub const fn connections(&self) -> u64 {
        self.connections
    }

    /// The client itself, connected.
    pub async fn client(&mut self) -> Result<&mut Client, NodeError> {
        Ok(&mut self.connect().await?.client)
    }

    async fn connect(&mut self) -> Result<&mut Open, NodeError> {
        if self.open.as_ref().is_some_and(|open| open.client.is_closed()) {
            self.open = None;
        }
        if self.open.is_none() && std::mem::take(&mut self.kept) {
            return Err(NodeError::Parted);
        }
        if self.open.is_none() {
            let attempt = async {
                let told = self.told.clone();
                let hear = move || {
                    if let Some(told) = &told {
                        told.notify_one();
                    }
                };
                let (client, driver) =
                    sampler::open_hearing(&self.target, "keyway mover", hear).await?;
                let mut open = Open { client, driver, version: 0 };
                let listen = if self.told.is_some() { "LISTEN keyway_store; " } else { "" };
                let setup = format!("{}; {listen}SHOW server_version_num", sql::SETUP);
                let messages = open.client.simple_query(&setup).await?;
                let number = rows(&messages).pop().and_then(|mut row| row.pop()).flatten();
                let number: u32 = number.and_then(|text| text.parse().ok()).unwrap_or(0);
                open.version = number / 10_000;
                Ok::<_, NodeError>(open)
            };
            let opened = tokio::time::timeout(CONNECT_WAIT, attempt).await;
            self.open = Some(opened.map_err(|_| NodeError::Late(CONNECT_WAIT))??);
            self.connections += 1;
        }
        self.open.as_mut().ok_or(NodeError::Late(CONNECT_WAIT))
    }
}

fn rows(messages: &[SimpleQueryMessage]) -> Vec<Row> {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let cell = |i| row.try_get(i).ok().flatten().map(str::to_owned);
            Some((0..row.len()).map(cell).collect())
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// Why a shard did not do what it was asked.
#[derive(Debug)]
pub enum NodeError {
    /// Took too long.
    Late(Duration),
    /// The connection or the server failed.
    Postgres(tokio_postgres::Error),
    /// The session that the next step needs is gone.
    Parted,
    /// The system gave no randomness for a password.
    NoPassword,
}

impl NodeError {
    /// The SQLSTATE, if the server said no. Nothing has happened then.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.code().map(tokio_postgres::error::SqlState::code),
            Self::Late(_) | Self::Parted | Self::NoPassword => None,
        }
    }

    /// Whether a lock could not be had in time.
    pub fn is_busy(&self) -> bool {
        matches!(self.code(), Some("55P03" | "40P01"))
    }
}

impl From<tokio_postgres::Error> for NodeError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::Parted => f.write_str("the session was lost in the middle of a step"),
            Self::NoPassword => f.write_str("no password could be made"),
            Self::Postgres(error) => match error.as_db_error() {
                Some(db) => write!(f, "{} ({})", db.message(), db.code().code()),
                None => {
                    write!(f, "{error}")?;
                    let cause = std::error::Error::source(error);
                    cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
                }
            },
        }
    }
}

impl std::error::Error for NodeError {}

const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// A little longer than the session's own limit.
const ASK_WAIT: Duration = Duration::from_secs(62);
