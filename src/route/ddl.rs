//! Where a change of a schema runs: on every shard, one after the other, or on the
//! one shard that has the schema which it is about, a tenant's or one that the map
//! places by name. A table that the map places by itself is made on every shard, so
//! that what asks one shard's catalogs finds it. A table made from a query is made
//! where the query's rows are.
//!
//! It does not know what the change does.

use std::collections::BTreeSet;

use crate::sql::classify::Classified;
use crate::sql::token::Tokens;
use crate::types::ShardId;

use super::asides::Asides;
use super::decide::{Goal, query, table_name};
use super::error::RouteError;
use super::planner::World;
use super::template::{Keyed, Reason, Targets};
use super::temporary;
use super::tenants;

/// The goal of CREATE and its like.
///
/// # Errors
/// It is about what is on several shards, or it reads rows of another shard, or of
/// tables that are made on all of them.
pub(super) fn goal(
    t: &Tokens<'_>,
    one: &Classified,
    world: &World<'_>,
    asides: &mut Asides,
) -> Result<Goal, RouteError> {
    let place = place(t, world)?;
    if !reads(t) {
        let fixed = |targets| Goal::Fixed(targets, Reason::Schema);
        return Ok(fixed(place.map_or(Targets::AllInTurn, Targets::Shard)));
    }
    let refused = || {
        RouteError::unsupported(
            "creating a table from a query",
            "create the table, then insert the rows",
        )
    };
    let inner = temporary::query_of(t).ok_or_else(refused)?;
    let shard = place.ok_or_else(refused)?;
    let apart = || {
        RouteError::unsupported(
            "creating a table from a query of another shard",
            "create the table, then insert the rows",
        )
    };
    match query(&inner, one, world, asides)? {
        Goal::Keyed(keyed) if keyed.single.is_none_or(|single| single == shard) => {
            Ok(Goal::Keyed(Keyed { single: Some(shard), ..keyed }))
        }
        Goal::Fixed(Targets::Shard(other), _) if other == shard => {
            Ok(Goal::Fixed(Targets::Shard(shard), Reason::Schema))
        }
        // Every shard has what it reads: reference tables, or the session's own state.
        Goal::Fixed(_, Reason::Reference | Reason::NoTable | Reason::Session) => {
            Ok(Goal::Fixed(Targets::Shard(shard), Reason::Schema))
        }
        Goal::Refused(error) => Err(error),
        Goal::Fixed(..) | Goal::Keyed(_) => Err(apart()),
    }
}

/// The one shard on which is what a change of a schema, or a statement that
/// maintains tables, is about; `None` if every shard has it.
///
/// # Errors
/// It is about what is on several shards, or on one and on all, or its name can't be
/// told apart.
pub(super) fn place(t: &Tokens<'_>, world: &World<'_>) -> Result<Option<ShardId>, RouteError> {
    if let Some(shard) = tenants::concerned(t, world)? {
        return Ok(Some(shard));
    }
    if !world.map.has_single_schemas() {
        return Ok(None);
    }
    let mut places: BTreeSet<Option<ShardId>> =
        tenants::schemas_named(t).iter().map(|name| world.map.sole_shard(name)).collect();
    if let Some(object) = tenants::object(t) {
        places.insert(of_schema(t, object.schema.as_deref(), world)?);
        let mut at = object.end;
        loop {
            if t.is_punct(at, "(") {
                at = t.after_parens(at);
            }
            if !t.is_punct(at, ",") {
                break;
            }
            let Some((schema, _)) = table_name(t, at + 1) else { break };
            places.insert(of_schema(t, schema.as_deref(), world)?);
            at += if schema.is_some() { 4 } else { 2 };
        }
    }
    let mut places = places.into_iter();
    match (places.next(), places.next()) {
        (Some(_), Some(_)) => Err(RouteError::unsupported(
            "one statement for a schema that is on one shard and for others",
            "send one for each schema",
        )),
        (found, _) => Ok(found.flatten()),
    }
}

/// The one shard of what is in this schema or, without one, in that which the
/// search path leads to.
fn of_schema(
    t: &Tokens<'_>,
    schema: Option<&str>,
    world: &World<'_>,
) -> Result<Option<ShardId>, RouteError> {
    match schema {
        Some(schema) => Ok(world.map.sole_shard(schema)),
        None => tenants::unqualified(t, world),
    }
}

/// Whether it makes a table of what a query says.
fn reads(t: &Tokens<'_>) -> bool {
    let makes = t.is_word(0, "create")
        && !t.is_word(1, "view")
        && ["table", "materialized"].iter().any(|word| (1..4).any(|i| t.is_word(i, word)));
    let queries = |i: usize| {
        t.is_word(i, "as")
            && ["select", "with", "table", "values", "execute"]
                .iter()
                .any(|word| t.is_word(i + 1, word) || t.is_word(i + 2, word))
    };
    t.is_word(0, "select") || t.is_word(0, "with") || (makes && (2..t.len()).any(queries))
}
