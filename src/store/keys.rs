//! API keys in the ledger.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redb::ReadableTable;

use super::ledger::{COMPANIES, KEYS, Ledger, record_act};
use super::live::existing;
use super::records::{self, GrantRecord, KeyRecord};
use super::{Actor, LedgerBusy, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::key::{ApiKey, Grant, KeyId, RateOverrides};
use crate::domain::scope::{Scope, ScopeSet};
use crate::domain::time::Timestamp;

/// How exactly the last use of a key is kept.
const TOUCH_INTERVAL: Duration = Duration::from_secs(3600);

/// All keys at one moment, the revoked ones too.
#[derive(Debug, Clone, Default)]
pub struct Keys(HashMap<KeyId, Arc<ApiKey>>);

impl Keys {
    /// The key with this id.
    #[must_use]
    pub fn by_id(&self, id: KeyId) -> Option<&Arc<ApiKey>> {
        self.0.get(&id)
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ApiKey>> {
        let mut all: Vec<_> = self.0.values().cloned().collect();
        all.sort_by_key(|key| (key.created, key.id));
        all
    }
}

/// Why a key was not created or revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The company does not exist.
    #[error("there is no company {0}")]
    NoSuchCompany(CompanyId),
    /// The id is in use; another one must be drawn.
    #[error("the key id is in use")]
    IdTaken,
    /// The ledger cannot take the act.
    #[error(transparent)]
    Busy(#[from] LedgerBusy),
}

/// What a grant is stored as.
pub(super) fn to_grant_record(grant: &Grant) -> GrantRecord {
    GrantRecord {
        company: grant.company.map(|company| company.0),
        name: grant.name.clone(),
        scopes: grant.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        rate_read: grant.rates.read,
        rate_write: grant.rates.write,
        rate_admin: grant.rates.admin,
        expires_us: grant.expires.map(Timestamp::as_micros),
        networks: grant.networks.iter().map(ToString::to_string).collect(),
        type_prefixes: grant.type_prefixes.clone(),
    }
}

/// The grant that was stored; none when the record is damaged.
pub(super) fn from_grant_record(record: GrantRecord) -> Option<Grant> {
    let scopes: Result<ScopeSet, _> = record.scopes.iter().map(|scope| scope.parse::<Scope>()).collect();
    let networks: Result<Vec<ipnet::IpNet>, _> = record.networks.iter().map(|network| network.parse()).collect();
    Some(Grant {
        company: record.company.map(CompanyId),
        name: record.name,
        scopes: scopes.ok()?,
        rates: RateOverrides { read: record.rate_read, write: record.rate_write, admin: record.rate_admin },
        expires: record.expires_us.map(Timestamp::from_micros),
        networks: networks.ok()?,
        type_prefixes: record.type_prefixes,
    })
}

fn to_record(key: &ApiKey) -> KeyRecord {
    let grant = to_grant_record(&key.grant);
    KeyRecord {
        company: grant.company,
        name: grant.name,
        scopes: grant.scopes,
        rate_read: grant.rate_read,
        rate_write: grant.rate_write,
        rate_admin: grant.rate_admin,
        expires_us: grant.expires_us,
        networks: grant.networks,
        type_prefixes: grant.type_prefixes,
        secret_hash: key.secret_hash.to_vec(),
        created_us: key.created.as_micros(),
        revoked_us: key.revoked.map(Timestamp::as_micros),
        last_used_us: key.last_used.map(Timestamp::as_micros),
    }
}

fn read(id: &[u8], record: &[u8]) -> Result<ApiKey, StorageFault> {
    let record: KeyRecord = records::decode(record)?;
    let damaged = || StorageFault::Record(format!("key {}", String::from_utf8_lossy(id)));
    let id: KeyId = std::str::from_utf8(id).ok().and_then(|text| text.parse().ok()).ok_or_else(damaged)?;
    let grant = GrantRecord {
        company: record.company,
        name: record.name,
        scopes: record.scopes,
        rate_read: record.rate_read,
        rate_write: record.rate_write,
        rate_admin: record.rate_admin,
        expires_us: record.expires_us,
        networks: record.networks,
        type_prefixes: record.type_prefixes,
    };
    Ok(ApiKey {
        id,
        grant: from_grant_record(grant).ok_or_else(damaged)?,
        secret_hash: record.secret_hash.try_into().map_err(|_| damaged())?,
        created: Timestamp::from_micros(record.created_us),
        revoked: record.revoked_us.map(Timestamp::from_micros),
        last_used: record.last_used_us.map(Timestamp::from_micros),
    })
}

/// All keys of the ledger.
pub(super) fn load(ledger: &Ledger) -> Result<Keys, StorageFault> {
    let mut keys = Keys::default();
    let transaction = ledger.read()?;
    if let Some(table) = existing(transaction.open_table(KEYS))? {
        for row in table.iter()? {
            let (id, record) = row?;
            let key = read(id.value(), record.value())?;
            keys.0.insert(key.id, Arc::new(key));
        }
    }
    Ok(keys)
}

impl Store {
    /// All keys at this moment.
    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        self.inner.keys.load_full()
    }

    /// Creates a key; it is on disk when this is done. `secret_hash` is the HMAC of its secret.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn create_key(&self, id: KeyId, new: Grant, secret_hash: [u8; 32], actor: &Actor) -> Result<ApiKey, KeyError> {
        let (inner, actor, at) = (Arc::clone(&self.inner), actor.clone(), self.inner.now());
        let created = self.inner.ledger.submit(
            move |transaction| {
                if let Some(company) = new.company
                    && transaction.open_table(COMPANIES)?.get(company.0)?.is_none()
                {
                    return Ok(Err(KeyError::NoSuchCompany(company)));
                }
                let mut table = transaction.open_table(KEYS)?;
                if table.get(id.as_str().as_bytes())?.is_some() {
                    return Ok(Err(KeyError::IdTaken));
                }
                let key = ApiKey { id, grant: new, secret_hash, created: at, revoked: None, last_used: None };
                table.insert(id.as_str().as_bytes(), records::encode(&to_record(&key))?.as_slice())?;
                drop(table);
                record_act(transaction, at, &actor, "key.create", &format!("key:{id}"), &key.grant.name)?;
                Ok(Ok(key))
            },
            move |outcome: &Result<ApiKey, KeyError>| {
                if let Ok(key) = outcome {
                    inner.keep_key(key.clone());
                }
            },
        )?;
        created.await.map_err(|_| KeyError::Busy(LedgerBusy::Ended))?
    }

    /// Revokes a key from now on; a second time changes nothing. None when there is no such key, or when it is not one
    /// of `company` and that is given.
    ///
    /// # Errors
    /// `Busy` when the ledger cannot take the act.
    pub async fn revoke_key(&self, id: KeyId, company: Option<CompanyId>, actor: &Actor) -> Result<Option<ApiKey>, KeyError> {
        let (inner, actor, at) = (Arc::clone(&self.inner), actor.clone(), self.inner.now());
        let revoked = self.inner.ledger.submit(
            move |transaction| {
                let mut table = transaction.open_table(KEYS)?;
                let stored = table.get(id.as_str().as_bytes())?.map(|record| record.value().to_vec());
                let Some(stored) = stored else { return Ok(None) };
                let mut key = read(id.as_str().as_bytes(), &stored)?;
                if company.is_some() && key.grant.company != company {
                    return Ok(None);
                }
                if key.revoked.is_none() {
                    key.revoked = Some(at);
                    table.insert(id.as_str().as_bytes(), records::encode(&to_record(&key))?.as_slice())?;
                    drop(table);
                    record_act(transaction, at, &actor, "key.revoke", &format!("key:{id}"), &key.grant.name)?;
                }
                Ok(Some(key))
            },
            move |outcome: &Option<ApiKey>| {
                if let Some(key) = outcome {
                    inner.keep_key(key.clone());
                }
            },
        )?;
        revoked.await.map_err(|_| KeyError::Busy(LedgerBusy::Ended))
    }

    /// Notes that a key was used; kept to the hour and not waited for.
    pub fn touch_key(&self, key: &ApiKey, now: Timestamp) {
        if key.last_used.is_some_and(|last| now.since(last) < TOUCH_INTERVAL) {
            return;
        }
        let id = key.id;
        let inner = Arc::clone(&self.inner);
        // Seen in memory at once, so that the next request does not ask again before the commit.
        let touched = move |key: &ApiKey| ApiKey { last_used: Some(now), ..key.clone() };
        inner.keep_key(touched(key));
        let submitted = self.inner.ledger.submit(
            move |transaction| {
                let mut table = transaction.open_table(KEYS)?;
                let stored = table.get(id.as_str().as_bytes())?.map(|record| record.value().to_vec());
                if let Some(stored) = stored {
                    let key = touched(&read(id.as_str().as_bytes(), &stored)?);
                    table.insert(id.as_str().as_bytes(), records::encode(&to_record(&key))?.as_slice())?;
                }
                Ok(())
            },
            |()| {},
        );
        // A full queue costs the exactness of "last used", nothing else.
        drop(submitted);
    }
}

impl super::Inner {
    /// Puts a key into the snapshot; a revocation is never undone by an older copy of the key.
    fn keep_key(&self, key: ApiKey) {
        self.keys.rcu(|keys| {
            let mut keys = Keys::clone(keys);
            let known = keys.0.get(&key.id);
            let revoked = key.revoked.or_else(|| known.and_then(|known| known.revoked));
            let last_used = key.last_used.max(known.and_then(|known| known.last_used));
            keys.0.insert(key.id, Arc::new(ApiKey { revoked, last_used, ..key.clone() }));
            keys
        });
    }
}
