//! Transcripts of sessions: what a client and its servers say → what the
//! router says to each, what it checks out and what it gives back.
//! `UPDATE_GOLDEN=1` rewrites the outputs.
//!
//! `>` is a client's message (neighbouring lines are one write), `<` a
//! server's (`<<`: neighbouring lines are one read); `as NAME setting=value…` is another client (`turn=statement`: in pool mode statement), `fresh` gives every shard
//! another backend, `refuse CODE TEXT` fails the next checkout, `lost` breaks the
//! held backend's connection; `map NAME` is another map from now on, and
//! `moves PHASE TENANT SOURCE TARGET` the one move that is under way (`moves`: none); `tired` ends a
//! client's wait for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail by panicking"
)]

#[path = "transcript/stage.rs"]
mod stage;
#[path = "transcript/words.rs"]
mod words;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use stage::Stage;

#[test]
fn sessions_say_what_is_recorded() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases = 0;
    let mut failures = String::new();
    let folder = fs::read_dir(Path::new("tests/golden/session")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "txt")) {
        let text = fs::read_to_string(path).unwrap();
        let mut map = "unsharded".to_owned();
        let mut out = String::new();
        for case in text.split("\n\n").filter(|case| !case.trim().is_empty()) {
            if let Some(name) = case.trim().strip_prefix("map: ") {
                name.clone_into(&mut map);
                writeln!(out, "map: {name}\n").unwrap();
                continue;
            }
            let (input, expected) = case.split_once("\n----").unwrap_or((case, ""));
            let (title, lines): (Vec<_>, Vec<_>) =
                input.trim_matches('\n').lines().partition(|line| line.starts_with("# "));
            let input = lines.join("\n");
            let actual = Stage::new(&map).play(&input);
            cases += 1;
            if actual.trim_end() != expected.trim_matches('\n') {
                let title = title.join(" ");
                writeln!(
                    failures,
                    "{}: {title}\n--- expected{expected}\n--- actual\n{actual}",
                    path.display()
                )
                .unwrap();
            }
            for line in title {
                writeln!(out, "{line}").unwrap();
            }
            writeln!(out, "{input}\n----\n{actual}").unwrap();
        }
        if update {
            fs::write(path, format!("{}\n", out.trim_end())).unwrap();
        }
    }
    assert!(update || failures.is_empty(), "{failures}");
    assert!(cases >= CASES_MIN, "only {cases} cases");
}

/// A folder that can't be read must not pass for one without failures.
const CASES_MIN: usize = 50;
