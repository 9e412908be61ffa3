//! How much the slots of a keyspace weigh on a shard: rows, or their bytes; and
//! how busy the shard is with its sharded tables.
//!
//! Reads only. A large table is judged by a sample of its pages, always the
//! same ones. What follows from the weights is not decided here.
//!
//! Source: PostgreSQL manual, "TABLESAMPLE" and "The Cumulative Statistics
//! System".

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::mover::node::{Node, NodeError};
use super::mover::sql;
use crate::mover::MovedTable;
use crate::shardmap::{Hash, Key, Keyspace};

/// A part of a keyspace that is weighed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// A slot, without its pinned tenants.
    Slot(u32),
    /// The pinned tenant at this position.
    Pin(u32),
}

/// Rows and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Rows.
    pub rows: u64,
    /// Bytes of them, without indexes.
    pub bytes: u64,
}

/// The slot of a row, over `column`; a pinned tenant's position, as a negative
/// number from -1 on.
///
/// # Errors
/// Why no server can compute it.
pub fn slot_of(keyspace: &Keyspace, column: &str) -> Result<String, String> {
    if keyspace.is_composite() {
        return Err(format!(
            "rows of keyspace {}, whose key has several columns, can't be moved yet",
            keyspace.name()
        ));
    }
    let slots = 0..keyspace.slots();
    let mut text = String::from("CASE");
    // A string never fails to grow.
    for (position, (key, _)) in (1..).zip(keyspace.pins()) {
        let key = sql::literal(&key.to_string());
        let _ = write!(text, " WHEN {column} = {key} THEN -{position}");
    }
    match keyspace.hash() {
        Hash::Postgres => {
            let hash = sql::hash_of(keyspace.key_type(), column)?;
            let mask = keyspace.slots().saturating_sub(1);
            // Without a pin there would be no WHEN.
            let _ = write!(text, " WHEN {column} IS NOT NULL THEN ({hash} & {mask})");
        }
        Hash::Range => {
            for slot in slots {
                let test = sql::in_bounds(keyspace, slot, slot, column);
                let _ = write!(text, " WHEN {test}) THEN {slot}");
            }
        }
        Hash::List => {
            for slot in slots {
                let test = sql::in_lists(keyspace, slot, slot, column);
                let _ = write!(text, " WHEN {test}) THEN {slot}");
            }
        }
        Hash::Partition | Hash::Xxh3 => {
            return Err(format!(
                "no server can compute the slots of keyspace {}, whose hash is {}: move its \
                 tenants one by one",
                keyspace.name(),
                keyspace.hash().name()
            ));
        }
    }
    text.push_str(" END");
    Ok(text)
}

/// Weighs what a shard has of `tables`, whose slots `slot_of` computes.
///
/// # Errors
/// The shard can't be asked.
pub async fn weigh(
    node: &mut Node,
    keyspace: &Keyspace,
    tables: &[(MovedTable, String)],
) -> Result<BTreeMap<Share, Weight>, NodeError> {
    let mut all: BTreeMap<Share, Weight> = BTreeMap::new();
    for (table, slot) in tables {
        let name = sql::table(table);
        let pages = node.number(&PAGES.replace("{table}", &sql::literal(&name))).await?;
        let pages = u64::try_from(pages).unwrap_or(0);
        // The part of the table that is looked at is one in so many.
        let one_in = pages.div_ceil(PAGES_MAX).max(1);
        let sample = if one_in > 1 {
            let percent = 100_000_000_u64.checked_div(one_in).unwrap_or(1).max(1);
            format!(" TABLESAMPLE SYSTEM ({percent} / 1000000.0) REPEATABLE (1)")
        } else {
            String::new()
        };
        let asked = format!(
            "SELECT slot::text, pg_catalog.count(*)::text, pg_catalog.sum(bytes)::text FROM (\
             SELECT {slot} AS slot, pg_catalog.pg_column_size(row.*) AS bytes \
             FROM {name} AS row{sample}) AS weighed WHERE slot IS NOT NULL GROUP BY 1"
        );
        for row in node.rows_within(&asked, SCAN_WAIT).await? {
            let number = |i: usize| row.get(i).cloned().flatten()?.parse::<i64>().ok();
            let (Some(slot), Some(rows), Some(bytes)) = (number(0), number(1), number(2)) else {
                continue;
            };
            let Some(share) = share_of(slot, keyspace) else { continue };
            let weight = all.entry(share).or_default();
            let times = |count: i64| u64::try_from(count).unwrap_or(0).saturating_mul(one_in);
            weight.rows = weight.rows.saturating_add(times(rows));
            weight.bytes = weight.bytes.saturating_add(times(bytes));
        }
    }
    Ok(all)
}

fn share_of(slot: i64, keyspace: &Keyspace) -> Option<Share> {
    if slot < 0 {
        return u32::try_from(slot.saturating_add(1).unsigned_abs()).ok().map(Share::Pin);
    }
    u32::try_from(slot).ok().filter(|slot| *slot < keyspace.slots()).map(Share::Slot)
}

/// Rows that the shard has read and written of `tables` since its statistics
/// were reset.
///
/// # Errors
/// The shard can't be asked.
pub async fn work_done(node: &mut Node, tables: &[MovedTable]) -> Result<u64, NodeError> {
    let roots: Vec<String> = tables
        .iter()
        .map(|table| format!("pg_catalog.to_regclass({})", sql::literal(&sql::table(table))))
        .collect();
    let asked = format!(
        "WITH root (oid) AS (SELECT pg_catalog.unnest(ARRAY[{}]::oid[])) \
         SELECT coalesce(pg_catalog.sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) \
         + n_tup_ins + n_tup_upd + n_tup_del), 0)::text FROM pg_catalog.pg_stat_user_tables \
         WHERE relid IN (SELECT oid FROM root UNION SELECT part.relid FROM root, \
         LATERAL pg_catalog.pg_partition_tree(root.oid) AS part)",
        roots.join(", ")
    );
    Ok(u64::try_from(node.number(&asked).await?).unwrap_or(0))
}

/// The tenant at a pin's position.
pub fn pin_at(keyspace: &Keyspace, position: u32) -> Option<Key<'_>> {
    let position = usize::try_from(position).ok()?;
    keyspace.pins().nth(position).map(|(key, _)| key)
}

const PAGES: &str = "\
SELECT coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(oid)), 0)::bigint / 8192 \
FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({table}) OR oid IN (\
SELECT relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass({table})) WHERE isleaf)";
/// Pages of a table that are looked at: a gigabyte.
const PAGES_MAX: u64 = 131_072;
const SCAN_WAIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shardmap::Map;

    #[test]
    fn a_row_is_its_pins_or_its_slots() {
        let map = |keyspace: &str| {
            let text = format!(
                "epoch = 7\ndatabase = \"app\"\nhome = \"a\"\n\
                 [[shard]]\nnumber = 1\nname = \"a\"\nprimary = {{ host = \"h1\" }}\n\
                 [[keyspace]]\nname = \"k\"\ntype = \"int8\"\n{keyspace}"
            );
            Map::parse(&text, "map").unwrap()
        };
        let hashed = map("slots = 4\nranges = { a = [\"0-3\"] }\npins = { \"42\" = \"a\" }\n");
        let [keyspace] = hashed.keyspaces() else { panic!("one keyspace") };
        assert_eq!(
            slot_of(keyspace, "t").unwrap(),
            "CASE WHEN t = '42' THEN -1 WHEN t IS NOT NULL \
             THEN (pg_catalog.hashint8extended(t, 0) & 3) END"
        );
        assert_eq!(share_of(-1, keyspace), Some(Share::Pin(0)));
        assert_eq!(pin_at(keyspace, 0).unwrap().to_string(), "42");
        assert_eq!((share_of(3, keyspace), share_of(4, keyspace)), (Some(Share::Slot(3)), None));
        let other = map("hash = \"xxh3\"\nslots = 4\nranges = { a = [\"0-3\"] }\n");
        assert!(slot_of(&other.keyspaces()[0], "t").unwrap_err().contains("one by one"));
    }
}
