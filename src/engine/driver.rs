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
use super::participants::Participants;
use super::pools::Waiting;
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
    pub(super) closing: bool,
    /// The client has ended its side.
    pub(super) ended: bool,
    /// When the running unit was sent, in microseconds; zero if unmeasured.
    pub(super) unit_since_us: u64,
    pub(super) units: u64,
    /// The backend of the running statement was cancelled for its length.
    pub(super) timed_out: bool,
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
            closing: false,
            ended: false,
            unit_since_us: 0,
            units: 0,
            timed_out: false,
        }
    }

    /// Serves the client until it leaves.
    pub(super) async fn run(mut self) {
        // What came together with the startup message.
        self.refed_by_signal();
        std::future::poll_fn(|cx| self.poll(cx)).await;
        self.part();
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
            if self.closing && self.out.is_empty() {
                return Poll::Ready(());
            }
            moved = moved.or(self.held.write(cx));
            moved = moved.or(self.poll_waiting(cx));
            match self.read_backend(cx, &mut turn) {
                Moved::Something => moved = Moved::Something,
                Moved::Nothing => {}
            }
            match self.read_client(cx, &mut turn) {
                Ok(read) => moved = moved.or(read),
                Err(_) => return Poll::Ready(()),
            }
            if self.ended && !self.wants_replies() {
                return Poll::Ready(());
            }
            if moved == Moved::Nothing {
                self.set_deadline();
                return Poll::Pending;
            }
            if turn >= READ_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// A client that has ended its side gets nothing any more.
    const fn wants_replies(&self) -> bool {
        false
    }

    // === the client's socket ===

    fn write_out(&mut self, cx: &mut Context<'_>) -> io::Result<Moved> {
        if self.out.is_empty() {
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
            let _flushed = self.client.poll_flush(cx)?;
        } else {
            self.out.drain(..at);
        }
        Ok(if at > 0 { Moved::Something } else { Moved::Nothing })
    }

    fn read_client(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> io::Result<Moved> {
        if self.ended || self.closing {
            return Ok(Moved::Nothing);
        }
        let blocked = self.session.is_awaiting() || self.waiting.is_some();
        let congested = !self.out.is_empty() || self.held.is_congested();
        if (blocked && self.inbuf.len() >= READ_BYTES) || (congested && !blocked) {
            return Ok(Moved::Nothing);
        }
        let thread = Rc::clone(&self.thread);
        let mut scratch = thread.scratch.borrow_mut();
        let space = scratch.get_mut(..READ_BYTES).unwrap_or_default();
        let read = match self.client.poll_read(cx, space) {
            Poll::Ready(read) => read?,
            Poll::Pending => return Ok(Moved::Nothing),
        };
        *turn += read;
        if read == 0 {
            self.ended = true;
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
            Ok(conn) => self.attach(conn),
            Err(refused) => self.session.refuse_checkout(refused),
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
        if signals.drain || self.thread.draining.get() {
            self.drain();
        }
        if signals.timeout {
            self.on_timeout();
        }
    }

    /// The router shuts down: who has nothing under way goes now.
    pub(super) fn drain(&mut self) {
        let idle = self.session.is_between_units()
            && !self.session.in_transaction(self.held.machine())
            && self.waiting.is_none();
        if idle {
            self.say_goodbye("57P01", "terminating connection: the router is shutting down");
        }
    }

    pub(super) fn say_goodbye(&mut self, state: &str, message: &str) {
        if self.closing {
            return;
        }
        let mid_frame = self.held.machine().is_some_and(Backend::is_mid_frame);
        if !mid_frame {
            let refused = Refused::new(SqlState::new(state), message);
            self.out.extend_from_slice(&refused.fatal_frame());
        }
        self.closing = true;
    }

    fn give_up_waiting(&mut self, refused: Refused) {
        if let Some(waiting) = self.waiting.take() {
            waiting.leave(&self.thread);
            self.session.refuse_checkout(refused);
            self.refed_by_signal();
        }
    }

    /// Feeds what waits after a signal; writes happen in the next round.
    fn refed_by_signal(&mut self) {
        let waker = std::task::Waker::noop();
        let mut cx = Context::from_waker(waker);
        self.feed_kept(&mut cx);
    }

    fn on_timeout(&mut self) {
        let now = clock::now();
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
        match self.entry.state.get() {
            State::Active if timeouts.statement > Millis::ZERO => {
                if !self.timed_out {
                    self.timed_out = true;
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
            State::Idle => {
                self.say_goodbye("57P05", "terminating connection due to idle-session timeout");
            }
            State::Active | State::Waiting => {}
        }
    }

    /// Notes what the client does, and until when it may.
    fn set_deadline(&mut self) {
        let timeouts = &self.thread.settings.timeouts;
        let (state, limit) = if self.waiting.is_some() {
            (State::Waiting, self.thread.settings.pool.checkout_timeout)
        } else if self.session.is_awaiting() {
            (State::Active, timeouts.statement)
        } else if self.session.in_transaction(self.held.machine()) {
            (State::InTransaction, timeouts.idle_in_transaction)
        } else {
            (State::Idle, timeouts.client_idle)
        };
        if state == self.entry.state.get() && state != State::Active && state != State::Idle {
            return;
        }
        if state != State::Active {
            self.timed_out = false;
        }
        self.entry.state.set(state);
        let deadline =
            if limit > Millis::ZERO { self.thread.now().after(limit) } else { Moment::START };
        self.entry.deadline_ms.set(deadline.ms());
    }

    // === the end ===

    /// The client is gone: its backends are made fit for others.
    fn part(&mut self) {
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
        if clean && self.entry.cancels.get() == 0 {
            self.thread.release(conn);
        } else {
            self.thread.clean_up(conn, left, reset);
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

const CANCELED: SqlState = SqlState::new("57014");
const TOO_MANY: SqlState = SqlState::new("53300");
/// Capacity that a client's buffers keep while it is idle, in bytes.
pub(super) const KEPT_BYTES: usize = 0;
