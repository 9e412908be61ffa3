//! The control plane's state: the maps in force, what the monitors see, and
//! the way to the engine. The console and the pages ask it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::access::{logins, lookup_login};
use super::catalogs::{Catalogs, SchemaChanges};
use super::fleet::{Fleets, first_lease};
use super::moves::Movers;
use super::secrets::Environment;
use crate::admin::{
    Action, DatabaseView, Inputs, Outcome, Refusal, Reloaded, SettingRow, Source,
    source::{Intake, PrimaryOrder, Waiting},
};
use crate::cluster::{Cluster, Member};
use crate::config::{self, Config};
use crate::control::lookup::Directions;
use crate::control::maps::MapFile;
use crate::control::monitor::{Credentials, Monitor, Rhythm, Target};
use crate::engine::snapshot::EngineSnapshot;
use crate::engine::{Access, Handle, Lease, Marks, Operation, User, Users};
use crate::health::{Authority, NotNamed};
use crate::net::clock;
use crate::shardmap::Map;
use crate::types::{Millis, SqlState};

/// A database as it is served.
pub(super) struct Served {
    pub(super) map: Arc<Map>,
    pub(super) file: Option<MapFile>,
    pub(super) kept_back: Option<String>,
    pub(super) marks: Arc<Marks>,
    pub(super) lease: Arc<Lease>,
}

impl Served {
    /// `map`, of `file` if it has one, to be served with a lease of that length
    /// if it needs one.
    pub(super) fn new(
        map: Map,
        file: Option<MapFile>,
        kept_back: Option<String>,
        lease: Millis,
    ) -> Self {
        let lease = first_lease(&map, lease);
        Self { map: Arc::new(map), file, kept_back, marks: Marks::new(), lease }
    }

    /// The folder that paths in its map are relative to.
    pub(super) fn folder(&self) -> &Path {
        let file = self.file.as_ref().map(MapFile::path);
        file.and_then(Path::parent).unwrap_or(Path::new(""))
    }
}

/// The configuration, and where it came from.
pub(super) struct Configured {
    pub(super) file: Option<PathBuf>,
    /// The folder that paths in it are relative to.
    pub(super) folder: PathBuf,
    pub(super) config: Config,
    /// The user of a backend's URL.
    pub(super) owner: Option<(String, User)>,
}

pub(super) struct Database {
    pub(super) served: Served,
    pub(super) cluster: Arc<Cluster>,
    pub(super) monitor: Option<Arc<Monitor>>,
    catalogs: Catalogs,
}

/// What the control plane's tasks share.
pub(super) struct Plane {
    pub(super) config: Config,
    /// The configuration as it was accepted last.
    pub(super) latest: Mutex<Config>,
    file: Option<PathBuf>,
    pub(super) folder: PathBuf,
    pub(super) owner: Option<(String, User)>,
    handle: Handle,
    schema_changes: SchemaChanges,
    pub(super) access: Mutex<Arc<Access>>,
    pub(super) environment: Environment,
    /// Where the users of each database are looked up.
    pub(super) directions: Mutex<HashMap<String, Directions>>,
    /// As whom the monitor logs in.
    pub(super) credentials: Credentials,
    /// Told when a reload may have named other files.
    pub(super) files_read: tokio::sync::Notify,
    /// A digest of the files that access was read from.
    pub(super) stamp: Mutex<u64>,
    databases: Mutex<Vec<Database>>,
    pub(super) moves: Movers,
    pub(super) fleets: Fleets,
    draining: std::sync::atomic::AtomicBool,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// One new map at a time.
    pub(super) replacing: tokio::sync::Mutex<()>,
}

impl Plane {
    pub(super) fn new(
        (handle, schema_changes): (Handle, SchemaChanges),
        served: Vec<Served>,
        configured: Configured,
        access: Arc<Access>,
        environment: Environment,
    ) -> Self {
        let databases = served
            .into_iter()
            .map(|served| {
                let members = members(&served.map);
                let cluster = Arc::new(Cluster::unknown(members));
                Database { served, cluster, monitor: None, catalogs: Catalogs::default() }
            })
            .collect();
        let Configured { file, folder, config, owner } = configured;
        let fleets = Fleets::new(handle.local_addrs().first().map(std::net::SocketAddr::port));
        Self {
            latest: Mutex::new(config.clone()),
            config,
            file,
            folder,
            owner,
            handle,
            schema_changes,
            access: Mutex::new(access),
            environment,
            directions: Mutex::default(),
            credentials: Credentials::default(),
            files_read: tokio::sync::Notify::new(),
            stamp: Mutex::default(),
            databases: Mutex::new(databases),
            moves: Movers::default(),
            fleets,
            draining: std::sync::atomic::AtomicBool::new(false),
            reloading: tokio::sync::Mutex::new(()),
            replacing: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn databases(&self) -> MutexGuard<'_, Vec<Database>> {
        // Each step leaves the list whole, so a panic elsewhere did not harm it.
        self.databases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the catalogs of the database with this index.
    pub(super) fn with_catalogs<R>(
        &self,
        index: usize,
        act: impl FnOnce(&mut Catalogs) -> R,
    ) -> Option<R> {
        self.databases().get_mut(index).map(|database| act(&mut database.catalogs))
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn schema_changes(&self) -> SchemaChanges {
        self.schema_changes.clone()
    }

    /// The map in force of the database with this index.
    pub(super) fn map_of(&self, index: usize) -> Option<Arc<Map>> {
        self.databases().get(index).map(|database| Arc::clone(&database.served.map))
    }

    /// Whether the database with this index has a map file.
    pub(super) fn has_file(&self, index: usize) -> bool {
        self.databases().get(index).is_some_and(|database| database.served.file.is_some())
    }

    /// The lease of the database with this index.
    pub(super) fn lease_of(&self, index: usize) -> Option<Arc<Lease>> {
        self.databases().get(index).map(|database| Arc::clone(&database.served.lease))
    }

    pub(super) const fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The folder that paths of the configuration are relative to.
    pub(super) fn config_folder(&self) -> &Path {
        &self.folder
    }

    /// The maps in force, with the folders that paths in them are relative to.
    pub(super) fn maps(&self) -> Vec<(Arc<Map>, PathBuf)> {
        let databases = self.databases();
        databases
            .iter()
            .map(|d| (Arc::clone(&d.served.map), d.served.folder().to_owned()))
            .collect()
    }

    pub(super) fn users(&self) -> Arc<Users> {
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&access.users)
    }

    /// Starts watching the nodes of every database.
    pub(super) fn start_monitors(self: &Arc<Self>) {
        let all: Vec<(usize, Arc<Map>)> = {
            let databases = self.databases();
            databases.iter().enumerate().map(|(i, d)| (i, Arc::clone(&d.served.map))).collect()
        };
        for (index, map) in all {
            self.start_monitor(index, &map);
            self.start_catalogs(index, &map);
        }
    }

    pub(super) fn start_monitor(self: &Arc<Self>, index: usize, map: &Map) {
        let plane = Arc::downgrade(self);
        let name = map.database().to_owned();
        let level = map.consistency().unwrap_or(self.config.settings.reads.consistency);
        let pool = &self.config.settings.pool;
        let mut rhythm = Rhythm::for_reads(
            level,
            self.config.settings.timeouts.connect,
            (pool.reconnect_min, pool.reconnect_max),
        );
        let nodes = &self.config.settings.nodes;
        rhythm.authority = match nodes.authority {
            config::Authority::Nobody => Authority::Nobody,
            config::Authority::Map => Authority::Map,
            config::Authority::Patroni => Authority::Patroni,
            config::Authority::Console => Authority::Console,
        };
        rhythm.thresholds.lagging_after = nodes.lagging_after;
        let publish = Arc::new(move |cluster: Arc<Cluster>| {
            let Some(plane) = plane.upgrade() else { return };
            let mut failed_over = None;
            if let Some(database) = plane.databases().get_mut(index) {
                let before = std::mem::replace(&mut database.cluster, Arc::clone(&cluster));
                let moved = |shard| {
                    let (old, new) = (before.primary_of(shard), cluster.primary_of(shard));
                    new.is_some() && old != new
                };
                if cluster.shards().any(moved) {
                    failed_over = Some(Arc::clone(&database.served.map));
                }
            }
            plane.handle.publish_cluster(&name, &cluster);
            if let Some(map) = failed_over {
                // The schemas are read where the writes go.
                plane.start_catalogs(index, &map);
            }
        });
        let marks = self.databases().get(index).map(|database| Arc::clone(&database.served.marks));
        let Some(marks) = marks else { return };
        let monitor = Monitor::start(self.targets(map), rhythm, &nodes.patroni_url, marks, publish);
        if let Some(database) = self.databases().get_mut(index) {
            database.monitor = Some(Arc::new(monitor));
        }
    }

    /// Whether a node gets its shard's writes, as far as the monitor knows.
    pub(super) fn takes_writes(&self, map: &Map, target: &Target) -> bool {
        let databases = self.databases();
        let database = databases.iter().find(|d| d.served.map.database() == map.database());
        let same = database.filter(|d| map.watches_like(&d.served.map));
        let writer = same.and_then(|d| d.cluster.primary_of(target.member.shard));
        writer.map_or(target.is_primary(), |writer| writer == target.member.node)
    }

    /// The nodes to watch. Without a role of its own the monitor logs in as
    /// the first user whose password is known.
    pub(super) fn targets(&self, map: &Map) -> Vec<Target> {
        let folder = {
            let databases = self.databases();
            let served = databases.iter().find(|d| d.served.map.database() == map.database());
            served.map_or_else(PathBuf::new, |d| d.served.folder().to_owned())
        };
        let logins = logins(map, &self.environment, &folder).unwrap_or_default();
        let users = self.users();
        let config = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lookup = lookup_login(&config, &self.folder, &self.environment).ok().flatten();
        let known = users.by_name.iter().find(|(_, user)| user.password.is_some());
        map.nodes()
            .iter()
            .filter_map(|node| {
                let shard = map.shard(node.shard)?;
                let login = logins.get(&shard.id).cloned().unwrap_or_default();
                let fallback = known.map(|(name, user)| (name.clone(), user.password.clone()));
                let (user, password) = match (login.user, login.password) {
                    (Some(user), Some(password)) => (user, Some(password)),
                    (Some(user), None) => {
                        let own = users.by_name.get(&user).and_then(|u| u.password.clone());
                        (user, own)
                    }
                    (None, password) => {
                        // Where users are looked up, the role for that can see
                        // all that the monitor needs.
                        let (name, own) = fallback
                            .or_else(|| lookup.clone())
                            .or_else(|| Some((users.by_name.keys().next()?.clone(), None)))?;
                        (name, password.or(own))
                    }
                };
                Some(Target {
                    member: member(node, self.config.settings.reads.zone.as_deref()),
                    name: format!("{}/{}/{}", map.database(), shard.name, node.endpoint),
                    host: node.host().to_owned(),
                    port: node.port(),
                    dbname: shard.dbname.clone(),
                    user,
                    password,
                    tls: login.tls,
                    tls_required: login.tls_required,
                    credentials: self.credentials.clone(),
                })
            })
            .collect()
    }

    /// The files to watch.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let maps: Vec<PathBuf> = {
            let databases = self.databases();
            let path = |d: &Database| Some(d.served.file.as_ref()?.path().to_owned());
            databases.iter().filter_map(path).collect()
        };
        maps.into_iter().chain(self.access_files()).collect()
    }

    /// The configuration's file.
    pub(super) fn config_file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads again what has other content than before.
    pub(super) async fn reload_changed(self: &Arc<Self>) {
        let changed = self
            .databases()
            .iter()
            .any(|d| d.served.file.as_ref().is_some_and(MapFile::is_changed));
        if changed {
            let _alone = self.reloading.lock().await;
            self.reload_maps().await;
        }
        if self.access_has_changed() {
            let _alone = self.reloading.lock().await;
            self.reload_access().await;
        }
    }

    /// Reads the configuration and all map files again; a bad one changes
    /// nothing.
    pub(super) async fn reload(self: &Arc<Self>) -> Vec<Reloaded> {
        let _alone = self.reloading.lock().await;
        self.run_commands_again().await;
        let mut out: Vec<Reloaded> = self.reload_access().await.into_iter().collect();
        out.extend(self.reload_maps().await);
        self.renew_logins().await;
        self.files_read.notify_one();
        out
    }

    async fn reload_maps(self: &Arc<Self>) -> Vec<Reloaded> {
        let count = self.databases().len();
        let mut out = Vec::with_capacity(count);
        for index in 0..count {
            if let Some(reloaded) = self.reload_one(index).await {
                tracing::info!(database = %reloaded.what, result = %reloaded.result, "reload");
                out.push(reloaded);
            }
        }
        out
    }

    /// An operator names a shard's primary.
    fn name_primary(&self, order: &PrimaryOrder) -> Result<Outcome, Refusal> {
        let databases = self.databases();
        let named = |database: &&Database| {
            let name = database.served.map.database();
            order.database.as_deref().is_none_or(|wanted| wanted == name)
        };
        let mut found = databases.iter().filter(named);
        let (Some(database), None) = (found.next(), found.next()) else {
            return Err(match order.database.as_deref() {
                None if databases.len() > 1 => Refusal {
                    state: SqlState::new("42601"),
                    message: "several databases are served".to_owned(),
                    hint: Some("say which: SET PRIMARY shard 'host:port' IN db".to_owned()),
                },
                name => Refusal::no_database(name),
            });
        };
        let map = &database.served.map;
        let node = map.shards().iter().find(|shard| shard.name == order.shard).and_then(|shard| {
            map.nodes()
                .iter()
                .find(|node| node.shard == shard.id && node.endpoint.to_string() == order.node)
        });
        let absent = Refusal {
            state: SqlState::new("42704"),
            message: format!("shard {:?} has no node {:?}", order.shard, order.node),
            hint: Some("SHOW NODES lists them".to_owned()),
        };
        let node = node.map(|node| node.id);
        let (Some(node), Some(monitor)) = (node, database.monitor.clone()) else {
            return Err(absent);
        };
        // What it publishes comes back here.
        drop(databases);
        match monitor.name_primary(node) {
            Ok(()) => {
                tracing::warn!(shard = %order.shard, node = %order.node, "an operator names the primary");
                Ok(Outcome::Named)
            }
            Err(NotNamed::NoSuchNode) => Err(absent),
            Err(NotNamed::OtherAuthority) => Err(Refusal {
                state: SqlState::new("55000"),
                message: "the console does not decide which node is a primary".to_owned(),
                hint: Some("set nodes.authority to \"console\"".to_owned()),
            }),
        }
    }

    // === the end ===

    pub(super) async fn drain(&self) {
        self.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        self.handle.drain().await;
    }

    /// Waits for the end of the engine, which nobody has asked for.
    pub(super) async fn engine_ended(&self) {
        self.handle.ended().await;
    }

    /// Waits until no client is left.
    pub(super) async fn until_empty(&self) {
        loop {
            match self.handle.snapshot().await {
                Some(snapshot) if snapshot.totals.clients_now > 0 => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Some(_) | None => return,
            }
        }
    }

    pub(super) async fn stop(&self) {
        self.handle.stop().await;
        self.leave_fleets().await;
        let handle = self.handle.clone();
        drop(tokio::task::spawn_blocking(move || handle.join()).await);
    }
}

impl Source for Shared {
    fn inputs(&self) -> Waiting<'_, Inputs> {
        Box::pin(async {
            let plane = &self.0;
            let engine = plane.handle.snapshot().await.unwrap_or_default();
            let databases = plane
                .databases()
                .iter()
                .map(|database| DatabaseView {
                    map: Arc::clone(&database.served.map),
                    cluster: Arc::clone(&database.cluster),
                    kept_back: database.served.kept_back.clone(),
                    catalog: database.catalogs.view(),
                })
                .collect();
            let names: Vec<String> =
                plane.maps().iter().map(|(map, _)| map.database().to_owned()).collect();
            let draining = plane.draining.load(std::sync::atomic::Ordering::Relaxed);
            Inputs {
                engine,
                databases,
                settings: SettingRow::of(&plane.config),
                moves: plane.moves.views(),
                routers: plane.fleets.views(&names),
                now: clock::now(),
                intake: if draining { Intake::Draining } else { Intake::Open },
            }
        })
    }

    fn carry_out(&self, action: Action) -> Waiting<'_, Result<Outcome, Refusal>> {
        Box::pin(async move {
            match action {
                Action::Reload => Ok(Outcome::Reloaded(self.0.reload().await)),
                Action::Move(order) => self.0.submit_move(order).await,
                Action::Wish(id, wish) => self.0.wish_of_move(id, wish).await,
                Action::NamePrimary(order) => self.0.name_primary(&order),
                Action::Operate(operation, database) => self.operate(operation, database).await,
                Action::WaitClose(database) => {
                    let served = |one: &Database| {
                        database.as_deref().is_none_or(|name| one.served.map.database() == name)
                    };
                    if !self.0.databases().iter().any(served) {
                        return Err(Refusal::no_database(database.as_deref()));
                    }
                    self.until(|engine| !engine.has_connections_to_close(database.as_deref()))
                        .await;
                    Ok(Outcome::Closed)
                }
                Action::Kill(id) => {
                    let client = u32::try_from(id).map_err(|_| Refusal::no_client(id))?;
                    if self.0.handle.kill(client).await {
                        Ok(Outcome::Killed)
                    } else {
                        Err(Refusal::no_client(id))
                    }
                }
            }
        })
    }
}

/// The plane as the console and the pages see it.
pub(super) struct Shared(pub(super) Arc<Plane>);

impl Shared {
    /// Answers once the operation has come to its end: a pause when the last
    /// connection is closed.
    async fn operate(
        &self,
        operation: Operation,
        database: Option<String>,
    ) -> Result<Outcome, Refusal> {
        if !self.0.handle.operate(operation, database.clone()).await {
            return Err(Refusal::no_database(database.as_deref()));
        }
        let name = database.as_deref();
        match operation {
            Operation::Pause | Operation::Kill => {
                if operation == Operation::Pause {
                    self.name_replicating(name).await;
                }
                self.until(|engine| !engine.has_connections(name)).await;
            }
            Operation::Suspend => self.until(|engine| !engine.has_units_under_way(name)).await,
            Operation::Resume | Operation::Reconnect | Operation::Disable | Operation::Enable => {}
        }
        Ok(Outcome::Operated(operation))
    }

    /// Says in the log which clients a pause waits for that may never leave.
    async fn name_replicating(&self, database: Option<&str>) {
        let Some(engine) = self.0.handle.snapshot().await else { return };
        for server in engine.replicating(database) {
            tracing::warn!(
                client = server.client,
                database = server.database,
                "PAUSE waits for a client that replicates; KILL disconnects it"
            );
        }
    }

    /// Waits until the engine is as `wanted`, or gone.
    async fn until(&self, wanted: impl Fn(&EngineSnapshot) -> bool) {
        while let Some(snapshot) = self.0.handle.snapshot().await {
            if wanted(&snapshot) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

pub(super) fn members(map: &Map) -> impl Iterator<Item = Member> {
    map.nodes().iter().map(|node| member(node, None)).collect::<Vec<_>>().into_iter()
}

/// A node as the monitor knows it, seen from a router in `zone`.
fn member(node: &crate::shardmap::Node, zone: Option<&str>) -> Member {
    Member {
        node: node.id,
        shard: node.shard,
        role: node.role,
        weight: u32::from(node.endpoint.weight),
        near: zone.is_some() && node.endpoint.zone.as_deref() == zone,
    }
}

/// How often a command that waits looks whether it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
