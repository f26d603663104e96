//! Certificates: read from PEM files, and chosen by the name that a client asks for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// A PEM file of the certificate, and of those that vouch for it.
    pub(crate) chain: PathBuf,
    /// A PEM file of its private key.
    pub(crate) key: PathBuf,
}

/// Why there is no TLS. Names files, never what is in them.
#[derive(Debug)]
pub(crate) struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// TLS 1.2 and 1.3 with these certificates, for HTTP/2 and HTTP/1.1. The first is for clients that ask for no name, or for
/// one that none of them is for.
///
/// # Errors
/// There is none, a file cannot be read, or a key is not that of its certificate.
pub(crate) fn config(identities: &[Identity]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let keys = identities.iter().map(|identity| load(identity, &provider)).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(TlsError("cannot serve TLS without a certificate".to_owned()));
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(format!("cannot serve TLS: {error}")))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn load(identity: &Identity, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let cannot = |what: &str, path: &Path, error: &dyn fmt::Display| {
        TlsError(format!("cannot read the {what} in {}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(&identity.chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| cannot("certificate", &identity.chain, &error))?;
    if chain.is_empty() {
        return Err(cannot("certificate", &identity.chain, &"there is none"));
    }
    let key =
        PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| cannot("key", &identity.key, &error))?;
    CertifiedKey::from_der(chain, key, provider)
        .map(Arc::new)
        .map_err(|error| cannot("key", &identity.key, &error))
}

/// Chooses the first certificate that is for the name.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_for = |key: &&Arc<CertifiedKey>, name: &ServerName<'_>| {
            key.cert
                .first()
                .and_then(|certificate| ParsedCertificate::try_from(certificate).ok())
                .is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
        };
        let named = name.and_then(|name| self.0.iter().find(|key| is_for(key, &name)));
        named.or_else(|| self.0.first()).cloned()
    }
}
