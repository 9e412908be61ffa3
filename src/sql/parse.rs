//! The reader of statements: tokens in, a tree out.
//!
//! It follows the server's own grammar for SELECT, VALUES, TABLE, INSERT,
//! UPDATE, DELETE and MERGE: which word may name what, which operator binds
//! tighter, where a join's condition belongs. It never sees a constant's
//! value. What it doesn't know is an error; where it takes more than the
//! server does, the server refuses the statement. It knows no catalog.
//!
//! Source: PostgreSQL manual, "SQL Syntax" and the statements' own pages;
//! compared with the server's reading of its regression tests
//! (`integration/corpus`).

mod call;
mod cursor;
mod expr;
mod from;
mod query;
mod types;
mod words;
mod write;

use std::fmt;

use super::token::Tokens;
use super::tree::Query;

use self::cursor::Reader;

/// Why a statement has no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// The text does not follow the grammar known here.
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
pub(crate) fn parse(tokens: &Tokens<'_>) -> Result<Query, ParseError> {
    let list = tokens.without_hints();
    let mut reader = Reader::new(Tokens { text: tokens.text, list: &list });
    let query = reader.statement()?;
    if !reader.is_done() {
        return Err(reader.unexpected());
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::token;

    fn read(text: &str) -> Result<Query, ParseError> {
        let list = token::tokens(text.as_bytes()).unwrap();
        parse(&token::statements(text.as_bytes(), &list)[0])
    }

    #[test]
    fn deep_statements_are_refused_and_long_ones_are_not() {
        let chain = |count| format!("select a from t where a{}", " + 1".repeat(count));
        assert!(read(&chain(350)).is_ok());
        assert!(read(&chain(200_000)).is_err());
        assert!(read(&format!("select 1{}", " union select 1".repeat(350))).is_ok());
        assert!(read(&format!("select 1{}", " union select 1".repeat(100_000))).is_err());
        assert!(read(&format!("select {}1{}", "(".repeat(10_000), ")".repeat(10_000))).is_err());
        assert!(read(&format!("select {} 1", "not ".repeat(10_000))).is_err());
        assert!(read(&format!("select 1{}", "::int".repeat(100_000))).is_err());
        assert!(read(&format!("select * from {}", "a join ".repeat(10_000))).is_err());
        let rows = "(-1, -2), ".repeat(10_000);
        assert!(read(&format!("insert into t (a, b) values {rows}(1, 2)")).is_ok());
        let ors = " or a = 1".repeat(10_000);
        assert!(read(&format!("select 1 from t where a = 2{ors}")).is_ok());
        let joins = " join b on a.k = b.k".repeat(350);
        assert!(read(&format!("select 1 from a{joins}")).is_ok());
    }
}
