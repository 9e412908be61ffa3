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
mod plans;

use exchange::{Replay, SCENARIOS};
use plans::{KINDS, Plans};

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    match (args.next(), args.next()) {
        (Some(name), Some(count)) => {
            let count = count.parse().expect("a number of queries");
            if let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) {
                Replay::warm(scenario).run(count);
            } else {
                let kind = KINDS.iter().find(|kind| kind.name == name);
                Plans::of(kind.expect("a scenario or a kind of that name")).run(count);
            }
        }
        _ => print_times(),
    }
}

/// The least of several rounds: what others do on the machine only adds.
fn print_times() {
    let print = |name: &str, count: usize, run: &mut dyn FnMut()| {
        let rounds = (0..ROUNDS).map(|_| {
            let started = Instant::now();
            run();
            started.elapsed().as_nanos() / count as u128
        });
        println!("{name:<18} {} ns", rounds.min().unwrap_or_default());
    };
    for scenario in &SCENARIOS {
        let mut replay = Replay::warm(scenario);
        print(scenario.name, QUERIES, &mut || replay.run(QUERIES));
    }
    for kind in &KINDS {
        let mut plans = Plans::of(kind);
        if kind.is_cold() {
            // Only the first round meets new texts.
            print(kind.name, PLANS, &mut || plans.run_anew(PLANS));
        } else {
            print(kind.name, PLANS, &mut || plans.run(PLANS));
        }
    }
}

const QUERIES: usize = 50_000;
const PLANS: usize = 2_500;
const ROUNDS: usize = 9;
