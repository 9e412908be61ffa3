//! A client proves to the router who it is.
//!
//! An unknown user goes through the same messages as a known one, with a
//! verifier that nobody has the password of, and fails as a wrong password
//! does. Channel binding is offered where the router's certificate is known:
//! there a client that believes it is not (`y`) has been lied to on the way,
//! and is refused; elsewhere it is fine, and one that insists (`p`) is refused.
//!
//! Source: PostgreSQL manual, "SASL Authentication"; RFC 5802 sections 5 to 7;
//! RFC 5929 section 4 (`tls-server-end-point`).

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::md5::Md5Hash;
use super::scram::{self, DeriveRequest, MECHANISM, MECHANISM_PLUS, Nonce, SaltedPassword};
use super::verifier::{ScramKeys, Verifier};
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

    /// What a login whose client's key is this leaves behind.
    fn keys(&self, client_key: [u8; 32]) -> Option<ScramKeys> {
        match self {
            Self::Known(verifier) => Some(ScramKeys::new(client_key, Arc::clone(verifier))),
            Self::Unknown(_) => None,
        }
    }
}

/// The digest of the router's certificate, which `tls-server-end-point` binds
/// a login to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding(pub Arc<[u8]>);

/// How the client must prove it.
#[derive(Clone, Debug)]
pub enum Login {
    /// Not at all.
    Trust,
    /// By sending the password; only over TLS or a Unix socket.
    Cleartext(Account),
    /// By sending the password, of which MD5's hash is stored.
    CleartextMd5 {
        /// The user, which goes into the hash.
        user: Vec<u8>,
        /// What is stored.
        hash: Md5Hash,
    },
    /// By answering to a random salt, as MD5 has it.
    Md5 {
        /// What is stored.
        hash: Md5Hash,
        /// Must be fresh.
        salt: [u8; 4],
    },
    /// By SCRAM-SHA-256.
    Scram(Account),
    /// By SCRAM-SHA-256, bound to the TLS connection if the client can.
    ScramBound(Account, Binding),
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
pub struct ServerExchange {
    state: State,
    keys: Option<ScramKeys>,
}

#[derive(Debug)]
enum State {
    Password(Account),
    Md5Password { user: Vec<u8>, hash: Md5Hash },
    Md5 { hash: Md5Hash, salt: [u8; 4] },
    Deriving(Account),
    ScramChosen(Account, Nonce, Option<Binding>),
    ScramFirst(Account, Nonce, Bound),
    ScramFinal(ScramFinal),
    Over,
}

/// Which of the mechanisms offered the client has taken.
#[derive(Debug)]
enum Bound {
    /// The one without channel binding, the only one offered.
    Alone,
    /// The one without, though the other was offered too.
    Declined,
    /// The one with.
    To(Binding),
}

#[derive(Debug)]
struct ScramFinal {
    account: Account,
    /// The client's header, which it must repeat, and the digest to which it
    /// binds itself.
    header: Vec<u8>,
    /// The client's nonce and ours.
    nonce: Vec<u8>,
    /// client-first-message-bare and server-first-message.
    auth_message: Vec<u8>,
}

impl ServerExchange {
    /// The exchange and its first step. `nonce` must be fresh.
    pub fn start(login: Login, nonce: Nonce) -> (Self, ServerStep) {
        let mut out = Vec::new();
        let (state, step) = match login {
            Login::Trust => {
                encode::auth_ok(&mut out);
                (State::Over, ServerStep::Done(out))
            }
            Login::Cleartext(account) => {
                encode::auth_cleartext(&mut out);
                (State::Password(account), ServerStep::Send(out))
            }
            Login::CleartextMd5 { user, hash } => {
                encode::auth_cleartext(&mut out);
                (State::Md5Password { user, hash }, ServerStep::Send(out))
            }
            Login::Md5 { hash, salt } => {
                encode::auth_md5(&mut out, salt);
                (State::Md5 { hash, salt }, ServerStep::Send(out))
            }
            Login::Scram(account) => match encode::auth_sasl(&mut out, &[MECHANISM]) {
                Ok(()) => (State::ScramChosen(account, nonce, None), ServerStep::Send(out)),
                Err(error) => (State::Over, ServerStep::Refuse(error.into())),
            },
            Login::ScramBound(account, binding) => {
                match encode::auth_sasl(&mut out, &[MECHANISM_PLUS, MECHANISM]) {
                    Ok(()) => {
                        (State::ScramChosen(account, nonce, Some(binding)), ServerStep::Send(out))
                    }
                    Err(error) => (State::Over, ServerStep::Refuse(error.into())),
                }
            }
        };
        (Self { state, keys: None }, step)
    }

    /// The step after the client's message of tag `p` with this body.
    pub fn on_message(&mut self, body: &[u8]) -> ServerStep {
        let next = match mem::replace(&mut self.state, State::Over) {
            State::Password(account) => on_password(account, body),
            State::Md5Password { user, hash } => on_md5_password(&user, &hash, body),
            State::Md5 { hash, salt } => on_md5(&hash, salt, body),
            State::ScramChosen(account, nonce, binding) => {
                on_initial(account, nonce, binding, body)
            }
            State::ScramFirst(account, nonce, bound) => {
                on_first(account, &nonce, &bound, SaslResponse::decode(body).0)
            }
            State::ScramFinal(exchange) => {
                exchange.on_final(SaslResponse::decode(body).0).map(|(keys, step)| {
                    self.keys = keys;
                    (State::Over, step)
                })
            }
            State::Deriving(_) | State::Over => Err(ServerError::Unexpected),
        };
        self.advance(next)
    }

    /// The step after the derivation that [`ServerStep::Derive`] asked for.
    pub fn on_derived(&mut self, salted: &SaltedPassword) -> ServerStep {
        let next = match mem::replace(&mut self.state, State::Over) {
            State::Deriving(account) => {
                if account.verifier().accepts(salted) & account.exists() {
                    self.keys = account.keys(salted.client_key());
                    Ok(let_in())
                } else {
                    Err(ServerError::WrongPassword)
                }
            }
            State::Password(_)
            | State::Md5Password { .. }
            | State::Md5 { .. }
            | State::ScramChosen(..)
            | State::ScramFirst(..)
            | State::ScramFinal(_)
            | State::Over => Err(ServerError::Unexpected),
        };
        self.advance(next)
    }

    /// What the login gave towards servers that store the same verifier; once
    /// the client is let in, and if it showed that it knows the password.
    pub fn take_keys(&mut self) -> Option<ScramKeys> {
        self.keys.take()
    }

    fn advance(&mut self, next: Result<(State, ServerStep), ServerError>) -> ServerStep {
        match next {
            Ok((state, step)) => {
                self.state = state;
                step
            }
            Err(error) => ServerStep::Refuse(error),
        }
    }
}

fn let_in() -> (State, ServerStep) {
    let mut out = Vec::new();
    encode::auth_ok(&mut out);
    (State::Over, ServerStep::Done(out))
}

fn on_password(account: Account, body: &[u8]) -> Result<(State, ServerStep), ServerError> {
    let request = account.verifier().request(password(body)?);
    Ok((State::Deriving(account), ServerStep::Derive(request)))
}

fn on_md5_password(
    user: &[u8],
    hash: &Md5Hash,
    body: &[u8],
) -> Result<(State, ServerStep), ServerError> {
    if Md5Hash::of(user, password(body)?).is(hash) {
        Ok(let_in())
    } else {
        Err(ServerError::WrongPassword)
    }
}

fn on_md5(hash: &Md5Hash, salt: [u8; 4], body: &[u8]) -> Result<(State, ServerStep), ServerError> {
    if hash.accepts(password(body)?, salt) { Ok(let_in()) } else { Err(ServerError::WrongPassword) }
}

fn password(body: &[u8]) -> Result<&[u8], ServerError> {
    let Password(password) = Password::decode(body)?;
    if password.is_empty() { Err(ServerError::EmptyPassword) } else { Ok(password) }
}

fn on_initial(
    account: Account,
    nonce: Nonce,
    binding: Option<Binding>,
    body: &[u8],
) -> Result<(State, ServerStep), ServerError> {
    let initial = SaslInitialResponse::decode(body)?;
    let bound = match binding {
        Some(binding) if initial.mechanism == MECHANISM_PLUS.as_bytes() => Bound::To(binding),
        Some(_) if initial.mechanism == MECHANISM.as_bytes() => Bound::Declined,
        None if initial.mechanism == MECHANISM.as_bytes() => Bound::Alone,
        Some(_) | None => return Err(ServerError::Mechanism),
    };
    match initial.data {
        Some(data) => on_first(account, &nonce, &bound, data),
        None => {
            // A client may choose first and speak after an empty challenge.
            let mut out = Vec::new();
            encode::auth_sasl_continue(&mut out, b"")?;
            Ok((State::ScramFirst(account, nonce, bound), ServerStep::Send(out)))
        }
    }
}

/// The header to be repeated, with what it binds to; and the rest of the
/// client's first message.
fn read_header<'m>(message: &'m [u8], bound: &Bound) -> Result<(Vec<u8>, &'m [u8]), ServerError> {
    const MALFORMED: ServerError = ServerError::Malformed("client-first-message");
    if let (Some(bare), Bound::To(Binding(digest))) = (message.strip_prefix(END_POINT), bound) {
        return Ok(([END_POINT, digest].concat(), bare));
    }
    match (message, bound) {
        ([b'n' | b'y' | b'p', b',', b'a', b'=', ..], _) => Err(ServerError::AuthorizationIdentity),
        ([b'n', b',', b',', bare @ ..], Bound::Alone | Bound::Declined) => {
            Ok((b"n,,".to_vec(), bare))
        }
        ([b'y', b',', b',', bare @ ..], Bound::Alone) => Ok((b"y,,".to_vec(), bare)),
        // Somebody has taken the offer out of the list on the way.
        ([b'y', b',', ..], Bound::Declined) => Err(ServerError::Downgrade),
        ([b'p', ..], _) => Err(ServerError::ChannelBinding),
        _ => Err(MALFORMED),
    }
}

fn on_first(
    account: Account,
    nonce: &Nonce,
    bound: &Bound,
    message: &[u8],
) -> Result<(State, ServerStep), ServerError> {
    let (header, bare) = read_header(message, bound)?;
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
    fn on_final(self, message: &[u8]) -> Result<(Option<ScramKeys>, ServerStep), ServerError> {
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
        let keys = self.account.keys(verifier.client_key(proof, &auth_message));
        Ok((keys, ServerStep::Done(out)))
    }
}

/// The header of a client that binds itself to the server's certificate.
const END_POINT: &[u8] = b"p=tls-server-end-point,,";

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// The password is wrong, or the user unknown: a client can't tell.
    WrongPassword,
    /// The client sent an empty password.
    EmptyPassword,
    /// A mechanism that was not offered.
    Mechanism,
    /// Channel binding of another kind, or none that was offered, or to another
    /// certificate than the router's.
    ChannelBinding,
    /// The client was made to believe that no channel binding is offered.
    Downgrade,
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
            // As PostgreSQL has it.
            Self::Downgrade => SqlState::new("28000"),
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
            Self::ChannelBinding => Some(
                "nothing may end TLS between the client and the router; without TLS, connect \
                 with channel_binding=disable or prefer"
                    .into(),
            ),
            Self::Mechanism => {
                Some(format!("the mechanisms are {MECHANISM}, and {MECHANISM_PLUS} over TLS"))
            }
            Self::WrongPassword
            | Self::EmptyPassword
            | Self::AuthorizationIdentity
            | Self::Downgrade
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
            Self::ChannelBinding => f.write_str("SCRAM channel binding check failed"),
            Self::Downgrade => f.write_str(
                "SCRAM channel binding negotiation error: the client supports it but thinks \
                 that the router does not",
            ),
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
