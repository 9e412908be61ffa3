//! Properties of planning: no text makes it panic, and a cached plan says what
//! a fresh one says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use keyway::route::{Planner, PlannerLimits, Route, RouteError, SearchPath, World};
use keyway::shardmap::{Endpoint, Map};
use proptest::prelude::*;

const PIECES: &[&str] = &[
    "select",
    "*",
    "from",
    "users",
    "u",
    "tasks t",
    "where",
    "tenant_id",
    "u.tenant_id",
    "=",
    "42",
    "43",
    "-5",
    "'42'",
    "E'4\\x33'",
    "$1",
    "and",
    "or",
    "not",
    "(",
    ")",
    ",",
    "join",
    "left join",
    "on",
    "using (tenant_id)",
    "with x as",
    "union",
    "insert into",
    "values",
    "update",
    "set",
    "delete",
    "returning *",
    "null",
    "::int8",
    "in",
    "exists",
    "order by 1",
    "limit 1",
    ";",
    "begin",
    "commit",
    "plans",
    "audit_log",
    "/* c */",
    "-- c\n",
    "copy",
    "to stdout",
    "explain",
    "prepare p as",
    "execute p",
    "fetch",
    "for update",
    "lower",
    "public.",
    "\"users\"",
    "a",
    "lock",
    "= any (",
    "array[42, 43]",
    "'{42}'",
    "lateral",
    "merge into users u using tasks t on",
    "when matched then delete",
    "when not matched then insert (tenant_id) values (42)",
    "on conflict (tenant_id) do update set",
    "between 1 and 2",
    "case when",
    "end",
    "group by",
    "over (partition by",
    "row(",
    "[",
    "]",
    "recursive",
    "intersect",
    "for update",
    "::",
    "limit",
    "/* keyway: key=42 */",
    "$2",
    "u.*",
    "as x(tenant_id)",
];

fn map() -> Map {
    let path = "tests/golden/route/maps/two.toml";
    Map::parse(&std::fs::read_to_string(path).unwrap(), path).unwrap()
}

fn run(planner: &mut Planner, text: &[u8], world: &World<'_>) -> Result<Route, RouteError> {
    let template = planner.plan(text, world)?;
    template.locate(text, planner.literals(), None, world.map, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_cached_plan_says_what_a_fresh_one_says(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 1..14),
        other in prop::sample::select(&["42", "43", "-7", "1000"][..]),
    ) {
        let sharded = map();
        let plain = Map::unsharded("app", Endpoint::new("db", 5432), Vec::new());
        let search_path = SearchPath::default();
        for map in [&sharded, &plain] {
            let world = World::of_map(map, &search_path);
            let mut warm = Planner::new(1, PlannerLimits::default());
            let first = pieces.join(" ");
            let second = first.replace("42", other);
            for text in [&first, &second, &first, &second] {
                let mut fresh = Planner::new(2, PlannerLimits::default());
                let text = text.as_bytes();
                prop_assert_eq!(
                    run(&mut warm, text, &world),
                    run(&mut fresh, text, &world)
                );
            }
        }
    }

    #[test]
    fn keyed_statements_go_to_the_owner(key in any::<i64>(), quoted in any::<bool>()) {
        let map = map();
        let search_path = SearchPath::default();
        let world = World::of_map(&map, &search_path);
        let mut planner = Planner::new(1, PlannerLimits::default());
        let value = if quoted { format!("'{key}'") } else { key.to_string() };
        let mut seen = Vec::new();
        for text in [
            format!("select * from users where tenant_id = {value}"),
            format!("update users set a = 1 where name = 'x' and {value} = tenant_id"),
            format!("insert into users (a, tenant_id) values (1, {value})"),
            format!("delete from tasks using users u where u.tenant_id = tasks.tenant_id and u.tenant_id = {value}"),
        ] {
            let route = run(&mut planner, text.as_bytes(), &world).unwrap();
            seen.push((route.targets, route.reason));
        }
        prop_assert!(seen.iter().all(|route| *route == seen[0]));
    }
}
