//! Where a statement's tables are, and whether its equalities fix every
//! sharded one to one value of the key.
//!
//! The proof: a sharded table that is filtered by `key = value` wherever it is
//! scanned can be replaced by its rows with that key, which all lie on one
//! shard; if the values of all tables lie on the same shard, the statement
//! means the same there as on the whole. A value passes from one key column to
//! another of the same keyspace through an equality; through any other column
//! it doesn't, since another type's equality may be wider.

use std::collections::BTreeSet;

use crate::shardmap::{KeyType, KeyspaceId, Map, Table};
use crate::sql::shape::{
    Column, Insert, Level, Place, RelationKind, Rows, Shape, Side, Target, Value,
};
use crate::types::ShardId;

use super::error::RouteError;
use super::planner::World;
use super::template::{KeyPlace, KeySource, Shared, Sign};

/// The places of all tables of a statement.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) sources: Vec<KeySource>,
    pub(crate) single: BTreeSet<ShardId>,
    pub(crate) reference: Option<Box<str>>,
    pub(crate) system: bool,
}

/// What a name stands for.
pub(crate) enum Named<'a> {
    /// A table of the map.
    Listed(Table<'a>),
    /// A system catalog or view.
    System,
}

/// Looks a table up as the server would.
///
/// # Errors
/// The map doesn't list it, or it can't be told which schema's it is.
pub(crate) fn named<'a>(
    schema: Option<&str>,
    name: &str,
    world: &World<'a>,
) -> Result<Named<'a>, RouteError> {
    let unknown = |table: String| RouteError::UnknownTable { table: table.into() };
    if let Some(schema) = schema {
        if SYSTEM_SCHEMAS.contains(&schema) {
            return Ok(Named::System);
        }
        return world
            .map
            .table(Some(schema), name)
            .map(Named::Listed)
            .ok_or_else(|| unknown(format!("{schema}.{name}")));
    }
    if name.starts_with("pg_") && !world.map.has_table_named(name) {
        return Ok(Named::System);
    }
    let mut by_schema = None;
    for schema in world.search_path.schemas() {
        let Some(table) = world.map.table(Some(schema), name) else { continue };
        if is_listed(world.map, schema, name) {
            return match by_schema {
                None => Ok(Named::Listed(table)),
                Some(_) => Err(RouteError::unsupported(
                    "a table name that the search path may find in two schemas",
                    "name the table's schema",
                )),
            };
        }
        by_schema = by_schema.or(Some(table));
    }
    by_schema.map(Named::Listed).ok_or_else(|| unknown(name.to_owned()))
}

fn is_listed(map: &Map, schema: &str, name: &str) -> bool {
    map.tables().any(|(s, n, _)| s == schema && n == name)
}

/// A sharded relation and what is known about its key.
struct Sharded<'a> {
    level: usize,
    relation: usize,
    name: &'a str,
    keyspace: KeyspaceId,
    key_type: KeyType,
    column: &'a str,
    source: Option<KeySource>,
}

/// Finds the places of all tables of `shape`. `uses` counts how often each
/// parameter stands in the text.
///
/// # Errors
/// A table isn't fixed to one key, is unknown, or may not be written so.
pub(crate) fn place(shape: &Shape, world: &World<'_>, uses: &[u16]) -> Result<Placed, RouteError> {
    let mut placed = Placed::default();
    let mut sharded = relations(shape, world, &mut placed)?;
    let mut key_uses = vec![0_u16; uses.len()];
    for insert in &shape.inserts {
        if let Some(at) = sharded.iter().position(|one| one.level == insert.level) {
            let rows = insert_keys(insert, &sharded[at], &mut key_uses)?;
            placed.sources.extend(rows);
            sharded.remove(at);
        }
    }
    solve(shape, &mut sharded, &mut key_uses);
    for one in sharded {
        let source = one.source.ok_or_else(|| RouteError::MissingKey {
            table: one.name.into(),
            column: one.column.into(),
        })?;
        placed.sources.push(source);
    }
    for source in &mut placed.sources {
        if let KeyPlace::Param { index, shared } = &mut source.place {
            let at = usize::from(*index);
            let only = uses.get(at).copied().unwrap_or(0) <= key_uses.get(at).copied().unwrap_or(0);
            *shared = if only { Shared::KeyOnly } else { Shared::Elsewhere };
        }
    }
    // An INSERT of many rows has as many sources, all different.
    if placed.sources.len() <= COMPARED_MAX {
        let mut distinct: Vec<KeySource> = Vec::new();
        for source in std::mem::take(&mut placed.sources) {
            if !distinct.contains(&source) {
                distinct.push(source);
            }
        }
        placed.sources = distinct;
    }
    Ok(placed)
}

/// Every relation's place; the sharded ones are returned to be solved.
fn relations<'a>(
    shape: &'a Shape,
    world: &World<'a>,
    placed: &mut Placed,
) -> Result<Vec<Sharded<'a>>, RouteError> {
    let mut sharded = Vec::new();
    for (level, content) in shape.levels.iter().enumerate() {
        for (relation, one) in content.relations.iter().enumerate() {
            let RelationKind::Table { schema, name } = &one.kind else { continue };
            let written = one.target != Target::Read;
            match named(schema.as_deref(), name, world)? {
                Named::System if written => {
                    return Err(RouteError::unsupported("a write to a system catalog", ""));
                }
                Named::System => placed.system = true,
                Named::Listed(Table::Reference) if written => {
                    return Err(RouteError::ReferenceWrite { table: name.clone() });
                }
                Named::Listed(Table::Reference) => placed.reference = Some(name.clone()),
                Named::Listed(Table::Single(shard)) => {
                    placed.single.insert(shard);
                }
                Named::Listed(Table::Sharded { keyspace, column }) => {
                    check_assigned(&one.target, name, column)?;
                    let key_type = world
                        .map
                        .keyspace(keyspace)
                        .map(|keyspace| keyspace.key_type())
                        .ok_or(RouteError::SeveralShards)?;
                    let source = None;
                    sharded.push(Sharded {
                        level,
                        relation,
                        name,
                        keyspace,
                        key_type,
                        column,
                        source,
                    });
                }
            }
        }
    }
    Ok(sharded)
}

fn check_assigned(target: &Target, table: &str, column: &str) -> Result<(), RouteError> {
    match target {
        Target::Written { assigned } if assigned.iter().any(|name| **name == *column) => {
            Err(RouteError::KeyChange { table: table.into(), column: column.into() })
        }
        Target::Written { .. } | Target::Read => Ok(()),
    }
}

/// The keys of an INSERT's rows.
fn insert_keys(
    insert: &Insert,
    table: &Sharded<'_>,
    key_uses: &mut [u16],
) -> Result<Vec<KeySource>, RouteError> {
    let missing =
        || RouteError::MissingKey { table: table.name.into(), column: table.column.into() };
    let rows = match &insert.rows {
        Rows::Values(rows) => rows,
        Rows::Query => {
            return Err(RouteError::unsupported(
                "INSERT … SELECT into a sharded table",
                "read the rows first, then insert them with VALUES",
            ));
        }
        Rows::Default => return Err(missing()),
    };
    let columns = insert
        .columns
        .as_ref()
        .ok_or_else(|| RouteError::MissingColumns { table: table.name.into() })?;
    let at = columns.iter().position(|name| **name == *table.column).ok_or_else(missing)?;
    let mut sources = Vec::new();
    for row in rows {
        let source = row
            .get(at)
            .and_then(Option::as_ref)
            .and_then(|value| source(value, table))
            .ok_or_else(|| {
                RouteError::unsupported(
                    "an INSERT whose sharding key is an expression or DEFAULT",
                    "give the sharding key as a constant or a parameter",
                )
            })?;
        count(&source, key_uses);
        sources.push(source);
    }
    Ok(sources)
}

fn count(source: &KeySource, key_uses: &mut [u16]) {
    if let KeyPlace::Param { index, .. } = source.place
        && let Some(uses) = key_uses.get_mut(usize::from(index))
    {
        *uses = uses.saturating_add(1);
    }
}

/// Lets values flow along the equalities until nothing changes.
fn solve(shape: &Shape, sharded: &mut [Sharded<'_>], key_uses: &mut [u16]) {
    // (what is restricted, what by): an index or a value.
    let mut edges: Vec<(usize, Result<usize, &Value>)> = Vec::new();
    for (level, content) in shape.levels.iter().enumerate() {
        for equality in &content.equalities {
            let sides = [(&equality.left, &equality.right), (&equality.right, &equality.left)];
            for (mine, other) in sides {
                let Side::Column(column) = mine else { continue };
                let Some(at) = resolve(column, level, shape, sharded) else { continue };
                let one = &sharded[at];
                if let Side::Value(value) = other
                    && let Some(source) = source(value, one)
                {
                    count(&source, key_uses);
                }
                let (from, to) = equality.restricts;
                if one.level != level || !(from..to).contains(&one.relation) {
                    continue;
                }
                match other {
                    Side::Value(value) => edges.push((at, Err(value))),
                    Side::Column(column) => {
                        if let Some(by) = resolve(column, level, shape, sharded)
                            && sharded[by].keyspace == one.keyspace
                        {
                            edges.push((at, Ok(by)));
                        }
                    }
                }
            }
        }
    }
    let mut changed = true;
    while changed {
        changed = false;
        for (at, by) in &edges {
            if sharded[*at].source.is_some() {
                continue;
            }
            let found = match by {
                Err(value) => source(value, &sharded[*at]),
                Ok(by) => sharded[*by].source.clone(),
            };
            changed |= found.is_some();
            sharded[*at].source = found;
        }
    }
}

/// The sharded relation whose key `column` is.
fn resolve(column: &Column, level: usize, shape: &Shape, sharded: &[Sharded<'_>]) -> Option<usize> {
    let is_key = |at: &usize| *sharded[*at].column == *column.name;
    if column.qualifier.is_empty() {
        let content = &shape.levels[level];
        let (from, to) = column.within.unwrap_or((0, content.relations.len()));
        let found: Vec<usize> = (0..sharded.len())
            .filter(|at| {
                let one = &sharded[*at];
                one.level == level
                    && (from..to).contains(&one.relation)
                    && !content.relations[one.relation].renamed
            })
            .filter(is_key)
            .collect();
        return match &*found {
            _ if content.natural => None,
            [only] if !content.merged.contains(&column.name) => Some(*only),
            [first, rest @ ..] => {
                // Merged columns: only if each side of each USING is such a key.
                let joins = content.merged.iter().filter(|name| **name == column.name).count();
                let all = (0..sharded.len())
                    .filter(|at| sharded[*at].level == level)
                    .filter(is_key)
                    .count();
                let alike = rest.iter().all(|at| sharded[*at].keyspace == sharded[*first].keyspace);
                (alike && all == joins + 1).then_some(*first)
            }
            [] => None,
        };
    }
    let mut at = Some(level);
    while let Some(level) = at {
        let content = &shape.levels[level];
        let mut matching = (0..content.relations.len())
            .filter(|relation| is_qualified_by(content, *relation, &column.qualifier));
        if let Some(relation) = matching.next() {
            if matching.next().is_some() || content.relations[relation].renamed {
                return None;
            }
            return (0..sharded.len())
                .find(|at| sharded[*at].level == level && sharded[*at].relation == relation)
                .filter(is_key);
        }
        at = content.parent;
    }
    None
}

fn is_qualified_by(level: &Level, relation: usize, qualifier: &[Box<str>]) -> bool {
    let relation = &level.relations[relation];
    match (&relation.alias, &relation.kind, qualifier) {
        (Some(alias), _, [only]) => alias == only,
        (None, RelationKind::Table { name, .. }, [only]) => name == only,
        (None, RelationKind::Table { schema: Some(schema), name }, [first, second]) => {
            schema == first && name == second
        }
        // `public.t.k` may name the `t` found by the search path.
        (None, RelationKind::Table { schema: None, name }, [_, second]) => name == second,
        _ => false,
    }
}

/// The value as a source of `table`'s key; `None` if its cast is to a type that
/// is compared otherwise.
fn source(value: &Value, table: &Sharded<'_>) -> Option<KeySource> {
    let cast = match value.cast.as_deref() {
        None => None,
        Some(word) => Some(cast_type(word, table.key_type)?),
    };
    let place = match value.place {
        Place::Literal(index) => KeyPlace::Literal(index),
        Place::Param(index) => KeyPlace::Param { index, shared: Shared::Elsewhere },
        Place::Null => KeyPlace::Null,
    };
    let sign = if value.minus { Sign::Minus } else { Sign::Plain };
    Some(KeySource { keyspace: table.keyspace, key_type: table.key_type, place, sign, cast })
}

/// The cast's type, if it compares with keys of type `key` by their equality.
fn cast_type(word: &str, key: KeyType) -> Option<KeyType> {
    let cast = match word {
        "int2" | "smallint" => KeyType::Int2,
        "int4" | "int" | "integer" => KeyType::Int4,
        "int8" | "bigint" => KeyType::Int8,
        "text" | "varchar" | "character varying" => KeyType::Text,
        "uuid" => KeyType::Uuid,
        _ => return None,
    };
    let family = |key_type| match key_type {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => 0,
        KeyType::Text | KeyType::Varchar => 1,
        KeyType::Uuid => 2,
    };
    (family(cast) == family(key)).then_some(cast)
}

/// More sources are not compared with each other.
const COMPARED_MAX: usize = 64;
/// Schemas of the server itself.
const SYSTEM_SCHEMAS: &[&str] = &["pg_catalog", "information_schema", "pg_toast"];
