//! Replays a recording so many times, for a counter of instructions to watch:
//!
//! ```text
//! valgrind --tool=callgrind target/release/deps/replay-… simple 2000
//! ```
//!
//! `scripts/gates` takes the difference between two counts of queries, which
//! leaves out everything but the queries themselves. Without arguments it
//! prints the time that a query takes, which is good for a first look only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a measurement, not a part of the program"
)]

use std::time::Instant;

mod exchange;

use exchange::{Replay, SCENARIOS};

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    match (args.next(), args.next()) {
        (Some(name), Some(count)) => {
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
            let scenario = scenario.expect("a scenario of that name");
            Replay::warm(scenario).run(count.parse().expect("a number of queries"));
        }
        _ => {
            for scenario in &SCENARIOS {
                let mut replay = Replay::warm(scenario);
                let started = Instant::now();
                replay.run(QUERIES);
                let ns = started.elapsed().as_nanos() / QUERIES as u128;
                println!("{:<18} {ns} ns", scenario.name);
            }
        }
    }
}

const QUERIES: usize = 200_000;
