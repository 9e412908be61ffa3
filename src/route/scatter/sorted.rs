//! The first rows of a sort whose order the router can't tell: every shard
//! sorts and cuts its own rows, and one server sorts and cuts what is left.
//!
//! The rows that the answer can hold are among the first of their shard, as
//! long as all shards sort alike; the rows say by which version of a collation
//! they were sorted.

use std::borrow::Cow;

use super::owned::{Foreign, Gap};
use super::partial::{PartialColumn, columns_from, types_of};
use super::{OrderKey, items};

/// A sort with a limit, to be made twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sorted {
    query: Box<[u8]>,
    gap: Option<Gap>,
    params: bool,
    keys: Box<[OrderKey]>,
    tail: Box<[u8]>,
}

impl Sorted {
    pub(super) fn new(
        (query, gap): (Box<[u8]>, Option<Gap>),
        params: bool,
        keys: Box<[OrderKey]>,
        tail: &[u8],
    ) -> Self {
        Self { query, gap, params, keys, tail: tail.into() }
    }

    /// What every shard is asked: the answer's columns, the sort keys, and a
    /// column that must be the same in all rows.
    pub fn query(&self) -> &[u8] {
        &self.query
    }

    /// The same without rows that a shard does not own; `None` if they can't
    /// be left out.
    pub fn query_without(&self, foreign: Option<&Foreign>) -> Option<Cow<'_, [u8]>> {
        match (foreign, &self.gap) {
            (None, _) => Some(Cow::Borrowed(&self.query)),
            (Some(foreign), Some(gap)) => Some(Cow::Owned(gap.filled(&self.query, foreign))),
            (Some(_), None) => None,
        }
    }

    /// Whether the query uses the client's parameters.
    pub const fn has_params(&self) -> bool {
        self.params
    }

    /// How many columns a shard's row has if the answer has so many.
    pub fn columns(&self, answer: usize) -> usize {
        answer + self.keys.len() + 1
    }

    /// As [`super::Partial::types_query`].
    pub fn types_query(&self, answer: usize) -> Vec<u8> {
        types_of(&self.query, self.columns(answer))
    }

    /// The statement that sorts the shards' rows; as
    /// [`super::Partial::statement`].
    pub fn statement(
        &self,
        params: usize,
        names: &[&[u8]],
        columns: &[PartialColumn],
    ) -> Option<Vec<u8>> {
        let input = |key: &OrderKey| {
            key.input.as_ref().is_some_and(|name| names.contains(&name.as_bytes()))
        };
        if columns.len() != self.columns(names.len()) || self.keys.iter().any(input) {
            return None;
        }
        let mut out = b"SELECT ".to_vec();
        for (number, name) in (1..).zip(names) {
            let name = String::from_utf8_lossy(name).replace('"', "\"\"");
            let comma = if number == 1 { "" } else { ", " };
            out.extend_from_slice(format!("{comma}keyway.c{number} AS \"{name}\"").as_bytes());
        }
        out.extend_from_slice(columns_from(params, columns)?.as_bytes());
        for (number, key) in self.keys.iter().enumerate() {
            let word = if number == 0 { " ORDER BY" } else { "," };
            let direction = if key.descending { "DESC" } else { "ASC" };
            let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
            let column = names.len() + number + 1;
            let item = format!("{word} keyway.c{column} {direction} NULLS {nulls}");
            out.extend_from_slice(item.as_bytes());
        }
        out.push(b'\n');
        out.extend_from_slice(&self.tail);
        Some(out)
    }
}

/// The text of one value that tells how these keys are sorted.
pub(super) fn version(order: &[items::Order], text: &[u8]) -> Vec<u8> {
    let mut out = b", pg_catalog.concat(NULL".to_vec();
    for one in order {
        let name = [
            &b"pg_catalog.pg_collation_for(CASE WHEN false THEN ("[..],
            one.expression.of(text),
            b"\n)::pg_catalog.text END)",
        ]
        .concat();
        out.extend_from_slice(b", ' ', ");
        out.extend_from_slice(&name);
        out.extend_from_slice(b", CASE WHEN ");
        out.extend_from_slice(&name);
        out.extend_from_slice(OF_DATABASE.as_bytes());
        out.extend_from_slice(&name);
        out.extend_from_slice(b"::pg_catalog.regcollation) END");
    }
    out.extend_from_slice(b") AS \"keyway v\"");
    out
}

const OF_DATABASE: &str = " = '\"default\"' THEN (SELECT pg_catalog.concat(d.datlocprovider, ' ', \
d.datcollate, ' ', d.encoding, ' ', pg_catalog.pg_database_collation_actual_version(d.oid)) \
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) \
ELSE pg_catalog.pg_collation_actual_version(";
