//! The RSA keys of companies, sealed in the ledger.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use redb::ReadableTable;
use zeroize::Zeroizing;

use super::ledger::{COMPANIES, Ledger, SECRETS, record_act};
use super::live::existing;
use super::open::OpenError;
use super::{Actor, LedgerBusy, MasterKey, StorageFault, Store, SubscriptionError};
use crate::domain::company::CompanyId;

/// A private key (PKCS #8).
pub type RsaKeyBytes = Arc<Zeroizing<Vec<u8>>>;

const PREFIX: &str = "company:";
const SUFFIX: &str = ":rsa";

/// The name under which a company's key is sealed.
fn name_of(company: CompanyId) -> String {
    format!("{PREFIX}{company}{SUFFIX}")
}

fn company_of(name: &str) -> Option<CompanyId> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok().map(CompanyId)
}

/// All keys of the ledger.
pub(super) fn load(ledger: &Ledger, master: &MasterKey) -> Result<HashMap<CompanyId, RsaKeyBytes>, OpenError> {
    let mut sealed = Vec::new();
    let transaction = ledger.read()?;
    if let Some(table) = existing(transaction.open_table(SECRETS))? {
        for row in table.range(PREFIX..).map_err(StorageFault::from)? {
            let (name, key) = row.map_err(StorageFault::from)?;
            if !name.value().starts_with(PREFIX) {
                break;
            }
            sealed.extend(company_of(name.value()).map(|company| (company, key.value().to_vec())));
        }
    }
    let mut keys = HashMap::new();
    for (company, key) in sealed {
        keys.insert(company, Arc::new(master.open(&name_of(company), &key)?));
    }
    Ok(keys)
}

impl Store {
    /// The RSA key of a company; none before one was kept.
    #[must_use]
    pub fn rsa_key(&self, company: CompanyId) -> Option<RsaKeyBytes> {
        self.inner.rsa_keys.read().unwrap_or_else(PoisonError::into_inner).get(&company).cloned()
    }

    /// Keeps a company's key, unless there is one: that one is the answer then. It is on disk when this is done.
    ///
    /// # Errors
    /// See [`SubscriptionError`].
    pub async fn keep_rsa_key(&self, company: CompanyId, key: Zeroizing<Vec<u8>>, actor: &Actor) -> Result<RsaKeyBytes, SubscriptionError> {
        let (inner, actor, at) = (Arc::clone(&self.inner), actor.clone(), self.inner.now());
        let master = inner.master.clone();
        let kept = self.inner.ledger.submit(
            move |transaction| {
                if transaction.open_table(COMPANIES)?.get(company.0)?.is_none() {
                    return Ok(Err(SubscriptionError::NoSuchCompany(company)));
                }
                let name = name_of(company);
                let mut table = transaction.open_table(SECRETS)?;
                let stored = table.get(name.as_str())?.map(|sealed| sealed.value().to_vec());
                if let Some(sealed) = stored {
                    return Ok(master.open(&name, &sealed).map(Arc::new).map_err(SubscriptionError::from));
                }
                let sealed = match master.seal(&name, &key) {
                    Ok(sealed) => sealed,
                    Err(error) => return Ok(Err(error.into())),
                };
                table.insert(name.as_str(), sealed.as_slice())?;
                drop(table);
                record_act(transaction, at, &actor, "company.rsa-key", &format!("company:{company}"), "made")?;
                Ok(Ok(Arc::new(key)))
            },
            move |outcome: &Result<RsaKeyBytes, SubscriptionError>| {
                if let Ok(key) = outcome {
                    inner.rsa_keys.write().unwrap_or_else(PoisonError::into_inner).insert(company, Arc::clone(key));
                }
            },
        )?;
        kept.await.map_err(|_| SubscriptionError::Busy(LedgerBusy::Ended))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_key_reads_back() {
        assert_eq!(company_of(&name_of(CompanyId(7))), Some(CompanyId(7)));
        assert_eq!(company_of("company:7:other"), None);
    }
}
