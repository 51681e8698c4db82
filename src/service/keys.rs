//! API keys: making, listing, revoking, and saying who stands behind a request.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::credentials::{Credential, Remembered, Tag};
use super::key_text::{self, FreshKey};
use super::rates::Rates;
use crate::config::Environment;
use crate::domain::company::CompanyId;
use crate::domain::key::{ApiKey, Grant, KeyId, Principal};
use crate::domain::time::Timestamp;
use crate::store::{Actor, KeyError, Store};

/// Draws of a key id before the ledger's answer "in use" is believed to be a fault.
const DRAWS_MAX: usize = 8;

/// Why a presented key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateError {
    /// It has not the form of a key.
    #[error("the key is not well-formed; check that it was copied whole")]
    Malformed,
    /// No key has this id and secret.
    #[error("the key is not known here")]
    Unknown,
    /// It was revoked.
    #[error("the key was revoked")]
    Revoked,
    /// Its time is over.
    #[error("the key has expired")]
    Expired,
}

/// Why a key was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateKeyError {
    /// The operating system gives no random bytes.
    #[error("there is no randomness to make a key from")]
    NoChance(#[from] getrandom::Error),
    /// The ledger refused it.
    #[error(transparent)]
    Ledger(#[from] KeyError),
}

/// The use cases of API keys.
pub struct KeyService {
    store: Store,
    environment: Environment,
    rates: Rates<KeyId>,
    verified: Remembered<(Arc<ApiKey>, Arc<Credential>)>,
}

impl fmt::Debug for KeyService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyService").field("environment", &self.environment).finish_non_exhaustive()
    }
}

impl KeyService {
    pub(super) fn new(store: Store, environment: Environment) -> Result<Self, getrandom::Error> {
        Ok(Self { store, environment, rates: Rates::default(), verified: Remembered::new()? })
    }

    /// Who holds the key with this text.
    ///
    /// # Errors
    /// See [`AuthenticateError`]. An unknown id costs as much time as a wrong secret.
    pub fn authenticate(&self, text: &[u8], now: Timestamp) -> Result<Arc<Credential>, AuthenticateError> {
        let tag = self.verified.tag(text);
        let keys = self.store.keys();
        // A key that was revoked or changed since is another value in the ledger's snapshot.
        let (key, credential) = match self.verified.get(tag) {
            Some((key, credential)) if keys.by_id(key.id).is_some_and(|known| Arc::ptr_eq(known, &key)) => (key, credential),
            _ => self.verify(text, tag, now)?,
        };
        if key.is_over(now) {
            return Err(if key.revoked.is_some() { AuthenticateError::Revoked } else { AuthenticateError::Expired });
        }
        self.store.touch_key(&key, now);
        Ok(credential)
    }

    fn verify(&self, text: &[u8], tag: Tag, now: Timestamp) -> Result<(Arc<ApiKey>, Arc<Credential>), AuthenticateError> {
        let text = std::str::from_utf8(text).map_err(|_| AuthenticateError::Malformed)?;
        let presented = key_text::parse(text).map_err(|_| AuthenticateError::Malformed)?;
        let keys = self.store.keys();
        let key = keys.by_id(presented.id);
        let stored = key.map_or(&[0; 32], |key| &key.secret_hash);
        let is_equal = bool::from(presented.secret_hash(self.store.pepper()).ct_eq(stored));
        let key = key.filter(|_| is_equal).ok_or(AuthenticateError::Unknown)?;
        let windows = self.rates.of(&key.id, now);
        let credential = Arc::new(Credential { principal: Principal::Key(Arc::clone(key)), windows });
        let verified = (Arc::clone(key), credential);
        self.verified.put(tag, verified.clone());
        Ok(verified)
    }

    /// Makes a key; its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// See [`CreateKeyError`].
    pub async fn create(&self, new: Grant, actor: &Actor) -> Result<(ApiKey, Zeroizing<String>), CreateKeyError> {
        for _ in 0..DRAWS_MAX {
            let mut chance = Zeroizing::new([0; 64]);
            getrandom::fill(chance.as_mut())?;
            let made = key_text::make(self.environment, &chance, self.store.pepper());
            let Some(FreshKey { id, text, secret_hash }) = made else { continue };
            match self.store.create_key(id, new.clone(), secret_hash, actor).await {
                Ok(key) => return Ok((key, text)),
                Err(KeyError::IdTaken) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CreateKeyError::Ledger(KeyError::IdTaken))
    }

    /// All keys, oldest first; with `company` only its own.
    #[must_use]
    pub fn list(&self, company: Option<CompanyId>) -> Vec<Arc<ApiKey>> {
        let mut keys = self.store.keys().all();
        if company.is_some() {
            keys.retain(|key| key.grant.company == company);
        }
        keys
    }

    /// Revokes a key, with `company` only one of its own. None when there is no such key.
    ///
    /// # Errors
    /// When the ledger cannot take the act.
    pub async fn revoke(&self, id: KeyId, company: Option<CompanyId>, actor: &Actor) -> Result<Option<ApiKey>, KeyError> {
        self.store.revoke_key(id, company, actor).await
    }
}
