//! A read over several shards: its backends are checked out in the order of
//! the shards, asked for the shape of their rows, then bound, and their rows
//! become one reply (`gather`).
//!
//! On each shard it is a READ ONLY transaction of its own, outside the client's:
//! it runs beside one that has no shard yet and sees what every statement of
//! READ COMMITTED would see; how it joins one that has a shard, `joining` says.
//! The client hears of the end only once every backend has come to rest.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::catalog::Translation;
use crate::cluster::Mark;
use crate::gather::{Collation, Describe, Direction, Formats, Gather, Kept, Nulls, Plan, SortKey};
use crate::protocol::frontend::{Bind, Describe as Describing, Execute, Target};
use crate::protocol::tag::frontend as tag;
use crate::route::{
    CopyFormat, CopyOut, Count, DeclaredCursor, Foreign, Merge, OrderKey, RouteError, Scatter,
    Targets, Template, Wrapping, arrives,
};
use crate::shardmap::{Map, Phase as MovePhase};
use crate::types::{Access, Format, Oid, ShardId};

use super::effects::PortalEffects;
use super::feed::{Feed, refuse_route};
use super::joining::{Asked, OwnTransaction};
use super::merging::{Bringing, Merging};
use super::names::Named;
use super::refusal::{INVALID_VALUE, LIMIT_EXCEEDED, NOT_SUPPORTED, PROTOCOL_VIOLATION, Refused};
use super::values::BoundParams;
use super::{Phase, Span, Step, Want};
use crate::route::Params;

/// What the shell does next for a read over several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathering {
    /// Read from those backends that are wanted.
    Read,
    /// Write to the client first.
    Write,
    /// Call `Session::gather_ask` for each backend, then go on.
    Ask,
    /// The same, and cancel what runs on them.
    Cancel,
    /// It is over: all backends can be given back.
    Over,
    /// The same, and `Session::take_again` gives what is fed again.
    Again,
}

/// A bound portal of such a read.
pub(super) struct ScatterPortal {
    pub(super) scatter: Scatter,
    shards: Box<[ShardId]>,
    replica_ok: bool,
    asked: Asked,
    pub(super) raw_types: Box<[u8]>,
    /// Bind's parameters as they crossed the wire, formats and values.
    pub(super) values: Box<[u8]>,
    formats: Formats,
    limit: Option<u64>,
    offset: u64,
    /// What stands around the query.
    pub(super) wrapping: Option<Wrapping>,
    /// What it was made of, and by which map.
    origin: Origin,
    /// It has been executed with a row limit.
    pub(super) suspended: Cell<bool>,
    /// The rows that earlier executions left.
    pub(super) kept: Cell<Option<Kept>>,
}

/// What a portal was made of.
struct Origin {
    map: Arc<Map>,
    /// The statement's text.
    text: Box<[u8]>,
    /// The body of its Bind; empty for a simple query.
    bind: Box<[u8]>,
}

/// A read that is under way.
pub(super) struct ScatterRead {
    pub(super) portal: Rc<ScatterPortal>,
    pub(super) parts: Vec<Part>,
    pub(super) gather: Gather,
    /// The client's transaction, if it has a shard.
    pub(super) own: Option<OwnTransaction>,
    /// The map in force when it was planned.
    pub(super) map: Arc<Map>,
    pub(super) spoken: Spoken,
    /// The result formats of the shards' Bind.
    pub(super) formats: Vec<u8>,
    /// Rows that each shard's Execute asks for; zero is all.
    pub(super) rows_max: i32,
    access: Access,
    pub(super) cancelled: bool,
    /// The server that would put the rows together.
    pub(super) at: ShardId,
    /// From the numbers of shards to those that the client knows.
    pub(super) numbers: Vec<(ShardId, Arc<Translation>)>,
    /// What it may bring to that server.
    pub(super) bringing: Option<Bringing>,
    /// The answer is one server's.
    pub(super) merging: Option<Box<Merging>>,
    /// The rows can't be streamed after all: the backends come to rest, then
    /// one server makes the answer.
    pub(super) turning: bool,
    /// The message that set it out; empty if it is too long to be kept.
    pub(super) message: Box<[u8]>,
    /// A connection had ended before the read: it begins anew.
    pub(super) again: bool,
    /// Its rows are kept, and so many of them given at once.
    pub(super) kept: Option<Kept>,
    pub(super) suspends: Option<u64>,
    /// What the client asked for.
    describe: Describe,
}

/// Whether the rows are kept, to be given in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    Nothing,
    Rows,
}

/// The protocol that the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Simple,
    Extended,
}

pub(super) struct Part {
    pub(super) shard: ShardId,
    pub(super) state: PartState,
    /// Rows that it may have and does not own.
    pub(super) foreign: Option<Rc<Foreign>>,
    /// It has said something in this read.
    pub(super) heard: bool,
}

/// How far one shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartState {
    /// It has been sent nothing.
    Waiting,
    /// It has been asked for what comes before the answer, and its transaction
    /// goes on.
    Held,
    /// It has been asked for its columns.
    Asked,
    /// It has been sent everything, up to the end of its transaction.
    Bound,
    /// It has been sent a Sync, to give up.
    Leaving,
    /// It owes nothing any more, or is gone.
    Done,
}

impl ScatterRead {
    /// Whether the client is to be told the shape of the rows.
    pub(super) fn tells_shape(&self) -> bool {
        self.describe == Describe::Rows
    }

    pub(super) fn is_extended(&self) -> bool {
        self.spoken == Spoken::Extended
    }
}

impl ScatterPortal {
    /// Its shards, and this one.
    fn shards_with(&self, home: Option<ShardId>) -> Vec<ShardId> {
        let mut shards = self.shards.to_vec();
        if let Some(home) = home.filter(|home| !shards.contains(home)) {
            shards.push(home);
            shards.sort_unstable();
        }
        shards
    }

    /// What is made of the shards' rows.
    fn gathered(
        &self,
        spoken: Spoken,
        describe: Describe,
        suspend_after: Option<u64>,
        keeps: Keeps,
    ) -> Plan {
        Plan {
            keys: self.scatter.keys().iter().map(sort_key).collect(),
            offset: self.offset,
            limit: self.limit,
            suspend_after,
            formats: self.formats.clone(),
            describe: match (&self.wrapping, spoken) {
                // The answer to a simple COPY begins with its response.
                (Some(Wrapping::Copy(_)), Spoken::Simple) => Describe::Nothing,
                _ if keeps == Keeps::Rows => Describe::Nothing,
                _ => describe,
            },
            expected: None,
            output: self.output(),
        }
    }
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
        if self.awaits_rows(shards) {
            return Some(Step::Hold);
        }
        if let Some(step) = self.open_for_scatter(shards) {
            return Some(step);
        }
        let scatter = match scatter_of(&template, text, shards) {
            Ok(scatter) => scatter,
            Err(error) => return self.refuse_simple(&refuse_route(&error), end),
        };
        let wrapping = match template.wrapping(text) {
            Ok(wrapping) => wrapping,
            Err(error) => return self.refuse_simple(&refuse_route(&error), end),
        };
        let portal = ScatterPortal {
            scatter,
            shards: shards.into(),
            replica_ok: template.replica_ok(),
            asked: asked(&template),
            raw_types: Box::default(),
            values: NO_VALUES.into(),
            formats: formats_of(wrapping.as_ref(), Formats::Text),
            limit: None,
            offset: 0,
            wrapping,
            origin: Origin { map: self.shared_map(), text: text.into(), bind: Box::default() },
            suspended: Cell::new(false),
            kept: Cell::default(),
        };
        let started = self.rows_wanted(portal, None).and_then(|portal| {
            let alone = (0, Keeps::Nothing);
            self.start_scatter(Rc::new(portal), Spoken::Simple, Describe::Rows, alone)
        });
        match started {
            Ok(()) => self.go_on_scattering(end),
            Err(refused) => self.refuse_simple(&refused, end),
        }
    }

    /// True if the map or the moves have changed since the read that collects
    /// its backends was planned: it is planned anew, as nothing of it was sent.
    /// `body` is that of the message at hand.
    pub(super) fn drop_outdated_scatter(&mut self, body: &[u8]) -> bool {
        let map = self.s.scatter.as_ref().map(|read| &read.map);
        if map.is_none_or(|map| Arc::ptr_eq(map, self.env.map)) {
            return false;
        }
        let Some(read) = self.s.scatter.take() else { return false };
        if read.is_extended() && read.tells_shape() {
            // The Describe before it counts again.
            self.s.described = Execute::decode(body).ok().map(|execute| execute.portal.into());
        }
        self.s.pending.clear();
        if read.own.is_none() {
            self.s.tx_map = None;
        }
        true
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
                consistency: self.s.own.consistency(),
                mark: Mark::Shard,
                span: Span::Unit,
            };
            return Some(self.ask(want, None));
        }
        let message = self.input.get(self.at..end).unwrap_or_default();
        if let Some(read) = self.s.scatter.as_mut().filter(|_| message.len() <= AGAIN_BYTES_MAX) {
            read.message = message.into();
        }
        self.consume(end);
        self.s.pending.clear();
        self.s.statements_seen += 1;
        self.s.phase = Phase::Gather;
        Some(Step::Gather)
    }

    // === the extended protocol ===

    /// Binds a portal of a read over several shards, or on another one.
    pub(super) fn bind_scatter(
        &mut self,
        bind: &Bind<'_>,
        named: &Named,
        template: &Template,
        shards: Box<[ShardId]>,
    ) -> Result<(), Refused> {
        let (types, text) = (self.types_of(named), self.text_of(named));
        let scatter = Rc::new(self.scatter_portal(bind, types, &text, template, shards)?);
        let portal = PortalEffects { scatter: Some(scatter), ..PortalEffects::default() };
        self.s.portals.insert(bind.portal().into(), portal);
        Ok(())
    }

    /// A portal of a read over several shards.
    fn scatter_portal(
        &self,
        bind: &Bind<'_>,
        raw_types: &[u8],
        text: &[u8],
        template: &Template,
        shards: Box<[ShardId]>,
    ) -> Result<ScatterPortal, Refused> {
        let scatter = scatter_of(template, text, &shards).map_err(|error| refuse_route(&error))?;
        let wrapping = template.wrapping(text).map_err(|error| refuse_route(&error))?;
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
            asked: asked(template),
            raw_types: raw_types.into(),
            values: bind.body().get(start..end).unwrap_or_default().into(),
            formats: formats_of(wrapping.as_ref(), wanted),
            limit: None,
            offset: 0,
            wrapping,
            origin: Origin { map: self.shared_map(), text: text.into(), bind: bind.body().into() },
            suspended: Cell::new(false),
            kept: Cell::default(),
        };
        self.rows_wanted(portal, Some(&BoundParams::new(bind, raw_types)))
    }

    /// The portal by the map in force, if another has come since its Bind.
    fn renewed(&mut self, portal: &Rc<ScatterPortal>) -> Result<Rc<ScatterPortal>, Refused> {
        let origin = &portal.origin;
        let current = match &self.s.tx_map {
            Some((map, _)) => Arc::ptr_eq(map, &origin.map),
            None => Arc::ptr_eq(self.env.map, &origin.map),
        };
        if current {
            return Ok(Rc::clone(portal));
        }
        let changed = || Refused::new(NOT_SUPPORTED, "the shard map changed after Bind");
        let bind = Bind::decode(&origin.bind).map_err(|_| changed())?;
        let template = self.plan(&origin.text)?.ok_or_else(changed)?;
        let params = BoundParams::new(&bind, &portal.raw_types);
        let literals = self.env.planner.literals();
        let route = self.locate(&template, &origin.text, literals, Some(&params))?;
        let shards = match route.targets {
            Targets::Several(several) => several.shards,
            Targets::Shard(shard) => [shard].into(),
            Targets::HomeOutside if template.asks_schemas() => [self.map().home()].into(),
            Targets::AnyShard
            | Targets::Home
            | Targets::HomeOutside
            | Targets::AllInTurn
            | Targets::Router(_) => return Err(changed()),
        };
        let renewed =
            self.scatter_portal(&bind, &portal.raw_types, &origin.text, &template, shards)?;
        Ok(Rc::new(renewed))
    }

    /// Executes a portal of a read over several shards.
    fn scatter_execute(
        &mut self,
        name: &[u8],
        portal: &Rc<ScatterPortal>,
        describe: Describe,
        max_rows: i32,
        end: usize,
    ) -> Option<Step> {
        let portal = match self.renewed(portal) {
            Ok(portal) => portal,
            Err(refused) => return self.refuse_message(&refused, end),
        };
        let first = if self.awaits_rows(&portal.shards) {
            Some(Step::Hold)
        } else if self.env.backend.as_ref().is_some_and(|(backend, _)| !backend.owes_nothing()) {
            Some(self.settle())
        } else {
            self.open_for_scatter(&portal.shards)
        };
        if first.is_some() {
            // The Describe before it counts again.
            self.s.described = match describe {
                Describe::Rows => Some(name.into()),
                Describe::Nothing => None,
            };
            return first;
        }
        self.s.pending.clear();
        let keeps = match self.keeps_rest(name, &portal, max_rows) {
            true => Keeps::Rows,
            false => Keeps::Nothing,
        };
        match self.start_scatter(portal, Spoken::Extended, describe, (max_rows, keeps)) {
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
                let tells = described.as_ref().is_some_and(|one| **one == *name);
                match self.execute_kept(&portal, max, tells) {
                    Some(Ok(frames)) => {
                        self.consume(end);
                        self.say(&frames);
                        self.s.phase = Phase::Batch;
                        return Some(None);
                    }
                    Some(Err(refused)) => return Some(self.refuse_message(&refused, end)),
                    None => {}
                }
                let describe = match described {
                    Some(one) if *one == *name => Describe::Rows,
                    None => Describe::Nothing,
                    Some(_) => return Some(self.refuse_described()),
                };
                Some(self.scatter_execute(name, &portal, describe, max, end))
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
        if self.env.backend.is_some() {
            return self.refuse_in_batch(frame);
        }
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
        (max_rows, keeps): (i32, Keeps),
    ) -> Result<(), Refused> {
        if let Some(refused) = self.refuse_in_failed() {
            return Err(refused);
        }
        let keeps = match portal.cursor() {
            Some(declared) => self.check_declared(declared).map(|()| Keeps::Rows)?,
            None => keeps,
        };
        let own = self.own_transaction(portal.asked)?;
        if portal.shards.len() > PARTS_MAX {
            return Err(Refused::new(
                LIMIT_EXCEEDED,
                format!("a read may run on {PARTS_MAX} shards at once"),
            )
            .hint("fix the sharding key"));
        }
        // What is no query has no rows to stop after.
        let max_rows = if portal.wrapping.is_some() { 0 } else { max_rows };
        let suspends = u64::try_from(max_rows).ok().filter(|max| *max > 0);
        let kept = self.room(keeps)?;
        let suspend_after = suspends.filter(|_| kept.is_none());
        let rows_max = suspend_after.map_or(0, |max| {
            // Too many to count are all of them.
            max.checked_add(portal.offset).and_then(|sum| i32::try_from(sum).ok()).unwrap_or(0)
        });
        let plan = portal.gathered(spoken, describe, suspend_after, keeps);
        let home = self.map().home();
        let homely = portal.scatter.merge().is_some_and(Merge::is_homely);
        let shards = portal.shards_with(homely.then_some(home));
        if let Some(own) = &own {
            self.spare_kept(own.shard, &shards)?;
        }
        let of = |wanted: ShardId| shards.iter().position(|shard| *shard == wanted);
        let at = match (of(home), own.and_then(|own| of(own.shard))) {
            (Some(at), _) if homely => at,
            (_, Some(at)) => at,
            (_, None) => self.turn(shards.len()),
        };
        let place = shards.get(at).copied().unwrap_or(home);
        let bringing = self.bringing();
        let parts = self.parts(&shards)?;
        let merging = merging(&portal, &parts, at, bringing.as_ref())?;
        let gather = Gather::new(plan, parts.len());
        let apart = portal.replica_ok && own.is_none();
        let access = if apart { Access::Read } else { Access::Write };
        let read = ScatterRead {
            portal,
            parts,
            gather,
            own,
            map: Arc::clone(self.env.map),
            spoken,
            formats: Vec::new(),
            rows_max,
            access,
            cancelled: false,
            at: place,
            numbers: self.numbers_of(shards.iter().copied()),
            bringing,
            merging,
            turning: false,
            message: Box::default(),
            again: false,
            kept,
            suspends,
            describe,
        };
        self.fix_map();
        self.s.scatter = Some(Box::new(read));
        Ok(())
    }

    /// What a read may bring to the server that puts it together.
    fn bringing(&self) -> Option<Bringing> {
        let limits = self.s.limits.merge?;
        Some(Bringing { limits, memory: Rc::clone(&self.s.memory) })
    }

    /// Where rows are kept.
    fn room(&self, keeps: Keeps) -> Result<Option<Kept>, Refused> {
        match keeps {
            Keeps::Nothing => Ok(None),
            Keeps::Rows => {
                let limits = self.s.limits.merge.ok_or_else(not_brought)?;
                Ok(Some(Kept::new(limits.kept_bytes_max, Rc::clone(&self.s.memory))))
            }
        }
    }

    /// The shards with what each of them must leave out. In a transaction that
    /// began under an older map of the same ownership, the rows that moved then
    /// may still be seen.
    fn parts(&self, shards: &[ShardId]) -> Result<Vec<Part>, Refused> {
        let (map, now) = (self.map(), &**self.env.map);
        let moves = map.has_moves() || now.has_moves();
        let part = |shard: &ShardId| {
            let foreign = if moves { Foreign::of(map, now, *shard) } else { Ok(None) };
            let foreign = foreign.map_err(|error| refuse_route(&error))?.map(Rc::new);
            Ok(Part { shard: *shard, state: PartState::Waiting, foreign, heard: false })
        };
        shards.iter().map(part).collect()
    }

    /// True while rows of a read over these shards are about to be owned by one
    /// of them that may not have all of them yet.
    fn awaits_rows(&self, shards: &[ShardId]) -> bool {
        let map = self.map();
        map.moves().any(|moving| {
            moving.phase == MovePhase::Held
                && shards.contains(&moving.target)
                && arrives(map, moving)
        })
    }

    /// A number below `count` that goes round.
    fn turn(&self, count: usize) -> usize {
        let turns = usize::try_from(self.s.statements_seen).unwrap_or(0);
        turns.checked_rem(count).unwrap_or(0)
    }
}

/// The server's part in a read whose rows don't stream.
fn merging(
    portal: &ScatterPortal,
    parts: &[Part],
    at: usize,
    bringing: Option<&Bringing>,
) -> Result<Option<Box<Merging>>, Refused> {
    let scatter = &portal.scatter;
    if portal.explain().is_some() && bringing.is_none() {
        return Err(not_brought());
    }
    let whole = parts.iter().all(|part| part.foreign.is_none());
    if scatter.streams() && (whole || scatter.leaves_out()) {
        return Ok(None);
    }
    match (scatter.merge(), bringing) {
        (Some(merge), Some(bringing)) => {
            Ok(Some(Box::new(Merging::new(merge, parts, at, bringing, portal.explain()))))
        }
        (_, None) if !scatter.streams() => Err(not_brought()),
        _ => Err(seen_twice()),
    }
}

/// The formats of the shards' rows, of which something may be made.
fn formats_of(wrapping: Option<&Wrapping>, wanted: Formats) -> Formats {
    match wrapping {
        None => wanted,
        Some(
            Wrapping::Copy(CopyOut { format: CopyFormat::Binary, .. })
            | Wrapping::Declare(DeclaredCursor { binary: true, .. }),
        ) => Formats::All(Format::Binary),
        Some(Wrapping::Copy(_) | Wrapping::Explain(_) | Wrapping::Declare(_)) => Formats::Text,
    }
}

/// What the shards of a read are sent: of one that joins a transaction, the
/// text.
fn scatter_of(template: &Template, text: &[u8], shards: &[ShardId]) -> Result<Scatter, RouteError> {
    match shards {
        [_] => template.scatter(text).or_else(|_| Ok(Scatter::whole(text))),
        _ => template.scatter(text),
    }
}

fn asked(template: &Template) -> Asked {
    if template.asks_schemas() { Asked::Schemas } else { Asked::Rows }
}

/// A statement over several shards that does more than read.
pub(super) fn not_alone() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "a read over several shards that also changes the session is not supported",
    )
    .hint("send the parts one by one, or fix the sharding key")
}

/// The configuration forbids it.
fn not_brought() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "a read over several shards whose rows one server has to put together is switched off",
    )
    .hint("set merge.enabled in the router's configuration, or fix the sharding key")
}

/// Rows that move can't be left out of it.
fn seen_twice() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "a read over several shards would see rows twice while rows are being moved",
    )
    .hint("give its tables names of their own, or read again once SHOW MOVES lists no move")
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

/// No parameter formats and no parameters.
const NO_VALUES: &[u8] = &[0, 0, 0, 0];
/// A longer message is not sent a second time.
const AGAIN_BYTES_MAX: usize = 64 * 1024;
/// Most shards of one read.
const PARTS_MAX: usize = 1024;
/// Declared types that LIMIT takes: none, int2, int4, int8.
const INTEGERS: [Oid; 4] = [Oid::new(0), Oid::new(21), Oid::new(23), Oid::new(20)];
/// `invalid_row_count_in_limit_clause`
const LIMIT_NEGATIVE: crate::types::SqlState = crate::types::SqlState::new("2201W");
/// `invalid_row_count_in_result_offset_clause`
const OFFSET_NEGATIVE: crate::types::SqlState = crate::types::SqlState::new("2201X");
