//! docs/errors.md lists the messages that the router makes itself: its last part
//! is made from the source, so that none is missing and none is left over.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/errors.md";
const BEGIN: &str = "<!-- Made by tests/errors.rs: UPDATE_GOLDEN=1 cargo test --test errors -->\n";

/// Where clients' errors are made, and what they are about.
const PARTS: &[(&str, &[&str])] = &[
    ("Logging in", &["engine/login", "engine/authenticate", "engine/doors", "auth", "net"]),
    ("Connections to shards", &["engine", "backend", "pool"]),
    ("Where a statement goes", &["route", "shardmap/key", "sql"]),
    (
        "Reads over several shards",
        &["route/scatter", "gather", "session/scatter", "session/gathering"],
    ),
    ("Sessions, transactions, prepared statements", &["session"]),
    ("The console", &["engine/console", "admin"]),
];

/// Calls that make an error; the construct of some is a part of a sentence.
const CALLS: &[(&str, &str)] = &[
    ("Refused::new(", ""),
    ("refuse(", ""),
    ("failed(", ""),
    ("goodbye(", ""),
    ("RouteError::unsupported(", " is not supported on a sharded database"),
    ("several_shards(", " is not supported in a read over several shards"),
    // Where an error says itself.
    ("write!(", ""),
    ("write_str(", ""),
];

#[test]
fn page_of_errors_lists_the_messages_that_the_code_makes() {
    let mut rows: BTreeMap<&str, BTreeSet<(String, String)>> = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    visit(&root, &mut |path, text| {
        let inside = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let fits = |prefix: &&&str| inside.starts_with(**prefix);
        let longest = |(_, prefixes): &&(&str, &[&str])| {
            prefixes.iter().filter(fits).map(|prefix| prefix.len()).max().unwrap_or(0)
        };
        let part = PARTS.iter().max_by_key(longest).filter(|part| longest(part) > 0);
        if let Some((title, _)) = part {
            let says = if inside.ends_with("error.rs") { CALLS } else { &CALLS[..CALLS.len() - 2] };
            rows.entry(title).or_default().extend(messages(text, says));
        }
    });
    let mut made = String::from(BEGIN);
    for (title, _) in PARTS {
        let _ = write!(made, "\n### {title}\n\n| Message | Way out |\n|---|---|\n");
        for (message, hint) in rows.get(title).unwrap() {
            let _ = writeln!(made, "| {message} | {hint} |");
        }
    }
    let all: usize = rows.values().map(BTreeSet::len).sum();
    assert!(all > 150, "{all} messages are found");
    let page = fs::read_to_string(PAGE).unwrap();
    let (head, list) = page.split_once(BEGIN).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(PAGE, format!("{head}{made}")).unwrap();
        return;
    }
    let listed = format!("{BEGIN}{list}");
    let only = |ours: &str, theirs: &str| -> Vec<String> {
        let theirs: BTreeSet<&str> = theirs.lines().collect();
        ours.lines().filter(|line| !theirs.contains(line)).map(str::to_owned).collect()
    };
    let (missing, left_over) = (only(&made, &listed), only(&listed, &made));
    assert!(
        listed == made,
        "{PAGE}: run with UPDATE_GOLDEN=1\nmissing: {missing:#?}\nleft over: {left_over:#?}"
    );
}

/// Message and way out of each error that a file makes.
fn messages(text: &str, calls: &[(&str, &str)]) -> Vec<(String, String)> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut out = Vec::new();
    for (call, suffix) in calls {
        for (at, _) in code.match_indices(call) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let (inside, after) = arguments(&code[at + call.len()..]);
            // A construct that stands elsewhere has its row from there.
            let spelled = inside.trim_start().trim_start_matches('&');
            if !suffix.is_empty() && !spelled.starts_with(['"', 'f']) {
                continue;
            }
            let mut words = literals(inside)
                .into_iter()
                .filter(|word| word.contains(' ') || !suffix.is_empty() && !word.is_empty());
            let Some(message) = words.next() else { continue };
            // The rest of a sentence about a view.
            if message.starts_with("which ") {
                continue;
            }
            let hint = match after.trim_start().strip_prefix(".hint(") {
                Some(rest) => literals(arguments(rest).0).join(" "),
                None => words.next().unwrap_or_default(),
            };
            out.push((shown(&format!("{message}{suffix}")), shown(&hint)));
        }
    }
    out
}

/// What stands up to the parenthesis that closes, and what follows.
fn arguments(text: &str) -> (&str, &str) {
    let (mut depth, mut quoted, mut escaped) = (1, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return (&text[..at], &text[at + 1..]);
                }
            }
            _ => {}
        }
    }
    (text, "")
}

/// The string literals of a piece of code.
fn literals(code: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = code;
    while let Some((_, after)) = rest.split_once('"') {
        let mut word = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    // A line that goes on.
                    Some('\n') => {
                        let left = chars.as_str().trim_start();
                        let skip = chars.as_str().chars().count() - left.chars().count();
                        chars.by_ref().take(skip).for_each(drop);
                    }
                    Some(c) => word.push(c),
                    None => {}
                },
                c => word.push(c),
            }
        }
        out.push(word);
        rest = &after[end..];
    }
    out
}

/// As it stands in a table: what is filled in is an ellipsis.
fn shown(text: &str) -> String {
    let mut out = String::new();
    let mut depth = 0_u32;
    for c in text.chars() {
        match c {
            '{' => {
                depth += 1;
                out.push('…');
            }
            '}' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            '|' => out += "\\|",
            '*' | '_' | '<' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

fn visit(dir: &Path, each: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            visit(&entry, each);
        } else if entry.extension().is_some_and(|end| end == "rs") {
            let name = entry.file_name().unwrap().to_str().unwrap();
            if !name.contains("test") && !entry.to_str().unwrap().contains("simulation") {
                each(&entry, &fs::read_to_string(&entry).unwrap());
            }
        }
    }
}
