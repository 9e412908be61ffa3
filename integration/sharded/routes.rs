//! What `keyway route` and EXPLAIN ROUTE say is where a statement runs.

use std::process::Command;

use serde_json::Value;

use crate::client::Client;
use crate::world::world;

/// Statements whose first column is the port of the server they run on; `{1}`
/// and `{2}` are tenants of the two shards.
const STATEMENTS: &[&str] = &[
    "SELECT current_setting('port') FROM tenants WHERE tenant_id = {1}",
    "SELECT current_setting('port') FROM tenants WHERE tenant_id = {2}",
    "SELECT current_setting('port') FROM tasks t JOIN users u USING (tenant_id) WHERE t.tenant_id = '{2}' LIMIT 1",
    "INSERT INTO notes (tenant_id, id) VALUES ({2}, 70) RETURNING current_setting('port')",
    "UPDATE notes SET body = 'x' WHERE id = 70 AND tenant_id = {2} RETURNING current_setting('port')",
    "DELETE FROM notes WHERE tenant_id = {2} AND id = 70 RETURNING current_setting('port')",
    "WITH n AS (INSERT INTO notes (tenant_id, id) VALUES ({1}, 71) RETURNING id) SELECT current_setting('port') FROM n",
    "DELETE FROM notes WHERE tenant_id = {1} AND id = 71 RETURNING current_setting('port')",
    "SELECT current_setting('port') FROM (SELECT 1) s, app_settings RIGHT JOIN (SELECT 2) t ON true",
    "SELECT current_setting('port') FROM tenants LEFT JOIN audit.entries ON true WHERE tenant_id = {2}",
    "SELECT current_setting('port')",
    "SELECT current_setting('port') FROM pg_class LIMIT 1",
    "SELECT current_setting('port') FROM information_schema.tables LIMIT 1",
    "SELECT current_setting('port') FROM (SELECT pg_notify('a', 'b')) n",
    "SELECT current_setting('port') FROM (SELECT nextval('tasks_task_id_seq')) n",
    "SELECT current_setting('port') FROM plans LIMIT 1",
];

fn route(map: &str, sql: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["route", "--map", map, "--json", sql])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn route_told_offline_is_where_the_statement_runs() {
    let world = world();
    let map = world.router.map_file().display().to_string();
    let client = Client::connect(&world.router.url());
    for template in STATEMENTS {
        let sql = template
            .replace("{1}", &world.tenants_on(1)[8].to_string())
            .replace("{2}", &world.tenants_on(2)[8].to_string());
        let told = route(&map, &sql);
        let explained = client.run(&format!("EXPLAIN ROUTE {sql}"));
        let port: u16 = client.value(&sql).parse().unwrap();
        let ran = [1, 2].into_iter().find(|s| world.cluster.primary(*s).port == port);
        let ran = format!("shard{}", ran.unwrap());
        let shards: Vec<&str> =
            told["shards"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        if !shards.is_empty() || !told["targets"].as_str().unwrap().contains("any shard") {
            assert_eq!(shards, [ran.as_str()], "{sql}: {told}");
        }
        assert!(explained.contains(&ran), "{sql}: {explained}");
        assert!(explained.contains(told["reason"].as_str().unwrap()), "{sql}: {explained}");
        assert!(explained.contains(told["access"].as_str().unwrap()), "{sql}: {explained}");
    }
}

#[test]
fn explain_route_names_key_slot_and_shard_and_runs_nothing() {
    let world = world();
    let client = Client::connect(&world.router.url());
    let tenant = world.tenants_on(2)[9];
    let insert = format!("INSERT INTO notes (tenant_id, id) VALUES ({tenant}, 80)");
    let said = client.run(&format!("EXPLAIN ROUTE {insert}"));
    let slot = world.cluster.sql(1, &format!("SELECT hashint8extended({tenant}, 0) & 4095"));
    let key = format!("key|{tenant} (constant) in slot {slot} of tenants on shard2");
    assert!(said.contains(&key), "{said}");
    let count = format!("SELECT count(*) FROM notes WHERE tenant_id = {tenant} AND id = 80");
    assert_eq!(client.value(&count), "0");
    let all = client.run("EXPLAIN ROUTE CREATE TABLE t (a int)");
    assert!(all.contains("shard1, shard2"), "{all}");
    let refusal = client.refused("EXPLAIN ROUTE SELECT * FROM tasks FOR UPDATE");
    assert_eq!(refusal, client.refused("SELECT * FROM tasks FOR UPDATE"));
    // EXPLAIN itself is the server's, on the shard that would run it.
    let plan =
        client.run(&format!("EXPLAIN (COSTS OFF) DELETE FROM notes WHERE tenant_id = {tenant}"));
    assert!(plan.contains("Delete on notes"), "{plan}");
    client.run("BEGIN");
    assert!(client.run(&format!("EXPLAIN ROUTE {insert}")).contains("shard2"));
    // It has given the transaction no shard.
    let other = world.tenants_on(1)[9];
    client.run(&format!("SELECT name FROM tenants WHERE tenant_id = {other}"));
    client.run("COMMIT");
}
