//! A budget that several threads draw on: which of them go short of it, and
//! since when their first client waits.
//!
//! A thread whose pool finds the budget spent writes down how long its first
//! client has waited. A thread that has a connection to spare looks here
//! whether somebody elsewhere has waited longer, closes it, and so passes its
//! place on. Nothing here waits or locks; what is written down may be a moment
//! old, which costs a login and no correctness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::{Millis, Moment};

use super::budget::{Budget, Permit};

/// A budget with its threads' wants.
#[derive(Debug)]
pub struct Ledger {
    budget: Arc<Budget>,
    /// By thread: since when its first client waits, in milliseconds and one;
    /// zero if none goes short.
    wants: Box<[AtomicU64]>,
}

impl Ledger {
    /// The ledger of `budget` for so many threads.
    pub fn new(budget: Arc<Budget>, threads: usize) -> Arc<Self> {
        Arc::new(Self { budget, wants: (0..threads).map(|_| AtomicU64::new(0)).collect() })
    }

    /// A permit, if one is left.
    pub fn take(&self) -> Option<Permit> {
        self.budget.take()
    }

    /// True if no permit is left.
    pub fn is_spent(&self) -> bool {
        self.budget.is_spent()
    }

    /// Writes down that `thread` goes short since then, or no more; true if it
    /// went short only now.
    pub fn want(&self, thread: usize, since: Option<Moment>) -> bool {
        let word = since.map_or(0, |since| since.ms().saturating_add(1));
        let before = self.wants.get(thread).map(|want| want.swap(word, Ordering::AcqRel));
        before == Some(0) && word != 0
    }

    /// True if a thread other than `thread` goes short.
    pub fn is_wanted_elsewhere(&self, thread: usize) -> bool {
        self.others(thread).next().is_some()
    }

    /// True if somebody elsewhere has waited for longer than the client that
    /// waits here since `own`, by more than `margin`; anybody has if nobody
    /// waits here.
    pub fn is_owed_elsewhere(&self, thread: usize, own: Option<Moment>, margin: Millis) -> bool {
        self.others(thread).any(|since| match own {
            None => true,
            Some(own) => since.after(margin) < own,
        })
    }

    fn others(&self, thread: usize) -> impl Iterator<Item = Moment> {
        self.wants
            .iter()
            .enumerate()
            .filter(move |(index, _)| *index != thread)
            .filter_map(|(_, want)| want.load(Ordering::Acquire).checked_sub(1))
            .map(Moment::from_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<Moment> {
        Some(Moment::from_ms(ms))
    }

    #[test]
    fn a_place_goes_to_the_thread_whose_client_has_waited_longer() {
        let ledger = Ledger::new(Budget::new(1, 0), 3);
        let margin = Millis::new(50);
        assert!(!ledger.is_wanted_elsewhere(0) && !ledger.is_owed_elsewhere(0, None, margin));
        assert!(ledger.want(2, at(100)));
        assert!(!ledger.want(2, at(90)), "it went short before");
        assert!(ledger.is_wanted_elsewhere(0) && !ledger.is_wanted_elsewhere(2));
        assert!(ledger.is_owed_elsewhere(0, None, margin));
        assert!(!ledger.is_owed_elsewhere(0, at(140), margin));
        assert!(ledger.is_owed_elsewhere(0, at(141), margin));
        assert!(!ledger.is_owed_elsewhere(2, at(900), margin), "it is its own");
        ledger.want(2, None);
        assert!(!ledger.is_wanted_elsewhere(0));
    }

    #[test]
    fn a_client_that_waits_since_the_start_counts() {
        let ledger = Ledger::new(Budget::new(1, 0), 2);
        assert!(ledger.want(0, Some(Moment::START)));
        assert!(ledger.is_wanted_elsewhere(1));
    }

    #[test]
    fn threads_share_the_permits() {
        let ledger = Ledger::new(Budget::new(2, 1), 2);
        let permit = ledger.take();
        assert!(permit.is_some() && ledger.take().is_none());
        drop(permit);
        assert!(ledger.take().is_some());
    }
}
