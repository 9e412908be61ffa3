//! The clauses of one SELECT, as ranges of tokens.
//!
//! The words that open clauses are reserved: outside parentheses they are
//! nothing else, unless they follow AS or a dot.

use crate::sql::literal::LiteralKind;
use crate::sql::token::{Kind, Tokens};

use super::{Count, several_shards};
use crate::route::RouteError;

/// Where the clauses of a SELECT stand.
pub(super) struct Clauses {
    /// The first token of the select list.
    pub(super) list: usize,
    /// FROM.
    pub(super) from: usize,
    /// WHERE.
    pub(super) filter: Option<usize>,
    /// One past the last token of FROM and WHERE.
    pub(super) body_end: usize,
    /// The items of GROUP BY.
    pub(super) group: Option<(usize, usize)>,
    /// The items of ORDER BY.
    pub(super) order: Option<(usize, usize)>,
    /// The first token of LIMIT, OFFSET or FETCH, or one past the last token.
    pub(super) tail: usize,
    pub(super) limit: Option<CountAt>,
    pub(super) offset: Option<CountAt>,
}

/// A number of rows, and the tokens that it stands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountAt {
    pub(super) count: Count,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Clauses {
    /// Reads the clauses of a statement that is one SELECT.
    pub(super) fn read(t: &Tokens<'_>) -> Result<Self, RouteError> {
        if !t.is_word(0, "select") {
            return Err(several_shards(
                "a statement that does not begin with SELECT",
                "write it as a plain SELECT, or fix the sharding key",
            ));
        }
        let found = Openings::read(t)?;
        let from = found
            .from
            .ok_or_else(|| several_shards("a SELECT without FROM", "name the tables in FROM"))?;
        let tail = found.tail.unwrap_or(t.len());
        let list = if t.is_word(1, "all") { 2 } else { 1 };
        if t.is_word(list, "distinct") {
            return Err(several_shards("SELECT DISTINCT", "fix the sharding key"));
        }
        if list >= from {
            return Err(several_shards("an empty select list", "select a column"));
        }
        let end_of = |start: usize| {
            let later = [found.group, found.having, found.order, Some(tail)];
            later.into_iter().flatten().filter(|at| *at > start).min().unwrap_or(t.len())
        };
        if found.having.is_some() && found.group.is_none() {
            return Err(several_shards("HAVING without GROUP BY", "fix the sharding key"));
        }
        let group = found.group.map(|at| (at + 2, end_of(at)));
        let order = found.order.map(|at| (at + 2, end_of(at)));
        let (limit, offset) = counts(t, tail)?;
        let (filter, body_end) = (found.filter, end_of(from));
        Ok(Self { list, from, filter, body_end, group, order, tail, limit, offset })
    }
}

/// The same of a SELECT with any GROUP BY, HAVING, DISTINCT and LIMIT.
pub(super) struct Parts {
    /// The first token of the select list.
    pub(super) list: usize,
    pub(super) distinct: bool,
    pub(super) from: usize,
    /// WHERE.
    pub(super) filter: Option<usize>,
    /// One past the last token of FROM and WHERE.
    pub(super) body_end: usize,
    pub(super) group: Option<(usize, usize)>,
    pub(super) having: Option<(usize, usize)>,
    pub(super) order: Option<(usize, usize)>,
    pub(super) tail: usize,
}

impl Parts {
    /// Reads the clauses of a statement that is one SELECT; `None` if they are
    /// of another form.
    pub(super) fn read(t: &Tokens<'_>) -> Option<Self> {
        let found = Openings::read(t).ok().filter(|_| t.is_word(0, "select"))?;
        let from = found.from?;
        let tail = found.tail.unwrap_or(t.len());
        let distinct = t.is_word(1, "distinct");
        let list = 1 + usize::from(distinct || t.is_word(1, "all"));
        if list >= from || distinct && t.is_word(list, "on") {
            return None;
        }
        let end_of = |start: usize| {
            let later = [found.group, found.having, found.order, Some(tail)];
            later.into_iter().flatten().filter(|at| *at > start).min().unwrap_or(t.len())
        };
        Some(Self {
            list,
            distinct,
            from,
            filter: found.filter,
            body_end: end_of(from),
            group: found.group.map(|at| (at + 2, end_of(at))),
            having: found.having.map(|at| (at + 1, end_of(at))),
            order: found.order.map(|at| (at + 2, end_of(at))),
            tail,
        })
    }
}

/// Tokens that open clauses.
#[derive(Default)]
struct Openings {
    from: Option<usize>,
    filter: Option<usize>,
    group: Option<usize>,
    having: Option<usize>,
    order: Option<usize>,
    tail: Option<usize>,
}

impl Openings {
    fn read(t: &Tokens<'_>) -> Result<Self, RouteError> {
        let mut found = Self::default();
        let mut depth = 0_usize;
        for i in 1..t.len() {
            if t.is_punct(i, "(") || t.is_punct(i, "[") {
                depth += 1;
            } else if t.is_punct(i, ")") || t.is_punct(i, "]") {
                depth = depth.saturating_sub(1);
            } else if depth == 0 && !t.is_word(i - 1, "as") && !t.is_punct(i - 1, ".") {
                found.note(t, i)?;
            }
        }
        Ok(found)
    }

    fn note(&mut self, t: &Tokens<'_>, i: usize) -> Result<(), RouteError> {
        let slot = if t.is_word(i, "from") && !t.is_word(i - 1, "distinct") {
            &mut self.from
        } else if t.is_word(i, "where") {
            &mut self.filter
        } else if t.are_words(i, &["group", "by"]) {
            &mut self.group
        } else if t.is_word(i, "having") {
            &mut self.having
        } else if t.are_words(i, &["order", "by"]) {
            &mut self.order
        } else if ["limit", "offset", "fetch"].iter().any(|word| t.is_word(i, word)) {
            if self.tail.is_none() {
                self.tail = Some(i);
            }
            return Ok(());
        } else {
            return self.refuse(t, i);
        };
        match slot.replace(i) {
            None => Ok(()),
            Some(_) => Err(several_shards("a clause that stands twice", "fix the sharding key")),
        }
    }

    fn refuse(&self, t: &Tokens<'_>, i: usize) -> Result<(), RouteError> {
        const REFUSED: &[(&str, &str, &str)] = &[
            ("union", "UNION", "send the parts one by one"),
            ("intersect", "INTERSECT", "fix the sharding key"),
            ("except", "EXCEPT", "fix the sharding key"),
            ("window", "a window function", "fix the sharding key"),
            ("for", "FOR UPDATE or FOR SHARE", "fix the sharding key"),
            ("into", "SELECT INTO", "create the table, then insert the rows"),
        ];
        for (word, construct, hint) in REFUSED {
            if t.is_word(i, word) {
                return Err(several_shards(construct, hint));
            }
        }
        Ok(())
    }
}

/// The items of a list, without the commas between them.
pub(super) fn split<'a>(list: &Tokens<'a>) -> Vec<Tokens<'a>> {
    let mut items = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for i in 0..list.len() {
        if list.is_punct(i, "(") || list.is_punct(i, "[") {
            depth += 1;
        } else if list.is_punct(i, ")") || list.is_punct(i, "]") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && list.is_punct(i, ",") {
            items.push(list.slice(start, i));
            start = i + 1;
        }
    }
    items.push(list.from(start));
    items
}

type Counts = (Option<CountAt>, Option<CountAt>);

/// LIMIT, OFFSET and FETCH, in any order.
fn counts(t: &Tokens<'_>, tail: usize) -> Result<Counts, RouteError> {
    let (mut limit, mut offset) = (None, None);
    let mut at = tail;
    while at < t.len() {
        let odd = || {
            several_shards("LIMIT, OFFSET or FETCH of another form", "give a number or a parameter")
        };
        let end;
        if t.is_word(at, "limit") && limit.is_none() {
            if t.is_word(at + 1, "all") || t.is_word(at + 1, "null") {
                end = at + 2;
            } else {
                let count = number(t, at + 1).ok_or_else(odd)?;
                limit = Some(count);
                end = count.end;
            }
        } else if t.is_word(at, "offset") && offset.is_none() {
            let count = number(t, at + 1).ok_or_else(odd)?;
            offset = Some(count);
            let rows = t.is_word(count.end, "row") || t.is_word(count.end, "rows");
            end = count.end + usize::from(rows);
        } else if t.is_word(at, "fetch") && limit.is_none() {
            if !t.is_word(at + 1, "first") && !t.is_word(at + 1, "next") {
                return Err(odd());
            }
            let one = CountAt { count: Count::Number(1), start: at + 2, end: at + 2 };
            let count = number(t, at + 2).unwrap_or(one);
            let rows = t.is_word(count.end, "row") || t.is_word(count.end, "rows");
            if !rows || !t.is_word(count.end + 1, "only") {
                return Err(odd());
            }
            limit = Some(count);
            end = count.end + 2;
        } else {
            return Err(odd());
        }
        at = end;
    }
    Ok((limit, offset))
}

/// A number, or a parameter that may be cast to an integer type.
fn number(t: &Tokens<'_>, at: usize) -> Option<CountAt> {
    if let Some(Kind::Literal(_, LiteralKind::Integer)) = t.kind(at) {
        let digits = std::str::from_utf8(t.bytes(at)).ok()?;
        let number: u64 = digits.parse().ok()?;
        i64::try_from(number).ok()?;
        return Some(CountAt { count: Count::Number(number), start: at, end: at + 1 });
    }
    let count = Count::Param(t.param(at)?);
    if !t.is_punct(at + 1, "::") {
        return Some(CountAt { count, start: at, end: at + 1 });
    }
    let integer = ["int", "integer", "int4", "int8", "bigint", "int2", "smallint"];
    let is_integer = integer.iter().any(|word| t.is_word(at + 2, word));
    is_integer.then_some(CountAt { count, start: at, end: at + 3 })
}
