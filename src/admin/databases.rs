//! What the console says of databases, their maps and their nodes.

use std::collections::BTreeMap;

use super::console::{Cell, Grid};
use super::source::{DatabaseView, Inputs};
use crate::catalog::ShardCatalog;
use crate::engine::snapshot::DatabaseSnapshot;
use crate::shardmap::{Keyspace, Map};
use crate::types::{NodeId, Role, ShardId};

pub(super) fn databases(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&[
        "name",
        "sharded",
        "#epoch",
        "#shards",
        "#nodes",
        "home",
        "consistency",
        "#current_connections",
        "#current_clients",
        "paused",
        "disabled",
    ]);
    for view in &inputs.databases {
        let map = &view.map;
        let servers = inputs.engine.servers.iter().filter(|server| server.database == view.name());
        let clients = inputs.engine.clients.iter().filter(|client| client.database == view.name());
        grid.row([
            view.name().into(),
            if map.is_sharded() { "yes" } else { "no" }.into(),
            map.epoch().number().into(),
            count(map.shards().len()).into(),
            count(map.nodes().len()).into(),
            shard_name(map, map.home()).into(),
            map.consistency().map(|level| level.to_string()).into(),
            count(servers.count()).into(),
            count(clients.count()).into(),
            word(held(inputs, view).is_some_and(|database| database.paused)).into(),
            word(held(inputs, view).is_some_and(|database| database.disabled)).into(),
        ]);
    }
    grid
}

/// What the engine says of a database.
fn held<'a>(inputs: &'a Inputs, view: &DatabaseView) -> Option<&'a DatabaseSnapshot> {
    inputs.engine.databases.iter().find(|database| database.name == view.name())
}

fn word(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}

pub(super) fn state(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&["database", "active", "paused", "suspended"]);
    for view in &inputs.databases {
        let (paused, suspended) =
            held(inputs, view).map_or((false, false), |one| (one.paused, one.suspended));
        grid.row([
            view.name().into(),
            word(!paused && !suspended).into(),
            word(paused).into(),
            word(suspended).into(),
        ]);
    }
    grid
}

pub(super) fn nodes(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&[
        "database",
        "shard",
        "node",
        "role",
        "role_seen",
        "writes",
        "health",
        "breaker",
        "replay_lsn",
        "#lag_bytes",
        "#lag_ms",
        "#weight",
        "zone",
        "#connections",
    ]);
    let mut connections: BTreeMap<(&str, NodeId), u64> = BTreeMap::new();
    for server in &inputs.engine.servers {
        *connections.entry((server.database.as_str(), server.node)).or_default() += 1;
    }
    for view in &inputs.databases {
        for node in view.map.nodes() {
            let state = view.cluster.node(node.id);
            let replay = state.and_then(|state| state.replay);
            grid.row([
                view.name().into(),
                view.shard_of(node).into(),
                node.endpoint.to_string().into(),
                node.role.as_str().into(),
                state.and_then(|state| state.role_seen).map(Role::as_str).into(),
                word(view.cluster.primary_of(node.shard) == Some(node.id)).into(),
                view.cluster.health(node.id).as_str().into(),
                state.map(|state| state.breaker.as_str()).into(),
                replay.map(|replay| replay.lsn.to_string()).into(),
                replay.map(|replay| replay.lag_bytes).into(),
                state.and_then(|state| state.lag_ms(inputs.now)).map(|lag| lag.count()).into(),
                u64::from(node.endpoint.weight).into(),
                node.endpoint.zone.clone().into(),
                connections.get(&(view.name(), node.id)).copied().unwrap_or(0).into(),
            ]);
        }
    }
    grid
}

pub(super) fn maps(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&[
        "database", "#epoch", "#number", "shard", "home", "primary", "replicas", "owns", "file",
    ]);
    for view in &inputs.databases {
        let map = &view.map;
        for shard in map.shards() {
            let replicas: Vec<String> =
                shard.replicas.iter().map(|node| view.address_of(*node)).collect();
            grid.row([
                view.name().into(),
                map.epoch().number().into(),
                u64::from(shard.id.number()).into(),
                shard.name.as_str().into(),
                if shard.id == map.home() { "yes" } else { "no" }.into(),
                format!("{}/{}", view.address_of(shard.primary), shard.dbname).into(),
                replicas.join(", ").into(),
                owned(map, shard.id).into(),
                file(view),
            ]);
        }
    }
    grid
}

pub(super) fn catalogs(inputs: &Inputs) -> Grid {
    let mut grid =
        Grid::new(&["database", "shard", "fingerprint", "#relations", "#functions", "state"]);
    for view in &inputs.databases {
        let known = &view.catalog;
        for shard in view.map.shards() {
            let content = known.catalog.shard(shard.id);
            let functions = |content: &ShardCatalog| {
                content.schemas().map(|(_, schema)| schema.functions.len()).sum::<usize>()
            };
            let state = match (known.failures.get(&shard.id), content) {
                (None, Some(_)) => "in force".to_owned(),
                (None, None) => "not read yet".to_owned(),
                (Some(reason), Some(_)) => format!("in force, but can't be read now: {reason}"),
                (Some(reason), None) => format!("can't be read: {reason}"),
            };
            grid.row([
                view.name().into(),
                shard.name.as_str().into(),
                known.catalog.fingerprint_of(shard.id).map(|print| print.to_string()).into(),
                content.map(|content| count(content.relations().count())).into(),
                content.map(|content| count(functions(content))).into(),
                state.into(),
            ]);
        }
        for warning in &known.warnings {
            let state = format!("warning: {warning}");
            let none = [Cell::Null, Cell::Null, Cell::Null, Cell::Null];
            grid.row([view.name().into()].into_iter().chain(none).chain([state.into()]));
        }
    }
    grid
}

/// Whether the operator's file is what is served.
fn file(view: &DatabaseView) -> Cell {
    view.kept_back
        .as_ref()
        .map_or_else(|| "in force".into(), |reason| format!("kept back: {reason}").into())
}

/// What `shard` owns of each keyspace, in words.
fn owned(map: &Map, shard: ShardId) -> String {
    let mut parts = Vec::new();
    for keyspace in map.keyspaces() {
        let ranges: Vec<(u32, u32)> = keyspace
            .ranges()
            .iter()
            .filter(|(_, _, owner)| *owner == shard)
            .map(|(first, last, _)| (first.number(), last.number()))
            .collect();
        if !ranges.is_empty() {
            parts.push(slots(keyspace, &ranges));
        }
        let pins = keyspace.pins().filter(|(_, owner)| *owner == shard).count();
        if pins > 0 {
            let tenants = if pins == 1 { "tenant" } else { "tenants" };
            parts.push(format!("{}: {pins} pinned {tenants}", keyspace.name()));
        }
    }
    parts.join("; ")
}

fn slots(keyspace: &Keyspace, ranges: &[(u32, u32)]) -> String {
    let one = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let shown: Vec<String> = ranges.iter().take(RANGES_SHOWN).map(one).collect();
    let more = if ranges.len() > RANGES_SHOWN { ", …" } else { "" };
    let total: u64 =
        ranges.iter().map(|(first, last)| u64::from(last.saturating_sub(*first)) + 1).sum();
    let (name, slots) = (keyspace.name(), keyspace.slots());
    format!("{name}: {total} of {slots} slots ({}{more})", shown.join(", "))
}

fn shard_name(map: &Map, shard: ShardId) -> &str {
    map.shard(shard).map_or("", |shard| shard.name.as_str())
}

pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// A row names at most so many ranges of slots.
const RANGES_SHOWN: usize = 8;
