//! Moves as the engine's thread knows them: which clients have something open
//! on the keys that move, who waits until that is over, and who is told.
//!
//! It does not decide what a statement touches or whether it waits: that is
//! the session's, by the map.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::shardmap::{Map, MoveId, Moves};
use crate::types::{Moment, ShardId};

use super::client::{ClientEntry, State};
use super::logins::BackendLogin;
use super::snapshot::ClientState;
use super::thread::{Database, Thread};

/// What is open on a move's keys here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing.
    Clear,
    /// These clients' transactions and statements.
    Blocked(Vec<Blocker>),
}

/// A client whose transaction or statement is on the keys of a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// Its number, which `KILL` takes.
    pub client: u64,
    /// The user that it logged in as.
    pub user: String,
    /// Where it comes from.
    pub address: String,
    /// What it calls itself.
    pub application_name: String,
    /// The processes at the nodes that it holds.
    pub backend_pids: Vec<u32>,
    /// How long ago it touched the keys first.
    pub open_ms: u64,
    /// What it is doing.
    pub state: ClientState,
}

/// What a client has open on keys that move.
#[derive(Default)]
pub(super) struct Open {
    any: Cell<bool>,
    since: RefCell<Vec<(MoveId, Moment)>>,
}

impl Open {
    /// True if it has something open.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any.get()
    }

    /// It touches these.
    pub(super) fn note(&self, ids: impl Iterator<Item = MoveId>, now: Moment) {
        let mut open = self.since.borrow_mut();
        for id in ids {
            self.any.set(true);
            if !open.iter().any(|(known, _)| *known == id) {
                open.push((id, now));
            }
        }
    }

    /// Its transaction is over; true if it had something open.
    pub(super) fn clear(&self) -> bool {
        self.since.borrow_mut().clear();
        self.any.replace(false)
    }

    fn since(&self, id: MoveId) -> Option<Moment> {
        self.since.borrow().iter().find(|(open, _)| *open == id).map(|(_, since)| *since)
    }
}

/// What the control plane asks about moves.
pub(super) enum MoveOrder {
    /// These are under way.
    Set(Moves, oneshot::Sender<()>),
    /// Say when nothing is open on the keys of this one.
    Drain(MoveId, oneshot::Sender<()>),
    /// Say who has something open on them.
    Blockers(MoveId, oneshot::Sender<Vec<Blocker>>),
}

/// Somebody who waits until nothing is open on a move's keys.
struct Drain {
    database: usize,
    id: MoveId,
    reply: oneshot::Sender<()>,
}

/// All who wait.
#[derive(Default)]
pub(super) struct Drains(RefCell<Vec<Drain>>);

impl Thread {
    /// From here on this map is in force.
    pub(super) fn take_map(
        &self,
        database: &Rc<Database>,
        map: Arc<Map>,
        logins: HashMap<ShardId, BackendLogin>,
    ) {
        self.retire_pools(database, &map);
        database.publish_map(map, logins);
        self.note_what_runs_on_all(database);
        self.tell_of_moves(database);
    }

    /// Obeys.
    pub(super) fn on_move_order(&self, database: &Database, order: MoveOrder) {
        match order {
            MoveOrder::Set(moves, done) => {
                self.note_what_runs_on_new(database, &moves);
                database.publish_moves(moves);
                self.tell_of_moves(database);
                let _asker_left = done.send(());
            }
            MoveOrder::Drain(id, done) => self.tell_when_drained(database, id, done),
            MoveOrder::Blockers(id, reply) => {
                let _asker_left = reply.send(self.blockers(database, id));
            }
        }
    }

    /// What runs while a move begins to be watched may be on its keys: nobody
    /// has looked. Open transactions are looked at with their next statement;
    /// the fences' triggers have waited for those that had written.
    fn note_what_runs_on_new(&self, database: &Database, moves: &Moves) {
        let before = database.with_map(|map, _| map.all_moves());
        let all = moves.iter().map(|moving| moving.id);
        let new: Vec<MoveId> = all.filter(|id| before.find(*id).is_none()).collect();
        self.note_what_runs(database, &new);
    }

    /// What runs while another map comes into force may read where that no
    /// longer says. Open transactions follow the map at their next statement.
    fn note_what_runs_on_all(&self, database: &Database) {
        let moves = database.with_map(|map, _| map.all_moves());
        let all: Vec<MoveId> = moves.iter().map(|moving| moving.id).collect();
        self.note_what_runs(database, &all);
    }

    fn note_what_runs(&self, database: &Database, ids: &[MoveId]) {
        if ids.is_empty() {
            return;
        }
        let now = crate::net::clock::now();
        for client in self.clients.borrow().values() {
            // Who waits for its only connection looks for its place again.
            let has_backend = client.running.borrow().iter().next().is_some();
            let runs = match client.state.get() {
                State::Active | State::Waiting => has_backend,
                State::Idle | State::InTransaction => false,
            };
            if runs && client.database == database.index {
                client.open.note(ids.iter().copied(), now);
            }
        }
    }

    /// Tells `reply` once no client has anything open on the keys of `id`.
    fn tell_when_drained(&self, database: &Database, id: MoveId, reply: oneshot::Sender<()>) {
        self.drains.0.borrow_mut().push(Drain { database: database.index, id, reply });
        self.look_at_drains();
    }

    /// A client has nothing open any more: perhaps it was the last.
    pub(super) fn look_at_drains(&self) {
        let mut drains = self.drains.0.borrow_mut();
        if drains.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut *drains);
        for drain in waiting {
            if drain.reply.is_closed() {
                continue;
            }
            if self.open_on(drain.database, drain.id).is_empty() {
                let _asker_left = drain.reply.send(());
            } else {
                drains.push(drain);
            }
        }
    }

    fn open_on(&self, database: usize, id: MoveId) -> Vec<(Rc<ClientEntry>, Moment)> {
        let clients = self.clients.borrow();
        let open = clients.values().filter(|client| client.database == database);
        open.filter_map(|client| Some((Rc::clone(client), client.open.since(id)?))).collect()
    }

    /// Who has something open on the keys of `id`, the oldest first.
    fn blockers(&self, database: &Database, id: MoveId) -> Vec<Blocker> {
        let mut open = self.open_on(database.index, id);
        open.sort_by_key(|(_, since)| *since);
        let now = crate::net::clock::now();
        open.into_iter()
            .map(|(client, since)| Blocker {
                client: client.id.into(),
                user: client.user.to_string(),
                address: client.address.clone(),
                application_name: client.application.borrow().clone(),
                backend_pids: client.running.borrow().iter().map(|one| one.key.pid).collect(),
                open_ms: now.since(since).count(),
                state: match client.state.get() {
                    State::Idle => ClientState::Idle,
                    State::Active => ClientState::Active,
                    State::InTransaction => ClientState::Transaction,
                    State::Waiting => ClientState::Waiting,
                },
            })
            .collect()
    }

    /// The moves have changed, or the map: who waits for that looks again, the
    /// longest-waiting first.
    fn tell_of_moves(&self, database: &Database) {
        let clients = self.clients.borrow();
        let mut waiting: Vec<&Rc<ClientEntry>> = clients
            .values()
            .filter(|client| client.database == database.index && client.held_since.get().is_some())
            .collect();
        waiting.sort_by_key(|client| client.held_since.get());
        for client in waiting {
            client.signal(|signals| signals.moves = true);
        }
    }
}
