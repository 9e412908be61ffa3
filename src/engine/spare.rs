//! Connections that one thread has to spare while another goes short.
//!
//! A connection is not handed over: the one thread closes it, the other opens
//! its own in its place. That costs a login, so it is done for clients that
//! wait for longer than those here, and one connection at a time.

use std::rc::Rc;
use std::sync::Arc;

use crate::pool::Ledger;
use crate::types::{Millis, Moment};

use super::pools::{SharedPool, drop_uncounted};
use super::thread::Thread;

impl Thread {
    /// Serves for as long as the thread lives.
    pub(super) async fn heed_nudges(thread: Rc<Self>) {
        if thread.crew.is_alone() {
            return;
        }
        loop {
            thread.crew.nudged(thread.index).await;
            thread.spare_idle();
            thread.open_wanted();
            thread.tell_wants();
        }
    }

    /// A pool finds its budgets spent: the other threads are asked, once.
    pub(super) fn ask_others(&self, pool: &SharedPool) {
        if self.crew.is_alone() {
            return;
        }
        let since = pool.with(|machine| machine.waits_since());
        let Some(since) = since else { return };
        let mut news = false;
        for ledger in pool.ledgers().filter(|ledger| ledger.is_spent()) {
            news |= ledger.want(self.index, Some(since));
        }
        if news {
            self.crew.nudge_others(self.index);
        }
    }

    /// Writes down for each budget since when this thread goes short of it, or
    /// that it does no more.
    pub(super) fn tell_wants(&self) {
        if self.crew.is_alone() {
            return;
        }
        let now = self.now();
        let mut wants: Vec<(Arc<Ledger>, Option<Moment>)> = Vec::new();
        for pool in self.pools.borrow().iter() {
            let since = pool.with(|machine| {
                let uncovered = machine.waiting() > machine.attempts();
                machine.waits_since().filter(|_| uncovered && machine.wants_connection(now))
            });
            for ledger in pool.ledgers() {
                let since = since.filter(|_| ledger.is_spent());
                match wants.iter_mut().find(|(known, _)| Arc::ptr_eq(known, ledger)) {
                    Some((_, oldest)) => {
                        *oldest = [*oldest, since].into_iter().flatten().min();
                    }
                    None => wants.push((Arc::clone(ledger), since)),
                }
            }
        }
        let mut short = false;
        for (ledger, since) in wants {
            ledger.want(self.index, since);
            short |= since.is_some();
        }
        if short {
            self.crew.nudge_others(self.index);
        }
    }

    /// True if a connection of `pool` that comes free should make way for a
    /// client of another thread.
    pub(super) fn is_owed_elsewhere(&self, pool: &SharedPool) -> bool {
        pool.node_share().closing() == 0 && self.has_waited_longer_elsewhere(pool)
    }

    /// True if a client of another thread has waited for longer for a place
    /// that a connection of `pool` takes than the first one here.
    pub(super) fn has_waited_longer_elsewhere(&self, pool: &SharedPool) -> bool {
        if self.crew.is_alone() {
            return false;
        }
        let own = pool.with(|machine| machine.waits_since());
        pool.ledgers().any(|ledger| ledger.is_owed_elsewhere(self.index, own, HAND_OVER_WAIT))
    }

    /// Closes an idle connection for each node that another thread goes short
    /// of.
    fn spare_idle(&self) {
        let pools: Vec<SharedPool> = self.pools.borrow().iter().cloned().collect();
        for pool in pools {
            let wanted = pool.ledgers().any(|ledger| ledger.is_wanted_elsewhere(self.index));
            if wanted
                && pool.node_share().closing() == 0
                && let Some(conn) = pool.evict()
            {
                drop_uncounted(vec![conn]);
            }
        }
    }

    /// Opens what is waited for, if there are places by now.
    fn open_wanted(self: &Rc<Self>) {
        let waiting: Vec<SharedPool> = {
            let pools = self.pools.borrow();
            pools.iter().filter(|pool| pool.with(|p| p.waiting() > 0)).cloned().collect()
        };
        for pool in waiting {
            if let Some(database) = self.databases.get(pool.database()) {
                self.open_connections(database, &pool);
            }
        }
    }
}

/// How much longer a client elsewhere must have waited than the first one here:
/// a turn must be worth its login.
const HAND_OVER_WAIT: Millis = Millis::new(50);
