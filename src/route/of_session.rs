//! Statements without a table that ask, or set, how things stand with the session
//! and its transaction: the clock, settings, the backend's number.
//!
//! Outside a transaction they run at home, as all that names no table.

use crate::sql::token::Tokens;

use super::planner::World;
use super::volatility;

/// Whether it calls nothing but what tells, or sets, how things stand with the
/// session and its transaction: any shard that the transaction has is the one to
/// ask.
pub(super) fn asks_session(t: &Tokens<'_>, world: &World<'_>) -> bool {
    let called = |i: &usize| t.is_punct(i + 1, "(") && t.name(*i).is_some();
    t.is_word(0, "select")
        && (0..t.len()).filter(called).all(|i| {
            let own = i < 2 || !t.is_punct(i - 1, ".") || t.is_word(i - 2, "pg_catalog");
            let known = |name: &&&str| t.name(i).is_some_and(|found| *found == ***name);
            // One of the database's own may be meant.
            let name = OF_SESSION.iter().find(known).filter(|_| own);
            name.is_some_and(|name| volatility::nature(None, name, world).is_none())
        })
}

/// Functions of the session and of its transaction.
const OF_SESSION: [&str; 10] = [
    "now",
    "transaction_timestamp",
    "statement_timestamp",
    "clock_timestamp",
    "current_setting",
    "set_config",
    "pg_backend_pid",
    "txid_current",
    "pg_current_xact_id",
    "txid_current_if_assigned",
];
