//! The exact comparison while the application writes: both sides are summed at
//! one point of the stream.
//!
//! The source's writers of the tenant wait while a snapshot is taken, a marker
//! is written, and no longer. The snapshot shows all that was committed before
//! the marker; the target sums within the transaction that applies the marker.
//! Values that hash alike although they differ (numbers with other zeros, text
//! of a collation without case) are compared as text.

use std::time::Duration;

use super::node::{Node, NodeError};
use super::sql;
use super::work::Work;
use crate::mover::{Journal, MovedTable, Outcome, Side};
use crate::shardmap::Keyspace;

type Sided<T> = Result<T, (Side, NodeError)>;

/// Compares all tables of the move.
pub(super) async fn compare(
    work: &mut Work,
    journal: &Journal,
    keyspace: &Keyspace,
) -> Sided<Outcome> {
    let on_source = |error| (Side::Source, error);
    let on_target = |error| (Side::Target, error);
    let mut sums = Vec::new();
    for table in &journal.tables {
        let condition = match sql::condition(journal, keyspace, &sql::ident(&table.column)) {
            Ok(condition) => condition,
            Err(why) => return Ok(Outcome::Impossible(why)),
        };
        let columns = columns(&mut work.source, table).await.map_err(on_source)?;
        sums.push((table.clone(), sql::sum(table, &columns, &condition)));
    }
    let names = work.names.clone();
    let wait = work.limits.drain;
    work.source.rows(&sql::note_line(journal.id)).await.map_err(on_source)?;
    work.target.rows(&sql::note_line(journal.id)).await.map_err(on_target)?;
    work.target
        .transact(Duration::from_secs(1), &[sql::make_prover(&names, &sums)])
        .await
        .map_err(on_target)?;
    // The snapshot's own connection, opened before anybody waits.
    let mut reader = Node::new(work.source.target().clone());
    reader.rows("SELECT 1").await.map_err(on_source)?;
    let [lock, obey, next] = sql::next_proof(&names, journal.generation);
    let begin = format!(
        "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL synchronous_commit = on; {lock}; {obey}",
        wait.as_millis()
    );
    work.source.rows(&begin).await.map_err(on_source)?;
    // Lock and snapshot belong to these sessions: on others the marker would
    // stand at another point than the sums.
    work.source.keep_session();
    reader.keep_session();
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; \
                    SET LOCAL idle_in_transaction_session_timeout = 0; SELECT 1";
    if let Err(error) = reader.rows(snapshot).await {
        work.source.disconnect();
        return Err((Side::Source, error));
    }
    let token = work.source.rows(&format!("{next}; COMMIT")).await;
    work.source.let_go();
    let token = token.map_err(on_source)?;
    let token = token.into_iter().flatten().flatten().next_back();
    let token: i64 = token.and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut here = Vec::new();
    for (table, sum) in &sums {
        let rows = reader.rows_within(sum, SUM_WAIT).await.map_err(on_source)?;
        here.push((table.to_string(), rows.into_iter().next().unwrap_or_default()));
    }
    reader.disconnect();
    let there = arrived(work, token, sums.len()).await.map_err(on_target)?;
    Ok(judge(work, &here, &there))
}

/// The target's sums, once its marker has arrived.
async fn arrived(
    work: &mut Work,
    token: i64,
    tables: usize,
) -> Result<Vec<(String, super::node::Row)>, NodeError> {
    let asked = format!(
        "SELECT tab, row_count::text, row_sum::text FROM keyway.proof \
         WHERE move_id = {} AND token = {token}",
        work.names.marker(Side::Source)
    );
    let poll = async {
        loop {
            let rows = work.target.rows(&asked).await?;
            if rows.len() >= tables {
                return Ok::<_, NodeError>(rows);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let rows =
        tokio::time::timeout(SUM_WAIT, poll).await.map_err(|_| NodeError::Late(SUM_WAIT))??;
    let named = |row: super::node::Row| {
        let mut cells = row.into_iter();
        (cells.next().flatten().unwrap_or_default(), cells.collect())
    };
    Ok(rows.into_iter().map(named).collect())
}

fn judge(
    work: &mut Work,
    here: &[(String, super::node::Row)],
    there: &[(String, super::node::Row)],
) -> Outcome {
    let count = |row: &super::node::Row| row.first().cloned().flatten().unwrap_or_default();
    let mut total: u64 = 0;
    for (table, row) in here {
        let other = there.iter().find(|(name, _)| name == table).map(|(_, row)| row);
        if other != Some(row) {
            return Outcome::Impossible(format!(
                "{table} differs: {} rows on the source, {} on the target{}",
                count(row),
                other.map_or_else(|| "none".to_owned(), count),
                if other.is_some_and(|other| count(other) == count(row)) {
                    ", with other values"
                } else {
                    ""
                }
            ));
        }
        total = total.saturating_add(count(row).parse().unwrap_or(0));
    }
    work.note = format!("{total} rows of {} tables are equal", here.len());
    Outcome::Done
}

/// The columns of a table as expressions to hash. What has no exact hash of its
/// own is hashed as text.
async fn columns(node: &mut Node, table: &MovedTable) -> Result<Vec<String>, NodeError> {
    let asked = format!(
        "SELECT a.attname, CASE \
         WHEN t.oid = ANY ('{{16,18,20,21,23,26,1082,1083,1114,1184,2950}}'::pg_catalog.oid[]) \
         THEN 'direct' ELSE 'text' END \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         WHERE a.attrelid = {}::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped \
         ORDER BY a.attname COLLATE \"C\"",
        sql::literal(&sql::table(table))
    );
    let rows = node.rows(&asked).await?;
    let expression = |(name, how): (String, String)| {
        let name = sql::ident(&name);
        if how == "direct" { name } else { format!("{name}::text COLLATE \"C\"") }
    };
    Ok(super::work::pairs(&rows).into_iter().map(expression).collect())
}

/// A comparison that takes longer has failed.
const SUM_WAIT: Duration = Duration::from_secs(3600);
