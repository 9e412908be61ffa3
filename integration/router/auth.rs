//! Who gets in, on both sides; and what the router never says.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::certs::Certs;
use crate::setup::{cluster, one_server, options, router, unsharded_map};
use crate::support::cluster::Cluster;
use crate::support::psql::psql;
use crate::support::router::{Router, RouterOptions};
use crate::support::{scratch_dir, wait_for};
use crate::wire::{SSL, Wire, connect, frame, read, refusal, request, startup};

#[test]
fn every_way_to_name_a_password_works_and_a_wrong_one_does_not() {
    let dir = scratch_dir();
    let file = dir.join("password");
    std::fs::write(&file, "of-file\n").unwrap();
    let verifier = cluster()
        .superuser_sql(1, "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
        .trim()
        .to_owned();
    let own = cluster().view().password.clone();
    let config = format!(
        "[[user]]\nname = \"inline\"\npassword = \"of-inline\"\n\
         [[user]]\nname = \"env\"\npassword_env = \"KEYWAY_TEST_PASSWORD\"\n\
         [[user]]\nname = \"file\"\npassword_file = {file:?}\n\
         [[user]]\nname = \"verified\"\nverifier = {verifier:?}\n"
    );
    let mut options = options(cluster(), &config);
    options.env.push(("KEYWAY_TEST_PASSWORD".to_owned(), "of-env".to_owned()));
    let router = Router::start(cluster(), &options);
    for (user, password) in
        [("inline", "of-inline"), ("env", "of-env"), ("file", "of-file"), ("verified", &*own)]
    {
        let url = router.url_for(user, password, "app");
        assert_eq!(psql(&url, "SELECT 7").expect(), "7", "{user}");
        for wrong in ["wrong", "of-inline%20", "OF-INLINE"] {
            let error = psql(&router.url_for(user, wrong, "app"), "SELECT 7").expect_error();
            let says = format!("password authentication failed for user \"{user}\"");
            assert!(error.contains(&says), "{error}");
        }
    }
    assert_eq!(psql(&router.url_for("t1", "", "app"), "SELECT 7").expect(), "7", "trusted");
    let log = router.log();
    for secret in ["of-inline", "of-env", "of-file", &own, &verifier] {
        assert!(!log.contains(secret), "a secret is in the log:\n{log}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// A user that does not exist is asked the same, and refused the same, as one
/// whose password is wrong; and so is a wrong password for a database that
/// does not exist.
#[test]
fn strangers_learn_neither_users_nor_databases() {
    let router = router(cluster(), "");
    let mut seen = Vec::new();
    for (user, database) in [("app", "app"), ("nobody", "app"), ("app", "nodb"), ("nobody", "x")] {
        let mut socket = connect(router.port()).unwrap();
        socket.write_all(&startup(&[("user", user), ("database", database)], 0)).unwrap();
        let asked = read(&mut socket).unwrap();
        let first = b"n,,n=,r=0123456789abcdefghijklmn";
        let length = u32::try_from(first.len()).unwrap().to_be_bytes();
        let initial = [&b"SCRAM-SHA-256\0"[..], &length, first].concat();
        socket.write_all(&frame(b'p', &initial)).unwrap();
        let challenge = read(&mut socket).unwrap();
        let text = String::from_utf8_lossy(&challenge.body[4..]).into_owned();
        let mut parts = text.split(',').map(str::to_owned);
        let [nonce, salt, iterations] = [(); 3].map(|()| parts.next().unwrap());
        let last = format!("c=biws,{nonce},p={}", "A".repeat(43) + "=");
        socket.write_all(&frame(b'p', last.as_bytes())).unwrap();
        let mut refused = refusal(&read(&mut socket).unwrap().body);
        refused.message = refused.message.replace(user, "…");
        seen.push((asked, nonce.len(), salt.len(), iterations, refused));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");
    assert_eq!(seen[0].4.code, "28P01");
    // The same salt each time, as an existing user's.
    let salt = || {
        let mut socket = connect(router.port()).unwrap();
        socket.write_all(&startup(&[("user", "nobody"), ("database", "app")], 0)).unwrap();
        read(&mut socket).unwrap();
        let initial = [&b"SCRAM-SHA-256\0\0\0\0\x08"[..], b"n,,n=,r=a"].concat();
        let initial = [&initial[..17], &[9], &initial[18..]].concat();
        socket.write_all(&frame(b'p', &initial)).unwrap();
        let text = String::from_utf8_lossy(&read(&mut socket).unwrap().body).into_owned();
        text.split(",s=").nth(1).unwrap().to_owned()
    };
    assert_eq!(salt(), salt());
}

#[test]
fn known_users_are_told_what_they_may_not() {
    let config = "[[user]]\nname = \"limited\"\ntrust = true\ndatabases = [\"other\"]";
    let router = router(cluster(), config);
    let login = |user: &str, database: &str| {
        let params = [("user", user), ("database", database)];
        Wire::try_open(router.port(), &params, 0).unwrap_err().refusal()
    };
    let absent = login("t1", "nodb");
    assert_eq!((&*absent.code, &*absent.severity), ("3D000", "FATAL"));
    assert_eq!(absent.message, "database \"nodb\" does not exist");
    let forbidden = login("limited", "app");
    assert_eq!(&*forbidden.code, "42501");
    assert_eq!(forbidden.message, "permission denied for database \"app\"");
    let console = login("t1", "keyway");
    assert_eq!(&*console.code, "42501");
    assert!(console.hint.contains("admin = true"), "{console:?}");
    let replication = Wire::try_open(
        router.port(),
        &[("user", "t1"), ("database", "app"), ("replication", "true")],
        0,
    );
    // The server says what its role may not.
    assert_eq!(replication.unwrap_err().refusal().code, "42501");
}

/// The password is asked for in the clear where nobody can read it, and by
/// SCRAM elsewhere.
#[test]
fn password_in_the_clear_is_asked_for_on_private_connections_only() {
    let certs = Certs::new();
    let config = format!("client_auth = \"password\"\n{}", certs.config("allow"));
    let router = router(cluster(), &config);
    let asks = |socket: &mut dyn ReadWrite, user: &str| {
        socket.write_all(&startup(&[("user", user), ("database", "app")], 0)).unwrap();
        let message = read(socket).unwrap();
        assert_eq!(message.tag, b'R');
        u32::from_be_bytes(message.body[..4].try_into().unwrap())
    };
    assert_eq!(asks(&mut connect(router.port()).unwrap(), "app"), 10);
    let own = cluster().view().password.clone();
    for (user, password, code) in
        [("app", &*own, None), ("app", "wrong", Some("28P01")), ("nobody", "x", Some("28P01"))]
    {
        let mut session = rustls_session(&certs);
        let mut socket = connect(router.port()).unwrap();
        socket.write_all(&request(SSL)).unwrap();
        std::io::Read::read_exact(&mut socket, &mut [0]).unwrap();
        let mut stream = tokio_rustls::rustls::Stream::new(&mut session, &mut socket);
        assert_eq!(asks(&mut stream, user), 3);
        stream.write_all(&frame(b'p', &[password.as_bytes(), &[0]].concat())).unwrap();
        let answer = read(&mut stream).unwrap();
        match code {
            None => assert_eq!((answer.tag, &*answer.body), (b'R', &[0, 0, 0, 0][..])),
            Some(code) => assert_eq!(refusal(&answer.body).code, code),
        }
    }
}

#[test]
fn backends_ask_in_every_way_they_know() {
    let cluster = one_server();
    let roles = [("md5r", "md5"), ("clearr", "password"), ("scramr", "scram-sha-256")];
    let hba = superuser(&cluster, "SHOW hba_file");
    let mut lines = String::new();
    for (role, method) in roles {
        let form = if role == "md5r" { "md5" } else { "scram-sha-256" };
        superuser(
            &cluster,
            &format!(
                "SET password_encryption = '{form}'; CREATE ROLE {role} LOGIN PASSWORD 'p-{role}'"
            ),
        );
        writeln!(lines, "host all {role} 127.0.0.1/32 {method}").unwrap();
        writeln!(lines, "local all {role} {method}").unwrap();
    }
    let old = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("{lines}{old}")).unwrap();
    superuser(&cluster, "SELECT pg_reload_conf()");
    wait_for("the new rules", || {
        superuser(&cluster, "SELECT count(*) FROM pg_hba_file_rules WHERE 'md5r' = ANY (user_name)")
            == "2"
    });
    let node = cluster.primary(1);
    let socket_dir = &cluster.view().socket_dir;
    // The clients' own passwords are what the router logs in with.
    let config: String = roles
        .iter()
        .map(|(role, _)| format!("[[user]]\nname = \"{role}\"\npassword = \"p-{role}\"\n"))
        .collect();
    let map: String = unsharded_map(&cluster, 1)
        .lines()
        .filter(|line| !line.starts_with("user") && !line.starts_with("password"))
        .fold(String::new(), |map, line| map + line + "\n");
    let serve = |map: String| {
        let options = RouterOptions { map: Some(map), ..Default::default() };
        Router::start(&cluster, &options.with_config(&config))
    };
    let tcp = serve(map.clone());
    let local =
        serve(map.replace(&format!("host = {:?}", node.host), &format!("host = {socket_dir:?}")));
    for (role, method) in roles {
        let run = |router: &Router| {
            psql(&router.url_for(role, &format!("p-{role}"), "app"), "SELECT current_user")
        };
        assert_eq!(run(&local).expect(), role, "{method} on a socket");
        if method == "password" {
            let error = run(&tcp).expect_error();
            assert!(error.contains("08001: the router can't log in at shard main"), "{error}");
            assert!(tcp.log().contains("asks for the password in the clear"), "{}", tcp.log());
        } else {
            assert_eq!(run(&tcp).expect(), role, "{method} over TCP");
        }
        for router in [&tcp, &local] {
            assert!(!router.log().contains(&format!("p-{role}")), "{}", router.log());
        }
    }
}

/// At the most talkative level, with every kind of secret in play.
#[test]
fn no_secret_is_logged_or_shown() {
    let dir = scratch_dir();
    let config = "log.level = \"trace\"\n[[user]]\nname = \"inline\"\npassword = \"hush-inline\"\nadmin = true";
    let router = router(cluster(), config);
    let url = router.url_for("inline", "hush-inline", "app");
    psql(&url, "SELECT 'hush-statement'").expect();
    psql(&url, "CREATE ROLE hushed PASSWORD 'hush-statement'").expect_error();
    psql(&router.url_for("inline", "hush-wrong", "app"), "SELECT 1").expect_error();
    let mut shown = String::new();
    for topic in ["CONFIG", "CLIENTS", "SERVERS", "POOLS", "NODES", "MAP", "STATS", "DATABASES"] {
        let console = router.url_for("inline", "hush-inline", "keyway");
        shown += &psql(&console, &format!("SHOW {topic}")).expect();
    }
    shown += &crate::http::get(&router, "/metrics").1;
    let everything = format!("{shown}{}", router.log());
    assert!(everything.contains("listening on"), "{everything}");
    let verifier =
        cluster().superuser_sql(1, "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'");
    for secret in ["hush-", &*cluster().view().password, verifier.trim()] {
        assert!(!everything.contains(secret), "{secret} is in\n{everything}");
    }
    // The same without files, where the password stands in a URL.
    let backend = cluster().primary(1).url.clone();
    let options =
        RouterOptions { args: vec!["--backend".to_owned(), backend], ..RouterOptions::default() };
    let bare = Router::start(cluster(), &options);
    psql(&bare.url(), "SELECT 1").expect();
    let shown = psql(&bare.console_url(), "SHOW CONFIG").expect();
    assert!(!format!("{shown}{}", bare.log()).contains(&cluster().view().password));
    std::fs::remove_dir_all(dir).unwrap();
}

fn superuser(cluster: &Cluster, sql: &str) -> String {
    cluster.superuser_sql(1, sql).trim().to_owned()
}

/// Both halves of a stream.
trait ReadWrite: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> ReadWrite for T {}

fn rustls_session(certs: &Certs) -> tokio_rustls::rustls::ClientConnection {
    let name = tokio_rustls::rustls::pki_types::ServerName::try_from("localhost").unwrap();
    tokio_rustls::rustls::ClientConnection::new(certs.client_config(), name).unwrap()
}
