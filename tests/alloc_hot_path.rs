//! A warm query allocates nothing: neither on its way to the backend nor on
//! the reply's way back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test's helpers fail by panicking"
)]

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[path = "../benches/replay/exchange.rs"]
mod exchange;

use exchange::{Replay, SCENARIOS};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_warm_query_allocates_nothing() {
    let mut found = Vec::new();
    for scenario in &SCENARIOS {
        let mut replay = Replay::warm(scenario);
        // The count is the process's: what the test's runner does meanwhile is
        // not there every time.
        let counts = (0..ATTEMPTS).map(|_| {
            let region = Region::new(ALLOCATOR);
            replay.run(QUERIES);
            let change = region.change();
            (change.allocations, change.reallocations)
        });
        let (new, grown) = counts.min().unwrap();
        if (new, grown) != (0, 0) {
            found.push(format!("{}: {new} allocations, {grown} growths", scenario.name));
        }
    }
    assert!(found.is_empty(), "in {QUERIES} queries: {found:#?}");
}

const QUERIES: usize = 100;
const ATTEMPTS: usize = 5;
