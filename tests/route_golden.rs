//! Golden cases of routing: map, SQL and parameters → targets, access, reason,
//! or the refusal. `UPDATE_GOLDEN=1` rewrites the outputs.
//!
//! A case of the form `map: NAME`, `catalog: NAME` or `path: SCHEMAS` sets what
//! the cases after it are planned against; a map takes the others back. `set:
//! key=VALUE`, `set: key.KEYSPACE=VALUE` and `set: shard=NAME` are what the
//! session has declared, together in one line; `set:` alone takes it back. So does
//! `temp: NAME=SHARD …` with its temporary tables, by the shards' numbers.
//! `catalogs/NAME.json` is what `keyway catalog` says of `catalogs/NAME.sql`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use keyway::catalog::{self, Catalog};
use keyway::route::{Declared, Explanation, Param, SearchPath, World, explain_in};
use keyway::shardmap::Map;
use keyway::types::{Format, Oid, ShardId};

#[test]
fn routes_are_as_recorded() {
    let folder = Path::new("tests/golden/route");
    let mut cases = 0;
    let mut failures = String::new();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "txt")) {
        let text = fs::read_to_string(path).unwrap();
        let mut against = Against::default();
        let mut out = String::new();
        for case in text.split("\n\n").filter(|case| !case.trim().is_empty()) {
            if against.set(case.trim()) {
                writeln!(out, "{}\n", case.trim()).unwrap();
                continue;
            }
            let (input, expected) = case.split_once("\n----").unwrap_or((case, ""));
            let (title, sql): (Vec<_>, Vec<_>) =
                input.trim_matches('\n').lines().partition(|line| line.starts_with("# "));
            let sql = sql.join("\n");
            let search_path = SearchPath::parse(&against.path, "ann").unwrap();
            let search_path = search_path.with_temporary(&against.temporary);
            let mut world = World::of_map(against.map.as_ref().expect("a map first"), &search_path);
            world.catalog = against.catalog.as_ref();
            let actual = shown(&run(&world, &sql, &against.declared), world.catalog.is_some());
            cases += 1;
            if actual.trim() != expected.trim() {
                writeln!(
                    failures,
                    "{}: {sql}\n  expected {expected}\n  actual   {actual}",
                    path.display()
                )
                .unwrap();
            }
            for line in title {
                writeln!(out, "{line}").unwrap();
            }
            writeln!(out, "{sql}\n----\n{actual}\n").unwrap();
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(path, format!("{}\n", out.trim_end())).unwrap();
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_none() {
        assert!(failures.is_empty(), "{failures}");
    }
    assert!(cases >= 150, "only {cases} cases");
}

/// What the cases of a file are planned against, as its lines have set it.
struct Against {
    map: Option<Map>,
    catalog: Option<Catalog>,
    path: String,
    declared: Declared,
    temporary: Vec<(Box<str>, ShardId)>,
}

impl Default for Against {
    fn default() -> Self {
        let (map, catalog, path) = (None, None, DEFAULT_PATH.to_owned());
        Self { map, catalog, path, declared: Declared::default(), temporary: Vec::new() }
    }
}

impl Against {
    /// Whether the line sets something rather than being a case.
    fn set(&mut self, line: &str) -> bool {
        if let Some(name) = line.strip_prefix("map: ") {
            *self = Self { map: Some(load(name)), ..Self::default() };
        } else if let Some(name) = line.strip_prefix("catalog: ") {
            let file = format!("tests/golden/route/catalogs/{name}.json");
            let text = fs::read_to_string(&file).unwrap();
            self.catalog = Some(catalog::parse(&text).unwrap_or_else(|e| panic!("{file}: {e}")));
        } else if let Some(value) = line.strip_prefix("path: ") {
            value.clone_into(&mut self.path);
        } else if let Some(values) = line.strip_prefix("set:") {
            self.declared = declare(values);
        } else if let Some(tables) = line.strip_prefix("temp:") {
            self.temporary = tables.split_whitespace().map(temporary_table).collect();
        } else {
            return false;
        }
        true
    }
}

fn temporary_table(text: &str) -> (Box<str>, ShardId) {
    let (name, shard) = text.split_once('=').unwrap();
    (name.into(), ShardId::new(shard.parse().unwrap()))
}

fn declare(values: &str) -> Declared {
    let mut declared = Declared::default();
    for (name, value) in values.split_whitespace().map(|one| one.split_once('=').unwrap()) {
        match name {
            "shard" => declared.set_shard(Some(value)),
            "key" => declared.set_key(None, Some(value)),
            _ => declared.set_key(Some(name.strip_prefix("key.").unwrap()), Some(value)),
        }
    }
    declared
}

const DEFAULT_PATH: &str = "\"$user\", public";

fn load(name: &str) -> Map {
    if name == "unsharded" {
        let endpoint = keyway::shardmap::Endpoint::new("db.example.com", 5432);
        return Map::unsharded("app", endpoint, Vec::new());
    }
    let path = format!("tests/golden/route/maps/{name}.toml");
    Map::parse(&fs::read_to_string(&path).unwrap(), &path).unwrap_or_else(|e| panic!("{e:?}"))
}

/// Lines `$n value`, `$n:oid value`, `$n null` or `$n:oid x'hex'` before the SQL
/// are the parameters, in order.
fn run(world: &World<'_>, input: &str, declared: &Declared) -> Explanation {
    let mut values: Vec<(Option<Vec<u8>>, Format, u32)> = Vec::new();
    let mut sql = Vec::new();
    for line in input.lines() {
        let is_param = line.starts_with('$') && line[1..].starts_with(|c: char| c.is_ascii_digit());
        if !is_param {
            sql.push(line);
            continue;
        }
        let (head, value) = line.split_once(' ').unwrap_or((line, ""));
        let oid = head.split_once(':').map_or(0, |(_, oid)| oid.parse().unwrap());
        let hex = value.strip_prefix("x'").and_then(|rest| rest.strip_suffix('\''));
        values.push(match (value, hex) {
            ("null", _) => (None, Format::Text, oid),
            (_, Some(hex)) => (Some(bytes(hex)), Format::Binary, oid),
            (text, None) => (Some(text.as_bytes().to_vec()), Format::Text, oid),
        });
    }
    let params: Vec<Param<'_>> = values
        .iter()
        .map(|(value, format, oid)| Param {
            value: value.as_deref(),
            format: *format,
            oid: Oid::new(*oid),
        })
        .collect();
    let declared = (!declared.is_empty()).then_some(declared);
    let sql = sql.join("\n");
    explain_in(world, sql.as_bytes(), (!params.is_empty()).then_some(&params), declared)
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn shown(e: &Explanation, with_catalog: bool) -> String {
    if let Some(refusal) = &e.refusal {
        let hint = refusal.hint.as_ref().map_or(String::new(), |hint| format!(" | {hint}"));
        let reads = if e.shards.is_empty() {
            String::new()
        } else {
            format!(" | reads {}", e.shards.join(", "))
        };
        return format!("{}: {}{hint}{reads}", refusal.sqlstate, refusal.message);
    }
    let keys: Vec<String> =
        e.keys.iter().map(|key| format!("{}={} ({})", key.place, key.value, key.shard)).collect();
    let keys = if keys.is_empty() { String::new() } else { format!(" | {}", keys.join(", ")) };
    let replica = if e.replica_ok { ", replica ok" } else { "" };
    let stays = match e.access {
        "write" => e.writes_stay,
        _ => e.reads_stay && e.replica_ok,
    };
    let stays = if with_catalog && stays { ", stays" } else { "" };
    let sent = e.sent.as_ref().map_or(String::new(), |sent| format!(" | sent: {sent}"));
    let mut together = String::new();
    // What streams is shown where it is the subject.
    if with_catalog {
        e.together.iter().for_each(|line| writeln!(together, "\n  {line}").unwrap());
    }
    let together = together.replace("\n\n", "\n").trim_end().to_owned();
    format!("{} | {}{replica}{stays} | {}{keys}{sent}{together}", e.targets, e.access, e.reason)
}
