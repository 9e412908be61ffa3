//! Transactions of one tenant after another over one connection: which shard
//! they run on, what becomes of them, and the settings that travel along.

use crate::client::Client;
use crate::world::world;

/// The port of the server that a tenant's statement runs on.
fn port(client: &Client, tenant: i64) -> u16 {
    let sql = format!("SELECT current_setting('port') FROM tenants WHERE tenant_id = {tenant}");
    client.value(&sql).parse().unwrap()
}

#[test]
fn tenants_take_turns_over_one_connection() {
    let world = world();
    let client = Client::connect(&world.router.url());
    for tenant in 1..=60_i64 {
        let expected = world.port_of(tenant);
        assert_eq!(port(&client, tenant), expected, "tenant {tenant}, simple");
        let sql = "SELECT current_setting('port')::int4 FROM tenants WHERE tenant_id = $1";
        let rows = client.query(sql, &[&tenant]).unwrap();
        assert_eq!(rows[0].get::<_, i32>(0), i32::from(expected), "tenant {tenant}, binary");
    }
}

#[test]
fn transaction_begins_without_a_shard_and_gets_it_with_its_first_statement() {
    let world = world();
    let client = Client::connect(&world.router.url());
    for tenant in [world.tenants_on(1)[3], world.tenants_on(2)[3], world.tenants_on(1)[4]] {
        let shard = world.shard_of(tenant);
        client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
        client.run("SET LOCAL work_mem = '5MB'");
        client.run("SAVEPOINT early");
        client.run(&format!("INSERT INTO notes (tenant_id, id, body) VALUES ({tenant}, 1, 'a')"));
        assert_eq!(port(&client, tenant), world.port_of(tenant));
        assert_eq!(client.value("SHOW work_mem"), "5MB");
        assert_eq!(client.value("SHOW transaction_isolation"), "repeatable read");
        client.run("SAVEPOINT late");
        client.run(&format!("INSERT INTO notes (tenant_id, id, body) VALUES ({tenant}, 2, 'b')"));
        client.run("ROLLBACK TO late");
        client.run("COMMIT");
        assert_ne!(client.value("SHOW work_mem"), "5MB");
        let found = format!("SELECT string_agg(body, ',') FROM notes WHERE tenant_id = {tenant}");
        assert_eq!(world.cluster.sql(shard, &found), "a", "on its own shard");
        client.run("BEGIN");
        client.run("SAVEPOINT early");
        client.run(&format!("DELETE FROM notes WHERE tenant_id = {tenant} AND id = 1"));
        client.run("ROLLBACK TO early");
        assert_eq!(client.value(&found), "a", "a savepoint made before there was a shard");
        client.run(&format!("DELETE FROM notes WHERE tenant_id = {tenant}"));
        client.run("ROLLBACK");
        assert_eq!(world.cluster.sql(shard, &found), "a");
        client.run(&format!("DELETE FROM notes WHERE tenant_id = {tenant}"));
    }
    world.audit();
}

#[test]
fn transaction_without_a_shard_is_answered_as_the_server_would() {
    let world = world();
    let router = Client::connect(&world.router.url());
    let direct = Client::connect(&world.cluster.primary(1).url);
    for script in [
        "BEGIN; COMMIT; BEGIN; ROLLBACK; ABORT; END",
        "BEGIN|BEGIN|COMMIT|COMMIT|ROLLBACK",
        "BEGIN|SAVEPOINT a|RELEASE a|RELEASE a|ROLLBACK",
        "BEGIN|SAVEPOINT a|SAVEPOINT a|ROLLBACK TO a|RELEASE a|ROLLBACK TO a|COMMIT",
        "BEGIN|ROLLBACK TO nowhere|SELECT 1|COMMIT|SELECT 2",
        "SAVEPOINT a|RELEASE a|ROLLBACK TO a",
        "BEGIN READ ONLY|SHOW transaction_read_only|COMMIT AND CHAIN|SHOW transaction_read_only|ROLLBACK",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE|SHOW transaction_isolation|SHOW transaction_deferrable|END",
        "BEGIN|SET TRANSACTION ISOLATION LEVEL SERIALIZABLE|SHOW transaction_isolation|COMMIT",
        "BEGIN|SET LOCAL timezone = 'Asia/Tokyo'|SHOW timezone|SELECT current_setting('timezone')|COMMIT|SHOW timezone",
        "BEGIN|SET timezone = 'Asia/Tokyo'|ROLLBACK|SHOW timezone",
        "BEGIN|SET timezone = 'Asia/Tokyo'|SAVEPOINT a|SET timezone = 'UTC'|ROLLBACK TO a|COMMIT|SHOW timezone|RESET timezone|SHOW timezone",
        "BEGIN|SELECT 1/0|SELECT 1|COMMIT|SELECT 2",
        "SELECT 1; BEGIN; SELECT 2; COMMIT; SELECT 3",
        "BEGIN; SELECT 1/0; COMMIT|SELECT 4|ROLLBACK",
        "SET CONSTRAINTS ALL DEFERRED|BEGIN|SET CONSTRAINTS ALL DEFERRED|COMMIT",
        "BEGIN|DECLARE c CURSOR FOR SELECT generate_series(1, 5)|FETCH 2 FROM c|MOVE 1 IN c|FETCH ALL FROM c|CLOSE c|COMMIT",
        "DISCARD ALL|BEGIN|DISCARD ALL|ROLLBACK",
        ";|  -- nothing\n|SELECT 1",
    ] {
        for sql in script.split('|') {
            let (ours, theirs) = (router.text(sql), direct.text(sql));
            let of = |e: crate::client::Refusal| (e.state, e.message);
            assert_eq!(ours.map_err(of), theirs.map_err(of), "{sql} in {script}");
            assert_eq!(router.notices(), direct.notices(), "after {sql} in {script}");
        }
    }
}

#[test]
fn settings_travel_to_both_shards_in_and_out_of_transactions() {
    let world = world();
    let (client, other) =
        (Client::connect(&world.router.url()), Client::connect(&world.router.url()));
    let (one, two) = (world.tenants_on(1)[5], world.tenants_on(2)[5]);
    let seen = |client: &Client, tenant: i64| {
        client.value(&format!(
            "SELECT current_setting('work_mem') || ' ' || current_setting('timezone') \
             FROM tenants WHERE tenant_id = {tenant}"
        ))
    };
    let plain = seen(&other, one);
    client.run("SET work_mem = '6MB'");
    client.run("SET timezone = 'Asia/Tokyo'");
    for tenant in [one, two, one] {
        assert_eq!(seen(&client, tenant), "6MB Asia/Tokyo");
        assert_eq!(seen(&other, tenant), plain, "another client's settings are its own");
    }
    // Set within a transaction: kept by COMMIT on every shard, undone by ROLLBACK.
    client.run("BEGIN");
    client.run("SET work_mem = '7MB'");
    assert_eq!(seen(&client, two), "7MB Asia/Tokyo");
    client.run("SET timezone = 'Europe/Paris'");
    client.run("COMMIT");
    assert_eq!(seen(&client, one), "7MB Europe/Paris");
    client.run("BEGIN");
    assert_eq!(seen(&client, one), "7MB Europe/Paris");
    client.run("SET work_mem = '8MB'");
    client.run("SAVEPOINT s");
    client.run("SET work_mem = '9MB'");
    client.run("ROLLBACK TO s");
    assert_eq!(seen(&client, one), "8MB Europe/Paris");
    client.run("ROLLBACK");
    assert_eq!(seen(&client, two), "7MB Europe/Paris");
    client.run(&format!(
        "SELECT set_config('work_mem', '10MB', false) FROM tenants WHERE tenant_id = {two}"
    ));
    assert_eq!(seen(&client, one), "10MB Europe/Paris");
    client.run("RESET work_mem");
    client.run("RESET timezone");
    assert_eq!(seen(&client, two), plain);
    assert_eq!(seen(&client, one), plain);
    client.run("SET search_path = nowhere");
    let hidden = client.refused("SELECT name FROM tenants WHERE tenant_id = 1");
    assert!(hidden.state == "0A000" || hidden.state == "42P01", "{hidden:?}");
    client.run("RESET ALL");
    assert_eq!(seen(&client, one), plain);
    assert_eq!(seen(&other, two), plain);
}

#[test]
fn rolled_back_transaction_leaves_its_backend_with_the_settings_it_came_with() {
    let world = world();
    let router = world.own_router_with("primary", "pool.size_max = 1");
    let (first, second) = (Client::connect(&router.url()), Client::connect(&router.url()));
    let tenant = world.tenants_on(1)[8];
    let sql = format!("SELECT current_setting('work_mem') FROM tenants WHERE tenant_id = {tenant}");
    first.run("SET work_mem = '11MB'");
    second.run("SET work_mem = '12MB'");
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN READ WRITE"] {
        for end in ["ROLLBACK", "COMMIT"] {
            assert_eq!(second.value(&sql), "12MB");
            first.run(begin);
            assert_eq!(first.value(&sql), "11MB", "{begin}");
            first.run(end);
            assert_eq!(first.value(&sql), "11MB", "after {end}");
        }
    }
}

#[test]
fn error_on_one_shard_leaves_the_session_fit_for_the_other() {
    let world = world();
    let client = Client::connect(&world.router.url());
    let (one, two) = (world.tenants_on(1)[6], world.tenants_on(2)[6]);
    client.run("BEGIN");
    let broken = format!("SELECT 1 / (tenant_id - {one}) FROM tenants WHERE tenant_id = {one}");
    assert_eq!(client.refused(&broken).state, "22012");
    assert_eq!(
        client.refused(&format!("SELECT 1 FROM tenants WHERE tenant_id = {two}")).state,
        "25P02"
    );
    client.run("ROLLBACK");
    assert_eq!(port(&client, two), world.port_of(two));
    assert_eq!(port(&client, one), world.port_of(one));
}

#[test]
fn reference_and_single_tables_are_read_with_the_tenants() {
    let world = world();
    let client = Client::connect(&world.router.url());
    let (one, two) = (world.tenants_on(1)[7], world.tenants_on(2)[7]);
    for tenant in [one, two] {
        client.run("BEGIN");
        assert_eq!(client.value("SELECT count(*) FROM plans"), "3");
        let join = format!(
            "SELECT title, current_setting('port') FROM tenants JOIN plans USING (plan_code) WHERE tenant_id = {tenant}"
        );
        assert!(client.value(&join).ends_with(&world.port_of(tenant).to_string()));
        assert_eq!(client.value("SELECT count(*) FROM plans"), "3");
        client.run("COMMIT");
    }
    // Tables of one shard: by name and by schema, alone and with tenants of that shard.
    client.run("INSERT INTO app_settings VALUES ('colour', 'teal')");
    client.run("INSERT INTO audit.entries VALUES (1, 'colour is teal')");
    client.run("BEGIN");
    client.run("UPDATE app_settings SET value = 'plum' WHERE name = 'colour'");
    client.run("DELETE FROM audit.entries");
    client.run(&format!("SELECT name FROM tenants WHERE tenant_id = {two}"));
    let join = format!("SELECT value FROM tenants, app_settings WHERE tenant_id = {two}");
    assert_eq!(client.value(&join), "plum");
    client.run("COMMIT");
    assert_eq!(world.cluster.sql(2, "SELECT value FROM app_settings"), "plum");
    assert_eq!(world.cluster.sql(1, "SELECT count(*) FROM app_settings"), "0");
    client.run("TRUNCATE app_settings");
    assert_eq!(world.cluster.sql(2, "SELECT count(*) FROM app_settings"), "0");
}

#[test]
fn what_is_the_transactions_own_is_asked_where_it_runs() {
    let world = world();
    let client = Client::connect(&world.router.url());
    for tenant in [world.tenants_on(1)[9], world.tenants_on(2)[9]] {
        client.run("BEGIN");
        client.run(&format!("SELECT FROM tenants WHERE tenant_id = {tenant}"));
        let here = world.port_of(tenant).to_string();
        assert_eq!(
            client.value("SELECT current_setting('port'), now()").split('|').next(),
            Some(&*here)
        );
        assert_eq!(client.value("SELECT set_config('work_mem', '5MB', true)"), "5MB");
        assert_eq!(client.value("SELECT current_setting('work_mem')"), "5MB");
        assert_eq!(client.value("SELECT now() = transaction_timestamp()"), "t");
        let rows = client.query("SELECT set_config('work_mem', $1, false)", &[&"6MB"]).unwrap();
        assert_eq!(rows[0].get::<_, &str>(0), "6MB");
        client.run("ROLLBACK");
        assert_ne!(client.value("SHOW work_mem"), "6MB");
        // What reads rows, or counts on, is home's as ever.
        client.run("BEGIN");
        client.run(&format!("SELECT FROM tenants WHERE tenant_id = {tenant}"));
        let counted = client.text("SELECT pg_advisory_xact_lock(1), now()");
        assert_eq!(counted.is_err(), world.shard_of(tenant) == 2, "{counted:?}");
        client.run("ROLLBACK");
    }
}
