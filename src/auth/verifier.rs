//! What the router keeps of a user's password: enough to check it, not enough
//! to log in with.
//!
//! The stored form is PostgreSQL's own, so that `rolpassword` of `pg_authid`
//! can be pasted into a configuration.
//!
//! Source: PostgreSQL manual, "pg_authid"; RFC 5803.

use std::fmt;
use std::sync::Arc;

use super::md5::Md5Hash;
use super::scram::{self, DeriveRequest, MECHANISM, SaltedPassword};
use super::{ITERATIONS_MAX, SALT_LEN_MAX};
use crate::types::{Secret, SqlState};

/// A SCRAM-SHA-256 verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// The verifier written `SCRAM-SHA-256$iterations:salt$stored:server`.
    ///
    /// # Errors
    /// Any other form, a number of iterations outside 1 to [`ITERATIONS_MAX`],
    /// or a salt that is empty or longer than [`SALT_LEN_MAX`].
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        let rest = text.strip_prefix(MECHANISM).and_then(|rest| rest.strip_prefix('$'));
        let (parameters, keys) = rest.and_then(|r| r.split_once('$')).ok_or(VerifierError::Form)?;
        let (iterations, salt) = parameters.split_once(':').ok_or(VerifierError::Form)?;
        let (stored, server) = keys.split_once(':').ok_or(VerifierError::Form)?;
        let key = |text: &str| scram::decode_key(text.as_bytes()).ok_or(VerifierError::Form);
        Self::new(
            iterations.parse().map_err(|_| VerifierError::Form)?,
            scram::decode(salt.as_bytes()).ok_or(VerifierError::Form)?,
            key(stored)?,
            key(server)?,
        )
    }

    /// The verifier of `password`; slow, see [`DeriveRequest::derive`].
    ///
    /// `salt` should be 16 random bytes.
    ///
    /// # Errors
    /// Iterations or a salt that [`Self::parse`] would not read back.
    pub fn from_password(
        password: &[u8],
        salt: &[u8],
        iterations: u32,
    ) -> Result<Self, VerifierError> {
        let empty = Self::new(iterations, salt.to_vec(), [0; 32], [0; 32])?;
        let salted = empty.request(password).derive();
        Ok(Self {
            stored_key: scram::hash(&salted.client_key()),
            server_key: salted.server_key(),
            ..empty
        })
    }

    /// A verifier that looks like a real one for a user that does not exist.
    ///
    /// The same `seed` and `user` give the same salt every time, as an existing
    /// user would; `seed` must be secret, or strangers can tell.
    pub fn dummy(seed: &[u8], user: &[u8], iterations: u32) -> Self {
        let salt = scram::sign(seed, &[b"salt of unknown user ", user]);
        Self {
            iterations: iterations.clamp(1, ITERATIONS_MAX),
            salt: salt.iter().copied().take(SALT_LEN).collect(),
            stored_key: scram::sign(seed, &[b"stored key of unknown user ", user]),
            server_key: scram::sign(seed, &[b"server key of unknown user ", user]),
        }
    }

    fn new(
        iterations: u32,
        salt: Vec<u8>,
        stored_key: [u8; 32],
        server_key: [u8; 32],
    ) -> Result<Self, VerifierError> {
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(VerifierError::Iterations { iterations });
        }
        if !(1..=SALT_LEN_MAX).contains(&salt.len()) {
            return Err(VerifierError::Salt { length: salt.len() });
        }
        Ok(Self { iterations, salt, stored_key, server_key })
    }

    /// The stored form. Whoever has it can play the server towards the user,
    /// so it belongs into no log.
    pub fn to_stored_form(&self) -> String {
        format!(
            "{MECHANISM}${}:{}${}:{}",
            self.iterations,
            scram::encode(&self.salt),
            scram::encode(&self.stored_key),
            scram::encode(&self.server_key)
        )
    }

    /// The derivation that checking `password` needs.
    pub fn request(&self, password: &[u8]) -> DeriveRequest {
        DeriveRequest::new(password, &self.salt, self.iterations)
    }

    /// Whether `salted` was derived from the right password.
    pub fn accepts(&self, salted: &SaltedPassword) -> bool {
        scram::same(&scram::hash(&salted.client_key()), &self.stored_key)
    }

    /// How often the hash is applied.
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    pub(super) fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// Whether `proof` is the right one for the exchange `auth_message`.
    /// The form that a server stores, for a statement that sets a password
    /// which the server never sees. Knowing it doesn't let anybody log in, but
    /// lets him impersonate the server.
    pub fn stored(&self) -> Secret {
        let encode = scram::encode;
        Secret::new(format!(
            "{MECHANISM}${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        ))
    }

    pub(super) fn accepts_proof(&self, proof: [u8; 32], auth_message: &[u8]) -> bool {
        let signature = scram::sign(&self.stored_key, &[auth_message]);
        scram::same(&scram::hash(&scram::xor(proof, signature)), &self.stored_key)
    }

    pub(super) fn server_signature(&self, auth_message: &[u8]) -> [u8; 32] {
        scram::sign(&self.server_key, &[auth_message])
    }

    /// The client's key, which its proof for `auth_message` gives to whoever
    /// holds the verifier. Of no use unless the proof was accepted.
    pub(super) fn client_key(&self, proof: [u8; 32], auth_message: &[u8]) -> [u8; 32] {
        scram::xor(proof, scram::sign(&self.stored_key, &[auth_message]))
    }
}

/// What a login by SCRAM left behind: enough to log in, as the same user, at
/// every server that stores the same verifier. As secret as a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    client_key: [u8; 32],
    verifier: Arc<Verifier>,
}

impl ScramKeys {
    pub(super) const fn new(client_key: [u8; 32], verifier: Arc<Verifier>) -> Self {
        Self { client_key, verifier }
    }

    /// True if a server that asks with these has the same verifier, as far as
    /// can be seen before its proof.
    pub(super) fn fit(&self, salt: &[u8], iterations: u32) -> bool {
        self.verifier.salt == salt && self.verifier.iterations == iterations
    }

    pub(super) const fn client_key(&self) -> [u8; 32] {
        self.client_key
    }

    pub(super) fn server_key(&self) -> [u8; 32] {
        self.verifier.server_key
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys(redacted)")
    }
}

/// What `pg_authid` stores of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredPassword {
    /// Of `password_encryption = scram-sha-256`.
    Scram(Arc<Verifier>),
    /// Of `password_encryption = md5`.
    Md5(Md5Hash),
}

impl StoredPassword {
    /// The password stored as `text`.
    ///
    /// # Errors
    /// A text of neither form, or out of the limits of [`Verifier::parse`].
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        match Md5Hash::parse(text) {
            Some(hash) => Ok(Self::Md5(hash)),
            None => Verifier::parse(text).map(|verifier| Self::Scram(Arc::new(verifier))),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Verifier {
    /// The mechanism and the iterations; never the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MECHANISM}${}:redacted", self.iterations)
    }
}

/// A text or parameters that make no verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifierError {
    /// Not the stored form.
    Form,
    /// Iterations out of range.
    Iterations {
        /// As given.
        iterations: u32,
    },
    /// An empty or a very long salt.
    Salt {
        /// Its length in bytes.
        length: usize,
    },
}

impl VerifierError {
    /// SQLSTATE for a client.
    pub const fn sqlstate(&self) -> SqlState {
        SqlState::new("F0000")
    }

    /// Where a verifier comes from.
    pub fn hint(&self) -> Option<String> {
        Some("copy rolpassword from pg_authid".into())
    }
}

impl fmt::Display for VerifierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str(
                "not a password verifier (expected SCRAM-SHA-256$iterations:salt$stored:server, \
                 or md5 and 32 digits)",
            ),
            Self::Iterations { iterations } => write!(
                f,
                "password verifier has {iterations} iterations, expected 1 to {ITERATIONS_MAX}"
            ),
            Self::Salt { length } => write!(
                f,
                "password verifier has a salt of {length} bytes, expected 1 to {SALT_LEN_MAX}"
            ),
        }
    }
}

impl std::error::Error for VerifierError {}

/// Bytes of salt that PostgreSQL uses, and so the length of a dummy's.
const SALT_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn pencil() -> Verifier {
        let salt = scram::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::from_password(b"pencil", &salt, 4096).unwrap()
    }

    #[test]
    fn the_stored_form_reads_back() {
        let made = Verifier::from_password(b"sesame", &[7; 16], 4096).unwrap();
        assert!(Verifier::parse(made.stored().expose()).unwrap() == made);
    }

    #[test]
    fn stored_form_reads_back() {
        // What PostgreSQL stores for this password, salt and count.
        let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
            WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
            wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert_eq!(pencil().to_stored_form(), text);
        assert_eq!(Verifier::parse(text), Ok(pencil()));
    }

    #[test]
    fn right_password_is_accepted_and_wrong_one_is_not() {
        let verifier = pencil();
        assert!(verifier.accepts(&verifier.request(b"pencil").derive()));
        assert!(!verifier.accepts(&verifier.request(b"pencils").derive()));
        assert!(!verifier.accepts(&verifier.request(b"").derive()));
    }

    #[test]
    fn other_forms_are_refused() {
        let key = scram::encode(&[1; 32]);
        for text in [
            String::new(),
            "md52ab20ced842eabd4b6d47e2f43cb6cbd".into(),
            "pencil".into(),
            format!("SCRAM-SHA-256$4096:c2FsdA==${key}"),
            format!("SCRAM-SHA-256$4096:c2FsdA==${key}:{key}x"),
            format!("SCRAM-SHA-256$4096:c2FsdA==${key}:c2hvcnQ="),
            format!("SCRAM-SHA-256$-1:c2FsdA==${key}:{key}"),
            format!("SCRAM-SHA-1$4096:c2FsdA==${key}:{key}"),
        ] {
            assert_eq!(Verifier::parse(&text), Err(VerifierError::Form), "{text}");
        }
        let zero = format!("SCRAM-SHA-256$0:c2FsdA==${key}:{key}");
        assert_eq!(Verifier::parse(&zero), Err(VerifierError::Iterations { iterations: 0 }));
        let unsalted = format!("SCRAM-SHA-256$1:${key}:{key}");
        assert_eq!(Verifier::parse(&unsalted), Err(VerifierError::Salt { length: 0 }));
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(pencil().to_string(), "SCRAM-SHA-256$4096:redacted");
        assert_eq!(format!("{:?}", pencil()), "SCRAM-SHA-256$4096:redacted");
    }

    #[test]
    fn unknown_user_has_the_same_salt_every_time() {
        let salt = |user: &[u8]| Verifier::dummy(b"seed", user, 4096).salt().to_vec();
        assert_eq!(salt(b"eve"), salt(b"eve"));
        assert_ne!(salt(b"eve"), salt(b"mallory"));
        assert_ne!(salt(b"eve"), Verifier::dummy(b"other", b"eve", 4096).salt());
        assert_eq!(salt(b"eve").len(), SALT_LEN);
    }
}
