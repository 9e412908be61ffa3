//! What a slow peer costs: bounded memory, and nobody else's time.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::setup::{cluster, router};
use crate::support::router::Router;
use crate::wire::{Wire, frame};

/// More than every socket's buffers on the way take.
const RESULT_BYTES: usize = 200 << 20;
/// Most that the router may grow while it holds back.
const GROWTH_KIB_MAX: u64 = 8 << 10;

#[test]
fn client_that_does_not_read_costs_a_bounded_buffer() {
    let router = router(cluster(), "");
    let mut others = Wire::open(router.port(), "t2");
    others.query("SELECT 1").unwrap();
    let before = resident_kib(&router);
    let rows = RESULT_BYTES / 10_000;
    let sql = format!("SELECT repeat('x', 9990) FROM generate_series(1, {rows})");
    let mut lazy: Vec<Wire> = (0..3).map(|_| Wire::open(router.port(), "t1")).collect();
    for client in &mut lazy {
        client.send_query(&sql);
    }
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(others.value("SELECT 7"), "7");
        most = most.max(resident_kib(&router));
    }
    assert!(most - before < GROWTH_KIB_MAX, "grew from {before} to {most} KiB");
    // What was held back is all there.
    let mut client = lazy.remove(0);
    let (mut seen, mut chunk) = (0, vec![0; 1 << 20]);
    while seen < rows * 9_990 {
        let read = client.socket().read(&mut chunk).unwrap();
        assert!(read > 0, "the result ended after {seen} bytes");
        seen += read;
    }
    assert!(resident_kib(&router) - before < GROWTH_KIB_MAX);
    // The others leave in the middle; their backends come back.
    drop(lazy);
    assert_eq!(Wire::open(router.port(), "t1").value("SELECT 7"), "7");
}

/// A server that takes its time with the rows of a COPY, and a client that
/// doesn't.
#[test]
fn backend_that_does_not_read_costs_a_bounded_buffer() {
    let router = router(cluster(), "");
    cluster().sql(
        1,
        "CREATE TABLE slow_copy (t text); CREATE FUNCTION take_time() RETURNS trigger LANGUAGE \
         plpgsql AS $$BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END$$; CREATE TRIGGER slow \
         BEFORE INSERT ON slow_copy FOR EACH ROW EXECUTE FUNCTION take_time()",
    );
    let mut others = Wire::open(router.port(), "t2");
    others.query("SELECT 1").unwrap();
    let mut client = Wire::open(router.port(), "t1");
    client.send_query("COPY slow_copy FROM STDIN");
    while client.read().unwrap().tag != b'G' {}
    let before = resident_kib(&router);
    let row = frame(b'd', &[&[b'x'; 99_999][..], b"\n"].concat());
    client.socket().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut written, mut most) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) && written < RESULT_BYTES {
        match client.socket().write(&row) {
            Ok(bytes) if bytes == row.len() => written += bytes,
            // Held back, as it should be; the message is cut in two.
            Ok(_) | Err(_) => break,
        }
        most = most.max(resident_kib(&router));
    }
    assert!(written < RESULT_BYTES, "nobody was held back");
    assert!(most - before < GROWTH_KIB_MAX, "grew from {before} to {most} KiB");
    assert_eq!(others.value("SELECT 7"), "7");
    drop(client);
    assert_eq!(others.value("SELECT count(*) FROM slow_copy"), "0");
}

/// A client that sends and sends while its statement runs.
#[test]
fn client_that_sends_ahead_is_held_back() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    client.query("SELECT 1").unwrap();
    let before = resident_kib(&router);
    client.send_query("SELECT pg_sleep(4)");
    client.socket().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let ahead = frame(b'Q', &[&[b' '; 99_999][..], b"\0"].concat());
    let mut written = 0;
    while written < RESULT_BYTES {
        match client.socket().write(&ahead) {
            Ok(bytes) if bytes == ahead.len() => written += bytes,
            Ok(_) | Err(_) => break,
        }
    }
    assert!(written < RESULT_BYTES / 2, "{written} bytes were taken");
    let now = resident_kib(&router);
    assert!(now - before < GROWTH_KIB_MAX, "grew from {before} to {now} KiB");
}

fn resident_kib(router: &Router) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", router.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
