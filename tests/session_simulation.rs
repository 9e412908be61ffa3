//! Many clients on few backends, in an order that a seed decides: each sees
//! what a server of its own would have told it, and a backend that is passed on
//! is clean.
//!
//! The machines are the real ones (sessions, backends, pool); servers are a
//! model (`simulation/server.rs`), and so is the server that each client is
//! compared with. `KEYWAY_SEED` replays one run, `KEYWAY_SEEDS` sets how many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its model is small"
)]

#[path = "simulation/execute.rs"]
mod execute;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/script.rs"]
mod script;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/sql.rs"]
mod sql;
#[path = "simulation/world.rs"]
mod world;

use std::cell::RefCell;
use std::rc::Rc;

use random::Random;
use server::{Server, Tables};
use world::World;

#[test]
fn each_client_sees_what_a_server_of_its_own_would_say() {
    if let Ok(seed) = std::env::var("KEYWAY_SEED") {
        return run(seed.parse().expect("KEYWAY_SEED is a number"));
    }
    let count = std::env::var("KEYWAY_SEEDS").map_or(RUNS, |n| n.parse().expect("a number"));
    let first = std::env::var("KEYWAY_SEED_FIRST").map_or(1, |n| n.parse().expect("a number"));
    for seed in first..first + count {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let backends = 1 + random.below(2);
    let clients = 1 + random.below(4);
    let units = 3 + random.below(12);
    let scripts: Vec<_> =
        (0..clients).map(|client| script::script(&mut random, client, units)).collect();
    let mut world = World::new(&mut random, backends, &scripts);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    let problem = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(problem)) => Some(problem),
        Err(panic) => Some(
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default(),
        ),
    };
    if let Some(problem) = problem {
        let mover = world.mover();
        let said = scripts[mover].words.join("\n    ");
        let seen = words(world.seen(mover));
        let last: Vec<_> = seen.iter().rev().take(12).rev().cloned().collect();
        panic!(
            "KEYWAY_SEED={seed}: client {mover}: {problem}\n  said:\n    {said}\n  saw last:\n    {}",
            last.join("\n    ")
        );
    }
    let mut failed = String::new();
    for (number, script) in scripts.iter().enumerate() {
        if world.has_vanished(number) {
            continue;
        }
        let mut own = Server::new(&Rc::new(RefCell::new(Tables::default())), world.startup(number));
        own.receive(&script.bytes);
        let (seen, wanted) = (words(world.seen(number)), words(&own.out));
        if seen != wanted {
            failed.push_str(&format!(
                "client {number}\n  said:\n    {}\n{}",
                script.words.join("\n    "),
                difference(&wanted, &seen)
            ));
        }
    }
    assert!(failed.is_empty(), "KEYWAY_SEED={seed}: {failed}");
}

/// Replies in words: of an error its class and code, since the router words
/// its own; neighbouring reports in one order.
fn words(mut bytes: &[u8]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        let Some(body) = bytes.get(5..=length) else { break };
        let tag = char::from(bytes[0]);
        let text = String::from_utf8_lossy(body).replace('\0', "|");
        out.push(match tag {
            'E' | 'N' => {
                let field = |code: char| {
                    text.split('|')
                        .find_map(|part| part.strip_prefix(code))
                        .unwrap_or("?")
                        .to_owned()
                };
                format!("{tag} {} {}", field('V'), field('C'))
            }
            _ => format!("{tag} {text}"),
        });
        bytes = &bytes[length + 1..];
    }
    if !bytes.is_empty() {
        out.push(format!("half a message: {bytes:?}"));
    }
    for run in out.chunk_by_mut(|a, b| a.starts_with("S ") && b.starts_with("S ")) {
        run.sort();
    }
    out
}

fn difference(wanted: &[String], seen: &[String]) -> String {
    let same = wanted.iter().zip(seen).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(6);
    let part = |list: &[String]| {
        list.iter().skip(from).take(12).map(|word| format!("    {word}\n")).collect::<String>()
    };
    format!(
        "  same up to reply {same}\n  its own server:\n{}  the router:\n{}",
        part(wanted),
        part(seen)
    )
}

/// Seeds of a plain run.
const RUNS: u64 = 400;
