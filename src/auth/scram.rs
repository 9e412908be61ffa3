//! The arithmetic of SCRAM-SHA-256, which both sides share.
//!
//! Nothing here knows in which order messages come, or what a channel is bound
//! to.
//!
//! Source: RFC 5802 section 3, RFC 7677; RFC 4013 for passwords, with
//! PostgreSQL's exception that a password it does not allow is used as it is.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::NONCE_LEN_MAX;

/// The mechanism's name on the wire.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The same, bound to the TLS connection.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// A nonce of ours: 18 random bytes, as 24 printable characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// The nonce made of `random`, which must be used for one exchange only.
    pub fn new(random: [u8; 18]) -> Self {
        Self(encode(&random))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    #[cfg(test)]
    pub(super) fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A key to derive from a password: slow on purpose, so run it where it holds
/// nobody up.
#[derive(Clone, PartialEq, Eq)]
pub struct DeriveRequest {
    password: Vec<u8>,
    salt: Vec<u8>,
    iterations: u32,
}

impl DeriveRequest {
    pub(super) fn new(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let password = normalize(password).into_owned();
        Self { password, salt: salt.to_vec(), iterations }
    }

    /// The salt. With the same password, salt and iterations the key is the
    /// same, so it may be kept for the next login.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// How often the hash is applied.
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// The key; takes about a third of a microsecond per iteration.
    pub fn derive(&self) -> SaltedPassword {
        let keyed = keyed(&self.password);
        let mut block = mac(&keyed, &[&self.salt, &[0, 0, 0, 1]]);
        let mut key = block;
        for _ in 1..self.iterations {
            block = mac(&keyed, &[&block]);
            key = xor(key, block);
        }
        SaltedPassword(key)
    }
}

impl fmt::Debug for DeriveRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeriveRequest {{ iterations: {}, password: redacted }}", self.iterations)
    }
}

/// What PBKDF2 makes of a password; as secret as the password.
#[derive(Clone, PartialEq, Eq)]
pub struct SaltedPassword([u8; 32]);

impl SaltedPassword {
    pub(super) fn client_key(&self) -> [u8; 32] {
        sign(&self.0, &[b"Client Key"])
    }

    pub(super) fn server_key(&self) -> [u8; 32] {
        sign(&self.0, &[b"Server Key"])
    }
}

impl fmt::Debug for SaltedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltedPassword(redacted)")
    }
}

/// HMAC-SHA-256 of all parts in a row.
pub(super) fn sign(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    mac(&keyed(key), parts)
}

/// SHA-256.
pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(super) fn xor(mut a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

/// Compares without telling by its time where the two differ.
pub(super) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

/// Base64 with padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes that `text` stands for; `None` if it is not padded base64.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The 32 bytes that `text` stands for.
pub(super) fn decode_key(text: &[u8]) -> Option<[u8; 32]> {
    decode(text)?.try_into().ok()
}

/// The value of the attribute that `part` is, if its name is `name`.
pub(super) fn attribute(part: Option<&[u8]>, name: u8) -> Option<&[u8]> {
    match part? {
        [found, b'=', value @ ..] if *found == name => Some(value),
        _ => None,
    }
}

/// Whether a peer may use this as its nonce.
pub(super) fn is_nonce(text: &[u8]) -> bool {
    let printable = |byte: &u8| byte.is_ascii_graphic() && *byte != b',';
    (1..=NONCE_LEN_MAX).contains(&text.len()) && text.iter().all(printable)
}

fn normalize(password: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(password).map(stringprep::saslprep) {
        Ok(Ok(Cow::Owned(text))) => Cow::Owned(text.into_bytes()),
        Ok(Ok(Cow::Borrowed(text))) => Cow::Borrowed(text.as_bytes()),
        Ok(Err(_)) | Err(_) => Cow::Borrowed(password),
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // The key padded to the hash's block, which makes the construction
    // infallible; longer keys are hashed first, as HMAC has it.
    let mut block = [0; 64];
    let hashed = hash(key);
    let key = if key.len() > block.len() { &hashed[..] } else { key };
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    <Hmac<Sha256> as KeyInit>::new(&block.into())
}

fn mac(keyed: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed.clone();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_rfc_7677() {
        let salt = decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = DeriveRequest::new(b"pencil", &salt, 4096).derive();
        let auth_message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let client_key = salted.client_key();
        let signature = sign(&hash(&client_key), &[auth_message.as_bytes()]);
        assert_eq!(
            encode(&xor(client_key, signature)),
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(
            encode(&sign(&salted.server_key(), &[auth_message.as_bytes()])),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn hmac_is_that_of_rfc_4231_also_for_long_keys() {
        let hex = |bytes: [u8; 32]| bytes.map(|b| format!("{b:02x}")).concat();
        assert_eq!(
            hex(sign(b"Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(sign(&[0xAA; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"])),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn passwords_are_prepared_as_postgres_does() {
        assert_eq!(normalize("I\u{AD}X".as_bytes()), &b"IX"[..]);
        assert_eq!(normalize("\u{2168}".as_bytes()), &b"IX"[..]);
        assert_eq!(normalize(b"a\x07b"), &b"a\x07b"[..], "prohibited, so used as it is");
        assert_eq!(normalize(b"\xFF\xFE"), &b"\xFF\xFE"[..], "not UTF-8, so used as it is");
    }

    #[test]
    fn nonces_are_printable_and_bounded() {
        assert!(is_nonce(b"rOprNGfwEbeRWgbNEkqO"));
        assert!(!is_nonce(b""));
        assert!(!is_nonce(b"a,b"));
        assert!(!is_nonce(b"a b"));
        assert!(!is_nonce(&[b'a'; NONCE_LEN_MAX + 1]));
    }

    #[test]
    fn secrets_are_not_printed() {
        let request = DeriveRequest::new(b"hunter2", b"salt", 1);
        assert!(!format!("{request:?}").contains("hunter2"));
        assert_eq!(format!("{:?}", request.derive()), "SaltedPassword(redacted)");
    }
}
