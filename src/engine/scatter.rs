//! A read over several shards: moves bytes between its backends, the session
//! that gathers them, and the client.
//!
//! Every backend is read as far as the session wants it and the client keeps
//! up; a failure cancels what runs on all of them, and all are awaited.

use std::rc::Rc;
use std::task::{Context, Poll};

use crate::backend::Event;
use crate::net::clock;
use crate::protocol::backend::TxStatus;
use crate::session::{EventEnv, Gathering};
use crate::types::{Millis, ShardId};

use super::cleanup::LeftBehind;
use super::conn::Conn;
use super::driver::{Driver, Moved};
use super::thread::READ_BYTES;

/// What a look at one backend found.
enum Looked {
    Nothing,
    Something,
    Lost(ShardId),
}

impl Driver {
    /// Sends every backend what is due for it.
    pub(super) fn ask_participants(&mut self, cx: &mut Context<'_>) {
        let mut interner = self.thread.interner.borrow_mut();
        let mut registry = self.thread.registry.borrow_mut();
        for conn in self.held.iter_mut() {
            self.session.gather_ask(&mut EventEnv {
                shard: conn.shard,
                backend: &mut conn.machine,
                interner: &mut interner,
                registry: &mut registry,
                to_backend: &mut conn.out,
            });
            let _moved = conn.write(cx);
        }
    }

    /// Reads from the backends of a gathered read.
    pub(super) fn read_gathered(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Moved {
        if !self.out.is_empty() || self.unflushed || *turn >= READ_BYTES {
            return Moved::Nothing;
        }
        let mut moved = self.go_on_gathering(cx);
        if !self.out.is_empty() || !self.session.is_gathering() {
            return moved;
        }
        let mut index = 0;
        while let Some(conn) = self.held.nth_mut(index) {
            index += 1;
            if !self.session.gather_wants(conn.shard) {
                continue;
            }
            match self.look_at(cx, index - 1, turn) {
                Looked::Nothing => {}
                Looked::Something => moved = Moved::Something,
                Looked::Lost(shard) => {
                    self.on_backend_lost(shard);
                    return Moved::Something;
                }
            }
        }
        moved.or(self.go_on_gathering(cx))
    }

    fn look_at(&mut self, cx: &mut Context<'_>, index: usize, turn: &mut usize) -> Looked {
        let Some(conn) = self.held.nth_mut(index) else { return Looked::Nothing };
        let thread = Rc::clone(&self.thread);
        let mut scratch = thread.scratch.borrow_mut();
        let kept = conn.carry.len();
        if let Some(head) = scratch.get_mut(..kept) {
            head.copy_from_slice(&conn.carry);
        }
        let space = scratch.get_mut(kept..kept + READ_BYTES).unwrap_or_default();
        let read = match conn.stream.poll_read(cx, space) {
            Poll::Ready(Ok(read)) if read > 0 => read,
            Poll::Ready(_) => return Looked::Lost(conn.shard),
            Poll::Pending => return Looked::Nothing,
        };
        conn.watched = false;
        *turn += read;
        let mut events: Vec<Event> = Vec::new();
        let mut said = Vec::new();
        let input = scratch.get(..kept + read).unwrap_or_default();
        let relayed = match conn.machine.relay(input, &mut said, &mut events) {
            Ok(relayed) => relayed,
            Err(fault) => {
                tracing::error!(client = self.entry.id, %fault, "backend and client part");
                return Looked::Lost(conn.shard);
            }
        };
        conn.settle();
        conn.carry.clear();
        conn.carry.extend_from_slice(input.get(relayed.consumed..).unwrap_or_default());
        let direct = input.get(relayed.direct).unwrap_or_default();
        self.count_events(&events);
        let Some(conn) = self.held.nth_mut(index) else { return Looked::Nothing };
        let mut env = EventEnv {
            shard: conn.shard,
            backend: &mut conn.machine,
            interner: &mut thread.interner.borrow_mut(),
            registry: &mut thread.registry.borrow_mut(),
            to_backend: &mut conn.out,
        };
        self.session.gather_hear(&[&said, direct], &mut events, &mut env);
        let _moved = conn.write(cx);
        Looked::Something
    }

    /// Lets the session go on with what it has heard.
    fn go_on_gathering(&mut self, cx: &mut Context<'_>) -> Moved {
        loop {
            // A request that is on its way would cancel what the client's
            // transaction does next.
            if self.entry.cancels.get() > 0 && self.session.is_gather_resting() {
                return Moved::Nothing;
            }
            match self.session.gather(&mut self.out) {
                Gathering::Read if self.out.is_empty() => return Moved::Nothing,
                Gathering::Read | Gathering::Write => return Moved::Something,
                Gathering::Ask => self.ask_participants(cx),
                Gathering::Cancel => {
                    self.ask_participants(cx);
                    self.cancel_gathered();
                }
                Gathering::Again => {
                    // Ahead of what waits.
                    let mut bytes = self.session.take_again().into_vec();
                    bytes.extend_from_slice(&self.inbuf);
                    self.inbuf = bytes;
                    self.after_gathering(cx);
                    return Moved::Something;
                }
                Gathering::Over => {
                    self.after_gathering(cx);
                    return Moved::Something;
                }
            }
        }
    }

    /// Cancels what is left of a read that has failed, until it is over: a
    /// request that comes before a shard has begun hits nothing.
    fn cancel_gathered(&self) {
        let (thread, entry) = (Rc::clone(&self.thread), Rc::clone(&self.entry));
        let number = entry.gathered.get();
        self.thread.spawn(async move {
            while entry.gathered.get() == number {
                thread.cancel_running(&entry).await;
                tokio::time::sleep(clock::duration(CANCEL_AGAIN)).await;
            }
        });
    }

    /// Gives back the backends beside the one that the session speaks to, but
    /// for those whose transactions last as long as the client's.
    pub(super) fn release_beside(&mut self) {
        if self.session.is_scattering() {
            return;
        }
        let mut index = 0;
        while let Some(conn) = self.held.others.get(index) {
            let shard = conn.shard;
            let idle = conn.machine.status() == TxStatus::Idle;
            if idle && conn.out.is_empty() && self.session.may_release(&conn.machine) {
                self.detach(shard);
            } else if !idle && !self.session.keeps_joined(shard) {
                self.drop_joined(shard);
            } else {
                index += 1;
            }
        }
    }

    /// The same of all of them, whatever they do.
    pub(super) fn drop_beside(&mut self) {
        while let Some(shard) = self.held.others.first().map(|conn| conn.shard) {
            self.drop_joined(shard);
        }
    }

    fn drop_joined(&mut self, shard: ShardId) {
        let Some(conn) = self.held.take(shard) else { return };
        self.session.leave(shard);
        self.entry.running.borrow_mut().remove(&conn);
        let reset = conn.machine.is_dirty();
        self.thread.clean_up(Some(&self.entry), conn, LeftBehind::Nothing, reset);
    }

    fn after_gathering(&mut self, cx: &mut Context<'_>) {
        if self.unit_since_us > 0 {
            let us = clock::now_us().saturating_sub(self.unit_since_us);
            self.thread.stats.note_latency(us);
            self.unit_since_us = 0;
        }
        self.entry.gathered.set(self.entry.gathered.get() + 1);
        self.reads.note_gathered(&self.database);
        while self.session.is_without_shard()
            && let Some(conn) = &self.held.current
            && conn.machine.status() != TxStatus::Idle
        {
            // It joined a transaction whose own backend is gone.
            self.drop_joined(conn.shard);
        }
        self.release_beside();
        self.release_unused();
        if !self.closing {
            self.feed_kept(cx);
        }
        if self.is_on_moves() {
            self.follow_moves();
        }
    }
}

/// Wait until a failed read's backends are cancelled again.
const CANCEL_AGAIN: Millis = Millis::new(1_000);

impl super::participants::Participants {
    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.current.iter_mut().chain(&mut self.others).map(|conn| &mut **conn)
    }

    /// One of them by its place, the current one first.
    fn nth_mut(&mut self, index: usize) -> Option<&mut Conn> {
        match index.checked_sub(1) {
            None => self.current.as_deref_mut(),
            Some(at) => self.others.get_mut(at).map(|conn| &mut **conn),
        }
    }
}
