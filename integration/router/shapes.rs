//! Statements whose rows change their shape while a client has them prepared.

use crate::setup::{cluster, router};
use crate::wire::{Refusal, Wire};

fn text(parts: &[&str]) -> Vec<u8> {
    parts.iter().flat_map(|part| [part.as_bytes(), b"\0"].concat()).collect()
}

fn parse(client: &mut Wire, name: &str, sql: &str) {
    client.send(b'P', &[text(&[name, sql]), vec![0, 0]].concat());
}

fn describe(client: &mut Wire, name: &str) {
    client.send(b'D', &[b"S".to_vec(), text(&[name])].concat());
}

/// Binds and executes a statement without describing it, as drivers do that
/// remember what it looks like: its rows' number of columns.
fn execute(client: &mut Wire, name: &str) -> Result<usize, String> {
    client.send(b'B', &[text(&["", name]), vec![0; 6]].concat());
    client.send(b'E', &[0; 5]);
    client.send(b'S', b"");
    let rows = client.finish().map_err(|refusal| {
        let Refusal { code, message, routine, .. } = refusal;
        format!("{code} {message} ({routine})")
    })?;
    Ok(rows[0].len())
}

fn backend(client: &mut Wire) -> String {
    client.value("SELECT pg_backend_pid()")
}

#[test]
fn statement_described_long_ago_fails_when_its_shape_has_changed() {
    cluster().sql(1, "CREATE TABLE shapes (a int); INSERT INTO shapes VALUES (1)");
    let router = router(cluster(), "pool.size_max = 2");
    let mut client = Wire::open(router.port(), "t1");
    parse(&mut client, "s", "SELECT * FROM shapes");
    describe(&mut client, "s");
    client.send(b'S', b"");
    client.finish().unwrap();
    parse(&mut client, "blind", "SELECT * FROM shapes /* never described */");
    client.send(b'S', b"");
    client.finish().unwrap();
    assert_eq!(execute(&mut client, "s"), Ok(1));
    let first = backend(&mut client);

    // The same statement on another backend: prepared anew, and looked at.
    let mut other = Wire::open(router.port(), "t1");
    other.query("BEGIN").unwrap();
    assert_eq!(backend(&mut other), first);
    assert_eq!(execute(&mut client, "s"), Ok(1));
    let second = backend(&mut client);
    assert_ne!(second, first);
    other.query("COMMIT").unwrap();

    // A change that the router does not see, and a backend that knows nothing.
    cluster().sql(1, "ALTER TABLE shapes ADD COLUMN b int");
    crate::support::psql::psql(&router.console_url(), "RECONNECT app").expect();
    // Drivers know by the function that they have to prepare it again.
    let changed =
        Err("0A000 cached plan must not change result type (RevalidateCachedQuery)".to_owned());
    for _ in 0..2 {
        assert_eq!(execute(&mut client, "s"), changed);
    }
    // Its transaction fails with it, as on a server.
    client.query("BEGIN").unwrap();
    assert_eq!(execute(&mut client, "s"), changed);
    assert_eq!(client.query("SELECT 1").unwrap_err().code, "25P02");
    client.query("ROLLBACK").unwrap();
    // Who was told nothing reads what is there.
    assert_eq!(execute(&mut client, "blind"), Ok(2));
    // Prepared again the name has the new shape, on every backend.
    client.send(b'C', &[b"S".to_vec(), text(&["s"])].concat());
    parse(&mut client, "s", "SELECT * FROM shapes");
    describe(&mut client, "s");
    client.send(b'S', b"");
    client.finish().unwrap();
    assert_eq!(execute(&mut client, "s"), Ok(2));
    let third = backend(&mut client);
    other.query("BEGIN").unwrap();
    assert_eq!(backend(&mut other), third);
    assert_eq!(execute(&mut client, "s"), Ok(2));
    other.query("COMMIT").unwrap();
}

#[test]
fn text_prepared_before_its_shape_changed_is_prepared_anew_for_who_parses_it_now() {
    cluster().sql(1, "CREATE TABLE reshaped (a int); INSERT INTO reshaped VALUES (1)");
    let router = router(cluster(), "pool.size_max = 1");
    let mut first = Wire::open(router.port(), "t1");
    let prepare = |client: &mut Wire, name: &str| {
        parse(client, name, "SELECT * FROM reshaped");
        describe(client, name);
        client.send(b'S', b"");
        client.finish().map(|_| ()).map_err(|refusal| refusal.routine)
    };
    assert_eq!(prepare(&mut first, "s"), Ok(()));
    assert_eq!(execute(&mut first, "s"), Ok(1));
    cluster().sql(1, "ALTER TABLE reshaped ADD COLUMN b int");
    // The backend has the text with a plan that does not fit any more.
    let mut second = Wire::open(router.port(), "t1");
    // A server would not refuse a new name; this one says what drivers try again for.
    let refused = prepare(&mut second, "s");
    assert!(refused == Ok(()) || refused == Err("RevalidateCachedQuery".to_owned()), "{refused:?}");
    assert_eq!(prepare(&mut second, "again"), Ok(()));
    assert_eq!(execute(&mut second, "again"), Ok(2));
}
