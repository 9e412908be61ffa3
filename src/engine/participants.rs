//! The backends that one client holds: the one that its session speaks to,
//! and those of other shards that take part in the same transaction.
//!
//! A shard is there once at most, so the shard names the participant. One
//! participant costs no allocation and no search.

use std::rc::Rc;
use std::task::Context;

use crate::backend::{Backend, CancelKey};
use crate::types::ShardId;

use super::client::{Running, RunningKind};
use super::conn::Conn;
use super::driver::Moved;

/// The backends that a client holds.
#[derive(Default)]
pub(super) struct Participants {
    /// The one that the session speaks to.
    pub(super) current: Option<Box<Conn>>,
    /// The others, in the order in which they came.
    #[allow(clippy::vec_box, reason = "pools hand boxes around; they are not moved in memory")]
    pub(super) others: Vec<Box<Conn>>,
    /// Those that its session keeps for later.
    #[allow(clippy::vec_box, reason = "pools hand boxes around; they are not moved in memory")]
    pub(super) aside: Vec<Box<Conn>>,
}

impl Participants {
    /// The machine that the session speaks to.
    pub(super) fn machine(&self) -> Option<&Backend> {
        self.current.as_ref().map(|conn| &conn.machine)
    }

    /// Adds one, which becomes the current one.
    pub(super) fn attach(&mut self, conn: Box<Conn>) {
        debug_assert!(self.iter().all(|held| held.shard != conn.shard), "a shard is there once");
        if let Some(before) = self.current.replace(conn) {
            self.others.push(before);
        }
    }

    /// Takes one out. If it was the current one, another takes its place.
    pub(super) fn take(&mut self, shard: ShardId) -> Option<Box<Conn>> {
        if self.current.as_ref().is_some_and(|conn| conn.shard == shard) {
            let next = self.others.pop();
            return std::mem::replace(&mut self.current, next);
        }
        let at = self.others.iter().position(|conn| conn.shard == shard)?;
        Some(self.others.swap_remove(at))
    }

    /// Takes any of them out; `None` when none is left.
    pub(super) fn take_any(&mut self) -> Option<Box<Conn>> {
        self.others.pop().or_else(|| self.current.take()).or_else(|| self.aside.pop())
    }

    /// Takes the one of `shard` out that was set aside.
    pub(super) fn take_aside(&mut self, shard: ShardId) -> Option<Box<Conn>> {
        let at = self.aside.iter().position(|conn| conn.shard == shard)?;
        Some(self.aside.swap_remove(at))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.current.iter().chain(&self.others).map(|conn| &**conn)
    }

    /// True if requests wait for a socket.
    pub(super) fn is_congested(&self) -> bool {
        self.current.as_ref().is_some_and(|conn| !conn.out.is_empty())
            || self.others.iter().any(|conn| !conn.out.is_empty())
    }

    /// True if none of them owes a reply.
    pub(super) fn is_settled(&self) -> bool {
        self.iter().all(|conn| conn.machine.is_settled())
    }

    /// Writes what waits for each of them.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) -> Moved {
        let mut moved = match &mut self.current {
            Some(conn) => conn.write(cx),
            None => Moved::Nothing,
        };
        for conn in &mut self.others {
            moved = moved.or(conn.write(cx));
        }
        moved
    }
}

/// What a cancel request needs to know of the participants; shared with the
/// thread.
#[derive(Default)]
pub(super) struct RunningSet {
    first: Option<Running>,
    rest: Vec<Running>,
}

impl RunningSet {
    /// Notes a backend that the client now holds.
    pub(super) fn add(&mut self, conn: &Conn) {
        self.note(Running {
            node: conn.pool.node(),
            key: Rc::<CancelKey>::clone(&conn.key),
            born: conn.born,
            uses: conn.uses,
            generation: conn.generation,
            kind: RunningKind::Lent,
            prepared: conn.machine.prepared_len(),
        });
    }

    /// The same of one that no pool knows.
    pub(super) fn note(&mut self, running: Running) {
        match self.first {
            None => self.first = Some(running),
            Some(_) => self.rest.push(running),
        }
    }

    /// The client holds it no more.
    pub(super) fn remove(&mut self, conn: &Conn) {
        if self.first.as_ref().is_some_and(|one| Rc::ptr_eq(&one.key, &conn.key)) {
            self.first = self.rest.pop();
        } else {
            self.rest.retain(|one| !Rc::ptr_eq(&one.key, &conn.key));
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Running> {
        self.first.iter().chain(&self.rest)
    }
}
