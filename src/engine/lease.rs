//! A database's lease, as the threads see it: one word that says until when its
//! clients' statements may be sent. It does not know who gives the lease, or
//! why.
//!
//! Without a lease a unit that has no backend yet waits as at a pause; a client
//! in a transaction is read no further, and what it has sent waits. Either goes
//! on when the lease is back, by the map that is in force then; what has waited
//! for too long is refused, and an open transaction ends with its connection.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::clock;
use crate::session::Refused;
use crate::types::{Millis, Moment, SqlState};

use super::driver::Driver;
use super::thread::{Database, Thread};

/// Until when statements may be sent. The control plane writes it, the threads
/// read it.
#[derive(Debug)]
pub struct Lease(AtomicU64);

/// Which clock a lease is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// The threads' coarse clock: a process that was stopped for longer than
    /// the lease may go on with it for one turn of its tasks.
    Coarse,
    /// The time at each statement.
    Exact,
}

impl Lease {
    /// Statements may be sent whenever.
    pub const fn unneeded() -> Self {
        Self(AtomicU64::new(UNNEEDED))
    }

    /// Nothing may be sent yet.
    pub const fn none() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Statements may be sent before `until`.
    pub fn set(&self, until: Moment, precision: Precision) {
        let exact = match precision {
            Precision::Coarse => 0,
            Precision::Exact => 1,
        };
        let word = until.ms().saturating_mul(2) | exact;
        self.0.store(word.min(UNNEEDED - 1), Ordering::Release);
    }

    /// Statements may be sent whenever, from now on.
    pub fn waive(&self) {
        self.0.store(UNNEEDED, Ordering::Release);
    }

    #[inline]
    pub(super) fn has_lapsed(&self, coarse: Moment) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word != UNNEEDED && is_over(word, coarse)
    }
}

fn is_over(word: u64, coarse: Moment) -> bool {
    let now = if word & 1 == 1 { clock::now() } else { coarse };
    now.ms() >= word / 2
}

impl Thread {
    /// Clients hear of a lease that has lapsed, or is back.
    pub(super) fn look_at_leases(&self) {
        for database in &self.databases {
            let lapsed = database.lease.has_lapsed(self.now());
            if database.gate.note_lapse(lapsed) != lapsed {
                if lapsed && self.index == 0 {
                    tracing::warn!(
                        database = %database.name,
                        "the lease has lapsed: nothing is sent to the shards until it is renewed"
                    );
                }
                self.signal_clients(database, |signals| signals.gate = true);
            }
        }
    }
}

impl Database {
    /// True while nothing may be sent.
    #[inline]
    pub(super) fn is_lapsed(&self, coarse: Moment) -> bool {
        self.lease.has_lapsed(coarse)
    }
}

impl Driver {
    /// True while what the client says to the backend that it holds may not be
    /// sent.
    #[inline]
    pub(super) fn is_stalled(&self) -> bool {
        self.held.current.is_some() && self.database.is_lapsed(self.thread.now())
    }

    /// Notes since when the client's bytes wait for a lease.
    #[cold]
    pub(super) fn note_stall(&mut self) {
        if !self.session.is_awaiting() && !self.is_waiting() && self.is_stalled() {
            self.stalled = Some(clock::now());
        }
    }

    /// The lease has not come back in time.
    pub(super) fn give_up_stall(&mut self) {
        self.say_goodbye(
            "57P01",
            "terminating connection: the router could not renew its lease on the home shard",
        );
    }
}

/// A unit has waited for too long for a lease.
pub(super) fn no_lease(limit: Millis) -> Refused {
    Refused::new(
        SERIALIZATION_FAILURE,
        format!("the router has had no lease on the home shard for {limit}"),
    )
    .hint("retry the transaction; SHOW EPOCHS on the console says which router is behind")
}

/// While a unit waited for a lease the map or the moves have changed, and a
/// part of it had gone by the older ones.
pub(super) fn map_has_changed() -> Refused {
    Refused::new(
        SERIALIZATION_FAILURE,
        "could not serialize access: the shard map has changed while the router had no lease",
    )
    .hint("retry the transaction")
}

/// More than any time.
const UNNEEDED: u64 = u64::MAX;
/// `serialization_failure`
const SERIALIZATION_FAILURE: SqlState = SqlState::new("40001");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lapses_by_the_clock_that_it_is_held_against() {
        let lease = Lease::none();
        assert!(lease.has_lapsed(Moment::from_ms(0)));
        lease.set(Moment::from_ms(500), Precision::Coarse);
        assert!(!lease.has_lapsed(Moment::from_ms(499)));
        assert!(lease.has_lapsed(Moment::from_ms(500)));
        let later = clock::now().after(Millis::new(600_000));
        lease.set(later, Precision::Exact);
        assert!(!lease.has_lapsed(later), "the coarse clock does not count");
        lease.set(Moment::from_ms(0), Precision::Exact);
        assert!(lease.has_lapsed(Moment::from_ms(0)));
        lease.waive();
        assert!(!lease.has_lapsed(later));
        assert!(!Lease::unneeded().has_lapsed(later));
    }
}
