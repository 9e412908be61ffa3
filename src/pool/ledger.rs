//! A budget that several threads draw on: what each of them has of it, what its
//! clients ask for, and since when the first of those waits.
//!
//! Threads write here what they are like at every tick, and when one goes short.
//! A thread that has more than its part gives a place up, by closing a
//! connection, if another's clients wait; each place that changes threads costs
//! a login, so what is alike is left alone. Nothing here waits or locks; what is
//! written may be a tick old, which costs a login and no correctness.
//!
//! Why two rules: by parts alone the last place of a small budget would stay
//! where it is; by time alone places would go to and fro between threads whose
//! clients wait equally long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::types::{Millis, Moment};

use super::budget::{Budget, Permit};

/// A budget with what its threads have of it.
#[derive(Debug)]
pub struct Ledger {
    budget: Arc<Budget>,
    desks: Box<[Desk]>,
}

/// What a thread has of a budget, and what it would like to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// Since when its first client waits that no connection is on its way for.
    pub short_since: Option<Moment>,
    /// Places that it has.
    pub held: u32,
    /// How many its clients would use, smoothed, in any unit that all share.
    pub demand: u32,
}

/// Whose clients have waited for so much longer that nothing else counts.
enum Turn {
    Ours,
    Theirs,
    ByParts,
}

/// One thread's [`Stand`]. Threads write often, so none shares a cache line
/// with another's.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Desk {
    /// In milliseconds and one; zero if none goes short.
    short_since: AtomicU64,
    held: AtomicU32,
    demand: AtomicU32,
}

impl Ledger {
    /// The ledger of `budget` for so many threads.
    pub fn new(budget: Arc<Budget>, threads: usize) -> Arc<Self> {
        Arc::new(Self { budget, desks: (0..threads).map(|_| Desk::default()).collect() })
    }

    /// A permit, if one is left.
    pub fn take(&self) -> Option<Permit> {
        self.budget.take()
    }

    /// True if no permit is left.
    pub fn is_spent(&self) -> bool {
        self.budget.is_spent()
    }

    /// Writes down what `thread` is like; true if it went short only now.
    pub fn tell(&self, thread: usize, stand: Stand) -> bool {
        let Some(desk) = self.desks.get(thread) else { return false };
        desk.held.store(stand.held, Ordering::Relaxed);
        desk.demand.store(stand.demand, Ordering::Relaxed);
        let word = stand.short_since.map_or(0, |since| since.ms().saturating_add(1));
        desk.short_since.swap(word, Ordering::AcqRel) == 0 && word != 0
    }

    /// True if `thread` has written down that it goes short.
    pub fn is_short(&self, thread: usize) -> bool {
        self.desks.get(thread).is_some_and(|desk| desk.read().short_since.is_some())
    }

    /// True if a thread other than `thread` goes short.
    pub fn is_wanted_elsewhere(&self, thread: usize) -> bool {
        self.others(thread).any(|other| other.short_since.is_some())
    }

    /// True if `thread`, which is like `own`, shall give a place up: another
    /// goes short which has less for its clients, also afterwards, or whose
    /// first client has waited for much longer. Of several the one that has
    /// most for its clients gives.
    pub fn owes(&self, thread: usize, own: Stand, now: Moment) -> bool {
        if own.held == 0 {
            return false;
        }
        let after = Stand { held: own.held - 1, ..own };
        let mut short = self.others(thread).filter(|other| other.short_since.is_some());
        short.any(|other| match Turn::of(own, other, now) {
            Turn::Theirs => true,
            Turn::Ours => false,
            Turn::ByParts => {
                other.would_have_no_more_than(after) && !self.is_richer_elsewhere(thread, own)
            }
        })
    }

    /// True if a place that is free is for another thread rather than for
    /// `thread`, which is like `own`.
    pub fn goes_elsewhere(&self, thread: usize, own: Stand, now: Moment) -> bool {
        let mut short = self.others(thread).filter(|other| other.short_since.is_some());
        short.any(|other| match Turn::of(own, other, now) {
            Turn::Theirs => true,
            Turn::Ours => false,
            Turn::ByParts => other.would_have_no_more_than(own),
        })
    }

    fn is_richer_elsewhere(&self, thread: usize, own: Stand) -> bool {
        self.desks.iter().enumerate().filter(|(index, _)| *index != thread).any(|(index, desk)| {
            let other = desk.read();
            let (has, this) = (parts(other.held, own), parts(own.held, other));
            has > this || (has == this && index < thread)
        })
    }

    fn others(&self, thread: usize) -> impl Iterator<Item = Stand> {
        let others = self.desks.iter().enumerate().filter(move |(index, _)| *index != thread);
        others.map(|(_, desk)| desk.read())
    }
}

impl Desk {
    fn read(&self) -> Stand {
        Stand {
            short_since: self
                .short_since
                .load(Ordering::Acquire)
                .checked_sub(1)
                .map(Moment::from_ms),
            held: self.held.load(Ordering::Relaxed),
            demand: self.demand.load(Ordering::Relaxed),
        }
    }
}

impl Turn {
    fn of(own: Stand, other: Stand, now: Moment) -> Self {
        let (ours, theirs) = (own.wait(now), other.wait(now));
        let late = |wait: u64| wait.saturating_mul(2).saturating_add(HAND_OVER_WAIT.count());
        if theirs > late(ours) {
            Self::Theirs
        } else if ours > late(theirs) {
            Self::Ours
        } else {
            Self::ByParts
        }
    }
}

impl Stand {
    /// What two pools of one thread are together.
    pub fn joined(self, other: Self) -> Self {
        Self {
            short_since: [self.short_since, other.short_since].into_iter().flatten().min(),
            held: self.held.saturating_add(other.held),
            demand: self.demand.saturating_add(other.demand),
        }
    }

    /// True if it would have no more for its clients than `other` does, with a
    /// place more than it has.
    fn would_have_no_more_than(self, other: Self) -> bool {
        parts(self.held.saturating_add(1), other) <= parts(other.held, self)
    }

    /// How long its first client has waited, in milliseconds.
    fn wait(self, now: Moment) -> u64 {
        self.short_since.map_or(0, |since| now.since(since).count())
    }
}

/// So many places of one thread times the demand of another: what two threads
/// have for their clients, compared without a division.
fn parts(places: u32, of: Stand) -> u64 {
    // Without a demand of its own nobody is richer or poorer than another.
    u64::from(places) * u64::from(of.demand.max(1))
}

/// How much longer a client elsewhere must have waited: a turn must be worth
/// its login.
const HAND_OVER_WAIT: Millis = Millis::new(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_ms(ms)
    }

    fn stand(short_since: Option<u64>, held: u32, demand: u32) -> Stand {
        Stand { short_since: short_since.map(at), held, demand }
    }

    fn ledger(threads: usize) -> Arc<Ledger> {
        Ledger::new(Budget::new(20, 0), threads)
    }

    #[test]
    fn a_thread_that_goes_short_is_news_once() {
        let ledger = ledger(3);
        assert!(!ledger.is_wanted_elsewhere(0));
        assert!(ledger.tell(2, stand(Some(0), 1, 1)), "also if it is so since the start");
        assert!(!ledger.tell(2, stand(Some(90), 1, 1)), "it went short before");
        assert!(ledger.is_wanted_elsewhere(0) && !ledger.is_wanted_elsewhere(2));
        assert!(!ledger.tell(2, stand(None, 1, 1)));
        assert!(!ledger.is_wanted_elsewhere(0));
    }

    #[test]
    fn a_place_goes_to_the_thread_that_has_less_for_its_clients() {
        let ledger = ledger(2);
        ledger.tell(1, stand(Some(100), 8, 32));
        assert!(ledger.owes(0, stand(Some(100), 12, 32), at(100)));
        // Afterwards it must not have less itself, or the place would come back.
        assert!(!ledger.owes(0, stand(Some(100), 9, 32), at(100)));
        assert!(ledger.owes(0, stand(Some(100), 9, 25), at(100)));
        ledger.tell(1, stand(None, 8, 32));
        assert!(!ledger.owes(0, stand(None, 12, 0), at(900)), "nobody waits there");
    }

    #[test]
    fn a_place_that_was_passed_on_never_comes_back_by_itself() {
        let ledger = ledger(2);
        for held in 1..20 {
            for (here, there) in [(32, 32), (10, 70), (33, 31), (1, 1)] {
                let own = stand(Some(0), held, here);
                ledger.tell(1, stand(Some(0), 20 - held, there));
                if !ledger.owes(0, own, at(0)) {
                    continue;
                }
                let (own, other) =
                    (stand(Some(0), held - 1, here), stand(Some(0), 21 - held, there));
                ledger.tell(0, own);
                assert!(!ledger.owes(1, other, at(0)), "{held} of 20, {here} and {there}");
            }
        }
    }

    #[test]
    fn who_has_waited_for_much_longer_gets_the_last_place() {
        let ledger = ledger(2);
        ledger.tell(1, stand(Some(100), 0, 4));
        assert!(!ledger.owes(0, stand(Some(140), 1, 4), at(150)));
        assert!(ledger.owes(0, stand(Some(151), 1, 4), at(151)));
        assert!(!ledger.owes(0, stand(Some(100), 1, 4), at(900)), "they wait alike");
        assert!(!ledger.owes(0, stand(None, 0, 4), at(900)), "it has none");
    }

    /// Else it would lie there.
    #[test]
    fn a_free_place_is_for_somebody() {
        let ledger = ledger(2);
        let numbers = [0, 1, 2, 7];
        let sinces = [0, 100, 200, 400];
        for (a, b) in numbers.into_iter().flat_map(|a| numbers.map(|b| (a, b))) {
            for (c, d) in numbers.into_iter().flat_map(|c| numbers.map(|d| (c, d))) {
                for (e, f) in sinces.into_iter().flat_map(|e| sinces.map(|f| (e, f))) {
                    let (here, there) = (stand(Some(e), a, b), stand(Some(f), c, d));
                    ledger.tell(0, here);
                    ledger.tell(1, there);
                    let elsewhere = [
                        ledger.goes_elsewhere(0, here, at(500)),
                        ledger.goes_elsewhere(1, there, at(500)),
                    ];
                    assert_ne!(elsewhere, [true, true], "{here:?} {there:?}");
                }
            }
        }
    }

    #[test]
    fn the_thread_that_has_most_gives() {
        let ledger = ledger(3);
        let stands = [stand(None, 8, 8), stand(None, 9, 8), stand(Some(0), 3, 20)];
        for (thread, stand) in stands.into_iter().enumerate() {
            ledger.tell(thread, stand);
        }
        let owes = stands.iter().enumerate().map(|(n, own)| ledger.owes(n, *own, at(0)));
        assert_eq!(owes.collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn a_free_place_is_for_the_thread_that_has_less() {
        let ledger = ledger(2);
        let (here, there) = (stand(Some(0), 9, 32), stand(Some(0), 10, 32));
        ledger.tell(0, here);
        ledger.tell(1, there);
        assert!(!ledger.goes_elsewhere(0, here, at(0)) && ledger.goes_elsewhere(1, there, at(0)));
        // If they have the same, who comes first takes it.
        ledger.tell(1, here);
        assert!(!ledger.goes_elsewhere(0, here, at(0)) && !ledger.goes_elsewhere(1, here, at(0)));
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
