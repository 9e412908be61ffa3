//! Reads over several shards, or on another one, inside a transaction that has
//! a shard: that shard shows what the transaction has written, the others join
//! with read-only transactions.
//!
//! In READ COMMITTED each statement sees what is committed when it begins, so
//! the others' transactions end with the statement. In the higher levels they
//! stay until the client's transaction ends, and with them what they see; a
//! savepoint keeps it through errors. An error of any of them fails the
//! client's transaction, as an error of a statement does.
//!
//! It does not carry settings that the transaction has made for itself.

use crate::backend::{Setting, SettingsSet};
use crate::protocol::backend::TxStatus;
use crate::sql::statement::{Facts, Isolation, Kind, SessionEffect, TxEffect};
use crate::types::{Access, ShardId};

use super::feed::Feed;
use super::lazy::Lazy;
use super::refusal::{NOT_SUPPORTED, Refused, in_failed_transaction};
use super::{Session, Step, Tx, Want};

/// The isolation of a transaction that has a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Level {
    #[default]
    ReadCommitted,
    RepeatableRead,
    Serializable,
    /// It can't be told, or what it saw elsewhere is gone.
    Unknown,
}

/// The client's transaction, as a read over shards meets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnTransaction {
    pub(super) shard: ShardId,
    /// As of when its backend owed nothing.
    pub(super) status: TxStatus,
    /// It is being failed with the read.
    pub(super) failing: bool,
    /// How transactions of other shards begin that stay; they end with the
    /// statement if `None`.
    pub(super) begins: Option<&'static [u8]>,
}

/// What a read that joins a transaction asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Rows, as the transaction sees them.
    Rows,
    /// What is in the schemas.
    Schemas,
}

/// How a shard takes part in a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// By a transaction of its own, for this read.
    Alone,
    /// By the client's transaction.
    Own,
    /// By a transaction that begins like this and stays.
    Joined(&'static [u8]),
}

impl Level {
    /// The level of a transaction that begins like this.
    fn of(lazy: &Lazy, settings: &SettingsSet, serializable: bool) -> Self {
        let Some(isolation) = lazy.isolation() else { return Self::Unknown };
        match isolation {
            Some(Isolation::ReadUncommitted | Isolation::ReadCommitted) => Self::ReadCommitted,
            Some(Isolation::RepeatableRead) => Self::RepeatableRead,
            Some(Isolation::Serializable) => Self::Serializable,
            None => match settings.find("default_transaction_isolation") {
                None if serializable => Self::Serializable,
                None => Self::ReadCommitted,
                Some(Setting::Flat(text) | Setting::Statement(text)) => Self::named(text),
            },
        }
    }

    /// The level that a setting's text names.
    fn named(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match ["read committed", "read uncommitted", "repeatable read", "serializable"]
            .map(|level| text.contains(level))
        {
            [true, _, false, false] | [_, true, false, false] => Self::ReadCommitted,
            [false, false, true, false] => Self::RepeatableRead,
            [false, false, false, true] => Self::Serializable,
            _ => Self::Unknown,
        }
    }

    const fn begins(self) -> Option<&'static [u8]> {
        match self {
            Self::ReadCommitted | Self::Unknown => None,
            Self::RepeatableRead => Some(JOIN_REPEATABLE_READ),
            Self::Serializable => Some(JOIN_SERIALIZABLE),
        }
    }
}

impl OwnTransaction {
    /// How `shard` takes part.
    pub(super) fn entry(own: Option<&Self>, shard: ShardId) -> Entry {
        match own {
            Some(own) if own.shard == shard => Entry::Own,
            Some(Self { begins: Some(begin), .. }) => Entry::Joined(begin),
            Some(_) | None => Entry::Alone,
        }
    }
}

impl Session {
    /// True if a backend that comes now takes part beside that of the client's
    /// transaction.
    pub fn joins_beside(&self) -> bool {
        self.scatter.as_ref().is_some_and(|read| read.own.is_some())
    }

    /// True while backends of a read are collected or asked.
    pub const fn is_scattering(&self) -> bool {
        self.scatter.is_some()
    }

    /// True if the client's transaction has no backend.
    pub const fn is_without_shard(&self) -> bool {
        matches!(self.tx, Tx::Lazy(_))
    }

    /// True if the shard's transaction lasts as long as the client's.
    pub fn keeps_joined(&self, shard: ShardId) -> bool {
        self.joined.contains(&shard)
    }

    /// The transaction has a shard from now on.
    pub(super) fn note_opened(&mut self, lazy: &Lazy) {
        self.level = Level::of(lazy, &self.settings, self.serializable);
        self.sets_in_transaction |= lazy.has_settings();
        self.joined.clear();
    }

    /// The transaction is over, or has not begun.
    pub(super) fn leave_joined(&mut self) {
        self.cursors.end_transaction();
        self.joined.clear();
        self.sets_in_transaction = false;
    }

    /// A statement of the transaction is about to be sent to its shard.
    pub(super) fn note_in_transaction(&mut self, facts: &Facts) {
        let sets = |effect: &SessionEffect| {
            matches!(
                effect,
                SessionEffect::Set { .. }
                    | SessionEffect::Reset { .. }
                    | SessionEffect::ResetAll
                    | SessionEffect::SetConfig { .. }
                    | SessionEffect::Dirty
            )
        };
        self.sets_in_transaction |=
            matches!(facts.kind, Kind::Call | Kind::Do) || facts.effect.each().iter().any(sets);
        if matches!(facts.tx, TxEffect::RollbackTo { .. }) {
            self.cursors.roll_back_to();
        }
        let closes =
            |effect: &SessionEffect| matches!(effect, SessionEffect::CloseCursor { name: None });
        if facts.effect.each().iter().any(closes) {
            self.cursors.close(None);
        }
        if matches!(facts.tx, TxEffect::SetTransaction { .. }) {
            self.level = Level::Unknown;
        }
    }
}

impl Feed<'_, '_> {
    /// Gives the transaction a shard if a read over `shards` needs it to have
    /// one: its snapshot, its savepoints or its settings are more than a BEGIN.
    pub(super) fn open_for_scatter(&mut self, shards: &[ShardId]) -> Option<Step> {
        let Tx::Lazy(lazy) = &self.s.tx else { return None };
        let default = self.s.settings.find("default_transaction_isolation").is_some();
        if lazy.is_failed() || lazy.is_plain() && !default {
            return None;
        }
        if self.env.backend.is_none() {
            let shard = shards.first().copied().unwrap_or_else(|| self.map().home());
            let mark = crate::cluster::Mark::Shard;
            let span = super::Span::Unit;
            let want = Want { shard, access: Access::Write, consistency: None, mark, span };
            self.s.pending.place();
            self.s.pending.spread();
            return Some(Step::Checkout(want));
        }
        self.fix_map();
        let step = self.prepare_backend();
        if step.is_some() {
            self.s.pending.place();
            self.s.pending.spread();
        }
        step
    }

    /// The client's transaction, if a read may join it now.
    ///
    /// # Errors
    /// It runs in a unit that has begun otherwise, or has what others can't
    /// have.
    pub(super) fn own_transaction(&self, of: Asked) -> Result<Option<OwnTransaction>, Refused> {
        let Some((backend, shard)) = &self.env.backend else { return Ok(None) };
        let (status, shard) = (backend.status(), *shard);
        if status == TxStatus::Failed {
            return Err(in_failed_transaction());
        }
        let beside = |construct: &str, hint: &str| {
            Err(Refused::new(
                NOT_SUPPORTED,
                format!("a read of other shards {construct} is not supported"),
            )
            .hint(hint))
        };
        let rows = of == Asked::Rows;
        if rows && self.is_on_replica() {
            return beside(
                "in a READ ONLY transaction that runs on a replica",
                "begin it without READ ONLY, or SET keyway.consistency = 'primary'",
            );
        }
        if status == TxStatus::Idle {
            return beside(
                "after another statement of its batch",
                "send it in a batch of its own, or begin a transaction",
            );
        }
        // Of its settings, only those that names depend on can matter to schemas.
        if if rows { self.s.sets_in_transaction } else { self.s.path_moved } {
            return beside(
                "in a transaction that has settings of its own",
                "set them for the session before BEGIN, or fix the sharding key",
            );
        }
        if rows && self.s.level == Level::Unknown {
            return beside(
                "in a transaction whose isolation can't be told, or whose view of another shard is lost",
                "name the isolation level in BEGIN, or begin a new transaction",
            );
        }
        let begins = if rows { self.s.level.begins() } else { None };
        Ok(Some(OwnTransaction { shard, status, failing: false, begins }))
    }

    /// The backends that the session keeps don't join its transaction on `own`:
    /// what undoes a join would take with it what they are kept for.
    ///
    /// # Errors
    /// One of `shards` has such a backend.
    pub(super) fn spare_kept(&self, own: ShardId, shards: &[ShardId]) -> Result<(), Refused> {
        if !shards.iter().any(|shard| *shard != own && self.s.keeps(*shard)) {
            return Ok(());
        }
        Err(Refused::new(
            NOT_SUPPORTED,
            "a read, within a transaction, of another shard on which the session keeps a connection is not supported",
        )
        .hint("read it before BEGIN, or begin the transaction on that shard"))
    }
}

const JOIN_REPEATABLE_READ: &[u8] =
    b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SAVEPOINT keyway";
const JOIN_SERIALIZABLE: &[u8] = b"BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SAVEPOINT keyway";
/// Undoes an error, and keeps what is seen.
pub(super) const BACK_TO_JOIN: &[u8] = b"ROLLBACK TO SAVEPOINT keyway";
