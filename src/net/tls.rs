//! TLS settings for both sides of the router, made from files.
//!
//! Builds configurations only; who opens which connection, and whether an
//! unencrypted one is acceptable, is decided elsewhere.
//!
//! Source: PostgreSQL manual, "SSL Support" (what `require` and `verify-full`
//! promise), "Protocol Message Formats" (the ALPN name).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::certificate;
use crate::shardmap::{Tls, TlsMode};
use crate::types::SqlState;

/// How to speak TLS with clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    /// The digest of the certificate that logins may be bound to; `None` if
    /// the certificate is of a kind that has none.
    pub end_point: Option<Arc<[u8]>>,
}

impl ServerTls {
    /// By the certificate chain and the private key in two PEM files. With
    /// `clients`, clients are asked for a certificate; they need not have one.
    ///
    /// # Errors
    /// A file that can't be read or holds nothing of the kind, or a key that
    /// does not belong to the certificate.
    pub fn load(
        cert: &Path,
        key: &Path,
        clients: Option<ClientCertificates<'_>>,
    ) -> Result<Self, TlsError> {
        let own = certificates(cert)?;
        let digest = own.first().and_then(|first| certificate::end_point(first));
        Ok(Self { config: server_config(cert, key, clients)?, end_point: digest.map(Arc::from) })
    }
}

/// Which certificates of clients count.
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificates<'a> {
    /// File with the authorities that sign them.
    pub authority: &'a Path,
    /// File with the lists of those that they have revoked.
    pub revoked: Option<&'a Path>,
}

fn server_config(
    cert: &Path,
    key: &Path,
    clients: Option<ClientCertificates<'_>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
    let invalid = |error: rustls::Error| TlsError::Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        reason: error.to_string(),
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(invalid)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(client_verifier(clients)?),
    };
    let mut config = builder.with_single_cert(chain, private).map_err(invalid)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// As the server does (its manual, `ssl_crl_file`): with lists, a certificate
/// whose authority has none, or one that has run out, counts as revoked.
fn client_verifier(
    clients: ClientCertificates<'_>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(roots(Some(clients.authority))?);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .enforce_revocation_expiration();
    if let Some(file) = clients.revoked {
        builder = builder.with_crls(revocation_lists(file)?);
    }
    builder.build().map_err(|error| TlsError::Root {
        path: clients.revoked.unwrap_or(clients.authority).to_owned(),
        reason: error.to_string(),
    })
}

fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let read = CertificateRevocationListDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, error))?;
    if read.is_empty() { Err(unreadable(path, pem::Error::NoItemsFound)) } else { Ok(read) }
}

/// How to speak TLS with a shard's nodes: with `verify-full` their
/// certificates must be trusted and name the host, otherwise nothing is
/// verified.
///
/// # Errors
/// Root certificates that can't be read; none at all for `verify-full`.
pub fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup { reason: error.to_string() })?;
    let mut config = match tls.mode {
        TlsMode::VerifyFull => {
            let file = tls.root_cert.as_deref().map(Path::new);
            builder.with_root_certificates(roots(file)?).with_no_client_auth()
        }
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate { algorithms }))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = file {
        for certificate in certificates(path)? {
            store.add(certificate).map_err(|error| TlsError::Root {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        }
    } else {
        // A system's store often holds a few certificates that no library
        // accepts; the others still count.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if store.is_empty() { Err(TlsError::NoRoots) } else { Ok(store) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, error))?;
    if read.is_empty() { Err(unreadable(path, pem::Error::NoItemsFound)) } else { Ok(read) }
}

fn unreadable(path: &Path, error: pem::Error) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: error.to_string() }
}

/// Accepts every certificate; the handshake's signature must still be right.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why TLS can't be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// A file can't be read or holds nothing of the kind.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate and a key that don't work together.
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        reason: String,
    },
    /// A root certificate or a list of revoked ones that can't be used.
    Root {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// `verify-full` without any root certificate to trust.
    NoRoots,
    /// The library refuses its own defaults.
    Setup {
        /// Why.
        reason: String,
    },
}

impl TlsError {
    /// SQLSTATE for a client.
    pub const fn sqlstate(&self) -> SqlState {
        SqlState::new("F0000")
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoRoots => Some("set root_cert to a file with the certificate authority".into()),
            Self::File { .. } => Some("the file must be PEM and readable by the router".into()),
            Self::Pair { .. } | Self::Root { .. } | Self::Setup { .. } => None,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, reason } => write!(f, "can't read {}: {reason}", path.display()),
            Self::Pair { cert, key, reason } => write!(
                f,
                "certificate {} and key {} can't be used: {reason}",
                cert.display(),
                key.display()
            ),
            Self::Root { path, reason } => {
                write!(f, "what {} holds can't be used: {reason}", path.display())
            }
            Self::NoRoots => f.write_str("no root certificate to verify nodes with"),
            Self::Setup { reason } => write!(f, "tls can't be set up: {reason}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// The protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"postgresql";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    struct Files {
        _folder: tempfile::TempDir,
        cert: PathBuf,
        key: PathBuf,
    }

    fn files(host: &str) -> Files {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([host.to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (cert_path, key_path) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        fs::write(&cert_path, cert.pem()).unwrap();
        fs::write(&key_path, signing_key.serialize_pem()).unwrap();
        Files { _folder: folder, cert: cert_path, key: key_path }
    }

    fn handshake(client: &Tls, files: &Files, host: &str) -> io::Result<()> {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(client_config(client).unwrap(), name).unwrap();
        let server = server_config(&files.cert, &files.key, None).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes)?;
            server.read_tls(&mut bytes.as_slice())?;
            server.process_new_packets().map_err(io::Error::other)?;
            bytes.clear();
            server.write_tls(&mut bytes)?;
            client.read_tls(&mut bytes.as_slice())?;
            client.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn tls(mode: TlsMode, root: Option<&Path>) -> Tls {
        Tls { mode, root_cert: root.map(|path| path.display().to_string()) }
    }

    #[test]
    fn verify_full_accepts_a_trusted_certificate_for_the_right_host_only() {
        let files = files("db.example");
        let trusting = tls(TlsMode::VerifyFull, Some(&files.cert));
        handshake(&trusting, &files, "db.example").unwrap();
        handshake(&trusting, &files, "other.example").unwrap_err();
        let stranger = self::files("db.example");
        handshake(&trusting, &stranger, "db.example").unwrap_err();
    }

    #[test]
    fn require_accepts_any_certificate() {
        handshake(&tls(TlsMode::Require, None), &files("db.example"), "other.example").unwrap();
    }

    #[test]
    fn unusable_files_are_named() {
        let (one, two) = (files("a"), files("b"));
        let missing = Path::new("no/such.pem");
        let error = server_config(missing, &one.key, None).unwrap_err().to_string();
        assert!(error.contains("no/such.pem"), "{error}");
        let error = server_config(&one.key, &one.key, None).unwrap_err();
        assert!(matches!(error, TlsError::File { .. }), "{error}");
        let error = server_config(&one.cert, &two.key, None).unwrap_err();
        assert!(matches!(error, TlsError::Pair { .. }), "{error}");
        let error = client_config(&tls(TlsMode::VerifyFull, Some(missing))).unwrap_err();
        assert!(error.to_string().contains("no/such.pem"), "{error}");
    }
}
