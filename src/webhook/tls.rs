//! Whom the daemon believes when a receiver shows a certificate. Verification has no switch.

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tracing::warn;

/// The certificate authorities that receivers' certificates must come from.
#[derive(Debug, Clone)]
pub struct TrustedRoots(Arc<RootCertStore>);

/// A bundle of certificates that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// Not PEM.
    #[error("the certificates are not in PEM form: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// Not a certificate.
    #[error("one of the certificates cannot be read: {0}")]
    Certificate(#[from] rustls::Error),
}

impl TrustedRoots {
    /// Those that the operating system trusts. A system without any is no error here: every connection fails instead,
    /// and says so.
    #[must_use]
    pub fn system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            warn!(%error, "A certificate authority of the system cannot be read: {error}");
        }
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            warn!("The system has no certificate authorities, so no https receiver can be verified");
        }
        Self(Arc::new(roots))
    }

    /// None at all, to add to.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// These and the certificates of a PEM bundle.
    ///
    /// # Errors
    /// When the bundle holds something else.
    pub fn with_pem(mut self, bundle: &[u8]) -> Result<Self, RootsError> {
        let roots = Arc::make_mut(&mut self.0);
        for certificate in CertificateDer::pem_slice_iter(bundle) {
            roots.add(certificate?)?;
        }
        Ok(self)
    }

    /// The settings of outgoing connections: TLS 1.2 and 1.3, `http/1.1`.
    pub(super) fn config(&self) -> Result<ClientConfig, rustls::Error> {
        self.config_with(None)
    }

    /// The same with a certificate to show, if there is one.
    pub(super) fn config_with(&self, identity: Option<&Arc<CertifiedKey>>) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.0));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity)))),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Whether these are the very ones that `other` is.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Given to every connection, because the process default may be another one, or none.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// What went wrong in a handshake, for the owner of the receiver.
pub(super) fn handshake_text(error: &io::Error) -> String {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the receiver's certificate has expired".to_owned(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the receiver's certificate is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the receiver's certificate is for another host".to_owned()
            }
            CertificateError::UnknownIssuer => "the receiver's certificate is not from a trusted authority".to_owned(),
            CertificateError::Other(reason) => {
                format!("the receiver's certificate is not acceptable, as self-made ones often are not: {reason}")
            }
            other => format!("the receiver's certificate is not valid: {other}"),
        },
        Some(error) => format!("no agreement on TLS: {error}"),
        None => "the connection broke during the TLS handshake".to_owned(),
    }
}

/// The TLS error inside an error of a connection.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
