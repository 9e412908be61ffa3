//! What routers share: the epochs of the map and the journals of moves, in
//! tables of the home shard.
//!
//! A journal changes only from the version that was read, a map only to the
//! next epoch, and both in one transaction where they change together. A write
//! whose answer was lost can be repeated: it finds itself done. Who runs a
//! move holds an advisory lock; that it may still write is decided by the
//! versions alone.

use std::fmt;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::mover::{Journal, Wish};
use crate::shardmap::Map;
use crate::types::Epoch;

/// A move as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The journal.
    pub journal: Journal,
    /// Counts its changes.
    pub version: i64,
    /// What the operator wants.
    pub wish: Wish,
    /// How far it was when it was last said.
    pub progress: String,
    /// Seconds since it was submitted.
    pub age_s: i64,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is written.
    Written,
    /// Somebody else has written since this version was read.
    Overtaken,
    /// Nothing is written, because there is a newer map than the one given.
    NewerMap,
}

/// Makes the tables where they are missing.
///
/// # Errors
/// The server can't be asked, or the role may not.
pub async fn prepare(client: &Client) -> Result<(), TableError> {
    let there = "SELECT pg_catalog.to_regclass('keyway.moves') IS NOT NULL \
                 AND pg_catalog.to_regclass('keyway.map_epochs') IS NOT NULL \
                 AND pg_catalog.to_regclass('keyway.routers') IS NOT NULL";
    if !client.query_one(there, &[]).await?.get::<_, bool>(0) {
        // Two that begin together would collide in the server's catalogs.
        let all = format!("BEGIN; {TABLES_LOCK}; {TABLES}; {}; COMMIT", super::routers::TABLE);
        if let Err(error) = client.batch_execute(&all).await {
            client.batch_execute("ROLLBACK").await?;
            return Err(error.into());
        }
    }
    Ok(())
}

/// The newest map of `database`; `None` before the first.
///
/// # Errors
/// The server can't be asked, or what it holds is no map. Nothing may be
/// concluded then.
pub async fn newest_map(client: &Client, database: &str) -> Result<Option<Map>, TableError> {
    let sql = "SELECT epoch, map FROM keyway.map_epochs WHERE database = $1 \
               ORDER BY epoch DESC LIMIT 1";
    client.query_opt(sql, &[&database]).await?.map(|row| read_map(&row)).transpose()
}

/// A map as it was written, by whom and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The map.
    pub map: Map,
    /// The role that wrote it.
    pub by: String,
    /// When, by the home server's clock.
    pub at: String,
    /// What it was written for.
    pub why: String,
}

/// All maps of `database`, oldest first.
///
/// # Errors
/// As [`newest_map`].
pub async fn history(client: &Client, database: &str) -> Result<Vec<Applied>, TableError> {
    let sql = "SELECT epoch, map, applied_by, \
        pg_catalog.to_char(applied_at, 'YYYY-MM-DD HH24:MI:SS TZ'), why \
        FROM keyway.map_epochs WHERE database = $1 ORDER BY epoch";
    let applied = |row: &Row| {
        let map = read_map(row)?;
        Ok(Applied { map, by: row.try_get(2)?, at: row.try_get(3)?, why: row.try_get(4)? })
    };
    client.query(sql, &[&database]).await?.iter().map(applied).collect()
}

/// Makes `map` the newest of its database.
///
/// # Errors
/// The server can't be asked; the map may or may not be written.
pub async fn keep_map(client: &Client, map: &Map, why: &str) -> Result<Kept, TableError> {
    let (epoch, text) = (epoch(map), map.to_toml());
    let done = client.execute(INSERT_MAP, &[&map.database(), &epoch, &text, &why]).await?;
    if done == 1 {
        return Ok(Kept::Written);
    }
    let newest = newest_map(client, map.database()).await?;
    Ok(if newest.as_ref() == Some(map) { Kept::Written } else { Kept::Overtaken })
}

/// Stores a new move and gives it its number, which replaces the journal's.
///
/// # Errors
/// The server can't be asked; the move may be there or not.
pub async fn submit(
    client: &Client,
    database: &str,
    journal: &Journal,
    wish: Wish,
) -> Result<u32, TableError> {
    let sql = "WITH number AS (SELECT pg_catalog.nextval('keyway.move_ids')::int AS id) \
        INSERT INTO keyway.moves (id, database, journal, wish) \
        SELECT id, $1::text, pg_catalog.jsonb_set($2::text::jsonb, '{id}', pg_catalog.to_jsonb(id)), $3::text \
        FROM number RETURNING id";
    let text = write(journal)?;
    let row = client.query_one(sql, &[&database, &text, &wish.word()]).await?;
    let id: i32 = row.get(0);
    notify(client).await?;
    u32::try_from(id).map_err(|_| TableError::Damaged("a move's number".to_owned()))
}

/// The move with this number.
///
/// # Errors
/// The server can't be asked, or what it holds is no journal.
pub async fn load(client: &Client, id: u32) -> Result<Option<Stored>, TableError> {
    let sql = format!("{SELECT_MOVE} WHERE id = $1");
    client.query_opt(&sql, &[&number(id)]).await?.map(|row| read_move(&row)).transpose()
}

/// All moves of `database`, oldest first; the ended ones too.
///
/// # Errors
/// As [`load`].
pub async fn list(client: &Client, database: &str) -> Result<Vec<Stored>, TableError> {
    let sql = format!("{SELECT_MOVE} WHERE database = $1 ORDER BY id");
    client.query(&sql, &[&database]).await?.iter().map(read_move).collect()
}

/// Writes the journal over the version that was read. A journal that has
/// stopped also waits for the operator's next wish.
///
/// # Errors
/// The server can't be asked: it may or may not be written; repeat it.
pub async fn keep(client: &Client, journal: &Journal, version: i64) -> Result<Kept, TableError> {
    let text = write(journal)?;
    let stopped = journal.stopped.is_some();
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&number(journal.id), &version, &text, &stopped];
    if client.execute(UPDATE_MOVE, &params).await? == 1 {
        notify(client).await?;
        return Ok(Kept::Written);
    }
    written(client, journal, version).await
}

/// Writes the journal over the version that was read, and `map` as the next
/// epoch, both or none.
///
/// # Errors
/// As [`keep`].
pub async fn switch(
    client: &mut Client,
    journal: &Journal,
    version: i64,
    map: &Map,
    why: &str,
) -> Result<Kept, TableError> {
    let text = write(journal)?;
    let transaction = client.transaction().await?;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&number(journal.id), &version, &text, &false];
    let updated = transaction.execute(UPDATE_MOVE, &params).await?;
    let inserted = transaction
        .execute(INSERT_MAP, &[&map.database(), &epoch(map), &map.to_toml(), &why])
        .await?;
    if updated == 1 && inserted == 1 {
        // Held clients wait: the others' word goes with the same flush.
        let last = format!("SET LOCAL synchronous_commit = on; {NOTIFY}");
        transaction.batch_execute(&last).await?;
        transaction.commit().await?;
        return Ok(Kept::Written);
    }
    transaction.rollback().await?;
    if updated == 1 { Ok(Kept::NewerMap) } else { written(client, journal, version).await }
}

/// Writes down what the operator wants.
///
/// # Errors
/// The server can't be asked.
pub async fn wish(client: &Client, id: u32, wish: Wish) -> Result<(), TableError> {
    let sql = "UPDATE keyway.moves SET wish = $2 WHERE id = $1";
    client.execute(sql, &[&number(id), &wish.word()]).await?;
    notify(client).await
}

/// Writes down how far the move is, for people.
///
/// # Errors
/// The server can't be asked.
pub async fn progress(client: &Client, id: u32, text: &str) -> Result<(), TableError> {
    let sql = "UPDATE keyway.moves SET progress = $2 WHERE id = $1";
    client.execute(sql, &[&number(id), &text]).await?;
    Ok(())
}

/// Takes the move for this connection, as long as it lives; false if another
/// has it.
///
/// # Errors
/// The server can't be asked.
pub async fn lease(client: &Client, id: u32) -> Result<bool, TableError> {
    let sql = "SELECT pg_catalog.pg_try_advisory_lock($1, $2)";
    Ok(client.query_one(sql, &[&LEASE_CLASS, &number(id)]).await?.get(0))
}

/// Who has the move: the process at the home shard, and what it calls itself.
///
/// # Errors
/// The server can't be asked.
pub async fn runner(client: &Client, id: u32) -> Result<Option<(i32, String)>, TableError> {
    let sql = "SELECT activity.pid, activity.application_name FROM pg_catalog.pg_locks AS locks \
        JOIN pg_catalog.pg_stat_activity AS activity USING (pid) \
        WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 2 \
        AND locks.classid = $1::bigint::oid AND locks.objid = $2::bigint::oid \
        AND activity.datname = pg_catalog.current_database() \
        AND activity.application_name IS NOT NULL";
    let (class, id) = (i64::from(LEASE_CLASS), i64::from(id));
    let row = client.query_opt(sql, &[&class, &id]).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// Closes the connection of a runner.
///
/// # Errors
/// The server can't be asked, or the role may not.
pub async fn evict(client: &Client, pid: i32) -> Result<(), TableError> {
    client.execute("SELECT pg_catalog.pg_terminate_backend($1)", &[&pid]).await?;
    Ok(())
}

/// Whether the write of `journal` over `version` was done before.
///
/// # Errors
/// The server can't be asked.
pub async fn written(client: &Client, journal: &Journal, version: i64) -> Result<Kept, TableError> {
    let found = load(client, journal.id).await?;
    let done =
        found.is_some_and(|stored| stored.version == version + 1 && stored.journal == *journal);
    Ok(if done { Kept::Written } else { Kept::Overtaken })
}

async fn notify(client: &Client) -> Result<(), TableError> {
    client.batch_execute(NOTIFY).await?;
    Ok(())
}

fn read_map(row: &Row) -> Result<Map, TableError> {
    let (epoch, text): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
    let map = Map::parse(text, "keyway.map_epochs").map_err(|problems| {
        let first = problems.first().map(ToString::to_string);
        TableError::Damaged(first.unwrap_or_default())
    })?;
    if u64::try_from(epoch).ok().map(Epoch::new) == Some(map.epoch()) {
        Ok(map)
    } else {
        Err(TableError::Damaged(format!("epoch {epoch} holds another epoch's map")))
    }
}

fn read_move(row: &Row) -> Result<Stored, TableError> {
    let (text, word): (&str, &str) = (row.try_get(0)?, row.try_get(2)?);
    let damaged = |error: &dyn fmt::Display| TableError::Damaged(error.to_string());
    Ok(Stored {
        journal: serde_json::from_str(text).map_err(|error| damaged(&error))?,
        version: row.try_get(1)?,
        wish: Wish::of(word).ok_or_else(|| damaged(&"a wish that is none"))?,
        progress: row.try_get(3)?,
        age_s: row.try_get(4)?,
    })
}

fn write(journal: &Journal) -> Result<String, TableError> {
    serde_json::to_string(journal).map_err(|error| TableError::Damaged(error.to_string()))
}

fn number(id: u32) -> i32 {
    i32::try_from(id).unwrap_or(i32::MAX)
}

fn epoch(map: &Map) -> i64 {
    i64::try_from(map.epoch().number()).unwrap_or(i64::MAX)
}

/// Why the shared tables can't be read or written.
#[derive(Debug)]
pub enum TableError {
    /// The connection or the server failed.
    Postgres(tokio_postgres::Error),
    /// What is stored can't be read.
    Damaged(String),
}

impl TableError {
    /// Whether the role may not do what it was to do.
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::Postgres(error) => error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            Self::Damaged(_) => false,
        }
    }

    /// Whether the tables are not there: nothing was ever stored.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Postgres(error) => {
                error.code() == Some(&SqlState::UNDEFINED_TABLE)
                    || error.code() == Some(&SqlState::INVALID_SCHEMA_NAME)
            }
            Self::Damaged(_) => false,
        }
    }
}

impl From<tokio_postgres::Error> for TableError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(error) => match error.as_db_error() {
                Some(db) => write!(f, "{} ({})", db.message(), db.code().code()),
                None => error.fmt(f),
            },
            Self::Damaged(what) => write!(f, "the shared tables are damaged: {what}"),
        }
    }
}

impl std::error::Error for TableError {}

const NOTIFY: &str = "NOTIFY keyway_store";
const TABLES: &str = "\
CREATE SCHEMA IF NOT EXISTS keyway; \
CREATE TABLE IF NOT EXISTS keyway.map_epochs (\
database text NOT NULL, epoch bigint NOT NULL, map text NOT NULL, why text NOT NULL, \
applied_by text NOT NULL DEFAULT SESSION_USER, \
applied_at timestamptz NOT NULL DEFAULT pg_catalog.now(), PRIMARY KEY (database, epoch)); \
CREATE SEQUENCE IF NOT EXISTS keyway.move_ids AS int; \
CREATE TABLE IF NOT EXISTS keyway.moves (\
id int PRIMARY KEY, database text NOT NULL, journal jsonb NOT NULL, \
version bigint NOT NULL DEFAULT 0, wish text NOT NULL, progress text NOT NULL DEFAULT '', \
submitted_by text NOT NULL DEFAULT SESSION_USER, \
submitted_at timestamptz NOT NULL DEFAULT pg_catalog.now(), \
changed_at timestamptz NOT NULL DEFAULT pg_catalog.now())";
/// Only ever the epoch after the newest, or the first.
const INSERT_MAP: &str = "\
INSERT INTO keyway.map_epochs (database, epoch, map, why) \
SELECT $1::text, $2::bigint, $3::text, $4::text WHERE NOT EXISTS (\
SELECT FROM keyway.map_epochs WHERE database = $1::text AND epoch >= $2::bigint) \
ON CONFLICT DO NOTHING";
const UPDATE_MOVE: &str = "\
UPDATE keyway.moves SET journal = $3::text::jsonb, version = version + 1, \
wish = CASE WHEN $4::bool THEN 'pause' ELSE wish END, changed_at = pg_catalog.now() \
WHERE id = $1 AND version = $2";
const SELECT_MOVE: &str = "\
SELECT journal::text, version, wish, progress, \
EXTRACT(epoch FROM pg_catalog.now() - submitted_at)::bigint FROM keyway.moves";
const TABLES_LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock(1263098714, 0)";
/// The first number of the advisory locks of runners: letters of the name.
pub const LEASE_CLASS: i32 = 1_263_098_712;
