//! How many sessions of one user and database keep a backend beyond their
//! transactions: each takes a seat with the first thing that holds, and leaves
//! it when nothing does any more. All threads share the seats.
//!
//! Sessions in session mode have their backends for life and take none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::refusal::{LIMIT_EXCEEDED_BY_CONFIGURATION, Refused};
use super::{Holds, Session};

/// The seats of one user and database.
#[derive(Debug)]
pub struct Holders {
    /// Zero: any number.
    max: u32,
    now: AtomicU32,
}

/// A session's seat.
#[derive(Debug)]
pub(super) struct Seat(Arc<Holders>);

impl Holders {
    /// So many seats; zero is any number.
    pub fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { max, now: AtomicU32::new(0) })
    }

    /// A seat; `None` if all are taken.
    fn sit(self: &Arc<Self>) -> Option<Seat> {
        let taken = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (self.max == 0 || now < self.max).then(|| now.saturating_add(1))
        });
        taken.is_ok().then(|| Seat(Arc::clone(self)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    /// What holds the session's backends takes a seat here.
    #[must_use]
    pub fn with_holders(self, holders: Arc<Holders>) -> Self {
        Self { holders: Some(holders), ..self }
    }

    /// Takes the session's seat before `holds` begins to hold a backend.
    ///
    /// # Errors
    /// All seats are taken.
    pub(super) fn admit_hold(&mut self, holds: Holds) -> Result<(), Refused> {
        if holds.is_empty() || self.seat.is_some() || self.holds.contains(Holds::SESSION) {
            return Ok(());
        }
        let Some(holders) = &self.holders else { return Ok(()) };
        self.seat = holders.sit();
        if self.seat.is_some() {
            return Ok(());
        }
        let max = holders.max;
        Err(Refused::new(
            LIMIT_EXCEEDED_BY_CONFIGURATION,
            format!(
                "{} would keep a connection, and {max} clients of this user and database do already",
                holds.words()
            ),
        )
        .hint("let others end theirs (DISCARD ALL, or disconnect; SHOW HOLDS on the console lists them), or raise pool.holders_max"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_session_leaves_it() {
        let holders = Holders::new(2);
        let (one, two) = (holders.sit().unwrap(), holders.sit().unwrap());
        assert!(holders.sit().is_none());
        drop(one);
        let three = holders.sit();
        assert!(three.is_some() && holders.sit().is_none());
        drop((two, three));
        assert_eq!(holders.now.load(Ordering::Relaxed), 0);
        let any = Holders::new(0);
        let all: Vec<_> = (0..1_000).map(|_| any.sit()).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
