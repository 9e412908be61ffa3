//! What statements do to the session's state, once they have succeeded.
//!
//! A statement's effect is known when it is sent, holds when it completes, and
//! lasts when its transaction commits: [`Log`] keeps what the running
//! transaction has done, with its savepoints.

use std::rc::Rc;

use crate::protocol::frontend::Bind;
use crate::route::Template;
use crate::sql::statement::{Argument, Facts, Kind, SessionEffect, TxEffect};
use crate::types::Format;

use super::Holds;
use super::refusal::{NOT_SUPPORTED, Refused};
use super::restore::Discard;
use super::statements::Prepared;
use super::turns::{Turn, refuse_hold};
use crate::backend::{Setting, SettingsSet};

/// One change of the session's state.
#[derive(Clone)]
pub(super) enum Effect {
    /// A setting is set.
    Set(Box<str>, Setting),
    /// A setting goes back to its value at startup, also on the backend.
    Restore(Box<str>),
    /// All settings do.
    RestoreAll,
    /// A setting goes back to its value at startup for the session, and to the
    /// server's default on the backend.
    Reset(Box<str>),
    /// A setting of the router's own is set or reset.
    Own(super::own::Change),
    /// Names are looked up in other schemas up to the transaction's end, by the
    /// startup's path if `None`.
    Path(Option<Box<str>>),
    /// The current role is another up to the transaction's end, the session's
    /// own if `None`.
    Role(Option<Box<str>>),
    /// SAVEPOINT.
    Savepoint(Box<str>),
    /// RELEASE.
    Release(Box<str>),
    /// ROLLBACK TO.
    RollbackTo(Box<str>),
    /// PREPARE: the name exists from now on.
    Prepare(Box<[u8]>, Rc<Prepared>),
    /// LISTEN.
    Listen(Box<str>),
    /// UNLISTEN; `None` is `*`.
    Unlisten(Option<Box<str>>),
    /// DISCARD ALL by the server itself.
    Discarded,
    /// DISCARD ALL by the router's statement: the settings are those of the
    /// startup, and the rest of the backend is as [`Discard`] says.
    DiscardedTo(Discard),
    /// DEALLOCATE ALL on the backend.
    Deallocated,
    /// Tables or types may have another shape: statements that were prepared
    /// before are not shared with those prepared after.
    SchemaChanged,
}

impl Effect {
    /// Whether names may be looked up in other schemas from then on.
    pub(super) fn moves_path(&self) -> bool {
        match self {
            Self::Set(name, _) | Self::Restore(name) | Self::Reset(name) => {
                **name == *SEARCH_PATH || is_role(name)
            }
            Self::Path(_)
            | Self::Role(_)
            | Self::RestoreAll
            | Self::Discarded
            | Self::DiscardedTo(_) => true,
            Self::Own(_)
            | Self::Savepoint(_)
            | Self::Release(_)
            | Self::RollbackTo(_)
            | Self::Prepare(..)
            | Self::Listen(_)
            | Self::Unlisten(_)
            | Self::Deallocated
            | Self::SchemaChanged => false,
        }
    }
}

/// The changes that one statement makes.
pub(super) type Effects = Vec<Effect>;

/// What a portal's execution does besides rows.
#[derive(Clone, Default)]
pub(super) struct PortalEffects {
    pub(super) effects: Effects,
    pub(super) copy_in: bool,
    /// The command tag that the client reads instead of the server's.
    pub(super) spoken: Option<&'static str>,
    /// The router answers it; this is its text.
    pub(super) local: Option<Rc<super::answer::LocalStatement>>,
    /// Its rows are on several shards.
    pub(super) scatter: Option<Rc<super::scatter::ScatterPortal>>,
}

/// What a statement asks of the session before it is sent.
#[derive(Default)]
pub(super) struct Demands {
    pub(super) effects: Effects,
    pub(super) holds: Holds,
    pub(super) dirty: bool,
    pub(super) copy_in: bool,
    /// The command tag that the client reads instead of the server's.
    pub(super) spoken: Option<&'static str>,
}

/// Where the statement runs, as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct Situation {
    pub(super) sharded: bool,
    pub(super) in_transaction: bool,
    pub(super) held: bool,
    pub(super) turn: Turn,
    /// There are temporary tables on shards.
    pub(super) temporary: bool,
}

/// Works out what one statement does to the session.
///
/// # Errors
/// An effect that can't be carried from backend to backend here.
pub(super) fn demands(
    facts: &Facts,
    text: &[u8],
    bind: Option<&Bind<'_>>,
    situation: Situation,
) -> Result<Demands, Refused> {
    let mut out = Demands { copy_in: facts.kind == Kind::CopyIn, ..Demands::default() };
    match &facts.tx {
        TxEffect::Savepoint { name } => out.effects.push(Effect::Savepoint(name.clone())),
        TxEffect::Release { name } => out.effects.push(Effect::Release(name.clone())),
        TxEffect::RollbackTo { name } => out.effects.push(Effect::RollbackTo(name.clone())),
        TxEffect::PrepareTransaction | TxEffect::CommitPrepared | TxEffect::RollbackPrepared
            if situation.sharded =>
        {
            return Err(Refused::new(
                NOT_SUPPORTED,
                "two-phase commit by the client is not supported on a sharded database",
            )
            .hint("commit the transaction with COMMIT"));
        }
        TxEffect::None
        | TxEffect::Begin(_)
        | TxEffect::Commit { .. }
        | TxEffect::Rollback { .. }
        | TxEffect::SetTransaction { .. }
        | TxEffect::SetConstraints
        | TxEffect::PrepareTransaction
        | TxEffect::CommitPrepared
        | TxEffect::RollbackPrepared => {}
    }
    if facts.kind == Kind::Ddl && !facts.effect.each().contains(&SessionEffect::TempTable) {
        out.effects.push(Effect::SchemaChanged);
    }
    for effect in facts.effect.each() {
        add_demand(effect, text, bind, situation, &mut out)?;
    }
    Ok(out)
}

fn add_demand(
    effect: &SessionEffect,
    text: &[u8],
    bind: Option<&Bind<'_>>,
    situation: Situation,
    out: &mut Demands,
) -> Result<(), Refused> {
    match effect {
        SessionEffect::Set { name, value, local, span } => {
            check_setting(name, value.as_deref(), situation)?;
            hold_temp_path(name, value.as_deref(), situation, out)?;
            out.effects.extend(of_names(name, value.clone()));
            if !local && value.is_none() {
                out.effects.push(Effect::Restore(name.clone()));
            } else if !local {
                match std::str::from_utf8(span.of(text)) {
                    Ok(statement) => out
                        .effects
                        .push(Effect::Set(name.clone(), Setting::Statement(statement.into()))),
                    Err(_) => out.holds.add(Holds::UNTRACKED),
                }
            }
        }
        SessionEffect::Reset { name } => out.effects.push(Effect::Restore(name.clone())),
        SessionEffect::ResetAll => out.effects.push(Effect::RestoreAll),
        SessionEffect::SetConfig { name, value, is_local } => {
            let [name, value, is_local] = [name, value, is_local].map(|a| resolve(a, bind));
            add_set_config(name, value, is_local, situation, out)?;
        }
        SessionEffect::Listen { channel } => {
            // Alone it is the router's to answer; among other statements the
            // backend listens, and is held.
            hold(Holds::LISTEN, "LISTEN among other statements", situation, out)?;
            out.effects.push(Effect::Unlisten(Some(channel.clone())));
        }
        SessionEffect::Unlisten { channel } => {
            out.effects.push(Effect::Unlisten(channel.clone()));
        }
        SessionEffect::TempTable => hold(Holds::TEMP, "a temporary table", situation, out)?,
        SessionEffect::HoldCursor { .. } => {
            hold(Holds::CURSOR, "a cursor WITH HOLD", situation, out)?;
        }
        SessionEffect::SessionAdvisoryLock => {
            hold(Holds::ADVISORY, "a session-level advisory lock", situation, out)?;
        }
        SessionEffect::DiscardTemp if situation.sharded && situation.temporary => {
            return Err(discard_temp());
        }
        SessionEffect::CurrVal if !situation.in_transaction && !situation.held => {
            return Err(currval());
        }
        SessionEffect::DiscardAll => out.effects.push(Effect::Discarded),
        SessionEffect::Prepare { .. }
        | SessionEffect::Execute { .. }
        | SessionEffect::Deallocate { .. }
        | SessionEffect::DeallocateAll => {
            // Alone in their text they never come here: among others their
            // names can't be kept apart from other clients' on the backend.
            hold(
                Holds::UNTRACKED,
                "PREPARE, EXECUTE or DEALLOCATE among other statements",
                situation,
                out,
            )?;
            if matches!(effect, SessionEffect::DeallocateAll) {
                out.effects.push(Effect::Deallocated);
            }
            out.dirty = true;
        }
        SessionEffect::Dirty => out.dirty = true,
        SessionEffect::None
        | SessionEffect::CurrVal
        | SessionEffect::CloseCursor { .. }
        | SessionEffect::AdvisoryUnlock { .. }
        | SessionEffect::DiscardPlans
        | SessionEffect::DiscardSequences
        | SessionEffect::DiscardTemp
        | SessionEffect::Several(_) => {}
    }
    Ok(())
}

fn discard_temp() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "DISCARD TEMP of temporary tables that are on shards is not supported",
    )
    .hint("DROP TABLE, or DISCARD ALL")
}

fn currval() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "currval and lastval outside a transaction would read another session's value",
    )
    .hint("use INSERT … RETURNING, or call them in the transaction that called nextval")
}

fn hold(reason: Holds, what: &str, situation: Situation, out: &mut Demands) -> Result<(), Refused> {
    if situation.turn == Turn::Statement {
        return Err(refuse_hold(what));
    }
    // These are one shard's affair, which its own backend remembers.
    let local = [Holds::ADVISORY, Holds::CURSOR, Holds::TEMP].contains(&reason);
    if situation.sharded && !local {
        return Err(Refused::new(
            NOT_SUPPORTED,
            format!("{what} needs one backend for the whole session, which a sharded database does not give yet"),
        )
        .hint("use a transaction-level form (pg_advisory_xact_lock, ON COMMIT DROP in one transaction), or connect to the shard directly"));
    }
    out.holds.add(reason);
    Ok(())
}

fn hold_temp_path(
    name: &str,
    value: Option<&str>,
    situation: Situation,
    out: &mut Demands,
) -> Result<(), Refused> {
    if creates_in_temp(name, value) {
        return hold_temp_first(situation, out);
    }
    Ok(())
}

/// Whatever is created is temporary from then on: on a shard nobody would know
/// which names.
fn hold_temp_first(situation: Situation, out: &mut Demands) -> Result<(), Refused> {
    let what = "a search path that begins with pg_temp";
    if situation.sharded {
        return Err(Refused::new(
            NOT_SUPPORTED,
            format!("{what} is not supported on a sharded database"),
        )
        .hint("CREATE TEMPORARY TABLE says it by itself"));
    }
    hold(Holds::TEMP, what, situation, out)
}

/// True for a search path under which whatever is created is temporary.
fn creates_in_temp(name: &str, value: Option<&str>) -> bool {
    name == "search_path"
        && value.is_some_and(|value| {
            let first = value.split(',').next().unwrap_or_default();
            let first = first.trim_matches([' ', '"', '\'']);
            first.eq_ignore_ascii_case("pg_temp")
        })
}

/// Settings under which the router could not read the client's statements.
fn check_setting(name: &str, value: Option<&str>, situation: Situation) -> Result<(), Refused> {
    if situation.sharded && !is_readable(name, value) {
        return Err(Refused::new(
            NOT_SUPPORTED,
            format!("{name} can't be changed to this value on a sharded database: keys are read from the statement's text"),
        )
        .hint("keep client_encoding = UTF8 and standard_conforming_strings = on"));
    }
    Ok(())
}

/// False for settings that change how statements must be read.
pub(super) fn is_readable(name: &str, value: Option<&str>) -> bool {
    let Some(value) = value else { return true };
    match name {
        "client_encoding" => {
            let plain: String = value
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .map(|c| c.to_ascii_lowercase())
                .collect();
            matches!(plain.as_str(), "utf8" | "unicode")
        }
        "standard_conforming_strings" => {
            matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1" | "t" | "y")
        }
        _ => true,
    }
}

fn add_set_config(
    name: Argument,
    value: Argument,
    is_local: Argument,
    situation: Situation,
    out: &mut Demands,
) -> Result<(), Refused> {
    if let Argument::Text(name) = &name
        && name.to_lowercase().starts_with("keyway.")
    {
        return Err(Refused::new(
            NOT_SUPPORTED,
            format!(
                "set_config of {} is not supported: the setting is the router's",
                name.to_lowercase()
            ),
        )
        .hint("use SET or SET LOCAL"));
    }
    if let Argument::Text(local) = &is_local
        && matches!(&**local, "true" | "t" | "on" | "1" | "yes" | "y")
    {
        let path = match (name, value) {
            (Argument::Text(name), Argument::Text(role)) if is_role(&name.to_lowercase()) => {
                out.effects.push(Effect::Role(Some(role)));
                return Ok(());
            }
            (Argument::Text(name), _) if name.to_lowercase() != SEARCH_PATH => return Ok(()),
            (Argument::Text(_), Argument::Text(path)) => Some(path),
            (Argument::Text(_), Argument::Null) => None,
            // Names may be looked up elsewhere, and nobody tells where.
            _ => return untracked(situation, out),
        };
        if creates_in_temp(SEARCH_PATH, path.as_deref()) {
            hold_temp_first(situation, out)?;
        }
        out.effects.push(Effect::Path(path));
        return Ok(());
    }
    let Argument::Text(name) = name else { return untracked(situation, out) };
    if matches!(is_local, Argument::Opaque | Argument::Param(_)) {
        return untracked(situation, out);
    }
    let name: Box<str> = name.to_lowercase().into();
    match value {
        Argument::Text(text) => {
            check_setting(&name, Some(&text), situation)?;
            hold_temp_path(&name, Some(&text), situation, out)?;
            out.effects.push(Effect::Set(name, Setting::Flat(text)));
        }
        Argument::Null => out.effects.push(Effect::Reset(name)),
        Argument::Opaque | Argument::Param(_) => return untracked(situation, out),
    }
    Ok(())
}

/// What a setting means for looking names up.
fn of_names(name: &str, value: Option<Box<str>>) -> Option<Effect> {
    match name {
        SEARCH_PATH => Some(Effect::Path(value)),
        name if is_role(name) => Some(Effect::Role(value)),
        _ => None,
    }
}

/// True for the settings that say who `"$user"` is in a search path.
pub(super) fn is_role(name: &str) -> bool {
    matches!(name, "role" | "session_authorization")
}

fn untracked(situation: Situation, out: &mut Demands) -> Result<(), Refused> {
    hold(Holds::UNTRACKED, "set_config with computed arguments", situation, out)
}

/// A parameter's value, where its bytes are the text itself.
fn resolve(argument: &Argument, bind: Option<&Bind<'_>>) -> Argument {
    let Argument::Param(index) = argument else { return argument.clone() };
    let index = usize::from(*index);
    let Some(bind) = bind else { return Argument::Opaque };
    match (bind.param(index), bind.format_of(index)) {
        (Some(None), _) => Argument::Null,
        (Some(Some([flag @ (0 | 1)])), Some(Format::Binary)) => {
            Argument::Text(if *flag == 1 { "true" } else { "false" }.into())
        }
        // The binary form of text is the text.
        (Some(Some(bytes)), Some(_)) => {
            std::str::from_utf8(bytes).map_or(Argument::Opaque, |text| Argument::Text(text.into()))
        }
        _ => Argument::Opaque,
    }
}

const SEARCH_PATH: &str = "search_path";

/// Changes of the running transaction, in order.
#[derive(Default)]
pub(super) struct Log {
    entries: Vec<Effect>,
}

impl Log {
    /// Notes what a completed statement did.
    pub(super) fn push(&mut self, effect: Effect) {
        match effect {
            Effect::RollbackTo(name) => {
                if let Some(at) = self.savepoint(&name) {
                    self.entries.truncate(at + 1);
                }
            }
            Effect::Release(name) => {
                if let Some(at) = self.savepoint(&name) {
                    let mut index = 0;
                    self.entries.retain(|entry| {
                        index += 1;
                        index <= at || !matches!(entry, Effect::Savepoint(_))
                    });
                }
            }
            other => self.entries.push(other),
        }
    }

    fn savepoint(&self, name: &str) -> Option<usize> {
        self.entries.iter().rposition(|e| matches!(e, Effect::Savepoint(n) if **n == *name))
    }

    /// The transaction is undone.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// What the transaction has done so far, in order.
    pub(super) fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.entries.iter()
    }

    /// Takes out what the transaction does to the session's channels, in order.
    pub(super) fn take_channels(&mut self) -> Vec<Effect> {
        let is_channel =
            |entry: &mut Effect| matches!(entry, Effect::Listen(_) | Effect::Unlisten(_));
        self.entries.extract_if(.., is_channel).collect()
    }

    /// True if the session listens to more once the transaction is done.
    pub(super) fn brings_channels(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, Effect::Listen(_)))
    }

    /// True if nothing was noted.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The transaction is done: applies it to the session's settings, where
    /// RESET means the value at startup, and to the backend's, where it means
    /// the server's default.
    pub(super) fn apply(
        &mut self,
        startup: &SettingsSet,
        session: &mut SettingsSet,
        backend: &mut SettingsSet,
    ) {
        for entry in self.entries.drain(..) {
            match entry {
                Effect::Set(name, value) => {
                    session.set(&name, value.clone());
                    backend.set(&name, value);
                }
                Effect::Restore(name) => {
                    session.reset(&name);
                    backend.reset(&name);
                    if let Some(value) = startup.find(&name) {
                        session.set(&name, value.clone());
                        backend.set(&name, value.clone());
                    }
                }
                Effect::RestoreAll => {
                    *session = startup.clone();
                    *backend = startup.clone();
                }
                Effect::Reset(name) => {
                    session.reset(&name);
                    if let Some(value) = startup.find(&name) {
                        session.set(&name, value.clone());
                    }
                    backend.reset(&name);
                }
                Effect::Own(_)
                | Effect::Path(_)
                | Effect::Role(_)
                | Effect::Savepoint(_)
                | Effect::Release(_)
                | Effect::RollbackTo(_)
                | Effect::Prepare(..)
                | Effect::Listen(_)
                | Effect::Unlisten(_)
                | Effect::Discarded
                | Effect::DiscardedTo(_)
                | Effect::Deallocated
                | Effect::SchemaChanged => {}
            }
        }
    }
}

/// True for the statements that a failed transaction accepts.
pub(super) fn may_follow_failure(template: &Template) -> bool {
    template.statements().iter().all(|facts| match &facts.tx {
        TxEffect::Commit { .. } | TxEffect::Rollback { .. } | TxEffect::RollbackTo { .. } => true,
        TxEffect::PrepareTransaction => true,
        TxEffect::None => facts.kind == Kind::Empty,
        TxEffect::Begin(_)
        | TxEffect::Savepoint { .. }
        | TxEffect::Release { .. }
        | TxEffect::SetTransaction { .. }
        | TxEffect::SetConstraints
        | TxEffect::CommitPrepared
        | TxEffect::RollbackPrepared => false,
    })
}

/// The same by its first word, of a text that is not planned yet.
pub(super) fn is_transaction_end(text: &[u8]) -> bool {
    let word: Vec<u8> = text
        .iter()
        .skip_while(|b| b.is_ascii_whitespace())
        .take_while(|b| b.is_ascii_alphabetic())
        .map(u8::to_ascii_uppercase)
        .take(8)
        .collect();
    text.trim_ascii().is_empty()
        || matches!(word.as_slice(), b"ROLLBACK" | b"COMMIT" | b"END" | b"ABORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Effect {
        Effect::Set(name.into(), Setting::Flat(value.into()))
    }

    #[test]
    fn rollback_to_a_savepoint_takes_back_what_was_set_after_it() {
        let mut log = Log::default();
        log.push(set("a", "1"));
        log.push(Effect::Savepoint("s".into()));
        log.push(set("a", "2"));
        log.push(set("b", "2"));
        log.push(Effect::RollbackTo("s".into()));
        log.push(set("c", "3"));
        let (mut session, mut backend) = (SettingsSet::default(), SettingsSet::default());
        log.apply(&SettingsSet::default(), &mut session, &mut backend);
        assert_eq!(session.find("a"), Some(&Setting::Flat("1".into())));
        assert_eq!(session.find("b"), None);
        assert_eq!(session, backend);
    }

    #[test]
    fn released_savepoint_keeps_its_settings() {
        let mut log = Log::default();
        log.push(Effect::Savepoint("s".into()));
        log.push(set("a", "2"));
        log.push(Effect::Release("s".into()));
        log.push(Effect::RollbackTo("s".into()));
        let (mut session, mut backend) = (SettingsSet::default(), SettingsSet::default());
        log.apply(&SettingsSet::default(), &mut session, &mut backend);
        assert_eq!(session.find("a"), Some(&Setting::Flat("2".into())));
    }

    #[test]
    fn reset_goes_back_to_the_value_at_startup() {
        let mut startup = SettingsSet::default();
        startup.set("timezone", Setting::Flat("UTC".into()));
        let mut log = Log::default();
        for (reset, left) in [
            (Effect::Restore("timezone".into()), startup.clone()),
            (Effect::RestoreAll, startup.clone()),
            (Effect::Reset("timezone".into()), SettingsSet::default()),
        ] {
            log.push(set("timezone", "Asia/Tokyo"));
            log.push(reset);
            let (mut session, mut backend) = (startup.clone(), SettingsSet::default());
            log.apply(&startup, &mut session, &mut backend);
            assert_eq!(session, startup);
            assert_eq!(backend, left);
        }
    }

    #[test]
    fn a_path_that_begins_with_the_temporary_schema_makes_temporary_objects() {
        for value in ["pg_temp", "\"pg_temp\", public", "PG_TEMP,public", "'pg_temp'"] {
            assert!(creates_in_temp("search_path", Some(value)), "{value}");
        }
        for value in ["public, pg_temp", "pg_catalog", "my_pg_temp", ""] {
            assert!(!creates_in_temp("search_path", Some(value)), "{value}");
        }
        assert!(!creates_in_temp("work_mem", Some("pg_temp")));
    }

    #[test]
    fn only_utf8_and_standard_strings_are_readable() {
        assert!(is_readable("client_encoding", Some("utf-8")));
        assert!(!is_readable("client_encoding", Some("SJIS")));
        assert!(!is_readable("standard_conforming_strings", Some("off")));
        assert!(is_readable("work_mem", Some("64MB")));
    }
}
