//! A route in words: what `EXPLAIN ROUTE` and `keyway route` show.
//!
//! It plans anew, without a cache, and says for each key which slot and which
//! shard it belongs to. Key values are shown: whoever asks has just given them.

use std::fmt;

use serde::Serialize;

use crate::shardmap::Map;
use crate::sql::scan::Scanner;
use crate::types::{Access, ShardId};

use super::composite;
use super::decide;
use super::declared::Declared;
use super::error::RouteError;
use super::locate::{self, Values};
use super::planner::{SearchPath, World};
use super::template::{KeyPlace, Params, Plan, Route, RouterCommand, Targets, Template};

/// A text's route and its reason, or its refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Kinds of the statements, in order.
    pub statements: Vec<&'static str>,
    /// `read` or `write`.
    pub access: &'static str,
    /// Where it goes, as a phrase; empty if it is refused.
    pub targets: String,
    /// Names of the shards that get it; empty if any may, or none does.
    pub shards: Vec<String>,
    /// Why; empty if it is refused.
    pub reason: String,
    /// Whether a replica may run it.
    pub replica_ok: bool,
    /// The key values that decided.
    pub keys: Vec<ExplainedKey>,
    /// Whether the catalogs prove that it writes no rows but those of its keys.
    pub writes_stay: bool,
    /// Whether they prove that it reads no others.
    pub reads_stay: bool,
    /// The text that is sent, if it is not the client's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// How several shards answer together: the way, then what each is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub together: Vec<String>,
    /// Why it has no route.
    pub refusal: Option<Refusal>,
}

/// One key value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedKey {
    /// The keyspace's name.
    pub keyspace: String,
    /// Where the value stands: `constant` or `$n`.
    pub place: String,
    /// The value in canonical form.
    pub value: String,
    /// Its slot.
    pub slot: u32,
    /// Whether the map pins this value to a shard.
    pub pinned: bool,
    /// The owning shard's name.
    pub shard: String,
}

impl fmt::Display for ExplainedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keyspace, place, value, slot, pinned, shard } = self;
        let pinned = if *pinned { ", pinned" } else { "" };
        write!(f, "{value} ({place}) in slot {slot} of {keyspace} on {shard}{pinned}")
    }
}

/// A refusal, as the client would see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The five characters.
    pub sqlstate: String,
    /// The message.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

/// Explains `text` with Postgres's default search path.
pub fn explain(map: &Map, text: &[u8], params: Option<&dyn Params>) -> Explanation {
    explain_in(&World::of_map(map, &SearchPath::default()), text, params, None)
}

/// Explains `text` for a session that sees `world` and has `declared` a key or
/// shard. EXPLAIN ROUTE explains the statement after ROUTE.
pub fn explain_in(
    world: &World<'_>,
    text: &[u8],
    params: Option<&dyn Params>,
    declared: Option<&Declared>,
) -> Explanation {
    let mut scanner = Scanner::new();
    let planned = match scanner.scan(text) {
        Ok(()) => decide::decide(text, scanner.literals(), world),
        Err(_) if !world.map.is_sharded() => Ok(decide::opaque(text, world)),
        Err(error) => Err(error.into()),
    };
    let template = match planned {
        Ok(template) => template,
        Err(error) => return refused(&error),
    };
    if let Plan::Fixed { targets: Targets::Router(command), .. } = &template.plan
        && let RouterCommand::ExplainRoute { statement } = command
    {
        return explain_in(world, statement.of(text), params, declared);
    }
    match template.locate(text, scanner.literals(), params, world.map, declared) {
        Err(error) => refused(&error),
        Ok(route) => {
            let values = Values { text, literals: scanner.literals(), params };
            match route.targets {
                Targets::Several(ref several) => match template.scatter(text) {
                    Err(error) => {
                        Explanation { shards: names(&several.shards, world.map), ..refused(&error) }
                    }
                    Ok(scatter) => {
                        let way = std::iter::once(scatter.way().to_owned());
                        let together = way.chain(scatter.sketch()).collect();
                        let routed = routed(&template, &route, values, world.map, declared);
                        Explanation { together, ..routed }
                    }
                },
                _ => routed(&template, &route, values, world.map, declared),
            }
        }
    }
}

fn refused(error: &RouteError) -> Explanation {
    Explanation {
        statements: Vec::new(),
        access: "write",
        targets: String::new(),
        shards: Vec::new(),
        reason: String::new(),
        replica_ok: false,
        keys: Vec::new(),
        writes_stay: false,
        reads_stay: false,
        sent: None,
        together: Vec::new(),
        refusal: Some(Refusal {
            sqlstate: error.sqlstate().to_string(),
            message: error.to_string(),
            hint: error.hint(),
        }),
    }
}

fn names(shards: &[ShardId], map: &Map) -> Vec<String> {
    let name = |shard: &ShardId| map.shard(*shard).map(|shard| shard.name.clone());
    shards.iter().filter_map(name).collect()
}

fn routed(
    template: &Template,
    route: &Route,
    values: Values<'_>,
    map: &Map,
    declared: Option<&Declared>,
) -> Explanation {
    let name = |shard: ShardId| {
        map.shard(shard).map_or_else(|| shard.number().to_string(), |shard| shard.name.clone())
    };
    let home = name(map.home());
    let (targets, shards) = match &route.targets {
        Targets::Shard(shard) => (format!("shard {}", name(*shard)), vec![name(*shard)]),
        Targets::AnyShard => ("any shard".to_owned(), Vec::new()),
        Targets::Home => (format!("home shard {home}"), vec![home]),
        Targets::HomeOutside => {
            (format!("home shard {home}, outside an unbound transaction"), vec![home])
        }
        Targets::AllInTurn => (
            "all shards in turn".to_owned(),
            map.shards().iter().map(|shard| shard.name.clone()).collect(),
        ),
        Targets::Several(several) => {
            let shards = names(&several.shards, map);
            (format!("shards {}, at once", shards.join(", ")), shards)
        }
        Targets::Router(_) => ("the router itself".to_owned(), Vec::new()),
    };
    Explanation {
        statements: template.statements.iter().map(|facts| facts.kind.word()).collect(),
        access: match template.access {
            Access::Read => "read",
            Access::Write => "write",
        },
        targets,
        shards,
        reason: route.reason.to_string(),
        replica_ok: template.replica_ok,
        keys: keys(template, values, map, &name),
        writes_stay: template.writes_stay,
        reads_stay: template.reads_stay,
        sent: template
            .rewritten(values.text)
            .or_else(|| template.checked_copy(values.text, map, declared))
            .map(|sent| String::from_utf8_lossy(&sent).into_owned()),
        together: Vec::new(),
        refusal: None,
    }
}

fn keys(
    template: &Template,
    values: Values<'_>,
    map: &Map,
    name: &dyn Fn(ShardId) -> String,
) -> Vec<ExplainedKey> {
    let keyed = match &template.plan {
        Plan::Keyed(keyed) => keyed,
        Plan::Marked(keyed) => keyed,
        Plan::Fixed { .. } | Plan::Refused(_) => return Vec::new(),
    };
    let values = match &template.own {
        Some(own) => Values { text: &own.text, literals: &own.literals, ..values },
        None => values,
    };
    let mut keys = Vec::new();
    for source in &keyed.sources {
        let Some(keyspace) = map.keyspace(source.keyspace) else { continue };
        let mut rows = composite::texts(&source.parts, values).into_iter();
        let is_row = !source.parts.is_empty();
        let shown = locate::each_key(source, values, &mut |key| {
            keys.push(ExplainedKey {
                keyspace: keyspace.name().to_owned(),
                place: match source.place {
                    _ if is_row => "columns".to_owned(),
                    KeyPlace::Param { index, .. } => format!("${}", u32::from(index) + 1),
                    KeyPlace::Literal(_) | KeyPlace::Null => "constant".to_owned(),
                },
                value: if is_row { rows.next() } else { None }.unwrap_or_else(|| key.to_string()),
                slot: keyspace.slot_of(&key).number(),
                pinned: keyspace.pin_of(&key).is_some(),
                shard: name(keyspace.owner(&key)),
            });
        });
        if shown.is_err() && matches!(template.plan, Plan::Marked(_)) {
            return Vec::new();
        }
        debug_assert!(shown.is_ok(), "a route was found with these values");
    }
    keys
}
