//! One backend's machine: the replies it owes, its transaction status, and
//! what earlier clients left on it (prepared names, settings, dirt).
//!
//! It knows nothing of sockets, pools or routes. The session pushes what it
//! sends as [`Expect`]ations; [`Backend::relay`] walks the reply bytes, decides
//! which of them the client sees, and reports what changed as [`Event`]s.
//!
//! Source: PostgreSQL manual, "Message Flow"; hazards 1 to 3, 5, 9, 35 to 41
//! of `docs/hazards.md`.

mod expect;
mod numbers;
mod prepared;
mod relay;
mod renumber;
mod second;
mod settings;
mod shape;
mod writes;

pub use expect::{Event, Expect, OwnPurpose, Refusal, Report, SentAs, Tag};
pub use prepared::{NAME_LEN, PreparedNames, StatementId, backend_name};
pub use relay::{Fault, Relayed};
pub use second::{Failure, SecondTry, Sent};
pub use settings::{Setting, SettingsInterner, SettingsSet, quoted};
pub use shape::{REVALIDATE, RowShape};
pub use writes::UnitWrites;

use std::collections::VecDeque;
use std::rc::Rc;

use crate::protocol::backend::TxStatus;

/// Identity of a backend process for CancelRequest.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// Process id as the server reported it.
    pub pid: u32,
    /// Secret, 4 to 256 bytes; never logged.
    pub secret: Box<[u8]>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey {{ pid: {} }}", self.pid)
    }
}

/// One connection to Postgres after its login.
#[derive(Debug)]
pub struct Backend {
    status: TxStatus,
    queue: VecDeque<Expect>,
    /// An extended batch failed: the server ignores all until Sync.
    skipping: bool,
    /// Rest of a frame whose head has been relayed already.
    partial: Partial,
    /// COPY … FROM STDIN is under way.
    copy_in: bool,
    /// What ReadyForQuery tells the client instead of the server's status:
    /// the session's own transaction has no shard yet.
    mask: Option<TxStatus>,
    /// Command tag of the router's own query that is running.
    own_tag: Option<Box<[u8]>>,
    /// Rows or anything else of the running unit went to the client.
    answered: bool,
    prepared: PreparedNames,
    unnamed: Option<StatementId>,
    settings: Rc<SettingsSet>,
    key: CancelKey,
    dirty: bool,
    /// What one session left on it can't be taken away: nobody else gets it.
    spoiled: bool,
    /// The running unit may be sent again if nothing of it was answered.
    replayable: bool,
    /// The next ReadyForQuery ends a unit that is sent again.
    swallow_ready: bool,
    /// Names to close before they are prepared again.
    stale: Vec<StatementId>,
    /// Names to close because others took their place.
    evicted: Vec<StatementId>,
    /// Why the router has the running unit cancelled.
    cancel_reason: Option<&'static str>,
    /// Messages of the running unit that the server did not come to, of those
    /// that change the session's names.
    undone_names: usize,
    /// Command tags that the client reads instead of the server's, for the
    /// statements of the running simple query.
    spoken_tags: VecDeque<Option<&'static str>>,
    writes: UnitWrites,
    second: SecondTry,
    /// It leads to a replica, as far as its present holder knows.
    replica: bool,
    /// The client knows types by other numbers than the server.
    numbers: Option<Box<numbers::Numbered>>,
    /// The named statement whose portal is being described for the router.
    described: Option<StatementId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Partial {
    left: usize,
    forward: bool,
}

impl Backend {
    /// A backend fresh from its login: idle, nothing prepared, settings at the
    /// server's defaults.
    pub fn new(key: CancelKey, prepared_max: usize, defaults: Rc<SettingsSet>) -> Self {
        Self {
            status: TxStatus::Idle,
            queue: VecDeque::new(),
            skipping: false,
            partial: Partial::default(),
            copy_in: false,
            mask: None,
            own_tag: None,
            answered: false,
            prepared: PreparedNames::new(prepared_max),
            unnamed: None,
            settings: defaults,
            key,
            dirty: false,
            spoiled: false,
            replayable: false,
            swallow_ready: false,
            stale: Vec::new(),
            evicted: Vec::new(),
            cancel_reason: None,
            undone_names: 0,
            spoken_tags: VecDeque::new(),
            writes: UnitWrites::default(),
            second: SecondTry::default(),
            replica: false,
            numbers: None,
            described: None,
        }
    }

    /// Status byte of the newest ReadyForQuery.
    pub const fn status(&self) -> TxStatus {
        self.status
    }

    /// True if nothing is owed and no transaction is open: another session may
    /// have it.
    pub fn is_clean(&self) -> bool {
        self.is_settled() && self.status == TxStatus::Idle && !self.dirty && !self.spoiled
    }

    /// True if no reply is owed.
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.partial.left == 0 && !self.copy_in
    }

    /// True while a frame has reached the client in part: nothing else may be
    /// written to the client before its rest.
    pub const fn is_mid_frame(&self) -> bool {
        self.partial.left > 0 && self.partial.forward
    }

    /// True after an error of an extended batch, until its Sync.
    pub const fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// True while the server reads COPY data.
    pub const fn is_copying_in(&self) -> bool {
        self.copy_in
    }

    /// The client ended its COPY data; from here on the server replies again.
    pub fn end_copy_in(&mut self) {
        self.copy_in = false;
    }

    /// True if anything of the running unit has reached the client.
    pub const fn has_answered(&self) -> bool {
        self.answered
    }

    /// Starts a unit (a simple query or an extended batch): nothing answered.
    pub fn begin_unit(&mut self, mask: Option<TxStatus>) {
        self.answered = false;
        self.mask = mask;
        self.replayable = false;
        self.cancel_reason = None;
        self.undone_names = 0;
        self.spoken_tags.clear();
        self.writes.begin(self.status == TxStatus::Idle);
        self.second.begin();
        // A transaction that is open there, or opens ahead of the unit, goes on
        // nowhere else.
        if self.replica && (self.status != TxStatus::Idle || !self.queue.is_empty()) {
            self.second.forbid();
        }
    }

    /// Whoever takes it from its pool knows whether it leads to a replica.
    pub const fn note_replica(&mut self, replica: bool) {
        self.replica = replica;
    }

    /// True if it leads to a replica.
    pub const fn is_replica(&self) -> bool {
        self.replica
    }

    /// Whether the running unit may run again on another node.
    pub fn second_try(&mut self) -> &mut SecondTry {
        &mut self.second
    }

    /// What the running unit and its transaction write.
    pub fn writes(&mut self) -> &mut UnitWrites {
        &mut self.writes
    }

    /// The router has the running unit cancelled: the client is told why,
    /// where the server would speak of a user's request.
    pub fn explain_cancel(&mut self, reason: &'static str) {
        self.cancel_reason = Some(reason);
    }

    /// The client reads these command tags, where there is one, instead of
    /// those of the simple query's statements.
    pub fn speak_tags(&mut self, tags: impl IntoIterator<Item = Option<&'static str>>) {
        self.spoken_tags.extend(tags);
    }

    /// How many of the unit's last changes of names never happened: a server
    /// that skips does all up to a message and none behind it.
    pub fn take_undone_names(&mut self) -> usize {
        std::mem::take(&mut self.undone_names)
    }

    /// The session keeps the unit's bytes and can send them again, should a
    /// plan turn out stale before anything was answered.
    pub fn allow_replay(&mut self) {
        self.replayable = true;
    }

    /// True if `id` is prepared on the server under its name.
    pub fn has_prepared(&mut self, id: StatementId) -> bool {
        if self.prepared.touch(id) {
            return true;
        }
        // Pushed out of the count by others, and not closed since.
        let evicted = self.evicted.contains(&id);
        if evicted {
            self.evicted.retain(|e| *e != id);
            self.note_prepared(id);
        }
        evicted
    }

    /// Notes that `id` is being prepared by SQL. A name that it pushes out of
    /// the count stays on the server until `id`s of its own kind close it.
    pub fn note_prepared(&mut self, id: StatementId) {
        self.forget_rows_of(id);
        if let Some(oldest) = self.prepared.insert(id) {
            self.evicted.push(oldest);
        }
    }

    /// Names to close: others took their place, or their plans are stale.
    pub fn take_evicted(&mut self) -> Option<StatementId> {
        self.evicted.pop().or_else(|| self.stale.pop())
    }

    /// The plan of `id` no longer fits its table: before the next use it is
    /// closed and prepared again.
    pub fn note_stale(&mut self, id: StatementId) {
        self.prepared.remove(id);
        if !self.stale.contains(&id) {
            self.stale.push(id);
        }
    }

    /// True if `id` is on the server and must be closed first.
    pub fn is_stale(&self, id: StatementId) -> bool {
        self.stale.contains(&id)
    }

    /// True, once, if `id` is still prepared on the server although its plan
    /// is stale: it has to be closed before it is prepared again.
    pub fn take_stale(&mut self, id: StatementId) -> bool {
        let before = self.stale.len();
        self.stale.retain(|stale| *stale != id);
        self.stale.len() < before
    }

    /// True if a Say would be the next thing: nothing is owed before it.
    pub fn owes_nothing(&self) -> bool {
        self.queue.is_empty()
    }

    /// Marks session state that can't be tracked: the backend is reset before
    /// anyone else gets it.
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// A temporary table is made on it: its schema stays in the search path,
    /// whatever is discarded.
    pub fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// True if only `DISCARD ALL` makes it fit for another session.
    pub const fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// `DEALLOCATE ALL` has succeeded on it.
    pub fn forget_prepared(&mut self) {
        self.prepared.clear();
        self.stale.clear();
        self.evicted.clear();
        self.unnamed = None;
    }

    /// `DISCARD ALL` has succeeded on it.
    pub fn reset_done(&mut self, defaults: Rc<SettingsSet>) {
        self.dirty = false;
        self.forget_prepared();
        self.settings = defaults;
    }

    /// Notes that `expect` answers what was just sent. While the server skips
    /// to Sync only a Sync is answered.
    #[inline]
    pub fn push(&mut self, expect: Expect) {
        if self.skipping {
            self.push_while_skipping(expect);
        } else {
            self.queue.push_back(expect);
        }
    }

    #[cold]
    fn push_while_skipping(&mut self, expect: Expect) {
        match expect {
            Expect::Sync | Expect::OwnQuery(OwnPurpose::Describe) => {}
            Expect::Query(_)
            | Expect::OwnQuery(_)
            | Expect::Parse(_)
            | Expect::ParseUnnamed
            | Expect::OwnParse(_)
            | Expect::Bind(_)
            | Expect::Describe
            | Expect::DescribeOf(_)
            | Expect::OwnDescribe(_)
            | Expect::OwnColumns(_)
            | Expect::Execute(_)
            | Expect::Close
            | Expect::OwnClose(_)
            | Expect::OwnReply(_)
            | Expect::OwnPrepare(_)
            | Expect::FunctionCall
            | Expect::Say(_)
            | Expect::SayNamed(_)
            | Expect::Refuse(_) => {
                self.forget(&expect);
                return;
            }
        }
        self.queue.push_back(expect);
    }

    /// Replies owed, in order.
    pub fn owed(&self) -> usize {
        self.queue.len()
    }

    /// How many names are prepared on it.
    pub fn prepared_len(&self) -> usize {
        self.prepared.len()
    }

    /// Names prepared on this connection.
    pub fn prepared(&mut self) -> &mut PreparedNames {
        &mut self.prepared
    }

    /// The statement that its unnamed slot holds, if a session's.
    pub const fn unnamed(&self) -> Option<StatementId> {
        self.unnamed
    }

    /// Notes what the unnamed slot will hold once the sent Parse has run.
    pub fn set_unnamed(&mut self, statement: Option<StatementId>) {
        self.unnamed = statement;
    }

    /// Settings in force on the connection.
    pub const fn settings(&self) -> &Rc<SettingsSet> {
        &self.settings
    }

    /// Notes the settings that were sent to it, or that the session's own SET
    /// left there.
    pub fn set_settings(&mut self, settings: Rc<SettingsSet>) {
        self.settings = settings;
    }

    /// Identity for CancelRequest.
    pub const fn key(&self) -> &CancelKey {
        &self.key
    }

    /// An expectation will never be met: take back what was noted at its send.
    fn forget(&mut self, expect: &Expect) {
        match expect {
            Expect::Parse(id) => {
                self.prepared.remove(*id);
                self.undone_names += 1;
            }
            Expect::SayNamed(_) => self.undone_names += 1,
            Expect::OwnParse(id) | Expect::OwnPrepare(id) => self.prepared.remove(*id),
            // Still there, and to be closed before the name is used again.
            Expect::OwnClose(id) => self.stale.push(*id),
            Expect::ParseUnnamed => self.unnamed = None,
            Expect::Query(_)
            | Expect::OwnQuery(_)
            | Expect::Bind(_)
            | Expect::Describe
            | Expect::DescribeOf(_)
            | Expect::OwnDescribe(_)
            | Expect::OwnColumns(_)
            | Expect::Execute(_)
            | Expect::Close
            | Expect::OwnReply(_)
            | Expect::FunctionCall
            | Expect::Sync
            | Expect::Say(_)
            | Expect::Refuse(_) => {}
        }
    }
}
