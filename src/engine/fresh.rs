//! A READ ONLY transaction on a replica, and what its next statement must see.
//!
//! The replica stays the same, so that it shows no less than it did; what was
//! acknowledged since is waited for. What is in flight is not: nobody was told
//! of it. The session's next read elsewhere waits for that, as after any read
//! that may have seen more than the primary shows.

use crate::cluster::{Demand, SampleNumber, Wanted};
use crate::net::clock;
use crate::session::{Refused, Want};
use crate::types::{Consistency, Millis, SqlState};

use super::driver::Driver;
use super::parked::WaitsFor;

impl Driver {
    /// True if the transaction's replica has what the next statement must see;
    /// else that is waited for.
    pub(super) fn bring_fresh(&mut self, want: Want) -> bool {
        if self.is_fresh(want) {
            self.note_sight(want);
            return true;
        }
        self.park(want, FRESH_WAIT, WaitsFor::Fresh);
        false
    }

    /// The wait is over, one way or the other.
    pub(super) fn end_wait_for_fresh(&mut self, want: Want) {
        if self.is_fresh(want) {
            self.note_sight(want);
            return;
        }
        self.session.refuse_checkout(
            Refused::new(
                SERIALIZATION_FAILURE,
                format!(
                    "the replica of this read-only transaction has not replayed what the \
                     statement must see within {FRESH_WAIT}"
                ),
            )
            .hint("run the transaction again; under REPEATABLE READ nothing is waited for"),
        );
    }

    /// True if the replica that serves the transaction has what a statement that
    /// wants this must see.
    pub(super) fn is_fresh(&self, want: Want) -> bool {
        let Some(conn) = &self.held.current else { return true };
        let after = self.reads.after;
        let need = match self.level(want) {
            // It shows no less than it did, and the transaction writes nothing.
            Consistency::Session | Consistency::Any if after == SampleNumber::NONE => return true,
            Consistency::Session | Consistency::Any => after,
            Consistency::Bounded(lag) => {
                let wanted = Wanted::Within { lag, now: clock::now() };
                let node = conn.pool.node();
                return self.database.with_cluster(|cluster| cluster.is_fit(node, wanted));
            }
            Consistency::Primary | Consistency::Slot => {
                self.database.marks.need(want.shard, want.mark).max(after)
            }
        };
        let wanted = Wanted::Marks(Demand::Proof(need));
        let node = conn.pool.node();
        self.database.with_cluster(|cluster| cluster.is_fit(node, wanted))
    }

    /// What the statement may see of writes that are in flight.
    fn note_sight(&mut self, want: Want) {
        let level = self.level(want);
        if let Some(running) = &mut self.reads.running {
            running.mark = want.mark;
            running.level = level;
        }
    }
}

/// Longest wait of a transaction's statement for its replica.
const FRESH_WAIT: Millis = Millis::new(3_000);
const SERIALIZATION_FAILURE: SqlState = SqlState::new("40001");
