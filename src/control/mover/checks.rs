//! What must be so before a move may begin, and what to do where it isn't.
//!
//! Reads only. Every finding names the thing and, where SQL can cure it, the
//! SQL; what would lose rows or hold writers up is a refusal.

use super::node::{Node, NodeError, Row};
use super::sql;
use crate::mover::{Journal, MovedTable, Side};
use crate::shardmap::Keyspace;

/// One thing that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the move may begin all the same.
    pub weight: Weight,
    /// What is so.
    pub what: String,
    /// Statements that change it, to be looked at first.
    pub cure: Option<String>,
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The move can't begin.
    Refuse,
    /// It can.
    Note,
}

/// What would be moved of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The table.
    pub table: MovedTable,
    /// Its rows that move.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Whether sizes are estimated from statistics or counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// By the planner's statistics; costs nothing.
    Estimated,
    /// By reading every row.
    Counted,
}

/// What moves, and what stands in its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By table.
    pub shares: Vec<Share>,
    /// In the order of their weight.
    pub findings: Vec<Finding>,
    /// Tables that the target lacks; each is a finding too.
    pub lacking: Vec<MovedTable>,
}

impl Report {
    /// Whether nothing stands in the way.
    pub fn is_safe(&self) -> bool {
        self.findings.iter().all(|finding| finding.weight == Weight::Note)
    }

    /// Whether nothing stands in the way but tables that the target lacks.
    pub fn only_lacks_tables(&self) -> bool {
        let refusals = self.findings.iter().filter(|finding| finding.weight == Weight::Refuse);
        refusals.count() == self.lacking.len()
    }

    fn refuse(&mut self, what: String, cure: Option<String>) {
        self.findings.push(Finding { weight: Weight::Refuse, what, cure });
    }

    fn note(&mut self, what: String) {
        self.findings.push(Finding { weight: Weight::Note, what, cure: None });
    }
}

/// Looks at both shards.
///
/// # Errors
/// A shard can't be asked; nothing is known then.
pub async fn check(
    journal: &Journal,
    keyspace: &Keyspace,
    source: &mut Node,
    target: &mut Node,
    sizes: Sizes,
) -> Result<Report, (Side, NodeError)> {
    let mut report = Report::default();
    let s = |error| (Side::Source, error);
    let t = |error| (Side::Target, error);
    let here = tables(source, journal).await.map_err(s)?;
    let there = tables(target, journal).await.map_err(t)?;
    let roles = (source.target().user.clone(), target.target().user.clone());
    for (index, table) in journal.tables.iter().enumerate() {
        let of = |rows: &[Row]| rows.get(index).cloned().unwrap_or_default();
        judge_table(&mut report, table, (&of(&here), &of(&there)), (&roles.0, &roles.1));
    }
    let lives = (node_life(source).await.map_err(s)?, node_life(target).await.map_err(t)?);
    if lives.0 == lives.1 {
        report.refuse(
            "both shards are databases of one server, which can't subscribe to itself".to_owned(),
            None,
        );
    }
    server(&mut report, source, "the source").await.map_err(s)?;
    server(&mut report, target, "the target").await.map_err(t)?;
    foreign_keys(&mut report, source, journal).await.map_err(s)?;
    sequences(&mut report, source, target, journal).await?;
    if report.is_safe() {
        for table in &journal.tables {
            let column = sql::ident(&table.column);
            let condition = match sql::condition(journal, keyspace, &column) {
                Ok(condition) => condition,
                Err(why) => {
                    report.refuse(why, None);
                    return Ok(report);
                }
            };
            let share = share(source, table, &condition, sizes).await.map_err(s)?;
            report.shares.push(share);
            strangers(&mut report, target, table, &condition).await.map_err(t)?;
        }
        kept_log(&mut report, source).await.map_err(s)?;
    }
    report.findings.sort_by_key(|finding| finding.weight == Weight::Note);
    Ok(report)
}

/// One row for each table of the move, in their order.
async fn tables(node: &mut Node, journal: &Journal) -> Result<Vec<Row>, NodeError> {
    let list: Vec<String> = journal
        .tables
        .iter()
        .zip(0..)
        .map(|(table, number)| {
            format!(
                "({number}, {}, {})",
                sql::literal(&sql::table(table)),
                sql::literal(&table.column)
            )
        })
        .collect();
    node.rows(&TABLE_FACTS.replace("{list}", &list.join(", "))).await
}

fn judge_table(
    report: &mut Report,
    table: &MovedTable,
    (here, there): (&Row, &Row),
    roles: (&str, &str),
) {
    let cell = |row: &Row, i: usize| row.get(i).cloned().flatten().unwrap_or_default();
    let (kind, key) = (cell(here, KIND), sql::ident(&table.column));
    let on = sql::table(table);
    if kind.is_empty() {
        return report.refuse(format!("{table} is not on the source"), None);
    }
    if cell(there, KIND).is_empty() {
        report.lacking.push(table.clone());
        return report.refuse(
            format!("{table} is not on the target"),
            Some(format!(
                "-- keyway apply --create-schema makes {on} on the target, as pg_dump writes it"
            )),
        );
    }
    if !matches!(kind.as_str(), "r" | "p") || cell(here, PERSISTENCE) != "p" {
        report.refuse(
            format!("{table} is no logged table: what is written to it is in no stream"),
            Some(format!("ALTER TABLE {on} SET LOGGED")),
        );
    }
    if cell(here, TYPE_KIND) != "b" {
        report.refuse(
            format!("the key of {table} has an enum's or a domain's type, which no filter takes"),
            Some(format!(
                "ALTER TABLE {on} ALTER {key} TYPE {0} USING {key}::{0}",
                cell(here, BASE_TYPE)
            )),
        );
    }
    if cell(here, GENERATED) == "true" {
        report.refuse(
            format!("the key of {table} is a generated column"),
            Some(format!("ALTER TABLE {on} ALTER {key} DROP EXPRESSION")),
        );
    }
    if cell(here, DETERMINISTIC) == "false" {
        report.refuse(
            format!("the key of {table} has a collation in which different texts are equal"),
            Some(format!(
                "ALTER TABLE {on} ALTER {key} TYPE {} COLLATE \"C\"",
                cell(here, BASE_TYPE)
            )),
        );
    }
    for (row, side, role) in [(here, "source", roles.0), (there, "target", roles.1)] {
        judge_side(report, table, row, (side, role));
    }
    if cell(here, KIND) == "r" && !cell(here, CHILDREN).is_empty() {
        report.refuse(
            format!("{table} has children by inheritance, whose rows would stay"),
            Some(cell(here, CHILDREN)),
        );
    }
    if cell(here, COLUMNS) != cell(there, COLUMNS) {
        report.refuse(
            format!(
                "{table} has other columns on the target: {} here, {} there",
                cell(here, COLUMNS),
                cell(there, COLUMNS)
            ),
            Some(format!("-- ALTER TABLE {on} on the target, until its columns are the source's")),
        );
    }
}

/// What must be so of a table on both sides.
fn judge_side(report: &mut Report, table: &MovedTable, row: &Row, (side, role): (&str, &str)) {
    let cell = |row: &Row, i: usize| row.get(i).cloned().flatten().unwrap_or_default();
    let (on, key) = (sql::table(table), sql::ident(&table.column));
    if cell(row, IDENTITY) != "true" {
        report.refuse(
            format!(
                "on the {side} the key of {table} is not part of its replica identity: \
                 once published, every UPDATE and DELETE of it would fail, for all tenants"
            ),
            Some(format!(
                "ALTER TABLE {on} REPLICA IDENTITY FULL -- or better: {key} in the primary key"
            )),
        );
    }
    if cell(row, ROW_SECURITY) == "true" {
        report.refuse(
            format!("{table} has row level security on the {side}, which can hide rows"),
            Some(format!("ALTER TABLE {on} DISABLE ROW LEVEL SECURITY")),
        );
    }
    let after = cell(row, TRIGGERS);
    if !after.is_empty() {
        report.refuse(
            format!(
                "on the {side} the triggers {after} of {table} run after the fence's, \
                 or also for rows that are applied"
            ),
            Some(cell(row, TRIGGER_CURES)),
        );
    }
    if cell(row, OWNED) != "true" {
        let (owner, role) = (sql::ident(&cell(row, OWNER)), sql::ident(role));
        report.refuse(
            format!("on the {side} {role} is no member of {owner}, who owns {table}"),
            Some(format!("GRANT {owner} TO {role}")),
        );
    }
    let rest = cell(row, LEFTOVERS);
    if rest != "0" {
        report.note(format!("{table} has triggers of another move on the {side}"));
    }
}

async fn server(report: &mut Report, node: &mut Node, name: &str) -> Result<(), NodeError> {
    let rows = node.rows(SERVER_FACTS).await?;
    let row = rows.into_iter().next().unwrap_or_default();
    let cell = |i: usize| row.get(i).cloned().flatten().unwrap_or_default();
    let number = |i: usize| cell(i).parse::<i64>().unwrap_or(0);
    if cell(0) != "logical" {
        report.refuse(
            format!("{name} has wal_level = {}", cell(0)),
            Some("ALTER SYSTEM SET wal_level = logical -- and restart".to_owned()),
        );
    }
    let origins = cell(17);
    let free = [
        ("max_replication_slots", number(1) - number(2), SLOTS_PER_MOVE),
        ("max_wal_senders", number(3) - number(4), SLOTS_PER_MOVE),
        ("max_logical_replication_workers", number(5) - number(6), WORKERS_PER_MOVE),
        ("max_worker_processes", number(13) - number(14), WORKERS_PER_MOVE),
        // Before version 18 the replication slots' setting counts origins too.
        (origins.as_str(), number(15) - number(16), WORKERS_PER_MOVE),
    ];
    for (setting, left, wanted) in free {
        if left < wanted {
            report.refuse(
                format!("{name} has {left} free of {setting}, a move takes up to {wanted}"),
                Some(format!(
                    "ALTER SYSTEM SET {setting} = {} -- and restart",
                    if setting == "max_worker_processes" { 24 } else { 20 }
                )),
            );
        }
    }
    if number(7) > 0 {
        report.note(format!(
            "{name} has {} prepared transactions; those of what moves hold the cutover up",
            number(7)
        ));
    }
    if number(8) > OLD_TRANSACTION_S {
        report.note(format!(
            "a transaction on {name} is open for {} s; copying can't begin before it ends",
            number(8)
        ));
    }
    let (role, database) = (node.target().user.clone(), node.target().dbname.clone());
    for (column, right) in [
        (9, "create subscriptions"),
        (10, "create logins"),
        (11, "purge rows"),
        (12, "create publications"),
    ] {
        if cell(column) != "true" {
            report.refuse(
                format!("{role} may not {right} on {name}"),
                Some(grants(&role, &database)),
            );
        }
    }
    Ok(())
}

/// What a superuser has to say in the database of every shard for `role` to
/// run moves, besides membership in the roles that own the tables. A server
/// of version 15 lets only superusers subscribe.
pub fn grants(role: &str, database: &str) -> String {
    let (role, database) = (sql::ident(role), sql::ident(database));
    format!(
        "ALTER ROLE {role} LOGIN REPLICATION CREATEROLE; \
         GRANT pg_create_subscription, pg_monitor TO {role}; \
         GRANT CREATE ON DATABASE {database} TO {role}; \
         GRANT SET ON PARAMETER session_replication_role, log_statement, \
         log_min_error_statement, log_min_duration_statement TO {role}; \
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_create(text), \
         pg_catalog.pg_replication_origin_drop(text), pg_catalog.pg_replication_origin_oid(text), \
         pg_catalog.pg_replication_origin_session_setup(text) TO {role}"
    )
}

/// What makes `role` one that moves can log in as on a server of this version,
/// where `owners` own the tables; each statement by itself.
pub fn rights(role: &str, database: &str, version: u32, owners: &[String]) -> Vec<String> {
    let quoted = sql::ident(role);
    let mut all = vec![format!("CREATE ROLE {quoted} LOGIN")];
    if version < 16 {
        // Nobody else can subscribe there.
        all.push(format!("ALTER ROLE {quoted} SUPERUSER"));
        return all;
    }
    all.extend(owners.iter().map(|owner| format!("GRANT {} TO {quoted}", sql::ident(owner))));
    all.extend(grants(role, database).split("; ").map(str::to_owned));
    all
}

/// Foreign keys by which a table that stays refers to one that moves.
async fn foreign_keys(
    report: &mut Report,
    node: &mut Node,
    journal: &Journal,
) -> Result<(), NodeError> {
    // A table that is missing is a finding of its own.
    let list: Vec<String> = journal
        .tables
        .iter()
        .map(|t| format!("pg_catalog.to_regclass({})", sql::literal(&sql::table(t))))
        .collect();
    let asked = format!(
        "SELECT conname, conrelid::pg_catalog.regclass::text, confrelid::pg_catalog.regclass::text \
         FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0 \
         AND confrelid = ANY (ARRAY[{0}]::oid[]) \
         AND (conrelid = ANY (ARRAY[{0}]::oid[])) IS NOT TRUE",
        list.join(", ")
    );
    for row in node.rows(&asked).await? {
        let cell = |i: usize| row.get(i).cloned().flatten().unwrap_or_default();
        report.refuse(
            format!(
                "{} of {} refers to {}, whose rows would go away under it",
                cell(0),
                cell(1),
                cell(2)
            ),
            Some(format!("ALTER TABLE {} DROP CONSTRAINT {}", cell(1), sql::ident(&cell(0)))),
        );
    }
    Ok(())
}

/// Sequences that would have to be carried, and can't.
async fn sequences(
    report: &mut Report,
    source: &mut Node,
    target: &mut Node,
    journal: &Journal,
) -> Result<(), (Side, NodeError)> {
    if !report.is_safe() {
        // A table that is missing has no sequences to ask for.
        return Ok(());
    }
    let asked = sql::sequences(&journal.tables);
    let name = |row: &Row| {
        let cell = |i: usize| row.get(i).cloned().flatten().unwrap_or_default();
        format!("{}.{}", sql::ident(&cell(0)), sql::ident(&cell(1)))
    };
    let here = source.rows(&asked).await.map_err(|error| (Side::Source, error))?;
    for sequence in here.iter().map(name) {
        let there = format!(
            "SELECT (pg_catalog.to_regclass({}) IS NOT NULL)::text",
            sql::literal(&sequence)
        );
        let found = target.value(&there).await.map_err(|error| (Side::Target, error))?;
        if found.as_deref() != Some("true") {
            report.refuse(
                format!(
                    "the sequence {sequence}, which the moved tables use, is not on the target"
                ),
                Some(format!("CREATE SEQUENCE {sequence} -- on the target")),
            );
        }
    }
    Ok(())
}

/// Whether the source may throw away the log that a stream still needs.
async fn kept_log(report: &mut Report, node: &mut Node) -> Result<(), NodeError> {
    let bytes: u64 = report.shares.iter().map(|share| share.bytes).sum();
    let asked = "SELECT CASE setting WHEN '-1' THEN -1 ELSE setting::bigint * 1048576 END::text \
                 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'";
    let kept = node.number(asked).await?;
    if u64::try_from(kept).is_ok_and(|kept| kept < bytes.saturating_mul(2)) {
        report.note(format!(
            "the source keeps {kept} bytes of log for a stream (max_slot_wal_keep_size): \
             if more is written while {bytes} bytes are copied, the move ends"
        ));
    }
    Ok(())
}

/// Tells one run of one server from another.
async fn node_life(node: &mut Node) -> Result<Option<String>, NodeError> {
    let asked = "SELECT system_identifier::text || ' ' || \
                 pg_catalog.pg_postmaster_start_time()::text FROM pg_catalog.pg_control_system()";
    node.value(asked).await
}

pub(super) async fn share(
    node: &mut Node,
    table: &MovedTable,
    condition: &str,
    sizes: Sizes,
) -> Result<Share, NodeError> {
    let on = sql::table(table);
    let (rows, bytes) = match sizes {
        Sizes::Counted => {
            let asked = format!(
                "SELECT count(*)::text, coalesce(sum(pg_catalog.pg_column_size(t.*)), 0)::text \
                 FROM {on} t WHERE {condition}"
            );
            let row = node.rows(&asked).await?.into_iter().next().unwrap_or_default();
            let number = |i: usize| row.get(i).cloned().flatten()?.parse::<u64>().ok();
            (number(0).unwrap_or(0), number(1).unwrap_or(0))
        }
        Sizes::Estimated => {
            let asked = format!("EXPLAIN (FORMAT JSON) SELECT * FROM {on} WHERE {condition}");
            let text = node.value(&asked).await?.unwrap_or_default();
            let plan: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let number = |name: &str| {
                plan.get(0).and_then(|plan| plan.get("Plan")?.get(name)?.as_u64()).unwrap_or(0)
            };
            let rows = number("Plan Rows");
            (rows, rows.saturating_mul(number("Plan Width")))
        }
    };
    Ok(Share { table: table.clone(), rows, bytes })
}

/// Rows on the target that must not be there.
async fn strangers(
    report: &mut Report,
    node: &mut Node,
    table: &MovedTable,
    condition: &str,
) -> Result<(), NodeError> {
    let on = sql::table(table);
    let asked = format!("SELECT EXISTS (SELECT FROM {on} WHERE {condition})::text");
    if node.value(&asked).await?.as_deref() == Some("true") {
        report.refuse(
            format!("the target has rows in {table} that would be moved there"),
            Some(format!(
                "DELETE FROM {on} WHERE {condition} -- on the target, if nobody needs them"
            )),
        );
    }
    Ok(())
}

const KIND: usize = 0;
const PERSISTENCE: usize = 1;
const TYPE_KIND: usize = 2;
const GENERATED: usize = 3;
const DETERMINISTIC: usize = 4;
const IDENTITY: usize = 5;
const ROW_SECURITY: usize = 6;
const TRIGGERS: usize = 7;
const LEFTOVERS: usize = 8;
const CHILDREN: usize = 9;
const COLUMNS: usize = 10;
const BASE_TYPE: usize = 11;
const TRIGGER_CURES: usize = 12;
const OWNED: usize = 13;
const OWNER: usize = 14;
const TABLE_FACTS: &str = "\
SELECT c.relkind::text, c.relpersistence::text, t.typtype::text, (a.attgenerated <> '')::text, \
coalesce(o.collisdeterministic, true)::text, \
(SELECT pg_catalog.bool_and(l.relreplident = 'f' OR EXISTS (SELECT FROM pg_catalog.pg_index i \
JOIN pg_catalog.pg_attribute k ON k.attrelid = i.indrelid AND k.attnum = ANY (i.indkey) \
WHERE i.indrelid = l.oid AND k.attname = x.col AND (l.relreplident = 'd' AND i.indisprimary \
OR l.relreplident = 'i' AND i.indisreplident))) FROM pg_catalog.pg_class l \
WHERE l.oid = c.oid AND c.relkind = 'r' OR l.oid IN (\
SELECT relid FROM pg_catalog.pg_partition_tree(c.oid) WHERE isleaf))::text, \
(c.relrowsecurity)::text, \
(SELECT pg_catalog.string_agg(g.tgname, ', ') FROM pg_catalog.pg_trigger g \
WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgname NOT LIKE '~keyway%' \
AND (g.tgname::text COLLATE \"C\" > '~' OR g.tgenabled IN ('A', 'R'))), \
(SELECT count(*) FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid \
AND g.tgname LIKE '~keyway%')::text, \
(SELECT pg_catalog.string_agg(pg_catalog.format('ALTER TABLE %s NO INHERIT %s', \
h.inhrelid::pg_catalog.regclass, x.tab), '; ') FROM pg_catalog.pg_inherits h \
WHERE h.inhparent = c.oid), \
(SELECT pg_catalog.string_agg(b.attname || ' ' || \
pg_catalog.format_type(b.atttypid, b.atttypmod), ', ' ORDER BY b.attname COLLATE \"C\") \
FROM pg_catalog.pg_attribute b WHERE b.attrelid = c.oid AND b.attnum > 0 AND NOT b.attisdropped), \
CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) \
WHEN t.typtype = 'b' THEN pg_catalog.format_type(a.atttypid, a.atttypmod) ELSE 'text' END, \
(SELECT pg_catalog.string_agg(CASE WHEN g.tgenabled IN ('A', 'R') \
THEN pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER %I', x.tab, g.tgname) \
ELSE pg_catalog.format('ALTER TRIGGER %I ON %s RENAME TO %I', g.tgname, x.tab, \
'a_' || g.tgname) END, '; ') FROM pg_catalog.pg_trigger g \
WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgname NOT LIKE '~keyway%' \
AND (g.tgname::text COLLATE \"C\" > '~' OR g.tgenabled IN ('A', 'R'))), \
pg_catalog.pg_has_role(CURRENT_USER, c.relowner, 'USAGE')::text, \
pg_catalog.pg_get_userbyid(c.relowner) \
FROM (VALUES {list}) x(number, tab, col) \
LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(x.tab) \
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = x.col \
LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation ORDER BY x.number";
const SERVER_FACTS: &str = "\
SELECT pg_catalog.current_setting('wal_level'), \
pg_catalog.current_setting('max_replication_slots'), \
(SELECT count(*) FROM pg_catalog.pg_replication_slots)::text, \
pg_catalog.current_setting('max_wal_senders'), \
(SELECT count(*) FROM pg_catalog.pg_stat_replication)::text, \
pg_catalog.current_setting('max_logical_replication_workers'), \
(SELECT count(*) FROM pg_catalog.pg_stat_subscription WHERE pid IS NOT NULL)::text, \
(SELECT count(*) FROM pg_catalog.pg_prepared_xacts)::text, \
coalesce((SELECT EXTRACT(epoch FROM pg_catalog.max(\
pg_catalog.clock_timestamp() - xact_start))::int FROM pg_catalog.pg_stat_activity \
WHERE backend_type = 'client backend'), 0)::text, \
(r.rolsuper OR coalesce((SELECT pg_catalog.pg_has_role(CURRENT_USER, oid, 'MEMBER') \
FROM pg_catalog.pg_roles WHERE rolname = 'pg_create_subscription'), false))::text, \
(r.rolsuper OR r.rolcreaterole AND r.rolreplication)::text, \
(r.rolsuper OR pg_catalog.has_parameter_privilege('session_replication_role', 'SET') \
AND pg_catalog.has_function_privilege(\
'pg_catalog.pg_replication_origin_create(text)', 'EXECUTE') \
AND pg_catalog.has_function_privilege(\
'pg_catalog.pg_replication_origin_drop(text)', 'EXECUTE') \
AND pg_catalog.has_function_privilege(\
'pg_catalog.pg_replication_origin_oid(text)', 'EXECUTE') \
AND pg_catalog.has_function_privilege(\
'pg_catalog.pg_replication_origin_session_setup(text)', 'EXECUTE'))::text, \
pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')::text, \
pg_catalog.current_setting('max_worker_processes'), \
(SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'parallel worker' \
OR backend_type LIKE 'logical replication%')::text, \
coalesce(pg_catalog.current_setting('max_active_replication_origins', true), \
pg_catalog.current_setting('max_replication_slots')), \
(SELECT count(*) FROM pg_catalog.pg_replication_origin)::text, \
CASE WHEN pg_catalog.current_setting('max_active_replication_origins', true) IS NULL \
THEN 'max_replication_slots' ELSE 'max_active_replication_origins' END \
FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER";
/// One stream's, and two for copying.
const SLOTS_PER_MOVE: i64 = 3;
const WORKERS_PER_MOVE: i64 = 3;
/// A transaction older than this is worth a word.
const OLD_TRANSACTION_S: i64 = 60;
