//! The engine from outside: starting it, telling it of new maps, asking what
//! it does, stopping it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::net::clock;
use crate::shardmap::{Map, MoveId, Moves};
use crate::types::ShardId;

use super::cancel::{self, Whose};
use super::client::Signals;
use super::crew::{self, Arrival, Crew, Seat, THREADS_MAX};
use super::listen::Listeners;
use super::logins::{Access, BackendLogin, EngineOptions};
use super::moves::{Drained, MoveOrder};
use super::operate::Operation;
use super::share::Undertaker;
use super::snapshot::EngineSnapshot;
use super::sockets::Socket;
use super::thread::{Database, Thread, Writers};

/// What a thread is told.
pub(super) enum Command {
    Map(String, Arc<Map>, HashMap<ShardId, BackendLogin>, oneshot::Sender<()>),
    Moves(String, MoveOrder),
    Logins(String, HashMap<ShardId, BackendLogin>),
    Access(Arc<Access>),
    Cluster(String, Arc<Cluster>),
    Catalog(String, Arc<Catalog>),
    Snapshot(oneshot::Sender<EngineSnapshot>),
    Kill(u32, oneshot::Sender<bool>),
    /// A cancel request that came in at another thread, which hears when it is
    /// through.
    Cancel(u32, Box<[u8]>, oneshot::Sender<Whose>),
    /// A socket that another thread has accepted.
    Arrival(Arrival, Option<SocketAddr>, Seat),
    Operate(Operation, Option<String>, oneshot::Sender<bool>),
    /// Another router accepts from now on.
    Retire(oneshot::Sender<()>),
    Drain,
    Stop,
}

/// The engine has stopped, or has no such database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotObeyed;

impl std::fmt::Display for NotObeyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the engine has stopped, or has no such database")
    }
}

impl std::error::Error for NotObeyed {}

/// The engine, as the control plane sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    /// One for each thread.
    commands: Arc<[mpsc::Sender<Command>]>,
    addresses: Vec<SocketAddr>,
    sockets: Arc<std::sync::Mutex<Vec<Socket>>>,
    threads: Arc<std::sync::Mutex<Vec<JoinHandle<()>>>>,
}

/// Binds the sockets and starts the engine's threads.
///
/// # Errors
/// An address that can't be listened on, or a thread that can't be started.
pub fn start(mut options: EngineOptions) -> io::Result<Handle> {
    let inherited = std::mem::take(&mut options.inherited);
    let listeners =
        Listeners::bind(&options.listen, options.unix_socket_dir.as_deref(), inherited)?;
    let addresses = listeners.addresses.clone();
    let sockets = Arc::new(std::sync::Mutex::new(listeners.duplicates()?));
    let mut listeners = Some(listeners);
    let options = Arc::new(options);
    let count = options.threads.clamp(1, THREADS_MAX);
    let (commands, inboxes): (Vec<_>, Vec<_>) =
        (0..count).map(|_| mpsc::channel(COMMANDS_MAX)).unzip();
    let crew = Crew::new(&commands);
    let mut threads = Vec::with_capacity(count);
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let (options, crew) = (Arc::clone(&options), Arc::clone(&crew));
        // The first one accepts for all.
        let listeners = listeners.take();
        threads.push(
            std::thread::Builder::new()
                .name(format!("engine-{index}"))
                .spawn(move || run(options, (crew, index), listeners, inbox))?,
        );
    }
    Ok(Handle {
        commands: commands.into(),
        addresses,
        sockets,
        threads: Arc::new(std::sync::Mutex::new(threads)),
    })
}

fn run(
    options: Arc<EngineOptions>,
    (crew, index): (Arc<Crew>, usize),
    listeners: Option<Listeners>,
    inbox: mpsc::Receiver<Command>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build_local(tokio::runtime::LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "engine can't start");
            return;
        }
    };
    runtime.block_on(async move {
        let thread = Thread::new(options, crew, index);
        if let Some(listeners) = listeners
            && let Err(error) = listeners.start(&thread)
        {
            tracing::error!(%error, "engine can't listen");
            return;
        }
        thread.spawn(keep_time(Rc::clone(&thread)));
        thread.spawn(Undertaker::serve(Rc::clone(&thread)));
        thread.spawn(Thread::heed_nudges(Rc::clone(&thread)));
        obey(&thread, inbox).await;
    });
}

/// The thread's one timer: the coarse clock, the clients' deadlines, the
/// pools' housekeeping.
async fn keep_time(thread: Rc<Thread>) {
    let mut ticks: u64 = 0;
    let mut timer = tokio::time::interval(TICK);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        timer.tick().await;
        thread.tick();
        ticks += 1;
        let now = thread.now().ms();
        for client in thread.clients.borrow().values() {
            let deadline = client.deadline_ms.get();
            if deadline > 0 && now >= deadline {
                client.deadline_ms.set(0);
                client.signal(|signals| signals.timeout = true);
            }
        }
        if ticks.is_multiple_of(TICKS_PER_TENDING) {
            thread.tend_pools();
        }
        thread.share_with_others();
    }
}

async fn obey(thread: &Rc<Thread>, mut inbox: mpsc::Receiver<Command>) {
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Map(name, map, logins, done) => {
                if let Some(database) = thread.database_named(&name) {
                    let began = clock::now_us();
                    thread.take_map(database, map, logins);
                    thread.stats.note_map_swap(clock::now_us().saturating_sub(began));
                    let _asker_left = done.send(());
                }
            }
            Command::Moves(name, order) => {
                if let Some(database) = thread.database_named(&name) {
                    thread.on_move_order(database, order);
                }
            }
            Command::Logins(name, logins) => {
                if let Some(database) = thread.database_named(&name) {
                    database.publish_logins(logins);
                }
            }
            Command::Access(access) => thread.publish_access(access),
            Command::Cluster(name, cluster) => {
                if let Some(database) = thread.database_named(&name).cloned() {
                    take_cluster(thread, &database, cluster);
                }
            }
            Command::Catalog(name, catalog) => {
                if let Some(database) = thread.database_named(&name) {
                    database.publish_catalog(&catalog);
                }
            }
            Command::Snapshot(reply) => drop(reply.send(thread.snapshot())),
            Command::Kill(id, reply) => {
                let client = thread.clients.borrow().get(&id).cloned();
                if let Some(client) = &client {
                    client.signal(|signals| signals.kill = true);
                }
                let _asker_left = reply.send(client.is_some());
            }
            Command::Cancel(id, key, done) => {
                let owner = Rc::clone(thread);
                thread.spawn(async move {
                    let whose = owner.cancel_client(id, &key).await;
                    let _asker_left = done.send(whose);
                });
            }
            Command::Arrival(arrival, peer, seat) => {
                thread.on_arrival(arrival, peer, seat);
            }
            Command::Operate(operation, database, reply) => {
                let _asker_left = reply.send(thread.operate(operation, database.as_deref()));
            }
            Command::Retire(reply) => thread.retire(reply),
            Command::Drain => {
                thread.draining.set(true);
                thread.drained.notify_waiters();
                signal_all(thread, |signals| signals.drain = true);
            }
            Command::Stop => {
                thread.draining.set(true);
                thread.drained.notify_waiters();
                signal_all(thread, |signals| signals.stop = true);
                // Time to say goodbye and to roll back.
                tokio::time::sleep(GOODBYE).await;
                return;
            }
        }
    }
}

fn take_cluster(thread: &Rc<Thread>, database: &Rc<Database>, cluster: Arc<Cluster>) {
    let news = database.publish_cluster(cluster);
    for node in news.up {
        thread.retry_node(database, node);
    }
    if news.writers == Writers::Moved {
        thread.tell_of_writers(database);
    }
}

fn signal_all(thread: &Rc<Thread>, change: impl Fn(&mut Signals)) {
    for client in thread.clients.borrow().values() {
        client.signal(&change);
    }
}

impl Handle {
    /// The TCP addresses that it listens on.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A new map is in force: once this returns, statements and transactions
    /// that begin follow it, and those that wait for a move look again. The
    /// moves that are under way stay so.
    ///
    /// # Errors
    /// The engine has stopped, or has no such database.
    pub async fn publish_map(
        &self,
        database: &str,
        map: Arc<Map>,
        logins: HashMap<ShardId, BackendLogin>,
    ) -> Result<(), NotObeyed> {
        let order =
            |done| Command::Map(database.to_owned(), Arc::clone(&map), logins.clone(), done);
        self.order_all(order).await.map(|_| ())
    }

    /// These moves are under way, in place of those before: once this returns,
    /// whatever begins is subject to them, and what waits for another phase
    /// looks again. Before the target gets its first row the move must be
    /// watched, and drained: a read of several shards that is older would see
    /// that row twice.
    ///
    /// # Errors
    /// The engine has stopped, or has no such database.
    pub async fn set_moves(&self, database: &str, moves: Moves) -> Result<(), NotObeyed> {
        let order = |done| Command::Moves(database.to_owned(), MoveOrder::Set(moves.clone(), done));
        self.order_all(order).await.map(|_| ())
    }

    /// Waits until no transaction or statement of this router is open on the
    /// keys of the move `id`, up to `limit`; then it says who is in the way.
    /// Statements that ran when the move began to be watched count, whatever
    /// they are, and so do those that ran when the map was replaced: drained
    /// after that, nothing reads the moved rows at the source any more.
    ///
    /// # Errors
    /// The engine has stopped, or has no such database.
    pub async fn drained(
        &self,
        database: &str,
        id: MoveId,
        limit: Duration,
    ) -> Result<Drained, NotObeyed> {
        let order = |done| Command::Moves(database.to_owned(), MoveOrder::Drain(id, done));
        if let Ok(answers) = tokio::time::timeout(limit, self.order_all(order)).await {
            return answers.map(|_| Drained::Clear);
        }
        let ask = |reply| Command::Moves(database.to_owned(), MoveOrder::Blockers(id, reply));
        let mut blockers = self.order_all(ask).await?.concat();
        blockers.sort_by_key(|blocker| std::cmp::Reverse(blocker.open_ms));
        Ok(if blockers.is_empty() { Drained::Clear } else { Drained::Blocked(blockers) })
    }

    /// Gives all threads an order, and waits for the answers.
    async fn order_all<T>(
        &self,
        order: impl Fn(oneshot::Sender<T>) -> Command,
    ) -> Result<Vec<T>, NotObeyed> {
        let mut answers = Vec::with_capacity(self.commands.len());
        for thread in &*self.commands {
            let (reply, answer) = oneshot::channel();
            thread.send(order(reply)).await.map_err(|_| NotObeyed)?;
            answers.push(answer);
        }
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            all.push(answer.await.map_err(|_| NotObeyed)?);
        }
        Ok(all)
    }

    /// Backends are logged in at with these from now on; open connections stay.
    pub async fn publish_logins(&self, database: &str, logins: HashMap<ShardId, BackendLogin>) {
        self.tell(|| Command::Logins(database.to_owned(), logins.clone())).await;
    }

    /// These may come in from now on; who is connected stays.
    pub async fn publish_access(&self, access: Arc<Access>) {
        self.tell(|| Command::Access(Arc::clone(&access))).await;
    }

    /// A newer view of the nodes. Dropped by a thread that has fallen behind: a
    /// newer one follows.
    pub fn publish_cluster(&self, database: &str, cluster: &Arc<Cluster>) {
        for thread in &*self.commands {
            drop(thread.try_send(Command::Cluster(database.to_owned(), Arc::clone(cluster))));
        }
    }

    /// What the shards' schemas hold now: statements are planned by it from now
    /// on.
    pub async fn publish_catalog(&self, database: &str, catalog: Catalog) {
        let catalog = Arc::new(catalog);
        self.tell(|| Command::Catalog(database.to_owned(), Arc::clone(&catalog))).await;
    }

    /// What the engine does now; `None` if it has stopped.
    pub async fn snapshot(&self) -> Option<EngineSnapshot> {
        let mut all: Option<EngineSnapshot> = None;
        for thread in &*self.commands {
            let (reply, answer) = oneshot::channel();
            thread.send(Command::Snapshot(reply)).await.ok()?;
            let one = answer.await.ok()?;
            match &mut all {
                Some(all) => all.absorb(one),
                None => all = Some(one),
            }
        }
        all
    }

    /// Disconnects a client; false if there is none with this number.
    pub async fn kill(&self, client: u32) -> bool {
        let Some(owner) = self.commands.get(crew::owner_of(client)) else { return false };
        let (reply, answer) = oneshot::channel();
        if owner.send(Command::Kill(client, reply)).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }

    /// A cancel request that came in elsewhere than on its sockets; returns when
    /// it is through, whatever it names.
    pub async fn cancel(&self, client: u32, key: &[u8]) {
        if let Some(owner) = self.commands.get(crew::owner_of(client)) {
            let _whose = cancel::ask_to_cancel(owner, client, key).await;
        }
    }

    /// Does `operation` to a database, or to all; false if there is none of
    /// this name.
    pub async fn operate(&self, operation: Operation, database: Option<String>) -> bool {
        let mut found = false;
        for thread in &*self.commands {
            let (reply, answer) = oneshot::channel();
            let command = Command::Operate(operation, database.clone(), reply);
            found |= thread.send(command).await.is_ok() && answer.await.unwrap_or(false);
        }
        found
    }

    /// Descriptors of the sockets that it accepts on, for a router that takes
    /// over; none once it drains.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn sockets(&self) -> io::Result<Vec<Socket>> {
        match self.sockets.lock() {
            Ok(all) => all.iter().map(Socket::duplicate).collect(),
            Err(_) => Ok(Vec::new()),
        }
    }

    fn close_sockets(&self) {
        if let Ok(mut all) = self.sockets.lock() {
            all.clear();
        }
    }

    /// Accepts no more clients: another router does, on the same sockets. Who
    /// is connected stays.
    pub async fn retire(&self) {
        self.close_sockets();
        // The first thread accepts for all.
        let Some(first) = self.commands.first() else { return };
        let (reply, answer) = oneshot::channel();
        if first.send(Command::Retire(reply)).await.is_ok() {
            drop(answer.await);
        }
    }

    /// Accepts no more clients, and lets each go at the end of its
    /// transaction.
    pub async fn drain(&self) {
        self.close_sockets();
        self.tell(|| Command::Drain).await;
    }

    /// Disconnects all clients and ends the threads.
    pub async fn stop(&self) {
        self.close_sockets();
        self.tell(|| Command::Stop).await;
    }

    async fn tell(&self, command: impl Fn() -> Command) {
        for thread in &*self.commands {
            drop(thread.send(command()).await);
        }
    }

    /// Waits until the engine takes no more commands: it has ended.
    pub async fn ended(&self) {
        for thread in &*self.commands {
            thread.closed().await;
        }
    }

    /// Waits for the threads' end. Blocks: not for use in a task.
    pub fn join(&self) {
        let threads = self.threads.lock().map(|mut all| std::mem::take(&mut *all));
        for thread in threads.unwrap_or_default() {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine has panicked");
            }
        }
    }
}

/// Commands that may wait for the engine.
const COMMANDS_MAX: usize = 1024;
/// Tasks that run between two looks at the sockets.
const EVENT_INTERVAL: u32 = 61;
/// Resolution of deadlines.
const TICK: Duration = Duration::from_millis(50);
/// Housekeeping of the pools every so many ticks.
const TICKS_PER_TENDING: u64 = 4;
/// How long clients and backends have to hear that it is over.
const GOODBYE: Duration = Duration::from_millis(300);
