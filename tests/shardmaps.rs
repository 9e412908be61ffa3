//! The example maps are valid, print back as themselves, and the schema in
//! `shardmaps/` is the one the code makes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;

use keyway::shardmap::{Adoption, Change, Key, KeyType, Map, Table, adopt, schema};
use keyway::types::Epoch;

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
fn keyspaces_of_later_versions_are_refused_in_so_many_words() {
    let (text, _) = two_shards();
    for later in ["hash = \"range\"", "hash = \"list\"", "schema_per_tenant = true"] {
        let found = problems(&text.replace("slots = 4096", later));
        assert!(found[0].contains("not supported yet"), "{found:?}");
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
    let int4 = |text| Key::from_text(KeyType::Int4, text);
    assert_eq!(int4(" +42\n"), Ok(Key::Int(42)));
    assert_eq!(int4("-0"), Ok(Key::Int(0)));
    for text in ["", "-", "4 2", "0x1F", "1_000", "1.0", "1e3", "2147483648", "٤"] {
        assert!(int4(text).is_err(), "{text}");
    }
    let uuid = |text| Key::from_text(KeyType::Uuid, text);
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
    assert!(Key::from_text(KeyType::Text, "a\0").is_err());
    assert_eq!(Key::from_text(KeyType::Text, "a "), Ok(Key::Text("a ")));
    assert!(Key::from_text(KeyType::Varchar, "a ").is_err(), "varchar(n) may cut the space off");
}
