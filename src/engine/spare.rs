//! Connections that one thread gives up so that another may open its own.
//!
//! A connection is not handed over: the one thread closes it, the other opens
//! another in its place. That costs a login, so who has how much is looked at
//! once a tick ([`Ledger`]), not whenever a connection comes free, and no more
//! than one connection of a node is on its way out for this.
//!
//! A thread wakes the others when it goes short, and when a place has come back
//! that one of them wants: never in answer to being woken itself, unless it has
//! come closer to what it wants, or two that both go short would wake each
//! other for ever.

use std::rc::Rc;

use crate::pool::{Ledger, Stand};
use crate::types::Millis;

use super::pools::{SharedPool, drop_uncounted};
use super::share::NodeShare;
use super::thread::Thread;

/// Whether the others are to be told that this thread goes short.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    /// It goes short, and did not before.
    Short,
    /// They know, or there is nothing to know.
    Nothing,
}

impl Thread {
    /// Serves for as long as the thread lives.
    pub(super) async fn heed_nudges(thread: Rc<Self>) {
        if thread.crew.is_alone() {
            return;
        }
        loop {
            thread.crew.nudged(thread.index).await;
            thread.stats.nudges.set(thread.stats.nudges.get() + 1);
            let opened = thread.open_wanted();
            thread.take_stock();
            thread.spare_idle();
            if opened > 0 && thread.goes_short() {
                thread.crew.nudge_others(thread.index);
            }
        }
    }

    /// At every tick: says what this thread is like, sees whether it has more
    /// than its part, and takes what has come free.
    pub(super) fn share_with_others(self: &Rc<Self>) {
        if self.crew.is_alone() {
            return;
        }
        for pool in self.pools.borrow().iter() {
            pool.smooth_demand();
            pool.note_asked(false);
        }
        self.open_wanted();
        if self.take_stock() == News::Short {
            self.crew.nudge_others(self.index);
        }
        self.spare_idle();
    }

    /// A pool finds its budgets spent: the other threads are told, at most once
    /// a tick.
    pub(super) fn ask_others(&self, pool: &SharedPool) {
        if self.crew.is_alone() || pool.note_asked(true) {
            return;
        }
        if self.take_stock() == News::Short {
            self.crew.nudge_others(self.index);
        }
    }

    /// True if a place that is free is rather for a client of another thread
    /// than for one of `pool`.
    pub(super) fn is_for_others(&self, pool: &SharedPool) -> bool {
        let now = self.now();
        let own = pool.with(|machine| machine.stand(now));
        if pool.size().is_some_and(|size| size.goes_elsewhere(self.index, own, now)) {
            return true;
        }
        let node = pool.node_share().ledger();
        node.is_wanted_elsewhere(self.index)
            && node.goes_elsewhere(self.index, self.stand_at(pool.node_share()), now)
    }

    /// What this thread is like at a node.
    fn stand_at(&self, share: &Rc<NodeShare>) -> Stand {
        let now = self.now();
        let pools = self.pools.borrow();
        let there = pools.iter().filter(|pool| Rc::ptr_eq(pool.node_share(), share));
        there
            .map(|pool| pool.with(|machine| machine.stand(now)))
            .fold(Stand::default(), Stand::joined)
    }

    /// Writes down for each budget what this thread is like, and notes where it
    /// has more than its part.
    fn take_stock(&self) -> News {
        let now = self.now();
        let mut news = false;
        let mut nodes: Vec<(Rc<NodeShare>, Stand)> = Vec::new();
        let mut settle = |ledger: &Ledger, share: &NodeShare, mut own: Stand| {
            own.short_since = own.short_since.filter(|_| ledger.is_spent());
            news |= ledger.tell(self.index, own);
            share.closing() == 0 && ledger.owes(self.index, own, now)
        };
        for pool in self.pools.borrow().iter() {
            let (own, share) = (pool.with(|machine| machine.stand(now)), pool.node_share());
            if let Some(size) = pool.size() {
                pool.set_owes(settle(size, share, own));
            }
            match nodes.iter_mut().find(|(known, _)| Rc::ptr_eq(known, share)) {
                Some((_, all)) => *all = all.joined(own),
                None => nodes.push((Rc::clone(share), own)),
            }
        }
        for (share, own) in nodes {
            share.set_owes(settle(share.ledger(), &share, own));
        }
        if news { News::Short } else { News::Nothing }
    }

    /// True if this thread has said that it goes short of something.
    fn goes_short(&self) -> bool {
        let pools = self.pools.borrow();
        pools.iter().any(|pool| {
            let ledgers = [Some(pool.node_share().ledger()), pool.size()];
            ledgers.into_iter().flatten().any(|ledger| ledger.is_short(self.index))
        })
    }

    /// Closes an idle connection for each node that another thread goes short
    /// of, if this one has more than its part or has not needed it for a while:
    /// what is idle for a moment will be wanted again here.
    fn spare_idle(&self) {
        let now = self.now();
        let pools: Vec<SharedPool> = self.pools.borrow().iter().cloned().collect();
        for pool in pools {
            let unused = pool.with(|machine| machine.idle_since());
            let Some(unused) = unused.filter(|_| pool.node_share().closing() == 0) else {
                continue;
            };
            let ledgers = [Some(pool.node_share().ledger()), pool.size()];
            let mut ledgers = ledgers.into_iter().flatten();
            let wanted = ledgers.any(|ledger| ledger.is_wanted_elsewhere(self.index));
            if wanted
                && (pool.owes() || now.since(unused) >= UNUSED_WAIT)
                && let Some(conn) = pool.evict()
            {
                pool.has_made_way();
                self.stats.note_passed_on();
                drop_uncounted(vec![conn]);
            }
        }
    }

    /// Opens what is waited for, if there are places by now: how many.
    fn open_wanted(self: &Rc<Self>) -> usize {
        let waiting: Vec<SharedPool> = {
            let pools = self.pools.borrow();
            pools.iter().filter(|pool| pool.with(|p| p.waiting() > 0)).cloned().collect()
        };
        let mut opened = 0;
        for pool in waiting {
            if let Some(database) = self.databases.get(pool.database()) {
                pool.note_asked(false);
                opened += self.open_connections(database, &pool);
            }
        }
        opened
    }
}

/// How long a connection must have been idle before it makes way for a client
/// that has only just begun to wait.
const UNUSED_WAIT: Millis = Millis::new(100);
