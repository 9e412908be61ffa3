//! Every example of docs/guide.md is run: the map is valid, the commands print
//! what the guide shows, and each statement is answered as it says.

use std::process::Command;

use crate::client::Client;
use crate::support::scratch_dir;
use crate::world::world;

const GUIDE: &str = include_str!("../../docs/guide.md");

/// The texts between fences that begin with ```` ```kind ````.
fn blocks(kind: &str) -> Vec<String> {
    let fence = format!("```{kind}\n");
    let parts = GUIDE.split(fence.as_str()).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn commands_of_the_guide_print_what_it_shows() {
    let [map] = blocks("toml").try_into().expect("one map");
    let dir = scratch_dir();
    std::fs::write(dir.join("guide.toml"), map).unwrap();
    let mut run = 0;
    for example in blocks("console").iter().flat_map(|block| block.split("$ keyway ").skip(1)) {
        let (command, shown) = example.split_once('\n').unwrap();
        // Words as a shell reads these lines: quotes hold a statement together.
        let words: Vec<&str> = command
            .split('"')
            .enumerate()
            .flat_map(
                |(n, part)| {
                    if n % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
                },
            )
            .collect();
        let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(words)
            .current_dir(&dir)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), shown.trim(), "{command}");
        run += 1;
    }
    assert_eq!(run, 4, "examples");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn statements_of_the_guide_are_answered_as_it_says() {
    let client = Client::connect(&world().router.url());
    let (mut statements, mut refusals) = (0, 0);
    for block in blocks("sql") {
        let mut lines = block.lines().peekable();
        while let Some(sql) = lines.next() {
            let mut said: Vec<&str> = Vec::new();
            while let Some(line) = lines.peek().and_then(|line| line.strip_prefix("-- ")) {
                said.push(line);
                lines.next();
            }
            statements += 1;
            let answer = client.text(sql);
            match said.as_slice() {
                [] => drop(answer.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"))),
                ["one row"] => {
                    let rows = answer.as_ref().map_or(0, |text| text.lines().count() - 1);
                    assert_eq!(rows, 1, "{sql}: {answer:?}");
                }
                [first, ..] if first.contains(" | ") => {
                    let wanted = said.join("\n").replace(" | ", "|");
                    assert_eq!(answer.unwrap(), format!("{wanted}\n(0)"), "{sql}");
                }
                [first, rest @ ..] => {
                    let refusal = answer.expect_err(sql);
                    let told = format!("{}: {}", refusal.state, refusal.message);
                    assert!(told.starts_with(first), "{sql}: {told}");
                    if let [hint] = rest {
                        assert_eq!(format!("hint: {}", refusal.hint), *hint, "{sql}");
                    }
                    refusals += 1;
                }
            }
        }
    }
    assert!(statements > 20 && refusals > 10, "{statements} statements, {refusals} refusals");
}
