//! What a text may do in a READ ONLY transaction that runs on a replica.
//!
//! A standby refuses what writes, as a primary does in such a transaction, and
//! in the same words: that is left to it. What a standby does otherwise without
//! a word (advisory locks, which only its own sessions see) and what nobody
//! knows (functions that are volatile for all that is known, CALL, DO) does not
//! run there.
//!
//! Source: PostgreSQL manual, "Hot Standby" and "SET TRANSACTION".

use crate::sql::classify::Classified;
use crate::sql::functions::Nature;
use crate::sql::statement::{Kind, SessionEffect, TxEffect};
use crate::types::Access;

/// Where a text may run as part of a READ ONLY transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InReadOnly {
    /// A transaction that begins with it may go to a replica.
    Opens,
    /// It may run on the replica that the transaction has.
    GoesOn,
    /// On the primary alone.
    Primary,
}

/// True if these statements only read, and depend on no session: a replica may run
/// them outside of a transaction, if it has what they read.
pub(crate) fn reads_apart(statements: &[Classified]) -> bool {
    !statements.is_empty()
        && statements.iter().all(|one| {
            one.facts.kind == Kind::Select
                && one.facts.is_plain()
                && one.facts.access == Access::Read
                && matches!(one.nature, Nature::Neutral | Nature::Bound)
        })
}

/// The place of these statements together. `primary`: they read what no replica
/// has. `of_tables`: each reads tables, on one shard or on any.
pub(crate) fn of(statements: &[Classified], primary: bool, of_tables: bool) -> InReadOnly {
    // What stands behind the end of the transaction is no part of it.
    let before_last = statements.split_last().map_or(&[][..], |(_, before)| before);
    if primary || before_last.iter().any(|one| ends(&one.facts.tx)) {
        return InReadOnly::Primary;
    }
    let all = statements.iter().map(of_one).max().unwrap_or(InReadOnly::GoesOn);
    if of_tables { all } else { all.max(InReadOnly::GoesOn) }
}

const fn ends(tx: &TxEffect) -> bool {
    match tx {
        TxEffect::Commit { .. } | TxEffect::Rollback { .. } | TxEffect::PrepareTransaction => true,
        TxEffect::None
        | TxEffect::Begin(_)
        | TxEffect::Savepoint { .. }
        | TxEffect::Release { .. }
        | TxEffect::RollbackTo { .. }
        | TxEffect::SetTransaction { .. }
        | TxEffect::SetConstraints
        | TxEffect::CommitPrepared
        | TxEffect::RollbackPrepared => false,
    }
}

fn of_one(one: &Classified) -> InReadOnly {
    let touches = |effect: &SessionEffect| {
        matches!(
            effect,
            SessionEffect::Dirty
                | SessionEffect::HoldCursor { .. }
                | SessionEffect::SessionAdvisoryLock
                | SessionEffect::AdvisoryUnlock { .. }
        )
    };
    let harmless = matches!(one.nature, Nature::Neutral | Nature::Bound | Nature::Loose);
    let query = match one.facts.kind {
        Kind::Select => true,
        Kind::Explain | Kind::Declare | Kind::CopyOut => one.inner.is_some(),
        Kind::Call | Kind::Do | Kind::Notify | Kind::Unknown => return InReadOnly::Primary,
        // The server refuses them before it runs anything of theirs.
        Kind::Insert
        | Kind::Update
        | Kind::Delete
        | Kind::Merge
        | Kind::CopyIn
        | Kind::Truncate
        | Kind::Ddl
        | Kind::Maintenance => return InReadOnly::GoesOn,
        Kind::ExplainRoute
        | Kind::Show
        | Kind::Set
        | Kind::Reset
        | Kind::Discard
        | Kind::Transaction
        | Kind::Prepare
        | Kind::Execute
        | Kind::Deallocate
        | Kind::Cursor
        | Kind::Listen
        | Kind::Lock
        | Kind::Empty => false,
    };
    if !harmless || one.facts.effect.each().iter().any(touches) {
        InReadOnly::Primary
    } else if query {
        InReadOnly::Opens
    } else {
        InReadOnly::GoesOn
    }
}
