//! What should not be on the shards.

use keyway::control::mover::sql::{BASE, Names};
use keyway::mover::Side;

use crate::stage::{doctor, runtime, world};
use crate::world::World;

/// What a move may leave if its journal says that it has ended.
fn leave_behind(world: &World, stream: &str) {
    let purge = Names::new("app", 9).purge();
    for shard in [1, 2] {
        world.cluster.superuser_sql(shard, BASE);
    }
    for (shard, sql) in [
        (1, format!("CREATE PUBLICATION {stream} FOR TABLE accounts")),
        (1, format!("SELECT pg_create_logical_replication_slot('{stream}', 'pgoutput')")),
        (1, format!("CREATE ROLE {stream} LOGIN; GRANT SELECT ON accounts TO {stream}")),
        (1, "CREATE SEQUENCE keyway.fence_9; INSERT INTO keyway.marker VALUES (18, 1)".to_owned()),
        (
            1,
            "CREATE FUNCTION keyway.fence_9() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RETURN new; END'"
                .to_owned(),
        ),
        (
            1,
            "CREATE TRIGGER \"~keyway_9_i\" BEFORE INSERT ON accounts FOR EACH ROW \
             EXECUTE FUNCTION keyway.fence_9()"
                .to_owned(),
        ),
        (2, format!("SELECT pg_replication_origin_create('{purge}')")),
        (
            2,
            format!(
                "CREATE SUBSCRIPTION {stream} CONNECTION 'host=127.0.0.1 port=1 dbname=none' \
                 PUBLICATION none WITH (connect = false)"
            ),
        ),
    ] {
        world.cluster.superuser_sql(shard, &sql);
    }
}

#[test]
fn leftovers_and_misplaced_rows_are_said_first_and_then_taken_away() {
    let world = world();
    let stream = Names::new("app", 9).stream_from(Side::Source);
    leave_behind(&world, &stream);
    // Rows of tenants of the second shard: copies, and one that is nowhere else.

    let (copied, changed) = (world.tenant_on(2, 0), world.tenant_on(2, 1));
    for shard in [1, 2] {
        let name = if shard == 1 { "changed" } else { "right" };
        world.cluster.sql(
            shard,
            &format!(
                "INSERT INTO accounts VALUES ({copied}, 'a'), ({changed}, '{name}'); \
                 INSERT INTO ledger (tenant_id, id, writer, seq) \
                 SELECT {copied}, g, 1, g FROM generate_series(1, 1200) g"
            ),
        );
    }
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let first = doctor(&world, &[]);
    println!("{}", said(&first));
    assert_eq!(first.status.code(), Some(1), "{first:?}");
    for part in [
        &format!("shard1: publication {stream} is left of move 9"),
        &format!("cure: DROP PUBLICATION IF EXISTS \"{stream}\";"),
        "shard1: trigger ~keyway_9_i of public.accounts is left of move 9",
        &format!("shard2: subscription {stream} is left of move 9"),
        "shard1: 2 rows of public.accounts belong to shard2",
        "shard1: 1200 rows of public.ledger belong to shard2",
        &format!("with keys like {copied}"),
    ] {
        assert!(said(&first).contains(part), "{part}: {}", said(&first));
    }
    assert_eq!(said(&doctor(&world, &[])), said(&first), "it only looks");

    let fixed = doctor(&world, &["--fix"]);
    println!("{}", said(&fixed));
    assert_eq!(fixed.status.code(), Some(1), "one row is left: {}", said(&fixed));
    assert!(said(&fixed).contains("1200 copies of public.ledger removed"), "{}", said(&fixed));
    assert!(said(&fixed).contains("1 copies of public.accounts removed"), "{}", said(&fixed));
    runtime().block_on(world.nothing_left());
    let there = |shard, table| {
        let sql = format!("SELECT count(*) FROM {table} WHERE tenant_id IN ({copied}, {changed})");
        world.cluster.sql(shard, &sql)
    };
    assert_eq!((there(1, "accounts"), there(1, "ledger")), ("1".to_owned(), "0".to_owned()));
    assert_eq!((there(2, "accounts"), there(2, "ledger")), ("2".to_owned(), "1200".to_owned()));

    world.cluster.sql(1, &format!("DELETE FROM accounts WHERE tenant_id = {changed}"));
    let healthy = doctor(&world, &["--fix"]);
    assert!(healthy.status.success() && said(&healthy).contains("nothing is left"), "{healthy:?}");
}
