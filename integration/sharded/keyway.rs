//! SET keyway.key and SET keyway.shard: where statements run that name no key.

use tokio_postgres::types::Type;

use crate::client::Client;
use crate::world::world;

const PORT: &str = "SELECT current_setting('port') FROM tasks LIMIT 1";

#[test]
fn declared_key_places_what_names_none() {
    let world = world();
    let client = Client::connect(&world.router.url());
    for shard in [1, 2] {
        let tenant = world.tenants_on(shard)[3];
        let port = world.cluster.primary(shard).port.to_string();
        client.run(&format!("SET keyway.key.tenants = {tenant}"));
        assert_eq!(client.value(PORT), port);
        assert_eq!(client.value("SELECT current_setting('port') FROM plans LIMIT 1"), port);
        assert_eq!(
            client.value("SELECT current_setting('port'), pg_advisory_xact_lock(1)"),
            format!("{port}|")
        );
        let rows = client.query(PORT, &[]).unwrap();
        assert_eq!(rows[0].get::<_, String>(0), port);
        client.run("DO $$ BEGIN PERFORM 1; END $$");
        let other = world.tenants_on(3 - shard)[3];
        let refusal = client.refused(&format!("SELECT * FROM tasks WHERE tenant_id = {other}"));
        assert_eq!(refusal.state, "0A000");
        assert!(refusal.message.contains("names another key"), "{refusal:?}");
        let refusal = client.refused(&format!("INSERT INTO notes VALUES ({other}, 99)"));
        assert_eq!(refusal.state, "0A000");
    }
    client.run("RESET keyway.key.tenants");
    assert_eq!(client.refused("UPDATE tasks SET state = 'done'").state, "0A000");
}

#[test]
fn declared_key_lasts_as_long_as_any_setting() {
    let world = world();
    let client = Client::connect(&world.router.url());
    let (one, two) = (world.tenants_on(1)[4], world.tenants_on(2)[4]);
    let (first, second) = (world.port_of(one).to_string(), world.port_of(two).to_string());
    client.run("BEGIN");
    client.run(&format!("SET LOCAL keyway.key.tenants = {two}"));
    assert_eq!(client.value(PORT), second);
    client.run("SAVEPOINT s");
    client.run(&format!("SET LOCAL keyway.key.tenants = {one}"));
    client.refused(PORT);
    client.run("ROLLBACK TO s");
    assert_eq!(client.value(PORT), second);
    client.run("COMMIT");
    assert_eq!(client.value("SHOW keyway.key.tenants"), "");
    client.run("BEGIN");
    client.run(&format!("SET keyway.key.tenants = {one}"));
    assert_eq!(client.value(PORT), first);
    client.run("ROLLBACK");
    assert_eq!(client.value("SHOW keyway.key.tenants"), "");
    client.run("SET keyway.shard = 'shard2'");
    assert_eq!(client.value(PORT), second);
    client.run("DISCARD ALL");
    assert_eq!(client.value("SHOW keyway.shard"), "");
    assert_eq!(client.refused("SET keyway.shard = 'nowhere'").state, "22023");
}

#[test]
fn key_is_declared_at_startup_too() {
    let world = world();
    let tenant = world.tenants_on(2)[5];
    let url = world.router.url();
    let part = if url.contains('?') { '&' } else { '?' };
    let options = format!("options=-c%20keyway.key.tenants%3D{tenant}");
    let client = Client::connect(&format!("{url}{part}{options}"));
    assert_eq!(client.value(PORT), world.port_of(tenant).to_string());
    client.run("SET keyway.key.tenants = 1");
    client.run("RESET keyway.key.tenants");
    assert_eq!(client.value("SHOW keyway.key.tenants"), tenant.to_string());
    let bad = Client::try_connect(&format!("{url}{part}options=-c%20keyway.shard%3Dnowhere"));
    let error = bad.err().unwrap();
    assert_eq!(error.as_db_error().unwrap().code().code(), "22023");
}

#[test]
fn prepared_statement_goes_where_the_setting_says_at_each_execution() {
    let world = world();
    let client = Client::connect(&world.router.url());
    let statement = client.prepare(PORT, &[]);
    let typed = client.prepare(
        "SELECT current_setting('port') FROM tasks WHERE title <> $1 LIMIT 1",
        &[Type::TEXT],
    );
    for shard in [1, 2, 1] {
        let tenant = world.tenants_on(shard)[6];
        let port = world.port_of(tenant).to_string();
        client.run(&format!("SET keyway.key.tenants = {tenant}"));
        assert_eq!(client.execute(&statement, &[])[0].get::<_, String>(0), port);
        assert_eq!(client.execute(&typed, &[&""])[0].get::<_, String>(0), port);
    }
}
