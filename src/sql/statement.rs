//! What one statement is and does, in words that need no parser: its kind,
//! whether it writes, and its effect on the transaction and on the session.
//!
//! It does not know tables, keys or shards. Effects are what a session must
//! notice to carry its state from one backend to the next.

use std::ops::Range;

use crate::types::Access;

/// A range of bytes of the statement's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The same range as indexes.
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes of `text` it names; empty if `text` is shorter.
    pub fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.range()).unwrap_or_default()
    }
}

/// What one statement of a text is and does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The kind of statement.
    pub kind: Kind,
    /// Its bytes in the text, without the semicolon and the blanks around it.
    pub span: Span,
    /// Whether it may write.
    pub access: Access,
    /// What it does to the transaction.
    pub tx: TxEffect,
    /// What it does to the session's state.
    pub effect: SessionEffect,
}

impl Facts {
    /// Whether it neither steers the transaction nor changes the session.
    pub const fn is_plain(&self) -> bool {
        matches!(self.tx, TxEffect::None) && matches!(self.effect, SessionEffect::None)
    }
}

/// Kinds of statements, as far as routes, logs and counters tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the statement's own first word")]
pub enum Kind {
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    CopyIn,
    CopyOut,
    Explain,
    ExplainRoute,
    Show,
    Set,
    Reset,
    Discard,
    Transaction,
    Prepare,
    Execute,
    Deallocate,
    Declare,
    /// FETCH, MOVE and CLOSE.
    Cursor,
    Listen,
    Notify,
    Lock,
    Truncate,
    /// CREATE, ALTER, DROP, GRANT, COMMENT and their like.
    Ddl,
    /// VACUUM, ANALYZE, REINDEX, CLUSTER, REFRESH, CHECKPOINT.
    Maintenance,
    Call,
    Do,
    /// A text without any statement.
    Empty,
    /// Nothing the classifier knows.
    Unknown,
}

impl Kind {
    /// The kind as a lower-case word, for labels and messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Merge => "merge",
            Self::CopyIn => "copy_in",
            Self::CopyOut => "copy_out",
            Self::Explain => "explain",
            Self::ExplainRoute => "explain_route",
            Self::Show => "show",
            Self::Set => "set",
            Self::Reset => "reset",
            Self::Discard => "discard",
            Self::Transaction => "transaction",
            Self::Prepare => "prepare",
            Self::Execute => "execute",
            Self::Deallocate => "deallocate",
            Self::Declare => "declare",
            Self::Cursor => "cursor",
            Self::Listen => "listen",
            Self::Notify => "notify",
            Self::Lock => "lock",
            Self::Truncate => "truncate",
            Self::Ddl => "ddl",
            Self::Maintenance => "maintenance",
            Self::Call => "call",
            Self::Do => "do",
            Self::Empty => "empty",
            Self::Unknown => "unknown",
        }
    }
}

/// Isolation levels as written; `ReadUncommitted` behaves as read committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the words of the manual")]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// Modes that BEGIN and SET TRANSACTION may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TxModes {
    /// ISOLATION LEVEL, if named.
    pub isolation: Option<Isolation>,
    /// READ ONLY is `Some(true)`, READ WRITE `Some(false)`.
    pub read_only: Option<bool>,
    /// DEFERRABLE is `Some(true)`, NOT DEFERRABLE `Some(false)`.
    pub deferrable: Option<bool>,
}

/// What a statement does to the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxEffect {
    /// Nothing.
    None,
    /// BEGIN or START TRANSACTION.
    Begin(TxModes),
    /// COMMIT or END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK or ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint {
        /// Its name, folded.
        name: Box<str>,
    },
    /// RELEASE SAVEPOINT.
    Release {
        /// Its name, folded.
        name: Box<str>,
    },
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo {
        /// Its name, folded.
        name: Box<str>,
    },
    /// SET TRANSACTION.
    SetTransaction {
        /// The modes named.
        modes: TxModes,
        /// SET TRANSACTION SNAPSHOT: the transaction depends on one shard.
        snapshot: bool,
    },
    /// SET CONSTRAINTS: deferral for the rest of the transaction.
    SetConstraints,
    /// PREPARE TRANSACTION.
    PrepareTransaction,
    /// COMMIT PREPARED.
    CommitPrepared,
    /// ROLLBACK PREPARED.
    RollbackPrepared,
}

/// A value that a statement hands to the session's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A constant, decoded; `true` and `false` as those words.
    Text(Box<str>),
    /// The parameter with this zero-based index.
    Param(u16),
    /// NULL.
    Null,
    /// Something only the server can compute.
    Opaque,
}

/// What a statement does to the session's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEffect {
    /// Nothing.
    None,
    /// SET in all its forms; SET ROLE is `role`, SET TIME ZONE `timezone`,
    /// SET NAMES `client_encoding`, SET SESSION AUTHORIZATION
    /// `session_authorization`, SET SCHEMA `search_path`.
    Set {
        /// The setting's name in lower case.
        name: Box<str>,
        /// The value as `SHOW` would list it, as far as the text tells; `None`
        /// for DEFAULT.
        value: Option<Box<str>>,
        /// SET LOCAL: until the transaction ends.
        local: bool,
        /// The whole statement, to be replayed as it stands.
        span: Span,
    },
    /// RESET of one setting.
    Reset {
        /// The setting's name in lower case.
        name: Box<str>,
    },
    /// RESET ALL.
    ResetAll,
    /// `set_config(name, value, is_local)`.
    SetConfig {
        /// The first argument.
        name: Argument,
        /// The second.
        value: Argument,
        /// The third.
        is_local: Argument,
    },
    /// DISCARD ALL.
    DiscardAll,
    /// DISCARD PLANS.
    DiscardPlans,
    /// DISCARD SEQUENCES.
    DiscardSequences,
    /// DISCARD TEMP.
    DiscardTemp,
    /// PREPARE.
    Prepare {
        /// The statement's name, folded.
        name: Box<str>,
        /// The name as it stands in the text, quotes included.
        name_span: Span,
        /// The parenthesised list of types, if there is one.
        types: Option<Span>,
        /// The statement after AS.
        statement: Span,
    },
    /// EXECUTE.
    Execute {
        /// The statement's name, folded.
        name: Box<str>,
        /// The name as it stands in the text, quotes included.
        name_span: Span,
        /// The arguments.
        arguments: Box<[Argument]>,
    },
    /// DEALLOCATE of one statement.
    Deallocate {
        /// The statement's name, folded.
        name: Box<str>,
        /// The name as it stands in the text, quotes included.
        name_span: Span,
    },
    /// DEALLOCATE ALL.
    DeallocateAll,
    /// LISTEN.
    Listen {
        /// The channel, folded.
        channel: Box<str>,
    },
    /// UNLISTEN; `None` is `*`.
    Unlisten {
        /// The channel, folded.
        channel: Option<Box<str>>,
    },
    /// A temporary table, sequence or view comes into being.
    TempTable,
    /// DECLARE … WITH HOLD.
    HoldCursor {
        /// The cursor's name, folded.
        name: Box<str>,
    },
    /// CLOSE; `None` is ALL.
    CloseCursor {
        /// The cursor's name, folded.
        name: Option<Box<str>>,
    },
    /// An advisory lock that outlives the transaction is taken.
    SessionAdvisoryLock,
    /// An advisory lock is given back; whether any is left, only
    /// `pg_advisory_unlock_all` tells.
    AdvisoryUnlock {
        /// Every lock of the session.
        all: bool,
    },
    /// `currval` or `lastval`: reads the session's own sequence values.
    CurrVal,
    /// May have changed state that can't be known: DO, CALL, LOAD, a function
    /// that is not built in, a statement that was not understood.
    Dirty,
    /// More than one of the above, in the order of the text.
    Several(Box<[SessionEffect]>),
}

impl SessionEffect {
    /// One effect out of many; never nests.
    pub fn of(effects: Vec<Self>) -> Self {
        let mut flat = Vec::with_capacity(effects.len());
        for effect in effects {
            match effect {
                Self::None => {}
                Self::Several(inner) => flat.extend(inner),
                single if flat.contains(&single) => {}
                single => flat.push(single),
            }
        }
        match flat.len() {
            0 => Self::None,
            1 => flat.remove(0),
            _ => Self::Several(flat.into_boxed_slice()),
        }
    }

    /// Each single effect, in order; nothing for `None`.
    pub fn each(&self) -> &[Self] {
        match self {
            Self::None => &[],
            Self::Several(effects) => effects,
            single => std::slice::from_ref(single),
        }
    }
}
