//! Whether a column can be the sharding key that the map takes it for.
//!
//! Its values must be equal exactly where the router takes them for equal, and
//! hash alike; and every row must have one, since NULL is on no shard.

use crate::catalog::{Catalog, Relation, RelationKind};
use crate::shardmap::{KeyspaceId, Map, Table};

use super::error::RouteError;

/// Refuses a key column that some shard's catalog says can't be one.
///
/// # Errors
/// As said.
pub(super) fn check(
    schema: &str,
    name: &str,
    keyspace: KeyspaceId,
    (column, rest): (&str, &[String]),
    map: &Map,
    catalog: &Catalog,
) -> Result<(), RouteError> {
    let Some(keyspace) = map.keyspace(keyspace) else { return Ok(()) };
    let columns = std::iter::once(column).chain(rest.iter().map(String::as_str));
    for (column, key_type) in columns.zip(keyspace.key_types()) {
        for (_, relation) in catalog.relation(schema, name) {
            if let Some((why, hint)) = fault(relation, column, key_type.name()) {
                let (table, column) = (name.into(), column.into());
                return Err(RouteError::UnfitKey { table, column, why, hint });
            }
        }
    }
    Ok(())
}

/// What is wrong with the keys of the map's tables, for the log and the
/// console.
pub fn key_faults(map: &Map, catalog: &Catalog) -> Vec<String> {
    let mut out = Vec::new();
    for (schema, name, table) in map.tables() {
        if let Table::Sharded { keyspace, column, rest } = table
            && let Err(error) = check(schema, name, keyspace, (column, rest), map, catalog)
        {
            out.push(error.to_string());
        }
    }
    out
}

fn fault(relation: &Relation, column: &str, key_type: &str) -> Option<(Box<str>, &'static str)> {
    let fault = |why: &str, hint| Some((why.into(), hint));
    let Some(column) = relation.column(column) else {
        return fault("does not exist", "make the map name a column of the table");
    };
    if column.nondeterministic {
        return fault(
            "has a nondeterministic collation: different texts are equal",
            "give the column a deterministic collation",
        );
    }
    let base = column.base_type();
    if column.is_enum {
        return fault(
            "is an enum, whose labels can be renamed",
            "use a text column with a CHECK constraint",
        );
    }
    if !fits(base, column.length, key_type) {
        let length = column.length.map_or_else(String::new, |length| format!("({length})"));
        let why = format!("has type {base}{length}, which does not hash as the map's {key_type}");
        return fault(&why, "give the keyspace the column's type");
    }
    // No server says of a view's column that it is never null.
    let said = match relation.kind {
        RelationKind::Table
        | RelationKind::PartitionedTable
        | RelationKind::ForeignTable
        | RelationKind::Sequence => true,
        RelationKind::View | RelationKind::MaterializedView => false,
    };
    if said && !column.not_null {
        return fault("may be null", "ALTER TABLE … ALTER COLUMN … SET NOT NULL");
    }
    None
}

/// Whether values of the column type are equal and hash as keys of `key_type`.
fn fits(base: &str, length: Option<u32>, key_type: &str) -> bool {
    const INTEGERS: [&str; 3] = ["int2", "int4", "int8"];
    match key_type {
        key if INTEGERS.contains(&key) => INTEGERS.contains(&base),
        // Storing cuts trailing spaces off a varchar(n), which text keeps.
        "text" => base == "text" || (base == "varchar" && length.is_none()),
        "varchar" => ["text", "varchar"].contains(&base),
        "char" => base == "bpchar",
        // Storing rounds to the digits that fit.
        "numeric" => base == "numeric" && length.is_none(),
        "timestamptz" => base == "timestamptz" && length.is_none_or(|digits| digits >= 6),
        other => base == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_columns_that_hash_as_the_map_says_can_be_keys() {
        for (base, length, key_type, expected) in [
            ("int4", None, "int8", true),
            ("int8", None, "int2", true),
            ("numeric", None, "int8", false),
            ("text", None, "text", true),
            ("varchar", None, "text", true),
            ("varchar", Some(9), "text", false),
            ("varchar", Some(9), "varchar", true),
            ("text", None, "varchar", true),
            ("name", None, "text", false),
            ("public.citext", None, "text", false),
            ("bpchar", Some(3), "text", false),
            ("bpchar", Some(3), "char", true),
            ("numeric", None, "numeric", true),
            ("numeric", Some(5), "numeric", false),
            ("timestamptz", Some(0), "timestamptz", false),
            ("timestamptz", Some(6), "timestamptz", true),
            ("timestamp", None, "timestamptz", false),
            ("uuid", None, "uuid", true),
            ("bytea", None, "bytea", true),
            ("date", None, "date", true),
        ] {
            assert_eq!(fits(base, length, key_type), expected, "{base} as {key_type}");
        }
    }
}
