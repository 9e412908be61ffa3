//! Routing hints in comments: `/* keyway: shard=NAME */`, `/* keyway: key=VALUE */`,
//! `/* keyway: primary */`, `/* keyway: consistency=LEVEL */`.
//!
//! A hint says what a statement leaves open; it never overrules what the
//! statement says itself. Several words may stand in one comment, parted by
//! blanks or commas; a value with blanks stands in single quotes.

use crate::shardmap::Map;
use crate::sql::token::{Kind, Tokens};
use crate::types::{Consistency, ShardId};

use super::error::RouteError;

/// What the comments of one statement ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    pub(super) shard: Option<ShardId>,
    pub(super) key: Option<Box<str>>,
    pub(super) primary: bool,
    pub(super) consistency: Option<Consistency>,
}

/// Reads the hints among the tokens of a statement.
///
/// # Errors
/// A word that is no hint, a shard that the map doesn't have, two hints that
/// differ.
pub(super) fn read(t: &Tokens<'_>, map: &Map) -> Result<Hints, RouteError> {
    let mut hints = Hints::default();
    for i in (0..t.len()).filter(|i| t.kind(*i) == Some(Kind::Hint)) {
        let text = String::from_utf8_lossy(t.bytes(i));
        let inside = text.trim_start_matches("/*").trim_end_matches("*/").trim();
        let mut rest = inside.get(PREFIX.len()..).unwrap_or_default().trim();
        while !rest.is_empty() {
            let (word, after) = next(rest).ok_or_else(|| unknown(rest))?;
            rest = after;
            apply(&word, map, &mut hints)?;
        }
    }
    Ok(hints)
}

/// The next word, its value without quotes, and what follows.
fn next(text: &str) -> Option<((&str, Option<String>), &str)> {
    let end = text.find(|c: char| c.is_whitespace() || c == ',' || c == '=').unwrap_or(text.len());
    let (word, after) = text.split_at_checked(end)?;
    let Some(value) = after.strip_prefix('=') else {
        return Some(((word, None), past_separators(after)));
    };
    if let Some(quoted) = value.strip_prefix('\'') {
        let end = quoted.find('\'')?;
        let (value, after) = (quoted.get(..end)?, quoted.get(end + 1..)?);
        return Some(((word, Some(value.to_owned())), past_separators(after)));
    }
    let end = value.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(value.len());
    let (value, after) = value.split_at_checked(end)?;
    Some(((word, Some(value.to_owned())), past_separators(after)))
}

fn past_separators(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_whitespace() || c == ',')
}

fn apply(
    (word, value): &(&str, Option<String>),
    map: &Map,
    hints: &mut Hints,
) -> Result<(), RouteError> {
    match (*word, value) {
        ("primary", None) => hints.primary = true,
        ("shard", Some(name)) => {
            let shard = map.shard_named(name).ok_or_else(|| RouteError::BadHint {
                reason: format!("there is no shard called {name}").into(),
            })?;
            if hints.shard.replace(shard.id).is_some_and(|other| other != shard.id) {
                return Err(RouteError::BadHint { reason: "two shards are named".into() });
            }
        }
        ("key", Some(value)) => {
            if hints.key.replace(value.as_str().into()).is_some_and(|other| *other != **value) {
                return Err(RouteError::BadHint { reason: "two keys are named".into() });
            }
        }
        ("consistency", Some(level)) => {
            let level = level.parse().map_err(|error| RouteError::BadHint {
                reason: format!("consistency is {error}").into(),
            })?;
            if hints.consistency.replace(level).is_some_and(|other| other != level) {
                return Err(RouteError::BadHint { reason: "two levels are named".into() });
            }
        }
        (word, _) => return Err(unknown(word)),
    }
    Ok(())
}

fn unknown(word: &str) -> RouteError {
    let word: String = word.chars().take(32).collect();
    RouteError::BadHint { reason: format!("{word} is no hint").into() }
}

const PREFIX: &str = "keyway:";
