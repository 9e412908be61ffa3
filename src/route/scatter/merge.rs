//! Reads over several shards whose rows one server puts together.
//!
//! Every reference to a sharded table is a fragment: the rows of that table on
//! all shards, as far as the statement can see them. On one server the rest of
//! the statement runs as it was written, with the fragments' rows in place of
//! the tables: `unnest($n::schema.table[])` has the names, types, modifiers and
//! collations of the table's columns, and the same rows, so the answer is that
//! of one server with all the rows.
//!
//! A fragment has only the columns whose names occur in the statement, and only
//! rows that meet those conditions of its level's WHERE that speak of it alone:
//! the conditions stay where they are, so this takes away nothing that matters.
//!
//! It reads tokens by their place in the statement, which is the same for every
//! text of one normal form; it does not know types.

use crate::catalog::{Catalog, RelationKind as Kind, Volatility};
use crate::shardmap::Table;
use crate::sql::lex::TokenKind;
use crate::sql::shape::{Level, Relation, RelationKind, Shape, Target};
use crate::sql::token::{self, Tokens};

use super::filter;
use super::owned::{Anchor, Foreign};
use super::partial::{self, Known, Partial};
use super::{several_shards, words};
use crate::route::error::RouteError;
use crate::route::place::{self, Named};
use crate::route::planner::World;
use crate::route::resolve;
use crate::route::splice::quoted;

/// Where the fragments of a statement stand, by its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pieces: Box<[Piece]>,
    /// Tokens of schemas before columns of tables that are replaced.
    schemas: Box<[(usize, usize)]>,
    /// A type of the database's own takes part: its number is the home
    /// shard's wherever a client asks for it.
    homely: bool,
    /// Every shard can compute its part of the aggregates.
    partial: Option<partial::Plan>,
}

/// One reference to a sharded table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    anchor: Anchor,
    /// The tokens of the table's name.
    at: (usize, usize),
    /// The table, quoted, with its schema.
    relation: Box<str>,
    /// The name that columns are qualified with.
    alias: Box<str>,
    /// Whether the alias is not written behind the name.
    implied: bool,
    /// Tokens of conditions that its rows must meet.
    filters: Box<[(usize, usize)]>,
    wanted: Wanted,
    /// Columns that may not be left out.
    firm: Box<[Box<str>]>,
    /// All columns, as the catalog has them.
    columns: Box<[Box<str>]>,
}

/// The columns that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// Those with one of these names.
    Named,
}

/// A read whose rows one server puts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    original: Box<[u8]>,
    fragments: Box<[Fragment]>,
    /// Bytes of the original that a fragment stands for.
    places: Box<[Stand]>,
    names: Box<[Box<str>]>,
    homely: bool,
    partial: Option<Partial>,
}

/// Rows of one table, from all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    anchor: Anchor,
    relation: Box<str>,
    from: Box<[u8]>,
    alias: Box<str>,
    implied: bool,
    filter: Box<[u8]>,
    params: bool,
    wanted: Wanted,
    firm: Box<[Box<str>]>,
    columns: Box<[Box<str>]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stand {
    start: usize,
    end: usize,
    /// What stands there; nothing in place of a schema.
    fragment: Option<usize>,
    alias: Option<Box<str>>,
}

impl Fragment {
    /// A query whose columns are those of the table.
    pub fn columns_query(&self) -> String {
        format!("SELECT * FROM {}", self.relation)
    }

    /// Whether its conditions use the client's parameters.
    pub const fn has_params(&self) -> bool {
        self.params
    }

    /// The query that a shard is asked for its rows, in these columns, without
    /// those that it does not own.
    pub fn query(&self, columns: &[&str], filtered: bool, foreign: Option<&Foreign>) -> Vec<u8> {
        let mut out = b"SELECT".to_vec();
        for (number, column) in columns.iter().enumerate() {
            let comma = if number == 0 { " " } else { ", " };
            let alias = quoted(&self.alias);
            out.extend_from_slice(format!("{comma}{alias}.{}", quoted(column)).as_bytes());
        }
        out.extend_from_slice(b" FROM ");
        out.extend_from_slice(&self.from);
        if !self.implied {
            out.extend_from_slice(format!(" AS {}", quoted(&self.alias)).as_bytes());
        }
        let filtered = filtered && !self.filter.is_empty();
        if filtered {
            out.extend_from_slice(&self.filter);
        }
        if let Some(foreign) = foreign {
            foreign.append(&mut out, &self.anchor, filtered);
        }
        out
    }
}

impl Merge {
    /// The statement as the client sent it.
    pub fn original(&self) -> &[u8] {
        &self.original
    }

    /// What the shards are asked for.
    pub fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// Whether `fragment` must carry its table's column `name`.
    pub fn wants(&self, fragment: &Fragment, name: &str) -> bool {
        match fragment.wanted {
            Wanted::All => true,
            Wanted::Named => self.names.iter().chain(&fragment.firm).any(|one| **one == *name),
        }
    }

    /// How the shards can compute a part of the answer.
    pub const fn partial(&self) -> Option<&Partial> {
        self.partial.as_ref()
    }

    /// What the shards are asked for, in words: which rows of which table.
    pub(crate) fn sketch(&self) -> Vec<String> {
        if let Some(partial) = &self.partial {
            return vec![format!("in part: {}", String::from_utf8_lossy(partial.query()))];
        }
        let rows = |fragment: &Fragment| {
            let wanted = fragment.columns.iter().filter(|name| self.wants(fragment, name));
            let wanted: Vec<&str> = wanted.map(AsRef::as_ref).collect();
            format!("rows: {}", String::from_utf8_lossy(&fragment.query(&wanted, true, None)))
        };
        self.fragments.iter().map(rows).collect()
    }

    /// Whether the answer's types should be the home shard's.
    pub const fn is_homely(&self) -> bool {
        self.homely
    }

    /// The statement that puts the rows together; its own parameters stand
    /// behind the `params` of the client, one for each fragment.
    pub fn statement(&self, params: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.original.len() + 64 * self.places.len());
        let mut at = 0;
        for one in &self.places {
            out.extend_from_slice(self.original.get(at..one.start).unwrap_or_default());
            at = one.end;
            let Some(number) = one.fragment else { continue };
            let Some(fragment) = self.fragments.get(number) else { continue };
            let number = params + number + 1;
            let rows = format!("pg_catalog.unnest(${number}::{}[])", fragment.relation);
            out.extend_from_slice(rows.as_bytes());
            if let Some(alias) = &one.alias {
                out.extend_from_slice(format!(" AS {}", quoted(alias)).as_bytes());
            }
        }
        out.extend_from_slice(self.original.get(at..).unwrap_or_default());
        out
    }
}

impl Split {
    /// The split of `text`, which has the normal form that was split.
    ///
    /// # Errors
    /// The text has no tokens.
    pub(crate) fn of(&self, text: &[u8]) -> Result<Merge, RouteError> {
        let list = token::tokens(text)?;
        let statements = token::statements(text, &list);
        let statement = statements.first().ok_or(RouteError::SeveralShards)?;
        let list = statement.without_hints();
        let t = Tokens { text, list: &list };
        let base = t.span().start as usize;
        let mut fragments: Vec<Fragment> = Vec::new();
        let mut places = Vec::new();
        for piece in &self.pieces {
            let found = piece.fragment(&t);
            let same = fragments.iter().position(|one| one.gives(&found));
            let fragment = same.unwrap_or(fragments.len());
            match same.and_then(|at| fragments.get_mut(at)) {
                Some(one) if found.wanted == Wanted::All => one.wanted = Wanted::All,
                Some(_) => {}
                None => fragments.push(found),
            }
            let span = t.slice(piece.at.0, piece.at.1).span();
            places.push(Stand {
                start: span.start as usize - base,
                end: span.end as usize - base,
                fragment: Some(fragment),
                alias: piece.implied.then(|| piece.alias.clone()),
            });
        }
        for (start, end) in &self.schemas {
            let span = t.slice(*start, *end).span();
            let (start, end) = (span.start as usize - base, span.end as usize - base);
            places.push(Stand { start, end, fragment: None, alias: None });
        }
        places.sort_by_key(|one| one.start);
        let names =
            (0..t.len()).filter_map(|i| t.name(i)).collect::<std::collections::BTreeSet<_>>();
        Ok(Merge {
            original: t.span().of(text).into(),
            fragments: fragments.into(),
            places: places.into(),
            names: names.into_iter().collect(),
            homely: self.homely,
            partial: self.partial.as_ref().map(|plan| plan.of(&t)),
        })
    }
}

impl Piece {
    fn fragment(&self, t: &Tokens<'_>) -> Fragment {
        let mut condition = Vec::new();
        for (number, (start, end)) in self.filters.iter().enumerate() {
            condition.extend_from_slice(if number == 0 { b" WHERE (" } else { b" AND (" });
            condition.extend_from_slice(t.slice(*start, *end).span().of(t.text));
            // A comment at its end would swallow the parenthesis.
            condition.extend_from_slice(b"\n)");
        }
        Fragment {
            anchor: self.anchor.clone(),
            relation: self.relation.clone(),
            from: t.slice(self.at.0, self.at.1).span().of(t.text).into(),
            alias: self.alias.clone(),
            implied: self.implied,
            filter: condition.into(),
            params: self
                .filters
                .iter()
                .any(|(start, end)| (*start..*end).any(|i| t.param(i).is_some())),
            wanted: self.wanted.clone(),
            firm: self.firm.clone(),
            columns: self.columns.clone(),
        }
    }
}

impl Fragment {
    /// Whether it has the same rows as `other`.
    fn gives(&self, other: &Self) -> bool {
        self.from == other.from
            && self.relation == other.relation
            && self.filter == other.filter
            && (self.filter.is_empty()
                || self.alias == other.alias && self.implied == other.implied)
    }
}

/// Splits a read into fragments.
///
/// # Errors
/// What stands in the way, by name.
pub(crate) fn split(t: &Tokens<'_>, shape: &Shape, world: &World<'_>) -> Result<Split, RouteError> {
    words::check_merged(t, world)?;
    let list = t.without_hints();
    let t = &Tokens { text: t.text, list: &list };
    let catalog = resolve::known(world)
        .filter(|catalog| catalog.covers(world.map.shards().iter().map(|shard| shard.id)));
    let catalog = catalog.ok_or_else(|| {
        several_shards(
            "a read that one server has to put together, before the shards' schemas are known",
            "try again once the shards can be reached",
        )
    })?;
    let mut made = Making { t, shape, world, catalog, pieces: Vec::new(), homely: false };
    for level in &shape.levels {
        for relation in &level.relations {
            made.relation(level, relation)?;
        }
    }
    if made.pieces.is_empty() {
        return Err(RouteError::SeveralShards);
    }
    let anchor = super::ties_together(shape, world);
    let known = known(shape, world, catalog);
    let partial = anchor.zip(known).and_then(|(anchor, known)| partial::plan(t, &known, anchor));
    let schemas = schemas(t, &made.pieces).into();
    Ok(Split { homely: made.homely, pieces: made.pieces.into(), schemas, partial })
}

/// Where a column is qualified with its table's schema, too.
fn schemas(t: &Tokens<'_>, pieces: &[Piece]) -> Vec<(usize, usize)> {
    let replaced = |i: usize| {
        pieces.iter().any(|piece| {
            piece.implied
                && t.name(i + 2).is_some_and(|name| *name == *piece.alias)
                && t.name(i).is_some_and(|schema| {
                    piece.relation.starts_with(&format!("{}.", quoted(&schema)))
                })
        })
    };
    (0..t.len())
        .filter(|i| {
            t.is_punct(i + 1, ".")
                && t.is_punct(i + 3, ".")
                && !(*i > 0 && t.is_punct(i - 1, "."))
                && replaced(*i)
        })
        .map(|i| (i, i + 2))
        .collect()
}

/// The columns of the relations of a statement's only level.
fn known(shape: &Shape, world: &World<'_>, catalog: &Catalog) -> Option<Vec<Known>> {
    let [level] = &*shape.levels else { return None };
    let known = |relation: &Relation| {
        let RelationKind::Table { schema, name } = &relation.kind else { return None };
        if !relation.columns.is_empty() {
            return None;
        }
        let schema = resolve::schema_of(schema.as_deref(), name, world, catalog).ok()??;
        let (_, table) = catalog.relation(&schema, name).next()?;
        Some(Known {
            alias: relation.alias.clone().unwrap_or_else(|| name.clone()),
            columns: table.columns.iter().map(|column| column.name.clone()).collect(),
        })
    };
    level.relations.iter().map(known).collect()
}

struct Making<'m> {
    t: &'m Tokens<'m>,
    shape: &'m Shape,
    world: &'m World<'m>,
    catalog: &'m Catalog,
    pieces: Vec<Piece>,
    homely: bool,
}

impl Making<'_> {
    fn relation(&mut self, level: &Level, relation: &Relation) -> Result<(), RouteError> {
        let RelationKind::Table { schema, name } = &relation.kind else { return Ok(()) };
        if matches!(relation.target, Target::Written { .. }) {
            return Err(RouteError::SeveralShards);
        }
        let (keyspace, key, rest) = match place::named(schema.as_deref(), name, self.world)? {
            Named::Listed(Table::Sharded { keyspace, column, rest }) => (keyspace, column, rest),
            Named::Listed(Table::Reference) => return Ok(()),
            Named::Listed(Table::Single(_)) | Named::System => {
                return Err(several_shards(
                    "a table that is on one shard beside a sharded one",
                    "fix the sharding key, or read the tables one by one",
                ));
            }
        };
        let found = resolve::schema_of(schema.as_deref(), name, self.world, self.catalog)?;
        let Some(found) = found else {
            return Err(several_shards(
                "a table that no shard's catalog has yet",
                "try again once it is made",
            ));
        };
        let mut firm: Vec<Box<str>> = Vec::new();
        for (_, copy) in self.catalog.relation(&found, name) {
            check_kind(copy)?;
            for column in &copy.columns {
                self.homely |= column.type_name.contains('.') || column.is_enum;
                if column.base.is_some() && !firm.contains(&column.name) {
                    firm.push(column.name.clone());
                }
            }
        }
        let columns = self.catalog.relation(&found, name).next().map(|(_, copy)| &*copy.columns);
        let columns = columns.unwrap_or_default();
        let alias = relation.alias.as_ref().unwrap_or(name);
        let all = level.natural
            || !relation.columns.is_empty()
            || has_star(self.t)
            || self.is_whole_row(alias);
        let filters = if relation.nullable || relation.hidden || !relation.columns.is_empty() {
            Vec::new()
        } else {
            filter::own(self.t, level, alias, columns)
        };
        self.pieces.push(Piece {
            anchor: Anchor::new(
                keyspace,
                alias,
                std::iter::once(key).chain(rest.iter().map(String::as_str)),
            ),
            at: relation.at,
            relation: format!("{}.{}", quoted(&found), quoted(name)).into(),
            alias: alias.clone(),
            implied: relation.alias.is_none(),
            filters: filters.into(),
            wanted: if all { Wanted::All } else { Wanted::Named },
            firm: firm.into(),
            columns: columns.iter().map(|column| column.name.clone()).collect(),
        });
        Ok(())
    }

    /// Whether the name may stand for a whole row of its table: somewhere else
    /// than before a dot and where tables are named.
    fn is_whole_row(&self, alias: &str) -> bool {
        let relations = || self.shape.levels.iter().flat_map(|level| &level.relations);
        (0..self.t.len()).any(|i| {
            self.t.name(i).as_deref() == Some(alias)
                && !self.t.is_punct(i + 1, ".")
                && !relations().any(|one| {
                    let (start, end) = one.at;
                    // The name itself, or the alias behind it.
                    let named = start < end && (start..end).contains(&i);
                    let after = end + usize::from(self.t.is_word(end, "as"));
                    named || (start < end && one.alias.is_some() && i == after)
                })
        })
    }
}

/// Views over several rows, and what changes by itself, can't be taken apart.
fn check_kind(copy: &crate::catalog::Relation) -> Result<(), RouteError> {
    match (copy.kind, &copy.view) {
        (Kind::Table | Kind::PartitionedTable, _) => Ok(()),
        (Kind::View, Some(view)) if view.simple && view.volatility == Volatility::Immutable => {
            Ok(())
        }
        (Kind::View | Kind::MaterializedView | Kind::ForeignTable | Kind::Sequence, _) => {
            Err(several_shards(
                &format!("a {} of sharded tables", copy.kind.word()),
                "read the tables themselves",
            ))
        }
    }
}

/// Whether `*` stands for columns somewhere.
fn has_star(t: &Tokens<'_>) -> bool {
    (0..t.len()).any(|i| {
        if !t.is_operator(i, "*") {
            return false;
        }
        let before = |punct| i > 0 && t.is_punct(i - 1, punct);
        if before("(") && t.is_punct(i + 1, ")") {
            return false;
        }
        let operand = match t.kind(i + 1) {
            Some(token::Kind::Literal(..)) => true,
            Some(token::Kind::Plain(
                TokenKind::Param
                | TokenKind::Quoted
                | TokenKind::UnicodeQuoted
                | TokenKind::Operator,
            )) => true,
            Some(token::Kind::Plain(TokenKind::Punct)) => t.is_punct(i + 1, "("),
            Some(token::Kind::Plain(TokenKind::Word)) => {
                !AFTER_STAR.iter().any(|word| t.is_word(i + 1, word))
            }
            Some(token::Kind::Hint) | None => false,
        };
        before(".") || !operand
    })
}

/// Words that may follow a `*` that stands for columns.
const AFTER_STAR: &[&str] = &[
    "from",
    "where",
    "group",
    "having",
    "window",
    "union",
    "intersect",
    "except",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "into",
];
