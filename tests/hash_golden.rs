//! Slots are, value for value, what a Postgres server computes.
//!
//! `tests/golden/hash/*.txt` hold what a server said; the file of a type can
//! be made again with the statement that [`recompute_sql`] prints for a value.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;

use keyway::shardmap::{Key, Map, Scratch};

const TYPES: [&str; 11] = [
    "int2",
    "int4",
    "int8",
    "text",
    "varchar",
    "uuid",
    "numeric",
    "char",
    "date",
    "timestamptz",
    "bytea",
];

/// A map of one shard with a keyspace for each hash and number of slots, in
/// the order of the golden files' columns; `key` is the line of its type.
fn map(key: &str) -> Map {
    let mut text = "epoch = 1\ndatabase = \"d\"\n[[shard]]\nnumber = 1\nname = \"s1\"\n\
         primary = { host = \"h\" }\n"
        .to_owned();
    for (name, hash, slots) in [
        ("a", "postgres", 4096),
        ("b", "postgres", 65_536),
        ("c", "partition", 24),
        ("d", "partition", 7),
    ] {
        text += &format!(
            "[[keyspace]]\nname = \"{name}\"\n{key}\nhash = \"{hash}\"\nslots = {slots}\n"
        );
    }
    Map::parse(&text, "test").unwrap()
}

/// What a server answers with the columns after the type.
fn recompute_sql(key_type: &str, value: &str) -> String {
    let quoted = value.replace('\'', "''");
    let hash = match key_type {
        "int2" | "int4" | "int8" => format!("hash{key_type}extended('{quoted}', 0)"),
        "uuid" => format!("uuid_hash_extended('{quoted}', 0)"),
        "numeric" => format!("hash_numeric_extended('{quoted}', 0)"),
        "char" => format!("hashbpcharextended('{quoted}', 0)"),
        "date" => format!("hashint4extended('{quoted}'::date - '2000-01-01'::date, 0)"),
        "timestamptz" => {
            format!("timestamp_hash_extended('{quoted}'::timestamptz AT TIME ZONE 'UTC', 0)")
        }
        "bytea" => format!("hashbyteaextended('{quoted}'::bytea, 0)"),
        _ => format!("hashtextextended('{quoted}', 0)"),
    };
    format!("SELECT {hash} & 4095, {hash} & 65535")
}

#[test]
fn slots_equal_what_a_server_computed() {
    let mut rows = 0;
    for key_type in TYPES {
        let map = map(&format!("type = \"{key_type}\""));
        let text = fs::read_to_string(format!("tests/golden/hash/{key_type}.txt")).unwrap();
        for row in text.lines().filter(|row| !row.starts_with('#')) {
            let columns: Vec<&str> = row.splitn(6, '\t').collect();
            let value = columns[5];
            assert_eq!(columns[0], key_type);
            let mut scratch = Scratch::default();
            let key_type = map.keyspaces()[0].key_type();
            let key = Key::from_text(key_type, value, &mut scratch).unwrap();
            for (keyspace, expected) in map.keyspaces().iter().zip(&columns[1..5]) {
                assert_eq!(
                    keyspace.slot_of(&key).number().to_string(),
                    *expected,
                    "{value:?} in {}; ask a server: {}",
                    keyspace.name(),
                    recompute_sql(columns[0], value)
                );
            }
            rows += 1;
        }
    }
    assert!(rows > 2000, "only {rows} rows");
}

#[test]
fn rows_have_the_slots_that_servers_computed() {
    let text = fs::read_to_string("tests/golden/hash/row.txt").unwrap();
    let mut rows = 0;
    for row in text.lines().filter(|row| !row.starts_with('#')) {
        let columns: Vec<&str> = row.splitn(6, '\t').collect();
        let map = map(&format!("types = [\"{}\"]", columns[0].replace(',', "\", \"")));
        for (keyspace, expected) in map.keyspaces().iter().zip(&columns[1..5]) {
            let mut scratch = Scratch::default();
            let key = keyspace.key_from_text(columns[5], &mut scratch);
            let key = key.unwrap_or_else(|error| panic!("{row}: {error}"));
            assert_eq!(keyspace.slot_of(&key).number().to_string(), *expected, "{row}");
        }
        rows += 1;
    }
    assert!(rows > 300, "only {rows} rows");
}
