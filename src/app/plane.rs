//! The control plane's state: the maps in force, what the monitors see, and
//! the way to the engine. The console and the pages ask it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::catalogs::{Catalogs, SchemaChanges};
use super::secrets::Environment;
use super::serve::{Access, Failure, logins, read_config_file};
use crate::admin::{
    Action, DatabaseView, Inputs, Outcome, Refusal, Reloaded, SettingRow, Source,
    source::{Intake, Waiting},
};
use crate::cluster::{Cluster, Member};
use crate::config::{self, Config};
use crate::control::maps::MapFile;
use crate::control::monitor::{Monitor, Rhythm, Target};
use crate::engine::snapshot::EngineSnapshot;
use crate::engine::{Handle, Marks, Operation, User, Users};
use crate::health::Authority;
use crate::net::clock;
use crate::shardmap::Map;

/// A database as it is served.
pub(super) struct Served {
    pub(super) map: Arc<Map>,
    pub(super) file: Option<MapFile>,
    pub(super) kept_back: Option<String>,
    pub(super) marks: Arc<Marks>,
}

/// The configuration, and where it came from.
pub(super) struct Configured {
    pub(super) file: Option<PathBuf>,
    pub(super) config: Config,
    /// The user of a backend's URL.
    pub(super) owner: Option<(String, User)>,
}

struct Database {
    served: Served,
    cluster: Arc<Cluster>,
    monitor: Option<Monitor>,
    catalogs: Catalogs,
}

/// What the control plane's tasks share.
pub(super) struct Plane {
    pub(super) config: Config,
    file: Option<PathBuf>,
    owner: Option<(String, User)>,
    handle: Handle,
    schema_changes: SchemaChanges,
    users: Mutex<Arc<Users>>,
    environment: Environment,
    databases: Mutex<Vec<Database>>,
    draining: std::sync::atomic::AtomicBool,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
}

impl Plane {
    pub(super) fn new(
        (handle, schema_changes): (Handle, SchemaChanges),
        served: Vec<Served>,
        configured: Configured,
        users: Arc<Users>,
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
        let Configured { file, config, owner } = configured;
        Self {
            config,
            file,
            owner,
            handle,
            schema_changes,
            users: Mutex::new(users),
            environment,
            databases: Mutex::new(databases),
            draining: std::sync::atomic::AtomicBool::new(false),
            reloading: tokio::sync::Mutex::new(()),
        }
    }

    fn databases(&self) -> MutexGuard<'_, Vec<Database>> {
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

    fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.lock().unwrap_or_else(PoisonError::into_inner))
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

    fn start_monitor(self: &Arc<Self>, index: usize, map: &Map) {
        let plane = Arc::downgrade(self);
        let name = map.database().to_owned();
        let level = map.consistency().unwrap_or(self.config.settings.reads.consistency);
        let pool = &self.config.settings.pool;
        let mut rhythm = Rhythm::for_reads(
            level,
            self.config.settings.timeouts.connect,
            (pool.reconnect_min, pool.reconnect_max),
        );
        rhythm.authority = match self.config.settings.reads.authority {
            config::Authority::Nobody => Authority::Nobody,
            config::Authority::Map => Authority::Map,
        };
        let publish = Arc::new(move |cluster: Arc<Cluster>| {
            let Some(plane) = plane.upgrade() else { return };
            if let Some(database) = plane.databases().get_mut(index) {
                database.cluster = Arc::clone(&cluster);
            }
            plane.handle.publish_cluster(&name, &cluster);
        });
        let marks = self.databases().get(index).map(|database| Arc::clone(&database.served.marks));
        let Some(marks) = marks else { return };
        let monitor = Monitor::start(self.targets(map), rhythm, marks, publish);
        if let Some(database) = self.databases().get_mut(index) {
            database.monitor = Some(monitor);
        }
    }

    /// The nodes to watch. Without a role of its own the monitor logs in as
    /// the first user whose password is known.
    pub(super) fn targets(&self, map: &Map) -> Vec<Target> {
        let logins = logins(map, &self.environment).unwrap_or_default();
        let users = self.users();
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
                        let (name, own) = fallback
                            .or_else(|| Some((users.by_name.keys().next()?.clone(), None)))?;
                        (name, password.or(own))
                    }
                };
                Some(Target {
                    member: member(node),
                    name: format!("{}/{}/{}", map.database(), shard.name, node.endpoint),
                    host: node.host().to_owned(),
                    port: node.port(),
                    dbname: shard.dbname.clone(),
                    user,
                    password,
                    tls: login.tls,
                    tls_required: login.tls_required,
                })
            })
            .collect()
    }

    /// The files to watch.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let databases = self.databases();
        databases.iter().filter_map(|d| Some(d.served.file.as_ref()?.path().to_owned())).collect()
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
    }

    /// Reads the configuration and all map files again; a bad one changes
    /// nothing.
    pub(super) async fn reload(self: &Arc<Self>) -> Vec<Reloaded> {
        let _alone = self.reloading.lock().await;
        let mut out = Vec::new();
        if let Some(file) = &self.file {
            let result = self.reload_config(file).await.unwrap_or_else(|failure| {
                tracing::error!(error = %failure, "configuration refused; the old one serves on");
                format!("refused: {failure}")
            });
            tracing::info!(file = %file.display(), %result, "reload");
            out.push(Reloaded { what: CONFIGURATION.to_owned(), epoch: None, result });
        }
        out.extend(self.reload_maps().await);
        self.renew_logins().await;
        out
    }

    /// Takes over the users and the clients' certificate; says what else is
    /// written differently now.
    async fn reload_config(&self, file: &Path) -> Result<String, Failure> {
        let config = read_config_file(file)?;
        let access = Access::of(&config, self.owner.as_ref(), &self.environment)?;
        *self.users.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&access.users);
        self.handle.publish_access(access.users, access.tls).await;
        let (old, new) = (self.config.values(), config.values());
        let differing = old.iter().zip(&new).filter(|(old, new)| old.1 != new.1);
        let waiting: Vec<&str> = differing.map(|(old, _)| old.0.path).collect();
        Ok(if waiting.is_empty() {
            "users and certificate are in force".to_owned()
        } else {
            format!("users and certificate are in force; needs a restart: {}", waiting.join(", "))
        })
    }

    /// Reads again the passwords and certificates that the maps name. The
    /// monitor goes on with its connections; it takes the new ones with its
    /// next map.
    async fn renew_logins(&self) {
        let maps: Vec<Arc<Map>> =
            self.databases().iter().map(|d| Arc::clone(&d.served.map)).collect();
        for map in maps {
            match logins(&map, &self.environment) {
                Ok(logins) => self.handle.publish_logins(map.database(), logins).await,
                Err(error) => {
                    tracing::error!(database = map.database(), %error, "the old logins stay");
                }
            }
        }
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

    async fn reload_one(self: &Arc<Self>, index: usize) -> Option<Reloaded> {
        let (before, settled) = {
            let mut databases = self.databases();
            let database = databases.get_mut(index)?;
            let before = Arc::clone(&database.served.map);
            let name = before.database().to_owned();
            let Some(file) = &mut database.served.file else {
                let result = "unchanged: it has no map file".to_owned();
                return Some(Reloaded { what: name, epoch: Some(before.epoch()), result });
            };
            let environment = &self.environment;
            let settled = file.reload(&before, |desired| {
                if desired.database() != name {
                    return Err("a reload can't rename the database".to_owned());
                }
                logins(desired, environment).map(|_| ())
            });
            (before, settled)
        };
        let mut reloaded = Reloaded {
            what: before.database().to_owned(),
            epoch: Some(before.epoch()),
            result: "unchanged".to_owned(),
        };
        match settled {
            Err(error) => {
                tracing::error!(%error, "reload refused; the map in force serves on");
                reloaded.result = format!("refused: {error}");
            }
            Ok(settled) => {
                let kept_back = settled.kept_back.clone();
                if let Some(reason) = &kept_back {
                    tracing::warn!(%reason, "the map in force serves on");
                    reloaded.result = format!("kept the map in force: {reason}");
                }
                let map = Arc::new(settled.map);
                if *map != *before {
                    reloaded.epoch = Some(map.epoch());
                    reloaded.result = format!("epoch {} is in force", map.epoch().number());
                    let logins = logins(&map, &self.environment).unwrap_or_default();
                    self.handle.publish_map(map.database(), Arc::clone(&map), logins).await;
                    if let Some(database) = self.databases().get_mut(index) {
                        database.cluster = Arc::new(Cluster::unknown(members(&map)));
                        database.monitor = None;
                        database.served.map = Arc::clone(&map);
                    }
                    self.start_monitor(index, &map);
                    self.start_catalogs(index, &map);
                }
                if let Some(database) = self.databases().get_mut(index) {
                    database.served.kept_back = kept_back;
                }
            }
        }
        Some(reloaded)
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
            let draining = plane.draining.load(std::sync::atomic::Ordering::Relaxed);
            Inputs {
                engine,
                databases,
                settings: SettingRow::of(&plane.config),
                now: clock::now(),
                intake: if draining { Intake::Draining } else { Intake::Open },
            }
        })
    }

    fn carry_out(&self, action: Action) -> Waiting<'_, Result<Outcome, Refusal>> {
        Box::pin(async move {
            match action {
                Action::Reload => Ok(Outcome::Reloaded(self.0.reload().await)),
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
                self.until(|engine| !engine.has_connections(name)).await;
            }
            Operation::Suspend => self.until(|engine| !engine.has_units_under_way(name)).await,
            Operation::Resume | Operation::Reconnect | Operation::Disable | Operation::Enable => {}
        }
        Ok(Outcome::Operated(operation))
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

fn members(map: &Map) -> impl Iterator<Item = Member> {
    map.nodes().iter().map(member).collect::<Vec<_>>().into_iter()
}

fn member(node: &crate::shardmap::Node) -> Member {
    Member {
        node: node.id,
        shard: node.shard,
        role: node.role,
        weight: u32::from(node.endpoint.weight),
    }
}

/// What a reload calls the configuration, beside the databases.
const CONFIGURATION: &str = "(configuration)";
/// How often a command that waits looks whether it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
