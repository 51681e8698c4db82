//! The RSA keys of companies: made when they are first needed.

use tokio::task::spawn_blocking;

use super::subscriptions::SubscriptionService;
use crate::domain::company::CompanyId;
use crate::store::{Actor, SubscriptionError};
use crate::webhook::{RsaKey, RsaKeyError};

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// It could not be made or read.
    #[error(transparent)]
    Key(#[from] RsaKeyError),
    /// The ledger did not take it.
    #[error(transparent)]
    Store(#[from] SubscriptionError),
}

impl SubscriptionService {
    /// Makes the company's RSA key unless it is there. On a thread of its own: it takes a processor for tenths of a second.
    pub(super) async fn need_rsa_key(&self, company: CompanyId, actor: &Actor) -> Result<(), SigningKeyError> {
        if self.store().rsa_key(company).is_some() {
            return Ok(());
        }
        let made = spawn_blocking(|| RsaKey::generate().and_then(|key| key.to_pkcs8())).await;
        let key = made.unwrap_or(Err(RsaKeyError::Make))?;
        self.store().keep_rsa_key(company, key, actor).await?;
        Ok(())
    }

    /// The public half of the company's RSA key as PEM.
    ///
    /// # Errors
    /// See [`SigningKeyError`].
    pub async fn public_key(&self, company: CompanyId, actor: &Actor) -> Result<String, SigningKeyError> {
        self.need_rsa_key(company, actor).await?;
        Ok(self.origin(company).rsa.ok_or(RsaKeyError::Read)?.public_pem()?)
    }
}
