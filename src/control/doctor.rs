//! What should not be on a shard: objects that moves have left behind, and rows
//! whose slot another shard owns.
//!
//! Whose a thing is, is read from its name; which moves may still need theirs,
//! is the caller's to know. A row is removed here only if its owner has the
//! same one. It does not decide whether anything is done.
//!
//! Source: hazards 101 and 103 of `docs/hazards.md`.

use std::collections::BTreeSet;
use std::fmt;

use super::mover::node::{Node, NodeError};
use super::mover::sql::{self, Names};
use crate::mover::{Journal, MovedTable, Side, Subject};
use crate::shardmap::Map;
use crate::types::ShardId;

/// Something on a shard that a move has made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// What it is.
    pub kind: Kind,
    /// Its name, or a row's number.
    pub name: String,
    /// The table that a trigger is on, or that has the row.
    pub on: String,
    /// The move whose it was.
    pub id: u32,
}

/// What a move makes, in the order in which it is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A subscription.
    Subscription,
    /// A publication.
    Publication,
    /// A replication slot.
    Slot,
    /// A trigger of a fence, or the one that compares.
    Trigger,
    /// A function of theirs.
    Function,
    /// A fence's state.
    Sequence,
    /// A replication origin.
    Origin,
    /// A login of one server at another.
    Role,
    /// A row of the tables that moves keep on each shard.
    Row,
}

impl Kind {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Subscription, "subscription"),
        (Self::Publication, "publication"),
        (Self::Slot, "replication slot"),
        (Self::Trigger, "trigger"),
        (Self::Function, "function"),
        (Self::Sequence, "sequence"),
        (Self::Origin, "replication origin"),
        (Self::Role, "role"),
        (Self::Row, "row"),
    ];

    fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == word).map(|(kind, _)| *kind)
    }

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)?;
        if !self.on.is_empty() {
            write!(f, " of {}", self.on)?;
        }
        write!(f, " is left of move {}", self.id)
    }
}

impl Leftover {
    /// What takes it away; each statement by itself.
    pub fn cure(&self) -> Vec<String> {
        let (name, on) = (&self.name, &self.on);
        let (quoted, text) = (sql::ident(name), sql::literal(name));
        match self.kind {
            Kind::Subscription => vec![
                format!("ALTER SUBSCRIPTION {quoted} DISABLE"),
                format!("ALTER SUBSCRIPTION {quoted} SET (slot_name = NONE)"),
                format!("DROP SUBSCRIPTION {quoted}"),
            ],
            Kind::Publication => vec![format!("DROP PUBLICATION IF EXISTS {quoted}")],
            Kind::Slot => vec![format!("SELECT pg_catalog.pg_drop_replication_slot({text})")],
            Kind::Trigger => vec![format!("DROP TRIGGER IF EXISTS {quoted} ON {on}")],
            Kind::Function => vec![format!("DROP FUNCTION IF EXISTS keyway.{quoted}()")],
            Kind::Sequence => vec![format!("DROP SEQUENCE IF EXISTS keyway.{quoted}")],
            Kind::Origin => vec![format!("SELECT pg_catalog.pg_replication_origin_drop({text})")],
            Kind::Role => vec![format!("DROP OWNED BY {quoted}"), format!("DROP ROLE {quoted}")],
            Kind::Row => vec![format!("DELETE FROM {on} WHERE move_id = {name}")],
        }
    }
}

/// What moves have left on a shard of `database` that none of `unfinished` may
/// need, in the order in which it is to be taken away.
///
/// # Errors
/// The shard can't be asked.
pub async fn leftovers(
    node: &mut Node,
    database: &str,
    unfinished: &BTreeSet<u32>,
) -> Result<Vec<Leftover>, NodeError> {
    let mut rows = node.rows(OBJECTS).await?;
    if node.value(sql::HAS_BASE).await?.as_deref() == Some("true") {
        rows.extend(node.rows(ROWS).await?);
    }
    let mut found: Vec<Leftover> = rows
        .into_iter()
        .filter_map(|row| {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            let (kind, name, on) = (cells.next()?, cells.next()?, cells.next()?);
            let kind = Kind::of(&kind)?;
            let id = move_of(kind, &name, &on, database)?;
            Some(Leftover { kind, name, on, id })
        })
        .filter(|leftover| !unfinished.contains(&leftover.id))
        .collect();
    found.sort();
    Ok(found)
}

/// The move that has made a thing of this name; `None` if none of `database`
/// did.
fn move_of(kind: Kind, name: &str, on: &str, database: &str) -> Option<u32> {
    let number = |text: &str| text.parse::<u32>().ok();
    match kind {
        Kind::Subscription | Kind::Publication | Kind::Slot | Kind::Origin | Kind::Role => {
            let id = number(name.strip_prefix("kw_")?.split('_').next()?)?;
            let names = Names::new(database, id);
            let ours =
                [names.stream_from(Side::Source), names.stream_from(Side::Target), names.purge()];
            ours.iter().any(|own| own == name).then_some(id)
        }
        Kind::Trigger => number(name.strip_prefix("~keyway_")?.split('_').next()?),
        Kind::Function | Kind::Sequence => {
            let stems = ["fence_", "key_change_", "no_truncate_", "prove_"];
            number(stems.iter().find_map(|stem| name.strip_prefix(stem))?)
        }
        Kind::Row if on == "keyway.runner" => number(name),
        // Each move has one marker for each side.
        Kind::Row => number(name).map(|marker| marker / 2),
    }
}

/// Rows of a table on a shard that does not own them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// The table.
    pub table: MovedTable,
    /// The shard that has them.
    pub on: ShardId,
    /// The one that owns them.
    pub owner: ShardId,
    /// How many.
    pub rows: u64,
    /// Some of their keys.
    pub keys: Vec<String>,
    condition: String,
}

/// Where to look for rows of `owner`'s on another shard: the table and the
/// condition, without the rows of `unfinished` moves, which may be on both.
///
/// # Errors
/// Why no server can say which rows these are.
pub fn strangers(
    map: &Map,
    (owner, on): (ShardId, ShardId),
    unfinished: &[Journal],
) -> Result<Vec<(MovedTable, String)>, String> {
    let mut out = Vec::new();
    for keyspace in map.keyspaces() {
        let slots = keyspace.ranges().into_iter().filter(|(_, _, shard)| *shard == owner);
        let slots = slots
            .map(|(first, last, _)| Subject::Slots { first: first.number(), last: last.number() });
        let pins = keyspace.pins().filter(|(_, shard)| *shard == owner);
        let pins = pins.map(|(key, _)| Subject::Tenant(key.to_string()));
        let mut journals = Vec::new();
        for subject in slots.chain(pins) {
            match Journal::begin(map, keyspace.name(), subject, on) {
                Ok(journal) => journals.push(journal),
                // Without tables there are no rows.
                Err(_) => break,
            }
        }
        let Some(tables) = journals.first().map(|journal| journal.tables.clone()) else { continue };
        for table in tables {
            let column = format!("row.{}", sql::ident(&table.column));
            let part = |journal: &Journal| sql::condition(journal, keyspace, &column);
            let parts: Vec<String> = journals.iter().map(part).collect::<Result<_, _>>()?;
            let moving = unfinished.iter().filter(|journal| journal.keyspace == keyspace.name());
            let moving: Vec<String> = moving.map(part).collect::<Result<_, _>>()?;
            let mut condition = format!("({})", parts.join(" OR "));
            for part in moving {
                condition.push_str(&format!(" AND NOT {part}"));
            }
            out.push((table, condition));
        }
    }
    Ok(out)
}

/// Counts the rows that `condition` names.
///
/// # Errors
/// The shard can't be asked.
pub async fn count(
    node: &mut Node,
    (table, condition): (MovedTable, String),
    (owner, on): (ShardId, ShardId),
) -> Result<Option<Misplaced>, NodeError> {
    let text = format!(
        "SELECT pg_catalog.count(*)::text, \
         pg_catalog.array_to_string((pg_catalog.array_agg(DISTINCT row.{0}::text))[1:{1}], '{2}') \
         FROM {3} AS row WHERE {condition}",
        sql::ident(&table.column),
        KEYS_SHOWN,
        SEPARATOR,
        sql::table(&table),
    );
    let row = node.rows_within(&text, SCAN_WAIT).await?.into_iter().next().unwrap_or_default();
    let mut cells = row.into_iter().map(Option::unwrap_or_default);
    let rows = cells.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    let keys = cells.next().unwrap_or_default();
    let keys = keys.split(SEPARATOR).map(str::to_owned).collect();
    Ok((rows > 0).then_some(Misplaced { table, on, owner, rows, keys, condition }))
}

/// Removes the rows that the owner has as well; returns how many there were.
///
/// # Errors
/// A shard can't be asked. Nothing was removed that its owner lacks.
pub async fn remove_copies(
    found: &Misplaced,
    node: &mut Node,
    owner: &mut Node,
) -> Result<u64, NodeError> {
    let (table, column) = (sql::table(&found.table), sql::ident(&found.table.column));
    let mut removed = 0;
    let mut after = String::from("true");
    loop {
        let text = format!(
            "SELECT row.{column}::text, row::text, pg_catalog.count(*)::text FROM {table} AS row \
             WHERE {} AND {after} GROUP BY 1, 2 ORDER BY row::text COLLATE \"C\" LIMIT {BATCH}",
            found.condition
        );
        let rows = node.rows_within(&text, SCAN_WAIT).await?;
        let Some(last) = rows.last().and_then(|row| row.get(1).cloned().flatten()) else {
            return Ok(removed);
        };
        after = format!("row::text COLLATE \"C\" > {}", sql::literal(&last));
        let values: Vec<String> = rows
            .iter()
            .map(|row| {
                let cell = |i: usize| row.get(i).cloned().flatten().unwrap_or_default();
                let (key, text) = (sql::literal(&cell(0)), sql::literal(&cell(1)));
                format!("({key}, {text}, {}::bigint)", cell(2))
            })
            .collect();
        // As many as the copies: rows without a key of their own may be alike.
        let same = format!(
            "SELECT copy.text FROM (VALUES {}) AS copy (key, text, number) \
             WHERE (SELECT pg_catalog.count(*) FROM {table} AS row \
             WHERE row.{column}::text = copy.key AND row::text = copy.text) >= copy.number",
            values.join(", ")
        );
        let same = owner.rows_within(&same, SCAN_WAIT).await?;
        let texts: Vec<String> =
            same.into_iter().flatten().flatten().map(|text| sql::literal(&text)).collect();
        if texts.is_empty() {
            continue;
        }
        // No trigger fires, and no foreign key takes rows along that were not
        // compared.
        let delete = format!(
            "BEGIN; SET LOCAL session_replication_role = replica; \
             WITH gone AS (DELETE FROM {table} AS row WHERE {} \
             AND row::text = ANY (ARRAY[{}]) RETURNING 1) SELECT pg_catalog.count(*)::text FROM gone; \
             COMMIT",
            found.condition,
            texts.join(", ")
        );
        let gone = node.rows_within(&delete, SCAN_WAIT).await?;
        let gone = gone.into_iter().flatten().flatten().next();
        removed += gone.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    }
}

const OBJECTS: &str = "\
SELECT 'subscription', subname::text, '' FROM pg_catalog.pg_subscription \
WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database \
WHERE datname = pg_catalog.current_database()) \
UNION ALL SELECT 'publication', pubname::text, '' FROM pg_catalog.pg_publication \
UNION ALL SELECT 'replication slot', slot_name::text, '' FROM pg_catalog.pg_replication_slots \
WHERE database = pg_catalog.current_database() \
UNION ALL SELECT 'replication origin', roname::text, '' FROM pg_catalog.pg_replication_origin \
UNION ALL SELECT 'role', rolname::text, '' FROM pg_catalog.pg_roles \
UNION ALL SELECT 'trigger', tgname::text, tgrelid::pg_catalog.regclass::text \
FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgparentid = 0 \
UNION ALL SELECT 'function', proname::text, '' FROM pg_catalog.pg_proc \
WHERE pronamespace = pg_catalog.to_regnamespace('keyway') \
AND prorettype = 'pg_catalog.trigger'::pg_catalog.regtype \
UNION ALL SELECT 'sequence', relname::text, '' FROM pg_catalog.pg_class \
WHERE relkind = 'S' AND relnamespace = pg_catalog.to_regnamespace('keyway')";
const ROWS: &str = "\
SELECT 'row', move_id::text, 'keyway.marker' FROM keyway.marker \
UNION ALL SELECT DISTINCT 'row', move_id::text, 'keyway.proof' FROM keyway.proof \
UNION ALL SELECT 'row', move_id::text, 'keyway.runner' FROM keyway.runner";
/// Keys that are shown of misplaced rows.
const KEYS_SHOWN: u32 = 5;
/// Stands in no key that people type.
const SEPARATOR: char = '\u{1f}';
/// Rows that are compared and removed at once.
const BATCH: u32 = 500;
/// How long a shard may take to look through a table. The session's own limit
/// is shorter unless the caller has lifted it.
const SCAN_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_move_has_made_is_known_by_its_name() {
        let names = Names::new("app", 7);
        for (kind, name, on, id) in [
            (Kind::Subscription, names.stream_from(Side::Source), "", Some(7)),
            (Kind::Slot, names.stream_from(Side::Target), "", Some(7)),
            (Kind::Origin, names.purge(), "", Some(7)),
            // Another database's on the same server.
            (Kind::Role, Names::new("other", 7).stream_from(Side::Source), "", None),
            (Kind::Publication, "kw_7".to_owned(), "", None),
            (Kind::Slot, "kw_kw".to_owned(), "", None),
            (Kind::Trigger, names.truncate_trigger(), "t", Some(7)),
            (Kind::Trigger, sql::prove_trigger(7), "keyway.marker", Some(7)),
            (Kind::Trigger, "mine".to_owned(), "t", None),
            (Kind::Function, "key_change_7".to_owned(), "", Some(7)),
            (Kind::Sequence, "fence_7".to_owned(), "", Some(7)),
            (Kind::Sequence, "move_ids".to_owned(), "", None),
            (Kind::Row, names.marker(Side::Target).to_string(), "keyway.marker", Some(7)),
            (Kind::Row, "7".to_owned(), "keyway.runner", Some(7)),
        ] {
            assert_eq!(move_of(kind, &name, on, "app"), id, "{kind:?} {name}");
        }
    }

    #[test]
    fn rows_of_moves_under_way_are_nobodys_strangers() {
        let text = "epoch = 7\ndatabase = \"app\"\nhome = \"a\"\n\
            [[shard]]\nnumber = 1\nname = \"a\"\nprimary = { host = \"h1\" }\n\
            [[shard]]\nnumber = 2\nname = \"b\"\nprimary = { host = \"h2\" }\n\
            [[keyspace]]\nname = \"k\"\ntype = \"int8\"\nslots = 4\n\
            ranges = { a = [\"0-2\"], b = [\"3\"] }\npins = { \"42\" = \"b\" }\n\
            [[key_rule]]\nkeyspace = \"k\"\ncolumn = \"t\"\ntables = [\"public.x\"]\n";
        let map = Map::parse(text, "map").unwrap();
        let (a, b) = (ShardId::new(1), ShardId::new(2));
        let found = strangers(&map, (b, a), &[]).unwrap();
        let [(table, condition)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(table.to_string(), "public.x");
        assert!(
            condition.contains("BETWEEN 3 AND 3") && condition.contains("= '42'"),
            "{condition}"
        );
        let moving = Journal::begin(&map, "k", Subject::Tenant("42".to_owned()), a).unwrap();
        let (_, condition) = strangers(&map, (b, a), &[moving]).unwrap().remove(0);
        assert!(condition.contains("AND NOT (row.\"t\" = '42')"), "{condition}");
    }
}
