//! TLS to origins: whom to believe and who we are. Knows nothing of connections.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::options::{OriginOptions, Protocol, Routing, TlsOptions};

/// Two configurations: one that agrees on a version of HTTP, and one for what only HTTP/1.1 can do.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) any: Arc<ClientConfig>,
    pub(super) http1: Arc<ClientConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files at once, on this thread.
    ///
    /// # Errors
    /// A file that cannot be read, or that does not hold what it should; a key that is not the certificate's.
    pub(super) fn new(options: &TlsOptions, protocol: Protocol) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("cannot set up TLS: {error}"))?;
        let builder = if options.verify {
            builder.with_root_certificates(roots(options.ca.as_deref())?)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        };
        let mut config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let shown = key.display();
                let pem = fs::read(key).map_err(|error| format!("cannot read the key {shown}: {error}"))?;
                // What is wrong with it may be a piece of it.
                let key = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| format!("there is no private key in {shown}"))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    format!("cannot use the certificate {}: {error}", certificate.display())
                })?
            }
        };
        let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        config.alpn_protocols = vec![http1.clone()];
        let only_http1 = Arc::new(config.clone());
        config.alpn_protocols = match protocol {
            Protocol::Auto => vec![http2, http1],
            Protocol::Http1 => vec![http1],
            Protocol::Http2 => vec![http2],
        };
        Ok(Self { any: Arc::new(config), http1: only_http1 })
    }
}

impl OriginOptions {
    /// What its connections need for TLS, if any has it. Reads the files at once.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub(super) fn secure(&self) -> Result<Option<Tls>, String> {
        let is_needed = self.upstreams.iter().any(|upstream| upstream.address.tls);
        is_needed.then(|| Tls::new(&self.tls, self.protocol)).transpose()
    }
}

impl Routing {
    /// Reads the files that it names, and connects to nothing.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub(crate) fn check_files(&self) -> Result<(), String> {
        self.origins.iter().try_for_each(|origin| origin.secure().map(drop))
    }
}

/// Whether this PEM file says whom to believe.
///
/// # Errors
/// It cannot be read, or there is no certificate in it that can be used.
pub(crate) fn believable(ca: &Path) -> Result<(), String> {
    roots(Some(ca)).map(drop)
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|error| format!("cannot use a certificate of {}: {error}", file.display()))?;
            }
        }
        None => {
            // One that is broken does not make the others worse; none at all is said by the first handshake.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let pem = fs::read(file).map_err(|error| format!("cannot read the certificate {shown}: {error}"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(format!("there is no certificate in {shown}")),
    }
}

/// Believes any certificate: `verify = false`. That the other side has its key is checked all the same.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
