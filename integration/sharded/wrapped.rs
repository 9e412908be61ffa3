//! Statements within others: EXPLAIN, cursors, PREPARE and EXECUTE run where the
//! statement inside does, and nowhere else.

use crate::client::Client;
use crate::world::world;

#[test]
fn explained_statement_runs_on_its_shard_or_not_at_all() {
    let world = world();
    let client = Client::connect(&world.router.url());
    for shard in [1, 2] {
        let tenant = world.tenants_on(shard)[9];
        let count = |on: u16| world.cluster.sql(on, "SELECT count(*) FROM notes WHERE id = 80001");
        let plan = client.run(&format!("EXPLAIN INSERT INTO notes VALUES ({tenant}, 80001, 'x')"));
        assert!(plan.contains("Insert on notes"), "{plan}");
        assert_eq!((count(1), count(2)), ("0".into(), "0".into()));
        let insert =
            format!("EXPLAIN (ANALYZE, COSTS OFF) INSERT INTO notes VALUES ({tenant}, 80001, 'x')");
        assert!(client.run(&insert).contains("actual"));
        assert_eq!((count(shard), count(3 - shard)), ("1".into(), "0".into()));
        let read = format!(
            "EXPLAIN ANALYZE SELECT * FROM notes WHERE id = 80001 AND tenant_id = {tenant}"
        );
        assert!(client.run(&read).contains("rows=1"), "{}", client.run(&read));
        let sql = "EXPLAIN ANALYZE DELETE FROM notes WHERE tenant_id = $1 AND id = 80001";
        assert!(!client.query(sql, &[&tenant]).unwrap().is_empty());
        assert_eq!((count(1), count(2)), ("0".into(), "0".into()));
        assert_eq!(client.refused("EXPLAIN ANALYZE DELETE FROM notes").state, "0A000");
        client.run(&format!("SET keyway.key.tenants = {tenant}"));
        client.run("EXPLAIN DELETE FROM notes WHERE id = 80001");
        client.run("RESET keyway.key.tenants");
    }
}

#[test]
fn cursor_reads_its_shard_within_its_transaction() {
    let world = world();
    let client = Client::connect(&world.router.url());
    for shard in [1, 2] {
        let tenant = world.tenants_on(shard)[9];
        let all = world.cluster.sql(
            shard,
            &format!("SELECT task_id FROM tasks WHERE tenant_id = {tenant} ORDER BY task_id"),
        );
        let all: Vec<&str> = all.lines().collect();
        client.run("BEGIN");
        client.run(&format!(
            "DECLARE c SCROLL CURSOR FOR SELECT task_id FROM tasks WHERE tenant_id = {tenant} ORDER BY 1"
        ));
        assert_eq!(client.value("FETCH NEXT FROM c"), all[0]);
        assert_eq!(client.run("FETCH ALL FROM c").lines().count(), all.len());
        assert_eq!(client.value("FETCH ABSOLUTE 1 FROM c"), all[0]);
        client.run("CLOSE c");
        client.run("COMMIT");
        client.run(&format!(
            "DECLARE c CURSOR WITH HOLD FOR SELECT task_id FROM tasks WHERE tenant_id = {tenant} ORDER BY 1"
        ));
        assert_eq!(client.value("FETCH NEXT FROM c"), all[0]);
        client.run("DISCARD ALL");
    }
}

#[test]
fn execute_goes_where_its_arguments_say() {
    let world = world();
    let client = Client::connect(&world.router.url());
    let (one, two) = (world.tenants_on(1)[9], world.tenants_on(2)[9]);
    client.run(
        "PREPARE p AS SELECT current_setting('port') FROM tasks WHERE tenant_id = $1 AND title <> $2 LIMIT 1",
    );
    for tenant in [one, two, one] {
        let port = world.port_of(tenant).to_string();
        assert_eq!(client.value(&format!("EXECUTE p({tenant}, '')")), port);
        assert_eq!(client.value(&format!("EXECUTE p('{tenant}', NULL)")), "(0)");
        client.run("BEGIN");
        assert_eq!(client.value(&format!("EXECUTE p({tenant}, 'x')")), port);
        let other = if tenant == one { two } else { one };
        client.refused(&format!("EXECUTE p({other}, 'x')"));
        client.run("ROLLBACK");
    }
    // What is no plain constant names no shard.
    for arguments in ["1 + 1, ''", "'1'::int, ''", "(SELECT 1), ''", "0x1, ''", "1.0, ''"] {
        assert_eq!(client.refused(&format!("EXECUTE p({arguments})")).state, "0A000");
    }
    assert_eq!(client.refused(&format!("EXECUTE nobody({one})")).state, "26000");
    // Too few, too many: the server's error, or ours.
    for arguments in ["", &format!("{one}"), &format!("{one}, '', 3")] {
        client.refused(&format!("EXECUTE p({arguments})"));
    }
    client.run("DEALLOCATE p");
    // The declared key stands for what the arguments leave open.
    client.run("PREPARE q AS SELECT current_setting('port') FROM tasks WHERE title <> $1 LIMIT 1");
    for tenant in [two, one] {
        client.run(&format!("SET keyway.key.tenants = {tenant}"));
        assert_eq!(client.value("EXECUTE q('')"), world.port_of(tenant).to_string());
    }
}
