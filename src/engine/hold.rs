//! A client that waits for a move: until the map or the moves change, up to a
//! limit; and one whose first statement a fence has refused, which tries again
//! by itself.
//!
//! What waits is the session's to say; the bytes stay where they are and are
//! fed again.

use std::rc::Rc;

use crate::net::clock;
use crate::session::waited_too_long;
use crate::types::{Millis, Moment, ShardId};

use super::cleanup::LeftBehind;
use super::driver::Driver;

/// A client's wait for a move.
#[derive(Default)]
pub(super) struct Hold {
    /// It waits now.
    on: bool,
    /// Since when the statement at the head of the input has waited, with all
    /// its tries.
    since: Option<Moment>,
    /// How often a fence has refused it.
    tries: u32,
}

impl Hold {
    /// True while it waits.
    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    /// True if the statement at the head of the input has waited.
    pub(super) const fn has_been(&self) -> bool {
        self.since.is_some()
    }

    /// Since when, while it waits.
    pub(super) const fn since(&self) -> Option<Moment> {
        if self.on { self.since } else { None }
    }
}

impl Driver {
    /// The statement at the head of the input waits for another map or other
    /// moves.
    pub(super) fn hold(&mut self) {
        let since = *self.hold.since.get_or_insert_with(clock::now);
        self.hold.on = true;
        self.entry.held_since.set(Some(since));
        self.entry.move_waits.set(self.entry.move_waits.get() + 1);
        // Nothing of its transaction was sent anywhere.
        self.leave_moves();
        let stats = &self.thread.stats;
        stats.held.set(stats.held.get() + 1);
    }

    /// It waits no more; true if it did.
    pub(super) fn end_hold(&mut self) -> bool {
        self.entry.held_since.set(None);
        std::mem::take(&mut self.hold.on)
    }

    /// A unit begins: the next one's wait is another.
    #[cold]
    pub(super) fn forget_hold(&mut self) {
        // One that a fence may refuse goes on with the same.
        if !self.session.is_on_moves() {
            self.hold = Hold::default();
        }
    }

    /// It has waited as long as it may.
    pub(super) fn give_up_hold(&mut self, now: Moment) {
        let limit = self.thread.settings.moves.hold_max;
        if self.hold.since.is_some_and(|since| now.since(since) < limit) {
            return;
        }
        self.hold = Hold { on: true, ..Hold::default() };
        let stats = &self.thread.stats;
        stats.hold_timeouts.set(stats.hold_timeouts.get() + 1);
        self.give_up_waiting(waited_too_long(limit));
    }

    /// A fence has refused the transaction's first unit on `shard`: it is fed
    /// again, at once if the map has changed meanwhile, else after a while.
    pub(super) fn start_again(&mut self, shard: ShardId) {
        if let Some(conn) = self.held.take(shard) {
            self.session.leave(shard);
            self.entry.running.borrow_mut().remove(&conn);
            // A lock of the session's outlasts the failure of what took it.
            let dirty = conn.machine.is_dirty();
            self.thread.clean_up(Some(&self.entry), conn, LeftBehind::Nothing, dirty);
        }
        self.session.start_again();
        self.leave_moves();
        self.feed_unit_again();
        let stats = &self.thread.stats;
        stats.fenced.set(stats.fenced.get() + 1);
        if self.reads.is_of_revision(self.database.revision()) {
            self.hold.tries = self.hold.tries.saturating_add(1);
            self.hold();
            self.wake_after(pause(self.hold.tries));
        }
        if self
            .hold
            .since
            .is_some_and(|since| clock::now().since(since) >= self.thread.settings.moves.hold_max)
        {
            self.give_up_hold(clock::now());
        }
    }

    fn wake_after(&self, pause: Millis) {
        let entry = Rc::clone(&self.entry);
        self.thread.spawn(async move {
            tokio::time::sleep(clock::duration(pause)).await;
            entry.signal(|signals| signals.moves = true);
        });
    }

    /// True while what the client has open may be on keys that move.
    #[inline]
    pub(super) fn is_on_moves(&self) -> bool {
        self.session.is_on_moves() || self.entry.open.any()
    }

    /// What the session has open on keys that move, for whoever waits for its
    /// end.
    #[cold]
    pub(super) fn follow_moves(&mut self) {
        let over = self.session.is_between_units()
            && !self.session.is_placed()
            && !self.session.in_transaction(self.held.machine())
            && !self.is_waiting();
        if over {
            self.hold = Hold::default();
            self.session.leave_moves();
            self.leave_moves();
        } else {
            self.entry.open.note(self.session.moves_open(), clock::now());
        }
    }

    /// The client has nothing open on keys that move.
    pub(super) fn leave_moves(&self) {
        if self.entry.open.clear() {
            self.thread.look_at_drains();
        }
    }
}

/// How long a statement waits that a fence has refused so often.
fn pause(tries: u32) -> Millis {
    let doubled = 1_u64.checked_shl(tries.min(PAUSES)).unwrap_or(1);
    Millis::new(PAUSE_MS.saturating_mul(doubled))
}

/// Half of the first pause, in milliseconds.
const PAUSE_MS: u64 = 2;
/// After so many tries pauses don't grow any more.
const PAUSES: u32 = 6;
