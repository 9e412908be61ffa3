//! READ ONLY transactions on one replica.
//!
//! The first statement decides: if the transaction is known to be READ ONLY and
//! the statement may open one there, a replica may serve all of it. It must
//! have everything that was acknowledged to the shard, as nobody knows what
//! comes next. Under REPEATABLE READ that is all there is to it: the snapshot
//! stays. Under READ COMMITTED each later statement sees what was acknowledged
//! before it, so the shell is asked to wait until the replica has that
//! ([`Step::Fresh`]). What does not run on a replica is refused there: half of a
//! transaction on another server would not be one.
//!
//! A standby refuses SERIALIZABLE, so such a transaction stays on the primary.
//!
//! Source: PostgreSQL manual, "SET TRANSACTION", "Hot Standby"; LAG.md, A4, A15.

use std::rc::Rc;

use crate::backend::{Setting, SettingsSet};
use crate::cluster::Mark;
use crate::protocol::frontend::Bind;
use crate::route::{InReadOnly, Template};
use crate::sql::statement::{Facts, Isolation, Kind, SessionEffect, TxEffect, TxModes};
use crate::types::{Access, Consistency};

use super::effects::{Demands, demands};
use super::feed::Feed;
use super::lookahead::Ahead;
use super::place::Place;
use super::refusal::{NOT_SUPPORTED, Refused};
use super::{Span, Step, Tx, Want};

/// Whether a transaction's statements see one state or each its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Snapshot {
    /// Of the first statement.
    Fixed,
    #[default]
    OfEachStatement,
}

impl Feed<'_, '_> {
    /// True if a transaction begins at the router, and has a backend with its
    /// first statement: there may be more than one to choose from.
    pub(super) fn begins_later(&self) -> bool {
        let map = self.map();
        map.is_sharded() || map.shard(map.home()).is_some_and(|home| !home.replicas.is_empty())
    }

    /// True if the router keeps what is SET in a transaction that has no shard.
    pub(super) fn keeps_settings(&self) -> bool {
        self.map().is_sharded() || self.opening().is_some_and(|modes| self.is_read_only(modes))
    }

    /// True if the backend that comes now goes back with the transaction: what is
    /// kept beyond it must be a primary's.
    pub(super) const fn lets_go(&self) -> bool {
        self.s.holds.is_empty() || self.s.kept.is_sharded()
    }

    /// The modes of the transaction that the statement at hand opens, as far as
    /// its own words tell them.
    fn opening(&self) -> Option<TxModes> {
        match &self.s.tx {
            Tx::Lazy(lazy) => lazy.modes(),
            Tx::Backend => self.s.pending.begins(),
        }
    }

    /// True if a replica may serve the transaction that begins with this.
    pub(super) fn opens_on_replica(&mut self, template: &Template) -> bool {
        if template.in_read_only() != InReadOnly::Opens || !self.lets_go() {
            return false;
        }
        let Some(modes) = self.opening() else { return false };
        if !self.is_read_only(modes) {
            return false;
        }
        self.s.snapshot = match modes.isolation {
            Some(Isolation::RepeatableRead) => Snapshot::Fixed,
            _ => Snapshot::OfEachStatement,
        };
        true
    }

    /// True if a transaction with these modes is READ ONLY and no standby refuses
    /// its isolation.
    fn is_read_only(&self, modes: TxModes) -> bool {
        let role = self.role();
        let read_only = match (modes.read_only, self.s.settings.find(READ_ONLY)) {
            (Some(told), _) => told,
            (None, Some(setting)) => says_read_only(setting),
            (None, None) => self.env.catalog.begins_read_only(role),
        };
        let serializable = match (modes.isolation, self.s.settings.find(ISOLATION)) {
            (Some(told), _) => told == Isolation::Serializable,
            (None, Some(_)) => self.s.serializable,
            (None, None) => self.env.catalog.begins_serializable(role),
        };
        read_only && !serializable
    }

    /// The role that the home shard's backends log in as.
    pub(super) fn role(&self) -> &str {
        let map = self.map();
        let login = map.shard(map.home()).and_then(|shard| shard.credentials.user.as_deref());
        login.unwrap_or(&self.s.user)
    }

    /// True if the transaction at hand runs on a replica.
    pub(super) fn is_on_replica(&self) -> bool {
        self.env.backend.as_ref().is_some_and(|(backend, _)| backend.is_replica())
            && self.in_backend_transaction()
    }

    /// Where a statement of a transaction that runs on a replica runs: there, or
    /// nowhere.
    pub(super) fn place_on_replica(&mut self, template: &Template, want: Want) -> Place {
        if let Some(refused) = self.refuse_on_replica(template) {
            return Place::Refuse(refused);
        }
        if template.statements().iter().any(|facts| restarts(&facts.tx)) {
            // What comes after it sees another state.
            self.s.snapshot = Snapshot::OfEachStatement;
        }
        let sees_anew =
            self.s.snapshot == Snapshot::OfEachStatement && template.statements().iter().any(reads);
        if sees_anew && !self.s.pending.is_fresh() {
            return Place::Fresh(want);
        }
        Place::Here
    }

    /// Checks what a batch binds on a replica.
    pub(super) fn check_on_replica(&mut self, template: &Template) -> Result<(), Refused> {
        let begins = |facts: &Facts| matches!(facts.tx, TxEffect::Begin(_));
        if template.statements().iter().any(begins)
            && let Some(backend) = self.backend()
        {
            backend.second_try().forbid();
        }
        if !self.is_on_replica() {
            return Ok(());
        }
        if self.s.pending.is_ended() {
            return Err(on_replica("a batch that goes on behind the end of the transaction"));
        }
        for facts in template.statements() {
            match facts.tx {
                TxEffect::Commit { chain } | TxEffect::Rollback { chain } => {
                    self.s.pending.note_ended();
                    if chain {
                        self.s.snapshot = Snapshot::OfEachStatement;
                    }
                }
                _ => {}
            }
        }
        self.refuse_on_replica(template).map_or(Ok(()), Err)
    }

    /// Before a batch begins in a transaction on a replica: waits until that has
    /// what the batch must see. `Some`: that comes first.
    #[inline]
    pub(super) fn freshen_batch(&mut self) -> Option<Step> {
        // Most batches begin without a backend.
        if self.env.backend.is_some() { self.freshen_held() } else { None }
    }

    fn freshen_held(&mut self) -> Option<Step> {
        let (_, shard) = self.env.backend.as_ref()?;
        let shard = *shard;
        if !self.is_on_replica()
            || self.s.snapshot == Snapshot::Fixed
            || self.s.pending.is_fresh()
            || self.s.pending.is_placed()
        {
            return None;
        }
        let ahead = self.look_ahead();
        let binds = self.binds();
        match (ahead, binds) {
            (Ahead::More, _) => self.wait_for_more(),
            (Ahead::Fresh(want), Some(1)) => Some(self.await_fresh(want, None)),
            // Nothing that is executed sees anew.
            (_, Some(0 | 1)) => None,
            _ => {
                let (access, mark, span) = (Access::Read, Mark::Shard, Span::Unit);
                let consistency = self.s.own.consistency();
                Some(self.await_fresh(Want { shard, access, consistency, mark, span }, None))
            }
        }
    }

    /// Why a statement can't run in a transaction that runs on a replica.
    pub(super) fn refuse_on_replica(&self, template: &Template) -> Option<Refused> {
        let level = template.level(self.s.own.consistency());
        let reads = template.statements().iter().any(reads);
        let what = match template.in_read_only() {
            InReadOnly::Primary => "this statement",
            InReadOnly::Opens | InReadOnly::GoesOn
                if reads && level == Some(Consistency::Primary) =>
            {
                "a read at level primary"
            }
            InReadOnly::Opens | InReadOnly::GoesOn => return None,
        };
        Some(on_replica(what))
    }

    /// What a statement does to the session, where the session is.
    pub(super) fn demands_here(
        &self,
        facts: &Facts,
        text: &[u8],
        bind: Option<&Bind<'_>>,
    ) -> Result<Demands, Refused> {
        let demands = demands(facts, text, bind, self.situation())?;
        // What comes after the transaction needs a primary.
        if !demands.holds.is_empty() && self.is_on_replica() {
            return Err(on_replica("what keeps its connection beyond the transaction"));
        }
        Ok(demands)
    }

    /// Asks the shell to wait until the transaction's replica has what the
    /// statement must see; the message stays for the next feed.
    pub(super) fn await_fresh(&mut self, want: Want, template: Option<Rc<Template>>) -> Step {
        if let Some(template) = template {
            self.s.pending.keep(template);
        }
        self.s.pending.note_fresh();
        Step::Fresh(want)
    }

    /// Notes what a statement that is kept says of its transaction's modes.
    pub(super) fn note_kept_modes(&mut self, facts: &Facts) {
        let Tx::Lazy(lazy) = &mut self.s.tx else { return };
        match &facts.tx {
            TxEffect::SetTransaction { modes, .. } => lazy.note_modes(*modes),
            _ if facts.effect.each().iter().any(sets_modes) => lazy.note_unknown_modes(),
            _ => {}
        }
    }
}

/// Whether transactions are SERIALIZABLE under these settings, if they don't say
/// otherwise.
pub(super) fn is_serializable(settings: &SettingsSet) -> bool {
    settings.find(ISOLATION).is_some_and(|setting| words(setting).contains("serializable"))
}

/// A read of a READ ONLY transaction that its replica can't serve.
pub(super) fn on_replica(what: &str) -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        format!("{what} can't run in a read-only transaction that runs on a replica"),
    )
    .hint(
        "SET keyway.consistency = 'primary' before the transaction, or begin it without READ ONLY; \
         a function that only reads should be marked STABLE",
    )
}

/// True for statements whose rows depend on the moment.
fn reads(facts: &Facts) -> bool {
    match facts.kind {
        Kind::Select | Kind::CopyOut | Kind::Explain | Kind::Declare | Kind::Execute => true,
        Kind::Insert
        | Kind::Update
        | Kind::Delete
        | Kind::Merge
        | Kind::CopyIn
        | Kind::ExplainRoute
        | Kind::Show
        | Kind::Set
        | Kind::Reset
        | Kind::Discard
        | Kind::Transaction
        | Kind::Prepare
        | Kind::Deallocate
        | Kind::Cursor
        | Kind::Listen
        | Kind::Notify
        | Kind::Lock
        | Kind::Truncate
        | Kind::Ddl
        | Kind::Maintenance
        | Kind::Call
        | Kind::Do
        | Kind::Empty
        | Kind::Unknown => false,
    }
}

/// True for the end of a transaction that another follows at once.
const fn restarts(tx: &TxEffect) -> bool {
    matches!(tx, TxEffect::Commit { chain: true } | TxEffect::Rollback { chain: true })
}

/// True for what sets a mode of the running transaction other than by SET
/// TRANSACTION.
fn sets_modes(effect: &SessionEffect) -> bool {
    let mode = |name: &str| name.starts_with("transaction_");
    match effect {
        SessionEffect::Set { name, .. } | SessionEffect::Reset { name } => mode(name),
        SessionEffect::ResetAll => true,
        _ => false,
    }
}

/// The words of a setting's value, or of the statement that sets it.
fn words(setting: &Setting) -> String {
    match setting {
        Setting::Flat(text) | Setting::Statement(text) => text.to_ascii_lowercase(),
    }
}

/// Whether the value of `default_transaction_read_only` is on, as far as its
/// words are plain.
fn says_read_only(setting: &Setting) -> bool {
    let words = words(setting);
    if words.contains("characteristics") {
        return words.rfind("only") > words.rfind("write");
    }
    let value = match setting {
        Setting::Flat(_) => Some(&*words),
        Setting::Statement(_) => words.split_once("read_only").map(|(_, value)| value),
    };
    let value = value.unwrap_or_default();
    let value = value.trim_matches([' ', '=', '\'', '"', ';']);
    let value = value.strip_prefix("to ").unwrap_or(value).trim_matches([' ', '\'', '"']);
    ["on", "true", "yes", "1", "t", "y"].contains(&value)
}

const READ_ONLY: &str = "default_transaction_read_only";
const ISOLATION: &str = "default_transaction_isolation";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_setting_tell_whether_transactions_are_read_only() {
        let statement = |text: &str| says_read_only(&Setting::Statement(text.into()));
        for text in [
            "SET default_transaction_read_only = on",
            "set default_transaction_read_only to 'true';",
            "SET SESSION default_transaction_read_only TO ON",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "set session characteristics as transaction isolation level repeatable read, read only",
        ] {
            assert!(statement(text), "{text}");
        }
        for text in [
            "SET default_transaction_read_only = off",
            "SET default_transaction_read_only TO DEFAULT",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            "SET default_transaction_read_only = on /* not so plain */",
        ] {
            assert!(!statement(text), "{text}");
        }
        assert!(says_read_only(&Setting::Flat("on".into())));
        assert!(!says_read_only(&Setting::Flat("0".into())));
    }
}
