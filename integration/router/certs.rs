//! Certificates for one test, signed by an authority of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyway::local::Guard;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls;

use crate::support::scratch_dir;

/// A certificate for `localhost` and 127.0.0.1, its key, and its authority's.
pub struct Certs {
    dir: PathBuf,
    _guard: Guard,
}

impl Certs {
    pub fn new() -> Self {
        let dir = scratch_dir();
        let mut guard = Guard::start().unwrap();
        guard.remove_at_end(&dir).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each authority has a name of its own, as strangers do.
        let name = format!("authority of {}", dir.display());
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        fs::write(dir.join("ca.pem"), issuer.pem()).unwrap();
        fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        Self { dir, _guard: guard }
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    pub fn cert(&self) -> PathBuf {
        self.dir.join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.join("key.pem")
    }

    /// Trusts the authority and nobody else.
    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// Lines for the router's configuration.
    pub fn config(&self, mode: &str) -> String {
        let (cert, key) = (self.cert(), self.key());
        format!("tls.mode = \"{mode}\"\ntls.cert = {cert:?}\ntls.key = {key:?}")
    }
}

pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
