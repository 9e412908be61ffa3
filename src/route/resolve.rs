//! What a table's name stands for, by the shards' catalogs: which schema's
//! relation the server would take, and whether a view or a partition is as good
//! as a table of the map.
//!
//! The proof for a view: it is one SELECT over one relation that gives at most
//! one row for each of that relation's, so a filter on a column which it shows
//! unchanged takes away the same rows inside as outside. A partition's rows are
//! rows of its parent. Where shards disagree, or another role might see another
//! relation, nothing is proven. What no catalog knows is left to the map alone.

use crate::catalog::{Catalog, Persistence, Relation, RelationKind, View, Volatility};
use crate::shardmap::Table;
use crate::types::Consistency;

use super::asides::stricter;
use super::error::RouteError;
use super::keycheck;
use super::place::{Named, SYSTEM_SCHEMAS};
use super::planner::World;

/// What `schema.name`, or the `name` that the search path finds, stands for;
/// `None` if no catalog knows it.
///
/// # Errors
/// It is known, but can't be routed.
pub(crate) fn named<'a>(
    schema: Option<&str>,
    name: &str,
    world: &World<'a>,
) -> Result<Option<Named<'a>>, RouteError> {
    let Some(catalog) = known(world) else { return Ok(None) };
    match schema_of(schema, name, world, catalog)? {
        None => Ok(None),
        Some(schema) => placed(&schema, name, world, catalog, 0).map(Some),
    }
}

/// The catalog, if it says anything and the database is sharded.
pub(super) fn known<'a>(world: &World<'a>) -> Option<&'a Catalog> {
    world.catalog.filter(|catalog| !catalog.is_empty())
}

/// The schema in which the server finds `name`; `None` if no catalog knows it.
pub(super) fn schema_of(
    schema: Option<&str>,
    name: &str,
    world: &World<'_>,
    catalog: &Catalog,
) -> Result<Option<Box<str>>, RouteError> {
    let exists = |schema: &str| catalog.relation(schema, name).next().is_some();
    if let Some(schema) = schema {
        let user = !SYSTEM_SCHEMAS.contains(&schema);
        return Ok((user && exists(schema)).then(|| schema.into()));
    }
    if name.starts_with("pg_") && !world.map.has_table_named(name) {
        return Ok(None);
    }
    let path: Vec<&str> = world.search_path.schemas().collect();
    let mut found: Option<usize> = tenants_schema(&path, name, world, catalog);
    let of_tenant = found.is_some();
    for (_, shard) in catalog.shards().filter(|_| !of_tenant) {
        let first = path.iter().position(|schema| shard.relation(schema, name).is_some());
        if found.is_some() && first.is_some() && found != first {
            return Err(ambiguous("a table name that shards find in different schemas"));
        }
        found = found.or(first);
    }
    let Some(at) = found else { return Ok(None) };
    let left_over = |schema: &&&str| world.map.tenant_shard(schema).is_some();
    if !of_tenant && path.get(at).filter(left_over).is_some() {
        return Err(ambiguous("a table of a tenant that is on another shard than the tenant"));
    }
    let Some(schema) = path.get(at) else { return Ok(None) };
    let listed = |schema: &&str| world.map.lists(schema, name);
    if path.iter().take(at).any(listed) {
        // The map expects it there; it may have been made a moment ago.
        return Err(ambiguous("a table name that the search path may find in two schemas"));
    }
    let later = path.iter().skip(at + 1).any(|schema| listed(schema) || exists(schema));
    let open =
        catalog.shards().filter_map(|(_, shard)| shard.schema(schema)).all(|schema| schema.open);
    if later && !open {
        // The server passes over schemas that the role may not look into.
        return Err(ambiguous("a table name that roles may find in different schemas"));
    }
    Ok(Some((*schema).into()))
}

/// The first schema of the path that has `name`, if that is a tenant's: the
/// owner has it there, and nobody in a schema before. The statement runs on the
/// owner's shard, and what others have in later schemas doesn't matter.
fn tenants_schema(
    path: &[&str],
    name: &str,
    world: &World<'_>,
    catalog: &Catalog,
) -> Option<usize> {
    let has = |schema: &str| catalog.relation(schema, name).next().is_some();
    let at = path.iter().position(|schema| has(schema))?;
    let owner = world.map.tenant_shard(path.get(at)?)?;
    catalog.shard(owner)?.relation(path.get(at)?, name).map(|_| at)
}

fn ambiguous(construct: &str) -> RouteError {
    RouteError::unsupported(construct, "name the table's schema")
}

/// What the relation `schema.name`, which a catalog knows, is to the map.
pub(super) fn placed<'a>(
    schema: &str,
    name: &str,
    world: &World<'a>,
    catalog: &'a Catalog,
    depth: usize,
) -> Result<Named<'a>, RouteError> {
    let unknown = || RouteError::UnknownTable { table: format!("{schema}.{name}").into() };
    let mut copies = catalog.relation(schema, name).map(|(_, relation)| relation);
    let first = copies.next().ok_or_else(unknown)?;
    let derived = matches!(first.kind, RelationKind::View | RelationKind::MaterializedView);
    if let Some(table) = world.map.table(Some(schema), name)
        && (!derived || world.map.lists(schema, name))
    {
        if let Table::Sharded { keyspace, column, rest } = table {
            keycheck::check(schema, name, keyspace, (column, rest), world.map, catalog)?;
        }
        return Ok(Named::Listed(table));
    }
    if depth >= DEPTH_MAX {
        return Err(RouteError::unsupported("a view of very many views", TABLES));
    }
    if first.partition {
        let [parent] = &*first.parents else { return Err(unknown()) };
        if copies.any(|copy| !copy.partition || copy.parents != first.parents) {
            return Err(differs("partition", schema, name));
        }
        let above = placed(&parent.schema, &parent.name, world, catalog, depth + 1)?;
        if let Named::Listed(Table::Sharded { keyspace, column, rest }) = &above {
            keycheck::check(schema, name, *keyspace, (column, rest), world.map, catalog)?;
        }
        return Ok(above);
    }
    match &first.view {
        Some(view) => {
            if copies.any(|copy| copy.view.as_ref() != Some(view)) {
                return Err(differs("view", schema, name));
            }
            let above = placed_view(first, view, name, world, catalog, depth)?;
            Ok(match (above, world.map.schema_shard(schema)) {
                // No other shard has it, wherever its tables are.
                (Named::System | Named::Listed(Table::Reference), Some(shard)) => {
                    Named::Listed(Table::Single(shard))
                }
                (above, _) => above,
            })
        }
        None => Err(unknown()),
    }
}

fn differs(kind: &str, schema: &str, name: &str) -> RouteError {
    RouteError::unsupported(
        &format!("{kind} {schema}.{name}, which shards define differently,"),
        "make it the same on all shards",
    )
}

fn placed_view<'a>(
    relation: &'a Relation,
    view: &'a View,
    name: &str,
    world: &World<'a>,
    catalog: &'a Catalog,
    depth: usize,
) -> Result<Named<'a>, RouteError> {
    let mut reads = Vec::new();
    let mut system = false;
    for base in &view.reads {
        if SYSTEM_SCHEMAS.contains(&&*base.schema) {
            system = true;
            continue;
        }
        match placed(&base.schema, &base.name, world, catalog, depth + 1)? {
            Named::System => system = true,
            Named::Listed(table) => reads.push((base, table)),
        }
    }
    let refuse = |what: &str| {
        Err(RouteError::unsupported(&format!("{} {name}, {what},", relation.kind.word()), TABLES))
    };
    if system {
        return if reads.is_empty() {
            Ok(Named::System)
        } else {
            refuse("which reads system catalogs beside tables of the map")
        };
    }
    let stored = relation.kind == RelationKind::MaterializedView;
    if let [(base, Table::Sharded { keyspace, column, rest })] = &*reads
        && view.simple
        && !stored
    {
        let shown = |column: &str| {
            let at = view.origins.iter().position(|origin| origin.as_deref() == Some(column))?;
            relation.columns.get(at)
        };
        let differs = |name: &&String| shown(name).is_none_or(|shown| *shown.name != ***name);
        if let Some(other) = rest.iter().find(differs) {
            return refuse(&format!(
                "which does not show the column {other} of the sharding key of {base} by its name"
            ));
        }
        return match shown(column) {
            Some(shown) => {
                let (keyspace, column) = (*keyspace, &*shown.name);
                Ok(Named::Listed(Table::Sharded { keyspace, column, rest }))
            }
            None => refuse(&format!(
                "which does not show the sharding key {column} of {base} as a column of its own"
            )),
        };
    }
    if reads.iter().any(|(_, table)| matches!(table, Table::Sharded { .. })) {
        return refuse(if stored {
            "which keeps rows of a sharded table"
        } else {
            "which joins, groups or cuts rows of sharded tables"
        });
    }
    let mut single = reads.iter().filter_map(|(_, table)| match table {
        Table::Single(shard) => Some(*shard),
        Table::Reference | Table::Sharded { .. } => None,
    });
    match single.next() {
        Some(shard) if single.any(|other| other != shard) => {
            refuse("which reads tables of several shards")
        }
        Some(shard) => Ok(Named::Listed(Table::Single(shard))),
        None if stored => refuse("which each shard refreshes by itself"),
        // A view of nothing, or of what is on every shard.
        None => Ok(Named::Listed(Table::Reference)),
    }
}

/// What a statement's use of a relation asks for, beyond its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// No replica can read it.
    pub(crate) primary: bool,
    /// Reading it may do anything: a view calls a volatile function.
    pub(crate) volatile: bool,
    /// The strictest of the levels that the map gives to what is read.
    pub(crate) level: Option<Consistency>,
}

impl Demand {
    /// Both together.
    pub(crate) fn add(&mut self, other: Self) {
        self.level = stricter(self.level, other.level);
        self.primary |= other.primary;
        self.volatile |= other.volatile;
    }
}

/// What reading the relation asks for; no more than its level, if no catalog
/// knows it.
pub(crate) fn demand(schema: Option<&str>, name: &str, world: &World<'_>) -> Demand {
    let mut out = Demand::default();
    match schema {
        Some(schema) => out.level = world.map.level_of(schema, name),
        None => {
            for schema in world.search_path.schemas() {
                out.level = stricter(out.level, world.map.level_of(schema, name));
            }
        }
    }
    if let Some(catalog) = known(world)
        && let Ok(Some(schema)) = schema_of(schema, name, world, catalog)
    {
        add_demand(&schema, name, world, catalog, &mut out, 0);
    }
    out
}

fn add_demand(
    schema: &str,
    name: &str,
    world: &World<'_>,
    catalog: &Catalog,
    out: &mut Demand,
    depth: usize,
) {
    out.level = stricter(out.level, world.map.level_of(schema, name));
    for (shard, relation) in catalog.relation(schema, name) {
        out.primary |= match relation.kind {
            // Ahead of its last value on a replica; or another server's affair.
            RelationKind::Sequence | RelationKind::ForeignTable => true,
            RelationKind::Table
            | RelationKind::PartitionedTable
            | RelationKind::View
            | RelationKind::MaterializedView => relation.persistence != Persistence::Permanent,
        };
        if depth >= DEPTH_MAX {
            out.primary = true;
            return;
        }
        if let Some(view) = &relation.view
            && relation.kind == RelationKind::View
        {
            out.volatile |= view.volatility == Volatility::Volatile;
            for base in &view.reads {
                add_demand(&base.schema, &base.name, world, catalog, out, depth + 1);
            }
        }
        if relation.kind == RelationKind::PartitionedTable
            && let Some(content) = catalog.shard(shard)
        {
            for (part_schema, part_name, part) in content.relations() {
                if part.partition && part.parents.iter().any(|p| p.is(schema, name)) {
                    add_demand(part_schema, part_name, world, catalog, out, depth + 1);
                }
            }
        }
    }
}

/// Refuses a write through a view whose own triggers or rules may turn it into
/// something else. Nothing is said of tables.
///
/// # Errors
/// The view has triggers or rules.
pub(crate) fn check_written(
    schema: Option<&str>,
    name: &str,
    world: &World<'_>,
) -> Result<(), RouteError> {
    let Some(catalog) = known(world) else { return Ok(()) };
    let Some(schema) = schema_of(schema, name, world, catalog)? else { return Ok(()) };
    let turned = |relation: &Relation| {
        relation.view.is_some() && !(relation.triggers.is_empty() && relation.rules.is_empty())
    };
    if catalog.relation(&schema, name).any(|(_, relation)| turned(relation)) {
        return Err(RouteError::unsupported(
            &format!("a write to view {name}, which has triggers or rules,"),
            "write the table itself",
        ));
    }
    Ok(())
}

/// Views of views, and partitions of partitions, are followed so far.
const DEPTH_MAX: usize = 16;
const TABLES: &str = "query its tables directly, or list it in the shard map";
