//! Temporary tables on shards: each is on the shard whose backend made it, which
//! the session keeps. Which ones there are the session knows and puts into its
//! [`SearchPath`](super::SearchPath); what they mean for a statement is said
//! here and in `place`: they are tables of one shard.
//!
//! A name is temporary or it is not: one that the map or a catalog knows can't
//! be made temporary, so that a table which is gone again, by a rollback or a
//! DROP, is never taken for another one. The worst is then that the shard says
//! that there is none.

use crate::sql::statement::{Facts, Kind, SessionEffect};
use crate::sql::token::Tokens;
use crate::types::ShardId;

use super::asides::Asides;
use super::decide::{Goal, query, table_name};
use super::error::RouteError;
use super::planner::World;
use super::resolve;
use super::template::{Reason, Targets};
use super::tenants;
use crate::sql::classify::Classified;

/// The shard of the temporary table that `schema.name`, or `name`, stands for;
/// `None` if it stands for none.
///
/// # Errors
/// The map or a catalog knows a table of this name too.
pub(super) fn shard_of(
    schema: Option<&str>,
    name: &str,
    world: &World<'_>,
) -> Result<Option<ShardId>, RouteError> {
    if schema.is_some_and(|schema| schema != SCHEMA) {
        return Ok(None);
    }
    let Some(shard) = world.search_path.temporary(name) else {
        return match schema {
            Some(_) => Err(RouteError::UnknownTable { table: format!("{SCHEMA}.{name}").into() }),
            None => Ok(None),
        };
    };
    if schema.is_none() && is_known(name, world) {
        return Err(RouteError::unsupported(
            "a name that is a temporary table's and another one's",
            "name the schema, or end the temporary table with DISCARD ALL",
        ));
    }
    Ok(Some(shard))
}

/// Whether a permanent relation of this name is in sight, or may be.
fn is_known(name: &str, world: &World<'_>) -> bool {
    let in_catalog = resolve::known(world)
        .is_some_and(|catalog| !matches!(resolve::schema_of(None, name, world, catalog), Ok(None)));
    in_catalog || world.map.has_table_named(name)
}

/// What a CREATE makes.
struct Made<'t> {
    name: Box<str>,
    query: Option<Tokens<'t>>,
}

/// The name that a CREATE TEMPORARY TABLE of a sharded database makes; `None`
/// for every other statement.
pub(super) fn name_made(t: &Tokens<'_>, facts: &Facts, world: &World<'_>) -> Option<Box<str>> {
    let makes = world.map.is_sharded() && facts.effect.each().contains(&SessionEffect::TempTable);
    makes.then(|| read(t).ok()).flatten().map(|made| made.name)
}

/// The goal of a statement that makes something temporary.
pub(super) fn create(
    t: &Tokens<'_>,
    one: &Classified,
    world: &World<'_>,
    asides: &mut Asides,
) -> Result<Goal, RouteError> {
    let made = read(t)?;
    if resolve::known(world).is_none() {
        return Err(RouteError::unsupported(
            "a temporary table before the shards' schemas are known",
            "try again in a moment",
        ));
    }
    let before = world.search_path.temporary(&made.name);
    if is_known(&made.name, world) {
        return Err(RouteError::unsupported(
            &format!("a temporary table called {}, which is the name of another table,", made.name),
            "give it another name",
        ));
    }
    let own = match made.query {
        None => match tenants::of_path(world) {
            Some(shard) => Goal::Fixed(Targets::Shard(shard), Reason::Tenant),
            None => Goal::Fixed(Targets::Home, Reason::Temporary),
        },
        Some(inner) => query(&inner, one, world, asides)?,
    };
    // Again on its shard, or nowhere: the first one may still be there.
    match (before, own) {
        (None, own) => Ok(own),
        (Some(shard), Goal::Fixed(Targets::Home, Reason::Temporary | Reason::NoTable)) => {
            Ok(Goal::Fixed(Targets::Shard(shard), Reason::SingleShard))
        }
        (Some(shard), Goal::Fixed(Targets::Shard(other), reason)) if shard == other => {
            Ok(Goal::Fixed(Targets::Shard(shard), reason))
        }
        (Some(shard), Goal::Keyed(mut keyed)) if keyed.single.is_none_or(|it| it == shard) => {
            keyed.single = Some(shard);
            Ok(Goal::Keyed(keyed))
        }
        (Some(_), Goal::Fixed(..) | Goal::Keyed(_) | Goal::Refused(_)) => {
            Err(RouteError::unsupported(
                "a temporary table that the session has made on another shard",
                "give it another name, or end the first one with DISCARD ALL",
            ))
        }
    }
}

/// The query of which a CREATE TABLE … AS makes a table, permanent or not; `None`
/// of every other statement.
pub(super) fn query_of<'t>(t: &Tokens<'t>) -> Option<Tokens<'t>> {
    read(t).ok()?.query
}

fn read<'t>(t: &Tokens<'t>) -> Result<Made<'t>, RouteError> {
    let form = || {
        RouteError::unsupported(
            "a temporary object of this form",
            "CREATE TEMPORARY TABLE name (…), or CREATE TEMPORARY TABLE name AS SELECT …",
        )
    };
    let mut at = 1 + usize::from(t.is_word(1, "local") || t.is_word(1, "global"));
    let temporary = t.is_word(at, "temp") || t.is_word(at, "temporary");
    at += usize::from(temporary || t.is_word(at, "unlogged"));
    if !t.is_word(0, "create") || !t.is_word(at, "table") {
        return Err(form());
    }
    at += 1;
    if t.are_words(at, &["if", "not", "exists"]) {
        at += 3;
    }
    let (schema, name) = table_name(t, at).ok_or_else(form)?;
    let foreign = schema.as_deref().is_some_and(|schema| schema != SCHEMA);
    if temporary && foreign {
        return Err(form());
    }
    at += if schema.is_some() { 3 } else { 1 };
    let mut depth = 0_usize;
    for i in at..t.len() {
        if t.is_punct(i, "(") {
            depth += 1;
        } else if t.is_punct(i, ")") {
            depth = depth.checked_sub(1).ok_or_else(form)?;
        } else if depth > 0 {
        } else if t.is_word(i, "as") {
            let mut end = t.len();
            if t.are_words(end.saturating_sub(3), &["with", "no", "data"]) {
                end -= 3;
            } else if t.are_words(end.saturating_sub(2), &["with", "data"]) {
                end -= 2;
            }
            return Ok(Made { name, query: Some(t.slice(i + 1, end)) });
        } else if t.is_word(i, "inherits")
            || t.are_words(i, &["partition", "of"])
            || t.is_word(i, "of")
        {
            // Its rows would be seen in another table's.
            return Err(form());
        }
    }
    if depth > 0 { Err(form()) } else { Ok(Made { name, query: None }) }
}

/// The goal of a schema change or of maintenance that is about a temporary table;
/// `None` if it names none.
///
/// # Errors
/// It is about more than temporary tables of one shard, or moves them out of
/// sight.
pub(super) fn change(
    t: &Tokens<'_>,
    kind: Kind,
    world: &World<'_>,
) -> Result<Option<Goal>, RouteError> {
    let path = world.search_path;
    let named = |i: usize| t.name(i).is_some_and(|name| path.temporary(&name).is_some());
    if !path.has_temporary() || !(0..t.len()).any(named) {
        return Ok(None);
    }
    let refuse = || {
        RouteError::unsupported(
            "a statement of this form that names a temporary table",
            "DROP TABLE, ALTER TABLE, CREATE INDEX and ANALYZE of temporary tables work; run others in another session",
        )
    };
    let mut found: Option<ShardId> = None;
    let mut at = first_name(t, kind).ok_or_else(refuse)?;
    loop {
        let (schema, name) = table_name(t, at).ok_or_else(refuse)?;
        let shard = shard_of(schema.as_deref(), &name, world)?.ok_or_else(refuse)?;
        if found.replace(shard).is_some_and(|other| other != shard) {
            return Err(RouteError::SeveralShards);
        }
        at += if schema.is_some() { 3 } else { 1 };
        if !(t.is_word(0, "drop") && t.is_punct(at, ",")) {
            break;
        }
        at += 1;
    }
    let moves = |i: usize| {
        ["rename", "schema", "inherit", "attach", "of"].iter().any(|word| t.is_word(i, word))
    };
    if t.is_word(0, "alter") && (at..t.len()).any(moves) {
        return Err(refuse());
    }
    Ok(found.map(|shard| Goal::Fixed(Targets::Shard(shard), Reason::SingleShard)))
}

/// Where the first of the names stands that a statement is about.
fn first_name(t: &Tokens<'_>, kind: Kind) -> Option<usize> {
    if kind == Kind::Maintenance {
        let analyze = t.is_word(0, "analyze") || t.is_word(0, "analyse");
        return analyze.then(|| 1 + usize::from(t.is_word(1, "verbose")));
    }
    let exists = |at: usize| if t.are_words(at, &["if", "exists"]) { at + 2 } else { at };
    match () {
        () if t.are_words(0, &["drop", "table"]) => Some(exists(2)),
        () if t.are_words(0, &["alter", "table"]) => {
            let at = exists(2);
            Some(at + usize::from(t.is_word(at, "only")))
        }
        () if t.is_word(0, "create") && (1..3).any(|i| t.is_word(i, "index")) => {
            (1..t.len()).find(|i| t.is_word(*i, "on")).map(|on| on + 1)
        }
        () => None,
    }
}

/// The schema of a session's temporary tables.
const SCHEMA: &str = "pg_temp";
