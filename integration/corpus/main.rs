//! PostgreSQL's own regression tests, read by this reader and by the server's
//! parser.
//!
//! `scripts/get-corpus` fetches the statements and the server's reading of them;
//! without them the test fails and says so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use keyway::sql::reading;
use serde::Deserialize;

/// A statement that the server's parser accepts.
#[derive(Deserialize)]
struct Entry {
    file: String,
    /// The server's name for the kind of statement.
    kind: String,
    sql: String,
    /// Tables and conditions, for queries and writes.
    facts: Option<Vec<String>>,
}

fn corpus() -> Vec<Entry> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".keyway/corpus/statements.jsonl");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run scripts/get-corpus, which needs Python's pip", path.display())
    });
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[derive(Default)]
struct Count {
    all: usize,
    read: usize,
    equal: usize,
}

#[test]
fn statements_are_read_as_the_server_reads_them() {
    let corpus = corpus();
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    let mut unread = String::new();
    let mut different = String::new();
    for entry in &corpus {
        let count = counts.entry(group(&entry.kind)).or_default();
        count.all += 1;
        let readings = match reading::read(entry.sql.as_bytes()) {
            Ok(readings) => readings,
            Err(error) => {
                writeln!(unread, "{}: {error}: {}", entry.file, entry.sql).unwrap();
                continue;
            }
        };
        let [one] = &*readings else {
            writeln!(different, "{}: {} statements: {}", entry.file, readings.len(), entry.sql)
                .unwrap();
            continue;
        };
        match (&one.facts, &entry.facts) {
            (Some(Err(reason)), _) => {
                writeln!(unread, "{}: {reason}: {}", entry.file, entry.sql).unwrap();
                continue;
            }
            (_, _) if one.kind == "unknown" => {
                writeln!(unread, "{}: unknown kind: {}", entry.file, entry.sql).unwrap();
                continue;
            }
            (Some(Ok(ours)), Some(theirs)) if !same(ours, theirs) => {
                writeln!(
                    different,
                    "{}: {}\n  ours   {ours:?}\n  theirs {theirs:?}",
                    entry.file, entry.sql
                )
                .unwrap();
            }
            (None, Some(_)) => {
                writeln!(different, "{}: {} for {}", entry.file, one.kind, entry.sql).unwrap();
            }
            _ => count.equal += 1,
        }
        count.read += 1;
    }
    let all: usize = counts.values().map(|count| count.all).sum();
    let read: usize = counts.values().map(|count| count.read).sum();
    let mut table = String::new();
    for (kind, count) in &counts {
        writeln!(table, "{kind:12} {:6} {:6} {:6}", count.all, count.read, count.equal).unwrap();
    }
    println!("kind            all   read  equal\n{table}\nunread:\n{unread}");
    assert!(different.is_empty(), "read otherwise than by the server:\n{different}");
    assert!(all >= 40_000, "only {all} statements");
    assert!(read * 1000 >= all * 995, "only {read} of {all} are read:\n{unread}");
}

fn group(kind: &str) -> &str {
    match kind {
        "SelectStmt" => "select",
        "InsertStmt" => "insert",
        "UpdateStmt" => "update",
        "DeleteStmt" => "delete",
        "MergeStmt" => "merge",
        "CopyStmt" => "copy",
        "ExplainStmt" => "explain",
        "TransactionStmt" => "transaction",
        "VariableSetStmt" | "VariableShowStmt" | "DiscardStmt" => "setting",
        "PrepareStmt" | "ExecuteStmt" | "DeallocateStmt" => "prepared",
        "DeclareCursorStmt" | "FetchStmt" | "ClosePortalStmt" => "cursor",
        kind if [
            "Create", "Alter", "Drop", "Rename", "Define", "Grant", "Index", "View", "Rule",
        ]
        .iter()
        .any(|word| kind.starts_with(word)) =>
        {
            "definition"
        }
        _ => "other",
    }
}

/// `?` in ours stands for a constant that only the server spells out.
fn same(ours: &[String], theirs: &[String]) -> bool {
    ours == theirs
        || (ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(ours, theirs)| {
                ours == theirs
                    || ours.split_once('?').is_some_and(|(head, tail)| {
                        theirs.starts_with(head) && theirs.ends_with(tail)
                    })
            }))
}
