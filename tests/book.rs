//! The pages of docs/ hang together: each is in the table of contents, no link
//! leads nowhere, and commands are ones that the program has.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use keyway::app::cli::Cli;
use keyway::shardmap::Map;

fn pages() -> Vec<PathBuf> {
    let docs = Path::new("docs");
    let entries = fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path());
    let pages = entries.filter(|path| path.extension().is_some_and(|end| end == "md"));
    pages.chain([PathBuf::from("README.md")]).collect()
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = fs::read_to_string("docs/README.md").unwrap();
    for page in pages() {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(name == "README.md" || contents.contains(&format!("({name})")), "{name}");
    }
}

#[test]
fn no_link_leads_nowhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if !target.is_empty()
                && !target.contains("://")
                && !page.parent().unwrap().join(target).exists()
            {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn commands_are_ones_that_the_program_has() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```").skip(1).step_by(2) {
            let lines = block.lines().map(|line| line.trim_start_matches("$ "));
            for line in lines.map(|line| line.trim_start_matches("target/release/")) {
                if !line.starts_with("keyway ") {
                    continue;
                }
                let words = words(line);
                if let Err(error) = Cli::try_parse_from(&words) {
                    // --help is no error.
                    assert!(!error.use_stderr(), "{}: {line}\n{error}", page.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 15, "{seen} commands");
}

#[test]
fn maps_of_the_pages_are_valid() {
    for page in ["docs/from-pgdog.md", "docs/guide.md"] {
        let text = fs::read_to_string(page).unwrap();
        let map = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        Map::parse(map, page).unwrap();
    }
}

/// Words as a shell reads these lines, up to a comment or a redirection.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('"').enumerate().flat_map(|(n, part)| {
        if n % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
    });
    parts.take_while(|word| !word.starts_with(['#', '>'])).collect()
}
