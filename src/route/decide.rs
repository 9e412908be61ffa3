//! From a text to its template: what each statement is, which tables it uses,
//! and whether one shard provably holds all rows it can touch.

use std::cell::Cell;

use crate::catalog::Fingerprint;
use crate::shardmap::{Scratch, Table};
use crate::sql::classify::{self, Classified};
use crate::sql::functions::Nature;
use crate::sql::literal::Literals;
use crate::sql::parse::{self, ParseError};
use crate::sql::shape;
use crate::sql::statement::{Argument, Facts, Kind, SessionEffect, Span, TxEffect};
use crate::sql::token::{self, Token, Tokens};
use crate::types::{Access, Epoch, ShardId};

use super::asides::{Asides, stricter};
use super::copy;
use super::cursor;
use super::ddl;
use super::error::RouteError;
use super::hints::{self, Hints};
use super::marked;
use super::of_session;
use super::place::{self, Named, Open, Placed};
use super::planner::World;
use super::read_only::{self, InReadOnly};
use super::router_words;
use super::scatter;
use super::splice;
use super::template::{
    Hint, KeyPlace, KeySource, Keyed, OwnText, Plan, ReadLevels, Reason, Spread, Targets, Template,
};
use super::temporary;
use super::tenants;
use super::volatility;

/// What a plan was made against, besides the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) epoch: Epoch,
    pub(crate) path: u64,
    pub(crate) schema: Fingerprint,
}

/// What is known of each statement; of no text, that it is empty.
fn facts_of(classified: Vec<Classified>) -> Vec<Facts> {
    let mut facts: Vec<Facts> = classified.into_iter().map(|one| one.facts).collect();
    if facts.is_empty() {
        facts.push(classify::empty());
    }
    facts
}

/// The template of `text`.
///
/// # Errors
/// It has no route whatever its values are.
pub(crate) fn decide(
    text: &[u8],
    literals: &Literals,
    world: &World<'_>,
) -> Result<Template, RouteError> {
    let list = token::tokens(text)?;
    let statements = token::statements(text, &list);
    let bare: Vec<Vec<Token>> = statements.iter().map(Tokens::without_hints).collect();
    // What a function that is not the server's own reads, nobody tells.
    let calls_others = Cell::new(false);
    let known = |schema: Option<&str>, name: &str| {
        let nature = volatility::nature(schema, name, world);
        calls_others.set(calls_others.get() || nature.is_some());
        nature
    };
    let mut classified = Vec::new();
    let (mut goals, mut made) = (Vec::new(), Vec::new());
    let mut asides = Asides::default();
    for (whole, list) in statements.iter().zip(&bare) {
        let tokens = Tokens { text, list };
        let mut one = classify::classify_with(&tokens, &known);
        let hints = hints_of(whole, world)?;
        asides.primary |= hints.primary;
        asides.hinted = stricter(asides.hinted, hints.consistency);
        goals.push(goal(&tokens, &one, &hints, world, &mut asides)?);
        made.extend(temporary::name_made(&tokens, &one.facts, world));
        asides.next(&mut one);
        classified.push(one);
    }
    let of_tables = goals.iter().all(may_use_replica);
    let replica_ok = !asides.primary && of_tables && read_only::reads_apart(&classified);
    let read_only = read_only::of(&classified, asides.primary, of_tables);
    if world.map.is_sharded() {
        check_paths(&goals, &classified)?;
    }
    let plan = match asides.marked.take() {
        Some(keyed) if goals.len() == 1 => Plan::Marked(keyed),
        _ => combine(goals, &classified, world)?,
    };
    let cursor = cursor::of(text, &bare, &classified);
    let facts = facts_of(classified);
    let temporary = made.into();
    let access = facts.iter().map(|one| one.access).max().unwrap_or(Access::Read);
    let writes_stay = access == Access::Read || asides.stays(facts.len());
    let reads_stay =
        access == Access::Read && !calls_others.get() && asides.reads_stay(facts.len());
    let copy = copy::anchored(asides.copy.take(), &list)?;
    let splices = splice::anchored(asides.lists, &list)
        .ok_or_else(|| RouteError::unsupported("this form of INSERT", "name the columns"))?;
    let router = matches!(&plan, Plan::Fixed { targets: Targets::Router(_), .. });
    let own = ((router || !is_portable(&facts)) && !literals.is_empty())
        .then(|| OwnText { text: text.into(), literals: literals.clone() });
    let key_params = key_params(&plan);
    let hot = matches!(&*facts, [one] if one.is_plain() && is_about_rows(one.kind));
    Ok(Template {
        epoch: world.map.epoch(),
        statements: facts.into(),
        plan,
        access,
        hot,
        replica_ok,
        read_only,
        writes_stay,
        reads_stay,
        levels: ReadLevels { hinted: asides.hinted, tables: asides.level },
        key_params,
        own,
        splices,
        copy,
        temporary,
        cursor,
    })
}

/// Whether statements of this kind read or write rows of tables.
pub(super) const fn is_about_rows(kind: Kind) -> bool {
    matches!(kind, Kind::Select | Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge)
}

fn key_params(plan: &Plan) -> Box<[u16]> {
    let Plan::Keyed(keyed) = plan else { return Box::default() };
    let ends = keyed.intervals.iter().flat_map(|one| [&one.low, &one.high]);
    let bounds = ends.flatten().map(|bound| &bound.source);
    let mut params: Vec<u16> = keyed
        .sources
        .iter()
        .chain(bounds)
        .flat_map(KeySource::values)
        .filter_map(|source| match source.place {
            KeyPlace::Param { index, .. } => Some(index),
            KeyPlace::Literal(_) | KeyPlace::Null => None,
        })
        .collect();
    params.sort_unstable();
    params.dedup();
    params.into()
}

/// Whether a goal leaves a read to a replica.
fn may_use_replica(goal: &Goal) -> bool {
    match goal {
        Goal::Fixed(targets, reason) => {
            *reason == Reason::Unsharded
                || (matches!(targets, Targets::Shard(_)) && *reason != Reason::Hint)
                || (*targets == Targets::AnyShard && *reason == Reason::Reference)
        }
        Goal::Keyed(_) => true,
        Goal::Refused(_) => false,
    }
}

/// Refuses a text in which a statement looks names up by a path that one before
/// it sets.
fn check_paths(goals: &[Goal], classified: &[Classified]) -> Result<(), RouteError> {
    let mut moved = false;
    for (goal, one) in goals.iter().zip(classified) {
        if moved && reads_names(goal) {
            return Err(RouteError::unsupported(
                "a change of search_path before a statement that it concerns, in one text,",
                "send it by itself",
            ));
        }
        moved |= moves_path(&one.facts.effect);
    }
    Ok(())
}

/// Whether later statements look names up in other schemas.
fn moves_path(effect: &SessionEffect) -> bool {
    let path = |name: &str| name == "search_path";
    effect.each().iter().any(|effect| match effect {
        SessionEffect::Set { name, .. } | SessionEffect::Reset { name } => path(name),
        SessionEffect::ResetAll | SessionEffect::DiscardAll => true,
        SessionEffect::SetConfig { name, .. } => match name {
            Argument::Text(name) => path(&name.to_lowercase()),
            Argument::Null | Argument::Param(_) | Argument::Opaque => true,
        },
        _ => false,
    })
}

/// Whether the goal rests on what names stand for.
fn reads_names(goal: &Goal) -> bool {
    match goal {
        Goal::Keyed(_) => true,
        Goal::Fixed(_, reason) => [
            Reason::SingleShard,
            Reason::Reference,
            Reason::Schema,
            Reason::Maintenance,
            Reason::Tenant,
        ]
        .contains(reason),
        Goal::Refused(_) => false,
    }
}

/// Where one statement wants to go.
#[derive(Clone, Debug)]
pub(super) enum Goal {
    Fixed(Targets, Reason),
    Keyed(Keyed),
    /// The session may handle it by its effect; sent as it is, it has no route.
    Refused(RouteError),
}

/// The plan of a text of one statement, or of none.
fn alone(goal: Option<Goal>) -> Plan {
    match goal {
        None => Plan::Fixed { targets: Targets::AnyShard, reason: Reason::NoTable },
        Some(Goal::Fixed(targets, reason)) => Plan::Fixed { targets, reason },
        Some(Goal::Keyed(keyed)) => Plan::Keyed(keyed),
        Some(Goal::Refused(error)) => Plan::Refused(error),
    }
}

/// One plan for all statements of a text, which runs as one transaction.
fn combine(
    goals: Vec<Goal>,
    classified: &[Classified],
    world: &World<'_>,
) -> Result<Plan, RouteError> {
    if goals.len() <= 1 {
        return Ok(alone(goals.into_iter().next()));
    }
    let mut sources = Vec::new();
    let mut keyed = false;
    let mut single: Option<ShardId> = None;
    let mut wanted: Option<(Targets, Reason)> = None;
    let mut in_turn = 0;
    let count = goals.len();
    let mut want = |shard: ShardId| match single.replace(shard) {
        Some(other) if other != shard => Err(RouteError::SeveralShards),
        _ => Ok(()),
    };
    for goal in goals {
        match goal {
            Goal::Refused(error) => return Err(error),
            Goal::Keyed(one) if !one.is_simple() => return Err(alone_only(one)),
            Goal::Keyed(Keyed { sources: more, single, .. }) => {
                keyed = true;
                sources.extend(more);
                single.map_or(Ok(()), &mut want)?;
            }
            Goal::Fixed(Targets::Shard(shard), reason) => {
                want(shard)?;
                wanted = Some((Targets::Shard(shard), reason));
            }
            Goal::Fixed(Targets::Home, reason) => {
                want(world.map.home())?;
                wanted = Some((Targets::Home, reason));
            }
            Goal::Fixed(Targets::HomeOutside, Reason::Catalog | Reason::Schemas) => {
                want(world.map.home())?;
                wanted = Some((Targets::Home, Reason::Catalog));
            }
            Goal::Fixed(Targets::HomeOutside, reason) => {
                wanted = wanted.or(Some((Targets::Home, reason)));
            }
            Goal::Fixed(Targets::AnyShard, reason) => {
                wanted = wanted.or(Some((Targets::AnyShard, reason)));
            }
            Goal::Fixed(Targets::AllInTurn, _) => in_turn += 1,
            Goal::Fixed(Targets::Router(_), _) => {
                return Err(RouteError::unsupported(
                    "a statement for the router among others",
                    "send it by itself",
                ));
            }
            // Known only once there are values.
            Goal::Fixed(Targets::Several(several), _) => return Err(several.why),
        }
    }
    if in_turn > 0 {
        return in_turn_alone(in_turn == count, classified);
    }
    if keyed {
        return Ok(Plan::Keyed(Keyed::one_shard(sources, single)));
    }
    let (targets, reason) = wanted.unwrap_or((Targets::AnyShard, Reason::Session));
    Ok(match single {
        Some(shard) if targets != Targets::Home => {
            Plan::Fixed { targets: Targets::Shard(shard), reason }
        }
        _ => Plan::Fixed { targets, reason },
    })
}

/// Why a statement can't be one of several.
fn alone_only(keyed: Keyed) -> RouteError {
    let construct = match (keyed.open, keyed.hint) {
        (Some(open), _) => return open.why,
        (None, Some(_)) => "a statement with a routing hint among others",
        (None, None) => "a range of keys among other statements",
    };
    RouteError::unsupported(construct, "send it by itself")
}

/// The plan of statements of which some go to every shard in turn.
fn in_turn_alone(all: bool, classified: &[Classified]) -> Result<Plan, RouteError> {
    if !all || classified.iter().any(|one| one.facts.tx != TxEffect::None) {
        return Err(RouteError::unsupported(
            "a schema change among other statements",
            "send schema changes by themselves",
        ));
    }
    Ok(Plan::Fixed { targets: Targets::AllInTurn, reason: Reason::Schema })
}

/// The hints of a statement; of those on an unsharded database only `primary`
/// and `consistency` have a meaning, and none is an error.
fn hints_of(t: &Tokens<'_>, world: &World<'_>) -> Result<Hints, RouteError> {
    let hints = hints::read(t, world.map);
    if world.map.is_sharded() {
        return hints;
    }
    let Hints { primary, consistency, .. } = hints.unwrap_or_default();
    Ok(Hints { primary, consistency, ..Hints::default() })
}

fn goal(
    t: &Tokens<'_>,
    one: &Classified,
    hints: &Hints,
    world: &World<'_>,
    asides: &mut Asides,
) -> Result<Goal, RouteError> {
    if let Some(command) = router_words::command(t, one.facts.kind) {
        return Ok(Goal::Fixed(Targets::Router(command), Reason::Router));
    }
    if !world.map.is_sharded() {
        if !marked::note(t, one, world, asides) {
            asides.note_unsharded(t, one, world);
        }
        return Ok(Goal::Fixed(Targets::Home, Reason::Unsharded));
    }
    if one.facts.effect.each().contains(&SessionEffect::TempTable) {
        let own = temporary::create(t, one, world, asides)?;
        return if hints.shard.is_some() || hints.key.is_some() {
            hinted(own, hints, world)
        } else {
            Ok(own)
        };
    }
    if hints.shard.is_some() || hints.key.is_some() {
        hinted_goal(t, one, hints, world, asides)
    } else {
        sharded_goal(t, one, world, asides)
    }
}

/// The goal of a statement whose comment names its shard or key.
fn hinted_goal(
    t: &Tokens<'_>,
    one: &Classified,
    hints: &Hints,
    world: &World<'_>,
    asides: &mut Asides,
) -> Result<Goal, RouteError> {
    match one.facts.kind {
        Kind::Select
        | Kind::Insert
        | Kind::Update
        | Kind::Delete
        | Kind::Merge
        | Kind::Explain
        | Kind::Declare => {
            let own = sharded_goal(t, one, world, asides);
            let own = match (own, one.facts.kind, hints.shard) {
                // What can't be read can still be asked of one shard.
                (Err(RouteError::Unread { .. }), Kind::Select, Some(shard)) => {
                    return Ok(Goal::Fixed(Targets::Shard(shard), Reason::Hint));
                }
                (own, ..) => own?,
            };
            hinted(own, hints, world)
        }
        Kind::CopyIn if hints.key.is_some() => {
            hinted(sharded_goal(t, one, world, asides)?, hints, world)
        }
        Kind::CopyIn => {
            Err(RouteError::BadHint { reason: "the rows of a COPY need a key, not a shard".into() })
        }
        Kind::Ddl
        | Kind::Maintenance
        | Kind::Call
        | Kind::Do
        | Kind::Lock
        | Kind::Truncate
        | Kind::CopyOut => {
            let any = Goal::Fixed(Targets::AnyShard, Reason::Hint);
            hinted(any, hints, world)
        }
        other => Err(RouteError::BadHint {
            reason: format!("{} can't be placed by a comment", other.word()).into(),
        }),
    }
}

/// `own`, restricted to what the hints say.
fn hinted(own: Goal, hints: &Hints, world: &World<'_>) -> Result<Goal, RouteError> {
    let bad = |reason: &str| RouteError::BadHint { reason: reason.into() };
    let key_shard = match &hints.key {
        None => None,
        Some(text) => {
            let keyspace = match &own {
                Goal::Keyed(keyed) => keyed.keyspace(),
                Goal::Fixed(..) | Goal::Refused(_) => None,
            };
            let keyspace = match (keyspace, world.map.keyspaces()) {
                (Some(id), _) => world.map.keyspace(id),
                (None, [only]) => Some(only),
                (None, _) => None,
            };
            let keyspace = keyspace.ok_or_else(|| {
                bad("the statement has no tables of one keyspace, which the key needs")
            })?;
            let mut scratch = Scratch::default();
            Some(keyspace.owner(&keyspace.key_from_text(text, &mut scratch)?))
        }
    };
    let shard = match (hints.shard, key_shard) {
        (Some(named), Some(owner)) if named != owner => {
            return Err(bad("the key lies on another shard"));
        }
        (Some(shard), _) | (None, Some(shard)) => shard,
        (None, None) => return Ok(own),
    };
    match own {
        Goal::Keyed(Keyed { sources, single, .. }) => {
            if single.is_some_and(|single| single != shard) {
                return Err(bad("the statement itself names another key or shard"));
            }
            let hint = hints.key.clone().map_or(Hint::Shard, Hint::Key);
            let (single, hint) = (Some(shard), Some(hint));
            let across = Err(RouteError::SeveralShards);
            let (open, spread) = (None, Spread::OneShard);
            // What intervals leave open, the hint says.
            let intervals = Box::default();
            Ok(Goal::Keyed(Keyed { sources, intervals, single, open, spread, hint, across }))
        }
        Goal::Fixed(Targets::Shard(other), _) if other != shard => {
            Err(bad("the statement itself names another key or shard"))
        }
        Goal::Fixed(..) => Ok(Goal::Fixed(Targets::Shard(shard), Reason::Hint)),
        Goal::Refused(error) => Err(error),
    }
}

fn sharded_goal(
    t: &Tokens<'_>,
    one: &Classified,
    world: &World<'_>,
    asides: &mut Asides,
) -> Result<Goal, RouteError> {
    let refuse = |construct, hint| Err(RouteError::unsupported(construct, hint));
    let inner = one.inner.map(|(start, end)| t.slice(start, end));
    match one.facts.kind {
        Kind::Select | Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge => {
            query(t, one, world, asides)
        }
        Kind::Explain | Kind::Declare | Kind::CopyOut if inner.is_some() => {
            let inner = inner.unwrap_or(*t);
            let inside = classify::classify(&inner);
            match inside.facts.kind {
                Kind::Select => query(&inner, one, world, asides),
                Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge => {
                    Ok(on_one_shard(query(&inner, one, world, asides)?))
                }
                other => refuse(other.word(), "explain or copy a query"),
            }
        }
        Kind::CopyIn if inner.is_some() => refuse("COPY (…) FROM", ""),
        Kind::CopyIn | Kind::CopyOut => copy::goal(t, one, world, asides),
        Kind::Lock | Kind::Truncate => whole_tables(t, one, world),
        Kind::Transaction => match one.facts.tx {
            TxEffect::CommitPrepared | TxEffect::RollbackPrepared => refuse(
                "finishing a prepared transaction",
                "finish it on the shard where it was prepared",
            ),
            _ => Ok(Goal::Fixed(Targets::AnyShard, Reason::Session)),
        },
        Kind::Show | Kind::Set | Kind::Reset | Kind::Discard | Kind::Deallocate | Kind::Empty => {
            Ok(Goal::Fixed(Targets::AnyShard, Reason::Session))
        }
        Kind::Cursor => Ok(Goal::Fixed(Targets::AnyShard, Reason::Cursor)),
        Kind::Listen | Kind::Notify => Ok(Goal::Fixed(Targets::Home, Reason::Notify)),
        Kind::Prepare | Kind::Execute => Ok(Goal::Refused(RouteError::unsupported(
            "PREPARE or EXECUTE among other statements",
            "send it by itself",
        ))),
        Kind::Ddl | Kind::Maintenance
            if let Some(goal) = temporary::change(t, one.facts.kind, world)? =>
        {
            Ok(goal)
        }
        Kind::Ddl => ddl::goal(t, one, world, asides),
        Kind::Maintenance => Ok(match ddl::place(t, world)? {
            Some(shard) => Goal::Fixed(Targets::Shard(shard), Reason::SingleShard),
            None => Goal::Fixed(Targets::AllInTurn, Reason::Maintenance),
        }),
        Kind::Call | Kind::Do => Ok(match tenants::without_table(t, world)? {
            Some(shard) => Goal::Fixed(Targets::Shard(shard), Reason::Tenant),
            None if one.facts.kind == Kind::Do => only_declared("DO"),
            None => only_declared("CALL"),
        }),
        Kind::Explain | Kind::ExplainRoute | Kind::Declare => {
            refuse("this form of the statement", "")
        }
        Kind::Unknown => Err(RouteError::Unread {
            reason: format!("{} begins no statement known here", shown(t.bytes(0))).into(),
        }),
    }
}

const SAY_WHERE: &str = "say where with SET keyway.key, or with a comment: /* keyway: key=… */ or /* keyway: shard=… */";

/// The goal of a statement that runs where the session has declared.
fn only_declared(construct: &str) -> Goal {
    let why = RouteError::unsupported(construct, SAY_WHERE);
    let open = Open { shards: Box::default(), keyspaces: Box::default(), why };
    Goal::Keyed(Keyed { open: Some(open), ..Keyed::one_shard(Vec::new(), None) })
}

/// SELECT, INSERT, UPDATE, DELETE and MERGE, also inside EXPLAIN, DECLARE and COPY.
pub(super) fn query(
    t: &Tokens<'_>,
    one: &Classified,
    world: &World<'_>,
    asides: &mut Asides,
) -> Result<Goal, RouteError> {
    let mut shape =
        parse::parse(t).and_then(|tree| shape::shape(&tree)).map_err(|error| match error {
            ParseError::Unread(reason) => RouteError::Unread { reason },
            ParseError::Construct(construct) => RouteError::Unsupported { construct, hint: "" },
        })?;
    if world.search_path.hides_catalog() {
        return Err(RouteError::unsupported(
            "a search path with a schema before pg_catalog",
            "leave pg_catalog out of the search path",
        ));
    }
    asides.lists.extend(splice::fill(&mut shape, world)?);
    let placed = place::place(&shape, world, &param_uses(t), marked::calls(one))?;
    let may_spread = placed.open.is_some()
        || placed.sources.iter().any(KeySource::is_list)
        || placed.sources.len() > 1
        || !placed.intervals.is_empty();
    let one = asides.note(&placed, one);
    let temporary = placed.temporary;
    let mut goal = settle(placed, &one)?;
    if let Goal::Fixed(
        Targets::Home | Targets::HomeOutside,
        Reason::NoTable | Reason::Catalog | Reason::Schemas,
    ) = goal
        && let Some(shard) = tenants::without_table(t, world)?
    {
        goal = Goal::Fixed(Targets::Shard(shard), Reason::Tenant);
    }
    if temporary {
        // Its rows are nowhere else, and on a backend that is the session's own.
        goal = on_one_shard(goal);
    }
    if matches!(goal, Goal::Fixed(Targets::Home, Reason::NoTable))
        && of_session::asks_session(t, world)
    {
        goal = Goal::Fixed(Targets::Home, Reason::Session);
    }
    if let Goal::Keyed(Keyed { open, spread: Spread::ManyShards, across, .. }) = &mut goal
        && may_spread
    {
        let why = open.as_ref().map_or(RouteError::SeveralShards, |open| open.why.clone());
        *across = scatter::prove(t, &shape, world, why);
    }
    Ok(goal)
}

/// `goal`, for which several shards are no answer.
fn on_one_shard(mut goal: Goal) -> Goal {
    if let Goal::Keyed(keyed) = &mut goal {
        keyed.spread = Spread::OneShard;
    }
    goal
}

/// The goal of a statement whose tables are placed.
fn settle(placed: Placed, one: &Classified) -> Result<Goal, RouteError> {
    let Placed {
        sources,
        intervals,
        single,
        reference,
        system,
        live,
        open,
        demand: _,
        stays: _,
        apart: _,
        temporary: _,
    } = placed;
    let read = one.facts.access == Access::Read;
    if let Some(table) = &reference
        && one.locks
    {
        return Err(RouteError::ReferenceWrite { table: table.clone() });
    }
    let keyed = !sources.is_empty() || !intervals.is_empty() || open.is_some();
    if system && (keyed || !single.is_empty()) {
        return Err(RouteError::unsupported(
            "a system catalog beside a table of the map",
            "query the catalog by itself",
        ));
    }
    let mut shards = single.into_iter();
    let first = shards.next();
    if shards.next().is_some() {
        return Err(RouteError::SeveralShards);
    }
    if keyed {
        let kinds = [Kind::Select, Kind::Explain, Kind::CopyOut, Kind::Declare];
        let many = read && kinds.contains(&one.facts.kind);
        let spread = if many { Spread::ManyShards } else { Spread::OneShard };
        let across = Err(RouteError::SeveralShards);
        let (sources, intervals, single) = (sources.into(), intervals.into(), first);
        let hint = None;
        return Ok(Goal::Keyed(Keyed { sources, intervals, single, open, spread, hint, across }));
    }
    Ok(match (first, reference, system) {
        (Some(shard), _, _) => Goal::Fixed(Targets::Shard(shard), Reason::SingleShard),
        (None, Some(_), false) if read => Goal::Fixed(Targets::AnyShard, Reason::Reference),
        (None, Some(_), _) => Goal::Fixed(Targets::Home, Reason::Reference),
        (None, None, system) => {
            let reason = match (system, live) {
                (true, false) => Reason::Schemas,
                (true, true) => Reason::Catalog,
                (false, _) => Reason::NoTable,
            };
            let outside = read
                && one.nature == Nature::Neutral
                && one.facts.is_plain()
                && one.facts.kind == Kind::Select;
            Goal::Fixed(if outside { Targets::HomeOutside } else { Targets::Home }, reason)
        }
    })
}

/// How often each parameter stands in the statement.
pub(super) fn param_uses(t: &Tokens<'_>) -> Vec<u16> {
    let mut uses = Vec::new();
    for i in 0..t.len() {
        if let Some(index) = t.param(i) {
            let at = usize::from(index);
            if uses.len() <= at {
                uses.resize(at + 1, 0_u16);
            }
            if let Some(count) = uses.get_mut(at) {
                *count = count.saturating_add(1);
            }
        }
    }
    uses
}

/// LOCK and TRUNCATE: all of their tables must be on one shard. LOCK of sharded
/// tables goes where the session has declared.
fn whole_tables(t: &Tokens<'_>, one: &Classified, world: &World<'_>) -> Result<Goal, RouteError> {
    let lock = one.facts.kind == Kind::Lock;
    let refuse = || match lock {
        true => RouteError::unsupported("LOCK", SAY_WHERE),
        false => RouteError::unsupported("TRUNCATE", "run it on each shard directly"),
    };
    let mut at = 1 + usize::from(t.is_word(1, "table"));
    let mut found: Option<ShardId> = None;
    let mut keyspaces = Vec::new();
    loop {
        at += usize::from(t.is_word(at, "only"));
        let (schema, name) = table_name(t, at).ok_or_else(refuse)?;
        match place::named(schema.as_deref(), &name, world)? {
            Named::Listed(Table::Single(shard)) => {
                if found.replace(shard).is_some_and(|other| other != shard) {
                    return Err(RouteError::SeveralShards);
                }
            }
            Named::Listed(Table::Sharded { keyspace, .. }) if lock => keyspaces.push(keyspace),
            Named::Listed(Table::Sharded { .. } | Table::Reference) | Named::System => {
                return Err(refuse());
            }
        }
        at += if schema.is_some() { 3 } else { 1 };
        at += usize::from(t.is_operator(at, "*"));
        if !t.is_punct(at, ",") {
            break;
        }
        at += 1;
    }
    Ok(match found {
        Some(shard) if keyspaces.is_empty() => {
            Goal::Fixed(Targets::Shard(shard), Reason::SingleShard)
        }
        found => {
            let (shards, keyspaces) = (Box::default(), keyspaces.into());
            let open = Some(Open { shards, keyspaces, why: refuse() });
            Goal::Keyed(Keyed { open, ..Keyed::one_shard(Vec::new(), found) })
        }
    })
}

/// A table's name at token `at`.
pub(super) fn table_name(t: &Tokens<'_>, at: usize) -> Option<(Option<Box<str>>, Box<str>)> {
    let first = t.name(at)?;
    if t.is_punct(at + 1, ".") {
        let name = t.name(at + 2)?;
        return (!t.is_punct(at + 3, ".")).then_some((Some(first), name));
    }
    Some((None, first))
}

/// A token for an error message, cut short.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    format!("\"{}\"", text.chars().take(32).collect::<String>())
}

/// Whether the facts hold nothing of the text itself, so that they serve every
/// text of the same normal form.
fn is_portable(facts: &[Facts]) -> bool {
    let [one] = facts else { return false };
    one.tx == TxEffect::None
        && one.effect.each().iter().all(|effect| {
            matches!(
                effect,
                SessionEffect::Dirty
                    | SessionEffect::CurrVal
                    | SessionEffect::SessionAdvisoryLock
                    | SessionEffect::AdvisoryUnlock { .. }
                    | SessionEffect::TempTable
                    | SessionEffect::HoldCursor { .. }
            )
        })
}

/// The template of a text that has no tokens, for an unsharded database: the
/// server will say what is wrong with it.
pub(crate) fn opaque(text: &[u8], world: &World<'_>) -> Template {
    Template {
        epoch: world.map.epoch(),
        statements: Box::new([Facts {
            kind: Kind::Unknown,
            span: Span { start: 0, end: u32::try_from(text.len()).unwrap_or(u32::MAX) },
            access: Access::Write,
            tx: TxEffect::None,
            effect: SessionEffect::Dirty,
        }]),
        plan: Plan::Fixed { targets: Targets::Home, reason: Reason::Unsharded },
        access: Access::Write,
        hot: false,
        replica_ok: false,
        read_only: InReadOnly::Primary,
        writes_stay: false,
        reads_stay: false,
        levels: ReadLevels::default(),
        key_params: Box::default(),
        own: None,
        splices: Box::default(),
        copy: None,
        temporary: Box::default(),
        cursor: None,
    }
}
