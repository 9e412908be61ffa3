//! docs/hazards.md claims tests by name: each has to exist, and each hazard has
//! to stand in the table once.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_hazard_stands_once_and_says_where_it_stands() {
    let rows = rows();
    let numbers: Vec<u32> = rows.iter().flat_map(|row| row.first..=row.last).collect();
    assert_eq!(numbers, (1..=HAZARDS).collect::<Vec<_>>());
    let unsaid: Vec<u32> = rows
        .iter()
        .filter(|row| !["test", "refused", "open"].iter().any(|word| row.here.contains(word)))
        .map(|row| row.first)
        .collect();
    assert!(unsaid.is_empty(), "neither test, refused nor open: {unsaid:?}");
}

#[test]
fn every_test_that_the_table_names_exists() {
    let mut known = BTreeSet::new();
    for folder in ["src", "tests", "integration"] {
        visit(Path::new(folder), &mut known);
    }
    let mut missing = Vec::new();
    for row in rows() {
        for name in row.here.split('`').skip(1).step_by(2) {
            let is_path = name.contains('/') && Path::new(name).exists();
            if !is_path && !known.contains(name) && name.chars().all(is_part) {
                missing.push(format!("{}: {name}", row.first));
            }
        }
        let claims = row.here.starts_with("test");
        if claims && !row.here.contains('`') {
            missing.push(format!("{}: claims a test and names none", row.first));
        }
    }
    assert!(missing.is_empty(), "not found:\n{}", missing.join("\n"));
}

/// A row, which may stand for several hazards in a row.
struct Row {
    first: u32,
    last: u32,
    here: String,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string("docs/hazards.md").unwrap();
    text.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
            let number = cells.first()?.trim();
            let (first, last) = number.split_once(" – ").unwrap_or((number, number));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            Some(Row { first, last, here: cells.last()?.trim().to_owned() })
        })
        .collect()
}

/// Names of functions in Rust, Python, JavaScript and shell files.
fn visit(folder: &Path, known: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() {
            if !name.starts_with('.') && name != "node_modules" && name != "golden" {
                visit(&entry, known);
            }
        } else if let Ok(text) = fs::read_to_string(&entry) {
            for line in text.lines() {
                for word in ["fn ", "def ", "function ", "check "] {
                    if let Some((_, rest)) = line.split_once(word) {
                        known.insert(rest.chars().take_while(|c| is_part(*c)).collect());
                    }
                }
            }
        }
    }
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

const HAZARDS: u32 = 120;
