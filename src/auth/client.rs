//! The router proves to a backend who it is.
//!
//! The backend is not trusted more than a client: it can't make the router
//! send a password in the clear, spin on iterations, or take a nonce without
//! end, and after SCRAM has begun it must prove that it knows the password too.
//!
//! Source: PostgreSQL manual, "Protocol Flow, Start-up"; RFC 5802.

use std::fmt;
use std::mem;

use super::SALT_LEN_MAX;
use super::md5::Md5Hash;
use super::scram::{self, DeriveRequest, MECHANISM, Nonce, SaltedPassword};
use super::verifier::ScramKeys;
use crate::protocol::backend::Authentication;
use crate::protocol::encode;
use crate::protocol::error::{DecodeError, EncodeError, PROTOCOL_VIOLATION};
use crate::types::SqlState;

/// What the router logs in with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user of the startup packet.
    pub user: Vec<u8>,
    /// The password; without one only a trusting backend lets the router in.
    pub password: Option<Vec<u8>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, redacted)", self.user.escape_ascii())
    }
}

/// Whether the password may be sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleartext {
    /// Yes: the connection is encrypted or local, or the operator says so.
    Allow,
    /// No.
    Refuse,
}

/// What a backend may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPolicy {
    /// Whether the password may be sent as it is.
    pub cleartext: Cleartext,
    /// The most iterations; more would let a backend spend our time.
    pub iterations_max: u32,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientStep {
    /// Send this message and wait for the backend's.
    Send(Vec<u8>),
    /// Derive the key elsewhere and call [`ClientExchange::on_derived`].
    Derive(DeriveRequest),
    /// Wait for the backend's next message.
    Wait,
    /// The backend let the router in.
    Done,
    /// Close: the backend can't be logged in at.
    Refuse(ClientError),
}

/// The exchange with one backend.
#[derive(Debug)]
pub struct ClientExchange {
    credentials: Credentials,
    policy: ClientPolicy,
    nonce: Nonce,
    /// Where there is no password, but what a client's own login gave.
    borrowed: Option<Borrowed>,
    state: State,
}

/// What stands in for a password that the router does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Borrowed {
    /// The keys of a login by SCRAM.
    Scram(ScramKeys),
    /// The stored hash, which MD5 takes for the password.
    Md5(Md5Hash),
}

#[derive(Debug)]
enum State {
    Start,
    /// Answered; the backend's verdict is next.
    Answered,
    ScramFirst,
    Deriving(ServerFirst),
    /// The server's signature that proves it knows the password.
    ScramFinal([u8; 32]),
    Over,
}

#[derive(Debug)]
struct ServerFirst {
    nonce: Vec<u8>,
    /// The whole message, which both sides sign.
    message: Vec<u8>,
}

type Next = Result<(State, ClientStep), ClientError>;

impl ClientExchange {
    /// An exchange that waits for the backend's request. `nonce` must be fresh.
    pub const fn new(credentials: Credentials, policy: ClientPolicy, nonce: Nonce) -> Self {
        Self { credentials, policy, nonce, borrowed: None, state: State::Start }
    }

    /// The same, with what stands in for the password if there is none.
    #[must_use]
    pub fn with_borrowed(self, borrowed: Option<Borrowed>) -> Self {
        Self { borrowed, ..self }
    }

    /// The step after an Authentication message with this body.
    pub fn on_message(&mut self, body: &[u8]) -> ClientStep {
        let next = Authentication::decode(body)
            .map_err(ClientError::from)
            .and_then(|message| self.on_authentication(message));
        self.advance(next)
    }

    /// The step after the derivation that [`ClientStep::Derive`] asked for.
    pub fn on_derived(&mut self, salted: &SaltedPassword) -> ClientStep {
        let next = match mem::replace(&mut self.state, State::Over) {
            State::Deriving(first) => self.prove(&first, salted),
            State::Start
            | State::Answered
            | State::ScramFirst
            | State::ScramFinal(_)
            | State::Over => Err(ClientError::Unexpected),
        };
        self.advance(next)
    }

    fn advance(&mut self, next: Next) -> ClientStep {
        match next {
            Ok((state, step)) => {
                self.state = state;
                step
            }
            Err(error) => {
                self.state = State::Over;
                ClientStep::Refuse(error)
            }
        }
    }

    fn on_authentication(&mut self, message: Authentication<'_>) -> Next {
        match (mem::replace(&mut self.state, State::Over), message) {
            (State::Start | State::Answered, Authentication::Ok) => {
                Ok((State::Over, ClientStep::Done))
            }
            (State::Start, Authentication::Cleartext) => self.send_password(),
            (State::Start, Authentication::Md5 { salt }) => {
                let hash = match &self.borrowed {
                    Some(Borrowed::Md5(hash)) if self.credentials.password.is_none() => {
                        hash.clone()
                    }
                    Some(_) | None => Md5Hash::of(&self.credentials.user, self.password()?),
                };
                self.answer(&hash.answer(salt))
            }
            (State::Start, Authentication::Sasl { mechanisms }) => {
                if !mechanisms.offers(MECHANISM) {
                    return Err(ClientError::Mechanism);
                }
                if self.keys().is_none() {
                    self.password()?;
                }
                let mut out = Vec::new();
                let first = [b"n,,", &self.first_bare()[..]].concat();
                encode::sasl_initial(&mut out, MECHANISM.as_bytes(), Some(&first))?;
                Ok((State::ScramFirst, ClientStep::Send(out)))
            }
            (State::ScramFirst, Authentication::SaslContinue(data)) => self.on_server_first(data),
            (State::ScramFinal(expected), Authentication::SaslFinal(data)) => {
                on_server_final(&expected, data)
            }
            (_, Authentication::Other(code)) => Err(ClientError::Method { code }),
            // AuthenticationOk in the midst of SCRAM comes from a server that
            // could not prove it knows the password.
            (
                State::Start
                | State::Answered
                | State::ScramFirst
                | State::Deriving(_)
                | State::ScramFinal(_)
                | State::Over,
                Authentication::Ok
                | Authentication::Cleartext
                | Authentication::Md5 { .. }
                | Authentication::Sasl { .. }
                | Authentication::SaslContinue(_)
                | Authentication::SaslFinal(_),
            ) => Err(ClientError::Unexpected),
        }
    }

    fn password(&self) -> Result<&[u8], ClientError> {
        let password = self.credentials.password.as_deref();
        password.filter(|password| !password.is_empty()).ok_or(ClientError::MissingPassword)
    }

    /// The keys to use in place of a password.
    fn keys(&self) -> Option<&ScramKeys> {
        match &self.borrowed {
            Some(Borrowed::Scram(keys)) if self.credentials.password.is_none() => Some(keys),
            Some(_) | None => None,
        }
    }

    fn send_password(&self) -> Next {
        match self.policy.cleartext {
            Cleartext::Allow => self.answer(self.password()?),
            Cleartext::Refuse => Err(ClientError::Cleartext),
        }
    }

    fn answer(&self, answer: &[u8]) -> Next {
        let mut out = Vec::new();
        encode::password(&mut out, answer)?;
        Ok((State::Answered, ClientStep::Send(out)))
    }

    /// The name is left empty: PostgreSQL takes that of the startup packet.
    fn first_bare(&self) -> Vec<u8> {
        [b"n=,r=", self.nonce.as_bytes()].concat()
    }

    fn on_server_first(&self, message: &[u8]) -> Next {
        const MALFORMED: ClientError = ClientError::Malformed("server-first-message");
        let mut parts = message.split(|byte| *byte == b',');
        let nonce = scram::attribute(parts.next(), b'r').ok_or(MALFORMED)?;
        let salt = scram::attribute(parts.next(), b's').and_then(scram::decode);
        let iterations = scram::attribute(parts.next(), b'i').and_then(decimal);
        let (Some(salt), Some(iterations)) = (salt, iterations) else { return Err(MALFORMED) };
        let extended = nonce.len() > self.nonce.as_bytes().len()
            && nonce.starts_with(self.nonce.as_bytes())
            && scram::is_nonce(nonce);
        if !extended {
            return Err(ClientError::Nonce);
        }
        if !(1..=SALT_LEN_MAX).contains(&salt.len()) {
            return Err(MALFORMED);
        }
        if !(1..=self.policy.iterations_max).contains(&iterations) {
            let max = self.policy.iterations_max;
            return Err(ClientError::Iterations { iterations, max });
        }
        let first = ServerFirst { nonce: nonce.to_vec(), message: message.to_vec() };
        if let Some(keys) = self.keys() {
            return if keys.fit(&salt, iterations) {
                self.prove_by(&first, keys.client_key(), &keys.server_key())
            } else {
                Err(ClientError::OtherVerifier)
            };
        }
        let request = DeriveRequest::new(self.password()?, &salt, iterations);
        Ok((State::Deriving(first), ClientStep::Derive(request)))
    }

    fn prove(&self, first: &ServerFirst, salted: &SaltedPassword) -> Next {
        self.prove_by(first, salted.client_key(), &salted.server_key())
    }

    fn prove_by(&self, first: &ServerFirst, client_key: [u8; 32], server_key: &[u8]) -> Next {
        let without_proof = [b"c=biws,r=", &first.nonce[..]].concat();
        let auth_message =
            [&self.first_bare()[..], b",", &first.message, b",", &without_proof].concat();
        let signature = scram::sign(&scram::hash(&client_key), &[&auth_message]);
        let proof = scram::encode(&scram::xor(client_key, signature));
        let expected = scram::sign(server_key, &[&auth_message]);
        let mut out = Vec::new();
        let message = [&without_proof[..], b",p=", proof.as_bytes()].concat();
        encode::sasl_response(&mut out, &message)?;
        Ok((State::ScramFinal(expected), ClientStep::Send(out)))
    }
}

fn on_server_final(expected: &[u8; 32], message: &[u8]) -> Next {
    let first = message.split(|byte| *byte == b',').next();
    if scram::attribute(first, b'e').is_some() {
        return Err(ClientError::Refused);
    }
    let signature = scram::attribute(first, b'v')
        .and_then(scram::decode_key)
        .ok_or(ClientError::Malformed("server-final-message"))?;
    if !scram::same(&signature, expected) {
        return Err(ClientError::ServerSignature);
    }
    Ok((State::Answered, ClientStep::Wait))
}

/// The number that `digits` write; `None` if it has a sign or is too large.
fn decimal(digits: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Why the router could not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The backend wants a password and there is none.
    MissingPassword,
    /// The backend wants the password in the clear.
    Cleartext,
    /// The backend wants a method that the router does not speak.
    Method {
        /// The method's code.
        code: u32,
    },
    /// None of the backend's mechanisms is SCRAM-SHA-256.
    Mechanism,
    /// The backend asks for too much work, or none.
    Iterations {
        /// Iterations asked for.
        iterations: u32,
        /// The most allowed.
        max: u32,
    },
    /// The client's password is stored otherwise on this backend.
    OtherVerifier,
    /// The backend's nonce does not extend ours, or is too long.
    Nonce,
    /// The backend did not prove that it knows the password.
    ServerSignature,
    /// The backend ended the exchange.
    Refused,
    /// A message of another form.
    Malformed(&'static str),
    /// A message while another was due.
    Unexpected,
}

impl ClientError {
    /// SQLSTATE for the client that waits for the backend.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::MissingPassword
            | Self::Cleartext
            | Self::Method { .. }
            | Self::Mechanism
            | Self::Iterations { .. }
            | Self::OtherVerifier
            | Self::ServerSignature
            | Self::Refused => SqlState::new("08001"),
            Self::Nonce | Self::Malformed(_) | Self::Unexpected => PROTOCOL_VIOLATION,
        }
    }

    /// A way out for the operator, where there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::MissingPassword => "give the shard's user a password in the map's credentials",
            Self::Cleartext => "use TLS to the backend, or SCRAM-SHA-256 in its pg_hba.conf",
            Self::Method { .. } | Self::Mechanism => {
                "use scram-sha-256 in the backend's pg_hba.conf"
            }
            Self::Iterations { .. } => "raise the limit if the backend is to be trusted with it",
            Self::OtherVerifier => {
                "give the role the same stored password on every shard: ALTER ROLE … PASSWORD \
                 'SCRAM-SHA-256$…' with the home shard's rolpassword"
            }
            Self::Nonce
            | Self::ServerSignature
            | Self::Refused
            | Self::Malformed(_)
            | Self::Unexpected => return None,
        };
        Some(hint.into())
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingPassword => f.write_str("backend asks for a password and none is given"),
            Self::Cleartext => f.write_str(
                "backend asks for the password in the clear on a connection without encryption",
            ),
            Self::Method { code } => {
                write!(f, "backend asks for authentication method {code}, which is not supported")
            }
            Self::Mechanism => write!(f, "backend does not offer {MECHANISM}"),
            Self::Iterations { iterations, max } => {
                write!(f, "backend asks for {iterations} SCRAM iterations, allowed are 1 to {max}")
            }
            Self::OtherVerifier => f.write_str(
                "backend stores another verifier of the user's password than the one that the \
                 client logged in by",
            ),
            Self::Nonce => f.write_str("backend sent an invalid SCRAM nonce"),
            Self::ServerSignature => {
                f.write_str("backend did not prove that it knows the password")
            }
            Self::Refused => f.write_str("backend refused the SCRAM exchange"),
            Self::Malformed(part) => write!(f, "malformed authentication message: {part}"),
            Self::Unexpected => f.write_str("unexpected authentication message from backend"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.part())
    }
}

impl From<EncodeError> for ClientError {
    fn from(_: EncodeError) -> Self {
        Self::Malformed("answer")
    }
}
