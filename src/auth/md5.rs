//! MD5 passwords, which old servers still ask for and old databases still
//! store.
//!
//! The stored form is as good as the password where MD5 is asked for, so it is
//! kept as one keeps a password.
//!
//! Source: PostgreSQL manual, "Protocol Flow, Start-up", "pg_authid".

use std::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// The 32 digits of `md5…` in `pg_authid`: the digest of password and user.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Hash([u8; 32]);

impl Md5Hash {
    /// The hash written `md5` and 32 hexadecimal digits; `None` for any other
    /// text.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 32] = text.strip_prefix("md5")?.as_bytes().try_into().ok()?;
        digits.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(digits))
    }

    /// The hash of a user's password.
    pub fn of(user: &[u8], password: &[u8]) -> Self {
        Self(digest(&[password, user]))
    }

    /// What a client that knows the password answers to this salt.
    pub(super) fn answer(&self, salt: [u8; 4]) -> Vec<u8> {
        [&b"md5"[..], &digest(&[&self.0, &salt])].concat()
    }

    /// Whether `answer` is the one to this salt; its time tells nothing.
    pub(super) fn accepts(&self, answer: &[u8], salt: [u8; 4]) -> bool {
        self.answer(salt).ct_eq(answer).into()
    }

    /// Whether two hashes are the same; the time tells nothing.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(redacted)")
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Md5::new();
    parts.iter().for_each(|part| digest.update(part));
    let mut digits = [0; 32];
    let (pairs, _) = digits.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(digest.finalize()) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    digits
}

const fn digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_what_postgres_computes() {
        let hash = Md5Hash::of(b"alice", b"secret");
        let answer = hash.answer([1, 2, 3, 4]);
        assert_eq!(answer, b"md598a0412b9c31436fc53776e863350083");
        assert!(hash.accepts(&answer, [1, 2, 3, 4]));
        assert!(!hash.accepts(&answer, [1, 2, 3, 5]));
        assert!(!hash.accepts(b"", [1, 2, 3, 4]));
    }

    #[test]
    fn stored_form_reads_back_and_is_not_printed() {
        // SET password_encryption = md5; CREATE ROLE alice PASSWORD 'secret'
        let text = format!("md5{}", String::from_utf8_lossy(&Md5Hash::of(b"alice", b"secret").0));
        assert_eq!(Md5Hash::parse(&text), Some(Md5Hash::of(b"alice", b"secret")));
        for other in ["", "md5", "md5xyz", &text[1..], &text.to_uppercase(), &format!("{text}0")] {
            assert_eq!(Md5Hash::parse(other), None, "{other}");
        }
        assert_eq!(format!("{:?}", Md5Hash::of(b"a", b"b")), "Md5Hash(redacted)");
    }
}
