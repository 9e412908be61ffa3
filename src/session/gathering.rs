//! The running of a read over several shards: what each backend is asked, what
//! it says, and how the read ends.
//!
//! The client hears of the end only once every backend has come to rest.

use std::rc::Rc;

use crate::backend::{Event, Expect, OwnPurpose, Report, SettingsSet};
use crate::gather::{End, Failure, Gather, GatherError, Plan, Progress};
use crate::protocol::backend::{ErrorFields, TxStatus};
use crate::protocol::encode;
use crate::protocol::frame::HEADER_LEN;
use crate::protocol::frontend::{Execute, Target};
use crate::types::ShardId;

use super::events::EventEnv;
use super::feed::MUST_FAIL;
use super::joining::{BACK_TO_JOIN, Entry, Level, OwnTransaction};
use super::merging::{Merging, Stage};
use super::numbers::ask_columns_of_bound;
use super::refusal::{CONNECTION_FAILURE, NOT_SUPPORTED, Refused};
use super::scatter::{Gathering, PartState, ScatterPortal, ScatterRead, Spoken};
use super::{Phase, Session, Tx};

impl Session {
    /// True while a read over several shards is under way: the shell calls
    /// [`Session::gather`] in place of feeding and hearing.
    pub const fn is_gathering(&self) -> bool {
        matches!(self.phase, Phase::Gather)
    }

    /// True if a read in the client's transaction has nothing under way.
    pub fn is_gather_resting(&self) -> bool {
        self.scatter.as_ref().is_some_and(|read| read.own.is_some() && read.is_resting())
    }

    /// True if the shard's backend may be read from.
    pub fn gather_wants(&self, shard: ShardId) -> bool {
        self.scatter.as_ref().is_some_and(|read| {
            if read.is_failing(shard) {
                return true;
            }
            if let Some(merging) = &read.merging {
                let answers =
                    merging.stage == Stage::Answer && shard == merging.place && !merging.explains();
                return !answers || read.gather.wants(0);
            }
            read.parts
                .iter()
                .position(|part| part.shard == shard)
                .is_some_and(|at| read.gather.wants(at))
        })
    }

    /// Sends a backend what is due: the question for its columns, its Bind, or
    /// the Sync with which it gives up.
    pub fn gather_ask(&mut self, env: &mut EventEnv<'_>) {
        let settings = Rc::clone(&self.settings);
        let Some(read) = &mut self.scatter else { return };
        let to = read.numbers.iter().find(|(shard, _)| *shard == env.shard);
        env.backend.set_numbers(to.map(|(_, to)| to));
        let failed = read.gather.has_failed();
        if read.must_fail_own() && read.own.is_some_and(|own| own.shard == env.shard) {
            // As an error of a statement does.
            read.own.iter_mut().for_each(|own| own.failing = true);
            own_query(MUST_FAIL, OwnPurpose::End, env);
            return;
        }
        let entry = OwnTransaction::entry(read.own.as_ref(), env.shard);
        let Some(part) = read.parts.iter_mut().find(|part| part.shard == env.shard) else { return };
        if let (Entry::Joined(_), PartState::Waiting, false) = (entry, part.state, failed)
            && !self.joined.contains(&env.shard)
        {
            self.joined.push(env.shard);
        }
        if let (Some(merging), false) = (&mut read.merging, failed) {
            part.state = merge_ask(
                merging,
                (part.state, entry),
                &read.portal,
                (&read.formats, read.rows_max),
                &settings,
                env,
            );
            return;
        }
        part.state = match (part.state, failed) {
            (PartState::Waiting, false) => {
                enter(entry, &settings, env);
                let scatter = &read.portal.scatter;
                let own = scatter.text_without(part.foreign.as_deref());
                debug_assert!(own.is_some(), "only what can leave rows out streams");
                let text = own.as_deref().unwrap_or_default();
                ask_columns(text, &read.portal.raw_types, env);
                PartState::Asked
            }
            (PartState::Waiting, true) => PartState::Done,
            (PartState::Held, _) => {
                if entry == Entry::Alone {
                    end_transaction(b"ROLLBACK", env);
                }
                PartState::Leaving
            }
            (PartState::Asked, false) => {
                bind_rows(&read.portal.values, &read.formats, read.rows_max, entry, env);
                PartState::Bound
            }
            (PartState::Asked, true) => {
                env.backend.push(Expect::Sync);
                encode::sync(env.to_backend);
                PartState::Leaving
            }
            (state @ (PartState::Bound | PartState::Leaving | PartState::Done), _) => state,
        };
        self.gather_rest(env);
    }

    /// A backend that owes nothing has come to rest, or is brought to it.
    fn gather_rest(&mut self, env: &mut EventEnv<'_>) {
        let Some(read) = &mut self.scatter else { return };
        if !env.backend.is_settled() {
            return;
        }
        let status = env.backend.status();
        if let Some(own) = read.own.as_mut().filter(|own| own.shard == env.shard) {
            own.status = status;
            own.failing = false;
        }
        let entry = OwnTransaction::entry(read.own.as_ref(), env.shard);
        let Some(part) = read.parts.iter_mut().find(|part| part.shard == env.shard) else { return };
        if !matches!(part.state, PartState::Bound | PartState::Leaving) {
            return;
        }
        match (entry, status) {
            (Entry::Alone, TxStatus::Idle) | (Entry::Own, _) => part.state = PartState::Done,
            (Entry::Alone, TxStatus::InTransaction | TxStatus::Failed) => {
                end_transaction(b"ROLLBACK", env);
            }
            (Entry::Joined(_), TxStatus::InTransaction) => part.state = PartState::Done,
            (Entry::Joined(_), TxStatus::Failed) if !env.backend.is_dirty() => {
                end_transaction(BACK_TO_JOIN, env);
            }
            (Entry::Joined(_), TxStatus::Failed | TxStatus::Idle) => {
                // What it has seen can't be seen again.
                part.state = PartState::Done;
                self.level = Level::Unknown;
                self.joined.retain(|shard| *shard != env.shard);
            }
        }
    }

    /// Takes in what a backend said, and what its machine made of it.
    pub fn gather_hear(
        &mut self,
        bytes: &[&[u8]],
        events: &mut Vec<Event>,
        env: &mut EventEnv<'_>,
    ) {
        let settings = Rc::clone(&self.settings);
        let Some(read) = &mut self.scatter else { return };
        let Some(at) = read.parts.iter().position(|part| part.shard == env.shard) else {
            // The client's transaction, which only shares the failure.
            events.clear();
            return self.gather_rest(env);
        };
        let source = read.source(at);
        // Before anything else it can only have hung up.
        let first = !read.parts.get(at).is_some_and(|part| part.heard);
        if let Some(part) = read.parts.get_mut(at) {
            part.heard = true;
        }
        for piece in bytes {
            match (&mut read.merging, source) {
                (_, Some(source)) => read.gather.push(source, piece),
                (Some(merging), None) if !read.gather.has_failed() => {
                    if let Err(failure) = merging.push(at, piece) {
                        read.gather.fail(failure);
                    }
                }
                (_, None) => {}
            }
        }
        for event in events.drain(..) {
            match event {
                Event::Error { fatal: false, .. } if read.turning => {
                    read.turning = false;
                    read.gather.replace_failure(Failure::Server(unasked().frame().into()));
                }
                Event::Error { fatal: false, .. } => {
                    let error = read.merging.as_mut().and_then(|merging| merging.take_error(at));
                    match (source, error) {
                        (Some(source), _) => read.gather.on_error(source),
                        (None, Some(frame)) => read.gather.fail(Failure::Server(frame)),
                        (None, None) => {}
                    }
                }
                Event::Error { fatal: true, .. } => read.lose(first, self.losses),
                // The client's transaction was to fail, and has.
                Event::OwnFailed(..) if read.is_failing(env.shard) => {}
                Event::OwnFailed(_, frame) if is_fatal(&frame) => read.lose(first, self.losses),
                Event::OwnFailed(_, frame) => {
                    env.backend.mark_dirty();
                    read.gather.fail(Failure::Server(frame));
                }
                Event::OwnDone(OwnPurpose::Prelude, _) if !env.backend.is_dirty() => {
                    env.backend.set_settings(Rc::clone(&settings));
                }
                Event::OwnDone(..)
                | Event::Ready(_)
                | Event::Complete(_)
                | Event::StalePlan
                | Event::Retired(_)
                | Event::Told(..)
                | Event::Shaped(..)
                | Event::Parameter(..)
                | Event::CopyIn(_) => {}
            }
        }
        self.gather_rest(env);
    }

    /// Goes on with the read; what the client gets is appended to `out`.
    pub fn gather(&mut self, out: &mut Vec<u8>) -> Gathering {
        let Some(read) = &mut self.scatter else { return Gathering::Over };
        let resting = read.is_resting();
        if let Some(next) = read.merge_step(resting) {
            return next;
        }
        if let Some(next) = self.say_plans(resting, out) {
            return next;
        }
        let Some(read) = &mut self.scatter else { return Gathering::Over };
        let progress = if read.kept.is_some() {
            let mut said = Vec::new();
            let progress = read.gather.advance(&mut said);
            read.keep(&said, out);
            progress
        } else {
            read.gather.advance(out)
        };
        match progress {
            Progress::Starved if resting => {
                read.gather.fail(Failure::Own(GatherError::Silent));
                self.end_scatter(None, out);
                Gathering::Over
            }
            Progress::Starved => Gathering::Read,
            Progress::Full => Gathering::Write,
            Progress::Bind if read.plans_of_stream() => Gathering::Ask,
            Progress::Bind => {
                if let Some(merging) = &mut read.merging {
                    merging.is_bound = true;
                }
                read.formats.clear();
                read.gather.bind(&mut read.formats);
                Gathering::Ask
            }
            Progress::Ended(end) if resting => {
                self.end_scatter(Some(end), out);
                Gathering::Over
            }
            Progress::Failed if read.turning && resting => {
                read.turn_to_merge();
                Gathering::Ask
            }
            Progress::Failed if read.may_turn() => {
                read.turning = true;
                Gathering::Ask
            }
            Progress::Failed if read.must_fail_own() => Gathering::Ask,
            Progress::Failed if read.again && resting => Gathering::Again,
            Progress::Failed if resting => {
                self.end_scatter(None, out);
                Gathering::Over
            }
            Progress::Failed if !read.cancelled && !read.turning => {
                read.cancelled = true;
                Gathering::Cancel
            }
            Progress::Ended(_) | Progress::Failed => Gathering::Read,
        }
    }

    /// A backend of the read is gone.
    pub(super) fn gather_lost(&mut self, shard: ShardId) {
        let Some(read) = &mut self.scatter else { return };
        let part = read.parts.iter_mut().find(|part| part.shard == shard);
        let first = part.is_some_and(|part| {
            part.state = PartState::Done;
            !part.heard
        });
        read.turning = false;
        read.lose(first, self.losses);
        if self.joined.contains(&shard) {
            self.joined.retain(|joined| *joined != shard);
            self.level = Level::Unknown;
        }
        if read.own.is_some_and(|own| own.shard == shard) {
            // The client's transaction has ended, and failed.
            read.own = None;
            self.joined.clear();
            self.log.clear();
            self.effects.clear();
            self.unit_open = false;
            let mut lazy =
                super::lazy::Lazy::new(b"BEGIN", crate::sql::statement::TxModes::default());
            lazy.fail();
            self.tx = Tx::Lazy(Box::new(lazy));
            self.refresh_own();
        }
    }

    /// What is fed again of a read that begins anew: the client has seen nothing
    /// of it.
    pub fn take_again(&mut self) -> Box<[u8]> {
        let Some(read) = self.scatter.take() else { return Box::default() };
        self.losses = self.losses.saturating_add(1);
        self.phase = match read.spoken {
            Spoken::Simple => Phase::Idle,
            Spoken::Extended => Phase::Batch,
        };
        if read.is_extended() && read.tells_shape() {
            // The Describe before it counts again.
            let body = read.message.get(HEADER_LEN..).unwrap_or_default();
            self.described = Execute::decode(body).ok().map(|execute| execute.portal.into());
        }
        if matches!(self.tx, Tx::Backend) {
            self.tx_map = None;
        }
        read.message
    }

    pub(super) fn end_scatter(&mut self, end: Option<End>, out: &mut Vec<u8>) {
        let Some(mut read) = self.scatter.take() else { return };
        self.losses = 0;
        match end {
            Some(end) => {
                match (read.portal.explain(), read.kept.take()) {
                    (Some(_), _) => encode::command_complete(out, "EXPLAIN"),
                    (None, Some(kept)) => self.end_kept(&read, kept, out),
                    (None, None) => read.gather.say_end(end, out),
                }
                read.portal.suspended.set(end == End::Suspended);
            }
            None => {
                if let Tx::Lazy(lazy) = &mut self.tx {
                    lazy.fail();
                }
                let unread = read
                    .merging
                    .as_ref()
                    .is_some_and(|merging| merging.stage == Stage::Answer && !merging.is_bound);
                match read.gather.take_failure() {
                    Some(Failure::Server(frame)) if unread && is_reading(&frame) => {
                        out.extend_from_slice(&not_put_together(&frame).frame());
                    }
                    Some(Failure::Server(frame)) => out.extend_from_slice(&frame),
                    Some(Failure::Own(error)) => out.extend_from_slice(&refuse(&error).frame()),
                    None => {}
                }
            }
        }
        match (read.spoken, end) {
            (Spoken::Simple, _) => {
                self.phase = Phase::Idle;
                let status = match &self.tx {
                    Tx::Lazy(lazy) if lazy.is_failed() => TxStatus::Failed,
                    Tx::Lazy(_) => TxStatus::InTransaction,
                    Tx::Backend => read.own.map_or(TxStatus::Idle, |own| own.status),
                };
                encode::ready_for_query(out, status);
                if matches!(self.tx, Tx::Backend) && read.own.is_none() {
                    self.tx_map = None;
                }
            }
            (Spoken::Extended, Some(_)) => self.phase = Phase::Batch,
            (Spoken::Extended, None) => self.phase = Phase::Skip,
        }
    }
}

impl ScatterRead {
    /// True if no backend is asked anything.
    fn is_resting(&self) -> bool {
        self.parts.iter().all(|part| part.state == PartState::Done)
            && !self.own.is_some_and(|own| own.failing)
    }

    /// A backend is gone. `first`: it had said nothing in this read, so its
    /// connection may have ended long before, and the read is begun again unless
    /// the client has seen something of it.
    fn lose(&mut self, first: bool, losses: u8) {
        self.again |= first
            && losses < AGAIN_MAX
            && self.own.is_none()
            && !self.cancelled
            && !self.message.is_empty()
            && !self.gather.has_failed()
            && self.gather.has_said_nothing();
        self.gather.fail(Failure::Server(lost().frame().into()));
    }

    /// True if the client's transaction has to fail with the read.
    fn must_fail_own(&self) -> bool {
        self.gather.has_failed()
            && !self.turning
            && self.own.is_some_and(|own| own.status == TxStatus::InTransaction)
            && self.is_resting()
    }

    fn is_failing(&self, shard: ShardId) -> bool {
        self.own.is_some_and(|own| own.failing && own.shard == shard)
    }

    /// The source of `gather` that the part at `at` is, if it is one now.
    fn source(&self, at: usize) -> Option<usize> {
        let Some(merging) = &self.merging else { return Some(at) };
        let place = self.parts.get(at).is_some_and(|part| part.shard == merging.place);
        (merging.stage == Stage::Answer && place && !merging.explains()).then_some(0)
    }

    /// The next step of a read that one server puts together, before that
    /// server answers.
    fn merge_step(&mut self, resting: bool) -> Option<Gathering> {
        let merging = self.merging.as_mut()?;
        let answers = merging.stage == Stage::Answer && !merging.explains();
        if answers || merging.stage == Stage::Planned || self.gather.has_failed() {
            return None;
        }
        let advanced = merging.advance(&self.portal.scatter, &self.portal.values);
        if resting && !advanced {
            self.gather.fail(Failure::Own(GatherError::Silent));
            return None;
        }
        if !advanced {
            return Some(Gathering::Read);
        }
        if merging.stage == Stage::Planned {
            return None;
        }
        if merging.stage == Stage::Fetch
            && merging.fragments() > 1
            && self.own.is_some_and(|own| own.begins.is_none())
        {
            self.gather.fail(Failure::Server(torn().frame().into()));
            return None;
        }
        if merging.stage == Stage::Answer && !merging.explains() {
            let plan = Plan {
                keys: Vec::new(),
                offset: 0,
                limit: None,
                expected: Some(merging.description()),
                ..self.gather.plan().clone()
            };
            self.gather = Gather::new(plan, 1);
        }
        Some(Gathering::Ask)
    }

    /// Whether one server can make the answer that the shards' streams don't,
    /// and nothing has been said yet.
    fn may_turn(&self) -> bool {
        self.merging.is_none()
            && !self.turning
            && !self.cancelled
            && self.portal.scatter.merge().is_some()
            && self.bringing.is_some()
            && self.gather.has_said_nothing()
            && matches!(
                self.gather.failure(),
                Some(Failure::Own(
                    GatherError::OrderOfType { .. }
                        | GatherError::OrderOfText
                        | GatherError::OrderOfName { .. }
                        | GatherError::ColumnsDiffer { what: "its type", .. }
                ))
            )
    }

    /// Begins again, with one server that makes the answer.
    fn turn_to_merge(&mut self) {
        self.turning = false;
        let Some(merge) = self.portal.scatter.merge() else { return };
        let at = self.parts.iter().position(|part| part.shard == self.at).unwrap_or(0);
        let Some(bringing) = &self.bringing else { return };
        self.portal.scatter.note_turned();
        let explain = self.portal.explain();
        self.merging = Some(Box::new(Merging::new(merge, &self.parts, at, bringing, explain)));
        for part in &mut self.parts {
            part.state = PartState::Waiting;
        }
        self.gather = Gather::new(self.gather.plan().clone(), self.parts.len());
    }
}

/// What a backend of a read that one server puts together is sent.
fn merge_ask(
    merging: &mut Merging,
    (state, entry): (PartState, Entry),
    portal: &ScatterPortal,
    (formats, rows_max): (&[u8], i32),
    settings: &Rc<SettingsSet>,
    env: &mut EventEnv<'_>,
) -> PartState {
    let Some(merge) = portal.scatter.merge() else { return state };
    let place = env.shard == merging.place;
    match (merging.stage, state) {
        (Stage::Describe, PartState::Waiting) if place => {
            enter(entry, settings, env);
            merging.ask_descriptions(merge, &portal.raw_types, env);
            PartState::Held
        }
        (Stage::Types, PartState::Held) => {
            merging.ask_types(&portal.scatter, &portal.values, env);
            PartState::Held
        }
        (Stage::Fetch, PartState::Waiting) => {
            enter(entry, settings, env);
            merging.ask_rows(&portal.values, env);
            if entry == Entry::Alone {
                end_transaction(b"COMMIT", env);
            }
            PartState::Bound
        }
        // Its columns are known, only its plan is not.
        (Stage::Fetch, PartState::Asked) => {
            merging.ask_rows(&portal.values, env);
            if entry == Entry::Alone {
                end_transaction(b"COMMIT", env);
            }
            PartState::Bound
        }
        (Stage::Answer, PartState::Held) if merging.explains() => {
            merging.ask_answer_plan(env);
            if entry == Entry::Alone {
                end_transaction(b"COMMIT", env);
            }
            PartState::Bound
        }
        (Stage::Fetch, PartState::Held) => {
            merging.ask_rows(&portal.values, env);
            PartState::Held
        }
        (Stage::Answer, PartState::Held) => {
            let answer = merging.answer();
            ask_columns(&answer.text, &answer.types, env);
            PartState::Asked
        }
        (Stage::Answer, PartState::Asked) => {
            bind_rows(&merging.answer().values, formats, rows_max, entry, env);
            PartState::Bound
        }
        (
            _,
            state @ (PartState::Waiting
            | PartState::Held
            | PartState::Asked
            | PartState::Bound
            | PartState::Leaving
            | PartState::Done),
        ) => state,
    }
}

/// Brings a backend to the session's settings and opens its transaction, unless
/// it is in one that lasts.
fn enter(entry: Entry, settings: &Rc<SettingsSet>, env: &mut EventEnv<'_>) {
    env.backend.begin_unit(None);
    // Only reads are spread.
    env.backend.writes().declare();
    let begin = match entry {
        Entry::Own => return,
        Entry::Joined(_) if env.backend.status() != TxStatus::Idle => return,
        Entry::Joined(begin) => begin,
        Entry::Alone => BEGIN,
    };
    if !Rc::ptr_eq(env.backend.settings(), settings) {
        let mut sql = String::new();
        settings.transition(env.backend.settings(), &mut sql);
        if sql.is_empty() {
            env.backend.set_settings(Rc::clone(settings));
        } else {
            own_query(sql.as_bytes(), OwnPurpose::Prelude, env);
        }
    }
    own_query(begin, OwnPurpose::Begin, env);
}

/// Asks for the columns of a statement.
fn ask_columns(text: &[u8], types: &[u8], env: &mut EventEnv<'_>) {
    let types = env.backend.types_here(types);
    let written = encode::parse_raw(env.to_backend, b"", text, &types).is_ok()
        && encode::describe(env.to_backend, Target::Statement, b"").is_ok();
    debug_assert!(written, "a text that came in a message goes in one");
    encode::flush(env.to_backend);
    env.backend.set_unnamed(None);
    env.backend.push(Expect::ParseUnnamed);
    env.backend.push(Expect::Describe);
}

fn bind_rows(values: &[u8], formats: &[u8], rows_max: i32, entry: Entry, env: &mut EventEnv<'_>) {
    let bound = encode::bind_unnamed(env.to_backend, values, formats).is_ok();
    env.backend.push(Expect::Bind(None));
    ask_columns_of_bound(env.backend, formats, env.to_backend);
    let executed = encode::execute(env.to_backend, b"", rows_max).is_ok();
    debug_assert!(bound && executed, "values that came in a message go in one");
    encode::sync(env.to_backend);
    env.backend.push(Expect::Execute(Report::Nothing));
    env.backend.push(Expect::Sync);
    if entry == Entry::Alone {
        end_transaction(b"COMMIT", env);
    }
}

fn end_transaction(sql: &[u8], env: &mut EventEnv<'_>) {
    own_query(sql, OwnPurpose::End, env);
}

fn own_query(sql: &[u8], purpose: OwnPurpose, env: &mut EventEnv<'_>) {
    if encode::query(env.to_backend, sql).is_ok() {
        env.backend.push(Expect::OwnQuery(purpose));
    }
}

fn lost() -> Refused {
    Refused::new(CONNECTION_FAILURE, "connection to a shard was lost in a read over several shards")
        .hint("the read can be run again")
}

/// Whether the server ends the connection with this error.
fn is_fatal(frame: &[u8]) -> bool {
    let said = ErrorFields::decode(frame.get(HEADER_LEN..).unwrap_or_default());
    said.is_ok_and(|said| matches!(said.field(b'V'), Some(b"FATAL" | b"PANIC")))
}

/// The transaction's own shard would show its tables one after the other.
fn torn() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "a read over several shards that brings rows of several tables is not supported in a READ COMMITTED transaction that has a shard",
    )
    .hint("begin the transaction with ISOLATION LEVEL REPEATABLE READ, or read before its first statement with a shard")
}

/// A read that was given up for another way, in which something failed.
fn unasked() -> Refused {
    Refused::new(CANCELLED, "canceling statement due to user request")
}

/// Whether the error is about a statement's words, not about its run.
fn is_reading(frame: &[u8]) -> bool {
    let said = ErrorFields::decode(frame.get(HEADER_LEN..).unwrap_or_default());
    said.is_ok_and(|said| said.field(b'C').is_some_and(|code| code.starts_with(b"42")))
}

/// The statement is valid, but not with its tables' rows in their place.
fn not_put_together(frame: &[u8]) -> Refused {
    let said = ErrorFields::decode(frame.get(HEADER_LEN..).unwrap_or_default());
    let message = said.map(|said| String::from_utf8_lossy(said.message()).into_owned());
    let mut refused = Refused::new(
        NOT_SUPPORTED,
        "a read over several shards that depends on more than its tables' rows is not supported",
    )
    .hint("name in GROUP BY what the select list shows, or fix the sharding key");
    refused.detail = message.ok();
    refused
}

fn refuse(error: &GatherError) -> Refused {
    let mut refused = Refused::new(error.sqlstate(), error.to_string());
    refused.hint = error.hint().map(str::to_owned);
    refused
}

/// Nothing of what it reads may change while it reads.
const BEGIN: &[u8] = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Connections that a read may find ended before it is given up.
const AGAIN_MAX: u8 = 8;
/// `query_canceled`
const CANCELLED: crate::types::SqlState = crate::types::SqlState::new("57014");
