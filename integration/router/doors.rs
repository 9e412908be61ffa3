//! Limits by address, addresses behind a load balancer, and passwords that
//! change while sessions last.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::setup::{cluster, one_server, options, router};
use crate::support::psql::psql;
use crate::support::router::Router;
use crate::support::{scratch_dir, wait_for};
use crate::wire::{Failure, Refusal, Wire, connect, startup};

const HELLO: &[(&str, &str)] = &[("user", "t1"), ("database", "app")];

fn refused(result: Result<Wire, Failure>) -> Refusal {
    result.map(|_| ()).unwrap_err().refusal()
}

/// The header of the PROXY protocol, version 2, for a client over IPv4.
fn header(address: [u8; 4]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C".as_slice(), &address, &[10, 0, 0, 1, 4, 0, 8, 0]]
        .concat()
}

fn through(port: u16, head: &[u8]) -> Result<Wire, Failure> {
    let mut socket = connect(port)?;
    socket.write_all(head)?;
    socket.write_all(&startup(HELLO, 0))?;
    Wire::greeted(socket)
}

#[test]
fn addresses_are_limited_by_the_clients_that_they_have() {
    let router = router(cluster(), "limits.clients_per_address_max = 2");
    let open = || Wire::try_open(router.port(), HELLO, 0);
    let (first, _second) = (open().unwrap(), open().unwrap());
    let third = refused(open());
    assert_eq!((&*third.code, &*third.severity), ("53300", "FATAL"));
    assert!(third.message.contains("too many clients from this address"), "{third:?}");
    drop(first);
    wait_for("the place of one that has left", || open().is_ok());
}

#[test]
fn failed_logins_shut_out_their_address() {
    let router = router(
        cluster(),
        "limits.failed_logins_per_address_max = 2\nproxy_protocol_from = [\"127.0.0.0/8\"]",
    );
    let login = |address: u8, user: &str| {
        let mut socket = connect(router.port()).unwrap();
        socket.write_all(&header([192, 0, 2, address])).unwrap();
        socket.write_all(&startup(&[("user", user), ("database", "app")], 0)).unwrap();
        let first = crate::wire::read(&mut socket).unwrap();
        if first.body[..4] == 10_u32.to_be_bytes() {
            let initial = b"SCRAM-SHA-256\0\0\0\0\x09n,,n=,r=a";
            socket.write_all(&crate::wire::frame(b'p', initial)).unwrap();
            let text = crate::wire::read(&mut socket).unwrap().body;
            let text = String::from_utf8_lossy(&text[4..]).into_owned();
            let nonce = text.split(',').next().unwrap();
            let last = format!("c=biws,{nonce},p={}=", "A".repeat(43));
            socket.write_all(&crate::wire::frame(b'p', last.as_bytes())).unwrap();
            let answer = crate::wire::read(&mut socket).unwrap();
            return Some(crate::wire::refusal(&answer.body).code);
        }
        (first.tag == b'E').then(|| crate::wire::refusal(&first.body).code)
    };
    for _ in 0..2 {
        assert_eq!(login(1, "nobody").as_deref(), Some("28P01"));
    }
    assert_eq!(login(1, "nobody").as_deref(), Some("53300"));
    assert_eq!(login(1, "t1").as_deref(), Some("53300"), "whoever comes from there");
    assert_eq!(login(2, "t1"), None, "others are let in");
}

#[test]
fn logins_under_way_are_limited() {
    let router = router(cluster(), "limits.logins_at_once_max = 3");
    let waiting: Vec<TcpStream> = (0..3).map(|_| connect(router.port()).unwrap()).collect();
    wait_for("the limit", || {
        Wire::try_open(router.port(), HELLO, 0)
            .is_err_and(|failure| failure.refusal().code == "53300")
    });
    drop(waiting);
    wait_for("room", || Wire::try_open(router.port(), HELLO, 0).is_ok());
}

#[test]
fn trusted_balancers_say_whom_they_pass_on() {
    let router = router(cluster(), "proxy_protocol_from = [\"127.0.0.1\"]");
    let port = router.port();
    let mut passed = through(port, &header([192, 0, 2, 7])).unwrap();
    assert_eq!(passed.value("SELECT 7"), "7");
    let shown = console(&router, "SHOW CLIENTS");
    assert!(shown.contains("192.0.2.7:1024"), "{shown}");
    // The balancer's own question whether the router is there.
    let health = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    through(port, health).unwrap().query("SELECT 1").unwrap();
    // Without a header, with another version, with one cut short: silence.
    for head in [&b""[..], b"PROXY TCP4 192.0.2.7 10.0.0.1 1024 2048\r\n", &header([1; 4])[..14]] {
        let mut socket = connect(port).unwrap();
        socket.write_all(&[head, &startup(HELLO, 0)].concat()).unwrap();
        let mut answer = Vec::new();
        drop(socket.read_to_end(&mut answer));
        assert!(answer.is_empty(), "{}", answer.escape_ascii());
    }
}

#[test]
fn header_of_anybody_else_is_no_startup() {
    let router = router(cluster(), "proxy_protocol_from = [\"192.0.2.0/24\"]");
    assert!(through(router.port(), &header([192, 0, 2, 7])).is_err());
    through(router.port(), b"").unwrap();
}

fn console(router: &Router, sql: &str) -> String {
    // psql writes no header: the console is asked as a client behind one.
    let mut socket = connect(router.port()).unwrap();
    socket.write_all(&header([192, 0, 2, 9])).unwrap();
    socket.write_all(&startup(&[("user", "a1"), ("database", "keyway")], 0)).unwrap();
    let rows = Wire::greeted(socket).unwrap().query(sql).unwrap();
    format!("{rows:?}")
}

// === passwords that change ===

/// Connections are short-lived, so that each statement needs a login soon.
fn rotating(role: &str, password: &str, config: &str) -> Router {
    let config = format!("pool.lifetime_max = \"100ms\"\n{config}");
    let options = options(cluster(), &config).with_map(|map| {
        let file = format!("password_file = {:?}", cluster().view().password_file);
        map.replace("user = \"app\"", &format!("user = \"{role}\"")).replace(&file, password)
    });
    Router::start(cluster(), &options)
}

/// The file is found beside the map, and its change is noticed; no session and
/// no statement is lost.
#[test]
fn password_of_a_shard_changes_without_a_lost_statement() {
    cluster().superuser_sql(1, "CREATE ROLE turning LOGIN PASSWORD 'p-one'");
    let dir = scratch_dir();
    let file = dir.join("secret");
    fs::write(&file, "p-one\n").unwrap();
    let router = rotating("turning", &format!("password_file = {file:?}"), "");
    let mut client = Wire::open(router.port(), "t1");
    assert_eq!(client.value("SELECT current_user"), "turning");
    for password in ["p-two", "p-three"] {
        // First where the router looks, then on the server, as vaults do it.
        fs::write(&file, format!("{password}\n")).unwrap();
        cluster().superuser_sql(1, &format!("ALTER ROLE turning PASSWORD '{password}'"));
        for _ in 0..20 {
            assert_eq!(client.value("SELECT current_user"), "turning");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    assert!(!router.log().contains("p-t"), "{}", router.log());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn program_prints_the_passwords_also_the_next_ones() {
    cluster().superuser_sql(1, "CREATE ROLE printed LOGIN PASSWORD 'p-one'");
    let dir = scratch_dir();
    let file = dir.join("vault");
    fs::write(&file, "p-one\n").unwrap();
    let command = format!("password_command = [\"cat\", {file:?}]");
    let config = format!("[[user]]\nname = \"u\"\n{command}");
    let router = rotating("printed", &command, &config);
    let url = router.url_for("u", "p-one", "app");
    assert_eq!(psql(&url, "SELECT current_user").expect(), "printed");
    // The refused login makes the router ask again.
    fs::write(&file, "p-two\n").unwrap();
    cluster().superuser_sql(1, "ALTER ROLE printed PASSWORD 'p-two'");
    let mut client = Wire::open(router.port(), "t1");
    wait_for("the next password", || {
        std::thread::sleep(std::time::Duration::from_millis(150));
        client.query("SELECT 1").is_ok()
    });
    assert!(!router.log().contains("p-"), "{}", router.log());
    fs::remove_dir_all(dir).unwrap();
}

/// The monitor and the reader of schemas log in with what is configured now, by
/// a file that only a reload has named, and that is watched from then on.
#[test]
fn monitor_follows_a_password_file_that_a_reload_names_first() {
    let cluster = one_server();
    cluster.superuser_sql(1, "CREATE ROLE watcher LOGIN PASSWORD 'p-one' IN ROLE pg_monitor");
    let dir = scratch_dir();
    let (first, next) = (dir.join("first"), dir.join("next/secret"));
    fs::create_dir(dir.join("next")).unwrap();
    fs::write(&first, "p-one\n").unwrap();
    fs::write(&next, "p-two\n").unwrap();
    let options = options(&cluster, "").with_map(|map| {
        let file = format!("{:?}", cluster.view().password_file);
        map.replace("user = \"app\"", "user = \"watcher\"").replace(&file, &format!("{first:?}"))
    });
    let router = Router::start(&cluster, &options);
    let connected = |name: &str| {
        let sql = format!(
            "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity WHERE \
             application_name = 'keyway {name}' AND usename = 'watcher'"
        );
        cluster.superuser_sql(1, &sql).trim().to_owned()
    };
    let both = || ["monitor", "catalog"].map(connected);
    wait_for("both to be connected", || both().iter().all(|pids| !pids.is_empty()));
    let turn = |password: &str| {
        let old = both();
        cluster.superuser_sql(1, &format!("ALTER ROLE watcher PASSWORD '{password}'"));
        let end =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'watcher'";
        cluster.superuser_sql(1, end);
        wait_for(&format!("both to have logged in by {password}"), || {
            let new = both();
            new.iter().zip(&old).all(|(new, old)| !new.is_empty() && new != old)
        });
    };
    let map = fs::read_to_string(router.map_file()).unwrap();
    fs::write(router.map_file(), map.replace(&format!("{first:?}"), &format!("{next:?}"))).unwrap();
    psql(&router.console_url(), "RELOAD").expect();
    turn("p-two");
    // Nobody says RELOAD this time.
    fs::write(&next, "p-three\n").unwrap();
    turn("p-three");
    assert!(!router.log().contains("p-t"), "{}", router.log());
    fs::remove_dir_all(dir).unwrap();
}

/// Written as one writes them beside each other, whatever folder the router
/// was started in.
#[test]
fn paths_are_relative_to_the_file_that_has_them() {
    let mut router = router(cluster(), "");
    let dir = router.dir().to_owned();
    fs::create_dir(dir.join("secrets")).unwrap();
    fs::write(dir.join("secrets/u"), "p-u\n").unwrap();
    fs::copy(&cluster().view().password_file, dir.join("secrets/app")).unwrap();
    let map = fs::read_to_string(router.map_file()).unwrap();
    let file = format!("{:?}", cluster().view().password_file);
    fs::write(router.map_file(), map.replace(&file, "\"secrets/app\"")).unwrap();
    let config = fs::read_to_string(router.config_file()).unwrap();
    fs::create_dir(dir.join("conf")).unwrap();
    fs::write(
        dir.join("conf/keyway.toml"),
        config.replace("http_listen", "#http_listen")
            + "[[user]]\nname = \"u\"\npassword_file = \"../secrets/u\"\n",
    )
    .unwrap();
    router.signal(rustix::process::Signal::KILL);
    router.wait_end();
    let port = crate::support::free_port();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--config"])
        .arg(dir.join("conf/keyway.toml"))
        .current_dir("/")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut guard = keyway::local::Guard::start().unwrap();
    guard.watch(child.id()).unwrap();
    let url = format!("postgres://u:p-u@127.0.0.1:{port}/app?sslmode=disable");
    wait_for("the router", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let out = psql(&url, "SELECT 7");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(out.expect(), "7");
}
