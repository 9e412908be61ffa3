//! What the session learns from its backend's replies.

use std::rc::Rc;

use crate::backend::{Backend, Event, OwnPurpose, SentAs, SettingsInterner, SettingsSet, Tag};
use crate::protocol::backend::TxStatus;
use crate::protocol::encode;

use super::effects::{Effect, is_readable};
use super::read_only::is_serializable;
use super::refusal::{CONNECTION_FAILURE, NOT_SUPPORTED, OUTCOME_UNKNOWN, Refused};
use super::restore::{Discard, Hidden};
use super::statements::StatementRegistry;
use super::{After, Holds, Phase, Session, Tx};
use crate::backend::Setting;
use crate::sql::statement::TxModes;
use crate::types::{ShardId, SqlState};

/// What the session may use while it hears a backend's events.
pub struct EventEnv<'e> {
    /// The participant that speaks.
    pub shard: ShardId,
    /// Its backend.
    pub backend: &'e mut Backend,
    /// The thread's shared settings values.
    pub interner: &'e mut SettingsInterner,
    /// The thread's shared statement texts.
    pub registry: &'e mut StatementRegistry,
    /// For the backend.
    pub to_backend: &'e mut Vec<u8>,
}

/// What is left for a client whose backend is gone.
#[derive(Debug)]
pub enum Lost {
    /// Nothing was under way: it notices nothing, or only that its
    /// transaction failed.
    Quiet,
    /// Say this; the session lives on.
    Say(Vec<u8>),
    /// Say this, then close: state that only the backend had is gone, or the
    /// client is in the middle of a message.
    Close(Vec<u8>),
}

impl Session {
    /// Takes in what a walk over the backend's replies reported.
    pub fn on_events(&mut self, events: &mut Vec<Event>, mut env: EventEnv<'_>) -> After {
        debug_assert!(self.members.contains(env.shard), "only participants speak");
        let after = match **events {
            [] => After::Keep,
            // Nothing but the end of a unit, as nearly always.
            [Event::Ready(status)] => {
                events.clear();
                self.on_ready(status, &mut env);
                After::Keep
            }
            _ => match self.hear_each(events, &mut env) {
                After::Close => return After::Close,
                after @ (After::Keep | After::Release | After::Replay) => after,
            },
        };
        if self.phase == Phase::Settle && env.backend.owes_nothing() {
            self.copy_pending = false;
            self.phase = Phase::Batch;
        }
        if after == After::Keep && self.may_release(env.backend) {
            self.unit_open = false;
            self.outside = false;
            return After::Release;
        }
        after
    }

    fn hear_each(&mut self, events: &mut Vec<Event>, env: &mut EventEnv<'_>) -> After {
        let mut after = After::Keep;
        for event in events.drain(..) {
            match event {
                Event::Ready(status) => self.on_ready(status, env),
                Event::Complete(tag) => self.on_complete(tag, env),
                Event::Error { state, fatal } => {
                    self.on_error(state, env);
                    if fatal {
                        return After::Close;
                    }
                }
                Event::StalePlan => {
                    self.rewind();
                    self.settle_names(env.backend);
                    after = After::Replay;
                }
                Event::OwnFailed(purpose, frame) => self.on_own_failed(purpose, frame, env),
                Event::OwnDone(purpose, tag) => self.on_own_done(purpose, tag, env),
                Event::CopyIn(SentAs::Query) => self.phase = Phase::CopySimple,
                Event::CopyIn(SentAs::Batch) => {
                    self.copy_pending = false;
                    self.phase = Phase::CopyBatch;
                }
                Event::Retired(id) => env.registry.retire(id),
                Event::Told(id, shape) => self.note_told(id, shape),
                Event::Shaped(id, shape) => {
                    self.on_shape(id, shape, env.backend, env.registry);
                }
                Event::Parameter(name, value) => self.on_parameter(name, value),
            }
        }
        after
    }

    /// The running unit has not been: its bytes are fed again.
    pub fn rewind(&mut self) {
        self.phase = Phase::Idle;
        self.unit_open = false;
        self.effects.clear();
    }

    /// True if the session has no use for its backend any more.
    pub fn may_release(&self, backend: &Backend) -> bool {
        let between = matches!(self.phase, Phase::Idle)
            || (matches!(self.phase, Phase::Batch | Phase::Skip) && !self.unit_open);
        between
            && (self.holds.is_empty() || self.kept.is_sharded())
            && backend.status() == TxStatus::Idle
            && backend.is_settled()
            && self.stream.left == 0
            && !self.pending.is_placed()
    }

    fn on_ready(&mut self, status: TxStatus, env: &mut EventEnv<'_>) {
        self.phase = Phase::Idle;
        if let Some(moving) = &mut self.moving {
            moving.note_unit_end();
        }
        self.unit_open = false;
        self.copy_pending = false;
        self.executed = None;
        if !self.effects.is_empty() {
            self.effects.clear();
        }
        if !self.renamed.is_empty() {
            self.settle_names(env.backend);
        }
        if status == TxStatus::Idle && !self.outside {
            if !self.log.is_empty() {
                if self.failed {
                    self.log.clear();
                    self.refresh_own();
                } else {
                    self.apply_log(env);
                }
            }
            if !self.portals.is_empty() {
                self.portals.clear();
            }
            self.tx_map = None;
            self.tx = Tx::Backend;
            self.leave_joined();
            self.channels.settle();
            if std::mem::take(&mut self.schema_changed) {
                // Only now do other sessions see it.
                env.registry.retire_all();
            }
        }
        if !self.reported.is_empty() {
            self.note_reported(status, env);
        }
        self.outside = false;
        self.failed = false;
    }

    /// Takes back what the batch did to names behind its failure.
    fn settle_names(&mut self, backend: &mut Backend) {
        for _ in 0..backend.take_undone_names() {
            match self.renamed.pop() {
                Some((name, Some(before))) => self.statements.insert(&name, before),
                Some((name, None)) => {
                    self.statements.remove(&name);
                }
                None => break,
            }
        }
        for (name, _) in self.renamed.drain(..) {
            if let Some(prepared) = self.statements.find(&name) {
                prepared.note_taken();
            }
        }
    }

    fn on_complete(&mut self, tag: Tag, env: &mut EventEnv<'_>) {
        let effects = self.effects.pop_front().unwrap_or_default();
        match tag {
            Tag::Commit | Tag::PrepareTransaction => {
                self.leave_joined();
                self.apply_log(env);
            }
            Tag::Rollback if !effects.iter().any(|e| matches!(e, Effect::RollbackTo(_))) => {
                self.leave_joined();
                self.log.clear();
                self.refresh_own();
            }
            Tag::Rollback | Tag::Other => {}
        }
        let stale = |e: &Effect| matches!(e, Effect::RollbackTo(_)) || e.moves_path();
        let stale = effects.iter().any(stale);
        for effect in effects {
            match effect {
                Effect::Prepare(name, prepared) => {
                    env.backend.note_prepared(prepared.id);
                    self.statements.insert(&name, prepared);
                }
                Effect::Discarded => {
                    let defaults = env.interner.intern(SettingsSet::default());
                    env.backend.reset_done(defaults);
                    self.forget_everything();
                }
                Effect::DiscardedTo(discard) => {
                    let startup = Rc::clone(&self.startup);
                    match discard {
                        Discard::Everything => env.backend.reset_done(startup),
                        Discard::Settings | Discard::AsItStands => {
                            env.backend.set_settings(startup);
                        }
                    }
                    self.forget_everything();
                }
                Effect::Deallocated => {
                    env.backend.forget_prepared();
                    self.statements.clear();
                }
                Effect::SchemaChanged => {
                    self.schema_changed = true;
                    env.registry.retire_all();
                }
                Effect::Listen(_)
                | Effect::Unlisten(_)
                | Effect::Set(..)
                | Effect::Restore(_)
                | Effect::RestoreAll
                | Effect::Reset(_)
                | Effect::Savepoint(_)
                | Effect::Release(_)
                | Effect::RollbackTo(_)
                | Effect::Path(_)
                | Effect::Role(_)
                | Effect::Own(_) => self.log.push(effect),
            }
        }
        if stale {
            self.refresh_own();
        }
    }

    /// A setting changed and no text said so: a function did it. What can be
    /// set is noted like the client's own SET.
    fn on_parameter(&mut self, name: Box<str>, value: Box<str>) {
        if !FIXED_PARAMETERS.contains(&&*name) {
            self.sets_in_transaction = true;
            self.reported.push(Effect::Set(name, Setting::Flat(value)));
        }
    }

    /// Reports say how things stand at the end of a unit, whatever failed in it.
    fn note_reported(&mut self, status: TxStatus, env: &mut EventEnv<'_>) {
        for effect in self.reported.drain(..) {
            self.log.push(effect);
        }
        if status == TxStatus::Idle {
            self.apply_log(env);
        } else {
            self.refresh_own();
        }
    }

    /// DISCARD ALL: the session is as it was after its login.
    pub(super) fn forget_everything(&mut self) {
        self.statements.clear();
        self.unnamed.forget();
        self.portals.clear();
        self.cursors.close(None);
        self.log.clear();
        self.kept.clear();
        self.settings = Rc::clone(&self.startup);
        let startup = Rc::clone(&self.startup);
        self.note_settings(&startup);
        self.own.forget();
        self.channels.clear();
        self.holds = Holds(self.holds.0 & Holds::SESSION.0);
        self.seat = None;
    }

    fn on_error(&mut self, state: Option<SqlState>, env: &mut EventEnv<'_>) {
        self.failed = true;
        if self.outside
            && let Tx::Lazy(lazy) = &mut self.tx
        {
            lazy.fail();
        }
        if let Some(id) = self.executed.take()
            && state == Some(NOT_SUPPORTED)
        {
            // Perhaps the plan of what EXECUTE ran; preparing it again is
            // right in any case.
            env.backend.note_stale(id);
            env.registry.retire(id);
        }
        self.effects.clear();
        if self.outside
            && let Tx::Lazy(lazy) = &mut self.tx
        {
            lazy.fail();
        }
        if env.backend.unnamed().is_none() && self.unnamed_sent {
            self.unnamed.forget();
        }
        match self.phase {
            Phase::CopySimple => self.phase = Phase::Await,
            Phase::CopyBatch | Phase::Settle | Phase::Batch if env.backend.is_skipping() => {
                self.copy_pending = false;
                self.phase = Phase::SkipBound;
            }
            Phase::CopyBatch
            | Phase::Settle
            | Phase::Batch
            | Phase::Idle
            | Phase::Skip
            | Phase::SkipBound
            | Phase::Own
            | Phase::Gather
            | Phase::Await => {}
        }
    }

    fn on_own_failed(&mut self, purpose: OwnPurpose, frame: Box<[u8]>, env: &mut EventEnv<'_>) {
        match purpose {
            OwnPurpose::Everywhere { .. } => {
                if let Some(everywhere) = &mut self.everywhere {
                    let done = everywhere.shards.iter().take(everywhere.next);
                    let done: Vec<&str> = done.map(|(_, name)| &**name).collect();
                    let at = everywhere.shards.get(everywhere.next).map_or("?", |(_, name)| name);
                    everywhere.failed = Some(with_place(&frame, at, &done));
                }
            }
            OwnPurpose::Prepare => self.pending.refuse_frame(frame),
            OwnPurpose::Prelude | OwnPurpose::Begin | OwnPurpose::Describe | OwnPurpose::End => {
                // Half of it may have been done.
                env.backend.mark_dirty();
                self.pending.refuse_frame(frame);
            }
        }
    }

    fn on_own_done(&mut self, purpose: OwnPurpose, tag: Option<Box<[u8]>>, env: &mut EventEnv<'_>) {
        match purpose {
            OwnPurpose::Begin | OwnPurpose::End => return,
            OwnPurpose::Describe => {
                self.settle_names(env.backend);
                self.unit_open = false;
                self.phase = if self.failed { Phase::Skip } else { Phase::Batch };
                return;
            }
            OwnPurpose::Everywhere { .. } => {
                if let Some(everywhere) = &mut self.everywhere
                    && everywhere.failed.is_none()
                {
                    everywhere.next += 1;
                    everywhere.tag = tag;
                }
                // Shards before one that refuses have it already.
                env.registry.retire_all();
                self.unit_open = false;
                self.pending.clear();
            }
            OwnPurpose::Prelude => self.on_prelude_done(env),
            OwnPurpose::Prepare => {}
        }
        self.phase = self.resume;
    }

    /// The backend has the session's settings and is in its transaction.
    fn on_prelude_done(&mut self, env: &mut EventEnv<'_>) {
        let opened = env.backend.status() != TxStatus::Idle;
        if self.pending.is_refused() {
            if opened {
                self.tx = Tx::Backend;
            } else if let Tx::Lazy(lazy) = &mut self.tx {
                lazy.fail();
            }
            return;
        }
        env.backend.set_settings(Rc::clone(&self.settings));
        if opened && let Tx::Lazy(lazy) = std::mem::replace(&mut self.tx, Tx::Backend) {
            self.note_opened(&lazy);
            for effect in lazy.into_effects() {
                self.log.push(effect);
            }
        }
    }

    // === settings ===

    fn apply_log(&mut self, env: &mut EventEnv<'_>) {
        if self.log.is_empty() {
            return;
        }
        self.apply_channels();
        let mut session = (*self.settings).clone();
        let mut backend = (**env.backend.settings()).clone();
        self.own.settle(self.log.effects());
        self.log.apply(&self.startup, &mut session, &mut backend);
        // The settings that are noted next are those of the transaction.
        self.refresh_own();
        if session.bytes() > self.limits.settings_bytes_max {
            // Too much to carry: the session keeps its backend instead.
            self.holds.add(Holds::UNTRACKED);
            self.kept.add(env.shard, Holds::UNTRACKED);
        }
        self.note_settings(&session);
        self.settings = env.interner.intern(session);
        env.backend.set_settings(env.interner.intern(backend));
    }

    fn apply_channels(&mut self) {
        for effect in self.log.take_channels() {
            self.channels.apply(effect);
        }
    }

    /// A transaction that never had a shard commits.
    pub(super) fn apply_log_without_backend(&mut self, interner: &mut SettingsInterner) {
        if self.log.is_empty() {
            return;
        }
        self.apply_channels();
        let mut session = (*self.settings).clone();
        let mut nobody = SettingsSet::default();
        self.own.settle(self.log.effects());
        self.log.apply(&self.startup, &mut session, &mut nobody);
        self.refresh_own();
        self.note_settings(&session);
        self.settings = interner.intern(session);
    }

    /// What the settings mean for reading the client's statements.
    pub(super) fn note_settings(&mut self, settings: &SettingsSet) {
        let differs = |wanted: &str| {
            settings.iter().any(|(name, value)| {
                name == wanted && !is_readable(name, Some(&bare(&shown(value))))
            })
        };
        self.hidden = Hidden {
            encoding: differs("client_encoding"),
            strings: differs("standard_conforming_strings"),
        };
        self.serializable = is_serializable(settings);
        self.note_path(settings);
    }

    // === a backend that is gone ===

    /// A participant's connection broke. `told`: it said why (a FATAL has
    /// been forwarded), so nothing is added.
    pub fn on_lost(&mut self, shard: ShardId, backend: &Backend, writes: Writes) -> Lost {
        if self.is_gathering() {
            self.gather_lost(shard);
            return Lost::Quiet;
        }
        let was_transaction = backend.status() != TxStatus::Idle;
        let running = self.is_awaiting() || self.unit_open;
        // After a COMMIT, whatever became of it, no transaction is open.
        let still_open = was_transaction && !(running && self.ends_transaction());
        let held = if self.kept.is_sharded() {
            self.kept.contains(shard)
        } else {
            !self.holds.beyond_transactions().is_empty()
        };
        let refused = if running && writes == Writes::Possible && !was_transaction
            || running && self.ends_transaction()
        {
            Refused::new(
                OUTCOME_UNKNOWN,
                "connection to the shard was lost; whether the statement was committed is unknown",
            )
            .hint("check for its effect before sending it again")
        } else {
            Refused::new(CONNECTION_FAILURE, "connection to the shard was lost")
                .hint("the transaction was rolled back; it can be run again")
        };
        if held || backend.is_mid_frame() {
            return Lost::Close(refused.fatal_frame());
        }
        if self.phase == Phase::Own {
            return self.on_lost_own(refused);
        }
        let extended = matches!(self.phase, Phase::Batch | Phase::SkipBound | Phase::CopyBatch);
        self.forget_backend();
        if !running && !was_transaction {
            return Lost::Quiet;
        }
        if still_open {
            let mut lazy = super::lazy::Lazy::new(b"BEGIN", TxModes::default());
            lazy.fail();
            self.tx = Tx::Lazy(Box::new(lazy));
        }
        if !running {
            // Told when the client speaks again: its transaction has failed.
            return Lost::Quiet;
        }
        let mut frame = refused.frame();
        if extended {
            self.phase = Phase::Skip;
        } else {
            let status = if still_open { TxStatus::Failed } else { TxStatus::Idle };
            encode::ready_for_query(&mut frame, status);
        }
        Lost::Say(frame)
    }

    /// The connection broke under a query of the router's own. The client's
    /// message stands unread, or was a Flush.
    fn on_lost_own(&mut self, refused: Refused) -> Lost {
        if self.everywhere.take().is_some() {
            // This shard may have done it, those before it have.
            self.phase = self.resume;
            self.unit_open = false;
            self.pending = super::place::Pending::default();
            self.pending.refuse(refused);
            return Lost::Quiet;
        }
        let not_sent = Refused::new(CONNECTION_FAILURE, "connection to the shard was lost")
            .hint("the statement has not been executed; it can be run again");
        if self.unit_open {
            // It had only been parsed and described.
            self.forget_backend();
            self.phase = Phase::Skip;
            return Lost::Say(not_sent.frame());
        }
        // Nothing of the unit was sent: it begins anew on another connection.
        self.phase = self.resume;
        self.pending = super::place::Pending::default();
        self.losses = self.losses.saturating_add(1);
        if self.losses > LOSSES_MAX {
            self.losses = 0;
            self.pending.refuse(not_sent);
        }
        Lost::Quiet
    }

    fn ends_transaction(&self) -> bool {
        self.commit_sent
    }

    /// The session goes on without the backend that it held.
    fn forget_backend(&mut self) {
        self.phase = Phase::Idle;
        self.unit_open = false;
        self.effects.clear();
        self.log.clear();
        self.refresh_own();
        self.portals.clear();
        self.renamed.clear();
        self.pending = super::place::Pending::default();
        self.everywhere = None;
        self.scatter = None;
        self.described = None;
        self.leave_joined();
        self.outside = false;
        self.failed = false;
        self.copy_pending = false;
        self.tx_map = None;
        self.stream.discard = true;
        self.tx = Tx::Backend;
    }
}

/// Connections that a unit may lose before it begins.
const LOSSES_MAX: u8 = 8;

/// A setting's value as text, names in double quotes.
pub(super) fn shown(value: &Setting) -> String {
    match value {
        Setting::Flat(text) => text.to_string(),
        Setting::Statement(text) => {
            let lower = text.to_ascii_lowercase();
            let from = match (lower.find('='), lower.find(" to ")) {
                (Some(equals), Some(to)) if to < equals => to + 4,
                (Some(equals), _) => equals + 1,
                (None, Some(to)) => to + 4,
                (None, None) => lower.rfind(' ').map_or(0, |at| at + 1),
            };
            text.get(from..).unwrap_or_default().trim().replace('\'', "\"")
        }
    }
}

/// A value without the quotes around it.
fn bare(value: &str) -> String {
    value.trim_matches(['"', '\'', ';', ' ']).to_owned()
}

/// Parameters that a server reports and nobody sets by their names.
const FIXED_PARAMETERS: &[&str] = &[
    "is_superuser",
    "server_version",
    "server_encoding",
    "integer_datetimes",
    "in_hot_standby",
    "session_authorization",
];

/// Whether the lost unit may have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// It ran on a primary.
    Possible,
    /// It ran on a replica.
    Impossible,
}

/// The server's error with the shard that it came from, and those where the
/// statement is already done.
fn with_place(frame: &[u8], at: &str, done: &[&str]) -> Box<[u8]> {
    use crate::protocol::backend::ErrorFields;
    use crate::protocol::frame::HEADER_LEN;
    let body = frame.get(HEADER_LEN..).unwrap_or_default();
    let Ok(fields) = ErrorFields::decode(body) else { return frame.into() };
    let text = |code| fields.field(code).map(|v| String::from_utf8_lossy(v).into_owned());
    let Some(state) = fields.code() else { return frame.into() };
    let mut refused = Refused::new(state, text(b'M').unwrap_or_default());
    let before = if done.is_empty() {
        "done nowhere".to_owned()
    } else {
        format!("already done on: {}", done.join(", "))
    };
    let own = text(b'D').map(|detail| format!("{detail}\n")).unwrap_or_default();
    refused.detail = Some(format!("{own}failed on {at}; {before}"));
    refused.hint = text(b'H');
    refused.frame().into()
}
