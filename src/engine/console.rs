//! What passes between a client that talks to the console and the task that
//! answers it.
//!
//! Only words: what each command says is `admin`'s to decide, and how a reply
//! looks on the wire is the session's.

use tokio::sync::oneshot;

use crate::types::{Oid, SqlState};

/// One query of a console client.
#[derive(Debug)]
pub struct ConsoleRequest {
    /// The text of the Query message.
    pub text: String,
    /// Takes the replies, in order; dropped unsent if the task ends.
    pub reply: oneshot::Sender<Vec<ConsoleReply>>,
}

/// The answer to one statement of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleReply {
    /// A result.
    Rows {
        /// The columns, at least one.
        columns: Vec<ConsoleColumn>,
        /// The rows, each with a value for every column; `None` is NULL.
        rows: Vec<Vec<Option<String>>>,
        /// The command tag.
        tag: &'static str,
    },
    /// The command is done and has no rows.
    Complete {
        /// The command tag.
        tag: &'static str,
    },
    /// The text held no statement.
    Empty,
    /// Refused or failed; always the last reply.
    Error {
        /// The SQLSTATE.
        state: SqlState,
        /// What is wrong.
        message: String,
        /// A way out.
        hint: Option<String>,
    },
}

/// A column of a console's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleColumn {
    /// The name.
    pub name: &'static str,
    /// What its values are; all are sent as text.
    pub kind: ColumnKind,
}

/// What a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Any text.
    Text,
    /// Whole numbers of 64 bits.
    Integer,
}

impl ColumnKind {
    /// The type that the row description names.
    pub const fn oid(self) -> Oid {
        match self {
            Self::Text => Oid::new(25),
            Self::Integer => Oid::new(20),
        }
    }

    /// The type's size there; negative means that it varies.
    pub const fn type_size(self) -> i16 {
        match self {
            Self::Text => -1,
            Self::Integer => 8,
        }
    }
}
