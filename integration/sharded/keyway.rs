//! SET keyway.key and SET keyway.shard: where statements run that name no key.

use tokio_postgres::types::Type;

use crate::client::Client;
use crate::support::psql::{Psql, psql_with};
use crate::support::scratch_dir;
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
    // A read joins from any shard, a write does not.
    assert_eq!(client.value(PORT), first);
    client.refused("UPDATE tasks SET state = state");
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

#[test]
fn copied_rows_all_have_the_declared_key_or_none_is_there() {
    let world = world();
    let dir = scratch_dir();
    let file = |name: &str, rows: String| {
        let path = dir.join(name);
        std::fs::write(&path, rows).unwrap();
        path.display().to_string()
    };
    let copy = |tenant: i64, command: &str| {
        let set = format!("SET keyway.key.tenants = {tenant}");
        psql_with(&world.router.url(), &["-c", &set, "-c", command])
    };
    for shard in [1, 2] {
        let (tenant, other) = (world.tenants_on(shard)[7], world.tenants_on(3 - shard)[7]);
        let count = |on: u16| world.cluster.sql(on, "SELECT count(*) FROM notes WHERE id > 90000");
        let good = file("good.csv", format!("{tenant},90001,a\n{tenant},90002,\"b\nc\"\n"));
        copy(tenant, &format!("\\copy notes FROM '{good}' WITH (FORMAT csv)")).expect();
        assert_eq!((count(shard), count(3 - shard)), ("2".into(), "0".into()));
        // A row of another tenant, of the same shard's or the other's, and one without.
        let near = world.tenants_on(shard)[8];
        for row in [format!("{other},90004,x"), format!("{near},90004,x"), ",90004,x".to_owned()] {
            let bad = file("bad.csv", format!("{tenant},90003,a\n{row}\n"));
            let failed = copy(tenant, &format!("\\copy notes FROM '{bad}' WITH (FORMAT csv)"));
            let Psql::Failed(error) = failed else { panic!("{row} was copied") };
            assert!(error.contains("another sharding key") || error.contains("23502"), "{error}");
            assert_eq!((count(shard), count(3 - shard)), ("2".into(), "0".into()));
        }
        // A condition of the client's own leaves rows out as ever.
        let some = file("some.csv", format!("{tenant},90005,a\n{tenant},90006,b\n"));
        let command = format!(
            "\\copy notes (tenant_id, id, body) FROM '{some}' CSV WHERE body = 'a' OR id = 0"
        );
        copy(tenant, &command).expect();
        assert_eq!(count(shard), "3");
        let out = copy(tenant, "COPY (SELECT body FROM notes WHERE id > 90004) TO STDOUT").expect();
        assert_eq!(out.lines().last(), Some("a"));
        world.cluster.sql(shard, "DELETE FROM notes WHERE id > 90000");
    }
    let client = Client::connect(&world.router.url());
    let refusal = client.query("COPY notes FROM STDIN", &[]).unwrap_err();
    assert_eq!(refusal.state, "0A000");
    let tenant = world.tenants_on(2)[7];
    client.run(&format!("SET keyway.key.tenants = {tenant}"));
    let refusal = client.query("COPY notes FROM STDIN", &[]).unwrap_err();
    assert!(refusal.message.contains("extended protocol"), "{refusal:?}");
    assert_eq!(client.value("SELECT 1"), "1");
}
