//! What all tasks of one engine thread share. Nothing here is shared between
//! threads: plain cells, no locks.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use crate::auth::Borrowed;
use crate::backend::{Event, SettingsInterner};
use crate::catalog::Catalog;
use crate::cluster::{Cluster, Member, NodeState, ReadReason};
use crate::config::{BackendLogin as LoginAs, PoolMode, Settings};
use crate::gather::Memory;
use crate::net::clock;
use crate::pool::Budget;
use crate::route::{Planner, PlannerLimits};
use crate::session::StatementRegistry;
use crate::shardmap::{Map, Moves, Phase as MovePhase};
use crate::types::{Moment, NodeId, Role, ShardId, SqlState};

use super::channels::Listeners;
use super::client::ClientEntry;
use super::conn::Conn;
use super::crew::{self, Crew, LedgerKey};
use super::lease::Lease;
use super::loads::Loads;
use super::logins::{Access, BackendLogin, EngineOptions, Users};
use super::lookups::Lookups;
use super::marks::Marks;
use super::moves::Drains;
use super::operate::Gate;
use super::params::ServerParams;
use super::pools::Pools;
use super::share::{NodeShare, Undertaker};
use super::snapshot::{LATENCY_BUCKETS, Latency};

/// One engine thread.
pub(super) struct Thread {
    pub(super) settings: Arc<Settings>,
    pub(super) options: Arc<EngineOptions>,
    /// All threads, and which of them this is.
    pub(super) crew: Arc<Crew>,
    pub(super) index: usize,
    /// Who may come in.
    access: RefCell<Arc<Access>>,
    pub(super) lookups: Lookups,
    pub(super) databases: Vec<Rc<Database>>,
    pub(super) pools: RefCell<Pools>,
    pub(super) listeners: Listeners,
    shares: RefCell<HashMap<String, Rc<NodeShare>>>,
    undertaker: Rc<Undertaker>,
    pub(super) clients: RefCell<HashMap<u32, Rc<ClientEntry>>>,
    pub(super) interner: RefCell<SettingsInterner>,
    pub(super) registry: RefCell<StatementRegistry>,
    /// What reads of several shards may hold of rows.
    pub(super) gathered: Rc<Memory>,
    pub(super) scratch: RefCell<Vec<u8>>,
    pub(super) events: RefCell<Vec<Event>>,
    pub(super) stats: Stats,
    pub(super) draining: Cell<bool>,
    /// Another router accepts on its sockets; who is connected stays.
    pub(super) retired: Cell<bool>,
    /// Told once when draining or retirement begins.
    pub(super) drained: tokio::sync::Notify,
    pub(super) drains: Drains,
    next_client: Cell<u32>,
    schema_changes_told: Cell<u64>,
    clock: Cell<Moment>,
    randomness: Cell<u64>,
}

/// One database as the thread sees it.
pub(super) struct Database {
    pub(super) index: usize,
    pub(super) name: String,
    map: RefCell<Arc<Map>>,
    serial: Cell<u64>,
    /// Grows with every map, and with every change of the moves.
    revision: Cell<u64>,
    cluster: RefCell<Arc<Cluster>>,
    /// Counts the views of the nodes, from one.
    view: Cell<u64>,
    catalog: RefCell<Rc<Catalog>>,
    catalog_serial: Cell<u64>,
    pub(super) marks: Arc<Marks>,
    pub(super) loads: Loads,
    pub(super) lease: Arc<Lease>,
    pub(super) planner: RefCell<Planner>,
    params: RefCell<Option<Rc<ServerParams>>>,
    logins: RefCell<HashMap<ShardId, BackendLogin>>,
    pub(super) gate: Gate,
    logins_serial: Cell<u64>,
    /// What logins of users lend to the router, by user.
    borrowed: RefCell<HashMap<Box<str>, Borrowed>>,
}

/// What has changed with a new view of the nodes.
pub(super) struct News {
    /// Nodes that have come up.
    pub(super) up: Vec<NodeId>,
    pub(super) writers: Writers,
}

/// Whether a shard's writes go elsewhere than before, or nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Writers {
    Same,
    Moved,
}

/// Counts of the thread.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) statements: Cell<u64>,
    pub(super) transactions: Cell<u64>,
    pub(super) bytes_in: Cell<u64>,
    pub(super) bytes_out: Cell<u64>,
    pub(super) logins: Cell<u64>,
    pub(super) logins_refused: Cell<u64>,
    pub(super) cancels: Cell<u64>,
    pub(super) checkout_timeouts: Cell<u64>,
    /// Connections given up for another thread's clients.
    pub(super) passed_on: Cell<u64>,
    /// How often another thread that goes short has woken this one.
    pub(super) nudges: Cell<u64>,
    /// By [`ReadReason::index`].
    pub(super) reads: [Cell<u64>; ReadReason::COUNT],
    pub(super) units_on_primaries: Cell<u64>,
    /// Statements that waited for a move, each time that they did.
    pub(super) held: Cell<u64>,
    /// Those that waited too long.
    pub(super) hold_timeouts: Cell<u64>,
    /// Units that a fence refused and that ran again.
    pub(super) fenced: Cell<u64>,
    /// Maps taken over, and how long that kept the thread from its clients.
    pub(super) map_swaps: Cell<u64>,
    pub(super) map_swap_us_sum: Cell<u64>,
    pub(super) map_swap_us_max: Cell<u64>,
    errors_server: RefCell<Classes>,
    errors_router: RefCell<Classes>,
    pub(super) latency_us: [Cell<u64>; LATENCY_BUCKETS],
    pub(super) latency_us_sum: Cell<u64>,
}

impl Stats {
    /// Counts a read by where it goes and why.
    pub(super) fn note_read(&self, reason: ReadReason) {
        if let Some(cell) = self.reads.get(reason.index()) {
            cell.set(cell.get() + 1);
        }
    }

    /// A connection makes way for another thread's.
    pub(super) fn note_passed_on(&self) {
        self.passed_on.set(self.passed_on.get() + 1);
    }

    /// Counts a unit that no replica could serve.
    pub(super) fn note_unit_on_primary(&self) {
        self.units_on_primaries.set(self.units_on_primaries.get() + 1);
    }

    /// A map was taken over, which took `us` microseconds.
    pub(super) fn note_map_swap(&self, us: u64) {
        self.map_swaps.set(self.map_swaps.get() + 1);
        self.map_swap_us_sum.set(self.map_swap_us_sum.get() + us);
        self.map_swap_us_max.set(self.map_swap_us_max.get().max(us));
    }

    pub(super) fn note_latency(&self, us: u64) {
        if let Some(cell) = self.latency_us.get(Latency::bucket_of(us)) {
            cell.set(cell.get() + 1);
        }
        self.latency_us_sum.set(self.latency_us_sum.get() + us);
    }

    /// Counts an error of a node's.
    pub(super) fn note_error(&self, state: SqlState) {
        count_class(&self.errors_server, state);
    }

    /// Counts an error of the router's own.
    pub(super) fn note_refusal(&self, state: SqlState) {
        count_class(&self.errors_router, state);
    }

    /// Errors of nodes and of the router's own so far, by class.
    pub(super) fn errors(&self) -> [BTreeMap<String, u64>; 2] {
        [&self.errors_server, &self.errors_router].map(|classes| {
            let classes = classes.borrow();
            let name = |class: &[u8]| String::from_utf8_lossy(class).into_owned();
            classes.iter().map(|(class, count)| (name(class), *count)).collect()
        })
    }
}

/// How often each class of SQLSTATEs came.
type Classes = HashMap<[u8; 2], u64>;

fn count_class(classes: &RefCell<Classes>, state: SqlState) {
    let class = state.as_str().as_bytes().first_chunk::<2>().copied().unwrap_or(*b"XX");
    *classes.borrow_mut().entry(class).or_insert(0) += 1;
}

impl Thread {
    pub(super) fn new(options: Arc<EngineOptions>, crew: Arc<Crew>, index: usize) -> Rc<Self> {
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
                    revision: Cell::new(1),
                    cluster: RefCell::new(Arc::new(unknown_cluster(&database.map))),
                    view: Cell::new(1),
                    catalog: RefCell::default(),
                    catalog_serial: Cell::new(1),
                    marks: Arc::clone(&database.marks),
                    loads: Loads::default(),
                    lease: Arc::clone(&database.lease),
                    planner: RefCell::new(Planner::new(number(0), planner_limits(&settings))),
                    params: RefCell::new(None),
                    logins: RefCell::new(database.logins.clone()),
                    gate: Gate::new(database.lease.has_lapsed(clock::now())),
                    logins_serial: Cell::new(1),
                    borrowed: RefCell::default(),
                })
            })
            .collect();
        let access = RefCell::new(Arc::clone(&options.access));
        let gathered = Memory::new(settings.merge.router_memory.count());
        Rc::new(Self {
            settings,
            options,
            gathered,
            crew,
            index,
            access,
            lookups: Lookups::default(),
            databases,
            pools: RefCell::default(),
            listeners: Listeners::default(),
            shares: RefCell::default(),
            undertaker: Rc::default(),
            clients: RefCell::default(),
            interner: RefCell::default(),
            registry: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            events: RefCell::new(Vec::with_capacity(64)),
            stats: Stats::default(),
            draining: Cell::new(false),
            retired: Cell::new(false),
            drained: tokio::sync::Notify::new(),
            drains: Drains::default(),
            next_client: Cell::new(1),
            schema_changes_told: Cell::new(0),
            clock: Cell::new(clock::now()),
            randomness: Cell::new(number(8).rotate_left(u32::try_from(index).unwrap_or(0)) | 1),
        })
    }

    /// Whether clients are still let in.
    pub(super) const fn accepts(&self) -> bool {
        !self.draining.get() && !self.retired.get()
    }

    /// Lets nobody in from now on: another router does.
    pub(super) fn retire(&self, done: tokio::sync::oneshot::Sender<()>) {
        self.retired.set(true);
        self.drained.notify_waiters();
        let _asker_left = done.send(());
    }

    /// The coarse clock: as of the last tick.
    pub(super) fn now(&self) -> Moment {
        self.clock.get()
    }

    pub(super) fn tick(&self) {
        self.clock.set(clock::now());
        self.look_at_leases();
        self.tell_of_schema_changes();
    }

    /// Who may come in, as of the last reload.
    pub(super) fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.borrow())
    }

    /// Configured users, as of the last reload.
    pub(super) fn users(&self) -> Arc<Users> {
        Arc::clone(&self.access.borrow().users)
    }

    /// When this user's clients of this database give their backends back.
    pub(super) fn mode_of(&self, user: &str, database: &str) -> PoolMode {
        let access = self.access.borrow();
        let own = access.users.by_name.get(user).and_then(|user| user.pool_mode);
        own.or_else(|| access.pool_modes.get(database).copied()).unwrap_or(self.settings.pool.mode)
    }

    /// From here on these may come in.
    pub(super) fn publish_access(&self, access: Arc<Access>) {
        *self.access.borrow_mut() = access;
    }

    /// True if the router logs in at backends as this user whatever the map
    /// says.
    pub(super) fn logs_in_as_itself(&self, user: &str) -> bool {
        let access = self.access.borrow();
        let own = access.users.by_name.get(user).and_then(|user| user.backend_login);
        own.unwrap_or(access.backend_login) == LoginAs::Own
    }

    /// A shard has refused the password that is configured for it: there may
    /// be a new one.
    pub(super) fn ask_for_logins(&self) {
        if let Some(refused) = &self.options.refused_logins {
            refused.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    pub(super) fn database_named(&self, name: &str) -> Option<&Rc<Database>> {
        self.databases.iter().find(|database| database.name == name)
    }

    /// What the pools share of a node. The monitor of each database that has
    /// the node keeps one of its connections, and of a primary a second one
    /// that reads the catalog.
    pub(super) fn node_share(&self, endpoint: String) -> Rc<NodeShare> {
        let max = self.settings.pool.connections_per_node_max;
        let own = |map: &Map| {
            let here = map.nodes().iter().find(|node| node.endpoint.to_string() == endpoint);
            here.map_or(0, |node| match node.role {
                Role::Primary => 2,
                Role::Replica => 1,
            })
        };
        let monitors: u32 =
            self.databases.iter().map(|database| database.with_map(|map, _| own(map))).sum();
        let mut shares = self.shares.borrow_mut();
        let key = LedgerKey::Node(endpoint.clone());
        Rc::clone(shares.entry(endpoint).or_insert_with(|| {
            let ledger = self.crew.ledger(key, || Budget::new(max, monitors));
            NodeShare::new(ledger, Rc::clone(&self.undertaker))
        }))
    }

    /// What is known of a database's nodes that had connections.
    pub(super) fn shares_of(&self, database: &Database) -> Vec<Rc<NodeShare>> {
        let shares = self.shares.borrow();
        let map = database.map();
        let known = map.nodes().iter().map(|node| shares.get(&node.endpoint.to_string()));
        known.flatten().map(Rc::clone).collect()
    }

    /// Who closes this thread's connections.
    pub(super) fn undertaker(&self) -> Rc<Undertaker> {
        Rc::clone(&self.undertaker)
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

    /// Tells the control plane if a schema has changed through this thread
    /// since it was told last.
    fn tell_of_schema_changes(&self) {
        let seen = self.registry.borrow().schema_changes();
        if self.schema_changes_told.replace(seen) != seen
            && let Some(changes) = &self.options.schema_changes
        {
            changes.send_modify(|count| *count = count.wrapping_add(1));
        }
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
        let mut count = self.next_client.get();
        let id = loop {
            let id = crew::client_id(self.index, count);
            count = count.wrapping_add(1);
            if id != crew::client_id(self.index, 0) && !clients.contains_key(&id) {
                break id;
            }
        };
        self.next_client.set(count);
        let entry = Rc::new(make(id));
        clients.insert(id, Rc::clone(&entry));
        self.crew.joined(self.index);
        entry
    }

    /// A client has left.
    pub(super) fn unregister(&self, id: u32) {
        if self.clients.borrow_mut().remove(&id).is_some() {
            self.crew.left(self.index);
        }
    }

    /// Who waits for an old primary goes on at the new one.
    pub(super) fn tell_of_writers(&self, database: &Database) {
        for client in self.clients.borrow().values() {
            if client.database == database.index {
                client.signal(|signals| signals.nodes = true);
            }
        }
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

    /// New passwords or certificates for the same map.
    pub(super) fn publish_logins(&self, logins: HashMap<ShardId, BackendLogin>) {
        let before = self.logins.replace(logins);
        let now = self.logins.borrow();
        let password = |login: Option<&BackendLogin>| login.and_then(|l| l.password.clone());
        if now.iter().any(|(id, login)| login.password != password(before.get(id))) {
            self.logins_serial.set(self.logins_serial.get() + 1);
        }
    }

    /// Changes when a shard's password does.
    pub(super) fn logins_serial(&self) -> u64 {
        self.logins_serial.get()
    }

    /// What a login of this user lent to the router.
    pub(super) fn borrowed(&self, user: &str) -> Option<Borrowed> {
        self.borrowed.borrow().get(user).cloned()
    }

    /// A user has logged in and lends this to the router.
    pub(super) fn lend(&self, user: &str, borrowed: Borrowed) {
        self.borrowed.borrow_mut().insert(user.into(), borrowed);
    }

    pub(super) fn publish_map(&self, map: Arc<Map>, logins: HashMap<ShardId, BackendLogin>) {
        *self.logins.borrow_mut() = logins;
        // Slots may have moved: what was proven of them elsewhere holds no more.
        let moved = !map.same_ownership(&self.map.borrow());
        for shard in map.shards() {
            if moved {
                self.marks.move_rows(shard.id, clock::now());
            } else {
                self.marks.renew(shard.id);
            }
        }
        self.planner.borrow_mut().clear();
        if !map.watches_like(&self.map.borrow()) {
            *self.cluster.borrow_mut() = Arc::new(unknown_cluster(&map));
            self.view.set(self.view.get() + 1);
        }
        let moves = self.map.borrow().all_moves();
        *self.map.borrow_mut() = map;
        self.serial.set(self.serial.get() + 1);
        self.publish_moves(moves);
    }

    /// From here on these moves are under way. Plans stay: no key belongs
    /// elsewhere for it.
    pub(super) fn publish_moves(&self, moves: Moves) {
        let mut map = self.map.borrow_mut();
        let before = map.all_moves();
        // Switched before this router heard of it, or purged.
        let came = moves.iter().filter(|moving| {
            moving.phase == MovePhase::Switched && before.iter().all(|known| known.id != moving.id)
        });
        let went = before.iter().filter(|known| moves.iter().all(|one| one.id != known.id));
        for moving in came.chain(went) {
            self.marks.move_rows(moving.source, clock::now());
            self.marks.move_rows(moving.target, clock::now());
        }
        if !moves.is_empty() || map.has_moves() {
            *map = Arc::new((**map).clone().with_moves(moves));
        }
        self.revision.set(self.revision.get() + 1);
    }

    /// Changes with every map, and with every change of the moves.
    pub(super) fn revision(&self) -> u64 {
        self.revision.get()
    }

    /// Changes with every view of the nodes; never zero.
    #[inline]
    pub(super) fn view(&self) -> u64 {
        self.view.get()
    }

    /// Takes in what the monitor sees.
    pub(super) fn publish_cluster(&self, cluster: Arc<Cluster>) -> News {
        let before = self.cluster.replace(Arc::clone(&cluster));
        self.view.set(self.view.get() + 1);
        let up = |state: &&NodeState| {
            state.health.is_well() && !before.health(state.member.node).is_well()
        };
        let moved = cluster.shards().any(|shard| {
            cluster.writer_of(shard) != before.writer_of(shard)
                || cluster.lacks_primary(shard) != before.lacks_primary(shard)
        });
        News {
            up: cluster.nodes().iter().filter(up).map(|state| state.member.node).collect(),
            writers: if moved { Writers::Moved } else { Writers::Same },
        }
    }

    /// True if another node of `node`'s shard may take its place.
    pub(super) fn has_successor(&self, node: NodeId) -> bool {
        let map = self.map.borrow();
        let shard = map.node(node).map(|node| node.shard);
        map.nodes().iter().any(|other| Some(other.shard) == shard && other.id != node)
    }

    /// What the shards' schemas hold, and its serial.
    pub(super) fn catalog(&self) -> (Rc<Catalog>, u64) {
        (Rc::clone(&self.catalog.borrow()), self.catalog_serial.get())
    }

    pub(super) fn publish_catalog(&self, catalog: &Catalog) {
        let next = catalog.clone().after(&self.catalog.borrow());
        *self.catalog.borrow_mut() = Rc::new(next);
        self.catalog_serial.set(self.catalog_serial.get() + 1);
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
        near: false,
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
