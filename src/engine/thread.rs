//! What all tasks of one engine thread share. Nothing here is shared between
//! threads: plain cells, no locks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use tokio_rustls::rustls;

use crate::backend::{Event, SettingsInterner};
use crate::cluster::{Cluster, Member};
use crate::config::Settings;
use crate::net::clock;
use crate::pool::Budget;
use crate::route::{Planner, PlannerLimits};
use crate::session::StatementRegistry;
use crate::shardmap::Map;
use crate::types::{Moment, ShardId};

use super::client::ClientEntry;
use super::conn::Conn;
use super::logins::{BackendLogin, EngineOptions, Users};
use super::params::ServerParams;
use super::pools::Pools;

/// One engine thread.
pub(super) struct Thread {
    pub(super) settings: Arc<Settings>,
    pub(super) options: EngineOptions,
    pub(super) databases: Vec<Rc<Database>>,
    pub(super) pools: RefCell<Pools>,
    budgets: RefCell<HashMap<String, Arc<Budget>>>,
    pub(super) clients: RefCell<HashMap<u32, Rc<ClientEntry>>>,
    pub(super) interner: RefCell<SettingsInterner>,
    pub(super) registry: RefCell<StatementRegistry>,
    pub(super) scratch: RefCell<Vec<u8>>,
    pub(super) events: RefCell<Vec<Event>>,
    pub(super) stats: Stats,
    pub(super) draining: Cell<bool>,
    /// Told once when draining begins.
    pub(super) drained: tokio::sync::Notify,
    next_client: Cell<u32>,
    clock: Cell<Moment>,
    randomness: Cell<u64>,
}

/// One database as the thread sees it.
pub(super) struct Database {
    pub(super) index: usize,
    pub(super) name: String,
    map: RefCell<Arc<Map>>,
    serial: Cell<u64>,
    cluster: RefCell<Arc<Cluster>>,
    pub(super) planner: RefCell<Planner>,
    params: RefCell<Option<Rc<ServerParams>>>,
    logins: RefCell<HashMap<ShardId, BackendLogin>>,
}

/// Counts of the thread.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) statements: Cell<u64>,
    pub(super) units: Cell<u64>,
    pub(super) bytes_in: Cell<u64>,
    pub(super) bytes_out: Cell<u64>,
    pub(super) logins: Cell<u64>,
    pub(super) logins_refused: Cell<u64>,
    pub(super) cancels: Cell<u64>,
    pub(super) checkout_timeouts: Cell<u64>,
    pub(super) reads_on_replicas: Cell<u64>,
    pub(super) units_on_primaries: Cell<u64>,
    pub(super) clients_max_seen: Cell<u64>,
    pub(super) errors: RefCell<HashMap<[u8; 2], u64>>,
    pub(super) latency_us: [Cell<u64>; LATENCY_BUCKETS],
    pub(super) latency_us_sum: Cell<u64>,
}

/// Buckets of the latency histogram: powers of two of microseconds.
pub(super) const LATENCY_BUCKETS: usize = 32;

impl Stats {
    pub(super) fn note_latency(&self, us: u64) {
        let bucket = usize::try_from(u64::BITS - us.leading_zeros()).unwrap_or(0);
        if let Some(cell) = self.latency_us.get(bucket.min(LATENCY_BUCKETS - 1)) {
            cell.set(cell.get() + 1);
        }
        self.latency_us_sum.set(self.latency_us_sum.get() + us);
    }
}

impl Thread {
    pub(super) fn new(options: EngineOptions) -> Rc<Self> {
        let seed = options.seed;
        let number = |from: usize| {
            let bytes = seed.get(from..from + 8).and_then(|b| <[u8; 8]>::try_from(b).ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        let settings = Arc::clone(&options.settings);
        let databases = options
            .databases
            .iter()
            .enumerate()
            .map(|(index, database)| {
                Rc::new(Database {
                    index,
                    name: database.name.clone(),
                    map: RefCell::new(Arc::clone(&database.map)),
                    serial: Cell::new(1),
                    cluster: RefCell::new(Arc::new(unknown_cluster(&database.map))),
                    planner: RefCell::new(Planner::new(number(0), planner_limits(&settings))),
                    params: RefCell::new(None),
                    logins: RefCell::new(database.logins.clone()),
                })
            })
            .collect();
        Rc::new(Self {
            settings,
            options,
            databases,
            pools: RefCell::default(),
            budgets: RefCell::default(),
            clients: RefCell::default(),
            interner: RefCell::default(),
            registry: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            events: RefCell::new(Vec::with_capacity(64)),
            stats: Stats::default(),
            draining: Cell::new(false),
            drained: tokio::sync::Notify::new(),
            next_client: Cell::new(1),
            clock: Cell::new(clock::now()),
            randomness: Cell::new(number(8) | 1),
        })
    }

    /// The coarse clock: as of the last tick.
    pub(super) fn now(&self) -> Moment {
        self.clock.get()
    }

    pub(super) fn tick(&self) {
        self.clock.set(clock::now());
    }

    pub(super) fn users(&self) -> &Users {
        &self.options.users
    }

    pub(super) fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.options.tls.clone()
    }

    pub(super) fn database_named(&self, name: &str) -> Option<&Rc<Database>> {
        self.databases.iter().find(|database| database.name == name)
    }

    /// The budget of a node, one connection of which is the monitor's.
    pub(super) fn budget(&self, endpoint: String) -> Arc<Budget> {
        let max = self.settings.pool.connections_per_node_max;
        let mut budgets = self.budgets.borrow_mut();
        Arc::clone(budgets.entry(endpoint).or_insert_with(|| Budget::new(max, MONITOR_CONNECTIONS)))
    }

    /// A number that spreads; not a secret.
    pub(super) fn random(&self) -> u64 {
        let mut x = self.randomness.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.randomness.set(x);
        x
    }

    /// Bytes that can't be guessed.
    pub(super) fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        if getrandom::fill(&mut bytes).is_err() {
            // Without a source of randomness no login must succeed.
            tracing::error!("the system gives no random bytes");
            std::process::abort();
        }
        bytes
    }

    /// Enters a client under a number that no other has.
    pub(super) fn register(&self, make: impl FnOnce(u32) -> ClientEntry) -> Rc<ClientEntry> {
        let mut clients = self.clients.borrow_mut();
        let mut id = self.next_client.get();
        while clients.contains_key(&id) || id == 0 {
            id = id.wrapping_add(1);
        }
        self.next_client.set(id.wrapping_add(1));
        let entry = Rc::new(make(id));
        clients.insert(id, Rc::clone(&entry));
        let now = u64::try_from(clients.len()).unwrap_or(u64::MAX);
        self.stats.clients_max_seen.set(self.stats.clients_max_seen.get().max(now));
        entry
    }

    /// Starts a task of this thread; it ends by itself or with the thread.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        drop(tokio::task::spawn_local(task));
    }
}

impl Database {
    pub(super) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.borrow())
    }

    /// Looks at the map without keeping it.
    pub(super) fn with_map<R>(&self, look: impl FnOnce(&Arc<Map>, u64) -> R) -> R {
        look(&self.map.borrow(), self.serial.get())
    }

    pub(super) fn with_cluster<R>(&self, look: impl FnOnce(&Cluster) -> R) -> R {
        look(&self.cluster.borrow())
    }

    pub(super) fn publish_map(&self, map: Arc<Map>, logins: HashMap<ShardId, BackendLogin>) {
        *self.logins.borrow_mut() = logins;
        self.planner.borrow_mut().clear();
        *self.cluster.borrow_mut() = Arc::new(unknown_cluster(&map));
        *self.map.borrow_mut() = map;
        self.serial.set(self.serial.get() + 1);
    }

    pub(super) fn publish_cluster(&self, cluster: Arc<Cluster>) {
        *self.cluster.borrow_mut() = cluster;
    }

    pub(super) fn login(&self, shard: ShardId) -> BackendLogin {
        self.logins.borrow().get(&shard).cloned().unwrap_or_default()
    }

    pub(super) fn shard_name(&self, shard: ShardId) -> String {
        self.map.borrow().shard(shard).map_or_else(|| "?".to_owned(), |s| s.name.clone())
    }

    /// What the home shard's primary says of itself is what clients are told.
    pub(super) fn note_params(&self, conn: &Conn) {
        let home = self.map.borrow().home();
        if conn.shard == home && conn.writes == crate::session::Writes::Possible {
            *self.params.borrow_mut() = Some(Rc::clone(&conn.params));
        }
    }

    pub(super) fn params(&self) -> Option<Rc<ServerParams>> {
        self.params.borrow().clone()
    }
}

/// A view of the map's nodes before the monitor has seen any.
fn unknown_cluster(map: &Map) -> Cluster {
    Cluster::unknown(map.nodes().iter().map(|node| Member {
        node: node.id,
        shard: node.shard,
        role: node.role,
        weight: u32::from(node.endpoint.weight),
    }))
}

fn planner_limits(settings: &Settings) -> PlannerLimits {
    let mut limits = PlannerLimits::default();
    limits.cache_bytes = settings.limits.plan_cache_bytes_max.count() / 2;
    limits
}

/// One read from a client or backend, and the head of a frame before it.
const SCRATCH_BYTES: usize = 2 * READ_BYTES + 1024;
/// Most that one read takes, and that one connection gets in a turn.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Connections of the monitor to each node.
const MONITOR_CONNECTIONS: u32 = 1;
