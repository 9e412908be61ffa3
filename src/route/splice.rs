//! The column list of an INSERT that has none, and the columns of the stars in its
//! query.
//!
//! The server would take the table's columns in their order, as they are when
//! the statement runs. The key's place among the values is only sure if the list
//! stands in the text: it is put there, in front of the values, and nothing else
//! of the text changes. A column that was added a moment ago then can't shift
//! the key; one that was dropped is an error of the server's.

use crate::catalog::Catalog;
use crate::shardmap::Table;
use crate::sql::shape::{Branch, Insert, Item, RelationKind, Rows, Shape};
use crate::sql::statement::Span;
use crate::sql::token::{self, Token};

use super::error::RouteError;
use super::place::{self, Named};
use super::planner::World;
use super::resolve;
use super::stars;

/// Bytes to be put in front of a token of the text, or in the place of some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    /// The token's index in the text.
    pub(crate) token: usize,
    /// How many tokens give way.
    pub(crate) instead_of: usize,
    pub(crate) bytes: Box<[u8]>,
}

/// A list to be put in front of a byte of the text, or in the place of some.
#[derive(Debug)]
pub(crate) struct List {
    span: Span,
    bytes: Box<[u8]>,
}

impl List {
    /// A list in the place of `span`.
    pub(super) fn instead(span: Span, bytes: Vec<u8>) -> Self {
        Self { span, bytes: bytes.into() }
    }
}

/// The list that an insert lacks.
struct Missing {
    at: u32,
    columns: Vec<Box<str>>,
}

/// Gives each INSERT into a sharded table its column list, and notes where the
/// list belongs: the byte of the text, and the list.
///
/// # Errors
/// Shards disagree about the columns.
pub(crate) fn fill(shape: &mut Shape, world: &World<'_>) -> Result<Vec<List>, RouteError> {
    let mut made = Vec::new();
    let Some(catalog) = resolve::known(world) else { return Ok(made) };
    for at in 0..shape.inserts.len() {
        if !is_sharded(shape, at, world)? {
            continue;
        }
        if let Some(Rows::Query(output)) = shape.inserts.get(at).map(|insert| &insert.rows) {
            let output = *output;
            stars::expand(shape, output, world, catalog, &mut made)?;
        }
        let Some(Missing { at: start, columns }) = missing(shape, at, world, catalog)? else {
            continue;
        };
        let quoted: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
        let bytes = format!("({}) ", quoted.join(", ")).into_bytes().into();
        made.push(List { span: Span { start, end: start }, bytes });
        if let Some(insert) = shape.inserts.get_mut(at) {
            insert.columns = Some(columns);
        }
    }
    Ok(made)
}

/// Whether the insert is into a sharded table.
fn is_sharded(shape: &Shape, at: usize, world: &World<'_>) -> Result<bool, RouteError> {
    let Some(insert) = shape.inserts.get(at) else { return Ok(false) };
    let table = shape.levels.get(insert.level).and_then(|level| level.relations.first());
    let Some(RelationKind::Table { schema, name }) = table.map(|one| &one.kind) else {
        return Ok(false);
    };
    let named = place::named(schema.as_deref(), name, world)?;
    Ok(matches!(named, Named::Listed(Table::Sharded { .. })))
}

/// The list that the insert lacks, and where it belongs.
fn missing(
    shape: &Shape,
    at: usize,
    world: &World<'_>,
    catalog: &Catalog,
) -> Result<Option<Missing>, RouteError> {
    let Some(insert) = shape.inserts.get(at) else { return Ok(None) };
    let (None, Some(start)) = (&insert.columns, insert.list_at) else { return Ok(None) };
    let table = shape.levels.get(insert.level).and_then(|level| level.relations.first());
    let Some(RelationKind::Table { schema, name }) = table.map(|one| &one.kind) else {
        return Ok(None);
    };
    let schema = schema.as_deref();
    let Some(width) = width(insert, shape) else { return Ok(None) };
    let Some(schema) = resolve::schema_of(schema, name, world, catalog)? else { return Ok(None) };
    if !catalog.covers(world.map.shards().iter().map(|shard| shard.id)) {
        return Ok(None);
    }
    let mut lists = catalog.relation(&schema, name).map(|(_, relation)| {
        // More values than columns: the server says so.
        relation.columns.iter().take(width).map(|column| column.name.clone()).collect::<Vec<_>>()
    });
    let Some(first) = lists.next() else { return Ok(None) };
    if lists.any(|other| other != first) {
        return Err(RouteError::unsupported(
            &format!(
                "an INSERT without a column list into table {name}, whose columns have another order on some shards,"
            ),
            "name the columns: INSERT INTO table (column, …) VALUES …",
        ));
    }
    Ok((!first.is_empty()).then_some(Missing { at: start, columns: first }))
}

/// How many columns the rows have, if the text tells.
fn width(insert: &Insert, shape: &Shape) -> Option<usize> {
    match &insert.rows {
        Rows::Values(rows) => rows.first().map(Vec::len),
        Rows::Query(output) => match shape.outputs.get(*output)?.branches.first()? {
            Branch::Rows { items, .. } => {
                let star = items.iter().any(|item| matches!(item, Item::Star { .. }));
                (!star).then_some(items.len())
            }
            Branch::Values(rows) => rows.first().map(Vec::len),
            Branch::Unnested(_) => None,
        },
        Rows::Row(items) => Some(items.len()),
        Rows::Default => None,
    }
}

/// A name as it stands in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The splices by the tokens that begin at those bytes.
pub(crate) fn anchored(made: Vec<List>, tokens: &[Token]) -> Option<Box<[Splice]>> {
    let mut splices: Vec<Splice> = made
        .into_iter()
        .map(|list| {
            let List { span, bytes } = list;
            let token = tokens.iter().position(|token| token.start == span.start)?;
            let inside = |token: &&Token| token.start >= span.start && token.start < span.end;
            Some(Splice { token, instead_of: tokens.iter().filter(inside).count(), bytes })
        })
        .collect::<Option<_>>()?;
    splices.sort_by_key(|splice| splice.token);
    Some(splices.into())
}

/// `text` with `splices`, whose normal form is that of the text planned; `None`
/// if there are none.
pub(crate) fn apply(text: &[u8], splices: &[Splice]) -> Option<Vec<u8>> {
    if splices.is_empty() {
        return None;
    }
    let tokens = token::tokens(text).ok()?;
    let mut out = Vec::with_capacity(text.len() + 64);
    let mut done = 0;
    for splice in splices {
        let start = tokens.get(splice.token)?.start as usize;
        out.extend_from_slice(text.get(done..start)?);
        out.extend_from_slice(&splice.bytes);
        done = match splice.instead_of.checked_sub(1) {
            Some(more) => tokens.get(splice.token.checked_add(more)?)?.end as usize,
            None => start,
        };
    }
    out.extend_from_slice(text.get(done..)?);
    Some(out)
}
