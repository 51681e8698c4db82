//! Whom one subscription believes instead of whom the machine does, and the certificate that it shows.
//!
//! Subscriptions with the same certificates share what is made of them: there may be a hundred thousand.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use rustls::InconsistentKeys;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;

use super::tls::{TrustedRoots, provider};
use crate::domain::profile::Overrides;

/// Certificates of a bundle or a chain, at most.
const CERTIFICATES_MAX: usize = 64;

/// Certificates that cannot be used. The texts never hold any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Of `caBundle`.
    #[error("caBundle {0}")]
    CaBundle(String),
    /// Of `clientCertificate`.
    #[error("clientCertificate {0}")]
    ClientCertificate(String),
    /// Of `clientKey`.
    #[error("clientKey {0}")]
    ClientKey(&'static str),
}

/// What is shown to whom, made once for the machine's roots of a sender.
struct Made {
    machine: TrustedRoots,
    receiver: TlsConnector,
    tokens: TlsConnector,
}

/// The certificates of a subscription.
pub(super) struct Trust {
    bundle: Option<String>,
    roots: Option<TrustedRoots>,
    identity: Option<Arc<CertifiedKey>>,
    made: Mutex<Option<Made>>,
    digest: [u8; 32],
}

static SHARED: LazyLock<Mutex<HashMap<[u8; 32], Weak<Trust>>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).take(CERTIFICATES_MAX + 1).collect();
    match parsed {
        Err(_) => Err("is no PEM of certificates".to_owned()),
        Ok(parsed) if parsed.is_empty() => Err("holds no certificate".to_owned()),
        Ok(parsed) if parsed.len() > CERTIFICATES_MAX => Err(format!("holds more than {CERTIFICATES_MAX} certificates")),
        Ok(parsed) => Ok(parsed),
    }
}

fn roots(bundle: &str) -> Result<TrustedRoots, TrustError> {
    certificates(bundle).map_err(TrustError::CaBundle)?;
    let unusable = |_| TrustError::CaBundle("holds a certificate that cannot be read".to_owned());
    TrustedRoots::none().with_pem(bundle.as_bytes()).map_err(unusable)
}

fn identity(chain: &str, key: &str) -> Result<CertifiedKey, TrustError> {
    let chain = certificates(chain).map_err(TrustError::ClientCertificate)?;
    let unreadable = |_| TrustError::ClientKey("is no PEM of PKCS#8, PKCS#1 or SEC1 without a password");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(unreadable)?;
    let unusable = |_| TrustError::ClientKey("is none of RSA from 2048 bits, P-256, P-384, P-521 and Ed25519");
    let key = provider().key_provider.load_private_key(key).map_err(unusable)?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch | InconsistentKeys::Unknown)) => {
            Err(TrustError::ClientKey("does not belong to the first certificate of clientCertificate"))
        }
        Err(_) => Err(TrustError::ClientCertificate("begins with a certificate that cannot be read".to_owned())),
    }
}

impl Trust {
    /// What the overrides of a subscription say; none when they say nothing.
    ///
    /// # Errors
    /// Names the member that cannot be used.
    pub fn of(overrides: &Overrides) -> Result<Option<Arc<Self>>, TrustError> {
        let Overrides { ca_bundle, client_certificate, client_key, .. } = overrides;
        if ca_bundle.is_none() && client_certificate.is_none() {
            return Ok(None);
        }
        let mut digest = Sha256::new();
        for part in [ca_bundle.as_ref(), client_certificate.as_ref(), client_key.as_ref().map(|key| &key.0)] {
            digest.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            digest.update(part.map_or("", String::as_str));
        }
        let digest: [u8; 32] = digest.finalize().into();
        if let Some(shared) = lock(&SHARED).get(&digest).and_then(Weak::upgrade) {
            return Ok(Some(shared));
        }
        let identity = match (client_certificate, client_key) {
            (Some(chain), Some(key)) => Some(Arc::new(self::identity(chain, &key.0)?)),
            (Some(_), None) => return Err(TrustError::ClientKey("is missing")),
            (None, _) => None,
        };
        let roots = ca_bundle.as_deref().map(self::roots).transpose()?;
        let trust = Arc::new(Self { bundle: ca_bundle.clone(), roots, identity, made: Mutex::default(), digest });
        let mut shared = lock(&SHARED);
        if shared.len() == shared.capacity() {
            shared.retain(|_, trust| trust.strong_count() > 0);
        }
        shared.insert(digest, Arc::downgrade(&trust));
        Ok(Some(trust))
    }

    /// Tells these certificates from all others.
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// For connections to the receiver: the bundle instead of the machine's roots, and the certificate.
    pub fn for_receiver(&self, machine: &TrustedRoots) -> Result<TlsConnector, rustls::Error> {
        self.made(machine, |made| made.receiver.clone())
    }

    /// For connections to the token service, which may be somebody else's: the bundle beside the machine's roots, and no
    /// certificate.
    pub fn for_tokens(&self, machine: &TrustedRoots) -> Result<TlsConnector, rustls::Error> {
        self.made(machine, |made| made.tokens.clone())
    }

    fn made(&self, machine: &TrustedRoots, pick: fn(&Made) -> TlsConnector) -> Result<TlsConnector, rustls::Error> {
        let mut made = lock(&self.made);
        if let Some(made) = made.as_ref().filter(|made| made.machine.is(machine)) {
            return Ok(pick(made));
        }
        let both = match &self.bundle {
            None => machine.clone(),
            // It was read when this was made.
            Some(bundle) => machine.clone().with_pem(bundle.as_bytes()).unwrap_or_else(|_| machine.clone()),
        };
        let connector = |config| TlsConnector::from(Arc::new(config));
        let receiver = self.roots.as_ref().unwrap_or(machine).config_with(self.identity.as_ref()).map(connector)?;
        let fresh = Made { receiver, tokens: both.config().map(connector)?, machine: machine.clone() };
        Ok(pick(made.insert(fresh)))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn bundle() -> String {
        CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn overrides(bundle: &str) -> Overrides {
        Overrides { ca_bundle: Some(bundle.to_owned()), ..Overrides::default() }
    }

    #[test]
    fn subscriptions_with_the_same_certificates_share_them() {
        let (one, other) = (bundle(), bundle());
        let trust = |bundle: &str| Trust::of(&overrides(bundle)).unwrap().unwrap();
        let (first, second, third) = (trust(&one), trust(&one), trust(&other));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &third));
        // Made once for a sender's roots, and again for those of another.
        let (machine, another) = (TrustedRoots::none(), TrustedRoots::none());
        let made_for = |roots: &TrustedRoots| lock(&first.made).as_ref().is_some_and(|made| made.machine.is(roots));
        first.for_receiver(&machine).unwrap();
        second.for_tokens(&machine).unwrap();
        assert!(made_for(&machine) && !made_for(&another));
        second.for_receiver(&another).unwrap();
        assert!(made_for(&another));
        assert!(Trust::of(&Overrides::default()).unwrap().is_none());
    }

    #[test]
    fn what_nobody_uses_any_more_is_forgotten() {
        let digest = Trust::of(&overrides(&bundle())).unwrap().unwrap().digest();
        assert!(lock(&SHARED).get(&digest).is_none_or(|trust| trust.upgrade().is_none()));
    }
}
