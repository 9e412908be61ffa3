//! Rules in the words of `pg_hba.conf`: by kind of connection, address, user
//! and database; MD5 and certificates; their reload.

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::certs::Certs;
use crate::setup::{cluster, options};
use crate::support::psql::{Psql, psql};
use crate::support::router::{Router, RouterOptions};
use crate::support::{scratch_dir, wait_for};

/// A router with these rules, and users whose password is `p-` and their name.
fn router_with(rules: &str, config: &str) -> (Router, std::path::PathBuf) {
    let dir = scratch_dir();
    let file = dir.join("hba");
    fs::write(&file, rules).unwrap();
    let mut lines = format!("auth.hba_file = {file:?}\nunix_socket_dir = {dir:?}\n{config}\n");
    for user in ["alice", "bob"] {
        lines += &format!("[[user]]\nname = \"{user}\"\npassword = \"p-{user}\"\n");
    }
    // SELECT 'md5' || md5('p-old' || 'old')
    let hash = psql(&cluster().primary(1).url, "SELECT 'md5' || md5('p-oldold')").expect();
    lines += &format!("[[user]]\nname = \"old\"\nverifier = \"{hash}\"\n");
    (Router::start(cluster(), &options(cluster(), &lines)), file)
}

fn run(url: &str) -> Result<String, String> {
    match psql(url, "SELECT 7") {
        Psql::Done(out) => Ok(out),
        Psql::Failed(error) => Err(error),
    }
}

fn run_tls(url: &str) -> Result<String, String> {
    match crate::tls::psql(url, "SELECT 7") {
        Psql::Done(out) => Ok(out),
        Psql::Failed(error) => Err(error),
    }
}

#[test]
fn first_rule_that_fits_decides_and_without_one_nobody_gets_in() {
    let (router, file) = router_with(
        "local app alice trust\n\
         host app bob 192.0.2.0/24 trust\n\
         host app bob 127.0.0.0/8 reject\n\
         host app alice 127.0.0.0/8 scram-sha-256\n\
         host all bob all trust\n",
        "",
    );
    let login = |user: &str, password: &str| run(&router.url_for(user, password, "app"));
    assert_eq!(login("alice", "p-alice").as_deref(), Ok("7"));
    assert!(login("alice", "wrong").unwrap_err().contains("password authentication failed"));
    let error = login("bob", "p-bob").unwrap_err();
    let says =
        "no rule lets user \"bob\" into database \"app\" from host \"127.0.0.1\", no encryption";
    assert!(error.contains(says), "rejected before the later rule: {error}");
    let error = login("t1", "").unwrap_err();
    assert!(error.contains("no rule lets user \"t1\""), "trust = true is no rule: {error}");
    assert!(login("nobody", "x").unwrap_err().contains("no rule lets user \"nobody\""));
    // On the socket nothing is asked, but a user must exist.
    let folder = file.parent().unwrap();
    let local = |user: &str| {
        run(&format!("host={} port={} user={user} dbname=app", folder.display(), router.port()))
    };
    assert_eq!(local("alice").as_deref(), Ok("7"));
    assert!(local("bob").unwrap_err().contains("from a Unix socket"));
    // Rules change without a restart, and who is connected stays.
    let mut connected = crate::wire::Wire::greeted(trusting(&router, &file)).unwrap();
    fs::write(&file, "host app bob all scram-sha-256\n").unwrap();
    wait_for("the new rules", || login("bob", "p-bob").is_ok());
    assert!(login("alice", "p-alice").unwrap_err().contains("no rule"));
    assert_eq!(connected.value("SELECT 8"), "8");
    // A file with a mistake changes nothing.
    fs::write(&file, "host app alice all scram-sha-256\nhost app bob all nonsense\n").unwrap();
    wait_for("the refusal", || router.log().contains("is no method"));
    assert!(login("bob", "p-bob").is_ok());
    assert!(login("alice", "p-alice").is_err());
}

/// A connection of a user of whom nothing is asked.
fn trusting(router: &Router, file: &Path) -> std::net::TcpStream {
    let rules = fs::read_to_string(file).unwrap();
    fs::write(file, format!("host app t1 all trust\n{rules}")).unwrap();
    let socket = || {
        use std::io::Write as _;
        let mut socket = crate::wire::connect(router.port()).unwrap();
        let hello = crate::wire::startup(&[("user", "t1"), ("database", "app")], 0);
        socket.write_all(&hello).unwrap();
        socket
    };
    wait_for("the rule of t1", || crate::wire::Wire::greeted(socket()).is_ok());
    socket()
}

#[test]
fn md5_is_asked_for_where_its_hash_is_stored_and_scram_elsewhere() {
    let (router, _) = router_with("host all all all md5\n", "");
    for (user, password) in [("old", "p-old"), ("alice", "p-alice")] {
        assert_eq!(run(&router.url_for(user, password, "app")).as_deref(), Ok("7"));
        let error = run(&router.url_for(user, "wrong", "app")).unwrap_err();
        assert!(error.contains("password authentication failed"), "{error}");
    }
    // A client that insists on SCRAM gets it where it can be had.
    let insist = |user: &str| {
        let url = router.url_for(user, &format!("p-{user}"), "app");
        run(&format!("{url}&require_auth=scram-sha-256"))
    };
    assert!(insist("alice").is_ok());
    assert!(insist("old").unwrap_err().contains("authentication method requirement"));
    assert!(run(&router.url_for("nobody", "x", "app")).unwrap_err().contains("failed for user"));
    // A rule for SCRAM alone does not take it.
    let (router, _) = router_with("host all all all scram-sha-256\n", "");
    assert!(run(&router.url_for("old", "p-old", "app")).is_err());
}

/// An authority for clients, and certificates that it has signed.
struct Clients {
    dir: std::path::PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Clients {
    fn new() -> Self {
        let dir = scratch_dir();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("clients of {}", dir.display()));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    /// Words of a connection string that show a certificate of this name.
    fn certificate(&self, name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial(name));
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let [cert_file, key_file] =
            ["crt", "key"].map(|end| self.dir.join(format!("{}.{end}", name.replace(' ', "_"))));
        fs::write(&cert_file, cert.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
        format!("sslcert={} sslkey={}", cert_file.display(), key_file.display())
    }
}

/// The number of the certificate of this name.
fn serial(name: &str) -> rcgen::SerialNumber {
    name.bytes().map(u64::from).sum::<u64>().into()
}

impl Clients {
    /// Writes the list of those that are revoked, which counts until this year.
    fn revoke(&self, names: &[&str], until: i32) {
        let day = |year| rcgen::date_time_ymd(year, 1, 1);
        let revoked = |name: &&str| rcgen::RevokedCertParams {
            serial_number: serial(name),
            revocation_time: day(2020),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: day(2020),
            next_update: day(until),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: names.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let file = self.dir.join("crl.pem");
        let beside = file.with_extension("new");
        fs::write(&beside, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        fs::rename(beside, file).unwrap();
    }
}

#[test]
fn revoked_certificates_end_the_handshake() {
    let (certs, clients) = (Certs::new(), Clients::new());
    clients.revoke(&[], 2100);
    let (ca, list) = (clients.dir.join("ca.pem"), clients.dir.join("crl.pem"));
    let config =
        format!("{}\ntls.client_ca = {ca:?}\ntls.client_crl = {list:?}", certs.config("allow"));
    let (router, _) =
        router_with("hostssl app alice all cert\nhostssl app bob all cert\n", &config);
    let [alice, bob] = ["alice", "bob"].map(|user| {
        format!(
            "host=localhost hostaddr=127.0.0.1 port={} user={user} dbname=app sslmode=verify-full \
             sslrootcert={} {}",
            router.port(),
            certs.ca().display(),
            clients.certificate(user)
        )
    });
    assert_eq!(run_tls(&alice).as_deref(), Ok("7"));
    // The list is watched.
    clients.revoke(&["alice"], 2100);
    wait_for("the new list to count", || run_tls(&alice).is_err());
    let error = run_tls(&alice).unwrap_err();
    assert!(error.contains("certificate revoked"), "{error}");
    assert_eq!(run_tls(&bob).as_deref(), Ok("7"));
    // One that has run out says nothing of anybody.
    clients.revoke(&[], 2021);
    wait_for("the old list to count", || run_tls(&bob).is_err());
    clients.revoke(&[], 2100);
    wait_for("a list of now", || run_tls(&bob).is_ok());
    assert_eq!(run_tls(&alice).as_deref(), Ok("7"));
}

#[test]
fn certificates_name_their_users() {
    let (certs, clients, strangers) = (Certs::new(), Clients::new(), Clients::new());
    let ident = clients.dir.join("ident");
    fs::write(&ident, "people \"Bob of Accounts\" bob\n").unwrap();
    let ca = clients.dir.join("ca.pem");
    let config =
        format!("{}\ntls.client_ca = {ca:?}\nauth.ident_file = {ident:?}", certs.config("allow"));
    let (router, _) = router_with(
        "hostssl app alice all cert\n\
         hostssl app bob all cert map=people\n\
         hostssl app old all md5 clientcert=verify-ca\n",
        &config,
    );
    let login = |user: &str, more: &str| {
        run_tls(&format!(
            "host=localhost hostaddr=127.0.0.1 port={} user={user} dbname=app sslmode=verify-full \
             sslrootcert={} {more}",
            router.port(),
            certs.ca().display()
        ))
    };
    let alice = clients.certificate("alice");
    assert_eq!(login("alice", &alice).as_deref(), Ok("7"));
    let error = login("bob", &alice).unwrap_err();
    assert!(error.contains("certificate authentication failed for user \"bob\""), "{error}");
    assert_eq!(login("bob", &clients.certificate("Bob of Accounts")).as_deref(), Ok("7"));
    assert!(login("bob", &clients.certificate("bob")).is_err(), "not in the map");
    // No such file is no certificate.
    let none = "sslcert=/no/such";
    let error = login("alice", none).unwrap_err();
    assert!(error.contains("connection requires a valid client certificate"), "{error}");
    assert!(login("alice", &strangers.certificate("alice")).is_err());
    // A certificate beside a password.
    assert!(login("old", &format!("{alice} password=p-old")).is_ok());
    assert!(login("old", &format!("{alice} password=wrong")).is_err());
    assert!(login("old", &format!("{none} password=p-old")).is_err());
}

/// PostgreSQL 17 and later open with the handshake itself.
#[test]
fn tls_may_begin_at_once_if_the_protocol_is_named() {
    use std::io::{Read as _, Write as _};
    use tokio_rustls::rustls;
    let certs = Certs::new();
    let (router, _) = router_with("hostssl all all all scram-sha-256\n", &certs.config("require"));
    let open = |protocols: &[&[u8]]| {
        let mut config = (*certs.client_config()).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let session = rustls::ClientConnection::new(config.into(), name).unwrap();
        let socket = crate::wire::connect(router.port()).unwrap();
        let mut stream = rustls::StreamOwned::new(session, socket);
        let hello = crate::wire::startup(&[("user", "alice"), ("database", "app")], 0);
        drop(stream.write_all(&hello));
        let mut first = [0];
        stream.read_exact(&mut first).ok().map(|()| first[0])
    };
    assert_eq!(open(&[b"postgresql"]), Some(b'R'));
    assert_eq!(open(&[]), None, "a client that names no protocol may mean another");
    assert_eq!(open(&[b"http/1.1"]), None);
    // A second request for encryption within it.
    let mut config = (*certs.client_config()).clone();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let session = rustls::ClientConnection::new(config.into(), name).unwrap();
    let socket = crate::wire::connect(router.port()).unwrap();
    let mut stream = rustls::StreamOwned::new(session, socket);
    stream.write_all(&crate::wire::request(crate::wire::SSL)).unwrap();
    assert_eq!(crate::wire::read(&mut stream).unwrap().tag, b'E');
}

/// A comment or a setting that says where a statement runs counts only of
/// users who may say it, whatever protocol it comes in.
#[test]
fn hints_are_for_users_who_may_give_them() {
    let config = "[[user]]\nname = \"plain\"\ntrust = true\nhints = false\n\
                  [[user]]\nname = \"trusted\"\ntrust = true";
    let options = RouterOptions::sharded(cluster()).with_config(config);
    let router = Router::start(cluster(), &options);
    let run = |user: &str, sql: &str| psql(&router.url_for(user, &format!("p-{user}"), "app"), sql);
    for sql in [
        "/* keyway: shard=shard2 */ SELECT 7",
        "/* keyway: key=1 */ SELECT 7",
        "SET keyway.shard = 'shard2'",
        "SET keyway.key = '1'",
    ] {
        assert!(matches!(run("trusted", sql), Psql::Done(_)), "{sql}: {:?}", run("trusted", sql));
        let error = run("plain", sql).expect_error();
        assert!(error.contains("42501: permission denied to say where"), "{sql}: {error}");
    }
    let prepared = |user: &str| {
        let mut wire = crate::wire::Wire::open(router.port(), user);
        wire.send(b'P', b"\0SELECT 7 /* keyway: shard=shard2 */\0\0\0");
        wire.send(b'B', &[0; 8]);
        wire.send(b'E', &[0; 5]);
        wire.send(b'S', &[]);
        wire.finish().map_err(|refusal| refusal.code)
    };
    assert_eq!(prepared("trusted").unwrap()[0][0].as_deref(), Some("7"));
    assert_eq!(prepared("plain").unwrap_err(), "42501");
    let url = router.url_for("plain", "p-plain", "app") + "&options=-ckeyway.shard%3Dshard2";
    let error = psql(&url, "SELECT 7").expect_error();
    assert!(error.contains("permission denied to say where statements run"), "{error}");
    // What takes nothing is for all.
    run("plain", "RESET keyway.shard").expect();
    run("plain", "SET keyway.consistency = 'primary'").expect();
    assert_eq!(run("plain", "/* keyway: primary */ SELECT 7").expect(), "7");
}
