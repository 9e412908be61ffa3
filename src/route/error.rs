//! Why a statement has no route, in words for the client.
//!
//! Each error names the construct and, where there is one, the way out. None
//! holds a value of the data.

use std::fmt;

use crate::shardmap::KeyError;
use crate::sql::scan::ScanError;
use crate::types::{Oid, SqlState};

/// Why a statement has no route. The statement fails; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The text has no tokens.
    Scan(ScanError),
    /// A construct that can't be routed on a sharded map.
    Unsupported {
        /// The construct.
        construct: Box<str>,
        /// The way out.
        hint: &'static str,
    },
    /// A construct that can't be answered from several shards.
    AcrossShards {
        /// The construct.
        construct: Box<str>,
        /// The way out.
        hint: &'static str,
    },
    /// No reader here understands the statement.
    Unread {
        /// The parser's complaint.
        reason: Box<str>,
    },
    /// A sharded table without an equality on its key.
    MissingKey {
        /// The table.
        table: Box<str>,
        /// Its key column.
        column: Box<str>,
    },
    /// A table that the map doesn't list.
    UnknownTable {
        /// The name as resolved.
        table: Box<str>,
    },
    /// The keys or tables of one text lie on several shards.
    SeveralShards,
    /// The key is NULL.
    NullKey,
    /// A value that is no usable key.
    BadKey(KeyError),
    /// A literal that can't be taken for a key of that type.
    BadLiteral {
        /// The way the literal is written.
        what: &'static str,
    },
    /// A parameter that locating needs has no value yet.
    MissingParam {
        /// Its number, from 1.
        number: u32,
    },
    /// A parameter whose type only the server infers, and which may not be the
    /// key's.
    AmbiguousParam {
        /// Its number, from 1.
        number: u32,
        /// The declared type.
        oid: Oid,
    },
    /// A write to a table that is on every shard.
    ReferenceWrite {
        /// The table.
        table: Box<str>,
    },
    /// The sharding key of an existing row would change.
    KeyChange {
        /// The table.
        table: Box<str>,
        /// Its key column.
        column: Box<str>,
    },
    /// A routing hint that can't be followed.
    BadHint {
        /// What is wrong with it.
        reason: Box<str>,
    },
    /// The session's `keyway.key` or `keyway.shard` can't be followed.
    Undeclared {
        /// What is wrong with it.
        reason: Box<str>,
    },
    /// Rows to be inserted whose keys the statement doesn't tell.
    OpenRows {
        /// The table they go into.
        table: Box<str>,
    },
    /// A column that can't be the key that the map takes it for.
    UnfitKey {
        /// The table.
        table: Box<str>,
        /// Its key column.
        column: Box<str>,
        /// What is wrong with it, as a phrase.
        why: Box<str>,
        /// The way out.
        hint: &'static str,
    },
    /// Rows to be inserted without a value for their key.
    NoKeyGiven {
        /// The table.
        table: Box<str>,
        /// Its key column.
        column: Box<str>,
    },
    /// An INSERT that doesn't name its columns.
    MissingColumns {
        /// The table.
        table: Box<str>,
    },
}

impl RouteError {
    /// Shorthand for [`RouteError::Unsupported`].
    pub(crate) fn unsupported(construct: &str, hint: &'static str) -> Self {
        Self::Unsupported { construct: construct.into(), hint }
    }

    /// The state a client sees.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::Scan(error) => error.sqlstate(),
            Self::BadKey(error) => error.sqlstate(),
            Self::NullKey => SqlState::new("23502"),
            Self::MissingParam { .. } => SqlState::new("08P01"),
            Self::Unsupported { .. }
            | Self::AcrossShards { .. }
            | Self::Unread { .. }
            | Self::MissingKey { .. }
            | Self::UnknownTable { .. }
            | Self::SeveralShards
            | Self::BadLiteral { .. }
            | Self::AmbiguousParam { .. }
            | Self::ReferenceWrite { .. }
            | Self::KeyChange { .. }
            | Self::OpenRows { .. }
            | Self::BadHint { .. }
            | Self::Undeclared { .. }
            | Self::UnfitKey { .. }
            | Self::NoKeyGiven { .. }
            | Self::MissingColumns { .. } => SqlState::new("0A000"),
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Scan(_) => None,
            Self::BadKey(error) => error.hint(),
            Self::Unsupported { hint, .. } | Self::AcrossShards { hint, .. } => {
                (!hint.is_empty()).then(|| (*hint).to_owned())
            }
            Self::Unread { .. } => Some("write the statement in a simpler form".to_owned()),
            Self::MissingKey { column, .. } => {
                Some(format!("add a condition {column} = … with a constant or a parameter"))
            }
            Self::UnknownTable { .. } => {
                Some("list the table in the shard map, or name its schema".to_owned())
            }
            Self::SeveralShards => Some("send one statement for each shard".to_owned()),
            Self::NullKey => Some("give the sharding key a value".to_owned()),
            Self::BadLiteral { .. } => {
                Some("write the key as a plain number or a plain quoted string".to_owned())
            }
            Self::MissingParam { .. } => None,
            Self::AmbiguousParam { number, .. } => {
                Some(format!("declare the type of ${number}, or use a parameter of its own"))
            }
            Self::ReferenceWrite { .. } => {
                Some("change the table on each shard directly".to_owned())
            }
            Self::KeyChange { .. } => {
                Some("delete the row and insert it with its new key".to_owned())
            }
            Self::BadHint { .. } => {
                Some("write shard=NAME, key=VALUE or primary, or leave the comment out".to_owned())
            }
            Self::Undeclared { .. } => {
                Some("set keyway.key to the statement's key, or RESET keyway.key".to_owned())
            }
            Self::OpenRows { .. } => Some(
                "select the sharding key as a constant, or as a key column that a condition fixes"
                    .to_owned(),
            ),
            Self::UnfitKey { hint, .. } => Some((*hint).to_owned()),
            Self::NoKeyGiven { column, .. } => Some(format!(
                "give {column} a value in the statement, as a constant or a parameter"
            )),
            Self::MissingColumns { .. } => {
                Some("name the columns: INSERT INTO table (column, …) VALUES …".to_owned())
            }
        }
    }

    /// The zero-based byte of the text that is at fault, if one is.
    pub const fn position(&self) -> Option<usize> {
        match self {
            Self::Scan(error) => error.position(),
            _ => None,
        }
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scan(error) => error.fmt(f),
            Self::BadKey(error) => error.fmt(f),
            Self::Unsupported { construct, .. } => {
                write!(f, "{construct} is not supported on a sharded database")
            }
            Self::AcrossShards { construct, .. } => {
                write!(f, "{construct} is not supported in a read over several shards")
            }
            Self::Unread { reason } => write!(f, "the statement could not be read: {reason}"),
            Self::MissingKey { table, column } => {
                write!(f, "the statement does not fix the sharding key {column} of table {table}")
            }
            Self::UnknownTable { table } => {
                write!(f, "table {table} is not in the shard map")
            }
            Self::SeveralShards => f.write_str("the statement touches more than one shard"),
            Self::NullKey => f.write_str("the sharding key is null"),
            Self::BadLiteral { what } => write!(f, "{what} can't be read as a sharding key"),
            Self::MissingParam { number } => {
                write!(f, "parameter ${number}, which holds the sharding key, has no value")
            }
            Self::AmbiguousParam { number, oid } => write!(
                f,
                "parameter ${number} of type {} is used for more than the sharding key",
                oid.number()
            ),
            Self::ReferenceWrite { table } => {
                write!(f, "table {table} is on every shard; writing it is not supported yet")
            }
            Self::KeyChange { table, column } => {
                write!(f, "the sharding key {column} of table {table} can't be changed")
            }
            Self::BadHint { reason } => write!(f, "the routing hint can't be followed: {reason}"),
            Self::Undeclared { reason } => {
                write!(f, "the session's keyway.key or keyway.shard can't be followed: {reason}")
            }
            Self::OpenRows { table } => {
                write!(
                    f,
                    "the statement does not tell the sharding keys of the rows that it inserts into {table}"
                )
            }
            Self::UnfitKey { table, column, why, .. } => {
                write!(f, "column {column} of table {table} can't be its sharding key: it {why}")
            }
            Self::NoKeyGiven { table, column } => {
                write!(
                    f,
                    "the statement gives no value for the sharding key {column} of table {table}"
                )
            }
            Self::MissingColumns { table } => {
                write!(f, "an INSERT into the sharded table {table} must name its columns")
            }
        }
    }
}

impl std::error::Error for RouteError {}

impl From<ScanError> for RouteError {
    fn from(error: ScanError) -> Self {
        Self::Scan(error)
    }
}

impl From<KeyError> for RouteError {
    fn from(error: KeyError) -> Self {
        Self::BadKey(error)
    }
}
