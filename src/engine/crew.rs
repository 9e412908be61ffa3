//! The engine's threads, as each of them knows the others: whom a new client
//! goes to, who goes short of connections, whom a cancel request is for.
//!
//! A client belongs to one thread and never changes it. Nothing here is on the
//! path of a statement.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, mpsc};

use crate::net::stream::Stream;
use crate::pool::{Budget, Ledger, Permit};
use crate::session::Holders;

use super::doors::Doors;
use super::handle::Command;
use super::login;
use super::thread::Thread;

/// All threads of one engine.
pub(super) struct Crew {
    mates: Vec<Mate>,
    ledgers: Mutex<HashMap<LedgerKey, Weak<Ledger>>>,
    holders: Mutex<HoldersByUser>,
    /// Who comes, from where.
    pub(super) doors: Arc<Doors>,
}

/// By database and user.
type HoldersByUser = HashMap<(usize, Box<str>), Weak<Holders>>;

/// One thread.
struct Mate {
    commands: mpsc::Sender<Command>,
    /// Somebody goes short of connections, or a place has come free.
    nudge: Notify,
    /// Sockets that are being logged in.
    arriving: AtomicUsize,
    /// Clients that have logged in.
    clients: AtomicUsize,
}

/// What a budget is for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum LedgerKey {
    /// A node, by its address.
    Node(String),
    /// A user's pool of a database on a node.
    Pool { database: usize, user: Box<str>, address: String },
}

/// An accepted socket on its way to its thread.
pub(super) enum Arrival {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Counts a socket for as long as it is being logged in.
pub(super) struct Seat {
    crew: Arc<Crew>,
    thread: usize,
}

/// The places of one connection: in its node's budget, and in its pool's where
/// several threads share the pool. A ledger is kept for as long as a place in
/// it is taken.
#[derive(Debug)]
pub(super) struct Places {
    node: (Permit, Arc<Ledger>),
    pool: Option<(Permit, Arc<Ledger>)>,
}

impl Places {
    pub(super) const fn new(
        node: (Permit, Arc<Ledger>),
        pool: Option<(Permit, Arc<Ledger>)>,
    ) -> Self {
        Self { node, pool }
    }

    /// The same for a connection that serves no client of the pool's: it counts
    /// at its node only.
    pub(super) fn outside_pool(self) -> Self {
        Self { pool: None, ..self }
    }

    /// Gives them back; true if another thread than `thread` goes short of one.
    pub(super) fn give_back(self, thread: usize) -> bool {
        let Self { node: (permit, node), pool } = self;
        drop(permit);
        let pool_wanted = pool.is_some_and(|(permit, pool)| {
            drop(permit);
            pool.is_wanted_elsewhere(thread)
        });
        node.is_wanted_elsewhere(thread) || pool_wanted
    }
}

impl Crew {
    /// A crew that takes commands through these, one for each thread.
    pub(super) fn new(commands: &[mpsc::Sender<Command>]) -> Arc<Self> {
        let mate = |commands: &mpsc::Sender<Command>| Mate {
            commands: commands.clone(),
            nudge: Notify::new(),
            arriving: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
        };
        Arc::new(Self {
            mates: commands.iter().map(mate).collect(),
            ledgers: Mutex::default(),
            holders: Mutex::default(),
            doors: Arc::default(),
        })
    }

    /// True if there is one thread only.
    pub(super) fn is_alone(&self) -> bool {
        self.mates.len() <= 1
    }

    pub(super) fn len(&self) -> usize {
        self.mates.len()
    }

    /// The ledger for `key`, made on first use with the budget that `make`
    /// gives, and forgotten when nobody uses it any more.
    pub(super) fn ledger(&self, key: LedgerKey, make: impl FnOnce() -> Arc<Budget>) -> Arc<Ledger> {
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ledger) = ledgers.get(&key).and_then(Weak::upgrade) {
            return ledger;
        }
        ledgers.retain(|_, ledger| ledger.strong_count() > 0);
        let ledger = Ledger::new(make(), self.len());
        ledgers.insert(key, Arc::downgrade(&ledger));
        ledger
    }

    /// The seats of a user's clients of a database that keep their backends;
    /// `max` of them, or any number if it is zero.
    pub(super) fn holders(&self, database: usize, user: &str, max: u32) -> Arc<Holders> {
        let mut all = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (database, user.into());
        if let Some(holders) = all.get(&key).and_then(Weak::upgrade) {
            return holders;
        }
        all.retain(|_, holders| holders.strong_count() > 0);
        let holders = Holders::new(max);
        all.insert(key, Arc::downgrade(&holders));
        holders
    }

    /// Makes the other threads look whether they can spare a connection, or
    /// can open one.
    pub(super) fn nudge_others(&self, thread: usize) {
        for (index, mate) in self.mates.iter().enumerate() {
            if index != thread {
                mate.nudge.notify_one();
            }
        }
    }

    /// Waits for a nudge.
    ///
    /// Cancel-safe: a nudge that nobody waited for is kept.
    pub(super) async fn nudged(&self, thread: usize) {
        match self.mates.get(thread) {
            Some(mate) => mate.nudge.notified().await,
            None => std::future::pending().await,
        }
    }

    // === clients ===

    /// A seat at the thread that has the fewest clients.
    fn seat(self: &Arc<Self>) -> Seat {
        let least = self.mates.iter().enumerate().min_by_key(|(_, mate)| {
            mate.arriving.load(Ordering::Relaxed) + mate.clients.load(Ordering::Relaxed)
        });
        self.seat_at(least.map_or(0, |(index, _)| index))
    }

    fn seat_at(self: &Arc<Self>, thread: usize) -> Seat {
        if let Some(mate) = self.mates.get(thread) {
            mate.arriving.fetch_add(1, Ordering::Relaxed);
        }
        Seat { crew: Arc::clone(self), thread }
    }

    /// A client of `thread` has logged in.
    pub(super) fn joined(&self, thread: usize) {
        if let Some(mate) = self.mates.get(thread) {
            mate.clients.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client of `thread` has left.
    pub(super) fn left(&self, thread: usize) {
        if let Some(mate) = self.mates.get(thread) {
            mate.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Clients of all threads.
    pub(super) fn clients(&self) -> usize {
        self.mates.iter().map(|mate| mate.clients.load(Ordering::Relaxed)).sum()
    }

    /// Where commands for the thread of client `id` go.
    pub(super) fn commands_of(&self, id: u32) -> Option<&mpsc::Sender<Command>> {
        self.mates.get(owner_of(id)).map(|mate| &mate.commands)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(mate) = self.crew.mates.get(self.thread) {
            mate.arriving.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Thread {
    /// Serves an accepted socket, here or on the thread that has the fewest
    /// clients.
    pub(super) fn admit(self: &Rc<Self>, stream: Stream, peer: Option<SocketAddr>) {
        let seat = self.crew.seat();
        if seat.thread == self.index {
            return self.receive(stream, peer, seat);
        }
        let arrival = match stream {
            Stream::Tcp(socket) => socket.into_std().map(Arrival::Tcp),
            Stream::Unix(socket) => socket.into_std().map(Arrival::Unix),
            // Nothing else is accepted.
            Stream::TlsServer(_) | Stream::TlsClient(_) | Stream::Closed => return,
        };
        let Ok(arrival) = arrival else { return };
        let Some(mate) = self.crew.mates.get(seat.thread) else { return };
        if let Err(error) = mate.commands.try_send(Command::Arrival(arrival, peer, seat)) {
            // It is too busy to be told, or has ended.
            let (mpsc::error::TrySendError::Full(command)
            | mpsc::error::TrySendError::Closed(command)) = error;
            if let Command::Arrival(arrival, peer, _) = command {
                self.on_arrival(arrival, peer, self.crew.seat_at(self.index));
            }
        }
    }

    /// A socket that another thread has accepted.
    pub(super) fn on_arrival(
        self: &Rc<Self>,
        arrival: Arrival,
        peer: Option<SocketAddr>,
        seat: Seat,
    ) {
        let stream = match arrival {
            Arrival::Tcp(socket) => tokio::net::TcpStream::from_std(socket).map(Stream::Tcp),
            Arrival::Unix(socket) => tokio::net::UnixStream::from_std(socket).map(Stream::Unix),
        };
        match stream {
            Ok(stream) => self.receive(stream, peer, seat),
            Err(error) => tracing::error!(%error, "an accepted connection can't be served"),
        }
    }

    fn receive(self: &Rc<Self>, stream: Stream, peer: Option<SocketAddr>, seat: Seat) {
        let login = login::serve(Rc::clone(self), stream, peer);
        self.spawn(async move {
            login.await;
            drop(seat);
        });
    }
}

/// The thread that has the client with this number.
pub(super) const fn owner_of(id: u32) -> usize {
    (id >> CLIENT_BITS) as usize
}

/// The number of the thread's client that is its `count`th.
pub(super) const fn client_id(thread: usize, count: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "there are at most THREADS_MAX threads")]
    let thread = (thread % THREADS_MAX) as u32;
    (thread << CLIENT_BITS) | (count & ((1 << CLIENT_BITS) - 1))
}

/// Bits of a client's number that count within its thread; what is above names
/// the thread. Clients show the number as a signed one.
const CLIENT_BITS: u32 = 26;
/// Most threads.
pub const THREADS_MAX: usize = 1 << (31 - CLIENT_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_number_names_its_thread_and_stays_positive() {
        assert_eq!(client_id(0, 1), 1);
        for thread in [0, 1, 7, THREADS_MAX - 1] {
            for count in [1, 12_345, (1 << CLIENT_BITS) - 1] {
                let id = client_id(thread, count);
                assert_eq!(owner_of(id), thread);
                assert!(i32::try_from(id).is_ok());
            }
        }
    }

    #[test]
    fn newcomers_go_to_the_thread_with_the_fewest_clients() {
        let (commands, _inbox) = mpsc::channel(1);
        let crew = Crew::new(&[commands.clone(), commands.clone(), commands]);
        let seats: Vec<Seat> = (0..5).map(|_| crew.seat()).collect();
        assert_eq!(seats.iter().map(|seat| seat.thread).collect::<Vec<_>>(), [0, 1, 2, 0, 1]);
        drop(seats);
        crew.joined(0);
        crew.joined(1);
        assert_eq!(crew.seat().thread, 2);
        crew.left(0);
        assert_eq!((crew.seat().thread, crew.clients()), (0, 1));
    }

    #[test]
    fn a_ledger_is_the_same_for_all_and_forgotten_when_unused() {
        let (commands, _inbox) = mpsc::channel(1);
        let crew = Crew::new(&[commands.clone(), commands]);
        let key = || LedgerKey::Node("h:5432".to_owned());
        let first = crew.ledger(key(), || Budget::new(1, 0));
        let permit = first.take();
        assert!(permit.is_some());
        assert!(crew.ledger(key(), || Budget::new(9, 0)).take().is_none());
        drop((first, permit));
        let new = crew.ledger(key(), || Budget::new(2, 0));
        assert!(new.take().is_some_and(|_first| new.take().is_some()));
    }
}
