//! The SQL of moves, all of it that changes something.
//!
//! Texts only: who runs them, and what an error means, is decided elsewhere.
//! Every name is qualified or quoted, because sessions run with an empty search
//! path; values are quoted for standard strings. docs/moves.md explains fence,
//! marker and streams.

use std::fmt::Write as _;

use xxhash_rust::xxh3::xxh3_64;

use crate::mover::{Journal, MovedTable, Side, Subject};
use crate::shardmap::{Hash, Key, KeyType, Keyspace};
use crate::types::SlotId;

/// The names of a move's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    id: u32,
    /// Unique among all databases of a server: replication slots and roles
    /// belong to the whole of it.
    tag: String,
}

impl Names {
    /// The names of move `id` of `database`.
    pub fn new(database: &str, id: u32) -> Self {
        let print = xxh3_64(database.as_bytes()) & 0xFF_FFFF;
        Self { id, tag: format!("kw_{id}_{print:06x}") }
    }

    /// Publication on `side`, and subscription, replication slot and login
    /// that are fed by it.
    pub fn stream_from(&self, side: Side) -> String {
        match side {
            Side::Source => self.tag.clone(),
            Side::Target => format!("{}_r", self.tag),
        }
    }

    /// The origin of the purge.
    pub fn purge(&self) -> String {
        format!("{}_purge", self.tag)
    }

    /// The row of the marker that travels from `side`.
    pub fn marker(&self, side: Side) -> i64 {
        let base = i64::from(self.id) * 2;
        match side {
            Side::Source => base,
            Side::Target => base + 1,
        }
    }

    /// The sequence whose value says whether a side takes writes.
    pub fn fence(&self) -> String {
        format!("keyway.fence_{}", self.id)
    }

    /// The names of the triggers of a table, without those for TRUNCATE.
    pub fn row_triggers(&self) -> [String; 4] {
        ["i", "d", "u", "k"].map(|kind| format!("~keyway_{}_{kind}", self.id))
    }

    /// The name of the trigger for TRUNCATE, which every partition has too.
    pub fn truncate_trigger(&self) -> String {
        format!("~keyway_{}_t", self.id)
    }
}

/// `name` as an identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The table, qualified.
pub fn table(table: &MovedTable) -> String {
    format!("{}.{}", ident(&table.schema), ident(&table.name))
}

/// What a session of a move begins with.
pub const SETUP: &str = "\
SET search_path = ''; SET standard_conforming_strings = on; SET client_min_messages = error; \
SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; \
SET synchronous_commit = on; SET lock_timeout = '1s'; SET statement_timeout = '60s'; \
SET idle_in_transaction_session_timeout = '60s'; SET row_security = off; \
SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
SET extra_float_digits = 3; SET bytea_output = 'hex'";

/// The condition that a row moves, over `column`, which may be qualified.
///
/// It is the filter of the publication, of the fence, of the comparison and of
/// the purge: one text for all.
///
/// # Errors
/// Why no database can tell which rows these are, and what to do instead.
pub fn condition(journal: &Journal, keyspace: &Keyspace, column: &str) -> Result<String, String> {
    let (first, last) = match &journal.subject {
        Subject::Tenant(key) => return Ok(format!("({column} = {})", literal(key))),
        Subject::Slots { first, last } => (*first, *last),
    };
    let mut text = match keyspace.hash() {
        Hash::Postgres | Hash::Partition if keyspace.is_composite() => {
            return Err("rows whose key has several columns can't be moved yet".to_owned());
        }
        Hash::Postgres => {
            let hash = hash_of(keyspace.key_type(), column)?;
            let mask = keyspace.slots().saturating_sub(1);
            format!("(({hash} & {mask}) BETWEEN {first} AND {last}")
        }
        Hash::Range => in_bounds(keyspace, first, last, column),
        Hash::List => in_lists(keyspace, first, last, column),
        Hash::Partition | Hash::Xxh3 => {
            return Err(format!(
                "no server can compute the slots of a keyspace with hash = \"{}\" in a filter: \
                 move its tenants one by one",
                keyspace.hash().name()
            ));
        }
    };
    for key in &journal.pinned {
        // A string never fails to grow.
        let _ = write!(text, " AND {column} <> {}", literal(key));
    }
    text.push(')');
    Ok(text)
}

/// The 64-bit hash of `column` with seed 0.
pub(in crate::control) fn hash_of(key_type: KeyType, column: &str) -> Result<String, String> {
    let function = key_type.server_hash().ok_or_else(|| {
        format!(
            "not every server can compute the slot of a {key_type} in a filter: \
             move its tenants one by one"
        )
    })?;
    let value = if key_type == KeyType::Date {
        format!("{column} - '2000-01-01'::date")
    } else {
        column.to_owned()
    };
    Ok(format!("pg_catalog.{function}({value}, 0)"))
}

pub(in crate::control) fn in_bounds(
    keyspace: &Keyspace,
    first: u32,
    last: u32,
    column: &str,
) -> String {
    let bounds = keyspace.bounds();
    let bound = |index: u32| {
        let index = usize::try_from(index).ok()?;
        bounds.get(index).map(|key| literal(&key.to_string()))
    };
    let mut parts = vec![format!("{column} IS NOT NULL")];
    parts.extend(first.checked_sub(1).and_then(bound).map(|low| format!("{column} >= {low}")));
    parts.extend(bound(last).map(|high| format!("{column} < {high}")));
    format!("({}", parts.join(" AND "))
}

pub(in crate::control) fn in_lists(
    keyspace: &Keyspace,
    first: u32,
    last: u32,
    column: &str,
) -> String {
    let lists = keyspace.lists();
    let quoted = |keys: &[Key<'_>]| -> Vec<String> {
        keys.iter().map(|key| format!("{column} = {}", literal(&key.to_string()))).collect()
    };
    let others = SlotId::new(keyspace.slots().saturating_sub(1));
    let mut parts: Vec<String> = Vec::new();
    for (slot, keys) in (0_u32..).zip(&lists) {
        if slot >= first && slot <= last {
            parts.extend(quoted(keys));
        }
    }
    if last >= others.number() {
        let all: Vec<String> = lists.iter().flat_map(|keys| quoted(keys)).collect();
        parts.push(if all.is_empty() {
            format!("{column} IS NOT NULL")
        } else {
            format!("NOT ({})", all.join(" OR "))
        });
    }
    format!("(({})", if parts.is_empty() { "false".to_owned() } else { parts.join(" OR ") })
}

/// Makes what every move needs on a shard.
pub const BASE: &str = "\
CREATE SCHEMA IF NOT EXISTS keyway; GRANT USAGE ON SCHEMA keyway TO PUBLIC; \
CREATE TABLE IF NOT EXISTS keyway.runner (move_id int PRIMARY KEY, generation bigint NOT NULL, \
fenced bigint NOT NULL DEFAULT 0, undone bigint NOT NULL DEFAULT 0, \
shape jsonb, fed_by text, line text); \
CREATE TABLE IF NOT EXISTS keyway.marker (move_id bigint PRIMARY KEY, token bigint NOT NULL); \
CREATE TABLE IF NOT EXISTS keyway.proof (move_id bigint, token bigint, tab text, \
row_count bigint NOT NULL, row_sum numeric NOT NULL, PRIMARY KEY (move_id, token, tab))";

/// Whether [`BASE`] is there.
pub const HAS_BASE: &str = "\
SELECT (pg_catalog.to_regclass('keyway.runner') IS NOT NULL \
AND pg_catalog.to_regclass('keyway.marker') IS NOT NULL \
AND pg_catalog.to_regclass('keyway.proof') IS NOT NULL)::text";

/// Makes this side obey the runner of `generation`; answers the generation that
/// it obeys, which is a later one if that came first.
pub fn seize(id: u32, generation: u64) -> String {
    format!(
        "INSERT INTO keyway.runner AS r (move_id, generation) VALUES ({id}, {generation}) \
         ON CONFLICT (move_id) DO UPDATE SET generation = \
         greatest(r.generation, excluded.generation) RETURNING generation::text"
    )
}

/// The rest of a statement block: fails with [`OUTRUN`] unless the side obeys
/// this runner, and holds the runner's row until the transaction ends. `also`
/// is a condition on the tokens that have been used, `set` records one.
fn obeyed(id: u32, generation: u64, also: &str, set: &str) -> String {
    format!(
        "UPDATE keyway.runner SET {set} WHERE move_id = {id} AND generation = {generation} \
         AND {also}; \
         IF NOT FOUND THEN RAISE EXCEPTION USING errcode = '{OUTRUN}', \
         message = 'keyway: this runner or this word of it is outdated'; END IF; "
    )
}

fn block(body: &str) -> String {
    format!("DO $keyway$ BEGIN {body}END $keyway$")
}

/// Makes the fence of `side` where there is none: open on the source, closed
/// on the target. An existing fence is left as it is.
pub fn make_fence(names: &Names, side: Side, generation: u64) -> String {
    let (fence, id) = (names.fence(), names.id);
    let state = match side {
        Side::Source => OPEN,
        Side::Target => FENCED,
    };
    let obey = obeyed(id, generation, "true", "fenced = fenced");
    // The target gets the source's marker with the copy.
    let own = [names.marker(side), names.marker(Side::Target)];
    let markers: Vec<String> = own.iter().map(|row| format!("({row}, 0)")).collect();
    block(&format!(
        "{obey}\
         IF pg_catalog.to_regclass('{fence}') IS NULL THEN \
         EXECUTE 'CREATE SEQUENCE {fence} AS int MINVALUE 1 MAXVALUE 9'; \
         PERFORM pg_catalog.setval('{fence}', {state}); \
         EXECUTE 'GRANT SELECT ON {fence} TO PUBLIC'; END IF; \
         INSERT INTO keyway.marker VALUES {} ON CONFLICT DO NOTHING; ",
        markers.join(", ")
    ))
}

/// Makes the functions of the triggers.
pub fn make_functions(names: &Names) -> String {
    let (fence, id) = (names.fence(), names.id);
    format!(
        "CREATE OR REPLACE FUNCTION {fence}() RETURNS trigger LANGUAGE plpgsql AS $keyway$ BEGIN \
         IF NOT pg_catalog.pg_try_advisory_xact_lock_shared({LOCK_CLASS}, {id}) \
         OR pg_catalog.pg_sequence_last_value('{fence}'::pg_catalog.regclass) \
         IS DISTINCT FROM {OPEN} THEN \
         RAISE EXCEPTION USING errcode = 'KW001', message = 'keyway: tenant is being moved', \
         detail = 'move={id}'; END IF; \
         IF tg_op = 'DELETE' THEN RETURN old; END IF; RETURN new; END $keyway$; \
         CREATE OR REPLACE FUNCTION keyway.key_change_{id}() RETURNS trigger LANGUAGE plpgsql \
         AS $keyway$ BEGIN RAISE EXCEPTION USING errcode = 'KW002', \
         message = 'keyway: the key of a row can''t change while its tenant is being moved', \
         detail = 'move={id}'; END $keyway$; \
         CREATE OR REPLACE FUNCTION keyway.no_truncate_{id}() RETURNS trigger LANGUAGE plpgsql \
         AS $keyway$ BEGIN RAISE EXCEPTION USING errcode = 'KW003', \
         message = 'keyway: a table can''t be truncated while rows of it are being moved', \
         detail = 'move={id}'; END $keyway$"
    )
}

/// Puts the triggers on a table, all at once; `new` and `old` are the condition
/// over those rows. `parts` are its partitions, with their schemas.
pub fn make_triggers(
    names: &Names,
    moved: &MovedTable,
    (new, old): (&str, &str),
    parts: &[(String, String)],
) -> String {
    let (fence, id, on) = (names.fence(), names.id, table(moved));
    let [insert, delete, update, key] = names.row_triggers().map(|name| ident(&name));
    let mut text = format!(
        "CREATE OR REPLACE TRIGGER {insert} BEFORE INSERT ON {on} FOR EACH ROW \
         WHEN {new} EXECUTE FUNCTION {fence}(); \
         CREATE OR REPLACE TRIGGER {delete} BEFORE DELETE ON {on} FOR EACH ROW \
         WHEN {old} EXECUTE FUNCTION {fence}(); \
         CREATE OR REPLACE TRIGGER {update} BEFORE UPDATE ON {on} FOR EACH ROW \
         WHEN ({old} AND {new}) EXECUTE FUNCTION {fence}(); \
         CREATE OR REPLACE TRIGGER {key} BEFORE UPDATE ON {on} FOR EACH ROW \
         WHEN ({old} IS DISTINCT FROM {new}) EXECUTE FUNCTION keyway.key_change_{id}()"
    );
    let own = (moved.schema.clone(), moved.name.clone());
    for (schema, name) in std::iter::once(&own).chain(parts) {
        let _ = write!(
            text,
            "; CREATE OR REPLACE TRIGGER {} BEFORE TRUNCATE ON {}.{} FOR EACH STATEMENT \
             EXECUTE FUNCTION keyway.no_truncate_{id}()",
            ident(&names.truncate_trigger()),
            ident(schema),
            ident(name)
        );
    }
    text
}

/// Writes down what the tables look like, once.
pub fn note_shape(id: u32, tables: &[MovedTable]) -> String {
    format!(
        "UPDATE keyway.runner SET shape = ({}) WHERE move_id = {id} AND shape IS NULL",
        shape(id, tables)
    )
}

/// The tables that no longer look as they did, in one text; empty if all do.
pub fn reshaped(id: u32, tables: &[MovedTable]) -> String {
    format!(
        "SELECT coalesce(pg_catalog.string_agg(d.tab, ', '), '') \
         FROM keyway.runner r, ({}) AS s(now), LATERAL (SELECT coalesce(o.key, n.key) AS tab \
         FROM pg_catalog.jsonb_each_text(r.shape) o \
         FULL JOIN pg_catalog.jsonb_each_text(s.now) n ON o.key = n.key \
         WHERE o.value IS DISTINCT FROM n.value) d \
         WHERE r.move_id = {id} AND r.shape IS NOT NULL",
        shape(id, tables)
    )
}

/// What a stream, a comparison or a fence depends on of each table: itself, its
/// partitions, their columns, constraints, unique indexes and triggers. Other
/// moves' triggers come and go.
fn shape(id: u32, tables: &[MovedTable]) -> String {
    let list: Vec<String> = tables.iter().map(|t| format!("({})", literal(&table(t)))).collect();
    format!(
        "SELECT coalesce(pg_catalog.jsonb_object_agg(y.tab, y.facts), '{{}}') FROM (\
         SELECT x.tab, pg_catalog.md5(pg_catalog.string_agg(f.fact, '; ' \
         ORDER BY f.fact COLLATE \"C\")) AS facts FROM (VALUES {}) x(tab) \
         CROSS JOIN LATERAL (SELECT pg_catalog.to_regclass(x.tab)::oid AS id UNION \
         SELECT relid::oid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(x.tab))) p \
         CROSS JOIN LATERAL (\
         SELECT pg_catalog.concat_ws(' ', 'r', c.oid, c.relkind, c.relpersistence, \
         c.relreplident, c.relrowsecurity) FROM pg_catalog.pg_class c WHERE c.oid = p.id \
         UNION ALL SELECT pg_catalog.concat_ws(' ', 'a', p.id, a.attnum, a.attname, \
         pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, \
         a.attgenerated, a.attcollation) FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = p.id AND a.attnum > 0 AND NOT a.attisdropped \
         UNION ALL SELECT pg_catalog.concat_ws(' ', 'c', p.id, c.conname, \
         pg_catalog.pg_get_constraintdef(c.oid)) FROM pg_catalog.pg_constraint c \
         WHERE c.conrelid = p.id \
         UNION ALL SELECT pg_catalog.concat_ws(' ', 'i', p.id, \
         pg_catalog.pg_get_indexdef(i.indexrelid)) FROM pg_catalog.pg_index i \
         WHERE i.indrelid = p.id AND i.indisunique \
         UNION ALL SELECT pg_catalog.concat_ws(' ', 't', p.id, g.tgname, g.tgenabled, \
         pg_catalog.pg_get_triggerdef(g.oid)) FROM pg_catalog.pg_trigger g \
         WHERE g.tgrelid = p.id AND NOT g.tgisinternal AND (g.tgname NOT LIKE '~keyway%' \
         OR g.tgname LIKE '~keyway\\_{id}\\_%' AND g.tgname <> {})\
         ) f(fact) GROUP BY x.tab) y",
        list.join(", "),
        literal(&brake_trigger(id))
    )
}

/// Where the stream into a side comes from.
pub fn fed_by(id: u32) -> String {
    format!("SELECT fed_by FROM keyway.runner WHERE move_id = {id}")
}

/// Writes that down.
pub fn note_feed(id: u32, by: &str) -> String {
    format!("UPDATE keyway.runner SET fed_by = {} WHERE move_id = {id}", literal(by))
}

/// What is left of the log that a replication slot needs; no row without it.
pub fn slot_state(name: &str) -> String {
    format!(
        "SELECT coalesce(wal_status, 'lost') FROM pg_catalog.pg_replication_slots \
         WHERE slot_name = {}",
        literal(name)
    )
}

/// The same, and by how many bytes its reader is behind.
pub fn behind(name: &str) -> String {
    format!(
        "SELECT coalesce(wal_status, 'lost'), pg_catalog.pg_wal_lsn_diff(\
         pg_catalog.pg_current_wal_insert_lsn(), confirmed_flush_lsn)::bigint::text \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        literal(name)
    )
}

/// The line of the server's life: it changes when a replica is promoted.
const LINE: &str = "pg_catalog.substr(pg_catalog.pg_walfile_name(\
pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";

/// Writes down in which life the rows are compared.
pub fn note_line(id: u32) -> String {
    format!("UPDATE keyway.runner SET line = {LINE} WHERE move_id = {id}")
}

/// Whether this is still the life in which the rows were compared.
pub fn is_same_line(id: u32) -> String {
    format!("SELECT coalesce(line = {LINE}, false)::text FROM keyway.runner WHERE move_id = {id}")
}

/// The name of the trigger that can hold the copy up.
pub fn brake_trigger(id: u32) -> String {
    format!("~keyway_{id}_b")
}

/// Makes what the brakes of the target's tables go by: it begins released.
pub fn make_brake(id: u32) -> String {
    format!(
        "CREATE SEQUENCE IF NOT EXISTS keyway.brake_{id} AS int MINVALUE 1 MAXVALUE 9; \
         GRANT SELECT ON keyway.brake_{id} TO PUBLIC; \
         CREATE OR REPLACE FUNCTION keyway.brake_{id}() RETURNS trigger LANGUAGE plpgsql \
         AS $keyway$ BEGIN WHILE pg_catalog.pg_sequence_last_value(\
         'keyway.brake_{id}'::pg_catalog.regclass) IS NOT DISTINCT FROM {FENCED} \
         LOOP PERFORM pg_catalog.pg_sleep(0.1); END LOOP; RETURN new; END $keyway$"
    )
}

/// Puts the brake on a table: rows that a stream brings wait while it is set.
pub fn make_brake_trigger(id: u32, moved: &MovedTable) -> String {
    let (on, name) = (table(moved), ident(&brake_trigger(id)));
    format!(
        "CREATE OR REPLACE TRIGGER {name} BEFORE INSERT ON {on} FOR EACH ROW \
         WHEN (pg_catalog.pg_sequence_last_value('keyway.brake_{id}'::pg_catalog.regclass) \
         IS NOT DISTINCT FROM {FENCED}) EXECUTE FUNCTION keyway.brake_{id}(); \
         ALTER TABLE {on} ENABLE REPLICA TRIGGER {name}"
    )
}

/// Sets or releases the brake, unless it is so already.
pub fn set_brake(id: u32, on: bool) -> String {
    let state = if on { FENCED } else { OPEN };
    format!(
        "SELECT pg_catalog.setval('keyway.brake_{id}', {state}) \
         WHERE coalesce(pg_catalog.pg_sequence_last_value(\
         'keyway.brake_{id}'::pg_catalog.regclass), {OPEN}) <> {state}"
    )
}

/// How far the slowest replica is behind, how many sessions are at work, and
/// the size of the database. Streams of moves are no replicas.
pub const PRESSURE: &str = "\
SELECT coalesce((SELECT pg_catalog.max(pg_catalog.pg_wal_lsn_diff(\
pg_catalog.pg_current_wal_insert_lsn(), r.replay_lsn)) FROM pg_catalog.pg_stat_replication r \
WHERE r.replay_lsn IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s \
WHERE s.active_pid = r.pid AND s.slot_type = 'logical')), 0)::bigint::text, \
(SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE state = 'active' \
AND backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid())::text, \
pg_catalog.pg_database_size(pg_catalog.current_database())::text";

/// Takes the triggers off a table and its partitions.
pub fn drop_triggers(names: &Names, moved: &MovedTable, parts: &[(String, String)]) -> String {
    let on = table(moved);
    let rows = names.row_triggers();
    let brake = brake_trigger(names.id);
    let mut drops: Vec<String> = rows
        .iter()
        .chain([&brake])
        .map(|name| format!("DROP TRIGGER IF EXISTS {} ON {on}", ident(name)))
        .collect();
    let own = (moved.schema.clone(), moved.name.clone());
    for (schema, name) in std::iter::once(&own).chain(parts) {
        drops.push(format!(
            "DROP TRIGGER IF EXISTS {} ON {}.{}",
            ident(&names.truncate_trigger()),
            ident(schema),
            ident(name)
        ));
    }
    drops.join("; ")
}

/// Removes what is left of a move on a shard once its triggers are gone.
pub fn remove_rest(names: &Names) -> String {
    let (fence, id) = (names.fence(), names.id);
    let (forward, back) = (names.marker(Side::Source), names.marker(Side::Target));
    format!(
        "DROP TRIGGER IF EXISTS {prove} ON keyway.marker; \
         DROP FUNCTION IF EXISTS keyway.prove_{id}(), {fence}(), keyway.key_change_{id}(), \
         keyway.no_truncate_{id}(), keyway.brake_{id}(); \
         DROP SEQUENCE IF EXISTS {fence}, keyway.brake_{id}; \
         DELETE FROM keyway.marker WHERE move_id IN ({forward}, {back}); \
         DELETE FROM keyway.proof WHERE move_id IN ({forward}, {back}); \
         DELETE FROM keyway.runner WHERE move_id = {id}",
        prove = ident(&prove_trigger(id)),
    )
}

/// Closes `side` with `token`, which also goes into its marker. To be run in a
/// transaction that is committed synchronously.
pub fn close(names: &Names, side: Side, generation: u64, token: u64) -> [String; 2] {
    let (fence, id, marker) = (names.fence(), names.id, names.marker(side));
    let also = format!("undone < {token}");
    let obey = obeyed(id, generation, &also, &format!("fenced = greatest(fenced, {token})"));
    [
        format!("SELECT pg_catalog.pg_advisory_xact_lock({LOCK_CLASS}, {id})"),
        block(&format!(
            "{obey}PERFORM pg_catalog.setval('{fence}', {FENCED}); \
             UPDATE keyway.marker SET token = {token} WHERE move_id = {marker}; \
             IF NOT FOUND THEN RAISE EXCEPTION 'keyway: the marker is missing'; END IF; "
        )),
    ]
}

/// Opens `side`, if the other's marker is there with `token` and `side` has not
/// been closed again since.
pub fn open(names: &Names, side: Side, generation: u64, token: u64) -> String {
    let (fence, id, marker) = (names.fence(), names.id, names.marker(side.other()));
    let obey = obeyed(id, generation, &format!("fenced < {token}"), "fenced = fenced");
    block(&format!(
        "{obey}IF NOT EXISTS (SELECT FROM keyway.marker WHERE move_id = {marker} \
         AND token = {token}) THEN RAISE EXCEPTION USING errcode = '{TOO_EARLY}', \
         message = 'keyway: the marker has not arrived'; END IF; \
         PERFORM pg_catalog.setval('{fence}', {OPEN}); "
    ))
}

/// Opens a side again, which has stayed the owner and was not fenced with a later
/// token, and makes a fence with `token` come too late.
pub fn reopen(names: &Names, generation: u64, token: u64) -> String {
    let (fence, id) = (names.fence(), names.id);
    let obey = obeyed(
        id,
        generation,
        &format!("fenced <= {token}"),
        &format!("undone = greatest(undone, {token})"),
    );
    block(&format!("{obey}PERFORM pg_catalog.setval('{fence}', {OPEN}); "))
}

/// Closes a side whatever it was.
pub fn shut(names: &Names, generation: u64) -> String {
    let fence = names.fence();
    let obey = obeyed(names.id, generation, "true", "fenced = fenced");
    block(&format!("{obey}PERFORM pg_catalog.setval('{fence}', {FENCED}); "))
}

/// Whether a side is open; closed if it has no fence.
pub fn is_open(names: &Names) -> String {
    let fence = names.fence();
    format!(
        "SELECT coalesce(CASE WHEN pg_catalog.to_regclass('{fence}') IS NOT NULL THEN \
         pg_catalog.pg_sequence_last_value(pg_catalog.to_regclass('{fence}')) END = {OPEN}, \
         false)::text"
    )
}

/// Whether a side has a fence, open or closed.
pub fn has_fence(names: &Names) -> String {
    format!("SELECT (pg_catalog.to_regclass('{}') IS NOT NULL)::text", names.fence())
}

/// Whether the marker from `side` shows `token`.
pub fn shows(names: &Names, side: Side, token: i64) -> String {
    format!(
        "SELECT count(*)::text FROM keyway.marker WHERE move_id = {} AND token = {token}",
        names.marker(side)
    )
}

/// Who holds the lock of the move: process, state, seconds of its transaction,
/// application.
pub fn blockers(names: &Names) -> String {
    format!(
        "SELECT coalesce(l.pid::text, 'a prepared transaction'), coalesce(a.state, ''), \
         coalesce(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::int::text, ''), \
         coalesce(a.application_name, '') FROM pg_catalog.pg_locks l \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.classid = {LOCK_CLASS} AND l.objid = {} \
         AND l.objsubid = 2 AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() \
         AND l.database = (SELECT oid FROM pg_catalog.pg_database \
         WHERE datname = pg_catalog.current_database()) LIMIT 10",
        names.id
    )
}

/// Publishes the rows of `side`; each table with its condition.
pub fn make_publication(names: &Names, side: Side, tables: &[(MovedTable, String)]) -> String {
    let list: Vec<String> = tables
        .iter()
        .map(|(moved, condition)| format!("{} WHERE ({condition})", table(moved)))
        .collect();
    format!(
        "CREATE PUBLICATION {} FOR TABLE {}, keyway.marker WHERE (move_id = {}) \
         WITH (publish = 'insert,update,delete', publish_via_partition_root = true)",
        ident(&names.stream_from(side)),
        list.join(", "),
        names.marker(side)
    )
}

/// The tables of a publication, quoted.
pub fn published_tables(name: &str) -> String {
    format!(
        "SELECT pg_catalog.format('%I.%I', schemaname, tablename) \
         FROM pg_catalog.pg_publication_tables WHERE pubname = {}",
        literal(name)
    )
}

/// Drops a publication while nobody writes to its tables: a writer that opens a
/// table meanwhile may look for a publication that is gone, and fails with
/// "cache lookup failed for publication".
pub fn drop_publication(name: &str, tables: &[String]) -> Vec<String> {
    let mut statements = Vec::new();
    if !tables.is_empty() {
        statements.push(format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", tables.join(", ")));
    }
    statements.push(format!("DROP PUBLICATION IF EXISTS {}", ident(name)));
    statements
}

/// The name of the trigger that compares when the marker arrives.
pub fn prove_trigger(id: u32) -> String {
    format!("~keyway_{id}_prove")
}

/// Makes the target compare whenever a marker with a negative token arrives:
/// within the transaction that applies it, so at that point of the stream.
pub fn make_prover(names: &Names, sums: &[(MovedTable, String)]) -> String {
    let (id, marker) = (names.id, names.marker(Side::Source));
    let mut body = String::new();
    for (moved, sum) in sums {
        let _ = write!(
            body,
            "INSERT INTO keyway.proof SELECT {marker}, new.token, {}, s.c, s.h \
             FROM ({sum}) s(c, h); ",
            literal(&moved.to_string())
        );
    }
    format!(
        "DELETE FROM keyway.proof WHERE move_id = {marker}; \
         CREATE OR REPLACE FUNCTION keyway.prove_{id}() RETURNS trigger LANGUAGE plpgsql \
         SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' SET TimeZone = 'UTC' \
         SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off \
         AS $keyway$ BEGIN {body}RETURN NULL; END $keyway$; \
         CREATE OR REPLACE TRIGGER {trigger} AFTER UPDATE ON keyway.marker FOR EACH ROW \
         WHEN (new.move_id = {marker} AND new.token < 0) EXECUTE FUNCTION keyway.prove_{id}(); \
         ALTER TABLE keyway.marker ENABLE REPLICA TRIGGER {trigger}",
        trigger = ident(&prove_trigger(id)),
    )
}

/// Number and sum of hashes of the rows that move; `columns` are expressions
/// that are equal if the stored values are.
pub fn sum(moved: &MovedTable, columns: &[String], condition: &str) -> String {
    format!(
        "SELECT count(*), coalesce(sum(pg_catalog.hash_record_extended(ROW({}), 0)::numeric), 0) \
         FROM {} WHERE {condition}",
        columns.join(", "),
        table(moved)
    )
}

/// Asks for the next negative token of the source's marker.
pub fn next_proof(names: &Names, generation: u64) -> [String; 3] {
    let (id, marker) = (names.id, names.marker(Side::Source));
    let obey = obeyed(id, generation, "true", "fenced = fenced");
    [
        format!("SELECT pg_catalog.pg_advisory_xact_lock({LOCK_CLASS}, {id})"),
        block(&obey),
        format!(
            "UPDATE keyway.marker SET token = least(token, 0) - 1 WHERE move_id = {marker} \
             RETURNING token::text"
        ),
    ]
}

/// One batch of the purge of a table's leaf.
pub fn purge_batch(schema: &str, name: &str, condition: &str, rows: u32) -> String {
    let leaf = format!("{}.{}", ident(schema), ident(name));
    format!(
        "DELETE FROM ONLY {leaf} WHERE ctid = ANY(ARRAY(\
         SELECT ctid FROM ONLY {leaf} WHERE {condition} LIMIT {rows})) AND {condition}"
    )
}

/// Fails unless this side is closed and obeys the runner: nothing may be
/// purged otherwise.
pub fn may_purge(names: &Names, generation: u64) -> String {
    let fence = names.fence();
    let obey = obeyed(names.id, generation, "true", "fenced = fenced");
    block(&format!(
        "{obey}IF pg_catalog.pg_sequence_last_value('{fence}'::pg_catalog.regclass) \
         IS NOT DISTINCT FROM {OPEN} THEN \
         RAISE EXCEPTION 'keyway: this side is open, its rows are not purged'; END IF; "
    ))
}

/// The leaves of a table that hold rows: schema and name. A table without
/// partitions is its own.
pub fn leaves(moved: &MovedTable) -> String {
    let on = literal(&table(moved));
    format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_partition_tree({on}) p \
         JOIN pg_catalog.pg_class c ON c.oid = p.relid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.isleaf \
         UNION SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = pg_catalog.to_regclass({on}) AND c.relkind = 'r'"
    )
}

/// All partitions below a table: schema and name.
pub fn parts(moved: &MovedTable) -> String {
    format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_partition_tree({}) p \
         JOIN pg_catalog.pg_class c ON c.oid = p.relid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.level > 0",
        literal(&table(moved))
    )
}

/// The sequences of the tables: schema, name, last value (null if unused),
/// increment, greatest and least value.
pub fn sequences(tables: &[MovedTable]) -> String {
    let list: Vec<String> = tables.iter().map(|t| literal(&table(t))).collect();
    format!(
        "SELECT DISTINCT n.nspname, c.relname, \
         pg_catalog.pg_sequence_last_value(c.oid::pg_catalog.regclass)::text, \
         s.seqincrement::text, s.seqmax::text, s.seqmin::text \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid WHERE c.oid IN (\
         SELECT d.objid FROM pg_catalog.pg_depend d \
         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
         AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
         AND d.deptype IN ('a', 'i') AND d.refobjid = ANY (ARRAY[{list}]::pg_catalog.regclass[]) \
         UNION SELECT d.refobjid FROM pg_catalog.pg_attrdef a JOIN pg_catalog.pg_depend d \
         ON d.objid = a.oid AND d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
         AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
         WHERE a.adrelid = ANY (ARRAY[{list}]::pg_catalog.regclass[])) ORDER BY 1, 2",
        list = list.join(", ")
    )
}

/// Moves a sequence on to `value`, unless it is there or further already.
pub fn carry(schema: &str, name: &str, value: i64, ascending: bool) -> String {
    let on = literal(&format!("{}.{}", ident(schema), ident(name)));
    let behind = if ascending { "<" } else { ">" };
    format!(
        "SELECT pg_catalog.setval({on}, {value}) WHERE coalesce(\
         pg_catalog.pg_sequence_last_value({on}::pg_catalog.regclass) {behind} {value}, true)"
    )
}

/// A fence's values, as its sequence counts them.
pub const OPEN: u8 = 1;
/// See [`OPEN`].
pub const FENCED: u8 = 2;
/// The first number of the advisory locks of fences.
pub const LOCK_CLASS: i32 = 1_263_098_711;
/// The error of a runner that another has followed, or of a word of it that
/// comes too late.
pub const OUTRUN: &str = "KW010";
/// The error of opening a side that lacks rows.
pub const TOO_EARLY: &str = "KW011";
