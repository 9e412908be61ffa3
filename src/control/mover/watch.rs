//! What must stay as it is while a move is under way: the moved tables and
//! their triggers, the streams' replication slots, the servers themselves.
//!
//! What has changed is said, and the move stops where it can't be mended. A
//! stream whose publisher has failed over is mended: it goes on from the new
//! primary if that has its replication slot. Nothing here changes a table or a
//! fence.
//!
//! Source: PostgreSQL manual, "Logical Replication Failover"; hazards 103 and
//! 104 of `docs/hazards.md`.

use super::node::NodeError;
use super::work::Work;
use super::{login, sql};
use crate::mover::{Journal, Outcome, Side};

type Sided<T> = Result<T, (Side, NodeError)>;

impl Work {
    /// Why the move can't go on as it is; `None` if it can.
    pub(super) async fn watch(&mut self, journal: &Journal) -> Sided<Option<String>> {
        for side in [Side::Source, Side::Target] {
            if let Some(why) = self.reshaped(journal, side).await.map_err(|e| (side, e))? {
                return Ok(Some(why));
            }
        }
        let made = journal.subscriptions;
        for (side, number) in [(Side::Target, made.forward), (Side::Source, made.back)] {
            if number.is_none() {
                continue;
            }
            if let Some(why) = self.fed(journal, side).await? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    /// The tables of `side` that are not as they were when their fences were
    /// put up.
    async fn reshaped(
        &mut self,
        journal: &Journal,
        side: Side,
    ) -> Result<Option<String>, NodeError> {
        let asked = sql::reshaped(journal.id, &journal.tables);
        let changed = self.node(side).value(&asked).await?.unwrap_or_default();
        if changed.is_empty() {
            return Ok(None);
        }
        let name = self.node(side).target().name.clone();
        Ok(Some(format!(
            "{name}: columns, constraints, partitions or triggers of {changed} have changed \
             since the move began: undo that and RESUME MOVE, or ABORT MOVE and move again"
        )))
    }

    /// Looks at the stream into `side`, and leads it to where its publisher is
    /// now.
    async fn fed(&mut self, journal: &Journal, side: Side) -> Sided<Option<String>> {
        let (here, there) = (|error| (side, error), |error| (side.other(), error));
        let name = self.names.stream_from(side.other());
        let fed_by = self.node(side).value(&sql::fed_by(journal.id)).await.map_err(here)?;
        let publisher = self.address(side.other());
        let moved = fed_by.is_some_and(|by| by != publisher);
        let state = self.node(side.other()).value(&sql::slot_state(&name)).await.map_err(there)?;
        let where_ = self.node(side.other()).target().name.clone();
        match state.as_deref() {
            None if moved => {
                return Ok(Some(format!(
                    "{where_}: its primary has changed, and the new one has no replication slot \
                     of the move: it can't go on (from PostgreSQL 17 on a replica keeps them, \
                     with sync_replication_slots = on)"
                )));
            }
            None => return Ok(Some(format!("{where_}: the replication slot {name} is gone"))),
            Some("lost") => {
                return Ok(Some(format!(
                    "{where_}: the replication slot {name} is lost: the log that it needs is \
                     longer than max_slot_wal_keep_size allows"
                )));
            }
            Some(_) => {}
        }
        if moved {
            let tls = self.tls[usize::from(side == Side::Target)];
            let publisher_node = self.node(side.other());
            let conninfo = login::make(journal, publisher_node, &name, tls).await.map_err(there)?;
            self.redirect(journal, side, &name, &conninfo).await.map_err(here)?;
        }
        Ok(None)
    }

    async fn redirect(
        &mut self,
        journal: &Journal,
        side: Side,
        name: &str,
        conninfo: &str,
    ) -> Result<(), NodeError> {
        let text = format!(
            "ALTER SUBSCRIPTION {} CONNECTION {}",
            sql::ident(name),
            sql::literal(conninfo)
        );
        let node = self.node(side);
        login::keep_quiet(node).await?;
        let done = node.rows(&text).await;
        node.disconnect();
        done?;
        self.note_feed(journal, side).await
    }

    /// Writes down where the stream into `side` comes from.
    pub(super) async fn note_feed(
        &mut self,
        journal: &Journal,
        side: Side,
    ) -> Result<(), NodeError> {
        let by = self.address(side.other());
        self.node(side).rows(&sql::note_feed(journal.id, &by)).await.map(|_| ())
    }

    fn address(&mut self, side: Side) -> String {
        let target = self.node(side).target();
        format!("{}:{}", target.host, target.port)
    }

    /// Whether the servers are those that were compared. One that has failed
    /// over since may have lost rows that it had acknowledged to the other.
    pub(super) async fn examine(&mut self, journal: &Journal, from: Side) -> Outcome {
        for side in [Side::Source, Side::Target] {
            match self.node(side).value(&sql::is_same_line(journal.id)).await {
                Ok(Some(same)) if same == "true" => {}
                Ok(_) if from == Side::Source => return Outcome::Waiting,
                Ok(_) => {
                    let name = &self.node(side).target().name;
                    return Outcome::Impossible(format!(
                        "{name} has failed over since the rows were compared, and may lack \
                         what it had applied: the way back is not safe any more"
                    ));
                }
                Err(error) => return self.failed(side, &error),
            }
        }
        Outcome::Done
    }
}
