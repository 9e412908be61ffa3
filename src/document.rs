//! What a text file of the operator's (a map, a configuration) can be told
//! about: a problem with its line and column, and the name that was meant.
//!
//! It does not know what the files say, nor how they are read.

use std::fmt;

/// Something wrong in a file, where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as the operator named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what to do about it; lower case, no full stop.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.reason)
    }
}

impl std::error::Error for Problem {}

/// A file's name and text, from which positions are made.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl<'a> Source<'a> {
    /// The source `text`, called `file` in messages.
    pub const fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text }
    }

    /// The whole text.
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The problem `reason` at byte `offset`; an offset past the end or inside
    /// a character is moved back to the nearest character.
    pub fn problem(&self, offset: usize, reason: impl Into<String>) -> Problem {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset = offset.saturating_sub(1);
        }
        let before = self.text.get(..offset).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Problem {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
            reason: reason.into(),
        }
    }
}

/// The one of `known` that `name` was probably meant to be; `None` when
/// nothing is close (more than a third of its letters would have to change).
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= candidate.len().max(name.len()).div_ceil(3))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace on the way from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(NAME_CHARS_MAX).collect();
    let b: Vec<char> = b.chars().take(NAME_CHARS_MAX).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replace = row.get(j).copied().unwrap_or(0) + usize::from(x != y);
            let delete = row.get(j + 1).copied().unwrap_or(0) + 1;
            let insert = next.get(j).copied().unwrap_or(0) + 1;
            next.push(replace.min(delete).min(insert));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// Names longer than this are compared by their beginning.
const NAME_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_counts_lines_and_characters_from_one() {
        let source = Source::new("m.toml", "a = 1\nß = \"x\"\n");
        let at = |offset| {
            let problem = source.problem(offset, "");
            (problem.line, problem.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(6), (2, 1));
        assert_eq!(at(7), (2, 1), "inside the two bytes of ß");
        assert_eq!(at(8), (2, 2));
        assert_eq!(at(1000), (3, 1));
    }

    #[test]
    fn problem_prints_as_compilers_do() {
        let problem = Source::new("m.toml", "x").problem(0, "no such key");
        assert_eq!(problem.to_string(), "m.toml:1:1: no such key");
    }

    #[test]
    fn nearest_name_is_found_only_when_close() {
        let known = ["keyspace", "shard", "table"];
        assert_eq!(nearest("keyspcae", known), Some("keyspace"));
        assert_eq!(nearest("tables", known), Some("table"));
        assert_eq!(nearest("colour", known), None);
    }
}
