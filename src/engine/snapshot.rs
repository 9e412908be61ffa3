//! What the engine's threads know of themselves at one instant, as plain
//! values for the console and the metrics.
//!
//! Each thread fills one from its own counters; [`EngineSnapshot::absorb`]
//! makes the router's out of them. Nothing here holds a password or a value of
//! a statement.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::types::{Epoch, NodeId, Role};

/// One thread, or after [`EngineSnapshot::absorb`] all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EngineSnapshot {
    /// One entry for each user, database and node that has had a pool.
    pub pools: Vec<PoolSnapshot>,
    /// Clients that are connected, the console's included.
    pub clients: Vec<ClientSnapshot>,
    /// Connections to nodes.
    pub servers: Vec<ServerSnapshot>,
    /// One entry for each database that is served.
    pub databases: Vec<DatabaseSnapshot>,
    /// Counters since the start.
    pub totals: Totals,
}

/// Connections of one user to one node for one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolSnapshot {
    /// The database that clients name.
    pub database: String,
    /// The user that clients log in as.
    pub user: String,
    /// The node, of this database's map.
    pub node: NodeId,
    /// Where the node is, as `host:port`.
    pub address: String,
    /// What the map says that it is.
    pub role: Role,
    /// Clients that have one of the connections.
    pub clients_active: u64,
    /// Clients that wait for one.
    pub clients_waiting: u64,
    /// Connections that a client has.
    pub servers_active: u64,
    /// Connections that are free.
    pub servers_idle: u64,
    /// Connections that are being made.
    pub servers_connecting: u64,
    /// Most connections.
    pub size_max: u64,
    /// How long the first in the queue has waited; zero without a queue.
    pub oldest_wait_ms: u64,
    /// Connections that were given to clients since the start.
    pub checkouts: u64,
    /// How long clients waited for them, together.
    pub checkout_wait_ms_total: u64,
    /// When its clients give a connection back, in the configuration's word.
    pub mode: &'static str,
}

/// One client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientSnapshot {
    /// Number that `KILL` takes; never used twice in a process.
    pub id: u64,
    /// The name that it logged in as; empty before that.
    pub user: String,
    /// The database that it asked for; empty before that.
    pub database: String,
    /// Where it comes from: `address:port`, or `unix`.
    pub address: String,
    /// What it is doing.
    pub state: ClientState,
    /// How long it has been connected.
    pub connected_s: u64,
    /// Statements since then.
    pub statements: u64,
    /// What it calls itself.
    pub application_name: String,
    /// Why it keeps its connection between transactions, in words; empty if
    /// it doesn't.
    pub holds: String,
    /// How long it has done so.
    pub held_s: Option<u64>,
    /// The node whose connection it has now.
    pub node: Option<NodeId>,
    /// The processes at nodes whose connections it has.
    pub backend_pids: Vec<u32>,
    /// Where these are, in the same order.
    pub backend_nodes: Vec<NodeId>,
    /// How often a statement of it has waited for a move.
    pub move_waits: u64,
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientState {
    /// Not logged in yet.
    #[default]
    Login,
    /// Nothing is asked and no transaction is open.
    Idle,
    /// A statement runs.
    Active,
    /// A transaction is open and no statement runs.
    Transaction,
    /// Waits for a connection.
    Waiting,
}

impl ClientState {
    /// The word that the console uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Transaction => "transaction",
            Self::Waiting => "waiting",
        }
    }
}

/// One connection to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerSnapshot {
    /// The node, of this database's map.
    pub node: NodeId,
    /// Where the node is, as `host:port`.
    pub address: String,
    /// The user that it serves.
    pub user: String,
    /// The database that clients name.
    pub database: String,
    /// What it is doing.
    pub state: ServerState,
    /// The process at the node; zero before login.
    pub backend_pid: u32,
    /// The client that has it.
    pub client: Option<u64>,
    /// How long ago it was opened.
    pub age_s: u64,
    /// How long it has been free; zero while it is not.
    pub idle_s: u64,
    /// How often it was given to a client.
    pub uses: u64,
    /// Statements that are prepared on it.
    pub prepared: u64,
    /// Where the client that has it comes from, and what it calls itself.
    pub client_address: Option<(String, String)>,
    /// It closes once it is free.
    pub close_needed: bool,
}

/// What a connection to a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// Being made.
    Connecting,
    /// Free.
    Idle,
    /// A client has it.
    Active,
    /// It listens for all clients of its user.
    Listening,
    /// A client replicates over it.
    Replication,
    /// Being reset or ended.
    Closing,
}

impl ServerState {
    /// The word that the console uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Listening => "listening",
            Self::Replication => "replication",
            Self::Closing => "closing",
        }
    }
}

/// One database that clients may name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatabaseSnapshot {
    /// The name.
    pub name: String,
    /// Epoch of its map in force.
    pub epoch: Epoch,
    /// Whether a statement's place can depend on its keys.
    pub sharded: bool,
    /// An operator holds its units up.
    pub paused: bool,
    /// An operator has its clients not read.
    pub suspended: bool,
    /// An operator has turned new clients away.
    pub disabled: bool,
    /// Connections whose server processes are about to be gone.
    pub servers_closing: u64,
}

/// Counters since the start; two are numbers of the moment and say so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Statements of clients.
    pub statements: u64,
    /// Transactions, single statements outside one included.
    pub transactions: u64,
    /// Errors that the router said itself, by the SQLSTATE's class.
    pub errors_router: BTreeMap<String, u64>,
    /// Errors that nodes said, by the SQLSTATE's class.
    pub errors_server: BTreeMap<String, u64>,
    /// Bytes that clients sent.
    pub bytes_in: u64,
    /// Bytes that clients were sent.
    pub bytes_out: u64,
    /// Statements whose plan was in the cache.
    pub plan_hits: u64,
    /// Statements that had to be planned.
    pub plan_misses: u64,
    /// Reads that a replica could have served, by the reason's label:
    /// `replica`, or why they went to the primary.
    pub reads: BTreeMap<&'static str, u64>,
    /// Statements that waited for a move, each time that they did.
    pub held: u64,
    /// Those that waited in vain.
    pub hold_timeouts: u64,
    /// Statements that a move's fence refused and that ran again.
    pub fenced: u64,
    /// Maps that threads have taken over, each thread's counted.
    pub map_swaps: u64,
    /// What they took of the threads' own time, during which no client is
    /// served, together.
    pub map_swap_us_sum: u64,
    /// The longest of them.
    pub map_swap_us_max: u64,
    /// Connections that were given to clients.
    pub checkouts: u64,
    /// Clients that waited for one in vain.
    pub checkout_timeouts: u64,
    /// Connections that a thread gave up for another's clients.
    pub passed_on: u64,
    /// How often threads were woken because another goes short.
    pub nudges: u64,
    /// Cancel requests whose key was known.
    pub cancels: u64,
    /// Clients that logged in.
    pub logins_ok: u64,
    /// Clients that failed to.
    pub logins_failed: u64,
    /// Clients at this moment.
    pub clients_now: u64,
    /// Most clients that the settings allow, at this moment.
    pub clients_max: u64,
    /// From a statement's arrival to the end of its reply.
    pub latency: Latency,
}

/// How long statements took, in powers of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Entry `i`: how many took at most `2^i` µs and more than the entry
    /// before; the last one: all that took longer.
    pub buckets: [u64; LATENCY_BUCKETS],
    /// All of them together.
    pub sum_us: u64,
}

impl Latency {
    /// Counts one statement that took `us` microseconds.
    pub fn record(&mut self, us: u64) {
        if let Some(bucket) = self.buckets.get_mut(Self::bucket_of(us)) {
            *bucket = bucket.saturating_add(1);
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(*bucket))
    }

    /// Most microseconds of entry `index`; `None` for the last, which has no
    /// end, and past it.
    pub fn bound_us(index: usize) -> Option<u64> {
        let bounded = index.checked_add(1)? < LATENCY_BUCKETS;
        1_u64.checked_shl(u32::try_from(index).ok()?).filter(|_| bounded)
    }

    /// An upper bound in microseconds for `share` percent of all statements;
    /// `None` if there are none, or it lies in the last entry.
    pub fn percentile_us(&self, share: u64) -> Option<u64> {
        let wanted = u128::from(self.count()) * u128::from(share.min(100));
        let mut seen: u128 = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(u128::from(*bucket));
            if seen > 0 && seen * 100 >= wanted {
                return Self::bound_us(index);
            }
        }
        None
    }

    pub(super) fn bucket_of(us: u64) -> usize {
        let power = us.checked_sub(1).map_or(0, |below| u64::BITS - below.leading_zeros());
        usize::try_from(power).map_or(0, |power| power.min(LATENCY_BUCKETS - 1))
    }
}

impl EngineSnapshot {
    /// Adds what another thread knows: pools of the same user, database and
    /// node become one, counters their sum.
    pub fn absorb(&mut self, other: Self) {
        for pool in other.pools {
            match self.pools.iter_mut().find(|mine| mine.is_same(&pool)) {
                Some(mine) => mine.absorb(&pool),
                None => self.pools.push(pool),
            }
        }
        self.clients.extend(other.clients);
        self.servers.extend(other.servers);
        for database in other.databases {
            match self.databases.iter_mut().find(|mine| mine.name == database.name) {
                Some(mine) => mine.servers_closing += database.servers_closing,
                None => self.databases.push(database),
            }
        }
        self.totals.absorb(other.totals);
    }
}

/// What commands of operators wait for; without a name in any database.
impl EngineSnapshot {
    /// True while a connection of the database's pools is open, or its server
    /// process is not known to be gone.
    pub fn has_connections(&self, database: Option<&str>) -> bool {
        let here = |name: &str| database.is_none_or(|wanted| wanted == name);
        self.pools.iter().any(|pool| {
            here(&pool.database)
                && pool.servers_active + pool.servers_idle + pool.servers_connecting > 0
        }) || self.servers.iter().any(|server| here(&server.database))
            || self.databases.iter().any(|one| here(&one.name) && one.servers_closing > 0)
    }

    /// Connections over which clients replicate.
    pub fn replicating(&self, database: Option<&str>) -> impl Iterator<Item = &ServerSnapshot> {
        self.servers.iter().filter(move |server| {
            server.state == ServerState::Replication
                && database.is_none_or(|wanted| wanted == server.database)
        })
    }

    /// True while a connection that is to close has not.
    pub fn has_connections_to_close(&self, database: Option<&str>) -> bool {
        let here = |name: &str| database.is_none_or(|wanted| wanted == name);
        self.servers.iter().any(|server| here(&server.database) && server.close_needed)
            || self.databases.iter().any(|one| here(&one.name) && one.servers_closing > 0)
    }

    /// True while a statement of a client runs.
    pub fn has_units_under_way(&self, database: Option<&str>) -> bool {
        self.clients.iter().any(|client| {
            client.state == ClientState::Active
                && database.is_none_or(|wanted| wanted == client.database)
        })
    }
}

impl PoolSnapshot {
    fn is_same(&self, other: &Self) -> bool {
        self.node == other.node && self.user == other.user && self.database == other.database
    }

    fn absorb(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.clients_active, other.clients_active),
            (&mut self.clients_waiting, other.clients_waiting),
            (&mut self.servers_active, other.servers_active),
            (&mut self.servers_idle, other.servers_idle),
            (&mut self.servers_connecting, other.servers_connecting),
            (&mut self.checkouts, other.checkouts),
            (&mut self.checkout_wait_ms_total, other.checkout_wait_ms_total),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        self.size_max = self.size_max.max(other.size_max);
        self.oldest_wait_ms = self.oldest_wait_ms.max(other.oldest_wait_ms);
    }
}

impl Totals {
    fn absorb(&mut self, other: Self) {
        for (mine, theirs) in [
            (&mut self.statements, other.statements),
            (&mut self.transactions, other.transactions),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.plan_hits, other.plan_hits),
            (&mut self.plan_misses, other.plan_misses),
            (&mut self.held, other.held),
            (&mut self.hold_timeouts, other.hold_timeouts),
            (&mut self.fenced, other.fenced),
            (&mut self.map_swaps, other.map_swaps),
            (&mut self.map_swap_us_sum, other.map_swap_us_sum),
            (&mut self.checkouts, other.checkouts),
            (&mut self.checkout_timeouts, other.checkout_timeouts),
            (&mut self.passed_on, other.passed_on),
            (&mut self.nudges, other.nudges),
            (&mut self.cancels, other.cancels),
            (&mut self.logins_ok, other.logins_ok),
            (&mut self.logins_failed, other.logins_failed),
            (&mut self.clients_now, other.clients_now),
            (&mut self.latency.sum_us, other.latency.sum_us),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        self.clients_max = self.clients_max.max(other.clients_max);
        self.map_swap_us_max = self.map_swap_us_max.max(other.map_swap_us_max);
        for (mine, theirs) in self.latency.buckets.iter_mut().zip(other.latency.buckets) {
            *mine = mine.saturating_add(theirs);
        }
        add_counts(&mut self.errors_router, other.errors_router);
        add_counts(&mut self.errors_server, other.errors_server);
        add_counts(&mut self.reads, other.reads);
    }
}

fn add_counts<K: Ord>(mine: &mut BTreeMap<K, u64>, theirs: BTreeMap<K, u64>) {
    for (key, count) in theirs {
        let sum = mine.entry(key).or_default();
        *sum = sum.saturating_add(count);
    }
}

/// Entries of [`Latency`]: up to about 67 s, and what takes longer.
pub const LATENCY_BUCKETS: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(user: &str, node: u16) -> PoolSnapshot {
        PoolSnapshot {
            database: "app".to_owned(),
            user: user.to_owned(),
            node: NodeId::new(node),
            address: "h:5432".to_owned(),
            role: Role::Primary,
            clients_active: 1,
            clients_waiting: 2,
            servers_active: 3,
            servers_idle: 4,
            servers_connecting: 5,
            size_max: 20,
            oldest_wait_ms: 7,
            checkouts: 8,
            checkout_wait_ms_total: 9,
            mode: "transaction",
        }
    }

    #[test]
    fn a_duration_lies_in_the_first_bucket_that_reaches_it() {
        for (us, bucket) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11)]
        {
            let mut latency = Latency::default();
            latency.record(us);
            assert_eq!(latency.buckets.iter().position(|count| *count == 1), Some(bucket), "{us}");
            assert!(us <= Latency::bound_us(bucket).unwrap());
        }
        let mut latency = Latency::default();
        latency.record(u64::MAX);
        assert_eq!(latency.buckets.last(), Some(&1));
        assert_eq!(Latency::bound_us(LATENCY_BUCKETS - 1), None);
        assert_eq!(Latency::bound_us(LATENCY_BUCKETS - 2), Some(1 << 26));
    }

    #[test]
    fn percentiles_are_bounds_of_buckets() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentile_us(50), None);
        (0..90).for_each(|_| latency.record(100));
        (0..10).for_each(|_| latency.record(5_000));
        assert_eq!(latency.percentile_us(50), Some(128));
        assert_eq!(latency.percentile_us(90), Some(128));
        assert_eq!(latency.percentile_us(99), Some(8192));
    }

    #[test]
    fn two_threads_are_one_router() {
        let count = |n| BTreeMap::from([("08".to_owned(), n)]);
        let thread = |user: &str, errors| EngineSnapshot {
            pools: vec![pool("shared", 0), pool(user, 0), pool("shared", 1)],
            databases: vec![DatabaseSnapshot {
                name: "app".to_owned(),
                epoch: Epoch::new(3),
                sharded: true,
                paused: false,
                suspended: false,
                disabled: false,
                servers_closing: 0,
            }],
            totals: Totals {
                statements: 10,
                clients_max: 100,
                clients_now: 4,
                errors_router: count(errors),
                reads: BTreeMap::from([("replica", 1)]),
                ..Totals::default()
            },
            ..EngineSnapshot::default()
        };
        let mut all = thread("a", 1);
        all.absorb(thread("b", 2));
        assert_eq!(all.pools.len(), 4);
        assert_eq!(all.databases.len(), 1);
        let shared = all.pools.first().unwrap();
        assert_eq!((shared.servers_idle, shared.size_max, shared.oldest_wait_ms), (8, 20, 7));
        assert_eq!((all.totals.statements, all.totals.clients_now), (20, 8));
        assert_eq!((all.totals.clients_max, all.totals.errors_router), (100, count(3)));
        assert_eq!(all.totals.reads.get("replica"), Some(&2));
    }
}
