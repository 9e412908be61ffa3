//! Reads on replicas where the map allows them, what never goes there, and
//! reloads of the map in the middle of transactions.

use std::fs;

use crate::client::Client;
use crate::support::router::Router;
use crate::support::wait_for;
use crate::world::{World, world};

/// The port of the server that answers a read of `tenant`.
fn read_port(client: &Client, tenant: i64) -> u16 {
    let sql = format!("SELECT current_setting('port') FROM tenants WHERE tenant_id = {tenant}");
    client.value(&sql).parse().unwrap()
}

/// Waits until a read of each shard goes to its replica.
fn wait_known(world: &World, client: &Client) {
    for shard in [1, 2] {
        let (tenant, replica) = (world.tenants_on(shard)[0], world.cluster.replica(shard, 1).port);
        wait_for("the router to know its replicas", || read_port(client, tenant) == replica);
    }
}

#[test]
fn reads_go_to_the_shards_replica_and_nothing_else_does() {
    let world = world();
    let router = world.own_router("any");
    let client = Client::connect(&router.url());
    wait_known(world, &client);
    for shard in [1, 2] {
        let tenant = world.tenants_on(shard)[1];
        let (primary, replica) =
            (world.cluster.primary(shard).port, world.cluster.replica(shard, 1).port);
        let port = |sql: &str| {
            let sql =
                sql.replace("{t}", &tenant.to_string()).replace("{p}", "current_setting('port')");
            client.value(&sql).parse::<u16>().unwrap_or_else(|_| panic!("{sql}"))
        };
        for sql in [
            "SELECT {p} FROM tasks WHERE tenant_id = {t} GROUP BY 1",
            "SELECT {p} FROM tenants JOIN plans USING (plan_code) WHERE tenant_id = {t}",
            "WITH t AS (SELECT * FROM tenants WHERE tenant_id = {t}) SELECT {p} FROM t",
            "SELECT {p}, upper(name), now() FROM tenants WHERE tenant_id = {t}",
        ] {
            assert_eq!(port(&sql.replace(", upper(name), now()", "")), replica, "{sql}");
        }
        let sql = "SELECT current_setting('port')::int4 FROM tenants WHERE tenant_id = $1";
        let rows = client.query(sql, &[&tenant]).unwrap();
        assert_eq!(rows[0].get::<_, i32>(0), i32::from(replica), "prepared");
        for sql in [
            "INSERT INTO notes (tenant_id, id) VALUES ({t}, 4000) RETURNING {p}",
            "UPDATE notes SET body = 'b' WHERE tenant_id = {t} AND id = 4000 RETURNING {p}",
            "WITH d AS (DELETE FROM notes WHERE tenant_id = {t} AND id = 4000 RETURNING 1) SELECT {p} FROM d",
            "SELECT {p} FROM tenants WHERE tenant_id = {t} FOR SHARE",
            "SELECT {p} FROM tenants WHERE tenant_id = {t} AND random() < 2",
            "SELECT {p} FROM tenants WHERE tenant_id = {t} AND touch() = 1",
            "SELECT {p} FROM tenants WHERE tenant_id = {t} AND nextval('tasks_task_id_seq') > 0",
            "SELECT {p} FROM tenants WHERE tenant_id = {t} AND pg_advisory_xact_lock(1) IS NOT NULL",
            "SELECT {p} FROM tenants WHERE tenant_id = {t} AND NOT pg_is_in_recovery()",
        ] {
            assert_eq!(port(sql), primary, "{sql}");
        }
        client.run("BEGIN");
        assert_eq!(
            port("SELECT {p} FROM tenants WHERE tenant_id = {t}"),
            primary,
            "in a transaction"
        );
        client.run("COMMIT");
        client.run("SET keyway.consistency = 'primary'");
        assert_eq!(port("SELECT {p} FROM tenants WHERE tenant_id = {t}"), primary, "asked for");
        client.run("RESET keyway.consistency");
        assert_eq!(port("SELECT {p} FROM tenants WHERE tenant_id = {t}"), replica);
    }
    // Without a table of the map: home's primary.
    for sql in
        ["SELECT current_setting('port')", "SELECT current_setting('port') FROM pg_class LIMIT 1"]
    {
        assert_eq!(client.value(sql), world.cluster.primary(1).port.to_string(), "{sql}");
    }
    let reference: u16 =
        client.value("SELECT current_setting('port') FROM plans LIMIT 1").parse().unwrap();
    assert!(
        [1, 2].iter().any(|s| world.cluster.replica(*s, 1).port == reference),
        "a copy is read"
    );
}

#[test]
fn replica_that_stands_still_serves_no_bounded_reads() {
    let world = world();
    let router = world.own_router("bounded(2s)");
    let client = Client::connect(&router.url());
    let tenant = world.tenants_on(2)[2];
    wait_known(world, &client);
    let replica = world.cluster.replica(2, 1);
    let superuser = Client::connect(&format!("{}?sslmode=disable", replica.superuser_url));
    superuser.run("SELECT pg_wal_replay_pause()");
    client.run(&format!("INSERT INTO notes (tenant_id, id) VALUES ({tenant}, 5000)"));
    let count = format!("SELECT count(*) FROM notes WHERE tenant_id = {tenant} AND id = 5000");
    wait_for("the replica to be too far behind", || {
        read_port(&client, tenant) == world.port_of(tenant)
    });
    assert_eq!(client.value(&count), "1", "the primary has what was just written");
    client.run("SET keyway.consistency = 'any'");
    assert_eq!(client.value(&count), "0", "any replica will do: the client asked for that");
    client.run("RESET keyway.consistency");
    superuser.run("SELECT pg_wal_replay_resume()");
    wait_for("the replica to catch up", || read_port(&client, tenant) == replica.port);
    assert_eq!(client.value(&count), "1");
    client.run(&format!("DELETE FROM notes WHERE tenant_id = {tenant} AND id = 5000"));
}

/// Writes the router's map file anew, with its next epoch.
fn change_map(router: &Router, epoch: u32, change: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(router.map_file()).unwrap();
    let old = text.lines().find(|line| line.starts_with("epoch = ")).unwrap();
    let text = change(&text.replace(old, &format!("epoch = {epoch}")));
    let new = router.map_file().with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, router.map_file()).unwrap();
}

#[test]
fn reload_leaves_open_transactions_with_their_map() {
    let world = world();
    let router = world.own_router("primary");
    let (open, lazy, idle) = (
        Client::connect(&router.url()),
        Client::connect(&router.url()),
        Client::connect(&router.url()),
    );
    let (one, two) = (world.tenants_on(1)[3], world.tenants_on(2)[3]);
    // `app_settings` is on shard2 now; the next map does not know it.
    open.run("BEGIN");
    open.run(&format!("INSERT INTO notes (tenant_id, id) VALUES ({two}, 6000)"));
    lazy.run("BEGIN");
    let first: u32 = idle.value("SHOW keyway.epoch").parse().unwrap();
    change_map(&router, first + 1, |map| {
        map.replace("\"public.app_settings\"", "\"public.moved_away\"").replacen(
            "database =",
            "data = \"already-moved\"\ndatabase =",
            1,
        )
    });
    let console = Client::connect(&router.console_url());
    console.run("RELOAD");
    wait_for("the new map", || idle.value("SHOW keyway.epoch") == (first + 1).to_string());
    assert_eq!(idle.refused("SELECT * FROM app_settings").state, "0A000");
    assert_eq!(open.value("SHOW keyway.epoch"), first.to_string());
    open.run("SELECT * FROM app_settings");
    // What has no shard yet follows the map in force.
    assert_eq!(lazy.value("SHOW keyway.epoch"), (first + 1).to_string());
    lazy.refused("SELECT * FROM app_settings");
    open.run(&format!("UPDATE notes SET body = 'b' WHERE tenant_id = {two} AND id = 6000"));
    open.run("COMMIT");
    lazy.run("COMMIT");
    assert_eq!(open.value("SHOW keyway.epoch"), (first + 1).to_string());
    assert_eq!(open.refused("SELECT * FROM app_settings").state, "0A000");
    let count = format!("SELECT count(*) FROM notes WHERE tenant_id = {two} AND body = 'b'");
    assert_eq!(idle.value(&count), "1");
    idle.run(&format!("DELETE FROM notes WHERE tenant_id = {two} AND id = 6000"));
    // A prepared statement of before is planned anew.
    let sql = "SELECT count(*) FROM notes WHERE tenant_id = $1 AND id = 1000000";
    for tenant in [one, two] {
        assert_eq!(idle.query(sql, &[&tenant]).unwrap()[0].get::<_, i64>(0), 0);
    }
}

#[test]
fn map_that_is_broken_or_would_move_rows_does_not_take_effect() {
    let world = world();
    let router = world.own_router("primary");
    let client = Client::connect(&router.url());
    let console = Client::connect(&router.console_url());
    let first: u32 = client.value("SHOW keyway.epoch").parse().unwrap();
    let tenant = world.tenants_on(2)[4];
    change_map(&router, first + 1, |map| map.replacen("[\"0-2047\"]", "[\"0-2050\"]", 1));
    let refused = console.text("RELOAD");
    let said = format!("{refused:?}");
    assert!(said.contains("2048"), "names the slots that two shards would own: {said}");
    assert_eq!(client.value("SHOW keyway.epoch"), first.to_string());
    change_map(&router, first + 1, |map| {
        map.replacen("[\"0-2050\"]", "[\"0-1000\"]", 1).replacen(
            "[\"2048-4095\"]",
            "[\"1001-4095\"]",
            1,
        )
    });
    let said = format!("{:?}", console.text("RELOAD"));
    assert_eq!(client.value("SHOW keyway.epoch"), first.to_string(), "{said}");
    assert!(console.run("SHOW MAP").contains("2048-4095"), "the map in force serves on");
    assert_eq!(read_port(&client, tenant), world.port_of(tenant));
}
