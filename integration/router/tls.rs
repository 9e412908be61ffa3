//! TLS on both sides of the router, and Unix sockets.

use std::fs;
use std::io::{Read, Write};
use std::sync::OnceLock;

use keyway::local::{Installation, Version};
use rustls::pki_types::ServerName;
use tokio_rustls::rustls;

use crate::certs::{Certs, text};
use crate::setup::{cluster, options, router};
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::psql::{Psql, psql_by};
use crate::support::router::Router;
use crate::support::wait_for;
use crate::wire::{GSS, SSL, Wire, connect, frame, read, refusal, request, startup};

// === clients ===

#[test]
fn psql_verifies_the_routers_certificate() {
    let (certs, strangers) = (Certs::new(), Certs::new());
    let router = router(cluster(), &certs.config("require"));
    let url = |ca: &Certs, host: &str, more: &str| {
        format!(
            "host={host} hostaddr=127.0.0.1 port={} user=t1 dbname=app sslmode=verify-full \
             sslrootcert={} {more}",
            router.port(),
            ca.ca().display()
        )
    };
    assert_eq!(psql(&url(&certs, "localhost", ""), "SELECT 7").expect(), "7");
    // GSSENCRequest is declined first where psql sends it.
    assert_eq!(psql(&url(&certs, "127.0.0.1", "gssencmode=prefer"), "SELECT 7").expect(), "7");
    for stranger in [url(&strangers, "localhost", ""), url(&certs, "example.com", "")] {
        let error = psql(&stranger, "SELECT 7").expect_error();
        assert!(error.contains("certificate"), "{error}");
    }
    let plain = format!("host=127.0.0.1 port={} user=t1 dbname=app sslmode=disable", router.port());
    let error = psql(&plain, "SELECT 7").expect_error();
    assert!(error.contains("the router accepts only encrypted connections"), "{error}");
    assert!(error.contains("sslmode=require"), "{error}");
    let bound = url(&certs, "localhost", "channel_binding=require").replace("user=t1", "user=app");
    let bound = format!("{bound} password={}", cluster().view().password);
    for binding in ["channel_binding=require", "channel_binding=disable", ""] {
        let bound = bound.replace("channel_binding=require", binding);
        assert_eq!(psql(&bound, "SELECT 7").expect(), "7", "{binding}");
    }
}

#[test]
fn tokio_postgres_speaks_rustls_with_the_router() {
    let certs = Certs::new();
    let router = router(cluster(), &certs.config("allow"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket =
            tokio::net::TcpStream::connect(("127.0.0.1", router.port())).await.unwrap();
        socket.write_all(&request(SSL)).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'S');
        let connector = tokio_rustls::TlsConnector::from(certs.client_config());
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, socket).await.unwrap();
        let mut config = tokio_postgres::Config::new();
        config.user("app").password(&cluster().view().password).dbname("app");
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let row = client.query_one("SELECT $1::int + 1", &[&6_i32]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 7);
        drop(client);
        driver.await.unwrap().unwrap();
    });
}

#[test]
fn nothing_may_come_behind_a_request_for_tls() {
    let certs = Certs::new();
    let router = router(cluster(), &certs.config("allow"));
    let mut socket = connect(router.port()).unwrap();
    let hello = startup(&[("user", "t1"), ("database", "app")], 0);
    socket.write_all(&[request(SSL), hello].concat()).unwrap();
    let message = read(&mut socket).unwrap();
    assert_eq!(message.tag, b'E', "not the S of a handshake");
    let refusal = refusal(&message.body);
    assert_eq!(&*refusal.code, "08P01");
    assert_eq!(refusal.message, "received unencrypted data after an SSL request");
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
}

#[test]
fn requests_for_encryption_are_answered_once_each() {
    let certs = Certs::new();
    let with = router(cluster(), &certs.config("allow"));
    let without = router(cluster(), "");
    let ask = |socket: &mut std::net::TcpStream, code| {
        socket.write_all(&request(code)).unwrap();
        let mut answer = [0];
        socket.read_exact(&mut answer).unwrap();
        char::from(answer[0])
    };
    let mut socket = connect(without.port()).unwrap();
    assert_eq!([ask(&mut socket, GSS), ask(&mut socket, SSL)], ['N', 'N']);
    socket.write_all(&startup(&[("user", "t1"), ("database", "app")], 0)).unwrap();
    assert_eq!(Wire::greeted(socket).unwrap().value("SELECT 7"), "7");
    let mut socket = connect(with.port()).unwrap();
    assert_eq!(ask(&mut socket, GSS), 'N');
    assert_eq!(ask(&mut socket, GSS), 'E');
    let mut socket = connect(with.port()).unwrap();
    assert_eq!([ask(&mut socket, GSS), ask(&mut socket, SSL)], ['N', 'S']);
    // Not a handshake: the connection ends, the router does not.
    socket.write_all(&[0; 100]).unwrap();
    let mut rest = Vec::new();
    drop(socket.read_to_end(&mut rest));
    Wire::open(with.port(), "t1").query("SELECT 1").unwrap();
}

#[test]
fn renewed_certificate_is_taken_over_by_a_reload() {
    let (old, new) = (Certs::new(), Certs::new());
    let router = router(cluster(), &old.config("allow"));
    let url = |certs: &Certs| {
        format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=t1 dbname=app sslmode=verify-full \
             sslrootcert={}",
            router.port(),
            certs.ca().display()
        )
    };
    psql(&url(&old), "SELECT 1").expect();
    fs::copy(new.cert(), old.cert()).unwrap();
    fs::copy(new.key(), old.key()).unwrap();
    psql(&router.console_url(), "RELOAD").expect();
    psql(&url(&new), "SELECT 1").expect();
    psql(&url(&old), "SELECT 1").expect_error();
    // A key that does not belong to the certificate changes nothing.
    fs::copy(Certs::new().key(), old.key()).unwrap();
    let shown = psql(&router.console_url(), "RELOAD").expect();
    assert!(shown.contains("refused: certificate"), "{shown}");
    psql(&url(&new), "SELECT 1").expect();
}

/// Results larger than any buffer, to a client that takes its time, encrypted
/// on both sides.
#[test]
fn large_results_pass_through_tls_to_slow_readers() {
    let certs = Certs::new();
    let cluster = tls_server(&certs);
    let options =
        options(&cluster, &certs.config("allow")).with_map(|map| verify_full(map, &certs));
    let router = Router::start(&cluster, &options);
    let config = certs.client_config();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = rustls::ClientConnection::new(config, name).unwrap();
    let mut socket = connect(router.port()).unwrap();
    socket.write_all(&request(SSL)).unwrap();
    socket.read_exact(&mut [0]).unwrap();
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    stream.write_all(&startup(&[("user", "t1"), ("database", "app")], 0)).unwrap();
    while read(&mut stream).unwrap().tag != b'Z' {}
    for rows in [1, 40, 2_000] {
        let sql = format!("SELECT repeat('x', 9999) FROM generate_series(1, {rows})\0");
        stream.write_all(&frame(b'Q', sql.as_bytes())).unwrap();
        // The sockets' buffers fill up meanwhile.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let mut seen = 0;
        loop {
            match read(&mut stream).unwrap().tag {
                b'D' => seen += 1,
                b'Z' => break,
                _ => {}
            }
        }
        assert_eq!(seen, rows);
    }
}

/// Whatever of a result encryption holds back when the client's buffers are
/// full, its last bytes come without anyone asking.
#[test]
fn end_of_a_result_is_not_left_behind_in_encryption() {
    let certs = Certs::new();
    let router = router(cluster(), &certs.config("allow"));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address: std::net::SocketAddr = ([127, 0, 0, 1], router.port()).into();
    socket.connect(&address.into()).unwrap();
    let mut socket: std::net::TcpStream = socket.into();
    socket.set_read_timeout(Some(crate::wire::PATIENCE)).unwrap();
    socket.write_all(&request(SSL)).unwrap();
    socket.read_exact(&mut [0]).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = rustls::ClientConnection::new(certs.client_config(), name).unwrap();
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    stream.write_all(&startup(&[("user", "t1"), ("database", "app")], 0)).unwrap();
    while read(&mut stream).unwrap().tag != b'Z' {}
    for size in (2_200_000..4_600_000).step_by(47_000) {
        let sql = format!("SELECT repeat('x', {size})\0");
        stream.write_all(&frame(b'Q', sql.as_bytes())).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(15));
        while read(&mut stream).unwrap().tag != b'Z' {}
    }
}

// === backends ===

#[test]
fn backends_are_encrypted_as_the_map_says() {
    let certs = Certs::new();
    let encrypting = tls_server(&certs);
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let serve = |cluster: &Cluster, change: &dyn Fn(&str) -> String| {
        Router::start(cluster, &options(cluster, "").with_map(change))
    };
    let mode = |mode: &str, map: &str| map.replace("\"disable\"", &format!("{mode:?}"));
    for (wanted, seen) in [("disable", "f"), ("prefer", "t"), ("require", "t")] {
        let router = serve(&encrypting, &|map| mode(wanted, map));
        let mut client = Wire::open(router.port(), "t1");
        assert_eq!(client.value(encrypted), seen, "{wanted}");
        wait_for("the monitor to see it", || {
            psql(&router.console_url(), "SHOW NODES").expect().contains("|healthy|")
        });
        // A cancel request goes the same way.
        client.send_query("SELECT pg_sleep(60) /* cancel-encrypted */");
        // A server that has not begun the statement ignores the request.
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                       AND query LIKE '%cancel-encrypted%' AND pid <> pg_backend_pid()";
        wait_for("the statement to run", || encrypting.superuser_sql(1, running).trim() == "1");
        client.cancel(router.port());
        assert_eq!(client.finish().unwrap_err().code, "57014");
    }
    let router = serve(cluster(), &|map| mode("prefer", map));
    assert_eq!(Wire::open(router.port(), "t1").value(encrypted), "f");
    let router = serve(cluster(), &|map| mode("require", map));
    let refusal = Wire::open(router.port(), "t1").query("SELECT 1").unwrap_err();
    assert_eq!(refusal.code, "08001");
    assert_eq!(refusal.message, "shard main declined TLS, which the map demands");
}

#[test]
fn certificates_of_backends_are_verified() {
    let (certs, strangers) = (Certs::new(), Certs::new());
    let cluster = tls_server(&certs);
    let options = options(&cluster, "");
    let good = Router::start(&cluster, &options.clone().with_map(|map| verify_full(map, &certs)));
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(Wire::open(good.port(), "t1").value(encrypted), "t");
    wait_for("the monitor to see it", || {
        psql(&good.console_url(), "SHOW NODES").expect().contains("|healthy|")
    });
    let bad = Router::start(&cluster, &options.with_map(|map| verify_full(map, &strangers)));
    let refusal = Wire::open(bad.port(), "t1").query("SELECT 1").unwrap_err();
    assert_eq!(refusal.code, "08001");
    assert_eq!(refusal.message, "TLS with shard main failed");
    assert!(bad.log().contains("TLS: invalid peer certificate: UnknownIssuer"), "{}", bad.log());
}

// === Unix sockets ===

#[test]
fn unix_sockets_serve_on_both_sides() {
    let (folder, of_servers) = (crate::support::scratch_dir(), &cluster().view().socket_dir);
    let node = cluster().primary(1);
    let options = options(cluster(), &format!("unix_socket_dir = {folder:?}")).with_map(|map| {
        map.replace(&format!("host = {:?}", node.host), &format!("host = {of_servers:?}"))
            .replace("tls = \"disable\"\n", "")
    });
    let mut router = Router::start(cluster(), &options);
    let url = format!(
        "host={} port={} user=app dbname=app password={}",
        folder.display(),
        router.port(),
        cluster().view().password
    );
    let address = "SELECT coalesce(inet_client_addr()::text, 'socket'), 7";
    assert_eq!(psql(&url, address).expect(), "socket|7");
    wait_for("the monitor to see it", || {
        psql(&router.console_url(), "SHOW NODES").expect().contains("|healthy|")
    });
    let clients = psql(&url.replace("dbname=app", "dbname=keyway"), "SHOW CLIENTS").expect();
    assert!(clients.contains("|unix|"), "{clients}");
    // A file left behind by a router that was killed is in nobody's way.
    router.signal(rustix::process::Signal::KILL);
    router.wait_end();
    router.start_again();
    assert_eq!(psql(&url, "SELECT 7").expect(), "7");
    router.signal(rustix::process::Signal::TERM);
    assert_eq!(router.wait_end(), Some(0));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "the socket is removed");
    fs::remove_dir_all(folder).unwrap();
}

/// The newest installation that can speak TLS; not every build can.
fn installation() -> Installation {
    let versions = (15..=30).rev().map(Version::Major);
    let able = |found: &Installation| {
        let program = fs::read(found.bin().join("postgres")).unwrap();
        let confession = b"SSL is not supported by this build";
        !program.windows(confession.len()).any(|window| window == confession)
    };
    versions
        .filter_map(|version| Installation::find(version, None).ok())
        .find(able)
        .expect("a PostgreSQL that speaks TLS: scripts/setup installs one")
}

/// psql of that installation.
/// psql with TLS, which not every build has.
pub fn psql(url: &str, sql: &str) -> Psql {
    static FOUND: OnceLock<Installation> = OnceLock::new();
    let mut command = FOUND.get_or_init(installation).command("psql");
    command.env("PGCONNECT_TIMEOUT", "20");
    psql_by(command, url, &["--command", sql])
}

/// A server that offers TLS with this certificate.
fn tls_server(certs: &Certs) -> Cluster {
    let version = Version::Major(installation().major());
    let cluster = Cluster::start(ClusterOptions { shards: 1, replicas: 0, version });
    for (path, name) in [(certs.cert(), "server.crt"), (certs.key(), "server.key")] {
        let sql = format!(
            "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) \
             TO PROGRAM 'umask 077; cat > {name}'",
            text(&path).trim_end()
        );
        cluster.superuser_sql(1, &sql);
    }
    cluster.superuser_sql(1, "ALTER SYSTEM SET ssl = on");
    cluster.superuser_sql(1, "SELECT pg_reload_conf()");
    wait_for("the server to offer TLS", || cluster.superuser_sql(1, "SHOW ssl").trim() == "on");
    cluster
}

fn verify_full(map: &str, certs: &Certs) -> String {
    let tls = format!("\"verify-full\"\ntls_root_cert = {:?}", certs.ca());
    map.replace("\"disable\"", &tls)
}
