//! Indexes that were put off until the rows are copied: filling a table is
//! several times slower with them.
//!
//! They are written down on the target with the tables that they are for, in
//! the transaction that makes these, and made by whichever move has copied its
//! rows first. Which index may be put off is not decided here.
//!
//! Source: PostgreSQL manual, "Building Indexes Concurrently".

use std::time::Duration;

use tokio::task::JoinHandle;

use super::node::{Node, NodeError};
use super::sql;
use super::work::Work;
use crate::control::monitor::Target;
use crate::mover::{Journal, MovedTable, Outcome};

/// An index that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Later {
    /// Its table, qualified and quoted.
    pub table: String,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its definition, from its name on.
    pub definition: String,
    /// The statement that comments on it; may be empty.
    pub remark: String,
}

impl Later {
    /// The statement that makes it while others write.
    pub fn statement(&self) -> String {
        format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {}", self.definition)
    }

    fn qualified(&self) -> String {
        format!("{}.{}", sql::ident(&self.schema), sql::ident(&self.name))
    }

    /// The statement that takes it off the list.
    pub fn strike(&self) -> String {
        format!(
            "DELETE FROM keyway.later WHERE schema = {} AND name = {}",
            sql::literal(&self.schema),
            sql::literal(&self.name)
        )
    }
}

/// The statements that write indexes down; [`sql::BASE`] must be there.
pub fn put_off(all: &[Later]) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let values: Vec<String> = all
        .iter()
        .map(|one| {
            let parts = [&one.table, &one.schema, &one.name, &one.definition, &one.remark];
            format!("({})", parts.map(|part| sql::literal(part)).join(", "))
        })
        .collect();
    vec![
        TABLE.to_owned(),
        format!("INSERT INTO keyway.later VALUES {} ON CONFLICT DO NOTHING", values.join(", ")),
    ]
}

/// The indexes that are still to be made on a shard; of these tables and their
/// partitions, or of all.
///
/// # Errors
/// The shard can't be asked.
pub async fn list(node: &mut Node, tables: Option<&[MovedTable]>) -> Result<Vec<Later>, NodeError> {
    if node.value(IS_THERE).await?.as_deref() != Some("true") {
        return Ok(Vec::new());
    }
    let (with, condition) = tables.map_or_else(Default::default, |tables| {
        let list: Vec<String> = tables
            .iter()
            .map(|one| format!("pg_catalog.to_regclass({})", sql::literal(&sql::table(one))))
            .collect();
        (
            format!(
                "WITH moved (root) AS (SELECT pg_catalog.unnest(ARRAY[{}]::regclass[])) ",
                list.join(", ")
            ),
            " WHERE pg_catalog.to_regclass(tab) IN (SELECT root FROM moved UNION \
             SELECT part.relid FROM moved, LATERAL pg_catalog.pg_partition_tree(root) AS part)",
        )
    });
    let text = format!(
        "{with}SELECT tab, schema, name, definition, remark FROM keyway.later{condition} ORDER BY 1, 2, 3"
    );
    let read = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        Some(Later {
            table: cells.next()?,
            schema: cells.next()?,
            name: cells.next()?,
            definition: cells.next()?,
            remark: cells.next()?,
        })
    };
    Ok(node.rows(&text).await?.into_iter().filter_map(read).collect())
}

/// An index in the making, on a connection of its own; given up with the move.
pub(super) struct Making {
    task: JoinHandle<Result<(), NodeError>>,
    what: String,
}

impl Drop for Making {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Work {
    /// Makes what was put off for the tables of `journal`, one after another:
    /// done once there is nothing left.
    pub(super) async fn make_indexes(&mut self, journal: &Journal) -> Result<Outcome, NodeError> {
        if let Some(making) = &mut self.making {
            if !making.task.is_finished() {
                self.note = format!("makes the index {}", making.what);
                return Ok(Outcome::Waiting);
            }
            let made = (&mut making.task).await;
            self.making = None;
            match made {
                Ok(Err(error)) if error.is_busy() => {
                    self.note = error.to_string();
                    return Ok(Outcome::Waiting);
                }
                Ok(Err(error)) => {
                    // It stays in sight while the next try lasts.
                    self.index_failed = format!("; the last try: {error}");
                    return Err(error);
                }
                Ok(Ok(())) | Err(_) => {}
            }
        }
        let left = list(&mut self.target, Some(&journal.tables)).await?;
        let Some(next) = left.first().cloned() else { return Ok(Outcome::Done) };
        let what = format!("{} of {}, one of {}", next.name, next.table, left.len());
        let what = format!("{what}{}", self.index_failed);
        self.note = format!("makes the index {what}");
        let task = tokio::spawn(make(self.target.target().clone(), next));
        self.making = Some(Making { task, what });
        Ok(Outcome::Waiting)
    }
}

async fn make(target: Target, index: Later) -> Result<(), NodeError> {
    let mut node = Node::new(target);
    let name = sql::literal(&index.qualified());
    // Nobody waits for this lock: who waits in a statement keeps the one that
    // has it from its end.
    let take =
        format!("SELECT pg_catalog.pg_try_advisory_lock({CLASS}, pg_catalog.hashtext({name}))");
    if node.value(&take).await?.as_deref() != Some("t") {
        tokio::time::sleep(BUSY_PAUSE).await;
        return Ok(());
    }
    let valid = format!(
        "SELECT indisvalid::text FROM pg_catalog.pg_index \
         WHERE indexrelid = pg_catalog.to_regclass({name})"
    );
    node.keep_session();
    node.rows("SET lock_timeout = 0").await?;
    if node.value(&valid).await?.as_deref() == Some("false") {
        // What an earlier try has left.
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index.qualified());
        node.alone(&drop, MAKE_WAIT).await?;
    }
    node.alone(&index.statement(), MAKE_WAIT).await?;
    if node.value(&valid).await?.as_deref() == Some("true") {
        if !index.remark.is_empty() {
            node.rows(&index.remark).await?;
        }
        node.rows(&index.strike()).await?;
    }
    Ok(())
}

const IS_THERE: &str = "SELECT (pg_catalog.to_regclass('keyway.later') IS NOT NULL)::text";
const TABLE: &str = "\
CREATE TABLE IF NOT EXISTS keyway.later (tab text NOT NULL, schema text NOT NULL, \
name text NOT NULL, definition text NOT NULL, remark text NOT NULL, PRIMARY KEY (schema, name))";
/// The first number of the advisory locks of indexes in the making.
const CLASS: i32 = 1_263_098_715;
/// How long one index may take.
const MAKE_WAIT: Duration = Duration::from_secs(12 * 3600);
/// How long an index is left alone that another runner makes.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
