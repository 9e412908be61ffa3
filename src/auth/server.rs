//! A client proves to the router who it is.
//!
//! An unknown user goes through the same messages as a known one, with a
//! verifier that nobody has the password of, and fails as a wrong password
//! does. Channel binding is not offered, so a client that believes the router
//! could (`y`) is fine, and one that insists on it (`p`) is refused.
//!
//! Source: PostgreSQL manual, "SASL Authentication"; RFC 5802 sections 5 to 7.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::scram::{self, DeriveRequest, MECHANISM, Nonce, SaltedPassword};
use super::verifier::Verifier;
use crate::protocol::encode;
use crate::protocol::error::{DecodeError, EncodeError, PROTOCOL_VIOLATION};
use crate::protocol::frontend::{Password, SaslInitialResponse, SaslResponse};
use crate::types::SqlState;

/// Whom the client claims to be.
#[derive(Clone, Debug)]
pub enum Account {
    /// A user of the configuration.
    Known(Arc<Verifier>),
    /// Nobody: the exchange runs with this dummy, and fails at its end.
    Unknown(Verifier),
}

impl Account {
    /// An account that does not exist; see [`Verifier::dummy`].
    pub fn unknown(seed: &[u8], user: &[u8], iterations: u32) -> Self {
        Self::Unknown(Verifier::dummy(seed, user, iterations))
    }

    fn verifier(&self) -> &Verifier {
        match self {
            Self::Known(verifier) => verifier,
            Self::Unknown(dummy) => dummy,
        }
    }

    const fn exists(&self) -> bool {
        match self {
            Self::Known(_) => true,
            Self::Unknown(_) => false,
        }
    }
}

/// How the client must prove it.
#[derive(Clone, Debug)]
pub enum Login {
    /// Not at all.
    Trust,
    /// By sending the password; only over TLS or a Unix socket.
    Cleartext(Account),
    /// By SCRAM-SHA-256.
    Scram(Account),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerStep {
    /// Send these messages and wait for the client's.
    Send(Vec<u8>),
    /// Derive the key elsewhere and call [`ServerExchange::on_derived`].
    Derive(DeriveRequest),
    /// The client is who it claims to be: send these messages, which end with
    /// AuthenticationOk, and go on.
    Done(Vec<u8>),
    /// Say so and close.
    Refuse(ServerError),
}

/// The exchange with one client.
#[derive(Debug)]
pub struct ServerExchange(State);

#[derive(Debug)]
enum State {
    Password(Account),
    Deriving(Account),
    ScramChosen(Account, Nonce),
    ScramFirst(Account, Nonce),
    ScramFinal(ScramFinal),
    Over,
}

#[derive(Debug)]
struct ScramFinal {
    account: Account,
    /// The client's header, which it must repeat: `n,,` or `y,,`.
    header: &'static [u8],
    /// The client's nonce and ours.
    nonce: Vec<u8>,
    /// client-first-message-bare and server-first-message.
    auth_message: Vec<u8>,
}

impl ServerExchange {
    /// The exchange and its first step. `nonce` must be fresh.
    pub fn start(login: Login, nonce: Nonce) -> (Self, ServerStep) {
        let mut out = Vec::new();
        match login {
            Login::Trust => {
                encode::auth_ok(&mut out);
                (Self(State::Over), ServerStep::Done(out))
            }
            Login::Cleartext(account) => {
                encode::auth_cleartext(&mut out);
                (Self(State::Password(account)), ServerStep::Send(out))
            }
            Login::Scram(account) => match encode::auth_sasl(&mut out, &[MECHANISM]) {
                Ok(()) => (Self(State::ScramChosen(account, nonce)), ServerStep::Send(out)),
                Err(error) => (Self(State::Over), ServerStep::Refuse(error.into())),
            },
        }
    }

    /// The step after the client's message of tag `p` with this body.
    pub fn on_message(&mut self, body: &[u8]) -> ServerStep {
        let next = match mem::replace(&mut self.0, State::Over) {
            State::Password(account) => on_password(account, body),
            State::ScramChosen(account, nonce) => on_initial(account, nonce, body),
            State::ScramFirst(account, nonce) => {
                on_first(account, &nonce, SaslResponse::decode(body).0)
            }
            State::ScramFinal(exchange) => exchange.on_final(SaslResponse::decode(body).0),
            State::Deriving(_) | State::Over => Err(ServerError::Unexpected),
        };
        self.advance(next)
    }

    /// The step after the derivation that [`ServerStep::Derive`] asked for.
    pub fn on_derived(&mut self, salted: &SaltedPassword) -> ServerStep {
        let next = match mem::replace(&mut self.0, State::Over) {
            State::Deriving(account) => {
                if account.verifier().accepts(salted) & account.exists() {
                    let mut out = Vec::new();
                    encode::auth_ok(&mut out);
                    Ok((State::Over, ServerStep::Done(out)))
                } else {
                    Err(ServerError::WrongPassword)
                }
            }
            State::Password(_)
            | State::ScramChosen(..)
            | State::ScramFirst(..)
            | State::ScramFinal(_)
            | State::Over => Err(ServerError::Unexpected),
        };
        self.advance(next)
    }

    fn advance(&mut self, next: Result<(State, ServerStep), ServerError>) -> ServerStep {
        match next {
            Ok((state, step)) => {
                self.0 = state;
                step
            }
            Err(error) => ServerStep::Refuse(error),
        }
    }
}

fn on_password(account: Account, body: &[u8]) -> Result<(State, ServerStep), ServerError> {
    let Password(password) = Password::decode(body)?;
    if password.is_empty() {
        return Err(ServerError::EmptyPassword);
    }
    let request = account.verifier().request(password);
    Ok((State::Deriving(account), ServerStep::Derive(request)))
}

fn on_initial(
    account: Account,
    nonce: Nonce,
    body: &[u8],
) -> Result<(State, ServerStep), ServerError> {
    let initial = SaslInitialResponse::decode(body)?;
    if initial.mechanism != MECHANISM.as_bytes() {
        return Err(ServerError::Mechanism);
    }
    match initial.data {
        Some(data) => on_first(account, &nonce, data),
        None => {
            // A client may choose first and speak after an empty challenge.
            let mut out = Vec::new();
            encode::auth_sasl_continue(&mut out, b"")?;
            Ok((State::ScramFirst(account, nonce), ServerStep::Send(out)))
        }
    }
}

fn on_first(
    account: Account,
    nonce: &Nonce,
    message: &[u8],
) -> Result<(State, ServerStep), ServerError> {
    let (header, bare): (&'static [u8], _) = match message {
        [b'n', b',', b',', bare @ ..] => (b"n,,", bare),
        [b'y', b',', b',', bare @ ..] => (b"y,,", bare),
        [b'n' | b'y', b',', b'a', b'=', ..] => return Err(ServerError::AuthorizationIdentity),
        [b'p', ..] => return Err(ServerError::ChannelBinding),
        _ => return Err(ServerError::Malformed("client-first-message")),
    };
    let mut parts = bare.split(|byte| *byte == b',');
    // The name is that of the startup packet; what is said here is ignored, as
    // in PostgreSQL. A mandatory extension would stand before it.
    let name = scram::attribute(parts.next(), b'n');
    let theirs = scram::attribute(parts.next(), b'r').filter(|nonce| scram::is_nonce(nonce));
    let (Some(_), Some(theirs)) = (name, theirs) else {
        return Err(ServerError::Malformed("client-first-message"));
    };
    let nonce = [theirs, nonce.as_bytes()].concat();
    if !scram::is_nonce(&nonce) {
        return Err(ServerError::Malformed("client-first-message"));
    }
    let verifier = account.verifier();
    let salt = scram::encode(verifier.salt());
    let tail = format!(",s={salt},i={}", verifier.iterations());
    let server_first = [b"r=", &nonce[..], tail.as_bytes()].concat();
    let mut out = Vec::new();
    encode::auth_sasl_continue(&mut out, &server_first)?;
    let auth_message = [bare, b",", &server_first[..]].concat();
    let next = ScramFinal { account, header, nonce, auth_message };
    Ok((State::ScramFinal(next), ServerStep::Send(out)))
}

impl ScramFinal {
    fn on_final(self, message: &[u8]) -> Result<(State, ServerStep), ServerError> {
        const MALFORMED: ServerError = ServerError::Malformed("client-final-message");
        let comma = message.iter().rposition(|byte| *byte == b',').ok_or(MALFORMED)?;
        let (without_proof, last) = message.split_at_checked(comma).ok_or(MALFORMED)?;
        let proof = scram::attribute(last.get(1..), b'p').and_then(scram::decode_key);
        let mut parts = without_proof.split(|byte| *byte == b',');
        let binding = scram::attribute(parts.next(), b'c').and_then(scram::decode);
        let nonce = scram::attribute(parts.next(), b'r');
        let (Some(proof), Some(binding), Some(nonce)) = (proof, binding, nonce) else {
            return Err(MALFORMED);
        };
        if binding != self.header {
            return Err(ServerError::ChannelBinding);
        }
        if nonce != self.nonce {
            return Err(ServerError::Nonce);
        }
        let auth_message = [&self.auth_message[..], b",", without_proof].concat();
        let verifier = self.account.verifier();
        // Both are computed before either is looked at, so that an unknown
        // user takes as long as a wrong password.
        if !(verifier.accepts_proof(proof, &auth_message) & self.account.exists()) {
            return Err(ServerError::WrongPassword);
        }
        let signature = scram::encode(&verifier.server_signature(&auth_message));
        let mut out = Vec::new();
        encode::auth_sasl_final(&mut out, format!("v={signature}").as_bytes())?;
        encode::auth_ok(&mut out);
        Ok((State::Over, ServerStep::Done(out)))
    }
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// The password is wrong, or the user unknown: a client can't tell.
    WrongPassword,
    /// The client sent an empty password.
    EmptyPassword,
    /// A mechanism that was not offered.
    Mechanism,
    /// Channel binding, which was not offered, or a header that changed.
    ChannelBinding,
    /// The client wants to act as somebody else.
    AuthorizationIdentity,
    /// The client repeats another nonce than it was given.
    Nonce,
    /// A message of another form.
    Malformed(&'static str),
    /// A message while none was due.
    Unexpected,
}

impl ServerError {
    /// SQLSTATE for the client.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::WrongPassword | Self::EmptyPassword => SqlState::new("28P01"),
            Self::AuthorizationIdentity => SqlState::new("0A000"),
            Self::Mechanism
            | Self::ChannelBinding
            | Self::Nonce
            | Self::Malformed(_)
            | Self::Unexpected => PROTOCOL_VIOLATION,
        }
    }

    /// A way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ChannelBinding => Some("connect with channel_binding=disable or prefer".into()),
            Self::Mechanism => Some(format!("the only mechanism offered is {MECHANISM}")),
            Self::WrongPassword
            | Self::EmptyPassword
            | Self::AuthorizationIdentity
            | Self::Nonce
            | Self::Malformed(_)
            | Self::Unexpected => None,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongPassword => f.write_str("password authentication failed"),
            Self::EmptyPassword => f.write_str("empty password returned by client"),
            Self::Mechanism => f.write_str("client selected an invalid SASL mechanism"),
            Self::ChannelBinding => f.write_str("SCRAM channel binding is not supported"),
            Self::AuthorizationIdentity => {
                f.write_str("client uses an authorization identity, which is not supported")
            }
            Self::Nonce => f.write_str("invalid SCRAM response: nonce does not match"),
            Self::Malformed(part) => write!(f, "malformed authentication message: {part}"),
            Self::Unexpected => f.write_str("unexpected authentication message"),
        }
    }
}

impl std::error::Error for ServerError {}

impl From<DecodeError> for ServerError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.part())
    }
}

impl From<EncodeError> for ServerError {
    fn from(_: EncodeError) -> Self {
        Self::Malformed("challenge")
    }
}
