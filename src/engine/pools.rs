//! The pools of one thread, and the opening of connections for them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crate::net::clock;
use crate::pool::{Budget, Handed, Ledger, Pool, PoolLimits, Ticket};
use crate::session::Refused;
use crate::shardmap::Map;
use crate::types::{Millis, Moment, NodeId, Role, ShardId};

use super::conn::Conn;
use super::connect::{self, ConnectError};
use super::crew::{LedgerKey, Places};
use super::share::NodeShare;
use super::thread::{Database, Thread};

/// One user of one database on one node.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    pub(super) database: usize,
    pub(super) user: Rc<str>,
    pub(super) node: NodeId,
}

/// Where a waiter finds what it waited for.
#[derive(Default)]
pub(super) struct Slot {
    outcome: RefCell<Option<Result<Box<Conn>, Refused>>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    pub(super) fn take(&self) -> Option<Result<Box<Conn>, Refused>> {
        self.outcome.borrow_mut().take()
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }

    fn put(&self, outcome: Result<Box<Conn>, Refused>) {
        *self.outcome.borrow_mut() = Some(outcome);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A pool that its connections know.
#[derive(Clone)]
pub(super) struct SharedPool(Rc<PoolEntry>);

struct PoolEntry {
    database: usize,
    user: Rc<str>,
    /// Changes when the map's nodes are numbered anew.
    node: Cell<NodeId>,
    address: String,
    shard: ShardId,
    role: Role,
    pool: RefCell<Pool<Box<Conn>, Rc<Slot>>>,
    last_error: RefCell<Option<Refused>>,
    /// The serial of the logins whose password the node was first to refuse;
    /// zero if it has refused none since the last success.
    refused_logins: Cell<u64>,
    share: Rc<NodeShare>,
    /// The pool's size, where several threads share it.
    size: Option<Arc<Ledger>>,
    /// The next connection that comes free makes way for another thread's.
    owes: Cell<bool>,
    /// The other threads know since the last tick that this pool goes short.
    asked: Cell<bool>,
    /// The node has left the map: nothing is kept.
    retired: Cell<bool>,
    /// Grows when all connections that are open are to close.
    generation: Cell<u64>,
}

/// A checkout that has to wait.
pub(super) struct Waiting {
    pub(super) slot: Rc<Slot>,
    pub(super) since: Moment,
    pool: SharedPool,
    ticket: Ticket,
}

impl Waiting {
    /// The connection, or why there will be none.
    pub(super) async fn outcome(&self) -> Result<Box<Conn>, Refused> {
        std::future::poll_fn(|cx| {
            self.slot.set_waker(cx.waker());
            self.slot.take().map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }

    /// Gives the place in the queue up; a connection that came in the same
    /// moment goes on to the next.
    pub(super) fn leave(self, thread: &Rc<Thread>) {
        if !self.pool.0.pool.borrow_mut().leave(self.ticket)
            && let Some(Ok(conn)) = self.slot.take()
        {
            thread.release(conn);
        }
    }

    /// Why connections can't be had, if that is known.
    pub(super) fn last_error(&self) -> Option<Refused> {
        self.pool.0.last_error.borrow().clone()
    }
}

impl Drop for Waiting {
    /// A waiter whose task has ended gives up its place; a connection that
    /// came in the same moment is closed.
    fn drop(&mut self) {
        if let Ok(mut pool) = self.pool.0.pool.try_borrow_mut() {
            pool.leave(self.ticket);
        }
    }
}

impl SharedPool {
    /// The node that it has connections to.
    pub(super) fn node_share(&self) -> &Rc<NodeShare> {
        &self.0.share
    }

    /// The pool's size, where several threads share it.
    pub(super) fn size(&self) -> Option<&Arc<Ledger>> {
        self.0.size.as_ref()
    }

    /// True if its size is spent, by whatever thread.
    fn is_size_spent(&self) -> bool {
        self.0.size.as_ref().is_some_and(|size| size.is_spent())
    }

    /// True if a connection that comes free makes way for another thread's.
    pub(super) fn owes(&self) -> bool {
        self.0.owes.get() || self.0.share.owes()
    }

    /// Whether one shall from now on, for the sake of the pool's size.
    pub(super) fn set_owes(&self, owes: bool) {
        self.0.owes.set(owes);
    }

    /// One has.
    pub(super) fn has_made_way(&self) {
        self.0.owes.set(false);
        self.0.share.set_owes(false);
    }

    /// Notes whether the other threads know that it goes short; what was noted
    /// before.
    pub(super) fn note_asked(&self, asked: bool) -> bool {
        self.0.asked.replace(asked)
    }

    /// A tick has passed.
    pub(super) fn smooth_demand(&self) {
        self.0.pool.borrow_mut().smooth_demand();
    }

    /// Places for one connection more, if the budgets have them.
    pub(super) fn take_places(&self) -> Option<Places> {
        let size = match &self.0.size {
            Some(ledger) => Some((ledger.take()?, Arc::clone(ledger))),
            None => None,
        };
        let node = (self.0.share.take()?, Arc::clone(self.0.share.ledger()));
        Some(Places::new(node, size))
    }

    /// True if a password is wrong although passwords have been read again
    /// since it was refused: twice, because the first reading may have begun
    /// before the change.
    fn is_refused_for_good(&self, serial: u64) -> bool {
        let first = self.0.refused_logins.get();
        if first == 0 {
            self.0.refused_logins.set(serial);
            return false;
        }
        // Where nothing new can be read there is no news to wait for.
        let last = serial >= first + READINGS || self.with(Pool::failures) >= REFUSALS_MAX;
        if last {
            self.0.refused_logins.set(0);
        }
        last
    }

    /// Takes the idle connection out that was used longest ago, if nobody
    /// waits for one.
    pub(super) fn evict(&self) -> Option<Box<Conn>> {
        self.0.pool.borrow_mut().evict()
    }

    /// A connection that was lent is gone.
    pub(super) fn closed(&self) {
        if let Ok(mut pool) = self.0.pool.try_borrow_mut() {
            pool.closed();
        }
    }

    pub(super) fn user(&self) -> &Rc<str> {
        &self.0.user
    }

    pub(super) fn database(&self) -> usize {
        self.0.database
    }

    /// The node's place in the map in force.
    pub(super) fn node(&self) -> NodeId {
        self.0.node.get()
    }

    /// True if it is the pool of this node of the map in force.
    pub(super) fn serves(&self, node: NodeId) -> bool {
        self.0.node.get() == node && !self.0.retired.get()
    }

    pub(super) fn address(&self) -> &str {
        &self.0.address
    }

    /// True if all of its connections are lent.
    pub(super) fn is_full(&self) -> bool {
        self.with(|pool| pool.lent() >= pool.size_max())
    }

    pub(super) fn role(&self) -> Role {
        self.0.role
    }

    /// Looks at the pool's machine.
    pub(super) fn with<R>(&self, look: impl FnOnce(&Pool<Box<Conn>, Rc<Slot>>) -> R) -> R {
        look(&self.0.pool.borrow())
    }

    /// Which of its connections are to stay: those of this generation.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.get()
    }

    /// True if a connection of this generation closes once it is free.
    pub(super) fn is_outdated(&self, generation: u64) -> bool {
        generation != self.0.generation.get() || self.0.retired.get()
    }

    /// Closes what is idle now, and the others once they are free.
    pub(super) fn close_connections(&self) {
        self.0.generation.set(self.0.generation.get() + 1);
        let idle = self.0.pool.borrow_mut().drain_idle();
        drop_uncounted(idle);
    }

    /// Closes what is idle now and keeps nothing from here on.
    pub(super) fn retire(&self) {
        self.0.retired.set(true);
        let idle = self.0.pool.borrow_mut().drain_idle();
        drop_uncounted(idle);
    }
}

/// True if a shard is logged in at in the same way under both maps.
fn same_access(old: &Map, new: &Map, shard: ShardId) -> bool {
    match (old.shard(shard), new.shard(shard)) {
        (Some(old), Some(new)) => {
            old.dbname == new.dbname && old.credentials == new.credentials && old.tls == new.tls
        }
        _ => false,
    }
}

/// Connections whose pool has already stopped counting them.
#[allow(clippy::vec_box, reason = "pools hand boxes around; they are not moved in memory")]
pub(super) fn drop_uncounted(conns: Vec<Box<Conn>>) {
    for mut conn in conns {
        conn.counted = false;
    }
}

/// All pools of the thread.
#[derive(Default)]
pub(super) struct Pools {
    by_key: HashMap<PoolKey, SharedPool>,
}

impl Pools {
    pub(super) fn iter(&self) -> impl Iterator<Item = &SharedPool> {
        self.by_key.values()
    }

    /// Numbers the pools of a database by the nodes of its new map; those of
    /// nodes that it no longer has, or has in another place, are retired.
    pub(super) fn renumber(&mut self, database: usize, old: &Map, new: &Map) {
        let all: Vec<_> = self.by_key.drain().collect();
        for (mut key, pool) in all {
            if key.database == database {
                let before = old.node(pool.node());
                let after = before.and_then(|before| {
                    new.nodes().iter().find(|after| {
                        after.endpoint.host == before.endpoint.host
                            && after.endpoint.port == before.endpoint.port
                            && after.shard == before.shard
                            && after.role == before.role
                            && same_access(old, new, before.shard)
                    })
                });
                match after {
                    Some(node) => {
                        pool.0.node.set(node.id);
                        key.node = node.id;
                    }
                    None => {
                        pool.retire();
                        continue;
                    }
                }
            }
            self.by_key.insert(key, pool);
        }
    }

    /// Forgets pools of nodes that are gone and that nobody uses.
    pub(super) fn forget_retired(&mut self) {
        self.by_key.retain(|_, pool| {
            !(pool.0.retired.get() && pool.with(|p| p.lent() + p.attempts() + p.waiting() == 0))
        });
    }
}

impl Thread {
    /// The pool of a user on a node, made on first use.
    pub(super) fn pool(
        &self,
        database: &Rc<Database>,
        user: &Rc<str>,
        node: NodeId,
    ) -> Option<SharedPool> {
        let key = PoolKey { database: database.index, user: Rc::clone(user), node };
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.by_key.get(&key) {
            return Some(pool.clone());
        }
        let map = database.map();
        let entry = map.node(node)?;
        let share = self.node_share(entry.endpoint.to_string());
        let settings = &self.settings.pool;
        let threads = self.crew.len().max(1);
        let min_idle = usize::try_from(settings.size_min_idle).unwrap_or(0);
        let limits = PoolLimits {
            size_max: usize::try_from(settings.size_max).unwrap_or(usize::MAX),
            size_min_idle: min_idle.div_ceil(threads),
            idle_timeout: settings.idle_timeout,
            reconnect_min: settings.reconnect_min,
            reconnect_max: settings.reconnect_max,
        };
        let size = (!self.crew.is_alone()).then(|| {
            let key = LedgerKey::Pool {
                database: database.index,
                user: (&**user).into(),
                address: entry.endpoint.to_string(),
            };
            self.crew.ledger(key, || Budget::new(settings.size_max, 0))
        });
        let pool = SharedPool(Rc::new(PoolEntry {
            database: database.index,
            user: Rc::clone(user),
            node: Cell::new(node),
            address: entry.endpoint.to_string(),
            shard: entry.shard,
            role: entry.role,
            pool: RefCell::new(Pool::new(limits)),
            last_error: RefCell::new(None),
            refused_logins: Cell::new(0),
            share,
            size,
            owes: Cell::new(false),
            asked: Cell::new(false),
            retired: Cell::new(false),
            generation: Cell::new(0),
        }));
        pools.by_key.insert(key, pool.clone());
        Some(pool)
    }

    /// A connection from the pool: at once, or through a place in its queue.
    pub(super) fn checkout(
        self: &Rc<Self>,
        database: &Rc<Database>,
        pool: &SharedPool,
    ) -> Result<Box<Conn>, Waiting> {
        loop {
            let idle = pool.0.pool.borrow_mut().take_idle();
            let Some(mut conn) = idle else { break };
            // One that leads to another server than the monitor watches goes.
            let watched =
                database.with_cluster(|cluster| cluster.is_watched(pool.node(), conn.incarnation));
            if watched && conn.is_quiet() {
                conn.uses += 1;
                return Ok(conn);
            }
            // The server has said something to nobody, most likely goodbye.
            drop(conn);
        }
        let slot = Rc::new(Slot::default());
        let now = self.now();
        let ticket = pool.0.pool.borrow_mut().wait(now, Rc::clone(&slot));
        self.open_connections(database, pool);
        self.fail_waiters_of_dead(pool);
        Err(Waiting { slot, since: now, pool: pool.clone(), ticket })
    }

    /// Opens as many connections as the pool wants and the node's budget has:
    /// how many.
    pub(super) fn open_connections(
        self: &Rc<Self>,
        database: &Rc<Database>,
        pool: &SharedPool,
    ) -> usize {
        std::iter::repeat_with(|| self.open_one(database, pool))
            .take_while(|opened| *opened)
            .count()
    }

    /// Opens one connection, if the pool wants it and the budget has it.
    fn open_one(self: &Rc<Self>, database: &Rc<Database>, pool: &SharedPool) -> bool {
        if pool.0.retired.get() || !pool.0.pool.borrow().wants_connection(self.now()) {
            return false;
        }
        // While the database is paused only who is in the middle of something
        // gets here, and waits.
        if database.gate.is_paused() && pool.with(|machine| machine.waiting() == 0) {
            return false;
        }
        if !self.crew.is_alone() {
            // The others know, and no connection of this thread's can make room.
            if pool.0.asked.get() && pool.is_size_spent() {
                return false;
            }
            if self.is_for_others(pool) {
                return false;
            }
        }
        let Some(places) = pool.take_places() else {
            if !pool.is_size_spent() {
                self.make_room(pool);
            }
            self.ask_others(pool);
            return false;
        };
        pool.0.pool.borrow_mut().connecting();
        let (thread, database, pool) = (Rc::clone(self), Rc::clone(database), pool.clone());
        self.spawn(async move {
            let made = connect::connect(&thread, &database, &pool, places).await;
            thread.on_connect(&database, &pool, made);
        });
        true
    }

    /// Closes idle connections of the node's other pools, one for each waiter
    /// that has no prospect of a connection.
    fn make_room(&self, wanting: &SharedPool) {
        let wanted = wanting.with(|pool| pool.waiting().saturating_sub(pool.attempts()));
        while wanting.0.share.closing() < wanted {
            let evicted = self.pools.borrow().iter().find_map(|pool| {
                let other = !Rc::ptr_eq(&pool.0, &wanting.0);
                if other && Rc::ptr_eq(&pool.0.share, &wanting.0.share) {
                    pool.0.pool.borrow_mut().evict()
                } else {
                    None
                }
            });
            let Some(conn) = evicted else { return };
            drop_uncounted(vec![conn]);
        }
    }

    /// A permit of the node has come back: it goes to the pool whose first
    /// waiter has waited longest.
    pub(super) fn share_out(self: &Rc<Self>, share: &Rc<NodeShare>) {
        share.forget_shortage();
        let now = self.now();
        let mut wanting: Vec<SharedPool> = self
            .pools
            .borrow()
            .iter()
            .filter(|pool| Rc::ptr_eq(&pool.0.share, share))
            .filter(|pool| pool.with(|p| p.waiting() > 0 && p.wants_connection(now)))
            .cloned()
            .collect();
        wanting.sort_by_key(|pool| std::cmp::Reverse(pool.with(|p| p.oldest_wait(now))));
        for pool in wanting {
            if let Some(database) = self.databases.get(pool.0.database) {
                self.open_one(database, &pool);
            }
        }
    }

    /// True if the connection of a pool should go to another of the same node,
    /// whose first waiter has waited longer and which has less. Only so much
    /// that shares become even: each turn costs a login.
    fn gives_way(&self, pool: &SharedPool) -> bool {
        let now = self.now();
        let (own, own_wait) = pool.with(|p| (p.total(), p.oldest_wait(now)));
        let nobody_waits = pool.with(|p| p.waiting() == 0);
        self.pools.borrow().iter().any(|other| {
            let same = Rc::ptr_eq(&other.0, &pool.0);
            if same || !Rc::ptr_eq(&other.0.share, &pool.0.share) {
                return false;
            }
            other.with(|p| {
                let (has, wait) = (p.total(), p.oldest_wait(now));
                let uncovered = p.waiting().saturating_sub(p.attempts());
                let less = has + 1 < own || (has == 0 && wait >= FAIR_WAIT);
                p.wants_connection(now)
                    && pool.0.share.closing() < uncovered
                    && (nobody_waits || (less && wait > own_wait && pool.0.share.closing() == 0))
            })
        })
    }

    fn on_connect(
        self: &Rc<Self>,
        database: &Rc<Database>,
        pool: &SharedPool,
        made: Result<Box<Conn>, ConnectError>,
    ) {
        match made {
            Ok(mut conn) => {
                conn.counted = true;
                conn.uses += 1;
                *pool.0.last_error.borrow_mut() = None;
                pool.0.refused_logins.set(0);
                database.note_params(&conn);
                let expires = conn.expires;
                let handed = pool.0.pool.borrow_mut().connected(self.now(), expires, conn);
                self.finish_handing(handed);
                if database.gate.is_paused() {
                    pool.close_connections();
                }
            }
            Err(error) => {
                tracing::warn!(
                    database = %database.name, shard = pool.0.shard.number(),
                    user = %pool.0.user, error = %error, "backend can't be reached"
                );
                // What traffic sees the monitor shall see at once.
                if error.is_of_the_node() {
                    database.marks.strikes.note(pool.node());
                }
                database.marks.ask_for_sample();
                let jitter = self.random();
                let mut hopeless = error.is_final();
                if error.is_wrong_password() {
                    // It may have been changed: more attempts, by what is
                    // configured by then.
                    hopeless = pool.is_refused_for_good(database.logins_serial());
                    if !hopeless {
                        self.ask_for_logins();
                    }
                }
                let refused = error.refused(&database.shard_name(pool.0.shard));
                *pool.0.last_error.borrow_mut() = Some(refused.clone());
                pool.0.pool.borrow_mut().connect_failed(self.now(), jitter);
                if hopeless {
                    self.dismiss(pool, &refused);
                } else {
                    self.fail_waiters_of_dead(pool);
                }
            }
        }
    }

    /// A node that has refused several times in a row keeps nobody waiting.
    fn fail_waiters_of_dead(&self, pool: &SharedPool) {
        let dead = {
            let machine = pool.0.pool.borrow();
            machine.failures() >= FAILURES_OF_DEAD
                && machine.attempts() == 0
                && machine.lent() == 0
                // The passwords are being read again.
                && pool.0.refused_logins.get() == 0
        };
        // A primary's successor may come up any moment: its clients wait until
        // their own deadline. Reads go to the primary.
        let lasting = self.databases.get(pool.0.database).is_some_and(|database| {
            let writer = database.with_cluster(|cluster| cluster.primary_of(pool.0.shard));
            writer == Some(pool.node()) && database.has_successor(pool.node())
        });
        let error = pool.0.last_error.borrow().clone();
        if dead
            && !lasting
            && let Some(error) = error
        {
            self.dismiss(pool, &error);
        }
    }

    fn dismiss(&self, pool: &SharedPool, refused: &Refused) {
        let waiters: Vec<_> = pool.0.pool.borrow_mut().dismiss().collect();
        for slot in waiters {
            slot.put(Err(refused.clone()));
        }
    }

    /// Gives a clean connection back; anything else is closed.
    pub(super) fn release(self: &Rc<Self>, mut conn: Box<Conn>) {
        let pool = conn.pool.clone();
        conn.lent = None;
        if !conn.machine.is_clean() || !conn.out.is_empty() || pool.is_outdated(conn.generation) {
            drop(conn);
            return;
        }
        conn.carry = Vec::new();
        if conn.replay.capacity() > REPLAY_KEPT_MAX {
            conn.replay = Vec::new();
        }
        if pool.0.share.is_short() && self.gives_way(&pool) {
            drop(conn);
            return;
        }
        if pool.owes() {
            pool.has_made_way();
            self.stats.note_passed_on();
            drop(conn);
            return;
        }
        let expires = conn.expires;
        let handed = pool.0.pool.borrow_mut().release(self.now(), expires, conn);
        self.finish_handing(handed);
    }

    fn finish_handing(&self, handed: Handed<Box<Conn>, Rc<Slot>>) {
        match handed {
            Handed::To(slot, mut conn) => {
                conn.uses += 1;
                slot.put(Ok(conn));
            }
            Handed::Kept => {}
            Handed::Close(conn) => drop_uncounted(vec![conn]),
        }
    }

    /// Brings the pools of a database to a new map.
    pub(super) fn retire_pools(&self, database: &Rc<Database>, new: &Map) {
        let old = database.map();
        self.pools.borrow_mut().renumber(database.index, &old, new);
    }

    /// Closes what is old, and opens what should be idle or is waited for.
    pub(super) fn tend_pools(self: &Rc<Self>) {
        let now = clock::now();
        let all: Vec<SharedPool> = self.pools.borrow().iter().cloned().collect();
        for pool in all {
            let old = pool.0.pool.borrow_mut().reap(now);
            drop_uncounted(old);
            if let Some(database) = self.databases.get(pool.0.database) {
                self.open_connections(database, &pool);
            }
        }
        self.pools.borrow_mut().forget_retired();
    }

    /// A node answers again: who waits for it does not wait for the next
    /// attempt's turn.
    pub(super) fn retry_node(self: &Rc<Self>, database: &Rc<Database>, node: NodeId) {
        let all: Vec<SharedPool> = self.pools.borrow().iter().cloned().collect();
        for pool in all {
            if pool.0.database == database.index && pool.node() == node {
                pool.0.pool.borrow_mut().retry_now();
                self.open_connections(database, &pool);
            }
        }
    }
}

/// How long a client of a pool without any connection waits before another
/// pool gives one up: where there are more pools than connections, a turn must
/// be worth its login.
const FAIR_WAIT: Millis = Millis::new(200);
/// How often passwords are read before one that is refused counts as wrong.
const READINGS: u64 = 2;
/// Most refusals of a password in a row before it counts as wrong all the same.
const REFUSALS_MAX: u32 = 6;
/// Attempts that fail in a row before clients are told at once.
const FAILURES_OF_DEAD: u32 = 3;
/// Capacity that a free connection's buffers keep, in bytes.
const REPLAY_KEPT_MAX: usize = 4096;
