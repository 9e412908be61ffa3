//! The parser crate's only door: tokens of one statement in, a [`Shape`] out.
//!
//! The parser never sees a client's constants. It reads the statement with each
//! constant replaced by its own number, so its tree says which constant stands
//! where, and its ideas about string escapes can't matter. Operators are given
//! to it one by one, as the server cuts them. What it can't read, and every part
//! of its tree that is not known here, is an error: nothing is skipped.

mod expr;
mod from;
mod query;

use std::fmt;

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::lex::TokenKind;
use super::literal::LiteralKind;
use super::shape::Shape;
use super::token::{Kind, Tokens};

/// Why a statement has no shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// The parser refused the text.
    Unread(Box<str>),
    /// A construct that is read but not understood.
    Construct(Box<str>),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread(reason) => f.write_str(reason),
            Self::Construct(construct) => f.write_str(construct),
        }
    }
}

/// Reads one statement.
///
/// # Errors
/// See [`ParseError`].
pub(crate) fn parse(tokens: &Tokens<'_>) -> Result<Shape, ParseError> {
    check_depth(tokens)?;
    let text = numbered(tokens)?;
    let unread = |error: sqlparser::parser::ParserError| {
        let reason = error.to_string();
        let reason = reason.strip_prefix("sql parser error: ").unwrap_or(&reason);
        let reason = reason.split(" at Line").next().unwrap_or(reason);
        ParseError::Unread(reason.into())
    };
    let dialect = PostgreSqlDialect {};
    let statements = Parser::parse_sql(&dialect, &text).map_err(unread)?;
    let [statement] = &*statements else {
        return Err(ParseError::Construct("more than one statement".into()));
    };
    let mut walk = Walk { shape: Shape::default(), ctes: Vec::new() };
    walk.statement(statement, None)?;
    Ok(walk.shape)
}

/// Refuses chains of operators so long that walking or dropping the tree, which
/// leans to one side, could exhaust the stack.
fn check_depth(t: &Tokens<'_>) -> Result<(), ParseError> {
    // How many operators each open parenthesis has seen since its last comma.
    let mut open = vec![0_usize];
    let mut depth = 0;
    for i in 0..t.len() {
        let links = t.kind(i) == Some(Kind::Plain(TokenKind::Operator))
            || ["::", "["].iter().any(|punct| t.is_punct(i, punct))
            || LINKS.iter().any(|word| t.is_word(i, word));
        if t.is_punct(i, "(") {
            open.push(0);
        } else if t.is_punct(i, ")") && open.len() > 1 {
            depth -= open.pop().unwrap_or(0);
        } else if t.is_punct(i, ",") {
            depth -= open.last_mut().map_or(0, std::mem::take);
        } else if links {
            depth += 1;
            if let Some(count) = open.last_mut() {
                *count += 1;
            }
            if depth > DEPTH_MAX {
                return Err(ParseError::Construct(
                    format!("an expression of more than {DEPTH_MAX} operators").into(),
                ));
            }
        }
    }
    Ok(())
}

/// The statement with each constant replaced by its number.
fn numbered(t: &Tokens<'_>) -> Result<String, ParseError> {
    let mut out = String::new();
    let mut i = 0;
    let mut end = 0;
    let mut after_operator = false;
    while let Some(token) = t.list.get(i) {
        let operator = token.kind == Kind::Plain(TokenKind::Operator);
        if token.start > end || operator || after_operator {
            out.push(' ');
        }
        after_operator = operator;
        end = token.end;
        match token.kind {
            Kind::Literal(n, LiteralKind::Integer) => out.push_str(&n.to_string()),
            Kind::Literal(n, LiteralKind::Numeric) => out.push_str(&format!("{n}.0")),
            Kind::Literal(n, _) => out.push_str(&format!("'{n}'")),
            Kind::Hint => {}
            Kind::Plain(TokenKind::UnicodeQuoted) => {
                return Err(ParseError::Construct("a name with Unicode escapes".into()));
            }
            Kind::Plain(_) if i == 0 && t.is_word(0, "table") => out.push_str("select * from"),
            Kind::Plain(_) if t.are_words(i, &["for", "no", "key", "update"]) => {
                out.push_str("for update");
                i += 3;
            }
            Kind::Plain(_) if t.are_words(i, &["for", "key", "share"]) => {
                out.push_str("for share");
                i += 2;
            }
            Kind::Plain(_) => {
                let bytes = t.bytes(i);
                if operator && bytes.contains(&b'=') && !COMPARISONS.contains(&bytes) {
                    return Err(ParseError::Construct("an operator that is not built in".into()));
                }
                out.push_str(&String::from_utf8_lossy(bytes));
            }
        }
        if let Some(last) = t.list.get(i) {
            end = end.max(last.end);
        }
        i += 1;
    }
    Ok(out)
}

/// Builds the shape; scopes of CTE names lie on `ctes`.
struct Walk {
    shape: Shape,
    ctes: Vec<Box<str>>,
}

fn construct<T>(what: &str) -> Result<T, ParseError> {
    Err(ParseError::Construct(what.into()))
}

/// A name as the catalog spells it.
fn folded(ident: &Ident) -> Box<str> {
    let mut name = match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    };
    if name.len() > NAME_BYTES_MAX {
        let mut end = NAME_BYTES_MAX;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
    }
    name.into()
}

fn parts(name: &ObjectName) -> Result<Vec<Box<str>>, ParseError> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(folded(ident)),
            ObjectNamePart::Function(_) => construct("a name that calls a function"),
        })
        .collect()
}

/// More operators in one expression are refused.
const DEPTH_MAX: usize = 500;
/// Words that make an expression or a query deeper.
const LINKS: &[&str] = &[
    "and",
    "or",
    "is",
    "isnull",
    "notnull",
    "in",
    "like",
    "ilike",
    "similar",
    "between",
    "collate",
    "at",
    "union",
    "intersect",
    "except",
    "overlaps",
    "not",
];
/// Longer names are cut by the server.
const NAME_BYTES_MAX: usize = 63;
/// Operators with an equals sign that the parser reads as the server does.
const COMPARISONS: &[&[u8]] = &[b"=", b"<=", b">=", b"<>", b"!=", b"=>"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::token;

    fn read(text: &str) -> Result<Shape, ParseError> {
        let list = token::tokens(text.as_bytes()).unwrap();
        parse(&token::statements(text.as_bytes(), &list)[0])
    }

    #[test]
    fn the_parser_never_sees_a_constant() {
        let text = "select 'a''b', 17, 1.5, E'\\n' from t where k = $$x$$ -- c";
        let list = token::tokens(text.as_bytes()).unwrap();
        let shown = numbered(&token::statements(text.as_bytes(), &list)[0]).unwrap();
        assert_eq!(shown, "select '0', 1, 2.0, '3' from t where k = '4'");
    }

    #[test]
    fn long_chains_of_operators_do_not_exhaust_the_stack() {
        let chain = |count| format!("select a from t where a{}", " + 1".repeat(count));
        assert!(read(&chain(450)).is_ok());
        assert!(read(&chain(200_000)).is_err());
        assert!(read(&format!("select 1{}", " union select 1".repeat(450))).is_ok());
        assert!(read(&format!("select 1{}", " union select 1".repeat(100_000))).is_err());
        assert!(read(&format!("select {}1{}", "(".repeat(10_000), ")".repeat(10_000))).is_err());
        assert!(read(&format!("select {} 1", "not ".repeat(10_000))).is_err());
        assert!(read(&format!("select 1{}", "::int".repeat(100_000))).is_err());
        let rows = "(-1, -2), ".repeat(10_000);
        assert!(read(&format!("insert into t (a, b) values {rows}(1, 2)")).is_ok());
    }
}
