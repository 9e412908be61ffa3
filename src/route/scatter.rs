//! Reads over several shards whose answer is only concatenation, a merge by
//! ORDER BY, and LIMIT.
//!
//! The proof: one sharded relation, the anchor, gives each row of the join
//! exactly one of its rows, and every other sharded relation is tied to it by
//! its key, so that the rows that matter of it lie on the anchor's shard.
//! Then the join of the whole is the sum of the shards' joins; WHERE and the
//! select list work row by row; a group that holds the anchor's key lies on one
//! shard. What works on more than a row or such a group is refused by name.
//!
//! What the shards get is the client's text with pieces spliced in: the sort
//! keys behind its select list, and LIMIT with OFFSET added to it.
//!
//! It reads tokens, after the parser has found the relations; it does not know
//! columns, types or collations.

mod clauses;
mod filter;
mod items;
pub(crate) mod merge;
mod owned;
mod partial;
mod sorted;
mod words;

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use crate::shardmap::Table;
use crate::sql::shape::{Column, Relation, RelationKind, Shape, Test};
use crate::sql::token::{self, Tokens};

use super::error::RouteError;
use super::place::{self, Named, Sharded};
use super::planner::World;
use super::resolve;
use super::solve::{Solver, Spot};
use clauses::{Clauses, CountAt};
pub use merge::{Fragment, Merge};
use owned::{Anchor, Gap};
pub use owned::{Foreign, arrives};
pub use partial::{Combine, Partial, PartialColumn};
pub use sorted::Sorted;

/// What the shards of one read are sent, and how their rows become one result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scatter {
    text: Box<[u8]>,
    gap: Option<Gap>,
    keys: Box<[OrderKey]>,
    limit: Option<Count>,
    offset: Option<Count>,
    streams: bool,
    merge: Option<Box<Merge>>,
    sorted: Option<Box<Sorted>>,
    turned: Rc<Cell<bool>>,
}

/// What is proven of a read of several shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    /// Its rows are those of the shards, one after the other or in order.
    pub(crate) streams: bool,
    /// What tells the shard of a row that streams, if a name does.
    anchor: Option<Anchor>,
    /// One server can put its rows together.
    pub(crate) split: Option<Box<merge::Split>>,
    /// The router could not compare the rows of an earlier execution.
    pub(crate) turned: Rc<Cell<bool>>,
    /// The query that stands for a statement which has none.
    pub(crate) query: Option<Box<[u8]>>,
}

/// One expression of ORDER BY; the shards' rows carry its value in a column of
/// its own behind the client's. Behind all of them, unless it is `bytewise`,
/// stands a column that is `b` if the expression's collation compares bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderKey {
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST, whether said or meant.
    pub nulls_first: bool,
    /// A collation that compares bytes is named.
    pub bytewise: bool,
    /// It is this bare name, taken for an input column.
    pub input: Option<Box<str>>,
}

/// A number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// As written.
    Number(u64),
    /// The value of a parameter, by its zero-based index.
    Param(u16),
}

impl Scatter {
    /// A read that one shard answers whole.
    pub fn whole(text: &[u8]) -> Self {
        Self {
            text: text.into(),
            gap: None,
            keys: Box::default(),
            limit: None,
            offset: None,
            streams: true,
            merge: None,
            sorted: None,
            turned: Rc::default(),
        }
    }

    /// What each of them is sent that owns all its rows.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The same for one that may have rows which it does not own; `None` if
    /// they can't be left out.
    pub fn text_without(&self, foreign: Option<&Foreign>) -> Option<Cow<'_, [u8]>> {
        match (foreign, &self.gap) {
            (None, _) => Some(Cow::Borrowed(&self.text)),
            (Some(foreign), Some(gap)) => Some(Cow::Owned(gap.filled(&self.text, foreign))),
            (Some(_), None) => None,
        }
    }

    /// Whether rows that a shard does not own can be left out of what streams.
    pub const fn leaves_out(&self) -> bool {
        self.gap.is_some()
    }

    /// What their rows are sorted by; the last columns of each row.
    pub fn keys(&self) -> &[OrderKey] {
        &self.keys
    }

    /// LIMIT.
    pub const fn limit(&self) -> Option<Count> {
        self.limit
    }

    /// OFFSET.
    pub const fn offset(&self) -> Option<Count> {
        self.offset
    }

    /// Notes that the router can't compare the rows: later executions don't try.
    pub fn note_turned(&self) {
        self.turned.set(true);
    }

    /// Whether the shards' rows are the answer's.
    pub const fn streams(&self) -> bool {
        self.streams
    }

    /// How one server sorts what the shards have sorted and cut, if the router
    /// can't compare their rows.
    pub fn sorted(&self) -> Option<&Sorted> {
        self.sorted.as_deref()
    }

    /// What the shards are asked for, in words.
    pub fn sketch(&self) -> Vec<String> {
        match &self.merge {
            Some(merge) if !self.streams => merge.sketch(),
            Some(_) | None => vec![format!("rows: {}", String::from_utf8_lossy(&self.text))],
        }
    }

    /// How the answer is made of what the shards give.
    pub fn way(&self) -> &'static str {
        match &self.merge {
            _ if self.streams => "the router streams the shards' rows",
            Some(merge) if merge.partial().is_some() => "one shard combines the shards' parts",
            Some(_) | None => "one shard makes the answer of the shards' rows",
        }
    }

    /// How one server puts the answer together, if it can.
    pub fn merge(&self) -> Option<&Merge> {
        self.merge.as_deref()
    }
}

/// Proves that the rows of several shards make the answer of a SELECT, in one
/// way or in both.
///
/// # Errors
/// What stands in the way, by name.
pub(crate) fn prove(
    t: &Tokens<'_>,
    shape: &Shape,
    world: &World<'_>,
    otherwise: RouteError,
) -> Result<Proven, RouteError> {
    let streams = prove_streams(t, shape, world, otherwise);
    let known = resolve::known(world).is_some();
    match (streams, merge::split(t, shape, world)) {
        (Ok(anchor), split) => {
            let (split, turned) = (split.ok().map(Box::new), Rc::default());
            Ok(Proven { streams: true, anchor, split, turned, query: None })
        }
        (Err(_), Ok(split)) => {
            let (split, turned) = (Some(Box::new(split)), Rc::default());
            Ok(Proven { streams: false, anchor: None, split, turned, query: None })
        }
        (Err(error), Err(_)) if !known => Err(error),
        (Err(_), Err(error)) => Err(error),
    }
}

/// What the shards of a proven read are sent.
///
/// # Errors
/// Its constants make no LIMIT.
pub(crate) fn scatter(proven: &Proven, text: &[u8]) -> Result<Scatter, RouteError> {
    let text = proven.query.as_deref().unwrap_or(text);
    let merge = match &proven.split {
        Some(split) => Some(Box::new(split.of(text)?)),
        None => None,
    };
    let streamed = if proven.streams {
        spread(text, proven.anchor.as_ref())
    } else {
        Err(RouteError::SeveralShards)
    };
    match (streamed, merge) {
        (Ok(scatter), merge) => {
            let streams = !(proven.turned.get() && merge.is_some());
            let turned = Rc::clone(&proven.turned);
            Ok(Scatter { merge, streams, turned, ..scatter })
        }
        (Err(_), Some(merge)) => Ok(Scatter {
            text: merge.original().into(),
            gap: None,
            keys: Box::default(),
            limit: None,
            offset: None,
            streams: false,
            merge: Some(merge),
            sorted: None,
            turned: Rc::default(),
        }),
        (Err(error), None) => Err(error),
    }
}

/// Proves that the rows of several shards make the answer of a SELECT; what
/// tells the shard of a row, if a name does.
///
/// # Errors
/// `otherwise` if its relations are not tied together; what else stands in the
/// way, by name.
fn prove_streams(
    t: &Tokens<'_>,
    shape: &Shape,
    world: &World<'_>,
    otherwise: RouteError,
) -> Result<Option<Anchor>, RouteError> {
    let t = &bare(t);
    let [level] = &*shape.levels else { return Err(otherwise) };
    let derived = |one: &Relation| matches!(one.kind, RelationKind::Derived(_));
    if !shape.inserts.is_empty() || level.natural || level.relations.iter().any(derived) {
        return Err(otherwise);
    }
    check_tables(shape, world)?;
    let sharded = place::relations(shape, world, &mut place::Placed::default())?;
    let solver = Solver { shape, sharded, opaque: true, unnests: false };
    let Some(anchor) = anchor(&solver) else { return Err(otherwise) };
    let clauses = Clauses::read(t)?;
    words::check(t, &clauses)?;
    if let Some((start, end)) = clauses.group
        && !groups_by_key(&t.slice(start, end), anchor, shape)
    {
        return Err(several_shards(
            "GROUP BY without the sharding key",
            "group by the sharding key too, or fix its value",
        ));
    }
    items::check_places(t, &clauses)?;
    items::order(t, &clauses)?;
    checked_counts(t, &clauses)?;
    Ok(named(anchor, shape))
}

/// The key of `key`'s relation by its name, if only that has it.
fn named(key: &[Sharded<'_>], shape: &Shape) -> Option<Anchor> {
    let anchor = key.first()?;
    let relations = &shape.levels.get(anchor.level)?.relations;
    let own = relations.get(anchor.relation)?;
    let alias = own.alias.as_deref().unwrap_or(anchor.name);
    let has = |one: &&Relation| match (&one.alias, &one.kind) {
        (Some(other), _) | (None, RelationKind::Table { name: other, .. }) => **other == *alias,
        (None, _) => false,
    };
    let alone = relations.iter().filter(has).count() == 1;
    let columns = key.iter().map(|one| one.column);
    (alone && own.columns.is_empty()).then(|| Anchor::new(anchor.keyspace, alias, columns))
}

/// What the shards get of `text`, which was proven.
///
/// # Errors
/// Its constants make no LIMIT.
fn spread(text: &[u8], anchor: Option<&Anchor>) -> Result<Scatter, RouteError> {
    let list = token::tokens(text)?;
    let statements = token::statements(text, &list);
    let t = &bare(statements.first().ok_or(RouteError::SeveralShards)?);
    let clauses = Clauses::read(t)?;
    let order = items::order(t, &clauses)?;
    let sorted = sorted(t, &clauses, &order, anchor).map(Box::new);
    let (text, gap) = spliced(t, &clauses, &order, Behind::Witnesses, anchor);
    Ok(Scatter {
        text,
        gap,
        keys: order.into_iter().map(|one| one.key).collect(),
        limit: clauses.limit.map(|at| at.count),
        offset: clauses.offset.map(|at| at.count),
        sorted,
        turned: Rc::default(),
        streams: true,
        merge: None,
    })
}

/// The statement without the hints before it.
fn bare<'a>(t: &Tokens<'a>) -> Tokens<'a> {
    t.from(t.list.iter().take_while(|token| token.kind == token::Kind::Hint).count())
}

/// Besides sharded tables only those that are on every shard, and functions,
/// may take part.
fn check_tables(shape: &Shape, world: &World<'_>) -> Result<(), RouteError> {
    for relation in shape.levels.iter().flat_map(|level| &level.relations) {
        let RelationKind::Table { schema, name } = &relation.kind else { continue };
        match place::named(schema.as_deref(), name, world)? {
            Named::Listed(Table::Sharded { .. } | Table::Reference) => {}
            Named::Listed(Table::Single(_)) | Named::System => {
                return Err(several_shards(
                    "a table that is on one shard beside a sharded one",
                    "fix the sharding key, or read the tables one by one",
                ));
            }
        }
    }
    Ok(())
}

/// What tells the shard of a row of the only level, if its rows are those of the
/// shards' own joins.
fn ties_together(shape: &Shape, world: &World<'_>) -> Option<Anchor> {
    let [level] = &*shape.levels else { return None };
    let derived = |one: &Relation| matches!(one.kind, RelationKind::Derived(_));
    if !shape.inserts.is_empty() || level.natural || level.relations.iter().any(derived) {
        return None;
    }
    let sharded = place::relations(shape, world, &mut place::Placed::default()).ok()?;
    named(anchor(&Solver { shape, sharded, opaque: true, unnests: false })?, shape)
}

/// The key columns of the relation that the others are tied to: no join adds rows
/// without one of its own.
fn anchor<'s, 'a>(solver: &'s Solver<'a>) -> Option<&'s [Sharded<'a>]> {
    let relations = &solver.shape.levels.first()?.relations;
    let found = (0..solver.sharded.len()).find(|at| {
        let one = &solver.sharded[*at];
        let firm = relations.get(one.relation).is_some_and(|r| !r.nullable && !r.hidden);
        let alike = solver.sharded.iter().all(|other| other.keyspace == one.keyspace);
        one.part == 0 && firm && alike && ties_all(solver, *at)
    })?;
    let parts = solver.sharded.get(found)?.parts;
    solver.sharded.get(found..found + parts)
}

/// Whether all sharded relations are tied to that of `anchor` by equalities of
/// keys, column by column.
fn ties_all(solver: &Solver<'_>, anchor: usize) -> bool {
    let mut tied = vec![false; solver.sharded.len()];
    let parts = solver.sharded.get(anchor).map_or(0, |one| one.parts);
    for own in tied.iter_mut().skip(anchor).take(parts) {
        *own = true;
    }
    let part = |at: usize| solver.sharded.get(at).map(|one| one.part);
    let Some(level) = solver.shape.levels.first() else { return false };
    let mut equalities = Vec::new();
    for condition in &level.conditions {
        collect(&condition.test, condition.restricts, &mut equalities);
    }
    let key = |column| match solver.resolve(column, 0) {
        Some(Spot::Key(at)) => Some(at),
        Some(Spot::Output { .. }) | None => None,
    };
    let mut changed = true;
    while changed {
        changed = false;
        for (left, right, (from, to)) in &equalities {
            let (Some(left), Some(right)) = (key(left), key(right)) else { continue };
            if part(left) != part(right) {
                continue;
            }
            for (at, by) in [(left, right), (right, left)] {
                let restricted =
                    solver.sharded.get(at).is_some_and(|one| (*from..*to).contains(&one.relation));
                let by_tied = tied.get(by).copied().unwrap_or(false);
                if let Some(mine) = tied.get_mut(at)
                    && restricted
                    && by_tied
                    && !*mine
                {
                    *mine = true;
                    changed = true;
                }
            }
        }
    }
    tied.iter().all(|one| *one)
}

/// The equalities of columns that all rows that matter meet.
fn collect<'t>(
    test: &'t Test,
    restricts: (usize, usize),
    found: &mut Vec<(&'t Column, &'t Column, (usize, usize))>,
) {
    match test {
        Test::Equal(left, right) => found.push((left, right, restricts)),
        Test::All(list) => list.iter().for_each(|one| collect(one, restricts, found)),
        Test::Among(..)
        | Test::AmongArray(..)
        | Test::Compare(..)
        | Test::Any(_)
        | Test::Unknown => {}
    }
}

/// Whether the anchor's key columns are items of GROUP BY.
fn groups_by_key(list: &Tokens<'_>, key: &[Sharded<'_>], shape: &Shape) -> bool {
    let Some(anchor) = key.first() else { return false };
    let Some(relation) =
        shape.levels.get(anchor.level).and_then(|level| level.relations.get(anchor.relation))
    else {
        return false;
    };
    if !relation.columns.is_empty() {
        return false;
    }
    let alias = relation.alias.as_deref().unwrap_or(anchor.name);
    let items = clauses::split(list);
    let is_item = |column: &str| {
        items.iter().any(|item| match item.len() {
            1 => item.name(0).as_deref() == Some(column),
            3 => {
                item.name(0).as_deref() == Some(alias)
                    && item.is_punct(1, ".")
                    && item.name(2).as_deref() == Some(column)
            }
            _ => false,
        })
    };
    key.iter().all(|one| is_item(one.column))
}

/// A parameter of LIMIT or OFFSET must have no other use: its type would not be
/// known.
fn checked_counts(t: &Tokens<'_>, clauses: &Clauses) -> Result<(), RouteError> {
    for at in [clauses.limit, clauses.offset].into_iter().flatten() {
        let Count::Param(index) = at.count else { continue };
        if (0..t.len()).filter(|i| t.param(*i) == Some(index)).count() > 1 {
            return Err(several_shards(
                "a parameter of LIMIT or OFFSET that is used elsewhere too",
                "use a parameter of its own",
            ));
        }
    }
    Ok(())
}

/// The first rows of a sort, to be sorted again by one server.
fn sorted(
    t: &Tokens<'_>,
    clauses: &Clauses,
    order: &[items::Order],
    anchor: Option<&Anchor>,
) -> Option<Sorted> {
    clauses.limit.filter(|_| !order.is_empty())?;
    let query = spliced(t, clauses, order, Behind::Version, anchor);
    let params = (0..t.len()).any(|i| t.param(i).is_some());
    let keys = order.iter().map(|one| one.key.clone()).collect();
    let tail = t.slice(clauses.tail, t.len()).span().of(t.text);
    Some(Sorted::new(query, params, keys, tail))
}

/// What stands behind the sort keys in a shard's rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// For each key whether its collation compares bytes.
    Witnesses,
    /// One value that tells how all are sorted.
    Version,
}

/// The text for the shards, and where a condition on the anchor's key goes.
fn spliced(
    t: &Tokens<'_>,
    clauses: &Clauses,
    order: &[items::Order],
    behind: Behind,
    anchor: Option<&Anchor>,
) -> (Box<[u8]>, Option<Gap>) {
    let limit = clauses.limit.map(|at| at.count);
    let offset = clauses.offset.map(|at| at.count);
    let span = t.span();
    let end_of = |token: usize| t.list.get(token).map_or(span.end, |one| one.end) as usize;
    let list_end = end_of(clauses.from.saturating_sub(1));
    let tail_start = clauses.tail.checked_sub(1).map_or(span.end as usize, end_of);
    let mut out = Vec::with_capacity(span.range().len() + 64);
    out.extend_from_slice(t.text.get(span.start as usize..list_end).unwrap_or_default());
    for (number, one) in order.iter().enumerate() {
        out.extend_from_slice(b", (");
        out.extend_from_slice(one.expression.of(t.text));
        // A comment at its end would swallow the parenthesis.
        out.extend_from_slice(format!("\n) AS \"keyway {}\"", number + 1).as_bytes());
    }
    if behind == Behind::Version {
        out.extend_from_slice(&sorted::version(order, t.text));
    }
    let witnessed = |one: &items::Order| behind == Behind::Witnesses && !one.key.bytewise;
    for (number, one) in order.iter().enumerate().filter(|(_, one)| witnessed(one)) {
        out.extend_from_slice(WITNESS_BEFORE.as_bytes());
        out.extend_from_slice(one.expression.of(t.text));
        out.extend_from_slice(WITNESS_AFTER.as_bytes());
        out.extend_from_slice(format!(" AS \"keyway {}b\"", number + 1).as_bytes());
    }
    let body_end = end_of(clauses.body_end.saturating_sub(1));
    let shifted = |at: usize| out.len() + at.saturating_sub(list_end);
    let gap = anchor.map(|anchor| Gap {
        anchor: anchor.clone(),
        at: shifted(clauses.filter.map_or(body_end, end_of)),
        end: clauses.filter.map(|_| shifted(body_end)),
    });
    out.extend_from_slice(t.text.get(list_end..tail_start).unwrap_or_default());
    let shown = |at: Option<CountAt>, count: Count| match count {
        Count::Number(number) => number.to_string(),
        Count::Param(_) => {
            let written = at.map_or(&b"NULL"[..], |at| t.slice(at.start, at.end).span().of(t.text));
            format!("({})::int8", String::from_utf8_lossy(written))
        }
    };
    match (limit, offset) {
        (None, None | Some(Count::Number(_))) => {}
        (None, Some(offset)) => {
            // No limit; but the parameter must stay one of the statement's.
            let offset = shown(clauses.offset, offset);
            out.extend_from_slice(format!("\nLIMIT NULL::int8 + {offset}").as_bytes());
        }
        (Some(Count::Number(a)), None | Some(Count::Number(_))) => {
            let b = match offset {
                Some(Count::Number(b)) => b,
                Some(Count::Param(_)) | None => 0,
            };
            // More rows than a server counts: the limit limits nothing.
            if let Some(sum) = a.checked_add(b).filter(|sum| i64::try_from(*sum).is_ok()) {
                out.extend_from_slice(format!("\nLIMIT {sum}").as_bytes());
            }
        }
        (Some(limit), None) => {
            out.extend_from_slice(format!("\nLIMIT {}", shown(clauses.limit, limit)).as_bytes());
        }
        (Some(limit), Some(offset)) => {
            let limit = shown(clauses.limit, limit);
            let offset = shown(clauses.offset, offset);
            let sum = format!("\nLIMIT {limit} + coalesce({offset}, 0)");
            out.extend_from_slice(sum.as_bytes());
        }
    }
    (out.into(), gap)
}

/// Whether a sort key's collation compares bytes: `b` if it does. The server
/// derives the collation of an expression when it reads it, so nothing of this
/// is computed for a row; a type without collations counts as the default one.
const WITNESS_BEFORE: &str = ", CASE pg_catalog.pg_collation_for(CASE WHEN false THEN (";
const WITNESS_AFTER: &str = "
)::pg_catalog.text END) WHEN '\"C\"' THEN 'b' WHEN '\"POSIX\"' THEN 'b' WHEN 'ucs_basic' THEN 'b' \
WHEN 'pg_c_utf8' THEN 'b' WHEN 'pg_unicode_fast' THEN 'b' WHEN '\"default\"' THEN (SELECT CASE \
WHEN d.datlocprovider = 'b' OR d.datlocprovider = 'c' AND d.datcollate IN ('C', 'POSIX') THEN 'b' \
END FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) END";

/// Refuses a construct that works on rows of several shards at once.
pub(super) fn several_shards(construct: &str, hint: &'static str) -> RouteError {
    RouteError::AcrossShards { construct: construct.into(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the shards get, without the witnesses, and the numbers of rows.
    fn check(text: &str, expected: &str, limit: Option<Count>, offset: Option<Count>) {
        let scatter = spread(text.as_bytes(), None).unwrap();
        let mut sent = String::from_utf8(scatter.text().to_vec()).unwrap();
        while let Some(start) = sent.find(WITNESS_BEFORE) {
            let tail = sent[start..].find(WITNESS_AFTER).unwrap() + start + WITNESS_AFTER.len();
            let end = sent[tail..].find("b\"").unwrap() + tail + 2;
            sent.replace_range(start..end, "");
        }
        assert_eq!(sent, expected);
        assert_eq!((scatter.limit(), scatter.offset()), (limit, offset), "{text}");
    }

    #[test]
    fn what_is_not_touched_stays_as_it_was_written() {
        check("SELECT a, b FROM t -- c", "SELECT a, b FROM t", None, None);
        check(" select * from t where x = '1' ;", "select * from t where x = '1'", None, None);
    }

    #[test]
    fn sort_keys_stand_behind_the_select_list() {
        let key = |n: u8, text: &str| format!(", ({text}\n) AS \"keyway {n}\"");
        for (text, keys) in [
            ("SELECT a FROM t ORDER BY a", vec!["a"]),
            ("SELECT a AS b FROM t ORDER BY b DESC", vec!["a"]),
            ("SELECT a + 1 b FROM t ORDER BY b, c", vec!["a + 1", "c"]),
            ("SELECT t.a FROM t ORDER BY (a)", vec!["t.a"]),
            ("SELECT x, lower(a) FROM t ORDER BY 2, lower, 1", vec!["lower(a)", "lower(a)", "x"]),
            ("SELECT * FROM t ORDER BY a NULLS FIRST", vec!["a"]),
            ("SELECT a AS from, b AS order FROM t ORDER BY b + a", vec!["b + a"]),
            ("SELECT a IS DISTINCT FROM b FROM t ORDER BY t.a", vec!["t.a"]),
        ] {
            let at = text.find(" FROM t").unwrap();
            let inserted: String =
                keys.iter().zip(1..).map(|(text, number)| key(number, text)).collect();
            let expected = format!("{}{inserted}{}", &text[..at], &text[at..]);
            check(text, &expected, None, None);
        }
    }

    #[test]
    fn shards_get_limit_and_offset_as_one_limit() {
        let number = |n| Some(Count::Number(n));
        let param = |n| Some(Count::Param(n));
        check("SELECT a FROM t LIMIT 3 OFFSET 4", "SELECT a FROM t\nLIMIT 7", number(3), number(4));
        check("SELECT a FROM t OFFSET 4 ROWS", "SELECT a FROM t", None, number(4));
        check("SELECT a FROM t FETCH FIRST ROW ONLY", "SELECT a FROM t\nLIMIT 1", number(1), None);
        check(
            "SELECT a FROM t LIMIT $1::int OFFSET $2",
            "SELECT a FROM t\nLIMIT ($1::int)::int8 + coalesce(($2)::int8, 0)",
            param(0),
            param(1),
        );
        // Every parameter must stay in the text.
        check(
            "SELECT a FROM t OFFSET $1",
            "SELECT a FROM t\nLIMIT NULL::int8 + ($1)::int8",
            None,
            param(0),
        );
        let most = i64::MAX;
        check(
            &format!("SELECT a FROM t LIMIT {most} OFFSET 1"),
            "SELECT a FROM t",
            number(u64::try_from(most).unwrap()),
            number(1),
        );
    }

    #[test]
    fn what_can_not_be_read_for_sure_is_refused() {
        for text in [
            "SELECT a::text FROM t ORDER BY a",
            "SELECT a AS b, c AS b FROM t ORDER BY b",
            "SELECT *, a FROM t ORDER BY 2",
            "SELECT a FROM t ORDER BY 2",
            "SELECT a FROM t ORDER BY 'x'",
            "SELECT a FROM t ORDER BY a USING >",
            "SELECT a FROM t LIMIT 1 + 1",
            "SELECT a FROM t FETCH FIRST 2 ROWS WITH TIES",
            "SELECT a FROM t UNION SELECT a FROM t",
            "SELECT DISTINCT a FROM t",
            "SELECT a FROM t FOR SHARE",
            "TABLE t",
        ] {
            assert!(spread(text.as_bytes(), None).is_err(), "{text}");
        }
    }
}
