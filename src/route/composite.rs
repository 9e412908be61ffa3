//! Whole keys out of what is known of each of their columns, where a key has
//! several.
//!
//! A statement is located only if every column is known. Each column's values are
//! a set that holds all that matter; so is every combination of them. Where a
//! condition names the combinations, as `(a, b) IN ((1, 2), (3, 4))` does, they are
//! fewer. Which of both is taken decides only how many shards are asked.

use crate::shardmap::{Hash, Key, RowHash};
use crate::sql::shape::Test;

use super::error::RouteError;
use super::locate::{self, Values};
use super::solve::{Solver, Spot};
use super::template::{Extent, KeyPlace, KeySource, Role, Sign};

/// The keys of the relation whose first key column is `first`; `None` if they may
/// be any.
pub(super) fn whole(solver: &Solver<'_>, first: usize) -> Option<Vec<KeySource>> {
    let one = solver.sharded.get(first)?;
    if let Some(rows) = &one.rows {
        return Some(rows.clone());
    }
    let (level, relation) = (one.level, one.relation);
    let content = solver.shape.levels.get(level)?;
    let any = crossed(solver, first, None);
    let conditions = content.conditions.iter().filter(|condition| {
        let (from, to) = condition.restricts;
        (from..to).contains(&relation)
    });
    let named = conditions.filter_map(|one| combinations(solver, first, &one.test, level));
    named.chain(any).min_by_key(Vec::len)
}

/// The combinations of which each row that meets `test` has one, if that names
/// any.
fn combinations(
    solver: &Solver<'_>,
    first: usize,
    test: &Test,
    level: usize,
) -> Option<Vec<KeySource>> {
    match test {
        Test::Any(list) => {
            let mut all = Vec::new();
            for one in list {
                all.extend(combinations(solver, first, one, level)?);
            }
            (all.len() <= ROWS_MAX).then_some(all)
        }
        Test::All(list) => {
            let inner = list.iter().filter_map(|one| match one {
                Test::Any(_) | Test::All(_) => combinations(solver, first, one, level),
                Test::Equal(..)
                | Test::Among(..)
                | Test::AmongArray(..)
                | Test::Compare(..)
                | Test::Unknown => None,
            });
            inner.chain(crossed(solver, first, Some((test, level)))).min_by_key(Vec::len)
        }
        Test::Among(..) | Test::AmongArray(..) => crossed(solver, first, Some((test, level))),
        Test::Equal(..) | Test::Compare(..) | Test::Unknown => None,
    }
}

/// Every combination of the columns' values; those that `test` names, if it names
/// some.
fn crossed(
    solver: &Solver<'_>,
    first: usize,
    test: Option<(&Test, usize)>,
) -> Option<Vec<KeySource>> {
    let one = solver.sharded.get(first)?;
    let mut columns = Vec::with_capacity(one.parts);
    for at in first..first + one.parts {
        let column = solver.sharded.get(at)?;
        let of_test = test.and_then(|(test, level)| {
            let members = solver.constraint(test, &Spot::Key(at), level)?;
            members.iter().map(|member| column.source(member)).collect::<Option<Vec<_>>>()
        });
        columns.push(of_test.or_else(|| column.members.clone())?);
    }
    cross(one.hash, columns)
}

/// The keys that have in each column one of its values; `None` if they are too
/// many to list.
pub(super) fn cross(hash: Hash, columns: Vec<Vec<KeySource>>) -> Option<Vec<KeySource>> {
    let mut count = 1_usize;
    for column in &columns {
        count = count.checked_mul(column.len()).filter(|count| *count <= ROWS_MAX)?;
    }
    let lists = columns.iter().filter(|column| column.iter().any(KeySource::is_list)).count();
    if lists > 1 {
        // How many combinations two arrays make, only their values tell.
        return None;
    }
    let mut rows: Vec<Vec<KeySource>> = vec![Vec::new()];
    for column in columns {
        let with = |row: &Vec<KeySource>, one: &KeySource| {
            let mut row = row.clone();
            row.push(one.clone());
            row
        };
        rows = rows.iter().flat_map(|row| column.iter().map(|one| with(row, one))).collect();
    }
    rows.into_iter().map(|row| key(hash, row)).collect()
}

/// The keys of rows that are given column by column.
pub(super) fn rows(hash: Hash, columns: &[Vec<KeySource>]) -> Option<Vec<KeySource>> {
    let count = columns.first()?.len();
    (0..count)
        .map(|at| {
            let row: Option<Vec<KeySource>> =
                columns.iter().map(|column| column.get(at).cloned()).collect();
            key(hash, row?)
        })
        .collect()
}

/// The key of these columns.
fn key(hash: Hash, parts: Vec<KeySource>) -> Option<KeySource> {
    let first = parts.first()?;
    let (keyspace, key_type) = (first.keyspace, first.key_type);
    // A NULL among a row's columns is an error, whatever the others are.
    let row = parts.iter().any(|part| part.role == Role::Row);
    Some(KeySource {
        keyspace,
        key_type,
        place: KeyPlace::Null,
        sign: Sign::Plain,
        cast: None,
        role: if row { Role::Row } else { Role::Filter },
        extent: Extent::Row(hash),
        part: 0,
        parts: parts.into(),
    })
}

/// Runs `then` on each key that the columns denote.
///
/// # Errors
/// As [`locate::route`], for any of them.
pub(super) fn each(
    parts: &[KeySource],
    before: RowHash,
    values: Values<'_>,
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
    let Some((first, rest)) = parts.split_first() else {
        then(before.key());
        return Ok(());
    };
    let mut result = Ok(());
    locate::each_key(first, values, &mut |key| {
        if result.is_ok() {
            result = each(rest, before.with(&key), values, then);
        }
    })?;
    result
}

/// The same keys as texts of rows, in the same order.
pub(super) fn texts(parts: &[KeySource], values: Values<'_>) -> Vec<String> {
    let mut rows = vec![String::new()];
    for part in parts {
        let mut texts = Vec::new();
        // Where a column has no value, no key follows from it either.
        let _ = locate::each_key(part, values, &mut |key| texts.push(key.to_string()));
        let joined = |row: &String, text: &String| {
            if row.is_empty() { text.clone() } else { format!("{row},{text}") }
        };
        rows = rows.iter().flat_map(|row| texts.iter().map(|text| joined(row, text))).collect();
    }
    rows.iter().map(|row| format!("({row})")).collect()
}

/// More combinations of values are not listed.
const ROWS_MAX: usize = 1024;
