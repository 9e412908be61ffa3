//! What a sharded database refuses: SQLSTATE, the construct and the way out;
//! that nothing happened; and that the session goes on.

use crate::client::{Client, Refusal};
use crate::support::psql::psql_with;
use crate::world::world;

/// A statement, its SQLSTATE, a part of the message, a part of the hint.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    // Reads of more than one shard.
    (
        "SELECT * FROM tasks, app_settings WHERE tenant_id = {on1}",
        "0A000",
        "more than one shard",
        "one statement for each shard",
    ),
    // Keys that are none.
    (
        "INSERT INTO notes (tenant_id, id) VALUES (NULL, 1)",
        "23502",
        "key is null",
        "give the sharding key a value",
    ),
    ("SELECT * FROM tasks WHERE tenant_id = 'seven'", "22P02", "", ""),
    ("SELECT * FROM tasks WHERE tenant_id = 0x1F", "0A000", "", ""),
    // Writes.
    (
        "DELETE FROM comments WHERE comment_id = 1001",
        "0A000",
        "sharding key tenant_id",
        "add a condition",
    ),
    ("UPDATE tasks SET state = 'done'", "0A000", "sharding key tenant_id", "add a condition"),
    (
        "UPDATE tenants SET tenant_id = 999 WHERE tenant_id = 1",
        "0A000",
        "can't be changed",
        "delete the row and insert",
    ),
    (
        "INSERT INTO notes SELECT * FROM notes JOIN tasks USING (tenant_id) WHERE tenant_id = {on1}",
        "0A000",
        "must name its columns",
        "name the columns",
    ),
    ("INSERT INTO notes (id, body) VALUES (1, 'x')", "0A000", "sharding key tenant_id", ""),
    (
        "INSERT INTO notes (tenant_id, id) SELECT tenant_id, 1 FROM tenants",
        "0A000",
        "keys of the rows that it inserts into notes",
        "select the sharding key",
    ),
    (
        "INSERT INTO notes (tenant_id, id) VALUES ({on1}, 1), ({on2}, 1)",
        "0A000",
        "more than one shard",
        "one statement for each shard",
    ),
    (
        "INSERT INTO notes (tenant_id, id) VALUES (random(), 1)",
        "0A000",
        "sharding key is an expression",
        "as a constant or a parameter",
    ),
    (
        "INSERT INTO plans VALUES ('x', 'X', 1, 1)",
        "0A000",
        "is on every shard",
        "on each shard directly",
    ),
    (
        "MERGE INTO notes USING tenants ON notes.tenant_id = tenants.tenant_id WHEN MATCHED THEN DELETE",
        "0A000",
        "sharding key tenant_id of table notes",
        "add a condition",
    ),
    ("TRUNCATE tasks", "0A000", "TRUNCATE", "on each shard directly"),
    ("LOCK TABLE tasks", "0A000", "LOCK", "SET keyway.key"),
    ("SELECT * FROM plans FOR UPDATE", "0A000", "is on every shard", ""),
    // COPY.
    ("COPY notes FROM STDIN", "0A000", "COPY into a sharded table", "INSERT"),
    // What belongs to one connection of the server.
    ("CREATE TEMP TABLE tasks (a int)", "0A000", "a temporary table called tasks", "another name"),
    ("SELECT 1 INTO TEMP t", "0A000", "", ""),
    ("LISTEN news; SELECT 1", "0A000", "LISTEN", ""),
    (
        "PREPARE p (numeric) AS SELECT * FROM tasks WHERE tenant_id = $1",
        "0A000",
        "parameter type",
        "leave the types out",
    ),
    ("SELECT currval('tasks_task_id_seq')", "0A000", "currval", ""),
    // Settings under which the router can't read.
    ("SET client_encoding = 'LATIN1'", "0A000", "client_encoding", "UTF8"),
    ("SET standard_conforming_strings = off", "0A000", "standard_conforming_strings", ""),
    // Code that may touch anything.
    ("DO $$ BEGIN PERFORM 1; END $$", "0A000", "DO", "SET keyway.key"),
    ("CALL nothing()", "0A000", "CALL", "SET keyway.key"),
    (
        "CREATE TABLE copied AS SELECT * FROM tasks",
        "0A000",
        "from a query",
        "create the table, then",
    ),
    ("PREPARE TRANSACTION 'x'", "0A000", "", ""),
    ("COMMIT PREPARED 'x'", "0A000", "prepared", ""),
    // Names the map doesn't know, and texts that no reader understands.
    ("SELECT * FROM nowhere", "0A000", "nowhere is not in the shard map", "list the table"),
    (
        "SELECT * FROM other.tasks WHERE tenant_id = 1",
        "0A000",
        "other.tasks is not in the shard map",
        "",
    ),
    ("SELEC 1", "0A000", "\"SELEC\"", ""),
    ("SELECT * FROM tasks WHERE tenant_id = 'a", "42601", "unterminated", ""),
    (
        "SELECT relname FROM pg_class, tasks WHERE tenant_id = 1",
        "0A000",
        "system catalog",
        "by itself",
    ),
    // Query strings.
    (
        "SELECT * FROM tasks WHERE tenant_id = {on1}; SELECT * FROM tasks WHERE tenant_id = {on2}",
        "0A000",
        "more than one shard",
        "",
    ),
    (
        "CREATE TABLE two (a int); SELECT 1",
        "0A000",
        "schema change among other statements",
        "by themselves",
    ),
];

#[test]
fn each_refusal_has_its_state_construct_and_way_out() {
    let world = world();
    let client = Client::connect(&world.router.url());
    let (one, two) = (world.tenants_on(1)[0], world.tenants_on(2)[0]);
    let mut wrong = Vec::new();
    for (sql, state, message, hint) in REFUSED {
        let sql = sql.replace("{on1}", &one.to_string()).replace("{on2}", &two.to_string());
        match client.text(&sql) {
            Ok(text) => wrong.push(format!("{sql}\n    succeeded: {text}")),
            Err(refusal) => {
                let fits = refusal.state == *state
                    && refusal.message.contains(message)
                    && refusal.hint.contains(hint);
                if !fits {
                    wrong.push(format!("{sql}\n    {refusal:?}"));
                }
            }
        }
        assert_eq!(client.value("SELECT 1"), "1", "the session goes on after {sql}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.audit();
}

#[test]
fn refusal_fails_the_transaction_as_the_servers_own_errors_do() {
    let world = world();
    let client = Client::connect(&world.router.url());
    let tenant = world.tenants_on(2)[1];
    let write = format!("INSERT INTO notes (tenant_id, id) VALUES ({tenant}, 900)");
    for first in [write.as_str(), "SELECT 1"] {
        client.run("BEGIN");
        client.run(first);
        assert_eq!(client.refused("SELECT * FROM tasks FOR UPDATE").state, "0A000");
        assert_eq!(client.refused("SELECT 1").state, "25P02");
        let select = format!("SELECT name FROM tenants WHERE tenant_id = {tenant}");
        assert_eq!(client.refused(&select).state, "25P02");
        client.run("COMMIT");
        let count = format!("SELECT count(*) FROM notes WHERE tenant_id = {tenant} AND id = 900");
        assert_eq!(client.value(&count), "0", "COMMIT of a failed transaction rolls back");
    }
    // A savepoint heals it.
    client.run("BEGIN");
    client.run(&write);
    client.run("SAVEPOINT s");
    client.refused("SELECT * FROM tasks FOR UPDATE");
    client.run("ROLLBACK TO s");
    let count = format!("SELECT count(*) FROM notes WHERE tenant_id = {tenant} AND id = 900");
    assert_eq!(client.value(&count), "1");
    client.run("ROLLBACK");
}

#[test]
fn statement_for_another_shard_is_refused_within_a_transaction() {
    let world = world();
    let client = Client::connect(&world.router.url());
    let (one, two) = (world.tenants_on(1)[2], world.tenants_on(2)[2]);
    for first in ["SELECT name FROM tenants", "UPDATE tenants SET name = name"] {
        client.run("BEGIN");
        client.run(&format!("{first} WHERE tenant_id = {one}"));
        let refusal: Refusal =
            client.refused(&format!("UPDATE tenants SET name = 'lost' WHERE tenant_id = {two}"));
        assert_eq!(refusal.state, "0A000");
        assert!(refusal.message.contains("belongs to shard shard2"), "{refusal:?}");
        assert!(refusal.message.contains("runs on shard shard1"), "{refusal:?}");
        assert!(refusal.hint.contains("commit first"), "{refusal:?}");
        client.run("ROLLBACK");
    }
    let name = world.cluster.sql(2, &format!("SELECT name FROM tenants WHERE tenant_id = {two}"));
    assert_ne!(name, "lost");
}

#[test]
fn settings_given_at_login_that_hide_the_text_are_refused_until_they_are_set_back() {
    let world = world();
    for (option, back) in [
        ("client_encoding=LATIN1", "SET client_encoding = 'UTF8'"),
        ("standard_conforming_strings=off", "SET standard_conforming_strings = on"),
    ] {
        let url = format!("{}&options=-c%20{}", world.router.url(), option.replace('=', "%3D"));
        let read = "SELECT tenant_id FROM tenants WHERE tenant_id = 2";
        let error = psql_with(&url, &["--command", read]).expect_error();
        assert!(error.contains("0A000") && error.contains("SET client_encoding"), "{error}");
        let done = psql_with(&url, &["-c", "BEGIN", "-c", back, "-c", "COMMIT", "-c", read]);
        assert_eq!(done.expect(), "2");
    }
}
