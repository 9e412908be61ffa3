//! Channel binding, MD5, and what a client's login lends to the router.

use super::*;

const DIGEST: &[u8] = b"digest of the certificate";

fn binding() -> Binding {
    Binding(DIGEST.into())
}

fn bound_server() -> ServerExchange {
    ServerExchange::start(Login::ScramBound(known(b"secret"), binding()), Nonce::from_text("srv")).0
}

/// The last message of a client that knows the password, with this header and
/// data bound.
fn last(header: &[u8], data: &[u8]) -> Vec<u8> {
    let salted = verifier(b"secret").request(b"secret").derive();
    let salt = scram::encode(b"0123456789abcdef");
    let without = format!("c={},r=clisrv", scram::encode(&[header, data].concat()));
    let auth = format!("n=,r=cli,r=clisrv,s={salt},i={ITERATIONS},{without}");
    let key = salted.client_key();
    let proof = scram::xor(key, scram::sign(&scram::hash(&key), &[auth.as_bytes()]));
    format!("{without},p={}", scram::encode(&proof)).into_bytes()
}

const END_POINT: &[u8] = b"p=tls-server-end-point,,";

#[test]
fn login_is_bound_to_the_routers_certificate() {
    let login = |header: &[u8], data: &[u8]| {
        let mut server = bound_server();
        let first = [header, b"n=,r=cli"].concat();
        server.on_message(&initial("SCRAM-SHA-256-PLUS", Some(&first)));
        server.on_message(&last(header, data))
    };
    assert!(matches!(login(END_POINT, DIGEST), ServerStep::Done(_)));
    let elsewhere = login(END_POINT, b"digest of another certificate");
    assert_eq!(refused(&elsewhere), ServerError::ChannelBinding);
    assert_eq!(refused(&login(END_POINT, b"")), ServerError::ChannelBinding);
}

#[test]
fn header_must_fit_the_mechanism() {
    let first = |mechanism: &str, header: &[u8]| {
        let data = [header, b"n=,r=cli"].concat();
        refused(&bound_server().on_message(&initial(mechanism, Some(&data))))
    };
    let plus = "SCRAM-SHA-256-PLUS";
    assert_eq!(first("SCRAM-SHA-256", b"y,,"), ServerError::Downgrade);
    assert_eq!(first("SCRAM-SHA-256", b"y,,").sqlstate().as_str(), "28000");
    assert_eq!(first("SCRAM-SHA-256", END_POINT), ServerError::ChannelBinding);
    assert_eq!(first(plus, b"p=tls-unique,,"), ServerError::ChannelBinding);
    assert_eq!(first(plus, b"p=tls-server-end-point,a=x,"), ServerError::ChannelBinding);
    assert!(matches!(first(plus, b"n,,"), ServerError::Malformed(_)));
    assert!(matches!(first(plus, b"y,,"), ServerError::Malformed(_)));
    assert_eq!(first("SCRAM-SHA-1-PLUS", END_POINT), ServerError::Mechanism);
    // A client that can't bind itself says so, and is let in.
    let mut server = bound_server();
    server.on_message(&initial("SCRAM-SHA-256", Some(b"n,,n=,r=cli")));
    assert!(matches!(server.on_message(&last(b"n,,", b"")), ServerStep::Done(_)));
}

#[test]
fn md5_logs_in_and_a_wrong_password_does_not() {
    let hash = || Md5Hash::of(b"alice", b"secret");
    let logins = || {
        [
            Login::Md5 { hash: hash(), salt: [1, 2, 3, 4] },
            Login::CleartextMd5 { user: b"alice".to_vec(), hash: hash() },
        ]
    };
    for login in logins() {
        let (server, _) = run(login, client(Some(b"secret"), Cleartext::Allow));
        assert!(matches!(server, ServerStep::Done(_)), "{server:?}");
    }
    for login in logins() {
        let (server, _) = run(login, client(Some(b"Secret"), Cleartext::Allow));
        assert_eq!(refused(&server), ServerError::WrongPassword);
    }
    let (mut server, _) = ServerExchange::start(logins()[0].clone(), Nonce::new([0; 18]));
    assert_eq!(refused(&server.on_message(b"\0")), ServerError::EmptyPassword);
}

/// The router logs in at a backend with what the client's login gave.
fn pass_through(login: Login, backend: Verifier) -> ClientStep {
    let (mut server, mut step) = ServerExchange::start(login, Nonce::new([9; 18]));
    let mut alice = client(Some(b"secret"), Cleartext::Allow);
    while let ServerStep::Send(bytes) = step {
        let mut answer = alice.on_message(&body(&bytes));
        if let ClientStep::Derive(request) = answer {
            answer = alice.on_derived(&request.derive());
        }
        let ClientStep::Send(answer) = answer else { panic!("{answer:?}") };
        step = server.on_message(&body(&answer));
        if let ServerStep::Derive(request) = step {
            step = server.on_derived(&request.derive());
        }
    }
    assert!(matches!(step, ServerStep::Done(_)), "{step:?}");
    let keys = server.take_keys().expect("the client has proved its password");
    assert!(server.take_keys().is_none());
    let router = client(None, Cleartext::Refuse).with_borrowed(Some(Borrowed::Scram(keys)));
    run(Login::Scram(Account::Known(Arc::new(backend))), router).1.unwrap()
}

#[test]
fn keys_of_a_login_open_servers_with_the_same_verifier() {
    for login in [Login::Scram(known(b"secret")), Login::Cleartext(known(b"secret"))] {
        assert_eq!(pass_through(login, verifier(b"secret")), ClientStep::Done);
    }
    let bound = Login::ScramBound(known(b"secret"), binding());
    assert_eq!(pass_through(bound, verifier(b"secret")), ClientStep::Done);
}

#[test]
fn server_with_another_verifier_gets_no_proof() {
    let login = || Login::Scram(known(b"secret"));
    let salted = Verifier::from_password(b"secret", b"another salt", ITERATIONS).unwrap();
    assert_eq!(client_refused(pass_through(login(), salted)), ClientError::OtherVerifier);
    let more = Verifier::from_password(b"secret", b"0123456789abcdef", ITERATIONS + 1).unwrap();
    assert_eq!(client_refused(pass_through(login(), more)), ClientError::OtherVerifier);
}

#[test]
fn stored_hash_answers_for_md5_and_for_nothing_else() {
    let hash = Md5Hash::of(b"alice", b"secret");
    let router = || client(None, Cleartext::Allow).with_borrowed(Some(Borrowed::Md5(hash.clone())));
    let salt = [1, 2, 3, 4];
    let (server, _) = run(Login::Md5 { hash: hash.clone(), salt }, router());
    assert!(matches!(server, ServerStep::Done(_)));
    let step = router().on_message(&[0, 0, 0, 3]);
    assert_eq!(client_refused(step), ClientError::MissingPassword);
    let step = router().on_message(&sasl(10, b"SCRAM-SHA-256\0\0"));
    assert_eq!(client_refused(step), ClientError::MissingPassword);
}

#[test]
fn nobody_gets_keys_without_a_proof() {
    let unknown = Account::Unknown(verifier(b"secret"));
    let (mut server, _) = ServerExchange::start(Login::Scram(unknown), Nonce::from_text("srv"));
    server.on_message(&initial("SCRAM-SHA-256", Some(b"n,,n=,r=cli")));
    assert_eq!(refused(&server.on_message(&last(b"n,,", b""))), ServerError::WrongPassword);
    assert!(server.take_keys().is_none());
    let (mut trusting, _) = ServerExchange::start(Login::Trust, Nonce::new([0; 18]));
    assert!(trusting.take_keys().is_none());
    assert_eq!(format!("{:?}", keys()), "ScramKeys(redacted)");
}

fn keys() -> ScramKeys {
    let mut server = bound_server();
    server.on_message(&initial("SCRAM-SHA-256", Some(b"n,,n=,r=cli")));
    server.on_message(&last(b"n,,", b""));
    server.take_keys().unwrap()
}
