//! API keys: making, listing, revoking, and saying who stands behind a request.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use siphasher::sip128::SipHasher24;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::key_text::{self, FreshKey};
use super::rates::{Rates, Windows};
use crate::config::Environment;
use crate::domain::company::CompanyId;
use crate::domain::key::{ApiKey, KeyId, NewKey, Principal};
use crate::domain::time::Timestamp;
use crate::store::{Actor, KeyError, Store};

/// Keys whose text is remembered as verified.
const REMEMBERED_MAX: usize = 4_096;

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

/// The holder of a verified key and what counts its calls.
#[derive(Debug)]
pub struct Credential {
    /// The key.
    pub key: Arc<ApiKey>,
    /// The same, as who makes a request.
    pub principal: Principal,
    /// Its counters.
    pub windows: Arc<Windows>,
}

impl Credential {
    /// Whether the key may be used from this address.
    #[must_use]
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let networks = &self.key.grant.networks;
        let address = address.to_canonical();
        networks.is_empty() || networks.iter().any(|network| network.contains(&address))
    }
}

/// The use cases of API keys.
pub struct KeyService {
    store: Store,
    environment: Environment,
    rates: Rates,
    /// Under a key of this process, the 128-bit hash of a verified text stands for it; the text is not kept.
    hasher: SipHasher24,
    verified: RwLock<HashMap<u128, Arc<Credential>>>,
}

impl fmt::Debug for KeyService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyService").field("environment", &self.environment).finish_non_exhaustive()
    }
}

impl KeyService {
    pub(super) fn new(store: Store, environment: Environment) -> Result<Self, getrandom::Error> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        let hasher = SipHasher24::new_with_key(&key);
        Ok(Self { store, environment, rates: Rates::default(), hasher, verified: RwLock::default() })
    }

    /// Who holds the key with this text.
    ///
    /// # Errors
    /// See [`AuthenticateError`]. An unknown id costs as much time as a wrong secret.
    pub fn authenticate(&self, text: &[u8], now: Timestamp) -> Result<Arc<Credential>, AuthenticateError> {
        let tag = self.hasher.hash(text).as_u128();
        let keys = self.store.keys();
        let verified = self.verified.read().unwrap_or_else(PoisonError::into_inner).get(&tag).cloned();
        // A key that was revoked or changed since is another value in the ledger's snapshot.
        let credential = match verified {
            Some(credential) if keys.by_id(credential.key.id).is_some_and(|key| Arc::ptr_eq(key, &credential.key)) => credential,
            _ => self.verify(text, tag, now)?,
        };
        let key = &credential.key;
        if key.is_over(now) {
            return Err(if key.revoked.is_some() { AuthenticateError::Revoked } else { AuthenticateError::Expired });
        }
        self.store.touch_key(key, now);
        Ok(credential)
    }

    fn verify(&self, text: &[u8], tag: u128, now: Timestamp) -> Result<Arc<Credential>, AuthenticateError> {
        let text = std::str::from_utf8(text).map_err(|_| AuthenticateError::Malformed)?;
        let presented = key_text::parse(text).map_err(|_| AuthenticateError::Malformed)?;
        let keys = self.store.keys();
        let key = keys.by_id(presented.id);
        let stored = key.map_or(&[0; 32], |key| &key.secret_hash);
        let is_equal = bool::from(presented.secret_hash(self.store.pepper()).ct_eq(stored));
        let key = key.filter(|_| is_equal).ok_or(AuthenticateError::Unknown)?;
        let windows = self.rates.of(key.id, now);
        let credential = Arc::new(Credential { key: Arc::clone(key), principal: Principal::Key(Arc::clone(key)), windows });
        let mut verified = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED_MAX && !verified.contains_key(&tag) {
            verified.clear();
        }
        verified.insert(tag, Arc::clone(&credential));
        Ok(credential)
    }

    /// Makes a key; its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// See [`CreateKeyError`].
    pub async fn create(&self, new: NewKey, actor: &Actor) -> Result<(ApiKey, Zeroizing<String>), CreateKeyError> {
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
