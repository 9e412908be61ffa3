//! The answer to AuthenticationMD5Password, which old servers still ask for.
//!
//! Only the client's side: the router itself never asks for it.
//!
//! Source: PostgreSQL manual, "Protocol Flow, Start-up".

use md5::{Digest, Md5};

/// `md5` and the hexadecimal digest of the password, salted twice.
pub(super) fn answer(user: &[u8], password: &[u8], salt: [u8; 4]) -> Vec<u8> {
    let inner = hex(&[password, user]);
    [&b"md5"[..], &hex(&[&inner, &salt])].concat()
}

fn hex(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = Md5::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_what_postgres_computes() {
        let answer = answer(b"alice", b"secret", [1, 2, 3, 4]);
        assert_eq!(answer, b"md598a0412b9c31436fc53776e863350083");
    }
}
