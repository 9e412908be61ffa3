//! Where statements go that concern a tenant's schema: changes of the schema and
//! of what is in it, its maintenance, and what is looked up by a search path
//! that holds one. Names are read here for other schemas on one shard, too (`ddl`).
//!
//! A name with a schema tells. A name without one is looked up as the server
//! would on the owner's shard, by the catalogs; where they don't know enough, the
//! statement must name the schema. Queries and writes need none of this: for them
//! a tenant's tables are tables of one shard (`place`, `resolve`).

use std::collections::BTreeSet;

use crate::catalog::Catalog;
use crate::sql::token::Tokens;
use crate::types::ShardId;

use super::decide::table_name;
use super::error::RouteError;
use super::planner::World;
use super::resolve;

/// The shard of the tenants whose schemas the search path holds, if they have
/// one in common: what names no table runs there, so that it finds what they
/// have.
pub(super) fn of_path(world: &World<'_>) -> Option<ShardId> {
    if !world.map.has_tenant_schemas() {
        return None;
    }
    let mut shards = world.search_path.schemas().filter_map(|name| world.map.tenant_shard(name));
    let first = shards.next()?;
    shards.all(|shard| shard == first).then_some(first)
}

/// The shard of the tenant that a change of a schema, or a statement that
/// maintains tables, is about; `None` if it is about none.
///
/// # Errors
/// It is about tenants of several shards, or about a tenant's schema and others,
/// or the name can't be told apart.
pub(super) fn concerned(t: &Tokens<'_>, world: &World<'_>) -> Result<Option<ShardId>, RouteError> {
    if !world.map.has_tenant_schemas() {
        return Ok(None);
    }
    let mut shards = qualifiers(t, world);
    let mut others = false;
    for name in schemas_named(t) {
        match world.map.tenant_shard(&name) {
            Some(shard) => drop(shards.insert(shard)),
            None => others = true,
        }
    }
    let about_schemas = t.is_word(1, "schema");
    let mut shards = shards.into_iter();
    match (shards.next(), shards.next()) {
        (Some(_), Some(_)) => Err(RouteError::unsupported(
            "one statement for schemas of tenants on several shards",
            "send one for each tenant",
        )),
        (Some(_), None) if about_schemas && others => Err(RouteError::unsupported(
            "one statement for a tenant's schema and one that is no tenant's",
            "send one for each schema; a tenant's schema can't be renamed to be none",
        )),
        (Some(shard), None) => Ok(Some(shard)),
        (None, _) => unqualified(t, world),
    }
}

/// The shard of the tenant to which functions and types belong that a statement
/// without tables names; else that of the search path.
///
/// # Errors
/// They belong to tenants of several shards.
pub(super) fn without_table(
    t: &Tokens<'_>,
    world: &World<'_>,
) -> Result<Option<ShardId>, RouteError> {
    if !world.map.has_tenant_schemas() {
        return Ok(None);
    }
    let mut shards = qualifiers(t, world).into_iter();
    match (shards.next(), shards.next()) {
        (Some(_), Some(_)) => Err(RouteError::SeveralShards),
        (Some(shard), None) => Ok(Some(shard)),
        (None, _) => Ok(of_path(world)),
    }
}

/// The shards of tenants by which names are qualified.
fn qualifiers(t: &Tokens<'_>, world: &World<'_>) -> BTreeSet<ShardId> {
    let leads = |i: &usize| t.is_punct(i + 1, ".") && (*i == 0 || !t.is_punct(i - 1, "."));
    let names = (0..t.len()).filter(leads).filter_map(|i| t.name(i));
    names.filter_map(|name| world.map.tenant_shard(&name)).collect()
}

/// The names after the word SCHEMA, and a schema's new name.
pub(super) fn schemas_named(t: &Tokens<'_>) -> Vec<Box<str>> {
    let mut found = Vec::new();
    for i in 0..t.len() {
        if !t.is_word(i, "schema") || t.is_punct(i + 1, ".") {
            continue;
        }
        let mut at = after_if(t, i + 1);
        at += usize::from(t.is_word(at, "authorization"));
        while let Some(name) = t.name(at) {
            found.push(name);
            if !t.is_punct(at + 1, ",") {
                break;
            }
            at += 2;
        }
        if t.is_word(0, "alter") && t.are_words(at + 1, &["rename", "to"]) {
            found.extend(t.name(at + 3));
        }
    }
    found
}

/// What a statement changes or maintains.
pub(super) struct Object {
    pub(super) schema: Option<Box<str>>,
    name: Box<str>,
    kind: ObjectKind,
    is_new: bool,
    /// The token behind its name.
    pub(super) end: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ObjectKind {
    Relation,
    Function,
    /// Something in a schema that the catalogs don't list.
    Other,
}

/// The owner's shard if the search path leads to a schema that is on one shard.
pub(super) fn unqualified(
    t: &Tokens<'_>,
    world: &World<'_>,
) -> Result<Option<ShardId>, RouteError> {
    let holds_placed = world.search_path.schemas().any(|name| world.map.sole_shard(name).is_some());
    if !holds_placed {
        return Ok(None);
    }
    let Some(object) = object(t).filter(|object| object.schema.is_none()) else { return Ok(None) };
    let catalog = resolve::known(world).ok_or_else(untold)?;
    let mut tenant = None;
    for schema in world.search_path.schemas() {
        let owner = world.map.sole_shard(schema);
        let exists = match owner {
            Some(owner) => catalog.shard(owner).ok_or_else(untold)?.schema(schema).is_some(),
            None => catalog.shards().any(|(_, shard)| shard.schema(schema).is_some()),
        };
        tenant = tenant.or(owner);
        if object.is_new {
            match (exists, owner) {
                (true, owner) => return Ok(owner),
                // It may have been made a moment ago.
                (false, Some(_)) => return Err(untold()),
                (false, None) => continue,
            }
        }
        if object.kind == ObjectKind::Other {
            return Err(untold());
        }
        let shards = holders(&object, schema, catalog);
        match owner {
            Some(owner) if shards.contains(&owner) => return Ok(Some(owner)),
            Some(_) if !shards.is_empty() => return Err(untold()),
            None if !shards.is_empty() || world.map.lists(schema, &object.name) => return Ok(None),
            Some(_) | None => {}
        }
    }
    // Nobody has it: the server will say so.
    Ok(if object.is_new { None } else { tenant })
}

/// The shards on which the schema has the object.
fn holders(object: &Object, schema: &str, catalog: &Catalog) -> BTreeSet<ShardId> {
    let has = |shard: &crate::catalog::ShardCatalog| match object.kind {
        ObjectKind::Relation => shard.relation(schema, &object.name).is_some(),
        ObjectKind::Function => !shard.functions(schema, &object.name).is_empty(),
        ObjectKind::Other => false,
    };
    catalog.shards().filter(|(_, shard)| has(shard)).map(|(id, _)| id).collect()
}

fn untold() -> RouteError {
    RouteError::unsupported(
        "a name without a schema where the search path holds a schema that is on one shard",
        "name the schema",
    )
}

/// What the statement changes or maintains, if that is something in a schema.
pub(super) fn object(t: &Tokens<'_>) -> Option<Object> {
    let first = t.name(0)?;
    let (at, is_new) = match &*first {
        "create" => (word_of_kind(t, 1)?, true),
        "alter" | "drop" => (word_of_kind(t, 1)?, false),
        "comment" | "grant" | "revoke" => {
            let on = (1..t.len()).find(|i| t.is_word(*i, "on"))?;
            return granted(t, on + 1);
        }
        "vacuum" | "analyze" | "analyse" | "reindex" | "cluster" | "refresh" => {
            return maintained(t);
        }
        _ => return None,
    };
    let word = t.name(at)?;
    // What belongs to a table is where that is.
    if let Some(marker) = marker(&word)
        && (is_new || word.as_ref() != "index")
    {
        let on = (at + 1..t.len()).find(|i| t.is_word(*i, marker))?;
        return table(t, on + 1 + usize::from(t.is_word(on + 1, "only")));
    }
    let mut name = after_if(t, at + 1 + usize::from(t.is_word(at + 1, "concurrently")));
    name += usize::from(t.is_word(name, "only"));
    named(t, name, kind_of(&word), is_new)
}

/// The object whose name stands at `at`.
fn named(t: &Tokens<'_>, at: usize, kind: ObjectKind, is_new: bool) -> Option<Object> {
    let (schema, name) = table_name(t, at)?;
    let end = at + if schema.is_some() { 3 } else { 1 };
    Some(Object { schema, name, kind, is_new, end })
}

fn table(t: &Tokens<'_>, at: usize) -> Option<Object> {
    named(t, at, ObjectKind::Relation, false)
}

/// The word before the name of the table that the object belongs to.
fn marker(word: &str) -> Option<&'static str> {
    match word {
        "index" | "trigger" | "policy" => Some("on"),
        "rule" => Some("to"),
        _ => None,
    }
}

fn kind_of(word: &str) -> ObjectKind {
    match word {
        "table" | "view" | "sequence" => ObjectKind::Relation,
        "function" | "procedure" | "aggregate" | "routine" => ObjectKind::Function,
        _ => ObjectKind::Other,
    }
}

/// Where the word for the kind of an object in a schema stands.
fn word_of_kind(t: &Tokens<'_>, from: usize) -> Option<usize> {
    const BEFORE: [&str; 12] = [
        "or",
        "replace",
        "global",
        "local",
        "unlogged",
        "recursive",
        "unique",
        "constraint",
        "foreign",
        "materialized",
        "temp",
        "temporary",
    ];
    let at = (from..t.len()).find(|i| !BEFORE.iter().any(|word| t.is_word(*i, word)))?;
    let word = t.name(at)?;
    let foreign_data = t.are_words(at, &["data", "wrapper"]);
    (IN_SCHEMAS.contains(&&*word) && !foreign_data).then_some(at)
}

/// The object of GRANT, REVOKE and COMMENT, which stands from `at` on.
fn granted(t: &Tokens<'_>, at: usize) -> Option<Object> {
    let word = t.name(at)?;
    if t.is_word(at, "materialized") || t.is_word(at, "foreign") {
        return table(t, at + 2);
    }
    let belongs = ["constraint", "trigger", "policy", "rule"].contains(&&*word);
    if belongs {
        let on = (at + 1..t.len()).find(|i| t.is_word(*i, "on"))?;
        return table(t, on + 1);
    }
    if *word == *"column" {
        // table.column, or schema.table.column.
        let (kind, is_new) = (ObjectKind::Relation, false);
        let (first, end) = (t.name(at + 1)?, t.len());
        let (schema, name) = match t.is_punct(at + 4, ".") {
            true => (Some(first), t.name(at + 3)?),
            false => (None, first),
        };
        return Some(Object { schema, name, kind, is_new, end });
    }
    if IN_SCHEMAS.contains(&&*word) {
        return named(t, at + 1, kind_of(&word), false);
    }
    // GRANT … ON name; of the other kinds none is in a schema.
    let grants = !t.is_word(0, "comment") && !GLOBAL.contains(&&*word);
    if grants { table(t, at) } else { None }
}

/// The table that a statement maintains, if it names one.
fn maintained(t: &Tokens<'_>) -> Option<Object> {
    const BEFORE: [&str; 8] =
        ["full", "freeze", "verbose", "analyze", "table", "materialized", "view", "concurrently"];
    let mut at = 1;
    loop {
        if t.is_punct(at, "(") {
            at = t.after_parens(at);
        } else if BEFORE.iter().any(|word| t.is_word(at, word)) {
            at += 1;
        } else {
            break;
        }
    }
    let reindexes = |word| t.is_word(0, "reindex") && t.is_word(at, word);
    if reindexes("database") || reindexes("system") {
        return None;
    }
    if reindexes("index") {
        return named(t, at + 1, ObjectKind::Other, false);
    }
    table(t, at)
}

/// The token after IF EXISTS or IF NOT EXISTS.
fn after_if(t: &Tokens<'_>, at: usize) -> usize {
    if t.are_words(at, &["if", "not", "exists"]) {
        at + 3
    } else if t.are_words(at, &["if", "exists"]) {
        at + 2
    } else {
        at
    }
}

/// Kinds of objects that are in schemas.
const IN_SCHEMAS: [&str; 19] = [
    "table",
    "view",
    "sequence",
    "index",
    "type",
    "domain",
    "function",
    "procedure",
    "routine",
    "aggregate",
    "trigger",
    "policy",
    "rule",
    "statistics",
    "operator",
    "collation",
    "conversion",
    "text",
    "transform",
];

/// Words after GRANT … ON that are no table's name.
const GLOBAL: [&str; 8] =
    ["all", "database", "foreign", "language", "large", "parameter", "schema", "tablespace"];
