//! OAuth clients in the ledger, and which of their assertions have been used.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use sha2::{Digest, Sha256};

use super::keys::{from_grant_record, to_grant_record};
use super::ledger::{COMPANIES, Ledger, record_act};
use super::live::existing;
use super::records::{self, ClientKeyRecord, ClientRecord, ClientSecretRecord};
use super::{Actor, LedgerBusy, StorageFault, Store};
use crate::domain::client::{AudPolicy, Client, ClientId, ClientKey, ClientSecret};
use crate::domain::company::CompanyId;
use crate::domain::time::Timestamp;

/// Id of a client → [`ClientRecord`].
const CLIENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("clients");
/// Hash of (client, `jti`) → until when (µs) it counts as used.
const JTI: TableDefinition<u128, u64> = TableDefinition::new("jti");
/// `(until (µs), hash)` of each row of [`JTI`].
const JTI_DUE: TableDefinition<(u64, u128), ()> = TableDefinition::new("jti_due");

/// How exactly the last use of a client is kept.
const TOUCH_INTERVAL: Duration = Duration::from_secs(3600);
/// Assertions that are remembered; more than a client in good order ever makes in their ten minutes.
const JTI_MAX: u64 = 1_000_000;
/// Rows of assertions that were used up which one act removes.
const JTI_PRUNED_MAX: usize = 64;
/// How much longer a used assertion is kept than it counts, in case the clock is set back.
const JTI_MARGIN: Duration = Duration::from_secs(600);

/// All clients at one moment, the revoked ones too.
#[derive(Debug, Clone, Default)]
pub struct Clients(HashMap<ClientId, Arc<Client>>);

impl Clients {
    /// The client with this id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Arc<Client>> {
        self.0.get(id)
    }

    /// All clients of a company, oldest first.
    #[must_use]
    pub fn of_company(&self, company: CompanyId) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.0.values().filter(|client| client.company == company).cloned().collect();
        all.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        all
    }
}

/// Why something was not done to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The company does not exist.
    #[error("there is no company {0}")]
    NoSuchCompany(CompanyId),
    /// The id is in use.
    #[error("there is already a client with the id `{0}`")]
    IdTaken(ClientId),
    /// No such client in this company.
    #[error("there is no such client")]
    NoSuchClient,
    /// It was revoked, and changes no more.
    #[error("the client was revoked")]
    Revoked,
    /// It has as many keys as a client may have.
    #[error("a client has at most {} keys; remove one first", crate::domain::client::CLIENT_KEYS_MAX)]
    TooManyKeys,
    /// It has the key already, or one of the same name.
    #[error("the client has this key, or one with this `kid`, already")]
    KeyKnown,
    /// It has no such key.
    #[error("the client has no such key")]
    NoSuchKey,
    /// It would be left without a secret and without keys.
    #[error("this is the client's last key, and it has no secret; add another key first, or revoke the client")]
    LastKey,
    /// The ledger cannot take the act.
    #[error(transparent)]
    Busy(#[from] LedgerBusy),
}

/// What became of the `jti` of an assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JtiUse {
    /// It was not used before; now it is, on disk.
    Fresh,
    /// It was used before.
    Replayed,
    /// So many are remembered that this one could not be.
    Full,
}

/// What a new client is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewClient {
    /// Its id.
    pub id: ClientId,
    /// What it may do, for which company; the company must be there.
    pub grant: crate::domain::key::Grant,
    /// Its company.
    pub company: CompanyId,
    /// Which audience its assertions may name.
    pub aud_policy: AudPolicy,
    /// Its secret, if it gets one.
    pub secret: Option<ClientSecret>,
    /// Its first keys.
    pub keys: Vec<ClientKey>,
}

fn to_record(client: &Client) -> ClientRecord {
    let key = |key: &ClientKey| ClientKeyRecord {
        id: key.id.clone(),
        kid: key.kid.clone(),
        spki: key.spki.clone(),
        x5t: key.x5t.clone(),
        x5t_s256: key.x5t_s256.clone(),
        not_after_us: key.not_after.map(Timestamp::as_micros),
        added_us: key.added.as_micros(),
    };
    let secret = |secret: &ClientSecret| ClientSecretRecord { hash: secret.hash.to_vec(), ends_us: secret.ends.map(Timestamp::as_micros) };
    ClientRecord {
        company: client.company.0,
        grant: to_grant_record(&client.grant),
        by_token_endpoint: client.aud_policy == AudPolicy::TokenEndpoint,
        secrets: client.secrets.iter().map(secret).collect(),
        keys: client.keys.iter().map(key).collect(),
        created_us: client.created.as_micros(),
        revoked_us: client.revoked.map(Timestamp::as_micros),
        last_used_us: client.last_used.map(Timestamp::as_micros),
    }
}

fn read(id: &str, record: &[u8]) -> Result<Client, StorageFault> {
    let record: ClientRecord = records::decode(record)?;
    let damaged = || StorageFault::Record(format!("client {id}"));
    let key = |key: ClientKeyRecord| ClientKey {
        id: key.id,
        kid: key.kid,
        spki: key.spki,
        x5t: key.x5t,
        x5t_s256: key.x5t_s256,
        not_after: key.not_after_us.map(Timestamp::from_micros),
        added: Timestamp::from_micros(key.added_us),
    };
    let secret = |secret: ClientSecretRecord| {
        let hash = secret.hash.try_into().map_err(|_| damaged())?;
        Ok(ClientSecret { hash, ends: secret.ends_us.map(Timestamp::from_micros) })
    };
    Ok(Client {
        id: id.parse().map_err(|_| damaged())?,
        company: CompanyId(record.company),
        grant: from_grant_record(record.grant).ok_or_else(damaged)?,
        aud_policy: if record.by_token_endpoint { AudPolicy::TokenEndpoint } else { AudPolicy::Issuer },
        secrets: record.secrets.into_iter().map(secret).collect::<Result<_, StorageFault>>()?,
        keys: record.keys.into_iter().map(key).collect(),
        created: Timestamp::from_micros(record.created_us),
        revoked: record.revoked_us.map(Timestamp::from_micros),
        last_used: record.last_used_us.map(Timestamp::from_micros),
    })
}

/// All clients of the ledger.
pub(super) fn load(ledger: &Ledger) -> Result<Clients, StorageFault> {
    let mut clients = Clients::default();
    let transaction = ledger.read()?;
    if let Some(table) = existing(transaction.open_table(CLIENTS))? {
        for row in table.iter()? {
            let (id, record) = row?;
            let client = read(id.value(), record.value())?;
            clients.0.insert(client.id.clone(), Arc::new(client));
        }
    }
    Ok(clients)
}

fn find(transaction: &WriteTransaction, id: &ClientId) -> Result<Option<Client>, StorageFault> {
    let table = transaction.open_table(CLIENTS)?;
    let stored = table.get(id.as_str())?.map(|record| record.value().to_vec());
    stored.map(|record| read(id.as_str(), &record)).transpose()
}

fn write(transaction: &WriteTransaction, client: &Client) -> Result<(), StorageFault> {
    let record = records::encode(&to_record(client))?;
    transaction.open_table(CLIENTS)?.insert(client.id.as_str(), record.as_slice())?;
    Ok(())
}

/// What stands for the `jti` of a client; 128 bits, so that no two of a million are ever taken for one.
fn jti_hash(client: &ClientId, jti: &str) -> u128 {
    let digest = Sha256::new().chain_update(client.as_str()).chain_update([0]).chain_update(jti).finalize();
    digest.first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

fn use_jti(transaction: &WriteTransaction, hash: u128, until: Timestamp, now: Timestamp, rows_max: u64) -> Result<JtiUse, StorageFault> {
    let mut used = transaction.open_table(JTI)?;
    let mut due = transaction.open_table(JTI_DUE)?;
    let over = now.before(JTI_MARGIN).as_micros();
    let mut pruned = Vec::new();
    for row in due.range(..(over, 0))?.take(JTI_PRUNED_MAX) {
        pruned.push(row?.0.value());
    }
    for (until, hash) in pruned {
        due.remove((until, hash))?;
        used.remove(hash)?;
    }
    let known = used.get(hash)?.map(|until| until.value());
    if let Some(known) = known {
        if known >= now.as_micros() {
            return Ok(JtiUse::Replayed);
        }
        due.remove((known, hash))?;
    } else if used.len()? >= rows_max {
        return Ok(JtiUse::Full);
    }
    used.insert(hash, until.as_micros())?;
    due.insert((until.as_micros(), hash), ())?;
    Ok(JtiUse::Fresh)
}

impl Store {
    /// All clients at this moment.
    #[must_use]
    pub fn clients(&self) -> Arc<Clients> {
        self.inner.clients.load_full()
    }

    /// Creates a client; it is on disk when this is done.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_client(&self, new: NewClient, actor: &Actor) -> Result<Client, ClientError> {
        let (inner, actor, at) = (Arc::clone(&self.inner), actor.clone(), self.inner.now());
        let created = self.inner.ledger.submit(
            move |transaction| {
                if transaction.open_table(COMPANIES)?.get(new.company.0)?.is_none() {
                    return Ok(Err(ClientError::NoSuchCompany(new.company)));
                }
                if find(transaction, &new.id)?.is_some() {
                    return Ok(Err(ClientError::IdTaken(new.id)));
                }
                let client = Client {
                    id: new.id,
                    company: new.company,
                    grant: new.grant,
                    aud_policy: new.aud_policy,
                    secrets: new.secret.into_iter().collect(),
                    keys: new.keys,
                    created: at,
                    revoked: None,
                    last_used: None,
                };
                write(transaction, &client)?;
                record_act(transaction, at, &actor, "client.create", &format!("client:{}", client.id), &client.grant.name)?;
                Ok(Ok(client))
            },
            move |outcome: &Result<Client, ClientError>| {
                if let Ok(client) = outcome {
                    inner.keep_client(client);
                }
            },
        )?;
        created.await.map_err(|_| ClientError::Busy(LedgerBusy::Ended))?
    }

    /// Does `act` to a client of `company`: `change` decides on it as it is in the ledger, and says what was done in words
    /// for the audit log. None in place of words: nothing is to be done.
    ///
    /// # Errors
    /// What `change` refuses with; `NoSuchClient`, `Revoked` and `Busy`.
    pub async fn change_client(
        &self,
        id: &ClientId,
        company: CompanyId,
        act: &'static str,
        actor: &Actor,
        change: impl FnOnce(&mut Client, Timestamp) -> Result<Option<String>, ClientError> + Send + 'static,
    ) -> Result<Client, ClientError> {
        let (inner, actor, at, id) = (Arc::clone(&self.inner), actor.clone(), self.inner.now(), id.clone());
        let changed = self.inner.ledger.submit(
            move |transaction| {
                let Some(mut client) = find(transaction, &id)?.filter(|client| client.company == company) else {
                    return Ok(Err(ClientError::NoSuchClient));
                };
                match change(&mut client, at) {
                    Err(refusal) => return Ok(Err(refusal)),
                    Ok(None) => {}
                    Ok(Some(detail)) => {
                        write(transaction, &client)?;
                        record_act(transaction, at, &actor, act, &format!("client:{id}"), &detail)?;
                    }
                }
                Ok(Ok(client))
            },
            move |outcome: &Result<Client, ClientError>| {
                if let Ok(client) = outcome {
                    inner.keep_client(client);
                }
            },
        )?;
        changed.await.map_err(|_| ClientError::Busy(LedgerBusy::Ended))?
    }

    /// Notes that a client got a token; kept to the hour and not waited for.
    pub fn touch_client(&self, client: &Client, now: Timestamp) {
        if client.last_used.is_some_and(|last| now.since(last) < TOUCH_INTERVAL) {
            return;
        }
        let (inner, id) = (Arc::clone(&self.inner), client.id.clone());
        let submitted = self.inner.ledger.submit(
            move |transaction| {
                let Some(client) = find(transaction, &id)? else { return Ok(None) };
                let touched = Client { last_used: Some(now), ..client };
                write(transaction, &touched)?;
                Ok(Some(touched))
            },
            move |touched: &Option<Client>| {
                if let Some(client) = touched {
                    inner.keep_client(client);
                }
            },
        );
        // A full queue costs the exactness of "last used", nothing else.
        drop(submitted);
    }

    /// Uses up the `jti` of one of a client's assertions, for good until `until`; on disk when this is done.
    ///
    /// # Errors
    /// When the ledger cannot take the act.
    pub async fn use_jti(&self, client: &ClientId, jti: &str, until: Timestamp, now: Timestamp) -> Result<JtiUse, LedgerBusy> {
        let hash = jti_hash(client, jti);
        let used = self.inner.ledger.submit(move |transaction| use_jti(transaction, hash, until, now, JTI_MAX), |_| {})?;
        used.await.map_err(|_| LedgerBusy::Ended)
    }
}

impl super::Inner {
    /// Puts a client into the snapshot. Only the ledger's writer calls this, in the order of its commits.
    fn keep_client(&self, client: &Client) {
        let client = Arc::new(client.clone());
        self.clients.rcu(|clients| {
            let mut clients = Clients::clone(clients);
            clients.0.insert(client.id.clone(), Arc::clone(&client));
            clients
        });
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_jti_is_used_once_until_its_time_and_then_forgotten() {
        let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        let take = |hash: u128, until: u64, now: u64, max: u64| use_jti(&transaction, hash, at(until), at(now), max).unwrap();
        assert_eq!(take(1, 100, 10, 3), JtiUse::Fresh);
        assert_eq!(take(1, 100, 10, 3), JtiUse::Replayed);
        assert_eq!(take(1, 400, 100, 3), JtiUse::Replayed);
        assert_eq!(take(1, 200, 101, 3), JtiUse::Fresh);
        assert_eq!(take(1, 200, 200, 3), JtiUse::Replayed);
        assert_eq!(take(2, 300, 101, 3), JtiUse::Fresh);
        assert_eq!(take(3, 300, 101, 3), JtiUse::Fresh);
        assert_eq!(take(4, 300, 101, 3), JtiUse::Full);
        // Set back, the clock finds the used ones again; long after, they make room.
        assert_eq!(take(1, 200, 150, 3), JtiUse::Replayed);
        assert_eq!(take(4, 2000, 901, 3), JtiUse::Fresh);
        assert_eq!(transaction.open_table(JTI).unwrap().len().unwrap(), 1);
        assert_eq!(transaction.open_table(JTI_DUE).unwrap().len().unwrap(), 1);
    }

    #[test]
    fn one_jti_of_two_clients_is_two() {
        let client = |id: &str| id.parse::<ClientId>().unwrap();
        assert_ne!(jti_hash(&client("a"), "b"), jti_hash(&client("b"), "b"));
        assert_ne!(jti_hash(&client("ab"), "c"), jti_hash(&client("a"), "bc"));
    }
}
