//! One client's machine, after its login: phases, prepared statements,
//! portals, tracked settings, holds and the transaction that has no shard yet.
//!
//! Bytes go in ([`Session::feed`]), bytes for the client and for one of the
//! backends that it holds come out, with a [`Step`] that says what the shell
//! must do next. Shards are its participants: a set, of which one is the common
//! case. It knows nothing of sockets, pools or time.
//!
//! Sources: PostgreSQL manual, "Message Flow"; hazards A to E of
//! `docs/hazards.md`.

mod answer;
mod channels;
mod cursors;
mod effects;
mod events;
mod explaining;
mod extended;
mod feed;
mod gathering;
mod holders;
mod joining;
mod keep;
mod lazy;
mod lookahead;
mod members;
mod merging;
mod moving;
mod names;
mod numbers;
mod own;
mod path;
mod place;
mod prepare;
mod read_only;
mod refusal;
mod restore;
mod scatter;
mod simple;
mod statements;
mod token;
mod told;
mod turns;
mod values;

pub use events::{EventEnv, Lost, Writes};
pub use holders::Holders;
pub use moving::waited_too_long;
pub use refusal::Refused;
pub use scatter::Gathering;
pub use statements::StatementRegistry;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::backend::{Backend, SettingsInterner, SettingsSet, StatementId};
use crate::catalog::Catalog;
use crate::cluster::{Mark, TokenError};
use crate::gather::{CollectLimits, Memory};
use crate::protocol::backend::ErrorFields;
use crate::protocol::frame::HEADER_LEN;
use crate::route::{Planner, SearchPath};
use crate::shardmap::Map;
use crate::types::{Access, Consistency, ShardId, SqlState};

use effects::{Effects, Log, PortalEffects};
use lazy::Lazy;
use restore::Hidden;
use statements::{Prepared, Statements, Unnamed};

/// What a session may use while it reads one piece of input.
pub struct Env<'e> {
    /// The thread's planner with its caches.
    pub planner: &'e mut Planner,
    /// The thread's shared settings values.
    pub interner: &'e mut SettingsInterner,
    /// The thread's shared statement texts.
    pub registry: &'e mut StatementRegistry,
    /// The map in force.
    pub map: &'e Arc<Map>,
    /// Grows with every map that the thread has had.
    pub map_serial: u64,
    /// What the shards' schemas hold, as far as it is known.
    pub catalog: &'e Catalog,
    /// Grows with every catalog that the thread has had.
    pub catalog_serial: u64,
    /// The configured level of reads.
    pub consistency: Consistency,
    /// Says which node a read of a shard at a level would use, and why; only
    /// EXPLAIN ROUTE asks.
    pub choose: &'e dyn Fn(ShardId, Consistency, Mark) -> String,
    /// Makes a token, or checks one; asked by SHOW keyway.token and SET
    /// keyway.after.
    pub token: &'e dyn Fn(Option<&str>) -> Result<String, TokenError>,
    /// Of the backends that the session holds, the one that it speaks to, and
    /// its shard.
    pub backend: Option<(&'e mut Backend, ShardId)>,
    /// For the client.
    pub to_client: &'e mut Vec<u8>,
    /// For the backend, before the run that [`Fed::direct`] names.
    pub to_backend: &'e mut Vec<u8>,
    /// The bytes of the running unit, kept to send it again.
    pub replay: &'e mut Vec<u8>,
}

/// How much one client may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest statement text read to find its shard, in bytes.
    pub statement_bytes_max: usize,
    /// Most that is held back before a batch's shard is known, in bytes.
    pub held_bytes_max: usize,
    /// Most named statements of one client.
    pub statements_max: usize,
    /// Most bytes of settings of one client.
    pub settings_bytes_max: usize,
    /// What one read may bring together; `None`: nothing.
    pub merge: Option<CollectLimits>,
}

/// Whether a client may say itself where its statements run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    Allowed,
    Forbidden,
}

/// What one call of [`Session::feed`] did.
#[derive(Debug)]
pub struct Fed {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Range of the input that goes to the backend after `to_backend`.
    pub direct: Range<usize>,
    /// What comes next.
    pub step: Step,
}

/// What the shell does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read more from the client.
    Read,
    /// Check out a backend, then feed the same bytes again.
    Checkout(Want),
    /// Nothing from the client is taken until the backend has answered.
    Await,
    /// Give back the backends that nothing runs on, then feed the same bytes
    /// again.
    Again,
    /// Wait until the replica that serves the transaction has what the next
    /// statement must see, then feed the same bytes again.
    Fresh(Want),
    /// Wait until another map or other moves are in force, then feed the same
    /// bytes again.
    Hold,
    /// Have a shared connection listen to [`Session::asked_channels`], say so by
    /// [`Session::note_listening`], then feed the same bytes again.
    Listen,
    /// All backends of a read over several shards are there: call
    /// [`Session::gather_ask`] for each, then [`Session::gather`].
    Gather,
    /// The client says goodbye, or can't be understood any more: what stands
    /// in `to_client` is its last message.
    Close,
}

/// What reads have to see that come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Everything that was acknowledged anywhere up to now.
    Now,
    /// What their level says.
    None,
}

/// A backend that a session needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The shard.
    pub shard: ShardId,
    /// `Read`: a replica may serve, if the level allows it.
    pub access: Access,
    /// The session's own level, over the configured one.
    pub consistency: Option<Consistency>,
    /// What of the shard it reads.
    pub mark: Mark,
    /// How long it is wanted for.
    pub span: Span,
}

/// What a backend is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The unit at hand.
    Unit,
    /// The transaction that begins with it: a replica must have whatever that
    /// may read.
    Transaction,
}

/// What the shell does after the session has heard the backend's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Keep the participant and go on.
    Keep,
    /// Give the participant's backend back to its pool.
    Release,
    /// Feed the kept bytes of the unit again, on the same backend.
    Replay,
    /// Flush, then close the client's connection: the backend said why.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between units.
    Idle,
    /// An extended batch is open.
    Batch,
    /// An extended batch failed here, without a backend: skip to its Sync.
    Skip,
    /// It failed and has a backend: skip to its Sync, which goes on.
    SkipBound,
    /// A query of the router's own runs first; the client's message stays.
    Own,
    /// The unit is sent; its ReadyForQuery is owed.
    Await,
    /// The client's next message means one thing or another, depending on
    /// replies that are owed: a Flush is sent, and it waits for them.
    Settle,
    /// A read over several shards is under way.
    Gather,
    /// The client sends COPY data of a simple query.
    CopySimple,
    /// The client sends COPY data within an extended batch.
    CopyBatch,
}

/// Where a session's search path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathOf {
    /// The client's own setting.
    Client,
    /// The catalog with this serial; zero before any.
    Catalog(u64),
}

/// Whose transaction it is.
#[derive(Debug)]
enum Tx {
    /// None, or the backend's own status says so.
    Backend,
    /// Begun, without a shard yet.
    Lazy(Box<Lazy>),
}

/// Reasons to keep a backend between transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds(u8);

impl Holds {
    /// LISTEN.
    pub const LISTEN: Self = Self(1);
    /// Temporary tables.
    pub const TEMP: Self = Self(2);
    /// Cursors WITH HOLD.
    pub const CURSOR: Self = Self(4);
    /// Session advisory locks.
    pub const ADVISORY: Self = Self(8);
    /// Session state that can't be tracked.
    pub const UNTRACKED: Self = Self(16);
    /// The pool is in session mode.
    pub const SESSION: Self = Self(32);

    /// True if nothing holds.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that end with something that the session does, which session mode
    /// is not.
    pub const fn beyond_transactions(self) -> Self {
        Self(self.0 & !Self::SESSION.0)
    }

    /// True if all of `other` hold.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The reasons as words, for the console.
    pub fn words(self) -> String {
        const WORDS: [(Holds, &str); 6] = [
            (Holds::LISTEN, "listen"),
            (Holds::TEMP, "temp table"),
            (Holds::CURSOR, "cursor with hold"),
            (Holds::ADVISORY, "advisory lock"),
            (Holds::UNTRACKED, "untracked state"),
            (Holds::SESSION, "session mode"),
        ];
        let held = WORDS.iter().filter(|(bit, _)| self.0 & bit.0 != 0).map(|(_, word)| *word);
        held.collect::<Vec<_>>().join(", ")
    }
}

/// A name that a batch changed, and what it meant before.
type Renamed = (Box<[u8]>, Option<Rc<Prepared>>);

/// A bulk message of the client's that is passed as it comes.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    left: usize,
    discard: bool,
}

/// One client after its login.
pub struct Session {
    limits: Limits,
    phase: Phase,
    /// The phase to go back to after a query of the router's own.
    resume: Phase,
    tx: Tx,
    stream: Stream,
    statements: Statements,
    unnamed: Unnamed,
    portals: HashMap<Box<[u8]>, PortalEffects>,
    /// Cursors over several shards.
    cursors: cursors::Cursors,
    /// Settings of the startup message, to which RESET goes back.
    startup: Rc<SettingsSet>,
    /// Settings as they are outside the running transaction.
    settings: Rc<SettingsSet>,
    log: Log,
    /// Effects of statements that are sent and not finished.
    effects: VecDeque<Effects>,
    /// An error came in the running unit.
    failed: bool,
    holds: Holds,
    /// Who else holds backends, and this session's seat among them.
    holders: Option<Arc<Holders>>,
    seat: Option<holders::Seat>,
    turn: turns::Turn,
    kept: keep::Kept,
    channels: channels::Channels,
    /// The shards that take part in the transaction or the unit.
    members: members::Members,
    /// The router's own settings.
    own: own::Own,
    /// The client has shown a token, or taken it back, and the shell does not
    /// know yet.
    after: Option<Barrier>,
    /// Whether the client may say where statements run.
    placement: Placement,
    /// What the next feed needs to know of the unit that it begins.
    pending: place::Pending,
    /// The unit runs beside the transaction that has no shard yet.
    outside: bool,
    /// A statement on its way through all shards.
    everywhere: Option<place::Everywhere>,
    /// A read over several shards: its backends are collected, or it runs.
    scatter: Option<Box<scatter::ScatterRead>>,
    /// A portal of such a read, described and not executed yet.
    described: Option<Box<[u8]>>,
    /// What a READ ONLY transaction on a replica sees.
    snapshot: read_only::Snapshot,
    /// Transactions are SERIALIZABLE unless they say otherwise: no replica has
    /// that.
    serializable: bool,
    /// Shards whose transactions last as long as the client's.
    joined: Vec<ShardId>,
    /// The isolation of the transaction that has a shard.
    level: joining::Level,
    /// It has settings of its own, or may have.
    sets_in_transaction: bool,
    /// The map of the running transaction.
    tx_map: Option<(Arc<Map>, u64)>,
    /// What it has open on keys that move.
    moving: Option<Box<moving::OnMoves>>,
    /// Where a name without a schema is looked up.
    search_path: SearchPath,
    /// Who says so.
    path_of: PathOf,
    /// A path of the client's own that names `"$user"`.
    user_path: Option<Box<str>>,
    /// The role that SET ROLE has made the current one.
    role: Option<Box<str>>,
    /// It is the running transaction's, not the settings'.
    path_moved: bool,
    user: Box<str>,
    /// Settings hide some of the client's statements from the router (not
    /// UTF-8, or old string syntax); only an unsharded database serves them.
    hidden: Hidden,
    /// The batch's last Execute is of a COPY FROM STDIN.
    copy_pending: bool,
    /// A unit has begun on the held backend and not ended.
    unit_open: bool,
    /// Connections that broke before the unit at hand began on them.
    losses: u8,
    /// The running unit may commit the transaction.
    commit_sent: bool,
    /// The batch has bound a statement that a failed transaction accepts.
    healed_in_batch: bool,
    /// The batch has bound a portal.
    bound_in_batch: bool,
    /// The running unit has sent an unnamed Parse.
    unnamed_sent: bool,
    /// What names meant before the running batch changed them, in order.
    renamed: Vec<Renamed>,
    /// Settings that the server reported in the running unit, where no text
    /// said so.
    reported: Effects,
    /// The prepared statement that the running EXECUTE names.
    executed: Option<StatementId>,
    /// The running transaction has changed the schema.
    schema_changed: bool,
    /// What reads that bring rows together may hold.
    memory: Rc<Memory>,
    /// Statements so far.
    statements_seen: u64,
    /// What was refused and not counted yet.
    refusals: Vec<SqlState>,
}

impl Session {
    /// This session with the thread's share of memory for rows that reads
    /// bring together.
    #[must_use]
    pub fn with_memory(self, memory: Rc<Memory>) -> Self {
        Self { memory, ..self }
    }

    /// The client may not say itself, by a comment or a setting, where its
    /// statements run.
    pub const fn forbid_placement(&mut self) {
        self.placement = Placement::Forbidden;
    }

    /// A session with the settings of its startup message.
    pub fn new(limits: Limits, user: &str, startup: Rc<SettingsSet>) -> Self {
        let mut session = Self {
            limits,
            phase: Phase::Idle,
            resume: Phase::Idle,
            tx: Tx::Backend,
            stream: Stream::default(),
            statements: Statements::default(),
            unnamed: Unnamed::default(),
            portals: HashMap::new(),
            cursors: cursors::Cursors::default(),
            settings: Rc::clone(&startup),
            startup,
            log: Log::default(),
            effects: VecDeque::new(),
            failed: false,
            holds: Holds::default(),
            holders: None,
            seat: None,
            turn: turns::Turn::Transaction,
            kept: keep::Kept::default(),
            channels: channels::Channels::default(),
            members: members::Members::default(),
            own: own::Own::default(),
            after: None,
            placement: Placement::Allowed,
            pending: place::Pending::default(),
            outside: false,
            everywhere: None,
            scatter: None,
            described: None,
            snapshot: read_only::Snapshot::default(),
            serializable: false,
            joined: Vec::new(),
            level: joining::Level::default(),
            sets_in_transaction: false,
            tx_map: None,
            moving: None,
            search_path: SearchPath::default(),
            path_of: PathOf::Catalog(0),
            user_path: None,
            role: None,
            path_moved: false,
            user: user.into(),
            hidden: Hidden::default(),
            copy_pending: false,
            unit_open: false,
            losses: 0,
            commit_sent: false,
            healed_in_batch: false,
            bound_in_batch: false,
            unnamed_sent: false,
            renamed: Vec::new(),
            reported: Effects::new(),
            executed: None,
            schema_changed: false,
            memory: Memory::new(0),
            statements_seen: 0,
            refusals: Vec::new(),
        };
        session.note_settings(&Rc::clone(&session.settings));
        session
    }

    /// What SET keyway.after has asked for since the last call.
    pub const fn take_barrier(&mut self) -> Option<Barrier> {
        self.after.take()
    }

    /// True if a unit is sent and the client must wait.
    pub const fn is_awaiting(&self) -> bool {
        match self.phase {
            Phase::Await | Phase::Settle | Phase::Own | Phase::Gather => true,
            Phase::Idle
            | Phase::Batch
            | Phase::Skip
            | Phase::SkipBound
            | Phase::CopySimple
            | Phase::CopyBatch => false,
        }
    }

    /// True while a query of the router's own runs, before the client's.
    pub const fn runs_own(&self) -> bool {
        matches!(self.phase, Phase::Own)
    }

    /// True between units: nothing of the client's is under way.
    pub const fn is_between_units(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.stream.left == 0
    }

    /// True if a message is being passed whose rest has not come.
    pub const fn is_mid_message(&self) -> bool {
        self.stream.left > 0 && !self.stream.discard
    }

    /// True if an extended batch has begun on the backend and its Sync has not
    /// been sent.
    pub const fn is_batch_open(&self) -> bool {
        match self.phase {
            Phase::Batch | Phase::SkipBound | Phase::CopyBatch | Phase::Settle => self.unit_open,
            // Some of its backends may have been asked and not bound.
            Phase::Gather => true,
            Phase::Idle | Phase::Skip | Phase::Own | Phase::Await | Phase::CopySimple => false,
        }
    }

    /// True if the client has begun a transaction, with a shard or without.
    pub fn in_transaction(&self, backend: Option<&Backend>) -> bool {
        matches!(self.tx, Tx::Lazy(_))
            || backend.is_some_and(|b| b.status() != crate::protocol::backend::TxStatus::Idle)
    }

    /// The shell holds a backend of this shard for the session from now on.
    pub fn join(&mut self, shard: ShardId) {
        self.members.join(shard);
    }

    /// The shell holds none of this shard any more.
    pub fn leave(&mut self, shard: ShardId) {
        self.members.leave(shard);
    }

    /// How many shards take part in what the session does.
    pub fn participants(&self) -> usize {
        self.members.len()
    }

    /// Why the session keeps its backend between transactions.
    pub const fn holds(&self) -> Holds {
        self.holds
    }

    /// The session keeps its backend for its whole life (pool in session mode).
    pub fn hold_for_life(&mut self) {
        self.holds.add(Holds::SESSION);
    }

    /// The session's settings outside its transaction.
    pub const fn settings(&self) -> &Rc<SettingsSet> {
        &self.settings
    }

    /// Statements (simple queries and executions) so far.
    pub const fn statements_seen(&self) -> u64 {
        self.statements_seen
    }

    /// Whether there are errors of the router's own that were not taken yet.
    #[inline]
    pub const fn has_refused(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// The same, taken.
    pub fn take_refusals(&mut self) -> impl Iterator<Item = SqlState> {
        self.refusals.drain(..)
    }

    /// Counts an ErrorResponse of the router's own.
    fn note_refusal(&mut self, frame: &[u8]) {
        let body = frame.get(HEADER_LEN..).unwrap_or_default();
        let code = ErrorFields::decode(body).ok().and_then(|fields| fields.code());
        self.refusals.extend(code);
    }

    /// The checkout that the last feed asked for has failed: the unit at the
    /// head of the input gets this error when it is fed again.
    pub fn refuse_checkout(&mut self, refused: Refused) {
        self.pending.refuse(refused);
    }
}
