//! The operators' manual names what the program has.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const MANUAL: &str = include_str!("../docs/operations.md");

#[test]
fn every_metric_is_in_the_manual() {
    let page = include_str!("golden/metrics.txt");
    let names = page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
    let missing: Vec<&str> =
        names.filter(|name| !MANUAL.contains(&format!("`{name}")[..])).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
}

#[test]
fn every_sqlstate_is_in_the_manual_and_none_else() {
    let mut used = BTreeSet::new();
    for module in [
        "admin", "auth", "engine", "gather", "net", "protocol", "route", "session", "shardmap",
        "sql",
    ] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for path in [root.join(module), root.join(format!("{module}.rs"))] {
            visit(&path, &mut used);
        }
    }
    let table = MANUAL.split("## SQLSTATEs of the router's own").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let listed: BTreeSet<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(','))
        .map(|state| state.trim().to_owned())
        .collect();
    assert!(used.len() > 20, "{used:?}");
    let only_here: Vec<_> = used.difference(&listed).collect();
    let only_there: Vec<_> = listed.difference(&used).collect();
    assert!(only_here.is_empty(), "not in docs/operations.md: {only_here:?}");
    assert!(only_there.is_empty(), "in docs/operations.md, used nowhere: {only_there:?}");
}

#[test]
fn every_timeout_is_in_the_manual() {
    for setting in keyway::config::Config::table() {
        if setting.path.starts_with("timeouts.") {
            assert!(MANUAL.contains(&format!("`{}`", setting.path)), "{}", setting.path);
        }
    }
}

/// Collects what stands between quotes and looks like a SQLSTATE, outside the
/// unit tests, which speak of the servers' errors too.
fn visit(path: &Path, used: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            visit(&entry.unwrap().path(), used);
        }
        return;
    }
    let Ok(text) = fs::read_to_string(path) else { return };
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for marker in ["SqlState::new(\"", "refuse(\"", "failed(\"", "goodbye(\""] {
            let after = line.split(marker).skip(1).filter_map(|rest| rest.get(..5));
            used.extend(after.filter(|word| is_state(word)).map(str::to_owned));
        }
        // An argument on a line of its own.
        let alone = line.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix("\","));
        used.extend(alone.filter(|word| is_state(word)).map(str::to_owned));
    }
}

fn is_state(word: &str) -> bool {
    let capital = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
    word.len() == 5
        && word.bytes().all(capital)
        && (word.starts_with("F0") || word.starts_with(|c: char| c.is_ascii_digit()))
}
