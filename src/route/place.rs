//! Where a statement's tables are, and which keys of each sharded one matter.

use std::collections::BTreeSet;

use crate::shardmap::{Hash, KeyType, KeyspaceId, Map, Table};
use crate::sql::shape::{self, Assigned, Cast, Column, Insert, RelationKind, Rows, Shape, Target};
use crate::sql::tree::Comparison;
use crate::types::ShardId;

use super::composite;
use super::error::RouteError;
use super::planner::World;
use super::resolve::{self, Demand};
use super::solve::{self, Member, Solver, Spot};
use super::stays;
use super::template::{
    Bound, CastTo, Ends, Extent, Interval, KeyPlace, KeySource, Role, Shared, Sign,
};
use super::temporary;
use super::volatility;

/// The places of all tables of a statement.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) sources: Vec<KeySource>,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) single: BTreeSet<ShardId>,
    pub(crate) reference: Option<Box<str>>,
    pub(crate) system: bool,
    /// One of them shows more than what is in the schemas.
    pub(crate) live: bool,
    /// Sharded tables of which any row may matter.
    pub(crate) open: Option<Open>,
    /// Some are temporary.
    pub(crate) temporary: bool,
    /// What reading its relations asks for.
    pub(crate) demand: Demand,
    /// No row but those that the statement names is written.
    pub(crate) stays: bool,
    /// Reading its relations reads no rows of others.
    pub(crate) apart: bool,
}

/// Shards that may hold rows of tables without a key, and why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) shards: Box<[ShardId]>,
    pub(crate) keyspaces: Box<[KeyspaceId]>,
    pub(crate) why: RouteError,
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
    if let Some(shard) = temporary::shard_of(schema, name, world)? {
        return Ok(Named::Listed(Table::Single(shard)));
    }
    if let Some(found) = resolve::named(schema, name, world)? {
        return Ok(found);
    }
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

/// A sharded relation and what is known about a column of its key.
#[derive(Debug)]
pub(super) struct Sharded<'a> {
    pub(super) level: usize,
    pub(super) relation: usize,
    pub(super) name: &'a str,
    pub(super) keyspace: KeyspaceId,
    pub(super) key_type: KeyType,
    pub(super) column: &'a str,
    /// The entries of a key of several columns follow one another: which of them
    /// this is, of how many.
    pub(super) part: u8,
    pub(super) parts: usize,
    pub(super) hash: Hash,
    /// The whole keys of its rows, if they are known together: of the first entry
    /// of a key of several columns.
    pub(super) rows: Option<Vec<KeySource>>,
    /// The keys of its rows that matter; `None` if they may be any.
    pub(super) members: Option<Vec<KeySource>>,
    /// Where the keyspace is by range, what its keys lie between.
    pub(super) interval: Option<Interval>,
    pub(super) ranged: bool,
}

impl Sharded<'_> {
    /// The member as a value of this key; `None` if its type is compared
    /// otherwise.
    pub(super) fn source(&self, member: &Member) -> Option<KeySource> {
        match member {
            Member::Source(source) => {
                let same = source.keyspace == self.keyspace && source.part == self.part;
                same.then(|| source.clone())
            }
            Member::Value(value) => self.made(value, Extent::One),
            Member::Array(value) => self.made(value, Extent::Array),
        }
    }

    fn made(&self, value: &shape::Value, extent: Extent) -> Option<KeySource> {
        let cast = match (&value.cast, extent) {
            (Cast::None, _) => None,
            (Cast::To(word), Extent::One) | (Cast::ToArray(word), Extent::Array) => {
                Some(CastTo::named(word, self.key_type)?)
            }
            (Cast::To(_), Extent::Array) | (Cast::ToArray(_), Extent::One) => return None,
            (_, Extent::Row(_)) => return None,
        };
        let place = match value.place {
            shape::Place::Literal(index) => KeyPlace::Literal(index),
            shape::Place::Param(index) => KeyPlace::Param { index, shared: Shared::Elsewhere },
            shape::Place::Null => KeyPlace::Null,
        };
        let sign = if value.minus { Sign::Minus } else { Sign::Plain };
        let (keyspace, key_type, part) = (self.keyspace, self.key_type, self.part);
        let (role, parts) = (Role::Filter, Box::default());
        Some(KeySource { keyspace, key_type, place, sign, cast, role, extent, part, parts })
    }

    /// Takes `comparison` with `value` as an end of the keys' interval; whether
    /// it is new.
    pub(super) fn narrow(&mut self, comparison: Comparison, value: &shape::Value) -> bool {
        if !self.ranged {
            return false;
        }
        let Some(source) = self.made(value, Extent::One) else { return false };
        let keyspace = self.keyspace;
        let interval = self.interval.get_or_insert(Interval { keyspace, low: None, high: None });
        let (end, ends) = match comparison {
            Comparison::Greater => (&mut interval.low, Ends::Before),
            Comparison::GreaterOrEqual => (&mut interval.low, Ends::With),
            Comparison::Less => (&mut interval.high, Ends::Before),
            Comparison::LessOrEqual => (&mut interval.high, Ends::With),
            Comparison::Equal => return false,
        };
        if end.is_some() {
            return false;
        }
        *end = Some(Bound { source, ends });
        true
    }

    fn not_given(&self) -> RouteError {
        RouteError::NoKeyGiven { table: self.name.into(), column: self.column.into() }
    }
}

/// Why the relation whose first key column is `at` has no place.
fn missing(sharded: &[Sharded<'_>], at: usize) -> Option<RouteError> {
    let one = sharded.get(at)?;
    let columns: Vec<&str> =
        sharded.iter().skip(at).take(one.parts).map(|one| one.column).collect();
    let column = match &*columns {
        [only] => (*only).into(),
        several => format!("({})", several.join(", ")).into(),
    };
    Some(RouteError::MissingKey { table: one.name.into(), column })
}

/// Whether functions of the statement are known to have no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    Harmless,
    Unknown,
}

/// Finds the places of all tables of `shape`. `uses` counts how often each
/// parameter stands in the text.
///
/// # Errors
/// A table is unknown, or may not be written so; a row to be inserted has no
/// provable key.
pub(crate) fn place(
    shape: &Shape,
    world: &World<'_>,
    uses: &[u16],
    calls: Calls,
) -> Result<Placed, RouteError> {
    let mut placed = Placed { stays: true, apart: true, ..Placed::default() };
    let sharded = relations(shape, world, &mut placed)?;
    // A function of the database's own may be taken for some types.
    let unnests = volatility::nature(None, "unnest", world).is_none();
    let mut solver = Solver { shape, sharded, opaque: calls == Calls::Unknown, unnests };
    check_assigned(&solver)?;
    placed.stays &= shape.inserts.iter().all(|insert| {
        let target = |one: &&Sharded<'_>| one.level == insert.level && one.relation == 0;
        let key: Vec<&str> = solver.sharded.iter().filter(target).map(|one| one.column).collect();
        stays::updates_own_rows(insert, &key)
    });
    let mut key_uses = vec![0_u16; uses.len()];
    let rows = insert_keys(&mut solver, &mut key_uses)?;
    solver.count_uses(&mut key_uses);
    placed.sources.extend(rows);
    let mut shards = BTreeSet::new();
    let mut keyspaces = BTreeSet::new();
    let mut why = None;
    for at in 0..solver.sharded.len() {
        let Some(one) = solver.sharded.get(at).filter(|one| one.part == 0) else { continue };
        let (keyspace, composite) = (one.keyspace, one.parts > 1);
        let known = if composite { composite::whole(&solver, at) } else { None };
        let Some(one) = solver.sharded.get_mut(at) else { continue };
        let members = if composite { known } else { one.members.take() };
        match (members, one.interval.take()) {
            (Some(members), _) => placed.sources.extend(members),
            (None, Some(interval)) => placed.intervals.push(interval),
            (None, None) => {
                why = why.or_else(|| missing(&solver.sharded, at));
                keyspaces.insert(keyspace);
                shards.extend(world.map.keyspace(keyspace).iter().flat_map(|k| k.shards()));
            }
        }
    }
    placed.open = why.map(|why| Open {
        shards: shards.into_iter().collect(),
        keyspaces: keyspaces.into_iter().collect(),
        why,
    });
    let ends = placed.intervals.iter_mut().flat_map(|one| [&mut one.low, &mut one.high]);
    let bounds = ends.flatten().map(|bound| &mut bound.source);
    let sources = placed.sources.iter_mut().chain(bounds);
    for source in sources.flat_map(KeySource::values_mut) {
        if let KeyPlace::Param { index, shared } = &mut source.place {
            let at = usize::from(*index);
            let only = uses.get(at).copied().unwrap_or(0) <= key_uses.get(at).copied().unwrap_or(0);
            *shared = if only { Shared::KeyOnly } else { Shared::Elsewhere };
        }
    }
    // Long lists hold as many values, all different.
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
pub(super) fn relations<'a>(
    shape: &'a Shape,
    world: &World<'a>,
    placed: &mut Placed,
) -> Result<Vec<Sharded<'a>>, RouteError> {
    let mut sharded = Vec::new();
    for (level, content) in shape.levels.iter().enumerate() {
        for (relation, one) in content.relations.iter().enumerate() {
            let RelationKind::Table { schema, name } = &one.kind else { continue };
            let written = matches!(one.target, Target::Written { .. });
            let schema = schema.as_deref();
            if written {
                resolve::check_written(schema, name, world)?;
                placed.stays = placed.stays && stays::writes_stay(schema, name, world);
            }
            placed.apart = placed.apart && stays::reads_stay(schema, name, world);
            placed.demand.add(resolve::demand(schema, name, world));
            if temporary::shard_of(schema, name, world)?.is_some() {
                placed.temporary = true;
                placed.demand.primary = true;
            }
            match named(schema, name, world)? {
                Named::System if written => {
                    return Err(RouteError::unsupported("a write to a system catalog", ""));
                }
                Named::System => {
                    placed.system = true;
                    placed.live |= !SCHEMA_CATALOGS.contains(&&**name);
                }
                Named::Listed(Table::Reference) if written => {
                    return Err(RouteError::ReferenceWrite { table: name.clone() });
                }
                Named::Listed(Table::Reference) => placed.reference = Some(name.clone()),
                Named::Listed(Table::Single(shard)) => {
                    placed.single.insert(shard);
                }
                Named::Listed(Table::Sharded { keyspace, column, rest }) => {
                    let found = world.map.keyspace(keyspace).ok_or(RouteError::SeveralShards)?;
                    let columns = std::iter::once(column).chain(rest.iter().map(String::as_str));
                    for (part, (column, key_type)) in (0..).zip(columns.zip(found.key_types())) {
                        sharded.push(Sharded {
                            level,
                            relation,
                            name,
                            keyspace,
                            key_type,
                            column,
                            part,
                            parts: rest.len() + 1,
                            hash: found.hash(),
                            rows: None,
                            members: None,
                            interval: None,
                            ranged: found.is_ranged(),
                        });
                    }
                }
            }
        }
    }
    Ok(sharded)
}

/// A key may only be assigned what it is: its own value, or that of the row that
/// the INSERT brings, which lies on the same shard.
fn check_assigned(solver: &Solver<'_>) -> Result<(), RouteError> {
    for (at, one) in solver.sharded.iter().enumerate() {
        let relation =
            solver.shape.levels.get(one.level).and_then(|l| l.relations.get(one.relation));
        let Some(Target::Written { assigned }) = relation.map(|relation| &relation.target) else {
            continue;
        };
        for Assigned { column, from } in assigned {
            if **column == *one.column && !from.as_ref().is_some_and(|from| keeps(solver, at, from))
            {
                return Err(RouteError::KeyChange {
                    table: one.name.into(),
                    column: one.column.into(),
                });
            }
        }
    }
    Ok(())
}

/// Whether `from` is the value that the key has, or that it would be inserted
/// with.
fn keeps(solver: &Solver<'_>, at: usize, from: &Column) -> bool {
    let Some(one) = solver.sharded.get(at) else { return false };
    let inserts = solver.shape.inserts.iter().any(|insert| insert.level == one.level);
    let alone = solver.shape.levels.get(one.level).is_some_and(|l| l.relations.len() == 1);
    if let Column::Named { qualifier, name, .. } = from
        && let [only] = &**qualifier
        && **only == *"excluded"
    {
        return inserts && alone && **name == *one.column;
    }
    solver.resolve(from, one.level) == Some(Spot::Key(at))
}

/// The keys of all rows to be inserted; solves the rest on the way. A table that
/// is only inserted into is not scanned, and needs no other key.
fn insert_keys(
    solver: &mut Solver<'_>,
    key_uses: &mut [u16],
) -> Result<Vec<KeySource>, RouteError> {
    let mut late = Vec::new();
    let mut found = Vec::new();
    for insert in &solver.shape.inserts {
        let target = |one: &Sharded<'_>| one.level == insert.level && one.relation == 0;
        let Some(at) = solver.sharded.iter().position(target) else { continue };
        let count = solver.sharded[at].parts;
        let columns = &solver.sharded[at..at + count];
        let positions: Vec<usize> =
            columns.iter().map(|one| key_position(insert, one)).collect::<Result<_, _>>()?;
        match &insert.rows {
            Rows::Values(rows) => {
                let mut sources = Vec::with_capacity(count);
                for (one, position) in columns.iter().zip(&positions) {
                    sources.push(value_rows(rows, *position, one, key_uses)?);
                }
                if count > 1 {
                    solver.sharded[at].rows = composite::rows(solver.sharded[at].hash, &sources);
                }
                settle(solver, at, sources);
            }
            Rows::Query(_) | Rows::Row(_) => late.push((insert, at, positions)),
            Rows::Default => return Err(solver.sharded[at].not_given()),
        }
    }
    solver.solve();
    solver.solve_intervals();
    for (insert, at, positions) in late {
        let mut columns = Vec::with_capacity(positions.len());
        for (one, position) in (at..).zip(positions) {
            columns.push(late_rows(solver, insert, one, position, key_uses)?);
        }
        let one = &solver.sharded[at];
        let rows = match &mut *columns {
            [only] => Some(only.clone()),
            _ => composite::cross(one.hash, columns.clone()),
        };
        let rows = rows.ok_or_else(|| RouteError::OpenRows { table: one.name.into() })?;
        if matches!(insert.rows, Rows::Query(_)) {
            solver.sharded[at].rows = (columns.len() > 1).then_some(rows);
            settle(solver, at, columns);
        } else {
            found.extend(rows);
        }
    }
    // What the rows tell may settle the subqueries of RETURNING.
    solver.solve();
    solver.solve_intervals();
    Ok(found)
}

/// Enters what the columns of the relation at `at` can be.
fn settle(solver: &mut Solver<'_>, at: usize, columns: Vec<Vec<KeySource>>) {
    for (one, sources) in solver.sharded.iter_mut().skip(at).zip(columns) {
        one.members = Some(sources);
    }
}

/// What the rows of a query, or the row of a MERGE, have in the key's column `at`.
fn late_rows(
    solver: &Solver<'_>,
    insert: &Insert,
    at: usize,
    position: usize,
    key_uses: &mut [u16],
) -> Result<Vec<KeySource>, RouteError> {
    let rows = match &insert.rows {
        Rows::Query(output) => solver.row_members(*output, position),
        Rows::Row(items) => row_items(solver, insert.level, items, position, key_uses),
        Rows::Values(_) | Rows::Default => None,
    };
    for (member, role) in rows.iter().flatten() {
        if let (Member::Array(array), Role::Row) = (member, role) {
            solve::count(array, key_uses);
        }
    }
    let one = &solver.sharded[at];
    let sources: Option<Vec<KeySource>> = rows.and_then(|rows| {
        let source =
            |(member, role): &solve::KeyRow| Some(KeySource { role: *role, ..one.source(member)? });
        rows.iter().map(source).collect()
    });
    sources.ok_or_else(|| RouteError::OpenRows { table: one.name.into() })
}

/// The key's position in the rows of an INSERT.
fn key_position(insert: &Insert, table: &Sharded<'_>) -> Result<usize, RouteError> {
    if matches!(insert.rows, Rows::Default) {
        return Err(table.not_given());
    }
    let columns = insert
        .columns
        .as_ref()
        .ok_or_else(|| RouteError::MissingColumns { table: table.name.into() })?;
    columns.iter().position(|name| **name == *table.column).ok_or_else(|| table.not_given())
}

fn value_rows(
    rows: &[Vec<Option<shape::Value>>],
    position: usize,
    table: &Sharded<'_>,
    key_uses: &mut [u16],
) -> Result<Vec<KeySource>, RouteError> {
    let mut sources = Vec::with_capacity(rows.len());
    for row in rows {
        let value = row.get(position).and_then(Option::as_ref);
        let source = value.and_then(|value| table.made(value, Extent::One)).ok_or_else(|| {
            RouteError::unsupported(
                "an INSERT whose sharding key is an expression or DEFAULT",
                "give the sharding key as a constant or a parameter",
            )
        })?;
        value.into_iter().for_each(|value| solve::count(value, key_uses));
        sources.push(KeySource { role: Role::Row, ..source });
    }
    Ok(sources)
}

/// The key of the row that a MERGE inserts.
fn row_items(
    solver: &Solver<'_>,
    level: usize,
    items: &[shape::Item],
    position: usize,
    key_uses: &mut [u16],
) -> Option<Vec<solve::KeyRow>> {
    match items.get(position)? {
        shape::Item::Column { column, .. } => solver.spot_rows(&solver.resolve(column, level)?),
        shape::Item::Value { value, .. } => {
            solve::count(value, key_uses);
            Some(vec![(Member::Value(value.clone()), Role::Row)])
        }
        shape::Item::Star { .. } | shape::Item::Other { .. } => None,
    }
}

/// More sources are not compared with each other.
const COMPARED_MAX: usize = 64;
/// Schemas of the server itself.
pub(super) const SYSTEM_SCHEMAS: &[&str] = &["pg_catalog", "information_schema", "pg_toast"];
/// The catalogs that hold what is in the schemas, and nothing of a session.
const SCHEMA_CATALOGS: &[&str] = &[
    "pg_aggregate",
    "pg_am",
    "pg_attrdef",
    "pg_attribute",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_conversion",
    "pg_depend",
    "pg_description",
    "pg_enum",
    "pg_extension",
    "pg_index",
    "pg_inherits",
    "pg_language",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_partitioned_table",
    "pg_proc",
    "pg_range",
    "pg_rewrite",
    "pg_trigger",
    "pg_type",
];
