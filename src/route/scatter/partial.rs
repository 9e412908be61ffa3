//! Aggregates that every shard computes for its own rows, and one server over
//! what they computed: the sum of sums, the sum of counts, the least of the
//! least; an average is a sum and a count.
//!
//! A shard groups its rows by everything that the statement groups by in any
//! way; the statement's own GROUP BY, HAVING, ORDER BY and LIMIT work on those
//! groups. What is not of this form is left to `merge`, which brings rows.
//!
//! It reads tokens; which type a partial value has is found out by a server.

use std::borrow::Cow;

use crate::sql::lex::TokenKind;
use crate::sql::literal::LiteralKind;
use crate::sql::token::{Kind, Tokens};

use super::clauses::{Parts, split};
use super::owned::{Anchor, Foreign, Gap};
use super::words;

/// A statement taken apart, by its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    keys: Vec<(usize, usize)>,
    aggregates: Vec<Aggregate>,
    items: Vec<Item>,
    distinct: bool,
    body: (usize, usize),
    /// WHERE, within the body.
    filter: Option<usize>,
    anchor: Anchor,
    group: Group,
    having: Option<Vec<Piece>>,
    order: Option<Vec<Piece>>,
    tail: (usize, usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Group {
    None,
    /// By all keys.
    Keys,
    /// By the keys, in a way of its own.
    Sets(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    pieces: Vec<Piece>,
    /// It has a name of its own.
    named: bool,
}

/// One aggregate call: its name's token, and the tokens behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Aggregate {
    kind: Combine,
    name: usize,
    end: usize,
}

/// How partial values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// The sum of counts.
    Count,
    /// The sum of sums.
    Sum,
    /// The sum of sums by the sum of counts.
    Average,
    /// The same function again.
    Same(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(usize, usize),
    Key(usize),
    Aggregate(usize),
    /// The name at this token: an output column's if there is one.
    Output(usize, Box<Self>),
}

/// A column that a statement may name.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) alias: Box<str>,
    pub(super) columns: Vec<Box<str>>,
}

/// Aggregates to be computed in part, with their texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    query: Box<[u8]>,
    gap: Gap,
    params: bool,
    /// How many columns the groups have.
    keys: usize,
    combine: Box<[Combine]>,
    items: Vec<(Vec<Part>, bool)>,
    distinct: bool,
    group: Option<Vec<Part>>,
    having: Option<Vec<Part>>,
    order: Option<Vec<Part>>,
    tail: Box<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Key(usize),
    Aggregate(usize),
    Output(Box<str>, Box<Self>),
}

/// A column of the shards' partial rows, as the server that combines them sees
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialColumn {
    /// The number of its type.
    pub oid: u32,
    /// The modifier of its type.
    pub modifier: i32,
    /// The type, as SQL text; empty if it can't be an array's.
    pub type_name: String,
    /// The collation of its values as text, as SQL text.
    pub collation: Option<String>,
}

/// Takes a statement apart, if it is of that form. `known` are the relations of
/// its only level, `anchor` tells the shard of its rows.
pub(super) fn plan(t: &Tokens<'_>, known: &[Known], anchor: Anchor) -> Option<Plan> {
    if !words::is_rowwise(t) {
        return None;
    }
    let parts = Parts::read(t)?;
    let mut making = Making { t, known, keys: Vec::new(), aggregates: Vec::new() };
    let list: Vec<(usize, usize, bool)> =
        ranges(t, parts.list, parts.from).into_iter().map(|(s, e)| label(t, s, e)).collect();
    if list.iter().any(|(_, end, _)| t.is_operator(end.saturating_sub(1), "*")) {
        return None;
    }
    let mut group = Group::None;
    let mut sets = None;
    match parts.group {
        Some((start, end)) if is_sets(t, start, end) => {
            making.set_columns(start, end)?;
            sets = Some((start, end));
        }
        Some((start, end)) => {
            for (start, end) in ranges(t, start, end) {
                making.key(start, end, &list)?;
            }
            group = Group::Keys;
        }
        None if parts.distinct && !(0..t.len()).any(|i| is_aggregate_at(t, i)) => {
            making.keys.extend(list.iter().map(|(start, end, _)| (*start, *end)));
        }
        None => {}
    }
    let items: Option<Vec<Item>> = list
        .iter()
        .map(|(start, end, named)| {
            let mut pieces = making.pieces(*start, *end)?;
            if *named {
                let last = ranges(t, parts.list, parts.from)
                    .into_iter()
                    .find(|(from, _)| from == start)
                    .map(|(_, to)| to)?;
                pieces.push(Piece::Text(*end, last));
            }
            Some(Item { pieces, named: *named })
        })
        .collect();
    let items = items?;
    if let Some((start, end)) = sets {
        group = Group::Sets(making.pieces(start, end)?);
    }
    let having = match parts.having {
        Some((start, end)) => Some(making.pieces(start, end)?),
        None => None,
    };
    let order = match parts.order {
        Some((start, end)) => Some(making.order(start, end)?),
        None => None,
    };
    let useful = !making.aggregates.is_empty() || !making.keys.is_empty();
    useful.then(|| Plan {
        keys: making.keys,
        aggregates: making.aggregates,
        items,
        distinct: parts.distinct,
        body: (parts.from, parts.body_end),
        filter: parts.filter,
        anchor,
        group,
        having,
        order,
        tail: (parts.tail, t.len()),
    })
}

struct Making<'m> {
    t: &'m Tokens<'m>,
    known: &'m [Known],
    keys: Vec<(usize, usize)>,
    aggregates: Vec<Aggregate>,
}

/// A column by the relation it belongs to, if that is clear.
type Identity = (Option<Box<str>>, Box<str>);

impl Making<'_> {
    /// An item of GROUP BY.
    fn key(&mut self, start: usize, end: usize, list: &[(usize, usize, bool)]) -> Option<()> {
        let mut found = (start, end);
        if let Some(Kind::Literal(_, LiteralKind::Integer)) = self.t.kind(start)
            && end == start + 1
        {
            let digits = std::str::from_utf8(self.t.bytes(start)).ok()?;
            let place = digits.parse::<usize>().ok()?.checked_sub(1)?;
            found = list.get(place).map(|(start, end, _)| (*start, *end))?;
        } else if end == start + 1
            && let Some(name) = self.t.name(start)
            && self.owners(&name) == 0
        {
            // An output column's name.
            let mut named = list.iter().filter(|(_, end, named)| {
                let at = end + usize::from(self.t.is_word(*end, "as"));
                *named && self.t.name(at).as_deref() == Some(&*name)
            });
            found = named.next().map(|(start, end, _)| (*start, *end))?;
            if named.next().is_some() {
                return None;
            }
        }
        let row =
            self.t.is_punct(found.0, "(") && (found.0..found.1).any(|i| self.t.is_punct(i, ","));
        if row || (found.0..found.1).any(|i| is_aggregate_at(self.t, i)) {
            return None;
        }
        self.keys.push(found);
        Some(())
    }

    /// The columns in grouping sets, which are nothing but columns.
    fn set_columns(&mut self, start: usize, end: usize) -> Option<()> {
        let mut i = start;
        while i < end {
            let word = self.t.name(i);
            let syntax = ["rollup", "cube", "grouping", "sets"];
            if let Some((identity, next)) = self.column(i, end) {
                let known = |key: &(usize, usize)| {
                    self.column(key.0, key.1).is_some_and(|(other, _)| other == identity)
                };
                if !self.keys.iter().any(known) {
                    self.keys.push((i, next));
                }
                i = next;
            } else if word.as_deref().is_some_and(|word| syntax.contains(&word))
                || ["(", ")", ","].iter().any(|punct| self.t.is_punct(i, punct))
            {
                i += 1;
            } else {
                return None;
            }
        }
        Some(())
    }

    /// How many relations have a column of this name.
    fn owners(&self, name: &str) -> usize {
        let has = |one: &&Known| one.columns.iter().any(|column| **column == *name);
        self.known.iter().filter(has).count()
    }

    /// The column whose name begins at `i`, and the token behind it.
    fn column(&self, i: usize, end: usize) -> Option<(Identity, usize)> {
        let first = self.t.name(i)?;
        let behind = i > 0 && (self.t.is_punct(i - 1, ".") || self.t.is_punct(i - 1, "::"));
        if behind {
            return None;
        }
        if i + 4 < end && self.t.is_punct(i + 1, ".") && self.t.is_punct(i + 3, ".") {
            let table = self.t.name(i + 2)?;
            let name = self.t.name(i + 4)?;
            let one = self.known.iter().find(|one| *one.alias == *table)?;
            let ours = one.columns.contains(&name) && !self.t.is_punct(i + 5, ".");
            return ours.then(|| ((Some(table), name), i + 5));
        }
        if i + 2 < end && self.t.is_punct(i + 1, ".") {
            let name = self.t.name(i + 2)?;
            let one = self.known.iter().find(|one| *one.alias == *first)?;
            let ours = one.columns.contains(&name) && !self.t.is_punct(i + 3, ".");
            return ours.then(|| ((Some(first), name), i + 3));
        }
        if self.t.is_punct(i + 1, "(") {
            return None;
        }
        let mut owners = self.known.iter().filter(|one| one.columns.contains(&first));
        let owner = owners.next()?;
        let alias = owners.next().is_none().then(|| owner.alias.clone());
        Some(((alias, first), i + 1))
    }

    /// An expression over groups: aggregates and keys are replaced; a column
    /// that is no key belongs to no group.
    fn pieces(&mut self, start: usize, end: usize) -> Option<Vec<Piece>> {
        let mut out: Vec<Piece> = Vec::new();
        let mut i = start;
        let mut text = start;
        while i < end {
            let (piece, next) = if is_aggregate_at(self.t, i) {
                let (number, next) = self.aggregate(i, end)?;
                (Piece::Aggregate(number), next)
            } else if let Some((key, next)) = self.key_at(i, start, end) {
                (Piece::Key(key), next)
            } else if self.column(i, end).is_some() || self.t.is_operator(i, "*") && i == start {
                return None;
            } else {
                i += 1;
                continue;
            };
            if text < i {
                out.push(Piece::Text(text, i));
            }
            out.push(piece);
            i = next;
            text = next;
        }
        if text < end {
            out.push(Piece::Text(text, end));
        }
        Some(out)
    }

    /// The key whose expression stands at `i` as a whole.
    fn key_at(&self, i: usize, start: usize, end: usize) -> Option<(usize, usize)> {
        let here = self.column(i, end);
        for (number, key) in self.keys.iter().enumerate() {
            let len = key.1 - key.0;
            if let Some((own, own_end)) = self.column(key.0, key.1)
                && own_end == key.1
            {
                if let Some((identity, next)) = &here
                    && *identity == own
                {
                    return Some((number, *next));
                }
                continue;
            }
            let next = i + len;
            let same =
                next <= end && (0..len).all(|n| self.t.bytes(i + n) == self.t.bytes(key.0 + n));
            let opens = i == start || self.t.is_punct(i - 1, "(") || self.t.is_punct(i - 1, ",");
            let closes = next == end || self.t.is_punct(next, ")") || self.t.is_punct(next, ",");
            let call = self.t.is_punct(key.0 + 1, "(") && self.t.after_parens(key.0 + 1) == key.1;
            let plain = i == start || !self.t.is_punct(i - 1, ".");
            if same && (opens && closes || call && plain) {
                return Some((number, next));
            }
        }
        None
    }

    fn aggregate(&mut self, at: usize, end: usize) -> Option<(usize, usize)> {
        let name = self.t.name(at)?;
        let kind = match &*name {
            "count" => Combine::Count,
            "sum" => Combine::Sum,
            "avg" => Combine::Average,
            other => Combine::Same(SAME.iter().copied().find(|one| *one == other)?),
        };
        let mut after = self.t.after_parens(at + 1);
        let mut depth = 0_usize;
        for i in at + 1..after {
            depth += usize::from(self.t.is_punct(i, "("));
            depth = depth.saturating_sub(usize::from(self.t.is_punct(i, ")")));
            let order = depth == 1 && self.t.are_words(i, &["order", "by"]);
            if order || self.t.is_word(i, "distinct") && i == at + 2 || is_aggregate_at(self.t, i) {
                return None;
            }
        }
        if self.t.is_word(after, "filter") && self.t.is_punct(after + 1, "(") {
            after = self.t.after_parens(after + 1);
        }
        if after > end || self.t.is_word(after, "within") {
            return None;
        }
        let found = Aggregate { kind, name: at, end: after };
        let same = |one: &Aggregate| {
            one.end - one.name == after - at
                && (0..after - at).all(|n| self.t.bytes(one.name + n) == self.t.bytes(at + n))
        };
        let number = self.aggregates.iter().position(same).unwrap_or(self.aggregates.len());
        if number == self.aggregates.len() {
            self.aggregates.push(found);
        }
        Some((number, after))
    }

    /// ORDER BY: a bare name is first of all an output column's.
    fn order(&mut self, start: usize, end: usize) -> Option<Vec<Piece>> {
        let mut out = Vec::new();
        for (number, (start, end)) in ranges(self.t, start, end).into_iter().enumerate() {
            if number > 0 {
                // The comma between the two.
                out.push(Piece::Text(start - 1, start));
            }
            let direction = ["asc", "desc", "nulls"].iter().any(|w| self.t.is_word(start + 1, w));
            match self.t.name(start) {
                Some(_) if end == start + 1 || direction => {
                    let other = match self.key_at(start, start, start + 1) {
                        Some((key, _)) => Piece::Key(key),
                        None => Piece::Text(start, start + 1),
                    };
                    out.push(Piece::Output(start, Box::new(other)));
                    if start + 1 < end {
                        out.push(Piece::Text(start + 1, end));
                    }
                }
                Some(_) | None => out.extend(self.pieces(start, end)?),
            }
        }
        Some(out)
    }
}

/// The items of a list, as ranges of tokens.
fn ranges(t: &Tokens<'_>, start: usize, end: usize) -> Vec<(usize, usize)> {
    let mut at = start;
    split(&t.slice(start, end))
        .iter()
        .map(|item| {
            let range = (at, at + item.len());
            at = range.1 + 1;
            range
        })
        .collect()
}

/// An item of the select list without its name, and whether it has one.
fn label(t: &Tokens<'_>, start: usize, end: usize) -> (usize, usize, bool) {
    let named = end >= start + 3 && t.is_word(end - 2, "as") && t.name(end - 1).is_some();
    let bare = end >= start + 2
        && t.name(end - 1).is_some()
        && (t.is_punct(end - 2, ")") || t.name(end - 2).is_some() && end == start + 2)
        && !t.is_word(start, "case")
        && !["end", "null", "true", "false"].iter().any(|word| t.is_word(end - 1, word));
    match (named, bare) {
        (true, _) => (start, end - 2, true),
        (false, true) => (start, end - 1, true),
        (false, false) => (start, end, false),
    }
}

fn is_sets(t: &Tokens<'_>, start: usize, end: usize) -> bool {
    (start..end).any(|i| {
        t.are_words(i, &["grouping", "sets"])
            || (t.is_word(i, "rollup") || t.is_word(i, "cube")) && t.is_punct(i + 1, "(")
            || t.is_punct(i, "(")
                && t.is_punct(i + 1, ")")
                && (i == start || t.is_punct(i - 1, ","))
    })
}

fn is_aggregate_at(t: &Tokens<'_>, i: usize) -> bool {
    t.kind(i) == Some(Kind::Plain(TokenKind::Word))
        && t.is_punct(i + 1, "(")
        && !(i > 0 && t.is_punct(i - 1, "."))
        && t.name(i).is_some_and(|name| words::is_aggregate(&name))
}

impl Plan {
    /// The texts of a statement that has the normal form that was taken apart.
    pub(super) fn of(&self, t: &Tokens<'_>) -> Partial {
        let text = |start: usize, end: usize| t.slice(start, end).span().of(t.text);
        let mut columns: Vec<Vec<u8>> =
            self.keys.iter().map(|(start, end)| text(*start, *end).to_vec()).collect();
        for one in &self.aggregates {
            let rest = text(one.name + 1, one.end);
            let names: &[&str] = match one.kind {
                Combine::Average => &["pg_catalog.sum", "pg_catalog.count"],
                Combine::Count | Combine::Sum | Combine::Same(_) => &[""],
            };
            for name in names {
                let own = if name.is_empty() { t.bytes(one.name) } else { name.as_bytes() };
                columns.push([own, rest].concat());
            }
        }
        // A comment at an expression's end would swallow the comma.
        let mut query = b"SELECT ".to_vec();
        query.extend_from_slice(&columns.join(&b"\n, "[..]));
        query.push(b'\n');
        let start = t.slice(self.body.0, self.body.1).span().start;
        let shifted = |token: usize| {
            let end = t.slice(self.body.0, token).span().end;
            query.len() + usize::try_from(end.saturating_sub(start)).unwrap_or(0)
        };
        let gap = Gap {
            anchor: self.anchor.clone(),
            at: shifted(self.filter.map_or(self.body.1, |at| at + 1)),
            end: self.filter.map(|_| shifted(self.body.1)),
        };
        query.extend_from_slice(text(self.body.0, self.body.1));
        if !self.keys.is_empty() {
            let places: Vec<String> = (1..=self.keys.len()).map(|n| n.to_string()).collect();
            query.extend_from_slice(format!("\nGROUP BY {}", places.join(", ")).as_bytes());
        }
        let used = |start: usize, end: usize| (start..end).any(|i| t.param(i).is_some());
        let params = used(self.body.0, self.body.1)
            || self.keys.iter().any(|(start, end)| used(*start, *end))
            || self.aggregates.iter().any(|one| used(one.name, one.end));
        let parts = |pieces: &[Piece]| pieces.iter().map(|piece| part(piece, t)).collect();
        Partial {
            query: query.into(),
            gap,
            params,
            keys: self.keys.len(),
            combine: self.aggregates.iter().map(|one| one.kind).collect(),
            items: self.items.iter().map(|item| (parts(&item.pieces), item.named)).collect(),
            distinct: self.distinct,
            group: match &self.group {
                Group::None => None,
                Group::Keys => Some(
                    (0..self.keys.len())
                        .flat_map(|key| {
                            let comma = (key > 0).then(|| Part::Text(b", ".as_slice().into()));
                            comma.into_iter().chain([Part::Key(key)])
                        })
                        .collect(),
                ),
                Group::Sets(pieces) => Some(parts(pieces)),
            },
            having: self.having.as_deref().map(parts),
            order: self.order.as_deref().map(parts),
            tail: text(self.tail.0, self.tail.1).into(),
        }
    }
}

fn part(piece: &Piece, t: &Tokens<'_>) -> Part {
    match piece {
        Piece::Text(start, end) => Part::Text(t.slice(*start, *end).span().of(t.text).into()),
        Piece::Key(key) => Part::Key(*key),
        Piece::Aggregate(number) => Part::Aggregate(*number),
        Piece::Output(at, other) => {
            Part::Output(t.name(*at).unwrap_or_default(), Box::new(part(other, t)))
        }
    }
}

impl Partial {
    /// What every shard is asked.
    pub fn query(&self) -> &[u8] {
        &self.query
    }

    /// The same without rows that a shard does not own.
    pub fn query_without(&self, foreign: Option<&Foreign>) -> Cow<'_, [u8]> {
        match foreign {
            None => Cow::Borrowed(&self.query),
            Some(foreign) => Cow::Owned(self.gap.filled(&self.query, foreign)),
        }
    }

    /// Whether the query uses the client's parameters.
    pub const fn has_params(&self) -> bool {
        self.params
    }

    fn columns(&self) -> usize {
        let counts = self.combine.iter().filter(|one| **one == Combine::Average).count();
        self.keys + self.combine.len() + counts
    }

    /// A query of one row: as many NULLs as the shards' rows have columns, then
    /// for each of them its type and collation in words. Nothing is read.
    pub fn types_query(&self) -> Vec<u8> {
        types_of(&self.query, self.columns())
    }

    /// The statement that combines the shards' rows; the array of each column
    /// is a parameter behind the client's `params`. `names` are the answer's
    /// columns. `None` if some type can't be combined or brought here.
    pub fn statement(
        &self,
        params: usize,
        names: &[&[u8]],
        columns: &[PartialColumn],
    ) -> Option<Vec<u8>> {
        if columns.len() != self.columns() || names.len() != self.items.len() {
            return None;
        }
        let mut combined = Vec::new();
        let mut at = self.keys;
        for combine in &self.combine {
            combined.push(combine.expression(at, columns)?);
            at += if *combine == Combine::Average { 2 } else { 1 };
        }
        let mut out = Out { bytes: Vec::new(), combined: &combined, names };
        out.text(if self.distinct { b"SELECT DISTINCT " } else { b"SELECT " });
        for (number, ((parts, named), name)) in self.items.iter().zip(names).enumerate() {
            out.text(if number == 0 { b"" } else { b", " });
            out.parts(parts);
            if !named {
                let name = String::from_utf8_lossy(name).replace('"', "\"\"");
                out.text(format!(" AS \"{name}\"").as_bytes());
            }
        }
        out.text(columns_from(params, columns)?.as_bytes());
        for (word, parts) in
            [(" GROUP BY ", &self.group), (" HAVING ", &self.having), (" ORDER BY ", &self.order)]
        {
            if let Some(parts) = parts {
                out.text(word.as_bytes());
                out.parts(parts);
            }
        }
        out.text(b"\n");
        out.text(&self.tail);
        Some(out.bytes)
    }
}

/// A query of one row that tells the types of the `count` columns of `query`.
pub(super) fn types_of(query: &[u8], count: usize) -> Vec<u8> {
    let names: Vec<String> = (1..=count).map(|n| format!("c{n}")).collect();
    let mut out = b"SELECT x.*".to_vec();
    for name in &names {
        // Neither arrays nor rows without a type of their own can be
        // elements of an array here.
        let said = format!(
            ", (SELECT pg_catalog.quote_ident(n.nspname) || '.' || \
             pg_catalog.quote_ident(t.typname) FROM pg_catalog.pg_type t JOIN \
             pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = \
             pg_catalog.pg_typeof(x.{name}) AND t.typcategory <> 'A' AND t.typtype <> 'p'), \
             pg_catalog.pg_collation_for(x.{name}::pg_catalog.text)"
        );
        out.extend_from_slice(said.as_bytes());
    }
    out.extend_from_slice(b" FROM (SELECT 1) AS one LEFT JOIN (");
    out.extend_from_slice(query);
    out.extend_from_slice(format!("\n) AS x ({}) ON false", names.join(", ")).as_bytes());
    out
}

/// The shards' rows as a table: the arrays' elements with their modifiers and
/// collations.
pub(super) fn columns_from(params: usize, columns: &[PartialColumn]) -> Option<String> {
    let mut shown = Vec::new();
    let mut arrays = Vec::new();
    let mut names = Vec::new();
    for (number, column) in (1..).zip(columns) {
        let name = format!("c{number}");
        let cast = modified(column)?;
        let collated = match (&column.collation, TEXTS.contains(&column.oid)) {
            (Some(collation), _) if collation != "\"default\"" => format!(" COLLATE {collation}"),
            (Some(_), _) | (None, false) => String::new(),
            (None, true) => return None,
        };
        if column.type_name.is_empty() {
            return None;
        }
        shown.push(format!("u.{name}{cast}{collated} AS {name}"));
        let array = format!("${}::{}[]", params + number, column.type_name);
        arrays.push(format!("pg_catalog.unnest({array})"));
        names.push(name);
    }
    if columns.is_empty() {
        return None;
    }
    Some(format!(
        " FROM (SELECT {} FROM ROWS FROM ({}) AS u ({})) AS keyway",
        shown.join(", "),
        arrays.join(", "),
        names.join(", ")
    ))
}

/// A cast to the column's type with its modifier; empty without one.
fn modified(column: &PartialColumn) -> Option<String> {
    let modifier = column.modifier;
    if modifier < 0 {
        return Some(String::new());
    }
    Some(match column.oid {
        1043 => format!("::pg_catalog.varchar({})", modifier.checked_sub(4)?),
        1042 => format!("::pg_catalog.bpchar({})", modifier.checked_sub(4)?),
        1114 => format!("::timestamp({modifier})"),
        1184 => format!("::timestamp({modifier}) with time zone"),
        1700 => {
            let both = modifier.checked_sub(4)?;
            // A scale of eleven bits, with a sign.
            let scale = ((both & 0x7FF) ^ 1024) - 1024;
            format!("::pg_catalog.numeric({}, {scale})", (both >> 16) & 0xFFFF)
        }
        _ => return None,
    })
}

struct Out<'o> {
    bytes: Vec<u8>,
    combined: &'o [String],
    names: &'o [&'o [u8]],
}

impl Out<'_> {
    fn text(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
    }

    fn parts(&mut self, parts: &[Part]) {
        for part in parts {
            self.part(part);
            self.text(b" ");
        }
    }

    fn part(&mut self, part: &Part) {
        match part {
            Part::Text(text) => {
                self.bytes.extend_from_slice(text);
                self.bytes.push(b'\n');
            }
            Part::Key(key) => self.text(format!("keyway.c{}", key + 1).as_bytes()),
            Part::Aggregate(number) => {
                let expression = self.combined.get(*number).map_or("NULL", String::as_str);
                self.bytes.extend_from_slice(expression.as_bytes());
            }
            Part::Output(name, other) => {
                if self.names.contains(&name.as_bytes()) {
                    let name = name.replace('"', "\"\"");
                    self.text(format!("\"{name}\"").as_bytes());
                } else {
                    self.part(other);
                }
            }
        }
    }
}

impl Combine {
    /// The expression over the column at `at`, by the type that it has.
    fn expression(self, at: usize, columns: &[PartialColumn]) -> Option<String> {
        let oid = columns.get(at)?.oid;
        let column = format!("keyway.c{}", at + 1);
        let sum = format!("pg_catalog.sum({column})");
        Some(match self {
            Self::Count => format!("(coalesce({sum}, 0)::pg_catalog.int8)"),
            Self::Sum => match oid {
                INT8 => format!("({sum}::pg_catalog.int8)"),
                NUMERIC | FLOAT4 | FLOAT8 | INTERVAL | MONEY => sum,
                _ => return None,
            },
            Self::Average => {
                let count = format!("nullif(pg_catalog.sum(keyway.c{}), 0)", at + 2);
                match oid {
                    INT8 | NUMERIC => format!("({sum} / {count})"),
                    FLOAT8 | INTERVAL => format!("({sum} / {count}::pg_catalog.float8)"),
                    _ => return None,
                }
            }
            Self::Same(name) => format!("pg_catalog.{name}({column})"),
        })
    }
}

/// Functions of which a group's value is that of its parts' values.
const SAME: &[&str] =
    &["min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor", "any_value"];
const INT8: u32 = 20;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const MONEY: u32 = 790;
const INTERVAL: u32 = 1186;
const NUMERIC: u32 = 1700;
/// Types whose values have a collation.
const TEXTS: [u32; 3] = [25, 1042, 1043];
