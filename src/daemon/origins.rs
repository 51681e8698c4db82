//! What webhooks tell of where they come from, put together from store, settings and catalogue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::error;

use crate::catalog::Catalog;
use crate::domain::company::CompanyId;
use crate::store::Store;
use crate::webhook::{Origin, Origins, RsaKey};

/// The keys that have been read; reading one takes longer than most signatures.
type KeysRead = Mutex<HashMap<CompanyId, Arc<RsaKey>>>;

fn rsa_key(store: &Store, read: &KeysRead, company: CompanyId) -> Option<Arc<RsaKey>> {
    let bytes = store.rsa_key(company)?;
    let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(key) = read.get(&company) {
        return Some(Arc::clone(key));
    }
    match RsaKey::from_pkcs8(&bytes) {
        Ok(key) => {
            let key = Arc::new(key);
            read.insert(company, Arc::clone(&key));
            Some(key)
        }
        Err(error) => {
            error!(company.id = %company, %error, "The RSA key of company {company} cannot be used: {error}");
            None
        }
    }
}

/// The origins of all companies of a store.
pub(super) fn origins(store: Store, catalog: Arc<Catalog>, public_url: &str) -> Origins {
    let public_url: Arc<str> = public_url.into();
    let read = KeysRead::default();
    Origins::new(move |company| Origin {
        public_url: Arc::clone(&public_url),
        slug: store.companies().by_id(company).map(|company| company.slug.as_str().to_owned()).unwrap_or_default(),
        notification_key: store.notification_key(company),
        catalog: Arc::clone(&catalog),
        rsa: rsa_key(&store, &read, company),
    })
}
