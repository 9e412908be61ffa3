//! A warm plan and its route allocate nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::alloc::System;

use keyway::route::{Param, Planner, PlannerLimits, SearchPath, World};
use keyway::shardmap::Map;
use keyway::types::{Format, Oid};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn warm_plan_and_locate_allocate_nothing() {
    let path = "tests/golden/route/maps/two.toml";
    let map = Map::parse(&std::fs::read_to_string(path).unwrap(), path).unwrap();
    let search_path = SearchPath::default();
    let world = World::of_map(&map, &search_path);
    let mut planner = Planner::new(7, PlannerLimits::default());
    let params =
        [Param { value: Some(&[0, 0, 0, 42]), format: Format::Binary, oid: Oid::new(23) }].to_vec();
    let texts: [&[u8]; 5] = [
        b"select abalance from users where tenant_id = 42 and id = 4711",
        b"select abalance from users where tenant_id = $1 and id = $2",
        b"update users set name = 'x' where tenant_id = -5",
        b"select 1",
        b"begin",
    ];
    let mut run = || {
        for text in texts {
            let template = planner.plan(text, &world).unwrap();
            let literals = planner.literals();
            template.locate(text, literals, Some(&params), &map, None).unwrap();
        }
    };
    // The first round plans, the second finds every buffer at its size.
    run();
    run();
    // The count is the process's: what the test's runner does meanwhile is not
    // there every time.
    let counts = (0..5).map(|_| {
        let region = Region::new(ALLOCATOR);
        for _ in 0..100 {
            run();
        }
        let change = region.change();
        (change.allocations, change.reallocations)
    });
    assert_eq!(counts.min(), Some((0, 0)));
}
