//! `keyway serve`: reads what is configured, starts engine and control plane,
//! and stops them in order.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::access::{self, logins, verifier_of};
use super::cli::{Exit, ServeArgs};
use super::notify::Manager;
use super::passfile::{self, Lookup, Wanted};
use super::plane::{Configured, Plane, Served, Shared};
use super::renew;
use super::secrets::Environment;
use super::succession::{self, Places};
use super::url::BackendUrl;
use super::{complain, logging};
use crate::admin;
use crate::auth::StoredPassword;
use crate::config::{ClientTlsMode, Config, Settings};
use crate::control::files::FileWatch;
use crate::control::lookup;
use crate::control::maps::MapFile;
use crate::engine::{self, DatabaseOptions, EngineOptions, LookupOptions, LookupRequest, User};
use crate::net::clock;
use crate::shardmap::{Credentials, Endpoint, Map, SecretRef};
use crate::types::{Millis, Network, Secret};

/// Why the router does not start, and the exit code that says so.
pub(super) struct Failure(Exit, String);

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}

impl Failure {
    pub(super) fn refused(reason: impl Display) -> Self {
        Self(Exit::Refused, reason.to_string())
    }

    pub(super) fn failed(reason: impl Display) -> Self {
        Self(Exit::Failed, reason.to_string())
    }
}

/// Runs the router until a signal ends it.
pub(super) fn run(args: &ServeArgs) -> Exit {
    match start(args) {
        Ok(exit) => exit,
        Err(Failure(exit, reason)) => complain(exit, reason),
    }
}

fn start(args: &ServeArgs) -> Result<Exit, Failure> {
    let environment = Environment::of_process();
    let mut config = read_config(args)?;
    logging::start(&config.settings.log);
    fit_descriptors(&mut config.settings);
    environment.set_command_timeout(clock::duration(config.settings.secrets.command_timeout));
    let folder = config_file(args).and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let backend = args.backend.clone().or_else(|| config.server.backend.clone());
    let (served, owner) = match &backend {
        Some(url) => one_database(url, &args.replica, &environment).map(|(s, u)| (s, Some(u)))?,
        None => (databases(args, &config)?, None),
    };
    let stranger = |name: &&String| served.iter().all(|one| one.map.database() != **name);
    if let Some(name) = config.databases.iter().map(|one| &one.name).find(stranger) {
        return Err(Failure::refused(format!("[[database]] {name}: no map serves it")));
    }
    let access = Arc::new(access::read(&config, &folder, owner.as_ref(), &environment)?);
    if served.is_empty() {
        return Err(Failure::refused(
            "nothing to serve: name a shard map (--map FILE, or maps in keyway.toml) or a --backend URL",
        ));
    }
    let listen = match &args.listen {
        Some(address) => vec![address.clone()],
        None => config.server.listen.clone(),
    };
    let begin = succession::inherit(args, &config, &folder, &environment)?;
    let places = succession::places(begin.predecessor.as_ref());
    let manager = Manager::of(&environment);
    let mut options = EngineOptions {
        threads: usize::try_from(args.threads.unwrap_or(config.server.threads)).unwrap_or(1),
        listen: listen.iter().map(|text| address_of(text)).collect::<Result<_, _>>()?,
        unix_socket_dir: config.server.unix_socket_dir.as_ref().map(|dir| folder.join(dir)),
        proxies: networks(&config.server.proxy_protocol_from),
        inherited: begin.clients,
        predecessors: begin.predecessor.is_some().then(|| places.subscribe()),
        tls_required: config.tls.mode == ClientTlsMode::Require,
        client_auth: config.server.client_auth,
        settings: Arc::new(config.settings.clone()),
        access: Arc::clone(&access),
        lookups: None,
        refused_logins: None,
        databases: database_options(&served, &environment)?,
        console_database: config.server.console_database.clone(),
        console: None,
        schema_changes: None,
        seed: random_seed()?,
    };
    let requests = connect(&mut options, &config);
    let pages = pages(begin.pages, &config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    // Before anyone is told that the router is up: an uncaught signal kills it.
    let signals = runtime.block_on(async { Signals::catch() })?;
    let handle = engine::start(options).map_err(Failure::failed)?;
    succession::announce(&handle, begin.predecessor, &places, &manager);
    let file = config_file(args).map(Path::to_owned);
    let plane = Arc::new(Plane::new(
        (handle, requests.schema_changes.clone()),
        served,
        Configured { file, folder, config, owner },
        access,
        environment,
    ));
    let exit = runtime.block_on(control(&plane, requests, pages, signals, (&places, &manager)));
    runtime.shutdown_timeout(clock::duration(Millis::new(500)));
    exit
}

/// The databases as the engine knows them.
fn database_options(
    served: &[Served],
    environment: &Environment,
) -> Result<Vec<DatabaseOptions>, Failure> {
    let of_one = |database: &Served| {
        Ok(DatabaseOptions {
            name: database.map.database().to_owned(),
            map: Arc::clone(&database.map),
            logins: logins(&database.map, environment, database.folder())
                .map_err(Failure::refused)?,
            marks: Arc::clone(&database.marks),
            lease: Arc::clone(&database.lease),
        })
    };
    served.iter().map(of_one).collect()
}

/// What the engine asks of the control plane.
struct Requests {
    schema_changes: tokio::sync::watch::Receiver<u64>,
    console_requests: tokio::sync::mpsc::Receiver<engine::console::ConsoleRequest>,
    lookup_requests: tokio::sync::mpsc::Receiver<LookupRequest>,
    refused_logins: tokio::sync::watch::Receiver<u64>,
}

/// Gives the engine the ways to the control plane, whose other ends these are.
fn connect(options: &mut EngineOptions, config: &Config) -> Requests {
    let (changes, schema_changes) = tokio::sync::watch::channel(0);
    options.schema_changes = Some(changes);
    let (console, console_requests) = tokio::sync::mpsc::channel(CONSOLE_QUEUE_MAX);
    options.console = Some(console);
    let (refused, refused_logins) = tokio::sync::watch::channel(0);
    options.refused_logins = Some(refused);
    let (lookups, lookup_requests) = tokio::sync::mpsc::channel(LOOKUP_QUEUE_MAX);
    options.lookups = Some(LookupOptions {
        requests: lookups,
        cache_time: config.auth.query_cache_time,
        entries_max: usize::try_from(config.auth.query_cache_entries_max).unwrap_or(usize::MAX),
    });
    Requests { schema_changes, console_requests, lookup_requests, refused_logins }
}

/// The signals that the router acts on.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Catches them from here on; within a runtime.
    fn catch() -> Result<Self, Failure> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        match kinds.map(signal) {
            [Ok(term), Ok(int), Ok(hup)] => Ok(Self { term, int, hup }),
            _ => Err(Failure::failed("signals can't be received")),
        }
    }
}

/// The control plane, until a signal ends the router.
async fn control(
    plane: &Arc<Plane>,
    requests: Requests,
    pages: Option<std::net::TcpListener>,
    mut signals: Signals,
    (places, manager): (&Places, &Manager),
) -> Result<Exit, Failure> {
    plane.start_monitors();
    plane.start_movers();
    plane.start_leases();
    plane.renew_directions();
    plane.note_files();
    let directory = Arc::downgrade(plane);
    let directory = Arc::new(move |database: &str| directory.upgrade()?.directions(database));
    tokio::spawn(lookup::run(requests.lookup_requests, directory));
    tokio::spawn(renew::on_refusal(Arc::clone(plane), requests.refused_logins));
    tokio::spawn(renew::now_and_then(Arc::clone(plane)));
    succession::beat(plane, manager);
    let mut successors = succession::offer(plane, pages.as_ref())?;
    let mut served_pages = None;
    let source: Arc<dyn admin::Source> = Arc::new(Shared(Arc::clone(plane)));
    tokio::spawn(admin::task::run(requests.console_requests, Arc::clone(&source)));
    if let Some(pages) = pages {
        let listener = tokio::net::TcpListener::from_std(pages).map_err(Failure::failed)?;
        served_pages = Some(tokio::spawn(async move {
            if let Err(error) = admin::http::serve(listener, source).await {
                tracing::error!(%error, "the pages for metrics and health have ended");
            }
        }));
    }
    watch_files(plane);
    let Signals { term, int, hup } = &mut signals;
    let mut door = None;
    let retired = loop {
        tokio::select! {
            // Cancel-safe: a signal that was not received stays pending.
            _ = term.recv() => break false,
            _ = int.recv() => break false,
            Some(successor) = successors.recv() => {
                if let Some(pages) = served_pages.take() {
                    pages.abort();
                }
                door = succession::retire(plane, places, successor).await;
                break true;
            }
            _ = hup.recv() => { plane.reload().await; }
            () = plane.engine_ended() => {
                return Err(Failure::failed("the engine has ended; the log says why"));
            }
        }
    };
    if retired {
        manager.retired();
        succession::serve_rest(plane, term, int).await;
    }
    manager.stopping();
    tracing::info!("draining: open transactions may finish");
    plane.drain().await;
    let deadline = clock::duration(plane.config.settings.timeouts.drain);
    let ended = tokio::select! {
        // Cancel-safe: nothing is lost by not waiting any longer.
        () = plane.until_empty() => Exit::Done,
        () = tokio::time::sleep(deadline) => Exit::Failed,
        _ = term.recv() => Exit::Failed,
        _ = int.recv() => Exit::Failed,
    };
    plane.stop().await;
    drop(door);
    Ok(ended)
}

/// Reads files again when they change; those too that a reload names for the
/// first time.
fn watch_files(plane: &Arc<Plane>) {
    let plane = Arc::clone(plane);
    tokio::spawn(async move {
        loop {
            let files = plane.files();
            let started = if files.is_empty() { None } else { Some(FileWatch::start(&files)) };
            let mut watch = match started {
                Some(Ok(watch)) => Some(watch),
                Some(Err(error)) => {
                    tracing::warn!(%error, "files are not watched; SIGHUP reloads them");
                    None
                }
                None => None,
            };
            loop {
                if watch.is_some() {
                    // First what changed before the watch began.
                    plane.reload_changed().await;
                }
                if plane.files() != files {
                    break;
                }
                match &mut watch {
                    Some(watch) => tokio::select! {
                        // What is lost here is looked for at the next turn.
                        () = watch.changed() => {}
                        () = plane.files_read.notified() => {}
                    },
                    None => plane.files_read.notified().await,
                }
            }
        }
    });
}

/// The configuration's file, if there is one.
fn config_file(args: &ServeArgs) -> Option<&Path> {
    let default = Path::new("keyway.toml");
    match &args.config {
        Some(path) => Some(path),
        None => {
            (args.backend.is_none() && args.map.is_none() && default.exists()).then_some(default)
        }
    }
}

fn read_config(args: &ServeArgs) -> Result<Config, Failure> {
    config_file(args).map_or_else(|| Ok(Config::default()), read_config_file)
}

/// Reads a configuration.
pub(super) fn read_config_file(path: &Path) -> Result<Config, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("{name}: {error}")))?;
    Config::parse(&text, &name).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::refused(all.join("\n"))
    })
}

/// The databases of map files.
fn databases(args: &ServeArgs, config: &Config) -> Result<Vec<Served>, Failure> {
    let folder = config_file(args).and_then(Path::parent).unwrap_or(Path::new(""));
    let paths: Vec<PathBuf> = match &args.map {
        Some(map) => vec![map.clone()],
        None => config.server.maps.iter().map(|map| folder.join(map)).collect(),
    };
    let state = folder.join(&config.server.state_dir);
    let mut served = Vec::new();
    for path in paths {
        let (file, settled) = MapFile::open(&path, &state).map_err(Failure::refused)?;
        if let Some(reason) = &settled.kept_back {
            tracing::warn!(file = %path.display(), %reason, "the map in force serves on");
        }
        let lease = config.settings.moves.lease;
        served.push(Served::new(settled.map, Some(file), settled.kept_back, lease));
    }
    Ok(served)
}

/// One unsharded database from URLs: clients log in as the URL's user.
fn one_database(
    url: &str,
    replicas: &[String],
    environment: &Environment,
) -> Result<(Vec<Served>, (String, User)), Failure> {
    let primary = BackendUrl::parse(url).map_err(Failure::refused)?;
    let user = primary
        .user
        .clone()
        .or_else(|| environment.variable("PGUSER").map(str::to_owned))
        .ok_or_else(|| Failure::refused("the backend URL names no user"))?;
    let dbname = primary.database.clone().unwrap_or_else(|| user.clone());
    let password = password_of(&primary, &user, &dbname, environment);
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for replica in replicas {
        endpoints.push(BackendUrl::parse(replica).map_err(Failure::refused)?.endpoint);
    }
    let credentials = Credentials {
        user: Some(user.clone()),
        password: password.clone().map_or(SecretRef::Client, SecretRef::Inline),
    };
    let map = Map::unsharded(&dbname, primary.endpoint.clone(), endpoints).with_backend(
        &dbname,
        credentials,
        primary.tls.clone(),
    );
    let owner = match password {
        Some(password) => User {
            stored: Some(StoredPassword::Scram(verifier_of(&password)?)),
            password: Some(password),
            admin: true,
            ..User::default()
        },
        // The server trusts the router; the router asks no more of its clients.
        None => User { trust: true, admin: true, ..User::default() },
    };
    let served = Served::new(map, None, None, Millis::ZERO);
    Ok((vec![served], (user, owner)))
}

/// The URL's password, else PGPASSWORD, else the passfile's.
fn password_of(
    url: &BackendUrl,
    user: &str,
    database: &str,
    environment: &Environment,
) -> Option<Secret> {
    if let Some(password) = &url.password {
        return Some(password.clone());
    }
    if let Ok(password) = environment.secret("PGPASSWORD") {
        return Some(password);
    }
    let wanted = Wanted { host: &url.endpoint.host, port: url.endpoint.port, database, user };
    match passfile::look_up(environment, wanted) {
        Lookup::Found(password) => Some(password),
        Lookup::Absent => None,
        Lookup::Ignored { reason } => {
            tracing::warn!(%reason, "passfile is ignored");
            None
        }
    }
}

/// The networks of a checked configuration.
fn networks(texts: &[String]) -> Vec<Network> {
    texts.iter().filter_map(|text| Network::parse(text)).collect()
}

fn address_of(text: &str) -> Result<SocketAddr, Failure> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    full.to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next())
        .ok_or_else(|| Failure::refused(format!("{text} is no address: write ADDR:PORT")))
}

/// The socket for metrics and health: the one that is there, or a new one.
fn pages(
    there: Option<std::net::TcpListener>,
    config: &Config,
) -> Result<Option<std::net::TcpListener>, Failure> {
    match (there, config.server.http_listen.as_deref()) {
        (Some(pages), _) => Ok(Some(pages)),
        (None, Some(address)) => bind_pages(address).map(Some),
        (None, None) => Ok(None),
    }
}

/// Binds the address for metrics and health, before clients are let in.
fn bind_pages(address: &str) -> Result<std::net::TcpListener, Failure> {
    let failed = |error| Failure::failed(format!("{address}: {error}"));
    let listener = std::net::TcpListener::bind(address_of(address)?).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Takes as many file descriptors as the system gives, and admits no more
/// clients and logins than those are enough for: the last ones belong to the
/// connections that serve the clients, and to the operators.
fn fit_descriptors(settings: &mut Settings) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, the old limit is what counts.
    let _ = setrlimit(Resource::Nofile, limit);
    let Some(allowed) = getrlimit(Resource::Nofile).current else { return };
    let own = u64::from(settings.pool.connections_per_node_max).min(allowed / 2) + DESCRIPTORS_KEPT;
    let room = u32::try_from(allowed.saturating_sub(own)).unwrap_or(u32::MAX);
    // Who only knocks must not take what clients and backends need.
    let logins = settings.limits.logins_at_once_max.min(room / 4).max(1);
    settings.limits.logins_at_once_max = logins;
    let clients = room.saturating_sub(logins).max(1);
    if settings.limits.clients_max > clients {
        tracing::warn!(
            descriptors = allowed,
            wanted = settings.limits.clients_max,
            clients_max = clients,
            "fewer clients are admitted than configured: raise the limit of open files"
        );
        settings.limits.clients_max = clients;
    }
}

fn random_seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Failure::failed)?;
    Ok(seed)
}

/// File descriptors for listeners, files, monitors, cancel requests and the
/// console.
const DESCRIPTORS_KEPT: u64 = 64;
/// Lookups of users that may wait; more wait with their clients.
const LOOKUP_QUEUE_MAX: usize = 64;
/// Console queries that may wait.
const CONSOLE_QUEUE_MAX: usize = 64;
