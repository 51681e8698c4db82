//! The keys that access tokens are signed with. They lie sealed under the master key; the next one is made, and can be
//! published, a whole period before it signs.

use std::sync::Arc;
use std::time::Duration;

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use zeroize::Zeroizing;

use super::ledger::{Ledger, record_act};
use super::live::existing;
use super::records::{self, TokenKeyRecord};
use super::secrets::{MasterKey, SecretError};
use super::{Actor, LedgerBusy, StorageFault, Store};
use crate::domain::time::Timestamp;

/// Number of a key, counted from 1 → [`TokenKeyRecord`].
const TOKEN_KEYS: TableDefinition<u64, &[u8]> = TableDefinition::new("token_keys");

/// A key that signs access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// Counted from 1.
    pub number: u64,
    /// From when on it signs, until the next one does.
    pub signs_from: Timestamp,
    /// The private key, PKCS #8.
    pub pkcs8: Zeroizing<Vec<u8>>,
}

/// Why the keys were not renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyError {
    /// A key cannot be sealed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The ledger cannot take the act.
    #[error(transparent)]
    Busy(#[from] LedgerBusy),
}

/// How keys follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// How long a key signs.
    pub period: Duration,
    /// How long after its last signature a key is kept: what it signed must be verified.
    pub kept: Duration,
}

impl Rotation {
    /// Whether there is a key that signs now and one that follows it.
    #[must_use]
    pub fn is_settled(keys: &[Arc<TokenKey>], now: Timestamp) -> bool {
        keys.len() >= 2 && keys.last().is_some_and(|last| last.signs_from > now)
    }
}

/// The name under which a key is sealed.
fn sealed_name(number: u64) -> String {
    format!("token_key/{number}")
}

fn read(number: u64, record: &[u8], master: &MasterKey) -> Result<Result<TokenKey, SecretError>, StorageFault> {
    let record: TokenKeyRecord = records::decode(record)?;
    let signs_from = Timestamp::from_micros(record.signs_from_us);
    Ok(master.open(&sealed_name(number), &record.sealed).map(|pkcs8| TokenKey { number, signs_from, pkcs8 }))
}

/// All keys of the ledger, oldest first.
pub(super) fn load(ledger: &Ledger, master: &MasterKey) -> Result<Result<Vec<Arc<TokenKey>>, SecretError>, StorageFault> {
    let mut keys = Vec::new();
    let transaction = ledger.read()?;
    if let Some(table) = existing(transaction.open_table(TOKEN_KEYS))? {
        for row in table.iter()? {
            let (number, record) = row?;
            match read(number.value(), record.value(), master)? {
                Ok(key) => keys.push(Arc::new(key)),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    Ok(Ok(keys))
}

/// Adds what is missing of a key that signs and one that follows, from `fresh`, and drops what nothing is verified with.
fn renew(
    known: &[Arc<TokenKey>],
    fresh: [Zeroizing<Vec<u8>>; 2],
    rotation: Rotation,
    now: Timestamp,
) -> (Vec<Arc<TokenKey>>, Vec<Arc<TokenKey>>) {
    let mut kept: Vec<Arc<TokenKey>> = Vec::new();
    for (place, key) in known.iter().enumerate() {
        let ended = known.get(place + 1).map(|next| next.signs_from);
        if ended.is_none_or(|ended| ended.after(rotation.kept) > now) {
            kept.push(Arc::clone(key));
        }
    }
    let mut added = Vec::new();
    let mut last = kept.last().map(|last| (last.number, last.signs_from));
    for pkcs8 in fresh {
        let (number, signs_from) = match last {
            None => (1, now),
            Some((number, signs_from)) if signs_from <= now => (number + 1, now.after(rotation.period)),
            Some(_) => break,
        };
        last = Some((number, signs_from));
        added.push(Arc::new(TokenKey { number, signs_from, pkcs8 }));
    }
    (kept, added)
}

fn write(
    transaction: &WriteTransaction,
    known: &[Arc<TokenKey>],
    kept: &[Arc<TokenKey>],
    added: &[Arc<TokenKey>],
    master: &MasterKey,
) -> Result<Result<(), SecretError>, StorageFault> {
    let mut rows = Vec::new();
    for key in added {
        match master.seal(&sealed_name(key.number), &key.pkcs8) {
            Ok(sealed) => rows.push((key.number, TokenKeyRecord { signs_from_us: key.signs_from.as_micros(), sealed })),
            Err(error) => return Ok(Err(error)),
        }
    }
    let mut table = transaction.open_table(TOKEN_KEYS)?;
    for (number, record) in rows {
        table.insert(number, records::encode(&record)?.as_slice())?;
    }
    for key in known.iter().filter(|key| !kept.contains(key)) {
        table.remove(key.number)?;
    }
    Ok(Ok(()))
}

impl Store {
    /// The keys that tokens are signed and verified with, oldest first; the last one is to sign next.
    #[must_use]
    pub fn token_keys(&self) -> Arc<Vec<Arc<TokenKey>>> {
        self.inner.token_keys.load_full()
    }

    /// Sees to it that there is a key that signs and one that follows; `fresh` are private keys that may be used for it.
    ///
    /// # Errors
    /// See [`TokenKeyError`].
    pub async fn renew_token_keys(&self, fresh: [Zeroizing<Vec<u8>>; 2], rotation: Rotation, now: Timestamp) -> Result<(), TokenKeyError> {
        let (inner, writer) = (Arc::clone(&self.inner), Arc::clone(&self.inner));
        let renewed = self.inner.ledger.submit(
            move |transaction| {
                // The snapshot is what the ledger holds: only the ledger's writer changes it, after each commit.
                let known = inner.token_keys.load_full();
                let (kept, added) = renew(&known, fresh, rotation, now);
                if let Err(error) = write(transaction, &known, &kept, &added, &inner.master)? {
                    return Ok(Err(error));
                }
                let actor = Actor { name: "lutine".to_owned(), request_id: None };
                for key in &added {
                    let detail = format!("signs from {}", key.signs_from);
                    record_act(transaction, now, &actor, "token_key.create", &format!("token_key:{}", key.number), &detail)?;
                }
                Ok(Ok(kept.into_iter().chain(added).collect::<Vec<_>>()))
            },
            move |outcome: &Result<Vec<Arc<TokenKey>>, SecretError>| {
                if let Ok(keys) = outcome {
                    writer.token_keys.store(Arc::new(keys.clone()));
                }
            },
        )?;
        renewed.await.map_err(|_| LedgerBusy::Ended)??;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROTATION: Rotation = Rotation { period: Duration::from_secs(1000), kept: Duration::from_secs(100) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn step(known: &[Arc<TokenKey>], now: u64) -> Vec<Arc<TokenKey>> {
        let fresh = [1, 2].map(|byte| Zeroizing::new(vec![byte; 4]));
        let (kept, added) = renew(known, fresh, ROTATION, at(now));
        kept.into_iter().chain(added).collect()
    }

    fn numbers(keys: &[Arc<TokenKey>]) -> Vec<(u64, u64)> {
        keys.iter().map(|key| (key.number, key.signs_from.as_seconds())).collect()
    }

    #[test]
    fn the_next_key_is_there_a_period_before_it_signs() {
        let first = step(&[], 5);
        assert_eq!(numbers(&first), [(1, 5), (2, 1005)]);
        assert!(Rotation::is_settled(&first, at(1004)) && !Rotation::is_settled(&first, at(1005)));
        assert!(!Rotation::is_settled(&[], at(0)));
        assert_eq!(numbers(&step(&first, 900)), numbers(&first));
        let second = step(&first, 1005);
        assert_eq!(numbers(&second), [(1, 5), (2, 1005), (3, 2005)]);
    }

    #[test]
    fn a_key_is_dropped_when_nothing_it_signed_can_live() {
        let keys = step(&step(&step(&[], 5), 1005), 2005);
        assert_eq!(numbers(&keys), [(2, 1005), (3, 2005), (4, 3005)]);
        assert_eq!(numbers(&step(&keys, 2104)), [(2, 1005), (3, 2005), (4, 3005)]);
        assert_eq!(numbers(&step(&keys, 2105)), [(3, 2005), (4, 3005)]);
    }

    #[test]
    fn after_a_long_rest_the_published_key_signs_and_a_new_one_follows() {
        let keys = step(&step(&[], 5), 50_000);
        assert_eq!(numbers(&keys), [(2, 1005), (3, 51_000)]);
    }
}
