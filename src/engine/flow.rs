//! What moves between a client and the backend that it holds.

use std::rc::Rc;
use std::task::{Context, Poll};

use crate::backend::{Event, Failure};
use crate::cluster::{Mark, Writer};
use crate::net::clock;
use crate::protocol::backend::TxStatus;
use crate::session::{After, Env, EventEnv, Lost, Step, Writes};
use crate::types::{Consistency, ShardId};

use super::conn::Conn;
use super::driver::{Driver, Moved, READ_COST_BYTES};
use super::reads::kept;
use super::thread::READ_BYTES;

impl Driver {
    /// Feeds the bytes that were kept.
    pub(super) fn feed_kept(&mut self, cx: &mut Context<'_>) {
        if self.inbuf.is_empty() || self.is_blocked() {
            return;
        }
        let bytes = std::mem::take(&mut self.inbuf);
        let consumed = self.feed(cx, &bytes);
        if consumed < bytes.len() {
            let mut bytes = bytes;
            bytes.drain(..consumed);
            self.inbuf = bytes;
        }
    }

    /// Lets the session read `input`; returns how much of it is done with.
    pub(super) fn feed(&mut self, cx: &mut Context<'_>, input: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let (consumed, step) = self.feed_once(cx, rest);
            at += consumed;
            match step {
                Step::Checkout(want) => {
                    if !self.bring_backend(want) {
                        return at;
                    }
                }
                Step::Fresh(want) => {
                    if !self.bring_fresh(want) {
                        return at;
                    }
                }
                Step::Listen => {
                    if !self.begin_listening() {
                        return at;
                    }
                }
                Step::Close => {
                    self.close();
                    return input.len();
                }
                Step::Gather => {
                    self.ask_participants(cx);
                    return at;
                }
                Step::Hold => {
                    self.hold();
                    return at;
                }
                Step::Again => {
                    self.release_beside();
                    self.release_unused();
                }
                Step::Read | Step::Await => {
                    self.follow_channels();
                    if !self.held.aside.is_empty() {
                        self.sweep_aside();
                    }
                    if !self.held.others.is_empty() {
                        self.release_beside();
                    }
                    self.release_unused();
                    return at;
                }
            }
        }
    }

    fn feed_once(&mut self, cx: &mut Context<'_>, input: &[u8]) -> (usize, Step) {
        let (need, after) = self.session_needs();
        let said_before = self.out.len();
        let Self { thread, database, session, held, out, consistency, .. } = self;
        let was_awaiting = session.is_awaiting();
        let (catalog, catalog_serial) = database.catalog();
        let choose = |shard: ShardId, level: Consistency, mark: Mark| {
            let level = kept(level, thread.settings.reads.writers);
            database.explain_read(shard, database.wanted(shard, level, mark, need, after))
        };
        let token = |shown: Option<&str>| {
            database.with_cluster(|cluster| match shown {
                None => cluster.token(),
                Some(token) => cluster.check_token(token).map(|()| String::new()),
            })
        };
        let mut nowhere = (Vec::new(), Vec::new());
        let (backend, to_backend, replay) = match &mut held.current {
            Some(conn) => {
                let conn = &mut **conn;
                (Some((&mut conn.machine, conn.shard)), &mut conn.out, &mut conn.replay)
            }
            None => (None, &mut nowhere.0, &mut nowhere.1),
        };
        // Nothing that a session does can bring a new map meanwhile.
        let fed = database.with_map(|map, map_serial| {
            let mut env = Env {
                planner: &mut database.planner.borrow_mut(),
                interner: &mut thread.interner.borrow_mut(),
                registry: &mut thread.registry.borrow_mut(),
                map,
                map_serial,
                catalog: &catalog,
                catalog_serial,
                consistency: *consistency,
                choose: &choose,
                token: &token,
                backend,
                to_client: out,
                to_backend,
                replay,
            };
            session.feed(input, &mut env)
        });
        if let Some(barrier) = self.session.take_barrier() {
            self.reads.note_barrier(barrier, &self.database);
        }
        let direct = input.get(fed.direct.clone()).unwrap_or_default();
        let said = self.out.len() > said_before;
        if let Some(conn) = &mut self.held.current {
            conn.expose();
            if self.reads.writes && was_awaiting != self.session.is_awaiting() {
                conn.expose_read();
            }
        }
        self.keep_for_second_try(input.get(..fed.consumed).unwrap_or_default(), said);
        self.send(cx, direct);
        if self.session.has_refused() {
            self.note_refusals();
        }
        if !was_awaiting && self.session.is_awaiting() {
            self.note_unit_start();
        }
        if self.is_on_moves() {
            self.follow_moves();
        }
        (fed.consumed, fed.step)
    }

    fn note_refusals(&mut self) {
        for state in self.session.take_refusals() {
            self.thread.stats.note_refusal(state);
            tracing::debug!(
                client = self.entry.id,
                statement = self.units,
                state = state.as_str(),
                "refused"
            );
        }
    }

    fn note_unit_start(&mut self) {
        self.units += 1;
        if self.hold.has_been() {
            self.forget_hold();
        }
        self.entry.statements.set(self.session.statements_seen());
        // One unit in sixteen is timed: the clock costs more than the rest of
        // the counting.
        self.unit_since_us =
            if self.units.is_multiple_of(TIMED_EVERY) { clock::now_us() } else { 0 };
    }

    /// Sends what stands in the backend's buffer, then `direct`, which is
    /// copied only if the socket does not take it now.
    fn send(&mut self, cx: &mut Context<'_>, direct: &[u8]) {
        let Some(conn) = &mut self.held.current else { return };
        if conn.out.is_empty() && !direct.is_empty() {
            conn.unflushed = true;
            let written = match conn.stream.poll_write(cx, direct) {
                Poll::Ready(Ok(written)) => written,
                // The read that follows will say what happened.
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            conn.out.extend_from_slice(direct.get(written..).unwrap_or_default());
        } else {
            conn.out.extend_from_slice(direct);
        }
        let _moved = conn.write(cx);
    }

    /// Reads from the backends that have something to say to the client.
    pub(super) fn read_backends(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Moved {
        if self.session.is_gathering() {
            self.read_gathered(cx, turn)
        } else {
            self.read_backend(cx, turn)
        }
    }

    /// Reads from the backend, if the client can take what it says.
    fn read_backend(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Moved {
        if !self.out.is_empty() || self.unflushed || *turn >= READ_BYTES {
            return Moved::Nothing;
        }
        let Some(conn) = &mut self.held.current else { return Moved::Nothing };
        if conn.watched && !conn.stream.may_read() {
            return Moved::Nothing;
        }
        let shard = conn.shard;
        let thread = Rc::clone(&self.thread);
        let mut scratch = thread.scratch.borrow_mut();
        let kept = conn.carry.len();
        if let Some(head) = scratch.get_mut(..kept) {
            head.copy_from_slice(&conn.carry);
        }
        let space = scratch.get_mut(kept..kept + READ_BYTES).unwrap_or_default();
        let read = match conn.stream.poll_read(cx, space) {
            Poll::Ready(Ok(read)) if read > 0 => read,
            Poll::Ready(_) => {
                drop(scratch);
                self.on_backend_lost(shard);
                return Moved::Something;
            }
            Poll::Pending => {
                conn.watched = true;
                return Moved::Nothing;
            }
        };
        conn.watched = false;
        *turn += read.max(READ_COST_BYTES);
        let mut events = thread.events.borrow_mut();
        events.clear();
        let input = scratch.get(..kept + read).unwrap_or_default();
        let before = self.out.len();
        let relayed = match conn.machine.relay(input, &mut self.out, &mut events) {
            Ok(relayed) => relayed,
            Err(fault) => {
                let (client, statement) = (self.entry.id, self.units);
                tracing::error!(client, statement, %fault, "backend and client part");
                drop(events);
                drop(scratch);
                self.on_backend_lost(shard);
                return Moved::Something;
            }
        };
        conn.carry.clear();
        conn.carry.extend_from_slice(input.get(relayed.consumed..).unwrap_or_default());
        let mut direct = input.get(relayed.direct.clone()).unwrap_or_default();
        if conn.machine.second_try().discards() {
            self.out.truncate(before);
            direct = &[];
        }
        self.pass(cx, direct);
        drop(scratch);
        self.hear(&mut events);
        drop(events);
        if !self.closing {
            self.feed_kept(cx);
        }
        Moved::Something
    }

    /// Passes bytes to the client, which are copied only if its socket does not
    /// take them now.
    fn pass(&mut self, cx: &mut Context<'_>, direct: &[u8]) {
        let mut written = 0;
        if self.out.is_empty()
            && !direct.is_empty()
            && let Poll::Ready(Ok(sent)) = self.client.poll_write(cx, direct)
        {
            written = sent;
        }
        self.count_out(written);
        self.out.extend_from_slice(direct.get(written..).unwrap_or_default());
        if written > 0 && self.out.is_empty() {
            self.unflushed = self.client.poll_flush(cx).is_pending();
        }
    }

    /// Lets the session hear what its backend reported.
    fn hear(&mut self, events: &mut Vec<Event>) {
        let Some(conn) = &mut self.held.current else { return };
        if events.is_empty() && !conn.machine.is_settled() {
            return;
        }
        self.count_events(events);
        let Some(conn) = &mut self.held.current else { return };
        // What the router itself asked of the backend showed the client nothing.
        let shown = conn.settle() && !self.session.runs_own();
        if shown && !conn.machine.second_try().is_wanted() {
            self.reads.note_end(conn, &self.database);
        }
        let shard = conn.shard;
        let after = self.session.on_events(
            events,
            EventEnv {
                shard,
                backend: &mut conn.machine,
                interner: &mut self.thread.interner.borrow_mut(),
                registry: &mut self.thread.registry.borrow_mut(),
                to_backend: &mut conn.out,
            },
        );
        if self.unit_since_us > 0 && !self.session.is_awaiting() {
            let us = clock::now_us().saturating_sub(self.unit_since_us);
            self.thread.stats.note_latency(us);
            if let Some(lent) = &conn.lent {
                lent.note(us);
            }
            self.unit_since_us = 0;
        }
        if !self.held.others.is_empty() {
            self.release_beside();
        }
        let Some(conn) = &mut self.held.current else { return };
        match after {
            After::Keep => {}
            After::Release => {
                self.detach(shard);
                self.release_unused();
            }
            After::Replay if let Some(failure) = conn.machine.second_try().take() => {
                if failure == Failure::Fenced {
                    self.start_again(shard);
                } else {
                    self.detach(shard);
                    self.try_again(failure);
                }
            }
            After::Replay => {
                let mut bytes = std::mem::take(&mut conn.replay);
                bytes.extend_from_slice(&self.inbuf);
                self.inbuf = bytes;
            }
            After::Close => self.close(),
        }
        self.entry.note_holds(self.session.holds(), self.thread.now());
        if self.is_on_moves() {
            self.follow_moves();
        }
        self.follow_channels();
    }

    pub(super) fn count_events(&self, events: &[Event]) {
        let stats = &self.thread.stats;
        for event in events {
            if let Event::Error { state: Some(state), .. } = event {
                stats.note_error(*state);
            } else if *event == Event::Ready(TxStatus::Idle) {
                stats.transactions.set(stats.transactions.get() + 1);
            }
        }
    }

    // === having a backend ===

    pub(super) fn attach(&mut self, mut conn: Box<Conn>) {
        let node = conn.pool.node();
        let writer = self.database.with_cluster(|cluster| cluster.writer_of(conn.shard));
        conn.writes = match writer {
            Some(Writer::Node(writer)) if writer != node => Writes::Impossible,
            Some(Writer::Node(_) | Writer::Several | Writer::Unconfirmed | Writer::Absent)
            | None => Writes::Possible,
        };
        let replica = conn.writes == Writes::Impossible;
        conn.machine.note_replica(replica);
        conn.lent = replica.then(|| self.database.loads.lend(node));
        // Whoever held it before was the one to be woken.
        conn.watched = false;
        self.entry.running.borrow_mut().add(&conn);
        self.session.join(conn.shard);
        if self.session.joins_beside() {
            self.held.others.push(conn);
        } else {
            self.held.attach(conn);
        }
    }

    /// The session has no use for its backend of `shard` any more.
    pub(super) fn detach(&mut self, shard: ShardId) {
        let Some(conn) = self.held.take(shard) else { return };
        self.session.leave(shard);
        if self.session.keeps(shard) {
            self.held.aside.push(conn);
            return;
        }
        self.entry.running.borrow_mut().remove(&conn);
        if conn.machine.is_dirty() {
            let left = super::cleanup::LeftBehind::Nothing;
            self.thread.clean_up(Some(&self.entry), conn, left, true);
        } else {
            self.thread.hand_back(&self.entry, conn);
        }
    }

    /// A backend that was set aside serves again.
    pub(super) fn attach_aside(&mut self, shard: ShardId) -> bool {
        let Some(mut conn) = self.held.take_aside(shard) else { return false };
        // Nobody waits for it: it may have something to say.
        conn.watched = false;
        self.session.join(shard);
        if self.session.joins_beside() {
            self.held.others.push(conn);
        } else {
            self.held.attach(conn);
        }
        true
    }

    /// What was set aside and is not needed any more goes back, clean.
    fn sweep_aside(&mut self) {
        while let Some(at) = self.held.aside.iter().position(|conn| !self.session.keeps(conn.shard))
        {
            let conn = self.held.aside.swap_remove(at);
            self.entry.running.borrow_mut().remove(&conn);
            let left = super::cleanup::LeftBehind::Nothing;
            self.thread.clean_up(Some(&self.entry), conn, left, true);
        }
    }

    /// Backends of a unit that is over, or was refused.
    pub(super) fn release_unused(&mut self) {
        while let Some(conn) = &self.held.current {
            if !conn.out.is_empty() || !self.session.may_release(&conn.machine) {
                return;
            }
            self.detach(conn.shard);
        }
    }

    pub(super) fn on_backend_lost(&mut self, shard: ShardId) {
        if let Some(conn) = self.held.iter().find(|conn| conn.shard == shard) {
            // What traffic sees the monitor shall see at once.
            self.database.marks.strikes.note(conn.pool.node());
            self.database.marks.ask_for_sample();
        }
        self.cut_off(shard);
    }

    /// Gives the backend of `shard` up in the middle of whatever it does.
    pub(super) fn cut_off(&mut self, shard: ShardId) {
        if !self.held.others.is_empty() && !self.session.is_gathering() {
            self.drop_beside();
        }
        let Some(mut conn) = self.held.take(shard) else { return };
        self.entry.running.borrow_mut().remove(&conn);
        self.session.leave(shard);
        let told = self.closing;
        if !told && self.survives_loss(&mut conn) {
            drop(conn);
            self.refed_by_signal();
            return;
        }
        match self.session.on_lost(shard, &conn.machine, conn.writes) {
            _ if told => {}
            Lost::Quiet => {}
            Lost::Say(bytes) => self.out.extend_from_slice(&bytes),
            Lost::Close(bytes) => {
                if !conn.machine.is_mid_frame() {
                    self.out.extend_from_slice(&bytes);
                }
                self.close();
            }
        }
        let writes = conn.writes;
        drop(conn);
        if self.is_on_moves() {
            self.follow_moves();
        }
        tracing::warn!(
            client = self.entry.id,
            statement = self.units,
            shard = %self.database.shard_name(shard),
            replica = writes == Writes::Impossible,
            "backend connection lost"
        );
        // What stands behind the unit, or the unit itself if it had not begun.
        self.refed_by_signal();
    }
}

impl Conn {
    /// Writes what waits for the socket.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) -> Moved {
        if self.out.is_empty() {
            if self.unflushed {
                // An error shows at the next read.
                self.unflushed = self.stream.poll_flush(cx).is_pending();
            }
            return Moved::Nothing;
        }
        // Whoever put it there: nothing leaves before its marks are raised.
        self.expose();
        let mut at = 0;
        while at < self.out.len() {
            match self.stream.poll_write(cx, self.out.get(at..).unwrap_or_default()) {
                Poll::Ready(Ok(written)) => at += written,
                Poll::Ready(Err(_)) => {
                    // The read will say why; nothing more can be sent.
                    at = self.out.len();
                }
                Poll::Pending => break,
            }
        }
        if at == self.out.len() {
            self.out.clear();
            self.unflushed = self.stream.poll_flush(cx).is_pending();
        } else {
            self.out.drain(..at);
        }
        if at > 0 { Moved::Something } else { Moved::Nothing }
    }

    /// True if the server has said nothing since the connection came free.
    pub(super) fn is_quiet(&mut self) -> bool {
        if !self.stream.may_read() {
            return true;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut byte = [0];
        // Readiness is asked of the runtime, not of the system: it costs no
        // call unless something is there.
        self.stream.poll_read(&mut cx, &mut byte).is_pending()
    }
}

/// One unit in so many is timed.
const TIMED_EVERY: u64 = 16;
