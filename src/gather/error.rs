//! Why a gathered read fails of its own accord, in words for the client.

use std::fmt;

use crate::types::{Oid, SqlState};

/// Why the machine gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatherError {
    /// The shards' rows have different columns.
    ColumnsDiffer {
        /// The column's name, or its place.
        column: Box<str>,
        /// What differs.
        what: &'static str,
    },
    /// A sort column of a type whose order is not known for sure.
    OrderOfType {
        /// The type.
        oid: Oid,
    },
    /// A sort column is text under a collation that the router can't compare.
    OrderOfText,
    /// ORDER BY names something that may be an input or an output column.
    OrderOfName {
        /// The name.
        name: Box<str>,
    },
    /// A value that means something else on every server.
    LocalType {
        /// The column's name.
        column: Box<str>,
    },
    /// More rows than may be brought together.
    TooMuch {
        /// Most rows.
        rows_max: u64,
        /// Most bytes.
        bytes_max: usize,
    },
    /// The shards sort text by different versions of a collation.
    SortedOtherwise,
    /// More than is kept for a cursor.
    KeptTooMuch {
        /// The limit.
        bytes_max: usize,
    },
    /// All reads together hold as many rows as they may.
    OutOfMemory {
        /// The limit.
        bytes_max: usize,
    },
    /// The client asked for another number of formats than there are columns.
    Formats {
        /// Formats given.
        given: usize,
        /// Columns of the result.
        columns: usize,
    },
    /// One row is too long to be held.
    RowTooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// A server said something that makes no sense here.
    Malformed,
    /// A shard ended without an answer.
    Silent,
    /// A shard's rows are not in the order that was asked for, as far as the
    /// router understands it.
    Unsorted,
}

impl GatherError {
    /// The state a client sees.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::ColumnsDiffer { .. }
            | Self::OrderOfType { .. }
            | Self::OrderOfText
            | Self::LocalType { .. }
            | Self::SortedOtherwise
            | Self::OrderOfName { .. } => SqlState::new("0A000"),
            Self::TooMuch { .. } | Self::KeptTooMuch { .. } => SqlState::new("53400"),
            Self::OutOfMemory { .. } => SqlState::new("53200"),
            Self::Formats { .. } | Self::Malformed | Self::Silent => SqlState::new("08P01"),
            Self::Unsorted => SqlState::new("XX000"),
            Self::RowTooLong { .. } => SqlState::new("54000"),
        }
    }

    /// The way out, where there is one.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ColumnsDiffer { .. } => {
                Some("give the table the same columns and types on every shard, or cast the column")
            }
            Self::OrderOfType { .. } => Some(
                "order by a cast to a number, a time or text COLLATE \"C\", or fix the sharding key",
            ),
            Self::OrderOfText => {
                Some("add COLLATE \"C\" to the column of ORDER BY, or fix the sharding key")
            }
            Self::OrderOfName { .. } => {
                Some("qualify the column with its table, or give the output column another name")
            }
            Self::LocalType { .. } => {
                Some("cast the column to text in a view, or fix the sharding key")
            }
            Self::SortedOtherwise => Some(
                "give all servers the same version of the collation's library, or add COLLATE \"C\"",
            ),
            Self::OutOfMemory { .. } => {
                Some("try again, or raise merge.router_memory of the router's configuration")
            }
            Self::TooMuch { .. } => Some(
                "add conditions on the tables, or raise merge.array_rows and merge.array_bytes of the router's configuration",
            ),
            Self::KeptTooMuch { .. } => Some(
                "read in parts by the sharding key, without a cursor, or raise merge.cursor_bytes of the router's configuration",
            ),
            Self::Formats { .. } | Self::Malformed | Self::Silent | Self::Unsorted => None,
            Self::RowTooLong { .. } => Some("select fewer or shorter columns"),
        }
    }
}

impl fmt::Display for GatherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ColumnsDiffer { column, what } => {
                write!(f, "the shards disagree about column {column}: {what} is not the same")
            }
            Self::OrderOfType { oid } => write!(
                f,
                "rows of several shards can't be ordered by a column of type {}",
                oid.number()
            ),
            Self::OrderOfText => f.write_str(
                "rows of several shards can't be ordered by text whose collation does not compare bytes",
            ),
            Self::OrderOfName { name } => write!(
                f,
                "ORDER BY {name} may mean a column of the result or of a table"
            ),
            Self::LocalType { column } => write!(
                f,
                "column {column} has a type whose values mean something else on every shard"
            ),
            Self::SortedOtherwise => {
                f.write_str("the shards sort by different versions of a collation")
            }
            Self::OutOfMemory { bytes_max } => write!(
                f,
                "reads that bring rows of several shards together hold {bytes_max} bytes already"
            ),
            Self::TooMuch { rows_max, bytes_max } => write!(
                f,
                "the read brings more than {rows_max} rows or {bytes_max} bytes of several shards together"
            ),
            Self::KeptTooMuch { bytes_max } => write!(
                f,
                "the rows of a cursor over several shards have more than {bytes_max} bytes"
            ),
            Self::Formats { given, columns } => write!(
                f,
                "bind message has {given} result formats but query has {columns} columns"
            ),
            Self::RowTooLong { bytes_max } => {
                write!(f, "a row of a read over several shards is longer than {bytes_max} bytes")
            }
            Self::Malformed => f.write_str("a shard sent a reply that makes no sense"),
            Self::Silent => f.write_str("a shard ended without an answer"),
            Self::Unsorted => f.write_str("a shard's rows are not in the order of ORDER BY"),
        }
    }
}

impl std::error::Error for GatherError {}
