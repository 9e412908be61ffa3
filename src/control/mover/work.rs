//! Carries a move's actions out on the two shards.
//!
//! Each is written so that it can be repeated after a crash in the middle of
//! it: what is there already is left as it is. What the databases answer is
//! turned into an outcome; what follows from it is the machine's to decide.

use std::time::Duration;

use tokio::time::Instant;

use super::checks::{self, Sizes};
use super::later::Making;
use super::node::{Node, NodeError, Row};
use super::sql::{self, Names};
use super::throttle::{Brake, Burden};
use super::{login, verify};
use crate::mover::{Journal, MovedTable, Outcome, Side, Sight};
use crate::shardmap::{Keyspace, Map, TlsMode};

/// How long things may take, and how much at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a table's writers may wait for one trigger.
    pub trigger_lock: Duration,
    /// How long the cutover waits for the tenant's open transactions.
    pub drain: Duration,
    /// How long it waits for the target to apply the rest.
    pub apply: Duration,
    /// Rows of one batch of the purge.
    pub purge_rows: u32,
    /// By how many values sequences are ahead on the new owner.
    pub sequence_margin: i64,
    /// Bytes that a replica may be behind while rows are copied or purged;
    /// zero for any.
    pub replica_lag: u64,
    /// Sessions that may be at work on a server then; zero for any.
    pub active: u32,
    /// Bytes that the target's database may have then; zero for any.
    pub target_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            trigger_lock: Duration::from_millis(100),
            drain: Duration::from_millis(500),
            apply: Duration::from_secs(10),
            purge_rows: 5000,
            sequence_margin: 1000,
            replica_lag: 0,
            active: 0,
            target_bytes: 0,
        }
    }
}

/// The two shards of a move.
pub(super) struct Work {
    pub(super) names: Names,
    pub(super) source: Node,
    pub(super) target: Node,
    /// How the servers reach each other.
    pub(super) tls: [TlsMode; 2],
    pub(super) limits: Limits,
    /// What the operator should know of the last action.
    pub(super) note: String,
    /// When this runner began to watch the copy, and the rows and bytes that it
    /// has to bring by the planner's statistics.
    pub(super) copying: Option<(Instant, u64, u64)>,
    /// The index that is being made.
    pub(super) making: Option<Making>,
    /// Why one could not be made.
    pub(super) index_failed: String,
}

impl Work {
    pub(super) const fn node(&mut self, side: Side) -> &mut Node {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }

    /// The outcome of an action that failed.
    pub(super) fn failed(&mut self, side: Side, error: &NodeError) -> Outcome {
        let name = &self.node(side).target().name;
        self.note = format!("{name}: {error}");
        match error.code() {
            Some(sql::OUTRUN) => Outcome::Lost,
            Some(sql::TOO_EARLY) => Outcome::Waiting,
            _ if error.is_busy() => Outcome::Refused,
            _ => Outcome::Failed,
        }
    }

    pub(super) async fn seize(&mut self, journal: &Journal, side: Side) -> Outcome {
        match self.try_seize(journal, side).await {
            Ok(obeyed) if obeyed == journal.generation => Outcome::Done,
            Ok(_) => Outcome::Lost,
            Err(error) => self.failed(side, &error),
        }
    }

    async fn try_seize(&mut self, journal: &Journal, side: Side) -> Result<u64, NodeError> {
        let node = self.node(side);
        if node.value(sql::HAS_BASE).await?.as_deref() != Some("true") {
            node.rows(sql::BASE).await?;
        }
        let obeyed = node.number(&sql::seize(journal.id, journal.generation)).await?;
        Ok(u64::try_from(obeyed).unwrap_or(0))
    }

    pub(super) async fn guard(
        &mut self,
        journal: &Journal,
        keyspace: &Keyspace,
        side: Side,
    ) -> Outcome {
        let mut conditions = Vec::new();
        for table in &journal.tables {
            let of = |row: &str| {
                sql::condition(journal, keyspace, &format!("{row}.{}", sql::ident(&table.column)))
            };
            match (of("new"), of("old")) {
                (Ok(new), Ok(old)) => conditions.push((table, new, old)),
                (Err(why), _) | (_, Err(why)) => return Outcome::Impossible(why),
            }
        }
        match self.try_guard(journal, side, &conditions).await {
            Ok(()) => Outcome::Done,
            Err(error) => self.failed(side, &error),
        }
    }

    async fn try_guard(
        &mut self,
        journal: &Journal,
        side: Side,
        conditions: &[(&MovedTable, String, String)],
    ) -> Result<(), NodeError> {
        let (names, wait) = (self.names.clone(), self.limits.trigger_lock);
        let node = self.node(side);
        node.transact(
            wait,
            &[sql::make_fence(&names, side, journal.generation), sql::make_functions(&names)],
        )
        .await?;
        if side == Side::Target {
            node.transact(wait, &[sql::make_brake(journal.id)]).await?;
        }
        for (table, new, old) in conditions {
            let parts = pairs(&node.rows(&sql::parts(table)).await?);
            // What is there takes no lock again.
            if has_triggers(node, &names, table, parts.len()).await? {
                continue;
            }
            let mut made = vec![sql::make_triggers(&names, table, (new, old), &parts)];
            if side == Side::Target {
                made.push(sql::make_brake_trigger(journal.id, table));
            }
            node.transact(wait, &made).await?;
        }
        node.rows(&sql::note_shape(journal.id, &journal.tables)).await?;
        Ok(())
    }

    pub(super) async fn publish(
        &mut self,
        journal: &Journal,
        keyspace: &Keyspace,
        side: Side,
    ) -> Outcome {
        let mut tables = Vec::new();
        for table in &journal.tables {
            match sql::condition(journal, keyspace, &sql::ident(&table.column)) {
                Ok(condition) => tables.push((table.clone(), condition)),
                Err(why) => return Outcome::Impossible(why),
            }
        }
        let names = self.names.clone();
        let name = sql::literal(&names.stream_from(side));
        let there =
            format!("SELECT count(*)::text FROM pg_catalog.pg_publication WHERE pubname = {name}");
        let node = self.node(side);
        let done = async {
            if node.number(&there).await? == 0 {
                node.rows(&sql::make_publication(&names, side, &tables)).await?;
            }
            Ok(())
        };
        match done.await {
            Ok(()) => Outcome::Done,
            Err(error) => self.failed(side, &error),
        }
    }

    /// Whether the rows that come back must be held back by turning the stream,
    /// because a server can't tell them apart.
    pub(super) async fn turns(&mut self) -> Result<bool, NodeError> {
        Ok(self.source.version().await?.min(self.target.version().await?) < ORIGINS_SINCE)
    }

    pub(super) async fn subscribe(&mut self, journal: &Journal, side: Side) -> Outcome {
        match self.try_subscribe(journal, side).await {
            Ok(Some(number)) => Outcome::Subscribed(number),
            Ok(None) => Outcome::Waiting,
            Err(error) => self.failed(side, &error),
        }
    }

    async fn try_subscribe(
        &mut self,
        journal: &Journal,
        side: Side,
    ) -> Result<Option<u32>, NodeError> {
        let name = self.names.stream_from(side.other());
        let number = subscription_number(&name);
        if let Some(found) = self.node(side).value(&number).await? {
            if self.node(side).value(&sql::fed_by(journal.id)).await?.is_none() {
                self.note_feed(journal, side).await?;
            }
            return Ok(found.parse().ok());
        }
        let (publisher, subscriber) =
            (self.node(side.other()).version().await?, self.node(side).version().await?);
        let turns = self.turns().await?;
        let fails_over = publisher >= FAILOVER_SINCE && subscriber >= FAILOVER_SINCE;
        if !self.make_slot(side.other(), &name, fails_over).await? {
            return Ok(None);
        }
        let tls = self.tls[usize::from(side == Side::Target)];
        let conninfo = login::make(journal, self.node(side.other()), &name, tls).await?;
        let mut options = vec![format!("slot_name = {}, create_slot = false", sql::literal(&name))];
        if side == Side::Source {
            options.push("copy_data = false".to_owned());
        }
        if !turns {
            options.push("origin = none".to_owned());
        } else if side == Side::Source {
            options.push("enabled = false".to_owned());
        }
        if fails_over {
            options.push("failover = true".to_owned());
        }
        if publisher == subscriber && publisher >= BINARY_COPY_SINCE {
            options.push("binary = true".to_owned());
        }
        let text = format!(
            "CREATE SUBSCRIPTION {0} CONNECTION {1} PUBLICATION {0} WITH ({2})",
            sql::ident(&name),
            sql::literal(&conninfo),
            options.join(", ")
        );
        let node = self.node(side);
        login::keep_quiet(node).await?;
        let made = node.alone(&text, SUBSCRIBE_WAIT).await;
        node.disconnect();
        made?;
        self.note_feed(journal, side).await?;
        Ok(self.node(side).value(&number).await?.and_then(|found| found.parse().ok()))
    }

    /// Makes the replication slot of a stream, or takes the one that a crash has
    /// left without its subscription; false if it is still in use.
    ///
    /// Making one waits for all transactions that are open now. The one that
    /// makes a subscription must not wait for that: two moves would make their
    /// slots on each other's server, and wait for each other for ever.
    async fn make_slot(
        &mut self,
        side: Side,
        name: &str,
        fails_over: bool,
    ) -> Result<bool, NodeError> {
        let node = self.node(side);
        let slot = sql::literal(name);
        let found = node
            .rows(&format!(
                "SELECT active::text, coalesce(wal_status, '') \
                 FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}"
            ))
            .await?;
        match pairs(&found).first().map(|(active, wal)| (active.as_str(), wal.as_str())) {
            Some(("true", _)) => return Ok(false),
            Some((_, "lost")) => {
                node.rows(&format!("SELECT pg_catalog.pg_drop_replication_slot({slot})")).await?;
            }
            Some(_) => return Ok(true),
            None => {}
        }
        let more = if fails_over { ", false, false, true" } else { "" };
        let sql = format!(
            "SELECT pg_catalog.pg_create_logical_replication_slot({slot}, 'pgoutput'{more})"
        );
        node.alone(&sql, SUBSCRIBE_WAIT).await?;
        Ok(true)
    }

    pub(super) async fn await_copy(&mut self, journal: &Journal, keyspace: &Keyspace) -> Outcome {
        match self.try_await_copy(journal, keyspace).await {
            Ok(outcome) => outcome,
            Err((side, error)) => self.failed(side, &error),
        }
    }

    async fn try_await_copy(
        &mut self,
        journal: &Journal,
        keyspace: &Keyspace,
    ) -> Result<Outcome, (Side, NodeError)> {
        let target = |error| (Side::Target, error);
        if self.copying.is_none() {
            let expected = self.expected(journal, keyspace).await;
            let (rows, bytes) = expected.map_err(|error| (Side::Source, error))?;
            self.copying = Some((Instant::now(), rows, bytes));
        }
        if self.copy_state(journal).await.map_err(target)? == Outcome::Done {
            self.brake(journal, Brake::Off).await.map_err(target)?;
            return self.make_indexes(journal).await.map_err(target);
        }
        let brake = match self.pressure(Burden::Copy).await? {
            Some(why) => {
                self.note = format!("the copy waits: {why}; {}", self.note);
                Brake::On
            }
            None => Brake::Off,
        };
        self.brake(journal, brake).await.map_err(target)?;
        Ok(Outcome::Waiting)
    }

    /// Rows and bytes that are to be copied, by the planner's statistics.
    async fn expected(
        &mut self,
        journal: &Journal,
        keyspace: &Keyspace,
    ) -> Result<(u64, u64), NodeError> {
        let (mut rows, mut bytes) = (0_u64, 0_u64);
        for table in &journal.tables {
            let Ok(condition) = sql::condition(journal, keyspace, &sql::ident(&table.column))
            else {
                continue;
            };
            let share =
                checks::share(&mut self.source, table, &condition, Sizes::Estimated).await?;
            rows = rows.saturating_add(share.rows);
            bytes = bytes.saturating_add(share.bytes);
        }
        Ok((rows, bytes))
    }

    async fn copy_state(&mut self, journal: &Journal) -> Result<Outcome, NodeError> {
        let name = sql::literal(&self.names.stream_from(Side::Source));
        let states = self
            .target
            .rows(&format!(
                "SELECT r.srsubstate::text, \
                 coalesce(p.tuples_processed, CASE WHEN r.srsubstate IN ('f', 's', 'r') \
                 THEN pg_catalog.pg_stat_get_tuples_inserted(r.srrelid) END, 0)::text, \
                 coalesce(p.bytes_processed, 0)::text \
                 FROM pg_catalog.pg_subscription_rel r \
                 JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid \
                 LEFT JOIN (SELECT relid, sum(tuples_processed) AS tuples_processed, \
                 sum(bytes_processed) AS bytes_processed \
                 FROM pg_catalog.pg_stat_progress_copy WHERE command = 'COPY FROM' \
                 GROUP BY relid) p ON p.relid = r.srrelid WHERE s.subname = {name}"
            ))
            .await?;
        let ready = states.iter().filter(|row| cell(row, 0) == "r").count();
        if ready == states.len() && ready > journal.tables.len() {
            return Ok(Outcome::Done);
        }
        let sum = |i: usize| -> u64 {
            states.iter().filter_map(|row| cell(row, i).parse::<u64>().ok()).sum()
        };
        let (rows, bytes) = (sum(1), sum(2));
        let errors = self
            .target
            .number(&format!(
                "SELECT (apply_error_count + sync_error_count)::text \
                 FROM pg_catalog.pg_stat_subscription_stats WHERE subname = {name}"
            ))
            .await?;
        let trouble = if errors > 0 {
            format!("; {errors} errors, which the target's log explains")
        } else {
            String::new()
        };
        self.note = format!(
            "{ready} of {} tables are copied, {rows} rows{}; {bytes} bytes of the tables in \
             copying{trouble}",
            states.len(),
            self.estimate(rows),
        );
        Ok(Outcome::Waiting)
    }

    /// How much there is to copy, and how long that will take if it goes on as
    /// it began.
    fn estimate(&self, rows: u64) -> String {
        let Some((begun, total, bytes)) = self.copying else { return String::new() };
        let left = total.saturating_sub(rows);
        let begun_s = begun.elapsed().as_secs();
        let time = match left.saturating_mul(begun_s).checked_div(rows) {
            Some(seconds) if begun_s > 0 => format!(", about {seconds} s left"),
            Some(_) | None => String::new(),
        };
        format!(" of about {total} ({bytes} bytes){time}")
    }

    /// How far the side that follows is behind; for the operator only.
    pub(super) async fn behind(&mut self, owner: Side) -> Result<(), NodeError> {
        let name = self.names.stream_from(owner);
        let rows = self.node(owner).rows(&sql::behind(&name)).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        self.note = match cell(&row, 0).as_str() {
            "" => "the replication slot of the other side is gone".to_owned(),
            "lost" => "the replication slot of the other side is lost".to_owned(),
            _ => format!("the other side is {} bytes behind", cell(&row, 1)),
        };
        Ok(())
    }

    pub(super) async fn verify(&mut self, journal: &Journal, keyspace: &Keyspace) -> Outcome {
        match verify::compare(self, journal, keyspace).await {
            Ok(outcome) => outcome,
            Err((side, error)) => self.failed(side, &error),
        }
    }

    pub(super) async fn sight(&mut self, owner: Side) -> Outcome {
        let asked = sql::is_open(&self.names);
        let mut open = [false; 2];
        for (side, open) in [Side::Source, Side::Target].into_iter().zip(&mut open) {
            match self.node(side).value(&asked).await {
                Ok(value) => *open = value.as_deref() == Some("true"),
                Err(error) => return self.failed(side, &error),
            }
        }
        let [source_open, target_open] = open;
        Outcome::Seen(Sight { source_open, target_open, owner })
    }

    pub(super) async fn fence(&mut self, journal: &Journal, side: Side, token: u64) -> Outcome {
        let statements = sql::close(&self.names, side, journal.generation, token);
        let wait = self.limits.drain;
        match self.node(side).transact(wait, &statements).await {
            Ok(_) => Outcome::Done,
            Err(error) => {
                let outcome = self.failed(side, &error);
                if outcome == Outcome::Refused {
                    self.name_blockers(side).await;
                }
                outcome
            }
        }
    }

    async fn name_blockers(&mut self, side: Side) {
        let asked = sql::blockers(&self.names);
        if let Ok(found) = self.node(side).rows(&asked).await {
            let list: Vec<String> = found
                .iter()
                .map(|row| {
                    let words: Vec<&str> = row.iter().flatten().map(String::as_str).collect();
                    words.join(" ")
                })
                .collect();
            self.note = format!(
                "open transactions of the tenant did not end within {} ms: {}",
                self.limits.drain.as_millis(),
                list.join(", ")
            );
        }
    }

    pub(super) async fn await_marker(&mut self, side: Side, token: u64) -> Outcome {
        let asked = sql::shows(&self.names, side.other(), i64::try_from(token).unwrap_or(i64::MAX));
        let limit = self.limits.apply;
        let node = self.node(side);
        let poll = async {
            loop {
                if node.number(&asked).await? > 0 {
                    return Ok::<(), NodeError>(());
                }
                tokio::time::sleep(MARKER_PAUSE).await;
            }
        };
        match tokio::time::timeout(limit, poll).await {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(error)) => self.failed(side, &error),
            Err(_) => {
                node.disconnect();
                let waited = limit.as_millis();
                self.note = format!("the marker has not arrived within {waited} ms");
                Outcome::Refused
            }
        }
    }

    pub(super) async fn settle(&mut self, journal: &Journal, to: Side) -> Outcome {
        match self.try_settle(journal, to).await {
            Ok(()) => Outcome::Done,
            Err(error) => self.failed(to, &error),
        }
    }

    async fn try_settle(&mut self, journal: &Journal, to: Side) -> Result<(), NodeError> {
        let asked = sql::sequences(&journal.tables);
        let found = self.node(to.other()).rows(&asked).await?;
        let margin = self.limits.sequence_margin;
        let carries: Vec<String> = found.iter().filter_map(|row| carried(row, margin)).collect();
        if !carries.is_empty() {
            let wait = self.limits.trigger_lock;
            self.node(to).transact(wait, &carries).await?;
        }
        if self.turns().await? {
            self.turn(to).await?;
        }
        Ok(())
    }

    /// Ends the stream to `to`, and lets the one from there begin behind what
    /// has come over.
    async fn turn(&mut self, to: Side) -> Result<(), NodeError> {
        let into = self.names.stream_from(to.other());
        let node = self.node(to);
        node.rows(&format!("ALTER SUBSCRIPTION {} DISABLE", sql::ident(&into))).await?;
        let works = format!(
            "SELECT count(*)::text FROM pg_catalog.pg_stat_subscription \
             WHERE subname = {} AND pid IS NOT NULL",
            sql::literal(&into)
        );
        while node.number(&works).await? > 0 {
            tokio::time::sleep(MARKER_PAUSE).await;
        }
        self.advance(to).await
    }

    /// Lets the stream from `side`, which nobody reads now, begin here.
    pub(super) async fn advance(&mut self, side: Side) -> Result<(), NodeError> {
        let slot = sql::literal(&self.names.stream_from(side));
        let sql = format!(
            "SELECT pg_catalog.pg_replication_slot_advance(slot_name, \
             pg_catalog.pg_current_wal_insert_lsn()) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = {slot} AND NOT active \
             AND confirmed_flush_lsn < pg_catalog.pg_current_wal_insert_lsn()"
        );
        self.node(side).rows(&sql).await.map(|_| ())
    }

    pub(super) async fn unsettle(&mut self, to: Side) -> Outcome {
        let done = async {
            if self.turns().await? {
                self.enable(to).await?;
            }
            Ok(())
        };
        match done.await {
            Ok(()) => Outcome::Done,
            Err(error) => self.failed(to, &error),
        }
    }

    async fn enable(&mut self, side: Side) -> Result<(), NodeError> {
        let name = sql::ident(&self.names.stream_from(side.other()));
        self.node(side).rows(&format!("ALTER SUBSCRIPTION {name} ENABLE")).await.map(|_| ())
    }

    pub(super) async fn open(&mut self, journal: &Journal, side: Side, token: u64) -> Outcome {
        let statement = sql::open(&self.names, side, journal.generation, token);
        let wait = self.limits.drain;
        let opened = self.node(side).transact(wait, &[statement]).await;
        if let Err(error) = opened {
            return self.failed(side, &error);
        }
        let turned = async {
            if self.turns().await? {
                self.enable(side.other()).await?;
            }
            Ok(())
        };
        match turned.await {
            Ok(()) => Outcome::Done,
            Err(error) => self.failed(side.other(), &error),
        }
    }

    pub(super) async fn unfence(&mut self, journal: &Journal, side: Side, token: u64) -> Outcome {
        let statement = sql::reopen(&self.names, journal.generation, token);
        let wait = self.limits.drain;
        match self.node(side).transact(wait, &[statement]).await {
            Ok(_) => Outcome::Done,
            Err(error) => self.failed(side, &error),
        }
    }

    pub(super) async fn fence_both(&mut self, journal: &Journal) -> Outcome {
        let statement = sql::shut(&self.names, journal.generation);
        let wait = self.limits.drain;
        for side in [Side::Source, Side::Target] {
            if let Err(error) =
                self.node(side).transact(wait, std::slice::from_ref(&statement)).await
            {
                return self.failed(side, &error);
            }
        }
        Outcome::Done
    }

    /// The keyspace of the move in `map`.
    pub(super) fn keyspace<'a>(map: &'a Map, journal: &Journal) -> Option<&'a Keyspace> {
        map.keyspace_named(&journal.keyspace)
    }
}

fn cell(row: &Row, i: usize) -> String {
    row.get(i).cloned().flatten().unwrap_or_default()
}

/// The first two columns of each row.
pub(super) fn pairs(rows: &[Row]) -> Vec<(String, String)> {
    let pair = |row: &Row| Some((row.first()?.clone()?, row.get(1)?.clone()?));
    rows.iter().filter_map(pair).collect()
}

pub(super) fn subscription_number(name: &str) -> String {
    format!(
        "SELECT s.oid::text FROM pg_catalog.pg_subscription s \
         JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
         WHERE s.subname = {} AND d.datname = pg_catalog.current_database()",
        sql::literal(name)
    )
}

async fn has_triggers(
    node: &mut Node,
    names: &Names,
    table: &MovedTable,
    parts: usize,
) -> Result<bool, NodeError> {
    let list: Vec<String> = names.row_triggers().iter().map(|name| sql::literal(name)).collect();
    let on = sql::literal(&sql::table(table));
    let asked = format!(
        "SELECT (SELECT count(*) FROM pg_catalog.pg_trigger \
         WHERE tgrelid = {on}::pg_catalog.regclass AND tgenabled = 'O' AND tgname IN ({})) \
         + (SELECT count(*) FROM pg_catalog.pg_trigger WHERE tgenabled = 'O' AND tgname = {} \
         AND (tgrelid = {on}::pg_catalog.regclass OR tgrelid IN (\
         SELECT relid FROM pg_catalog.pg_partition_tree({on}))))",
        list.join(", "),
        sql::literal(&names.truncate_trigger()),
    );
    let wanted = i64::try_from(parts.saturating_add(5)).unwrap_or(i64::MAX);
    Ok(node.number(&asked).await? == wanted)
}

/// The statement that carries one sequence, `margin` values ahead.
fn carried(row: &Row, margin: i64) -> Option<String> {
    let text = |i: usize| row.get(i)?.as_deref();
    let number = |i: usize| text(i)?.parse::<i64>().ok();
    let (last, step) = (number(2)?, number(3)?);
    let ahead = last.saturating_add(step.saturating_mul(margin));
    let value = ahead.clamp(number(5)?, number(4)?);
    Some(sql::carry(text(0)?, text(1)?, value, step > 0))
}

/// Servers since this version can leave out what came from elsewhere.
const ORIGINS_SINCE: u32 = 16;
/// Servers since this version copy in binary form.
const BINARY_COPY_SINCE: u32 = 16;
/// Replication slots since this version can survive a failover.
const FAILOVER_SINCE: u32 = 17;
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(50);
const MARKER_PAUSE: Duration = Duration::from_millis(1);
