//! What bad input gets: a SQLSTATE and a sentence that helps; and everyone
//! else goes on as if nothing were.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use crate::setup::{cluster, router};
use crate::support::psql::psql;
use crate::support::router::{Router, RouterOptions};
use crate::support::scratch_dir;
use crate::wire::{Refusal, Wire, connect, frame, read, refusal, startup};

#[test]
fn first_packets_that_are_none_are_refused() {
    let router = router(cluster(), "");
    let mut bystander = Wire::open(router.port(), "t1");
    let hello = startup(&[("user", "t1"), ("database", "app")], 0);
    let mut newer = hello.clone();
    newer[4..8].copy_from_slice(&0x0004_0000_u32.to_be_bytes());
    let mut older = hello.clone();
    older[4..8].copy_from_slice(&0x0002_0000_u32.to_be_bytes());
    let no_user = startup(&[("database", "app")], 0);
    let unended = [&40_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), &[b'x'; 32]].concat();
    for (what, bytes, code, says) in [
        ("HTTP", &b"GET / HTTP/1.1\r\n\r\n"[..], "08P01", "length"),
        ("TLS without a request", &[0x16, 3, 1, 0, 0xA5, 1, 0, 0][..], "08P01", "length"),
        ("zeroes", &[0; 8][..], "08P01", "length"),
        ("ones", &[0xFF; 64][..], "08P01", "length"),
        ("a later protocol", &newer, "0A000", "protocol"),
        ("an earlier protocol", &older, "0A000", "protocol"),
        ("no user", &no_user, "28000", "user"),
        ("no end", &unended, "08P01", "startup"),
        ("an unknown request", &[0, 0, 0, 8, 4, 0xD2, 0x16, 0x40][..], "", ""),
    ] {
        let refused = refusal_of_first_packet(&router, bytes);
        assert_eq!(refused.severity, "FATAL", "{what}: {refused:?}");
        assert!(code.is_empty() || refused.code == code, "{what}: {refused:?}");
        assert!(refused.message.to_lowercase().contains(says), "{what}: {refused:?}");
        assert_eq!(bystander.value("SELECT 7"), "7");
    }
}

#[test]
fn startup_settings_are_held_against_the_server() {
    let router = router(cluster(), "");
    let login = |name: &str, value: &str| {
        let params = [("user", "t1"), ("database", "app"), (name, value)];
        Wire::try_open(router.port(), &params, 0)
    };
    let unknown = login("nonsense_setting", "1").unwrap_err().refusal();
    assert_eq!((&*unknown.code, &*unknown.severity), ("42704", "FATAL"));
    assert!(unknown.message.contains("nonsense_setting"), "{unknown:?}");
    let value = login("work_mem", "lots").unwrap_err().refusal();
    assert_eq!(value.code, "22023", "{value:?}");
    let options = login("options", "-c work_mem=lots").unwrap_err().refusal();
    assert_eq!(options.code, "22023", "{options:?}");
    let flag = login("options", "-B 1000").unwrap_err().refusal();
    assert_eq!(flag.severity, "FATAL", "{flag:?}");
    let path = login("options", "-c search_path=x';DROP\\ TABLE\\ notes;--").unwrap_err();
    assert_eq!(path.refusal().code, "22023");
    let mut named = login("options", "-c application_name=x';DROP\\ TABLE\\ notes;--").unwrap();
    assert_eq!(named.value("SHOW application_name"), "x';DROP TABLE notes;--");
    let many = login("work_mem", &"9".repeat(9_500)).unwrap_err().refusal();
    assert_eq!(many.severity, "FATAL", "{many:?}");
    assert_eq!(login("work_mem", "7MB").unwrap().value("SHOW work_mem"), "7MB");
    assert_eq!(cluster().sql(1, "SELECT count(*) >= 0 FROM notes"), "t");
}

#[test]
fn messages_that_are_none_end_their_own_connection_only() {
    let router = router(cluster(), "pool.size_max = 2");
    let mut bystander = Wire::open(router.port(), "t1");
    bystander.query("BEGIN; SELECT 1").unwrap();
    for (what, bytes, code) in [
        ("an unknown type", frame(b'!', b"hello"), "08P01"),
        ("a type of the server's", frame(b'T', b"hello"), "08P01"),
        ("a password now", frame(b'p', b"secret\0"), "08P01"),
        ("a length of zero", vec![b'Q', 0, 0, 0, 0], "08P01"),
        ("a negative length", vec![b'Q', 0xFF, 0xFF, 0xFF, 0xFF], "08P01"),
        ("a startup message again", startup(&[("user", "t1")], 0), "08P01"),
        ("a Sync of a megabyte", vec![b'S', 0, 0x10, 0, 0], "54000"),
        ("an endless Describe", vec![b'D', 0x3F, 0xFF, 0xFF, 0xFF], ""),
    ] {
        let mut client = Wire::open(router.port(), "t1");
        client.query("SELECT 1").unwrap();
        client.socket().write_all(&bytes).unwrap();
        let refused = client.farewell();
        assert_eq!(refused.severity, "FATAL", "{what}");
        assert!(code.is_empty() || refused.code == code, "{what}: {refused:?}");
        assert_eq!(bystander.value("SELECT 7"), "7", "{what}");
    }
}

#[test]
fn malformed_bodies_fail_their_statement_as_they_do_on_postgres() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    for (what, kind, body) in [
        ("a query without its end", b'Q', &b"SELECT 1"[..]),
        ("a query with bytes behind its end", b'Q', &b"SELECT 1\0more\0"[..]),
        ("a Parse without types", b'P', &b"\0SELECT 1\0"[..]),
        ("a Parse with a negative count", b'P', &b"\0SELECT 1\0\xFF\xFF"[..]),
        ("a Bind of nothing", b'B', &b""[..]),
        ("a Bind with a length beyond its end", b'B', &b"\0\0\0\0\0\x01\x7F\0\0\0"[..]),
        ("a Describe of nothing known", b'D', &b"Xname\0"[..]),
        ("an Execute cut off", b'E', &b"\0\0"[..]),
        ("a Close of nothing known", b'C', &b"?\0"[..]),
    ] {
        client.send(kind, body);
        if kind != b'Q' {
            client.send(b'S', b"");
        }
        let refused = client.finish().unwrap_err();
        assert_eq!((&*refused.code, &*refused.severity), ("08P01", "ERROR"), "{what}");
        assert_eq!(client.value("SELECT 7"), "7", "{what}");
    }
}

#[test]
fn connections_cut_off_anywhere_leave_nothing() {
    let router = router(cluster(), "pool.size_max = 1");
    let login = startup(&[("user", "t1"), ("database", "app")], 0);
    let work = [
        frame(b'Q', b"BEGIN\0"),
        frame(b'Q', b"INSERT INTO notes VALUES (-40, 'cut off')\0"),
        frame(b'P', b"\0INSERT INTO notes VALUES (-41, 'cut off')\0\0\0"),
        frame(b'B', &[0; 8]),
        frame(b'E', &[0; 5]),
        frame(b'Q', b"SELECT 1\0"),
    ];
    let all = [login, work.concat()].concat();
    for end in (1..all.len()).step_by(5) {
        let mut socket = connect(router.port()).unwrap();
        socket.write_all(&all[..end]).unwrap();
        drop(socket);
    }
    let mut next = Wire::open(router.port(), "t1");
    assert_eq!(next.value("SELECT count(*) FROM notes WHERE id IN (-40, -41)"), "0");
    assert!(!router.log().contains("panicked"), "{}", router.log());
}

/// Bytes without any sense, with a seed that is printed when it fails.
#[test]
fn noise_is_survived() {
    let router = router(cluster(), "timeouts.login = \"500ms\"");
    let mut bystander = Wire::open(router.port(), "t1");
    let mut dice = u64::from(std::process::id()) | 1;
    eprintln!("seed {dice}");
    let mut noise = |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                dice.to_le_bytes()[0]
            })
            .collect()
    };
    for round in 0..60_usize {
        // Before the login, behind a plausible length, and after the login.
        let mut first = connect(router.port()).unwrap();
        drop(first.write_all(&noise(1 + round * 7)));
        let mut second = connect(router.port()).unwrap();
        drop(second.write_all(&[&[0, 0, 0, 40, 0, 3, 0, 0][..], &noise(32)].concat()));
        let mut third = Wire::open(router.port(), "t1");
        let kind = *b"QPBDECHSFXdcf".get(round % 13).unwrap();
        drop(third.socket().write_all(&frame(kind, &noise(round))));
        drop(third.socket().write_all(&noise(50)));
        drop(third.socket().shutdown(Shutdown::Write));
        assert_eq!(bystander.value("SELECT 7"), "7");
    }
    assert!(!router.log().contains("panicked"), "{}", router.log());
}

#[test]
fn statements_too_long_are_refused_without_being_held() {
    let sharded = RouterOptions::sharded(cluster())
        .with_config("limits.statement_bytes_max = \"64KiB\"")
        .with_config("[[user]]\nname = \"t1\"\ntrust = true");
    let router = Router::start(cluster(), &sharded);
    let mut client = Wire::open(router.port(), "t1");
    let long = format!("SELECT '{}'", "x".repeat(1 << 20));
    let refused = client.query(&long).unwrap_err();
    assert_eq!((&*refused.code, &*refused.severity), ("54000", "ERROR"));
    assert!(refused.message.contains("limit of 65536 bytes"), "{refused:?}");
    assert!(refused.hint.contains("limits.statement_bytes_max"), "{refused:?}");
    client.send(b'P', &[b"\0", long.as_bytes(), b"\0\0\0"].concat());
    client.send(b'S', b"");
    assert_eq!(client.finish().unwrap_err().code, "54000");
    assert_eq!(client.value("SELECT 7"), "7");
}

#[test]
fn statements_that_cannot_be_read_are_refused_with_a_hint() {
    let sharded =
        RouterOptions::sharded(cluster()).with_config("[[user]]\nname = \"t1\"\ntrust = true");
    let router = Router::start(cluster(), &sharded);
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN").unwrap();
    for sql in ["SELEKT 1", "SELECT FROM WHERE", "SELECT 'open", "SELECT (((", "UPDATE tenants SET"]
    {
        let refused = client.query(sql).unwrap_err();
        assert!(["42601", "0A000", "25P02"].contains(&&*refused.code), "{sql}: {refused:?}");
        assert!(refused.message.len() > 10, "{sql}: {refused:?}");
    }
    client.query("ROLLBACK").unwrap();
    let refused = client.query("SELEKT 1").unwrap_err();
    assert!(refused.message.contains("SELEKT") && !refused.hint.is_empty(), "{refused:?}");
    assert_eq!(client.value("SELECT 7"), "7");
    // Without shards the server's own parser has the word.
    let plain = crate::setup::router(cluster(), "");
    let refused = Wire::open(plain.port(), "t1").query("SELEKT 1").unwrap_err();
    assert_eq!(refused.message, "syntax error at or near \"SELEKT\"");
}

#[test]
fn map_with_overlapping_ranges_is_refused_where_it_is_wrong() {
    let dir = scratch_dir();
    let good = std::fs::read_to_string(&cluster().view().map).unwrap();
    let bad = good.replace("shard1 = [\"0-2047\"]", "shard1 = [\"0-2048\"]");
    assert_ne!(good, bad);
    let line = 1 + bad.lines().position(|line| line.starts_with("ranges")).unwrap();
    std::fs::write(dir.join("map.toml"), &bad).unwrap();
    for command in [&["check", "map.toml"][..], &["serve", "--map", "map.toml"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(command)
            .current_dir(&dir)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(&format!("map.toml:{line}:")), "{errors}");
        assert!(errors.contains("2048"), "{errors}");
        assert!(errors.contains("shard1") && errors.contains("shard2"), "{errors}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn one_client_more_than_allowed_is_told_so() {
    let router = router(cluster(), "limits.clients_max = 2");
    let first = Wire::open(router.port(), "t1");
    let second = Wire::open(router.port(), "t1");
    let params = [("user", "t1"), ("database", "app")];
    let refused = Wire::try_open(router.port(), &params, 0).unwrap_err().refusal();
    assert_eq!((&*refused.code, &*refused.severity), ("53300", "FATAL"));
    assert_eq!(refused.message, "too many clients: 2 are connected");
    drop((first, second));
    crate::support::wait_for("room", || Wire::try_open(router.port(), &params, 0).is_ok());
    assert!(psql(&router.url(), "SELECT 1").expect() == "1");
}

fn refusal_of_first_packet(router: &Router, bytes: &[u8]) -> Refusal {
    let mut socket: TcpStream = connect(router.port()).unwrap();
    socket.write_all(bytes).unwrap();
    let message = read(&mut socket).unwrap();
    assert_eq!(message.tag, b'E');
    assert_eq!(socket.read(&mut [0]).unwrap(), 0, "the connection ends");
    refusal(&message.body)
}
