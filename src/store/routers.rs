//! The routers of a database and their leases, in a table of the home shard.
//!
//! A lease is given, and kept, only with the newest map: the row is written by
//! a statement that sees every map whose writer has been waited for. For that a
//! renewal holds an advisory lock together with others, and whoever looks waits
//! for all that have begun: a row that it does not see will be refused.
//! [`crate::mover::fleet`] says what follows from the rows.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::moves::TableError;
use crate::mover::fleet::RouterRow;
use crate::shardmap::Map;
use crate::types::{Epoch, Millis};

/// What came of asking for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It is given.
    Granted,
    /// There is a newer map, or another one.
    Behind,
}

/// Asks for a lease for `row`'s router, which serves `map`, or renews it.
///
/// # Errors
/// The server can't be asked: the row may or may not be written.
pub async fn renew(client: &mut Client, map: &Map, row: &RouterRow) -> Result<Lease, TableError> {
    let (database, text) = (literal(map.database()), literal(&map.to_toml()));
    let (id, name) = (literal(&row.id), literal(&row.name));
    let settled: Vec<String> = row.settled.iter().map(|token| literal(token)).collect();
    // One text, one round trip: on a busy home each more could cost the lease.
    // Each statement has a snapshot of its own.
    let sql = format!(
        "BEGIN; SET LOCAL synchronous_commit = on; \
         SELECT pg_catalog.pg_advisory_xact_lock_shared({LEASES_CLASS}, \
         pg_catalog.hashtext({database})); \
         INSERT INTO keyway.routers (database, id, name, epoch, lease_ms, beat, settled) \
         SELECT {database}, {id}, {name}, {epoch}, {lease}, {beat}, ARRAY[{settled}]::text[] \
         WHERE COALESCE((SELECT epoch = {epoch} AND map = {text} FROM keyway.map_epochs \
         WHERE database = {database} ORDER BY epoch DESC LIMIT 1), true) \
         ON CONFLICT (database, id) DO UPDATE SET epoch = excluded.epoch, \
         lease_ms = excluded.lease_ms, beat = excluded.beat, settled = excluded.settled, \
         seen_at = pg_catalog.clock_timestamp() RETURNING 'granted'; COMMIT",
        epoch = row.epoch.number(),
        lease = row.lease.count(),
        beat = row.beat,
        settled = settled.join(", "),
    );
    let granted = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten() == Some("granted"),
        _ => false,
    };
    match client.simple_query(&sql).await {
        Ok(messages) if messages.iter().any(granted) => Ok(Lease::Granted),
        Ok(_) => Ok(Lease::Behind),
        Err(error) => {
            if !client.is_closed() {
                client.batch_execute("ROLLBACK").await?;
            }
            Err(error.into())
        }
    }
}

/// All routers of `database`, once the renewals that have begun are over.
///
/// # Errors
/// The server can't be asked, or what it holds is no row of a router.
pub async fn look(client: &mut Client, database: &str) -> Result<Vec<RouterRow>, TableError> {
    let transaction = client.transaction().await?;
    transaction.execute(LOCK, &[&LEASES_CLASS, &database]).await?;
    transaction.commit().await?;
    list(client, database).await
}

/// All routers of `database`, as far as their renewals are over.
///
/// # Errors
/// As [`look`].
pub async fn list(client: &Client, database: &str) -> Result<Vec<RouterRow>, TableError> {
    let rows = client.query(LIST, &[&database]).await?;
    let read = |row: &tokio_postgres::Row| {
        let damaged = |_| TableError::Damaged("a router's row".to_owned());
        let (epoch, lease): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        Ok(RouterRow {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            epoch: Epoch::new(u64::try_from(epoch).map_err(damaged)?),
            lease: Millis::new(u64::try_from(lease).map_err(damaged)?),
            beat: row.try_get(4)?,
            settled: row.try_get(5)?,
            quiet_s: row.try_get(6)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Deletes a router's row if it is still as `row` says.
///
/// # Errors
/// The server can't be asked.
pub async fn forget(client: &Client, database: &str, row: &RouterRow) -> Result<(), TableError> {
    let sql = "DELETE FROM keyway.routers WHERE database = $1 AND id = $2 AND beat = $3";
    client.execute(sql, &[&database, &row.id, &row.beat]).await?;
    Ok(())
}

/// A text for SQL, with standard-conforming strings, as sessions of ours have.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A part of the shared tables.
pub(super) const TABLE: &str = "\
CREATE TABLE IF NOT EXISTS keyway.routers (\
database text NOT NULL, id text NOT NULL, name text NOT NULL, epoch bigint NOT NULL, \
lease_ms bigint NOT NULL, beat bigint NOT NULL, settled text[] NOT NULL, \
seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(), PRIMARY KEY (database, id))";
const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock($1, pg_catalog.hashtext($2))";
const LIST: &str = "\
SELECT id, name, epoch, lease_ms, beat, settled, \
EXTRACT(epoch FROM pg_catalog.clock_timestamp() - seen_at)::bigint \
FROM keyway.routers WHERE database = $1 ORDER BY name, id";
/// The first number of the advisory locks of renewals.
const LEASES_CLASS: i32 = 1_263_098_713;
