//! The example maps are valid, print back as themselves, and the schema in
//! `shardmaps/` is the one the code makes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;

use keyway::shardmap::{Adoption, Change, Key, KeyType, Map, Scratch, Table, adopt, schema};
use keyway::types::{Epoch, Format, Oid, ShardId, SlotId};

fn two_shards() -> (String, Map) {
    let text = fs::read_to_string("shardmaps/example-two-shards.toml").unwrap();
    let map = Map::parse(&text, "two").unwrap();
    (text, map)
}

/// Each problem as `line:column: reason`.
fn problems(text: &str) -> Vec<String> {
    let problems = Map::parse(text, "m").unwrap_err();
    problems.iter().map(|p| p.to_string().trim_start_matches("m:").to_owned()).collect()
}

#[test]
fn example_maps_are_valid_and_print_back_as_themselves() {
    for entry in fs::read_dir("shardmaps").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let map = Map::parse(&text, &path.display().to_string())
            .unwrap_or_else(|problems| panic!("{}: {problems:?}", path.display()));
        let printed = map.to_toml();
        assert_eq!(Map::parse(&printed, "printed").as_ref(), Ok(&map), "{printed}");
    }
}

#[test]
fn schema_file_is_the_one_the_code_makes() {
    let path = "shardmaps/schema.json";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, schema()).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), schema(), "run with UPDATE_GOLDEN=1");
}

#[test]
fn tables_are_found_where_the_file_puts_them() {
    let (_, map) = two_shards();
    let Some(Table::Sharded { column, .. }) = map.table(Some("public"), "tasks") else { panic!() };
    assert_eq!(column, "tenant_id");
    assert_eq!(map.table(None, "countries"), Some(Table::Reference));
    assert_eq!(map.table(Some("billing"), "anything"), Some(Table::Single(map.home())));
    assert_eq!(map.table(Some("other"), "tasks"), None);
}

#[test]
fn pin_comes_before_the_slot() {
    let (text, map) = two_shards();
    let moved = Map::parse(&text.replace("\"42\" = \"s1\"", "\"42\" = \"s2\""), "m").unwrap();
    let key = Key::Int(42);
    assert_eq!(map.keyspaces()[0].owner(&key).number(), 1);
    assert_eq!(moved.keyspaces()[0].owner(&key).number(), 2);
    let changes = map.diff(&moved);
    assert!(matches!(&changes[..], [Change::Tenant { tenant, .. }] if tenant == "42"));
}

#[test]
fn overlapping_slots_are_named_with_both_shards() {
    let (text, _) = two_shards();
    let found = problems(&text.replace("2048-4095", "2000-4095"));
    assert_eq!(found, ["30:35: slots 2000-2047 are claimed by both s1 and s2"]);
}

#[test]
fn unowned_slots_are_named() {
    let (text, _) = two_shards();
    let found = problems(&text.replace("0-2047", "0-2046"));
    assert_eq!(found.len(), 1);
    assert!(found[0].ends_with("slot 2047 is claimed by no shard"), "{found:?}");
}

#[test]
fn several_problems_are_reported_at_once() {
    let (text, _) = two_shards();
    let text = text
        .replace("home = \"s1\"", "home = \"s11\"")
        .replace("number = 2", "number = 1")
        .replace("\"public.tasks\"", "\"public.users\"")
        .replace("\"42\" = \"s1\"", "\"4x\" = \"s1\"");
    let found = problems(&text).join("\n");
    for part in [
        "there is no shard called s11: did you mean s1?",
        "shards s1 and s2 have the same number 1",
        "the table public.users is declared twice",
        "the pin \"4x\": the sharding key is not a valid int8",
    ] {
        assert!(found.contains(part), "{part}\nnot in\n{found}");
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    let (text, _) = two_shards();
    let found = problems(&text.replace("slots = 4096", "slot = 4096"));
    assert_eq!(found, ["29:1: unknown key slot: did you mean slots?"]);
    let found = problems(&text.replace("epoch", "epok"));
    assert_eq!(found, ["2:1: unknown key epok: did you mean epoch?"]);
}

#[test]
fn bounds_and_lists_cut_keys_into_slots() {
    let path = "tests/golden/route/maps/ranges.toml";
    let map = Map::parse(&fs::read_to_string(path).unwrap(), path).unwrap();
    assert_eq!(Map::parse(&map.to_toml(), "printed").as_ref(), Ok(&map), "{}", map.to_toml());
    let slot = |keyspace: usize, text: &str| {
        let keyspace = &map.keyspaces()[keyspace];
        let mut scratch = Scratch::default();
        let key = Key::from_text(keyspace.key_type(), text, &mut scratch).unwrap();
        keyspace.slot_of(&key).number()
    };
    assert_eq!(
        ["-5", "99", "100", "199", "200", "9000"].map(|key| slot(0, key)),
        [0, 0, 1, 1, 2, 2]
    );
    assert_eq!(["2023-12-31", "2024-01-01"].map(|key| slot(1, key)), [0, 1]);
    assert_eq!(["de", "at", "fr", "us"].map(|key| slot(2, key)), [0, 0, 1, 2]);
}

#[test]
fn keys_for_the_marks_alone_are_for_one_shard() {
    let text = fs::read_to_string("tests/golden/route/maps/one.toml").unwrap();
    let map = Map::parse(&text, "one").unwrap();
    assert!(map.marks_by_key() && !map.is_sharded());
    assert_eq!(Map::parse(&map.to_toml(), "printed").as_ref(), Ok(&map));
    let places = Map::parse(&text.replace("keys = \"marks\"\n", ""), "one").unwrap();
    assert!(!places.marks_by_key() && places.is_sharded());
    let found = problems(&text.replace("\"marks\"", "\"mark\""));
    assert_eq!(found, ["3:8: keys can only be \"marks\", or be left out"]);
    let (two, _) = two_shards();
    let found = problems(&two.replacen("home =", "keys = \"marks\"\nhome =", 1));
    let reason = "keys = \"marks\" is for one shard: with several, keys say where rows are";
    assert!(found.len() == 1 && found[0].ends_with(reason), "{found:?}");
}

#[test]
fn bounds_and_lists_that_mean_nothing_are_refused() {
    let (text, _) = two_shards();
    for (wrong, reason) in [
        ("hash = \"range\"", "bounds is missing"),
        ("hash = \"list\"", "values is missing"),
        ("bounds = [\"1\"]", "bounds has no effect"),
        ("hash = \"range\"\nbounds = [\"2\", \"2\"]", "not above the one before"),
        ("hash = \"range\"\nbounds = [\"x\"]", "not a valid int8"),
        ("hash = \"list\"\nvalues = [[\"1\"], [\"1\"]]", "listed twice"),
        ("hash = \"range\"\nslots = 2\nbounds = [\"1\"]", "slots has no effect"),
    ] {
        let found = problems(&text.replace("slots = 4096", wrong));
        assert!(found.iter().any(|one| one.contains(reason)), "{wrong}: {found:?}");
    }
}

#[test]
fn a_schemas_name_is_its_key() {
    let path = "tests/golden/route/maps/schemas.toml";
    let text = fs::read_to_string(path).unwrap();
    let map = Map::parse(&text, path).unwrap();
    assert_eq!(Map::parse(&map.to_toml(), "printed").as_ref(), Ok(&map), "{}", map.to_toml());
    let of = |schema: &str| map.tenant_shard(schema).map(|shard| shard.number());
    assert_eq!((of("tenant_a"), of("tenant_b"), of("public")), (Some(1), Some(2), None));
    let slot = map.keyspaces()[0].owner(&Key::Text("acme"));
    assert_eq!(of("acme"), Some(slot.number()));
    let pinned = text.replace("tenant_a = \"s1\"", "tenant_a = \"s2\"");
    let wanted = Map::parse(&pinned, "m").unwrap();
    let moved =
        |change: &Change| matches!(change, Change::Tenant { tenant, .. } if tenant == "tenant_a");
    assert!(map.diff(&wanted).iter().any(moved), "{:?}", map.diff(&wanted));
    let other = Map::parse(&text.replace("\"acme\"", "\"apex\""), "m").unwrap();
    assert!(map.diff(&other)[0].to_string().contains("or schemas"));
}

#[test]
fn schemas_that_can_not_be_tenants_are_refused() {
    let text = fs::read_to_string("tests/golden/route/maps/schemas.toml").unwrap();
    for (right, wrong, reason) in [
        ("\"acme\"]", "\"tenant_a\"]", "listed already"),
        ("\"acme\"]", "\"*\"]", "a beginning before the *"),
        ("\"acme\"]", "\"pub*\"]", "takes in the schema public"),
        ("[\"tenant_*\", \"acme\"]", "[]", "schemas is empty"),
        ("type = \"text\"", "type = \"uuid\"", "the type of a keyspace of schemas is text"),
        ("keyspace = \"people\"", "keyspace = \"schools\"", "have no key column"),
        (
            "[reference]",
            "[[single]]\nshard = \"s1\"\nschemas = [\"acme\"]\n[reference]",
            "by a pin",
        ),
    ] {
        let found = problems(&text.replacen(right, wrong, 1));
        assert!(found.iter().any(|one| one.contains(reason)), "{wrong}: {found:?}");
    }
}

#[test]
fn change_of_ownership_keeps_the_map_in_force() {
    let (text, map) = two_shards();
    let text = text.replace("0-2047", "0-2046").replace("2048-4095", "2047-4095");
    let wanted = Map::parse(&text, "m").unwrap();
    let Adoption::Keep { reason } = adopt(Some(&map), wanted.clone()) else { panic!() };
    assert!(reason.contains("slots 2047-2047 of tenants move from s1 to s2"), "{reason}");
    assert!(reason.contains("keyway plan"), "{reason}");

    let text = format!("data = \"already-moved\"\n{text}");
    let wanted = Map::parse(&text, "m").unwrap();
    let Adoption::Serve(adopted) = adopt(Some(&map), wanted) else { panic!() };
    assert_eq!(adopted.epoch(), Epoch::new(2), "epochs only grow");
}

#[test]
fn a_word_left_in_the_file_brings_no_old_owners_back() {
    let (text, map) = two_shards();
    let left = Map::parse(&format!("data = \"already-moved\"\n{text}"), "m").unwrap();
    let slots = (SlotId::new(2047), SlotId::new(2047));
    let moved = map.with_slots_on("tenants", slots, ShardId::new(2)).unwrap();
    let Adoption::Keep { reason } = adopt(Some(&moved), left.clone()) else { panic!() };
    assert!(reason.contains("of epoch 1, but epoch 2 is in force"), "{reason}");
    // Said of today, it counts.
    let today = left.with_epoch(Epoch::new(2));
    assert!(matches!(adopt(Some(&moved), today), Adoption::Serve(_)));
}

#[test]
fn new_address_is_served_under_the_next_epoch() {
    let (text, map) = two_shards();
    assert_eq!(adopt(Some(&map), map.clone()), Adoption::Same);
    let wanted = Map::parse(&text.replace("shard2b", "shard2c"), "m").unwrap();
    assert!(matches!(adopt(Some(&map), wanted), Adoption::Serve(m) if m.epoch() == Epoch::new(2)));
    let wanted = Map::parse(&text.replace("epoch = 1", "epoch = 9"), "m").unwrap();
    let wanted = wanted.with_epoch(Epoch::new(9));
    assert_eq!(adopt(Some(&map), wanted), Adoption::Same, "an epoch alone changes nothing");
}

#[test]
fn keys_follow_the_rules_of_postgres() {
    let key = |key_type, text| {
        let mut scratch = Scratch::default();
        Key::from_text(key_type, text, &mut scratch).map(|key| key.to_string())
    };
    let int4 = |text| key(KeyType::Int4, text);
    assert_eq!(int4(" +42\n").as_deref(), Ok("42"));
    assert_eq!(int4("-0").as_deref(), Ok("0"));
    for text in ["", "-", "4 2", "0x1F", "1_000", "1.0", "1e3", "2147483648", "٤"] {
        assert!(int4(text).is_err(), "{text}");
    }
    let uuid = |text| key(KeyType::Uuid, text);
    let same = uuid("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
    assert!(same.is_ok());
    for text in [
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
    ] {
        assert_eq!(uuid(text), same, "{text}");
    }
    for text in [
        "",
        "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
        " a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
        "a0eebc999c0b4ef8bb6d6bb9bd380a1é",
    ] {
        assert!(uuid(text).is_err(), "{text}");
    }
    assert!(key(KeyType::Text, "a\0").is_err());
    assert_eq!(key(KeyType::Text, "a ").as_deref(), Ok("a "));
    assert!(key(KeyType::Varchar, "a ").is_err(), "varchar(n) may cut the space off");
    assert_eq!(key(KeyType::Char, "a  ").as_deref(), Ok("a"), "padding is no part of the value");
    assert_eq!(key(KeyType::Numeric, "1.50e1").as_deref(), Ok("15"));
    assert!(key(KeyType::Numeric, "NaN").is_err());
    assert_eq!(key(KeyType::Date, "2024-02-29").as_deref(), Ok("2024-02-29"));
    assert!(key(KeyType::Date, "29.02.2024").is_err(), "DateStyle decides what it means");
    let time = "2024-02-29 23:30:00.25-01:00";
    assert_eq!(key(KeyType::Timestamptz, time).as_deref(), Ok("2024-03-01 00:30:00.250000+00"));
    assert!(key(KeyType::Timestamptz, "2024-02-29 23:30:00").is_err(), "TimeZone decides");
    assert_eq!(key(KeyType::Bytea, "\\xDEad").as_deref(), Ok("\\xdead"));
    assert!(key(KeyType::Bytea, "\\xD").is_err());
    assert!(key(KeyType::Bytea, "a\\000").is_err());
}

#[test]
fn parameters_are_read_by_their_own_type() {
    let key = |key_type, format, oid, bytes: &[u8]| {
        let mut scratch = Scratch::default();
        Key::from_param(key_type, format, Oid::new(oid), bytes, &mut scratch)
            .map(|key| key.map(|key| key.to_string()))
    };
    let binary = |key_type, oid, bytes| key(key_type, Format::Binary, oid, bytes);
    let found = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(binary(KeyType::Int8, 23, &[0, 0, 0, 42]), found("42"));
    assert_eq!(binary(KeyType::Int4, 20, &[0, 0, 0, 1, 0, 0, 0, 0]), Ok(None), "equals no int4");
    assert!(binary(KeyType::Int8, 23, &[0, 0, 0, 0, 0, 0, 0, 42]).is_err(), "wrong length");
    assert!(binary(KeyType::Int8, 701, &[0; 8]).is_err(), "a float is compared otherwise");
    // 42.50 and 42.00 as a server sends them.
    let numeric = |fraction| [0, 2, 0, 0, 0, 0, 0, 2, 0, 42, fraction >> 8, fraction & 0xFF];
    let (half, whole) = (numeric(5000_u16), numeric(0));
    let bytes = |words: [u16; 12]| words.map(|word| u8::try_from(word).unwrap());
    let (half, whole) = (bytes(half), bytes(whole));
    assert_eq!(binary(KeyType::Int8, 1700, &half), Ok(None));
    assert_eq!(binary(KeyType::Int8, 1700, &whole), found("42"));
    assert_eq!(binary(KeyType::Numeric, 0, &half), found("425e-1"));
    assert_eq!(binary(KeyType::Date, 0, &[0, 0, 0, 1]), found("2000-01-02"));
    assert_eq!(binary(KeyType::Timestamptz, 1184, &[0; 8]), found("2000-01-01 00:00:00+00"));
    assert!(binary(KeyType::Timestamptz, 1114, &[0; 8]).is_err(), "no time zone");
    assert_eq!(binary(KeyType::Bytea, 17, b"ab"), found("\\x6162"));
    assert_eq!(key(KeyType::Char, Format::Text, 1042, b"ab  "), found("ab"));
    assert!(key(KeyType::Char, Format::Text, 25, b"ab  ").is_err(), "a text's spaces count");
}

const ROWS: &str = "tests/golden/route/maps/rows.toml";

#[test]
fn a_key_of_several_columns_prints_back_and_keeps_its_owners() {
    let text = fs::read_to_string(ROWS).unwrap();
    let map = Map::parse(&text, ROWS).unwrap();
    assert_eq!(Map::parse(&map.to_toml(), "printed").as_ref(), Ok(&map), "{}", map.to_toml());
    let Some(Table::Sharded { column, rest, .. }) = map.table(None, "cells") else { panic!() };
    assert_eq!((column, rest), ("x", &["Day".to_owned()][..]));
    // Other types, or the same in another order, are other slots.
    for (before, after) in [
        ("[\"text\", \"int8\"]", "[\"int8\", \"text\"]"),
        ("columns = [\"region\", \"id\"]", "columns = [\"region\", \"other\"]"),
    ] {
        let changed = Map::parse(&text.replacen(before, after, 1), "m").unwrap();
        assert!(matches!(&map.diff(&changed)[..], [Change::Other(_)]), "{after}");
    }
}

#[test]
fn what_a_key_of_several_columns_can_not_have_is_refused() {
    let text = fs::read_to_string(ROWS).unwrap();
    let types = "types = [\"text\", \"int8\"]";
    for (before, after, expected) in [
        (types, "types = [\"text\"]", "types lists from 2 to 8 types; one is type = …"),
        (types, "types = [\"text\", \"json\"]", "json is no type of key"),
        (types, "type = \"text\"\ntypes = [\"text\", \"int8\"]", "keep one of them"),
        (types, "", "the key type is missing here"),
        (
            types,
            &format!("{types}\nhash = \"xxh3\""),
            "\"postgres\" or \"partition\", not \"xxh3\"",
        ),
        (types, &format!("{types}\npins = {{ \"(eu,1)\" = \"s1\" }}"), "can't be pinned"),
        (types, &format!("{types}\nschemas = [\"t_*\"]"), "a keyspace of schemas has type"),
        (types, "type = \"text\"", "keyspace places has keys of 1 column, and this names 2"),
        (
            "columns = [\"region\", \"id\"]",
            "key = \"region\"",
            "keys of 2 columns, and this names 1",
        ),
        ("columns = [\"region\", \"id\"]", "", "the key key is missing here"),
        ("columns = [\"region\", \"id\"]", "columns = [\"id\", \"id\"]", "is named twice"),
        (
            "columns = [\"region\", \"customer\"]",
            "column = \"region\"\ncolumns = [\"region\", \"customer\"]",
            "columns stands in place of column",
        ),
    ] {
        let found = problems(&text.replacen(before, after, 1)).join("\n");
        assert!(found.contains(expected), "{expected}\nnot in\n{found}");
    }
}
