//! ORDER BY, and what its items are in terms of the tables: the server looks a
//! bare name up among the output columns first, a number counts them, and
//! everything else is an expression over the tables.

use crate::sql::lex::TokenKind;
use crate::sql::literal::LiteralKind;
use crate::sql::statement::Span;
use crate::sql::token::{Kind, Tokens};

use super::clauses::{Clauses, split};
use super::{OrderKey, several_shards, words};
use crate::route::RouteError;

/// One item of ORDER BY.
pub(super) struct Order {
    pub(super) key: OrderKey,
    /// What it is sorted by, as an expression over the tables.
    pub(super) expression: Span,
}

/// One item of the select list.
enum Item<'a> {
    /// `*` or `t.*`.
    Star,
    /// A column, and its name.
    Column(Tokens<'a>, Box<str>),
    /// An expression with a name given to it.
    Named(Tokens<'a>, Box<str>),
    /// An expression whose name the server makes from the words in it.
    Unnamed(Tokens<'a>),
    /// An expression to which the server gives no name.
    Nameless(Tokens<'a>),
    /// An expression that may end with a name of its own.
    Unclear(Tokens<'a>),
}

/// The items of ORDER BY.
pub(super) fn order(t: &Tokens<'_>, clauses: &Clauses) -> Result<Vec<Order>, RouteError> {
    let Some((start, end)) = clauses.order else { return Ok(Vec::new()) };
    let list: Vec<Item<'_>> =
        split(&t.slice(clauses.list, clauses.from)).into_iter().map(item).collect();
    split(&t.slice(start, end)).iter().map(|one| sorted_by(one, &list)).collect()
}

fn sorted_by<'a>(one: &Tokens<'a>, list: &[Item<'a>]) -> Result<Order, RouteError> {
    let mut end = one.len();
    let mut nulls_first = None;
    if end >= 2 && one.is_word(end - 2, "nulls") {
        nulls_first = match (one.is_word(end - 1, "first"), one.is_word(end - 1, "last")) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        end -= 2;
    }
    let mut descending = false;
    if end >= 2 && (one.is_word(end - 1, "asc") || one.is_word(end - 1, "desc")) {
        descending = one.is_word(end - 1, "desc");
        end -= 1;
    }
    let mut expression = one.slice(0, end);
    // The server does not see parentheses around the whole.
    while expression.is_punct(0, "(") && expression.after_parens(0) == expression.len() {
        expression = expression.slice(1, expression.len().saturating_sub(1));
    }
    let using = (0..end).any(|i| one.is_word(i, "using"));
    if using || expression.list.is_empty() {
        return Err(several_shards("ORDER BY … USING", "use ASC or DESC"));
    }
    let (expression, input) = meant(expression, list)?;
    let key = OrderKey {
        descending,
        nulls_first: nulls_first.unwrap_or(descending),
        bytewise: is_bytewise(&expression),
        input,
    };
    Ok(Order { key, expression: expression.span() })
}

/// What an item sorts by, and its name if it was taken for an input column's.
fn meant<'a>(
    item: Tokens<'a>,
    list: &[Item<'a>],
) -> Result<(Tokens<'a>, Option<Box<str>>), RouteError> {
    let constant = || several_shards("ORDER BY a constant", "order by a column");
    if item.len() > 1 {
        return Ok((item, None));
    }
    match item.kind(0) {
        Some(Kind::Literal(_, LiteralKind::Integer)) => {
            let digits = std::str::from_utf8(item.bytes(0)).ok();
            let place = digits.and_then(|digits| digits.parse::<usize>().ok());
            let place = place.and_then(|place| place.checked_sub(1)).ok_or_else(constant)?;
            numbered(place, list).map(|expression| (expression, None))
        }
        Some(Kind::Plain(TokenKind::Word | TokenKind::Quoted)) => {
            let name = item.name(0).ok_or_else(constant)?;
            named(item, &name, list)
        }
        _ => Err(constant()),
    }
}

/// The output column in this place.
fn numbered<'a>(place: usize, list: &[Item<'a>]) -> Result<Tokens<'a>, RouteError> {
    let beyond = || {
        several_shards(
            "a place in ORDER BY or GROUP BY that * stands in or before, or that is not clear",
            "name the column",
        )
    };
    let mut found = None;
    for one in list.iter().take(place.saturating_add(1)) {
        found = match one {
            Item::Star | Item::Unclear(_) => return Err(beyond()),
            Item::Column(tokens, _)
            | Item::Named(tokens, _)
            | Item::Unnamed(tokens)
            | Item::Nameless(tokens) => Some(*tokens),
        };
    }
    found.filter(|_| place < list.len()).ok_or_else(beyond)
}

/// What a bare name means: an output column if one has the name, else an input
/// column.
fn named<'a>(
    item: Tokens<'a>,
    name: &str,
    list: &[Item<'a>],
) -> Result<(Tokens<'a>, Option<Box<str>>), RouteError> {
    let unclear = || {
        several_shards(
            "ORDER BY a name that several columns of the result may have",
            "qualify the column with its table, or give the output column another name",
        )
    };
    let mut found: Option<Tokens<'a>> = None;
    let (mut stars, mut unnamed) = (false, false);
    for one in list {
        match one {
            Item::Column(tokens, own) | Item::Named(tokens, own) if **own == *name => {
                if found.is_some_and(|other| !is_same(&other, tokens)) {
                    return Err(unclear());
                }
                found = Some(*tokens);
            }
            Item::Column(..) | Item::Named(..) | Item::Nameless(_) => {}
            Item::Star => stars = true,
            Item::Unnamed(tokens) | Item::Unclear(tokens) => {
                // The server may name it after any word in it.
                let mentions = (0..tokens.len()).any(|i| tokens.name(i).as_deref() == Some(name));
                if mentions {
                    return Err(unclear());
                }
                unnamed = true;
            }
        }
    }
    match found {
        // Another column of that name would make the name ambiguous, which
        // the server itself refuses.
        Some(tokens) => Ok((tokens, None)),
        None if stars && !unnamed => Ok((item, None)),
        None => Ok((item, Some(name.into()))),
    }
}

fn is_same(a: &Tokens<'_>, b: &Tokens<'_>) -> bool {
    a.len() == b.len() && (0..a.len()).all(|i| a.bytes(i) == b.bytes(i))
}

fn item(t: Tokens<'_>) -> Item<'_> {
    let len = t.len();
    if len > 0 && t.is_operator(len - 1, "*") && (len == 1 || t.is_punct(len - 2, ".")) {
        return Item::Star;
    }
    if let Some(name) = column(&t) {
        return Item::Column(t, name);
    }
    if len >= 3
        && t.is_word(len - 2, "as")
        && let Some(name) = t.name(len - 1)
    {
        return Item::Named(t.slice(0, len - 2), name);
    }
    match label(&t) {
        Label::Absent => {}
        Label::Given(name) => return Item::Named(t.slice(0, len.saturating_sub(1)), name),
        Label::Unclear => return Item::Unclear(t),
    }
    if let Some(name) = t.name(0)
        && t.kind(0) == Some(Kind::Plain(TokenKind::Word))
        && t.is_punct(1, "(")
        && t.after_parens(1) == len
        && words::names_its_column(&name)
    {
        return Item::Named(t, name);
    }
    if is_nameless(&t) { Item::Nameless(t) } else { Item::Unnamed(t) }
}

/// Refuses places in GROUP BY that the sort keys behind the select list would
/// give a meaning.
pub(super) fn check_places(t: &Tokens<'_>, clauses: &Clauses) -> Result<(), RouteError> {
    let Some((start, end)) = clauses.group else { return Ok(()) };
    let list: Vec<Item<'_>> =
        split(&t.slice(clauses.list, clauses.from)).into_iter().map(item).collect();
    for one in split(&t.slice(start, end)) {
        if let Some(Kind::Literal(..)) = one.kind(0)
            && one.len() == 1
        {
            let digits = std::str::from_utf8(one.bytes(0)).ok();
            let place = digits.and_then(|digits| digits.parse::<usize>().ok());
            numbered(place.and_then(|place| place.checked_sub(1)).unwrap_or(usize::MAX), &list)?;
        }
    }
    Ok(())
}

/// Whether an operator stands at the top of the expression: the server makes
/// no name of it. CASE has the name of its last branch, and AT TIME ZONE that
/// of a function.
fn is_nameless(t: &Tokens<'_>) -> bool {
    let mut depth = 0_usize;
    let mut operator = false;
    for i in 0..t.len() {
        if t.is_punct(i, "(") || t.is_punct(i, "[") {
            depth += 1;
        } else if t.is_punct(i, ")") || t.is_punct(i, "]") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 {
            if t.is_word(i, "case") || t.is_word(i, "at") {
                return false;
            }
            operator |= t.kind(i) == Some(Kind::Plain(TokenKind::Operator));
        }
    }
    operator
}

/// The name of a column, if that is all there is.
fn column(t: &Tokens<'_>) -> Option<Box<str>> {
    let len = t.len();
    let dots = (0..len).all(|i| (i % 2 == 1) == t.is_punct(i, "."));
    let names = (0..len).step_by(2).all(|i| t.name(i).is_some());
    if len % 2 == 1 && len <= 5 && dots && names { t.name(len - 1) } else { None }
}

/// A name given without AS.
enum Label {
    Absent,
    Given(Box<str>),
    /// The last word may be one, or end the expression.
    Unclear,
}

/// The name at the end, if the word before it ends an operand.
fn label(t: &Tokens<'_>) -> Label {
    let Some((last, before)) = t.len().checked_sub(1).zip(t.len().checked_sub(2)) else {
        return Label::Absent;
    };
    let Some(name) = t.name(last) else { return Label::Absent };
    let operand = match t.kind(before) {
        Some(Kind::Literal(..)) => true,
        Some(Kind::Plain(TokenKind::Word)) => !CONNECTORS.iter().any(|w| t.is_word(before, w)),
        Some(Kind::Plain(TokenKind::Quoted | TokenKind::UnicodeQuoted | TokenKind::Param)) => true,
        Some(Kind::Plain(TokenKind::Punct)) => t.is_punct(before, ")") || t.is_punct(before, "]"),
        Some(Kind::Plain(_) | Kind::Hint) | None => false,
    };
    let branch = t.is_word(0, "case") && t.is_word(last, "end");
    if !operand || branch {
        Label::Absent
    } else if ENDERS.iter().any(|word| t.is_word(last, word)) {
        Label::Unclear
    } else {
        Label::Given(name)
    }
}

/// Whether the expression ends with a collation that compares bytes.
fn is_bytewise(t: &Tokens<'_>) -> bool {
    let len = t.len();
    if len < 3 {
        return false;
    }
    let (word, name) = if len >= 5
        && t.is_word(len - 4, "collate")
        && t.name(len - 3).as_deref() == Some("pg_catalog")
        && t.is_punct(len - 2, ".")
    {
        (len - 4, len - 1)
    } else {
        (len - 2, len - 1)
    };
    let bytewise = ["C", "POSIX", "ucs_basic"];
    t.is_word(word, "collate") && t.name(name).is_some_and(|name| bytewise.contains(&&*name))
}

/// Words after which an operand is still to come.
const CONNECTORS: &[&str] = &[
    "and",
    "or",
    "not",
    "in",
    "like",
    "ilike",
    "between",
    "symmetric",
    "similar",
    "to",
    "escape",
    "collate",
    "zone",
    "is",
    "from",
    "distinct",
    "over",
    "else",
    "then",
    "when",
    "case",
    "any",
    "some",
    "all",
    "as",
    "interval",
    "at",
    "time",
    "timestamp",
    "with",
    "without",
    "date",
    "operator",
    "overlaps",
];

/// Words that end an expression and may be names too.
const ENDERS: &[&str] = &[
    "isnull",
    "notnull",
    "end",
    "precision",
    "varying",
    "zone",
    "null",
    "true",
    "false",
    "unknown",
    "document",
    "normalized",
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "local",
];
