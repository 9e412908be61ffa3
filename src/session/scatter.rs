//! A read over several shards: its backends are checked out in the order of
//! the shards, asked for the shape of their rows, then bound, and their rows
//! become one reply (`gather`).
//!
//! On each shard it is a READ ONLY transaction of its own, outside the client's:
//! it joins none that has a shard, and runs beside one that has none yet and
//! sees what every statement of READ COMMITTED would see. The client hears of
//! the end only once every backend has come to rest.

use std::cell::Cell;
use std::rc::Rc;

use crate::backend::{Event, Expect, OwnPurpose, Report};
use crate::cluster::Mark;
use crate::gather::{
    Collation, Describe, Direction, End, Failure, Formats, Gather, GatherError, Nulls, Plan,
    Progress, SortKey,
};
use crate::protocol::backend::TxStatus;
use crate::protocol::encode;
use crate::protocol::frontend::{Bind, Describe as Describing, Execute, Target};
use crate::protocol::tag::frontend as tag;
use crate::route::{Count, OrderKey, Scatter, Template};
use crate::types::{Access, Format, Oid, ShardId};

use super::events::EventEnv;
use super::feed::{Feed, refuse_route};
use super::names::Named;
use super::refusal::{
    CONNECTION_FAILURE, INVALID_VALUE, LIMIT_EXCEEDED, NOT_SUPPORTED, PROTOCOL_VIOLATION, Refused,
};
use super::values::BoundParams;
use super::{Phase, Session, Step, Tx, Want};
use crate::route::Params;

/// What the shell does next for a read over several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathering {
    /// Read from those backends that are wanted.
    Read,
    /// Write to the client first.
    Write,
    /// Call [`Session::gather_ask`] for each backend, then go on.
    Ask,
    /// The same, and cancel what runs on them.
    Cancel,
    /// It is over: all backends can be given back.
    Over,
}

/// A bound portal of such a read.
pub(super) struct ScatterPortal {
    scatter: Scatter,
    shards: Box<[ShardId]>,
    replica_ok: bool,
    raw_types: Box<[u8]>,
    /// Bind's parameters as they crossed the wire, formats and values.
    values: Box<[u8]>,
    formats: Formats,
    limit: Option<u64>,
    offset: u64,
    /// It has been executed with a row limit.
    suspended: Cell<bool>,
}

/// A read that is under way.
pub(super) struct ScatterRead {
    portal: Rc<ScatterPortal>,
    parts: Vec<Part>,
    gather: Gather,
    spoken: Spoken,
    /// The result formats of the shards' Bind.
    formats: Vec<u8>,
    /// Rows that each shard's Execute asks for; zero is all.
    rows_max: i32,
    access: Access,
    cancelled: bool,
}

/// The protocol that the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Simple,
    Extended,
}

struct Part {
    shard: ShardId,
    state: PartState,
}

/// How far one shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    /// It has been sent nothing.
    Waiting,
    /// It has been asked for its columns.
    Asked,
    /// It has been sent everything, up to the end of its transaction.
    Bound,
    /// It has been sent a Sync, to give up.
    Leaving,
    /// It owes nothing any more, or is gone.
    Done,
}

impl Feed<'_, '_> {
    // === simple queries ===

    /// A simple query whose rows are on several shards.
    pub(super) fn scatter_query(
        &mut self,
        text: &[u8],
        template: Rc<Template>,
        shards: &[ShardId],
        end: usize,
    ) -> Option<Step> {
        let scatter = match template.scatter(text) {
            Ok(scatter) => scatter,
            Err(error) => return self.refuse_simple(&refuse_route(&error), end),
        };
        let portal = ScatterPortal {
            scatter,
            shards: shards.into(),
            replica_ok: template.replica_ok(),
            raw_types: Box::default(),
            values: NO_VALUES.into(),
            formats: Formats::Text,
            limit: None,
            offset: 0,
            suspended: Cell::new(false),
        };
        let started = self.rows_wanted(portal, None).and_then(|portal| {
            self.start_scatter(Rc::new(portal), Spoken::Simple, Describe::Rows, 0)
        });
        match started {
            Ok(()) => self.go_on_scattering(end),
            Err(refused) => self.refuse_simple(&refused, end),
        }
    }

    /// Goes on with the message at hand, which ends at `end`: asks for the next
    /// backend, or sets out.
    pub(super) fn go_on_scattering(&mut self, end: usize) -> Option<Step> {
        let read = self.s.scatter.as_ref()?;
        let missing = read.parts.iter().find(|part| !self.s.members.contains(part.shard));
        if let Some(part) = missing {
            let want = Want {
                shard: part.shard,
                access: read.access,
                consistency: self.s.consistency,
                mark: Mark::Shard,
            };
            return Some(self.ask(want, None));
        }
        self.consume(end);
        self.s.pending.clear();
        self.s.statements_seen += 1;
        self.s.phase = Phase::Gather;
        Some(Step::Gather)
    }

    // === the extended protocol ===

    /// A portal of a read over several shards.
    pub(super) fn scatter_portal(
        &self,
        bind: &Bind<'_>,
        named: &Named,
        template: &Template,
        shards: Box<[ShardId]>,
    ) -> Result<ScatterPortal, Refused> {
        let raw_types = self.types_of(named);
        let scatter =
            template.scatter(&self.text_of(named)).map_err(|error| refuse_route(&error))?;
        let formats = bind.result_formats();
        let of = |index, count| {
            formats.of(index, count).ok_or_else(|| {
                Refused::new(PROTOCOL_VIOLATION, "unsupported format code in bind message")
            })
        };
        let wanted = match formats.count() {
            0 => Formats::Text,
            1 => Formats::All(of(0, 1)?),
            count => {
                let each: Result<Vec<Format>, Refused> =
                    (0..count).map(|index| of(index, count)).collect();
                Formats::Each(each?.into())
            }
        };
        let start = bind.statement_span().end.saturating_add(1);
        let end = bind.body().len().saturating_sub(2 + formats.raw().len());
        let portal = ScatterPortal {
            scatter,
            shards,
            replica_ok: template.replica_ok(),
            raw_types: raw_types.into(),
            values: bind.body().get(start..end).unwrap_or_default().into(),
            formats: wanted,
            limit: None,
            offset: 0,
            suspended: Cell::new(false),
        };
        self.rows_wanted(portal, Some(&BoundParams::new(bind, raw_types)))
    }

    /// Executes a portal of a read over several shards.
    fn scatter_execute(
        &mut self,
        portal: &Rc<ScatterPortal>,
        describe: Describe,
        max_rows: i32,
        end: usize,
    ) -> Option<Step> {
        match self.start_scatter(Rc::clone(portal), Spoken::Extended, describe, max_rows) {
            Ok(()) => self.go_on_scattering(end),
            Err(refused) => self.refuse_message(&refused, end),
        }
    }

    /// A message about a portal of such a read; `None` if it is about none.
    pub(super) fn on_scatter_message(
        &mut self,
        kind: u8,
        body: &[u8],
        end: usize,
    ) -> Option<Option<Step>> {
        let described = self.s.described.take();
        let named = match kind {
            tag::EXECUTE => Execute::decode(body).ok().map(|e| (e.portal, e.max_rows)),
            tag::DESCRIBE => Describing::decode(body)
                .ok()
                .filter(|describe| describe.kind == Target::Portal)
                .map(|describe| (describe.name, 0)),
            _ => None,
        };
        let portal = named.and_then(|(name, max)| {
            let portal = self.s.portals.get(name)?.scatter.clone()?;
            Some((name, max, portal))
        });
        match (portal, described) {
            (Some((name, max, portal)), described) if kind == tag::EXECUTE => {
                if portal.suspended.get() {
                    let refused = Refused::new(
                        NOT_SUPPORTED,
                        "fetching the rest of a portal of a read over several shards is not supported yet",
                    )
                    .hint("execute it without a row limit");
                    return Some(self.refuse_message(&refused, end));
                }
                let describe = match described {
                    Some(one) if *one == *name => Describe::Rows,
                    None => Describe::Nothing,
                    Some(_) => return Some(self.refuse_described()),
                };
                Some(self.scatter_execute(&portal, describe, max, end))
            }
            (Some((name, ..)), None) => {
                // Its shape is known, and told, once it is executed.
                self.s.described = Some(name.into());
                self.consume(end);
                self.s.phase = Phase::Batch;
                Some(None)
            }
            (_, Some(_)) => Some(self.refuse_described()),
            (None, None) => None,
        }
    }

    /// The message at hand is skipped, or is the Sync that ends the batch.
    fn refuse_described(&mut self) -> Option<Step> {
        let refused = Refused::new(
            NOT_SUPPORTED,
            "describing a portal of a read over several shards without executing it next is not supported yet",
        )
        .hint("send Execute right after Describe, or describe the statement in a batch of its own");
        self.refuse_in_batch(refused.frame().into())
    }

    /// The backends of the read that was about to run can't be had.
    pub(super) fn refuse_scatter(&mut self, frame: Box<[u8]>) -> Option<Step> {
        self.s.pending.clear();
        self.fail_lazy();
        self.env.to_client.extend_from_slice(&frame);
        self.s.phase = Phase::Skip;
        None
    }

    // === both ===

    /// Reads LIMIT and OFFSET.
    fn rows_wanted(
        &self,
        mut portal: ScatterPortal,
        params: Option<&dyn Params>,
    ) -> Result<ScatterPortal, Refused> {
        let number = |count: Option<Count>, what| match count {
            None => Ok(None),
            Some(Count::Number(number)) => Ok(Some(number)),
            Some(Count::Param(index)) => rows(params, index, what),
        };
        let limit = number(portal.scatter.limit(), "LIMIT")?;
        let offset = number(portal.scatter.offset(), "OFFSET")?;
        portal.limit = limit;
        portal.offset = offset.unwrap_or(0);
        Ok(portal)
    }

    fn start_scatter(
        &mut self,
        portal: Rc<ScatterPortal>,
        spoken: Spoken,
        describe: Describe,
        max_rows: i32,
    ) -> Result<(), Refused> {
        self.may_scatter()?;
        if portal.shards.len() > PARTS_MAX {
            return Err(Refused::new(
                LIMIT_EXCEEDED,
                format!("a read may run on {PARTS_MAX} shards at once"),
            )
            .hint("fix the sharding key"));
        }
        let suspend_after = u64::try_from(max_rows).ok().filter(|max| *max > 0);
        let plan = Plan {
            keys: portal.scatter.keys().iter().map(sort_key).collect(),
            offset: portal.offset,
            limit: portal.limit,
            suspend_after,
            formats: portal.formats.clone(),
            describe,
        };
        let rows_max = suspend_after.map_or(0, |max| {
            // Too many to count are all of them.
            max.checked_add(portal.offset).and_then(|sum| i32::try_from(sum).ok()).unwrap_or(0)
        });
        let parts: Vec<Part> = portal
            .shards
            .iter()
            .map(|shard| Part { shard: *shard, state: PartState::Waiting })
            .collect();
        let gather = Gather::new(plan, parts.len());
        let access = if portal.replica_ok { Access::Read } else { Access::Write };
        let formats = Vec::new();
        let read = ScatterRead {
            portal,
            parts,
            gather,
            spoken,
            formats,
            rows_max,
            access,
            cancelled: false,
        };
        self.fix_map();
        self.s.scatter = Some(Box::new(read));
        Ok(())
    }

    /// Whether such a read may run now.
    fn may_scatter(&self) -> Result<(), Refused> {
        if let Some(refused) = self.refuse_in_failed() {
            return Err(refused);
        }
        let beside = |construct: &str, hint: &str| {
            Err(Refused::new(
                NOT_SUPPORTED,
                format!("a read over several shards {construct} is not supported yet"),
            )
            .hint(hint))
        };
        if !self.s.holds.is_empty() {
            return beside(
                &format!("in a session that keeps its backend ({})", self.s.holds.words()),
                "use a connection of its own",
            );
        }
        if self.env.backend.is_some() {
            return beside(
                "after another statement of its transaction or batch",
                "read before the first statement with a shard, commit first, or fix the sharding key",
            );
        }
        if let Tx::Lazy(lazy) = &self.s.tx
            && !lazy.is_plain()
        {
            return beside(
                "in a transaction with modes, settings or savepoints of its own",
                "begin the transaction with a plain BEGIN, or fix the sharding key",
            );
        }
        let isolated = self.s.settings.find("default_transaction_isolation").is_some();
        if isolated && matches!(self.s.tx, Tx::Lazy(_)) {
            return beside(
                "in a transaction that is not READ COMMITTED",
                "reset default_transaction_isolation, or fix the sharding key",
            );
        }
        Ok(())
    }
}

impl Session {
    /// True while a read over several shards is under way: the shell calls
    /// [`Session::gather`] in place of feeding and hearing.
    pub const fn is_gathering(&self) -> bool {
        matches!(self.phase, Phase::Gather)
    }

    /// True if the shard's backend may be read from.
    pub fn gather_wants(&self, shard: ShardId) -> bool {
        self.scatter.as_ref().is_some_and(|read| {
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
        let failed = read.gather.has_failed();
        let Some(part) = read.parts.iter_mut().find(|part| part.shard == env.shard) else { return };
        part.state = match (part.state, failed) {
            (PartState::Waiting, false) => {
                ask_columns(&read.portal, &settings, env);
                PartState::Asked
            }
            (PartState::Waiting, true) => PartState::Done,
            (PartState::Asked, false) => {
                bind_rows(&read.portal, &read.formats, read.rows_max, env);
                PartState::Bound
            }
            (PartState::Asked, true) => {
                env.backend.push(Expect::Sync);
                encode::sync(env.to_backend);
                PartState::Leaving
            }
            (state @ (PartState::Bound | PartState::Leaving | PartState::Done), _) => state,
        };
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
        let Some(at) = read.parts.iter().position(|part| part.shard == env.shard) else { return };
        for piece in bytes {
            read.gather.push(at, piece);
        }
        for event in events.drain(..) {
            match event {
                Event::Error { fatal: false, .. } => read.gather.on_error(at),
                Event::Error { fatal: true, .. } => {
                    read.gather.fail(Failure::Server(lost().frame().into()));
                }
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
                | Event::Parameter(..)
                | Event::CopyIn(_) => {}
            }
        }
        let Some(part) = read.parts.get_mut(at) else { return };
        let resting =
            env.backend.is_settled() && matches!(part.state, PartState::Bound | PartState::Leaving);
        if resting && env.backend.status() == TxStatus::Idle {
            part.state = PartState::Done;
        } else if resting {
            end_transaction(b"ROLLBACK", env);
        }
    }

    /// Goes on with the read; what the client gets is appended to `out`.
    pub fn gather(&mut self, out: &mut Vec<u8>) -> Gathering {
        let Some(read) = &mut self.scatter else { return Gathering::Over };
        let progress = read.gather.advance(out);
        let resting = read.parts.iter().all(|part| part.state == PartState::Done);
        match progress {
            Progress::Starved if resting => {
                read.gather.fail(Failure::Own(GatherError::Silent));
                self.end_scatter(None, out);
                Gathering::Over
            }
            Progress::Starved => Gathering::Read,
            Progress::Full => Gathering::Write,
            Progress::Bind => {
                read.formats.clear();
                read.gather.bind(&mut read.formats);
                Gathering::Ask
            }
            Progress::Ended(end) if resting => {
                self.end_scatter(Some(end), out);
                Gathering::Over
            }
            Progress::Failed if resting => {
                self.end_scatter(None, out);
                Gathering::Over
            }
            Progress::Failed if !read.cancelled => {
                read.cancelled = true;
                Gathering::Cancel
            }
            Progress::Ended(_) | Progress::Failed => Gathering::Read,
        }
    }

    /// A backend of the read is gone.
    pub(super) fn gather_lost(&mut self, shard: ShardId) {
        let Some(read) = &mut self.scatter else { return };
        if let Some(part) = read.parts.iter_mut().find(|part| part.shard == shard) {
            part.state = PartState::Done;
        }
        read.gather.fail(Failure::Server(lost().frame().into()));
    }

    fn end_scatter(&mut self, end: Option<End>, out: &mut Vec<u8>) {
        let Some(mut read) = self.scatter.take() else { return };
        match end {
            Some(end) => {
                Gather::say_end(end, out);
                read.portal.suspended.set(end == End::Suspended);
            }
            None => {
                if let Tx::Lazy(lazy) = &mut self.tx {
                    lazy.fail();
                }
                match read.gather.take_failure() {
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
                    Tx::Backend => TxStatus::Idle,
                };
                encode::ready_for_query(out, status);
                if matches!(self.tx, Tx::Backend) {
                    self.tx_map = None;
                }
            }
            (Spoken::Extended, Some(_)) => self.phase = Phase::Batch,
            (Spoken::Extended, None) => self.phase = Phase::Skip,
        }
    }
}

/// Brings a backend to the session's settings, opens its transaction, and asks
/// for the columns.
fn ask_columns(
    portal: &ScatterPortal,
    settings: &Rc<crate::backend::SettingsSet>,
    env: &mut EventEnv<'_>,
) {
    env.backend.begin_unit(None);
    // Only reads are spread.
    env.backend.writes().declare();
    if !Rc::ptr_eq(env.backend.settings(), settings) {
        let mut sql = String::new();
        settings.transition(env.backend.settings(), &mut sql);
        if sql.is_empty() {
            env.backend.set_settings(Rc::clone(settings));
        } else {
            own_query(sql.as_bytes(), OwnPurpose::Prelude, env);
        }
    }
    own_query(BEGIN, OwnPurpose::Begin, env);
    let written = encode::parse_raw(env.to_backend, b"", portal.scatter.text(), &portal.raw_types)
        .is_ok()
        && encode::describe(env.to_backend, Target::Statement, b"").is_ok();
    debug_assert!(written, "a text that came in a message goes in one");
    encode::flush(env.to_backend);
    env.backend.set_unnamed(None);
    env.backend.push(Expect::ParseUnnamed);
    env.backend.push(Expect::Describe);
}

fn bind_rows(portal: &ScatterPortal, formats: &[u8], rows_max: i32, env: &mut EventEnv<'_>) {
    let written = encode::bind_unnamed(env.to_backend, &portal.values, formats).is_ok()
        && encode::execute(env.to_backend, b"", rows_max).is_ok();
    debug_assert!(written, "values that came in a message go in one");
    encode::sync(env.to_backend);
    env.backend.push(Expect::Bind(None));
    env.backend.push(Expect::Execute(Report::Nothing));
    env.backend.push(Expect::Sync);
    end_transaction(b"COMMIT", env);
}

fn end_transaction(sql: &[u8], env: &mut EventEnv<'_>) {
    own_query(sql, OwnPurpose::End, env);
}

fn own_query(sql: &[u8], purpose: OwnPurpose, env: &mut EventEnv<'_>) {
    if encode::query(env.to_backend, sql).is_ok() {
        env.backend.push(Expect::OwnQuery(purpose));
    }
}

/// A statement over several shards that does more than read.
pub(super) fn not_alone() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "a read over several shards that also changes the session is not supported",
    )
    .hint("send the parts one by one, or fix the sharding key")
}

/// EXECUTE of a statement whose rows are on several shards.
pub(super) fn not_executed() -> Refused {
    Refused::new(NOT_SUPPORTED, "EXECUTE of a read over several shards is not supported yet")
        .hint("use the driver's own prepared statements (protocol level), which are")
}

fn sort_key(key: &OrderKey) -> SortKey {
    SortKey {
        direction: if key.descending { Direction::Descending } else { Direction::Ascending },
        nulls: if key.nulls_first { Nulls::First } else { Nulls::Last },
        collation: if key.bytewise { Collation::Bytes } else { Collation::Witnessed },
        input: key.input.clone(),
    }
}

/// The value of a parameter of LIMIT or OFFSET; `None` is NULL.
fn rows(params: Option<&dyn Params>, index: u16, what: &str) -> Result<Option<u64>, Refused> {
    let odd =
        |problem: &str| Refused::new(INVALID_VALUE, format!("the parameter of {what} {problem}"));
    let param = params
        .and_then(|params| params.get(usize::from(index)))
        .ok_or_else(|| odd("has no value"))?;
    if !INTEGERS.contains(&param.oid) {
        return Err(odd("is not declared as an integer")
            .hint("declare it as bigint, or leave its type to the server"));
    }
    let Some(value) = param.value else { return Ok(None) };
    let number = match (param.format, value.len()) {
        (Format::Text, _) => {
            std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<i64>().ok())
        }
        (Format::Binary, 2) => value.first_chunk().map(|b| i64::from(i16::from_be_bytes(*b))),
        (Format::Binary, 4) => value.first_chunk().map(|b| i64::from(i32::from_be_bytes(*b))),
        (Format::Binary, 8) => value.first_chunk().map(|b| i64::from_be_bytes(*b)),
        (Format::Binary, _) => None,
    };
    let number = number.ok_or_else(|| odd("is not an integer"))?;
    let state = if what == "LIMIT" { LIMIT_NEGATIVE } else { OFFSET_NEGATIVE };
    u64::try_from(number)
        .map(Some)
        .map_err(|_| Refused::new(state, format!("{what} must not be negative")))
}

fn lost() -> Refused {
    Refused::new(CONNECTION_FAILURE, "connection to a shard was lost in a read over several shards")
        .hint("the read can be run again")
}

fn refuse(error: &GatherError) -> Refused {
    let mut refused = Refused::new(error.sqlstate(), error.to_string());
    refused.hint = error.hint().map(str::to_owned);
    refused
}

/// Nothing of what it reads may change while it reads.
const BEGIN: &[u8] = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// No parameter formats and no parameters.
const NO_VALUES: &[u8] = &[0, 0, 0, 0];
/// Most shards of one read.
const PARTS_MAX: usize = 1024;
/// Declared types that LIMIT takes: none, int2, int4, int8.
const INTEGERS: [Oid; 4] = [Oid::new(0), Oid::new(21), Oid::new(23), Oid::new(20)];
/// `invalid_row_count_in_limit_clause`
const LIMIT_NEGATIVE: crate::types::SqlState = crate::types::SqlState::new("2201W");
/// `invalid_row_count_in_result_offset_clause`
const OFFSET_NEGATIVE: crate::types::SqlState = crate::types::SqlState::new("2201X");
