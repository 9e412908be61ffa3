//! Which conditions of a WHERE speak of one table alone, so that the shards can
//! leave out the rows that don't meet them.
//!
//! A condition is taken only if every word in it is known: columns of the
//! table, functions that depend on their arguments alone, and the grammar's own
//! words. What is not taken costs time, never rows.

use crate::catalog::Column;
use crate::sql::lex::TokenKind;
use crate::sql::shape::Level;
use crate::sql::token::{Kind, Tokens};

use super::words;

/// The conditions of the level's WHERE, as ranges of tokens, that only name
/// columns of the relation called `alias`.
pub(super) fn own(
    t: &Tokens<'_>,
    level: &Level,
    alias: &str,
    columns: &[Column],
) -> Vec<(usize, usize)> {
    let (start, end) = level.filter_at;
    let mut found = conjuncts(t, start, end);
    found.retain(|(start, end)| is_own(&t.slice(*start, *end), level, alias, columns));
    found
}

/// The parts of a condition between ANDs; the whole if an OR stands beside them.
fn conjuncts(t: &Tokens<'_>, start: usize, end: usize) -> Vec<(usize, usize)> {
    let mut parts = Vec::new();
    let (mut from, mut depth, mut betweens) = (start, 0_usize, 0_usize);
    for i in start..end {
        if t.is_punct(i, "(") || t.is_punct(i, "[") || t.is_word(i, "case") {
            depth += 1;
        } else if t.is_punct(i, ")") || t.is_punct(i, "]") || (depth > 0 && t.is_word(i, "end")) {
            depth = depth.saturating_sub(1);
        } else if depth > 0 {
        } else if t.is_word(i, "or") {
            return vec![(start, end)];
        } else if t.is_word(i, "between") {
            betweens += 1;
        } else if t.is_word(i, "and") {
            if betweens > 0 {
                betweens -= 1;
            } else {
                parts.push((from, i));
                from = i + 1;
            }
        }
    }
    parts.push((from, end));
    parts.retain(|(start, end)| start < end);
    parts
}

fn is_own(t: &Tokens<'_>, level: &Level, alias: &str, columns: &[Column]) -> bool {
    let mut named = false;
    let mut i = 0;
    while i < t.len() {
        match t.kind(i) {
            Some(Kind::Plain(TokenKind::Word | TokenKind::Quoted)) => {
                let Some(name) = t.name(i) else { return false };
                let word = t.kind(i) == Some(Kind::Plain(TokenKind::Word));
                if i > 0 && t.is_punct(i - 1, "::") {
                    if !word || name.starts_with("reg") {
                        return false;
                    }
                } else if t.is_punct(i + 1, "(") {
                    if !word || !is_call(&name) {
                        return false;
                    }
                } else if t.is_punct(i + 1, ".") && t.is_punct(i + 3, ".") {
                    // The schema's name is right, or the server refuses all.
                    let column = t.name(i + 4);
                    let ours = t.name(i + 2).as_deref() == Some(alias)
                        && !t.is_punct(i + 5, ".")
                        && columns.iter().any(|one| column.as_deref() == Some(&*one.name));
                    if !ours {
                        return false;
                    }
                    named = true;
                    i += 4;
                } else if t.is_punct(i + 1, ".") {
                    let column = t.name(i + 2);
                    let ours = *name == *alias
                        && !t.is_punct(i + 3, ".")
                        && !t.is_punct(i + 3, "(")
                        && columns.iter().any(|one| column.as_deref() == Some(&*one.name));
                    if !ours {
                        return false;
                    }
                    named = true;
                    i += 2;
                } else if columns.iter().any(|one| *one.name == *name) {
                    let merged = level.merged.contains(&name) || level.natural;
                    if merged {
                        return false;
                    }
                    named = true;
                } else if !word || !is_grammar(t, i, &name) {
                    return false;
                }
            }
            Some(Kind::Plain(TokenKind::UnicodeQuoted) | Kind::Hint) | None => return false,
            Some(Kind::Plain(TokenKind::Punct | TokenKind::Operator | TokenKind::Param))
            | Some(Kind::Literal(..)) => {}
        }
        i += 1;
    }
    named
}

/// Whether the word at `i` is the grammar's and names no column.
fn is_grammar(t: &Tokens<'_>, i: usize, name: &str) -> bool {
    if has(RESERVED, name) {
        return true;
    }
    let after = |word| i > 0 && t.is_word(i - 1, word);
    let zone = t.are_words(i, &["at", "time", "zone"])
        || (i > 0 && t.are_words(i - 1, &["at", "time", "zone"]))
        || (i > 1 && t.are_words(i - 2, &["at", "time", "zone"]));
    let literal = matches!(t.kind(i + 1), Some(Kind::Literal(..)));
    zone || (has(TYPES, name) && (literal || after("as"))) || (name == "escape" && literal)
}

/// Whether a word before a parenthesis is the grammar's or a known function.
fn is_call(name: &str) -> bool {
    words::is_scalar(name) || has("and or not in any some all array cast case when then else", name)
}

fn has(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|entry| entry == name)
}

/// Words that no column is called without quotes.
const RESERVED: &str = "
and or not in like ilike similar is null true false distinct from any some all array case when then
else end isnull notnull cast as symmetric asymmetric between to";

/// Types whose name may stand before a constant.
const TYPES: &str = "
date timestamp timestamptz interval integer int bigint smallint numeric text varchar boolean uuid";
