//! How long a session has its backend: a transaction, or a statement only.
//!
//! In pool mode `statement` no two statements of a client are sure to meet the
//! same backend, so what needs that is refused: a transaction, and whatever
//! would hold a backend. What can't be read may be either.

use crate::route::Template;
use crate::sql::statement::TxEffect;

use super::Session;
use super::refusal::{NOT_SUPPORTED, Refused};

/// What ends a session's turn on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The end of its transaction.
    Transaction,
    /// The end of its statement.
    Statement,
}

impl Session {
    /// The session gives its backend back after each statement (pool mode
    /// `statement`).
    pub const fn take_turns_by_statement(&mut self) {
        self.turn = Turn::Statement;
    }
}

impl Turn {
    /// Refuses texts that open a transaction.
    pub(super) fn admit(template: &Template) -> Result<(), Refused> {
        let begins = |tx: &TxEffect| matches!(tx, TxEffect::Begin(_));
        if template.statements().iter().any(|facts| begins(&facts.tx)) {
            return Err(Refused::new(
                NOT_SUPPORTED,
                "transaction blocks are not allowed in pool mode statement",
            )
            .hint("send the statements in one query string, which is one transaction, or use a user or database with pool_mode = \"transaction\""));
        }
        Ok(())
    }
}

/// The refusal of what keeps a backend.
pub(super) fn refuse_hold(what: &str) -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        format!("{what} keeps its backend beyond the statement, which pool mode statement does not allow"),
    )
    .hint("use a user or database with pool_mode = \"transaction\" or \"session\"")
}

/// The refusal of what can't be read, and may therefore keep a backend or open a
/// transaction.
pub(super) fn refuse_unread() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "a statement that the router can't read is not allowed in pool mode statement",
    )
    .hint("keep client_encoding = UTF8 and standard_conforming_strings = on, and statements within limits.statement_bytes_max; or use a user or database with pool_mode = \"transaction\"")
}
