//! One client's task: reads, feeds the machines, writes.
//!
//! A poll goes round until nothing moves any more: what is to be written is
//! written first, then the backend is read, then the client. A slow client
//! stops the reading from its backend; a connection gets at most
//! [`READ_BYTES`] a turn.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::backend::Backend;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::protocol::backend::TxStatus;
use crate::session::{Holds, Refused, Session};
use crate::types::{Consistency, Millis, Moment, SqlState};

use super::cleanup::LeftBehind;
use super::client::{ClientEntry, State};
use super::conn::Conn;
use super::hold::Hold;
use super::operate::HeldUp;
use super::participants::Participants;
use super::pools::{SharedPool, Waiting};
use super::reads::Reads;
use super::thread::{Database, READ_BYTES, Thread};

/// A client after its login.
pub(super) struct Driver {
    pub(super) thread: Rc<Thread>,
    pub(super) database: Rc<Database>,
    pub(super) entry: Rc<ClientEntry>,
    pub(super) client: Stream,
    pub(super) session: Session,
    pub(super) consistency: Consistency,
    /// Bytes of the client's that wait for more, or for a backend.
    pub(super) inbuf: Vec<u8>,
    /// Bytes that the client has not taken yet.
    pub(super) out: Vec<u8>,
    /// The backends that it holds.
    pub(super) held: Participants,
    pub(super) waiting: Option<Waiting>,
    /// The unit waits for the end of a pause.
    pub(super) held_up: Option<HeldUp>,
    /// What it says to the backend that it holds waits, since then, for the
    /// router's lease.
    pub(super) stalled: Option<Moment>,
    /// The unit waits, since then, until its channels are listened to.
    pub(super) listening: Option<Moment>,
    /// Encryption still holds back some of what the client is sent.
    pub(super) unflushed: bool,
    /// The pool used last.
    pub(super) pool: Option<SharedPool>,
    /// The runtime will wake this task when the client has something to say:
    /// asking again would change nothing.
    pub(super) client_watched: bool,
    pub(super) reads: Reads,
    pub(super) hold: Hold,
    pub(super) closing: bool,
    /// The client is told something before it is closed.
    farewell: bool,
    /// The client has ended its side.
    pub(super) ended: bool,
    /// The same, after a goodbye behind statements that are not done: they are
    /// done first, as on a server.
    parting: bool,
    /// When the running unit was sent, in microseconds; zero if unmeasured.
    pub(super) unit_since_us: u64,
    pub(super) units: u64,
    /// The backend of the running statement was cancelled for its length.
    pub(super) timed_out: bool,
    /// The client has sent something since its deadline was set.
    stirred: bool,
    /// The unit that the deadline was set for.
    unit_noted: u64,
}

/// Whether a round of the poll moved anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    Something,
    Nothing,
}

impl Driver {
    /// A driver for a client that has just logged in; `buf` is what it has
    /// sent already.
    #[allow(clippy::too_many_arguments, reason = "one caller, one line each")]
    pub(super) fn new(
        thread: &Rc<Thread>,
        database: &Rc<Database>,
        entry: &Rc<ClientEntry>,
        client: Stream,
        session: Session,
        consistency: Consistency,
        buf: Vec<u8>,
    ) -> Self {
        Self {
            thread: Rc::clone(thread),
            database: Rc::clone(database),
            entry: Rc::clone(entry),
            client,
            session,
            consistency,
            inbuf: buf,
            out: Vec::new(),
            held: Participants::default(),
            waiting: None,
            held_up: None,
            stalled: None,
            listening: None,
            unflushed: false,
            pool: None,
            client_watched: false,
            reads: Reads::default(),
            hold: Hold::default(),
            closing: false,
            farewell: false,
            ended: false,
            parting: false,
            unit_since_us: 0,
            units: 0,
            timed_out: false,
            stirred: false,
            unit_noted: 0,
        }
    }

    /// Serves the client until it leaves.
    pub(super) async fn run(mut self: Box<Self>) {
        // What came together with the startup message.
        self.refed_by_signal();
        // It takes turns by its own count of bytes and reads.
        tokio::task::unconstrained(std::future::poll_fn(|cx| self.poll(cx))).await;
        self.part();
        if self.farewell && !self.ended {
            let client = std::mem::replace(&mut self.client, Stream::Closed);
            let limit = clock::duration(LINGER);
            self.thread
                .spawn(async move { drop(tokio::time::timeout(limit, client.close()).await) });
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.entry.keep_waker(cx.waker());
        let mut turn = 0;
        loop {
            if self.entry.signals.get().any() {
                self.on_signals();
            }
            let mut moved = match self.write_out(cx) {
                Ok(moved) => moved,
                Err(_) => return Poll::Ready(()),
            };
            if self.closing && self.out.is_empty() && !self.unflushed {
                return Poll::Ready(());
            }
            moved = moved.or(self.held.write(cx));
            moved = moved.or(self.poll_waiting(cx));
            moved = moved.or(self.poll_parked(cx));
            match self.read_backends(cx, &mut turn) {
                Moved::Something => moved = Moved::Something,
                Moved::Nothing => {}
            }
            match self.read_client(cx, &mut turn) {
                Ok(read) => moved = moved.or(read),
                Err(_) => return Poll::Ready(()),
            }
            // A client that has ended its side gets nothing any more.
            if self.ended {
                return Poll::Ready(());
            }
            if moved == Moved::Nothing && self.deliver_mail() == Moved::Nothing {
                if self.thread.draining.get() && self.drain() == Moved::Something {
                    continue;
                }
                self.note_state();
                return Poll::Pending;
            }
            if turn >= READ_BYTES {
                self.note_state();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Nothing more of the client's is taken for now.
    pub(super) fn is_blocked(&self) -> bool {
        // The cancel request for a statement that took too long must not hit
        // the client's next.
        self.session.is_awaiting()
            || self.is_waiting()
            || (self.database.gate.is_suspended() && self.session.is_between_units())
            || self.is_stalled()
            || (self.timed_out && self.entry.cancels.get() > 0)
    }

    // === the client's socket ===

    fn write_out(&mut self, cx: &mut Context<'_>) -> io::Result<Moved> {
        if self.out.is_empty() {
            if self.unflushed {
                self.flush_client(cx)?;
            }
            return Ok(Moved::Nothing);
        }
        let mut at = 0;
        while at < self.out.len() {
            match self.client.poll_write(cx, self.out.get(at..).unwrap_or_default()) {
                Poll::Ready(written) => at += written?,
                Poll::Pending => break,
            }
        }
        self.count_out(at);
        if at == self.out.len() {
            self.out.clear();
            if self.out.capacity() > KEPT_BYTES {
                self.out = Vec::new();
            }
            self.flush_client(cx)?;
        } else {
            self.out.drain(..at);
        }
        Ok(if at > 0 { Moved::Something } else { Moved::Nothing })
    }

    fn flush_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.unflushed = match self.client.poll_flush(cx) {
            Poll::Ready(flushed) => flushed.map(|()| false)?,
            Poll::Pending => true,
        };
        Ok(())
    }

    fn read_client(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> io::Result<Moved> {
        if self.ended || self.closing || self.parting {
            return Ok(Moved::Nothing);
        }
        let blocked = self.is_blocked();
        let congested = !self.out.is_empty() || self.unflushed || self.held.is_congested();
        if (blocked && self.inbuf.len() >= READ_BYTES) || (congested && !blocked) {
            return Ok(Moved::Nothing);
        }
        if self.client_watched && !self.client.may_read() {
            return Ok(Moved::Nothing);
        }
        let thread = Rc::clone(&self.thread);
        let mut scratch = thread.scratch.borrow_mut();
        let space = scratch.get_mut(..READ_BYTES).unwrap_or_default();
        let read = match self.client.poll_read(cx, space) {
            Poll::Ready(read) => read?,
            Poll::Pending => {
                self.client_watched = true;
                return Ok(Moved::Nothing);
            }
        };
        self.client_watched = false;
        *turn += read.max(READ_COST_BYTES);
        self.stirred = true;
        if read == 0 {
            let under_way = self.session.is_awaiting() || self.is_waiting();
            self.parting = under_way && self.inbuf.ends_with(GOODBYE);
            self.ended = !self.parting;
            return Ok(Moved::Something);
        }
        let stats = &thread.stats;
        stats.bytes_in.set(stats.bytes_in.get() + u64::try_from(read).unwrap_or(0));
        let bytes = scratch.get(..read).unwrap_or_default();
        if blocked || !self.inbuf.is_empty() {
            self.inbuf.extend_from_slice(bytes);
            drop(scratch);
            if !blocked {
                self.feed_kept(cx);
            }
        } else {
            let consumed = self.feed(cx, bytes);
            self.inbuf.extend_from_slice(bytes.get(consumed..).unwrap_or_default());
        }
        Ok(Moved::Something)
    }

    pub(super) fn count_out(&self, bytes: usize) {
        let stats = &self.thread.stats;
        stats.bytes_out.set(stats.bytes_out.get() + u64::try_from(bytes).unwrap_or(0));
    }

    // === the queue ===

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Moved {
        let Some(waiting) = &self.waiting else { return Moved::Nothing };
        waiting.slot.set_waker(cx.waker());
        let Some(outcome) = waiting.slot.take() else { return Moved::Nothing };
        self.waiting = None;
        match outcome {
            Ok(conn) => {
                if !self.attach_waited(conn) {
                    return Moved::Something;
                }
            }
            Err(refused) => match self.fall_back() {
                Some(true) => {}
                Some(false) => return Moved::Something,
                None => self.session.refuse_checkout(refused),
            },
        }
        self.feed_kept(cx);
        Moved::Something
    }

    // === asked from outside ===

    fn on_signals(&mut self) {
        let signals = self.entry.signals.take();
        if signals.cancel_wait {
            self.give_up_waiting(Refused::new(CANCELED, "canceling statement due to user request"));
        }
        if signals.kill {
            self.say_goodbye("57P01", "terminating connection due to administrator command");
        }
        if signals.stop {
            self.say_goodbye("57P01", "terminating connection: the router is shutting down");
        }
        if signals.drain {
            self.drain();
        }
        if signals.timeout {
            self.on_timeout();
        }
        if signals.resume {
            self.timed_out = false;
            self.refed_by_signal();
        }
        if signals.nodes {
            self.on_new_writer();
        }
        if signals.heard {
            self.on_heard();
        }
        if signals.gate {
            self.on_gate();
        }
        if signals.moves && self.end_hold() {
            self.refed_by_signal();
        }
    }

    /// The router shuts down: who has nothing under way goes now.
    pub(super) fn drain(&mut self) -> Moved {
        if self.closing {
            return Moved::Nothing;
        }
        let idle = self.session.is_between_units()
            && !self.session.in_transaction(self.held.machine())
            && !self.is_waiting();
        if !idle {
            return Moved::Nothing;
        }
        self.say_goodbye("57P01", "terminating connection: the router is shutting down");
        Moved::Something
    }

    pub(super) fn say_goodbye(&mut self, state: &str, message: &str) {
        if self.closing {
            return;
        }
        let mid_frame = self.held.machine().is_some_and(Backend::is_mid_frame);
        if !mid_frame {
            let refused = Refused::new(SqlState::new(state), message);
            self.thread.stats.note_refusal(refused.state);
            self.out.extend_from_slice(&refused.fatal_frame());
        }
        self.close();
    }

    /// What stands in the client's buffer is the last that it gets.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.farewell |= !self.out.is_empty();
    }

    pub(super) fn give_up_waiting(&mut self, refused: Refused) {
        if let Some(waiting) = self.waiting.take() {
            waiting.leave(&self.thread);
            self.session.refuse_checkout(refused);
            self.refed_by_signal();
        } else if self.unpark()
            || self.end_hold()
            || self.held_up.take().is_some()
            || self.listening.take().is_some()
        {
            self.hold = Hold::default();
            self.session.refuse_checkout(refused);
            self.refed_by_signal();
        }
    }

    /// True if the client waits for a connection, for a node to choose, or for
    /// a move, or for the end of a pause.
    pub(super) const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
            || self.reads.is_parked()
            || self.held_up.is_some()
            || self.hold.is_on()
            || self.listening.is_some()
            || self.stalled.is_some()
    }

    /// Feeds what waits after a signal; writes happen in the next round.
    pub(super) fn refed_by_signal(&mut self) {
        let waker = std::task::Waker::noop();
        let mut cx = Context::from_waker(waker);
        self.feed_kept(&mut cx);
    }

    fn on_timeout(&mut self) {
        let now = clock::now();
        if self.hold.is_on() {
            self.give_up_hold(now);
            return;
        }
        if let Some(waiting) = &self.waiting {
            let limit = self.thread.settings.pool.checkout_timeout;
            if now.since(waiting.since) >= limit {
                let stats = &self.thread.stats;
                stats.checkout_timeouts.set(stats.checkout_timeouts.get() + 1);
                let refused = waiting.last_error().unwrap_or_else(|| {
                    Refused::new(
                        TOO_MANY,
                        format!("no connection to the shard came free within {limit}"),
                    )
                    .hint("raise pool.size_max, shorten transactions, or retry later")
                });
                self.give_up_waiting(refused);
            }
            return;
        }
        let timeouts = &self.thread.settings.timeouts;
        if self.listening.is_some() {
            self.give_up_waiting(
                Refused::new(TOO_MANY, "no connection came free to listen with")
                    .hint("raise pool.size_max, shorten transactions, or retry later"),
            );
            return;
        }
        if let Some(held_up) = &self.held_up {
            let refused = held_up.refusal(&self.thread.settings);
            self.give_up_waiting(refused);
            return;
        }
        if self.stalled.is_some() {
            self.give_up_stall();
            return;
        }
        match self.entry.state.get() {
            State::Active if timeouts.statement > Millis::ZERO => {
                // A server that has not begun the statement ignores the request:
                // it is sent again as long as the statement runs.
                self.entry.deadline_ms.set(now.after(CANCEL_AGAIN).ms());
                if self.entry.cancels.get() == 0 {
                    self.timed_out = true;
                    if let Some(conn) = &mut self.held.current {
                        conn.machine.explain_cancel("canceling statement due to statement timeout");
                    }
                    let (thread, entry) = (Rc::clone(&self.thread), Rc::clone(&self.entry));
                    self.thread.spawn(async move { thread.cancel_running(&entry).await });
                }
            }
            State::InTransaction => {
                self.say_goodbye(
                    "25P03",
                    "terminating connection due to idle-in-transaction timeout",
                );
            }
            State::Idle => self.say_goodbye("57P05", self.idle_limit().1),
            State::Active | State::Waiting => {}
        }
    }

    /// How long the client may say nothing outside a transaction, zero for ever,
    /// and what it is told at the end of that.
    fn idle_limit(&self) -> (Millis, &'static str) {
        let timeouts = &self.thread.settings.timeouts;
        let idle = (timeouts.client_idle, "terminating connection due to idle-session timeout");
        let keeps = !self.session.holds().beyond_transactions().is_empty();
        let sooner =
            timeouts.client_idle == Millis::ZERO || timeouts.idle_hold < timeouts.client_idle;
        if keeps && sooner && timeouts.idle_hold > Millis::ZERO {
            return (
                timeouts.idle_hold,
                "terminating connection because it kept a backend and was idle",
            );
        }
        idle
    }

    fn state_now(&self) -> State {
        if self.is_waiting() {
            State::Waiting
        } else if self.session.is_awaiting() || !self.held.is_settled() {
            State::Active
        } else if self.session.in_transaction(self.held.machine()) || self.session.is_batch_open() {
            State::InTransaction
        } else {
            State::Idle
        }
    }

    /// Notes what the client does, and until when it may: a wait counts from
    /// its begin, a statement from its own, idleness from the client's last
    /// words.
    fn note_state(&mut self) {
        if !self.inbuf.is_empty() {
            self.note_stall();
        }
        let state = self.state_now();
        let same = state == self.entry.state.get() && self.unit_noted == self.units;
        let stirred = std::mem::take(&mut self.stirred);
        let timeouts = &self.thread.settings.timeouts;
        let (limit, since) = match (state, &self.waiting) {
            (State::Waiting, None) if let Some(since) = self.listening => {
                let paused = self.database.gate.is_paused().then_some(timeouts.paused);
                (paused.unwrap_or(self.thread.settings.pool.checkout_timeout), since)
            }
            (State::Waiting, None) if let Some(held_up) = &self.held_up => {
                (held_up.limit(&self.thread.settings), held_up.since)
            }
            (State::Waiting, None) if let Some(since) = self.stalled.or(self.hold.since()) => {
                (self.thread.settings.moves.hold_max, since)
            }
            (State::Waiting, Some(waiting)) => {
                (self.thread.settings.pool.checkout_timeout, waiting.since)
            }
            (State::Active | State::Waiting, _) if same => return,
            (State::Active | State::Waiting, _) => (timeouts.statement, self.thread.now()),
            (State::InTransaction | State::Idle, _) if same && !stirred => return,
            (State::InTransaction, _) => (timeouts.idle_in_transaction, self.thread.now()),
            (State::Idle, _) => (self.idle_limit().0, self.thread.now()),
        };
        if !same && self.entry.cancels.get() == 0 {
            self.timed_out = false;
        }
        self.unit_noted = self.units;
        self.entry.state.set(state);
        let deadline = if limit > Millis::ZERO { since.after(limit) } else { Moment::START };
        self.entry.deadline_ms.set(deadline.ms());
    }

    // === the end ===

    /// The client is gone: its backends are made fit for others.
    fn part(&mut self) {
        self.entry.statements.set(self.session.statements_seen());
        self.entry.gathered.set(self.entry.gathered.get() + 1);
        self.unpark();
        self.end_hold();
        self.leave_moves();
        self.stop_listening();
        if let Some(waiting) = self.waiting.take() {
            waiting.leave(&self.thread);
        }
        while let Some(conn) = self.held.take_any() {
            self.part_from(conn);
        }
    }

    fn part_from(&mut self, conn: Box<Conn>) {
        self.entry.running.borrow_mut().remove(&conn);
        // A temporary schema stays in sight of whoever comes next: such a
        // backend is not passed on.
        let left = if self.session.is_mid_message() || self.session.holds().contains(Holds::TEMP) {
            LeftBehind::HalfMessage
        } else if self.session.is_batch_open() {
            LeftBehind::OpenBatch
        } else {
            LeftBehind::Nothing
        };
        let reset = !self.session.holds().is_empty();
        let clean = conn.machine.is_clean()
            && conn.machine.status() == TxStatus::Idle
            && left == LeftBehind::Nothing
            && !reset;
        if clean {
            self.thread.hand_back(&self.entry, conn);
        } else {
            self.thread.clean_up(Some(&self.entry), conn, left, reset);
        }
    }
}

impl Moved {
    pub(super) const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, Self::Nothing) => Self::Nothing,
            (Self::Something, _) | (_, Self::Something) => Self::Something,
        }
    }
}

/// What a read counts at least, so that many small ones end a turn too.
pub(super) const READ_COST_BYTES: usize = 512;
/// A Terminate message.
const GOODBYE: &[u8] = b"X\0\0\0\x04";
const CANCELED: SqlState = SqlState::new("57014");
const TOO_MANY: SqlState = SqlState::new("53300");
/// Time between cancel requests for a statement that goes on.
pub(super) const CANCEL_AGAIN: Millis = Millis::new(1_000);
/// How long a client has to hear why it is closed.
const LINGER: Millis = Millis::new(1_000);
/// Capacity that a client's buffers keep while it is idle, in bytes.
pub(super) const KEPT_BYTES: usize = 0;
