//! Whether a write to a table provably touches no rows but those it names: no
//! trigger, rule, cascade or function can write elsewhere; and whether a read
//! of it reads no rows of other tables.
//!
//! Such statements mark, or wait for, the slot of their key alone. A cascade
//! stays with the key where the foreign key pairs the two tables' keys: then
//! the rows it writes have the same key, on the same shard. A row that can be
//! reached by two names (a partition's) must have the same key by both.
//! Operators and casts that users made are not looked at.

use crate::catalog::{Catalog, Relation, RelationKind};
use crate::shardmap::{KeyspaceId, Table};
use crate::sql::shape::{Conflict, Insert};

use super::place::Named;
use super::planner::World;
use super::resolve;

/// Whether a write to the table stays with the keys that the statement fixes.
pub(crate) fn writes_stay(schema: Option<&str>, name: &str, world: &World<'_>) -> bool {
    let Some(catalog) = resolve::known(world) else { return false };
    if !catalog.covers(world.map.shards().iter().map(|shard| shard.id)) {
        return false;
    }
    match resolve::schema_of(schema, name, world, catalog) {
        Ok(Some(schema)) => stays(&schema, name, world, catalog, &mut Vec::new()),
        Ok(None) | Err(_) => false,
    }
}

/// Whether reading the table reads no rows of other tables, and whoever writes
/// its rows by another name marks what whoever writes them by this one does.
pub(crate) fn reads_stay(schema: Option<&str>, name: &str, world: &World<'_>) -> bool {
    let Some(catalog) = resolve::known(world) else { return false };
    if !catalog.covers(world.map.shards().iter().map(|shard| shard.id)) {
        return false;
    }
    match resolve::schema_of(schema, name, world, catalog) {
        Ok(Some(schema)) => is_apart(&schema, name, world, catalog),
        Ok(None) | Err(_) => false,
    }
}

/// Whether the rows that an INSERT changes have the key of those it brings;
/// `key` are its table's key columns.
pub(crate) fn updates_own_rows(insert: &Insert, key: &[&str]) -> bool {
    match &insert.conflict {
        Conflict::Leaves => true,
        Conflict::Updates(columns) => {
            let named = |key: &&str| columns.iter().any(|column| **column == **key);
            !key.is_empty() && key.iter().all(named)
        }
        // Found by another unique index, it may be any tenant's.
        Conflict::UpdatesSome => false,
    }
}

fn is_apart(schema: &str, name: &str, world: &World<'_>, catalog: &Catalog) -> bool {
    let key = key_of(schema, name, world, catalog);
    let on: Vec<_> = catalog.relation(schema, name).collect();
    let alike =
        |schema: &str, name: &str| key_of(schema, name, world, catalog).as_ref() == key.as_ref();
    on.len() == catalog.shards().count()
        && on.iter().all(|(shard, relation)| {
            // A policy may read anything, a view more than its table.
            is_table(relation)
                && !relation.row_security
                && relation.parents.iter().all(|parent| alike(&parent.schema, &parent.name))
                && catalog.shard(*shard).is_some_and(|content| {
                    content.relations().all(|(other_schema, other_name, other)| {
                        let is_child = other.parents.iter().any(|parent| parent.is(schema, name));
                        !is_child || (is_table(other) && alike(other_schema, other_name))
                    })
                })
        })
}

fn stays<'c>(
    schema: &str,
    name: &str,
    world: &World<'c>,
    catalog: &'c Catalog,
    seen: &mut Vec<(Box<str>, Box<str>)>,
) -> bool {
    if seen.iter().any(|(s, n)| **s == *schema && **n == *name) {
        return true;
    }
    if seen.len() >= TABLES_MAX {
        return false;
    }
    seen.push((schema.into(), name.into()));
    let Some(key) = key_of(schema, name, world, catalog) else { return false };
    let on: Vec<_> = catalog.relation(schema, name).collect();
    on.len() == catalog.shards().count()
        && on.iter().all(|(shard, relation)| {
            let parents = relation.parents.clone();
            is_quiet(relation)
                && parents.iter().all(|one| {
                    key_of(&one.schema, &one.name, world, catalog).as_ref() == Some(&key)
                        && stays(&one.schema, &one.name, world, catalog, seen)
                })
                && catalog.shard(*shard).is_some_and(|content| {
                    content.relations().all(|(other_schema, other_name, other)| {
                        keeps(other, schema, name, &key, || {
                            key_of(other_schema, other_name, world, catalog)
                        })
                        .is_none_or(|quiet| {
                            quiet && stays(other_schema, other_name, world, catalog, seen)
                        })
                    })
                })
        })
}

/// The columns of a table's key, in their order.
type KeyColumns = (KeyspaceId, Vec<Box<str>>);

fn key_of<'c>(
    schema: &str,
    name: &str,
    world: &World<'c>,
    catalog: &'c Catalog,
) -> Option<KeyColumns> {
    match resolve::placed(schema, name, world, catalog, 0) {
        Ok(Named::Listed(Table::Sharded { keyspace, column, rest })) => {
            let rest = rest.iter().map(|column| column.as_str().into());
            Some((keyspace, std::iter::once(column.into()).chain(rest).collect()))
        }
        Ok(Named::Listed(Table::Reference | Table::Single(_)) | Named::System) | Err(_) => None,
    }
}

const fn is_table(relation: &Relation) -> bool {
    match relation.kind {
        RelationKind::Table | RelationKind::PartitionedTable => true,
        RelationKind::View
        | RelationKind::MaterializedView
        | RelationKind::ForeignTable
        | RelationKind::Sequence => false,
    }
}

/// Nothing that hangs on the table itself writes anything else.
fn is_quiet(relation: &Relation) -> bool {
    is_table(relation)
        && relation.triggers.is_empty()
        && relation.rules.is_empty()
        && !relation.calls_volatile
}

/// `None` if a write to `schema.name` does nothing to `other`; else whether what
/// it does there has the same key.
fn keeps(
    other: &Relation,
    schema: &str,
    name: &str,
    (keyspace, columns): &KeyColumns,
    key_of_other: impl Fn() -> Option<KeyColumns>,
) -> Option<bool> {
    // A partition gets its parent's rows, a parent its partitions' triggers.
    let is_child = other.parents.iter().any(|parent| parent.is(schema, name));
    let mut touched = is_child
        .then(|| key_of_other().is_some_and(|(other, its)| other == *keyspace && its == *columns));
    for foreign in &other.foreign_keys {
        let writes = foreign.on_delete.writes() || foreign.on_update.writes();
        if !writes || !foreign.references.is(schema, name) {
            continue;
        }
        let pairs = |mine: &str, theirs: &str| {
            let mut both = foreign.columns.iter().zip(&foreign.referenced);
            both.any(|(one, other)| **one == *mine && **other == *theirs)
        };
        let paired = key_of_other().is_some_and(|(other_keyspace, others)| {
            other_keyspace == *keyspace
                && others.len() == columns.len()
                && others.iter().zip(columns).all(|(mine, theirs)| pairs(mine, theirs))
        });
        touched = Some(touched.unwrap_or(true) && paired);
    }
    touched
}

/// Tables that one write may reach and that are still looked at.
const TABLES_MAX: usize = 256;
