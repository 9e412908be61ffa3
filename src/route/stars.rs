//! The columns that a star stands for, where an INSERT's rows come from a query.
//!
//! The server would take the columns as they are when the statement runs. As with
//! the column list of the INSERT itself, the key's place is only sure if the names
//! stand in the text: they are put there in the star's place.

use crate::catalog::Catalog;
use crate::sql::shape::{Branch, Column, Item, Level, Relation, RelationKind, Shape};
use crate::sql::tree::Name;

use super::error::RouteError;
use super::planner::World;
use super::resolve;
use super::splice::{List, quoted};

/// Writes out the stars of what the query `output` hands out; whether none is
/// left. Notes what belongs into the text.
///
/// # Errors
/// Shards disagree about the columns of a table.
pub(super) fn expand(
    shape: &mut Shape,
    output: usize,
    world: &World<'_>,
    catalog: &Catalog,
    made: &mut Vec<List>,
) -> Result<bool, RouteError> {
    let mut done = Vec::new();
    let branches = shape.outputs.get(output).map(|one| &*one.branches).unwrap_or_default();
    for (at, branch) in branches.iter().enumerate() {
        let Branch::Rows { level, items, .. } = branch else { continue };
        if !items.iter().any(|item| matches!(item, Item::Star { .. })) {
            continue;
        }
        let stars = Stars { shape, world, catalog };
        let mut written = Vec::new();
        for item in items {
            match item {
                Item::Star { qualifier, span } => {
                    let (Some(span), Some(columns)) = (span, stars.of(*level, qualifier)?) else {
                        return Ok(false);
                    };
                    let shown: Vec<String> = columns.iter().map(Part::shown).collect();
                    made.push(List::instead(*span, shown.join(", ").into_bytes()));
                    written.extend(columns.into_iter().map(Part::item));
                }
                Item::Column { column, name } => {
                    written.push(Item::Column { column: column.clone(), name: name.clone() });
                }
                Item::Value { value, name } => {
                    written.push(Item::Value { value: value.clone(), name: name.clone() });
                }
                Item::Other { name } => written.push(Item::Other { name: name.clone() }),
            }
        }
        done.push((at, written));
    }
    let output = shape.outputs.get_mut(output);
    let branches = output.map(|one| &mut *one.branches).unwrap_or_default();
    for (at, written) in done {
        if let Some(Branch::Rows { items, .. }) = branches.get_mut(at) {
            *items = written;
        }
    }
    Ok(true)
}

/// One column of a star: how its relation is named, and its name.
struct Part {
    qualifier: Vec<Name>,
    name: Name,
}

impl Part {
    fn shown(&self) -> String {
        let names: Vec<String> =
            self.qualifier.iter().chain([&self.name]).map(|name| quoted(name)).collect();
        names.join(".")
    }

    fn item(self) -> Item {
        let Self { qualifier, name } = self;
        let column = Column::Named { qualifier, name: name.clone(), within: None };
        Item::Column { column, name }
    }
}

struct Stars<'a> {
    shape: &'a Shape,
    world: &'a World<'a>,
    catalog: &'a Catalog,
}

type Found<T> = Result<Option<T>, RouteError>;

impl Stars<'_> {
    /// The columns of a star of `level`; `None` if they can't be told.
    fn of(&self, level: usize, qualifier: &[Name]) -> Found<Vec<Part>> {
        let Some(content) = self.shape.levels.get(level) else { return Ok(None) };
        let Some(names) = self.level_names(content, qualifier, 0)? else { return Ok(None) };
        Ok(Some(names))
    }

    fn level_names(&self, level: &Level, qualifier: &[Name], depth: usize) -> Found<Vec<Part>> {
        let shown = level.relations.iter().filter(|one| !one.hidden);
        if qualifier.is_empty() && (level.natural || !level.merged.is_empty()) {
            // Merged columns stand first, once.
            return Ok(None);
        }
        let mut parts = Vec::new();
        let mut found = 0;
        for relation in shown {
            let own = match (&relation.alias, &relation.kind) {
                (Some(alias), _) => alias,
                (None, RelationKind::Table { name, .. }) => name,
                (
                    None,
                    RelationKind::Derived(_) | RelationKind::Unnested(_) | RelationKind::Other,
                ) => return Ok(None),
            };
            if !qualifier.is_empty() && qualifier != [own.clone()] {
                continue;
            }
            found += 1;
            let Some(names) = self.names(relation, depth)? else { return Ok(None) };
            parts.extend(names.into_iter().map(|name| Part { qualifier: vec![own.clone()], name }));
        }
        let unique = qualifier.is_empty() || found == 1;
        Ok((unique && !parts.is_empty()).then_some(parts))
    }

    /// The names of a relation's columns, in their order.
    fn names(&self, relation: &Relation, depth: usize) -> Found<Vec<Name>> {
        let names = match &relation.kind {
            RelationKind::Table { schema, name } => self.table(schema.as_deref(), name)?,
            RelationKind::Derived(output) if depth < DEPTH_MAX => {
                self.output(*output, depth + 1)?
            }
            RelationKind::Derived(_) | RelationKind::Unnested(_) | RelationKind::Other => None,
        };
        Ok(names.map(|names| renamed(names, &relation.columns)))
    }

    fn table(&self, schema: Option<&str>, name: &str) -> Found<Vec<Name>> {
        let Some(schema) = resolve::schema_of(schema, name, self.world, self.catalog)? else {
            return Ok(None);
        };
        if !self.catalog.covers(self.world.map.shards().iter().map(|shard| shard.id)) {
            return Ok(None);
        }
        let mut lists = self.catalog.relation(&schema, name).map(|(_, relation)| {
            relation.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>()
        });
        let Some(first) = lists.next() else { return Ok(None) };
        if lists.any(|other| other != first) {
            return Err(RouteError::unsupported(
                &format!(
                    "a star over table {name}, whose columns have another order on some shards,"
                ),
                "name the columns",
            ));
        }
        Ok(Some(first))
    }

    fn output(&self, output: usize, depth: usize) -> Found<Vec<Name>> {
        let Some(content) = self.shape.outputs.get(output) else { return Ok(None) };
        let names = match content.branches.first() {
            Some(Branch::Values(rows)) => {
                let count = rows.first().map_or(0, Vec::len);
                Some((1..=count).map(|at| format!("column{at}").into()).collect())
            }
            Some(Branch::Rows { level, items, .. }) => {
                let Some(level) = self.shape.levels.get(*level) else { return Ok(None) };
                self.items(level, items, depth)?
            }
            Some(Branch::Unnested(_)) | None => None,
        };
        Ok(names.map(|names: Vec<Name>| renamed(names, &content.columns)))
    }

    fn items(&self, level: &Level, items: &[Item], depth: usize) -> Found<Vec<Name>> {
        let mut names = Vec::new();
        for item in items {
            match item {
                Item::Column { name, .. } => names.push(name.clone()),
                Item::Value { name: Some(name), .. } | Item::Other { name: Some(name) } => {
                    names.push(name.clone());
                }
                // The server makes a name up.
                Item::Value { name: None, .. } | Item::Other { name: None } => return Ok(None),
                Item::Star { qualifier, .. } => match self.level_names(level, qualifier, depth)? {
                    Some(parts) => names.extend(parts.into_iter().map(|part| part.name)),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(names))
    }
}

/// An alias may give new names to the first columns.
fn renamed(mut names: Vec<Name>, by: &[Name]) -> Vec<Name> {
    for (name, new) in names.iter_mut().zip(by) {
        name.clone_from(new);
    }
    names
}

/// Subqueries in subqueries are followed so far.
const DEPTH_MAX: usize = 16;
