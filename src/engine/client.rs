//! What the thread knows of each client, beside its task: enough to cancel,
//! kill, time out and list it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use crate::backend::CancelKey;
use crate::session::Holds;
use crate::types::{Moment, NodeId};

use super::channels::Mailbox;
use super::conn::Conn;
use super::moves::Open;
use super::participants::RunningSet;

/// One client, shared between its task and the thread.
pub(super) struct ClientEntry {
    pub(super) id: u32,
    /// Secret of its own cancel requests.
    pub(super) secret: Box<[u8]>,
    pub(super) user: Rc<str>,
    pub(super) database: usize,
    pub(super) address: String,
    pub(super) application: RefCell<String>,
    pub(super) since: Moment,
    pub(super) signals: Cell<Signals>,
    waker: RefCell<Option<Waker>>,
    /// When the thread raises [`Signals::timeout`]; zero is never.
    pub(super) deadline_ms: Cell<u64>,
    /// What runs for it now.
    pub(super) running: RefCell<RunningSet>,
    /// Cancel requests under way for what runs; the backend stays with the
    /// client until they are through, so that they hit nobody else.
    pub(super) cancels: Cell<u32>,
    /// Reads over several shards that have ended.
    pub(super) gathered: Cell<u64>,
    /// Backends that wait for that.
    #[allow(clippy::vec_box, reason = "pools hand boxes around; they are not moved in memory")]
    pub(super) limbo: RefCell<Vec<Box<Conn>>>,
    /// Backends to which a cancel request was given up on that may still
    /// arrive: they are not passed on.
    pub(super) late_cancels: RefCell<Vec<Rc<CancelKey>>>,
    /// A read waits: a task of the thread wakes it now and then.
    pub(super) parked: Cell<bool>,
    pub(super) state: Cell<State>,
    pub(super) statements: Cell<u64>,
    pub(super) holds: Cell<Holds>,
    /// Since when it keeps a backend beyond its transactions.
    pub(super) keeps_since: Cell<Option<Moment>>,
    /// What it has open on keys that move.
    pub(super) open: Open,
    /// Since when it waits for a move.
    pub(super) held_since: Cell<Option<Moment>>,
    /// How often it has waited for one.
    pub(super) move_waits: Cell<u64>,
    /// Notifications that wait; there is one once the client has listened.
    mailbox: RefCell<Option<Rc<Mailbox>>>,
}

/// A backend that a client holds.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) node: NodeId,
    pub(super) key: Rc<CancelKey>,
    pub(super) born: Moment,
    pub(super) uses: u64,
    /// Which of its pool's connections it is among; of its database's, if it
    /// belongs to no pool.
    pub(super) generation: u64,
    pub(super) kind: RunningKind,
    /// Names prepared on it when the client got it.
    pub(super) prepared: usize,
}

/// Whose a client's backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunningKind {
    /// A pool's.
    Lent,
    /// The client's own, which replicates.
    Replication,
}

/// What a client is doing, for the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Waiting,
    Active,
    InTransaction,
}

/// What others ask of a client's task.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signals {
    pub(super) kill: bool,
    pub(super) drain: bool,
    pub(super) stop: bool,
    pub(super) cancel_wait: bool,
    pub(super) timeout: bool,
    /// What the client has sent may be looked at again.
    pub(super) resume: bool,
    /// A shard's writes go to another node now.
    pub(super) nodes: bool,
    /// An operator has paused the database, or lets it go on.
    pub(super) gate: bool,
    /// The moves have changed, or the map.
    pub(super) moves: bool,
    /// The connection that listens has news for the wait.
    pub(super) heard: bool,
}

impl Signals {
    pub(super) const fn any(self) -> bool {
        self.kill
            || self.drain
            || self.stop
            || self.cancel_wait
            || self.timeout
            || self.resume
            || self.nodes
            || self.gate
            || self.moves
            || self.heard
    }
}

impl ClientEntry {
    #[allow(clippy::too_many_arguments, reason = "one caller, one line each")]
    pub(super) fn new(
        id: u32,
        secret: Box<[u8]>,
        user: Rc<str>,
        database: usize,
        address: String,
        application: String,
        since: Moment,
    ) -> Self {
        Self {
            id,
            secret,
            user,
            database,
            address,
            application: RefCell::new(application),
            since,
            signals: Cell::new(Signals::default()),
            waker: RefCell::new(None),
            deadline_ms: Cell::new(0),
            running: RefCell::default(),
            cancels: Cell::new(0),
            gathered: Cell::new(0),
            limbo: RefCell::new(Vec::new()),
            late_cancels: RefCell::default(),
            parked: Cell::new(false),
            state: Cell::new(State::Idle),
            statements: Cell::new(0),
            holds: Cell::new(Holds::default()),
            keeps_since: Cell::new(None),
            open: Open::default(),
            held_since: Cell::new(None),
            move_waits: Cell::new(0),
            mailbox: RefCell::new(None),
        }
    }

    /// Notes why it keeps a backend beyond its transactions.
    pub(super) fn note_holds(&self, holds: Holds, now: Moment) {
        if self.holds.replace(holds) == holds {
            return;
        }
        let keeps = !holds.beyond_transactions().is_empty();
        self.keeps_since.set(keeps.then(|| self.keeps_since.get().unwrap_or(now)));
    }

    /// Where its notifications wait.
    pub(super) fn mailbox(&self) -> Rc<Mailbox> {
        Rc::clone(self.mailbox.borrow_mut().get_or_insert_default())
    }

    /// The same, of a client that has listened.
    pub(super) fn mailbox_if_any(&self) -> Option<Rc<Mailbox>> {
        self.mailbox.borrow().clone()
    }

    /// The task to wake; kept unless it is the same.
    pub(super) fn keep_waker(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        match &*slot {
            Some(kept) if kept.will_wake(waker) => {}
            Some(_) | None => *slot = Some(waker.clone()),
        }
    }

    /// Asks something of the task.
    pub(super) fn signal(&self, change: impl FnOnce(&mut Signals)) {
        let mut signals = self.signals.get();
        change(&mut signals);
        self.signals.set(signals);
        self.wake();
    }

    /// Wakes the task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
