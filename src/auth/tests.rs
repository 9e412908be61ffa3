//! Both sides of a login against each other, and each against a hostile peer.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::protocol::{encode, frame};

mod bound;

const ITERATIONS: u32 = 3;

fn verifier(password: &[u8]) -> Verifier {
    Verifier::from_password(password, b"0123456789abcdef", ITERATIONS).unwrap()
}

fn known(password: &[u8]) -> Account {
    Account::Known(Arc::new(verifier(password)))
}

fn client(password: Option<&[u8]>, cleartext: Cleartext) -> ClientExchange {
    let credentials =
        Credentials { user: b"alice".to_vec(), password: password.map(<[u8]>::to_vec) };
    let policy = ClientPolicy { cleartext, iterations_max: 10_000 };
    ClientExchange::new(credentials, policy, Nonce::new([7; 18]))
}

/// Bodies of all messages in `bytes`.
fn bodies(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while let Some(frame) = frame::decode(bytes).unwrap() {
        bodies.push(frame.body.to_vec());
        bytes = &bytes[frame.bytes.len()..];
    }
    assert!(bytes.is_empty(), "whole messages only");
    bodies
}

fn body(bytes: &[u8]) -> Vec<u8> {
    bodies(bytes).remove(0)
}

/// Runs both sides to the end: what the server said last, and what the client.
fn run(login: Login, mut client: ClientExchange) -> (ServerStep, Option<ClientStep>) {
    let (mut server, mut step) = ServerExchange::start(login, Nonce::new([9; 18]));
    let mut said = None;
    for _ in 0..10 {
        let to_client = match step {
            ServerStep::Derive(request) => {
                step = server.on_derived(&request.derive());
                continue;
            }
            ServerStep::Send(ref bytes) | ServerStep::Done(ref bytes) => bodies(bytes),
            ServerStep::Refuse(_) => return (step, said),
        };
        let mut answer = None;
        for body in to_client {
            let mut next = client.on_message(&body);
            if let ClientStep::Derive(request) = next {
                next = client.on_derived(&request.derive());
            }
            if let ClientStep::Send(bytes) = &next {
                answer = Some(bytes.clone());
            }
            said = Some(next);
        }
        let Some(answer) = answer else { return (step, said) };
        step = server.on_message(&body(&answer));
    }
    panic!("no end");
}

fn refused(step: &ServerStep) -> ServerError {
    match step {
        ServerStep::Refuse(error) => *error,
        ServerStep::Send(_) | ServerStep::Derive(_) | ServerStep::Done(_) => {
            panic!("not refused: {step:?}")
        }
    }
}

fn client_refused(step: ClientStep) -> ClientError {
    match step {
        ClientStep::Refuse(error) => error,
        ClientStep::Send(_) | ClientStep::Derive(_) | ClientStep::Wait | ClientStep::Done => {
            panic!("not refused: {step:?}")
        }
    }
}

#[test]
fn right_password_logs_in_by_every_method() {
    let login = [Login::Trust, Login::Cleartext(known(b"secret")), Login::Scram(known(b"secret"))];
    for login in login {
        let (server, client) = run(login, client(Some(b"secret"), Cleartext::Allow));
        assert!(matches!(server, ServerStep::Done(_)), "{server:?}");
        assert_eq!(client, Some(ClientStep::Done));
    }
}

#[test]
fn wrong_password_is_refused_by_every_method() {
    for login in [Login::Cleartext(known(b"secret")), Login::Scram(known(b"secret"))] {
        let (server, _) = run(login, client(Some(b"Secret"), Cleartext::Allow));
        assert_eq!(refused(&server), ServerError::WrongPassword);
        assert_eq!(refused(&server).sqlstate().as_str(), "28P01");
    }
}

#[test]
fn unknown_user_fails_as_a_wrong_password_does() {
    // Even with the dummy's own password: nobody can log in as nobody.
    for account in [Account::Unknown(verifier(b"secret")), Account::unknown(b"seed", b"eve", 3)] {
        for login in [Login::Cleartext(account.clone()), Login::Scram(account)] {
            let (server, _) = run(login, client(Some(b"secret"), Cleartext::Allow));
            assert_eq!(refused(&server), ServerError::WrongPassword);
        }
    }
}

fn scram_server(nonce: &str, verifier: Verifier) -> ServerExchange {
    let login = Login::Scram(Account::Known(Arc::new(verifier)));
    ServerExchange::start(login, Nonce::from_text(nonce)).0
}

fn initial(mechanism: &str, data: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    encode::sasl_initial(&mut out, mechanism.as_bytes(), data).unwrap();
    body(&out)
}

fn pencil() -> Verifier {
    let salt = scram::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Verifier::from_password(b"pencil", &salt, 4096).unwrap()
}

const RFC_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const RFC_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const RFC_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

#[test]
fn server_speaks_the_exchange_of_rfc_7677() {
    let mut server = scram_server(RFC_NONCE, pencil());
    let ServerStep::Send(out) = server.on_message(&initial("SCRAM-SHA-256", Some(RFC_FIRST)))
    else {
        panic!("refused");
    };
    assert_eq!(
        body(&out)[4..],
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
          s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"[..]
    );
    let ServerStep::Done(out) = server.on_message(RFC_FINAL) else { panic!("refused") };
    let bodies = bodies(&out);
    assert_eq!(bodies[0][4..], b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="[..]);
    assert_eq!(bodies[1], [0, 0, 0, 0], "AuthenticationOk");
}

#[test]
fn client_may_speak_after_an_empty_challenge() {
    let mut server = scram_server(RFC_NONCE, pencil());
    let ServerStep::Send(out) = server.on_message(&initial("SCRAM-SHA-256", None)) else {
        panic!("refused");
    };
    assert_eq!(body(&out), [0, 0, 0, 11]);
    assert!(matches!(server.on_message(RFC_FIRST), ServerStep::Send(_)));
    assert!(matches!(server.on_message(RFC_FINAL), ServerStep::Done(_)));
}

#[test]
fn first_message_of_another_form_is_refused() {
    let first = |data: &[u8]| {
        let mut server = scram_server(RFC_NONCE, pencil());
        refused(&server.on_message(&initial("SCRAM-SHA-256", Some(data))))
    };
    assert_eq!(first(b"p=tls-server-end-point,,n=,r=abc"), ServerError::ChannelBinding);
    assert_eq!(first(b"n,a=other,n=,r=abc"), ServerError::AuthorizationIdentity);
    let long = [&b"n,,n=,r="[..], &[b'a'; NONCE_LEN_MAX]].concat();
    for data in [
        &b""[..],
        b"n",
        b"n,",
        b"n,,",
        b"n,,n=",
        b"n,,n=,r=",
        b"n,,r=abc,n=",
        b"x,,n=,r=abc",
        b"n,,m=x,n=,r=abc",
        b"n,,n=,r=a b",
        b"n,,n=,r=\xFF",
        &long,
    ] {
        let error = first(data);
        assert!(matches!(error, ServerError::Malformed(_)), "{}", data.escape_ascii());
        assert_eq!(error.sqlstate().as_str(), "08P01");
    }
}

#[test]
fn mechanism_that_was_not_offered_is_refused() {
    let mut server = scram_server(RFC_NONCE, pencil());
    let plus = initial("SCRAM-SHA-256-PLUS", Some(RFC_FIRST));
    assert_eq!(refused(&server.on_message(&plus)), ServerError::Mechanism);
}

#[test]
fn final_message_that_differs_is_refused() {
    let last = |first: &[u8], data: &[u8]| {
        let mut server = scram_server(RFC_NONCE, pencil());
        server.on_message(&initial("SCRAM-SHA-256", Some(first)));
        refused(&server.on_message(data))
    };
    let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let message = |text: String| last(RFC_FIRST, text.as_bytes());
    // The header said n, and is repeated as y.
    assert_eq!(message(format!("c=eSws,r={nonce},p={proof}")), ServerError::ChannelBinding);
    assert_eq!(message(format!("c=biws,r={nonce}x,p={proof}")), ServerError::Nonce);
    assert_eq!(message(format!("c=biws,r=,p={proof}")), ServerError::Nonce);
    let zero = scram::encode(&[0; 32]);
    assert_eq!(message(format!("c=biws,r={nonce},p={zero}")), ServerError::WrongPassword);
    assert_eq!(message(format!("c=biws,r={nonce},x=1,p={proof}")), ServerError::WrongPassword);
    for data in [
        String::new(),
        format!("c=biws,r={nonce}"),
        format!("c=biws,r={nonce},p="),
        format!("c=biws,r={nonce},p={}", &proof[..40]),
        format!("c=biws,r={nonce},p={proof},x=1"),
        format!("c=%%%%,r={nonce},p={proof}"),
        format!("r={nonce},p={proof}"),
        format!("p={proof}"),
    ] {
        assert_eq!(message(data), ServerError::Malformed("client-final-message"));
    }
}

#[test]
fn client_that_could_bind_its_channel_is_let_in() {
    // As libpq does over TLS, when the server offers no -PLUS.
    let mut server = scram_server("server", verifier(b"secret"));
    server.on_message(&initial("SCRAM-SHA-256", Some(b"y,,n=,r=client")));
    let salted = verifier(b"secret").request(b"secret").derive();
    let salt = scram::encode(b"0123456789abcdef");
    let without_proof = "c=eSws,r=clientserver";
    let auth_message =
        format!("n=,r=client,r=clientserver,s={salt},i={ITERATIONS},{without_proof}");
    let key = salted.client_key();
    let signature = scram::sign(&scram::hash(&key), &[auth_message.as_bytes()]);
    let proof = scram::encode(&scram::xor(key, signature));
    let step = server.on_message(format!("{without_proof},p={proof}").as_bytes());
    assert!(matches!(step, ServerStep::Done(_)), "{step:?}");
}

#[test]
fn nothing_is_accepted_after_the_end() {
    let mut server = scram_server(RFC_NONCE, pencil());
    server.on_message(b"garbage");
    assert_eq!(refused(&server.on_message(RFC_FINAL)), ServerError::Unexpected);
    let (mut trusting, _) = ServerExchange::start(Login::Trust, Nonce::new([0; 18]));
    assert_eq!(refused(&trusting.on_message(b"x\0")), ServerError::Unexpected);
    let salted = pencil().request(b"pencil").derive();
    assert_eq!(refused(&trusting.on_derived(&salted)), ServerError::Unexpected);
}

#[test]
fn empty_password_is_refused_on_both_sides() {
    let login = Login::Cleartext(known(b"secret"));
    let (mut server, _) = ServerExchange::start(login, Nonce::new([0; 18]));
    assert_eq!(refused(&server.on_message(b"\0")), ServerError::EmptyPassword);
    for password in [None, Some(&b""[..])] {
        let step = client(password, Cleartext::Allow).on_message(&[0, 0, 0, 3]);
        assert_eq!(client_refused(step), ClientError::MissingPassword);
    }
}

#[test]
fn password_is_not_sent_in_the_clear_unless_allowed() {
    let step = client(Some(b"secret"), Cleartext::Refuse).on_message(&[0, 0, 0, 3]);
    assert_eq!(client_refused(step), ClientError::Cleartext);
    let step = client(Some(b"secret"), Cleartext::Allow).on_message(&[0, 0, 0, 3]);
    assert_eq!(step, ClientStep::Send(b"p\0\0\0\x0Bsecret\0".to_vec()));
}

#[test]
fn md5_is_answered() {
    let mut client = client(Some(b"secret"), Cleartext::Refuse);
    let ClientStep::Send(out) = client.on_message(&[0, 0, 0, 5, 1, 2, 3, 4]) else {
        panic!("refused");
    };
    assert_eq!(body(&out), b"md598a0412b9c31436fc53776e863350083\0");
    assert_eq!(client.on_message(&[0, 0, 0, 0]), ClientStep::Done);
}

#[test]
fn methods_not_spoken_are_refused() {
    for code in [2, 6, 7, 9, 255] {
        let step = client(Some(b"x"), Cleartext::Allow).on_message(&[0, 0, 0, code]);
        assert_eq!(client_refused(step), ClientError::Method { code: u32::from(code) });
    }
    let step = client(Some(b"x"), Cleartext::Allow)
        .on_message(b"\0\0\0\x0ASCRAM-SHA-256-PLUS\0OAUTHBEARER\0\0");
    assert_eq!(client_refused(step), ClientError::Mechanism);
}

fn sasl(code: u8, data: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, code], data].concat()
}

/// A client that has sent its first SCRAM message, and the nonce in it.
fn scram_client() -> (ClientExchange, String) {
    let mut client = client(Some(b"secret"), Cleartext::Refuse);
    let step = client.on_message(&sasl(10, b"SCRAM-SHA-256\0\0"));
    assert!(matches!(step, ClientStep::Send(_)), "{step:?}");
    (client, scram::encode(&[7; 18]))
}

#[test]
fn hostile_challenges_are_refused() {
    let challenge = |make: &dyn Fn(&str) -> String| {
        let (mut client, nonce) = scram_client();
        client_refused(client.on_message(&sasl(11, make(&nonce).as_bytes())))
    };
    assert_eq!(
        challenge(&|n| format!("r={n}x,s=c2FsdA==,i=10001")),
        ClientError::Iterations { iterations: 10_001, max: 10_000 }
    );
    assert_eq!(
        challenge(&|n| format!("r={n}x,s=c2FsdA==,i=0")),
        ClientError::Iterations { iterations: 0, max: 10_000 }
    );
    assert_eq!(challenge(&|n| format!("r={n},s=c2FsdA==,i=5")), ClientError::Nonce);
    assert_eq!(challenge(&|_| "r=other,s=c2FsdA==,i=5".into()), ClientError::Nonce);
    let long = "x".repeat(NONCE_LEN_MAX);
    assert_eq!(challenge(&|n| format!("r={n}{long},s=c2FsdA==,i=5")), ClientError::Nonce);
    let salt = scram::encode(&[1; SALT_LEN_MAX + 1]);
    for tail in [
        String::new(),
        ",s=c2FsdA==".into(),
        ",s=,i=5".into(),
        ",s=%%,i=5".into(),
        ",s=c2FsdA==,i=".into(),
        ",s=c2FsdA==,i=+5".into(),
        ",s=c2FsdA==,i=99999999999".into(),
        format!(",s={salt},i=5"),
    ] {
        let error = challenge(&|n| format!("r={n}x{tail}"));
        assert_eq!(error, ClientError::Malformed("server-first-message"), "{tail}");
    }
    assert!(matches!(
        challenge(&|n| format!("m=x,r={n}x,s=c2FsdA==,i=5")),
        ClientError::Malformed(_)
    ));
}

#[test]
fn server_that_does_not_know_the_password_is_refused() {
    let proved = || {
        let (mut client, nonce) = scram_client();
        let first = format!("r={nonce}x,s=c2FsdA==,i=5");
        let ClientStep::Derive(request) = client.on_message(&sasl(11, first.as_bytes())) else {
            panic!("no derivation");
        };
        assert_eq!((request.salt(), request.iterations()), (&b"salt"[..], 5));
        assert!(matches!(client.on_derived(&request.derive()), ClientStep::Send(_)));
        client
    };
    let forged = format!("v={}", scram::encode(&[0; 32]));
    let step = proved().on_message(&sasl(12, forged.as_bytes()));
    assert_eq!(client_refused(step), ClientError::ServerSignature);
    let step = proved().on_message(&sasl(12, b"e=invalid-proof"));
    assert_eq!(client_refused(step), ClientError::Refused);
    let step = proved().on_message(&sasl(12, b"v=short"));
    assert!(matches!(client_refused(step), ClientError::Malformed(_)));
    // Letting the router in without the proof is no way around it.
    assert_eq!(client_refused(proved().on_message(&[0, 0, 0, 0])), ClientError::Unexpected);
    let (mut client, _) = scram_client();
    assert_eq!(client_refused(client.on_message(&[0, 0, 0, 0])), ClientError::Unexpected);
}

#[test]
fn second_request_is_refused() {
    let mut client = client(Some(b"secret"), Cleartext::Allow);
    client.on_message(&[0, 0, 0, 5, 1, 2, 3, 4]);
    assert_eq!(client_refused(client.on_message(&[0, 0, 0, 3])), ClientError::Unexpected);
    assert_eq!(client_refused(client.on_message(&[0, 0, 0, 0])), ClientError::Unexpected);
}

proptest! {
    #[test]
    fn any_password_logs_in_and_no_other(password in "[^\\x00]{1,20}", other in "[a-z]{21}") {
        let login = || Login::Scram(known(password.as_bytes()));
        let right = client(Some(password.as_bytes()), Cleartext::Refuse);
        prop_assert!(matches!(run(login(), right).0, ServerStep::Done(_)));
        let wrong = client(Some(other.as_bytes()), Cleartext::Refuse);
        prop_assert!(matches!(run(login(), wrong).0, ServerStep::Refuse(_)));
    }

    #[test]
    fn no_bytes_panic_or_log_in(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..4),
        attributes in prop::collection::vec("[nycrpsimve]=[ -~]{0,12}", 0..5),
    ) {
        let mut server = scram_server("server", verifier(b"secret"));
        server.on_message(&initial("SCRAM-SHA-256", Some(attributes.join(",").as_bytes())));
        let mut second = scram_server("server", verifier(b"secret"));
        second.on_message(&initial("SCRAM-SHA-256", Some(b"n,,n=,r=client")));
        let step = second.on_message(attributes.join(",").as_bytes());
        prop_assert!(matches!(step, ServerStep::Refuse(_)));
        let (mut client, nonce) = scram_client();
        let first = format!("r={nonce}{}", attributes.join(","));
        client.on_message(&sasl(11, first.as_bytes()));
        let mut third = scram_server("server", verifier(b"secret"));
        for message in &messages {
            prop_assert!(!matches!(third.on_message(message), ServerStep::Done(_)));
            client.on_message(message);
        }
    }
}
