//! Whether a unit that failed where it was sent may run a second time: one that
//! a replica failed on the primary, one that a fence refused where its rows are
//! moved to.
//!
//! Only while the client has seen nothing of it, and only the first unit of a
//! transaction. A replica fails what the primary runs: a read that its replay
//! had to stop, what only a primary has, and a function or a view that writes
//! although it looks as if it read.
//!
//! Source: PostgreSQL manual, "Hot Standby"; hazards 56 and 61 of
//! `docs/hazards.md`.

use crate::protocol::backend::ErrorFields;
use crate::protocol::encode::{ErrorReport, error_response};
use crate::types::SqlState;

/// The running unit's second try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondTry {
    allowed: bool,
    /// It may run again where it was refused by a fence.
    past_fence: bool,
    forbidden: bool,
    /// The client may have seen something of the unit before this walk.
    seen: bool,
    wanted: Option<Failure>,
    discard: bool,
}

/// How much of a unit the server was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Up to its end.
    Whole,
    /// The client may send more of it.
    InPart,
}

/// Why a unit could not run where it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its replay stopped the statement, its database is gone, or a standby does
    /// not have what it asks for.
    Conflict,
    /// The statement writes.
    Writes,
    /// The fence of a move refuses writes to its keys.
    Fenced,
}

impl SecondTry {
    /// A unit begins.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    /// It is a read on a replica, and its bytes are kept.
    pub fn allow(&mut self) {
        self.allowed = true;
    }

    /// It is the first of its transaction, on a primary, and its bytes are kept.
    pub fn allow_past_fence(&mut self) {
        self.past_fence = true;
    }

    /// It has done something at the router that can't be done twice.
    pub fn forbid(&mut self) {
        self.forbidden = true;
    }

    /// A walk over replies begins; `answered`: the client has been told
    /// something of the unit.
    pub fn walk(&mut self, answered: bool) {
        self.seen = answered;
        self.discard = false;
    }

    /// True if the unit may be sent again.
    pub const fn is_possible(&self) -> bool {
        self.allowed && !self.forbidden && !self.seen
    }

    /// The server refused it with `state`: true if it is to run elsewhere, and
    /// nothing of this walk may reach the client. `sent`: its end was sent.
    pub fn takes(&mut self, state: Option<SqlState>, sent: Sent) -> bool {
        let (failure, possible) = match state {
            Some(CONFLICT | DATABASE_DROPPED | UNSUPPORTED) => {
                (Failure::Conflict, self.is_possible())
            }
            Some(READ_ONLY) => (Failure::Writes, self.is_possible()),
            Some(FENCED) => {
                let first = self.past_fence && !self.forbidden && !self.seen;
                (Failure::Fenced, first && sent == Sent::Whole)
            }
            Some(_) | None => return false,
        };
        if possible {
            self.wanted = Some(failure);
            self.discard = true;
        }
        self.discard
    }

    /// True if what this walk has found is not for the client.
    pub const fn discards(&self) -> bool {
        self.discard
    }

    /// True if the unit is to run elsewhere.
    pub const fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Why the unit is to run elsewhere; told once.
    pub fn take(&mut self) -> Option<Failure> {
        self.wanted.take()
    }
}

/// A fence's own state: rows of the key are being moved.
pub(super) const FENCED: SqlState = SqlState::new("KW001");
/// `serialization_failure`: what a recovery conflict is.
const CONFLICT: SqlState = SqlState::new("40001");
/// `database_dropped`
const DATABASE_DROPPED: SqlState = SqlState::new("57P04");
/// `feature_not_supported`: a standby has no SERIALIZABLE and no unlogged tables.
const UNSUPPORTED: SqlState = SqlState::new("0A000");
/// `read_only_sql_transaction`
const READ_ONLY: SqlState = SqlState::new("25006");

/// What the client hears of a fence: its transaction can't go on here, and may
/// be tried again.
pub(super) fn report_fence(fields: &ErrorFields<'_>, out: &mut Vec<u8>) {
    let detail = String::from_utf8_lossy(fields.field(b'D').unwrap_or_default());
    let mut report = ErrorReport::error(
        SERIALIZATION_FAILURE,
        "could not serialize access: rows of the statement's keys are being moved to another shard",
    );
    report.detail = (!detail.is_empty()).then_some(&*detail);
    report.hint = Some("retry the transaction");
    error_response(out, &report);
}

/// A fence's detail goes on with the move's number.
pub(super) const FENCE_DETAIL: &[u8] = b"move=";
pub(super) const SERIALIZATION_FAILURE: SqlState = SqlState::new("40001");

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> SecondTry {
        let mut second = SecondTry::default();
        second.begin();
        second.allow();
        second.walk(false);
        second
    }

    #[test]
    fn a_conflict_before_any_answer_is_tried_again() {
        let mut second = allowed();
        assert!(second.takes(Some(CONFLICT), Sent::Whole) && second.discards());
        assert_eq!((second.take(), second.take()), (Some(Failure::Conflict), None));
        let mut second = allowed();
        assert!(second.takes(Some(READ_ONLY), Sent::Whole));
        assert_eq!(second.take(), Some(Failure::Writes));
        let mut second = allowed();
        assert!(second.takes(Some(UNSUPPORTED), Sent::Whole));
    }

    #[test]
    fn nothing_is_tried_again_that_the_client_has_seen_or_that_is_no_read() {
        let mut seen = allowed();
        seen.walk(true);
        assert!(!seen.takes(Some(CONFLICT), Sent::Whole));
        let mut primary = SecondTry::default();
        primary.begin();
        assert!(!primary.takes(Some(CONFLICT), Sent::Whole));
        let mut forbidden = allowed();
        forbidden.forbid();
        assert!(!forbidden.takes(Some(CONFLICT), Sent::Whole));
        let other = Some(SqlState::new("22012"));
        assert!(!allowed().takes(other, Sent::Whole), "an error of its own");
    }

    #[test]
    fn what_a_fence_refused_runs_again_if_it_is_first_whole_and_unseen() {
        let mut first = SecondTry::default();
        first.begin();
        first.allow_past_fence();
        first.walk(false);
        assert!(!first.is_possible(), "a lost connection is another thing");
        assert!(!first.takes(Some(CONFLICT), Sent::Whole), "a conflict of its own");
        assert!(!first.takes(Some(FENCED), Sent::InPart));
        assert!(first.takes(Some(FENCED), Sent::Whole));
        assert_eq!(first.take(), Some(Failure::Fenced));
        assert!(!allowed().takes(Some(FENCED), Sent::Whole), "a later one");
        let mut seen = SecondTry::default();
        seen.allow_past_fence();
        seen.walk(true);
        assert!(!seen.takes(Some(FENCED), Sent::Whole));
    }
}
