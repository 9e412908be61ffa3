//! One connection of the monitor's to one node, and the question it asks.

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, NoTls, SimpleQueryMessage, SimpleQueryRow,
};

use super::monitor::Target;
use super::tls::Rustls;
use crate::cluster::LineageId;
use crate::health::{Answer, Geometry, Identity};
use crate::types::Lsn;

/// A connection that is open. Dropping it closes it.
pub(super) struct Sampler {
    client: Client,
    driver: JoinHandle<()>,
    system: Option<u64>,
    connection: u64,
}

impl Sampler {
    /// Connects to `target` within `limit` and asks what never changes.
    /// `number` counts the connections to this node.
    pub(super) async fn connect(
        target: &Target,
        number: u64,
        limit: Duration,
    ) -> Result<(Self, Geometry), SampleError> {
        let attempt = async {
            let (client, driver) = open(target, "keyway monitor").await?;
            let mut sampler = Self { client, driver, system: None, connection: number };
            let geometry = sampler.constants().await?;
            Ok((sampler, geometry))
        };
        tokio::time::timeout(limit, attempt).await.map_err(|_| SampleError::Late(limit))?
    }

    /// Connects to `target`, asks for nothing and leaves, within `limit`.
    pub(super) async fn knock(target: &Target, limit: Duration) -> Result<(), SampleError> {
        let attempt = async {
            let (client, driver) = open(target, "keyway monitor").await?;
            let asked = client.simple_query("SELECT 1").await;
            drop(client);
            // Gone when the server has heard of it: nothing is left in its budget.
            let _ = driver.await;
            asked.map(|_| ()).map_err(SampleError::from)
        };
        tokio::time::timeout(limit, attempt).await.map_err(|_| SampleError::Late(limit))?
    }

    /// Asks the node for its role and position, within `limit`.
    ///
    /// Not cancel-safe: after an error or a dropped future the connection is
    /// of no further use.
    pub(super) async fn sample(&self, limit: Duration) -> Result<Answer, SampleError> {
        let asked = tokio::time::timeout(limit, self.client.simple_query(SAMPLE));
        let messages = asked.await.map_err(|_| SampleError::Late(limit))??;
        let row = row(&messages)?;
        let identity = Identity {
            system: self.system,
            started_us: number(row, 4)?,
            connection: self.connection,
        };
        let lsn = |column| text(row, column).map(str::parse::<Lsn>).transpose();
        // The insert position decides: where there is one, the node writes.
        if let Some(insert) = lsn(2).map_err(|_| SampleError::Answer("an insert position"))? {
            let timeline = text(row, 3).and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let timeline = timeline.ok_or(SampleError::Answer("a timeline"))?;
            let flushed = lsn(5).map_err(|_| SampleError::Answer("a flush position"))?;
            let flushed = flushed.ok_or(SampleError::Answer("a flush position"))?;
            return Ok(Answer::Primary { identity, timeline, insert, flushed });
        }
        if text(row, 0) != Some("t") {
            return Err(SampleError::Answer("a role"));
        }
        let replay = lsn(1).map_err(|_| SampleError::Answer("a replay position"))?;
        Ok(Answer::Replica { identity, replay })
    }

    /// Which of the monitor's connections to its node this is.
    pub(super) const fn connection(&self) -> u64 {
        self.connection
    }

    /// Writes the marker of a lineage that this primary leads, and makes the
    /// table for markers if there is none.
    pub(super) async fn write_marker(
        &self,
        id: LineageId,
        limit: Duration,
    ) -> Result<(), SampleError> {
        let insert = format!(
            "DELETE FROM keyway.lineage WHERE begun_at < now() - interval '1 day'; \
             INSERT INTO keyway.lineage (id) VALUES ('{id}')"
        );
        match self.run(&insert, limit).await {
            Err(SampleError::Postgres(error)) if is_missing(&error) => {
                match self.run(MARKER_TABLE, limit).await {
                    // Another router, or this one's lease, makes the schema too.
                    Err(SampleError::Postgres(error)) if is_made_elsewhere(&error) => {
                        self.run(MARKER_TABLE, limit).await?;
                    }
                    made => made?,
                }
                self.run(&insert, limit).await
            }
            other => other,
        }
    }

    /// Whether this replica shows the marker.
    pub(super) async fn shows_marker(
        &self,
        id: LineageId,
        limit: Duration,
    ) -> Result<bool, SampleError> {
        let sql = format!("SELECT 1 FROM keyway.lineage WHERE id = '{id}'");
        let asked = tokio::time::timeout(limit, self.client.simple_query(&sql));
        match asked.await.map_err(|_| SampleError::Late(limit))? {
            Ok(messages) => Ok(row(&messages).is_ok()),
            // The table itself has not arrived.
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Of these server processes those that are there.
    pub(super) async fn alive(
        &self,
        pids: &[u32],
        limit: Duration,
    ) -> Result<Vec<u32>, SampleError> {
        let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE pid IN ({})", list.join(", "));
        let asked = tokio::time::timeout(limit, self.client.simple_query(&sql));
        let messages = asked.await.map_err(|_| SampleError::Late(limit))??;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| number(row, 0)).collect()
    }

    /// Makes the server write to disk what an open transaction has left in
    /// memory, so that replicas can get it.
    pub(super) async fn flush(&self, limit: Duration) -> Result<(), SampleError> {
        self.run(FLUSH, limit).await
    }

    async fn run(&self, sql: &str, limit: Duration) -> Result<(), SampleError> {
        let done = tokio::time::timeout(limit, self.client.batch_execute(sql));
        Ok(done.await.map_err(|_| SampleError::Late(limit))??)
    }

    async fn constants(&mut self) -> Result<Geometry, SampleError> {
        self.client.batch_execute(OWN_SETTINGS).await?;
        let messages = self.client.simple_query(GEOMETRY).await?;
        let found = row(&messages)?;
        let geometry = Geometry::new(number(found, 0)?, number(found, 1)?)
            .ok_or(SampleError::Answer("sizes of WAL pages and segments"))?;
        // Some services revoke this function; the start time still tells
        // incarnations apart.
        if let Ok(messages) = self.client.simple_query(SYSTEM).await {
            self.system = row(&messages).and_then(|found| number(found, 0)).ok();
        }
        Ok(geometry)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Logs in at `target` as `application`.
pub(super) async fn open(
    target: &Target,
    application: &str,
) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
    open_hearing(target, application, || {}).await
}

/// The same; `hear` is called for each notification.
pub(super) async fn open_hearing(
    target: &Target,
    application: &str,
    hear: impl Fn() + Send + 'static,
) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
    let mut config = Config::new();
    config
        .host(&target.host)
        .port(target.port)
        .dbname(&target.dbname)
        .user(&target.user)
        .application_name(application);
    if let Some(password) = &target.password {
        config.password(password.expose());
    }
    match &target.tls {
        Some(tls) => {
            config.ssl_mode(if target.tls_required { SslMode::Require } else { SslMode::Prefer });
            let (client, connection) = config.connect(Rustls::new(tls)).await?;
            Ok((client, tokio::spawn(drive(connection, hear))))
        }
        None => {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect(NoTls).await?;
            Ok((client, tokio::spawn(drive(connection, hear))))
        }
    }
}

/// Drives a connection to its end; `hear` is called for each notification.
async fn drive<S, T>(mut connection: Connection<S, T>, hear: impl Fn())
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
        if let AsyncMessage::Notification(_) = message {
            hear();
        }
    }
}

fn row(messages: &[SimpleQueryMessage]) -> Result<&SimpleQueryRow, SampleError> {
    let found = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    found.ok_or(SampleError::Answer("a row"))
}

fn text(row: &SimpleQueryRow, column: usize) -> Option<&str> {
    row.try_get(column).ok().flatten()
}

fn number<N: std::str::FromStr>(row: &SimpleQueryRow, column: usize) -> Result<N, SampleError> {
    text(row, column).and_then(|digits| digits.parse().ok()).ok_or(SampleError::Answer("a number"))
}

/// True if a schema or a table is not there.
fn is_missing(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    let code = error.code();
    code == Some(&SqlState::UNDEFINED_TABLE) || code == Some(&SqlState::INVALID_SCHEMA_NAME)
}

/// True if somebody else made the same at the same moment.
fn is_made_elsewhere(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    let made =
        [&SqlState::UNIQUE_VIOLATION, &SqlState::DUPLICATE_SCHEMA, &SqlState::DUPLICATE_TABLE];
    error.code().is_some_and(|code| made.contains(&code))
}

/// Why there is no sample.
#[derive(Debug)]
pub(super) enum SampleError {
    /// Took too long.
    Late(Duration),
    /// The connection or the server failed.
    Postgres(tokio_postgres::Error),
    /// The answer lacks this.
    Answer(&'static str),
}

impl SampleError {
    /// True if the server said no and the connection is as good as before.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Postgres(error) => error.code().is_some() && !error.is_closed(),
            Self::Late(_) | Self::Answer(_) => false,
        }
    }
}

impl From<tokio_postgres::Error> for SampleError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl fmt::Display for SampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::Postgres(error) => {
                write!(f, "{error}")?;
                // The library's own words leave out the cause.
                let cause = std::error::Error::source(error);
                cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::Answer(missing) => write!(f, "the answer lacks {missing}"),
        }
    }
}

/// Role, replay position, insert position, timeline, start time. The functions
/// that only one role has are asked for in that role only; a promotion between
/// two columns shows as an insert position.
const SAMPLE: &str = "\
SELECT pg_is_in_recovery(), \
CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END, \
CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END, \
CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END, \
(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8, \
CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END";
const GEOMETRY: &str = "\
SELECT current_setting('wal_block_size'), pg_size_bytes(current_setting('wal_segment_size'))";
/// The marker must be on disk, and must not wait for a synchronous standby. A
/// standby refuses SERIALIZABLE, which may be the role's default.
const OWN_SETTINGS: &str = "\
SET default_transaction_isolation = 'read committed'; SET synchronous_commit = local; SET default_transaction_read_only = off; \
SET lock_timeout = 1000";
const MARKER_TABLE: &str = "\
CREATE SCHEMA IF NOT EXISTS keyway; \
CREATE TABLE IF NOT EXISTS keyway.lineage (\
id uuid PRIMARY KEY, begun_at timestamptz NOT NULL DEFAULT now())";
const FLUSH: &str = "SELECT pg_logical_emit_message(true, 'keyway', '')";
const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";
