//! Whether a unit that a replica failed may run a second time, on the primary.
//!
//! Only a read outside a transaction, and only while the client has seen
//! nothing of it. A replica fails what the primary runs: a read that its
//! replay had to stop, and a function or a view that writes although it looks
//! as if it read.
//!
//! Source: PostgreSQL manual, "Hot Standby"; hazards 56 and 61 of
//! `docs/hazards.md`.

use crate::types::SqlState;

/// The running unit's second try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondTry {
    allowed: bool,
    forbidden: bool,
    /// The client may have seen something of the unit before this walk.
    seen: bool,
    wanted: Option<Failure>,
    discard: bool,
}

/// Why a replica could not run a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its replay stopped the statement, or its database is gone.
    Conflict,
    /// The statement writes.
    Writes,
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
    /// nothing of this walk may reach the client.
    pub fn takes(&mut self, state: Option<SqlState>) -> bool {
        let failure = match state {
            Some(CONFLICT | DATABASE_DROPPED) => Failure::Conflict,
            Some(READ_ONLY) => Failure::Writes,
            Some(_) | None => return false,
        };
        if self.is_possible() {
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

/// `serialization_failure`: what a recovery conflict is.
const CONFLICT: SqlState = SqlState::new("40001");
/// `database_dropped`
const DATABASE_DROPPED: SqlState = SqlState::new("57P04");
/// `read_only_sql_transaction`
const READ_ONLY: SqlState = SqlState::new("25006");

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
        assert!(second.takes(Some(CONFLICT)) && second.discards());
        assert_eq!((second.take(), second.take()), (Some(Failure::Conflict), None));
        let mut second = allowed();
        assert!(second.takes(Some(READ_ONLY)));
        assert_eq!(second.take(), Some(Failure::Writes));
    }

    #[test]
    fn nothing_is_tried_again_that_the_client_has_seen_or_that_is_no_read() {
        let mut seen = allowed();
        seen.walk(true);
        assert!(!seen.takes(Some(CONFLICT)));
        let mut primary = SecondTry::default();
        primary.begin();
        assert!(!primary.takes(Some(CONFLICT)));
        let mut forbidden = allowed();
        forbidden.forbid();
        assert!(!forbidden.takes(Some(CONFLICT)));
        assert!(!allowed().takes(Some(SqlState::new("22012"))), "an error of its own");
    }
}
