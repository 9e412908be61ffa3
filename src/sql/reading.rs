//! What a text says, in words: for tests that compare this reader with the
//! server's own. Nothing routes by it.

use std::fmt::Write as _;

use super::classify;
use super::lex::TokenKind;
use super::literal::LiteralKind;
use super::parse;
use super::shape::{self, Cast, Column, Place, RelationKind, Target, Test, Value};
use super::statement::Kind;
use super::token::{self, Tokens};
use super::tree::Comparison;

/// One statement in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its kind, as a word; of an EXPLAIN, DECLARE or PREPARE its own.
    pub kind: &'static str,
    /// What it reads, writes and asks of rows, sorted; the complaint if it is a
    /// query or a write that can't be read, nothing for other kinds.
    pub facts: Option<Result<Vec<String>, String>>,
}

/// The statements of a text.
///
/// # Errors
/// The text has no tokens.
pub fn read(text: &[u8]) -> Result<Vec<Reading>, super::scan::ScanError> {
    let list = token::tokens(text)?;
    Ok(token::statements(text, &list).iter().map(reading).collect())
}

/// One token in words: a name as the catalog spells it, a constant's value if its
/// spelling tells it, anything else as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A keyword or name.
    Name(String),
    /// A constant.
    Constant(Option<String>),
    /// An operator.
    Operator(String),
    /// A parameter or a mark.
    Mark(String),
}

/// The tokens of a text.
///
/// # Errors
/// The text has no tokens.
pub fn words(text: &[u8]) -> Result<Vec<Word>, super::scan::ScanError> {
    let list = token::tokens(text)?;
    let t = Tokens { text, list: &list };
    let shown = |i| String::from_utf8_lossy(t.bytes(i)).into_owned();
    let word = |i| match (t.kind(i), t.name(i), t.literal(i)) {
        (_, Some(name), _) => Word::Name(name.into()),
        (_, _, Some(literal)) => Word::Constant(literal.value(text).map(Into::into)),
        (Some(token::Kind::Plain(TokenKind::Operator)), ..) => Word::Operator(shown(i)),
        (_, None, None) => Word::Mark(shown(i)),
    };
    Ok((0..t.len()).map(word).collect())
}

/// From which byte to which each token of a text stands.
///
/// # Errors
/// The text has no tokens.
pub fn spans(text: &[u8]) -> Result<Vec<(usize, usize)>, super::scan::ScanError> {
    let list = token::tokens(text)?;
    Ok(list.iter().map(|token| (token.start as usize, token.end as usize)).collect())
}

fn reading(t: &Tokens<'_>) -> Reading {
    let kind = classify::classify(t).facts.kind;
    let facts = match kind {
        Kind::Select | Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge => {
            let shape = parse::parse(t).and_then(|tree| shape::shape(&tree));
            Some(shape.map(|shape| facts(&shape, t)).map_err(|error| error.to_string()))
        }
        _ => None,
    };
    Reading { kind: kind.word(), facts }
}

fn facts(shape: &shape::Shape, t: &Tokens<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for level in &shape.levels {
        for relation in &level.relations {
            let RelationKind::Table { schema, name } = &relation.kind else { continue };
            let verb = match relation.target {
                Target::Read => "reads",
                Target::Written { .. } => "writes",
            };
            let schema = schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
            found.push(format!("{verb} {schema}{name}"));
        }
        for condition in &level.conditions {
            if let Some(said) = said(&condition.test, t).filter(|said| said != "()") {
                found.push(format!("when {said}"));
            }
        }
    }
    found.sort();
    found
}

fn said(test: &Test, t: &Tokens<'_>) -> Option<String> {
    match test {
        Test::Unknown => None,
        Test::Equal(left, right) => {
            // USING and IN (query) have no words of their own.
            let mut sides = [column(left)?, column(right)?];
            sides.sort();
            Some(sides.join("="))
        }
        Test::Among(left, values) => {
            let values: Vec<String> = values.iter().map(|one| value(one, t)).collect();
            Some(format!("{} in {{{}}}", column(left)?, values.join(", ")))
        }
        Test::AmongArray(left, array) => Some(format!("{} any {}", column(left)?, value(array, t))),
        Test::Compare(left, comparison, right) => {
            let operator = match comparison {
                Comparison::Equal => "=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
            };
            Some(format!("{} {operator} {}", column(left)?, value(right, t)))
        }
        Test::All(list) => Some(joined(list, " & ", t)),
        Test::Any(list) => Some(joined(list, " | ", t)),
    }
}

fn joined(list: &[Test], between: &str, t: &Tokens<'_>) -> String {
    let mut parts: Vec<String> = list.iter().filter_map(|one| said(one, t)).collect();
    parts.sort();
    format!("({})", parts.join(between))
}

fn column(column: &Column) -> Option<String> {
    match column {
        Column::Named { qualifier, name, within: None } => {
            let mut shown = qualifier.join(".");
            if !shown.is_empty() {
                shown.push('.');
            }
            shown.push_str(name);
            Some(shown)
        }
        Column::Named { .. } | Column::At { .. } => None,
    }
}

/// The value as written; `?` where its spelling doesn't tell it.
fn value(value: &Value, t: &Tokens<'_>) -> String {
    let mut shown = String::new();
    if value.minus {
        shown.push('-');
    }
    match value.place {
        Place::Null => shown.push_str("null"),
        Place::Param(index) => {
            let _ = write!(shown, "${}", u32::from(index) + 1);
        }
        Place::Literal(number) => shown.push_str(&literal(number, t)),
    }
    match &value.cast {
        Cast::None => {}
        Cast::To(word) => {
            let _ = write!(shown, "::{word}");
        }
        Cast::ToArray(word) => {
            let _ = write!(shown, "::{word}[]");
        }
    }
    shown
}

fn literal(number: u32, t: &Tokens<'_>) -> String {
    let place = (0..t.len())
        .find(|i| matches!(t.kind(*i), Some(token::Kind::Literal(n, _)) if n == number));
    let Some(literal) = place.and_then(|at| t.literal(at)) else { return "?".to_owned() };
    let Some(text) = literal.value(t.text) else { return "?".to_owned() };
    match literal.kind {
        LiteralKind::Integer => {
            let digits = text.trim_start_matches('0');
            if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
        }
        LiteralKind::Numeric if text.contains(['x', 'X', 'o', 'O', 'b', 'B', '_']) => {
            "?".to_owned()
        }
        LiteralKind::Numeric => text.into_owned(),
        _ => format!("'{text}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_string_ends_at_its_first_quote() {
        assert_eq!(spans(b"B'01''x'"), Ok(vec![(0, 5), (5, 8)]));
        // It goes on behind a line's end, as every string does.
        assert_eq!(spans(b"x'1F' -- c\n 'E'"), Ok(vec![(0, 15)]));
        assert_eq!(spans(b"'01''x'"), Ok(vec![(0, 7)]));
    }
}
