//! What operators do to a database's clients and connections, in pgbouncer's
//! words: hold units up, close connections, turn clients away.
//!
//! It decides nothing about when an operator hears that it is done: whoever
//! asked looks at snapshots.
//!
//! Source: pgbouncer's manual, "Process controlling commands".

use std::cell::Cell;
use std::rc::Rc;

use crate::config::Settings;
use crate::net::clock;
use crate::session::{Refused, Want};
use crate::types::{Millis, Moment, SqlState};

use super::client::Signals;
use super::driver::Driver;
use super::lease::{map_has_changed, no_lease};
use super::thread::{Database, Thread};

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// No new unit gets a backend; connections close as they come free.
    Pause,
    /// The end of `Pause`, `Suspend` and `Kill`.
    Resume,
    /// No new unit is read, within transactions too; connections stay.
    Suspend,
    /// Connections that are open now close as they come free.
    Reconnect,
    /// `Pause`, and who is connected is disconnected.
    Kill,
    /// Nobody new logs in.
    Disable,
    /// The end of `Disable`.
    Enable,
}

/// What holds a database's clients up.
#[derive(Default)]
pub(super) struct Gate {
    paused: Cell<bool>,
    suspended: Cell<bool>,
    disabled: Cell<bool>,
    /// How often connections were told to close.
    generation: Cell<u64>,
    /// The lease had lapsed at the last tick.
    lapsed: Cell<bool>,
}

/// A unit that waits for the end of a pause.
#[derive(Clone, Copy)]
pub(super) struct HeldUp {
    want: Want,
    pub(super) since: Moment,
    why: Shut,
}

/// Why a unit waits for its first backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shut {
    /// An operator has paused the database.
    Paused,
    /// The router has no lease.
    NoLease,
}

impl HeldUp {
    /// How long it may wait.
    pub(super) const fn limit(&self, settings: &Settings) -> Millis {
        match self.why {
            Shut::Paused => settings.timeouts.paused,
            Shut::NoLease => settings.moves.hold_max,
        }
    }

    /// What the client hears once it has waited for that.
    pub(super) fn refusal(&self, settings: &Settings) -> Refused {
        let limit = self.limit(settings);
        match self.why {
            Shut::Paused => Refused::new(
                CANNOT_CONNECT_NOW,
                format!("the database has been paused for {limit}"),
            )
            .hint("run it again once an operator has resumed the database"),
            Shut::NoLease => no_lease(limit),
        }
    }
}

impl Gate {
    /// Open, but for the lease.
    pub(super) fn new(lapsed: bool) -> Self {
        let gate = Self::default();
        gate.lapsed.set(lapsed);
        gate
    }

    /// True while no unit gets a backend that has none.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// True while no unit is begun.
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended.get()
    }

    /// Whether the lease has lapsed; returns what was noted last.
    pub(super) fn note_lapse(&self, lapsed: bool) -> bool {
        self.lapsed.replace(lapsed)
    }

    /// Which connections that belong to no pool are to stay: those of this
    /// generation.
    pub(super) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// True while nobody may log in.
    pub(super) fn is_disabled(&self) -> bool {
        self.disabled.get()
    }
}

impl Thread {
    /// Does `operation` to the database of this name, or to all; false if there
    /// is none.
    pub(super) fn operate(self: &Rc<Self>, operation: Operation, name: Option<&str>) -> bool {
        let chosen = |database: &&Rc<Database>| name.is_none_or(|name| database.name == name);
        let databases: Vec<_> = self.databases.iter().filter(chosen).cloned().collect();
        for database in &databases {
            self.operate_on(operation, database);
        }
        !databases.is_empty()
    }

    fn operate_on(self: &Rc<Self>, operation: Operation, database: &Rc<Database>) {
        let gate = &database.gate;
        match operation {
            Operation::Pause => {
                gate.paused.set(true);
                self.close_connections(database);
                self.signal_clients(database, |signals| signals.gate = true);
            }
            Operation::Resume => {
                gate.paused.set(false);
                gate.suspended.set(false);
                self.signal_clients(database, |signals| signals.gate = true);
            }
            Operation::Suspend => {
                gate.suspended.set(true);
                // Who is passed through as it is looks at the gate when it wakes.
                self.signal_clients(database, |_| {});
            }
            Operation::Reconnect => self.close_connections(database),
            Operation::Kill => {
                gate.paused.set(true);
                self.close_connections(database);
                self.signal_clients(database, |signals| signals.kill = true);
            }
            Operation::Disable => gate.disabled.set(true),
            Operation::Enable => gate.disabled.set(false),
        }
        tracing::info!(database = %database.name, ?operation, "an operator's word");
    }

    fn close_connections(&self, database: &Database) {
        let generation = &database.gate.generation;
        generation.set(generation.get() + 1);
        let pools = self.pools.borrow();
        for pool in pools.iter().filter(|pool| pool.database() == database.index) {
            pool.close_connections();
        }
    }

    pub(super) fn signal_clients(&self, database: &Database, change: impl Fn(&mut Signals)) {
        for client in self.clients.borrow().values() {
            if client.database == database.index {
                client.signal(&change);
            }
        }
    }
}

impl Driver {
    /// True if the unit has to wait for the end of a pause. Who has a backend
    /// already may finish, and so may have another.
    #[inline]
    pub(super) fn is_held_up(&mut self, want: Want) -> bool {
        let Some(why) = self.shut() else { return false };
        if self.held.current.is_some() {
            return false;
        }
        self.held_up = Some(HeldUp { want, since: clock::now(), why });
        true
    }

    #[inline]
    fn shut(&self) -> Option<Shut> {
        if self.database.is_lapsed(self.thread.now()) {
            return Some(Shut::NoLease);
        }
        self.database.gate.is_paused().then_some(Shut::Paused)
    }

    /// The gate has been opened or closed.
    pub(super) fn on_gate(&mut self) {
        if let Some(why) = self.shut() {
            self.wait_at_gate(why);
            return;
        }
        self.stalled = None;
        if let Some(held_up) = self.held_up.take()
            && !self.looks_again()
        {
            let same = self.reads.is_of_revision(self.database.revision());
            if held_up.why == Shut::NoLease && !same {
                // What it is part of goes by an older map.
                self.session.refuse_checkout(map_has_changed());
            } else if !self.bring_backend(held_up.want) {
                return;
            }
        }
        self.refed_by_signal();
    }

    /// Who waits for a first backend waits at the gate instead.
    fn wait_at_gate(&mut self, why: Shut) {
        if self.held.current.is_some() {
            return;
        }
        let Some(want) = self.reads.wanted_now() else { return };
        if let Some(waiting) = self.waiting.take() {
            waiting.leave(&self.thread);
        } else if !self.unpark() {
            return;
        }
        self.held_up = Some(HeldUp { want, since: clock::now(), why });
    }
}

const CANNOT_CONNECT_NOW: SqlState = SqlState::new("57P03");
