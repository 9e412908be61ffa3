//! Catalogs as text: what is written is read back, and what differs is named.

use super::*;
use crate::types::ShardId;

const ONE: &str = r#"{"format": 1, "catalogs": [{"shards": [1, 2], "catalog": {
    "schemas": {"public": {"open": true, "relations": {
        "t": {"kind": "table",
              "columns": [{"name": "k", "type": "int8", "not_null": true},
                          {"name": "x", "type": "varchar", "length": 20}],
              "keys": [{"columns": ["x"]}, {"columns": ["k"], "primary": true}]},
        "v": {"kind": "view", "columns": [{"name": "k", "type": "int8"}],
              "view": {"reads": [{"schema": "public", "name": "t"}], "simple": true,
                       "origins": ["k"], "volatility": "immutable"}}},
      "functions": {"f": [{"arguments": 1, "volatility": "stable", "language": "sql"}]},
      "enums": {"mood": ["sad", "happy"]}}},
    "search_paths": [{"path": "\"$user\", public"}, {"role": "ann", "path": "a"},
                     {"role": "ann", "of_database": true, "path": "b"}]}}]}"#;

fn catalog(text: &str) -> Catalog {
    parse(text).unwrap()
}

#[track_caller]
fn check(change: (&str, &str), expected: &[&str]) {
    let one = catalog(ONE);
    let other = catalog(&ONE.replace(change.0, change.1));
    let shard = ShardId::new(1);
    assert_ne!(one.fingerprint_of(shard), other.fingerprint_of(shard), "{change:?}");
    let (a, b) = (one.shard(shard).unwrap(), other.shard(shard).unwrap());
    assert_eq!(differences(("s1", a), ("s2", b), 9, &|_, _| true), expected);
}

#[test]
fn what_is_written_is_read_back() {
    let first = catalog(ONE);
    let text = print(&first).unwrap();
    assert_eq!(catalog(&text), first);
    assert_eq!(text.matches("\"shards\"").count(), 1, "equal shards are written once:\n{text}");
    assert_eq!(first.fingerprint_of(ShardId::new(1)), first.fingerprint_of(ShardId::new(2)));
}

#[test]
fn the_order_of_unordered_things_does_not_matter() {
    let turned = ONE.replace(
        r#"{"columns": ["x"]}, {"columns": ["k"], "primary": true}"#,
        r#"{"columns": ["k"], "primary": true}, {"columns": ["x"]}"#,
    );
    assert_eq!(catalog(&turned).fingerprint(), catalog(ONE).fingerprint());
}

#[test]
fn differences_are_named() {
    check(
        (r#""name": "x", "type": "varchar""#, r#""name": "x", "type": "text""#),
        &["column x of table public.t is varchar on s1 and text on s2"],
    );
    check((r#""length": 20"#, r#""length": 21"#), &["column x of table public.t differs"]);
    check(
        (r#""name": "x", "type""#, r#""name": "y", "type""#),
        &["column x of table public.t is only on s1", "column y of table public.t is only on s2"],
    );
    check((r#"["x"]}"#, r#"["x", "k"]}"#), &["table public.t: its unique keys differ"]);
    check(
        (r#""kind": "view""#, r#""kind": "table""#),
        &["public.v is a view on s1 and a table on s2"],
    );
    check(
        (r#""t": {"kind""#, r#""u": {"kind""#),
        &["table public.t is only on s1", "table public.u is only on s2"],
    );
    check(("stable", "volatile"), &["function public.f differs"]);
    check((r#""happy""#, r#""glad""#), &["enum public.mood: the labels differ"]);
    check((r#""path": "a""#, r#""path": "c""#), &["search paths that sessions begin with differ"]);
    check((r#""simple": true"#, r#""simple": false"#), &["view public.v: its definition differs"]);
}

#[test]
fn differences_are_bounded_and_chosen() {
    let (one, other) =
        (catalog(ONE), catalog(&ONE.replace("\"t\": {\"kind\"", "\"u\": {\"kind\"")));
    let shard = ShardId::new(1);
    let (a, b) = (one.shard(shard).unwrap(), other.shard(shard).unwrap());
    assert_eq!(differences(("a", a), ("b", b), 1, &|_, _| true).len(), 1);
    assert_eq!(differences(("a", a), ("b", b), 9, &|_, name| name == Some("v")), [""; 0]);
}

#[test]
fn a_session_begins_with_the_most_special_search_path() {
    let known = catalog(ONE);
    assert_eq!(known.search_path("ann"), Some("b"));
    assert_eq!(known.search_path("bob"), Some("\"$user\", public"));
    let other = known.clone().with(ShardId::new(2), std::sync::Arc::new(ShardCatalog::default()));
    assert_eq!(other.search_path("bob"), None, "the shards disagree");
}

#[test]
fn what_is_no_catalog_is_refused() {
    for (text, expected) in [
        (ONE.replace("\"format\": 1", "\"format\": 2"), "format 2 is not 1"),
        (ONE.replace("[1, 2]", "[1, 1]"), "shard 1 is named twice"),
        (ONE.replace("\"kind\": \"view\"", "\"kind\": \"index\""), "unknown variant `index`"),
        (ONE.replace("\"open\"", "\"opened\""), "unknown field `opened`"),
    ] {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_shard_that_is_not_known_is_not_empty() {
    let known = catalog(ONE).retain(|shard| shard == ShardId::new(1));
    assert!(!known.covers([1, 2].map(ShardId::new).into_iter()));
    assert!(known.shard(ShardId::new(2)).is_none());
    assert_ne!(known.fingerprint(), catalog(ONE).fingerprint());
    assert_eq!(known.retain(|_| false), Catalog::default());
}
