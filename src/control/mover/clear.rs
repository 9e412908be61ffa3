//! What a move takes away again: streams, rows of the side that lost them,
//! fences.
//!
//! Every step looks for what is there, so that it can be repeated, and needs
//! only its own server: a subscription is cut off from its replication slot
//! first, and the slot is dropped where it is.

use std::time::Duration;

use super::node::NodeError;
use super::work::{Work, pairs, subscription_number};
use super::{login, sql};
use crate::mover::{Journal, Outcome, Side};
use crate::shardmap::Keyspace;

impl Work {
    /// Ends the subscription of `side` and what the other side keeps for it.
    pub(super) async fn unsubscribe(&mut self, journal: &Journal, side: Side) -> Outcome {
        if let Err(error) = self.drop_subscription(side).await {
            return self.failed(side, &error);
        }
        let number = match side {
            Side::Target => journal.subscriptions.forward,
            Side::Source => journal.subscriptions.back,
        };
        match self.drop_slots(journal, side, number).await {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::Waiting,
            Err(error) => self.failed(side.other(), &error),
        }
    }

    async fn drop_subscription(&mut self, side: Side) -> Result<(), NodeError> {
        let name = self.names.stream_from(side.other());
        let node = self.node(side);
        if node.value(&subscription_number(&name)).await?.is_none() {
            return Ok(());
        }
        let quoted = sql::ident(&name);
        node.rows(&format!(
            "ALTER SUBSCRIPTION {quoted} DISABLE; \
             ALTER SUBSCRIPTION {quoted} SET (slot_name = NONE)"
        ))
        .await?;
        node.alone(&format!("DROP SUBSCRIPTION {quoted}"), DROP_WAIT).await
    }

    /// Drops the replication slots on the other side; false while one is still
    /// in use.
    async fn drop_slots(
        &mut self,
        journal: &Journal,
        side: Side,
        number: Option<u32>,
    ) -> Result<bool, NodeError> {
        let name = self.names.stream_from(side.other());
        let helpers = number.map_or_else(String::new, |number| {
            format!(" OR slot_name LIKE 'pg\\_{number}\\_sync\\_%'")
        });
        let ours = format!(
            "(slot_name = {}{helpers}) AND database = pg_catalog.current_database()",
            sql::literal(&name)
        );
        let node = self.node(side.other());
        node.rows(&format!(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) \
             FROM pg_catalog.pg_replication_slots WHERE {ours} AND NOT active"
        ))
        .await?;
        // Whatever is left, also one that has come free since: it goes next time.
        let left = node
            .rows(&format!(
                "SELECT slot_name, CASE WHEN {MAY_END} \
                 THEN pg_catalog.pg_terminate_backend(active_pid) END::text \
                 FROM pg_catalog.pg_replication_slots WHERE {ours}"
            ))
            .await?;
        if !left.is_empty() {
            return Ok(false);
        }
        login::remove(journal, node, &name).await?;
        Ok(true)
    }

    pub(super) async fn unpublish(&mut self, side: Side) -> Outcome {
        match self.try_unpublish(side).await {
            Ok(()) => Outcome::Done,
            Err(error) => self.failed(side, &error),
        }
    }

    async fn try_unpublish(&mut self, side: Side) -> Result<(), NodeError> {
        let (name, wait) = (self.names.stream_from(side), self.limits.trigger_lock);
        let node = self.node(side);
        let tables = node.rows(&sql::published_tables(&name)).await?;
        let tables: Vec<String> = tables.into_iter().flatten().flatten().collect();
        node.transact(wait, &sql::drop_publication(&name, &tables)).await.map(|_| ())
    }

    /// Deletes the rows of `side`, batch by batch, until none is left.
    pub(super) async fn purge(
        &mut self,
        journal: &Journal,
        keyspace: &Keyspace,
        side: Side,
    ) -> Outcome {
        let done = self.try_purge(journal, keyspace, side).await;
        // What follows must not run with the rights and the origin of a purge.
        self.node(side).disconnect();
        match done {
            Ok(Ok(Purged::All)) => Outcome::Done,
            // The servers are asked what they bear before it goes on.
            Ok(Ok(Purged::Some)) => Outcome::Waiting,
            Ok(Err(why)) => Outcome::Impossible(why),
            Err(error) => self.failed(side, &error),
        }
    }

    async fn try_purge(
        &mut self,
        journal: &Journal,
        keyspace: &Keyspace,
        side: Side,
    ) -> Result<Result<Purged, String>, NodeError> {
        let (names, rows) = (self.names.clone(), self.limits.purge_rows);
        let allowed = sql::may_purge(&names, journal.generation);
        let origin = sql::literal(&names.purge());
        let node = self.node(side);
        if node.value(&sql::has_fence(&names)).await?.as_deref() != Some("true") {
            // Nothing comes to a side before it has its fence: what is there
            // is not ours to delete.
            return Ok(Ok(Purged::All));
        }
        node.disconnect();
        node.rows(&format!(
            "SELECT pg_catalog.pg_replication_origin_create({origin}) \
             WHERE pg_catalog.pg_replication_origin_oid({origin}) IS NULL; \
             SELECT pg_catalog.pg_replication_origin_session_setup({origin}); \
             SET session_replication_role = replica"
        ))
        .await?;
        // Another session would delete as an application does.
        node.keep_session();
        let mut purged: u64 = 0;
        for table in &journal.tables {
            let condition = match sql::condition(journal, keyspace, &sql::ident(&table.column)) {
                Ok(condition) => condition,
                Err(why) => return Ok(Err(why)),
            };
            let leaves = pairs(&self.node(side).rows(&sql::leaves(table)).await?);
            for (schema, name) in leaves {
                loop {
                    let batch = sql::purge_batch(&schema, &name, &condition, rows);
                    let counted = format!(
                        "WITH gone AS ({batch} RETURNING 1) SELECT count(*)::text FROM gone"
                    );
                    let text = format!("BEGIN; {allowed}; {counted}; COMMIT");
                    let gone = self.node(side).number(&text).await?;
                    let gone = u64::try_from(gone).unwrap_or(0);
                    purged = purged.saturating_add(gone);
                    self.note = format!("{purged} rows purged in one go");
                    if purged >= u64::from(rows).saturating_mul(PURGE_BATCHES) {
                        return Ok(Ok(Purged::Some));
                    }
                    if gone < u64::from(rows) {
                        break;
                    }
                }
            }
        }
        Ok(Ok(Purged::All))
    }

    /// Removes fence and rest from `side`.
    pub(super) async fn unguard(&mut self, journal: &Journal, side: Side) -> Outcome {
        match self.try_unguard(journal, side).await {
            Ok(()) => Outcome::Done,
            Err(error) => self.failed(side, &error),
        }
    }

    async fn try_unguard(&mut self, journal: &Journal, side: Side) -> Result<(), NodeError> {
        let (names, wait) = (self.names.clone(), self.limits.trigger_lock);
        let origin = sql::literal(&names.purge());
        let node = self.node(side);
        for table in &journal.tables {
            let there = format!(
                "SELECT count(*)::text FROM pg_catalog.pg_trigger WHERE NOT tgisinternal \
                 AND tgparentid = 0 AND tgname LIKE '~keyway\\_{}\\_%' AND tgrelid IN (\
                 SELECT relid FROM pg_catalog.pg_partition_tree({on}) \
                 UNION SELECT pg_catalog.to_regclass({on}))",
                journal.id,
                on = sql::literal(&sql::table(table))
            );
            if node.number(&there).await? == 0 {
                continue;
            }
            let parts = pairs(&node.rows(&sql::parts(table)).await?);
            node.transact(wait, &[sql::drop_triggers(&names, table, &parts)]).await?;
        }
        node.rows(&format!(
            "SELECT pg_catalog.pg_replication_origin_drop({origin}) \
             WHERE pg_catalog.pg_replication_origin_oid({origin}) IS NOT NULL"
        ))
        .await?;
        node.transact(Duration::from_secs(1), &[sql::remove_rest(&names)]).await.map(|_| ())
    }
}

/// Whether a purge has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purged {
    All,
    Some,
}

/// Whether the role may end another one's process. Without it, the process that
/// sends a stream ends by itself once nobody reads it.
const MAY_END: &str = "(SELECT rolsuper OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') \
FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER)";
/// Batches of a purge between two looks at the servers.
const PURGE_BATCHES: u64 = 20;
const DROP_WAIT: Duration = Duration::from_secs(20);
