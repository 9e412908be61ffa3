//! The two things that a login needs from a certificate: the name of its
//! owner, and the digest that binds a login to it.
//!
//! Reads the outermost structure only; whether a certificate may be trusted
//! has been decided before.
//!
//! Source: RFC 5280 section 4.1; RFC 5929 section 4.1; RFC 8017 appendix A.2.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// The digest of a certificate for `tls-server-end-point`: by the algorithm of
/// its signature, with SHA-256 for the weaker ones. `None` where the standard
/// names none.
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (whole, _) = inside(certificate, SEQUENCE)?;
    let (_, after_body) = inside(whole, SEQUENCE)?;
    let (algorithm, _) = inside(after_body, SEQUENCE)?;
    let (oid, _) = inside(algorithm, OBJECT)?;
    Some(match oid {
        // sha{256,384,512}WithRSAEncryption, ecdsa-with-SHA{256,384,512};
        // md5 and sha1 count as SHA-256.
        MD5_RSA | SHA1_RSA | SHA256_RSA | ECDSA_SHA1 | ECDSA_SHA256 => {
            Sha256::digest(certificate).to_vec()
        }
        SHA384_RSA | ECDSA_SHA384 => Sha384::digest(certificate).to_vec(),
        SHA512_RSA | ECDSA_SHA512 => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// The last common name of a certificate's owner; `None` if there is none, or
/// one with a byte that could end it early elsewhere.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (whole, _) = inside(certificate, SEQUENCE)?;
    let (mut body, _) = inside(whole, SEQUENCE)?;
    if let Some((_, rest)) = inside(body, VERSION) {
        body = rest;
    }
    // Serial number, algorithm, issuer, validity.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE] {
        (_, body) = inside(body, tag)?;
    }
    let (mut subject, _) = inside(body, SEQUENCE)?;
    let mut found = None;
    while let Some((mut set, rest)) = inside(subject, SET) {
        while let Some((attribute, more)) = inside(set, SEQUENCE) {
            if let Some((COMMON_NAME, value)) = inside(attribute, OBJECT) {
                found = Some(text(value)?);
            }
            set = more;
        }
        subject = rest;
    }
    found
}

fn text(value: &[u8]) -> Option<String> {
    let bytes = [UTF8, PRINTABLE, IA5].iter().find_map(|tag| inside(value, *tag))?.0;
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

/// The content of the element at the start of `bytes`, if it has this tag; and
/// what comes behind the element.
fn inside(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x0F))?;
            let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0C;
const PRINTABLE: u8 = 0x13;
const IA5: u8 = 0x16;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xA0;

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 1.2.840.113549.1.1.4, .5, .11, .12, .13
const MD5_RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x04];
const SHA1_RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x05];
const SHA256_RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B];
const SHA384_RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C];
const SHA512_RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0D];
/// 1.2.840.10045.4.1, .3.2, .3.3, .3.4
const ECDSA_SHA1: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x01];
const ECDSA_SHA256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03];
const ECDSA_SHA512: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x04];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SignatureAlgorithm};

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm, names: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "An Organisation");
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        let key = KeyPair::generate_for(algorithm).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn digest_is_that_of_the_signatures_algorithm() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &["a"]);
        assert_eq!(end_point(&der), Some(Sha256::digest(&der).to_vec()));
        let der = certificate(&rcgen::PKCS_ECDSA_P384_SHA384, &["a"]);
        assert_eq!(end_point(&der), Some(Sha384::digest(&der).to_vec()));
        // Of Ed25519 the standard says nothing.
        let der = certificate(&rcgen::PKCS_ED25519, &["a"]);
        assert_eq!(end_point(&der), None);
    }

    #[test]
    fn owner_is_the_common_name() {
        let of = |names: &[&str]| common_name(&certificate(&rcgen::PKCS_ECDSA_P256_SHA256, names));
        assert_eq!(of(&["alice"]).as_deref(), Some("alice"));
        assert_eq!(of(&["Алиса"]).as_deref(), Some("Алиса"));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["alice\0.example"]), None);
    }

    #[test]
    fn bytes_that_are_no_certificate_have_neither() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &["alice"]);
        for length in 0..der.len() {
            let cut = &der[..length];
            assert_eq!(end_point(cut), None, "{length}");
            assert_eq!(common_name(cut), None, "{length}");
        }
        let mut bytes = der;
        for at in 0..bytes.len() {
            bytes[at] ^= 0xFF;
            let _ = (end_point(&bytes), common_name(&bytes));
            bytes[at] ^= 0xFF;
        }
    }
}
