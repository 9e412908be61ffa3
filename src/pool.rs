//! A backend pool as a machine: who has a connection, who waits for one, when
//! one is opened or closed.
//!
//! It knows neither sockets nor tasks: `B` is a connection, `W` a waiter. One
//! pool serves one user of one database on one node, for one thread; what all
//! pools of a node may have together is the node's [`Budget`].
//!
//! Source: the lists and the words are the field's (pgbouncer's manual);
//! hazards 43, 44, 50, 118 of `docs/hazards.md`.

mod budget;
mod ledger;

pub use budget::{Budget, Permit};
pub use ledger::{Ledger, Stand};

use std::collections::VecDeque;

use crate::types::{Millis, Moment};

/// Bounds of one pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Most connections.
    pub size_max: usize,
    /// Idle connections that are kept although nobody asks.
    pub size_min_idle: usize,
    /// An idle connection above the minimum closes after this; zero is never.
    pub idle_timeout: Millis,
    /// First wait after a failed attempt; doubled each time.
    pub reconnect_min: Millis,
    /// Longest wait between attempts.
    pub reconnect_max: Millis,
}

/// A waiter's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// Answer to a checkout.
#[derive(Debug)]
pub enum Checkout<B> {
    /// A connection at once.
    Given(B),
    /// The waiter stands in the queue.
    Wait(Ticket),
}

/// Where a connection went that came free.
#[derive(Debug)]
pub enum Handed<B, W> {
    /// To the longest-waiting.
    To(W, B),
    /// To the idle ones.
    Kept,
    /// It is too old: close it.
    Close(B),
}

struct Idle<B> {
    backend: B,
    expires: Option<Moment>,
    since: Moment,
}

struct Waiting<W> {
    ticket: Ticket,
    who: W,
    since: Moment,
}

/// Counts for the console and the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolCounts {
    /// Checkouts so far.
    pub checkouts: u64,
    /// Time that waiters stood in the queue, summed.
    pub wait_ms_total: u64,
}

/// One pool.
pub struct Pool<B, W> {
    limits: PoolLimits,
    idle: Vec<Idle<B>>,
    waiting: VecDeque<Waiting<W>>,
    /// Open connections, lent and idle.
    open: usize,
    connecting: usize,
    tickets: u64,
    failures: u32,
    retry_at: Moment,
    counts: PoolCounts,
    /// Clients that have a connection or wait for one, smoothed over ticks, in
    /// parts of [`DEMAND_UNIT`].
    demand: u32,
}

impl<B, W> Pool<B, W> {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            idle: Vec::new(),
            waiting: VecDeque::new(),
            open: 0,
            connecting: 0,
            tickets: 0,
            failures: 0,
            retry_at: Moment::START,
            counts: PoolCounts::default(),
            demand: 0,
        }
    }

    /// A connection that is free, the most recently used first, so that those
    /// that are not needed grow old.
    pub fn take_idle(&mut self) -> Option<B> {
        let idle = self.idle.pop()?;
        self.counts.checkouts += 1;
        Some(idle.backend)
    }

    /// Queues `who`.
    pub fn wait(&mut self, now: Moment, who: W) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.push_back(Waiting { ticket, who, since: now });
        ticket
    }

    /// Takes a waiter out of the queue; false if it has been served already.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|w| w.ticket != ticket);
        self.waiting.len() < before
    }

    /// Takes all waiters out of the queue.
    pub fn dismiss(&mut self) -> impl Iterator<Item = W> {
        std::mem::take(&mut self.waiting).into_iter().map(|w| w.who)
    }

    /// True if a connection should be opened now: someone waits for whom none
    /// is on its way, or fewer are idle than should be.
    pub fn wants_connection(&self, now: Moment) -> bool {
        let total = self.open + self.connecting;
        let short = self.waiting.len() > self.connecting
            || self.idle.len() + self.connecting < self.limits.size_min_idle;
        short && total < self.limits.size_max && now >= self.retry_at
    }

    /// An attempt has begun.
    pub fn connecting(&mut self) {
        self.connecting += 1;
    }

    /// An attempt has succeeded. From `expires` on the connection is lent no
    /// more.
    pub fn connected(&mut self, now: Moment, expires: Option<Moment>, backend: B) -> Handed<B, W> {
        self.connecting = self.connecting.saturating_sub(1);
        self.open += 1;
        self.failures = 0;
        self.retry_at = Moment::START;
        self.hand_out(now, expires, backend)
    }

    /// An attempt has failed; the next waits twice as long. `jitter` is any
    /// number.
    pub fn connect_failed(&mut self, now: Moment, jitter: u64) {
        self.connecting = self.connecting.saturating_sub(1);
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let base = self
            .limits
            .reconnect_min
            .count()
            .saturating_mul(1 << doublings)
            .min(self.limits.reconnect_max.count());
        let spread = jitter % (base / 4 + 1);
        self.retry_at = now.after(Millis::new(base - spread));
    }

    /// Attempts that failed since the last that did not.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The node is known to answer: the next attempt need not wait its turn.
    pub fn retry_now(&mut self) {
        self.failures = 0;
        self.retry_at = Moment::START;
    }

    /// An attempt was given up before it began.
    pub fn connect_cancelled(&mut self) {
        self.connecting = self.connecting.saturating_sub(1);
    }

    /// A connection that was lent comes back clean.
    pub fn release(&mut self, now: Moment, expires: Option<Moment>, backend: B) -> Handed<B, W> {
        if expires.is_some_and(|at| now >= at) {
            self.open = self.open.saturating_sub(1);
            return Handed::Close(backend);
        }
        self.hand_out(now, expires, backend)
    }

    /// A connection that was lent is gone.
    pub fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    fn hand_out(&mut self, now: Moment, expires: Option<Moment>, backend: B) -> Handed<B, W> {
        match self.waiting.pop_front() {
            Some(waiter) => {
                self.counts.checkouts += 1;
                self.counts.wait_ms_total += now.since(waiter.since).count();
                Handed::To(waiter.who, backend)
            }
            None => {
                self.idle.push(Idle { backend, expires, since: now });
                Handed::Kept
            }
        }
    }

    /// Idle connections that are to be closed: too long idle, or too old.
    pub fn reap(&mut self, now: Moment) -> Vec<B> {
        let limits = self.limits;
        let mut spare = self.idle.len().saturating_sub(limits.size_min_idle);
        let mut out = Vec::new();
        let mut kept = Vec::with_capacity(self.idle.len());
        for idle in self.idle.drain(..) {
            let stale =
                limits.idle_timeout > Millis::ZERO && now.since(idle.since) >= limits.idle_timeout;
            let old = idle.expires.is_some_and(|at| now >= at);
            if old || (stale && spare > 0) {
                spare = spare.saturating_sub(1);
                out.push(idle.backend);
            } else {
                kept.push(idle);
            }
        }
        self.idle = kept;
        self.open = self.open.saturating_sub(out.len());
        out
    }

    /// The idle connection that was used longest ago, to make room for another
    /// pool of the same node.
    pub fn evict(&mut self) -> Option<B> {
        if self.idle.is_empty() || !self.waiting.is_empty() {
            return None;
        }
        self.open = self.open.saturating_sub(1);
        Some(self.idle.remove(0).backend)
    }

    /// All idle connections, to be closed.
    pub fn drain_idle(&mut self) -> Vec<B> {
        self.open = self.open.saturating_sub(self.idle.len());
        self.idle.drain(..).map(|idle| idle.backend).collect()
    }

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The idle connections themselves, and since when they are idle.
    pub fn idle_backends(&self) -> impl Iterator<Item = (&B, Moment)> {
        self.idle.iter().map(|idle| (&idle.backend, idle.since))
    }

    /// Connections that are lent.
    pub fn lent(&self) -> usize {
        self.open.saturating_sub(self.idle.len())
    }

    /// Connections, those included that are being made.
    pub const fn total(&self) -> usize {
        self.open + self.connecting
    }

    /// Attempts under way.
    pub const fn attempts(&self) -> usize {
        self.connecting
    }

    /// Clients in the queue.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Since when the first in the queue waits.
    pub fn waits_since(&self) -> Option<Moment> {
        self.waiting.front().map(|w| w.since)
    }

    /// How long the first in the queue has waited.
    pub fn oldest_wait(&self, now: Moment) -> Millis {
        self.waiting.front().map_or(Millis::ZERO, |w| now.since(w.since))
    }

    /// Since when the connection is idle that was used longest ago.
    pub fn idle_since(&self) -> Option<Moment> {
        self.idle.first().map(|idle| idle.since)
    }

    /// A tick has passed: how many use the pool now counts for an eighth of what
    /// is known of it.
    pub fn smooth_demand(&mut self) {
        let users = u32::try_from(self.lent() + self.waiting()).unwrap_or(u32::MAX);
        let now = users.saturating_mul(DEMAND_UNIT);
        self.demand = self.demand - self.demand / 8 + now / 8;
    }

    /// What this pool is like to other threads.
    pub fn stand(&self, now: Moment) -> Stand {
        let uncovered = self.waiting.len() > self.connecting && self.wants_connection(now);
        Stand {
            short_since: self.waits_since().filter(|_| uncovered),
            held: u32::try_from(self.total()).unwrap_or(u32::MAX),
            demand: self.demand,
        }
    }

    /// Counts so far.
    pub const fn counts(&self) -> PoolCounts {
        self.counts
    }

    /// Most connections.
    pub const fn size_max(&self) -> usize {
        self.limits.size_max
    }
}

/// One client, as demand counts.
const DEMAND_UNIT: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool<u32, &'static str> {
        Pool::new(PoolLimits {
            size_max: 2,
            size_min_idle: 0,
            idle_timeout: Millis::new(1000),
            reconnect_min: Millis::new(100),
            reconnect_max: Millis::new(1000),
        })
    }

    fn at(ms: u64) -> Moment {
        Moment::from_ms(ms)
    }

    #[test]
    fn the_longest_waiting_client_gets_the_freed_connection() {
        let mut pool = pool();
        pool.wait(at(0), "first");
        pool.wait(at(1), "second");
        pool.connecting();
        assert!(matches!(pool.connected(at(5), None, 7), Handed::To("first", 7)));
        assert!(matches!(pool.release(at(9), None, 7), Handed::To("second", 7)));
        assert!(matches!(pool.release(at(9), None, 7), Handed::Kept));
        assert_eq!(pool.take_idle(), Some(7));
        assert_eq!(pool.counts().wait_ms_total, 13);
    }

    #[test]
    fn no_more_connections_than_the_limit_are_wanted() {
        let mut pool = pool();
        for who in ["a", "b", "c"] {
            pool.wait(at(0), who);
        }
        assert!(pool.wants_connection(at(0)));
        pool.connecting();
        pool.connecting();
        assert!(!pool.wants_connection(at(0)));
    }

    #[test]
    fn failed_attempts_wait_longer_each_time_up_to_a_limit() {
        let mut pool = pool();
        pool.wait(at(0), "a");
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..6 {
            pool.connecting();
            pool.connect_failed(now, 0);
            let start = now;
            while !pool.wants_connection(now) {
                now = now.after(Millis::new(10));
            }
            waits.push(now.since(start).count());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn a_waiter_that_leaves_is_not_served() {
        let mut pool = pool();
        let ticket = pool.wait(at(0), "gone");
        pool.wait(at(0), "here");
        assert!(pool.leave(ticket));
        assert!(!pool.leave(ticket));
        pool.connecting();
        assert!(matches!(pool.connected(at(1), None, 1), Handed::To("here", 1)));
    }

    #[test]
    fn a_pool_goes_short_while_more_wait_than_connections_are_made() {
        let mut pool = pool();
        assert_eq!(pool.stand(at(9)), Stand::default());
        pool.wait(at(3), "a");
        pool.wait(at(5), "b");
        pool.connecting();
        assert_eq!(pool.stand(at(9)).short_since, Some(at(3)));
        assert_eq!(pool.stand(at(9)).held, 1);
        pool.connecting();
        assert_eq!(pool.stand(at(9)).short_since, None, "it may have no more");
        for _ in 0..200 {
            pool.smooth_demand();
        }
        let demand = pool.stand(at(9)).demand;
        assert!((2 * DEMAND_UNIT - 16..=2 * DEMAND_UNIT).contains(&demand), "{demand}");
    }

    #[test]
    fn idle_and_old_connections_are_reaped() {
        let mut pool = pool();
        pool.connecting();
        pool.connecting();
        assert!(matches!(pool.connected(at(0), None, 1), Handed::Kept));
        assert!(matches!(pool.connected(at(500), Some(at(10_500)), 2), Handed::Kept));
        assert_eq!(pool.reap(at(1000)), [1]);
        assert_eq!(pool.take_idle(), Some(2));
        assert!(matches!(pool.release(at(20_000), Some(at(10_500)), 2), Handed::Close(2)));
        assert_eq!(pool.lent(), 0);
    }
}
